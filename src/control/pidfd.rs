//! Learning that a process has ended without reaping it: until it is reaped, its process id and
//! its group's id belong to it and can be signalled without hitting a stranger.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

use super::sys;

/// A look at a child process.
#[derive(Debug)]
pub(super) struct Watch {
    pid: Pid,
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches a child that has not been reaped, in the runtime of the caller.
    pub(super) fn new(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, fd: sys::watch_readable(fd)? })
    }

    /// Waits until it has ended. It is a zombie then; somebody else reaps it.
    pub(super) async fn ended(&self) {
        if self.fd.readable().await.is_err() {
            // Only when the runtime is going down.
            std::future::pending::<()>().await;
        }
    }

    /// Sends a signal to all processes of the group that the child leads. To be called only while
    /// the child is not reaped.
    pub(super) fn signal_group(&self, signal: Signal) {
        // The only failure is that nobody is left.
        rustix::process::kill_process_group(self.pid, signal).unwrap_or_default();
    }

    /// The process, and the group that it leads.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }
}
