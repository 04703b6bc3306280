//! Where tokens end: free functions from a position to the position behind the token.

use super::JsonError;

/// The end of a string whose body starts at `pos`, behind its closing quote; and whether it has
/// escapes.
#[inline(always)]
pub(super) fn string_end(bytes: &[u8], pos: usize) -> Result<(usize, bool), JsonError> {
    let pos = plain_end(bytes, pos);
    if bytes.get(pos) == Some(&b'"') {
        return Ok((pos + 1, false));
    }
    Ok((escaped_end(bytes, pos)?, true))
}

/// The end of a string, from the first byte in it that is not plain.
#[inline(never)]
fn escaped_end(bytes: &[u8], mut pos: usize) -> Result<usize, JsonError> {
    loop {
        match bytes.get(pos) {
            Some(b'"') => return Ok(pos + 1),
            Some(b'\\') => pos = plain_end(bytes, escape_end(bytes, pos)?),
            Some(_) => return Err(JsonError::ControlCharacter(pos)),
            None => return Err(JsonError::Truncated(bytes.len())),
        }
    }
}

/// The end of the escape at `pos`.
#[inline]
fn escape_end(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    match bytes.get(pos + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(pos + 2),
        Some(b'u') => match bytes.get(pos + 2..pos + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(pos + 6),
            Some(_) => Err(JsonError::BadEscape(pos)),
            None => Err(JsonError::Truncated(bytes.len())),
        },
        Some(_) => Err(JsonError::BadEscape(pos)),
        None => Err(JsonError::Truncated(bytes.len())),
    }
}

/// The end of the number at `pos`: `-? (0 | [1-9][0-9]*) (\.[0-9]+)? ([eE][+-]?[0-9]+)?`.
#[inline]
pub(super) fn number_end(bytes: &[u8], mut pos: usize) -> Result<usize, JsonError> {
    let byte = |pos: usize| bytes.get(pos).copied().unwrap_or(0);
    if byte(pos) == b'-' {
        pos += 1;
    }
    if byte(pos) == b'0' {
        pos += 1;
        // RFC 8259 §6: leading zeros are not allowed.
        if byte(pos).is_ascii_digit() {
            return Err(JsonError::BadNumber(pos));
        }
    } else {
        pos = digits_end(bytes, pos)?;
    }
    if byte(pos) == b'.' {
        pos = digits_end(bytes, pos + 1)?;
    }
    if matches!(byte(pos), b'e' | b'E') {
        pos += 1;
        if matches!(byte(pos), b'+' | b'-') {
            pos += 1;
        }
        pos = digits_end(bytes, pos)?;
    }
    Ok(pos)
}

/// The end of one digit or more.
#[inline]
fn digits_end(bytes: &[u8], mut pos: usize) -> Result<usize, JsonError> {
    let start = pos;
    while bytes.get(pos).is_some_and(u8::is_ascii_digit) {
        pos += 1;
    }
    if start < pos {
        return Ok(pos);
    }
    Err(if pos < bytes.len() { JsonError::BadNumber(pos) } else { JsonError::Truncated(pos) })
}

/// The end of `word` at `pos`.
#[inline]
pub(super) fn literal_end(bytes: &[u8], pos: usize, word: &[u8]) -> Result<usize, JsonError> {
    let rest = bytes.get(pos..).unwrap_or_default();
    if rest.starts_with(word) {
        return Ok(pos + word.len());
    }
    Err(if word.starts_with(rest) {
        JsonError::Truncated(bytes.len())
    } else {
        JsonError::Unexpected(pos)
    })
}

/// The first place from `pos` on that is not blank, and the byte there; 0 at the end.
#[inline(never)]
pub(super) fn skip_blanks(bytes: &[u8], mut pos: usize, has_breaks: &mut bool) -> (usize, u8) {
    loop {
        match bytes.get(pos) {
            Some(b' ' | b'\t') => {}
            Some(b'\n' | b'\r') => *has_breaks = true,
            Some(&other) => return (pos, other),
            None => return (pos, 0),
        }
        pos += 1;
    }
}

/// The first position from `pos` on whose byte ends a plain run in a string: a quote, a backslash
/// or a control character; the document's end when there is none.
#[inline]
fn plain_end(bytes: &[u8], pos: usize) -> usize {
    let mut rest = bytes.get(pos..).unwrap_or_default();
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let marks = special_bytes(u64::from_le_bytes(*word));
        if marks != 0 {
            return bytes.len() - rest.len() + marks.trailing_zeros() as usize / 8;
        }
        rest = tail;
    }
    let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
    bytes.len() - rest.len() + plain
}

/// Marks in `word` with the top bit of each byte that is a quote, a backslash or below 0x20. Only
/// the lowest mark is exact: a borrow may set marks above it.
#[inline]
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    // Flipping bit 1 moves the quote (0x22) to 0x20, next to the control characters, and what was
    // there out of the way: one comparison with 0x21 finds both.
    let low = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES);
    (low | backslash) & !word & (ONES << 7)
}
