//! Sessions: opened by `initialize`, listened to by GET, ended by DELETE or by time.

use std::time::Instant;

use bytes::Bytes;
use wire::http1::{Headers, RequestHead};
use wire::json;
use wire::rpc::{self, Document};

use crate::exchange::{Kind, Reply, Via};
use crate::frontend::answer::{Body, Head};
use crate::frontend::http::{Busy, Form};
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::message::{Era, Payload, Revision};
use crate::refusal::Refusal;
use crate::session::id::SessionId;
use crate::session::replay::{From, GET_STREAM, parse_event_id};
use crate::session::{Link, Session};
use crate::shard::post::Incoming;
use crate::shard::process::INITIALIZED;
use crate::shard::{Shard, Timer};
use crate::upstream::catalog::{Isolation, ServerId};

impl Shard {
    /// `initialize`: a session begins. The id goes out with the answer. Returns the session if that
    /// is not over already.
    pub(super) fn session_open(
        &mut self,
        conn: ConnId,
        incoming: Incoming<'_>,
        now: Instant,
    ) -> Option<SessionKey> {
        let bytes = incoming.bytes();
        let asked = incoming.envelope.protocol_version;
        let revision = asked.and_then(|text| Revision::parse(&text.decode(bytes)));
        // What is agreed on is agreed per hop: never ask for a revision that we could not serve.
        let payload = match (asked, revision.filter(|revision| revision.era() == Era::Legacy)) {
            (Some(text), None) => {
                let mut patched = Vec::with_capacity(bytes.len());
                let newest = Revision::NEWEST_LEGACY.name().as_bytes();
                rpc::splice(&mut patched, bytes, &[(text.inner, newest)]);
                Payload::Whole(Bytes::from(patched))
            }
            _ => incoming.payload.clone(),
        };
        let Ok(envelope) = rpc::scan(payload.bytes(), self.rpc_limits()) else {
            self.refuse(conn, Refusal::TooLarge, incoming.id(), now);
            return None;
        };
        if limits::SESSION_INITIALIZE_LEN_MAX < payload.bytes().len() {
            self.refuse(conn, Refusal::TooLarge, incoming.id(), now);
            return None;
        }
        let link = self.link(incoming.server)?;
        let id = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        let mut session = Session::new((id, incoming.server), payload.keep(), link, now);
        session.revision = revision.unwrap_or(Revision::NEWEST_LEGACY).min(Revision::NEWEST_LEGACY);
        if let Some(channel) = self.channel_mut(conn) {
            session.channel = Some(conn);
            session.is_mute = !channel.writer.has_events() || channel.envelope.is_some();
        } else if let Some(client) = self.client_mut(conn) {
            session.is_mute = client.form != Form::Any;
        }
        let Some(key) = self.session_insert(session) else {
            self.refuse(conn, Refusal::Full, incoming.id(), now);
            return None;
        };
        if let Some(channel) = self.channel_mut(conn) {
            channel.session = Some(key);
        }
        let has_room = self.union_begin(key, now);
        let incoming =
            Incoming { session: Some(key), payload: &payload, envelope: &envelope, ..incoming };
        match self.begin(conn, Kind::Initialize, &incoming, now) {
            Some(exchange) if !has_room => self.exchange_fail(exchange, Refusal::Full, now),
            Some(exchange) => {
                let upkeep = self.upkeep(incoming.server);
                let upkeep = upkeep.filter(|_| self.is_process(incoming.server));
                let start_timeout = upkeep.map(|upkeep| upkeep.start_timeout);
                if let (Some(timeout), Some(exchange)) =
                    (start_timeout, self.exchanges.get_mut(exchange))
                {
                    exchange.timeout = Some(timeout);
                    exchange.deadline = Some(now + timeout);
                    self.wish_conn(conn, now + timeout);
                }
                // A channel does not look after its exchanges.
                self.watch(exchange, now);
                self.forward(exchange, &incoming, now);
            }
            None => self.session_end(key, "refused", now),
        }
        self.session_watch(key, now);
        self.sessions.get(key).map(|_| key)
    }

    /// A session that the gateway opens by itself, on behalf of a client that says no `initialize`
    /// to this server: it is set up like one that its server has lost.
    pub(super) fn session_adopt(
        &mut self,
        conn: ConnId,
        (server, initialize): (ServerId, Bytes),
        now: Instant,
    ) -> Option<SessionKey> {
        let link = self.link(server)?;
        let id = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        let mut session = Session::new((id, server), initialize, link, now);
        session.is_open = true;
        session.initialized = Some(Bytes::from_static(INITIALIZED));
        session.is_initialized = true;
        session.channel = self.channel_mut(conn).map(|_| conn);
        session.is_mute = true;
        let key = self.session_insert(session)?;
        if let Some(channel) = self.channel_mut(conn) {
            channel.others.push(key);
        }
        self.counters.sessions_opened += 1;
        if !self.union_begin(key, now) {
            self.session_end(key, "refused", now);
            return None;
        }
        self.session_watch(key, now);
        if matches!(self.sessions.get(key)?.link, Link::Http { .. }) {
            self.session_revive(key, (Vec::new(), None), now);
        }
        // What cannot even be begun has ended the session again.
        self.sessions.get(key).map(|_| key)
    }

    /// Puts a session into the table, unless there are too many. Those of clients and those with
    /// members on their behalf do not take each other's places.
    pub(super) fn session_insert(&mut self, session: Session) -> Option<SessionKey> {
        let (id, of_clients) = (session.id, self.counters.sessions);
        let is_ours = session.parent.is_some();
        let (count, max) = match is_ours {
            true => (self.sessions.len() as u64 - of_clients, limits::MEMBER_SESSIONS_MAX),
            false => (of_clients, limits::SESSIONS_MAX),
        };
        if max as u64 <= count {
            return None;
        }
        let key = self.sessions.insert(session).ok()?;
        self.session_keys.insert(id, key);
        self.counters.sessions += u64::from(!is_ours);
        Some(key)
    }

    pub(super) fn link(&self, server: ServerId) -> Option<Link> {
        self.settings.catalog.get(server)?;
        let link = match self.is_process(server) {
            true => Link::Process(None),
            false => Link::Http {
                endpoint: None,
                id: None,
                listen: None,
                resume: None,
                from: From::Undelivered,
                revival: None,
            },
        };
        Some(link)
    }

    /// `initialize` was answered with a result of this revision.
    pub(super) fn session_opened(
        &mut self,
        key: SessionKey,
        version: Option<&[u8]>,
        server_id: Option<Bytes>,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let agreed = version.and_then(Revision::parse).unwrap_or(session.revision);
        session.revision = agreed.min(Revision::NEWEST_LEGACY);
        session.is_open = true;
        if let Link::Http { id, .. } = &mut session.link {
            *id = server_id;
        }
        self.counters.sessions_opened += 1;
    }

    /// Ends a session: streams are closed, work in flight is cancelled, the server is told.
    pub(super) fn session_end(&mut self, key: SessionKey, why: &'static str, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        for exchange in session.exchanges.clone() {
            self.stdio_drops(exchange, now);
            self.exchange_fail(exchange, Refusal::UnknownSession, now);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let streams: Vec<ConnId> =
            session.replay.iter().filter_map(|stream| stream.client.take()).collect();
        for conn in streams {
            self.body_end(conn, now);
        }
        let Some(session) = self.sessions.remove(key) else { return };
        self.session_keys.remove(&session.id);
        self.holders.forget_session(key);
        self.counters.sessions -= u64::from(session.parent.is_none());
        self.counters.replay -= session.replay.kept_len() as u64;
        self.report_session(&session, why, now);
        let mut is_whole = false;
        if let Some(channel) = session.channel.and_then(|conn| self.channel_mut(conn)) {
            channel.others.retain(|other| *other != key);
            is_whole = channel.session.take_if(|own| *own == key).is_some();
        }
        match session.link {
            Link::Process(Some(process)) => self.process_left(process, key, now),
            Link::Process(None) => {}
            Link::Http { id, endpoint, revival, .. } => {
                // It may be on its way from one endpoint to another, and known at both.
                let before = revival.and_then(|revival| revival.from);
                let is_new = |id: &Bytes| before.as_ref().is_none_or(|(_, before)| before != id);
                let here = id.filter(is_new).map(|id| (endpoint.unwrap_or_default(), id));
                for (endpoint, id) in before.into_iter().chain(here) {
                    self.http_delete((session.server, endpoint, session.revision), id, now);
                }
            }
            Link::Union(union) => self.union_end(union, now),
        }
        if let Some(place) = session.parent {
            self.member_left(place, key, now);
        }
        if let Some(conn) = session.channel.filter(|_| session.is_open && is_whole) {
            // There is no other way to say that the session is over.
            self.channel_close(conn, why, now);
        }
    }

    /// DELETE: the client ends its session.
    pub(super) fn delete(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        server: ServerId,
        now: Instant,
    ) {
        match self.session_request(&head.headers, server) {
            Ok(session) => {
                self.session_end(session, "deleted", now);
                self.answer_empty(conn, 200, now);
            }
            Err(refusal) => self.refuse(conn, refusal, b"null", now),
        }
    }

    fn answer_empty(&mut self, conn: ConnId, status: u16, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        let (origin, keep_alive) = (client.origin.clone(), client.framing.keep_alive);
        let head = Head {
            status,
            content_type: None,
            body: Body::Length(0),
            session: None,
            origin: origin.as_deref(),
            keep_alive,
        };
        self.write(conn, |output| head.write(output.tail()));
        self.client_done(conn, now);
    }

    /// The session of a GET or DELETE. 2026-07-28 has neither (basic/transports: 405).
    fn session_request(
        &mut self,
        headers: &Headers<'_, '_>,
        server: ServerId,
    ) -> Result<SessionKey, Refusal> {
        match headers.get("mcp-protocol-version").map(Revision::parse) {
            Some(None) => return Err(Refusal::Version),
            Some(Some(revision)) if revision.era() == Era::Modern => return Err(Refusal::Method),
            _ => {}
        }
        self.session_of(headers, server)
    }

    /// GET: a client listens, or goes on with a stream that it lost.
    pub(super) fn get(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        server: ServerId,
        now: Instant,
    ) {
        let session = match self.session_request(&head.headers, server) {
            Ok(session) => session,
            Err(refusal) => {
                self.refuse(conn, refusal, b"null", now);
                return;
            }
        };
        let resume = match head.headers.get("last-event-id") {
            None => Some((GET_STREAM, From::Undelivered)),
            Some(id) => parse_event_id(id),
        };
        let Some((stream, from)) = resume else {
            self.refuse(conn, Refusal::Event, b"null", now);
            return;
        };
        let kept = self.sessions.get(session).map(|session| &session.replay);
        if !kept.is_some_and(|replay| replay.can_attach(stream, from)) {
            self.refuse(conn, Refusal::Event, b"null", now);
            return;
        }
        if stream == GET_STREAM && self.listen_first(conn, (session, from), now) {
            return;
        }
        self.stream_attach(conn, (session, stream, from), now);
    }

    /// Before a client can listen to an HTTP server, that must agree to be listened to.
    fn listen_first(
        &mut self,
        conn: ConnId,
        (key, start): (SessionKey, From),
        now: Instant,
    ) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let Link::Http { listen: None, resume, .. } = &session.link else { return false };
        let (resume, server) = (resume.clone(), session.server);
        let Some(exchange) = self.begin_own(Kind::Listen, (Some(key), server), Bytes::new(), now)
        else {
            self.refuse(conn, Refusal::Full, b"null", now);
            return true;
        };
        if let Some(exchange) = self.exchanges.get_mut(exchange) {
            exchange.reply = Reply::Pending(conn);
            exchange.last_event_id = resume;
        }
        if let Some(session) = self.sessions.get_mut(key)
            && let Link::Http { listen, from, .. } = &mut session.link
        {
            *listen = Some(exchange);
            *from = start;
        }
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::Exchange(exchange);
        }
        self.http_send(exchange, now);
        true
    }

    /// Gives a stream of the session to a client connection.
    pub(super) fn stream_attach(
        &mut self,
        conn: ConnId,
        (key, number, from): (SessionKey, u32, From),
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            self.refuse(conn, Refusal::UnknownSession, b"null", now);
            return;
        };
        session.used_at = now;
        let before = session.replay.get(number).and_then(|stream| stream.client);
        let Some(events) = session.replay.attach(number, from, conn) else {
            self.refuse(conn, Refusal::Event, b"null", now);
            return;
        };
        let revision = session.revision;
        let stream = session.replay.get(number);
        let is_over = stream.as_ref().is_some_and(|s| number != GET_STREAM && s.open == 0);
        let priming = stream.map(|stream| stream.priming_id());
        if let Some(before) = before.filter(|before| *before != conn) {
            // A client has one connection per stream; the new one replaces the lost one.
            self.body_end(before, now);
        }
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::Stream(key, number);
        }
        self.events_head(conn, None);
        if events.is_empty() && Revision::V2025_11_25 <= revision {
            self.events_prime(conn, &priming.unwrap_or_default());
        }
        for event in events {
            self.body_chunk(conn, &event);
        }
        self.wish_conn(conn, now + limits::COMMENT_INTERVAL);
        if is_over {
            if let Some(stream) = self.sessions.get_mut(key).and_then(|s| s.replay.get(number)) {
                stream.client = None;
            }
            self.body_end(conn, now);
        }
    }

    /// A client connection that got a stream is gone; the stream goes on without it.
    pub(super) fn stream_detached(
        &mut self,
        key: SessionKey,
        number: u32,
        conn: ConnId,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.used_at = now;
        if let Some(stream) = session.replay.get(number)
            && stream.client == Some(conn)
        {
            stream.client = None;
        }
        self.session_watch(key, now);
    }

    /// A message of the server that belongs to no stream of a request: the GET stream's.
    pub(super) fn listen_event(&mut self, key: SessionKey, data: &[&[u8]], now: Instant) {
        self.stream_event((key, GET_STREAM), data, now);
    }

    /// Who names many sessions or streams that are none is guessing, and gets one guess per
    /// connection then. Those that exist are served all the same: neighbours may come from the same
    /// address.
    pub(super) fn count_guess(&mut self, conn: ConnId, refusal: Refusal, now: Instant) -> Refusal {
        let Some(source) = self.client_mut(conn).and_then(|client| client.peer.address.ip()) else {
            return refusal;
        };
        let is_guess = matches!(refusal, Refusal::UnknownSession | Refusal::NoStream);
        if !is_guess || self.guesses.take(source, now) {
            return refusal;
        }
        if let Some(client) = self.client_mut(conn) {
            client.framing.keep_alive = false;
            client.inbox = Vec::new();
        }
        Refusal::Guesses
    }

    pub(super) fn session_watch(&mut self, key: SessionKey, now: Instant) {
        let at = now + self.settings.session_idle_timeout;
        if let Some(session) = self.sessions.get_mut(key) {
            self.timers.wish(Timer::Session(key), &mut session.wish, at);
        }
    }

    /// The session's time has come: has it been idle for too long?
    pub(super) fn session_tick(&mut self, key: SessionKey, at: Instant, now: Instant) {
        let timeout = self.settings.session_idle_timeout;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.wish.grant(at) {
            return;
        }
        if session.is_replaced && session.exchanges.is_empty() {
            return self.session_end(key, "replaced", now);
        }
        let is_used = session.channel.is_some()
            || session.parent.is_some()
            || session.replay.iter().any(|stream| stream.client.is_some())
            || session.exchanges.iter().any(|exchange| {
                let kind = self.exchanges.get(*exchange).map(|exchange| exchange.kind);
                kind != Some(Kind::Listen)
            });
        if !is_used && session.used_at + timeout <= now {
            self.session_end(key, "idle", now);
            return;
        }
        let next = if is_used { now + timeout } else { session.used_at + timeout };
        self.timers.wish(Timer::Session(key), &mut session.wish, next);
    }

    /// Whether the server keeps a process for each session.
    pub(super) fn isolation(&self, server: ServerId) -> Isolation {
        self.upkeep(server).map_or(Isolation::Session, |upkeep| upkeep.isolation)
    }

    /// A batch (2025-03-26, basic: "Batching"): each request is an exchange of its own, and all
    /// answers go on one event stream.
    pub(super) fn post_batch(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        (server, payload): (ServerId, &Payload<'_>),
        now: Instant,
    ) {
        let session = match self.session_of(&head.headers, server) {
            Ok(session) => session,
            Err(refusal) => return self.refuse(conn, refusal, b"null", now),
        };
        let revision = self.sessions.get(session).map(|session| session.revision);
        let bytes = payload.bytes();
        let elements: Result<Vec<_>, _> =
            json::elements(bytes, limits::DEPTH_MAX).take(limits::BATCH_MAX + 1).collect();
        let spans = match elements {
            Ok(spans) if revision == Some(Revision::V2025_03_26) && !spans.is_empty() => spans,
            _ => return self.refuse(conn, Refusal::Batch, b"null", now),
        };
        if limits::BATCH_MAX < spans.len() {
            return self.refuse(conn, Refusal::TooLarge, b"null", now);
        }
        let mut messages = Vec::new();
        for span in spans {
            let part = span.get(bytes);
            match rpc::document(part, self.rpc_limits()) {
                Ok(Document::Message(envelope)) => {
                    let is_first = envelope.method.is_some_and(|m| m.eq(part, "initialize"));
                    if is_first {
                        return self.refuse(conn, Refusal::Batch, b"null", now);
                    }
                    messages.push((Bytes::copy_from_slice(part), envelope));
                }
                Ok(Document::Batch) => return self.refuse(conn, Refusal::Batch, b"null", now),
                Err(error) => return self.refuse(conn, Refusal::Rpc(error), b"null", now),
            }
        }
        self.batch_forward(conn, (server, session), messages, now);
    }

    fn batch_forward(
        &mut self,
        conn: ConnId,
        (server, session): (ServerId, SessionKey),
        messages: Vec<(Bytes, rpc::Envelope)>,
        now: Instant,
    ) {
        let is_request = |envelope: &rpc::Envelope| envelope.kind == rpc::Kind::Request;
        let requests = messages.iter().filter(|(_, envelope)| is_request(envelope)).count();
        let room = self.sessions.get(session).map_or(0, |session| {
            limits::SESSION_EXCHANGES_MAX.saturating_sub(session.exchanges.len())
        });
        if room < messages.len() || limits::EXCHANGES_MAX < self.exchanges.len() + messages.len() {
            return self.refuse(conn, Refusal::Full, b"null", now);
        }
        let stream = if requests == 0 {
            self.accept(conn, now);
            None
        } else {
            let open = u32::try_from(requests).unwrap_or(u32::MAX);
            self.stream_open(conn, session, open, now)
        };
        let headers = Bytes::new();
        for (bytes, envelope) in messages {
            let payload = Payload::Whole(bytes);
            let incoming = Incoming {
                server,
                session: Some(session),
                era: Era::Legacy,
                payload: &payload,
                envelope: &envelope,
                headers: &headers,
            };
            self.batch_part(&incoming, stream, now);
        }
    }

    fn batch_part(&mut self, incoming: &Incoming<'_>, stream: Option<u32>, now: Instant) {
        let kind = match incoming.envelope.kind {
            rpc::Kind::Request => Kind::Request,
            rpc::Kind::Notification => Kind::Notice,
            rpc::Kind::Response | rpc::Kind::ErrorResponse => {
                let session = incoming.session.and_then(|key| self.sessions.get_mut(key));
                if !session.is_some_and(|session| session.answer(incoming.id())) {
                    self.counters.dropped += 1;
                    return;
                }
                Kind::Notice
            }
        };
        self.initialized(incoming);
        if incoming.is_method("notifications/cancelled") && kind == Kind::Notice {
            self.batch_cancel(incoming, now);
            return;
        }
        let link = incoming.session.and_then(|key| self.sessions.get(key)).map(|s| &s.link);
        if kind == Kind::Notice && matches!(link, Some(Link::Process(_))) {
            self.stdio_notice(incoming, now);
            return;
        }
        self.remember(incoming);
        let reply = match (kind, stream) {
            (Kind::Request, Some(stream)) => Reply::Stream(stream),
            _ => Reply::Nobody,
        };
        if let Some(key) = self.begin_detached(kind, reply, incoming, now) {
            self.forward(key, incoming, now);
        }
    }

    /// A cancellation in a batch: like one outside, it reaches only the session's own request.
    fn batch_cancel(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let Some(exchange) = self.cancel_target(incoming) else {
            self.counters.dropped += 1;
            return;
        };
        if let Some(Via::Process(process, number)) = self.exchanges.get(exchange).map(|e| e.via) {
            self.stdio_cancel((process, number), incoming, now);
        } else if !self.was_sent(exchange) {
            self.counters.dropped += 1;
        } else if let Some(key) = self.begin_detached(Kind::Notice, Reply::Nobody, incoming, now) {
            self.forward(key, incoming, now);
        }
        self.exchange_cancelled(exchange, now);
    }

    /// Begins an exchange whose answer goes on a stream or to nobody.
    pub(super) fn begin_detached(
        &mut self,
        kind: Kind,
        reply: Reply,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Option<ExchangeId> {
        let exchange = self.exchange_of(kind, reply, incoming, now);
        let len = exchange.message.len() as u64;
        let key = self.exchanges.insert(exchange).ok()?;
        self.counters.gathered += len;
        if let Some(session) = incoming.session.and_then(|key| self.sessions.get_mut(key)) {
            session.exchanges.push(key);
        }
        self.counters.in_flight += 1;
        self.counters.exchanges += u64::from(kind == Kind::Request);
        self.watch(key, now);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UnionKey;
    use crate::tests::settings::{command, server, settings, shard};
    use crate::upstream::catalog::Target;

    #[test]
    fn sessions_with_members_take_no_room_of_those_of_clients() {
        let now = Instant::now();
        let target = Target::Stdio(command(Isolation::Session));
        let mut shard = shard(settings(vec![server(target)]), 0, 1, now);
        let mut insert = |parent| {
            let id = SessionId::mint(&mut shard.random, shard.identity.id, 1);
            let link = Link::Process(None);
            let mut session = Session::new((id, ServerId(0)), Bytes::new(), link, now);
            session.parent = parent;
            shard.session_insert(session).is_some()
        };
        let place = (UnionKey { index: 0, generation: 0 }, 0);
        for _ in 0..limits::MEMBER_SESSIONS_MAX {
            assert!(insert(Some(place)));
        }
        assert!(!insert(Some(place)));
        assert!(insert(None));
    }
}
