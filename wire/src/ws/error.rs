//! Why bytes are not a WebSocket stream, and what to answer.
//!
//! Not the close frame itself: the caller sends it, with [`WsError::close_code`], and closes.

use super::close;
use core::fmt;

/// Why a stream cannot be read on. The connection cannot be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsError {
    /// A reserved bit is set that nothing was agreed about, or RSV1 on a frame that is not the
    /// first of a data message.
    ReservedBit,
    /// An opcode that is not defined.
    ReservedOpcode(u8),
    /// A control frame that is not final.
    FragmentedControl,
    /// A control frame with more than 125 bytes.
    ControlTooLong,
    /// A frame from a client without a mask.
    NotMasked,
    /// A frame from a server with a mask.
    Masked,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A length that does not fit in 63 bits.
    LengthOutOfRange,
    /// A continuation of nothing.
    UnexpectedContinuation,
    /// A new message before the last one has ended.
    InterruptedMessage,
    /// A close frame with one byte.
    CloseCodeCut,
    /// A close code that may not be sent.
    BadCloseCode(u16),
    /// A close reason that is not UTF-8.
    CloseReasonNotUtf8,
    /// A text message that is not UTF-8.
    TextNotUtf8,
    /// A compressed message that cannot be inflated.
    BadDeflate,
    /// A message longer than [`Limits::message_len_max`](super::Limits::message_len_max), as it
    /// was sent or inflated.
    MessageTooLong,
    /// A message in more frames than [`Limits::frames_max`](super::Limits::frames_max).
    TooManyFrames,
}

impl WsError {
    /// The code of the close frame to a peer that sent this (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ReservedBit
            | Self::ReservedOpcode(_)
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::NotMasked
            | Self::Masked
            | Self::LengthNotMinimal
            | Self::LengthOutOfRange
            | Self::UnexpectedContinuation
            | Self::InterruptedMessage
            | Self::CloseCodeCut
            | Self::BadCloseCode(_) => close::PROTOCOL_ERROR,
            Self::CloseReasonNotUtf8 | Self::TextNotUtf8 | Self::BadDeflate => close::BAD_PAYLOAD,
            Self::TooManyFrames => close::POLICY,
            Self::MessageTooLong => close::TOO_LONG,
        }
    }
}

impl fmt::Display for WsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBit => {
                "set no reserved bit, or only RSV1 on the first frame of a compressed message"
            }
            Self::ReservedOpcode(opcode) => return write!(f, "send no frames of opcode {opcode}"),
            Self::FragmentedControl => "send control frames in one piece",
            Self::ControlTooLong => "send at most 125 bytes in a control frame",
            Self::NotMasked => "mask every frame to a server",
            Self::Masked => "mask no frame to a client",
            Self::LengthNotMinimal => "send lengths in as few bytes as they need",
            Self::LengthOutOfRange => "send lengths below 2^63",
            Self::UnexpectedContinuation => "begin a message with a text or a binary frame",
            Self::InterruptedMessage => "end a message before the next one begins",
            Self::CloseCodeCut => "send a close frame with a code of two bytes, or empty",
            Self::BadCloseCode(code) => {
                return write!(f, "close with a code that may be sent, not {code}");
            }
            Self::CloseReasonNotUtf8 => "send close reasons in UTF-8",
            Self::TextNotUtf8 => "send text in UTF-8, or send binary messages",
            Self::BadDeflate => "send compressed messages that can be inflated",
            Self::MessageTooLong => "send shorter messages",
            Self::TooManyFrames => "send messages in fewer frames",
        })
    }
}

impl core::error::Error for WsError {}
