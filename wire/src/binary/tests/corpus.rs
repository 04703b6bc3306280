//! The properties over generated frames, whole and damaged; the same in every run.

use crate::binary::frame::{self, Facts, Frame, Message, MessageKind, Open, StreamId};
use crate::binary::{fuzz_link, v1};
use crate::json::generate::Chance;
use std::vec::Vec;

/// A frame that could come next, or nearly.
fn frame(chance: &mut Chance, sequence: &mut u64, out: &mut Vec<u8>) {
    let stream = StreamId::new(1 + u32::try_from(chance.below(4)).unwrap()).unwrap();
    if chance.below(20) != 0 {
        *sequence += 1;
    }
    let (sequence, number) = (*sequence, chance.below(8) as u64);
    let payload = std::vec![b'x'; 1 + chance.below(600)];
    let facts = (chance.below(3) != 0).then_some(Facts { method: "m", name: "n" });
    let kind = [MessageKind::Request, MessageKind::Response][chance.below(8) / 7];
    let has_more = chance.below(3) == 0;
    let message = Message { kind, facts, has_more, payload: &payload };
    let open = Open { server: "s", session: "", revision: "" };
    let frame = match chance.below(12) {
        0..3 => Frame::Open { stream, sequence, open },
        3..8 => Frame::Message { stream, sequence, message },
        8 => Frame::Close { stream, sequence, reason: 1, text: "t" },
        9 => Frame::Credit { stream, limit: number * 100_000 },
        10 => Frame::Ack { received: number / 4 },
        _ => Frame::Ping { token: [3; 8] },
    };
    frame.encode(out);
}

#[test]
fn the_property_of_links_holds_over_a_corpus() {
    let mut chance = Chance(2);
    for _ in 0..6000 {
        let mut bytes = std::vec![u8::try_from(chance.below(256)).unwrap()];
        let mut sequence = 0;
        for _ in 0..chance.below(12) {
            frame(&mut chance, &mut sequence, &mut bytes);
        }
        for _ in 0..chance.below(6) / 4 {
            chance.damage(&mut bytes);
        }
        fuzz_link(&bytes);
    }
}

#[test]
fn the_property_of_frames_holds_over_a_corpus() {
    let mut chance = Chance(3);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        frame(&mut chance, &mut 0, &mut bytes);
        if chance.below(2) == 0 {
            chance.damage(&mut bytes);
        }
        frame::fuzz(&bytes);
    }
}

#[test]
fn the_property_of_version_1_holds_over_a_corpus() {
    let mut chance = Chance(4);
    for _ in 0..20_000 {
        let dialect = [v1::Dialect::Short, v1::Dialect::Long][chance.below(2)];
        let mut bytes = Vec::new();
        match chance.below(3) {
            0 => v1::write_offer(&mut bytes, dialect, u32::try_from(chance.below(4)).unwrap()),
            1 => v1::write_ack(&mut bytes, dialect, 1),
            _ => v1::write_frame(&mut bytes, dialect, v1::Kind::Request, b"{}"),
        }
        if chance.below(2) == 0 {
            chance.damage(&mut bytes);
        }
        v1::fuzz(&bytes);
    }
}
