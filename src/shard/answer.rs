//! Answers to clients: one response, or events of a stream. And the one end of every exchange.

use std::time::Instant;

use bytes::Bytes;
use wire::http1::{CHUNK_END, LAST_CHUNK, write_chunk_head};

use crate::exchange::{Exchange, Kind, Reply, Via};
use crate::frontend::answer::{Body, EVENT_STREAM, Head, JSON};
use crate::frontend::http::Busy;
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::message::{Era, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::session::id::SessionId;
use crate::shard::{Role, Shard, Timer};

/// How an exchange ended, for counters and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server answered with this HTTP status.
    Answered(u16),
    /// The server answered with a JSON-RPC error of this code.
    Error(i64),
    /// The gateway answered.
    Refused(Refusal),
    /// The client cancelled or went away.
    Cancelled,
}

impl Shard {
    /// The answer to an exchange as JSON-RPC, in parts that belong together.
    pub(super) fn answer(
        &mut self,
        key: ExchangeId,
        parts: &[&[u8]],
        error: Option<i64>,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if limits::OUTPUT_HIGH < len && limits::UNREAD_LEN_MAX < self.unread_total() + len {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        }
        if let Reply::Channel(conn) = exchange.reply
            && !self.binary_fits(conn, len)
        {
            self.exchange_fail(key, Refusal::TooLarge, now);
            return;
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let status = http_status(exchange.era, error);
        let (reply, session, kind) = (exchange.reply, exchange.session, exchange.kind);
        let (is_enveloped, id) = (exchange.is_enveloped, exchange.id.clone());
        match reply {
            Reply::Pending(conn) => {
                let opened = session.filter(|_| kind == Kind::Initialize && error.is_none());
                let id = opened.and_then(|key| self.sessions.get(key)).map(|session| session.id);
                let session = id.as_ref().map(SessionId::as_bytes);
                let body = Body::Length(len as u64);
                self.response_head(conn, (status, Some(JSON)), body, session);
                self.write(conn, |output| {
                    for part in parts {
                        output.push(part);
                    }
                });
                self.client_done(conn, now);
            }
            Reply::Whole(conn) => self.whole_answer(conn, parts, now),
            Reply::Events(conn) => {
                let event = event_text(parts);
                self.body_chunk(conn, &event);
                self.body_end(conn, now);
            }
            Reply::Stream(number) => {
                if let Some(session) = session {
                    self.stream_event((session, number), parts, now);
                    self.stream_answered(session, number, now);
                }
            }
            Reply::Channel(conn) if is_enveloped => {
                self.channel_envelops(conn, &id, parts, now);
            }
            Reply::Channel(conn) => self.channel_write(conn, parts, now),
            Reply::Leg(..) => self.leg_answered(key, parts, error, now),
            Reply::Relaying(_) | Reply::Nobody => {}
        }
        let outcome = error.map_or(Outcome::Answered(status), Outcome::Error);
        self.exchange_end(key, outcome, now);
    }

    /// The one message of a response, whatever it says.
    pub(super) fn whole_answer(&mut self, conn: ConnId, parts: &[&[u8]], now: Instant) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.response_head(conn, (200, Some(JSON)), Body::Length(len as u64), None);
        self.write(conn, |output| {
            for part in parts {
                output.push(part);
            }
        });
        self.client_done(conn, now);
    }

    /// A message of the server on the way to an exchange's client, before the answer. It need not
    /// be about this exchange: whoever knows that it is says [`Self::exchange_alive`].
    pub(super) fn answer_event(&mut self, key: ExchangeId, parts: &[&[u8]], now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.sent_at = now;
        let (reply, session, era) = (exchange.reply, exchange.session, exchange.era);
        match (reply, session) {
            (Reply::Pending(_), Some(_)) if era == Era::Legacy => {
                self.exchange_stream(key, now);
                self.answer_event(key, parts, now);
            }
            (Reply::Pending(conn), _) => {
                exchange.reply = Reply::Events(conn);
                self.events_head(conn, None);
                let event = event_text(parts);
                self.body_chunk(conn, &event);
            }
            (Reply::Events(conn), _) => {
                let event = event_text(parts);
                self.body_chunk(conn, &event);
                self.stall_drop(conn, now);
            }
            (Reply::Stream(number), Some(session)) => {
                self.stream_event((session, number), parts, now);
            }
            (Reply::Channel(conn), _) if !exchange.is_enveloped => {
                self.channel_event(conn, parts, now);
            }
            (Reply::Leg(union, parent), session) => {
                self.leg_event(key, (union, parent, session), &parts.concat(), now);
            }
            _ => self.counters.dropped += 1,
        }
    }

    /// Turns a waiting legacy exchange into a stream of its session.
    pub(super) fn exchange_stream(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (Reply::Pending(conn), Some(session)) = (exchange.reply, exchange.session) else {
            return;
        };
        let is_initialize = exchange.kind == Kind::Initialize;
        let id = self.sessions.get(session).filter(|_| is_initialize).map(|session| session.id);
        if is_initialize {
            // The session id must be in the head; a stream that cannot be resumed needs no more.
            self.events_head(conn, id.as_ref().map(SessionId::as_bytes));
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.reply = Reply::Events(conn);
            }
            return;
        }
        let Some(number) = self.stream_open(conn, session, 1, now) else { return };
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.reply = Reply::Stream(number);
        }
        self.watch(key, now);
    }

    /// Begins an event stream of a session on a client connection.
    pub(super) fn stream_open(
        &mut self,
        conn: ConnId,
        key: SessionKey,
        exchanges: u32,
        now: Instant,
    ) -> Option<u32> {
        let session = self.sessions.get_mut(key)?;
        let before = session.replay.kept_len() as u64;
        let number = session.replay.open(Some(conn), exchanges);
        let after = session.replay.kept_len() as u64;
        let priming = session.replay.get(number).map(|stream| stream.priming_id());
        let has_priming = Revision::V2025_11_25 <= session.revision;
        self.counters.replay = self.counters.replay + after - before;
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::Stream(key, number);
        }
        self.events_head(conn, None);
        if has_priming {
            self.events_prime(conn, &priming.unwrap_or_default());
        }
        self.wish_conn(conn, now + limits::COMMENT_INTERVAL);
        Some(number)
    }

    /// An event of a session's stream: kept for resumption, sent if somebody listens.
    pub(super) fn stream_event(
        &mut self,
        (key, number): (SessionKey, u32),
        data: &[&[u8]],
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.is_mute {
            self.counters.dropped += 1;
            return;
        }
        if let Some(parent) = session.parent {
            return self.member_event(parent, None, &data.concat(), now);
        }
        if let Some(conn) = session.channel {
            return self.channel_event(conn, data, now);
        }
        let before = session.replay.kept_len() as u64;
        let pushed = session.replay.push(number, data);
        if (limits::REPLAY_TOTAL_MAX as u64) < self.counters.replay {
            session.replay.clear();
        }
        let after = session.replay.kept_len() as u64;
        self.counters.replay = self.counters.replay + after - before;
        match pushed {
            Some((event, Some(conn))) => {
                self.body_chunk(conn, &event);
                self.stall_check(conn, key, now);
            }
            Some((_, None)) => {}
            None => self.counters.dropped += 1,
        }
    }

    /// One of the stream's exchanges is over; with the last one the stream is complete.
    pub(super) fn stream_answered(&mut self, key: SessionKey, number: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(stream) = session.replay.get(number) else { return };
        stream.open = stream.open.saturating_sub(1);
        if stream.open == 0
            && let Some(conn) = stream.client.take()
        {
            self.body_end(conn, now);
        }
    }

    /// A response head for a client, with the framing that it understands.
    pub(super) fn response_head(
        &mut self,
        conn: ConnId,
        (status, content_type): (u16, Option<&[u8]>),
        body: Body,
        session: Option<&[u8]>,
    ) {
        let Some(client) = self.client_mut(conn) else { return };
        let body = match body {
            Body::Chunked if !client.framing.can_chunk => Body::UntilClose,
            other => other,
        };
        client.framing.chunked = body == Body::Chunked;
        if body == Body::UntilClose {
            client.framing.keep_alive = false;
        }
        let (origin, keep_alive) = (client.origin.take(), client.framing.keep_alive);
        let origin = origin.as_deref();
        let head = Head { status, content_type, body, session, origin, keep_alive };
        self.write(conn, |output| head.write(output.tail()));
    }

    /// Whether a client's response is an event stream: a comment may be put between its events.
    pub(super) fn is_event_stream(content_type: Option<&[u8]>) -> bool {
        content_type.is_some_and(|value| {
            value.get(..EVENT_STREAM.len()).is_some_and(|v| v.eq_ignore_ascii_case(EVENT_STREAM))
        })
    }

    /// The head of an event stream.
    pub(super) fn events_head(&mut self, conn: ConnId, session: Option<&[u8]>) {
        self.response_head(conn, (200, Some(EVENT_STREAM)), Body::Chunked, session);
    }

    /// The first event of a stream, empty, so that the client has an id to go on with
    /// (2025-11-25, basic/transports).
    pub(super) fn events_prime(&mut self, conn: ConnId, id: &str) {
        let mut event = Vec::with_capacity(32);
        let retry = Some(limits::RECONNECT_PAUSE_MS);
        wire::sse::write_event(&mut event, None, Some(id.as_bytes()), retry, b"");
        self.body_chunk(conn, &Bytes::from(event));
    }

    /// A piece of a response body.
    pub(super) fn body_chunk(&mut self, conn: ConnId, bytes: &Bytes) {
        let Some(client) = self.client_mut(conn) else { return };
        let is_chunked = client.framing.chunked;
        self.write(conn, |output| {
            if is_chunked {
                write_chunk_head(output.tail(), bytes.len());
            }
            output.push_whole(bytes.clone());
            if is_chunked {
                output.push(CHUNK_END);
            }
        });
    }

    /// The same for bytes that are only borrowed.
    pub(super) fn body_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.client_mut(conn) else { return };
        let is_chunked = client.framing.chunked && !bytes.is_empty();
        self.write(conn, |output| {
            if is_chunked {
                write_chunk_head(output.tail(), bytes.len());
            }
            output.push(bytes);
            if is_chunked {
                output.push(CHUNK_END);
            }
        });
    }

    /// The response is complete.
    pub(super) fn body_end(&mut self, conn: ConnId, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        if client.framing.chunked {
            self.write(conn, |output| output.push(LAST_CHUNK));
        }
        self.client_done(conn, now);
    }

    /// The server showed that it works on the request: its time starts again.
    pub(super) fn exchange_alive(&mut self, key: ExchangeId, now: Instant) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.deadline = exchange.timeout.map(|timeout| now + timeout);
            exchange.sent_at = now;
        }
    }

    /// The gateway answers an exchange in place of its server.
    pub(super) fn exchange_fail(&mut self, key: ExchangeId, refusal: Refusal, now: Instant) {
        let may_come_back = matches!(refusal, Refusal::Unreachable | Refusal::Died | Refusal::Full);
        if may_come_back && self.listen_again(key, now) {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.is_cancelled {
            // It ends without an answer, as it should.
            return self.exchange_unanswered(key, now);
        }
        let refusal = match refusal {
            // It was there when it got the request, and may have acted.
            Refusal::Unreachable if exchange.resumed != 0 => Refusal::Died,
            refusal => refusal,
        };
        let is_enveloped = exchange.is_enveloped;
        let (reply, session, kind) = (exchange.reply, exchange.session, exchange.kind);
        if let Kind::Open(process) | Kind::Line(process) = kind {
            return self.remote_sse_failed((process, key), refusal, now);
        }
        let id =
            if exchange.id.is_empty() { Bytes::from_static(b"null") } else { exchange.id.clone() };
        let mut text = Vec::new();
        refusal.write_error(&mut text, &id, None);
        match reply {
            Reply::Pending(conn) => self.refuse(conn, refusal, &id, now),
            Reply::Whole(conn) => self.whole_answer(conn, &[&text], now),
            Reply::Relaying(conn) => self.relay_fails((conn, key), &text, now),
            Reply::Events(conn) => {
                self.body_chunk(conn, &event_text(&[&text]));
                self.body_end(conn, now);
            }
            Reply::Stream(number) => {
                if let Some(session) = session.filter(|_| kind == Kind::Request) {
                    self.stream_event((session, number), &[&text], now);
                    self.stream_answered(session, number, now);
                }
            }
            Reply::Channel(conn) if is_enveloped => {
                self.channel_envelops(conn, &id, &[&text], now);
            }
            Reply::Channel(conn) => self.channel_write(conn, &[&text], now),
            Reply::Leg(..) | Reply::Nobody => {}
        }
        self.exchange_end(key, Outcome::Refused(refusal), now);
        if let Some(session) = session {
            match kind {
                Kind::Initialize => self.session_end(session, "not initialized", now),
                Kind::Handshake | Kind::Setup => self.revive_failed(session, refusal, now),
                _ => {}
            }
        }
    }

    /// A response that cannot be completed is cut off, so that nobody takes it for complete.
    pub(super) fn client_lost_silently(&mut self, conn: ConnId, now: Instant) {
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::No;
        }
        self.client_close(conn, "server failed", now);
    }

    /// The client that waited is gone.
    pub(super) fn exchange_deserted(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        match (exchange.era, exchange.kind) {
            // 2026-07-28, basic/transports: "MUST be treated as cancellation".
            (Era::Modern, _) => {
                self.exchange_cancel(key, now);
            }
            (Era::Legacy, Kind::Initialize) => {
                let session = exchange.session;
                self.exchange_cancel(key, now);
                if let Some(session) = session {
                    self.session_end(session, "client closed", now);
                }
            }
            (Era::Legacy, Kind::Listen) => exchange.reply = Reply::Nobody,
            // 2025-11-25, basic/transports: "SHOULD NOT be interpreted as … cancelling".
            (Era::Legacy, _) => {
                exchange.reply = Reply::Nobody;
                self.watch(key, now);
            }
        }
    }

    /// A notice is done with: its client is told that it was taken.
    pub(super) fn notice_taken(&mut self, key: ExchangeId, now: Instant) {
        let conn = self.exchanges.get(key).and_then(|exchange| exchange.reply.client());
        self.exchange_end(key, Outcome::Answered(202), now);
        if let Some(conn) = conn {
            self.accept_after_all(conn, now);
        }
    }

    /// A client that waits for an answer gets none.
    fn accept_after_all(&mut self, conn: ConnId, now: Instant) {
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::No;
        }
        self.accept(conn, now);
    }

    /// Takes the work back from the server and ends the exchange.
    pub(super) fn exchange_cancel(&mut self, key: ExchangeId, now: Instant) {
        let via = self.exchanges.get(key).map(|exchange| exchange.via);
        if let Some(Via::Process(process, number)) = via {
            self.stdio_withdraw(process, number, now);
        }
        self.exchange_end(key, Outcome::Cancelled, now);
    }

    /// The client cancelled: there will be no answer, and its own connection is told so.
    pub(super) fn exchange_cancelled(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.is_cancelled = true;
        if let Via::Http(conn) = exchange.via
            && self.is_connected(conn)
        {
            // The server has got the notification and closes the stream as it likes.
            return;
        }
        self.exchange_unanswered(key, now);
    }

    fn exchange_unanswered(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (reply, session) = (exchange.reply, exchange.session);
        self.exchange_end(key, Outcome::Cancelled, now);
        match (reply, session) {
            (Reply::Pending(conn), _) => {
                self.events_head(conn, None);
                self.body_end(conn, now);
            }
            (Reply::Whole(conn), _) => self.accept_after_all(conn, now),
            (Reply::Events(conn), _) => self.body_end(conn, now),
            (Reply::Relaying(conn), _) => self.client_lost_silently(conn, now),
            (Reply::Stream(number), Some(session)) => self.stream_answered(session, number, now),
            _ => {}
        }
    }

    /// The end of every exchange.
    pub(super) fn exchange_end(&mut self, key: ExchangeId, outcome: Outcome, now: Instant) {
        let Some(exchange) = self.exchanges.remove(key) else { return };
        self.counters.in_flight -= 1;
        self.counters.gathered -= exchange.message.len() as u64;
        match (exchange.reply, outcome) {
            // The exchange of the client that it is for counts, and a missing member by itself.
            (Reply::Leg(..), _) => {}
            (_, Outcome::Answered(status)) if status < 400 => {}
            (_, Outcome::Answered(_) | Outcome::Error(_)) => self.counters.failed += 1,
            (_, Outcome::Refused(Refusal::Timeout)) => self.counters.timed_out += 1,
            (_, Outcome::Refused(_)) => self.counters.failed += 1,
            (_, Outcome::Cancelled) => self.counters.cancelled += 1,
        }
        if let Some(own) = exchange.session
            && let Some(session) = self.sessions.get_mut(own)
        {
            session.exchanges.retain(|other| *other != key);
            session.used_at = now;
            if session.is_replaced {
                self.timers.wish(Timer::Session(own), &mut session.wish, now);
            }
            if let Link::Http { listen, resume, .. } = &mut session.link
                && *listen == Some(key)
            {
                *listen = None;
                resume.clone_from(&exchange.last_event_id);
            }
        }
        if let (Via::Process(process, number), Outcome::Cancelled | Outcome::Refused(_)) =
            (exchange.via, outcome)
        {
            self.stdio_give_up(process, number, (exchange.session, now));
        }
        self.exchange_leaves(key, &exchange, now);
        self.legs_leave(key, exchange.via, now);
        self.report_exchange(&exchange, outcome, now);
        match exchange.reply {
            Reply::Channel(conn) => self.channel_left(conn, key, now),
            Reply::Leg(union, parent) => self.leg_ended((union, parent), key, (outcome, now)),
            _ => {}
        }
    }

    /// What carried it is free, or has to be closed because its answer may still come.
    fn exchange_leaves(&mut self, key: ExchangeId, exchange: &Exchange, now: Instant) {
        match exchange.via {
            Via::Nothing | Via::Leg(_) | Via::Union(_) => {}
            Via::Process(process, number) => self.stdio_forget(process, number, now),
            Via::Http(conn) => {
                let is_its = match self.conns.get(conn).map(|entry| &entry.role) {
                    Some(Role::Server(server)) => server.exchange == Some(key),
                    Some(Role::Client(_) | Role::Channel(_) | Role::Process(_) | Role::Link(_))
                    | None => false,
                };
                if is_its {
                    self.server_close(conn, now);
                }
            }
        }
    }

    /// Makes sure that an exchange without a client connection is woken at its deadline.
    pub(super) fn watch(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let at = [exchange.deadline, exchange.resume_at].into_iter().flatten().min();
        if let Some(at) = at {
            self.timers.wish(Timer::Exchange(key), &mut exchange.wish, at.max(now));
        }
    }
}

/// An event of a stream that cannot be resumed.
pub(super) fn event_text(parts: &[&[u8]]) -> Bytes {
    let mut event = Vec::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + 16);
    wire::sse::write_event_head(&mut event, None);
    for part in parts {
        // A line break in JSON stands between values, where a space means the same.
        event.extend(
            part.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }),
        );
    }
    event.extend_from_slice(wire::sse::EVENT_END);
    Bytes::from(event)
}

/// The HTTP status of a JSON-RPC answer (2026-07-28, basic/transports/streamable-http; the legacy
/// revisions answer 200 whatever the message says).
fn http_status(era: Era, error: Option<i64>) -> u16 {
    match (era, error) {
        (Era::Modern, Some(-32601)) => 404,
        (Era::Modern, Some(-32022..=-32020)) => 400,
        _ => 200,
    }
}
