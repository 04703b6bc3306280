//! The admin server over real connections, with a thread that plays the shards.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::control::tests::settings;

#[test]
fn health_and_metrics_say_what_is_so() {
    let served = Served::start(2, &[0, 1]);
    let (status, body) = served.get("/healthz", "127.0.0.1:1");
    assert_eq!((status, body.as_str()), (200, "ok\n"));

    let (status, body) = served.get("/readyz", "localhost");
    let view: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &view["ready"], &view["shards_answering"]), (200, &true.into(), &2.into()));
    let server = serde_json::json!({ "name": "sh", "kind": "stdio", "missing": 0 });
    assert_eq!(view["servers"], serde_json::json!([server]));

    let (status, body) = served.get("/metrics", "[::1]:80");
    assert_eq!(status, 200);
    let sum = "\nmcp_connections_accepted_total 7\n";
    let build = format!(
        "\nmcp_build_info{{version=\"{}\",engine=\"epoll\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    for want in [sum, "\nmcp_shards 2\n", "\nmcp_shards_answering 2\n", &build] {
        assert!(body.contains(want), "{want} is not in {body}");
    }
    for name in ["process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"]
    {
        let line = body.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert!(line.trim().parse::<u64>().unwrap() > 0, "{name}");
    }
}

#[test]
fn it_is_not_ready_while_a_shard_is_silent_or_it_drains() {
    let served = Served::start(2, &[0]);
    let (status, body) = served.get("/readyz", "localhost");
    let view: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &view["shards_answering"]), (503, &1.into()));

    let served = Served::start(1, &[0]);
    assert_eq!(served.get("/readyz", "localhost").0, 200);
    served.draining.store(true, Ordering::Relaxed);
    assert_eq!(served.get("/readyz", "localhost").0, 503);
    assert_eq!(served.get("/healthz", "localhost").0, 200);
}

#[test]
fn pages_of_other_sites_get_nothing() {
    let served = Served::start(1, &[0]);
    for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "", "localhost.x"] {
        assert_eq!(served.get("/metrics", host).0, 403, "{host}");
    }
    for host in ["127.0.0.1", "LOCALHOST:9090", "[::1]", "gateway.example:9090"] {
        assert_eq!(served.get("/metrics", host).0, 200, "{host}");
    }
    let (status, body) = served.get("/config", "localhost");
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
}

/// A running admin server.
struct Served {
    addr: SocketAddr,
    draining: Arc<AtomicBool>,
}

impl Served {
    /// Of these shards, those in `answering` answer.
    fn start(shards: u16, answering: &'static [u16]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let draining = Arc::new(AtomicBool::new(false));
        let mesh = Mesh::new(shards);
        let admin = Admin {
            settings: settings(&[]),
            hosts: Policy::new(&[addr], Vec::new(), Vec::new()),
            mesh: mesh.clone(),
            draining: Arc::clone(&draining),
            started: SystemTime::now(),
            engine: "epoll",
            files_max: Some(1000),
        };
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for shard in answering {
                    tokio::spawn(answer(mesh.clone(), ShardId(*shard)));
                }
                admin.serve(TcpListener::from_std(listener).unwrap()).await;
            });
        });
        Self { addr, draining }
    }

    fn get(&self, path: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

/// Plays a shard that has accepted three connections, and one more for its number.
async fn answer(mesh: Mesh, shard: ShardId) {
    loop {
        let parcel = std::future::poll_fn(|cx| mesh.poll_take(shard, cx)).await;
        if let Parcel::Report { reply } = parcel {
            let accepted = 3 + u64::from(shard.0);
            drop(reply.send(Counters { accepted, ..Counters::default() }));
        }
    }
}
