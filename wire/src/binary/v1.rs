//! Version 1 of the TCP binary protocol, in both dialects of the predecessor.
//!
//! ```text
//!  0         4         6         8              12
//!  | "MCPB"  | version | kind    | payload_len  | payload
//!  0         4         6         8              12             16
//!  | "MCP\0" | version | kind    | reserved     | payload_len  | payload
//! ```
//!
//! Every error means: close the connection, for nothing behind it can be told apart. Requests are
//! read by [`crate::envelope`]; what to answer, and when, is the caller's. See docs/protocol.md.

use crate::Decoded;
use crate::envelope::{self, EnvelopeError};
use alloc::vec::Vec;
use core::fmt;

/// The largest payload a peer may announce.
pub const PAYLOAD_LEN_MAX: u32 = 10 * 1024 * 1024;

/// The version that every header carries.
pub const VERSION: u16 = 1;

/// How deep the JSON of a negotiation may be nested.
const DEPTH_MAX: u16 = 4;

/// Texts of error frames and of JSON-RPC errors. Those that end in a blank want a reason behind.
pub mod text {
    /// The first frame is no negotiation. Then close.
    pub const NEGOTIATION_REQUIRED: &str = "Version negotiation required";
    /// No version in common. Then close.
    pub const NEGOTIATION_FAILED: &str = "Version negotiation failed: ";
    /// A payload that is no [`super::Offer`]. Then close.
    pub const NEGOTIATION_INVALID: &str = "Invalid version negotiation payload";
    /// A second negotiation.
    pub const NEGOTIATED_ALREADY: &str = "Version already negotiated";
    /// A response frame from a client.
    pub const RESPONSE_UNEXPECTED: &str = "Unexpected response message from client";
    /// An ack from a client.
    pub const ACK_UNEXPECTED: &str = "Unexpected version ack from client";
    /// A request before `initialize`.
    pub const INITIALIZE_REQUIRED: &str = "Unauthorized: must initialize first";
    /// `initialize` without a token.
    pub const TOKEN_MISSING: &str =
        "[tcp_handler] initialize: UNAUTHORIZED: missing authentication token";
    /// `initialize` with a bad token. Then close.
    pub const TOKEN_REFUSED: &str = "Authentication failed";
    /// The session cannot be kept. Then close.
    pub const SESSION_FAILED: &str = "Failed to create session";
    /// A bad token around a message. Then close.
    pub const MESSAGE_TOKEN_REFUSED: &str = "Per-message authentication failed";
    /// Too many requests. Then close.
    pub const RATE_LIMITED: &str = "Rate limit exceeded";
    /// The request could not be forwarded.
    pub const ROUTING_FAILED: &str = "Routing failed: ";
}

/// Which of the two headers a peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 12 bytes: the predecessor's gateway, and where version 2 is offered.
    Short,
    /// 16 bytes: the predecessor's router.
    Long,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON-RPC message of the client.
    Request = 1,
    /// A JSON-RPC message of the server.
    Response = 2,
    /// A JSON object without effect.
    Control = 3,
    /// A sign of life.
    HealthCheck = 4,
    /// Plain text.
    Error = 5,
    /// An [`Offer`].
    VersionNegotiation = 6,
    /// The version that was agreed on.
    VersionAck = 7,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The header's form.
    pub dialect: Dialect,
    /// What the payload is.
    pub kind: Kind,
    /// Bytes that follow.
    pub payload_len: u32,
}

/// One frame, borrowed from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header's form.
    pub dialect: Dialect,
    /// What the payload is.
    pub kind: Kind,
    /// The payload, not yet looked at.
    pub payload: &'a [u8],
}

/// The versions that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The lowest; 0 when the client does not say.
    pub min: u32,
    /// The highest; 0 when the client does not say.
    pub max: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Neither magic, or not the one that the peer began with.
    BadMagic,
    /// A header of another version.
    UnknownVersion(u16),
    /// A kind that does not exist.
    UnknownKind(u16),
    /// More than [`PAYLOAD_LEN_MAX`].
    PayloadTooLong(u32),
}

/// Why a payload is no negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiationError {
    /// No object, or one that is ambiguous.
    Document(EnvelopeError),
    /// A version that is no small number.
    BadVersion,
}

impl Dialect {
    /// Bytes in the header.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Short => 12,
            Self::Long => 16,
        }
    }

    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Short => *b"MCPB",
            Self::Long => *b"MCP\0",
        }
    }
}

impl Kind {
    const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Control,
            4 => Self::HealthCheck,
            5 => Self::Error,
            6 => Self::VersionNegotiation,
            7 => Self::VersionAck,
            _ => return None,
        })
    }
}

impl Header {
    /// Reads the header at the front of `input`, and refuses it as early as it can. `expected` is
    /// the dialect of the first frame of the connection, for all frames behind it.
    pub fn decode(input: &[u8], expected: Option<Dialect>) -> Result<Decoded<Self>, FrameError> {
        let is_it = |dialect: &Dialect| {
            let mut pairs = dialect.magic().into_iter().zip(input);
            expected.is_none_or(|expected| expected == *dialect)
                && pairs.all(|(magic, byte)| magic == *byte)
        };
        let dialect = [Dialect::Short, Dialect::Long].into_iter().find(is_it);
        let dialect = dialect.ok_or(FrameError::BadMagic)?;
        let Some((front, rest)) = input.split_first_chunk::<8>() else {
            return Ok(Decoded::Incomplete);
        };
        let [_, _, _, _, v0, v1, k0, k1] = *front;
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(FrameError::UnknownVersion(version));
        }
        let number = u16::from_be_bytes([k0, k1]);
        let kind = Kind::from_number(number).ok_or(FrameError::UnknownKind(number))?;
        let len_bytes = match dialect {
            Dialect::Short => rest.first_chunk::<4>(),
            Dialect::Long => rest.get(4..).unwrap_or_default().first_chunk::<4>(),
        };
        let Some(len_bytes) = len_bytes else { return Ok(Decoded::Incomplete) };
        let payload_len = u32::from_be_bytes(*len_bytes);
        if PAYLOAD_LEN_MAX < payload_len {
            return Err(FrameError::PayloadTooLong(payload_len));
        }
        let item = Self { dialect, kind, payload_len };
        Ok(Decoded::Item { item, used: dialect.header_len() })
    }
}

impl<'a> Frame<'a> {
    /// Reads the frame at the front of `input`; see [`Header::decode`].
    pub fn decode(input: &'a [u8], expected: Option<Dialect>) -> Result<Decoded<Self>, FrameError> {
        let (header, used) = match Header::decode(input, expected)? {
            Decoded::Item { item, used } => (item, used),
            Decoded::Incomplete => return Ok(Decoded::Incomplete),
        };
        let end = used + header.payload_len as usize;
        let Some(payload) = input.get(used..end) else { return Ok(Decoded::Incomplete) };
        let item = Self { dialect: header.dialect, kind: header.kind, payload };
        Ok(Decoded::Item { item, used: end })
    }
}

impl Offer {
    /// Reads the payload of [`Kind::VersionNegotiation`]. Only the two bounds count.
    pub fn decode(payload: &[u8]) -> Result<Self, NegotiationError> {
        let keys = ["min_version", "max_version"];
        let [min, max] = envelope::members(payload, DEPTH_MAX, keys)?;
        let number =
            |span: Option<envelope::Span>| span.map_or(Ok(0), |span| version(span.get(payload)));
        Ok(Self { min: number(min)?, max: number(max)? })
    }

    /// The highest version that the client and we speak, when we speak 1 to `ours_max`. The
    /// caller passes 1 for [`Dialect::Long`].
    pub fn agree(self, ours_max: u32) -> Option<u32> {
        let highest = self.max.min(ours_max);
        (self.min.max(1) <= highest).then_some(highest)
    }
}

/// Reads the payload of [`Kind::VersionAck`].
pub fn decode_ack(payload: &[u8]) -> Result<u32, NegotiationError> {
    let [agreed] = envelope::members(payload, DEPTH_MAX, ["agreed_version"])?;
    agreed.map_or(Err(NegotiationError::BadVersion), |span| version(span.get(payload)))
}

/// Appends a header; `payload_len` bytes follow it.
pub fn write_header(out: &mut Vec<u8>, dialect: Dialect, kind: Kind, payload_len: usize) {
    debug_assert!(payload_len <= PAYLOAD_LEN_MAX as usize, "the sender must refuse");
    out.extend_from_slice(&dialect.magic());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    if dialect == Dialect::Long {
        out.extend_from_slice(&[0; 4]);
    }
    let payload_len = u32::try_from(payload_len).unwrap_or(u32::MAX);
    out.extend_from_slice(&payload_len.to_be_bytes());
}

/// Appends a frame.
pub fn write_frame(out: &mut Vec<u8>, dialect: Dialect, kind: Kind, payload: &[u8]) {
    write_header(out, dialect, kind, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the offer of a client that speaks 1 to `max`.
pub fn write_offer(out: &mut Vec<u8>, dialect: Dialect, max: u32) {
    let all: Vec<_> = (VERSION.into()..=max).map(|it| alloc::format!("{it}")).collect();
    let payload = alloc::format!(
        "{{\"min_version\":1,\"max_version\":{max},\"preferred_version\":{max},\
         \"supported_versions\":[{}]}}",
        all.join(",")
    );
    write_frame(out, dialect, Kind::VersionNegotiation, payload.as_bytes());
}

/// Appends the answer to an offer.
pub fn write_ack(out: &mut Vec<u8>, dialect: Dialect, version: u32) {
    let payload = alloc::format!("{{\"agreed_version\":{version}}}");
    write_frame(out, dialect, Kind::VersionAck, payload.as_bytes());
}

fn version(token: &[u8]) -> Result<u32, NegotiationError> {
    let digits = core::str::from_utf8(token).ok();
    digits.and_then(|digits| digits.parse().ok()).ok_or(NegotiationError::BadVersion)
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => f.write_str("start each frame with the bytes 4D 43 50 and 42 or 00"),
            Self::UnknownVersion(version) => {
                write!(f, "set the header's version to {VERSION}, not {version}")
            }
            Self::UnknownKind(kind) => write!(f, "the message type {kind} does not exist"),
            Self::PayloadTooLong(len) => {
                write!(f, "send at most {PAYLOAD_LEN_MAX} bytes of payload, not {len}")
            }
        }
    }
}

impl core::error::Error for FrameError {}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(err) => err.fmt(f),
            Self::BadVersion => f.write_str("make versions small whole numbers"),
        }
    }
}

impl core::error::Error for NegotiationError {}

impl From<EnvelopeError> for NegotiationError {
    fn from(err: EnvelopeError) -> Self {
        Self::Document(err)
    }
}

/// The properties that hold for every input. The fuzzer and the corpus test both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let decoded = Frame::decode(bytes, None);
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = Frame::decode(bytes.get(..end).unwrap_or_default(), None);
        assert!(part == Ok(Decoded::Incomplete) || part == decoded, "more bytes change a frame");
    }
    let Ok(Decoded::Item { item, used }) = decoded else { return };
    let mut again = Vec::new();
    write_frame(&mut again, item.dialect, item.kind, item.payload);
    let other = Frame::decode(&again, Some(item.dialect));
    assert_eq!(other, Ok(Decoded::Item { item, used }), "a frame changes in writing");
    if let Ok(offer) = Offer::decode(item.payload)
        && let Some(agreed) = offer.agree(2)
    {
        assert!(offer.min <= agreed && agreed <= offer.max && (1..=2).contains(&agreed));
    }
}
