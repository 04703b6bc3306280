//! Clients by WebSocket: handshakes, both eras, and what is bounded.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use wire::ws::{DeflateParams, Deflater, MessageKind, Role, write_message};

use super::http::{Request, Wire};
use super::rig::{Dir, META, Rig, demo, http, script};
use super::ws::{Came, Socket, call, handshake};
use crate::support::{HttpServer, PATIENCE};

/// A gateway with a WebSocket entrance, and its address.
pub(super) fn rig_ws(config: &str) -> (Rig, SocketAddr) {
    let mut rig = Rig::new(&format!("[listen]\nws = \"127.0.0.1:0\"\n{config}"));
    let log = rig.gateway.process.output();
    let (_, rest) = log.split_once("ws://").unwrap();
    let addr = rest.split('"').next().unwrap().parse().unwrap();
    (rig, addr)
}

pub(crate) fn modern(id: &Value, tool: &str, arguments: &Value) -> Value {
    let mut request = call(id, tool, arguments);
    let meta: Value = serde_json::from_str(&format!("{{{META}}}")).unwrap();
    request["params"]["_meta"] = meta["_meta"].clone();
    request
}

#[test]
fn a_handshake_is_judged_like_any_request() {
    let (rig, ws) = rig_ws(&format!("{}{}", demo(), http("other", "http://127.0.0.1:1/mcp")));
    let at = |addr, request: &Request| {
        let answer = Wire::connect(addr).ask(request);
        (answer.status(), answer)
    };
    let http = rig.gateway.addr;
    let good = handshake("/mcp/demo");
    for (status, request) in [
        (403, good.clone().with("Origin", "https://evil.example")),
        (403, good.clone().set("Host", "evil.example")),
        (403, good.clone().with("Origin", "null")),
        (404, handshake("/mcp/nothing")),
        (404, handshake("/elsewhere")),
        (426, good.clone().set("Sec-WebSocket-Version", "8")),
        (426, good.clone().without("Sec-WebSocket-Version")),
        (426, good.clone().set("Connection", "keep-alive")),
        (400, good.clone().set("Sec-WebSocket-Key", "short")),
        (400, good.clone().without("Sec-WebSocket-Key")),
        (400, good.clone().with("Sec-WebSocket-Protocol", "a b")),
        (400, Request { body: b"x".to_vec(), ..good.clone().with("Content-Length", "1") }),
        (
            400,
            Request { body: b"1\r\nx\r\n0\r\n\r\n".to_vec(), ..good.clone() }
                .with("Transfer-Encoding", "chunked"),
        ),
    ] {
        for addr in [http, ws] {
            let (found, answer) = at(addr, &request);
            assert_eq!(found, status, "{request:?} {answer:?}");
            if status == 426 {
                assert_eq!(answer.get("upgrade"), "websocket");
                assert_eq!(answer.get("connection"), "Upgrade");
            }
            if status == 426 && request.fields.iter().all(|field| field.1 != "keep-alive") {
                assert_eq!(answer.get("sec-websocket-version"), "13");
            }
            assert!(10 < answer.json()["error"]["message"].as_str().unwrap().len());
        }
    }
    // Where only WebSocket is spoken, everything else is refused.
    let post = Request::post("/mcp/demo", "{}");
    assert_eq!((at(http, &post).0, at(ws, &post).0), (400, 426));
    assert_eq!(at(ws, &Request::get("/mcp/demo")).0, 426);
    // Another protocol is nobody's business.
    let other = Request::get("/mcp/demo").with("Upgrade", "h2c").with("Connection", "Upgrade");
    assert_eq!(at(http, &other).0, 400);
    // The connection can still be used after a refusal.
    let mut wire = Wire::connect(http);
    assert_eq!(wire.ask(&good.clone().without("Sec-WebSocket-Key")).status(), 400);
    wire.send(good.with("Origin", "http://localhost:3000").bytes());
    let mut status = [0; 12];
    wire.read_exact(&mut status);
    assert_eq!(&status, b"HTTP/1.1 101");
    rig.check();
}

#[test]
fn paths_of_the_entrance_and_of_http_lead_to_the_same_server() {
    let (rig, ws) = rig_ws(&demo());
    for (addr, paths) in [
        (ws, &["/", "/ws", "/mcp", "/mcp/", "/mcp/demo", "/ws?x=y"][..]),
        (rig.gateway.addr, &["/mcp", "/mcp/", "/mcp/demo"]),
    ] {
        for path in paths {
            let mut socket = Socket::open(addr, path);
            assert!(socket.has_protocol && socket.is_compressed());
            let echo = modern(&json!(1), "echo", &json!({ "text": path }));
            assert_eq!(socket.ask(&echo)["result"]["content"][0]["text"], **path);
        }
    }
    rig.until_metric("mcp_connections_open ", 0);
    assert_eq!(rig.metric("mcp_connections_upgraded_total "), 9);
    rig.check();
}

/// Everything that one client does in a session.
pub(crate) fn use_session(addr: SocketAddr, path: &str, is_shared: bool) {
    let mut socket = Socket::open(addr, path);
    socket.initialize();
    let tools = socket.ask(&json!({"jsonrpc": "2.0", "id": "list", "method": "tools/list"}));
    assert!(tools["result"]["tools"].as_array().unwrap().len() > 3, "{tools}");
    assert_eq!(socket.text(&json!(1), "add", &json!({"a": 19, "b": 23})), "42");
    // Many in flight, with progress; answers come as they are ready.
    socket.send(call(&json!("slow"), "sleep", &json!({"ms": 300})).to_string());
    let mut request = call(&json!("steps"), "progress", &json!({"steps": 3, "interval": 5}));
    request["params"]["_meta"] = json!({"progressToken": "token"});
    socket.notes.clear();
    assert_eq!(socket.ask(&request)["result"]["content"][0]["text"], "Took 3 steps.");
    let steps = socket.notes.iter().filter(|it| it["method"] == "notifications/progress");
    assert!(steps.clone().all(|it| it["params"]["progressToken"] == "token"));
    assert_eq!(steps.count(), 3);
    assert_eq!(socket.answer(&json!("slow"))["result"]["content"][0]["text"], "Slept 300 ms.");
    // The server asks.
    socket.send(call(&json!(2), "ask", &json!({"message": "who?"})).to_string());
    let question = socket.message();
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({"action": "decline"});
    socket.send(json!({"jsonrpc": "2.0", "id": question["id"], "result": answer}).to_string());
    assert!(socket.answer(&json!(2))["result"].is_object());
    // Notifications that belong to no request.
    socket.notes.clear();
    socket.text(&json!(3), "toggle", &json!({}));
    let is_change = |it: &Value| it["method"] == "notifications/tools/list_changed";
    while !socket.notes.iter().any(is_change) {
        let note = socket.message();
        socket.notes.push(note);
    }
    // A cancelled request is not answered. (A shared process may ask on behalf of it for a while,
    // and would not be heard when it asks on behalf of the next client.)
    if !is_shared {
        socket.send(call(&json!(4), "sleep", &json!({"ms": 600_000})).to_string());
        let params = json!({"requestId": 4, "reason": "test"});
        let method = "notifications/cancelled";
        let cancel = json!({"jsonrpc": "2.0", "method": method, "params": params});
        socket.send(cancel.to_string());
    }
    assert_eq!(socket.text(&json!(5), "echo", &json!({"text": "still there"})), "still there");
    // What is wrong is said, and the connection goes on.
    socket.send("{");
    assert_eq!(socket.message()["error"]["code"], -32700);
    socket.send("");
    assert_eq!(socket.message()["error"]["code"], -32700);
    let twice = socket.ask(&json!({"jsonrpc": "2.0", "id": 6, "method": "initialize"}));
    assert_eq!(twice["error"]["data"]["gateway"], "already_initialized");
    socket.close(1000);
    assert_eq!(socket.end(), Some(1000));
}

#[test]
fn a_session_has_everything_with_any_server() {
    let server = HttpServer::fixture();
    let (rig, ws) = rig_ws(&format!("{}isolation = \"session\"\n", demo()));
    use_session(ws, "/", false);
    use_session(rig.gateway.addr, "/mcp", false);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.check();
    let (rig, ws) = rig_ws(&format!("{}isolation = \"shared\"\n", demo()));
    (0..6).for_each(|_| use_session(ws, "/mcp/demo", true));
    rig.until_metric("mcp_sessions_open ", 0);
    assert_eq!(rig.metric("mcp_processes_running "), 1);
    rig.check();
    let rig = Rig::new(&http("fixture", &server.url));
    let mut socket = Socket::open(rig.gateway.addr, "/mcp");
    socket.initialize();
    let text = socket.text(&json!(1), "test_simple_text", &json!({}));
    assert!(text.contains("simple text"), "{text}");
    rig.check();
}

#[test]
fn stateless_requests_are_answered_as_they_are_ready() {
    let (rig, ws) = rig_ws(&demo());
    let mut socket = Socket::open(ws, "/");
    let mut unread = Vec::new();
    for id in 0..50 {
        let ms = if id % 5 == 0 { 200 } else { 0 };
        socket.send(modern(&json!(id), "sleep", &json!({"ms": ms})).to_string());
        unread.push(id);
    }
    let used = socket.ask(&modern(&json!(0), "echo", &json!({})));
    assert_eq!(used["error"]["data"]["gateway"], "used_id");
    let mut order = Vec::new();
    for _ in 0..50 {
        let answer = socket.notes.pop().unwrap_or_else(|| socket.message());
        order.push(answer["id"].as_i64().unwrap());
    }
    assert!(order[45..].iter().all(|id| id % 5 == 0), "{order:?}");
    // Who leaves cancels.
    socket.send(modern(&json!("x"), "sleep", &json!({"ms": 600_000})).to_string());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    drop(socket);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.check();
}

#[test]
fn equal_ids_on_many_connections_never_meet() {
    for isolation in ["session", "shared"] {
        let (rig, ws) = rig_ws(&format!("{}isolation = \"{isolation}\"\n", demo()));
        let threads: Vec<_> = (0..24)
            .map(|client| {
                std::thread::spawn(move || {
                    let mut socket = Socket::open(ws, "/");
                    if client % 2 == 0 {
                        socket.initialize();
                    }
                    for round in 0..20 {
                        let id = if round % 2 == 0 { json!(1) } else { json!("1") };
                        let said = json!({"text": format!("{client} {round}")});
                        let request = if client % 2 == 0 {
                            call(&id, "echo", &said)
                        } else {
                            modern(&id, "echo", &said)
                        };
                        let answer = socket.ask(&request);
                        assert_eq!(answer["result"]["content"][0]["text"], said["text"]);
                        // An answer to a question that nobody asked.
                        socket.send(r#"{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}"#);
                    }
                    assert_eq!(socket.notes, Vec::<Value>::new());
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        rig.check();
    }
}

#[test]
fn large_and_fragmented_messages_pass_in_both_directions() {
    let (rig, ws) = rig_ws(&demo());
    for deflate in [None, Some(DeflateParams::WITHOUT_CONTEXT), Some(DeflateParams::WITH_CONTEXT)] {
        let mut socket = Socket::with(ws, "/", deflate);
        let large: String =
            (0..1_000_000_u64).map(|number| format!("{:08x}", number * 7919)).collect();
        let answer = socket.ask(&modern(&json!(1), "echo", &json!({"text": large})));
        assert!(answer["result"]["content"][0]["text"] == large);
        let before = socket.received;
        let middling = "compress me ".repeat(5000);
        let answer = socket.ask(&modern(&json!(2), "echo", &json!({"text": middling})));
        assert!(answer["result"]["content"][0]["text"] == middling);
        let came = socket.received - before;
        assert_eq!(came < 5000, deflate.is_some(), "{came}");
    }
    let mut socket = Socket::with(ws, "/", None);
    for len in [1, 7, 125, 126, 5000] {
        let text = format!("{len} ünïcödé {}", "y".repeat(3000));
        let request = modern(&json!(len), "echo", &json!({ "text": text })).to_string();
        socket.fragments(&request, len);
        let mut pongs = 0;
        let answer = loop {
            match socket.next() {
                Came::Pong(payload) => {
                    assert_eq!(payload, b"between");
                    pongs += 1;
                }
                Came::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(answer["result"]["content"][0]["text"], text);
        assert!(pongs != 0 || request.len() <= len);
    }
    rig.until_metric("mcp_gathered_bytes ", 0);
    rig.check();
}

#[test]
fn a_small_window_of_a_client_is_kept_to() {
    let (rig, ws) = rig_ws(&demo());
    let mut offer = DeflateParams::WITHOUT_CONTEXT;
    offer.server.window_bits = 12;
    let mut socket = Socket::with(ws, "/", Some(offer));
    // What is longer than the window comes as it is.
    for (count, is_compressed) in [(300, true), (500, false)] {
        let before = socket.received;
        let text = "compress me ".repeat(count);
        let answer = socket.ask(&modern(&json!(1), "echo", &json!({ "text": text })));
        assert_eq!(answer["result"]["content"][0]["text"], text);
        let came = socket.received - before;
        assert_eq!(came < text.len(), is_compressed, "{came}");
    }
    rig.check();
}

#[test]
fn what_is_no_websocket_is_closed_with_its_code() {
    let (rig, ws) = rig_ws(&format!("{}[limits]\nmessage = \"1MiB\"\n", demo()));
    let open = || Socket::with(ws, "/", None);
    let mut socket = open();
    socket.binary(b"{}");
    assert_eq!(socket.end(), Some(1003));
    for (code, bytes) in [
        // Not masked, a reserved bit, an unknown opcode, a continuation of nothing.
        (1002, &[0x81, 0x02, b'{', b'}'][..]),
        (1002, &[0xc1, 0x80, 1, 2, 3, 4]),
        (1002, &[0x83, 0x80, 1, 2, 3, 4]),
        (1002, &[0x80, 0x80, 1, 2, 3, 4]),
        (1007, &[0x81, 0x81, 0, 0, 0, 0, 0xff]),
        // Announced: 10 MiB.
        (1009, &[0x81, 0xff, 0, 0, 0, 0, 0, 0xa0, 0, 0, 1, 2, 3, 4]),
    ] {
        let mut socket = open();
        socket.raw(bytes);
        assert_eq!(socket.end(), Some(code), "{bytes:?}");
    }
    // Empty frames without end.
    let mut socket = open();
    socket.raw([0x01, 0x80, 0, 0, 0, 0]);
    for _ in 0..20 {
        socket.raw([0x00, 0x80, 0, 0, 0, 0].repeat(4000));
    }
    assert_eq!(socket.end(), Some(1008));
    rig.until_metric("mcp_connections_open ", 0);
    rig.until_metric("mcp_gathered_bytes ", 0);
    rig.check();
}

#[test]
fn a_bomb_is_not_blown_up() {
    let (rig, ws) = rig_ws(&demo());
    let mut deflater = Deflater::new(Role::Client, DeflateParams::WITHOUT_CONTEXT, 0);
    let mut bomb = Vec::new();
    let zeros = vec![b' '; 256 << 20];
    let key = Some([0; 4]);
    write_message(&mut bomb, Some(&mut deflater), MessageKind::Text, &zeros, key);
    drop(zeros);
    assert!(bomb.len() < 1 << 20);
    let mut socket = Socket::open(ws, "/");
    socket.initialize();
    let before = rig.rss();
    for _ in 0..4 {
        let mut socket = Socket::open(ws, "/");
        socket.raw(&bomb);
        assert_eq!(socket.end(), Some(1009));
    }
    let grown = rig.rss().saturating_sub(before);
    // One at a time at each of two shards; the allocator keeps what was used once.
    assert!(grown < 100 << 20, "grown by {grown}");
    assert_eq!(socket.text(&json!(1), "echo", &json!({"text": "x"})), "x");
    rig.check();
}

#[test]
fn who_does_not_read_is_bounded_and_hinders_nobody() {
    let (rig, ws) = rig_ws(&format!("{}isolation = \"session\"\n", demo()));
    let mut fast = Socket::with(ws, "/", None);
    fast.initialize();
    let before = rig.rss();
    let mut slow: Vec<Socket> = (0..10).map(|_| Socket::with(ws, "/", None)).collect();
    for socket in &mut slow {
        socket.initialize();
        for id in 0..100 {
            socket.send(call(&json!(id), "large", &json!({"bytes": 500_000})).to_string());
        }
        // And a flood of pings.
        let mut pings = Vec::new();
        for _ in 0..20_000 {
            wire::ws::write_ping(&mut pings, &[b'p'; 125], Some([0; 4]));
        }
        socket.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.raw(pings);
    }
    for _ in 0..60 {
        assert_eq!(fast.text(&json!(1), "echo", &json!({"text": "x"})), "x");
        sleep(Duration::from_millis(50));
    }
    let grown = rig.rss().saturating_sub(before);
    // They asked for 500 MB. Each costs a few megabytes, and the allocator keeps some for itself.
    assert!(grown < 128 << 20, "grown by {grown}");
    // It goes on where it reads again.
    let mut socket = slow.pop().unwrap();
    for _ in 0..100 {
        let answer = socket.message();
        assert!(answer["result"].is_object(), "{answer}");
    }
    rig.check();
}

#[test]
fn pings_are_answered_unless_nobody_reads() {
    let (rig, ws) = rig_ws(&demo());
    let mut socket = Socket::open(ws, "/");
    socket.ping(b"");
    socket.ping(b"hello");
    assert_eq!(socket.next(), Came::Pong(Vec::new()));
    assert_eq!(socket.next(), Came::Pong(b"hello".to_vec()));
    rig.check();
}

#[test]
fn who_does_not_answer_pings_is_dropped() {
    let config = format!("ping_interval = \"500ms\"\n{}", demo());
    let (mut rig, ws) = rig_ws(&config);
    let mut alive = Socket::open(ws, "/");
    let _dead = Socket::open(ws, "/");
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_secs(3) {
        match alive.next() {
            Came::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
        // An unmasked pong would be an error.
        alive.raw([0x8a, 0x80, 0, 0, 0, 0]);
    }
    assert!(pings >= 2, "{pings}");
    rig.log_with("does not answer pings");
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}

#[test]
fn a_drain_says_goodbye_after_the_last_answer() {
    // Longer than anything here waits: the end comes because there is nothing to wait for.
    let (mut rig, ws) = rig_ws(&format!("{}[shutdown]\ndrain_timeout = \"1h\"\n", demo()));
    let mut idle = Socket::open(ws, "/");
    let mut session = Socket::open(ws, "/");
    session.initialize();
    let mut busy = Socket::open(ws, "/");
    busy.send(modern(&json!(1), "sleep", &json!({"ms": 3000})).to_string());
    // A subscription has no end of its own.
    let mut listening = Socket::open(ws, "/");
    let mut listen = modern(&json!("s"), "", &json!({}));
    listen["method"] = json!("subscriptions/listen");
    listen["params"]["notifications"] = json!({"toolsListChanged": true});
    listening.send(listen.to_string());
    assert_eq!(listening.message()["method"], "notifications/subscriptions/acknowledged");
    rig.until_metric("mcp_exchanges_in_flight ", 2);
    rig.gateway.process.signal(Signal::TERM);
    assert_eq!(idle.end(), Some(1001));
    assert_eq!(listening.end(), Some(1001));
    assert_eq!(session.end(), Some(1001));
    // Each shard is told by itself.
    let mut asked = (2..).map(|id| busy.ask(&modern(&json!(id), "echo", &json!({"text": "late"}))));
    let late = asked.find(|answer| answer["error"].is_object()).unwrap();
    assert_eq!(late["error"]["data"]["gateway"], "draining");
    assert_eq!(busy.answer(&json!(1))["result"]["content"][0]["text"], "Slept 3000 ms.");
    assert_eq!(busy.end(), Some(1001));
    assert!(rig.gateway.process.end(PATIENCE).success());
}

/// A server in shell that dies when it is called.
const MORTAL: &str = r#"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"die"'*) exit 3 ;;
    *'"method":"notifications/'*) ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"alive"}]}}\n' "$id" ;;
  esac
done
"#;

#[test]
fn the_death_of_a_server_costs_the_requests_in_flight_only() {
    let dir = Dir::new();
    let path = dir.write("server.sh", MORTAL);
    let rig = Rig::with(dir, &script("sh", &path, &[]), |_| {});
    let mut socket = Socket::open(rig.gateway.addr, "/mcp");
    socket.initialize();
    let answer = socket.ask(&call(&json!(1), "die", &json!({})));
    assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    assert_eq!(socket.text(&json!(2), "anything", &json!({})), "alive");
    rig.check();
}

#[test]
fn frames_right_behind_the_handshake_are_served_wherever_it_leads() {
    // Two shards, one process: half of the connections move before they are upgraded.
    let (rig, ws) = rig_ws(&format!("{}isolation = \"shared\"\n", demo()));
    for round in 0..24 {
        let request = modern(&json!(round), "echo", &json!({"text": "early"})).to_string();
        let mut bytes = handshake("/mcp/demo").bytes();
        write_message(&mut bytes, None, MessageKind::Text, request.as_bytes(), Some([1, 2, 3, 4]));
        let mut wire = Wire::connect(ws);
        wire.send(bytes);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            wire.read_exact(&mut byte);
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let mut frame = [0; 4];
        wire.read_exact(&mut frame);
        let [0x81, 126, high, low] = frame else { panic!("{frame:?}") };
        let mut text = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        wire.read_exact(&mut text);
        let answer: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(answer["id"], round);
    }
    assert!(0 < rig.metric("mcp_connections_moved_total "));
    rig.check();
}
