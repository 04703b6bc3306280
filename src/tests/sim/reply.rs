//! What clients make of the bytes they get: strict HTTP, strict events, strict JSON-RPC.

use std::time::Duration;

use wire::Decoded;
use wire::http1::{self, Body, BodyDecoder, HeaderSlots};
use wire::rpc::{self, Kind};
use wire::sse::EventParser;

use crate::tests::sim::check::{Check, Do, Fate, LIMITS, Tag};
use crate::tests::sim::client::{Client, Sent, What};
use crate::tests::sim::net::{End, Net, Task};
use crate::tests::sim::request;

const HEAD_LIMITS: http1::Limits = http1::Limits { head_len_max: 32768, target_len_max: 8192 };

/// Where a connection is in its answers.
#[derive(Debug)]
pub(super) enum Mode {
    Head,
    Body(Box<Reply>),
}

/// An answer whose head was read.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    decoder: BodyDecoder,
    events: Option<EventParser>,
    gathered: Vec<u8>,
    keep_alive: bool,
}

impl Client {
    pub(super) fn received(
        &mut self,
        conn: usize,
        bytes: Result<Vec<u8>, End>,
        net: &mut Net,
        check: &mut Check,
    ) {
        if !self.conns[conn].is_open {
            return;
        }
        let Ok(bytes) = bytes else {
            net.note(|| {
                format!("client {} is left on link {}", self.index, self.conns[conn].link.0)
            });
            net.hang_up(self.conns[conn].link, End::Closed);
            return self.lost(conn, false, net, check);
        };
        self.conns[conn].buffer.extend_from_slice(&bytes);
        loop {
            let went_on = match self.conns[conn].mode {
                Mode::Head => self.head(conn, net, check),
                Mode::Body(_) => self.body(conn, net, check),
            };
            if !went_on || !self.conns[conn].is_open {
                return;
            }
        }
    }

    fn head(&mut self, conn: usize, net: &mut Net, check: &mut Check) -> bool {
        let entry = &mut self.conns[conn];
        if entry.buffer.is_empty() {
            return false;
        }
        let mut slots = HeaderSlots::new();
        let (head, used) = match http1::response(&entry.buffer, &mut slots, HEAD_LIMITS, false) {
            Ok(Decoded::Item { item, used }) => (item, used),
            Ok(Decoded::Incomplete) => return false,
            Err(error) => {
                let text = String::from_utf8_lossy(&entry.buffer).into_owned();
                check.violation(format!("client {} got bad HTTP: {error:?}: {text}", self.index));
                return false;
            }
        };
        let status = head.status;
        let header = |name: &str| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let is_events =
            header("content-type").is_some_and(|it| it.starts_with("text/event-stream"));
        let session = header("mcp-session-id");
        let reply = Reply {
            status,
            decoder: BodyDecoder::new(head.body),
            events: is_events.then(|| EventParser::new(64 << 20)),
            gathered: Vec::new(),
            keep_alive: head.keep_alive,
        };
        let is_endless = head.body == Body::UntilClose;
        entry.buffer.drain(..used);
        if status == 100 {
            self.go_on(conn, net);
            return true;
        }
        if status < 200 || is_endless {
            check.violation(format!("client {} got status {status}", self.index));
        }
        let Some(sent) = entry.sent.front().cloned() else {
            check.violation(format!("client {} got an answer to nothing: {status}", self.index));
            return false;
        };
        net.trace("reply", entry.link.0 as u64, u64::from(status));
        entry.mode = Mode::Body(Box::new(reply));
        if let (What::Init, Some(session), Some(id)) = (sent.what, sent.session, session) {
            self.sessions[session].id = Some(id);
        }
        true
    }

    fn body(&mut self, conn: usize, net: &mut Net, check: &mut Check) -> bool {
        let entry = &mut self.conns[conn];
        let Mode::Body(mut reply) = std::mem::replace(&mut entry.mode, Mode::Head) else {
            return false;
        };
        let buffer = std::mem::take(&mut entry.buffer);
        let mut rest = &*buffer;
        let mut is_done = false;
        while !is_done {
            let part = match reply.decoder.decode(rest) {
                Ok(part) => part,
                Err(error) => {
                    check.violation(format!("client {} got a bad body: {error:?}", self.index));
                    return false;
                }
            };
            let data = part.data.to_vec();
            self.content(conn, &mut reply, &data, net, check);
            is_done = part.done;
            rest = &rest[part.used..];
            if part.used == 0 && !is_done {
                break;
            }
        }
        self.conns[conn].buffer = rest.to_vec();
        if is_done {
            self.complete(conn, *reply, net, check);
            return true;
        }
        self.conns[conn].mode = Mode::Body(reply);
        false
    }

    fn content(
        &mut self,
        conn: usize,
        reply: &mut Reply,
        mut data: &[u8],
        net: &mut Net,
        check: &mut Check,
    ) {
        let Some(mut parser) = reply.events.take() else {
            return reply.gathered.extend_from_slice(data);
        };
        loop {
            match parser.next(&mut data) {
                Ok(Some(event)) => {
                    if let (Some(id), Some(sent)) = (event.id, self.conns[conn].sent.front_mut()) {
                        sent.last_event_id = Some(String::from_utf8_lossy(id).into_owned());
                        sent.tries = 0;
                    }
                    let text = event.data.to_vec();
                    // Of another type is what the gateway makes of an event that was cut off.
                    let is_message = matches!(event.name, b"" | b"message");
                    if is_message && !text.is_empty() {
                        self.message(conn, &text, net, check);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    check.violation(format!("client {} got bad events: {error:?}", self.index));
                    break;
                }
            }
        }
        reply.events = Some(parser);
    }

    /// One JSON-RPC message, from a body or an event.
    fn message(&mut self, conn: usize, bytes: &[u8], net: &mut Net, check: &mut Check) {
        let Some(sent) = self.conns[conn].sent.front().cloned() else { return };
        let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(240)]).into_owned();
        net.note(|| format!("client {} reads {}", self.index, text()));
        check.seen(self.index, sent.session, bytes);
        let envelope = match rpc::scan(bytes, LIMITS) {
            Ok(envelope) => envelope,
            Err(error) => {
                return check.violation(format!("client {} got {}: {error}", self.index, text()));
            }
        };
        match envelope.kind {
            // What a note brings back (`logging/setLevel`, or a refusal) is of no interest.
            Kind::Response | Kind::ErrorResponse if sent.what == What::Note => {}
            Kind::Response | Kind::ErrorResponse => {
                check.answer(&sent.calls, bytes, &envelope);
                let is_list = |call: &&usize| check.calls[**call].what == Do::Union;
                let list = sent.calls.iter().find(is_list).filter(|_| sent.calls.len() == 1);
                if let Some(next) = list.and_then(|call| check.listed(*call, bytes))
                    && !self.is_gone
                {
                    self.go_on_listing(sent.session, next, net, check);
                }
                if let (What::Init, Some(session), Kind::Response) =
                    (sent.what, sent.session, envelope.kind)
                {
                    self.opened(session, net, check);
                }
            }
            Kind::Notification => {
                check.notified(bytes, &envelope);
                if let Some(span) = envelope.subscription_id {
                    let id = String::from_utf8_lossy(span.get(bytes)).into_owned();
                    if !sent.calls.iter().any(|call| check.calls[*call].id == id) {
                        check.violation(format!("a subscription has the id {id}"));
                    }
                }
            }
            Kind::Request => {
                let id = envelope.id.map(|id| id.get(bytes)).unwrap_or_default();
                let id = String::from_utf8_lossy(id).into_owned();
                let tag = Tag::all(bytes).first().map(|tag| tag.text()).unwrap_or_default();
                match sent.session {
                    Some(session) => self.note(session, &request::accept(&id, &tag), net, check),
                    None => check.violation("a question without a session".to_owned()),
                }
            }
        }
    }

    /// `initialize` was answered.
    fn opened(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        if self.sessions[session].id.is_none() {
            return check.violation(format!("client {} got no session id", self.index));
        }
        self.sessions[session].is_open = true;
        self.note(session, request::INITIALIZED, net, check);
    }

    /// A response is complete.
    fn complete(&mut self, conn: usize, reply: Reply, net: &mut Net, check: &mut Check) {
        if reply.events.is_none() && !reply.gathered.is_empty() {
            let sent = self.conns[conn].sent.front();
            let is_call = sent.is_some_and(|sent| !sent.calls.is_empty());
            if is_call || reply.gathered.starts_with(b"{") {
                self.message(conn, &reply.gathered, net, check);
            }
        }
        let entry = &mut self.conns[conn];
        entry.used_at = net.now;
        let Some(sent) = entry.sent.pop_front() else { return };
        if let Some(next) = entry.sent.front() {
            for call in &next.calls {
                check.calls[*call].began.get_or_insert(net.now);
            }
        }
        let is_ok = reply.status < 300;
        for call in &sent.calls {
            if check.is_open(*call) && !is_ok {
                check.end(*call, Fate::Refused(format!("status {}", reply.status)));
            }
        }
        if is_ok {
            self.ended(sent, true, net, check);
        }
        if !reply.keep_alive {
            net.hang_up(self.conns[conn].link, End::Closed);
            self.lost(conn, false, net, check);
        }
    }

    /// A response is over: calls that are not answered by it are resumed, or lost.
    fn ended(&mut self, sent: Sent, is_clean: bool, net: &mut Net, check: &mut Check) {
        let open: Vec<usize> =
            sent.calls.iter().copied().filter(|call| check.is_open(*call)).collect();
        if open.is_empty() {
            return;
        }
        let is_wanted = open.iter().any(|call| !check.calls[*call].cancelled);
        let can_resume =
            is_wanted && sent.last_event_id.is_some() && !self.is_gone && self.revision.is_some();
        if can_resume && sent.tries < 30 {
            let delay = Duration::from_millis(500 + net.random.below(2000));
            self.broken.push(sent);
            let lost = self.broken.len() - 1;
            return net.after(delay, Task::Resume { client: self.index, lost });
        }
        for call in open {
            // A server that dies may end a response properly, as far as anybody can tell.
            let faults = check.faults;
            let is_death = check.calls[call].what == Do::Die || faults.drain || faults.fall;
            if is_clean && !check.calls[call].cancelled && !is_death {
                let what = check.calls[call].what;
                check.violation(format!("call {call} ({what:?}): the response is empty"));
            }
            check.end(call, Fate::Lost);
        }
    }

    /// A connection is gone.
    pub(super) fn lost(&mut self, conn: usize, by_us: bool, net: &mut Net, check: &mut Check) {
        let entry = &mut self.conns[conn];
        entry.is_open = false;
        entry.held.clear();
        entry.buffer = Vec::new();
        entry.mode = Mode::Head;
        for sent in std::mem::take(&mut entry.sent) {
            for call in &sent.calls {
                check.calls[*call].cancelled |= by_us && sent.last_event_id.is_none();
            }
            self.ended(sent, false, net, check);
        }
    }
}
