//! The fields that say where a message ends: Content-Length, Transfer-Encoding and Connection.
//!
//! Not a best guess: RFC 9112 §6.3 lets a recipient repair some conflicts; here every one of them
//! is an error, because the party in front may have repaired it the other way.

use super::error::HeadError;
use super::fields::is_token;
use super::head::{Body, Version};
use httparse::Header;

/// What the fields seen so far say.
#[derive(Default)]
pub(super) struct Framing<'a> {
    length: Option<u64>,
    coding: Option<&'a [u8]>,
    says_close: bool,
    says_keep_alive: bool,
}

impl<'a> Framing<'a> {
    /// Takes note of one field, if it is about framing.
    pub(super) fn see(&mut self, field: &Header<'a>) -> Result<(), HeadError> {
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                self.see_connection(field.value);
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                // RFC 9112 §6.3 item 5 allows equal repeats; they are refused with the others.
                if self.length.is_some() {
                    return Err(HeadError::BadContentLength);
                }
                self.length = Some(decimal(field.value).ok_or(HeadError::BadContentLength)?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.coding.is_some() {
                    return Err(HeadError::BadTransferEncoding);
                }
                self.coding = Some(field.value);
            }
            _ => {}
        }
        Ok(())
    }

    fn see_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 §6.3 for requests: without either field there is no content.
    pub(super) fn request_body(&self, version: Version) -> Result<Body, HeadError> {
        Ok(self.announced(version)?.unwrap_or(Body::None))
    }

    /// RFC 9112 §6.3 for responses: without either field, content runs until the close.
    pub(super) fn response_body(&self, version: Version) -> Result<Body, HeadError> {
        Ok(self.announced(version)?.unwrap_or(Body::UntilClose))
    }

    /// RFC 9112 §9.3.
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.says_keep_alive && !self.says_close,
            Version::Http11 => !self.says_close,
        }
    }

    fn announced(&self, version: Version) -> Result<Option<Body>, HeadError> {
        match (self.length, self.coding) {
            (None, None) => Ok(None),
            (Some(0), None) => Ok(Some(Body::None)),
            (Some(len), None) => Ok(Some(Body::Length(len))),
            (None, Some(coding)) => check_coding(coding, version).map(|()| Some(Body::Chunked)),
            // RFC 9112 §6.1: this ought to be handled as an error.
            (Some(_), Some(_)) => Err(HeadError::TwoLengths),
        }
    }
}

/// RFC 9112 §6.1: exactly one coding, `chunked`, and never in HTTP/1.0.
fn check_coding(value: &[u8], version: Version) -> Result<(), HeadError> {
    if version == Version::Http10 {
        return Err(HeadError::BadTransferEncoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut error = HeadError::BadTransferEncoding;
    for coding in value.split(|&byte| byte == b',') {
        let coding = coding.trim_ascii();
        if !is_token(coding) {
            return Err(HeadError::BadTransferEncoding);
        }
        if !coding.eq_ignore_ascii_case(b"chunked") {
            error = HeadError::UnknownTransferCoding;
        }
    }
    Err(error)
}

/// 1*DIGIT, and nothing else: no sign, no space, no list.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
