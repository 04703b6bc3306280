//! Child processes: what they are given, how they die, and that none is ever left behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::http::Request;
use super::rig::{Dir, META, Rig, call, demo, initialize, modern_call, script};
use crate::support::until;

/// A server in shell: `$1` is a directory where it writes down what it reads and who it is.
const SERVER: &str = r#"
echo $$ >> "$1/pids"
sleep 3000 &
echo $! >> "$1/pids"
tr '\0' '\n' < /proc/$$/environ > "$1/env"
while IFS= read -r line; do
  printf '%s\n' "$line" >> "$1/lines"
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"notifications/'*) ;;
    *'"die"'*) exit 3 ;;
    *'"hang"'*) ;;
    *'"deaf"'*) trap '' TERM; while :; do sleep 1; done ;;
    *'"nonsense"'*) printf 'nonsense\n{"jsonrpc":"2.0","id":99,"result":{}}\n{"id":%s}\n[]\n' "$id"
      printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[]}}\n' "$id" ;;
    *) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}\n' "$id" ;;
  esac
done
"#;

fn rig(more: &str) -> Rig {
    rig_with(more, |_| {})
}

fn rig_with(more: &str, change: impl FnOnce(&mut Command)) -> Rig {
    let dir = Dir::new();
    let path = dir.write("server.sh", SERVER);
    let config = script("sh", &path, &[path.parent().unwrap().to_str().unwrap()]) + more;
    Rig::with(dir, &(config + "stop_grace = \"300ms\"\n"), change)
}

/// The processes that the servers of a rig wrote down, as far as they are alive.
fn alive(dir: &Dir) -> Vec<String> {
    let is_alive = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
        state.is_some_and(|state| state != 'Z')
    };
    dir.lines("pids").into_iter().filter(is_alive).collect()
}

/// Zombies that wait for the gateway.
fn zombies(gateway: Pid) -> usize {
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    let stats = fs::read_dir("/proc").unwrap().filter_map(|entry| stat(entry.ok()?));
    let parent = format!("Z {}", gateway.as_raw_pid());
    stats
        .filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with(&parent)))
        .count()
}

fn none_left(dir: &Dir, within: Duration) {
    let start = Instant::now();
    while !alive(dir).is_empty() {
        assert!(start.elapsed() < within, "alive: {:?}", alive(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["gateway"].as_str().unwrap_or_default()
}

/// Clients cannot take the last file: what serves them needs some, too.
#[test]
fn clients_leave_files_for_servers() {
    let limited = |command: &mut Command| {
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=400").arg(command.get_program()).args(command.get_args());
        *command = limited;
    };
    let rig = rig_with("", limited);
    let mut session = rig.open("sh");
    let crowd: Vec<_> = (0..200).map(|_| rig.wire()).collect();
    // 400 files, 256 of them for the gateway, an eighth of the rest for servers: 126 clients.
    until("the crowd", || {
        let open = rig.metric("mcp_connections_open");
        let refused = rig.metric("mcp_connections_refused_total");
        assert!(open <= 126, "{open}");
        (open + refused == 201 && 100 < open).then_some(())
    });
    assert_eq!(session.call("die", &json!({}))["error"]["data"]["gateway"], "server_died");
    let again = session.call("echo", &json!({}));
    assert_eq!(again["result"]["tools"], json!([]), "a new process could be started: {again}");
    drop(crowd);
}

#[test]
fn arguments_are_literal_and_the_environment_is_what_was_named() {
    let dir = Dir::new();
    let arguments =
        ["; touch /tmp/mcp-evil", "$(touch /tmp/mcp-evil)", "`id`", "a\nb", "--flag", "* ?", ""];
    let text = format!("shift 0; printf '%s|' \"$@\" > \"$OUT/args\"\nset -- \"$OUT\"\n{SERVER}");
    let path = dir.write("server.sh", &text);
    let out = path.parent().unwrap().to_str().unwrap().to_owned();
    let config = script("sh", &path, &arguments)
        + &format!(
            "env = {{ OUT = {out:?}, GIVEN = \"is ${{SOURCE}}\", LITERAL = \"$${{SOURCE}}\" }}\n"
        );
    let rig = Rig::with(dir, &config, |command| {
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nowhere").env("LC_ALL", "C");
        command
            .env("SOURCE", "canary")
            .env("AWS_SECRET_ACCESS_KEY", "canary")
            .env("LD_X", "canary");
    });
    rig.open("sh");
    let args = fs::read_to_string(rig.dir.join("args")).unwrap();
    assert_eq!(args, arguments.map(|argument| format!("{argument}|")).concat());
    let mut env = rig.dir.lines("env");
    env.sort();
    let out = format!("OUT={out}");
    let mut wanted = vec![
        "GIVEN=is canary",
        "HOME=/nowhere",
        "LC_ALL=C",
        "LITERAL=${SOURCE}",
        &out,
        "PATH=/usr/bin:/bin",
    ];
    wanted.sort_unstable();
    assert_eq!(env, wanted);
    assert!(!fs::exists("/tmp/mcp-evil").unwrap());
}

#[test]
fn what_a_client_says_never_becomes_an_argument() {
    let rig = rig("");
    let mut session = rig.open("sh");
    let name = "--flag; $(touch /tmp/mcp-evil)\n`id`";
    session.call(name, &json!({"x": name}));
    let (pids, mut found) = (rig.dir.lines("pids"), 0);
    for pid in pids {
        let args = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!args.contains("--flag"), "{args}");
        found += usize::from(!args.is_empty());
    }
    assert_eq!(found, 2);
    assert!(!fs::exists("/tmp/mcp-evil").unwrap());
}

#[test]
fn a_process_that_dies_costs_its_calls_and_is_replaced_as_it_was() {
    let rig = rig("");
    let mut session = rig.open("sh");
    let level = |level| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
        )
    };
    let subscribe = |uri: &str, what: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"resources/{what}","params":{{"uri":"{uri}"}}}}"#
        )
    };
    session.post(level("debug"));
    session.post(level("error"));
    session.post(subscribe("x://a", "subscribe"));
    session.post(subscribe("x://b", "subscribe"));
    session.post(subscribe("x://b", "unsubscribe"));
    let mut other = rig.wire();
    other.send(session.request(call("hang", &json!({}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    let start = Instant::now();
    let died = session.call("die", &json!({}));
    assert_eq!((reason(&died), &died["id"]), ("server_died", &json!(7)));
    assert!(start.elapsed() < Duration::from_secs(10), "it is told at once");
    assert!(other.answer().payload().contains("server_died"), "so are the others");
    fs::remove_file(rig.dir.join("lines")).unwrap();
    assert_eq!(session.call("fine", &json!({}))["result"]["tools"], json!([]));
    let methods: Vec<String> = rig
        .dir
        .lines("lines")
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let detail = line["params"]["level"].as_str().or(line["params"]["uri"].as_str());
            format!("{} {}", line["method"].as_str().unwrap(), detail.unwrap_or_default())
        })
        .collect();
    let wanted = [
        "initialize ",
        "notifications/initialized ",
        "logging/setLevel error",
        "resources/subscribe x://a",
        "tools/call ",
    ];
    assert_eq!(methods, wanted);
    assert_eq!(zombies(rig.gateway.process.pid()), 0);
    rig.check();
}

#[test]
fn a_killed_process_is_replaced_too() {
    let rig = rig("");
    let mut session = rig.open("sh");
    for _ in 0..3 {
        let pids = rig.dir.lines("pids");
        let pid: i32 = pids[pids.len() - 2].parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        until("its group is gone", || (alive(&rig.dir).is_empty()).then_some(()));
        assert_eq!(session.call("fine", &json!({}))["result"]["tools"], json!([]));
    }
    assert_eq!(alive(&rig.dir).len(), 2);
}

#[test]
fn nonsense_of_a_process_is_dropped_and_hurts_nobody() {
    let mut rig = rig("");
    let mut session = rig.open("sh");
    assert_eq!(session.call("nonsense", &json!({}))["result"]["content"], json!([]));
    let log = rig.log_with("not JSON-RPC");
    let what = "wrote a line that is not JSON-RPC to its standard output";
    assert!(log.iter().any(|line| line["what"] == what), "{log:?}");
}

/// A server that works the first time it is started, and never again.
const ONCE: &str = r#"
echo started >> "$1/starts"
if [ -e "$1/again" ]; then exit 1; fi
touch "$1/again"
"#;

#[test]
fn who_crashes_at_once_is_not_started_over_and_over() {
    let dir = Dir::new();
    let path = dir.write("once.sh", &format!("{ONCE}{SERVER}"));
    let config = script("once", &path, &[path.parent().unwrap().to_str().unwrap()]) + &demo();
    let rig = Rig::with(dir, &config, |_| {});
    let mut session = rig.open("once");
    session.call("die", &json!({}));
    let start = Instant::now();
    let mut asked = 0_u32;
    while start.elapsed() < Duration::from_secs(3) {
        let answer = session.post(call("fine", &json!({})));
        assert!(answer.payload().contains("server_died"), "{}", answer.text());
        let modern = Request::modern("/mcp/once", &modern_call("fine", "{}"));
        let answer = rig.ask(&modern);
        assert!(answer.payload().contains("server_died"), "{}", answer.text());
        asked += 2;
    }
    let starts = rig.dir.lines("starts").len();
    assert!(starts <= 14, "{starts} starts for {asked} requests");
    // Whoever begins anew is not delayed by that.
    let start = Instant::now();
    let answer = rig.ask(&Request::post("/mcp/once", initialize("2025-11-25")));
    assert_eq!((answer.status(), reason(&answer.json())), (502, "server_died"));
    assert_eq!(answer.get("mcp-session-id"), "");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(rig.open("demo").text("echo", &json!({"text": "x"})), "x");
    rig.check();
}

#[test]
fn a_program_that_does_not_exist_is_unreachable() {
    let rig = Rig::new("[servers.gone]\ncommand = [\"/nowhere/at-all\"]\n");
    let answer = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!((answer.status(), reason(&answer.json())), (502, "server_unreachable"));
    let answer = rig.ask(&Request::modern("/mcp", &modern_call("x", "{}")));
    assert_eq!((answer.status(), reason(&answer.json())), (502, "server_unreachable"));
}

#[test]
fn too_many_processes_are_503_until_there_is_room() {
    let rig = rig("processes = 1\n");
    let mut session = rig.open("sh");
    for _ in 0..12 {
        let answer = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
        assert_eq!((answer.status(), reason(&answer.json())), (503, "full"));
        assert_eq!(answer.get("retry-after"), "1");
    }
    assert_eq!(session.call("fine", &json!({}))["result"]["tools"], json!([]));
    session.wire.ask(&Request::new("DELETE", "/mcp").session(&session.id));
    rig.until_metric("mcp_processes_running ", 0);
    // Being full is no reason to wait.
    let start = Instant::now();
    rig.open("sh");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_process_that_never_answers_is_given_up() {
    let dir = Dir::new();
    let path = dir.write("silent.sh", "echo $$ >> \"$1/pids\"\nexec sleep 3000");
    let config = script("silent", &path, &[path.parent().unwrap().to_str().unwrap()]);
    let config = config + "start_timeout = \"300ms\"\nstop_grace = \"100ms\"\n";
    let rig = Rig::with(dir, &config, |_| {});
    let answer = rig.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!((answer.status(), reason(&answer.json())), (504, "server_timeout"));
    // For a modern request silence means: not modern.
    let answer = rig.ask(&Request::modern("/mcp", &modern_call("x", "{}")));
    assert_eq!((answer.status(), reason(&answer.json())), (400, "legacy_server"));
    none_left(&rig.dir, Duration::from_secs(10));
}

#[test]
fn a_call_that_takes_too_long_is_given_up() {
    let rig = rig("request_timeout = \"300ms\"\n");
    let mut session = rig.open("sh");
    let answer = session.post(call("hang", &json!({})));
    assert!(answer.payload().contains("server_timeout"), "{}", answer.text());
    let is_cancelled = |line: &String| line.contains("notifications/cancelled");
    until("a cancellation", || rig.dir.lines("lines").into_iter().find(is_cancelled));
    assert_eq!(session.call("fine", &json!({}))["result"]["tools"], json!([]));
}

#[test]
fn a_modern_client_that_leaves_cancels_and_a_legacy_one_does_not() {
    let rig = rig("");
    let session = rig.open("sh");
    let mut wire = rig.wire();
    wire.send(session.request(call("hang", &json!({}))).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 1);
    drop(wire);
    let mut wire = rig.wire();
    wire.send(Request::modern("/mcp", &modern_call("hang", "{}")).bytes());
    let lines = || rig.dir.lines("lines");
    let is_call = |line: &String| line.contains("hang") && line.contains(META);
    let line = until("the call", || lines().into_iter().find(is_call));
    let number = serde_json::from_str::<Value>(&line).unwrap()["id"].clone();
    drop(wire);
    let is_cancelled = |line: &String| line.contains("notifications/cancelled");
    let line = until("a cancellation", || lines().into_iter().find(is_cancelled));
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["params"]["requestId"], number);
    assert_eq!(lines().into_iter().filter(is_cancelled).count(), 1);
    rig.until_metric("mcp_exchanges_in_flight ", 1);
}

#[test]
fn the_end_of_a_session_is_the_end_of_its_process_and_of_what_that_started() {
    let rig = rig("");
    for tool in ["fine", "hang", "deaf"] {
        let mut session = rig.open("sh");
        session.wire.send(session.request(call(tool, &json!({}))).bytes());
        let is_call = |line: &String| line.contains(tool);
        until("the call", || rig.dir.lines("lines").into_iter().find(is_call));
        assert_eq!(alive(&rig.dir).len(), 2);
        let delete = Request::new("DELETE", "/mcp").session(&session.id);
        assert_eq!(rig.ask(&delete).status(), 200);
        none_left(&rig.dir, Duration::from_secs(10));
    }
    rig.until_metric("mcp_processes_running ", 0);
    assert_eq!(zombies(rig.gateway.process.pid()), 0);
}

#[test]
fn sigterm_lets_calls_finish_and_leaves_nothing_behind() {
    let dir = Dir::new();
    let path = dir.write("server.sh", SERVER);
    let sh = script("sh", &path, &[path.parent().unwrap().to_str().unwrap()]);
    let mut rig = Rig::with(dir, &(demo() + &sh + "stop_grace = \"300ms\"\n"), |_| {});
    let (mut session, idle) = (rig.open("demo"), rig.open("sh"));
    let mut listener = session.listen(&rig);
    let mut modern = rig.wire();
    let nap = json!({"ms": 1000});
    session.wire.send(session.request(call("sleep", &nap)).bytes());
    modern.send(Request::modern("/mcp/demo", &modern_call("sleep", &nap.to_string())).bytes());
    rig.until_metric("mcp_exchanges_in_flight ", 2);
    let pids = alive(&rig.dir);
    assert_eq!(pids.len(), 2);
    rig.gateway.process.signal(Signal::TERM);
    let mut retries = Vec::new();
    while let Some(event) = listener.event() {
        assert_eq!(event.data, "");
        retries.extend(event.retry);
    }
    assert!(!retries.is_empty(), "its client is told to come back");
    for answer in [session.wire.answer(), modern.answer()] {
        assert_eq!(answer.json()["result"]["content"][0]["text"], "Slept 1000 ms.");
    }
    assert!(session.wire.is_closed() && modern.is_closed() && listener.is_closed());
    let status = rig.gateway.process.end(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
    none_left(&rig.dir, Duration::from_secs(2));
    let log = rig.log_with("stopped");
    assert_eq!(log.last().unwrap()["event"], "stopped");
    drop(idle);
}

#[test]
fn kill_9_leaves_nothing_behind() {
    let mut rig = rig("");
    let (mut first, _second) = (rig.open("sh"), rig.open("sh"));
    first.wire.send(first.request(call("deaf", &json!({}))).bytes());
    let is_call = |line: &String| line.contains("deaf");
    until("the call", || rig.dir.lines("lines").into_iter().find(is_call));
    assert_eq!(alive(&rig.dir).len(), 4);
    rig.gateway.process.signal(Signal::KILL);
    none_left(&rig.dir, Duration::from_secs(2));
    assert!(!rig.gateway.process.end(Duration::from_secs(5)).success());
}

#[test]
fn a_second_sigterm_is_the_end() {
    let mut rig = rig("");
    let mut session = rig.open("sh");
    session.wire.send(session.request(call("deaf", &json!({}))).bytes());
    let is_call = |line: &String| line.contains("deaf");
    until("the call", || rig.dir.lines("lines").into_iter().find(is_call));
    rig.gateway.process.signal(Signal::TERM);
    rig.log_with("draining");
    rig.gateway.process.signal(Signal::TERM);
    rig.gateway.process.end(Duration::from_secs(10));
    none_left(&rig.dir, Duration::from_secs(2));
}

// --- what hides, and what multiplies ---

/// Starts something that leaves its process group, and holds nothing of it.
const HIDER: &str = r#"
setsid -f sh -c 'echo $$ >> "$0/pids"; exec sleep 3000' "$1" </dev/null >/dev/null 2>&1
"#;

/// Starts more and more on the word "bomb", up to a number that a machine survives. A shell that
/// can not fork ends; its children stay.
const BOMB: &str = r#"
    *'"bomb"'*) sh -c 'i=0
      while [ $i -lt 2000 ]; do sleep 3000 & echo $! >> "$0/pids"; i=$((i + 1)); done' "$1"
      echo over >> "$1/over" ;;
    *'"die"'*)"#;

/// Whether a gateway that is started from here can have control groups: tried with a group.
fn can_have_groups() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let is_possible = |line: &str| {
        let (_, rest) = line.split_once(':').unwrap();
        let root = match rest.split_once(':').unwrap() {
            ("pids", path) => format!("/sys/fs/cgroup/pids{path}"),
            ("", path) => format!("/sys/fs/cgroup{path}"),
            _ => return false,
        };
        let probe = Path::new(&root).join(format!("probe-{:?}", std::thread::current().id()));
        let probe = probe.with_extension(std::process::id().to_string());
        let is_made = fs::create_dir(&probe).is_ok();
        let control = Path::new(&root).join("cgroup.subtree_control");
        let is_root = !Path::new(&root).join("cgroup.type").exists();
        let is_limited = is_made
            // In version 2 a group with processes can not, and we are not alone, except that the
            // root can.
            && (!control.exists() || is_root && fs::write(&control, "+pids").is_ok())
            && probe.join("pids.max").exists();
        fs::remove_dir(&probe).unwrap_or_default();
        is_limited
    };
    groups.lines().any(is_possible)
}

fn server(text: &str) -> (Dir, String) {
    let dir = Dir::new();
    let path = dir.write("server.sh", text);
    let config = script("sh", &path, &[path.parent().unwrap().to_str().unwrap()]);
    (dir, config + "stop_grace = \"300ms\"\n")
}

/// A gateway with such a server. None if it can not contain it: then it says so, and what to do.
fn contained(text: &str, more: &str) -> Option<Rig> {
    let (dir, config) = server(text);
    let mut rig = Rig::with(dir, &(config + more), |_| {});
    let log = rig.log_with("\"ready\"");
    let complains = log.iter().any(is_complaint);
    assert_eq!(complains, !can_have_groups(), "{log:?}");
    (!complains).then_some(rig)
}

fn is_complaint(line: &Value) -> bool {
    line["event"] == "warning" && line["message"].as_str().unwrap().contains("`Delegate=pids`")
}

#[test]
fn what_left_its_process_group_ends_with_its_session_too() {
    let Some(rig) = contained(&format!("{HIDER}{SERVER}"), "") else { return };
    for tool in ["fine", "die"] {
        let mut session = rig.open("sh");
        until("all three run", || (alive(&rig.dir).len() == 3).then_some(()));
        session.call(tool, &json!({}));
        if tool == "fine" {
            rig.ask(&Request::new("DELETE", "/mcp").session(&session.id));
        }
        none_left(&rig.dir, Duration::from_secs(10));
    }
    rig.check();
}

#[test]
fn what_left_its_process_group_ends_with_the_gateway_too() {
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(mut rig) = contained(&format!("{HIDER}{SERVER}"), "") else { return };
        let _session = rig.open("sh");
        until("all three run", || (alive(&rig.dir).len() == 3).then_some(()));
        rig.gateway.process.signal(signal);
        rig.gateway.process.end(Duration::from_secs(20));
        none_left(&rig.dir, Duration::from_secs(2));
    }
}

#[test]
fn a_server_that_multiplies_stays_within_its_tasks() {
    let text = SERVER.replacen("    *'\"die\"'*)", BOMB.trim_start_matches('\n'), 1);
    let Some(rig) = contained(&text, "tasks = 20\n") else { return };
    let session = rig.open("sh");
    let mut wire = rig.wire();
    wire.send(session.request(call("bomb", &json!({}))).bytes());
    until("it can do no more", || {
        let count = alive(&rig.dir).len();
        assert!(count <= 20, "{count}");
        (!rig.dir.lines("over").is_empty()).then_some(())
    });
    // The leader, its first sleeper, and what the shell of the bomb could start besides itself.
    assert_eq!(alive(&rig.dir).len(), 19);
    rig.ask(&Request::new("DELETE", "/mcp").session(&session.id));
    none_left(&rig.dir, Duration::from_secs(10));
    rig.check();
}

/// Runs the command in namespaces of its own, after a script that changes them.
fn unshare(command: &mut Command, options: &[&str], script: &str) {
    let mut unshare = Command::new("unshare");
    unshare.args(options).args(["sh", "-ec", &format!("{script}\nexec \"$0\" \"$@\"")]);
    unshare.arg(command.get_program()).args(command.get_args());
    *command = unshare;
}

#[test]
fn a_gateway_without_control_groups_says_so_and_works() {
    let (dir, config) = server(SERVER);
    let mut rig = Rig::with(dir, &config, |command| {
        if can_have_groups() {
            let root = if rustix::process::getuid().is_root() { "--mount" } else { "-rm" };
            let script = "grep -o ' /[^ ]* [^ ]* [^-]*- cgroup2\\? ' /proc/self/mountinfo |
                cut -d ' ' -f 3 | while read at; do mount -o remount,bind,ro \"$at\"; done";
            unshare(command, &[root], script);
        }
    });
    assert_eq!(rig.log_with("\"ready\"").into_iter().filter(is_complaint).count(), 1);
    let mut session = rig.open("sh");
    assert_eq!(session.call("fine", &json!({}))["result"]["tools"], json!([]));
    rig.ask(&Request::new("DELETE", "/mcp").session(&session.id));
    none_left(&rig.dir, Duration::from_secs(10));
}

// --- as process 1 ---

/// Orphans that write down whose children they have become, and end.
const ORPHANS: &str = r#"
for i in 1 2 3; do
  setsid -f sh -c 'sleep 0.3; sed "s/.*) . \([0-9]*\) .*/\1/" /proc/$$/stat >> "$0/parents"' "$1" \
    </dev/null >/dev/null 2>&1
done
"#;

/// Needs the right to make namespaces, which root has, and most users have for a start.
#[test]
fn process_1_reaps_what_it_is_given() {
    let (dir, config) = server(&format!("{ORPHANS}{SERVER}"));
    let mut rig = Rig::with(dir, &config, |command| {
        let is_root = rustix::process::getuid().is_root();
        let options: &[&str] = if is_root { &[] } else { &["--map-root-user"] };
        unshare(command, &[options, &["--pid", "--fork", "--mount-proc"]].concat(), "");
    });
    let outside = rig.gateway.process.pid().as_raw_pid();
    let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
    let gateway = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    for count in [3, 6] {
        let mut session = rig.open("sh");
        until("all have ended", || (rig.dir.lines("parents").len() == count).then_some(()));
        assert!(rig.dir.lines("parents").iter().all(|parent| parent == "1"));
        until("all are reaped", || (zombies(gateway) == 0).then_some(()));
        // The end of its own process is still its own to tell.
        assert_eq!(reason(&session.call("die", &json!({}))), "server_died");
    }
    let log = rig.log_with("exit status 3");
    assert!(!log.iter().any(|line| line["how"] == "unknown"), "{log:?}");
    rig.check();
}
