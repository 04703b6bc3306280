//! Vectors, every split, round trips, bounds, and the property over a corpus.

use super::{
    COMMENT, EVENT_END, EventParser, FuzzEvent, FuzzLog, SseError, fuzz, write_event,
    write_event_head,
};
use std::vec::Vec;

/// An event with data and nothing else.
fn data(data: &str) -> FuzzEvent {
    FuzzEvent { name: Vec::new(), data: data.into(), id: None, retry_ms: None, has_data: true }
}

/// Whatever the protocol, a stream must give the same events no matter how its bytes were split:
/// every way to cut it in two, and one byte at a time.
#[track_caller]
fn check(bytes: impl AsRef<[u8]>, want: &[FuzzEvent]) {
    let bytes = bytes.as_ref();
    for cut in 0..=bytes.len() {
        let log = FuzzLog::of(&[&bytes[..cut], &bytes[cut..]], 1024);
        assert_eq!((&log.events[..], log.error), (want, None), "cut at {cut}");
    }
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    let log = FuzzLog::of(&parts, 1024);
    assert_eq!((&log.events[..], log.error), (want, None), "one byte at a time");
}

#[test]
fn the_examples_of_the_standard() {
    check("data: YHOO\ndata: +2\ndata: 10\n\n", &[data("YHOO\n+2\n10")]);
    check(
        ": test stream\n\ndata: first event\nid: 1\n\n\
         data:second event\nid\n\ndata:  third event\n\n",
        &[
            FuzzEvent { id: Some(b"1".into()), ..data("first event") },
            FuzzEvent { id: Some(Vec::new()), ..data("second event") },
            data(" third event"),
        ],
    );
    check("data\n\ndata\ndata\n\ndata:", &[data(""), data("\n")]);
    check("data:test\n\ndata: test\n\n", &[data("test"), data("test")]);
    check(
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        &[
            FuzzEvent { name: b"add".into(), ..data("73857293") },
            FuzzEvent { name: b"remove".into(), ..data("2153") },
        ],
    );
}

#[test]
fn all_line_ends_are_equal() {
    let want = [FuzzEvent { id: Some(b"1".into()), ..data("a\nb") }, data("c")];
    for end in ["\n", "\r\n", "\r"] {
        let lines = ["data: a", "id: 1", "data: b", "", ": x", "data: c", "", ""];
        check(lines.join(end), &want);
    }
    check("data: a\rid: 1\ndata: b\r\n\rdata: c\n\r", &want);
    check("data: a\n\rdata: b\n\n", &[data("a"), data("b")]);
    check("data: a\r\r\ndata: b\r\r\n\n", &[data("a"), data("b")]);
}

#[test]
fn an_id_or_a_retry_alone_is_reported() {
    let id = |id: &str| FuzzEvent { id: Some(id.into()), has_data: false, ..data("") };
    let retry = |ms| FuzzEvent { retry_ms: Some(ms), has_data: false, ..data("") };
    check("id: x\ndata:\n\n", &[FuzzEvent { has_data: true, ..id("x") }]);
    check("id: x\ndata: \n\n", &[FuzzEvent { has_data: true, ..id("x") }]);
    check("id: x\n\n", &[id("x")]);
    check("id\n\n", &[id("")]);
    check("id: x\nid: y z\n\n", &[id("y z")]);
    check("id: x\nid: y\0z\n\n", &[id("x")]);
    check("id: y\0z\n\ndata: a\n\n", &[data("a")]);
    check("retry: 3000\n\n", &[retry(3000)]);
    check("retry: 5\nretry: 6x\nretry: -1\nretry:\nretry\nretry:  7\n\n", &[retry(5)]);
    check("retry: 18446744073709551616\n\nretry:1.5\n\nretry: 5 \n\n", &[]);
    check("retry:18446744073709551615\nretry: 5\n\n", &[retry(5)]);
}

#[test]
fn what_means_nothing_is_skipped() {
    check(": c\n:\n::\n: data: x\n\n\n\n", &[]);
    check("foo: bar\ndat: x\ndatas: x\nDATA: x\n data: x\neventx\nretryretry: 5\n\n", &[]);
    check("event: e\n\ndata: a\n\n", &[data("a")]);
    check("event: e\nevent\ndata: a\n\n", &[data("a")]);
    check("event: e\ndata: a\n\ndata: b\n", &[FuzzEvent { name: b"e".into(), ..data("a") }]);
    check("data: cut off", &[]);
    check("", &[]);
}

#[test]
fn a_byte_order_mark_counts_at_the_front_only() {
    check("\u{feff}data: a\n\n", &[data("a")]);
    check("\u{feff}\ndata: a\n\n", &[data("a")]);
    check("\u{feff}\u{feff}data: a\ndata: b\n\n", &[data("b")]);
    check("data: a\n\n\u{feff}data: b\n\n", &[data("a")]);
    check(b"\xef\xbbdata: a\ndata: b\n\n", &[data("b")]);
    check(b"\xef\n\ndata: b\n\n", &[data("b")]);
    check(b"\xbbdata: a\ndata: b\n\n", &[data("b")]);
}

#[test]
fn what_is_written_is_read_back() {
    let mut out = Vec::new();
    write_event(&mut out, None, None, None, b"{}");
    assert_eq!(out, b"data: {}\n\n");
    check(&out, &[data("{}")]);

    out.clear();
    write_event(&mut out, Some("e"), Some(b" 7"), Some(30), b" a\r\nb\rc\n\nd\n");
    let lines =
        "event: e\nid:  7\nretry: 30\ndata:  a\ndata: b\ndata: c\ndata: \ndata: d\ndata: \n\n";
    assert_eq!(out, lines.as_bytes());
    let id = Some(b" 7".into());
    let event = FuzzEvent { name: b"e".into(), id, retry_ms: Some(30), ..data(" a\nb\nc\n\nd\n") };
    check(&out, &[event]);

    out.clear();
    write_event_head(&mut out, Some(b"1"));
    out.extend_from_slice(b"{}");
    out.extend_from_slice(EVENT_END);
    out.extend_from_slice(COMMENT);
    write_event(&mut out, None, Some(b""), None, b"");
    let id = |id: &str| Some(id.into());
    check(&out, &[FuzzEvent { id: id("1"), ..data("{}") }, FuzzEvent { id: id(""), ..data("") }]);
}

#[test]
fn names_and_ids_cannot_break_a_line() {
    let mut out = Vec::new();
    write_event(&mut out, Some("a\ndata: x"), Some(b"1\r2"), None, b"y");
    write_event(&mut out, None, Some(b"1\0"), None, b"z");
    assert_eq!(out, b"data: y\n\ndata: z\n\n");
}

#[test]
fn the_bound_is_on_one_event_and_an_error_is_final() {
    let fits = "event: ab\nid: cd\ndata: efg\ndata: hi\n\n".repeat(3);
    let want = |bound: usize| FuzzLog::of(&[fits.as_bytes()], bound);
    assert_eq!((want(10).events.len(), want(10).error), (3, None));
    assert_eq!((want(9).events.len(), want(9).error), (0, Some(SseError::EventTooLong)));
    for line in ["data: ", "id: ", "event: ", "retry: "] {
        let log = FuzzLog::of(&[line.as_bytes(), b"0123456789", b"x"], 10);
        assert_eq!(log.error, Some(SseError::EventTooLong), "{line}");
    }
    let log = FuzzLog::of(&["data\n".repeat(12).as_bytes()], 10);
    assert_eq!(log.error, Some(SseError::EventTooLong), "line ends count");
    check([b':'; 3000], &[]);
    check([b'x'; 3000], &[]);

    let mut parser = EventParser::new(10);
    assert_eq!(parser.next(&mut &b"data: 0123456789x"[..]), Err(SseError::EventTooLong));
    assert_eq!(parser.next(&mut &b"\n\ndata: a\n\n"[..]), Err(SseError::EventTooLong));
}

#[test]
fn an_idle_parser_owns_no_memory() {
    let mut parser = EventParser::new(1 << 20);
    let mut bytes = Vec::new();
    write_event(&mut bytes, Some("e"), Some(b"1"), Some(5), &b"x".repeat(100_000));
    bytes.extend_from_slice(b"id: y\0z\n\nevent: forgotten\n\nretry: x\n\n");
    let mut input = &bytes[..];
    assert_eq!(parser.next(&mut input).unwrap().unwrap().data.len(), 100_000);
    assert_eq!(parser.next(&mut input), Ok(None));
    assert_eq!(parser.capacity(), 0);

    // A busy stream, cut in the middle of the next event each time, keeps no large buffer.
    let mut bytes = Vec::new();
    write_event(&mut bytes, None, None, None, &b"x".repeat(100_000));
    bytes.extend_from_slice(b"data: x");
    let mut input = &bytes[..];
    assert!(parser.next(&mut input).unwrap().is_some());
    assert_eq!(parser.next(&mut input), Ok(None));
    assert!(parser.capacity() < 100, "{}", parser.capacity());
}

/// Vectors, pseudo-random bytes, and vectors with a few bytes changed; the same in every run.
#[test]
fn the_property_holds_over_a_corpus() {
    let pieces: [&[u8]; 16] = [
        b"data: ",
        b"data:",
        b"data",
        b"id: ",
        b"id",
        b"retry: ",
        b"event: ",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"7",
        b"\0",
        b"\xef\xbb\xbf",
        b"{\"jsonrpc\":\"2.0\"}",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..2).map(|_| u8::try_from(random(256)).unwrap()).collect();
        for _ in 0..random(24) {
            match random(8) {
                0 => bytes.push(u8::try_from(random(256)).unwrap()),
                _ => bytes.extend_from_slice(pieces[random(pieces.len())]),
            }
        }
        fuzz(&bytes);
    }
}
