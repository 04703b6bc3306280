//! Servers that are lost with a request: what changes nothing is sent once more and answered, and
//! what may have been done is never done twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::http::Request;
use super::recorder::{After, Recorder, echo};
use super::rig::{Dir, META, Rig, call, http, modern_call, script};

/// A server in shell that dies of each first `prompts/list`, of each `resources/list` and of each
/// call. `$1` is a directory where it writes down what it reads.
const SERVER: &str = r#"
while IFS= read -r line; do
  printf '%s\n' "$line" >> "$1/lines"
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"notifications/'*) ;;
    *'"prompts/list"'*)
      if [ ! -e "$1/died" ]; then : > "$1/died"; exit 3; fi
      printf '{"jsonrpc":"2.0","id":%s,"result":{"prompts":[]}}\n' "$id" ;;
    *'"resources/list"'*|*'"tools/call"'*) exit 3 ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}\n' "$id" ;;
  esac
done
"#;

fn request(method: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": "x1", "method": method, "params": {} }).to_string()
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["gateway"].as_str().unwrap_or_default()
}

#[test]
fn a_list_survives_the_process_that_was_to_answer_it() {
    for isolation in ["session", "shared"] {
        let dir = Dir::new();
        let path = dir.write("server.sh", SERVER);
        let config = script("sh", &path, &[path.parent().unwrap().to_str().unwrap()]);
        let rig = Rig::with(dir, &format!("{config}isolation = \"{isolation}\"\n"), |_| {});
        let mut session = rig.open("sh");
        let answer = session.post(request("prompts/list")).json();
        let expected = json!({ "jsonrpc": "2.0", "id": "x1", "result": { "prompts": [] } });
        assert_eq!(answer, expected);
        let sent = |method: &str| {
            let lines = rig.dir.lines("lines");
            lines.iter().filter(|line| line.contains(&format!("\"{method}\""))).count()
        };
        assert_eq!((sent("prompts/list"), sent("initialize")), (2, 2), "{isolation}");
        assert_eq!(rig.metric("mcp_requests_repeated_total "), 1);
        // Once more, and not for ever.
        let answer = session.post(request("resources/list")).json();
        assert_eq!(reason(&answer), "server_died", "{answer}");
        assert_eq!(sent("resources/list"), 2);
        // What may have run is not run again.
        let answer = session.post(call("any", &json!({}))).json();
        assert_eq!(reason(&answer), "server_died", "{answer}");
        assert_eq!(sent("tools/call"), 1);
        // And the session is still there.
        let answer = session.post(request("tools/list")).json();
        assert_eq!(answer["result"]["tools"], json!([]));
        rig.check();
    }
}

/// An HTTP server that closes its first connection with a request of that method.
fn closing(method: &'static str) -> Recorder {
    let count = AtomicUsize::new(0);
    Recorder::start(move |request, stream| {
        let is_it = request.text().contains(&format!("\"{method}\""));
        if is_it && count.fetch_add(1, Ordering::SeqCst) == 0 {
            return After::Close;
        }
        super::http::Wire::new(stream.try_clone().unwrap()).send(echo(request));
        After::Keep
    })
}

#[test]
fn a_list_survives_the_connection_that_was_to_bring_its_answer() {
    for (method, seen) in [("tools/list", 2), ("tools/call", 1)] {
        let recorder = closing(method);
        let rig = Rig::new(&http("far", &recorder.url()));
        let mut session = rig.open("far");
        let answer = session.post(request(method)).json();
        let sent = recorder.seen().iter().filter(|it| it.text().contains(method)).count();
        assert_eq!(sent, seen, "{method}");
        assert_eq!(reason(&answer), if seen == 2 { "" } else { "server_died" }, "{answer}");
        rig.check();
    }
    // The same without a session, on a connection that was not used before.
    for (method, seen) in [("tools/list", 2), ("tools/call", 1)] {
        let recorder = closing(method);
        let rig = Rig::new(&http("far", &recorder.url()));
        let list =
            format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{{{META}}}}}"#);
        let body = if method == "tools/list" { list } else { modern_call("any", "{}") };
        let answer = rig.ask(&Request::modern("/mcp", &body)).json();
        let sent = recorder.seen().iter().filter(|it| it.text().contains(method)).count();
        assert_eq!(sent, seen, "{method}");
        assert_eq!(reason(&answer), if seen == 2 { "" } else { "server_died" }, "{answer}");
        rig.check();
    }
}
