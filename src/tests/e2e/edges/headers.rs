//! What a server learns of the client's headers: only what MCP says it must.

use super::http::{Message, Request};
use super::recorder::Recorder;
use super::rig::{Rig, http, modern_call};

fn rig(recorder: &Recorder, more: &str) -> Rig {
    Rig::new(&(http("echo", &recorder.url()) + more))
}

fn names(request: &Message) -> Vec<String> {
    let mut names: Vec<_> =
        request.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// What no server is told.
const PRIVATE: &[(&str, &str)] = &[
    ("Authorization", "Bearer client"),
    ("Proxy-Authorization", "Basic client"),
    ("Cookie", "a=client"),
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6"),
    ("X-Forwarded-Client-Cert", "client"),
    ("X-User", "admin"),
    ("X-Api-Key", "client"),
    ("Origin", "http://127.0.0.1"),
    ("Referer", "http://127.0.0.1/"),
    ("User-Agent", "client"),
    ("Accept-Encoding", "gzip"),
    ("Accept-Language", "en"),
    ("Last-Event-ID", "1-1"),
    ("Upgrade", "websocket"),
    ("TE", "trailers"),
    ("Trailer", "X"),
    ("Via", "1.1 client"),
    ("Max-Forwards", "1"),
    ("Keep-Alive", "timeout=1"),
    ("X-Original-URL", "/admin"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("Mcp-Param", "client"),
    ("X-Mcp-Anything", "client"),
    ("Connection", "X-Custom, Mcp-Session-Id, Mcp-Name, traceparent"),
    ("X-Custom", "client"),
];

/// What a server is told as it is.
const PUBLIC: &[(&str, &str)] = &[
    ("Mcp-Param-Region", "eu-1"),
    ("mcp-param-b64", "=?base64?w6k=?="),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "a=b,c=d"),
    ("baggage", "k=v"),
];

#[test]
fn a_server_gets_the_headers_of_mcp_and_those_of_its_configuration() {
    let recorder = Recorder::echo();
    let headers = "headers = { Authorization = \"Bearer ours\", X-Api-Key = \"ours\" }\n";
    let rig = rig(&recorder, headers);
    let add = |request: Request| {
        PRIVATE.iter().chain(PUBLIC).fold(request, |r, (name, value)| r.with(name, value))
    };
    let modern = Request::modern("/mcp?access_token=client", &modern_call("echo", "1"));
    let answer = rig.ask(&add(modern));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let session = rig.open("echo");
    let ping = session.request(r#"{"jsonrpc":"2.0","id":"legacy","method":"ping"}"#);
    let answer = rig.ask(&add(ping.with("MCP-Protocol-Version", "2025-11-25")));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let common = [
        "accept",
        "authorization",
        "baggage",
        "content-length",
        "content-type",
        "host",
        "mcp-param-b64",
        "mcp-param-region",
        "mcp-protocol-version",
        "traceparent",
        "tracestate",
        "x-api-key",
    ];
    let request = recorder.wait_for("tools/call");
    let mut wanted = [&common[..], &["mcp-method", "mcp-name"]].concat();
    wanted.sort_unstable();
    assert_eq!(names(&request), wanted);
    assert_eq!(request.start, "POST /mcp HTTP/1.1");
    let legacy = recorder.wait_for("legacy");
    let mut wanted = [&common[..], &["mcp-session-id"]].concat();
    wanted.sort_unstable();
    assert_eq!(names(&legacy), wanted);
    assert_eq!(legacy.get("mcp-session-id"), "of-the-backend");
    for request in [request, legacy] {
        assert_eq!(request.get("host"), recorder.addr.to_string());
        assert_eq!(request.get("authorization"), "Bearer ours");
        assert_eq!(request.get("x-api-key"), "ours");
        assert_eq!(request.get("accept"), "application/json, text/event-stream");
        for (name, value) in PUBLIC {
            assert_eq!(request.get(name), *value);
        }
        let text = format!("{request:?}");
        assert!(!text.contains("client\"") && !text.contains("6.6.6.6"), "{text}");
    }
    recorder.check();
}

#[test]
fn no_value_becomes_a_header_of_its_own() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder, "");
    for evil in ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0", "\x1b[2J", "\x7f"] {
        for (name, value) in PUBLIC.iter().chain([&("Mcp-Name", "echo")]) {
            let request = Request::modern("/mcp", &modern_call("echo", "1"));
            let answer = rig.ask(&request.set(name, &format!("{value}{evil}")));
            let is_field = evil.starts_with("\r\n");
            // With CR LF it is another header of the request, and stays behind.
            assert_eq!(answer.status(), if is_field { 200 } else { 400 }, "{name} {evil:?}");
        }
        // In the body, escaped, it may be part of a name; it stays there.
        let escaped = serde_json::json!(format!("a{evil}")).to_string();
        let tool = escaped.trim_matches('"');
        let encoded = base64(format!("a{evil}").as_bytes());
        let request = Request::modern("/mcp", &modern_call(tool, "1"));
        let answer = rig.ask(&request.set("Mcp-Name", &format!("=?base64?{encoded}?=")));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    for request in recorder.seen() {
        assert!(request.all("x-evil").is_empty(), "{request:?}");
    }
    recorder.check();
    rig.check();
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0, |bits, byte| (bits << 8) | usize::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at)) & 63]);
        text.extend((0..4).map(|at| if at <= part.len() { digit(at) } else { '=' }));
    }
    text
}

#[test]
fn connection_does_not_take_away_what_the_gateway_decides_by() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder, "");
    let session = rig.open("echo");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let tricks = "mcp-session-id, mcp-protocol-version, host, content-length, origin, accept";
    let answer = rig.ask(&session.request(ping).with("Connection", tricks));
    assert_eq!(answer.status(), 200);
    let evil =
        session.request(ping).with("Connection", tricks).with("Origin", "https://evil.example");
    assert_eq!(rig.ask(&evil).status(), 403);
    let call = Request::modern("/mcp", &modern_call("echo", "1"));
    let wrong = call.with("Connection", "mcp-name, mcp-method").set("Mcp-Name", "other");
    assert_eq!(rig.ask(&wrong).json()["error"]["code"], -32020);
    recorder.check();
}

#[test]
fn a_client_is_not_told_the_headers_of_the_server() {
    let said = "Mcp-Session-Id: of-the-backend\r\nSet-Cookie: a=b\r\nServer: secret/1\r\n\
        Access-Control-Allow-Origin: *\r\nX-Powered-By: secret\r\nLocation: http://10.0.0.1/\r\n";
    let recorder = Recorder::start(move |request, stream| {
        let body = super::recorder::echo(request);
        let text = String::from_utf8(body).unwrap();
        let text = text.replacen("Content-Type", &format!("{said}Content-Type"), 1);
        super::http::Wire::new(stream.try_clone().unwrap()).send(text);
        super::recorder::After::Keep
    });
    let rig = rig(&recorder, "");
    let request = Request::modern("/mcp", &modern_call("echo", "1"));
    let wanted = ["content-length", "content-type"];
    assert_eq!(names(&rig.ask(&request)), wanted);
}
