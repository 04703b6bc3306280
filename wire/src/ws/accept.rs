//! `Sec-WebSocket-Accept` (RFC 6455 §4.2.2): SHA-1 and base64, for this one purpose.
//!
//! Not for anything that needs a secure hash: it only proves that a server has read the request as
//! a WebSocket handshake.

const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Characters in a key, which is 16 bytes in base64.
pub(super) const KEY_LEN: usize = 24;

/// Characters in an accept value, which is 20 bytes in base64.
pub(super) const ACCEPT_LEN: usize = 28;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The accept value for a key as it was sent.
pub(super) fn accept(key: &[u8; KEY_LEN]) -> [u8; ACCEPT_LEN] {
    let mut text = [0; KEY_LEN + GUID.len()];
    for (slot, byte) in text.iter_mut().zip(key.iter().chain(GUID)) {
        *slot = *byte;
    }
    let mut out = [0; ACCEPT_LEN];
    encode(&sha1_of_60(&text), &mut out);
    out
}

/// The key for 16 bytes of the caller's, which should be random.
pub(super) fn key(nonce: &[u8; 16]) -> [u8; KEY_LEN] {
    let mut out = [0; KEY_LEN];
    encode(nonce, &mut out);
    out
}

/// Whether a value is 16 bytes in base64.
pub(super) fn decode_key(value: &[u8]) -> Option<&[u8; KEY_LEN]> {
    let key: &[u8; KEY_LEN] = value.try_into().ok()?;
    let digits = key.strip_suffix(b"==")?;
    digits.iter().all(|digit| ALPHABET.contains(digit)).then_some(key)
}

/// Base64 with padding; `out` has four characters for every three bytes begun.
fn encode(bytes: &[u8], out: &mut [u8]) {
    for (group, digits) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let bits = (group.iter().chain(&[0; 2]).take(3))
            .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        for ((place, digit), shift) in digits.iter_mut().enumerate().zip([18, 12, 6, 0]) {
            let index = usize::try_from((bits >> shift) & 0x3f).unwrap_or_default();
            let is_padding = group.len() < place;
            *digit = if is_padding { b'=' } else { ALPHABET.get(index).copied().unwrap_or(b'=') };
        }
    }
}

/// SHA-1 (RFC 3174) of 60 bytes: with the padding that is two blocks, and the second has none of
/// them.
fn sha1_of_60(text: &[u8; 60]) -> [u8; 20] {
    let mut first = [0; 64];
    for (slot, byte) in first.iter_mut().zip(text.iter().chain(&[0x80])) {
        *slot = *byte;
    }
    let mut second = [0; 64];
    if let Some(length) = second.last_chunk_mut() {
        *length = (60_u64 * 8).to_be_bytes();
    }
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in [first, second] {
        state = sha1_block(state, &block);
    }
    let mut out = [0; 20];
    let (words, _) = out.as_chunks_mut();
    for (slot, word) in words.iter_mut().zip(state) {
        *slot = word.to_be_bytes();
    }
    out
}

fn sha1_block(state: [u32; 5], block: &[u8; 64]) -> [u32; 5] {
    // The last 16 words of the schedule; the front is the word of this round.
    let mut words = [0_u32; 16];
    let (bytes, _) = block.as_chunks();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_be_bytes(*bytes);
    }
    let [mut a, mut b, mut c, mut d, mut e] = state;
    for round in 0..80 {
        let (mix, constant) = match round {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let [word, _, w2, .., w8, _, _, _, _, w13, _, _] = words;
        let sum = a.rotate_left(5).wrapping_add(mix).wrapping_add(e);
        let sum = sum.wrapping_add(constant).wrapping_add(word);
        (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
        words.rotate_left(1);
        if let Some(last) = words.last_mut() {
            *last = (word ^ w2 ^ w8 ^ w13).rotate_left(1);
        }
    }
    let [a0, b0, c0, d0, e0] = state;
    [
        a0.wrapping_add(a),
        b0.wrapping_add(b),
        c0.wrapping_add(c),
        d0.wrapping_add(d),
        e0.wrapping_add(e),
    ]
}

#[cfg(test)]
mod tests {
    use super::{accept, decode_key, key, sha1_of_60};

    #[test]
    fn the_hash_of_sixty_bytes_is_sha1() {
        // From coreutils' sha1sum.
        let want = [
            0x13, 0xd9, 0x56, 0x03, 0x3d, 0x9a, 0xf4, 0x49, 0xbf, 0xe2, 0xc4, 0xef, 0x78, 0xc1,
            0x7c, 0x20, 0x46, 0x9c, 0x4b, 0xf1,
        ];
        assert_eq!(sha1_of_60(&[b'a'; 60]), want);
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(&key(b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(decode_key(b"dGhlIHNhbXBsZSBub25jZQ==").is_some());
        let bad: [&[u8]; 7] = [
            b"",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZWU=",
            b"dGhlIHNhbXBsZSBub25jZWVl",
            b"dGhlIHNhbXBsZSBub25jZQ== ",
            b"dGhlIHNhbXBsZSBub25jZ===",
            b"dGhlIHNhbXBs_SBub25jZQ==",
        ];
        for value in bad {
            assert!(decode_key(value).is_none(), "{value:?}");
        }
    }
}
