//! `Mcp-Param-*` headers against the arguments of a tool call (2026-07-28, basic/transports/
//! streamable-http, "Custom Headers from Tool Parameters").
//!
//! A server that speaks HTTP checks them itself. In front of a child process the gateway is the
//! HTTP server, so it learns from `tools/list` which arguments are mirrored, and checks. In front
//! of an HTTP server it learns the same for clients that speak no HTTP, and writes the headers
//! that they would have sent.

use std::collections::HashMap;

use serde_json::Value;
use wire::http1::{Headers, is_token, write_header};

use crate::admission::mirror::{decode, encode, single, single_line};
use crate::limits;
use crate::refusal::Refusal;

/// The mirrored arguments of a server's tools.
#[derive(Debug, Default)]
pub struct Params {
    tools: HashMap<String, Vec<Param>>,
}

/// One mirrored argument.
#[derive(Debug)]
struct Param {
    header: String,
    path: Vec<String>,
}

impl Params {
    /// Learns from one page of `tools/list`: the `result`. Returns the cursor of the next page.
    pub fn learn(&mut self, result: &[u8]) -> Option<String> {
        let page: Value = serde_json::from_slice(result).ok()?;
        for tool in page.get("tools").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let mut params = Vec::new();
            if let Some(schema) = tool.get("inputSchema") {
                collect(schema, &mut Vec::new(), &mut params);
            }
            if params.is_empty() {
                self.tools.remove(name);
            } else if self.tools.len() < limits::LEARN_TOOLS_MAX {
                self.tools.insert(name.to_owned(), params);
            }
        }
        page.get("nextCursor").and_then(Value::as_str).map(str::to_owned)
    }

    /// Appends the header lines of a call of `tool` with these `params` (raw JSON), for a client
    /// that sent none. What would not fit into a head is left out, and the server refuses the call.
    pub fn write(&self, out: &mut Vec<u8>, tool: &[u8], params: &[u8]) {
        let tool = std::str::from_utf8(tool).ok().and_then(|tool| self.tools.get(tool));
        let Some(mirrored) = tool else { return };
        let call: Value = serde_json::from_slice(params).unwrap_or_default();
        let arguments = call.get("arguments").unwrap_or(&Value::Null);
        for Param { header, path } in mirrored {
            let value = path.iter().try_fold(arguments, |value, key| value.get(key));
            let Some(text) = value.and_then(text_of) else { continue };
            let value = encode(text.as_bytes());
            // The server has chosen the name, and it could be anything.
            let is_fine = is_token(header.as_bytes());
            if is_fine && out.len() + header.len() + value.len() < limits::HEAD_LEN_MAX / 2 {
                write_header(out, header, &value);
            }
        }
    }

    /// Checks a call of `tool` with these `params` (raw JSON).
    pub fn check(
        &self,
        headers: &Headers<'_, '_>,
        tool: &[u8],
        params: &[u8],
    ) -> Result<(), Refusal> {
        self.compare(|name| single(headers, name), tool, params)
    }

    /// The same with header lines as they are written.
    pub fn check_lines(&self, lines: &[u8], tool: &[u8], params: &[u8]) -> Result<(), Refusal> {
        self.compare(|name| single_line(lines, name), tool, params)
    }

    fn compare<'h>(
        &self,
        header: impl Fn(&str) -> Result<Option<&'h [u8]>, Refusal>,
        tool: &[u8],
        params: &[u8],
    ) -> Result<(), Refusal> {
        let tool = std::str::from_utf8(tool).ok().and_then(|tool| self.tools.get(tool));
        let Some(mirrored) = tool else { return Ok(()) };
        let call: Value = serde_json::from_slice(params).unwrap_or_default();
        let arguments = call.get("arguments").unwrap_or(&Value::Null);
        for param in mirrored {
            let value = param.path.iter().try_fold(arguments, |value, key| value.get(key));
            if !agree(value.unwrap_or(&Value::Null), header(&param.header)?)? {
                return Err(Refusal::HeaderMismatch);
            }
        }
        Ok(())
    }
}

/// What a header says about an argument: nothing about one that is absent, or that none can hold.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(switch) => Some(switch.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Collects the annotated properties of a schema, reached by `properties` alone.
fn collect(schema: &Value, path: &mut Vec<String>, params: &mut Vec<Param>) {
    const DEPTH_MAX: usize = 16;
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        path.push(key.clone());
        if let Some(name) = property.get("x-mcp-header").and_then(Value::as_str) {
            params.push(Param { header: format!("mcp-param-{name}"), path: path.clone() });
        } else if path.len() < DEPTH_MAX {
            collect(property, path, params);
        }
        path.pop();
    }
}

/// Whether a header says what the argument says. An absent or null argument has no header.
fn agree(value: &Value, header: Option<&[u8]>) -> Result<bool, Refusal> {
    let Some(header) = header else { return Ok(value.is_null()) };
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    if !header.iter().all(is_plain) {
        return Err(Refusal::HeaderMismatch);
    }
    let text = decode(header)?;
    let text = std::str::from_utf8(&text).map_err(|_| Refusal::HeaderMismatch)?;
    Ok(match value {
        Value::String(value) => value == text,
        Value::Bool(value) => text == if *value { "true" } else { "false" },
        Value::Number(number) => is_same_number(number, text),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    })
}

/// Numbers are compared as numbers: `42.0` is 42.
fn is_same_number(number: &serde_json::Number, text: &str) -> bool {
    let Ok(other) = serde_json::from_str::<serde_json::Number>(text) else { return false };
    match (number.as_i64(), other.as_i64()) {
        (Some(one), Some(two)) => one == two,
        _ => number
            .as_f64()
            .zip(other.as_f64())
            .is_some_and(|(one, two)| one.total_cmp(&two).is_eq()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_the_arguments_say() {
        use serde_json::json;
        let check = |value: Value, header: Option<&str>, expected: bool| {
            let agreed = agree(&value, header.map(str::as_bytes)).unwrap_or(false);
            assert_eq!(agreed, expected, "{value} {header:?}");
        };
        check(json!("eu"), Some("eu"), true);
        check(json!("eu"), Some("EU"), false);
        check(json!("é"), Some("=?base64?w6k=?="), true);
        check(json!("é"), Some("é"), false);
        check(json!(42), Some("42"), true);
        check(json!(42), Some("42.0"), true);
        check(json!(42), Some("43"), false);
        check(json!(true), Some("true"), true);
        check(json!(null), None, true);
        check(json!(null), Some("x"), false);
        check(json!("eu"), None, false);
    }

    #[test]
    fn what_is_written_agrees() {
        let mut params = Params::default();
        let page = r#"{"tools":[{"name":"q","inputSchema":{"properties":{
            "a":{"x-mcp-header":"A"},"b":{"x-mcp-header":"B"},"c":{"x-mcp-header":"C"},
            "d":{"properties":{"e":{"x-mcp-header":"E"}}},
            "f":{"x-mcp-header":"F: x\r\nG"},"h":{"x-mcp-header":"H"}}}}]}"#;
        params.learn(page.as_bytes());
        let write = |tool: &str, call: &str| {
            let mut out = Vec::new();
            params.write(&mut out, tool.as_bytes(), call.as_bytes());
            String::from_utf8(out).unwrap()
        };
        let call = r#"{"arguments":{"a":"\u00fc","b":4.5,"c":null,"d":{"e":true},"f":"x","h":[]}}"#;
        let wanted = "mcp-param-A: =?base64?w7w=?=\r\nmcp-param-B: 4.5\r\nmcp-param-E: true\r\n";
        assert_eq!(write("q", call), wanted);
        assert_eq!(write("other", call), "");
        assert_eq!(write("q", "{}"), "");
        let long = format!(r#"{{"arguments":{{"a":"{}","b":1}}}}"#, "x".repeat(20_000));
        assert_eq!(write("q", &long), "mcp-param-B: 1\r\n");
    }

    #[test]
    fn tools_are_learned_page_by_page() {
        let mut params = Params::default();
        let page = br#"{"tools":[{"name":"q","inputSchema":{"properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "deep":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}}],
            "nextCursor":"two"}"#;
        assert_eq!(params.learn(page).as_deref(), Some("two"));
        let mut headers: Vec<&str> = params.tools["q"].iter().map(|param| &*param.header).collect();
        headers.sort_unstable();
        assert_eq!(headers, ["mcp-param-N", "mcp-param-Region"]);
        assert_eq!(params.learn(br#"{"tools":[{"name":"q","inputSchema":{}}]}"#), None);
        assert!(params.tools.is_empty(), "an annotation that is gone is forgotten");
    }
}
