//! HTTP/1.1 messages (RFC 9112): heads, the framing of content, and writers.
//!
//! Not a connection: nothing here knows what was asked before, what a header means to a proxy, or
//! when to give up. `httparse` finds the fields; everything it is lenient about is refused here,
//! because two parsers that disagree on where a message ends are a request-smuggling hole.
//!
//! Invariants:
//! - The answer depends only on the first [`Limits::head_len_max`] bytes, and more bytes never
//!   change an answer other than [`Decoded::Incomplete`].
//! - A head that is accepted has exactly one possible [`Body`].
//! - After any error the connection cannot be used again: answer, then close it.

mod head;
mod fields;
mod framing;
mod error;
mod body;
mod write;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod smuggling;

pub use body::{BodyDecoder, BodyError, BodyPart, CHUNK_EXTENSION_LEN_MAX, TRAILERS_LEN_MAX};
pub use error::HeadError;
pub use fields::{HEADERS_MAX, HeaderSlots, Headers, is_field_value, is_token};
pub use head::{Body, Limits, RequestHead, ResponseHead, Version, request, response};
pub use write::{
    CHUNK_END, HEAD_END, LAST_CHUNK, reason, write_chunk_head, write_header, write_length,
    write_request_line, write_status_line,
};

use crate::Decoded;
use alloc::vec::Vec;

/// The property that holds for every input. The fuzzer and the corpus test both call it.
///
/// The first byte picks where the rest is cut in two.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Some((&pick, bytes)) = bytes.split_first() else { return };
    let cut = usize::from(pick) * bytes.len() / 255;
    fuzz_request(bytes, cut);
    fuzz_response(bytes, cut);
    fuzz_body(Body::Chunked, bytes, cut);
}

const FUZZ_LIMITS: Limits = Limits { head_len_max: 2048, target_len_max: 64 };

/// Room for the space that our writer puts behind each colon.
const FUZZ_LIMITS_AGAIN: Limits = Limits { head_len_max: 4096, target_len_max: 64 };

fn fuzz_request(bytes: &[u8], cut: usize) {
    let whole_slots = &mut HeaderSlots::new();
    let part_slots = &mut HeaderSlots::new();
    let whole = request(bytes, whole_slots, FUZZ_LIMITS);
    let part = request(bytes.get(..cut).unwrap_or(bytes), part_slots, FUZZ_LIMITS);
    assert!(part == Ok(Decoded::Incomplete) || part == whole, "more bytes changed the answer");
    let Ok(Decoded::Item { item, used }) = whole else { return };

    let mut again = Vec::new();
    write_request_line(&mut again, item.method, item.target);
    fuzz_write_headers(&mut again, item.headers);
    if item.version == Version::Http11 {
        let slots = &mut HeaderSlots::new();
        let used = again.len();
        assert_eq!(request(&again, slots, FUZZ_LIMITS_AGAIN), Ok(Decoded::Item { item, used }));
    }
    let rest = bytes.get(used..).unwrap_or_default();
    fuzz_body(item.body, rest, cut);
}

fn fuzz_response(bytes: &[u8], cut: usize) {
    let whole_slots = &mut HeaderSlots::new();
    let part_slots = &mut HeaderSlots::new();
    let whole = response(bytes, whole_slots, FUZZ_LIMITS, false);
    let part = response(bytes.get(..cut).unwrap_or(bytes), part_slots, FUZZ_LIMITS, false);
    assert!(part == Ok(Decoded::Incomplete) || part == whole, "more bytes changed the answer");
    let Ok(Decoded::Item { item, used }) = whole else { return };

    let mut again = Vec::new();
    write_status_line(&mut again, item.status);
    fuzz_write_headers(&mut again, item.headers);
    if item.version == Version::Http11 {
        let slots = &mut HeaderSlots::new();
        let used = again.len();
        let decoded = response(&again, slots, FUZZ_LIMITS_AGAIN, false);
        assert_eq!(decoded, Ok(Decoded::Item { item, used }));
    }
    let rest = bytes.get(used..).unwrap_or_default();
    fuzz_body(item.body, rest, cut);
}

fn fuzz_write_headers(out: &mut Vec<u8>, headers: Headers<'_, '_>) {
    assert!(headers.count() <= HEADERS_MAX);
    for (name, value) in headers.iter() {
        assert!(is_token(name.as_bytes()) && is_field_value(value), "{name:?}: {value:?}");
        write_header(out, name, value);
    }
    out.extend_from_slice(HEAD_END);
}

fn fuzz_body(body: Body, bytes: &[u8], cut: usize) {
    let mut whole = Collected::new(body);
    whole.feed(bytes);
    let mut parts = Collected::new(body);
    let (front, back) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
    parts.feed(front);
    parts.feed(back);
    assert_eq!(whole, parts, "a cut at {cut} changed the body");
    if let (true, Body::Length(len)) = (whole.done, body) {
        assert_eq!(whole.data.len() as u64, len);
    }
}

/// Everything a body decoder said, for comparison.
#[derive(Debug, PartialEq, Eq)]
struct Collected {
    decoder: BodyDecoder,
    data: Vec<u8>,
    used: usize,
    done: bool,
    error: Option<BodyError>,
}

impl Collected {
    fn new(body: Body) -> Self {
        let decoder = BodyDecoder::new(body);
        Self { decoder, data: Vec::new(), used: 0, done: false, error: None }
    }

    fn feed(&mut self, mut input: &[u8]) {
        while self.error.is_none() && !self.done {
            let part = match self.decoder.decode(input) {
                Ok(part) => part,
                Err(error) => {
                    self.error = Some(error);
                    // A call that fails uses nothing, so the sum depends on the cut.
                    self.used = 0;
                    return;
                }
            };
            assert!(part.data.len() <= part.used && part.used <= input.len());
            assert!(part.used != 0 || part.done || input.is_empty(), "no progress");
            self.data.extend_from_slice(part.data);
            self.used += part.used;
            self.done = part.done;
            input = input.get(part.used..).unwrap_or_default();
            if input.is_empty() && part.used == 0 {
                return;
            }
        }
    }
}
