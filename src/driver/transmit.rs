//! Sending what could not be sent at once: a task that lives as long as its connection's peer is
//! slower than the shard.

use std::pin::pin;
use std::rc::Rc;

use crate::driver::conn::Conn;
use crate::driver::drive::Drive;
use crate::driver::receive::receive_last;
use crate::driver::socket::Sent;
use crate::shard::event::Event;

/// Sends until nothing is left, and tells the shard of each step.
pub(super) async fn transmit(drive: Rc<Drive>, conn: Rc<Conn>) {
    while !conn.is_over() {
        let ready = conn.writer.until(pin!(conn.stream.writable())).await;
        if conn.is_over() {
            return;
        }
        let sent = match ready {
            None => continue,
            Some(Ok(())) => drive.send(&conn),
            Some(Err(error)) => Some(Err(error)),
        };
        match sent {
            None | Some(Ok(Sent::All)) => {
                // From here on the flusher sends again.
                conn.blocked.set(false);
                drive.feed(Event::Sent { conn: conn.id });
                return;
            }
            Some(Ok(Sent::Some(true))) => drive.feed(Event::Sent { conn: conn.id }),
            Some(Ok(Sent::Some(false))) => {}
            Some(Err(_)) => return receive_last(&drive, &conn),
        }
    }
}
