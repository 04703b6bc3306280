//! What things are called. Each name is made in one place and is only compared elsewhere.

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
    /// One session of a shard.
    SessionKey
}
