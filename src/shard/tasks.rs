//! Requests about tasks at a view: for the member that has the task. Whose one is that was not seen
//! is found by asking the members for it, one after the other.

use std::time::Instant;

use bytes::Bytes;
use wire::json::Text;

use crate::exchange::{Kind, Via};
use crate::federation::combine::has_capability;
use crate::federation::list::{ListKind, named};
use crate::federation::tasks::task_of;
use crate::federation::{MemberState, Owner, Phase, Try};
use crate::ids::{ExchangeId, UnionKey};
use crate::limits;
use crate::message::Era;
use crate::refusal::Refusal;
use crate::shard::Shard;
use crate::shard::post::Incoming;
use crate::shard::union::{Stand, Step};
use crate::upstream::catalog::ServerId;

/// How a server of 2026-07-28 says that it has tasks.
const EXTENSION: [&str; 2] = ["extensions", "io.modelcontextprotocol/tasks"];

impl Shard {
    /// A request about a task.
    pub(super) fn task_member(
        &mut self,
        key: ExchangeId,
        stand: Stand,
        incoming: &Incoming<'_>,
        now: Instant,
    ) -> Step {
        if self.only_member(stand.union) {
            return self.union_routes(stand, 0, None, now);
        }
        let Some((_, task)) = named(incoming.bytes(), incoming.envelope.task_id) else {
            return Step::Refuse(Refusal::NotUnited);
        };
        let Some(union) = self.unions.get(stand.union) else { return Step::Gone };
        let seen = union.tasks.find(&task);
        let listed = || self.listed(stand.union, ListKind::Tasks, &task).map(|(member, _)| member);
        if let Some(member) = seen.or_else(listed) {
            return self.union_routes(stand, member, None, now);
        }
        let members = self.task_members(stand.union, now);
        match members.as_slice() {
            [] => Step::Refuse(Refusal::NotUnited),
            [only] => self.union_routes(stand, *only, None, now),
            // It could not be remembered whose it is.
            _ if limits::TASK_ID_LEN_MAX < task.len() => Step::Refuse(Refusal::NotUnited),
            _ => {
                self.task_tried(key, stand, (task, members), incoming, now);
                Step::Gone
            }
        }
    }

    /// The members that may have tasks, the first one last.
    fn task_members(&self, union: UnionKey, now: Instant) -> Vec<usize> {
        let Some(entry) = self.unions.get(union) else { return Vec::new() };
        let has_tasks = |member: &MemberState| match entry.owner {
            Owner::Session(_) => {
                member.phase == Phase::Open && has_capability(&member.capabilities, &["tasks"])
            }
            Owner::Callers(_) => {
                member.result.is_empty() || has_capability(&member.capabilities, &EXTENSION)
            }
        };
        let members = entry.members.iter().enumerate().rev();
        let members = members.filter(|(index, member)| {
            has_tasks(member) && !self.member_is_failing(union, *index, now)
        });
        members.map(|(index, _)| index).collect()
    }

    /// Asks these members for a task. `tasks/get` changes nothing, whoever gets it.
    fn task_tried(
        &mut self,
        key: ExchangeId,
        stand: Stand,
        (task, members): (String, Vec<usize>),
        incoming: &Incoming<'_>,
        now: Instant,
    ) {
        let is_whole = incoming.is_method("tasks/get");
        let Some(entry) = self.unions.get_mut(stand.union) else { return };
        let message = match (is_whole, &entry.owner) {
            (true, _) => incoming.payload.keep(),
            (false, owner) => {
                let token = incoming.envelope.task_id.map(Text::token);
                let token = token.map(|span| span.get(incoming.bytes())).unwrap_or_default();
                let meta: [&[u8]; 2] = match owner {
                    Owner::Session(_) => [b"", b""],
                    Owner::Callers(meta) => [b",\"_meta\":", meta],
                };
                let parts: [&[u8]; 7] = [
                    b"{\"jsonrpc\":\"2.0\",\"id\":",
                    incoming.id(),
                    b",\"method\":\"tasks/get\",\"params\":{\"taskId\":",
                    token,
                    meta[0],
                    meta[1],
                    b"}}",
                ];
                Bytes::from(parts.concat())
            }
        };
        let (since, asked, error) = (stand.since, 0, None);
        entry.tries.push(Try {
            exchange: key,
            since,
            task,
            asked,
            members,
            error,
            message,
            is_whole,
        });
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.resume_at = None;
        }
        self.try_next(stand.union, key, now);
    }

    /// Asks the next member. False: all were asked.
    fn try_next(&mut self, union: UnionKey, key: ExchangeId, now: Instant) -> bool {
        let Some(entry) = self.unions.get_mut(union) else { return false };
        let view = entry.view;
        let Some(it) = entry.tries.iter_mut().find(|it| it.exchange == key) else { return false };
        let Some(member) = it.members.pop() else { return false };
        it.asked = member;
        let message = it.message.clone();
        let timeout = self.view(view).map(|view| view.timeout).unwrap_or_default();
        let Some(leg) = self.leg((union, member, Some(key)), Kind::Request, message, now) else {
            self.try_ends(union, key);
            self.exchange_fail(key, Refusal::Full, now);
            return true;
        };
        if let Some(exchange) = self.exchanges.get_mut(leg) {
            exchange.timeout = Some(timeout);
            exchange.deadline = Some(now + timeout);
        }
        self.watch(leg, now);
        self.leg_go(leg, now);
        true
    }

    pub(super) fn is_tried(&self, union: UnionKey, key: ExchangeId) -> bool {
        self.unions.get(union).is_some_and(|it| it.tries.iter().any(|it| it.exchange == key))
    }

    /// No other member is asked.
    pub(super) fn try_ends(&mut self, union: UnionKey, key: ExchangeId) -> Option<Try> {
        let tries = &mut self.unions.get_mut(union)?.tries;
        let at = tries.iter().position(|it| it.exchange == key)?;
        Some(tries.swap_remove(at))
    }

    /// A member that was asked for a task has answered. If it has the task, the request is for it.
    pub(super) fn try_answered(
        &mut self,
        (union, key): (UnionKey, ExchangeId),
        parts: &[&[u8]],
        error: Option<i64>,
        now: Instant,
    ) {
        if let Some(code) = error {
            return self.try_failed(union, key, Ok((Bytes::from(parts.concat()), code)), now);
        }
        let Some(found) = self.try_ends(union, key) else { return };
        let Some(entry) = self.unions.get_mut(union) else { return };
        entry.tasks.learn(found.task, found.asked);
        let session = entry.members.get(found.asked).and_then(|member| member.session);
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(key)) {
            session.is_irreplaceable = true;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if found.is_whole {
            exchange.via = Via::Nothing;
            return self.answer(key, parts, None, now);
        }
        exchange.via = Via::Union(union);
        self.union_again(key, Stand { union, since: found.since, is_due: false }, now);
    }

    /// One of the members has no answer; the next is asked. The first error stands if all have one.
    pub(super) fn try_failed(
        &mut self,
        union: UnionKey,
        key: ExchangeId,
        why: Result<(Bytes, i64), Refusal>,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(it) = entry.tries.iter_mut().find(|it| it.exchange == key) else { return };
        let refusal = why.as_ref().err().copied();
        it.error = it.error.take().or(why.ok());
        if self.try_next(union, key, now) {
            return;
        }
        let error = self.try_ends(union, key).and_then(|it| it.error);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.via = Via::Nothing;
        }
        match (error, refusal) {
            (Some((text, code)), _) => self.answer(key, &[&text], Some(code), now),
            (None, refusal) => self.exchange_fail(key, refusal.unwrap_or(Refusal::Died), now),
        }
    }

    /// A member has answered something that tells of a task.
    pub(super) fn task_seen(&mut self, (union, server): (UnionKey, ServerId), answer: &[u8]) {
        let Some(task) = task_of(answer) else { return };
        let view = self.unions.get(union).and_then(|union| self.view(union.view));
        let members = view.map(|view| view.members.as_slice()).unwrap_or_default();
        let Some(member) = members.iter().position(|it| it.server == server) else { return };
        if let Some(union) = self.unions.get_mut(union) {
            union.tasks.learn(task, member);
        }
    }
}

/// Whether a method is about one task.
pub(super) fn is_of_task(method: &[u8], era: Era) -> bool {
    match (method, era) {
        (b"tasks/get" | b"tasks/cancel", _) => true,
        (b"tasks/result", era) => era == Era::Legacy,
        (b"tasks/update", era) => era == Era::Modern,
        _ => false,
    }
}
