//! Clients: what they do, one act after the other. What they make of the answers is in `reply`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tests::sim::check::{Call, Check, Do, Fate, Tag};
use crate::tests::sim::net::{End, LinkId, Near, Net, Peer, Task};
use crate::tests::sim::reply::Mode;
use crate::tests::sim::request::{self, Frame};
use crate::tests::sim::union::{self, Asked, VIEW};

#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    /// None: 2026-07-28, without sessions.
    pub(super) revision: Option<&'static str>,
    pub(super) conns: Vec<Conn>,
    pub(super) sessions: Vec<Session>,
    /// Streams that broke off and can be resumed.
    pub(super) broken: Vec<Sent>,
    pub(super) acts: u32,
    /// Acts are so far apart, in milliseconds.
    pub(super) pause: u64,
    pub(super) conns_max: usize,
    pub(super) is_gone: bool,
    pub(super) shards: usize,
    /// Whether it uses the view, and no server alone.
    pub(super) is_united: bool,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) server: usize,
    pub(super) id: Option<String>,
    pub(super) is_open: bool,
    pub(super) is_deleted: bool,
    pub(super) used_at: Duration,
    /// Ids that it cancelled without having used them; it must not use them now.
    pub(super) burnt: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) link: LinkId,
    pub(super) is_open: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) mode: Mode,
    /// What was asked and not answered, oldest first.
    pub(super) sent: VecDeque<Sent>,
    /// The rest of a request that waits for `100 Continue`.
    pub(super) held: Vec<u8>,
    pub(super) used_at: Duration,
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) what: What,
    pub(super) session: Option<usize>,
    pub(super) calls: Vec<usize>,
    pub(super) last_event_id: Option<String>,
    pub(super) tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Init,
    Call,
    Note,
    Get,
    Resume,
    Delete,
}

/// Ids that all clients use: every kind that JSON-RPC allows.
pub(super) const IDS: [&str; 8] =
    ["\"a\"", "\"\"", "0", "-1", "9007199254740993", "12345678901234567890", "1", "\"1\""];

pub(super) const LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

impl Client {
    /// Does something.
    pub(super) fn act(&mut self, net: &mut Net, check: &mut Check) {
        if self.is_gone {
            return;
        }
        if self.acts == 0 {
            return;
        }
        self.acts -= 1;
        let pause = net.random.millis(self.pause);
        net.after(pause, Task::Act { client: self.index });
        let dice = net.random.below(100);
        if check.faults.net && dice < 6 {
            self.break_off(net, check);
        } else if self.revision.is_none() {
            self.act_modern(net, check);
        } else {
            self.act_legacy(dice, net, check);
        }
    }

    fn act_modern(&mut self, net: &mut Net, check: &mut Check) {
        let dice = net.random.below(100);
        if dice < 15 {
            // To leave is to cancel.
            let waiting = |conn: &Conn| conn.is_open && !conn.sent.is_empty();
            if let Some(conn) = self.conns.iter().position(waiting) {
                self.leave(conn, End::Closed, net, check);
            }
            return;
        }
        let what = match dice {
            15..20 => Do::Listen,
            20..25 if self.is_united => Do::Discover,
            _ => self.pick(net, check),
        };
        let server = if self.is_united { VIEW } else { net.random.between(0, 4) };
        let is_legacy_only = matches!(what, Do::Ask | Do::Forget | Do::Task);
        let what = if is_legacy_only { Do::Echo } else { what };
        let server = if check.faults.die || server != 4 { server } else { 2 };
        self.call_modern(what, (server, None), net, check);
    }

    fn call_modern(
        &mut self,
        what: Do,
        (server, asked): (usize, Option<Asked>),
        net: &mut Net,
        check: &mut Check,
    ) {
        let Some(conn) = self.conn(what != Do::Listen, net, check) else { return };
        let call = self.begin(0, what, check, net);
        if asked.is_some() {
            check.calls[call].union = asked;
        }
        let text =
            request::message(&check.calls[call], &check.tag(call).text(), true, &mut net.random);
        let mirrored = Some(request::mirrored(&check.calls[call]));
        let frame = Frame {
            method: "POST",
            server,
            version: Some("2026-07-28"),
            mirrored,
            ..Frame::default()
        };
        let sent = Sent {
            what: What::Call,
            session: None,
            calls: vec![call],
            last_event_id: None,
            tries: 0,
        };
        self.send(conn, sent, (&frame, &text), net, check);
    }

    fn act_legacy(&mut self, dice: u64, net: &mut Net, check: &mut Check) {
        let open: Vec<usize> = (0..self.sessions.len())
            .filter(|it| self.sessions[*it].is_open && !self.sessions[*it].is_deleted)
            .collect();
        if open.is_empty() || (dice < 18 && self.sessions.len() < 5) {
            return self.initialize(net, check);
        }
        let session = *net.random.pick(&open);
        match dice {
            18..26 => self.cancel(session, net, check),
            26..34 => self.listen(session, net, check),
            34..38 => self.forge(session, net, check),
            38..42 => {
                let id = "\"level\"";
                let text = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"info"}}}}"#
                );
                self.note(session, &text, net, check);
            }
            42..45 => self.delete(session, net, check),
            // A shared server may have agreed on another revision with somebody else.
            45..53 if self.revision == Some(LEGACY[0]) && self.sessions[session].server != 1 => {
                self.batch(session, net, check);
            }
            _ => {
                let what = self.pick(net, check);
                self.call(session, (what, None), net, check);
            }
        }
    }

    /// Begins a call and gives it an id that no call in flight of the session has.
    fn begin(&mut self, session: usize, what: Do, check: &mut Check, net: &mut Net) -> usize {
        let own = |call: &&Call| {
            call.client == self.index
                && call.session == session
                && (call.fate == Fate::Open || call.cancelled)
        };
        let used: Vec<Option<String>> = check
            .calls
            .iter()
            .filter(own)
            .flat_map(|call| [Some(call.id.clone()), call.token.clone()])
            .chain(self.sessions.get(session).into_iter().flat_map(|it| it.burnt.clone()).map(Some))
            .collect();
        let number = check.calls.len();
        let mut free = || {
            let id = (*net.random.pick(&IDS)).to_owned();
            if used.contains(&Some(id.clone())) { None } else { Some(id) }
        };
        let id = free().unwrap_or_else(|| format!("{}", 1000 + number));
        let token = free().unwrap_or_else(|| format!("\"t{number}\""));
        let token =
            (net.random.chance(70) || matches!(what, Do::Flood | Do::Trickle)).then_some(token);
        let call = Call {
            client: self.index,
            session,
            what,
            id,
            token,
            fate: Fate::Open,
            began: None,
            cancelled: false,
            may_be_unknown: false,
            deliveries: 0,
            withdrawn: false,
            answers: 0,
            is_legacy: self.revision.is_some(),
            union: self.is_united.then(|| union::asked(what, net, check)),
        };
        check.begin(call)
    }

    fn frame(&self, session: usize, method: &'static str) -> Frame {
        let revision = self.revision.filter(|it| *it != "2025-03-26");
        Frame {
            method,
            server: self.sessions[session].server,
            session: self.sessions[session].id.clone(),
            version: revision,
            ..Frame::default()
        }
    }

    fn initialize(&mut self, net: &mut Net, check: &mut Check) {
        let Some(conn) = self.conn(true, net, check) else { return };
        let server = match self.is_united {
            true => VIEW,
            false => net.random.between(0, if check.faults.die { 4 } else { 3 }),
        };
        let (id, is_open, is_deleted) = (None, false, false);
        let (used_at, burnt) = (net.now, Vec::new());
        self.sessions.push(Session { server, id, is_open, is_deleted, used_at, burnt });
        let session = self.sessions.len() - 1;
        let call = self.begin(session, Do::Init, check, net);
        let text = request::initialize(&check.calls[call].id, self.revision.unwrap_or_default());
        let frame = Frame { method: "POST", server, ..Frame::default() };
        self.send(conn, sent(What::Init, session, vec![call]), (&frame, &text), net, check);
    }

    fn pick(&self, net: &mut Net, check: &Check) -> Do {
        if self.is_united { union::pick(net, check) } else { pick(net, check) }
    }

    /// Asks for the next page of a list.
    pub(super) fn go_on_listing(
        &mut self,
        session: Option<usize>,
        asked: Asked,
        net: &mut Net,
        check: &mut Check,
    ) {
        match session {
            Some(session) => self.call(session, (Do::Union, Some(asked)), net, check),
            None => self.call_modern(Do::Union, (VIEW, Some(asked)), net, check),
        }
    }

    fn call(
        &mut self,
        session: usize,
        (what, asked): (Do, Option<Asked>),
        net: &mut Net,
        check: &mut Check,
    ) {
        let Some(conn) = self.conn(true, net, check) else { return };
        let call = self.begin(session, what, check, net);
        if asked.is_some() {
            check.calls[call].union = asked;
        }
        let tag = check.tag(call).text();
        let text = request::message(&check.calls[call], &tag, false, &mut net.random);
        let frame = self.frame(session, "POST");
        self.send(conn, sent(What::Call, session, vec![call]), (&frame, &text), net, check);
    }

    fn batch(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        let Some(conn) = self.conn(true, net, check) else { return };
        let count = net.random.between(1, 4);
        let mut calls = Vec::new();
        let mut parts = Vec::new();
        for _ in 0..count {
            let what = self.pick(net, check);
            let call = self.begin(session, what, check, net);
            let tag = check.tag(call).text();
            parts.push(request::message(&check.calls[call], &tag, false, &mut net.random));
            calls.push(call);
        }
        if net.random.chance(30) {
            let id = self.burn(session, net, check);
            parts.push(request::cancel(&id));
        }
        let text = format!("[{}]", parts.join(", "));
        let frame = self.frame(session, "POST");
        self.send(conn, sent(What::Call, session, calls), (&frame, &text), net, check);
    }

    /// An id that others may have in flight, here or at the server, and this session has not:
    /// to cancel it must do nothing.
    fn burn(&mut self, session: usize, net: &mut Net, check: &Check) -> String {
        let id = (*net.random.pick(&["1", "2", "3", "0", "\"a\"", "\"1\""])).to_owned();
        let is_own = |call: &Call| call.client == self.index && call.session == session;
        let is_used = check.calls.iter().any(|call| is_own(call) && call.id == id);
        let id = if is_used { "4".to_owned() } else { id };
        self.sessions[session].burnt.push(id.clone());
        id
    }

    fn cancel(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        let index = self.index;
        let running = check.calls.iter().position(|call| {
            call.client == index
                && call.session == session
                && call.fate == Fate::Open
                && call.what != Do::Init
        });
        let id = match running {
            Some(call) if net.random.chance(70) => {
                check.calls[call].cancelled = true;
                check.calls[call].id.clone()
            }
            _ => self.burn(session, net, check),
        };
        self.note(session, &request::cancel(&id), net, check);
    }

    fn listen(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        let Some(conn) = self.conn(false, net, check) else { return };
        let frame = self.frame(session, "GET");
        self.send(conn, sent(What::Get, session, Vec::new()), (&frame, ""), net, check);
    }

    /// An answer to a question that nobody asked here, with an id that others were asked under.
    fn forge(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        let id = *net.random.pick(&["1", "\"q\"", "0", "2"]);
        let tag = Tag { client: self.index, session, call: 0 }.text();
        self.note(session, &request::accept(id, &tag), net, check);
    }

    fn delete(&mut self, session: usize, net: &mut Net, check: &mut Check) {
        let Some(conn) = self.conn(true, net, check) else { return };
        let frame = self.frame(session, "DELETE");
        self.sessions[session].is_deleted = true;
        for call in &mut check.calls {
            let is_own = call.client == self.index && call.session == session;
            call.may_be_unknown |= is_own;
            call.cancelled |= is_own;
        }
        self.send(conn, sent(What::Delete, session, Vec::new()), (&frame, ""), net, check);
    }

    /// A notification, or an answer.
    pub(super) fn note(&mut self, session: usize, text: &str, net: &mut Net, check: &mut Check) {
        let Some(conn) = self.conn(true, net, check) else { return };
        let frame = self.frame(session, "POST");
        self.send(conn, sent(What::Note, session, Vec::new()), (&frame, text), net, check);
    }

    /// Goes on with a stream that broke off.
    pub(super) fn resume(&mut self, lost: usize, net: &mut Net, check: &mut Check) {
        let Some(mut sent) = self.broken.get(lost).cloned() else { return };
        if self.is_gone || !sent.calls.iter().any(|call| check.is_open(*call)) {
            return;
        }
        let (Some(session), Some(conn)) = (sent.session, self.conn(false, net, check)) else {
            return net.after(Duration::from_secs(2), Task::Resume { client: self.index, lost });
        };
        let mut frame = self.frame(session, "GET");
        frame.last_event_id.clone_from(&sent.last_event_id);
        sent.what = What::Resume;
        sent.tries += 1;
        self.send(conn, sent, (&frame, ""), net, check);
    }

    /// A connection that can take a request.
    fn conn(&mut self, may_wait: bool, net: &mut Net, check: &Check) -> Option<usize> {
        let now = net.now;
        for conn in 0..self.conns.len() {
            let entry = &mut self.conns[conn];
            // The gateway closes idle connections too; a race that clients lose by design.
            if entry.is_open
                && entry.sent.is_empty()
                && entry.used_at + Duration::from_secs(60) < now
            {
                entry.is_open = false;
                net.hang_up(entry.link, End::Closed);
            }
        }
        let is_usable = |conn: &Conn| {
            // Nobody in their right mind waits behind a response without an end.
            let is_listening = conn.sent.iter().any(|sent| {
                let is_endless = |call: &usize| check.calls[*call].what == Do::Listen;
                sent.what == What::Get || sent.calls.iter().any(is_endless)
            });
            conn.is_open && conn.held.is_empty() && !is_listening
        };
        let is_idle = |conn: &Conn| is_usable(conn) && conn.sent.is_empty();
        let idle: Vec<usize> =
            (0..self.conns.len()).filter(|it| is_idle(&self.conns[*it])).collect();
        let busy: Vec<usize> =
            (0..self.conns.len()).filter(|it| is_usable(&self.conns[*it])).collect();
        let count = self.conns.iter().filter(|conn| conn.is_open).count();
        if may_wait && !busy.is_empty() && net.random.chance(15) {
            // Pipelining.
            return Some(*net.random.pick(&busy));
        }
        if !idle.is_empty() && (self.conns_max <= count || net.random.chance(70)) {
            return Some(*net.random.pick(&idle));
        }
        (count < self.conns_max + 4).then(|| self.dial(net))
    }

    fn dial(&mut self, net: &mut Net) -> usize {
        let shard = net.random.between(0, self.shards - 1);
        let conn = self.conns.len();
        let peer = Peer::Client { client: self.index, conn };
        let link = net.open(peer, Near::Parked { shard });
        net.after(Duration::ZERO, Task::Accept { link });
        self.conns.push(Conn {
            link,
            is_open: true,
            buffer: Vec::new(),
            mode: Mode::Head,
            sent: VecDeque::new(),
            held: Vec::new(),
            used_at: net.now,
        });
        conn
    }

    fn send(
        &mut self,
        conn: usize,
        mut sent: Sent,
        (frame, text): (&Frame, &str),
        net: &mut Net,
        check: &mut Check,
    ) {
        if let Some(session) = sent.session {
            let idle = net.now.saturating_sub(self.sessions[session].used_at);
            self.sessions[session].used_at = net.now;
            for call in &sent.calls {
                let is_old = Duration::from_secs(250) < idle;
                let is_deleted = self.sessions[session].is_deleted;
                check.calls[*call].may_be_unknown |= is_old || is_deleted;
            }
        }
        let (head, body) = request::http(frame, text, &mut net.random);
        let index = self.index;
        let entry = &mut self.conns[conn];
        net.note(|| {
            let calls = &sent.calls;
            format!(
                "client {index} link {} {:?} {calls:?} {}",
                entry.link.0, sent.what, frame.server
            )
        });
        if entry.sent.is_empty() {
            for call in &sent.calls {
                check.calls[*call].began.get_or_insert(net.now);
            }
        }
        sent.tries += 1;
        entry.sent.push_back(sent);
        entry.used_at = net.now;
        entry.held = body;
        net.write(entry.link, &head);
        if !entry.held.is_empty() {
            net.after(Duration::from_secs(3), Task::Body { client: self.index, conn });
        }
    }

    /// Sends what waited for `100 Continue`.
    pub(super) fn go_on(&mut self, conn: usize, net: &mut Net) {
        let held = std::mem::take(&mut self.conns[conn].held);
        if !held.is_empty() {
            net.write(self.conns[conn].link, &held);
        }
    }

    /// A connection breaks, or is closed in one direction.
    fn break_off(&mut self, net: &mut Net, check: &mut Check) {
        let open: Vec<usize> = (0..self.conns.len()).filter(|it| self.conns[*it].is_open).collect();
        if open.is_empty() {
            return;
        }
        let conn = *net.random.pick(&open);
        let end = *net.random.pick(&[End::Closed, End::Broken]);
        self.leave(conn, end, net, check);
    }

    /// Closes a connection; what it waited for is lost, or resumed on another.
    pub(super) fn leave(&mut self, conn: usize, end: End, net: &mut Net, check: &mut Check) {
        let link = self.conns[conn].link;
        net.note(|| format!("client {} leaves link {}", self.index, link.0));
        net.hang_up(link, end);
        if self.revision.is_none() {
            for call in self.conns[conn].sent.iter().flat_map(|sent| &sent.calls) {
                check.calls[*call].cancelled = true;
            }
        }
        self.lost(conn, true, net, check);
    }

    /// The client goes for good.
    pub(super) fn vanish(&mut self, net: &mut Net, check: &mut Check) {
        self.is_gone = true;
        for conn in 0..self.conns.len() {
            if self.conns[conn].is_open {
                self.leave(conn, End::Closed, net, check);
            }
        }
    }
}

fn sent(what: What, session: usize, calls: Vec<usize>) -> Sent {
    Sent { what, session: Some(session), calls, last_event_id: None, tries: 0 }
}

/// What the next call is to do, among what may happen in this world.
pub(super) fn pick(net: &mut Net, check: &Check) -> Do {
    let faults = check.faults;
    let all = [
        (true, Do::Echo),
        (true, Do::Echo),
        (true, Do::List),
        (true, Do::Progress),
        (true, Do::Progress),
        (true, Do::Log),
        (true, Do::Error),
        (true, Do::Cut),
        (true, Do::Ask),
        (net.random.chance(30), Do::Big),
        (net.random.chance(30), Do::Flood),
        (net.random.chance(15), Do::Trickle),
        (faults.hang, Do::Hang),
        (faults.die, Do::Die),
        (faults.garbage, Do::Garbage),
        (faults.forget, Do::Forget),
    ];
    let possible: Vec<Do> = all.into_iter().filter(|(can, _)| *can).map(|(_, it)| it).collect();
    *net.random.pick(&possible)
}
