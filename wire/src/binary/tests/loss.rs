//! Connections that are lost at every byte, and at random, lose no message and repeat none.

use super::pair::{Pair, SETTINGS, Said, send};
use crate::binary::{Facts, Link, MessageKind, Reason, SendError, StreamId};
use crate::json::generate::Chance;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::vec::Vec;

/// The client's half of the dialogue: three streams, one of them with a message of three frames,
/// one that the client closes.
fn ask(link: &mut Link, said: &Said) {
    match said {
        Said::Link("welcomed") => {
            for server in ["a", "b", "c"] {
                let open = crate::binary::Open { server, session: "s", revision: "2025-11-25" };
                link.open(open).unwrap();
            }
            send(link, 1, MessageKind::Request, "echo", b"one");
            send(link, 2, MessageKind::Request, "echo", &[b'x'; 600]);
            send(link, 1, MessageKind::Notification, "tell", b"two");
            send(link, 3, MessageKind::Request, "leave", b"three");
            send(link, 1, MessageKind::Request, "ask", &[b'y'; 300]);
        }
        Said::Message(stream, MessageKind::Request, _, payload) => {
            send(link, *stream, MessageKind::Response, "", payload);
        }
        Said::Message(2, MessageKind::Response, ..) => {
            link.close(StreamId::new(2).unwrap(), Reason::DONE, "that was all");
        }
        _ => {}
    }
}

/// The server's half: answers, asks back, closes.
fn answer(link: &mut Link, said: &Said) {
    let Said::Message(stream, MessageKind::Request, method, payload) = said else { return };
    send(link, *stream, MessageKind::Notification, "progress", b"soon");
    match method.as_str() {
        "ask n" => send(link, *stream, MessageKind::Request, "sample", payload),
        _ => send(link, *stream, MessageKind::Response, "", payload),
    }
    if method == "leave n" {
        link.close(StreamId::new(*stream).unwrap(), Reason::SERVER_FAILED, "");
    }
}

/// What was said of each stream, in order.
fn by_stream(said: &[Said]) -> BTreeMap<u32, Vec<Said>> {
    let mut streams: BTreeMap<u32, Vec<Said>> = BTreeMap::new();
    for said in said {
        streams.entry(said.stream().unwrap_or(0)).or_default().push(said.clone());
    }
    streams.remove(&0);
    streams
}

/// The dialogue, over connections that carry so many bytes in each direction.
fn dialogue(budgets: &[[usize; 2]]) -> Pair {
    let mut pair = Pair::new(SETTINGS);
    pair.apps = [ask, answer];
    for budget in budgets {
        pair.budget = *budget;
        while pair.budget[0] <= budget[0] && pair.budget[1] <= budget[1] && pair.step() {}
    }
    pair.run();
    pair
}

#[track_caller]
fn check(pair: &mut Pair, want: &Pair, why: &str) {
    assert_eq!(by_stream(&pair.client_said), by_stream(&want.client_said), "{why}");
    assert_eq!(by_stream(&pair.server_said), by_stream(&want.server_said), "{why}");
    // A PING makes both acknowledge: then nothing may be left.
    pair.client.ping([1; 8]);
    pair.run();
    assert_eq!((pair.client.queued_len(), pair.server().queued_len()), (0, 0), "{why}");
}

#[test]
fn a_connection_lost_at_any_byte_changes_nothing() {
    let want = dialogue(&[]);
    let count = |said: &[Said]| said.iter().filter(|said| said.stream().is_some()).count();
    assert_eq!((count(&want.client_said), count(&want.server_said)), (9, 10));
    let carried = want.carried;
    assert!(carried.iter().all(|len| 1400 < *len), "{carried:?}");
    for direction in [0, 1] {
        for at in 0..carried[direction] {
            let mut budget = [usize::MAX; 2];
            budget[direction] = at;
            let mut pair = dialogue(&[budget]);
            check(&mut pair, &want, &std::format!("lost at byte {at} of direction {direction}"));
        }
    }
    check(&mut dialogue(&[]), &want, "not lost");
}

#[test]
fn connections_that_are_lost_again_and_again_change_nothing() {
    let want = dialogue(&[]);
    for first in (100..1500).step_by(37) {
        for second in [0, 1, 70, 101, 140, 200, 333] {
            let budgets = [[first, usize::MAX], [second, second], [150, 200], [usize::MAX, 300]];
            let why = std::format!("lost after {budgets:?}");
            check(&mut dialogue(&budgets), &want, &why);
        }
    }
}

/// What each stream must still bring to one side.
#[derive(Default)]
struct Owed(BTreeMap<u32, Vec<Vec<u8>>>);

impl Owed {
    /// Compares with what has come, which is all of it at the end.
    fn check(&self, said: &[Said], seed: u64) {
        let mut came: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for said in said {
            if let Said::Message(stream, .., payload) = said {
                came.entry(*stream).or_default().push(payload.clone());
            }
        }
        assert!(came == self.0, "seed {seed}");
    }
}

#[test]
fn random_traffic_over_random_losses_arrives_once_and_in_order() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let (mut pair, streams) = Pair::with_streams(SETTINGS, 3);
        let mut owed = [Owed::default(), Owed::default()];
        for turn in 0..150_u32 {
            let id = streams[chance.below(3)];
            let direction = chance.below(2);
            let len = [1, 20, 250, 700, 3000, 9000][chance.below(6)];
            let payload: Vec<u8> = turn.to_be_bytes().into_iter().cycle().take(len).collect();
            let link = if direction == 0 { &mut pair.client } else { pair.server() };
            let facts = Facts { method: "m", name: "" };
            let kind = MessageKind::Notification;
            match link.send(id, kind, facts, Cow::Borrowed(&payload)) {
                Ok(()) => owed[direction].0.entry(id.get()).or_default().push(payload),
                Err(refused) => assert_eq!(refused.why, SendError::Full),
            }
            for _ in 0..chance.below(20) {
                pair.step();
            }
            if chance.below(10) == 0 {
                pair.budget = [chance.below(3000), chance.below(3000)];
            }
        }
        pair.run();
        owed[0].check(&pair.server_said, seed);
        owed[1].check(&pair.client_said, seed);
    }
}
