//! The control thread: everything that may wait, and that no request waits for.
//!
//! It starts the gateway and ends it; it runs child processes, looks up host names, writes the log,
//! and serves health and metrics. Shards ask it through `driver::request`, and it answers through
//! their mailboxes. It never touches a request.
//!
//! `run` below is the story of the start; `serve` is the rest of the gateway's life.

pub mod guard;
mod admin;
mod cgroup;
mod listen;
mod log;
mod machine;
mod one_client;
mod pidfd;
mod post;
mod process;
mod resolve;
mod serve;
mod spawn;
mod stderr;
mod sys;
mod tls;
mod unix;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::admission::origin::Policy;
use crate::config::{Config, LogChoice};
use crate::control::admin::Admin;
use crate::control::cgroup::Groups;
use crate::control::guard::{Guard, Launch};
use crate::control::listen::Bound;
use crate::control::log::Log;
use crate::control::machine::{Cores, Files};
use crate::control::one_client::OneClient;
use crate::control::post::Post;
use crate::control::process::Processes;
use crate::control::serve::{Control, News, Parts, Signals, Sources};
use crate::driver::request::{ControlSender, Request};
use crate::driver::{self, Engine, Job};
use crate::ids::{EntranceId, ShardId};
use crate::mesh::Mesh;
use crate::shard::settings::{Identity, Settings};
use crate::upstream::catalog::{Catalog, Target};

/// Requests of shards that wait for this thread. A shard that finds no room tries again.
const REQUESTS_MAX: usize = 4096;

/// Threads that look up host names: the system's resolver blocks.
const RESOLVERS_MAX: usize = 16;

/// Time to write the last lines of the log, and the last bytes to the one client.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the gateway until it is told to stop.
///
/// Must be called on the main thread: child processes live no longer than the calling thread.
/// SIGPIPE is ignored already, by Rust's own start; child processes get it back.
pub fn run(config: Config) -> ExitCode {
    let choice = match config.log {
        LogChoice::Format(format) => Some(format),
        LogChoice::Auto | LogChoice::Off => None,
    };
    // Without a thread for the log there is no way to say so either.
    let Ok(log) = Log::start(choice) else { return ExitCode::FAILURE };
    log_panics(&log);
    let outcome = start(config, &log);
    if let Err(problem) = &outcome {
        log.say("error", &format!("mcp-gateway: {problem}"));
    }
    log.flush(FLUSH_TIMEOUT);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Lets panics be records like all others. The message is written only if it is a literal: a
/// formatted one may hold what a client or server sent.
fn log_panics(log: &Log) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = thread::current();
        log.event("fault", |line| {
            let line = line.text("thread", thread.name().unwrap_or_default());
            line.text("place", &place).text("message", message)
        });
    }));
}

/// Starts everything and serves. The error is a sentence for the operator.
fn start(config: Config, log: &Log) -> Result<bool, String> {
    if let Err(error) = machine::harden() {
        log.say("warning", &format!("warning: memory can not be kept private: {error}"));
    }
    let files = machine::raise_files();
    let runtime = build_runtime().map_err(cannot("start the control thread"))?;
    let context = runtime.enter();
    let signals = Signals::listen().map_err(cannot("listen for signals"))?;
    let groups = make_groups(&config.catalog, log);
    let guard = start_guard(&config.catalog, groups.as_ref()).map_err(cannot(
        "start the guard process (it needs /proc, and a process and a few files to be allowed)",
    ))?;
    let (engine, why) = driver::probe();
    log.say("engine", &format!("running on {why}"));

    let cores = Cores::find();
    let shards = config.shards.unwrap_or_else(|| u16::try_from(cores.count).unwrap_or(1)).max(1);
    say_capacity(log, shards, files);
    let bound = listen::bind_all(config.entrances(), &config.unix, shards)?;
    let Bound { listeners, entrances, files: socket_files } = bound;
    let admin_listener = config.admin.map(listen::bind_admin).transpose()?;
    let clients_max = files.clients().map_or(usize::MAX, |clients| {
        usize::try_from(clients.div_ceil(shards.into())).unwrap_or(usize::MAX)
    });
    let settings = Arc::new(settings(&config, clients_max, log)?);

    let admin_addr = admin_listener.as_ref().map(|(_, addr)| *addr);
    let mesh = Mesh::new(shards);
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let (news_in, news) = mpsc::unbounded_channel();
    let (ended_in, ended) = mpsc::unbounded_channel();
    let draining = Arc::new(AtomicBool::new(false));
    if let Some((listener, addr)) = admin_listener {
        let hosts = Policy::new(&[addr], Vec::new(), Vec::new());
        let (settings, mesh) = (Arc::clone(&settings), mesh.clone());
        let draining = Arc::clone(&draining);
        let (started, files_max) = (machine::wall_clock(), files.now);
        let engine = engine_name(engine);
        let admin = Admin { settings, hosts, mesh, draining, started, engine, files_max };
        drop(runtime.spawn(admin.serve(listener)));
    }
    let crew = Crew { settings: &settings, mesh: &mesh, requests: &requests_in, news: &news_in };
    // Filters for one client would all sit on the same first core.
    let cores = if config.stdio.is_none() { cores.for_shards(shards) } else { &[] };
    crew.start_shards(listeners, cores, engine)?;
    listen::say_ready(log, &config, (&entrances, admin_addr), &settings);
    let one_client = config.stdio.map(|_| OneClient::start(&mesh, news_in.clone())).transpose();
    let one_client = one_client.map_err(cannot("serve standard input and output"))?;

    let processes = Processes::new(settings, files.before, log.clone(), guard, groups, ended_in);
    let control = Control::new(Parts {
        log: log.clone(),
        post: Post::new(mesh),
        processes,
        shards,
        drain_timeout: config.drain_timeout,
        draining,
        news: news_in,
    });
    let is_fine = runtime.block_on(control.run(Sources { requests, ended, news, signals }));
    if let Some(client) = one_client {
        client.finish(FLUSH_TIMEOUT);
    }
    drop(socket_files);
    drop(context);
    // A look-up may still block its thread: it is not waited for.
    runtime.shutdown_background();
    Ok(is_fine)
}

/// Whether there will be child processes.
fn has_commands(catalog: &Catalog) -> bool {
    let is_command = |target: &Target| matches!(target, Target::Stdio(_));
    catalog.iter().any(|(_, server)| is_command(&server.target))
}

/// Makes control groups possible, if there will be something in them. To be called before the guard
/// is started: the gateway may have to move into another group, and the guard with it.
fn make_groups(catalog: &Catalog, log: &Log) -> Option<Groups> {
    if !has_commands(catalog) {
        return None;
    }
    Groups::make().map_err(|why| log.say("warning", &without_groups(&why))).ok()
}

/// What it means that there are no control groups, and what to do about it.
fn without_groups(why: &str) -> String {
    format!(
        "warning: `tasks` limits no server here, and what leaves the process group of its server \
         may outlive it: the gateway can make no control groups ({why}); a systemd service needs \
         `Delegate=pids`"
    )
}

/// Starts the guard, if there will be something to guard.
fn start_guard(catalog: &Catalog, groups: Option<&Groups>) -> io::Result<Guard> {
    if !has_commands(catalog) {
        return Ok(Guard::absent());
    }
    let base = groups.map(|groups| groups.base().to_owned());
    Guard::start(Launch { command: guard::launch, base })
}

fn build_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVERS_MAX)
        .build()
}

/// Turns an error into a sentence.
fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

fn settings(config: &Config, clients_max: usize, log: &Log) -> Result<Settings, String> {
    let now = tokio::time::Instant::now().into_std();
    Ok(Settings {
        catalog: config.catalog.clone(),
        origins: config.origins.clone(),
        entrances: listen::entrances(config),
        clients_max,
        message_len_max: config.message_len_max,
        session_idle_timeout: config.session_idle_timeout,
        ping_interval: config.ping_interval,
        log: match config.log {
            LogChoice::Off => None,
            LogChoice::Auto | LogChoice::Format(_) => Some(log.format()),
        },
        tls: tls::client(&config.catalog)?,
        epoch: (now, machine::wall_clock()),
    })
}

/// What every shard's thread gets a part of.
struct Crew<'a> {
    settings: &'a Arc<Settings>,
    mesh: &'a Mesh,
    requests: &'a mpsc::Sender<Request>,
    news: &'a mpsc::UnboundedSender<News>,
}

impl Crew<'_> {
    /// Starts one thread per shard.
    fn start_shards(
        &self,
        listeners: Vec<Vec<(EntranceId, OwnedFd)>>,
        cores: &[usize],
        engine: Engine,
    ) -> Result<(), String> {
        let shards = self.mesh.shards();
        for (id, listeners) in (0..shards).map(ShardId).zip(listeners) {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
            let job = Job {
                identity: Identity { id, shards, seed },
                settings: Arc::clone(self.settings),
                listeners,
                mesh: self.mesh.clone(),
                control: ControlSender::new(self.requests.clone()),
                core: cores.get(usize::from(id.0)).copied(),
                engine,
            };
            self.start_shard(id, job).map_err(cannot("start a shard's thread"))?;
        }
        Ok(())
    }

    fn start_shard(&self, shard: ShardId, job: Job) -> io::Result<()> {
        let news = self.news.clone();
        let body = move || {
            // The driver catches the panics of its tasks and of itself; this is for what it can
            // not catch, so that no shard ever ends unnoticed.
            let body = AssertUnwindSafe(|| driver::run(job));
            let outcome = std::panic::catch_unwind(body)
                .unwrap_or_else(|_| Err(io::Error::other("its thread has a fault")));
            // Without a receiver the gateway is at its end.
            news.send(News::ShardEnded { shard, outcome }).unwrap_or_default();
        };
        thread::Builder::new().name(format!("shard-{}", shard.0)).spawn(body).map(drop)
    }
}

fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Uring => "io_uring",
        Engine::Epoll => "epoll",
    }
}

fn say_capacity(log: &Log, shards: u16, files: Files) {
    let words = match (files.now, files.clients()) {
        (Some(files), Some(clients)) => format!(
            "{shards} shards; up to {clients} clients, because {files} files may be open \
             (LimitNOFILE= of the service, `ulimit -Hn`)"
        ),
        _ => format!("{shards} shards; connections are not bounded by the limit of open files"),
    };
    log.say("capacity", &words);
}
