//! Time: a load generator measures it, so it cannot be an argument.

use std::thread;
use std::time::{Duration, Instant};

/// The time.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this crate")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits; for polling what cannot report by itself.
#[expect(clippy::disallowed_methods, reason = "other processes are polled; nothing wakes us")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// Asks every 10 ms until there is an answer or the time is up.
pub fn wait_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if until <= now() {
            return None;
        }
        pause(Duration::from_millis(10));
    }
}
