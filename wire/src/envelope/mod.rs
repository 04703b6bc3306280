//! The predecessor's envelopes: what stands around a JSON-RPC message, and where the message is.
//!
//! `{"id":…,"target_namespace":…,"auth_token":…,"mcp_payload":…}` over WebSocket, HTTP and the
//! 16-byte dialect of TCP; `{"auth_token":…,"message":…}` over the 12-byte dialect. The message is
//! found as a span and never encoded again. `timestamp` and `source` may be anything or absent.
//!
//! Not a JSON-RPC reader: [`crate::rpc`] looks at the message. What two readers could take for
//! different messages is refused: see [`EnvelopeError`].

mod write;
#[cfg(test)]
mod tests;

pub use crate::json::{JsonError, Span, Text};
pub use write::{PAYLOAD_END, PAYLOAD_HEAD, write_reply_head};

use crate::json::Cursor;
use crate::rpc::looks_like;
use alloc::vec::Vec;
use core::fmt;

/// What stands around the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing: the document is the message, or a batch.
    Bare,
    /// The wrapper with `message`.
    Wrapped,
    /// The envelope with `mcp_payload`.
    Enveloped,
}

/// A document taken apart. Spans are of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What stands around the message.
    pub form: Form,
    /// The message.
    pub message: Span,
    /// The envelope's own id, any value. In [`Form::Bare`] it is the message's.
    pub id: Option<Span>,
    /// Where to.
    pub target_namespace: Option<Text>,
    /// Who says so.
    pub auth_token: Option<Text>,
}

/// Why a document is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not JSON.
    Json(JsonError),
    /// A key that is read stands twice.
    DuplicateKey(&'static str),
    /// A key in another letter case, where the predecessor would read it.
    CaseVariant(&'static str),
    /// A member that must be a string, or absent or `null`.
    NotText(&'static str),
    /// Members of more than one form.
    Ambiguous,
    /// An object in which no message is to be found.
    NoPayload,
}

/// Reads a document. The message itself is only known to be JSON.
pub fn read(bytes: &[u8], depth_max: u16) -> Result<Envelope, EnvelopeError> {
    const KEYS: [&str; 6] =
        ["id", "target_namespace", "auth_token", "mcp_payload", "message", "jsonrpc"];
    let whole = Span::new(0, bytes.len());
    let bare = Envelope {
        form: Form::Bare,
        message: whole,
        id: None,
        target_namespace: None,
        auth_token: None,
    };
    if !bytes.trim_ascii_start().starts_with(b"{") {
        crate::json::validate(bytes, depth_max)?;
        return Ok(bare);
    }
    let [id, namespace, token, payload, message, version] = members(bytes, depth_max, KEYS)?;
    let not_null = |span: &Span| span.get(bytes) != b"null";
    let (payload, message) = (payload.filter(not_null), message.filter(not_null));
    let (form, message) = match (payload, message, version) {
        (Some(payload), None, None) => (Form::Enveloped, payload),
        (None, Some(message), None) => (Form::Wrapped, message),
        (None, None, Some(_)) => (Form::Bare, whole),
        (None, None, None) => return Err(EnvelopeError::NoPayload),
        _ => return Err(EnvelopeError::Ambiguous),
    };
    let target_namespace = string(bytes, namespace, "target_namespace")?;
    let auth_token = string(bytes, token, "auth_token")?;
    Ok(Envelope { form, message, id, target_namespace, auth_token })
}

/// The values of some members of the object that `bytes` are, `null` included; for what stands in
/// `params`, such as a token. Proves that all of it is JSON.
pub fn members<const N: usize>(
    bytes: &[u8],
    depth_max: u16,
    keys: [&'static str; N],
) -> Result<[Option<Span>; N], EnvelopeError> {
    let mut cursor = Cursor::new(bytes, depth_max)?;
    cursor.enter_object()?;
    let mut found = [None; N];
    while let Some(key) = cursor.next_key()? {
        let value = cursor.value()?;
        let spelling = key.decode(bytes);
        let mut slots = keys.iter().zip(&mut found);
        let Some((name, slot)) = slots.find(|(name, _)| looks_like(&spelling, name)) else {
            continue;
        };
        if *spelling != *name.as_bytes() {
            return Err(EnvelopeError::CaseVariant(name));
        }
        if slot.replace(value).is_some() {
            return Err(EnvelopeError::DuplicateKey(name));
        }
    }
    cursor.finish()?;
    Ok(found)
}

/// A value as a string; `None` when it is absent or `null`.
pub fn string(
    bytes: &[u8],
    value: Option<Span>,
    name: &'static str,
) -> Result<Option<Text>, EnvelopeError> {
    let Some(value) = value else { return Ok(None) };
    match value.get(bytes) {
        b"null" => Ok(None),
        [b'"', inner @ .., b'"'] => {
            let has_escapes = memchr::memchr(b'\\', inner).is_some();
            let inner = Span { start: value.start + 1, end: value.end - 1 };
            Ok(Some(Text { inner, has_escapes }))
        }
        _ => Err(EnvelopeError::NotText(name)),
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(err) => write!(f, "send valid JSON: {err}"),
            Self::DuplicateKey(key) => write!(f, "send the key `{key}` only once"),
            Self::CaseVariant(key) => write!(f, "spell the key `{key}` exactly so"),
            Self::NotText(key) => write!(f, "make `{key}` a string, or leave it out"),
            Self::Ambiguous => {
                f.write_str("send one of `mcp_payload`, `message` and `jsonrpc` in an object")
            }
            Self::NoPayload => f.write_str("put the message into `mcp_payload`"),
        }
    }
}

impl core::error::Error for EnvelopeError {}

impl From<JsonError> for EnvelopeError {
    fn from(err: JsonError) -> Self {
        Self::Json(err)
    }
}

/// The properties that hold for every input. The fuzzer and the corpus test both call it.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    const DEPTH: u16 = 64;
    let valid = crate::json::validate(bytes, DEPTH);
    let envelope = match read(bytes, DEPTH) {
        Err(EnvelopeError::Json(err)) => return assert_eq!(Err(err), valid),
        Err(_) => return,
        Ok(envelope) => envelope,
    };
    assert_eq!(valid, Ok(()), "an envelope came out of what is not JSON");
    let message = envelope.message.get(bytes);
    assert_eq!(crate::json::validate(message, DEPTH), Ok(()), "the message is a document");
    let mut reply = Vec::new();
    let id = envelope.id.map(|id| id.get(bytes));
    write_reply_head(&mut reply, id, "2025-01-01T00:00:00Z");
    reply.extend_from_slice(message);
    reply.extend_from_slice(PAYLOAD_END);
    let again = read(&reply, DEPTH + 1).map(|reply| (reply.form, reply.message, reply.id));
    let Ok((form, span, again_id)) = again else {
        return assert_eq!(message.trim_ascii(), b"null", "a reply cannot be read: {again:?}");
    };
    assert_eq!((form, span.get(&reply)), (Form::Enveloped, message.trim_ascii()));
    assert_eq!(again_id.map(|id| id.get(&reply)), Some(id.unwrap_or(b"null")));
}
