//! One shard and a WebSocket client, on virtual time: what a test with sockets cannot see.

use std::time::{Duration, Instant};

use wire::ws::{Item, Limits, MessageKind, Receiver, Role, write_message, write_ping};

use super::settings::{accept, command, server, settings, shard};
use crate::admission::entrance::{Entrance, Protocol};
use crate::ids::{ConnId, ShardId};
use crate::limits;
use crate::shard::Shard;
use crate::shard::event::{Action, Event};
use crate::upstream::catalog::{Isolation, Target};

const HANDSHAKE: &str = "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

pub(super) struct World {
    shard: Shard,
    pub(super) now: Instant,
    conn: ConnId,
    actions: Vec<Action>,
}

impl World {
    /// A shard of two, and a client of the server of this isolation, which lives at shard 0.
    fn new(isolation: Isolation, id: u16) -> Self {
        Self::entering(Protocol::Http, isolation, id)
    }

    /// The same for a client that speaks this.
    pub(super) fn entering(protocol: Protocol, isolation: Isolation, id: u16) -> Self {
        let now = Instant::now();
        let server = server(Target::Stdio(command(isolation)));
        let mut settings = settings(vec![server]);
        settings.entrances = vec![Entrance::of(protocol)];
        let mut shard = shard(settings, id, 2, now);
        let (conn, actions) = accept(&mut shard, now);
        Self { shard, now, conn, actions }
    }

    fn handle(&mut self, event: Event<'_>) {
        self.shard.handle(event, self.now);
        self.actions.extend(std::iter::from_fn(|| self.shard.poll()));
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(limits::RECV_LEN) {
            self.handle(Event::Received { conn: self.conn, bytes: &mut part.to_vec() });
        }
    }

    /// Lets time pass, and the shard wake when it wants to.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.actions.iter().rev().find_map(|action| match action {
                Action::Arm { deadline } => Some(*deadline),
                _ => None,
            });
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.actions.retain(|action| !matches!(action, Action::Arm { .. }));
            self.now = next.max(self.now);
            self.handle(Event::Woke);
        }
        self.now = end;
    }

    fn unsent(&mut self) -> usize {
        self.shard.output(self.conn).map_or(0, |output| output.len())
    }

    /// Sends everything.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        let Some(output) = self.shard.output(self.conn) else { return Vec::new() };
        let bytes: Vec<u8> = output.take().into_iter().flatten().collect();
        self.handle(Event::Sent { conn: self.conn });
        bytes
    }

    fn open(&mut self) {
        self.receive(HANDSHAKE.as_bytes());
        assert!(self.sent().starts_with(b"HTTP/1.1 101 "));
    }

    /// What is sent before the connection is closed, which it has to be.
    fn rest(&mut self) -> Vec<u8> {
        let actions = std::mem::take(&mut self.actions).into_iter();
        let mut rests = actions.filter_map(|action| match action {
            Action::Close { rest, .. } => Some(rest.into_iter().flatten().collect()),
            _ => None,
        });
        rests.next().expect("not closed")
    }

    pub(super) fn closed(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Close { .. }))
    }
}

/// The items in what a server sent.
fn items(bytes: &[u8]) -> Vec<String> {
    let limits = Limits { message_len_max: 1 << 20, frames_max: 1 };
    let mut receiver = Receiver::new(Role::Client, limits, None);
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    let mut items = Vec::new();
    while let Some(item) = receiver.next(&mut input).unwrap() {
        items.push(match item {
            Item::Ping(_) => "ping".to_owned(),
            Item::Pong(payload) => format!("pong {}", String::from_utf8_lossy(&payload).trim()),
            other => format!("{other:?}"),
        });
    }
    items
}

#[test]
fn who_is_silent_is_pinged_once_and_then_gone() {
    let mut world = World::new(Isolation::Session, 0);
    world.open();
    world.wait(Duration::from_secs(29));
    assert_eq!(world.unsent(), 0);
    world.wait(Duration::from_secs(2));
    assert_eq!(items(&world.sent()), ["ping"]);
    // To have taken it is a sign of life, too.
    world.wait(Duration::from_secs(28));
    assert_eq!(world.unsent(), 0);
    world.wait(Duration::from_secs(3));
    assert_eq!(items(&world.sent()), ["ping"]);
    // A pong, and silence again; the next ping is not taken.
    world.receive(&[0x8a, 0x80, 0, 0, 0, 0]);
    world.wait(Duration::from_secs(59));
    assert!(!world.closed());
    world.wait(Duration::from_secs(2));
    assert!(world.closed());
}

/// In the moment of the ping, even.
#[test]
fn who_answers_at_once_is_pinged_again() {
    let mut world = World::new(Isolation::Session, 0);
    world.open();
    for _ in 0..5 {
        world.wait(limits::PING_INTERVAL);
        assert_eq!(items(&world.sent()), ["ping"]);
        world.receive(&[0x8a, 0x80, 0, 0, 0, 0]);
    }
    assert!(!world.closed());
}

#[test]
fn who_does_not_finish_a_message_is_told_and_closed() {
    let mut world = World::new(Isolation::Session, 0);
    world.open();
    // The head of a text of 10 MiB and its first byte; then a byte of it now and then.
    world.receive(&[0x81, 0xff, 0, 0, 0, 0, 0, 0xa0, 0, 0, 1, 2, 3, 4, b'{' ^ 1]);
    for _ in 0..3 {
        world.wait(limits::BODY_TIMEOUT - Duration::from_secs(1));
        assert!(!world.closed() && items(&world.sent()).iter().all(|item| item == "ping"));
        world.receive(b" ");
    }
    world.wait(limits::BODY_TIMEOUT + Duration::from_secs(1));
    let told = items(&world.rest());
    assert!(told.iter().any(|item| item.contains("1008")), "{told:?}");
    assert_eq!(world.shard.counters().gathered, 0);
}

#[test]
fn pings_that_come_while_much_is_unsent_share_one_pong() {
    let mut world = World::new(Isolation::Session, 0);
    world.open();
    let mut pings = Vec::new();
    for number in 0..100_000 {
        write_ping(&mut pings, format!("{number:>100}").as_bytes(), KEY);
    }
    world.receive(&pings);
    assert!(world.unsent() < limits::OUTPUT_LOW + 200, "{}", world.unsent());
    let first = items(&world.sent());
    assert_eq!((first[0].as_str(), first[1].as_str()), ("pong 0", "pong 1"));
    assert_eq!(items(&world.sent()), ["pong 99999"]);
}

#[test]
fn a_connection_moves_before_it_is_upgraded_but_not_with_unsent_bytes() {
    let frame = |text: &[u8]| {
        let mut frame = HANDSHAKE.as_bytes().to_vec();
        write_message(&mut frame, None, MessageKind::Text, text, KEY);
        frame
    };
    let mut world = World::new(Isolation::Shared, 1);
    let bytes = frame(b"{}");
    world.receive(&bytes);
    let moved = world.actions.iter().find_map(|action| match action {
        Action::Move { to, bytes, .. } => Some((*to, bytes.clone())),
        _ => None,
    });
    assert_eq!(moved, Some((ShardId(0), bytes)));
    // Behind a request whose answer is not sent.
    let mut world = World::new(Isolation::Shared, 1);
    let first = "GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    world.receive(&[first.as_bytes(), &frame(b"{}")].concat());
    let text = String::from_utf8(world.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("HTTP/1.1 503 "), "{text}");
    // At home it is a WebSocket at once.
    let mut world = World::new(Isolation::Shared, 0);
    world.receive(&frame(b"{"));
    let sent = world.sent();
    let end = memchr::memmem::find(&sent, b"\r\n\r\n").unwrap() + 4;
    assert!(items(&sent[end..])[0].contains("Text"), "{sent:?}");
}
