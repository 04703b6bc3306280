//! Connections to Streamable HTTP servers: one request at a time on each, reused.

use std::time::Instant;

use bytes::Bytes;
use wire::http1::{BodyDecoder, HEAD_END, is_field_value, write_header, write_length};
use wire::sse::EventParser;

use crate::ids::ExchangeId;
use crate::upstream::catalog::{Endpoint, EndpointId, ServerId};

/// The server's side of a connection.
#[derive(Debug)]
pub struct ServerConn {
    /// Whose it is.
    pub server: ServerId,
    /// Where it leads.
    pub endpoint: EndpointId,
    /// What it carries; none: it is idle.
    pub exchange: Option<ExchangeId>,
    /// TLS, if the URL says so.
    pub tls: Option<Box<rustls::ClientConnection>>,
    /// Whether it is established.
    pub is_connected: bool,
    /// Exchanges it has carried, the current one included.
    pub uses: u64,
    /// Whether a byte of the current response has arrived.
    pub is_answering: bool,
    /// Interim responses in front of the current one.
    pub interims: u16,
    /// A response head that is not complete.
    pub head: Vec<u8>,
    /// The rest of the current response; none while the head is awaited.
    pub body: Option<ResponseBody>,
    /// Whether it counts as one of its pool's streams.
    pub is_stream: bool,
    /// When it was dialled or became idle.
    pub since: Instant,
}

/// A response whose head was seen.
#[derive(Debug)]
pub struct ResponseBody {
    /// Its framing.
    pub decoder: BodyDecoder,
    /// Whether the connection can be used again behind it.
    pub keep_alive: bool,
    /// What becomes of its bytes.
    pub sink: Sink,
}

/// What becomes of a response body.
#[derive(Debug)]
pub enum Sink {
    /// It goes to the client as it is. An event stream is read along with, until the answer is in
    /// it.
    Relay(Option<Box<EventParser>>),
    /// Its events are taken apart: each goes on the client's stream with an id of ours.
    Events(Box<EventParser>),
    /// It is looked at when it is complete.
    Gather {
        /// The status it came with.
        status: u16,
        /// What came so far.
        bytes: Vec<u8>,
        /// The media type.
        content_type: Option<Box<[u8]>>,
    },
    /// Nobody wants it.
    Discard,
}

impl ServerConn {
    /// A connection that is being dialled for an exchange.
    pub fn new(
        (server, endpoint): (ServerId, EndpointId),
        exchange: ExchangeId,
        tls: Option<Box<rustls::ClientConnection>>,
        now: Instant,
    ) -> Self {
        Self {
            server,
            endpoint,
            exchange: Some(exchange),
            tls,
            is_connected: false,
            uses: 1,
            is_answering: false,
            interims: 0,
            head: Vec::new(),
            body: None,
            is_stream: false,
            since: now,
        }
    }
}

/// A request to a server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Where to, if not to the endpoint itself.
    pub target: Option<&'a str>,
    /// The server's session id.
    pub session: Option<&'a [u8]>,
    /// Lines to add, each with its line end.
    pub headers: &'a [u8],
    /// Where to go on with a stream.
    pub last_event_id: Option<&'a [u8]>,
    /// The body; none for GET and DELETE.
    pub body: Option<&'a Bytes>,
}

impl Request<'_> {
    /// Appends the head.
    pub fn write_head(&self, out: &mut Vec<u8>, endpoint: &Endpoint) {
        wire::http1::write_request_line(out, self.method, self.target.unwrap_or(&endpoint.target));
        write_header(out, "host", endpoint.authority.as_bytes());
        match self.method {
            "POST" => {
                write_header(out, "accept", b"application/json, text/event-stream");
                write_header(out, "content-type", b"application/json");
            }
            "GET" => write_header(out, "accept", b"text/event-stream"),
            _ => {}
        }
        for (name, value) in &endpoint.headers {
            write_header(out, name, value.reveal().as_bytes());
        }
        if let Some(session) = self.session {
            write_header(out, "mcp-session-id", session);
        }
        if let Some(id) = self.last_event_id {
            write_header(out, "last-event-id", id);
        }
        out.extend_from_slice(self.headers);
        if let Some(body) = self.body {
            write_length(out, body.len() as u64);
        }
        out.extend_from_slice(HEAD_END);
    }
}

/// Whether a client's header goes on to the server as it is.
///
/// Everything else is the gateway's own business: framing, `Host`, `Origin`, credentials, cookies
/// and whatever a client might say of its own identity (DESIGN: nothing is passed by default).
pub fn is_forwarded(name: &str, value: &[u8]) -> bool {
    const NAMES: [&str; 6] =
        ["mcp-protocol-version", "mcp-method", "mcp-name", "traceparent", "tracestate", "baggage"];
    let is_listed = NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
    let is_param = name.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("mcp-param-"));
    (is_listed || is_param) && is_field_value(value)
}
