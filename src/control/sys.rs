//! The only unsafe code of the control thread: what happens between `fork` and `exec`, and how the
//! runtime is told of a descriptor. Everything else about processes goes through the safe calls of
//! `rustix`.
#![expect(unsafe_code, reason = "the standard library has no safe call for these")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ties the child to this thread's life, and gives it the file limit that we were started with
/// (programs that use `select` break under a raised one).
///
/// Linux kills the child when the *thread* that spawned it ends: call this, and spawn, only on the
/// control thread.
pub(super) fn tie_to_this_thread(command: &mut Command, files: Rlimit) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs in a forked child of a process with many threads, where any lock
    // may be held for ever by a thread that does not exist there. `before_exec` takes none: it
    // makes three system calls through rustix, allocates nothing, and its errors are plain OS
    // codes. What it captures are two `Copy` values.
    unsafe { command.pre_exec(move || before_exec(parent, files)) };
}

/// Keeps all descriptors but the three streams from the program that the command runs. Ours are
/// closed on exec anyway; this is for those that we were started with.
pub(super) fn close_inherited(command: &mut Command) {
    let close = || {
        let (first, last, flags) = (3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: the call reads no memory of ours, and closes nothing now: it marks descriptors
        // to be closed on exec, which this child is about to do. Before Linux 5.11 it fails, and
        // then nothing is marked.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        Ok(())
    };
    // SAFETY: as above: one system call, no locks, no memory.
    unsafe { command.pre_exec(close) };
}

fn before_exec(parent: Pid, files: Rlimit) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Had the gateway died before the line above, the signal would never come.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    rustix::process::setrlimit(Resource::Nofile, files)?;
    Ok(())
}

/// Puts the child into a control group before its program begins. The error is `ENODEV`.
pub(super) fn enter_group(command: &mut Command, entrance: File) {
    let enter = move || match rustix::io::write(&entrance, b"0") {
        Ok(_) => Ok(()),
        // Its own number, so that nobody takes it for an error of the program.
        Err(_) => Err(io::Error::from_raw_os_error(libc::ENODEV)),
    };
    // SAFETY: as above: one system call with memory that never changes, no locks, no allocation.
    // The file was opened before the fork.
    unsafe { command.pre_exec(enter) };
}

/// A child that has ended and is not reaped: the first one that the kernel has, if there are more.
/// It stays as it is.
pub(super) fn peek_ended() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure is plain numbers, for which zeros are fine.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of that type, which outlives the call.
    let status = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut found, options) };
    if status != 0 {
        return None;
    }
    // SAFETY: after success the structure is about a child, or still zeros: then there is none.
    Pid::from_raw(unsafe { found.si_pid() })
}

/// Makes these signals do nothing in the program that the command runs, from its first moment:
/// what is ignored stays so across exec.
pub(super) fn ignore(command: &mut Command, signals: &'static [Signal]) {
    let ignore = move || {
        for signal in signals {
            // SAFETY: `SIG_IGN` installs no handler, so no code of ours can run at a bad moment;
            // the number is a signal's, because it comes from rustix's list.
            unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: as above: system calls only, no locks, no memory.
    unsafe { command.pre_exec(ignore) };
}

/// Lets the runtime of the caller wait until a descriptor is readable.
pub(super) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it exists and always the same descriptor. The
    // `AsyncFd` owns it, and nobody can take another's place: it is handed out by value.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}
