//! Writers for heads and chunks: each appends to a buffer of the caller's and does nothing else.
//!
//! Not a check of what is written: names, methods and targets are ours or were decoded, and a
//! value from elsewhere is asked about with [`is_field_value`] first. Debug builds assert it.

use super::fields::{is_field_value, is_token};
use alloc::vec::Vec;

/// What ends a head, behind the last field.
pub const HEAD_END: &[u8] = b"\r\n";

/// What follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `HTTP/1.1 200 OK` and the line end.
pub fn write_status_line(out: &mut Vec<u8>, status: u16) {
    debug_assert!((100..=599).contains(&status), "{status} has no class");
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(status), 10);
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `POST /mcp HTTP/1.1` and the line end.
pub fn write_request_line(out: &mut Vec<u8>, method: &str, target: &str) {
    debug_assert!(is_token(method.as_bytes()), "{method:?} is no method");
    debug_assert!(
        !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic()),
        "{target:?} is no target"
    );
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends one field line.
pub fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(is_token(name.as_bytes()), "{name:?} is no field name");
    debug_assert!(is_field_value(value), "the value of {name} has a control byte");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the `content-length` line.
pub fn write_length(out: &mut Vec<u8>, len: u64) {
    out.extend_from_slice(b"content-length: ");
    write_number(out, len, 10);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before `len` bytes of chunk data, which [`CHUNK_END`] follows. `len` is not
/// zero: that would end the body, and [`LAST_CHUNK`] is for that.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len != 0, "an empty chunk ends the body");
    write_number(out, len as u64, 16);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status; empty if it has none here, which RFC 9112 §4 allows.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Appends `number` in base 10 or 16.
fn write_number(out: &mut Vec<u8>, number: u64, base: u64) {
    // 20 digits are the most that 64 bits need, in base 10.
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        let digit = u8::try_from(rest % base).unwrap_or_default();
        *slot = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        rest /= base;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}
