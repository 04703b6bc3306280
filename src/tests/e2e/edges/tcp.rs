//! The TCP binary protocol, version 1, byte by byte: the exchanges that the predecessor documented,
//! and those of its router.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::Dir;
use super::rig::{Rig, call, demo, http, initialize, script};
use crate::support::{PATIENCE, free_port};

/// The two headers, by the fourth byte of the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Short,
    Long,
}

const OFFER: &str =
    r#"{"min_version":1,"max_version":1,"preferred_version":1,"supported_versions":[1]}"#;
const TOKEN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"token":"T"}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;

fn frame(dialect: Dialect, kind: u16, payload: &str) -> Vec<u8> {
    let mut bytes = b"MCP".to_vec();
    bytes.push(if dialect == Dialect::Short { b'B' } else { 0 });
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&kind.to_be_bytes());
    if dialect == Dialect::Long {
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

fn envelope(namespace: &str, payload: &str) -> String {
    format!(
        r#"{{"id":1,"timestamp":"2025-01-01T00:00:00Z","source":"local-router","target_namespace":"{namespace}","auth_token":"T","mcp_payload":{payload}}}"#
    )
}

/// One connection.
pub(super) struct Link {
    stream: TcpStream,
    dialect: Dialect,
}

impl Link {
    fn new(port: u16, dialect: Dialect) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, dialect }
    }

    /// Versions are agreed on.
    pub(super) fn negotiated(port: u16, dialect: Dialect) -> Self {
        let mut link = Self::new(port, dialect);
        link.send(6, OFFER);
        assert_eq!(link.frame(), (7, r#"{"agreed_version":1}"#.to_owned()));
        link
    }

    /// Requests are served.
    pub(super) fn open(port: u16, dialect: Dialect) -> Self {
        let mut link = Self::negotiated(port, dialect);
        if dialect == Dialect::Short {
            link.authorize();
        } else {
            let answer = link.ask(&initialize("2025-11-25"));
            assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        }
        link
    }

    /// Says a token, and returns the id of the session.
    pub(super) fn authorize(&mut self) -> String {
        let answer = self.ask(TOKEN);
        assert_eq!(answer["id"], 1);
        let id = answer["result"]["sessionId"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(answer["result"]["expiresAt"].as_str().unwrap().ends_with('Z'));
        id.to_owned()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn send(&mut self, kind: u16, payload: &str) {
        let bytes = frame(self.dialect, kind, payload);
        self.write(&bytes);
    }

    /// A request, in whatever stands around it.
    pub(super) fn request(&mut self, message: &str) {
        let payload = match self.dialect {
            Dialect::Short => message.to_owned(),
            Dialect::Long => envelope("system", message),
        };
        self.send(1, &payload);
    }

    fn frame(&mut self) -> (u16, String) {
        let len = if self.dialect == Dialect::Short { 12 } else { 16 };
        let mut header = vec![0; len];
        self.stream.read_exact(&mut header).unwrap();
        let magic = frame(self.dialect, 0, "")[..4].to_vec();
        assert_eq!((&header[..4], &header[4..6]), (&*magic, &[0, 1][..]));
        let payload_len = u32::from_be_bytes(header[len - 4..].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(payload_len).unwrap()];
        self.stream.read_exact(&mut payload).unwrap();
        (u16::from_be_bytes([header[6], header[7]]), String::from_utf8(payload).unwrap())
    }

    /// The message of a response, as it is.
    fn response(&mut self) -> String {
        let (kind, payload) = self.frame();
        assert_eq!(kind, 2, "{payload}");
        match self.dialect {
            Dialect::Short => payload,
            Dialect::Long => {
                let inner = payload.strip_prefix(r#"{"mcp_payload":"#).unwrap();
                inner.strip_suffix('}').unwrap().to_owned()
            }
        }
    }

    pub(super) fn ask(&mut self, message: &str) -> Value {
        self.request(message);
        serde_json::from_str(&self.response()).unwrap()
    }

    #[track_caller]
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{end:?} {}", String::from_utf8_lossy(&rest));
    }
}

fn rig(servers: &str) -> (Rig, u16) {
    let port = free_port();
    (Rig::new(&format!("listen.tcp = \"127.0.0.1:{port}\"\n{servers}")), port)
}

pub(super) const BOTH: [Dialect; 2] = [Dialect::Short, Dialect::Long];

#[test]
fn calls_are_answered_in_both_dialects() {
    let (rig, port) = rig(&demo());
    for dialect in BOTH {
        let mut link = Link::open(port, dialect);
        assert!(link.ask(LIST)["result"]["tools"].as_array().unwrap().len() > 3);
        let answer = link.ask(&call("add", &json!({"a": 19, "b": 23})));
        assert_eq!(answer["result"]["structuredContent"]["sum"], 42, "{answer}");
        // Whatever is sent meanwhile has no frame of its own in this version.
        let answer = link.ask(&call("progress", &json!({"steps": 3})));
        assert!(answer["result"].is_object(), "{answer}");
        // Nobody can be asked either, and the server is told so.
        let answer = link.ask(&call("ask", &json!({"message": "Who?"})));
        assert!(answer["id"] == 7 && answer.get("method").is_none(), "{answer}");
        for id in ["\"a\"", "\"\"", "0", "-1", "9007199254740993", "12345678901234567890"] {
            let text =
                call("echo", &json!({"text": "x"})).replace("\"id\":7", &format!("\"id\":{id}"));
            link.request(&text);
            let answer = link.response();
            assert!(answer.contains(&format!("\"id\":{id}")), "{answer}");
        }
    }
    rig.check();
}

#[test]
fn a_process_for_all_is_initialized_although_no_client_says_so() {
    let (rig, port) = rig(&(demo() + "isolation = \"shared\"\n"));
    for dialect in [Dialect::Short, Dialect::Long, Dialect::Short] {
        let mut link = Link::open(port, dialect);
        let answer = link.ask(&call("add", &json!({"a": 19, "b": 23})));
        assert_eq!(answer["result"]["structuredContent"]["sum"], 42, "{answer}");
    }
    rig.until_metric("mcp_processes_running ", 1);
    rig.check();
}

#[test]
fn a_server_that_cannot_be_greeted_is_the_reason() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (rig, port) = rig(&http("gone", &format!("http://{gone}/mcp")));
    let answer = Link::open(port, Dialect::Short).ask(LIST);
    assert_eq!(answer["error"]["data"]["gateway"], "server_unreachable", "{answer}");
    rig.check();
}

#[test]
fn negotiation_comes_first_and_once() {
    let (rig, port) = rig(&demo());
    for dialect in BOTH {
        let mut link = Link::new(port, dialect);
        link.send(1, LIST);
        assert_eq!(link.frame(), (5, "Version negotiation required".to_owned()));
        link.is_closed();

        let mut link = Link::new(port, dialect);
        link.send(6, r#"{"min_version":3,"max_version":4}"#);
        let (kind, text) = link.frame();
        assert!(kind == 5 && text.starts_with("Version negotiation failed: "), "{text}");
        link.is_closed();

        let mut link = Link::new(port, dialect);
        link.send(6, "[]");
        assert_eq!(link.frame(), (5, "Invalid version negotiation payload".to_owned()));
        link.is_closed();

        let mut link = Link::open(port, dialect);
        link.send(6, OFFER);
        assert_eq!(link.frame(), (5, "Version already negotiated".to_owned()));
        link.send(2, "{}");
        assert_eq!(link.frame(), (5, "Unexpected response message from client".to_owned()));
        link.send(7, "{}");
        assert_eq!(link.frame(), (5, "Unexpected version ack from client".to_owned()));
        link.send(3, "{}");
        link.send(5, "words");
        assert!(link.ask(LIST)["result"].is_object(), "and it goes on");
    }
    rig.check();
}

#[test]
fn the_short_dialect_wants_a_token_first() {
    let (rig, port) = rig(&demo());
    let mut link = Link::negotiated(port, Dialect::Short);
    let answer = link.ask(LIST);
    assert_eq!(answer["id"], 2);
    assert_eq!(answer["error"]["code"], -32603);
    assert_eq!(answer["error"]["message"], "Unauthorized: must initialize first");
    let answer = link.ask(r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{}}"#);
    let missing = "[tcp_handler] initialize: UNAUTHORIZED: missing authentication token";
    assert_eq!((&answer["id"], &answer["error"]["message"]), (&json!("i"), &json!(missing)));
    link.send(1, &format!(r#"{{"auth_token":"T","message":{TOKEN}}}"#));
    assert!(link.response().contains("sessionId"));
    link.send(1, &format!(r#"{{"auth_token":"T","message":{LIST}}}"#));
    assert!(link.response().contains("\"tools\""));
    // A sign of life, empty or not, is returned without anything.
    for payload in ["", r#"{"check":"simple"}"#] {
        link.send(4, payload);
        assert_eq!(link.frame(), (4, String::new()));
    }
    rig.check();
}

#[test]
fn the_routers_ping_is_not_answered() {
    let (_rig, port) = rig(&demo());
    let mut link = Link::open(port, Dialect::Long);
    link.send(4, "{}");
    assert!(link.ask(LIST)["result"].is_object(), "the first frame behind it is the answer");
}

#[test]
fn what_cannot_be_a_frame_closes_the_connection() {
    let (rig, port) = rig(&demo());
    let mut other = Link::open(port, Dialect::Short);
    let bad: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"MCPX\0\x01\0\x06\0\0\0\0",
        b"MCPB\0\x02\0\x06\0\0\0\0",
        b"MCPB\0\x01\0\x09\0\0\0\0",
        b"MCPB\0\x01\0\x06\0\xa0\0\x01",
        b"MCP\0\0\x01\0\x06\0\0\0\0\xff\xff\xff\xff",
    ];
    for bytes in bad {
        let mut link = Link::new(port, Dialect::Short);
        // The gateway may be through with us before all is written.
        drop(link.stream.write_all(bytes));
        link.is_closed();
        let mut link = Link::negotiated(port, Dialect::Short);
        drop(link.stream.write_all(bytes));
        link.is_closed();
    }
    let mut link = Link::new(port, Dialect::Short);
    link.write(b"MCPB\0\x01");
    drop(link);
    assert!(other.ask(LIST)["result"].is_object());
    rig.until_metric("mcp_connections_open", 1);
    rig.check();
}

#[test]
fn announced_bytes_cost_nothing() {
    let (rig, port) = rig(&demo());
    let before = rig.rss();
    let mut links = Vec::new();
    for _ in 0..100 {
        let mut link = Link::negotiated(port, Dialect::Short);
        link.write(b"MCPB\0\x01\0\x01\0\xa0\0\0{");
        links.push(link);
    }
    rig.until_metric("mcp_connections_open", 100);
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 100 * 1024 * 1024 / 8, "{grown} bytes for 100 announcements of 10 MiB");
}

#[test]
fn requests_are_served_side_by_side() {
    let (rig, port) = rig(&demo());
    for dialect in BOTH {
        let mut link = Link::open(port, dialect);
        link.request(&call("sleep", &json!({"ms": 1500})));
        let mut batch = Vec::new();
        for id in 100..150 {
            let message = call("echo", &json!({"text": id.to_string()}))
                .replace("\"id\":7", &format!("\"id\":{id}"));
            let payload =
                if dialect == Dialect::Long { envelope("system", &message) } else { message };
            batch.extend(frame(dialect, 1, &payload));
        }
        link.write(&batch);
        let mut ids: Vec<i64> = (0..50)
            .map(|_| {
                let answer: Value = serde_json::from_str(&link.response()).unwrap();
                let id = answer["id"].as_i64().unwrap();
                assert_eq!(answer["result"]["content"][0]["text"], id.to_string());
                id
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (100..150).collect::<Vec<_>>(), "the slow one is the last");
        let slow: Value = serde_json::from_str(&link.response()).unwrap();
        assert_eq!(slow["id"], 7);
    }
    rig.check();
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let (_rig, port) = rig(&demo());
    for dialect in BOTH {
        let mut link = Link::open(port, dialect);
        link.stream.set_nodelay(true).unwrap();
        let payload = if dialect == Dialect::Long { envelope("system", LIST) } else { LIST.into() };
        for byte in frame(dialect, 1, &payload) {
            link.write(&[byte]);
        }
        assert!(link.response().contains("\"tools\""));
    }
}

#[test]
fn namespaces_are_servers() {
    let other = demo().replace("servers.demo", "servers.calc");
    let (rig, port) = rig(&(demo() + &other));
    let mut link = Link::negotiated(port, Dialect::Long);
    // Only an explicit name can be wrong.
    link.send(1, &envelope("nowhere", LIST));
    let answer: Value = serde_json::from_str(&link.response()).unwrap();
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("no endpoints available for namespace: nowhere"), "{text}");
    for namespace in ["demo", "calc"] {
        link.send(1, &envelope(namespace, LIST));
        assert!(link.response().contains("\"tools\""), "{namespace}");
    }
    // The name goes on as it is: the prefix is for the gateway alone to look at.
    link.send(1, &envelope("", &call("calc.add", &json!({"a": 1, "b": 2}))));
    let answer = link.response();
    assert!(answer.contains("calc.add") || answer.contains("error"), "{answer}");
    // Whoever names none has all of them.
    link.send(1, &envelope("system", LIST));
    let answer = link.response();
    assert!(answer.contains("demo__echo") && answer.contains("calc__echo"), "{answer}");
    rig.check();
}

#[test]
fn one_address_serves_http_and_binary() {
    let port = free_port();
    let config = format!(
        "listen.http = \"127.0.0.1:{port}\"\nlisten.tcp = \"127.0.0.1:{port}\"\n{}",
        demo()
    );
    let rig = Rig::with(Dir::new(), &config, |command| {
        // The rig's own `--listen` would count more than the file.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        *command = std::process::Command::new(program);
        command.arg(&arguments[0]).args(&arguments[3..]);
    });
    for dialect in BOTH {
        let mut link = Link::open(port, dialect);
        assert!(link.ask(LIST)["result"].is_object());
        let mut slow = Link::new(port, dialect);
        for byte in frame(dialect, 6, OFFER) {
            slow.write(&[byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(slow.frame().0, 7);
    }
    let mut session = rig.open("demo");
    assert_eq!(session.text("echo", &json!({"text": "http"})), "http");
}

#[test]
fn the_death_of_a_server_is_answered() {
    let dir = Dir::new();
    let path = dir.write(
        "server.sh",
        r#"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"die"'*) exit 3 ;;
    *'"method":"notifications/'*) ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}\n' "$id" ;;
  esac
done
"#,
    );
    let (rig, port) = rig(&script("sh", &path, &[]));
    for dialect in BOTH {
        let mut link = Link::open(port, dialect);
        let answer = link.ask(&call("die", &json!({})));
        assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
        assert_eq!(link.ask(LIST)["result"]["tools"], json!([]), "and the next goes on");
    }
    rig.check();
}

#[test]
fn equal_ids_of_different_connections_never_meet() {
    for isolation in ["session", "shared"] {
        let (rig, port) = rig(&format!("{}isolation = \"{isolation}\"\n", demo()));
        let mut links: Vec<Link> =
            (0..8).map(|number| Link::open(port, BOTH[number % 2])).collect();
        for round in 0..20 {
            let text = |number: usize| format!("{round} of {number}");
            for (number, link) in links.iter_mut().enumerate() {
                link.request(&call("echo", &json!({ "text": text(number) })));
                // An answer to a question that nobody asked, under an id that others have.
                link.request(r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#);
            }
            for (number, link) in links.iter_mut().enumerate() {
                let answer: Value = serde_json::from_str(&link.response()).unwrap();
                assert_eq!(answer["id"], 7);
                assert_eq!(answer["result"]["content"][0]["text"], text(number), "{answer}");
            }
        }
        rig.check();
    }
}

#[test]
fn a_flood_of_signs_of_life_hinders_nobody() {
    let (rig, port) = rig(&demo());
    let mut other = Link::open(port, Dialect::Short);
    let before = rig.rss();
    let mut link = Link::open(port, Dialect::Short);
    link.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let flood = frame(Dialect::Short, 4, "").repeat(20_000);
    for _ in 0..40 {
        // It does not read what is said to each: at some time it is not listened to.
        let _paused = link.stream.write_all(&flood);
        assert!(other.ask(LIST)["result"].is_object());
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 64 << 20, "grown by {grown}");
    rig.check();
}

#[test]
fn who_does_not_read_is_bounded_and_hinders_nobody() {
    let (rig, port) = rig(&demo());
    let mut other = Link::open(port, Dialect::Long);
    let before = rig.rss();
    let mut slow: Vec<Link> = (0..6).map(|_| Link::open(port, Dialect::Short)).collect();
    for link in &mut slow {
        link.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        for _ in 0..64 {
            let large = frame(Dialect::Short, 1, &call("large", &json!({"bytes": 1 << 20})));
            // It may be paused or dropped before it has said everything.
            let _paused = link.stream.write_all(&large);
        }
    }
    for _ in 0..40 {
        assert!(other.ask(LIST)["result"].is_object());
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 6 * (18 << 20) + (32 << 20), "grown by {grown}");
    drop(slow);
    rig.until_metric("mcp_connections_open ", 1);
    assert!(other.ask(LIST)["result"].is_object());
    rig.check();
}

/// A header that is not complete, a frame that is not, and nothing at all before the negotiation.
#[test]
fn who_does_not_finish_is_closed() {
    let (rig, port) = rig(&demo());
    let mut links: Vec<Link> = (0..3).map(|_| Link::new(port, Dialect::Short)).collect();
    links[1].write(b"MCPB\0\x01\0");
    links[2].write(&frame(Dialect::Short, 6, OFFER)[..20]);
    for link in &mut links {
        link.is_closed();
    }
    rig.until_metric("mcp_connections_open ", 0);
    rig.check();
}
