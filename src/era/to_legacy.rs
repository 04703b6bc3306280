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
use crate::federation::value::{find_path, text_of, token};
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

/// Whether a client with these capabilities (raw JSON) can answer what [`input_request`] made: it
/// must not be asked anything else (basic/patterns/mrtr, Server Requirements).
pub fn is_declared(entry: &[u8], capabilities: &[u8]) -> bool {
    let has = |path: &[&str]| has_capability(capabilities, path);
    let param = |key: &str| find_path(entry, &["params", key]).map(|span| span.get(entry));
    match member(entry, "method") {
        Some(b"\"roots/list\"") => has(&["roots"]),
        Some(b"\"sampling/createMessage\"") => {
            let has_tools = param("tools").or(param("toolChoice")).is_some();
            has(&["sampling"]) && (!has_tools || has(&["sampling", "tools"]))
        }
        Some(b"\"elicitation/create\"") if param("mode") == Some(b"\"url\"") => {
            has(&["elicitation", "url"])
        }
        // client/elicitation, Capabilities: neither mode means forms.
        Some(b"\"elicitation/create\"") => {
            has(&["elicitation", "form"]) || has(&["elicitation"]) && !has(&["elicitation", "url"])
        }
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use wire::rpc::{Limits, scan};

    use super::*;

    fn envelope(bytes: &str) -> Envelope {
        scan(bytes.as_bytes(), Limits { depth_max: 64, len_max: 65_536 }).unwrap()
    }

    fn text(bytes: impl Into<Vec<u8>>) -> String {
        String::from_utf8(bytes.into()).unwrap()
    }

    #[test]
    fn a_session_is_opened_for_who_the_caller_is() {
        let meta = concat!(
            r#"{"io.modelcontextprotocol/clientInfo":{ "name":"c","version":"1" },"#,
            r#""io.modelcontextprotocol/clientCapabilities":{"extensions":{"a/b":{}},"tasks":{},"#,
            r#""roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{ "url":{}}}}"#,
        );
        let wanted = concat!(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
            r#""capabilities":{"roots":{},"sampling":{"tools":{}},"elicitation":{ "url":{}}},"#,
            r#""clientInfo":{ "name":"c","version":"1" }}}"#,
        );
        assert_eq!(text(initialize(meta.as_bytes())), wanted);
        let bare = text(initialize(b"{}"));
        let wanted = format!(r#""capabilities":{{}},"clientInfo":{CLIENT_INFO}}}}}"#);
        assert!(bare.ends_with(&wanted), "{bare}");
    }

    #[track_caller]
    fn check_request(message: &str, wanted: &str) {
        assert_eq!(text(request(message.as_bytes(), &envelope(message))), wanted);
    }

    #[test]
    fn requests_lose_what_is_modern() {
        check_request(
            concat!(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"requestState":"s","name":"t","#,
                r#""arguments":{"requestState":1e0},"task":{},"inputResponses":{},"_meta":{ "progressToken":1,"#,
                r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","a.b/c":"\u0061"}}}"#,
            ),
            concat!(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","#,
                r#""arguments":{"requestState":1e0},"#,
                r#""_meta":{ "progressToken":1,"a.b/c":"\u0061"}}}"#,
            ),
        );
        check_request(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/logLevel":"info"}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#,
        );
        let bare = r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#;
        check_request(bare, bare);
    }

    #[test]
    fn levels_have_an_order() {
        let of = |level: &str| {
            let text = format!(
                r#"{{"params":{{"_meta":{{"io.modelcontextprotocol/logLevel":{level}}}}}}}"#
            );
            log_level(text.as_bytes())
        };
        assert_eq!(of("\"notice\""), Some(LogLevel::Notice));
        assert_eq!(of("\"loud\""), None);
        assert_eq!(of("3"), None);
        let is_logged = |level: &str, wanted| {
            is_logged(format!(r#"{{"params":{{"level":"{level}"}}}}"#).as_bytes(), wanted)
        };
        assert!(is_logged("debug", Some(LogLevel::Debug)));
        assert!(is_logged("emergency", Some(LogLevel::Debug)));
        assert!(is_logged("critical", Some(LogLevel::Error)));
        assert!(!is_logged("notice", Some(LogLevel::Warning)));
        assert!(!is_logged("loud", Some(LogLevel::Debug)));
        assert!(!is_logged("emergency", None));
        assert!(!is_logged("loud", None));
        let wanted =
            r#"{"jsonrpc":"2.0","id":0,"method":"logging/setLevel","params":{"level":"alert"}}"#;
        assert_eq!(text(set_level(LogLevel::Alert)), wanted);
    }

    #[track_caller]
    fn check_result(method: &str, it: &str, info: Option<&str>, wanted: &str) {
        let out = result(method.as_bytes(), it.as_bytes(), info.map(str::as_bytes));
        assert_eq!(text(out), wanted);
    }

    #[test]
    fn results_say_what_modern_ones_must() {
        check_result(
            "tools/call",
            r#"{"content":[ 1e0 ]}"#,
            None,
            r#"{"content":[ 1e0 ],"resultType":"complete"}"#,
        );
        check_result(
            "tools/list",
            r#"{"tools":[],"_meta":{"a":1}}"#,
            Some(r#"{"name":"s"}"#),
            r#"{"tools":[],"_meta":{"a":1,"io.modelcontextprotocol/serverInfo":{"name":"s"}},"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#,
        );
        check_result(
            "resources/read",
            r#"{"ttlMs":5,"resultType":"complete","cacheScope":"public"}"#,
            None,
            r#"{"ttlMs":5,"resultType":"complete","cacheScope":"public"}"#,
        );
        // Whatever a legacy server means by it, its result is complete.
        check_result(
            "x",
            r#"{"resultType":"input_required"}"#,
            None,
            r#"{"resultType":"complete"}"#,
        );
    }

    #[test]
    fn what_a_server_is_is_told_as_discovery() {
        let initialized = concat!(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tasks":{},"tools":{"listChanged":true},"#,
            r#""logging":{},"extensions":{"a/b":{}},"x":{}},"serverInfo":{"name":"s","version":"1"},"instructions":"Do."}"#,
        );
        let wanted = concat!(
            r#"{"capabilities":{"tools":{"listChanged":true},"logging":{},"x":{}},"instructions":"Do.","#,
            r#""supportedVersions":["2026-07-28"],"resultType":"complete","ttlMs":0,"cacheScope":"private","#,
            r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}"#,
        );
        assert_eq!(text(discovered(initialized.as_bytes())), wanted);
    }

    const URLS: &str = r#"{"elicitation":{"url":{}}}"#;

    #[track_caller]
    fn check_code(code: i64, method: &str, wanted: Option<i64>) {
        let it = format!(r#"{{"code":{code},"message":"m","data":{{"x":1}}}}"#);
        let out = error(it.as_bytes(), code, method.as_bytes(), URLS.as_bytes());
        let wanted = wanted.map_or(ModernError::Same, |new| {
            let it = it.replace(&code.to_string(), &new.to_string());
            ModernError::Error(it.into_bytes(), new)
        });
        assert_eq!(out, wanted, "{code}");
    }

    #[test]
    fn errors_have_the_codes_of_the_modern_era() {
        check_code(-32002, "resources/read", Some(-32602));
        for code in [-32020, -32021, -32022, -32042, -32050, -32099] {
            check_code(code, "tools/call", Some(-32603));
        }
        for code in [-32000, -32001, -32019, -32100, -32601, -32602, -32603, -32700, 1] {
            check_code(code, "tools/call", None);
        }
    }

    #[test]
    fn an_error_that_wants_a_url_opened_is_a_question() {
        let it = br#"{"code":-32042,"data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"u","message":"m"},{"mode":"url","url":"v"}]}}"#;
        let wanted = concat!(
            r#"{"resultType":"input_required","inputRequests":{"#,
            r#""url-0":{"method":"elicitation/create","params":{"mode":"url","url":"u","message":"m"}},"#,
            r#""url-1":{"method":"elicitation/create","params":{"mode":"url","url":"v"}}}}"#,
        );
        let asked = error(it, -32042, b"tools/call", URLS.as_bytes());
        assert_eq!(asked, ModernError::Result(wanted.as_bytes().to_vec()));
        // Who cannot be asked, and what may not ask.
        let missing = ModernError::Error(URL_MISSING.to_vec(), -32021);
        assert_eq!(error(it, -32042, b"tools/call", br#"{"elicitation":{}}"#), missing);
        json::validate(URL_MISSING, 8).unwrap();
        let failed = error(it, -32042, b"tools/list", URLS.as_bytes());
        assert!(matches!(failed, ModernError::Error(_, -32603)), "{failed:?}");
        let nothing = br#"{"code":-32042,"data":{"elicitations":[]}}"#;
        let failed = error(nothing, -32042, b"tools/call", URLS.as_bytes());
        assert!(matches!(failed, ModernError::Error(_, -32603)), "{failed:?}");
    }

    #[track_caller]
    fn check_input(method: &str, params: &str, wanted: Option<&str>) {
        let message = format!(r#"{{"jsonrpc":"2.0","id":9,"method":"{method}"{params}}}"#);
        let wanted = wanted.map(|params| format!(r#"{{"method":"{method}"{params}}}"#));
        let out = input_request(message.as_bytes(), &envelope(&message));
        assert_eq!(out.map(text), wanted);
    }

    #[test]
    fn requests_of_servers_are_entries() {
        check_input("roots/list", "", Some(""));
        check_input(
            "roots/list",
            r#","params":{"_meta":{"progressToken":1}}"#,
            Some(r#","params":{}"#),
        );
        check_input(
            "elicitation/create",
            r#","params":{"mode":"url","elicitationId":"e","url":"\u0061","task":{"ttl":1}}"#,
            Some(r#","params":{"mode":"url","url":"\u0061"}"#),
        );
        check_input(
            "sampling/createMessage",
            r#","params":{"messages":[],"_meta":{"io.modelcontextprotocol/related-task":{},"a":1}}"#,
            Some(r#","params":{"messages":[],"_meta":{"a":1}}"#),
        );
        check_input("ping", "", None);
        check_input("tasks/get", r#","params":{"taskId":"t"}"#, None);
    }

    #[test]
    fn clients_are_asked_only_what_they_can_answer() {
        let is_declared = |method: &str, params: &str, capabilities: &str| {
            let entry = format!(r#"{{"method":"{method}","params":{params}}}"#);
            is_declared(entry.as_bytes(), capabilities.as_bytes())
        };
        assert!(is_declared("roots/list", "{}", r#"{"roots":{}}"#));
        assert!(!is_declared("roots/list", "{}", r#"{"sampling":{}}"#));
        let tools = r#"{"tools":[]}"#;
        assert!(is_declared("sampling/createMessage", "{}", r#"{"sampling":{}}"#));
        assert!(!is_declared("sampling/createMessage", tools, r#"{"sampling":{}}"#));
        assert!(is_declared("sampling/createMessage", tools, r#"{"sampling":{"tools":{}}}"#));
        let elicit = |mode: &str, capabilities: &str| {
            is_declared("elicitation/create", &format!(r#"{{"mode":"{mode}"}}"#), capabilities)
        };
        assert!(elicit("form", r#"{"elicitation":{}}"#));
        assert!(!elicit("url", r#"{"elicitation":{}}"#));
        assert!(elicit("url", URLS) && !elicit("form", URLS));
        assert!(elicit("form", r#"{"elicitation":{"url":{},"form":{}}}"#));
        assert!(!elicit("form", "{}"));
        assert!(!is_declared("ping", "{}", URLS));
    }

    #[test]
    fn questions_are_put_together() {
        let requests = [("1".to_owned(), b"{\"method\":\"roots/list\"}".to_vec())];
        let wanted = r#"{"resultType":"input_required","inputRequests":{"1":{"method":"roots/list"}},"requestState":"a\"b"}"#;
        assert_eq!(text(input_required(&requests, Some("a\"b"))), wanted);
    }

    #[test]
    fn answers_are_found() {
        let bytes = concat!(
            r#"{"params":{ "inputResponses" : {"\u0061": {"roots":[]} ,"b":{}},"#,
            r#""requestState":"\u0073"}}"#,
        );
        let bytes = bytes.as_bytes();
        let found: Vec<(String, &[u8])> =
            input_responses(bytes).into_iter().map(|(key, span)| (key, span.get(bytes))).collect();
        let wanted = [("a".to_owned(), &br#"{"roots":[]}"#[..]), ("b".to_owned(), &b"{}"[..])];
        assert_eq!(found, wanted);
        assert_eq!(request_state(bytes).as_deref(), Some("s"));
        assert!(input_responses(br#"{"params":{"inputResponses":[]}}"#).is_empty());
        assert_eq!(request_state(br#"{"params":{"requestState":1}}"#), None);
    }
}
