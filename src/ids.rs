//! What things are called. Each name is made in one place and is only compared elsewhere.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::table::key;

/// One shard of this gateway, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardId(pub u16);

key! {
    /// A connection of this shard: to a client, to a server or to a child process.
    ///
    /// The shard makes these; a driver only hands them back. `generation` tells apart the
    /// connections that used the same slot one after the other.
    ConnId
}

/// A socket that the driver holds and that has no connection yet. Only the driver knows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket(pub u32);

/// One of the places where clients come in: its number in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntranceId(pub u16);

/// Who is at the other end of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: Address,
    /// Where it came in.
    pub entrance: EntranceId,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// On some host.
    Ip(SocketAddr),
    /// A process on this machine, as the kernel says.
    Local {
        /// Its process id; zero if it is in another namespace.
        pid: u32,
        /// Its user.
        uid: u32,
    },
}

impl Address {
    /// The host, if that is known by an address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(addr) => Some(addr.ip()),
            Self::Local { .. } => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Local { pid, uid } => write!(f, "pid {pid}, uid {uid}"),
        }
    }
}

/// A question to the control thread that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A child process, named by the shard that asked for it; unique within the shard for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId(pub u64);

key! {
    /// One exchange of a shard.
    ExchangeId
}

key! {
    /// What is known of the members of a view, for one client.
    UnionKey
}

key! {
    /// One session of a shard.
    SessionKey
}
