//! Servers by HTTP with one endpoint or several, each of whose words is in the test: what becomes
//! of sessions and requests if they are lost, moved or cancelled at the worst moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::admission::entrance::{Entrance, Protocol};
use crate::ids::{ConnId, Ticket};
use crate::limits;
use crate::shard::Shard;
use crate::shard::event::{Action, Answer, Event, Question};
use crate::shard::settings::Settings;
use crate::tests::settings;
use crate::upstream::catalog::{Balance, Endpoint, Endpoints, Target, Transport};

pub(super) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(super) const CANCELLED: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
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
    written: HashMap<ConnId, Vec<u8>>,
    asked: Vec<(Ticket, String)>,
}

pub(super) fn place(number: u8) -> Endpoint {
    Endpoint { conns_max: 4, ..settings::endpoint(&format!("127.0.0.{number}")) }
}

impl World {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        Self::of(Target::Http(Transport::Http, all(endpoints)))
    }

    fn of(target: Target) -> Self {
        let settings = settings::settings(vec![settings::server(target)]);
        Self::with(Settings { entrances: vec![Entrance::of(Protocol::Http)], ..settings })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let shard = settings::shard(settings, 0, 1, now);
        let (conns, asked) = (Vec::new(), Vec::new());
        Self { shard, now, conns, written: HashMap::new(), asked }
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

    /// A request of the stateless era.
    fn ask_modern(&mut self, name: &str) -> ConnId {
        let (conn, _) = settings::accept(&mut self.shard, self.now);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"{name}","arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"t","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        let mut bytes = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: tools/call\r\nmcp-name: {name}\r\ncontent-length: {}\r\n\r\n{body}",
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
    fn dialled(&self, place: u8) -> ConnId {
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
    fn hang_up(&mut self, place: u8) {
        let all: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, at, is_there)| *at == place && *is_there)
            .map(|(conn, ..)| *conn)
            .collect();
        all.into_iter().for_each(|conn| self.tell(Event::Ended { conn }));
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

    /// A server says something.
    pub(super) fn say(&mut self, conn: ConnId, text: &str) {
        self.written.remove(&conn);
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

    /// Begins an event stream, with one event that has an id.
    fn stream(&mut self, conn: ConnId, id: &str) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
        self.say(conn, &format!("{head}\r\nid: {id}\r\ndata: {note}\r\n\r\n"));
    }

    /// Answers `initialize` with a session of that id; none if it is empty.
    pub(super) fn welcome(&mut self, conn: ConnId, id: &str) {
        let named = if id.is_empty() { String::new() } else { format!("\r\nmcp-session-id: {id}") };
        self.answer(conn, &format!("200 OK{named}"), WELCOME);
    }

    /// A session whose half at that place has that id. Its name.
    pub(super) fn open(&mut self, place: u8, id: &str) -> String {
        let client = self.post("", INITIALIZE);
        let server = match self.found("\"initialize\"") {
            Some(idle) => idle,
            None => self.connect(place),
        };
        self.welcome(server, id);
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

#[test]
fn a_stream_that_a_newer_session_has_overtaken_does_not_end_that() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open(1, "s1");
    world.ask("GET", &session, "");
    let stream = world.find("GET ");
    // While it is asked for, a request finds that the session is gone; and once more.
    world.post(&session, &call(2, "a"));
    let lost = world.connect(1);
    world.forget(lost);
    world.revive("s2");
    let done = world.find("\"a\"");
    world.answer(done, "200 OK", &result(2, "a"));
    world.forget(stream);
    let stream = world.find("GET ");
    assert!(world.read(stream).contains("mcp-session-id: s2"));
    world.post(&session, &call(3, "b"));
    let lost = world.find("\"b\"");
    world.forget(lost);
    world.revive("s3");
    let done = world.find("\"b\"");
    world.answer(done, "200 OK", &result(3, "b"));
    world.forget(stream);
    let stream = world.find("GET ");
    assert!(world.read(stream).contains("mcp-session-id: s3"));
    // But to be refused the newest is to be refused for good.
    world.forget(stream);
    assert_eq!(world.shard.counters().sessions, 0);
}

#[test]
fn who_goes_another_way_leaves_the_connection_to_the_next() {
    let mut world = World::new(vec![Endpoint { conns_max: 1, ..place(1) }]);
    let (one, other) = (world.open(1, "s1"), world.open(1, "t1"));
    for number in [2, 3, 4] {
        world.post(&one, &call(number, &format!("a{number}")));
    }
    let client = world.post(&other, &call(5, "b"));
    // The first and the second are refused; the third waits for the session, not for a connection.
    let server = world.find("\"a2\"");
    world.forget(server);
    world.find("\"a3\"");
    world.forget(server);
    world.find("\"b\"");
    world.answer(server, "200 OK", &result(5, "b"));
    assert!(world.read(client).contains("\"said\":\"b\""));
    world.find("\"initialize\"");
}

#[test]
fn an_answer_that_is_to_be_gone_on_with_ends_with_its_session() {
    for is_due in [false, true] {
        let mut world = World::new(vec![place(1)]);
        let session = world.open(1, "s1");
        let client = world.post(&session, &call(2, "long"));
        let server = world.find("\"long\"");
        world.stream(server, "e1");
        world.tell(Event::Ended { conn: server });
        if is_due {
            world.passes(limits::RESUME_PAUSE);
            world.connect(1);
            let resumed = world.find("GET ");
            assert!(world.read(resumed).contains("last-event-id: e1"));
            world.forget(resumed);
        } else {
            world.post(&session, &call(3, "x"));
            let lost = world.connect(1);
            world.forget(lost);
        }
        world.revive("s2");
        // The server that is set up again knows nothing of it.
        let get = world.ask("GET", &session, "");
        let _answer = (world.read(client), world.read(get));
        world.passes(limits::RESUME_PAUSE);
        assert_eq!(world.found("last-event-id"), None, "{is_due}");
        assert_eq!(world.shard.counters().in_flight, 1 + u64::from(!is_due), "{is_due}");
    }
}

#[test]
fn an_answer_of_a_session_that_is_gone_is_not_gone_on_with_in_the_next() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open(1, "s1");
    world.post(&session, &call(2, "long"));
    let long = world.find("\"long\"");
    world.post(&session, &call(3, "x"));
    let lost = world.connect(1);
    world.forget(lost);
    world.revive("s2");
    let done = world.find("\"x\"");
    world.answer(done, "200 OK", &result(3, "x"));
    // The server still works on it, until it does not.
    world.stream(long, "e1");
    world.tell(Event::Ended { conn: long });
    world.passes(limits::RESUME_PAUSE);
    assert_eq!(world.found("GET "), None);
    assert_eq!(world.shard.counters().in_flight, 0);
}

#[test]
fn a_stream_ends_with_its_session_and_the_next_begins_at_its_beginning() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open(1, "s1");
    let client = world.ask("GET", &session, "");
    let stream = world.find("GET ");
    world.stream(stream, "e1");
    world.post(&session, &call(2, "x"));
    let lost = world.connect(1);
    world.forget(lost);
    world.revive("s2");
    // The client is told, for nobody would speak to it there any more.
    assert!(world.read(client).ends_with("0\r\n\r\n"));
    world.ask("GET", &session, "");
    let stream = match world.found("GET ") {
        Some(stream) => stream,
        None => world.connect(1),
    };
    let head = world.read(stream);
    assert!(head.contains("mcp-session-id: s2") && !head.contains("last-event-id"), "{head}");
}

#[test]
fn a_session_does_not_move_while_an_answer_is_to_be_gone_on_with() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "s1");
    world.post(&session, &call(2, "long"));
    let server = world.find("\"long\"");
    world.stream(server, "e1");
    world.tell(Event::Ended { conn: server });
    // It is time to ask for the rest, and that is being dialled.
    world.passes(limits::RESUME_PAUSE);
    let client = world.post(&session, &call(3, "x"));
    world.hang_up(1);
    let dials: Vec<ConnId> = world.conns.iter().map(|(conn, ..)| *conn).collect();
    let conn = *dials.last().unwrap();
    world.tell(Event::Broken { conn });
    assert!(world.read(client).contains("server_unreachable"));
    assert!(world.conns.iter().all(|(_, at, _)| *at == 1));
}

#[test]
fn what_is_cancelled_before_it_was_sent_is_sent_nowhere() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "s1");
    world.hang_up(1);
    let client = world.post(&session, &call(7, "x"));
    let dialled = world.dialled(1);
    world.post(&session, CANCELLED);
    assert!(world.read(client).ends_with("0\r\n\r\n"), "its client does not wait");
    assert!(world.conns.iter().all(|(conn, ..)| *conn != dialled));
    // The cancellation finds nobody, and the session moves with it.
    world.refuse(1);
    world.post(&session, &call(8, "y"));
    world.connect(2);
    world.revive("s2");
    world.connect(2);
    world.find("\"y\"");
    assert_eq!(world.found("\"x\""), None);
}

#[test]
fn what_is_cancelled_is_not_sent_again_with_a_new_session() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open(1, "s1");
    let client = world.post(&session, &call(7, "x"));
    let server = world.find("\"x\"");
    world.post(&session, CANCELLED);
    world.connect(1);
    let notice = world.find("notifications/cancelled");
    world.answer(notice, "202 Accepted", "");
    world.forget(server);
    world.revive("s2");
    assert_eq!(world.found("\"x\""), None);
    assert!(world.read(client).ends_with("0\r\n\r\n"));
}

/// The same if the connection breaks, for what could be repeated.
#[test]
fn what_is_cancelled_is_not_repeated() {
    let mut world = World::new(vec![place(1)]);
    let session = world.open(1, "s1");
    world.post(&session, r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    let server = world.find("tools/list");
    world.post(&session, CANCELLED);
    world.tell(Event::Ended { conn: server });
    world.connect(1);
    assert_eq!(world.found("tools/list"), None);
    assert_eq!(world.shard.counters().repeated, 0);
}

#[test]
fn an_endpoint_that_answers_on_old_connections_is_as_good_as_others() {
    let mut world = World::new(vec![place(1), place(2)]);
    for number in [1, 2] {
        world.ask_modern("x");
        let server = world.connect(number);
        world.answer(server, "200 OK", &result(9, "x"));
    }
    // A second connection to the first cannot be had; the request is answered by the other.
    world.ask_modern("busy");
    let busy = world.find("\"busy\"");
    world.ask_modern("y");
    let server = world.find("\"y\"");
    world.answer(server, "200 OK", &result(9, "y"));
    world.ask_modern("z");
    world.refuse(1);
    let server = world.find("\"z\"");
    world.answer(server, "200 OK", &result(9, "z"));
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    // What the old one says meanwhile does not make it better.
    world.answer(busy, "200 OK", &result(9, "busy"));
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    world.passes(limits::ENDPOINT_PAUSE * 2);
    let mut counts = [0, 0];
    for _ in 0..10 {
        world.ask_modern("again");
        let server = world.find("\"again\"");
        let at = world.conns.iter().find(|(conn, ..)| *conn == server).unwrap().1;
        counts[usize::from(at) - 1] += 1;
        world.answer(server, "200 OK", &result(9, "again"));
    }
    assert_eq!((counts, world.shard.counters().endpoints_failing), ([5, 5], 0));
}

#[test]
fn a_session_without_an_id_leaves_nothing_where_it_was() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "");
    let client = world.ask("GET", &session, "");
    let stream = world.find("GET ");
    world.stream(stream, "e1");
    let others: Vec<ConnId> = world.conns.iter().map(|(conn, ..)| *conn).collect();
    for conn in others.into_iter().filter(|conn| *conn != stream) {
        world.tell(Event::Ended { conn });
    }
    world.post(&session, &call(2, "x"));
    world.refuse(1);
    world.connect(2);
    world.find("\"x\"");
    // Its stream is asked for anew, at the new place, from its beginning.
    assert!(world.read(client).ends_with("0\r\n\r\n"));
    world.ask("GET", &session, "");
    world.connect(2);
    let stream = world.find("GET ");
    assert!(!world.read(stream).contains("last-event-id"));
}

#[test]
fn a_session_that_ends_on_its_way_ends_at_both_places() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "s1");
    world.hang_up(1);
    world.post(&session, &call(2, "x"));
    world.refuse(1);
    // The other has begun to answer.
    let server = world.connect(2);
    world.say(server, "HTTP/1.1 200 OK\r\nmcp-session-id: s2\r\ncontent-length: 999\r\n\r\n{");
    world.ask("DELETE", &session, "");
    let mut ended: Vec<&str> = Vec::new();
    for number in [1, 2] {
        let server = world.connect(number);
        let text = world.read(server);
        assert!(text.starts_with("DELETE "), "{text}");
        ended.extend(["s1", "s2"].iter().find(|id| text.contains(&format!("session-id: {id}"))));
    }
    assert_eq!(ended, ["s1", "s2"]);
}

#[test]
fn a_move_that_fails_leaves_nothing_behind() {
    let mut world = World::new(vec![place(1), place(2)]);
    let session = world.open(1, "s1");
    world.hang_up(1);
    let client = world.post(&session, &call(2, "x"));
    world.refuse(1);
    let server = world.connect(2);
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#;
    world.answer(server, "200 OK\r\nmcp-session-id: s2", error);
    assert!(world.read(client).contains("server_unreachable"));
    let server = world.find("DELETE ");
    assert!(world.read(server).contains("session-id: s2"));
    // It is where it was.
    world.passes(limits::ENDPOINT_PAUSE * 2);
    world.post(&session, &call(3, "y"));
    world.connect(1);
    let server = world.find("\"y\"");
    assert!(world.read(server).contains("session-id: s1"));
}

#[test]
fn who_has_ended_while_he_waited_takes_no_place_in_the_queue() {
    let mut world = World::new(vec![Endpoint { conns_max: 1, ..place(1) }]);
    world.ask_modern("first");
    let server = world.connect(1);
    for _ in 0..limits::SERVER_WAITING_MAX {
        let conn = world.ask_modern("gone");
        world.tell(Event::Ended { conn });
    }
    let client = world.ask_modern("second");
    assert_eq!(world.read(client), "");
    world.answer(server, "200 OK", &result(9, "first"));
    world.find("\"second\"");
}

#[test]
fn the_name_of_an_endpoint_that_is_gone_is_looked_up_again_although_others_are_there() {
    let mut world = World::new(vec![settings::endpoint("far"), place(2)]);
    let found = |world: &mut World, number: u8| {
        let (ticket, host) = world.asked.pop().unwrap();
        assert_eq!(host, "far");
        let answer = Answer::Resolved(vec![([127, 0, 0, number], 1).into()]);
        world.tell(Event::Answered { ticket, answer });
    };
    world.ask_modern("x");
    found(&mut world, 1);
    world.refuse(1);
    let server = world.connect(2);
    world.answer(server, "200 OK", &result(9, "x"));
    world.passes(limits::ENDPOINT_PAUSE * 2);
    world.ask_modern("y");
    found(&mut world, 3);
    world.connect(3);
    world.find("\"y\"");
}

#[test]
fn an_endpoint_that_tls_cannot_be_set_up_for_is_one_that_is_gone() {
    let mut world = World::new(vec![Endpoint { tls: true, ..place(1) }, place(2)]);
    world.ask_modern("x");
    world.connect(2);
    world.find("\"x\"");
    assert_eq!(world.shard.counters().endpoints_failing, 1);
    // And if there is no other, it is said.
    let mut world = World::new(vec![Endpoint { tls: true, ..place(1) }]);
    let client = world.ask_modern("x");
    assert!(world.read(client).contains("server_unreachable"));
    // The same by WebSocket.
    let both = vec![Endpoint { tls: true, ..place(1) }, place(2)];
    let mut world = World::of(Target::WebSocket(all(both)));
    world.post("", INITIALIZE);
    world.connect(2);
}

#[test]
fn a_conversation_begins_where_there_is_room() {
    // An event stream leaves a connection for messages, so one has room for none.
    let narrow = |number| Endpoint { conns_max: 1, ..place(number) };
    let ways: [fn(Endpoints) -> Target; 2] =
        [|all| Target::Http(Transport::Sse, all), Target::WebSocket];
    for (way, free) in ways.into_iter().zip([3, 2]) {
        let mut world = World::of(way(all(vec![narrow(1), narrow(2), place(3)])));
        if free == 2 {
            // Two WebSockets: the first endpoint is full when its turn comes again.
            world.post("", INITIALIZE);
            world.post("", INITIALIZE);
            world.post("", INITIALIZE);
            world.connect(1);
            world.post("", INITIALIZE);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 1).count(), 1);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 2).count(), 1);
            assert_eq!(world.conns.iter().filter(|(_, at, _)| *at == 3).count(), 2);
            continue;
        }
        world.post("", INITIALIZE);
        world.connect(3);
    }
    // And if the one that is chosen cannot be connected, those without room are passed over.
    let four = vec![place(1), narrow(2), place(3)];
    let mut world = World::of(Target::Http(Transport::Sse, all(four)));
    world.post("", INITIALIZE);
    world.refuse(1);
    world.connect(3);
}

#[test]
fn a_socket_that_is_over_leaves_room_for_another() {
    let narrow = Endpoint { conns_max: 1, ..place(1) };
    let mut world = World::of(Target::WebSocket(all(vec![narrow])));
    for is_connected in [true, false, true] {
        let client = world.post("", INITIALIZE);
        if is_connected {
            world.connect(1);
            world.hang_up(1);
        } else {
            world.refuse(1);
        }
        assert!(world.read(client).contains("server_unreachable"));
        world.passes(limits::ENDPOINT_PAUSE * 60);
    }
}
