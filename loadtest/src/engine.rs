//! Many connections on one thread, each with one request on the way at most.
//!
//! What is sent and what is expected is the [`Script`]'s; this moves bytes and keeps the time.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock;
use crate::inbox::{Answer, Inbox};

/// Bytes received at once.
const SCRATCH_LEN: usize = 64 * 1024;

/// What connections say.
pub trait Script {
    /// Appends the next request of a connection; false: it has none, and rests.
    fn next(&mut self, conn: usize, now: Instant, out: &mut Vec<u8>) -> bool;

    /// A request has its whole answer.
    fn answered(&mut self, conn: usize, answer: &Answer, took: Duration);

    /// A request will have no answer, and the connection is gone.
    fn failed(&mut self, conn: usize, why: &str);
}

struct Conn {
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    written: usize,
    sent_at: Instant,
    is_waiting: bool,
}

/// The connections. They are numbered in the order in which they were added.
pub struct Engine {
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn>>,
    scratch: Vec<u8>,
    waiting: usize,
}

impl Engine {
    /// An engine without connections.
    pub fn new() -> io::Result<Self> {
        let scratch = vec![0_u8; SCRATCH_LEN];
        let events = Events::with_capacity(1024);
        Ok(Self { poll: Poll::new()?, events, conns: Vec::new(), scratch, waiting: 0 })
    }

    /// Opens one more connection. To a loopback address they come from eight others in turn, for
    /// one has no more than 28,000 ports.
    pub fn connect(&mut self, addr: SocketAddr) -> io::Result<()> {
        let index = self.conns.len();
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        if addr.ip() == Ipv4Addr::LOCALHOST {
            let host = u8::try_from(2 + index % 8).unwrap_or(1);
            let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
            socket.bind(&source.into())?;
        }
        socket.connect(&addr.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest)?;
        self.conns.push(Some(Conn {
            stream,
            inbox: Inbox::default(),
            out: Vec::new(),
            written: 0,
            sent_at: clock::now(),
            is_waiting: false,
        }));
        Ok(())
    }

    /// Lets these connections speak until all of them rest. An error: nothing has moved for so
    /// long, though answers are still due.
    pub fn run(
        &mut self,
        conns: Range<usize>,
        script: &mut impl Script,
        patience: Duration,
    ) -> io::Result<()> {
        for index in conns {
            self.speak(index, script, clock::now());
            // Keeps the first burst from being one long queue of ours.
            if index % 64 == 63 {
                self.turn(script, Duration::ZERO)?;
            }
        }
        let mut last = clock::now();
        while 0 < self.waiting {
            if self.turn(script, Duration::from_millis(500))? {
                last = clock::now();
            } else if patience < clock::now().duration_since(last) {
                let text = format!("{} requests have had no answer for {patience:?}", self.waiting);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
        Ok(())
    }

    /// Sends bytes on a connection that rests, whatever comes back.
    pub fn shout(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return Ok(()) };
        conn.stream.write_all(bytes)
    }

    /// How many connections there were.
    pub fn count(&self) -> usize {
        self.conns.len()
    }

    /// How many are still open, as far as known.
    pub fn open_count(&self) -> usize {
        self.conns.iter().flatten().count()
    }

    /// Closes a connection.
    pub fn close(&mut self, index: usize) {
        if let Some(conn) = self.conns.get_mut(index).and_then(Option::take)
            && conn.is_waiting
        {
            self.waiting -= 1;
        }
    }

    /// One look at the kernel; false: nothing there.
    fn turn(&mut self, script: &mut impl Script, timeout: Duration) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            other => other?,
        }
        let ready: Vec<_> =
            self.events.iter().map(|event| (event.token().0, event.is_writable())).collect();
        for (index, is_writable) in &ready {
            if *is_writable {
                self.write(*index, script);
            }
            self.read(*index, script);
        }
        Ok(!ready.is_empty())
    }

    fn speak(&mut self, index: usize, script: &mut impl Script, now: Instant) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        conn.out.clear();
        conn.written = 0;
        if !script.next(index, now, &mut conn.out) {
            return;
        }
        conn.sent_at = now;
        conn.is_waiting = true;
        self.waiting += 1;
        self.write(index, script);
    }

    fn write(&mut self, index: usize, script: &mut impl Script) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        while let Some(rest) = conn.out.get(conn.written..).filter(|rest| !rest.is_empty()) {
            match conn.stream.write(rest) {
                Ok(len) => conn.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(index, script, &error.to_string()),
            }
        }
    }

    fn read(&mut self, index: usize, script: &mut impl Script) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(Some(conn)) = self.conns.get_mut(index) {
            let len = match conn.stream.read(&mut scratch) {
                Ok(0) => {
                    self.ended(index, script);
                    break;
                }
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.fail(index, script, &error.to_string());
                    break;
                }
            };
            self.take(index, script, scratch.get(..len).unwrap_or_default());
            // A short read has emptied the socket (epoll(7), question 9).
            if len < scratch.len() {
                break;
            }
        }
        self.scratch = scratch;
    }

    fn take(&mut self, index: usize, script: &mut impl Script, mut input: &[u8]) {
        while !input.is_empty() {
            let Some(Some(conn)) = self.conns.get_mut(index) else { return };
            match conn.inbox.feed(&mut input) {
                Ok(false) => {}
                Ok(true) if !conn.is_waiting => {
                    return self.fail(index, script, "an answer that nobody asked for");
                }
                Ok(true) => self.answered(index, script),
                Err(error) => return self.fail(index, script, &error.to_string()),
            }
        }
    }

    fn answered(&mut self, index: usize, script: &mut impl Script) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let now = clock::now();
        conn.is_waiting = false;
        self.waiting -= 1;
        script.answered(index, &conn.inbox.answer, now.duration_since(conn.sent_at));
        if conn.inbox.answer.keep_alive {
            self.speak(index, script, now);
        } else {
            self.close(index);
        }
    }

    fn ended(&mut self, index: usize, script: &mut impl Script) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        match conn.inbox.end() {
            Ok(true) => self.answered(index, script),
            Ok(false) => self.fail(index, script, "the connection was closed"),
            Err(error) => self.fail(index, script, &error.to_string()),
        }
    }

    fn fail(&mut self, index: usize, script: &mut impl Script, why: &str) {
        let was_waiting = matches!(self.conns.get(index), Some(Some(conn)) if conn.is_waiting);
        self.close(index);
        if was_waiting {
            script.failed(index, why);
        }
    }
}
