//! Credit, drain, resuming, bounds, and what a hostile peer is told.

use super::pair::{Pair, SETTINGS, Said, send};
use crate::Decoded;
use crate::binary::frame::{Frame, Message, Welcome};
use crate::binary::{Event, Facts, Hello, Limits, Link, LinkError, LinkId, MessageKind, Open};
use crate::binary::{NotResumable, Reason, SendError, Settings, StreamId, code, hello};
use std::borrow::Cow;
use std::vec::Vec;

pub(super) const REQUEST: MessageKind = MessageKind::Request;

/// Sends if the stream takes it.
pub(super) fn try_send(link: &mut Link, stream: StreamId, payload: &[u8]) -> Result<(), SendError> {
    let facts = Facts { method: "m", name: "n" };
    link.send(stream, REQUEST, facts, Cow::Borrowed(payload)).map_err(|refused| refused.why)
}

/// A message.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    std::vec![b'x'; len]
}

/// The lengths of the messages that came on a stream.
pub(super) fn lengths(said: &[Said], stream: StreamId) -> Vec<usize> {
    let of = |said: &Said| match said {
        Said::Message(other, .., payload) if *other == stream.get() => Some(payload.len()),
        _ => None,
    };
    said.iter().filter_map(of).collect()
}

#[test]
fn a_reader_that_does_not_read_blocks_only_its_stream() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 2);
    pair.unread.insert(1);
    let mut taken = 0;
    for _ in 0..100 {
        taken += usize::from(try_send(&mut pair.client, streams[0], &[b'x'; 3000]).is_ok());
        assert_eq!(try_send(&mut pair.client, streams[1], b"small"), Ok(()));
        pair.run();
    }
    assert_eq!(lengths(&pair.server_said, streams[1]).len(), 100);
    let came = lengths(&pair.server_said, streams[0]).len();
    let window = SETTINGS.limits.window as usize;
    assert!(window / 3000 <= came && came * 3000 <= 2 * window, "{came} messages came");
    assert!(came < taken && taken < 100, "{taken} messages were taken");
    assert_eq!(try_send(&mut pair.client, streams[0], b"x"), Err(SendError::Full));

    pair.unread.clear();
    pair.server().release(streams[0], came, came * 3000);
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[0]).len(), taken);
    assert!(pair.client.receive(&mut &b""[..]).is_none());
    assert!(pair.client_said.contains(&Said::Writable(1)), "{:?}", pair.client_said);
    assert_eq!(try_send(&mut pair.client, streams[0], b"x"), Ok(()));
}

#[test]
fn a_message_longer_than_the_window_arrives() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 1);
    assert_eq!(try_send(&mut pair.client, streams[0], &bytes(1 << 20)), Ok(()));
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[0]), [1 << 20]);
}

#[test]
fn incomplete_messages_are_bounded_and_still_complete() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 8);
    for stream in &streams {
        assert_eq!(try_send(&mut pair.client, *stream, &bytes(150_000)), Ok(()));
    }
    let mut most = 0;
    while pair.step() {
        most = most.max(pair.server().partials_len());
    }
    let windows = streams.len() * SETTINGS.limits.window as usize;
    assert!(most <= SETTINGS.partial_len_max + windows + 150_000, "{most} bytes were kept");
    for stream in streams {
        assert_eq!(lengths(&pair.server_said, stream), [150_000]);
    }
    assert_eq!(pair.server().partials_len(), 0);
}

/// The one that began first must not wait for its user while others could go on.
#[test]
fn an_unread_stream_does_not_keep_incomplete_messages_of_others_waiting() {
    let settings = Settings { partial_len_max: 1000, queue_len_max: 1 << 20, ..SETTINGS };
    let (mut pair, streams) = Pair::with_streams(settings, 2);
    pair.unread.insert(1);
    for _ in 0..3 {
        assert_eq!(try_send(&mut pair.client, streams[0], &bytes(40_000)), Ok(()));
    }
    pair.run();
    assert_eq!(try_send(&mut pair.client, streams[1], &bytes(200_000)), Ok(()));
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[1]), [200_000]);
    assert_eq!(lengths(&pair.server_said, streams[0]), [40_000]);
    pair.server().release(streams[0], 1, 40_000);
    pair.unread.clear();
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[0]), [40_000; 3]);
}

#[test]
fn a_long_message_does_not_keep_a_short_one_waiting() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 2);
    assert_eq!(try_send(&mut pair.client, streams[0], &bytes(1 << 20)), Ok(()));
    for _ in 0..100 {
        pair.step();
    }
    assert_eq!(try_send(&mut pair.client, streams[1], b"short"), Ok(()));
    let before = pair.carried[0];
    while lengths(&pair.server_said, streams[1]).is_empty() {
        assert!(pair.step());
    }
    let between = pair.carried[0] - before;
    assert!(between < 200 * 1024, "{between} bytes came before it");
    assert!(lengths(&pair.server_said, streams[0]).is_empty());
}

#[test]
fn many_short_messages_do_not_keep_a_long_one_waiting() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 2);
    assert_eq!(try_send(&mut pair.client, streams[0], &bytes(50_000)), Ok(()));
    for _ in 0..4000 {
        while try_send(&mut pair.client, streams[1], &[b'x'; 200]).is_ok() {}
        pair.step();
    }
    assert_eq!(lengths(&pair.server_said, streams[0]), [50_000]);
}

#[test]
fn a_draining_server_finishes_what_it_has() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 1);
    pair.server().drain(5000);
    // This one is on its way when GOAWAY comes.
    let late = pair.open("late").unwrap();
    assert_eq!(try_send(&mut pair.client, late, b"x"), Ok(()));
    pair.run();
    assert!(pair.client_said.contains(&Said::Draining(1, 5000)), "{:?}", pair.client_said);
    assert!(pair.client_said.contains(&Said::Closed(late.get(), Reason::DRAINING)));
    assert!(lengths(&pair.server_said, late).is_empty());
    assert_eq!(pair.open("later"), Err(SendError::Draining));
    assert_eq!(try_send(&mut pair.client, streams[0], b"y"), Ok(()));
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[0]), [1]);

    pair.client_said.clear();
    pair.server().drain(100);
    pair.reconnect();
    pair.run();
    assert_eq!(pair.client_said, [Said::Link("resumed"), Said::Draining(1, 100)]);
    pair.client.close(streams[0], Reason::DONE, "");
    pair.run();
    assert_eq!(pair.server().streams_count(), 0);
    pair.server().end(code::DONE, "");
    pair.run();
    assert!(pair.client.has_ended() && pair.server().has_ended());
    assert_eq!(pair.client_said.last(), Some(&Said::Link("ended")));
}

/// The owner is checked by the link, the id by whoever looks it up.
#[test]
fn only_its_owner_resumes_a_link() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 2);
    let before = pair.client.id();
    send(&mut pair.client, 1, REQUEST, "m", b"never read");
    pair.owner = b"mallory";
    pair.reconnect();
    pair.run();
    assert_eq!(pair.client_said.last(), Some(&Said::Link("not resumed")));
    assert_ne!(pair.client.id(), before);
    assert_eq!(pair.client.keep_ms(), SETTINGS.keep_ms);
    assert_eq!((pair.client.streams_count(), pair.client.queued_len()), (0, 0));
    assert_eq!(try_send(&mut pair.client, streams[1], b"x"), Err(SendError::NotOpen));
    assert_eq!(pair.open("s").map(StreamId::get), Ok(1), "a new link begins anew");
    pair.run();
    assert!(lengths(&pair.server_said, streams[0]).is_empty());
}

#[test]
fn a_link_says_why_it_cannot_be_resumed() {
    let (mut pair, _) = Pair::with_streams(SETTINGS, 2);
    let link = pair.client.id();
    let limits = SETTINGS.limits;
    let good = Hello { token: "", agent: "", link, received: 0, limits };
    let check = |pair: &mut Pair, hello, owner: &[u8], want| {
        assert_eq!(pair.server().resume(&hello, owner), want);
    };
    let other = Hello { link: LinkId([9; 16]), ..good };
    check(&mut pair, other, b"alice", Err(NotResumable::OtherLink));
    check(&mut pair, good, b"bob", Err(NotResumable::OtherOwner));
    check(&mut pair, good, b"", Err(NotResumable::OtherOwner));
    let ahead = Hello { received: 1, ..good };
    check(&mut pair, ahead, b"alice", Err(NotResumable::BadSequence));
    let ahead = Hello { received: u64::MAX, ..good };
    check(&mut pair, ahead, b"alice", Err(NotResumable::BadSequence));
    send(&mut pair.client, 1, REQUEST, "m", b"still there");
    pair.run();
    assert_eq!(pair.server_said.len(), 3, "a refused attempt does no harm");
    check(&mut pair, good, b"alice", Ok(()));
    pair.server().end(code::DONE, "");
    check(&mut pair, good, b"alice", Err(NotResumable::Ended));
}

/// Nobody acknowledges, so the log fills; then it is all sent again.
#[test]
fn a_full_log_stops_the_sender_and_loses_nothing() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 4);
    let mut taken = 0_u32;
    let mut written = 0;
    let mut lost = Vec::new();
    loop {
        let stream = streams[taken as usize % 4];
        if try_send(&mut pair.client, stream, &taken.to_be_bytes().repeat(500)).is_err() {
            break;
        }
        taken += 1;
        lost.clear();
        pair.client.write_to(&mut lost);
        written += lost.len();
    }
    let replay = SETTINGS.limits.replay_len_max as usize;
    assert!(replay - 4096 <= written && written <= replay, "{written} bytes were written");
    let queues = replay + 4 * (SETTINGS.queue_len_max + 4096);
    assert!(pair.client.queued_len() <= queues);
    pair.reconnect();
    pair.run();
    let came: usize = streams.iter().map(|id| lengths(&pair.server_said, *id).len()).sum();
    assert_eq!(came, taken as usize);
    assert_eq!(try_send(&mut pair.client, streams[0], b"x"), Ok(()));
}

#[test]
fn closing_sends_what_is_queued_or_drops_it() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 2);
    assert_eq!(try_send(&mut pair.client, streams[0], &bytes(100_000)), Ok(()));
    assert_eq!(try_send(&mut pair.client, streams[1], &bytes(100_000)), Ok(()));
    for _ in 0..200 {
        pair.step();
    }
    pair.client.close(streams[0], Reason::DONE, "");
    pair.client.close(streams[1], Reason::INTERNAL, &"é".repeat(1000));
    assert_eq!(try_send(&mut pair.client, streams[0], b"x"), Err(SendError::NotOpen));
    pair.server_said.clear();
    pair.run();
    assert_eq!(lengths(&pair.server_said, streams[0]), [100_000]);
    assert!(lengths(&pair.server_said, streams[1]).is_empty());
    assert!(pair.server_said.contains(&Said::Closed(1, Reason::DONE)));
    assert!(pair.server_said.contains(&Said::Closed(2, Reason::INTERNAL)));
    assert_eq!((pair.client.streams_count(), pair.server().streams_count()), (0, 0));
    assert_eq!(pair.server().partials_len(), 0);
    let unborn = pair.open("s").unwrap();
    pair.client.close(unborn, Reason::INTERNAL, "");
    pair.run();
    assert_eq!(pair.server_said.len(), 3, "the server never heard of it");
}

/// DRAINING is no failure: what was answered before it arrives.
#[test]
fn a_draining_server_sends_what_it_has_answered() {
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 1);
    pair.server().drain(5000);
    assert_eq!(try_send(pair.server(), streams[0], &bytes(100_000)), Ok(()));
    pair.step();
    pair.server().close(streams[0], Reason::DRAINING, "");
    pair.run();
    assert_eq!(lengths(&pair.client_said, streams[0]), [100_000]);
    assert_eq!(pair.client_said.last(), Some(&Said::Closed(1, Reason::DRAINING)));
    assert_eq!((pair.client.streams_count(), pair.server().streams_count()), (0, 0));
}

#[test]
fn what_cannot_be_sent_is_given_back() {
    let mut link = Link::connect(SETTINGS, "t", "a").unwrap();
    let open = Open { server: "", session: "", revision: "" };
    assert_eq!(link.open(open), Err(SendError::NotReady));
    let (mut pair, streams) = Pair::with_streams(SETTINGS, 16);
    assert_eq!(pair.open("s"), Err(SendError::NoMoreStreams));
    assert_eq!(pair.server().open(open), Err(SendError::NotAClient));
    let client = &mut pair.client;
    assert_eq!(try_send(client, streams[0], b""), Err(SendError::Empty));
    assert_eq!(try_send(client, streams[0], &bytes((1 << 20) + 1)), Err(SendError::TooLong));
    assert_eq!(try_send(client, StreamId::new(99).unwrap(), b"x"), Err(SendError::NotOpen));
    let facts = Facts { method: "m", name: &"n".repeat(9000) };
    assert!(client.send(streams[0], REQUEST, facts, Cow::Borrowed(b"{}")).is_ok());
    pair.run();
    let left_out = Said::Message(1, REQUEST, " ".into(), b"{}".into());
    assert_eq!(pair.server_said.last(), Some(&left_out), "facts that are too long are left out");
    let long = "t".repeat(9000);
    assert_eq!(Link::connect(SETTINGS, &long, "a").err(), Some(SendError::NamesTooLong));
    assert_eq!(pair.client.reconnect(&long, "a"), Err(SendError::NamesTooLong));
}

/// A server's link, and the numbers of the next frames that a hostile client sends to it.
pub(super) struct Hostile {
    pub(super) link: Link,
    sequence: u64,
}

impl Hostile {
    fn new(limits: Limits) -> Self {
        Self::with(Settings { limits, ..SETTINGS })
    }

    /// At a server with these settings.
    pub(super) fn with(settings: Settings) -> Self {
        let limits = settings.limits;
        let first = Hello { token: "", agent: "", link: LinkId::NONE, received: 0, limits };
        let mut bytes = Vec::new();
        Frame::Hello(first).encode(&mut bytes);
        let Ok(Decoded::Item { item, .. }) = hello(&bytes) else { panic!("{limits:?}") };
        let mut link = Link::accept(LinkId([1; 16]), b"", settings, &item);
        link.write_to(&mut Vec::new());
        Self { link, sequence: 0 }
    }

    /// With a stream.
    fn opened() -> Self {
        let mut hostile = Self::new(SETTINGS.limits);
        hostile.open(1);
        hostile
    }

    pub(super) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) fn open(&mut self, stream: u32) {
        let open = Open { server: "", session: "", revision: "" };
        let (stream, sequence) = (StreamId::new(stream).unwrap(), self.next());
        self.send(Frame::Open { stream, sequence, open });
    }

    /// A part of a message on stream 1, not the last.
    fn part(&mut self, facts: Option<Facts<'_>>, payload: &[u8]) {
        let message = Message { kind: REQUEST, facts, has_more: true, payload };
        let (stream, sequence) = (StreamId::new(1).unwrap(), self.next());
        self.send(Frame::Message { stream, sequence, message });
    }

    pub(super) fn send(&mut self, frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut input = &bytes[..];
        if let Some(Event::Failed { error }) = self.link.receive(&mut input) {
            panic!("too early: {error:?}");
        }
    }

    /// The next frame must end the link with this error, and the peer is told.
    #[track_caller]
    fn check(mut self, frame: Frame<'_>, want: LinkError) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut input = &bytes[..];
        assert_eq!(self.link.receive(&mut input), Some(Event::Failed { error: want }));
        bytes.clear();
        self.link.write_to(&mut bytes);
        let mut rest = &bytes[..];
        let mut last = None;
        while let Ok(Decoded::Item { item, used }) = Frame::decode(rest, 256) {
            rest = &rest[used..];
            last = Some(item);
        }
        assert!(matches!(last, Some(Frame::Error { code, .. }) if code == want.code()), "{last:?}");
        assert!(rest.is_empty() && self.link.has_ended());
        bytes.clear();
        self.link.write_to(&mut bytes);
        assert!(bytes.is_empty(), "nothing is sent behind an error");
        assert_eq!(self.link.receive(&mut &b"anything"[..]), None);
    }
}

fn message(stream: u32, sequence: u64, facts: Option<Facts<'_>>) -> Frame<'_> {
    let message = Message { kind: REQUEST, facts, has_more: false, payload: b"{}" };
    Frame::Message { stream: StreamId::new(stream).unwrap(), sequence, message }
}

#[test]
fn every_violation_has_its_error() {
    let id = |number| StreamId::new(number).unwrap();
    let facts = Some(Facts { method: "", name: "" });
    let open = Open { server: "", session: "", revision: "" };
    let opened = Hostile::opened;

    opened().check(message(1, 3, facts), LinkError::BadSequence(3));
    opened().check(message(2, 2, facts), LinkError::BadStream(id(2)));
    opened().check(message(1, 2, None), LinkError::Unexpected);
    opened().check(Frame::Open { stream: id(1), sequence: 2, open }, LinkError::BadStream(id(1)));
    opened().check(Frame::Credit { stream: id(2), limit: 1 }, LinkError::BadStream(id(2)));
    opened().check(Frame::Ack { received: 1 }, LinkError::BadAck(1));
    opened().check(Frame::Ack { received: u64::MAX }, LinkError::BadAck(u64::MAX));
    let goaway = Frame::GoAway { last_stream: 0, deadline_ms: 0 };
    opened().check(goaway, LinkError::Unexpected);
    let (link, limits) = (LinkId([1; 16]), SETTINGS.limits);
    let hello = Hello { token: "", agent: "", link, received: 0, limits };
    opened().check(Frame::Hello(hello), LinkError::Unexpected);
    let welcome = Welcome { resumed: true, link, received: 0, limits, keep_ms: 0 };
    opened().check(Frame::Welcome(welcome), LinkError::Unexpected);

    let mut partial = opened();
    partial.part(facts, b"{");
    partial.check(message(1, 3, facts), LinkError::Unexpected);

    let mut full = opened();
    (2..=16).for_each(|stream| full.open(stream));
    let one_more = Frame::Open { stream: id(17), sequence: 17, open };
    full.check(one_more, LinkError::TooManyStreams);
}

#[test]
fn a_peer_cannot_send_more_than_it_may() {
    let id = StreamId::new(1).unwrap();
    // The user reads nothing: at most twice the window comes in, then the sender has no credit.
    let mut greedy = Hostile::opened();
    let mut count = 0;
    loop {
        let sequence = greedy.next();
        let facts = Some(Facts { method: "", name: "" });
        let payload = &[b'x'; 256];
        let message = Message { kind: REQUEST, facts, has_more: false, payload };
        let mut bytes = Vec::new();
        Frame::Message { stream: id, sequence, message }.encode(&mut bytes);
        match greedy.link.receive(&mut &bytes[..]) {
            Some(Event::Message { .. }) => count += 1,
            other => {
                let error = LinkError::WindowExceeded(id);
                assert_eq!(other, Some(Event::Failed { error }));
                break;
            }
        }
    }
    assert!((110..250).contains(&count), "{count} messages came");

    let mut long = Hostile::opened();
    long.part(Some(Facts { method: "", name: "" }), &[b'x'; 256]);
    for _ in 1..4096 {
        long.part(None, &[b'x'; 256]);
    }
    let sequence = long.next();
    long.check(message(1, sequence, None), LinkError::MessageTooLong(id));
}

/// An error waits for the end of the frame that is being written, and for nothing else.
#[test]
fn an_error_does_not_stand_in_a_frame() {
    let mut hostile = Hostile::opened();
    let id = StreamId::new(1).unwrap();
    for _ in 0..3 {
        assert_eq!(try_send(&mut hostile.link, id, &[b'x'; 200]), Ok(()));
    }
    let mut bytes = hostile.link.output().concat();
    bytes.truncate(300);
    hostile.link.wrote(300);
    assert_eq!(try_send(&mut hostile.link, id, &[b'x'; 200]), Ok(()));
    hostile.link.end(code::INTERNAL, "a fault");
    hostile.link.write_to(&mut bytes);
    hostile.link.write_to(&mut bytes);
    let mut rest = &bytes[..];
    let mut kinds = Vec::new();
    while let Ok(Decoded::Item { item, used }) = Frame::decode(rest, 256) {
        rest = &rest[used..];
        kinds.push(matches!(item, Frame::Message { .. }));
        let is_last = matches!(item, Frame::Error { code: code::INTERNAL, text: "a fault" });
        assert!(!is_last || rest.is_empty());
    }
    // An ACK of OPEN goes before.
    assert_eq!((kinds, rest.len()), ([false, true, true, true, false].into(), 0));
}

#[test]
fn a_client_checks_its_server() {
    let link = LinkId([1; 16]);
    let check = |welcome: Frame<'_>, want| {
        let mut client = Link::connect(SETTINGS, "", "").unwrap();
        client.write_to(&mut Vec::new());
        let mut bytes = Vec::new();
        welcome.encode(&mut bytes);
        assert_eq!(client.receive(&mut &bytes[..]), Some(want));
    };
    let limits = SETTINGS.limits;
    let good = Welcome { resumed: false, link, received: 0, limits, keep_ms: 0 };
    check(Frame::Welcome(good), Event::Welcomed);
    let failed = |error| Event::Failed { error };
    let resumed = Welcome { resumed: true, ..good };
    check(Frame::Welcome(resumed), failed(LinkError::Unexpected));
    let nameless = Welcome { link: LinkId::NONE, ..good };
    check(Frame::Welcome(nameless), failed(LinkError::BadLimits));
    let limits = Limits { window: 1, ..limits };
    check(Frame::Welcome(Welcome { limits, ..good }), failed(LinkError::BadLimits));
    check(Frame::Ping { token: [0; 8] }, failed(LinkError::Unexpected));
    let code = code::UNAUTHORIZED;
    check(Frame::Error { code, text: "no" }, Event::Ended { code, text: "no" });
}

#[test]
fn floods_are_answered_once() {
    let mut hostile = Hostile::opened();
    for number in 0..1000_u64 {
        hostile.send(Frame::Ping { token: number.to_be_bytes() });
        hostile.send(Frame::Credit { stream: StreamId::new(1).unwrap(), limit: number });
        hostile.send(Frame::Ack { received: 0 });
    }
    let mut out = Vec::new();
    hostile.link.write_to(&mut out);
    let mut pong = Vec::new();
    Frame::Ack { received: 1 }.encode(&mut pong);
    Frame::Pong { token: 999_u64.to_be_bytes() }.encode(&mut pong);
    assert_eq!(out, pong);
}

/// A frame that was seen does nothing a second time.
#[test]
fn a_repeated_frame_is_ignored() {
    let facts = Some(Facts { method: "", name: "" });
    let mut hostile = Hostile::opened();
    let mut bytes = Vec::new();
    message(1, 2, facts).encode(&mut bytes);
    let twice = bytes.repeat(2);
    let mut input = &twice[..];
    assert!(matches!(hostile.link.receive(&mut input), Some(Event::Message { .. })));
    assert_eq!(hostile.link.receive(&mut input), None);
    assert!(input.is_empty());
}

/// Whatever is announced, no more room is taken than bytes have come.
#[test]
fn announced_bytes_take_no_room() {
    let mut hostile = Hostile::opened();
    let mut header = [0; 20];
    for (at, byte) in [(0, 4), (1, 1), (2, 0x20), (6, 1), (11, 1), (19, 2)] {
        header[at] = byte;
    }
    assert_eq!(hostile.link.receive(&mut &header[..]), None);
    assert!(hostile.link.input_capacity() <= 64, "{}", hostile.link.input_capacity());
    hostile.link.lost();
    assert_eq!(hostile.link.input_capacity(), 0);
}
