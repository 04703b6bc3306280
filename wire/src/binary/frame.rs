//! Frames of version 2: a header of 20 bytes, names, a payload.
//!
//! ```text
//!  0      1       2           4             8        12         20
//!  | kind | flags | names_len | payload_len | stream | sequence | names… | payload…
//! ```
//!
//! [`Frame::decode`] accepts exactly what [`Frame::encode`] writes, so each frame has one form. It
//! knows nothing of what came before. An error means that nothing behind it can be told apart.

use super::FrameError;
use crate::Decoded;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

/// Bytes in the header.
pub const HEADER_LEN: usize = 20;

/// Bytes in a names area.
pub const NAMES_LEN_MAX: usize = 8192;

/// Bytes of the text in CLOSE and ERROR that are sent.
pub const TEXT_LEN_MAX: usize = 512;

const RESUMED: u8 = 0x01;
const MESSAGE_KIND: u8 = 0x03;
const MORE: u8 = 0x04;

/// The number of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(NonZeroU32);

/// The name of a link, which is also the right to resume it. Made of chance by the server; never
/// printed. Zeros stand for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub [u8; 16]);

/// What one side asks of the other. See docs/protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of MESSAGE frames on a stream before the first CREDIT.
    pub window: u32,
    /// Bytes of payload in a frame.
    pub frame_len_max: u32,
    /// Bytes of a message.
    pub message_len_max: u32,
    /// Open streams.
    pub streams_max: u32,
    /// Bytes of frames that this side keeps until they are acknowledged.
    pub replay_len_max: u32,
}

/// How a client begins a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Who says so; empty when the connection proves it.
    pub token: &'a str,
    /// The client's name and version.
    pub agent: &'a str,
    /// The link to resume.
    pub link: LinkId,
    /// The last sequence that was received on it.
    pub received: u64,
    /// The client's limits.
    pub limits: Limits,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Whether the link of HELLO goes on.
    pub resumed: bool,
    /// The link.
    pub link: LinkId,
    /// The last sequence that was received on it.
    pub received: u64,
    /// The server's limits.
    pub limits: Limits,
    /// How long the server keeps a link without a connection.
    pub keep_ms: u32,
}

/// What a stream is opened for. All may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// The server; empty for all of them as one.
    pub server: &'a str,
    /// The session, in the server's terms.
    pub session: &'a str,
    /// The revision of MCP.
    pub revision: &'a str,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// It wants an answer.
    Request = 1,
    /// A result or an error.
    Response = 2,
    /// It wants none.
    Notification = 3,
}

/// What a router must know of a message. Both are empty when they were too long to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The method; empty in a response.
    pub method: &'a str,
    /// The tool, prompt or resource; else empty.
    pub name: &'a str,
}

/// A message, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What the message is.
    pub kind: MessageKind,
    /// In the first part only.
    pub facts: Option<Facts<'a>>,
    /// Whether another part follows.
    pub has_more: bool,
    /// The bytes of this part; never empty.
    pub payload: &'a [u8],
}

/// One frame, borrowed from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "docs/protocol.md has a table of them")]
pub enum Frame<'a> {
    Hello(Hello<'a>),
    Welcome(Welcome),
    Open { stream: StreamId, sequence: u64, open: Open<'a> },
    Message { stream: StreamId, sequence: u64, message: Message<'a> },
    Credit { stream: StreamId, limit: u64 },
    Close { stream: StreamId, sequence: u64, reason: u16, text: &'a str },
    Ack { received: u64 },
    Ping { token: [u8; 8] },
    Pong { token: [u8; 8] },
    GoAway { last_stream: u32, deadline_ms: u32 },
    Error { code: u16, text: &'a str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hello = 1,
    Welcome = 2,
    Open = 3,
    Message = 4,
    Credit = 5,
    Close = 6,
    Ack = 7,
    Ping = 8,
    Pong = 9,
    GoAway = 10,
    Error = 11,
}

/// A header that was accepted.
#[derive(Clone, Copy)]
struct Header {
    kind: Kind,
    flags: u8,
    names_len: u16,
    payload_len: u32,
    stream: u32,
    sequence: u64,
}

impl StreamId {
    /// The stream with this number.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl LinkId {
    /// No link.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::NONE { "LinkId::NONE" } else { "LinkId(..)" })
    }
}

impl fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hello {{ agent: {:?}, link: {:?}, .. }}", self.agent, self.link)
    }
}

impl Limits {
    /// Whether each limit is in its range.
    pub fn are_valid(&self) -> bool {
        (32 * 1024..=1 << 30).contains(&self.window)
            && (256..=1 << 20).contains(&self.frame_len_max)
            && (1..=1 << 30).contains(&self.message_len_max)
            && (1..=1 << 16).contains(&self.streams_max)
            && (64 * 1024..=1 << 30).contains(&self.replay_len_max)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let numbers = [
            self.window,
            self.frame_len_max,
            self.message_len_max,
            self.streams_max,
            self.replay_len_max,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Open,
            4 => Self::Message,
            5 => Self::Credit,
            6 => Self::Close,
            7 => Self::Ack,
            8 => Self::Ping,
            9 => Self::Pong,
            10 => Self::GoAway,
            11 => Self::Error,
            _ => return None,
        })
    }

    const fn has_stream(self) -> bool {
        matches!(self, Self::Open | Self::Message | Self::Credit | Self::Close)
    }

    /// Whether it must not get lost.
    const fn is_numbered(self) -> bool {
        matches!(self, Self::Open | Self::Message | Self::Close)
    }

    /// The length of the payload where it is fixed.
    const fn payload_len(self) -> Option<u32> {
        Some(match self {
            Self::Hello => 44,
            Self::Welcome => 48,
            Self::Open => 0,
            Self::Message => return None,
            Self::Credit | Self::Ack | Self::Ping | Self::Pong | Self::GoAway => 8,
            Self::Close | Self::Error => 2,
        })
    }
}

impl Header {
    /// Reads and judges the header at the front of `input`; `None` when it is not there yet.
    fn decode(input: &[u8], payload_len_max: u32) -> Result<Option<Self>, FrameError> {
        let Some(bytes) = input.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [kind, flags, n0, n1, p0, p1, p2, p3, s0, s1, s2, s3, sequence @ ..] = *bytes;
        let header = Self {
            kind: Kind::from_number(kind).ok_or(FrameError::UnknownKind(kind))?,
            flags,
            names_len: u16::from_be_bytes([n0, n1]),
            payload_len: u32::from_be_bytes([p0, p1, p2, p3]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            sequence: u64::from_be_bytes(sequence),
        };
        header.check(payload_len_max)?;
        Ok(Some(header))
    }

    fn check(&self, payload_len_max: u32) -> Result<(), FrameError> {
        let allowed = match self.kind {
            Kind::Welcome => RESUMED,
            Kind::Message => MESSAGE_KIND | MORE,
            _ => 0,
        };
        let is_kindless = self.kind == Kind::Message && self.flags & MESSAGE_KIND == 0;
        if self.flags & !allowed != 0 || is_kindless {
            return Err(FrameError::BadFlags(self.flags));
        }
        if self.kind.has_stream() != (self.stream != 0) {
            return Err(FrameError::BadStream(self.stream));
        }
        if self.kind.is_numbered() != (self.sequence != 0) {
            return Err(FrameError::BadSequence(self.sequence));
        }
        if NAMES_LEN_MAX < usize::from(self.names_len) {
            return Err(FrameError::NamesTooLong(self.names_len));
        }
        match self.kind.payload_len() {
            Some(len) if len != self.payload_len => Err(FrameError::BadLength(self.payload_len)),
            None if self.payload_len == 0 => Err(FrameError::BadLength(0)),
            None if payload_len_max < self.payload_len => {
                Err(FrameError::PayloadTooLong(self.payload_len))
            }
            _ => Ok(()),
        }
    }

    fn frame_len(&self) -> usize {
        HEADER_LEN + usize::from(self.names_len) + self.payload_len as usize
    }
}

/// The length of the frame at the front of `input`, from its header; `None` when that is not there
/// yet. `payload_len_max` is the receiver's own limit.
pub fn len(input: &[u8], payload_len_max: u32) -> Result<Option<usize>, FrameError> {
    Ok(Header::decode(input, payload_len_max)?.map(|header| header.frame_len()))
}

impl<'a> Frame<'a> {
    /// Reads the frame at the front of `input`.
    pub fn decode(input: &'a [u8], payload_len_max: u32) -> Result<Decoded<Self>, FrameError> {
        let Some(header) = Header::decode(input, payload_len_max)? else {
            return Ok(Decoded::Incomplete);
        };
        let used = header.frame_len();
        let Some(body) = input.get(HEADER_LEN..used) else { return Ok(Decoded::Incomplete) };
        let (names, payload) =
            body.split_at_checked(usize::from(header.names_len)).unwrap_or_default();
        let item = Self::assemble(header, Reader(names), Reader(payload));
        Ok(Decoded::Item { item: item.ok_or(FrameError::BadNames)?, used })
    }

    /// Puts a frame together; `None` when the names are wrong, for all else was judged before.
    fn assemble(header: Header, mut names: Reader<'a>, mut payload: Reader<'a>) -> Option<Self> {
        let Header { stream, sequence, .. } = header;
        let stream = StreamId::new(stream);
        let frame = match header.kind {
            Kind::Hello => Self::Hello(Hello {
                token: names.text()?,
                agent: names.text()?,
                link: LinkId(payload.array()?),
                received: payload.u64()?,
                limits: payload.limits()?,
            }),
            Kind::Welcome => Self::Welcome(Welcome {
                resumed: header.flags & RESUMED != 0,
                link: LinkId(payload.array()?),
                received: payload.u64()?,
                limits: payload.limits()?,
                keep_ms: payload.u32()?,
            }),
            Kind::Open => {
                let (server, session, revision) = (names.text()?, names.text()?, names.text()?);
                let open = Open { server, session, revision };
                Self::Open { stream: stream?, sequence, open }
            }
            Kind::Message => {
                let kind = match header.flags & MESSAGE_KIND {
                    1 => MessageKind::Request,
                    2 => MessageKind::Response,
                    _ => MessageKind::Notification,
                };
                let facts = match header.names_len {
                    0 => None,
                    _ => Some(Facts { method: names.text()?, name: names.text()? }),
                };
                let has_more = header.flags & MORE != 0;
                let message = Message { kind, facts, has_more, payload: payload.0 };
                Self::Message { stream: stream?, sequence, message }
            }
            Kind::Credit => Self::Credit { stream: stream?, limit: payload.u64()? },
            Kind::Close => {
                let (reason, text) = (payload.u16()?, names.text()?);
                Self::Close { stream: stream?, sequence, reason, text }
            }
            Kind::Ack => Self::Ack { received: payload.u64()? },
            Kind::Ping => Self::Ping { token: payload.array()? },
            Kind::Pong => Self::Pong { token: payload.array()? },
            Kind::GoAway => {
                Self::GoAway { last_stream: payload.u32()?, deadline_ms: payload.u32()? }
            }
            Kind::Error => Self::Error { code: payload.u16()?, text: names.text()? },
        };
        names.0.is_empty().then_some(frame)
    }

    /// The sequence, of a frame that must not get lost.
    pub const fn sequence(&self) -> Option<u64> {
        match self {
            Self::Open { sequence, .. }
            | Self::Message { sequence, .. }
            | Self::Close { sequence, .. } => Some(*sequence),
            _ => None,
        }
    }

    /// Appends the frame. Names that do not fit the area are the caller's fault: nothing is read
    /// back then.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello(hello) => {
                write_head(out, Kind::Hello, 0, 0, (0, 0), &[hello.token, hello.agent]);
                out.extend_from_slice(&hello.link.0);
                out.extend_from_slice(&hello.received.to_be_bytes());
                hello.limits.encode(out);
            }
            Self::Welcome(welcome) => {
                let flags = if welcome.resumed { RESUMED } else { 0 };
                write_head(out, Kind::Welcome, flags, 0, (0, 0), &[]);
                out.extend_from_slice(&welcome.link.0);
                out.extend_from_slice(&welcome.received.to_be_bytes());
                welcome.limits.encode(out);
                out.extend_from_slice(&welcome.keep_ms.to_be_bytes());
            }
            Self::Open { stream, sequence, open } => {
                let names = [open.server, open.session, open.revision];
                write_head(out, Kind::Open, 0, 0, (stream.get(), sequence), &names);
            }
            Self::Message { stream, sequence, message } => {
                let flags = message.kind as u8 | if message.has_more { MORE } else { 0 };
                let place = (stream.get(), sequence);
                let len = message.payload.len();
                match message.facts {
                    Some(Facts { method, name }) => {
                        write_head(out, Kind::Message, flags, len, place, &[method, name]);
                    }
                    None => write_head(out, Kind::Message, flags, len, place, &[]),
                }
                out.extend_from_slice(message.payload);
            }
            Self::Credit { stream, limit } => {
                write_head(out, Kind::Credit, 0, 0, (stream.get(), 0), &[]);
                out.extend_from_slice(&limit.to_be_bytes());
            }
            Self::Close { stream, sequence, reason, text } => {
                write_head(out, Kind::Close, 0, 0, (stream.get(), sequence), &[text]);
                out.extend_from_slice(&reason.to_be_bytes());
            }
            Self::Ack { received } => write_eight(out, Kind::Ack, received.to_be_bytes()),
            Self::Ping { token } => write_eight(out, Kind::Ping, token),
            Self::Pong { token } => write_eight(out, Kind::Pong, token),
            Self::GoAway { last_stream, deadline_ms } => {
                let number = u64::from(last_stream) << 32 | u64::from(deadline_ms);
                write_eight(out, Kind::GoAway, number.to_be_bytes());
            }
            Self::Error { code, text } => {
                write_head(out, Kind::Error, 0, 0, (0, 0), &[text]);
                out.extend_from_slice(&code.to_be_bytes());
            }
        }
    }
}

/// Bytes that names take in their area.
pub fn names_len(names: &[&str]) -> usize {
    names.iter().map(|name| 2 + name.len()).sum()
}

/// The longest front of `text` that is sent in CLOSE and ERROR.
pub(super) fn short_text(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_LEN_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Appends the header and the names. `len` is that of the payload where it is not fixed.
fn write_head(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u8,
    len: usize,
    (stream, sequence): (u32, u64),
    names: &[&str],
) {
    let len = kind.payload_len().unwrap_or(u32::try_from(len).unwrap_or(u32::MAX));
    let names_len = names_len(names);
    debug_assert!(names_len <= NAMES_LEN_MAX, "{names_len} bytes of names");
    out.extend_from_slice(&[kind as u8, flags]);
    out.extend_from_slice(&u16::try_from(names_len).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    for name in names {
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }
}

fn write_eight(out: &mut Vec<u8>, kind: Kind, payload: [u8; 8]) {
    write_head(out, kind, 0, 0, (0, 0), &[]);
    out.extend_from_slice(&payload);
}

/// Bytes not yet read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u16()?);
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        core::str::from_utf8(front).ok()
    }

    fn limits(&mut self) -> Option<Limits> {
        Some(Limits {
            window: self.u32()?,
            frame_len_max: self.u32()?,
            message_len_max: self.u32()?,
            streams_max: self.u32()?,
            replay_len_max: self.u32()?,
        })
    }
}

/// The properties that hold for every input. The fuzzer and the corpus test both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let decoded = Frame::decode(bytes, 4096);
    let len = len(bytes, 4096);
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = Frame::decode(bytes.get(..end).unwrap_or_default(), 4096);
        assert!(part == Ok(Decoded::Incomplete) || part == decoded, "more bytes change a frame");
    }
    let Ok(Decoded::Item { item, used }) = decoded else { return };
    assert_eq!(len, Ok(Some(used)));
    let mut again = Vec::new();
    item.encode(&mut again);
    assert_eq!(Some(&again[..]), bytes.get(..used), "a frame has two forms");
}
