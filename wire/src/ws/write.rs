//! Messages and control frames to bytes: each writer appends to a buffer of the caller's.
//!
//! Not fragmentation: every message is one frame. `key` is the mask of a frame: a client passes
//! four random bytes, new ones for each, and a server passes `None`.

use super::close::is_close_code;
use super::deflate::Deflater;
use super::frame::{CONTROL_LEN_MAX, Header, Opcode};
use super::mask::mask;
use super::receive::MessageKind;
use alloc::vec::Vec;

/// Appends the header of a message of `len` bytes, uncompressed. A server that has the payload in
/// a buffer of its own sends that behind it; a client masks it first, with [`mask`].
pub fn write_message_head(out: &mut Vec<u8>, kind: MessageKind, len: usize, key: Option<[u8; 4]>) {
    header(opcode(kind), len, key).encode(out);
}

/// Appends a message. With a `deflater`, it is compressed if that makes it shorter.
pub fn write_message(
    out: &mut Vec<u8>,
    deflater: Option<&mut Deflater>,
    kind: MessageKind,
    payload: &[u8],
    key: Option<[u8; 4]>,
) {
    match deflater.and_then(|deflater| deflater.compress(payload)) {
        Some(compressed) => {
            let header = header(opcode(kind), compressed.len(), key);
            write_frame(out, Header { is_compressed: true, ..header }, &compressed);
        }
        None => write_frame(out, header(opcode(kind), payload.len(), key), payload),
    }
}

/// Appends a ping. Of the payload, 125 bytes are sent at most.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8], key: Option<[u8; 4]>) {
    write_control(out, Opcode::Ping, payload, key);
}

/// Appends a pong, which has the payload of the ping that it answers.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8], key: Option<[u8; 4]>) {
    write_control(out, Opcode::Pong, payload, key);
}

/// Appends a close frame. Of the reason, only what fits is sent, 123 bytes. Without a code there
/// is no reason either.
pub fn write_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str, key: Option<[u8; 4]>) {
    debug_assert!(code.is_none_or(is_close_code), "{code:?} may not be sent");
    let mut payload = Vec::new();
    if let Some(code) = code {
        let fitting = reason.floor_char_boundary(CONTROL_LEN_MAX - 2);
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes().get(..fitting).unwrap_or_default());
    }
    write_control(out, Opcode::Close, &payload, key);
}

fn write_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    debug_assert!(payload.len() <= CONTROL_LEN_MAX, "a control frame has at most 125 bytes");
    let payload = payload.get(..CONTROL_LEN_MAX).unwrap_or(payload);
    write_frame(out, header(opcode, payload.len(), key), payload);
}

fn write_frame(out: &mut Vec<u8>, header: Header, payload: &[u8]) {
    header.encode(out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(payload)) = (header.key, out.get_mut(start..)) {
        mask(payload, key, 0);
    }
}

const fn header(opcode: Opcode, len: usize, key: Option<[u8; 4]>) -> Header {
    Header { is_final: true, is_compressed: false, opcode, key, len: len as u64 }
}

const fn opcode(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    }
}
