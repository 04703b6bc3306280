//! Receiving from one connection: a task that waits, and then reads into the buffer that all
//! connections of the thread share.

use std::io;
use std::pin::pin;
use std::rc::Rc;

use crate::driver::conn::{Conn, Kind};
use crate::driver::drive::Drive;
use crate::shard::event::Event;

/// Full buffers that one connection may fill before the others have their turn.
const ROUNDS_MAX: usize = 4;

/// What to do after receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Wait until there is more.
    Wait,
    /// There is more already; let others go first.
    Yield,
    /// Nothing will come any more.
    Stop,
}

/// Receives until the peer or the shard ends it.
pub(super) async fn receive(drive: Rc<Drive>, conn: Rc<Conn>) {
    while !conn.is_over() {
        if must_rest(&drive, &conn) {
            conn.resting.set(true);
            conn.reader.wait().await;
            conn.resting.set(false);
            continue;
        }
        match conn.reader.until(pin!(conn.stream.readable())).await {
            None => continue,
            Some(Ok(())) => {}
            Some(Err(_)) => {
                drive.break_off(&conn);
                drive.settle();
                return;
            }
        }
        match receive_some(&drive, &conn) {
            Next::Wait => {}
            Next::Yield => drive.breathe().await,
            Next::Stop => return,
        }
    }
}

fn must_rest(drive: &Drive, conn: &Conn) -> bool {
    conn.paused.get() || (drive.outbox.is_congested() && conn.kind == Kind::Client)
}

fn receive_some(drive: &Rc<Drive>, conn: &Conn) -> Next {
    for _ in 0..ROUNDS_MAX {
        if conn.is_over() || must_rest(drive, conn) {
            return Next::Wait;
        }
        if conn.ended.get() {
            return Next::Stop;
        }
        let mut buffer = drive.buffer.borrow_mut();
        match conn.stream.receive(&mut buffer) {
            Ok(0) => {
                drop(buffer);
                conn.ended.set(true);
                drive.feed(Event::Ended { conn: conn.id });
                return Next::Stop;
            }
            Ok(len) => {
                let bytes = buffer.get_mut(..len).unwrap_or_default();
                drive.feed(Event::Received { conn: conn.id, bytes });
                // Less than was asked for: most likely that was all, and the wait will tell.
                if len < buffer.len() {
                    return Next::Wait;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
            Err(_) => {
                drop(buffer);
                drive.break_off(conn);
                drive.settle();
                return Next::Stop;
            }
        }
    }
    Next::Yield
}

/// Breaks off a connection that cannot be sent to. What the peer said before it went, such as why
/// it goes, is received first.
pub(super) fn receive_last(drive: &Rc<Drive>, conn: &Conn) {
    receive_some(drive, conn);
    drive.break_off(conn);
    drive.settle();
}
