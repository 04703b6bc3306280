//! String bodies: from their escaped form to their value, and back.

use alloc::vec::Vec;

/// Appends the value of a string whose bytes between the quotes are `raw_inner`.
///
/// A surrogate without its partner becomes U+FFFD. What is no escape, which a validated string
/// cannot contain, is copied as it stands.
pub fn unescape(raw_inner: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw_inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let (value, used) = decode_escape(escape);
        out.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The character that the escape at the front of `escape` stands for, and how long the escape is.
fn decode_escape(escape: &[u8]) -> (char, usize) {
    let short = match escape.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return decode_unit(escape),
        _ => return ('\\', 1),
    };
    (short, 2)
}

/// Decodes `\uXXXX`, or the two of them that make a surrogate pair.
fn decode_unit(escape: &[u8]) -> (char, usize) {
    let Some(first) = unit(escape) else { return ('\\', 1) };
    if let Some(value) = char::from_u32(first) {
        return (value, 6);
    }
    let second = escape.get(6..).and_then(unit).unwrap_or(0);
    // RFC 8259 §7: a character outside the basic plane is a high surrogate, then a low one.
    if (0xD800..0xDC00).contains(&first) && (0xDC00..0xE000).contains(&second) {
        let value = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::REPLACEMENT_CHARACTER, 6)
}

/// The number in a `\uXXXX` at the front of `bytes`.
fn unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes else { return None };
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends `value` as a JSON string literal, escaping only what JSON makes us escape.
pub fn write_string(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        let Some((byte, after)) = special.split_first() else { break };
        out.extend_from_slice(plain);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
