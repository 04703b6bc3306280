//! Servers by WebSocket: everything passes, and what can go wrong with a connection does.
#![allow(clippy::disallowed_types, reason = "these servers are no shards")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use wire::Decoded;
use wire::http1::{self, HEAD_END, HeaderSlots};
use wire::ws::{
    DeflateParams, Deflater, Item, Limits, MessageKind, Receiver, Role, accept_request,
    write_close, write_message, write_ping,
};

use super::http::Request;
use super::rig::{Dir, Rig, call, demo, http, initialize, modern_call};
use super::websocket::{modern, rig_ws, use_session};
use super::ws::Socket;
use crate::support::{HttpServer, until};

/// What a server has seen.
#[derive(Clone, Default)]
struct Seen {
    connections: Arc<AtomicUsize>,
    /// The last handshake.
    head: Arc<Mutex<String>>,
    /// Bytes of frames.
    received: Arc<AtomicUsize>,
    /// The code of the last close frame.
    code: Arc<Mutex<Option<u16>>>,
    initialized: Arc<AtomicUsize>,
    /// How often it was asked for its prompts; it hangs up the first time.
    lists: Arc<AtomicUsize>,
}

/// Accepts connections until the test is over.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            spawn(move || serve(stream.unwrap()));
        }
    });
    addr
}

/// A server that does what the name of the tool says.
fn serve(mut stream: impl Read + Write, seen: &Seen) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let mut buf = Vec::new();
    let deflate = loop {
        if !receive(&mut stream, &mut buf) {
            return;
        }
        let mut slots = HeaderSlots::new();
        let limits = http1::Limits { head_len_max: 9999, target_len_max: 999 };
        let Decoded::Item { item, used } = http1::request(&buf, &mut slots, limits).unwrap() else {
            continue;
        };
        *seen.head.lock().unwrap() = String::from_utf8(buf[..used].to_vec()).unwrap();
        let mut wanted = DeflateParams::WITHOUT_CONTEXT;
        wanted.client.window_bits = 12;
        let accepted = accept_request(&item, &["mcp"], Some(wanted)).unwrap();
        assert_eq!(accepted.protocol, Some("mcp"));
        let mut out = Vec::new();
        accepted.write_head(&mut out);
        out.extend_from_slice(HEAD_END);
        write_ping(&mut out, b"behind the head", None);
        stream.write_all(&out).unwrap();
        let deflate = accepted.deflate;
        buf.drain(..used);
        break deflate;
    };
    let limits = Limits { message_len_max: 64 << 20, frames_max: 1 };
    let mut receiver = Receiver::new(Role::Server, limits, deflate);
    let mut deflater = deflate.map(|params| Deflater::new(Role::Server, params, 100));
    loop {
        seen.received.fetch_add(buf.len(), Ordering::SeqCst);
        let mut input = &mut buf[..];
        let mut out = Vec::new();
        let mut is_over = false;
        while let Some(item) = receiver.next(&mut input).unwrap() {
            match item {
                Item::Text(text) => {
                    let message: Value = serde_json::from_slice(&text).unwrap();
                    is_over |= !answer(&message, seen, deflater.as_mut(), &mut out);
                }
                Item::Close(close) => {
                    *seen.code.lock().unwrap() = close.map(|close| close.code);
                    is_over = true;
                }
                _ => {}
            }
        }
        drop(stream.write_all(&out));
        drop(stream.flush());
        buf.clear();
        if is_over || !receive(&mut stream, &mut buf) {
            return;
        }
    }
}

/// False: the connection is over.
fn answer(
    message: &Value,
    seen: &Seen,
    deflater: Option<&mut Deflater>,
    out: &mut Vec<u8>,
) -> bool {
    let say = |out: &mut Vec<u8>, deflater: Option<&mut Deflater>, value: &Value| {
        let text = value.to_string();
        write_message(out, deflater, MessageKind::Text, text.as_bytes(), None);
    };
    let (id, tool) = (&message["id"], message["params"]["name"].as_str());
    let result = match (message["method"].as_str(), tool) {
        (Some("initialize"), _) => {
            seen.initialized.fetch_add(1, Ordering::SeqCst);
            json!({
                "protocolVersion": "2025-11-25", "capabilities": {},
                "serverInfo": { "name": "far", "version": "1" },
            })
        }
        (_, Some("die")) => return false,
        (_, Some("hang")) => return true,
        (_, Some("bye")) => {
            write_close(out, Some(1001), "bye", None);
            return true;
        }
        (_, Some("binary")) => {
            write_message(out, None, MessageKind::Binary, b"{}", None);
            return true;
        }
        (_, Some("masked")) => {
            out.extend([0x81, 0x82, 1, 2, 3, 4, b'{', b'}']);
            return true;
        }
        (_, Some("bomb")) => {
            let spaces = vec![b' '; 128 << 20];
            write_message(out, deflater, MessageKind::Text, &spaces, None);
            assert!(out.len() < 1 << 20);
            return true;
        }
        (_, Some("nonsense")) => {
            write_message(out, None, MessageKind::Text, b"nonsense", None);
            write_message(out, None, MessageKind::Text, b"", None);
            json!({ "content": [{ "type": "text", "text": "after nonsense" }] })
        }
        (Some("tools/call"), Some(_)) => {
            let text = message["params"]["arguments"]["text"].as_str().unwrap_or("alive");
            json!({ "content": [{ "type": "text", "text": text }] })
        }
        (Some("prompts/list"), _) => {
            if seen.lists.fetch_add(1, Ordering::SeqCst) == 0 {
                return false;
            }
            json!({ "prompts": [] })
        }
        (Some("server/discover" | "tools/list"), _) => json!({ "tools": [] }),
        _ => return true,
    };
    say(out, deflater, &json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    true
}

fn receive(stream: &mut impl Read, buf: &mut Vec<u8>) -> bool {
    let mut part = vec![0; 64 * 1024];
    match stream.read(&mut part) {
        Ok(0) | Err(_) => false,
        Ok(len) => {
            buf.extend_from_slice(&part[..len]);
            true
        }
    }
}

fn far(more: &str) -> (Rig, Seen) {
    let seen = Seen::default();
    let of_server = seen.clone();
    let addr = listen(move |stream| serve(stream, &of_server));
    (Rig::new(&format!("{}{more}", http("far", &format!("ws://{addr}/x?y=z")))), seen)
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_chain_of_two_gateways_has_everything() {
    let (near, ws) = rig_ws(&demo());
    for isolation in ["session", "shared"] {
        let url = format!("ws://{ws}/mcp/demo");
        let (rig, far) = rig_ws(&format!("{}isolation = \"{isolation}\"\n", http("far", &url)));
        for _ in 0..3 {
            use_session(far, "/", isolation == "shared");
        }
        let mut session = rig.open("far");
        let large = "l".repeat(8_000_000);
        assert!(session.text("echo", &json!({ "text": large })) == large);
        let answer = rig.ask(&Request::modern("/mcp", &modern_call("add", r#"{"a":1,"b":2}"#)));
        assert_eq!(text(&answer.json()), "3");
        let mut socket = Socket::open(far, "/");
        assert_eq!(text(&socket.ask(&modern(&json!(1), "add", &json!({"a": 4, "b": 5})))), "9");
        // One for the session or for all, and one for requests without: another if the WebSocket
        // is at the other shard, unless that has to be where the shared one is.
        let open = rig.metric("mcp_server_connections_open ");
        let most = if isolation == "shared" { 2 } else { 3 };
        assert!((2..=most).contains(&open), "{open}");
        rig.until_metric("mcp_exchanges_in_flight ", 0);
        rig.check();
    }
    near.until_metric("mcp_sessions_open ", 0);
    near.until_metric("mcp_connections_open ", 0);
    near.check();
}

#[test]
fn the_end_of_a_connection_costs_the_requests_in_flight() {
    let (rig, seen) = far("headers = { Authorization = \"Bearer canary\" }\n");
    let mut session = rig.open("far");
    assert_eq!(session.text("any", &json!({})), "alive");
    let head = seen.head.lock().unwrap().clone();
    assert!(head.starts_with("GET /x?y=z HTTP/1.1\r\nhost: 127.0.0.1:"), "{head}");
    assert!(head.contains("Authorization: Bearer canary\r\n"), "{head}");
    for (tool, reason) in [
        ("die", "server_died"),
        ("bye", "server_died"),
        ("binary", "server_invalid"),
        ("masked", "server_invalid"),
    ] {
        let answer = session.call(tool, &json!({}));
        assert_eq!(answer["error"]["data"]["gateway"], reason, "{tool}: {answer}");
        // The session is set up again.
        assert_eq!(session.text("any", &json!({})), "alive");
    }
    assert_eq!(session.text("nonsense", &json!({})), "after nonsense");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 5);
    assert_eq!(seen.initialized.load(Ordering::SeqCst), 5);
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 4);
    let large = "\u{fc}".repeat(2_000_000);
    assert!(session.text("any", &json!({ "text": large })) == large);
    // A session that ends says goodbye.
    let delete = Request::new("DELETE", "/mcp").session(&session.id);
    assert_eq!(session.wire.ask(&delete).status(), 200);
    until("goodbye", || (*seen.code.lock().unwrap() == Some(1000)).then_some(()));
    rig.until_metric("mcp_server_connections_open ", 0);
    // Requests without a session have a connection of their own.
    let ask = || rig.ask(&Request::modern("/mcp", &modern_call("any", "{}"))).json();
    assert_eq!((text(&ask()), text(&ask())), ("alive", "alive"));
    let answer = rig.ask(&Request::modern("/mcp", &modern_call("die", "{}")));
    assert_eq!(answer.json()["error"]["data"]["gateway"], "server_died");
    assert_eq!(text(&ask()), "alive");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 7);
    rig.check();
}

#[test]
fn a_small_window_that_a_server_asks_for_is_kept_to() {
    let (rig, seen) = far("");
    let mut session = rig.open("far");
    // What is longer than the window is sent as it is.
    for (count, is_compressed) in [(300, true), (500, false)] {
        let before = seen.received.load(Ordering::SeqCst);
        let said = "compress me ".repeat(count);
        assert_eq!(session.text("any", &json!({ "text": said })), said);
        let came = seen.received.load(Ordering::SeqCst) - before;
        assert_eq!(came < said.len(), is_compressed, "{came}");
    }
    rig.check();
}

#[test]
fn a_bomb_of_a_server_is_not_blown_up() {
    let (rig, _) = far("");
    let mut session = rig.open("far");
    assert_eq!(session.text("any", &json!({})), "alive");
    let before = rig.rss();
    for _ in 0..3 {
        let answer = session.call("bomb", &json!({}));
        assert_eq!(answer["error"]["data"]["gateway"], "server_invalid", "{answer}");
        assert_eq!(session.text("any", &json!({})), "alive");
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 100 << 20, "grown by {grown}");
    rig.check();
}

#[test]
fn a_list_survives_the_end_of_a_connection() {
    let list = r#"{"jsonrpc":"2.0","id":"x","method":"prompts/list"}"#;
    for isolation in ["session", "shared"] {
        let (rig, seen) = far(&format!("isolation = \"{isolation}\"\n"));
        let mut session = rig.open("far");
        let mut waiting = rig.wire();
        waiting.send(session.request(call("hang", &json!({}))).bytes());
        rig.until_metric("mcp_exchanges_in_flight ", 1);
        assert_eq!(session.post(list).json()["result"]["prompts"], json!([]), "{isolation}");
        // What may have run is not run again.
        assert_eq!(waiting.answer().json()["error"]["data"]["gateway"], "server_died");
        assert_eq!(seen.lists.load(Ordering::SeqCst), 2);
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
        assert_eq!(seen.initialized.load(Ordering::SeqCst), 2);
        assert_eq!(rig.metric("mcp_requests_repeated_total "), 1);
        rig.check();
    }
}

#[test]
fn what_opens_no_websocket_is_told_from_a_server_that_is_away() {
    for (answer, status, reason) in [
        ("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n", 502, "server_credentials"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "server_invalid"),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 502, "server_unreachable"),
        (
            "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            502,
            "server_invalid",
        ),
        ("220 mail.example ESMTP\r\n\r\n", 502, "server_invalid"),
        ("", 502, "server_unreachable"),
    ] {
        let addr = listen(move |mut stream| {
            let mut buf = Vec::new();
            receive(&mut stream, &mut buf);
            stream.write_all(answer.as_bytes()).unwrap();
            if !answer.is_empty() {
                while receive(&mut stream, &mut buf) {}
            }
        });
        let rig = Rig::new(&http("far", &format!("ws://{addr}/")));
        let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
        assert_eq!(found.status(), status, "{answer:?} {found:?}");
        assert_eq!(found.json()["error"]["data"]["gateway"], reason, "{answer:?}");
        let found = rig.ask(&Request::modern("/mcp", &modern_call("any", "{}")));
        assert_eq!(found.json()["error"]["data"]["gateway"], reason, "{answer:?}");
        rig.until_metric("mcp_server_connections_open ", 0);
        rig.until_metric("mcp_sessions_open ", 0);
        rig.check();
    }
    let rig = Rig::new(&http("far", "ws://127.0.0.1:1/"));
    let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(found.json()["error"]["data"]["gateway"], "server_unreachable");
    let rig = Rig::new(&http("far", "ws://nowhere.invalid/"));
    let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(found.json()["error"]["data"]["gateway"], "server_unreachable");
    rig.check();
}

#[test]
fn connections_are_bounded_and_silent_servers_are_given_up() {
    let (rig, _) = far("connections = 2\n");
    let sessions: Vec<_> = (0..2)
        .map(|_| {
            let mut wire = rig.wire();
            (0..3)
                .map(|_| wire.ask(&Request::post("/mcp", initialize("2025-11-25"))).status())
                .max()
        })
        .collect();
    assert!(sessions.contains(&Some(503)), "{sessions:?}");
    // It accepts, and then there is nothing but silence.
    let addr = listen(|mut stream| {
        let (mut buf, seen) = (Vec::new(), Seen::default());
        let mut is_first = true;
        while receive(&mut stream, &mut buf) {
            if std::mem::take(&mut is_first) {
                let mut slots = HeaderSlots::new();
                let limits = http1::Limits { head_len_max: 9999, target_len_max: 999 };
                let Ok(Decoded::Item { item, .. }) = http1::request(&buf, &mut slots, limits)
                else {
                    return;
                };
                let mut out = Vec::new();
                accept_request(&item, &[], None).unwrap().write_head(&mut out);
                out.extend_from_slice(HEAD_END);
                stream.write_all(&out).unwrap();
            }
            seen.connections.fetch_add(1, Ordering::SeqCst);
        }
    });
    let config =
        format!("[listen]\nping_interval = \"300ms\"\n{}", http("far", &format!("ws://{addr}/")));
    let rig = Rig::new(&config);
    let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(found.json()["error"]["data"]["gateway"], "server_died", "{found:?}");
    rig.check();
}

#[test]
fn tls_leads_to_the_same_server() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    let config = Arc::new(config);
    let seen = Seen::default();
    let of_server = seen.clone();
    let addr = listen(move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        serve(StreamOwned::new(tls, stream), &of_server);
    });
    let dir = Dir::new();
    let ca = dir.write("ca.pem", &certified.cert.pem());
    let config = http("far", &format!("wss://localhost:{}/mcp", addr.port()));
    let rig = Rig::with(dir, &config, |command| {
        command.env("SSL_CERT_FILE", ca);
    });
    let mut session = rig.open("far");
    let large = "t".repeat(3_000_000);
    assert!(session.text("any", &json!({ "text": large })) == large);
    let answer = session.post(call("die", &json!({}))).json();
    assert_eq!(answer["error"]["data"]["gateway"], "server_died");
    assert_eq!(session.text("any", &json!({})), "alive");
    // Who is not trusted is not spoken with.
    let rig = Rig::new(&config_untrusted(addr));
    let found = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(found.json()["error"]["data"]["gateway"], "server_unreachable");
    assert_eq!(seen.initialized.load(Ordering::SeqCst), 2);
    rig.check();
}

fn config_untrusted(addr: SocketAddr) -> String {
    http("far", &format!("wss://localhost:{}/mcp", addr.port()))
}

#[test]
fn the_fixture_behind_two_gateways_is_the_same_server() {
    let server = HttpServer::fixture();
    let near = Rig::new(&http("fixture", &server.url));
    let url = format!("ws://{}/mcp", near.gateway.addr);
    let rig = Rig::new(&http("far", &url));
    let mut session = rig.open("far");
    let said = session.text("test_simple_text", &json!({}));
    assert!(said.contains("simple text"), "{said}");
    let listed = session.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).json();
    assert!(30 < listed["result"]["tools"].as_array().unwrap().len());
    rig.check();
    near.check();
}
