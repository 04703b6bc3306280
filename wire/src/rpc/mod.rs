//! The JSON-RPC 2.0 envelope as MCP uses it: what a router must know about a message.
//!
//! One pass proves that the document is JSON and picks the facts up on the way, as spans. Key
//! order is free; keys count by their value, not their spelling (`"\u0069d"` is `id`). Nothing is
//! converted or copied, so ids keep their digits and unknown members survive.
//!
//! A message that two readers could take for different messages is refused: a key that is read
//! must not stand twice, nor in another letter case where a Go server would read it.

mod error;
mod key;
mod scan;
mod splice;
#[cfg(test)]
mod tests;

pub use crate::json::{Span, Text};
pub use error::RpcError;
pub(crate) use key::looks_like;
pub use scan::scan;
pub use splice::{splice, write_line_safe};

use crate::json;
use alloc::vec::Vec;

/// What a message is, by the members it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A method and an id.
    Request,
    /// A method and no id.
    Notification,
    /// A result and an id.
    Response,
    /// An error; its id may be absent or `null`.
    ErrorResponse,
}

/// What a reader is willing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many containers may be nested, the message itself included; at most
    /// [`json::DEPTH_MAX`] whatever it says.
    pub depth_max: u16,
    /// Bytes in a document.
    pub len_max: usize,
}

/// The facts of one message. Spans are of the document that was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What the message is.
    pub kind: Kind,
    /// The id's token, quotes included. `null` only in an [`Kind::ErrorResponse`].
    pub id: Option<Span>,
    /// The method; present in requests and notifications.
    pub method: Option<Text>,
    /// The whole `params` object.
    pub params: Option<Span>,
    /// `params.name`, when a string.
    pub name: Option<Text>,
    /// `params.uri`, when a string.
    pub uri: Option<Text>,
    /// `params.cursor`, when a string.
    pub cursor: Option<Text>,
    /// `params.taskId`, when a string.
    pub task_id: Option<Text>,
    /// `params.protocolVersion`, when a string: what `initialize` asks for.
    pub protocol_version: Option<Text>,
    /// `params._meta.progressToken`, the token of a string or an integer.
    pub progress_token: Option<Span>,
    /// `params.progressToken`, likewise: what `notifications/progress` is about.
    pub notified_token: Option<Span>,
    /// `params.requestId`, likewise: what `notifications/cancelled` is about.
    pub request_id: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`: the message is modern.
    pub meta_version: Option<Text>,
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]`, any value.
    pub meta_capabilities: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/clientInfo"]`, any value.
    pub meta_client_info: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/logLevel"]`, any value.
    pub meta_log_level: Option<Span>,
    /// `_meta["io.modelcontextprotocol/subscriptionId"]` of `params` or `result`, any value.
    pub subscription_id: Option<Span>,
    /// The whole `result`, any value.
    pub result: Option<Span>,
    /// The whole `error`, any value.
    pub error: Option<Span>,
    /// `error.code`, when an integer that fits.
    pub error_code: Option<i64>,
    /// `result.protocolVersion`, when a string: what `initialize` is answered with.
    pub result_version: Option<Text>,
    /// Whether the document has a raw `\n` or `\r`, always outside strings. Such a document goes
    /// onto a stream framed by newlines through [`write_line_safe`] only.
    pub has_line_breaks: bool,
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a batch is rare and a box would allocate")]
pub enum Document {
    /// One message.
    Message(Envelope),
    /// A valid array of at least one element. [`json::elements`] splits it; each element is still
    /// to be scanned.
    Batch,
}

/// Reads a document that may be a batch.
pub fn document(bytes: &[u8], limits: Limits) -> Result<Document, RpcError> {
    if !bytes.trim_ascii_start().starts_with(b"[") {
        return scan(bytes, limits).map(Document::Message);
    }
    if limits.len_max < bytes.len() {
        return Err(RpcError::TooLong { len: bytes.len(), len_max: limits.len_max });
    }
    // JSON-RPC 2.0 §6: a batch that is not JSON gets one answer, so all of it is read before any
    // of it is acted on.
    let mut count = 0_usize;
    for element in json::elements(bytes, limits.depth_max) {
        element?;
        count += 1;
    }
    if count == 0 { Err(RpcError::EmptyBatch) } else { Ok(Document::Batch) }
}

/// The properties that hold for every input. The fuzzer and the corpus test both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let limits = Limits { depth_max: 128, len_max: bytes.len() };
    let valid = json::validate(bytes, 128);
    let envelope = match scan(bytes, limits) {
        Err(RpcError::Json(err)) => return assert_eq!(Err(err), valid, "scan and validate differ"),
        Err(_) => return,
        Ok(envelope) => envelope,
    };
    assert_eq!(valid, Ok(()), "an envelope came out of what is not JSON");
    let mut copy = Vec::new();
    splice(&mut copy, bytes, &[]);
    assert_eq!(copy, bytes, "no edit, no change");
    copy.clear();
    write_line_safe(&mut copy, bytes, &[]);
    assert!(!copy.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "a line break got through");
    let safe = Envelope { has_line_breaks: false, ..envelope };
    assert_eq!(scan(&copy, limits), Ok(safe), "line breaks were not between tokens");
    assert_eq!(copy != bytes, envelope.has_line_breaks, "line breaks were miscounted");
    let Some(id) = envelope.id else { return };
    copy.clear();
    splice(&mut copy, bytes, &[(id, b"\"another id\"")]);
    let renamed = scan(&copy, Limits { len_max: usize::MAX, ..limits });
    let new_id = renamed.ok().and_then(|envelope| envelope.id).map(|id| id.get(&copy));
    assert_eq!(new_id, Some(&b"\"another id\""[..]), "the id was not where the span says");
}
