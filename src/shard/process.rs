//! The lives of child processes: started on demand, restarted with pauses, stopped with grace.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::rand_core::Rng as _;
use wire::json::Span;
use wire::lines::{Line, LineReader};
use wire::rpc::{self, Envelope};

use crate::backend::stdio::{Carrier, Process, State, User, write_number};
use crate::exchange::Kind;
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey, Socket, Ticket};
use crate::limits;
use crate::message::Era;
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::answer::Outcome;
use crate::shard::binary::INITIALIZE;
use crate::shard::event::{Action, Question};
use crate::shard::post::Incoming;
use crate::shard::{Asked, Role, Shard, Timer};
use crate::timers::Wish;
use crate::upstream::catalog::{EndpointId, ServerId};

impl Shard {
    /// The process of this server for this user: the running one, or a new one.
    pub(super) fn process_of(
        &mut self,
        server: ServerId,
        user: User,
        now: Instant,
    ) -> Option<ProcessId> {
        let pool = self.pools.get(usize::from(server.0))?;
        let known = match user {
            User::Session(_) => None,
            User::Sessions => pool.shared,
            User::Stateless => pool.stateless,
        };
        let is_alive = |id: &ProcessId| {
            self.processes.get(id).is_some_and(|process| process.state != State::Stopping)
        };
        if let Some(id) = known.filter(is_alive) {
            return Some(id);
        }
        // A session that makes its process die delays nobody but itself.
        let restart = match user {
            User::Session(key) => self.sessions.get(key).map(|session| session.restart),
            User::Sessions | User::Stateless => Some(pool.restart),
        };
        let restart_at = restart.and_then(|restart| restart.at).filter(|at| now < *at);
        let ready_by = restart_at.unwrap_or(now) + self.upkeep(server)?.start_timeout;
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        let carrier = self.carrier(server, now);
        let process = Process {
            server,
            endpoint: EndpointId::default(),
            tried: 0,
            user,
            state: restart_at.map_or(State::Starting, State::Delayed),
            conn: None,
            carrier,
            backlog: Vec::new(),
            backlog_len: 0,
            pending: HashMap::default(),
            given_up: VecDeque::new(),
            next_id: 1,
            welcome: None,
            asked: Vec::new(),
            sessions: 0,
            has_answered: false,
            pages: 0,
            has_exited: false,
            ready_by,
            used_at: now,
            wish: Wish::default(),
        };
        self.processes.insert(id, process);
        if let Some(pool) = self.pools.get_mut(usize::from(server.0)) {
            match user {
                User::Session(_) => {}
                User::Sessions => pool.shared = Some(id),
                User::Stateless => pool.stateless = Some(id),
            }
        }
        match restart_at {
            Some(at) => self.wish_process(id, at),
            None => self.process_start(id, now),
        }
        self.wish_process(id, ready_by);
        Some(id)
    }

    fn process_start(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Starting;
        self.process_located(id, now);
        let Some(process) = self.processes.get(&id) else { return };
        match process.carrier {
            Carrier::Pipes(_) => {}
            Carrier::Events(_) => return self.remote_sse_start(id, now),
            Carrier::WebSocket(_) => return self.remote_ws_start(id, now),
            Carrier::Stream => return self.uplink_start(id, now),
        }
        let question = Question::Start { server: process.server, process: id };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.questions.insert(ticket, Asked::Start(id));
        self.actions.push_back(Action::Ask { ticket, question });
    }

    fn wish_process(&mut self, id: ProcessId, at: Instant) {
        if let Some(process) = self.processes.get_mut(&id) {
            self.timers.wish(Timer::Process(id.0), &mut process.wish, at);
        }
    }

    /// The process runs.
    pub(super) fn process_started(&mut self, id: ProcessId, socket: Socket, now: Instant) {
        // It runs, wanted or not, until its end is reported.
        self.counters.processes += 1;
        let is_wanted = self.processes.get(&id).is_some_and(|p| p.state == State::Starting);
        let conn = if is_wanted { self.open(Role::Process(id)) } else { None };
        let Some(conn) = conn else {
            self.actions.push_back(Action::Discard { socket });
            self.actions.push_back(Action::Stop { process: id, grace: limits::STOP_GRACE });
            self.process_ended(id, Refusal::Full, now);
            return;
        };
        self.counters.processes_started += 1;
        self.actions.push_back(Action::Receive { conn, socket });
        if let Some(process) = self.processes.get_mut(&id) {
            process.conn = Some(conn);
        }
        self.process_greets(id, now);
    }

    /// Messages can pass; a handshake of ours comes first unless the client's own does.
    pub(super) fn process_greets(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        let (server, user) = (process.server, process.user);
        let handshake = match user {
            User::Session(key) => {
                let session = self.sessions.get(key).filter(|session| session.is_open);
                session.map(|session| (Kind::Handshake, session.initialize.clone()))
            }
            User::Sessions => {
                let pool = self.pools.get(usize::from(server.0));
                let text = pool.and_then(|pool| pool.initialize.clone());
                // None: those who wait for it leave it to the gateway to say it.
                Some((Kind::Handshake, text.unwrap_or(Bytes::from_static(INITIALIZE))))
            }
            User::Stateless => Some((Kind::Probe, Bytes::from_static(PROBE))),
        };
        match handshake {
            None => self.process_ready(id, now),
            Some((kind, message)) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.state = State::Handshaking;
                }
                self.process_own(id, kind, &message, now);
            }
        }
    }

    /// Sends a message of the gateway's own, past everything that waits.
    fn process_own(&mut self, id: ProcessId, kind: Kind, message: &[u8], now: Instant) {
        let Some(server) = self.processes.get(&id).map(|process| process.server) else { return };
        let Ok(envelope) = rpc::scan(message, self.rpc_limits()) else { return };
        let mut line = Vec::with_capacity(message.len() + 24);
        if let Some(span) = envelope.id {
            let key = self.begin_own(kind, (None, server), Bytes::new(), now);
            let Some(number) = key.and_then(|key| self.stdio_number(id, key)) else { return };
            let mut digits = Vec::with_capacity(20);
            write_number(&mut digits, number);
            let edits: [(Span, &[u8]); 1] = [(span, &digits)];
            rpc::write_line_safe(&mut line, message, &edits);
        } else {
            rpc::write_line_safe(&mut line, message, &[]);
        }
        line.push(b'\n');
        self.process_push(id, Bytes::from(line), now);
    }

    /// Everything that waited goes out.
    fn process_ready(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.state = State::Ready;
        process.used_at = now;
        process.backlog_len = 0;
        for line in std::mem::take(&mut process.backlog) {
            self.process_push(id, line, now);
        }
        self.process_rest(id, now);
    }

    /// Lets the idle clock of a shared process run.
    fn process_rest(&mut self, id: ProcessId, now: Instant) {
        let server = self.processes.get(&id).map(|process| process.server);
        let upkeep = server.and_then(|server| self.upkeep(server));
        if let Some(timeout) = upkeep.map(|upkeep| upkeep.idle_timeout) {
            self.wish_process(id, now + timeout);
        }
    }

    /// Sends a line, or lets it wait until the process is ready.
    pub(super) fn process_write(&mut self, id: ProcessId, line: Bytes, now: Instant) {
        let queued = self.process_queued(id) + line.len();
        let len_max = limits::STDIN_LEN_MAX + self.settings.message_len_max;
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.used_at = now;
        if len_max < queued {
            self.report_process(id, "does not read its input", now);
            self.process_ended(id, Refusal::Died, now);
            return;
        }
        match process.state {
            State::Ready => self.process_push(id, line, now),
            State::Delayed(_) | State::Starting | State::Handshaking => {
                process.backlog_len += line.len();
                process.backlog.push(line);
            }
            State::Stopping => self.counters.dropped += 1,
        }
    }

    /// Bytes that wait for a process to read them.
    pub(super) fn process_queued(&self, id: ProcessId) -> usize {
        let Some(process) = self.processes.get(&id) else { return 0 };
        let output = process.conn.and_then(|conn| self.conns.get(conn)).map(|c| c.output.len());
        let posts = process.stream().map_or(0, |stream| stream.queued_len);
        let waiting = process.conn.map_or(0, |conn| self.branch_waiting(conn));
        output.unwrap_or(0) + process.backlog_len + posts + waiting
    }

    pub(super) fn process_push(&mut self, id: ProcessId, line: Bytes, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        match (&process.carrier, process.conn) {
            (Carrier::Events(_), _) => self.remote_sse_push(id, line, now),
            (Carrier::WebSocket(_), Some(_)) => self.remote_ws_push(id, &line),
            (Carrier::Pipes(_), Some(conn)) => self.write(conn, |output| output.push_whole(line)),
            (Carrier::Stream, Some(conn)) => self.uplink_push((id, conn), &line, now),
            (Carrier::WebSocket(_) | Carrier::Pipes(_) | Carrier::Stream, None) => {
                self.counters.dropped += 1;
            }
        }
    }

    /// Bytes from a process: whole lines are served where they are.
    pub(super) fn process_received(&mut self, id: ProcessId, bytes: &mut [u8], now: Instant) {
        let len_max = self.settings.message_len_max;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let mut lines = match &mut process.carrier {
            // It cannot be in two places: the lines that it lends are served by the whole shard.
            Carrier::Pipes(lines) => std::mem::take(lines),
            Carrier::WebSocket(_) => return self.remote_ws_received(id, bytes, now),
            Carrier::Events(_) | Carrier::Stream => return,
        };
        let mut bytes = &*bytes;
        while let Some(line) = lines.next(&mut bytes, len_max) {
            match line {
                Line::Whole(line) => self.process_line(id, line, now),
                Line::TooLong => self.process_babbles(id, now),
            }
            let state = self.processes.get(&id).map(|process| process.state);
            if state.is_none_or(|state| state == State::Stopping) {
                return;
            }
        }
        if let Some(process) = self.processes.get_mut(&id) {
            process.carrier = Carrier::Pipes(lines);
        }
    }

    /// A line is too long to be kept. Who shares the process loses nothing by a line that one of
    /// them cannot have; whose own it is would wait for ever.
    fn process_babbles(&mut self, id: ProcessId, now: Instant) {
        self.counters.dropped += 1;
        self.report_process(id, "sent a line longer than limits.message", now);
        let user = self.processes.get(&id).map(|process| process.user);
        if matches!(user, Some(User::Session(_))) {
            self.process_ended(id, Refusal::BadServer, now);
        }
    }

    /// The process closed its output, or the connection to the server broke.
    pub(super) fn process_lost(&mut self, id: ProcessId, now: Instant) {
        if self.processes.get_mut(&id).is_some_and(|process| process.socket_mut().is_some()) {
            return self.remote_ws_lost(id, now);
        }
        self.process_ended(id, Refusal::Died, now);
    }

    /// The process could not be started.
    pub(super) fn process_failed(&mut self, id: ProcessId, reason: &str, now: Instant) {
        self.report_process(id, reason, now);
        if let Some(process) = self.processes.get_mut(&id) {
            process.has_exited = true;
        }
        self.process_ended(id, Refusal::Unreachable, now);
    }

    /// There is no room for the process now: nothing ran, so the next need not wait.
    pub(super) fn process_refused(&mut self, id: ProcessId, reason: &str, now: Instant) {
        self.report_process(id, reason, now);
        if let Some(process) = self.processes.get_mut(&id) {
            process.has_exited = true;
            process.state = State::Stopping;
        }
        self.process_ended(id, Refusal::Full, now);
    }

    pub(super) fn process_exited(&mut self, id: ProcessId, how: &str, now: Instant) {
        self.counters.processes = self.counters.processes.saturating_sub(1);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.has_exited = true;
        process.ready_by = now + limits::LAST_WORDS_TIME;
        let (is_wanted, conn) = (process.state != State::Stopping, process.conn);
        if is_wanted {
            self.report_process(id, how, now);
        }
        // Its last words may still be in the socket; the end of those is the end of it, unless a
        // helper that it left behind holds the socket open.
        if conn.is_none() {
            self.process_ended(id, Refusal::Died, now);
        } else {
            self.wish_process(id, now + limits::LAST_WORDS_TIME);
        }
    }

    /// The end of a process for everybody who used it, whatever the reason.
    pub(super) fn process_ended(&mut self, id: ProcessId, refusal: Refusal, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let was_wanted = process.state != State::Stopping;
        // One that has never answered anything would die of the same again.
        let has_worked = process.state == State::Ready && process.has_answered;
        let is_death = refusal == Refusal::Died && has_worked;
        // One that waits for its turn has never been asked for: nobody will report its end. Nor
        // that of what is no child process.
        process.has_exited |= matches!(process.state, State::Delayed(_)) || !process.is_child();
        process.state = State::Stopping;
        self.remote_ended(id, now);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.backlog = Vec::new();
        if let Carrier::Pipes(lines) = &mut process.carrier {
            *lines = LineReader::new();
        }
        process.asked = Vec::new();
        let (server, user, conn) = (process.server, process.user, process.conn.take());
        let is_failure = !matches!(refusal, Refusal::UnknownSession | Refusal::LegacyServer);
        let (has_answered, has_exited) = (process.has_answered, process.has_exited);
        let mut pending: Vec<ExchangeId> = process.pending.drain().map(|(_, key)| key).collect();
        pending.sort_unstable();
        let grace = self.upkeep(server).map_or(limits::STOP_GRACE, |upkeep| upkeep.stop_grace);
        if let Some(conn) = conn.and_then(|conn| self.conns.remove(conn).map(|entry| (conn, entry)))
        {
            let (conn, mut entry) = conn;
            let why = match refusal {
                Refusal::Full => "full",
                _ if is_failure => "failed",
                _ => "done",
            };
            match &entry.branch {
                Some(branch) => self.branch_closes(conn, branch, why),
                None => self.actions.push_back(Action::Close { conn, rest: entry.output.take() }),
            }
        }
        if was_wanted {
            let chance = self.random.next_u32();
            let restart = match user {
                User::Session(key) => self.sessions.get_mut(key).map(|it| &mut it.restart),
                User::Sessions | User::Stateless => {
                    self.pools.get_mut(usize::from(server.0)).map(|pool| &mut pool.restart)
                }
            };
            if let Some(restart) = restart.filter(|_| is_failure) {
                restart.died(has_answered, chance, now);
            }
            if !has_exited {
                self.actions.push_back(Action::Stop { process: id, grace });
            }
        }
        self.process_unlink(id, now);
        for key in pending {
            if !(is_death && self.process_repeats(key, now)) {
                self.exchange_fail(key, refusal, now);
            }
        }
        if has_exited {
            self.processes.remove(&id);
        }
    }

    /// Sessions forget the process; their next message starts another.
    fn process_unlink(&mut self, id: ProcessId, now: Instant) {
        let mut lost = Vec::new();
        let user = self.processes.get(&id).map(|process| process.user);
        let keys = match user {
            Some(User::Session(key)) => vec![key],
            Some(User::Sessions) => self.session_keys.values().copied().collect(),
            Some(User::Stateless) | None => Vec::new(),
        };
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key)
                && let Link::Process(link) = &mut session.link
                && *link == Some(id)
            {
                *link = None;
                session.questions.clear();
                lost.extend(session.parent);
            }
        }
        for place in lost {
            self.questions_lost(place, now);
        }
    }

    /// A session that used the process has ended.
    pub(super) fn process_left(&mut self, id: ProcessId, session: SessionKey, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.asked.retain(|(_, asked)| *asked != session);
        match process.user {
            User::Session(_) => self.process_stop(id, now),
            User::Sessions | User::Stateless => {
                process.sessions = process.sessions.saturating_sub(1);
                process.used_at = now;
                self.process_rest(id, now);
            }
        }
    }

    /// Stops a process that nobody needs.
    pub(super) fn process_stop(&mut self, id: ProcessId, now: Instant) {
        self.process_ended(id, Refusal::UnknownSession, now);
    }

    /// A process's time has come: to start, to be ready, or to rest.
    pub(super) fn process_tick(&mut self, id: ProcessId, at: Instant, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.wish.grant(at) {
            return;
        }
        let (server, ready_by, used_at) = (process.server, process.ready_by, process.used_at);
        let is_idle = process.pending.is_empty() && process.sessions == 0;
        let is_shared = !matches!(process.user, User::Session(_));
        let idle_timeout = self.upkeep(server).map(|upkeep| upkeep.idle_timeout);
        let process = self.processes.get(&id);
        let has_exited = process.is_some_and(|process| process.has_exited);
        if has_exited && ready_by <= now {
            self.process_ended(id, Refusal::Died, now);
            return;
        }
        let state = process.map(|process| process.state);
        match state {
            Some(State::Delayed(until)) if until <= now => {
                self.process_start(id, now);
                self.wish_process(id, ready_by);
            }
            Some(State::Delayed(until)) => self.wish_process(id, until),
            Some(State::Starting | State::Handshaking) if ready_by <= now => {
                self.report_process(id, "was not ready in time", now);
                let process = self.processes.get(&id);
                let is_probed = process.is_some_and(|process| process.state == State::Handshaking);
                if is_probed && process.is_some_and(|process| process.user == User::Stateless) {
                    // Silence is the answer of a server that knows only `initialize`.
                    self.probe_failed(id, now);
                } else {
                    self.process_ended(id, Refusal::Timeout, now);
                }
            }
            Some(State::Starting | State::Handshaking) => self.wish_process(id, ready_by),
            Some(State::Ready) if is_shared => {
                let Some(timeout) = idle_timeout else { return };
                if is_idle && used_at + timeout <= now {
                    self.process_stop(id, now);
                } else {
                    let from = if is_idle { used_at } else { now };
                    self.wish_process(id, from + timeout);
                }
            }
            Some(State::Ready | State::Stopping) | None => {}
        }
    }

    /// `initialize` of a session at a shared process: the process itself is initialized once.
    pub(super) fn welcome(
        &mut self,
        id: ProcessId,
        key: ExchangeId,
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        if self.stdio_number(id, key).is_none() {
            self.exchange_fail(key, Refusal::Full, now);
            return;
        }
        if let Some(pool) = self.pools.get_mut(usize::from(incoming.server.0))
            && pool.initialize.is_none()
        {
            pool.initialize = Some(incoming.payload.keep());
        }
        let welcome = self.processes.get(&id).and_then(|process| process.welcome.clone());
        if let Some(welcome) = welcome {
            self.welcome_all(id, &welcome, now);
        }
    }

    /// Answers every `initialize` that waits with what the shared process said.
    fn welcome_all(&mut self, id: ProcessId, welcome: &Bytes, now: Instant) {
        let Some(process) = self.processes.get(&id) else { return };
        let is_waiting =
            |key: &ExchangeId| self.exchanges.get(*key).is_some_and(|e| e.kind == Kind::Initialize);
        let mut numbers: Vec<(u64, ExchangeId)> =
            process.pending.iter().map(|(n, k)| (*n, *k)).filter(|(_, k)| is_waiting(k)).collect();
        numbers.sort_unstable();
        for (number, _) in numbers {
            let Ok(envelope) = rpc::scan(welcome, self.rpc_limits()) else { return };
            let Some(span) = envelope.id else { return };
            let mut text = Vec::with_capacity(welcome.len() + 20);
            let mut digits = Vec::with_capacity(20);
            write_number(&mut digits, number);
            rpc::splice(&mut text, welcome, &[(span, &digits)]);
            self.process_line(id, &text, now);
        }
    }

    /// The answer to a message of our own.
    pub(super) fn handshake_answered(
        &mut self,
        id: ProcessId,
        key: ExchangeId,
        (bytes, envelope): (&[u8], &Envelope),
        now: Instant,
    ) {
        let kind = self.exchanges.get(key).map(|exchange| exchange.kind);
        self.exchange_end(key, Outcome::Answered(200), now);
        let is_error = envelope.error.is_some();
        let user = self.processes.get(&id).map(|process| process.user);
        match (kind, user) {
            (Some(Kind::Setup), _) | (_, None) => {}
            (Some(Kind::Learn), _) => {
                let result = envelope.result.map(|result| result.get(bytes));
                let server = self.processes.get(&id).map(|process| process.server);
                let pool = server.and_then(|server| self.pools.get_mut(usize::from(server.0)));
                let cursor = pool.zip(result).and_then(|(pool, result)| pool.params.learn(result));
                let has_room = self.processes.get_mut(&id).is_some_and(|process| {
                    process.pages += 1;
                    process.pages < limits::LEARN_PAGES_MAX
                });
                if let Some(cursor) = cursor.filter(|_| has_room) {
                    self.learn(id, Some(&cursor), now);
                }
            }
            (_, Some(User::Stateless)) if is_error => self.probe_failed(id, now),
            (_, Some(User::Stateless)) => {
                self.process_ready(id, now);
                self.learn(id, None, now);
            }
            (_, Some(User::Session(_) | User::Sessions)) if is_error => {
                self.report_process(id, "refused initialize", now);
                self.process_ended(id, Refusal::Died, now);
            }
            (_, Some(User::Session(session))) => {
                self.counters.revived += 1;
                let Some(session) = self.sessions.get(session) else { return };
                let place = session.parent;
                let initialized = session.initialized.clone();
                let setup: Vec<Bytes> =
                    session.setup.iter().map(|setup| setup.message.clone()).collect();
                if let Some(message) = initialized {
                    self.process_own(id, Kind::Setup, &message, now);
                }
                for message in setup {
                    self.process_own(id, Kind::Setup, &message, now);
                }
                self.process_ready(id, now);
                if let Some(place) = place {
                    self.member_restarted(place, now);
                }
            }
            (_, Some(User::Sessions)) => {
                let welcome = Bytes::copy_from_slice(bytes);
                self.process_own(id, Kind::Setup, INITIALIZED, now);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.welcome = Some(welcome.clone());
                }
                self.process_ready(id, now);
                self.welcome_all(id, &welcome, now);
            }
        }
    }

    /// Asks a modern process for its tools, from this page on.
    pub(super) fn learn(&mut self, id: ProcessId, cursor: Option<&str>, now: Instant) {
        if let Some(process) = self.processes.get_mut(&id).filter(|_| cursor.is_none()) {
            process.pages = 0;
        }
        let mut message = LEARN.to_vec();
        if let Some(cursor) = cursor {
            message.extend_from_slice(b",\"cursor\":");
            wire::json::write_string(&mut message, cursor);
        }
        message.extend_from_slice(b"}}");
        self.process_own(id, Kind::Learn, &message, now);
    }

    /// The server knows only `initialize`: remember that, and tell those who wait.
    fn probe_failed(&mut self, id: ProcessId, now: Instant) {
        let server = self.processes.get(&id).map(|process| process.server);
        if let Some(pool) = server.and_then(|s| self.pools.get_mut(usize::from(s.0))) {
            pool.legacy_until = Some(now + limits::PROBE_TTL);
        }
        self.process_ended(id, Refusal::LegacyServer, now);
    }

    /// Whether a stateless request is for a server that is known to understand none.
    pub(super) fn stateless_is_refused(&self, incoming: &Incoming<'_>, now: Instant) -> bool {
        let pool = self.pools.get(usize::from(incoming.server.0));
        incoming.era == Era::Modern
            && pool.and_then(|pool| pool.legacy_until).is_some_and(|until| now < until)
    }

    /// The connection of a process, if it runs.
    pub(super) fn process_conn(&self, id: ProcessId) -> Option<ConnId> {
        self.processes.get(&id)?.conn.or_else(|| self.remote_sse_conn(id))
    }
}

/// What follows `initialize`, where the gateway itself says it.
pub(super) const INITIALIZED: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";

/// Asks a modern process for its tools; to be completed with a cursor and two braces.
const LEARN: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"tools/list\",\"params\":\
{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
\"io.modelcontextprotocol/clientInfo\":{\"name\":\"mcp-gateway\",\"version\":\"0.1.0\"},\
\"io.modelcontextprotocol/clientCapabilities\":{}}";

/// Asks a process whether it is modern (2026-07-28, basic/transports/stdio).
const PROBE: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"server/discover\",\"params\":\
{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
\"io.modelcontextprotocol/clientInfo\":{\"name\":\"mcp-gateway\",\"version\":\"0.1.0\"},\
\"io.modelcontextprotocol/clientCapabilities\":{}}}}";
