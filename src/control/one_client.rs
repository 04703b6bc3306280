//! The one client of `mcp-gateway stdio`: it is on our standard streams, and for a shard it is a
//! client like others, at the other end of a pair of sockets.
//!
//! Two threads pump, because standard streams can be anything: files and terminals, which nothing
//! can wait for. They keep nothing, so that who reads slowly slows down whoever writes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc as plain;
use std::thread;
use std::time::Duration;

use rustix::process::{getppid, getuid};
use tokio::sync::mpsc;

use super::serve::News;
use crate::ids::{Address, EntranceId, Peer, ShardId};
use crate::mesh::{Mesh, Parcel};

/// Bytes that a pump moves at once.
const PUMP_LEN: usize = 64 * 1024;

/// Pause where a standard stream does not wait, although we told it to.
const GLANCE: Duration = Duration::from_millis(20);

/// The client. It is served until its input ends.
#[derive(Debug)]
pub(super) struct OneClient {
    /// Says when everything for the client is written, by being closed.
    done: plain::Receiver<()>,
}

impl OneClient {
    /// Gives the client to the first shard. When nothing will be written for it any more, there
    /// are news.
    pub(super) fn start(mesh: &Mesh, news: mpsc::UnboundedSender<News>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        // Duplicates without buffers: what was read ahead or not written would be lost.
        let input = waiting_file(io::stdin())?;
        let output = waiting_file(io::stdout())?;
        let pid = getppid().map_or(0, |pid| u32::try_from(pid.as_raw_pid()).unwrap_or(0));
        let address = Address::Local { pid, uid: getuid().as_raw() };
        let peer = Peer { address, entrance: EntranceId(0) };
        mesh.begin();
        mesh.post(ShardId(0), Parcel::Accepted { fd: theirs.into(), peer })
            .map_err(|_full| io::Error::other("the shard takes no client"))?;

        let to_shard = ours.try_clone()?;
        thread::Builder::new().name("stdin".to_owned()).spawn(move || listen(input, &to_shard))?;
        let (writing, done) = plain::channel();
        let talk = move || {
            let outcome = talk(&ours, output);
            // Without a receiver the gateway is at its end.
            news.send(News::ClientLeft { outcome }).unwrap_or_default();
            drop(writing);
        };
        thread::Builder::new().name("stdout".to_owned()).spawn(talk)?;
        Ok(Self { done })
    }

    /// Waits until everything is written.
    pub(super) fn finish(&self, timeout: Duration) {
        // Closed, or out of time: nobody ever sends.
        self.done.recv_timeout(timeout).unwrap_or_default();
    }
}

/// One of our standard streams, which may have been left in a state where nothing waits for it.
fn waiting_file(stream: impl AsFd) -> io::Result<File> {
    wait_for(&stream);
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

fn wait_for(stream: impl AsFd) {
    // What knows no such state, such as a file, always waits.
    rustix::io::ioctl_fionbio(stream, false).unwrap_or_default();
}

/// The same, after somebody who shares the stream with us has changed that.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which may block")]
fn wait_for_again(stream: impl AsFd) {
    wait_for(stream);
    // In case it is changed back each time.
    thread::sleep(GLANCE);
}

/// From standard input to the shard.
fn listen(mut input: File, to_shard: &UnixStream) {
    let mut to_shard = to_shard;
    let mut buf = vec![0; PUMP_LEN];
    let mut is_between_lines = true;
    loop {
        match input.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => {
                let bytes = buf.get(..len).unwrap_or_default();
                is_between_lines = bytes.ends_with(b"\n");
                if to_shard.write_all(bytes).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_again(&input);
            }
            Err(_) => break,
        }
    }
    // Files that people write often lack the last line break. If the shard is gone, so is its
    // interest.
    if !is_between_lines {
        to_shard.write_all(b"\n").unwrap_or_default();
    }
    to_shard.shutdown(Shutdown::Write).unwrap_or_default();
}

/// From the shard to standard output. A client that does not read any more is no error.
fn talk(from_shard: &UnixStream, mut output: File) -> io::Result<()> {
    let mut source = from_shard;
    let mut buf = vec![0; PUMP_LEN];
    let outcome = loop {
        match source.read(&mut buf) {
            Ok(0) => break Ok(()),
            Ok(len) => match write_all(&mut output, buf.get(..len).unwrap_or_default()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break Ok(()),
                Err(error) => break Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The shard has given it up.
            Err(_) => break Ok(()),
        }
    };
    // The shard learns that nobody reads any more, and need not wait for us to say something.
    from_shard.shutdown(Shutdown::Both).unwrap_or_default();
    outcome
}

fn write_all(output: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_again(&*output);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
