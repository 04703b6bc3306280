//! A client of the TCP binary protocol, version 2, on the codec's own link. It can lose its
//! connection wherever a test wants it to.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};
use wire::Decoded;
use wire::binary::v1::{Dialect, Frame, Kind, decode_ack, write_offer};
use wire::binary::{Event, Facts, Limits, Link, MessageKind, Open, Settings, StreamId};

use super::rig::initialize;
use crate::support::PATIENCE;

pub(crate) const SETTINGS: Settings = Settings {
    limits: Limits {
        window: 64 * 1024,
        frame_len_max: 16 * 1024,
        message_len_max: 16 << 20,
        streams_max: 64,
        replay_len_max: 256 * 1024,
    },
    keep_ms: 0,
    queue_len_max: 32 << 20,
    queues_len_max: 256 << 20,
    partial_len_max: 32 << 20,
    partials_len_max: 256 << 20,
};

/// What a link had to tell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Welcomed,
    Resumed,
    NotResumed,
    Message(StreamId, String),
    Closed(StreamId, u16, String),
    Draining(u32),
    Pong,
    Ended(u16, String),
    /// The connection is gone.
    Lost,
}

impl Told {
    fn of(event: Event<'_>) -> Option<Self> {
        Some(match event {
            Event::Welcomed => Self::Welcomed,
            Event::Resumed => Self::Resumed,
            Event::NotResumed => Self::NotResumed,
            Event::Message { stream, kind, method, name, payload } => {
                let text = String::from_utf8(payload.into_owned()).unwrap();
                check_facts(kind, (method, name), &text);
                Self::Message(stream, text)
            }
            Event::Closed { stream, reason, text } => {
                Self::Closed(stream, reason.0, text.to_owned())
            }
            Event::Draining { last_stream, .. } => Self::Draining(last_stream),
            Event::Pong { .. } => Self::Pong,
            Event::Ended { code, text } => Self::Ended(code, text.to_owned()),
            Event::Writable { .. } => return None,
            Event::Opened { .. } | Event::Failed { .. } => panic!("{event:?}"),
        })
    }
}

/// What a frame says of its message is true.
fn check_facts(kind: MessageKind, facts: (&str, &str), text: &str) {
    let message: Value = serde_json::from_str(text).unwrap();
    let method = message["method"].as_str();
    let want = match (method, message.get("id")) {
        (Some(_), Some(_)) => MessageKind::Request,
        (Some(_), None) => MessageKind::Notification,
        (None, _) => MessageKind::Response,
    };
    let subject = message["params"]["name"].as_str().or(message["params"]["uri"].as_str());
    assert_eq!((kind, facts), (want, (method.unwrap_or(""), subject.unwrap_or(""))));
}

/// Offers version 2 on a new connection, and has it agreed on.
pub(crate) fn negotiated(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut offer = Vec::new();
    write_offer(&mut offer, Dialect::Short, 2);
    stream.write_all(&offer).unwrap();
    let mut answer = vec![0; 32];
    stream.read_exact(&mut answer).unwrap();
    let Ok(Decoded::Item { item, used: 32 }) = Frame::decode(&answer, None) else {
        panic!("{answer:?}")
    };
    assert_eq!((item.kind, decode_ack(item.payload)), (Kind::VersionAck, Ok(2)));
    stream
}

/// A client.
pub(crate) struct Peer {
    pub(crate) port: u16,
    pub(crate) link: Link,
    pub(crate) stream: TcpStream,
    /// What it was told and did not look at.
    pub(crate) told: VecDeque<Told>,
    /// Streams whose messages it does not deal with.
    pub(crate) unread: Vec<StreamId>,
    /// Bytes that the connection still carries, out and in.
    pub(crate) budget: [usize; 2],
}

impl Peer {
    /// Welcome.
    pub(crate) fn new(port: u16) -> Self {
        let mut peer = Self::greeting(port, "token");
        assert_eq!(peer.next(), Told::Welcomed);
        peer
    }

    /// HELLO is said.
    pub(crate) fn greeting(port: u16, token: &str) -> Self {
        Self::with(port, token, SETTINGS)
    }

    pub(crate) fn with(port: u16, token: &str, settings: Settings) -> Self {
        let stream = negotiated(port);
        let link = Link::connect(settings, token, "edges/1").unwrap();
        let (told, unread) = (VecDeque::new(), Vec::new());
        Self { port, link, stream, told, unread, budget: [usize::MAX; 2] }
    }

    /// Comes back on a new connection.
    pub(crate) fn reconnect(&mut self) {
        self.link.lost();
        self.stream = negotiated(self.port);
        self.budget = [usize::MAX; 2];
        self.link.reconnect("token", "edges/1").unwrap();
    }

    pub(crate) fn open(&mut self, server: &str) -> StreamId {
        self.link.open(Open { server, session: "", revision: "2025-11-25" }).unwrap()
    }

    /// A stream that is a session.
    pub(crate) fn session(&mut self, server: &str) -> StreamId {
        let stream = self.open(server);
        let answer = self.ask(stream, &initialize("2025-11-25"));
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        self.send(stream, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        stream
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, stream: StreamId, text: &str) {
        let kind = match (text.contains("\"method\""), text.contains("\"id\"")) {
            (true, true) => MessageKind::Request,
            (true, false) => MessageKind::Notification,
            (false, _) => MessageKind::Response,
        };
        let facts = Facts { method: "", name: "" };
        self.link.send(stream, kind, facts, Cow::Borrowed(text.as_bytes())).unwrap();
    }

    /// Writes what is to be written; false if the connection does not carry all of it.
    pub(crate) fn flush(&mut self) -> bool {
        loop {
            let bytes = self.link.output().concat();
            let len = bytes.len().min(self.budget[0]);
            self.budget[0] -= len;
            let is_written = self.stream.write_all(&bytes[..len]).is_ok();
            self.link.wrote(len);
            if len < bytes.len() || !is_written {
                return false;
            }
            if bytes.is_empty() {
                return true;
            }
        }
    }

    /// Reads some; false at the end of the connection.
    fn read(&mut self) -> bool {
        let mut bytes = vec![0; self.budget[1].min(64 * 1024)];
        let len = self.stream.read(&mut bytes).unwrap_or(0);
        self.budget[1] -= len;
        let mut rest = &bytes[..len];
        while let Some(event) = self.link.receive(&mut rest) {
            let Some(told) = Told::of(event) else { continue };
            if let Told::Message(stream, text) = &told
                && !self.unread.contains(stream)
            {
                self.link.release(*stream, 1, text.len());
            }
            self.told.push_back(told);
        }
        len != 0
    }

    /// What it is told next.
    pub(crate) fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            if !self.flush() || !self.read() {
                return self.told.pop_front().unwrap_or(Told::Lost);
            }
        }
    }

    /// The next message of a stream; others wait.
    #[track_caller]
    pub(crate) fn text(&mut self, stream: StreamId) -> String {
        let mut others = VecDeque::new();
        let text = loop {
            match self.next() {
                Told::Message(it, text) if it == stream => break text,
                told @ (Told::Lost | Told::Ended(..)) => panic!("{told:?}"),
                told => others.push_back(told),
            }
        };
        others.append(&mut self.told);
        self.told = others;
        text
    }

    #[track_caller]
    pub(crate) fn message(&mut self, stream: StreamId) -> Value {
        serde_json::from_str(&self.text(stream)).unwrap()
    }

    /// Asks, and returns the next message.
    #[track_caller]
    pub(crate) fn ask(&mut self, stream: StreamId, text: &str) -> Value {
        self.send(stream, text);
        self.message(stream)
    }

    /// Calls a tool that returns one text.
    #[track_caller]
    pub(crate) fn call(&mut self, stream: StreamId, tool: &str, arguments: &Value) -> String {
        let answer = self.ask(stream, &call(&json!(7), tool, arguments));
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

pub(crate) fn call(id: &Value, tool: &str, arguments: &Value) -> String {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
    .to_string()
}
