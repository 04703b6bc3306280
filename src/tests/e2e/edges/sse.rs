//! Clients of HTTP+SSE (2024-11-05): what they are told, what they are refused, and that nothing
//! of one ever reaches another.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::{Message, Request, Wire};
use super::recorder::Recorder;
use super::rig::{META, Rig, call, demo, http, initialize, modern_call};
use crate::support::until;

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A client: its event stream, and where it posts.
pub(super) struct Client {
    stream: Wire,
    posts: Wire,
    target: String,
}

impl Client {
    /// Only the stream.
    #[track_caller]
    fn listen(rig: &Rig, path: &str) -> Self {
        Self::listen_on(rig.wire(), rig, path)
    }

    #[track_caller]
    fn listen_on(mut stream: Wire, rig: &Rig, path: &str) -> Self {
        stream.send(Request::get(path).bytes());
        let head = stream.head();
        assert_eq!(head.status(), 200, "{head:?}");
        assert_eq!(head.get("content-type"), "text/event-stream");
        let event = stream.event().unwrap();
        assert_eq!((event.name.as_str(), event.id), ("endpoint", None));
        Self { stream, posts: rig.wire(), target: event.data }
    }

    /// With a session.
    #[track_caller]
    fn open(rig: &Rig, path: &str) -> Self {
        Self::open_as(rig, path, "2024-11-05")
    }

    #[track_caller]
    pub(super) fn open_as(rig: &Rig, path: &str, version: &str) -> Self {
        let mut client = Self::listen(rig, path);
        client.send(initialize(version));
        let answer = client.next();
        assert_eq!(answer["id"], "init");
        assert_eq!(answer["result"]["protocolVersion"], version);
        client.send(INITIALIZED);
        client
    }

    fn request(&self, body: impl Into<Vec<u8>>) -> Request {
        // No SDK says what it accepts.
        Request::post(&self.target, body).without("Accept")
    }

    #[track_caller]
    fn post(&mut self, body: impl Into<Vec<u8>>) -> Message {
        let request = self.request(body);
        self.posts.ask(&request)
    }

    /// Posts a message, which must be taken.
    #[track_caller]
    pub(super) fn send(&mut self, body: impl Into<Vec<u8>>) {
        let answer = self.post(body);
        assert_eq!((answer.status(), answer.text()), (202, "Accepted"));
    }

    /// The text of the next message on the stream.
    #[track_caller]
    fn message(&mut self) -> String {
        let event = self.stream.event().expect("the stream ended");
        assert_eq!(event.name, "message");
        event.data
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.message()).unwrap()
    }

    /// Calls a tool and returns the text of its answer.
    #[track_caller]
    pub(super) fn text(&mut self, tool: &str, arguments: &Value) -> String {
        self.send(call(tool, arguments));
        let answer = self.next();
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn rig() -> Rig {
    Rig::new(&demo())
}

fn shared() -> Rig {
    Rig::new(&(demo() + "isolation = \"shared\"\n"))
}

/// Everything that a client had is gone.
#[track_caller]
fn is_released(rig: &Rig) {
    for metric in [
        "mcp_connections_open ",
        "mcp_sessions_open ",
        "mcp_exchanges_in_flight ",
        "mcp_gathered_bytes ",
    ] {
        rig.until_metric(metric, 0);
    }
    rig.check();
}

#[test]
fn answers_come_on_the_stream_with_the_ids_that_were_sent() {
    for rig in [rig(), shared()] {
        let mut client = Client::open(&rig, "/sse");
        for id in [r#""a""#, "7", "-7", r#""\u0061""#, "123456789012345678901234567890"] {
            client.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            assert!(client.message().contains(&format!(r#""id":{id}"#)));
        }
        // Requests need not wait for each other.
        client.send(call("sleep", &json!({"ms": 300})).replace(":7", ":1"));
        client.send(call("echo", &json!({"text": "first"})).replace(":7", ":2"));
        assert_eq!([client.next()["id"].clone(), client.next()["id"].clone()], [2, 1]);
        // What is pretty stays one line.
        let pretty = "{\r\n \"jsonrpc\": \"2.0\",\n \"id\": 5,\n \"method\": \"ping\"\n}";
        client.send(pretty);
        assert_eq!(client.next()["id"], 5);
        drop(client);
        is_released(&rig);
    }
}

#[test]
fn every_legacy_revision_and_the_modern_one_are_spoken() {
    let rig = rig();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = Client::open_as(&rig, "/sse/demo", version);
        assert_eq!(client.text("echo", &json!({"text": version})), version);
        let batch = format!("[{},{INITIALIZED}]", call("echo", &json!({"text": "batch"})));
        match version {
            "2025-03-26" => {
                client.send(batch);
                assert_eq!(client.next()["result"]["content"][0]["text"], "batch");
            }
            _ => assert_eq!(client.post(batch).status(), 400),
        }
        // A second one has no place on the stream.
        client.send(initialize(version));
        assert_eq!(client.next()["error"]["data"]["gateway"], "already_initialized");
    }
    let mut client = Client::listen(&rig, "/sse");
    client.send(modern_call("echo", r#"{"text":"modern"}"#));
    assert_eq!(client.next()["result"]["content"][0]["text"], "modern");
    client.send(call("echo", &json!({"text": "too early"})));
    assert_eq!(client.next()["error"]["data"]["gateway"], "no_session");
    client.send(format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"sleep","arguments":{{"ms":60000}},{META}}}}}"#
    ));
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    drop(client);
    is_released(&rig);
}

#[test]
fn what_is_wrong_is_refused_where_it_is_posted() {
    let recorder = Recorder::echo();
    let servers = demo() + &http("echo", &recorder.url());
    let rig = Rig::new(&format!("limits.message = \"64KiB\"\n{servers}"));
    let mut client = Client::open(&rig, "/sse/demo");
    let ping = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;
    let at = |target: &str| Request::post(target, ping);
    let unknown = "/messages?session_id=0123456789abcdef0123456789abcdef";
    let good = client.target.clone();
    let method = |method, target: &str| Request { method, body: Vec::new(), ..at(target) };
    let foreign = |request: Request| request.with("Origin", "http://evil.example");
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(2000));
    for (request, status, reason) in [
        (Request::get("/sse/nobody"), 404, "no_such_server"),
        (Request::get("/sse/demo/x"), 404, "no_such_server"),
        (Request::get("/ssex"), 404, "no_such_path"),
        (Request::get("/sse/demo").set("Accept", "application/json"), 406, "bad_accept"),
        (Request::get("/sse/demo").without("Accept"), 406, "bad_accept"),
        (method("POST", "/sse/demo"), 405, "bad_method"),
        (method("DELETE", "/sse/demo"), 405, "bad_method"),
        (Request::get(&good), 405, "bad_method"),
        (Request::get("/messages/x"), 404, "no_such_path"),
        (at("/messages"), 404, "unknown_session"),
        (at("/messages?"), 404, "unknown_session"),
        (at("/messages?session_id="), 404, "unknown_session"),
        (
            at(&good.to_uppercase().replace("/MESSAGES?SESSION_ID", "/messages?session_id")),
            404,
            "unknown_session",
        ),
        (at(&format!("{good}0")), 404, "unknown_session"),
        (at(unknown), 404, "unknown_session"),
        (at(&good).set("Content-Type", "text/plain"), 415, "bad_content_type"),
        (at(&good).with("Content-Encoding", "gzip"), 415, "bad_content_encoding"),
        (Request::post(&good, "{"), 400, "bad_message"),
        (Request::post(&good, ""), 400, "bad_message"),
        (Request::post(&good, "[1]"), 400, "bad_batch"),
        (Request::post(&good, "{\"jsonrpc\":\"2.0\",\"id\":5}"), 400, "bad_message"),
        (Request::post(&good, long), 400, "long_id"),
        (Request::post(&good, "x".repeat(65537)), 413, "too_large"),
        (foreign(Request::get("/sse/demo")), 403, "bad_origin"),
        (foreign(at(&good)), 403, "bad_origin"),
        (Request::get("/sse/demo").set("Host", "evil.example"), 403, "bad_host"),
        (at(&good).set("Host", "evil.example"), 403, "bad_host"),
    ] {
        let answer = rig.ask(&request);
        let what = format!("{} {}", request.method, request.target);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        assert_eq!(answer.json()["error"]["data"]["gateway"], reason, "{what}");
    }
    assert_eq!(rig.ask(&Request::get(&good)).get("allow"), "POST");
    assert_eq!(rig.ask(&method("POST", "/sse/demo")).get("allow"), "GET");
    // None of it came to the stream, which goes on.
    assert_eq!(client.text("echo", &json!({"text": "still here"})), "still here");
    // The id of a stream is none of a session, and the other way round.
    let id = good.split('=').next_back().unwrap();
    assert_eq!(rig.ask(&Request::post("/mcp/demo", ping).session(id)).status(), 404);
    let session = rig.open("demo");
    assert_eq!(rig.ask(&at(&format!("/messages?session_id={}", session.id))).status(), 404);
    drop((client, session));
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.check();
}

#[test]
fn pages_of_admitted_origins_may_use_it() {
    let rig = rig();
    let origin = "http://localhost:3000";
    for path in ["/sse", "/messages?session_id=x"] {
        let asked = Request::new("OPTIONS", path)
            .with("Origin", origin)
            .with("Access-Control-Request-Headers", "content-type");
        let answer = rig.ask(&asked);
        assert_eq!((answer.status(), answer.get("access-control-allow-origin")), (204, origin));
        assert_eq!(answer.get("access-control-allow-headers"), "content-type");
    }
    let mut stream = rig.wire();
    stream.send(Request::get("/sse").with("Origin", origin).bytes());
    assert_eq!(stream.head().get("access-control-allow-origin"), origin);
    let target = stream.event().unwrap().data;
    let answer = rig.ask(&Request::post(&target, initialize("2024-11-05")).with("Origin", origin));
    assert_eq!((answer.status(), answer.get("access-control-allow-origin")), (202, origin));
    rig.check();
}

#[test]
fn ids_are_random_and_never_repeat_and_guesses_are_counted() {
    let rig = rig();
    let clients: Vec<Client> = (0..100).map(|_| Client::listen(&rig, "/sse")).collect();
    let mut ids = HashSet::new();
    for client in &clients {
        let id = client.target.strip_prefix("/messages?session_id=").unwrap();
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(id.len() == 32 && id.bytes().all(is_hex), "{id}");
        assert!(ids.insert(id.to_owned()));
    }
    drop(clients);
    let guess = |number: u128| {
        let target = format!("/messages?session_id={number:032x}");
        rig.ask(&Request::post(&target, INITIALIZED)).status()
    };
    let statuses: Vec<u16> = (0..1000).map(guess).collect();
    assert!(statuses.iter().all(|status| matches!(status, 404 | 429)));
    assert!(statuses.contains(&429));
    is_released(&rig);
}

/// SEED probe 18: two tabs of one user.
#[test]
fn two_streams_with_equal_ids_never_see_each_others_answers() {
    for rig in [rig(), shared()] {
        let mut clients: Vec<Client> = (0..6).map(|_| Client::open(&rig, "/sse")).collect();
        for round in 0..20 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(call("echo", &json!({"text": format!("{round} of {number}")})));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let answer = client.next();
                assert_eq!(answer["id"], 7);
                let text = format!("{round} of {number}");
                assert_eq!(answer["result"]["content"][0]["text"], text);
            }
        }
        drop(clients);
        is_released(&rig);
    }
}

#[test]
fn posts_find_their_stream_at_whatever_shard_they_arrive() {
    for rig in [rig(), shared()] {
        let mut clients: Vec<Client> = (0..8).map(|_| Client::open(&rig, "/sse")).collect();
        // One connection for the messages of all: it moves, and then its requests are tunnelled.
        let mut posts = rig.wire();
        for round in 0..10 {
            for (number, client) in clients.iter_mut().enumerate() {
                let text = format!("{round} of {number}");
                let request = client.request(call("echo", &json!({ "text": text })));
                assert_eq!(posts.ask(&request).status(), 202);
                assert_eq!(client.next()["result"]["content"][0]["text"], text);
                let wrong = posts.ask(&client.request("{"));
                assert_eq!(wrong.status(), 400);
            }
        }
        // A connection that has been everywhere can still become a stream.
        let mut late = Client::listen_on(posts, &rig, "/sse");
        late.send(initialize("2024-11-05"));
        assert_eq!(late.next()["id"], "init");
        assert!(rig.metric("mcp_processes_running ") <= 9);
        drop((clients, late));
        is_released(&rig);
    }
}

#[test]
fn the_server_speaks_at_any_time() {
    let rig = rig();
    let mut client = Client::open_as(&rig, "/sse", "2025-11-25");
    // Notifications without a request.
    client.send(call("toggle", &json!({})));
    let mut seen = [client.next(), client.next()];
    seen.sort_by_key(|message| message["method"].is_null());
    assert_eq!(seen[0]["method"], "notifications/tools/list_changed");
    assert_eq!(seen[1]["id"], 7);
    // Progress.
    let mut body: Value =
        serde_json::from_str(&call("progress", &json!({"steps": 3, "interval": 5}))).unwrap();
    body["params"]["_meta"] = json!({"progressToken": "mine"});
    client.send(body.to_string());
    for _ in 0..3 {
        let progress = client.next();
        assert_eq!(progress["method"], "notifications/progress");
        assert_eq!(progress["params"]["progressToken"], "mine");
    }
    assert_eq!(client.next()["id"], 7);
    // A question.
    client.send(call("ask", &json!({"message": "Who?"})));
    let question = client.next();
    assert_eq!(question["method"], "elicitation/create");
    let reply = json!({
        "jsonrpc": "2.0", "id": question["id"],
        "result": { "action": "accept", "content": { "answer": "me" } },
    });
    client.send(reply.to_string());
    assert_eq!(client.next()["result"]["content"][0]["text"], "The user said: me");
    // A cancellation: there is no answer.
    client.send(call("sleep", &json!({"ms": 60_000})));
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    assert_eq!(client.text("echo", &json!({"text": "next"})), "next");
    drop(client);
    is_released(&rig);
}

#[test]
fn eight_megabytes_pass_in_both_directions() {
    let rig = rig();
    let mut client = Client::open(&rig, "/sse");
    let text = "ünïcödé \u{1f980} ".repeat(450_000);
    assert_eq!(client.text("echo", &json!({ "text": text })), text);
    // In chunks, too.
    let body = call("echo", &json!({"text": "chunks"}));
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let request = client.request(chunks).with("Transfer-Encoding", "chunked");
    assert_eq!(client.posts.ask(&request).status(), 202);
    assert_eq!(client.next()["result"]["content"][0]["text"], "chunks");
    drop(client);
    is_released(&rig);
}

#[test]
fn a_client_that_does_not_read_is_bounded_and_hinders_nobody() {
    let rig = Rig::new(&(demo() + "isolation = \"shared\"\n"));
    let mut client = Client::open(&rig, "/sse");
    let mut other = Client::open(&rig, "/sse");
    let before = rig.rss();
    let large = call("large", &json!({"bytes": 4_000_000}));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let request = client.request(large.clone());
        statuses.push(client.posts.ask(&request).status());
        assert_eq!(other.text("echo", &json!({"text": "x"})), "x");
    }
    // Others share its process: it is dropped, and its stream is unknown from then on.
    until("it is dropped", || {
        let request = client.request(INITIALIZED);
        (client.posts.ask(&request).status() == 404).then_some(())
    });
    assert!(statuses.iter().all(|status| matches!(status, 202 | 404 | 503)), "{statuses:?}");
    assert!(rig.rss().saturating_sub(before) < 200 << 20);
    rig.until_metric("mcp_sessions_open ", 1);
    drop((client, other));
    is_released(&rig);
}

#[test]
fn a_process_of_its_own_waits_for_a_client_that_reads_slowly() {
    let rig = rig();
    let mut client = Client::open(&rig, "/sse");
    for _ in 0..10 {
        client.send(call("large", &json!({"bytes": 3_000_000})));
    }
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..10 {
        assert!(3_000_000 < client.message().len());
    }
    drop(client);
    is_released(&rig);
}

#[test]
fn who_leaves_releases_everything_at_once() {
    let rig = rig();
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..4).map(|_| Client::open(&rig, "/sse")).collect();
        for client in &mut clients {
            client.send(call("sleep", &json!({"ms": 600_000})));
        }
        rig.until_metric("mcp_exchanges_in_flight ", 4);
        let target = clients[0].target.clone();
        drop(clients);
        is_released(&rig);
        rig.until_metric("mcp_processes_running ", 0);
        assert_eq!(rig.ask(&Request::post(&target, INITIALIZED)).status(), 404);
    }
    // What is sent on the connection of the stream has no meaning, and an end.
    let mut client = Client::listen(&rig, "/sse");
    client.stream.send(Request::post("/mcp", initialize("2025-11-25")).bytes());
    client.send(initialize("2024-11-05"));
    assert_eq!(client.next()["id"], "init");
    client.stream.send(vec![b'x'; 100_000]);
    while client.stream.event().is_some() {}
    drop(client);
    is_released(&rig);
}

#[test]
fn comments_keep_a_quiet_stream_open() {
    let rig = rig();
    let mut wire = rig.wire();
    wire.send("GET /sse HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let head = wire.head();
    assert_eq!((head.get("transfer-encoding"), head.get("connection")), ("", "close"));
    let mut event = vec![0; "event: endpoint\ndata: /messages?session_id=\n\n".len() + 32];
    wire.read_exact(&mut event);
    let mut comment = [0; 3];
    wire.read_exact(&mut comment);
    assert_eq!(&comment, b":\n\n");
    drop(wire);
    is_released(&rig);
}

#[test]
fn a_drain_waits_for_answers_and_then_ends_the_streams() {
    let mut rig = rig();
    let mut idle = Client::open(&rig, "/sse");
    let mut busy = Client::open(&rig, "/sse");
    busy.send(call("sleep", &json!({"ms": 700})));
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    rig.gateway.process.signal(Signal::TERM);
    assert_eq!(idle.stream.event(), None);
    assert_eq!(busy.next()["id"], 7);
    assert_eq!(busy.stream.event(), None);
    assert!(rig.gateway.process.end(Duration::from_secs(20)).success());
}

#[test]
fn an_entrance_can_be_for_nothing_else() {
    let mut rig = Rig::new(&format!("listen.sse = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n{}", demo()));
    let mut clients = Vec::new();
    let log = rig.log_with("\"ready\"");
    for line in log.iter().filter_map(|line| line["message"].as_str()) {
        let Some(addr) = line.strip_suffix("/sse (HTTP+SSE)") else { continue };
        let addr = addr.strip_prefix("listening on http://").unwrap().parse().unwrap();
        let connect = || Wire::connect(addr);
        let mut client = Client::listen_on(connect(), &rig, "/sse/demo");
        client.posts = connect();
        client.send(initialize("2024-11-05"));
        assert_eq!(client.next()["id"], "init");
        for request in [
            Request::post("/mcp", initialize("2025-11-25")),
            Request::get("/mcp"),
            Request::new("OPTIONS", "/mcp").with("Origin", "http://localhost"),
            Request::get("/"),
        ] {
            let answer = connect().ask(&request);
            assert_eq!(answer.json()["error"]["data"]["gateway"], "no_such_path");
        }
        clients.push(client);
    }
    assert_eq!(clients.len(), 2);
    drop(clients);
    is_released(&rig);
}

#[test]
fn ids_of_streams_are_never_logged() {
    let mut rig = rig();
    let mut client = Client::open(&rig, "/sse");
    client.text("echo", &json!({"text": "x"}));
    let unknown = "/messages?session_id=0123456789abcdef0123456789abcdef";
    rig.ask(&Request::post(unknown, INITIALIZED));
    let id = client.target.split('=').next_back().unwrap().to_owned();
    drop(client);
    let log = rig.log_with("client closed");
    let text = serde_json::to_string(&log).unwrap() + &rig.metrics();
    assert!(!text.contains(&id) && !text.contains("session_id"), "{text}");
}
