//! Exchanges with the members of a view: for a client's exchange, which is answered as they are, or
//! for the gateway itself.

use std::time::Instant;

use bytes::Bytes;
use wire::json::Span;
use wire::rpc;

use crate::exchange::{Kind, Reply, Via};
use crate::federation::list::ListKind;
use crate::federation::tasks::may_have_task;
use crate::federation::value::{find_path, text_of, token};
use crate::federation::{Errand, Owner, Subscription, combine};
use crate::ids::{ExchangeId, SessionKey, UnionKey};
use crate::limits;
use crate::message::{Era, Payload};
use crate::refusal::Refusal;
use crate::session::Link;
use crate::shard::Shard;
use crate::shard::answer::Outcome;
use crate::shard::post::Incoming;
use crate::upstream::catalog::Target;

impl Shard {
    /// Sends a client's request to a member, with this in place of that part of it.
    pub(super) fn union_leg(
        &mut self,
        key: ExchangeId,
        at: (UnionKey, usize),
        incoming: &Incoming<'_>,
        edit: Option<(Span, String)>,
        now: Instant,
    ) {
        let message = match edit {
            None => incoming.payload.keep(),
            Some((span, name)) => {
                let mut text = Vec::with_capacity(incoming.bytes().len() + name.len());
                rpc::splice(&mut text, incoming.bytes(), &[(span, &token(&name))]);
                Bytes::from(text)
            }
        };
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.resume_at = None;
            // It travels in the leg from here on.
            let kept = std::mem::take(&mut exchange.message);
            self.counters.gathered -= kept.len() as u64;
        }
        let Some(leg) = self.leg((at.0, at.1, Some(key)), Kind::Request, message, now) else {
            return self.exchange_fail(key, Refusal::Full, now);
        };
        self.leg_go(leg, now);
    }

    /// Begins an exchange with a member. Its client's exchange points to it from now on.
    pub(super) fn leg(
        &mut self,
        (union, index, parent): (UnionKey, usize, Option<ExchangeId>),
        kind: Kind,
        message: Bytes,
        now: Instant,
    ) -> Option<ExchangeId> {
        let entry = self.unions.get(union)?;
        let session = entry.members.get(index)?.session;
        let server = self.view(entry.view)?.members.get(index)?.server;
        let era = match entry.owner {
            Owner::Session(_) => Era::Legacy,
            Owner::Callers(_) => Era::Modern,
        };
        let envelope = rpc::scan(&message, self.rpc_limits()).ok()?;
        let outer = parent.and_then(|key| self.exchanges.get(key)).map(|it| it.headers.clone());
        let headers = self.channel_headers(server, (era, session), &message, &envelope);
        let target = self.settings.catalog.get(server).map(|server| &server.target);
        let is_http = matches!(target, Some(Target::Http(..)));
        let headers = match outer.filter(|outer| !outer.is_empty() && is_http) {
            Some(outer) => with_others(&headers, &outer),
            None => headers,
        };
        let payload = Payload::Whole(message);
        let incoming = Incoming {
            server,
            session,
            era,
            payload: &payload,
            envelope: &envelope,
            headers: &headers,
        };
        let in_flight = session.and_then(|key| self.sessions.get(key)).map(|it| it.exchanges.len());
        let len = payload.bytes().len() as u64;
        let is_full = limits::SESSION_EXCHANGES_MAX <= in_flight.unwrap_or(0)
            || (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered + len;
        if is_full {
            return None;
        }
        if parent.is_some_and(|parent| !self.is_tried(union, parent)) {
            self.remember(&incoming);
        }
        let mut exchange = self.exchange_of(kind, Reply::Leg(union, parent), &incoming, now);
        // It is what a process is told the message is: lines are made from it when it goes.
        exchange.message = payload.keep();
        let gathered = exchange.message.len() as u64;
        let key = self.exchanges.insert(exchange).ok()?;
        self.counters.gathered += gathered;
        self.counters.in_flight += 1;
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(key)) {
            session.exchanges.push(key);
        }
        if let Some(parent) = parent.and_then(|key| self.exchanges.get_mut(key)) {
            parent.via = Via::Leg(key);
            // It does not wait for the members any more.
            parent.resume_at = None;
        }
        self.watch(key, now);
        Some(key)
    }

    /// Sends a leg on its way. It may be over when this returns.
    pub(super) fn leg_go(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let (server, session, era) = (exchange.server, exchange.session, exchange.era);
        let headers = exchange.headers.clone();
        let payload = Payload::Whole(exchange.message.clone());
        let is_kept = exchange.is_repeatable && exchange.message.len() <= limits::REPEAT_LEN_MAX;
        if !is_kept
            && self.goes_to_process(server, session)
            && let Some(exchange) = self.exchanges.get_mut(key)
        {
            let kept = std::mem::take(&mut exchange.message);
            self.counters.gathered -= kept.len() as u64;
        }
        let Ok(envelope) = rpc::scan(payload.bytes(), self.rpc_limits()) else { return };
        let incoming = Incoming {
            server,
            session,
            era,
            payload: &payload,
            envelope: &envelope,
            headers: &headers,
        };
        self.forward(key, &incoming, now);
    }

    /// The client of a leg, if it is one, and whether it reads.
    pub(super) fn outer_reply(&self, reply: Reply) -> Option<(Reply, Option<SessionKey>)> {
        let Reply::Leg(_, parent) = reply else { return None };
        let outer = self.exchanges.get(parent?)?;
        Some((outer.reply, outer.session))
    }

    /// A message of the gateway's own to a member.
    pub(super) fn errand(
        &mut self,
        (union, index): (UnionKey, usize),
        errand: Errand,
        message: Bytes,
        now: Instant,
    ) -> bool {
        let is_initialize = errand == Errand::Open
            && self.unions.get(union).is_some_and(|union| union.session().is_some());
        let kind = match errand {
            Errand::Initialized => Kind::Notice,
            _ if is_initialize => Kind::Initialize,
            Errand::Open | Errand::Page(_) | Errand::Tell => Kind::Request,
        };
        let Some(key) = self.leg((union, index, None), kind, message, now) else { return false };
        if let Some(entry) = self.unions.get_mut(union) {
            entry.errands.push((key, index, errand));
        }
        let server = self.exchanges.get(key).map(|exchange| exchange.server);
        let upkeep = server.and_then(|server| self.upkeep(server));
        let timeout = upkeep.map_or(limits::START_TIMEOUT, |upkeep| upkeep.start_timeout);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.timeout = Some(timeout);
            exchange.deadline = Some(now + timeout);
        }
        self.watch(key, now);
        self.leg_go(key, now);
        true
    }

    /// A member has answered.
    pub(super) fn leg_answered(
        &mut self,
        key: ExchangeId,
        parts: &[&[u8]],
        error: Option<i64>,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let Reply::Leg(union, parent) = exchange.reply else { return };
        match parent {
            None => {
                let message = parts.concat();
                let answer = match error {
                    None => Ok(&*message),
                    Some(-32603) => Err(Refusal::Died),
                    // Whatever else it is, it is not the answer of a modern server.
                    Some(_) => Err(Refusal::LegacyServer),
                };
                self.errand_done(union, key, answer, now);
            }
            Some(_) if exchange.is_subscription => self.subscription_leaves(union, key, now),
            Some(parent) if self.is_tried(union, parent) => {
                self.try_answered((union, parent), parts, error, now);
            }
            Some(parent) => {
                if error.is_none() && may_have_task(parts) {
                    let server = exchange.server;
                    self.task_seen((union, server), &parts.concat());
                }
                if let Some(exchange) = self.exchanges.get_mut(parent) {
                    exchange.via = Via::Nothing;
                }
                self.answer(parent, parts, error, now);
            }
        }
    }

    /// An exchange with a member is over without an answer of the member.
    pub(super) fn leg_ended(
        &mut self,
        (union, parent): (UnionKey, Option<ExchangeId>),
        key: ExchangeId,
        (outcome, now): (Outcome, Instant),
    ) {
        let refusal = match outcome {
            // It is the member's session that is gone, not the client's.
            Outcome::Refused(Refusal::UnknownSession) => Refusal::Died,
            Outcome::Refused(refusal) => refusal,
            _ => Refusal::Died,
        };
        let Some(parent) = parent else {
            return self.errand_done(union, key, Err(refusal), now);
        };
        let is_whole = self.exchanges.get(parent).is_some_and(|it| it.via == Via::Leg(key));
        if is_whole && self.is_tried(union, parent) {
            self.try_failed(union, parent, Err(refusal), now);
        } else if is_whole {
            if let Some(exchange) = self.exchanges.get_mut(parent) {
                exchange.via = Via::Nothing;
            }
            self.exchange_fail(parent, refusal, now);
        } else {
            self.subscription_leaves(union, key, now);
        }
    }

    /// What a member says before its answer, or on a subscription.
    pub(super) fn leg_event(
        &mut self,
        key: ExchangeId,
        (union, parent, session): (UnionKey, Option<ExchangeId>, Option<SessionKey>),
        bytes: &[u8],
        now: Instant,
    ) {
        let place = session.and_then(|key| self.sessions.get(key)?.parent);
        match (place, parent) {
            (Some(place), parent) => self.member_event(place, parent, bytes, now),
            (None, Some(parent)) => {
                let is_subscription =
                    self.exchanges.get(parent).is_some_and(|exchange| exchange.is_subscription);
                match is_subscription {
                    true => self.subscription_event(union, (key, parent), bytes, now),
                    false => self.answer_event(parent, &[bytes], now),
                }
            }
            (None, None) => self.counters.dropped += 1,
        }
    }

    /// The client's exchange is over: what was asked of members for it is taken back.
    pub(super) fn legs_leave(&mut self, key: ExchangeId, via: Via, now: Instant) {
        match via {
            Via::Leg(leg) => {
                if let Some(Reply::Leg(union, _)) = self.exchanges.get(leg).map(|leg| leg.reply) {
                    self.try_ends(union, key);
                }
                self.leg_withdraw(leg, now);
            }
            Via::Union(union) => {
                let Some(entry) = self.unions.get_mut(union) else { return };
                entry.waiting.retain(|waiting| waiting.exchange != key);
                let mut legs = Vec::new();
                entry.subscriptions.retain_mut(|subscription| {
                    let is_its = subscription.exchange == key;
                    if is_its {
                        legs = std::mem::take(&mut subscription.legs);
                    }
                    !is_its
                });
                for leg in legs {
                    self.leg_withdraw(leg, now);
                }
            }
            Via::Nothing | Via::Http(_) | Via::Process(..) => {}
        }
    }

    fn leg_withdraw(&mut self, key: ExchangeId, now: Instant) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (via, era, session) = (exchange.via, exchange.era, exchange.session);
        if let (Via::Http(_), Era::Legacy, Some(session)) = (via, era, session) {
            let mut message = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
                \"params\":{\"requestId\":"
                .to_vec();
            message.extend_from_slice(&exchange.id);
            message.extend_from_slice(b"}}");
            self.session_tells(session, Bytes::from(message), now);
        }
        self.exchange_cancel(key, now);
    }

    /// The client's own cancellation goes to the member that has the request.
    pub(super) fn leg_cancelled(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let Some(key) = self.cancel_target(incoming) else { return };
        let Some(target) = self.exchanges.get_mut(key) else { return };
        let Via::Leg(leg) = target.via else { return };
        target.via = Via::Nothing;
        if let Some(Reply::Leg(union, _)) = self.exchanges.get(leg).map(|leg| leg.reply) {
            self.try_ends(union, key);
        }
        let Some(exchange) = self.exchanges.get(leg) else { return };
        match (exchange.via, exchange.session) {
            (Via::Process(process, number), _) => {
                self.stdio_cancel((process, number), incoming, now);
            }
            (_, Some(session)) => self.session_tells(session, incoming.payload.keep(), now),
            (_, None) => {}
        }
        self.exchange_end(leg, Outcome::Cancelled, now);
    }

    /// Sends a notification or a response on behalf of a session.
    pub(super) fn session_tells(&mut self, key: SessionKey, message: Bytes, now: Instant) {
        let Some(session) = self.sessions.get(key) else { return };
        let (server, link) = (session.server, &session.link);
        let is_process = matches!(link, Link::Process(_));
        let Ok(envelope) = rpc::scan(&message, self.rpc_limits()) else { return };
        let headers = self.channel_headers(server, (Era::Legacy, Some(key)), &message, &envelope);
        let payload = Payload::Whole(message);
        let incoming = Incoming {
            server,
            session: Some(key),
            era: Era::Legacy,
            payload: &payload,
            envelope: &envelope,
            headers: &headers,
        };
        self.counters.forwarded += 1;
        if is_process {
            self.stdio_notice(&incoming, now);
        } else if let Some(key) = self.begin_detached(Kind::Notice, Reply::Nobody, &incoming, now) {
            self.forward(key, &incoming, now);
        }
    }

    /// Asks each member for its part of a subscription; there is one text for each of them.
    pub(super) fn subscribe(
        &mut self,
        key: ExchangeId,
        union: UnionKey,
        texts: Vec<Bytes>,
        now: Instant,
    ) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.resume_at = None;
        }
        let (mut legs, mut silent) = (Vec::new(), Vec::new());
        for (index, text) in texts.into_iter().enumerate() {
            let leg = self.leg((union, index, Some(key)), Kind::Request, text, now);
            silent.extend(leg.filter(|_| !self.member_is_failing(union, index, now)));
            legs.extend(leg);
        }
        let is_begun = silent.is_empty();
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Union(union);
        let Some(entry) = self.unions.get_mut(union) else { return };
        entry.subscriptions.push(Subscription {
            exchange: key,
            legs: legs.clone(),
            silent,
            promised: Vec::new(),
            filters: Some(Vec::new()),
        });
        let view = entry.view;
        let timeout = self.view(view).map(|view| view.timeout).unwrap_or_default();
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.resume_at = Some(now + timeout);
        }
        self.watch(key, now);
        if legs.is_empty() {
            return self.exchange_fail(key, Refusal::Full, now);
        }
        for leg in legs {
            self.leg_go(leg, now);
        }
        if is_begun {
            self.subscription_begins(union, key, now);
        }
    }

    /// What a member says on a subscription. Its first word is what it will tell.
    fn subscription_event(
        &mut self,
        union: UnionKey,
        (leg, parent): (ExchangeId, ExchangeId),
        bytes: &[u8],
        now: Instant,
    ) {
        self.callers_hear(union, leg, bytes);
        let Some(entry) = self.unions.get_mut(union) else { return };
        let mut subscriptions = entry.subscriptions.iter_mut();
        let Some(subscription) = subscriptions.find(|it| it.exchange == parent) else { return };
        let method = find_path(bytes, &["method"]).map(|span| span.get(bytes));
        let is_promise = method == Some(b"\"notifications/subscriptions/acknowledged\"");
        if is_promise && !subscription.promised.contains(&leg) {
            subscription.promised.push(leg);
        }
        let Some(filters) = &mut subscription.filters else {
            return self.answer_event(parent, &[bytes], now);
        };
        if !is_promise {
            // It speaks before all have said whether they will.
            self.subscription_begins(union, parent, now);
            return self.answer_event(parent, &[bytes], now);
        }
        if !subscription.silent.contains(&leg) {
            return;
        }
        let filter = find_path(bytes, &["params", "notifications"]).map(|span| span.get(bytes));
        filters.extend(filter.map(Bytes::copy_from_slice));
        subscription.silent.retain(|other| *other != leg);
        if subscription.silent.is_empty() {
            self.subscription_begins(union, parent, now);
        }
    }

    /// A member tells one client that a list has changed: what is kept of it for others is old.
    fn callers_hear(&mut self, union: UnionKey, leg: ExchangeId, bytes: &[u8]) {
        let Some(view) = self.unions.get(union).map(|union| union.view) else { return };
        let Some(server) = self.exchanges.get(leg).map(|exchange| exchange.server) else { return };
        let members = self.view(view).map(|view| view.members.as_slice()).unwrap_or_default();
        let Some(index) = members.iter().position(|it| it.server == server) else { return };
        let method = find_path(bytes, &["method"]).and_then(|span| text_of(span.get(bytes)));
        let is_it =
            |kind: &ListKind| kind.changed().is_some() && kind.changed() == method.as_deref();
        let unions = self.callers.iter().filter(|((of, _), _)| *of == view);
        let unions: Vec<UnionKey> = unions.map(|(_, union)| *union).collect();
        for kind in ListKind::ALL.into_iter().filter(is_it) {
            for union in &unions {
                self.list_changed(*union, (index, kind));
            }
        }
    }

    /// Tells the client what it will be told, by all who have said so.
    pub(super) fn subscription_begins(&mut self, union: UnionKey, key: ExchangeId, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let mut subscriptions = entry.subscriptions.iter_mut();
        let Some(subscription) = subscriptions.find(|it| it.exchange == key) else { return };
        let Some(filters) = subscription.filters.take() else { return };
        let Some(id) = self.exchanges.get(key).map(|exchange| exchange.id.clone()) else { return };
        let filters: Vec<&[u8]> = filters.iter().map(|filter| &**filter).collect();
        let mut text = b"{\"jsonrpc\":\"2.0\",\
            \"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":\
            {\"io.modelcontextprotocol/subscriptionId\":"
            .to_vec();
        text.extend_from_slice(&id);
        text.extend_from_slice(b"},\"notifications\":");
        combine::write_union(&mut text, &filters, limits::DEPTH_MAX);
        text.extend_from_slice(b"}}");
        self.answer_event(key, &[&text], now);
    }

    /// A member's part of a subscription is over. The last one ends the whole.
    fn subscription_leaves(&mut self, union: UnionKey, leg: ExchangeId, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let mut subscriptions = entry.subscriptions.iter_mut();
        let Some(subscription) = subscriptions.find(|it| it.legs.contains(&leg)) else { return };
        subscription.legs.retain(|other| *other != leg);
        // Who had said that it would tell tells no more: the client has to ask again.
        let has_promised = subscription.promised.contains(&leg);
        let key = subscription.exchange;
        let is_over = subscription.legs.is_empty() || has_promised && subscription.is_begun();
        if subscription.filters.is_some() {
            subscription.silent.retain(|other| *other != leg);
            let has_words = subscription.filters.as_ref().is_some_and(|it| !it.is_empty());
            if subscription.silent.is_empty() && (has_words || !is_over) {
                self.subscription_begins(union, key, now);
            }
        }
        if !is_over {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        exchange.via = Via::Nothing;
        let id = exchange.id.clone();
        if let Some(entry) = self.unions.get_mut(union) {
            let at = entry.subscriptions.iter().position(|it| it.exchange == key);
            let ended = at.map(|at| entry.subscriptions.swap_remove(at));
            let (is_begun, legs) = ended.map(|it| (it.is_begun(), it.legs)).unwrap_or_default();
            for leg in legs {
                self.leg_withdraw(leg, now);
            }
            if !is_begun {
                return self.exchange_fail(key, Refusal::Unreachable, now);
            }
        }
        let parts: [&[u8]; 5] = [
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            &id,
            b",\"result\":{\"resultType\":\"complete\",\"_meta\":\
              {\"io.modelcontextprotocol/subscriptionId\":",
            &id,
            b"}}}",
        ];
        self.answer(key, &parts, None, now);
    }
}

/// Header lines with those of the client that say nothing of the method or the name; those are made
/// from the message as it goes out. Mirrored arguments are for a client that speaks HTTP to send.
fn with_others(headers: &Bytes, client: &Bytes) -> Bytes {
    let lines = |bytes: &Bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.split_inclusive("\r\n").map(str::to_owned).collect::<Vec<String>>()
    };
    let starts = |line: &str, start: &str| {
        line.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start))
    };
    let own = ["mcp-protocol-version:", "mcp-method:", "mcp-name:"];
    let others: Vec<String> = lines(client)
        .into_iter()
        .filter(|line| !own.iter().any(|start| starts(line, start)))
        .collect();
    let mut all: Vec<String> =
        lines(headers).into_iter().filter(|line| !starts(line, "mcp-param-")).collect();
    all.extend(others);
    Bytes::from(all.concat())
}
