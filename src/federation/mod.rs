//! Many servers as one: what the gateway knows of the members of a view on behalf of one client, or
//! of all clients of the stateless era that are alike. The shard moves the messages.

pub mod combine;
pub mod list;
pub mod tasks;
pub mod value;

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use crate::federation::combine::has_capability;
use crate::federation::list::{Entry, Freshness, ListKind, Merged};
use crate::federation::tasks::KnownTasks;
use crate::ids::{ExchangeId, SessionKey};
use crate::timers::Wish;
use crate::upstream::catalog::ServerId;
use crate::upstream::restart::Restart;
use crate::upstream::view::View;

/// What is known of the members of a view.
#[derive(Debug)]
pub struct Union {
    /// The view.
    pub view: ServerId,
    /// Whose it is: a session, or callers of the stateless era that have this in common.
    pub owner: Owner,
    /// Its members, in the order of the view.
    pub members: Vec<MemberState>,
    /// Exchanges of clients that wait for members.
    pub waiting: Vec<Waiting>,
    /// Messages of the gateway's own on their way to members.
    pub errands: Vec<(ExchangeId, usize, Errand)>,
    /// Requests of members that the client has not answered.
    pub questions: Vec<Question>,
    /// Whose some tasks are.
    pub tasks: KnownTasks,
    /// Requests about tasks whose members are looked for.
    pub tries: Vec<Try>,
    /// Subscriptions of clients (2026-07-28).
    pub subscriptions: Vec<Subscription>,
    /// Counts what is asked for: an answer that came later than the question is fresh.
    pub clock: u64,
    /// Numbers ids of the gateway's own.
    pub next_id: u64,
    /// When it was last used.
    pub used_at: Instant,
    /// Timer state.
    pub wish: Wish,
    merged: HashMap<ListKind, Merged>,
}

/// Whose a union is.
#[derive(Clone, Debug)]
pub enum Owner {
    /// A session's.
    Session(SessionKey),
    /// That of all callers with this `_meta` (raw JSON).
    Callers(Bytes),
}

/// What is known of one member.
#[derive(Debug, Default)]
pub struct MemberState {
    /// The session with it, if it has one.
    pub session: Option<SessionKey>,
    /// How it is.
    pub phase: Phase,
    /// Its answer to `initialize` or `server/discover`: the `result`.
    pub result: Bytes,
    /// The capabilities in it.
    pub capabilities: Bytes,
    /// Notifications of the client that wait until it is initialized.
    pub held: Vec<Bytes>,
    /// What a new session with it is told that the one before was: its subscriptions.
    pub setup: Vec<Bytes>,
    /// When on the union's clock it came, and until when it holds, if it is not for ever.
    pub result_until: Option<(u64, Instant)>,
    /// Its lists, in the order of [`ListKind::ALL`].
    pub lists: [ListState; 5],
    /// Whether it failed to answer the last time: nobody waits for it until it has.
    pub is_failing: bool,
    /// Whether it knows only `initialize`.
    pub is_legacy: bool,
    /// Whether the log says that it is missing.
    pub is_missed: bool,
    /// The pause before it is tried again.
    pub restart: Restart,
}

/// How a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// It was asked; nobody waits for one that is late.
    Opening {
        /// Whether it took too long.
        is_late: bool,
    },
    /// It has answered.
    Open,
    /// It cannot be used for now.
    Down,
}

/// What is known of a member's list.
#[derive(Debug, Default)]
pub struct ListState {
    /// Its entries, as last read.
    pub entries: Vec<Entry>,
    /// What of it was read so far, if it is being read.
    pub reading: Option<Vec<Entry>>,
    /// Whether reading it takes too long.
    pub is_late: bool,
    /// When on the union's clock it was read, or could not be.
    pub read_at: u64,
    /// Whether it has changed since.
    pub is_stale: bool,
    /// Until when it holds, if it was said.
    pub until: Option<Instant>,
    /// What it said of itself.
    pub freshness: Option<Freshness>,
    /// Bytes of `entries`, and of what of it was read so far.
    pub len: (usize, usize),
}

/// An exchange of a client that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// The exchange.
    pub exchange: ExchangeId,
    /// When on the union's clock it began.
    pub since: u64,
    /// What for.
    pub on: On,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Until it is known of every member what it is.
    Members,
    /// Until this one has answered.
    Member(usize),
    /// Until these lists are there.
    Lists(&'static [ListKind]),
}

/// Why the gateway itself wrote to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To open it: `initialize`, or `server/discover`.
    Open,
    /// For a page of a list.
    Page(ListKind),
    /// To tell it that it is initialized: whatever else is for it comes behind.
    Initialized,
    /// To tell it something whose answer says nothing.
    Tell,
}

/// A request of a member.
#[derive(Clone, Debug)]
pub struct Question {
    /// What the client calls it.
    pub number: u64,
    /// Who asked.
    pub member: usize,
    /// What the member calls it, as raw JSON.
    pub id: Bytes,
    /// The member's progress token, as raw JSON; the client is given the number for it.
    pub token: Option<Bytes>,
}

/// A request about a task of which it is not known whose it is: one member after the other is asked
/// for the task.
#[derive(Debug)]
pub struct Try {
    /// The client's exchange.
    pub exchange: ExchangeId,
    /// When on the union's clock it began.
    pub since: u64,
    /// The task.
    pub task: String,
    /// The member that is asked.
    pub asked: usize,
    /// The members that were not asked yet, the next one last.
    pub members: Vec<usize>,
    /// The first error that one of them had, and its code: the answer, if none does better.
    pub error: Option<(Bytes, i64)>,
    /// `tasks/get`.
    pub message: Bytes,
    /// Whether that is the request itself.
    pub is_whole: bool,
}

/// A `subscriptions/listen` of a client.
#[derive(Debug)]
pub struct Subscription {
    /// The client's exchange.
    pub exchange: ExchangeId,
    /// Those of the members.
    pub legs: Vec<ExchangeId>,
    /// Those that are waited for until they have said what they will tell.
    pub silent: Vec<ExchangeId>,
    /// Those that have said it.
    pub promised: Vec<ExchangeId>,
    /// What they said, as raw JSON objects; none as soon as the client was told.
    pub filters: Option<Vec<Bytes>>,
}

impl Subscription {
    /// Whether the client was told what it will be told.
    pub fn is_begun(&self) -> bool {
        self.filters.is_none()
    }
}

impl Union {
    /// A union of members of which nothing is known.
    pub fn new(view: ServerId, owner: Owner, members: usize, now: Instant) -> Self {
        Self {
            view,
            owner,
            members: (0..members).map(|_| MemberState::default()).collect(),
            waiting: Vec::new(),
            errands: Vec::new(),
            questions: Vec::new(),
            tasks: KnownTasks::default(),
            tries: Vec::new(),
            subscriptions: Vec::new(),
            clock: 0,
            next_id: 0,
            used_at: now,
            wish: Wish::default(),
            merged: HashMap::new(),
        }
    }

    /// The session that it is for.
    pub fn session(&self) -> Option<SessionKey> {
        match self.owner {
            Owner::Session(session) => Some(session),
            Owner::Callers(_) => None,
        }
    }

    /// An id of the gateway's own, as raw JSON.
    pub fn mint(&mut self) -> Bytes {
        self.next_id += 1;
        Bytes::from(format!("\"mcp-gateway-{}\"", self.next_id))
    }

    /// The list of all members. Rebuilt when one of them has changed.
    pub fn merged(&mut self, kind: ListKind, view: &View) -> &Merged {
        let lists = self.members.iter().enumerate();
        let lists = lists.filter_map(|(index, member)| {
            Some((index, member.lists.get(kind.index())?.entries.as_slice()))
        });
        self.merged.entry(kind).or_insert_with(|| Merged::new(kind, view, lists))
    }

    /// A member's list has changed: that of all has to be made again.
    pub fn forget_merged(&mut self, kind: ListKind) {
        self.merged.remove(&kind);
    }

    /// Whether nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.errands.is_empty()
            && self.tries.is_empty()
            && self.subscriptions.is_empty()
    }

    /// How long the whole list may be kept from now on. Who has no such list does not count.
    pub fn freshness(&self, kind: ListKind, now: Instant) -> Freshness {
        let part = |member: &MemberState| {
            let list = member.lists.get(kind.index());
            let left = list.and_then(|list| list.until).unwrap_or(now);
            match list.and_then(|list| list.freshness) {
                Some(part) => Freshness { ttl: left.saturating_duration_since(now), ..part },
                None if member.is_failing => Freshness::NONE,
                None => Freshness::BEST,
            }
        };
        self.members.iter().map(part).fold(Freshness::BEST, Freshness::and)
    }

    /// Bytes of all its lists.
    pub fn lists_len(&self) -> usize {
        let lists = self.members.iter().flat_map(|member| &member.lists);
        lists.map(|list| list.len.0 + list.len.1).sum()
    }

    /// Whether what an exchange waits for is there, or is not to be waited for.
    pub fn has(&self, on: On) -> bool {
        let is_opening = |member: &MemberState| member.phase == Phase::Opening { is_late: false };
        match on {
            On::Members => self.members.iter().all(MemberState::is_settled),
            On::Member(index) => {
                let phase = self.members.get(index).map(|member| member.phase);
                !matches!(phase, Some(Phase::Opening { .. }))
            }
            On::Lists(kinds) => !self.members.iter().any(|member| {
                let is_read = |kind: &ListKind| {
                    let list = member.lists.get(kind.index());
                    list.is_some_and(|list| list.reading.is_some() && !list.is_late)
                };
                is_opening(member) || kinds.iter().any(is_read)
            }),
        }
    }
}

impl MemberState {
    /// Whether nothing more is to be waited for before it can be said what it offers.
    pub fn is_settled(&self) -> bool {
        !matches!(self.phase, Phase::Unknown | Phase::Opening { is_late: false })
    }

    /// Whether it may have such a list, as far as it has said.
    pub fn may_have(&self, kind: ListKind) -> bool {
        self.result.is_empty() || has_capability(&self.capabilities, kind.capability())
    }

    /// Whether its list can be used for a question that was asked then. `is_heard`: it says when
    /// the list changes.
    pub fn is_fresh(&self, kind: ListKind, is_heard: bool, (since, now): (u64, Instant)) -> bool {
        let Some(list) = self.lists.get(kind.index()) else { return true };
        let holds = match list.until {
            Some(until) => now < until,
            // While it is read again it is stale, too.
            None => is_heard && list.read_at != 0 && !list.is_stale && list.reading.is_none(),
        };
        holds || since <= list.read_at
    }

    /// Entries of all its lists that are being read.
    pub fn len_read(&self) -> usize {
        let reading = |list: &ListState| list.reading.as_ref().map_or(list.entries.len(), Vec::len);
        self.lists.iter().map(reading).sum()
    }

    /// The state of one of its lists.
    pub fn list_mut(&mut self, kind: ListKind) -> Option<&mut ListState> {
        self.lists.get_mut(kind.index())
    }
}
