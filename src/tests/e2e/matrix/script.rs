//! What two clients live through in every cell, step by step. Every message that comes is one
//! that is waited for: one too many fails the step that meets it.

use std::slice;

use serde_json::{Value, json};

use super::Kind;
use super::servers::{SERVERS, Server, Servers};
use super::talker::{Talker, text};
use crate::support::until;

/// A step of the script.
pub(super) struct Step {
    /// What [`super::Impossible`] calls it.
    pub(super) name: &'static str,
    pub(super) run: fn(&mut Cell<'_>),
}

/// In this order.
pub(super) const STEPS: &[Step] = &[
    Step { name: "open", run: |cell| cell.both().into_iter().for_each(Talker::open) },
    Step { name: "session", run: |cell| cell.both().into_iter().for_each(session) },
    Step { name: "discovery", run: |cell| cell.both().into_iter().for_each(Talker::open) },
    Step { name: "ids", run: |cell| cell.both().into_iter().for_each(ids) },
    Step { name: "lists", run: |cell| cell.both().into_iter().for_each(lists) },
    Step { name: "call", run: |cell| cell.both().into_iter().for_each(call) },
    Step { name: "log", run: log },
    Step { name: "progress", run: progress },
    Step { name: "elicitation", run: elicitation },
    Step { name: "sampling", run: sampling },
    Step { name: "forged answers", run: forged },
    Step { name: "notifications", run: notifications },
    Step { name: "cancellation", run: cancellation },
    Step { name: "8 MB", run: |cell| eight_megabytes(&mut cell.left) },
    Step { name: "equal ids", run: equal_ids },
    Step { name: "death", run: death },
];

/// Ids that somebody has changed before, somewhere.
const IDS: [&str; 8] = [
    r#""a""#,
    r#""""#,
    "0",
    "-1",
    "9007199254740993",
    "12345678901234567890",
    r#""1""#,
    r#""\u0061/é""#,
];

/// Two clients of one kind, and a server for both.
pub(super) struct Cell<'a> {
    kind: &'static Kind,
    server: &'static Server,
    /// Whether the clients have all servers as one, and call the tools of this one.
    is_united: bool,
    pub(super) servers: &'a mut Servers,
    left: Talker,
    right: Talker,
}

impl<'a> Cell<'a> {
    pub(super) fn connect(
        kind: &'static Kind,
        server: &'static Server,
        servers: &'a mut Servers,
    ) -> Self {
        let left = Talker::connect(kind, servers, server.name);
        let right = Talker::connect(kind, servers, server.name);
        Self { kind, server, is_united: false, servers, left, right }
    }

    pub(super) fn united(
        kind: &'static Kind,
        server: &'static Server,
        servers: &'a mut Servers,
    ) -> Self {
        let left = Talker::united(kind, servers, server.name);
        let right = Talker::united(kind, servers, server.name);
        Self { kind, server, is_united: true, servers, left, right }
    }

    pub(super) fn both(&mut self) -> [&mut Talker; 2] {
        [&mut self.left, &mut self.right]
    }

    /// The servers that the clients have.
    pub(super) fn reached(&self) -> &'static [Server] {
        if self.is_united { SERVERS } else { slice::from_ref(self.server) }
    }

    pub(super) fn leave(self) {
        self.left.client.leave();
        self.right.client.leave();
    }

    /// Exchanges in flight at the gateway of the left client, and those that were cancelled at the
    /// gateway that is its server, if one is.
    fn exchanges(&self) -> (u64, Option<u64>) {
        let far = self.is_united || self.server.is_far();
        let cancelled = || self.servers.far_metric("mcp_exchanges_cancelled_total ");
        (self.left.client.metric("mcp_exchanges_in_flight "), far.then(cancelled))
    }

    /// Waits until what was begun since `before` with these servers was cancelled everywhere.
    fn until_cancelled(&self, before: (u64, Option<u64>), servers: &[Server]) {
        let far = servers.iter().map(|server| u64::from(server.is_far())).sum::<u64>();
        let expected = (before.0, before.1.map(|cancelled| cancelled + far));
        until("a cancellation at every gateway", || (self.exchanges() == expected).then_some(()));
    }
}

/// What only sessions have.
fn session(talker: &mut Talker) {
    assert_eq!(talker.ask("1", "ping", json!({}))["result"], json!({}));
    let answer = talker.ask("2", "initialize", json!({}));
    assert!(answer["error"].is_object(), "a second session in the first: {answer}");
}

fn ids(talker: &mut Talker) {
    for id in IDS {
        talker.send_call(id, "echo", &json!({ "text": id }));
    }
    for (id, answer) in IDS.iter().zip(talker.answers(&IDS)) {
        assert_eq!(text(&answer), *id);
    }
}

fn lists(talker: &mut Talker) {
    let (echo, (_, tools)) = (talker.tool("echo"), pages(talker, "tools"));
    assert_eq!(tools.iter().filter(|tool| tool["name"] == *echo).count(), 1, "{tools:?}");
    let (count, resources) = pages(talker, "resources");
    assert_eq!((count, resources.len()), (2, 6));
    let unknown = talker.ask("2", "resources/list", json!({"cursor": "unknown"}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

/// How many pages a list has, and what is on them.
fn pages(talker: &mut Talker, list: &str) -> (usize, Vec<Value>) {
    let (mut params, mut count, mut entries) = (json!({}), 0, Vec::new());
    while !params.is_null() {
        let page = talker.ask("\"page\"", &format!("{list}/list"), params);
        entries.extend(page["result"][list].as_array().unwrap().clone());
        count += 1;
        let cursor = &page["result"]["nextCursor"];
        params = if cursor.is_null() { Value::Null } else { json!({ "cursor": cursor }) };
    }
    (count, entries)
}

fn call(talker: &mut Talker) {
    let answer = talker.call("1", "add", &json!({"a": 9_007_199_254_740_993_i64, "b": -1}));
    assert_eq!(answer["result"]["structuredContent"]["sum"], 9_007_199_254_740_992_i64);
    let answer = talker.call("2", "no such tool", &json!({}));
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

fn log(cell: &mut Cell<'_>) {
    let is_modern = cell.kind.is_modern();
    for talker in cell.both() {
        let arguments = json!({"level": "info", "message": "heard"});
        let mut params = json!({ "name": talker.tool("log"), "arguments": arguments });
        if is_modern {
            params["_meta"]["io.modelcontextprotocol/logLevel"] = json!("info");
        } else {
            let answer = talker.ask("1", "logging/setLevel", json!({"level": "info"}));
            assert_eq!(answer["result"], json!({}), "{answer}");
        }
        talker.send("2", "tools/call", params);
        let (answer, note) = talker.answer_and_said("2", "notifications/message");
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(note["params"]["data"], "heard");
    }
}

/// Both at once, with the same id and the same token.
fn progress(cell: &mut Cell<'_>) {
    for token in [json!("tökén"), json!(9_007_199_254_740_993_i64)] {
        for (steps, talker) in (3..).zip(cell.both()) {
            start_progress(talker, "7", &token, json!({ "steps": steps, "interval": 20 }));
        }
        for (steps, talker) in (3..).zip(cell.both()) {
            for step in 1..=steps {
                let note = talker.said("notifications/progress");
                assert_eq!(note["params"]["progressToken"], token, "{note}");
                assert_eq!(note["params"]["message"], format!("Step {step} of {steps}"));
            }
            assert_eq!(text(&talker.answer("7")), format!("Took {steps} steps."));
        }
    }
}

/// Calls a tool that reports progress.
fn start_progress(talker: &mut Talker, id: &str, token: &Value, arguments: Value) {
    let meta = json!({ "progressToken": token });
    let params = json!({ "name": talker.tool("progress"), "arguments": arguments, "_meta": meta });
    talker.send(id, "tools/call", params);
}

fn elicitation(cell: &mut Cell<'_>) {
    let result = |name: &str| json!({"action": "accept", "content": {"answer": name}});
    let tool = ("ask", json!({"message": "Who?"}), "The user said");
    questions(cell, &tool, ("answer", "elicitation/create"), result);
}

/// What a model says.
fn sampled(text: &str) -> Value {
    let content = json!({ "type": "text", "text": text });
    json!({ "role": "assistant", "model": "m", "content": content })
}

fn sampling(cell: &mut Cell<'_>) {
    let tool = ("sample", json!({"prompt": "Who?"}), "The model said");
    questions(cell, &tool, ("completion", "sampling/createMessage"), sampled);
}

/// Both clients call a tool that asks its caller; the one that was asked last answers first.
fn questions(
    cell: &mut Cell<'_>,
    (tool, arguments, said): &(&str, Value, &str),
    (key, method): (&str, &str),
    result: fn(&str) -> Value,
) {
    let is_modern = cell.kind.is_modern();
    let mut questions = Vec::new();
    for talker in cell.both() {
        talker.send_call("\"q\"", tool, arguments);
        questions.push(if is_modern {
            let answer = talker.answer("\"q\"")["result"].clone();
            assert_eq!(answer["resultType"], "input_required", "{answer}");
            assert_eq!(answer["inputRequests"][key]["method"], method, "{answer}");
            answer
        } else {
            talker.said(method)
        });
    }
    for (name, talker) in [("left", 0), ("right", 1)].into_iter().rev() {
        let (question, talker) = (&questions[talker], &mut *cell.both()[talker]);
        if is_modern {
            let mut params = json!({ "name": talker.tool(tool), "arguments": arguments });
            params["inputResponses"][key] = result(name);
            if let Some(state) = question.get("requestState") {
                params["requestState"] = state.clone();
            }
            talker.send("\"q\"", "tools/call", params);
        } else {
            let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result(name)});
            talker.client.send(&answer.to_string());
        }
        assert_eq!(text(&talker.answer("\"q\"")), format!("{said}: {name}"));
    }
}

/// The left client is asked; the right one answers, and is not heard.
fn forged(cell: &mut Cell<'_>) {
    let answer = |id: &Value, text: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "result": sampled(text) }).to_string()
    };
    let echo = json!({"text": "next"});
    cell.left.send_call("\"q\"", "sample", &json!({"prompt": "Who?"}));
    let question = cell.left.said("sampling/createMessage")["id"].clone();
    for guess in [&question, &json!(0), &json!(1), &json!(2), &json!("1"), &json!("q")] {
        cell.right.client.send(&answer(guess, "forged"));
    }
    assert_eq!(text(&cell.right.call("1", "echo", &echo)), "next");
    cell.left.client.send(&answer(&question, "real"));
    assert_eq!(text(&cell.left.answer("\"q\"")), "The model said: real");
    cell.left.client.send(&answer(&question, "late"));
    assert_eq!(text(&cell.left.call("1", "echo", &echo)), "next");
}

/// One after the other: where they share a process, the other one must not hear of it.
fn notifications(cell: &mut Cell<'_>) {
    let is_modern = cell.kind.is_modern();
    for side in 0..2 {
        let before = cell.exchanges();
        let talker = &mut *cell.both()[side];
        if is_modern {
            let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": [COUNTER]});
            talker.send("\"sub\"", "subscriptions/listen", json!({ "notifications": wanted }));
            let note = talker.said("notifications/subscriptions/acknowledged");
            assert_eq!(note["params"]["_meta"][SUBSCRIPTION], "sub", "{note}");
        } else {
            let answer = talker.ask("1", "resources/subscribe", json!({ "uri": COUNTER }));
            assert_eq!(answer["result"], json!({}), "{answer}");
        }
        for (tool, method) in [
            ("toggle", "notifications/tools/list_changed"),
            ("bump", "notifications/resources/updated"),
        ] {
            talker.send_call("2", tool, &json!({}));
            let (answer, note) = talker.answer_and_said("2", method);
            assert!(answer["result"].is_object(), "{answer}");
            let tag = if is_modern { json!("sub") } else { Value::Null };
            assert_eq!(note["params"]["_meta"][SUBSCRIPTION], tag, "{note}");
        }
        if is_modern {
            talker.client.cancel("\"sub\"");
            cell.until_cancelled(before, cell.reached());
        } else {
            let answer = talker.ask("3", "resources/unsubscribe", json!({ "uri": COUNTER }));
            assert_eq!(answer["result"], json!({}), "{answer}");
        }
    }
}

const COUNTER: &str = "demo://counter";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Both have a call in flight with one id; the left one gives it up.
fn cancellation(cell: &mut Cell<'_>) {
    let before = cell.exchanges();
    let token = json!("c");
    start_progress(&mut cell.left, "1", &token, endless());
    cell.left.said("notifications/progress");
    start_progress(&mut cell.right, "1", &token, json!({"steps": 2, "interval": 300}));
    cell.right.said("notifications/progress");
    cell.left.client.cancel("1");
    cell.right.said("notifications/progress");
    assert_eq!(text(&cell.right.answer("1")), "Took 2 steps.");
    cell.until_cancelled(before, slice::from_ref(cell.server));
    // No answer to it: this is the next message.
    assert_eq!(text(&cell.left.call("2", "echo", &json!({"text": "next"}))), "next");
}

fn endless() -> Value {
    json!({"steps": 1000, "interval": 600_000})
}

fn eight_megabytes(talker: &mut Talker) {
    let said = "ünïcödé \u{1f980} \"\\/\n\u{1} ".repeat(360_000);
    assert!(8_000_000 < said.len());
    talker.send_call("\"large\"", "echo", &json!({ "text": said }));
    let answer = talker.next();
    // Every byte of it, escapes as they were written.
    let literal = serde_json::to_string(&said).unwrap();
    let at = memchr::memmem::find(answer.as_bytes(), literal.as_bytes());
    assert!(at.is_some(), "not the text that was sent, but {} bytes", answer.len());
    assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":"large","result":"#));
}

/// Many requests of both at once, with the same ids; the slow ones are overtaken.
fn equal_ids(cell: &mut Cell<'_>) {
    for round in 0..4 {
        for (side, talker) in (0..).zip(cell.both()) {
            for (number, id) in (0..).zip(IDS) {
                talker.send_call(id, "sleep", &json!({"ms": side + 10 * (number % 2) + 2}));
            }
        }
        for (side, talker) in (0..).zip(cell.both()) {
            for (number, answer) in (0..).zip(talker.answers(&IDS)) {
                let expected = format!("Slept {} ms.", side + 10 * (number % 2) + 2);
                assert_eq!(text(&answer), expected, "round {round}");
            }
        }
    }
}

/// The server dies while both wait for it, and is started again.
fn death(cell: &mut Cell<'_>) {
    for talker in cell.both() {
        start_progress(talker, "\"mortal\"", &json!("m"), endless());
        talker.said("notifications/progress");
    }
    cell.servers.kill(cell.server);
    if cell.is_united {
        return death_of_one(cell);
    }
    if cell.server.may_resume() {
        cell.servers.revive();
    }
    for talker in cell.both() {
        let answer = talker.answer("\"mortal\"");
        assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    }
    cell.servers.revive();
    for talker in cell.both() {
        assert_eq!(text(&talker.call("1", "echo", &json!({"text": "again"}))), "again");
    }
}

/// The others go on, and the dead one is there again by and by.
fn death_of_one(cell: &mut Cell<'_>) {
    let server = cell.server;
    let mortal = |talker: &mut Talker| {
        let answer = talker.answer_among_changes("\"mortal\"");
        assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    };
    for talker in cell.both() {
        if !server.may_resume() {
            mortal(talker);
        }
        // What is far dies with the others that are.
        let other = SERVERS.iter().find(|it| it.is_far() != server.is_far()).unwrap();
        talker.turn_to(other.name);
        talker.send_call("\"other\"", "echo", &json!({"text": "on"}));
        assert_eq!(text(&talker.answer_among_changes("\"other\"")), "on");
    }
    cell.servers.revive();
    for talker in cell.both() {
        if server.may_resume() {
            mortal(talker);
        }
        for server in SERVERS {
            talker.turn_to(server.name);
            until("a server that is there again", || {
                talker.send_call("1", "echo", &json!({"text": "again"}));
                let answer = talker.answer_among_changes("1");
                (answer["result"]["content"][0]["text"] == "again").then_some(())
            });
        }
    }
}
