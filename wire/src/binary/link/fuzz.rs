//! The property of links that holds for every input.

use super::{Link, Settings};
use crate::binary::frame::{Frame, Hello, Limits, LinkId, Open, Welcome};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const SETTINGS: Settings = Settings {
    limits: Limits {
        window: 32 * 1024,
        frame_len_max: 1024,
        message_len_max: 4096,
        streams_max: 4,
        replay_len_max: 64 * 1024,
    },
    keep_ms: 1000,
    queue_len_max: 4096,
    queues_len_max: 8192,
    partial_len_max: 2048,
    partials_len_max: 3072,
};

/// A peer that sends anything gets the same events however its bytes are cut, and little back. The
/// fuzzer and the corpus test both call it.
///
/// The first byte picks the side and how the bytes are cut.
#[doc(hidden)]
pub fn fuzz_link(bytes: &[u8]) {
    let [pick, bytes @ ..] = bytes else { return };
    let cut = usize::from(*pick >> 1) * bytes.len() / 127;
    let (front, back) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
    let is_client = pick & 1 == 1;
    let whole = events(link(is_client), &[bytes]);
    let parts = events(link(is_client), &[front, back]);
    assert_eq!(whole, parts, "a cut at {cut} changed the events");
    if cut == 0 {
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(whole, events(link(is_client), &single), "cuts everywhere changed the events");
    }
}

/// A link that is set up; a client has two streams.
fn link(is_client: bool) -> Link {
    let (limits, link) = (SETTINGS.limits, LinkId([7; 16]));
    if !is_client {
        let hello = Hello { token: "", agent: "", link: LinkId::NONE, received: 0, limits };
        return Link::accept(link, b"", SETTINGS, &hello);
    }
    let Ok(mut client) = Link::connect(SETTINGS, "", "") else {
        unreachable!("the names are short");
    };
    let mut welcome = Vec::new();
    client.write_to(&mut Vec::new());
    let keep_ms = 1000;
    Frame::Welcome(Welcome { resumed: false, link, received: 0, limits, keep_ms })
        .encode(&mut welcome);
    while client.receive(&mut &welcome[..]).is_none() {}
    for server in ["a", "b"] {
        let opened = client.open(Open { server, session: "", revision: "" });
        assert!(opened.is_ok());
    }
    client
}

fn events(mut link: Link, parts: &[&[u8]]) -> Vec<String> {
    let mut events = Vec::new();
    let mut out = Vec::new();
    // What is due before anything was received, streams included.
    link.write_to(&mut out);
    link.write_to(&mut out);
    out.clear();
    for mut input in parts.iter().copied() {
        while let Some(event) = link.receive(&mut input) {
            events.push(format!("{event:?}"));
        }
        assert!(input.is_empty(), "input was left");
        link.write_to(&mut out);
    }
    let received: usize = parts.iter().map(|part| part.len()).sum();
    // A PING brings 28 bytes and takes as many; an error has a text.
    assert!(out.len() <= 2 * received + 256, "{} bytes in return", out.len());
    assert!(!link.has_ended() || link.streams_count() == 0);
    events
}
