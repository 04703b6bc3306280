//! The loop of the control thread, its answers and its end.

use rustix::process::{Pid, Signal};

use super::*;
use crate::ids::Ticket;
use crate::mesh::Parcel;
use crate::shard::event::Question;

#[tokio::test]
async fn questions_are_answered_through_the_mailbox() {
    let bench = Bench::start(&["exit 4"]);
    let (running, requests, mesh) = run_loop(bench, 1);
    let ask =
        |ticket, question| Request::Ask { shard: ShardId(0), ticket: Ticket(ticket), question };
    let process = ProcessId(1);
    let unknown = Request::Stop { shard: ShardId(0), process, grace: Duration::ZERO };
    requests.send(unknown).await.unwrap();
    let resolve = Question::Resolve { host: "127.0.0.1".to_owned(), port: 5 };
    requests.send(ask(1, resolve)).await.unwrap();
    let Parcel::Answered { ticket: Ticket(1), reply: Reply::Resolved(addrs) } = take(&mesh).await
    else {
        panic!("no address")
    };
    assert_eq!(addrs, ["127.0.0.1:5".parse().unwrap()]);
    requests.send(ask(2, Question::Start { server: ServerId(0), process })).await.unwrap();
    let started = take(&mesh).await;
    assert!(matches!(started, Parcel::Answered { ticket: Ticket(2), reply: Reply::Started(_) }));
    let Parcel::Exited { process: ProcessId(1), how } = take(&mesh).await else { panic!("runs") };
    assert_eq!(how, "exit status 4");
    requests.send(ask(3, Question::Start { server: ServerId(7), process })).await.unwrap();
    let failed = take(&mesh).await;
    assert!(matches!(failed, Parcel::Answered { ticket: Ticket(3), reply: Reply::Failed(_) }));
    running.abort();
}

#[tokio::test]
async fn a_shard_that_dies_drains_the_others_and_is_a_failure() {
    let mut bench = Bench::start(&["exec sleep 600"]);
    let _socket = bench.open(0);
    let news = bench.news_in.clone();
    let (running, requests, mesh) = run_loop(bench, 2);
    let fault = Err(io::Error::other("a fault"));
    news.send(News::ShardEnded { shard: ShardId(1), outcome: fault }).unwrap();
    assert!(matches!(take(&mesh).await, Parcel::Drain { .. }));
    requests.send(Request::Ended(ShardId(0))).await.unwrap();
    let is_fine = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(!is_fine);
}

#[test]
fn a_signal_drains_and_a_second_one_ends_at_once() {
    for (signals, want) in [("one", "drained"), ("two", "at once")] {
        let mut gateway = this_program(module_path!(), "small_gateway")
            .arg(signals)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = gateway.stdout.take().unwrap();
        read_until(&mut output, "looping");
        let pid = Pid::from_child(&gateway);
        rustix::process::kill_process(pid, Signal::HUP).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        read_until(&mut output, "draining");
        if signals == "two" {
            rustix::process::kill_process(pid, Signal::INT).unwrap();
        }
        read_until(&mut output, want);
        assert!(gateway.wait().unwrap().success());
    }
}

#[test]
fn orphans_are_reaped_and_the_ends_of_our_own_are_not_lost() {
    let mut command = this_program(module_path!(), "foster_parent");
    assert!(command.spawn().unwrap().wait().unwrap().success());
}

#[tokio::test]
async fn a_full_mailbox_is_tried_again_in_order() {
    let mesh = Mesh::new(1);
    let mut post = Post::new(mesh.clone());
    let parcel = |id: usize| Parcel::Exited { process: ProcessId(id as u64), how: String::new() };
    let count = limits::MAILBOX_LEN + 3;
    (0..count).for_each(|id| post.send(ShardId(0), parcel(id)));
    for want in 0..count {
        let Parcel::Exited { process, .. } = take(&mesh).await else { panic!("another parcel") };
        assert_eq!(process.0, want as u64);
        post.retry();
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), post.due()).await.is_err());
}

/// Runs the control thread's loop in this thread's runtime.
fn run_loop(
    bench: Bench,
    shards: u16,
) -> (tokio::task::JoinHandle<bool>, mpsc::Sender<Request>, Mesh) {
    let mesh = Mesh::new(shards);
    let (requests_in, requests) = mpsc::channel(8);
    let control = Control::new(Parts {
        log: bench.log,
        post: Post::new(mesh.clone()),
        processes: bench.processes,
        shards,
        drain_timeout: Duration::from_secs(5),
        draining: Arc::default(),
        news: bench.news_in,
    });
    let signals = Signals::listen().unwrap();
    let sources = Sources { requests, ended: bench.ended, news: bench.news, signals };
    (tokio::spawn(control.run(sources)), requests_in, mesh)
}

/// The next parcel for the first shard.
async fn take(mesh: &Mesh) -> Parcel {
    let next = std::future::poll_fn(|cx| mesh.poll_take(ShardId(0), cx));
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

fn read_until(input: &mut impl io::Read, want: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(want) {
        let mut byte = [0];
        input.read_exact(&mut byte).unwrap_or_else(|_| {
            panic!("{want} never came: {}", String::from_utf8_lossy(&seen));
        });
        seen.extend(byte);
    }
}

/// Runs the loop; the one shard ends when told to drain, if there is to be one signal only.
#[tokio::test]
async fn small_gateway() {
    let Some(args) = program_args() else { return };
    let bench = Bench::start(&[""]);
    let (mut running, requests, mesh) = run_loop(bench, 1);
    println!("looping");
    assert!(matches!(take(&mesh).await, Parcel::Drain { .. }));
    println!("draining");
    if args[0] == "one" {
        requests.send(Request::Ended(ShardId(0))).await.unwrap();
        assert!(running.await.unwrap());
        println!("drained");
    } else {
        let is_fine = tokio::time::timeout(Duration::from_secs(3), &mut running).await;
        assert!(is_fine.unwrap().unwrap());
        println!("at once");
    }
}

/// Is given orphans, as process 1 of a container would be.
#[tokio::test]
async fn foster_parent() {
    if program_args().is_none() {
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    // The first orphans end before their maker, the others behind it, as part of no group of ours.
    let script = "for i in 1 2 3 4; do setsid -f true; done; echo early; read line
        for i in 1 2 3 4; do setsid -f sleep 0.2; done; exit 7";
    let (_running, requests, mesh) = run_loop(Bench::start(&[script]), 1);
    let stats = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let me = format!(" {} ", std::process::id());
        let ours = stats.filter_map(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            rest.split_at(1).1.starts_with(&me).then(|| rest.to_owned())
        });
        ours.collect::<Vec<_>>()
    };
    for round in 1..4 {
        let process = ProcessId(round);
        let question = Question::Start { server: ServerId(0), process };
        let ask = Request::Ask { shard: ShardId(0), ticket: Ticket(round), question };
        requests.send(ask).await.unwrap();
        let Parcel::Answered { reply: Reply::Started(fd), .. } = take(&mesh).await else {
            panic!("not started")
        };
        let mut socket = UnixStream::from_std(fd.into()).unwrap();
        socket.read_exact(&mut [0; 6]).await.unwrap();
        // The process and the guard.
        wait_until("the early ones are reaped", || stats().len() == 2).await;
        drop(socket);
        let Parcel::Exited { how, .. } = take(&mesh).await else { panic!("runs") };
        assert_eq!(how, "exit status 7");
        wait_until("the late ones are reaped", || stats().len() == 1).await;
    }
}
