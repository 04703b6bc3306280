//! The driver of the gateway: moves bytes, reads the clock, and knows nothing of MCP or HTTP.
//!
//! One thread runs one shard on monoio (io_uring, or epoll where that is not allowed). `drive`
//! joins the two; each other file is one kind of task: `accept`, `dial`, `receive`, `transmit`,
//! `linger`, `mail`, `timer`. All receiving and sending is non-blocking calls after a readiness
//! poll, so that any wait may be given up, and one buffer serves all connections.

mod accept;
mod conn;
mod dial;
mod drive;
mod linger;
mod mail;
mod receive;
pub mod request;
mod socket;
#[cfg(test)]
mod tests;
mod timer;
mod transmit;
mod wait;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::IoUring;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::driver::accept::Listener;
use crate::driver::drive::Drive;
use crate::driver::request::{ControlSender, Request};
use crate::driver::wait::within;
use crate::ids::EntranceId;
use crate::mesh::Mesh;
use crate::shard::settings::{Identity, Settings};

/// Connections that are closed but still have something to send or to discard.
const LINGERING_MAX: usize = 1024;
/// How long and how much of a closed connection is read and thrown away.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// See [`LINGER_TIME`].
const LINGER_LEN_MAX: usize = 1024 * 1024;
/// Pause after running out of descriptors or memory in accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Parcels waiting for full mailboxes at which clients are no longer received from.
const OUTBOX_HIGH: usize = 65_536;
/// Waiting parcels at which they are again.
const OUTBOX_LOW: usize = 32_768;
/// Time between two attempts at a full mailbox.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Time the tasks of an ended thread get to end themselves.
const END_TIME: Duration = Duration::from_millis(200);
/// Connections that wait to be accepted. `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;
/// Entries of the submission queue: monoio panics when more is submitted in one turn than the
/// kernel takes.
const RING_LEN: u32 = 4096;

/// How the kernel tells what is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, with task work deferred to the wait.
    Uring,
    /// epoll.
    Epoll,
}

/// What one thread runs.
#[derive(Debug)]
pub struct Job {
    /// Which shard this is.
    pub identity: Identity,
    /// What all shards are told.
    pub settings: Arc<Settings>,
    /// Where clients arrive: sockets that listen.
    pub listeners: Vec<(EntranceId, OwnedFd)>,
    /// The mailboxes.
    pub mesh: Mesh,
    /// The way to the control thread.
    pub control: ControlSender,
    /// The processor to stay on.
    pub core: Option<usize>,
    /// From [`probe`].
    pub engine: Engine,
}

/// Finds out which engine works here, with a reason for the log.
pub fn probe() -> (Engine, String) {
    match ring_builder().build(8) {
        Ok(_) => (Engine::Uring, "io_uring with deferred task work".to_owned()),
        // Without these flags readiness costs twice as much on io_uring as on epoll.
        Err(error) => {
            let reason = format!(
                "epoll, because io_uring with deferred task work (Linux 6.1, not forbidden by \
                 seccomp or kernel.io_uring_disabled) is not available: {error}"
            );
            (Engine::Epoll, reason)
        }
    }
}

fn ring_builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder
}

/// One listener per shard, all on the same address; a port of zero becomes the same free port.
/// Returns the address, too.
pub fn listen(addr: SocketAddr, shards: u16) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let mut addr = addr;
    let mut listeners = Vec::new();
    for _ in 0..shards {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit these. Who is gone without a word is found out in the end.
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(BACKLOG)?;
        addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        listeners.push(socket.into());
    }
    Ok((addr, listeners))
}

/// Runs a shard on the calling thread until it asks to quit.
///
/// The control thread is told by [`Request::Ended`] in any case.
pub fn run(job: Job) -> io::Result<()> {
    let (id, control, mesh) = (job.identity.id, job.control.clone(), job.mesh.clone());
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run_engine(job)));
    if !matches!(outcome, Ok(Ok(()))) {
        // It was at work until it failed; the others must not wait for it.
        mesh.finish();
    }
    control.post_last(Request::Ended(id));
    outcome.unwrap_or_else(|_| Err(io::Error::other("the driver has a fault")))
}

fn run_engine(job: Job) -> io::Result<()> {
    if let Some(core) = job.core {
        // A container may forbid it or not have this processor; nothing depends on it.
        monoio::utils::bind_to_cpu_set([core]).unwrap_or_default();
    }
    match job.engine {
        Engine::Uring => {
            let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_LEN);
            let builder = builder.uring_builder(ring_builder()).enable_timer();
            builder.build()?.block_on(serve(job))
        }
        Engine::Epoll => {
            let builder = RuntimeBuilder::<LegacyDriver>::new().with_entries(RING_LEN);
            builder.enable_timer().build()?.block_on(serve(job))
        }
    }
}

async fn serve(mut job: Job) -> io::Result<()> {
    let listeners = std::mem::take(&mut job.listeners);
    let drive = Rc::new(Drive::new(job)?);
    for listener in listeners {
        drive.listeners.borrow_mut().push(Rc::new(Listener::new(listener)?));
    }
    drive.spawn_vital(Drive::finish_turns);
    drive.spawn_vital(Drive::take_mail);
    drive.spawn_vital(Drive::deliver_late);
    drive.spawn_vital(timer::keep_time);
    for listener in drive.listeners.borrow().iter() {
        let listener = Rc::clone(listener);
        drive.spawn_vital(move |drive| accept::accept(drive, Rc::clone(&listener)));
    }
    while !drive.is_quit() {
        drive.main.wait().await;
    }
    // Clients that still read their last answer have until the deadline of the drain.
    let linger_until = drive.look_at_clock() + LINGER_TIME;
    let deadline = drive.drained_by.get().map_or(linger_until, |at| at.max(linger_until));
    while drive.lingering.get() > 0 && within(deadline, pin!(drive.main.wait())).await.is_some() {}
    drive.end();
    let deadline = drive.look_at_clock() + END_TIME;
    while drive.tasks() > 0 && within(deadline, pin!(drive.main.wait())).await.is_some() {}
    drive.hand_over_log();
    Ok(())
}
