//! Exchanges to and from child processes. Towards a process the gateway has ids of its own.

use std::time::Instant;

use bytes::Bytes;
use wire::json::Span;
use wire::rpc::{self, Document, Envelope, write_line_safe};

use crate::backend::stdio::{State, User, read_number, write_number};
use crate::exchange::{Kind, Reply, Via};
use crate::federation::Union;
use crate::ids::{ExchangeId, ProcessId, SessionKey};
use crate::limits;
use crate::message::Era;
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::post::Incoming;
use crate::upstream::catalog::Isolation;

impl Shard {
    /// Sends a client's request to the process that serves it, starting that if needed.
    pub(super) fn stdio_send(&mut self, key: ExchangeId, incoming: &Incoming<'_>, now: Instant) {
        let kind = self.exchanges.get(key).map(|exchange| exchange.kind);
        if self.stateless_is_refused(incoming, now) {
            self.exchange_fail(key, Refusal::LegacyServer, now);
            return;
        }
        let Some(process) = self.process_for(incoming, now) else {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        };
        let is_shared = self
            .processes
            .get(&process)
            .is_some_and(|process| !matches!(process.user, User::Session(_)));
        if is_shared && kind == Some(Kind::Initialize) {
            self.welcome(process, key, incoming, now);
            return;
        }
        if kind == Some(Kind::Notice) {
            self.process_write(process, self.line(incoming, &[]), now);
            self.notice_taken(key, now);
            return;
        }
        let Some(number) = self.stdio_number(process, key) else {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        };
        let mut digits = Vec::with_capacity(20);
        write_number(&mut digits, number);
        let mut edits: Vec<(Span, &[u8])> = Vec::with_capacity(2);
        edits.extend(incoming.envelope.id.map(|id| (id, &*digits)));
        if is_shared {
            // Tokens of different clients may be equal; our number is unique.
            edits.extend(incoming.envelope.progress_token.map(|token| (token, &*digits)));
        }
        let line = self.line(incoming, &edits);
        self.process_write(process, line, now);
    }

    /// Registers an exchange with a process and returns the number it has there.
    pub(super) fn stdio_number(&mut self, id: ProcessId, key: ExchangeId) -> Option<u64> {
        if limits::STDIN_LEN_MAX < self.process_queued(id) {
            return None;
        }
        let process = self.processes.get_mut(&id)?;
        let number = process.next_id;
        process.next_id += 1;
        process.pending.insert(number, key);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.via = Via::Process(id, number);
        }
        Some(number)
    }

    /// A message as one line, with parts of it replaced.
    fn line(&self, incoming: &Incoming<'_>, edits: &[(Span, &[u8])]) -> Bytes {
        let mut line = Vec::with_capacity(incoming.bytes().len() + 24);
        if incoming.envelope.has_line_breaks {
            write_line_safe(&mut line, incoming.bytes(), edits);
        } else {
            rpc::splice(&mut line, incoming.bytes(), edits);
        }
        line.push(b'\n');
        Bytes::from(line)
    }

    /// A notification or a response of a client.
    pub(super) fn stdio_notice(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let is_initialized = incoming.is_method("notifications/initialized");
        let Some(session) = incoming.session.and_then(|key| self.sessions.get(key)) else { return };
        let Link::Process(Some(id)) = session.link else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        if is_initialized && process.user == User::Sessions {
            // The shared process was told by us.
            return;
        }
        process.asked.retain(|(asked, _)| asked != incoming.id());
        let line = self.line(incoming, &[]);
        self.process_write(id, line, now);
    }

    /// A client's cancellation: the request is named by our number.
    pub(super) fn stdio_cancel(
        &mut self,
        (process, number): (ProcessId, u64),
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        let mut digits = Vec::with_capacity(20);
        write_number(&mut digits, number);
        let Some(span) = incoming.envelope.request_id else { return };
        let line = self.line(incoming, &[(span, &digits)]);
        self.process_write(process, line, now);
    }

    /// A session ends: a process that goes on without it need not work on its requests.
    pub(super) fn stdio_drops(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let Via::Process(process, number) = exchange.via else { return };
        let is_request = exchange.kind == Kind::Request;
        let user = self.processes.get(&process).map(|process| process.user);
        if is_request && user == Some(User::Sessions) {
            self.stdio_withdraw(process, number, now);
        }
    }

    /// The client is gone: a cancellation of our own.
    pub(super) fn stdio_withdraw(&mut self, process: ProcessId, number: u64, now: Instant) {
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":\
             {{\"requestId\":{number},\"reason\":\"the client closed its connection\"}}}}\n"
        );
        self.process_write(process, Bytes::from(line), now);
    }

    /// The process was told to drop this, or has taken too long: it may still talk about it. A
    /// process that is not shared belongs to one client, whom that may reach.
    pub(super) fn stdio_give_up(
        &mut self,
        process: ProcessId,
        number: u64,
        (session, now): (Option<SessionKey>, Instant),
    ) {
        let Some(process) = self.processes.get_mut(&process) else { return };
        process.given_up.retain(|(_, _, at)| now < *at + limits::GIVEN_UP_TIME);
        if matches!(process.user, User::Session(_)) || !process.pending.contains_key(&number) {
            return;
        }
        if limits::GIVEN_UP_MAX <= process.given_up.len() {
            process.given_up.pop_front();
        }
        process.given_up.push_back((number, session, now));
    }

    /// The process need not answer this any more.
    pub(super) fn stdio_forget(&mut self, process: ProcessId, number: u64, now: Instant) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.pending.remove(&number);
            process.used_at = now;
        }
    }

    /// One line of a process.
    pub(super) fn process_line(&mut self, id: ProcessId, bytes: &[u8], now: Instant) {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return;
        }
        match rpc::document(bytes, self.rpc_limits()) {
            Ok(Document::Message(envelope)) => self.process_message(id, bytes, &envelope, now),
            Ok(Document::Batch) => {
                // 2025-03-26 only: each part for itself.
                for span in wire::json::elements(bytes, limits::DEPTH_MAX).take(limits::BATCH_MAX) {
                    let part = span.map(|span| span.get(bytes)).unwrap_or_default();
                    match rpc::scan(part, self.rpc_limits()) {
                        Ok(envelope) => self.process_message(id, part, &envelope, now),
                        Err(_) => self.counters.dropped += 1,
                    }
                }
            }
            Err(error) => {
                self.counters.dropped += 1;
                self.report_line(id, bytes, &error, now);
            }
        }
    }

    fn process_message(&mut self, id: ProcessId, bytes: &[u8], envelope: &Envelope, now: Instant) {
        match envelope.kind {
            rpc::Kind::Response | rpc::Kind::ErrorResponse => {
                self.process_answer(id, bytes, envelope, now);
            }
            rpc::Kind::Request => self.process_asks(id, bytes, envelope, now),
            rpc::Kind::Notification => self.process_notifies(id, bytes, envelope, now),
        }
    }

    fn process_answer(&mut self, id: ProcessId, bytes: &[u8], envelope: &Envelope, now: Instant) {
        let number = envelope.id.and_then(|id| read_number(id.get(bytes)));
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.has_answered = true;
        let key = number.and_then(|number| process.pending.get(&number).copied());
        let Some(key) = key else {
            process.given_up.retain(|(given_up, ..)| Some(*given_up) != number);
            // Late answers to cancelled requests are normal; so is an id of null.
            self.counters.dropped += 1;
            return;
        };
        let Some(exchange) = self.exchanges.get(key) else { return };
        match exchange.kind {
            Kind::Handshake | Kind::Setup | Kind::Probe | Kind::Learn => {
                self.handshake_answered(id, key, (bytes, envelope), now);
                return;
            }
            Kind::Initialize if envelope.error.is_none() => {
                let version = envelope.result_version.map(|text| text.decode(bytes));
                if let Some(session) = exchange.session {
                    self.session_opened(session, version.as_deref(), None);
                }
            }
            _ => {}
        }
        self.answer_restored(key, bytes, envelope, now);
    }

    /// Answers with the message of a process, our numbers in it replaced by the client's values.
    fn answer_restored(
        &mut self,
        key: ExchangeId,
        bytes: &[u8],
        envelope: &Envelope,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (kind, session) = (exchange.kind, exchange.session);
        let client_id = exchange.id.clone();
        let mut edits = [(0, 0, &client_id); 2];
        let mut count = 0;
        for span in [envelope.id, envelope.subscription_id].into_iter().flatten() {
            if let Some(edit) = edits.get_mut(count) {
                *edit = (span.start as usize, span.end as usize, &client_id);
                count += 1;
            }
        }
        edits.get_mut(..count).unwrap_or_default().sort_by_key(|edit| edit.0);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(5);
        let mut at = 0;
        for (start, end, text) in edits.iter().take(count) {
            parts.push(bytes.get(at..*start).unwrap_or_default());
            parts.push(text);
            at = *end;
        }
        parts.push(bytes.get(at..).unwrap_or_default());
        let error = envelope.error.map(|_| envelope.error_code.unwrap_or_default());
        self.answer(key, &parts, error, now);
        if kind == Kind::Initialize
            && error.is_some()
            && let Some(session) = session
        {
            self.session_end(session, "not initialized", now);
        }
    }

    /// A request of the server: sampling, elicitation, roots, ping.
    fn process_asks(&mut self, id: ProcessId, bytes: &[u8], envelope: &Envelope, now: Instant) {
        let question = envelope.id.map_or(&b"null"[..], |span| span.get(bytes));
        let is_ping = envelope.method.is_some_and(|method| method.eq(bytes, "ping"));
        let Some(process) = self.processes.get(&id) else { return };
        let session = match process.user {
            User::Session(session) => Some(session),
            User::Sessions => self.only_session(id, now),
            User::Stateless => None,
        };
        let is_taken = session
            .and_then(|key| self.sessions.get_mut(key))
            .is_some_and(|session| session.ask(question));
        let Some(session) = session.filter(|_| is_taken) else {
            self.counters.dropped += 1;
            let mut line = answer_for_nobody(question, is_ping);
            line.push(b'\n');
            self.process_push(id, Bytes::from(line), now);
            return;
        };
        if let Some(process) = self.processes.get_mut(&id)
            && process.user == User::Sessions
        {
            process.asked.push((Bytes::copy_from_slice(question), session));
        }
        self.counters.forwarded += 1;
        if let Some((exchange, _)) = self.newest_request(session) {
            // It waits for the client now.
            self.exchange_alive(exchange, now);
        }
        self.deliver(session, bytes, now);
    }

    /// The only session with a request in flight at a shared process: it must be meant. Requests
    /// that were given up count: the process may still ask for them.
    fn only_session(&self, id: ProcessId, now: Instant) -> Option<SessionKey> {
        let process = self.processes.get(&id)?;
        let pending = process.pending.values();
        let pending = pending.filter_map(|key| self.exchanges.get(*key).and_then(|e| e.session));
        let is_recent = |at: &Instant| now < *at + limits::GIVEN_UP_TIME;
        let given_up = process.given_up.iter().filter(|(_, _, at)| is_recent(at));
        let given_up = given_up.filter_map(|(_, session, _)| *session);
        let mut sessions = pending.chain(given_up);
        let first = sessions.next()?;
        sessions.all(|other| other == first).then_some(first)
    }

    /// Delivers a message of the server: on the stream of a request in flight, as SEP-2260 wants
    /// it, or on the GET stream.
    pub(super) fn deliver(&mut self, session: SessionKey, bytes: &[u8], now: Instant) {
        match self.newest_request(session) {
            Some((exchange, is_read)) if is_read || !self.is_listened(session) => {
                self.answer_event(exchange, &[bytes], now);
            }
            _ => self.listen_event(session, &[bytes], now),
        }
    }

    /// The newest request in flight whose client reads its answer, or else the newest whose client
    /// can come back for it; and which of the two it is.
    fn newest_request(&self, session: SessionKey) -> Option<(ExchangeId, bool)> {
        let session = self.sessions.get(session)?;
        let mut waiting = None;
        for key in session.exchanges.iter().rev() {
            let Some(exchange) = self.exchanges.get(*key) else { continue };
            if !matches!(exchange.kind, Kind::Request | Kind::Initialize) {
                continue;
            }
            let (reply, outer) = match exchange.reply {
                Reply::Leg(..) => match self.outer_reply(exchange.reply) {
                    Some(outer) => outer,
                    None => continue,
                },
                reply => (reply, None),
            };
            let is_read = match reply {
                Reply::Nobody | Reply::Leg(..) => continue,
                Reply::Pending(_)
                | Reply::Whole(_)
                | Reply::Relaying(_)
                | Reply::Events(_)
                | Reply::Channel(_) => true,
                Reply::Stream(number) => {
                    let streams = outer.and_then(|key| self.sessions.get(key)).unwrap_or(session);
                    streams.replay.client(number).is_some()
                }
            };
            if is_read {
                return Some((*key, true));
            }
            waiting = waiting.or(Some((*key, false)));
        }
        waiting
    }

    fn process_notifies(&mut self, id: ProcessId, bytes: &[u8], envelope: &Envelope, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        let user = process.user;
        self.counters.forwarded += 1;
        match user {
            User::Session(session) => self.session_notified(session, bytes, envelope, now),
            User::Sessions => self.shared_notified(id, bytes, envelope, now),
            User::Stateless => self.stateless_notified(id, bytes, envelope, now),
        }
    }

    /// A notification to the one session of a process.
    fn session_notified(
        &mut self,
        key: SessionKey,
        bytes: &[u8],
        envelope: &Envelope,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let method = envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
        if &*method == b"notifications/cancelled" {
            let question = envelope.request_id.map(|id| id.get(bytes)).unwrap_or_default();
            session.answer(question);
        }
        let token = envelope.notified_token.map(|token| token.get(bytes));
        let of_token = token.and_then(|token| {
            session.exchanges.iter().copied().find(|key| {
                self.exchanges.get(*key).is_some_and(|e| e.token.as_deref() == Some(token))
            })
        });
        if let Some(exchange) = of_token {
            self.exchange_alive(exchange, now);
            self.answer_event(exchange, &[bytes], now);
        } else if &*method == b"notifications/message" || &*method == b"notifications/cancelled" {
            self.deliver(key, bytes, now);
        } else if self.is_listened(key) {
            self.listen_event(key, &[bytes], now);
        } else {
            self.deliver(key, bytes, now);
        }
    }

    /// Whether a client hears what belongs to no request.
    pub(super) fn is_listened(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        if let Some((union, _)) = session.parent {
            let outer = self.unions.get(union).and_then(Union::session);
            return outer.is_some_and(|outer| self.is_listened(outer));
        }
        let stream = session.replay.get(crate::session::replay::GET_STREAM);
        session.channel.is_some() || stream.is_some_and(|stream| stream.client.is_some())
    }

    /// A notification of a process that several sessions share.
    fn shared_notified(&mut self, id: ProcessId, bytes: &[u8], envelope: &Envelope, now: Instant) {
        let method = envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
        match &*method {
            b"notifications/progress" => self.progress_restored(id, bytes, envelope, now),
            b"notifications/message" | b"notifications/tasks/status" => {
                // They may quote what one client asked for: only if it can be told which.
                match self.only_session(id, now) {
                    Some(session) => self.session_notified(session, bytes, envelope, now),
                    None => self.counters.dropped += 1,
                }
            }
            b"notifications/cancelled" => {
                let question = envelope.request_id.map(|id| id.get(bytes)).unwrap_or_default();
                let Some(process) = self.processes.get_mut(&id) else { return };
                let asked = process.asked.iter().position(|(asked, _)| asked == question);
                if let Some((_, session)) = asked.map(|index| process.asked.swap_remove(index)) {
                    self.session_notified(session, bytes, envelope, now);
                }
            }
            _ => {
                let uri = envelope.uri.map(|text| text.decode(bytes));
                for session in self.sessions_at(id) {
                    let is_for = match (&*method, &uri) {
                        (b"notifications/resources/updated", Some(uri)) => {
                            self.sessions.get(session).is_some_and(|session| {
                                session.setup.iter().any(|setup| *setup.key == **uri)
                            })
                        }
                        _ => true,
                    };
                    if is_for {
                        self.session_notified(session, bytes, envelope, now);
                    }
                }
            }
        }
    }

    /// A notification of a process that serves stateless requests: each belongs to one of them.
    fn stateless_notified(
        &mut self,
        id: ProcessId,
        bytes: &[u8],
        envelope: &Envelope,
        now: Instant,
    ) {
        if envelope.notified_token.is_some() {
            self.progress_restored(id, bytes, envelope, now);
            return;
        }
        if envelope.method.is_some_and(|m| m.eq(bytes, "notifications/tools/list_changed")) {
            self.learn(id, None, now);
        }
        let Some(process) = self.processes.get(&id) else { return };
        if let Some(span) = envelope.subscription_id {
            let number = read_number(span.get(bytes));
            let key = number.and_then(|number| process.pending.get(&number).copied());
            let exchange = key.and_then(|key| self.exchanges.get(key));
            if let (Some(key), Some(exchange)) = (key, exchange) {
                let client_id = exchange.id.clone();
                let mut text = Vec::with_capacity(bytes.len() + client_id.len());
                rpc::splice(&mut text, bytes, &[(span, &client_id)]);
                self.answer_event(key, &[&text], now);
                return;
            }
        }
        // A log message names no request: it is delivered only if it can belong to one alone.
        let mut wanting = process
            .pending
            .values()
            .copied()
            .filter(|key| self.exchanges.get(*key).is_some_and(|exchange| exchange.wants_logs));
        let is_recent = |at: &Instant| now < *at + limits::GIVEN_UP_TIME;
        let has_given_up = process.given_up.iter().any(|(_, _, at)| is_recent(at));
        match (wanting.next(), wanting.next()) {
            (Some(key), None) if !has_given_up => self.answer_event(key, &[bytes], now),
            _ => self.counters.dropped += 1,
        }
    }

    /// Progress under our number: the client gets its own token back.
    fn progress_restored(
        &mut self,
        id: ProcessId,
        bytes: &[u8],
        envelope: &Envelope,
        now: Instant,
    ) {
        let Some(span) = envelope.notified_token else { return };
        let number = read_number(span.get(bytes));
        let process = self.processes.get(&id);
        let key = number.and_then(|number| process?.pending.get(&number).copied());
        let token = key.and_then(|key| self.exchanges.get(key)?.token.clone());
        let (Some(key), Some(token)) = (key, token) else {
            self.counters.dropped += 1;
            return;
        };
        let mut text = Vec::with_capacity(bytes.len() + token.len());
        rpc::splice(&mut text, bytes, &[(span, &token)]);
        self.exchange_alive(key, now);
        self.answer_event(key, &[&text], now);
    }

    /// The sessions that use a shared process.
    fn sessions_at(&self, id: ProcessId) -> Vec<SessionKey> {
        let keys = self.session_keys.values().copied();
        let uses = |key: &SessionKey| {
            let link = self.sessions.get(*key).map(|session| &session.link);
            matches!(link, Some(Link::Process(Some(process))) if *process == id)
        };
        let mut keys: Vec<SessionKey> = keys.filter(uses).collect();
        keys.sort_unstable();
        keys
    }

    /// The process for a message: the session's, or the one for all.
    fn process_for(&mut self, incoming: &Incoming<'_>, now: Instant) -> Option<ProcessId> {
        if incoming.era == Era::Modern {
            return self.process_of(incoming.server, User::Stateless, now);
        }
        let key = incoming.session?;
        let session = self.sessions.get(key)?;
        if let Link::Process(Some(id)) = session.link
            && self.processes.get(&id).is_some_and(|process| process.state != State::Stopping)
        {
            return Some(id);
        }
        let user = match self.isolation(incoming.server) {
            Isolation::Session => User::Session(key),
            Isolation::Shared => User::Sessions,
        };
        let id = self.process_of(incoming.server, user, now)?;
        if let Some(session) = self.sessions.get_mut(key) {
            session.link = Link::Process(Some(id));
        }
        if let Some(process) = self.processes.get_mut(&id) {
            process.sessions += 1;
        }
        Some(id)
    }
}

/// The answer to a server's request that no client can be given: the server is told at once
/// instead of waiting for ever. A ping is for whoever is there.
pub(super) fn answer_for_nobody(question: &[u8], is_ping: bool) -> Vec<u8> {
    let mut message = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    message.extend_from_slice(question);
    message.extend_from_slice(match is_ping {
        true => b",\"result\":{}}",
        false => {
            b",\"error\":{\"code\":-32603,\"message\":\"The gateway has no client for this.\"}}"
        }
    });
    message
}
