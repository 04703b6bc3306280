//! What can be said on the command line.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use loadtest::request::Era;
use loadtest::target::Target;

/// Load on an MCP gateway.
#[derive(Debug, Parser)]
#[command(name = "loadtest", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the fake MCP server
    Serve(ServeArgs),
    /// Call a tool over and over, on many connections
    Call(CallArgs),
    /// Measure CPU per call of the gateway and of HAProxy
    Compare(CompareArgs),
    /// Check that many sessions at once are not mixed up and leave nothing behind
    Sessions(SessionsArgs),
    /// Measure the memory of many idle connections
    Connections(ConnectionsArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3001")]
    pub(crate) listen: SocketAddr,
    /// Threads that serve
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Answer with event streams
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OneEra {
    /// Sessions, 2025-11-25
    Legacy,
    /// No sessions, 2026-07-28
    Modern,
}

impl From<OneEra> for Era {
    fn from(era: OneEra) -> Self {
        match era {
            OneEra::Legacy => Self::Legacy,
            OneEra::Modern => Self::Modern,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// MCP endpoints
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL")]
    pub(crate) target: Vec<Target>,
    /// Connections, over all targets
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Sessions, over all targets [default: one for each connection]
    #[arg(long)]
    pub(crate) sessions: Option<usize>,
    /// How long
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Bytes in each request's body
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub(crate) message: usize,
    /// The kind of requests
    #[arg(long, value_enum, default_value_t = OneEra::Legacy)]
    pub(crate) era: OneEra,
    /// Processes whose CPU time is reported
    #[arg(long, value_name = "NAME=PID")]
    pub(crate) pid: Vec<Watched>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A process with a name for the report.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl FromStr for Watched {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || io::Error::other("must be NAME=PID");
        let (name, pid) = text.split_once('=').ok_or_else(wrong)?;
        let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        let pid = pid.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Eras {
    /// Sessions, 2025-11-25
    Legacy,
    /// No sessions, 2026-07-28
    Modern,
    /// One after the other
    Both,
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The gateway's program
    #[arg(long, default_value = "target/release/mcp-gateway", value_name = "PATH")]
    pub(crate) gateway: PathBuf,
    /// The kind of requests
    #[arg(long, value_enum, default_value_t = Eras::Legacy)]
    pub(crate) era: Eras,
    /// Connections
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Bytes in each request's body
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub(crate) message: usize,
    /// Bursts of each
    #[arg(long, default_value_t = 8)]
    pub(crate) rounds: usize,
    /// Seconds of each burst
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Fail if the median of gateway/HAProxy is above this
    #[arg(long, value_name = "RATIO")]
    pub(crate) max_ratio: Option<f64>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Isolation {
    /// A process for each session
    Session,
    /// One process on each shard
    Shared,
}

impl Isolation {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Shared => "shared",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct SessionsArgs {
    /// The gateway's program, to be started with a configuration for this test
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub(crate) gateway: Option<PathBuf>,
    /// A running gateway
    #[arg(long)]
    pub(crate) url: Option<Target>,
    /// The running gateway's admin address
    #[arg(long)]
    pub(crate) admin: Option<SocketAddr>,
    /// The running gateway's process
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Sessions at the same time
    #[arg(long, default_value_t = 1000)]
    pub(crate) sessions: usize,
    /// Connections of each session, two or more
    #[arg(long, default_value_t = 2)]
    pub(crate) connections: usize,
    /// Sessions that call `progress` at the same time; one process of the demo server allows 32
    /// [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) slow_sessions: Option<usize>,
    /// How often each session uses all ids
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// How often everything is done
    #[arg(long, default_value_t = 3)]
    pub(crate) cycles: usize,
    /// Seconds after which the gateway ends an abandoned session
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) idle_timeout: u64,
    /// Shards of the gateway [default: one for each core]
    #[arg(long)]
    pub(crate) shards: Option<u16>,
    /// Which sessions share a process of the command
    #[arg(long, value_enum, default_value_t = Isolation::Shared)]
    pub(crate) isolation: Isolation,
    /// What the gateway starts; none: the fake HTTP server is behind it
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ConnectionsArgs {
    /// The gateway's program, to be started in front of the fake server
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub(crate) gateway: Option<PathBuf>,
    /// A running gateway
    #[arg(long)]
    pub(crate) url: Option<Target>,
    /// The running gateway's process
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Connections, with a session on each
    #[arg(long, default_value_t = 9000)]
    pub(crate) count: usize,
    /// Requests on the way at the same time
    #[arg(long, default_value_t = 500)]
    pub(crate) at_once: usize,
    /// Seconds that the connections stay idle
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
}
