//! How talkers speak: what carries their messages, and what the bytes say that they hear. What the
//! messages mean is not known here.

use std::borrow::Cow;
use std::time::Duration;

use wire::Decoded;
use wire::binary::v1::{Dialect, Frame, Kind as FrameKind, decode_ack, write_offer};
use wire::binary::{
    Event, Facts, Limits, Link, MessageKind, Open, Reason, Settings, StreamId, code,
};
use wire::http1::{self, BodyDecoder, HeaderSlots};
use wire::lines::{Line, LineReader};
use wire::sse::EventParser;
use wire::ws::{self, DeflateParams, Deflater, Item, Receiver, Role};

use crate::ids::EntranceId;
use crate::tests::sim::net::{End, LinkId, Near, Net, Peer, Task};
use crate::tests::sim::request::SERVERS;
use crate::tests::sim::union::VIEW;

const MESSAGE_LEN_MAX: usize = 64 << 20;

const HEAD_LIMITS: http1::Limits = http1::Limits { head_len_max: 99_999, target_len_max: 9999 };

const NONCE: &[u8; 16] = b"the sample nonce";
const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);
const WS_LIMITS: ws::Limits = ws::Limits { message_len_max: MESSAGE_LEN_MAX, frames_max: 1 << 20 };

const LINK: Settings = Settings {
    limits: Limits {
        window: 64 * 1024,
        frame_len_max: 16 * 1024,
        message_len_max: 16 << 20,
        streams_max: 4,
        replay_len_max: 256 * 1024,
    },
    keep_ms: 0,
    queue_len_max: 32 << 20,
    queues_len_max: 256 << 20,
    partial_len_max: 32 << 20,
    partials_len_max: 256 << 20,
};

/// The transports of talkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lines,
    WebSocket,
    Sse,
    Tcp,
}

/// Who speaks: its number, its connection, and where it may come in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    pub(super) number: usize,
    pub(super) link: LinkId,
    pub(super) shards: usize,
}

/// A transport in use.
#[derive(Debug)]
pub(super) enum Voice {
    Lines(LineReader),
    WebSocket(Box<Socket>),
    Sse(Box<Stream>),
    Tcp(Box<Branch>),
}

#[derive(Debug)]
pub(super) struct Socket {
    /// None: the handshake was not answered yet.
    receiver: Option<Receiver>,
    deflater: Option<Deflater>,
    input: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// None: the head has not come yet.
    body: Option<(BodyDecoder, EventParser)>,
    input: Vec<u8>,
    /// Where messages are posted to.
    target: Option<String>,
    waiting: Vec<String>,
    /// The connection for them, the answers that it still brings, and their bytes.
    posts: Option<(LinkId, usize)>,
    answers: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Branch {
    link: Link,
    server: &'static str,
    is_agreed: bool,
    stream: Option<StreamId>,
    waiting: Vec<String>,
    input: Vec<u8>,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) messages: Vec<Vec<u8>>,
    /// The gateway has ended the conversation.
    pub(super) is_over: bool,
}

impl Kind {
    /// The entrance that leads to a server.
    pub(super) fn entrance(self, server: usize) -> EntranceId {
        EntranceId(match self {
            Self::Lines => 1 + u16::try_from(server).unwrap(),
            Self::WebSocket | Self::Sse => 0,
            Self::Tcp => 2 + u16::try_from(VIEW).unwrap(),
        })
    }
}

impl Voice {
    /// Begins a conversation with a server.
    pub(super) fn new(kind: Kind, server: usize, link: LinkId, net: &mut Net) -> Self {
        let name = SERVERS.get(server).copied().unwrap_or_default();
        let path = if name.is_empty() { String::new() } else { format!("/{name}") };
        match kind {
            Kind::Lines => Self::Lines(LineReader::new()),
            Kind::WebSocket => {
                let mut head = format!("GET /mcp{path} HTTP/1.1\r\nHost: localhost\r\n");
                let mut fields = Vec::new();
                let deflate = Some(DeflateParams::WITHOUT_CONTEXT);
                ws::write_request_fields(&mut fields, NONCE, &["mcp"], deflate);
                head += &String::from_utf8(fields).unwrap();
                net.write(link, format!("{head}\r\n").as_bytes());
                let (receiver, deflater, input) = (None, None, Vec::new());
                Self::WebSocket(Box::new(Socket { receiver, deflater, input }))
            }
            Kind::Sse => {
                let head = format!(
                    "GET /sse{path} HTTP/1.1\r\nHost: localhost\r\n\
                     Accept: text/event-stream\r\n\r\n"
                );
                net.write(link, head.as_bytes());
                Self::Sse(Box::new(Stream {
                    body: None,
                    input: Vec::new(),
                    target: None,
                    waiting: Vec::new(),
                    posts: None,
                    answers: Vec::new(),
                }))
            }
            Kind::Tcp => {
                let mut offer = Vec::new();
                write_offer(&mut offer, Dialect::Short, 2);
                net.write(link, &offer);
                Self::Tcp(Box::new(Branch {
                    link: Link::connect(LINK, "token", "sim/1").unwrap(),
                    server: name,
                    is_agreed: false,
                    stream: None,
                    waiting: Vec::new(),
                    input: Vec::new(),
                }))
            }
        }
    }

    /// Says a message.
    pub(super) fn say(&mut self, text: &str, who: Speaker, net: &mut Net) {
        match self {
            Self::Lines(_) => net.write(who.link, format!("{text}\n").as_bytes()),
            Self::WebSocket(socket) => {
                let (mut frame, text) = (Vec::new(), text.as_bytes());
                let deflater = socket.deflater.as_mut();
                ws::write_message(&mut frame, deflater, ws::MessageKind::Text, text, MASK);
                net.write(who.link, &frame);
            }
            Self::Sse(stream) => {
                stream.waiting.push(text.to_owned());
                stream.post(who, net);
            }
            Self::Tcp(branch) => {
                branch.waiting.push(text.to_owned());
                branch.flush(who.link, net);
            }
        }
    }

    /// Says nothing, as far as that can be done.
    pub(super) fn breathe(&mut self, link: LinkId, net: &mut Net) {
        match self {
            Self::Lines(_) => net.write(link, b"\r\n"),
            Self::WebSocket(_) => {
                let mut frame = Vec::new();
                ws::write_ping(&mut frame, b"x", MASK);
                net.write(link, &frame);
            }
            Self::Sse(_) => {}
            Self::Tcp(branch) => {
                branch.link.ping([7; 8]);
                branch.flush(link, net);
            }
        }
    }

    /// Takes leave, if there is a word for that, and hangs up.
    pub(super) fn leave(&mut self, link: LinkId, end: End, net: &mut Net) {
        match self {
            Self::Lines(_) => {}
            Self::WebSocket(_) if end == End::Closed => {
                let mut frame = Vec::new();
                ws::write_close(&mut frame, Some(1000), "bye", MASK);
                net.write(link, &frame);
            }
            Self::Tcp(branch) if end == End::Closed => {
                if let Some(stream) = branch.stream {
                    branch.link.close(stream, Reason::DONE, "");
                }
                branch.link.end(code::DONE, "");
                branch.flush(link, net);
            }
            Self::Sse(stream) => {
                if let Some((posts, _)) = stream.posts.take() {
                    net.hang_up(posts, end);
                }
            }
            Self::WebSocket(_) | Self::Tcp(_) => {}
        }
        net.hang_up(link, end);
    }

    /// Whether it is at its greetings, for which there is little time: who does not read has not
    /// enough of it.
    pub(super) fn is_greeting(&self) -> bool {
        matches!(self, Self::Tcp(branch) if branch.stream.is_none())
    }

    /// Whether a connection besides the first is its own.
    pub(super) fn has(&self, link: LinkId) -> bool {
        matches!(self, Self::Sse(stream) if stream.posts.is_some_and(|(posts, _)| posts == link))
    }

    /// That connection is over.
    pub(super) fn lost(&mut self, link: LinkId, net: &mut Net) -> Heard {
        let Self::Sse(stream) = self else { return Heard::default() };
        net.hang_up(link, End::Closed);
        stream.answers.clear();
        // What was posted and not answered may never have come.
        let is_over = stream.posts.take().is_some_and(|(_, left)| left != 0);
        Heard { messages: Vec::new(), is_over }
    }

    /// Bytes have come on a connection.
    pub(super) fn hear(&mut self, bytes: &[u8], on: LinkId, who: Speaker, net: &mut Net) -> Heard {
        match self {
            Self::Lines(reader) => {
                let (mut heard, mut input) = (Heard::default(), bytes);
                while let Some(line) = reader.next(&mut input, MESSAGE_LEN_MAX) {
                    let Line::Whole(line) = line else { panic!("a line that is too long") };
                    heard.messages.push(line.to_vec());
                }
                heard
            }
            Self::WebSocket(socket) => socket.hear(bytes, who.link, net),
            Self::Sse(stream) if on == who.link => {
                let heard = stream.hear(bytes);
                stream.post(who, net);
                heard
            }
            Self::Sse(stream) => stream.hear_answers(bytes),
            Self::Tcp(branch) => branch.hear(bytes, who.link, net),
        }
    }
}

impl Socket {
    fn hear(&mut self, bytes: &[u8], link: LinkId, net: &mut Net) -> Heard {
        let mut heard = Heard::default();
        self.input.extend_from_slice(bytes);
        if self.receiver.is_none() {
            let mut slots = HeaderSlots::new();
            let head = http1::response(&self.input, &mut slots, HEAD_LIMITS, false).unwrap();
            let Decoded::Item { item, used } = head else { return heard };
            if item.status != 101 {
                return Heard { is_over: true, ..heard };
            }
            let offer = Some(DeflateParams::WITHOUT_CONTEXT);
            let agreed = ws::accept_response(&item, NONCE, &["mcp"], offer).unwrap().deflate;
            self.receiver = Some(Receiver::new(Role::Client, WS_LIMITS, agreed));
            self.deflater = agreed.map(|params| Deflater::new(Role::Client, params, 0));
            self.input.drain(..used);
        }
        let Some(receiver) = &mut self.receiver else { return heard };
        let (mut input, mut reply) = (std::mem::take(&mut self.input), Vec::new());
        let mut rest = &mut input[..];
        while let Some(item) = receiver.next(&mut rest).unwrap() {
            match item {
                Item::Text(text) => heard.messages.push(text.into_owned()),
                Item::Binary(_) => panic!("a binary message"),
                Item::Ping(payload) => ws::write_pong(&mut reply, &payload, MASK),
                Item::Pong(_) => {}
                Item::Close(_) => {
                    ws::write_close(&mut reply, None, "", MASK);
                    heard.is_over = true;
                }
            }
        }
        net.write(link, &reply);
        heard
    }
}

impl Stream {
    /// Bytes of the stream.
    fn hear(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        self.input.extend_from_slice(bytes);
        if self.body.is_none() {
            let mut slots = HeaderSlots::new();
            let head = http1::response(&self.input, &mut slots, HEAD_LIMITS, false).unwrap();
            let Decoded::Item { item, used } = head else { return heard };
            if item.status != 200 {
                return Heard { is_over: true, ..heard };
            }
            self.body = Some((BodyDecoder::new(item.body), EventParser::new(MESSAGE_LEN_MAX)));
            self.input.drain(..used);
        }
        let Some((decoder, events)) = &mut self.body else { return heard };
        let input = std::mem::take(&mut self.input);
        let mut rest = &*input;
        loop {
            let part = decoder.decode(rest).unwrap();
            let mut data = part.data;
            while let Some(event) = events.next(&mut data).unwrap() {
                match event.name {
                    b"endpoint" => {
                        self.target = Some(String::from_utf8(event.data.to_vec()).unwrap());
                    }
                    _ => heard.messages.push(event.data.to_vec()),
                }
            }
            rest = &rest[part.used..];
            heard.is_over = part.done;
            if part.done || part.used == 0 {
                break;
            }
        }
        self.input = rest.to_vec();
        heard
    }

    /// Posts what waits, once it is known where to.
    fn post(&mut self, who: Speaker, net: &mut Net) {
        let Some(target) = self.target.clone() else { return };
        for text in std::mem::take(&mut self.waiting) {
            let (posts, left) = self.posts.unwrap_or_else(|| {
                let shard = net.random.between(0, who.shards - 1);
                let link = net.open(Peer::Talker { talker: who.number }, Near::Parked { shard });
                net.after(Duration::ZERO, Task::Accept { link });
                (link, 0)
            });
            self.posts = Some((posts, left + 1));
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n",
                text.len()
            );
            net.write(posts, (head + &text).as_bytes());
        }
    }

    /// Answers to what was posted: that it was taken, or what is wrong with it.
    fn hear_answers(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        self.answers.extend_from_slice(bytes);
        loop {
            let mut slots = HeaderSlots::new();
            let head = http1::response(&self.answers, &mut slots, HEAD_LIMITS, false).unwrap();
            let Decoded::Item { item, used } = head else { return heard };
            let status = item.status;
            let http1::Body::Length(len) = item.body else { panic!("{status}: {:?}", item.body) };
            let end = used + usize::try_from(len).unwrap();
            let Some(body) = self.answers.get(used..end) else { return heard };
            if status == 404 {
                // Its stream is gone.
                heard.is_over = true;
            } else if status != 202 {
                heard.messages.push(body.to_vec());
            }
            self.answers.drain(..end);
            self.posts = self.posts.map(|(link, left)| (link, left - 1));
        }
    }
}

impl Branch {
    fn hear(&mut self, bytes: &[u8], link: LinkId, net: &mut Net) -> Heard {
        let mut heard = Heard::default();
        self.input.extend_from_slice(bytes);
        if !self.is_agreed {
            let Decoded::Item { item, used } = Frame::decode(&self.input, None).unwrap() else {
                return heard;
            };
            assert_eq!((item.kind, decode_ack(item.payload)), (FrameKind::VersionAck, Ok(2)));
            self.is_agreed = true;
            self.input.drain(..used);
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &*input;
        let mut taken = Vec::new();
        while let Some(event) = self.link.receive(&mut rest) {
            match event {
                Event::Welcomed => {
                    let (server, session, revision) = (self.server, "", "2025-11-25");
                    self.stream = self.link.open(Open { server, session, revision }).ok();
                }
                Event::Message { stream, payload, .. } => {
                    taken.push((stream, payload.len()));
                    heard.messages.push(payload.into_owned());
                }
                Event::Closed { .. } | Event::Ended { .. } => heard.is_over = true,
                Event::Writable { .. } | Event::Draining { .. } | Event::Pong { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for (stream, len) in taken {
            self.link.release(stream, 1, len);
        }
        self.flush(link, net);
        heard
    }

    /// Sends what waits, once there is a stream, and writes what there is to write.
    fn flush(&mut self, link: LinkId, net: &mut Net) {
        let texts =
            if self.stream.is_some() { std::mem::take(&mut self.waiting) } else { Vec::new() };
        for text in texts {
            let kind = match (text.contains("\"method\""), text.contains("\"id\"")) {
                (true, true) => MessageKind::Request,
                (true, false) => MessageKind::Notification,
                (false, _) => MessageKind::Response,
            };
            let (facts, payload) = (Facts { method: "", name: "" }, Cow::Borrowed(text.as_bytes()));
            // A stream that the gateway has closed takes no more; it is on its way to say so.
            let _sent = self.stream.map(|stream| self.link.send(stream, kind, facts, payload));
        }
        while self.is_agreed {
            let bytes = self.link.output().concat();
            if bytes.is_empty() {
                return;
            }
            net.write(link, &bytes);
            self.link.wrote(bytes.len());
        }
    }
}
