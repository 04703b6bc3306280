//! Masking (RFC 6455 §5.3): what a client does to every payload, and a server undoes.
//!
//! Not encryption: it keeps a script in a browser from choosing the bytes that a proxy sees.

/// Masks or unmasks `bytes`, which begin `phase` bytes behind the start of their payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4], phase: usize) {
    let turns = [0, 8, 16, 24].get(phase % key.len()).copied().unwrap_or_default();
    let key = u32::from_le_bytes(key).rotate_right(turns);
    // A loop without branches over whole words: the compiler makes vectors of them.
    let (words, tail) = bytes.as_chunks_mut();
    for word in words {
        *word = (u32::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= key;
    }
}
