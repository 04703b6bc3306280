//! What goes wrong on a link, and the numbers that say so.

use super::frame::StreamId;
use alloc::borrow::Cow;
use core::fmt;

/// Codes of ERROR frames that have no [`LinkError`].
pub mod code {
    /// Goodbye.
    pub const DONE: u16 = 0;
    /// The token was refused.
    pub const UNAUTHORIZED: u16 = 11;
    /// No room for another link.
    pub const OVERLOADED: u16 = 12;
    /// No HELLO or PONG in time.
    pub const TIMED_OUT: u16 = 13;
    /// A fault of the sender.
    pub const INTERNAL: u16 = 14;
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A kind that does not exist.
    UnknownKind(u8),
    /// Flags that this kind does not have, or a combination without a meaning.
    BadFlags(u8),
    /// A stream where there must be none, or none where there must be one.
    BadStream(u32),
    /// A sequence where there must be none, or none where there must be one.
    BadSequence(u64),
    /// Names that do not fill their area, or are not text, or are too few or too many.
    BadNames,
    /// A payload whose length is not that of its kind.
    BadLength(u32),
    /// A names area above the bound.
    NamesTooLong(u16),
    /// A payload above the limit of the receiver.
    PayloadTooLong(u32),
}

/// Why a link has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Not a frame.
    Frame(FrameError),
    /// A kind that the peer may not send, or not now.
    Unexpected,
    /// A message above the limit.
    MessageTooLong(StreamId),
    /// More than the credit of a stream.
    WindowExceeded(StreamId),
    /// More streams than the limit.
    TooManyStreams,
    /// A stream that was never opened, or an id that does not grow.
    BadStream(StreamId),
    /// Not the next sequence.
    BadSequence(u64),
    /// An acknowledgement of what was not sent.
    BadAck(u64),
    /// A limit out of its range.
    BadLimits,
}

/// Why a stream was closed. Any number may come; those without a name mean the same as
/// [`Reason::INTERNAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub u16);

/// Why a message or a stream was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No limits are known yet: wait for the event `Welcomed`.
    NotReady,
    /// The link has ended.
    Ended,
    /// The server is about to stop; only open streams go on.
    Draining,
    /// The peer allows no more streams, or all ids are used up.
    NoMoreStreams,
    /// Only clients open streams.
    NotAClient,
    /// The stream is not open, or is being closed.
    NotOpen,
    /// Names above the bound.
    NamesTooLong,
    /// A message of no bytes.
    Empty,
    /// A message above the peer's limit.
    TooLong,
    /// The stream's queue is full: wait for the event `Writable`.
    Full,
    /// The queues of all streams together are full.
    Overloaded,
}

/// A message that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'m> {
    /// Why.
    pub why: SendError,
    /// The message.
    pub payload: Cow<'m, [u8]>,
}

/// Why a link cannot be resumed. The peer is told nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotResumable {
    /// HELLO names another link.
    OtherLink,
    /// The link belongs to somebody else.
    OtherOwner,
    /// The link has ended.
    Ended,
    /// The peer claims to have received what was not sent, or to have lost what it acknowledged.
    BadSequence,
}

impl Reason {
    /// The conversation is over.
    pub const DONE: Self = Self(0);
    /// No server has this name.
    pub const UNKNOWN_SERVER: Self = Self(1);
    /// The session is not known, or no longer.
    pub const UNKNOWN_SESSION: Self = Self(2);
    /// This client may not.
    pub const FORBIDDEN: Self = Self(3);
    /// The server is about to stop.
    pub const DRAINING: Self = Self(4);
    /// Later, perhaps.
    pub const OVERLOADED: Self = Self(5);
    /// The server behind cannot be reached or has died.
    pub const SERVER_FAILED: Self = Self(6);
    /// A fault of the sender.
    pub const INTERNAL: Self = Self(7);
    /// Never sent: why all streams are closed when a link was not resumed.
    pub const LINK_LOST: Self = Self(8);
}

impl LinkError {
    /// The code of the ERROR frame.
    pub const fn code(self) -> u16 {
        match self {
            Self::Frame(FrameError::NamesTooLong(_) | FrameError::PayloadTooLong(_)) => 3,
            Self::Frame(_) => 1,
            Self::Unexpected => 2,
            Self::MessageTooLong(_) => 4,
            Self::WindowExceeded(_) => 5,
            Self::TooManyStreams => 6,
            Self::BadStream(_) => 7,
            Self::BadSequence(_) => 8,
            Self::BadAck(_) => 9,
            Self::BadLimits => 10,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "the kind {kind} does not exist"),
            Self::BadFlags(flags) => write!(f, "the flags {flags:#04x} mean nothing here"),
            Self::BadStream(stream) => write!(f, "the stream {stream} cannot stand here"),
            Self::BadSequence(sequence) => write!(f, "the sequence {sequence} cannot stand here"),
            Self::BadNames => f.write_str("the names are malformed"),
            Self::BadLength(len) => write!(f, "a payload of {len} bytes cannot stand here"),
            Self::NamesTooLong(len) => write!(f, "{len} bytes of names are too many"),
            Self::PayloadTooLong(len) => write!(f, "{len} bytes of payload are too many"),
        }
    }
}

impl core::error::Error for FrameError {}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(err) => err.fmt(f),
            Self::Unexpected => f.write_str("the frame may not come from this side now"),
            Self::MessageTooLong(stream) => {
                write!(f, "a message on stream {} is too long", stream.get())
            }
            Self::WindowExceeded(stream) => {
                write!(f, "stream {} has no credit for this", stream.get())
            }
            Self::TooManyStreams => f.write_str("too many streams are open"),
            Self::BadStream(stream) => {
                write!(f, "stream {} was not opened, or too late", stream.get())
            }
            Self::BadSequence(sequence) => write!(f, "the sequence {sequence} is not the next"),
            Self::BadAck(sequence) => write!(f, "the sequence {sequence} was not sent"),
            Self::BadLimits => f.write_str("a limit is out of its range"),
        }
    }
}

impl core::error::Error for LinkError {}

impl From<FrameError> for LinkError {
    fn from(err: FrameError) -> Self {
        Self::Frame(err)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the link is not set up yet",
            Self::Ended => "the link has ended",
            Self::Draining => "the peer is about to stop",
            Self::NoMoreStreams => "the peer allows no more streams",
            Self::NotAClient => "only clients open streams",
            Self::NotOpen => "the stream is not open",
            Self::NamesTooLong => "the names are too long",
            Self::Empty => "the message is empty",
            Self::TooLong => "the message is longer than the peer allows",
            Self::Full => "the stream's queue is full",
            Self::Overloaded => "the queues of the link are full",
        })
    }
}

impl core::error::Error for SendError {}

impl fmt::Display for NotResumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherLink => "another link is asked for",
            Self::OtherOwner => "the link belongs to somebody else",
            Self::Ended => "the link has ended",
            Self::BadSequence => "what was received does not fit to what was sent",
        })
    }
}

impl core::error::Error for NotResumable {}
