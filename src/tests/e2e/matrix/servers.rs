//! The servers of the matrix: the demo server behind each transport that the gateway speaks with
//! servers, and how such a server dies and comes back.
//!
//! What is not a child process of the gateway under test is served by another gateway, which has
//! the demo server as a child process and is killed and started again at the same address.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::edges::rig::{Dir, Rig, demo};
use crate::support::{free_port, until};

/// A transport between the gateway under test and a server.
pub(super) struct Server {
    /// What it is called, in the configuration as well.
    pub(super) name: &'static str,
    pub(super) place: Place,
}

/// Where it runs.
pub(super) enum Place {
    /// As a child process of the gateway under test.
    Child,
    /// Behind the other gateway, at what this makes of its address and the name of a server there.
    Far(fn(&str, &str) -> String),
}

const TCP: &str = "tcp";

impl Server {
    /// Whether it is behind the other gateway.
    pub(super) fn is_far(&self) -> bool {
        matches!(self.place, Place::Far(_))
    }

    /// Whether what is in flight outlives the connection, so that nobody is told of a death before
    /// the server is back and has forgotten it.
    pub(super) fn may_resume(&self) -> bool {
        self.name == TCP
    }
}

pub(super) const SERVERS: &[Server] = &[
    Server { name: "stdio", place: Place::Child },
    Server {
        name: "http",
        place: Place::Far(|addr, name| format!("url = \"http://{addr}/mcp/{name}\"")),
    },
    Server {
        name: "sse",
        place: Place::Far(|addr, name| {
            format!("url = \"http://{addr}/sse/{name}\"\ntransport = \"sse\"")
        }),
    },
    Server {
        name: "websocket",
        place: Place::Far(|addr, name| format!("url = \"ws://{addr}/mcp/{name}\"")),
    },
    Server { name: TCP, place: Place::Far(|addr, name| format!("url = \"tcp://{addr}/{name}\"")) },
];

/// A server in shell that knows `initialize` and calls, and nothing of the modern era.
const LEGACY_ONLY: &str = r#"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"tools/call"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"old"}]}}\n' "$id" ;;
    *'"id":'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"What?"}}\n' "$id" ;;
  esac
done
"#;

/// The gateway under test, and what is behind it.
pub(super) struct Servers {
    /// The gateway under test. Its configuration serves gateways for one client as well.
    pub(super) rig: Rig,
    /// The other gateway, unless it is dead.
    far: Option<Rig>,
    far_port: u16,
    /// Where the gateway under test speaks the TCP binary protocol.
    pub(super) tcp_port: u16,
}

impl Servers {
    /// Each by its own name.
    pub(super) fn start() -> Self {
        Self::with(false)
    }

    /// All of them as one as well. There are no servers of one era then.
    pub(super) fn united() -> Self {
        Self::with(true)
    }

    fn with(is_united: bool) -> Self {
        let far_port = free_port();
        let far = start_far(far_port);
        let dir = Dir::new();
        let script = dir.write("old.sh", LEGACY_ONLY);
        let pids = dir.join("pids");
        let program = env!("CARGO_BIN_EXE_mcp-gateway");
        // It writes down who it is before it becomes the demo server.
        let demo =
            dir.write("demo.sh", &format!("echo $$ >> {pids:?}\nexec {program:?} demo-server\n"));
        let addr = format!("127.0.0.1:{far_port}");
        let tcp_port = free_port();
        let mut config = format!("listen.tcp = \"127.0.0.1:{tcp_port}\"\n");
        for Server { name, place } in SERVERS {
            let (new, old) = match place {
                Place::Child => (
                    format!("command = [\"/bin/sh\", {demo:?}]"),
                    format!("command = [\"/bin/sh\", {script:?}]"),
                ),
                Place::Far(config) => (config(&addr, name), config(&addr, "old")),
            };
            config += &format!("[servers.{name}]\n{new}\n");
            if !is_united {
                config += &format!("[servers.{name}-old]\n{old}\n");
            }
        }
        if is_united {
            config += "[federation]\npage = 4\n";
        }
        Self { rig: Rig::with(dir, &config, |_| {}), far: Some(far), far_port, tcp_port }
    }

    /// The path of a file that nobody has used.
    pub(super) fn next_file(&self, name: &str) -> std::path::PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        self.rig.dir.join(&format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Kills a server, in all its processes.
    pub(super) fn kill(&mut self, server: &Server) {
        match server.place {
            Place::Far(_) => {
                let far = self.far.take().unwrap();
                far.check();
                far.gateway.process.signal(Signal::KILL);
            }
            Place::Child => {
                for pid in self.rig.dir.lines("pids") {
                    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
                    // Those of earlier sessions are gone.
                    kill_process(pid, Signal::KILL).unwrap_or_default();
                }
                self.rig.dir.write("pids", "");
            }
        }
    }

    /// Has a killed server run again.
    pub(super) fn revive(&mut self) {
        if self.far.is_none() {
            // The kernel may need a moment to close what the dead process had.
            let addr = (Ipv4Addr::LOCALHOST, self.far_port);
            until("the address is free", || TcpListener::bind(addr).ok());
            self.far = Some(start_far(self.far_port));
        }
    }

    /// What the other gateway has counted.
    pub(super) fn far_metric(&self, name: &str) -> u64 {
        self.far.as_ref().unwrap().metric(name)
    }

    /// Nothing broke, and nothing is left of those who were served.
    ///
    /// Up to `streams` exchanges are event streams of servers that the gateway keeps open.
    pub(super) fn check(&self, streams: u64) {
        self.rig.until_metric("mcp_sessions_open ", 0);
        until("what is in flight ends", || {
            (self.rig.metric("mcp_exchanges_in_flight ") <= streams).then_some(())
        });
        self.rig.until_metric("mcp_gathered_bytes ", 0);
        self.rig.check();
        let far = self.far.as_ref().unwrap();
        far.until_metric("mcp_sessions_open ", 0);
        far.check();
    }
}

/// The other gateway.
fn start_far(port: u16) -> Rig {
    let dir = Dir::new();
    let script = dir.write("old.sh", LEGACY_ONLY);
    let addr = format!("127.0.0.1:{port}");
    let mut config = format!("listen.tcp = {addr:?}\n");
    // For each transport one of its own: what changes in one does not in the others.
    for server in SERVERS.iter().filter(|server| server.is_far()) {
        config += &demo().replace("servers.demo", &format!("servers.{}", server.name));
    }
    config += &format!("[servers.old]\ncommand = [\"/bin/sh\", {script:?}]\n");
    Rig::with(dir, &config, |command| {
        command.args(["--listen", &addr]);
    })
}
