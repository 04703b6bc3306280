//! The command line of the load tests.
#![forbid(unsafe_code)]

mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use args::{CallArgs, Cli, Command, CompareArgs, ConnectionsArgs, Eras, ServeArgs, SessionsArgs};
use loadtest::call::{Burst, Load, Options};
use loadtest::peers::Peer;
use loadtest::request::Era;
use loadtest::server::{Server, Style};
use loadtest::target::Target;
use loadtest::{compare, connections, process, sessions};

/// Bursts before a measurement, so that caches and pools are full.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    process::raise_files();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Call(args) => call(&args),
        Command::Compare(args) => run_compare(&args),
        Command::Sessions(args) => run_sessions(&args),
        Command::Connections(args) => run_connections(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Whoever does not read on has read enough.
    drop(writeln!(io::stdout(), "{text}"));
}

fn serve(args: &ServeArgs) -> io::Result<bool> {
    let style = if args.events { Style::Events } else { Style::Json };
    let server = Server::start(args.listen, args.threads, style)?;
    say(&format!("fake MCP server at {}", Target::at(server.addr()).url()));
    server.wait().map(|()| true)
}

fn call(args: &CallArgs) -> io::Result<bool> {
    let options = Options {
        targets: args.target.clone(),
        era: args.era.into(),
        connections: args.connections,
        sessions: args.sessions.unwrap_or(args.connections),
        message_len: args.message,
    };
    let pids: Vec<_> = args.pid.iter().map(|watched| watched.pid).collect();
    let mut load = Load::open(&options)?;
    load.burst(WARM_UP, &pids)?;
    let burst = load.burst(Duration::from_secs_f64(args.seconds), &pids)?;
    let body_len = load.body_len();
    load.close()?;
    say(&if args.json { call_json(args, &burst) } else { call_text(args, &burst, body_len) });
    Ok(burst.errors == 0 && burst.requests != 0)
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

fn call_text(args: &CallArgs, burst: &Burst, body_len: usize) -> String {
    let Burst { requests, errors, latency, .. } = burst;
    let mut lines = vec![format!(
        "{requests} calls of {body_len} bytes, {errors} errors, {:.0} calls/s",
        burst.rate()
    )];
    lines.extend(burst.first_error.iter().map(|error| format!("first error: {error}")));
    let quantile = |(name, at): (&str, f64)| format!("{name} {} us", latency.value_at_quantile(at));
    lines.push(QUANTILES.map(quantile).join("  "));
    for (index, watched) in args.pid.iter().enumerate() {
        lines.push(format!("{}: {:.2} us of CPU per call", watched.name, burst.cpu_us(index)));
    }
    lines.join("\n")
}

fn call_json(args: &CallArgs, burst: &Burst) -> String {
    let Burst { requests, errors, latency, .. } = burst;
    let quantile =
        |(name, at): (&str, f64)| format!(r#""{name}_us":{}"#, latency.value_at_quantile(at));
    let cpu = |(index, watched): (usize, &args::Watched)| {
        format!(r#""{}":{:.4}"#, watched.name, burst.cpu_us(index))
    };
    let cpu: Vec<_> = args.pid.iter().enumerate().map(cpu).collect();
    format!(
        r#"{{"requests":{requests},"errors":{errors},"req_per_s":{:.1},{},"cpu_us":{{{}}}}}"#,
        burst.rate(),
        QUANTILES.map(quantile).join(","),
        cpu.join(",")
    )
}

fn run_compare(args: &CompareArgs) -> io::Result<bool> {
    let eras = match args.era {
        Eras::Legacy => &[Era::Legacy][..],
        Eras::Modern => &[Era::Modern],
        Eras::Both => &[Era::Legacy, Era::Modern],
    };
    let mut is_good = true;
    for era in eras {
        let outcome = compare::compare(&compare::Plan {
            gateway: args.gateway.clone(),
            era: *era,
            connections: args.connections,
            message_len: args.message,
            rounds: args.rounds,
            burst: Duration::from_secs_f64(args.seconds),
        })?;
        say(&if args.json { compare::json(&outcome) } else { compare::text(&outcome) });
        if let Some(max) = args.max_ratio.filter(|max| *max < outcome.ratio()) {
            is_good = false;
            if !args.json {
                say(&format!("FAILED: the median is above {max}"));
            }
        }
    }
    Ok(is_good)
}

fn run_sessions(args: &SessionsArgs) -> io::Result<bool> {
    let idle_timeout = Duration::from_secs(args.idle_timeout);
    let (mut peer, server) = match &args.gateway {
        None => (None, None),
        Some(program) => {
            let server = Server::start(([127, 0, 0, 1], 0).into(), 1, Style::Json)?;
            let peer = Peer::configured(program, &config(args, &Target::at(server.addr())))?;
            (Some(peer), Some(server))
        }
    };
    let (target, admin, pid) = match &peer {
        Some(peer) => (Some(peer.target.clone()), peer.admin, Some(peer.pid())),
        None => (args.url.clone(), args.admin, args.pid),
    };
    let missing = || io::Error::other("give --gateway, or --url and --admin");
    let outcome = sessions::run(&sessions::Plan {
        target: target.ok_or_else(missing)?,
        admin: admin.ok_or_else(missing)?,
        pid,
        sessions: args.sessions,
        per_session: args.connections.max(2),
        slow_sessions: args.slow_sessions.unwrap_or(args.sessions),
        rounds: args.rounds,
        cycles: args.cycles,
        idle_timeout,
        checks_backend: args.gateway.is_some() && args.command.is_empty(),
    })?;
    say(&sessions::text(&outcome));
    let mut is_good = outcome.is_good();
    if let Some(peer) = &mut peer
        && let Err(error) = peer.stop()
    {
        say(&format!("the gateway: {error}"));
        is_good = false;
    }
    if let Some(server) = server.filter(|_| args.command.is_empty()) {
        say(&format!("{} sessions of the server were left open", server.sessions()));
        is_good &= server.sessions() == 0;
    }
    Ok(is_good)
}

/// The configuration of a gateway whose abandoned sessions and idle processes end soon.
fn config(args: &SessionsArgs, server: &Target) -> String {
    let idle = args.idle_timeout;
    let sessions = format!("[sessions]\nidle_timeout = \"{idle}s\"\n");
    let shards = args.shards.map(|shards| format!("\nshards = {shards}\n")).unwrap_or_default();
    let server = if args.command.is_empty() {
        let url = server.url();
        format!("[servers.load]\nurl = \"{url}\"\nrequest_timeout = \"{}s\"\n", idle + 2)
    } else {
        let (command, isolation) = (&args.command, args.isolation.as_str());
        let processes = args.sessions.max(1);
        format!(
            "[servers.load]\ncommand = {command:?}\nisolation = \"{isolation}\"\n\
             processes = {processes}\nidle_timeout = \"{idle}s\"\n"
        )
    };
    [shards, sessions, server].concat()
}

fn run_connections(args: &ConnectionsArgs) -> io::Result<bool> {
    let server = Server::start(([127, 0, 0, 1], 0).into(), 1, Style::Json)?;
    let peer = args.gateway.as_ref();
    let peer =
        peer.map(|program| Peer::gateway(program, &Target::at(server.addr()))).transpose()?;
    let (target, pid) = match &peer {
        Some(peer) => (Some(peer.target.clone()), Some(peer.pid())),
        None => (args.url.clone(), args.pid),
    };
    let missing = || io::Error::other("give --gateway, or --url and --pid");
    let outcome = connections::run(&connections::Plan {
        target: target.ok_or_else(missing)?,
        pid: pid.ok_or_else(missing)?,
        count: args.count,
        at_once: args.at_once,
        hold: Duration::from_secs_f64(args.seconds),
    })?;
    say(&connections::text(&outcome));
    Ok(outcome.errors.count == 0 && outcome.open == outcome.count)
}
