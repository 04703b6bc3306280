//! Another implementation (tungstenite) as the judge: the same random frames, cut at random, come
//! to the same messages, errors and close codes; and what one writes, the other reads.
//!
//! The two differ in this, deliberately:
//!
//! - A length in more bytes than it needs is refused (RFC 6455 §5.2: "the minimal number of bytes
//!   MUST be used"). The judge takes it.
//! - Text that is not UTF-8 is refused with the byte that shows it, which §8.1 allows. The judge
//!   looks when the message has ended; until then it may find something else, or nothing.
//! - Of two faults in one frame, we name the one that comes first: a breach in the header (1002),
//!   for which a length of 2^63 or more counts, before a length that is too much (1009); a bad
//!   close code (1002) before a reason that is not UTF-8 (1007). The judge names the other.
//! - A header is refused when it is there. The judge waits for the whole frame, unless the length
//!   alone is too much: for what we have refused before, it is given the rest.
//! - What comes behind a close frame is thrown away (§5.5.1). To the judge it is a breach; it is
//!   not asked.
//! - A message in more frames than are allowed is refused (1008). The judge has no such bound.

use super::super::{write_close, write_message, write_ping, write_pong};
use super::generated::stream;
use super::{Close, Item, Limits, Log, Receiver, Role, WsError, close};
use crate::json::generate::Chance;
use crate::ws::MessageKind;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::string::String;
use std::vec::Vec;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{self, CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// Short, so that messages are too long now and then.
const LIMITS: Limits = Limits { message_len_max: 400, frames_max: 1 << 10 };

/// What the judge reads, piece by piece, and what it writes.
#[derive(Debug, Default)]
struct Wire {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(0) };
        let len = piece.len().min(buf.len());
        buf[..len].copy_from_slice(&piece[..len]);
        piece.drain(..len);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was read until the end or the first error, and the close code for that.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    items: Vec<Item<'static>>,
    code: Option<u16>,
}

fn judge(role: Role, pieces: Vec<Vec<u8>>) -> WebSocket<Wire> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_len_max))
        .max_frame_size(Some(LIMITS.message_len_max));
    let role = match role {
        Role::Server => protocol::Role::Server,
        Role::Client => protocol::Role::Client,
    };
    let wire = Wire { pieces: pieces.into(), ..Wire::default() };
    WebSocket::from_raw_socket(wire, role, Some(config))
}

/// The verdict of the judge, and what it answers.
fn judged(role: Role, pieces: Vec<Vec<u8>>) -> (Verdict, Vec<u8>) {
    let mut socket = judge(role, pieces);
    let mut items = Vec::new();
    let code = loop {
        match socket.read() {
            // That is how it says that the code may not be sent.
            Ok(Message::Close(Some(frame))) if frame.reason == "Protocol violation" => {
                break Some(u16::from(frame.code));
            }
            Ok(message) => {
                let is_over = message.is_close();
                items.extend(item(message));
                if is_over {
                    break None;
                }
            }
            Err(Error::Utf8(_)) => break Some(1007),
            Err(Error::Capacity(_)) => break Some(1009),
            Err(Error::Protocol(error)) => {
                use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
                break (error != ResetWithoutClosingHandshake).then_some(1002);
            }
            Err(_) => break None,
        }
    };
    drop(socket.flush());
    (Verdict { items, code }, socket.get_ref().written.clone())
}

fn item(message: Message) -> Option<Item<'static>> {
    Some(match message {
        Message::Text(text) => Item::Text(text.as_bytes().to_vec().into()),
        Message::Binary(bytes) => Item::Binary(bytes.to_vec().into()),
        Message::Ping(bytes) => Item::Ping(bytes.to_vec().into()),
        Message::Pong(bytes) => Item::Pong(bytes.to_vec().into()),
        Message::Close(frame) => Item::Close(frame.map(|frame| Close {
            code: frame.code.into(),
            reason: String::from(frame.reason.as_str()).into(),
        })),
        Message::Frame(_) => return None,
    })
}

fn ours(role: Role, pieces: &[Vec<u8>]) -> (Verdict, Option<WsError>) {
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let log = Log::of(Receiver::new(role, LIMITS, None), &pieces);
    (Verdict { items: log.items, code: log.error.map(WsError::close_code) }, log.error)
}

fn other(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}

/// Bytes in pieces of random lengths, mostly short or all at once.
fn cut(chance: &mut Chance, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    let len_max = [1, 3, 20, 5000][chance.below(4)];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + chance.below(len_max)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

fn role(chance: &mut Chance) -> Role {
    if chance.below(2) == 0 { Role::Server } else { Role::Client }
}

#[test]
fn both_read_the_same_and_close_with_the_same_code() {
    let mut chance = Chance(11);
    let (mut good, mut bad, mut apart) = (0, [0; 3], 0);
    for _ in 0..12_000 {
        let role = role(&mut chance);
        let bytes = stream(&mut chance, role);
        let pieces = cut(&mut chance, &bytes);
        let (mine, error) = ours(role, &pieces);
        let (mut verdict, _) = judged(role, cut(&mut chance, &bytes));
        if mine.code.is_some() && verdict.code.is_none() {
            let mut pieces = cut(&mut chance, &bytes);
            pieces.push(std::vec![0; 70_000]);
            (verdict, _) = judged(role, pieces);
        }
        let differs = match error {
            Some(WsError::LengthNotMinimal | WsError::TextNotUtf8) => true,
            Some(WsError::BadCloseCode(_)) => verdict.code == Some(1007),
            _ => (mine.code, verdict.code) == (Some(1002), Some(1009)),
        };
        if differs && verdict != mine {
            assert!(verdict.items.starts_with(&mine.items), "{bytes:?}");
            apart += 1;
            continue;
        }
        assert_eq!(verdict, mine, "{error:?}: {bytes:?}");
        match mine.code {
            None => good += 1,
            Some(code) => bad[usize::from(code == 1007) + 2 * usize::from(code == 1009)] += 1,
        }
    }
    // Enough of each kind, and few that are not compared.
    let is_enough = 4000 < good && bad[0] > 500 && bad[1] > 10 && bad[2] > 200 && apart < 400;
    assert!(is_enough, "{good} {bad:?} {apart}");
}

/// A server answers pings and close frames; the judge does so by itself, and we read it.
#[test]
fn what_the_judge_answers_is_read() {
    let mut chance = Chance(12);
    let mut closed = 0;
    for _ in 0..4000 {
        let role = role(&mut chance);
        let bytes = stream(&mut chance, role);
        let (verdict, written) = judged(role, cut(&mut chance, &bytes));
        let (answers, error) = ours(other(role), &cut(&mut chance, &written));
        assert_eq!(error, None, "{written:?}");
        let mut pings = verdict.items.iter();
        for answer in &answers.items {
            match answer {
                // Of pings that come together it answers the last.
                Item::Pong(pong) => {
                    let is_it = |item: &Item<'_>| matches!(item, Item::Ping(ping) if ping == pong);
                    assert!(pings.any(is_it), "{answers:?} to {verdict:?}");
                }
                Item::Close(close) => {
                    closed += 1;
                    let code = close.as_ref().map(|close| close.code);
                    match verdict.items.last() {
                        Some(Item::Close(theirs)) => {
                            assert_eq!(code, theirs.as_ref().map(|close| close.code));
                        }
                        _ => assert_eq!((code, verdict.code), (Some(1002), Some(1002))),
                    }
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }
    assert!(100 < closed, "{closed}");
}

/// Messages and control frames that one end may send, in order; a close frame only at the end.
fn conversation(chance: &mut Chance) -> Vec<Item<'static>> {
    const TEXTS: [&str; 5] = ["", "a", "\u{20ac}\u{1f600}", "{\"jsonrpc\":\"2.0\"}", "0123456789"];
    let mut items = Vec::new();
    for _ in 0..chance.below(8) {
        let text = chance.pick(&TEXTS).repeat(1 + chance.below(15)).into_bytes();
        items.push(match chance.below(6) {
            0 => Item::Ping(text[..text.len().min(125)].to_vec().into()),
            1 => Item::Pong(text[..text.len().min(125)].to_vec().into()),
            2 => Item::Binary([&text[..], b"\xff\x00"].concat().into()),
            _ => Item::Text(text.into()),
        });
    }
    match chance.below(4) {
        0 => items.push(Item::Close(None)),
        1 => items.push(close([1000, 1001, 1011, 3000, 4999][chance.below(5)], "why \u{20ac}")),
        _ => {}
    }
    items
}

#[test]
fn what_we_write_the_judge_reads() {
    let mut chance = Chance(13);
    for _ in 0..4000 {
        let role = role(&mut chance);
        let items = conversation(&mut chance);
        let mut bytes = Vec::new();
        for item in &items {
            let word = chance.next().to_be_bytes();
            let key = (role == Role::Client).then(|| [word[0], word[1], word[2], word[3]]);
            match item {
                Item::Text(text) => {
                    write_message(&mut bytes, None, MessageKind::Text, text, key);
                }
                Item::Binary(payload) => {
                    write_message(&mut bytes, None, MessageKind::Binary, payload, key);
                }
                Item::Ping(payload) => write_ping(&mut bytes, payload, key),
                Item::Pong(payload) => write_pong(&mut bytes, payload, key),
                Item::Close(None) => write_close(&mut bytes, None, "", key),
                Item::Close(Some(close)) => {
                    write_close(&mut bytes, Some(close.code), &close.reason, key);
                }
            }
        }
        let (verdict, _) = judged(other(role), cut(&mut chance, &bytes));
        assert_eq!(verdict, Verdict { items, code: None }, "{bytes:?}");
    }
}

/// In pieces, too, which our own writer never makes.
#[test]
fn what_the_judge_writes_we_read() {
    let mut chance = Chance(14);
    for _ in 0..4000 {
        let role = role(&mut chance);
        let items = conversation(&mut chance);
        let mut socket = judge(role, Vec::new());
        for item in &items {
            match item {
                Item::Text(text) => send(&mut chance, &mut socket, Data::Text, text),
                Item::Binary(payload) => send(&mut chance, &mut socket, Data::Binary, payload),
                Item::Ping(bytes) => socket.write(Message::Ping(bytes.to_vec().into())).unwrap(),
                Item::Pong(bytes) => {
                    socket.write(Message::Pong(bytes.to_vec().into())).unwrap();
                    // Otherwise the next takes its place.
                    socket.flush().unwrap();
                }
                Item::Close(close) => {
                    let frame = close.as_ref().map(|close| CloseFrame {
                        code: close.code.into(),
                        reason: close.reason.clone().into_owned().into(),
                    });
                    socket.close(frame).unwrap();
                }
            }
        }
        drop(socket.flush());
        let written = socket.get_ref().written.clone();
        let (verdict, error) = ours(other(role), &cut(&mut chance, &written));
        assert_eq!(error, None, "{written:?}");
        assert_eq!(verdict.items, items, "{written:?}");
    }
}

/// A message in up to four frames.
fn send(chance: &mut Chance, socket: &mut WebSocket<Wire>, kind: Data, payload: &[u8]) {
    let count = 1 + chance.below(4);
    let mut rest = payload;
    for index in 0..count {
        let is_final = index + 1 == count;
        let len = if is_final { rest.len() } else { chance.below(rest.len() + 1) };
        let (piece, after) = rest.split_at(len);
        let opcode = OpCode::Data(if index == 0 { kind } else { Data::Continue });
        let frame = Frame::message(piece.to_vec(), opcode, is_final);
        socket.write(Message::Frame(frame)).unwrap();
        rest = after;
    }
}

/// The judge has no bound for this, so it takes what we refuse.
#[test]
fn only_we_count_frames() {
    let mut bytes = super::plain(0x01, "");
    for _ in 0..LIMITS.frames_max {
        bytes.extend(super::plain(0x00, ""));
    }
    bytes.extend(super::plain(0x80, ""));
    let pieces = Vec::from([bytes]);
    let (mine, error) = ours(Role::Client, &pieces);
    assert_eq!((mine.code, error), (Some(1008), Some(WsError::TooManyFrames)));
    assert_eq!(judged(Role::Client, pieces).0.items, [super::text("")]);
}
