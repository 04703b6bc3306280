//! The loop that joins a shard to its sockets: events in, actions carried out, once per turn what
//! was queued is sent.
//!
//! A turn is what the runtime does between two waits for the kernel. Tasks tell the shard what
//! happened as it happens; the flusher, woken by the first event of a turn, stands behind all of
//! them in the runtime's queue. So all messages to one connection leave in one call, the clock is
//! read once, and log lines are handed over in one piece.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::driver::accept::Listener;
use crate::driver::conn::{Conn, Dial, Entry, Kind, Parked, Table};
use crate::driver::mail::Outbox;
use crate::driver::request::{ControlSender, Request, Unsent};
use crate::driver::socket::{Sent, Stream};
use crate::driver::wait::Bell;
use crate::driver::{Engine, Job, dial, linger, receive, transmit};
use crate::ids::{ConnId, ProcessId, ShardId, Socket, Ticket};
use crate::limits;
use crate::mesh::{Mesh, Parcel};
use crate::output::Output;
use crate::shard::Shard;
use crate::shard::event::{Action, Answer, Event};
use crate::telemetry::counters::Counters;

/// Something the driver itself has to say to the shard, once it listens again.
#[derive(Debug)]
enum Later {
    /// An open connection failed.
    Broken(ConnId),
    /// A name never got a connection.
    Unopened(ConnId),
    Failed(Ticket, &'static str),
}

/// What the driver counts by itself.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) refused: Cell<u64>,
    pub(super) log_dropped: Cell<u64>,
    pub(super) faults: Cell<u64>,
}

/// A shard and everything around it. One per thread, shared by its tasks; no borrow of a part
/// outlives a call.
pub(super) struct Drive {
    pub(super) id: ShardId,
    pub(super) engine: Engine,
    pub(super) mesh: Mesh,
    pub(super) control: ControlSender,
    shard: RefCell<Shard>,
    pub(super) table: RefCell<Table>,
    /// Where everything is received.
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) listeners: RefCell<Vec<Rc<Listener>>>,
    later: RefCell<VecDeque<Later>>,
    dirty: RefCell<VecDeque<Rc<Conn>>>,
    pub(super) outbox: Outbox,
    pub(super) tally: Tally,
    /// Clients that are connected.
    clients: Cell<u32>,
    /// The time of this turn, once somebody has asked for it.
    now: Cell<Option<Instant>>,
    flusher: Bell,
    /// Tasks that let the others go first.
    yielded: RefCell<Vec<Waker>>,
    /// When the shard wants to be woken.
    pub(super) deadline: Cell<Option<Instant>>,
    /// Until when the timer's task sleeps.
    pub(super) sleeping: Cell<Option<Instant>>,
    pub(super) timer: Bell,
    pub(super) lingering: Cell<usize>,
    /// When a drain ends, if there is one.
    pub(super) drained_by: Cell<Option<Instant>>,
    tasks: Cell<usize>,
    quit: Cell<bool>,
    /// All tasks are to end.
    pub(super) over: Cell<bool>,
    pub(super) main: Bell,
    /// A socket with something to read that nobody reads.
    always_ready: Stream,
}

impl Drive {
    pub(super) fn new(job: Job) -> io::Result<Self> {
        let (always_ready, mut writer) = UnixStream::pair()?;
        always_ready.set_nonblocking(true)?;
        writer.write_all(&[0])?;
        Ok(Self {
            id: job.identity.id,
            engine: job.engine,
            outbox: Outbox::new(job.mesh.shards()),
            mesh: job.mesh,
            control: job.control,
            shard: RefCell::new(Shard::new(job.settings, job.identity, clock())),
            table: RefCell::default(),
            buffer: RefCell::new(vec![0; limits::RECV_LEN].into_boxed_slice()),
            listeners: RefCell::default(),
            later: RefCell::default(),
            dirty: RefCell::default(),
            tally: Tally::default(),
            clients: Cell::new(0),
            now: Cell::new(None),
            flusher: Bell::default(),
            yielded: RefCell::default(),
            deadline: Cell::new(None),
            sleeping: Cell::new(None),
            timer: Bell::default(),
            lingering: Cell::new(0),
            drained_by: Cell::new(None),
            tasks: Cell::new(0),
            quit: Cell::new(false),
            over: Cell::new(false),
            main: Bell::default(),
            always_ready: Stream::new(always_ready.into())?,
        })
    }

    /// Tells the shard what happened and does what it wants. Not to be called by an action.
    pub(super) fn feed(self: &Rc<Self>, event: Event<'_>) {
        let now = self.now();
        self.shard.borrow_mut().handle(event, now);
        self.obey();
        self.settle();
    }

    /// Tells the shard what the driver itself found out. Not to be called by an action.
    pub(super) fn settle(self: &Rc<Self>) {
        loop {
            let Some(later) = self.later.borrow_mut().pop_front() else { return };
            let event = match later {
                Later::Broken(conn) if self.table.borrow().open(conn).is_none() => continue,
                Later::Broken(conn) | Later::Unopened(conn) => Event::Broken { conn },
                Later::Failed(ticket, why) => {
                    Event::Answered { ticket, answer: Answer::Failed(why.to_owned()) }
                }
            };
            let now = self.now();
            self.shard.borrow_mut().handle(event, now);
            self.obey();
        }
    }

    fn obey(self: &Rc<Self>) {
        loop {
            let Some(action) = self.shard.borrow_mut().poll() else { return };
            self.carry_out(action);
        }
    }

    fn carry_out(self: &Rc<Self>, action: Action) {
        match action {
            Action::Send { conn } => {
                if let Some(conn) = self.table.borrow().open(conn) {
                    self.mark(conn);
                }
            }
            Action::Receive { conn, socket } => {
                let parked = self.table.borrow_mut().unpark(socket);
                match parked {
                    Some(parked) => self.install(conn, parked),
                    None => self.break_unopened(conn),
                }
            }
            Action::Discard { socket } => self.close_parked(socket),
            Action::Dial { conn, addrs } => self.begin_dial(conn, addrs),
            Action::Pause { conn } => {
                if let Some(conn) = self.table.borrow().open(conn) {
                    conn.paused.set(true);
                }
            }
            Action::Resume { conn } => {
                if let Some(conn) = self.table.borrow().open(conn) {
                    conn.paused.set(false);
                    if conn.resting.get() {
                        conn.reader.ring();
                    }
                }
            }
            Action::Close { conn, rest } => self.close(conn, rest),
            Action::Move { conn, to, peer, bytes, moves } => {
                if let Some(fd) = self.take_away(conn) {
                    self.post(to, Parcel::Adopted { fd, peer, bytes, moves });
                }
            }
            Action::Arm { deadline } => {
                self.deadline.set(Some(deadline));
                if self.sleeping.get().is_none_or(|until| deadline < until) {
                    self.timer.ring();
                }
            }
            Action::Mail { to, letter } => {
                self.post(to, Parcel::Letter { from: self.id, letter });
            }
            Action::Ask { ticket, question } => {
                let request = Request::Ask { shard: self.id, ticket, question };
                let why = match self.control.post(request) {
                    Ok(()) => return,
                    Err(Unsent::Full(_)) => "the control thread is overloaded",
                    Err(Unsent::Closed(_)) => "the control thread has ended",
                };
                self.later.borrow_mut().push_back(Later::Failed(ticket, why));
            }
            Action::Stop { process, grace } => self.stop(process, grace),
            Action::Rest => self.mesh.finish(),
            Action::Rouse => self.mesh.begin(),
            Action::Quit => self.quit(),
        }
    }

    /// The thread is to end.
    pub(super) fn quit(&self) {
        self.quit.set(true);
        self.main.ring();
    }

    fn stop(&self, process: ProcessId, grace: Duration) {
        self.outbox.stop(&self.control, Request::Stop { shard: self.id, process, grace });
    }

    /// Closes a client's socket that the shard did not decide about, which only a fault explains.
    pub(super) fn close_parked(&self, socket: Socket) {
        drop(self.table.borrow_mut().unpark(socket));
    }

    fn install(self: &Rc<Self>, id: ConnId, parked: Parked) {
        let kind = parked.kind;
        match Stream::new(parked.fd) {
            Ok(stream) => self.open(Conn::new(id, kind, stream)),
            Err(_) => self.break_unopened(id),
        }
    }

    /// Puts a connection into the table and receives from it.
    pub(super) fn open(self: &Rc<Self>, conn: Conn) {
        let conn = Rc::new(conn);
        if !self.table.borrow_mut().insert(conn.id, Entry::Open(Rc::clone(&conn))) {
            self.break_unopened(conn.id);
            return;
        }
        if conn.kind == Kind::Client {
            self.count_clients(self.clients.get() + 1);
        }
        let task = receive::receive(Rc::clone(self), Rc::clone(&conn));
        self.spawn_for(&conn, task);
    }

    fn begin_dial(self: &Rc<Self>, id: ConnId, addrs: Vec<SocketAddr>) {
        let dial = Rc::new(Dial { id, gone: Cell::new(false), bell: Bell::default() });
        if self.table.borrow_mut().insert(id, Entry::Dialling(Rc::clone(&dial))) {
            let attempt = Rc::clone(&dial);
            self.spawn(dial::dial(Rc::clone(self), attempt, addrs), move |drive| {
                if !dial.gone.get() {
                    drop(drive.table.borrow_mut().remove(id));
                    drive.break_unopened(id);
                }
            });
        } else {
            self.break_unopened(id);
        }
    }

    fn close(self: &Rc<Self>, id: ConnId, rest: VecDeque<Bytes>) {
        let entry = self.table.borrow_mut().remove(id);
        match entry {
            Some(dialling @ Entry::Dialling(_)) => dialling.abandon(),
            Some(Entry::Open(conn)) => {
                self.let_go(&conn);
                if !rest.is_empty() && !conn.broken.get() {
                    linger::linger(self, conn, rest);
                }
            }
            None => {}
        }
    }

    /// Takes a connection's socket away from this thread.
    fn take_away(&self, id: ConnId) -> Option<OwnedFd> {
        let entry = self.table.borrow_mut().remove(id);
        let Some(Entry::Open(conn)) = entry else { return None };
        if conn.dirty.get() {
            // What the shard counts as sent may be waiting for the end of the turn.
            drop(self.send(&conn));
        }
        self.let_go(&conn);
        // Its own poll may still hold the descriptor, hence a second one; without one (no
        // descriptors left) the client is dropped.
        conn.stream.duplicate().ok()
    }

    fn let_go(&self, conn: &Conn) {
        conn.gone.set(true);
        conn.dismiss();
        if conn.kind == Kind::Client {
            self.count_clients(self.clients.get().saturating_sub(1));
        }
    }

    pub(super) fn break_unopened(&self, id: ConnId) {
        self.later.borrow_mut().push_back(Later::Unopened(id));
    }

    /// Says that a connection failed; the shard learns it in `settle`.
    pub(super) fn break_off(&self, conn: &Conn) {
        if conn.is_over() {
            return;
        }
        conn.broken.set(true);
        conn.dismiss();
        self.later.borrow_mut().push_back(Later::Broken(conn.id));
    }

    /// Sends from this connection at the end of the turn.
    fn mark(&self, conn: &Rc<Conn>) {
        if conn.is_over() || conn.dirty.replace(true) {
            return;
        }
        self.dirty.borrow_mut().push_back(Rc::clone(conn));
    }

    /// Sends what one connection's output holds.
    pub(super) fn send(&self, conn: &Conn) -> Option<io::Result<Sent>> {
        let mut shard = self.shard.borrow_mut();
        let output: &mut Output = shard.output(conn.id)?;
        conn.crowded.set(output.len() >= limits::OUTPUT_LOW);
        let sent = conn.stream.send(output);
        Some(sent)
    }

    fn flush(self: &Rc<Self>, conn: &Rc<Conn>) {
        conn.dirty.set(false);
        if conn.is_over() || conn.blocked.get() {
            return;
        }
        match self.send(conn) {
            // The shard may have paused somebody because of what gathered in this turn.
            Some(Ok(Sent::All)) if conn.crowded.get() => self.feed(Event::Sent { conn: conn.id }),
            None | Some(Ok(Sent::All)) => {}
            Some(Ok(Sent::Some(_))) => {
                conn.blocked.set(true);
                let task = transmit::transmit(Rc::clone(self), Rc::clone(conn));
                self.spawn_for(conn, task);
            }
            Some(Err(_)) => receive::receive_last(self, conn),
        }
    }

    /// Ends the turn, every turn.
    pub(super) async fn finish_turns(self: Rc<Self>) {
        while !self.over.get() {
            // First the work: this task also begins again after a panic in the middle of it.
            loop {
                let Some(conn) = self.dirty.borrow_mut().pop_front() else { break };
                self.flush(&conn);
            }
            self.hand_over_log();
            self.now.set(None);
            for waker in self.yielded.take() {
                waker.wake();
            }
            self.flusher.wait().await;
        }
    }

    pub(super) fn hand_over_log(&self) {
        let lines = self.shard.borrow_mut().take_log();
        if lines.is_empty() {
            return;
        }
        if let Err(Unsent::Full(Request::Log(lines)) | Unsent::Closed(Request::Log(lines))) =
            self.control.post(Request::Log(lines))
        {
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            add(&self.tally.log_dropped, u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Lets all other tasks, and the kernel, go first.
    pub(super) async fn breathe(&self) {
        match self.engine {
            // Deferred completions are seen only in the runtime's wait: this one is due at once,
            // but only there.
            Engine::Uring => self.always_ready.readable().await.unwrap_or_default(),
            // The runtime looks at epoll by itself when tasks go on for long, but a task that
            // wakes itself would be run first again.
            Engine::Epoll => self.wait_for_flusher().await,
        }
    }

    async fn wait_for_flusher(&self) {
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.yielded.borrow_mut().push(cx.waker().clone());
            self.flusher.ring();
            Poll::Pending
        })
        .await;
    }

    /// Runs a task whose panic costs what `consequence` says and nothing else.
    pub(super) fn spawn(
        self: &Rc<Self>,
        task: impl Future<Output = ()> + 'static,
        consequence: impl FnOnce(&Self) + 'static,
    ) {
        let drive = Rc::clone(self);
        self.tasks.set(self.tasks.get() + 1);
        // Not an async block, which would hold the task twice.
        drop(monoio::spawn(AssertUnwindSafe(task).catch_unwind().map(move |outcome| {
            if outcome.is_err() {
                add(&drive.tally.faults, 1);
                consequence(&drive);
                drive.settle();
            }
            drive.leave();
        })));
    }

    /// Runs a task of one connection.
    fn spawn_for(self: &Rc<Self>, conn: &Rc<Conn>, task: impl Future<Output = ()> + 'static) {
        let conn = Rc::clone(conn);
        self.spawn(task, move |drive| drive.break_off(&conn));
    }

    /// Runs a task that the whole thread needs: after a panic it starts again.
    pub(super) fn spawn_vital<T: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        task: impl Fn(Rc<Self>) -> T + 'static,
    ) {
        let drive = Rc::clone(self);
        self.tasks.set(self.tasks.get() + 1);
        drop(monoio::spawn(async move {
            while AssertUnwindSafe(task(Rc::clone(&drive))).catch_unwind().await.is_err() {
                add(&drive.tally.faults, 1);
                monoio::time::sleep(super::RETRY_INTERVAL).await;
            }
            drive.leave();
        }));
    }

    fn leave(&self) {
        self.tasks.set(self.tasks.get() - 1);
        if self.over.get() && self.tasks.get() == 0 {
            self.main.ring();
        }
    }

    fn count_clients(&self, count: u32) {
        self.clients.set(count);
        self.mesh.set_clients(self.id, count);
    }

    /// Ends every task.
    pub(super) fn end(&self) {
        self.over.set(true);
        for entry in self.table.borrow().iter() {
            entry.abandon();
        }
        for listener in self.listeners.take() {
            listener.bell.ring();
        }
        self.flusher.ring();
        self.timer.ring();
        self.outbox.bell.ring();
        self.outbox.inbox.ring();
    }

    pub(super) fn is_quit(&self) -> bool {
        self.quit.get()
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.get()
    }

    pub(super) fn clients(&self) -> u32 {
        self.clients.get()
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Instant {
        self.now.get().unwrap_or_else(|| self.look_at_clock())
    }

    /// The time now, and for the rest of this turn.
    pub(super) fn look_at_clock(&self) -> Instant {
        let now = clock();
        self.now.set(Some(now));
        self.flusher.ring();
        now
    }

    /// The numbers of the shard and of its driver.
    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.shard.borrow().counters();
        counters.accept_refused += self.tally.refused.get();
        counters.log_dropped += self.tally.log_dropped.get();
        counters.panics += self.tally.faults.get();
        counters
    }
}

/// Counts.
pub(super) fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get().saturating_add(count));
}

/// The one clock of the data path: read once per turn, whatever the turn holds.
fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is where `now` comes from")]
    Instant::now()
}
