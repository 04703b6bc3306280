//! The command line.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use super::problem::{COMMAND_LINE, Problem, Refused};
use super::secret::Outside;
use super::source::{OneClient, Overrides, Source, load};
use super::{Config, LogChoice, build, value};

/// Bytes of a configuration or of a secret in a file. What is longer is a mistake.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  mcp-gateway demo
      Try it out: serves a built-in demo server at http://127.0.0.1:8080/mcp
  mcp-gateway run -- npx -y @modelcontextprotocol/server-everything
      Serve a command that speaks MCP on its standard streams
  mcp-gateway run http://127.0.0.1:3001/mcp
      Serve another HTTP server
  mcp-gateway run --config gateway.toml
      Serve everything in a configuration file, each server at /mcp/NAME
  mcp-gateway stdio https://mcp.example.com/mcp
      Let a client that starts commands use an HTTP server: for the client, this is the command
  mcp-gateway check --config gateway.toml
      Check a configuration file and show what it means";

const RUN_USAGE: &str = "\
mcp-gateway run [OPTIONS] --config FILE
       mcp-gateway run [OPTIONS] --mcp-json FILE
       mcp-gateway run [OPTIONS] URL
       mcp-gateway run [OPTIONS] -- COMMAND...";

const RUN_EXAMPLES: &str = "\
Examples:
  mcp-gateway run --config gateway.toml
  mcp-gateway run --config gateway.toml --log json --shards 2
  mcp-gateway run --mcp-json ~/.cursor/mcp.json
  mcp-gateway run http://127.0.0.1:3001/mcp
  mcp-gateway run --listen 127.0.0.1:9000 -- npx -y @modelcontextprotocol/server-everything

Each server is served at http://127.0.0.1:8080/mcp/NAME, and all as one at /mcp.
With `listen.unix` in the file, clients connect to Unix sockets, too.
The exit code is 78 if the configuration is wrong, and 2 if the command line is.
docs/configuration.md describes the configuration file.";

const STDIO_USAGE: &str = "\
mcp-gateway stdio [OPTIONS] --config FILE [--server NAME]
       mcp-gateway stdio [OPTIONS] --mcp-json FILE [--server NAME]
       mcp-gateway stdio [OPTIONS] URL
       mcp-gateway stdio [OPTIONS] -- COMMAND...";

const STDIO_EXAMPLES: &str = "\
Examples:
  mcp-gateway stdio https://mcp.example.com/mcp
  mcp-gateway stdio --config gateway.toml --server files
  mcp-gateway stdio -- npx -y @modelcontextprotocol/server-everything

Serves one client, which speaks on standard input and output: one JSON-RPC message per line. Log
lines go to standard error. Ends when standard input does, once everything is answered; what
takes longer than five seconds is given up.
Of the configuration file, [listen] and `shards` do not count.";

const CHECK_USAGE: &str = "\
mcp-gateway check [OPTIONS] --config FILE
       mcp-gateway check [OPTIONS] --mcp-json FILE
       mcp-gateway check [OPTIONS] URL
       mcp-gateway check [OPTIONS] -- COMMAND...";

const CHECK_EXAMPLES: &str = "\
Examples:
  mcp-gateway check --config gateway.toml
  mcp-gateway check --mcp-json ~/.cursor/mcp.json

Prints what was understood, without secrets, and exits with 0; or prints everything that is
wrong, and exits with 78. Starts nothing. Environment variables and files that the configuration
refers to have to be there.";

const DEMO_EXAMPLES: &str = "\
Examples:
  mcp-gateway demo
  mcp-gateway demo --listen 127.0.0.1:9000

Point a client at http://127.0.0.1:8080/mcp (transport: Streamable HTTP).";

/// A gateway between any MCP client and any MCP server.
#[derive(Debug, Parser)]
#[command(name = "mcp-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    #[command(after_help = RUN_EXAMPLES, override_usage = RUN_USAGE)]
    Run(RunArgs),
    /// Serve one client on standard input and output
    #[command(after_help = STDIO_EXAMPLES, override_usage = STDIO_USAGE)]
    Stdio(StdioArgs),
    /// Check a configuration and show what it means
    #[command(after_help = CHECK_EXAMPLES, override_usage = CHECK_USAGE)]
    Check(RunArgs),
    /// Run the gateway with a built-in demo server
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(OverrideArgs),
    /// The demo server itself, on standard input and output.
    #[command(hide = true)]
    DemoServer,
    /// Watches over child processes; started by the gateway.
    #[command(hide = true)]
    Guard,
}

/// The arguments of `run` and `check`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    overrides: OverrideArgs,
}

/// The arguments of `stdio`.
#[derive(Args, Debug)]
pub struct StdioArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The server for the client [default: the only one]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Where health and metrics are served, or `off` [default: off]
    #[arg(long, value_name = "ADDR|off", value_parser = admin)]
    admin: Option<Admin>,
    /// How log lines look: text, json or off [default: text on a terminal, json otherwise]
    #[arg(long, value_name = "FORMAT", value_parser = value::log)]
    log: Option<LogChoice>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct SourceArgs {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Servers in the `mcpServers` JSON that MCP clients use
    #[arg(long, value_name = "FILE")]
    mcp_json: Option<PathBuf>,
    /// One server: its URL, of Streamable HTTP, WebSocket or the TCP binary protocol
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// One server: a command that speaks MCP on standard input and output
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The arguments that count more than the configuration file.
#[derive(Args, Debug)]
pub struct OverrideArgs {
    /// Where clients connect; can be given several times [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = value::addr)]
    listen: Vec<SocketAddr>,
    /// Where health and metrics are served, or `off` [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR|off", value_parser = admin)]
    admin: Option<Admin>,
    /// How many cores to use [default: all]
    #[arg(long, value_name = "N", value_parser = shards)]
    shards: Option<u16>,
    /// How log lines look: text, json or off [default: text on a terminal, json otherwise]
    #[arg(long, value_name = "FORMAT", value_parser = value::log)]
    log: Option<LogChoice>,
}

/// The admin listener; none: off. (clap reads meaning into an `Option` in an `Option`.)
#[derive(Clone, Copy, Debug)]
struct Admin(Option<SocketAddr>);

fn admin(text: &str) -> Result<Admin, String> {
    value::addr_or_off(text).map(Admin)
}

fn shards(text: &str) -> Result<u16, String> {
    let count = text.parse().ok().filter(|count| (1..=build::SHARDS_MAX).contains(count));
    count.ok_or_else(|| format!("must be a whole number from 1 to {}", build::SHARDS_MAX))
}

impl RunArgs {
    /// Loads the configuration that the arguments name, from this process's environment and files.
    pub fn load(self) -> Result<Config, Refused> {
        load(self.source.named()?, &self.overrides.into(), &outside())
    }
}

impl StdioArgs {
    /// Loads the configuration of a gateway for one client.
    pub fn load(self) -> Result<Config, Refused> {
        let Self { source, server, admin, log } = self;
        let overrides = Overrides {
            admin: admin.map(|Admin(addr)| addr),
            shards: Some(1),
            log,
            one_client: Some(OneClient { server }),
            ..Overrides::default()
        };
        load(source.named()?, &overrides, &outside())
    }
}

impl SourceArgs {
    fn named(self) -> Result<Source, Refused> {
        let Self { config, mcp_json, url, command } = self;
        Ok(match (config, mcp_json, url) {
            (Some(path), _, _) => Source::File(path),
            (None, Some(path), _) => Source::McpJson(path),
            (None, None, Some(url)) if !url.contains("://") => return Err(no_url().into()),
            (None, None, Some(url)) => Source::Url(url),
            (None, None, None) => Source::Command(command),
        })
    }
}

impl OverrideArgs {
    /// Loads the configuration of the demo: one server, which is this program.
    pub fn load_demo(self) -> Result<Config, Refused> {
        let program =
            std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
        let program = program.unwrap_or_else(|| "mcp-gateway".to_owned());
        load(Source::Demo { program }, &self.into(), &outside())
    }
}

impl From<OverrideArgs> for Overrides {
    fn from(args: OverrideArgs) -> Self {
        let OverrideArgs { listen, admin, shards, log } = args;
        let admin = admin.map(|Admin(addr)| addr);
        Self { listen, admin, shards, log, one_client: None }
    }
}

fn no_url() -> Problem {
    Problem {
        source: COMMAND_LINE.to_owned(),
        position: None,
        key: "URL".to_owned(),
        message: "must be a URL such as \"http://127.0.0.1:3001/mcp\"; a file is given with \
                  --config FILE, and a command after --, as in: mcp-gateway run -- npx -y PACKAGE"
            .to_owned(),
    }
}

fn outside() -> Outside<'static> {
    Outside { env: &|name| std::env::var(name), read: &read_file }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let len = file.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len <= FILE_LEN_MAX) {
        Ok(text)
    } else {
        Err(io::Error::other(format!("longer than {FILE_LEN_MAX} bytes")))
    }
}
