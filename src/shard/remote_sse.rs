//! Servers that speak HTTP+SSE (2024-11-05). To the rest of the shard each of their streams is a
//! process: it starts when the stream names its address, its lines come as events and go as POSTs,
//! and it dies when the stream ends.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use wire::rpc;

use crate::backend::sse::{EventStream, resolve};
use crate::backend::stdio::{State, read_number};
use crate::exchange::{Kind, Via};
use crate::ids::{ConnId, ExchangeId, ProcessId};
use crate::message::{Era, Payload};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::answer::Outcome;
use crate::shard::http::Site;
use crate::shard::post::Incoming;
use crate::upstream::catalog::{Secret, Target, Transport};

impl Shard {
    /// Asks for the stream.
    pub(super) fn remote_sse_start(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        let (server, endpoint) = (process.server, process.endpoint);
        if !self.site_mut(server, endpoint).is_some_and(Site::open_stream) {
            self.process_refused(id, "there are as many streams as connections allow", now);
            return;
        }
        let key = self.begin_own(Kind::Open(id), (None, server), Bytes::new(), now);
        if let Some(stream) = self.stream_mut(id) {
            stream.exchange = key;
        }
        match key {
            Some(key) => self.http_send(key, now),
            None => {
                if let Some(site) = self.site_mut(server, endpoint) {
                    site.close_stream();
                }
                self.process_refused(id, "there are too many exchanges", now);
            }
        }
    }

    /// An event of the stream.
    pub(super) fn remote_sse_event(
        &mut self,
        id: ProcessId,
        (name, data): (&[u8], &[u8]),
        now: Instant,
    ) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (server, endpoint, state) = (process.server, process.endpoint, process.state);
        let Some(stream) = process.stream_mut() else { return };
        if name == b"endpoint" && stream.target.is_none() && state == State::Starting {
            let endpoints = self.settings.catalog.get(server).and_then(|it| it.target.endpoints());
            let endpoint = endpoints.and_then(|all| all.get(endpoint));
            let Some(target) = endpoint.and_then(|endpoint| resolve(endpoint, data)) else {
                self.report_process(id, "named no address of its own for messages", now);
                return self.process_ended(id, Refusal::BadServer, now);
            };
            stream.target = Some(Secret::new(target));
            return self.process_greets(id, now);
        }
        let is_message = name.is_empty() || name == b"message";
        if is_message && stream.target.is_some() {
            self.process_line(id, data, now);
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Lets a line wait for its turn.
    pub(super) fn remote_sse_push(&mut self, id: ProcessId, line: Bytes, now: Instant) {
        let Some(stream) = self.stream_mut(id) else { return };
        stream.queued_len += line.len();
        stream.queue.push_back(line);
        self.remote_sse_next(id, now);
    }

    /// Posts the next message, unless one is on its way.
    fn remote_sse_next(&mut self, id: ProcessId, now: Instant) {
        loop {
            let Some(process) = self.processes.get_mut(&id) else { return };
            let server = process.server;
            let Some(stream) = process.stream_mut() else { return };
            if stream.is_sending || stream.posting.is_some() {
                return;
            }
            let Some(line) = stream.queue.pop_front() else { return };
            // One that fails at once must not lead here again: there may be very many.
            stream.is_sending = true;
            let is_repeatable = self.line_is_repeatable(id, &line);
            let len = line.len();
            let key = self.begin_own(Kind::Line(id), (None, server), line, now);
            if let Some(exchange) = key.and_then(|key| self.exchanges.get_mut(key)) {
                exchange.is_repeatable = is_repeatable;
            }
            if let Some(stream) = self.stream_mut(id) {
                stream.posting = key;
                if key.is_none() {
                    stream.queued_len = stream.queued_len.saturating_sub(len);
                }
            }
            match key {
                Some(key) => self.http_send(key, now),
                None => self.counters.dropped += 1,
            }
            if let Some(stream) = self.stream_mut(id) {
                stream.is_sending = false;
            }
        }
    }

    fn stream_mut(&mut self, id: ProcessId) -> Option<&mut EventStream> {
        self.processes.get_mut(&id)?.stream_mut()
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
    pub(super) fn remote_sse_posted(&mut self, id: ProcessId, key: ExchangeId, now: Instant) {
        let len = self.exchanges.get(key).map_or(0, |exchange| exchange.message.len());
        // It is no news to the counters: what it carries is counted.
        self.exchange_end(key, Outcome::Answered(202), now);
        if let Some(stream) = self.stream_mut(id).filter(|stream| stream.posting == Some(key)) {
            stream.posting = None;
            stream.queued_len = stream.queued_len.saturating_sub(len);
        }
        self.remote_sse_next(id, now);
    }

    /// The stream could not be had or is over, or a message was not taken.
    pub(super) fn remote_sse_failed(
        &mut self,
        (id, key): (ProcessId, ExchangeId),
        refusal: Refusal,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (kind, server, line) = (exchange.kind, exchange.server, exchange.message.clone());
        if kind == Kind::Open(id) {
            self.exchange_end(key, Outcome::Answered(200), now);
            let Some(process) = self.processes.get_mut(&id) else { return };
            let endpoint = process.endpoint;
            let Some(stream) = process.stream_mut() else { return };
            stream.exchange = None;
            let is_new = stream.target.is_none();
            if let Some(site) = self.site_mut(server, endpoint) {
                site.close_stream();
            }
            if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
                // Perhaps it is another server by now.
                pool.is_sse &= !is_new;
            }
            let what = if is_new { "has no event stream for us" } else { "ended its event stream" };
            self.report_process(id, what, now);
            return self.process_ended(id, refusal, now);
        }
        let request = self.exchange_of_line(id, &line);
        self.remote_sse_posted(id, key, now);
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
    pub(super) fn remote_sse_refused(&mut self, id: ProcessId, now: Instant) {
        self.report_process(id, "does not know its stream any more", now);
        self.process_ended(id, Refusal::Died, now);
    }

    /// The process is over: nothing is brought or taken any more.
    pub(super) fn remote_sse_ended(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (server, endpoint) = (process.server, process.endpoint);
        let Some(stream) = process.stream_mut() else { return };
        stream.queue = VecDeque::new();
        let (exchange, posting) = (stream.exchange.take(), stream.posting.take());
        if let Some(exchange) = exchange {
            self.exchange_end(exchange, Outcome::Answered(200), now);
            if let Some(site) = self.site_mut(server, endpoint) {
                site.close_stream();
            }
        }
        if let Some(posting) = posting {
            self.exchange_end(posting, Outcome::Answered(202), now);
        }
    }

    /// The connection that brings the stream.
    pub(super) fn remote_sse_conn(&self, id: ProcessId) -> Option<ConnId> {
        let exchange = self.processes.get(&id)?.stream()?.exchange?;
        match self.exchanges.get(exchange)?.via {
            Via::Http(conn) => Some(conn),
            Via::Nothing | Via::Process(..) | Via::Leg(_) | Via::Union(_) => None,
        }
    }

    /// `initialize` was refused as a server refuses it that speaks HTTP+SSE at this address: where
    /// the configuration leaves that open, it is asked for a stream.
    pub(super) fn falls_back(&mut self, key: ExchangeId, status: u16, now: Instant) -> bool {
        let Some(exchange) = self.exchanges.get(key) else { return false };
        let (server, session, kind) = (exchange.server, exchange.session, exchange.kind);
        let (message, headers) = (exchange.message.clone(), exchange.headers.clone());
        let transport = match self.settings.catalog.get(server).map(|server| &server.target) {
            Some(Target::Http(transport, _)) => *transport,
            Some(Target::Stdio(_) | Target::WebSocket(_) | Target::Tcp(_) | Target::View(_))
            | None => return false,
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
        let era = Era::Legacy;
        let incoming = Incoming { server, session, era, payload, envelope, headers: &headers };
        self.stdio_send(key, &incoming, now);
        true
    }
}
