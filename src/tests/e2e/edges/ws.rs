//! A WebSocket client by hand, on the codec of `wire`: what is sent is sent as it is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use wire::Decoded;
use wire::http1::{self, HeaderSlots};
use wire::ws::{
    Connected, DeflateParams, Deflater, Item, Limits, MessageKind, Receiver, Role, accept_response,
    write_close, write_message, write_ping, write_request_fields,
};

use super::http::{PATIENCE, Request};

const NONCE: &[u8; 16] = b"the sample nonce";
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMITS: Limits = Limits { message_len_max: 64 << 20, frames_max: 1 << 20 };

/// The client's end.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    receiver: Receiver,
    deflater: Option<Deflater>,
    /// Received and not looked at.
    buf: Vec<u8>,
    /// Messages that came while an answer was waited for.
    pub(crate) notes: Vec<Value>,
    /// Bytes that came over the wire.
    pub(crate) received: usize,
    /// Whether the subprotocol was chosen.
    pub(crate) has_protocol: bool,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// The connection is closed.
    End,
}

/// The handshake, to be changed.
pub(crate) fn handshake(path: &str) -> Request {
    Request::new("GET", path)
        .with("Upgrade", "websocket")
        .with("Connection", "Upgrade")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

impl Socket {
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr, path: &str) -> Self {
        Self::with(addr, path, Some(DeflateParams::WITHOUT_CONTEXT))
    }

    /// With these offers of compression.
    #[track_caller]
    pub(crate) fn with(addr: SocketAddr, path: &str, deflate: Option<DeflateParams>) -> Self {
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n").into_bytes();
        write_request_fields(&mut head, NONCE, &["mcp"], deflate);
        head.extend(b"\r\n");
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&head).unwrap();
        let mut buf = Vec::new();
        let (deflate, has_protocol) = loop {
            let mut part = [0; 4096];
            let len = stream.read(&mut part).unwrap();
            assert_ne!(len, 0, "closed: {}", String::from_utf8_lossy(&buf));
            buf.extend_from_slice(&part[..len]);
            let mut slots = HeaderSlots::new();
            let limits = http1::Limits { head_len_max: 9999, target_len_max: 999 };
            if let Decoded::Item { item, used } =
                http1::response(&buf, &mut slots, limits, false).unwrap()
            {
                let Connected { protocol, deflate } =
                    accept_response(&item, NONCE, &["mcp"], deflate)
                        .unwrap_or_else(|why| panic!("{why}"));
                let agreed = (deflate, protocol == Some("mcp"));
                buf.drain(..used);
                break agreed;
            }
        };
        Self {
            stream,
            receiver: Receiver::new(Role::Client, LIMITS, deflate),
            deflater: deflate.map(|params| Deflater::new(Role::Client, params, 0)),
            buf,
            notes: Vec::new(),
            received: 0,
            has_protocol,
        }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.deflater.is_some()
    }

    /// Sends; the peer may have had enough already.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()));
    }

    pub(crate) fn send(&mut self, text: impl AsRef<str>) {
        let mut frame = Vec::new();
        let payload = text.as_ref().as_bytes();
        write_message(&mut frame, self.deflater.as_mut(), MessageKind::Text, payload, Some(KEY));
        self.raw(frame);
    }

    pub(crate) fn binary(&mut self, payload: &[u8]) {
        let mut frame = Vec::new();
        write_message(&mut frame, None, MessageKind::Binary, payload, Some(KEY));
        self.raw(frame);
    }

    /// Sends a text in frames of this length, with a ping before each but the first.
    pub(crate) fn fragments(&mut self, text: &str, len: usize) {
        let mut bytes = Vec::new();
        let count = text.len().div_ceil(len);
        for (number, part) in text.as_bytes().chunks(len).enumerate() {
            if number != 0 {
                write_ping(&mut bytes, b"between", Some(KEY));
            }
            let opcode = u8::from(number == 0) | if number + 1 == count { 0x80 } else { 0 };
            let short = u8::try_from(part.len()).ok().filter(|len| *len < 126);
            bytes.extend([opcode, 0x80 | short.unwrap_or(126)]);
            if short.is_none() {
                bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            }
            bytes.extend(KEY);
            bytes.extend(part.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        self.raw(bytes);
    }

    pub(crate) fn ping(&mut self, payload: &[u8]) {
        let mut frame = Vec::new();
        write_ping(&mut frame, payload, Some(KEY));
        self.raw(frame);
    }

    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        write_close(&mut frame, Some(code), "bye", Some(KEY));
        self.raw(frame);
    }

    /// The next thing that comes.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Came {
        loop {
            let mut input = &mut self.buf[..];
            let item = self.receiver.next(&mut input).unwrap_or_else(|why| panic!("{why}"));
            let came = item.map(|item| match item {
                Item::Text(text) => Came::Text(String::from_utf8(text.into_owned()).unwrap()),
                Item::Binary(_) => panic!("a binary message"),
                Item::Ping(payload) => Came::Ping(payload.into_owned()),
                Item::Pong(payload) => Came::Pong(payload.into_owned()),
                Item::Close(close) => {
                    let reason = close.as_ref().map(|close| close.reason.to_string());
                    Came::Close(close.map(|close| close.code), reason.unwrap_or_default())
                }
            });
            let left = input.len();
            self.buf.drain(..self.buf.len() - left);
            if let Some(came) = came {
                return came;
            }
            let mut part = vec![0; 64 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Came::End,
                Ok(len) => {
                    self.received += len;
                    self.buf.extend_from_slice(&part[..len]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Came::End;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Value {
        loop {
            match self.next() {
                Came::Text(text) => return serde_json::from_str(&text).expect(&text),
                Came::Ping(_) | Came::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a request and waits for its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send(request.to_string());
        self.answer(&request["id"])
    }

    #[track_caller]
    pub(crate) fn answer(&mut self, id: &Value) -> Value {
        loop {
            let message = self.message();
            if message["id"] == *id && message.get("method").is_none() {
                return message;
            }
            self.notes.push(message);
        }
    }

    /// Opens a session of the newest legacy revision.
    #[track_caller]
    pub(crate) fn initialize(&mut self) -> Value {
        let text = super::rig::initialize("2025-11-25");
        let answer = self.ask(&serde_json::from_str(&text).unwrap());
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        answer
    }

    /// Calls a tool that returns one text.
    #[track_caller]
    pub(crate) fn text(&mut self, id: &Value, tool: &str, arguments: &Value) -> String {
        let answer = self.ask(&call(id, tool, arguments));
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Waits for the end: the close frame, and nothing behind it.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<u16> {
        loop {
            match self.next() {
                Came::Close(code, _) => {
                    assert_eq!(self.next(), Came::End);
                    return code;
                }
                Came::End => panic!("no close frame"),
                _ => {}
            }
        }
    }
}

pub(crate) fn call(id: &Value, tool: &str, arguments: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
}
