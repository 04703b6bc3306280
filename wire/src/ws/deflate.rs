//! Compressed messages (RFC 7692 §7.2): a bounded inflater, and a compressor.
//!
//! Not the negotiation. With context takeover, the memory of zlib ([`INFLATER_LEN`],
//! [`DEFLATER_LEN`]) lives as long as the connection; without, as long as one message is worked
//! on, so that an idle connection has none.

use super::error::WsError;
use super::extension::DeflateParams;
use super::frame::Role;
use alloc::vec::Vec;
use core::fmt;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

/// What ends a flushed stream, and is left out of a message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Bytes that a compressed stream may refer back to.
const WINDOW_LEN: usize = 1 << 15;

/// Final blocks in a message. One is odd and allowed (RFC 7692 §7.2.3.4). Each costs a copy of the
/// window, for two bytes of input.
const FINAL_BLOCKS_MAX: u8 = 16;

/// Bytes of output that are made at once.
const STEP_LEN_MAX: usize = 64 * 1024;

/// Between 0 and 9. 3 is the lowest at which zlib looks further than for the first match.
const LEVEL: i32 = 3;

/// Between 1 and 9. Each step doubles the buffers beside the window; 6 is 20 KiB of them.
const MEM_LEVEL: i32 = 6;

/// By how much a message may get longer for the sake of those that can refer to it.
const CONTEXT_PRICE: usize = 16;

/// Bytes that zlib allocates for an inflater.
const INFLATER_LEN: usize = 48 * 1024;

/// Bytes that zlib allocates for a compressor, with the largest window.
const DEFLATER_LEN: usize = 300 * 1024;

/// Turns compressed messages back, piece by piece.
pub(super) struct Inflater {
    keeps_context: bool,
    state: Option<Inflate>,
    /// The stream has taken bytes of this message, and no final block was the last of them.
    is_open: bool,
    final_blocks: u8,
}

/// Compresses the messages of one connection, or of many that keep no context.
pub struct Deflater {
    keeps: Keeps,
    window_bits: u8,
    message_len_min: usize,
    state: Option<Deflate>,
}

/// What a compressor keeps between messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// What it has seen.
    Context,
    /// Only its memory, for the next message of any connection.
    Memory,
    Nothing,
}

impl Inflater {
    pub(super) const fn new(role: Role, params: DeflateParams) -> Self {
        let keeps_context = !params.peer(role).no_context_takeover;
        Self { keeps_context, state: None, is_open: false, final_blocks: 0 }
    }

    /// Appends what `input`, a piece of a message, inflates to. On an error, `out` has what came
    /// before it, and never more than `len_max + 1` bytes.
    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        len_max: usize,
    ) -> Result<(), WsError> {
        // The window is always the largest: smaller ones are a promise that needs no enforcing.
        let state = self.state.get_or_insert_with(|| Inflate::new(false, 15));
        let mut room_len = input.len().saturating_mul(4).clamp(256, STEP_LEN_MAX);
        if input.is_empty() {
            return Ok(());
        }
        loop {
            let (used_before, made_before) = (state.total_in(), state.total_out());
            let room = make_room(out, room_len, len_max);
            room_len = room.len();
            let result = state.decompress(input, room, InflateFlush::SyncFlush);
            let used = usize::try_from(state.total_in() - used_before).unwrap_or_default();
            let made = usize::try_from(state.total_out() - made_before).unwrap_or_default();
            out.truncate(out.len() - room_len + made);
            input = input.get(used..).unwrap_or_default();
            self.is_open |= used != 0;
            if len_max < out.len() {
                return Err(WsError::MessageTooLong);
            }
            match result {
                Ok(Status::StreamEnd) => {
                    self.is_open = false;
                    self.final_blocks += 1;
                    if FINAL_BLOCKS_MAX < self.final_blocks {
                        return Err(WsError::BadDeflate);
                    }
                    restart(state, out)?;
                    if input.is_empty() {
                        return Ok(());
                    }
                }
                // It stops when it lacks input or room.
                Ok(Status::Ok | Status::BufError) if made < room_len => return Ok(()),
                Ok(Status::Ok | Status::BufError) => {}
                Err(_) => return Err(WsError::BadDeflate),
            }
            room_len = room_len.saturating_mul(2).clamp(256, STEP_LEN_MAX);
        }
    }

    /// Ends a message.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, len_max: usize) -> Result<(), WsError> {
        if self.is_open {
            let len = out.len();
            self.push(&TAIL, out, len_max)?;
            // The tail is an empty block, unless the message ends in the middle of one.
            if out.len() != len {
                return Err(WsError::BadDeflate);
            }
        }
        self.is_open = false;
        self.final_blocks = 0;
        if !self.keeps_context {
            self.state = None;
        }
        Ok(())
    }

    /// Bytes of memory that it owns, about.
    pub(super) const fn memory_len(&self) -> usize {
        if self.state.is_some() { INFLATER_LEN } else { 0 }
    }
}

impl Deflater {
    /// The compressor of the end that is `role`. Messages shorter than `message_len_min` are left
    /// as they are.
    pub const fn new(role: Role, params: DeflateParams, message_len_min: usize) -> Self {
        let own = params.own(role);
        let keeps = if own.no_context_takeover { Keeps::Nothing } else { Keeps::Context };
        Self { keeps, window_bits: own.window_bits, message_len_min, state: None }
    }

    /// A compressor for all connections of which this end agreed to keep no context, in a window
    /// of at least `window_bits`. It forgets what it has seen, but keeps its memory, which saves
    /// half of the time that a short message takes.
    pub const fn shared(window_bits: u8, message_len_min: usize) -> Self {
        Self { keeps: Keeps::Memory, window_bits, message_len_min, state: None }
    }

    /// The payload of a compressed message, if that is worth it: if it is shorter or, when later
    /// messages gain from it, hardly longer. Otherwise, the message has to be sent as it is.
    pub fn compress(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() < self.message_len_min {
            return None;
        }
        // zlib has no window of 8 bits. In its window of 9 it refers back by at most 250 bytes: it
        // keeps 262 for what lies ahead. The sign says that the stream has no head and no checksum.
        let window_bits = -i32::from(self.window_bits.clamp(9, 15));
        let state = self.state.get_or_insert_with(|| {
            let level = DeflateConfig::new(LEVEL);
            let config = DeflateConfig { window_bits, mem_level: MEM_LEVEL, ..level };
            Deflate::new_with_config(config)
        });
        let len_max = match self.keeps {
            Keeps::Context => payload.len().saturating_add(CONTEXT_PRICE),
            Keeps::Memory | Keeps::Nothing => payload.len().saturating_sub(1),
        };
        let out = compress(state, payload, len_max);
        match self.keeps {
            // The peer will not see what the compressor has seen: begin anew.
            Keeps::Context if out.is_none() => state.reset(),
            Keeps::Context => {}
            Keeps::Memory => state.reset(),
            Keeps::Nothing => self.state = None,
        }
        out
    }

    /// Bytes of memory that it owns, about.
    pub const fn memory_len(&self) -> usize {
        if self.state.is_some() { DEFLATER_LEN } else { 0 }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Inflater");
        out.field("keeps_context", &self.keeps_context).finish_non_exhaustive()
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Deflater");
        out.field("keeps", &self.keeps)
            .field("window_bits", &self.window_bits)
            .field("message_len_min", &self.message_len_min)
            .finish_non_exhaustive()
    }
}

/// Room behind what is in `out`: about `room_len` bytes, but not more than one over `len_max` in
/// all. The vector at most doubles.
fn make_room(out: &mut Vec<u8>, room_len: usize, len_max: usize) -> &mut [u8] {
    let len = out.len();
    let allowed = len_max.saturating_add(1).saturating_sub(len);
    let room_len = room_len.min(allowed);
    if out.capacity() - len < room_len {
        out.reserve_exact(room_len.max(len).min(allowed));
    }
    out.resize(len + room_len, 0);
    out.get_mut(len..).unwrap_or_default()
}

/// Goes on behind a final block. The context is what the message has inflated to so far; a
/// reference to an earlier message is then an error, which no sender has been seen to make.
fn restart(state: &mut Inflate, out: &[u8]) -> Result<(), WsError> {
    state.reset(false);
    let window = out.get(out.len().saturating_sub(WINDOW_LEN)..).unwrap_or_default();
    match state.set_dictionary(window) {
        Ok(_) => Ok(()),
        Err(_) => Err(WsError::BadDeflate),
    }
}

/// `payload` compressed, without the tail, if that is not more than `len_max`.
fn compress(state: &mut Deflate, payload: &[u8], len_max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut input = payload;
    let flushed_len_max = len_max.saturating_add(TAIL.len());
    loop {
        let room = make_room(&mut out, (payload.len() / 4).max(256), flushed_len_max);
        let room_len = room.len();
        let (used_before, made_before) = (state.total_in(), state.total_out());
        state.compress(input, room, DeflateFlush::SyncFlush).ok()?;
        let used = usize::try_from(state.total_in() - used_before).ok()?;
        let made = usize::try_from(state.total_out() - made_before).ok()?;
        out.truncate(out.len() - room_len + made);
        input = input.get(used..)?;
        if flushed_len_max < out.len() {
            return None;
        }
        // All is flushed when there is room left.
        if made < room_len {
            break;
        }
    }
    let len = out.strip_suffix(&TAIL)?.len();
    out.truncate(len);
    input.is_empty().then_some(out)
}
