//! The predecessor's clients by HTTP: `POST /api/v1/mcp`, and `GET /events` with
//! `POST /api/v1/request`. Same paths, statuses and bodies; and that nothing of one token ever
//! reaches another.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::envelope::envelope;
use super::http::{Message, Request, Wire};
use super::recorder::{After, Recorder, answer, echo as echo_of};
use super::rig::{Rig, call, demo, http, initialize};
use crate::support::until;

const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The predecessor's clients say who they are and what they send, and nothing else.
fn request(target: &str, token: &str, body: impl Into<Vec<u8>>) -> Request {
    let request = Request::post(target, body).without("Accept");
    request.with("Authorization", &format!("Bearer {token}"))
}

/// A message in its envelope, for the one server.
fn wrapped(message: &str) -> String {
    envelope(&json!("e"), "system", message)
}

pub(super) fn call_of(token: &str, message: &str) -> Request {
    request("/api/v1/mcp", token, wrapped(message))
}

fn echo(text: &str) -> String {
    call("echo", &json!({ "text": text }))
}

fn shared() -> String {
    demo() + "isolation = \"shared\"\n"
}

/// A client with an event stream.
pub(super) struct Listener {
    stream: Wire,
    token: String,
    id: String,
}

impl Listener {
    #[track_caller]
    pub(super) fn new(rig: &Rig, token: &str) -> Self {
        Self::on(rig.wire(), token)
    }

    #[track_caller]
    fn on(mut stream: Wire, token: &str) -> Self {
        let head = listen(&mut stream, token);
        assert_eq!(head.status(), 200, "{head:?}");
        assert_eq!(head.get("content-type"), "text/event-stream");
        assert!(head.get("cache-control").starts_with("no-cache"));
        assert_eq!(head.get("x-accel-buffering"), "no");
        let id = head.get("mcp-session-id").to_owned();
        Self { stream, token: token.to_owned(), id }
    }

    pub(super) fn request(&self, message: &str) -> Request {
        request("/api/v1/request", &self.token, wrapped(message))
    }

    #[track_caller]
    pub(super) fn send(&self, rig: &Rig, message: &str) {
        let answer = rig.ask(&self.request(message));
        assert_eq!((answer.status(), answer.text()), (202, "accepted"));
    }

    /// The next answer: an event that has data and nothing else.
    #[track_caller]
    pub(super) fn next(&mut self) -> Value {
        let event = self.stream.event().expect("the stream ended");
        assert_eq!((event.name.as_str(), event.id, event.retry), ("", None, None));
        serde_json::from_str(&event.data).unwrap()
    }
}

fn listen(stream: &mut Wire, token: &str) -> Message {
    let request = Request::new("GET", "/events");
    stream.send(request.with("Authorization", &format!("Bearer {token}")).bytes());
    stream.head()
}

#[track_caller]
fn is_released(rig: &Rig) {
    for metric in ["mcp_connections_open ", "mcp_exchanges_in_flight ", "mcp_gathered_bytes "] {
        rig.until_metric(metric, 0);
    }
    rig.check();
}

#[test]
fn an_envelope_is_answered_with_a_bare_message() {
    for servers in [demo(), shared()] {
        let rig = Rig::new(&servers);
        let mut wire = rig.wire();
        let answer = wire.ask(&call_of("a", &initialize("2025-11-25")));
        assert_eq!((answer.status(), answer.get("content-type")), (200, "application/json"));
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
        assert_eq!(answer.get("mcp-session-id"), "", "the token is what stands for the session");
        // No answer to what is none to answer.
        let told = wire.ask(&call_of("a", INITIALIZED));
        assert_eq!((told.status(), told.text()), (202, ""));
        for id in [r#""a""#, "0", "-1", "9007199254740993", "12345678901234567890", r#""\u0061""#] {
            let text = echo("x").replace("\"id\":7", &format!("\"id\":{id}"));
            let answer = wire.ask(&call_of("a", &text));
            assert_eq!(answer.status(), 200);
            assert!(answer.text().contains(&format!("\"id\":{id}")), "{}", answer.text());
        }
        // Nothing but the answer comes, and it comes as JSON, however long it takes.
        let answer = wire.ask(&call_of("a", &call("progress", &json!({"steps": 4}))));
        assert_eq!((answer.status(), answer.get("content-type")), (200, "application/json"));
        let answer = wire.ask(&call_of("a", &call("ask", &json!({"message": "Who?"})))).json();
        assert!(answer["id"] == 7 && answer.get("method").is_none(), "{answer}");
        // A server's error is an answer like others.
        let answer = wire.ask(&call_of("a", r#"{"jsonrpc":"2.0","id":3,"method":"no/such"}"#));
        assert_eq!((answer.status(), &answer.json()["error"]["code"]), (200, &json!(-32601)));
        // Numbers for times, a bare message, chunks: all the same.
        let odd = wrapped(&echo("odd")).replace("\"2025-01-01T00:00:00Z\"", "17");
        let answer = wire.ask(&request("/api/v1/mcp", "a", odd));
        assert_eq!(answer.json()["result"]["content"][0]["text"], "odd");
        assert_eq!(wire.ask(&request("/api/v1/mcp", "a", LIST)).json()["id"], 2);
        let body = wrapped(&echo("chunks"));
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let chunked = request("/api/v1/mcp", "a", chunks).with("Transfer-Encoding", "chunked");
        assert_eq!(wire.ask(&chunked).json()["result"]["content"][0]["text"], "chunks");
        drop(wire);
        is_released(&rig);
    }
}

#[test]
fn the_gateway_says_initialize_once_for_each_token_and_server() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let ask = |token: &str, namespace: &str| {
        let message = call("echo", &json!({"text": token}));
        let body = envelope(&json!(1), namespace, &message);
        let answer = rig.ask(&request("/api/v1/mcp", token, body));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    };
    for token in ["a", "b", "a", "b"] {
        for namespace in ["demo", "echo"] {
            let answer = ask(token, namespace);
            assert!(answer["result"].is_object(), "{namespace}: {answer}");
        }
    }
    // Two tokens with two servers.
    assert_eq!(rig.metric("mcp_sessions_open "), 4);
    assert_eq!(rig.metric("mcp_processes_running "), 2);
    // The session of an HTTP server is kept as well, and never another token's.
    let seen = recorder.seen();
    let of_calls = seen.iter().filter(|request| request.text().contains("tools/call"));
    let ids: Vec<&str> = of_calls.map(|request| request.get("mcp-session-id")).collect();
    assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
    // A client that begins anew has a new session.
    let again = envelope(&json!(1), "demo", &initialize("2025-06-18"));
    let answer = rig.ask(&request("/api/v1/mcp", "a", again));
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(rig.metric("mcp_sessions_open "), 4);
    rig.until_metric("mcp_processes_running ", 2);
    // Who names no server has all of them, and a name may be wrong.
    let derived = |message: &str| {
        let answer = rig.ask(&request("/api/v1/mcp", "a", envelope(&json!(1), "", message)));
        (answer.status(), answer.json())
    };
    let list = |namespace: &str| {
        let answer = rig.ask(&request("/api/v1/mcp", "a", envelope(&json!(1), namespace, LIST)));
        (answer.status(), answer.json())
    };
    let (status, answer) = list("nowhere");
    assert_eq!((status, &answer["id"], &answer["error"]["code"]), (200, &json!(2), &json!(-32603)));
    let words = answer["error"]["message"].as_str().unwrap();
    assert_eq!(words, "[router] UNAVAILABLE: no endpoints available for namespace: nowhere");
    let (_, answer) = list("system");
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(tools.iter().any(|tool| tool["name"] == "demo__echo"), "{answer}");
    // The name of a tool can say it, and goes on as it is.
    let (status, answer) = derived(&call("echo.tool", &json!({})));
    assert_eq!(status, 200);
    assert!(answer["result"].is_object(), "{answer}");
    assert!(recorder.seen().iter().any(|request| request.text().contains("echo.tool")));
    rig.check();
}

/// Whatever shard its token belongs to, a call goes to the shard that has the process.
#[test]
fn one_process_serves_all_tokens_if_it_is_for_all() {
    for isolation in ["servers.a", "servers.b"] {
        let other = |name: &str| shared().replace("servers.demo", name);
        let (first, second) = match isolation {
            "servers.a" => (other("servers.a"), demo().replace("servers.demo", "servers.b")),
            _ => (demo().replace("servers.demo", "servers.a"), other("servers.b")),
        };
        let rig = Rig::new(&(first + &second));
        let namespace = isolation.strip_prefix("servers.").unwrap();
        let mut wire = rig.wire();
        for number in 0..8 {
            let text = format!("number {number}");
            let body = envelope(&json!(1), namespace, &echo(&text));
            let answer = wire.ask(&request("/api/v1/mcp", &format!("token-{number}"), body));
            assert_eq!(answer.json()["result"]["content"][0]["text"], text);
        }
        assert_eq!(rig.metric("mcp_processes_running "), 1);
        drop(wire);
        is_released(&rig);
    }
}

#[test]
fn answers_come_on_the_event_stream_of_the_token() {
    for servers in [demo(), shared()] {
        let rig = Rig::new(&servers);
        let mut listeners: Vec<Listener> =
            (0..6).map(|number| Listener::new(&rig, &format!("token-{number}"))).collect();
        let mut posts = rig.wire();
        for round in 0..10 {
            // All with the same id.
            for listener in &listeners {
                let text = format!("{round} of {}", listener.token);
                let answer = posts.ask(&listener.request(&echo(&text)));
                assert_eq!((answer.status(), answer.text()), (202, "accepted"));
            }
            for listener in &mut listeners {
                let answer = listener.next();
                assert_eq!(answer["id"], 7);
                let text = format!("{round} of {}", listener.token);
                assert_eq!(answer["result"]["content"][0]["text"], text);
            }
        }
        let listener = &mut listeners[0];
        listener.send(&rig, &initialize("2025-11-25").replace("init", "again"));
        let _answer = listener.next();
        // What the server says besides is not for these clients.
        listener.send(&rig, &call("progress", &json!({"steps": 3})));
        assert_eq!(listener.next()["id"], 7);
        listener.send(&rig, INITIALIZED);
        // They need not wait for each other.
        listener.send(&rig, &call("sleep", &json!({"ms": 500})).replace(":7", ":1"));
        listener.send(&rig, &echo("first").replace(":7", ":2"));
        assert_eq!([listener.next()["id"].clone(), listener.next()["id"].clone()], [2, 1]);
        // A stream that is gone takes everything with it.
        drop(listeners);
        rig.until_metric("mcp_sessions_open ", 0);
        assert_eq!(posts.ask(&request("/api/v1/request", "token-0", wrapped(LIST))).status(), 404);
        drop(posts);
        is_released(&rig);
    }
}

/// SEED probe 18: two tabs of one user. The predecessor gave answers to either.
#[test]
fn two_streams_of_one_token_get_their_own_answers() {
    let rig = Rig::new(&demo());
    let mut tabs = [Listener::new(&rig, "user"), Listener::new(&rig, "user")];
    assert!(tabs[0].id.len() == 32 && tabs[0].id != tabs[1].id);
    let unclear = rig.ask(&tabs[0].request(LIST));
    assert_eq!(unclear.status(), 409);
    assert!(unclear.json()["error"].as_str().unwrap().contains("Mcp-Session-Id"));
    for round in 0..10 {
        for tab in &tabs {
            let named = tab.request(&echo(&format!("{round} {}", tab.id))).session(&tab.id);
            assert_eq!(rig.ask(&named).status(), 202);
        }
        for tab in &mut tabs {
            let answer = tab.next();
            assert_eq!(answer["result"]["content"][0]["text"], format!("{round} {}", tab.id));
        }
    }
    // An id is worth nothing with another token, and no id of HTTP+SSE.
    let _other = Listener::new(&rig, "other");
    let stolen = request("/api/v1/request", "other", wrapped(LIST)).session(&tabs[0].id);
    assert_eq!(rig.ask(&stolen).status(), 404);
    let messages = Request::post(&format!("/messages?session_id={}", tabs[0].id), LIST);
    assert_eq!(rig.ask(&messages).status(), 404);
    let [first, _second] = tabs;
    drop(first);
    until("one is left", || {
        let answer = rig.ask(&request("/api/v1/request", "user", wrapped(LIST)));
        (answer.status() == 202).then_some(())
    });
    rig.check();
}

#[test]
fn what_is_wrong_is_refused_as_the_predecessor_did() {
    let rig = Rig::new(&format!("limits.message = \"64KiB\"\n{}", demo()));
    let listener = Listener::new(&rig, "a");
    let (get, post) = (
        || Request::new("GET", "/events").with("Authorization", "Bearer a"),
        |target: &str| request(target, "a", wrapped(LIST)),
    );
    let unauthorized = "unauthorized";
    let method = "method not allowed";
    for (request, status, words) in [
        (get().without("Authorization"), 401, unauthorized),
        (get().set("Authorization", "Basic YTpi"), 401, unauthorized),
        (get().set("Authorization", "Bearer "), 401, unauthorized),
        (get().set("Authorization", &format!("Bearer {}", "x".repeat(4097))), 401, unauthorized),
        (post("/api/v1/mcp").without("Authorization"), 401, unauthorized),
        (post("/api/v1/request").without("Authorization"), 401, unauthorized),
        (post("/events"), 405, method),
        (Request { method: "GET", body: Vec::new(), ..post("/api/v1/mcp") }, 405, method),
        (Request { method: "DELETE", body: Vec::new(), ..post("/api/v1/request") }, 405, method),
        (request("/api/v1/request", "nobody", wrapped(LIST)), 404, "stream not found"),
        (
            request("/api/v1/request", "a", envelope(&json!(1), "nowhere", LIST)),
            500,
            "[router] UNAVAILABLE: no endpoints available for namespace: nowhere",
        ),
        // From here on in words of our own: the predecessor did not look, or said 400 or 200.
        (get().with("Accept", "application/json"), 406, "Send Accept"),
        (post("/api/v1/mcp").set("Content-Type", "text/plain"), 415, "Send Content-Type"),
        (post("/api/v1/request").without("Content-Type"), 415, "Send Content-Type"),
        (post("/api/v1/request").with("Content-Encoding", "gzip"), 415, "Send the body"),
        (post("/api/v1/mcp").set("Host", "evil.example"), 403, "This Host"),
        (get().set("Host", "evil.example"), 403, "This Host"),
        (get().with("Origin", "http://evil.example"), 403, "This Origin"),
        (post("/api/v1/mcp").with("Origin", "http://evil.example"), 403, "This Origin"),
        (request("/api/v1/mcp", "a", "x".repeat(65537)), 413, "The message is larger"),
        (request("/api/v1/request", "a", "x".repeat(65537)), 413, "The message is larger"),
        (request("/api/v1/request", "a", "{"), 400, ""),
        (request("/api/v1/request", "a", r#"{"id":1}"#), 400, "Put one JSON-RPC message"),
        (request("/api/v1/request", "a", wrapped("[1]")), 400, "Batches"),
    ] {
        let answer = rig.ask(&request);
        let what = format!("{} {} {words}", request.method, request.target);
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        let body = answer.json();
        let said = body["error"].as_str().unwrap_or_else(|| panic!("{what}: {body}"));
        assert!(said.starts_with(words) && body.as_object().unwrap().len() == 1, "{what}: {body}");
        if status == 401 {
            assert_eq!(answer.get("www-authenticate"), "Bearer");
        }
    }
    // What is wrong with a message is a JSON-RPC error; the predecessor said 200 to all of it.
    for (body, status, code) in [
        ("{".to_owned(), 400, -32700),
        (r#"{"id":1,"mcp_payload":null}"#.to_owned(), 400, -32600),
        (r#"{"mcp_payload":{},"mcp_payload":{}}"#.to_owned(), 400, -32600),
        (wrapped("[]"), 400, -32600),
        (wrapped(r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#), 400, -32600),
    ] {
        let answer = rig.ask(&request("/api/v1/mcp", "a", body.clone()));
        assert_eq!(answer.status(), status, "{body}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], code, "{body}");
    }
    // Not below these paths, nor with a slash behind them.
    for path in ["/events/", "/api/v1/mcp/", "/api/v1", "/api/v1/request/x"] {
        let answer = rig.ask(&post(path));
        assert_eq!(answer.json()["error"]["data"]["gateway"], "no_such_path", "{path}");
    }
    drop(listener);
    is_released(&rig);
}

#[test]
fn tokens_that_have_nothing_are_guesses() {
    let rig = Rig::new(&demo());
    let guess = |number: usize| {
        let token = format!("guess-{number}");
        rig.ask(&request("/api/v1/request", &token, wrapped(LIST))).status()
    };
    let statuses: Vec<u16> = (0..1000).map(guess).collect();
    assert!(statuses.iter().all(|status| matches!(status, 404 | 429)));
    assert!(statuses.contains(&429));
    is_released(&rig);
}

#[test]
fn a_token_has_so_many_streams_and_no_more() {
    let rig = Rig::new(&demo());
    let mut listeners: Vec<Listener> = (0..16).map(|_| Listener::new(&rig, "a")).collect();
    let full = rig.ask(&Request::get("/events").with("Authorization", "Bearer a"));
    assert_eq!((full.status(), full.get("retry-after")), (503, "1"));
    let mut other = Listener::new(&rig, "b");
    other.send(&rig, &echo("not concerned"));
    assert_eq!(other.next()["result"]["content"][0]["text"], "not concerned");
    drop(listeners.pop());
    until("there is room again", || (listen(&mut rig.wire(), "a").status() == 200).then_some(()));
    drop((listeners, other));
    is_released(&rig);
}

#[test]
fn tokens_are_never_logged() {
    let mut rig = Rig::new(&demo());
    let mut listener = Listener::new(&rig, "very-secret");
    listener.send(&rig, &echo("x"));
    let _answer = listener.next();
    assert_eq!(rig.ask(&call_of("very-secret", LIST)).status(), 200);
    assert_eq!(rig.ask(&request("/api/v1/request", "very-secret2", wrapped(LIST))).status(), 404);
    drop(listener);
    let log = rig.log_with("client closed");
    let text = serde_json::to_string(&log).unwrap() + &rig.metrics();
    assert!(!text.contains("very-secret"), "{text}");
}

#[test]
fn a_call_outlives_neither_its_client_nor_its_server() {
    let rig = Rig::new(&format!("{}request_timeout = \"700ms\"\n", demo()));
    // Who waits too long is told so, as an answer.
    let answer = rig.ask(&call_of("a", &call("sleep", &json!({"ms": 60_000}))));
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["error"]["data"]["gateway"], "server_timeout");
    // Cancelled by another request of the same token, and of no other.
    let mut wire = rig.wire();
    wire.send(call_of("a", &call("sleep", &json!({"ms": 500}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    assert_eq!(rig.ask(&call_of("b", cancel)).status(), 202);
    assert_eq!(wire.answer().json()["id"], 7);
    wire.send(call_of("a", &call("sleep", &json!({"ms": 60_000}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    assert_eq!(rig.ask(&call_of("a", cancel)).status(), 202);
    assert_eq!(wire.answer().status(), 202);
    // Who leaves is not waited for.
    wire.send(call_of("a", &call("sleep", &json!({"ms": 600}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    drop(wire);
    is_released(&rig);
}

#[test]
fn sessions_of_a_token_end_when_they_are_idle() {
    let rig = Rig::new(&format!("sessions.idle_timeout = \"300ms\"\n{}", demo()));
    assert_eq!(rig.ask(&call_of("a", &echo("x"))).status(), 200);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_processes_running ", 0);
    // The next call has another.
    assert_eq!(rig.ask(&call_of("a", &echo("y"))).json()["result"]["content"][0]["text"], "y");
    is_released(&rig);
}

#[test]
fn pages_of_admitted_origins_may_use_these_paths() {
    let rig = Rig::new(&demo());
    let origin = "http://localhost:3000";
    for path in ["/events", "/api/v1/request", "/api/v1/mcp"] {
        let asked = Request::new("OPTIONS", path)
            .with("Origin", origin)
            .with("Access-Control-Request-Headers", "authorization");
        let answer = rig.ask(&asked);
        assert_eq!((answer.status(), answer.get("access-control-allow-origin")), (204, origin));
        assert_eq!(answer.get("access-control-allow-headers"), "authorization");
    }
    let answer = rig.ask(&call_of("a", LIST).with("Origin", origin));
    assert_eq!((answer.status(), answer.get("access-control-allow-origin")), (200, origin));
    let answer = rig.ask(&request("/api/v1/request", "a", LIST).with("Origin", origin));
    assert_eq!((answer.status(), answer.get("access-control-allow-origin")), (404, origin));
    is_released(&rig);
}

#[test]
fn an_entrance_for_event_streams_has_these_too_and_no_calls() {
    let mut rig = Rig::new(&format!("listen.sse = \"127.0.0.1:0\"\n{}", demo()));
    let log = rig.log_with("\"ready\"");
    let mut lines = log.iter().filter_map(|line| line["message"].as_str());
    let addr = lines.find_map(|line| line.strip_suffix("/sse (HTTP+SSE)")).unwrap();
    let addr = addr.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let connect = || Wire::connect(addr);
    let mut listener = Listener::on(connect(), "a");
    assert_eq!(connect().ask(&listener.request(&echo("x"))).status(), 202);
    assert_eq!(listener.next()["result"]["content"][0]["text"], "x");
    assert_eq!(connect().ask(&call_of("a", LIST)).status(), 404);
    drop(listener);
    is_released(&rig);
}

#[test]
fn a_drain_waits_for_answers_and_then_ends_the_streams() {
    let mut rig = Rig::new(&demo());
    let mut idle = Listener::new(&rig, "idle");
    let mut busy = Listener::new(&rig, "busy");
    busy.send(&rig, &call("sleep", &json!({"ms": 700})));
    let mut wire = rig.wire();
    wire.send(call_of("call", &call("sleep", &json!({"ms": 700}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 2);
    rig.gateway.process.signal(Signal::TERM);
    assert_eq!(idle.stream.event(), None);
    assert_eq!(busy.next()["id"], 7);
    assert_eq!(busy.stream.event(), None);
    assert_eq!(wire.answer().json()["id"], 7);
    assert!(rig.gateway.process.end(Duration::from_secs(20)).success());
}

/// SEED probe 15: the predecessor took the first event of a server for its answer.
#[test]
fn of_what_an_http_server_says_the_answer_comes_and_nothing_else() {
    let server = Recorder::start(|request, stream| {
        let mut wire = Wire::new(stream.try_clone().unwrap());
        let text = request.text().to_owned();
        let events = |data: &[&str]| {
            let body: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
        let ask = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
        let result = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#;
        wire.send(if text.contains("\"events\"") {
            events(&[note, ask, result])
        } else if text.contains("\"broken\"") {
            answer("500 Oh", "", b"no")
        } else if text.contains("\"refused\"") {
            let error = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"no"}}"#;
            answer("400 Bad", "", error.as_bytes())
        } else if text.contains("\"mistaken\"") {
            answer("200 OK", "", result.replace('7', "8").as_bytes())
        } else {
            echo_of(request)
        });
        After::Keep
    });
    let rig = Rig::new(&http("web", &server.url()));
    let said = |tool: &str| {
        let answer = rig.ask(&call_of("a", &call(tool, &json!({}))));
        assert_eq!((answer.status(), answer.get("content-type")), (200, "application/json"));
        answer.json()
    };
    assert!(said("events")["result"].is_object());
    assert_eq!(said("broken")["error"]["data"]["gateway"], "server_invalid");
    assert_eq!(said("refused")["error"]["code"], -32001);
    assert_eq!(said("mistaken")["error"]["data"]["gateway"], "server_invalid");
    assert!(said("plain")["result"].is_object());
    assert_eq!(rig.ask(&call_of("a", INITIALIZED)).status(), 202);
    // The same on a stream.
    let mut listener = Listener::new(&rig, "a");
    for tool in ["events", "broken", "plain"] {
        listener.send(&rig, &call(tool, &json!({})));
        let answer = listener.next();
        assert_eq!((&answer["id"], answer["error"].is_object()), (&json!(7), tool == "broken"));
    }
    // The server's question is answered for the client, which cannot be asked.
    assert!(server.wait_for("\"q\"").text().contains("error"));
    drop(listener);
    server.check();
    is_released(&rig);
}

#[test]
fn the_death_of_a_server_is_an_answer() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::new(&http("gone", &format!("http://{gone}/mcp")));
    let answer = rig.ask(&call_of("a", LIST));
    let body = answer.json();
    assert_eq!((answer.status(), &body["id"]), (200, &json!(2)), "{body}");
    assert_eq!(body["error"]["data"]["gateway"], "server_unreachable");
    let mut listener = Listener::new(&rig, "a");
    listener.send(&rig, LIST);
    assert_eq!(listener.next()["error"]["data"]["gateway"], "server_unreachable");
    drop(listener);
    is_released(&rig);
}
