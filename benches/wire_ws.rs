//! Bytes per second through the WebSocket codec, for messages like those of MCP.
//!
//! Not a load test: there is no I/O here, and every input is in the cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::ws::{
    DeflateParams, Deflater, Item, Limits, MessageKind, Receiver, Role, mask, write_message,
};

const LIMITS: Limits = Limits { message_len_max: 1 << 22, frames_max: 1 << 16 };

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const CALL: &str = "{\"jsonrpc\":\"2.0\",\"id\":17,\"method\":\"tools/call\",\"params\":\
    {\"name\":\"echo\",\"arguments\":{\"text\":\"hello\"}}}";

fn masks(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws_mask");
    for len in [128, 64 * 1024] {
        let mut bytes = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| {
            b.iter(|| mask(black_box(&mut bytes), black_box(KEY), black_box(1)));
        });
    }
    group.finish();
}

/// Reads all of `bytes`, in pieces, and counts the messages.
fn read(bytes: &mut [u8], piece_len: usize, deflate: Option<DeflateParams>) -> usize {
    let mut receiver = Receiver::new(Role::Server, LIMITS, deflate);
    let mut count = 0;
    for mut piece in bytes.chunks_mut(piece_len) {
        while let Ok(Some(Item::Text(message))) = receiver.next(&mut piece) {
            black_box(&message);
            count += 1;
        }
    }
    count
}

fn receive(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws_receive");
    for len in [CALL.len(), 64 * 1024] {
        let message = CALL.repeat(len.div_ceil(CALL.len()));
        let mut bytes = Vec::new();
        for _ in 0..16 {
            let message = message.as_bytes();
            write_message(&mut bytes, None, MessageKind::Text, message, Some(KEY));
        }
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut scratch = bytes.clone();
        for (name, piece_len) in [("whole", bytes.len()), ("in_4000s", 4000)] {
            group.bench_function(format!("16_of_{len}_{name}"), |b| {
                b.iter(|| {
                    // Reading unmasks in place.
                    scratch.copy_from_slice(&bytes);
                    assert_eq!(read(&mut scratch, piece_len, None), 16);
                });
            });
        }
    }
    group.finish();
}

fn compress(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws_compress");
    let deflaters = [
        ("fresh", Deflater::new(Role::Client, DeflateParams::WITHOUT_CONTEXT, 0)),
        ("shared", Deflater::shared(15, 0)),
        ("kept", Deflater::new(Role::Client, DeflateParams::WITH_CONTEXT, 0)),
    ];
    for (name, mut deflater) in deflaters {
        for len in [1024, 64 * 1024] {
            let message = CALL.repeat(len / CALL.len());
            group.throughput(Throughput::Bytes(message.len() as u64));
            group.bench_function(format!("{len}_{name}"), |b| {
                b.iter(|| deflater.compress(black_box(message.as_bytes())).map(|out| out.len()));
            });
        }
    }
    group.finish();
}

fn inflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("ws_inflate");
    for (name, params) in
        [("fresh", DeflateParams::WITHOUT_CONTEXT), ("kept", DeflateParams::WITH_CONTEXT)]
    {
        for len in [1024, 64 * 1024] {
            let message = CALL.repeat(len / CALL.len());
            let (mut bytes, mut deflater) = (Vec::new(), Deflater::new(Role::Client, params, 0));
            for _ in 0..16 {
                let (deflater, message) = (Some(&mut deflater), message.as_bytes());
                write_message(&mut bytes, deflater, MessageKind::Text, message, Some(KEY));
            }
            let mut scratch = bytes.clone();
            group.throughput(Throughput::Bytes(16 * message.len() as u64));
            group.bench_function(format!("16_of_{len}_{name}"), |b| {
                b.iter(|| {
                    scratch.copy_from_slice(&bytes);
                    assert_eq!(read(&mut scratch, 4000, Some(params)), 16);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, masks, receive, compress, inflate);
criterion_main!(benches);
