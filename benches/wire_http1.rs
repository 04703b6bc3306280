//! Bytes per second through the HTTP/1.1 and SSE codecs, for messages like those of MCP.
//!
//! Not a load test: there is no I/O here, and every input is in the cache.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::Decoded;
use wire::http1::{self, Body, BodyDecoder, CHUNK_END, HEAD_END, HeaderSlots, LAST_CHUNK, Limits};
use wire::sse::{self, EventParser};

const LIMITS: Limits = Limits { head_len_max: 16 * 1024, target_len_max: 4 * 1024 };

const REQUEST: &[u8] = b"POST /mcp HTTP/1.1\r\n\
    host: gateway.example.com\r\n\
    user-agent: mcp-client/1.0 (linux; x86_64)\r\n\
    accept: application/json, text/event-stream\r\n\
    accept-encoding: gzip, deflate, br\r\n\
    content-type: application/json\r\n\
    mcp-protocol-version: 2025-06-18\r\n\
    mcp-session-id: 1868a90c-1e3e-4f5b-8a0c-2f3f6a9d1b7e\r\n\
    authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl\r\n\
    connection: keep-alive\r\n\
    content-length: 128\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    date: Mon, 01 Jan 2026 00:00:00 GMT\r\n\
    server: example\r\n\
    content-type: text/event-stream\r\n\
    cache-control: no-cache, no-transform\r\n\
    mcp-session-id: 1868a90c-1e3e-4f5b-8a0c-2f3f6a9d1b7e\r\n\
    transfer-encoding: chunked\r\n\r\n";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("http1_head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |b| {
        b.iter(|| {
            let mut slots = HeaderSlots::new();
            let decoded = http1::request(black_box(REQUEST), &mut slots, LIMITS);
            assert!(matches!(decoded, Ok(Decoded::Item { .. })));
        });
    });
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| {
        b.iter(|| {
            let mut slots = HeaderSlots::new();
            let decoded = http1::response(black_box(RESPONSE), &mut slots, LIMITS, false);
            assert!(matches!(decoded, Ok(Decoded::Item { .. })));
        });
    });
    let mut out = Vec::with_capacity(1024);
    group.bench_function("write", |b| {
        b.iter(|| {
            out.clear();
            http1::write_status_line(&mut out, black_box(200));
            http1::write_header(&mut out, "content-type", b"application/json");
            http1::write_header(&mut out, "mcp-session-id", b"1868a90c-1e3e-4f5b-8a0c");
            http1::write_length(&mut out, black_box(1234));
            out.extend_from_slice(HEAD_END);
            black_box(out.len())
        });
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("http1_chunked");
    for chunk_len in [128, 4096] {
        let mut bytes = Vec::new();
        for _ in 0..16 {
            http1::write_chunk_head(&mut bytes, chunk_len);
            bytes.resize(bytes.len() + chunk_len, b'x');
            bytes.extend_from_slice(CHUNK_END);
        }
        bytes.extend_from_slice(LAST_CHUNK);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("16_of_{chunk_len}"), |b| {
            b.iter(|| {
                let mut decoder = BodyDecoder::new(Body::Chunked);
                let mut rest = black_box(&bytes[..]);
                let mut data_len = 0;
                while let Ok(part) = decoder.decode(rest) {
                    data_len += part.data.len();
                    rest = rest.get(part.used..).unwrap_or_default();
                    if part.done {
                        break;
                    }
                }
                assert_eq!(data_len, 16 * chunk_len);
            });
        });
    }
    group.finish();
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("sse");
    for data_len in [256, 64 * 1024] {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            sse::write_event(
                &mut bytes,
                Some("message"),
                Some(b"7_0"),
                None,
                &vec![b'x'; data_len],
            );
        }
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("parse_4_of_{data_len}"), |b| {
            let mut parser = EventParser::new(1 << 20);
            b.iter(|| {
                let mut input = black_box(&bytes[..]);
                let mut count = 0;
                while let Ok(Some(event)) = parser.next(&mut input) {
                    assert_eq!(event.data.len(), data_len);
                    count += 1;
                }
                assert_eq!(count, 4);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heads, chunks, events);
criterion_main!(benches);
