//! The judge: what was asked, what became of it, and every rule that was broken.
//!
//! Each call has a tag that names its client, session and number. The tag travels in the request
//! and comes back in everything that belongs to it, so that a stray byte can be told by its look.

use std::time::Duration;

use wire::rpc::{self, Envelope, Kind};

use crate::tests::sim::talker::FIRST;
use crate::tests::sim::union::Asked;
use crate::upstream::view::View;

/// What a call asks its server to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Do {
    Init,
    List,
    Echo,
    Progress,
    Ask,
    Hang,
    Big,
    /// Much progress and a large answer in one go.
    Flood,
    /// The same, a little at a time.
    Trickle,
    Die,
    Garbage,
    Log,
    Error,
    /// The server breaks its stream off and goes on when asked.
    Cut,
    /// The server forgets its sessions after it.
    Forget,
    /// A subscription, which has no answer.
    Listen,
    /// A page of the list of a view, which the gateway makes.
    Union,
    /// What the members of a view offer (2026-07-28).
    Discover,
    /// About a task: members of a view are asked until one knows it.
    Task,
}

impl Do {
    pub(super) const NAMES: [(Self, &'static str); 19] = [
        (Self::Init, "init"),
        (Self::List, "list"),
        (Self::Echo, "echo"),
        (Self::Progress, "progress"),
        (Self::Ask, "ask"),
        (Self::Hang, "hang"),
        (Self::Big, "big"),
        (Self::Flood, "flood"),
        (Self::Trickle, "trickle"),
        (Self::Die, "die"),
        (Self::Garbage, "garbage"),
        (Self::Log, "log"),
        (Self::Error, "error"),
        (Self::Cut, "cut"),
        (Self::Forget, "forget"),
        (Self::Listen, "listen"),
        (Self::Union, "union"),
        (Self::Discover, "discover"),
        (Self::Task, "task"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(it, _)| *it == self).map_or("", |(_, name)| name)
    }

    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(_, it)| it.as_bytes() == name).map(|(it, _)| *it)
    }
}

/// What can go wrong in this world. What cannot go wrong is no excuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Connections of clients break or are half closed.
    pub(super) net: bool,
    /// Clients read slowly.
    pub(super) slow: bool,
    /// A few never read again.
    pub(super) dead_readers: bool,
    /// Servers die, or cannot be reached.
    pub(super) die: bool,
    pub(super) hang: bool,
    /// HTTP servers lose their sessions.
    pub(super) forget: bool,
    /// HTTP servers close idle connections whenever they like.
    pub(super) race: bool,
    pub(super) garbage: bool,
    /// The gateway is stopped in the middle.
    pub(super) drain: bool,
    /// HTTP servers are gone and come back.
    pub(super) fall: bool,
}

impl Faults {
    /// Nothing can go wrong, and nobody is slow.
    pub(super) fn is_calm(self) -> bool {
        self == Self::default()
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Answered,
    /// An error of the gateway, by its label, or of the server without the call's tag.
    Refused(String),
    /// The connection is gone, and with it the answer.
    Lost,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) client: usize,
    pub(super) session: usize,
    pub(super) what: Do,
    /// Raw JSON.
    pub(super) id: String,
    pub(super) token: Option<String>,
    pub(super) fate: Fate,
    /// When it was the first in its connection's line.
    pub(super) began: Option<Duration>,
    /// The client has cancelled it or left.
    pub(super) cancelled: bool,
    /// Its session was deleted by the client, or is old.
    pub(super) may_be_unknown: bool,
    /// How often a server got it.
    pub(super) deliveries: u32,
    /// The server was told to stop.
    pub(super) withdrawn: bool,
    pub(super) answers: u32,
    pub(super) is_legacy: bool,
    /// What it asks a view for, if it is for one.
    pub(super) union: Option<Asked>,
}

/// A message's claim: whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) client: usize,
    pub(super) session: usize,
    pub(super) call: usize,
}

impl Tag {
    pub(super) fn text(self) -> String {
        format!("#c{}s{}r{}#", self.client, self.session, self.call)
    }

    /// All tags in some bytes.
    pub(super) fn all(bytes: &[u8]) -> Vec<Self> {
        memchr::memmem::find_iter(bytes, b"#c")
            .filter_map(|at| Self::parse(&bytes[at + 2..]))
            .collect()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'#', bytes.get(..bytes.len().min(40))?)?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let (client, rest) = text.split_once('s')?;
        let (session, call) = rest.split_once('r')?;
        let number = |text: &str| text.parse().ok();
        Some(Self { client: number(client)?, session: number(session)?, call: number(call)? })
    }
}

#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) calls: Vec<Call>,
    pub(super) violations: Vec<String>,
    pub(super) faults: Faults,
    /// The view in this world.
    pub(super) view: Option<View>,
    pub(super) now: Duration,
    /// How many ended how, for the reader.
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) lost: u64,
}

/// How messages are read on both sides.
pub(super) const LIMITS: rpc::Limits = rpc::Limits { depth_max: 64, len_max: 64 << 20 };

impl Check {
    pub(super) fn violation(&mut self, text: String) {
        if self.violations.len() < 20 {
            self.violations.push(format!("{:.3}: {text}", self.now.as_secs_f64()));
        }
    }

    pub(super) fn begin(&mut self, call: Call) -> usize {
        self.calls.push(call);
        self.calls.len() - 1
    }

    pub(super) fn tag(&self, call: usize) -> Tag {
        Tag { client: self.calls[call].client, session: self.calls[call].session, call }
    }

    pub(super) fn is_open(&self, call: usize) -> bool {
        self.calls[call].fate == Fate::Open
    }

    /// A server got this call.
    pub(super) fn delivered(&mut self, tag: Tag, repeatable: bool) {
        let Some(call) = self.calls.get_mut(tag.call) else {
            return self.violation(format!("a server got a call that nobody made: {tag:?}"));
        };
        call.deliveries += 1;
        let (deliveries, what, is_united) = (call.deliveries, call.what, call.union.is_some());
        // Each member of a view is asked for its part of a subscription, and for a task.
        let repeatable = repeatable || (is_united && matches!(what, Do::Listen | Do::Task));
        if 1 < deliveries && !repeatable {
            self.violation(format!("call {} was delivered twice", tag.call));
        }
        if is_united && matches!(what, Do::List | Do::Union | Do::Discover) {
            self.violation(format!("call {} is the gateway's to answer", tag.call));
        }
    }

    /// A server was told to stop.
    pub(super) fn withdrawn(&mut self, tag: Tag) {
        if let Some(call) = self.calls.get_mut(tag.call) {
            call.withdrawn = true;
        }
    }

    /// Bytes that reached a client: they must be its own, and of this session.
    pub(super) fn seen(&mut self, client: usize, session: Option<usize>, bytes: &[u8]) {
        for tag in Tag::all(bytes) {
            let is_foreign = tag.client != client || session.is_some_and(|it| it != tag.session);
            if is_foreign {
                self.violation(format!("client {client} session {session:?} saw {tag:?}"));
            }
        }
    }

    /// A message on a stream that is no answer: progress must be of its own call.
    pub(super) fn notified(&mut self, bytes: &[u8], envelope: &Envelope) {
        let Some(token) = envelope.notified_token else { return };
        let token = String::from_utf8_lossy(token.get(bytes)).into_owned();
        for tag in Tag::all(bytes) {
            let known = self.calls[tag.call].token.clone();
            if known.as_deref() != Some(&*token) {
                self.violation(format!("progress of {tag:?} has token {token}, not {known:?}"));
            }
        }
    }

    /// An answer to one of these calls.
    pub(super) fn answer(&mut self, calls: &[usize], bytes: &[u8], envelope: &Envelope) {
        let id = envelope.id.map(|id| String::from_utf8_lossy(id.get(bytes)).into_owned());
        let label = label(bytes);
        let same = |call: &&usize| Some(&self.calls[**call].id) == id.as_ref();
        let Some(call) = calls.iter().find(same).copied() else {
            let is_unnamed = label.is_some() && id.as_deref().is_none_or(|id| id == "null");
            match (is_unnamed, label) {
                // What the gateway refuses before it has read the body.
                (true, Some(label)) => {
                    for call in calls {
                        self.end(*call, Fate::Refused(label.clone()));
                    }
                }
                _ => self.violation(format!(
                    "an answer with id {id:?} to calls {calls:?}: {}",
                    String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
                )),
            }
            return;
        };
        self.calls[call].answers += 1;
        if 1 < self.calls[call].answers {
            self.violation(format!("call {call} was answered twice"));
        }
        let tags = Tag::all(bytes);
        let own = self.tag(call);
        if tags.iter().any(|tag| *tag != own) {
            self.violation(format!("call {call} was answered with {tags:?}"));
        }
        let is_server = label.is_none() && !tags.is_empty();
        let is_error = envelope.kind == Kind::ErrorResponse;
        if is_server && is_error != (self.calls[call].what == Do::Error) && !self.was_refused(bytes)
        {
            self.violation(format!("call {call}: result became error or error result"));
        }
        match label {
            Some(label) => self.end(call, Fate::Refused(label)),
            None if tags.is_empty() && !self.is_own(call) => {
                self.violation(format!("call {call} has an answer without its tag"));
            }
            None => self.end(call, Fate::Answered),
        }
    }

    /// Whether the gateway may answer it itself.
    fn is_own(&self, call: usize) -> bool {
        let call = &self.calls[call];
        match call.what {
            Do::Init | Do::Union | Do::Discover => true,
            // The last member has left it.
            Do::Listen => call.union.is_some(),
            _ => false,
        }
    }

    /// Whether the server says that it could not ask its question.
    fn was_refused(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(bytes, b"could not ask").is_some()
    }

    /// What became of a call.
    pub(super) fn end(&mut self, call: usize, fate: Fate) {
        let now = self.now;
        if self.calls[call].fate != Fate::Open {
            return;
        }
        let entry = &mut self.calls[call];
        entry.fate = fate.clone();
        let entry = &self.calls[call];
        let began = entry.began.unwrap_or(now);
        // Behind calls that hang, a call waits for a connection as long as it may take itself.
        let patience = if self.faults.slow || self.faults.hang { 330 } else { 170 };
        // All answers to a talker share one connection, however slowly it is read.
        let patience = if entry.client < FIRST { patience } else { patience * 2 };
        if entry.what != Do::Listen
            && fate != Fate::Lost
            && began + Duration::from_secs(patience) < now
        {
            let took = (now - began).as_secs();
            self.violation(format!("call {call} took {took} s: {fate:?}"));
        }
        match fate {
            Fate::Refused(label) => {
                self.refused += 1;
                if let Err(why) = self.is_excused(call, &label) {
                    let what = self.calls[call].what;
                    self.violation(format!("call {call} ({what:?}) was refused: {label} ({why})"));
                }
            }
            Fate::Lost => {
                self.lost += 1;
                let faults = self.faults;
                let may_break = faults.net
                    || faults.dead_readers
                    || faults.die
                    || faults.drain
                    || faults.hang
                    || faults.race;
                let entry = &self.calls[call];
                if !may_break && !entry.cancelled {
                    let what = entry.what;
                    self.violation(format!("call {call} ({what:?}) lost its connection"));
                }
            }
            Fate::Answered => self.answered += 1,
            Fate::Open => {}
        }
    }

    /// Whether something in this world explains that refusal.
    fn is_excused(&self, call: usize, label: &str) -> Result<(), &'static str> {
        let (faults, call) = (self.faults, &self.calls[call]);
        if call.union.is_some() {
            return self.is_excused_by_view(call, label);
        }
        let fine = match label {
            "server_timeout" => {
                let is_hung = call.what == Do::Hang || call.what == Do::Ask;
                // To find out about one endpoint after the other takes its time.
                faults.hang || is_hung || faults.slow || faults.fall
            }
            "server_died" => {
                faults.die
                    || faults.race
                    || call.may_be_unknown
                    || call.cancelled
                    || call.what == Do::Cut
            }
            "server_unreachable" => faults.die,
            "unknown_session" | "unknown_event" | "no_session" => {
                faults.forget || faults.die || faults.drain || call.may_be_unknown
            }
            "draining" => faults.drain,
            "server_invalid" => faults.garbage || faults.forget || faults.die,
            "legacy_server" => true,
            // Few connections, of which one is kept for those who do not listen.
            "full" => faults.hang && call.what == Do::Listen,
            _ => false,
        };
        if fine { Ok(()) } else { Err("nothing explains that") }
    }

    /// The same for a view, whose members may be missing for any fault. Its session is not lost
    /// with theirs.
    fn is_excused_by_view(&self, call: &Call, label: &str) -> Result<(), &'static str> {
        let faults = self.faults;
        let is_rough = Faults { slow: false, ..faults } != Faults::default();
        let fine = match label {
            "server_timeout" => is_rough || faults.slow || call.what == Do::Ask,
            "server_died" => is_rough || call.cancelled || call.what == Do::Cut,
            // Those who know no more than `initialize` have no part in a subscription.
            "server_unreachable" if call.what == Do::Listen && !call.is_legacy => true,
            "server_unreachable" | "server_invalid" => is_rough,
            // Those who know no more than `initialize` cannot say what they have.
            "no_such_name" => is_rough || !call.is_legacy,
            "unknown_session" | "unknown_event" | "no_session" => {
                faults.drain || call.may_be_unknown
            }
            "draining" => faults.drain,
            "not_united" => call.what == Do::Task,
            "legacy_server" => !call.is_legacy,
            // A list that was late for the page before may not be known at another shard.
            "unknown_cursor" => {
                call.what == Do::List || (call.what == Do::Union && (is_rough || faults.slow))
            }
            "full" => faults.hang && call.what == Do::Listen,
            _ => false,
        };
        if fine { Ok(()) } else { Err("nothing explains that of a view") }
    }

    /// Time enough has passed for every call to be over.
    pub(super) fn settled(&mut self) {
        for call in 0..self.calls.len() {
            let entry = &self.calls[call];
            let what = entry.what;
            let is_waiting = entry.fate == Fate::Open && entry.began.is_some();
            if is_waiting && !entry.cancelled && what != Do::Listen {
                self.violation(format!("call {call} ({what:?}) still waits"));
            }
        }
    }

    /// When all is over.
    pub(super) fn finish(&mut self) {
        for call in 0..self.calls.len() {
            let entry = &self.calls[call];
            let (what, cancelled) = (entry.what, entry.cancelled);
            // With one member, the parts of all others of a subscription end.
            let is_taken_back = what == Do::Task || what == Do::Listen && entry.union.is_some();
            if entry.fate == Fate::Open && !cancelled {
                self.violation(format!("call {call} ({what:?}) was never answered"));
            } else if entry.fate == Fate::Answered
                && entry.withdrawn
                && !cancelled
                && !is_taken_back
            {
                self.violation(format!("call {call} was cancelled by somebody else"));
            }
        }
    }
}

/// The gateway's own label of an error.
fn label(bytes: &[u8]) -> Option<String> {
    let key = b"\"data\":{\"gateway\":\"";
    let at = memchr::memmem::find(bytes, key)? + key.len();
    let end = at + memchr::memchr(b'"', &bytes[at..])?;
    Some(String::from_utf8_lossy(&bytes[at..end]).into_owned())
}
