//! The bytes of clients' requests, in many spellings.

use crate::tests::sim::check::{Call, Do};
use crate::tests::sim::random::Random;
use crate::tests::sim::union::VIEW;

/// Which server a path leads to, by its place in the catalog.
pub(super) const SERVERS: [&str; 5] = ["own", "shared", "http", "named", "dead"];

/// What a request needs besides its message.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub(super) method: &'static str,
    pub(super) server: usize,
    pub(super) session: Option<String>,
    pub(super) version: Option<&'static str>,
    pub(super) mirrored: Option<(String, String)>,
    pub(super) last_event_id: Option<String>,
}

/// A request, in the pieces that it is sent in: the second waits for `100 Continue`.
pub(super) fn http(frame: &Frame, body: &str, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let path = match frame.server {
        VIEW => "/mcp".to_owned(),
        server => format!("/mcp/{}", SERVERS[server]),
    };
    let mut head = format!("{} {path} HTTP/1.1\r\nHost: ", frame.method);
    let hosts: [&str; 3] = ["localhost", "localhost:8080", "127.0.0.1"];
    head += *random.pick(&hosts);
    head += "\r\nAccept: application/json, text/event-stream\r\n";
    let mut header = |name: &str, value: &str| head += &format!("{name}: {value}\r\n");
    if let Some(session) = &frame.session {
        header("Mcp-Session-Id", session);
    }
    if let Some(version) = frame.version {
        header("MCP-Protocol-Version", version);
    }
    if let Some((method, name)) = &frame.mirrored {
        header("Mcp-Method", method);
        if !name.is_empty() {
            header("Mcp-Name", name);
        }
    }
    if let Some(id) = &frame.last_event_id {
        header("Last-Event-ID", id);
    }
    if frame.method != "POST" {
        head += "\r\n";
        return (head.into_bytes(), Vec::new());
    }
    header("Content-Type", "application/json");
    let waits = random.chance(8);
    if waits {
        head += "Expect: 100-continue\r\n";
    }
    let content = if random.chance(20) {
        head += "Transfer-Encoding: chunked\r\n\r\n";
        chunked(body, random)
    } else {
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        body.as_bytes().to_vec()
    };
    let mut head = head.into_bytes();
    if waits {
        return (head, content);
    }
    head.extend_from_slice(&content);
    (head, Vec::new())
}

fn chunked(body: &str, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body.as_bytes();
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(random.between(1, rest.len()));
        let extension = if random.chance(10) { ";x=y" } else { "" };
        out.extend_from_slice(format!("{:X}{extension}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
        rest = tail;
    }
    out.extend_from_slice(if random.chance(10) { b"0\r\nx: y\r\n\r\n" } else { b"0\r\n\r\n" });
    out
}

/// The message of a call. `modern`: with the metadata of 2026-07-28.
pub(super) fn message(call: &Call, tag: &str, modern: bool, random: &mut Random) -> String {
    let id = &call.id;
    let name = call.union.as_ref().map_or(call.what.name(), |asked| &asked.name);
    let mut meta = Vec::new();
    if modern {
        meta.push("\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"".to_owned());
        meta.push("\"io.modelcontextprotocol/clientCapabilities\":{}".to_owned());
    }
    if let Some(token) = &call.token {
        meta.push(format!("\"progressToken\":{token}"));
    }
    let meta =
        if meta.is_empty() { String::new() } else { format!(",\"_meta\":{{{}}}", meta.join(",")) };
    let (method, params) = match call.what {
        Do::List => ("tools/list", format!("{{\"cursor\":\"{tag}\"{meta}}}")),
        Do::Union => {
            let cursor = call.union.as_ref().and_then(|asked| asked.cursor.as_ref());
            let cursor = cursor.map(|cursor| format!("\"cursor\":\"{cursor}\","));
            let cursor = cursor.unwrap_or_default();
            ("tools/list", format!("{{{cursor}\"x\":\"{tag}\"{meta}}}"))
        }
        Do::Task => ("tasks/get", format!("{{\"taskId\":\"t\",\"x\":\"{tag}\"{meta}}}")),
        Do::Discover => ("server/discover", format!("{{\"x\":\"{tag}\"{meta}}}")),
        Do::Listen => ("subscriptions/listen", format!("{{\"notifications\":\"{tag}\"{meta}}}")),
        _ => {
            let padding = if random.chance(4) { random.between(1000, 90_000) } else { 0 };
            let padding = "a".repeat(padding);
            let arguments = format!("{{\"tag\":\"{tag}\",\"padding\":\"{padding}\"}}");
            ("tools/call", format!("{{\"name\":\"{name}\",\"arguments\":{arguments}{meta}}}"))
        }
    };
    match random.below(3) {
        0 => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#),
        1 => format!(r#"{{"method":"{method}","params":{params},"jsonrpc":"2.0","id":{id}}}"#),
        _ => format!(
            "{{\n  \"jsonrpc\": \"2.0\",\r\n  \"method\": \"{method}\",\n  \"id\": {id},\n  \
             \"params\": {params}\n}}\n"
        ),
    }
}

/// The method and name headers of a modern call.
pub(super) fn mirrored(call: &Call) -> (String, String) {
    match call.what {
        Do::List | Do::Union => ("tools/list".to_owned(), String::new()),
        Do::Listen => ("subscriptions/listen".to_owned(), String::new()),
        Do::Discover => ("server/discover".to_owned(), String::new()),
        what => {
            let name = call.union.as_ref().map_or(what.name(), |asked| &asked.name);
            ("tools/call".to_owned(), name.to_owned())
        }
    }
}

/// `initialize`, with a tag where every server keeps it to itself.
pub(super) fn initialize(id: &str, version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{"elicitation":{{}}}},"clientInfo":{{"name":"sim","version":"1"}}}}}}"#
    )
}

pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

pub(super) fn cancel(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"sim"}}}}"#
    )
}

/// The answer to a question of a server.
pub(super) fn accept(id: &str, tag: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"accept","content":{{"tag":"{tag}"}}}}}}"#
    )
}
