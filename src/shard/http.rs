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
use crate::shard::link_server::Uplink;
use crate::shard::{Asked, Role, Shard};
use crate::upstream::balance::Balancer;
use crate::upstream::catalog::{
    Balance, Endpoint, EndpointId, Endpoints, Secret, Server, ServerId,
};
use crate::upstream::restart::Restart;

/// What one shard has of one server.
#[derive(Debug)]
pub(super) struct Pool {
    /// Its connections, by their endpoint.
    pub(super) sites: Vec<Site>,
    /// Which endpoint is next.
    pub(super) balancer: Balancer,
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
    /// The pause before the server is tried again for clients of views that only wait for it: one
    /// of them tries for all.
    pub(super) retry: Restart,
    /// Whether the server was found to speak HTTP+SSE.
    pub(super) is_sse: bool,
    /// How the shard comes to its link with the server, if that is reached so.
    pub(super) uplink: Uplink,
}

/// What one shard has of one endpoint.
#[derive(Debug)]
pub(super) struct Site {
    /// Where it is.
    addrs: Vec<SocketAddr>,
    /// Until when that is believed; none: for ever.
    addrs_until: Option<Instant>,
    is_resolving: bool,
    /// Exchanges without a connection.
    waiting: VecDeque<ExchangeId>,
    /// Connections without an exchange, the last used last.
    idle: Vec<ConnId>,
    /// Connections, those included that stand in the place of processes.
    open: usize,
    conns_max: usize,
    /// Connections that are taken for as long as somebody listens: streams of HTTP+SSE, GET streams
    /// of sessions, subscriptions.
    streams: usize,
}

impl Pool {
    pub(super) fn new(server: &Server) -> Self {
        let endpoints = server.target.endpoints();
        let sites = endpoints.into_iter().flat_map(Endpoints::iter).map(|(_, it)| Site::new(it));
        Self {
            sites: sites.collect(),
            balancer: Balancer::new(endpoints),
            shared: None,
            stateless: None,
            initialize: None,
            legacy_until: None,
            params: Params::default(),
            restart: Restart::default(),
            retry: Restart::default(),
            is_sse: false,
            uplink: Uplink::default(),
        }
    }

    /// How many endpoints there are.
    pub(super) fn endpoints(&self) -> usize {
        self.sites.len()
    }

    /// The endpoint for something new.
    pub(super) fn pick(
        &mut self,
        choice: (&Balance, Option<u64>, u64),
        now: Instant,
    ) -> EndpointId {
        let sites = &self.sites;
        let load = |id: EndpointId| sites.get(usize::from(id.0)).map_or(0, Site::load);
        self.balancer.pick(choice, load, now)
    }
}

impl Site {
    fn new(endpoint: &Endpoint) -> Self {
        let ip = endpoint.host.parse::<IpAddr>().ok();
        Self {
            addrs: ip.map(|ip| SocketAddr::new(ip, endpoint.port)).into_iter().collect(),
            addrs_until: None,
            is_resolving: false,
            waiting: VecDeque::new(),
            idle: Vec::new(),
            open: 0,
            conns_max: endpoint.conns_max,
            streams: 0,
        }
    }

    /// What it has to do.
    fn load(&self) -> usize {
        self.open - self.idle.len() + self.waiting.len()
    }

    /// Whether something could have a connection, if there is an address.
    pub(super) fn has_room(&self) -> bool {
        self.open < self.conns_max || !self.idle.is_empty()
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
    pub(super) fn has_stream_room(&self) -> bool {
        self.streams + 1 < self.conns_max
    }

    pub(super) fn close_stream(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    /// Counts a connection that is kept elsewhere, if there may be one more.
    pub(super) fn open_conn(&mut self) -> bool {
        let has_room = self.open < self.conns_max;
        self.open += usize::from(has_room);
        has_room
    }

    pub(super) fn close_conn(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}

impl Shard {
    /// What this shard has of an endpoint.
    pub(super) fn site_mut(&mut self, server: ServerId, endpoint: EndpointId) -> Option<&mut Site> {
        self.pools.get_mut(usize::from(server.0))?.sites.get_mut(usize::from(endpoint.0))
    }

    /// An endpoint of a server that has URLs.
    pub(super) fn endpoint(&self, server: ServerId, endpoint: EndpointId) -> Option<&Endpoint> {
        self.settings.catalog.get(server)?.target.endpoints()?.get(endpoint)
    }

    /// Sends an exchange as soon as there is a connection for it.
    pub(super) fn http_send(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (server, kind, is_bound) = (exchange.server, exchange.kind, exchange.session.is_some());
        if !matches!(kind, Kind::Handshake | Kind::Setup | Kind::Delete)
            && self.revival_takes(key, exchange.session)
        {
            return;
        }
        let endpoint = self.endpoint_of(key, now);
        let has_room = self.site_mut(server, endpoint).is_some_and(|site| site.has_stream_room());
        if !has_room && self.is_endless(key) {
            // Otherwise those who listen would leave no connection to those who ask.
            match !is_bound && self.stream_goes_elsewhere(key, now) {
                true => self.http_send(key, now),
                false => self.exchange_fail(key, Refusal::Full, now),
            }
            return;
        }
        while let Some(conn) = self.site_mut(server, endpoint).and_then(|site| site.idle.pop()) {
            if self.server_mut(conn).is_some() {
                self.server_carries(conn, key, now);
                return;
            }
        }
        if self.has_better(server, endpoint, now) && self.fails_over(key, now) {
            return;
        }
        let Some(site) = self.site_mut(server, endpoint) else { return };
        let is_known = !site.addrs.is_empty() && site.addrs_until.is_none_or(|until| now < until);
        if is_known && site.open < site.conns_max {
            let addrs = site.addrs.clone();
            self.server_dial((server, endpoint), key, addrs, now);
            return;
        }
        if !self.site_waits(server, endpoint, key) {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        }
        let Some(site) = self.site_mut(server, endpoint).filter(|_| !is_known) else { return };
        if !std::mem::replace(&mut site.is_resolving, true) {
            self.site_resolve(server, endpoint, now);
        }
    }

    /// Has an exchange wait for a connection, if there is room among those that do.
    fn site_waits(&mut self, server: ServerId, endpoint: EndpointId, key: ExchangeId) -> bool {
        let Some(pool) = self.pools.get_mut(usize::from(server.0)) else { return false };
        let Some(site) = pool.sites.get_mut(usize::from(endpoint.0)) else { return false };
        if limits::SERVER_WAITING_MAX <= site.waiting.len() {
            // Some ended while they waited; they must not take the place of others.
            site.waiting.retain(|key| self.exchanges.get(*key).is_some());
        }
        let has_room = site.waiting.len() < limits::SERVER_WAITING_MAX;
        if has_room {
            site.waiting.push_back(key);
        }
        has_room
    }

    /// Whether an exchange takes its connection for as long as somebody listens.
    fn is_endless(&self, key: ExchangeId) -> bool {
        let exchange = self.exchanges.get(key);
        exchange.is_some_and(|it| it.kind == Kind::Listen || it.is_subscription)
    }

    fn site_resolve(&mut self, server: ServerId, endpoint: EndpointId, now: Instant) {
        let Some(it) = self.endpoint(server, endpoint) else { return };
        let question = Question::Resolve { host: it.host.clone(), port: it.port };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.questions.insert(ticket, Asked::Resolve(server, endpoint, now));
        self.actions.push_back(Action::Ask { ticket, question });
    }

    /// The addresses came, or could not be had. `began`: when they were asked for.
    pub(super) fn site_resolved(
        &mut self,
        (server, endpoint, began): (ServerId, EndpointId, Instant),
        addrs: Option<Vec<SocketAddr>>,
        now: Instant,
    ) {
        let Some(site) = self.site_mut(server, endpoint) else { return };
        site.is_resolving = false;
        match addrs {
            Some(addrs) => {
                site.addrs = addrs;
                site.addrs_until = Some(now + limits::RESOLVE_TTL);
                self.site_next(server, endpoint, now);
            }
            // Old addresses are better than none.
            None if !site.addrs.is_empty() => {
                site.addrs_until = Some(now + limits::RESOLVE_RETRY);
                self.site_next(server, endpoint, now);
            }
            None => {
                let waiting = std::mem::take(&mut site.waiting);
                self.endpoint_failed((server, endpoint), began, now);
                for key in waiting {
                    if !self.fails_over(key, now) {
                        self.exchange_fail(key, Refusal::Unreachable, now);
                    }
                }
            }
        }
    }

    /// There is room again: exchanges that wait may go.
    fn site_next(&mut self, server: ServerId, endpoint: EndpointId, now: Instant) {
        let count = self.site_mut(server, endpoint).map_or(0, |site| site.waiting.len());
        // One that has ended, or goes another way now, takes no room: the next may have it.
        for _ in 0..count {
            let Some(site) = self.site_mut(server, endpoint).filter(|it| it.has_room()) else {
                return;
            };
            let Some(key) = site.waiting.pop_front() else { return };
            self.http_send(key, now);
            if let Some(site) = self.site_mut(server, endpoint)
                && site.waiting.back() == Some(&key)
            {
                // It waits for an address, and so do those behind it.
                site.waiting.rotate_right(1);
                return;
            }
        }
    }

    fn server_dial(
        &mut self,
        (server, endpoint): (ServerId, EndpointId),
        key: ExchangeId,
        addrs: Vec<SocketAddr>,
        now: Instant,
    ) {
        let tls = match self.endpoint(server, endpoint) {
            Some(place) if place.tls => match self.tls_client(place) {
                Some(tls) => Some(Box::new(tls)),
                None => {
                    self.endpoint_failed((server, endpoint), now, now);
                    if !self.fails_over(key, now) {
                        self.exchange_fail(key, Refusal::Unreachable, now);
                    }
                    return;
                }
            },
            _ => None,
        };
        let conn = ServerConn::new((server, endpoint), key, tls, now);
        let Some(conn) = self.open(Role::Server(Box::new(conn))) else {
            return self.exchange_fail(key, Refusal::Full, now);
        };
        if let Some(site) = self.site_mut(server, endpoint) {
            site.open += 1;
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
            let (id, endpoint) = (server.server, server.endpoint);
            if let Some(site) = self.site_mut(id, endpoint) {
                site.streams += 1;
            }
        }
        let Some(endpoint) = self.server_mut(conn).map(|server| server.endpoint) else { return };
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
        let server = self.settings.catalog.get(exchange.server);
        let endpoints = server.and_then(|server| server.target.endpoints());
        let Some(endpoint) = endpoints.and_then(|all| all.get(endpoint)) else { return };
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
        let place = (server.server, server.endpoint);
        if has_tls {
            self.wish_conn(conn, now + limits::CONNECT_TIMEOUT);
        } else {
            self.endpoint_worked(place, now);
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
        let was_shaking = tls.is_handshaking();
        let (plain, is_fine) = tls::open(&mut tls, bytes);
        let is_done = was_shaking && !tls.is_handshaking();
        if let Some(server) = self.server_mut(conn) {
            server.tls = Some(tls);
            let place = (server.server, server.endpoint);
            if is_done {
                self.endpoint_worked(place, now);
            }
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
        let endpoint = server.endpoint;
        let Some(site) = self.site_mut(id, endpoint) else { return };
        site.streams -= usize::from(is_stream);
        if !keep_alive || is_draining || limits::SERVER_IDLE_MAX <= site.idle.len() {
            self.server_close(conn, now);
            return;
        }
        site.idle.push(conn);
        self.resume(conn);
        self.wish_conn(conn, now + limits::SERVER_IDLE_TIMEOUT);
        if self.site_mut(id, endpoint).is_some_and(|site| !site.waiting.is_empty()) {
            self.site_next(id, endpoint, now);
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
        if let Some(site) = self.site_mut(server.server, server.endpoint) {
            site.open -= 1;
            site.streams -= usize::from(server.is_stream);
            site.idle.retain(|idle| *idle != conn);
        }
        self.site_next(server.server, server.endpoint, now);
    }

    /// Whether a connection leads somewhere, as far as is known.
    pub(super) fn is_connected(&self, conn: ConnId) -> bool {
        match self.conns.get(conn).map(|entry| &entry.role) {
            Some(Role::Server(server)) => server.is_connected,
            Some(Role::Client(_) | Role::Channel(_) | Role::Link(_) | Role::Process(_)) | None => {
                false
            }
        }
    }

    /// A connection to a server broke or could not be made.
    pub(super) fn server_lost(&mut self, conn: ConnId, now: Instant) {
        let Some(server) = self.server_mut(conn) else { return };
        let (id, endpoint, began) = (server.server, server.endpoint, server.since);
        let (is_connected, is_answering) = (server.is_connected, server.is_answering);
        let is_shaking = server.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
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
        if !is_connected || is_shaking {
            // Before those that wait for its place: its name is looked up again before the next
            // attempt.
            if let Some(site) = self.site_mut(id, endpoint) {
                site.addrs_until = site.addrs_until.map(|_| now);
            }
            self.endpoint_failed((id, endpoint), began, now);
        }
        self.server_close(conn, now);
        if (!is_connected || is_shaking) && self.fails_over(key, now) {
            return;
        }
        if !is_connected {
            self.exchange_fail(key, Refusal::Unreachable, now);
            return;
        }
        // A server may close an idle connection just when a request is on its way. Whether it saw
        // that cannot be known, so only what changes nothing is sent again.
        let is_idle_end = is_reused && !is_answering;
        if self.http_repeats(key, now) || is_idle_end && self.http_repeats_any(key, now) {
            return;
        }
        // To begin a session anew is harmless as well.
        let kind = self.exchanges.get(key).map(|exchange| exchange.kind);
        if kind == Some(Kind::Handshake) && self.fails_over(key, now) {
            return;
        }
        self.exchange_fail(key, Refusal::Died, now);
    }

    /// Ends the server's half of a session that ended here.
    pub(super) fn http_delete(
        &mut self,
        (server, endpoint, revision): (ServerId, EndpointId, Revision),
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
                exchange.endpoint = Some(endpoint);
            }
            self.http_send(key, now);
        }
    }
}
