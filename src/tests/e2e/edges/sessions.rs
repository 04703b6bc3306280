//! A session is its client's alone, and what belongs to it arrives exactly once.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::{Request, Wire};
use super::recorder::Recorder;
use super::rig::{Dir, META, Rig, Session, call, demo, http, initialize, modern_call, script};
use super::ws::{self, Socket};
use crate::support::until;

const PING: &str = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;

fn shared() -> String {
    demo() + "isolation = \"shared\"\n"
}

#[test]
fn a_session_is_unknown_at_every_other_server() {
    let recorder = Recorder::echo();
    let rig =
        Rig::new(&(demo() + &demo().replace("demo]", "other]") + &http("echo", &recorder.url())));
    let mut session = rig.open("demo");
    recorder.clear();
    for path in ["/mcp/other", "/mcp/echo"] {
        for request in [
            Request::post(path, PING),
            Request::post(path, call("echo", &json!({"text": "stolen"}))),
            Request::post(path, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            Request::get(path),
            Request::get(path).with("Last-Event-ID", "0-0"),
            Request::new("DELETE", path),
        ] {
            let method = request.method;
            let answer = rig.ask(&request.session(&session.id));
            assert_eq!(answer.status(), 404, "{method} {path}");
        }
    }
    assert_eq!(recorder.seen().len(), 0);
    assert_eq!(session.text("echo", &json!({"text": "mine"})), "mine");
}

#[test]
fn clients_do_not_choose_their_ids() {
    let rig = Rig::new(&demo());
    let chosen = "0123456789abcdef0123456789abcdef";
    let mut ids = HashSet::from([chosen.to_owned()]);
    for _ in 0..20 {
        let request = Request::post("/mcp", initialize("2025-11-25")).session(chosen);
        let answer = rig.ask(&request);
        assert!(ids.insert(answer.get("mcp-session-id").to_owned()), "{answer:?}");
    }
    let answer = rig.ask(&Request::post("/mcp", PING).session(chosen));
    assert_eq!(answer.status(), 404);
    // Neither does anybody get one before the server has agreed.
    let answer = rig.ask(&Request::post("/mcp", PING.replace("ping", "initialize")));
    assert_eq!(answer.get("mcp-session-id"), "", "{}", answer.text());
}

/// THREATS T4: who guesses is slowed down, and nobody else.
#[test]
fn guessing_session_ids_is_limited() {
    let rig = Rig::new(&demo());
    let mut session = rig.open("demo");
    let mut wire = rig.wire();
    let mut statuses = Vec::new();
    for number in 0..1000 {
        let guess = format!("{number:032x}");
        let answer = wire.ask(&Request::post("/mcp", PING).session(&guess));
        statuses.push(answer.status());
        if answer.status() == 429 {
            assert_eq!(answer.json()["error"]["data"]["gateway"], "too_many_unknown_sessions");
            assert_eq!(answer.get("retry-after"), "1");
            assert!(wire.is_closed());
            wire = rig.wire();
        }
    }
    assert!(statuses[..256].iter().all(|status| *status == 404), "a shard has half of the burst");
    assert!(statuses.iter().filter(|status| **status == 429).count() > 100, "{statuses:?}");
    assert_eq!(session.text("echo", &json!({"text": "mine"})), "mine");
}

/// Begins a call that asks the client; returns the stream and the question's id.
pub(super) fn asked(session: &Session, rig: &Rig) -> (Wire, Value) {
    let mut wire = rig.wire();
    wire.send(session.request(call("ask", &json!({"message": "Who?"}))).bytes());
    assert_eq!(wire.head().status(), 200);
    let question: Value = serde_json::from_str(&wire.data().unwrap()).unwrap();
    assert_eq!(question["method"], "elicitation/create");
    (wire, question["id"].clone())
}

pub(super) fn reply(id: &Value, text: &str) -> String {
    json!({
        "jsonrpc": "2.0", "id": id,
        "result": { "action": "accept", "content": { "answer": text } },
    })
    .to_string()
}

#[test]
fn only_the_client_that_was_asked_can_answer_and_only_once() {
    for config in [demo(), shared()] {
        let rig = Rig::new(&config);
        let (mut owner, mut thief) = (rig.open("demo"), rig.open("demo"));
        let (mut stream, id) = asked(&owner, &rig);
        for guess in [id.clone(), json!(0), json!(1), json!("1"), json!(2)] {
            assert_eq!(thief.post(reply(&guess, "forged")).status(), 202);
        }
        // Of another type it is another id.
        let other = id.as_u64().map_or_else(|| json!(1), |id| json!(id.to_string()));
        assert_eq!(owner.post(reply(&other, "forged")).status(), 202);
        assert_eq!(owner.post(reply(&id, "real")).status(), 202);
        let answer: Value = serde_json::from_str(&stream.data().unwrap()).unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], "The user said: real");
        let dropped = rig.metric("mcp_messages_dropped_total ");
        assert_eq!(owner.post(reply(&id, "late")).status(), 202);
        assert_eq!(rig.metric("mcp_messages_dropped_total "), dropped + 1);
    }
}

#[test]
fn an_http_server_never_sees_an_answer_to_what_it_did_not_ask() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&http("echo", &recorder.url()));
    let (mut session, mut old) = (rig.open("echo"), rig.open_as("echo", "2025-03-26"));
    for guess in ["0", "1", "\"init\"", "null"] {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":{guess},"error":{{"code":1,"message":"FORGED"}}}}"#);
        assert_eq!(session.post(body.clone()).status(), 202);
        assert_eq!(old.post(format!("[{body}]")).status(), 202);
    }
    assert!(recorder.find("FORGED").is_none());
    let modern = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{{META},"x":"FORGED"}}}}"#);
    assert_eq!(rig.ask(&Request::modern("/mcp", &modern)).status(), 400);
    assert!(recorder.find("FORGED").is_none());
}

fn cancel(id: impl std::fmt::Display) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    )
}

#[test]
fn a_cancellation_is_for_the_requests_of_its_own_session() {
    let rig = Rig::new(&shared());
    // All share what the first of them agrees on.
    let mut old = rig.open_as("demo", "2025-03-26");
    let (mut victim, mut thief) = (rig.open("demo"), rig.open("demo"));
    let nap = json!({"ms": 700});
    victim.wire.send(victim.request(call("sleep", &nap)).bytes());
    let mut modern = rig.wire();
    modern.send(Request::modern("/mcp", &modern_call("sleep", &nap.to_string())).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 2);
    // Ids of clients and whatever ids the gateway may use.
    let guesses: Vec<String> = (0..20).map(cancel).collect();
    for guess in &guesses {
        assert_eq!(thief.post(guess.clone()).status(), 202);
        let params = format!("\"params\":{{{META},");
        let request = Request::modern("/mcp", &guess.replace("\"params\":{", &params));
        assert_eq!(rig.ask(&request).status(), 202);
    }
    assert_eq!(old.post(format!("[{}]", guesses.join(","))).status(), 202);
    for answer in [victim.wire.answer(), modern.answer()] {
        assert_eq!(answer.json()["result"]["content"][0]["text"], "Slept 700 ms.", "{answer:?}");
    }
}

#[test]
fn a_client_can_cancel_its_own_request() {
    for config in [demo(), shared()] {
        let rig = Rig::new(&config);
        for version in ["2025-03-26", "2025-11-25"] {
            let mut session = rig.open_as("demo", version);
            let mut wire = rig.wire();
            wire.send(session.request(call("sleep", &json!({"ms": 600_000}))).bytes());
            rig.until_metric("mcp_exchanges_in_flight ", 1);
            let note = if version == "2025-03-26" { format!("[{}]", cancel(7)) } else { cancel(7) };
            assert_eq!(session.post(note).status(), 202);
            assert_eq!(wire.answer().payload(), "", "nothing is answered");
            rig.until_metric("mcp_exchanges_in_flight ", 0);
        }
    }
}

/// A gateway with a WebSocket session at another one, and that.
fn by_http() -> (Rig, Rig, Socket) {
    let near = Rig::new(&demo());
    let rig = Rig::new(&http("near", &near.gateway.url()));
    let mut socket = Socket::open(rig.gateway.addr, "/mcp");
    socket.initialize();
    let mut request = ws::call(&json!(1), "progress", &json!({"steps": 2, "interval": 600_000}));
    request["params"]["_meta"] = json!({"progressToken": 1});
    socket.send(request.to_string());
    assert_eq!(socket.message()["method"], "notifications/progress");
    (rig, near, socket)
}

#[test]
fn what_is_cancelled_at_an_http_server_is_never_answered() {
    let (rig, near, mut socket) = by_http();
    socket.send(cancel(1));
    near.until_metric("mcp_exchanges_cancelled_total ", 1);
    rig.until_metric("mcp_exchanges_cancelled_total ", 1);
    let echo = ws::call(&json!(2), "echo", &json!({"text": "next"}));
    assert_eq!(socket.ask(&echo)["id"], 2);
    assert_eq!(socket.notes, Vec::<Value>::new());
    rig.check();
}

/// That it cannot be reached now does not say that it has not begun.
#[test]
fn an_http_server_that_had_the_request_has_died() {
    let (rig, near, mut socket) = by_http();
    near.gateway.process.signal(Signal::KILL);
    let answer = socket.answer(&json!(1));
    assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    rig.check();
}

#[test]
fn an_event_id_means_nothing_in_another_session() {
    let rig = Rig::new(&demo());
    let (owner, mut thief) = (rig.open("demo"), rig.open("demo"));
    let mut wire = rig.wire();
    let body = call("sleep", &json!({"ms": 200}));
    wire.send(owner.request(body).bytes());
    assert_eq!(wire.head().status(), 200);
    let id = wire.event().unwrap().id.unwrap();
    for id in [id.as_str(), "1-0", "1-99", "99-0", "-", "0", "0-p-0", "1-18446744073709551615"] {
        let get = Request::get(&owner.path).with("Last-Event-ID", id);
        let answer = rig.ask(&get.clone().session(&thief.id));
        assert_eq!(answer.status(), 400, "{id}");
    }
    let get = Request::get(&owner.path).with("Last-Event-ID", &id);
    assert_eq!(rig.ask(&get).status(), 400);
    assert_eq!(thief.text("echo", &json!({"text": "x"})), "x");
    assert!(wire.data().unwrap().contains("Slept 200 ms."));
}

#[test]
fn a_newer_listener_replaces_the_older_one() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let mut session = rig.open("demo");
    let mut old = session.listen(&rig);
    let mut new = session.listen(&rig);
    session.call("toggle", &json!({}));
    assert!(new.data().unwrap().contains("notifications/tools/list_changed"));
    while let Some(event) = old.event() {
        assert_eq!(event.data, "");
    }
    // A server that cannot be listened to says so.
    let deaf = rig.open("echo");
    let answer = rig.ask(&Request::get("/mcp/echo").session(&deaf.id));
    assert_eq!(answer.status(), 405);
}

#[test]
fn what_a_lost_connection_missed_comes_exactly_once() {
    let rig = Rig::new(&demo());
    let session = rig.open("demo");
    let mut body: Value =
        serde_json::from_str(&call("progress", &json!({"steps": 12, "interval": 40}))).unwrap();
    body["params"]["_meta"] = json!({"progressToken": "t"});
    let mut wire = rig.wire();
    wire.send(session.request(body.to_string()).bytes());
    assert_eq!(wire.head().status(), 200);
    let (mut last, mut steps, mut results) = (String::new(), Vec::new(), 0);
    let first = wire.event().unwrap().id.unwrap();
    while results == 0 {
        // Two events, then the connection is gone.
        for _ in 0..2 {
            let Some(event) = wire.event() else { break };
            if event.data.is_empty() {
                continue;
            }
            last = event.id.unwrap();
            let message: Value = serde_json::from_str(&event.data).unwrap();
            match message["params"]["progress"].as_u64() {
                Some(step) => steps.push(step),
                None => results += usize::from(message["result"].is_object()),
            }
        }
        wire = rig.wire();
        let get = Request::get(&session.path).session(&session.id);
        wire.send(get.with("Last-Event-ID", if last.is_empty() { &first } else { &last }).bytes());
        assert_eq!(wire.head().status(), 200);
    }
    assert_eq!(steps, (1..=12).collect::<Vec<_>>());
    assert_eq!(wire.data(), None, "nothing comes behind the answer");
    // The whole stream is still there, once more, for who asks for it.
    let get = Request::get(&session.path).session(&session.id).with("Last-Event-ID", &first);
    let again = rig.ask(&get);
    assert_eq!(again.text().matches("\"progress\"").count(), 12, "{}", again.text());
    assert_eq!(again.text().matches("Took 12 steps.").count(), 1);
    rig.check();
}

#[test]
fn an_ended_session_is_gone_with_its_streams() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let mut session = rig.open("demo");
    let mut stream = session.listen(&rig);
    let mut wire = rig.wire();
    wire.send(session.request(call("sleep", &json!({"ms": 600_000}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    let delete = Request::new("DELETE", "/mcp/demo").session(&session.id);
    assert_eq!(session.wire.ask(&delete).status(), 200);
    while stream.event().is_some() {}
    assert_eq!(wire.answer().json()["error"]["data"]["gateway"], "unknown_session");
    assert_eq!(session.post(PING).status(), 404);
    assert_eq!(session.wire.ask(&delete).status(), 404);
    rig.until_metric("mcp_processes_running ", 0);
    let mut session = rig.open("echo");
    let delete = Request::new("DELETE", "/mcp/echo").session(&session.id);
    assert_eq!(session.wire.ask(&delete).status(), 200);
    until("DELETE", || recorder.seen().into_iter().find(|r| r.start.starts_with("DELETE ")));
    recorder.check();
}

/// What the gateway may grow by, whatever a client does not read.
const GROWTH_MAX: u64 = 64 << 20;

#[test]
fn who_reads_slowly_costs_little_and_hinders_nobody() {
    let rig = Rig::new(&demo());
    let (slow, mut fast) = (rig.open("demo"), rig.open("demo"));
    fast.text("large", &json!({"bytes": 1 << 20}));
    let before = rig.rss();
    let body = call("large", &json!({"bytes": 4 << 20}));
    let mut wire = rig.wire();
    // Requests in a row, on one connection: their answers must not pile up.
    for _ in 0..40 {
        wire.send(slow.request(body.clone()).bytes());
    }
    std::thread::sleep(Duration::from_millis(1500));
    for number in 0..20 {
        assert_eq!(fast.text("echo", &json!({"text": number.to_string()})), number.to_string());
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {grown}");
    for _ in 0..40 {
        let answer = wire.answer().payload();
        assert!((4 << 20) < answer.len(), "{answer}");
    }
    rig.check();
}

/// A server that floods whoever calls it with notifications, of 16 MB and more.
const FLOOD: &str = r#"
pad=$(head -c 1000 /dev/zero | tr '\0' x)
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"notifications/'*) ;;
    *'"flood"'*)
      yes '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"'$pad'"}}' | head -n 200000
      printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
  esac
done
"#;

#[test]
fn a_flood_of_events_waits_for_its_reader() {
    let dir = Dir::new();
    let path = dir.write("flood.sh", FLOOD);
    let rig = Rig::with(dir, &(script("flood", &path, &[]) + &demo()), |_| {});
    let (flooded, mut other) = (rig.open("flood"), rig.open("demo"));
    let before = rig.rss();
    let mut wire = rig.wire();
    wire.send(flooded.request(call("flood", &json!({}))).bytes());
    assert_eq!(wire.head().status(), 200);
    std::thread::sleep(Duration::from_millis(1500));
    for number in 0..20 {
        assert_eq!(other.text("echo", &json!({"text": number.to_string()})), number.to_string());
    }
    let grown = rig.rss().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {grown}");
    // It still comes, in order, as far as anybody wants to read.
    for _ in 0..1000 {
        assert!(wire.data().unwrap().contains("notifications/message"));
    }
    drop(wire);
    rig.check();
}
