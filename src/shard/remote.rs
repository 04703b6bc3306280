//! Servers that speak HTTP+SSE (2024-11-05). To the rest of the shard each of their streams is a
//! process: it starts when the stream names its address, its lines come as events and go as POSTs,
//! and it dies when the stream ends.

use std::time::Instant;

use bytes::Bytes;
use wire::rpc;

use crate::backend::sse::{Remote, resolve};
use crate::backend::stdio::{State, read_number};
use crate::exchange::{Kind, Via};
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey};
use crate::message::Payload;
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::answer::Outcome;
use crate::shard::post::Incoming;
use crate::upstream::catalog::{Secret, ServerId, Target, Transport, Upkeep};

impl Shard {
    /// How the processes of a server are kept; none if it has no such thing.
    pub(super) fn upkeep(&self, server: ServerId) -> Option<Upkeep> {
        self.settings.catalog.get(server)?.target.upkeep()
    }

    /// Whether messages for a server go to a process, as far as that is known.
    pub(super) fn is_process(&self, server: ServerId) -> bool {
        match self.settings.catalog.get(server).map(|server| &server.target) {
            Some(Target::Stdio(_)) => true,
            Some(Target::Http(endpoint)) => match endpoint.transport {
                Transport::Http => false,
                Transport::Sse => true,
                Transport::Auto => {
                    self.pools.get(usize::from(server.0)).is_some_and(|pool| pool.is_sse)
                }
            },
            None => false,
        }
    }

    /// The same for a message: what a session has begun with, it goes on with.
    pub(super) fn goes_to_process(&self, server: ServerId, session: Option<SessionKey>) -> bool {
        match session.and_then(|key| self.sessions.get(key)) {
            Some(session) => matches!(session.link, Link::Process(_)),
            None => self.is_process(server),
        }
    }

    /// What carries the messages of a new process of this server.
    pub(super) fn carrier(&self, server: ServerId) -> Option<Box<Remote>> {
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        matches!(target, Some(Target::Http(_))).then(Box::default)
    }

    /// Asks for the stream, if the process is one of an HTTP+SSE server.
    pub(super) fn remote_start(&mut self, id: ProcessId, now: Instant) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        if process.remote.is_none() {
            return false;
        }
        let server = process.server;
        let Some(pool) = self.pools.get_mut(usize::from(server.0)) else { return false };
        if !pool.open_stream() {
            self.process_refused(id, "there are as many streams as connections allow", now);
            return true;
        }
        let key = self.begin_own(Kind::Open(id), (None, server), Bytes::new(), now);
        let process = self.processes.get_mut(&id);
        if let Some(remote) = process.and_then(|process| process.remote.as_mut()) {
            remote.stream = key;
        }
        match key {
            Some(key) => self.http_send(key, now),
            None => {
                if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
                    pool.close_stream();
                }
                self.process_refused(id, "there are too many exchanges", now);
            }
        }
        true
    }

    /// An event of the stream.
    pub(super) fn remote_event(
        &mut self,
        id: ProcessId,
        (name, data): (&[u8], &[u8]),
        now: Instant,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (server, state) = (process.server, process.state);
        let Some(remote) = &mut process.remote else { return };
        if name == b"endpoint" && remote.target.is_none() && state == State::Starting {
            let target = match self.settings.catalog.get(server).map(|server| &server.target) {
                Some(Target::Http(endpoint)) => resolve(endpoint, data),
                Some(Target::Stdio(_)) | None => None,
            };
            let Some(target) = target else {
                self.report_process(id, "named no address of its own for messages", now);
                return self.process_ended(id, Refusal::BadServer, now);
            };
            remote.target = Some(Secret::new(target));
            return self.process_greets(id, now);
        }
        let is_message = name.is_empty() || name == b"message";
        if is_message && remote.target.is_some() {
            self.process_line(id, data, now);
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Lets a line wait for its turn.
    pub(super) fn remote_push(&mut self, id: ProcessId, line: Bytes, now: Instant) {
        let process = self.processes.get_mut(&id);
        let Some(remote) = process.and_then(|process| process.remote.as_mut()) else { return };
        remote.queued_len += line.len();
        remote.queue.push_back(line);
        self.remote_next(id, now);
    }

    /// Posts the next message, unless one is on its way.
    fn remote_next(&mut self, id: ProcessId, now: Instant) {
        loop {
            let Some(process) = self.processes.get_mut(&id) else { return };
            let server = process.server;
            let Some(remote) = &mut process.remote else { return };
            if remote.is_sending || remote.posting.is_some() {
                return;
            }
            let Some(line) = remote.queue.pop_front() else { return };
            // One that fails at once must not lead here again: there may be very many.
            remote.is_sending = true;
            let is_repeatable = self.line_is_repeatable(id, &line);
            let len = line.len();
            let key = self.begin_own(Kind::Line(id), (None, server), line, now);
            if let Some(exchange) = key.and_then(|key| self.exchanges.get_mut(key)) {
                exchange.is_repeatable = is_repeatable;
            }
            if let Some(remote) = self.remote_mut(id) {
                remote.posting = key;
                if key.is_none() {
                    remote.queued_len = remote.queued_len.saturating_sub(len);
                }
            }
            match key {
                Some(key) => self.http_send(key, now),
                None => self.counters.dropped += 1,
            }
            if let Some(remote) = self.remote_mut(id) {
                remote.is_sending = false;
            }
        }
    }

    fn remote_mut(&mut self, id: ProcessId) -> Option<&mut Remote> {
        self.processes.get_mut(&id)?.remote.as_deref_mut()
    }

    /// The request that a line is, unless nobody waits for it any more.
    fn exchange_of_line(&self, id: ProcessId, line: &[u8]) -> Option<ExchangeId> {
        let envelope = rpc::scan(line.trim_ascii(), self.rpc_limits()).ok()?;
        if envelope.kind != rpc::Kind::Request {
            return None;
        }
        let number = read_number(envelope.id?.get(line.trim_ascii()))?;
        self.processes.get(&id)?.pending.get(&number).copied()
    }

    fn line_is_repeatable(&self, id: ProcessId, line: &[u8]) -> bool {
        let key = self.exchange_of_line(id, line);
        key.and_then(|key| self.exchanges.get(key)).is_some_and(|exchange| exchange.is_repeatable)
    }

    /// A message was taken: the next may go.
    pub(super) fn remote_posted(&mut self, id: ProcessId, key: ExchangeId, now: Instant) {
        let len = self.exchanges.get(key).map_or(0, |exchange| exchange.message.len());
        // It is no news to the counters: what it carries is counted.
        self.exchange_end(key, Outcome::Answered(202), now);
        if let Some(remote) = self.remote_mut(id).filter(|remote| remote.posting == Some(key)) {
            remote.posting = None;
            remote.queued_len = remote.queued_len.saturating_sub(len);
        }
        self.remote_next(id, now);
    }

    /// The stream could not be had or is over, or a message was not taken.
    pub(super) fn remote_failed(
        &mut self,
        (id, key): (ProcessId, ExchangeId),
        refusal: Refusal,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (kind, server, line) = (exchange.kind, exchange.server, exchange.message.clone());
        if kind == Kind::Open(id) {
            self.exchange_end(key, Outcome::Answered(200), now);
            let Some(remote) = self.remote_mut(id) else { return };
            remote.stream = None;
            if remote.target.is_none() {
                // Perhaps it is another server by now.
                if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
                    pool.is_sse = false;
                    pool.close_stream();
                }
                self.report_process(id, "has no event stream for us", now);
            } else if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
                pool.close_stream();
                self.report_process(id, "ended its event stream", now);
            }
            return self.process_ended(id, refusal, now);
        }
        let request = self.exchange_of_line(id, &line);
        self.remote_posted(id, key, now);
        let Some(request) = request else {
            self.counters.dropped += 1;
            return;
        };
        match self.exchanges.get(request).map(|exchange| exchange.kind) {
            Some(Kind::Handshake | Kind::Probe) => self.process_ended(id, refusal, now),
            Some(_) => self.exchange_fail(request, refusal, now),
            None => {}
        }
    }

    /// The server does not know its own stream any more, or never did.
    pub(super) fn remote_refused(&mut self, id: ProcessId, now: Instant) {
        self.report_process(id, "does not know its stream any more", now);
        self.process_ended(id, Refusal::Died, now);
    }

    /// The process is over: nothing is brought or taken any more.
    pub(super) fn remote_ended(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let server = process.server;
        let Some(remote) = process.remote.take() else { return };
        if let Some(stream) = remote.stream {
            self.exchange_end(stream, Outcome::Answered(200), now);
            if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
                pool.close_stream();
            }
        }
        if let Some(posting) = remote.posting {
            self.exchange_end(posting, Outcome::Answered(202), now);
        }
    }

    /// The connection that brings the stream.
    pub(super) fn remote_conn(&self, id: ProcessId) -> Option<ConnId> {
        let stream = self.processes.get(&id)?.remote.as_ref()?.stream?;
        match self.exchanges.get(stream)?.via {
            Via::Http(conn) => Some(conn),
            Via::Nothing | Via::Process(..) => None,
        }
    }

    /// `initialize` was refused as a server refuses it that speaks HTTP+SSE at this address: where
    /// the configuration leaves that open, it is asked for a stream.
    pub(super) fn falls_back(&mut self, key: ExchangeId, status: u16, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let (server, session, kind) = (exchange.server, exchange.session, exchange.kind);
        let (message, headers) = (exchange.message.clone(), exchange.headers.clone());
        let transport = match self.settings.catalog.get(server).map(|server| &server.target) {
            Some(Target::Http(endpoint)) => endpoint.transport,
            Some(Target::Stdio(_)) | None => return false,
        };
        let says_so = kind == Kind::Initialize && matches!(status, 400 | 404 | 405);
        if transport != Transport::Auto || !says_so {
            return false;
        }
        let Ok(envelope) = rpc::scan(&message, self.rpc_limits()) else { return false };
        let Some(open) = session.and_then(|key| self.sessions.get_mut(key)) else { return false };
        open.link = Link::Process(None);
        if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
            pool.is_sse = true;
        }
        let (payload, envelope) = (&Payload::Whole(message), &envelope);
        let era = crate::message::Era::Legacy;
        let incoming = Incoming { server, session, era, payload, envelope, headers: &headers };
        self.stdio_send(key, &incoming, now);
        true
    }
}
