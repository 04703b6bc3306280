//! Log lines: one record, one line, in JSON or in text.
//!
//! Values are escaped so that no record can break out of its line, and cut at
//! `limits::LOG_VALUE_LEN_MAX`. There is no way to log a message body or a header.
//!
//! Both formats escape alike, with the escapes of JSON: control characters, quotes, backslashes,
//! line separators and the invisible characters that turn text around. A byte that is not UTF-8
//! becomes `\xNN` (in JSON with the backslash doubled, so that the line still parses).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time=… event=… key=value`, for people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// A record being written. It is complete only after [`Line::end`].
#[derive(Debug)]
#[must_use = "a line without an end runs into the next one"]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl<'a> Line<'a> {
    /// Begins a record. Events and keys are literals of ours: they are not escaped.
    pub fn new(out: &'a mut Vec<u8>, format: Format, now: SystemTime, event: &'static str) -> Self {
        let (before, between, after): (&[u8], &[u8], &[u8]) = match format {
            Format::Text => (b"time=", b" event=", b""),
            Format::Json => (b"{\"time\":\"", b"\",\"event\":\"", b"\""),
        };
        out.extend_from_slice(before);
        out.extend_from_slice(&timestamp(now));
        out.extend_from_slice(between);
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(after);
        Self { out, format }
    }

    /// Adds text from anywhere, cut at `limits::LOG_VALUE_LEN_MAX`.
    pub fn text(self, key: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.text_up_to(key, value, limits::LOG_VALUE_LEN_MAX)
    }

    /// Adds text from anywhere, cut after this many bytes.
    pub fn text_up_to(
        mut self,
        key: &'static str,
        value: impl AsRef<[u8]>,
        len_max: usize,
    ) -> Self {
        let (value, is_cut) = cut(value.as_ref(), len_max);
        self.key(key);
        let quoted = self.format == Format::Json || is_cut || !value.iter().copied().all(is_bare);
        if !quoted && !value.is_empty() {
            self.out.extend_from_slice(value);
            return self;
        }
        self.out.push(b'"');
        escape(self.out, value, self.format);
        if is_cut {
            self.out.extend_from_slice("…".as_bytes());
        }
        self.out.push(b'"');
        self
    }

    /// Adds a number.
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        self.key(key);
        push_number(self.out, value);
        self
    }

    /// Ends the record.
    pub fn end(self) {
        let end: &[u8] = match self.format {
            Format::Text => b"\n",
            Format::Json => b"}\n",
        };
        self.out.extend_from_slice(end);
    }

    fn key(&mut self, key: &'static str) {
        let (before, after): (&[u8], &[u8]) = match self.format {
            Format::Text => (b" ", b"="),
            Format::Json => (b",\"", b"\":"),
        };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(after);
    }
}

/// The front of a value, at most so long, ending between two characters; and whether it was cut.
fn cut(value: &[u8], len_max: usize) -> (&[u8], bool) {
    if value.len() <= len_max {
        return (value, false);
    }
    // A character has at most three continuation bytes; more are not UTF-8 and cut anywhere.
    let is_start = |at: usize| value.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = (len_max.saturating_sub(3)..=len_max).rev().find(|at| is_start(*at));
    (value.get(..end.unwrap_or(len_max)).unwrap_or_default(), true)
}

/// Whether text needs no quotes in [`Format::Text`] on account of this byte.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

fn escape(out: &mut Vec<u8>, value: &[u8], format: Format) {
    if value.iter().all(|byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(value);
        return;
    }
    let invalid: &[u8] = match format {
        Format::Text => b"\\x",
        Format::Json => b"\\\\x",
    };
    for chunk in value.utf8_chunks() {
        chunk.valid().chars().for_each(|character| escape_char(out, character));
        for byte in chunk.invalid() {
            out.extend_from_slice(invalid);
            push_hex(out, u16::from(*byte), 2);
        }
    }
}

fn escape_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => {
            out.push(b'\\');
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if is_unsafe(character) => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                push_hex(out, *unit, 4);
            }
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Characters that move the cursor, end a line, or make text look like other text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The lowest `digits` hexadecimal digits.
fn push_hex(out: &mut Vec<u8>, value: u16, digits: u8) {
    for shift in (0..digits).rev() {
        let digit = (value >> (4 * shift)) & 0xf;
        let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
        out.extend_from_slice(digit.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = decimal(value % 10);
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// The last decimal digit of a number, in ASCII.
fn decimal(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

/// RFC 3339, UTC, with milliseconds. Times before 1970 are written as 1970, and those after 9999
/// wrap: neither happens.
pub fn timestamp(now: SystemTime) -> [u8; 24] {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), u64::from(since.subsec_millis()));
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let [y0, y1, y2, y3, _, m0, m1, _, d0, d1, _, h0, h1, _, n0, n1, _, s0, s1, _, f0, f1, f2, _] =
        &mut text;
    for (tens, ones, value) in
        [(m0, m1, month), (d0, d1, day), (h0, h1, hour), (n0, n1, minute), (s0, s1, second)]
    {
        (*tens, *ones) = (decimal(value / 10), decimal(value));
    }
    (*y0, *y1) = (decimal(year / 1000), decimal(year / 100));
    (*y2, *y3) = (decimal(year / 10), decimal(year));
    (*f0, *f1, *f2) = (decimal(millis / 100), decimal(millis / 10), decimal(millis));
    text
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are taken to begin on 1 March, so that the leap day is the last of its year; months then
/// have 30.6 days on average, which `153 / 5` reproduces exactly.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // Since 0000-03-01.
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next) = match month_from_march {
        0..10 => (month_from_march + 3, 0),
        _ => (month_from_march - 9, 1),
    };
    (400 * era + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What an attacker may get into a value, and how it is written inside the quotes.
    const HOSTILE: &[(&[u8], &str)] = &[
        (b"a\nevent=admin ok", r"a\nevent=admin ok"),
        (b"a\r\n{\"event\":\"x\"}", r#"a\r\n{\"event\":\"x\"}"#),
        (b"\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        (b"\",\"level\":\"root", r#"\",\"level\":\"root"#),
        (b"back\\slash", r"back\\slash"),
        ("a\u{2028}b\u{2029}c\u{85}d".as_bytes(), r"a\u2028b\u2029c\u0085d"),
        ("\u{202e}txt.exe\u{2066}".as_bytes(), r"\u202etxt.exe\u2066"),
        ("tag \u{e0041}".as_bytes(), r"tag \udb40\udc41"),
        (b"nul\0tab\tdel\x7f", r"nul\u0000tab\tdel\u007f"),
        ("grüße 日本 😀".as_bytes(), "grüße 日本 😀"),
    ];

    #[test]
    fn every_record_is_one_line_and_parses() {
        for (value, _) in HOSTILE {
            let line = written(Format::Json, value);
            let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(parsed["v"].as_str().unwrap().as_bytes(), *value);
            assert_eq!(parsed["n"], 7);
        }
        for format in [Format::Json, Format::Text] {
            for byte in 0..=255 {
                check_is_one_line(&written(format, &[b'a', byte, b'b']));
            }
            for (value, escaped) in HOSTILE {
                let line = written(format, value);
                check_is_one_line(&line);
                let line = String::from_utf8(line).unwrap();
                assert!(line.contains(escaped), "{line} lacks {escaped}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        assert!(text(b"a\xff\xc3b").ends_with(" v=\"a\\xff\\xc3b\" n=7\n"));
        let line = written(Format::Json, b"a\xff\xc3b");
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(parsed["v"], "a\\xff\\xc3b");
    }

    #[test]
    fn text_is_quoted_only_when_it_must_be() {
        let front = "time=2026-11-24T02:03:04.056Z event=test v=";
        let check = |value: &str, want: &str| {
            assert_eq!(text(value.as_bytes()), format!("{front}{want} n=7\n"));
        };
        check("plain/path:80,x", "plain/path:80,x");
        check("", "\"\"");
        check("two words", "\"two words\"");
        check("k=v", "\"k=v\"");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let max = limits::LOG_VALUE_LEN_MAX;
        for pad in 0..4 {
            let (pad, fitting) = ("a".repeat(pad), (max - pad) / 4);
            let value = format!("{pad}{}", "😀".repeat(max));
            let parsed: serde_json::Value =
                serde_json::from_slice(&written(Format::Json, value.as_bytes())).unwrap();
            assert_eq!(parsed["v"], format!("{pad}{}…", "😀".repeat(fitting)));
        }
        check_is_one_line(&written(Format::Json, &[0x80; 1000]));
        let fits = "x".repeat(max);
        assert!(text(fits.as_bytes()).contains(&format!("={fits} ")));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |seconds, want: &str| {
            let now = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(timestamp(now).as_slice(), want.as_bytes());
        };
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_399, "2000-02-28T23:59:59.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(951_868_800, "2000-03-01T00:00:00.007Z");
        check(1_735_689_599, "2024-12-31T23:59:59.007Z");
        check(1_795_485_784, "2026-11-24T02:03:04.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for (value, want) in [(0, "0"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(out, want.as_bytes());
        }
    }

    fn text(value: &[u8]) -> String {
        String::from_utf8(written(Format::Text, value)).unwrap()
    }

    fn written(format: Format, value: &[u8]) -> Vec<u8> {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_485_784_056);
        let mut out = Vec::new();
        Line::new(&mut out, format, now, "test").text("v", value).number("n", 7).end();
        out
    }

    #[track_caller]
    fn check_is_one_line(line: &[u8]) {
        let (last, rest) = line.split_last().unwrap();
        assert_eq!(*last, b'\n');
        let text = std::str::from_utf8(rest).unwrap();
        assert!(!text.chars().any(is_unsafe), "{text:?}");
    }
}
