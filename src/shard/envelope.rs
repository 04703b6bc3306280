//! Clients of the predecessor by HTTP: `POST /api/v1/mcp` answers a message in its envelope with a
//! bare one; `GET /events` opens an event stream for the answers to what comes in by
//! `POST /api/v1/request`.
//!
//! These clients know no sessions. What they have belongs to the token that they send with every
//! request, whose owner it may not leave: sessions that the gateway keeps with servers for them,
//! and event streams. They hear answers only. Their token says as well which shard they are at.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use wire::envelope::{self, EnvelopeError};
use wire::http1::RequestHead;
use wire::rpc::{self, Document, Envelope};

use crate::admission::bearer::Token;
use crate::admission::entrance::Protocol;
use crate::admission::media;
use crate::frontend::answer::{Body, Head, JSON};
use crate::frontend::channel::EventForm;
use crate::frontend::http::Form;
use crate::ids::{ConnId, SessionKey, ShardId};
use crate::limits;
use crate::message::{Era, Payload};
use crate::refusal::{Refusal, write_plain_error};
use crate::session::id::{SessionId, owner};
use crate::shard::binary::{INITIALIZE, error_in_words};
use crate::shard::channel::has_long_id;
use crate::shard::client::Target;
use crate::shard::post::Incoming;
use crate::shard::{Shard, Timer};
use crate::upstream::catalog::ServerId;

const EVENTS: &str = "/events";
const REQUEST: &str = "/api/v1/request";
const CALL: &str = "/api/v1/mcp";

/// What a message for an event stream is answered.
const ACCEPTED: &[u8] = b"accepted";

/// Where the answer to a message in an envelope goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Back.
    Call,
    /// To an event stream.
    Stream,
}

/// What clients have that send this token.
#[derive(Debug, Default)]
struct Holder {
    /// Sessions, at most one with each server.
    sessions: Vec<(ServerId, SessionKey)>,
    /// Event streams.
    streams: Vec<(ConnId, SessionId)>,
}

/// What belongs to tokens. A token is known for as long as it has something.
#[derive(Debug, Default)]
pub(super) struct Holders {
    tokens: HashMap<Token, Holder, RandomState>,
    of_session: HashMap<SessionKey, Token, RandomState>,
    of_stream: HashMap<ConnId, Token, RandomState>,
}

/// An envelope and the message in it.
struct Opened {
    namespace: Option<Vec<u8>>,
    message: Bytes,
    rpc: Envelope,
}

impl Holders {
    fn session(&self, token: &Token, server: ServerId) -> Option<SessionKey> {
        let sessions = &self.tokens.get(token)?.sessions;
        sessions.iter().find(|(it, _)| *it == server).map(|(_, key)| *key)
    }

    /// Returns the session that this one takes the place of.
    fn insert_session(
        &mut self,
        token: &Token,
        (server, key): (ServerId, SessionKey),
    ) -> Option<SessionKey> {
        let before = self.session(token, server);
        if let Some(before) = before {
            self.forget_session(before);
        }
        let holder = self.tokens.entry(token.clone()).or_default();
        holder.sessions.push((server, key));
        self.of_session.insert(key, token.clone());
        before
    }

    /// A session has ended.
    pub(super) fn forget_session(&mut self, key: SessionKey) {
        let Some(token) = self.of_session.remove(&key) else { return };
        let Some(holder) = self.tokens.get_mut(&token) else { return };
        holder.sessions.retain(|(_, it)| *it != key);
        self.forget_if_empty(&token);
    }

    fn insert_stream(&mut self, token: &Token, (conn, id): (ConnId, SessionId)) {
        self.tokens.entry(token.clone()).or_default().streams.push((conn, id));
        self.of_stream.insert(conn, token.clone());
    }

    /// A connection is closed, which may have been a stream.
    pub(super) fn forget_stream(&mut self, conn: ConnId) {
        let Some(token) = self.of_stream.remove(&conn) else { return };
        let Some(holder) = self.tokens.get_mut(&token) else { return };
        holder.streams.retain(|(it, _)| *it != conn);
        self.forget_if_empty(&token);
    }

    fn forget_if_empty(&mut self, token: &Token) {
        let is_empty = |it: &Holder| it.sessions.is_empty() && it.streams.is_empty();
        if self.tokens.get(token).is_some_and(is_empty) {
            self.tokens.remove(token);
        }
    }

    fn streams(&self, token: &Token) -> &[(ConnId, SessionId)] {
        self.tokens.get(token).map(|holder| holder.streams.as_slice()).unwrap_or_default()
    }

    /// The stream that is meant: the one that is named, or the only one.
    fn stream(&self, token: &Token, named: Option<&[u8]>) -> Result<ConnId, Refusal> {
        let streams = self.streams(token);
        match (named, streams) {
            (Some(named), _) => {
                let is_it = |(_, id): &&(ConnId, SessionId)| id.as_bytes() == named;
                streams.iter().find(is_it).map(|(conn, _)| *conn).ok_or(Refusal::NoStream)
            }
            (None, []) => Err(Refusal::NoStream),
            (None, [(conn, _)]) => Ok(*conn),
            (None, _) => Err(Refusal::SeveralStreams),
        }
    }

    /// How many sessions and streams belong to tokens.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.tokens.len() <= self.of_session.len() + self.of_stream.len());
        self.of_session.len() + self.of_stream.len()
    }
}

/// What a request for this path may be answered.
pub(super) fn form_of(path: &str) -> Form {
    if matches!(path, EVENTS | REQUEST | CALL) { Form::Words } else { Form::Any }
}

impl Shard {
    /// What a request asks for, if its path is one of the predecessor's that is served here.
    pub(super) fn envelope_target(
        &self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        path: &str,
    ) -> Option<Result<Target, Refusal>> {
        let entrance = self.entrance_of(conn)?;
        let is_http = entrance.speaks(Protocol::Http);
        let has_events = is_http || entrance.speaks(Protocol::Sse);
        let target = match path {
            EVENTS if has_events => Target::Events,
            REQUEST if has_events => Target::Envelope(Door::Stream),
            CALL if is_http => Target::Envelope(Door::Call),
            _ => return None,
        };
        if head.method == "OPTIONS" && head.headers.get("origin").is_some() {
            return Some(Ok(Target::Preflight));
        }
        Some(Self::envelope_admits(head, target).map(|()| target))
    }

    fn envelope_admits(head: &RequestHead<'_, '_>, target: Target) -> Result<(), Refusal> {
        let headers = &head.headers;
        let is_stream = target == Target::Events;
        match head.method {
            "GET" if is_stream => {}
            "POST" if !is_stream => {}
            _ if is_stream => return Err(Refusal::NotGet),
            _ => return Err(Refusal::NotPost),
        }
        if Token::of(headers).is_none() {
            return Err(Refusal::Unauthorized);
        }
        if is_stream {
            // The predecessor's clients need not say what they accept.
            let mut values = headers.get_all("accept").peekable();
            let is_silent = values.peek().is_none();
            let accepts = is_silent || media::accepts(values, "text/event-stream");
            return if accepts { Ok(()) } else { Err(Refusal::AcceptEvents) };
        }
        let is_json = |value| media::is_type(value, "application/json");
        if !headers.get("content-type").is_some_and(is_json) {
            return Err(Refusal::ContentType);
        }
        match headers.get("content-encoding") {
            Some(coding) if coding != b"identity" => Err(Refusal::ContentEncoding),
            _ => Ok(()),
        }
    }

    /// The other shard that must serve a request: the one that has what belongs to its token; or,
    /// if all sessions of its server have one process, the one that has that.
    pub(super) fn envelope_owner(
        &self,
        head: &RequestHead<'_, '_>,
        target: Target,
        body: &[u8],
    ) -> Option<ShardId> {
        let token = Token::of(&head.headers)?;
        let server = match target {
            Target::Envelope(Door::Call) => self.envelope_home(body),
            _ => self.settings.catalog.root(),
        };
        let home = server.and_then(|server| self.home(server));
        let to = home.unwrap_or_else(|| owner(token.as_bytes(), self.identity.shards));
        (to != self.identity.id).then_some(to)
    }

    /// The server of a message, if there are servers for which that decides about the shard.
    fn envelope_home(&self, body: &[u8]) -> Option<ServerId> {
        let catalog = &self.settings.catalog;
        if catalog.iter().all(|(server, _)| self.home(server).is_none()) {
            return None;
        }
        let opened = self.open_envelope(&Payload::Borrowed(body)).ok()?;
        let message = (&*opened.message, &opened.rpc);
        self.namespace_server(catalog.root(), opened.namespace, message).ok()
    }

    /// Takes a message out of its envelope. A bare one is fine, too.
    fn open_envelope(&self, payload: &Payload<'_>) -> Result<Opened, Refusal> {
        let bytes = payload.bytes();
        let limits = self.rpc_limits();
        let around = envelope::read(bytes, limits::DEPTH_MAX).map_err(|error| match error {
            // It says the same, with the code that JSON-RPC has for it.
            EnvelopeError::Json(_) => {
                rpc::document(bytes, limits).map_or_else(Refusal::Rpc, |_| Refusal::Envelope)
            }
            _ => Refusal::Envelope,
        })?;
        let namespace = around.target_namespace.map(|name| name.decode(bytes).into_owned());
        let message = match payload {
            Payload::Borrowed(_) => Bytes::copy_from_slice(around.message.get(bytes)),
            Payload::Whole(bytes) => bytes.slice_ref(around.message.get(bytes)),
        };
        match rpc::document(&message, limits).map_err(Refusal::Rpc)? {
            Document::Message(rpc) if has_long_id(&rpc) => Err(Refusal::LongId),
            Document::Message(rpc) => Ok(Opened { namespace, message, rpc }),
            Document::Batch => Err(Refusal::Batch),
        }
    }

    /// GET /events.
    pub(super) fn envelope_listens(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        now: Instant,
    ) {
        let Some(token) = Token::of(&head.headers) else { return };
        if limits::TOKEN_STREAMS_MAX <= self.holders.streams(&token).len() {
            return self.refuse(conn, Refusal::Full, b"null", now);
        }
        let is_elsewhere = self.envelope_owner(head, Target::Events, b"").is_some();
        let server = self.settings.catalog.root();
        let id = SessionId::mint(&mut self.random, self.identity.id, self.identity.shards);
        let form = (EventForm::Bare, Some(id));
        if self.stream_begins(conn, (server, is_elsewhere), form, now) {
            self.holders.insert_stream(&token, (conn, id));
        }
    }

    /// A message in an envelope.
    pub(super) fn envelope_post(
        &mut self,
        conn: ConnId,
        (head, door): (&RequestHead<'_, '_>, Door),
        body: &Payload<'_>,
        now: Instant,
    ) {
        let Some(token) = Token::of(&head.headers) else { return };
        match door {
            Door::Call => self.envelope_call(conn, &token, body, now),
            Door::Stream => {
                let named = head.headers.get("mcp-session-id");
                self.envelope_request(conn, (&token, named), body, now);
            }
        }
    }

    /// POST /api/v1/request.
    fn envelope_request(
        &mut self,
        conn: ConnId,
        (token, named): (&Token, Option<&[u8]>),
        body: &Payload<'_>,
        now: Instant,
    ) {
        let stream = match self.holders.stream(token, named) {
            Ok(stream) => stream,
            Err(refusal) => return self.refuse(conn, refusal, b"null", now),
        };
        let opened = match self.open_envelope(body) {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(conn, refusal, b"null", now),
        };
        if self.is_far_behind(stream) {
            // It does not read: it gets no more to read.
            return self.refuse(conn, Refusal::Full, b"null", now);
        }
        let Opened { namespace, message, rpc } = opened;
        let default = self.channel_mut(stream).and_then(|channel| channel.server);
        let to = self.namespace_server(default, namespace.clone(), (&message, &rpc));
        if let Err(words) = to {
            return self.envelope_fails(conn, &words, now);
        }
        self.sse_accept(conn, ACCEPTED, now);
        // What goes wrong from here on is the stream's.
        let current = self.current.replace(stream);
        if let Some(channel) = self.channel_mut(stream) {
            channel.messages += 1;
        }
        self.namespaced(stream, namespace, (&message, &rpc), now);
        self.current = current;
    }

    /// There is no such server: the predecessor says so with 500.
    fn envelope_fails(&mut self, conn: ConnId, words: &str, now: Instant) {
        self.counters.refused += 1;
        let Some(client) = self.client_mut(conn) else { return };
        let (origin, keep_alive) = (client.origin.clone(), client.framing.keep_alive);
        let mut body = Vec::new();
        write_plain_error(&mut body, words);
        let head = Head {
            status: 500,
            content_type: Some(JSON),
            body: Body::Length(body.len() as u64),
            session: None,
            origin: origin.as_deref(),
            keep_alive,
        };
        self.write(conn, |output| {
            head.write(output.tail());
            output.push(&body);
        });
        self.client_done(conn, now);
    }

    /// POST /api/v1/mcp.
    fn envelope_call(&mut self, conn: ConnId, token: &Token, body: &Payload<'_>, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        client.form = Form::Whole;
        let Opened { namespace, message, rpc } = match self.open_envelope(body) {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(conn, refusal, b"null", now),
        };
        let id = rpc.id.map_or(&b"null"[..], |id| id.get(&message));
        let is_request = rpc.kind == rpc::Kind::Request;
        if is_request && self.draining.is_some() {
            return self.refuse(conn, Refusal::Draining, id, now);
        }
        let default = self.settings.catalog.root();
        let server = match self.namespace_server(default, namespace, (&message, &rpc)) {
            Ok(server) => server,
            Err(words) if is_request => {
                self.counters.refused += 1;
                return self.whole_answer(conn, &[&error_in_words(id, &words)], now);
            }
            Err(_) => return self.envelope_drops(conn, now),
        };
        let payload = Payload::Whole(message.clone());
        let incoming = Incoming {
            server,
            session: None,
            era: Era::Legacy,
            payload: &payload,
            envelope: &rpc,
            headers: &Bytes::new(),
        };
        if is_request && incoming.is_method("initialize") {
            return self.envelope_initializes(conn, token, incoming, now);
        }
        let session = match self.holders.session(token, server) {
            Some(session) => session,
            // There is nobody yet who could be told.
            None if !is_request => return self.envelope_drops(conn, now),
            None => {
                let initialize = Bytes::from_static(INITIALIZE);
                let Some(session) = self.session_adopt(conn, (server, initialize), now) else {
                    return self.refuse(conn, Refusal::Full, id, now);
                };
                self.holders.insert_session(token, (server, session));
                session
            }
        };
        let headers = self.channel_headers(server, (Era::Legacy, Some(session)), &message, &rpc);
        let incoming = Incoming { session: Some(session), headers: &headers, ..incoming };
        self.post_legacy(conn, incoming, now);
    }

    /// A message that nobody can receive is taken all the same: it has no answer.
    fn envelope_drops(&mut self, conn: ConnId, now: Instant) {
        self.counters.dropped += 1;
        self.accept(conn, now);
    }

    /// `initialize`: the session that it opens takes the place of the one before.
    fn envelope_initializes(
        &mut self,
        conn: ConnId,
        token: &Token,
        incoming: Incoming<'_>,
        now: Instant,
    ) {
        let server = incoming.server;
        let Some(session) = self.session_open(conn, incoming, now) else { return };
        let before = self.holders.insert_session(token, (server, session));
        if let Some(key) = before
            && let Some(before) = self.sessions.get_mut(key)
        {
            before.is_replaced = true;
            self.timers.wish(Timer::Session(key), &mut before.wish, now);
        }
    }
}
