//! The MCP servers behind the gateway, as checked values.
//!
//! Built by `config`, shared by all shards behind one `Arc`, never changed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;

/// A server's place in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u16);

/// One MCP server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name: the last part of `/mcp/{name}`. `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// How it is reached.
    pub target: Target,
    /// Time it may take to answer a request; progress starts it again. None without a limit.
    pub request_timeout: Option<Duration>,
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum Target {
    /// A child process that speaks newline-delimited JSON-RPC on its standard streams.
    Stdio(Command),
    /// An HTTP server.
    Http(Transport, Endpoint),
    /// A server by WebSocket.
    WebSocket(Endpoint),
    /// A server, or another gateway, by the TCP binary protocol, version 2. The path of its URL
    /// names a server there.
    Tcp(Endpoint),
}

impl Target {
    /// How the processes of the server are kept, if it has some.
    pub fn upkeep(&self) -> Option<Upkeep> {
        match self {
            Self::Stdio(command) => Some(command.upkeep),
            Self::Http(Transport::Http, _) => None,
            Self::Http(Transport::Sse | Transport::Auto, endpoint)
            | Self::WebSocket(endpoint)
            | Self::Tcp(endpoint) => Some(endpoint.upkeep),
        }
    }
}

/// What an HTTP server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE (2024-11-05).
    Sse,
    /// One of the two: the server shows which.
    Auto,
}

/// How processes are kept, or what stands in their place: the streams of an HTTP+SSE server, the
/// connections to one by WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    /// Which clients share one.
    pub isolation: Isolation,
    /// Time from start to the answer to `initialize`.
    pub start_timeout: Duration,
    /// Time without a session or request after which it is stopped.
    pub idle_timeout: Duration,
    /// Time a process has to exit before it is signalled, and again before it is killed.
    pub stop_grace: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            isolation: Isolation::Session,
            start_timeout: limits::START_TIMEOUT,
            idle_timeout: limits::PROCESS_IDLE_TIMEOUT,
            stop_grace: limits::STOP_GRACE,
        }
    }
}

/// Which clients share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each session has a process of its own.
    Session,
    /// All sessions of a shard share one process.
    Shared,
}

/// A command to run as a child process.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, looked up in `PATH`.
    pub program: String,
    /// Its arguments, passed as they are; there is no shell.
    pub args: Vec<String>,
    /// Variables besides the allow-list (see `control::process`).
    pub env: Vec<(String, Secret)>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Processes of this server, over all shards.
    pub processes_max: usize,
    /// Processes and threads of each of them, itself included.
    pub tasks_max: u32,
    /// How they are kept.
    pub upkeep: Upkeep,
}

/// Where a server is that has a URL.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Whether the connection is TLS (`https`, `wss`, `tcps`).
    pub tls: bool,
    /// Host name or address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What goes into `Host`: the host as written, with the port unless it is the scheme's own.
    pub authority: String,
    /// Path and query: the request target. Begins with `/`.
    pub target: String,
    /// Headers added to every request. Names are tokens and values are field values (checked).
    pub headers: Vec<(String, Secret)>,
    /// Connections one shard keeps to it at most.
    pub conns_max: usize,
    /// How its streams or connections are kept, if they stand in the place of processes.
    pub upkeep: Upkeep,
}

/// All servers, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    servers: Vec<Server>,
}

impl Catalog {
    /// A catalog of these servers. Names are distinct.
    pub fn new(servers: Vec<Server>) -> Self {
        Self { servers }
    }

    /// The server of that name.
    pub fn find(&self, name: &str) -> Option<ServerId> {
        self.iter().find(|(_, server)| server.name == name).map(|(id, _)| id)
    }

    /// The server of that id.
    pub fn get(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(usize::from(id.0))
    }

    /// The only server, if there is only one: what `/mcp` means then.
    pub fn only(&self) -> Option<ServerId> {
        (self.servers.len() == 1).then_some(ServerId(0))
    }

    /// All servers with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        (0..).map(ServerId).zip(&self.servers)
    }
}

/// Text that must not appear in logs, errors or dumps.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
