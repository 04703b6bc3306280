//! Clients of a view: which of its servers a message is for, and what is answered for all of them.
//!
//! A request is looked at until everything is known that it needs ([`Step::Wait`]): it waits in the
//! union, and each word of a member makes all that wait look again, as does the end of their time.

use std::time::Instant;

use bytes::Bytes;
use wire::json::Span;
use wire::rpc;

use crate::exchange::{Exchange, Kind, Reply, Via};
use crate::federation::combine::{self, Answered, completed};
use crate::federation::list::{Freshness, ListKind, named};
use crate::federation::value::{find_path, text_of, token};
use crate::federation::{MemberState, On, Owner, Phase, Union, Waiting};
use crate::ids::{ExchangeId, SessionKey, UnionKey};
use crate::limits;
use crate::message::{Era, Payload, Revision};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::post::Incoming;
use crate::shard::tasks::is_of_task;
use crate::upstream::catalog::ServerId;
use crate::upstream::view::{Member, View, is_shortened};

/// What is to be done with a request of a client.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes to this member, with this in place of that part of it.
    Route(usize, Option<(Span, String)>),
    /// This is the result.
    Answer(Vec<u8>),
    /// Something is not known yet.
    Wait(On),
    /// There is nothing to be had.
    Refuse(Refusal),
    /// It is on its way already.
    Gone,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) union: UnionKey,
    /// When on the union's clock it began.
    pub(super) since: u64,
    /// Whether its time to wait is over.
    pub(super) is_due: bool,
}

impl Shard {
    pub(super) fn view(&self, server: ServerId) -> Option<&View> {
        self.settings.catalog.view(server)
    }

    /// Whether a server is a view of others.
    pub(super) fn is_view(&self, server: ServerId) -> bool {
        self.view(server).is_some()
    }

    /// A client's message for a view.
    pub(super) fn union_send(&mut self, key: ExchangeId, incoming: &Incoming<'_>, now: Instant) {
        let is_notice = self.exchanges.get(key).is_some_and(|it| it.kind == Kind::Notice);
        if is_notice && incoming.session.is_none() {
            // Between stateless clients and servers nothing is cancelled or told by name.
            self.counters.dropped += 1;
            return self.notice_taken(key, now);
        }
        let union = match self.union_for(incoming, now) {
            Ok(union) => union,
            Err(refusal) => return self.exchange_fail(key, refusal, now),
        };
        let Some(entry) = self.unions.get_mut(union) else { return };
        entry.used_at = now;
        entry.clock += 1;
        let stand = Stand { union, since: entry.clock, is_due: false };
        if is_notice {
            self.union_notice(union, incoming, now);
            return self.notice_taken(key, now);
        }
        self.union_step(key, stand, incoming, now);
    }

    /// A session with a view has a union of its own. False: there is no room for one.
    pub(super) fn union_begin(&mut self, key: SessionKey, now: Instant) -> bool {
        let Some(server) = self.sessions.get(key).map(|session| session.server) else {
            return false;
        };
        let Some(view) = self.view(server) else { return true };
        let union = Union::new(server, Owner::Session(key), view.members.len(), now);
        let Ok(union) = self.unions.insert(union) else { return false };
        if let Some(session) = self.sessions.get_mut(key) {
            session.link = Link::Union(union);
        }
        true
    }

    /// The union of a session, or that of the callers who are like this one.
    fn union_for(&mut self, incoming: &Incoming<'_>, now: Instant) -> Result<UnionKey, Refusal> {
        if let Some(key) = incoming.session {
            return match self.sessions.get(key).map(|session| &session.link) {
                Some(Link::Union(union)) => Ok(*union),
                Some(Link::Process(_) | Link::Http { .. }) | None => Err(Refusal::UnknownSession),
            };
        }
        let members = self.view(incoming.server).map_or(0, |view| view.members.len());
        let meta = meta_of(incoming);
        if limits::CALLER_LEN_MAX < meta.len() {
            return Err(Refusal::TooLarge);
        }
        let known = self.callers.get(&(incoming.server, meta.clone()));
        if let Some(union) = known {
            return Ok(*union);
        }
        if limits::CALLERS_MAX <= self.callers.len() {
            self.union_evict(now);
        }
        if limits::CALLERS_MAX <= self.callers.len() {
            return Err(Refusal::Full);
        }
        let union = Union::new(incoming.server, Owner::Callers(meta.clone()), members, now);
        let union = self.unions.insert(union).map_err(|_| Refusal::Full)?;
        self.callers.insert((incoming.server, meta), union);
        self.union_watch(union, now + limits::UNION_IDLE);
        Ok(union)
    }

    /// Looks at a request, for the first time or again.
    fn union_step(&mut self, key: ExchangeId, stand: Stand, incoming: &Incoming<'_>, now: Instant) {
        let method = incoming.envelope.method.map(|text| text.decode(incoming.bytes()));
        let method = method.unwrap_or_default();
        let step = match &*method {
            b"initialize" if incoming.era == Era::Legacy => {
                match incoming.envelope.protocol_version {
                    Some(_) => self.union_opens(stand, now),
                    // No member would take it, and a session with none of them helps nobody.
                    None => Step::Refuse(Refusal::Version),
                }
            }
            b"server/discover" if incoming.era == Era::Modern => self.union_opens(stand, now),
            b"ping" if incoming.era == Era::Legacy => Step::Answer(b"{}".to_vec()),
            b"logging/setLevel" if incoming.era == Era::Legacy => {
                self.union_tells_all(stand.union, incoming, now);
                Step::Answer(b"{}".to_vec())
            }
            b"subscriptions/listen" if incoming.era == Era::Modern => {
                self.union_subscribes(key, stand, incoming, now)
            }
            b"tools/call" => self.union_named(stand, ListKind::Tools, incoming, now),
            b"prompts/get" => self.union_named(stand, ListKind::Prompts, incoming, now),
            b"resources/subscribe" | b"resources/unsubscribe" if incoming.era == Era::Modern => {
                Step::Refuse(Refusal::NotUnited)
            }
            b"resources/read" | b"resources/subscribe" | b"resources/unsubscribe" => {
                match named(incoming.bytes(), incoming.envelope.uri) {
                    Some((_, uri)) => self.union_resource(stand, &uri, now),
                    None => Step::Refuse(Refusal::Resource),
                }
            }
            b"completion/complete" => self.union_completes(stand, incoming, now),
            _ if is_of_task(&method, incoming.era) => self.task_member(key, stand, incoming, now),
            _ => match self.united(&method, stand, incoming) {
                Some(kind) => self.union_lists(stand, kind, incoming, now),
                None if self.only_member(stand.union) => self.union_routes(stand, 0, None, now),
                None => Step::Refuse(Refusal::NotUnited),
            },
        };
        match step {
            Step::Route(member, edit) => {
                match self.are_mirrored(key, (stand.union, member), incoming, edit.as_ref()) {
                    Ok(()) => self.union_leg(key, (stand.union, member), incoming, edit, now),
                    Err(refusal) => self.union_refuses(key, refusal, now),
                }
            }
            Step::Answer(result) => self.union_answers(key, &result, now),
            Step::Wait(on) => self.union_waits(key, (stand, on), now),
            Step::Refuse(refusal) => self.union_refuses(key, refusal, now),
            Step::Gone => {}
        }
    }

    /// The list that is asked for, if it is put together here. 2026-07-28 has none of tasks, and of
    /// one member it is the member's own.
    fn united(&self, method: &[u8], stand: Stand, incoming: &Incoming<'_>) -> Option<ListKind> {
        let has_tasks = incoming.era == Era::Legacy && !self.only_member(stand.union);
        ListKind::of_method(method).filter(|kind| *kind != ListKind::Tasks || has_tasks)
    }

    pub(super) fn only_member(&self, union: UnionKey) -> bool {
        self.unions.get(union).is_some_and(|union| union.members.len() == 1)
    }

    /// Whether a call of a process's tool by HTTP has the arguments in its headers that it should
    /// have there. Its headers name the tool as the client does, which was looked at before.
    fn are_mirrored(
        &self,
        key: ExchangeId,
        (union, member): (UnionKey, usize),
        incoming: &Incoming<'_>,
        edit: Option<&(Span, String)>,
    ) -> Result<(), Refusal> {
        let reply = self.exchanges.get(key).map(|exchange| exchange.reply);
        let has_headers = incoming.era == Era::Modern && !matches!(reply, Some(Reply::Channel(_)));
        let server = self.member_server(union, member);
        let server = server.filter(|server| has_headers && self.is_process(*server));
        let called = incoming.envelope.name.filter(|_| incoming.is_method("tools/call"));
        let (Some(server), Some(called)) = (server, called) else { return Ok(()) };
        let Some(pool) = self.pools.get(usize::from(server.0)) else { return Ok(()) };
        let written = called.decode(incoming.bytes());
        let name = edit.map_or(&*written, |(_, original)| original.as_bytes());
        let params = incoming.envelope.params.map(|params| params.get(incoming.bytes()));
        pool.params.check_lines(incoming.headers, name, params.unwrap_or_default())
    }

    /// A result for the client, made here.
    fn union_answers(&mut self, key: ExchangeId, result: &[u8], now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        let (id, kind, session) = (exchange.id.clone(), exchange.kind, exchange.session);
        if let (Kind::Initialize, Some(session)) = (kind, session) {
            let version = find_path(result, &["protocolVersion"]);
            let version = version.and_then(|span| text_of(span.get(result)));
            self.session_opened(session, version.as_deref().map(str::as_bytes), None);
        }
        let parts: [&[u8]; 5] =
            [b"{\"jsonrpc\":\"2.0\",\"id\":", &id, b",\"result\":", result, b"}"];
        self.answer(key, &parts, None, now);
    }

    /// An error that is an answer: the message came through, and what it asks for is not there.
    pub(super) fn union_refuses(&mut self, key: ExchangeId, refusal: Refusal, now: Instant) {
        let is_answer = matches!(
            refusal,
            Refusal::Name | Refusal::Resource | Refusal::NotUnited | Refusal::Cursor
        );
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        if !is_answer {
            return self.exchange_fail(key, refusal, now);
        }
        let (id, era, message) = (exchange.id.clone(), exchange.era, exchange.message.clone());
        let mut text = Vec::new();
        refusal.write_error(&mut text, &id, None);
        let uri = find_path(&message, &["params", "uri"]);
        if let (Refusal::Resource, Some(uri)) = (refusal, uri)
            && let Some(at) = memchr::memmem::rfind(&text, b"\"gateway\":")
        {
            let uri = [b"\"uri\":", uri.get(&message), b","].concat();
            text.splice(at..at, uri);
        }
        let code = match (refusal, era) {
            // 2026-07-28 has no code of its own for this any more.
            (Refusal::Resource, Era::Modern) => {
                let old = b"\"code\":-32002";
                if let Some(at) = memchr::memmem::find(&text, old) {
                    text.splice(at..at + old.len(), *b"\"code\":-32602");
                }
                -32602
            }
            _ => i64::from(refusal.code()),
        };
        self.answer(key, &[&text], Some(code), now);
    }

    /// The request waits for members.
    fn union_waits(&mut self, key: ExchangeId, (stand, on): (Stand, On), now: Instant) {
        let Some(union) = self.unions.get_mut(stand.union) else { return };
        union.waiting.push(Waiting { exchange: key, since: stand.since, on });
        let server = union.view;
        let timeout = self.view(server).map(|view| view.timeout).unwrap_or_default();
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Union(stand.union);
        exchange.resume_at.get_or_insert(now + timeout);
        self.watch(key, now);
    }

    /// A member has said something: who waits for that looks again when this event is over.
    pub(super) fn union_stirs(&mut self, union: UnionKey) {
        if !self.stirred.contains(&union) {
            self.stirred.push(union);
        }
    }

    /// Everybody looks again who has what he waits for.
    pub(super) fn union_continues(&mut self, union: UnionKey, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let all = std::mem::take(&mut entry.waiting);
        let (ready, waiting) = all.into_iter().partition(|waiting| entry.has(waiting.on));
        entry.waiting = waiting;
        let ready: Vec<Waiting> = ready;
        for Waiting { exchange, since, .. } in ready {
            self.union_again(exchange, Stand { union, since, is_due: false }, now);
        }
    }

    /// An exchange has waited long enough: nobody waits for the members that keep it any longer.
    pub(super) fn union_due(&mut self, key: ExchangeId, union: UnionKey, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let mut is_news = false;
        for member in &mut entry.members {
            if let Phase::Opening { is_late } = &mut member.phase {
                is_news |= !std::mem::replace(is_late, true);
            }
            for list in member.lists.iter_mut().filter(|list| list.reading.is_some()) {
                is_news |= !std::mem::replace(&mut list.is_late, true);
            }
        }
        let at = entry.waiting.iter().position(|waiting| waiting.exchange == key);
        if let Some(Waiting { since, .. }) = at.map(|at| entry.waiting.swap_remove(at)) {
            self.union_again(key, Stand { union, since, is_due: true }, now);
        }
        if is_news {
            self.union_stirs(union);
        }
    }

    pub(super) fn union_again(&mut self, key: ExchangeId, stand: Stand, now: Instant) {
        let is_its = |it: &&mut Exchange| it.via == Via::Union(stand.union);
        let Some(exchange) = self.exchanges.get_mut(key).filter(is_its) else { return };
        exchange.via = Via::Nothing;
        let payload = Payload::Whole(exchange.message.clone());
        let headers = exchange.headers.clone();
        let (server, session, era) = (exchange.server, exchange.session, exchange.era);
        let Ok(envelope) = rpc::scan(payload.bytes(), self.rpc_limits()) else { return };
        let incoming = Incoming {
            server,
            session,
            era,
            payload: &payload,
            envelope: &envelope,
            headers: &headers,
        };
        self.union_step(key, stand, &incoming, now);
    }

    /// `initialize` and `server/discover`: what all members offer together.
    fn union_opens(&mut self, stand: Stand, now: Instant) -> Step {
        if !self.members_ready(stand.union, stand.since, now) {
            return Step::Wait(On::Members);
        }
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        let Some(view) = self.view(union.view) else { return Step::Gone };
        let answered = |(member, state): (&Member, &MemberState)| {
            (member.name.clone(), Some(state.result.clone()).filter(|it| !it.is_empty()))
        };
        let all: Vec<(String, Option<Bytes>)> =
            view.members.iter().zip(&union.members).map(answered).collect();
        let parts: Vec<Answered<'_>> =
            all.iter().map(|(name, result)| Answered { name, result: result.as_deref() }).collect();
        let mut out = Vec::new();
        match (&union.owner, all.as_slice()) {
            // One server speaks for itself.
            (_, [(_, Some(result))]) => out.extend_from_slice(result),
            (Owner::Session(session), _) => {
                let revision = self.sessions.get(*session).map(|session| session.revision);
                let revision = revision.unwrap_or(Revision::NEWEST_LEGACY);
                combine::write_initialized(&mut out, revision, &parts);
            }
            // Who speaks both eras reaches more of them by `initialize`.
            (Owner::Callers(_), _) if union.members.iter().any(|member| member.is_legacy) => {
                return Step::Refuse(Refusal::LegacyServer);
            }
            (Owner::Callers(_), _) => {
                let freshness = |(_, result): &(String, Option<Bytes>)| {
                    result.as_deref().map_or(Freshness::NONE, Freshness::read)
                };
                let freshness = all.iter().map(freshness).fold(Freshness::BEST, Freshness::and);
                combine::write_discovered(&mut out, freshness, &parts);
            }
        }
        if let Owner::Session(_) = union.owner {
            self.union_watch(stand.union, now + limits::RESTART_MIN);
        }
        Step::Answer(out)
    }

    /// A page of a list.
    fn union_lists(
        &mut self,
        stand: Stand,
        kind: ListKind,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Step {
        let cursor = incoming.envelope.cursor.map(|text| text.decode(incoming.bytes()));
        // Whoever goes on with a list goes on with the one that is there.
        let since = if cursor.is_some() { 1 } else { stand.since };
        if !self.lists_ready(stand.union, kind.alone(), since, now) {
            return Step::Wait(On::Lists(kind.alone()));
        }
        let Some(union) = self.unions.get_mut(stand.union) else { return Step::Gone };
        let Some(view) = self.settings.catalog.view(union.view) else { return Step::Gone };
        let merged = union.merged(kind, view);
        let from = match &cursor {
            None => 0,
            Some(cursor) => {
                let position = merged.position(&String::from_utf8_lossy(cursor));
                let Some(from) = position else { return Step::Refuse(Refusal::Cursor) };
                from
            }
        };
        let mut out = b"{".to_vec();
        merged.write_page(&mut out, kind, view, from);
        if incoming.era == Era::Modern {
            union.freshness(kind, now).write(&mut out);
            out.extend_from_slice(combine::META_SERVER_INFO);
        }
        out.push(b'}');
        Step::Answer(out)
    }

    /// A request for a tool or a prompt.
    fn union_named(
        &mut self,
        stand: Stand,
        kind: ListKind,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Step {
        let Some((span, name)) = named(incoming.bytes(), incoming.envelope.name) else {
            return Step::Refuse(Refusal::Name);
        };
        self.union_by_name(stand, (kind, span, &name), now)
    }

    fn union_by_name(
        &mut self,
        stand: Stand,
        (kind, span, name): (ListKind, Span, &str),
        now: Instant,
    ) -> Step {
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        let Some(view) = self.view(union.view) else { return Step::Gone };
        let guessed = guess(view, kind, name);
        let target = match (self.listed(stand.union, kind, name), guessed) {
            (Some(found), _) => Some(found),
            (None, Some(guessed)) => guessed,
            // Only the lists can tell.
            (None, None) if !self.lists_ready(stand.union, kind.alone(), stand.since, now) => {
                return Step::Wait(On::Lists(kind.alone()));
            }
            (None, None) => self.listed(stand.union, kind, name),
        };
        let Some((member, original)) = target else { return Step::Refuse(Refusal::Name) };
        let edit = (original != name).then_some((span, original));
        self.union_routes(stand, member, edit, now)
    }

    /// Whose something of this name is, and what it is called there, as far as the lists are known.
    pub(super) fn listed(
        &mut self,
        union: UnionKey,
        kind: ListKind,
        name: &str,
    ) -> Option<(usize, String)> {
        let union = self.unions.get_mut(union)?;
        let view = self.settings.catalog.view(union.view)?;
        let (member, original) = union.merged(kind, view).find(name)?;
        Some((member, original.to_owned()))
    }

    /// A request about a resource goes to whoever lists it, or a template for it.
    fn union_resource(&mut self, stand: Stand, uri: &str, now: Instant) -> Step {
        if self.only_member(stand.union) {
            return self.union_routes(stand, 0, None, now);
        }
        // What is listed once is not looked for again; what is not may be new.
        for since in [1, stand.since] {
            if !self.lists_ready(stand.union, ListKind::OF_RESOURCES, since, now) {
                return Step::Wait(On::Lists(ListKind::OF_RESOURCES));
            }
            let Some(union) = self.unions.get_mut(stand.union) else { return Step::Gone };
            let Some(view) = self.settings.catalog.view(union.view) else { return Step::Gone };
            let listed =
                union.merged(ListKind::Resources, view).find(uri).map(|(member, _)| member);
            let templates = union.merged(ListKind::Templates, view);
            let is_template = || templates.find(uri).map(|(member, _)| member);
            let member = listed.or_else(is_template).or_else(|| templates.find_template(uri));
            if let Some(member) = member {
                return self.union_routes(stand, member, None, now);
            }
        }
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        let has = |(index, member): (usize, &MemberState)| {
            (!member.result.is_empty() && member.may_have(ListKind::Resources)).then_some(index)
        };
        let mut having = union.members.iter().enumerate().filter_map(has);
        match (having.next(), having.next()) {
            // Not everything that can be read is listed.
            (Some(member), None) => self.union_routes(stand, member, None, now),
            _ => Step::Refuse(Refusal::Resource),
        }
    }

    /// A completion goes where what it refers to would.
    fn union_completes(&mut self, stand: Stand, incoming: &Incoming<'_>, now: Instant) -> Step {
        let Some(params) = incoming.envelope.params else { return Step::Refuse(Refusal::Name) };
        let bytes = params.get(incoming.bytes());
        let Some((at, is_prompt)) = completed(bytes) else { return Step::Refuse(Refusal::Name) };
        let Some(name) = text_of(at.get(bytes)) else { return Step::Refuse(Refusal::Name) };
        let span = Span { start: params.start + at.start, end: params.start + at.end };
        match is_prompt {
            true => self.union_by_name(stand, (ListKind::Prompts, span, &name), now),
            false => self.union_resource(stand, &name, now),
        }
    }

    /// A request for this member, if it can be had.
    pub(super) fn union_routes(
        &mut self,
        stand: Stand,
        member: usize,
        edit: Option<(Span, String)>,
        now: Instant,
    ) -> Step {
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        if let Owner::Callers(_) = union.owner {
            return Step::Route(member, edit);
        }
        self.member_open(stand.union, member, false, now);
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        let phase = union.members.get(member).map(|member| member.phase);
        match phase {
            Some(Phase::Open) => Step::Route(member, edit),
            Some(Phase::Opening { .. }) if !stand.is_due => Step::Wait(On::Member(member)),
            Some(Phase::Opening { .. }) => Step::Refuse(Refusal::Timeout),
            _ => Step::Refuse(Refusal::Unreachable),
        }
    }

    /// `subscriptions/listen`: each member is asked for its part.
    fn union_subscribes(
        &mut self,
        key: ExchangeId,
        stand: Stand,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Step {
        let bytes = incoming.bytes();
        let params = incoming.envelope.params;
        let list = params.and_then(|params| {
            let inner = find_path(params.get(bytes), &["notifications", "resourceSubscriptions"])?;
            Some(Span { start: params.start + inner.start, end: params.start + inner.end })
        });
        let uris: Vec<String> = list
            .into_iter()
            .flat_map(|span| wire::json::elements(span.get(bytes), limits::DEPTH_MAX).flatten())
            .zip(list.into_iter().cycle())
            .filter_map(|(inner, span)| text_of(inner.get(span.get(bytes))))
            .take(limits::SUBSCRIPTIONS_MAX)
            .collect();
        if !uris.is_empty() && !self.lists_ready(stand.union, ListKind::OF_RESOURCES, 1, now) {
            return Step::Wait(On::Lists(ListKind::OF_RESOURCES));
        }
        let Some(union) = self.unions.get_mut(stand.union) else { return Step::Gone };
        let Some(view) = self.settings.catalog.view(union.view) else { return Step::Gone };
        let mut parts: Vec<Vec<String>> = vec![Vec::new(); view.members.len()];
        for uri in uris {
            let listed =
                union.merged(ListKind::Resources, view).find(&uri).map(|(member, _)| member);
            let member =
                listed.or_else(|| union.merged(ListKind::Templates, view).find_template(&uri));
            if let Some(part) = member.and_then(|member| parts.get_mut(member)) {
                part.push(uri);
            }
        }
        // Each member has a copy of the message.
        let len = bytes.len().saturating_mul(parts.len()) as u64;
        if (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered.saturating_add(len) {
            return Step::Refuse(Refusal::Full);
        }
        let texts: Vec<Bytes> = parts
            .iter()
            .map(|part| {
                let tokens: Vec<Vec<u8>> = part.iter().map(|uri| token(uri)).collect();
                let array = [b"[", tokens.join(&b','.to_owned()).as_slice(), b"]"].concat();
                let mut text = Vec::with_capacity(bytes.len());
                let edits = list.map(|span| (span, &*array));
                rpc::splice(&mut text, bytes, edits.as_slice());
                Bytes::from(text)
            })
            .collect();
        self.subscribe(key, stand.union, texts, now);
        Step::Gone
    }

    /// A notification or response of a client.
    fn union_notice(&mut self, union: UnionKey, incoming: &Incoming<'_>, now: Instant) {
        let bytes = incoming.bytes();
        let method = incoming.envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
        match &*method {
            b"" => self.member_answers(union, incoming, now),
            b"notifications/initialized" => {
                for member in self.open_members(union) {
                    self.member_initialized(union, member, now);
                }
            }
            b"notifications/cancelled" => self.leg_cancelled(incoming, now),
            b"notifications/progress" => self.member_hears(union, incoming, now),
            // What has no id and is no notification would still be taken by some servers.
            _ if !method.starts_with(b"notifications/") => self.counters.dropped += 1,
            _ => {
                for member in self.open_members(union) {
                    self.member_notified(union, member, incoming.payload.keep(), now);
                }
            }
        }
    }

    /// The members that have answered, be it that they are not initialized yet.
    pub(super) fn open_members(&self, union: UnionKey) -> Vec<usize> {
        let members = self.unions.get(union).map(|union| union.members.iter().enumerate());
        let open = members.into_iter().flatten().filter(|(_, it)| !it.result.is_empty());
        open.map(|(index, _)| index).collect()
    }
}

/// Who has a name, as far as it says so itself: the member and its own name. `Some(None)`: nobody;
/// none: only the lists can tell.
fn guess(view: &View, kind: ListKind, name: &str) -> Option<Option<(usize, String)>> {
    if is_shortened(name) || view.is_ambiguous(name) {
        return None;
    }
    let own = |index: usize, rest: &str| {
        let Some(member) = view.members.get(index).filter(|_| kind == ListKind::Tools) else {
            return Some(Some((index, rest.to_owned())));
        };
        Some(member.rules.original(rest).map(|original| (index, original.to_owned())))
    };
    if let Some((index, rest)) = view.by_prefix(name) {
        return own(index, rest);
    }
    let mut plain = view.members.iter().enumerate().filter(|(_, member)| member.prefix.is_none());
    match (plain.next(), plain.next()) {
        (None, _) => Some(None),
        (Some((index, _)), None) => own(index, name),
        (Some(_), Some(_)) => None,
    }
}

/// What callers of the stateless era have in common if they may share what members told one of
/// them: the `_meta` that the gateway sends with its own requests on their behalf.
fn meta_of(incoming: &Incoming<'_>) -> Bytes {
    let (bytes, envelope) = (incoming.bytes(), incoming.envelope);
    let mut meta = Vec::with_capacity(256);
    meta.extend_from_slice(b"{\"io.modelcontextprotocol/protocolVersion\":");
    let version = envelope.meta_version.map(|text| text.token().get(bytes));
    meta.extend_from_slice(version.unwrap_or(b"\"2026-07-28\""));
    let others = [
        (&b",\"io.modelcontextprotocol/clientInfo\":"[..], envelope.meta_client_info),
        (b",\"io.modelcontextprotocol/clientCapabilities\":", envelope.meta_capabilities),
    ];
    for (key, span) in others {
        if let Some(span) = span {
            meta.extend_from_slice(key);
            meta.extend_from_slice(span.get(bytes));
        }
    }
    meta.push(b'}');
    Bytes::from(meta)
}
