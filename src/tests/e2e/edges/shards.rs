//! Connections that mix sessions of several shards: they move, and when that does not help, their
//! requests go through a tunnel. Nobody can tell the difference.

use serde_json::{Value, json};

use super::http::{Request, Wire};
use super::rig::{Rig, Session, call, demo, modern_call};
use crate::support::until;

/// A gateway, a connection that has moved as often as one may, and sessions of both shards.
fn mixed() -> (Rig, Wire, Vec<Session>) {
    let rig = Rig::new(&demo());
    let mut sessions = Vec::new();
    let mut wire = rig.wire();
    until("sessions of both shards", || {
        sessions.push(rig.open("demo"));
        for round in 0..4 {
            for session in &sessions {
                say(&mut wire, session, &format!("{round}"));
            }
        }
        (0 < rig.metric("mcp_requests_tunnelled_total ")).then_some(())
    });
    assert!(0 < rig.metric("mcp_connections_moved_total "));
    (rig, wire, sessions)
}

#[track_caller]
fn say(wire: &mut Wire, session: &Session, text: &str) {
    let answer = wire.ask(&session.request(call("echo", &json!({ "text": text })))).json();
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

#[test]
fn one_connection_serves_sessions_of_all_shards() {
    let (rig, mut wire, sessions) = mixed();
    for round in 0..20 {
        for (number, session) in sessions.iter().enumerate() {
            say(&mut wire, session, &format!("{round} {number}"));
        }
    }
    // In one packet: they are answered in turn.
    for mut wire in [wire, rig.wire()] {
        let text = |number: usize| format!("packed {number}");
        let request = |(number, session): (usize, &Session)| {
            session.request(call("echo", &json!({ "text": text(number) }))).bytes()
        };
        let bytes: Vec<u8> = sessions.iter().enumerate().flat_map(request).collect();
        wire.send(bytes.repeat(3));
        for _ in 0..3 {
            for number in 0..sessions.len() {
                let answer = wire.answer().json();
                assert_eq!(answer["result"]["content"][0]["text"], text(number));
            }
        }
    }
    rig.check();
}

#[test]
fn refusals_large_bodies_and_chunks_go_through_too() {
    let (rig, mut wire, sessions) = mixed();
    let large = "x".repeat(3 << 20);
    for session in &sessions {
        say(&mut wire, session, &large);
        let body = call("echo", &json!({"text": "chunks"}));
        let (front, back) = body.split_at(20);
        let body = format!("14\r\n{front}\r\n{:x}\r\n{back}\r\n0\r\n\r\n", back.len());
        let answer = wire.ask(&session.request(body).with("Transfer-Encoding", "chunked"));
        assert_eq!(answer.json()["result"]["content"][0]["text"], "chunks");
        assert_eq!(wire.ask(&session.request("{")).json()["error"]["code"], -32700);
        let wrong = session.request("{}").set("Content-Type", "text/plain");
        assert_eq!(wire.ask(&wrong).status(), 415);
        let note = r#"{"jsonrpc":"2.0","method":"notifications/nothing"}"#;
        assert_eq!(wire.ask(&session.request(note)).status(), 202);
        let modern = Request::modern("/mcp", &modern_call("echo", r#"{"text":"modern"}"#));
        assert_eq!(wire.ask(&modern).json()["result"]["content"][0]["text"], "modern");
    }
    let missing = Request::post("/mcp", "{}").session("0123456789abcdef0123456789abcdef");
    assert_eq!(wire.ask(&missing).status(), 400);
    for session in &sessions {
        let delete = Request::new("DELETE", "/mcp").session(&session.id);
        assert_eq!(wire.ask(&delete).status(), 200);
        assert_eq!(wire.ask(&delete).status(), 404);
    }
    rig.until_metric("mcp_processes_running ", 1);
    rig.check();
}

#[test]
fn streams_go_through_and_end_with_their_client() {
    let (rig, wire, mut sessions) = mixed();
    drop(wire);
    for _ in 0..3 {
        for number in 0..sessions.len() {
            let mut wire = rig.wire();
            // Wherever the connection is by then.
            for other in &sessions {
                say(&mut wire, other, "somewhere");
            }
            wire.send(Request::get("/mcp").session(&sessions[number].id).bytes());
            assert_eq!(wire.head().status(), 200);
            sessions[number].call("toggle", &json!({}));
            assert!(wire.data().unwrap().contains("notifications/tools/list_changed"));
        }
    }
    for session in &sessions {
        let mut wire = rig.wire();
        for other in &sessions {
            say(&mut wire, other, "somewhere");
        }
        let mut body: Value =
            serde_json::from_str(&call("progress", &json!({"steps": 5, "interval": 60}))).unwrap();
        body["params"]["_meta"] = json!({"progressToken": 1});
        wire.send(session.request(body.to_string()).bytes());
        assert_eq!(wire.head().status(), 200);
        let first = wire.event().unwrap().id.unwrap();
        drop(wire);
        let get = Request::get("/mcp").session(&session.id).with("Last-Event-ID", &first);
        let rest = rig.wire().ask(&get);
        assert_eq!(rest.text().matches("\"progress\"").count(), 5, "{}", rest.text());
        assert_eq!(rest.text().matches("Took 5 steps.").count(), 1);
    }
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.check();
}

#[test]
fn a_modern_client_that_leaves_is_missed_at_the_other_end_as_well() {
    let (rig, wire, sessions) = mixed();
    drop(wire);
    let nap = modern_call("sleep", r#"{"ms":600000}"#);
    let mut wires: Vec<Wire> = (0..8).map(|_| rig.wire()).collect();
    for wire in &mut wires {
        for session in &sessions {
            say(wire, session, "somewhere");
        }
        wire.send(Request::modern("/mcp", &nap).bytes());
    }
    rig.until_metric("mcp_exchanges_in_flight ", 8);
    drop(wires);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    assert_eq!(rig.metric("mcp_exchanges_cancelled_total "), 8);
    rig.check();
}
