//! What a process costs, as the kernel counts it, and where it runs.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CpuSet;

/// CPU time that all threads of a process have used, in nanoseconds: user, system and the softirqs
/// that ran on them.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two reads.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += first_number(&text);
    }
    Ok(sum)
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Open descriptors.
    pub fds: u64,
    /// Child processes, zombies too.
    pub children: u64,
}

/// What a process holds now.
pub fn held(pid: u32) -> io::Result<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Held {
        rss_kib: first_number(rss),
        fds: u64::try_from(fds).unwrap_or(u64::MAX),
        children: children(pid)?,
    })
}

fn children(pid: u32) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        // The name may hold anything; what follows its last parenthesis does not.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let parent = after_name.split_ascii_whitespace().nth(1);
        count += u64::from(parent.and_then(|text| text.parse().ok()) == Some(pid));
    }
    Ok(count)
}

fn first_number(text: &str) -> u64 {
    text.split_ascii_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The cores that this thread may use.
pub fn cores() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// The cores on which a thread of a process may run besides `core`; none: it is pinned there.
pub fn strays(pid: u32, core: usize) -> io::Result<usize> {
    let mut count = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let set = rustix::thread::sched_getaffinity(thread)?;
        count += (0..CpuSet::MAX_CPU).filter(|other| *other != core && set.is_set(*other)).count();
    }
    Ok(count)
}

/// Keeps this thread, and what it starts from now on, on these cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files as far as it goes; how many that are.
pub fn raise_files() -> u64 {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: before.maximum, maximum: before.maximum };
    let now = if rustix::process::setrlimit(Resource::Nofile, all).is_ok() { all } else { before };
    now.current.unwrap_or(u64::MAX)
}

/// Asks a process to end.
pub fn terminate(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}
