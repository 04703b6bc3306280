//! A fake MCP server over HTTP, made to cost as little as possible: the backend of measurements.
//!
//! It answers both eras on every path. Sessions are numbers; it remembers how many it has opened
//! and nothing else. Its tools are in `answer`.

mod answer;

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// Bytes received at once.
const SCRATCH_LEN: usize = 64 * 1024;
/// The most bytes of one request.
const REQUEST_LEN_MAX: usize = 64 * 1024 * 1024;
const LISTENER: Token = Token(usize::MAX);

/// How requests are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// With a JSON body of known length, unless a progress token asks for events.
    #[default]
    Json,
    /// Always with an event stream.
    Events,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    opened: AtomicU64,
    deleted: AtomicU64,
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Listens and serves on threads of its own.
    pub fn start(addr: SocketAddr, threads: usize, style: Style) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4096)?;
        let listener = std::net::TcpListener::from(socket);
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut started = Self { addr, shared, threads: Vec::new() };
        for _ in 0..threads {
            let listener = TcpListener::from_std(listener.try_clone()?);
            let shared = Arc::clone(&started.shared);
            let worker = Worker::new(listener, shared, style)?;
            let thread = thread::Builder::new().name("fake-mcp".into());
            started.threads.push(thread.spawn(move || worker.run())?);
        }
        Ok(started)
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sessions opened and not deleted.
    pub fn sessions(&self) -> u64 {
        let deleted = self.shared.deleted.load(Ordering::Relaxed);
        self.shared.opened.load(Ordering::Relaxed).saturating_sub(deleted)
    }

    /// Serves until a thread fails.
    pub fn wait(mut self) -> io::Result<()> {
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| io::Error::other("a server thread panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has nothing to report that anybody would still read.
            drop(thread.join());
        }
    }
}

struct Conn {
    stream: TcpStream,
    /// Bytes of a request that is not whole.
    pending: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

/// Why a connection is over.
#[derive(Debug)]
struct Over;

struct Worker {
    poll: Poll,
    listener: TcpListener,
    shared: Arc<Shared>,
    style: Style,
    conns: Slab<Conn>,
    scratch: Vec<u8>,
}

impl Worker {
    fn new(mut listener: TcpListener, shared: Arc<Shared>, style: Style) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let scratch = vec![0_u8; SCRATCH_LEN];
        Ok(Self { poll, listener, shared, style, conns: Slab::new(), scratch })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.shared.stopping.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                } else if self.turn(event.token().0, event.is_writable()).is_err() {
                    drop(self.conns.try_remove(event.token().0));
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                // A client that is gone already, or another thread was faster.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => continue,
                Err(_) => return Ok(()),
            };
            stream.set_nodelay(true)?;
            let entry = self.conns.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Conn { stream, pending: Vec::new(), out: Vec::new(), written: 0 });
        }
    }

    fn turn(&mut self, index: usize, is_writable: bool) -> Result<(), Over> {
        let Some(conn) = self.conns.get_mut(index) else { return Ok(()) };
        if is_writable {
            conn.flush()?;
        }
        loop {
            let len = match conn.stream.read(&mut self.scratch) {
                Ok(0) => return Err(Over),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            };
            let input = self.scratch.get(..len).unwrap_or_default();
            conn.take(input, &self.shared, self.style)?;
            conn.flush()?;
            if len < SCRATCH_LEN {
                return Ok(());
            }
        }
    }
}

impl Conn {
    /// Answers the whole requests and keeps the rest.
    fn take(&mut self, input: &[u8], shared: &Shared, style: Style) -> Result<(), Over> {
        if self.pending.is_empty() {
            let used = answer::answer_all(input, &mut self.out, shared, style)?;
            self.pending.extend_from_slice(input.get(used..).unwrap_or_default());
        } else {
            self.pending.extend_from_slice(input);
            let used = answer::answer_all(&self.pending, &mut self.out, shared, style)?;
            self.pending.drain(..used);
        }
        if REQUEST_LEN_MAX < self.pending.len() { Err(Over) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Over> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}
