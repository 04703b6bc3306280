//! What child processes write to their standard error: cut into lines, bounded in length and rate.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::log::Log;

/// Bytes of one line; the rest of it is dropped.
pub(super) const LINE_LEN_MAX: usize = 4096;

/// Lines of one process that are written at once at most.
const BURST: u32 = 1000;

/// Time in which one more line may be written: 200 in a second.
const INTERVAL: Duration = Duration::from_millis(5);

/// Pause after each [`RECV_LEN`] bytes of a process that writes more than is logged, so that it
/// can not keep this thread busy.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// Bytes read at once.
const RECV_LEN: usize = 16 * 1024;

/// Logs the lines of a process until nobody can write any more.
pub(super) async fn forward(pipe: OwnedFd, server: String, pid: u64, log: Log) {
    let Ok(mut pipe) = Receiver::from_owned_fd(pipe) else { return };
    let mut lines = Lines::default();
    let mut rate: Option<Rate> = None;
    let mut buf = Vec::with_capacity(RECV_LEN);
    loop {
        buf.clear();
        let is_end = !matches!(pipe.read_buf(&mut buf).await, Ok(1..));
        let now = tokio::time::Instant::now().into_std();
        let rate = rate.get_or_insert_with(|| Rate::new(now));
        let mut write = |line: &[u8]| match rate.take(now) {
            Verdict::Drop => {}
            Verdict::Write { dropped } => {
                report_dropped(&log, &server, pid, dropped);
                log.event("stderr", |record| {
                    let record = record.text("server", &server).number("pid", pid);
                    record.text_up_to("line", line, LINE_LEN_MAX)
                });
            }
        };
        buf.split_inclusive(|byte| *byte == b'\n').for_each(|part| lines.push(part, &mut write));
        if is_end {
            lines.push(b"\n", &mut write);
            return report_dropped(&log, &server, pid, rate.dropped);
        }
        // Dropped lines, or bytes that are no lines: nobody reads that fast.
        let is_flood = RECV_LEN <= buf.len();
        if 0 < rate.dropped || is_flood {
            tokio::time::sleep(FLOOD_PAUSE).await;
        }
    }
}

fn report_dropped(log: &Log, server: &str, pid: u64, dropped: u64) {
    if 0 < dropped {
        log.event("stderr_dropped", |record| {
            record.text("server", server).number("pid", pid).number("lines", dropped)
        });
    }
}

/// Puts lines together.
#[derive(Debug, Default)]
struct Lines {
    /// The line so far: one byte more than is kept says that it was longer.
    line: Vec<u8>,
}

impl Lines {
    /// Takes bytes that hold at most one line feed, at their end. Empty lines are left out.
    fn push(&mut self, part: &[u8], write: &mut impl FnMut(&[u8])) {
        let (body, is_end) = match part.strip_suffix(b"\n") {
            Some(body) => (body, true),
            None => (part, false),
        };
        let room = (LINE_LEN_MAX + 1).saturating_sub(self.line.len());
        self.line.extend(body.iter().take(room));
        if is_end {
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if !line.is_empty() {
                write(line);
            }
            self.line.clear();
        }
    }
}

/// How many lines may be written: a bucket that stores the moment at which it is full again.
#[derive(Debug)]
struct Rate {
    full_at: Instant,
    dropped: u64,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is written, after a line that says how many were dropped before it.
    Write {
        /// How many.
        dropped: u64,
    },
    /// It is counted.
    Drop,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { full_at: now, dropped: 0 }
    }

    fn take(&mut self, now: Instant) -> Verdict {
        let full_at = self.full_at.max(now) + INTERVAL;
        if INTERVAL * BURST < full_at.duration_since(now) {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.full_at = full_at;
        Verdict::Write { dropped: std::mem::take(&mut self.dropped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let text = b"one\n\ntwo\r\nthree";
        for cut in 0..text.len() {
            let (front, back) = text.split_at(cut);
            assert_eq!(lines_of(&[front, back]), ["one", "two", "three"]);
        }
    }

    #[test]
    fn a_long_line_is_cut_and_does_not_touch_the_next() {
        let long = vec![b'x'; 10 * LINE_LEN_MAX];
        let lines = lines_of(&[&long, &long, b"\nnext\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LINE_LEN_MAX + 1);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_burst_then_one_line_per_interval() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for _ in 0..BURST {
            assert_eq!(rate.take(start), Verdict::Write { dropped: 0 });
        }
        assert_eq!(rate.take(start), Verdict::Drop);
        assert_eq!(rate.take(start), Verdict::Drop);
        assert_eq!(rate.take(start + INTERVAL), Verdict::Write { dropped: 2 });
        assert_eq!(rate.take(start + INTERVAL), Verdict::Drop);
    }

    fn lines_of(parts: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        let mut write = |line: &[u8]| found.push(String::from_utf8(line.to_vec()).unwrap());
        for part in parts.iter().copied().chain([b"\n".as_slice()]) {
            part.split_inclusive(|byte| *byte == b'\n').for_each(|one| lines.push(one, &mut write));
        }
        found
    }
}
