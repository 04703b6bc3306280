//! Closing (RFC 6455 §5.5.1, §7.4): codes, and what is in a close frame.
//!
//! Not the closing handshake: who answers whom, and when the connection is cut, is the caller's.

use super::error::WsError;
use alloc::borrow::Cow;
use alloc::string::String;

/// The work is done.
pub const NORMAL: u16 = 1000;
/// The server shuts down, or the client leaves.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer sent a kind of message that is not taken here.
pub const UNSUPPORTED: u16 = 1003;
/// A message is not what its kind says, such as text that is not UTF-8.
pub const BAD_PAYLOAD: u16 = 1007;
/// A message breaks a rule that has no code of its own.
pub const POLICY: u16 = 1008;
/// A message is too long.
pub const TOO_LONG: u16 = 1009;
/// The server failed.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server is overloaded; come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// What a close frame says, if it says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close<'i> {
    /// The code, one that [`is_close_code`] allows.
    pub code: u16,
    /// For people; often empty.
    pub reason: Cow<'i, str>,
}

/// Whether a close frame may carry this code. The others are reserved, or for use inside a program
/// (RFC 6455 §7.4.1 and the IANA registry).
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads the payload of a close frame.
pub(super) fn decode(payload: Cow<'_, [u8]>) -> Result<Option<Close<'_>>, WsError> {
    let code = match &*payload {
        [] => return Ok(None),
        [_] => return Err(WsError::CloseCodeCut),
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
    };
    if !is_close_code(code) {
        return Err(WsError::BadCloseCode(code));
    }
    let reason = match payload {
        Cow::Borrowed(bytes) => {
            let reason = core::str::from_utf8(bytes.get(2..).unwrap_or_default());
            reason.map(Cow::Borrowed).map_err(|_| WsError::CloseReasonNotUtf8)
        }
        Cow::Owned(bytes) => {
            let reason = String::from_utf8(bytes.get(2..).unwrap_or_default().into());
            reason.map(Cow::Owned).map_err(|_| WsError::CloseReasonNotUtf8)
        }
    };
    Ok(Some(Close { code, reason: reason? }))
}
