//! Servers by the TCP binary protocol, version 2: a gateway behind a gateway, and a connection
//! between them that is lost.
#![allow(clippy::disallowed_types, reason = "what stands between the gateways is no shard")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::http::Request;
use super::link::Peer;
use super::rig::{Dir, Rig, Session, call, demo, http, initialize, modern_call, script};
use super::tcp2::{be_slow, rig_tcp, use_stream};
use super::websocket::{rig_ws, use_session};
use crate::support::{PATIENCE, free_port, until};

/// What stands between two gateways. Each connection carries so many bytes in each direction, then
/// it breaks.
#[derive(Clone)]
struct Between {
    addr: SocketAddr,
    budgets: Arc<Mutex<Vec<[usize; 2]>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    connections: Arc<AtomicUsize>,
}

impl Between {
    fn new(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let it = Self {
            addr: listener.local_addr().unwrap(),
            budgets: Arc::default(),
            open: Arc::default(),
            connections: Arc::default(),
        };
        let between = it.clone();
        spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                between.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                let budget = between.budgets.lock().unwrap().pop().unwrap_or([usize::MAX; 2]);
                for stream in [&near, &far] {
                    stream.set_nodelay(true).unwrap();
                    between.open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let (up, down) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                spawn(move || carry(near, up, budget[0]));
                spawn(move || carry(far, down, budget[1]));
            }
        });
        it
    }

    /// All connections break.
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut budget: usize) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(len) = from.read(&mut bytes) {
        let carried = len.min(budget);
        if to.write_all(&bytes[..carried]).is_err() || carried < len || len == 0 {
            break;
        }
        budget -= carried;
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["gateway"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// A gateway with a server behind another one.
fn far(place: &str) -> Rig {
    Rig::new(&http("far", &format!("tcp://{place}")))
}

#[test]
fn a_chain_of_two_gateways_has_everything() {
    let (near, port) = rig_tcp(&demo());
    for isolation in ["session", "shared"] {
        let url = format!("tcp://127.0.0.1:{port}/demo");
        let tcp = free_port();
        let (rig, ws) = rig_ws(&format!(
            "tcp = \"127.0.0.1:{tcp}\"\n{}isolation = \"{isolation}\"\n",
            http("far", &url)
        ));
        for _ in 0..2 {
            use_session(ws, "/", isolation == "shared");
        }
        if isolation == "session" {
            let mut peer = Peer::new(tcp);
            for _ in 0..2 {
                let stream = peer.session("far");
                use_stream(&mut peer, stream);
            }
        }
        let mut session = rig.open("far");
        let large = "l".repeat(8_000_000);
        assert!(session.text("echo", &json!({ "text": large })) == large);
        let answer = rig.ask(&Request::modern("/mcp", &modern_call("add", r#"{"a":1,"b":2}"#)));
        assert_eq!(text(&answer.json()), "3");
        // One connection for each shard, whatever is on it.
        let open = rig.metric("mcp_server_connections_open ");
        assert!((1..=2).contains(&open), "{open}");
        rig.until_metric("mcp_exchanges_in_flight ", 0);
        rig.check();
    }
    near.until_metric("mcp_sessions_open ", 0);
    near.until_metric("mcp_connections_open ", 0);
    near.check();
}

/// A server that has pages and does what it is told.
const PAGED: &str = r#"
say() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) say '{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"die"'*) exit 3 ;;
    *'"method":"notifications/'*) ;;
    *'"cursor":"two"'*) say '{"tools":[{"name":"b"}]}' ;;
    *'"tools/list"'*) say '{"tools":[{"name":"a"}],"nextCursor":"two"}' ;;
    *) say '{"content":[{"type":"text","text":"alive"}]}' ;;
  esac
done
"#;

#[test]
fn pages_pass_and_the_death_of_the_server_is_answered() {
    let dir = Dir::new();
    let path = dir.write("server.sh", PAGED);
    let (near, port) = rig_tcp(&script("sh", &path, &[]));
    let rig = far(&format!("127.0.0.1:{port}"));
    let mut session = rig.open("far");
    let list = |cursor: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{cursor}}}}}"#)
    };
    let page = session.post(list("")).json();
    assert_eq!(
        (&page["result"]["tools"][0]["name"], &page["result"]["nextCursor"]),
        (&json!("a"), &json!("two"))
    );
    let page = session.post(list(r#""cursor":"two""#)).json();
    assert_eq!(page["result"]["tools"][0]["name"], "b");
    // The other gateway says so, and sets the session up again; the stream goes on.
    let answer = session.call("die", &json!({}));
    assert_eq!(reason(&answer), "server_died");
    assert_eq!(session.text("any", &json!({})), "alive");
    assert_eq!(near.metric("mcp_sessions_revived_total "), 1);
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 0);
    rig.check();
    near.check();
}

#[test]
fn a_request_in_flight_survives_the_loss_of_the_connection() {
    let (near, port) = rig_tcp(&demo());
    let between = Between::new(port);
    let rig = far(&between.addr.to_string());
    let mut session = rig.open("far");
    for round in 1..=5 {
        session.wire.send(session.request(call("sleep", &json!({"ms": 400}))).bytes());
        until("it is in flight", || (near.metric("mcp_exchanges_in_flight ") == 1).then_some(()));
        between.cut();
        let answer = session.wire.answer().json();
        assert_eq!(text(&answer), "Slept 400 ms.");
        assert_eq!(near.metric("mcp_links_resumed_total "), round);
    }
    // Nothing was sent twice: nothing was set up again, and each call was one.
    assert_eq!(near.metric("mcp_sessions_opened_total "), 1);
    assert_eq!(near.metric("mcp_exchanges_total "), 6);
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 0);
    rig.check();
    near.check();
}

#[test]
fn every_answer_comes_once_wherever_connections_break() {
    let (near, port) = rig_tcp(&demo());
    let between = Between::new(port);
    let rig = far(&between.addr.to_string());
    let mut session = rig.open("far");
    // Connections that carry less and less; every fourth carries enough to get somewhere.
    let budget = |step: usize| match step % 4 {
        0 => [5000, 5000],
        1 => [260 + step * 7, 5000],
        2 => [5000, 230 + step * 5],
        _ => [300 + step * 3, 280 + step * 3],
    };
    *between.budgets.lock().unwrap() = (0..160).map(budget).collect();
    between.cut();
    let mut calls = 0;
    while !between.budgets.lock().unwrap().is_empty() {
        let said = "x".repeat(calls % 400 * 3);
        assert_eq!(session.text("echo", &json!({ "text": said })), said, "{calls}");
        calls += 1;
    }
    assert!(60 < near.metric("mcp_links_resumed_total "), "those that carried too little were not");
    assert_eq!(near.metric("mcp_sessions_opened_total "), 1);
    assert_eq!(near.metric("mcp_exchanges_total "), calls as u64 + 1);
    rig.check();
    near.check();
}

/// Two sessions, so that one can wait while the other works.
fn sessions(rig: &Rig) -> [Session; 2] {
    [rig.open("far"), rig.open("far")]
}

#[test]
fn a_gateway_that_is_killed_costs_what_was_in_flight() {
    let (mut near, port) = rig_tcp(&demo());
    let rig = far(&format!("127.0.0.1:{port}/demo"));
    let [mut busy, mut idle] = sessions(&rig);
    busy.wire.send(busy.request(call("sleep", &json!({"ms": 60_000}))).bytes());
    until("it is in flight", || (near.metric("mcp_exchanges_in_flight ") == 1).then_some(()));
    near.gateway.process.signal(Signal::KILL);
    near.gateway.process.end(PATIENCE);
    // The kernel ends what a killed process has under way a little later.
    until("its port is free", || TcpListener::bind(("127.0.0.1", port)).ok());
    // Another one takes its place, and knows nothing of the link.
    let near = Rig::new(&format!("listen.tcp = \"127.0.0.1:{port}\"\n{}", demo()));
    assert_eq!(reason(&busy.wire.answer().json()), "server_died");
    let is_away = |answer: &Value| ["server_died", "server_unreachable"].contains(&reason(answer));
    let answer = until("the session is set up again", || {
        let answer = idle.call("echo", &json!({"text": "x"}));
        if answer["error"].is_object() {
            assert!(is_away(&answer), "{answer}");
            sleep(Duration::from_millis(50));
        }
        answer["result"].is_object().then_some(answer)
    });
    assert_eq!(text(&answer), "x");
    rig.check();
    near.check();
}

/// Its link may come back for longer than the request has.
#[test]
fn a_request_to_a_gateway_that_is_away_has_its_own_time() {
    let (mut near, port) = rig_tcp(&demo());
    let far = http("far", &format!("tcp://127.0.0.1:{port}/demo"));
    let rig = Rig::new(&format!("{far}request_timeout = \"1s\"\n"));
    let mut session = rig.open("far");
    near.gateway.process.signal(Signal::KILL);
    near.gateway.process.end(PATIENCE);
    assert_eq!(reason(&session.call("echo", &json!({"text": "x"}))), "server_timeout");
    rig.check();
}

#[test]
fn a_gateway_that_is_stopped_answers_first() {
    let (mut near, port) = rig_tcp(&demo());
    let rig = far(&format!("127.0.0.1:{port}/demo"));
    let [mut busy, mut idle] = sessions(&rig);
    busy.wire.send(busy.request(call("sleep", &json!({"ms": 1500}))).bytes());
    until("it is in flight", || (near.metric("mcp_exchanges_in_flight ") == 1).then_some(()));
    near.gateway.process.signal(Signal::TERM);
    assert_eq!(text(&busy.wire.answer().json()), "Slept 1500 ms.");
    assert!(near.gateway.process.end(PATIENCE).success());
    let near = Rig::new(&format!("listen.tcp = \"127.0.0.1:{port}\"\n{}", demo()));
    assert_eq!(idle.text("echo", &json!({"text": "again"})), "again");
    assert_eq!(busy.text("echo", &json!({"text": "again"})), "again");
    rig.check();
    near.check();
}

#[test]
fn a_drain_of_the_near_gateway_leaves_nothing_behind() {
    let (near, port) = rig_tcp(&demo());
    let mut rig = far(&format!("127.0.0.1:{port}/demo"));
    let [mut busy, mut idle] = sessions(&rig);
    assert_eq!(idle.text("echo", &json!({"text": "idle"})), "idle");
    busy.wire.send(busy.request(call("sleep", &json!({"ms": 1000}))).bytes());
    until("it is in flight", || (near.metric("mcp_exchanges_in_flight ") == 1).then_some(()));
    rig.gateway.process.signal(Signal::TERM);
    assert_eq!(text(&busy.wire.answer().json()), "Slept 1000 ms.");
    assert!(rig.gateway.process.end(PATIENCE).success());
    near.until_metric("mcp_sessions_open ", 0);
    near.until_metric("mcp_processes_running ", 0);
    // It said goodbye: nobody waits for it to come back.
    near.until_metric("mcp_connections_open ", 0);
    near.check();
}

#[test]
fn a_slow_client_slows_down_its_own_conversation_through_both_gateways() {
    let (near, port) = rig_tcp(&demo());
    let tcp = free_port();
    let url = format!("tcp://127.0.0.1:{port}");
    let rig = Rig::new(&format!("listen.tcp = \"127.0.0.1:{tcp}\"\n{}", http("far", &url)));
    be_slow(tcp, "far");
    rig.check();
    near.check();
}

#[test]
fn who_cannot_be_spoken_with_is_away() {
    let (near, port) = rig_tcp(&demo());
    let answer = b"MCPB\0\x01\0\x07\0\0\0\x14{\"agreed_version\":1}";
    let old = TcpListener::bind("127.0.0.1:0").unwrap();
    let old_addr = old.local_addr().unwrap();
    spawn(move || {
        for stream in old.incoming() {
            drop(stream.unwrap().write_all(answer));
        }
    });
    let nobody = free_port();
    for place in
        [format!("127.0.0.1:{port}/nothing"), old_addr.to_string(), format!("127.0.0.1:{nobody}")]
    {
        let rig = far(&place);
        for _ in 0..2 {
            let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
            assert_eq!(reason(&found.json()), "server_unreachable", "{place}");
        }
        rig.until_metric("mcp_sessions_open ", 0);
        rig.check();
    }
    near.check();
}

#[test]
fn tls_leads_to_the_same_server() {
    let (near, port) = rig_tcp(&demo());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            spawn(move || terminate(stream, config, port));
        }
    });
    let dir = Dir::new();
    let ca = dir.write("ca.pem", &certified.cert.pem());
    let url = format!("tcps://localhost:{}/demo", addr.port());
    let rig = Rig::with(dir, &http("far", &url), |command| {
        command.env("SSL_CERT_FILE", ca);
    });
    let mut session = rig.open("far");
    let large = "t".repeat(300_000);
    assert!(session.text("echo", &json!({ "text": large })) == large);
    // Who is not trusted is not spoken with.
    let untrusted = Rig::new(&http("far", &url));
    let found = untrusted.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(reason(&found.json()), "server_unreachable");
    rig.check();
    near.check();
}

/// Takes TLS off a connection, in turns of a few milliseconds.
fn terminate(near: TcpStream, config: Arc<ServerConfig>, to: u16) {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
    let mut near = StreamOwned::new(ServerConnection::new(config).unwrap(), near);
    let turn = Some(Duration::from_millis(3));
    near.sock.set_read_timeout(turn).unwrap();
    far.set_read_timeout(turn).unwrap();
    let mut bytes = vec![0; 64 * 1024];
    let mut pass = |from: &mut dyn Read, to: &mut dyn Write| match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(len) => to.write_all(&bytes[..len]).and_then(|()| to.flush()).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    };
    while pass(&mut near, &mut far) && pass(&mut far, &mut near) {}
}
