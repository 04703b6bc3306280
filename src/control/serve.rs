//! The loop of the control thread: what shards ask, what the operator signals, how it all ends.
//!
//! ```text
//!   Serving ── signal, or a shard died ──► Draining ── all shards ended ──► Stopping ──► exit
//!                                             └──────── or out of time ──────┘  (processes)
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::log::Log;
use super::machine;
use super::post::Post;
use super::process::{Key, Processes};
use super::resolve;
use crate::driver::request::Request;
use crate::ids::{ShardId, Ticket};
use crate::mesh::{Parcel, Reply};
use crate::shard::event::Question;

/// Time that shards have, after the requests' own, to close what is left.
const DRAIN_EXTRA: Duration = Duration::from_secs(2);

/// Time to tell servers that the only client is gone, and again for processes that are left after
/// that: nobody waits for an answer any more, and whoever started us waits for our end.
const LEFT_TIMEOUT: Duration = Duration::from_secs(1);

/// Each step of stopping the processes that shards left behind.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);

/// Time for all processes to be gone: the two steps, and the kernel.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// What tasks and threads of ours report.
#[derive(Debug)]
pub(super) enum News {
    /// A question has its answer.
    Answered { shard: ShardId, ticket: Ticket, reply: Reply },
    /// The thread of a shard has ended; with an error, if it had one.
    ShardEnded { shard: ShardId, outcome: io::Result<()> },
    /// The one client of standard input and output is gone, and with it the reason to be here.
    /// An error, if it could not be written to although it was there.
    ClientLeft { outcome: io::Result<()> },
}

/// What the loop is built from.
#[derive(Debug)]
pub(super) struct Parts {
    pub log: Log,
    pub post: Post,
    pub processes: Processes,
    pub shards: u16,
    pub drain_timeout: Duration,
    /// Read by the admin server.
    pub draining: Arc<AtomicBool>,
    pub news: mpsc::UnboundedSender<News>,
}

/// Everything that can wake the loop.
#[derive(Debug)]
pub(super) struct Sources {
    pub requests: mpsc::Receiver<Request>,
    pub ended: mpsc::UnboundedReceiver<Key>,
    pub news: mpsc::UnboundedReceiver<News>,
    pub signals: Signals,
}

/// The signals that mean something.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Children that end, if there may be some that are not known: where orphans are given to us.
    child: Option<Signal>,
}

impl Signals {
    /// From now on they come here, and no longer end the process.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: machine::adopts_orphans().then(|| signal(SignalKind::child())).transpose()?,
        })
    }

    /// Waits until a child has ended that may be an orphan.
    async fn orphan(child: &mut Option<Signal>) {
        let has_come = match child {
            Some(child) => child.recv().await,
            None => None,
        };
        if has_come.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Something happened.
#[derive(Debug)]
enum Wake {
    Request(Request),
    ProcessEnded(Key),
    News(News),
    Stop(&'static str),
    Reload,
    GuardDied,
    RetryPost,
    Orphan,
    OutOfTime,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Serving,
    Draining { until: Instant },
    Stopping { until: Instant },
}

/// The control thread's state.
#[derive(Debug)]
pub(super) struct Control {
    parts: Parts,
    phase: Phase,
    /// Which shards still run.
    live: Vec<bool>,
    has_failed: bool,
    /// Time for all processes to be gone.
    stop_timeout: Duration,
}

impl Control {
    /// Ready to serve.
    pub(super) fn new(parts: Parts) -> Self {
        let live = vec![true; usize::from(parts.shards)];
        Self { parts, phase: Phase::Serving, live, has_failed: false, stop_timeout: STOP_TIMEOUT }
    }

    /// Serves until the end. True: it was asked for; false: something of ours failed.
    pub(super) async fn run(mut self, mut sources: Sources) -> bool {
        loop {
            // Every time: under load there is always something else to wake for.
            self.parts.post.retry();
            let more_orphans = self.reap_orphans(&sources);
            let wake = self.next(&mut sources, more_orphans).await;
            let now = tokio::time::Instant::now().into_std();
            match wake {
                Wake::Request(request) => self.serve(request, now),
                Wake::ProcessEnded(key) => self.reap(key),
                Wake::News(news) => self.hear(news, now),
                Wake::Reload => {
                    let words = "reloading is not supported yet: restart to change the \
                                 configuration";
                    self.parts.log.say("reload_unsupported", words);
                }
                Wake::Stop(signal) => {
                    self.parts.log.event("signal", |line| line.text("signal", signal));
                    match self.phase {
                        Phase::Serving => self.drain(now),
                        Phase::Draining { .. } | Phase::Stopping { .. } => break,
                    }
                }
                Wake::GuardDied => self.restart_guard(),
                // What they are about is looked at in every turn.
                Wake::RetryPost | Wake::Orphan | Wake::OutOfTime => {}
            }
            if self.is_over(now) {
                break;
            }
        }
        // After a second signal, or when a process can not be killed in time.
        self.parts.processes.kill_all();
        while let Ok(request) = sources.requests.try_recv() {
            if let Request::Log(lines) = request {
                self.parts.log.lines(lines);
            }
        }
        self.parts.log.event("stopped", |line| line);
        !self.has_failed
    }

    /// Moves to the next phase when its time has come; true at the end of the last.
    fn is_over(&mut self, now: Instant) -> bool {
        if let Phase::Draining { until } = self.phase
            && (until <= now || !self.live.contains(&true))
        {
            self.parts.processes.stop_all(LEFTOVER_GRACE);
            self.phase = Phase::Stopping { until: now + self.stop_timeout };
        }
        match self.phase {
            Phase::Serving | Phase::Draining { .. } => false,
            Phase::Stopping { until } => until <= now || self.parts.processes.is_empty(),
        }
    }

    /// Reaps who is nobody's; every turn, because one of our own may have hidden some. True if
    /// there may be more.
    fn reap_orphans(&self, sources: &Sources) -> bool {
        sources.signals.child.is_some() && self.parts.processes.reap_orphans()
    }

    async fn next(&self, sources: &mut Sources, more_orphans: bool) -> Wake {
        let Sources { requests, ended, news, signals } = sources;
        let until = match self.phase {
            Phase::Serving => None,
            Phase::Draining { until } | Phase::Stopping { until } => Some(until),
        };
        let out_of_time = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(request) = requests.recv() => Wake::Request(request),
            Some(key) = ended.recv() => Wake::ProcessEnded(key),
            Some(news) = news.recv() => Wake::News(news),
            Some(()) = signals.terminate.recv() => Wake::Stop("SIGTERM"),
            Some(()) = signals.interrupt.recv() => Wake::Stop("SIGINT"),
            Some(()) = signals.hangup.recv() => Wake::Reload,
            () = self.parts.processes.guard_died() => Wake::GuardDied,
            () = self.parts.post.due() => Wake::RetryPost,
            () = Signals::orphan(&mut signals.child) => Wake::Orphan,
            () = std::future::ready(()), if more_orphans => Wake::Orphan,
            () = out_of_time => Wake::OutOfTime,
        }
    }

    fn serve(&mut self, request: Request, now: Instant) {
        match request {
            Request::Ask { shard, ticket, question } => self.answer(shard, ticket, question),
            Request::Stop { shard, process, grace } => {
                self.parts.processes.stop(Key { shard, process }, grace);
            }
            Request::Log(lines) => self.parts.log.lines(lines),
            Request::Ended(shard) => match self.phase {
                // Its thread's last line follows and says why.
                Phase::Serving => {}
                Phase::Draining { .. } | Phase::Stopping { .. } => {
                    self.shard_ended(shard, &Ok(()), now);
                }
            },
        }
    }

    fn answer(&mut self, shard: ShardId, ticket: Ticket, question: Question) {
        match question {
            Question::Start { server, process } => {
                let key = Key { shard, process };
                let reply = match self.phase {
                    Phase::Serving | Phase::Draining { .. } => {
                        self.parts.processes.start(key, server)
                    }
                    Phase::Stopping { .. } => Reply::Failed("the gateway is stopping".to_owned()),
                };
                self.parts.post.send(shard, Parcel::Answered { ticket, reply });
            }
            Question::Resolve { host, port } => {
                let news = self.parts.news.clone();
                drop(tokio::spawn(async move {
                    let reply = resolve::resolve(&host, port).await;
                    // Without a receiver the gateway is at its end.
                    news.send(News::Answered { shard, ticket, reply }).unwrap_or_default();
                }));
            }
        }
    }

    fn reap(&mut self, key: Key) {
        if let Some(how) = self.parts.processes.reap(key) {
            self.parts.post.send(key.shard, Parcel::Exited { process: key.process, how });
        }
    }

    fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Answered { shard, ticket, reply } => {
                self.parts.post.send(shard, Parcel::Answered { ticket, reply });
            }
            News::ShardEnded { shard, outcome } => self.shard_ended(shard, &outcome, now),
            News::ClientLeft { outcome } => {
                if let Err(error) = outcome {
                    self.has_failed = true;
                    let words = format!("standard output can not be written to: {error}");
                    self.parts.log.say("error", &words);
                }
                if let Phase::Serving = self.phase {
                    self.stop_timeout = LEFT_TIMEOUT;
                    self.drain_within(LEFT_TIMEOUT, now);
                }
            }
        }
    }

    /// Both the driver and the thread's own last line report it; the first counts, and an error
    /// always does.
    fn shard_ended(&mut self, shard: ShardId, outcome: &io::Result<()>, now: Instant) {
        let was_live = self.live.get_mut(usize::from(shard.0)).is_some_and(std::mem::take);
        let is_early = was_live && matches!(self.phase, Phase::Serving);
        self.parts.post.forget(shard);
        if is_early || outcome.is_err() {
            self.has_failed = true;
            let why = match outcome {
                Ok(()) => "it ended without being told to".to_owned(),
                Err(error) => error.to_string(),
            };
            self.parts.log.event("shard_died", |line| {
                line.number("shard", shard.0.into()).text("error", &why)
            });
        }
        if is_early {
            // The sessions of that shard are lost. The others finish what they are at, and the
            // service manager starts us again.
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        self.drain_within(self.parts.drain_timeout, now);
    }

    fn drain_within(&mut self, timeout: Duration, now: Instant) {
        let deadline = now + timeout;
        self.parts.draining.store(true, Ordering::Relaxed);
        self.parts.log.event("draining", |line| line.number("timeout_seconds", timeout.as_secs()));
        for shard in (0..self.parts.shards).map(ShardId) {
            if self.live.get(usize::from(shard.0)) == Some(&true) {
                self.parts.post.send(shard, Parcel::Drain { deadline });
            }
        }
        self.phase = Phase::Draining { until: deadline + DRAIN_EXTRA };
    }

    fn restart_guard(&mut self) {
        match self.parts.processes.restart_guard() {
            Ok(()) => self.parts.log.event("guard_restarted", |line| line),
            Err(error) => {
                let words = format!(
                    "the guard process died and can not be started again ({error}): if the \
                     gateway is killed, child processes of its servers' commands may stay behind"
                );
                self.parts.log.say("guard_lost", &words);
            }
        }
    }
}
