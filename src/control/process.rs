//! Child processes: started on demand, watched, stopped step by step, and never left behind.
//!
//! ```text
//!   start ──► running ──► ended (a zombie) ──► group killed ──► off the guard's list ──► reaped
//!                │ stop                ▲
//!                └── grace, SIGTERM, grace, SIGKILL
//! ```
//!
//! A process is reaped only at the very end: up to then its number belongs to it and its group, so
//! no signal of ours can hit a stranger. What left that group is still in the control group of the
//! process, if there are any.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Rlimit, Signal, WaitOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cgroup::{Group, Groups};
use super::guard::Guard;
use super::log::Log;
use super::pidfd::Watch;
use super::spawn::{Spawned, spawn};
use super::stderr;
use super::sys;
use crate::ids::{ProcessId, ShardId};
use crate::mesh::Reply;
use crate::shard::settings::Settings;
use crate::upstream::catalog::{Command, ServerId, Target};

/// Time to read what a process wrote to its standard error before it ended. Longer only if a
/// process that left the group holds it open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(250);

/// Strangers that are reaped at once; then other things get their turn.
const ORPHANS_MAX: usize = 1024;

/// A process as its shard calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub shard: ShardId,
    pub process: ProcessId,
}

/// All child processes.
#[derive(Debug)]
pub(super) struct Processes {
    settings: Arc<Settings>,
    files: Rlimit,
    log: Log,
    guard: Guard,
    /// None where the system lets us have none.
    groups: Option<Groups>,
    running: HashMap<Key, Running>,
    /// Where watchers say that a process is a zombie and its group is dead.
    ended: mpsc::UnboundedSender<Key>,
}

/// One child process, from its start until it is reaped.
#[derive(Debug)]
struct Running {
    server: ServerId,
    child: Child,
    /// The watcher's task has the other end; none once it was told to stop.
    stop: Option<oneshot::Sender<Duration>>,
    watch: Arc<Watch>,
    group: Option<Group>,
}

impl Processes {
    /// None yet. Those that end are told to `ended`, and then [`Processes::reap`] is due.
    pub(super) fn new(
        settings: Arc<Settings>,
        files: Rlimit,
        log: Log,
        guard: Guard,
        groups: Option<Groups>,
        ended: mpsc::UnboundedSender<Key>,
    ) -> Self {
        Self { settings, files, log, guard, groups, running: HashMap::new(), ended }
    }

    /// Starts a process of a server. Must be called on the control thread, in its runtime.
    pub(super) fn start(&mut self, key: Key, server: ServerId) -> Reply {
        let settings = Arc::clone(&self.settings);
        let Some(entry) = settings.catalog.get(server) else {
            return Reply::Failed("there is no such server".to_owned());
        };
        let Target::Stdio(command) = &entry.target else {
            return Reply::Failed("this server is not a command".to_owned());
        };
        if self.running.contains_key(&key) {
            return Reply::Failed("there is a process of this name already".to_owned());
        }
        let count = self.running.values().filter(|running| running.server == server).count();
        if command.processes_max <= count {
            return Reply::Full(format!(
                "all {count} processes that this server may have are in use; \
                 raise its limit of processes if the machine has room for more"
            ));
        }
        let group = self.open_group(&entry.name, command.tasks_max);
        let started = self.start_in(group.clone(), key, server, &entry.name, command);
        if let (Err(_), Some(group)) = (&started, group) {
            // The kernel may need a moment to let go of a child that did not become the program.
            drop(tokio::spawn(async move { group.end().await }));
        }
        started.unwrap_or_else(Reply::Failed)
    }

    /// A control group for a process. Without one it runs all the same: it worked until now.
    fn open_group(&mut self, name: &str, tasks_max: u32) -> Option<Group> {
        let opened = self.groups.as_mut()?.open(tasks_max);
        let complain = |error: io::Error| {
            let words = format!(
                "warning: a process of `{name}` starts without a limit of tasks, because it gets \
                 no control group: {error}"
            );
            self.log.say("warning", &words);
        };
        opened.map_err(complain).ok()
    }

    fn start_in(
        &mut self,
        group: Option<Group>,
        key: Key,
        server: ServerId,
        name: &str,
        command: &Command,
    ) -> Result<Reply, String> {
        let entrance = group.as_ref().map(Group::entrance).transpose();
        let entrance =
            entrance.map_err(|error| format!("its control group can not be used: {error}"))?;
        let Spawned { mut child, socket, stderr } = spawn(command, self.files, entrance)?;
        let watch = match Watch::new(&child) {
            Ok(watch) => Arc::new(watch),
            Err(error) => {
                end_unwatched(&mut child);
                return Err(format!("`{}` can not be watched: {error}", command.program));
            }
        };
        self.guard.add(watch.pid());
        let pid = u64::from(child.id());
        self.log.event("process_started", |line| line.text("server", name).number("pid", pid));
        let words = stderr::forward(stderr, name.to_owned(), pid, self.log.clone());
        let words = tokio::spawn(words);
        let (stop, stopped) = oneshot::channel();
        let ended = self.ended.clone();
        let (watcher, group_watched, log) = (Arc::clone(&watch), group.clone(), self.log.clone());
        drop(tokio::spawn(async move {
            see_to_end(&watcher, group_watched.as_ref(), stopped, words, &log).await;
            // Without a receiver the gateway has gone on to end everything.
            ended.send(key).unwrap_or_default();
        }));
        self.running.insert(key, Running { server, child, stop: Some(stop), watch, group });
        Ok(Reply::Started(socket))
    }

    /// Stops a process. Unknown ones, and those being stopped, are left alone.
    pub(super) fn stop(&mut self, key: Key, grace: Duration) {
        let stop = self.running.get_mut(&key).and_then(|running| running.stop.take());
        if let Some(stop) = stop {
            // Without a receiver it has just ended.
            stop.send(grace).unwrap_or_default();
        }
    }

    /// Stops all processes.
    pub(super) fn stop_all(&mut self, grace: Duration) {
        let keys: Vec<_> = self.running.keys().copied().collect();
        keys.into_iter().for_each(|key| self.stop(key, grace));
    }

    /// Kills all processes and their groups, at once.
    pub(super) fn kill_all(&self) {
        for running in self.running.values() {
            running.watch.signal_group(Signal::KILL);
            running.group.iter().for_each(Group::kill);
        }
    }

    /// Takes leave of a process that has ended, and says how it did.
    pub(super) fn reap(&mut self, key: Key) -> Option<String> {
        let mut running = self.running.remove(&key)?;
        // Its number may be given to another process as soon as it is reaped; from then on
        // nobody may signal it.
        self.guard.remove(running.watch.pid());
        // A zombie does not make us wait.
        let how = in_words(running.child.wait());
        let name = self.settings.catalog.get(running.server).map_or("", |server| &server.name);
        let pid = u64::from(running.child.id());
        self.log.event("process_exited", |line| {
            line.text("server", name).number("pid", pid).text("how", &how)
        });
        Some(how)
    }

    /// Reaps those that have ended and are nobody's: what a process started and left behind is
    /// given to process 1 of its container, which may be us. True: there may be more.
    ///
    /// Our own end their lives in [`Processes::reap`]. One of them can hide others in the kernel's
    /// list, but not for long: call this again when it is reaped.
    pub(super) fn reap_orphans(&self) -> bool {
        for _ in 0..ORPHANS_MAX {
            let Some(pid) = sys::peek_ended().filter(|pid| !self.is_ours(*pid)) else {
                return false;
            };
            // It is a zombie and ours to reap, and nobody else does: this is the only thread that
            // has children.
            rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).unwrap_or_default();
        }
        true
    }

    fn is_ours(&self, pid: Pid) -> bool {
        self.guard.pid() == Some(pid)
            || self.running.values().any(|running| running.watch.pid() == pid)
    }

    /// Waits until the guard has died.
    pub(super) async fn guard_died(&self) {
        self.guard.died().await;
    }

    /// Starts the guard again.
    pub(super) fn restart_guard(&mut self) -> io::Result<()> {
        self.guard.restart()
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

/// Ends a process that nobody could be set to watch.
fn end_unwatched(child: &mut Child) {
    // If that fails it has ended by itself, and then waiting does not take long either.
    child.kill().unwrap_or_default();
    drop(child.wait());
}

/// Waits until a process has ended, by itself or stopped; then kills what is left of its groups and
/// lets its last words through.
async fn see_to_end(
    watch: &Watch,
    group: Option<&Group>,
    stopped: oneshot::Receiver<Duration>,
    mut words: JoinHandle<()>,
    log: &Log,
) {
    tokio::select! {
        () = watch.ended() => {}
        Ok(grace) = stopped => end(watch, grace).await,
    }
    watch.signal_group(Signal::KILL);
    let outcome = match group {
        Some(group) => group.end().await,
        None => Ok(()),
    };
    if let Err(error) = outcome {
        let pid = watch.pid().as_raw_pid();
        let words = format!(
            "warning: something that process {pid} started can not be killed yet ({error}); the \
             guard tries again when the gateway ends"
        );
        log.say("warning", &words);
    }
    if timeout(LAST_WORDS_TIMEOUT, &mut words).await.is_err() {
        words.abort();
    }
}

/// Ends a process whose input is at its end: waits, asks, waits, and insists.
async fn end(watch: &Watch, grace: Duration) {
    if timeout(grace, watch.ended()).await.is_ok() {
        return;
    }
    watch.signal_group(Signal::TERM);
    if timeout(grace, watch.ended()).await.is_ok() {
        return;
    }
    watch.signal_group(Signal::KILL);
    watch.ended().await;
}

fn in_words(status: io::Result<ExitStatus>) -> String {
    let Ok(status) = status else { return "unknown".to_owned() };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
