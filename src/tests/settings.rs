//! What tests of parts build a shard from: settings with nothing special in them.
//!
//! Others change what matters to them: `Settings { origins, ..settings(servers) }`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::origin::Policy;
use crate::ids::{Address, ConnId, EntranceId, Peer, ShardId, Socket};
use crate::limits;
use crate::shard::Shard;
use crate::shard::event::{Action, Event};
use crate::shard::settings::{Identity, Settings};
use crate::upstream::catalog::{Catalog, Command, Endpoint, Isolation, Server, Target, Upkeep};

/// These servers, and an entrance for HTTP.
pub(crate) fn settings(servers: Vec<Server>) -> Settings {
    Settings {
        catalog: Catalog::new(servers),
        origins: Policy::default(),
        entrances: vec![Entrance::of(Protocol::Http)],
        clients_max: usize::MAX,
        message_len_max: limits::MESSAGE_LEN,
        session_idle_timeout: limits::SESSION_IDLE_TIMEOUT,
        ping_interval: limits::PING_INTERVAL,
        log: None,
        tls: None,
        epoch: (Instant::now(), SystemTime::UNIX_EPOCH),
    }
}

/// A server that may take as long as it likes.
pub(crate) fn server(target: Target) -> Server {
    Server { name: "x".to_owned(), target, request_timeout: None }
}

/// A place that may have one connection.
pub(crate) fn endpoint(host: &str) -> Endpoint {
    Endpoint {
        tls: false,
        host: host.to_owned(),
        port: 1,
        authority: format!("{host}:1"),
        target: "/".to_owned(),
        headers: Vec::new(),
        conns_max: 1,
        upkeep: Upkeep::default(),
    }
}

/// A command that nobody runs.
pub(crate) fn command(isolation: Isolation) -> Command {
    Command {
        program: "x".to_owned(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: None,
        processes_max: 1,
        tasks_max: 1,
        upkeep: Upkeep { isolation, ..Upkeep::default() },
    }
}

/// A shard, which is that one of so many.
pub(crate) fn shard(settings: Settings, id: u16, shards: u16, now: Instant) -> Shard {
    Shard::new(Arc::new(settings), Identity { id: ShardId(id), shards, seed: [1; 32] }, now)
}

/// Has a client come in at the only entrance; its connection, and what else is to be done.
pub(crate) fn accept(shard: &mut Shard, now: Instant) -> (ConnId, Vec<Action>) {
    let address = Address::Ip(([127, 0, 0, 1], 999).into());
    let peer = Peer { address, entrance: EntranceId(0) };
    shard.handle(Event::Accepted { socket: Socket(0), peer }, now);
    let Some(Action::Receive { conn, .. }) = shard.poll() else { panic!("not accepted") };
    (conn, std::iter::from_fn(|| shard.poll()).collect())
}
