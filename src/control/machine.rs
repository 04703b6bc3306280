//! What the gateway tells and asks the kernel about its own process.

use std::fs;
use std::io;
use std::thread;
use std::time::SystemTime;

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};
use rustix::thread::CpuSet;

/// Files that are not connections: standard streams, listeners, queues, timers, the guard, the
/// admin server, libraries being read. Shards have a few each; this covers many.
const FILES_RESERVED: u64 = 256;

/// The part of the connections that clients can not have: without a descriptor left, no server
/// could be reached and no process started for those who are connected already.
const SERVERS_PART: u64 = 8;

/// How many files this process may open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    /// The limit that we were started with; child processes get it back.
    pub before: Rlimit,
    /// The limit now. None: unlimited.
    pub now: Option<u64>,
}

impl Files {
    /// How many connections of any kind there is room for.
    pub(super) fn conns(self) -> Option<u64> {
        self.now.map(|files| files.saturating_sub(FILES_RESERVED))
    }

    /// How many of them clients may have.
    pub(super) fn clients(self) -> Option<u64> {
        self.conns().map(|conns| (conns - conns / SERVERS_PART).max(1))
    }
}

/// The cores that this process may run on.
#[derive(Debug)]
pub(super) struct Cores {
    numbers: Vec<usize>,
    /// How many this process may keep busy: fewer, in a container with a quota.
    pub count: usize,
}

impl Cores {
    /// Asks the kernel.
    pub(super) fn find() -> Self {
        let set = rustix::thread::sched_getaffinity(None);
        let is_ours = |core: &usize| set.as_ref().is_ok_and(|set| set.is_set(*core));
        let numbers: Vec<_> = (0..CpuSet::MAX_CPU).filter(is_ours).collect();
        let count = thread::available_parallelism().map_or(1, usize::from);
        Self { numbers, count }
    }

    /// On which cores so many shards stay, by their ids; no entry: wherever the kernel likes.
    ///
    /// With more shards than cores the scheduler knows better, and under a quota the cores are
    /// shared with others, who would all sit on the same first ones.
    pub(super) fn for_shards(&self, shards: u16) -> &[usize] {
        let has_quota = self.count < self.numbers.len();
        if has_quota || self.numbers.len() < usize::from(shards) { &[] } else { &self.numbers }
    }
}

/// Keeps secrets out of core files, and other processes of the same user out of our memory.
pub(super) fn harden() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises the limit of open files as far as it goes.
pub(super) fn raise_files() -> Files {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: before.maximum, maximum: before.maximum };
    match rustix::process::setrlimit(Resource::Nofile, all) {
        Ok(()) => Files { before, now: all.current },
        // Never seen; then we live with what we have.
        Err(_) => Files { before, now: before.current },
    }
}

/// Whether orphans below us become our children: as process 1 of a container, or if we were made a
/// subreaper.
pub(super) fn adopts_orphans() -> bool {
    rustix::process::getpid() == Pid::INIT
        || matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "this is where time enters the control thread")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Files open in this process.
pub(super) fn files_open() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory itself.
    u64::try_from(open.saturating_sub(1)).ok()
}

/// Bytes of memory in use by this process.
pub(super) fn memory_used() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
