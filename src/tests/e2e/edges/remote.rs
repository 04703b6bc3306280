//! Servers that speak HTTP+SSE (2024-11-05): their streams are used as if they were processes, and
//! whatever they do wrong costs as little as possible.
#![expect(clippy::disallowed_types, reason = "its connections have threads of their own")]

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::{Message, Request};
use super::recorder::{After, Recorder, answer};
use super::rig::{Rig, Session, call, initialize, modern_call};
use crate::support::{Process, free_port, peer, root, until};

/// The open streams of a server, by what it calls them.
type Streams = Arc<Mutex<HashMap<String, TcpStream>>>;

/// An HTTP+SSE server that does what it is told by the names of its tools. `endpoint` is what it
/// names for messages; the number of the stream follows.
fn server(endpoint: &'static str) -> Recorder {
    let streams = Streams::default();
    Recorder::start(move |request, stream| serve(endpoint, &streams, request, stream))
}

fn serve(endpoint: &str, streams: &Streams, request: &Message, stream: &mut TcpStream) -> After {
    let mut words = request.start.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    if method == "GET" {
        let id = {
            let mut streams = streams.lock().unwrap();
            let id = format!("s{}", streams.len());
            streams.insert(id.clone(), stream.try_clone().unwrap());
            id
        };
        let mut say = |bytes: &[u8]| drop(stream.write_all(bytes));
        say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n: hi\n\n");
        say(format!("event: endpoint\r\ndata: {endpoint}{id}\r\n\r\n").as_bytes());
        return After::Keep;
    }
    let mut say = |bytes: &[u8]| drop(stream.write_all(bytes));
    let Some((_, id)) = target.split_once("?id=") else {
        say(&answer("405 Method Not Allowed", "", b""));
        return After::Keep;
    };
    let message: Value = serde_json::from_slice(&request.body).unwrap();
    let name = message["params"]["name"].as_str().unwrap_or_default();
    if name == "refuse" {
        say(&answer("500 Internal Server Error", "", b"no"));
        return After::Keep;
    }
    if name == "hang up" {
        return After::Close;
    }
    say(b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted");
    let mut events = streams.lock().unwrap()[id].try_clone().unwrap();
    let result = match (message["method"].as_str(), name) {
        (Some("initialize"), _) => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"},
        }),
        (Some("tools/call"), "die") => {
            events.shutdown(Shutdown::Both).unwrap();
            return After::Keep;
        }
        (Some("prompts/list"), _) if id == "s0" => {
            events.shutdown(Shutdown::Both).unwrap();
            return After::Keep;
        }
        (Some("prompts/list"), _) => json!({ "prompts": [] }),
        (Some("tools/call"), "silent") => return After::Keep,
        (Some("tools/call"), _) => {
            json!({"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]})
        }
        (Some("server/discover"), _) => {
            let error = json!({"code": -32601, "message": "no"});
            let text = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
            drop(events.write_all(format!("data: {text}\n\n").as_bytes()));
            return After::Keep;
        }
        _ => return After::Keep,
    };
    let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    // On two lines, in two pieces.
    let (front, back) = text.split_once(',').unwrap();
    drop(events.write_all(format!("event: message\nid: 1\ndata: {front},\nda").as_bytes()));
    std::thread::sleep(Duration::from_millis(5));
    drop(events.write_all(format!("ta: {back}\n\n").as_bytes()));
    After::Keep
}

fn config(recorder: &Recorder, more: &str) -> String {
    format!("[servers.old]\nurl = \"http://{}/sse\"\n{more}\n", recorder.addr)
}

const SSE: &str = "transport = \"sse\"";
const SHARED: &str = "transport = \"sse\"\nisolation = \"shared\"";
const AUTO: &str = "transport = \"auto\"";

#[track_caller]
fn reason(session: &mut Session, tool: &str) -> String {
    let answer = session.call(tool, &json!({}));
    answer["error"]["data"]["gateway"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The streams that the server was asked for.
fn gets(recorder: &Recorder) -> usize {
    recorder.seen().iter().filter(|request| request.start.starts_with("GET ")).count()
}

/// SEED probe 19.
#[test]
fn clients_with_equal_ids_never_see_each_others_answers() {
    for (more, streams) in [(SSE, 6), (SHARED, 1), (AUTO, 6)] {
        let recorder = server("/messages?id=");
        let rig = Rig::new(&config(&recorder, more));
        let mut sessions: Vec<Session> = (0..6).map(|_| rig.open("old")).collect();
        for round in 0..10 {
            std::thread::scope(|scope| {
                for (number, session) in sessions.iter_mut().enumerate() {
                    let text = format!("{round} of {number}");
                    scope.spawn(move || {
                        assert_eq!(session.text("echo", &json!({ "text": text })), text);
                    });
                }
            });
        }
        assert_eq!(gets(&recorder), streams, "{more}");
        for session in &sessions {
            let delete = Request::new("DELETE", "/mcp/old").session(&session.id);
            assert_eq!(rig.ask(&delete).status(), 200);
        }
        if streams == 6 {
            rig.until_metric("mcp_exchanges_in_flight ", 0);
        }
        rig.until_metric("mcp_sessions_open ", 0);
        recorder.check();
        rig.check();
    }
}

#[test]
fn messages_go_where_the_stream_says_but_never_to_another_origin() {
    for (endpoint, posted) in [
        ("messages?id=", Some("/messages?id=s0")),
        ("?id=", Some("/sse?id=s0")),
        ("http://other.example/messages?id=", None),
        ("//other.example/messages?id=", None),
        ("https://127.0.0.1/messages?id=", None),
    ] {
        let recorder = server(endpoint);
        let rig = Rig::new(&config(&recorder, SSE));
        let answer = rig.ask(&Request::post("/mcp/old", initialize("2025-06-18")));
        match posted {
            Some(target) => {
                assert_eq!(answer.status(), 200, "{}", answer.text());
                let post = recorder.wait_for("initialize");
                assert_eq!(post.start, format!("POST {target} HTTP/1.1"));
            }
            None => {
                let said = answer.json();
                assert_eq!(said["error"]["data"]["gateway"], "server_invalid", "{said}");
                assert_eq!(recorder.find("initialize").map(|post| post.start), None);
            }
        }
        recorder.check();
        rig.check();
    }
}

#[test]
fn a_post_that_fails_costs_its_request_only() {
    let recorder = server("/messages?id=");
    let rig = Rig::new(&config(&recorder, SSE));
    let mut session = rig.open("old");
    assert_eq!(session.text("echo", &json!({"text": "a"})), "a");
    assert_eq!(reason(&mut session, "refuse"), "server_invalid");
    assert_eq!(reason(&mut session, "hang up"), "server_died");
    assert_eq!(session.text("echo", &json!({"text": "b"})), "b");
    assert_eq!(gets(&recorder), 1);
    let seen = recorder.seen().into_iter().filter(|it| it.text().contains("hang up")).count();
    assert_eq!(seen, 1, "it must not be sent twice");
    rig.check();
}

#[test]
fn a_stream_that_ends_ends_its_requests_and_is_asked_for_again() {
    for more in [SSE, SHARED, AUTO] {
        let recorder = server("/messages?id=");
        let rig = Rig::new(&config(&recorder, more));
        let mut session = rig.open("old");
        let mut silent = rig.wire();
        silent.send(session.request(call("silent", &json!({}))).bytes());
        recorder.wait_for("silent");
        let start = Instant::now();
        assert_eq!(reason(&mut session, "die"), "server_died");
        let other = silent.answer().json();
        assert_eq!(other["error"]["data"]["gateway"], "server_died");
        assert!(start.elapsed() < Duration::from_secs(5));
        // The session is set up again on a new stream.
        assert_eq!(session.text("echo", &json!({"text": "back"})), "back");
        assert_eq!(gets(&recorder), 2);
        let told = recorder.seen().iter().filter(|it| it.text().contains("initialized")).count();
        assert_eq!(told, 2);
        recorder.check();
        rig.check();
    }
}

#[test]
fn a_list_survives_the_end_of_a_stream() {
    for more in [SSE, SHARED] {
        let recorder = server("/messages?id=");
        let rig = Rig::new(&config(&recorder, more));
        let mut session = rig.open("old");
        let answer = session.post(r#"{"jsonrpc":"2.0","id":"x","method":"prompts/list"}"#);
        assert_eq!(answer.json()["result"]["prompts"], json!([]), "{more}");
        assert_eq!(gets(&recorder), 2);
        assert_eq!(rig.metric("mcp_requests_repeated_total "), 1);
        recorder.check();
        rig.check();
    }
}

#[test]
fn auto_finds_out_and_forgets_when_the_server_has_changed() {
    let recorder = server("/messages?id=");
    let echo = Recorder::echo();
    let other = format!("[servers.new]\nurl = \"{}\"\ntransport = \"auto\"\n", echo.url());
    let rig = Rig::new(&format!("{}{other}", config(&recorder, AUTO)));
    // A client of 2026-07-28 is told what the server says until it is known to be an old one.
    let modern = Request::modern("/mcp/old", &modern_call("echo", r#"{"text":"x"}"#));
    assert_eq!(rig.ask(&modern).status(), 405);
    for _ in 0..8 {
        let mut session = rig.open("old");
        assert_eq!(session.text("echo", &json!({"text": "a"})), "a");
    }
    // Each shard has asked once.
    let asked = |it: &Message| it.start.starts_with("POST /sse ") && it.text().contains("2025-11");
    assert!(recorder.seen().iter().filter(|request| asked(request)).count() <= 2);
    let answer = rig.ask(&modern);
    assert!([400, 405].contains(&answer.status()), "{}", answer.text());
    let mut session = rig.open("new");
    assert_eq!(session.post(call("echo", &json!({"text": "b"}))).status(), 200);
    assert_eq!(gets(&echo), 0);
    rig.check();
}

#[test]
fn what_has_no_stream_is_no_server() {
    let recorder = Recorder::start(|_, stream| {
        drop(stream.write_all(&answer("404 Not Found", "", b"nothing")));
        After::Keep
    });
    for more in [SSE, AUTO] {
        let rig = Rig::new(&config(&recorder, more));
        let answer = rig.ask(&Request::post("/mcp/old", initialize("2025-06-18")));
        assert_eq!(answer.json()["error"]["data"]["gateway"], "server_invalid", "{more}");
        rig.until_metric("mcp_exchanges_in_flight ", 0);
        rig.until_metric("mcp_sessions_open ", 0);
        rig.check();
    }
    let closed = free_port();
    let rig = Rig::new(&format!("[servers.old]\nurl = \"http://127.0.0.1:{closed}/sse\"\n{SSE}\n"));
    let answer = rig.ask(&Request::post("/mcp/old", initialize("2025-06-18")));
    assert_eq!(answer.json()["error"]["data"]["gateway"], "server_unreachable");
}

/// A server on the Python SDK.
fn python(transport: &str, port: u16) -> Process {
    let mut command = Command::new(peer("py1/bin/python"));
    command.arg(root().join("src/tests/peers/py1_server.py")).args([transport, &port.to_string()]);
    let process = Process::start(&mut command);
    until("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

#[test]
fn a_python_server_by_sse_is_used_killed_and_used_again() {
    let port = free_port();
    let process = python("sse", port);
    let config =
        |more: &str| format!("[servers.old]\nurl = \"http://127.0.0.1:{port}/sse\"\n{more}\n");
    for more in [SSE, SHARED, AUTO] {
        is_used(&config(more));
    }
    // The stream from the server is in flight as well.
    is_killed("sse", (process, port), &config(SSE), 2);
}

#[test]
fn a_python_server_by_websocket_is_used_killed_and_used_again() {
    let port = free_port();
    let process = python("websocket", port);
    let config = |more: &str| format!("[servers.old]\nurl = \"ws://127.0.0.1:{port}/\"\n{more}\n");
    for more in ["", "isolation = \"shared\""] {
        is_used(&config(more));
    }
    is_killed("websocket", (process, port), &config(""), 1);
}

fn is_used(config: &str) {
    let rig = Rig::new(config);
    let mut session = rig.open("old");
    let large = "ünïcödé ".repeat(100_000);
    assert_eq!(session.text("echo", &json!({ "text": large })), large);
    let mut body: Value = serde_json::from_str(&call("progress", &json!({"steps": 3}))).unwrap();
    body["params"]["_meta"] = json!({"progressToken": 5});
    let answer = session.post(body.to_string());
    assert_eq!(answer.text().matches("notifications/progress").count(), 3, "{}", answer.text());
    let mut wire = rig.wire();
    wire.send(session.request(call("ask", &json!({"message": "Who?"}))).bytes());
    assert_eq!(wire.head().status(), 200);
    let question: Value = serde_json::from_str(&wire.data().unwrap()).unwrap();
    let reply = json!({
        "jsonrpc": "2.0", "id": question["id"],
        "result": {"action": "accept", "content": {"name": "Ada"}},
    });
    assert_eq!(session.post(reply.to_string()).status(), 202);
    assert!(wire.data().unwrap().contains("The user is Ada."));
    rig.check();
}

/// Kills it with `in_flight` exchanges.
fn is_killed(transport: &str, (process, port): (Process, u16), config: &str, in_flight: u64) {
    let rig = Rig::new(config);
    let mut session = rig.open("old");
    let mut wire = rig.wire();
    wire.send(session.request(call("sleep", &json!({"ms": 60_000}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", in_flight);
    process.signal(Signal::KILL);
    let answer = wire.answer().json();
    assert_eq!(answer["error"]["data"]["gateway"], "server_died");
    drop(process);
    assert_eq!(reason(&mut session, "echo"), "server_unreachable");
    let _process = python(transport, port);
    until("it is back", || {
        let answer = session.call("echo", &json!({"text": "back"}));
        (answer["result"]["content"][0]["text"] == "back").then_some(())
    });
    rig.check();
}
