//! One shard and a WebSocket client, on virtual time: what a test with sockets cannot see.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wire::ws::{Item, Limits, MessageKind, Receiver, Role, write_message, write_ping};

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::origin::Policy;
use crate::ids::{Address, ConnId, EntranceId, Peer, ShardId, Socket};
use crate::limits;
use crate::shard::Shard;
use crate::shard::event::{Action, Event};
use crate::shard::settings::{Identity, Settings};
use crate::upstream::catalog::{Catalog, Command, Isolation, Server, Target, Upkeep};

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
        let command = Command {
            program: "x".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            processes_max: 1,
            tasks_max: 1,
            upkeep: Upkeep { isolation, ..Upkeep::default() },
        };
        let target = Target::Stdio(command);
        let server = Server { name: "x".to_owned(), target, request_timeout: None };
        let settings = Arc::new(Settings {
            catalog: Catalog::new(vec![server]),
            origins: Policy::new(&[], Vec::new(), Vec::new()),
            entrances: vec![Entrance::of(protocol)],
            clients_max: usize::MAX,
            message_len_max: limits::MESSAGE_LEN,
            session_idle_timeout: limits::SESSION_IDLE_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            log: None,
            tls: None,
            epoch: (now, SystemTime::UNIX_EPOCH),
        });
        let identity = Identity { id: ShardId(id), shards: 2, seed: [1; 32] };
        let mut shard = Shard::new(settings, identity, now);
        let address = Address::Ip(([127, 0, 0, 1], 999).into());
        let peer = Peer { address, entrance: EntranceId(0) };
        shard.handle(Event::Accepted { socket: Socket(0), peer }, now);
        let Some(Action::Receive { conn, .. }) = shard.poll() else { panic!("not accepted") };
        let actions = std::iter::from_fn(|| shard.poll()).collect();
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
    assert!(world.closed());
    let Some(Action::Close { rest, .. }) =
        world.actions.into_iter().find(|action| matches!(action, Action::Close { .. }))
    else {
        panic!("not closed")
    };
    let rest: Vec<u8> = rest.into_iter().flatten().collect();
    let text = String::from_utf8(rest).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("HTTP/1.1 503 "), "{text}");
    // At home it is a WebSocket at once.
    let mut world = World::new(Isolation::Shared, 0);
    world.receive(&frame(b"{"));
    let sent = world.sent();
    let end = memchr::memmem::find(&sent, b"\r\n\r\n").unwrap() + 4;
    assert!(items(&sent[end..])[0].contains("Text"), "{sent:?}");
}
