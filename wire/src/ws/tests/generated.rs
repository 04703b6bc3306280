//! Random streams, and the property over them.

use super::super::fuzz;
use super::{Role, masked, plain};
use crate::json::generate::Chance;
use std::vec::Vec;

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

pub(super) fn stream(chance: &mut Chance, role: Role) -> Vec<u8> {
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
