//! Many sessions at once: nothing may be mixed up while they are there, and nothing may be left
//! when they are gone.
//!
//! All sessions use the same ids and progress tokens at the same time. Then each opens its stream
//! or makes a slow call, and in the middle of that half of them are deleted and half abandoned. The
//! gateway's numbers have to come back to where they started.
//! Memory counts from the second cycle on: the first fills the allocator's caches.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock;
use crate::crowd::{Crowd, Errors};
use crate::inbox::Answer;
use crate::metrics::Metrics;
use crate::process::{self, Held};
use crate::request;
use crate::target::Target;

/// Time for everything to be gone, besides the time that abandoned sessions live.
const SETTLE: Duration = Duration::from_secs(15);
/// Time for the requests behind which nobody waits to be on their way.
const TO_ARRIVE: Duration = Duration::from_millis(300);
/// Descriptors that may be there now and not before: timers, files being read.
const FDS_SLACK: u64 = 8;
/// KiB that memory may grow from the first cycle to the last, besides a tenth.
const RSS_SLACK_KIB: u64 = 8 * 1024;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gateway's endpoint.
    pub target: Target,
    /// Its admin address.
    pub admin: SocketAddr,
    /// Its process; none: on another machine, or not ours to look at.
    pub pid: Option<u32>,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Connections of each.
    pub per_session: usize,
    /// Sessions at the same time that call `progress` too: a server may allow few slow calls.
    pub slow_sessions: usize,
    /// How often each session uses all ids.
    pub rounds: usize,
    /// How often everything is done.
    pub cycles: usize,
    /// How long the gateway keeps an abandoned session.
    pub idle_timeout: Duration,
    /// Whether the server has the tool `session`, which names its own session.
    pub checks_backend: bool,
}

/// What the gateway holds at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The moment.
    pub when: String,
    /// Its process.
    pub held: Held,
    /// Its gauges, in the order of [`GAUGES`].
    pub gauges: Vec<u64>,
}

/// The gauges that are watched, with their columns' names.
pub const GAUGES: [(&str, &str); 7] = [
    ("mcp_sessions_open", "sessions"),
    ("mcp_exchanges_in_flight", "in flight"),
    ("mcp_connections_open", "clients"),
    ("mcp_processes_running", "processes"),
    ("mcp_gathered_bytes", "gathered"),
    ("mcp_replay_bytes", "replay"),
    // Idle ones are kept on purpose.
    ("mcp_server_connections_open", "to server"),
];

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the gateway held, in order.
    pub samples: Vec<Sample>,
    /// Calls with the right answer.
    pub calls: u64,
    /// Answers that were wrong or missing.
    pub errors: Errors,
    /// What has not come back to where it was.
    pub leaks: Vec<String>,
}

impl Outcome {
    /// Whether all was well.
    pub fn is_good(&self) -> bool {
        self.errors.count == 0 && self.leaks.is_empty() && self.calls != 0
    }
}

/// Does it all.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    let start = sample(plan, "start")?;
    let mut outcome = Outcome {
        samples: vec![start.clone()],
        calls: 0,
        errors: Errors::default(),
        leaks: Vec::new(),
    };
    let mut after = Vec::new();
    for cycle in 1..=plan.cycles {
        let (during, crowd) = live(plan, cycle)?;
        outcome.samples.push(during);
        outcome.calls += crowd.calls;
        outcome.errors.count += crowd.errors.count;
        outcome.errors.first.extend(crowd.errors.first.iter().cloned());
        // Those that were not deleted are abandoned now.
        drop(crowd);
        let (rest, leaks) = settle(plan, &start, &format!("after {cycle}"))?;
        outcome.leaks.extend(leaks.iter().map(|leak| format!("after cycle {cycle}: {leak}")));
        after.push(rest.held.rss_kib);
        outcome.samples.push(rest);
    }
    if let [first, .., last] = *after
        && first + first / 10 + RSS_SLACK_KIB < last
    {
        outcome.leaks.push(format!("memory grew from {first} to {last} KiB between cycles"));
    }
    Ok(outcome)
}

/// Opens all sessions, calls, and deletes half of them.
fn live(plan: &Plan, cycle: usize) -> io::Result<(Sample, Crowd)> {
    let mut crowd = Crowd::connect(&plan.target, plan.sessions, plan.per_session)?;
    crowd.open_sessions(plan.sessions)?;
    let before = backend_sessions(plan, &mut crowd)?;
    for round in 0..plan.rounds {
        crowd.call_all(round, plan.slow_sessions)?;
    }
    if backend_sessions(plan, &mut crowd)? != before {
        crowd.errors.add(|| "a session has another session of the server than before".to_owned());
    }
    let different: BTreeSet<_> = before.iter().collect();
    if different.len() != before.len() {
        crowd.errors.add(|| "two sessions share one session of the server".to_owned());
    }
    crowd.begin_what_will_not_end()?;
    clock::pause(TO_ARRIVE);
    let during = sample(plan, &format!("during {cycle}"))?;
    crowd.delete_half()?;
    Ok((during, crowd))
}

/// What the server calls each session, if it says so.
fn backend_sessions(plan: &Plan, crowd: &mut Crowd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    if plan.checks_backend {
        names = vec![Vec::new(); plan.sessions];
        let body = request::call("session", "{}", "7");
        crowd.in_sessions(plan.sessions, &body, |session, answer: &Answer| {
            if let Some(slot) = names.get_mut(session) {
                slot.clone_from(&answer.body);
            }
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })?;
    }
    Ok(names)
}

fn sample(plan: &Plan, when: &str) -> io::Result<Sample> {
    let metrics = Metrics::fetch(plan.admin)?;
    let gauges: io::Result<Vec<_>> = GAUGES.iter().map(|(name, _)| metrics.value(name)).collect();
    let held = plan.pid.map(process::held).transpose()?.unwrap_or_default();
    Ok(Sample { when: when.to_owned(), held, gauges: gauges? })
}

/// Waits until the gateway holds what it held at the start, and says what has not come back.
fn settle(plan: &Plan, start: &Sample, when: &str) -> io::Result<(Sample, Vec<String>)> {
    let settled = clock::wait_for(plan.idle_timeout * 2 + SETTLE, || {
        let now = sample(plan, when);
        now.as_ref().is_ok_and(|now| leaks(start, now).is_empty()).then_some(now)
    });
    let now = settled.unwrap_or_else(|| sample(plan, when))?;
    let leaks = leaks(start, &now);
    Ok((now, leaks))
}

fn leaks(start: &Sample, now: &Sample) -> Vec<String> {
    let mut leaks = Vec::new();
    let gauges = now.gauges.iter().zip(&start.gauges).zip(GAUGES);
    for ((now, start), (name, _)) in gauges.take(GAUGES.len() - 1) {
        if start < now {
            leaks.push(format!("{name} is {now}, not {start}"));
        }
    }
    let own_fds = |sample: &Sample| {
        sample.held.fds.saturating_sub(sample.gauges.last().copied().unwrap_or(0))
    };
    if own_fds(start) + FDS_SLACK < own_fds(now) {
        leaks.push(format!("{} descriptors besides connections to servers", own_fds(now)));
    }
    if start.held.children < now.held.children {
        leaks.push(format!("{} child processes", now.held.children));
    }
    leaks
}

/// For people.
pub fn text(outcome: &Outcome) -> String {
    let mut head = format!("{:<10}{:>10}{:>8}{:>10}", "", "RSS KiB", "fds", "children");
    for (_, name) in GAUGES {
        head.push_str(&format!("{name:>11}"));
    }
    let mut lines = vec![head];
    for Sample { when, held, gauges } in &outcome.samples {
        let Held { rss_kib, fds, children } = held;
        let mut line = format!("{when:<10}{rss_kib:>10}{fds:>8}{children:>10}");
        for value in gauges {
            line.push_str(&format!("{value:>11}"));
        }
        lines.push(line);
    }
    let Outcome { calls, errors, leaks, .. } = outcome;
    lines.push(format!("{calls} calls answered right, {} errors", errors.count));
    lines.extend(errors.first.iter().map(|error| format!("error: {error}")));
    lines.extend(leaks.iter().map(|leak| format!("leak: {leak}")));
    lines.join("\n")
}
