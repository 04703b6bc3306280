//! JSON, read without building anything: one pass that proves the grammar and yields spans.
//!
//! It accepts exactly RFC 8259 in UTF-8, no byte-order mark, nested at most as deep as the caller
//! says. It makes no values: numbers are never converted and strings are decoded only when asked,
//! so whatever is forwarded keeps its bytes. An escaped lone surrogate (`"\ud800"`) is within the
//! grammar, so it is accepted; it decodes to U+FFFD.
//!
//! Nesting is a counter and one bit per open container, never the call stack.

mod cursor;
mod token;
mod text;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod generate;

pub use cursor::Cursor;
pub use text::{unescape, write_string};

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

/// The deepest nesting this module can follow, whatever limit the caller gives.
pub const DEPTH_MAX: u16 = 256;

/// A stretch of the document: half open, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte; equal to `start` in an empty span, which marks a place.
    pub end: u32,
}

impl Span {
    /// The bytes of the span; empty when `bytes` is not the document it came from.
    pub fn get(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// How many bytes it covers.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether it covers no byte.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Positions are below `u32::MAX`: a cursor refuses longer documents.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }
}

/// A string token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// What is between the quotes, as it stands in the document.
    pub inner: Span,
    /// Whether `inner` has a backslash, so that its bytes are not its value.
    pub has_escapes: bool,
}

impl Text {
    /// The whole token, quotes included.
    pub const fn token(self) -> Span {
        Span { start: self.inner.start.saturating_sub(1), end: self.inner.end.saturating_add(1) }
    }

    /// The string's value; borrowed unless it has escapes.
    pub fn decode(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        let raw = self.inner.get(bytes);
        if !self.has_escapes {
            return Cow::Borrowed(raw);
        }
        let mut out = Vec::with_capacity(raw.len());
        unescape(raw, &mut out);
        Cow::Owned(out)
    }

    /// Whether the string's value is `other`.
    pub fn eq(self, bytes: &[u8], other: &str) -> bool {
        if self.has_escapes {
            return *self.decode(bytes) == *other.as_bytes();
        }
        self.inner.get(bytes) == other.as_bytes()
    }
}

/// Why bytes are not a JSON document. Each carries the offset of the first byte that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// Longer than spans can address; the offset is the length.
    TooLong(usize),
    /// Not UTF-8.
    NotUtf8(usize),
    /// A byte-order mark.
    ByteOrderMark(usize),
    /// The bytes end inside a value.
    Truncated(usize),
    /// A byte that cannot stand here.
    Unexpected(usize),
    /// A number that breaks the grammar (`01`, `+1`, `1.`, `.5`).
    BadNumber(usize),
    /// A backslash that starts no escape.
    BadEscape(usize),
    /// A raw byte below 0x20 in a string.
    ControlCharacter(usize),
    /// Containers nested deeper than the limit.
    TooDeep(usize),
    /// Something after the value.
    Trailing(usize),
}

impl JsonError {
    /// Where the document goes wrong, in bytes from its start.
    pub const fn offset(self) -> usize {
        match self {
            Self::TooLong(at)
            | Self::NotUtf8(at)
            | Self::ByteOrderMark(at)
            | Self::Truncated(at)
            | Self::Unexpected(at)
            | Self::BadNumber(at)
            | Self::BadEscape(at)
            | Self::ControlCharacter(at)
            | Self::TooDeep(at)
            | Self::Trailing(at) => at,
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.offset();
        match self {
            Self::TooLong(_) => {
                write!(f, "the JSON document is {at} bytes long, which is too long")
            }
            Self::NotUtf8(_) => write!(f, "the bytes at offset {at} are not UTF-8"),
            Self::ByteOrderMark(_) => {
                write!(f, "the document starts with a byte-order mark, which JSON does not allow")
            }
            Self::Truncated(_) => write!(f, "the JSON document ends too early, at offset {at}"),
            Self::Unexpected(_) => write!(f, "the byte at offset {at} is not JSON"),
            Self::BadNumber(_) => write!(f, "the number is malformed at offset {at}"),
            Self::BadEscape(_) => write!(f, "the string escape at offset {at} does not exist"),
            Self::ControlCharacter(_) => {
                write!(f, "the control character at offset {at} must be escaped")
            }
            Self::TooDeep(_) => write!(f, "the JSON is nested too deeply at offset {at}"),
            Self::Trailing(_) => write!(f, "there is more after the JSON value, at offset {at}"),
        }
    }
}

impl core::error::Error for JsonError {}

/// Whether `bytes` are one JSON document nested at most `depth_max` containers deep (a scalar has
/// depth 0), and never deeper than [`DEPTH_MAX`].
pub fn validate(bytes: &[u8], depth_max: u16) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(bytes, depth_max)?;
    cursor.value()?;
    cursor.finish()
}

/// The members of the object that `bytes` are, in order: keys and values.
pub fn entries(bytes: &[u8], depth_max: u16) -> Result<Vec<(Text, Span)>, JsonError> {
    let mut cursor = Cursor::new(bytes, depth_max)?;
    cursor.enter_object()?;
    let mut entries = Vec::new();
    while let Some(key) = cursor.next_key()? {
        entries.push((key, cursor.value()?));
    }
    cursor.finish()?;
    Ok(entries)
}

/// The elements of the array that `bytes` are, in order; validates as it goes.
///
/// After an error it yields nothing more. Bytes that are not an array give one error.
pub fn elements(bytes: &[u8], depth_max: u16) -> Elements<'_> {
    let state = Cursor::new(bytes, depth_max).and_then(|mut cursor| {
        cursor.enter_array()?;
        Ok(cursor)
    });
    match state {
        Ok(cursor) => Elements { cursor: Some(cursor), failed: None },
        Err(err) => Elements { cursor: None, failed: Some(err) },
    }
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    /// `None` when there is nothing left to read.
    cursor: Option<Cursor<'a>>,
    /// An error that came before the first element.
    failed: Option<JsonError>,
}

impl Iterator for Elements<'_> {
    type Item = Result<Span, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(err) = self.failed.take() {
            return Some(Err(err));
        }
        let mut cursor = self.cursor.take()?;
        match cursor.next_element() {
            Ok(true) => match cursor.value() {
                Ok(span) => {
                    self.cursor = Some(cursor);
                    Some(Ok(span))
                }
                Err(err) => Some(Err(err)),
            },
            Ok(false) => cursor.finish().err().map(Err),
            Err(err) => Some(Err(err)),
        }
    }
}

/// The properties that hold for every input. The fuzzer and the corpus test both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let verdict = validate(bytes, DEPTH_MAX);
    if let Err(err) = verdict {
        assert!(err.offset() <= bytes.len(), "{err:?} is outside the document");
    }
    for span in elements(bytes, DEPTH_MAX).flatten() {
        let alone = validate(span.get(bytes), DEPTH_MAX);
        assert_eq!(alone, Ok(()), "an element is a document of its own");
    }
    let array = bytes.trim_ascii_start().starts_with(b"[");
    let split = elements(bytes, DEPTH_MAX).all(|element| element.is_ok());
    assert_eq!(split, verdict.is_ok() && array, "elements and validate disagree");
    let object = bytes.trim_ascii_start().starts_with(b"{");
    let members = entries(bytes, DEPTH_MAX);
    assert_eq!(members.is_ok(), verdict.is_ok() && object, "entries and validate disagree");
    for (key, value) in members.into_iter().flatten() {
        assert_eq!(validate(key.token().get(bytes), 0), Ok(()), "a key is a string");
        assert_eq!(validate(value.get(bytes), DEPTH_MAX), Ok(()), "a value is a document");
    }
    let Ok(value) = core::str::from_utf8(bytes) else { return };
    let mut literal = Vec::new();
    write_string(&mut literal, value);
    assert_eq!(validate(&literal, 0), Ok(()), "what is written can be read");
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    let mut back = Vec::new();
    unescape(inner, &mut back);
    assert_eq!(back, bytes, "a string survives being written and read");
}
