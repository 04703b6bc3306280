//! Servers by the TCP binary protocol, version 2: one link of a shard carries all conversations
//! with a server, each on a stream that stands in the place of a process.
//!
//! ```text
//! process ─► waiting ─► dial ─► offer ─► HELLO ─► OPEN      the connection is lost: dial again,
//!                                                          then HELLO with the id of the link
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand_chacha::rand_core::Rng as _;
use wire::Decoded;
use wire::binary::v1::{Dialect, Frame, Kind, decode_ack, write_offer};
use wire::binary::{self, Link, Open, Reason, SendError};
use wire::rpc;

use crate::backend::stdio::{State, read_number};
use crate::ids::{ConnId, ProcessId, Ticket};
use crate::limits;
use crate::refusal::Refusal;
use crate::shard::event::{Action, Question};
use crate::shard::link::{LinkConn, LinkName, Trunk};
use crate::shard::{Asked, Role, Shard};
use crate::upstream::catalog::{Endpoint, ServerId, Target};
use crate::upstream::restart::pause;

/// How we introduce ourselves.
const AGENT: &str = concat!("mcp-gateway/", env!("CARGO_PKG_VERSION"));

/// Bytes in front of the link: the answer to an offer has some thirty.
const ANSWER_LEN_MAX: usize = 4096;

/// How a shard comes to its link with a server.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// The connection that is being made.
    conn: Option<ConnId>,
    is_resolving: bool,
    /// Conversations that begin when there is a link.
    waiting: Vec<ProcessId>,
    /// Connections in a row of which nothing came.
    attempts: u32,
    /// When the next may be tried.
    redial_at: Option<Instant>,
    /// When the server let us in.
    welcomed_at: Option<Instant>,
}

impl Shard {
    fn uplink_endpoint(&self, server: ServerId) -> Option<&Endpoint> {
        match &self.settings.catalog.get(server)?.target {
            Target::Tcp(endpoints) => Some(&endpoints.first),
            Target::Stdio(_) | Target::Http(..) | Target::WebSocket(_) | Target::View(_) => None,
        }
    }

    fn uplink_mut(&mut self, server: ServerId) -> Option<&mut Uplink> {
        self.pools.get_mut(usize::from(server.0)).map(|pool| &mut pool.uplink)
    }

    /// A conversation begins, as soon as there is a link.
    pub(super) fn uplink_start(&mut self, id: ProcessId, now: Instant) {
        let Some(server) = self.processes.get(&id).map(|process| process.server) else { return };
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.waiting.push(id);
        }
        self.uplink_step(server, now);
    }

    /// A conversation is over, perhaps before it began.
    pub(super) fn uplink_forgets(&mut self, id: ProcessId) {
        let server = self.processes.get(&id).map(|process| process.server);
        if let Some(uplink) = server.and_then(|server| self.uplink_mut(server)) {
            uplink.waiting.retain(|other| *other != id);
        }
    }

    /// Does what is to be done next for the link with a server.
    pub(super) fn uplink_step(&mut self, server: ServerId, now: Instant) {
        let name = LinkName::Server(server);
        let trunk = self.links.get(&name);
        let kept_until = trunk.and_then(Trunk::kept_until);
        let trunk = trunk.map(|trunk| trunk.conn.is_some());
        let Some(uplink) = self.uplink_mut(server) else { return };
        if uplink.is_resolving || uplink.conn.is_some() {
            return;
        }
        match (trunk, uplink.redial_at) {
            (Some(true), _) => self.uplink_opens(server, now),
            (Some(false), Some(at)) if now < at => {
                self.wish_link(name, kept_until.map_or(at, |until| until.min(at)));
            }
            (None, _) if uplink.waiting.is_empty() => {}
            (Some(false) | None, _) => self.uplink_dials(server, now),
        }
    }

    fn uplink_dials(&mut self, server: ServerId, now: Instant) {
        let Some(endpoint) = self.uplink_endpoint(server) else { return };
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.uplink_located(server, Some(vec![SocketAddr::new(ip, port)]), now);
        }
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.is_resolving = true;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.questions.insert(ticket, Asked::Uplink(server));
        self.actions.push_back(Action::Ask { ticket, question: Question::Resolve { host, port } });
    }

    pub(super) fn uplink_located(
        &mut self,
        server: ServerId,
        addrs: Option<Vec<SocketAddr>>,
        now: Instant,
    ) {
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.is_resolving = false;
        }
        let Some(endpoint) = self.uplink_endpoint(server) else { return };
        let Some(addrs) = addrs else {
            return self.uplink_fails(server, "its host has no known address", now);
        };
        let mut link = LinkConn::new(Some(LinkName::Server(server)), None, now);
        if endpoint.tls {
            let Some(tls) = self.tls_client(endpoint) else {
                return self.uplink_fails(server, "TLS cannot be set up", now);
            };
            link.tls = Some(Box::new(tls));
        }
        let Some(conn) = self.open(Role::Link(Box::new(link))) else {
            return self.uplink_fails(server, "there is no room for its connection", now);
        };
        self.counters.dialled += 1;
        self.counters.server_conns += 1;
        self.actions.push_back(Action::Dial { conn, addrs });
        self.wish_conn(conn, now + limits::CONNECT_TIMEOUT);
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.conn = Some(conn);
        }
    }

    /// The connection is there: versions are agreed on first.
    pub(super) fn uplink_connected(&mut self, conn: ConnId) {
        let mut offer = Vec::new();
        write_offer(&mut offer, Dialect::Short, binary::VERSION);
        self.link_sends(conn, offer);
    }

    /// What came in front of all frames: the answer to our offer, once it is complete.
    pub(super) fn uplink_agrees(&mut self, conn: ConnId, server: ServerId, now: Instant) {
        let Some(link) = self.link_conn_mut(conn) else { return };
        let front = std::mem::take(&mut link.front);
        let used = match Frame::decode(&front, Some(Dialect::Short)) {
            Ok(Decoded::Incomplete) if front.len() < ANSWER_LEN_MAX => {
                link.front = front;
                return;
            }
            Ok(Decoded::Item { item, used })
                if item.kind == Kind::VersionAck
                    && decode_ack(item.payload) == Ok(binary::VERSION) =>
            {
                used
            }
            _ => {
                self.uplink_reports(server, "does not speak version 2 of the protocol", now);
                return self.link_conn_lost(conn, "no version in common", now);
            }
        };
        let name = LinkName::Server(server);
        let settings = self.link_settings();
        let begun = match self.links.get_mut(&name) {
            Some(trunk) => {
                trunk.conn = Some(conn);
                trunk.link.reconnect("", AGENT)
            }
            None => Link::connect(settings, "", AGENT).map(|link| {
                self.links.insert(name, Trunk::new(link, conn));
            }),
        };
        debug_assert_eq!(begun, Ok(()), "the names are short, and what has ended is dropped");
        if let Some(link) = self.link_conn_mut(conn) {
            link.is_up = true;
        }
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.conn = None;
        }
        self.wish_conn(conn, now + self.settings.ping_interval);
        self.link_frames(name, front.get(used..).unwrap_or_default(), now);
    }

    /// The server has let us in. If it no longer knew the link, everything on it is lost.
    pub(super) fn uplink_welcomed(&mut self, server: ServerId, is_anew: bool, now: Instant) {
        let Some(trunk) = self.links.get_mut(&LinkName::Server(server)) else { return };
        trunk.lost_at = None;
        let lost = if is_anew { std::mem::take(&mut trunk.branches) } else { Default::default() };
        if let Some(uplink) = self.uplink_mut(server) {
            (uplink.redial_at, uplink.welcomed_at) = (None, Some(now));
        }
        for conn in lost.into_values() {
            if let Some(Role::Process(id)) = self.conns.get(conn).map(|entry| &entry.role) {
                let id = *id;
                self.report_process(id, "its link was lost", now);
                self.process_ended(id, Refusal::Died, now);
            }
        }
        self.uplink_step(server, now);
    }

    /// Opens a stream for each conversation that waits.
    fn uplink_opens(&mut self, server: ServerId, now: Instant) {
        let name = LinkName::Server(server);
        let Some(target) = self.uplink_endpoint(server).map(|it| it.target.clone()) else { return };
        let open = Open { server: target.trim_start_matches('/'), session: "", revision: "" };
        let Some(uplink) = self.uplink_mut(server) else { return };
        for id in std::mem::take(&mut uplink.waiting) {
            let is_starting = self.processes.get(&id).is_some_and(|it| it.state == State::Starting);
            let Some(trunk) = self.links.get_mut(&name).filter(|_| is_starting) else { continue };
            match trunk.link.open(open) {
                Ok(stream) => match self.branch_open(Role::Process(id), (name, stream)) {
                    Some(conn) => self.uplink_opened(id, conn, now),
                    None => {
                        if let Some(trunk) = self.links.get_mut(&name) {
                            trunk.link.close(stream, Reason::OVERLOADED, "");
                        }
                        self.process_refused(id, "there is no room for its stream", now);
                    }
                },
                Err(SendError::NotReady) => {
                    if let Some(uplink) = self.uplink_mut(server) {
                        uplink.waiting.push(id);
                    }
                }
                Err(SendError::NoMoreStreams) => {
                    self.process_refused(id, "the server allows no more streams", now);
                }
                Err(error) => self.process_failed(id, &error.to_string(), now),
            }
        }
        self.link_is_dirty(name);
    }

    fn uplink_opened(&mut self, id: ProcessId, conn: ConnId, now: Instant) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.conn = Some(conn);
        }
        self.process_greets(id, now);
    }

    /// A message has come: the server is worth coming back to.
    pub(super) fn uplink_works(&mut self, server: ServerId) {
        if let Some(uplink) = self.uplink_mut(server) {
            uplink.attempts = 0;
        }
    }

    /// A connection is gone, or could not be had. What is on the link waits while the server keeps
    /// it: the first attempt is made at once, the others after pauses.
    pub(super) fn uplink_lost(&mut self, server: ServerId, now: Instant) {
        let uplink = self.uplink_mut(server);
        let welcomed_at = uplink.and_then(|uplink| uplink.welcomed_at.take());
        if welcomed_at.is_some_and(|at| at + limits::LINK_SETTLED_TIME <= now) {
            self.uplink_works(server);
        }
        self.uplink_fails(server, "cannot be connected to", now);
    }

    fn uplink_fails(&mut self, server: ServerId, why: &str, now: Instant) {
        let name = LinkName::Server(server);
        let chance = self.random.next_u32();
        let trunk = self.links.get(&name);
        let is_late = trunk.and_then(Trunk::kept_until).is_some_and(|until| until <= now);
        let trunk = trunk.map(|trunk| trunk.conn.is_some());
        let Some(uplink) = self.uplink_mut(server) else { return };
        uplink.conn = None;
        match trunk {
            Some(true) => {}
            Some(false) if !is_late => {
                let before = uplink.attempts.checked_sub(1);
                uplink.attempts += 1;
                uplink.redial_at = before.map(|count| {
                    now + pause(limits::RESTART_MIN, count, chance).min(limits::LINK_REDIAL_MAX)
                });
                // Who has nothing on the link yet need not wait for it.
                if before.is_some() {
                    self.uplink_disappoints(server, why, now);
                }
                self.uplink_step(server, now);
            }
            Some(false) => self.link_over(name, "cannot be resumed", now),
            None => self.uplink_gives_up(server, why, now),
        }
    }

    /// Nobody waits any longer for a link; who still wants one asks again.
    pub(super) fn uplink_gives_up(&mut self, server: ServerId, why: &str, now: Instant) {
        let Some(uplink) = self.uplink_mut(server) else { return };
        (uplink.attempts, uplink.redial_at) = (0, None);
        self.uplink_disappoints(server, why, now);
    }

    /// Those who wait for a connection do so in vain.
    fn uplink_disappoints(&mut self, server: ServerId, why: &str, now: Instant) {
        let waiting = self.uplink_mut(server).map(|uplink| std::mem::take(&mut uplink.waiting));
        for id in waiting.unwrap_or_default() {
            self.process_failed(id, why, now);
        }
    }

    fn uplink_reports(&mut self, server: ServerId, why: &str, now: Instant) {
        let waiting = self.uplink_mut(server).map(|uplink| uplink.waiting.clone());
        for id in waiting.unwrap_or_default() {
            self.report_process(id, why, now);
        }
    }

    /// The server has closed a stream.
    pub(super) fn uplink_closed(
        &mut self,
        id: ProcessId,
        reason: Reason,
        text: &str,
        now: Instant,
    ) {
        let refusal = match reason {
            Reason::UNKNOWN_SERVER | Reason::FORBIDDEN => Refusal::Unreachable,
            Reason::OVERLOADED => Refusal::Full,
            _ => Refusal::Died,
        };
        self.report_process(id, &format!("closed its stream: {} {text}", reason.0), now);
        self.process_ended(id, refusal, now);
    }

    /// Sends a line as a message. A request that the server would not take, or for which there is
    /// no room, is refused; of an answer that it would not take, the server is told. What else has
    /// no room ends the conversation, which does not go on without it.
    pub(super) fn uplink_push(
        &mut self,
        (process, conn): (ProcessId, ConnId),
        line: &[u8],
        now: Instant,
    ) {
        let message = line.strip_suffix(b"\n").unwrap_or(line);
        let refusal = match self.branch_fits(conn, message.len()) {
            false => Refusal::TooLarge,
            true => match self.branch_sends(conn, message.to_vec()) {
                Ok(()) => return,
                Err(SendError::Overloaded) => Refusal::Full,
                Err(_) => {
                    self.counters.dropped += 1;
                    return;
                }
            },
        };
        self.counters.dropped += 1;
        let Ok(envelope) = rpc::scan(message, self.any_len()) else { return };
        let id = envelope.id.map(|id| id.get(message));
        match (envelope.kind, refusal) {
            (rpc::Kind::Request, _) => {
                let pending = self.processes.get(&process).map(|process| &process.pending);
                let number = id.and_then(read_number);
                let key = number.and_then(|number| pending?.get(&number).copied());
                if let Some(key) = key {
                    self.exchange_fail(key, refusal, now);
                }
            }
            (_, Refusal::Full) => self.process_ended(process, refusal, now),
            (rpc::Kind::Response | rpc::Kind::ErrorResponse, _) => {
                let mut answer = Vec::new();
                refusal.write_error(&mut answer, id.unwrap_or(b"null"), None);
                let _told = self.branch_sends(conn, answer);
            }
            (rpc::Kind::Notification, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::binary::{Event, Limits, LinkId, Settings, hello};

    use super::*;
    use crate::admission::entrance::{Entrance, Protocol};
    use crate::shard::event::Event as Told;
    use crate::tests::settings;

    const SETTINGS: Settings = Settings {
        limits: Limits {
            window: 32 * 1024,
            frame_len_max: 16 * 1024,
            message_len_max: 16 << 20,
            streams_max: 64,
            replay_len_max: 1 << 20,
        },
        keep_ms: 60_000,
        queue_len_max: usize::MAX,
        queues_len_max: usize::MAX,
        partial_len_max: usize::MAX,
        partials_len_max: usize::MAX,
    };

    /// What the server of a link hears when the one conversation ends for this reason, while a
    /// message of it is under way.
    fn heard(refusal: Refusal) -> (Vec<usize>, Reason) {
        let now = Instant::now();
        let server = settings::server(Target::Tcp(settings::endpoint("127.0.0.1").into()));
        let entrances = vec![Entrance::of(Protocol::Lines)];
        let settings = settings::settings(vec![server]);
        let settings = crate::shard::settings::Settings { entrances, ..settings };
        let mut shard = settings::shard(settings, 0, 1, now);
        let (client, _) = settings::accept(&mut shard, now);
        let pad = "x".repeat(100_000);
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{{\
             \"protocolVersion\":\"2025-11-25\",\"capabilities\":{{}},\"pad\":\"{pad}\",\
             \"clientInfo\":{{\"name\":\"c\",\"version\":\"1\"}}}}}}\n"
        );
        let mut bytes = text.into_bytes();
        shard.handle(Told::Received { conn: client, bytes: &mut bytes }, now);
        let actions: Vec<Action> = std::iter::from_fn(|| shard.poll()).collect();
        let conn = actions.into_iter().find_map(|action| match action {
            Action::Dial { conn, .. } => Some(conn),
            _ => None,
        });
        let conn = conn.expect("the server is dialled");
        shard.handle(Told::Connected { conn }, now);
        drain(&mut shard, conn);
        let mut answer = b"MCPB\0\x01\0\x07\0\0\0\x14{\"agreed_version\":2}".to_vec();
        shard.handle(Told::Received { conn, bytes: &mut answer }, now);
        let bytes = drain(&mut shard, conn);
        let Ok(Decoded::Item { item, .. }) = hello(&bytes) else { panic!("no HELLO") };
        let mut link = Link::accept(LinkId([1; 16]), b"", SETTINGS, &item);
        let (mut messages, mut closed) = (Vec::new(), None);
        for round in 0..20 {
            let mut bytes = Vec::new();
            link.write_to(&mut bytes);
            shard.handle(Told::Received { conn, bytes: &mut bytes }, now);
            while shard.poll().is_some() {}
            if round == 1 {
                let id = *shard.processes.keys().next().expect("a conversation");
                shard.process_ended(id, refusal, now);
                shard.handle(Told::Woke, now);
            }
            let bytes = drain(&mut shard, conn);
            let mut rest = &bytes[..];
            while let Some(event) = link.receive(&mut rest) {
                match event {
                    Event::Message { payload, .. } => messages.push(payload.len()),
                    Event::Closed { reason, .. } => closed = Some(reason),
                    _ => {}
                }
            }
        }
        (messages, closed.expect("its stream is closed"))
    }

    fn drain(shard: &mut Shard, conn: ConnId) -> Vec<u8> {
        while shard.poll().is_some() {}
        shard.output(conn).unwrap().take().into_iter().flatten().collect()
    }

    #[test]
    fn a_conversation_that_failed_is_not_said_to_be_done() {
        let (messages, reason) = heard(Refusal::UnknownSession);
        assert_eq!((messages.len(), reason), (1, Reason::DONE));
        assert_eq!(heard(Refusal::Died), (vec![], Reason::INTERNAL));
        assert_eq!(heard(Refusal::Full), (vec![], Reason::OVERLOADED));
    }
}
