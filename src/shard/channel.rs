//! Clients that speak in both directions on one connection: its messages become exchanges, and what
//! is for the client is written to it as it comes.

use std::time::Instant;

use bytes::Bytes;
use wire::http1::write_header;
use wire::lines::{Line, LineReader, write_line};
use wire::rpc::{self, Document, Envelope};

use crate::admission::entrance::Protocol;
use crate::admission::mirror;
use crate::era;
use crate::exchange::{Exchange, Kind, Via};
use crate::frontend::channel::{Channel, Reader, Writer};
use crate::ids::{Address, ConnId, ExchangeId, Peer, Socket};
use crate::limits;
use crate::message::{Era, Payload, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::event::Action;
use crate::shard::post::Incoming;
use crate::shard::{Role, Shard};
use crate::upstream::catalog::{ServerId, Target};

impl Shard {
    /// A client came in. Whether it speaks lines here; otherwise it is for somebody else.
    pub(super) fn channel_accepted(
        &mut self,
        socket: Socket,
        (peer, moves): (Peer, u8),
        now: Instant,
    ) -> bool {
        let entrance = self.settings.entrances.get(usize::from(peer.entrance.0));
        let Some(entrance) = entrance.filter(|entrance| entrance.speaks(Protocol::Lines)) else {
            return false;
        };
        let is_admitted = match (peer.address, &entrance.users) {
            (Address::Local { uid, .. }, Some(users)) => users.contains(&uid),
            _ => true,
        };
        let server = entrance.server.or_else(|| self.settings.catalog.only());
        let (Some(server), true) = (server, is_admitted) else {
            self.report_stranger(peer, now);
            self.counters.accept_refused += 1;
            self.actions.push_back(Action::Discard { socket });
            return true;
        };
        let parts = (Reader::Lines(LineReader::new()), Writer::Lines);
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
        if let Some(to) = self.home_of(server).filter(|_| moves == 0) {
            // One process serves everybody: whoever speaks with it has to be where it is.
            self.conns.remove(conn);
            self.counters.clients -= 1;
            self.counters.moved += 1;
            let bytes = Vec::new();
            self.actions.push_back(Action::Move { conn, to, peer, bytes, moves: moves + 1 });
        }
        true
    }

    pub(super) fn channel_received(&mut self, conn: ConnId, bytes: &mut [u8], now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
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
            Reader::Lent => {}
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
        let bytes = payload.bytes();
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.messages += 1;
        let session = channel.session;
        match rpc::document(bytes, self.rpc_limits()) {
            Ok(Document::Message(envelope)) => self.channel_one(conn, payload, &envelope, now),
            Ok(Document::Batch) => {
                let revision = session.and_then(|key| self.sessions.get(key)).map(|s| s.revision);
                let has_batches = revision == Some(Revision::V2025_03_26);
                let spans: Vec<_> = wire::json::elements(bytes, limits::DEPTH_MAX)
                    .take(limits::BATCH_MAX + 1)
                    .filter_map(Result::ok)
                    .collect();
                if !has_batches || limits::BATCH_MAX < spans.len() {
                    return self.refuse(conn, Refusal::Batch, b"null", now);
                }
                for span in spans {
                    let part = span.get(bytes);
                    match rpc::scan(part, self.rpc_limits()) {
                        Ok(envelope) => {
                            self.channel_one(conn, &Payload::Borrowed(part), &envelope, now);
                        }
                        Err(error) => self.refuse(conn, Refusal::Rpc(error), b"null", now),
                    }
                }
            }
            Err(error) => self.refuse(conn, Refusal::Rpc(error), b"null", now),
        }
    }

    fn channel_one(
        &mut self,
        conn: ConnId,
        payload: &Payload<'_>,
        envelope: &Envelope,
        now: Instant,
    ) {
        let bytes = payload.bytes();
        let Some(channel) = self.channel_mut(conn) else { return };
        let (server, session) = (channel.server, channel.session);
        let spans = [envelope.id, envelope.progress_token, envelope.request_id];
        if spans.into_iter().flatten().any(|id| limits::ID_LEN_MAX < id.len()) {
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
                self.session_open(conn, incoming, now);
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
    fn channel_headers(
        &self,
        server: ServerId,
        (era, session): (Era, Option<crate::ids::SessionKey>),
        bytes: &[u8],
        envelope: &Envelope,
    ) -> Bytes {
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        if !matches!(target, Some(Target::Http(_))) {
            return Bytes::new();
        }
        let mut lines = Vec::new();
        match era {
            Era::Modern => mirror::write(&mut lines, bytes, envelope),
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

    /// What an HTTP server says of its own accord is listened to for as long as the client is
    /// there, because here it can be said at any time.
    fn channel_listens(&mut self, conn: ConnId, now: Instant) {
        let Some(key) = self.channel_mut(conn).and_then(|channel| channel.session) else { return };
        let Some(session) = self.sessions.get(key) else { return };
        let server = session.server;
        if !matches!(session.link, Link::Http { listen: None, .. }) {
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

    /// Writes a message to the client.
    pub(super) fn channel_write(&mut self, conn: ConnId, parts: &[&[u8]], now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        match channel.writer {
            Writer::Lines => self.write(conn, |output| write_line(output.tail(), parts)),
            Writer::Frames(_) => self.socket_write(conn, parts),
        }
        self.stall_channel(conn, now);
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
            Refusal::Rpc(_) | Refusal::Batch | Refusal::TooLarge | Refusal::LongId | Refusal::Full
        );
        if id == b"null" && !is_unclear {
            self.counters.dropped += 1;
            return;
        }
        let mut text = Vec::new();
        refusal.write_error(&mut text, id, requested);
        self.channel_write(conn, &[&text], now);
    }

    /// Requests of the client that are not answered. A subscription never is: nobody waits for
    /// the end of it.
    pub(super) fn channel_exchanges(&self, conn: ConnId) -> Vec<ExchangeId> {
        let Some(Role::Channel(channel)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return Vec::new();
        };
        let session = channel.session.and_then(|key| self.sessions.get(key));
        let of_session = session.map(|session| session.exchanges.as_slice()).unwrap_or_default();
        let is_request = |key: &&ExchangeId| {
            let exchange = self.exchanges.get(**key);
            exchange.is_some_and(|it| {
                matches!(it.kind, Kind::Request | Kind::Initialize) && !it.is_subscription
            })
        };
        of_session.iter().chain(&channel.exchanges).filter(is_request).copied().collect()
    }

    /// An exchange of this channel is over.
    pub(super) fn channel_left(&mut self, conn: ConnId, key: ExchangeId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.exchanges.retain(|other| *other != key);
        self.channel_rests(conn, now);
    }

    /// Closes the channel if nobody has anything to say any more.
    pub(super) fn channel_rests(&mut self, conn: ConnId, now: Instant) {
        let is_draining = self.draining.is_some();
        let Some(channel) = self.channel_mut(conn) else { return };
        let why = match (channel.is_ended, is_draining) {
            (true, _) => "client closed",
            (false, true) => "draining",
            (false, false) => return,
        };
        if self.channel_exchanges(conn).is_empty() {
            self.channel_close(conn, why, now);
        }
    }

    /// The client will send no more. What it asked for is still answered, for a while.
    pub(super) fn channel_ended(&mut self, conn: ConnId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        if matches!(channel.writer, Writer::Frames(_)) {
            // A WebSocket has a close frame for this; without one, it broke (RFC 6455 §7.1.5).
            return self.channel_lost(conn, "client closed", now);
        }
        channel.is_ended = true;
        channel.heard_at = now;
        self.wish_conn(conn, now + limits::LAST_ANSWERS_TIME);
        self.channel_rests(conn, now);
    }

    pub(super) fn channel_tick(&mut self, conn: ConnId, now: Instant) {
        let Some(channel) = self.channel_mut(conn) else { return };
        let limit = match (channel.is_ended, channel.gathered) {
            (true, _) => limits::LAST_ANSWERS_TIME,
            (false, 0) => return self.socket_tick(conn, now),
            (false, _) => limits::BODY_TIMEOUT,
        };
        let (at, is_ended) = (channel.heard_at + limit, channel.is_ended);
        if now < at {
            self.wish_conn(conn, at);
        } else {
            let why = if is_ended { "client closed" } else { "sends too slowly" };
            self.channel_close(conn, why, now);
        }
    }

    /// The connection broke, or the client must go: it will not read what it has not read.
    pub(super) fn channel_lost(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        if let Some(entry) = self.conns.get_mut(conn) {
            let unsent = entry.output.take();
            if let Role::Channel(channel) = &mut entry.role
                && let Writer::Frames(socket) = &mut channel.writer
            {
                // A frame may be cut: another would be read as the rest of it.
                socket.is_over |= !unsent.is_empty();
            }
        }
        self.channel_close(conn, why, now);
    }

    /// Ends the conversation: what it waited for is cancelled, its session ends.
    pub(super) fn channel_close(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        if self.channel_mut(conn).is_none() {
            return;
        }
        self.socket_says_why(conn, why);
        self.report_closed(conn, why, now);
        let Some(mut entry) = self.conns.remove(conn) else { return };
        let Role::Channel(channel) = entry.role else { return };
        self.counters.clients -= 1;
        self.counters.gathered -= channel.gathered as u64;
        self.actions.push_back(Action::Close { conn, rest: entry.output.take() });
        for key in channel.exchanges {
            self.exchange_cancel(key, now);
        }
        if let Some(session) = channel.session {
            self.session_end(session, why, now);
        }
    }

    /// The connections that bring something for this client and for nobody else.
    pub(super) fn channel_feeds(&self, conn: ConnId) -> Vec<ConnId> {
        let Some(Role::Channel(channel)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return Vec::new();
        };
        let via_http = |exchange: &Exchange| match exchange.via {
            Via::Http(conn) => Some(conn),
            Via::Nothing | Via::Process(..) => None,
        };
        let mut feeds: Vec<ConnId> = channel
            .exchanges
            .iter()
            .filter_map(|key| self.exchanges.get(*key).and_then(via_http))
            .collect();
        feeds.extend(channel.session.map(|key| self.feeds(key)).unwrap_or_default());
        feeds
    }
}
