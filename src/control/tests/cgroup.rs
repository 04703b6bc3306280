//! Control groups, with processes that grow and hide.
//!
//! Where this machine lets nobody make groups, which is found out here in another way than in the
//! gateway, the sentence about it is what is tested.

use super::*;
use crate::control::cgroup::Groups;

/// A directory in which groups with a limit of tasks can be made: tried with a group.
pub(super) fn writable() -> Option<std::path::PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = |is_it: fn(&str) -> bool| {
        let line = groups.lines().find(|line| is_it(line))?;
        Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned())
    };
    let one = path(|line| line.contains(":pids:")).map(|path| ("/sys/fs/cgroup/pids", path));
    let two = path(|line| line.starts_with("0::")).map(|path| ("/sys/fs/cgroup", path));
    let places = [two, one].into_iter().flatten();
    places.map(|(root, path)| std::path::Path::new(root).join(path)).find(|place| {
        let probe =
            place.join(format!("probe-{}-{:?}", std::process::id(), thread::current().id()));
        let is_made = fs::create_dir(&probe).is_ok();
        let control = place.join("cgroup.subtree_control");
        // In version 2 a group with processes can not, and these tests are not alone, except that
        // the root can.
        let is_root = !place.join("cgroup.type").exists();
        let hand_down = || !control.exists() || is_root && fs::write(&control, "+pids").is_ok();
        // In other file systems it would be an ordinary file, made by the writing.
        let limit = probe.join("pids.max");
        let is_limited = is_made && hand_down() && limit.exists() && fs::write(limit, "7").is_ok();
        fs::remove_dir(&probe).unwrap_or_default();
        is_limited
    })
}

/// Groups; or none, and then the operator is told why.
fn groups() -> Option<Groups> {
    match (writable(), Groups::make()) {
        (Some(_), groups) => Some(groups.unwrap()),
        (None, Ok(groups)) => panic!("{groups:?}"),
        (None, Err(why)) => {
            let words = without_groups(&why);
            assert!(words.contains("Delegate=pids") && words.contains(&why), "{words}");
            None
        }
    }
}

/// How many processes are alive in a group of a gateway, and all below.
fn count(base: &std::path::Path) -> usize {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let below = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let procs = fs::read_to_string(base.join("cgroup.procs")).unwrap_or_default();
    procs.lines().count() + below.map(|path| count(&path)).sum::<usize>()
}

fn bounded(mut server: Server, tasks: u32) -> Server {
    if let Target::Stdio(command) = &mut server.target {
        command.tasks_max = tasks;
    }
    server
}

/// This test binary as a server.
fn program(name: &str) -> Server {
    let command = this_program(module_path!(), name);
    let mut server = shell("");
    if let Target::Stdio(target) = &mut server.target {
        target.program = command.get_program().to_str().unwrap().to_owned();
        target.args = command.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
    }
    server
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_tasks_and_is_gone_when_it_is_stopped() {
    let Some(groups) = groups() else { return };
    let base = groups.base().to_owned();
    let mut bench = Bench::in_groups(vec![bounded(program("fork_bomb"), 20)], Some(groups));
    let mut socket = bench.open(0);
    let line = read_line_with(&mut socket, "began").await;
    let pids: Vec<_> = line.split(' ').skip(1).collect();
    // The program is two of the twenty: it is a thread of the test's.
    assert!((10..20).contains(&pids.len()), "{line}");
    assert_eq!(count(&base), pids.len() + 1);
    bench.stop(0, Duration::ZERO);
    assert!(bench.ended(0).await.starts_with("signal "));
    assert_eq!((count(&base), base.join("1").exists()), (0, false));
    assert!(!pids.iter().any(|pid| is_running(pid)));
    // The gateway itself is not limited by that, and neither is the next process.
    let mut socket = bench.open(0);
    assert!(read_line_with(&mut socket, "began").await.split(' ').count() > 10);
    drop((socket, bench));
    wait_until("nothing is left", || !base.exists()).await;
}

#[tokio::test]
async fn who_left_the_process_group_is_gone_when_the_process_is_stopped() {
    let Some(groups) = groups() else { return };
    let base = groups.base().to_owned();
    // It holds no stream of ours, and nobody waits for it.
    let script = "setsid -f sleep 600 >/dev/null 2>&1 </dev/null; echo began; read line; exit 5";
    let mut bench = Bench::in_groups(vec![shell(script)], Some(groups));
    for round in 1..4 {
        let mut socket = bench.open(0);
        read_line_with(&mut socket, "began").await;
        wait_until("both are there", || count(&base) == 2).await;
        if round == 1 {
            drop(socket);
            assert_eq!(bench.ended(0).await, "exit status 5");
        } else {
            bench.stop(0, Duration::ZERO);
            assert_eq!(bench.ended(0).await, "signal 15");
        }
        assert_eq!((count(&base), base.join(round.to_string()).exists()), (0, false));
    }
}

#[tokio::test]
async fn groups_that_a_process_made_itself_go_with_it() {
    let Some(groups) = groups() else { return };
    let base = groups.base().to_owned();
    let script = format!(
        "cd {}/1; mkdir -p a/b; sleep 600 & echo $! > a/b/cgroup.procs; echo began; exec sleep 600",
        base.display()
    );
    let mut bench = Bench::in_groups(vec![shell(&script)], Some(groups));
    let mut socket = bench.open(0);
    read_line_with(&mut socket, "began").await;
    assert_eq!(count(&base.join("1/a/b")), 1);
    bench.stop(0, Duration::ZERO);
    bench.ended(0).await;
    assert!(!base.join("1").exists());
}

#[tokio::test]
async fn a_failed_start_leaves_no_group() {
    let Some(groups) = groups() else { return };
    let base = groups.base().to_owned();
    let mut server = shell("");
    if let Target::Stdio(command) = &mut server.target {
        command.program = "/no/such/program".to_owned();
    }
    let mut bench = Bench::in_groups(vec![server, shell("exit 3")], Some(groups));
    assert!(matches!(bench.start_one(0), Reply::Failed(_)));
    wait_until("its group is gone", || !base.join("1").exists()).await;
    // Without a group to make, a process starts all the same, and the log says so.
    fs::create_dir(base.join("3")).unwrap();
    let _first = bench.open(1);
    assert_eq!(bench.ended(1).await, "exit status 3");
    let _second = bench.open(1);
    assert_eq!(bench.ended(1).await, "exit status 3");
    let warnings = bench.records().into_iter().filter(|record| record["event"] == "warning");
    let warnings: Vec<_> = warnings.map(|it| it["message"].as_str().unwrap().to_owned()).collect();
    assert!(matches!(&warnings[..], [one] if one.contains("without a limit")), "{warnings:?}");
}

#[tokio::test]
async fn nothing_that_hides_outlives_a_killed_gateway() {
    if groups().is_some() {
        check_killed(this_program(module_path!(), "hider_maker")).await;
    }
}

/// As a service with `Delegate=pids`: it is alone in its group, has to make room for those of its
/// processes (version 2), and leaves it as it was.
#[tokio::test]
async fn a_gateway_makes_room_in_a_group_of_its_own_and_leaves_it_as_it_was() {
    let Some(place) = writable() else { return };
    let room = place.join(format!("room-{}", std::process::id()));
    fs::create_dir(&room).unwrap();
    let program = this_program(module_path!(), "hider_maker");
    let mut command = Command::new("sh");
    let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
    command
        .args(["-c", script])
        .arg(&room)
        .arg(std::env::current_exe().unwrap())
        .args(program.get_args());
    let base = check_killed(command).await;
    assert_eq!(base.parent(), Some(&*room));
    let control = fs::read_to_string(room.join("cgroup.subtree_control")).unwrap_or_default();
    assert_eq!(control.trim(), "");
    // The last of its guard may still be there.
    wait_until("the group can be removed", || fs::remove_dir(&room).is_ok()).await;
}

/// Kills a gateway with hidden processes; the directory of its groups, which is gone.
async fn check_killed(mut command: Command) -> std::path::PathBuf {
    let mut gateway = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = io::BufReader::new(gateway.stdout.take().unwrap());
    let base = loop {
        let mut line = String::new();
        assert!(io::BufRead::read_line(&mut output, &mut line).unwrap() != 0, "it ended");
        if let Some((_, base)) = line.trim().split_once("base ") {
            break std::path::PathBuf::from(base);
        }
    };
    let all =
        |dir: &std::path::Path| fs::read_to_string(dir.join("1/cgroup.procs")).unwrap_or_default();
    let pids = all(&base);
    assert_eq!(pids.lines().count(), 2, "{pids}");
    gateway.kill().unwrap();
    let killed_at = Instant::now();
    gateway.wait().unwrap();
    wait_until("all are gone", || !pids.lines().any(is_running) && !base.exists()).await;
    assert!(killed_at.elapsed() < Duration::from_secs(2), "{:?}", killed_at.elapsed());
    base
}

#[tokio::test]
async fn a_start_removes_what_dead_gateways_left_and_nothing_else() {
    let Some(groups) = groups() else { return };
    let place = groups.base().parent().unwrap();
    let name = format!("mcp-gateway-{}", std::process::id());
    let (stale, busy) = (place.join(format!("{name}-stale")), place.join(format!("{name}-busy")));
    fs::create_dir_all(stale.join("1/a")).unwrap();
    fs::create_dir_all(busy.join("1")).unwrap();
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(busy.join("1/cgroup.procs"), sleeper.id().to_string()).unwrap();
    let living = Groups::make().unwrap();
    // Another test may be removing them at this moment.
    wait_until("the stale one is gone", || !stale.exists()).await;
    assert!(busy.join("1").exists() && groups.base().exists());
    assert_eq!(sleeper.try_wait().unwrap(), None);
    let base = living.base().to_owned();
    drop(living);
    assert!(!base.exists());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    wait_until("it can be removed", || {
        fs::remove_dir(busy.join("1")).is_ok() || !busy.join("1").exists()
    })
    .await;
    fs::remove_dir(&busy).unwrap_or_default();
}

#[tokio::test]
async fn the_guard_ends_no_groups_but_those_of_a_gateway() {
    let Some(place) = writable() else { return };
    let dir = place.join(format!("stranger-{}", std::process::id()));
    fs::create_dir_all(dir.join("1")).unwrap();
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(dir.join("1/cgroup.procs"), sleeper.id().to_string()).unwrap();
    crate::control::cgroup::end_all(&dir);
    assert_eq!(sleeper.try_wait().unwrap(), None);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    wait_until("it can be removed", || fs::remove_dir(dir.join("1")).is_ok()).await;
    fs::remove_dir(&dir).unwrap();
}

/// Reads lines until one begins with that.
async fn read_line_with(socket: &mut UnixStream, start: &str) -> String {
    let mut line = Vec::new();
    let read = async {
        loop {
            match socket.read_u8().await.unwrap() {
                b'\n' if line.starts_with(start.as_bytes()) => return,
                b'\n' => line.clear(),
                byte => line.push(byte),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
    String::from_utf8(line).unwrap()
}

/// Starts as many processes as it can, up to a number that a machine survives; names them and
/// stays.
#[test]
fn fork_bomb() {
    if program_args().is_none() {
        return;
    }
    let children: Vec<_> =
        (0..2000).map_while(|_| Command::new("sleep").arg("600").spawn().ok()).collect();
    let pids: Vec<_> = children.iter().map(|child| child.id().to_string()).collect();
    // Behind what the test's frame writes.
    println!("\nbegan {}", pids.join(" "));
    thread::park();
}

/// A gateway with a process that has something hidden, which waits to be killed.
#[tokio::test]
async fn hider_maker() {
    let Some(_args) = program_args() else { return };
    let groups = Groups::make().unwrap();
    let base = groups.base().to_owned();
    let script = "setsid -f sleep 600 >/dev/null 2>&1 </dev/null; echo began; exec sleep 600";
    let mut bench = Bench::in_groups(vec![shell(script)], Some(groups));
    let mut socket = bench.open(0);
    read_line_with(&mut socket, "began").await;
    wait_until("both are there", || count(&base.join("1")) == 2).await;
    println!("\nbase {}", base.display());
    std::future::pending::<()>().await;
}
