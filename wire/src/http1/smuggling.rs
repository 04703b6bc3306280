//! What other parsers have disagreed on: each line is a way to make two parties see two different
//! messages, and what it must come to here.

use super::HeadError::{
    BadContentLength, BadHeaderName, BadHeaderValue, BadHost, BadLineEnd, BadRequestLine,
    BadStatusLine, BadTarget, BadTransferEncoding, HeadTooLong, TargetTooLong, TooManyHeaders,
    TwoLengths, UnknownExpectation, UnknownTransferCoding, UnsupportedVersion,
};
use super::{Body, BodyDecoder, BodyError, HeadError, HeaderSlots, Limits, request, response};
use crate::Decoded;
use std::format;
use std::string::String;

const LIMITS: Limits = Limits { head_len_max: 4096, target_len_max: 256 };

/// One or more field lines, in front of the Host and behind it.
#[track_caller]
fn check_fields(fields: &str, want: HeadError) {
    check_request(format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"), want);
    check_request(format!("POST /mcp HTTP/1.1\r\n{fields}\r\nHost: a\r\n\r\n"), want);
}

#[track_caller]
fn check_line(line: &str, want: HeadError) {
    check_request(format!("{line}\r\nHost: a\r\n\r\n"), want);
}

#[track_caller]
fn check_request(bytes: impl AsRef<[u8]>, want: HeadError) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes);
    for end in 0..bytes.len() {
        match request(&bytes[..end], &mut HeaderSlots::new(), LIMITS) {
            Ok(Decoded::Incomplete) => {}
            other => assert_eq!(other, Err(want), "the first {end} bytes of {shown:?}"),
        }
    }
    assert_eq!(request(bytes, &mut HeaderSlots::new(), LIMITS), Err(want), "{shown:?}");
}

#[track_caller]
fn check_response(bytes: &str, want: HeadError) {
    for end in 0..bytes.len() {
        match response(&bytes.as_bytes()[..end], &mut HeaderSlots::new(), LIMITS, false) {
            Ok(Decoded::Incomplete) => {}
            other => assert_eq!(other, Err(want), "the first {end} bytes of {bytes:?}"),
        }
    }
    let slots = &mut HeaderSlots::new();
    let decoded = response(bytes.as_bytes(), slots, LIMITS, false);
    assert_eq!(decoded, Err(want), "{bytes:?}");
}

#[track_caller]
fn check_chunks(bytes: impl AsRef<[u8]>, want: BodyError) {
    let bytes = bytes.as_ref();
    let mut decoder = BodyDecoder::new(Body::Chunked);
    let mut rest = bytes;
    let error = loop {
        match decoder.decode(rest) {
            Ok(part) => {
                assert!(!part.done, "{:?} was taken", String::from_utf8_lossy(bytes));
                assert_ne!(part.used, 0, "{:?} is not whole", String::from_utf8_lossy(bytes));
                rest = &rest[part.used..];
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, want, "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(want), "an error is final");
}

#[test]
fn one_content_length_of_digits_or_none() {
    check_fields("Content-Length: 5\r\nContent-Length: 5", BadContentLength);
    check_fields("Content-Length: 5\r\nContent-Length: 6", BadContentLength);
    check_fields("Content-Length: 5\r\nX: y\r\ncontent-length: 5", BadContentLength);
    check_fields("Content-Length: 5, 5", BadContentLength);
    check_fields("Content-Length: 5,6", BadContentLength);
    check_fields("Content-Length: 5,", BadContentLength);
    check_fields("Content-Length: +5", BadContentLength);
    check_fields("Content-Length: -5", BadContentLength);
    check_fields("Content-Length: -0", BadContentLength);
    check_fields("Content-Length: 0x5", BadContentLength);
    check_fields("Content-Length: 5_0", BadContentLength);
    check_fields("Content-Length: 5.0", BadContentLength);
    check_fields("Content-Length: 5e3", BadContentLength);
    check_fields("Content-Length: 5 0", BadContentLength);
    check_fields("Content-Length: \"5\"", BadContentLength);
    check_fields("Content-Length: five", BadContentLength);
    check_fields("Content-Length:", BadContentLength);
    check_fields("Content-Length: ", BadContentLength);
    check_fields("Content-Length: 18446744073709551616", BadContentLength);
    check_fields("Content-Length: 99999999999999999999999999", BadContentLength);
    check_fields("Content-Length: \u{ff15}", BadContentLength);
}

#[test]
fn one_chunked_or_no_transfer_coding() {
    check_fields("Transfer-Encoding: chunked\r\nContent-Length: 5", TwoLengths);
    check_fields("Content-Length: 5\r\nTransfer-Encoding: chunked", TwoLengths);
    check_fields("Content-Length: 0\r\nTransfer-Encoding: chunked", TwoLengths);
    check_fields("Content-Length: 5\r\nTransfer-Encoding: identity", TwoLengths);
    check_fields("Content-Length: 5\r\nTransfer-Encoding:", TwoLengths);
    check_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BadTransferEncoding);
    check_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", BadTransferEncoding);
    check_fields("Transfer-Encoding: chunked, chunked", BadTransferEncoding);
    check_fields("Transfer-Encoding: chunked,", BadTransferEncoding);
    check_fields("Transfer-Encoding: ,chunked", BadTransferEncoding);
    check_fields("Transfer-Encoding: chunked;q=1", BadTransferEncoding);
    check_fields("Transfer-Encoding: \"chunked\"", BadTransferEncoding);
    check_fields("Transfer-Encoding: chunked x", BadTransferEncoding);
    check_fields("Transfer-Encoding:", BadTransferEncoding);
    check_fields("Transfer-Encoding: \u{212a}chunked", BadTransferEncoding);
    check_fields("Transfer-Encoding: identity", UnknownTransferCoding);
    check_fields("Transfer-Encoding: xchunked", UnknownTransferCoding);
    check_fields("Transfer-Encoding: chunkedx", UnknownTransferCoding);
    check_fields("Transfer-Encoding: gzip", UnknownTransferCoding);
    check_fields("Transfer-Encoding: gzip, chunked", UnknownTransferCoding);
    check_fields("Transfer-Encoding: chunked, gzip", UnknownTransferCoding);
    check_fields("Transfer-Encoding: chunked, identity", UnknownTransferCoding);
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_request(old, BadTransferEncoding);
    check_fields("Transfer-Encoding:\x0bchunked", BadHeaderValue);
    check_fields("Transfer-Encoding: chunked\x00", BadHeaderValue);
    check_fields("Transfer-Encoding : chunked", BadHeaderName);
    check_fields("Transfer-Encoding\t: chunked", BadHeaderName);
    check_fields(" Transfer-Encoding: chunked", BadHeaderName);
    check_fields("X: y\r\n Transfer-Encoding: chunked", BadHeaderName);
    check_fields("Transfer\u{0}-Encoding: chunked", BadHeaderName);
}

#[test]
fn lines_end_in_cr_lf_only() {
    check_request("GET / HTTP/1.1\nHost: a\r\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\r\n\n", BadLineEnd);
    check_request("GET / HTTP/1.1\nHost: a\n\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\rHost: a\r\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\r\n\rX", BadLineEnd);
    check_request("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BadLineEnd);
    check_request("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", BadHeaderValue);
    check_request("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BadHeaderValue);
    check_request("GET / HTTP/1.1\r\nHost: a\r\nX:\ry\r\n\r\n", BadHeaderValue);
    check_request("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadLineEnd);
    check_request("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadLineEnd);
    check_request("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadLineEnd);
    check_request("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadLineEnd);
}

#[test]
fn fields_are_a_token_a_colon_and_a_value() {
    check_fields("X: y\r\n folded", BadHeaderName);
    check_fields("X: y\r\n\tfolded", BadHeaderName);
    check_fields("X:\r\n y", BadHeaderName);
    check_fields("X : y", BadHeaderName);
    check_fields(": y", BadHeaderName);
    check_fields("no colon", BadHeaderName);
    check_fields("X(y): z", BadHeaderName);
    check_fields("X\u{e9}: z", BadHeaderName);
    check_fields("X: \x00", BadHeaderValue);
    check_fields("X: y\x01z", BadHeaderValue);
    check_fields("X: y\x1b", BadHeaderValue);
    check_fields("X: y\x7f", BadHeaderValue);
    check_fields("X: y\x0bz", BadHeaderValue);
    check_request("GET / HTTP/1.1\r\n Host: a\r\n\r\n", BadHeaderName);
    check_request("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", BadHeaderName);
}

#[test]
fn one_host_that_is_a_host() {
    check_request("GET / HTTP/1.1\r\n\r\n", BadHost);
    check_request("GET / HTTP/1.1\r\nX: y\r\n\r\n", BadHost);
    check_fields("Host: a", BadHost);
    check_fields("hOST: b", BadHost);
    check_request("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", BadHost);
    for host in ["a b", "a,b", "a/b", "u@a", "a?b", "a#b", "a\\b", "a\u{e9}", "<a>", "a\tb"] {
        check_request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), BadHost);
    }
    check_line("GET http://b/ HTTP/1.1", BadHost);
    check_line("GET http://a:80/ HTTP/1.1", BadHost);
}

#[test]
fn a_request_line_is_three_words() {
    check_line("GET /\u{e9} HTTP/1.1", BadTarget);
    check_request(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", BadRequestLine);
    for target in ["mcp", "*", "a:443", "http:/a", "http://", "http:///x", "ftp://a/", "?x"] {
        check_line(&format!("GET {target} HTTP/1.1"), BadTarget);
    }
    for target in ["/#f", "http://a/#f", "http://u@a/", "http://u:p@a/", "http://a\\b/", "://a"] {
        check_line(&format!("GET {target} HTTP/1.1"), BadTarget);
    }
    check_line("CONNECT a:443 HTTP/1.1", BadTarget);
    for line in ["GET  / HTTP/1.1", "GET\t/ HTTP/1.1", " GET / HTTP/1.1", "G@T / HTTP/1.1"] {
        check_line(line, BadRequestLine);
    }
    for line in ["GET /", "GET / ", "GET", "GET / x HTTP/1.1", "GET /\t HTTP/1.1"] {
        check_line(line, BadRequestLine);
    }
    for line in ["GET /\x00 HTTP/1.1", "GET /\x7f HTTP/1.1", "GET / http/1.1", "GET / HTTP/1"] {
        check_line(line, BadRequestLine);
    }
    for line in ["GET / HTTP/11", "GET / HTTP/x.1", "GET / HTTP/ 1.1", "GET /  HTTP/1.1"] {
        check_line(line, BadRequestLine);
    }
    for version in ["0.9", "1.2", "2.0", "3.0", "9.9"] {
        check_line(&format!("GET / HTTP/{version}"), UnsupportedVersion);
    }
    check_request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion);
    check_fields("Expect: 200-ok", UnknownExpectation);
    check_fields("Expect: 100-continue, x", UnknownExpectation);
    check_fields("Expect:", UnknownExpectation);
}

#[test]
fn heads_have_bounds() {
    let long = "x".repeat(256);
    check_line(&format!("GET /{long} HTTP/1.1"), TargetTooLong);
    check_line(&format!("GET /{long}{long} HTTP/9.9"), TargetTooLong);
    check_fields(&format!("X: {}", "y".repeat(4096)), HeadTooLong);
    check_fields(&"X: y\r\n".repeat(110), TooManyHeaders);
    check_line(&"x".repeat(5000), HeadTooLong);
}

#[test]
fn responses_are_no_laxer() {
    for (fields, want) in [
        ("Content-Length: 5\r\nContent-Length: 5", BadContentLength),
        ("Content-Length: 5, 5", BadContentLength),
        ("Content-Length: +5", BadContentLength),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", TwoLengths),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked, chunked", BadTransferEncoding),
        ("Transfer-Encoding: gzip, chunked", UnknownTransferCoding),
        ("Transfer-Encoding: identity", UnknownTransferCoding),
        ("X: y\r\n folded", BadHeaderName),
        ("X : y", BadHeaderName),
        (" X: y", BadHeaderName),
        ("X: \x00", BadHeaderValue),
        ("X: a\nY: b", BadLineEnd),
    ] {
        check_response(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), want);
    }
    check_response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding);
    check_response("HTTP/1.1 200 OK\n\n", BadLineEnd);
    check_response("HTTP/1.1 200\n\r\n", BadLineEnd);
    check_response("\r\nHTTP/1.1 200 OK\r\n\r\n", BadLineEnd);
    for line in ["HTTP/1.1  200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 2x0 OK"] {
        check_response(&format!("{line}\r\n\r\n"), BadStatusLine);
    }
    for line in ["HTTP/1.1 099 x", "HTTP/1.1 600 x", "HTTP/1.1\t200 OK", "ICY 200 OK", "200 OK"] {
        check_response(&format!("{line}\r\n\r\n"), BadStatusLine);
    }
    check_response("HTTP/1.1 200 O\x01K\r\n\r\n", BadStatusLine);
    check_response("HTTP/2.0 200 OK\r\n\r\n", UnsupportedVersion);
}

#[test]
fn chunks_are_exact() {
    for size in ["", "+5", "-5", "0x5", "0X5", "5_0", " 5", "5 ", "5\t", "5 ;x", "g", "\"5\"", ";x"]
    {
        check_chunks(format!("{size}\r\nhello\r\n0\r\n\r\n"), BodyError::BadChunkSize);
    }
    check_chunks("00000000000000005\r\nhello\r\n", BodyError::BadChunkSize);
    check_chunks("10000000000000000\r\n", BodyError::BadChunkSize);
    check_chunks("fffffffffffffffff\r\n", BodyError::BadChunkSize);
    check_chunks("5\nhello\r\n0\r\n\r\n", BodyError::BadChunkSize);
    check_chunks("5\r\r\nhello", BodyError::BadChunkSize);
    check_chunks("5\rhello", BodyError::BadChunkSize);
    check_chunks(b"\xef\xbc\x95\r\nhello\r\n", BodyError::BadChunkSize);
    check_chunks("5;x\nhello\r\n", BodyError::BadChunkExtension);
    check_chunks("5;x=\"\n\"\r\nhello\r\n", BodyError::BadChunkExtension);
    check_chunks("5;\x00\r\nhello\r\n", BodyError::BadChunkExtension);
    check_chunks("5;x\rhello\r\n", BodyError::BadChunkSize);
    check_chunks(format!("5;{}\r\n", "x".repeat(257)), BodyError::ChunkExtensionTooLong);
    for end in ["", "\n", "\rX", "x\r\n", "\n\r"] {
        check_chunks(format!("5\r\nhello{end}0\r\n\r\n"), BodyError::BadChunkEnd);
    }
    check_chunks("4\r\nhello\r\n0\r\n\r\n", BodyError::BadChunkEnd);
    for trailer in ["\n", "\rX", "x\r\n", "x\n", " x: y\r\n", ": y\r\n", "x : y\r\n", "x: y\n"] {
        check_chunks(format!("0\r\n{trailer}\r\n"), BodyError::BadTrailer);
    }
    check_chunks("0\r\nx: y\r\n folded\r\n\r\n", BodyError::BadTrailer);
    check_chunks("0\r\nx: \x00\r\n\r\n", BodyError::BadTrailer);
    check_chunks(format!("0\r\n{}", "x: y\r\n".repeat(3000)), BodyError::TrailersTooLong);
    check_chunks(format!("0\r\nx: {}", "y".repeat(9000)), BodyError::TrailersTooLong);
}
