//! Every refusal: its status, its code, its reason, and the id that it answers.

use serde_json::{Value, json};

use super::http::{Message, Request};
use super::recorder::Recorder;
use super::rig::{META, Rig, Session, call, demo, http, initialize, modern_call};

/// A request, and the refusal that it must get.
struct Row {
    why: &'static str,
    request: Request,
    status: u16,
    code: i64,
    reason: &'static str,
    id: Value,
}

fn row(
    why: &'static str,
    request: Request,
    (status, code, reason): (u16, i64, &'static str),
    id: impl Into<Value>,
) -> Row {
    Row { why, request, status, code, reason, id: id.into() }
}

#[track_caller]
fn check(row: &Row, answer: &Message) {
    let why = row.why;
    assert_eq!(answer.status(), row.status, "{why}: {}", answer.text());
    assert_eq!(answer.get("content-type"), "application/json", "{why}");
    let body = answer.json();
    assert_eq!(body["jsonrpc"], "2.0", "{why}");
    assert_eq!(body["error"]["code"], row.code, "{why}: {body}");
    assert_eq!(body["error"]["data"]["gateway"], row.reason, "{why}: {body}");
    assert_eq!(body["id"], row.id, "{why}");
    assert_eq!(body.as_object().unwrap().len(), 3, "{why}: {body}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{why}");
}

fn rig(recorder: &Recorder) -> Rig {
    let servers = demo() + &http("echo", &recorder.url());
    Rig::new(&format!("limits.message = \"64KiB\"\n{servers}"))
}

const PING: &str = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;

fn by_head(session: &Session) -> Vec<Row> {
    let post = |body: &str| Request::post("/mcp/demo", body);
    let ping = || session.request(PING);
    let unknown = "0123456789abcdef0123456789abcdef";
    vec![
        row("unknown session", post(PING).session(unknown), (404, -32600, "unknown_session"), 5),
        row("no id of ours", post(PING).session("../../x"), (404, -32600, "unknown_session"), 5),
        row("empty session", post(PING).session(""), (404, -32600, "unknown_session"), 5),
        row("two sessions", ping().session(unknown), (404, -32600, "unknown_session"), 5),
        row("the same twice", ping().session(&session.id), (404, -32600, "unknown_session"), 5),
        row("no session", post(PING), (400, -32600, "no_session"), 5),
        row(
            "unknown version",
            ping().with("MCP-Protocol-Version", "1.0"),
            (400, -32600, "unsupported_version"),
            5,
        ),
        row(
            "bad origin",
            ping().with("Origin", "https://evil.example"),
            (403, -32600, "bad_origin"),
            Value::Null,
        ),
        row(
            "two origins",
            ping().with("Origin", "http://localhost").with("Origin", "https://evil.example"),
            (403, -32600, "bad_origin"),
            Value::Null,
        ),
        row("null origin", ping().with("Origin", "null"), (403, -32600, "bad_origin"), Value::Null),
        row(
            "foreign host",
            ping().set("Host", "evil.example"),
            (403, -32600, "bad_host"),
            Value::Null,
        ),
        row(
            "rebinding",
            ping().set("Host", "evil.example").with("Origin", "http://evil.example"),
            (403, -32600, "bad_host"),
            Value::Null,
        ),
    ]
}

fn by_route(session: &Session) -> Vec<Row> {
    let ping = || session.request(PING);
    let at = |path: &str| Request { target: path.to_owned(), ..ping() };
    let method = |method| Request { method, ..ping() };
    vec![
        row("wrong path", at("/nothing"), (404, -32600, "no_such_path"), Value::Null),
        row("prefix", at("/mcpx"), (404, -32600, "no_such_path"), Value::Null),
        row("wrong server", at("/mcp/nobody"), (404, -32600, "no_such_server"), Value::Null),
        row("dots", at("/mcp/demo/../echo"), (404, -32600, "no_such_server"), Value::Null),
        row("all servers", at("/mcp"), (404, -32600, "unknown_session"), 5),
        row("PUT", method("PUT"), (405, -32600, "bad_method"), Value::Null),
        row("PATCH", Request::new("PATCH", "/mcp/demo"), (405, -32600, "bad_method"), Value::Null),
        row("lower case", method("post"), (405, -32600, "bad_method"), Value::Null),
        row(
            "OPTIONS of nobody",
            Request::new("OPTIONS", "/mcp/demo"),
            (405, -32600, "bad_method"),
            Value::Null,
        ),
        row(
            "only JSON accepted",
            ping().set("Accept", "application/json"),
            (406, -32600, "bad_accept"),
            Value::Null,
        ),
        row("no accept", ping().without("Accept"), (406, -32600, "bad_accept"), Value::Null),
        row(
            "GET for JSON",
            Request::get("/mcp/demo").session(&session.id).set("Accept", "application/json"),
            (406, -32600, "bad_accept"),
            Value::Null,
        ),
        row(
            "text",
            ping().set("Content-Type", "text/plain"),
            (415, -32600, "bad_content_type"),
            Value::Null,
        ),
        row(
            "no type",
            ping().without("Content-Type"),
            (415, -32600, "bad_content_type"),
            Value::Null,
        ),
        row(
            "gzip",
            ping().with("Content-Encoding", "gzip"),
            (415, -32600, "bad_content_encoding"),
            Value::Null,
        ),
    ]
}

fn by_stream(session: &Session) -> Vec<Row> {
    let unknown = "0123456789abcdef0123456789abcdef";
    vec![
        row(
            "forged event id",
            Request::get("/mcp/demo").session(&session.id).with("Last-Event-ID", "0-99"),
            (400, -32600, "unknown_event"),
            Value::Null,
        ),
        row(
            "event id of another form",
            Request::get("/mcp/demo").session(&session.id).with("Last-Event-ID", "'; DROP"),
            (400, -32600, "unknown_event"),
            Value::Null,
        ),
        row("GET without", Request::get("/mcp/demo"), (400, -32600, "no_session"), Value::Null),
        row(
            "DELETE of nothing",
            Request::new("DELETE", "/mcp/demo").session(unknown),
            (404, -32600, "unknown_session"),
            Value::Null,
        ),
    ]
}

fn by_body(session: &Session, old: &Session) -> Vec<Row> {
    let request = |body: &str| session.request(body);
    let batch = |body: &str| old.request(body);
    let init = initialize("2025-03-26");
    let shape = (400, -32600, "bad_message");
    let none = Value::Null;
    vec![
        row("no JSON", request("{"), (400, -32700, "bad_message"), none.clone()),
        row("nothing", request(""), (400, -32700, "bad_message"), none.clone()),
        row("two values", request("{} {}"), (400, -32700, "bad_message"), none.clone()),
        row("a number", request("1"), shape, none.clone()),
        row("no version", request(r#"{"id":1,"method":"ping"}"#), shape, none.clone()),
        row("1.0", request(r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#), shape, none.clone()),
        row("null id", request(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#), shape, none.clone()),
        row("1.5", request(r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#), shape, none.clone()),
        row("1e2", request(r#"{"jsonrpc":"2.0","id":1e2,"method":"x"}"#), shape, none.clone()),
        row(
            "array params",
            request(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#),
            (400, -32602, "bad_message"),
            none.clone(),
        ),
        row(
            "too deep",
            request(&format!("{}1{}", "[".repeat(999), "]".repeat(999))),
            (400, -32700, "bad_message"),
            none.clone(),
        ),
        row("new batch", request(&format!("[{PING}]")), (400, -32600, "bad_batch"), none.clone()),
        row("empty batch", batch("[]"), shape, none.clone()),
        row("nested", batch(&format!("[[{PING}]]")), (400, -32600, "bad_batch"), none.clone()),
        row(
            "initialize in a batch",
            batch(&format!("[{PING},{init}]")),
            (400, -32600, "bad_batch"),
            none.clone(),
        ),
        row("broken batch", batch(&format!("[{PING},{{]")), (400, -32700, "bad_message"), none),
    ]
}

fn modern() -> Vec<Row> {
    let body = modern_call("echo", r#"{"text":"x"}"#);
    let post = |body: &str| Request::modern("/mcp/demo", body);
    let future = body.replace("2026-07-28", "2027-01-01");
    let mismatch = (400, -32020, "header_mismatch");
    let bare = r#"{"jsonrpc":"2.0","id":5,"method":"tools/list"}"#;
    let half = r#"{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let modern = |request: Request| request.with("MCP-Protocol-Version", "2026-07-28");
    vec![
        row(
            "future",
            post(&future).set("MCP-Protocol-Version", "2027-01-01"),
            (400, -32022, "unsupported_version"),
            7,
        ),
        row("other name", post(&body).set("Mcp-Name", "Echo"), mismatch, 7),
        row("no name", post(&body).without("Mcp-Name"), mismatch, 7),
        row("other method", post(&body).set("Mcp-Method", "tools/list"), mismatch, 7),
        row("no method", post(&body).without("Mcp-Method"), mismatch, 7),
        row("no version", post(&body).without("MCP-Protocol-Version"), mismatch, 7),
        row("other", post(&body).set("MCP-Protocol-Version", "2025-11-25"), mismatch, 7),
        row("two names", post(&body).with("Mcp-Name", "echo"), mismatch, 7),
        row("bad base64", post(&body).set("Mcp-Name", "=?base64?!?="), mismatch, 7),
        row("no metadata", post(bare), (400, -32602, "missing_metadata"), 5),
        row("half the metadata", post(half), (400, -32602, "missing_metadata"), 5),
        row(
            "a response",
            post(r#"{"jsonrpc":"2.0","id":5,"result":{}}"#),
            (400, -32600, "unexpected_response"),
            5,
        ),
        row("GET", modern(Request::get("/mcp/demo")), (405, -32600, "bad_method"), Value::Null),
        row(
            "DELETE",
            modern(Request::new("DELETE", "/mcp/demo")),
            (405, -32600, "bad_method"),
            Value::Null,
        ),
    ]
}

#[test]
fn every_refusal_has_its_status_code_reason_and_id() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    let (mut session, old) = (rig.open("demo"), rig.open_as("demo", "2025-03-26"));
    let heads = [by_head(&session), by_route(&session), by_stream(&session)].into_iter().flatten();
    let rows = [heads.collect(), by_body(&session, &old), modern()];
    // All of them on one connection: a refusal is no reason to close it.
    let mut wire = rig.wire();
    for row in rows.iter().flatten() {
        let answer = wire.ask(&row.request);
        check(row, &answer);
        if answer.status() == 405 {
            assert_eq!(answer.get("allow"), "GET, POST, DELETE", "{}", row.why);
        }
        if row.code == -32022 {
            let data = &answer.json()["error"]["data"];
            assert_eq!(data["supported"], json!(["2026-07-28"]), "{}", row.why);
            assert_eq!(data["requested"], "2027-01-01", "{}", row.why);
        }
    }
    assert_eq!(session.text("echo", &json!({"text": "still here"})), "still here");
    let refused = u64::try_from(rows.iter().map(Vec::len).sum::<usize>()).unwrap();
    assert_eq!(rig.metric("mcp_requests_refused_total "), refused);
    assert_eq!(recorder.seen().len(), 0);
    rig.check();
}

#[test]
fn the_answer_to_head_has_no_body() {
    let rig = Rig::new(&demo());
    let mut wire = rig.wire();
    let head = Request::new("HEAD", "/mcp").bytes();
    wire.send([head, Request::new("PUT", "/nothing").bytes()].concat());
    let answer = wire.head();
    assert_eq!((answer.status(), answer.get("allow")), (405, "GET, POST, DELETE"));
    assert_eq!(wire.answer().status(), 404);
}

#[test]
fn what_is_too_large_is_refused_and_the_rest_of_it_not_read_as_a_request() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    let session = rig.open("echo");
    let big = call("echo", &json!({"text": "x".repeat(64 * 1024)}));
    let row = |request| row("", request, (413, -32600, "too_large"), Value::Null);
    let announced = row(session.request(big.clone()));
    let chunks = format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    let chunked = row(session.request(chunks).with("Transfer-Encoding", "chunked"));
    let gigantic = row(session.request("").with("Content-Length", "99999999999999999"));
    for row in [announced, chunked, gigantic] {
        let mut wire = rig.wire();
        wire.send(row.request.bytes());
        check(&row, &wire.answer());
        assert!(wire.is_closed());
    }
    assert!(recorder.find("tools/call").is_none());
    rig.check();
}

#[test]
fn batches_are_taken_apart_and_answered_together() {
    let rig = Rig::new(&demo());
    let mut session = rig.open_as("demo", "2025-03-26");
    let note = r#"{"jsonrpc":"2.0","method":"notifications/nothing"}"#;
    let stray = r#"{"jsonrpc":"2.0","id":"guess","result":{}}"#;
    let one = call("echo", &json!({"text": "one"}));
    let two = call("echo", &json!({"text": "two"})).replace("\"id\":7", "\"id\":\"7\"");
    let body = format!("[{one},{note},{stray},{two},{PING}]");
    session.wire.send(session.request(body).bytes());
    assert_eq!(session.wire.head().status(), 200);
    let mut texts = Vec::new();
    while let Some(data) = session.wire.data() {
        let answer: Value = serde_json::from_str(&data).unwrap();
        texts.push(format!("{} {}", answer["id"], answer["result"]["content"][0]["text"]));
    }
    texts.sort();
    assert_eq!(texts, ["\"7\" \"two\"", "5 null", "7 \"one\""]);
    let silent = session.post(format!("[{note},{stray}]"));
    assert_eq!((silent.status(), silent.text()), (202, ""));
    rig.check();
}

#[test]
fn a_page_of_an_admitted_origin_may_ask_and_read() {
    let rig = Rig::new(&format!("listen.origins = [\"https://app.example\"]\n{}", demo()));
    let preflight = Request::new("OPTIONS", "/mcp/demo")
        .with("Origin", "https://app.example")
        .with("Access-Control-Request-Method", "POST")
        .with("Access-Control-Request-Headers", "content-type, mcp-session-id, mcp-param-x");
    let answer = rig.ask(&preflight);
    assert_eq!((answer.status(), answer.text()), (204, ""));
    let allowed = answer.get("access-control-allow-headers").to_ascii_lowercase();
    for name in ["content-type", "mcp-session-id", "mcp-param-x"] {
        assert!(allowed.split(',').any(|allowed| allowed.trim() == name), "{name}");
    }
    let ask = |body: &str| {
        rig.ask(&Request::post("/mcp/demo", body).with("Origin", "https://app.example"))
    };
    for (answer, status) in [(ask(&initialize("2025-11-25")), 200), (ask("{"), 400)] {
        assert_eq!(answer.status(), status);
        assert_eq!(answer.get("access-control-allow-origin"), "https://app.example");
        assert!(answer.get("access-control-expose-headers").contains("Mcp-Session-Id"));
        assert_eq!(answer.get("vary"), "Origin");
    }
    let evil = rig.ask(&preflight.set("Origin", "https://app.example.evil"));
    assert_eq!(evil.status(), 403);
    assert_eq!(evil.get("access-control-allow-origin"), "");
    let plain = rig.ask(&Request::post("/mcp/demo", initialize("2025-11-25")));
    assert_eq!(plain.get("access-control-allow-origin"), "");
}

#[test]
fn the_modern_error_for_an_unknown_method_is_404() {
    let rig = Rig::new(&demo());
    for method in ["initialize", "ping", "no/such"] {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":"q","method":"{method}","params":{{{META}}}}}"#);
        let answer = rig.ask(&Request::modern("/mcp/demo", &body));
        assert_eq!(answer.status(), 404, "{method}");
        assert_eq!(answer.json()["error"]["code"], -32601, "{method}");
        assert_eq!(answer.json()["id"], "q", "{method}");
        assert_eq!(answer.get("mcp-session-id"), "", "{method}");
    }
}
