//! Clients of the TCP binary protocol, version 2: what passes on a stream, what happens to a link.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use wire::binary::StreamId;

use super::link::{Peer, SETTINGS, Told, call, negotiated};
use super::rig::{Dir, Rig, demo, initialize, modern_call, script};
use crate::support::{PATIENCE, free_port, root};

/// A gateway with an entrance for the protocol, and its port.
pub(super) fn rig_tcp(config: &str) -> (Rig, u16) {
    let port = free_port();
    (Rig::new(&format!("listen.tcp = \"127.0.0.1:{port}\"\n{config}")), port)
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// Everything that one client does in a session.
pub(super) fn use_stream(peer: &mut Peer, stream: StreamId) {
    let tools = peer.ask(stream, r#"{"jsonrpc":"2.0","id":"list","method":"tools/list"}"#);
    assert!(tools["result"]["tools"].as_array().unwrap().len() > 3, "{tools}");
    assert_eq!(peer.call(stream, "add", &json!({"a": 19, "b": 23})), "42");
    // Many in flight, with progress; answers come as they are ready.
    peer.send(stream, &call(&json!("slow"), "sleep", &json!({"ms": 400})));
    let steps = json!({"steps": 3, "interval": 5});
    let mut request: Value = serde_json::from_str(&call(&json!("s"), "progress", &steps)).unwrap();
    request["params"]["_meta"] = json!({"progressToken": "token"});
    peer.send(stream, &request.to_string());
    for step in 1..=3 {
        let note = peer.message(stream);
        assert_eq!(note["method"], "notifications/progress", "{note}");
        assert_eq!(note["params"]["progressToken"], "token");
        assert_eq!(note["params"]["progress"], step);
    }
    assert_eq!(text(&peer.message(stream)), "Took 3 steps.");
    let answer = peer.message(stream);
    assert_eq!((&answer["id"], text(&answer)), (&json!("slow"), "Slept 400 ms."));
    // The server asks.
    let question = peer.ask(stream, &call(&json!(2), "ask", &json!({"message": "who?"})));
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let result = json!({"action": "accept", "content": {"answer": "me"}});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert!(text(&peer.ask(stream, &reply.to_string())).contains("me"));
    let question = peer.ask(stream, &call(&json!(3), "sample", &json!({"prompt": "rhyme"})));
    assert_eq!(question["method"], "sampling/createMessage", "{question}");
    let content = json!({"type": "text", "text": "thyme"});
    let result = json!({"role": "assistant", "content": content, "model": "m"});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert!(text(&peer.ask(stream, &reply.to_string())).contains("thyme"));
    // A cancelled request is not answered.
    peer.send(stream, &call(&json!("gone"), "sleep", &json!({"ms": 60_000})));
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "gone"},
    });
    peer.send(stream, &cancel.to_string());
    // Ids come back as they are.
    for id in ["\"a\"", "\"\"", "0", "-1", "9007199254740993", "12345678901234567890"] {
        let arguments = json!({"text": id});
        let request =
            call(&json!(7), "echo", &arguments).replace("\"id\":7", &format!("\"id\":{id}"));
        peer.send(stream, &request);
        let answer = peer.text(stream);
        assert!(answer.contains(&format!("\"id\":{id}")), "{answer}");
    }
    // A notification that belongs to no request.
    peer.send(stream, &call(&json!(4), "toggle", &json!({})));
    let both = [peer.message(stream), peer.message(stream)];
    let is_change = |it: &Value| it["method"] == "notifications/tools/list_changed";
    assert!(both.iter().any(is_change), "{both:?}");
    let large = "l".repeat(8_000_000);
    assert!(peer.call(stream, "echo", &json!({"text": large})) == large);
}

#[test]
fn a_stream_is_a_conversation_in_both_directions() {
    let (rig, port) = rig_tcp(&demo());
    let mut peer = Peer::new(port);
    let streams = [peer.session("demo"), peer.session(""), peer.session("demo")];
    for stream in streams {
        use_stream(&mut peer, stream);
    }
    // Requests of the stateless revision share one stream.
    let stream = peer.open("demo");
    for id in 0..50 {
        let text = modern_call("echo", &json!({"text": id.to_string()}).to_string());
        peer.send(stream, &text.replace("\"id\":7", &format!("\"id\":{id}")));
    }
    let mut ids: Vec<u64> = (0..50)
        .map(|_| {
            let answer = peer.message(stream);
            assert_eq!(text(&answer), answer["id"].to_string());
            answer["id"].as_u64().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert_eq!(rig.metric("mcp_sessions_open "), 3);
    // The end of a stream is the end of its session, and of nothing else.
    peer.link.close(streams[0], wire::binary::Reason::DONE, "");
    peer.flush();
    rig.until_metric("mcp_sessions_open ", 2);
    assert_eq!(peer.call(streams[1], "echo", &json!({"text": "on"})), "on");
    // So is that of the link.
    peer.link.end(wire::binary::code::DONE, "bye");
    peer.flush();
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_connections_open ", 0);
    rig.until_metric("mcp_processes_running ", 1);
    rig.check();
}

#[test]
fn what_a_stream_cannot_be_opened_for_is_said() {
    let other = demo().replace("servers.demo", "servers.other");
    let (rig, port) = rig_tcp(&(demo() + &other));
    let mut peer = Peer::new(port);
    for (server, session, reason) in [("nothing", "", 1), ("demo", "key", 2)] {
        let open = wire::binary::Open { server, session, revision: "" };
        let stream = peer.link.open(open).unwrap();
        peer.send(stream, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let told = peer.next();
        assert!(
            matches!(told, Told::Closed(it, why, _) if (it, why) == (stream, reason)),
            "{told:?}"
        );
    }
    // Who names none has all of them.
    let stream = peer.open("");
    peer.ask(stream, &initialize("2025-11-25"));
    assert_eq!(peer.call(stream, "other__echo", &json!({"text": "x"})), "x");
    // Without a session there is an error, and the stream goes on.
    let stream = peer.open("other");
    let answer = peer.ask(stream, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert!(answer["error"]["message"].is_string(), "{answer}");
    let answer = peer.ask(stream, "[{\"jsonrpc\":\"2.0\",\"method\":\"x\"}]");
    assert!(answer["error"]["message"].is_string(), "{answer}");
    let answer = peer.ask(stream, &initialize("2025-11-25"));
    assert!(answer["result"].is_object(), "{answer}");
    rig.check();
}

/// The dumps of the document, by name.
pub(super) fn dump(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let (_, block) = text.split_once(&format!("\n```hex {name}\n")).unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    let digits = block.lines().flat_map(|line| line.split('#').take(1));
    let digits = digits.flat_map(str::split_whitespace);
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Reads one frame of version 2.
fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = read(stream, 20);
    let names = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let payload = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
    bytes.extend(read(stream, names + usize::try_from(payload).unwrap()));
    bytes
}

#[test]
fn the_bytes_of_the_document_are_understood() {
    let files = demo().replace("servers.demo", "servers.files");
    let (rig, port) = rig_tcp(&files);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&dump("v1-offer-2")).unwrap();
    assert_eq!(read(&mut stream, dump("v1-ack-2").len()), dump("v1-ack-2"));
    // The link that it names is not there.
    stream.write_all(&dump("hello")).unwrap();
    let welcome = frame(&mut stream);
    assert_eq!((welcome[0], welcome[1], welcome.len()), (2, 0, dump("welcome").len()));
    assert_eq!(welcome[36..44], [0; 8], "nothing is received yet");
    // Its sequences begin at 1, as those of the dumps do.
    for name in ["open", "message-request", "ping"] {
        stream.write_all(&dump(name)).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = frame(&mut stream);
        match frame[0] {
            4 => {
                let text = String::from_utf8_lossy(&frame[24..]).into_owned();
                assert!(frame[1] == 2 && text.contains("\"id\":7,\"error\""), "{text}");
                seen.push("message");
            }
            7 => assert_eq!(frame[20..], 2_u64.to_be_bytes(), "OPEN and MESSAGE came"),
            9 => {
                assert_eq!(frame, dump("pong"));
                seen.push("pong");
            }
            kind => panic!("{kind}"),
        }
    }
    // What only a server may say ends the link.
    stream.write_all(&dump("goaway")).unwrap();
    let error = frame(&mut stream);
    assert_eq!((error[0], &error[error.len() - 2..]), (11, &[0, 2][..]));
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    rig.check();
}

#[test]
fn what_breaks_the_rules_ends_the_link_and_nothing_else() {
    let (rig, port) = rig_tcp(&demo());
    let mut other = Peer::new(port);
    let stream = other.session("demo");
    let hello = dump("hello");
    let mut limits = hello.clone();
    limits[20 + 21 + 24] = 0xff;
    let mut second = hello.clone();
    second.extend(&hello);
    let mut gap = hello.clone();
    gap.extend(dump("close"));
    let mut unknown = hello.clone();
    unknown.extend([4, 1, 0, 4, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1]);
    unknown.extend(b"\0\0\0\0{}");
    let mut long = hello.clone();
    long.extend([4, 1, 0, 4, 0xff, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1]);
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 1),
        (dump("ping"), 2),
        (limits, 10),
        (second, 2),
        (gap, 8),
        (unknown, 7),
        (long, 3),
    ] {
        let mut wire = negotiated(port);
        drop(wire.write_all(&bytes));
        let error = loop {
            let frame = frame(&mut wire);
            if frame[0] != 2 {
                break frame;
            }
        };
        assert_eq!((error[0], error[error.len() - 1]), (11, code));
        assert_eq!(wire.read(&mut [0]).unwrap_or(0), 0);
    }
    assert_eq!(other.call(stream, "echo", &json!({"text": "here"})), "here");
    rig.until_metric("mcp_connections_open ", 1);
    rig.check();
}

#[test]
fn a_link_goes_on_after_its_connection_is_lost() {
    let (rig, port) = rig_tcp(&demo());
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    for round in 1..=16 {
        let id = json!(format!("slow {round}"));
        peer.send(stream, &call(&id, "sleep", &json!({"ms": 50})));
        assert!(peer.flush());
        if round % 2 == 0 {
            // Without a word, and before the old connection is known to be lost.
            let old = peer.stream.try_clone().unwrap();
            peer.reconnect();
            assert_eq!(peer.next(), Told::Resumed);
            drop(old);
        } else {
            peer.stream.shutdown(Shutdown::Both).unwrap();
            peer.reconnect();
            assert_eq!(peer.next(), Told::Resumed);
        }
        let answer = peer.message(stream);
        assert_eq!((&answer["id"], text(&answer)), (&id, "Slept 50 ms."));
    }
    assert_eq!(rig.metric("mcp_links_resumed_total "), 16);
    assert_eq!(rig.metric("mcp_sessions_opened_total "), 1);
    assert!(0 < rig.metric("mcp_connections_moved_total "), "all came to the right shard at once");
    // Nobody else can have it.
    let mut thief = Peer::greeting(port, "another token");
    assert_eq!(thief.next(), Told::Welcomed);
    peer.link.lost();
    peer.stream = negotiated(port);
    peer.link.reconnect("another token", "edges/1").unwrap();
    assert_eq!(peer.next(), Told::NotResumed);
    rig.check();
}

#[test]
fn large_messages_survive_losses() {
    let (rig, port) = rig_tcp(&demo());
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    let large = "abcdefg".repeat(300_000);
    for (out, back) in [(700_000, usize::MAX), (usize::MAX, 100_000), (1_500_000, 1_900_000)] {
        peer.send(stream, &call(&json!(7), "echo", &json!({"text": large})));
        peer.budget = [out, back];
        let answer = loop {
            match peer.next() {
                Told::Message(_, text) => break text,
                Told::Lost => peer.reconnect(),
                Told::Resumed => peer.budget[1] = 1_000_000,
                told => panic!("{told:?}"),
            }
        };
        assert!(answer.contains(&large));
        peer.budget = [usize::MAX; 2];
    }
    rig.check();
}

/// One stream whose messages nobody deals with, and another beside it.
pub(super) fn be_slow(port: u16, server: &str) {
    let mut peer = Peer::new(port);
    let (slow, quick) = (peer.session(server), peer.session(server));
    peer.unread.push(slow);
    for id in 0..40 {
        peer.send(slow, &call(&json!(id), "large", &json!({"bytes": 60_000})));
    }
    for round in 0..20 {
        assert_eq!(
            peer.call(quick, "echo", &json!({"text": round.to_string()})),
            round.to_string()
        );
    }
    let came = |peer: &Peer| {
        let is_its = |told: &&Told| matches!(told, Told::Message(it, _) if *it == slow);
        peer.told.iter().filter(is_its).count()
    };
    assert!(came(&peer) < 3, "{}", came(&peer));
    peer.unread.clear();
    for _ in 0..came(&peer) {
        peer.link.release(slow, 1, 61_000);
    }
    let mut ids: Vec<u64> = (0..40).map(|_| peer.message(slow)["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_slow_stream_does_not_slow_down_the_others() {
    let (rig, port) = rig_tcp(&demo());
    be_slow(port, "demo");
    rig.check();
}

#[test]
fn what_a_client_cannot_take_is_refused_and_what_we_cannot_ends_the_link() {
    let files = demo().replace("servers.demo", "servers.files");
    let (rig, port) = rig_tcp(&format!("limits.message = \"64KiB\"\n{files}"));
    let mut settings = SETTINGS;
    settings.limits.message_len_max = 10_000;
    let mut peer = Peer::with(port, "", settings);
    assert_eq!(peer.next(), Told::Welcomed);
    let stream = peer.session("files");
    for (bytes, is_fine) in [(9000, true), (11_000, false), (9000, true)] {
        let answer = peer.ask(stream, &call(&json!(1), "large", &json!({"bytes": bytes})));
        assert_eq!(answer["result"].is_object(), is_fine, "{answer}");
        let reason = &answer["error"]["data"]["gateway"];
        assert!(is_fine || reason == "too_large", "{answer}");
    }
    // The codec knows what the gateway takes; raw bytes do not.
    assert!(!peer.link.fits(70_000));
    let mut wire = negotiated(port);
    wire.write_all(&dump("hello")).unwrap();
    wire.write_all(&dump("open")).unwrap();
    let part = 17_000_u32.to_be_bytes();
    for sequence in 2..7 {
        let (flags, names) = if sequence == 2 { (5, 4) } else { (5, 0) };
        let mut head = vec![4, flags, 0, names];
        head.extend(part);
        head.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, sequence]);
        head.extend(vec![0; usize::from(names)]);
        head.extend(vec![b' '; 17_000]);
        drop(wire.write_all(&head));
    }
    let error = loop {
        let frame = frame(&mut wire);
        if !matches!(frame[0], 2 | 5 | 7) {
            break frame;
        }
    };
    assert_eq!((error[0], error[error.len() - 1]), (11, 4));
    rig.check();
}

/// A gateway where HTTP and this protocol are spoken at one address, and its port.
fn rig_shared(config: &str) -> (Rig, u16) {
    let port = free_port();
    let both = format!("http = \"127.0.0.1:{port}\"\ntcp = \"127.0.0.1:{port}\"\n");
    let rig = Rig::with(Dir::new(), &format!("[listen]\n{both}{config}"), |command| {
        // The rig's own `--listen` would count more than the file.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        *command = Command::new(program);
        command.arg(&arguments[0]).args(&arguments[3..]);
    });
    (rig, port)
}

#[test]
fn a_process_for_everybody_is_the_same_for_links() {
    let (rig, port) = rig_shared(&format!("{}isolation = \"shared\"\n", demo()));
    let mut peers: Vec<_> = (0..8).map(|_| Peer::new(port)).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let stream = peer.session("demo");
        let text = number.to_string();
        assert_eq!(peer.call(stream, "echo", &json!({"text": text})), text);
    }
    assert_eq!(rig.open("demo").text("echo", &json!({"text": "http"})), "http");
    assert_eq!(rig.metric("mcp_processes_running "), 1);
    rig.check();
}

#[test]
fn one_address_serves_http_and_links() {
    let (rig, port) = rig_shared(&demo());
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    for round in 0..12 {
        assert_eq!(peer.call(stream, "add", &json!({"a": round, "b": 1})), (round + 1).to_string());
        peer.stream.shutdown(Shutdown::Both).unwrap();
        peer.reconnect();
        assert_eq!(peer.next(), Told::Resumed);
    }
    let mut session = rig.open("demo");
    assert_eq!(session.text("echo", &json!({"text": "http"})), "http");
    assert!(0 < rig.metric("mcp_connections_moved_total "));
    rig.check();
}

#[test]
fn a_silent_client_is_asked_and_its_link_kept() {
    let (rig, port) = rig_tcp(&format!("listen.ping_interval = \"200ms\"\n{}", demo()));
    let mut peer = Peer::new(port);
    let stream = peer.session("demo");
    // It answers pings as long as it is asked for something.
    assert!(peer.call(stream, "sleep", &json!({"ms": 1000})).contains("1000"));
    peer.link.ping([7; 8]);
    assert_eq!(peer.next(), Told::Pong);
    // It says nothing, and is taken to be gone; but not its session.
    rig.until_metric("mcp_connections_open ", 0);
    assert_eq!(rig.metric("mcp_sessions_open "), 1);
    peer.reconnect();
    assert_eq!(peer.next(), Told::Resumed);
    assert_eq!(peer.call(stream, "echo", &json!({"text": "again"})), "again");
    rig.check();
}

#[test]
fn a_drain_lets_streams_finish() {
    let (mut rig, port) = rig_tcp(&demo());
    let mut peer = Peer::new(port);
    let (busy, idle) = (peer.session("demo"), peer.session("demo"));
    peer.send(busy, &call(&json!("last"), "sleep", &json!({"ms": 1500})));
    assert_eq!(peer.call(idle, "echo", &json!({"text": "idle"})), "idle");
    rig.gateway.process.signal(Signal::TERM);
    assert_eq!(peer.next(), Told::Draining(idle.get()));
    assert_eq!(peer.next(), Told::Closed(idle, 4, "draining".to_owned()));
    let answer = peer.message(busy);
    assert_eq!(text(&answer), "Slept 1500 ms.");
    assert_eq!(peer.next(), Told::Closed(busy, 4, "draining".to_owned()));
    assert_eq!(peer.next(), Told::Ended(0, String::new()));
    assert!(rig.gateway.process.end(PATIENCE).success());
}

#[test]
fn the_death_of_a_server_is_answered() {
    let dir = Dir::new();
    let path = dir.write("server.sh", MORTAL);
    let (rig, port) = rig_tcp(&script("sh", &path, &[]));
    let mut peer = Peer::new(port);
    let stream = peer.session("sh");
    let answer = peer.ask(stream, &call(&json!(1), "die", &json!({})));
    assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    let answer = peer.ask(stream, r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
    assert!(answer["result"].is_object(), "{answer}");
    rig.check();
}

/// A server that does what it is told.
const MORTAL: &str = r#"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"die"'*) exit 3 ;;
    *'"method":"notifications/'*) ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}\n' "$id" ;;
  esac
done
"#;
