//! Deadlines: whose time has come, and what that means.

use std::time::{Duration, Instant};

use wire::sse::COMMENT;

use crate::exchange::{Kind, Reply, Via};
use crate::frontend::http::Busy;
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey};
use crate::limits;
use crate::message::{Era, Revision};
use crate::refusal::Refusal;
use crate::shard::{Role, Shard, Timer, is_client};
use crate::upstream::catalog::ServerId;

impl Shard {
    pub(super) fn woke(&mut self, now: Instant) {
        self.armed = None;
        while let Some((timer, at)) = self.timers.pop(now) {
            self.current = None;
            match timer {
                Timer::Conn(conn) => {
                    self.current = Some(conn);
                    self.conn_tick(conn, at, now);
                }
                Timer::Exchange(key) => self.exchange_tick(key, at, now),
                Timer::Session(key) => self.session_tick(key, at, now),
                Timer::Process(id) => self.process_tick(ProcessId(id), at, now),
                Timer::Union(union) => self.union_tick(union, at, now),
                Timer::Link(name) => self.link_tick(name, at, now),
                Timer::Drain => {}
            }
        }
    }

    fn conn_tick(&mut self, conn: ConnId, at: Instant, now: Instant) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if !entry.wish.grant(at) {
            return;
        }
        if entry.branch.is_some() {
            return self.branch_tick(conn, now);
        }
        if entry.output.is_empty() {
            entry.stalled_since = None;
        } else if is_client(entry) {
            // Servers and processes have deadlines of their own.
            let since = *entry.stalled_since.get_or_insert(now);
            if since + limits::SEND_TIMEOUT <= now {
                self.client_lost(conn, "reads too slowly", now);
                self.channel_lost(conn, "reads too slowly", now);
                self.link_conn_lost(conn, "reads too slowly", now);
                return;
            }
            self.wish_conn(conn, since + limits::SEND_TIMEOUT);
        }
        match self.conns.get(conn).map(|entry| &entry.role) {
            Some(Role::Client(_)) => self.client_tick(conn, now),
            Some(Role::Channel(_)) => self.channel_tick(conn, now),
            Some(Role::Server(_)) => self.server_tick(conn, now),
            Some(Role::Process(process)) => self.remote_ws_tick(*process, conn, now),
            Some(Role::Link(_)) => self.link_conn_tick(conn, now),
            None => {}
        }
    }

    fn client_tick(&mut self, conn: ConnId, now: Instant) {
        let Some(entry) = self.conns.get(conn) else { return };
        let (is_reading, is_paused) = (!entry.output.is_empty(), entry.is_paused);
        let Some(client) = self.client_mut(conn) else { return };
        if is_reading && client.busy == Busy::No && (is_paused || !client.in_request) {
            // Nobody is idle who still reads the last answer.
            client.waits_since = now;
        }
        let since = client.waits_since;
        let is_draining = self.draining.is_some();
        let Some(client) = self.client_mut(conn) else { return };
        match client.busy {
            Busy::No if is_draining && !client.in_request => {
                self.client_close(conn, "draining", now);
            }
            Busy::No if client.in_request => {
                let has_head = client.need != 0 || client.chunked.is_some();
                let limit = if has_head { limits::BODY_TIMEOUT } else { limits::HEAD_TIMEOUT };
                if since + limit <= now {
                    self.refuse_and_close(conn, Refusal::TooSlow, now);
                } else {
                    self.wish_conn(conn, since + limit);
                }
            }
            Busy::No => {
                let is_new = client.requests == 0;
                let limit = if is_new { limits::HEAD_TIMEOUT } else { limits::KEEP_ALIVE_TIMEOUT };
                if since + limit <= now {
                    self.client_close(conn, "idle", now);
                } else {
                    self.wish_conn(conn, since + limit);
                }
            }
            Busy::Exchange(key) => self.waiting_tick(conn, key, now),
            Busy::Stream(..) => {
                self.comment(conn);
                self.wish_conn(conn, now + limits::COMMENT_INTERVAL);
            }
            Busy::Tunnel(_) => self.wish_conn(conn, now + limits::KEEP_ALIVE_TIMEOUT),
        }
    }

    /// A client waits for an exchange: is its time over, has it been quiet for too long?
    fn waiting_tick(&mut self, conn: ConnId, key: ExchangeId, now: Instant) {
        self.excuse_held(key, now);
        let Some(exchange) = self.exchanges.get(key) else { return };
        if exchange.deadline.is_some_and(|deadline| deadline <= now) {
            self.exchange_times_out(key, now);
            return;
        }
        let (kind, reply, era) = (exchange.kind, exchange.reply, exchange.era);
        let (deadline, sent_at) = (exchange.deadline, exchange.sent_at);
        let is_process = matches!(exchange.via, Via::Process(..) | Via::Leg(_) | Via::Union(_));
        let quiet_time = self.quiet_time(exchange.server, exchange.session);
        let mut next = now + limits::COMMENT_INTERVAL;
        match reply {
            Reply::Pending(_) if kind == Kind::Request && sent_at + quiet_time <= now => {
                // Nothing may give up on a silent connection: the head goes out now.
                if era == Era::Legacy {
                    self.exchange_stream(key, now);
                } else if is_process {
                    if let Some(exchange) = self.exchanges.get_mut(key) {
                        exchange.reply = Reply::Events(conn);
                    }
                    self.events_head(conn, None);
                    self.comment(conn);
                }
            }
            Reply::Pending(_) if kind == Kind::Request => next = sent_at + quiet_time,
            Reply::Events(_) => self.comment(conn),
            // What the server sends is passed on as it is, its own comments included.
            Reply::Pending(_)
            | Reply::Whole(_)
            | Reply::Relaying(_)
            | Reply::Stream(_)
            | Reply::Channel(_)
            | Reply::Leg(..)
            | Reply::Nobody => {}
        }
        let next = next.max(now + Duration::from_millis(1));
        self.wish_conn(conn, deadline.map_or(next, |deadline| deadline.min(next)));
    }

    /// How long a client waits for a plain answer before it gets an event stream. An HTTP server
    /// decides that itself in time; for a process the gateway does.
    pub(super) fn quiet_time(&self, server: ServerId, session: Option<SessionKey>) -> Duration {
        match session.and_then(|key| self.sessions.get(key)) {
            Some(session)
                if Revision::V2025_11_25 <= session.revision && self.is_process(server) =>
            {
                limits::RESUMABLE_QUIET_TIME
            }
            _ => limits::QUIET_TIME,
        }
    }

    /// Keeps an event stream from looking dead.
    fn comment(&mut self, conn: ConnId) {
        let is_idle = self.conns.get(conn).is_some_and(|entry| entry.output.is_empty());
        if is_idle {
            self.body_bytes(conn, COMMENT);
        }
    }

    fn exchange_tick(&mut self, key: ExchangeId, at: Instant, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if !exchange.wish.grant(at) {
            return;
        }
        self.excuse_held(key, now);
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if exchange.deadline.is_some_and(|deadline| deadline <= now) {
            self.exchange_times_out(key, now);
            return;
        }
        if exchange.resume_at.is_some_and(|at| at <= now) {
            exchange.resume_at = None;
            match exchange.via {
                Via::Union(union) => {
                    self.union_due(key, union, now);
                    self.subscription_begins(union, key, now);
                }
                Via::Leg(_) => {}
                Via::Nothing | Via::Http(_) | Via::Process(..) => self.http_send(key, now),
            }
        }
        self.watch(key, now);
    }

    /// A server that is not listened to, because a client reads slowly, is not late: the client
    /// has `SEND_TIMEOUT` for each step.
    fn excuse_held(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let outer = self.outer_reply(exchange.reply);
        let client = match outer.unwrap_or((exchange.reply, exchange.session)) {
            (Reply::Stream(number), Some(session)) => {
                let session = self.sessions.get_mut(session);
                session.and_then(|session| session.replay.get(number)).and_then(|it| it.client)
            }
            (reply, _) => reply.client(),
        };
        let server = match exchange.via {
            Via::Http(conn) => Some(conn),
            Via::Process(process, _) => self.process_conn(process),
            Via::Nothing | Via::Leg(_) | Via::Union(_) => None,
        };
        let entry = |conn: ConnId| self.conns.get(conn);
        let is_holding = client.and_then(entry).is_some_and(|entry| entry.holds_producer);
        if is_holding || server.and_then(entry).is_some_and(|entry| entry.is_paused) {
            self.exchange_alive(key, now);
        }
    }

    /// The server took too long: the client is told, and the server is told to stop.
    fn exchange_times_out(&mut self, key: ExchangeId, now: Instant) {
        let via = self.exchanges.get(key).map(|exchange| (exchange.via, exchange.kind));
        if let Some((Via::Process(process, number), Kind::Request)) = via {
            self.stdio_withdraw(process, number, now);
        }
        self.exchange_fail(key, Refusal::Timeout, now);
    }

    fn server_tick(&mut self, conn: ConnId, now: Instant) {
        let Some(server) = self.server_mut(conn) else { return };
        let is_shaking = server.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        let (since, is_connected) = (server.since, server.is_connected && !is_shaking);
        if !is_connected {
            if since + limits::CONNECT_TIMEOUT <= now {
                self.server_lost(conn, now);
            } else {
                self.wish_conn(conn, since + limits::CONNECT_TIMEOUT);
            }
        } else if server.exchange.is_none() {
            if since + limits::SERVER_IDLE_TIMEOUT <= now {
                self.server_close(conn, now);
            } else {
                self.wish_conn(conn, since + limits::SERVER_IDLE_TIMEOUT);
            }
        }
    }
}
