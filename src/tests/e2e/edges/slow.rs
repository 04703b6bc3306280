//! Clients that do not finish what they begin: they cost little, hinder nobody, and are told so.

use std::time::{Duration, Instant};

use serde_json::json;

use super::http::{Request, Wire};
use super::rig::{Rig, call, demo, modern_call};

#[test]
fn unfinished_requests_cost_little_hinder_nobody_and_come_to_an_end() {
    let rig = Rig::new(&demo());
    let mut session = rig.open("demo");
    session.text("echo", &json!({"text": "warm"}));
    let before = rig.rss();
    let request = Request::modern("/mcp", &modern_call("echo", r#"{"text":"x"}"#)).bytes();
    let body = session.request("").with("Content-Length", "16000000").bytes();
    let chunks = session.request("1\r\n{\r\n1").with("Transfer-Encoding", "chunked").bytes();
    let mut heads: Vec<Wire> = (0..50).map(|_| rig.wire()).collect();
    let mut bodies: Vec<Wire> = (0..100).map(|_| rig.wire()).collect();
    let silent: Vec<Wire> = (0..50).map(|_| rig.wire()).collect();
    for (number, wire) in heads.iter_mut().enumerate() {
        wire.send(&request[..=number]);
    }
    for (number, wire) in bodies.iter_mut().enumerate() {
        wire.send(if number % 2 == 0 { &body } else { &chunks });
    }
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_millis(9000) {
        // One byte now and then does not buy time.
        for (number, wire) in heads.iter_mut().enumerate().take(20) {
            let at = number + 1 + round;
            wire.send(&request[at..=at]);
        }
        assert_eq!(session.text("echo", &json!({"text": "x"})), "x");
        round += 1;
        std::thread::sleep(Duration::from_millis(300));
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown}");
    for mut wire in heads {
        match wire.try_answer() {
            Ok(answer) => assert_eq!(answer.status(), 408, "{answer:?}"),
            Err(why) => assert!(why.contains("closed") || why.contains("reset"), "{why}"),
        }
    }
    for mut wire in silent {
        assert!(wire.is_closed());
    }
    // Bodies have more time, as long as they come.
    let text = call("echo", &json!({"text": "late"}));
    let late = session.request(text).bytes();
    let mut wire = rig.wire();
    for part in late.chunks(late.len() / 9) {
        wire.send(part);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(wire.answer().json()["result"]["content"][0]["text"], "late");
    drop(bodies);
    rig.until_metric("mcp_gathered_bytes ", 0);
    rig.check();
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let rig = Rig::new(&demo());
    let session = rig.open("demo");
    let body = call("echo", &json!({"text": "x"}));
    let request = session.request(body.clone()).with("Expect", "100-continue").bytes();
    let (head, body) = request.split_at(request.len() - body.len());
    let mut wire = rig.wire();
    wire.send(head);
    let mut continued = [0; 25];
    wire.read_exact(&mut continued);
    assert_eq!(&continued, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.send(body);
    assert_eq!(wire.answer().json()["result"]["content"][0]["text"], "x");
    // Who is refused by the head is not.
    let large =
        session.request("").with("Expect", "100-continue").with("Content-Length", "99999999");
    assert_eq!(rig.ask(&large).status(), 413);
}
