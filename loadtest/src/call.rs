//! A closed loop of `tools/call`: each connection sends its next request when it has the answer.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wire::rpc::{self, Kind};

use crate::client::Client;
use crate::clock;
use crate::engine::{Engine, Script};
use crate::inbox::Answer;
use crate::process;
use crate::report::{micros, real};
use crate::request::{self, Echo, Era};
use crate::target::Target;

/// How long an answer may take before a burst fails.
const PATIENCE: Duration = Duration::from_secs(20);
const RPC_LIMITS: rpc::Limits = rpc::Limits { depth_max: 64, len_max: 64 * 1024 * 1024 };
/// Latencies above this count as this.
const LATENCY_MAX_US: u64 = 60_000_000;

/// What load there is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where; connections go to them in turn.
    pub targets: Vec<Target>,
    /// The kind of requests.
    pub era: Era,
    /// Connections, over all targets.
    pub connections: usize,
    /// Sessions, over all targets; connections use them in turn.
    pub sessions: usize,
    /// Bytes in a request's body.
    pub message_len: usize,
}

/// Open connections with everything they say.
pub struct Load {
    engine: Engine,
    lines: Vec<Line>,
    clients: Vec<Client>,
}

/// What one connection does.
struct Line {
    echo: Echo,
    number: u64,
}

/// What came of a burst.
#[derive(Clone, Debug)]
pub struct Burst {
    /// Requests with a right answer.
    pub requests: u64,
    /// Requests with a wrong one, or none.
    pub errors: u64,
    /// What the first error was.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// CPU nanoseconds of the processes that were watched.
    pub cpu_ns: Vec<u64>,
}

impl Burst {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        real(self.requests) / self.elapsed.as_secs_f64()
    }

    /// CPU microseconds of a watched process for each request.
    pub fn cpu_us(&self, index: usize) -> f64 {
        let ns = self.cpu_ns.get(index).copied().unwrap_or(0);
        micros(ns) / real(self.requests.max(1))
    }
}

impl Load {
    /// Opens the sessions and the connections.
    pub fn open(options: &Options) -> io::Result<Self> {
        let mut engine = Engine::new()?;
        let mut lines = Vec::new();
        let mut clients = Vec::new();
        if options.era == Era::Legacy {
            for (_, target) in (0..options.sessions).zip(options.targets.iter().cycle()) {
                let mut client = Client::open(target.clone())?;
                client.initialize(request::LEGACY)?;
                clients.push(client);
            }
        }
        for (index, target) in (0..options.connections).zip(options.targets.iter().cycle()) {
            engine.connect(target.addr)?;
            // Sessions were opened in the same turn, so those of this target are every n-th.
            let sessions: Vec<_> = clients
                .iter()
                .skip(index % options.targets.len())
                .step_by(options.targets.len())
                .collect();
            let turn = index / options.targets.len();
            let session = sessions.get(turn % sessions.len().max(1));
            let session = session.and_then(|client| client.session());
            let echo = Echo::new(target, options.era, session, options.message_len);
            lines.push(Line { echo, number: 0 });
        }
        Ok(Self { engine, lines, clients })
    }

    /// Bytes in each body.
    pub fn body_len(&self) -> usize {
        self.lines.first().map_or(0, |line| line.echo.body_len())
    }

    /// Keeps all connections busy for a time, then waits for what is still due.
    pub fn burst(&mut self, time: Duration, watched: &[u32]) -> io::Result<Burst> {
        let before = cpu_of(watched)?;
        let started = clock::now();
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map_err(io::Error::other)?;
        let mut script = Loop {
            lines: &mut self.lines,
            until: started + time,
            latency,
            requests: 0,
            errors: 0,
            first_error: None,
        };
        let conns = 0..self.engine.count();
        self.engine.run(conns, &mut script, PATIENCE)?;
        let elapsed = clock::now().duration_since(started);
        let cpu_ns = cpu_of(watched)?.iter().zip(before).map(|(now, then)| now - then).collect();
        let Loop { latency, requests, errors, first_error, .. } = script;
        Ok(Burst { requests, errors, first_error, elapsed, latency, cpu_ns })
    }

    /// Ends the sessions.
    pub fn close(self) -> io::Result<()> {
        drop(self.engine);
        for client in self.clients {
            // Its own connection has been idle for long; the other side may have closed it.
            client.another()?.delete()?;
        }
        Ok(())
    }
}

fn cpu_of(watched: &[u32]) -> io::Result<Vec<u64>> {
    watched.iter().map(|pid| process::cpu_ns(*pid)).collect()
}

struct Loop<'a> {
    lines: &'a mut [Line],
    until: Instant,
    latency: Histogram<u64>,
    requests: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Script for Loop<'_> {
    fn next(&mut self, conn: usize, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some(line) = self.lines.get_mut(conn) else { return false };
        if self.until <= now {
            return false;
        }
        line.number += 1;
        line.echo.write(out, conn, line.number);
        true
    }

    fn answered(&mut self, conn: usize, answer: &Answer, took: Duration) {
        let number = self.lines.get(conn).map_or(0, |line| line.number);
        if is_echo(answer, conn, number) {
            self.requests += 1;
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.latency.saturating_record(us);
        } else {
            self.failed(conn, &answer.summary());
        }
    }

    fn failed(&mut self, _conn: usize, why: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| why.to_owned());
    }
}

/// Whether this is the answer to that request and no other.
fn is_echo(answer: &Answer, conn: usize, number: u64) -> bool {
    let mut is_right = false;
    answer.each_message(|message| {
        let Ok(envelope) = rpc::scan(message, RPC_LIMITS) else { return };
        let has_id = envelope.id.is_some_and(|id| id.get(message) == request::id_text(number));
        let result = envelope.result.map(|result| result.get(message)).unwrap_or_default();
        let has_tag = memchr::memmem::find(result, &request::tag(conn, number)).is_some();
        is_right |= envelope.kind == Kind::Response && has_id && has_tag;
    });
    answer.status == 200 && is_right
}
