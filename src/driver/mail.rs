//! Parcels in and out, and what waits because its receiver is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;

use socket2::SockRef;

use crate::driver::conn::{Entry, Kind, Parked};
use crate::driver::drive::Drive;
use crate::driver::request::{ControlSender, Request, Unsent};
use crate::driver::wait::Bell;
use crate::driver::{OUTBOX_HIGH, OUTBOX_LOW, RETRY_INTERVAL, accept};
use crate::ids::ShardId;
use crate::mesh::{Parcel, Reply};
use crate::shard::event::{Answer, Event};

/// Parcels taken before the others have their turn.
const BATCH_MAX: usize = 256;

/// What could not be delivered yet, in order.
pub(super) struct Outbox {
    parcels: RefCell<Vec<VecDeque<Parcel>>>,
    stops: RefCell<VecDeque<Request>>,
    count: Cell<usize>,
    congested: Cell<bool>,
    /// There is something to deliver.
    pub(super) bell: Bell,
    /// For the task that takes mail in.
    pub(super) inbox: Bell,
}

impl Outbox {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            parcels: RefCell::new((0..shards).map(|_| VecDeque::new()).collect()),
            stops: RefCell::default(),
            count: Cell::new(0),
            congested: Cell::new(false),
            bell: Bell::default(),
            inbox: Bell::default(),
        }
    }

    /// Whether so much waits that clients must not cause more.
    pub(super) fn is_congested(&self) -> bool {
        self.congested.get()
    }

    /// Passes on a request that must not be lost.
    pub(super) fn stop(&self, control: &ControlSender, request: Request) {
        if let Err(Unsent::Full(request)) = control.post(request) {
            self.stops.borrow_mut().push_back(request);
            self.bell.ring();
        }
    }
}

impl Drive {
    /// Delivers a parcel, now or as soon as the receiver has room.
    pub(super) fn post(&self, to: ShardId, parcel: Parcel) {
        // It is on its way until the receiver has dealt with it: see `open_parcel`.
        self.mesh.begin();
        let mut parcels = self.outbox.parcels.borrow_mut();
        let Some(queue) = parcels.get_mut(usize::from(to.0)) else {
            debug_assert!(false, "no such shard");
            return;
        };
        if queue.is_empty() {
            match self.mesh.post(to, parcel) {
                Ok(()) => return,
                Err(parcel) => queue.push_back(parcel),
            }
        } else {
            queue.push_back(parcel);
        }
        let count = self.outbox.count.get() + 1;
        self.outbox.count.set(count);
        if count > OUTBOX_HIGH {
            self.outbox.congested.set(true);
        }
        self.outbox.bell.ring();
    }

    /// Delivers late what could not be delivered at once.
    pub(super) async fn deliver_late(self: Rc<Self>) {
        while !self.over.get() {
            let waiting = self.outbox.count.get() > 0 || !self.outbox.stops.borrow().is_empty();
            if waiting {
                monoio::time::sleep(RETRY_INTERVAL).await;
                self.try_again();
            } else {
                self.outbox.bell.wait().await;
            }
        }
    }

    fn try_again(&self) {
        for (to, queue) in (0..).map(ShardId).zip(self.outbox.parcels.borrow_mut().iter_mut()) {
            while let Some(parcel) = queue.pop_front() {
                if let Err(parcel) = self.mesh.post(to, parcel) {
                    queue.push_front(parcel);
                    break;
                }
                self.outbox.count.set(self.outbox.count.get() - 1);
            }
        }
        let mut stops = self.outbox.stops.borrow_mut();
        while let Some(request) = stops.pop_front() {
            if let Err(Unsent::Full(request)) = self.control.post(request) {
                stops.push_front(request);
                break;
            }
        }
        if self.outbox.count.get() < OUTBOX_LOW && self.outbox.congested.replace(false) {
            for entry in self.table.borrow().iter() {
                if let Entry::Open(conn) = entry
                    && conn.resting.get()
                {
                    conn.reader.ring();
                }
            }
        }
    }

    /// Takes parcels out of this shard's mailbox.
    pub(super) async fn take_mail(self: Rc<Self>) {
        let mut batch = 0;
        while !self.over.get() {
            let take = poll_fn(|cx| self.mesh.poll_take(self.id, cx));
            let Some(parcel) = self.outbox.inbox.until(pin!(take)).await else { continue };
            self.open_parcel(parcel);
            batch += 1;
            if batch >= BATCH_MAX {
                batch = 0;
                self.breathe().await;
            }
        }
    }

    fn open_parcel(self: &Rc<Self>, parcel: Parcel) {
        match parcel {
            Parcel::Accepted { fd, peer } => {
                accept::take_in(self, fd, peer);
                self.mesh.finish();
            }
            Parcel::Adopted { fd, peer, bytes, moves } => {
                let socket = self.table.borrow_mut().park(Parked { fd, kind: Kind::Client });
                self.feed(Event::Adopted { socket, peer, bytes, moves });
                self.close_parked(socket);
                self.mesh.finish();
            }
            Parcel::Letter { from, letter } => {
                self.feed(Event::Mail { from, letter });
                self.mesh.finish();
            }
            Parcel::End => self.quit(),
            Parcel::Answered { ticket, reply } => {
                let answer = match reply {
                    Reply::Resolved(addrs) => Answer::Resolved(addrs),
                    Reply::Started(fd) => self.started(fd),
                    Reply::Failed(why) => Answer::Failed(why),
                    Reply::Full(why) => Answer::Full(why),
                };
                self.feed(Event::Answered { ticket, answer });
            }
            Parcel::Exited { process, how } => self.feed(Event::Exited { process, how }),
            // Whoever asked may have stopped waiting.
            Parcel::Report { reply } => drop(reply.send(self.counters())),
            Parcel::Drain { deadline } => {
                self.drained_by.set(Some(deadline));
                accept::stop_accepting(self);
                self.feed(Event::Drain { deadline });
            }
        }
    }

    fn started(&self, fd: OwnedFd) -> Answer {
        if let Err(error) = SockRef::from(&fd).set_nonblocking(true) {
            return Answer::Failed(format!("its socket is unusable: {error}"));
        }
        Answer::Started { socket: self.table.borrow_mut().park(Parked { fd, kind: Kind::Server }) }
    }
}
