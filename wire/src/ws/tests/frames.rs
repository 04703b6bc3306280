//! Frames and messages without compression.

use super::super::{
    Close, Deflater, MessageKind, is_close_code, mask, write_close, write_message,
    write_message_head, write_ping, write_pong,
};
use super::{
    Item, KEY, LIMITS, Log, Receiver, Role, WsError, binary, check, check_error, check_server,
    close, masked, ping, plain, pong, text,
};
use std::borrow::Cow;
use std::vec;
use std::vec::Vec;

#[test]
fn the_examples_of_the_standard() {
    // RFC 6455 §5.7.
    let hello = b"\x81\x05\x48\x65\x6c\x6c\x6f";
    check(Role::Client, None, hello, &[text("Hello")], None);
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    check_server(hello, &[text("Hello")]);
    let hello = b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f";
    check(Role::Client, None, hello, &[text("Hello")], None);
    let hello = b"\x89\x05\x48\x65\x6c\x6c\x6f";
    check(Role::Client, None, hello, &[ping("Hello")], None);
    check_server(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[pong("Hello")]);
    let mut bytes = b"\x82\x7e\x01\x00".to_vec();
    bytes.extend([7; 256]);
    check(Role::Client, None, &bytes, &[binary([7; 256])], None);
    let mut bytes = b"\x82\x7f\0\0\0\0\0\x01\0\0".to_vec();
    bytes.extend(vec![7; 1 << 16]);
    let log = Log::of(Receiver::new(Role::Client, LIMITS, None), &[&bytes]);
    assert_eq!((log.items, log.error), (vec![binary(vec![7; 1 << 16])], None));
}

#[test]
fn a_dialogue_of_all_frames() {
    let bytes = [
        masked(0x81, "one"),
        masked(0x89, ""),
        masked(0x01, "tw"),
        masked(0x89, "a"),
        masked(0x00, ""),
        masked(0x8a, "b".repeat(125)),
        masked(0x00, "o \u{e9}"),
        masked(0x80, "!"),
        masked(0x82, b"\xff\xfe"),
        masked(0x02, ""),
        masked(0x80, ""),
        masked(0x81, ""),
        masked(0x82, [b'x'; 126]),
        masked(0x02, ""),
        masked(0x80, "late"),
        masked(0x88, b"\x03\xe8bye \xe2\x82\xac"),
        masked(0x81, "thrown away"),
        b"\xff\xff\xff".to_vec(),
    ];
    let want = [
        text("one"),
        ping(""),
        ping("a"),
        pong("b".repeat(125)),
        text("two \u{e9}!"),
        binary(b"\xff\xfe"),
        binary(""),
        text(""),
        binary([b'x'; 126]),
        binary("late"),
        close(1000, "bye \u{20ac}"),
    ];
    check_server(bytes.concat(), &want);
}

#[test]
fn a_character_may_be_cut_by_a_frame() {
    let euro = "\u{20ac}\u{1f600}".as_bytes();
    for cut in 0..euro.len() {
        let bytes = [masked(0x01, &euro[..cut]), masked(0x80, &euro[cut..])].concat();
        check_server(bytes, &[text(euro)]);
    }
    let frames: Vec<u8> = euro.iter().flat_map(|byte| masked(0x00, [*byte])).collect();
    check_server([masked(0x01, ""), frames, masked(0x80, "")].concat(), &[text(euro)]);
}

#[test]
fn a_header_that_breaks_the_rules() {
    let server = |bytes: &[u8], want| check_error(Role::Server, bytes, want, 1002);
    for first in [0xc1, 0xa1, 0x91, 0xc0, 0xc9, 0x41] {
        server(&[first], WsError::ReservedBit);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        server(&[0x80 | opcode], WsError::ReservedOpcode(opcode));
        server(&[opcode], WsError::ReservedOpcode(opcode));
    }
    for first in [0x08, 0x09, 0x0a] {
        server(&[first], WsError::FragmentedControl);
        server(&[0x80 | first, 0x80 | 126], WsError::ControlTooLong);
        server(&[0x80 | first, 0x80 | 127], WsError::ControlTooLong);
    }
    server(b"\x81\x00", WsError::NotMasked);
    check_error(Role::Client, b"\x81\x80", WsError::Masked, 1002);
    server(b"\x81\xfe\x00\x7d", WsError::LengthNotMinimal);
    server(b"\x81\xff\0\0\0\0\0\0\xff\xff", WsError::LengthNotMinimal);
    server(b"\x81\xff\x80\0\0\0\0\0\0\0", WsError::LengthOutOfRange);
    server(&[0x80], WsError::UnexpectedContinuation);
    server(&[0x00], WsError::UnexpectedContinuation);
    let twice = |second| [masked(0x01, "a"), vec![second]].concat();
    for second in [0x81, 0x82, 0x01, 0x02] {
        server(&twice(second), WsError::InterruptedMessage);
    }
    let behind = [masked(0x01, "a"), masked(0x80, "b"), vec![0x80]].concat();
    let error = Some(WsError::UnexpectedContinuation);
    check(Role::Server, None, behind, &[text("ab")], error);
}

#[test]
fn text_that_is_not_utf8_is_refused_at_once() {
    let bad: [&[u8]; 10] = [
        b"a\x80",
        b"\xc0",
        b"\xf5",
        b"\xed\xa0",
        b"\xe0\x9f",
        b"\xf0\x8f",
        b"\xf4\x90",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90",
        b"\xe2\x82a",
        b"\xf0\x9f\x98\xc0",
    ];
    for bytes in bad {
        check_error(Role::Server, masked(0x81, bytes), WsError::TextNotUtf8, 1007);
        for cut in 0..bytes.len() {
            let frames = [masked(0x01, &bytes[..cut]), masked(0x00, &bytes[cut..])].concat();
            check_error(Role::Server, frames, WsError::TextNotUtf8, 1007);
        }
        // In the middle of a long frame, it does not wait for the rest.
        let mut frame = masked(0x81, [bytes, &[b'x'; 200]].concat());
        frame.truncate(2 + 2 + 4 + bytes.len());
        check_error(Role::Server, frame, WsError::TextNotUtf8, 1007);
    }
    for bytes in [&b"a\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
        check_error(Role::Server, masked(0x81, bytes), WsError::TextNotUtf8, 1007);
        let frames = [masked(0x01, bytes), masked(0x80, "")].concat();
        check(Role::Server, None, frames, &[], Some(WsError::TextNotUtf8));
    }
}

#[test]
fn close_frames() {
    check_server(masked(0x88, ""), &[Item::Close(None)]);
    check_server(masked(0x88, b"\x0f\xa0"), &[close(4000, "")]);
    for code in 0..=u16::MAX {
        let log =
            Log::of(Receiver::new(Role::Client, LIMITS, None), &[&plain(0x88, code.to_be_bytes())]);
        match log.error {
            None => assert_eq!(log.items, [close(code, "")]),
            Some(error) => assert_eq!(error, WsError::BadCloseCode(code)),
        }
        assert_eq!(log.error.is_none(), is_close_code(code), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
        assert!(!is_close_code(code), "{code}");
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        assert!(is_close_code(code), "{code}");
    }
    check_error(Role::Server, masked(0x88, b"\x03"), WsError::CloseCodeCut, 1002);
    check_error(Role::Server, masked(0x88, b"\x03\xed"), WsError::BadCloseCode(1005), 1002);
    let reason = masked(0x88, b"\x03\xe8\xff");
    check_error(Role::Server, reason, WsError::CloseReasonNotUtf8, 1007);
}

#[test]
fn a_message_that_is_too_long_is_refused_from_its_header() {
    let limits = super::Limits { message_len_max: 300, ..LIMITS };
    let log = |parts: &[&[u8]]| Log::of(Receiver::new(Role::Server, limits, None), parts);
    assert_eq!(log(&[&masked(0x82, [1; 300])]).items, [binary([1; 300])]);
    let frames = [masked(0x02, [1; 200]), masked(0x80, [1; 100])].concat();
    assert_eq!(log(&[&frames]).items, [binary([1; 300])]);

    assert_eq!(log(&[b"\x82\xfe\x01\x2dabcd"]).error, Some(WsError::MessageTooLong));
    let huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd";
    assert_eq!(log(&[huge]).error, Some(WsError::MessageTooLong));
    let frames = [masked(0x02, [1; 200]), masked(0x80, [1; 101])[..6].to_vec()].concat();
    assert_eq!(log(&[&frames]).error, Some(WsError::MessageTooLong));
    let frames = [masked(0x02, [1; 200]), huge.to_vec()].concat();
    let frames = [&frames[..208], &[0x80], &frames[209..]].concat();
    assert_eq!(log(&[&frames]).error, Some(WsError::MessageTooLong));
    assert_eq!(WsError::MessageTooLong.close_code(), 1009);
}

#[test]
fn memory_grows_with_what_has_come() {
    let limits = super::Limits { message_len_max: 64 << 20, ..LIMITS };
    let mut receiver = Receiver::new(Role::Server, limits, None);
    // 48 MiB are announced.
    let mut head = b"\x82\xff\0\0\0\0\x03\0\0\0abcd".to_vec();
    assert_eq!(receiver.next(&mut &mut head[..]), Ok(None));
    assert_eq!(receiver.memory_len(), 0);
    let mut come = 0;
    while come < 1 << 20 {
        let mut piece = [0; 5000];
        come += piece.len();
        assert_eq!(receiver.next(&mut &mut piece[..]), Ok(None));
        assert!(receiver.memory_len() <= 2 * come + 5000, "{}", receiver.memory_len());
    }

    // What is gathered is given away, and not larger than the message.
    let mut receiver = Receiver::new(Role::Server, limits, None);
    let mut bytes = masked(0x82, vec![7; 100_000]);
    let (front, mut back) = bytes.split_at_mut(70_000);
    assert_eq!(receiver.next(&mut &mut *front), Ok(None));
    let Ok(Some(Item::Binary(Cow::Owned(message)))) = receiver.next(&mut back) else { panic!() };
    assert_eq!((message.len(), message.capacity()), (100_000, 100_000));
    assert_eq!(receiver.memory_len(), 0);
    let mut frame = masked(0x89, "cut");
    let (front, mut back) = frame.split_at_mut(7);
    assert_eq!(receiver.next(&mut &mut *front), Ok(None));
    assert!(receiver.memory_len() != 0);
    assert_eq!(receiver.next(&mut back), Ok(Some(ping("cut"))));
    assert_eq!(receiver.memory_len(), 0);
    assert!(size_of::<Receiver>() <= 200, "{}", size_of::<Receiver>());
}

#[test]
fn what_comes_in_one_piece_is_lent() {
    let mut receiver = Receiver::new(Role::Server, LIMITS, None);
    let frames = [masked(0x81, "a"), masked(0x02, ""), masked(0x80, "b"), masked(0x8a, "c")];
    let mut bytes = [frames.concat(), masked(0x88, b"\x03\xe8d")].concat();
    let mut input = &mut bytes[..];
    let mut items = Vec::new();
    while let Some(item) = receiver.next(&mut input).unwrap() {
        items.push(item);
    }
    let [Item::Text(a), Item::Binary(b), Item::Pong(c), Item::Close(Some(d))] = &items[..] else {
        panic!("{items:?}");
    };
    for lent in [a, b, c] {
        assert!(matches!(lent, Cow::Borrowed(_)), "{items:?}");
    }
    assert!(matches!(d.reason, Cow::Borrowed("d")));
}

#[test]
fn a_flood_of_fragments_is_an_error() {
    let limits = super::Limits { frames_max: 3, ..LIMITS };
    let log = |frames: &[Vec<u8>]| {
        Log::of(Receiver::new(Role::Server, limits, None), &[&frames.concat()])
    };
    let (first, next, last) = (masked(0x01, ""), masked(0x00, ""), masked(0x80, ""));
    let fits = [first.clone(), next.clone(), masked(0x89, ""), last.clone()];
    let fits = [fits.clone(), fits].concat();
    assert_eq!(log(&fits).items, [ping(""), text(""), ping(""), text("")]);
    let flood = [first, next.clone(), next, last];
    assert_eq!(log(&flood).error, Some(WsError::TooManyFrames));
    assert_eq!(WsError::TooManyFrames.close_code(), 1008);
}

#[test]
fn an_error_is_final() {
    let mut receiver = Receiver::new(Role::Server, LIMITS, None);
    assert_eq!(receiver.next(&mut &mut [0x83][..]), Err(WsError::ReservedOpcode(3)));
    let mut frame = masked(0x81, "a");
    assert_eq!(receiver.next(&mut &mut frame[..]), Err(WsError::ReservedOpcode(3)));
}

#[test]
fn what_is_written_is_read_back() {
    for (role, key) in [(Role::Client, None), (Role::Server, Some(KEY))] {
        let (mut bytes, mut want) = (Vec::new(), Vec::new());
        for len in [0, 1, 31, 32, 33, 125, 126, 127, 65_535, 65_536, 65_537] {
            let payload = vec![b'x'; len];
            write_message(&mut bytes, None, MessageKind::Text, &payload, key);
            want.push(text(&payload));
            write_message_head(&mut bytes, MessageKind::Binary, len, key);
            let start = bytes.len();
            bytes.extend(&payload);
            if let Some(key) = key {
                mask(&mut bytes[start..], key, 0);
            }
            want.push(binary(&payload));
        }
        write_ping(&mut bytes, b"a", key);
        write_pong(&mut bytes, &[b'b'; 125], key);
        write_close(&mut bytes, Some(4999), &"\u{20ac}".repeat(42), key);
        want.extend([ping("a"), pong([b'b'; 125])]);
        let reason = "\u{20ac}".repeat(41).into();
        want.push(Item::Close(Some(Close { code: 4999, reason })));
        let log = Log::of(Receiver::new(role, LIMITS, None), &[&bytes]);
        assert!(log.items == want && log.error.is_none());

        let mut bytes = Vec::new();
        write_close(&mut bytes, None, "not sent", key);
        check(role, None, bytes, &[Item::Close(None)], None);
    }
}

/// A connection may be handed to another thread.
#[test]
fn both_halves_can_be_sent() {
    const fn is_send<T: Send>() {}
    is_send::<Receiver>();
    is_send::<Deflater>();
}

#[test]
fn a_mask_goes_on_where_it_was_cut() {
    let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
    let want: Vec<u8> = bytes.iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b).collect();
    for cut in 0..=bytes.len() {
        let mut both = bytes.clone();
        let (front, back) = both.split_at_mut(cut);
        mask(front, KEY, 0);
        mask(back, KEY, cut);
        assert_eq!(both, want, "cut at {cut}");
    }
}
