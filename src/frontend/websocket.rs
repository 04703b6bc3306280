//! What a channel has besides its own if its messages come in WebSocket frames.

use std::time::Instant;

use wire::ws;

/// The sending half of a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// Bytes of the longest message that may be compressed; 0 if none may.
    pub compress_len_max: usize,
    /// When it was last pinged.
    pub pinged_at: Option<Instant>,
    /// When it last took some of what had to wait: a sign of life without a word.
    pub took_at: Instant,
    /// The newest ping that is not answered because too much waits to be sent (RFC 6455 §5.5.3
    /// lets the others go without an answer).
    pub ping: Option<Box<[u8]>>,
    /// Whether no frame may follow: there was a close frame, or a frame was cut.
    pub is_over: bool,
}

impl WebSocket {
    /// The sending half right behind the handshake.
    pub fn new(compress_len_max: usize, now: Instant) -> Self {
        Self { compress_len_max, pinged_at: None, took_at: now, ping: None, is_over: false }
    }
}

/// The code of the close frame for a reason of the log (RFC 6455 §7.4.1); none: nobody would read
/// it.
pub fn close_code(why: &str) -> Option<u16> {
    match why {
        "client closed" | "reads too slowly" | "does not answer pings" => None,
        "draining" => Some(ws::GOING_AWAY),
        "full" => Some(ws::TRY_AGAIN_LATER),
        "sends too slowly" => Some(ws::POLICY),
        "fault" => Some(ws::INTERNAL_ERROR),
        // Its session is over.
        _ => Some(ws::NORMAL),
    }
}
