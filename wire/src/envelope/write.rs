//! Replies in the predecessor's envelopes. The message's bytes go in as they are.

use crate::json;
use alloc::vec::Vec;

/// What stands before a message in a reply of the 16-byte dialect of TCP.
pub const PAYLOAD_HEAD: &[u8] = b"{\"mcp_payload\":";

/// What stands behind the message in every reply.
pub const PAYLOAD_END: &[u8] = b"}";

/// Appends what stands before the message in a reply for WebSocket; the message and
/// [`PAYLOAD_END`] follow. `id` is a JSON token; none becomes `null`. `timestamp` is in the form of
/// RFC 3339.
pub fn write_reply_head(out: &mut Vec<u8>, id: Option<&[u8]>, timestamp: &str) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.unwrap_or(b"null"));
    out.extend_from_slice(b",\"timestamp\":");
    json::write_string(out, timestamp);
    out.extend_from_slice(b",\"source\":\"gateway\",\"mcp_payload\":");
}
