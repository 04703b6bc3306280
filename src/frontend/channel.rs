//! One client connection on which messages go in both directions, with nothing around them: the
//! connection is the conversation.
//!
//! In the legacy era it is one session, which ends with it. In the modern era its requests belong
//! together only in that they end with it.

use std::time::Instant;

use wire::binary::v1::Dialect;
use wire::lines::LineReader;
use wire::ws::Receiver;

use crate::frontend::binary::{FrameReader, Stage};
use crate::frontend::websocket::WebSocket;
use crate::ids::{ExchangeId, Peer, SessionKey};
use crate::upstream::catalog::ServerId;

/// The client's side of such a connection.
#[derive(Debug)]
pub struct Channel {
    /// Who it is.
    pub peer: Peer,
    /// The server that it speaks with, unless it names another; none: it has to.
    pub server: Option<ServerId>,
    /// Bytes to messages.
    pub reader: Reader,
    /// Messages to bytes.
    pub writer: Writer,
    /// The session that its `initialize` opened.
    pub session: Option<SessionKey>,
    /// Sessions that the gateway opened on its behalf, with servers that it named.
    pub others: Vec<SessionKey>,
    /// Requests in flight that belong to no session.
    pub exchanges: Vec<ExchangeId>,
    /// The id of the predecessor's envelope (raw JSON) around the message that is being served.
    pub envelope: Option<Vec<u8>>,
    /// Whether the client will send no more.
    pub is_ended: bool,
    /// Bytes of an incomplete message that count against the shard's `GATHERED_LEN_MAX`.
    pub gathered: usize,
    /// When it last sent something.
    pub heard_at: Instant,
    /// Messages so far.
    pub messages: u64,
    /// Bytes received.
    pub received: u64,
    /// When it connected.
    pub opened_at: Instant,
}

/// Bytes to messages.
#[derive(Debug)]
pub enum Reader {
    /// One per line.
    Lines(LineReader),
    /// They come on other connections; bytes that came on this one and were ignored.
    Elsewhere(usize),
    /// Frames of the binary protocol, version 1.
    Binary(FrameReader),
    /// One per WebSocket message.
    Frames(Box<Receiver>),
    /// It has lent out a message, which is being served.
    Lent,
}

/// Messages to bytes.
#[derive(Debug)]
pub enum Writer {
    /// One per line.
    Lines,
    /// One per WebSocket message.
    Frames(Box<WebSocket>),
    /// Each is an event of a response whose head was sent (HTTP+SSE).
    Events {
        /// Whether the body is chunked; otherwise it ends with the connection.
        is_chunked: bool,
        /// What an event is.
        form: EventForm,
    },
    /// Messages of a stream of the binary protocol, version 2.
    Stream,
    /// Frames of the binary protocol, version 1, which has answers and nothing else.
    Binary(Dialect, Stage),
}

/// What an event of a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventForm {
    /// Any message, in an event of the type `message` (HTTP+SSE).
    Named,
    /// An answer, in an event without a type (the predecessor).
    Bare,
}

impl Writer {
    /// Whether the client can name a server with each message.
    pub fn has_namespaces(&self) -> bool {
        match self {
            Self::Lines | Self::Frames(_) | Self::Stream => false,
            Self::Events { form, .. } => *form == EventForm::Bare,
            Self::Binary(..) => true,
        }
    }

    /// Whether the client can be told what it has not asked for.
    pub fn has_events(&self) -> bool {
        match self {
            Self::Lines | Self::Frames(_) | Self::Stream => true,
            Self::Events { form, .. } => *form == EventForm::Named,
            Self::Binary(..) => false,
        }
    }

    /// How far a client of the binary protocol is.
    pub fn stage(&self) -> Option<(Dialect, Stage)> {
        match self {
            Self::Binary(dialect, stage) => Some((*dialect, *stage)),
            Self::Lines | Self::Frames(_) | Self::Events { .. } | Self::Stream => None,
        }
    }
}

impl Channel {
    /// A new conversation.
    pub fn new(
        peer: Peer,
        server: Option<ServerId>,
        (reader, writer): (Reader, Writer),
        now: Instant,
    ) -> Self {
        Self {
            peer,
            server,
            reader,
            writer,
            session: None,
            others: Vec::new(),
            exchanges: Vec::new(),
            envelope: None,
            is_ended: false,
            gathered: 0,
            heard_at: now,
            messages: 0,
            received: 0,
            opened_at: now,
        }
    }

    /// Whether its messages are events, and the client's come on other connections.
    pub fn is_stream(&self) -> bool {
        matches!(self.writer, Writer::Events { .. })
    }

    /// All its sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.session.into_iter().chain(self.others.iter().copied())
    }

    /// Bytes of an incomplete message that it holds.
    pub fn gathering(&self) -> usize {
        match &self.reader {
            Reader::Lines(lines) => lines.kept_len(),
            Reader::Elsewhere(_) => 0,
            Reader::Binary(frames) => frames.kept_len(),
            Reader::Frames(frames) => frames.memory_len(),
            Reader::Lent => self.gathered,
        }
    }
}
