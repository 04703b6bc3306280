//! The one place from which lines go to standard error, in order.
//!
//! A thread of its own writes them, because a terminal or pipe that nobody reads blocks the
//! writer. What it can not keep up with is counted and dropped.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use super::machine;
use crate::limits;
use crate::telemetry::log::{Format, Line};

/// Batches of lines that wait for the writer; their bytes are bounded by `limits::LOG_LEN_MAX`.
const BATCHES_MAX: usize = 8192;

/// Bytes written at once.
const WRITE_LEN: usize = 64 * 1024;

/// Bytes of one sentence of ours, such as an error with a path in it.
const SENTENCE_LEN_MAX: usize = 2048;

/// Where lines are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Log {
    format: Format,
    queue: SyncSender<Item>,
    backlog: Arc<Backlog>,
}

/// What waits, and what was lost.
#[derive(Debug, Default)]
struct Backlog {
    len: AtomicUsize,
    dropped: AtomicU64,
}

/// Something for the writer.
#[derive(Debug)]
enum Item {
    Lines(Vec<u8>),
    /// Say when everything before is written.
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the writer to standard error.
    pub(super) fn start(format: Option<Format>) -> io::Result<Self> {
        let terminal = if io::stderr().is_terminal() { Format::Text } else { Format::Json };
        Self::start_with(format.unwrap_or(terminal), io::stderr())
    }

    /// Starts a writer.
    pub(super) fn start_with(
        format: Format,
        out: impl io::Write + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, items) = mpsc::sync_channel(BATCHES_MAX);
        let backlog = Arc::new(Backlog::default());
        let writer = Writer { format, out, backlog: Arc::clone(&backlog) };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&items))?;
        Ok(Self { format, queue, backlog })
    }

    /// How lines look.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes a record about an event.
    pub(super) fn event(
        &self,
        event: &'static str,
        fill: impl for<'a> FnOnce(Line<'a>) -> Line<'a>,
    ) {
        let mut out = Vec::with_capacity(256);
        fill(Line::new(&mut out, self.format, machine::wall_clock(), event)).end();
        self.lines(out);
    }

    /// Writes a sentence for the operator: in text as it stands, in JSON as a record.
    pub(super) fn say(&self, event: &'static str, words: &str) {
        match self.format {
            Format::Json => {
                self.event(event, |line| line.text_up_to("message", words, SENTENCE_LEN_MAX));
            }
            Format::Text => {
                let mut out: String = words.chars().map(printable).collect();
                out.push('\n');
                self.lines(out.into_bytes());
            }
        }
    }

    /// Writes complete lines, or counts them as dropped.
    pub(super) fn lines(&self, lines: Vec<u8>) {
        let (len, count) = (lines.len(), lines.iter().filter(|byte| **byte == b'\n').count());
        let waiting = self.backlog.len.fetch_add(len, Ordering::Relaxed);
        let fits = waiting < limits::LOG_LEN_MAX;
        if !fits || self.queue.try_send(Item::Lines(lines)).is_err() {
            self.backlog.len.fetch_sub(len, Ordering::Relaxed);
            self.backlog.dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, but not longer than this.
    pub(super) fn flush(&self, timeout: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            written.recv_timeout(timeout).unwrap_or_default();
        }
    }

    /// Lines lost so far and not yet reported.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.backlog.dropped.load(Ordering::Relaxed)
    }
}

/// A character of a sentence, or what stands for it if it could break out of its line.
fn printable(character: char) -> char {
    if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

/// The thread that writes.
struct Writer<W> {
    format: Format,
    out: W,
    backlog: Arc<Backlog>,
}

impl<W: io::Write> Writer<W> {
    /// Writes until all handles are gone.
    fn run(mut self, items: &Receiver<Item>) {
        let mut batch = Vec::new();
        while let Ok(first) = items.recv() {
            let mut next = Some(first);
            while let Some(item) = next.take() {
                match item {
                    Item::Lines(lines) => batch.extend_from_slice(&lines),
                    Item::Flush(done) => {
                        self.write(&mut batch, machine::wall_clock());
                        done.try_send(()).unwrap_or_default();
                    }
                }
                if batch.len() < WRITE_LEN {
                    next = items.try_recv().ok();
                }
            }
            self.write(&mut batch, machine::wall_clock());
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>, now: SystemTime) {
        write_all(&mut self.out, batch);
        self.backlog.len.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
        let dropped = self.backlog.dropped.swap(0, Ordering::Relaxed);
        if 0 < dropped {
            Line::new(batch, self.format, now, "log_dropped").number("lines", dropped).end();
            write_all(&mut self.out, batch);
            batch.clear();
        }
    }
}

/// Writes everything, also to a descriptor that somebody made non-blocking. If nobody can ever
/// read it, it is lost.
fn write_all(out: &mut impl io::Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return,
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => thread::park_timeout(Duration::from_millis(5)),
                _ => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes only while the gate lets it through.
    struct Slow {
        gate: Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.gate.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_not_time() {
        let (open, gate) = mpsc::channel();
        let (written_in, written) = mpsc::channel();
        let log = Log::start_with(Format::Text, Slow { gate, written: written_in }).unwrap();
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        let fits = limits::LOG_LEN_MAX / line.len();
        (0..fits + 100).for_each(|_| log.lines(line.clone()));
        assert_eq!(log.dropped(), 100);
        (0..10_000).for_each(|_| open.send(()).unwrap());
        log.flush(Duration::from_secs(20));
        let text = String::from_utf8(written.try_iter().flatten().collect()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), fits);
        let report = text.lines().find(|line| line.contains("event=log_dropped")).unwrap();
        assert!(report.ends_with(" lines=100"), "{report}");
        log.say("hello", "still\nhere");
        log.flush(Duration::from_secs(20));
        let rest: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(rest).unwrap(), "still\u{fffd}here\n");
    }
}
