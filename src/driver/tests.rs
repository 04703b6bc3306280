//! The driver with the real shard, real sockets and both engines.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use super::*;
use crate::ids::{EntranceId, ShardId};
use crate::mesh::Parcel;
use crate::telemetry::counters::Counters;
use crate::tests::settings::settings;

/// Time for what happens soon but not at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Some shards on threads of their own, without any server behind them.
struct Gateway {
    addr: SocketAddr,
    mesh: Mesh,
    threads: Vec<JoinHandle<io::Result<()>>>,
    requests: mpsc::Receiver<Request>,
}

impl Gateway {
    fn start(engine: Engine, shards: u16) -> Self {
        let (addr, listeners) = listen(([127, 0, 0, 1], 0).into(), shards).unwrap();
        let mesh = Mesh::new(shards);
        let (sender, requests) = mpsc::channel(1024);
        let settings = Arc::new(settings(Vec::new()));
        let start = |(index, listener)| {
            let job = Job {
                identity: Identity { id: ShardId(index), shards, seed: [7; 32] },
                settings: Arc::clone(&settings),
                listeners: vec![(EntranceId(0), listener)],
                mesh: mesh.clone(),
                control: ControlSender::new(sender.clone()),
                core: None,
                engine,
            };
            std::thread::spawn(move || run(job))
        };
        let threads = (0..).zip(listeners).map(start).collect();
        Self { addr, mesh, threads, requests }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn report(&self, shard: u16) -> Counters {
        let (reply, report) = tokio::sync::oneshot::channel();
        self.mesh.post(ShardId(shard), Parcel::Report { reply }).unwrap();
        report.blocking_recv().unwrap()
    }

    /// Our side's sockets of connections to this gateway, as the kernel sees them.
    fn sockets(&self) -> usize {
        let port = format!(":{:04X}", self.addr.port());
        let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let belongs = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Listeners do not count; a socket without an inode has no descriptor any more.
            fields[1].ends_with(&port) && fields[3] != "0A" && fields[9] != "0"
        };
        list.lines().filter(belongs).count()
    }

    /// Drains the shards and waits for their threads.
    fn stop(mut self) {
        let shards = self.mesh.shards();
        for id in (0..shards).map(ShardId) {
            self.mesh.post(id, Parcel::Drain { deadline: Instant::now() }).unwrap();
        }
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
        let mut ended = 0;
        while let Ok(request) = self.requests.try_recv() {
            ended += u16::from(matches!(request, Request::Ended(_)));
        }
        assert_eq!(ended, shards, "each thread says that it has ended");
    }
}

fn with_both_engines(test: impl Fn(Engine)) {
    test(Engine::Epoll);
    match probe() {
        (Engine::Uring, _) => test(Engine::Uring),
        (Engine::Epoll, reason) => eprintln!("io_uring is not tested: {reason}"),
    }
}

#[test]
fn all_shards_listen_on_one_port() {
    let (addr, listeners) = listen(([127, 0, 0, 1], 0).into(), 3).unwrap();
    let listeners = listeners.into_iter().map(TcpListener::from);
    let addrs: Vec<_> = listeners.map(|one| one.local_addr().unwrap()).collect();
    assert_eq!(addrs, [addr; 3]);
    assert!(addrs[0].port() != 0 && addrs.iter().all(|addr| *addr == addrs[0]));
}

#[test]
fn a_bad_request_is_answered_although_more_follows() {
    with_both_engines(|engine| {
        let gateway = Gateway::start(engine, 1);
        let mut client = gateway.connect();
        client.write_all(b"GARBAGE\r\n\r\n").unwrap();
        // The gateway never looks at this. Unread, it would turn the close into a reset. Writing
        // fails if the gateway is through with us already.
        client.write_all(&vec![b'x'; 100_000]).unwrap_or_default();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{engine:?}");
        drop(client);
        gateway.stop();
    });
}

#[test]
fn connections_leave_no_descriptors_behind() {
    with_both_engines(|engine| {
        let gateway = Gateway::start(engine, 1);
        for count in 0..2000 {
            let mut client = gateway.connect();
            if count % 3 == 0 {
                client.write_all(b"GARBAGE\r\n\r\n").unwrap();
            }
            if count % 5 == 0 {
                let reset = Some(Duration::ZERO);
                socket2::SockRef::from(&client).set_linger(reset).unwrap();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while gateway.sockets() > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(gateway.sockets(), 0, "{engine:?}");
        assert_eq!(gateway.report(0).panics, 0);
        gateway.stop();
    });
}

#[test]
fn clients_are_spread_evenly() {
    with_both_engines(|engine| {
        let gateway = Gateway::start(engine, 2);
        let clients: Vec<_> = (0..200).map(|_| gateway.connect()).collect();
        let deadline = Instant::now() + PATIENCE;
        let counts = || [gateway.report(0).clients, gateway.report(1).clients];
        while counts().iter().sum::<u64>() < 200 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let [first, second] = counts();
        assert_eq!(first + second, 200, "{engine:?}");
        // On a busy machine a shard may hear late of what the other one has.
        assert!(first.abs_diff(second) <= 100, "{engine:?}: {first} and {second}");
        drop(clients);
        gateway.stop();
    });
}

#[test]
fn no_one_is_accepted_after_the_drain() {
    with_both_engines(|engine| {
        let gateway = Gateway::start(engine, 2);
        let addr = gateway.addr;
        gateway.stop();
        assert!(TcpStream::connect(addr).is_err(), "{engine:?}");
    });
}

#[test]
fn questions_without_a_control_thread_are_refused_at_once() {
    let (sender, requests) = mpsc::channel(1);
    let control = ControlSender::new(sender);
    control.post(Request::Log(Vec::new())).unwrap();
    let refused = control.post(Request::Log(Vec::new()));
    assert!(matches!(refused, Err(request::Unsent::Full(_))));
    drop(requests);
    let refused = control.post(Request::Log(Vec::new()));
    assert!(matches!(refused, Err(request::Unsent::Closed(_))));
}
