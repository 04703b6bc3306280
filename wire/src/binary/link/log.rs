//! The numbered frames of one direction, from the first that is not acknowledged.
//!
//! ```text
//!   start             sent             ready            end
//!     | not acknowledged |  being written |  next batch   |
//! ```
//!
//! It is the output queue and the replay buffer at once: a message is copied into it and leaves
//! from it, as often as it takes. Not bounded by itself: the link asks [`Log::len`] first.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// An empty log with more room than this gives it back.
const ROOM_KEPT: usize = 16 * 1024;

pub(super) struct Log {
    bytes: Vec<u8>,
    start: usize,
    sent: usize,
    ready: usize,
    /// The lengths of the frames from `start` on.
    frames: VecDeque<usize>,
    /// The sequence of the first of them.
    first: u64,
}

impl Log {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, sent: 0, ready: 0, frames: VecDeque::new(), first: 1 }
    }

    /// Appends a frame that `write` encodes with the sequence it is given.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>, u64)) {
        let (before, sequence) = (self.bytes.len(), self.next());
        write(&mut self.bytes, sequence);
        self.frames.push_back(self.bytes.len() - before);
    }

    /// Makes everything that is here the batch that is being written.
    pub(super) fn begin_batch(&mut self) {
        self.ready = self.bytes.len();
    }

    /// Takes note that bytes of the batch were written.
    pub(super) fn wrote(&mut self, len: usize) {
        debug_assert!(len <= self.ready - self.sent, "more was written than there was");
        self.sent = (self.sent + len).min(self.ready);
    }

    /// Drops all frames up to `received`; `false` when not all of them were written.
    pub(super) fn acknowledge(&mut self, received: u64) -> bool {
        if received >= self.next() {
            return false;
        }
        while self.first <= received {
            let len = self.frames.front().copied().unwrap_or(0);
            if self.sent < self.start + len {
                return false;
            }
            self.drop_first();
        }
        self.tidy();
        true
    }

    /// Begins anew behind `received` on another connection; `false`, and nothing done, when that
    /// cannot be.
    pub(super) fn resume(&mut self, received: u64) -> bool {
        if received >= self.next() || received + 1 < self.first {
            return false;
        }
        while self.first <= received {
            self.drop_first();
        }
        self.rewind();
        true
    }

    /// Everything that is here is to be written, some of it again.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.ready) = (self.start, self.start);
        self.tidy();
    }

    /// The sequence of the next frame.
    fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// What is to be written of the batch.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..self.ready).unwrap_or_default()
    }

    /// Bytes that were not yet written, in the batch and behind it.
    pub(super) const fn unsent_len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes that are not acknowledged.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn drop_first(&mut self) {
        self.start += self.frames.pop_front().unwrap_or(0);
        self.first += 1;
    }

    /// Moves the bytes to the front when more than half of them are dropped, so that each is moved
    /// once on average.
    fn tidy(&mut self) {
        if self.start <= self.bytes.len() / 2 {
            return;
        }
        self.bytes.drain(..self.start);
        self.sent = self.sent.saturating_sub(self.start);
        self.ready = self.ready.saturating_sub(self.start);
        self.start = 0;
        if self.bytes.is_empty() && ROOM_KEPT < self.bytes.capacity() {
            self.bytes = Vec::new();
        }
    }
}
