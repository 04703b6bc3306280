//! Clients on a Unix socket: everything that MCP has, both eras, and what they can do wrong.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getuid};
use serde_json::{Value, json};

use super::lines::{Talk, call, modern, reason};
use super::recorder::{After, Recorder, echo};
use super::rig::{Dir, Rig, demo};
use crate::support::{HttpServer, PATIENCE, Process, until};

/// A gateway with a Unix socket in front of these servers.
fn rig(servers: &str) -> (Rig, PathBuf) {
    rig_with("", servers)
}

/// The same, with more in the table of the socket.
fn rig_with(more: &str, servers: &str) -> (Rig, PathBuf) {
    let dir = Dir::new();
    let path = dir.join("mcp.sock");
    let config = format!("[listen.unix]\npath = {path:?}\n{more}\n{servers}");
    (Rig::with(dir, &config, |_| {}), path)
}

fn demo_as(isolation: &str) -> String {
    demo() + &format!("isolation = \"{isolation}\"\n")
}

#[test]
fn a_session_has_everything_and_ends_with_its_connection() {
    let (rig, path) = rig(&demo());
    let mut talk = Talk::open(&path);
    let tools = talk.ask(r#"{"jsonrpc":"2.0","id":"a","method":"tools/list"}"#);
    assert!(tools["result"]["tools"].as_array().is_some_and(|it| 5 < it.len()), "{tools}");
    assert_eq!(talk.ask(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)["id"], 2);
    talk.say(&call(&json!(3), "echo", &json!({"text": "line\nbreak \u{1f980}"})));
    assert_eq!(talk.text(&json!(3)), "line\nbreak \u{1f980}");
    // Progress.
    let arguments = json!({"steps": 3, "interval": 1});
    let params = json!({"name": "progress", "arguments": arguments, "_meta": {"progressToken": 3}});
    talk.say(
        &json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": params}).to_string(),
    );
    for step in 1..=3 {
        let note = talk.hear();
        assert_eq!(note["method"], "notifications/progress", "{note}");
        assert_eq!(note["params"]["progressToken"], 3);
        assert_eq!(note["params"]["progress"].as_f64(), Some(f64::from(step)));
    }
    assert_eq!(talk.text(&json!(4)), "Took 3 steps.");
    // A question, and its answer.
    let question = talk.call(&json!(5), "ask", &json!({"message": "Who?"}));
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let content = json!({"action": "accept", "content": {"name": "Ada", "answer": "Ada"}});
    talk.say(&json!({"jsonrpc": "2.0", "id": question["id"], "result": content}).to_string());
    assert!(talk.text(&json!(5)).contains("Ada"));
    // A notification of the server's own accord, before or after the answer.
    let heard = [talk.call(&json!(6), "toggle", &json!({})), talk.hear()];
    let note = heard.iter().find(|message| message["id"].is_null()).unwrap();
    assert_eq!(note["method"], "notifications/tools/list_changed");
    // Cancelled: no answer, and the connection goes on.
    talk.say(&call(&json!(7), "sleep", &json!({"ms": 600_000})));
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    talk.say(&call(&json!(8), "echo", &json!({"text": "after"})));
    assert_eq!(talk.text(&json!(8)), "after");
    assert_eq!(rig.metric("mcp_sessions_open "), 1);
    drop(talk);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_processes_running ", 0);
    rig.check();
}

#[test]
fn answers_come_as_they_are_ready() {
    let (rig, path) = rig(&demo());
    let mut talk = Talk::open(&path);
    talk.say(&call(&json!("slow"), "sleep", &json!({"ms": 700})));
    talk.say(&call(&json!("quick"), "echo", &json!({"text": "quick"})));
    assert_eq!(talk.text(&json!("quick")), "quick");
    assert_eq!(talk.hear()["id"], "slow");
    // The same in the modern era, without a session.
    let mut talk = Talk::unix(&path);
    talk.say(&modern(&json!(1), "sleep", &json!({"ms": 700})));
    talk.say(&modern(&json!(2), "echo", &json!({"text": "quick"})));
    assert_eq!(talk.text(&json!(2)), "quick");
    assert_eq!(talk.hear()["id"], 1);
    rig.check();
}

#[test]
fn the_modern_era_has_no_session_and_its_own_rules() {
    let (rig, path) = rig(&demo());
    let mut talk = Talk::unix(&path);
    talk.say(&modern(&json!(1), "echo", &json!({"text": "x"})));
    assert_eq!(talk.text(&json!(1)), "x");
    assert_eq!(rig.metric("mcp_sessions_open "), 0);
    // One id, one answer.
    talk.say(&modern(&json!("a"), "sleep", &json!({"ms": 600_000})));
    let refused = talk.ask(&modern(&json!("a"), "echo", &json!({"text": "x"})));
    assert_eq!((reason(&refused), &refused["id"]), ("used_id", &json!("a")));
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    talk.say(&modern(&json!("a"), "echo", &json!({"text": "again"})));
    assert_eq!(talk.text(&json!("a")), "again");
    let bare = r#"{"jsonrpc":"2.0","id":9,"method":"tools/list","params":{}}"#;
    assert_eq!(reason(&talk.ask(bare)), "no_session");
    rig.check();
}

#[test]
fn notifications_leave_nothing_behind() {
    let (rig, path) = rig(&demo());
    let mut talk = Talk::unix(&path);
    let meta = super::rig::META;
    let note =
        format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{{meta}}}}}\n");
    assert!(talk.try_say(note.repeat(2000).as_bytes()));
    talk.say(&modern(&json!(1), "echo", &json!({"text": "x"})));
    assert_eq!(talk.text(&json!(1)), "x");
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    rig.check();
}

#[test]
fn a_subscription_does_not_hold_up_the_end() {
    let params = format!(r#"{{"notifications":{{"toolsListChanged":true}},{}}}"#, super::rig::META);
    let listen = format!(
        r#"{{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{params}}}"#
    );
    let server = HttpServer::fixture();
    for servers in [demo(), super::rig::http("http", &server.url)] {
        let (mut rig, path) = rig(&servers);
        let mut talks: Vec<Talk> = (0..2).map(|_| Talk::unix(&path)).collect();
        for talk in &mut talks {
            let note = talk.ask(&listen);
            assert_eq!(note["method"], "notifications/subscriptions/acknowledged", "{note}");
        }
        let start = Instant::now();
        talks[0].finish();
        talks[0].closed();
        rig.gateway.process.signal(Signal::TERM);
        talks[1].closed();
        assert_eq!(rig.gateway.process.end(PATIENCE).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(4), "took {:?}", start.elapsed());
    }
}

#[test]
fn an_http_server_is_listened_to_until_the_client_leaves() {
    let gets = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&gets);
    let server = Recorder::start(move |request, stream| {
        if !request.start.starts_with("GET ") {
            stream.write_all(&echo(request)).unwrap();
            return After::Keep;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        match seen.fetch_add(1, Ordering::Relaxed) {
            // It goes away without a word, then with one, and more often than one would think.
            0..2 => return After::Close,
            2..8 => stream.write_all(format!("{head}retry: 1\n\n").as_bytes()).unwrap(),
            _ => {
                let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
                stream.write_all(format!("{head}data: {note}\n\n").as_bytes()).unwrap();
            }
        }
        After::Close
    });
    let (rig, path) = rig(&super::rig::http("http", &server.url()));
    let talk = Talk::open(&path);
    assert_eq!(talk.hear()["method"], "notifications/tools/list_changed");
    assert_eq!(talk.hear()["method"], "notifications/tools/list_changed");
    drop(talk);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_exchanges_in_flight ", 0);
    let count = gets.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(gets.load(Ordering::Relaxed), count, "nobody is there to listen");
    server.check();
    rig.check();
}

#[test]
fn equal_ids_of_different_connections_never_meet() {
    for isolation in ["session", "shared"] {
        let (rig, path) = rig(&demo_as(isolation));
        let mut talks: Vec<Talk> = (0..24).map(|_| Talk::open(&path)).collect();
        let mut others: Vec<Talk> = (0..8).map(|_| Talk::unix(&path)).collect();
        for round in 0..10 {
            for (number, talk) in talks.iter_mut().enumerate() {
                for id in 0..3 {
                    let text = json!({ "text": format!("{number} {round} {id}") });
                    talk.say(&call(&json!(id), "echo", &text));
                }
            }
            for (number, talk) in others.iter_mut().enumerate() {
                let text = json!({ "text": format!("modern {number} {round}") });
                talk.say(&modern(&json!(1), "echo", &text));
            }
            for (number, talk) in talks.iter().enumerate() {
                let mut heard: Vec<Value> = (0..3).map(|_| talk.hear()).collect();
                heard.sort_by_key(|answer| answer["id"].as_i64());
                for (id, answer) in heard.iter().enumerate() {
                    let text = &answer["result"]["content"][0]["text"];
                    assert_eq!(*text, format!("{number} {round} {id}"), "{answer}");
                }
            }
            for (number, talk) in others.iter().enumerate() {
                assert_eq!(talk.text(&json!(1)), format!("modern {number} {round}"));
            }
        }
        if isolation == "shared" {
            // One for all sessions, and one for the modern era.
            assert_eq!(rig.metric("mcp_processes_running "), 2);
        }
        rig.check();
    }
}

#[test]
fn large_messages_and_single_bytes_go_through() {
    let (rig, path) = rig(&demo());
    let mut talk = Talk::open(&path);
    let large = "0123456789abcdef".repeat(8 << 16);
    talk.say(&call(&json!(1), "echo", &json!({ "text": large })));
    assert!(talk.text(&json!(1)) == large);
    talk.say(&modern(&json!(2), "echo", &json!({ "text": large })));
    assert!(talk.text(&json!(2)) == large);
    for byte in (call(&json!(3), "echo", &json!({"text": "by bytes"})) + "\r\n").bytes() {
        assert!(talk.try_say(&[byte]));
    }
    assert_eq!(talk.text(&json!(3)), "by bytes");
    let many: String =
        (0..200).map(|id| call(&json!(id), "echo", &json!({"text": "x"})) + "\n").collect();
    assert!(talk.try_say(many.as_bytes()));
    let mut ids: Vec<i64> = (0..200).filter_map(|_| talk.hear()["id"].as_i64()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..200));
    rig.check();
}

#[test]
fn what_is_wrong_is_answered_and_the_connection_goes_on() {
    let (rig, path) = rig(&format!("{}\n[limits]\nmessage = \"1MiB\"\n", demo()));
    let mut talk = Talk::open(&path);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let long = call(&json!(1), "echo", &json!({ "text": "x".repeat(1 << 20) }));
    let cases = [
        ("garbage".to_owned(), -32700),
        ("{\"jsonrpc\":\"2.0\"".to_owned(), -32700),
        ("\u{0}".to_owned(), -32700),
        ("true".to_owned(), -32600),
        ("{}".to_owned(), -32600),
        ("[]".to_owned(), -32600),
        (format!("[{}]", call(&json!(1), "echo", &json!({"text": "x"}))), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{deep}}}"#), -32700),
        (long, -32600),
    ];
    for (text, code) in cases {
        let answer = talk.ask(&text);
        let shown = text.get(..60).unwrap_or(&text);
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
        assert!(answer["id"].is_null() && !reason(&answer).is_empty(), "{shown}: {answer}");
    }
    assert!(talk.try_say(b"\xff\xfe\n"));
    assert_eq!(talk.hear()["error"]["code"], -32700);
    let second = super::rig::initialize("2025-11-25");
    assert_eq!(reason(&talk.ask(&second)), "already_initialized");
    let id = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "i".repeat(2000));
    assert_eq!(reason(&talk.ask(&id)), "long_id");
    // Nobody asked for these.
    talk.say("");
    talk.say("  \r");
    talk.say(r#"{"jsonrpc":"2.0","id":99,"result":{}}"#);
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#);
    talk.say(&call(&json!(1), "echo", &json!({"text": "still here"})));
    assert_eq!(talk.text(&json!(1)), "still here");
    // 2025-03-26 has batches.
    let mut talk = Talk::unix(&path);
    talk.initialize("2025-03-26");
    let part = |id: i64| call(&json!(id), "echo", &json!({ "text": id.to_string() }));
    talk.say(&format!("[{},{}]", part(1), part(2)));
    let mut texts = [talk.hear(), talk.hear()].map(|it| it["id"].as_i64());
    texts.sort_unstable();
    assert_eq!(texts, [Some(1), Some(2)]);
    rig.check();
}

#[test]
fn who_does_not_read_is_bounded_and_hinders_nobody() {
    for isolation in ["session", "shared"] {
        let (rig, path) = rig(&demo_as(isolation));
        let mut quick = Talk::open(&path);
        let before = rig.rss();
        let mut slow = Vec::new();
        for _ in 0..6 {
            let stream = UnixStream::connect(&path).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut said = super::rig::initialize("2025-11-25") + "\n";
            said.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
            for id in 0..64 {
                said.push_str(&call(&json!(id), "large", &json!({"bytes": 1 << 20})));
                said.push('\n');
            }
            // It may be paused or dropped before it has said everything.
            let mut writer = &stream;
            let _paused = writer.write_all(said.as_bytes());
            slow.push(stream);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            quick.say(&call(&json!(1), "echo", &json!({"text": "quick"})));
            assert_eq!(quick.text(&json!(1)), "quick");
            std::thread::sleep(Duration::from_millis(50));
        }
        let grown = rig.rss().saturating_sub(before);
        assert!(grown < 6 * (18 << 20) + (32 << 20), "{isolation}: grown by {grown}");
        drop(slow);
        rig.until_metric("mcp_connections_open ", 1);
        quick.say(&call(&json!(1), "echo", &json!({"text": "still"})));
        assert_eq!(quick.text(&json!(1)), "still");
        rig.check();
    }
}

#[test]
fn who_was_paused_gets_everything_when_it_reads() {
    let (rig, path) = rig(&demo());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = super::rig::initialize("2025-11-25") + "\n";
    said.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    for id in 0..30 {
        said.push_str(&call(&json!(id), "large", &json!({"bytes": 500_000})));
        said.push('\n');
    }
    stream.write_all(said.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    let answers: Vec<Value> =
        heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 31);
    assert!(answers.iter().all(|answer| answer.get("result").is_some()));
    rig.until_metric("mcp_connections_open ", 0);
    rig.until_metric("mcp_sessions_open ", 0);
    rig.until_metric("mcp_processes_running ", 0);
    rig.check();
}

#[test]
fn a_server_that_dies_costs_its_calls_and_is_started_again() {
    for isolation in ["session", "shared"] {
        let (mut rig, path) = rig(&demo_as(isolation));
        let mut talk = Talk::open(&path);
        talk.say(&call(&json!(1), "sleep", &json!({"ms": 600_000})));
        let log = rig.log_with("process_started");
        let pid = log.iter().rev().find_map(|line| line["pid"].as_i64()).unwrap();
        rig.until_metric("mcp_exchanges_in_flight ", 1);
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let answer = talk.hear();
        assert_eq!((reason(&answer), &answer["id"]), ("server_died", &json!(1)), "{answer}");
        talk.say(&call(&json!(2), "echo", &json!({"text": "again"})));
        assert_eq!(talk.text(&json!(2)), "again");
        rig.check();
    }
}

#[test]
fn the_kernel_says_who_comes_in() {
    let uid = getuid().as_raw();
    let (mut rig, path) = rig_with(&format!("users = [54321, {uid}]"), &demo());
    drop(Talk::open(&path));
    let client = std::process::id();
    let log = rig.log_with("\"closed\"");
    let peer = format!("pid {client}, uid {uid}");
    assert!(log.iter().any(|line| line["peer"] == peer.as_str()), "{log:?}");

    let (mut rig, path) = rig_with("users = [54321]", &demo());
    Talk::unix(&path).closed();
    let log = rig.log_with("\"refused\"");
    let line = log.iter().find(|line| line["event"] == "refused").unwrap();
    assert_eq!(line["peer"], peer.as_str(), "{line}");
    assert_eq!(rig.metric("mcp_connections_refused_total "), 1);
    rig.check();
}

#[test]
fn a_drain_closes_behind_the_answer_and_removes_the_file() {
    let (mut rig, path) = rig(&demo());
    let idle = Talk::open(&path);
    let mut busy = Talk::open(&path);
    let mut modern_busy = Talk::unix(&path);
    busy.say(&call(&json!(1), "sleep", &json!({"ms": 800})));
    modern_busy.say(&modern(&json!(1), "sleep", &json!({"ms": 800})));
    rig.until_metric("mcp_exchanges_in_flight ", 2);
    rig.gateway.process.signal(Signal::TERM);
    idle.closed();
    let refused = busy.ask(&call(&json!(2), "echo", &json!({"text": "late"})));
    assert_eq!((reason(&refused), &refused["id"]), ("draining", &json!(2)));
    for talk in [busy, modern_busy] {
        let answer = talk.hear();
        assert!(answer["id"] == 1 && answer.get("result").is_some(), "{answer}");
        talk.closed();
    }
    assert_eq!(rig.gateway.process.end(PATIENCE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn one_shared_process_serves_the_clients_of_both_shards() {
    let (rig, path) = rig(&demo_as("shared"));
    let mut talks: Vec<Talk> = (0..40).map(|_| Talk::open(&path)).collect();
    assert_eq!(rig.metric("mcp_connections_open "), 40);
    for (number, talk) in talks.iter_mut().enumerate() {
        talk.say(&call(&json!(1), "echo", &json!({ "text": number.to_string() })));
        assert_eq!(talk.text(&json!(1)), number.to_string());
    }
    assert_eq!(rig.metric("mcp_processes_running "), 1);
    // What concerns everybody is heard by everybody.
    let first = talks[0].call(&json!(2), "toggle", &json!({}));
    let second = talks[0].hear();
    assert!(first["id"] == 2 || second["id"] == 2);
    for talk in &talks[1..] {
        assert_eq!(talk.hear()["method"], "notifications/tools/list_changed");
    }
    rig.check();
}

#[test]
fn clients_are_spread_over_the_shards() {
    let (mut rig, path) = rig(&demo());
    let talks: Vec<Talk> = (0..40)
        .map(|_| {
            let mut talk = Talk::unix(&path);
            talk.say(&modern(&json!(1), "echo", &json!({"text": "x"})));
            assert_eq!(talk.text(&json!(1)), "x");
            talk
        })
        .collect();
    rig.gateway.process.signal(Signal::TERM);
    for talk in &talks {
        talk.closed();
    }
    let log = rig.log_with("\"stopped\"");
    let of = |shard: u64| {
        log.iter().filter(|it| it["event"] == "closed" && it["shard"] == shard).count()
    };
    assert_eq!(of(0) + of(1), 40);
    assert!(10 <= of(0) && 10 <= of(1), "{} and {}", of(0), of(1));
}

#[test]
fn a_gateway_without_http_says_where_it_listens_and_takes_over_a_stale_socket() {
    let dir = Dir::new();
    let path = dir.join("mcp.sock");
    let text = format!("[listen]\nhttp = \"off\"\nadmin = \"off\"\nunix = {path:?}\n{}", demo());
    let config = dir.write("gateway.toml", &text);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
        command.arg("run").arg("--config").arg(&config).args(["--log", "json"]);
        Process::start(command.stdin(Stdio::null()))
    };
    let mut first = start();
    let said =
        first.line("where it listens", |line| line.contains("listening").then(|| line.to_owned()));
    assert!(said.contains(&format!("the Unix socket {} (demo)", path.display())), "{said}");
    first.line("ready", |line| line.contains("\"ready\"").then_some(()));
    drop(Talk::open(&path));
    // Two at one path: the second says what is wrong and leaves the first alone.
    let mut second = start();
    assert_eq!(second.end(PATIENCE).code(), Some(1));
    let output = second.output();
    assert!(output.contains("another program listens there"), "{output}");
    drop(Talk::open(&path));
    first.signal(Signal::KILL);
    until("the end of the first", || UnixStream::connect(&path).err());
    assert!(path.exists());
    let mut third = start();
    third.line("ready", |line| line.contains("\"ready\"").then_some(()));
    drop(Talk::open(&path));
    third.signal(Signal::TERM);
    assert_eq!(third.end(PATIENCE).code(), Some(0));
    assert!(!path.exists());
}
