//! A legacy client at a modern server: what becomes of each message between them.
//!
//! Pure translation. Which rounds of questions a request is in, and what a session has set, is the
//! shard's business. `docs/eras.md` has the whole table. Sections are those of MCP 2026-07-28,
//! unless a date stands before them.

use std::collections::HashSet;

use bytes::Bytes;
use wire::json::{self, Span};
use wire::rpc::{Envelope, splice};

use super::object::{edit, edit_meta, is_protocols, member, object, with_params};
use super::to_legacy::{client_capabilities, is_of_one_era};
use crate::federation::value::{find, find_path, text_of, token};
use crate::limits;
use crate::message::Revision;

/// The server that does not say what it is; `initialize` must be answered with something.
const SERVER_INFO: &[u8] = br#"{"name":"mcp-server","version":"0"}"#;

/// The `_meta` (raw JSON) of all requests of a client that opened its session with this
/// `initialize` (basic, Per-request protocol fields).
///
/// The modern era has neither `tasks` as a capability nor `roots/list_changed` (schema,
/// `ClientCapabilities`), and what an extension was to a legacy revision says nothing of what it
/// is now.
pub fn meta(initialize: &[u8]) -> Bytes {
    let params = member(initialize, "params").unwrap_or(b"{}");
    let capabilities = client_capabilities(member(params, "capabilities").unwrap_or(b"{}"));
    let version = token(Revision::V2026_07_28.name());
    let mut members: Vec<(&str, &[u8])> = vec![
        ("io.modelcontextprotocol/protocolVersion", &version),
        ("io.modelcontextprotocol/clientCapabilities", &capabilities),
    ];
    let info = member(params, "clientInfo").filter(|info| info.starts_with(b"{"));
    members.extend(info.map(|info| ("io.modelcontextprotocol/clientInfo", info)));
    object(&members).into()
}

/// A legacy request as a modern one. `meta` is from [`meta`]; `level` is the token that
/// `logging/setLevel` has set, if it was (server/utilities/logging, Per-request log level).
pub fn request(bytes: &[u8], envelope: &Envelope, meta: &[u8], level: Option<&[u8]>) -> Vec<u8> {
    let entries = json::entries(meta, limits::DEPTH_MAX).unwrap_or_default();
    let named = entries.iter().map(|(key, value)| (key.decode(meta), value.get(meta)));
    let named: Vec<_> = named.collect();
    let members = named.iter().filter_map(|(key, value)| Some((str::from_utf8(key).ok()?, *value)));
    let mut set: Vec<(&str, &[u8])> = members.collect();
    set.extend(level.map(|level| ("io.modelcontextprotocol/logLevel", level)));
    let params = envelope.params.map_or(&b"{}"[..], |params| params.get(bytes));
    let params = edit_meta(params, is_of_one_era, is_protocols, &set);
    with_params(bytes, envelope, &params)
}

/// The `result` of `initialize`, from that of `server/discover` (`<revision>`, basic/lifecycle).
///
/// Without what is only of the modern era; `completions` are since 2025-03-26 (schema,
/// `ServerCapabilities`). What else the server says of itself stays.
pub fn initialized(discovered: &[u8], revision: Revision) -> Vec<u8> {
    let capabilities = member(discovered, "capabilities").unwrap_or(b"{}");
    let is_unknown = |key: &[u8]| match key {
        b"extensions" | b"tasks" => true,
        b"completions" => revision < Revision::V2025_03_26,
        _ => false,
    };
    let capabilities = edit(capabilities, is_unknown, &[]);
    let info = find_path(discovered, &["_meta", "io.modelcontextprotocol/serverInfo"]);
    let info = info.map_or(SERVER_INFO, |span| span.get(discovered));
    let set: [(&str, &[u8]); 3] = [
        ("protocolVersion", &token(revision.name())),
        ("capabilities", &capabilities),
        ("serverInfo", info),
    ];
    let is_dropped =
        |key: &[u8]| matches!(key, b"supportedVersions" | b"resultType" | b"ttlMs" | b"cacheScope");
    let said = edit_meta(discovered, is_dropped, is_protocols, &[]);
    edit(&said, |_| false, &set)
}

/// What a server wants to know before it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputRequired {
    /// Its questions.
    pub requests: Vec<InputRequest>,
    /// The token of its `requestState`; it goes back as it is (basic/patterns/mrtr, Client
    /// Requirements).
    pub state: Option<Bytes>,
}

/// A question of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRequest {
    /// What the server calls it.
    pub key: String,
    /// Its method.
    pub method: String,
    /// Its `params`, as raw JSON.
    pub params: Option<Bytes>,
}

/// What a `result` asks for; none if it is complete, which it also is if it does not say
/// (basic, `ResultType`).
///
/// With neither questions nor a state nothing can come of it: then the result is not valid, or of
/// a type that is unknown.
pub fn input_required(result: &[u8]) -> Option<InputRequired> {
    let kind = text_of(member(result, "resultType")?);
    if kind.as_deref() == Some("complete") {
        return None;
    }
    if kind.as_deref() != Some("input_required") {
        return Some(InputRequired::default());
    }
    let requests = member(result, "inputRequests").map_or(Some(Vec::new()), input_requests);
    let state = member(result, "requestState").map(Bytes::copy_from_slice);
    Some(requests.map(|requests| InputRequired { requests, state }).unwrap_or_default())
}

/// The questions in `inputRequests`; none if one of them is not to be understood, or two have the
/// same key.
fn input_requests(all: &[u8]) -> Option<Vec<InputRequest>> {
    let entries = json::entries(all, limits::DEPTH_MAX).ok()?;
    let mut keys = HashSet::new();
    let requests = entries.into_iter().map(|(key, value)| {
        let request = value.get(all);
        let key = String::from_utf8(key.decode(all).into_owned()).ok()?;
        let method = text_of(member(request, "method")?)?;
        let params = member(request, "params").map(Bytes::copy_from_slice);
        keys.insert(key.clone()).then_some(InputRequest { key, method, params })
    });
    requests.collect()
}

/// A question as a request to a legacy client, with this number as its id. None: its revision has
/// no such question; see [`unanswered`].
///
/// 2025-06-18 has elicitation, and one mode of it; 2025-11-25 has URLs, each with an id
/// (client/elicitation of both).
pub fn question(number: u64, request: &InputRequest, revision: Revision) -> Option<Vec<u8>> {
    let mut params = request.params.as_deref().map(<[u8]>::to_vec);
    match request.method.as_str() {
        "sampling/createMessage" | "roots/list" => {}
        "elicitation/create" => {
            let old = params.as_deref().unwrap_or(b"{}");
            let is_url = member(old, "mode") == Some(b"\"url\"");
            let id = token(&format!("mcp-gateway-{number}"));
            params = match revision {
                Revision::V2025_11_25 if is_url => {
                    Some(edit(old, |_| false, &[("elicitationId", &id)]))
                }
                Revision::V2025_11_25 => params,
                Revision::V2025_06_18 if !is_url => Some(edit(old, |key| key == b"mode", &[])),
                _ => return None,
            };
        }
        _ => return None,
    }
    let (id, method) = (number.to_string(), token(&request.method));
    let mut members: Vec<(&str, &[u8])> =
        vec![("jsonrpc", b"\"2.0\""), ("id", id.as_bytes()), ("method", &method)];
    members.extend(params.as_ref().map(|params| ("params", params.as_slice())));
    Some(object(&members))
}

/// What a server is told where the client had no answer to a question, but an error. None: there
/// is no way to say that, so that its request has failed.
pub fn unanswered(method: &str) -> Option<&'static [u8]> {
    // client/elicitation, Response Actions: dismissed without an explicit choice.
    (method == "elicitation/create").then_some(br#"{"action":"cancel"}"#)
}

/// A request again, with the answers to what it was answered with: key and `result` (raw JSON) of
/// each, and the token of the state (basic/patterns/mrtr, Client Requirements). It needs another
/// id.
pub fn retry(
    message: &[u8],
    envelope: &Envelope,
    responses: &[(String, &[u8])],
    state: Option<&[u8]>,
) -> Vec<u8> {
    let responses: Vec<(&str, &[u8])> =
        responses.iter().map(|(key, response)| (key.as_str(), *response)).collect();
    let answers = object(&responses);
    let mut set: Vec<(&str, &[u8])> = Vec::new();
    if !responses.is_empty() {
        set.push(("inputResponses", &answers));
    }
    set.extend(state.map(|state| ("requestState", state)));
    let params = envelope.params.map_or(&b"{}"[..], |params| params.get(message));
    // A state that was not given now must not be sent.
    let params = edit(params, is_of_one_era, &set);
    with_params(message, envelope, &params)
}

/// A complete modern `result` as a legacy client can read it. None: as it is; what it has more than
/// a legacy one is legal there.
///
/// To legacy clients an output and its schema are objects (schema, `CallToolResult` and `Tool`); to
/// many of them a list with another schema is none. What the output says stands in `content` too.
pub fn result(method: &[u8], result: &[u8]) -> Option<Vec<u8>> {
    match method {
        b"tools/call" => {
            let is_output = member(result, "structuredContent")?.starts_with(b"{");
            (!is_output).then(|| edit(result, |key| key == b"structuredContent", &[]))
        }
        b"tools/list" => tools(result),
        _ => None,
    }
}

/// A list of tools without the schemas of outputs that are no objects. None: there is none.
fn tools(result: &[u8]) -> Option<Vec<u8>> {
    let list = find(result, "tools")?;
    let mut edits: Vec<(Span, Vec<u8>)> = Vec::new();
    for span in json::elements(list.get(result), limits::DEPTH_MAX).flatten() {
        let tool = span.get(list.get(result));
        let Some(schema) = member(tool, "outputSchema") else { continue };
        if member(schema, "type") == Some(b"\"object\"") {
            continue;
        }
        let at = Span { start: list.start + span.start, end: list.start + span.end };
        edits.push((at, edit(tool, |key| key == b"outputSchema", &[])));
    }
    let edits: Vec<(Span, &[u8])> = edits.iter().map(|(at, tool)| (*at, tool.as_slice())).collect();
    let mut out = Vec::new();
    splice(&mut out, result, &edits);
    (!edits.is_empty()).then_some(out)
}

/// What a legacy client is told in the place of a modern `error` object with this code: an `error`
/// object and its code. None: it as it is. `method` is what was asked.
///
/// The three codes of the modern era (basic, Error Codes) speak of what the gateway has said to
/// the server. That a resource is not there has a code of its own in the legacy revisions
/// (2025-11-25, server/resources, Error Handling), and can be told from other wrong parameters if
/// the error names the resource.
pub fn error(error: &[u8], code: i64, method: &[u8]) -> Option<(Vec<u8>, i64)> {
    let (new, text) = match code {
        -32602 if method == b"resources/read" => {
            find_path(error, &["data", "uri"])?;
            (-32002, None)
        }
        -32020 => (-32603, Some("The server and the gateway disagree about the request.")),
        -32021 => (-32602, Some("The server needs capabilities that the client has not declared.")),
        -32022 => (-32603, Some("The server does not speak the revision that it is spoken to in.")),
        _ => return None,
    };
    let (code, text) = (new.to_string(), text.map(token));
    let mut set: Vec<(&str, &[u8])> = vec![("code", code.as_bytes())];
    set.extend(text.as_ref().map(|text| ("message", text.as_slice())));
    Some((edit(error, |_| false, &set), new))
}

#[cfg(test)]
mod tests {
    use wire::rpc::{Limits, scan};

    use super::*;

    const META: &str = concat!(
        r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{"roots":{}},"#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}"#,
    );

    fn envelope(bytes: &str) -> Envelope {
        scan(bytes.as_bytes(), Limits { depth_max: 64, len_max: 65_536 }).unwrap()
    }

    fn text(bytes: impl Into<Vec<u8>>) -> String {
        String::from_utf8(bytes.into()).unwrap()
    }

    #[test]
    fn who_a_client_is_goes_with_every_request() {
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{
            "protocolVersion":"2025-11-25","clientInfo":{"name":"c","version":"1"},
            "capabilities":{"tasks":{"list":{}},"roots":{"listChanged":true},"extensions":{}}}}"#;
        assert_eq!(text(meta(initialize.as_bytes())), META);
        let bare = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        assert_eq!(text(meta(br#"{"method":"initialize","id":0}"#)), bare);
        let old =
            br#"{"params":{"capabilities":{"elicitation":{},"vendor":{"x":1.0}},"clientInfo":1}}"#;
        let old = text(meta(old));
        assert!(old.contains(r#"Capabilities":{"elicitation":{},"vendor":{"x":1.0}}}"#), "{old}");
    }

    #[track_caller]
    fn check_request(message: &str, level: Option<&str>, wanted: &str) {
        let out =
            request(message.as_bytes(), &envelope(message), b"{\"k\":1}", level.map(str::as_bytes));
        assert_eq!(text(out), wanted);
    }

    #[test]
    fn requests_get_the_metadata_of_their_client() {
        check_request(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"k":1}}}"#,
        );
        check_request(
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{ "name":"\u0074" },"id":1}"#,
            None,
            concat!(
                r#"{"jsonrpc":"2.0","method":"tools/call","#,
                r#""params":{ "name":"\u0074","_meta":{"k":1} },"id":1}"#,
            ),
        );
        check_request(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":70,"k":2},"a":1}}"#,
            Some("\"info\""),
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":70,"k":1,"io.modelcontextprotocol/logLevel":"info"},"a":1}}"#,
        );
    }

    #[test]
    fn what_the_client_says_of_the_other_era_does_not_count() {
        check_request(
            concat!(
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"#,
                r#""io.modelcontextprotocol/clientInfo":0,"io.modelcontextprotocol/logLevel":"debug","#,
                r#""traceparent":"00"},"task":{},"requestState":"s","inputResponses":{},"a":1}}"#
            ),
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"traceparent":"00","k":1},"a":1}}"#,
        );
    }

    #[track_caller]
    fn check_initialized(discovered: &str, revision: Revision, wanted: &str) {
        assert_eq!(text(initialized(discovered.as_bytes(), revision)), wanted);
    }

    #[test]
    fn a_session_begins_with_what_the_server_has_told() {
        let discovered = concat!(
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"#,
            r#""completions":{},"extensions":{"a/b":{}}},"instructions":"Do.","resultType":"complete","#,
            r#""ttlMs":5,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"},"x":1}}"#,
        );
        check_initialized(
            discovered,
            Revision::V2025_11_25,
            concat!(
                r#"{"capabilities":{"tools":{"listChanged":true},"completions":{}},"instructions":"Do.","#,
                r#""_meta":{"x":1},"protocolVersion":"2025-11-25","serverInfo":{"name":"s","version":"2"}}"#,
            ),
        );
        check_initialized(
            r#"{"capabilities":{"completions":{},"logging":{}},"_meta":{}}"#,
            Revision::V2024_11_05,
            r#"{"capabilities":{"logging":{}},"protocolVersion":"2024-11-05","serverInfo":{"name":"mcp-server","version":"0"}}"#,
        );
    }

    #[test]
    fn questions_are_found() {
        for complete in [r#"{}"#, r#"{"resultType":"complete","inputRequests":{}}"#] {
            assert_eq!(input_required(complete.as_bytes()), None);
        }
        let result = concat!(
            r#"{"resultType":"input_required","requestState":"a\u0062","inputRequests":{"#,
            r#""k":{"method":"roots/list"},"l":{"params":{ },"method":"elicitation/create"}}}"#,
        );
        let asked = input_required(result.as_bytes()).unwrap();
        assert_eq!(asked.state.as_deref(), Some(&br#""a\u0062""#[..]));
        let request = |key: &str, method: &str, params: Option<&'static str>| InputRequest {
            key: key.to_owned(),
            method: method.to_owned(),
            params: params.map(|params| Bytes::from_static(params.as_bytes())),
        };
        let wanted =
            [request("k", "roots/list", None), request("l", "elicitation/create", Some("{ }"))];
        assert_eq!(asked.requests, wanted);
        let state = input_required(br#"{"resultType":"input_required","requestState":"s"}"#);
        assert_eq!(state.unwrap().requests, []);
    }

    #[test]
    fn results_that_are_not_valid_ask_for_nothing() {
        let cases = [
            r#"{"resultType":"task"}"#,
            r#"{"resultType":1}"#,
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":"input_required","requestState":"s","inputRequests":[]}"#,
            r#"{"resultType":"input_required","requestState":"s","inputRequests":{"k":{}}}"#,
            r#"{"resultType":"input_required","inputRequests":{"k":{"method":"a"},"\u006b":{"method":"a"}}}"#,
        ];
        for case in cases {
            let asked = input_required(case.as_bytes());
            assert_eq!(asked, Some(InputRequired::default()), "{case}");
        }
    }

    #[track_caller]
    fn check_question(method: &str, params: &str, revision: Revision, wanted: Option<&str>) {
        let params = (!params.is_empty()).then(|| Bytes::copy_from_slice(params.as_bytes()));
        let request = InputRequest { key: "k".to_owned(), method: method.to_owned(), params };
        let wanted = wanted
            .map(|params| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}"{params}}}"#));
        assert_eq!(question(7, &request, revision).map(text), wanted);
    }

    #[test]
    fn questions_are_asked_as_the_client_knows_them() {
        use Revision::*;
        let elicit = "elicitation/create";
        check_question("roots/list", "", V2024_11_05, Some(""));
        check_question("sampling/createMessage", "{ }", V2024_11_05, Some(r#","params":{ }"#));
        let form = r#"{"mode":"form","message":"m"}"#;
        check_question(elicit, form, V2025_03_26, None);
        check_question(elicit, form, V2025_06_18, Some(r#","params":{"message":"m"}"#));
        check_question(elicit, form, V2025_11_25, Some(&format!(r#","params":{form}"#)));
        let url = r#"{"mode":"url","url":"u"}"#;
        check_question(elicit, url, V2025_06_18, None);
        let wanted = r#","params":{"mode":"url","url":"u","elicitationId":"mcp-gateway-7"}"#;
        check_question(elicit, url, V2025_11_25, Some(wanted));
        check_question("ping", "", V2025_11_25, None);
        assert_eq!(unanswered(elicit), Some(&br#"{"action":"cancel"}"#[..]));
        assert_eq!(unanswered("roots/list"), None);
    }

    #[test]
    fn a_retry_has_the_answers_of_the_last_round_only() {
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","inputResponses":{"a":1},"requestState":"old","_meta":{"k":1}}}"#;
        let again = |responses: &[(String, &[u8])], state: Option<&[u8]>| {
            text(retry(message.as_bytes(), &envelope(message), responses, state))
        };
        let answers = [("b".to_owned(), &b"{ }"[..])];
        let wanted = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","inputResponses":{"b":{ }},"requestState":"n\/w","_meta":{"k":1}}}"#;
        assert_eq!(again(&answers, Some(br#""n\/w""#)), wanted);
        let wanted = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"k":1}}}"#;
        assert_eq!(again(&[], None), wanted);
        let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#;
        let wanted = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"inputResponses":{"b":{ }}}}"#;
        assert_eq!(text(retry(bare.as_bytes(), &envelope(bare), &answers, None)), wanted);
    }

    #[test]
    fn outputs_that_are_no_objects_are_left_out() {
        let read = |method: &str, it: &str| result(method.as_bytes(), it.as_bytes()).map(text);
        assert_eq!(read("tools/call", r#"{"content":[]}"#), None);
        assert_eq!(read("tools/call", r#"{"structuredContent":{},"content":[]}"#), None);
        let list = r#"{"structuredContent":[1],"content":[ ]}"#;
        assert_eq!(read("tools/call", list).as_deref(), Some(r#"{"content":[ ]}"#));
        assert_eq!(read("prompts/get", list), None);
        let tools =
            r#"{"tools":[{"name":"a","outputSchema":{"type":"object"}},{"name":"b"}],"ttlMs":0}"#;
        assert_eq!(read("tools/list", tools), None);
        let tools = concat!(
            r#"{"tools":[ {"name":"a","outputSchema":{"type":"array"}}, {"name":"b"} ,"#,
            r#"{"outputSchema":{},"name":"c"}],"ttlMs":0}"#,
        );
        let wanted = r#"{"tools":[ {"name":"a"}, {"name":"b"} ,{"name":"c"}],"ttlMs":0}"#;
        assert_eq!(read("tools/list", tools).as_deref(), Some(wanted));
    }

    #[track_caller]
    fn check_error(method: &str, it: &str, wanted: Option<&str>) {
        let code = code_of(it);
        let out = error(it.as_bytes(), code, method.as_bytes());
        if let Some((out, code)) = &out {
            assert_eq!(code_of(std::str::from_utf8(out).unwrap()), *code);
        }
        assert_eq!(out.map(|(out, _)| text(out)).as_deref(), wanted);
    }

    fn code_of(error: &str) -> i64 {
        let code = member(error.as_bytes(), "code").unwrap();
        std::str::from_utf8(code).unwrap().parse().unwrap()
    }

    #[test]
    fn errors_are_those_that_a_legacy_client_knows() {
        let missing = r#"{"code":-32602,"message":"No.","data":{"uri":"a:b"}}"#;
        let wanted = r#"{"code":-32002,"message":"No.","data":{"uri":"a:b"}}"#;
        check_error("resources/read", missing, Some(wanted));
        check_error("tools/call", missing, None);
        check_error("resources/read", r#"{"code":-32602,"message":"No."}"#, None);
        check_error("tools/call", r#"{"code":-32050,"message":"x"}"#, None);
        let wanted = concat!(
            r#"{"data":1,"code":-32602,"message":"The server needs capabilities "#,
            r#"that the client has not declared."}"#,
        );
        check_error("tools/call", r#"{"data":1,"code":-32021,"message":"x"}"#, Some(wanted));
        for code in [-32020, -32022] {
            let (_, new) = error(format!("{{\"code\":{code}}}").as_bytes(), code, b"x").unwrap();
            assert_eq!(new, -32603);
        }
    }
}
