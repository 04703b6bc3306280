//! A POST becomes exchanges: first its era, then its session, then the kind of message.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::http1::{Headers, RequestHead, write_header};
use wire::rpc::{self, Document, Envelope};

use crate::admission::mirror;
use crate::backend::http::is_forwarded;
use crate::era;
use crate::exchange::{Exchange, Kind, Label, Reply, Via};
use crate::frontend::answer::{Body, Head};
use crate::frontend::http::{Busy, Form};
use crate::ids::{ConnId, ExchangeId, SessionKey};
use crate::limits;
use crate::message::{Era, Payload, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::session::id::SessionId;
use crate::shard::channel::has_long_id;
use crate::shard::{Role, Shard};
use crate::timers::Wish;
use crate::upstream::catalog::{ServerId, Target};

/// A scanned message of a client, and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) server: ServerId,
    pub(super) session: Option<SessionKey>,
    pub(super) era: Era,
    pub(super) payload: &'a Payload<'a>,
    pub(super) envelope: &'a Envelope,
    /// Header lines for an HTTP server.
    pub(super) headers: &'a Bytes,
}

impl Incoming<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        self.payload.bytes()
    }

    pub(super) fn is_method(&self, method: &str) -> bool {
        self.envelope.method.is_some_and(|text| text.eq(self.bytes(), method))
    }

    /// The id as raw JSON.
    pub(super) fn id(&self) -> &[u8] {
        self.envelope.id.map_or(b"null", |id| id.get(self.bytes()))
    }
}

impl Shard {
    pub(super) fn post(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        (server, payload): (ServerId, &Payload<'_>),
        now: Instant,
    ) {
        let version = head.headers.get("mcp-protocol-version");
        let envelope = match rpc::document(payload.bytes(), self.rpc_limits()) {
            Ok(Document::Message(envelope)) => envelope,
            Ok(Document::Batch) => {
                self.post_batch(conn, head, (server, payload), now);
                return;
            }
            Err(error) => {
                self.refuse(conn, Refusal::Rpc(error), b"null", now);
                return;
            }
        };
        let era = match era::classify(payload.bytes(), &envelope, version) {
            Ok(era) => era,
            Err(refusal) => {
                let id = envelope.id.map_or(&b"null"[..], |id| id.get(payload.bytes()));
                self.refuse(conn, refusal, id, now);
                return;
            }
        };
        if has_long_id(&envelope) {
            self.refuse(conn, Refusal::LongId, b"null", now);
            return;
        }
        let headers = self.forwarded(server, &head.headers);
        let incoming = Incoming {
            server,
            session: None,
            era,
            payload,
            envelope: &envelope,
            headers: &headers,
        };
        match era {
            Era::Modern => self.post_modern(conn, &head.headers, incoming, now),
            Era::Legacy if incoming.is_method("initialize") && is_request(&incoming) => {
                let _opened = self.session_open(conn, incoming, now);
            }
            Era::Legacy => match self.session_of(&head.headers, server) {
                Ok(session) => {
                    let incoming = Incoming { session: Some(session), ..incoming };
                    self.post_legacy(conn, incoming, now);
                }
                Err(refusal) => self.refuse(conn, refusal, incoming.id(), now),
            },
        }
    }

    pub(super) fn rpc_limits(&self) -> rpc::Limits {
        rpc::Limits { depth_max: limits::DEPTH_MAX, len_max: self.settings.message_len_max }
    }

    /// The headers that go on to the server as they are, if it is one that reads headers.
    fn forwarded(&self, server: ServerId, headers: &Headers<'_, '_>) -> Bytes {
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        if !matches!(target, Some(Target::Http(..) | Target::View(_))) {
            return Bytes::new();
        }
        let mut lines = Vec::new();
        for (name, value) in headers.iter().filter(|(name, value)| is_forwarded(name, value)) {
            write_header(&mut lines, name, value);
        }
        Bytes::from(lines)
    }

    /// The session that a request names, if it is one of this server's.
    pub(super) fn session_of(
        &self,
        headers: &Headers<'_, '_>,
        server: ServerId,
    ) -> Result<SessionKey, Refusal> {
        let mut texts = headers.get_all("mcp-session-id");
        let text = texts.next().ok_or(Refusal::NoSession)?;
        if texts.next().is_some() {
            return Err(Refusal::UnknownSession);
        }
        let key = SessionId::parse(text).and_then(|id| self.session_keys.get(&id).copied());
        let key = key.ok_or(Refusal::UnknownSession)?;
        let session = self.sessions.get(key).filter(|session| session.server == server);
        session.map(|_| key).ok_or(Refusal::UnknownSession)
    }

    fn post_modern(
        &mut self,
        conn: ConnId,
        headers: &Headers<'_, '_>,
        incoming: Incoming<'_>,
        now: Instant,
    ) {
        let (bytes, envelope) = (incoming.bytes(), incoming.envelope);
        if matches!(envelope.kind, rpc::Kind::Response | rpc::Kind::ErrorResponse) {
            self.refuse(conn, Refusal::Response, incoming.id(), now);
            return;
        }
        if let Err(refusal) = mirror::check(headers, bytes, envelope) {
            self.refuse(conn, refusal, incoming.id(), now);
            return;
        }
        if !self.modern_is_fine(conn, &incoming, now) {
            return;
        }
        let called = envelope.name.filter(|_| incoming.is_method("tools/call"));
        if let Some(name) = called.filter(|_| self.is_process(incoming.server)) {
            let params = envelope.params.map(|params| params.get(bytes)).unwrap_or_default();
            let pool = self.pools.get(usize::from(incoming.server.0));
            let checked = pool.map(|pool| pool.params.check(headers, &name.decode(bytes), params));
            if let Some(Err(refusal)) = checked {
                self.refuse(conn, refusal, incoming.id(), now);
                return;
            }
        }
        let kind = if is_request(&incoming) { Kind::Request } else { Kind::Notice };
        if kind == Kind::Notice
            && incoming.is_method("notifications/cancelled")
            && self.is_process(incoming.server)
        {
            // All clients share the process, whose ids are ours: it would cancel for somebody
            // else. In this revision clients cancel by closing the stream.
            self.counters.dropped += 1;
            self.accept(conn, now);
            return;
        }
        if let Some(exchange) = self.begin(conn, kind, &incoming, now) {
            self.forward(exchange, &incoming, now);
        }
    }

    /// Whether a modern message has the metadata that it needs; otherwise it is refused.
    pub(super) fn modern_is_fine(
        &mut self,
        conn: ConnId,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> bool {
        let (bytes, envelope) = (incoming.bytes(), incoming.envelope);
        let version = envelope.meta_version.map(|text| text.decode(bytes)).unwrap_or_default();
        if Revision::parse(&version).map(Revision::era) != Some(Era::Modern) {
            let refusal = (Refusal::ModernVersion, Some(&*version));
            self.refuse_version(conn, refusal, incoming.id(), now);
            return false;
        }
        if is_request(incoming) && envelope.meta_capabilities.is_none() {
            self.refuse(conn, Refusal::Metadata, incoming.id(), now);
            return false;
        }
        true
    }

    pub(super) fn post_legacy(&mut self, conn: ConnId, incoming: Incoming<'_>, now: Instant) {
        let Some(session) = incoming.session.and_then(|key| self.sessions.get_mut(key)) else {
            return;
        };
        session.used_at = now;
        match incoming.envelope.kind {
            rpc::Kind::Request => {
                self.remember(&incoming);
                if let Some(exchange) = self.begin(conn, Kind::Request, &incoming, now) {
                    self.forward(exchange, &incoming, now);
                }
            }
            rpc::Kind::Notification => self.post_notification(conn, &incoming, now),
            rpc::Kind::Response | rpc::Kind::ErrorResponse => {
                // Only what the server asked this session is passed on, and only once.
                if session.answer(incoming.id()) {
                    self.post_notice(conn, &incoming, now);
                } else {
                    self.counters.dropped += 1;
                    self.accept(conn, now);
                }
            }
        }
    }

    /// Notes what a server that is set up again must be told again.
    pub(super) fn remember(&mut self, incoming: &Incoming<'_>) {
        let bytes = incoming.bytes();
        let method = incoming.envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
        let uri = incoming.envelope.uri.map(|text| text.decode(bytes)).unwrap_or_default();
        if let Some(session) = incoming.session.and_then(|key| self.sessions.get_mut(key)) {
            session.remember(&method, &uri, || incoming.payload.keep());
        }
    }

    /// Keeps `notifications/initialized`, which a server that is set up again needs again.
    pub(super) fn initialized(&mut self, incoming: &Incoming<'_>) {
        if !incoming.is_method("notifications/initialized") {
            return;
        }
        let Some(session) = incoming.session.and_then(|key| self.sessions.get_mut(key)) else {
            return;
        };
        session.is_initialized = true;
        if limits::SESSION_SETUP_LEN_MAX < incoming.bytes().len() {
            session.is_irreplaceable = true;
        } else {
            session.initialized = Some(incoming.payload.keep());
        }
    }

    fn post_notification(&mut self, conn: ConnId, incoming: &Incoming<'_>, now: Instant) {
        self.initialized(incoming);
        if incoming.is_method("notifications/cancelled") {
            self.post_cancel(conn, incoming, now);
        } else {
            self.post_notice(conn, incoming, now);
        }
    }

    /// A cancellation goes to the server only if it has the request.
    fn post_cancel(&mut self, conn: ConnId, incoming: &Incoming<'_>, now: Instant) {
        let Some(exchange) = self.cancel_target(incoming) else {
            self.counters.dropped += 1;
            self.accept(conn, now);
            return;
        };
        let via = self.exchanges.get(exchange).map(|exchange| exchange.via);
        match via {
            Some(Via::Process(process, number)) => {
                self.stdio_cancel((process, number), incoming, now);
                self.accept(conn, now);
            }
            _ if !self.was_sent(exchange) => {
                self.counters.dropped += 1;
                self.accept(conn, now);
            }
            _ => self.post_notice(conn, incoming, now),
        }
        self.exchange_cancelled(exchange, now);
    }

    /// Whether a request that is not for a process has left us, or a part of it for a member of a
    /// view may have.
    pub(super) fn was_sent(&self, key: ExchangeId) -> bool {
        self.exchanges.get(key).is_some_and(|exchange| match exchange.via {
            Via::Http(conn) => self.is_connected(conn),
            Via::Nothing => exchange.is_resumed(),
            Via::Process(..) | Via::Leg(_) | Via::Union(_) => true,
        })
    }

    /// The request in flight, of the same session, that a cancellation names.
    pub(super) fn cancel_target(&self, incoming: &Incoming<'_>) -> Option<ExchangeId> {
        let id = incoming.envelope.request_id.map(|id| id.get(incoming.bytes()))?;
        let is_it = |key: &&ExchangeId| {
            let exchange = self.exchanges.get(**key);
            exchange.is_some_and(|exchange| exchange.kind == Kind::Request && exchange.id == id)
        };
        self.sessions.get(incoming.session?)?.exchanges.iter().find(is_it).copied()
    }

    /// A notification or response: passed on; an HTTP server says itself whether it takes it.
    fn post_notice(&mut self, conn: ConnId, incoming: &Incoming<'_>, now: Instant) {
        let link = incoming.session.and_then(|key| self.sessions.get(key)).map(|s| &s.link);
        self.counters.forwarded += 1;
        if matches!(link, Some(Link::Process(_))) {
            self.stdio_notice(incoming, now);
            self.accept(conn, now);
        } else if let Some(exchange) = self.begin(conn, Kind::Notice, incoming, now) {
            self.forward(exchange, incoming, now);
        }
    }

    /// 202: taken, and nothing to say.
    pub(super) fn accept(&mut self, conn: ConnId, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        if client.busy != Busy::No {
            return;
        }
        let (origin, keep_alive) = (client.origin.clone(), client.framing.keep_alive);
        let head = Head {
            status: 202,
            content_type: None,
            body: Body::Length(0),
            session: None,
            origin: origin.as_deref(),
            keep_alive,
        };
        self.write(conn, |output| head.write(output.tail()));
        self.client_done(conn, now);
    }

    /// Begins an exchange for a client that waits, or refuses because there are too many.
    pub(super) fn begin(
        &mut self,
        conn: ConnId,
        kind: Kind,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Option<ExchangeId> {
        let session = incoming.session.and_then(|key| self.sessions.get(key));
        let in_flight = match (session, self.conns.get(conn).map(|entry| &entry.role)) {
            (Some(session), _) => session.exchanges.len(),
            (None, Some(Role::Channel(channel))) => channel.exchanges.len(),
            (None, _) => 0,
        };
        let is_channel = self.channel_mut(conn).is_some();
        let is_whole = self.client_mut(conn).is_some_and(|client| client.form == Form::Whole);
        let reply = match (is_channel, kind) {
            // What the server says to a notice is passed on: 202.
            (false, Kind::Request | Kind::Initialize) if is_whole => Reply::Whole(conn),
            (false, _) => Reply::Pending(conn),
            (true, Kind::Notice) => Reply::Nobody,
            (true, _) => Reply::Channel(conn),
        };
        let is_full = limits::SESSION_EXCHANGES_MAX <= in_flight;
        let mut exchange = self.exchange_of(kind, reply, incoming, now);
        exchange.is_enveloped = self.channel_mut(conn).is_some_and(|it| it.envelope.is_some());
        let len = exchange.message.len() as u64;
        let is_full = is_full || (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered + len;
        let inserted = if is_full { None } else { self.exchanges.insert(exchange).ok() };
        let Some(key) = inserted else {
            self.refuse(conn, Refusal::Full, incoming.id(), now);
            return None;
        };
        if let Some(session) = incoming.session.and_then(|key| self.sessions.get_mut(key)) {
            session.exchanges.push(key);
        }
        self.counters.gathered += len;
        self.counters.in_flight += 1;
        self.counters.exchanges += u64::from(kind != Kind::Notice);
        if let Some(channel) = self.channel_mut(conn) {
            // What nobody waits for goes on without the client.
            if incoming.session.is_none() && kind != Kind::Notice {
                channel.exchanges.push(key);
            }
            self.watch(key, now);
            return Some(key);
        }
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::Exchange(key);
        }
        let quiet_until = now + self.quiet_time(incoming.server, incoming.session);
        let deadline = self.exchanges.get(key).and_then(|exchange| exchange.deadline);
        self.wish_conn(conn, deadline.map_or(quiet_until, |at| at.min(quiet_until)));
        Some(key)
    }

    pub(super) fn exchange_of(
        &self,
        kind: Kind,
        reply: Reply,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Exchange {
        let (bytes, envelope) = (incoming.bytes(), incoming.envelope);
        let server = self.settings.catalog.get(incoming.server);
        let is_http = !self.goes_to_process(incoming.server, incoming.session);
        let is_repeatable = is_repeatable(incoming);
        // What goes to a process is kept only if it will be sent again should the process die.
        let is_kept = is_http || is_repeatable && bytes.len() <= limits::REPEAT_LEN_MAX;
        let message = if is_kept { incoming.payload.keep() } else { Bytes::new() };
        let part = |span: wire::json::Span| {
            if is_kept {
                message.slice(span.start as usize..span.end as usize)
            } else {
                Bytes::copy_from_slice(span.get(bytes))
            }
        };
        let is_subscription =
            incoming.era == Era::Modern && incoming.is_method("subscriptions/listen");
        let is_endless = is_subscription || incoming.is_method("tasks/result");
        let timeout = server.and_then(|server| server.request_timeout).filter(|_| !is_endless);
        Exchange {
            kind,
            era: incoming.era,
            server: incoming.server,
            endpoint: None,
            tried: 0,
            session: incoming.session,
            via: Via::Nothing,
            reply,
            id: envelope.id.map(part).unwrap_or_default(),
            token: envelope.progress_token.map(part),
            headers: incoming.headers.clone(),
            label: self.label(incoming),
            is_enveloped: false,
            is_repeatable,
            retried: false,
            is_cancelled: false,
            repeated: false,
            relayed: None,
            relay_awaits: false,
            wants_logs: envelope.meta_log_level.is_some(),
            is_subscription,
            server_session: None,
            last_event_id: None,
            retry: limits::RESUME_PAUSE,
            resume_at: None,
            resumed: 0,
            started: now,
            timeout,
            deadline: timeout.map(|timeout| now + timeout),
            sent_at: now,
            wish: Wish::default(),
            message,
        }
    }

    fn label(&self, incoming: &Incoming<'_>) -> Label {
        // From the answer to this one it is learned which arguments are mirrored in headers.
        if self.settings.log.is_none() && !incoming.is_method("tools/list") {
            return Label::default();
        }
        let bytes = incoming.bytes();
        let short = |text: rpc::Text| {
            let text = text.inner.get(bytes);
            Box::from(text.get(..limits::LOG_VALUE_LEN_MAX).unwrap_or(text))
        };
        let envelope = incoming.envelope;
        Label {
            method: envelope.method.map(short).unwrap_or_default(),
            name: envelope.name.or(envelope.uri).map(short),
        }
    }

    /// Sends an exchange on its way, over whatever leads to its server.
    pub(super) fn forward(&mut self, key: ExchangeId, incoming: &Incoming<'_>, now: Instant) {
        if self.is_view(incoming.server) {
            self.union_send(key, incoming, now);
        } else if self.goes_to_process(incoming.server, incoming.session) {
            self.stdio_send(key, incoming, now);
        } else {
            self.http_send(key, now);
        }
    }

    /// A message of the gateway's own making, on behalf of a session.
    pub(super) fn begin_own(
        &mut self,
        kind: Kind,
        (session, server): (Option<SessionKey>, ServerId),
        message: Bytes,
        now: Instant,
    ) -> Option<ExchangeId> {
        let headers = session.and_then(|key| self.sessions.get(key)).map(|session| {
            let mut lines = Vec::new();
            if Revision::V2025_06_18 <= session.revision && kind != Kind::Handshake {
                let version = session.revision.name().as_bytes();
                write_header(&mut lines, "mcp-protocol-version", version);
            }
            Bytes::from(lines)
        });
        let timeout = match kind {
            Kind::Listen | Kind::Open(_) => None,
            Kind::Delete => Some(limits::DELETE_TIMEOUT),
            _ => Some(self.upkeep(server).map_or(limits::START_TIMEOUT, |it| it.start_timeout)),
        };
        let exchange = Exchange {
            kind,
            era: Era::Legacy,
            server,
            endpoint: None,
            tried: 0,
            session,
            via: Via::Nothing,
            reply: Reply::Nobody,
            id: Bytes::new(),
            token: None,
            message,
            headers: headers.unwrap_or_default(),
            label: Label::default(),
            is_enveloped: false,
            is_repeatable: true,
            retried: false,
            is_cancelled: false,
            repeated: false,
            relayed: None,
            relay_awaits: false,
            wants_logs: false,
            is_subscription: false,
            server_session: None,
            last_event_id: None,
            retry: limits::RESUME_PAUSE,
            resume_at: None,
            resumed: 0,
            started: now,
            timeout,
            deadline: timeout.map(|timeout: Duration| now + timeout),
            sent_at: now,
            wish: Wish::default(),
        };
        let len = exchange.message.len() as u64;
        let key = self.exchanges.insert(exchange).ok()?;
        self.counters.gathered += len;
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(key)) {
            session.exchanges.push(key);
        }
        self.counters.in_flight += 1;
        self.watch(key, now);
        Some(key)
    }
}

fn is_request(incoming: &Incoming<'_>) -> bool {
    incoming.envelope.kind == rpc::Kind::Request
}

/// Requests that change nothing: they may be sent twice.
fn is_repeatable(incoming: &Incoming<'_>) -> bool {
    const METHODS: [&str; 8] = [
        "ping",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "server/discover",
    ];
    METHODS.iter().any(|method| incoming.is_method(method))
}
