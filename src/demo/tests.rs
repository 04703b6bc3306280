//! The server driven in process: lines in, lines out, workers included.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::Server;
use super::worker::Event;

/// Long enough for any worker here; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    server: Server,
    events: SyncSender<Event>,
    inbox: Receiver<Event>,
    lines: Receiver<String>,
}

impl Rig {
    fn new() -> Self {
        let (events, inbox) = mpsc::sync_channel(1024);
        let (outbox, lines) = mpsc::sync_channel(1024);
        Self { server: Server::new(outbox, events.clone()), events, inbox, lines }
    }

    /// A rig inside a legacy session.
    fn legacy(capabilities: &Value) -> Self {
        let mut rig = Self::new();
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities });
        let opened = rig.ask(&request(0, "initialize", &params));
        assert_eq!(opened["result"]["protocolVersion"], "2025-06-18");
        rig
    }

    fn tell(&mut self, line: &str) {
        assert!(self.server.handle(Event::Received { line: line.into() }).is_continue());
    }

    /// The next line out, letting workers run until there is one.
    fn hear(&mut self) -> String {
        loop {
            if let Ok(line) = self.lines.try_recv() {
                return line;
            }
            let event = self.inbox.recv_timeout(PATIENCE).expect("a worker should say something");
            assert!(self.server.handle(event).is_continue());
        }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.hear()).unwrap()
    }

    fn ask(&mut self, line: &str) -> Value {
        self.tell(line);
        self.next()
    }

    fn silent(&self) -> bool {
        self.lines.try_recv().is_err()
    }
}

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

fn call(id: u64, name: &str, arguments: &Value) -> String {
    request(id, "tools/call", &json!({ "name": name, "arguments": arguments }))
}

/// A modern request of a client with these capabilities.
fn modern(id: u64, method: &str, mut params: Value, capabilities: &Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    request(id, method, &params)
}

fn text(reply: &Value) -> &str {
    reply.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn resources_come_on_pages() {
    let mut rig = Rig::legacy(&json!({}));
    let first = rig.ask(&request(1, "resources/list", &json!({})));
    assert_eq!(first["result"]["resources"].as_array().map(Vec::len), Some(4));
    let cursor = &first["result"]["nextCursor"];
    let last = rig.ask(&request(2, "resources/list", &json!({ "cursor": cursor })));
    assert_eq!(last["result"]["resources"].as_array().map(Vec::len), Some(2));
    assert!(last["result"].get("nextCursor").is_none());
    for cursor in [json!("from-3"), json!("from-8"), json!("4"), json!(4), json!(null)] {
        let refused = rig.ask(&request(3, "resources/list", &json!({ "cursor": cursor })));
        assert_eq!(refused["error"]["message"], "unknown cursor", "{cursor}");
    }
}

#[test]
fn ids_come_back_as_they_were_spelled() {
    let mut rig = Rig::new();
    for id in ["0", "-7", "\"\"", "\"1\"", "123456789012345678901234567890", "\"a\\u0041\\n\""] {
        rig.tell(&format!(r#"{{"method":"ping","jsonrpc":"2.0","id":{id}}}"#));
        assert_eq!(rig.hear(), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    }
}

#[test]
fn what_is_no_request_is_refused_or_ignored() {
    let mut rig = Rig::new();
    for (line, code) in [
        ("nonsense", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, -32602),
    ] {
        assert_eq!(rig.ask(line)["error"]["code"], code, "{line}");
    }
    for line in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":""}}"#,
    ] {
        rig.tell(line);
        assert!(rig.silent(), "{line}");
    }
}

#[test]
fn each_era_has_its_own_methods() {
    let mut rig = Rig::legacy(&json!({}));
    let none = json!({});
    for method in
        ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
    {
        let reply = rig.ask(&modern(1, method, json!({}), &none));
        assert_eq!(reply["error"]["code"], -32601, "{method}");
    }
    assert_eq!(rig.ask(&request(2, "server/discover", &none))["error"]["code"], -32602);
    assert_eq!(rig.ask(&request(3, "tasks/get", &none))["error"]["code"], -32601);
    let missing = json!({ "uri": "demo://nothing" });
    assert_eq!(rig.ask(&request(4, "resources/read", &missing))["error"]["code"], -32002);
    let reply = rig.ask(&modern(5, "resources/read", missing, &none));
    assert_eq!(reply["error"]["code"], -32602);
    let listed = rig.ask(&modern(6, "tools/list", json!({}), &none));
    assert_eq!(listed["result"]["resultType"], "complete");
    assert_eq!(listed["result"]["cacheScope"], "public");
    let listed = rig.ask(&request(7, "tools/list", &none));
    assert_eq!(listed["result"].as_object().unwrap().len(), 1);
}

#[test]
fn an_unsupported_version_names_those_that_are() {
    let line = request(
        1,
        "tools/list",
        &json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2099-01-01" } }),
    );
    let error = &Rig::new().ask(&line)["error"];
    assert_eq!(error["code"], -32022);
    assert_eq!(error["data"], json!({ "supported": ["2026-07-28"], "requested": "2099-01-01" }));
}

#[test]
fn a_sleeper_holds_nobody_up_and_a_cancelled_one_says_nothing() {
    let mut rig = Rig::legacy(&json!({}));
    rig.tell(&call(1, "sleep", &json!({ "ms": 600_000 })));
    assert_eq!(text(&rig.ask(&call(2, "echo", &json!({ "text": "hi" })))), "hi");
    rig.tell(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    assert!(rig.silent());
    assert_eq!(rig.ask(&call(3, "sleep", &json!({ "ms": 1 })))["id"], 3);
}

#[test]
fn slow_calls_are_bounded() {
    let mut rig = Rig::legacy(&json!({}));
    for id in 1..=64 {
        rig.tell(&call(id, "sleep", &json!({ "ms": 600_000 })));
    }
    assert!(rig.silent());
    assert_eq!(rig.ask(&call(65, "sleep", &json!({ "ms": 0 })))["error"]["code"], -32603);
}

#[test]
fn progress_goes_to_the_callers_token() {
    let mut rig = Rig::legacy(&json!({}));
    let params = json!({
        "name": "progress",
        "arguments": { "steps": 2, "interval": 1 },
        "_meta": { "progressToken": "t" },
    });
    rig.tell(&request(1, "tools/call", &params));
    for step in 1..=2 {
        let note = rig.next();
        assert_eq!(note["method"], "notifications/progress");
        assert_eq!(note["params"]["progressToken"], "t");
        assert_eq!(note["params"]["progress"], step);
    }
    assert!(rig.hear().contains(r#""id":1,"result""#));
}

#[test]
fn bad_arguments_are_told_to_the_model() {
    let mut rig = Rig::legacy(&json!({}));
    for (name, arguments) in [
        ("echo", json!({})),
        ("echo", json!({ "text": 1 })),
        ("large", json!({ "bytes": 16 * 1024 * 1024 + 1 })),
        ("log", json!({ "message": "x", "level": "loud" })),
        ("json_schema_2020_12_tool", json!({ "nickname": "x" })),
    ] {
        let reply = rig.ask(&call(1, name, &arguments));
        assert_eq!(reply["result"]["isError"], true, "{name} {arguments}");
    }
    assert_eq!(rig.ask(&call(2, "nothing", &json!({})))["error"]["code"], -32602);
}

#[test]
fn a_legacy_client_is_asked_by_request() {
    let mut rig = Rig::legacy(&json!({ "elicitation": {} }));
    let question = rig.ask(&call(1, "ask", &json!({ "message": "Well?" })));
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["message"], "Well?");
    let answer = json!({ "action": "accept", "content": { "answer": "yes" } });
    let line = json!({ "jsonrpc": "2.0", "id": question["id"], "result": answer }).to_string();
    assert_eq!(text(&rig.ask(&line)), "The user said: yes");
    // Not declared: not asked.
    assert_eq!(rig.ask(&call(2, "roots", &json!({})))["result"]["isError"], true);
}

#[test]
fn a_cancelled_call_takes_its_question_back() {
    let mut rig = Rig::legacy(&json!({ "sampling": {} }));
    let question = rig.ask(&call(1, "sample", &json!({ "prompt": "?" })));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let taken_back = rig.ask(cancel);
    assert_eq!(taken_back["method"], "notifications/cancelled");
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
}

#[test]
fn a_modern_client_is_asked_by_result() {
    let mut rig = Rig::new();
    let able = json!({ "elicitation": {} });
    let name = "test_input_required_result_multi_round";
    let params = json!({ "name": name });
    let first = rig.ask(&modern(1, "tools/call", params.clone(), &able));
    assert_eq!(first["result"]["resultType"], "input_required");
    assert_eq!(first["result"]["inputRequests"]["step1"]["method"], "elicitation/create");
    let state = first["result"]["requestState"].clone();
    let answers = json!({ "step1": { "action": "accept", "content": { "name": "Ada" } } });
    let retry = json!({ "name": name, "inputResponses": answers, "requestState": state });
    let second = rig.ask(&modern(2, "tools/call", retry.clone(), &able));
    assert_ne!(second["result"]["requestState"], state);
    assert!(second["result"]["inputRequests"]["step2"].is_object());
    // A state of another call or with another byte is refused.
    for (field, value) in [
        ("name", json!("test_input_required_result_request_state")),
        ("requestState", json!(format!("{}x", state.as_str().unwrap()))),
    ] {
        let mut forged = retry.clone();
        forged[field] = value;
        let reply = rig.ask(&modern(3, "tools/call", forged, &able));
        assert_eq!(reply["error"]["code"], -32602, "{field}");
    }
    let error = &rig.ask(&modern(4, "tools/call", params, &json!({})))["error"];
    assert_eq!(error["code"], -32021);
    assert_eq!(error["data"]["requiredCapabilities"], able);
}

#[test]
fn changes_reach_subscribers_of_both_eras() {
    let mut rig = Rig::legacy(&json!({}));
    let none = json!({});
    let counter = json!({ "uri": "demo://counter" });
    assert_eq!(rig.ask(&request(1, "resources/subscribe", &counter))["result"], none);
    let filter = json!({
        "notifications": {
            "resourceSubscriptions": ["demo://counter", "demo://nothing"],
            "promptsListChanged": true,
        },
    });
    let ack = rig.ask(&modern(7, "subscriptions/listen", filter, &none));
    assert_eq!(ack["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        ack["params"]["notifications"],
        json!({ "promptsListChanged": true, "resourceSubscriptions": ["demo://counter"] })
    );
    let untagged = rig.ask(&call(2, "bump", &none));
    assert_eq!(untagged["params"], counter);
    let tagged = rig.next();
    assert_eq!(tagged["method"], "notifications/resources/updated");
    assert_eq!(tagged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
    assert_eq!(text(&rig.next()), "1");
    // Tools were not asked for: only the session hears of them.
    let changed = rig.ask(&call(3, "toggle", &none));
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(rig.next()["id"], 3);
    let surprise = rig.ask(&call(4, "surprise", &none));
    assert_eq!(text(&surprise), "You found the tool that comes and goes.");
    // A cancelled subscription is silent.
    rig.tell(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    rig.tell(&call(5, "bump", &none));
    assert!(rig.next()["params"]["_meta"].is_null());
    assert_eq!(text(&rig.next()), "2");
}

#[test]
fn logs_respect_the_level_of_their_era() {
    let mut rig = Rig::legacy(&json!({}));
    let entry = json!({ "level": "notice", "message": "x" });
    assert_eq!(rig.ask(&call(1, "log", &entry))["method"], "notifications/message");
    assert_eq!(rig.next()["id"], 1);
    rig.ask(&request(2, "logging/setLevel", &json!({ "level": "error" })));
    assert_eq!(rig.ask(&call(3, "log", &entry))["id"], 3);
    let params = json!({ "name": "log", "arguments": entry });
    assert_eq!(rig.ask(&modern(4, "tools/call", params, &json!({})))["id"], 4);
}

#[test]
fn a_task_outlives_its_request() {
    let mut rig = Rig::new();
    let able = json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let params = json!({ "name": "confirm_delete", "arguments": { "filename": "a.txt" } });
    let created = rig.ask(&modern(1, "tools/call", params, &able));
    assert_eq!(created["result"]["resultType"], "task");
    let task = json!({ "taskId": created["result"]["taskId"] });
    let parked = rig.ask(&modern(2, "tasks/get", task.clone(), &able));
    assert_eq!(parked["result"]["status"], "input_required");
    let mut update = task.clone();
    update["inputResponses"] =
        json!({ "confirmation": { "action": "accept", "content": { "confirm": true } } });
    assert_eq!(
        rig.ask(&modern(3, "tasks/update", update, &able))["result"]["resultType"],
        "complete"
    );
    let done = rig.ask(&modern(4, "tasks/get", task.clone(), &able));
    assert_eq!(done["result"]["status"], "completed");
    assert_eq!(done["result"]["result"]["content"][0]["text"], "Deleted a.txt");
    let reply = rig.ask(&modern(5, "tasks/get", task, &json!({})));
    assert_eq!(reply["error"]["code"], -32021);
}

#[test]
fn closing_ends_subscriptions_and_the_server() {
    let mut rig = Rig::new();
    let filter = json!({ "notifications": {} });
    rig.ask(&modern(1, "subscriptions/listen", filter, &json!({})));
    rig.tell(&modern(
        2,
        "tools/call",
        json!({ "name": "sleep", "arguments": { "ms": 9_999 } }),
        &json!({}),
    ));
    assert!(rig.server.handle(Event::Closed).is_break());
    assert!(rig.hear().contains(r#""io.modelcontextprotocol/subscriptionId":1"#));
    assert!(rig.silent());
    drop(rig.events);
}
