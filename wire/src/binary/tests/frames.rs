//! Frames of both versions: every split, and what is refused.

use crate::Decoded;
use crate::binary::frame::{Facts, Frame, Hello, Limits, LinkId, Message, MessageKind, StreamId};
use crate::binary::v1::{self, Dialect, FrameError as V1Error, Kind, NegotiationError, Offer};
use crate::binary::{FrameError, LinkError, hello};
use crate::envelope::EnvelopeError;
use std::vec::Vec;

/// A frame must not be there before its last byte, and must be the same with more behind it.
#[track_caller]
fn check<T: PartialEq + core::fmt::Debug, E: PartialEq + core::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<Decoded<T>, E>,
) {
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end]), Ok(Decoded::Incomplete), "cut at {end}");
    }
    let whole = decode(bytes);
    assert!(matches!(whole, Ok(Decoded::Item { used, .. }) if used == bytes.len()), "{whole:?}");
    assert_eq!(decode(&[bytes, b"MCPB"].concat()), whole);
}

#[test]
fn a_frame_of_version_1_survives_every_split() {
    for dialect in [Dialect::Short, Dialect::Long] {
        for payload in [&b""[..], b"{}", &[b'x'; 300]] {
            let mut bytes = Vec::new();
            v1::write_frame(&mut bytes, dialect, Kind::Request, payload);
            assert_eq!(bytes.len(), dialect.header_len() + payload.len());
            check(&bytes, |bytes| {
                let frame = v1::Frame::decode(bytes, Some(dialect));
                let item = v1::Frame { dialect, kind: Kind::Request, payload };
                let is_it = |decoded: &Decoded<v1::Frame<'_>>| match decoded {
                    Decoded::Item { item: found, .. } => *found == item,
                    Decoded::Incomplete => true,
                };
                assert!(frame.as_ref().is_ok_and(is_it), "{frame:?}");
                frame.map(|frame| match frame {
                    Decoded::Item { used, .. } => Decoded::Item { item: used, used },
                    Decoded::Incomplete => Decoded::Incomplete,
                })
            });
        }
    }
}

#[test]
fn version_1_is_refused_from_its_header() {
    let check = |bytes: &[u8], want| assert_eq!(v1::Frame::decode(bytes, None), Err(want));
    check(b"H", V1Error::BadMagic);
    check(b"MCPX", V1Error::BadMagic);
    check(b"MCPB\x00\x02\x00\x01", V1Error::UnknownVersion(2));
    check(b"MCP\0\x00\x00\x00\x01", V1Error::UnknownVersion(0));
    check(b"MCPB\x00\x01\x00\x09", V1Error::UnknownKind(9));
    check(b"MCPB\x00\x01\x00\x00", V1Error::UnknownKind(0));
    check(b"MCPB\x00\x01\x00\x01\x00\xa0\x00\x01", V1Error::PayloadTooLong(10_485_761));
    check(
        b"MCP\0\x00\x01\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        V1Error::PayloadTooLong(u32::MAX),
    );
    let other = v1::Frame::decode(b"MCP\0", Some(Dialect::Short));
    assert_eq!(other, Err(V1Error::BadMagic), "a peer keeps to its dialect");
    let longest = v1::Header::decode(b"MCPB\x00\x01\x00\x01\x00\xa0\x00\x00", None);
    let item = v1::Header { dialect: Dialect::Short, kind: Kind::Request, payload_len: 10_485_760 };
    assert_eq!(longest, Ok(Decoded::Item { item, used: 12 }));
}

#[test]
fn the_highest_common_version_is_agreed_on() {
    let check = |payload: &str, ours, want| {
        assert_eq!(Offer::decode(payload.as_bytes()).map(|offer| offer.agree(ours)), Ok(want));
    };
    check(r#"{"min_version":1,"max_version":1}"#, 2, Some(1));
    check(r#"{"min_version":1,"max_version":9,"preferred_version":1}"#, 2, Some(2));
    check(r#"{"min_version":2,"max_version":3}"#, 2, Some(2));
    check(r#"{"min_version":2,"max_version":3}"#, 1, None);
    check(r#"{"min_version":3,"max_version":3}"#, 2, None);
    check(r#"{"max_version":1}"#, 2, Some(1));
    check(r#"{"min_version":2,"max_version":1}"#, 2, None);
    check("{}", 2, None);
    let bad = |payload: &str| Offer::decode(payload.as_bytes());
    assert_eq!(bad(r#"{"max_version":"1"}"#), Err(NegotiationError::BadVersion));
    assert_eq!(bad(r#"{"max_version":-1}"#), Err(NegotiationError::BadVersion));
    assert_eq!(bad(r#"{"max_version":4294967296}"#), Err(NegotiationError::BadVersion));
    let twice = EnvelopeError::DuplicateKey("max_version");
    let twice = Err(NegotiationError::Document(twice));
    assert_eq!(bad(r#"{"max_version":1,"max_version":2}"#), twice);
    assert!(bad("").is_err() && bad("[]").is_err());
    assert_eq!(v1::decode_ack(b"{}"), Err(NegotiationError::BadVersion));
}

fn limits() -> Limits {
    Limits {
        window: 32 * 1024,
        frame_len_max: 256,
        message_len_max: 1,
        streams_max: 1,
        replay_len_max: 64 * 1024,
    }
}

fn first_hello() -> Hello<'static> {
    Hello { token: "t", agent: "a", link: LinkId::NONE, received: 0, limits: limits() }
}

fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

#[test]
fn a_frame_of_version_2_survives_every_split() {
    let stream = StreamId::new(7).unwrap();
    let facts = Some(Facts { method: "tools/call", name: "é" });
    let message = Message { kind: MessageKind::Request, facts, has_more: true, payload: b"{}" };
    let frames = [
        Frame::Hello(first_hello()),
        Frame::Message { stream, sequence: u64::MAX, message },
        Frame::Close { stream, sequence: 1, reason: 700, text: "" },
        Frame::Ping { token: *b"MCPB\0\0\0\0" },
    ];
    for frame in frames {
        let bytes = encoded(frame);
        check(&bytes, |bytes| {
            let decoded = Frame::decode(bytes, 256);
            let is_it = |decoded: &Decoded<Frame<'_>>| match decoded {
                Decoded::Item { item, .. } => *item == frame,
                Decoded::Incomplete => true,
            };
            assert!(decoded.as_ref().is_ok_and(is_it), "{decoded:?}");
            decoded.map(|decoded| match decoded {
                Decoded::Item { used, .. } => Decoded::Item { item: used, used },
                Decoded::Incomplete => Decoded::Incomplete,
            })
        });
    }
}

/// What a header says that is wrong; the rest of the frame has not come.
#[test]
fn version_2_is_refused_from_its_header() {
    fn check(edits: &[(usize, &[u8])], want: FrameError) {
        let mut header = [0; 20];
        // A MESSAGE with a kind and one byte, on stream 1 with sequence 1.
        for (at, byte) in [(0, 4), (1, 1), (7, 1), (11, 1), (19, 1)] {
            header[at] = byte;
        }
        assert_eq!(Frame::decode(&header, 256), Ok(Decoded::Incomplete));
        for (at, bytes) in edits {
            header[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(Frame::decode(&header, 256), Err(want));
    }
    check(&[(0, b"\0")], FrameError::UnknownKind(0));
    check(&[(0, b"\x0c")], FrameError::UnknownKind(12));
    check(&[(0, b"MCPB")], FrameError::UnknownKind(b'M'));
    check(&[(1, b"\0")], FrameError::BadFlags(0));
    check(&[(1, b"\x09")], FrameError::BadFlags(9));
    check(&[(0, b"\x07\x01")], FrameError::BadFlags(1));
    check(&[(8, b"\0\0\0\0")], FrameError::BadStream(0));
    check(&[(0, b"\x07\0")], FrameError::BadStream(1));
    check(&[(19, b"\0")], FrameError::BadSequence(0));
    check(&[(0, b"\x05\0")], FrameError::BadSequence(1));
    check(&[(2, b"\x20\x01")], FrameError::NamesTooLong(8193));
    check(&[(7, b"\0")], FrameError::BadLength(0));
    check(&[(6, b"\x01\x01")], FrameError::PayloadTooLong(257));
    check(&[(4, b"\xff\xff\xff\xff")], FrameError::PayloadTooLong(u32::MAX));
    check(&[(0, b"\x03\0")], FrameError::BadLength(1));
}

#[test]
fn names_fill_their_area_exactly() {
    let stream = StreamId::new(1).unwrap();
    let good = encoded(Frame::Close { stream, sequence: 1, reason: 0, text: "ab" });
    let check = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(Frame::decode(&bad, 256), Err(FrameError::BadNames), "{byte} at {at}");
    };
    check(21, 1);
    check(21, 3);
    check(20, 0xff);
    check(22, 0xff);
    let mut short = good.clone();
    short[3] = 1;
    short.drain(21..24);
    assert_eq!(Frame::decode(&short, 256), Err(FrameError::BadNames));
}

#[test]
fn a_connection_begins_with_hello() {
    let first = first_hello();
    let bytes = encoded(Frame::Hello(first));
    assert_eq!(hello(&bytes), Ok(Decoded::Item { item: first, used: bytes.len() }));
    assert_eq!(hello(&bytes[..30]), Ok(Decoded::Incomplete));
    let ping = encoded(Frame::Ping { token: [0; 8] });
    assert_eq!(hello(&ping), Err(LinkError::Unexpected));
    for wrong in [
        Limits { window: 32 * 1024 - 1, ..limits() },
        Limits { frame_len_max: 255, ..limits() },
        Limits { message_len_max: 0, ..limits() },
        Limits { streams_max: 0, ..limits() },
        Limits { streams_max: 65_537, ..limits() },
        Limits { replay_len_max: u32::MAX, ..limits() },
    ] {
        let bytes = encoded(Frame::Hello(Hello { limits: wrong, ..first_hello() }));
        assert_eq!(hello(&bytes), Err(LinkError::BadLimits), "{wrong:?}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let hello = Hello { token: "secret", link: LinkId([0xab; 16]), ..first_hello() };
    let printed = std::format!("{:?}", Frame::Hello(hello));
    assert!(!printed.contains("secret") && !printed.contains("171"), "{printed}");
}
