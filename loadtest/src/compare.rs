//! The gateway against HAProxy: the same load through both in turn, in front of the same server.
//!
//! The machine is shared and changes its speed from minute to minute, so only CPU per request is
//! compared, and only between bursts that follow each other: the ratio of each round, and its
//! median. Load and server stay on one core, the proxies on another.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::call::{Burst, Load, Options};
use crate::peers::Peer;
use crate::process;
use crate::report::{least, median};
use crate::request::Era;
use crate::server::{Server, Style};
use crate::target::Target;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gateway's program.
    pub gateway: PathBuf,
    /// Which kind of requests.
    pub era: Era,
    /// Connections.
    pub connections: usize,
    /// Bytes in a request's body.
    pub message_len: usize,
    /// Bursts of each.
    pub rounds: usize,
    /// How long each takes.
    pub burst: Duration,
}

/// One way to the server.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// `direct`, `haproxy` or `gateway`.
    pub name: &'static str,
    /// CPU per request of each round, in microseconds: of the proxy; or of load and server.
    pub cpu_us: Vec<f64>,
    /// Requests per second of each round.
    pub rates: Vec<f64>,
    /// Half the requests took less, in microseconds, of each round.
    pub p50_us: Vec<f64>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which kind of requests.
    pub era: Era,
    /// Bytes in each body.
    pub body_len: usize,
    /// Straight to the server, through HAProxy, through the gateway.
    pub rows: [Row; 3],
    /// Gateway to HAProxy, of each round.
    pub ratios: Vec<f64>,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// The median ratio.
    pub fn ratio(&self) -> f64 {
        median(&self.ratios)
    }
}

/// Starts everything, measures, and stops everything.
pub fn compare(plan: &Plan) -> io::Result<Outcome> {
    let cores = process::cores()?;
    let mut warnings = Vec::new();
    let (ours, theirs) = match *cores {
        [first, .., last] => (first, last),
        _ => {
            warnings.push("there is only one core: load and proxies compete for it".to_owned());
            let only = cores.first().copied().unwrap_or(0);
            (only, only)
        }
    };
    // What is started keeps the cores of the thread that starts it.
    process::pin(&[ours])?;
    let server = Server::start(([127, 0, 0, 1], 0).into(), 1, Style::Json)?;
    let direct = Target::at(server.addr());
    process::pin(&[theirs])?;
    let haproxy = Peer::haproxy(server.addr())?;
    let gateway = Peer::gateway(&plan.gateway, &direct)?;
    process::pin(&[ours])?;
    for (name, pid) in [("haproxy", haproxy.pid()), ("gateway", gateway.pid())] {
        if process::strays(pid, theirs)? != 0 {
            warnings.push(format!("{name} has threads that are not pinned to core {theirs}"));
        }
    }
    let mut ways = [
        Way::open("direct", plan, direct, std::process::id())?,
        Way::open("haproxy", plan, haproxy.target.clone(), haproxy.pid())?,
        Way::open("gateway", plan, gateway.target.clone(), gateway.pid())?,
    ];
    let measured = measure(plan, &mut ways);
    process::pin(&cores)?;
    let ratios = measured?;
    let body_len = ways.first().map_or(0, |way| way.load.body_len());
    Ok(Outcome { era: plan.era, body_len, rows: ways.map(|way| way.row), ratios, warnings })
}

struct Way {
    row: Row,
    load: Load,
    pid: u32,
}

impl Way {
    fn open(name: &'static str, plan: &Plan, target: Target, pid: u32) -> io::Result<Self> {
        let load = Load::open(&Options {
            targets: vec![target],
            era: plan.era,
            connections: plan.connections,
            sessions: plan.connections,
            message_len: plan.message_len,
        })?;
        Ok(Self { row: Row { name, ..Row::default() }, load, pid })
    }

    fn burst(&mut self, time: Duration) -> io::Result<Burst> {
        let burst = self.load.burst(time, &[self.pid])?;
        match &burst.first_error {
            None => Ok(burst),
            Some(why) => {
                let text = format!("{}: {} errors, first: {why}", self.row.name, burst.errors);
                Err(io::Error::other(text))
            }
        }
    }

    fn measure(&mut self, time: Duration) -> io::Result<f64> {
        let burst = self.burst(time)?;
        let cpu_us = burst.cpu_us(0);
        self.row.cpu_us.push(cpu_us);
        self.row.rates.push(burst.rate());
        let p50 = burst.latency.value_at_quantile(0.5);
        self.row.p50_us.push(crate::report::real(p50));
        Ok(cpu_us)
    }
}

fn measure(plan: &Plan, ways: &mut [Way; 3]) -> io::Result<Vec<f64>> {
    for way in &mut *ways {
        way.burst(plan.burst)?;
    }
    let [direct, haproxy, gateway] = ways;
    let mut ratios = Vec::new();
    for round in 0..plan.rounds {
        direct.measure(plan.burst / 4)?;
        // Each goes first as often as the other.
        let (first, second) = if round % 2 == 0 {
            let first = haproxy.measure(plan.burst)?;
            (first, gateway.measure(plan.burst)?)
        } else {
            let second = gateway.measure(plan.burst)?;
            (haproxy.measure(plan.burst)?, second)
        };
        ratios.push(second / first);
    }
    Ok(ratios)
}

/// For people.
pub fn text(outcome: &Outcome) -> String {
    let mut lines = vec![
        format!("tools/call, {}, bodies of {} bytes", outcome.era, outcome.body_len),
        format!(
            "{:<9}{:>14}{:>14}{:>12}{:>12}",
            "", "us/req min", "us/req median", "req/s", "p50 us"
        ),
    ];
    for row in &outcome.rows {
        let Row { name, cpu_us, rates, p50_us } = row;
        lines.push(format!(
            "{name:<9}{:>14.2}{:>14.2}{:>12.0}{:>12.0}",
            least(cpu_us),
            median(cpu_us),
            median(rates),
            median(p50_us)
        ));
    }
    lines.push("(CPU of the proxy process; of direct: load and server together)".to_owned());
    let ratios: Vec<_> = outcome.ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    lines.push(format!("gateway/haproxy by round: {}", ratios.join(" ")));
    lines.push(format!("gateway/haproxy median: {:.3}", outcome.ratio()));
    lines.extend(outcome.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

/// For programs: one JSON object.
pub fn json(outcome: &Outcome) -> String {
    let list = |values: &[f64]| {
        let texts: Vec<_> = values.iter().map(|value| format!("{value:.4}")).collect();
        format!("[{}]", texts.join(","))
    };
    let rows: Vec<_> = outcome
        .rows
        .iter()
        .map(|row| {
            let Row { name, cpu_us, rates, p50_us } = row;
            let (cpu, rates, p50) = (list(cpu_us), list(rates), list(p50_us));
            format!(r#""{name}":{{"cpu_us":{cpu},"req_per_s":{rates},"p50_us":{p50}}}"#)
        })
        .collect();
    format!(
        r#"{{"era":"{}","body_bytes":{},{},"ratios":{},"ratio":{:.4},"warnings":{}}}"#,
        outcome.era,
        outcome.body_len,
        rows.join(","),
        list(&outcome.ratios),
        outcome.ratio(),
        outcome.warnings.len()
    )
}
