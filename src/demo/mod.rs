//! The built-in demo server: what `mcp-gateway demo` puts behind the gateway.
//!
//! A complete MCP server on stdin and stdout, both eras in one process. It is
//! not part of the gateway: nothing else here uses it, and it uses nothing else.
//!
//! ```text
//! stdin -> reader --Event--> server --line--> writer -> stdout
//!                   ^          | Signal
//!                   +-- worker <  (one per slow call)
//! ```
//!
//! The server thread owns all state and answers quick requests itself. Slow
//! ones run on a worker, which can only talk to the server.

mod message;
mod server;
mod legacy;
mod modern;
mod step;
mod worker;
mod tools;
mod resources;
mod prompts;
mod samples;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read as _, Write as _};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use server::Server;
use worker::Event;

/// The longest line accepted; `large` answers stay below it too.
const LINE_LEN_MAX: usize = 32 * 1024 * 1024;
/// Events waiting for the server; a full queue holds back reader and workers.
const EVENTS_MAX: usize = 64;
/// Lines waiting for stdout; a full queue holds back the server.
const LINES_MAX: usize = 64;
/// How long lines already written may take to drain after stdin has closed.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves MCP on stdin and stdout until stdin ends or stdout breaks.
///
/// # Errors
///
/// Only if the reader or writer thread cannot be started.
pub fn serve_stdio() -> io::Result<()> {
    let (events, inbox) = mpsc::sync_channel(EVENTS_MAX);
    let (lines, outbox) = mpsc::sync_channel(LINES_MAX);
    let (drained, done) = mpsc::channel::<()>();
    let arrivals = events.clone();
    thread::Builder::new().name("demo-read".into()).spawn(move || {
        read_lines(&mut io::stdin().lock(), &arrivals);
        drop(arrivals.send(Event::Closed));
    })?;
    thread::Builder::new().name("demo-write".into()).spawn(move || {
        // A broken stdout ends this thread; the server sees its lines refused and stops.
        drop(write_lines(&outbox));
        drop(outbox);
        drop(drained);
    })?;
    let mut server = Server::new(lines, events);
    while let Ok(event) = inbox.recv() {
        if server.handle(event).is_break() {
            break;
        }
    }
    drop(server);
    // Nothing is ever sent here: the wait ends when the writer is through.
    let _closed = done.recv_timeout(DRAIN);
    Ok(())
}

/// Cuts the input into lines, until it ends, fails or nobody listens.
fn read_lines(input: &mut impl BufRead, events: &SyncSender<Event>) {
    let limit = u64::try_from(LINE_LEN_MAX).unwrap_or(u64::MAX);
    let mut skipping = false;
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let whole = line.ends_with(b"\n") || line.len() < LINE_LEN_MAX;
        let event = match (skipping, whole) {
            (false, true) if line.trim_ascii().is_empty() => continue,
            (false, true) => Event::Received { line },
            (false, false) => Event::Overrun,
            // The rest of a line whose beginning was refused.
            (true, _) => {
                skipping = !whole;
                continue;
            }
        };
        skipping = !whole;
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Writes each line as it comes; flushes whenever none is waiting.
fn write_lines(outbox: &Receiver<String>) -> io::Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    while let Ok(first) = outbox.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            stdout.write_all(line.as_bytes())?;
            stdout.write_all(b"\n")?;
            next = outbox.try_recv().ok();
        }
        stdout.flush()?;
    }
    Ok(())
}
