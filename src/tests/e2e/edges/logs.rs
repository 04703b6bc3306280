//! What is logged, counted and answered holds no secret, and every record is one line.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Message, Request, Wire};
use super::recorder::{After, Recorder, answer, echo};
use super::rig::{Dir, Rig, call, demo, http, initialize, modern_call, script};
use crate::support::{gateway, succeed};

/// No secret of a test is without this word.
const CANARY: &str = "canary";

/// A configuration with secrets in every place that may have some.
fn secrets(dir: &Dir, backend: &str) -> String {
    let file = dir.write("secret", "canary-of-a-file\n");
    let words = r#"one\033[31m\ntwo\r\nbad \377 {"event":"fake"}\342\200\250\nthe end"#;
    let loud = dir.write("loud.sh", &format!("printf '{words}' >&2\nexec cat > /dev/null"));
    let env = "env = { TOKEN = \"${TOKEN}\", PLAIN = \"canary-in-the-file\" }\n";
    http("echo", backend)
        + &format!(
            "headers = {{ Authorization = \"Bearer ${{TOKEN}}\", X-Key = {{ file = {file:?} }} }}\n"
        )
        + &demo()
        + env
        + &script("loud", &loud, &[])
        + "start_timeout = \"500ms\"\nstop_grace = \"100ms\"\n"
}

fn with_token(command: &mut Command) {
    command.env("TOKEN", "canary-of-the-environment").env("OTHER_CANARY", "canary-of-nobody");
}

/// A request with secrets wherever a client may put some.
fn loaded(request: Request) -> Request {
    let target = format!("{}?access_token=canary-query", request.target);
    Request { target, ..request }
        .with("Authorization", "Bearer canary-authorization")
        .with("Cookie", "session=canary-cookie")
        .with("User-Agent", "canary-agent")
        .with("X-Api-Key", "canary-key")
        .with("traceparent", "canary-trace")
}

/// Requests of every kind, good and bad.
fn requests(session: &str) -> Vec<Request> {
    let secret = json!({"text": "canary-argument", "level": "canary"});
    let call = call("echo", &secret);
    let modern = modern_call("echo", &secret.to_string());
    let mut requests = Vec::new();
    for path in ["/mcp/demo", "/mcp/echo", "/mcp/loud"] {
        requests.extend([
            Request::post(path, call.clone()).session(session),
            Request::post(path, call.clone()).session("canary-session"),
            Request::post(path, call.clone()),
            Request::post(path, "{\"canary-json\": }"),
            Request::post(path, initialize("canary-version")),
            Request::post(path, initialize("2025-11-25").replace("edges", "canary-client")),
            Request::post(path, call.clone()).with("MCP-Protocol-Version", "canary-version"),
            Request::post(path, call.clone()).with("Origin", "https://canary.example"),
            Request::post(path, call.clone()).set("Host", "canary.example"),
            Request::post(path, call.clone()).set("Content-Type", "text/canary"),
            Request::get(path).session(session).with("Last-Event-ID", "canary-event"),
            Request::modern(path, &modern),
            Request::modern(path, &modern).set("Mcp-Name", "canary-name"),
            Request::new("CANARY", path),
            Request::new("DELETE", path).session("canary-session"),
        ]);
    }
    requests.push(Request::post("/canary-path", call.clone()));
    requests.push(Request::post("/mcp/canary-server", call));
    requests
}

#[track_caller]
fn none(what: &str, text: &str) {
    let found = text
        .to_ascii_lowercase()
        .find(CANARY)
        .map(|at| text.get(at.saturating_sub(200)..(at + 100).min(text.len())).unwrap_or_default());
    assert_eq!(found, None, "{what}");
}

#[test]
fn secrets_stay_where_they_are() {
    let backend = Recorder::start(|request, stream| {
        let said = if request.body.ends_with(b"}}")
            && super::http::find(&request.body, b"refuse").is_some()
        {
            answer("401 Who", "WWW-Authenticate: canary-realm\r\n", b"canary-refusal")
        } else {
            echo(request)
        };
        Wire::new(stream.try_clone().unwrap()).send(said);
        After::Keep
    });
    let dir = Dir::new();
    let config = secrets(&dir, &backend.url());
    let mut rig = Rig::with(dir, &config, with_token);
    let session = rig.open("demo");
    for request in requests(&session.id) {
        let mut wire = rig.wire();
        let asked = format!("{} {}", request.method, request.target);
        let answer = wire.ask(&loaded(request));
        // What the client itself said may be in an answer of the server, not in a refusal.
        if 400 <= answer.status() {
            check_refusal(&asked, &answer);
        }
    }
    let refused = rig.ask(&Request::modern("/mcp/echo", &modern_call("echo", "{\"refuse\":{}}")));
    assert_eq!(refused.status(), 502);
    check_refusal("401", &refused);
    none("metrics", &rig.metrics());
    let pid = rig.gateway.process.pid().as_raw_pid();
    none("arguments", &std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap());
    rig.gateway.process.signal(rustix::process::Signal::TERM);
    rig.gateway.process.end(Duration::from_secs(20));
    let log = rig.gateway.process.output();
    none("the log", &log);
    assert!(!log.contains(&session.id), "a session id is in the log");
    check_lines(&log);
}

/// Every line is one JSON object, without anything that a terminal would obey.
#[track_caller]
fn check_lines(log: &str) -> Vec<Value> {
    assert!(!log.contains(['\u{1b}', '\r', '\u{2028}', '\u{202e}', '\u{7f}', '\0']), "{log}");
    let line =
        |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
    let lines: Vec<Value> = log.lines().map(line).collect();
    assert!(lines.iter().all(|line| line["time"].is_string() && line["event"].is_string()));
    lines
}

#[test]
fn check_prints_no_secret() {
    let dir = Dir::new();
    let path = dir.write("gateway.toml", &secrets(&dir, "http://127.0.0.1:1/mcp"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    command.arg("check").arg("--config").arg(&path).stdin(Stdio::null());
    with_token(&mut command);
    none("check", &succeed(&mut command, Duration::from_secs(20)).replace("OTHER_CANARY", ""));
    // Nor does what is wrong.
    let headers = r#"{ Authorization = "canary\n${TOKEN}", Host = "canary", X = "${NO}canary" }"#;
    let wrong = format!("[servers.a]\nurl = \"http://a/\"\nheaders = {headers}\n");
    let wrong = dir.write("wrong.toml", &wrong);
    let mut command = gateway("run");
    command.arg("--config").arg(&wrong);
    with_token(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    none("problems", &String::from_utf8(output.stderr).unwrap());
}

#[test]
fn no_value_breaks_out_of_its_line() {
    let backend = Recorder::echo();
    let dir = Dir::new();
    let config = secrets(&dir, &backend.url());
    let mut rig = Rig::with(dir, &config, with_token);
    let evil =
        "x\r\n{\"time\":\"1\",\"event\":\"fake\"}\u{1b}[2J\u{2028}\u{202e}\u{0}\u{7f}\u{9b}\"";
    let mut session = rig.open("demo");
    let long = "y".repeat(100_000);
    for text in [evil, &long] {
        session.post(call(text, &json!({"text": "x"})));
        let method = json!({"jsonrpc": "2.0", "id": 1, "method": text, "params": {"uri": text}});
        session.post(method.to_string());
        let read =
            json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": text}});
        session.post(read.to_string());
    }
    rig.ask(&Request::post("/mcp/demo%0a%1b%5b2J%22", "{}"));
    rig.ask(&Request::post("/mcp/\"},{\"event\":\"fake\"", "{}"));
    rig.ask(&Request::post("/mcp/demo", "{}").with("User-Agent", "\x1b[2J"));
    rig.ask(&Request::post("/mcp/loud", initialize("2025-11-25")));
    rig.log_with("the end");
    rig.gateway.process.signal(rustix::process::Signal::TERM);
    rig.gateway.process.end(Duration::from_secs(20));
    let log = rig.gateway.process.output();
    let lines = check_lines(&log);
    assert!(lines.iter().all(|line| line["event"] != "fake"));
    assert!(lines.iter().all(|line| line.to_string().len() < 8192), "values are cut");
    let words: Vec<&str> = lines
        .iter()
        .filter(|line| line["event"] == "stderr")
        .filter_map(|line| line["line"].as_str())
        .collect();
    assert_eq!(
        words,
        ["one\u{1b}[31m", "two", "bad \\xff {\"event\":\"fake\"}\u{2028}", "the end"]
    );
}

#[test]
fn names_of_clients_make_no_metrics() {
    let rig = Rig::new(&demo());
    let mut session = rig.open("demo");
    let count = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    let before = count(&rig.metrics());
    for number in 0..200 {
        let method = format!("made/up{number}");
        session.post(json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string());
        rig.ask(&Request::new("POST", &format!("/mcp/made-up{number}")));
    }
    let page = rig.metrics();
    assert_eq!(count(&page), before);
    assert!(!page.contains("made"));
}

fn check_refusal(asked: &str, answer: &Message) {
    let mut text = format!("{:?} {}", answer.fields, answer.text());
    // The version asked for is repeated, as the revision demands.
    if answer.json()["error"]["code"] == -32022 {
        text.clear();
    }
    none(asked, &text);
}
