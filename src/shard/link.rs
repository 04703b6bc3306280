//! Links of the TCP binary protocol, version 2 (docs/protocol.md), whichever side is ours: a
//! connection carries many streams, each a conversation of its own, and can be lost without them.
//!
//! A trunk is a link with what belongs to it, and a branch is a stream of it (`branch`). What only
//! one side has is in `link_client` and `link_server`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConnection;
use wire::binary::{Event, Limits, Link, LinkId, Reason, Settings, StreamId, code};

use crate::backend::tls;
use crate::ids::{ConnId, Peer};
use crate::limits;
use crate::refusal::Refusal;
use crate::shard::event::Action;
use crate::shard::{Role, Shard, Timer};
use crate::timers::Wish;
use crate::upstream::catalog::ServerId;

/// What a link is called here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum LinkName {
    /// That of a client, by its id.
    Client(LinkId),
    /// The only one with a server.
    Server(ServerId),
}

/// A link and what belongs to it. It outlives its connections.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) link: Link,
    /// The connection that carries it now.
    pub(super) conn: Option<ConnId>,
    /// The places of its streams in the table of connections.
    pub(super) branches: BTreeMap<StreamId, ConnId>,
    /// Those whose messages to the peer do not get through as they come.
    pub(super) held: Vec<ConnId>,
    /// Bytes of incomplete messages that count against the shard's `GATHERED_LEN_MAX`.
    gathered: usize,
    /// Bytes that it keeps without a connection, which count against `LINKS_LOST_LEN_MAX`.
    pub(super) kept: usize,
    /// When those are looked for that do not go on.
    pub(super) sweep_at: Option<Instant>,
    /// Whether there may be something to write.
    is_dirty: bool,
    /// Since when it has no connection.
    pub(super) lost_at: Option<Instant>,
    /// Since when it has no stream.
    idle_since: Option<Instant>,
    wish: Wish,
}

/// A connection that carries a link, or is about to.
#[derive(Debug)]
pub(super) struct LinkConn {
    /// Whose it is; a client has to say.
    pub(super) name: Option<LinkName>,
    /// Whether frames of the link pass.
    pub(super) is_up: bool,
    /// The client, if it is one.
    pub(super) peer: Option<Peer>,
    /// What came before frames of the link pass, while it is not complete.
    pub(super) front: Vec<u8>,
    /// TLS, if the URL of the server says so.
    pub(super) tls: Option<Box<ClientConnection>>,
    /// When it last sent or took something.
    pub(super) alive_at: Instant,
    /// When it was asked for a sign of life, while it has not given one.
    pinged_at: Option<Instant>,
    pub(super) opened_at: Instant,
    pub(super) messages: u64,
    pub(super) received: u64,
}

/// An [`Event`] that borrows nothing.
enum Heard {
    Nothing,
    /// The server's WELCOME; whether all streams of before are gone.
    Welcomed {
        is_anew: bool,
    },
    Opened {
        stream: StreamId,
        server: String,
        has_session: bool,
    },
    Message {
        stream: StreamId,
        payload: Bytes,
    },
    Closed {
        stream: StreamId,
        reason: Reason,
        text: String,
    },
    Pong,
    Over(&'static str),
}

impl Heard {
    fn of(event: Event<'_>) -> Self {
        match event {
            Event::Welcomed | Event::Resumed => Self::Welcomed { is_anew: false },
            Event::NotResumed => Self::Welcomed { is_anew: true },
            Event::Opened { stream, open } => Self::Opened {
                stream,
                server: open.server.to_owned(),
                has_session: !open.session.is_empty(),
            },
            Event::Message { stream, payload, .. } => {
                // What its sender says of it is not believed: it is read like any other message.
                let payload = match payload {
                    Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
                    Cow::Owned(bytes) => Bytes::from(bytes),
                };
                Self::Message { stream, payload }
            }
            Event::Closed { stream, reason, text } => {
                Self::Closed { stream, reason, text: text.to_owned() }
            }
            Event::Pong { .. } => Self::Pong,
            Event::Ended { .. } => Self::Over("peer closed"),
            Event::Failed { .. } => Self::Over("bad frame"),
            // Streams that cannot be opened any more say so themselves.
            Event::Writable { .. } | Event::Draining { .. } => Self::Nothing,
        }
    }
}

impl LinkConn {
    pub(super) fn new(name: Option<LinkName>, peer: Option<Peer>, now: Instant) -> Self {
        Self {
            name,
            is_up: false,
            peer,
            front: Vec::new(),
            tls: None,
            alive_at: now,
            pinged_at: None,
            opened_at: now,
            messages: 0,
            received: 0,
        }
    }
}

impl Trunk {
    pub(super) fn new(link: Link, conn: ConnId) -> Self {
        Self {
            link,
            conn: Some(conn),
            branches: BTreeMap::new(),
            held: Vec::new(),
            gathered: 0,
            kept: 0,
            sweep_at: None,
            is_dirty: false,
            lost_at: None,
            idle_since: None,
            wish: Wish::default(),
        }
    }

    /// How long the side that is the server keeps the link, if that is without a connection.
    pub(super) fn kept_until(&self) -> Option<Instant> {
        self.lost_at.map(|lost_at| lost_at + Duration::from_millis(self.link.keep_ms().into()))
    }
}

impl Shard {
    /// What this side of a link asks of the other.
    pub(super) fn link_settings(&self) -> Settings {
        let message_len_max = self.settings.message_len_max;
        Settings {
            limits: Limits {
                window: limits::LINK_WINDOW,
                frame_len_max: limits::LINK_FRAME_LEN_MAX,
                message_len_max: u32::try_from(message_len_max).unwrap_or(1 << 30),
                streams_max: limits::LINK_STREAMS_MAX,
                replay_len_max: limits::LINK_REPLAY_LEN_MAX,
            },
            keep_ms: u32::try_from(limits::LINK_KEEP_TIME.as_millis()).unwrap_or(u32::MAX),
            // Whoever writes looks at how much waits, as for any connection.
            queue_len_max: usize::MAX,
            queues_len_max: limits::LINK_QUEUES_LEN_MAX,
            partial_len_max: limits::LINK_PARTIAL_LEN_MAX,
            partials_len_max: limits::LINK_PARTIALS_LEN_MAX,
        }
    }

    pub(super) fn link_conn_mut(&mut self, conn: ConnId) -> Option<&mut LinkConn> {
        match &mut self.conns.get_mut(conn)?.role {
            Role::Link(link) => Some(link),
            Role::Client(_) | Role::Channel(_) | Role::Server(_) | Role::Process(_) => None,
        }
    }

    /// Bytes of a connection that carries a link.
    pub(super) fn link_received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        link.alive_at = now;
        link.received += bytes.len() as u64;
        if link.peer.is_some() {
            self.counters.received_bytes += bytes.len() as u64;
            return self.link_takes(conn, bytes, now);
        }
        let Some(tls) = &mut link.tls else { return self.link_takes(conn, bytes, now) };
        let (plain, is_fine) = tls::open(tls, bytes);
        // What TLS itself has to say.
        self.link_sends(conn, Vec::new());
        self.link_takes(conn, &plain, now);
        if !is_fine {
            self.link_conn_lost(conn, "bad TLS", now);
        }
    }

    /// Serves bytes that have been counted.
    pub(super) fn link_takes(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        match link.name {
            Some(name) if link.is_up => self.link_frames(name, bytes, now),
            Some(LinkName::Server(server)) => {
                link.front.extend_from_slice(bytes);
                self.uplink_agrees(conn, server, now);
            }
            Some(LinkName::Client(_)) | None => {
                link.front.extend_from_slice(bytes);
                self.link_greeted(conn, now);
            }
        }
    }

    /// Frames of a link.
    pub(super) fn link_frames(&mut self, name: LinkName, bytes: &[u8], now: Instant) {
        let mut rest = bytes;
        while let Some(trunk) = self.links.get_mut(&name)
            && let Some(event) = trunk.link.receive(&mut rest)
        {
            let heard = Heard::of(event);
            self.link_heard(name, heard, now);
        }
        self.link_gathers(name, now);
        self.link_is_dirty(name);
    }

    fn link_heard(&mut self, name: LinkName, heard: Heard, now: Instant) {
        match heard {
            Heard::Nothing => {}
            Heard::Welcomed { is_anew } => {
                if let LinkName::Server(server) = name {
                    self.uplink_welcomed(server, is_anew, now);
                }
            }
            Heard::Opened { stream, server, has_session } => {
                self.branch_opened((name, stream), &server, has_session, now);
            }
            Heard::Message { stream, payload } => self.branch_says((name, stream), payload, now),
            Heard::Closed { stream, reason, text } => {
                let trunk = self.links.get_mut(&name);
                let Some(conn) = trunk.and_then(|trunk| trunk.branches.remove(&stream)) else {
                    return;
                };
                if let Some(Role::Process(id)) = self.conns.get(conn).map(|entry| &entry.role) {
                    let id = *id;
                    self.uplink_closed(id, reason, &text, now);
                } else {
                    let is_full = reason == Reason::OVERLOADED;
                    self.channel_lost(conn, if is_full { "full" } else { "client closed" }, now);
                }
            }
            Heard::Pong => {
                let conn = self.links.get(&name).and_then(|trunk| trunk.conn);
                if let Some(link) = conn.and_then(|conn| self.link_conn_mut(conn)) {
                    link.pinged_at = None;
                }
            }
            Heard::Over(why) => self.link_over(name, why, now),
        }
    }

    /// Incomplete messages count.
    fn link_gathers(&mut self, name: LinkName, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let gathered = trunk.link.gathered_len();
        let before = std::mem::replace(&mut trunk.gathered, gathered);
        self.counters.gathered += gathered as u64;
        self.counters.gathered -= before as u64;
        if (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered {
            trunk.link.end(code::OVERLOADED, "too many messages are incomplete");
            return self.link_over(name, "full", now);
        }
        if gathered != 0
            && trunk.sweep_at.is_none()
            && let Some(conn) = trunk.conn
        {
            trunk.sweep_at = Some(now + limits::BODY_TIMEOUT);
            self.wish_conn(conn, now + limits::BODY_TIMEOUT);
        }
    }

    /// Lets a link write before this event is over.
    pub(super) fn link_is_dirty(&mut self, name: LinkName) {
        if let Some(trunk) = self.links.get_mut(&name)
            && !std::mem::replace(&mut trunk.is_dirty, true)
        {
            self.dirty_links.push(name);
        }
    }

    /// All links write that have something to write.
    pub(super) fn links_flush(&mut self, now: Instant) {
        while let Some(name) = self.dirty_links.pop() {
            if let Some(trunk) = self.links.get_mut(&name) {
                trunk.is_dirty = false;
                self.current = trunk.conn;
            }
            self.link_writes(name);
            self.branches_go_on(name, now);
            self.link_rests(name, now);
            self.link_weighs(name, now);
        }
    }

    /// Moves what a link has to say to the output of its connection, as long as that is short: what
    /// waits in the streams can still be overtaken. A link that has ended has little left to say.
    fn link_writes(&mut self, name: LinkName) {
        while let Some(trunk) = self.links.get_mut(&name)
            && let Some(conn) = trunk.conn
            && let Some(entry) = self.conns.get(conn)
            && (entry.output.len() <= limits::OUTPUT_LOW || trunk.link.has_ended())
        {
            let mut bytes = Vec::new();
            trunk.link.write_to(&mut bytes);
            if bytes.is_empty() {
                return;
            }
            self.link_sends(conn, bytes);
        }
    }

    /// Sends plain bytes, through TLS if that is how the server is reached.
    pub(super) fn link_sends(&mut self, conn: ConnId, plain: Vec<u8>) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        let bytes = match &mut link.tls {
            None => plain,
            Some(tls) => {
                let mut records = Vec::new();
                tls::seal(tls, &plain, &mut records);
                records
            }
        };
        self.write(conn, |output| output.push_whole(Bytes::from(bytes)));
    }

    /// Some of the output of a connection was sent that had to wait.
    pub(super) fn link_sent(&mut self, conn: ConnId, now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        link.alive_at = now;
        if let Some(name) = link.name {
            self.link_is_dirty(name);
        }
    }

    /// Says goodbye on a link that nobody needs: the gateway is being stopped, or the server was
    /// not needed for a while.
    fn link_rests(&mut self, name: LinkName, now: Instant) {
        let is_draining = self.draining.is_some();
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let is_empty = trunk.branches.is_empty() && trunk.link.streams_count() == 0;
        if !is_empty {
            trunk.idle_since = None;
            return;
        }
        let (conn, since) = (trunk.conn, *trunk.idle_since.get_or_insert(now));
        let is_unused =
            matches!(name, LinkName::Server(_)) && since + limits::SERVER_IDLE_TIMEOUT <= now;
        let is_written = trunk.link.output().iter().all(|bytes| bytes.is_empty());
        if is_draining && is_written || is_unused {
            trunk.link.end(code::DONE, "");
            return self.link_over(name, if is_draining { "draining" } else { "idle" }, now);
        }
        if let (Some(conn), LinkName::Server(_)) = (conn, name) {
            self.wish_conn(conn, since + limits::SERVER_IDLE_TIMEOUT);
        }
    }

    /// A link has ended, with all its streams. What it still has to say is said.
    pub(super) fn link_over(&mut self, name: LinkName, why: &'static str, now: Instant) {
        self.link_writes(name);
        let Some(trunk) = self.links.remove(&name) else { return };
        self.counters.gathered -= trunk.gathered as u64;
        self.lost_len -= trunk.kept;
        if let Some(lost_at) = trunk.lost_at {
            self.lost_links.remove(&(lost_at, name));
        }
        if let Some(conn) = trunk.conn {
            self.link_conn_close(conn, why, now);
        }
        for conn in trunk.branches.into_values() {
            if let Some(Role::Process(id)) = self.conns.get(conn).map(|entry| &entry.role) {
                let id = *id;
                self.report_process(id, "its link was lost", now);
                self.process_ended(id, Refusal::Died, now);
            } else {
                self.channel_lost(conn, why, now);
            }
        }
        if let LinkName::Server(server) = name {
            self.uplink_gives_up(server, "its link was lost", now);
        }
    }

    /// Closes a connection behind what is in its output. Its link may go on with another.
    pub(super) fn link_conn_close(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        self.report_closed(conn, why, now);
        let Some(mut entry) = self.conns.remove(conn) else { return };
        let Role::Link(link) = entry.role else { return };
        match link.peer {
            Some(_) => self.counters.clients -= 1,
            None => self.counters.server_conns -= 1,
        }
        self.actions.push_back(Action::Close { conn, rest: entry.output.take() });
    }

    /// A connection broke, or its peer must be taken to be gone: the link may be resumed.
    pub(super) fn link_conn_lost(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        let name = link.name;
        if let Some(entry) = self.conns.get_mut(conn) {
            let _unsent = entry.output.take();
        }
        self.link_conn_close(conn, why, now);
        let Some(name) = name else { return };
        // While the gateway is being stopped, no client is let in that could come back.
        let is_whole = self.draining.is_none() || matches!(name, LinkName::Server(_));
        let trunk = self.links.get_mut(&name).filter(|trunk| trunk.conn == Some(conn));
        let has_trunk = trunk.is_some();
        if let Some(trunk) = trunk {
            trunk.conn = None;
            // Nothing can go on meanwhile.
            trunk.sweep_at = None;
            trunk.link.lost();
            trunk.lost_at.get_or_insert(now);
            // Streams of a client may have been on their way.
            let is_empty = trunk.branches.is_empty() && matches!(name, LinkName::Server(_));
            if is_empty || trunk.link.has_ended() || !is_whole {
                self.link_over(name, why, now);
            }
        }
        match name {
            LinkName::Server(server) => self.uplink_lost(server, now),
            LinkName::Client(_) if has_trunk => self.link_kept(name, now),
            LinkName::Client(_) => {}
        }
    }

    pub(super) fn wish_link(&mut self, name: LinkName, at: Instant) {
        if let Some(trunk) = self.links.get_mut(&name) {
            self.timers.wish(Timer::Link(name), &mut trunk.wish, at);
        }
    }

    /// The time of a link without a connection has come.
    pub(super) fn link_tick(&mut self, name: LinkName, at: Instant, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let is_granted = trunk.wish.grant(at);
        let Some(kept_until) = trunk.kept_until().filter(|_| is_granted) else { return };
        if kept_until <= now {
            return self.link_over(name, "client closed", now);
        }
        match name {
            LinkName::Client(_) => self.wish_link(name, kept_until),
            LinkName::Server(server) => self.uplink_step(server, now),
        }
    }

    /// Looks whether the peer of a connection is still there: after a silence it is asked, after
    /// another it is gone.
    pub(super) fn link_conn_tick(&mut self, conn: ConnId, now: Instant) {
        let interval = self.settings.ping_interval;
        let Some(link) = self.link_conn_mut(conn) else { return };
        let silence = now.saturating_duration_since(link.alive_at);
        let (alive_at, pinged_at) = (link.alive_at, link.pinged_at);
        let Some(name) = link.name.filter(|_| link.is_up) else {
            let since = link.opened_at;
            return match since + limits::HEAD_TIMEOUT <= now {
                true if link.peer.is_some() => {
                    self.link_refuses(conn, (code::TIMED_OUT, "no HELLO in time"), now);
                }
                true => self.link_conn_lost(conn, "idle", now),
                false => self.wish_conn(conn, since + limits::HEAD_TIMEOUT),
            };
        };
        if interval * 2 <= silence {
            return self.link_conn_lost(conn, "does not answer pings", now);
        }
        let is_silent = interval <= silence;
        if is_silent
            && pinged_at.is_none()
            && let Some(trunk) = self.links.get_mut(&name)
        {
            trunk.link.ping(*b"are you?");
            if let Some(link) = self.link_conn_mut(conn) {
                link.pinged_at = Some(now);
            }
        }
        self.link_is_dirty(name);
        self.wish_conn(conn, alive_at + interval * if is_silent { 2 } else { 1 });
        if let Some(trunk) = self.links.get_mut(&name)
            && let Some(at) = trunk.sweep_at
        {
            if now < at {
                return self.wish_conn(conn, at);
            }
            trunk.sweep_at = None;
            trunk.link.sweep();
            self.link_frames(name, &[], now);
        }
    }
}
