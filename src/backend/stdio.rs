//! Child processes: newline-delimited JSON-RPC in both directions. What is said of them goes for
//! what stands in their place, too: streams of HTTP+SSE servers, connections by WebSocket, streams
//! of the binary protocol.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use wire::lines::LineReader;

use crate::backend::sse::EventStream;
use crate::backend::websocket::WebSocket;
use crate::ids::ConnId;
use crate::ids::ExchangeId;
use crate::ids::SessionKey;
use crate::timers::Wish;
use crate::upstream::catalog::{EndpointId, ServerId};

/// A child process of a shard, or what stands in its place.
#[derive(Debug)]
pub struct Process {
    /// Whose it is.
    pub server: ServerId,
    /// Where it is, if it is no child process.
    pub endpoint: EndpointId,
    /// Endpoints at which it could not be, a bit for each.
    pub tried: u64,
    /// Who uses it.
    pub user: User,
    /// How far it is.
    pub state: State,
    /// Our end of its standard streams, or of what carries its messages.
    pub conn: Option<ConnId>,
    /// What carries its messages.
    pub carrier: Carrier,
    /// Messages that wait until it is ready.
    pub backlog: Vec<Bytes>,
    /// Bytes in `backlog`.
    pub backlog_len: usize,
    /// Requests that it has not answered, by our ids.
    pub pending: HashMap<u64, ExchangeId, foldhash::fast::RandomState>,
    /// Requests, and their sessions, that nobody waits for any more although it has not answered
    /// them. What it says may still be about one of these.
    pub given_up: VecDeque<(u64, Option<SessionKey>, Instant)>,
    /// The id of the next request.
    pub next_id: u64,
    /// What it answered to `initialize`, if it is shared.
    pub welcome: Option<Bytes>,
    /// Requests of a shared process and the sessions that were asked.
    pub asked: Vec<(Bytes, SessionKey)>,
    /// Sessions that use a shared process.
    pub sessions: usize,
    /// Whether it has answered anything.
    pub has_answered: bool,
    /// Pages of its tools that were read since the last change.
    pub pages: u32,
    /// Whether it has ended; what it wrote before may still come.
    pub has_exited: bool,
    /// When it must be ready.
    pub ready_by: Instant,
    /// When it was last used.
    pub used_at: Instant,
    /// Timer state.
    pub wish: Wish,
}

impl Process {
    /// Whether there is a child process: one that the control thread starts and stops.
    pub fn is_child(&self) -> bool {
        matches!(self.carrier, Carrier::Pipes(_))
    }

    /// The stream that carries its messages, if it is one.
    pub fn stream(&self) -> Option<&EventStream> {
        match &self.carrier {
            Carrier::Events(stream) => Some(stream),
            Carrier::Pipes(_) | Carrier::WebSocket(_) | Carrier::Stream => None,
        }
    }

    /// See [`Process::stream`].
    pub fn stream_mut(&mut self) -> Option<&mut EventStream> {
        match &mut self.carrier {
            Carrier::Events(stream) => Some(stream),
            Carrier::Pipes(_) | Carrier::WebSocket(_) | Carrier::Stream => None,
        }
    }

    /// The WebSocket that carries its messages, if it is one.
    pub fn socket_mut(&mut self) -> Option<&mut WebSocket> {
        match &mut self.carrier {
            Carrier::WebSocket(socket) => Some(socket),
            Carrier::Pipes(_) | Carrier::Events(_) | Carrier::Stream => None,
        }
    }
}

/// What carries the messages of a process.
#[derive(Debug)]
pub enum Carrier {
    /// Its standard streams. What it writes comes out of this in lines.
    Pipes(LineReader),
    /// A stream of events, and requests that take ours.
    Events(Box<EventStream>),
    /// A WebSocket.
    WebSocket(Box<WebSocket>),
    /// A stream of the link with its server (the binary protocol, version 2).
    Stream,
}

/// Who uses a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// One session.
    Session(SessionKey),
    /// All sessions of the shard.
    Sessions,
    /// All stateless requests of the shard (2026-07-28).
    Stateless,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for the pause after a crash to pass.
    Delayed(Instant),
    /// The control thread is starting it; or its server is being reached.
    Starting,
    /// It runs, and answers a handshake of ours first.
    Handshaking,
    /// Messages pass.
    Ready,
    /// It is being stopped or has ended; nothing passes any more.
    Stopping,
}

/// Appends a number as JSON.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Reads one of our own numbers back from raw JSON.
pub fn read_number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 9, 10, 99, 12_345, u64::MAX] {
            let mut text = Vec::new();
            write_number(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
            assert_eq!(read_number(&text), Some(number));
        }
        assert_eq!(read_number(b"\"1\""), None);
    }
}
