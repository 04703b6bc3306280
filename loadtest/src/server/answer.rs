//! What the fake server says.
//!
//! Tools: `echo` returns its `text`; `session` returns the id of the session that the request
//! came in; `progress` takes `steps`, and reports each if the request has a progress token; `sleep`
//! never answers.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use wire::Decoded;
use wire::http1::{self, BodyDecoder, HeaderSlots, Headers, RequestHead};
use wire::json::{Cursor, Span};
use wire::rpc::{self, Envelope, Kind};

use super::{Over, Shared, Style};
use crate::request::MODERN;

const LIMITS: http1::Limits = http1::Limits { head_len_max: 64 * 1024, target_len_max: 8 * 1024 };
const RPC_LIMITS: rpc::Limits = rpc::Limits { depth_max: 64, len_max: 64 * 1024 * 1024 };

const TOOLS: &str = r#"{"tools":[{"name":"echo","inputSchema":{"type":"object","properties":{"text":{"type":"string"}}}},{"name":"session","inputSchema":{"type":"object"}},{"name":"progress","inputSchema":{"type":"object","properties":{"steps":{"type":"integer"}}}}]"#;

/// Appends the answers to all whole requests; how many bytes those have.
pub(super) fn answer_all(
    input: &[u8],
    out: &mut Vec<u8>,
    shared: &Shared,
    style: Style,
) -> Result<usize, Over> {
    let mut rest = input;
    while !rest.is_empty() {
        let slots = &mut HeaderSlots::new();
        let decoded = http1::request(rest, slots, LIMITS).map_err(|_| Over)?;
        let Decoded::Item { item: head, used } = decoded else { break };
        let after = rest.get(used..).unwrap_or_default();
        let Some(body) = whole_body(&head, after)? else { break };
        Exchange { headers: head.headers, shared, style, out }.answer(head.method, &body.data);
        rest = after.get(body.used..).unwrap_or_default();
    }
    Ok(input.len() - rest.len())
}

/// A body without its framing.
struct WholeBody<'a> {
    data: Cow<'a, [u8]>,
    /// Bytes with it.
    used: usize,
}

/// The body, once it is there.
fn whole_body<'a>(
    head: &RequestHead<'_, '_>,
    input: &'a [u8],
) -> Result<Option<WholeBody<'a>>, Over> {
    let mut decoder = BodyDecoder::new(head.body);
    let first = decoder.decode(input).map_err(|_| Over)?;
    if first.done {
        return Ok(Some(WholeBody { data: first.data.into(), used: first.used }));
    }
    let (mut data, mut used) = (first.data.to_vec(), first.used);
    while used < input.len() {
        let part = decoder.decode(input.get(used..).unwrap_or_default()).map_err(|_| Over)?;
        data.extend_from_slice(part.data);
        used += part.used;
        if part.done {
            return Ok(Some(WholeBody { data: data.into(), used }));
        }
    }
    Ok(None)
}

/// One request being answered.
struct Exchange<'a, 'h, 'b> {
    headers: Headers<'h, 'b>,
    shared: &'a Shared,
    style: Style,
    out: &'a mut Vec<u8>,
}

impl Exchange<'_, '_, '_> {
    fn answer(&mut self, method: &str, body: &[u8]) {
        match method {
            "POST" => self.post(body),
            "DELETE" if self.session().is_some() => {
                self.shared.deleted.fetch_add(1, Ordering::Relaxed);
                self.bare(200);
            }
            "DELETE" => self.bare(404),
            _ => self.bare(405),
        }
    }

    fn post(&mut self, body: &[u8]) {
        let Ok(envelope) = rpc::scan(body, RPC_LIMITS) else { return self.bare(400) };
        let is_modern = envelope.meta_version.is_some();
        let is_initialize = envelope.method.is_some_and(|method| method.eq(body, "initialize"));
        if !is_modern && !is_initialize && self.session().is_none() {
            return self.bare(404);
        }
        match envelope.kind {
            Kind::Request => self.request(body, &envelope, is_modern),
            Kind::Notification | Kind::Response | Kind::ErrorResponse => self.bare(202),
        }
    }

    fn request(&mut self, body: &[u8], envelope: &Envelope, is_modern: bool) {
        let method = envelope.method.map(|method| method.decode(body)).unwrap_or_default();
        let mut session = None;
        let result = match &*method {
            b"tools/call" => return self.call(body, envelope, is_modern),
            b"initialize" if !is_modern => {
                session = Some(self.shared.opened.fetch_add(1, Ordering::Relaxed));
                let version = envelope.protocol_version.map(|text| text.decode(body));
                let version = version.unwrap_or_default();
                let version = String::from_utf8_lossy(&version);
                format!(
                    r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"fake","version":"1"}}"#
                )
            }
            b"server/discover" => format!(
                r#"{{"supportedVersions":["{MODERN}"],"capabilities":{{"tools":{{}}}},"ttlMs":60000,"cacheScope":"public""#
            ),
            b"tools/list" => TOOLS.to_owned(),
            b"ping" => "{".to_owned(),
            _ => return self.error(body, envelope, -32601, is_modern),
        };
        let mut message = front(body, envelope);
        message.extend_from_slice(b"\"result\":");
        message.extend_from_slice(result.as_bytes());
        if is_modern {
            let comma = if result.len() == 1 { "" } else { "," };
            message.extend_from_slice(comma.as_bytes());
            message.extend_from_slice(br#""resultType":"complete""#);
        }
        message.extend_from_slice(b"}}");
        self.send(&[message], session);
    }

    fn call(&mut self, body: &[u8], envelope: &Envelope, is_modern: bool) {
        let name = envelope.name.map(|name| name.decode(body)).unwrap_or_default();
        let params = envelope.params.unwrap_or(Span { start: 0, end: 0 }).get(body);
        let mut messages = Vec::new();
        // The text is JSON already; what was sent is never decoded.
        let mut text = Vec::new();
        match &*name {
            b"echo" => text.extend_from_slice(argument(params, "text").unwrap_or(b"\"\"")),
            b"session" => {
                let session = self.headers.get("mcp-session-id").unwrap_or_default();
                text.extend_from_slice(&[b"\"", session, b"\""].concat());
            }
            b"progress" => {
                let steps = argument(params, "steps").and_then(number).unwrap_or(5).min(1000);
                text.extend_from_slice(format!("\"Took {steps} steps.\"").as_bytes());
                if let Some(token) = envelope.progress_token {
                    messages = progress(token.get(body), steps);
                }
            }
            b"sleep" => return,
            _ => return self.error(body, envelope, -32602, is_modern),
        }
        let mut message = front(body, envelope);
        message.extend_from_slice(br#""result":{"content":[{"type":"text","text":"#);
        message.extend_from_slice(&text);
        let end = if is_modern { r#"}],"resultType":"complete"}}"# } else { "}]}}" };
        message.extend_from_slice(end.as_bytes());
        messages.push(message);
        self.send(&messages, None);
    }

    fn error(&mut self, body: &[u8], envelope: &Envelope, code: i32, is_modern: bool) {
        let mut message = front(body, envelope);
        let error = format!(r#""error":{{"code":{code},"message":"not known here"}}}}"#);
        message.extend_from_slice(error.as_bytes());
        let status = if is_modern && code == -32601 { 404 } else { 200 };
        self.json(status, &message, None);
    }

    /// One message is a body; several, or the style, make a stream.
    fn send(&mut self, messages: &[Vec<u8>], session: Option<u64>) {
        match messages {
            [message] if self.style == Style::Json => self.json(200, message, session),
            messages => self.events(messages, session),
        }
    }

    fn json(&mut self, status: u16, body: &[u8], session: Option<u64>) {
        http1::write_status_line(self.out, status);
        self.out.extend_from_slice(b"content-type: application/json\r\n");
        self.session_header(session);
        http1::write_length(self.out, body.len() as u64);
        self.out.extend_from_slice(http1::HEAD_END);
        self.out.extend_from_slice(body);
    }

    fn events(&mut self, messages: &[Vec<u8>], session: Option<u64>) {
        http1::write_status_line(self.out, 200);
        let kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
        self.out.extend_from_slice(kind);
        self.session_header(session);
        self.out.extend_from_slice(http1::HEAD_END);
        for message in messages {
            let mut event = Vec::new();
            wire::sse::write_event(&mut event, None, None, None, message);
            http1::write_chunk_head(self.out, event.len());
            self.out.extend_from_slice(&event);
            self.out.extend_from_slice(http1::CHUNK_END);
        }
        self.out.extend_from_slice(http1::LAST_CHUNK);
    }

    fn session_header(&mut self, session: Option<u64>) {
        if let Some(number) = session {
            let value = format!("{SESSION}{number}");
            http1::write_header(self.out, "mcp-session-id", value.as_bytes());
        }
    }

    fn bare(&mut self, status: u16) {
        http1::write_status_line(self.out, status);
        http1::write_length(self.out, 0);
        self.out.extend_from_slice(http1::HEAD_END);
    }

    /// The number of the session that the request names, if it was ever opened.
    fn session(&self) -> Option<u64> {
        let text = self.headers.get("mcp-session-id")?.strip_prefix(SESSION.as_bytes())?;
        number(text).filter(|number| *number < self.shared.opened.load(Ordering::Relaxed))
    }
}

const SESSION: &str = "fake-";

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An answer up to its id.
fn front(body: &[u8], envelope: &Envelope) -> Vec<u8> {
    let id = envelope.id.map_or(&b"null"[..], |id| id.get(body));
    let mut message = Vec::with_capacity(256 + body.len());
    message.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    message.extend_from_slice(id);
    message.push(b',');
    message
}

fn progress(token: &[u8], steps: u64) -> Vec<Vec<u8>> {
    let token = String::from_utf8_lossy(token);
    let step = |step| {
        let message = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{step},"total":{steps}}}}}"#
        );
        message.into_bytes()
    };
    (1..=steps).map(step).collect()
}

/// `arguments.KEY` of a call's params, as raw JSON.
fn argument<'a>(params: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut cursor = Cursor::new(params, RPC_LIMITS.depth_max).ok()?;
    cursor.enter_object().ok()?;
    while let Some(name) = cursor.next_key().ok()? {
        if !name.eq(params, "arguments") {
            cursor.value().ok()?;
            continue;
        }
        cursor.enter_object().ok()?;
        while let Some(name) = cursor.next_key().ok()? {
            let value = cursor.value().ok()?;
            if name.eq(params, key) {
                return Some(value.get(params));
            }
        }
    }
    None
}
