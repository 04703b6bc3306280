//! One message on its way to a server, and the way back of its answer.
//!
//! An exchange knows both ends but does nothing itself; the shard moves it. It ends exactly once:
//! with an answer, a refusal, a cancellation or the end of the client's connection.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{ConnId, ExchangeId, ProcessId, SessionKey, UnionKey};
use crate::message::Era;
use crate::timers::Wish;
use crate::upstream::catalog::{EndpointId, ServerId};

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's JSON-RPC request.
    Request,
    /// A client's `initialize`, which opens a session.
    Initialize,
    /// A client's notification or response, to an HTTP server.
    Notice,
    /// The session's GET stream from an HTTP server.
    Listen,
    /// The DELETE of a session, to an HTTP server; nobody waits for it.
    Delete,
    /// The gateway's own `initialize`, to set up a session again or a shared process.
    Handshake,
    /// A message that the gateway repeats after a handshake of its own.
    Setup,
    /// The gateway's own `server/discover`, to learn whether a process is modern.
    Probe,
    /// The gateway's own `tools/list`, to learn which arguments are mirrored in headers.
    Learn,
    /// The event stream of an HTTP+SSE server, which is a process here.
    Open(ProcessId),
    /// A line for such a server.
    Line(ProcessId),
}

/// Where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Nowhere yet.
    Nothing,
    /// A connection to an HTTP server.
    Http(ConnId),
    /// A child process, under the gateway's own id.
    Process(ProcessId, u64),
    /// An exchange with one member of a view, whose answer is the answer.
    Leg(ExchangeId),
    /// Several members of a view, or one that cannot be told yet.
    Union(UnionKey),
}

/// Where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nobody wants it any more, or the gateway itself does.
    Nobody,
    /// This client connection waits, and nothing was sent to it yet.
    Pending(ConnId),
    /// The head of the response was sent; the body follows as it comes from the server.
    Relaying(ConnId),
    /// The same, and nothing but the answer may be sent to it.
    Whole(ConnId),
    /// The client gets an event stream that belongs to no session (2026-07-28).
    Events(ConnId),
    /// The answer is an event of this stream of the session.
    Stream(u32),
    /// The client has a connection on which answers come as they are ready.
    Channel(ConnId),
    /// A client of a view: its exchange, or the gateway itself on behalf of the view.
    Leg(UnionKey, Option<ExchangeId>),
}

impl Reply {
    /// The connection that waits, if the exchange has one of its own.
    pub fn client(self) -> Option<ConnId> {
        match self {
            Self::Pending(conn)
            | Self::Whole(conn)
            | Self::Relaying(conn)
            | Self::Events(conn)
            | Self::Channel(conn) => Some(conn),
            Self::Nobody | Self::Stream(_) | Self::Leg(..) => None,
        }
    }
}

/// The exchange.
#[derive(Debug)]
pub struct Exchange {
    /// What travels.
    pub kind: Kind,
    /// The era of the message.
    pub era: Era,
    /// The server it is for.
    pub server: ServerId,
    /// The endpoint that was chosen for it, if its session does not say.
    pub endpoint: Option<EndpointId>,
    /// Endpoints to which it could not be sent, a bit for each.
    pub tried: u64,
    /// The session it belongs to.
    pub session: Option<SessionKey>,
    /// Where it went.
    pub via: Via,
    /// Where the answer goes.
    pub reply: Reply,
    /// The client's id as raw JSON; empty for messages without one.
    pub id: Bytes,
    /// The client's progress token as raw JSON.
    pub token: Option<Bytes>,
    /// The message, kept while it may have to be sent again.
    pub message: Bytes,
    /// Header lines that go with it to an HTTP server.
    pub headers: Bytes,
    /// Method and name, for the log.
    pub label: Label,
    /// Whether the client wants its answer in the predecessor's envelope.
    pub is_enveloped: bool,
    /// Whether it may be sent again although the server may have seen it: lists and reads.
    pub is_repeatable: bool,
    /// Whether it was sent again already because the server did not know its session.
    pub retried: bool,
    /// Whether the client has cancelled it, and its HTTP server is told so.
    pub is_cancelled: bool,
    /// Whether it was sent again already because the server was lost.
    pub repeated: bool,
    /// The status of the response that is passed on as it is.
    pub relayed: Option<u16>,
    /// Whether that is an event stream whose answer has not come yet, and that can be ended.
    pub relay_awaits: bool,
    /// Whether the caller asked for log messages (2026-07-28).
    pub wants_logs: bool,
    /// The server's session that it was sent in.
    pub server_session: Option<Bytes>,
    /// The server's last event id, to go on with a stream that it breaks off.
    pub last_event_id: Option<Bytes>,
    /// How long the server asked to wait before that.
    pub retry: Duration,
    /// When to ask a server to go on with a stream that it broke off.
    pub resume_at: Option<Instant>,
    /// How often it was resumed without a new event.
    pub resumed: u8,
    /// When it began.
    pub started: Instant,
    /// Whether it is a subscription (2026-07-28), which has no end of its own.
    pub is_subscription: bool,
    /// How long the server may be silent.
    pub timeout: Option<Duration>,
    /// When the server's time is over.
    pub deadline: Option<Instant>,
    /// When something was last sent to the client.
    pub sent_at: Instant,
    /// Timer state.
    pub wish: Wish,
}

impl Exchange {
    /// Whether the answer had begun to come in an event stream that was broken off, and the server
    /// was or will be asked to go on with it.
    pub fn is_resumed(&self) -> bool {
        self.kind == Kind::Request && self.resumed != 0
    }
}

/// What the log says of an exchange. Peers chose the text.
#[derive(Clone, Debug, Default)]
pub struct Label {
    /// The JSON-RPC method.
    pub method: Box<[u8]>,
    /// The tool, prompt or resource.
    pub name: Option<Box<[u8]>>,
}
