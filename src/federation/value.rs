//! The few looks into JSON that a federation needs. What is not changed keeps its bytes.

use wire::json::{self, Span, Text};

use crate::limits;

/// The value of a member of the object that `bytes` are; of the last one, if there are several.
pub fn find(bytes: &[u8], key: &str) -> Option<Span> {
    let entries = json::entries(bytes, limits::DEPTH_MAX).ok()?;
    entries.iter().rev().find(|(name, _)| Text::eq(*name, bytes, key)).map(|(_, value)| *value)
}

/// The value of a member of a member, and so on.
pub fn find_path(bytes: &[u8], path: &[&str]) -> Option<Span> {
    let mut whole = Span { start: 0, end: u32::try_from(bytes.len()).ok()? };
    for key in path {
        let inner = find(whole.get(bytes), key)?;
        whole = Span { start: whole.start + inner.start, end: whole.start + inner.end };
    }
    Some(whole)
}

/// The value of a token that is a string.
pub fn text_of(token: &[u8]) -> Option<String> {
    let inner = token.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let has_escapes = memchr::memchr(b'\\', inner).is_some();
    let text =
        Text { inner: Span { start: 1, end: u32::try_from(token.len()).ok()? - 1 }, has_escapes };
    String::from_utf8(text.decode(token).into_owned()).ok()
}

/// A string as a token.
pub fn token(text: &str) -> Vec<u8> {
    let mut token = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut token, text);
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found() {
        let bytes = br#" {"a":{"b" : [1,2]},"\u0061b":"\u00fc","a":{"b":3}} "#;
        assert_eq!(find_path(bytes, &["a", "b"]).map(|span| span.get(bytes)), Some(&b"3"[..]));
        let text = find(bytes, "ab").and_then(|span| text_of(span.get(bytes)));
        assert_eq!(text.as_deref(), Some("ü"));
        assert_eq!(find(bytes, "c"), None);
        assert_eq!(find(b"[1]", "a"), None);
        assert_eq!(find_path(bytes, &["a", "b", "c"]), None);
    }

    #[test]
    fn strings_come_back() {
        for text in ["", "a", "\"\\\n", "ü\u{1f600}"] {
            assert_eq!(text_of(&token(text)).as_deref(), Some(text));
        }
        assert_eq!(text_of(b"1"), None);
        assert_eq!(text_of(b"\""), None);
    }
}
