//! The program: turns results into an exit code, and does nothing else.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use mcp_bridge::config::args::{Cli, Command};
use mcp_bridge::config::{Config, Problem, Refused};
use mcp_bridge::{control, demo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h.
const WRONG_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Also `--help` and `--version`, which go to standard output with exit code 0.
        Err(err) => {
            let code = u8::try_from(err.exit_code()).unwrap_or(2);
            return if err.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    match cli.command {
        Command::Run(args) => run(args.load()),
        Command::Stdio(args) => run(args.load()),
        Command::Demo(args) => demo(args.load_demo()),
        Command::Check(args) => check(args.load()),
        Command::DemoServer => demo_server(),
        Command::Guard => control::guard::run(),
    }
}

fn run(loaded: Result<Config, Refused>) -> ExitCode {
    match loaded {
        Ok(config) => {
            complain("warning", &config.warnings);
            control::run(config)
        }
        Err(refused) => refuse(&refused),
    }
}

/// A gateway with the built-in server behind it, and a request to try on it.
fn demo(loaded: Result<Config, Refused>) -> ExitCode {
    if let Some(addr) = loaded.as_ref().ok().and_then(|config| config.listen.first()) {
        let headers = "-H 'Content-Type: application/json' \
             -H 'Accept: application/json, text/event-stream' \
             -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: add'";
        let body = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":\
             {\"name\":\"add\",\"arguments\":{\"a\":19,\"b\":23},\"_meta\":\
             {\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
             \"io.modelcontextprotocol/clientCapabilities\":{}}}}";
        say(format_args!("Connect an MCP client (Streamable HTTP) to http://{addr}/mcp, or try:"));
        say(format_args!("\n  curl -s http://{addr}/mcp {headers} -d '{body}'\n"));
    }
    run(loaded)
}

fn check(loaded: Result<Config, Refused>) -> ExitCode {
    match loaded {
        Ok(config) => {
            complain("warning", &config.warnings);
            // A reader that went away has seen what it wanted.
            let _gone = write!(io::stdout(), "{config}");
            ExitCode::SUCCESS
        }
        Err(refused) => refuse(&refused),
    }
}

fn demo_server() -> ExitCode {
    match demo::serve_stdio() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say(format_args!("error: the demo server cannot start: {err}"));
            ExitCode::FAILURE
        }
    }
}

fn refuse(refused: &Refused) -> ExitCode {
    complain("warning", &refused.warnings);
    complain("error", &refused.problems);
    let count = refused.problems.len();
    let plural = if count == 1 { "problem" } else { "problems" };
    say(format_args!("{count} {plural} in the configuration"));
    ExitCode::from(WRONG_CONFIG)
}

fn complain(kind: &str, problems: &[Problem]) {
    for problem in problems {
        say(format_args!("{kind}: {problem}"));
    }
}

fn say(line: impl Display) {
    // Without standard error there is nobody to tell.
    let _gone = writeln!(io::stderr(), "{line}");
}
