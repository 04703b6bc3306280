//! The one timer of a shard. It is armed far more often than it rings: a later time than the one
//! it sleeps for costs nothing.

use std::pin::pin;
use std::rc::Rc;

use crate::driver::drive::Drive;
use crate::shard::event::Event;

/// Wakes the shard when it wished to be.
pub(super) async fn keep_time(drive: Rc<Drive>) {
    while !drive.over.get() {
        let Some(deadline) = drive.deadline.get() else {
            drive.timer.wait().await;
            continue;
        };
        if drive.look_at_clock() >= deadline {
            drive.deadline.set(None);
            drive.feed(Event::Woke);
            // A shard that wants to be woken at once must not keep the others waiting.
            drive.breathe().await;
            continue;
        }
        drive.sleeping.set(Some(deadline));
        drive.timer.until(pin!(monoio::time::sleep_until(deadline.into()))).await;
        drive.sleeping.set(None);
    }
}
