//! Killing what is in control groups, and removing them. Nothing here waits.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::{is_base, lock, write};

/// Groups below one of ours that are looked at in one pass: a child process may make some itself.
const TREE_MAX: usize = 4096;

/// Processes that are held at once while they are killed; each is an open file.
const HELD_MAX: usize = 32;

/// One pass: kills, and removes what is empty. An error if something is left.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    if remove(dir).is_ok() {
        return Ok(());
    }
    kill(dir);
    remove(dir)
}

/// Kills what is in a group and below.
pub(super) fn kill(dir: &Path) {
    if write(dir, "cgroup.kill", "1").is_ok() {
        return;
    }
    // Version 1, and version 2 before Linux 5.14. From here on nothing in it can fork, so that
    // nobody outruns us.
    write(dir, "pids.max", "0").unwrap_or_default();
    tree(dir).iter().for_each(|group| kill_listed(group));
}

fn kill_listed(group: &Path) {
    for some in listed(group).chunks(HELD_MAX) {
        let hold = |pid: &Pid| rustix::process::pidfd_open(*pid, PidfdFlags::empty()).ok();
        let held: Vec<(Pid, OwnedFd)> =
            some.iter().filter_map(|pid| Some((*pid, hold(pid)?))).collect();
        // A number may have become a stranger's before we held it. What is listed now, while we do,
        // is in the group.
        let still = listed(group);
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            // It has just ended, or another pass follows.
            rustix::process::pidfd_send_signal(process, Signal::KILL).unwrap_or_default();
        }
    }
}

fn listed(group: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for processes of another namespace, which have no number here.
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

/// Removes a group and those below, as far as they are empty. An error if it is still there.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    for group in tree(dir).iter().skip(1).rev() {
        fs::remove_dir(group).unwrap_or_default();
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what dead gateways left, as far as it is empty.
pub(super) fn remove_stale(place: &Path) {
    let is_ours =
        |dir: &PathBuf| dir.file_name().is_some_and(|name| is_base(&name.to_string_lossy()));
    for base in children(place).into_iter().filter(is_ours) {
        if let Some(_lock) = lock(&base) {
            remove(&base).unwrap_or_default();
        }
    }
}

/// A group and all below, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        next += 1;
        let below = children(group);
        found.extend(below.into_iter().take(TREE_MAX.saturating_sub(found.len())));
    }
    found
}

/// The groups directly below.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}
