//! HTTP servers that break the rules: the client gets 502, and the connection is not used again.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Message, Request};
use super::recorder::{After, Recorder, answer, echo};
use super::rig::{Rig, call, http, modern_call};
use crate::support::until;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const RESULT: &str = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;

/// What a server says that no client may see.
fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let of = |fields: &str| format!("{OK}{fields}\r\n\r\n{RESULT}").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let big = "x".repeat(1024 * 1024);
    vec![
        ("both lengths", of("Content-Length: 36\r\nTransfer-Encoding: chunked")),
        ("two lengths", of("Content-Length: 36\r\nContent-Length: 5")),
        ("the same length twice", of("Content-Length: 36\r\nContent-Length: 36")),
        ("a list of lengths", of("Content-Length: 36, 36")),
        ("a signed length", of("Content-Length: +36")),
        ("gzip, chunked", of("Transfer-Encoding: gzip, chunked")),
        ("two codings", of("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        ("folded", of("X: y\r\n z\r\nContent-Length: 36")),
        ("bare line feed", of("X: y\nContent-Length: 36")),
        ("NUL", of("X: \0\r\nContent-Length: 36")),
        ("space before the colon", of("Content-Length : 36")),
        ("large field", of(&format!("X: {big}\r\nContent-Length: 36"))),
        ("many fields", of(&format!("{}Content-Length: 36", "X: y\r\n".repeat(999)))),
        ("endless head", raw(OK).into_iter().chain(b"X: y\r\n".repeat(99_999)).collect()),
        ("no HTTP", raw("220 mail.example ESMTP\r\n\r\n")),
        ("binary", vec![0, 1, 2, 3, 0xff, 0xfe, b'\r', b'\n', b'\r', b'\n']),
        ("JSON", raw("{\"jsonrpc\":\"2.0\"}\r\n\r\n")),
        ("HTTP/2", raw("HTTP/2 200\r\n\r\n")),
        ("status 099", raw("HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n")),
        ("status 999", raw("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n")),
        ("switching", raw("HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")),
        ("interim flood", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(99_999)),
        ("nothing", Vec::new()),
        ("half a line", raw("HTTP/1.1 2")),
        ("half a head", raw(OK)),
        ("401", raw("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n")),
        ("403", raw("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")),
    ]
}

/// The number in the arguments of a call, which says what to do.
fn case(request: &Message) -> Option<usize> {
    let json: Value = serde_json::from_slice(&request.body).ok()?;
    json.pointer("/params/arguments/case")?.as_u64()?.try_into().ok()
}

fn ask(rig: &Rig, arguments: &str) -> Result<Message, String> {
    let mut wire = rig.wire();
    wire.send(Request::modern("/mcp", &modern_call("echo", arguments)).bytes());
    wire.try_answer()
}

/// A server with these answers to its cases, and good ones to everything else.
fn server(answers: Vec<(&'static str, Vec<u8>)>) -> Recorder {
    Recorder::start(move |request, stream| {
        let bytes = case(request).map_or_else(|| echo(request), |case| answers[case].1.clone());
        drop(stream.write_all(&bytes));
        // Who breaks the rules may also do so in a hurry.
        if bytes.len() < 99 { After::Close } else { After::Keep }
    })
}

#[test]
fn an_answer_that_breaks_the_rules_is_502_for_both_eras() {
    let answers = answers();
    let recorder = server(answers.clone());
    let rig = Rig::new(&http("hostile", &recorder.url()));
    let mut session = rig.open("hostile");
    for (number, (why, _)) in answers.iter().enumerate() {
        let arguments = format!(r#"{{"case":{number}}}"#);
        let modern = ask(&rig, &arguments).unwrap_or_else(|error| panic!("{why}: {error}"));
        let legacy = session.post(call("echo", &json!({ "case": number })));
        for said in [modern, legacy] {
            assert_eq!(said.status(), 502, "{why}: {}", said.text());
            let reason = &said.json()["error"]["data"]["gateway"];
            let known = ["server_invalid", "server_died", "server_credentials"];
            assert!(known.iter().any(|known| reason == known), "{why}: {reason}");
            assert_eq!(said.json()["id"], 7, "{why}");
        }
        let fine = ask(&rig, r#""fine""#).unwrap();
        assert_eq!(fine.json()["result"]["echo"], "fine", "after {why}");
    }
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    let seen = recorder.seen_on_conns();
    for (at, (conn, request)) in seen.iter().enumerate() {
        let is_last = seen.iter().skip(at + 1).all(|(other, _)| other != conn);
        assert!(is_last || case(request).is_none(), "used again: {request:?}");
    }
    recorder.check();
    rig.check();
}

#[test]
fn an_answer_that_breaks_off_is_never_complete() {
    let answers: Vec<(&str, Vec<u8>)> = [
        ("short body", "Content-Length: 99\r\n\r\n{\"jsonrpc\""),
        ("cut chunk", "Transfer-Encoding: chunked\r\n\r\n40\r\n{\"jsonrpc\""),
        ("bad chunk size", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"),
        ("bad chunk end", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n"),
        ("no last chunk", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        ("bad trailer", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx y\r\n\r\n"),
    ]
    .map(|(why, rest)| (why, format!("{OK}{rest}").into_bytes()))
    .into();
    let whys: Vec<&str> = answers.iter().map(|(why, _)| *why).collect();
    let recorder = Recorder::start(move |request, stream| {
        let bytes = case(request).map_or_else(|| echo(request), |case| answers[case].1.clone());
        drop(stream.write_all(&bytes));
        if case(request).is_some() { After::Close } else { After::Keep }
    });
    let rig = Rig::new(&http("hostile", &recorder.url()));
    for (number, why) in whys.iter().enumerate() {
        match ask(&rig, &format!(r#"{{"case":{number}}}"#)) {
            Ok(said) => assert_eq!(said.status(), 502, "{why}: {}", said.text()),
            Err(error) => assert!(error.contains("cut"), "{why}: {error}"),
        }
        assert_eq!(ask(&rig, "1").unwrap().json()["result"]["echo"], 1, "after {why}");
    }
    rig.check();
}

#[test]
fn bytes_behind_an_answer_never_become_the_answer_to_somebody_else() {
    let poison = r#"{"jsonrpc":"2.0","id":7,"result":{"echo":"POISON"}}"#;
    let mut bytes = answer("200 OK", "", RESULT.as_bytes());
    bytes.extend(answer("200 OK", "", poison.as_bytes()));
    let recorder = Recorder::start(move |request, stream| {
        // Time for others to queue up behind this one.
        thread::sleep(Duration::from_millis(200));
        let said = if case(request).is_some() { bytes.clone() } else { echo(request) };
        drop(stream.write_all(&said));
        After::Keep
    });
    let config = http("hostile", &recorder.url()) + "connections = 1\n";
    let rig = Rig::new(&config);
    let send = |arguments: &str| {
        let mut wire = rig.wire();
        wire.send(Request::modern("/mcp", &modern_call("echo", arguments)).bytes());
        wire
    };
    let mut first = send(r#"{"case":0}"#);
    until("the first", || (recorder.seen().len() == 1).then_some(()));
    // Some of them wait for the connection of the first.
    let others: Vec<_> = (0..8).map(|number| send(&number.to_string())).collect();
    assert_eq!(first.answer().json()["result"], json!({}));
    for (number, mut other) in others.into_iter().enumerate() {
        assert_eq!(other.answer().json()["result"]["echo"], number);
    }
    rig.check();
}

/// Writes until nobody reads.
fn flood(stream: &mut TcpStream, bytes: &[u8]) -> After {
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    while stream.write_all(bytes).is_ok() {}
    After::Close
}

#[test]
fn an_answer_without_an_end_costs_nothing_and_ends_with_its_client() {
    let recorder = Recorder::start(|request, stream| match case(request) {
        Some(_) => {
            drop(stream.write_all(format!("{OK}Transfer-Encoding: chunked\r\n\r\n").as_bytes()));
            flood(stream, format!("1000\r\n{}\r\n", " ".repeat(4096)).as_bytes())
        }
        None => {
            drop(stream.write_all(&echo(request)));
            After::Keep
        }
    });
    let rig = Rig::new(&http("hostile", &recorder.url()));
    let before = rig.rss();
    let mut wire = rig.wire();
    let call = modern_call("echo", r#"{"case":0}"#);
    wire.send(Request::modern("/mcp", &call).bytes());
    assert_eq!(wire.head().status(), 200);
    // The client does not read: the server has to wait.
    for number in 0..50 {
        let said = ask(&rig, &number.to_string()).unwrap();
        assert_eq!(said.json()["result"]["echo"], number);
    }
    assert!(rig.rss() < before + (64 << 20));
    drop(wire);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.check();
}

#[test]
fn nobody_at_home() {
    let free = crate::support::free_port();
    let rig = Rig::new(&http("gone", &format!("http://127.0.0.1:{free}/mcp")));
    let said = ask(&rig, "1").unwrap();
    assert_eq!(said.status(), 502);
    assert_eq!(said.json()["error"]["data"]["gateway"], "server_unreachable");
    assert_eq!(said.get("retry-after"), "1");
    let rig = Rig::new(&http("gone", "http://nobody.invalid/mcp"));
    assert_eq!(ask(&rig, "1").unwrap().status(), 502);
}
