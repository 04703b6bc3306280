//! Vectors, every split, round trips, bounds, and the property over a corpus.

mod frames;
mod handshake;
mod compressed;
mod generated;
mod judge;

use super::{Close, DeflateParams, Item, Limits, Log, Receiver, Role, WsError};
use std::vec::Vec;

const LIMITS: Limits = Limits { message_len_max: 1 << 20, frames_max: 1 << 10 };

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn text(bytes: impl AsRef<[u8]>) -> Item<'static> {
    Item::Text(bytes.as_ref().to_vec().into())
}

fn binary(bytes: impl AsRef<[u8]>) -> Item<'static> {
    Item::Binary(bytes.as_ref().to_vec().into())
}

fn ping(bytes: impl AsRef<[u8]>) -> Item<'static> {
    Item::Ping(bytes.as_ref().to_vec().into())
}

fn pong(bytes: impl AsRef<[u8]>) -> Item<'static> {
    Item::Pong(bytes.as_ref().to_vec().into())
}

fn close(code: u16, reason: &'static str) -> Item<'static> {
    Item::Close(Some(Close { code, reason: reason.into() }))
}

/// A frame as a client sends it: its first byte, and a payload, which is masked.
fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut frame = plain(first, &payload);
    frame[1] |= 0x80;
    let start = frame.len() - payload.as_ref().len();
    frame.splice(start..start, KEY);
    for (index, byte) in frame[start + 4..].iter_mut().enumerate() {
        *byte ^= KEY[index % 4];
    }
    frame
}

/// A frame as a server sends it.
fn plain(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = std::vec![first];
    match payload.len() {
        len @ ..126 => frame.push(u8::try_from(len).unwrap()),
        len @ ..0x1_0000 => {
            frame.push(126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A stream must come to the same, however it is cut: in two anywhere, and into single bytes.
#[track_caller]
fn check(
    role: Role,
    deflate: Option<DeflateParams>,
    bytes: impl AsRef<[u8]>,
    want: &[Item<'static>],
    error: Option<WsError>,
) {
    let bytes = bytes.as_ref();
    let receiver = || Receiver::new(role, LIMITS, deflate);
    for cut in 0..=bytes.len() {
        let log = Log::of(receiver(), &[&bytes[..cut], &bytes[cut..]]);
        assert_eq!((&log.items[..], log.error), (want, error), "cut at {cut}");
    }
    let parts: Vec<&[u8]> = bytes.chunks(1).collect();
    let log = Log::of(receiver(), &parts);
    assert_eq!((&log.items[..], log.error), (want, error), "one byte at a time");
}

/// What a server makes of a stream without compression.
#[track_caller]
fn check_server(bytes: impl AsRef<[u8]>, want: &[Item<'static>]) {
    check(Role::Server, None, bytes, want, None);
}

/// A stream whose last byte is the first that is wrong.
#[track_caller]
fn check_error(role: Role, bytes: impl AsRef<[u8]>, want: WsError, code: u16) {
    let bytes = bytes.as_ref();
    check(role, None, bytes, &[], Some(want));
    let front = Log::of(Receiver::new(role, LIMITS, None), &[&bytes[..bytes.len() - 1]]);
    assert_eq!(front.error, None, "the error came too early");
    assert_eq!(want.close_code(), code);
}
