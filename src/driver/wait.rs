//! Waiting that can be ended: the two ways in which the tasks of this driver wait.
//!
//! Only readiness polls, timers and other waits are ever given up half-way here. A half-finished
//! poll holds its descriptor open until the kernel has let go of it, and loses nothing.
//!
//! Callers pin what they wait for: an argument that is moved into an async function is kept twice,
//! and these futures are what an idle connection consists of.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Instant;

/// Calls one task of the same thread back from its wait, so that it looks at its state again.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    waiting: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    /// Ends the present or else the next wait.
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if self.waiting.replace(false)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Waits for the bell alone.
    pub(super) async fn wait(&self) {
        self.until(pin!(pending::<()>())).await;
    }

    /// Waits for `other`; `None` when the bell rang first.
    pub(super) async fn until<T>(&self, mut other: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let outcome = poll_fn(|cx| {
            if self.rung.take() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(value) = other.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            self.waiting.set(true);
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        });
        let outcome = outcome.await;
        self.waiting.set(false);
        outcome
    }
}

/// Waits for `other` until `deadline`.
pub(super) async fn within<T>(
    deadline: Instant,
    mut other: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut sleep = pin!(monoio::time::sleep_until(deadline.into()));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(value) = other.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    });
    outcome.await
}
