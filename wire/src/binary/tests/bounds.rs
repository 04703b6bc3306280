//! What a link keeps is bounded, and what a frame costs does not grow with it.

use super::links::{Hostile, REQUEST, bytes, lengths, try_send};
use super::pair::{Pair, SETTINGS};
use crate::binary::frame::{Frame, Message};
use crate::binary::{Event, Facts, Limits, LinkError, Reason, SendError, Settings, StreamId};
use std::vec::Vec;

const NO_FACTS: Facts<'static> = Facts { method: "", name: "" };

fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

impl Hostile {
    /// A frame of a message, and what comes of it.
    fn says(
        &mut self,
        stream: u32,
        has_more: bool,
        facts: Option<Facts<'_>>,
    ) -> Option<Event<'static>> {
        let (stream, sequence) = (id(stream), self.next());
        let message = Message { kind: REQUEST, facts, has_more, payload: b"{" };
        let mut bytes = Vec::new();
        Frame::Message { stream, sequence, message }.encode(&mut bytes);
        // Events that lend nothing: the bytes are not needed behind this.
        match self.link.receive(&mut &bytes[..]) {
            Some(Event::Closed { stream, reason, .. }) => {
                Some(Event::Closed { stream, reason, text: "" })
            }
            Some(Event::Failed { error }) => Some(Event::Failed { error }),
            Some(Event::Message { .. }) => Some(Event::Pong { token: [0; 8] }),
            None => None,
            other => panic!("{other:?}"),
        }
    }
}

/// It would take very long if a frame cost as much as there are streams.
#[test]
fn a_frame_costs_the_same_however_many_streams_there_are() {
    let streams_max = 65_536;
    let limits = Limits { streams_max, ..SETTINGS.limits };
    for partial_len_max in [1000, 10 << 20] {
        let (queues_len_max, partials_len_max) = (64 << 20, 64 << 20);
        let most = Settings { queues_len_max, partials_len_max, ..SETTINGS };
        let settings = Settings { limits, partial_len_max, ..most };
        let mut hostile = Hostile::with(settings);
        for stream in 1..=streams_max {
            hostile.open(stream);
            assert_eq!(hostile.says(stream, true, Some(NO_FACTS)), None);
        }
        // The youngest end first.
        for stream in (1..=streams_max).rev() {
            assert!(hostile.says(stream, false, None).is_some());
        }
        assert_eq!(hostile.link.partials_len(), 0);
        // All have something to say, and are closed.
        for stream in 1..=streams_max {
            assert_eq!(try_send(&mut hostile.link, id(stream), &bytes(300)), Ok(()));
        }
        for stream in (1..=streams_max).rev() {
            let sequence = hostile.next();
            hostile.send(Frame::Close { stream: id(stream), sequence, reason: 0, text: "" });
        }
        assert_eq!((hostile.link.streams_count(), hostile.link.waiting_len(id(1))), (0, 0));
    }
}

/// A message of one byte takes as much room at its reader as many bytes.
#[test]
fn short_messages_that_are_not_read_use_up_the_window() {
    let mut greedy = Hostile::with(SETTINGS);
    greedy.open(1);
    let mut count = 0;
    let error = loop {
        match greedy.says(1, false, Some(NO_FACTS)) {
            Some(Event::Failed { error }) => break error,
            _ => count += 1,
        }
    };
    assert_eq!(error, LinkError::WindowExceeded(id(1)));
    assert!((1000..2000).contains(&count), "{count} messages came");
}

#[test]
fn the_queues_of_all_streams_together_are_bounded() {
    let settings = Settings { queues_len_max: 20_000, ..SETTINGS };
    let (mut pair, streams) = Pair::with_streams(settings, 16);
    let (free, slow) = streams.split_first().unwrap();
    pair.unread.extend(slow.iter().map(|stream| stream.get()));
    let mut taken = [0; 15];
    for round in 0..400 {
        let at = round % slow.len();
        let sent = try_send(&mut pair.client, slow[at], &bytes(2000));
        taken[at] += usize::from(sent.is_ok());
        assert!(matches!(sent, Ok(()) | Err(SendError::Overloaded)), "{sent:?}");
        pair.run();
        assert!(pair.client.queued_len() <= 20_000 + 2000 + 300 + 64 * 1024);
    }
    assert!(taken.iter().sum::<usize>() < 400);
    assert_eq!(try_send(&mut pair.client, slow[0], b"x"), Err(SendError::Overloaded));
    // One that need not wait is not refused.
    assert_eq!(try_send(&mut pair.client, *free, b"quick"), Ok(()));
    pair.run();
    assert_eq!(lengths(&pair.server_said, *free), [5]);
    pair.unread.clear();
    for (stream, taken) in slow.iter().zip(taken) {
        let came = lengths(&pair.server_said, *stream).len();
        pair.server().release(*stream, came, came * 2000);
        pair.run();
        assert_eq!(lengths(&pair.server_said, *stream).len(), taken, "what was taken arrives");
    }
    // A stream that is closed frees its share.
    pair.unread.insert(free.get());
    while try_send(&mut pair.client, *free, &bytes(2000)).is_ok() {
        pair.run();
    }
    pair.client.close(*free, Reason::INTERNAL, "");
    pair.client.ping([1; 8]);
    pair.run();
    assert_eq!(pair.client.queued_len(), 0);
}

#[test]
fn a_stream_is_closed_if_too_much_is_not_complete() {
    let settings = Settings { partial_len_max: 1000, partials_len_max: 10_000, ..SETTINGS };
    let mut hostile = Hostile::with(settings);
    let long = "n".repeat(4000);
    let facts = Some(Facts { method: "m", name: &long });
    for stream in 1..=4 {
        hostile.open(stream);
    }
    // The names count.
    assert_eq!((hostile.says(1, true, facts), hostile.says(2, true, facts)), (None, None));
    let closed =
        |stream| Event::Closed { stream: id(stream), reason: Reason::OVERLOADED, text: "" };
    assert_eq!(hostile.says(3, true, facts), Some(closed(3)));
    let mut out = Vec::new();
    hostile.link.write_to(&mut out);
    let close = [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(out.windows(12).any(|bytes| bytes == close), "the peer is told");
    // What is still on its way is ignored; the others go on.
    assert_eq!(hostile.says(3, false, None), None);
    assert!(hostile.says(2, false, None).is_some());
    assert_eq!(hostile.says(4, true, facts), None);
    assert!(hostile.says(1, false, None).is_some() && hostile.says(4, false, None).is_some());
    assert_eq!(hostile.link.partials_len(), 0);
}

/// Its sender has credit, and does not use it.
#[test]
fn a_message_that_does_not_go_on_closes_its_stream() {
    let mut hostile = Hostile::with(SETTINGS);
    for stream in 1..=2 {
        hostile.open(stream);
        assert_eq!(hostile.says(stream, true, Some(NO_FACTS)), None);
    }
    hostile.link.sweep();
    assert_eq!(hostile.link.receive(&mut &b""[..]), None, "both had begun since");
    assert_eq!(hostile.says(2, true, None), None);
    hostile.link.sweep();
    let Some(Event::Closed { stream, reason, .. }) = hostile.link.receive(&mut &b""[..]) else {
        panic!("it is not closed")
    };
    assert_eq!((stream, reason), (id(1), Reason::OVERLOADED));
    assert_eq!(hostile.link.receive(&mut &b""[..]), None);
    hostile.link.sweep();
    assert!(hostile.link.receive(&mut &b""[..]).is_some());
    assert_eq!(hostile.link.partials_len(), 0);
}

/// We give them no credit: it is not they who do not go on.
#[test]
fn messages_that_wait_for_credit_are_not_late() {
    let settings = Settings { partial_len_max: 1000, queue_len_max: 1 << 20, ..SETTINGS };
    let (mut pair, streams) = Pair::with_streams(settings, 4);
    for stream in &streams {
        assert_eq!(try_send(&mut pair.client, *stream, &bytes(60_000)), Ok(()));
    }
    while pair.step() {
        if pair.carried[0] % 30_000 < 61 {
            pair.server().sweep();
        }
    }
    for stream in streams {
        assert_eq!(lengths(&pair.server_said, stream), [60_000]);
    }
}
