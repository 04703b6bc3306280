//! What child processes get, say, and leave behind.

use super::*;

#[tokio::test]
async fn the_environment_is_clean() {
    let mut bench = Bench::start(&["env"]);
    let output = bench.output_of(0).await;
    let names: Vec<_> = output.lines().filter_map(|line| line.split_once('=')).collect();
    let allowed = "PATH HOME USER LOGNAME SHELL LANG TZ TMPDIR TERM PWD SHLVL OLDPWD _ CONFIGURED";
    for (name, _) in &names {
        assert!(allowed.split(' ').any(|it| it == *name) || name.starts_with("LC_"), "{name}");
    }
    assert!(names.contains(&("CONFIGURED", "a secret; $(id)")), "{names:?}");
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")), "a test of nothing");
}

#[tokio::test]
async fn arguments_are_never_read_by_a_shell() {
    let hostile = ["; id", "$(id)", "`id`", "a\nb", "--flag", "", "\"'\\", "*"];
    let mut server = shell(r#"for a in "$@"; do printf '[%s]' "$a"; done"#);
    if let Target::Stdio(command) = &mut server.target {
        command.args.push("sh".to_owned());
        command.args.extend(hostile.map(str::to_owned));
    }
    let mut bench = Bench::with(vec![server]);
    let want: String = hostile.iter().map(|arg| format!("[{arg}]")).collect();
    assert_eq!(bench.output_of(0).await, want);
}

#[tokio::test]
async fn only_the_three_streams_are_open_and_limits_are_the_users_own() {
    // The shell opens the directory, and nothing else is there besides the three.
    let mut bench = Bench::start(&["ls /proc/self/fd | wc -l; ulimit -n; ulimit -c"]);
    let output = bench.output_of(0).await;
    let before = bench.files.current.map_or("unlimited".to_owned(), |files| files.to_string());
    let lines: Vec<_> = output.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["4", &before]);
}

#[tokio::test]
async fn both_directions_are_one_socket() {
    let mut bench = Bench::start(&["read line; echo got $line; read line || echo end"]);
    let mut socket = bench.open(0);
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"hello\n").await.unwrap();
    let mut buf = [0; 10];
    socket.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"got hello\n");
    tokio::io::AsyncWriteExt::shutdown(&mut socket).await.unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "end\n");
}

// --- standard error, and the end ---

#[tokio::test]
async fn lines_of_standard_error_are_logged_one_by_one() {
    let script = r"printf 'one\ntwo \033[31m\r\n\n{\nlast' >&2; exit 3";
    let mut bench = Bench::start(&[script]);
    let _socket = bench.open(0);
    assert_eq!(bench.ended(0).await, "exit status 3");
    let records = bench.records();
    let lines: Vec<_> =
        records.iter().filter(|it| it["event"] == "stderr").map(|it| &it["line"]).collect();
    assert_eq!(lines, ["one", "two \u{1b}[31m", "{", "last"]);
    assert!(records.iter().all(|it| it["server"] == "sh" && it["pid"].is_number()));
    let last = records.last().unwrap();
    assert_eq!((&last["event"], &last["how"]), (&"process_exited".into(), &"exit status 3".into()));
}

#[tokio::test]
async fn a_flood_of_standard_error_is_bounded_and_counted() {
    let mut bench = Bench::start(&["seq 1 50000 >&2"]);
    let _socket = bench.open(0);
    assert_eq!(bench.ended(0).await, "exit status 0");
    let records = bench.records();
    let written = records.iter().filter(|it| it["event"] == "stderr").count();
    let dropped = records.iter().filter(|it| it["event"] == "stderr_dropped");
    let dropped: u64 = dropped.map(|it| it["lines"].as_u64().unwrap()).sum();
    assert_eq!(written as u64 + dropped, 50_000);
    assert!((1000..20_000).contains(&written), "{written}");
}

#[tokio::test]
async fn the_end_is_told_in_words() {
    let mut bench = Bench::start(&["exit 0", "exit 7", "kill -9 $$"]);
    for (index, want) in [(0, "exit status 0"), (1, "exit status 7"), (2, "signal 9")] {
        let _socket = bench.open(index);
        assert_eq!(bench.ended(index).await, want);
    }
    assert!(bench.processes.is_empty());
}

#[tokio::test]
async fn descendants_end_with_their_leader() {
    let mut bench = Bench::start(&["sleep 600 >/dev/null 2>&1 & echo $!"]);
    let descendant = bench.output_of(0).await;
    assert_eq!(bench.ended(0).await, "exit status 0");
    wait_until("the descendant is gone", || !is_running(descendant.trim())).await;
}

#[tokio::test]
async fn stop_first_waits_then_asks_then_insists() {
    let polite = "cat >/dev/null; exit 5";
    let deaf_to_eof = "trap 'exit 6' TERM; while :; do sleep 0.02; done";
    let deaf = "trap '' TERM; (while :; do sleep 1; done) & echo $!; while :; do sleep 1; done";
    let mut bench = Bench::start(&[polite, deaf_to_eof, deaf]);

    drop(bench.open(0));
    bench.stop(0, PATIENCE);
    assert_eq!(bench.ended(0).await, "exit status 5");

    let socket = bench.open(1);
    tokio::time::sleep(Duration::from_millis(200)).await; // Until its trap is set.
    bench.stop(1, Duration::from_millis(100));
    assert_eq!(bench.ended(1).await, "exit status 6");
    drop(socket);

    let mut socket = bench.open(2);
    let descendant = read_line(&mut socket).await;
    assert!(is_running(&descendant));
    bench.stop(2, Duration::from_millis(50));
    bench.stop(2, Duration::from_secs(600));
    assert_eq!(bench.ended(2).await, "signal 9");
    wait_until("the descendant is gone", || !is_running(&descendant)).await;
    bench.stop(2, Duration::ZERO);
}

#[tokio::test]
async fn a_process_can_be_stopped_right_after_its_start() {
    let mut bench = Bench::start(&["sleep 600"]);
    drop(bench.open(0));
    bench.stop(0, Duration::ZERO);
    assert!(bench.ended(0).await.starts_with("signal "));
}

// --- what is refused ---

#[tokio::test]
async fn no_more_processes_than_allowed() {
    let mut bench = Bench::start(&["exec sleep 600"]);
    if let Target::Stdio(command) = &bench.settings.catalog.get(ServerId(0)).unwrap().target {
        assert_eq!(command.processes_max, 2);
    }
    let keys = [0, 1, 2].map(|shard| Key { shard: ShardId(shard), process: ProcessId(9) });
    let start = |bench: &mut Bench, key| bench.processes.start(key, ServerId(0));
    assert!(matches!(start(&mut bench, keys[0]), Reply::Started(_)));
    assert!(matches!(start(&mut bench, keys[0]), Reply::Failed(_)));
    assert!(matches!(start(&mut bench, keys[1]), Reply::Started(_)));
    let Reply::Full(words) = start(&mut bench, keys[2]) else { panic!("started") };
    assert!(words.contains("all 2 processes"), "{words}");
    bench.processes.stop(keys[0], Duration::ZERO);
    bench.processes.reap(bench.ended.recv().await.unwrap());
    assert!(matches!(start(&mut bench, keys[2]), Reply::Started(_)));
    bench.processes.kill_all();
}

#[tokio::test]
async fn a_failed_start_says_what_to_do_and_no_secret() {
    let dir = Scratch::new();
    let script = dir.file("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let cases = [
        ("no-such-program-mcp", "not found in PATH"),
        ("/no/such/program", "`/no/such/program` does not exist"),
        ("/etc/passwd", "may not be executed"),
        ("/", "may not be executed"),
        ("nul\0", "could not be started"),
    ];
    for (program, want) in cases {
        check_failure(program, None, want).await;
    }
    check_failure("sh", Some("/no/such/dir"), "directory `/no/such/dir` does not exist").await;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    check_failure(&script, None, "the interpreter that").await;
}

async fn check_failure(program: &str, cwd: Option<&str>, want: &str) {
    let mut server = shell("");
    if let Target::Stdio(command) = &mut server.target {
        command.program = program.to_owned();
        command.cwd = cwd.map(Into::into);
    }
    let mut bench = Bench::with(vec![server]);
    let Reply::Failed(words) = bench.start_one(0) else { panic!("{program} started") };
    assert!(words.contains(want), "{words}");
    assert!(!words.contains("secret"), "{words}");
    assert!(bench.processes.is_empty());
}

async fn read_line(socket: &mut UnixStream) -> String {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await.unwrap() {
            b'\n' => return String::from_utf8(line).unwrap(),
            byte => line.push(byte),
        }
    }
}
