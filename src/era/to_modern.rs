//! A legacy client at a modern server: what becomes of each message between them.
//!
//! Pure translation. Which rounds of questions a request is in, and what a session has set, is the
//! shard's business. `docs/eras.md` has the whole table. Sections are those of MCP 2026-07-28,
//! unless a date stands before them.

use bytes::Bytes;
use wire::json;
use wire::rpc::Envelope;

use super::object::{edit, edit_meta, is_protocols, member, object, with_params};
use super::to_legacy::{CHANGES, client_capabilities, filter_json, is_of_one_era};
use crate::federation::combine::has_capability;
use crate::federation::value::{find_path, text_of, token};
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
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.decode(meta)).collect();
    let keys = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
    let values = entries.iter().map(|(_, value)| value.get(meta));
    let mut set: Vec<(&str, &[u8])> = keys.zip(values).collect();
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

/// The questions in `inputRequests`; none if one of them is not to be understood.
fn input_requests(all: &[u8]) -> Option<Vec<InputRequest>> {
    let entries = json::entries(all, limits::DEPTH_MAX).ok()?;
    let requests = entries.into_iter().map(|(key, value)| {
        let request = value.get(all);
        Some(InputRequest {
            key: String::from_utf8(key.decode(all).into_owned()).ok()?,
            method: text_of(member(request, "method")?)?,
            params: member(request, "params").map(Bytes::copy_from_slice),
        })
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

/// A `subscriptions/listen` with this id (raw JSON) for all that a server with these capabilities
/// can tell, and for these resources (basic/patterns/subscriptions). None: there is nothing.
pub fn listen(id: &[u8], meta: &[u8], capabilities: &[u8], uris: &[String]) -> Option<Bytes> {
    let lists = CHANGES
        .map(|(_, capability, _)| has_capability(capabilities, &[capability, "listChanged"]));
    let can_subscribe = has_capability(capabilities, &["resources", "subscribe"]);
    let uris = if can_subscribe { uris } else { &[] };
    if uris.is_empty() && !lists.contains(&true) {
        return None;
    }
    let params = object(&[("_meta", meta), ("notifications", &filter_json(lists, uris))]);
    let members: [(&str, &[u8]); 4] = [
        ("jsonrpc", b"\"2.0\""),
        ("id", id),
        ("method", b"\"subscriptions/listen\""),
        ("params", &params),
    ];
    Some(object(&members).into())
}

/// A notification of a subscription as a legacy one.
pub fn plain(notification: &[u8]) -> Vec<u8> {
    let Some(params) = member(notification, "params") else { return notification.to_vec() };
    let is_dropped = |key: &[u8]| key == b"io.modelcontextprotocol/subscriptionId";
    let params = edit_meta(params, |_| false, is_dropped, &[]);
    edit(notification, |_| false, &[("params", &params)])
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
