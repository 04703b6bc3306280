//! The guard: a second, tiny process that ends every child process's group when the gateway is
//! gone, however it went: no handler of ours runs under `kill -9`, but the kernel closes our end
//! of a pipe.
//!
//! ```text
//!   gateway ──── "+1234\n" a group began, "-1234\n" it ended ────► guard
//!      └──────── end of the pipe: SIGKILL to every group left ───────┘
//! ```
//!
//! A process that made itself a new group has left that list. It is still in a control group, where
//! there are any: the guard knows their directory from its start, and ends all of them. The kernel
//! sends SIGKILL to our direct children on top (`sys.rs`).
//!
//! Invariant: a group is on the list only while its leader is alive or not reaped, so its number
//! can not have become a stranger's. `+` is written right after the leader began, and `-` before it
//! is reaped: a pipe keeps the order, and what was written before the gateway died is still read.

use std::collections::HashSet;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal};

use super::cgroup;
use super::pidfd::Watch;
use super::sys;

/// The hidden subcommand that makes this program the guard.
pub const SUBCOMMAND: &str = "guard";

/// The variable in which a guard finds the directory of the gateway's control groups.
const GROUPS: &str = "MCP_GATEWAY_GROUPS";

/// A service manager signals all processes of a service: the guard must be the last to go.
static IGNORED: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// The main function of the guard process: reads the list from standard input until it ends.
pub fn run() -> ExitCode {
    let mut groups = Groups::default();
    let mut stdin = io::stdin().lock();
    let mut buf = [0; 512];
    loop {
        match stdin.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => buf.iter().take(len).for_each(|byte| groups.read(*byte)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    for group in groups.live {
        // Nobody left in it is just as well.
        rustix::process::kill_process_group(group, Signal::KILL).unwrap_or_default();
    }
    if let Some(base) = std::env::var_os(GROUPS) {
        cgroup::end_all(Path::new(&base));
    }
    ExitCode::SUCCESS
}

/// The groups that are to be killed, read from the pipe byte by byte.
#[derive(Debug, Default)]
struct Groups {
    live: HashSet<Pid>,
    sign: u8,
    number: i32,
}

impl Groups {
    fn read(&mut self, byte: u8) {
        match byte {
            b'+' | b'-' => (self.sign, self.number) = (byte, 0),
            b'0'..=b'9' => {
                let digit = i32::from(byte - b'0');
                self.number = self.number.saturating_mul(10).saturating_add(digit);
            }
            _ => self.apply(),
        }
    }

    fn apply(&mut self) {
        // Group 1 would be everybody.
        let Some(group) = Pid::from_raw(self.number).filter(|_| 1 < self.number) else { return };
        match self.sign {
            b'+' => drop(self.live.insert(group)),
            b'-' => drop(self.live.remove(&group)),
            _ => {}
        }
    }
}

/// The gateway's side: starts the guard, tells it of groups, and starts it again if it dies.
#[derive(Debug)]
pub(super) struct Guard {
    how: Launch,
    groups: HashSet<Pid>,
    process: Option<Process>,
}

/// How a guard is started.
#[derive(Debug)]
pub(super) struct Launch {
    /// The program.
    pub command: fn() -> Command,
    /// The directory of the gateway's control groups, if it has any.
    pub base: Option<PathBuf>,
}

/// A running guard.
#[derive(Debug)]
struct Process {
    child: Child,
    watch: Watch,
    pipe: PipeWriter,
}

/// How the gateway makes a guard of itself: by its inode, which an upgrade of the file does not
/// change.
pub(super) fn launch() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("mcp-gateway").arg(SUBCOMMAND);
    command
}

impl Guard {
    /// No guard, for a gateway that starts no processes.
    pub(super) fn absent() -> Self {
        let how = Launch { command: launch, base: None };
        Self { how, groups: HashSet::new(), process: None }
    }

    /// Starts a guard.
    pub(super) fn start(how: Launch) -> io::Result<Self> {
        let groups = HashSet::new();
        let process = Some(Process::start(&how, &groups)?);
        Ok(Self { how, groups, process })
    }

    /// Puts a group on the list.
    pub(super) fn add(&mut self, group: Pid) {
        if self.groups.insert(group) {
            self.write('+', group);
        }
    }

    /// Takes a group off the list. Its leader must not be reaped yet.
    pub(super) fn remove(&mut self, group: Pid) {
        if self.groups.remove(&group) {
            self.write('-', group);
        }
    }

    /// Waits until the guard has died, which it does only when somebody kills it.
    pub(super) async fn died(&self) {
        match &self.process {
            Some(process) => process.watch.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Starts it again, with the same list. After an error there is none until the next call.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.child.kill()?;
            process.child.wait()?;
        }
        self.process = Some(Process::start(&self.how, &self.groups)?);
        Ok(())
    }

    /// The process, if there is one; it may have ended.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.watch.pid())
    }

    /// Writes one line. It is far shorter than what a pipe takes as a whole, and the pipe holds
    /// thousands. If it is full all the same, the guard hangs and is of no use: end it, which
    /// [`Guard::died`] reports.
    fn write(&mut self, sign: char, group: Pid) {
        let Some(process) = &mut self.process else { return };
        let line = format!("{sign}{}\n", group.as_raw_pid());
        if process.pipe.write_all(line.as_bytes()).is_err() {
            process.child.kill().unwrap_or_default();
        }
    }
}

impl Process {
    fn start(how: &Launch, groups: &HashSet<Pid>) -> io::Result<Self> {
        let (reader, mut pipe) = io::pipe()?;
        // A group of its own keeps it away from Ctrl-C.
        let mut command = (how.command)();
        command.env_clear().current_dir("/").process_group(0);
        if let Some(base) = &how.base {
            command.env(GROUPS, base);
        }
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        sys::close_inherited(&mut command);
        sys::ignore(&mut command, &IGNORED);
        let mut child = command.spawn()?;
        // It closes our copy of the pipe's other end: a guard that dies is noticed.
        drop(command);
        match introduce(&child, &mut pipe, groups) {
            Ok(watch) => Ok(Self { child, watch, pipe }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }
}

/// Tells a new guard what there is already, waiting for it; later writes never wait.
fn introduce(child: &Child, pipe: &mut PipeWriter, groups: &HashSet<Pid>) -> io::Result<Watch> {
    for group in groups {
        writeln!(pipe, "+{}", group.as_raw_pid())?;
    }
    rustix::io::ioctl_fionbio(pipe, true)?;
    Watch::new(child)
}
