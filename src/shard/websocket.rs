//! WebSockets of clients: how an HTTP connection becomes one, their frames, and their pings.
//!
//! Not their messages, which are those of any channel.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use wire::envelope::{self, EnvelopeError, Form};
use wire::http1::{HEAD_END, RequestHead};
use wire::rpc::Document;
use wire::ws::{
    self, DeflateParams, DeflateSide, Item, MessageKind, Receiver, RequestError, accept_request,
    write_close, write_message, write_message_head, write_ping, write_pong,
};

use crate::admission::entrance::{Entrance, Protocol};
use crate::frontend::channel::{Channel, Reader, Writer};
use crate::frontend::http::path_of;
use crate::frontend::websocket::{WebSocket, close_code};
use crate::ids::ConnId;
use crate::limits;
use crate::message::Payload;
use crate::refusal::Refusal;
use crate::shard::tunnel::Raw;
use crate::shard::{Role, Shard};
use crate::upstream::catalog::ServerId;

/// The subprotocol, for clients that ask for one: JSON-RPC in text messages.
const PROTOCOLS: &[&str] = &["mcp"];

/// Nothing is kept between messages, so that idle connections are cheap.
const DEFLATE: DeflateParams = DeflateParams::WITHOUT_CONTEXT;

/// What only the predecessor's envelope has, and arguments that speak of it.
const ENVELOPE_KEY: &[u8] = b"\"mcp_payload\"";

/// How far the shard's compressor refers back.
pub(super) const WINDOW_BITS: u8 = DEFLATE.server.window_bits;

/// Bytes of the longest head of a frame that has no mask.
const FRAME_HEAD_LEN_MAX: usize = 10;

impl Shard {
    /// Where a request leads that asks for a WebSocket, or that has to; none: it asks for
    /// something else.
    pub(super) fn upgrade_target(
        &self,
        head: &RequestHead<'_, '_>,
        entrance: &Entrance,
    ) -> Option<Result<ServerId, Refusal>> {
        let is_name = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"websocket");
        let mut values = head.headers.get_all("upgrade");
        let asks = values.any(|value| value.split(|byte| *byte == b',').any(is_name));
        let is_only = entrance.speaks(Protocol::WebSocket) && !entrance.speaks(Protocol::Http);
        let path = path_of(head.target).0;
        match (asks && head.method == "GET", is_only) {
            (false, true) if entrance.speaks(Protocol::Sse) => None,
            (false, true) => Some(Err(Refusal::Handshake(RequestError::NoUpgrade))),
            (true, true) => Some(match path {
                "/" | "/ws" | "/mcp" | "/mcp/" => {
                    let server = entrance.server.or_else(|| self.settings.catalog.root());
                    server.ok_or(Refusal::Server)
                }
                _ => self.client_route(path),
            }),
            (true, false) if entrance.speaks(Protocol::Http) => Some(self.client_route(path)),
            (_, false) => None,
        }
    }

    /// Moves a connection that is to become a WebSocket to the shard that has the one process of
    /// its server: messages go both ways, which a tunnel for requests cannot carry.
    pub(super) fn upgrade_moves(
        &mut self,
        conn: ConnId,
        (head, server): (&RequestHead<'_, '_>, ServerId),
        raw: Raw<'_>,
        now: Instant,
    ) -> bool {
        let Some(to) = self.home_of(server) else { return false };
        if accept_request(head, PROTOCOLS, None).is_err() {
            return false;
        }
        let is_idle = self.conns.get(conn).is_some_and(|entry| entry.output.is_empty());
        let Some(client) = self.client_mut(conn) else { return false };
        let (peer, moves) = (client.peer, client.moves);
        if is_idle {
            let bytes = [raw.request, raw.behind].concat();
            self.client_moves(conn, (to, peer, moves), bytes);
        } else {
            // Only what has nothing to send can move. Nobody asks for this before the answer to
            // the request before has come.
            self.refuse_and_close(conn, Refusal::Full, now);
        }
        true
    }

    /// An HTTP connection becomes a WebSocket.
    pub(super) fn upgrade(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        server: ServerId,
        now: Instant,
    ) {
        if self.draining.is_some() {
            return self.refuse(conn, Refusal::Draining, b"null", now);
        }
        let acceptance = match accept_request(head, PROTOCOLS, Some(DEFLATE)) {
            Ok(acceptance) => acceptance,
            Err(error) => return self.refuse(conn, Refusal::Handshake(error), b"null", now),
        };
        let limits = ws::Limits {
            message_len_max: self.settings.message_len_max,
            frames_max: limits::FRAMES_MAX,
        };
        let receiver = Receiver::new(ws::Role::Server, limits, acceptance.deflate);
        let own = acceptance.deflate.map(|params| params.server);
        let socket = WebSocket::new(compress_len_max(own), now);
        let parts = (Reader::Frames(Box::new(receiver)), Writer::Frames(Box::new(socket)));
        self.write(conn, |output| {
            acceptance.write_head(output.tail());
            output.push(HEAD_END);
        });
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Role::Client(client) = &entry.role else { return };
        let mut channel = Channel::new(client.peer, Some(server), parts, now);
        channel.received = client.received;
        channel.opened_at = client.opened_at;
        self.counters.gathered -= client.gathered as u64;
        entry.role = Role::Channel(Box::new(channel));
        self.counters.upgraded += 1;
        self.resume(conn);
        self.wish_conn(conn, now + self.settings.ping_interval);
    }

    /// Bytes of frames.
    pub(super) fn socket_received(
        &mut self,
        conn: ConnId,
        frames: &mut Receiver,
        mut bytes: &mut [u8],
        now: Instant,
    ) {
        while self.channel_mut(conn).is_some() {
            match frames.next(&mut bytes) {
                Ok(Some(item)) => self.socket_item(conn, item, now),
                Ok(None) => return,
                Err(error) => {
                    self.socket_close(conn, Some(error.close_code()), &error.to_string());
                    self.channel_close(conn, "bad frames", now);
                }
            }
        }
    }

    fn socket_item(&mut self, conn: ConnId, item: Item<'_>, now: Instant) {
        match item {
            Item::Text(text) if memchr::memmem::find(&text, ENVELOPE_KEY).is_some() => {
                self.socket_envelope(conn, &text, now);
            }
            Item::Text(Cow::Borrowed(text)) => {
                self.channel_message(conn, &Payload::Borrowed(text), now);
            }
            Item::Text(Cow::Owned(text)) => {
                self.channel_message(conn, &Payload::Whole(Bytes::from(text)), now);
            }
            Item::Binary(_) => {
                self.socket_close(conn, Some(ws::UNSUPPORTED), "send text messages");
                self.channel_close(conn, "bad frames", now);
            }
            Item::Ping(payload) => self.socket_pinged(conn, &payload),
            Item::Pong(_) => {}
            Item::Close(close) => {
                self.socket_close(conn, close.map(|close| close.code), "");
                self.channel_close(conn, "client closed", now);
            }
        }
    }

    /// A message that may be in the predecessor's envelope: it is answered in kind.
    fn socket_envelope(&mut self, conn: ConnId, text: &[u8], now: Instant) {
        let around = match envelope::read(text, limits::DEPTH_MAX) {
            Ok(around) if around.form == Form::Enveloped => around,
            Ok(_) => return self.channel_message(conn, &Payload::Borrowed(text), now),
            Err(EnvelopeError::Json(_)) => {
                return self.channel_message(conn, &Payload::Borrowed(text), now);
            }
            Err(_) => return self.refuse(conn, Refusal::Envelope, b"null", now),
        };
        let bytes = around.message.get(text);
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.messages += 1;
        channel.envelope = Some(around.id.map_or(&b"null"[..], |id| id.get(text)).to_vec());
        let namespace = around.target_namespace.map(|name| name.decode(text).into_owned());
        match self.channel_document(conn, bytes) {
            Ok(Document::Message(message)) => {
                self.namespaced(conn, namespace, (bytes, &message), now);
            }
            Ok(Document::Batch) => self.refuse(conn, Refusal::Batch, b"null", now),
            Err(refusal) => self.refuse(conn, refusal, b"null", now),
        }
        if let Some(channel) = self.channel_mut(conn) {
            channel.envelope = None;
        }
    }

    /// Answers a ping, now or when less waits to be sent: who does not read gets no more of them.
    fn socket_pinged(&mut self, conn: ConnId, payload: &[u8]) {
        let is_behind =
            self.conns.get(conn).is_some_and(|entry| limits::OUTPUT_LOW < entry.output.len());
        let Some(socket) = self.socket_mut(conn) else { return };
        if is_behind {
            socket.ping = Some(payload.into());
        } else {
            self.write(conn, |output| write_pong(output.tail(), payload, None));
        }
    }

    /// Some of the output was sent that had to wait.
    pub(super) fn socket_sent(&mut self, conn: ConnId, now: Instant) {
        let Some(socket) = self.socket_mut(conn) else { return };
        socket.took_at = now;
        if let Some(payload) = socket.ping.take() {
            self.socket_pinged(conn, &payload);
        }
    }

    /// Writes a message, compressed if that is agreed on and worth it.
    pub(super) fn socket_write(&mut self, conn: ConnId, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let Some(socket) = self.socket_mut(conn) else { return };
        if (limits::COMPRESS_LEN_MIN..=socket.compress_len_max).contains(&len) {
            let (message, mut frame) = (parts.concat(), Vec::new());
            let deflater = Some(&mut self.deflater);
            write_message(&mut frame, deflater, MessageKind::Text, &message, None);
            self.write(conn, |output| output.push_whole(Bytes::from(frame)));
        } else {
            // In one piece of the right size: a long message would have the tail grow by doubling.
            let mut frame = Vec::with_capacity(len + FRAME_HEAD_LEN_MAX);
            write_message_head(&mut frame, MessageKind::Text, len, None);
            parts.iter().for_each(|part| frame.extend_from_slice(part));
            self.write(conn, |output| output.push_whole(Bytes::from(frame)));
        }
    }

    /// Looks whether the client is still there: after a silence it is asked, after another it is
    /// gone.
    pub(super) fn socket_tick(&mut self, conn: ConnId, now: Instant) {
        let interval = self.settings.ping_interval;
        let is_paused = self.conns.get(conn).is_some_and(|entry| entry.is_paused);
        let Some(channel) = self.channel_mut(conn) else { return };
        let heard_at = channel.heard_at;
        let Writer::Frames(socket) = &mut channel.writer else { return };
        if is_paused {
            // It is not listened to, so it cannot be called silent.
            socket.took_at = now;
        }
        let alive_at = heard_at.max(socket.took_at);
        let silence = now.saturating_duration_since(alive_at);
        if interval * 2 <= silence {
            return self.channel_lost(conn, "does not answer pings", now);
        }
        let is_silent = interval <= silence;
        if is_silent && socket.pinged_at.is_none_or(|at| at <= alive_at) {
            socket.pinged_at = Some(now);
            self.write(conn, |output| write_ping(output.tail(), b"", None));
        }
        self.wish_conn(conn, alive_at + interval * if is_silent { 2 } else { 1 });
    }

    /// Says why the connection is closed, if there is somebody to say it to.
    pub(super) fn socket_says_why(&mut self, conn: ConnId, why: &'static str) {
        if let Some(code) = close_code(why) {
            self.socket_close(conn, Some(code), why);
        }
    }

    /// Writes a close frame, unless there was one. The connection is closed behind it; the driver
    /// lets the client have the time to read it.
    fn socket_close(&mut self, conn: ConnId, code: Option<u16>, reason: &str) {
        let Some(socket) = self.socket_mut(conn) else { return };
        if !std::mem::replace(&mut socket.is_over, true) {
            self.write(conn, |output| write_close(output.tail(), code, reason, None));
        }
    }

    fn socket_mut(&mut self, conn: ConnId) -> Option<&mut WebSocket> {
        match &mut self.channel_mut(conn)?.writer {
            Writer::Frames(socket) => Some(socket),
            Writer::Lines | Writer::Binary(..) | Writer::Events { .. } | Writer::Stream => None,
        }
    }
}

/// Bytes of the longest message that is compressed for a peer, by what was agreed on our side. The
/// shard's compressor forgets everything after each message, so that one which fits into a smaller
/// window is never referred back beyond it.
pub(super) fn compress_len_max(own: Option<DeflateSide>) -> usize {
    match own {
        Some(own) if own.window_bits < WINDOW_BITS => 1 << own.window_bits,
        Some(_) => limits::COMPRESS_LEN_MAX,
        None => 0,
    }
}
