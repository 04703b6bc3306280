//! Unix sockets: files that clients connect to, with the right permissions before anybody can.
//!
//! A socket is bound, gets its permissions and only then listens: until it does, the kernel refuses
//! everybody. The file is held open, so that what is changed and removed is that file, whatever
//! somebody puts at its path.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::Unix;

/// Connections that wait to be accepted. `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// The file of a socket of ours, which is removed with this value.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Keeps its number from being given to another file.
    file: File,
}

/// A socket that listens. The error is a sentence for the operator.
pub(super) fn bind(unix: &Unix) -> Result<(OwnedFd, SocketFile), String> {
    make_room(&unix.path).map_err(|why| sentence(&unix.path, &why))?;
    open(unix).map_err(|why| sentence(&unix.path, &why))
}

fn sentence(path: &Path, why: &str) -> String {
    let path = path.display().to_string();
    format!("cannot listen on {} (`listen.unix`): {why}", path.escape_debug())
}

/// Removes a socket that nobody listens on. Nothing else is ever removed.
fn make_room(path: &Path) -> Result<(), String> {
    let is_socket = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(&error)),
    };
    if !is_socket {
        return Err(
            "something is there that is no socket; remove it or choose another path".to_owned()
        );
    }
    match connect(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(|error| explain(&error)),
        // Its queue is full, or it is of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err("another program listens there; stop that one or choose another path".to_owned())
        }
        Err(error) => Err(format!(
            "a socket is there, and whether somebody listens on it is not known ({error}); remove \
             it or choose another path"
        )),
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether somebody listens there.
fn connect(path: &Path) -> rustix::io::Result<()> {
    rustix::net::connect(socket()?, &SocketAddrUnix::new(path)?)
}

fn open(unix: &Unix) -> Result<(OwnedFd, SocketFile), String> {
    let listener = socket().map_err(|error| explain(&error.into()))?;
    SocketAddrUnix::new(&*unix.path)
        .and_then(|addr| rustix::net::bind(&listener, &addr))
        .map_err(|error| explain(&error.into()))?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&unix.path);
    let file = SocketFile {
        path: unix.path.clone(),
        file: opened.map_err(|error| format!("its file is gone already: {error}"))?,
    };
    file.protect(unix)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| explain(&error.into()))?;
    Ok((listener, file))
}

/// What to do about an error of the kernel.
fn explain(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has just taken it; choose another path",
        io::ErrorKind::NotFound => "make its directory, or choose another path",
        io::ErrorKind::PermissionDenied => {
            "let the user of the gateway write to its directory, or choose another path"
        }
        _ => "choose another path",
    };
    format!("{error}: {remedy}")
}

impl SocketFile {
    /// Gives the file its permissions and its owner.
    fn protect(&self, unix: &Unix) -> Result<(), String> {
        let is_ours = self.file.metadata().is_ok_and(|it| it.file_type().is_socket());
        if !is_ours {
            return Err("somebody has put something else there".to_owned());
        }
        // The link leads to this very file, not to what is at its path now.
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::set_permissions(&file, Permissions::from_mode(unix.mode))
            .map_err(|error| format!("its `mode` can not be set (which needs /proc): {error}"))?;
        if unix.user.is_none() && unix.group.is_none() {
            return Ok(());
        }
        chown(&file, unix.user, unix.group).map_err(|error| {
            format!(
                "its `owner` can not be set: {error}: another user needs CAP_CHOWN, and another \
                 group that the gateway is in it"
            )
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let (Ok(there), Ok(ours)) = (fs::symlink_metadata(&self.path), self.file.metadata()) else {
            return;
        };
        // Another gateway may have taken its place by now.
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) {
            // If it cannot be removed, the next start will find that nobody listens on it.
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}
