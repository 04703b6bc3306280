//! Servers by WebSocket, which are served like child processes: to start one is to dial and to
//! shake hands, a line is a message, and it dies with its connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::rand_core::Rng as _;
use wire::Decoded;
use wire::http1::{self, HeaderSlots};
use wire::ws::{
    self, Item, MessageKind, Receiver, ResponseError, accept_response, write_close, write_message,
    write_ping, write_pong,
};

use crate::backend::stdio::{Carrier, State};
use crate::backend::tls;
use crate::backend::websocket::{DEFLATE, PROTOCOLS, WebSocket};
use crate::ids::{ConnId, ProcessId, Ticket};
use crate::limits;
use crate::refusal::Refusal;
use crate::shard::event::{Action, Question};
use crate::shard::http::Site;
use crate::shard::websocket::compress_len_max;
use crate::shard::{Asked, Role, Shard};

const HEAD_LIMITS: http1::Limits =
    http1::Limits { head_len_max: limits::HEAD_LEN_MAX, target_len_max: limits::TARGET_LEN_MAX };

impl Shard {
    /// Dials, as soon as it is known where.
    pub(super) fn remote_ws_start(&mut self, id: ProcessId, now: Instant) {
        let Some((server, place)) = self.processes.get(&id).map(|it| (it.server, it.endpoint))
        else {
            return;
        };
        let Some(endpoint) = self.endpoint(server, place) else { return };
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.remote_ws_located(id, Some(vec![SocketAddr::new(ip, port)]), now);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.questions.insert(ticket, Asked::Locate(id));
        self.actions.push_back(Action::Ask { ticket, question: Question::Resolve { host, port } });
    }

    pub(super) fn remote_ws_located(
        &mut self,
        id: ProcessId,
        addrs: Option<Vec<SocketAddr>>,
        now: Instant,
    ) {
        let process = self.processes.get(&id).filter(|it| it.state == State::Starting);
        let Some((server, place)) = process.map(|it| (it.server, it.endpoint)) else { return };
        let Some(addrs) = addrs else {
            if self.remote_ws_fails_over(id, now) {
                return;
            }
            return self.process_failed(id, "its host has no known address", now);
        };
        let tls = match self.endpoint(server, place) {
            Some(endpoint) if endpoint.tls => match self.tls_client(endpoint) {
                Some(tls) => Some(Box::new(tls)),
                None if self.remote_ws_fails_over(id, now) => return,
                None => return self.process_failed(id, "TLS cannot be set up", now),
            },
            _ => None,
        };
        if !self.site_mut(server, place).is_some_and(Site::open_conn) {
            if !self.process_fails_over(id, now) {
                self.process_refused(id, "there are as many connections as are allowed", now);
            }
            return;
        }
        let mut nonce = [0; 16];
        self.random.fill_bytes(&mut nonce);
        let Some(conn) = self.open(Role::Process(id)) else {
            if let Some(site) = self.site_mut(server, place) {
                site.close_conn();
            }
            return self.process_refused(id, "there is no room for its connection", now);
        };
        self.counters.dialled += 1;
        self.counters.server_conns += 1;
        self.actions.push_back(Action::Dial { conn, addrs });
        self.wish_conn(conn, now + limits::CONNECT_TIMEOUT);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.conn = Some(conn);
        if let Some(socket) = process.socket_mut() {
            (socket.tls, socket.nonce, socket.alive_at) = (tls, nonce, now);
        }
    }

    /// The connection is there: the handshake comes first.
    pub(super) fn remote_ws_connected(&mut self, id: ProcessId) {
        let place = self.processes.get(&id).map(|it| (it.server, it.endpoint));
        let Some(endpoint) = place.and_then(|it| self.endpoint(it.0, it.1)) else { return };
        let mut request = Vec::new();
        let Some(Carrier::WebSocket(socket)) = self.processes.get(&id).map(|it| &it.carrier) else {
            return;
        };
        socket.write_request(&mut request, endpoint);
        self.remote_ws_send(id, &request);
    }

    /// Sends plain bytes, through TLS if that is how the server is reached.
    fn remote_ws_send(&mut self, id: ProcessId, plain: &[u8]) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (Some(conn), Some(socket)) = (process.conn, process.socket_mut()) else { return };
        match &mut socket.tls {
            None => self.write(conn, |output| output.push(plain)),
            Some(tls) => {
                let mut records = Vec::new();
                tls::seal(tls, plain, &mut records);
                self.write(conn, |output| output.push_whole(Bytes::from(records)));
            }
        }
    }

    /// Sends a line as a message.
    pub(super) fn remote_ws_push(&mut self, id: ProcessId, line: &[u8]) {
        let message = line.strip_suffix(b"\n").unwrap_or(line);
        let key = Some(self.random.next_u32().to_ne_bytes());
        let len_max = self.ws_mut(id).map_or(0, |socket| socket.compress_len_max);
        let deflater = (message.len() <= len_max).then_some(&mut self.deflater);
        let mut frame = Vec::with_capacity(message.len() + 14);
        write_message(&mut frame, deflater, MessageKind::Text, message, key);
        self.remote_ws_send(id, &frame);
    }

    /// Bytes of a server that is reached by WebSocket.
    pub(super) fn remote_ws_received(&mut self, id: ProcessId, bytes: &mut [u8], now: Instant) {
        let conn = self.process_conn(id);
        let Some(socket) = self.ws_mut(id) else { return };
        socket.alive_at = now;
        let Some(tls) = &mut socket.tls else { return self.remote_ws_plain(id, bytes, now) };
        let (mut plain, is_fine) = tls::open(tls, bytes);
        // What TLS itself has to say.
        self.remote_ws_send(id, b"");
        self.remote_ws_plain(id, &mut plain, now);
        // It may be at another endpoint by now.
        if !is_fine && conn.is_some() && self.process_conn(id) == conn {
            self.remote_ws_lost(id, now);
        }
    }

    fn remote_ws_plain(&mut self, id: ProcessId, bytes: &mut [u8], now: Instant) {
        let Some(socket) = self.ws_mut(id).filter(|_| !bytes.is_empty()) else { return };
        if socket.is_open {
            return self.remote_ws_frames(id, bytes, now);
        }
        socket.head.extend_from_slice(bytes);
        let mut head = std::mem::take(&mut socket.head);
        match self.remote_ws_agreed(id, &head) {
            Ok(None) => {
                if let Some(socket) = self.ws_mut(id) {
                    socket.head = head;
                }
            }
            Ok(Some(used)) => {
                if let Some(conn) = self.process_conn(id) {
                    self.wish_conn(conn, now + self.settings.ping_interval);
                }
                self.remote_ws_worked(id, now);
                self.process_greets(id, now);
                let frames = head.get_mut(used..).unwrap_or_default();
                self.remote_ws_frames(id, frames, now);
            }
            Err((refusal, why)) => {
                self.report_process(id, &why, now);
                if refusal == Refusal::Unreachable && self.remote_ws_fails_over(id, now) {
                    return;
                }
                self.process_ended(id, refusal, now);
            }
        }
    }

    /// Whether the handshake is answered, and how long the answer is; or why it leads to nothing.
    fn remote_ws_agreed(
        &mut self,
        id: ProcessId,
        head: &[u8],
    ) -> Result<Option<usize>, (Refusal, String)> {
        let limits = ws::Limits {
            message_len_max: self.settings.message_len_max,
            frames_max: limits::FRAMES_MAX,
        };
        let broken = (Refusal::BadServer, "does not answer in HTTP".to_owned());
        let Some(socket) = self.ws_mut(id) else { return Err(broken) };
        let mut slots = HeaderSlots::new();
        let (item, used) = match http1::response(head, &mut slots, HEAD_LIMITS, false) {
            Ok(Decoded::Item { item, used }) => (item, used),
            Ok(Decoded::Incomplete) => return Ok(None),
            Err(_) => return Err(broken),
        };
        let accepted = accept_response(&item, &socket.nonce, PROTOCOLS, Some(DEFLATE));
        let connected = accepted.map_err(|error| {
            let refusal = match error {
                ResponseError::NotSwitching(401 | 403) => Refusal::Credentials,
                ResponseError::NotSwitching(500..) => Refusal::Unreachable,
                _ => Refusal::BadServer,
            };
            (refusal, format!("opened no WebSocket: {error}"))
        })?;
        socket.frames = Some(Box::new(Receiver::new(ws::Role::Client, limits, connected.deflate)));
        socket.compress_len_max = compress_len_max(connected.deflate.map(|params| params.client));
        socket.is_open = true;
        Ok(Some(used))
    }

    fn remote_ws_frames(&mut self, id: ProcessId, mut bytes: &mut [u8], now: Instant) {
        // It cannot be in two places: what it lends is served by the whole shard.
        let Some(mut frames) = self.ws_mut(id).and_then(|socket| socket.frames.take()) else {
            return;
        };
        loop {
            match frames.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(Item::Text(text))) => self.process_line(id, &text, now),
                Ok(Some(Item::Ping(payload))) => self.remote_ws_pinged(id, &payload),
                Ok(Some(Item::Pong(_))) => {}
                Ok(Some(Item::Close(close))) => {
                    self.remote_ws_close(id, close.map(|close| close.code), "");
                    self.remote_ws_lost(id, now);
                }
                Ok(Some(Item::Binary(_))) => {
                    self.remote_ws_fails(id, (ws::UNSUPPORTED, "send text messages"), now);
                }
                Err(error) => {
                    let why = error.to_string();
                    self.remote_ws_fails(id, (error.close_code(), &why), now);
                }
            }
            if self.ws_mut(id).is_none_or(|socket| !socket.is_open) {
                return;
            }
        }
        if let Some(socket) = self.ws_mut(id) {
            socket.frames = Some(frames);
        }
    }

    /// The server broke the rules.
    fn remote_ws_fails(&mut self, id: ProcessId, (code, why): (u16, &str), now: Instant) {
        self.report_process(id, &format!("was told to {why}"), now);
        self.remote_ws_close(id, Some(code), why);
        self.process_ended(id, Refusal::BadServer, now);
    }

    /// Answers a ping, unless the server does not read.
    fn remote_ws_pinged(&mut self, id: ProcessId, payload: &[u8]) {
        if self.process_queued(id) <= limits::OUTPUT_LOW {
            let mut frame = Vec::new();
            write_pong(&mut frame, payload, Some(self.random.next_u32().to_ne_bytes()));
            self.remote_ws_send(id, &frame);
        }
    }

    /// The connection could not be had, or broke.
    pub(super) fn remote_ws_lost(&mut self, id: ProcessId, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let is_starting = process.state == State::Starting;
        let Some(socket) = process.socket_mut() else { return };
        socket.is_open = false;
        if is_starting {
            if self.remote_ws_fails_over(id, now) {
                return;
            }
            return self.process_failed(id, "cannot be connected to by WebSocket", now);
        }
        self.report_process(id, "closed the connection", now);
        self.process_ended(id, Refusal::Died, now);
    }

    fn remote_ws_worked(&mut self, id: ProcessId, now: Instant) {
        if let Some(place) = self.processes.get(&id).map(|it| (it.server, it.endpoint)) {
            self.endpoint_worked(place, now);
        }
    }

    /// No WebSocket was opened: tries the next endpoint, if there is one.
    fn remote_ws_fails_over(&mut self, id: ProcessId, now: Instant) -> bool {
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let place = (process.server, process.endpoint);
        let Some(began) = process.socket_mut().map(|socket| socket.alive_at) else { return false };
        self.endpoint_failed(place, began, now);
        self.process_fails_over(id, now)
    }

    /// The process is over.
    pub(super) fn remote_ws_ended(&mut self, id: ProcessId) {
        let goodbye = if self.draining.is_some() { ws::GOING_AWAY } else { ws::NORMAL };
        self.remote_ws_close(id, Some(goodbye), "");
        let process = self.processes.get(&id).filter(|process| process.conn.is_some());
        let Some((server, place)) = process.map(|it| (it.server, it.endpoint)) else { return };
        self.counters.server_conns -= 1;
        if let Some(site) = self.site_mut(server, place) {
            site.close_conn();
        }
    }

    /// Says goodbye, once.
    fn remote_ws_close(&mut self, id: ProcessId, code: Option<u16>, reason: &str) {
        let Some(socket) = self.ws_mut(id) else { return };
        if std::mem::take(&mut socket.is_open) {
            let mut frame = Vec::new();
            let key = Some(self.random.next_u32().to_ne_bytes());
            write_close(&mut frame, code, reason, key);
            self.remote_ws_send(id, &frame);
        }
    }

    /// Looks whether the server is still there: after a silence it is asked, after another it is
    /// gone.
    pub(super) fn remote_ws_tick(&mut self, id: ProcessId, conn: ConnId, now: Instant) {
        let interval = self.settings.ping_interval;
        let is_paused = self.conns.get(conn).is_some_and(|entry| entry.is_paused);
        let Some(socket) = self.ws_mut(id) else { return };
        if is_paused {
            socket.alive_at = now;
        }
        let alive_at = socket.alive_at;
        let silence = now.saturating_duration_since(alive_at);
        if !socket.is_open {
            match limits::CONNECT_TIMEOUT <= silence {
                true => self.remote_ws_lost(id, now),
                false => self.wish_conn(conn, alive_at + limits::CONNECT_TIMEOUT),
            }
            return;
        }
        if interval * 2 <= silence {
            self.report_process(id, "does not answer pings", now);
            return self.remote_ws_lost(id, now);
        }
        let is_silent = interval <= silence;
        if is_silent && socket.pinged_at.is_none_or(|at| at < alive_at) {
            socket.pinged_at = Some(now);
            let mut frame = Vec::new();
            write_ping(&mut frame, b"", Some(self.random.next_u32().to_ne_bytes()));
            self.remote_ws_send(id, &frame);
        }
        self.wish_conn(conn, alive_at + interval * if is_silent { 2 } else { 1 });
    }

    /// Some of the output was sent that had to wait: it is there.
    pub(super) fn remote_ws_sent(&mut self, conn: ConnId, now: Instant) {
        let Some(Role::Process(id)) = self.conns.get(conn).map(|entry| &entry.role) else { return };
        let id = *id;
        if let Some(socket) = self.ws_mut(id) {
            socket.alive_at = now;
        }
    }

    fn ws_mut(&mut self, id: ProcessId) -> Option<&mut WebSocket> {
        self.processes.get_mut(&id)?.socket_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::entrance::{Entrance, Protocol};
    use crate::shard::event::Event;
    use crate::shard::settings::Settings;
    use crate::tests::settings;
    use crate::upstream::catalog::Target;

    const INITIALIZE: &[u8] =
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\
        \"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\
        \"clientInfo\":{\"name\":\"x\",\"version\":\"1\"}}}\n";

    /// A shard with a server that may have one connection, and whose name is to be looked up.
    fn shard(now: Instant) -> Shard {
        let target = Target::WebSocket(settings::endpoint("name.test").into());
        let entrances = vec![Entrance::of(Protocol::Lines)];
        let settings = Settings { entrances, ..settings::settings(vec![settings::server(target)]) };
        settings::shard(settings, 0, 1, now)
    }

    fn tell(shard: &mut Shard, event: Event<'_>, now: Instant) -> Vec<Action> {
        shard.handle(event, now);
        std::iter::from_fn(|| shard.poll()).collect()
    }

    /// A client comes and says `initialize`; whether a name is looked up for it.
    fn begin(shard: &mut Shard, now: Instant) -> bool {
        let (conn, _) = settings::accept(shard, now);
        let bytes = &mut INITIALIZE.to_vec();
        let actions = tell(shard, Event::Received { conn, bytes }, now);
        let is_asked = |action: &Action| {
            matches!(action, Action::Ask { question: Question::Resolve { .. }, .. })
        };
        actions.iter().any(is_asked)
    }

    #[test]
    fn a_name_that_is_not_found_in_time_holds_no_place() {
        let now = Instant::now();
        let mut shard = shard(now);
        assert!(begin(&mut shard, now));
        assert!(begin(&mut shard, now), "what is not connected holds no place");
        let later = now + limits::START_TIMEOUT + Duration::from_secs(1);
        let actions = tell(&mut shard, Event::Woke, later);
        assert!(!actions.iter().any(|action| matches!(action, Action::Stop { .. })), "{actions:?}");
        assert_eq!(shard.counters().server_conns, 0);
        assert!(begin(&mut shard, later));
    }
}
