//! Mailboxes: how threads hand things to a shard. One bounded queue per shard, many senders.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;

use crate::ids::{Peer, ProcessId, ShardId, Ticket};
use crate::limits;
use crate::shard::event::Letter;
use crate::telemetry::counters::Counters;

/// Something for a shard's driver, from another thread.
#[derive(Debug)]
pub enum Parcel {
    /// A connection that another shard accepted and gives away, because it has more.
    Accepted {
        /// The socket.
        fd: OwnedFd,
        /// Where the client comes from.
        peer: Peer,
    },
    /// A connection that belongs here.
    Adopted {
        /// The socket.
        fd: OwnedFd,
        /// Where the client comes from.
        peer: Peer,
        /// Bytes received and not used.
        bytes: Vec<u8>,
        /// How often it has moved.
        moves: u8,
    },
    /// A letter of another shard.
    Letter {
        /// Who wrote it.
        from: ShardId,
        /// What it says.
        letter: Letter,
    },
    /// The control thread's answer to a question.
    Answered {
        /// Which question.
        ticket: Ticket,
        /// What it said.
        reply: Reply,
    },
    /// A child process ended.
    Exited {
        /// Which.
        process: ProcessId,
        /// How, in words.
        how: String,
    },
    /// Somebody wants the counters.
    Report {
        /// Where to send them.
        reply: tokio::sync::oneshot::Sender<Counters>,
    },
    /// Stop by then.
    Drain {
        /// When everything must be closed.
        deadline: Instant,
    },
    /// All shards rest, and nothing is on its way between them: the thread may end.
    End,
}

/// The control thread's answer: `shard::event::Answer` before its descriptor became a socket.
#[derive(Debug)]
pub enum Reply {
    /// Addresses, at least one.
    Resolved(Vec<SocketAddr>),
    /// A process runs; this is our end of its standard input and output.
    Started(OwnedFd),
    /// Why it could not be done.
    Failed(String),
    /// Which bound stands against it, for now.
    Full(String),
}

/// One shard's mailbox.
#[derive(Debug)]
struct Mailbox {
    queue: ArrayQueue<Parcel>,
    waker: AtomicWaker,
    /// Client connections of the shard; written by it, read by those who accept.
    clients: AtomicU32,
}

/// All mailboxes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh {
    boxes: Arc<[Mailbox]>,
    /// Shards that have work, and parcels on their way from shard to shard. A shard that rests
    /// begins to work only because of a parcel, and counts as working before that is counted as
    /// delivered: once this is zero it stays zero.
    busy: Arc<AtomicUsize>,
}

impl Mesh {
    /// Mailboxes for this many shards.
    pub fn new(shards: u16) -> Self {
        let mailbox = |_| Mailbox {
            queue: ArrayQueue::new(limits::MAILBOX_LEN),
            waker: AtomicWaker::new(),
            clients: AtomicU32::new(0),
        };
        let busy = Arc::new(AtomicUsize::new(usize::from(shards)));
        Self { boxes: (0..shards).map(mailbox).collect(), busy }
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        u16::try_from(self.boxes.len()).unwrap_or(u16::MAX)
    }

    /// Puts a parcel into a mailbox, or gives it back if that is full.
    pub fn post(&self, to: ShardId, parcel: Parcel) -> Result<(), Parcel> {
        let Some(mailbox) = self.boxes.get(usize::from(to.0)) else { return Err(parcel) };
        mailbox.queue.push(parcel)?;
        mailbox.waker.wake();
        Ok(())
    }

    /// Something begins that has to end before the threads may: the work of a shard that rested,
    /// or the way of a parcel from shard to shard.
    pub fn begin(&self) {
        self.busy.fetch_add(1, Ordering::AcqRel);
    }

    /// It has ended. The last one tells all threads to end.
    pub fn finish(&self) {
        if self.busy.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        for shard in (0..self.shards()).map(ShardId) {
            // No shard writes any more; a mailbox that the control thread has filled is emptied
            // by a shard that ends at its deadline instead.
            drop(self.post(shard, Parcel::End));
        }
    }

    /// Takes the oldest parcel; when there is none, the task is woken by the next.
    pub fn poll_take(&self, owner: ShardId, cx: &Context<'_>) -> Poll<Parcel> {
        let Some(mailbox) = self.boxes.get(usize::from(owner.0)) else { return Poll::Pending };
        if let Some(parcel) = mailbox.queue.pop() {
            return Poll::Ready(parcel);
        }
        mailbox.waker.register(cx.waker());
        // A parcel may have come between the look and the registration.
        mailbox.queue.pop().map_or(Poll::Pending, Poll::Ready)
    }

    /// Says how many clients a shard has.
    pub fn set_clients(&self, owner: ShardId, count: u32) {
        if let Some(mailbox) = self.boxes.get(usize::from(owner.0)) {
            mailbox.clients.store(count, Ordering::Relaxed);
        }
    }

    /// The shard with the fewest clients, and their number.
    pub fn least_loaded(&self) -> (ShardId, u32) {
        let counts = (0..).map(ShardId).zip(self.boxes.iter());
        let counts = counts.map(|(id, mailbox)| (id, mailbox.clients.load(Ordering::Relaxed)));
        counts.min_by_key(|(_, count)| *count).unwrap_or((ShardId(0), 0))
    }
}
