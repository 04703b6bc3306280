//! Clients whose connection is the conversation: messages go in both directions.
//!
//! A talker has one conversation at a time. In the legacy era each is a session; what it says is
//! judged by the same rules as what others say over HTTP.

use std::time::Duration;

use wire::rpc::{self, Kind};

use crate::ids::EntranceId;
use crate::tests::sim::check::{Call, Check, Do, Fate, LIMITS, Tag};
use crate::tests::sim::client::{IDS, LEGACY, pick};
use crate::tests::sim::net::{End, LinkId, Near, Net, Peer, Task};
use crate::tests::sim::request;
use crate::tests::sim::union::{self, Asked, VIEW};
use crate::tests::sim::voice::{Heard, Kind as Transport, Speaker, Voice};

/// Clients are numbered on behind those that speak HTTP.
pub(super) const FIRST: usize = 100;

#[derive(Debug)]
pub(super) struct Talker {
    index: usize,
    /// None: 2026-07-28.
    revision: Option<&'static str>,
    server: usize,
    transport: Transport,
    shards: usize,
    acts: u32,
    pause: u64,
    talk: Option<Talk>,
    /// Connections so far: the number of the session.
    talks: usize,
}

/// One connection.
#[derive(Debug)]
struct Talk {
    link: LinkId,
    voice: Voice,
    /// Whether calls may be made: `initialize` was answered, or need not be.
    is_open: bool,
    calls: Vec<usize>,
    /// Messages that nobody can make sense of, and that are answered without an id.
    garbage: usize,
}

impl Talker {
    pub(super) fn new(number: usize, shards: usize, net: &mut Net) -> Self {
        let revision = (!net.random.chance(40)).then(|| *net.random.pick(&LEGACY));
        Self {
            index: FIRST + number,
            revision,
            server: net.random.between(0, 3),
            transport: Transport::Lines,
            shards,
            acts: u32::try_from(net.random.between(5, 30)).unwrap(),
            pause: *net.random.pick(&[30, 300, 3000]),
            talk: None,
            talks: 0,
        }
    }

    /// The same, at the view.
    pub(super) fn united(self) -> Self {
        Self { server: VIEW, ..self }
    }

    /// The same, over another transport.
    pub(super) fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// How long it is busy at most.
    pub(super) fn busy(&self) -> Duration {
        Duration::from_millis(u64::from(self.acts) * self.pause)
    }

    pub(super) fn entrance(&self) -> EntranceId {
        self.transport.entrance(self.server)
    }

    fn session(&self) -> Option<usize> {
        self.revision.map(|_| self.talks)
    }

    /// Does something.
    pub(super) fn act(&mut self, net: &mut Net, check: &mut Check) {
        if self.acts == 0 {
            return;
        }
        self.acts -= 1;
        let pause = net.random.millis(self.pause);
        net.after(pause, Task::Talk { talker: self.index - FIRST });
        let dice = net.random.below(100);
        let Some(talk) = &self.talk else { return self.dial(net, check) };
        let is_open = talk.is_open;
        match dice {
            0..5 if check.faults.net => self.leave(net, check),
            5..8 => {
                self.say("{\"jsonrpc\":\"2.0\",\"id\":", net);
                if let Some(talk) = &mut self.talk {
                    talk.garbage += 1;
                }
            }
            8..16 if is_open => self.cancel(net, check),
            16..20 if is_open && self.revision.is_some() => {
                // An answer to a question that nobody asked here.
                let tag = Tag { client: self.index, session: self.talks, call: 0 }.text();
                self.say(&request::accept("1", &tag), net);
            }
            20..24 => {
                if let Some(talk) = &mut self.talk {
                    talk.voice.breathe(talk.link, net);
                }
            }
            _ if is_open => self.call(None, net, check),
            _ => {}
        }
    }

    fn dial(&mut self, net: &mut Net, check: &mut Check) {
        let shard = net.random.between(0, self.shards - 1);
        let peer = Peer::Talker { talker: self.index - FIRST };
        let link = net.open(peer, Near::Parked { shard });
        net.after(Duration::ZERO, Task::Accept { link });
        self.talks += 1;
        net.note(|| format!("talker {} comes by {:?}", self.index, self.transport));
        let voice = Voice::new(self.transport, self.server, link, net);
        let is_open = self.revision.is_none();
        self.talk = Some(Talk { link, voice, is_open, calls: Vec::new(), garbage: 0 });
        if let Some(revision) = self.revision {
            let call = self.begin(Do::Init, net, check);
            let text = request::initialize(&check.calls[call].id, revision);
            self.say(&text, net);
        }
    }

    fn call(&mut self, asked: Option<Asked>, net: &mut Net, check: &mut Check) {
        let what = match self.revision {
            _ if asked.is_some() => Do::Union,
            None if net.random.chance(10) => Do::Listen,
            None if self.server == VIEW && net.random.chance(10) => Do::Discover,
            _ if self.server == VIEW => union::pick(net, check),
            _ => pick(net, check),
        };
        let is_legacy_only = matches!(what, Do::Ask | Do::Forget | Do::Task);
        let what = if self.revision.is_none() && is_legacy_only { Do::Echo } else { what };
        let call = self.begin(what, net, check);
        if asked.is_some() {
            check.calls[call].union = asked;
        }
        let tag = check.tag(call).text();
        let is_modern = self.revision.is_none();
        let text = request::message(&check.calls[call], &tag, is_modern, &mut net.random);
        self.say(&text.replace(['\n', '\r'], " "), net);
    }

    /// Begins a call under an id that none in flight has.
    fn begin(&mut self, what: Do, net: &mut Net, check: &mut Check) -> usize {
        let number = check.calls.len();
        let own = |call: &&Call| call.client == self.index && call.session == self.talks;
        let used: Vec<Option<String>> = check
            .calls
            .iter()
            .filter(own)
            .filter(|call| call.fate == Fate::Open || call.cancelled)
            .flat_map(|call| [Some(call.id.clone()), call.token.clone()])
            .collect();
        let mut free = || {
            let id = (*net.random.pick(&IDS)).to_owned();
            (!used.contains(&Some(id.clone()))).then_some(id)
        };
        let id = free().unwrap_or_else(|| format!("{}", 1000 + number));
        let token = free().filter(|token| *token != id);
        let token = token.unwrap_or_else(|| format!("\"t{number}\""));
        let has_token = net.random.chance(70) || matches!(what, Do::Flood | Do::Trickle);
        let is_united = self.server == VIEW;
        let union = is_united.then(|| union::asked(what, net, check));
        let call = check.begin(Call {
            client: self.index,
            session: self.talks,
            what,
            id,
            token: has_token.then_some(token),
            fate: Fate::Open,
            began: Some(net.now),
            cancelled: false,
            may_be_unknown: false,
            deliveries: 0,
            withdrawn: false,
            answers: 0,
            is_legacy: self.revision.is_some(),
            union,
        });
        if let Some(talk) = &mut self.talk {
            talk.calls.push(call);
        }
        call
    }

    fn cancel(&mut self, net: &mut Net, check: &mut Check) {
        let Some(talk) = &self.talk else { return };
        let can = |call: &&usize| check.is_open(**call) && check.calls[**call].what != Do::Init;
        let Some(call) = talk.calls.iter().find(can).copied() else { return };
        check.calls[call].cancelled = true;
        let id = check.calls[call].id.clone();
        self.say(&request::cancel(&id), net);
    }

    fn say(&mut self, text: &str, net: &mut Net) {
        net.note(|| format!("talker {} says {}", self.index, text.get(..200).unwrap_or(text)));
        let Some(talk) = &mut self.talk else { return };
        let who = Speaker { number: self.index - FIRST, link: talk.link, shards: self.shards };
        talk.voice.say(text, who, net);
    }

    pub(super) fn received(
        &mut self,
        link: LinkId,
        bytes: Result<Vec<u8>, End>,
        net: &mut Net,
        check: &mut Check,
    ) {
        let shards = self.shards;
        let Some(talk) = &mut self.talk else { return };
        let who = Speaker { number: self.index - FIRST, link: talk.link, shards };
        let Heard { messages, is_over } = match bytes {
            Ok(bytes) if talk.link == link || talk.voice.has(link) => {
                talk.voice.hear(&bytes, link, who, net)
            }
            Err(_) if talk.link == link => Heard { messages: Vec::new(), is_over: true },
            Err(_) if talk.voice.has(link) => talk.voice.lost(link, net),
            Ok(_) | Err(_) => return,
        };
        for message in messages {
            self.message(&message, net, check);
        }
        if is_over {
            net.note(|| format!("talker {} is left", self.index));
            let mut is_late = false;
            if let Some(talk) = &mut self.talk {
                is_late = check.faults.slow && talk.voice.is_greeting();
                talk.voice.leave(talk.link, End::Closed, net);
            }
            self.lost(is_late, check);
        }
    }

    fn message(&mut self, bytes: &[u8], net: &mut Net, check: &mut Check) {
        let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(240)]).into_owned();
        net.note(|| format!("talker {} hears {}", self.index, text()));
        check.seen(self.index, self.session(), bytes);
        let envelope = match rpc::scan(bytes, LIMITS) {
            Ok(envelope) => envelope,
            Err(error) => {
                return check.violation(format!("talker {} got {}: {error}", self.index, text()));
            }
        };
        let id = envelope.id.map(|id| String::from_utf8_lossy(id.get(bytes)).into_owned());
        let Some(talk) = &mut self.talk else { return };
        match envelope.kind {
            Kind::ErrorResponse if id.as_deref().is_none_or(|id| id == "null") => {
                match talk.garbage.checked_sub(1) {
                    Some(left) => talk.garbage = left,
                    None => check.violation(format!("an error about nothing: {}", text())),
                }
            }
            Kind::Response | Kind::ErrorResponse => {
                // Ids come back into use: the newest call is meant.
                let is_it = |call: &&usize| Some(&check.calls[**call].id) == id.as_ref();
                let call = talk.calls.iter().rev().find(is_it).copied();
                check.answer(&call.into_iter().collect::<Vec<_>>(), bytes, &envelope);
                let is_init = call.is_some_and(|call| check.calls[call].what == Do::Init);
                if is_init && envelope.kind == Kind::Response {
                    talk.is_open = true;
                    self.say(request::INITIALIZED, net);
                }
                let is_list = |call: &usize| check.calls[*call].what == Do::Union;
                let next = call.filter(is_list).and_then(|call| check.listed(call, bytes));
                if next.is_some() {
                    self.call(next, net, check);
                }
            }
            Kind::Notification => check.notified(bytes, &envelope),
            Kind::Request => {
                let tag = Tag::all(bytes).first().map(|tag| tag.text()).unwrap_or_default();
                self.say(&request::accept(&id.unwrap_or_default(), &tag), net);
            }
        }
    }

    fn leave(&mut self, net: &mut Net, check: &mut Check) {
        if let Some(talk) = &mut self.talk {
            let end = *net.random.pick(&[End::Closed, End::Broken]);
            net.note(|| format!("talker {} leaves", self.index));
            talk.voice.leave(talk.link, end, net);
        }
        self.lost(true, check);
    }

    /// The client goes for good.
    pub(super) fn vanish(&mut self, net: &mut Net, check: &mut Check) {
        self.acts = 0;
        self.leave(net, check);
    }

    fn lost(&mut self, by_us: bool, check: &mut Check) {
        let Some(talk) = self.talk.take() else { return };
        for call in talk.calls {
            // A server that forgets its sessions ends the conversation.
            check.calls[call].cancelled |= by_us || check.faults.forget;
            check.end(call, Fate::Lost);
        }
    }
}
