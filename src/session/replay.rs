//! The events of one session's streams, numbered and kept for a while, so that a client that lost
//! its connection can go on with `Last-Event-ID` (2025-11-25, basic/transports, "Resumability").
//!
//! An event id is `{stream}-{number}`, unique in the session. Stream 0 is the GET stream; each
//! POST that is answered by an event stream gets the next number. Bounds: `REPLAY_EVENTS_MAX`,
//! `REPLAY_LEN_MAX` and `REPLAY_STREAMS_MAX`; the oldest events and the oldest finished streams
//! go first, and a resumption that would need them is refused, never silently incomplete.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::ConnId;
use crate::limits;

/// The number of the GET stream.
pub const GET_STREAM: u32 = 0;

/// Where a client goes on with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first event.
    Start,
    /// With the event behind this one.
    After(u64),
    /// With the first event that no client was given.
    Undelivered,
}

/// All streams of a session.
#[derive(Debug)]
pub struct Replay {
    streams: VecDeque<Stream>,
    next_stream: u32,
    events: usize,
    len: usize,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub number: u32,
    /// The client connection that gets its events.
    pub client: Option<ConnId>,
    /// Exchanges that will still answer on it. The GET stream has none.
    pub open: u32,
    /// Number of the next event.
    next: u64,
    /// Number of the first event that no client connection was given.
    undelivered: u64,
    kept: VecDeque<Bytes>,
}

impl Replay {
    /// No events, and the GET stream.
    pub fn new() -> Self {
        let streams = VecDeque::from([Stream::new(GET_STREAM, 0)]);
        Self { streams, next_stream: 1, events: 0, len: 0 }
    }

    /// Begins a stream for this many exchanges.
    pub fn open(&mut self, client: Option<ConnId>, exchanges: u32) -> u32 {
        if limits::REPLAY_STREAMS_MAX <= self.streams.len() {
            // The first is the GET stream; running streams are never forgotten.
            let old = self.streams.iter().skip(1).position(|stream| stream.open == 0);
            if let Some(stream) = old.and_then(|index| self.streams.remove(index + 1)) {
                self.forget(&stream);
            }
        }
        let number = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(1).max(1);
        let mut stream = Stream::new(number, exchanges);
        stream.client = client;
        self.streams.push_back(stream);
        number
    }

    /// The stream of that number.
    pub fn get(&mut self, number: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.number == number)
    }

    /// The client connection that gets the events of a stream.
    pub fn client(&self, number: u32) -> Option<ConnId> {
        self.streams.iter().find(|stream| stream.number == number)?.client
    }

    /// All streams.
    pub fn iter(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut()
    }

    /// Bytes kept.
    pub fn kept_len(&self) -> usize {
        self.len
    }

    /// Adds an event to a stream and returns it as it goes over the wire, and who gets it.
    pub fn push(&mut self, number: u32, data: &[&[u8]]) -> Option<(Bytes, Option<ConnId>)> {
        let stream = self.get(number)?;
        let mut text = Vec::with_capacity(data.iter().map(|part| part.len()).sum::<usize>() + 48);
        wire::sse::write_event_head(
            &mut text,
            Some(format!("{number}-{}", stream.next).as_bytes()),
        );
        for part in data {
            // JSON has no line break inside a string; outside one, a space means the same.
            text.extend(part.iter().map(|byte| match byte {
                b'\r' | b'\n' => b' ',
                other => *other,
            }));
        }
        text.extend_from_slice(wire::sse::EVENT_END);
        let event = Bytes::from(text);
        stream.next += 1;
        stream.kept.push_back(event.clone());
        let client = stream.client;
        if client.is_some() {
            stream.undelivered = stream.next;
        }
        self.events += 1;
        self.len += event.len();
        self.evict(number);
        Some((event, client))
    }

    /// Gives a stream to a client connection. Returns the events to send. None: the stream or the
    /// events are gone.
    pub fn attach(&mut self, number: u32, from: From, client: ConnId) -> Option<Vec<Bytes>> {
        let stream = self.get(number)?;
        let from = stream.start(from)?;
        let skip = usize::try_from(from - stream.first()).ok()?;
        stream.client = Some(client);
        stream.undelivered = stream.next;
        Some(stream.kept.iter().skip(skip).cloned().collect())
    }

    /// Keeps nothing, because all sessions together keep too much: what was sent cannot be asked
    /// for again.
    pub fn clear(&mut self) {
        for stream in &mut self.streams {
            stream.kept.clear();
        }
        (self.events, self.len) = (0, 0);
    }

    /// Whether a stream can be gone on with from there.
    pub fn can_attach(&self, number: u32, from: From) -> bool {
        let stream = self.streams.iter().find(|stream| stream.number == number);
        stream.is_some_and(|stream| stream.start(from).is_some())
    }

    /// Drops the oldest events until the bounds hold. Other streams give first, so that the event
    /// just pushed stays whatever its size.
    fn evict(&mut self, pushed: u32) {
        while limits::REPLAY_EVENTS_MAX < self.events
            || (limits::REPLAY_LEN_MAX < self.len && 1 < self.events)
        {
            let others = self
                .streams
                .iter()
                .position(|stream| stream.number != pushed && !stream.kept.is_empty());
            let stream = match others {
                Some(index) => self.streams.get_mut(index),
                None => self.get(pushed),
            };
            let Some(event) = stream.and_then(|stream| stream.kept.pop_front()) else { return };
            self.events -= 1;
            self.len -= event.len();
        }
    }

    fn forget(&mut self, stream: &Stream) {
        self.events -= stream.kept.len();
        self.len -= stream.kept.iter().map(Bytes::len).sum::<usize>();
    }
}

impl Stream {
    fn new(number: u32, open: u32) -> Self {
        Self { number, client: None, open, next: 0, undelivered: 0, kept: VecDeque::new() }
    }

    /// The id for a priming event: it comes before all others that will follow.
    pub fn priming_id(&self) -> String {
        match self.next.checked_sub(1) {
            Some(last) => format!("{}-{last}", self.number),
            None => format!("{}-p", self.number),
        }
    }

    /// The number of the event to go on with, if it and all behind it are there.
    fn start(&self, from: From) -> Option<u64> {
        let start = match from {
            From::After(event) => event.checked_add(1)?,
            From::Start => 0,
            From::Undelivered => self.undelivered.max(self.first()),
        };
        (self.first() <= start && start <= self.next).then_some(start)
    }

    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

/// Reads an event id: the stream, and where to go on.
pub fn parse_event_id(text: &[u8]) -> Option<(u32, From)> {
    let text = std::str::from_utf8(text).ok()?;
    let (stream, number) = text.split_once('-')?;
    let stream = stream.parse().ok()?;
    let from = if number == "p" { From::Start } else { From::After(number.parse().ok()?) };
    Some((stream, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    fn texts(events: &[Bytes]) -> Vec<String> {
        events.iter().map(|event| String::from_utf8(event.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_client_goes_on_after_the_event_it_saw() {
        let mut replay = Replay::new();
        let number = replay.open(Some(conn(1)), 1);
        for data in [b"a", b"b", b"c"] {
            replay.push(number, &[data]).unwrap();
        }
        let events = replay.attach(number, From::After(0), conn(2)).unwrap();
        assert_eq!(texts(&events), ["id: 1-1\ndata: b\n\n", "id: 1-2\ndata: c\n\n"]);
        assert_eq!(replay.attach(number, From::After(2), conn(2)).unwrap(), Vec::<Bytes>::new());
        assert_eq!(
            replay.attach(number, From::After(3), conn(2)),
            None,
            "that event was never sent"
        );
        assert_eq!(replay.attach(9, From::After(0), conn(2)), None, "there is no such stream");
    }

    #[test]
    fn the_get_stream_keeps_what_nobody_received() {
        let mut replay = Replay::new();
        replay.push(GET_STREAM, &[b"early"]).unwrap();
        assert_eq!(replay.attach(GET_STREAM, From::Undelivered, conn(1)).unwrap().len(), 1);
        replay.push(GET_STREAM, &[b"live"]).unwrap();
        assert!(replay.attach(GET_STREAM, From::Undelivered, conn(2)).unwrap().is_empty());
    }

    #[test]
    fn the_bounds_hold_and_a_gap_is_refused() {
        let mut replay = Replay::new();
        let number = replay.open(None, 1);
        for _ in 0..=limits::REPLAY_EVENTS_MAX {
            replay.push(number, &[b"x"]).unwrap();
        }
        assert_eq!(replay.events, limits::REPLAY_EVENTS_MAX);
        assert_eq!(
            replay.attach(number, From::Undelivered, conn(1)).map(|events| events.len()),
            Some(512)
        );
        let big = vec![b'x'; limits::REPLAY_LEN_MAX + 1];
        replay.push(number, &[&big]).unwrap();
        assert_eq!(replay.events, 1, "one event of any size is kept");
        assert_eq!(replay.attach(number, From::After(3), conn(1)), None);
    }
}
