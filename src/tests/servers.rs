//! One shard before HTTP servers, each of whose words is in the test, with one endpoint or several.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::http1::{Body, BodyDecoder};
use wire::sse::EventParser;

use crate::admission::entrance::{Entrance, Protocol};
use crate::ids::{ConnId, Ticket};
use crate::shard::Shard;
use crate::shard::event::{Action, Event, Question};
use crate::shard::settings::Settings;
use crate::tests::settings;
use crate::upstream::catalog::{Balance, Endpoint, Endpoints, ServerId, Target, Transport};
use crate::upstream::view::{Member, Rules, View};

pub(super) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(super) const CANCELLED: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
pub(super) const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
pub(super) const WELCOME: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}}"#;

pub(super) fn call(id: u32, name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}"#
    )
}

pub(super) fn result(id: u32, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"said":"{text}"}}}}"#)
}

/// One shard; clients by HTTP, each request on a connection of its own.
pub(super) struct World {
    pub(super) shard: Shard,
    pub(super) now: Instant,
    /// Connections to servers, by the last byte of their address, in the order in which they were
    /// dialled; and whether they lead somewhere.
    pub(super) conns: Vec<(ConnId, u8, bool)>,
    /// What was written to connections and not looked at yet.
    pub(super) written: HashMap<ConnId, Vec<u8>>,
    pub(super) asked: Vec<(Ticket, String)>,
}

pub(super) fn place(number: u8) -> Endpoint {
    Endpoint { conns_max: 4, ..settings::endpoint(&format!("127.0.0.{number}")) }
}

impl World {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        Self::of(Target::Http(Transport::Http, all(endpoints)))
    }

    pub(super) fn of(target: Target) -> Self {
        let settings = settings::settings(vec![settings::server(target)]);
        Self::with(Settings { entrances: vec![Entrance::of(Protocol::Http)], ..settings })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let shard = settings::shard(settings, 0, 1, now);
        let (conns, asked) = (Vec::new(), Vec::new());
        Self { shard, now, conns, written: HashMap::new(), asked }
    }

    /// A world with these endpoints, and a session at the first of them, which calls it `s1`.
    pub(super) fn opened(places: &[u8]) -> (Self, String) {
        let mut world = Self::new(places.iter().copied().map(place).collect());
        let session = world.open(1, "s1");
        (world, session)
    }

    pub(super) fn tell(&mut self, event: Event<'_>) {
        self.shard.handle(event, self.now);
        while let Some(action) = self.shard.poll() {
            match action {
                Action::Dial { conn, addrs } => match addrs.first().map(SocketAddr::ip) {
                    Some(std::net::IpAddr::V4(ip)) => {
                        self.conns.push((conn, ip.octets()[3], false));
                    }
                    other => panic!("{other:?}"),
                },
                Action::Close { conn, .. } => self.conns.retain(|(it, ..)| *it != conn),
                Action::Ask { ticket, question: Question::Resolve { host, .. } } => {
                    self.asked.push((ticket, host));
                }
                Action::Send { conn } => {
                    let chunks = self.shard.output(conn).map(crate::output::Output::take);
                    let written = self.written.entry(conn).or_default();
                    chunks.into_iter().flatten().for_each(|chunk| written.extend(chunk));
                }
                _ => {}
            }
        }
    }

    pub(super) fn passes(&mut self, time: Duration) {
        self.now += time;
        self.tell(Event::Woke);
    }

    /// A client sends a request.
    pub(super) fn ask(&mut self, method: &str, session: &str, body: &str) -> ConnId {
        let (conn, _) = settings::accept(&mut self.shard, self.now);
        let session = match session {
            "" => String::new(),
            id => format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-11-25\r\n"),
        };
        let mut bytes = format!(
            "{method} /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{session}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
        self.tell(Event::Received { conn, bytes: &mut bytes });
        conn
    }

    pub(super) fn post(&mut self, session: &str, body: &str) -> ConnId {
        self.ask("POST", session, body)
    }

    /// A client of the predecessor sends a message, always with the same token.
    pub(super) fn post_enveloped(&mut self, message: &str) -> ConnId {
        let (conn, _) = settings::accept(&mut self.shard, self.now);
        let mut bytes = format!(
            "POST /api/v1/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             authorization: Bearer t\r\ncontent-length: {}\r\n\r\n{message}",
            message.len()
        )
        .into_bytes();
        self.tell(Event::Received { conn, bytes: &mut bytes });
        conn
    }

    /// A call of the stateless era.
    pub(super) fn ask_modern(&mut self, name: &str) -> ConnId {
        let params = format!(r#""name":"{name}","arguments":{{}}"#);
        self.post_modern(("tools/call", &params), &format!("mcp-name: {name}\r\n"))
    }

    pub(super) fn subscribe(&mut self) -> ConnId {
        self.post_modern(("subscriptions/listen", r#""notifications":{}"#), "")
    }

    fn post_modern(&mut self, (method, params): (&str, &str), headers: &str) -> ConnId {
        let (conn, _) = settings::accept(&mut self.shard, self.now);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":9,"method":"{method}","params":{{{params},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"t","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        let mut bytes = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: {method}\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
        self.tell(Event::Received { conn, bytes: &mut bytes });
        conn
    }

    /// What was written to a connection since the last look.
    pub(super) fn read(&mut self, conn: ConnId) -> String {
        let bytes = self.written.remove(&conn).unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    /// The connection that is being dialled to that place.
    #[track_caller]
    pub(super) fn dialled(&self, place: u8) -> ConnId {
        let mut dialled = self.conns.iter().filter(|(_, at, is_there)| *at == place && !is_there);
        dialled.next().map_or_else(|| panic!("{:?}", self.conns), |(conn, ..)| *conn)
    }

    #[track_caller]
    pub(super) fn connect(&mut self, place: u8) -> ConnId {
        let conn = self.dialled(place);
        self.conns.iter_mut().filter(|(it, ..)| *it == conn).for_each(|it| it.2 = true);
        self.tell(Event::Connected { conn });
        conn
    }

    /// Nobody is there.
    #[track_caller]
    pub(super) fn refuse(&mut self, place: u8) {
        let conn = self.dialled(place);
        self.tell(Event::Broken { conn });
    }

    /// All connections to a place that lead there end.
    pub(super) fn hang_up(&mut self, place: u8) {
        let all: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, at, is_there)| *at == place && *is_there)
            .map(|(conn, ..)| *conn)
            .collect();
        all.into_iter().for_each(|conn| self.tell(Event::Ended { conn }));
    }

    /// The connection to that place on which this came, as soon as one that is dialled is there.
    #[track_caller]
    pub(super) fn dials(&mut self, place: u8, text: &str) -> ConnId {
        if self.found(text).is_none() {
            self.connect(place);
        }
        let found = self.find(text);
        assert!(self.conns.iter().any(|(conn, at, _)| (*conn, *at) == (found, place)));
        found
    }

    /// The connection on which something came with this in it.
    #[track_caller]
    pub(super) fn find(&self, text: &str) -> ConnId {
        self.found(text).unwrap_or_else(|| panic!("no {text}"))
    }

    pub(super) fn found(&self, text: &str) -> Option<ConnId> {
        let is_it = |conn: &ConnId| {
            let written = self.written.get(conn).map(|it| String::from_utf8_lossy(it));
            written.is_some_and(|written| written.contains(text))
        };
        self.conns.iter().map(|(conn, ..)| *conn).find(is_it)
    }

    /// A server says something about what it was sent.
    pub(super) fn say(&mut self, conn: ConnId, text: &str) {
        self.written.remove(&conn);
        self.say_more(conn, text);
    }

    pub(super) fn say_more(&mut self, conn: ConnId, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        self.tell(Event::Received { conn, bytes: &mut bytes });
    }

    pub(super) fn answer(&mut self, conn: ConnId, status: &str, body: &str) {
        let len = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json");
        self.say(conn, &format!("{head}\r\ncontent-length: {len}\r\n\r\n{body}"));
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.answer(conn, "404 Not Found", "");
    }

    /// A call, on a new connection, finds that the first endpoint does not know the session. The
    /// client's connection.
    #[track_caller]
    pub(super) fn loses(&mut self, session: &str, (id, name): (u32, &str)) -> ConnId {
        let client = self.post(session, &call(id, name));
        let server = self.connect(1);
        self.forget(server);
        client
    }

    /// Begins an event stream, with one event that has an id.
    pub(super) fn stream(&mut self, conn: ConnId, id: &str) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        self.say(conn, &format!("{head}\r\nid: {id}\r\ndata: {NOTE}\r\n\r\n"));
    }

    /// Answers `initialize` with a session of that id; none if it is empty.
    pub(super) fn welcome(&mut self, conn: ConnId, id: &str) {
        self.welcome_in("2025-11-25", (conn, id));
    }

    fn welcome_in(&mut self, revision: &str, (conn, id): (ConnId, &str)) {
        let named = if id.is_empty() { String::new() } else { format!("\r\nmcp-session-id: {id}") };
        let welcome = WELCOME.replace("2025-11-25", revision);
        self.answer(conn, &format!("200 OK{named}"), &welcome);
    }

    /// A session whose half at that place has that id. Its name.
    pub(super) fn open(&mut self, place: u8, id: &str) -> String {
        self.open_in("2025-11-25", (place, id))
    }

    /// The same in a revision.
    pub(super) fn open_in(&mut self, revision: &str, (place, id): (u8, &str)) -> String {
        let client = self.post("", &INITIALIZE.replace("2025-11-25", revision));
        let server = match self.found("\"initialize\"") {
            Some(idle) => idle,
            None => self.connect(place),
        };
        self.welcome_in(revision, (server, id));
        let name = session_in(&self.read(client));
        self.post(&name, INITIALIZED);
        let server = self.find("notifications/initialized");
        self.answer(server, "202 Accepted", "");
        name
    }

    /// Takes part in a revival: `initialize` with a new id, and what follows it.
    pub(super) fn revive(&mut self, id: &str) {
        let server = self.find("\"initialize\"");
        self.welcome(server, id);
        let server = self.find("notifications/initialized");
        self.answer(server, "202 Accepted", "");
    }
}

/// The session that an answer names.
pub(super) fn session_in(answer: &str) -> String {
    let answer = answer.to_ascii_lowercase();
    let name = answer.split("mcp-session-id: ").nth(1).unwrap_or_else(|| panic!("{answer}"));
    name.get(..32).unwrap().to_owned()
}

pub(super) fn all(endpoints: Vec<Endpoint>) -> Endpoints {
    Endpoints::new(endpoints, Balance::RoundRobin).unwrap()
}

/// A view of one server by HTTP, with a client that has a session and listens.
pub(super) fn united() -> (World, String, ConnId) {
    let target = Target::Http(Transport::Http, all(vec![place(1), place(2)]));
    let mut settings = settings::settings(vec![settings::server(target)]);
    let member = Member {
        server: ServerId(0),
        prefix: Some("x".to_owned()),
        name: "x".to_owned(),
        rules: Rules::default(),
    };
    let view = View {
        members: vec![member],
        separator: "__".to_owned(),
        timeout: Duration::from_secs(5),
        page_len: 100,
    };
    settings.catalog.add_view(None, "all".to_owned(), view);
    let mut world = World::with(settings);
    let session = world.open(1, "s1");
    let client = world.ask("GET", &session, "");
    (world, session, client)
}

/// The member asks something, in answer to a request of the client.
pub(super) fn asks(world: &mut World, session: &str) -> ConnId {
    let client = world.post(session, &call(7, "x__x"));
    let server = world.find("tools/call");
    let ask = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    world.say(server, &format!("{head}\r\ndata: {ask}\r\n\r\n"));
    assert!(world.read(client).contains("roots/list"));
    client
}

/// The messages in the event stream that a client got in chunks.
pub(super) fn events(answer: &str) -> Vec<String> {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut decoder = BodyDecoder::new(Body::Chunked);
    let (mut body, mut parser, mut found) = (body.as_bytes(), EventParser::new(4096), Vec::new());
    loop {
        let part = decoder.decode(body).unwrap();
        let mut data = part.data;
        while let Some(event) = parser.next(&mut data).unwrap() {
            if event.name.is_empty() && event.has_data {
                found.push(String::from_utf8(event.data.to_vec()).unwrap());
            }
        }
        body = &body[part.used..];
        if part.done || part.used == 0 {
            return found;
        }
    }
}
