//! The scanner: a position in a document and the containers open around it.
//!
//! A caller walks the levels it cares about with [`Cursor::enter_object`], [`Cursor::next_key`] and
//! [`Cursor::text`], and steps over everything else with [`Cursor::value`]. Both prove the grammar
//! of the bytes they pass, so a walk that ends in [`Cursor::finish`] has validated the document.

use super::token::{literal_end, number_end, skip_blanks, string_end};
use super::{DEPTH_MAX, JsonError, Span, Text};

/// Words in the bit-stack.
const WORDS: usize = DEPTH_MAX as usize / 64;

const _: () = assert!((DEPTH_MAX as usize).is_multiple_of(64), "the bit-stack has whole words");

/// A place in a document that moves forward only. After an error it must not be used further.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    nesting: Nesting,
    /// Whether a container was just entered and nothing in it was read.
    fresh: bool,
    has_line_breaks: bool,
}

/// The containers open around a place.
#[derive(Clone, Debug)]
struct Nesting {
    depth: usize,
    depth_max: usize,
    /// For each open container, a set bit when it is an object.
    kinds: [u64; WORDS],
}

impl<'a> Cursor<'a> {
    /// Stands before the document's value. Reads the bytes once, to see that they are UTF-8.
    pub fn new(bytes: &'a [u8], depth_max: u16) -> Result<Self, JsonError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(JsonError::TooLong(bytes.len()));
        }
        // RFC 8259 §8.1: a parser may ignore a byte-order mark. Peers that do not would disagree
        // with us about the document, so it is an error here.
        if bytes.starts_with("\u{feff}".as_bytes()) {
            return Err(JsonError::ByteOrderMark(0));
        }
        if let Err(err) = core::str::from_utf8(bytes) {
            return Err(JsonError::NotUtf8(err.valid_up_to()));
        }
        let depth_max = usize::from(depth_max.min(DEPTH_MAX));
        let nesting = Nesting { depth: 0, depth_max, kinds: [0; WORDS] };
        Ok(Self { bytes, pos: 0, nesting, fresh: false, has_line_breaks: false })
    }

    /// Skips blanks; the byte behind them, which says what kind of value comes.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let (pos, byte) = self.seek(self.pos);
        self.pos = pos;
        if byte == 0 { None } else { Some(byte) }
    }

    /// Goes into the object that starts here.
    pub fn enter_object(&mut self) -> Result<(), JsonError> {
        self.enter(b'{')
    }

    /// Goes into the array that starts here.
    pub fn enter_array(&mut self) -> Result<(), JsonError> {
        self.enter(b'[')
    }

    /// Moves to the next member of the object and returns its key, standing before its value; or
    /// leaves the object.
    #[inline(always)]
    pub fn next_key(&mut self) -> Result<Option<Text>, JsonError> {
        let fresh = core::mem::take(&mut self.fresh);
        let (mut pos, mut byte) = self.seek(self.pos);
        if byte == b'}' {
            self.nesting.pop();
            self.pos = pos + 1;
            return Ok(None);
        }
        if !fresh {
            if byte != b',' {
                return Err(self.wrong(pos));
            }
            (pos, byte) = self.seek(pos + 1);
        }
        if byte != b'"' {
            return Err(self.wrong(pos));
        }
        let (end, has_escapes) = string_end(self.bytes, pos + 1)?;
        self.pos = self.colon(end)?;
        Ok(Some(Text { inner: Span::new(pos + 1, end - 1), has_escapes }))
    }

    /// Moves to the next element of the array, standing before it; or leaves the array and says
    /// `false`.
    pub fn next_element(&mut self) -> Result<bool, JsonError> {
        let fresh = core::mem::take(&mut self.fresh);
        let (pos, byte) = self.seek(self.pos);
        self.pos = pos;
        match byte {
            b']' => {
                self.nesting.pop();
                self.pos += 1;
                return Ok(false);
            }
            _ if fresh => {}
            b',' => self.pos += 1,
            _ => return Err(self.wrong(pos)),
        }
        Ok(true)
    }

    /// Reads the string that starts here.
    #[inline(always)]
    pub fn text(&mut self) -> Result<Text, JsonError> {
        let (pos, byte) = self.seek(self.pos);
        if byte != b'"' {
            return Err(self.wrong(pos));
        }
        self.fresh = false;
        let (end, has_escapes) = string_end(self.bytes, pos + 1)?;
        self.pos = end;
        Ok(Text { inner: Span::new(pos + 1, end - 1), has_escapes })
    }

    /// Steps over the value that starts here, whatever it is.
    pub fn value(&mut self) -> Result<Span, JsonError> {
        let base = self.nesting.depth;
        let (start, mut byte) = self.seek(self.pos);
        // The position lives in a local, which the compiler keeps in a register: each token's
        // place depends on the one before, so a detour through memory would be on every step.
        let mut pos = start;
        self.fresh = false;
        loop {
            match byte {
                b'"' => (pos, _) = string_end(self.bytes, pos + 1)?,
                b'{' => {
                    self.open(true, pos)?;
                    (pos, byte) = self.seek(pos + 1);
                    if byte != b'}' {
                        (pos, byte) = self.member(pos, byte)?;
                        continue;
                    }
                    self.nesting.pop();
                    pos += 1;
                }
                b'[' => {
                    self.open(false, pos)?;
                    (pos, byte) = self.seek(pos + 1);
                    if byte != b']' {
                        continue;
                    }
                    self.nesting.pop();
                    pos += 1;
                }
                b'-' | b'0'..=b'9' => pos = number_end(self.bytes, pos)?,
                b't' => pos = literal_end(self.bytes, pos, b"true")?,
                b'f' => pos = literal_end(self.bytes, pos, b"false")?,
                b'n' => pos = literal_end(self.bytes, pos, b"null")?,
                _ => return Err(self.wrong(pos)),
            }
            loop {
                if self.nesting.depth == base {
                    self.pos = pos;
                    return Ok(Span::new(start, pos));
                }
                let in_object = self.nesting.in_object();
                (pos, byte) = self.seek(pos);
                if byte == b',' {
                    (pos, byte) = self.seek(pos + 1);
                    if in_object {
                        (pos, byte) = self.member(pos, byte)?;
                    }
                    break;
                }
                if byte != if in_object { b'}' } else { b']' } {
                    return Err(self.wrong(pos));
                }
                self.nesting.pop();
                pos += 1;
            }
        }
    }

    /// Ends the walk: only blanks may follow.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None if self.pos == self.bytes.len() => Ok(()),
            _ => Err(JsonError::Trailing(self.pos)),
        }
    }

    /// Whether a blank so far was a raw `\n` or `\r`. Strings cannot hold them.
    pub const fn has_line_breaks(&self) -> bool {
        self.has_line_breaks
    }

    /// Where the cursor stands.
    pub const fn offset(&self) -> usize {
        self.pos
    }

    /// The first place from `pos` on that is not blank, and the byte there: 0 at the document's
    /// end, since a NUL can stand nowhere outside a string, nor raw inside one.
    #[inline]
    fn seek(&mut self, pos: usize) -> (usize, u8) {
        match self.bytes.get(pos) {
            Some(&byte) if b' ' < byte => (pos, byte),
            _ => skip_blanks(self.bytes, pos, &mut self.has_line_breaks),
        }
    }

    /// Steps over a key that starts with `byte` at `pos`, and its colon, to the value.
    #[inline(always)]
    fn member(&mut self, pos: usize, byte: u8) -> Result<(usize, u8), JsonError> {
        if byte != b'"' {
            return Err(self.wrong(pos));
        }
        let (end, _) = string_end(self.bytes, pos + 1)?;
        let value = self.colon(end)?;
        Ok(self.seek(value))
    }

    /// Steps over a colon.
    #[inline]
    fn colon(&mut self, pos: usize) -> Result<usize, JsonError> {
        let (pos, byte) = self.seek(pos);
        if byte == b':' { Ok(pos + 1) } else { Err(self.wrong(pos)) }
    }

    fn enter(&mut self, bracket: u8) -> Result<(), JsonError> {
        let (pos, byte) = self.seek(self.pos);
        if byte != bracket {
            return Err(self.wrong(pos));
        }
        self.open(bracket == b'{', pos)?;
        self.pos = pos + 1;
        self.fresh = true;
        Ok(())
    }

    #[inline]
    fn open(&mut self, is_object: bool, pos: usize) -> Result<(), JsonError> {
        if self.nesting.push(is_object) { Ok(()) } else { Err(JsonError::TooDeep(pos)) }
    }

    /// The error for what stands at `pos`.
    #[cold]
    const fn wrong(&self, pos: usize) -> JsonError {
        if pos < self.bytes.len() {
            JsonError::Unexpected(pos)
        } else {
            JsonError::Truncated(self.bytes.len())
        }
    }
}

impl Nesting {
    /// Opens a container; `false` when it would be too deep.
    #[inline]
    fn push(&mut self, is_object: bool) -> bool {
        if self.depth_max <= self.depth {
            return false;
        }
        if let Some(word) = self.kinds.get_mut(self.depth / 64) {
            let bit = 1 << (self.depth % 64);
            *word = if is_object { *word | bit } else { *word & !bit };
        }
        self.depth += 1;
        true
    }

    #[inline]
    const fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost open container is an object.
    #[inline]
    fn in_object(&self) -> bool {
        let top = self.depth.wrapping_sub(1);
        self.kinds.get(top / 64).is_some_and(|word| word >> (top % 64) & 1 == 1)
    }
}
