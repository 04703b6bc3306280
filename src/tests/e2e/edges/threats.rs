//! Threats at the client transports that no other file here has them for: what each transport
//! does about its own is in the file of that transport.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use wire::binary::Open;

use super::envelope_http::{Listener, call_of};
use super::http::{Request, Wire};
use super::lines::Talk;
use super::link::{Peer, Told, negotiated};
use super::rig::{Dir, Rig, call, demo, modern_call};
use super::sessions::{asked, reply};
use super::tcp2::{dump, rig_tcp};
use super::ws::{Came, Socket, handshake};
use super::{sse, tcp};
use crate::support::{free_port, until};

/// A gateway with all entrances; its socket and its port for TCP.
fn rig_of_all(servers: &str) -> (Rig, PathBuf, u16) {
    let (dir, port) = (Dir::new(), free_port());
    let path = dir.join("mcp.sock");
    let listen = format!("[listen]\nunix = {path:?}\ntcp = \"127.0.0.1:{port}\"\n{servers}");
    (Rig::with(dir, &listen, |_| {}), path, port)
}

/// On every transport somebody answers what one client was asked, and names its id.
#[test]
fn answers_of_those_who_were_not_asked_go_nowhere() {
    let (rig, path, port) = rig_of_all(&(demo() + "isolation = \"shared\"\n"));
    let mut owner = rig.open("demo");
    let mut lines = Talk::open(&path);
    let mut socket = Socket::with(rig.gateway.addr, "/mcp", None);
    socket.initialize();
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    let mut sse = sse::Client::open_as(&rig, "/sse", "2025-11-25");
    let mut binary = tcp::BOTH.map(|dialect| tcp::Link::open(port, dialect));
    let mut listener = Listener::new(&rig, "token");
    let x = json!({"text": "x"});
    listener.send(&rig, &call("echo", &x));
    assert_eq!(listener.next()["id"], 7);
    let (mut asked, id) = asked(&owner, &rig);
    for guess in [id.clone(), json!(0), json!(1), json!("1"), json!(2)] {
        let forged = reply(&guess, "forged");
        lines.say(&forged);
        socket.send(&forged);
        peer.send(stream, &forged);
        sse.send(forged.clone());
        binary.iter_mut().for_each(|link| link.request(&forged));
        assert_eq!(rig.ask(&call_of("token", &forged)).status(), 202);
        listener.send(&rig, &forged);
    }
    // All have been heard when what they say next is answered.
    assert_eq!(lines.call(&json!(1), "echo", &x)["id"], 1);
    assert_eq!(socket.text(&json!(1), "echo", &x), "x");
    assert_eq!(peer.call(stream, "echo", &x), "x");
    assert_eq!(sse.text("echo", &x), "x");
    for link in &mut binary {
        assert_eq!(link.ask(&call("echo", &x))["id"], 7);
    }
    listener.send(&rig, &call("echo", &x));
    assert_eq!(listener.next()["id"], 7);
    assert_eq!(owner.post(reply(&id, "real")).status(), 202);
    let answer: Value = serde_json::from_str(&asked.data().unwrap()).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "The user said: real");
    rig.check();
}

/// A session belongs to the requests that name it, not to whoever opens a connection with its id.
#[test]
fn the_id_of_a_session_opens_no_channel() {
    let (rig, port) = rig_tcp(&demo());
    let mut session = rig.open("demo");
    let mut wire = rig.wire();
    wire.send(handshake("/mcp/demo").session(&session.id).bytes());
    let mut status = [0; 12];
    wire.read_exact(&mut status);
    assert_eq!(&status, b"HTTP/1.1 101");
    drop(wire);
    let mut stream = rig.wire();
    stream.send(Request::get("/sse/demo").session(&session.id).bytes());
    assert_eq!(stream.head().status(), 200);
    let target = stream.event().unwrap().data;
    assert!(!target.contains(&session.id));
    let post = Request::post(&target, call("echo", &json!({"text": "x"}))).session(&session.id);
    assert_eq!(rig.ask(&post).status(), 202);
    let answer: Value = serde_json::from_str(&stream.data().unwrap()).unwrap();
    assert_eq!(answer["error"]["data"]["gateway"], "no_session");
    // Nor does it over TCP, whose own ids open nothing elsewhere.
    let mut peer = Peer::new(port);
    let open = Open { server: "demo", session: &session.id, revision: "2025-11-25" };
    let stream = peer.link.open(open).unwrap();
    assert!(matches!(peer.next(), Told::Closed(it, ..) if it == stream));
    let id = tcp::Link::negotiated(port, tcp::Dialect::Short).authorize();
    let asked = Request::post("/mcp/demo", call("echo", &json!({"text": "x"}))).session(&id);
    assert_eq!(rig.ask(&asked).status(), 404);
    // It is where it was.
    assert_eq!(session.text("echo", &json!({"text": "mine"})), "mine");
    rig.until_metric("mcp_sessions_open ", 1);
    rig.check();
}

#[test]
fn a_strange_page_can_neither_listen_nor_end_a_session() {
    let rig = Rig::new(&demo());
    let mut session = rig.open("demo");
    for (name, value) in
        [("Origin", "https://evil.example"), ("Origin", "null"), ("Host", "evil.example")]
    {
        for request in [
            Request::get("/mcp/demo").session(&session.id),
            Request::new("DELETE", "/mcp/demo").session(&session.id),
            session.request(call("echo", &json!({"text": "x"}))),
            Request::modern("/mcp/demo", &modern_call("echo", r#"{"text":"x"}"#)),
            handshake("/mcp/demo"),
            Request::get("/sse/demo"),
        ] {
            let what = format!("{name}: {value}: {} {}", request.method, request.target);
            let answer = rig.ask(&request.set(name, value));
            assert_eq!(answer.status(), 403, "{what}");
            assert_eq!(answer.get("access-control-allow-origin"), "", "{what}");
        }
    }
    assert_eq!(session.text("echo", &json!({"text": "mine"})), "mine");
    rig.check();
}

/// Less than the limit, so that nothing is wrong with it, and then nothing.
#[test]
fn announced_websocket_messages_cost_nothing() {
    let rig = Rig::new(&demo());
    let before = rig.rss();
    let sockets: Vec<Socket> = (0..100)
        .map(|_| {
            let mut socket = Socket::with(rig.gateway.addr, "/mcp", None);
            // A text of 10 MiB, masked.
            socket.raw([0x81, 0xff, 0, 0, 0, 0, 0, 0xa0, 0, 0, 1, 2, 3, 4, b'{']);
            socket
        })
        .collect();
    rig.until_metric("mcp_connections_open ", 100);
    until("it has come", || (100 <= rig.metric("mcp_gathered_bytes ")).then_some(()));
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 100 << 17, "{grown} bytes for 100 announcements of 10 MiB");
    drop(sockets);
    rig.until_metric("mcp_gathered_bytes ", 0);
    rig.check();
}

/// Pieces that say nothing: chunks of one byte, empty lines, pings between fragments.
#[test]
fn floods_of_next_to_nothing_cost_little_and_hinder_nobody() {
    let dir = Dir::new();
    let path = dir.join("mcp.sock");
    let rig = Rig::with(dir, &format!("[listen]\nunix = {path:?}\n{}", demo()), |_| {});
    let mut other = rig.open("demo");
    let before = rig.rss();
    let body = call("echo", &json!({ "text": "x".repeat(200_000) }));
    let mut chunks: String = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
    chunks.push_str("0\r\n\r\n");
    let mut session = rig.open("demo");
    let request = session.request(chunks).with("Transfer-Encoding", "chunked");
    let answer = session.wire.ask(&request).json();
    assert_eq!(answer["result"]["content"][0]["text"].as_str().map(str::len), Some(200_000));
    let mut talk = Talk::open(&path);
    for _ in 0..20 {
        assert!(talk.try_say(&b"\n".repeat(1 << 16)));
        assert_eq!(other.text("echo", &json!({"text": "x"})), "x");
    }
    talk.say(&call("echo", &json!({"text": "y"})));
    assert_eq!(talk.text(&json!(7)), "y");
    let mut socket = Socket::with(rig.gateway.addr, "/mcp", None);
    socket.initialize();
    let text = super::ws::call(&json!(1), "echo", &json!({ "text": "z".repeat(20_000) }));
    socket.fragments(&text.to_string(), 1);
    let answer = loop {
        match socket.next() {
            Came::Pong(_) => {}
            Came::Text(text) => break text,
            other => panic!("{other:?}"),
        }
    };
    assert!(answer.contains(&"z".repeat(20_000)));
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "grown by {grown}");
    rig.check();
}

#[test]
fn modern_clients_that_do_not_read_are_bounded_and_hinder_nobody() {
    let rig = Rig::new(&demo());
    let ask = |text: &str| {
        let request =
            Request::modern("/mcp", &modern_call("echo", &json!({ "text": text }).to_string()));
        rig.ask(&request).json()["result"]["content"][0]["text"].clone()
    };
    assert_eq!(ask("warm"), "warm");
    let before = rig.rss();
    let request = Request::modern("/mcp", &modern_call("large", r#"{"bytes":4000000}"#)).bytes();
    let mut slow: Vec<Wire> = (0..30).map(|_| rig.wire()).collect();
    for wire in &mut slow {
        wire.send(&request);
    }
    for _ in 0..40 {
        assert_eq!(ask("quick"), "quick");
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = rig.rss().saturating_sub(before);
    // All are answered by one process, which cannot wait for one of them: what it has said is
    // kept, up to the limit of a message each, and these are 4 MB each.
    assert!(grown < (120 << 20) + (64 << 20), "grown by {grown}");
    for wire in &mut slow {
        let answer = wire.answer().json();
        let text = answer["result"]["content"][0]["text"].as_str();
        assert_eq!(text.map(str::len), Some(4_000_000));
    }
    rig.check();
}

/// A link is its token's, and starts anew for whoever comes back with another.
#[test]
fn a_link_goes_on_for_its_own_token_only() {
    let (rig, port) = rig_tcp(&demo());
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    assert_eq!(peer.call(stream, "echo", &json!({"text": "mine"})), "mine");
    peer.link.lost();
    peer.stream = negotiated(port);
    peer.link.reconnect("another token", "edges/1").unwrap();
    assert_eq!(peer.next(), Told::NotResumed);
    let stream = peer.session("demo");
    assert_eq!(peer.call(stream, "echo", &json!({"text": "anew"})), "anew");
    rig.check();
}

#[test]
fn announced_and_empty_frames_of_links_cost_nothing_and_hinder_nobody() {
    let (rig, port) = rig_tcp(&demo());
    let mut other = Peer::new(port);
    let stream = other.session("demo");
    let before = rig.rss();
    // The first part of a message: 16 KiB, of which nothing comes.
    let mut announced = [dump("hello"), dump("open")].concat();
    announced.extend([4, 5, 0, 4, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    let quiet: Vec<_> = (0..100)
        .map(|_| {
            let mut wire = negotiated(port);
            wire.write_all(&announced).unwrap();
            wire
        })
        .collect();
    rig.until_metric("mcp_connections_open ", 101);
    let mut flood = negotiated(port);
    flood.write_all(&dump("hello")).unwrap();
    let pings = dump("ping").repeat(4096);
    for round in 0..50 {
        // It ends when its answers, which nobody reads, have no room.
        flood.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        drop(flood.write_all(&pings));
        let text = round.to_string();
        assert_eq!(other.call(stream, "echo", &json!({"text": text})), text);
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "grown by {grown}");
    drop((quiet, flood));
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}

/// What is not read waits at its server; here, that is a process for each stream.
#[test]
fn links_and_event_streams_that_nobody_reads_are_bounded_and_hinder_nobody() {
    let (rig, _, port) = rig_of_all(&demo());
    let mut session = rig.open("demo");
    let before = rig.rss();
    let large = call("large", &json!({"bytes": 4_000_000}));
    let mut links: Vec<Peer> = (0..10).map(|_| Peer::new(port)).collect();
    for peer in &mut links {
        let stream = peer.session("demo");
        for _ in 0..10 {
            peer.send(stream, &large);
        }
        assert!(peer.flush());
    }
    let listeners: Vec<Listener> =
        (0..10).map(|number| Listener::new(&rig, &format!("token-{number}"))).collect();
    for listener in &listeners {
        for _ in 0..10 {
            let status = rig.ask(&listener.request(&large)).status();
            assert!(matches!(status, 202 | 503), "{status}");
        }
    }
    for _ in 0..40 {
        assert_eq!(session.text("echo", &json!({"text": "quick"})), "quick");
        std::thread::sleep(Duration::from_millis(50));
    }
    // One message each, of the hundred.
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < (160 + 64) << 20, "grown by {grown}");
    drop((links, listeners));
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}
