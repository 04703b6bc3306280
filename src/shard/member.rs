//! The members of a view: opened when they are needed, asked for their lists, heard, missed when
//! they are gone and welcomed when they come back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_chacha::rand_core::Rng as _;
use wire::rpc::{self, Envelope};

use crate::federation::combine::has_capability;
use crate::federation::list::{Freshness, ListKind};
use crate::federation::value::find_path;
use crate::federation::{Errand, ListState, MemberState, Owner, Phase, Question, Union};
use crate::ids::{ExchangeId, SessionKey, UnionKey};
use crate::limits;
use crate::refusal::Refusal;
use crate::session::id::SessionId;
use crate::session::{Link, Session};
use crate::shard::post::Incoming;
use crate::shard::process::INITIALIZED;
use crate::shard::stdio::answer_for_nobody;
use crate::shard::{Shard, Timer};
use crate::upstream::catalog::ServerId;
use crate::upstream::restart::Restart;

impl Shard {
    /// Whether it is known of each member what it offers, or that it is not to be waited for. Those
    /// that were not asked yet are asked.
    pub(super) fn members_ready(&mut self, union: UnionKey, since: u64, now: Instant) -> bool {
        let count = self.unions.get(union).map_or(0, |union| union.members.len());
        for member in 0..count {
            let entry = self.unions.get_mut(union).and_then(|it| it.members.get_mut(member));
            let Some(entry) = entry else { continue };
            let is_past = |(at, until): (u64, Instant)| at < since && until <= now;
            let is_old = entry.result_until.is_some_and(is_past);
            if entry.phase == Phase::Open && is_old {
                entry.phase = Phase::Unknown;
            }
            self.member_open(union, member, false, now);
        }
        let members = self.unions.get(union).map(|union| union.members.as_slice());
        members.unwrap_or_default().iter().all(MemberState::is_settled)
    }

    /// Whether nobody is to wait for a member: it failed the last time, or the process that all
    /// share did and has not been started again.
    pub(super) fn member_is_failing(&self, union: UnionKey, index: usize, now: Instant) -> bool {
        let Some(entry) = self.unions.get(union) else { return false };
        let server = self.member_server(union, index);
        let pool = server.and_then(|server| self.pools.get(usize::from(server.0)));
        let is_paused = pool.and_then(|pool| pool.restart.at).is_some_and(|at| now < at);
        let has_sessions = entry.session().is_some();
        let member = entry.members.get(index);
        member.is_some_and(|member| member.is_failing) || is_paused && !has_sessions
    }

    pub(super) fn member_server(&self, union: UnionKey, index: usize) -> Option<ServerId> {
        Some(self.view(self.unions.get(union)?.view)?.members.get(index)?.server)
    }

    /// The pause that all clients who wait for a member make together.
    fn member_retry(&mut self, union: UnionKey, index: usize) -> Option<&mut Restart> {
        let server = self.member_server(union, index)?;
        Some(&mut self.pools.get_mut(usize::from(server.0))?.retry)
    }

    /// Whether it is time to try a member that is down, and this client is who does. The others
    /// make another pause of their own, so that not all come at once when it is back.
    fn member_is_due(&mut self, union: UnionKey, index: usize, now: Instant) -> bool {
        let chance = self.random.next_u32();
        let is_past = |restart: &Restart| restart.at.is_none_or(|at| at <= now);
        let is_claimed = self.member_retry(union, index).is_some_and(|retry| !is_past(retry));
        let Some(entry) = self.unions.get_mut(union) else { return false };
        let Some(member) = entry.members.get_mut(index) else { return false };
        if member.phase != Phase::Down || !is_past(&member.restart) {
            return false;
        }
        if is_claimed {
            member.restart.died(false, chance, now);
            return false;
        }
        if let Some(retry) = self.member_retry(union, index).filter(|retry| retry.at.is_some()) {
            retry.died(false, 0, now);
        }
        true
    }

    /// Opens a member that was not asked yet, or whose time to be tried again has come. Nobody
    /// waits for one that was down.
    pub(super) fn member_open(
        &mut self,
        union: UnionKey,
        index: usize,
        is_late: bool,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(member) = entry.members.get_mut(index) else { return };
        let is_late = match member.phase {
            Phase::Opening { .. } | Phase::Open => return,
            Phase::Down if member.restart.at.is_some_and(|at| now < at) => return,
            Phase::Unknown => is_late,
            Phase::Down => true,
        };
        member.phase = Phase::Opening { is_late };
        let message = match entry.owner.clone() {
            Owner::Session(parent) => self.member_session(union, index, parent, now),
            Owner::Callers(meta) => {
                let id = entry.mint();
                let parts: [&[u8]; 5] = [
                    b"{\"jsonrpc\":\"2.0\",\"id\":",
                    &id,
                    b",\"method\":\"server/discover\",\"params\":{\"_meta\":",
                    &meta,
                    b"}}",
                ];
                Some(Bytes::from(parts.concat()))
            }
        };
        let is_sent =
            message.is_some_and(|text| self.errand((union, index), Errand::Open, text, now));
        if !is_sent {
            self.member_down(union, index, now);
        }
    }

    /// A session with a member on behalf of that of the client. Returns the `initialize` for it.
    fn member_session(
        &mut self,
        union: UnionKey,
        index: usize,
        parent: SessionKey,
        now: Instant,
    ) -> Option<Bytes> {
        let server = self.member_server(union, index)?;
        let outer = self.sessions.get(parent)?;
        let (initialize, is_mute) = (outer.initialize.clone(), outer.is_mute);
        let link = self.link(server)?;
        let id = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        let mut session = Session::new((id, server), initialize.clone(), link, now);
        session.revision = self.sessions.get(parent)?.revision;
        session.is_mute = is_mute;
        session.parent = Some((union, index));
        let key = self.session_insert(session)?;
        self.unions.get_mut(union)?.members.get_mut(index)?.session = Some(key);
        Some(initialize)
    }

    /// A message of our own to a member is done with: its response, or why there is none.
    pub(super) fn errand_done(
        &mut self,
        union: UnionKey,
        key: ExchangeId,
        answer: Result<&[u8], Refusal>,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(at) = entry.errands.iter().position(|(it, ..)| *it == key) else { return };
        let (_, index, errand) = entry.errands.swap_remove(at);
        let is_legacy = matches!(answer, Err(Refusal::LegacyServer | Refusal::BadServer));
        let is_failing = answer.is_err() && !is_legacy && errand != Errand::Initialized;
        if let Some(member) = entry.members.get_mut(index) {
            member.is_failing = is_failing;
        }
        if is_failing || answer.is_ok() {
            self.member_missed(union, index, is_failing, now);
        }
        let answer = answer.ok();
        let envelope = answer.and_then(|bytes| rpc::scan(bytes, self.rpc_limits()).ok());
        let result = envelope.and_then(|envelope| envelope.result).zip(answer);
        let result = result.map(|(span, bytes)| span.get(bytes));
        match errand {
            Errand::Open => match result {
                Some(result) if result.len() <= limits::UNION_RESULT_LEN_MAX => {
                    self.member_opened(union, index, result, now);
                }
                Some(_) | None => {
                    let entry = self.unions.get_mut(union);
                    let member = entry.and_then(|entry| entry.members.get_mut(index));
                    if let Some(member) = member {
                        member.is_legacy = is_legacy;
                    }
                    self.member_down(union, index, now);
                }
            },
            Errand::Page(kind) => self.list_paged(union, (index, kind), result, now),
            // Whatever it said to that: what comes next comes behind.
            Errand::Initialized => {
                let entry = self.unions.get_mut(union);
                let member = entry.and_then(|entry| entry.members.get_mut(index));
                if let Some(member) = member.filter(|it| it.phase != Phase::Down) {
                    member.phase = Phase::Open;
                    for message in std::mem::take(&mut member.held) {
                        self.member_notified(union, index, message, now);
                    }
                }
            }
            Errand::Tell => {}
        }
        self.union_stirs(union);
    }

    /// A member has said what it offers.
    fn member_opened(&mut self, union: UnionKey, index: usize, result: &[u8], now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let parent = entry.session();
        entry.clock += 1;
        let clock = entry.clock;
        let Some(member) = entry.members.get_mut(index) else { return };
        let is_late = member.phase == Phase::Opening { is_late: true };
        member.phase = Phase::Open;
        if parent.is_none() {
            let ttl = Freshness::read(result).ttl;
            member.result_until = Some((clock, now + ttl.min(limits::UNION_TTL_MAX)));
        }
        member.is_legacy = false;
        member.result = Bytes::copy_from_slice(result);
        let capabilities = find_path(result, &["capabilities"]).map(|span| span.get(result));
        member.capabilities = Bytes::copy_from_slice(capabilities.unwrap_or(b"{}"));
        let capabilities = member.capabilities.clone();
        member.restart = Restart::default();
        self.member_missed(union, index, false, now);
        let Some(parent) = parent else { return };
        if let Some(retry) = self.member_retry(union, index) {
            *retry = Restart::default();
        }
        let outer = self.sessions.get(parent);
        if outer.is_some_and(|session| session.is_initialized) {
            self.member_initialized(union, index, now);
        }
        if is_late && self.sessions.get(parent).is_some_and(|session| session.is_open) {
            self.lists_announced(union, &capabilities, now);
        }
    }

    /// Tells the client that lists have changed which a server with these capabilities has.
    fn lists_announced(&mut self, union: UnionKey, capabilities: &[u8], now: Instant) {
        const KINDS: [ListKind; 3] = [ListKind::Tools, ListKind::Prompts, ListKind::Resources];
        let has = |kind: &ListKind| has_capability(capabilities, kind.capability());
        for kind in KINDS.into_iter().filter(has) {
            self.list_announced(union, kind, now);
        }
    }

    /// A member's process was started again: it may not be what it was.
    pub(super) fn member_restarted(&mut self, place: (UnionKey, usize), now: Instant) {
        self.member_heard(place);
        let member = self.unions.get(place.0).and_then(|union| union.members.get(place.1));
        if let Some(capabilities) = member.map(|member| member.capabilities.clone()) {
            self.lists_announced(place.0, &capabilities, now);
        }
    }

    /// The client has said `notifications/initialized`; so it is said to the member, with what else
    /// the client has set.
    pub(super) fn member_initialized(&mut self, union: UnionKey, index: usize, now: Instant) {
        let Some(entry) = self.unions.get(union) else { return };
        let Some(member) = entry.members.get(index) else { return };
        let (Some(outer), Some(key)) = (entry.session(), member.session) else { return };
        let has_log = has_capability(&member.capabilities, &["logging"]);
        let mut setup = member.setup.clone();
        let Some(outer) = self.sessions.get(outer) else { return };
        // One that is too long to be kept was said all the same.
        let message = outer.initialized.clone();
        let message = message.unwrap_or_else(|| Bytes::from_static(INITIALIZED));
        let level = outer.setup.iter().find(|setup| setup.key.is_empty());
        setup.extend(level.filter(|_| has_log).map(|setup| setup.message.clone()));
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.initialized.replace(message.clone()).is_some() {
            return;
        }
        let is_http = matches!(session.link, Link::Http { .. });
        if is_http {
            // Requests on other connections must not overtake it.
            if let Some(member) =
                self.unions.get_mut(union).and_then(|it| it.members.get_mut(index))
            {
                member.phase = Phase::Opening { is_late: false };
            }
            if !self.errand((union, index), Errand::Initialized, message, now) {
                return self.member_down(union, index, now);
            }
        } else {
            self.session_tells(key, message, now);
        }
        for message in setup {
            self.member_tell(union, index, message, now);
        }
        self.session_listens(key, now);
    }

    /// A notification of the client for a member. It comes behind `notifications/initialized`.
    pub(super) fn member_notified(
        &mut self,
        union: UnionKey,
        index: usize,
        message: Bytes,
        now: Instant,
    ) {
        let member = self.unions.get_mut(union).and_then(|it| it.members.get_mut(index));
        let Some(member) = member else { return };
        match (member.phase, member.session) {
            (Phase::Open, Some(session)) => self.session_tells(session, message, now),
            (Phase::Opening { .. }, _) if member.held.len() < limits::HELD_MAX => {
                member.held.push(message);
            }
            _ => self.counters.dropped += 1,
        }
    }

    /// Sends a request of a client to a member of which nobody wants the answer.
    fn member_tell(&mut self, union: UnionKey, index: usize, message: Bytes, now: Instant) {
        let session = self.unions.get(union).and_then(|it| it.members.get(index)?.session);
        if let Ok(envelope) = rpc::scan(&message, self.rpc_limits())
            && let Some(session) = session.and_then(|key| self.sessions.get_mut(key))
        {
            let method = envelope.method.map(|it| it.decode(&message)).unwrap_or_default();
            let uri = envelope.uri.map(|it| it.decode(&message)).unwrap_or_default();
            session.remember(&method, &uri, || message.clone());
        }
        let _sent = self.errand((union, index), Errand::Tell, message, now);
    }

    /// Tells all members that log how much the client wants to hear.
    pub(super) fn union_tells_all(
        &mut self,
        union: UnionKey,
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        for index in self.open_members(union) {
            let member = self.unions.get(union).and_then(|it| it.members.get(index));
            if member.is_some_and(|member| has_capability(&member.capabilities, &["logging"])) {
                self.member_tell(union, index, incoming.payload.keep(), now);
            }
        }
    }

    /// Counts and tells that a member is missing, or that it is not any more.
    fn member_missed(&mut self, union: UnionKey, index: usize, is_missed: bool, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let view = entry.view;
        let Some(member) = entry.members.get_mut(index) else { return };
        if std::mem::replace(&mut member.is_missed, is_missed) == is_missed {
            return;
        }
        self.count_missing(view, index, is_missed);
        let what = if is_missed { "is missing" } else { "has come back" };
        self.report_member(union, index, what, now);
    }

    fn count_missing(&mut self, view: ServerId, index: usize, is_missed: bool) {
        let member = self.view(view).and_then(|view| view.members.get(index));
        let Some(server) = member.map(|member| usize::from(member.server.0)) else { return };
        let missing = &mut self.counters.missing;
        if missing.len() <= server {
            missing.resize(server + 1, 0);
        }
        if let Some(count) = missing.get_mut(server) {
            *count = if is_missed { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// A member cannot be used any more, or could not be opened.
    pub(super) fn member_down(&mut self, union: UnionKey, index: usize, now: Instant) {
        let chance = self.random.next_u32();
        let Some(entry) = self.unions.get_mut(union) else { return };
        let owner = entry.session();
        let Some(member) = entry.members.get_mut(index) else { return };
        if member.phase == Phase::Down {
            return;
        }
        let was_open = member.phase == Phase::Open;
        member.phase = Phase::Down;
        member.restart.died(was_open, chance, now);
        let at = member.restart.at.unwrap_or(now);
        let session = member.session.take();
        member.result = Bytes::new();
        member.capabilities = Bytes::new();
        member.held = Vec::new();
        let had: Vec<ListKind> = ListKind::ALL
            .into_iter()
            .filter(|kind| member.lists.get(kind.index()).is_some_and(|it| !it.entries.is_empty()))
            .collect();
        let kept: usize = member.lists.iter().map(|list| list.len.0 + list.len.1).sum();
        member.lists = <[ListState; 5]>::default();
        self.counters.listed -= kept as u64;
        for kind in ListKind::ALL {
            entry.forget_merged(kind);
        }
        self.member_missed(union, index, true, now);
        self.questions_lost((union, index), now);
        if let Some(session) = session {
            // Subscriptions are made again when it comes back; the log level is the client's.
            let setup =
                self.sessions.get(session).map(|it| it.setup.as_slice()).unwrap_or_default();
            let setup = setup.iter().filter(|setup| !setup.key.is_empty());
            let setup: Vec<Bytes> = setup.map(|setup| setup.message.clone()).collect();
            if let Some(member) =
                self.unions.get_mut(union).and_then(|it| it.members.get_mut(index))
            {
                member.setup = setup;
            }
            self.session_end(session, "member down", now);
        }
        if owner.is_some() {
            let retry = self.member_retry(union, index).filter(|_| !was_open);
            if let Some(retry) = retry.filter(|it| it.at.is_none_or(|at| at <= now)) {
                retry.died(false, 0, now);
            }
            self.union_watch(union, at);
        }
        for kind in had.into_iter().filter(|kind| *kind != ListKind::Templates) {
            self.list_announced(union, kind, now);
        }
        self.union_stirs(union);
    }

    /// What a member has asked is not waited for any more: it has forgotten it.
    pub(super) fn questions_lost(&mut self, (union, index): (UnionKey, usize), now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let outer = entry.session();
        let (lost, others) =
            std::mem::take(&mut entry.questions).into_iter().partition(|it| it.member == index);
        entry.questions = others;
        let lost: Vec<Question> = lost;
        for question in lost {
            let number = question.number;
            if let Some(outer) = outer.and_then(|outer| self.sessions.get_mut(outer)) {
                outer.answer(number.to_string().as_bytes());
            }
            let text = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":\
                 {{\"requestId\":{number},\"reason\":\"the server is gone\"}}}}"
            );
            self.union_says(union, text.as_bytes(), now);
        }
    }

    /// The session with a member has ended.
    pub(super) fn member_left(
        &mut self,
        (union, index): (UnionKey, usize),
        key: SessionKey,
        now: Instant,
    ) {
        let member = self.unions.get_mut(union).and_then(|it| it.members.get_mut(index));
        let Some(member) = member.filter(|member| member.session == Some(key)) else { return };
        member.session = None;
        self.member_down(union, index, now);
    }

    /// A message of a member to the client; `parent` is the client's request that it belongs to.
    pub(super) fn member_event(
        &mut self,
        (union, index): (UnionKey, usize),
        parent: Option<ExchangeId>,
        bytes: &[u8],
        now: Instant,
    ) {
        let Ok(envelope) = rpc::scan(bytes, self.rpc_limits()) else { return };
        if envelope.kind == rpc::Kind::Request {
            return self.member_asks((union, index), parent, (bytes, &envelope), now);
        }
        let method = envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
        let is_it = |kind: &ListKind| kind.changed().is_some_and(|it| it.as_bytes() == &*method);
        for kind in ListKind::ALL.into_iter().filter(is_it) {
            self.list_changed(union, (index, kind));
        }
        let text = match &*method {
            b"notifications/cancelled" => {
                let span = envelope.request_id;
                let id = span.map(|span| span.get(bytes)).unwrap_or_default();
                let Some(number) = self.question_ends(union, index, id) else { return };
                let number = number.to_string();
                let edits = span.map(|span| (span, number.as_bytes()));
                let mut text = Vec::with_capacity(bytes.len());
                rpc::splice(&mut text, bytes, edits.as_slice());
                Some(text)
            }
            _ => None,
        };
        let bytes = text.as_deref().unwrap_or(bytes);
        match parent {
            Some(parent) => self.answer_event(parent, &[bytes], now),
            None => self.union_says(union, bytes, now),
        }
    }

    /// A member has withdrawn a request of its own. Returns what the client calls it.
    fn question_ends(&mut self, union: UnionKey, index: usize, id: &[u8]) -> Option<u64> {
        let entry = self.unions.get_mut(union)?;
        let is_it = |question: &Question| question.member == index && *question.id == *id;
        let at = entry.questions.iter().position(is_it)?;
        let number = entry.questions.swap_remove(at).number;
        let outer = entry.session()?;
        self.sessions.get_mut(outer)?.answer(number.to_string().as_bytes());
        Some(number)
    }

    /// A request of a member: ids of several members may be equal, so the client gets ours.
    fn member_asks(
        &mut self,
        (union, index): (UnionKey, usize),
        parent: Option<ExchangeId>,
        (bytes, envelope): (&[u8], &Envelope),
        now: Instant,
    ) {
        let Some(span) = envelope.id else { return };
        let Some(entry) = self.unions.get_mut(union) else { return };
        entry.next_id += 1;
        let number = entry.next_id;
        let digits = number.to_string();
        let token = envelope.progress_token;
        let question = Question {
            number,
            member: index,
            id: Bytes::copy_from_slice(span.get(bytes)),
            token: token.map(|token| Bytes::copy_from_slice(token.get(bytes))),
        };
        let (outer, inner) =
            (entry.session(), entry.members.get(index).and_then(|member| member.session));
        let has_room = outer
            .and_then(|key| self.sessions.get_mut(key))
            .is_some_and(|session| session.ask(digits.as_bytes()));
        if !has_room {
            self.counters.dropped += 1;
            let Some(inner) = inner else { return };
            if let Some(session) = self.sessions.get_mut(inner) {
                session.answer(&question.id);
            }
            let is_ping = envelope.method.is_some_and(|method| method.eq(bytes, "ping"));
            let answer = answer_for_nobody(&question.id, is_ping);
            return self.session_tells(inner, Bytes::from(answer), now);
        }
        if let Some(entry) = self.unions.get_mut(union) {
            entry.questions.push(question);
        }
        let mut edits = vec![(span, digits.as_bytes())];
        edits.extend(token.map(|token| (token, digits.as_bytes())));
        let mut text = Vec::with_capacity(bytes.len() + 16);
        rpc::splice(&mut text, bytes, &edits);
        match (parent, outer) {
            (Some(parent), _) => self.answer_event(parent, &[&text], now),
            (None, Some(outer)) => self.deliver(outer, &text, now),
            (None, None) => {}
        }
    }

    /// The client answers a request of a member, which gets it under its own id.
    pub(super) fn member_answers(
        &mut self,
        union: UnionKey,
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let id = std::str::from_utf8(incoming.id()).ok().and_then(|id| id.parse::<u64>().ok());
        let at = entry.questions.iter().position(|question| Some(question.number) == id);
        let Some(at) = at else {
            self.counters.dropped += 1;
            return;
        };
        let question = entry.questions.swap_remove(at);
        let member = entry.members.get(question.member);
        let Some(inner) = member.and_then(|member| member.session) else { return };
        let is_asked =
            self.sessions.get_mut(inner).is_some_and(|session| session.answer(&question.id));
        let Some(span) = incoming.envelope.id.filter(|_| is_asked) else { return };
        let mut text = Vec::with_capacity(incoming.bytes().len() + question.id.len());
        rpc::splice(&mut text, incoming.bytes(), &[(span, &question.id)]);
        self.session_tells(inner, Bytes::from(text), now);
    }

    /// The client's progress on a request of a member.
    pub(super) fn member_hears(&mut self, union: UnionKey, incoming: &Incoming<'_>, now: Instant) {
        let Some(span) = incoming.envelope.notified_token else { return };
        let token = std::str::from_utf8(span.get(incoming.bytes())).unwrap_or_default();
        let number = token.parse::<u64>().ok();
        let entry = self.unions.get(union);
        let question = entry.and_then(|entry| {
            entry.questions.iter().find(|question| Some(question.number) == number)
        });
        let Some(question) = question.cloned() else {
            self.counters.dropped += 1;
            return;
        };
        let inner = entry.and_then(|entry| entry.members.get(question.member)?.session);
        let (Some(inner), Some(token)) = (inner, question.token) else { return };
        let mut text = Vec::with_capacity(incoming.bytes().len() + token.len());
        rpc::splice(&mut text, incoming.bytes(), &[(span, &token)]);
        self.session_tells(inner, Bytes::from(text), now);
    }

    /// A notification for the client of a session that belongs to no request.
    pub(super) fn union_says(&mut self, union: UnionKey, bytes: &[u8], now: Instant) {
        let session = self.unions.get(union).and_then(Union::session);
        let Some(key) = session else { return };
        let Some(session) = self.sessions.get(key) else { return };
        if !session.is_open {
            return;
        }
        match self.is_listened(key) {
            true => self.listen_event(key, &[bytes], now),
            false => self.deliver(key, bytes, now),
        }
    }

    pub(super) fn union_watch(&mut self, union: UnionKey, at: Instant) {
        if let Some(entry) = self.unions.get_mut(union) {
            self.timers.wish(Timer::Union(union), &mut entry.wish, at);
        }
    }

    /// The union's time has come: members that are down are tried again, and one that nobody uses
    /// is forgotten.
    pub(super) fn union_tick(&mut self, union: UnionKey, at: Instant, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        if !entry.wish.grant(at) {
            return;
        }
        if entry.session().is_none() {
            let until = entry.used_at + limits::UNION_IDLE;
            return match until <= now && entry.is_idle() {
                true => self.union_end(union, now),
                false => self.union_watch(union, until.max(now + Duration::from_secs(1))),
            };
        }
        let count = entry.members.len();
        for index in 0..count {
            if self.member_is_due(union, index, now) {
                self.member_open(union, index, true, now);
            }
        }
        let Some(entry) = self.unions.get(union) else { return };
        let down = entry.members.iter().filter(|member| member.phase == Phase::Down);
        if let Some(at) = down.filter_map(|member| member.restart.at).min() {
            self.union_watch(union, at.max(now + limits::RESTART_MIN));
        }
    }

    /// Makes room for the callers of another kind: those who were not there for longest go.
    pub(super) fn union_evict(&mut self, now: Instant) {
        let idle = self.callers.values().filter_map(|key| Some((*key, self.unions.get(*key)?)));
        let idle = idle.filter(|(_, union)| union.is_idle());
        let oldest = idle.min_by_key(|(key, union)| (union.used_at, *key)).map(|(key, _)| key);
        if let Some(union) = oldest {
            self.union_end(union, now);
        }
    }

    /// Forgets a union, and ends the sessions with its members.
    pub(super) fn union_end(&mut self, union: UnionKey, now: Instant) {
        let Some(entry) = self.unions.remove(union) else { return };
        self.counters.listed -= entry.lists_len() as u64;
        if let Owner::Callers(meta) = entry.owner {
            self.callers.remove(&(entry.view, meta));
        }
        for (index, _) in entry.members.iter().enumerate().filter(|(_, member)| member.is_missed) {
            self.count_missing(entry.view, index, false);
        }
        for (key, ..) in entry.errands {
            self.exchange_cancel(key, now);
        }
        for session in entry.members.iter().filter_map(|member| member.session) {
            self.session_end(session, "client left", now);
        }
    }
}
