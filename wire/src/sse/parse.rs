//! Bytes of a stream, cut anywhere, to events.
//!
//! Not a line reader: a line is never put together. The bytes of a value go straight to the buffer
//! of their field, so a long `data` line is copied once however many pieces it comes in.

use alloc::vec::Vec;
use core::{fmt, mem};

/// A buffer with more room than this is given back after its event, even in a busy stream.
const BUFFER_LEN_KEPT: usize = 16 * 1024;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// One event. It lives until the parser is asked for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'p> {
    /// The type; empty means `message`.
    pub name: &'p [u8],
    /// The data, its lines joined by LF.
    pub data: &'p [u8],
    /// The id that this event sets; `Some` of nothing takes back the last one.
    pub id: Option<&'p [u8]>,
    /// The reconnection time that this event sets.
    pub retry_ms: Option<u64>,
    /// Whether there was a `data` field, even an empty one. Without it, this is not an event to
    /// a browser, only an `id` or a `retry`.
    pub has_data: bool,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseError {
    /// An event has more bytes in its values than the bound that the parser was made with.
    EventTooLong,
}

/// Turns a stream of bytes, cut anywhere, into events.
#[derive(Debug)]
pub struct EventParser {
    /// The bound on the sum of the buffers' lengths.
    event_len_max: usize,
    place: Place,
    /// The last byte was a CR; an LF right behind it belongs to the same line end.
    after_cr: bool,
    /// The buffers hold an event that has been reported; the next call clears them.
    reported: bool,
    has_data: bool,
    has_id: bool,
    failed: bool,
    retry_ms: Option<u64>,
    name: Vec<u8>,
    data: Vec<u8>,
    id: Vec<u8>,
    /// The value of an `id` or a `retry` until its line ends: only then is it known to count.
    value: Vec<u8>,
}

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a byte order mark at the front, of which this many bytes have been there.
    Mark { len: usize },
    /// In a line, before a colon.
    Name(Name),
    /// Right behind the colon, where one space does not count.
    Colon(Field),
    /// In the value.
    Value(Field),
}

/// The front of a field name. Names longer than those that mean something are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    bytes: [u8; 5],
    len: u8,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Data,
    Event,
    Id,
    Retry,
    /// A comment, or a name that means nothing.
    Ignored,
}

const LINE_START: Place = Place::Name(Name { bytes: [0; 5], len: 0 });

impl EventParser {
    /// A parser at the front of a stream, for events whose values sum up to `event_len_max` bytes.
    pub const fn new(event_len_max: usize) -> Self {
        Self {
            event_len_max,
            place: Place::Mark { len: 0 },
            after_cr: false,
            reported: false,
            has_data: false,
            has_id: false,
            failed: false,
            retry_ms: None,
            name: Vec::new(),
            data: Vec::new(),
            id: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads from the front of `input`, and leaves what it has not read. `None` means that all is
    /// read and no event is complete; an event that the stream's end cuts off is dropped with the
    /// parser. After an error, every call returns it again.
    pub fn next<'p>(&'p mut self, input: &mut &[u8]) -> Result<Option<Event<'p>>, SseError> {
        if mem::take(&mut self.reported) {
            self.clear();
        }
        let found = if self.failed { Err(SseError::EventTooLong) } else { self.advance(input) };
        match found {
            Ok(true) => {
                self.reported = true;
                Ok(Some(Event {
                    name: &self.name,
                    data: &self.data,
                    id: self.has_id.then_some(&self.id),
                    retry_ms: self.retry_ms,
                    has_data: self.has_data,
                }))
            }
            Ok(false) => {
                self.free_if_idle();
                Ok(None)
            }
            Err(error) => {
                self.failed = true;
                self.clear();
                self.free_if_idle();
                Err(error)
            }
        }
    }

    /// Reads until an event is complete, or to the end of `input`.
    fn advance(&mut self, input: &mut &[u8]) -> Result<bool, SseError> {
        while let Some((&byte, tail)) = input.split_first() {
            if mem::take(&mut self.after_cr) && byte == b'\n' {
                *input = tail;
                continue;
            }
            match self.place {
                Place::Mark { len } => {
                    let next = BYTE_ORDER_MARK.get(len);
                    if next == Some(&byte) {
                        *input = tail;
                        self.place = Place::Mark { len: len + 1 };
                    } else if next.is_none() || len == 0 {
                        self.place = LINE_START;
                    } else {
                        // Part of a mark is the front of a name that means nothing.
                        self.place = Place::Value(Field::Ignored);
                    }
                }
                Place::Name(name) => {
                    if name.len == 0
                        && let Some((field, tail)) = whole_name(input)
                    {
                        *input = tail;
                        self.begin(field)?;
                        self.place = Place::Colon(field);
                        continue;
                    }
                    *input = tail;
                    match byte {
                        b':' => {
                            let field = name.field();
                            self.begin(field)?;
                            self.place = Place::Colon(field);
                        }
                        b'\n' | b'\r' => {
                            if self.end_line_without_colon(name, byte)? {
                                return Ok(true);
                            }
                        }
                        _ => self.place = name.and(byte),
                    }
                }
                Place::Colon(field) => {
                    if byte == b' ' {
                        *input = tail;
                    }
                    self.place = Place::Value(field);
                }
                Place::Value(field) => self.take_value(field, input)?,
            }
        }
        Ok(false)
    }

    /// Takes what there is of a value, and its line end if that is there.
    fn take_value(&mut self, field: Field, input: &mut &[u8]) -> Result<(), SseError> {
        let end = memchr::memchr2(b'\n', b'\r', input);
        let (value, rest) = input.split_at_checked(end.unwrap_or(input.len())).unwrap_or_default();
        self.append(field, value)?;
        *input = rest;
        if let Some((&byte, rest)) = rest.split_first() {
            *input = rest;
            self.after_cr = byte == b'\r';
            self.end(field);
        }
        Ok(())
    }

    /// A line without a colon is a field with no value, or the blank line that ends an event.
    fn end_line_without_colon(&mut self, name: Name, byte: u8) -> Result<bool, SseError> {
        self.after_cr = byte == b'\r';
        self.place = LINE_START;
        if name.len != 0 {
            self.begin(name.field())?;
            self.end(name.field());
            return Ok(false);
        }
        let reports = self.has_data || self.has_id || self.retry_ms.is_some();
        if !reports {
            // §9.2.6: a type without data is forgotten.
            self.name.clear();
        }
        Ok(reports)
    }

    fn begin(&mut self, field: Field) -> Result<(), SseError> {
        match field {
            Field::Data => {
                if mem::replace(&mut self.has_data, true) {
                    self.append(field, b"\n")?;
                }
            }
            Field::Event => self.name.clear(),
            Field::Id | Field::Retry => self.value.clear(),
            Field::Ignored => {}
        }
        Ok(())
    }

    fn append(&mut self, field: Field, bytes: &[u8]) -> Result<(), SseError> {
        let kept = self.name.len() + self.data.len() + self.id.len() + self.value.len();
        let buffer = match field {
            Field::Data => &mut self.data,
            Field::Event => &mut self.name,
            Field::Id | Field::Retry => &mut self.value,
            Field::Ignored => return Ok(()),
        };
        if self.event_len_max.saturating_sub(kept) < bytes.len() {
            return Err(SseError::EventTooLong);
        }
        buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, field: Field) {
        self.place = LINE_START;
        match field {
            Field::Id => {
                // §9.2.6: an id with a NUL in it is ignored.
                if memchr::memchr(0, &self.value).is_none() {
                    mem::swap(&mut self.id, &mut self.value);
                    self.has_id = true;
                }
                self.value.clear();
            }
            Field::Retry => {
                self.retry_ms = decimal(&self.value).or(self.retry_ms);
                self.value.clear();
            }
            Field::Data | Field::Event | Field::Ignored => {}
        }
    }

    fn clear(&mut self) {
        self.has_data = false;
        self.has_id = false;
        self.retry_ms = None;
        for buffer in [&mut self.name, &mut self.data, &mut self.id, &mut self.value] {
            buffer.clear();
            if BUFFER_LEN_KEPT < buffer.capacity() {
                *buffer = Vec::new();
            }
        }
    }

    fn free_if_idle(&mut self) {
        let has_field = self.has_data || self.has_id || self.retry_ms.is_some();
        if has_field || !self.name.is_empty() || !self.value.is_empty() {
            return;
        }
        for buffer in [&mut self.name, &mut self.data, &mut self.id, &mut self.value] {
            if buffer.capacity() != 0 {
                *buffer = Vec::new();
            }
        }
    }
}

#[cfg(test)]
impl EventParser {
    /// Bytes of memory that the buffers own.
    pub(super) fn capacity(&self) -> usize {
        self.name.capacity() + self.data.capacity() + self.id.capacity() + self.value.capacity()
    }
}

impl Name {
    /// The place behind one more byte of this name.
    fn and(mut self, byte: u8) -> Place {
        let Some(slot) = self.bytes.get_mut(usize::from(self.len)) else {
            return Place::Value(Field::Ignored);
        };
        *slot = byte;
        self.len += 1;
        Place::Name(self)
    }

    fn field(self) -> Field {
        match self.bytes.get(..usize::from(self.len)) {
            Some(b"data") => Field::Data,
            Some(b"event") => Field::Event,
            Some(b"id") => Field::Id,
            Some(b"retry") => Field::Retry,
            Some(_) | None => Field::Ignored,
        }
    }
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventTooLong => f.write_str("send smaller events, or raise the bound on them"),
        }
    }
}

impl core::error::Error for SseError {}

/// The name and the colon at the start of a line, if both are there and mean something. This only
/// saves time: a name that is cut, or has no colon, is read a byte at a time.
fn whole_name(line: &[u8]) -> Option<(Field, &[u8])> {
    match line {
        [b'd', b'a', b't', b'a', b':', tail @ ..] => Some((Field::Data, tail)),
        [b'e', b'v', b'e', b'n', b't', b':', tail @ ..] => Some((Field::Event, tail)),
        [b'i', b'd', b':', tail @ ..] => Some((Field::Id, tail)),
        _ => None,
    }
}

/// §9.2.6: only ASCII digits. A number that does not fit is ignored like one that is none.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
