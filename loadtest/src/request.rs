//! The bytes of MCP requests over HTTP.

use std::fmt;

use wire::http1::{HEAD_END, write_header, write_length, write_request_line};
use wire::json::write_string;

use crate::target::Target;

/// The newest revision with sessions.
pub const LEGACY: &str = "2025-11-25";
/// The revision without.
pub const MODERN: &str = "2026-07-28";

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// The two kinds of MCP over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize`, then everything in its session.
    Legacy,
    /// Every request stands alone and carries `_meta`.
    Modern,
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => LEGACY,
            Self::Modern => MODERN,
        })
    }
}

/// Appends a request with its body; an empty body is none.
pub fn write(
    out: &mut Vec<u8>,
    target: &Target,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    write_request_line(out, method, &target.path);
    write_header(out, "host", target.host.as_bytes());
    for (name, value) in headers {
        write_header(out, name, value.as_bytes());
    }
    if !body.is_empty() {
        write_length(out, body.len() as u64);
    }
    out.extend_from_slice(HEAD_END);
    out.extend_from_slice(body);
}

/// Appends a POST of one message; headers come besides those that each POST has.
pub fn write_post(out: &mut Vec<u8>, target: &Target, headers: &[(&str, &str)], body: &[u8]) {
    let mut all = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    all.extend_from_slice(headers);
    write(out, target, "POST", &all, body);
}

/// The headers of a request in a session.
pub fn session_headers<'a>(session: Option<&'a str>, version: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![("mcp-protocol-version", version)];
    headers.extend(session.map(|session| ("mcp-session-id", session)));
    headers
}

/// The body of an `initialize` with id 0.
pub fn initialize(version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"loadtest","version":"1"}}}}}}"#
    )
}

/// The body of the notification behind it.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The body of a legacy `tools/call`; arguments and id are JSON.
pub fn call(tool: &str, arguments: &str, id: &str) -> String {
    let mut name = Vec::new();
    write_string(&mut name, tool);
    let name = String::from_utf8_lossy(&name);
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":{name},"arguments":{arguments}}}}}"#
    )
}

/// The digits of every id that [`Echo`] writes, so that all its requests have one length.
const ID_FIRST: u64 = 1_000_000_000;

/// Writes `tools/call` requests of `echo` that differ in id and tag only; made for speed.
#[derive(Clone, Debug)]
pub struct Echo {
    head: Vec<u8>,
    before_tag: &'static str,
    after_tag: Vec<u8>,
    body_len: usize,
}

impl Echo {
    /// Bodies have `body_len` bytes, or as few as possible if that is more.
    pub fn new(target: &Target, era: Era, session: Option<&str>, body_len: usize) -> Self {
        let before_tag = r#","method":"tools/call","params":{"name":"echo","arguments":{"text":""#;
        let tail = match era {
            Era::Legacy => r#""}}}"#.to_owned(),
            Era::Modern => format!(r#""}},{META}}}}}"#),
        };
        let front_len = r#"{"jsonrpc":"2.0","id":1000000000"#.len();
        let least = front_len + before_tag.len() + TAG_LEN + tail.len();
        let body_len = body_len.max(least);
        let mut after_tag = vec![b'x'; body_len - least];
        after_tag.extend_from_slice(tail.as_bytes());

        let version = era.to_string();
        let mut headers = session_headers(session, &version);
        if era == Era::Modern {
            headers.extend([("mcp-method", "tools/call"), ("mcp-name", "echo")]);
        }
        // The length stands in the head; the body is written for each request.
        let mut head = Vec::new();
        write_post(&mut head, target, &headers, &vec![b' '; body_len]);
        head.truncate(head.len() - body_len);
        Self { head, before_tag, after_tag, body_len }
    }

    /// The bytes in each body.
    pub const fn body_len(&self) -> usize {
        self.body_len
    }

    /// Appends the request with this number, below 9,000,000,000.
    pub fn write(&self, out: &mut Vec<u8>, conn: usize, number: u64) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        out.extend_from_slice(&id_text(number));
        out.extend_from_slice(self.before_tag.as_bytes());
        out.extend_from_slice(&tag(conn, number));
        out.extend_from_slice(&self.after_tag);
    }
}

const TAG_LEN: usize = 16;

/// The id of the request with this number, as it stands in the JSON.
pub fn id_text(number: u64) -> [u8; 10] {
    digits((ID_FIRST + number) % 10_000_000_000)
}

/// What the answer to this request of this connection has in its text, and no other answer.
pub fn tag(conn: usize, number: u64) -> [u8; TAG_LEN] {
    let mut tag = [b'-'; TAG_LEN];
    let (front, back) = tag.split_at_mut(5);
    front.copy_from_slice(&digits::<5>(conn as u64 % 100_000));
    if let Some(back) = back.get_mut(1..) {
        back.copy_from_slice(&digits::<10>(number % 10_000_000_000));
    }
    tag
}

fn digits<const N: usize>(mut number: u64) -> [u8; N] {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::rpc;

    #[test]
    fn an_echo_request_has_the_length_that_was_asked_for() {
        let target: Target = "http://127.0.0.1:1/mcp".parse().unwrap();
        for (era, len, expected) in [(Era::Legacy, 200, 200), (Era::Modern, 1000, 1000)] {
            let echo = Echo::new(&target, era, None, len);
            let mut out = Vec::new();
            echo.write(&mut out, 7, 42);
            let body = &out[out.len() - echo.body_len()..];
            assert_eq!(body.len(), expected);
            assert!(body.starts_with(b"{"), "{}", String::from_utf8_lossy(body));
            let limits = rpc::Limits { depth_max: 9, len_max: 2000 };
            let envelope = rpc::scan(body, limits).unwrap();
            assert_eq!(envelope.id.unwrap().get(body), b"1000000042");
            assert!(memchr::memmem::find(body, b"00007-0000000042").is_some());
        }
    }
}
