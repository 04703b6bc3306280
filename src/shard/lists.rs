//! The lists of a view's members: read when they are asked for, kept for as long as they hold.

use std::time::Instant;

use bytes::Bytes;
use wire::json;

use crate::exchange::Via;
use crate::federation::combine::has_capability;
use crate::federation::list::{ListKind, read_page};
use crate::federation::{Errand, MemberState, Owner, Phase};
use crate::ids::UnionKey;
use crate::limits;
use crate::session::Link;
use crate::shard::Shard;

impl Shard {
    /// Whether the lists of all members are there for a question that was asked then. Those that
    /// are not are read.
    pub(super) fn lists_ready(
        &mut self,
        union: UnionKey,
        kinds: &[ListKind],
        since: u64,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.unions.get(union) else { return true };
        let (count, has_sessions) = (entry.members.len(), entry.session().is_some());
        for index in 0..count {
            if has_sessions {
                self.member_open(union, index, false, now);
            }
            for kind in kinds {
                if self.list_is_due(union, (index, *kind), (since, now)) {
                    self.list_read(union, (index, *kind), now);
                }
            }
        }
        let Some(entry) = self.unions.get(union) else { return true };
        let is_waited_for = |(index, kind): (usize, ListKind)| {
            let Some(member) = entry.members.get(index) else { return false };
            let list = member.lists.get(kind.index());
            let is_late = list.is_some_and(|list| list.is_late);
            let is_opening = matches!(member.phase, Phase::Opening { is_late: false });
            (has_sessions && is_opening)
                || !is_late && self.list_is_missing(union, (index, kind), (since, now))
        };
        !(0..count).any(|index| kinds.iter().any(|kind| is_waited_for((index, *kind))))
    }

    /// Whether a member's list is not as new as it has to be, and could be.
    fn list_is_missing(
        &self,
        union: UnionKey,
        (index, kind): (usize, ListKind),
        (since, now): (u64, Instant),
    ) -> bool {
        let Some(entry) = self.unions.get(union) else { return false };
        let Some(member) = entry.members.get(index) else { return false };
        let is_there = entry.session().is_none() || member.phase == Phase::Open;
        let is_heard = self.member_is_heard(union, index, kind);
        is_there && member.may_have(kind) && !member.is_fresh(kind, is_heard, (since, now))
    }

    fn list_is_due(
        &self,
        union: UnionKey,
        (index, kind): (usize, ListKind),
        at: (u64, Instant),
    ) -> bool {
        let entry = self.unions.get(union).and_then(|union| union.members.get(index));
        let list = entry.and_then(|member| member.lists.get(kind.index()));
        list.is_some_and(|list| list.reading.is_none())
            && self.list_is_missing(union, (index, kind), at)
    }

    /// Whether a member says when this list changes, and can be heard.
    fn member_is_heard(&self, union: UnionKey, index: usize, kind: ListKind) -> bool {
        let Some(member) = self.unions.get(union).and_then(|it| it.members.get(index)) else {
            return false;
        };
        let session = member.session.and_then(|key| self.sessions.get(key));
        let is_open = match session.map(|session| &session.link) {
            Some(Link::Process(process)) => process.is_some(),
            Some(Link::Http { listen: Some(listen), .. }) => {
                self.exchanges.get(*listen).is_some_and(|it| matches!(it.via, Via::Http(_)))
            }
            Some(Link::Http { listen: None, .. } | Link::Union(_)) | None => false,
        };
        let is_told = kind.changed().is_some();
        let path = [kind.capability(), &["listChanged"]].concat();
        is_open && is_told && has_capability(&member.capabilities, &path)
    }

    /// Asks a member for a list, from its first page on.
    fn list_read(&mut self, union: UnionKey, (index, kind): (usize, ListKind), now: Instant) {
        let is_failing = self.member_is_failing(union, index, now);
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(member) = entry.members.get_mut(index) else { return };
        let Some(list) = member.list_mut(kind) else { return };
        list.reading = Some(Vec::new());
        list.is_late = is_failing;
        list.is_stale = false;
        self.list_page(union, (index, kind), None, now);
    }

    fn list_page(
        &mut self,
        union: UnionKey,
        (index, kind): (usize, ListKind),
        cursor: Option<&str>,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let id = entry.mint();
        let mut message = b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec();
        message.extend_from_slice(&id);
        message.extend_from_slice(b",\"method\":\"");
        message.extend_from_slice(kind.method().as_bytes());
        message.extend_from_slice(b"\",\"params\":{");
        if let Some(cursor) = cursor {
            message.extend_from_slice(b"\"cursor\":");
            json::write_string(&mut message, cursor);
        }
        if let Owner::Callers(meta) = &entry.owner {
            message.extend_from_slice(if cursor.is_some() {
                b",\"_meta\":"
            } else {
                b"\"_meta\":"
            });
            message.extend_from_slice(meta);
        }
        message.extend_from_slice(b"}}");
        if !self.errand((union, index), Errand::Page(kind), Bytes::from(message), now) {
            self.list_done(union, (index, kind), false, now);
        }
    }

    /// A page of a list has come; none: the list cannot be had.
    pub(super) fn list_paged(
        &mut self,
        union: UnionKey,
        (index, kind): (usize, ListKind),
        result: Option<&[u8]>,
        now: Instant,
    ) {
        let page = result.and_then(|result| read_page(kind, result));
        let Some(mut page) = page else { return self.list_done(union, (index, kind), false, now) };
        let Some(entry) = self.unions.get_mut(union) else { return };
        let before = entry.lists_len();
        let is_long = limits::UNION_LEN_MAX < before + page.len
            || (limits::LISTED_LEN_MAX as u64) < self.counters.listed + page.len as u64;
        let count: usize = entry.members.iter().map(MemberState::len_read).sum();
        let room = limits::UNION_ENTRIES_MAX.saturating_sub(count);
        let Some(list) = entry.members.get_mut(index).and_then(|it| it.list_mut(kind)) else {
            return;
        };
        let Some(reading) = &mut list.reading else { return };
        let is_cut = is_long || room < page.entries.len();
        page.entries.truncate(if is_long { 0 } else { room });
        // A page without entries that names another one could go on for ever.
        let is_last = is_cut || page.entries.is_empty();
        let is_first = reading.is_empty();
        list.len.1 += if is_long { 0 } else { page.len };
        self.counters.listed += if is_long { 0 } else { page.len as u64 };
        reading.append(&mut page.entries);
        let so_far = if is_first { None } else { list.freshness };
        list.freshness = Some(so_far.map_or(page.freshness, |it| it.and(page.freshness)));
        if is_cut {
            self.report_member(union, index, "has more entries than are kept", now);
        }
        match page.next.filter(|_| !is_last) {
            Some(cursor) => self.list_page(union, (index, kind), Some(&cursor), now),
            None => self.list_done(union, (index, kind), true, now),
        }
    }

    /// A list was read; or it could not be, and what was known of it stays.
    fn list_done(
        &mut self,
        union: UnionKey,
        (index, kind): (usize, ListKind),
        is_read: bool,
        now: Instant,
    ) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let is_modern = entry.session().is_none();
        entry.clock += 1;
        let clock = entry.clock;
        let Some(member) = entry.members.get_mut(index) else { return };
        let Some(list) = member.list_mut(kind) else { return };
        let entries = list.reading.take();
        list.read_at = clock;
        let was_late = std::mem::take(&mut list.is_late);
        let (old, new) = std::mem::take(&mut list.len);
        let Some(entries) = entries.filter(|_| is_read) else {
            // It is asked for again by the next who needs it.
            list.is_stale = true;
            list.len.0 = old;
            self.counters.listed -= new as u64;
            return;
        };
        list.len.0 = new;
        self.counters.listed -= old as u64;
        let is_new = list.entries != entries;
        list.entries = entries;
        if is_modern {
            let ttl = list.freshness.map(|it| it.ttl.min(limits::UNION_TTL_MAX));
            list.until = ttl.filter(|ttl| !ttl.is_zero()).map(|ttl| now + ttl);
        }
        if !is_new {
            return;
        }
        entry.forget_merged(kind);
        self.report_collisions(union, kind, now);
        if was_late {
            self.list_announced(union, kind, now);
        }
    }

    /// Tells the client that a list has changed, if there is a word for it.
    pub(super) fn list_announced(&mut self, union: UnionKey, kind: ListKind, now: Instant) {
        let Some(method) = kind.changed() else { return };
        let text = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}");
        self.union_says(union, text.as_bytes(), now);
    }

    /// Names that several members want are told once for each reading.
    fn report_collisions(&mut self, union: UnionKey, kind: ListKind, now: Instant) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(view) = self.settings.catalog.view(entry.view) else { return };
        let collisions = entry.merged(kind, view).collisions.iter();
        let told: Vec<(usize, String)> =
            collisions.take(limits::COLLISIONS_TOLD).cloned().collect();
        for (index, name) in told {
            let what = format!("wants a name that another server has: {name}");
            self.report_member(union, index, &what, now);
        }
    }

    /// A member's list is not what it was.
    pub(super) fn list_changed(&mut self, union: UnionKey, (index, kind): (usize, ListKind)) {
        let Some(entry) = self.unions.get_mut(union) else { return };
        let Some(list) = entry.members.get_mut(index).and_then(|it| it.list_mut(kind)) else {
            return;
        };
        list.is_stale = true;
        list.until = None;
    }

    /// The member is heard again: what it said in between is lost, so its lists are read again.
    pub(super) fn member_heard(&mut self, (union, index): (UnionKey, usize)) {
        for kind in ListKind::ALL {
            self.list_changed(union, (index, kind));
        }
    }
}
