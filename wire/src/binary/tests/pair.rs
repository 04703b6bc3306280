//! Two links and a connection between them that can be cut after any byte.

use crate::Decoded;
use crate::binary::{Event, Facts, Limits, Link, LinkId, MessageKind, Open, Reason, SendError};
use crate::binary::{Settings, StreamId, hello};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

/// The bytes of one write.
const WRITE_LEN: usize = 61;

pub(super) const SETTINGS: Settings = Settings {
    limits: Limits {
        window: 32 * 1024,
        frame_len_max: 256,
        message_len_max: 1 << 20,
        streams_max: 16,
        replay_len_max: 64 * 1024,
    },
    keep_ms: 1000,
    queue_len_max: 16 * 1024,
    queues_len_max: 8 << 20,
    partial_len_max: 64 * 1024,
    partials_len_max: 1 << 20,
};

/// An [`Event`] that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Link(&'static str),
    Opened(u32, String),
    Message(u32, MessageKind, String, Vec<u8>),
    Closed(u32, Reason),
    Writable(u32),
    Draining(u32, u32),
}

impl Said {
    pub(super) fn of(event: Event<'_>) -> Self {
        match event {
            Event::Welcomed => Self::Link("welcomed"),
            Event::Resumed => Self::Link("resumed"),
            Event::NotResumed => Self::Link("not resumed"),
            Event::Pong { .. } => Self::Link("pong"),
            Event::Ended { .. } => Self::Link("ended"),
            Event::Failed { error } => panic!("{error:?}"),
            Event::Opened { stream, open } => Self::Opened(stream.get(), open.server.into()),
            Event::Message { stream, kind, method, name, payload } => {
                let names = std::format!("{method} {name}");
                Self::Message(stream.get(), kind, names, payload.into_owned())
            }
            Event::Closed { stream, reason, .. } => Self::Closed(stream.get(), reason),
            Event::Writable { stream } => Self::Writable(stream.get()),
            Event::Draining { last_stream, deadline_ms } => {
                Self::Draining(last_stream, deadline_ms)
            }
        }
    }

    /// The stream that it is about, if losses must not change it.
    pub(super) fn stream(&self) -> Option<u32> {
        match self {
            Self::Opened(stream, _) | Self::Message(stream, ..) | Self::Closed(stream, _) => {
                Some(*stream)
            }
            Self::Link(_) | Self::Writable(_) | Self::Draining(..) => None,
        }
    }
}

/// What a side does with what it is told.
pub(super) type App = fn(&mut Link, &Said);

/// Does nothing.
pub(super) fn idle(_: &mut Link, _: &Said) {}

pub(super) struct Pair {
    pub(super) client: Link,
    pub(super) server: Option<Link>,
    pub(super) client_said: Vec<Said>,
    pub(super) server_said: Vec<Said>,
    pub(super) apps: [App; 2],
    /// Streams whose messages the server's user leaves unread.
    pub(super) unread: BTreeSet<u32>,
    /// Bytes that the connection still carries from the client and from the server.
    pub(super) budget: [usize; 2],
    /// Bytes that came through since the last connection, likewise.
    pub(super) carried: [usize; 2],
    pub(super) owner: &'static [u8],
    settings: Settings,
    /// What came of HELLO, until that is whole.
    greeting: Option<Vec<u8>>,
    links: u8,
}

impl Pair {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            client: Link::connect(settings, "token", "test").unwrap(),
            server: None,
            client_said: Vec::new(),
            server_said: Vec::new(),
            apps: [idle, idle],
            unread: BTreeSet::new(),
            budget: [usize::MAX; 2],
            carried: [0; 2],
            owner: b"alice",
            settings,
            greeting: Some(Vec::new()),
            links: 0,
        }
    }

    /// A pair that is set up, with streams.
    pub(super) fn with_streams(settings: Settings, count: usize) -> (Self, Vec<StreamId>) {
        let mut pair = Self::new(settings);
        pair.run();
        assert_eq!(pair.client_said, [Said::Link("welcomed")]);
        let streams = (0..count).map(|_| pair.open("s").unwrap()).collect();
        pair.run();
        (pair, streams)
    }

    pub(super) fn server(&mut self) -> &mut Link {
        self.server.as_mut().unwrap()
    }

    pub(super) fn open(&mut self, server: &str) -> Result<StreamId, SendError> {
        self.client.open(Open { server, session: "", revision: "" })
    }

    /// Moves bytes until both sides are silent, with a new connection for each that breaks.
    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// Moves a few bytes in each direction; `false` when there were none.
    pub(super) fn step(&mut self) -> bool {
        let up = take(&mut self.client);
        let down = self.server.as_mut().map(take).unwrap_or_default();
        let mut is_broken = false;
        for (direction, bytes) in [&up, &down].into_iter().enumerate() {
            let len = bytes.len().min(self.budget[direction]);
            self.budget[direction] -= len;
            self.carried[direction] += len;
            is_broken |= len < bytes.len();
            if direction == 0 {
                self.reach_server(&bytes[..len]);
            } else {
                self.reach_client(&bytes[..len]);
            }
        }
        if is_broken {
            self.reconnect();
        }
        is_broken || !up.is_empty() || !down.is_empty()
    }

    pub(super) fn reconnect(&mut self) {
        self.client.lost();
        self.server.as_mut().into_iter().for_each(Link::lost);
        self.budget = [usize::MAX; 2];
        self.carried = [0; 2];
        self.greeting = Some(Vec::new());
        self.client.reconnect("token", "test").unwrap();
    }

    fn reach_client(&mut self, mut bytes: &[u8]) {
        while let Some(event) = self.client.receive(&mut bytes) {
            let said = Said::of(event);
            if let Said::Message(stream, .., payload) = &said {
                self.client.release(StreamId::new(*stream).unwrap(), 1, payload.len());
            }
            self.apps[0](&mut self.client, &said);
            self.client_said.push(said);
        }
    }

    fn reach_server(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Some(mut greeting) = self.greeting.take() {
            greeting.extend_from_slice(bytes);
            let Decoded::Item { item, used } = hello(&greeting).unwrap() else {
                self.greeting = Some(greeting);
                return;
            };
            rest = &bytes[bytes.len() - (greeting.len() - used)..];
            let resumed = self.server.as_mut().map(|link| link.resume(&item, self.owner));
            if resumed != Some(Ok(())) {
                self.links += 1;
                let id = LinkId([self.links; 16]);
                self.server = Some(Link::accept(id, self.owner, self.settings, &item));
            }
        }
        let Some(server) = &mut self.server else { return };
        while let Some(event) = server.receive(&mut rest) {
            let said = Said::of(event);
            if let Said::Message(stream, .., payload) = &said
                && !self.unread.contains(stream)
            {
                server.release(StreamId::new(*stream).unwrap(), 1, payload.len());
            }
            self.apps[1](server, &said);
            self.server_said.push(said);
        }
    }
}

/// Sends, and must be able to.
#[track_caller]
pub(super) fn send(link: &mut Link, stream: u32, kind: MessageKind, method: &str, payload: &[u8]) {
    let facts = Facts { method, name: "n" };
    let sent = link.send(StreamId::new(stream).unwrap(), kind, facts, Cow::Borrowed(payload));
    assert_eq!(sent, Ok(()));
}

/// Takes some of a link's output.
fn take(link: &mut Link) -> Vec<u8> {
    let mut bytes = link.output().concat();
    bytes.truncate(WRITE_LEN);
    link.wrote(bytes.len());
    bytes
}
