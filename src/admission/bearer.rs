//! Who a request says that it comes from: the token in `Authorization`.
//!
//! Not whether that is true: there is no authentication yet. A token is only compared with others,
//! so that what belongs to its owner is given to nobody else.

use std::fmt;

use bytes::Bytes;
use wire::http1::Headers;

use crate::limits;

/// A bearer token. It is a secret: its bytes leave it only to be compared.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Bytes);

impl Token {
    /// The token of a request; none: it has none, several, or one that cannot be one.
    pub fn of(headers: &Headers<'_, '_>) -> Option<Self> {
        let mut values = headers.get_all("authorization");
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (scheme, token) = value.split_at_checked("bearer ".len())?;
        let token = token.trim_ascii();
        // RFC 6750 §2.1; the scheme has no letter case (RFC 9110 §11.1).
        let is_fine = scheme.eq_ignore_ascii_case(b"bearer ")
            && (1..=limits::TOKEN_LEN_MAX).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        is_fine.then(|| Self(Bytes::copy_from_slice(token)))
    }

    /// Its bytes, to find out which shard has what belongs to it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use wire::Decoded;
    use wire::http1::{self, HeaderSlots};

    use super::*;

    fn token(fields: &str) -> Option<Token> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let limits = http1::Limits { head_len_max: 32_768, target_len_max: 100 };
        let mut slots = HeaderSlots::new();
        let Ok(Decoded::Item { item, .. }) = http1::request(head.as_bytes(), &mut slots, limits)
        else {
            panic!("{head}");
        };
        Token::of(&item.headers)
    }

    #[test]
    fn there_is_one_token_or_none() {
        let token_of = |text: &'static str| Some(Token(Bytes::from_static(text.as_bytes())));
        assert_eq!(token("Authorization: Bearer a.b-c\r\n"), token_of("a.b-c"));
        assert_eq!(token("authorization: bearer  a\r\n"), token_of("a"));
        for fields in [
            "",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Basic YTpi\r\n",
            "Authorization: Bearer a b\r\n",
            "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n",
        ] {
            assert_eq!(token(fields), None, "{fields}");
        }
        let long = |len| token(&format!("Authorization: Bearer {}\r\n", "x".repeat(len)));
        assert!(long(limits::TOKEN_LEN_MAX).is_some());
        assert!(long(limits::TOKEN_LEN_MAX + 1).is_none());
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = token("Authorization: Bearer secret\r\n").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }
}
