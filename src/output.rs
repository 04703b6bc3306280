//! Bytes on their way out of one connection.
//!
//! The shard appends; the driver writes the slices with one vectored call and says how much went.
//! Small writes join the last chunk, so that many messages leave in one system call; large
//! messages are kept as they are and never copied. An empty queue holds no memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, Bytes};

/// Messages of at least this many bytes are queued as they are instead of being appended.
const WHOLE_LEN_MIN: usize = 16 * 1024;

/// What a first small write reserves: a response head and a small body.
const SMALL_LEN: usize = 1024;

/// The unsent bytes of a connection, oldest first.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    /// The newest bytes, still growing; they follow every chunk.
    tail: Vec<u8>,
    /// Bytes of `tail` that were sent already. Zero while there are chunks.
    tail_sent: usize,
    chunks_len: usize,
}

impl Output {
    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail().extend_from_slice(bytes);
    }

    /// Appends `bytes` without copying them, unless they are few.
    pub fn push_whole(&mut self, bytes: Bytes) {
        if bytes.len() < WHOLE_LEN_MIN {
            self.push(&bytes);
            return;
        }
        self.seal_tail();
        self.chunks_len += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// The buffer that new bytes are appended to. Callers only ever append.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail.reserve(SMALL_LEN);
        }
        &mut self.tail
    }

    /// Unsent bytes.
    pub fn len(&self) -> usize {
        self.chunks_len + self.tail.len() - self.tail_sent
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with the oldest unsent bytes and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = self.tail.get(self.tail_sent..).unwrap_or_default();
        let parts = self.chunks.iter().map(|chunk| &**chunk).chain([tail]);
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// Forgets the oldest `sent` bytes.
    pub fn consume(&mut self, mut sent: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            let step = chunk.len().min(sent);
            chunk.advance(step);
            self.chunks_len -= step;
            sent -= step;
            if !chunk.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.tail_sent = (self.tail_sent + sent).min(self.tail.len());
        if self.tail_sent == self.tail.len() {
            *self = Self::default();
        }
    }

    /// Takes everything out as one list of chunks.
    pub fn take(&mut self) -> VecDeque<Bytes> {
        self.seal_tail();
        std::mem::take(self).chunks
    }

    fn seal_tail(&mut self) {
        let mut tail = Bytes::from(std::mem::take(&mut self.tail));
        tail.advance(std::mem::take(&mut self.tail_sent));
        if !tail.is_empty() {
            self.chunks_len += tail.len();
            self.chunks.push_back(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_whatever_the_steps() {
        for step in 1..40 {
            let mut output = Output::default();
            let mut sent = Vec::new();
            output.push(b"head ");
            output.push_whole(Bytes::from(vec![b'x'; WHOLE_LEN_MIN]));
            output.push(b" tail");
            let mut more = Some(b" late".as_slice());
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = output.slices(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|part| part.to_vec()).collect();
                let taken = all.len().min(step * 997);
                sent.extend_from_slice(&all[..taken]);
                output.consume(taken);
                if let Some(late) = more.take() {
                    output.push(late);
                }
            }
            let middle = "x".repeat(WHOLE_LEN_MIN);
            assert_eq!(sent, format!("head {middle} tail late").into_bytes());
            assert_eq!(output.tail.capacity(), 0, "an empty queue holds no memory");
        }
    }
}
