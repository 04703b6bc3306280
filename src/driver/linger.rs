//! Closing politely: the last bytes are sent, and what the peer still sends is read and thrown
//! away for a moment. Closing a socket with unread data makes the kernel reset the connection, and
//! the peer would lose the very answer that tells it why.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::driver::conn::Conn;
use crate::driver::drive::Drive;
use crate::driver::socket::Sent;
use crate::driver::wait::within;
use crate::driver::{LINGER_LEN_MAX, LINGER_TIME, LINGERING_MAX};
use crate::limits;
use crate::output::Output;

/// Sends `rest` on a connection that the shard has closed, then closes it.
pub(super) fn linger(drive: &Rc<Drive>, conn: Rc<Conn>, rest: VecDeque<Bytes>) {
    let mut output = Output::default();
    for chunk in rest {
        output.push_whole(chunk);
    }
    let Ok(sent) = conn.stream.send(&mut output) else { return };
    if sent == Sent::All {
        conn.stream.finish();
    }
    if drive.lingering.get() >= LINGERING_MAX {
        return;
    }
    drive.lingering.set(drive.lingering.get() + 1);
    let guard = Lingering { drive: Rc::clone(drive) };
    let task = async move {
        // Failures need no answer: the connection is closed either way.
        if send(&guard.drive, &conn, output).await.is_ok() {
            read_away(&guard.drive, &conn).await.unwrap_or_default();
        }
    };
    drive.spawn(task, |_| {});
}

/// One lingering connection; counts it out whatever happens to its task.
struct Lingering {
    drive: Rc<Drive>,
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.drive.lingering.set(self.drive.lingering.get() - 1);
        self.drive.main.ring();
    }
}

async fn send(drive: &Drive, conn: &Conn, mut output: Output) -> io::Result<()> {
    let deadline = drive.now() + limits::SEND_TIMEOUT;
    while !output.is_empty() {
        if drive.over.get() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        within(deadline, pin!(conn.stream.writable())).await.ok_or(io::ErrorKind::TimedOut)??;
        conn.stream.send(&mut output)?;
        if output.is_empty() {
            conn.stream.finish();
        }
    }
    Ok(())
}

async fn read_away(drive: &Drive, conn: &Conn) -> io::Result<()> {
    let deadline = drive.now() + LINGER_TIME;
    let mut left = LINGER_LEN_MAX;
    while left > 0 && !drive.over.get() {
        within(deadline, pin!(conn.stream.readable())).await.ok_or(io::ErrorKind::TimedOut)??;
        match conn.stream.receive(&mut drive.buffer.borrow_mut()) {
            Ok(0) => break,
            Ok(len) => left = left.saturating_sub(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
