//! The guard, with groups that would stay behind.

use rustix::process::{Pid, Signal};

use super::*;

#[tokio::test]
async fn nothing_outlives_a_killed_gateway() {
    let dir = Scratch::new();
    let path = dir.file("pids");
    let mut gateway =
        this_program(module_path!(), "orphan_maker").arg(format!("path={path}")).spawn().unwrap();
    let pids = || fs::read_to_string(&path).unwrap_or_default();
    wait_until("all are running", || pids().ends_with("done\n")).await;
    let pids = pids();
    let pids: Vec<_> = pids.lines().filter(|line| *line != "done").collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| is_running(pid)), "{pids:?}");
    gateway.kill().unwrap();
    let killed_at = Instant::now();
    gateway.wait().unwrap();
    wait_until("all are gone", || !pids.iter().any(|pid| is_running(pid))).await;
    assert!(killed_at.elapsed() < Duration::from_secs(2), "{:?}", killed_at.elapsed());
}

#[tokio::test]
async fn the_guard_kills_only_what_is_on_its_list_and_outlives_signals() {
    use std::os::unix::process::CommandExt as _;
    let mut sleepers = [0, 1].map(|_| Command::new("sleep").arg("600").process_group(0).spawn());
    let mut guard = Guard::start(launch(None)).unwrap();
    let pids = sleepers.each_ref().map(|it| Pid::from_child(it.as_ref().unwrap()));
    pids.iter().for_each(|pid| guard.add(*pid));
    guard.remove(pids[0]);
    // A restart keeps the list.
    guard.restart().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        rustix::process::kill_process(guard.pid().unwrap(), signal).unwrap();
    }
    drop(guard);
    let [spared, killed] = &mut sleepers;
    let status = killed.as_mut().unwrap().wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let spared = spared.as_mut().unwrap();
    assert_eq!(spared.try_wait().unwrap(), None);
    spared.kill().unwrap();
    spared.wait().unwrap();
}

#[tokio::test]
async fn a_dead_guard_is_noticed_at_once_and_started_again() {
    let mut bench = Bench::start(&["exec sleep 600"]);
    let _socket = bench.open(0);
    for _ in 0..2 {
        let guard = child_named("guard_program").await;
        rustix::process::kill_process(guard, Signal::KILL).unwrap();
        tokio::time::timeout(PATIENCE, bench.processes.guard_died()).await.unwrap();
        bench.processes.restart_guard().unwrap();
    }
    bench.processes.kill_all();
}

/// The child of this very thread's process that runs one of the programs below. Tests run beside
/// each other, so there may be several; any of them that this thread started.
async fn child_named(name: &str) -> Pid {
    let me = rustix::thread::gettid().as_raw_pid();
    let path = format!("/proc/self/task/{me}/children");
    let start = Instant::now();
    loop {
        let children = fs::read_to_string(&path).unwrap();
        let found = children.split_whitespace().find(|pid| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains(name) && is_running(pid)
        });
        if let Some(pid) = found {
            return Pid::from_raw(pid.parse().unwrap()).unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "no {name} in {children}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a process with two descendants, writes down the three, and waits to be killed.
#[tokio::test]
async fn orphan_maker() {
    let Some(args) = program_args() else { return };
    let path = args[0].strip_prefix("path=").unwrap();
    // Deaf to signals and to the end of their input.
    let script = format!(
        "trap '' TERM HUP; sleep 600 & (trap '' TERM; sleep 600 & echo $! >> {path}; wait) & \
         echo $$ >> {path}; echo $! >> {path}; sleep 0.2; echo done >> {path}; wait"
    );
    let mut bench = Bench::start(&[&script]);
    let _socket = bench.open(0);
    std::future::pending::<()>().await;
}

pub(super) fn launch(base: Option<std::path::PathBuf>) -> Launch {
    Launch { command: guard_program, base }
}

fn guard_program() -> Command {
    this_program(module_path!(), "guard_program_main")
}

#[test]
fn guard_program_main() {
    if program_args().is_some() {
        super::super::guard::run();
    }
}
