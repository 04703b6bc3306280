//! `/mcp` with several servers: every request reaches the one that it is for, and no other is in
//! its way.

use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Request, Wire};
use super::recorder::Recorder;
use super::rig::{Dir, META, Rig, Session, demo, http, initialize, modern_call, script};
use crate::support::until;

/// A server in a shell script that answers what it is told to, line by line. `{id}` in an answer is
/// the id of the request.
fn scripted(dir: &Dir, name: &str, before: &str, cases: &[(&str, &str)]) -> String {
    let mut text = format!("{before}\nwhile read -r line; do\n");
    text.push_str("  id=$(printf '%s' \"$line\" | sed -n 's/.*\"id\":\\([^,}]*\\).*/\\1/p')\n");
    text.push_str("  case $line in\n");
    for (pattern, answer) in cases {
        let answer = answer.replace("{id}", "'\"$id\"'");
        text.push_str(&format!("    *'{pattern}'*) echo '{answer}' ;;\n"));
    }
    text.push_str("  esac\ndone\n");
    script(name, &dir.write(&format!("{name}.sh"), &text), &[])
}

const READY: (&str, &str) = (
    "\"initialize\"",
    r#"{"jsonrpc":"2.0","id":{id},"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"s","version":"1"}}}"#,
);

const TOOLS: (&str, &str) = (
    "tools/list",
    r#"{"jsonrpc":"2.0","id":{id},"result":{"tools":[{"name":"go","inputSchema":{"type":"object"}}]}}"#,
);

/// Opens a session with all servers.
fn open(rig: &Rig) -> Session {
    let mut wire = rig.wire();
    let answer = wire.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let id = answer.get("mcp-session-id").to_owned();
    let mut session = Session { wire, path: "/mcp".to_owned(), id };
    let said = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(said.status(), 202);
    session
}

fn list(session: &mut Session, params: &Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params });
    session.post(body.to_string()).json()["result"].clone()
}

fn names(session: &mut Session) -> Vec<String> {
    let (mut names, mut params) = (Vec::new(), json!({}));
    loop {
        let page = list(session, &params);
        let tools = page["tools"].as_array().unwrap_or_else(|| panic!("{page}"));
        names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { return names };
        params = json!({ "cursor": cursor });
    }
}

/// Two demo servers, and more.
fn two(more: &str) -> String {
    format!("{}{}{more}", demo().replace("demo]", "a]"), demo().replace("demo]", "b]"))
}

#[test]
fn all_tools_are_on_pages_under_the_names_of_their_servers() {
    let rig = Rig::new(&two("[federation]\npage = 7\nseparator = \"-\"\n"));
    let mut session = open(&rig);
    let first = list(&mut session, &json!({}));
    assert_eq!(first["tools"].as_array().unwrap().len(), 7);
    let names = names(&mut session);
    let of = |prefix: &str| -> Vec<String> {
        names.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    assert_eq!(of("a-"), of("b-"));
    assert_eq!(of("a-").len() * 2, names.len());
    assert!(of("a-").contains(&"echo".to_owned()));
    let wrong =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "cursor": "x" } });
    let wrong = session.post(wrong.to_string()).json();
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    // Whose a resource is, its URI says; of equal ones the first counts.
    let params = json!({ "uri": "demo://greeting/Ada" });
    let read = json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params });
    let read = session.post(read.to_string()).json();
    assert!(read["result"]["contents"][0]["text"].as_str().unwrap().contains("Ada"), "{read}");
    rig.check();
}

#[test]
fn ids_and_payloads_keep_their_bytes() {
    let rig = Rig::new(&two(""));
    let mut session = open(&rig);
    for id in [r#""a""#, r#""""#, "0", "-1", "9007199254740993", "12345678901234567890"] {
        for server in ["a", "b"] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"arguments":{{"text":"é\u00e9"}},"name":"{server}__echo"}}}}"#
            );
            let answer = session.post(body);
            assert!(answer.text().contains(&format!(r#""id":{id}"#)), "{}", answer.text());
            assert_eq!(answer.json()["result"]["content"][0]["text"], "éé");
        }
    }
    let large = session.text("b__large", &json!({ "bytes": 8 * 1024 * 1024 }));
    assert_eq!(large.len(), 8 * 1024 * 1024);
    let text = "x".repeat(8 * 1024 * 1024);
    assert_eq!(session.text("a__echo", &json!({ "text": text })), text);
    rig.check();
}

#[test]
fn what_is_hidden_cannot_be_called_anywhere() {
    let rules = "[servers.b.tools]\nallow = [\"e*\", \"add\"]\ndeny = [\"ec*\"]\n\
                 rename = { add = \"plus\" }\ndescriptions = { add = \"Sums.\" }\n";
    let rig = Rig::new(&two(rules));
    let mut session = open(&rig);
    let listed: Vec<String> =
        names(&mut session).into_iter().filter(|name| name.starts_with("b__")).collect();
    assert_eq!(listed, ["b__plus"]);
    let sum = session.call("b__plus", &json!({ "a": 1, "b": 2 }));
    assert_eq!(sum["result"]["structuredContent"]["sum"], 3, "{sum}");
    for hidden in ["b__add", "b__echo", "b__sleep", "c__echo", "echo"] {
        let answer = session.call(hidden, &json!({}));
        assert_eq!(answer["error"]["data"]["gateway"], "no_such_name", "{hidden}: {answer}");
    }
    // By its own name the server has the same tools.
    let mut own = rig.open("b");
    let page = list(&mut own, &json!({}));
    assert_eq!(page["tools"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(page["tools"][0]["name"], "plus");
    assert_eq!(page["tools"][0]["description"], "Sums.");
    assert_eq!(
        own.call("plus", &json!({ "a": 1, "b": 2 }))["result"]["structuredContent"]["sum"],
        3
    );
    assert_eq!(own.call("echo", &json!({}))["error"]["code"], -32602);
    rig.check();
}

#[test]
fn what_is_no_notification_needs_an_id_to_reach_a_server() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let mut session = open(&rig);
    let hidden = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo__x"}}"#;
    assert_eq!(session.post(hidden).status(), 202);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(session.post(told).status(), 202);
    let has = |text: &str| recorder.seen().iter().any(|request| request.text().contains(text));
    until("the notification", || has("roots/list_changed").then_some(()));
    assert!(!has("tools/call"));
    rig.check();
}

#[test]
fn callers_of_the_stateless_era_cannot_make_the_gateway_keep_what_they_like() {
    let rig = Rig::new(&two(""));
    let meta = META.replacen(
        "\"_meta\":{",
        &format!(
            "\"_meta\":{{\"io.modelcontextprotocol/clientInfo\":{{\"name\":\"{}\",\"version\":\"1\"}},",
            "x".repeat(9000)
        ),
        1,
    );
    let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{{{meta}}}}}"#);
    let answer = rig.ask(&Request::modern("/mcp", &body));
    assert_eq!(answer.status(), 413, "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"]["gateway"], "too_large");
    rig.check();
}

/// Each server answers only when all have been started: one after the other would take for ever.
#[test]
fn all_servers_are_opened_at_once() {
    const COUNT: usize = 10;
    let dir = Dir::new();
    let started = dir.join("started");
    std::fs::create_dir(&started).unwrap();
    let path = started.display();
    let servers: Vec<String> = (0..COUNT)
        .map(|number| {
            let all = format!("[ $(ls {path} | wc -l) -lt {COUNT} ]");
            let wait = format!("touch {path}/{number}\nwhile {all}; do sleep 0.05; done");
            scripted(&dir, &format!("s{number}"), &wait, &[READY, TOOLS])
        })
        .collect();
    let config = format!("{}[federation]\ntimeout = \"5m\"\n", servers.concat());
    let rig = Rig::with(dir, &config, |_| {});
    let mut session = open(&rig);
    let wanted: Vec<String> = (0..COUNT).map(|number| format!("s{number}__go")).collect();
    assert_eq!(names(&mut session), wanted);
    rig.check();
}

#[test]
fn a_slow_server_keeps_nobody_waiting_and_is_announced() {
    let dir = Dir::new();
    let gate = dir.join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let slow = scripted(&dir, "slow", &wait, &[READY, TOOLS]);
    let dead =
        "[servers.dead]\nurl = \"http://127.0.0.1:9/mcp\"\n[federation]\ntimeout = \"200ms\"\n";
    let mut rig = Rig::with(dir, &format!("{}{slow}{dead}", demo()), |_| {});
    let mut session = open(&rig);
    let before = names(&mut session);
    assert!(before.iter().all(|name| name.starts_with("demo__")), "{before:?}");
    let mut stream = session.listen(&rig);
    std::fs::write(&gate, "").unwrap();
    let said = stream.data().unwrap();
    assert!(said.contains("notifications/tools/list_changed"), "{said}");
    let after = names(&mut session);
    assert!(after.contains(&"slow__go".to_owned()), "{after:?}");
    let missing = |rig: &Rig, name: &str| {
        let mut wire = Wire::connect(rig.gateway.admin);
        let servers = wire.ask(&Request::new("GET", "/readyz")).json()["servers"].clone();
        let is_it = |server: &&Value| server["name"] == name;
        servers.as_array().unwrap().iter().find(is_it).unwrap()["missing"].as_u64().unwrap()
    };
    assert_eq!((missing(&rig, "demo"), missing(&rig, "slow"), missing(&rig, "dead")), (0, 0, 1));
    assert!(rig.log_with("is missing").iter().any(|line| line["server"] == "dead"));
    rig.check();
}

#[test]
fn lists_are_read_again_when_a_server_says_so() {
    let rig = Rig::new(&two(""));
    let mut session = open(&rig);
    let before = names(&mut session).len();
    let mut stream = session.listen(&rig);
    let answer = session.call("b__toggle", &json!({}));
    assert!(answer["result"].is_object(), "{answer}");
    until("the notification", || stream.data().filter(|text| text.contains("list_changed")));
    let after = names(&mut session).len();
    assert_ne!(before, after);
    rig.check();
}

/// Both servers ask the client under the same id.
#[test]
fn equal_questions_of_two_servers_are_kept_apart() {
    let dir = Dir::new();
    let ask = ("tools/call", r#"{"jsonrpc":"2.0","id":0,"method":"roots/list"}"#);
    let keep = |name: &str| {
        let log = dir.join(&format!("{name}.log"));
        format!("exec 3>{}\n", log.display())
    };
    let answered = ("roots\":[", "told");
    let text = |name: &str| {
        let server = scripted(&dir, name, &keep(name), &[READY, ask, answered]);
        let path = dir.join(&format!("{name}.sh"));
        let script = std::fs::read_to_string(&path).unwrap();
        let script = script.replace("echo 'told'", "printf '%s\\n' \"$line\" >&3");
        std::fs::write(path, script).unwrap();
        server
    };
    let config = text("x") + &text("y");
    let rig = Rig::with(dir, &config, |_| {});
    let session = open(&rig);
    let mut asked = Vec::new();
    let mut wires = Vec::new();
    for name in ["x", "y"] {
        let call = json!({
            "jsonrpc": "2.0", "id": name, "method": "tools/call",
            "params": { "name": format!("{name}__go") },
        });
        let mut wire = rig.wire();
        wire.send(session.request(call.to_string()).bytes());
        assert_eq!(wire.head().status(), 200);
        let data = wire.data().unwrap();
        let question: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(question["method"], "roots/list");
        asked.push(question["id"].clone());
        wires.push(wire);
    }
    assert_ne!(asked[0], asked[1]);
    // The answers come in the other order.
    for (name, id) in ["y", "x"].into_iter().zip(asked.iter().rev()) {
        let root = json!({ "uri": format!("file:///{name}") });
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "roots": [root] } });
        let said = rig.ask(&session.request(answer.to_string()));
        assert_eq!(said.status(), 202);
    }
    for name in ["x", "y"] {
        let told = until("the answer", || {
            let lines = rig.dir.lines(&format!("{name}.log"));
            lines.into_iter().next()
        });
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["id"], 0);
        assert_eq!(told["result"]["roots"][0]["uri"], format!("file:///{name}"));
    }
    rig.check();
}

#[test]
fn a_cancelled_call_is_cancelled_where_it_is() {
    let mut rig = Rig::new(&two(""));
    let mut session = open(&rig);
    let call = json!({
        "jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": {
            "name": "b__progress", "arguments": { "steps": 500, "ms": 100_000 },
            "_meta": { "progressToken": "p" },
        },
    });
    let mut wire = rig.wire();
    wire.send(session.request(call.to_string()).bytes());
    assert_eq!(wire.head().status(), 200);
    let progress: Value = serde_json::from_str(&wire.data().unwrap()).unwrap();
    assert_eq!(progress["params"]["progressToken"], "p");
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "long", "reason": "enough" },
    });
    assert_eq!(session.post(cancel.to_string()).status(), 202);
    assert_eq!(wire.data().filter(|text| text.contains("\"result\"")), None);
    let log = rig.log_with("\"outcome\":\"cancelled\"");
    assert!(log.iter().any(|line| line["outcome"] == "cancelled" && line["server"] == "b"));
    assert_eq!(session.text("b__echo", &json!({ "text": "still here" })), "still here");
    rig.check();
}

#[test]
fn the_death_of_one_server_is_not_that_of_the_others() {
    let dir = Dir::new();
    let die = ("tools/call", "'; kill -9 $$; echo '");
    let mortal = scripted(&dir, "mortal", "", &[READY, TOOLS, die]);
    let rig = Rig::with(dir, &format!("{}{mortal}", demo()), |_| {});
    let mut session = open(&rig);
    let answer = session.call("mortal__go", &json!({}));
    assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    assert_eq!(session.text("demo__echo", &json!({ "text": "on" })), "on");
    // It is started again, and so on.
    let answer = session.call("mortal__go", &json!({}));
    assert_eq!(answer["error"]["data"]["gateway"], "server_died", "{answer}");
    rig.check();
}

#[test]
fn stateless_clients_have_all_servers_too() {
    let rig = Rig::new(&two("[servers.dead]\nurl = \"http://127.0.0.1:9/mcp\"\n"));
    let ask = |method: &str, params: &str| {
        let comma = if params.is_empty() { "" } else { "," };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{{{params}{comma}{META}}}}}"#
        );
        rig.ask(&Request::modern("/mcp", &body)).json()
    };
    let found = ask("server/discover", "");
    assert!(found["result"]["instructions"].as_str().unwrap().contains("## b"), "{found}");
    let tools = ask("tools/list", "");
    let tools = tools["result"]["tools"].as_array().unwrap().clone();
    for name in ["a__echo", "b__echo"] {
        assert!(tools.iter().any(|tool| tool["name"] == name));
        let answer = ask("tools/call", &format!(r#""name":"{name}","arguments":{{"text":"hi"}}"#));
        assert_eq!(answer["result"]["content"][0]["text"], "hi", "{answer}");
        assert_eq!(answer["id"], 5);
    }
    let gone = ask("tools/call", r#""name":"c__echo","arguments":{}"#);
    assert_eq!(gone["error"]["code"], -32602, "{gone}");
    let gone = ask("resources/read", r#""uri":"nope://""#);
    assert_eq!(
        (&gone["error"]["code"], &gone["error"]["data"]["uri"]),
        (&json!(-32602), &json!("nope://"))
    );
    let dead = ask("tools/call", r#""name":"dead__x","arguments":{}"#);
    assert_eq!(dead["error"]["data"]["gateway"], "server_unreachable", "{dead}");
    rig.check();
}

/// Whose a tool is, only the lists tell if no server has a prefix.
#[test]
fn mirrored_arguments_are_compared_wherever_the_tool_is() {
    for has_prefixes in [true, false] {
        let server = format!("{}prefix = {has_prefixes}\n", demo());
        let config = server.replace("demo]", "a]") + &server.replace("demo]", "b]");
        let rig = Rig::new(&config);
        // A shard has its own processes: all of them are of one.
        let mut wire = rig.wire();
        let mut ask = |name: &str, region: &str| {
            let body = modern_call(name, r#"{"region":"eu"}"#);
            wire.ask(&Request::modern("/mcp", &body).with("Mcp-Param-Region", region)).json()
        };
        // What is mirrored is learned while the first requests are answered.
        until("a refusal", || {
            let wrong = ask("b__test_x_mcp_header", "us");
            (wrong["error"]["code"] == -32020).then_some(())
        });
        let right = ask("b__test_x_mcp_header", "eu");
        assert_eq!(right["result"]["content"][0]["text"], "Region: eu", "{right}");
        rig.check();
    }
}

#[test]
fn a_subscription_hears_every_server() {
    let rig = Rig::new(&two(""));
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true,"resourceSubscriptions":["demo://counter"]}},{META}}}}}"#
    );
    // A process for stateless requests belongs to a shard: the connection is where it is.
    let mut wire = rig.wire();
    wire.send(Request::modern("/mcp", &body).bytes());
    assert_eq!(wire.head().status(), 200);
    let first: Value = serde_json::from_str(&wire.data().unwrap()).unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(
        first["params"]["notifications"]["resourceSubscriptions"],
        json!(["demo://counter"])
    );
    let id = "io.modelcontextprotocol/subscriptionId";
    assert_eq!(first["params"]["_meta"][id], "s");
    // Tools change in both; a shard has its own processes, so as many calls as reach this one.
    for server in ["a", "b"] {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{server}__toggle","arguments":{{}},{META}}}}}"#
        );
        for _ in 0..8 {
            assert_eq!(rig.ask(&Request::modern("/mcp", &call)).status(), 200);
        }
        let said: Value = serde_json::from_str(&wire.data().unwrap()).unwrap();
        assert_eq!(said["method"], "notifications/tools/list_changed", "{said}");
        assert_eq!(said["params"]["_meta"][id], "s");
    }
    rig.check();
}

#[test]
fn nothing_is_left_of_a_session_with_all_servers() {
    let rig = Rig::new(&two("[servers.dead]\nurl = \"http://127.0.0.1:9/mcp\"\n"));
    for _ in 0..5 {
        let mut session = open(&rig);
        assert!(!names(&mut session).is_empty());
        let end = Request::new("DELETE", "/mcp").session(&session.id);
        assert_eq!(rig.ask(&end).status(), 200);
    }
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_processes_running ", 0);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.until_metric("mcp_gathered_bytes ", 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.metric("mcp_processes_running "), 0, "nobody tries a server for nobody");
    rig.check();
}
