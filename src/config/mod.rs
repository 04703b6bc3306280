//! Text to checked values, once, at the edge.
//!
//! Two stages: `file` and `mcp_json` read what a person may write into a tree that knows where
//! each value stands; `build` and `server` turn the tree into a [`Config`], which is what the
//! program may rely on. Nothing outside this module sees the tree, and nothing in a `Config` needs
//! checking again. Everything that is wrong is reported at once.
//!
//! Problems quote keys, names of variables and paths of files, never values: a value may be a
//! secret.

use std::net::SocketAddr;
use std::time::Duration;

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::origin::Policy;
use crate::telemetry::log::Format;
use crate::upstream::catalog::{Catalog, ServerId};

pub mod args;
pub mod problem;
pub mod secret;
pub mod source;
mod build;
mod endpoints;
mod federation;
mod file;
mod keys;
mod mcp_json;
mod server;
mod show;
mod unix;
mod url;
mod value;

#[cfg(test)]
mod tests;

pub use problem::{Problem, Refused};
pub use secret::Outside;
pub use source::{OneClient, Overrides, Source, load};
pub use unix::Unix;

/// What the program may rely on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect. All distinct; at least one, here or in `unix`, unless there is one
    /// client and its server is in `stdio`.
    pub listen: Vec<SocketAddr>,
    /// Where clients connect that speak HTTP+SSE.
    pub sse: Vec<SocketAddr>,
    /// Where clients connect that speak the TCP binary protocol.
    pub tcp: Vec<SocketAddr>,
    /// Where clients connect that speak only WebSocket. All distinct, and none of `listen`.
    pub ws: Vec<SocketAddr>,
    /// Silence on a WebSocket after which the client is pinged.
    pub ping_interval: Duration,
    /// Unix sockets that clients connect to. All distinct.
    pub unix: Vec<Unix>,
    /// The server of the one client, which is on standard input and output; none: clients connect.
    pub stdio: Option<ServerId>,
    /// Where health and metrics are served; none: nowhere.
    pub admin: Option<SocketAddr>,
    /// How many shards; none: as many as there are cores.
    pub shards: Option<u16>,
    /// The servers. At least one.
    pub catalog: Catalog,
    /// Which `Host` and `Origin` values are served.
    pub origins: Policy,
    /// Largest message in bytes, in either direction.
    pub message_len_max: usize,
    /// Time a session lives without a request or an open stream.
    pub session_idle_timeout: Duration,
    /// How log lines look.
    pub log: LogChoice,
    /// Time requests in flight have to finish when the gateway stops.
    pub drain_timeout: Duration,
    /// What is allowed, but may not be what was meant.
    pub warnings: Vec<Problem>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogChoice {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Exchanges and connections are not logged.
    Off,
    /// This way.
    Format(Format),
}

impl Config {
    /// The addresses where clients come in: each once, with everything that is spoken there. What
    /// a client speaks is found out by its first bytes.
    pub fn entrances(&self) -> Vec<(SocketAddr, Entrance)> {
        let lists = [
            (Protocol::Http, &self.listen),
            (Protocol::WebSocket, &self.ws),
            (Protocol::Sse, &self.sse),
            (Protocol::Binary, &self.tcp),
        ];
        let all = lists
            .into_iter()
            .flat_map(|(protocol, list)| list.iter().map(move |addr| (protocol, *addr)));
        let mut entrances: Vec<(SocketAddr, Entrance)> = Vec::new();
        for (protocol, addr) in all {
            let is_it =
                |(known, _): &&mut (SocketAddr, Entrance)| *known == addr && addr.port() != 0;
            match entrances.iter_mut().find(is_it) {
                Some((_, entrance)) => entrance.protocols.push(protocol),
                None => entrances.push((addr, Entrance::of(protocol))),
            }
        }
        entrances
    }
}
