//! What every part says of a message: its revision, its era, its bytes.

use bytes::Bytes;

/// A protocol revision that the gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    /// 2024-11-05.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches.
    V2025_03_26,
    /// 2025-06-18: version header, no batches.
    V2025_06_18,
    /// 2025-11-25: priming events, tasks.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl Revision {
    /// All, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];
    /// The newest that begins with `initialize`.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// The revision of that name.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.name().as_bytes() == text)
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Its era.
    pub fn era(self) -> Era {
        if self <= Self::NEWEST_LEGACY { Era::Legacy } else { Era::Modern }
    }
}

/// The great divide of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize`, sessions, requests in both directions. Up to 2025-11-25.
    Legacy,
    /// Everything is in the request. From 2026-07-28 on.
    Modern,
}

/// The bytes of one message, borrowed while they are in the receive buffer.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// In the receive buffer.
    Borrowed(&'a [u8]),
    /// In a buffer of its own, because it did not fit or did not arrive at once.
    Whole(Bytes),
}

impl Payload<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Whole(bytes) => bytes,
        }
    }

    /// The bytes, to keep: copied if they are borrowed.
    pub fn keep(&self) -> Bytes {
        match self {
            Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Whole(bytes) => bytes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_revision_has_one_name_and_one_era() {
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.name().as_bytes()), Some(revision));
        }
        assert_eq!(Revision::parse(b"2025-11-26"), None);
        assert_eq!(Revision::V2025_11_25.era(), Era::Legacy);
        assert_eq!(Revision::V2026_07_28.era(), Era::Modern);
    }
}
