//! The content of a message: bytes off the connection to bytes of content (RFC 9112 §6 and §7).
//!
//! Not a buffer: data is lent from the input. Chunk heads and trailers are read a byte at a time
//! and never kept, so any split of the input gives the same content, and nothing here grows.
//!
//! ```text
//! 5;ext=1 CR LF  hello CR LF     Size Extension SizeLf  Data DataCr DataLf
//! 0 CR LF                        Size SizeLf
//! name: value CR LF              TrailerStart TrailerName TrailerValue TrailerLf
//! CR LF                          TrailerStart LastLf Done
//! ```

use super::fields::{is_field_byte, is_token_byte};
use super::head::Body;
use core::fmt;

/// The most bytes of extensions on one chunk.
pub const CHUNK_EXTENSION_LEN_MAX: u32 = 256;

/// The most bytes of trailer fields, line ends not counted.
pub const TRAILERS_LEN_MAX: u32 = 8 * 1024;

/// Hexadecimal digits in the size of a chunk; 16 is all that fit in 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Takes one message's content out of its framing.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyDecoder {
    state: State,
}

/// What one call made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPart<'a> {
    /// Bytes of the input that were used; not zero unless the input is empty or `done`.
    pub used: usize,
    /// Content, lent from the input; it may be empty though bytes were used.
    pub data: &'a [u8],
    /// The content is complete; bytes that are left belong to the next message.
    pub done: bool,
}

/// Why bytes are not the content they were announced to be. The connection cannot be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size is not 1 to 16 hexadecimal digits, followed by `;` or CR LF.
    BadChunkSize,
    /// A chunk extension has a control byte, or does not end in CR LF.
    BadChunkExtension,
    /// A chunk extension is longer than [`CHUNK_EXTENSION_LEN_MAX`].
    ChunkExtensionTooLong,
    /// There is no CR LF right behind the data of a chunk.
    BadChunkEnd,
    /// A trailer is not a field, or does not end in CR LF.
    BadTrailer,
    /// The trailers are longer than [`TRAILERS_LEN_MAX`].
    TrailersTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content of a known length, never zero.
    Counted {
        left: u64,
    },
    UntilClose,
    /// In a chunk size.
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        len: u32,
    },
    /// Behind the CR of a chunk head.
    SizeLf {
        size: u64,
    },
    /// In the data of a chunk; `left` is never zero.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk; `len` counts all trailers so far.
    TrailerStart {
        len: u32,
    },
    TrailerName {
        len: u32,
    },
    TrailerValue {
        len: u32,
    },
    TrailerLf {
        len: u32,
    },
    LastLf,
    Done,
    Failed(BodyError),
}

impl BodyDecoder {
    /// A decoder for content framed as `body`.
    pub const fn new(body: Body) -> Self {
        let state = match body {
            Body::None | Body::Length(0) => State::Done,
            Body::Length(left) => State::Counted { left },
            Body::Chunked => State::Size { size: 0, digits: 0 },
            Body::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Takes content from the front of `input`: at most one chunk's worth. The caller calls again
    /// with what was not used, until it is `done` or there is nothing left to use.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<BodyPart<'a>, BodyError> {
        match self.state {
            State::UntilClose => Ok(BodyPart { used: input.len(), data: input, done: false }),
            State::Counted { left } => {
                let (data, left) = take(input, left);
                self.state = if left == 0 { State::Done } else { State::Counted { left } };
                Ok(BodyPart { used: data.len(), data, done: left == 0 })
            }
            State::Done => Ok(BodyPart { used: 0, data: &[], done: true }),
            State::Failed(error) => Err(error),
            State::Size { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf
            | State::TrailerStart { .. }
            | State::TrailerName { .. }
            | State::TrailerValue { .. }
            | State::TrailerLf { .. }
            | State::LastLf => self.decode_chunks(input),
        }
    }

    /// Whether the content is complete if the peer closes now. If not, it was cut short
    /// (RFC 9112 §8).
    pub const fn is_complete_at_close(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    fn decode_chunks<'a>(&mut self, input: &'a [u8]) -> Result<BodyPart<'a>, BodyError> {
        let mut state = self.state;
        let mut rest = input;
        while state != State::Done {
            if let State::Data { left } = state
                && !rest.is_empty()
            {
                let (data, left) = take(rest, left);
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                let used = input.len() - rest.len() + data.len();
                return Ok(BodyPart { used, data, done: false });
            }
            let Some((&byte, tail)) = rest.split_first() else { break };
            state = state.after(byte).inspect_err(|&error| self.state = State::Failed(error))?;
            rest = tail;
        }
        self.state = state;
        let used = input.len() - rest.len();
        Ok(BodyPart { used, data: &[], done: state == State::Done })
    }
}

impl State {
    /// The state behind one byte of framing.
    #[inline]
    fn after(self, byte: u8) -> Result<Self, BodyError> {
        match self {
            Self::Size { size, digits } => Self::after_size(size, digits, byte),
            Self::Extension { size, len } => match byte {
                b'\r' => Ok(Self::SizeLf { size }),
                _ if !is_field_byte(byte) => Err(BodyError::BadChunkExtension),
                _ if len == CHUNK_EXTENSION_LEN_MAX => Err(BodyError::ChunkExtensionTooLong),
                _ => Ok(Self::Extension { size, len: len + 1 }),
            },
            Self::SizeLf { size } => match (byte, size) {
                (b'\n', 0) => Ok(Self::TrailerStart { len: 0 }),
                (b'\n', _) => Ok(Self::Data { left: size }),
                _ => Err(BodyError::BadChunkSize),
            },
            Self::DataCr if byte == b'\r' => Ok(Self::DataLf),
            Self::DataLf if byte == b'\n' => Ok(Self::Size { size: 0, digits: 0 }),
            Self::DataCr | Self::DataLf => Err(BodyError::BadChunkEnd),
            Self::TrailerStart { .. }
            | Self::TrailerName { .. }
            | Self::TrailerValue { .. }
            | Self::TrailerLf { .. }
            | Self::LastLf => self.after_trailer(byte),
            // Not framing; the caller does not ask.
            Self::Counted { .. }
            | Self::UntilClose
            | Self::Data { .. }
            | Self::Done
            | Self::Failed(_) => Ok(self),
        }
    }

    /// RFC 9112 §7.1: 1*HEXDIG. No sign, no prefix, no white space around it.
    #[inline]
    fn after_size(size: u64, digits: u8, byte: u8) -> Result<Self, BodyError> {
        match (byte, hex(byte)) {
            (_, Some(digit)) if digits < SIZE_DIGITS_MAX => {
                Ok(Self::Size { size: (size << 4) | digit, digits: digits + 1 })
            }
            (b'\r', _) if digits != 0 => Ok(Self::SizeLf { size }),
            (b';', _) if digits != 0 => Ok(Self::Extension { size, len: 0 }),
            _ => Err(BodyError::BadChunkSize),
        }
    }

    /// RFC 9112 §7.1.2: field lines, up to an empty one. They are checked and dropped: to merge
    /// them into the head, one would have to know that their definitions allow it.
    fn after_trailer(self, byte: u8) -> Result<Self, BodyError> {
        match (self, byte) {
            (Self::TrailerStart { .. }, b'\r') => Ok(Self::LastLf),
            (Self::LastLf, b'\n') => Ok(Self::Done),
            (Self::TrailerName { len }, b':') => Ok(Self::TrailerValue { len: grown(len)? }),
            (Self::TrailerStart { len } | Self::TrailerName { len }, _) if is_token_byte(byte) => {
                Ok(Self::TrailerName { len: grown(len)? })
            }
            (Self::TrailerValue { len }, b'\r') => Ok(Self::TrailerLf { len }),
            (Self::TrailerValue { len }, _) if is_field_byte(byte) => {
                Ok(Self::TrailerValue { len: grown(len)? })
            }
            (Self::TrailerLf { len }, b'\n') => Ok(Self::TrailerStart { len }),
            _ => Err(BodyError::BadTrailer),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadChunkSize => "send chunk sizes of 1 to 16 hexadecimal digits, then CR LF",
            Self::BadChunkExtension => "send chunk extensions in visible ASCII, then CR LF",
            Self::ChunkExtensionTooLong => "send shorter chunk extensions, or none",
            Self::BadChunkEnd => "send CR LF behind the data of a chunk, and as much as announced",
            Self::BadTrailer => "send trailers as field lines that end in CR LF, or none",
            Self::TrailersTooLong => "send shorter trailers, or none",
        })
    }
}

impl core::error::Error for BodyError {}

/// The front of `input`, at most `left` bytes of it, and how many are left then.
fn take(input: &[u8], left: u64) -> (&[u8], u64) {
    let len = usize::try_from(left).unwrap_or(usize::MAX);
    let data = input.get(..len).unwrap_or(input);
    (data, left - data.len() as u64)
}

fn grown(len: u32) -> Result<u32, BodyError> {
    if len < TRAILERS_LEN_MAX { Ok(len + 1) } else { Err(BodyError::TrailersTooLong) }
}

fn hex(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        b'A'..=b'F' => Some(u64::from(byte - b'A') + 10),
        _ => None,
    }
}
