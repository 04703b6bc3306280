//! One stream socket: what the kernel is asked without waiting, and the wait until it is worth
//! asking.
//!
//! TCP and Unix sockets are treated alike. All of them are non-blocking. Data never goes through
//! monoio's own reads and writes, which lose bytes when they are given up half-way; monoio only
//! says when a socket is ready.

use std::io::{self, IoSlice, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::ids::Address;
use crate::output::Output;

/// Slices that one call sends.
const SLICES_MAX: usize = 64;

/// A socket that is registered with the runtime of this thread.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
}

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is sent.
    All,
    /// The kernel takes no more for now; `bool`: it took something.
    Some(bool),
}

impl AsFd for Stream {
    #[expect(unsafe_code, reason = "monoio's sockets implement AsRawFd only")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor must be open for as long as the borrow lives. `inner` owns it,
        // closes it only when dropped, and never gives it away, because nobody but this type can
        // reach it and this type does not; the borrow's lifetime is that of `&self`, hence of
        // `inner`.
        unsafe { BorrowedFd::borrow_raw(self.inner.as_raw_fd()) }
    }
}

impl Stream {
    /// Registers a non-blocking socket. On failure it is closed.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { inner: TcpStream::from_std(std::net::TcpStream::from(fd))? })
    }

    /// Begins to connect: the outcome is in [`Self::failure`] once the socket can be written.
    pub(super) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&SockAddr::from(addr)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Self::new(socket.into())
    }

    /// Waits until something can be received. May be given up at any time.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // Not "relaxed": on epoll that never waits again once the socket was ready.
        self.inner.readable(false).await
    }

    /// Waits until something can be sent. May be given up at any time.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.inner.writable(false).await
    }

    /// Receives what is there; zero when the peer has finished.
    pub(super) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let socket = SockRef::from(self);
        loop {
            match (&*socket).read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Sends as much as the kernel takes.
    pub(super) fn send(&self, output: &mut Output) -> io::Result<Sent> {
        let socket = SockRef::from(self);
        let mut progress = false;
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = output.slices(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let attempt = match slices {
                [whole] => socket.send_with_flags(whole, libc::MSG_NOSIGNAL),
                parts => socket.send_vectored_with_flags(parts, libc::MSG_NOSIGNAL),
            };
            let taken = match attempt {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Sent::Some(progress));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            output.consume(taken);
            progress |= taken > 0;
            // The rest would not fit either: the next call would only say so.
            if taken < offered {
                return Ok(Sent::Some(progress));
            }
        }
        Ok(Sent::All)
    }

    /// Takes one connection out of a listener's queue.
    pub(super) fn accept(&self) -> io::Result<(OwnedFd, Address)> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (socket, peer) = SockRef::from(self).accept4(flags)?;
        let address = match peer.as_socket() {
            Some(addr) => Address::Ip(addr),
            None => local(&socket)?,
        };
        Ok((socket.into(), address))
    }

    /// Tells the peer that no more will be sent.
    pub(super) fn finish(&self) {
        // It fails when the peer is gone already, which receiving will show.
        SockRef::from(self).shutdown(Shutdown::Write).unwrap_or_default();
    }

    /// The same socket under another number, for another thread.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Why connecting failed.
    pub(super) fn failure(&self) -> io::Result<()> {
        SockRef::from(self).take_error()?.map_or(Ok(()), Err)
    }
}

/// Who is at the other end of a Unix socket.
///
/// Not with rustix: its process ids are never zero, and the kernel's are for a process that our
/// namespace does not have, such as one in another container.
#[expect(unsafe_code, reason = "the standard library has no stable call for it")]
fn local(socket: &Socket) -> io::Result<Address> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let size = size_of::<libc::ucred>();
    let mut len = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    let value = (&raw mut peer).cast();
    // SAFETY: `value` points to a live structure of plain numbers, `len` says how long it is, and
    // both outlive the call, which keeps neither. The descriptor is open while it is borrowed.
    let status = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut len) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Address::Local { pid: u32::try_from(peer.pid).unwrap_or(0), uid: peer.uid })
}
