//! Connecting to a server.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use crate::driver::conn::{Conn, Dial, Kind};
use crate::driver::drive::Drive;
use crate::driver::socket::Stream;
use crate::driver::wait::within;
use crate::limits;
use crate::shard::event::Event;

/// Tries the addresses in order and tells the shard the outcome.
pub(super) async fn dial(drive: Rc<Drive>, dial: Rc<Dial>, addrs: Vec<SocketAddr>) {
    let deadline = drive.now() + limits::CONNECT_TIMEOUT;
    let connected = dial.bell.until(pin!(connect_any(&drive, &addrs, deadline))).await;
    if dial.gone.get() {
        return;
    }
    // The name stands for the attempt until here, and for its outcome from here on.
    drop(drive.table.borrow_mut().remove(dial.id));
    match connected {
        Some(Some(stream)) => {
            drive.open(Conn::new(dial.id, Kind::Server, stream));
            drive.feed(Event::Connected { conn: dial.id });
        }
        Some(None) | None => drive.feed(Event::Broken { conn: dial.id }),
    }
}

async fn connect_any(drive: &Drive, addrs: &[SocketAddr], deadline: Instant) -> Option<Stream> {
    for (addr, left) in addrs.iter().zip((1..=addrs.len()).rev()) {
        let now = drive.now();
        // An address that does not answer leaves the others their share of the time.
        let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
        if let Some(Ok(stream)) = within(now + share, pin!(connect(*addr))).await {
            return Some(stream);
        }
    }
    None
}

async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    let stream = Stream::connect(addr)?;
    stream.writable().await?;
    stream.failure()?;
    Ok(stream)
}
