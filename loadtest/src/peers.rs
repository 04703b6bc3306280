//! The programs that are measured: the gateway, and HAProxy to compare it with.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::clock;
use crate::process;
use crate::target::Target;

/// Time to listen.
const START: Duration = Duration::from_secs(10);
/// Time to end after being asked to.
const STOP: Duration = Duration::from_secs(10);

/// A program that listens; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// Where it serves MCP.
    pub target: Target,
    /// Where it serves metrics.
    pub admin: Option<SocketAddr>,
    /// Has its configuration; removed with it.
    dir: Option<PathBuf>,
}

impl Peer {
    /// The gateway, with one shard and no log, in front of one HTTP server.
    pub fn gateway(program: &Path, server: &Target) -> io::Result<Self> {
        let addr = free_addr()?;
        let mut command = mortal(program);
        command.args(["run", "--shards", "1", "--log", "off", "--admin", "off"]);
        command.args(["--listen", &addr.to_string(), &server.url()]);
        Self::start(command, addr, None, None)
    }

    /// The gateway with a configuration; `listen` is added to it.
    pub fn configured(program: &Path, config: &str) -> io::Result<Self> {
        let (addr, admin) = (free_addr()?, free_addr()?);
        let dir = scratch_dir("gateway")?;
        let path = dir.join("gateway.toml");
        let listen = format!("\n[listen]\nhttp = \"{addr}\"\nadmin = \"{admin}\"\n");
        fs::write(&path, config.to_owned() + &listen)?;
        let mut command = mortal(program);
        command.args(["run", "--log", "off", "--config"]).arg(path);
        Self::start(command, addr, Some(admin), Some(dir))
    }

    /// HAProxy on one thread, in HTTP mode, with connections kept on both sides.
    pub fn haproxy(server: SocketAddr) -> io::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|dir| dir.join("haproxy"));
        let program = program.into_iter().find(|program| program.is_file()).ok_or_else(|| {
            io::Error::other("haproxy is not in PATH: run `apt-get install haproxy`")
        })?;
        let addr = free_addr()?;
        let dir = scratch_dir("haproxy")?;
        let path = dir.join("haproxy.cfg");
        let config = format!(
            "global\n    nbthread 1\n    maxconn 4096\n\
             defaults\n    mode http\n    option http-keep-alive\n    http-reuse always\n    \
             timeout connect 5s\n    timeout client 120s\n    timeout server 120s\n    \
             timeout http-keep-alive 120s\n\
             frontend load\n    bind {addr}\n    default_backend fake\n\
             backend fake\n    server fake {server} pool-purge-delay 120s\n"
        );
        fs::write(&path, config)?;
        let mut command = mortal(&program);
        command.args(["-db", "-q", "-f"]).arg(path);
        Self::start(command, addr, None, Some(dir))
    }

    fn start(
        mut command: Command,
        addr: SocketAddr,
        admin: Option<SocketAddr>,
        dir: Option<PathBuf>,
    ) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
        let mut peer = Self { child, target: Target::at(addr), admin, dir };
        let listens = || {
            let is_dead = matches!(peer.child.try_wait(), Ok(Some(_)) | Err(_));
            let is_up = [Some(addr), admin]
                .into_iter()
                .flatten()
                .all(|addr| TcpStream::connect_timeout(&addr, START).is_ok());
            (is_dead || is_up).then_some(is_up && !is_dead)
        };
        match clock::wait_for(START, listens) {
            Some(true) => Ok(peer),
            Some(false) => Err(io::Error::other(format!("{command:?} ended at once"))),
            None => Err(io::Error::other(format!("{command:?} does not listen"))),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end; an error: it did not, or not well.
    pub fn stop(&mut self) -> io::Result<()> {
        process::terminate(self.child.id())?;
        let status = clock::wait_for(STOP, || self.child.try_wait().transpose());
        match status.transpose()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(io::Error::other(format!("after SIGTERM: {status}"))),
            None => Err(io::Error::other(format!("still runs {STOP:?} after SIGTERM"))),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended; then there is nothing left to do.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(dir) = &self.dir {
            drop(fs::remove_dir_all(dir));
        }
    }
}

/// A program that ends with the thread that starts it, even if we are killed: `setpriv` becomes it.
fn mortal(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// An address on which nobody listens now.
fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn scratch_dir(name: &str) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let dir = std::env::temp_dir().join(format!("loadtest-{process}-{number}-{name}"));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
