//! What all members of a view say of themselves, as one answer to `initialize` or
//! `server/discover`.

use std::collections::HashMap;

use wire::json::{self, Span};

use crate::federation::list::Freshness;
use crate::federation::value::{find, text_of, token};
use crate::limits;
use crate::message::Revision;

/// What the union offers although a member has not said yet what it has: it may have any of these,
/// and its coming is told by `list_changed`.
const EXPECTED: &[u8] = br#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"listChanged":true}}"#;

/// A member's answer.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The server's name.
    pub name: &'a str,
    /// The `result`; none: it has not answered.
    pub result: Option<&'a [u8]>,
}

/// Appends the `result` of `initialize`.
pub fn write_initialized(out: &mut Vec<u8>, revision: Revision, members: &[Answered<'_>]) {
    out.extend_from_slice(b"{\"protocolVersion\":\"");
    out.extend_from_slice(revision.name().as_bytes());
    out.extend_from_slice(b"\",");
    write_common(out, members);
    out.extend_from_slice(SERVER_INFO);
    out.push(b'}');
}

/// Appends the `result` of `server/discover`.
pub fn write_discovered(out: &mut Vec<u8>, freshness: Freshness, members: &[Answered<'_>]) {
    out.extend_from_slice(b"{\"supportedVersions\":[\"");
    out.extend_from_slice(Revision::V2026_07_28.name().as_bytes());
    out.extend_from_slice(b"\"],");
    write_common(out, members);
    out.extend_from_slice(META_SERVER_INFO);
    freshness.write(out);
    out.push(b'}');
}

/// Who we are, in an answer to `initialize`.
const SERVER_INFO: &[u8] = concat!(
    ",\"serverInfo\":{\"name\":\"mcp-gateway\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\"}"
)
.as_bytes();

/// The same in any result of 2026-07-28.
pub const META_SERVER_INFO: &[u8] = concat!(
    ",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":{\"name\":\"mcp-gateway\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\"}}"
)
.as_bytes();

/// Capabilities and instructions.
fn write_common(out: &mut Vec<u8>, members: &[Answered<'_>]) {
    let mut all: Vec<&[u8]> = Vec::new();
    let mut instructions = String::new();
    for member in members {
        let Some(result) = member.result else {
            all.push(EXPECTED);
            continue;
        };
        all.extend(find(result, "capabilities").map(|span| span.get(result)));
        let text = find(result, "instructions").and_then(|span| text_of(span.get(result)));
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            if !instructions.is_empty() {
                instructions.push_str("\n\n");
            }
            instructions.push_str("## ");
            instructions.push_str(member.name);
            instructions.push_str("\n\n");
            instructions.push_str(text.trim());
        }
    }
    out.extend_from_slice(b"\"capabilities\":");
    write_union(out, &all, limits::DEPTH_MAX);
    if !instructions.is_empty() {
        out.extend_from_slice(b",\"instructions\":");
        out.extend_from_slice(&token(&instructions));
    }
}

/// Appends an object with the members of all these objects. Where several have a member, objects
/// are united likewise, lists are joined, `true` wins over `false`, and of anything else the first
/// counts.
pub fn write_union(out: &mut Vec<u8>, objects: &[&[u8]], depth: u16) {
    let mut keys: Vec<(Vec<u8>, Vec<&[u8]>)> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for &object in objects {
        for (key, value) in json::entries(object, depth).unwrap_or_default() {
            let (name, value) = (key.decode(object).into_owned(), value.get(object));
            let place = *places.entry(name.clone()).or_insert(keys.len());
            match keys.get_mut(place) {
                Some((_, values)) => values.push(value),
                None => keys.push((name, vec![value])),
            }
        }
    }
    out.push(b'{');
    for (index, (key, values)) in keys.iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        out.extend_from_slice(&token(&String::from_utf8_lossy(key)));
        out.push(b':');
        let first = values.first().copied().unwrap_or(b"null");
        let are_objects = values.iter().all(|value| value.starts_with(b"{"));
        if values.len() > 1 && are_objects && depth > 1 {
            write_union(out, values, depth - 1);
        } else if values.len() > 1 && values.iter().all(|value| value.starts_with(b"[")) {
            let items = values.iter().filter_map(|value| value.get(1..value.len() - 1));
            let items: Vec<&[u8]> = items.filter(|items| !items.trim_ascii().is_empty()).collect();
            out.push(b'[');
            out.extend_from_slice(&items.join(&b','));
            out.push(b']');
        } else if first == b"false" && values.contains(&&b"true"[..]) {
            out.extend_from_slice(b"true");
        } else {
            out.extend_from_slice(first);
        }
    }
    out.push(b'}');
}

/// Whether these capabilities have one, or a part of one (`resources`, `listChanged`).
pub fn has_capability(capabilities: &[u8], path: &[&str]) -> bool {
    let mut value = capabilities;
    for key in path {
        let Some(span) = find(value, key) else { return false };
        value = span.get(value);
    }
    !matches!(value, b"false" | b"null")
}

/// Where the reference of a `completion/complete` names something: the token, and whether it is a
/// prompt's name (otherwise it is a URI or a template of one). In `params`.
pub fn completed(params: &[u8]) -> Option<(Span, bool)> {
    let reference = find(params, "ref")?;
    let inner = reference.get(params);
    let (key, is_prompt) = match find(inner, "type").and_then(|at| text_of(at.get(inner)))?.as_str()
    {
        "ref/prompt" => ("name", true),
        "ref/resource" => ("uri", false),
        _ => return None,
    };
    let at = find(inner, key)?;
    Some((Span { start: reference.start + at.start, end: reference.start + at.end }, is_prompt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_united() {
        let members = [
            Answered {
                name: "a",
                result: Some(
                    br#"{"capabilities":{"tools":{"listChanged":false},"logging":{},"tasks":{}},
                    "instructions":" Use a.\n"}"#,
                ),
            },
            Answered {
                name: "b",
                result: Some(
                    br#"{"capabilities":{"tools":{"listChanged":true,"x":[1]},
                    "resources":{"subscribe":true}}}"#,
                ),
            },
            Answered { name: "c", result: Some(br#"{"capabilities":{},"instructions":"Use c."}"#) },
        ];
        let mut out = Vec::new();
        write_initialized(&mut out, Revision::V2025_06_18, &members);
        let text = String::from_utf8(out).unwrap();
        let wanted = concat!(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true,"x":[1]},"#,
            r#""logging":{},"tasks":{},"resources":{"subscribe":true}},"#,
            r###""instructions":"## a\n\nUse a.\n\n## c\n\nUse c.","###,
            r#""serverInfo":{"name":"mcp-gateway","version":"0.1.0"}}"#,
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn of_who_is_missing_anything_is_expected() {
        let mut out = Vec::new();
        write_discovered(&mut out, Freshness::NONE, &[Answered { name: "a", result: None }]);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(std::str::from_utf8(EXPECTED).unwrap()), "{text}");
        assert!(text.ends_with(r#","resultType":"complete","ttlMs":0,"cacheScope":"private"}"#));
        json::validate(text.as_bytes(), 16).unwrap();
    }

    #[test]
    fn capabilities_are_read() {
        let result = br#"{"tools":{},"resources":{"subscribe":false,"listChanged":true}}"#;
        assert!(has_capability(result, &["tools"]));
        assert!(!has_capability(result, &["tools", "listChanged"]));
        assert!(!has_capability(result, &["resources", "subscribe"]));
        assert!(has_capability(result, &["resources", "listChanged"]));
        assert!(!has_capability(b"{}", &["tools"]));
    }

    #[test]
    fn completions_name_something() {
        let params = br#"{"ref":{"type":"ref/prompt","name":"p"},"argument":{}}"#;
        let (span, is_prompt) = completed(params).unwrap();
        assert_eq!((span.get(params), is_prompt), (&b"\"p\""[..], true));
        let params = br#"{"ref":{"uri":"x:{y}","type":"ref/resource"}}"#;
        let (span, is_prompt) = completed(params).unwrap();
        assert_eq!((span.get(params), is_prompt), (&b"\"x:{y}\""[..], false));
        assert!(completed(br#"{"ref":{"type":"other","name":"p"}}"#).is_none());
    }
}
