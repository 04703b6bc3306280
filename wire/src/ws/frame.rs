//! Frame headers (RFC 6455 §5.2): the two to fourteen bytes in front of each payload.
//!
//! ```text
//!   0               1               2 ...
//!  +-+-+-+-+-------+-+-------------+-----------------------+---------------+
//!  |F|R|R|R| opcode|M| length      | length, if 126 or 127 | key, if M     |
//!  |I|S|S|S|  (4)  |A|  (7)        |  (16 or 64)           |  (32)         |
//!  |N|V|V|V|       |S|             |                       |               |
//!  | |1|2|3|       |K|             |                       |               |
//!  +-+-+-+-+-------+-+-------------+-----------------------+---------------+
//! ```
//!
//! Bytes are judged in the order they come in, so that the answer does not depend on where the
//! input is cut.

use super::error::WsError;
use crate::Decoded;
use alloc::vec::Vec;

/// Bytes in the longest header.
pub(super) const HEADER_LEN_MAX: usize = 14;

/// Bytes in the longest payload of a control frame.
pub(super) const CONTROL_LEN_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted it: we read masked frames and write plain ones.
    Server,
    /// We opened it: we write masked frames and read plain ones.
    Client,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_final: bool,
    /// RSV1: the message that begins here is compressed (RFC 7692 §6).
    pub(super) is_compressed: bool,
    pub(super) opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub(super) key: Option<[u8; 4]>,
    /// Bytes of payload, less than 2^63.
    pub(super) len: u64,
}

/// What a header has to agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Which end reads the frame.
    pub(super) role: Role,
    /// Whether compression was agreed.
    pub(super) can_be_compressed: bool,
    /// Whether a message has begun and not ended.
    pub(super) is_in_message: bool,
}

impl Opcode {
    pub(super) const fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    const fn from_code(code: u8) -> Result<Self, WsError> {
        Ok(match code {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return Err(WsError::ReservedOpcode(code)),
        })
    }
}

impl Header {
    /// Reads the header at the front of `bytes`.
    pub(super) fn decode(bytes: &[u8], rules: Rules) -> Result<Decoded<Self>, WsError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(Decoded::Incomplete) };
        let opcode = decode_first(first, rules)?;
        let Some((&second, rest)) = rest.split_first() else { return Ok(Decoded::Incomplete) };
        let is_masked = second & MASKED != 0;
        match rules.role {
            // RFC 6455 §5.1: everything to a server is masked, and nothing to a client.
            Role::Server if !is_masked => return Err(WsError::NotMasked),
            Role::Client if is_masked => return Err(WsError::Masked),
            Role::Server | Role::Client => {}
        }
        let short = second & !MASKED;
        // RFC 6455 §5.5.
        if opcode.is_control() && CONTROL_LEN_MAX < usize::from(short) {
            return Err(WsError::ControlTooLong);
        }
        let Some((len, rest)) = decode_len(short, rest)? else { return Ok(Decoded::Incomplete) };
        let (key, rest) = match rest.split_first_chunk() {
            _ if !is_masked => (None, rest),
            Some((key, rest)) => (Some(*key), rest),
            None => return Ok(Decoded::Incomplete),
        };
        let (is_final, is_compressed) = (first & FIN != 0, first & RSV1 != 0);
        let item = Self { is_final, is_compressed, opcode, key, len };
        Ok(Decoded::Item { item, used: bytes.len() - rest.len() })
    }

    /// Appends this header.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let fin = if self.is_final { FIN } else { 0 };
        let rsv1 = if self.is_compressed { RSV1 } else { 0 };
        out.push(fin | rsv1 | self.opcode.code());
        let masked = if self.key.is_some() { MASKED } else { 0 };
        match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len @ ..=125), _) => out.push(masked | len),
            (_, Ok(len)) => {
                out.push(masked | 126);
                out.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&self.len.to_be_bytes());
            }
        }
        if let Some(key) = self.key {
            out.extend_from_slice(&key);
        }
    }
}

/// Judges the first byte of a header.
const fn decode_first(first: u8, rules: Rules) -> Result<Opcode, WsError> {
    let is_compressed = first & RSV1 != 0;
    if first & RSV2_RSV3 != 0 || (is_compressed && !rules.can_be_compressed) {
        return Err(WsError::ReservedBit);
    }
    let opcode = match Opcode::from_code(first & 0x0f) {
        Ok(opcode) => opcode,
        Err(error) => return Err(error),
    };
    match opcode {
        Opcode::Close | Opcode::Ping | Opcode::Pong if first & FIN == 0 => {
            Err(WsError::FragmentedControl)
        }
        // RFC 7692 §6.1: RSV1 is for the first frame of a message.
        Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong if is_compressed => {
            Err(WsError::ReservedBit)
        }
        Opcode::Continuation if !rules.is_in_message => Err(WsError::UnexpectedContinuation),
        Opcode::Text | Opcode::Binary if rules.is_in_message => Err(WsError::InterruptedMessage),
        _ => Ok(opcode),
    }
}

/// Reads the rest of a length whose first seven bits are `short`.
fn decode_len(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, WsError> {
    let (len, len_min, rest) = match short {
        126 => {
            let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*len)), 126, rest)
        }
        127 => {
            let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*len), 1 << 16, rest)
        }
        _ => (u64::from(short), 0, bytes),
    };
    if len >> 63 != 0 {
        return Err(WsError::LengthOutOfRange);
    }
    if len < len_min {
        return Err(WsError::LengthNotMinimal);
    }
    Ok(Some((len, rest)))
}
