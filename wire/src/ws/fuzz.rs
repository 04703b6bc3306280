//! The properties of handshakes and of compression that hold for every input. The one of frames is
//! beside what it tests.

use super::frame::{Header, Opcode};
use super::{
    Acceptance, DeflateParams, DeflateSide, Deflater, FUZZ_LIMITS, Item, Log, MessageKind,
    Receiver, Role, WsError, accept_request, accept_response, write_message, write_request_fields,
};
use crate::Decoded;
use crate::http1::{HEAD_END, HeaderSlots, Limits, request, response};
use alloc::vec::Vec;

const HEAD_LIMITS: Limits = Limits { head_len_max: 4096, target_len_max: 256 };
const PROTOCOLS: &[&str] = &["mcp", "b"];
const NONCE: [u8; 16] = *b"the sample nonce";

/// What a server accepts, a client that asked for it accepts as well, and both agree on the same.
///
/// The first byte picks what compression is wanted; the rest is a request and a response.
#[doc(hidden)]
pub fn fuzz_handshake(bytes: &[u8]) {
    let Some((&pick, bytes)) = bytes.split_first() else { return };
    let wanted = params(pick);
    let slots = &mut HeaderSlots::new();
    if let Ok(Decoded::Item { item, .. }) = request(bytes, slots, HEAD_LIMITS)
        && let Ok(accepted) = accept_request(&item, PROTOCOLS, Some(wanted))
    {
        check_acceptance(&accepted, wanted);
    }
    let slots = &mut HeaderSlots::new();
    if let Ok(Decoded::Item { item, .. }) = response(bytes, slots, HEAD_LIMITS, false)
        && let Ok(connected) = accept_response(&item, &NONCE, PROTOCOLS, Some(wanted))
    {
        assert_eq!(item.status, 101);
        let deflate = connected.deflate;
        assert!(deflate.is_none_or(|it| has_bits(it.client, 9..=wanted.client.window_bits)));
        assert!(deflate.is_none_or(|it| has_bits(it.server, 8..=wanted.server.window_bits)));
    }
    // Our own ends, whatever is wanted.
    let mut head = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
    write_request_fields(&mut head, &NONCE, PROTOCOLS, Some(wanted));
    head.extend_from_slice(HEAD_END);
    let slots = &mut HeaderSlots::new();
    let Ok(Decoded::Item { item, .. }) = request(&head, slots, HEAD_LIMITS) else {
        unreachable!("what was written is not read");
    };
    let accepted = accept_request(&item, PROTOCOLS, Some(wanted));
    let Ok(accepted) = accepted else { unreachable!("what was written is refused: {accepted:?}") };
    let mut answer = Vec::new();
    accepted.write_head(&mut answer);
    answer.extend_from_slice(HEAD_END);
    let slots = &mut HeaderSlots::new();
    let Ok(Decoded::Item { item, .. }) = response(&answer, slots, HEAD_LIMITS, false) else {
        unreachable!("what was written is not read");
    };
    let connected = accept_response(&item, &NONCE, PROTOCOLS, Some(wanted));
    assert_eq!(connected.map(|it| it.deflate), Ok(accepted.deflate), "the ends disagree");
}

fn check_acceptance(accepted: &Acceptance<'_>, wanted: DeflateParams) {
    assert!(accepted.protocol.is_none_or(|name| PROTOCOLS.contains(&name)));
    if let Some(deflate) = accepted.deflate {
        assert!(has_bits(deflate.server, 8..=wanted.server.window_bits));
        assert!(deflate.server.no_context_takeover || !wanted.server.no_context_takeover);
    }
    let mut head = Vec::new();
    accepted.write_head(&mut head);
    head.extend_from_slice(HEAD_END);
    let slots = &mut HeaderSlots::new();
    let read = response(&head, slots, HEAD_LIMITS, false);
    assert!(matches!(read, Ok(Decoded::Item { .. })), "an answer cannot be read: {read:?}");
}

fn has_bits(side: DeflateSide, bits: core::ops::RangeInclusive<u8>) -> bool {
    bits.contains(&side.window_bits)
}

/// What both ends want: with and without context, with all windows that ours can have.
fn params(pick: u8) -> DeflateParams {
    let side = |pick: u8| DeflateSide {
        no_context_takeover: pick & 1 == 1,
        window_bits: 8 + (pick >> 1) % 8,
    };
    DeflateParams { server: side(pick), client: side(pick >> 4) }
}

/// What is compressed is inflated to the same, twice in a row; and what claims to be compressed
/// comes to the same however it is cut into frames and pieces, and never to more than is allowed.
///
/// The first byte picks the parameters, the second where the rest is cut.
#[doc(hidden)]
pub fn fuzz_deflate(bytes: &[u8]) {
    let [pick, cut, bytes @ ..] = bytes else { return };
    let params = params(*pick);
    let cut = usize::from(*cut) * bytes.len() / 255;
    let (front, back) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
    let roles = [(Role::Server, Role::Client), (Role::Client, Role::Server)];
    for (sender, receiver) in roles {
        let key = (sender == Role::Client).then_some([*pick, 1, 2, 3]);
        let mut deflater = Deflater::new(sender, params, 0);
        let mut wire = Vec::new();
        let messages = [front, back, bytes, bytes];
        for message in messages {
            let deflater = Some(&mut deflater);
            write_message(&mut wire, deflater, MessageKind::Binary, message, key);
        }
        // With context, a message may be sent a little longer than it is.
        let limits = super::Limits { message_len_max: bytes.len() + 16, frames_max: 1 };
        let log = Log::of(Receiver::new(receiver, limits, Some(params)), &[&wire]);
        let items: Vec<Item<'static>> =
            messages.iter().map(|message| Item::Binary(message.to_vec().into())).collect();
        assert_eq!((log.items, log.error), (items, None), "compression changed a message");
    }
    // As the payload of a message from a server.
    let whole = Log::of(receiver(params), &[&frame(Opcode::Binary, true, bytes)]);
    let front = frame(Opcode::Binary, false, front);
    let frames = [front, frame(Opcode::Continuation, true, back)].concat();
    let single: Vec<&[u8]> = frames.chunks(1).collect();
    for parts in [&[&*frames][..], &single] {
        let log = Log::of(receiver(params), parts);
        assert_eq!(log, whole, "a cut at {cut} changed a message");
    }
    let is_short = |item: &Item<'_>| match item {
        Item::Binary(bytes) => bytes.len() <= FUZZ_LIMITS.message_len_max,
        _ => false,
    };
    assert!(whole.items.iter().all(is_short));
    let can_be = [None, Some(WsError::BadDeflate), Some(WsError::MessageTooLong)];
    assert!(can_be.contains(&whole.error), "{:?}", whole.error);
}

fn receiver(params: DeflateParams) -> Receiver {
    Receiver::new(Role::Client, FUZZ_LIMITS, Some(params))
}

/// A frame of a compressed message.
fn frame(opcode: Opcode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let (is_compressed, len) = (opcode == Opcode::Binary, payload.len() as u64);
    let header = Header { is_final, is_compressed, opcode, key: None, len };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}
