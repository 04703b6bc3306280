//! Bytes of clients become requests, one at a time per connection.

use std::time::Instant;

use bytes::Bytes;
use wire::Decoded;
use wire::http1::{self, BodyDecoder, HeaderSlots, RequestHead, Version};

use crate::admission::media;
use crate::frontend::answer::write_preflight;
use crate::frontend::http::{Busy, Chunked, Client, Form, Framing, path_of};
use crate::ids::{ConnId, Peer, ShardId, Socket};
use crate::limits;
use crate::message::Payload;
use crate::refusal::{Answer, Refusal};
use crate::session::id::SessionId;
use crate::shard::envelope::{Door, form_of};
use crate::shard::event::{Action, Letter};
use crate::shard::tunnel::Raw;
use crate::shard::{Role, Shard, Timer};
use crate::upstream::catalog::ServerId;

const HEAD_LIMITS: http1::Limits =
    http1::Limits { head_len_max: limits::HEAD_LEN_MAX, target_len_max: limits::TARGET_LEN_MAX };

/// What became of a request at the front of the input.
enum Progress {
    /// It was taken: this many bytes.
    Used(usize),
    /// It is not complete; this many bytes must be there before it is worth another look.
    Need(usize),
    /// The connection has no further use for the input.
    Stop,
}

/// What a request asks for, as far as its head tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Post(ServerId),
    Get(ServerId),
    Delete(ServerId),
    /// The event stream of HTTP+SSE.
    Stream(ServerId),
    /// A message for such a stream.
    Message(Option<SessionId>),
    /// The event stream of the predecessor.
    Events,
    /// A message in its envelope.
    Envelope(Door),
    Preflight,
    Upgrade(ServerId),
}

impl Target {
    /// The server of a POST.
    fn server(self) -> Option<ServerId> {
        match self {
            Self::Post(server) => Some(server),
            Self::Get(_)
            | Self::Delete(_)
            | Self::Stream(_)
            | Self::Message(_)
            | Self::Events
            | Self::Envelope(_)
            | Self::Preflight
            | Self::Upgrade(_) => None,
        }
    }
}

impl Shard {
    pub(super) fn client_accepted(&mut self, socket: Socket, peer: Peer, now: Instant) {
        self.client_adopted(socket, peer, (Vec::new(), 0), now);
    }

    pub(super) fn client_adopted(
        &mut self,
        socket: Socket,
        peer: Peer,
        (bytes, moves): (Vec<u8>, u8),
        now: Instant,
    ) {
        // A connection that moves here was let in already.
        let is_full = moves == 0 && (self.settings.clients_max as u64) <= self.counters.clients;
        if moves != 0 && self.link_adopted(socket, (peer, &bytes), now) {
            return;
        }
        let is_refused = is_full || bytes.is_empty() && self.draining.is_some();
        if !is_refused && self.channel_accepted(socket, (peer, moves), now) {
            return;
        }
        let mut client = Client::new(peer, now);
        client.moves = moves;
        let conn = match is_refused {
            true => None,
            false => self.open(Role::Client(Box::new(client))),
        };
        let Some(conn) = conn else {
            self.counters.accept_refused += 1;
            self.actions.push_back(Action::Discard { socket });
            return;
        };
        self.current = Some(conn);
        self.counters.clients += 1;
        self.counters.accepted += u64::from(moves == 0);
        self.actions.push_back(Action::Receive { conn, socket });
        self.wish_conn(conn, now + limits::HEAD_TIMEOUT);
        if !bytes.is_empty() {
            self.client_received(conn, &bytes, now);
        }
    }

    pub(super) fn client_received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        let received = bytes.len();
        client.received += received as u64;
        let begins = !std::mem::replace(&mut client.in_request, true);
        if begins {
            client.waits_since = now;
        }
        if client.chunked.is_some() {
            self.counters.received_bytes += received as u64;
            if let Some(used) = self.client_chunks(conn, bytes, now) {
                let rest = bytes.get(used..).unwrap_or_default();
                self.client_parse(conn, &Payload::Borrowed(rest), now);
            }
            return;
        }
        let is_direct = client.busy == Busy::No && client.inbox.is_empty();
        if is_direct {
            self.counters.received_bytes += received as u64;
            self.client_parse(conn, &Payload::Borrowed(bytes), now);
            return;
        }
        client.inbox.extend_from_slice(bytes);
        let is_enough = client.need <= client.inbox.len();
        self.counters.received_bytes += received as u64;
        if self.client_waits(conn) {
            // Later requests wait; the client is told to by TCP.
            self.client_account(conn);
            self.pause(conn);
        } else if is_enough {
            self.client_inbox(conn, now);
        } else {
            self.client_gathers(conn, now);
        }
    }

    /// Looks at what waits in the inbox.
    pub(super) fn client_continue(&mut self, conn: ConnId, now: Instant) {
        self.current = Some(conn);
        if self.client_waits(conn) {
            return;
        }
        let Some(client) = self.client_mut(conn) else { return };
        client.in_request = !client.inbox.is_empty();
        client.waits_since = now;
        if client.in_request {
            self.client_inbox(conn, now);
        }
        self.resume(conn);
        if self.client_waits(conn)
            && let Some(client) = self.client_mut(conn)
            && !client.inbox.is_empty()
        {
            self.pause(conn);
        }
    }

    /// Whether the next request of a connection has to wait: for the answer to the one before, or
    /// until the client has read what it was answered.
    fn client_waits(&mut self, conn: ConnId) -> bool {
        let Some(entry) = self.conns.get_mut(conn) else { return false };
        let is_behind = limits::OUTPUT_HIGH < entry.output.len();
        let Role::Client(client) = &entry.role else { return false };
        is_behind || client.busy != Busy::No
    }

    fn client_inbox(&mut self, conn: ConnId, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        let inbox = std::mem::take(&mut client.inbox);
        client.need = 0;
        self.client_account(conn);
        self.client_parse(conn, &Payload::Whole(Bytes::from(inbox)), now);
    }

    /// Takes requests from the front of the input until one has to be waited for.
    fn client_parse(&mut self, conn: ConnId, input: &Payload<'_>, now: Instant) {
        let mut at = 0;
        loop {
            let rest = input.bytes().get(at..).unwrap_or_default();
            let waits = self.client_waits(conn);
            let Some(client) = self.client_mut(conn) else {
                // It is closed; or it is a WebSocket now, and frames follow the request.
                return self.channel_takes(conn, &mut rest.to_vec(), now);
            };
            if rest.is_empty() {
                client.in_request = client.busy != Busy::No;
                return;
            }
            if waits {
                client.inbox = rest.to_vec();
                self.client_account(conn);
                self.pause(conn);
                return;
            }
            if self.channel_sniffed(conn, rest) {
                self.channel_takes(conn, &mut rest.to_vec(), now);
                return self.channel_rests(conn, now);
            }
            let mut slots = HeaderSlots::new();
            let progress = match http1::request(rest, &mut slots, HEAD_LIMITS) {
                Err(error) => {
                    self.refuse_and_close(conn, Refusal::Head(error), now);
                    return;
                }
                Ok(Decoded::Incomplete) => Progress::Need(0),
                Ok(Decoded::Item { item: head, used }) => {
                    self.client_request(conn, &head, (input, at, used), now)
                }
            };
            match progress {
                Progress::Used(used) => at += used,
                Progress::Stop => return,
                Progress::Need(need) => {
                    let Some(client) = self.client_mut(conn) else { return };
                    client.inbox.reserve(need.min(limits::RECV_LEN).max(rest.len()));
                    client.inbox.extend_from_slice(rest);
                    client.need = need;
                    client.in_request = true;
                    self.client_gathers(conn, now);
                    return;
                }
            }
        }
    }

    /// A request whose head is complete: `used` bytes at `at` of the input.
    fn client_request(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        (input, at, used): (&Payload<'_>, usize, usize),
        now: Instant,
    ) -> Progress {
        let is_draining = self.draining.is_some();
        let Some(client) = self.client_mut(conn) else { return Progress::Stop };
        client.framing = Framing {
            chunked: false,
            can_chunk: head.version == Version::Http11,
            keep_alive: head.keep_alive && !is_draining,
            is_head: head.method == "HEAD",
        };
        client.origin = None;
        client.form = form_of(path_of(head.target).0);
        let rest = input.bytes().len() - at;
        let len = match head.body {
            http1::Body::Length(len) => usize::try_from(len).unwrap_or(usize::MAX),
            http1::Body::None | http1::Body::Chunked | http1::Body::UntilClose => 0,
        };
        let total = used.saturating_add(len);
        let target = match self.client_admits(conn, head, len) {
            Ok(target) => target,
            Err(refusal) if total <= rest && head.body != http1::Body::Chunked => {
                self.refuse(conn, refusal, b"null", now);
                return Progress::Used(total);
            }
            Err(refusal) => {
                self.refuse_and_close(conn, refusal, now);
                return Progress::Stop;
            }
        };
        if head.body == http1::Body::Chunked {
            let bytes = input.bytes().get(at..).unwrap_or_default();
            let parts = bytes.split_at_checked(used).unwrap_or_default();
            return match self.client_chunked(conn, head, parts, now) {
                Some(body) => Progress::Used(used + body),
                None => Progress::Stop,
            };
        }
        if rest < total {
            self.client_expects(conn, head, rest == used);
            return Progress::Need(total);
        }
        let raw = Raw {
            request: input.bytes().get(at..at + total).unwrap_or_default(),
            chunked: None,
            behind: input.bytes().get(at + total..).unwrap_or_default(),
        };
        let is_elsewhere = match target {
            Target::Upgrade(server) => self.upgrade_moves(conn, (head, server), raw, now),
            _ => {
                let body = raw.request.get(used..).unwrap_or_default();
                let owner = self.client_owner(head, target, body);
                self.hand_over(conn, (owner, target), raw, now)
            }
        };
        if is_elsewhere {
            // The connection may have moved, with all that follows.
            if self.client_mut(conn).is_none() {
                return Progress::Stop;
            }
            return Progress::Used(total);
        }
        let body = match input {
            Payload::Borrowed(bytes) => {
                Payload::Borrowed(bytes.get(at + used..at + total).unwrap_or_default())
            }
            Payload::Whole(bytes) => Payload::Whole(bytes.slice(at + used..at + total)),
        };
        self.client_serve(conn, (head, target), &body, now);
        Progress::Used(total)
    }

    /// Whom a request is for, and whether it may be as long as it says. An admitted origin is
    /// remembered for the answer.
    fn client_admits(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        len: usize,
    ) -> Result<Target, Refusal> {
        let target = self.client_target(conn, head);
        if target != Err(Refusal::Origin)
            && target != Err(Refusal::Host)
            && let Some(client) = self.client_mut(conn)
        {
            client.origin = head.headers.get("origin").map(Box::from);
        }
        if self.settings.message_len_max < len { Err(Refusal::TooLarge) } else { target }
    }

    /// A request with a chunked body: its head, and what of the body is there.
    fn client_chunked(
        &mut self,
        conn: ConnId,
        head: &RequestHead<'_, '_>,
        (head_bytes, body): (&[u8], &[u8]),
        now: Instant,
    ) -> Option<usize> {
        self.client_expects(conn, head, body.is_empty());
        let client = self.client_mut(conn)?;
        client.chunked = Some(Box::new(Chunked {
            head: head_bytes.to_vec(),
            decoder: BodyDecoder::new(head.body),
            body: Vec::new(),
        }));
        self.client_chunks(conn, body, now)
    }

    /// Says `100 Continue` once, if the client waits for it.
    fn client_expects(&mut self, conn: ConnId, head: &RequestHead<'_, '_>, waits: bool) {
        let Some(client) = self.client_mut(conn) else { return };
        if head.expects_continue && waits && !std::mem::replace(&mut client.continued, true) {
            self.write(conn, |output| output.push(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
    }

    /// More of a chunked body. Returns the bytes used when it is complete and was served: what is
    /// behind it is for the caller, never for this function, whose depth a client could drive.
    fn client_chunks(&mut self, conn: ConnId, input: &[u8], now: Instant) -> Option<usize> {
        let len_max = self.settings.message_len_max;
        let client = self.client_mut(conn)?;
        let mut chunked = client.chunked.take()?;
        let mut is_done = false;
        let mut bytes = input;
        while !is_done && !bytes.is_empty() {
            let Ok(part) = chunked.decoder.decode(bytes) else {
                self.refuse_and_close(conn, Refusal::Body, now);
                return None;
            };
            chunked.body.extend_from_slice(part.data);
            if len_max < chunked.body.len() {
                self.refuse_and_close(conn, Refusal::TooLarge, now);
                return None;
            }
            is_done = part.done;
            if part.used == 0 && !is_done {
                break;
            }
            bytes = bytes.get(part.used..).unwrap_or_default();
        }
        let client = self.client_mut(conn)?;
        if !is_done {
            client.chunked = Some(chunked);
            self.client_gathers(conn, now);
            return None;
        }
        let Chunked { head, body, .. } = *chunked;
        let mut slots = HeaderSlots::new();
        let Ok(Decoded::Item { item, .. }) = http1::request(&head, &mut slots, HEAD_LIMITS) else {
            return None;
        };
        let body = Bytes::from(body);
        match self.client_target(conn, &item) {
            Err(refusal) => self.refuse(conn, refusal, b"null", now),
            Ok(target) => {
                let owner = self.client_owner(&item, target, &body);
                let raw = Raw { request: &head, chunked: Some(&body), behind: bytes };
                if !self.hand_over(conn, (owner, target), raw, now) {
                    self.client_serve(conn, (&item, target), &Payload::Whole(body), now);
                }
            }
        }
        self.client_account(conn);
        Some(input.len() - bytes.len())
    }

    /// An incomplete request grew: its bytes count, and its clock runs.
    fn client_gathers(&mut self, conn: ConnId, now: Instant) {
        self.client_account(conn);
        if (limits::GATHERED_LEN_MAX as u64) < self.counters.gathered {
            self.refuse_and_close(conn, Refusal::Full, now);
            return;
        }
        let Some(client) = self.client_mut(conn) else { return };
        let has_head = client.need != 0 || client.chunked.is_some();
        if has_head {
            // A body must make progress; a head must be complete in time, whatever it does.
            client.waits_since = now;
        }
        let limit = if has_head { limits::BODY_TIMEOUT } else { limits::HEAD_TIMEOUT };
        let at = client.waits_since + limit;
        self.wish_conn(conn, at);
    }

    /// Brings the count of gathered bytes up to date.
    pub(super) fn client_account(&mut self, conn: ConnId) {
        let Some(client) = self.client_mut(conn) else { return };
        let gathering = client.gathering();
        let before = std::mem::replace(&mut client.gathered, gathering);
        self.counters.gathered += gathering as u64;
        self.counters.gathered -= before as u64;
    }

    /// Whom a request is for, or why it is refused, as far as the head tells.
    fn client_target(&self, conn: ConnId, head: &RequestHead<'_, '_>) -> Result<Target, Refusal> {
        let headers = &head.headers;
        let host = headers.get("host").unwrap_or_default();
        if !self.settings.origins.admits_host(host) {
            return Err(Refusal::Host);
        }
        let origin = headers.get("origin");
        let is_foreign = |origin| !self.settings.origins.admits_origin(origin, host);
        if headers.get_all("origin").any(is_foreign) {
            return Err(Refusal::Origin);
        }
        let path = path_of(head.target);
        let entrance = self.entrance_of(conn);
        if let Some(server) = entrance.and_then(|entrance| self.upgrade_target(head, entrance)) {
            return server.map(Target::Upgrade);
        }
        if let Some(target) = self.envelope_target(conn, head, path.0) {
            return target;
        }
        if let Some(target) = self.sse_target(conn, head, path) {
            return target;
        }
        let server = self.client_route(path.0)?;
        let accepts = |wanted| media::accepts(headers.get_all("accept"), wanted);
        match head.method {
            "POST" => {
                let is_json = |value| media::is_type(value, "application/json");
                if !headers.get("content-type").is_some_and(is_json) {
                    return Err(Refusal::ContentType);
                }
                if headers.get("content-encoding").is_some_and(|coding| coding != b"identity") {
                    return Err(Refusal::ContentEncoding);
                }
                if !accepts("application/json") || !accepts("text/event-stream") {
                    return Err(Refusal::Accept);
                }
                Ok(Target::Post(server))
            }
            "GET" if accepts("text/event-stream") => Ok(Target::Get(server)),
            "GET" => Err(Refusal::AcceptEvents),
            "DELETE" => Ok(Target::Delete(server)),
            "OPTIONS" if origin.is_some() => Ok(Target::Preflight),
            _ => Err(Refusal::Method),
        }
    }

    /// The other shard that must serve a request.
    fn client_owner(
        &self,
        head: &RequestHead<'_, '_>,
        target: Target,
        body: &[u8],
    ) -> Option<ShardId> {
        match target {
            Target::Events | Target::Envelope(_) => self.envelope_owner(head, target, body),
            Target::Stream(server) => self.home_of(server),
            Target::Message(id) => {
                let owner = id?.owner(self.identity.shards);
                (owner != self.identity.id).then_some(owner)
            }
            other => self.owner_of(head, other.server()),
        }
    }

    /// The server of a path: `/mcp` or `/mcp/{server}`.
    pub(super) fn client_route(&self, path: &str) -> Result<ServerId, Refusal> {
        let name = path.strip_prefix("/mcp").ok_or(Refusal::Path)?;
        match name.strip_prefix('/') {
            None if name.is_empty() => self.settings.catalog.root().ok_or(Refusal::Server),
            None => Err(Refusal::Path),
            Some("") => self.settings.catalog.root().ok_or(Refusal::Server),
            Some(name) => self.settings.catalog.find(name).ok_or(Refusal::Server),
        }
    }

    /// A complete request.
    fn client_serve(
        &mut self,
        conn: ConnId,
        (head, target): (&RequestHead<'_, '_>, Target),
        body: &Payload<'_>,
        now: Instant,
    ) {
        #[cfg(test)]
        if self.fault.is_some_and(|fault| memchr::memmem::find(body.bytes(), fault).is_some()) {
            panic!("a fault that a test asked for");
        }
        let Some(client) = self.client_mut(conn) else { return };
        client.requests += 1;
        client.continued = false;
        client.in_request = true;
        let (origin, keep_alive) = (client.origin.clone(), client.framing.keep_alive);
        match target {
            Target::Post(server) => self.post(conn, head, (server, body), now),
            Target::Get(server) => self.get(conn, head, server, now),
            Target::Delete(server) => self.delete(conn, head, server, now),
            Target::Upgrade(server) => self.upgrade(conn, head, server, now),
            Target::Stream(server) => self.sse_open(conn, server, now),
            Target::Message(id) => self.sse_post(conn, id, body, now),
            Target::Events => self.envelope_listens(conn, head, now),
            Target::Envelope(door) => self.envelope_post(conn, (head, door), body, now),
            Target::Preflight => {
                let origin = origin.unwrap_or_default();
                let asked = head.headers.get("access-control-request-headers").unwrap_or_default();
                self.write(conn, |output| {
                    write_preflight(output.tail(), (&origin, asked), keep_alive);
                });
                self.client_done(conn, now);
            }
        }
    }

    /// Answers with a refusal; the connection stays open if it can.
    pub(super) fn refuse(&mut self, conn: ConnId, refusal: Refusal, id: &[u8], now: Instant) {
        self.refuse_version(conn, (refusal, None), id, now);
    }

    /// The same for an unsupported version, which is repeated in the answer.
    pub(super) fn refuse_version(
        &mut self,
        conn: ConnId,
        (refusal, requested): (Refusal, Option<&[u8]>),
        id: &[u8],
        now: Instant,
    ) {
        if self.channel_mut(conn).is_some() {
            self.counters.refused += 1;
            return self.channel_refuse(conn, (refusal, requested), id, now);
        }
        let refusal = self.count_guess(conn, refusal, now);
        self.counters.refused += 1;
        self.report_refusal(conn, refusal, now);
        let Some(client) = self.client_mut(conn) else { return };
        let (origin, framing) = (client.origin.clone(), client.framing);
        let (keep_alive, is_head) = (framing.keep_alive, framing.is_head);
        let (is_plain, origin) = (client.form == Form::Words, origin.as_deref());
        let answer = Answer { id, origin, requested, is_plain, keep_alive, is_head };
        self.write(conn, |output| refusal.write_response(output.tail(), answer));
        self.client_done(conn, now);
    }

    /// Answers with a refusal and closes: what follows on the connection has no meaning.
    pub(super) fn refuse_and_close(&mut self, conn: ConnId, refusal: Refusal, now: Instant) {
        if let Some(client) = self.client_mut(conn) {
            client.framing.keep_alive = false;
            client.inbox = Vec::new();
        }
        self.refuse(conn, refusal, b"null", now);
    }

    /// The response is complete: the next request may come.
    pub(super) fn client_done(&mut self, conn: ConnId, now: Instant) {
        let is_holding = self.conns.get_mut(conn).map(|e| std::mem::take(&mut e.holds_producer));
        if is_holding == Some(true) {
            // The producer works for others too, and this client gets no more of it.
            self.release_producer(conn, now);
        }
        let Some(client) = self.client_mut(conn) else { return };
        client.busy = Busy::No;
        client.form = Form::Any;
        client.origin = None;
        client.continued = false;
        client.waits_since = now;
        client.in_request = !client.inbox.is_empty();
        let (keep_alive, is_waiting) = (client.framing.keep_alive, client.in_request);
        if client.near.is_some() {
            self.tunnel_done(conn, keep_alive, now);
            return;
        }
        if !keep_alive {
            self.client_close(conn, "answered", now);
            return;
        }
        if is_waiting {
            self.ready.push_back(conn);
        }
        self.wish_conn(conn, now + limits::KEEP_ALIVE_TIMEOUT);
    }

    /// The client is gone: what it waited for is cancelled or goes on without it.
    pub(super) fn client_lost(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        let Some(client) = self.client_mut(conn) else { return };
        let busy = client.busy;
        if self.conns.get(conn).is_some_and(|entry| entry.holds_producer) {
            self.release_producer(conn, now);
        }
        if let Some(client) = self.client_mut(conn) {
            client.busy = Busy::No;
        }
        if let Some(entry) = self.conns.get_mut(conn) {
            // It will not read what it has not read.
            let _unsent = entry.output.take();
        }
        self.client_close(conn, why, now);
        match busy {
            Busy::No => {}
            Busy::Exchange(exchange) => self.exchange_deserted(exchange, now),
            Busy::Stream(session, stream) => self.stream_detached(session, stream, conn, now),
            Busy::Tunnel(shard) => self.tunnel_deserted(shard, conn),
        }
    }

    /// Closes a client connection after what is in its output.
    pub(super) fn client_close(&mut self, conn: ConnId, why: &'static str, now: Instant) {
        self.report_closed(conn, why, now);
        let Some(mut entry) = self.conns.remove(conn) else { return };
        let Role::Client(client) = entry.role else { return };
        self.counters.gathered -= client.gathered as u64;
        match client.near {
            Some(near) => {
                // The near end waits for this, whatever the reason.
                self.tunnels.remove(&(near.shard, near.conn));
                let letter = Letter::Done { near: near.conn, keep_alive: false };
                self.actions.push_back(Action::Mail { to: near.shard, letter });
            }
            None => {
                self.counters.clients -= 1;
                self.actions.push_back(Action::Close { conn, rest: entry.output.take() });
            }
        }
    }

    pub(super) fn wish_conn(&mut self, conn: ConnId, at: Instant) {
        if let Some(entry) = self.conns.get_mut(conn) {
            self.timers.wish(Timer::Conn(conn), &mut entry.wish, at);
        }
    }
}
