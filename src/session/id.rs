//! Session ids: unguessable, and they say which shard owns the session.
//!
//! An id is 32 hexadecimal digits, 128 random bits. Its owner follows from a hash of the text, so
//! any shard can tell; a shard mints ids until one hashes to itself.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng as _;

use crate::ids::ShardId;

/// A session id that a shard of ours minted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; Self::LEN]);

impl std::fmt::Debug for SessionId {
    /// A session id is a bearer secret: it is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionId")
    }
}

impl SessionId {
    const LEN: usize = 32;

    /// A new id that belongs to this shard.
    pub fn mint(random: &mut ChaCha12Rng, shard: ShardId, shards: u16) -> Self {
        loop {
            let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
            let mut text = [0; Self::LEN];
            let digits = format!("{bits:032x}");
            for (to, from) in text.iter_mut().zip(digits.bytes()) {
                *to = from;
            }
            if owner(&text, shards) == shard {
                return Self(text);
            }
        }
    }

    /// The id that a client sent, if it has the form of one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: [u8; Self::LEN] = text.try_into().ok()?;
        text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(text))
    }

    /// The shard that has the session, if there is one.
    pub fn owner(&self, shards: u16) -> ShardId {
        owner(&self.0, shards)
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The shard that has what is called so: FNV-1a, reduced to the number of shards.
pub fn owner(text: &[u8], shards: u16) -> ShardId {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV depend on few input bits; fold the high half in.
    let folded = (hash >> 32) ^ hash;
    ShardId(u16::try_from(folded % u64::from(shards.max(1))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn minted_ids_belong_to_their_shard_and_never_repeat() {
        let mut seen = std::collections::HashSet::new();
        for id in 0..3 {
            let mut random = ChaCha12Rng::from_seed([u8::try_from(id).unwrap(); 32]);
            for _ in 0..33_334 {
                let session = SessionId::mint(&mut random, ShardId(id), 3);
                assert_eq!(session.owner(3), ShardId(id));
                assert_eq!(SessionId::parse(session.as_bytes()), Some(session));
                assert!(seen.insert(session));
            }
        }
    }

    #[test]
    fn only_our_own_form_is_an_id() {
        for text in ["", "abc", "0123456789ABCDEF0123456789ABCDEF", "zz"] {
            assert_eq!(SessionId::parse(text.as_bytes()), None);
        }
    }
}
