//! Server-sent events (WHATWG HTML §9.2): an incremental parser, and writers.
//!
//! Not a client: reconnecting and remembering the last id are the caller's. The input may be cut
//! anywhere. Each value is copied once, from the input to the event, and the parser owns no memory
//! while it is between events.
//!
//! The parser differs from §9.2 in one thing: an event that has only an `id` or a `retry` is
//! reported, with [`Event::has_data`] unset, because the caller has to act on those too.

mod parse;
mod write;
#[cfg(test)]
mod tests;

pub use parse::{Event, EventParser, SseError};
pub use write::{COMMENT, EVENT_END, write_event, write_event_head};

use alloc::vec::Vec;

/// The property that holds for every input. The fuzzer and the corpus test both call it.
///
/// The first byte picks where the rest is cut in two, the second bounds the events.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let [pick, bound, bytes @ ..] = bytes else { return };
    let cut = usize::from(*pick) * bytes.len() / 255;
    let (front, back) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
    let whole = FuzzLog::of(&[bytes], usize::from(*bound));
    let parts = FuzzLog::of(&[front, back], usize::from(*bound));
    assert_eq!(whole, parts, "a cut at {cut} changed the events");

    let mut written = Vec::new();
    for event in &whole.events {
        let name = core::str::from_utf8(&event.name).ok().filter(|name| !name.is_empty());
        write_event(&mut written, name, event.id.as_deref(), event.retry_ms, &event.data);
    }
    // 20 more, for the digits of a `retry` that now stands behind other fields.
    let again = FuzzLog::of(&[&written], usize::from(*bound) + 20);
    assert_eq!(again.events.len(), whole.events.len(), "an event was lost in writing");
    for (event, again) in whole.events.iter().zip(again.events) {
        let name_is_text = core::str::from_utf8(&event.name).is_ok();
        assert!(!name_is_text || again.name == event.name);
        assert_eq!((&again.id, again.retry_ms), (&event.id, event.retry_ms));
        assert_eq!(again.data, event.data);
    }
}

/// Everything a parser said, for comparison.
#[derive(Debug, Default, PartialEq, Eq)]
struct FuzzLog {
    events: Vec<FuzzEvent>,
    error: Option<SseError>,
}

#[derive(Debug, PartialEq, Eq)]
struct FuzzEvent {
    name: Vec<u8>,
    data: Vec<u8>,
    id: Option<Vec<u8>>,
    retry_ms: Option<u64>,
    has_data: bool,
}

impl FuzzLog {
    fn of(parts: &[&[u8]], event_len_max: usize) -> Self {
        let mut log = Self::default();
        let mut parser = EventParser::new(event_len_max);
        for part in parts {
            let mut input = *part;
            loop {
                match parser.next(&mut input) {
                    Ok(Some(event)) => log.events.push(FuzzEvent {
                        name: event.name.to_vec(),
                        data: event.data.to_vec(),
                        id: event.id.map(<[u8]>::to_vec),
                        retry_ms: event.retry_ms,
                        has_data: event.has_data,
                    }),
                    Ok(None) => break,
                    Err(error) => {
                        log.error = Some(error);
                        return log;
                    }
                }
            }
            assert!(input.is_empty(), "input was left");
        }
        log
    }
}
