//! One client connection: HTTP/1.1, one request at a time, later ones wait in its inbox.
//!
//! A request that arrives whole is served from the receive buffer. Otherwise its bytes are
//! gathered: behind the head if it has a `Content-Length`, decoded if it is chunked.

use std::time::Instant;

use wire::http1::BodyDecoder;

use crate::ids::{ConnId, ExchangeId, Peer, SessionKey, ShardId};

/// The client's side of a connection.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from.
    pub peer: Peer,
    /// How often it moved between shards.
    pub moves: u8,
    /// Bytes received and not used: a request that is not complete, or later requests.
    pub inbox: Vec<u8>,
    /// Bytes that `inbox` must have before it is worth looking at it again.
    pub need: usize,
    /// A chunked body that is not complete; its head.
    pub chunked: Option<Box<Chunked>>,
    /// Whether `100 Continue` was sent for the request in `inbox`.
    pub continued: bool,
    /// Bytes that count against the shard's `GATHERED_LEN_MAX`.
    pub gathered: usize,
    /// What it waits for.
    pub busy: Busy,
    /// How the current response is framed.
    pub framing: Framing,
    /// What the current request may be answered.
    pub form: Form,
    /// The admitted `Origin` of the current request.
    pub origin: Option<Box<[u8]>>,
    /// Since when it waits for the rest of a request, or for the next one.
    pub waits_since: Instant,
    /// Whether the first byte of a request has arrived.
    pub in_request: bool,
    /// Requests so far.
    pub requests: u64,
    /// Bytes received.
    pub received: u64,
    /// When it connected.
    pub opened_at: Instant,
    /// The shard and connection that it is really connected to, if it is the end of a tunnel.
    pub near: Option<Near>,
    /// Bytes of the output that came through a tunnel and were not reported as sent.
    pub tunnelled: usize,
}

/// The near end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// The shard.
    pub shard: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// Bytes sent into the tunnel that the near end has not passed on.
    pub in_tunnel: usize,
}

/// A chunked request that is not complete.
#[derive(Debug)]
pub struct Chunked {
    /// The head, raw.
    pub head: Vec<u8>,
    /// The rest of the framing.
    pub decoder: BodyDecoder,
    /// The body so far.
    pub body: Vec<u8>,
}

/// What a client connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The next request.
    No,
    /// The answer of an exchange.
    Exchange(ExchangeId),
    /// Events of a session's stream.
    Stream(SessionKey, u32),
    /// Another shard.
    Tunnel(ShardId),
}

/// What a request may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whatever Streamable HTTP has: a message, or an event stream with messages.
    Any,
    /// The predecessor's: one message whatever happens, and 200 for every answer of a server.
    Whole,
    /// The predecessor's as well: nothing; refusals are an object with a sentence.
    Words,
}

/// How the current response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Whether the body is chunked.
    pub chunked: bool,
    /// Whether the client understands chunks (HTTP/1.1).
    pub can_chunk: bool,
    /// Whether the connection can be used again after it.
    pub keep_alive: bool,
    /// Whether it answers HEAD: then no body follows.
    pub is_head: bool,
}

impl Client {
    /// A new connection.
    pub fn new(peer: Peer, now: Instant) -> Self {
        Self {
            peer,
            moves: 0,
            inbox: Vec::new(),
            need: 0,
            chunked: None,
            continued: false,
            gathered: 0,
            busy: Busy::No,
            framing: Framing { chunked: false, can_chunk: true, keep_alive: true, is_head: false },
            form: Form::Any,
            origin: None,
            waits_since: now,
            in_request: false,
            requests: 0,
            received: 0,
            opened_at: now,
            near: None,
            tunnelled: 0,
        }
    }

    /// Bytes of incomplete messages that it holds.
    pub fn gathering(&self) -> usize {
        let chunked = self.chunked.as_ref().map_or(0, |chunked| chunked.body.len());
        self.inbox.len() + chunked
    }
}

/// Path and query of a request target, which may be a whole URL (RFC 9112 §3.2.2).
pub fn path_of(target: &str) -> (&str, &str) {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    path.split_once('?').unwrap_or((path, ""))
}
