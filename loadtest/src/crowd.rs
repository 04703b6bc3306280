//! Many sessions at one endpoint, each with connections of its own, that do the same things at the
//! same time. Used by the checks of [`sessions`](crate::sessions) and
//! [`connections`](crate::connections).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use wire::rpc::{self, Kind};

use crate::engine::{Engine, Script};
use crate::inbox::Answer;
use crate::request;
use crate::target::Target;

/// How long nothing may move while answers are due.
const PATIENCE: Duration = Duration::from_secs(60);
const RPC_LIMITS: rpc::Limits = rpc::Limits { depth_max: 64, len_max: 64 * 1024 * 1024 };
/// Errors that are kept in words.
const ERRORS_KEPT: usize = 5;

/// The ids, and progress tokens, that every session uses.
pub const IDS: [&str; 7] =
    ["1", r#""a""#, r#""""#, "0", "-1", "9007199254740993", "12345678901234567890"];

/// What went wrong.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// How often something did.
    pub count: u64,
    /// The first few.
    pub first: Vec<String>,
}

impl Errors {
    /// One more.
    pub fn add(&mut self, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < ERRORS_KEPT {
            self.first.push(why());
        }
    }
}

/// The sessions and their connections: those of session `n` have the numbers from
/// `n * per_session`.
pub struct Crowd {
    engine: Engine,
    target: Target,
    per_session: usize,
    sessions: Vec<Option<String>>,
    /// What went wrong so far.
    pub errors: Errors,
    /// Calls that had the right answer.
    pub calls: u64,
}

impl Crowd {
    /// Opens the connections; the sessions come with [`Self::open_sessions`].
    pub fn connect(target: &Target, sessions: usize, per_session: usize) -> io::Result<Self> {
        let mut engine = Engine::new()?;
        for _ in 0..sessions * per_session {
            engine.connect(target.addr)?;
        }
        Ok(Self {
            engine,
            target: target.clone(),
            per_session,
            sessions: vec![None; sessions],
            errors: Errors::default(),
            calls: 0,
        })
    }

    /// Opens the sessions, so many at the same time.
    pub fn open_sessions(&mut self, at_once: usize) -> io::Result<()> {
        let body = request::initialize(request::LEGACY);
        let target = self.target.clone();
        let per_session = self.per_session;
        let mut opened = vec![None; self.sessions.len()];
        let ask = |conn: usize| {
            let mut out = Vec::new();
            request::write_post(&mut out, &target, &[], body.as_bytes());
            conn.is_multiple_of(per_session).then_some(out)
        };
        let check = |conn: usize, answer: &Answer| {
            let slot = opened.get_mut(conn / per_session);
            let session = answer.session_text().filter(|_| answer.status == 200);
            let Some((slot, session)) = slot.zip(session) else { return Err(answer.summary()) };
            *slot = Some(session);
            Ok(())
        };
        self.each(at_once * per_session, ask, check)?;
        self.sessions = opened;
        self.in_sessions(at_once, request::INITIALIZED, |_, answer| match answer.status {
            202 => Ok(()),
            _ => Err(answer.summary()),
        })
    }

    /// Sends one message in each session, so many at the same time.
    pub fn in_sessions(
        &mut self,
        at_once: usize,
        body: &str,
        mut check: impl FnMut(usize, &Answer) -> Result<(), String>,
    ) -> io::Result<()> {
        let (sessions, target) = (self.sessions.clone(), self.target.clone());
        let per_session = self.per_session;
        let ask = |conn: usize| {
            let session = sessions.get(conn / per_session)?.as_deref()?;
            let headers = request::session_headers(Some(session), request::LEGACY);
            let mut out = Vec::new();
            request::write_post(&mut out, &target, &headers, body.as_bytes());
            conn.is_multiple_of(per_session).then_some(out)
        };
        let check = |conn: usize, answer: &Answer| check(conn / per_session, answer);
        self.each(at_once * per_session, ask, check)
    }

    /// Calls tools in all sessions at once, with all [`IDS`] in each, on all its connections. In
    /// so many sessions, others in each round, some calls are of `progress`.
    pub fn call_all(&mut self, round: usize, slow_sessions: usize) -> io::Result<()> {
        let stride = self.sessions.len().div_ceil(slow_sessions.max(1)).max(1);
        let queue = |session: usize| {
            let is_slow = (session + round).is_multiple_of(stride) && slow_sessions != 0;
            let ask = |index| {
                // Different sessions report differently often, so that foreign progress shows.
                let steps = 1 + (session + index + round) % 7;
                let steps = if is_slow && index % 2 == 1 { steps } else { 0 };
                Ask::new(index, steps, format!("tag-{session}-{index}-{round}-end"))
            };
            (0..IDS.len()).map(ask).collect::<VecDeque<_>>()
        };
        let conns = 0..self.engine.count();
        let mut script = Round {
            target: &self.target,
            per_session: self.per_session,
            sessions: &self.sessions,
            queues: (0..self.sessions.len()).map(queue).collect(),
            asked: conns.clone().map(|_| None).collect(),
            errors: &mut self.errors,
            calls: &mut self.calls,
        };
        self.engine.run(conns, &mut script, PATIENCE)
    }

    /// On the last connection of each session, opens its stream or begins a call of `sleep`, and
    /// waits for nothing.
    pub fn begin_what_will_not_end(&mut self) -> io::Result<()> {
        let call = request::call("sleep", r#"{"ms":1000}"#, "8");
        for (index, session) in self.sessions.iter().enumerate() {
            let Some(session) = session.as_deref() else { continue };
            let mut headers = request::session_headers(Some(session), request::LEGACY);
            let mut out = Vec::new();
            if index % 4 < 2 {
                headers.push(("accept", "text/event-stream"));
                request::write(&mut out, &self.target, "GET", &headers, b"");
            } else {
                request::write_post(&mut out, &self.target, &headers, call.as_bytes());
            }
            let conn = (index + 1) * self.per_session - 1;
            if let Err(error) = self.engine.shout(conn, &out) {
                self.errors.add(|| format!("connection {conn}: {error}"));
            }
        }
        Ok(())
    }

    /// Ends every second session with DELETE; the others are left to themselves.
    pub fn delete_half(&mut self) -> io::Result<()> {
        let (sessions, target) = (self.sessions.clone(), self.target.clone());
        let per_session = self.per_session;
        let ask = |conn: usize| {
            let index = conn / per_session;
            let session = sessions.get(index)?.as_deref()?;
            let headers = request::session_headers(Some(session), request::LEGACY);
            let mut out = Vec::new();
            request::write(&mut out, &target, "DELETE", &headers, b"");
            (conn.is_multiple_of(per_session) && index.is_multiple_of(2)).then_some(out)
        };
        let check = |_, answer: &Answer| match answer.status {
            200 | 202 | 204 => Ok(()),
            _ => Err(format!("DELETE: {}", answer.summary())),
        };
        self.each(usize::MAX, ask, check)
    }

    /// How many connections are still open, as far as known.
    pub fn open_count(&self) -> usize {
        self.engine.open_count()
    }

    /// One request on each connection that has one, so many at the same time.
    fn each(
        &mut self,
        at_once: usize,
        ask: impl FnMut(usize) -> Option<Vec<u8>>,
        check: impl FnMut(usize, &Answer) -> Result<(), String>,
    ) -> io::Result<()> {
        let count = self.engine.count();
        let asked = vec![false; count];
        let mut script = Each { ask, check, asked, errors: &mut self.errors };
        for wave in waves(count, at_once) {
            self.engine.run(wave, &mut script, PATIENCE)?;
        }
        Ok(())
    }
}

fn waves(count: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    let at_once = at_once.clamp(1, count.max(1));
    (0..count).step_by(at_once).map(move |start| start..count.min(start + at_once))
}

/// One request and one check for each connection.
struct Each<'a, Asks, Checks> {
    ask: Asks,
    check: Checks,
    asked: Vec<bool>,
    errors: &'a mut Errors,
}

impl<Asks, Checks> Script for Each<'_, Asks, Checks>
where
    Asks: FnMut(usize) -> Option<Vec<u8>>,
    Checks: FnMut(usize, &Answer) -> Result<(), String>,
{
    fn next(&mut self, conn: usize, _now: Instant, out: &mut Vec<u8>) -> bool {
        let is_new = self.asked.get_mut(conn).is_some_and(|asked| !std::mem::replace(asked, true));
        let Some(bytes) = is_new.then(|| (self.ask)(conn)).flatten() else { return false };
        *out = bytes;
        true
    }

    fn answered(&mut self, conn: usize, answer: &Answer, _took: Duration) {
        if let Err(why) = (self.check)(conn, answer) {
            self.errors.add(|| why);
        }
    }

    fn failed(&mut self, conn: usize, why: &str) {
        self.errors.add(|| format!("connection {conn}: {why}"));
    }
}

/// One call of a round.
#[derive(Clone, Debug)]
struct Ask {
    id: &'static str,
    /// What the text of the result has in it.
    tag: String,
    /// Steps of progress, if that is what is called.
    steps: usize,
}

impl Ask {
    fn new(index: usize, steps: usize, tag: String) -> Self {
        let id = IDS.get(index).copied().unwrap_or("1");
        let tag = if steps == 0 { tag } else { format!("Took {steps} steps.") };
        Self { id, tag, steps }
    }

    fn body(&self) -> String {
        let Self { id, tag, steps } = self;
        let (name, arguments) = match steps {
            0 => ("echo", format!(r#"{{"text":"{tag}"}}"#)),
            _ => ("progress", format!(r#"{{"steps":{steps},"interval":1}}"#)),
        };
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{arguments},"_meta":{{"progressToken":{id}}}}}}}"#
        )
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        let mut progress = 0;
        let mut answers = 0;
        let mut foreign = None;
        answer.each_message(|message| {
            let Ok(envelope) = rpc::scan(message, RPC_LIMITS) else { return };
            let is_ours = |span: Option<rpc::Span>| {
                span.is_some_and(|span| span.get(message) == self.id.as_bytes())
            };
            let result = envelope.result.map(|result| result.get(message)).unwrap_or_default();
            let has_tag = memchr::memmem::find(result, self.tag.as_bytes()).is_some();
            if envelope.kind == Kind::Response && is_ours(envelope.id) && has_tag {
                answers += 1;
            } else if is_ours(envelope.notified_token) {
                progress += 1;
            } else {
                foreign = Some(String::from_utf8_lossy(message).into_owned());
            }
        });
        if let Some(message) = foreign {
            return Err(format!("not for {self:?}: HTTP {}: {message}", answer.status));
        }
        if answer.status != 200 || answers != 1 || progress != self.steps {
            let summary = answer.summary();
            return Err(format!("{self:?} had {answers} answers and {progress} steps: {summary}"));
        }
        Ok(())
    }
}

/// All ids once in every session.
struct Round<'a> {
    target: &'a Target,
    per_session: usize,
    sessions: &'a [Option<String>],
    queues: Vec<VecDeque<Ask>>,
    asked: Vec<Option<Ask>>,
    errors: &'a mut Errors,
    calls: &'a mut u64,
}

impl Script for Round<'_> {
    fn next(&mut self, conn: usize, _now: Instant, out: &mut Vec<u8>) -> bool {
        let index = conn / self.per_session;
        let Some(Some(session)) = self.sessions.get(index) else { return false };
        let ask = self.queues.get_mut(index).and_then(VecDeque::pop_front);
        let (Some(ask), Some(slot)) = (ask, self.asked.get_mut(conn)) else { return false };
        let headers = request::session_headers(Some(session), request::LEGACY);
        request::write_post(out, self.target, &headers, ask.body().as_bytes());
        *slot = Some(ask);
        true
    }

    fn answered(&mut self, conn: usize, answer: &Answer, _took: Duration) {
        let ask = self.asked.get_mut(conn).and_then(Option::take);
        match ask.map(|ask| ask.check(answer)) {
            Some(Ok(())) => *self.calls += 1,
            Some(Err(why)) => self.errors.add(|| why),
            None => {
                self.errors.add(|| format!("an answer to nothing: {}", answer.summary()));
            }
        }
    }

    fn failed(&mut self, conn: usize, why: &str) {
        let ask = self.asked.get_mut(conn).and_then(Option::take);
        self.errors.add(|| format!("connection {conn}, {ask:?}: {why}"));
    }
}
