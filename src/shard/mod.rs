//! One core's worth of gateway: events in, actions out, time passed in. Pure.
//!
//! After each [`Shard::handle`] drain [`Shard::poll`] to `None`. Bytes to send are in
//! [`Shard::output`]. The parts of a shard, in the order in which a request meets them:
//!
//! ```text
//! client   bytes of clients become requests, one at a time per connection
//! channel  bytes of clients become messages, on connections that carry nothing else
//! sse      messages of clients in POSTs, and to them on one event stream
//! envelope  the predecessor's requests and event streams, and what belongs to its tokens
//! hangup   their end
//! binary   the same in the frames of the binary protocol
//! link     connections of its version 2, which can be resumed, and
//! branch   the many conversations on them:
//! link_client  those of clients                      link_server  those with servers
//! websocket  HTTP connections become channels, in frames and with pings
//! post     a POST becomes exchanges: era, session, kind of message
//! session  sessions, their GET streams, their end
//! stdio    exchanges to and from child processes     process  their lives
//! remote   servers that are reached by URL and served like processes:
//! remote_sse  those that speak HTTP+SSE              remote_ws  those by WebSocket
//! http     exchanges to HTTP servers                 respond  and what comes back
//! answer   answers to clients: one response, or events of a stream
//! union    clients of a view of many servers     leg   what goes to its members for them
//! member   the members: opened, heard, missed     lists   what they offer
//! flow     back-pressure         revive   sessions that a server has lost
//! repeat   requests that were lost with their server
//! endpoints  which endpoint of a server, and what if it cannot be connected
//! tunnel   clients whose session belongs to another shard
//! clock    deadlines             drain  the end           report  log lines
//! ```

pub mod event;
pub mod settings;
mod client;
mod channel;
mod hangup;
mod sse;
mod envelope;
mod binary;
mod link;
mod branch;
mod link_client;
mod link_server;
mod websocket;
mod post;
mod session;
mod stdio;
mod process;
mod remote;
mod remote_sse;
mod remote_ws;
mod union;
mod leg;
mod member;
mod lists;
mod tasks;
mod http;
mod respond;
mod relay;
mod revive;
mod repeat;
mod endpoints;
mod answer;
mod flow;
mod tunnel;
mod clock;
mod drain;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wire::ws::Deflater;

use crate::admission::rate_limit::{Rate, RateLimit};
use crate::backend::http::ServerConn;
use crate::backend::stdio::Process;
use crate::exchange::Exchange;
use crate::federation::Union;
use crate::frontend::channel::Channel;
use crate::frontend::http::{Busy, Client};
use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey, ShardId, Ticket, UnionKey};
use crate::limits;
use crate::output::Output;
use crate::session::Session;
use crate::session::id::SessionId;
use crate::shard::branch::Branch;
use crate::shard::drain::Rest;
use crate::shard::envelope::Holders;
use crate::shard::event::{Action, Answer, Event};
use crate::shard::http::Pool;
use crate::shard::link::{LinkConn, LinkName, Trunk};
use crate::shard::settings::{Identity, Settings};
use crate::shard::sse::Streams;
use crate::table::Table;
use crate::telemetry::counters::Counters;
use crate::timers::{Timers, Wish};
use crate::upstream::catalog::{EndpointId, ServerId};

/// Requests for unknown sessions that one source may send to all shards.
const GUESSES: Rate = Rate { interval: limits::GUESS_INTERVAL, burst: limits::GUESSES_MAX };

/// One core's worth of gateway.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<Settings>,
    identity: Identity,
    random: ChaCha12Rng,
    conns: Table<ConnId, Conn>,
    exchanges: Table<ExchangeId, Exchange>,
    sessions: Table<SessionKey, Session>,
    session_keys: HashMap<SessionId, SessionKey, RandomState>,
    processes: HashMap<ProcessId, Process, RandomState>,
    /// What is known of the members of views.
    unions: Table<UnionKey, Union>,
    /// The unions of callers of the stateless era, by the view and what they have in common.
    callers: HashMap<(ServerId, Bytes), UnionKey, RandomState>,
    /// Unions whose members have said something that exchanges may wait for.
    stirred: Vec<UnionKey>,
    /// Ends of tunnels, by the client connection at the other shard.
    tunnels: HashMap<(ShardId, ConnId), ConnId, RandomState>,
    /// Event streams of clients that send their messages on other connections.
    streams: Streams,
    /// What clients of the predecessor have, by their tokens.
    holders: Holders,
    /// Links of the binary protocol, version 2.
    links: BTreeMap<LinkName, Trunk>,
    /// Those of clients that are without a connection, and since when.
    lost_links: BTreeSet<(Instant, LinkName)>,
    /// Bytes that these keep.
    lost_len: usize,
    /// Those that may have something to write.
    dirty_links: Vec<LinkName>,
    /// Streams of those of clients.
    client_branches: usize,
    /// Per server, in the order of the catalog.
    pools: Vec<Pool>,
    /// Questions to the control thread.
    questions: HashMap<Ticket, Asked, RandomState>,
    next_ticket: u64,
    next_process: u64,
    timers: Timers<Timer>,
    armed: Option<Instant>,
    actions: VecDeque<Action>,
    /// Connections with new output.
    dirty: Vec<ConnId>,
    /// Client connections whose next request may be looked at.
    ready: VecDeque<ConnId>,
    /// The connection that is being worked for: the one that a fault costs.
    current: Option<ConnId>,
    counters: Counters,
    log: Vec<u8>,
    /// Requests for unknown sessions, by their source.
    guesses: RateLimit,
    /// Compresses for all WebSockets: a message leaves nothing behind for the next.
    deflater: Deflater,
    /// When a drain ends, if there is one.
    draining: Option<Instant>,
    rest: Rest,
    /// What makes the next request panic, in tests.
    #[cfg(test)]
    pub(crate) fault: Option<&'static [u8]>,
}

/// One connection.
#[derive(Debug)]
struct Conn {
    output: Output,
    role: Role,
    /// The stream that it is, if it is none of its own.
    branch: Option<Branch>,
    /// Whether the driver was told to stop receiving.
    is_paused: bool,
    /// Whether it is in `dirty`.
    is_dirty: bool,
    /// Since when the peer has not taken what is in `output`.
    stalled_since: Option<Instant>,
    /// Whether its producer was paused because of `output`.
    holds_producer: bool,
    wish: Wish,
    sent: u64,
}

/// What a connection is for.
#[derive(Debug)]
enum Role {
    Client(Box<Client>),
    Channel(Box<Channel>),
    Server(Box<ServerConn>),
    Process(ProcessId),
    Link(Box<LinkConn>),
}

/// Whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Conn(ConnId),
    Exchange(ExchangeId),
    Session(SessionKey),
    Process(u64),
    Union(UnionKey),
    Link(LinkName),
    Drain,
}

/// What a question was asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Resolve(ServerId, EndpointId, Instant),
    Start(ProcessId),
    Locate(ProcessId),
    Uplink(ServerId),
}

impl Shard {
    /// A shard without connections.
    pub fn new(settings: Arc<Settings>, identity: Identity, _now: Instant) -> Self {
        let pools = settings.catalog.iter().map(|(_, server)| Pool::new(server)).collect();
        Self {
            identity,
            random: ChaCha12Rng::from_seed(identity.seed),
            conns: Table::new(limits::CONNS_MAX),
            exchanges: Table::new(limits::EXCHANGES_MAX),
            sessions: Table::new(limits::SESSIONS_MAX + limits::MEMBER_SESSIONS_MAX),
            session_keys: HashMap::default(),
            processes: HashMap::default(),
            unions: Table::new(limits::SESSIONS_MAX + limits::CALLERS_MAX),
            callers: HashMap::default(),
            stirred: Vec::new(),
            tunnels: HashMap::default(),
            streams: Streams::default(),
            holders: Holders::default(),
            links: BTreeMap::new(),
            lost_links: BTreeSet::new(),
            lost_len: 0,
            dirty_links: Vec::new(),
            client_branches: 0,
            pools,
            questions: HashMap::default(),
            next_ticket: 0,
            next_process: 0,
            timers: Timers::new(),
            armed: None,
            actions: VecDeque::new(),
            dirty: Vec::new(),
            ready: VecDeque::new(),
            current: None,
            counters: Counters::default(),
            log: Vec::new(),
            guesses: RateLimit::new(GUESSES.share(identity.shards)),
            deflater: Deflater::shared(websocket::WINDOW_BITS, limits::COMPRESS_LEN_MIN),
            draining: None,
            rest: Rest::default(),
            settings,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Tells the shard what happened. Drain [`Self::poll`] to `None` before the next call.
    ///
    /// A panic while it is handled is our bug; it costs the connection that was worked for, and
    /// is counted and logged.
    pub fn handle(&mut self, event: Event<'_>, now: Instant) {
        debug_assert!(self.actions.is_empty(), "the driver did not drain");
        self.guarded(|shard| shard.dispatch(event, now), now);
        self.handle_rest(now);
        self.guarded(|shard| shard.links_flush(now), now);
        self.guarded(|shard| shard.drain_step(now), now);
        self.handle_rest(now);
        self.guarded(|shard| shard.links_flush(now), now);
        self.flush();
        self.arm();
        self.check();
    }

    /// What became possible by what happened.
    fn handle_rest(&mut self, now: Instant) {
        loop {
            if let Some(conn) = self.ready.pop_front() {
                self.guarded(|shard| shard.client_continue(conn, now), now);
            } else if let Some(union) = self.stirred.pop() {
                self.guarded(|shard| shard.union_continues(union, now), now);
            } else {
                return;
            }
        }
    }

    /// The next thing to do, or `None` when there is nothing until the next event.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The unsent bytes of a connection, unless it is closed.
    pub fn output(&mut self, conn: ConnId) -> Option<&mut Output> {
        self.conns.get_mut(conn).map(|conn| &mut conn.output)
    }

    /// The log lines since the last call.
    pub fn take_log(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.log)
    }

    /// The numbers so far.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Client connections now.
    pub fn clients(&self) -> u64 {
        self.counters.clients
    }

    /// How full the tables are, for tests: without clients, they are empty after a while.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 8] {
        // A view has no connections that could be waited for.
        let views = self.settings.catalog.iter().zip(&self.pools);
        let views = views.filter(|((id, _), _)| self.is_view(*id));
        [
            (
                "table: waiting",
                views
                    .map(|(_, pool)| pool.sites.iter().map(http::Site::waiting).sum::<usize>())
                    .sum(),
            ),
            ("table: unions", self.unions.len()),
            ("table: callers", self.callers.len()),
            ("table: sessions", self.sessions.len()),
            ("table: exchanges", self.exchanges.len()),
            ("table: tunnels", self.tunnels.len()),
            ("table: streams", self.streams.len()),
            ("table: questions", self.questions.len()),
        ]
    }

    /// How many requests that are over views still know of, for tests.
    #[cfg(test)]
    pub(crate) fn stale(&self) -> usize {
        let known = |union: &Union| {
            let waiting = union.waiting.iter().map(|it| it.exchange);
            let tries = union.tries.iter().map(|it| it.exchange);
            let subscriptions = union.subscriptions.iter().map(|it| it.exchange);
            let errands = union.errands.iter().map(|(key, ..)| *key);
            waiting.chain(tries).chain(subscriptions).chain(errands).collect::<Vec<_>>()
        };
        let all = self.unions.values().flat_map(known);
        all.filter(|key| self.exchanges.get(*key).is_none()).count()
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self), now: Instant) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_ok() {
            self.current = None;
            return;
        }
        self.counters.panics += 1;
        let current = self.current.take();
        self.report_fault(now);
        // Giving up the connection is little work; if even that fails, its slot stays unused.
        let give_up = AssertUnwindSafe(|| current.map(|conn| self.give_up(conn, now)));
        if catch_unwind(give_up).is_err() {
            self.counters.panics += 1;
        }
    }

    fn dispatch(&mut self, event: Event<'_>, now: Instant) {
        match event {
            Event::Accepted { socket, peer } => self.client_accepted(socket, peer, now),
            Event::Adopted { socket, peer, bytes, moves } => {
                self.client_adopted(socket, peer, (bytes, moves), now);
            }
            Event::Connected { conn } => match self.conns.get(conn).map(|entry| &entry.role) {
                Some(Role::Process(process)) => self.remote_ws_connected(*process),
                Some(Role::Link(_)) => self.uplink_connected(conn),
                _ => self.server_connected(conn, now),
            },
            Event::Received { conn, bytes } => self.received(conn, bytes, now),
            Event::Ended { conn } => {
                self.current = Some(conn);
                match self.channel_mut(conn) {
                    Some(_) => self.channel_ended(conn, now),
                    // Who speaks HTTP and closes one direction is taken to close both.
                    None => self.lost(conn, now),
                }
            }
            Event::Broken { conn } => {
                self.current = Some(conn);
                self.lost(conn, now);
            }
            Event::Sent { conn } => self.sent(conn, now),
            Event::Woke => self.woke(now),
            Event::Mail { from, letter } => self.mail(from, letter, now),
            Event::Answered { ticket, answer } => self.answered(ticket, answer, now),
            Event::Exited { process, how } => self.process_exited(process, &how, now),
            Event::Drain { deadline } => self.drain(deadline, now),
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8], now: Instant) {
        self.current = Some(conn);
        match self.conns.get(conn).map(|conn| &conn.role) {
            Some(Role::Client(_)) => self.client_received(conn, bytes, now),
            Some(Role::Channel(_)) => self.channel_received(conn, bytes, now),
            Some(Role::Server(_)) => self.server_received(conn, bytes, now),
            Some(Role::Process(process)) => self.process_received(*process, bytes, now),
            Some(Role::Link(_)) => self.link_received(conn, bytes, now),
            None => {}
        }
    }

    /// The connection is gone.
    fn lost(&mut self, conn: ConnId, now: Instant) {
        match self.conns.get(conn).map(|conn| &conn.role) {
            Some(Role::Client(_)) => self.client_lost(conn, "client closed", now),
            Some(Role::Channel(_)) => self.channel_lost(conn, "client closed", now),
            Some(Role::Server(_)) => self.server_lost(conn, now),
            Some(Role::Process(process)) => self.process_lost(*process, now),
            Some(Role::Link(_)) => self.link_conn_lost(conn, "peer closed", now),
            None => {}
        }
    }

    /// A fault of ours on this connection: nothing of it can be trusted any more.
    fn give_up(&mut self, conn: ConnId, now: Instant) {
        if self.conns.get(conn).is_some_and(|entry| entry.branch.is_some()) {
            return self.branch_gives_up(conn, now);
        }
        match self.conns.get(conn).map(|conn| &conn.role) {
            Some(Role::Client(_)) => self.client_lost(conn, "fault", now),
            Some(Role::Channel(_)) => self.channel_lost(conn, "fault", now),
            Some(Role::Server(_)) => self.server_lost(conn, now),
            Some(Role::Process(process)) => self.process_lost(*process, now),
            Some(Role::Link(link)) => match link.name.filter(|_| link.is_up) {
                Some(name) => self.link_over(name, "fault", now),
                None => self.link_conn_lost(conn, "fault", now),
            },
            None => {}
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        match (self.questions.remove(&ticket), answer) {
            (Some(Asked::Resolve(server, endpoint, began)), Answer::Resolved(addrs)) => {
                self.site_resolved((server, endpoint, began), Some(addrs), now);
            }
            (Some(Asked::Resolve(server, endpoint, began)), _) => {
                self.site_resolved((server, endpoint, began), None, now);
            }
            (Some(Asked::Locate(process)), Answer::Resolved(addrs)) => {
                self.remote_ws_located(process, Some(addrs), now);
            }
            (Some(Asked::Locate(process)), _) => self.remote_ws_located(process, None, now),
            (Some(Asked::Uplink(server)), Answer::Resolved(addrs)) => {
                self.uplink_located(server, Some(addrs), now);
            }
            (Some(Asked::Uplink(server)), _) => self.uplink_located(server, None, now),
            (Some(Asked::Start(process)), Answer::Started { socket }) => {
                self.process_started(process, socket, now);
            }
            (Some(Asked::Start(process)), Answer::Failed(reason)) => {
                self.process_failed(process, &reason, now);
            }
            (Some(Asked::Start(process)), Answer::Full(reason)) => {
                self.process_refused(process, &reason, now);
            }
            (Some(Asked::Start(process)), Answer::Resolved(_)) => {
                self.process_failed(process, "the answer was not for this question", now);
            }
            (None, Answer::Started { socket }) => {
                self.actions.push_back(Action::Discard { socket });
            }
            (None, _) => {}
        }
    }

    fn sent(&mut self, conn: ConnId, now: Instant) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let len = entry.output.len();
        entry.stalled_since = (len != 0).then_some(now);
        if len <= limits::OUTPUT_LOW && std::mem::take(&mut entry.holds_producer) {
            self.release_producer(conn, now);
        }
        if let Some(entry) = self.conns.get(conn)
            && let Role::Client(client) = &entry.role
            && len <= limits::OUTPUT_LOW
            && entry.is_paused
            && client.busy == Busy::No
        {
            // It has read its answers: its next request is due.
            self.ready.push_back(conn);
        }
        self.near_sent(conn);
        self.socket_sent(conn, now);
        self.remote_ws_sent(conn, now);
        self.link_sent(conn, now);
    }

    /// Adds a connection to the table, if there is room.
    fn open(&mut self, role: Role) -> Option<ConnId> {
        let conn = Conn {
            output: Output::default(),
            role,
            branch: None,
            is_paused: false,
            is_dirty: false,
            stalled_since: None,
            holds_producer: false,
            wish: Wish::default(),
            sent: 0,
        };
        self.conns.insert(conn).ok()
    }

    /// Appends to a connection's output.
    fn write(&mut self, conn: ConnId, write: impl FnOnce(&mut Output)) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let before = entry.output.len();
        if before == 0 {
            // Everything before was sent, perhaps without a word of the driver.
            entry.stalled_since = None;
        }
        write(&mut entry.output);
        let added = entry.output.len().saturating_sub(before) as u64;
        entry.sent += added;
        if is_client(entry) {
            self.counters.sent_bytes += added;
        }
        if !entry.is_dirty && added != 0 {
            entry.is_dirty = true;
            self.dirty.push(conn);
        }
    }

    fn pause(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if !std::mem::replace(&mut entry.is_paused, true) && has_socket(entry) {
            self.actions.push_back(Action::Pause { conn });
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if std::mem::replace(&mut entry.is_paused, false) && has_socket(entry) {
            self.actions.push_back(Action::Resume { conn });
        }
        self.branch_pays(conn);
    }

    /// Tells the driver of new output, and starts the clock of peers that do not take it.
    fn flush(&mut self) {
        for conn in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.conns.get_mut(conn) else { continue };
            entry.is_dirty = false;
            if is_tunnel(entry) {
                self.flush_tunnel(conn);
                continue;
            }
            let is_waiting = matches!(&entry.role, Role::Server(server) if !server.is_connected);
            if !is_waiting {
                self.actions.push_back(Action::Send { conn });
            }
        }
    }

    fn arm(&mut self) {
        let next = self.timers.next();
        if let Some(deadline) = next
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.armed = next;
            self.actions.push_back(Action::Arm { deadline });
        }
    }

    /// Every invariant that spans fields. Runs after every event outside release builds.
    fn check(&self) {
        debug_assert_eq!(self.sessions.len(), self.session_keys.len());
        debug_assert!(self.streams.len() <= self.conns.len());
        debug_assert!(self.holders.len() <= self.conns.len() + self.sessions.len());
        debug_assert!(self.client_branches <= limits::LINK_BRANCHES_MAX.min(self.conns.len()));
        debug_assert!(self.lost_links.len() <= self.links.len());
        debug_assert!(self.ready.is_empty() && self.stirred.is_empty());
        debug_assert!(self.dirty.is_empty() && self.dirty_links.is_empty());
    }

    fn client_mut(&mut self, conn: ConnId) -> Option<&mut Client> {
        match &mut self.conns.get_mut(conn)?.role {
            Role::Client(client) => Some(client),
            Role::Channel(_) | Role::Server(_) | Role::Process(_) | Role::Link(_) => None,
        }
    }

    fn channel_mut(&mut self, conn: ConnId) -> Option<&mut Channel> {
        match &mut self.conns.get_mut(conn)?.role {
            Role::Channel(channel) => Some(channel),
            Role::Client(_) | Role::Server(_) | Role::Process(_) | Role::Link(_) => None,
        }
    }

    fn server_mut(&mut self, conn: ConnId) -> Option<&mut ServerConn> {
        match &mut self.conns.get_mut(conn)?.role {
            Role::Server(server) => Some(server),
            Role::Client(_) | Role::Channel(_) | Role::Process(_) | Role::Link(_) => None,
        }
    }
}

/// Whether the driver has a socket for it.
fn has_socket(conn: &Conn) -> bool {
    conn.branch.is_none() && !is_tunnel(conn)
}

/// Whether its bytes come from and go to a client.
fn is_client(conn: &Conn) -> bool {
    match &conn.role {
        Role::Client(_) | Role::Channel(_) => true,
        Role::Link(link) => link.peer.is_some(),
        Role::Server(_) | Role::Process(_) => false,
    }
}

fn is_tunnel(conn: &Conn) -> bool {
    matches!(&conn.role, Role::Client(client) if client.near.is_some())
}
