//! A modern client at a legacy server: what becomes of each message between them.
//!
//! Pure translation. Which requests are parked, and which session they belong to, is the shard's
//! business. `docs/eras.md` has the whole table. Sections are those of MCP 2026-07-28, unless a
//! date stands before them.

use bytes::Bytes;
use wire::json::{self, Span};
use wire::rpc::Envelope;

use super::object::{edit, edit_meta, is_protocols, member, object, with_params};
use crate::federation::combine::has_capability;
use crate::federation::value::{find, find_path, text_of, token};
use crate::limits;
use crate::message::Revision;

/// Who the gateway is, to whom the client has not said who it is.
const CLIENT_INFO: &str =
    concat!("{\"name\":\"mcp-gateway\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");

/// Whose results say how long they may be kept (server/utilities/caching).
const CACHEABLE: [&[u8]; 6] = [
    b"server/discover",
    b"tools/list",
    b"prompts/list",
    b"resources/list",
    b"resources/templates/list",
    b"resources/read",
];

/// Which requests may be answered with questions (basic/patterns/mrtr, Supported Requests).
const ASKING: [&[u8]; 3] = [b"tools/call", b"prompts/get", b"resources/read"];

/// The `initialize` with which the gateway opens a session for callers with this `_meta` (raw
/// JSON). Its id is a placeholder.
///
/// 2025-11-25 knows no `extensions`. The `tasks` of that revision are not those of the modern
/// extension, and a `roots/list_changed` never comes from a modern client (schema,
/// `ClientCapabilities`).
pub fn initialize(meta: &[u8]) -> Bytes {
    let capabilities = member(meta, "io.modelcontextprotocol/clientCapabilities");
    let capabilities = client_capabilities(capabilities.unwrap_or(b"{}"));
    let info = member(meta, "io.modelcontextprotocol/clientInfo");
    let info = info.filter(|info| info.starts_with(b"{")).unwrap_or(CLIENT_INFO.as_bytes());
    let params = object(&[
        ("protocolVersion", &token(Revision::NEWEST_LEGACY.name())),
        ("capabilities", &capabilities),
        ("clientInfo", info),
    ]);
    own_request("initialize", &params)
}

/// What a client can do in both eras.
pub(super) fn client_capabilities(capabilities: &[u8]) -> Vec<u8> {
    let roots = member(capabilities, "roots").filter(|roots| roots.starts_with(b"{"));
    let roots = roots.map(|roots| edit(roots, |key| key == b"listChanged", &[]));
    let set = roots.as_ref().map(|roots| ("roots", roots.as_slice()));
    edit(capabilities, |key| matches!(key, b"extensions" | b"tasks"), set.as_slice())
}

/// A request of the gateway's own. Its id is a placeholder.
fn own_request(method: &str, params: &[u8]) -> Bytes {
    let method = token(method);
    let members: [(&str, &[u8]); 4] =
        [("jsonrpc", b"\"2.0\""), ("id", b"0"), ("method", &method), ("params", params)];
    object(&members).into()
}

/// A modern request as a legacy one.
///
/// Without what only the modern era has in its `_meta` (basic, `_meta`) and its `params`
/// (basic/patterns/mrtr). A `task` is nothing to a modern server; a legacy one would run one.
pub fn request(bytes: &[u8], envelope: &Envelope) -> Vec<u8> {
    let Some(params) = envelope.params else { return bytes.to_vec() };
    let params = edit_meta(params.get(bytes), is_of_one_era, is_protocols, &[]);
    with_params(bytes, envelope, &params)
}

/// Whether a member of `params` means something in one of the eras only.
pub(super) fn is_of_one_era(key: &[u8]) -> bool {
    matches!(key, b"inputResponses" | b"requestState" | b"task")
}

/// How much is logged; the least severe comes first (server/utilities/logging, Log Levels).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `notice`.
    Notice,
    /// `warning`.
    Warning,
    /// `error`.
    Error,
    /// `critical`.
    Critical,
    /// `alert`.
    Alert,
    /// `emergency`.
    Emergency,
}

impl LogLevel {
    /// All, the least severe first.
    const ALL: [(Self, &str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level that a token names.
    fn of_token(token: &[u8]) -> Option<Self> {
        let name = text_of(token)?;
        Self::ALL.into_iter().find(|(_, other)| *other == name).map(|(level, _)| level)
    }
}

/// From which level on a modern request wants to be told. None: nothing, or what is no level.
pub fn log_level(bytes: &[u8]) -> Option<LogLevel> {
    let path = ["params", "_meta", "io.modelcontextprotocol/logLevel"];
    LogLevel::of_token(find_path(bytes, &path)?.get(bytes))
}

/// Whether a `notifications/message` is for a request that wants this level. Without a level it
/// must not be told anything (server/utilities/logging, Per-request log level).
pub fn is_logged(notification: &[u8], wanted: Option<LogLevel>) -> bool {
    let level = find_path(notification, &["params", "level"]);
    let level = level.and_then(|span| LogLevel::of_token(span.get(notification)));
    wanted.is_some() && wanted <= level
}

/// A `logging/setLevel`. Its id is a placeholder.
pub fn set_level(level: LogLevel) -> Bytes {
    let name = LogLevel::ALL.into_iter().find(|(other, _)| *other == level);
    let name = token(name.map_or("", |(_, name)| name));
    own_request("logging/setLevel", &object(&[("level", &name)]))
}

/// The `result` of a legacy server for a modern request.
///
/// It is complete (basic, `ResultType`), must not be kept where it has to say so
/// (server/utilities/caching), and says which server it is from (basic, Per-response protocol
/// fields). `server_info`: the server's `serverInfo`, as raw JSON.
pub fn result(method: &[u8], result: &[u8], server_info: Option<&[u8]>) -> Vec<u8> {
    let mut set: Vec<(&str, &[u8])> = vec![("resultType", b"\"complete\"")];
    if CACHEABLE.contains(&method) {
        set.push(("ttlMs", member(result, "ttlMs").unwrap_or(b"0")));
        set.push(("cacheScope", member(result, "cacheScope").unwrap_or(b"\"private\"")));
    }
    let meta = server_info.map(|info| {
        let meta = member(result, "_meta").unwrap_or(b"{}");
        edit(meta, |_| false, &[("io.modelcontextprotocol/serverInfo", info)])
    });
    set.extend(meta.as_ref().map(|meta| ("_meta", meta.as_slice())));
    edit(result, |_| false, &set)
}

/// The `result` of `server/discover`, from that of `initialize` (server/discover; schema,
/// `DiscoverResult`). What else the server says of itself stays.
pub fn discovered(initialized: &[u8]) -> Vec<u8> {
    let capabilities = member(initialized, "capabilities").unwrap_or(b"{}");
    let capabilities = edit(capabilities, |key| matches!(key, b"extensions" | b"tasks"), &[]);
    let versions = format!("[\"{}\"]", Revision::V2026_07_28.name());
    let set: [(&str, &[u8]); 2] =
        [("supportedVersions", versions.as_bytes()), ("capabilities", &capabilities)];
    let is_dropped = |key: &[u8]| matches!(key, b"protocolVersion" | b"serverInfo");
    let said = edit(initialized, is_dropped, &set);
    result(b"server/discover", &said, member(initialized, "serverInfo"))
}

/// What a modern client is told in the place of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModernError {
    /// It as it is.
    Same,
    /// This `error` object, and its code.
    Error(Vec<u8>, i64),
    /// This `result` object.
    Result(Vec<u8>),
}

/// What becomes of a legacy `error` object with this code (basic, Error Codes). `method` is what
/// was asked, `capabilities` are those of the client, as raw JSON.
pub fn error(error: &[u8], code: i64, method: &[u8], capabilities: &[u8]) -> ModernError {
    let with_code = |code: i64| {
        let set: (&str, &[u8]) = ("code", &code.to_string().into_bytes());
        ModernError::Error(edit(error, |_| false, &[set]), code)
    };
    match code {
        -32002 => with_code(-32602),
        -32042 if ASKING.contains(&method) => match elicitations(error) {
            Some(_) if !has_capability(capabilities, &["elicitation", "url"]) => {
                // basic, Per-request protocol fields: what the client would have to be able to.
                ModernError::Error(URL_MISSING.to_vec(), -32021)
            }
            Some(requests) => ModernError::Result(input_required(&requests, None)),
            None => with_code(-32603),
        },
        // Reserved, or with another meaning than a legacy server gave it.
        -32099..=-32020 => with_code(-32603),
        _ => ModernError::Same,
    }
}

/// The answer to who cannot be sent to a URL.
const URL_MISSING: &[u8] = br#"{"code":-32021,"message":"The server wants the user to open a URL.","data":{"requiredCapabilities":{"elicitation":{"url":{}}}}}"#;

/// The questions in an error that says that a URL is to be opened (2025-11-25, client/elicitation,
/// URL Elicitation Required Error), if there are any.
fn elicitations(error: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let list = find_path(error, &["data", "elicitations"])?.get(error);
    let mut requests = Vec::new();
    for (index, span) in json::elements(list, limits::DEPTH_MAX).enumerate() {
        let params = span.ok()?.get(list);
        if !params.starts_with(b"{") {
            return None;
        }
        requests.push((format!("url-{index}"), entry("elicitation/create", Some(params))));
    }
    (!requests.is_empty()).then_some(requests)
}

/// A legacy server's request as an entry of `inputRequests`. None: it is for no client.
pub fn input_request(bytes: &[u8], envelope: &Envelope) -> Option<Vec<u8>> {
    let methods = ["sampling/createMessage", "elicitation/create", "roots/list"];
    let method = envelope.method?;
    let method = methods.into_iter().find(|name| method.eq(bytes, name))?;
    Some(entry(method, envelope.params.map(|span| span.get(bytes))))
}

/// An entry of `inputRequests`.
///
/// It is no request of its own: nothing reports its progress, and nothing says when a URL was
/// visited (client/elicitation). A `task` of the client is an offer that it may ignore
/// (2025-11-25, basic/utilities/tasks).
fn entry(method: &str, params: Option<&[u8]>) -> Vec<u8> {
    let is_dropped =
        |key: &[u8]| key == b"task" || key == b"elicitationId" && method == "elicitation/create";
    let is_dropped_meta = |key: &[u8]| key == b"progressToken" || is_protocols(key);
    let params = params.map(|params| edit_meta(params, is_dropped, is_dropped_meta, &[]));
    let method = token(method);
    let mut members: Vec<(&str, &[u8])> = vec![("method", &method)];
    members.extend(params.as_ref().map(|params| ("params", params.as_slice())));
    object(&members)
}

/// The `result` that asks a client these questions: their keys, and what [`input_request`] made of
/// them (basic/patterns/mrtr, `InputRequiredResult`).
pub fn input_required(requests: &[(String, Vec<u8>)], state: Option<&str>) -> Vec<u8> {
    let requests: Vec<(&str, &[u8])> =
        requests.iter().map(|(key, request)| (key.as_str(), request.as_slice())).collect();
    let requests = object(&requests);
    let mut members: Vec<(&str, &[u8])> =
        vec![("resultType", b"\"input_required\""), ("inputRequests", &requests)];
    let state = state.map(token);
    members.extend(state.as_ref().map(|state| ("requestState", state.as_slice())));
    object(&members)
}

/// The answers in a modern request: their keys, and where in `bytes` they stand.
pub fn input_responses(bytes: &[u8]) -> Vec<(String, Span)> {
    let Some(whole) = find_path(bytes, &["params", "inputResponses"]) else { return Vec::new() };
    let inner = whole.get(bytes);
    let entries = json::entries(inner, limits::DEPTH_MAX).unwrap_or_default();
    let entries = entries.into_iter().map(|(key, value)| {
        let name = String::from_utf8_lossy(&key.decode(inner)).into_owned();
        (name, Span { start: whole.start + value.start, end: whole.start + value.end })
    });
    entries.collect()
}

/// The `requestState` in a modern request.
pub fn request_state(bytes: &[u8]) -> Option<String> {
    find_path(bytes, &["params", "requestState"]).and_then(|span| text_of(span.get(bytes)))
}

/// What a subscription of a modern client lets through (basic/patterns/subscriptions).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether it is told that lists of tools, prompts, resources have changed.
    lists: [bool; 3],
    /// The resources whose changes it is told.
    pub uris: Vec<String>,
}

/// The lists that may change: member of the filter, capability, notification.
pub(super) const CHANGES: [(&str, &str, &str); 3] = [
    ("toolsListChanged", "tools", "notifications/tools/list_changed"),
    ("promptsListChanged", "prompts", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "resources", "notifications/resources/list_changed"),
];

/// What of a subscription can be honoured: `filter` is the raw `params.notifications` of
/// `subscriptions/listen`, `capabilities` are those of the legacy server (Acknowledgment: what it
/// does not support is left out). The same holds for URIs beyond
/// [`limits::SESSION_SETUP_MAX`]: a server that starts anew is to be told of all of them.
pub fn changed(filter: &[u8], capabilities: &[u8]) -> Filter {
    let lists = CHANGES.map(|(key, capability, _)| {
        member(filter, key) == Some(b"true")
            && has_capability(capabilities, &[capability, "listChanged"])
    });
    let list = member(filter, "resourceSubscriptions");
    let list = list.filter(|_| has_capability(capabilities, &["resources", "subscribe"]));
    let list = list.unwrap_or(b"[]");
    let spans = json::elements(list, limits::DEPTH_MAX).flatten();
    let uris = spans.filter_map(|span| text_of(span.get(list)));
    Filter { lists, uris: uris.take(limits::SESSION_SETUP_MAX).collect() }
}

impl Filter {
    /// It as raw JSON: `params.notifications` of the acknowledgement.
    pub fn json(&self) -> Vec<u8> {
        filter_json(self.lists, &self.uris)
    }

    /// Whether a notification of the server is for this subscription.
    pub fn lets_through(&self, notification: &[u8]) -> bool {
        let method = find(notification, "method").and_then(|span| text_of(span.get(notification)));
        let Some(method) = method else { return false };
        if method == "notifications/resources/updated" {
            let uri = find_path(notification, &["params", "uri"]);
            let uri = uri.and_then(|span| text_of(span.get(notification)));
            return uri.is_some_and(|uri| self.uris.iter().any(|whole| is_in(&uri, whole)));
        }
        CHANGES.iter().zip(self.lists).any(|((.., name), is_on)| is_on && method == *name)
    }
}

/// A filter as raw JSON.
pub(super) fn filter_json(lists: [bool; 3], uris: &[String]) -> Vec<u8> {
    let on = CHANGES.iter().zip(lists).filter(|(_, is_on)| *is_on);
    let mut members: Vec<(&str, &[u8])> = on.map(|((key, ..), _)| (*key, &b"true"[..])).collect();
    let uris: Vec<Vec<u8>> = uris.iter().map(|uri| token(uri)).collect();
    let list = [b"[", uris.join(&b',').as_slice(), b"]"].concat();
    if !uris.is_empty() {
        members.push(("resourceSubscriptions", &list));
    }
    object(&members)
}

/// Whether a URI is this one, or of something in it: the server may tell of a part of what was
/// subscribed to (schema, `ResourceUpdatedNotification`).
fn is_in(uri: &str, whole: &str) -> bool {
    uri.strip_prefix(whole).is_some_and(|rest| {
        rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '?', '#'])
    })
}

/// The first message of a subscription (basic/patterns/subscriptions, Acknowledgment). `id` is
/// that of the `subscriptions/listen`, as raw JSON.
pub fn acknowledged(id: &[u8], filter: &Filter) -> Vec<u8> {
    let meta = object(&[("io.modelcontextprotocol/subscriptionId", id)]);
    let params = object(&[("_meta", &meta), ("notifications", &filter.json())]);
    object(&[
        ("jsonrpc", b"\"2.0\""),
        ("method", b"\"notifications/subscriptions/acknowledged\""),
        ("params", &params),
    ])
}

/// A legacy notification as one of the subscription that `subscriptions/listen` with this id (raw
/// JSON) has opened.
pub fn subscribed(notification: &[u8], id: &[u8]) -> Vec<u8> {
    let params = member(notification, "params").unwrap_or(b"{}");
    let set: [(&str, &[u8]); 1] = [("io.modelcontextprotocol/subscriptionId", id)];
    let params = edit_meta(params, |_| false, |_| false, &set);
    edit(notification, |_| false, &[("params", &params)])
}
