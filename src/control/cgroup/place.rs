//! Where control groups can be made: below the group that we are in, in a hierarchy that counts
//! processes.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{LEAF, write};

/// The two kinds of hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// One for each controller.
    One,
    /// One for all: controllers are handed down, and only by groups without processes.
    Two,
}

/// The group that this process is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub version: Version,
    pub dir: PathBuf,
}

impl Place {
    /// Whether this hierarchy has what we need, before anything is changed.
    pub(super) fn check(&self) -> io::Result<()> {
        let controllers = match self.version {
            Version::One => return Ok(()),
            Version::Two => fs::read_to_string(self.dir.join("cgroup.controllers"))?,
        };
        let is_there = controllers.split_whitespace().any(|name| name == "pids");
        is_there.then_some(()).ok_or_else(|| io::Error::other("it has no `pids` controller"))
    }
}

/// Our group in each hierarchy that may count processes, as `/proc/self/cgroup` and
/// `/proc/self/mountinfo` tell it; version 2 first, for it can kill better.
pub(super) fn find(groups: &str, mounts: &str) -> Vec<Place> {
    let mounted = |version| mounts.lines().filter_map(move |line| mount(line, version));
    let mut places = Vec::new();
    for version in [Version::Two, Version::One] {
        let Some(path) = groups.lines().find_map(|line| group(line, version)) else { continue };
        places.extend(mounted(version).filter_map(|(root, at)| {
            let below = Path::new(path).strip_prefix(root).ok()?;
            // Outside of our namespace; nothing there is ours.
            let is_outside = below.components().any(|part| part == Component::ParentDir);
            (!is_outside).then(|| Place { version, dir: Path::new(at).join(below) })
        }));
    }
    places
}

/// The path of our group, if the line is about that hierarchy: `ID:CONTROLLERS:PATH`.
fn group(line: &str, version: Version) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_it = match version {
        Version::One => controllers.split(',').any(|name| name == "pids"),
        Version::Two => id == "0" && controllers.is_empty(),
    };
    is_it.then_some(path)
}

/// Which part of that hierarchy a line of mounts shows, and where.
fn mount(line: &str, version: Version) -> Option<(&str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    let mut fields = right.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let is_it = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|name| name == "pids"),
        Version::Two => kind == "cgroup2",
    };
    // Blanks and the like are written as `\040`. Nobody mounts it there.
    let is_plain = !at.contains('\\') && !root.contains('\\');
    (is_it && is_plain).then_some((root, at))
}

/// Makes the `pids` controller work in the groups below `base`, a new group below our own.
///
/// A group that has processes can not hand it down to groups that have processes of their own; only
/// the root can. If nobody else is in ours, we move out of its way. Otherwise everything is as
/// before.
pub(super) fn delegate(own: &Path, base: &Path) -> io::Result<()> {
    let hand_down = |dir| write(dir, "cgroup.subtree_control", "+pids");
    let is_root = !own.join("cgroup.type").exists();
    if is_root {
        return hand_down(own).and_then(|()| hand_down(base));
    }
    let leaf = base.join(LEAF);
    fs::create_dir(&leaf)?;
    let moved = write(&leaf, "cgroup.procs", "0");
    let outcome = moved.and_then(|()| hand_down(own)).and_then(|()| hand_down(base));
    outcome.map_err(|error| {
        give_back(base);
        let is_busy = error.raw_os_error() == Some(libc::EBUSY);
        if is_busy { io::Error::other("other processes are in it") } else { error }
    })
}

/// Undoes what [`delegate`] did, so that processes can be put into our group again. Does nothing if
/// the gateway did not move.
pub(super) fn give_back(base: &Path) {
    let leaf = base.join(LEAF);
    let Some(own) = base.parent().filter(|_| leaf.is_dir()) else { return };
    // Whatever of it fails leaves a group behind that the service manager or the next start
    // removes.
    write(base, "cgroup.subtree_control", "-pids").unwrap_or_default();
    write(own, "cgroup.subtree_control", "-pids").unwrap_or_default();
    write(own, "cgroup.procs", "0").unwrap_or_default();
    fs::remove_dir(&leaf).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each want is a version and a directory.
    fn check(groups: &str, mounts: &str, wants: &[(Version, &str)]) {
        let places =
            wants.iter().map(|(version, dir)| Place { version: *version, dir: dir.into() });
        assert_eq!(find(groups, mounts), places.collect::<Vec<_>>(), "{groups}");
    }

    #[test]
    fn our_group_is_found_in_each_hierarchy() {
        let two = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let pids = "35 25 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids";
        let others = "36 25 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      22 1 8:1 / / rw - ext4 /dev/sda1 rw";
        let unit = "/system.slice/mcp-gateway.service";
        let dir = "/sys/fs/cgroup/system.slice/mcp-gateway.service";
        check(&format!("0::{unit}\n"), &format!("{others}\n{two}\n"), &[(Version::Two, dir)]);
        check("0::/\n", two, &[(Version::Two, "/sys/fs/cgroup/")]);
        let hybrid = "8:pids:/a\n7:cpu,cpuacct:/b\n0::/c\n";
        let both = [(Version::Two, "/sys/fs/cgroup/c"), (Version::One, "/sys/fs/cgroup/pids/a")];
        check(hybrid, &format!("{pids}\n{two}\n{others}"), &both);
        check("8:pids:/a:b\n", pids, &[(Version::One, "/sys/fs/cgroup/pids/a:b")]);
        check(hybrid, others, &[]);
        check("", two, &[]);
    }

    #[test]
    fn only_what_is_mounted_and_in_our_namespace_counts() {
        let part = "35 25 0:30 /docker/1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids";
        check("8:pids:/docker/1\n", part, &[(Version::One, "/sys/fs/cgroup/pids/")]);
        check("8:pids:/docker/1/a\n", part, &[(Version::One, "/sys/fs/cgroup/pids/a")]);
        check("8:pids:/docker/12\n", part, &[]);
        let two = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        check("0::/../other\n", two, &[]);
        check("0::/a\n", "29 23 0:26 / /a\\040b rw - cgroup2 cgroup2 rw", &[]);
        check("0::/a\nnonsense\n\n", "29 - cgroup2\n - \n29 23\n", &[]);
    }
}
