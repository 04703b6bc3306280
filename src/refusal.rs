//! Why something was not served, and everything that follows from it.
//!
//! One variant for each thing that a caller does differently. Status, JSON-RPC code, label and
//! sentence are looked up here and nowhere else, so that they cannot disagree.

use wire::http1::{HeadError, write_header, write_length, write_status_line};
use wire::rpc::RpcError;
use wire::ws::RequestError;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not HTTP as RFC 9112 has it.
    Head(HeadError),
    /// The request cannot become a WebSocket, or must and does not ask for it.
    Handshake(RequestError),
    /// The framing of the body is broken.
    Body,
    /// `Host` is none of ours.
    Host,
    /// `Origin` is none that we admit.
    Origin,
    /// There is nothing at this path.
    Path,
    /// There is no server of this name.
    Server,
    /// The path has no such method.
    Method,
    /// The same, where there is only GET.
    NotGet,
    /// The same, where there is only POST.
    NotPost,
    /// There is no bearer token where the predecessor wants one.
    Unauthorized,
    /// No event stream of the predecessor's kind has this token.
    NoStream,
    /// Several have it.
    SeveralStreams,
    /// The body is not `application/json`.
    ContentType,
    /// The body is compressed.
    ContentEncoding,
    /// The client does not take both kinds of answers.
    Accept,
    /// GET without `text/event-stream`.
    AcceptEvents,
    /// The message is larger than `limits.message`.
    TooLarge,
    /// The head or the body did not arrive in time.
    TooSlow,
    /// The body is no JSON-RPC message.
    Rpc(RpcError),
    /// An envelope in which no message is found.
    Envelope,
    /// A batch where the revision has none, or one that may not be sent.
    Batch,
    /// Neither `initialize` nor a session id.
    NoSession,
    /// The session has ended or never was.
    UnknownSession,
    /// Too many unknown sessions from one source.
    Guesses,
    /// `initialize` on a connection that has a session.
    Initialized,
    /// The id of a request that is in flight on the same connection.
    UsedId,
    /// An id or a progress token that is too long to be one.
    LongId,
    /// `MCP-Protocol-Version` names a revision that we do not know.
    Version,
    /// The same for 2026-07-28 and later: has a code of its own.
    ModernVersion,
    /// A mirrored header is missing or differs from the body.
    HeaderMismatch,
    /// The metadata that 2026-07-28 requires is missing.
    Metadata,
    /// A JSON-RPC response where the revision allows none.
    Response,
    /// `Last-Event-ID` names nothing that can be resumed.
    Event,
    /// A bound of ours was reached.
    Full,
    /// The gateway is being stopped.
    Draining,
    /// The server cannot be reached or started.
    Unreachable,
    /// The server went away before it answered.
    Died,
    /// What the server sent is not the protocol.
    BadServer,
    /// The server does not accept our credentials.
    Credentials,
    /// The server did not answer in time.
    Timeout,
    /// No server of a view has a tool or prompt of this name.
    Name,
    /// No server of a view has a resource of this URI.
    Resource,
    /// A method that says nothing of which server of a view it is for.
    NotUnited,
    /// A cursor that was not given out.
    Cursor,
    /// A request of 2026-07-28 for a server that knows only `initialize`.
    LegacyServer,
    /// A fault of the gateway's own.
    Fault,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Handshake(error) => error.status(),
            Self::Body
            | Self::Rpc(_)
            | Self::Envelope
            | Self::Batch
            | Self::NoSession
            | Self::Initialized
            | Self::UsedId
            | Self::LongId
            | Self::Version
            | Self::ModernVersion
            | Self::HeaderMismatch
            | Self::Metadata
            | Self::Response
            | Self::Event
            | Self::LegacyServer
            | Self::Name
            | Self::Cursor => 400,
            Self::Unauthorized => 401,
            Self::Host | Self::Origin => 403,
            Self::Path
            | Self::Server
            | Self::UnknownSession
            | Self::NoStream
            | Self::Resource
            | Self::NotUnited => 404,
            Self::Method | Self::NotGet | Self::NotPost => 405,
            Self::Accept | Self::AcceptEvents => 406,
            Self::TooSlow => 408,
            Self::SeveralStreams => 409,
            Self::TooLarge => 413,
            Self::ContentType | Self::ContentEncoding => 415,
            Self::Guesses => 429,
            Self::Fault => 500,
            Self::Unreachable | Self::Died | Self::BadServer | Self::Credentials => 502,
            Self::Full | Self::Draining => 503,
            Self::Timeout => 504,
        }
    }

    /// The JSON-RPC code.
    pub fn code(self) -> i32 {
        match self {
            Self::Rpc(error) => error.code(),
            Self::HeaderMismatch => -32020,
            Self::ModernVersion => -32022,
            Self::Metadata | Self::Name | Self::Cursor => -32602,
            Self::Resource => -32002,
            Self::NotUnited => -32601,
            Self::Fault
            | Self::Full
            | Self::Draining
            | Self::Unreachable
            | Self::Died
            | Self::BadServer
            | Self::Credentials
            | Self::Timeout => -32603,
            _ => -32600,
        }
    }

    /// Its name in logs and in the error's `data`, so that nobody takes it for the server's word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Head(_) => "bad_head",
            Self::Handshake(_) => "bad_handshake",
            Self::Body => "bad_body",
            Self::Host => "bad_host",
            Self::Origin => "bad_origin",
            Self::Path => "no_such_path",
            Self::Server => "no_such_server",
            Self::Method | Self::NotGet | Self::NotPost => "bad_method",
            Self::Unauthorized => "no_token",
            Self::NoStream => "no_stream",
            Self::SeveralStreams => "several_streams",
            Self::ContentType => "bad_content_type",
            Self::ContentEncoding => "bad_content_encoding",
            Self::Accept | Self::AcceptEvents => "bad_accept",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Rpc(_) => "bad_message",
            Self::Envelope => "bad_envelope",
            Self::Batch => "bad_batch",
            Self::NoSession => "no_session",
            Self::UnknownSession => "unknown_session",
            Self::Guesses => "too_many_unknown_sessions",
            Self::Initialized => "already_initialized",
            Self::UsedId => "used_id",
            Self::LongId => "long_id",
            Self::Version | Self::ModernVersion => "unsupported_version",
            Self::HeaderMismatch => "header_mismatch",
            Self::Metadata => "missing_metadata",
            Self::Response => "unexpected_response",
            Self::Event => "unknown_event",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Unreachable => "server_unreachable",
            Self::Died => "server_died",
            Self::BadServer => "server_invalid",
            Self::Credentials => "server_credentials",
            Self::Timeout => "server_timeout",
            Self::Name => "no_such_name",
            Self::Resource => "no_such_resource",
            Self::NotUnited => "not_united",
            Self::Cursor => "unknown_cursor",
            Self::LegacyServer => "legacy_server",
            Self::Fault => "fault",
        }
    }

    /// What is wrong and what would be right.
    fn sentence(self) -> &'static str {
        match self {
            Self::Head(_) | Self::Rpc(_) | Self::Handshake(_) => "",
            Self::Body => "The request body is not framed as RFC 9112 section 7 demands.",
            Self::Host => "This Host is not served here; add it to listen.hosts.",
            Self::Origin => "This Origin is not admitted; add it to listen.origins.",
            Self::Path => {
                "Nothing is here; MCP is at /mcp/{server}, and HTTP+SSE at /sse/{server}."
            }
            Self::Server => "No server of this name is configured.",
            Self::Method => "Use POST, GET or DELETE.",
            Self::NotGet => {
                "Use GET; messages are sent to the address that the stream names first."
            }
            Self::NotPost => "Use POST.",
            Self::Unauthorized => "Send Authorization: Bearer and a token.",
            Self::NoStream => "There is no event stream with this token; GET /events opens one.",
            Self::SeveralStreams => {
                "Several event streams have this token; send the Mcp-Session-Id of one of them."
            }
            Self::ContentType => "Send Content-Type: application/json.",
            Self::ContentEncoding => "Send the body without Content-Encoding.",
            Self::Accept => "Send Accept: application/json, text/event-stream.",
            Self::AcceptEvents => "Send Accept: text/event-stream.",
            Self::TooLarge => "The message is larger than limits.message allows.",
            Self::TooSlow => "The request did not arrive in time.",
            Self::Envelope => "Put one JSON-RPC message into mcp_payload or message, as JSON.",
            Self::Batch => "Batches exist only in revision 2025-03-26, without initialize in them.",
            Self::NoSession => {
                "Send initialize first; over HTTP, its Mcp-Session-Id goes with every request."
            }
            Self::Initialized => "This connection has a session; open another for a new one.",
            Self::UsedId => "A request with this id is in flight on this connection.",
            Self::UnknownSession => "This session has ended or never was; send initialize again.",
            Self::Guesses => "Too many requests from here name unknown sessions; try again later.",
            Self::LongId => "Ids and progress tokens have at most 1024 bytes.",
            Self::Version | Self::ModernVersion => "This protocol version is not supported.",
            Self::HeaderMismatch => {
                "MCP-Protocol-Version, Mcp-Method and Mcp-Name must be sent and equal the body."
            }
            Self::Metadata => {
                "params._meta needs io.modelcontextprotocol/protocolVersion and \
                 io.modelcontextprotocol/clientCapabilities."
            }
            Self::Response => "Responses are not sent by clients in this revision.",
            Self::Event => "This Last-Event-ID is unknown or its events are no longer kept.",
            Self::Full => "The gateway has reached a limit; try again later.",
            Self::Draining => "The gateway is being stopped; connect again.",
            Self::Unreachable => "The server cannot be reached or started.",
            Self::Died => "The server went away before it answered.",
            Self::BadServer => "The server's answer is not valid.",
            Self::Credentials => "The server refused the gateway's credentials.",
            Self::Timeout => "The server did not answer in time.",
            Self::Name => "No server here has anything of this name; the list says what there is.",
            Self::Resource => "No server here has this resource; the list says which there are.",
            Self::NotUnited => {
                "Nothing says which of the servers this is for; send it to /mcp/{server}."
            }
            Self::Cursor => "This cursor was not given out here; ask for the first page again.",
            Self::LegacyServer => "This server knows only the initialize handshake.",
            Self::Fault => "The gateway failed to handle this request; it was logged.",
        }
    }

    /// Whether the same request may be sent again later without being changed.
    fn is_temporary(self) -> bool {
        matches!(self, Self::Full | Self::Draining | Self::Unreachable | Self::Guesses)
    }

    fn text(self) -> String {
        match self {
            Self::Head(error) => error.to_string(),
            Self::Handshake(error) => error.to_string(),
            Self::Rpc(error) => error.to_string(),
            other => other.sentence().to_owned(),
        }
    }

    /// Appends what the predecessor says instead: an object with a sentence, its own if it has
    /// one.
    fn write_plain_error(self, out: &mut Vec<u8>) {
        match self {
            Self::Unauthorized => write_plain_error(out, "unauthorized"),
            Self::Method | Self::NotGet | Self::NotPost => {
                write_plain_error(out, "method not allowed");
            }
            Self::NoStream => write_plain_error(out, "stream not found"),
            other => write_plain_error(out, &other.text()),
        }
    }

    /// Appends the JSON-RPC error response. `id` is raw JSON; `requested` is the version that was
    /// asked for, if that is what is wrong.
    pub fn write_error(self, out: &mut Vec<u8>, id: &[u8], requested: Option<&[u8]>) {
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        out.extend_from_slice(id);
        out.extend_from_slice(b",\"error\":{\"code\":");
        out.extend_from_slice(self.code().to_string().as_bytes());
        out.extend_from_slice(b",\"message\":");
        wire::json::write_string(out, &self.text());
        out.extend_from_slice(b",\"data\":{\"gateway\":\"");
        out.extend_from_slice(self.label().as_bytes());
        out.push(b'"');
        if let Some(requested) = requested {
            out.extend_from_slice(b",\"supported\":[\"2026-07-28\"],\"requested\":");
            wire::json::write_string(out, &String::from_utf8_lossy(requested));
        }
        out.extend_from_slice(b"}}}");
    }

    /// Appends a whole HTTP response that says so.
    pub fn write_response(self, out: &mut Vec<u8>, answer: Answer<'_>) {
        let mut body = Vec::with_capacity(256);
        if answer.is_plain {
            self.write_plain_error(&mut body);
        } else {
            self.write_error(&mut body, answer.id, answer.requested);
        }
        write_status_line(out, self.status());
        write_header(out, "content-type", b"application/json");
        let fields: &[_] = match self {
            Self::Handshake(error) => error.fields(),
            Self::Method => &[("allow", "GET, POST, DELETE")],
            Self::NotGet => &[("allow", "GET")],
            Self::NotPost => &[("allow", "POST")],
            Self::Unauthorized => &[("www-authenticate", "Bearer")],
            _ => &[],
        };
        for (name, value) in fields {
            write_header(out, name, value.as_bytes());
        }
        if self.is_temporary() {
            write_header(out, "retry-after", b"1");
        }
        // Who names a protocol in Upgrade names Upgrade in Connection (RFC 9110 §7.8).
        match (answer.keep_alive, self.status() == 426) {
            (true, true) => write_header(out, "connection", b"Upgrade"),
            (false, true) => write_header(out, "connection", b"close, Upgrade"),
            (false, false) => write_header(out, "connection", b"close"),
            (true, false) => {}
        }
        write_cors(out, answer.origin);
        write_length(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
        if !answer.is_head {
            out.extend_from_slice(&body);
        }
    }
}

/// Appends an error as the predecessor has it.
pub fn write_plain_error(out: &mut Vec<u8>, words: &str) {
    out.extend_from_slice(b"{\"error\":");
    wire::json::write_string(out, words);
    out.push(b'}');
}

/// Lets a browser page of an admitted origin read the response (Fetch standard, section 3.2).
pub fn write_cors(out: &mut Vec<u8>, origin: Option<&[u8]>) {
    let Some(origin) = origin else { return };
    write_header(out, "access-control-allow-origin", origin);
    write_header(out, "vary", b"Origin");
    write_header(out, "access-control-expose-headers", b"Mcp-Session-Id, MCP-Protocol-Version");
}

/// What a refusal says besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The request's id as raw JSON; `null` when it is not known.
    pub id: &'a [u8],
    /// The admitted origin of a browser.
    pub origin: Option<&'a [u8]>,
    /// The version asked for, if that is what is wrong.
    pub requested: Option<&'a [u8]>,
    /// Whether it is written as the predecessor does, and not as a JSON-RPC message.
    pub is_plain: bool,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Whether it answers HEAD, which never has a body (RFC 9110, section 9.3.2).
    pub is_head: bool,
}
