//! Which era does a message belong to, and what would it be in the other?
//!
//! The order of the questions is that of MCP 2026-07-28, basic/versioning: per-request metadata
//! beats everything, so that a modern `initialize` is a modern (and unknown) method.

mod object;
pub mod subscription;
pub mod to_legacy;
pub mod to_modern;

use wire::rpc::Envelope;

use crate::message::{Era, Revision};
use crate::refusal::Refusal;

/// The era of a message in a POST with this `MCP-Protocol-Version`.
pub fn classify(bytes: &[u8], envelope: &Envelope, header: Option<&[u8]>) -> Result<Era, Refusal> {
    if envelope.meta_version.is_some() {
        return Ok(Era::Modern);
    }
    let Some(header) = header else { return Ok(Era::Legacy) };
    if envelope.method.is_some_and(|method| method.eq(bytes, "initialize")) {
        return Ok(Era::Legacy);
    }
    match Revision::parse(header) {
        Some(revision) => Ok(revision.era()),
        // Revisions are dates: a later one is modern as well.
        None if is_date(header) && Revision::V2026_07_28.name().as_bytes() < header => {
            Ok(Era::Modern)
        }
        None => Err(Refusal::Version),
    }
}

fn is_date(text: &[u8]) -> bool {
    text.len() == 10 && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
}
