//! Vectors, every split, round trips, and the property over a corpus.

use super::{
    Body, BodyDecoder, BodyError, CHUNK_END, Collected, HEAD_END, HeadError, HeaderSlots,
    LAST_CHUNK, Limits, RequestHead, ResponseHead, Version, fuzz, is_field_value, is_token, reason,
    request, response, write_chunk_head, write_header, write_length, write_request_line,
    write_status_line,
};
use crate::Decoded;
use std::string::ToString as _;
use std::vec::Vec;

const LIMITS: Limits = Limits { head_len_max: 4096, target_len_max: 256 };

const POST: &[u8] = b"POST /mcp?x=1 HTTP/1.1\r\nHost: gateway.example:8080\r\n\
    content-type: application/json\r\nAccept: application/json, text/event-stream\r\n\
    Mcp-Session-Id: 1868a90c-1e3e-4f5b-8a0c-2f3f6a9d1b7e\r\nContent-Length: 42\r\n\r\n";

/// Whatever the protocol, an item must decode the same no matter how its bytes were split.
#[track_caller]
fn check_request_splits(bytes: &[u8], check: impl Fn(RequestHead<'_, '_>)) {
    for end in 0..bytes.len() {
        let slots = &mut HeaderSlots::new();
        let decoded = request(&bytes[..end], slots, LIMITS);
        assert_eq!(decoded, Ok(Decoded::Incomplete), "cut at {end}");
    }
    let mut more = bytes.to_vec();
    more.extend_from_slice(b"\nGET \x00");
    for bytes in [bytes, &more] {
        let slots = &mut HeaderSlots::new();
        match request(bytes, slots, LIMITS) {
            Ok(Decoded::Item { item, used }) => {
                assert_eq!(used, more.len() - 6);
                check(item);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn check_response_splits(bytes: &[u8], is_head: bool, check: impl Fn(ResponseHead<'_, '_>)) {
    for end in 0..bytes.len() {
        let slots = &mut HeaderSlots::new();
        let decoded = response(&bytes[..end], slots, LIMITS, is_head);
        assert_eq!(decoded, Ok(Decoded::Incomplete), "cut at {end}");
    }
    let slots = &mut HeaderSlots::new();
    match response(bytes, slots, LIMITS, is_head) {
        Ok(Decoded::Item { item, used }) => {
            assert_eq!(used, bytes.len());
            check(item);
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_response_body(head: &str, asked: &str, body: Body, keep_alive: bool) {
    check_response_splits(head.as_bytes(), asked == "HEAD", |item| {
        assert_eq!((item.body, item.keep_alive), (body, keep_alive));
    });
}

/// Every way to cut the bytes in two, and one byte at a time.
#[track_caller]
fn check_body(body: Body, bytes: &[u8], data: &[u8], used: usize, done: bool) {
    let mut cuts: Vec<Vec<&[u8]>> =
        (0..=bytes.len()).map(|cut| [&bytes[..cut], &bytes[cut..]].to_vec()).collect();
    cuts.push(bytes.chunks(1).collect());
    for parts in cuts {
        let mut collected = Collected::new(body);
        for part in &parts {
            collected.feed(part);
        }
        assert_eq!(collected.error, None, "{parts:?}");
        assert_eq!((&collected.data[..], collected.used, collected.done), (data, used, done));
    }
}

#[test]
fn a_request_survives_every_split() {
    check_request_splits(POST, |head| {
        assert_eq!((head.method, head.target), ("POST", "/mcp?x=1"));
        assert_eq!((head.version, head.body), (Version::Http11, Body::Length(42)));
        assert!(head.keep_alive && !head.expects_continue);
        assert_eq!(head.headers.count(), 5);
        assert_eq!(head.headers.get("CONTENT-type"), Some(&b"application/json"[..]));
        assert_eq!(head.headers.get("content"), None);
        assert_eq!(head.headers.iter().next(), Some(("Host", &b"gateway.example:8080"[..])));
    });
}

#[test]
fn white_space_around_values_goes_and_inside_stays() {
    let bytes = b"GET / HTTP/1.1\r\nHost: \t a \t\r\nX:\r\nx: \r\nX:a \t b\xe9  \r\n\r\n";
    check_request_splits(bytes, |head| {
        assert_eq!(head.headers.get("host"), Some(&b"a"[..]));
        assert_eq!(head.headers.get("x"), Some(&b""[..]));
        let all: Vec<&[u8]> = head.headers.get_all("x").collect();
        assert_eq!(all, [&b""[..], b"", b"a \t b\xe9"]);
        assert_eq!(head.body, Body::None);
    });
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    check_request_splits(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", |head| {
        assert_eq!(head.method, "GET");
    });
}

#[test]
fn targets_of_three_forms() {
    for (line, target) in [
        ("OPTIONS * HTTP/1.1", "*"),
        ("GET http://A:8080 HTTP/1.1", "http://A:8080"),
        ("GET HTTPS://a:8080/x?y HTTP/1.1", "HTTPS://a:8080/x?y"),
        ("GET http://a:8080?y HTTP/1.1", "http://a:8080?y"),
        ("M-SEARCH //x/../%00?a=b&{c}|d HTTP/1.1", "//x/../%00?a=b&{c}|d"),
    ] {
        let bytes = std::format!("{line}\r\nHost: a:8080\r\n\r\n");
        check_request_splits(bytes.as_bytes(), |head| assert_eq!(head.target, target));
    }
}

#[test]
fn bodies_of_requests() {
    for (fields, body, expects_continue) in [
        ("X: y", Body::None, false),
        ("Content-Length: 0", Body::None, false),
        ("Content-Length: 007", Body::Length(7), false),
        ("content-length: 18446744073709551615", Body::Length(u64::MAX), false),
        ("TRANSFER-ENCODING: Chunked", Body::Chunked, false),
        ("Expect: 100-Continue\r\nContent-Length: 1", Body::Length(1), true),
        ("expect: 100-continue\r\nTransfer-Encoding: chunked", Body::Chunked, true),
        ("Expect: 100-continue", Body::None, false),
    ] {
        let bytes = std::format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        check_request_splits(bytes.as_bytes(), |head| {
            assert_eq!((head.body, head.expects_continue), (body, expects_continue), "{fields}");
        });
    }
    check_request_splits(b"POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", |head| {
        assert_eq!((head.body, head.expects_continue), (Body::Length(1), false));
    });
}

#[test]
fn who_may_send_another_request() {
    for (version, fields, keep_alive) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: keep-alive", true),
        ("1.1", "Connection: Close", false),
        ("1.1", "Connection: upgrade ,\tclose", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close", false),
        ("1.1", "Connection: closed", true),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ] {
        let bytes = std::format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        check_request_splits(bytes.as_bytes(), |head| {
            assert_eq!(head.keep_alive, keep_alive, "{version} {fields}");
        });
    }
}

#[test]
fn a_response_says_how_its_content_ends() {
    let ok = |fields: &str| std::format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    check_response_body(&ok("Content-Length: 5"), "GET", Body::Length(5), true);
    check_response_body(&ok("Content-Length: 0"), "GET", Body::None, true);
    check_response_body(&ok("Transfer-Encoding: chunked"), "GET", Body::Chunked, true);
    check_response_body(&ok("Connection: close\r\nX: y"), "GET", Body::UntilClose, false);
    check_response_body(&ok("X: y"), "GET", Body::UntilClose, false);
    check_response_body(&ok("X: y"), "HEAD", Body::None, true);
    check_response_body(&ok("Content-Length: 5"), "HEAD", Body::None, true);
    check_response_body(&ok("Transfer-Encoding: chunked"), "HEAD", Body::None, true);
    check_response_body("HTTP/1.0 200 OK\r\n\r\n", "GET", Body::UntilClose, false);
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n";
    check_response_body(old, "GET", Body::Length(5), true);
    check_response_body("HTTP/1.1 204 No Content\r\n\r\n", "GET", Body::None, true);
    check_response_body("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", "GET", Body::None, true);
    check_response_body("HTTP/1.1 100\r\n\r\n", "GET", Body::None, true);
    check_response_body("HTTP/1.1 101 x\u{e9}\r\n\r\n", "GET", Body::None, true);
}

#[test]
fn a_204_that_announces_content_ends_the_connection() {
    let announced = "HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n";
    check_response_body(announced, "GET", Body::None, false);
    let announced = "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_response_body(announced, "GET", Body::None, false);
    check_response_body("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", "GET", Body::None, true);
}

#[test]
fn a_head_may_be_exactly_as_long_as_its_bound() {
    let exact = Limits { head_len_max: POST.len(), target_len_max: 8 };
    let decoded = request(POST, &mut HeaderSlots::new(), exact).is_ok();
    assert!(decoded, "the bounds are inclusive");
    let short = Limits { head_len_max: POST.len() - 1, ..exact };
    assert_eq!(request(POST, &mut HeaderSlots::new(), short), Err(HeadError::HeadTooLong));
    let short = Limits { target_len_max: 7, ..exact };
    assert_eq!(request(POST, &mut HeaderSlots::new(), short), Err(HeadError::TargetTooLong));
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    bytes.extend_from_slice(&b"X: y\r\n".repeat(99));
    bytes.extend_from_slice(b"\r\n");
    check_request_splits(&bytes, |head| assert_eq!(head.headers.count(), 100));
}

#[test]
fn content_survives_every_split() {
    check_body(Body::None, b"next", b"", 0, true);
    check_body(Body::Length(5), b"hellonext", b"hello", 5, true);
    check_body(Body::Length(5), b"hell", b"hell", 4, false);
    check_body(Body::UntilClose, b"hello", b"hello", 5, false);
    check_body(Body::Chunked, b"0\r\n\r\nnext", b"", 5, true);
    check_body(Body::Chunked, b"5\r\nhello\r\n0\r\n\r\nnext", b"hello", 15, true);
    let bytes =
        b"005;a=b;c=\"d\t\xe9\"\r\nhello\r\nA\r\n, world\r\n!\r\n000;x\r\nT: v\r\nU:\r\n\r\nX";
    check_body(Body::Chunked, bytes, b"hello, world\r\n!", bytes.len() - 1, true);
    check_body(Body::Chunked, b"FffffffffffffffF\r\nabc", b"abc", 21, false);
    check_body(Body::Chunked, b"5\r\nhello\r\n0\r\nT: v\r\n", b"hello", 19, false);
}

#[test]
fn only_some_content_ends_with_the_connection() {
    for (body, complete) in [
        (Body::None, true),
        (Body::Length(0), true),
        (Body::Length(1), false),
        (Body::Chunked, false),
        (Body::UntilClose, true),
    ] {
        assert_eq!(BodyDecoder::new(body).is_complete_at_close(), complete, "{body:?}");
    }
    let mut decoder = BodyDecoder::new(Body::Chunked);
    assert_eq!(decoder.decode(LAST_CHUNK).map(|part| part.done), Ok(true));
    assert!(decoder.is_complete_at_close());
}

#[test]
fn what_is_written_is_read_back() {
    let mut out = Vec::new();
    write_request_line(&mut out, "POST", "/mcp");
    write_header(&mut out, "host", b"a");
    write_header(&mut out, "x", b"");
    write_length(&mut out, u64::MAX);
    out.extend_from_slice(HEAD_END);
    let want =
        b"POST /mcp HTTP/1.1\r\nhost: a\r\nx: \r\ncontent-length: 18446744073709551615\r\n\r\n";
    assert_eq!(out, want);
    check_request_splits(&out, |head| {
        assert_eq!((head.method, head.body), ("POST", Body::Length(u64::MAX)));
    });

    for status in 100..=599 {
        out.clear();
        write_status_line(&mut out, status);
        write_length(&mut out, 0);
        out.extend_from_slice(HEAD_END);
        check_response_splits(&out, false, |head| assert_eq!(head.status, status));
    }
    out.clear();
    write_status_line(&mut out, 299);
    assert_eq!(out, b"HTTP/1.1 299 \r\n");
    write_status_line(&mut out, 404);
    assert!(out.ends_with(b"HTTP/1.1 404 Not Found\r\n"));

    out.clear();
    let mut data = Vec::new();
    for len in [1_usize, 9, 10, 15, 16, 255, 256, 4095] {
        write_chunk_head(&mut out, len);
        out.resize(out.len() + len, b'x');
        out.extend_from_slice(CHUNK_END);
        data.resize(data.len() + len, b'x');
    }
    out.extend_from_slice(LAST_CHUNK);
    assert!(out.starts_with(b"1\r\nx\r\n9\r\nxxxxxxxxx\r\na\r\n"));
    let mut collected = Collected::new(Body::Chunked);
    collected.feed(&out);
    assert_eq!((collected.data, collected.done), (data, true));
}

#[test]
fn values_that_would_end_a_line_are_told_apart() {
    assert!(is_field_value(b"") && is_field_value(b"a\t b\x80\xff~!"));
    for bad in [&b"\r\n"[..], b"a\r", b"a\nb", b"\0", b"\x7f", b"\x1f", b"\x0b"] {
        assert!(!is_field_value(bad), "{bad:?}");
    }
    let tokens = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    assert!(is_token(tokens) && !is_token(b""));
    for byte in 0..=255 {
        assert_eq!(is_token(&[byte]), tokens.contains(&byte), "{byte}");
    }
}

#[test]
fn errors_have_a_status_with_a_reason_and_one_sentence() {
    use HeadError::{
        BadContentLength, BadHeaderName, BadHeaderValue, BadHost, BadLineEnd, BadRequestLine,
        BadStatusLine, BadTarget, BadTransferEncoding, HeadTooLong, TargetTooLong, TooManyHeaders,
        TwoLengths, UnknownExpectation, UnknownTransferCoding, UnsupportedVersion,
    };
    for (errors, status) in [
        (&[BadRequestLine, BadStatusLine, BadLineEnd, BadHeaderName, BadHeaderValue][..], 400),
        (&[BadTarget, BadHost, BadContentLength, BadTransferEncoding, TwoLengths], 400),
        (&[TargetTooLong], 414),
        (&[UnknownExpectation], 417),
        (&[HeadTooLong, TooManyHeaders], 431),
        (&[UnknownTransferCoding], 501),
        (&[UnsupportedVersion], 505),
    ] {
        for error in errors {
            assert_eq!(error.status(), status, "{error:?}");
            assert!(!reason(status).is_empty() && !error.to_string().is_empty());
        }
    }
    assert!(!BodyError::BadChunkEnd.to_string().is_empty());
}

/// Vectors, pseudo-random bytes, and vectors with a few bytes changed; the same in every run.
#[test]
fn the_property_holds_over_a_corpus() {
    let vectors: [&[u8]; 7] = [
        POST,
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST http://a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
          Transfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n",
        b"HTTP/1.0 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
        b"5;a=b\r\nhello\r\nfff\r\n",
        b"1\r\nx\r\n0\r\nTrailer: y\r\nZ:\r\n\r\nGET",
    ];
    let pieces: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b": ",
        b" ",
        b"\0",
        b"Host: b\r\n",
        b"Content-Length: 1\r\n",
        b",",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"\xff",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for round in 0..20_000 {
        let mut bytes = Vec::from([u8::try_from(random(256)).unwrap()]);
        if round % 8 == 0 {
            bytes.extend((0..random(64)).map(|_| u8::try_from(random(256)).unwrap()));
        } else {
            bytes.extend_from_slice(vectors[random(vectors.len())]);
            for _ in 0..random(4) {
                let at = 1 + random(bytes.len() - 1);
                match random(3) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => drop(bytes.remove(at)),
                    _ => drop(bytes.splice(at..at, pieces[random(pieces.len())].iter().copied())),
                }
            }
        }
        fuzz(&bytes);
    }
}
