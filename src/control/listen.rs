//! Where clients come in: the sockets are bound before anything else is started, and the log says
//! where they are.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::admin;
use super::log::Log;
use super::unix::{self, SocketFile};
use crate::admission::entrance::{Entrance, Protocol};
use crate::config::{Config, Unix};
use crate::driver;
use crate::ids::EntranceId;
use crate::shard::settings::Settings;
use crate::telemetry::log::Format;

/// Where clients connect.
#[derive(Debug)]
pub(super) struct Bound {
    /// For each shard, one listener per address; Unix sockets are all at the first, which gives
    /// their clients away.
    pub listeners: Vec<Vec<(EntranceId, OwnedFd)>>,
    /// The entrances with an address, with the ports that were found for zeros.
    pub entrances: Vec<(SocketAddr, Entrance)>,
    /// The files of Unix sockets, which end with this value.
    pub files: Vec<SocketFile>,
}

/// The entrances: that of one client, or those with an address and then each Unix socket.
pub(super) fn entrances(config: &Config) -> Vec<Entrance> {
    let lines = |server, users| Entrance { protocols: vec![Protocol::Lines], server, users };
    if config.stdio.is_some() {
        return vec![lines(config.stdio, None)];
    }
    let unix = config.unix.iter().map(|unix| lines(unix.server, unix.users.clone()));
    config.entrances().into_iter().map(|(_, entrance)| entrance).chain(unix).collect()
}

/// Binds everything, in the order of [`entrances`]. The error is a sentence for the operator.
pub(super) fn bind_all(
    entrances: Vec<(SocketAddr, Entrance)>,
    unix: &[Unix],
    shards: u16,
) -> Result<Bound, String> {
    let listeners = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Bound { listeners, entrances, files: Vec::new() };
    let mut ids = (0..).map(EntranceId);
    for (index, id) in (0..bound.entrances.len()).zip(ids.by_ref()) {
        bound.listen(index, id, shards)?;
    }
    for (unix, id) in unix.iter().zip(ids) {
        let (listener, file) = unix::bind(unix)?;
        bound.files.push(file);
        if let Some(of_shard) = bound.listeners.first_mut() {
            of_shard.push((id, listener));
        }
    }
    Ok(bound)
}

impl Bound {
    fn listen(&mut self, index: usize, id: EntranceId, shards: u16) -> Result<(), String> {
        let Some((place, _)) = self.entrances.get_mut(index) else { return Ok(()) };
        let addr = *place;
        // Shards share a port, and so would a second gateway of the same user, unnoticed: only a
        // listener that shares with nobody finds out that the port is taken.
        let found = TcpListener::bind(addr).map(drop).and_then(|()| driver::listen(addr, shards));
        let (addr, found) = found.map_err(|error| explain(addr, "listen", &error))?;
        *place = addr;
        for (of_shard, listener) in self.listeners.iter_mut().zip(found) {
            of_shard.push((id, listener));
        }
        Ok(())
    }
}

/// Binds the admin server, in the runtime of the caller.
pub(super) fn bind_admin(
    addr: SocketAddr,
) -> Result<(tokio::net::TcpListener, SocketAddr), String> {
    let bind = || {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((tokio::net::TcpListener::from_std(listener)?, addr))
    };
    bind().map_err(|error| explain(addr, "admin", &error))
}

/// Why an address can not be listened on, and what to do about it.
fn explain(addr: SocketAddr, key: &str, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it; stop that one or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose one it has",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose another port or allow it"
        }
        _ => "choose another address",
    };
    format!("cannot listen on {addr} (`{key}`): {error}: {remedy}")
}

/// Says where clients connect: one line per server, per further address and per Unix socket.
pub(super) fn say_ready(
    log: &Log,
    config: &Config,
    (entrances, admin): (&[(SocketAddr, Entrance)], Option<SocketAddr>),
    settings: &Settings,
) {
    let speaks = |protocol| {
        let is_it = move |(_, entrance): &&(SocketAddr, Entrance)| entrance.speaks(protocol);
        entrances.iter().filter(is_it).map(|(addr, _)| *addr)
    };
    say_http(log, &speaks(Protocol::Http).collect::<Vec<_>>(), settings);
    for addr in speaks(Protocol::Sse) {
        log.say("listening", &format!("listening on http://{addr}/sse (HTTP+SSE)"));
    }
    for addr in speaks(Protocol::WebSocket) {
        log.say("listening", &format!("listening on ws://{addr}"));
    }
    for addr in speaks(Protocol::Binary) {
        log.say("listening", &format!("listening on tcp://{addr}"));
    }
    let server_at = |server| settings.catalog.get(server).map_or("", |server| &server.name);
    for unix in &config.unix {
        let path = unix.path.display().to_string();
        let server = unix.server.or_else(|| settings.catalog.root()).map_or("", server_at);
        let words = format!("listening on the Unix socket {} ({server})", path.escape_debug());
        log.say("listening", &words);
    }
    if let Some(server) = config.stdio.map(server_at) {
        log.say("listening", &format!("serving {server} on standard input and output"));
    }
    if let Some(admin) = admin {
        let words = format!("admin on http://{admin} (/healthz, /readyz, /metrics)");
        log.say("admin", &words);
    }
    if log.format() == Format::Text && config.stdio.is_none() {
        log.say("ready", "ready; stop with Ctrl-C");
    } else {
        log.say("ready", "ready");
    }
}

fn say_http(log: &Log, addrs: &[SocketAddr], settings: &Settings) {
    let Some((first, others)) = addrs.split_first() else { return };
    if settings.catalog.root().is_some() {
        log.say("listening", &format!("listening on http://{first}/mcp"));
    }
    for (_, server) in settings.catalog.servers() {
        let (name, kind) = (&server.name, admin::kind(&server.target));
        log.say("listening", &format!("listening on http://{first}/mcp/{name} ({kind})"));
    }
    for other in others {
        log.say("listening", &format!("listening on http://{other} too"));
    }
}
