//! Compressed messages.

use super::super::{DeflateParams, DeflateSide, Deflater, MessageKind, write_message};
use super::{KEY, LIMITS, Limits, Log, Receiver, Role, WsError, check, masked, ping, plain};
use super::{binary, text};
use crate::json::generate::Chance;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

const WITH: Option<DeflateParams> = Some(DeflateParams::WITH_CONTEXT);
const WITHOUT: Option<DeflateParams> = Some(DeflateParams::WITHOUT_CONTEXT);

/// The payload that `text` compresses to, with a fresh context.
fn deflated(payload: &[u8]) -> Vec<u8> {
    Deflater::new(Role::Client, DeflateParams::WITHOUT_CONTEXT, 0).compress(payload).unwrap()
}

#[test]
fn the_examples_of_the_standard() {
    // RFC 7692 §7.2.3.1: one block, whole and in fragments.
    let hello = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00";
    for deflate in [WITH, WITHOUT] {
        check(Role::Client, deflate, hello, &[text("Hello")], None);
    }
    let frames = b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00";
    check(Role::Client, WITH, frames, &[text("Hello")], None);
    // §7.2.3.2: the second message refers to the first.
    let twice = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
    check(Role::Client, WITH, twice, &[text("Hello"), text("Hello")], None);
    check(Role::Client, WITHOUT, twice, &[text("Hello")], Some(WsError::BadDeflate));
    // §7.2.3.3: a block without compression.
    let stored = b"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    check(Role::Client, WITH, stored, &[text("Hello")], None);
    // §7.2.3.4: a final block.
    let last = b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    check(Role::Client, WITH, last, &[text("Hello")], None);
    // §7.2.3.5: two blocks.
    let two = b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    check(Role::Client, WITH, two, &[text("Hello")], None);
    // §7.2.3.6: nothing.
    check(Role::Client, WITH, b"\xc1\x01\x00", &[text("")], None);
}

#[test]
fn compressed_and_plain_frames_mix() {
    let payload = deflated(b"a message, a message, a message");
    let (front, back) = payload.split_at(4);
    let bytes = [
        masked(0x41, front),
        masked(0x89, "?"),
        masked(0x00, ""),
        masked(0x80, back),
        masked(0x81, "plain"),
        masked(0xc2, &payload),
        masked(0xc1, b"\x00"),
        masked(0x41, ""),
        masked(0x80, &payload),
    ];
    let message = "a message, a message, a message";
    let want = [ping("?"), text(message), text("plain"), binary(message), text(""), text(message)];
    for deflate in [WITH, WITHOUT] {
        check(Role::Server, deflate, bytes.concat(), &want, None);
    }
}

#[test]
fn a_stream_goes_on_behind_a_final_block() {
    let last = [b"\xf3\x48\xcd\xc9\xc9\x07\x00", &b"\x00"[..]].concat();
    let again = b"\xf2\x00\x11\x00\x00";
    // A final block may be the end, although that is not what the standard says.
    let bytes = [plain(0xc1, &last[..7]), plain(0xc1, &last)].concat();
    check(Role::Client, WITH, &bytes, &[text("Hello"), text("Hello")], None);
    // What comes behind one may refer to what was before it.
    let bytes = plain(0xc1, [&last[..7], again].concat());
    check(Role::Client, WITHOUT, &bytes, &[text("HelloHello")], None);
    let bytes = plain(0xc1, last[..7].repeat(16));
    check(Role::Client, WITH, &bytes, &[text("Hello".repeat(16))], None);
    let bytes = plain(0xc1, last[..7].repeat(17));
    check(Role::Client, WITH, &bytes, &[], Some(WsError::BadDeflate));
}

#[test]
fn what_cannot_be_inflated_is_an_error() {
    let good = deflated(b"a message, a message, a message");
    let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    let cases: [&[u8]; 6] = [
        // A block of the reserved kind, a wrong length, a reference to before the front.
        b"\x07",
        b"\x00\x05\x00\xfb\xff",
        b"\xf2\x00\x11\x00\x00",
        b"\xff\xff\xff\xff",
        // Cut in a block.
        &stored[..7],
        &good[..good.len() - 4],
    ];
    for payload in cases {
        check(Role::Client, WITH, plain(0xc2, payload), &[], Some(WsError::BadDeflate));
    }
    assert_eq!(WsError::BadDeflate.close_code(), 1007);
}

#[test]
fn the_compression_bit_has_its_place() {
    let error = Some(WsError::ReservedBit);
    check(Role::Client, None, b"\xc1", &[], error);
    for first in [0xc8, 0xc9, 0xca, 0xc0] {
        check(Role::Client, WITH, [first], &[], error);
    }
    let behind = [plain(0x41, deflated(b"aaaaaaaaaaaaa")), vec![0xc0]].concat();
    check(Role::Client, WITH, behind, &[], error);
}

#[test]
fn inflated_text_is_checked_at_once() {
    let error = Some(WsError::TextNotUtf8);
    let mut payload = deflated(&[&b"good \xf4\x90"[..], &[b'a'; 50]].concat());
    check(Role::Client, WITH, plain(0xc1, &payload), &[], error);
    let cut = deflated(&[&[b'a'; 50], &b"\xe2\x82"[..]].concat());
    check(Role::Client, WITH, plain(0xc1, &cut), &[], error);
    // The message is not whole: it has not even an end.
    payload.truncate(16);
    check(Role::Client, WITH, plain(0x41, &payload), &[], error);
}

#[test]
fn a_bomb_costs_no_more_than_a_message() {
    // 256 MiB of zeros: a MiB again and again, with the tail that was left out in between.
    let mut bomb = deflated(&vec![0; 1 << 20]);
    let limits = Limits { message_len_max: 1 << 20, ..LIMITS };
    let mut receiver = Receiver::new(Role::Client, limits, WITHOUT);
    let first = bomb.clone();
    for _ in 0..255 {
        bomb.extend_from_slice(&[0x00, 0x00, 0xff, 0xff]);
        bomb.extend_from_slice(&first);
    }
    assert!(bomb.len() < 300_000, "{}", bomb.len());
    let mut bytes = plain(0xc2, &bomb);
    let mut most = 0;
    let mut end = None;
    for mut piece in bytes.chunks_mut(256) {
        match receiver.next(&mut piece) {
            Ok(item) => assert_eq!(item, None),
            Err(error) => {
                end = Some(error);
                break;
            }
        }
        most = most.max(receiver.memory_len());
    }
    assert_eq!(end, Some(WsError::MessageTooLong));
    assert!(most <= (1 << 20) + (1 << 16), "{most}");
    assert_eq!(receiver.memory_len(), 0);

    // The largest message, and one byte more.
    let limits = Limits { message_len_max: 5000, ..LIMITS };
    let log = |len| {
        let frame = plain(0xc2, deflated(&vec![7; len]));
        Log::of(Receiver::new(Role::Client, limits, WITHOUT), &[&frame])
    };
    assert_eq!(log(5000).items, [binary(vec![7; 5000])]);
    assert_eq!(log(5001).error, Some(WsError::MessageTooLong));
}

#[test]
fn an_idle_connection_keeps_nothing_without_context() {
    let mut receiver = Receiver::new(Role::Client, LIMITS, WITHOUT);
    let mut deflater = Deflater::new(Role::Server, DeflateParams::WITHOUT_CONTEXT, 10);
    let mut bytes = Vec::new();
    for _ in 0..2 {
        bytes.clear();
        write_message(&mut bytes, Some(&mut deflater), MessageKind::Binary, &[7; 1000], None);
        assert!(bytes.len() < 50);
        assert_eq!(deflater.memory_len(), 0);
        assert_eq!(receiver.next(&mut &mut bytes[..]), Ok(Some(binary([7; 1000]))));
        assert_eq!(receiver.memory_len(), 0);
    }
}

fn noise(chance: &mut Chance, len: usize) -> Vec<u8> {
    (0..len).map(|_| u8::try_from(chance.below(256)).unwrap()).collect()
}

#[test]
fn only_what_is_worth_it_is_compressed() {
    let chance = &mut Chance(1);
    for (params, longer_by) in
        [(DeflateParams::WITH_CONTEXT, Some(16)), (DeflateParams::WITHOUT_CONTEXT, None)]
    {
        let mut deflater = Deflater::new(Role::Server, params, 100);
        assert_eq!(deflater.compress(&[7; 99]), None);
        assert!(deflater.compress(&[7; 100]).is_some());
        assert_eq!(deflater.compress(&noise(chance, 200_000)), None);
        for len in [100, 1000] {
            let compressed = deflater.compress(&noise(chance, len));
            assert_eq!(compressed.is_some(), longer_by.is_some());
            assert!(compressed.is_none_or(|bytes| bytes.len() <= len + longer_by.unwrap()));
        }
    }
}

/// What the compressor has seen and the peer has not must not be referred to.
#[test]
fn a_message_that_was_not_compressed_is_forgotten() {
    let noise = noise(&mut Chance(2), 100_000);
    let mut deflater = Deflater::new(Role::Server, DeflateParams::WITH_CONTEXT, 0);
    let mut bytes = Vec::new();
    for payload in [&[7; 500], &noise[..], &noise[90_000..], &[7; 500], &noise[95_000..]] {
        let deflater = Some(&mut deflater);
        write_message(&mut bytes, deflater, MessageKind::Binary, payload, None);
    }
    let log = Log::of(Receiver::new(Role::Client, LIMITS, WITH), &[&bytes]);
    let tails = [&[7; 500], &noise[..], &noise[90_000..], &[7; 500], &noise[95_000..]];
    assert!(log.error.is_none() && log.items == tails.map(binary));
    assert!(bytes.len() < 111_000, "the last refers to the third");
}

/// Messages of all lengths, some of them noise, through both ends.
#[test]
fn what_is_compressed_is_inflated() {
    let sides = [(8, true), (9, false), (10, true), (12, false), (15, false), (15, true)];
    for (seed, (window_bits, no_context_takeover)) in (1..).zip(sides) {
        let side = DeflateSide { no_context_takeover, window_bits };
        let params = DeflateParams { server: side, client: side };
        for (role, peer, key) in
            [(Role::Server, Role::Client, Some(KEY)), (Role::Client, Role::Server, None)]
        {
            let mut chance = Chance(seed);
            let mut deflater = Deflater::new(peer, params, 0);
            let (mut bytes, mut want) = (Vec::new(), Vec::new());
            for _ in 0..30 {
                let message = message(&mut chance);
                let kind = MessageKind::Text;
                write_message(&mut bytes, Some(&mut deflater), kind, message.as_bytes(), key);
                want.push(text(&message));
            }
            let cut = chance.below(bytes.len());
            let (front, back) = bytes.split_at(cut);
            let log = Log::of(Receiver::new(role, LIMITS, Some(params)), &[front, back]);
            assert!(log.error.is_none() && log.items == want, "{side:?}: {:?}", log.error);
        }
    }
}

/// Documents, joined to some length, with noise between them.
fn message(chance: &mut Chance) -> String {
    let len = [10, 300, 5000, 70_000][chance.below(4)];
    let mut out = String::new();
    while out.len() < len {
        match chance.below(3) {
            0 => out.push_str(&chance.document(4)),
            1 => out.push_str(&format!("{:016x}", chance.next())),
            _ => out.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}"),
        }
    }
    out
}

#[test]
fn one_compressor_may_serve_many_connections() {
    let message = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}".repeat(3);
    let mut shared = Deflater::shared(15, 0);
    let noise = noise(&mut Chance(3), 10_000);
    for _ in 0..3 {
        let mut bytes = Vec::new();
        let payload = message.as_bytes();
        write_message(&mut bytes, Some(&mut shared), MessageKind::Text, payload, None);
        assert_eq!(bytes[0], 0xc1);
        check(Role::Client, WITHOUT, &bytes, &[text(payload)], None);
        assert_eq!(bytes[2..], deflated(payload));
        assert_eq!(shared.compress(&noise), None);
        assert!(shared.memory_len() != 0);
    }
}

/// Noise that is said again at some distance: within the window the second refers to the first.
#[test]
fn a_window_is_never_larger_than_agreed() {
    let mut chance = Chance(5);
    let noise: Vec<u8> = (0..34_000).map(|_| u8::try_from(chance.below(64)).unwrap()).collect();
    for (window_bits, no_context_takeover) in
        (8..=15).flat_map(|bits| [(bits, false), (bits, true)])
    {
        let side = DeflateSide { no_context_takeover, window_bits };
        let params = DeflateParams { server: side, client: side };
        // Of so many bytes, said again at this distance.
        let len = |distance: usize, again: &[u8]| {
            let mut deflater = Deflater::new(Role::Server, params, 0);
            let first = &noise[..distance];
            if no_context_takeover {
                return deflater.compress(&[first, again].concat()).unwrap().len();
            }
            let first = deflater.compress(first).unwrap();
            first.len() + deflater.compress(again).map_or(again.len(), |it| it.len())
        };
        let gains = |distance: usize| {
            len(distance, &noise[..150]) + 50 < len(distance, &noise[33_800..33_950])
        };
        let window = 1 << window_bits;
        for beyond in [1, 2, 10, 40, 100, 200, 255, 300] {
            assert!(!gains(window + beyond), "{side:?}: {beyond}");
        }
        // What lies ahead takes some of it.
        assert!(gains(window.saturating_sub(300).max(200)), "{side:?}");
    }
}

#[test]
fn a_kept_context_makes_equal_messages_short() {
    let mut deflater = Deflater::new(Role::Server, DeflateParams::WITH_CONTEXT, 0);
    let message = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}";
    let first = deflater.compress(message.as_bytes()).unwrap();
    let second = deflater.compress(message.as_bytes()).unwrap();
    assert!(second.len() < first.len() / 4);
    let bytes = [plain(0xc1, first), plain(0xc1, second)].concat();
    check(Role::Client, WITH, bytes, &[text(message), text(message)], None);
}
