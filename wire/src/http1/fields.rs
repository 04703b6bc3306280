//! The header fields of one head, and what their bytes may be.
//!
//! Not a map: fields stay in the order they came in, in slots the caller keeps on its stack, and
//! a lookup is a walk over at most [`HEADERS_MAX`] of them.

use core::mem::MaybeUninit;

/// The most fields a head may have.
pub const HEADERS_MAX: usize = 100;

/// Room for the fields of one head; on the caller's stack, never initialised.
pub struct HeaderSlots<'a> {
    pub(super) slots: [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX],
}

impl HeaderSlots<'_> {
    /// Empty slots. This writes nothing, so make new ones for each head.
    #[inline]
    pub const fn new() -> Self {
        Self { slots: [const { MaybeUninit::uninit() }; HEADERS_MAX] }
    }
}

/// The fields of one head, in the order they came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'h, 'a> {
    pub(super) fields: &'h [httparse::Header<'a>],
}

impl<'h, 'a> Headers<'h, 'a> {
    /// Every field: its name as it was sent, and its value without the white space around it.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'h, 'a> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The value of the first field called `name`, in any case of letters.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let field = self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    }

    /// The values of all fields called `name`, in any case of letters.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'h, 'a, 'n> {
        self.fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// How many fields there are.
    pub const fn count(&self) -> usize {
        self.fields.len()
    }
}

/// Whether `bytes` can be a method, a field name or a transfer coding (RFC 9110 §5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `bytes` can be a field value: no control byte but HTAB (RFC 9110 §5.5). A caller that
/// writes a value it did not make itself asks this first, or it lets CR LF through.
pub fn is_field_value(bytes: &[u8]) -> bool {
    // No early return: this way the compiler checks 16 bytes at a time.
    bytes.iter().fold(true, |valid, &byte| valid & is_field_byte(byte))
}

#[inline]
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`')
        || matches!(byte, b'|' | b'~')
}

#[inline]
pub(super) const fn is_field_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}
