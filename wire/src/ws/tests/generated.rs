//! Random streams: the property, and another implementation as the judge.

use super::super::fuzz;
use super::{Close, Item, LIMITS, Log, Receiver, Role, WsError, masked, plain};
use crate::json::generate::Chance;
use std::io::{self, Cursor, Read, Write};
use std::string::String;
use std::vec::Vec;
use tungstenite::protocol::{self, CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// A random frame, of a message that has begun or not. Mostly valid.
fn frame(chance: &mut Chance, role: Role, is_in_message: &mut bool) -> Vec<u8> {
    const TEXTS: [&str; 6] =
        ["", "a", "\u{20ac}", "{\"jsonrpc\":\"2.0\"}", "\u{1f600}", "0123456789"];
    let mut payload = chance.pick(&TEXTS).repeat(chance.below(20)).into_bytes();
    let first = match chance.below(8) {
        0 => 0x89,
        1 => 0x8a,
        2 if chance.below(8) == 0 => {
            let code = [1000, 1001, 1005, 3000, 4999, 5000][chance.below(6)];
            payload.splice(..0, u16::to_be_bytes(code));
            payload.truncate([0, 1, 2, 3, 60][chance.below(5)]);
            0x88
        }
        3 if chance.below(8) == 0 => u8::try_from(chance.below(256)).unwrap(),
        _ => {
            let is_final = chance.below(2) == 0;
            let opcode = if *is_in_message { 0 } else { [1, 1, 2][chance.below(3)] };
            *is_in_message = !is_final;
            if is_final { 0x80 | opcode } else { opcode }
        }
    };
    if 0x88 <= first {
        payload.truncate(125);
    }
    match role {
        Role::Server => masked(first, payload),
        Role::Client => plain(first, payload),
    }
}

fn stream(chance: &mut Chance, role: Role) -> Vec<u8> {
    let mut is_in_message = false;
    let mut bytes = Vec::new();
    for _ in 0..chance.below(12) {
        bytes.extend(frame(chance, role, &mut is_in_message));
    }
    if chance.below(3) == 0 && !bytes.is_empty() {
        let at = chance.below(bytes.len());
        bytes[at] ^= 1 << chance.below(8);
    }
    bytes
}

/// Vectors, and vectors with a bit changed; the same in every run.
#[test]
fn the_property_holds_over_a_corpus() {
    let mut chance = Chance(7);
    for pick in (0_u8..8).cycle().take(6_000) {
        let role = if pick % 2 == 0 { Role::Server } else { Role::Client };
        let mut bytes = std::vec![pick, u8::try_from(chance.below(256)).unwrap()];
        bytes.extend(stream(&mut chance, role));
        fuzz(&bytes);
    }
    for deflate in [2, 4] {
        for _ in 0..3_000 {
            fuzz(&compressed_stream(&mut chance, deflate));
        }
    }
}

/// A few compressed messages to a client, and mostly a bit changed.
fn compressed_stream(chance: &mut Chance, deflate: u8) -> Vec<u8> {
    use super::super::{DeflateParams, Deflater};
    let params = match deflate {
        2 => DeflateParams::WITHOUT_CONTEXT,
        _ => DeflateParams::WITH_CONTEXT,
    };
    let mut deflater = Deflater::new(Role::Server, params, 0);
    let mut bytes = std::vec![1 | deflate, u8::try_from(chance.below(256)).unwrap()];
    for _ in 0..chance.below(4) {
        let message = chance.document(3).repeat(1 + chance.below(3));
        if let Some(payload) = deflater.compress(message.as_bytes()) {
            let (front, back) = payload.split_at(chance.below(payload.len()));
            let first = [0x41, 0x42][chance.below(2)];
            bytes.extend([plain(first, front), plain(0x80, back)].concat());
        }
    }
    if chance.below(4) != 0 && 2 < bytes.len() {
        let at = 2 + chance.below(bytes.len() - 2);
        bytes[at] ^= 1 << chance.below(8);
    }
    bytes
}

/// The input of the judge, which throws away what it writes.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the judge reads, and whether it found something wrong.
fn judge(bytes: &[u8], role: Role) -> (Vec<Item<'static>>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_len_max))
        .max_frame_size(Some(LIMITS.message_len_max));
    let role = match role {
        Role::Server => protocol::Role::Server,
        Role::Client => protocol::Role::Client,
    };
    let wire = Wire(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(wire, role, Some(config));
    let mut items = Vec::new();
    loop {
        let item = match socket.read() {
            Ok(Message::Text(text)) => Item::Text(text.as_bytes().to_vec().into()),
            Ok(Message::Binary(bytes)) => Item::Binary(bytes.to_vec().into()),
            Ok(Message::Ping(bytes)) => Item::Ping(bytes.to_vec().into()),
            Ok(Message::Pong(bytes)) => Item::Pong(bytes.to_vec().into()),
            // That is how it says that the code may not be sent.
            Ok(Message::Close(Some(close))) if close.reason == "Protocol violation" => {
                return (items, true);
            }
            Ok(Message::Close(close)) => {
                items.push(Item::Close(close.map(owned)));
                return (items, false);
            }
            Ok(Message::Frame(_)) => continue,
            Err(error) => {
                use tungstenite::Error::{ConnectionClosed, Io, Protocol};
                use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
                let is_end = matches!(
                    error,
                    Io(_) | ConnectionClosed | Protocol(ResetWithoutClosingHandshake)
                );
                return (items, !is_end);
            }
        };
        items.push(item);
    }
}

fn owned(close: CloseFrame) -> Close<'static> {
    Close { code: close.code.into(), reason: String::from(close.reason.as_str()).into() }
}

/// The judge is more lenient in two things: it takes lengths in more bytes than they need, and it
/// only looks at text when a message has ended. It is stricter in none. It looks at a frame when it
/// is whole, so for one that we have refused before, it is given the rest.
#[test]
fn another_implementation_reads_the_same() {
    let mut chance = Chance(11);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..4_000 {
        let role = if chance.below(2) == 0 { Role::Server } else { Role::Client };
        let bytes = stream(&mut chance, role);
        let ours = Log::of(Receiver::new(role, LIMITS, None), &[&bytes]);
        let (mut items, mut is_bad) = judge(&bytes, role);
        if ours.error.is_some() && !is_bad {
            (items, is_bad) = judge(&[&bytes[..], &std::vec![0; 70_000]].concat(), role);
        }
        let is_lenient =
            matches!(ours.error, Some(WsError::LengthNotMinimal | WsError::TextNotUtf8));
        if is_lenient && !(is_bad && items == ours.items) {
            assert!(items.starts_with(&ours.items), "{bytes:?}");
            continue;
        }
        assert_eq!((&items, is_bad), (&ours.items, ours.error.is_some()), "{bytes:?}: {ours:?}");
        if is_bad { bad += 1 } else { good += 1 }
    }
    assert!(1000 < good && 300 < bad, "{good} {bad}");
}
