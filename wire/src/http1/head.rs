//! Request and response heads (RFC 9112 §2 to §6): bytes to fields and the content's framing.
//!
//! Not a message: the content is [`BodyDecoder`](super::BodyDecoder)'s. `httparse` stops at the
//! first byte that cannot be part of a head, so an error does not wait for the rest. What it lets
//! through is checked here once the head is whole: bare LF, empty lines in front, the target, and
//! every field that says how long the message is.

use super::error::HeadError;
use super::fields::{HeaderSlots, Headers, is_token_byte};
use super::framing::Framing;
use crate::Decoded;
use httparse::{Header, Status};

/// How long a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a head, with the blank line.
    pub head_len_max: usize,
    /// Bytes in a request target.
    pub target_len_max: usize,
}

/// The version a message says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the content behind a head is framed (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is no content; this is also what a length of zero becomes.
    None,
    /// This many bytes, never zero.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// Everything until the peer closes; only in responses.
    UntilClose,
}

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'h, 'a> {
    /// The method, a token; letters keep their case because methods differ by it.
    pub method: &'a str,
    /// `/path?query`, an absolute `http(s)://` URI whose authority is the `Host`, or `*`. ASCII.
    pub target: &'a str,
    /// The version.
    pub version: Version,
    /// The fields.
    pub headers: Headers<'h, 'a>,
    /// What follows the head; never [`Body::UntilClose`].
    pub body: Body,
    /// Whether the client means to send another request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'h, 'a> {
    /// The status, 100 to 599.
    pub status: u16,
    /// The version.
    pub version: Version,
    /// The fields.
    pub headers: Headers<'h, 'a>,
    /// What follows the head.
    pub body: Body,
    /// Whether the connection can carry another request after this response.
    pub keep_alive: bool,
}

/// Reads the request head at the front of `bytes`. `used` counts the blank line that ends it, and
/// the one empty line that may come before it.
pub fn request<'h, 'a>(
    bytes: &'a [u8],
    slots: &'h mut HeaderSlots<'a>,
    limits: Limits,
) -> Result<Decoded<RequestHead<'h, 'a>>, HeadError> {
    let window = bytes.get(..limits.head_len_max).unwrap_or(bytes);
    // RFC 9112 §2.2: ignore one empty line before a request line. `httparse` ignores many.
    let (skipped, head) = match window {
        [b'\r', b'\n', head @ ..] => (2, head),
        _ => (0, window),
    };
    match head.first() {
        Some(b'\n') => return Err(HeadError::BadLineEnd),
        Some(b'\r') if skipped != 0 => return Err(HeadError::BadLineEnd),
        Some(_) | None => {}
    }
    let mut parsed = httparse::Request::new(&mut []);
    let result = parsed.parse_with_uninit_headers(head, &mut slots.slots);
    let Ok(Status::Complete(head_len)) = result else {
        // First, so that the answer is the same whether the target came in one piece or two; but
        // what was wrong before its last allowed byte stays wrong.
        let seen = target_len_seen(head);
        if limits.target_len_max < seen {
            let start = head.iter().position(|&byte| byte == b' ').unwrap_or_default();
            let allowed = head.get(..start + 1 + limits.target_len_max).unwrap_or(head);
            let mut parsed = httparse::Request::new(&mut []);
            let mut slots = HeaderSlots::new();
            return match parsed.parse_with_uninit_headers(allowed, &mut slots.slots) {
                Err(_) => Err(HeadError::BadRequestLine),
                Ok(_) => Err(HeadError::TargetTooLong),
            };
        }
        let version = head.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
        return unfinished(result, window, version, limits).map(|()| Decoded::Incomplete);
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HeadError::BadRequestLine);
    };
    if limits.target_len_max < target.len() {
        return Err(HeadError::TargetTooLong);
    }
    check_line_ends(head.get(..head_len).unwrap_or(head))?;
    let version = version_of(parsed.version);
    let fields = RequestFields::read(parsed.headers, version)?;
    check_target(method, target, fields.host)?;
    let body = fields.framing.request_body(version)?;
    let keep_alive = fields.framing.keep_alive(version);
    let expects_continue = fields.expects_continue && body != Body::None;
    let headers = Headers { fields: parsed.headers };
    let item = RequestHead { method, target, version, headers, body, keep_alive, expects_continue };
    Ok(Decoded::Item { item, used: skipped + head_len })
}

/// Reads the response head at the front of `bytes`; `used` counts the blank line that ends it.
///
/// `request_method_is_head` is about the request that this answers: its response has no content,
/// whatever the fields say.
pub fn response<'h, 'a>(
    bytes: &'a [u8],
    slots: &'h mut HeaderSlots<'a>,
    limits: Limits,
    request_method_is_head: bool,
) -> Result<Decoded<ResponseHead<'h, 'a>>, HeadError> {
    let window = bytes.get(..limits.head_len_max).unwrap_or(bytes);
    if let Some(b'\r' | b'\n') = window.first() {
        return Err(HeadError::BadLineEnd);
    }
    let mut parsed = httparse::Response::new(&mut []);
    let result = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        window,
        &mut slots.slots,
    );
    let Ok(Status::Complete(used)) = result else {
        return match unfinished(result, window, window, limits) {
            Ok(()) => Ok(Decoded::Incomplete),
            Err(HeadError::BadRequestLine) => Err(HeadError::BadStatusLine),
            Err(error) => Err(error),
        };
    };
    check_line_ends(window.get(..used).unwrap_or(window))?;
    // RFC 9110 §15: only these have a class, and the class says how to read the message.
    let Some(status @ 100..=599) = parsed.code else { return Err(HeadError::BadStatusLine) };
    let version = version_of(parsed.version);
    let mut framing = Framing::default();
    for field in &*parsed.headers {
        framing.see(field)?;
    }
    let has_content = !request_method_is_head && status != 304;
    let may_have_content = 200 <= status && status != 204;
    let announced = framing.response_body(version)?;
    let body = if has_content && may_have_content { announced } else { Body::None };
    // RFC 9110 §6.4.1: 1xx and 204 never have content. One that announces some may well send it,
    // so what comes next on the connection cannot be told from it.
    let in_step = may_have_content || matches!(announced, Body::None | Body::UntilClose);
    let keep_alive = framing.keep_alive(version) && body != Body::UntilClose && in_step;
    let headers = Headers { fields: parsed.headers };
    Ok(Decoded::Item { item: ResponseHead { status, version, headers, body, keep_alive }, used })
}

/// The fields that only a request has, and the framing.
struct RequestFields<'a> {
    framing: Framing<'a>,
    host: Option<&'a [u8]>,
    expects_continue: bool,
}

impl<'a> RequestFields<'a> {
    fn read(fields: &[Header<'a>], version: Version) -> Result<Self, HeadError> {
        let mut read = Self { framing: Framing::default(), host: None, expects_continue: false };
        for field in fields {
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => {
                    if read.host.is_some() || !is_host(field.value) {
                        return Err(HeadError::BadHost);
                    }
                    read.host = Some(field.value);
                }
                // RFC 9110 §10.1.1: not in HTTP/1.0.
                6 if version == Version::Http11 && field.name.eq_ignore_ascii_case("expect") => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(HeadError::UnknownExpectation);
                    }
                    read.expects_continue = true;
                }
                _ => read.framing.see(field)?,
            }
        }
        // RFC 9112 §3.2: a server must refuse an HTTP/1.1 request without exactly one Host.
        if read.host.is_none() && version == Version::Http11 {
            return Err(HeadError::BadHost);
        }
        Ok(read)
    }
}

/// What to do about a head that `httparse` did not finish: `Ok` is to wait for more bytes.
/// `version` is where the version stands in `window`.
fn unfinished(
    result: httparse::Result<usize>,
    window: &[u8],
    version: &[u8],
    limits: Limits,
) -> Result<(), HeadError> {
    match result {
        Ok(_) => {}
        Err(httparse::Error::Version) => check_unknown_version(version)?,
        Err(httparse::Error::HeaderName) => return Err(HeadError::BadHeaderName),
        Err(httparse::Error::HeaderValue) => return Err(HeadError::BadHeaderValue),
        Err(httparse::Error::NewLine) => return Err(HeadError::BadLineEnd),
        Err(httparse::Error::Status) => return Err(HeadError::BadStatusLine),
        Err(httparse::Error::Token) => return Err(HeadError::BadRequestLine),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
    }
    if limits.head_len_max <= window.len() { Err(HeadError::HeadTooLong) } else { Ok(()) }
}

/// Tells a version we do not speak from a first line that is no HTTP; `Ok` is that both are still
/// possible.
fn check_unknown_version(text: &[u8]) -> Result<(), HeadError> {
    const SHAPE: &[u8] = b"HTTP/0.0";
    for (&want, byte) in SHAPE.iter().zip(text) {
        if *byte != want && !(want == b'0' && byte.is_ascii_digit()) {
            return Err(HeadError::BadRequestLine);
        }
    }
    match text {
        // It is one of ours; what comes behind it is wrong.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', ..] => {
            Err(HeadError::BadRequestLine)
        }
        _ if text.len() < SHAPE.len() => Ok(()),
        _ => Err(HeadError::UnsupportedVersion),
    }
}

/// Bytes of the target in a head that is not whole.
fn target_len_seen(head: &[u8]) -> usize {
    let mut rest = head.iter();
    // A method that is wrong is refused for that, wherever the input ends.
    if rest.by_ref().find(|&&byte| !is_token_byte(byte)) != Some(&b' ') {
        return 0;
    }
    rest.take_while(|&&byte| b' ' < byte && byte != 0x7f).count()
}

/// RFC 9112 §2.2 lets a recipient take a bare LF for a line end, and `httparse` does. Two parties
/// that disagree on this see different fields, so each CR needs its LF and each LF its CR.
fn check_line_ends(head: &[u8]) -> Result<(), HeadError> {
    let nexts = head.get(1..).unwrap_or_default();
    // No early return: this way the compiler checks 16 bytes at a time.
    let paired = head
        .iter()
        .zip(nexts)
        .fold(true, |paired, (&byte, &next)| paired & ((byte == b'\r') == (next == b'\n')));
    if paired { Ok(()) } else { Err(HeadError::BadLineEnd) }
}

fn version_of(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// RFC 9112 §3.2: origin-form, absolute-form, or asterisk-form for OPTIONS. There is no
/// authority-form because there is no CONNECT.
fn check_target(method: &str, target: &str, host: Option<&[u8]>) -> Result<(), HeadError> {
    // `httparse` has refused spaces and control bytes. A fragment is never sent (RFC 9110 §7.1).
    if !target.is_ascii() || memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(HeadError::BadTarget);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let Some((scheme, rest)) = target.split_once("://") else { return Err(HeadError::BadTarget) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(HeadError::BadTarget);
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default().as_bytes();
    // User information is not for servers (RFC 9110 §4.2.4); `is_host` has no `@`.
    if authority.is_empty() || !is_host(authority) {
        return Err(HeadError::BadTarget);
    }
    // RFC 9112 §3.2.2: the target wins over Host. If they differ, some other party in the chain
    // may have decided by the loser.
    match host {
        Some(host) if !host.eq_ignore_ascii_case(authority) => Err(HeadError::BadHost),
        Some(_) | None => Ok(()),
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2), without the comma that would make a list of two hosts
/// look like one. It may be empty.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'')
            || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=' | b':' | b'[' | b']')
    })
}
