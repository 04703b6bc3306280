//! Exchanges to HTTP servers: connections are pooled per shard and carry one at a time.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::pki_types::ServerName;

use crate::admission::params::Params;
use crate::backend::http::{Request, ServerConn};
use crate::backend::stdio::Process;
use crate::backend::tls;
use crate::exchange::{Kind, Via};
use crate::ids::{ConnId, ExchangeId, ProcessId, Ticket};
use crate::limits;
use crate::message::{Era, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::event::{Action, Question};
use crate::shard::{Asked, Role, Shard};
use crate::upstream::catalog::{Endpoint, Secret, Server, ServerId, Target};
use crate::upstream::restart::Restart;

/// What one shard has of one server.
#[derive(Debug)]
pub(super) struct Pool {
    /// Where it is.
    addrs: Vec<SocketAddr>,
    /// Until when that is believed; none: for ever.
    addrs_until: Option<Instant>,
    is_resolving: bool,
    /// Exchanges without a connection.
    waiting: VecDeque<ExchangeId>,
    /// Connections without an exchange, the last used last.
    idle: Vec<ConnId>,
    /// Connections.
    open: usize,
    conns_max: usize,
    /// The process that all sessions share.
    pub(super) shared: Option<ProcessId>,
    /// The process for stateless requests.
    pub(super) stateless: Option<ProcessId>,
    /// The `initialize` that a shared process gets.
    pub(super) initialize: Option<Bytes>,
    /// Until when the server is known to understand only `initialize`.
    pub(super) legacy_until: Option<Instant>,
    /// Which arguments of the tools are mirrored in headers: as a process said, or as an HTTP
    /// server said to clients that speak no HTTP.
    pub(super) params: Params,
    /// The pause before a process for everybody is started again.
    pub(super) restart: Restart,
    /// Whether the server was found to speak HTTP+SSE.
    pub(super) is_sse: bool,
    /// Connections that are taken for as long as somebody listens: streams of HTTP+SSE, GET streams
    /// of sessions, subscriptions.
    streams: usize,
}

impl Pool {
    pub(super) fn new(server: &Server) -> Self {
        let (literal, conns_max) = match &server.target {
            Target::Http(_, endpoint) => {
                let ip = endpoint.host.parse::<IpAddr>().ok();
                (ip.map(|ip| SocketAddr::new(ip, endpoint.port)), endpoint.conns_max)
            }
            Target::Stdio(_) | Target::WebSocket(_) | Target::View(_) => (None, 0),
        };
        Self {
            addrs: literal.into_iter().collect(),
            addrs_until: None,
            is_resolving: false,
            waiting: VecDeque::new(),
            idle: Vec::new(),
            open: 0,
            conns_max,
            shared: None,
            stateless: None,
            initialize: None,
            legacy_until: None,
            params: Params::default(),
            restart: Restart::default(),
            is_sse: false,
            streams: 0,
        }
    }

    /// Exchanges that wait for a connection.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Counts a stream, if a connection for messages is left.
    pub(super) fn open_stream(&mut self) -> bool {
        let has_room = self.has_stream_room();
        self.streams += usize::from(has_room);
        has_room
    }

    /// Whether a connection for messages is left if one more is taken by a stream.
    fn has_stream_room(&self) -> bool {
        self.streams + 1 < self.conns_max
    }

    pub(super) fn close_stream(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }
}

impl Shard {
    fn pool_mut(&mut self, server: ServerId) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(server.0))
    }

    fn endpoint(&self, server: ServerId) -> Option<&Endpoint> {
        match &self.settings.catalog.get(server)?.target {
            Target::Http(_, endpoint) => Some(endpoint),
            Target::Stdio(_) | Target::WebSocket(_) | Target::View(_) => None,
        }
    }

    /// Sends an exchange as soon as there is a connection for it.
    pub(super) fn http_send(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (server, kind) = (exchange.server, exchange.kind);
        if !matches!(kind, Kind::Handshake | Kind::Setup | Kind::Delete)
            && self.revival_takes(key, exchange.session)
        {
            return;
        }
        let has_room = self.pool_mut(server).is_some_and(|pool| pool.has_stream_room());
        if !has_room && self.is_endless(key) {
            // Otherwise those who listen would leave no connection to those who ask.
            self.exchange_fail(key, Refusal::Full, now);
            return;
        }
        while let Some(conn) = self.pool_mut(server).and_then(|pool| pool.idle.pop()) {
            if self.server_mut(conn).is_some() {
                self.server_carries(conn, key, now);
                return;
            }
        }
        let Some(pool) = self.pool_mut(server) else { return };
        let is_known = !pool.addrs.is_empty() && pool.addrs_until.is_none_or(|until| now < until);
        if is_known && pool.open < pool.conns_max {
            let addrs = pool.addrs.clone();
            self.server_dial(server, key, addrs, now);
            return;
        }
        if limits::SERVER_WAITING_MAX <= pool.waiting.len() {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        }
        pool.waiting.push_back(key);
        if !is_known && !std::mem::replace(&mut pool.is_resolving, true) {
            self.pool_resolve(server);
        }
    }

    /// Whether an exchange takes its connection for as long as somebody listens.
    fn is_endless(&self, key: ExchangeId) -> bool {
        let exchange = self.exchanges.get(key);
        exchange.is_some_and(|it| it.kind == Kind::Listen || it.is_subscription)
    }

    fn pool_resolve(&mut self, server: ServerId) {
        let Some(endpoint) = self.endpoint(server) else { return };
        let question = Question::Resolve { host: endpoint.host.clone(), port: endpoint.port };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.questions.insert(ticket, Asked::Resolve(server));
        self.actions.push_back(Action::Ask { ticket, question });
    }

    /// The addresses came, or could not be had.
    pub(super) fn pool_resolved(
        &mut self,
        server: ServerId,
        addrs: Option<Vec<SocketAddr>>,
        now: Instant,
    ) {
        let Some(pool) = self.pool_mut(server) else { return };
        pool.is_resolving = false;
        match addrs {
            Some(addrs) => {
                pool.addrs = addrs;
                pool.addrs_until = Some(now + limits::RESOLVE_TTL);
                self.pool_next(server, now);
            }
            // Old addresses are better than none.
            None if !pool.addrs.is_empty() => {
                pool.addrs_until = Some(now + limits::RESOLVE_RETRY);
                self.pool_next(server, now);
            }
            None => {
                for key in std::mem::take(&mut pool.waiting) {
                    self.exchange_fail(key, Refusal::Unreachable, now);
                }
            }
        }
    }

    /// There is room again: exchanges that wait may go.
    fn pool_next(&mut self, server: ServerId, now: Instant) {
        let Some(pool) = self.pools.get_mut(usize::from(server.0)) else { return };
        // Some ended while they waited; they must not take the place of others.
        pool.waiting.retain(|key| self.exchanges.get(*key).is_some());
        let room = pool.conns_max.saturating_sub(pool.open) + pool.idle.len();
        let count = pool.waiting.len().min(room);
        let keys: Vec<ExchangeId> = pool.waiting.drain(..count).collect();
        for key in keys {
            self.http_send(key, now);
        }
    }

    fn server_dial(
        &mut self,
        server: ServerId,
        key: ExchangeId,
        addrs: Vec<SocketAddr>,
        now: Instant,
    ) {
        let tls = match self.endpoint(server) {
            Some(endpoint) if endpoint.tls => match self.tls_client(endpoint) {
                Some(tls) => Some(Box::new(tls)),
                None => return self.exchange_fail(key, Refusal::Unreachable, now),
            },
            _ => None,
        };
        let conn = ServerConn::new(server, key, tls, now);
        let Some(conn) = self.open(Role::Server(Box::new(conn))) else {
            return self.exchange_fail(key, Refusal::Full, now);
        };
        if let Some(pool) = self.pool_mut(server) {
            pool.open += 1;
        }
        self.counters.dialled += 1;
        self.counters.server_conns += 1;
        self.actions.push_back(Action::Dial { conn, addrs });
        self.wish_conn(conn, now + limits::CONNECT_TIMEOUT);
        self.server_request(conn, key);
    }

    pub(super) fn tls_client(&self, endpoint: &Endpoint) -> Option<rustls::ClientConnection> {
        let config = Arc::clone(self.settings.tls.as_ref()?);
        let name = ServerName::try_from(endpoint.host.clone()).ok()?;
        let mut client = rustls::ClientConnection::new(config, name).ok()?;
        // Our own queue is the bound; see `limits::OUTPUT_HIGH`.
        client.set_buffer_limit(None);
        Some(client)
    }

    /// An idle connection carries another exchange.
    fn server_carries(&mut self, conn: ConnId, key: ExchangeId, now: Instant) {
        if let Some(server) = self.server_mut(conn) {
            server.exchange = Some(key);
            server.uses += 1;
            server.is_answering = false;
            server.interims = 0;
            server.since = now;
        }
        self.server_request(conn, key);
    }

    /// Writes the request of an exchange.
    fn server_request(&mut self, conn: ConnId, key: ExchangeId) {
        if self.is_endless(key)
            && let Some(server) = self.server_mut(conn)
        {
            server.is_stream = true;
            let id = server.server;
            if let Some(pool) = self.pool_mut(id) {
                pool.streams += 1;
            }
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Http(conn);
        let session = exchange.session.and_then(|key| self.sessions.get(key));
        let id = match session.map(|session| &session.link) {
            Some(Link::Http { id, .. }) if exchange.kind != Kind::Handshake => id.clone(),
            _ => None,
        };
        let is_get = matches!(exchange.kind, Kind::Listen | Kind::Open(_)) || exchange.resumed != 0;
        let stream = match exchange.kind {
            Kind::Line(id) => self.processes.get(&id).and_then(Process::stream),
            _ => None,
        };
        let method = match exchange.kind {
            Kind::Delete => "DELETE",
            _ if is_get => "GET",
            _ => "POST",
        };
        exchange.server_session.clone_from(&id);
        // A DELETE has its session id in the place of a body: the session is gone already.
        let id = if exchange.kind == Kind::Delete { Some(exchange.message.clone()) } else { id };
        let request = Request {
            method,
            target: stream.and_then(|it| it.target.as_ref()).map(Secret::reveal),
            session: id.as_deref().filter(|_| exchange.era == Era::Legacy),
            headers: &exchange.headers,
            last_event_id: exchange.last_event_id.as_deref().filter(|_| is_get),
            body: (method == "POST").then_some(&exchange.message),
        };
        let Some(Target::Http(_, endpoint)) =
            self.settings.catalog.get(exchange.server).map(|server| &server.target)
        else {
            return;
        };
        let mut head = Vec::with_capacity(512);
        request.write_head(&mut head, endpoint);
        let body = request.body.cloned();
        self.server_write(conn, &head, body);
    }

    /// Sends plain text to a server, through TLS if that is how it is reached.
    fn server_write(&mut self, conn: ConnId, head: &[u8], body: Option<Bytes>) {
        let Some(server) = self.server_mut(conn) else { return };
        let Some(tls) = &mut server.tls else {
            self.write(conn, |output| {
                output.push(head);
                if let Some(body) = body {
                    output.push_whole(body);
                }
            });
            return;
        };
        // Writing into memory without a limit does not fail.
        let _head = tls.writer().write_all(head);
        let _body = body.map(|body| tls.writer().write_all(&body));
        self.tls_flush(conn);
    }

    fn tls_flush(&mut self, conn: ConnId) {
        let Some(mut tls) = self.server_mut(conn).and_then(|server| server.tls.take()) else {
            return;
        };
        self.write(conn, |output| {
            while tls.wants_write() {
                if tls.write_tls(output.tail()).is_err() {
                    break;
                }
            }
        });
        if let Some(server) = self.server_mut(conn) {
            server.tls = Some(tls);
        }
    }

    pub(super) fn server_connected(&mut self, conn: ConnId, now: Instant) {
        let Some(server) = self.server_mut(conn) else { return };
        server.is_connected = true;
        server.since = now;
        let has_tls = server.tls.is_some();
        if has_tls {
            self.wish_conn(conn, now + limits::CONNECT_TIMEOUT);
        }
        if let Some(entry) = self.conns.get_mut(conn)
            && !entry.output.is_empty()
            && !std::mem::replace(&mut entry.is_dirty, true)
        {
            self.dirty.push(conn);
        }
    }

    pub(super) fn server_received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(mut tls) = self.server_mut(conn).and_then(|server| server.tls.take()) else {
            self.server_plain(conn, bytes, now);
            return;
        };
        let (plain, is_fine) = tls::open(&mut tls, bytes);
        if let Some(server) = self.server_mut(conn) {
            server.tls = Some(tls);
        }
        self.tls_flush(conn);
        if !plain.is_empty() {
            self.server_plain(conn, &plain, now);
        }
        if !is_fine {
            self.server_lost(conn, now);
        }
    }

    /// The response is complete: the connection is free.
    pub(super) fn server_free(&mut self, conn: ConnId, keep_alive: bool, now: Instant) {
        let is_draining = self.draining.is_some();
        let Some(server) = self.server_mut(conn) else { return };
        server.exchange = None;
        server.body = None;
        server.since = now;
        let (id, is_stream) = (server.server, std::mem::take(&mut server.is_stream));
        let Some(pool) = self.pool_mut(id) else { return };
        pool.streams -= usize::from(is_stream);
        if !keep_alive || is_draining || limits::SERVER_IDLE_MAX <= pool.idle.len() {
            self.server_close(conn, now);
            return;
        }
        pool.idle.push(conn);
        self.resume(conn);
        self.wish_conn(conn, now + limits::SERVER_IDLE_TIMEOUT);
        if self.pool_mut(id).is_some_and(|pool| !pool.waiting.is_empty()) {
            self.pool_next(id, now);
        }
    }

    /// Closes a connection to a server; what it carried has been dealt with.
    pub(super) fn server_close(&mut self, conn: ConnId, now: Instant) {
        if self.server_mut(conn).is_none() {
            return;
        }
        let Some(entry) = self.conns.remove(conn) else { return };
        let Role::Server(server) = entry.role else { return };
        self.counters.server_conns -= 1;
        self.actions.push_back(Action::Close { conn, rest: VecDeque::new() });
        if let Some(pool) = self.pool_mut(server.server) {
            pool.open -= 1;
            pool.streams -= usize::from(server.is_stream);
            pool.idle.retain(|idle| *idle != conn);
        }
        self.pool_next(server.server, now);
    }

    /// A connection to a server broke or could not be made.
    pub(super) fn server_lost(&mut self, conn: ConnId, now: Instant) {
        let Some(server) = self.server_mut(conn) else { return };
        let id = server.server;
        let (is_connected, is_answering) = (server.is_connected, server.is_answering);
        let is_reused = 1 < server.uses;
        let Some(key) = server.exchange else {
            self.server_close(conn, now);
            return;
        };
        let body = server.body.take();
        if let Some(body) = body {
            if body.decoder.is_complete_at_close() {
                self.response_ends(conn, key, (body.sink, false), now);
                return;
            }
            if let Some(server) = self.server_mut(conn) {
                server.exchange = None;
            }
            self.server_close(conn, now);
            self.response_breaks(key, body.sink, now);
            return;
        }
        if let Some(server) = self.server_mut(conn) {
            server.exchange = None;
        }
        self.server_close(conn, now);
        if !is_connected {
            // Look the name up again before the next attempt.
            if let Some(pool) = self.pool_mut(id)
                && pool.addrs_until.is_some()
            {
                pool.addrs_until = Some(now);
            }
            self.exchange_fail(key, Refusal::Unreachable, now);
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        // A server may close an idle connection just when a request is on its way. Whether it saw
        // that cannot be known, so only what changes nothing is sent again.
        if is_reused && !is_answering && exchange.is_repeatable && !exchange.retried {
            exchange.retried = true;
            exchange.via = Via::Nothing;
            self.http_send(key, now);
            return;
        }
        self.exchange_fail(key, Refusal::Died, now);
    }

    /// Ends the server's half of a session that ended here.
    pub(super) fn http_delete(
        &mut self,
        (server, revision): (ServerId, Revision),
        id: Bytes,
        now: Instant,
    ) {
        if let Some(key) = self.begin_own(Kind::Delete, (None, server), id, now) {
            let mut lines = Vec::new();
            if Revision::V2025_06_18 <= revision {
                let version = revision.name().as_bytes();
                wire::http1::write_header(&mut lines, "mcp-protocol-version", version);
            }
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.headers = Bytes::from(lines);
            }
            self.http_send(key, now);
        }
    }
}
