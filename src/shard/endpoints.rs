//! Which endpoint of a server something goes to, and what becomes of it if that cannot be
//! connected: what was not sent yet goes to another one, and a session follows if nothing is lost
//! by that.
//!
//! A session, and a process in whose place a stream or a WebSocket stands, stay where they began.
//! Everything else may go anywhere. With one endpoint nothing here has anything to do.

use std::time::Instant;

use rand_chacha::rand_core::Rng as _;

use crate::backend::stdio::{Carrier, State, User};
use crate::backend::websocket::WebSocket;
use crate::exchange::{Kind, Reply, Via};
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey};
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::event::Action;
use crate::shard::http::{Pool, Site};
use crate::upstream::balance::{Failure, hash};
use crate::upstream::catalog::{EndpointId, ServerId, Target};

impl Shard {
    fn has_choice(&self, server: ServerId) -> bool {
        self.pools.get(usize::from(server.0)).is_some_and(|pool| 1 < pool.endpoints())
    }

    /// Where an exchange goes. What is chosen once stays.
    pub(super) fn endpoint_of(&mut self, key: ExchangeId, now: Instant) -> EndpointId {
        let Some(exchange) = self.exchanges.get(key) else { return EndpointId::default() };
        let (server, session, chosen) = (exchange.server, exchange.session, exchange.endpoint);
        if !self.has_choice(server) {
            return EndpointId::default();
        }
        let client = exchange.reply.client();
        let known = match exchange.kind {
            Kind::Open(id) | Kind::Line(id) => self.processes.get(&id).map(|it| it.endpoint),
            _ => match session.and_then(|key| self.sessions.get(key)).map(|it| &it.link) {
                Some(Link::Http { endpoint, .. }) => *endpoint,
                Some(Link::Process(_) | Link::Union(_)) | None => chosen,
            },
        };
        let endpoint = match known {
            Some(known) => known,
            None => {
                let of_client = client.map(of_conn);
                let hash = session.and_then(|key| self.of_session(key)).or(of_client);
                self.endpoint_pick(server, (hash, self.tried(key)), now)
            }
        };
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.endpoint = Some(endpoint);
        }
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(key))
            && let Link::Http { endpoint: slot, .. } = &mut session.link
        {
            *slot = Some(endpoint);
        }
        endpoint
    }

    /// Where an exchange need not be tried again: where it was, and where its session comes from.
    fn tried(&self, key: ExchangeId) -> u64 {
        let Some(exchange) = self.exchanges.get(key) else { return 0 };
        let session = exchange.session.and_then(|key| self.sessions.get(key));
        let from = match session.map(|session| &session.link) {
            Some(Link::Http { revival: Some(revival), .. }) => revival.from.as_ref(),
            _ => None,
        };
        exchange.tried | from.map_or(0, |(endpoint, _)| endpoint.bit())
    }

    /// The endpoint for something new.
    fn endpoint_pick(
        &mut self,
        server: ServerId,
        (hash, tried): (Option<u64>, u64),
        now: Instant,
    ) -> EndpointId {
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        let endpoints = target.and_then(Target::endpoints);
        let pool = self.pools.get_mut(usize::from(server.0));
        endpoints.zip(pool).map_or_else(EndpointId::default, |(endpoints, pool)| {
            pool.pick((&endpoints.balance, hash, tried), now)
        })
    }

    /// What stands for a session where a hash decides.
    fn of_session(&self, key: SessionKey) -> Option<u64> {
        self.sessions.get(key).map(|session| hash(&[session.id.as_bytes()]))
    }

    /// Whether an endpoint could not be connected lately, and another one is to be preferred.
    pub(super) fn has_better(&self, server: ServerId, than: EndpointId, now: Instant) -> bool {
        self.has_choice(server)
            && self
                .pools
                .get(usize::from(server.0))
                .is_some_and(|pool| pool.balancer.has_better(than, now))
    }

    /// Whether an endpoint could not be connected so lately that it is not tried again yet.
    pub(super) fn is_avoided(
        &self,
        (server, endpoint): (ServerId, EndpointId),
        now: Instant,
    ) -> bool {
        let pool = self.pools.get(usize::from(server.0));
        pool.is_some_and(|pool| pool.balancer.is_avoided(endpoint, now))
    }

    /// An endpoint could not be connected.
    pub(super) fn endpoint_failed(
        &mut self,
        (server, endpoint): (ServerId, EndpointId),
        began: Instant,
        now: Instant,
    ) {
        let chance = self.random.next_u32();
        let Some(pool) = self.pools.get_mut(usize::from(server.0)) else { return };
        let failure = pool.balancer.failed(endpoint, (began, chance), now);
        self.counters.endpoints_failing += u64::from(failure == Failure::First);
        if failure != Failure::Known && self.has_choice(server) {
            self.report_endpoint((server, endpoint), "cannot be connected", now);
        }
    }

    /// An endpoint was connected, or has answered.
    pub(super) fn endpoint_worked(
        &mut self,
        (server, endpoint): (ServerId, EndpointId),
        now: Instant,
    ) {
        let Some(pool) = self.pools.get_mut(usize::from(server.0)) else { return };
        if pool.balancer.worked(endpoint) {
            self.counters.endpoints_failing -= 1;
            if self.has_choice(server) {
                self.report_endpoint((server, endpoint), "was connected again", now);
            }
        }
    }

    /// An exchange could not be sent because its endpoint cannot be connected. Sends it to another
    /// one, if there is one that it was not tried at and that it may go to.
    pub(super) fn fails_over(&mut self, key: ExchangeId, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get_mut(key) else { return false };
        let (server, session, kind) = (exchange.server, exchange.session, exchange.kind);
        let count = self.pools.get(usize::from(server.0)).map_or(0, Pool::endpoints);
        // What is to be resumed was sent, and is where it was sent.
        if count < 2 || exchange.is_cancelled || exchange.is_resumed() {
            return false;
        }
        match kind {
            Kind::Delete | Kind::Setup | Kind::Line(_) => return false,
            Kind::Open(process) => return self.process_fails_over(process, now),
            _ => {}
        }
        exchange.tried |= exchange.endpoint.map_or(0, EndpointId::bit);
        if self.has_tried_all(server, self.tried(key)) {
            return false;
        }
        let link = session.and_then(|key| self.sessions.get(key)).map(|session| &session.link);
        if let (Some(session), Some(Link::Http { .. })) = (session, link) {
            return self.session_fails_over(session, key, now);
        }
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.via = Via::Nothing;
            exchange.endpoint = None;
        }
        self.counters.failed_over += 1;
        self.http_send(key, now);
        true
    }

    /// Chooses another endpoint, with room for a stream, for a subscription whose own has none.
    pub(super) fn stream_goes_elsewhere(&mut self, key: ExchangeId, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let (server, here) = (exchange.server, exchange.endpoint.map_or(1, EndpointId::bit));
        let (tried, hash) = (exchange.tried | here, exchange.reply.client().map(of_conn));
        let Some(endpoint) = self.place_with_room((server, true), (hash, tried), now) else {
            return false;
        };
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.endpoint = Some(endpoint);
        }
        true
    }

    fn has_tried_all(&self, server: ServerId, tried: u64) -> bool {
        let count = self.pools.get(usize::from(server.0)).map_or(0, Pool::endpoints);
        usize::try_from(tried.count_ones()).is_ok_and(|tried| count <= tried)
    }

    /// The same for an exchange of a session.
    fn session_fails_over(&mut self, session: SessionKey, key: ExchangeId, now: Instant) -> bool {
        let is_answer = self.is_answer(key);
        let is_used = self.is_used_elsewhere(session, key);
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let (kind, was) = (exchange.kind, exchange.endpoint);
        let is_first = matches!(kind, Kind::Initialize | Kind::Handshake);
        if !is_first && self.revival_takes(key, Some(session)) {
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.via = Via::Nothing;
            }
            return true;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return false };
        let Some(session_of) = self.sessions.get_mut(session) else { return false };
        let may_move = session_of.is_open && !session_of.is_irreplaceable && !is_used;
        let Link::Http { endpoint, id, .. } = &mut session_of.link else { return false };
        let has_moved = was.is_some() && *endpoint != was && !is_first;
        // What the server asked, it asked where it is gone.
        if !is_first && !has_moved && (is_answer || !may_move) {
            return false;
        }
        exchange.via = Via::Nothing;
        self.counters.failed_over += u64::from(!has_moved);
        if has_moved {
            match is_answer {
                true => self.notice_taken(key, now),
                false => self.http_send(key, now),
            }
            return true;
        }
        let before = endpoint.take();
        match before.zip(id.clone()).filter(|_| !is_first) {
            Some(from) => self.session_revive(session, (vec![key], Some(from)), now),
            // There is nothing of it at the endpoint that must be set up again.
            None => {
                let listen = self.session_moved(session, now);
                self.http_send(key, now);
                self.listen_follows(listen, now);
            }
        }
        true
    }

    /// Whether a request of the session is at its endpoint, besides this one: that may still be
    /// answered there, and ask. So may one whose answer is to be gone on with.
    fn is_used_elsewhere(&self, session: SessionKey, except: ExchangeId) -> bool {
        let Some(session) = self.sessions.get(session) else { return false };
        session.exchanges.iter().filter(|key| **key != except).any(|key| {
            self.exchanges.get(*key).is_some_and(|exchange| match exchange.via {
                _ if exchange.kind != Kind::Request => false,
                _ if exchange.is_resumed() => true,
                Via::Http(conn) => self.is_connected(conn),
                Via::Nothing | Via::Process(..) | Via::Leg(_) | Via::Union(_) => false,
            })
        })
    }

    /// A session was set up at another endpoint: nothing of the one before counts any more. Returns
    /// the GET stream whose client still waits for it, and that is to be asked for there.
    pub(super) fn session_moved(&mut self, key: SessionKey, now: Instant) -> Option<ExchangeId> {
        let (listen, conn) = self.session_forgotten(key, now)?;
        self.listen_ends(listen, conn, now);
        self.exchanges.get(listen).map(|_| listen)
    }

    /// A GET stream is asked for where its session is now.
    pub(super) fn listen_follows(&mut self, listen: Option<ExchangeId>, now: Instant) {
        if let Some(listen) = listen {
            self.http_send(listen, now);
        }
    }

    /// The stream on which the server spoke of its own accord in a session that it has no more: its
    /// client asks again. One that still waits for it goes on waiting.
    pub(super) fn listen_ends(&mut self, key: ExchangeId, conn: ConnId, now: Instant) {
        if let Some(server) = self.server_mut(conn) {
            server.exchange = None;
        }
        self.server_close(conn, now);
        match self.exchanges.get_mut(key) {
            Some(exchange) if matches!(exchange.reply, Reply::Pending(_)) => {
                exchange.via = Via::Nothing;
            }
            _ => self.events_broke(key, now),
        }
    }

    /// Chooses where a process is to be that is about to start.
    pub(super) fn process_located(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        if !self.has_choice(process.server) {
            return;
        }
        let endpoint = self.process_place(id, 0, now);
        if let Some(process) = self.processes.get_mut(&id) {
            process.endpoint = endpoint.unwrap_or(process.endpoint);
            process.tried = 0;
        }
    }

    /// An endpoint with room for a process, besides those that were tried.
    fn process_place(&mut self, id: ProcessId, tried: u64, now: Instant) -> Option<EndpointId> {
        let process = self.processes.get(&id)?;
        let (server, is_stream) = (process.server, process.stream().is_some());
        let hash = match process.user {
            User::Session(key) => self.of_session(key),
            User::Sessions | User::Stateless => None,
        };
        self.place_with_room((server, is_stream), (hash, tried), now)
    }

    fn place_with_room(
        &mut self,
        (server, is_stream): (ServerId, bool),
        (hash, mut tried): (Option<u64>, u64),
        now: Instant,
    ) -> Option<EndpointId> {
        while !self.has_tried_all(server, tried) {
            let endpoint = self.endpoint_pick(server, (hash, tried), now);
            let site = self.site_mut(server, endpoint)?;
            if if is_stream { site.has_stream_room() } else { site.has_room() } {
                return Some(endpoint);
            }
            tried |= endpoint.bit();
        }
        None
    }

    /// A stream or a WebSocket cannot be connected at its endpoint: tries the next.
    pub(super) fn process_fails_over(&mut self, id: ProcessId, now: Instant) -> bool {
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let (server, before) = (process.server, process.endpoint);
        process.tried |= before.bit();
        let tried = process.tried;
        if process.state != State::Starting {
            return false;
        }
        let Some(endpoint) = self.process_place(id, tried, now) else { return false };
        let Some(process) = self.processes.get_mut(&id) else { return false };
        process.endpoint = endpoint;
        self.counters.failed_over += 1;
        match &mut process.carrier {
            Carrier::Pipes(_) | Carrier::Stream => return false,
            Carrier::Events(stream) => {
                let key = stream.exchange;
                if let Some(site) = self.site_mut(server, before) {
                    site.close_stream();
                }
                let _has_room = self.site_mut(server, endpoint).is_some_and(Site::open_stream);
                let Some(exchange) = key.and_then(|key| self.exchanges.get_mut(key)) else {
                    return false;
                };
                exchange.via = Via::Nothing;
                if let Some(key) = key {
                    self.http_send(key, now);
                }
            }
            Carrier::WebSocket(socket) => {
                **socket = WebSocket::new(now);
                if let Some(conn) = process.conn.take() {
                    self.counters.server_conns -= 1;
                    self.conns.remove(conn);
                    if let Some(site) = self.site_mut(server, before) {
                        site.close_conn();
                    }
                    let rest = std::collections::VecDeque::new();
                    self.actions.push_back(Action::Close { conn, rest });
                }
                self.remote_ws_start(id, now);
            }
        }
        true
    }
}

/// What stands for a client's connection where a hash decides.
fn of_conn(conn: ConnId) -> u64 {
    u64::from(conn.index) << 32 | u64::from(conn.generation)
}
