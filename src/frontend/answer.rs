//! The response heads that clients get.

use wire::http1::{HEAD_END, is_field_value, write_header, write_length, write_status_line};

use crate::refusal::write_cors;

/// The body that will follow a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection is closed.
    UntilClose,
}

/// A response head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The status.
    pub status: u16,
    /// The media type, if there is a body.
    pub content_type: Option<&'a [u8]>,
    /// The body.
    pub body: Body,
    /// `Mcp-Session-Id`, on the answer to `initialize`.
    pub session: Option<&'a [u8]>,
    /// The admitted origin of a browser.
    pub origin: Option<&'a [u8]>,
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

/// The media type of event streams.
pub const EVENT_STREAM: &[u8] = b"text/event-stream";
/// The media type of everything else.
pub const JSON: &[u8] = b"application/json";

impl Head<'_> {
    /// Appends the head.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_status_line(out, self.status);
        if let Some(content_type) = self.content_type {
            write_header(out, "content-type", content_type);
            if content_type.starts_with(EVENT_STREAM) {
                // Intermediaries must neither keep nor gather events.
                write_header(out, "cache-control", b"no-cache, no-transform");
                write_header(out, "x-accel-buffering", b"no");
            }
        }
        if let Some(session) = self.session {
            write_header(out, "mcp-session-id", session);
        }
        if self.origin.is_some() {
            write_cors(out, self.origin);
        }
        if !self.keep_alive {
            write_header(out, "connection", b"close");
        }
        match self.body {
            // RFC 9110, section 8.6: not with 204.
            Body::Length(_) if self.status == 204 => {}
            Body::Length(len) => write_length(out, len),
            Body::Chunked => write_header(out, "transfer-encoding", b"chunked"),
            Body::UntilClose => {}
        }
        out.extend_from_slice(HEAD_END);
    }
}

/// Appends the answer to a browser's preflight request (Fetch standard, section 4.8).
///
/// `asked` are the headers that the page wants to send: any may be sent, for what they mean is
/// checked when they come (`Mcp-Param-*` has no end).
pub fn write_preflight(out: &mut Vec<u8>, (origin, asked): (&[u8], &[u8]), keep_alive: bool) {
    write_status_line(out, 204);
    write_cors(out, Some(origin));
    write_header(out, "access-control-allow-methods", b"GET, POST, DELETE");
    if !asked.is_empty() && is_field_value(asked) {
        write_header(out, "access-control-allow-headers", asked);
    }
    write_header(out, "access-control-max-age", b"600");
    if !keep_alive {
        write_header(out, "connection", b"close");
    }
    out.extend_from_slice(HEAD_END);
}
