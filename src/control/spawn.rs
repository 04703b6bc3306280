//! How a child process comes to be: its environment, its three streams, and why it did not start.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::net::sockopt;
use rustix::process::Rlimit;

use super::sys;
use crate::upstream::catalog::Command;

/// Variables of the gateway that its children get, besides `LC_*`. Everything else, above all what
/// holds secrets, must be named in the configuration.
const ENV_KEPT: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TERM"];

/// Bytes that the kernel holds in each direction. What it grants is bounded by `net.core.wmem_max`.
const SOCKET_BUF_LEN: usize = 256 * 1024;

/// A child process that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    /// The process; it leads a group of its own.
    pub child: Child,
    /// Our end of its standard input and output, non-blocking.
    pub socket: OwnedFd,
    /// The end of its standard error.
    pub stderr: OwnedFd,
}

/// Starts a command. There is no shell: program and arguments go to the kernel as they are.
///
/// The error is a sentence that names the program and what to do; it never holds arguments or
/// variables, which may be secrets. `entrance` is that of a control group.
pub(super) fn spawn(
    command: &Command,
    files: Rlimit,
    entrance: Option<File>,
) -> Result<Spawned, String> {
    if let Some(cwd) = &command.cwd
        && !cwd.is_dir()
    {
        return Err(format!("the working directory `{}` does not exist", cwd.display()));
    }
    try_spawn(command, files, entrance).map_err(|error| explain(command, &error))
}

fn try_spawn(command: &Command, files: Rlimit, entrance: Option<File>) -> io::Result<Spawned> {
    // One socket for both directions: half the descriptors of two pipes, and a driver can treat it
    // like any other connection. All descriptors here are closed on exec, except what becomes
    // one of the three streams.
    let (ours, theirs) = UnixStream::pair()?;
    for socket in [&ours, &theirs] {
        sockopt::set_socket_send_buffer_size(socket, SOCKET_BUF_LEN)?;
        sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUF_LEN)?;
    }
    ours.set_nonblocking(true)?;
    let mut builder = std::process::Command::new(&command.program);
    builder.args(&command.args).env_clear();
    builder.envs(std::env::vars_os().filter(|(name, _)| is_kept(name)));
    builder.envs(command.env.iter().map(|(name, value)| (name, value.reveal())));
    if let Some(cwd) = &command.cwd {
        builder.current_dir(cwd);
    }
    builder.stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)));
    builder.stdout(Stdio::from(OwnedFd::from(theirs)));
    builder.stderr(Stdio::piped()).process_group(0);
    sys::close_inherited(&mut builder);
    sys::tie_to_this_thread(&mut builder, files);
    if let Some(entrance) = entrance {
        sys::enter_group(&mut builder, entrance);
    }
    let mut child = builder.spawn()?;
    let Some(stderr) = child.stderr.take() else {
        return Err(io::Error::other("it has no standard error"));
    };
    Ok(Spawned { child, socket: ours.into(), stderr: stderr.into() })
}

fn is_kept(name: &OsString) -> bool {
    ENV_KEPT.iter().any(|kept| OsStr::new(kept) == name)
        || name.to_str().is_some_and(|name| name.starts_with("LC_"))
}

/// Why a command did not start, and what to do about it.
fn explain(command: &Command, error: &io::Error) -> String {
    let program = &command.program;
    let has_path = program.contains('/');
    match error.raw_os_error() {
        Some(libc::ENOENT) if !has_path => format!(
            "the program `{program}` was not found in PATH; \
             install it, or give its full path in `command`"
        ),
        // A relative path is meant from the working directory, so its existence says nothing.
        Some(libc::ENOENT) if Path::new(program).is_absolute() && Path::new(program).exists() => {
            format!("the interpreter that `{program}` names in its first line was not found")
        }
        Some(libc::ENOENT) => format!("the program `{program}` does not exist"),
        Some(libc::EACCES) => format!(
            "the program `{program}` may not be executed; \
             check its permissions and those of the directories above it"
        ),
        Some(libc::ENOEXEC) => format!(
            "`{program}` is not a program for this machine; a script needs a first line like \
             `#!/bin/sh`"
        ),
        Some(libc::EAGAIN) => format!(
            "`{program}` could not be started: the limit of processes is reached; \
             raise TasksMax= of the service or `ulimit -u`"
        ),
        Some(libc::EMFILE) => format!(
            "`{program}` could not be started: the limit of open files is reached; \
             raise LimitNOFILE= of the service or `ulimit -n`"
        ),
        Some(libc::ENODEV) => format!(
            "`{program}` could not be started: it could not enter its control group; \
             did another program change the groups of the gateway?"
        ),
        _ => format!("`{program}` could not be started: {error}"),
    }
}
