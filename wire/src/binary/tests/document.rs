//! docs/protocol.md is true: each of its dumps is decoded, compared, and encoded again.

use crate::Decoded;
use crate::binary::frame::{Facts, Frame, Hello, Limits, LinkId, Message, MessageKind, Open};
use crate::binary::frame::{HEADER_LEN, StreamId, Welcome};
use crate::binary::v1::{self, Dialect, Offer};
use crate::binary::{LinkError, Reason, code};
use crate::envelope;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// The dumps by name.
fn dumps() -> BTreeMap<String, Vec<u8>> {
    let mut dumps = BTreeMap::new();
    for block in DOCUMENT.split("\n```hex ").skip(1) {
        let (name, block) = block.split_once('\n').unwrap();
        let (block, _) = block.split_once("\n```").unwrap();
        let digits = block.lines().flat_map(|line| line.split('#').take(1));
        let digits = digits.flat_map(str::split_whitespace);
        let bytes = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert!(dumps.insert(name.into(), bytes).is_none(), "two dumps are called {name}");
    }
    dumps
}

fn limits() -> Limits {
    Limits {
        window: 65_536,
        frame_len_max: 16_384,
        message_len_max: 16 << 20,
        streams_max: 256,
        replay_len_max: 1 << 20,
    }
}

/// The frames of version 2, as the document means them.
fn meant() -> Vec<(&'static str, Frame<'static>)> {
    let link = LinkId(*b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f");
    let limits = limits();
    let hello = Hello { token: "T", agent: "mcp-router/0.1.0", link, received: 41, limits };
    let welcome = Welcome { resumed: true, link, received: 17, limits, keep_ms: 60_000 };
    let open = Open { server: "files", session: "", revision: "2025-11-25" };
    let stream = StreamId::new(1).unwrap();
    let message = |sequence, kind, facts: Option<(_, _)>, has_more, payload| {
        let facts = facts.map(|(method, name)| Facts { method, name });
        Frame::Message { stream, sequence, message: Message { kind, facts, has_more, payload } }
    };
    let request = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add"}}"#;
    let (first, last) = br#"{"jsonrpc":"2.0","id":7,"result":{}}"#.split_at(24);
    let (call, response) = (Some(("tools/call", "add")), MessageKind::Response);
    let (reason, text) = (Reason::UNKNOWN_SERVER.0, "no server has this name");
    let token = [1, 2, 3, 4, 5, 6, 7, 8];
    let gap = LinkError::BadSequence(43).code();
    [
        ("hello", Frame::Hello(hello)),
        ("welcome", Frame::Welcome(welcome)),
        ("open", Frame::Open { stream, sequence: 1, open }),
        ("message-request", message(2, MessageKind::Request, call, false, &request[..])),
        ("message-first", message(3, response, Some(("", "")), true, first)),
        ("message-last", message(4, response, None, false, last)),
        ("credit", Frame::Credit { stream, limit: 98_304 }),
        ("close", Frame::Close { stream, sequence: 9, reason, text }),
        ("ack", Frame::Ack { received: 42 }),
        ("ping", Frame::Ping { token }),
        ("pong", Frame::Pong { token }),
        ("goaway", Frame::GoAway { last_stream: 3, deadline_ms: 30_000 }),
        ("error", Frame::Error { code: gap, text: "a gap behind sequence 41" }),
    ]
    .into()
}

#[test]
fn every_dump_of_version_2_is_what_it_says() {
    let mut dumps = dumps();
    dumps.retain(|name, _| !name.starts_with("v1-"));
    for (name, frame) in meant() {
        let bytes = dumps.remove(name).unwrap_or_else(|| panic!("there is no dump {name}"));
        let item = Frame::decode(&bytes, 16_384);
        assert_eq!(item, Ok(Decoded::Item { item: frame, used: bytes.len() }), "{name}");
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert_eq!(again, bytes, "{name}");
        assert!(DOCUMENT.contains(&format!("The header has {HEADER_LEN} bytes")));
    }
    assert!(dumps.is_empty(), "nothing is said of {:?}", dumps.keys());
}

#[test]
fn every_dump_of_version_1_is_what_it_says() {
    let mut dumps = dumps();
    dumps.retain(|name, _| name.starts_with("v1-"));
    let count = dumps.len();
    for (name, bytes) in &dumps {
        let decoded = v1::Frame::decode(bytes, None);
        let Ok(Decoded::Item { item, used }) = decoded else { panic!("{name}: {decoded:?}") };
        assert_eq!(used, bytes.len(), "{name}");
        assert_eq!(item.dialect == Dialect::Long, name.ends_with("-long"), "{name}");
        let mut again = Vec::new();
        match name.trim_end_matches("-long") {
            "v1-offer" => {
                assert_eq!(Offer::decode(item.payload), Ok(Offer { min: 1, max: 1 }));
                v1::write_offer(&mut again, item.dialect, 1);
            }
            "v1-offer-2" => {
                let offer = Offer::decode(item.payload).unwrap();
                assert_eq!((offer.agree(1), offer.agree(2)), (Some(1), Some(2)));
                v1::write_offer(&mut again, item.dialect, 2);
            }
            "v1-ack" => {
                assert_eq!(v1::decode_ack(item.payload), Ok(1));
                v1::write_ack(&mut again, item.dialect, 1);
            }
            "v1-ack-2" => {
                assert_eq!(v1::decode_ack(item.payload), Ok(2));
                v1::write_ack(&mut again, item.dialect, crate::binary::VERSION);
            }
            "v1-request" | "v1-response" => {
                let envelope = envelope::read(item.payload, 16).unwrap();
                let message = envelope.message.get(item.payload);
                assert!(message.starts_with(br#"{"jsonrpc":"2.0","#), "{name}");
                v1::write_frame(&mut again, item.dialect, item.kind, item.payload);
            }
            "v1-health" => v1::write_frame(&mut again, item.dialect, v1::Kind::HealthCheck, b""),
            other => panic!("nothing is said of {other}"),
        }
        assert_eq!(again, *bytes, "{name}");
    }
    assert_eq!(count, 10);
}

#[test]
fn every_code_and_text_stands_in_the_document() {
    let stream = StreamId::new(1).unwrap();
    let codes = [
        (code::DONE, "DONE"),
        (LinkError::Frame(crate::binary::FrameError::BadNames).code(), "BAD_FRAME"),
        (LinkError::Unexpected.code(), "UNEXPECTED"),
        (LinkError::Frame(crate::binary::FrameError::PayloadTooLong(9)).code(), "FRAME_TOO_LONG"),
        (LinkError::MessageTooLong(stream).code(), "MESSAGE_TOO_LONG"),
        (LinkError::WindowExceeded(stream).code(), "WINDOW_EXCEEDED"),
        (LinkError::TooManyStreams.code(), "TOO_MANY_STREAMS"),
        (LinkError::BadStream(stream).code(), "BAD_STREAM"),
        (LinkError::BadSequence(1).code(), "BAD_SEQUENCE"),
        (LinkError::BadAck(1).code(), "BAD_ACK"),
        (LinkError::BadLimits.code(), "BAD_LIMITS"),
        (code::UNAUTHORIZED, "UNAUTHORIZED"),
        (code::OVERLOADED, "OVERLOADED"),
        (code::TIMED_OUT, "TIMED_OUT"),
        (code::INTERNAL, "INTERNAL"),
        (Reason::UNKNOWN_SERVER.0, "UNKNOWN_SERVER"),
        (Reason::UNKNOWN_SESSION.0, "UNKNOWN_SESSION"),
        (Reason::FORBIDDEN.0, "FORBIDDEN"),
        (Reason::DRAINING.0, "DRAINING"),
        (Reason::OVERLOADED.0, "OVERLOADED"),
        (Reason::SERVER_FAILED.0, "SERVER_FAILED"),
        (Reason::INTERNAL.0, "INTERNAL"),
        (Reason::LINK_LOST.0, "LINK_LOST"),
    ];
    for (code, name) in codes {
        let row = format!("| {code} | {name} |");
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    let texts = [
        v1::text::NEGOTIATION_REQUIRED,
        v1::text::NEGOTIATION_FAILED,
        v1::text::NEGOTIATION_INVALID,
        v1::text::NEGOTIATED_ALREADY,
        v1::text::RESPONSE_UNEXPECTED,
        v1::text::ACK_UNEXPECTED,
        v1::text::INITIALIZE_REQUIRED,
        v1::text::TOKEN_MISSING,
        v1::text::TOKEN_REFUSED,
        v1::text::SESSION_FAILED,
        v1::text::MESSAGE_TOKEN_REFUSED,
        v1::text::RATE_LIMITED,
        v1::text::ROUTING_FAILED,
    ];
    for text in texts {
        assert!(DOCUMENT.contains(&format!("`{text}")), "{text}");
    }
}
