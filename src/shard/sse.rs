//! Clients of revision 2024-11-05 (HTTP+SSE): they listen to an event stream, and send each message
//! in a POST of its own to the address that the first event names.
//!
//! The connection of the stream becomes a channel; what comes in POSTs is served as if it had come
//! on that connection. A POST says that its message was taken, the answer goes on the stream.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use wire::http1::{CHUNK_END, LAST_CHUNK, RequestHead, write_chunk_head};
use wire::sse::{COMMENT, EVENT_END};

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::media;
use crate::frontend::answer::{Body, Head};
use crate::frontend::channel::{Channel, EventForm, Reader, Writer};
use crate::ids::ConnId;
use crate::limits;
use crate::message::Payload;
use crate::refusal::Refusal;
use crate::session::id::SessionId;
use crate::shard::client::Target;
use crate::shard::{Role, Shard};
use crate::upstream::catalog::ServerId;

/// What a POST is answered whose message was taken.
const ACCEPTED: &[u8] = b"Accepted";

/// The event streams of a shard. Their ids are bearer secrets as those of sessions are.
#[derive(Debug, Default)]
pub(super) struct Streams {
    conns: HashMap<SessionId, ConnId, RandomState>,
    ids: HashMap<ConnId, SessionId, RandomState>,
}

impl Streams {
    fn insert(&mut self, id: SessionId, conn: ConnId) {
        self.conns.insert(id, conn);
        self.ids.insert(conn, id);
    }

    /// A connection is closed: if it was a stream, its id leads nowhere any more.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if let Some(id) = self.ids.remove(&conn) {
            self.conns.remove(&id);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.conns.len(), self.ids.len());
        self.conns.len()
    }
}

impl Shard {
    /// Where a client connection came in.
    pub(super) fn entrance_of(&self, conn: ConnId) -> Option<&Entrance> {
        let Some(Role::Client(client)) = self.conns.get(conn).map(|entry| &entry.role) else {
            return None;
        };
        self.settings.entrances.get(usize::from(client.peer.entrance.0))
    }

    /// What a request asks for, if its path is one of this transport's.
    pub(super) fn sse_target(
        &self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        (path, query): (&str, &str),
    ) -> Option<Result<Target, Refusal>> {
        let is_preflight = head.method == "OPTIONS" && head.headers.get("origin").is_some();
        let target = match path.strip_prefix("/sse") {
            _ if path == "/messages" => Self::sse_message(head, query),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                self.sse_stream(head, rest.strip_prefix('/').unwrap_or_default())
            }
            _ => {
                // Elsewhere there is another transport, unless this is an entrance for this one.
                let is_other = self.entrance_of(conn).is_some_and(|it| it.speaks(Protocol::Http));
                return (!is_other).then_some(Err(Refusal::Path));
            }
        };
        Some(if is_preflight { Ok(Target::Preflight) } else { target })
    }

    /// GET /sse or /sse/{server}.
    fn sse_stream(&self, head: &RequestHead<'_, '_>, name: &str) -> Result<Target, Refusal> {
        let catalog = &self.settings.catalog;
        let server = match name {
            "" => catalog.root().ok_or(Refusal::Server)?,
            name => catalog.find(name).ok_or(Refusal::Server)?,
        };
        if head.method != "GET" {
            return Err(Refusal::NotGet);
        }
        if !media::accepts(head.headers.get_all("accept"), "text/event-stream") {
            return Err(Refusal::AcceptEvents);
        }
        Ok(Target::Stream(server))
    }

    /// POST /messages?session_id=…
    fn sse_message(head: &RequestHead<'_, '_>, query: &str) -> Result<Target, Refusal> {
        if head.method != "POST" {
            return Err(Refusal::NotPost);
        }
        let is_json = |value| media::is_type(value, "application/json");
        if !head.headers.get("content-type").is_some_and(is_json) {
            return Err(Refusal::ContentType);
        }
        if head.headers.get("content-encoding").is_some_and(|coding| coding != b"identity") {
            return Err(Refusal::ContentEncoding);
        }
        let id = query.split('&').find_map(|pair| pair.strip_prefix("session_id="));
        Ok(Target::Message(id.and_then(|id| SessionId::parse(id.as_bytes()))))
    }

    /// A client connection becomes an event stream; the address of its messages comes first.
    pub(super) fn sse_open(&mut self, conn: ConnId, server: ServerId, now: Instant) {
        let is_elsewhere = self.home_of(server).is_some();
        if !self.stream_begins(conn, (Some(server), is_elsewhere), (EventForm::Named, None), now) {
            return;
        }
        let id = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        self.streams.insert(id, conn);
        let mut event = b"event: endpoint\ndata: /messages?session_id=".to_vec();
        event.extend_from_slice(id.as_bytes());
        event.extend_from_slice(EVENT_END);
        self.sse_body(conn, Bytes::from(event));
    }

    /// A client connection becomes an event stream, unless it cannot here and now: then it is
    /// refused. The id, if there is one, is in the head.
    pub(super) fn stream_begins(
        &mut self,
        conn: ConnId,
        (server, is_elsewhere): (Option<ServerId>, bool),
        (form, id): (EventForm, Option<SessionId>),
        now: Instant,
    ) -> bool {
        let is_draining = self.draining.is_some();
        let Some(client) = self.client_mut(conn) else { return false };
        if is_draining {
            self.refuse_and_close(conn, Refusal::Draining, now);
            return false;
        }
        if is_elsewhere || client.near.is_some() {
            // It waits behind an answer of this connection: on another one it can move.
            self.refuse_and_close(conn, Refusal::Full, now);
            return false;
        }
        // Nothing else will be served on this connection.
        client.framing.keep_alive = false;
        client.inbox = Vec::new();
        self.client_account(conn);
        self.events_head(conn, id.as_ref().map(SessionId::as_bytes));
        let Some(client) = self.client_mut(conn) else { return false };
        let writer = Writer::Events { is_chunked: client.framing.chunked, form };
        let (peer, received, opened_at) = (client.peer, client.received, client.opened_at);
        let mut channel = Channel::new(peer, server, (Reader::Elsewhere(0), writer), now);
        (channel.received, channel.opened_at) = (received, opened_at);
        channel.messages = client.requests;
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.role = Role::Channel(Box::new(channel));
        }
        // It may have been paused for the sake of an earlier request.
        self.resume(conn);
        self.wish_conn(conn, now + limits::COMMENT_INTERVAL);
        true
    }

    /// A message of a client, in a POST.
    pub(super) fn sse_post(
        &mut self,
        conn: ConnId,
        id: Option<SessionId>,
        payload: &Payload<'_>,
        now: Instant,
    ) {
        let stream = id.and_then(|id| self.streams.conns.get(&id).copied());
        let Some(stream) = stream else {
            return self.refuse(conn, Refusal::UnknownSession, b"null", now);
        };
        let document = match self.channel_document(stream, payload.bytes()) {
            Ok(document) => document,
            Err(refusal) => return self.refuse(conn, refusal, b"null", now),
        };
        if self.is_far_behind(stream) {
            // It does not read: it gets no more to read.
            return self.refuse(conn, Refusal::Full, b"null", now);
        }
        self.sse_accept(conn, ACCEPTED, now);
        // What goes wrong from here on is the stream's.
        let current = self.current.replace(stream);
        self.channel_serve(stream, payload, &document, now);
        self.current = current;
    }

    /// 202 and a word: the answer will come on the stream.
    pub(super) fn sse_accept(&mut self, conn: ConnId, word: &[u8], now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        let (origin, keep_alive) = (client.origin.clone(), client.framing.keep_alive);
        let head = Head {
            status: 202,
            content_type: Some(b"text/plain"),
            body: Body::Length(word.len() as u64),
            session: None,
            origin: origin.as_deref(),
            keep_alive,
        };
        self.write(conn, |output| {
            head.write(output.tail());
            output.push(word);
        });
        self.client_done(conn, now);
    }

    /// Writes a message of the server as an event.
    pub(super) fn sse_event(&mut self, conn: ConnId, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let form = match self.channel_mut(conn).map(|channel| &channel.writer) {
            Some(Writer::Events { form, .. }) => *form,
            _ => return,
        };
        let mut event = Vec::with_capacity(len + 32);
        if form == EventForm::Named {
            event.extend_from_slice(b"event: message\n");
        }
        event.extend_from_slice(b"data: ");
        for part in parts {
            // A line break in JSON stands between values, where a space means the same.
            let one_line = |byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
            event.extend(part.iter().map(one_line));
        }
        event.extend_from_slice(EVENT_END);
        self.sse_body(conn, Bytes::from(event));
    }

    /// A piece of the stream.
    fn sse_body(&mut self, conn: ConnId, bytes: Bytes) {
        let Some(channel) = self.channel_mut(conn) else { return };
        let Writer::Events { is_chunked, .. } = channel.writer else { return };
        self.write(conn, |output| {
            if is_chunked {
                write_chunk_head(output.tail(), bytes.len());
            }
            output.push_whole(bytes);
            if is_chunked {
                output.push(CHUNK_END);
            }
        });
    }

    /// The stream ends in good order.
    pub(super) fn sse_end(&mut self, conn: ConnId) {
        let Some(channel) = self.channel_mut(conn) else { return };
        if let Writer::Events { is_chunked: true, .. } = channel.writer {
            self.write(conn, |output| output.push(LAST_CHUNK));
        }
    }

    /// Keeps the stream from looking dead.
    pub(super) fn sse_tick(&mut self, conn: ConnId, now: Instant) {
        let is_idle = self.conns.get(conn).is_some_and(|entry| entry.output.is_empty());
        if is_idle {
            self.sse_body(conn, Bytes::from_static(COMMENT));
        }
        self.wish_conn(conn, now + limits::COMMENT_INTERVAL);
    }

    /// The client of a stream sent something on its connection: it has no meaning there.
    pub(super) fn sse_received(&mut self, conn: ConnId, len: usize, now: Instant) {
        self.counters.received_bytes += len as u64;
        let Some(channel) = self.channel_mut(conn) else { return };
        channel.received += len as u64;
        let Reader::Elsewhere(ignored) = &mut channel.reader else { return };
        *ignored += len;
        if limits::RECV_LEN < *ignored {
            self.channel_close(conn, "sends on its event stream", now);
        }
    }
}
