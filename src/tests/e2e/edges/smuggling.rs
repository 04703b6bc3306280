//! Requests that two readers could take for different requests (RFC 9112, sections 2 to 7 and
//! 11): refused, the connection closed, and what hides behind them never read.

use super::http::{Request, find};
use super::recorder::Recorder;
use super::rig::{Rig, http, modern_call};

/// A request that is fine but for what a test puts into it, and one more behind it.
fn attack(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend(body);
    bytes.extend(hidden());
    bytes
}

/// The request that must not get through.
fn hidden() -> Vec<u8> {
    Request::modern("/mcp", &modern_call("echo", "\"SMUGGLED\"")).bytes()
}

fn body() -> String {
    modern_call("echo", "\"VISIBLE\"")
}

/// The head of a good request without its framing.
const HEAD: &str = "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
    Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
    Mcp-Method: tools/call\r\nMcp-Name: echo\r\n";

fn rig(recorder: &Recorder) -> Rig {
    Rig::new(&http("echo", &recorder.url()))
}

/// Sends it at once and in small pieces; both must be refused in the same way.
#[track_caller]
fn refused(rig: &Rig, bytes: &[u8], why: &str) {
    for len in [bytes.len(), 7] {
        let mut wire = rig.wire();
        for part in bytes.chunks(len) {
            wire.send(part);
        }
        let answer = wire.try_answer().unwrap_or_else(|error| panic!("{why}: {error}"));
        let is_fine = [400, 413, 414, 417, 431, 501, 505].contains(&answer.status());
        assert!(is_fine, "{why}: {} {}", answer.start, answer.text());
        assert_eq!(answer.get("connection"), "close", "{why}");
        assert!(answer.json()["error"]["data"]["gateway"].is_string(), "{why}");
        assert!(wire.is_closed(), "{why}: something behind it was answered");
    }
}

#[track_caller]
fn check_all(attacks: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    for (why, bytes) in attacks {
        refused(&rig, &bytes, &why);
    }
    assert_eq!(recorder.seen().len(), 0, "{:?}", recorder.seen());
    let answer = rig.ask(&Request::modern("/mcp", &body()));
    assert_eq!(answer.json()["result"]["echo"], "VISIBLE");
    recorder.check();
    rig.check();
}

/// Framing of the head.
const FIELDS: &[&str] = &[
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 0\r\nContent-Length: 44",
    "Content-Length: 5\r\nX: y\r\ncontent-length: 5",
    "Content-Length: 5, 5",
    "Content-Length: 5,6",
    "Content-Length: +5",
    "Content-Length: -1",
    "Content-Length: -0",
    "Content-Length: 0x5",
    "Content-Length: 5 0",
    "Content-Length: 5;q=1",
    "Content-Length: \"5\"",
    "Content-Length: ",
    "Content-Length: 18446744073709551616",
    "Content-Length: \u{ff15}",
    "Content-Length : 5",
    "Content-Length\t: 5",
    "Content-Length:\x0b5",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "Content-Length: 5\r\nTransfer-Encoding: identity",
    "Content-Length: 5\r\nTransfer-Encoding:",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunked;x=y",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding:",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\r\n\tTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\n\r Transfer-Encoding: chunked",
    "X: \x00",
    "X: a\x00b",
    "X: a\rb",
    "X\x00: y",
    ": y",
    "no colon",
    "X y: z",
    "X(y): z",
    "X\u{e9}: z",
    "Host: 127.0.0.1",
    "Host: evil.example",
    "hOST : 127.0.0.1",
    "Expect: 200-ok",
    "Expect: 100-continue, x",
];

#[test]
fn heads_that_two_readers_could_frame_differently() {
    let body = body();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    check_all(FIELDS.iter().flat_map(|fields| {
        // Whichever framing a lenient reader takes from it, the rest is a request.
        let bodies = [chunked.clone(), body.clone(), String::new()];
        let of = |body: String| {
            (format!("{fields:?}"), attack(&format!("{HEAD}{fields}\r\n\r\n"), body.as_bytes()))
        };
        bodies.map(of)
    }));
}

#[test]
fn chunks_that_two_readers_could_cut_differently() {
    const BODIES: &[&str] = &[
        "\r\n0\r\n\r\n",
        "g\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\t\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1\r\nx\r\n0\n\r\n",
        "1\r\nx\r\n0\r\n\n",
        "1\r\nx\r\n0\r\n \r\n",
        "00000000000000001\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "1;\x00\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1\r\nx\r\n0\r\nbad trailer\r\n\r\n",
        "1\r\nx\r\n0\r\n folded: x\r\n\r\n",
        "1\r\nx\r\n0\r\nA : x\r\n\r\n",
        "1\r\nx\r\n0\r\nA: \x00\r\n\r\n",
        "1\r\nx\r\n0\r\nA: b\n\r\n",
    ];
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(9000));
    let trailers = format!("1\r\nx\r\n0\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let bodies = BODIES.iter().map(|body| (*body).to_owned()).chain([long, trailers]);
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    check_all(bodies.map(|body| (format!("{body:.30?}"), attack(&head, body.as_bytes()))));
}

#[test]
fn request_lines_that_two_readers_could_read_differently() {
    const LINES: &[&str] = &[
        "POST  /mcp HTTP/1.1",
        "POST\t/mcp HTTP/1.1",
        " POST /mcp HTTP/1.1",
        "POST /mcp  HTTP/1.1",
        "POST /mcp HTTP/1.1 ",
        "POST /mcp HTTP/1.1\r",
        "POST /mcp x HTTP/1.1",
        "POST /mcp",
        "POST /mcp HTTP/1",
        "POST /mcp HTTP/01.1",
        "POST /mcp HTTP/1.10",
        "POST /mcp http/1.1",
        "POST /mcp HTTP/0.9",
        "POST /mcp HTTP/1.2",
        "POST /mcp HTTP/2.0",
        "POST /mcp#x HTTP/1.1",
        "POST /mcp\x00 HTTP/1.1",
        "POST /mcp\x7f HTTP/1.1",
        "POST /mcp\u{e9} HTTP/1.1",
        "POST mcp HTTP/1.1",
        "POST * HTTP/1.1",
        "POST http://evil.example/mcp HTTP/1.1",
        "POST http://127.0.0.1@evil.example/mcp HTTP/1.1",
        "POST ftp://127.0.0.1/mcp HTTP/1.1",
        "CONNECT 127.0.0.1:80 HTTP/1.1",
        "P\u{e9}ST /mcp HTTP/1.1",
        "PO@ST /mcp HTTP/1.1",
        "\r\n\r\nPOST /mcp HTTP/1.1",
        "\nPOST /mcp HTTP/1.1",
        "\rPOST /mcp HTTP/1.1",
    ];
    let body = body();
    let rest = HEAD.strip_prefix("POST /mcp HTTP/1.1").unwrap();
    let rest = format!("{rest}Content-Length: {}\r\n\r\n", body.len());
    let line =
        |line: &str| (format!("{line:?}"), attack(&format!("{line}{rest}"), body.as_bytes()));
    let bare = HEAD.replace("\r\n", "\n") + "\n";
    let no_host = format!("POST /mcp HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let long = line(&format!("POST /mcp?{} HTTP/1.1", "x".repeat(9000)));
    let many = format!("{HEAD}{}\r\n", "X: y\r\n".repeat(200));
    let large = format!("{HEAD}X: {}\r\n\r\n", "y".repeat(70_000));
    let old = HEAD.replace("HTTP/1.1", "HTTP/1.0") + "Transfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let others = [
        ("bare line feeds".to_owned(), attack(&bare, body.as_bytes())),
        ("no host".to_owned(), attack(&no_host, body.as_bytes())),
        ("many fields".to_owned(), attack(&many, b"")),
        ("large head".to_owned(), attack(&large, b"")),
        ("chunked in 1.0".to_owned(), attack(&old, chunked.as_bytes())),
        ("TLS".to_owned(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2".to_owned(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("WebSocket frames".to_owned(), vec![0x81, 0x85, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        long,
    ];
    check_all(LINES.iter().map(|text| line(text)).chain(others));
}

#[test]
fn what_has_one_meaning_is_served() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    let body = body();
    let (front, back) = body.split_at(9);
    let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunks = format!(
        "Transfer-Encoding: Chunked\r\n\r\n9\r\n{front}\r\n{:X};x=\"y\"\r\n{back}\r\n000\r\nA: b\r\n\r\n",
        back.len()
    );
    let wanted = [
        format!("{HEAD}{length}"),
        format!("{HEAD}{chunks}"),
        format!("\r\n{HEAD}{length}"),
        format!("{HEAD}X:y\r\nEmpty:\r\nTab:\ty\t\r\nConnection: x, , y\r\n{length}"),
        HEAD.replace("POST /mcp ", "POST http://127.0.0.1/mcp ") + &length,
        HEAD.replace("POST /mcp ", "POST /mcp/echo?SMUGGLED ") + &length,
    ];
    for (front, text) in wanted.iter().enumerate() {
        // Twice in one packet: pipelined requests are answered in turn.
        let mut wire = rig.wire();
        wire.send(text.repeat(2));
        for _ in 0..2 {
            assert_eq!(wire.answer().json()["result"]["echo"], "VISIBLE", "{front}");
        }
    }
    let seen = recorder.seen();
    assert_eq!(seen.len(), 2 * wanted.len());
    assert!(seen.iter().all(|request| request.body == body.as_bytes()));
    assert!(seen.iter().all(|request| find(request.start.as_bytes(), b"SMUGGLED").is_none()));
    recorder.check();
}

#[test]
fn a_request_that_waits_behind_a_refused_one_is_not_mistaken_for_its_body() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    let mut wire = rig.wire();
    // Refused by its head, but its body is framed: the next request begins behind it.
    let hidden = hidden();
    let decoy = Request::post("/nothing", hidden);
    let real = Request::modern("/mcp", &body());
    wire.send([decoy.bytes(), real.bytes()].concat());
    assert_eq!(wire.answer().status(), 404);
    assert_eq!(wire.answer().json()["result"]["echo"], "VISIBLE");
    assert!(recorder.find("SMUGGLED").is_none());
    // A GET with a body is framed like any other request.
    let get = Request { method: "GET", ..decoy };
    let mut wire = rig.wire();
    wire.send([get.bytes(), real.bytes()].concat());
    assert_eq!(wire.answer().status(), 404);
    assert_eq!(wire.answer().json()["result"]["echo"], "VISIBLE");
    assert!(recorder.find("SMUGGLED").is_none());
    recorder.check();
}

#[test]
fn nothing_is_served_behind_the_last_request() {
    let recorder = Recorder::echo();
    let rig = rig(&recorder);
    let last = Request::modern("/mcp", &body()).with("Connection", "close").bytes();
    let text = String::from_utf8(last.clone()).unwrap();
    let old = text.replace("HTTP/1.1", "HTTP/1.0").replace("Connection: close\r\n", "");
    for last in [last, old.into_bytes()] {
        let mut wire = rig.wire();
        wire.send([last, hidden()].concat());
        assert_eq!(wire.answer().json()["result"]["echo"], "VISIBLE");
        assert!(wire.is_closed());
    }
    assert_eq!(recorder.seen().len(), 2);
    recorder.check();
}

#[test]
fn an_answer_to_an_old_client_has_no_chunks() {
    let rig = Rig::new(&super::rig::demo());
    let session = rig.open("demo");
    let body = super::rig::call("sleep", &serde_json::json!({"ms": 200}));
    let request = String::from_utf8(session.request(body).bytes()).unwrap();
    let mut wire = rig.wire();
    wire.send(request.replace("HTTP/1.1", "HTTP/1.0"));
    let answer = wire.answer();
    assert_eq!((answer.get("connection"), answer.get("transfer-encoding")), ("close", ""));
    assert!(answer.payload().contains("Slept 200 ms."));
}
