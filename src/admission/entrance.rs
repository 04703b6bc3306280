//! Where clients come in, and what they may speak there.

use crate::upstream::catalog::ServerId;

/// What a client speaks on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Streamable HTTP, and HTTP+SSE beside it.
    Http,
    /// HTTP+SSE alone (2024-11-05).
    Sse,
    /// Newline-delimited JSON-RPC, as on standard streams.
    Lines,
    /// The TCP binary protocol.
    Binary,
    /// WebSocket, and nothing before its handshake. Where HTTP is spoken, it can be asked for too.
    WebSocket,
}

/// One place where clients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// What is spoken there. Never empty.
    pub protocols: Vec<Protocol>,
    /// The server that clients get where the protocol does not let them name one; none: the same
    /// as at `/mcp`.
    pub server: Option<ServerId>,
    /// Users that may come in through a Unix socket; none: whoever the file lets in.
    pub users: Option<Vec<u32>>,
}

impl Entrance {
    /// One where clients speak this.
    pub fn of(protocol: Protocol) -> Self {
        Self { protocols: vec![protocol], server: None, users: None }
    }

    /// One where clients speak WebSocket.
    pub fn web_socket() -> Self {
        Self { protocols: vec![Protocol::WebSocket], server: None, users: None }
    }

    /// Whether this is spoken there.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.protocols.contains(&protocol)
    }
}
