//! Accepting clients, and giving them to the shard that has the fewest.
//!
//! The kernel spreads connections over the listeners of one port by hash; with few connections
//! that can be 20 to 80.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;

use socket2::SockRef;

use crate::driver::ACCEPT_BACKOFF;
use crate::driver::conn::{Kind, Parked};
use crate::driver::drive::{Drive, add};
use crate::driver::socket::Stream;
use crate::driver::wait::Bell;
use crate::ids::{EntranceId, Peer, ShardId};
use crate::mesh::Parcel;
use crate::shard::event::Event;

/// Connections accepted before the others have their turn.
const BURST_MAX: usize = 64;

/// How many more clients than the least loaded shard a shard may have before it gives new ones
/// away: that costs 20 µs.
const LEAD_MAX: u32 = 8;

/// A socket that clients connect to.
pub(super) struct Listener {
    entrance: EntranceId,
    stream: Stream,
    pub(super) bell: Bell,
    /// Closed when there are no descriptors left, so that a connection can be accepted in order
    /// to be closed: left alone, it would keep the listener readable for ever.
    spare: RefCell<Option<File>>,
    /// Whom this listener last gave clients to, how many that shard had according to itself, and
    /// how many it was given since it said so.
    given: Cell<(ShardId, u32, u32)>,
}

impl Listener {
    pub(super) fn new((entrance, listener): (EntranceId, OwnedFd)) -> io::Result<Self> {
        SockRef::from(&listener).set_nonblocking(true)?;
        Ok(Self {
            entrance,
            stream: Stream::new(listener)?,
            bell: Bell::default(),
            spare: RefCell::new(File::open("/dev/null").ok()),
            given: Cell::new((ShardId(0), 0, 0)),
        })
    }

    /// Makes room for one descriptor, and uses it to get rid of one connection.
    fn turn_away(&self, drive: &Drive) {
        self.spare.take();
        if self.stream.accept().is_ok() {
            add(&drive.tally.refused, 1);
        }
        self.spare.replace(File::open("/dev/null").ok());
    }

    /// The shard that should have the next client instead of this one.
    fn better_place(&self, drive: &Drive) -> Option<ShardId> {
        let (id, said) = drive.mesh.least_loaded();
        let (given_to, said_then, given) = self.given.get();
        let given = if (id, said) == (given_to, said_then) { given } else { 0 };
        let better = id != drive.id && drive.clients() > said.saturating_add(given + LEAD_MAX);
        better.then(|| {
            self.given.set((id, said, given + 1));
            id
        })
    }
}

/// Accepts until the gateway is told to stop.
pub(super) async fn accept(drive: Rc<Drive>, listener: Rc<Listener>) {
    // Draining takes the listener out of the list.
    while drive.listeners.borrow().iter().any(|other| Rc::ptr_eq(other, &listener)) {
        let accepted = match listener.bell.until(pin!(listener.stream.readable())).await {
            None => continue,
            Some(Ok(())) => accept_some(&drive, &listener),
            Some(Err(error)) => Err(error),
        };
        match accepted {
            Ok(true) => drive.breathe().await,
            Ok(false) => {}
            Err(_) => monoio::time::sleep(ACCEPT_BACKOFF).await,
        }
    }
}

/// Accepts what is in the queue; true if there may be more, an error if it must wait.
pub(super) fn accept_some(drive: &Rc<Drive>, listener: &Listener) -> io::Result<bool> {
    for _ in 0..BURST_MAX {
        match listener.stream.accept() {
            Ok((fd, address)) => {
                place(drive, listener, fd, Peer { address, entrance: listener.entrance });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    listener.turn_away(drive);
                    return Err(error);
                }
                Some(libc::ENOBUFS | libc::ENOMEM) => return Err(error),
                // The client has given up already, or its packets have: accept(2), "Error
                // handling".
                _ => {}
            },
        }
    }
    Ok(true)
}

fn place(drive: &Rc<Drive>, listener: &Listener, fd: OwnedFd, peer: Peer) {
    // While draining, another shard may have ended already.
    let better = listener.better_place(drive).filter(|_| drive.drained_by.get().is_none());
    let fd = match better {
        None => fd,
        Some(other) => {
            drive.mesh.begin();
            match drive.mesh.post(other, Parcel::Accepted { fd, peer }) {
                Ok(()) => return,
                Err(parcel) => {
                    drive.mesh.finish();
                    let Parcel::Accepted { fd, .. } = parcel else { return };
                    fd
                }
            }
        }
    };
    take_in(drive, fd, peer);
}

/// A new client of this shard.
pub(super) fn take_in(drive: &Rc<Drive>, fd: OwnedFd, peer: Peer) {
    let socket = drive.table.borrow_mut().park(Parked { fd, kind: Kind::Client });
    drive.feed(Event::Accepted { socket, peer });
    drive.close_parked(socket);
}

/// Accepts what clients have been promised already, then closes the listeners.
pub(super) fn stop_accepting(drive: &Rc<Drive>) {
    for listener in drive.listeners.take() {
        while let Ok(true) = accept_some(drive, &listener) {}
        listener.bell.ring();
    }
}
