//! What comes back from HTTP servers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::Decoded;
use wire::http1::{self, BodyDecoder, HeaderSlots, ResponseHead};
use wire::rpc;
use wire::sse::EventParser;

use crate::backend::http::{ResponseBody, Sink};
use crate::exchange::{Kind, Reply, Via};
use crate::frontend::answer::Body;
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::message::{Era, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::session::replay::{From, GET_STREAM};
use crate::shard::Shard;
use crate::shard::answer::Outcome;
use crate::shard::stdio::answer_for_nobody;

const HEAD_LIMITS: http1::Limits =
    http1::Limits { head_len_max: limits::HEAD_LEN_MAX, target_len_max: limits::TARGET_LEN_MAX };

impl Shard {
    /// Bytes of an HTTP server.
    pub(super) fn server_plain(&mut self, conn: ConnId, mut bytes: &[u8], now: Instant) {
        loop {
            let Some(server) = self.server_mut(conn) else { return };
            if let Some(body) = server.body.take() {
                match self.server_body(conn, body, bytes, now) {
                    Some(used) => bytes = bytes.get(used..).unwrap_or_default(),
                    None => return,
                }
            } else {
                match self.server_head(conn, bytes, now) {
                    Some(used) => bytes = bytes.get(used..).unwrap_or_default(),
                    None => return,
                }
            }
            // A body without content is over as soon as its head is.
            let is_begun = self.server_mut(conn).is_some_and(|server| server.body.is_some());
            if bytes.is_empty() && !is_begun {
                return;
            }
        }
    }

    /// A response head, or a part of one. Returns what was used; none: wait or it is over.
    fn server_head(&mut self, conn: ConnId, bytes: &[u8], now: Instant) -> Option<usize> {
        let server = self.server_mut(conn)?;
        let Some(key) = server.exchange else {
            // Nobody asked: what this connection says next cannot be trusted.
            self.server_close(conn, now);
            return None;
        };
        server.is_answering = true;
        let before = server.head.len();
        let mut head = std::mem::take(&mut server.head);
        let input = if head.is_empty() {
            bytes
        } else {
            head.extend_from_slice(bytes);
            &head
        };
        let mut slots = HeaderSlots::new();
        match http1::response(input, &mut slots, HEAD_LIMITS, false) {
            Ok(Decoded::Incomplete) => {
                let rest = input.to_vec();
                self.server_mut(conn)?.head = rest;
                None
            }
            Ok(Decoded::Item { item, used }) if (100..200).contains(&item.status) => {
                // RFC 9110, section 15.2: interim responses may come at any time.
                let server = self.server_mut(conn)?;
                server.interims += 1;
                if item.status == 101 || limits::INTERIMS_MAX < server.interims {
                    self.server_invalid(conn, key, now);
                    return None;
                }
                Some(used - before)
            }
            Ok(Decoded::Item { item, used }) => {
                let decoder = BodyDecoder::new(item.body);
                let keep_alive = item.keep_alive;
                let place = self.server_mut(conn).map(|server| (server.server, server.endpoint))?;
                if !self.is_avoided(place, now) {
                    // An answer is as good as a new connection, once such a one may be tried again.
                    self.endpoint_worked(place, now);
                }
                let sink = self.response_begins(conn, key, &item, now)?;
                let server = self.server_mut(conn)?;
                server.body = Some(ResponseBody { decoder, keep_alive, sink });
                Some(used - before)
            }
            Err(_) => {
                self.server_invalid(conn, key, now);
                None
            }
        }
    }

    fn server_invalid(&mut self, conn: ConnId, key: ExchangeId, now: Instant) {
        if let Some(server) = self.server_mut(conn) {
            server.exchange = None;
        }
        self.server_close(conn, now);
        self.exchange_fail(key, Refusal::BadServer, now);
    }

    /// A piece of a response body.
    fn server_body(
        &mut self,
        conn: ConnId,
        mut body: ResponseBody,
        bytes: &[u8],
        now: Instant,
    ) -> Option<usize> {
        let key = self.server_mut(conn)?.exchange;
        let Ok(part) = body.decoder.decode(bytes) else {
            match key {
                Some(key) => self.server_invalid(conn, key, now),
                None => self.server_close(conn, now),
            }
            return None;
        };
        let is_fine = match key {
            Some(key) => self.response_part(conn, key, (&mut body.sink, part.data), now),
            None => true,
        };
        if !is_fine {
            if let Some(key) = key {
                self.server_invalid(conn, key, now);
            }
            return None;
        }
        let server = self.server_mut(conn)?;
        let key = server.exchange;
        if part.done {
            // Bytes that nobody asked for must not become the answer to the next request.
            let keep_alive = body.keep_alive && part.used == bytes.len();
            match key {
                Some(key) => self.response_ends(conn, key, (body.sink, keep_alive), now),
                None => self.server_free(conn, keep_alive, now),
            }
            return Some(part.used);
        }
        server.body = Some(body);
        (part.used != 0).then_some(part.used)
    }

    /// A response head has come: what will become of the body? None: the exchange is over.
    fn response_begins(
        &mut self,
        conn: ConnId,
        key: ExchangeId,
        head: &ResponseHead<'_, '_>,
        now: Instant,
    ) -> Option<Sink> {
        self.exchange_alive(key, now);
        let exchange = self.exchanges.get(key)?;
        let (kind, era, reply) = (exchange.kind, exchange.era, exchange.reply);
        let content_type = head.headers.get("content-type");
        let is_events = head.status == 200 && Self::is_event_stream(content_type);
        self.session_named(key, head);
        match (kind, head.status) {
            (Kind::Delete, _) => return Some(Sink::Discard),
            (Kind::Setup | Kind::Line(_), 200..300) => return Some(Sink::Discard),
            (Kind::Notice, 200..300) if matches!(reply, Reply::Leg(..)) => {
                return Some(Sink::Discard);
            }
            // Not the server's word, but that of something before it.
            (_, 500..) if matches!(reply, Reply::Leg(..)) => {
                self.server_detach(conn);
                self.server_close(conn, now);
                self.exchange_fail(key, Refusal::Died, now);
                return None;
            }
            (_, 401 | 403) => {
                self.server_detach(conn);
                self.server_close(conn, now);
                self.exchange_fail(key, Refusal::Credentials, now);
                return None;
            }
            _ => {}
        }
        let gather = || Sink::Gather {
            status: head.status,
            bytes: Vec::new(),
            content_type: content_type.map(Box::from),
        };
        match kind {
            Kind::Open(_) if is_events => {
                return Some(Sink::Events(Box::new(EventParser::new(
                    self.settings.message_len_max,
                ))));
            }
            Kind::Open(id) | Kind::Line(id) => {
                self.server_detach(conn);
                self.server_close(conn, now);
                let is_lost = head.status == 404 && matches!(kind, Kind::Line(_));
                self.exchange_fail(key, Refusal::BadServer, now);
                if is_lost {
                    self.remote_sse_refused(id, now);
                }
                return None;
            }
            _ => {}
        }
        if era == Era::Modern && !matches!(reply, Reply::Channel(_) | Reply::Leg(..)) {
            return Some(self.relay(key, (head.status, content_type), head.body));
        }
        if is_events && kind != Kind::Probe {
            if kind == Kind::Listen {
                self.listen_begins(key, now);
            }
            return Some(Sink::Events(Box::new(EventParser::new(self.settings.message_len_max))));
        }
        let is_rest = matches!(kind, Kind::Listen | Kind::Handshake | Kind::Setup);
        let may_be_lost = matches!(head.status, 400 | 404);
        match reply {
            _ if may_be_lost || is_rest && kind != Kind::Listen => Some(gather()),
            _ if kind == Kind::Initialize => Some(gather()),
            Reply::Stream(_) | Reply::Channel(_) | Reply::Whole(_) | Reply::Leg(..) => {
                Some(gather())
            }
            Reply::Pending(_) => Some(self.relay(key, (head.status, content_type), head.body)),
            Reply::Nobody | Reply::Relaying(_) | Reply::Events(_) => Some(Sink::Discard),
        }
    }

    /// The server's session id is in the head of the answer to `initialize`.
    fn session_named(&mut self, key: ExchangeId, head: &ResponseHead<'_, '_>) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        if !matches!(exchange.kind, Kind::Initialize | Kind::Handshake) || head.status != 200 {
            return;
        }
        // "visible ASCII characters (0x21 to 0x7E)" (basic/transports, "Session Management").
        let is_fine = |id: &&[u8]| {
            (1..=1024).contains(&id.len()) && id.iter().all(|byte| (0x21..=0x7e).contains(byte))
        };
        let named = head.headers.get("mcp-session-id").filter(is_fine);
        if let Some(session) = exchange.session.and_then(|key| self.sessions.get_mut(key))
            && let Link::Http { id, .. } = &mut session.link
        {
            *id = named.map(Bytes::copy_from_slice);
        }
    }

    /// The server agreed to be listened to.
    fn listen_begins(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        // It knows the session; should it lose it again, that is another loss.
        exchange.retried = false;
        let reply = std::mem::replace(&mut exchange.reply, Reply::Stream(GET_STREAM));
        let place = exchange.session.and_then(|key| self.sessions.get(key)?.parent);
        if let Some(place) = place {
            self.member_heard(place);
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (Reply::Pending(client), Some(session)) = (reply, exchange.session) else { return };
        let from = match self.sessions.get(session).map(|session| &session.link) {
            Some(Link::Http { from, .. }) => *from,
            Some(Link::Process(_) | Link::Union(_)) | None => From::Undelivered,
        };
        self.stream_attach(client, (session, GET_STREAM, from), now);
    }

    /// A piece of a body for its sink; false: the server is not to be trusted.
    fn response_part(
        &mut self,
        conn: ConnId,
        key: ExchangeId,
        (sink, mut data): (&mut Sink, &[u8]),
        now: Instant,
    ) -> bool {
        match sink {
            Sink::Relay(events) => {
                self.relay_part((conn, key), (events, data), now);
                true
            }
            Sink::Events(parser) => loop {
                match parser.next(&mut data) {
                    Ok(Some(event)) => {
                        let kind = self.exchanges.get(key).map(|exchange| exchange.kind);
                        if let Some(Kind::Open(process)) = kind {
                            if event.has_data {
                                self.remote_sse_event(process, (event.name, event.data), now);
                            }
                            continue;
                        }
                        let id = event.id.map(Bytes::copy_from_slice);
                        self.server_event((conn, key), event.data, (id, event.retry_ms), now);
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            },
            Sink::Gather { status, bytes, .. } => {
                bytes.extend_from_slice(data);
                let len_max = match status {
                    200 => self.settings.message_len_max,
                    _ => limits::ERROR_BODY_LEN_MAX,
                };
                bytes.len() <= len_max
            }
            Sink::Discard => true,
        }
    }

    /// The answer has been taken out of a stream: what follows in it is of no interest.
    fn server_detach(&mut self, conn: ConnId) {
        if let Some(server) = self.server_mut(conn) {
            server.exchange = None;
        }
    }

    /// One event of a legacy server.
    fn server_event(
        &mut self,
        (conn, key): (ConnId, ExchangeId),
        data: &[u8],
        (id, retry): (Option<Bytes>, Option<u64>),
        now: Instant,
    ) {
        self.exchange_alive(key, now);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if id.is_some() {
            exchange.last_event_id = id;
        }
        if let Some(retry) = retry {
            exchange.retry = Duration::from_millis(retry.min(60_000));
        }
        let (kind, session) = (exchange.kind, exchange.session);
        if data.is_empty() {
            self.server_primes(key, retry, now);
            return;
        }
        exchange.resumed = exchange.resumed.min(1);
        let Ok(envelope) = rpc::scan(data, self.rpc_limits()) else {
            self.counters.dropped += 1;
            return;
        };
        match envelope.kind {
            rpc::Kind::Response | rpc::Kind::ErrorResponse if kind == Kind::Listen => {
                // A GET stream carries no answers (2025-11-25, basic/transports).
                self.counters.dropped += 1;
            }
            rpc::Kind::Response | rpc::Kind::ErrorResponse => {
                self.server_detach(conn);
                self.wish_conn(conn, now + limits::SERVER_IDLE_TIMEOUT);
                self.http_answered(key, data, &envelope, now);
            }
            rpc::Kind::Request => {
                let question = envelope.id.map_or(&b"null"[..], |id| id.get(data));
                let asked = session.and_then(|key| self.sessions.get_mut(key));
                if asked.is_some_and(|session| session.ask(question)) {
                    self.counters.forwarded += 1;
                    self.answer_event(key, &[data], now);
                } else {
                    self.counters.dropped += 1;
                    let is_ping = envelope.method.is_some_and(|method| method.eq(data, "ping"));
                    self.http_answers(session, answer_for_nobody(question, is_ping), now);
                }
            }
            rpc::Kind::Notification => {
                if envelope.method.is_some_and(|m| m.eq(data, "notifications/cancelled"))
                    && let Some(session) = session.and_then(|key| self.sessions.get_mut(key))
                {
                    let question = envelope.request_id.map(|id| id.get(data));
                    session.answer(question.unwrap_or_default());
                }
                self.counters.forwarded += 1;
                self.answer_event(key, &[data], now);
            }
        }
    }

    /// Tells an HTTP server that its question finds nobody.
    fn http_answers(&mut self, session: Option<SessionKey>, message: Vec<u8>, now: Instant) {
        let Some(key) = session else { return };
        let Some(server) = self.sessions.get(key).map(|session| session.server) else { return };
        let notice = self.begin_own(Kind::Notice, (Some(key), server), message.into(), now);
        if let Some(notice) = notice {
            self.http_send(notice, now);
        }
    }

    /// An event without data: the server may end the connection and expect to be asked again.
    fn server_primes(&mut self, key: ExchangeId, retry: Option<u64>, now: Instant) {
        let reply = self.exchanges.get(key).map(|exchange| exchange.reply);
        let key = match reply {
            Some(Reply::Leg(_, Some(parent))) => parent,
            _ => key,
        };
        self.exchange_stream(key, now);
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (Reply::Stream(number), Some(session)) = (exchange.reply, exchange.session) else {
            return;
        };
        let Some(retry) = retry else { return };
        let stream = self.sessions.get_mut(session).and_then(|s| s.replay.get(number));
        if let Some(client) = stream.and_then(|stream| stream.client) {
            let text = format!("retry: {retry}\n\n");
            self.body_chunk(client, &Bytes::from(text));
        }
    }

    /// The JSON-RPC answer of an HTTP server.
    fn http_answered(
        &mut self,
        key: ExchangeId,
        bytes: &[u8],
        envelope: &rpc::Envelope,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (kind, session) = (exchange.kind, exchange.session);
        let id = envelope.id.map(|span| span.get(bytes));
        let is_alone =
            matches!(exchange.reply, Reply::Channel(_) | Reply::Whole(_) | Reply::Leg(..));
        if is_alone && id != Some(&*exchange.id) {
            // Nothing but the id says to the client whose answer it is.
            return self.exchange_fail(key, Refusal::BadServer, now);
        }
        let error = envelope.error.map(|_| envelope.error_code.unwrap_or_default());
        if let Some(result) = envelope.result {
            self.channel_learns(key, result.get(bytes));
        }
        match (kind, session) {
            (Kind::Handshake | Kind::Setup, Some(session)) => {
                self.exchange_end(key, Outcome::Answered(200), now);
                let version = envelope.result_version.map(|text| text.decode(bytes));
                let agreed = version.and_then(|version| Revision::parse(&version));
                if let (Some(agreed), Some(session)) = (agreed, self.sessions.get_mut(session)) {
                    session.revision = agreed.min(Revision::NEWEST_LEGACY);
                }
                match error {
                    Some(_) if kind == Kind::Handshake => {
                        self.revive_failed(session, Refusal::BadServer, now);
                    }
                    _ => self.revive_next(session, now),
                }
            }
            (Kind::Initialize, Some(session)) => {
                if error.is_none() {
                    let version = envelope.result_version.map(|text| text.decode(bytes));
                    let id = match self.sessions.get(session).map(|session| &session.link) {
                        Some(Link::Http { id, .. }) => id.clone(),
                        _ => None,
                    };
                    self.session_opened(session, version.as_deref(), id);
                }
                self.answer(key, &[bytes], error, now);
                if error.is_some() {
                    self.session_end(session, "not initialized", now);
                }
            }
            _ => self.answer(key, &[bytes], error, now),
        }
    }

    /// A response is complete.
    pub(super) fn response_ends(
        &mut self,
        conn: ConnId,
        key: ExchangeId,
        (sink, keep_alive): (Sink, bool),
        now: Instant,
    ) {
        self.server_detach(conn);
        match sink {
            Sink::Relay(_) => {
                self.server_free(conn, keep_alive, now);
                self.relay_ends(key, now);
            }
            Sink::Events(_) => {
                self.server_free(conn, keep_alive, now);
                self.events_broke(key, now);
            }
            Sink::Gather { status, bytes, content_type, .. } => {
                self.server_free(conn, keep_alive, now);
                self.gathered(key, (status, content_type.as_deref()), &bytes, now);
            }
            Sink::Discard => {
                self.server_free(conn, keep_alive, now);
                let exchange = self.exchanges.get(key);
                if let Some(Kind::Line(process)) = exchange.map(|exchange| exchange.kind) {
                    return self.remote_sse_posted(process, key, now);
                }
                let setup = exchange.filter(|e| e.kind == Kind::Setup).and_then(|e| e.session);
                self.exchange_end(key, Outcome::Answered(200), now);
                if let Some(session) = setup {
                    self.revive_next(session, now);
                }
            }
        }
    }

    /// A response was cut off.
    pub(super) fn response_breaks(&mut self, key: ExchangeId, sink: Sink, now: Instant) {
        match sink {
            Sink::Events(_) => self.events_broke(key, now),
            Sink::Gather { .. } if self.http_repeats(key, now) => {}
            Sink::Relay(_) | Sink::Gather { .. } | Sink::Discard => {
                self.exchange_fail(key, Refusal::Died, now);
            }
        }
    }

    /// A legacy event stream ended before the answer was in it.
    pub(super) fn events_broke(&mut self, key: ExchangeId, now: Instant) {
        if self.listen_again(key, now) {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        let (kind, session, reply) = (exchange.kind, exchange.session, exchange.reply);
        if kind == Kind::Listen {
            let client = session.and_then(|key| self.sessions.get_mut(key));
            let stream = client.and_then(|session| session.replay.get(GET_STREAM));
            let client = stream.and_then(|stream| stream.client.take());
            self.exchange_end(key, Outcome::Answered(200), now);
            if let Some(client) = client {
                // The client asks again, and then the server is asked again.
                self.body_end(client, now);
            }
            return;
        }
        let can_resume = exchange.last_event_id.is_some()
            && !exchange.is_cancelled
            && exchange.resumed < limits::RESUMES_MAX
            && kind == Kind::Request;
        if !can_resume || !self.is_where_it_was(key) {
            if !self.http_repeats(key, now) {
                self.exchange_fail(key, Refusal::Died, now);
            }
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.resumed += 1;
        exchange.resume_at = Some(now + exchange.retry);
        self.watch(key, now);
        let outer = self.outer_reply(reply).unwrap_or((reply, session));
        if let (Reply::Stream(number), Some(session)) = outer {
            self.stream_suspended(session, number, now);
        }
    }

    /// As its server does, the gateway ends the client's connection; the stream goes on when the
    /// client asks for it (2025-11-25, basic/transports: polling).
    fn stream_suspended(&mut self, key: SessionKey, number: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.revision < Revision::V2025_11_25 {
            return;
        }
        let client = session.replay.get(number).and_then(|stream| stream.client.take());
        if let Some(client) = client {
            self.body_end(client, now);
        }
    }

    /// A response that had to be seen whole.
    fn gathered(
        &mut self,
        key: ExchangeId,
        (status, content_type): (u16, Option<&[u8]>),
        bytes: &[u8],
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        let (kind, session, reply) = (exchange.kind, exchange.session, exchange.reply);
        let (id, is_retried) = (exchange.id.clone(), exchange.retried);
        if status == 200 {
            match rpc::scan(bytes, self.rpc_limits()) {
                Ok(envelope) => self.http_answered(key, bytes, &envelope, now),
                Err(_) => self.exchange_fail(key, Refusal::BadServer, now),
            }
            return;
        }
        if self.falls_back(key, status, now) {
            return;
        }
        // A second 400 is an answer, if it has the form of one.
        let is_message = || rpc::scan(bytes, self.rpc_limits()).is_ok();
        let is_second = is_retried && status == 400 && is_message();
        if let Some(session) = session.filter(|_| !is_second)
            && self.is_session_lost(key, (status, bytes))
        {
            self.session_lost(session, key, now);
            return;
        }
        if let Reply::Channel(_) | Reply::Whole(_) | Reply::Leg(..) = reply {
            // The error is in the body, if it is one for this request (2026-07-28 has them with
            // 400 and 404).
            let envelope = rpc::scan(bytes, self.rpc_limits()).ok();
            match envelope.filter(|it| it.id.is_some_and(|span| span.get(bytes) == id)) {
                Some(envelope) => self.http_answered(key, bytes, &envelope, now),
                None => self.exchange_fail(key, Refusal::BadServer, now),
            }
            return;
        }
        let Reply::Pending(client) = reply else {
            self.exchange_fail(key, Refusal::BadServer, now);
            return;
        };
        self.response_head(client, (status, content_type), Body::Length(bytes.len() as u64), None);
        self.body_bytes(client, bytes);
        self.client_done(client, now);
        self.exchange_end(key, Outcome::Answered(status), now);
        if kind == Kind::Initialize
            && let Some(session) = session
        {
            self.session_end(session, "not initialized", now);
        }
    }
}
