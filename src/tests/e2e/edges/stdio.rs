//! `mcp-gateway stdio`: one client on standard input and output, and nothing else on the latter.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::lines::{Talk, call, modern, reason};
use super::rig::{Dir, demo, initialize};
use crate::support::{HttpServer, until};

/// An end may take no longer.
const END_MAX: Duration = Duration::from_secs(5);

/// A gateway for one client, which is the test.
struct Filter {
    child: Child,
    talk: Talk,
    log: PathBuf,
    dir: Dir,
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

impl Filter {
    fn start(dir: Dir, arguments: &[&str]) -> Self {
        let log = dir.join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
        command.arg("stdio").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, talk: Talk::new(to, from), log, dir }
    }

    /// In front of the demo server.
    fn demo() -> Self {
        let program = env!("CARGO_BIN_EXE_mcp-gateway");
        Self::start(Dir::new(), &["--", program, "demo-server"])
    }

    /// In front of a shell script.
    fn shell(script: &str) -> Self {
        Self::start(Dir::new(), &["--", "/bin/sh", "-c", script])
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it ends, which has to be within that time.
    #[track_caller]
    fn end_within(&mut self, time: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = until("the end", || self.child.try_wait().unwrap());
        assert!(start.elapsed() < time, "took {:?}:\n{}", start.elapsed(), self.log());
        status
    }

    /// Ends its input; it has to end well, and to say nothing more.
    #[track_caller]
    fn finish(&mut self) {
        self.talk.finish();
        let status = self.end_within(END_MAX);
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.talk.closed();
        assert!(self.log().contains("\"stopped\""), "{}", self.log());
    }
}

/// Time on a processor that a process has used, in hundredths of a second.
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_client_is_served_until_its_input_ends() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    filter.talk.say(&call(&json!(1), "echo", &json!({"text": "x"})));
    assert_eq!(filter.talk.text(&json!(1)), "x");
    filter.talk.say(&modern(&json!(2), "echo", &json!({"text": "both eras"})));
    assert_eq!(filter.talk.text(&json!(2)), "both eras");
    let large = "0123456789abcdef".repeat(8 << 16);
    filter.talk.say(&call(&json!(3), "echo", &json!({ "text": large })));
    assert!(filter.talk.text(&json!(3)) == large);
    filter.finish();
    let log = filter.log();
    let peer = format!("pid {}, uid {}", std::process::id(), rustix::process::getuid().as_raw());
    assert!(log.contains(&peer), "{log}");
    assert!(log.contains("serving default on standard input and output"), "{log}");
    assert!(!log.contains("http://"), "nobody else can connect: {log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
}

#[test]
fn what_is_in_flight_at_the_end_of_input_is_answered() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    for id in 0..20 {
        filter.talk.say(&call(&json!(id), "sleep", &json!({"ms": 700})));
    }
    // The last line lacks its end.
    let last = call(&json!(20), "echo", &json!({"text": "last"}));
    assert!(filter.talk.try_say(last.as_bytes()));
    filter.talk.finish();
    assert_eq!(filter.talk.text(&json!(20)), "last");
    let mut ids: Vec<i64> = (0..20).filter_map(|_| filter.talk.hear()["id"].as_i64()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..20));
    assert_eq!(filter.end_within(END_MAX).code(), Some(0));
    filter.talk.closed();
}

#[test]
fn the_end_of_input_at_any_moment_is_the_end() {
    let initialize = format!("{}\n", initialize("2025-11-25"));
    let cases: [&[u8]; 5] =
        [b"", b"\n\n", b"{\"jsonrpc\":", b"\xff\xff\xff\n", initialize.as_bytes()];
    for case in cases {
        let mut filter = Filter::demo();
        assert!(filter.talk.try_say(case) || case.is_empty());
        filter.talk.finish();
        assert_eq!(filter.end_within(END_MAX).code(), Some(0), "{case:?}: {}", filter.log());
    }
}

#[test]
fn servers_that_do_not_end_delay_the_end_a_little_only() {
    // One that waits for SIGTERM, and one that waits for SIGKILL.
    for last in ["while :; do sleep 1; done", "trap '' TERM; while :; do sleep 1; done"] {
        let answer = r#"{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}"#;
        let id = r#"$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')"#;
        let script =
            format!("read -r line; printf '{answer}\\n' \"{id}\"; exec 0</dev/null; {last}");
        let mut filter = Filter::shell(&script);
        filter.talk.initialize("2025-11-25");
        filter.finish();
    }
}

#[test]
fn garbage_is_answered_and_the_stream_goes_on() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    for garbage in ["garbage", "{", "[]", "\u{1b}[2J", "{\"jsonrpc\":\"2.0\"}"] {
        let answer = filter.talk.ask(garbage);
        assert!(answer["id"].is_null() && answer["error"]["code"].is_i64(), "{answer}");
        assert_eq!(answer["jsonrpc"], "2.0");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(reason(&filter.talk.ask(&deep)), "bad_message");
    let long = call(&json!(1), "echo", &json!({ "text": "x".repeat(17 << 20) }));
    assert_eq!(reason(&filter.talk.ask(&long)), "too_large");
    filter.talk.say(&call(&json!(2), "echo", &json!({"text": "still here"})));
    assert_eq!(filter.talk.text(&json!(2)), "still here");
    filter.finish();
}

#[test]
fn what_a_server_writes_besides_messages_does_not_come_out() {
    let script =
        "echo 'starting up...'; echo 'to stderr' >&2; echo; echo '{\"half\":'; cat >/dev/null";
    let mut filter = Filter::shell(script);
    filter.talk.say(&initialize("2025-11-25"));
    filter.talk.is_quiet(Duration::from_millis(800));
    filter.talk.finish();
    // It never answers, which is waited for until there is no more time.
    assert_eq!(filter.end_within(END_MAX + END_MAX).code(), Some(0));
    filter.talk.closed();
    assert!(filter.log().contains("to stderr"));
}

#[test]
fn waiting_costs_no_time_on_the_processor() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    filter.talk.say(&call(&json!(1), "sleep", &json!({"ms": 600_000})));
    std::thread::sleep(Duration::from_millis(500));
    let before = ticks(filter.pid());
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks(filter.pid()) - before < 10);
    // After the end of input as well, while the last answer is waited for.
    filter.talk.finish();
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks(filter.pid());
    std::thread::sleep(Duration::from_secs(2));
    assert!(ticks(filter.pid()) - before < 20);
    assert_eq!(filter.end_within(END_MAX + END_MAX).code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_is_waited_for_and_costs_little() {
    // Of the process's output nobody reads anything at first.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    let program = env!("CARGO_BIN_EXE_mcp-gateway");
    command.args(["stdio", "--log", "json", "--", program, "demo-server"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut said = initialize("2025-11-25") + "\n";
    said.push_str("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    for id in 0..60 {
        said.push_str(&call(&json!(id), "large", &json!({"bytes": 1 << 20})));
        said.push('\n');
    }
    std::io::Write::write_all(&mut to, said.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss < 64 * 1024, "{rss} kB");
    let talk = Talk::new(to, child.stdout.take().unwrap());
    for _ in 0..61 {
        assert!(talk.hear().get("result").is_some());
    }
    drop(talk);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigterm_drains() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    filter.talk.say(&call(&json!(1), "sleep", &json!({"ms": 800})));
    std::thread::sleep(Duration::from_millis(200));
    kill_process(filter.pid(), Signal::TERM).unwrap();
    until("the drain", || filter.log().contains("\"draining\"").then_some(()));
    let refused = filter.talk.ask(&call(&json!(2), "echo", &json!({"text": "late"})));
    assert_eq!((reason(&refused), &refused["id"]), ("draining", &json!(2)));
    let answer = filter.talk.hear();
    assert!(answer["id"] == 1 && answer.get("result").is_some(), "{answer}");
    assert_eq!(filter.end_within(END_MAX).code(), Some(0));
    filter.talk.closed();
}

#[test]
fn a_client_that_vanishes_is_the_end_as_well() {
    let mut filter = Filter::demo();
    filter.talk.initialize("2025-11-25");
    filter.talk.say(&call(&json!(1), "sleep", &json!({"ms": 600_000})));
    // Both streams break at once.
    let other = Talk::new(std::io::sink(), std::io::empty());
    drop(std::mem::replace(&mut filter.talk, other));
    assert_eq!(filter.end_within(END_MAX + END_MAX).code(), Some(0));
}

#[test]
fn answers_that_can_not_be_written_are_a_failure() {
    let program = env!("CARGO_BIN_EXE_mcp-gateway");
    let run = |output: File| {
        let mut command = Command::new(program);
        command.args(["stdio", "--", program, "demo-server"]);
        command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The input does not end: what is wrong with the output has to be enough.
        let mut to = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut to, b"garbage\n").unwrap();
        until("the end", || child.try_wait().unwrap());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(code, Some(1));
    assert!(said.contains("standard output can not be written to: No space left"), "{said}");
    // Whoever reads no more has what it wanted.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, said) = run(File::from(std::os::fd::OwnedFd::from(writer)));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn the_log_does_not_hold_up_anybody() {
    // Nobody reads standard error, and more is written to it than a pipe holds.
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    let script = "i=0; while [ $i -lt 3000 ]; do echo \"line $i ----------------\" >&2; \
                  i=$((i+1)); done; exec \"$0\" demo-server";
    let program = env!("CARGO_BIN_EXE_mcp-gateway");
    command.args(["stdio", "--", "/bin/sh", "-c", script, program]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut talk = Talk::new(child.stdin.take().unwrap(), child.stdout.take().unwrap());
    talk.initialize("2025-11-25");
    for id in 0..500 {
        talk.say(&call(&json!(id), "echo", &json!({"text": "x"})));
        assert_eq!(talk.text(&json!(id)), "x");
    }
    talk.finish();
    let start = Instant::now();
    let status = until("the end", || child.try_wait().unwrap());
    assert!(start.elapsed() < END_MAX && status.code() == Some(0), "{status}");
}

#[test]
fn every_source_works_and_a_server_is_chosen_by_name() {
    let check = |dir: Dir, arguments: &[&str]| {
        let mut filter = Filter::start(dir, arguments);
        filter.talk.initialize("2025-11-25");
        filter.talk.say(&call(&json!(1), "echo", &json!({"text": "x"})));
        assert_eq!(filter.talk.text(&json!(1)), "x", "{arguments:?}");
        filter.finish();
        filter
    };
    let program = env!("CARGO_BIN_EXE_mcp-gateway");
    let (dir, text) = (Dir::new(), demo() + "[servers.other]\nurl = \"http://127.0.0.1:1/\"\n");
    let path = dir.write("gateway.toml", &format!("shards = 2\n[listen]\nunix = \"/s\"\n{text}"));
    let path = path.to_str().unwrap().to_owned();
    // Where others would connect does not count, nor does what is wrong with it.
    let text = fs::read_to_string(&path).unwrap().replace("unix = \"/s\"", "");
    fs::write(&path, text).unwrap();
    let filter = check(dir, &["--config", &path, "--server", "demo"]);
    drop(filter);
    // Without a name the client has all of them.
    let dir = Dir::new();
    let path = dir.write("gateway.toml", &(demo() + &demo().replace("demo]", "other]")));
    let mut filter = Filter::start(dir, &["--config", path.to_str().unwrap()]);
    filter.talk.initialize("2025-11-25");
    for (id, tool) in [(1, "demo__echo"), (2, "other__echo")] {
        filter.talk.say(&call(&json!(id), tool, &json!({"text": "x"})));
        assert_eq!(filter.talk.text(&json!(id)), "x", "{tool}");
    }
    filter.finish();

    let dir = Dir::new();
    let json = json!({"mcpServers": {"demo": {"command": program, "args": ["demo-server"]}}});
    let path = dir.write("mcp.json", &json.to_string());
    check(dir, &["--mcp-json", path.to_str().unwrap()]);
}

#[test]
fn an_http_server_is_told_of_the_end() {
    let server = HttpServer::fixture();
    let mut filter =
        Filter::start(Dir::new(), &[&server.url, "--admin", "127.0.0.1:0", "--log", "text"]);
    filter.talk.initialize("2025-11-25");
    filter.talk.say(&call(&json!(1), "fixture_echo", &json!({"text": "x"})));
    assert_eq!(filter.talk.text(&json!(1)), "x");
    until("the admin server", || filter.log().contains("admin on http://").then_some(()));
    filter.talk.finish();
    assert_eq!(filter.end_within(END_MAX).code(), Some(0));
    assert!(Path::new(&filter.log).exists() && filter.dir.join("log").exists());
}
