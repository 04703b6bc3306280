//! Links of the TCP binary protocol, version 2 (docs/protocol.md), whichever side is ours: a
//! connection carries many streams, each a conversation of its own, and can be lost without them.
//!
//! A trunk is a link with what belongs to it. A branch is a stream of it: it has a place in the
//! table of connections like a connection of its own, but the driver does not know of it. Its role
//! is that of a channel of a client, or that of a process. What only one side has is in
//! `link_client` and `link_server`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConnection;
use wire::binary::{
    Event, Facts, Limits, Link, LinkId, MessageKind, Reason, Settings, StreamId, code,
};
use wire::rpc;

use crate::backend::tls;
use crate::ids::{ConnId, Peer};
use crate::limits;
use crate::message::Payload;
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
    held: Vec<ConnId>,
    /// Bytes of incomplete messages that count against the shard's `GATHERED_LEN_MAX`.
    gathered: usize,
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

/// Which stream stands in the place of a connection.
#[derive(Debug)]
pub(super) struct Branch {
    name: LinkName,
    stream: StreamId,
    /// Bytes of messages that are dealt with and for which no credit was given back.
    owed: usize,
    /// Bytes that waited on the stream when that was last looked at.
    waited: usize,
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
            is_dirty: false,
            lost_at: None,
            idle_since: None,
            wish: Wish::default(),
        }
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
            partial_len_max: limits::LINK_PARTIAL_LEN_MAX,
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
                    self.channel_lost(conn, "client closed", now);
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

    /// A message on a stream.
    fn branch_says(&mut self, (name, stream): (LinkName, StreamId), payload: Bytes, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        let Some(conn) = trunk.branches.get(&stream).copied() else { return };
        if let Some(link) = trunk.conn.and_then(|conn| self.link_conn_mut(conn)) {
            link.messages += 1;
        }
        let len = payload.len();
        self.current = Some(conn);
        match self.conns.get(conn).map(|entry| &entry.role) {
            Some(Role::Process(id)) => {
                let id = *id;
                self.process_line(id, &payload, now);
            }
            _ => self.channel_message(conn, &Payload::Whole(payload), now),
        }
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let is_paused = entry.is_paused;
        if let Some(branch) = &mut entry.branch {
            branch.owed += len;
        }
        if !is_paused {
            self.branch_pays(conn);
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
            self.link_over(name, "full", now);
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
            }
            self.link_writes(name);
            self.branches_go_on(name, now);
            self.link_rests(name, now);
        }
    }

    /// Moves what a link has to say to the output of its connection, as long as that is short: what
    /// waits in the streams can still be overtaken.
    fn link_writes(&mut self, name: LinkName) {
        while let Some(trunk) = self.links.get_mut(&name)
            && let Some(conn) = trunk.conn
            && let Some(entry) = self.conns.get(conn)
            && entry.output.len() <= limits::OUTPUT_LOW
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
        let is_whole = self.draining.is_none();
        let trunk = self.links.get_mut(&name).filter(|trunk| trunk.conn == Some(conn));
        let has_trunk = trunk.is_some();
        if let Some(trunk) = trunk {
            trunk.conn = None;
            trunk.link.lost();
            trunk.lost_at.get_or_insert(now);
            if trunk.branches.is_empty() || trunk.link.has_ended() || !is_whole {
                self.link_over(name, why, now);
            }
        }
        match name {
            LinkName::Server(server) => self.uplink_lost(server, now),
            LinkName::Client(_) if has_trunk => self.wish_link(name, now + limits::LINK_KEEP_TIME),
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
        let Some(lost_at) = trunk.lost_at.filter(|_| is_granted) else { return };
        let keep = Duration::from_millis(trunk.link.keep_ms().into());
        if lost_at + keep <= now {
            return self.link_over(name, "client closed", now);
        }
        match name {
            LinkName::Client(_) => self.wish_link(name, lost_at + keep),
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
    }

    /// Gives a stream a place in the table of connections.
    pub(super) fn branch_open(
        &mut self,
        role: Role,
        (name, stream): (LinkName, StreamId),
    ) -> Option<ConnId> {
        let conn = self.open(role)?;
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.branch = Some(Branch { name, stream, owed: 0, waited: 0 });
        }
        if let Some(trunk) = self.links.get_mut(&name) {
            trunk.branches.insert(stream, conn);
        }
        Some(conn)
    }

    /// The place of a stream is empty: so the stream is closed, unless the peer has done that.
    pub(super) fn branch_closes(&mut self, branch: &Branch, why: &str) {
        let Branch { name, stream, .. } = *branch;
        let Some(trunk) = self.links.get_mut(&name) else { return };
        if let Some(conn) = trunk.branches.remove(&stream) {
            trunk.held.retain(|other| *other != conn);
        }
        let reason = close_reason(why);
        trunk.link.close(stream, reason, if reason == Reason::DONE { "" } else { why });
        self.link_is_dirty(name);
    }

    fn branch(&self, conn: ConnId) -> Option<&Branch> {
        self.conns.get(conn)?.branch.as_ref()
    }

    fn trunk_of(&mut self, conn: ConnId) -> Option<(&mut Trunk, StreamId)> {
        let Branch { name, stream, .. } = *self.conns.get(conn)?.branch.as_ref()?;
        Some((self.links.get_mut(&name)?, stream))
    }

    /// Sends a message, whatever it is.
    pub(super) fn branch_tells(&mut self, conn: ConnId, message: Vec<u8>) {
        // With our number in it a message may be longer than it came.
        let limits = rpc::Limits { len_max: usize::MAX, ..self.rpc_limits() };
        let Ok(envelope) = rpc::scan(&message, limits) else { return };
        let method = envelope.method.map(|text| text.decode(&message)).unwrap_or_default();
        let name = envelope.name.or(envelope.uri).filter(|_| envelope.method.is_some());
        let name = name.map(|text| text.decode(&message)).unwrap_or_default();
        let (method, name) = (String::from_utf8_lossy(&method), String::from_utf8_lossy(&name));
        let (method, name) = (method.into_owned(), name.into_owned());
        let kind = match envelope.kind {
            rpc::Kind::Request => MessageKind::Request,
            rpc::Kind::Notification => MessageKind::Notification,
            rpc::Kind::Response | rpc::Kind::ErrorResponse => MessageKind::Response,
        };
        self.branch_sends(conn, (kind, Facts { method: &method, name: &name }), message);
    }

    /// Sends an answer.
    pub(super) fn branch_answers(&mut self, conn: ConnId, message: Vec<u8>) {
        let facts = Facts { method: "", name: "" };
        self.branch_sends(conn, (MessageKind::Response, facts), message);
    }

    fn branch_sends(
        &mut self,
        conn: ConnId,
        (kind, facts): (MessageKind, Facts<'_>),
        message: Vec<u8>,
    ) {
        let Some(name) = self.branch(conn).map(|branch| branch.name) else { return };
        let Some((trunk, stream)) = self.trunk_of(conn) else { return };
        let is_taken = trunk.link.send(stream, kind, facts, Cow::Owned(message)).is_ok();
        self.counters.dropped += u64::from(!is_taken);
        self.link_is_dirty(name);
    }

    /// Whether the peer of a stream takes a message of so many bytes.
    pub(super) fn branch_fits(&mut self, conn: ConnId, len: usize) -> bool {
        self.trunk_of(conn).is_none_or(|(trunk, _)| trunk.link.fits(len))
    }

    /// Bytes that wait on a stream for its peer to take them.
    pub(super) fn branch_waiting(&self, conn: ConnId) -> usize {
        let Some(branch) = self.branch(conn) else { return 0 };
        self.links.get(&branch.name).map_or(0, |trunk| trunk.link.waiting_len(branch.stream))
    }

    /// Gives the credit back for what was dealt with.
    pub(super) fn branch_pays(&mut self, conn: ConnId) {
        let Some(branch) = self.conns.get_mut(conn).and_then(|entry| entry.branch.as_mut()) else {
            return;
        };
        let (name, stream, owed) = (branch.name, branch.stream, std::mem::take(&mut branch.owed));
        if owed != 0
            && let Some(trunk) = self.links.get_mut(&name)
        {
            trunk.link.release(stream, owed);
            self.link_is_dirty(name);
        }
    }

    /// The peer does not take what a stream has for it as it comes.
    pub(super) fn branch_holds(&mut self, conn: ConnId) {
        if let Some((trunk, _)) = self.trunk_of(conn)
            && !trunk.held.contains(&conn)
        {
            trunk.held.push(conn);
        }
    }

    /// Streams of which the peer has taken what waited: what feeds them goes on.
    fn branches_go_on(&mut self, name: LinkName, now: Instant) {
        let Some(trunk) = self.links.get_mut(&name) else { return };
        for conn in std::mem::take(&mut trunk.held) {
            let waiting = self.branch_waiting(conn);
            let Some(entry) = self.conns.get_mut(conn) else { continue };
            let Some(branch) = &mut entry.branch else { continue };
            let before = std::mem::replace(&mut branch.waited, waiting);
            if limits::OUTPUT_LOW < waiting {
                if waiting < before {
                    entry.stalled_since = Some(now);
                }
                self.branch_holds(conn);
                continue;
            }
            entry.stalled_since = None;
            if std::mem::take(&mut entry.holds_producer) {
                self.release_producer(conn, now);
            }
        }
    }

    /// Has the peer of a stream taken nothing for too long?
    pub(super) fn branch_tick(&mut self, conn: ConnId, now: Instant) {
        let Some(since) = self.conns.get(conn).and_then(|entry| entry.stalled_since) else {
            return;
        };
        if since + limits::SEND_TIMEOUT <= now {
            self.channel_lost(conn, "reads too slowly", now);
        } else {
            self.wish_conn(conn, since + limits::SEND_TIMEOUT);
        }
    }
}

/// The reason of CLOSE for a reason of the log.
fn close_reason(why: &str) -> Reason {
    match why {
        "draining" => Reason::DRAINING,
        "full" | "reads too slowly" => Reason::OVERLOADED,
        "fault" => Reason::INTERNAL,
        // Its session is over, or nobody needs it.
        _ => Reason::DONE,
    }
}
