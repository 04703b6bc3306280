//! Rewriting a document in a few places and copying the rest.

use crate::json::Span;
use alloc::vec::Vec;

/// Appends `bytes` to `out` with each span of `edits` replaced; all other bytes stay as they are.
///
/// Edits come in any order and must not overlap; one that overlaps an earlier place, or reaches
/// out of `bytes`, is left out. An empty span inserts; several at one place insert in their order.
pub fn splice(out: &mut Vec<u8>, bytes: &[u8], edits: &[(Span, &[u8])]) {
    let added: usize = edits.iter().map(|(_, new)| new.len()).sum();
    out.reserve(bytes.len().saturating_add(added));
    let mut copied = 0;
    // Edits are few, so looking for the next one each time is cheaper than sorting a copy.
    let mut last = None;
    loop {
        let rank = |&(index, (span, _)): &(usize, &(Span, &[u8]))| (span.start, span.end, index);
        let later = edits.iter().enumerate().filter(|edit| last < Some(rank(edit)));
        let Some(next) = later.min_by_key(rank) else { break };
        last = Some(rank(&next));
        let (span, new) = *next.1;
        let (start, end) = (span.start as usize, span.end as usize);
        let fits = copied <= start && start <= end && end <= bytes.len();
        debug_assert!(fits, "{span:?} overlaps another edit or is outside the document");
        if fits {
            out.extend_from_slice(bytes.get(copied..start).unwrap_or_default());
            out.extend_from_slice(new);
            copied = end;
        }
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
}

/// Like [`splice`], with every `\n` and `\r` in what is appended replaced by a blank.
///
/// In a valid document they stand between tokens only, so it means the same and is one line.
pub fn write_line_safe(out: &mut Vec<u8>, bytes: &[u8], edits: &[(Span, &[u8])]) {
    let before = out.len();
    splice(out, bytes, edits);
    for byte in out.get_mut(before..).unwrap_or_default() {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
