//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692): the handshake, a receiver, writers.
//!
//! Not a connection: nothing here knows the time, what was sent before, or whether a ping was
//! answered. Random numbers (masks, a client's nonce) are arguments.
//!
//! To open a connection, a server calls [`accept_request`], and a client [`write_request_fields`]
//! and [`accept_response`]. What they agree on goes into a [`Receiver`] and, with compression, a
//! [`Deflater`]. After a [`WsError`], send a close frame with its code, and close.

mod error;
mod close;
mod frame;
mod mask;
mod utf8;
mod extension;
mod deflate;
mod receive;
mod write;
mod accept;
mod handshake;
mod fuzz;
#[cfg(test)]
mod tests;

pub use close::{
    BAD_PAYLOAD, Close, GOING_AWAY, INTERNAL_ERROR, NORMAL, POLICY, PROTOCOL_ERROR, TOO_LONG,
    TRY_AGAIN_LATER, UNSUPPORTED, is_close_code,
};
pub use deflate::Deflater;
pub use error::WsError;
pub use extension::{DeflateParams, DeflateSide};
pub use frame::Role;
#[doc(hidden)]
pub use fuzz::{fuzz_deflate, fuzz_handshake};
pub use handshake::{
    Acceptance, Connected, RequestError, ResponseError, accept_request, accept_response,
    write_request_fields,
};
pub use mask::mask;
pub use receive::{Item, Limits, MessageKind, Receiver};
pub use write::{write_close, write_message, write_message_head, write_ping, write_pong};

use alloc::vec::Vec;

/// The property that holds for every input. The fuzzer and the corpus test both call it.
///
/// The first byte picks the role and the compression, the second where the rest is cut in two.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let [pick, cut, bytes @ ..] = bytes else { return };
    let (role, peer) =
        if pick & 1 == 0 { (Role::Server, Role::Client) } else { (Role::Client, Role::Server) };
    let deflate = match pick & 6 {
        2 => Some(DeflateParams::WITHOUT_CONTEXT),
        4 => Some(DeflateParams::WITH_CONTEXT),
        _ => None,
    };
    let cut = usize::from(*cut) * bytes.len() / 255;
    let (front, back) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
    let whole = Log::of(Receiver::new(role, FUZZ_LIMITS, deflate), &[bytes]);
    let parts = Log::of(Receiver::new(role, FUZZ_LIMITS, deflate), &[front, back]);
    assert_eq!(whole, parts, "a cut at {cut} changed the items");

    let key = (peer == Role::Client).then_some([*pick, 1, 2, 3]);
    let mut deflater = deflate.map(|params| Deflater::new(peer, params, 8));
    let mut written = Vec::new();
    for item in &whole.items {
        let deflater = deflater.as_mut();
        match item {
            Item::Text(bytes) => {
                write_message(&mut written, deflater, MessageKind::Text, bytes, key);
            }
            Item::Binary(bytes) => {
                write_message(&mut written, deflater, MessageKind::Binary, bytes, key);
            }
            Item::Ping(bytes) => write_ping(&mut written, bytes, key),
            Item::Pong(bytes) => write_pong(&mut written, bytes, key),
            Item::Close(None) => write_close(&mut written, None, "", key),
            Item::Close(Some(close)) => {
                write_close(&mut written, Some(close.code), &close.reason, key);
            }
        }
    }
    let again = Log::of(Receiver::new(role, FUZZ_LIMITS, deflate), &[&written]);
    assert_eq!((again.items, again.error), (whole.items, None), "what was written was not read");
}

const FUZZ_LIMITS: Limits = Limits { message_len_max: 2000, frames_max: 8 };

/// Everything a receiver said, for comparison.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    items: Vec<Item<'static>>,
    error: Option<WsError>,
}

impl Log {
    fn of(mut receiver: Receiver, parts: &[&[u8]]) -> Self {
        let mut log = Self::default();
        for part in parts {
            let mut bytes = part.to_vec();
            let mut input = &mut bytes[..];
            loop {
                match receiver.next(&mut input) {
                    Ok(Some(item)) => log.items.push(owned(item)),
                    Ok(None) => break,
                    Err(error) => {
                        log.error = Some(error);
                        return log;
                    }
                }
            }
            assert!(input.is_empty(), "input was left");
        }
        log
    }
}

fn owned(item: Item<'_>) -> Item<'static> {
    match item {
        Item::Text(bytes) => Item::Text(bytes.into_owned().into()),
        Item::Binary(bytes) => Item::Binary(bytes.into_owned().into()),
        Item::Ping(bytes) => Item::Ping(bytes.into_owned().into()),
        Item::Pong(bytes) => Item::Pong(bytes.into_owned().into()),
        Item::Close(close) => Item::Close(
            close.map(|close| Close { code: close.code, reason: close.reason.into_owned().into() }),
        ),
    }
}
