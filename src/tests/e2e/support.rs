//! Programs for tests: found, started, awaited and stopped.
//!
//! Every program is the leader of a process group of its own, which dies with its [`Process`].
//! Nothing waits longer than [`PATIENCE`] without being told so, and what a program wrote last
//! is printed where its test fails.

use std::env::current_exe;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{panicking, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// How long anything may take that is not known to take longer: generous, for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at something that tells nobody when it changes.
const GLANCE: Duration = Duration::from_millis(10);

/// How long a program has to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// How much of what a program wrote is printed where its test fails.
const TAIL_LINES: usize = 40;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An example of this package, such as `conformance_server`.
pub(crate) fn example(name: &str) -> PathBuf {
    // The test is target/PROFILE/deps/e2e-HASH.
    let test = current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// A file that `.ci/peers` installed, such as `py1/bin/python`.
pub(crate) fn peer(path: &str) -> PathBuf {
    let path = root().join(".peers").join(path);
    assert!(path.exists(), "{} is missing: run `.ci/peers`", path.display());
    path
}

/// Node 22, which runs every JavaScript peer.
pub(crate) fn node22() -> Command {
    Command::new(peer("node_modules/node/bin/node"))
}

/// A port for a program that cannot choose one itself. Below the range from which the kernel gives
/// ports to everybody else, and a different one for each that asks.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset =
            std::process::id().wrapping_mul(97) % COUNT + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + offset % COUNT).unwrap();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `look` sees something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(GLANCE);
    }
}

/// A program that a test started.
pub(crate) struct Process {
    name: String,
    child: Child,
    /// What it writes to stdout and stderr, line by line; closed when it closes both.
    lines: Receiver<String>,
    /// What of that was looked at.
    seen: Vec<String>,
}

impl Process {
    /// Starts `command` with an empty stdin, unless it has one.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = channel();
        read_lines(child.stdout.take().unwrap(), sender.clone());
        read_lines(child.stderr.take().unwrap(), sender);
        Self { name, child, lines, seen: Vec::new() }
    }

    /// Waits for a line in which `look` sees something, from the last one on that was looked at.
    pub(crate) fn line<T>(&mut self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{}: no line with {what}", self.name);
            };
            let found = look(&line);
            self.seen.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits until it ends by itself and closes its output; kills it otherwise.
    pub(crate) fn end(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        while let Ok(line) = self.lines.recv_timeout(patience.saturating_sub(start.elapsed())) {
            self.seen.push(line);
        }
        self.exit(patience.saturating_sub(start.elapsed()))
            .unwrap_or_else(|| panic!("{}: still runs after {patience:?}", self.name))
    }

    /// Sends `signal` to it alone, not to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Everything that it wrote until now, except an unfinished line.
    pub(crate) fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its exit status, if it ends within `patience`.
    fn exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || patience <= start.elapsed() {
                return status;
            }
            sleep(GLANCE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // The gateway ends its servers, which have groups of their own, if it has the time.
            kill_process(self.pid(), Signal::TERM).unwrap_or_default();
            self.exit(GRACE);
        }
        // The group outlives its leader where a program leaves others behind.
        kill_process_group(self.pid(), Signal::KILL).unwrap_or_default();
        drop(self.child.wait());
        if panicking() {
            self.output();
            let tail = self.seen.len().saturating_sub(TAIL_LINES);
            eprintln!("--- {}\n{}\n---", self.name, self.seen[tail..].join("\n"));
        }
    }
}

fn read_lines(from: impl Read + Send + 'static, to: Sender<String>) {
    spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

/// Runs `command` to its end and returns what it wrote; fails if it does.
pub(crate) fn succeed(command: &mut Command, patience: Duration) -> String {
    let mut process = Process::start(command.stdin(Stdio::null()));
    let status = process.end(patience);
    assert!(status.success(), "{}: {status}", process.name);
    process.output()
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// `mcp-gateway run` with two shards on free ports; `arguments` say what it serves.
    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Self {
        Self::start(gateway("run").args(arguments))
    }

    /// `mcp-gateway demo` with two shards on free ports.
    pub(crate) fn demo() -> Self {
        Self::start(&mut gateway("demo"))
    }

    /// Starts a command that [`gateway`] made and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdin(Stdio::null()));
        let (mut addr, mut admin) = (None, None);
        process.line("\"ready\"", |line| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let place = line["message"].as_str().and_then(address_in);
            match line["event"].as_str() {
                Some("listening") => addr = addr.or(place),
                Some("admin") => admin = place,
                Some("ready") => return Some(()),
                _ => {}
            }
            None
        });
        Self { process, addr: addr.unwrap(), admin: admin.unwrap() }
    }

    /// The endpoint of its only server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// The endpoint of one of its servers.
    pub(crate) fn url_of(&self, server: &str) -> String {
        format!("http://{}/mcp/{server}", self.addr)
    }
}

/// `mcp-gateway COMMAND` with two shards on free ports, and nothing to serve yet.
pub(crate) fn gateway(command: &str) -> Command {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    gateway.args([command, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    gateway.args(["--shards", "2", "--log", "json"]);
    gateway
}

/// The address in the first URL of a text.
fn address_in(text: &str) -> Option<SocketAddr> {
    let (_, rest) = text.split_once("http://")?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

/// An MCP server that speaks HTTP.
pub(crate) struct HttpServer {
    pub(crate) url: String,
    _process: Process,
}

impl HttpServer {
    /// Our own server on the official SDK, which can do everything, in both eras.
    pub(crate) fn fixture() -> Self {
        let mut command = Command::new(example("conformance_server"));
        let mut process = Process::start(command.args(["--http", "127.0.0.1:0"]));
        let url = process.line("its URL", |line| line.starts_with("http://").then(|| line.into()));
        Self { url, _process: process }
    }

    /// The official server that can do everything in the legacy era.
    pub(crate) fn everything() -> Self {
        Self::everything_over("streamableHttp", "mcp")
    }

    /// The same, by HTTP+SSE.
    pub(crate) fn everything_over_sse() -> Self {
        Self::everything_over("sse", "sse")
    }

    fn everything_over(transport: &str, path: &str) -> Self {
        let port = free_port();
        let mut command = node22();
        command.arg(peer("node_modules/@modelcontextprotocol/server-everything/dist/index.js"));
        let process = Process::start(command.arg(transport).env("PORT", port.to_string()));
        until("server-everything listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Self { url: format!("http://127.0.0.1:{port}/{path}"), _process: process }
    }
}
