//! One test for each fuzz target, and that there is one.

use super::mutate::Target;
use super::vectors;
use crate::{binary, envelope, http1, json, lines, rpc, sse, ws};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::string::String;

const JSON_WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0041",
    b"\\ud83d\\ude00",
    b"\\ud83d",
    b"-0",
    b"1e5",
    b"0.1",
    b"null",
    b"true",
    b"false",
    b" ",
    b"\n",
    b"\r\n",
    b"\t",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xed\xa0\x80",
    b"{\"a\":",
    b"[[[[",
    b"9007199254740993",
    b"\"\"",
];

const RPC_WORDS: &[&[u8]] = &[
    b"\"jsonrpc\":\"2.0\"",
    b"\"id\":",
    b"\"id\":null",
    b"\"method\":\"x\"",
    b"\"params\":{}",
    b"\"result\":{}",
    b"\"error\":{\"code\":-1,\"message\":\"\"}",
    b"\"_meta\":{\"progressToken\":1}",
    b"\"name\":\"n\"",
    b"\"uri\":\"u\"",
    b"\"requestId\":1",
    b"\"Id\":1",
    b"\"\\u0069d\":1",
    b"\"protocolVersion\":\"2025-11-25\"",
    b"\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\n",
];

const ENVELOPE_WORDS: &[&[u8]] = &[
    b"\"mcp_payload\":",
    b"\"message\":",
    b"\"target_namespace\":",
    b"\"auth_token\":",
    b"\"id\":",
    b"\"jsonrpc\":",
    b"\"MCP_payload\":",
    b"\"mcp_\\u0070ayload\":",
    b"\"auth_to\xe2\x84\xaaen\":",
    b"null",
    b"\"x\"",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b",",
    b"\"",
    b"\\",
    b"\n",
    b" ",
];

const HTTP_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"Host: a\r\n",
    b"Content-Length: 1\r\n",
    b"Content-Length: 1, 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"ffffffffffffffff\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1 204 \r\n",
    b"GET / HTTP/1.1\r\n",
    b"http://a/",
];

const UPGRADE_WORDS: &[&[u8]] = &[
    b"Upgrade: websocket\r\n",
    b"Connection: keep-alive, Upgrade\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Protocol: mcp\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
    b"; server_no_context_takeover",
    b"; client_no_context_takeover",
    b"; server_max_window_bits=10",
    b"; client_max_window_bits",
    b"; client_max_window_bits=\"9\"",
    b"permessage-deflate",
    b",",
    b";",
    b"\"",
    b"=",
    b"\\",
    b" ",
    b"\r\n",
    b"mcp",
];

const SSE_WORDS: &[&[u8]] = &[
    b"data: ",
    b"data:",
    b"data",
    b"id: ",
    b"id",
    b"retry: ",
    b"event: ",
    b":",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"7",
    b"\0",
    b"\xef\xbb\xbf",
    b"{\"jsonrpc\":\"2.0\"}",
    b"message",
    b" ",
];

const LINE_WORDS: &[&[u8]] =
    &[b"\n", b"\r\n", b"\r", b"\n\n", b"{}", b" ", b"\0", b"\xff", b"{\"a\":1}\n"];

const WS_WORDS: &[&[u8]] = &[
    b"\x81\x00",
    b"\x01\x00",
    b"\x80\x00",
    b"\x89\x00",
    b"\x8a\x00",
    b"\x88\x00",
    b"\x88\x02\x03\xe8",
    b"\xc1\x00",
    b"\x81\x80\x00\x00\x00\x00",
    b"\x00\x80\x00\x00\x00\x00",
    b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x81\xfe\x00\x7e",
    b"\x81\x7e\x00\x7e",
    b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\xe2\x82\xac",
    b"\xff",
    b"\0",
    b"\xf3\x48\xcd\xc9\xc9\x07\x00",
    b"\x00\x00\xff\xff",
];

const DEFLATE_WORDS: &[&[u8]] = &[
    b"\x00\x00\xff\xff",
    b"\x00\x00\x00\xff\xff",
    b"\x03\x00",
    b"\xf3\x48\xcd\xc9\xc9\x07\x00",
    b"\x01\x00\x00\xff\xff",
    b"\x02\x00",
    b"\xff",
    b"\0",
    b"aaaaaaaaaaaaaaaa",
    b"{\"jsonrpc\":\"2.0\",\"id\":",
];

const BINARY_WORDS: &[&[u8]] = &[
    b"MCPB\0\x01\0\x01\0\0\0\0",
    b"MCP\0\0\x01\0\x02\0\0\0\0\0\0\0\0",
    b"MCPB",
    b"MCP\0",
    b"\0",
    b"\xff",
    b"\0\0\0\x01",
    b"\0\0\0\0\0\0\0\x01",
    b"\0\xa0\0\0",
    b"\0\xa0\0\x01",
    b"{\"min_version\":1,\"max_version\":2}",
    b"x",
];

#[test]
fn json() {
    let (vectors, words) = (vectors::json(), JSON_WORDS);
    Target { name: "json", property: json::fuzz, knobs: 0, vectors, words, rounds: 120_000 }.run();
}

#[test]
fn rpc() {
    let (vectors, words) = (vectors::rpc(), RPC_WORDS);
    Target { name: "rpc", property: rpc::fuzz, knobs: 0, vectors, words, rounds: 150_000 }.run();
}

#[test]
fn envelope() {
    let (vectors, words) = (vectors::envelope(), ENVELOPE_WORDS);
    let property = envelope::fuzz;
    Target { name: "envelope", property, knobs: 0, vectors, words, rounds: 150_000 }.run();
}

#[test]
fn http1_message() {
    let (vectors, words) = (vectors::http1(), HTTP_WORDS);
    let property = http1::fuzz;
    Target { name: "http1_message", property, knobs: 1, vectors, words, rounds: 200_000 }.run();
}

#[test]
fn sse() {
    let (vectors, words) = (vectors::sse(), SSE_WORDS);
    Target { name: "sse", property: sse::fuzz, knobs: 2, vectors, words, rounds: 120_000 }.run();
}

#[test]
fn lines() {
    let (vectors, words) = (vectors::lines(), LINE_WORDS);
    Target { name: "lines", property: lines::fuzz, knobs: 1, vectors, words, rounds: 150_000 }
        .run();
}

#[test]
fn ws() {
    let (vectors, words) = (vectors::ws(), WS_WORDS);
    Target { name: "ws", property: ws::fuzz, knobs: 2, vectors, words, rounds: 50_000 }.run();
}

#[test]
fn ws_deflate() {
    let (vectors, words) = (vectors::deflate(), DEFLATE_WORDS);
    let property = ws::fuzz_deflate;
    Target { name: "ws_deflate", property, knobs: 2, vectors, words, rounds: 4_000 }.run();
}

#[test]
fn ws_handshake() {
    let (vectors, words) = (vectors::handshake(), UPGRADE_WORDS);
    let property = ws::fuzz_handshake;
    Target { name: "ws_handshake", property, knobs: 1, vectors, words, rounds: 15_000 }.run();
}

#[test]
fn binary_v1() {
    let (vectors, words) = (vectors::v1(), BINARY_WORDS);
    let property = binary::v1::fuzz;
    Target { name: "binary_v1", property, knobs: 0, vectors, words, rounds: 200_000 }.run();
}

#[test]
fn binary_frame() {
    let (vectors, words) = (vectors::frames(), BINARY_WORDS);
    let property = binary::frame::fuzz;
    Target { name: "binary_frame", property, knobs: 0, vectors, words, rounds: 300_000 }.run();
}

#[test]
fn binary_link() {
    let (vectors, words) = (vectors::links(), BINARY_WORDS);
    let property = binary::fuzz_link;
    Target { name: "binary_link", property, knobs: 1, vectors, words, rounds: 60_000 }.run();
}

/// A target that the fuzzer has and this test command does not would be run by nobody.
#[test]
fn every_fuzz_target_has_a_test() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let name = |path: &Path| String::from(path.file_stem().unwrap().to_str().unwrap());
    let found = fs::read_dir(targets).unwrap().map(|entry| name(&entry.unwrap().path()));
    let found: BTreeSet<String> = found.collect();
    let tested = include_str!("targets.rs").lines().filter_map(|line| line.strip_prefix("fn "));
    let tested = tested.filter_map(|line| line.strip_suffix("() {"));
    let mut tested: BTreeSet<String> = tested.map(String::from).collect();
    assert!(tested.remove("every_fuzz_target_has_a_test"));
    assert_eq!(found, tested);
}
