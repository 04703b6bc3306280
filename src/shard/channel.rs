//! Clients that speak in both directions on one connection: its messages become exchanges, and what
//! is for the client is written to it as it comes.

use std::time::Instant;

use bytes::Bytes;
use rand_chacha::rand_core::Rng as _;
use wire::binary::v1::Dialect;
use wire::envelope;
use wire::http1::write_header;
use wire::lines::{Line, LineReader, write_line};
use wire::rpc::{self, Document, Envelope};

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::mirror;
use crate::era;
use crate::exchange::{Kind, Reply, Via};
use crate::frontend::binary::{FrameReader, Stage};
use crate::frontend::channel::{Channel, Reader, Writer};
use crate::ids::{Address, ConnId, ExchangeId, Peer, SessionKey, Socket};
use crate::limits;
use crate::message::{Era, Payload, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::event::Action;
use crate::shard::post::Incoming;
use crate::shard::{Role, Shard};
use crate::telemetry::log::timestamp;
use crate::upstream::catalog::{ServerId, Target};
use crate::upstream::restart::pause;

impl Shard {
    /// A client came in. Whether it speaks lines here; otherwise it is for somebody else.
    pub(super) fn channel_accepted(
        &mut self,
        socket: Socket,
        (peer, moves): (Peer, u8),
        now: Instant,
    ) -> bool {
        let entrance = self.settings.entrances.get(usize::from(peer.entrance.0));
        let parts = |entrance: &Entrance| match *entrance.protocols {
            [Protocol::Lines] => Some((Reader::Lines(LineReader::new()), Writer::Lines)),
            [Protocol::Binary] => Some(binary_parts()),
            // HTTP among them: whatever it is, it begins as that.
            _ => None,
        };
        let parts = entrance.and_then(|entrance| Some((entrance, parts(entrance)?)));
        let Some((entrance, parts)) = parts else { return false };
        let is_admitted = match (peer.address, &entrance.users) {
            (Address::Local { uid, .. }, Some(users)) => users.contains(&uid),
            _ => true,
        };
        let server = entrance.server.or_else(|| self.settings.catalog.root());
        let has_server = server.is_some() || parts.1.has_namespaces();
        if !has_server || !is_admitted {
            self.report_stranger(peer, now);
            self.counters.accept_refused += 1;
            self.actions.push_back(Action::Discard { socket });
            return true;
        }
        let channel = Channel::new(peer, server, parts, now);
        let Some(conn) = self.open(Role::Channel(Box::new(channel))) else {
            self.counters.accept_refused += 1;
            self.actions.push_back(Action::Discard { socket });
            return true;
        };
        self.current = Some(conn);
        self.counters.clients += 1;
        self.counters.accepted += u64::from(moves == 0);
        self.actions.push_back(Action::Receive { conn, socket });
        self.wish_conn(conn, now + limits::HEAD_TIMEOUT);
        if let Some(to) = server.and_then(|server| self.home_of(server)).filter(|_| moves == 0) {
            // One process serves everybody: whoever speaks with it has to be where it is.
            self.conns.remove(conn);
            self.counters.clients -= 1;
            self.counters.moved += 1;
            let bytes = Vec::new();
            self.actions.push_back(Action::Move { conn, to, peer, bytes, moves: moves + 1 });
        }
        true
    }

    /// Whether a client that seemed to speak HTTP speaks the binary protocol: then it does so from
    /// its first byte on, and these are all its bytes so far.
    pub(super) fn channel_sniffed(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(client) = self.client_mut(conn) else { return false };
        let (peer, is_first) = (client.peer, client.requests == 0 && client.near.is_none());
        let entrance = self.settings.entrances.get(usize::from(peer.entrance.0));
        let is_spoken = entrance.is_some_and(|entrance| entrance.speaks(Protocol::Binary));
        if !is_first || !is_spoken || !bytes.starts_with(b"MCP") {
            return false;
        }
        if !matches!(bytes.get(3), Some(b'B' | 0)) {
            return false;
        }
        let server = entrance.and_then(|entrance| entrance.server);
        let server = server.or_else(|| self.settings.catalog.root());
        let Some(entry) = self.conns.get_mut(conn) else { return false };
        let Role::Client(client) = &entry.role else { return false };
        let channel = Channel::new(peer, server, binary_parts(), client.opened_at);
        self.counters.gathered -= client.gathered as u64;
        entry.role = Role::Channel(Box::new(channel));
        true
    }

    pub(super) fn channel_received(&mut self, conn: ConnId, bytes: &mut [u8], now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        if channel.is_stream() {
            return self.sse_received(conn, bytes.len(), now);
        }
        channel.received += bytes.len() as u64;
        self.counters.received_bytes += bytes.len() as u64;
        self.channel_takes(conn, bytes, now);
    }

    /// Serves bytes that have been counted.
    pub(super) fn channel_takes(&mut self, conn: ConnId, bytes: &mut [u8], now: Instant) {
        let len_max = self.settings.message_len_max;
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.heard_at = now;
        let mut reader = std::mem::replace(&mut channel.reader, Reader::Lent);
        match &mut reader {
            Reader::Lines(lines) => {
                let mut bytes = &*bytes;
                while let Some(line) = lines.next(&mut bytes, len_max) {
                    match line {
                        Line::Whole(line) => {
                            let line = line.trim_ascii();
                            if !line.is_empty() {
                                self.channel_message(conn, &Payload::Borrowed(line), now);
                            }
                        }
                        Line::TooLong => self.refuse(conn, Refusal::TooLarge, b"null", now),
                    }
                    if self.channel_mut(conn).is_none() {
                        return;
                    }
                }
            }
            Reader::Frames(frames) => self.socket_received(conn, frames, bytes, now),
            Reader::Binary(frames) => self.binary_received(conn, frames, bytes, now),
            Reader::Elsewhere(_) | Reader::Lent => {}
        }
        if let Some(channel) = self.channel_mut(conn) {
            channel.reader = reader;
        }
        self.channel_gathers(conn, now);
    }

    /// An incomplete message counts, and its clock runs.
    fn channel_gathers(&mut self, conn: ConnId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        let gathering = channel.gathering();
        let before = std::mem::replace(&mut channel.gathered, gathering);
        self.counters.gathered += gathering as u64;
        self.counters.gathered -= before as u64;
        if (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered {
            self.refuse(conn, Refusal::Full, b"null", now);
            self.channel_close(conn, "full", now);
        } else if gathering != 0 {
            self.wish_conn(conn, now + limits::BODY_TIMEOUT);
        }
    }

    /// One message, or a batch of them.
    pub(super) fn channel_message(&mut self, conn: ConnId, payload: &Payload<'_>, now: Instant) {
        match self.channel_document(conn, payload.bytes()) {
            Ok(document) => self.channel_serve(conn, payload, &document, now),
            Err(refusal) => self.refuse(conn, refusal, b"null", now),
        }
    }

    /// What a client sent, if it is something that it may send.
    pub(super) fn channel_document(&self, conn: ConnId, bytes: &[u8]) -> Result<Document, Refusal> {
        let document = rpc::document(bytes, self.rpc_limits()).map_err(Refusal::Rpc)?;
        match &document {
            Document::Message(envelope) if has_long_id(envelope) => Err(Refusal::LongId),
            Document::Message(_) => Ok(document),
            Document::Batch => {
                let session = match self.conns.get(conn).map(|entry| &entry.role) {
                    Some(Role::Channel(channel)) => channel.session,
                    _ => None,
                };
                let revision = session.and_then(|key| self.sessions.get(key)).map(|s| s.revision);
                let has_batches = revision == Some(Revision::V2025_03_26);
                let parts = wire::json::elements(bytes, limits::DEPTH_MAX);
                let is_long = limits::BATCH_MAX < parts.take(limits::BATCH_MAX + 1).count();
                if has_batches && !is_long { Ok(document) } else { Err(Refusal::Batch) }
            }
        }
    }

    pub(super) fn channel_serve(
        &mut self,
        conn: ConnId,
        payload: &Payload<'_>,
        document: &Document,
        now: Instant,
    ) {
        let bytes = payload.bytes();
        #[cfg(test)]
        if self.fault.is_some_and(|fault| memchr::memmem::find(bytes, fault).is_some()) {
            panic!("a fault that a test asked for");
        }
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.messages += 1;
        match document {
            Document::Message(envelope) => self.channel_one(conn, payload, envelope, now),
            Document::Batch => {
                for span in wire::json::elements(bytes, limits::DEPTH_MAX).filter_map(Result::ok) {
                    let part = span.get(bytes);
                    match rpc::scan(part, self.rpc_limits()) {
                        Ok(envelope) => {
                            self.channel_one(conn, &Payload::Borrowed(part), &envelope, now);
                        }
                        Err(error) => self.refuse(conn, Refusal::Rpc(error), b"null", now),
                    }
                }
            }
        }
    }

    pub(super) fn channel_one(
        &mut self,
        conn: ConnId,
        payload: &Payload<'_>,
        envelope: &Envelope,
        now: Instant,
    ) {
        let bytes = payload.bytes();
        let Some(channel) = self.channel_mut(conn) else { return };
        let (server, session) = (channel.server, channel.session);
        let Some(server) = server else {
            let id = envelope.id.map_or(&b"null"[..], |id| id.get(bytes));
            return self.refuse(conn, Refusal::Server, id, now);
        };
        if has_long_id(envelope) {
            return self.refuse(conn, Refusal::LongId, b"null", now);
        }
        let Ok(era) = era::classify(bytes, envelope, None) else { return };
        let headers = self.channel_headers(server, (era, session), bytes, envelope);
        let incoming =
            Incoming { server, session: None, era, payload, envelope, headers: &headers };
        let is_request = envelope.kind == rpc::Kind::Request;
        if is_request && self.draining.is_some() {
            return self.refuse(conn, Refusal::Draining, incoming.id(), now);
        }
        match (era, session) {
            (Era::Modern, _) => self.channel_modern(conn, &incoming, now),
            (Era::Legacy, None) if is_request && incoming.is_method("initialize") => {
                let _opened = self.session_open(conn, incoming, now);
            }
            (Era::Legacy, Some(_)) if is_request && incoming.is_method("initialize") => {
                self.refuse(conn, Refusal::Initialized, incoming.id(), now);
            }
            (Era::Legacy, Some(session)) => {
                let incoming = Incoming { session: Some(session), ..incoming };
                self.post_legacy(conn, incoming, now);
                if incoming.is_method("notifications/initialized") {
                    self.channel_listens(conn, now);
                }
            }
            (Era::Legacy, None) if incoming.is_method("notifications/cancelled") => {
                self.channel_cancel(conn, &incoming, now);
            }
            (Era::Legacy, None) if is_request => {
                self.refuse(conn, Refusal::NoSession, incoming.id(), now);
            }
            (Era::Legacy, None) => self.counters.dropped += 1,
        }
    }

    /// A message of the stateless era.
    fn channel_modern(&mut self, conn: ConnId, incoming: &Incoming<'_>, now: Instant) {
        if !self.modern_is_fine(conn, incoming, now) {
            return;
        }
        if incoming.envelope.kind == rpc::Kind::Notification {
            if incoming.is_method("notifications/cancelled") {
                return self.channel_cancel(conn, incoming, now);
            }
            if let Some(key) = self.begin(conn, Kind::Notice, incoming, now) {
                self.forward(key, incoming, now);
            }
            return;
        }
        let id = incoming.id();
        let exchanges = self.channel_mut(conn).map(|channel| channel.exchanges.as_slice());
        let is_used = exchanges
            .unwrap_or_default()
            .to_vec()
            .iter()
            .any(|key| self.exchanges.get(*key).is_some_and(|exchange| exchange.id == id));
        if is_used {
            // Two answers under one id would be one too many (2026-07-28, basic: "Requests").
            return self.refuse(conn, Refusal::UsedId, id, now);
        }
        if let Some(key) = self.begin(conn, Kind::Request, incoming, now) {
            self.forward(key, incoming, now);
        }
    }

    /// A client cancels a request that belongs to no session.
    fn channel_cancel(&mut self, conn: ConnId, incoming: &Incoming<'_>, now: Instant) {
        let id = incoming.envelope.request_id.map(|id| id.get(incoming.bytes()));
        let exchanges = self.channel_mut(conn).map(|channel| channel.exchanges.clone());
        let is_it = |key: &ExchangeId| {
            self.exchanges.get(*key).is_some_and(|exchange| Some(&*exchange.id) == id)
        };
        let Some(key) = exchanges.unwrap_or_default().into_iter().find(is_it) else {
            self.counters.dropped += 1;
            return;
        };
        self.exchange_cancel(key, now);
    }

    /// Header lines for an HTTP server, which a client that speaks HTTP would have sent.
    pub(super) fn channel_headers(
        &self,
        server: ServerId,
        (era, session): (Era, Option<SessionKey>),
        bytes: &[u8],
        envelope: &Envelope,
    ) -> Bytes {
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        if !matches!(target, Some(Target::Http(..))) {
            return Bytes::new();
        }
        let mut lines = Vec::new();
        match era {
            Era::Modern => {
                mirror::write(&mut lines, bytes, envelope);
                let pool = self.pools.get(usize::from(server.0));
                if let (Some(name), Some(pool)) = (envelope.name, pool)
                    && envelope.method.is_some_and(|method| method.eq(bytes, "tools/call"))
                {
                    let params = envelope.params.map(|params| params.get(bytes));
                    pool.params.write(&mut lines, &name.decode(bytes), params.unwrap_or_default());
                }
            }
            Era::Legacy => {
                let session = session.and_then(|key| self.sessions.get(key));
                let revision = session.map(|session| session.revision);
                if let Some(revision) = revision.filter(|it| Revision::V2025_06_18 <= *it) {
                    let version = revision.name().as_bytes();
                    write_header(&mut lines, "mcp-protocol-version", version);
                }
            }
        }
        Bytes::from(lines)
    }

    /// An HTTP server has answered a client that speaks no HTTP. From its tools it is learned which
    /// headers the client's calls need.
    pub(super) fn channel_learns(&mut self, key: ExchangeId, result: &[u8]) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let is_list = exchange.era == Era::Modern && &*exchange.label.method == b"tools/list";
        if let Some(pool) = self.pools.get_mut(usize::from(exchange.server.0))
            && is_list
            && let Reply::Channel(_) | Reply::Leg(..) = exchange.reply
        {
            // The client asks for the next page itself.
            let _next = pool.params.learn(result);
        }
    }

    /// What an HTTP server says of its own accord is listened to for as long as the client is
    /// there, because here it can be said at any time.
    fn channel_listens(&mut self, conn: ConnId, now: Instant) {
        let Some(key) = self.channel_mut(conn).and_then(|channel| channel.session) else { return };
        self.session_listens(key, now);
    }

    /// Asks the HTTP server of a session to be told what it says of its own accord.
    pub(super) fn session_listens(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(key) else { return };
        let server = session.server;
        if session.is_mute || !matches!(session.link, Link::Http { listen: None, .. }) {
            return;
        }
        let exchange = self.begin_own(Kind::Listen, (Some(key), server), Bytes::new(), now);
        let Some(exchange) = exchange else { return };
        if let Some(session) = self.sessions.get_mut(key)
            && let Link::Http { listen, .. } = &mut session.link
        {
            *listen = Some(exchange);
        }
        self.http_send(exchange, now);
    }

    /// The stream on which an HTTP server speaks of its own accord is broken: it is asked for again
    /// for as long as the client is there, which has no way to ask itself. Each pause is longer
    /// than the one before, until something comes.
    pub(super) fn listen_again(&mut self, key: ExchangeId, now: Instant) -> bool {
        let session = self.exchanges.get(key).filter(|exchange| exchange.kind == Kind::Listen);
        let session = session.and_then(|exchange| self.sessions.get(exchange.session?));
        let is_lasting = |session: &crate::session::Session| {
            session.channel.is_some() || session.parent.is_some()
        };
        if !session.is_some_and(is_lasting) {
            return false;
        }
        let chance = self.random.next_u32();
        let Some(exchange) = self.exchanges.get_mut(key) else { return false };
        let first = exchange.retry.max(limits::RESTART_MIN);
        exchange.via = Via::Nothing;
        exchange.resume_at = Some(now + pause(first, u32::from(exchange.resumed), chance));
        exchange.resumed = exchange.resumed.saturating_add(1);
        exchange.tried = 0;
        self.watch(key, now);
        true
    }

    /// Writes an answer to the client.
    pub(super) fn channel_write(&mut self, conn: ConnId, parts: &[&[u8]], now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        match channel.writer {
            Writer::Lines => self.write(conn, |output| write_line(output.tail(), parts)),
            Writer::Events { .. } => self.sse_event(conn, parts),
            Writer::Binary(dialect, _) => self.binary_write(conn, dialect, parts),
            Writer::Frames(_) => self.socket_write(conn, parts),
            Writer::Stream => self.branch_answers(conn, parts.concat(), now),
        }
        self.stall_channel(conn, now);
    }

    /// Writes what the client has not asked for, if it can be told such things.
    pub(super) fn channel_event(&mut self, conn: ConnId, parts: &[&[u8]], now: Instant) {
        match self.channel_mut(conn) {
            Some(channel) if matches!(channel.writer, Writer::Stream) => {
                self.branch_tells(conn, parts.concat(), now);
                self.stall_channel(conn, now);
            }
            Some(channel) if channel.writer.has_events() => self.channel_write(conn, parts, now),
            _ => self.counters.dropped += 1,
        }
    }

    /// Answers a message with a refusal. What is no request gets no answer, unless it cannot be
    /// told what it is.
    pub(super) fn channel_refuse(
        &mut self,
        conn: ConnId,
        (refusal, requested): (Refusal, Option<&[u8]>),
        id: &[u8],
        now: Instant,
    ) {
        let is_unclear = matches!(
            refusal,
            Refusal::Rpc(_)
                | Refusal::Envelope
                | Refusal::Batch
                | Refusal::TooLarge
                | Refusal::LongId
                | Refusal::Full
        );
        if id == b"null" && !is_unclear {
            self.counters.dropped += 1;
            return;
        }
        let mut text = Vec::new();
        refusal.write_error(&mut text, id, requested);
        self.channel_answer(conn, &text, now);
    }

    /// Answers the message that is being served.
    pub(super) fn channel_answer(&mut self, conn: ConnId, message: &[u8], now: Instant) {
        match self.channel_mut(conn).and_then(|channel| channel.envelope.clone()) {
            None => self.channel_write(conn, &[message], now),
            Some(id) => self.channel_envelops(conn, &id, &[message], now),
        }
    }

    /// Writes an answer in the predecessor's envelope, under this id (raw JSON).
    pub(super) fn channel_envelops(
        &mut self,
        conn: ConnId,
        id: &[u8],
        parts: &[&[u8]],
        now: Instant,
    ) {
        let time = timestamp(self.wall(now));
        let time = String::from_utf8_lossy(&time).into_owned();
        let mut head = Vec::new();
        envelope::write_reply_head(&mut head, Some(id), &time);
        let mut around: Vec<&[u8]> = vec![&head];
        around.extend_from_slice(parts);
        around.push(envelope::PAYLOAD_END);
        self.channel_write(conn, &around, now);
    }
}

/// Whether an id of a message is too long to be kept.
pub(super) fn has_long_id(envelope: &Envelope) -> bool {
    let ids = [envelope.id, envelope.progress_token, envelope.request_id];
    ids.into_iter().flatten().any(|id| limits::ID_LEN_MAX < id.len())
}

/// The first frame tells the dialect.
fn binary_parts() -> (Reader, Writer) {
    let writer = Writer::Binary(Dialect::Short, Stage::Negotiation);
    (Reader::Binary(FrameReader::default()), writer)
}
