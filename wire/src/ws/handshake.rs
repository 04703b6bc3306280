//! The opening handshake (RFC 6455 §4), both ends: what a request asks for, and what the answer to
//! one comes to.
//!
//! Not HTTP: heads are decoded and framed by [`http1`](crate::http1), and whether a client may
//! connect at all (its origin, its credentials) is the caller's to decide.

use super::accept::{self, ACCEPT_LEN};
use super::extension::{self, DeflateParams, split};
use crate::http1::{
    Body, RequestHead, ResponseHead, Version, is_token, write_header, write_status_line,
};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

const VERSION: &str = "13";

/// A request that can become a WebSocket connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance<'p> {
    accept: [u8; ACCEPT_LEN],
    /// The first subprotocol of the client's that we have, if there is one.
    pub protocol: Option<&'p str>,
    /// What was agreed on compression.
    pub deflate: Option<DeflateParams>,
    /// The value of the field that says so.
    extensions: Option<String>,
}

/// Why a request cannot become a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The method is not GET.
    NotGet,
    /// The version is not HTTP/1.1.
    NotHttp11,
    /// The request has content.
    HasBody,
    /// `Upgrade` does not name `websocket`, or `Connection` does not name `upgrade`.
    NoUpgrade,
    /// `Sec-WebSocket-Version` is not 13, or is repeated.
    BadVersion,
    /// `Sec-WebSocket-Key` is missing, repeated, or not 16 bytes in base64.
    BadKey,
    /// `Sec-WebSocket-Protocol` has something in it that is no token.
    BadProtocol,
}

/// What a server has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected<'p> {
    /// The subprotocol, one of those that were offered.
    pub protocol: Option<&'p str>,
    /// What was agreed on compression.
    pub deflate: Option<DeflateParams>,
}

/// Why a response does not open a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// Another status than 101, this one.
    NotSwitching(u16),
    /// `Upgrade` is not `websocket`, or `Connection` does not name `upgrade`.
    NoUpgrade,
    /// `Sec-WebSocket-Accept` is not for this request.
    BadAccept,
    /// `Sec-WebSocket-Protocol` is repeated, or not one of those that were offered.
    BadProtocol,
    /// `Sec-WebSocket-Extensions` has something in it that was not offered.
    BadExtension,
}

/// Reads a client's handshake. `protocols` are the subprotocols that we have, and `deflate` is how
/// we want to compress, if we do.
pub fn accept_request<'p>(
    head: &RequestHead<'_, '_>,
    protocols: &[&'p str],
    deflate: Option<DeflateParams>,
) -> Result<Acceptance<'p>, RequestError> {
    if head.method != "GET" {
        return Err(RequestError::NotGet);
    }
    if head.version != Version::Http11 {
        return Err(RequestError::NotHttp11);
    }
    // What follows are frames; a body in between would have them read from two places.
    if head.body != Body::None {
        return Err(RequestError::HasBody);
    }
    let values = |name| head.headers.get_all(name);
    if !names(values("upgrade"), b"websocket") || !names(values("connection"), b"upgrade") {
        return Err(RequestError::NoUpgrade);
    }
    if only(values("sec-websocket-version")) != Some(VERSION.as_bytes()) {
        return Err(RequestError::BadVersion);
    }
    let key = only(values("sec-websocket-key")).and_then(accept::decode_key);
    let accept = accept::accept(key.ok_or(RequestError::BadKey)?);
    let mut offered = values("sec-websocket-protocol").flat_map(|value| split(value, b','));
    if !offered.all(is_token) {
        return Err(RequestError::BadProtocol);
    }
    let mut offered = values("sec-websocket-protocol").flat_map(|value| split(value, b','));
    let protocol = offered
        .find_map(|name| protocols.iter().find(|protocol| protocol.as_bytes() == name).copied());
    let agreed =
        deflate.and_then(|wanted| extension::choose(values("sec-websocket-extensions"), wanted));
    let (deflate, extensions) = agreed.unzip();
    Ok(Acceptance { accept, protocol, deflate, extensions })
}

impl Acceptance<'_> {
    /// Appends the status line and the fields of the answer. The caller's own fields and
    /// [`HEAD_END`](crate::http1::HEAD_END) follow.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        write_status_line(out, 101);
        write_header(out, "upgrade", b"websocket");
        write_header(out, "connection", b"Upgrade");
        write_header(out, "sec-websocket-accept", &self.accept);
        if let Some(protocol) = self.protocol {
            write_header(out, "sec-websocket-protocol", protocol.as_bytes());
        }
        if let Some(extensions) = &self.extensions {
            write_header(out, "sec-websocket-extensions", extensions.as_bytes());
        }
    }
}

impl RequestError {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotGet => 405,
            Self::NotHttp11 | Self::HasBody | Self::BadKey | Self::BadProtocol => 400,
            Self::NoUpgrade | Self::BadVersion => 426,
        }
    }

    /// The fields that belong to the answer, by name and value.
    pub const fn fields(self) -> &'static [(&'static str, &'static str)] {
        const UPGRADE: (&str, &str) = ("upgrade", "websocket");
        match self {
            Self::NotGet => &[("allow", "GET")],
            // RFC 9110 §15.5.22 and RFC 6455 §4.4.
            Self::NoUpgrade => &[UPGRADE],
            Self::BadVersion => &[UPGRADE, ("sec-websocket-version", VERSION)],
            Self::NotHttp11 | Self::HasBody | Self::BadKey | Self::BadProtocol => &[],
        }
    }
}

/// Appends the fields of a client's handshake. The caller writes the rest of the head: the request
/// line of a GET, the host, its own fields, and the end. `nonce` is random and used once.
pub fn write_request_fields(
    out: &mut Vec<u8>,
    nonce: &[u8; 16],
    protocols: &[&str],
    deflate: Option<DeflateParams>,
) {
    write_header(out, "upgrade", b"websocket");
    write_header(out, "connection", b"Upgrade");
    write_header(out, "sec-websocket-version", VERSION.as_bytes());
    write_header(out, "sec-websocket-key", &accept::key(nonce));
    if !protocols.is_empty() {
        write_header(out, "sec-websocket-protocol", protocols.join(", ").as_bytes());
    }
    if let Some(deflate) = deflate {
        write_header(out, "sec-websocket-extensions", extension::offer(deflate).as_bytes());
    }
}

/// Reads the answer to [`write_request_fields`], which was called with the same arguments.
pub fn accept_response<'p>(
    head: &ResponseHead<'_, '_>,
    nonce: &[u8; 16],
    protocols: &[&'p str],
    deflate: Option<DeflateParams>,
) -> Result<Connected<'p>, ResponseError> {
    if head.status != 101 {
        return Err(ResponseError::NotSwitching(head.status));
    }
    let values = |name| head.headers.get_all(name);
    // RFC 6455 §4.1: this field is one name, not a list.
    let upgrade = only(values("upgrade")).unwrap_or_default();
    if !upgrade.eq_ignore_ascii_case(b"websocket") || !names(values("connection"), b"upgrade") {
        return Err(ResponseError::NoUpgrade);
    }
    let accept = accept::accept(&accept::key(nonce));
    if only(values("sec-websocket-accept")) != Some(&accept) {
        return Err(ResponseError::BadAccept);
    }
    let mut chosen = values("sec-websocket-protocol");
    let protocol = match (chosen.next(), chosen.next()) {
        (None, _) => None,
        (Some(name), None) => {
            let protocol = protocols.iter().find(|protocol| protocol.as_bytes() == name);
            Some(*protocol.ok_or(ResponseError::BadProtocol)?)
        }
        (Some(_), Some(_)) => return Err(ResponseError::BadProtocol),
    };
    let mut elements = values("sec-websocket-extensions").flat_map(|value| split(value, b','));
    let deflate = match (elements.next(), elements.next()) {
        (None, _) => None,
        (Some(element), None) => {
            let accepted = deflate.and_then(|wanted| extension::accept(element, wanted));
            Some(accepted.ok_or(ResponseError::BadExtension)?)
        }
        (Some(_), Some(_)) => return Err(ResponseError::BadExtension),
    };
    Ok(Connected { protocol, deflate })
}

/// Whether one of the lists in `values` has this name.
fn names<'a>(mut values: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> bool {
    values.any(|value| split(value, b',').any(|part| part.eq_ignore_ascii_case(name)))
}

/// The value of a field that must be there once.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next();
    value.filter(|_| values.next().is_none())
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotGet => "open a WebSocket with GET",
            Self::NotHttp11 => "open a WebSocket in HTTP/1.1",
            Self::HasBody => "open a WebSocket with a request that has no content",
            Self::NoUpgrade => "send Upgrade: websocket and Connection: Upgrade",
            Self::BadVersion => "send Sec-WebSocket-Version: 13",
            Self::BadKey => "send one Sec-WebSocket-Key, of 16 bytes in base64",
            Self::BadProtocol => "send tokens in Sec-WebSocket-Protocol",
        })
    }
}

impl core::error::Error for RequestError {}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSwitching(status) => return write!(f, "answer with status 101, not {status}"),
            Self::NoUpgrade => "answer with Upgrade: websocket and Connection: Upgrade",
            Self::BadAccept => "answer with the Sec-WebSocket-Accept of the request",
            Self::BadProtocol => "answer with one of the subprotocols that were offered, or none",
            Self::BadExtension => "answer with an extension that was offered, or none",
        })
    }
}

impl core::error::Error for ResponseError {}
