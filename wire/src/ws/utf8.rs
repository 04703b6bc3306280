//! UTF-8 in pieces: whether bytes are text, as soon as it can be told.
//!
//! A piece may end inside a character. What can no longer become text is refused at once
//! (RFC 6455 §8.1), not when the message ends.

/// Text so far, with the front of a character that the next piece completes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    cut: [u8; 4],
    cut_len: usize,
}

impl Utf8 {
    /// Takes the next piece, and says whether all is text so far.
    #[must_use]
    pub(super) fn push(&mut self, mut piece: &[u8]) -> bool {
        while self.cut_len != 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            let Some(slot) = self.cut.get_mut(self.cut_len) else { return false };
            *slot = byte;
            self.cut_len += 1;
            match core::str::from_utf8(self.cut.get(..self.cut_len).unwrap_or_default()) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = core::str::from_utf8(piece) else { return true };
        let cut = piece.get(error.valid_up_to()..).unwrap_or_default();
        self.cut_len = cut.len().min(self.cut.len());
        for (slot, byte) in self.cut.iter_mut().zip(cut) {
            *slot = *byte;
        }
        error.error_len().is_none()
    }

    /// Whether the text ends between characters.
    #[must_use]
    pub(super) const fn is_whole(&self) -> bool {
        self.cut_len == 0
    }
}
