//! HTTP servers: strict about requests, capricious in their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::Decoded;
use wire::http1::{self, Body, HeaderSlots};
use wire::rpc::{self, Envelope, Kind};

use crate::tests::sim::check::{LIMITS, Tag};
use crate::tests::sim::job::{Place, Step, Stream, welcome};
use crate::tests::sim::net::{End, LinkId, Task};
use crate::tests::sim::server_stdio::{Tools, answered, job, raw, short};
use crate::tests::sim::union::capabilities;

#[derive(Debug)]
struct Session {
    id: String,
    owner: Option<(usize, usize)>,
    questions: Vec<String>,
    /// Its GET stream.
    listener: Option<LinkId>,
}

#[derive(Debug, Default)]
pub(super) struct Conn {
    buffer: Vec<u8>,
    pub(super) is_busy: bool,
    /// What it said of the current response.
    pub(super) is_chunked: bool,
    pub(super) closes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    /// Whether it gives out session ids, and listens.
    has_sessions: bool,
    sessions: Vec<Session>,
    sessions_count: u32,
    /// What it asked without a session.
    questions: Vec<String>,
    /// Whether it can not be connected to.
    pub(super) is_down: bool,
    /// Whether it may have forgotten what it asked.
    has_fallen: bool,
    pub(super) conns: BTreeMap<LinkId, Conn>,
}

/// All HTTP servers, by their place in the catalog.
#[derive(Debug, Default)]
pub(super) struct Http {
    pub(super) servers: BTreeMap<usize, Server>,
}

impl Server {
    pub(super) fn new(has_sessions: bool) -> Self {
        Self { has_sessions, ..Self::default() }
    }
}

/// A request without its content.
struct Head {
    method: String,
    session: Option<String>,
    version: Option<String>,
    mirrored: (Option<String>, Option<String>),
    last_event_id: Option<String>,
}

const HEAD_LIMITS: http1::Limits = http1::Limits { head_len_max: 32768, target_len_max: 8192 };

impl Http {
    pub(super) fn received(
        &mut self,
        server: usize,
        link: LinkId,
        bytes: Result<Vec<u8>, End>,
        tools: &mut Tools<'_>,
    ) {
        let Some(entry) = self.servers.get_mut(&server) else { return };
        let Ok(bytes) = bytes else {
            entry.conns.remove(&link);
            self.left(link, tools);
            return;
        };
        entry.conns.entry(link).or_default().buffer.extend_from_slice(&bytes);
        while let Some((head, body)) = self.take(server, link, tools) {
            self.serve(server, link, &head, &body, tools);
        }
    }

    /// A server is gone: whoever was connected learns it, and it forgets everything.
    pub(super) fn fall(&mut self, server: usize, tools: &mut Tools<'_>) {
        let Some(entry) = self.servers.get_mut(&server) else { return };
        entry.is_down = true;
        entry.has_fallen = true;
        entry.sessions = Vec::new();
        entry.questions = Vec::new();
        let links: Vec<LinkId> = entry.conns.keys().copied().collect();
        for job in &mut tools.jobs.list {
            job.is_over |= matches!(&job.place, Place::Http(stream) if stream.server == server);
        }
        for link in links {
            self.hang_up(server, link, tools);
        }
    }

    pub(super) fn rise(&mut self, server: usize) {
        if let Some(entry) = self.servers.get_mut(&server) {
            entry.is_down = false;
        }
    }

    /// The gateway closed a connection: a modern request on it is cancelled by that.
    fn left(&mut self, link: LinkId, tools: &mut Tools<'_>) {
        for job in &mut tools.jobs.list {
            let Place::Http(stream) = &mut job.place else { continue };
            if stream.link == Some(link) && !job.is_over {
                stream.link = None;
                if stream.is_modern {
                    job.is_over = true;
                }
            }
        }
        for session in self.servers.values_mut().flat_map(|server| &mut server.sessions) {
            if session.listener == Some(link) {
                session.listener = None;
            }
        }
    }

    /// The next whole request of a connection.
    fn take(
        &mut self,
        server: usize,
        link: LinkId,
        tools: &mut Tools<'_>,
    ) -> Option<(Head, Vec<u8>)> {
        let conn = self.servers.get_mut(&server)?.conns.get_mut(&link)?;
        let mut slots = HeaderSlots::new();
        let (head, used) = match http1::request(&conn.buffer, &mut slots, HEAD_LIMITS) {
            Ok(Decoded::Item { item, used }) => (item, used),
            Ok(Decoded::Incomplete) => return None,
            Err(error) => {
                tools.check.violation(format!("a server was sent bad HTTP: {error:?}"));
                conn.buffer.clear();
                return None;
            }
        };
        let len = match head.body {
            Body::None => 0,
            Body::Length(len) => usize::try_from(len).unwrap(),
            Body::Chunked | Body::UntilClose => {
                tools.check.violation("a server was sent chunks".to_owned());
                return None;
            }
        };
        if conn.buffer.len() < used + len {
            return None;
        }
        if conn.is_busy {
            tools.check.violation("a server was sent a request before it answered".to_owned());
        }
        let text = |name: &str| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let facts = Head {
            method: head.method.to_owned(),
            session: text("mcp-session-id"),
            version: text("mcp-protocol-version"),
            mirrored: (text("mcp-method"), text("mcp-name")),
            last_event_id: text("last-event-id"),
        };
        let rest = conn.buffer.split_off(used + len);
        let mut body = std::mem::replace(&mut conn.buffer, rest);
        conn.is_busy = true;
        conn.closes = tools.net.random.chance(15);
        Some((facts, body.split_off(used)))
    }

    fn serve(
        &mut self,
        server: usize,
        link: LinkId,
        head: &Head,
        body: &[u8],
        tools: &mut Tools<'_>,
    ) {
        tools.net.note(|| {
            let body = String::from_utf8_lossy(body);
            format!("server {server} link {} {} {}", link.0, head.method, short(&body))
        });
        let entry = self.servers.get_mut(&server).unwrap();
        let is_modern = head.version.as_deref() == Some("2026-07-28");
        let known = entry.sessions.iter().position(|it| Some(&it.id) == head.session.as_ref());
        let is_first = memchr::memmem::find(body, b"\"initialize\"").is_some();
        if entry.has_sessions && !is_modern && known.is_none() && !is_first {
            let (status, text) = if tools.net.random.chance(70) {
                (404, "{}")
            } else {
                (400, "Bad Request: no valid session ID provided")
            };
            return self.respond(server, link, (status, "text/plain", ""), text, tools);
        }
        match &*head.method {
            "GET" => self.listen(server, link, (head, known), tools),
            "DELETE" => {
                if let Some(known) = known {
                    entry.sessions.swap_remove(known);
                }
                self.respond(server, link, (200, "", ""), "", tools);
            }
            _ => self.post(server, link, (head, known), body, tools),
        }
    }

    fn post(
        &mut self,
        server: usize,
        link: LinkId,
        (head, known): (&Head, Option<usize>),
        body: &[u8],
        tools: &mut Tools<'_>,
    ) {
        let envelope = match rpc::scan(body, LIMITS) {
            Ok(envelope) => envelope,
            Err(error) => {
                return tools.check.violation(format!("a server was sent bad JSON: {error:?}"));
            }
        };
        self.check_request(server, (head, known), body, &envelope, tools);
        let method = envelope.method.map(|it| it.decode(body).into_owned()).unwrap_or_default();
        match envelope.kind {
            Kind::Request if *method == *b"initialize" => {
                self.initialize(server, link, body, &envelope, tools);
            }
            Kind::Request if *method == *b"logging/setLevel" => {
                let id = raw(envelope.id, body);
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
                self.respond(server, link, (200, "application/json", ""), &text, tools);
            }
            Kind::Request => self.call(server, link, head, body, tools),
            Kind::Notification => {
                self.cancelled(head, body, &envelope, tools);
                self.respond(server, link, (202, "", ""), "", tools);
            }
            Kind::Response | Kind::ErrorResponse => {
                self.response(server, (head, known), body, &envelope, tools);
                self.respond(server, link, (202, "", ""), "", tools);
            }
        }
    }

    /// Headers mirror the body, and a session belongs to one session of one client.
    fn check_request(
        &mut self,
        server: usize,
        (head, known): (&Head, Option<usize>),
        body: &[u8],
        envelope: &Envelope,
        tools: &mut Tools<'_>,
    ) {
        if envelope.meta_version.is_some() {
            let method = envelope.method.map(|it| it.decode(body).into_owned());
            let name = envelope.name.map(|it| it.decode(body).into_owned());
            let (seen_method, seen_name) = &head.mirrored;
            if seen_method.as_ref().map(String::as_bytes) != method.as_deref()
                || seen_name.as_ref().map(String::as_bytes) != name.as_deref()
                || head.session.is_some()
            {
                tools.check.violation("a modern request has lost its headers".to_owned());
            }
        }
        let Some(known) = known else { return };
        let session = &mut self.servers.get_mut(&server).unwrap().sessions[known];
        for tag in Tag::all(body) {
            let owner = *session.owner.get_or_insert((tag.client, tag.session));
            if owner != (tag.client, tag.session) {
                tools.check.violation(format!("the server session of {owner:?} saw {tag:?}"));
            }
        }
    }

    fn initialize(
        &mut self,
        server: usize,
        link: LinkId,
        body: &[u8],
        envelope: &Envelope,
        tools: &mut Tools<'_>,
    ) {
        let entry = self.servers.get_mut(&server).unwrap();
        let version = envelope.protocol_version.map(|it| it.decode(body).into_owned());
        let version = String::from_utf8(version.unwrap_or_default()).unwrap();
        let capabilities = capabilities(tools.check, entry.has_sessions);
        let text = welcome(&raw(envelope.id, body), &version, capabilities);
        let mut line = String::new();
        if entry.has_sessions {
            entry.sessions_count += 1;
            let id = format!("server-{server}-session-{}", entry.sessions_count);
            line = format!("Mcp-Session-Id: {id}\r\n");
            let (owner, listener) = (None, None);
            entry.sessions.push(Session { id, owner, questions: Vec::new(), listener });
        }
        if tools.net.random.chance(30) {
            let event = format!("event: message\ndata: {text}\n\n");
            return self.respond(server, link, (200, "text/event-stream", &line), &event, tools);
        }
        self.respond(server, link, (200, "application/json", &line), &text, tools);
    }

    fn call(
        &mut self,
        server: usize,
        link: LinkId,
        head: &Head,
        body: &[u8],
        tools: &mut Tools<'_>,
    ) {
        let Ok(envelope) = rpc::scan(body, LIMITS) else { return };
        let is_modern = envelope.meta_version.is_some();
        let has_sessions = self.servers[&server].has_sessions;
        let stream = Stream {
            server,
            session: head.session.clone(),
            link: Some(link),
            is_events: true,
            is_modern,
            has_ids: !is_modern && has_sessions && tools.net.random.chance(60),
            events: Vec::new(),
        };
        let Some(mut job) = job(body, &envelope, Place::Http(stream), tools) else { return };
        let is_plain = job.steps.iter().all(|(_, it)| {
            matches!(it, Step::Answer(_) | Step::Die | Step::Forget | Step::Garbage)
        });
        let is_json = is_plain && tools.net.random.chance(60);
        if let Place::Http(stream) = &mut job.place {
            stream.is_events = !is_json;
            stream.has_ids &= !is_json;
        }
        let job = tools.jobs.begin(job, tools.net);
        if !is_json {
            self.stream_head(server, link, tools);
            let Place::Http(stream) = &tools.jobs.list[job].place else { return };
            if stream.has_ids && tools.net.random.chance(50) {
                // A first event without data, so that the client can resume from the start.
                self.emit(job, "", tools);
            }
        }
    }

    fn cancelled(&mut self, head: &Head, body: &[u8], envelope: &Envelope, tools: &mut Tools<'_>) {
        if !envelope.method.is_some_and(|it| it.eq(body, "notifications/cancelled")) {
            return;
        }
        let Some(session) = &head.session else { return };
        let is_there = |place: &Place| match place {
            Place::Http(stream) => stream.session.as_ref() == Some(session),
            Place::Process(_) => false,
        };
        let Some(job) = tools.jobs.find(&raw(envelope.request_id, body), is_there) else { return };
        tools.check.withdrawn(tools.jobs.list[job].tag);
        let is_events =
            matches!(&tools.jobs.list[job].place, Place::Http(stream) if stream.is_events);
        if is_events && tools.net.random.chance(50) {
            // Others answer nevertheless, which they may.
            tools.jobs.list[job].is_over = true;
            self.finish(job, tools);
        }
    }

    fn response(
        &mut self,
        server: usize,
        (head, known): (&Head, Option<usize>),
        body: &[u8],
        envelope: &Envelope,
        tools: &mut Tools<'_>,
    ) {
        let id = raw(envelope.id, body);
        let entry = self.servers.get_mut(&server).unwrap();
        let questions = match known {
            Some(known) => &mut entry.sessions[known].questions,
            None => &mut entry.questions,
        };
        let Some(index) = questions.iter().position(|question| *question == id) else {
            if entry.has_fallen {
                return;
            }
            return tools.check.violation(format!("server {server} did not ask {id}"));
        };
        questions.swap_remove(index);
        let session = head.session.clone();
        let is_there = |place: &Place| match place {
            Place::Http(stream) => stream.server == server && stream.session == session,
            Place::Process(_) => false,
        };
        let job = tools.jobs.asker(&id, is_there);
        answered(job, body, envelope, tools);
    }

    /// GET: to listen, or to go on with a broken stream.
    fn listen(
        &mut self,
        server: usize,
        link: LinkId,
        (head, known): (&Head, Option<usize>),
        tools: &mut Tools<'_>,
    ) {
        let resumed = head.last_event_id.as_deref().and_then(|id| id.split_once('-'));
        let Some((job, number)) = resumed else {
            return match known {
                Some(known) if tools.net.random.chance(80) => {
                    self.stream_head(server, link, tools);
                    let entry = self.servers.get_mut(&server).unwrap();
                    entry.sessions[known].listener = Some(link);
                }
                _ => self.respond(server, link, (405, "", ""), "", tools),
            };
        };
        let (job, number): (usize, usize) = (job.parse().unwrap(), number.parse().unwrap());
        self.stream_head(server, link, tools);
        let entry = &mut tools.jobs.list[job];
        let is_over = entry.is_over;
        let Place::Http(stream) = &mut entry.place else { return };
        if stream.server != server {
            let text = format!("server {server} was asked for a stream of {}", stream.server);
            return tools.check.violation(text);
        }
        stream.link = Some(link);
        let missed: Vec<String> = stream.events.iter().skip(number + 1).cloned().collect();
        for event in missed {
            self.piece(server, link, event.as_bytes(), tools);
        }
        if is_over {
            self.finish(job, tools);
        }
    }

    /// The next step of a job.
    pub(super) fn step(&mut self, job: usize, step: Step, tools: &mut Tools<'_>) {
        let entry = &mut tools.jobs.list[job];
        let Place::Http(stream) = &entry.place else { return };
        let (server, session, is_events) =
            (stream.server, stream.session.clone(), stream.is_events);
        let (link, has_ids, is_modern) = (stream.link, stream.has_ids, stream.is_modern);
        match step {
            Step::Progress(padding) => {
                if let Some(text) = entry.progress(padding) {
                    self.emit(job, &text, tools);
                }
            }
            Step::Log => {
                let text = entry.log(true);
                let entry = self.servers.get_mut(&server).unwrap();
                let listener = entry.sessions.iter().find(|it| Some(&it.id) == session.as_ref());
                match listener.and_then(|session| session.listener) {
                    Some(listener) => {
                        let event = format!("data: {text}\n\n");
                        self.piece(server, listener, event.as_bytes(), tools);
                    }
                    None => self.emit(job, &text, tools),
                }
            }
            Step::Changed | Step::Acknowledge => {
                let text = entry.changed("notifications/tools/list_changed");
                self.emit(job, &text, tools);
            }
            Step::Ask => self.ask(job, (server, session), tools),
            Step::Garbage => {
                // A modern stream is passed on as it is, garbage included.
                if is_events && !is_modern {
                    self.emit(job, "{ no json", tools);
                }
            }
            Step::Answer(padding) => {
                entry.is_over = true;
                let text = entry.answer(padding);
                if is_events {
                    self.emit(job, &text, tools);
                    self.finish(job, tools);
                } else if let Some(link) = link {
                    self.respond(server, link, (200, "application/json", ""), &text, tools);
                }
            }
            Step::Die => {
                entry.is_over = true;
                if let Some(link) = link {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                    let half = format!("{head}content-length: 99\r\n\r\n{{\"half\":");
                    let len = tools.net.random.between(0, half.len());
                    let len = if tools.net.random.chance(50) { half.len() } else { len };
                    if !is_events {
                        tools.net.write(link, &half.as_bytes()[..len]);
                    }
                    let delay = tools.net.random.millis(50);
                    tools.net.after(delay, Task::Kill { link });
                }
            }
            Step::Cut if has_ids => self.cut(job, tools),
            Step::Cut => {}
            Step::Forget => self.forget(server, tools),
        }
    }

    fn ask(
        &mut self,
        job: usize,
        (server, session): (usize, Option<String>),
        tools: &mut Tools<'_>,
    ) {
        let entry = self.servers.get_mut(&server).unwrap();
        let of_session = entry.sessions.iter_mut().find(|it| Some(&it.id) == session.as_ref());
        let questions = match (of_session, &session) {
            (Some(session), _) => &mut session.questions,
            (None, None) => &mut entry.questions,
            // The session is gone; nobody will answer.
            (None, Some(_)) => return,
        };
        let mut ids = (1..10_u32).map(|id| id.to_string());
        let Some(free) = ids.find(|id| !questions.contains(id)) else { return };
        questions.push(free.clone());
        let text = tools.jobs.list[job].ask(free);
        self.emit(job, &text, tools);
    }

    /// An event of a job's stream.
    fn emit(&mut self, job: usize, data: &str, tools: &mut Tools<'_>) {
        let Place::Http(stream) = &mut tools.jobs.list[job].place else { return };
        let id = if stream.has_ids {
            format!("id: {job}-{}\n", stream.events.len())
        } else {
            String::new()
        };
        let retry = if data.is_empty() { "retry: 300\n" } else { "" };
        let event = format!("{id}{retry}data: {data}\n\n");
        stream.events.push(event.clone());
        if let Some(link) = stream.link {
            let server = stream.server;
            self.piece(server, link, event.as_bytes(), tools);
        }
    }

    /// Ends the response of a job.
    fn finish(&mut self, job: usize, tools: &mut Tools<'_>) {
        let Place::Http(stream) = &mut tools.jobs.list[job].place else { return };
        let server = stream.server;
        if let Some(link) = stream.link.take() {
            self.end(server, link, tools);
        }
    }

    /// Breaks a stream off that can be resumed.
    fn cut(&mut self, job: usize, tools: &mut Tools<'_>) {
        let Place::Http(stream) = &mut tools.jobs.list[job].place else { return };
        let server = stream.server;
        if stream.events.is_empty() {
            return;
        }
        if let Some(link) = stream.link.take() {
            if tools.net.random.chance(50) {
                self.end(server, link, tools);
            } else {
                self.hang_up(server, link, tools);
            }
        }
    }

    fn forget(&mut self, server: usize, tools: &mut Tools<'_>) {
        let entry = self.servers.get_mut(&server).unwrap();
        for session in std::mem::take(&mut entry.sessions) {
            if let Some(listener) = session.listener {
                self.end(server, listener, tools);
            }
        }
    }
}

/// How long a server thinks before it lets a connection in.
pub(super) fn connect_time(tools: &mut Tools<'_>) -> Duration {
    tools.net.random.millis(30)
}
