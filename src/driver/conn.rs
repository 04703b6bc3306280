//! The connections of one thread, and the sockets that have no name yet.
//!
//! A connection is shared by its tasks and the table; its descriptor is closed when the last of
//! them, and the last poll that the kernel still holds, has let go of it. So a number that the
//! kernel uses again can never be taken for an older connection.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use slab::Slab;

use crate::driver::socket::Stream;
use crate::driver::wait::Bell;
use crate::ids::{ConnId, Socket};
use crate::limits;

/// Whether a socket counts towards the load of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client's.
    Client,
    /// A server's or a child process's.
    Server,
}

/// An established connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) kind: Kind,
    pub(super) stream: Stream,
    /// The shard does not want to receive.
    pub(super) paused: Cell<bool>,
    /// The read task waits to be allowed to receive.
    pub(super) resting: Cell<bool>,
    /// The shard has closed it or given it away.
    pub(super) gone: Cell<bool>,
    /// It failed and the shard knows or will know.
    pub(super) broken: Cell<bool>,
    /// The peer will send no more, and the shard knows.
    pub(super) ended: Cell<bool>,
    /// It stands in the list of those to be flushed.
    pub(super) dirty: Cell<bool>,
    /// So much was to be sent last time that the shard may wait for it to become less.
    pub(super) crowded: Cell<bool>,
    /// A task waits until it can be written.
    pub(super) blocked: Cell<bool>,
    pub(super) reader: Bell,
    pub(super) writer: Bell,
}

impl Conn {
    pub(super) fn new(id: ConnId, kind: Kind, stream: Stream) -> Self {
        Self {
            id,
            kind,
            stream,
            paused: Cell::new(false),
            resting: Cell::new(false),
            gone: Cell::new(false),
            broken: Cell::new(false),
            ended: Cell::new(false),
            dirty: Cell::new(false),
            crowded: Cell::new(false),
            blocked: Cell::new(false),
            reader: Bell::default(),
            writer: Bell::default(),
        }
    }

    /// Whether its tasks have nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        self.gone.get() || self.broken.get()
    }

    /// Lets its tasks see that it is over.
    pub(super) fn dismiss(&self) {
        self.reader.ring();
        self.writer.ring();
    }
}

/// A connection that is being established.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) id: ConnId,
    /// The shard no longer wants it.
    pub(super) gone: Cell<bool>,
    pub(super) bell: Bell,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// Not connected yet.
    Dialling(Rc<Dial>),
    /// Connected.
    Open(Rc<Conn>),
}

/// A socket that is in the driver's hands only.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
}

/// Everything that has a name or waits for one.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    parked: Slab<Parked>,
}

impl Table {
    /// Keeps a socket until the shard has decided about it.
    pub(super) fn park(&mut self, parked: Parked) -> Socket {
        let key = self.parked.insert(parked);
        Socket(u32::try_from(key).unwrap_or(u32::MAX))
    }

    /// Takes a parked socket out.
    pub(super) fn unpark(&mut self, socket: Socket) -> Option<Parked> {
        self.parked.try_remove(usize::try_from(socket.0).ok()?)
    }

    /// Gives a name to something; returns false if the name is out of bounds.
    #[must_use]
    pub(super) fn insert(&mut self, id: ConnId, entry: Entry) -> bool {
        let Ok(index) = usize::try_from(id.index) else { return false };
        if index >= limits::CONNS_MAX {
            return false;
        }
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let older = self.entries.get_mut(index).and_then(|slot| slot.replace(entry));
        debug_assert!(older.is_none(), "a name is used twice");
        if let Some(older) = older {
            older.abandon();
        }
        true
    }

    /// Forgets a name.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Entry> {
        let slot = self.entries.get_mut(usize::try_from(id.index).ok()?)?;
        slot.take_if(|entry| entry.id() == id)
    }

    /// The established connection of this name.
    pub(super) fn open(&self, id: ConnId) -> Option<&Rc<Conn>> {
        match self.entries.get(usize::try_from(id.index).ok()?)?.as_ref()? {
            Entry::Open(conn) if conn.id == id => Some(conn),
            Entry::Open(_) | Entry::Dialling(_) => None,
        }
    }

    /// All names, to end them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }
}

impl Entry {
    /// Ends the tasks behind it.
    pub(super) fn abandon(&self) {
        match self {
            Self::Dialling(dial) => {
                dial.gone.set(true);
                dial.bell.ring();
            }
            Self::Open(conn) => {
                conn.gone.set(true);
                conn.dismiss();
            }
        }
    }

    fn id(&self) -> ConnId {
        match self {
            Self::Dialling(dial) => dial.id,
            Self::Open(conn) => conn.id,
        }
    }
}
