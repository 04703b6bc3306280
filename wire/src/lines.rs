//! Newline-delimited messages (MCP, basic/transports/stdio): one JSON text per line.
//!
//! A line that lies in the input as a whole is lent from there; one that is cut is put together.
//! An over-long one is skipped to its end, so that those behind it are not lost.

use alloc::vec::Vec;
use core::mem;

/// One line, or what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'r> {
    /// Without its line end.
    Whole(&'r [u8]),
    /// It has more bytes than the bound, and is skipped.
    TooLong,
}

/// Turns a stream of bytes, cut anywhere, into lines.
#[derive(Debug, Default)]
pub struct LineReader {
    /// The front of a line that is not complete; or the last that was lent.
    line: Vec<u8>,
    /// `line` has been lent.
    is_lent: bool,
    /// The rest of an over-long line is to come.
    is_skipping: bool,
}

impl LineReader {
    /// Between two lines.
    pub const fn new() -> Self {
        Self { line: Vec::new(), is_lent: false, is_skipping: false }
    }

    /// Reads a line of up to `len_max` bytes from the front of `input`, and leaves what it has not
    /// read. `None`: all is read, and no line is complete.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
        len_max: usize,
    ) -> Option<Line<'r>> {
        if mem::take(&mut self.is_lent) {
            self.line = Vec::new();
        }
        loop {
            let bytes: &'i [u8] = input;
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                *input = &[];
                return self.keep(bytes, len_max);
            };
            let (line, rest) = bytes.split_at_checked(end).unwrap_or_default();
            *input = rest.get(1..).unwrap_or_default();
            if mem::take(&mut self.is_skipping) {
                continue;
            }
            if len_max < self.line.len() + line.len() {
                self.line = Vec::new();
                return Some(Line::TooLong);
            }
            if self.line.is_empty() {
                return Some(Line::Whole(line));
            }
            self.line.extend_from_slice(line);
            self.is_lent = true;
            return Some(Line::Whole(&self.line));
        }
    }

    /// Bytes of a line that is not complete.
    pub fn kept_len(&self) -> usize {
        if self.is_lent { 0 } else { self.line.len() }
    }

    /// Keeps the front of a line.
    fn keep(&mut self, bytes: &[u8], len_max: usize) -> Option<Line<'static>> {
        if self.is_skipping {
            return None;
        }
        if len_max < self.line.len() + bytes.len() {
            self.line = Vec::new();
            self.is_skipping = true;
            return Some(Line::TooLong);
        }
        self.line.extend_from_slice(bytes);
        None
    }
}

/// Appends the parts of a message as one line. A line break in JSON stands between values, where
/// a blank means the same.
pub fn write_line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let from = out.len();
        out.extend_from_slice(part);
        if memchr::memchr2(b'\n', b'\r', part).is_some() {
            let written = out.get_mut(from..).unwrap_or_default();
            written.iter_mut().filter(|byte| is_break(byte)).for_each(|byte| *byte = b' ');
        }
    }
    out.push(b'\n');
}

/// The properties that hold for every input. The fuzzer and the tests both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let (len_max, bytes) = bytes.split_first().map_or((0, bytes), |(len, rest)| (*len, rest));
    let len_max = usize::from(len_max);
    let whole = read(bytes, bytes.len().max(1), len_max);
    for step in 1..4 {
        assert_eq!(read(bytes, step, len_max), whole, "lines depend on where the input is cut");
    }
    // What is behind the last line break is not a line yet; an over-long one is known before.
    let mut expected: Vec<Option<Vec<u8>>> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| (line.len() <= len_max).then(|| line.to_vec()))
        .collect();
    if expected.last().is_some_and(Option::is_some) {
        expected.pop();
    }
    assert_eq!(whole, expected);
}

fn read(bytes: &[u8], step: usize, len_max: usize) -> Vec<Option<Vec<u8>>> {
    let mut reader = LineReader::new();
    let mut lines = Vec::new();
    for mut piece in bytes.chunks(step) {
        while let Some(line) = reader.next(&mut piece, len_max) {
            lines.push(match line {
                Line::Whole(line) => Some(line.to_vec()),
                Line::TooLong => None,
            });
        }
        assert!(piece.is_empty(), "input was left");
        assert!(reader.kept_len() <= len_max, "more is kept than may be");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_wherever_the_input_is_cut() {
        let text = b"{\"a\":1}\n\n{}\r\nlong line here\nlast\nopen";
        for len_max in [0, 1, 4, 8, 255] {
            let mut input = alloc::vec![len_max];
            input.extend_from_slice(text);
            fuzz(&input);
        }
        let lines = read(text, 3, 8);
        let expected: [Option<&[u8]>; 5] =
            [Some(b"{\"a\":1}"), Some(b""), Some(b"{}\r"), None, Some(b"last")];
        assert_eq!(lines, expected.map(|line| line.map(<[u8]>::to_vec)));
    }

    #[test]
    fn an_endless_line_is_told_once_and_costs_nothing() {
        let mut reader = LineReader::new();
        let mut told = 0;
        for _ in 0..100 {
            let mut piece: &[u8] = &[b'x'; 1000];
            told += usize::from(reader.next(&mut piece, 5000) == Some(Line::TooLong));
        }
        assert_eq!((told, reader.kept_len()), (1, 0));
        let mut rest: &[u8] = b"xx\nnext\n";
        assert_eq!(reader.next(&mut rest, 5000), Some(Line::Whole(b"next")));
    }

    #[test]
    fn a_message_is_written_as_one_line() {
        let mut out = Vec::new();
        write_line(&mut out, &[b"{\"id\":", b"1,\n\"a\":\r\n", b"2}"]);
        assert_eq!(out, b"{\"id\":1, \"a\":  2}\n");
        let mut input = &*out;
        let mut reader = LineReader::new();
        assert_eq!(reader.next(&mut input, 99), Some(Line::Whole(b"{\"id\":1, \"a\":  2}")));
    }

    #[test]
    fn random_bytes_keep_the_properties() {
        let mut state = 1_u32;
        for _ in 0..400 {
            let mut input = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                input.push(b"\x05ab\n\r"[(state >> 24) as usize % 5]);
            }
            fuzz(&input);
        }
    }
}
