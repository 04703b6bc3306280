//! Real processes, real signals. Whatever is waited for is looked at again and again, briefly.
//!
//! Here is what the tests share. Some of the functions marked as tests are programs: this test
//! binary runs itself as one of them, when it is named on the command line.

mod cgroup;
mod guard;
mod listen;
mod processes;
mod serve;

use std::fs;
use std::io;
use std::process::Command;
use std::sync::mpsc as plain;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::process::Key;
use super::*;
use crate::ids::ProcessId;
use crate::limits;
use crate::mesh::Reply;
use crate::telemetry::log::Format;
use crate::upstream::catalog::{self, Secret, Server, ServerId, Upkeep};

/// Nothing here takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Processes with everything that they need, and a log that can be read.
pub(super) struct Bench {
    settings: Arc<Settings>,
    files: rustix::process::Rlimit,
    processes: Processes,
    ended: mpsc::UnboundedReceiver<Key>,
    news_in: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
    log: Log,
    written: plain::Receiver<Vec<u8>>,
}

impl Bench {
    /// One server for each shell script.
    fn start(scripts: &[&str]) -> Self {
        Self::with(scripts.iter().map(|script| shell(script)).collect())
    }

    fn with(servers: Vec<Server>) -> Self {
        Self::in_groups(servers, None)
    }

    fn in_groups(servers: Vec<Server>, groups: Option<Groups>) -> Self {
        let (log, written) = readable_log();
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let base = groups.as_ref().map(|groups| groups.base().to_owned());
        let guard = Guard::start(guard::launch(base)).unwrap();
        let (ended_in, ended) = mpsc::unbounded_channel();
        let (news_in, news) = mpsc::unbounded_channel();
        let settings = settings_of(servers);
        let processes =
            Processes::new(Arc::clone(&settings), files, log.clone(), guard, groups, ended_in);
        Self { settings, files, processes, ended, news_in, news, log, written }
    }

    fn start_one(&mut self, index: u16) -> Reply {
        self.processes.start(key(index), ServerId(index))
    }

    /// Starts a server's process; its standard input and output.
    fn open(&mut self, index: u16) -> UnixStream {
        match self.start_one(index) {
            Reply::Started(fd) => UnixStream::from_std(fd.into()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn output_of(&mut self, index: u16) -> String {
        let mut socket = self.open(index);
        let mut output = String::new();
        let read = socket.read_to_string(&mut output);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        output
    }

    fn stop(&mut self, index: u16, grace: Duration) {
        self.processes.stop(key(index), grace);
    }

    /// Waits until the next process ends, which is that one.
    async fn ended(&mut self, index: u16) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.ended.recv()).await.unwrap().unwrap();
        assert_eq!(ended, key(index));
        self.processes.reap(ended).unwrap()
    }

    /// Everything that was logged.
    fn records(&self) -> Vec<serde_json::Value> {
        self.log.flush(PATIENCE);
        let text: Vec<u8> = self.written.try_iter().flatten().collect();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn key(index: u16) -> Key {
    Key { shard: ShardId(0), process: ProcessId(index.into()) }
}

/// Settings with one server for each script, or one that does nothing.
pub(super) fn settings(scripts: &[&str]) -> Arc<Settings> {
    let scripts = if scripts.is_empty() { &[""] } else { scripts };
    settings_of(scripts.iter().map(|script| shell(script)).collect())
}

fn settings_of(servers: Vec<Server>) -> Arc<Settings> {
    let hosts = vec!["gateway.example".to_owned()];
    let origins = Policy::new(&[], hosts, Vec::new());
    Arc::new(Settings { origins, ..crate::tests::settings::settings(servers) })
}

/// A server that is a shell script.
fn shell(script: &str) -> Server {
    let command = catalog::Command {
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: vec![("CONFIGURED".to_owned(), Secret::new("a secret; $(id)".to_owned()))],
        cwd: None,
        processes_max: 2,
        tasks_max: limits::TASKS_MAX,
        upkeep: Upkeep::default(),
    };
    Server { name: "sh".to_owned(), target: Target::Stdio(command), request_timeout: None }
}

/// A log whose bytes come out of a channel.
fn readable_log() -> (Log, plain::Receiver<Vec<u8>>) {
    struct Sink(plain::Sender<Vec<u8>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let (sink, written) = plain::channel();
    (Log::start_with(Format::Json, Sink(sink)).unwrap(), written)
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the process exists and is not a zombie (whoever inherits it may be slow to reap).
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// A directory that goes away with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let name = format!("mcp-control-{}", u64::from_ne_bytes(name));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// This test binary, told to be one of the programs below.
fn this_program(module: &str, name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    let module = module.split_once("::").unwrap().1;
    let path = format!("{module}::{name}");
    command.args([&path, "--exact", "--nocapture", "as-program"]);
    command
}

/// What is said behind the program's name on the command line; none in an ordinary test run.
fn program_args() -> Option<Vec<String>> {
    let mut args = std::env::args().skip_while(|arg| arg != "as-program");
    args.next().map(|_| args.collect())
}
