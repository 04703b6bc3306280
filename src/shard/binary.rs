//! Clients of the TCP binary protocol, version 1 (docs/protocol.md): frames become messages, and
//! namespaces become servers.
//!
//! These clients know nothing of MCP's sessions. In the 12-byte dialect the gateway itself says
//! `initialize` to a server; in the 16-byte dialect the client's own goes to the server of the
//! namespace `system`, and the gateway speaks for it with all others.

use std::time::Instant;

use bytes::Bytes;
use wire::binary;
use wire::binary::v1::{Dialect, Kind, Offer, PAYLOAD_LEN_MAX, text, write_ack, write_frame};
use wire::binary::v1::{FrameError, write_header};
use wire::envelope::{self, PAYLOAD_END, PAYLOAD_HEAD};
use wire::rpc::{self, Document, Envelope};

use crate::frontend::binary::{FrameReader, Read, Stage};
use crate::frontend::channel::Writer;
use crate::ids::{ConnId, SessionKey};
use crate::limits;
use crate::message::{Era, Payload};
use crate::refusal::Refusal;
use crate::session::id::SessionId;
use crate::shard::channel::has_long_id;
use crate::shard::post::Incoming;
use crate::shard::{Role, Shard};
use crate::telemetry::log::timestamp;
use crate::upstream::catalog::ServerId;

/// The namespaces of what belongs to no server in particular.
const DEFAULT_NAMESPACES: [&str; 2] = ["system", "default"];

impl Shard {
    /// Takes frames from the input, until it is used up or the connection is closed.
    pub(super) fn binary_received(
        &mut self,
        conn: ConnId,
        reader: &mut FrameReader,
        mut bytes: &[u8],
        now: Instant,
    ) {
        let len_max = self.settings.message_len_max;
        loop {
            match reader.next(&mut bytes, len_max) {
                Ok(Read::Frame(dialect, kind, payload)) => {
                    self.binary_frame(conn, (dialect, kind), &payload, now);
                }
                Ok(Read::More) => return,
                Err(error) => {
                    let is_http = matches!(error, FrameError::BadMagic);
                    self.channel_close(conn, if is_http { "bad magic" } else { "bad frame" }, now);
                    return;
                }
            }
            if self.channel_mut(conn).is_none() {
                // It is closed; or frames of version 2 follow.
                return self.link_takes(conn, bytes, now);
            }
        }
    }

    fn binary_frame(
        &mut self,
        conn: ConnId,
        (dialect, kind): (Dialect, Kind),
        payload: &[u8],
        now: Instant,
    ) {
        let stage = self.channel_mut(conn).and_then(|channel| channel.writer.stage());
        let Some((_, stage)) = stage else { return };
        match (kind, stage) {
            (Kind::VersionNegotiation, Stage::Negotiation) => {
                self.binary_negotiates(conn, dialect, payload, now);
            }
            (_, Stage::Negotiation) => {
                self.binary_says(conn, dialect, text::NEGOTIATION_REQUIRED);
                self.channel_close(conn, "no negotiation", now);
            }
            (Kind::VersionNegotiation, _) => {
                self.binary_says(conn, dialect, text::NEGOTIATED_ALREADY);
            }
            (Kind::Request, _) => self.binary_request(conn, (dialect, stage), payload, now),
            // The predecessor's router takes every answer to its ping for an error.
            (Kind::HealthCheck, _) if dialect == Dialect::Short => {
                self.write(conn, |output| {
                    write_frame(output.tail(), dialect, Kind::HealthCheck, b"");
                });
            }
            (Kind::Response, _) => self.binary_says(conn, dialect, text::RESPONSE_UNEXPECTED),
            (Kind::VersionAck, _) => self.binary_says(conn, dialect, text::ACK_UNEXPECTED),
            (Kind::HealthCheck | Kind::Control | Kind::Error, _) => {}
        }
    }

    fn binary_negotiates(&mut self, conn: ConnId, dialect: Dialect, payload: &[u8], now: Instant) {
        let ours_max = if dialect == Dialect::Short { binary::VERSION } else { 1 };
        let Ok(offer) = Offer::decode(payload) else {
            self.binary_says(conn, dialect, text::NEGOTIATION_INVALID);
            return self.channel_close(conn, "no negotiation", now);
        };
        let Some(version) = offer.agree(ours_max) else {
            let words = format!(
                "{}client speaks {} to {}, gateway 1 to {ours_max}",
                text::NEGOTIATION_FAILED,
                offer.min,
                offer.max
            );
            self.binary_says(conn, dialect, &words);
            return self.channel_close(conn, "no version in common", now);
        };
        if version == binary::VERSION {
            self.write(conn, |output| write_ack(output.tail(), dialect, version));
            return self.link_begins(conn, now);
        }
        let stage = match dialect {
            Dialect::Short => Stage::Authorization,
            Dialect::Long => Stage::Open,
        };
        if let Some(channel) = self.channel_mut(conn) {
            channel.writer = Writer::Binary(dialect, stage);
        }
        self.write(conn, |output| write_ack(output.tail(), dialect, version));
        self.wish_conn(conn, now + limits::HEALTH_INTERVAL);
    }

    /// An error frame.
    fn binary_says(&mut self, conn: ConnId, dialect: Dialect, words: &str) {
        self.write(conn, |output| {
            write_frame(output.tail(), dialect, Kind::Error, words.as_bytes());
        });
    }

    fn binary_request(
        &mut self,
        conn: ConnId,
        (dialect, stage): (Dialect, Stage),
        payload: &[u8],
        now: Instant,
    ) {
        if let Some(channel) = self.channel_mut(conn) {
            channel.messages += 1;
        }
        let Ok(around) = envelope::read(payload, limits::DEPTH_MAX) else {
            return self.refuse(conn, Refusal::Envelope, b"null", now);
        };
        let bytes = around.message.get(payload);
        let message = match rpc::document(bytes, self.rpc_limits()) {
            Ok(Document::Message(message)) => message,
            Ok(Document::Batch) => return self.refuse(conn, Refusal::Batch, b"null", now),
            Err(error) => return self.refuse(conn, Refusal::Rpc(error), b"null", now),
        };
        if has_long_id(&message) {
            return self.refuse(conn, Refusal::LongId, b"null", now);
        }
        if stage == Stage::Authorization {
            return self.binary_authorizes(conn, dialect, (bytes, &message), now);
        }
        let namespace = around.target_namespace.map(|text| text.decode(payload).into_owned());
        self.namespaced(conn, namespace, (bytes, &message), now);
    }

    /// The first request of the 12-byte dialect: who is it?
    fn binary_authorizes(
        &mut self,
        conn: ConnId,
        dialect: Dialect,
        (bytes, message): (&[u8], &Envelope),
        now: Instant,
    ) {
        let id = message.id.map_or(&b"null"[..], |id| id.get(bytes));
        if !message.method.is_some_and(|method| method.eq(bytes, "initialize")) {
            return self.binary_refuses(conn, id, text::INITIALIZE_REQUIRED, now);
        }
        let params = message.params.map_or(&b"{}"[..], |params| params.get(bytes));
        let token = envelope::members(params, limits::DEPTH_MAX, ["token"]).unwrap_or_default();
        let [token] = token;
        let token = envelope::string(params, token, "token").ok().flatten();
        if token.is_none_or(|token| token.inner.get(params).is_empty()) {
            return self.binary_refuses(conn, id, text::TOKEN_MISSING, now);
        }
        if let Some(channel) = self.channel_mut(conn) {
            channel.writer = Writer::Binary(dialect, Stage::Open);
        }
        // Nothing but the connection stands for the session, and ends it.
        let session = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        let session = String::from_utf8_lossy(session.as_bytes()).into_owned();
        let expires = timestamp(self.wall(now) + limits::BINARY_SESSION_TIME);
        let expires = String::from_utf8_lossy(&expires).into_owned();
        let id = String::from_utf8_lossy(id);
        let answer = format!(
            "{{\"jsonrpc\":\"2.0\",\"result\":{{\"expiresAt\":\"{expires}\",\
             \"sessionId\":\"{session}\"}},\"id\":{id}}}"
        );
        self.channel_write(conn, &[answer.as_bytes()], now);
    }

    /// A refusal in the predecessor's words.
    fn binary_refuses(&mut self, conn: ConnId, id: &[u8], words: &str, now: Instant) {
        self.counters.refused += 1;
        self.channel_answer(conn, &error_in_words(id, words), now);
    }

    /// A message for the server that a namespace means.
    pub(super) fn namespaced(
        &mut self,
        conn: ConnId,
        namespace: Option<Vec<u8>>,
        (bytes, message): (&[u8], &Envelope),
        now: Instant,
    ) {
        let id = message.id.map_or(&b"null"[..], |id| id.get(bytes));
        let Some(default) = self.channel_mut(conn).map(|channel| channel.server) else { return };
        let server = match self.namespace_server(default, namespace, (bytes, message)) {
            Ok(server) => server,
            Err(words) => {
                let words = format!("{}{words}", text::ROUTING_FAILED);
                return self.binary_refuses(conn, id, &words, now);
            }
        };
        let is_initialize = message.method.is_some_and(|it| it.eq(bytes, "initialize"));
        let has_session = self.channel_mut(conn).is_some_and(|it| it.session.is_some());
        if Some(server) == default && (has_session || is_initialize) {
            return self.channel_one(conn, &Payload::Borrowed(bytes), message, now);
        }
        if message.kind != rpc::Kind::Request && self.session_with(conn, server).is_none() {
            // There is nobody yet who could be told.
            self.counters.dropped += 1;
            return;
        }
        if message.kind == rpc::Kind::Request && self.draining.is_some() {
            return self.refuse(conn, Refusal::Draining, id, now);
        }
        let Some(session) = self.session_on_behalf(conn, server, now) else {
            return self.refuse(conn, Refusal::Full, id, now);
        };
        let payload = Payload::Borrowed(bytes);
        let headers = self.channel_headers(server, (Era::Legacy, Some(session)), bytes, message);
        let incoming = Incoming {
            server,
            session: Some(session),
            era: Era::Legacy,
            payload: &payload,
            envelope: message,
            headers: &headers,
        };
        self.post_legacy(conn, incoming, now);
    }

    /// The server that a namespace means, or the predecessor's words for that there is none.
    pub(super) fn namespace_server(
        &self,
        default: Option<ServerId>,
        namespace: Option<Vec<u8>>,
        (bytes, message): (&[u8], &Envelope),
    ) -> Result<ServerId, String> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let is_named = namespace.is_some();
        let namespace = namespace.unwrap_or_else(|| derived_namespace(bytes, message));
        let namespace = String::from_utf8_lossy(&namespace).into_owned();
        let is_default = DEFAULT_NAMESPACES.contains(&&*namespace);
        let server = match self.settings.catalog.find(&namespace) {
            _ if is_default => default,
            Some(server) => Some(server),
            None if !is_named => default,
            None => None,
        };
        server.ok_or_else(|| {
            let named: String = namespace.chars().take(limits::LOG_VALUE_LEN_MAX).collect();
            format!("[router] UNAVAILABLE: no endpoints available for namespace: {named}")
        })
    }

    /// The session that the gateway has with a server for this client.
    fn session_with(&self, conn: ConnId, server: ServerId) -> Option<SessionKey> {
        let Role::Channel(channel) = &self.conns.get(conn)?.role else { return None };
        let is_it = |key: &SessionKey| self.sessions.get(*key).is_some_and(|s| s.server == server);
        channel.others.iter().copied().find(is_it)
    }

    /// The session in which the gateway speaks with a server for this client.
    fn session_on_behalf(
        &mut self,
        conn: ConnId,
        server: ServerId,
        now: Instant,
    ) -> Option<SessionKey> {
        if let Some(key) = self.session_with(conn, server) {
            return Some(key);
        }
        self.session_adopt(conn, (server, Bytes::from_static(INITIALIZE)), now)
    }

    /// Whether an answer of so many bytes fits into a frame, with what stands around it; or is
    /// taken by the client of a stream.
    pub(super) fn binary_fits(&mut self, conn: ConnId, len: usize) -> bool {
        let around = PAYLOAD_HEAD.len() + PAYLOAD_END.len();
        let len_max = usize::try_from(PAYLOAD_LEN_MAX).unwrap_or(usize::MAX) - around;
        let stage = self.channel_mut(conn).and_then(|channel| channel.writer.stage());
        (len <= len_max || stage.is_none()) && self.branch_fits(conn, len)
    }

    /// Appends an answer as a frame.
    pub(super) fn binary_write(&mut self, conn: ConnId, dialect: Dialect, parts: &[&[u8]]) {
        let (head, end): (&[u8], &[u8]) = match dialect {
            Dialect::Short => (b"", b""),
            Dialect::Long => (PAYLOAD_HEAD, PAYLOAD_END),
        };
        let message: usize = parts.iter().map(|part| part.len()).sum();
        let len = head.len() + message + end.len();
        self.write(conn, |output| {
            write_header(output.tail(), dialect, Kind::Response, len);
            output.push(head);
            for part in parts {
                output.push(part);
            }
            output.push(end);
        });
    }

    /// Silence: a client of the 12-byte dialect is asked for a sign of life.
    pub(super) fn binary_tick(
        &mut self,
        conn: ConnId,
        (dialect, stage): (Dialect, Stage),
        now: Instant,
    ) {
        if stage == Stage::Authorization {
            return self.channel_close(conn, "no authorization", now);
        }
        if dialect == Dialect::Short {
            self.write(conn, |output| {
                write_frame(output.tail(), dialect, Kind::HealthCheck, b"");
            });
        }
        self.wish_conn(conn, now + limits::HEALTH_INTERVAL);
    }
}

/// An error as the predecessor has it.
pub(super) fn error_in_words(id: &[u8], words: &str) -> Vec<u8> {
    let mut message = b"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,\"message\":".to_vec();
    wire::json::write_string(&mut message, words);
    message.extend_from_slice(b"},\"id\":");
    message.extend_from_slice(id);
    message.push(b'}');
    message
}

/// The namespace of a message that names none, as the predecessor derives it.
fn derived_namespace(bytes: &[u8], message: &Envelope) -> Vec<u8> {
    let params = message.params.map_or(&b"{}"[..], |params| params.get(bytes));
    let named = envelope::members(params, limits::DEPTH_MAX, ["namespace"]).ok();
    let named = named.and_then(|[span]| envelope::string(params, span, "namespace").ok()?);
    if let Some(named) = named {
        return named.decode(params).into_owned();
    }
    let method = message.method.map(|method| method.decode(bytes)).unwrap_or_default();
    match &*method {
        b"tools/call" => {
            let name = message.name.map(|name| name.decode(bytes)).unwrap_or_default();
            let end = memchr::memchr(b'.', &name).unwrap_or(name.len());
            name.get(..end).unwrap_or_default().to_vec()
        }
        b"initialize" | b"shutdown" | b"tools/list" => b"system".to_vec(),
        _ => b"default".to_vec(),
    }
}

/// What the gateway says to a server on behalf of a client that does not say it.
pub(super) const INITIALIZE: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":\
{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\
\"clientInfo\":{\"name\":\"mcp-gateway\",\"version\":\"0.1.0\"}}}";
