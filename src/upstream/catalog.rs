//! The MCP servers behind the gateway, as checked values.
//!
//! Built by `config`, shared by all shards behind one `Arc`, never changed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;
use crate::upstream::view::View;

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
    Http(Transport, Endpoints),
    /// A server by WebSocket.
    WebSocket(Endpoints),
    /// A server, or another gateway, by the TCP binary protocol, version 2; one endpoint. The path
    /// of its URL names a server there.
    Tcp(Endpoints),
    /// Other servers of the catalog, as one.
    View(View),
}

impl Target {
    /// Where it is, if it has a URL.
    pub fn endpoints(&self) -> Option<&Endpoints> {
        match self {
            Self::Stdio(_) | Self::View(_) => None,
            Self::Http(_, endpoints) | Self::WebSocket(endpoints) | Self::Tcp(endpoints) => {
                Some(endpoints)
            }
        }
    }

    /// How the processes of the server are kept, if it has some.
    pub fn upkeep(&self) -> Option<Upkeep> {
        match self {
            Self::Stdio(command) => Some(command.upkeep),
            Self::Http(Transport::Http, _) | Self::View(_) => None,
            Self::Http(Transport::Sse | Transport::Auto, endpoints)
            | Self::WebSocket(endpoints)
            | Self::Tcp(endpoints) => Some(endpoints.first.upkeep),
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

/// Where a server is that has URLs: one or more, which are as good as each other.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// One that is there in any case.
    pub first: Endpoint,
    others: Vec<Endpoint>,
    /// How they share the work.
    pub balance: Balance,
}

impl Endpoints {
    /// These endpoints; none if there are none. At most [`limits::ENDPOINTS_MAX`].
    pub fn new(mut all: Vec<Endpoint>, balance: Balance) -> Option<Self> {
        let others = all.split_off(all.len().min(1));
        Some(Self { first: all.pop()?, others, balance })
    }

    /// The endpoint of that id.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        match usize::from(id.0).checked_sub(1) {
            None => Some(&self.first),
            Some(index) => self.others.get(index),
        }
    }

    /// All of them with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0..).map(EndpointId).zip(std::iter::once(&self.first).chain(&self.others))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.others.len() + 1
    }
}

impl From<Endpoint> for Endpoints {
    fn from(first: Endpoint) -> Self {
        Self { first, others: Vec::new(), balance: Balance::RoundRobin }
    }
}

/// An endpoint's place in its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u16);

impl EndpointId {
    /// Its bit in a set of endpoints.
    pub fn bit(self) -> u64 {
        1_u64.checked_shl(self.0.into()).unwrap_or_default()
    }
}

const _: () = assert!(limits::ENDPOINTS_MAX <= 64, "a set of endpoints has a bit for each");

/// How endpoints share the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    RoundRobin,
    /// Who has least to do is next.
    LeastInFlight,
    /// In turn, so often each in a round. In the order of the endpoints.
    Weighted(Vec<u32>),
    /// A session decides by its id (rendezvous hashing).
    ConsistentHash,
}

/// One place where a server is.
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

/// All servers, in the order of the configuration, and the views of them behind.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    servers: Vec<Server>,
    /// How many of them are real.
    real: usize,
    /// For each real server, the view that clients get who name it.
    views: Vec<Option<ServerId>>,
    /// What `/mcp` is.
    root: Option<ServerId>,
}

impl Catalog {
    /// A catalog of these servers. Names are distinct. If there is only one, it is at `/mcp`.
    pub fn new(servers: Vec<Server>) -> Self {
        let (real, root) = (servers.len(), (servers.len() == 1).then_some(ServerId(0)));
        Self { views: vec![None; real], servers, real, root }
    }

    /// Serves this view in place of one of its servers, or, without one, at `/mcp`. Names of views
    /// are for the log.
    pub fn add_view(&mut self, of: Option<ServerId>, name: String, view: View) {
        let Ok(index) = u16::try_from(self.servers.len()) else { return };
        let id = ServerId(index);
        self.servers.push(Server { name, target: Target::View(view), request_timeout: None });
        match of.and_then(|of| self.views.get_mut(usize::from(of.0))) {
            Some(place) => {
                *place = Some(id);
                self.root = self.root.map(|root| if Some(root) == of { id } else { root });
            }
            None => self.root = Some(id),
        }
    }

    /// What clients get who name this server.
    pub fn find(&self, name: &str) -> Option<ServerId> {
        let (id, _) = self.servers().find(|(_, server)| server.name == name)?;
        Some(self.views.get(usize::from(id.0)).copied().flatten().unwrap_or(id))
    }

    /// The server of that id.
    pub fn get(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(usize::from(id.0))
    }

    /// What `/mcp` is: the only server, or the view of all.
    pub fn root(&self) -> Option<ServerId> {
        self.root
    }

    /// The view of that id, if it is one.
    pub fn view(&self, id: ServerId) -> Option<&View> {
        match &self.get(id)?.target {
            Target::View(view) => Some(view),
            Target::Stdio(_) | Target::Http(..) | Target::WebSocket(_) | Target::Tcp(_) => None,
        }
    }

    /// The real servers with their ids.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.iter().take(self.real)
    }

    /// All servers with their ids, views included.
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
