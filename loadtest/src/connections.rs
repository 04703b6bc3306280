//! Many idle connections: each opens a session, makes one call and says no more.

use std::io;
use std::time::Duration;

use crate::clock;
use crate::crowd::{Crowd, Errors};
use crate::process::{self, Held};
use crate::report::real;
use crate::request;
use crate::target::Target;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gateway's endpoint.
    pub target: Target,
    /// Its process.
    pub pid: u32,
    /// Connections.
    pub count: usize,
    /// Requests on the way at the same time.
    pub at_once: usize,
    /// How long the connections stay open when they are idle.
    pub hold: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the gateway held before, with idle connections only, and with a session on each.
    pub held: [Held; 3],
    /// Connections.
    pub count: usize,
    /// Of those, how many were open at the end.
    pub open: usize,
    /// What went wrong.
    pub errors: Errors,
    /// CPU that the gateway used in one second of idleness, in microseconds.
    pub idle_us: f64,
}

/// Opens them, holds them, and closes them.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    let before = process::held(plan.pid)?;
    let mut crowd = Crowd::connect(&plan.target, plan.count, 1)?;
    // The last ones are still in the gateway's backlog.
    let wanted = before.fds + u64::try_from(plan.count).unwrap_or(u64::MAX);
    let accepted = || process::held(plan.pid).ok().filter(|held| wanted <= held.fds);
    let connected = clock::wait_for(Duration::from_secs(5), accepted);
    let connected = connected.map_or_else(|| process::held(plan.pid), Ok)?;
    crowd.open_sessions(plan.at_once)?;
    let body = request::call("echo", r#"{"text":"one"}"#, "1");
    crowd.in_sessions(plan.at_once, &body, |_, answer| match answer.status {
        200 => Ok(()),
        _ => Err(answer.summary()),
    })?;
    let cpu = process::cpu_ns(plan.pid)?;
    clock::pause(plan.hold);
    let idle_ns = process::cpu_ns(plan.pid)?.saturating_sub(cpu);
    let used = process::held(plan.pid)?;
    // Whoever was closed in the meantime has no answer.
    crowd.in_sessions(plan.at_once, &body, |_, answer| match answer.status {
        200 => Ok(()),
        _ => Err(answer.summary()),
    })?;
    Ok(Outcome {
        held: [before, connected, used],
        count: plan.count,
        open: crowd.open_count(),
        errors: crowd.errors,
        idle_us: crate::report::micros(idle_ns) / plan.hold.as_secs_f64().max(0.001),
    })
}

/// For people.
pub fn text(outcome: &Outcome) -> String {
    let mut lines = Vec::new();
    let [before, ..] = outcome.held;
    let moments = ["before", "connected", "one call each"];
    for (when, held) in moments.into_iter().zip(outcome.held) {
        let Held { rss_kib, fds, .. } = held;
        let grown = rss_kib.saturating_sub(before.rss_kib);
        let each = real(grown) / real(u64::try_from(outcome.count.max(1)).unwrap_or(1));
        lines.push(format!(
            "{when:<15}RSS {rss_kib:>8} KiB  fds {fds:>6}  {each:>7.2} KiB per connection"
        ));
    }
    lines.push(format!("idle: {:.0} us of CPU in a second", outcome.idle_us));
    let Outcome { count, open, errors, .. } = outcome;
    lines.push(format!("{open} of {count} connections open at the end, {} errors", errors.count));
    lines.extend(errors.first.iter().map(|error| format!("error: {error}")));
    lines.join("\n")
}
