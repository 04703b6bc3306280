//! Control groups: everything that a child process starts is counted, and ends with it, wherever it
//! hides. Process groups (`process`, `guard`) reach only what does not leave them.
//!
//! ```text
//!   the group that we were started in
//!   └── mcp-gateway-1f0c…          all of one gateway; locked while that lives
//!       ├── gateway                ourselves, if we had to make room (version 2)
//!       └── 1  2  3 …              one child process each: `pids.max`
//! ```
//!
//! Names are ours alone: a random number, and numbers that count up. This bounds accidents and
//! ordinary bugs. A program that means harm and has the gateway's rights can undo it.

mod clear;
mod place;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::place::{Place, Version};

/// What the names of our directories begin with.
const PREFIX: &str = "mcp-gateway-";

/// The group of the gateway itself.
const LEAF: &str = "gateway";

/// How often a name is tried: another gateway that starts may take a new directory for a stale one.
const ATTEMPTS_MAX: usize = 8;

/// How often, and how far apart, a group is killed and removed until it is gone. It takes longer
/// than the first time only until the kernel has let go of those that were killed.
const PASSES_MAX: usize = 200;
/// The same for the guard, which also waits until the gateway has written its last lines.
const GUARD_PASSES_MAX: usize = 2000;
/// See [`PASSES_MAX`].
const PASS_PAUSE: Duration = Duration::from_millis(5);

/// The directory of this gateway's groups.
#[derive(Debug)]
pub(super) struct Groups {
    base: PathBuf,
    started: u64,
    /// Its lock says that the gateway lives; the kernel lets go of it whatever happens.
    _lock: File,
}

/// The group of one child process.
#[derive(Clone, Debug)]
pub(super) struct Group {
    dir: PathBuf,
}

impl Groups {
    /// Makes the directory, and removes those that dead gateways left. The error is for the
    /// operator: why there can be none.
    pub(super) fn make() -> Result<Self, String> {
        let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let places = place::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        let mut problems = Vec::new();
        for place in places {
            match Self::make_at(&place) {
                Ok(groups) => return Ok(groups),
                Err(error) => problems.push(format!("{}: {error}", place.dir.display())),
            }
        }
        if problems.is_empty() {
            problems.push("none is mounted".to_owned());
        }
        Err(problems.join("; "))
    }

    fn make_at(place: &Place) -> io::Result<Self> {
        place.check()?;
        clear::remove_stale(&place.dir);
        for _ in 0..ATTEMPTS_MAX {
            let mut number = [0; 8];
            getrandom::fill(&mut number).map_err(io::Error::other)?;
            let name = format!("{PREFIX}{:016x}", u64::from_ne_bytes(number));
            let base = place.dir.join(name);
            fs::create_dir(&base)?;
            let Some(lock) = lock(&base) else { continue };
            let groups = Self { base, started: 0, _lock: lock };
            if place.version == Version::Two {
                place::delegate(&place.dir, &groups.base)?;
            }
            return Ok(groups);
        }
        Err(io::Error::other("others keep removing the new group"))
    }

    /// Makes a group for so many processes and threads.
    pub(super) fn open(&mut self, tasks_max: u32) -> io::Result<Group> {
        self.started += 1;
        let dir = self.base.join(self.started.to_string());
        fs::create_dir(&dir)?;
        if let Err(error) = write(&dir, "pids.max", &tasks_max.to_string()) {
            fs::remove_dir(&dir)?;
            return Err(error);
        }
        Ok(Group { dir })
    }

    /// Where they are.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }
}

impl Drop for Groups {
    /// Leaves no empty group behind, on all ways out. The guard sees to the others.
    fn drop(&mut self) {
        clear::remove(&self.base).unwrap_or_default();
    }
}

impl Group {
    /// Whoever writes `0` here is in the group.
    ///
    /// Version 1 has a way for single threads, such as a child that was just forked: the one for
    /// whole processes makes the kernel wait for every core first.
    pub(super) fn entrance(&self) -> io::Result<File> {
        let open = |name| OpenOptions::new().write(true).open(self.dir.join(name));
        open("tasks").or_else(|_| open("cgroup.procs"))
    }

    /// Kills what is in it, now. What can not be killed at once may be left.
    pub(super) fn kill(&self) {
        clear::kill(&self.dir);
    }

    /// Kills what is in it until nothing is, and removes it.
    pub(super) async fn end(&self) -> io::Result<()> {
        for _ in 0..PASSES_MAX {
            if clear::end(&self.dir).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(PASS_PAUSE).await;
        }
        clear::end(&self.dir)
    }
}

/// Kills what is in the groups of a gateway that is gone, and removes them. For the guard, which
/// has nothing else to do and may wait.
pub(super) fn end_all(base: &Path) {
    // It comes from our own gateway, but somebody may play with the variable that brings it.
    let is_ours = base.file_name().is_some_and(|name| is_base(&name.to_string_lossy()));
    if !is_ours {
        return;
    }
    for _ in 0..GUARD_PASSES_MAX {
        let groups = clear::children(base).into_iter().filter(|group| !group.ends_with(LEAF));
        let left = groups.filter(|group| clear::end(group).is_err()).count();
        if left == 0 {
            // The gateway may take a moment to leave its own.
            place::give_back(base);
            if clear::remove(base).is_ok() {
                return;
            }
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the guard is a process of its own, without shards")]
fn pause() {
    std::thread::sleep(PASS_PAUSE);
}

fn is_base(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Locks a directory, if nobody else has and it still is there.
fn lock(dir: &Path) -> Option<File> {
    let file = File::open(dir).ok()?;
    file.try_lock().ok()?;
    dir.is_dir().then_some(file)
}

/// Writes to a file that the kernel made: nothing is created.
fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(dir.join(name))?;
    io::Write::write_all(&mut file, text.as_bytes())
}
