//! Events to bytes: each writer appends to a buffer of the caller's and does nothing else.
//!
//! Not a stream: when to write a comment, and whether to send an id at all, is the caller's.

use alloc::vec::Vec;

/// A comment that keeps a quiet stream open (§9.2.7).
pub const COMMENT: &[u8] = b":\n\n";

/// What ends an event, behind [`write_event_head`] and its data.
pub const EVENT_END: &[u8] = b"\n\n";

/// Appends one event with all its lines. `data` may hold any line breaks; the reader gets LF for
/// each. A name or an id with a line break in it, or an id with a NUL, cannot be sent and is left
/// out.
pub fn write_event(
    out: &mut Vec<u8>,
    name: Option<&str>,
    id: Option<&[u8]>,
    retry_ms: Option<u64>,
    data: &[u8],
) {
    if let Some(name) = name
        && is_one_line(name.as_bytes())
    {
        write_line(out, b"event: ", name.as_bytes());
    }
    write_id(out, id);
    if let Some(retry_ms) = retry_ms {
        write_line(out, b"retry: ", alloc::format!("{retry_ms}").as_bytes());
    }
    let mut rest = data;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        let (line, tail) = rest.split_at_checked(end).unwrap_or_default();
        write_line(out, b"data: ", line);
        rest = match tail {
            [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
            [] => &[],
        };
    }
    write_line(out, b"data: ", rest);
    out.push(b'\n');
}

/// Appends the front of an event, up to `data: `, for data that has no line break in it (one line
/// of JSON). The data and [`EVENT_END`] follow.
pub fn write_event_head(out: &mut Vec<u8>, id: Option<&[u8]>) {
    write_id(out, id);
    out.extend_from_slice(b"data: ");
}

fn write_id(out: &mut Vec<u8>, id: Option<&[u8]>) {
    if let Some(id) = id
        && is_one_line(id)
        && memchr::memchr(0, id).is_none()
    {
        write_line(out, b"id: ", id);
    }
}

fn write_line(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn is_one_line(bytes: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', bytes).is_none()
}
