//! Servers by WebSocket: a connection takes the place of a child process, and a message that of a
//! line.

use std::time::Instant;

use wire::http1::{HEAD_END, write_header, write_request_line};
use wire::ws::{DeflateParams, Receiver, write_request_fields};

use crate::upstream::catalog::Endpoint;

/// The subprotocol that is offered.
pub const PROTOCOLS: &[&str] = &["mcp"];

/// Nothing is kept between messages, so that idle connections are cheap.
pub const DEFLATE: DeflateParams = DeflateParams::WITHOUT_CONTEXT;

/// A connection to such a server.
#[derive(Debug)]
pub struct WebSocket {
    /// TLS, if the URL says so.
    pub tls: Option<Box<rustls::ClientConnection>>,
    /// What the handshake is recognised by.
    pub nonce: [u8; 16],
    /// The front of the answer to the handshake.
    pub head: Vec<u8>,
    /// Frames to messages; none before the handshake is answered, and while a message is lent.
    pub frames: Option<Box<Receiver>>,
    /// Whether the handshake was answered and nothing has ended the conversation since.
    pub is_open: bool,
    /// Bytes of the longest message that may be compressed; 0 if none may.
    pub compress_len_max: usize,
    /// When it last sent or took something.
    pub alive_at: Instant,
    /// When it was last pinged.
    pub pinged_at: Option<Instant>,
}

impl WebSocket {
    /// A connection that is yet to be dialled.
    pub fn new(now: Instant) -> Self {
        Self {
            tls: None,
            nonce: [0; 16],
            head: Vec::new(),
            frames: None,
            is_open: false,
            compress_len_max: 0,
            alive_at: now,
            pinged_at: None,
        }
    }

    /// Appends the request that asks for a WebSocket.
    pub fn write_request(&self, out: &mut Vec<u8>, endpoint: &Endpoint) {
        write_request_line(out, "GET", &endpoint.target);
        write_header(out, "host", endpoint.authority.as_bytes());
        write_request_fields(out, &self.nonce, PROTOCOLS, Some(DEFLATE));
        for (name, value) in &endpoint.headers {
            write_header(out, name, value.reveal().as_bytes());
        }
        out.extend_from_slice(HEAD_END);
    }
}
