//! What a message costs on a link of version 2: sent, carried and received, on one core.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::borrow::Cow;
use std::hint::black_box;
use wire::binary::{Event, Facts, Hello, Limits, Link, LinkId, MessageKind, Open, Settings};
use wire::binary::{StreamId, v1};

const LIMITS: Limits = Limits {
    window: 1 << 20,
    frame_len_max: 16 * 1024,
    message_len_max: 16 << 20,
    streams_max: 256,
    replay_len_max: 1 << 20,
};

const SETTINGS: Settings = Settings {
    limits: LIMITS,
    keep_ms: 60_000,
    queue_len_max: 1 << 20,
    queues_len_max: 64 << 20,
    partial_len_max: 8 << 20,
    partials_len_max: 64 << 20,
};

/// A client's link and a server's link, with a stream, and the bytes between them.
struct Pair {
    client: Link,
    server: Link,
    stream: StreamId,
    bytes: Vec<u8>,
}

impl Pair {
    fn new() -> Option<Self> {
        let mut client = Link::connect(SETTINGS, "", "bench").ok()?;
        client.write_to(&mut Vec::new());
        let hello = Hello { token: "", agent: "", link: LinkId::NONE, received: 0, limits: LIMITS };
        let mut server = Link::accept(LinkId([1; 16]), b"", SETTINGS, &hello);
        let mut bytes = Vec::new();
        server.write_to(&mut bytes);
        client.receive(&mut &bytes[..])?;
        let stream = client.open(Open { server: "s", session: "", revision: "" }).ok()?;
        let mut pair = Self { client, server, stream, bytes };
        pair.up();
        Some(pair)
    }

    /// Carries what the client has to send; the bytes of messages that arrived.
    fn up(&mut self) -> usize {
        let mut len = 0;
        loop {
            self.bytes.clear();
            self.client.write_to(&mut self.bytes);
            if self.bytes.is_empty() {
                return len;
            }
            let mut input = &self.bytes[..];
            let (before, mut messages) = (len, 0);
            while let Some(event) = self.server.receive(&mut input) {
                if let Event::Message { payload, .. } = event {
                    len += black_box(payload).len();
                    messages += 1;
                }
            }
            self.server.release(self.stream, messages, len - before);
            let mut back = Vec::new();
            self.server.write_to(&mut back);
            while self.client.receive(&mut &back[..]).is_some() {}
        }
    }

    fn send(&mut self, payload: Cow<'_, [u8]>) {
        let facts = Facts { method: "tools/call", name: "get_weather" };
        let sent = self.client.send(self.stream, MessageKind::Request, facts, payload);
        assert!(sent.is_ok());
    }
}

fn links(c: &mut Criterion) {
    for (name, len, count) in [("196B", 196, 1), ("196B x32", 196, 32), ("50KB", 50_000, 1)] {
        let Some(mut pair) = Pair::new() else { unreachable!("both are valid") };
        let payload = vec![b'x'; len];
        let mut group = c.benchmark_group("binary_link");
        group.throughput(Throughput::Bytes((len * count) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..count {
                    pair.send(Cow::Borrowed(black_box(&payload)));
                }
                assert_eq!(pair.up(), len * count);
            });
        });
        group.finish();
    }
}

fn frames(c: &mut Criterion) {
    let mut bytes = Vec::new();
    v1::write_frame(&mut bytes, v1::Dialect::Short, v1::Kind::Request, &[b'x'; 196]);
    c.bench_function("binary_v1/decode", |b| {
        b.iter(|| v1::Frame::decode(black_box(&bytes), Some(v1::Dialect::Short)).is_ok());
    });
}

criterion_group!(benches, links, frames);
criterion_main!(benches);
