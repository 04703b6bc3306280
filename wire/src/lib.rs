//! Bytes to values and back: the only place that knows a byte layout.
//!
//! Nothing here does I/O, reads a clock or keeps a connection; `no_std` makes the compiler prove
//! it. Decoders take bytes that the caller owns and say how many they used, or how they want more.
//! They return errors and never panic, whatever the input.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod http1;
pub mod sse;
pub mod lines;
pub mod json;
pub mod rpc;
pub mod ws;
pub mod envelope;
pub mod binary;

#[cfg(test)]
mod tests;

/// What a decoder made of the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// One whole item, and how many bytes it took.
    Item {
        /// The item.
        item: T,
        /// Bytes of the input that belong to it.
        used: usize,
    },
    /// The item is not complete; call again with the same bytes and more behind them.
    Incomplete,
}
