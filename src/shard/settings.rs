//! What a shard is told once, when it is built.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::admission::entrance::Entrance;
use crate::admission::origin::Policy;
use crate::ids::ShardId;
use crate::telemetry::log::Format;
use crate::upstream::catalog::Catalog;

/// Everything that shards have in common. Immutable.
#[derive(Debug)]
pub struct Settings {
    /// The servers.
    pub catalog: Catalog,
    /// Which `Host` and `Origin` values are served.
    pub origins: Policy,
    /// Where clients come in; an [`EntranceId`](crate::ids::EntranceId) is an index.
    pub entrances: Vec<Entrance>,
    /// Client connections of one shard: files are left for servers.
    pub clients_max: usize,
    /// Largest message in bytes, in either direction.
    pub message_len_max: usize,
    /// Time a session lives without a request or an open stream.
    pub session_idle_timeout: Duration,
    /// Silence on a WebSocket after which the client is pinged; after twice as long it is gone.
    pub ping_interval: Duration,
    /// How log lines look; none: exchanges and connections are not logged.
    pub log: Option<Format>,
    /// TLS towards servers with an `https` or `wss` URL.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// A moment on both clocks, to write wall-clock times into log lines.
    pub epoch: (Instant, SystemTime),
}

/// What is special to one shard.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its number.
    pub id: ShardId,
    /// How many there are.
    pub shards: u16,
    /// Seed of its random numbers: session ids depend on it, so it must be unguessable.
    pub seed: [u8; 32],
}
