//! The world: shards, their drivers, and everybody else. It does what a driver does, and checks
//! what a driver may rely on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{Address, ConnId, EntranceId, Peer, ProcessId, Ticket};
use crate::limits;
use crate::output::Output;
use crate::shard::Shard;
use crate::shard::event::{Action, Answer, Event, Question};
use crate::shard::settings::{Identity, Settings};
use crate::tests::sim::check::Check;
use crate::tests::sim::client::Client;
use crate::tests::sim::job::{Jobs, Place};
use crate::tests::sim::net::{
    End, LinkId, Near, Net, Parcel, Peer as Who, Task, link_of, shard_id, socket,
};
use crate::tests::sim::server_http::{Http, connect_time};
use crate::tests::sim::server_stdio::{Stdio, Tools, take_step};
use crate::tests::sim::talker::Talker;

/// A shard and what its driver knows.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shard: Shard,
    pub(super) conns: BTreeMap<ConnId, LinkId>,
    armed: u64,
    pub(super) has_quit: bool,
}

/// A mistake that the world makes on purpose, to see whether the judge notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A server mixes up whom an answer is for.
    Mix,
    /// A line reaches a process twice.
    Repeat,
    /// Bytes for a client vanish on their way.
    Swallow,
    /// The gateway itself is at fault.
    Fault,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) net: Net,
    pub(super) check: Check,
    pub(super) cores: Vec<Core>,
    pub(super) clients: Vec<Client>,
    pub(super) talkers: Vec<Talker>,
    pub(super) jobs: Jobs,
    pub(super) stdio: Stdio,
    pub(super) http: Http,
    pub(super) sabotage: Option<Sabotage>,
    /// Shards that have work, and parcels on their way.
    busy: usize,
    /// A connection attempt to the dead server is refused, or never answered.
    pub(super) dead_refuses: bool,
}

impl World {
    pub(super) fn new(net: Net, check: Check, settings: &Arc<Settings>, shards: u16) -> Self {
        let now = net.instant();
        let core = |id: u16| {
            let seed = [u8::try_from(id).unwrap() + 1; 32];
            let identity = Identity { id: shard_id(usize::from(id)), shards, seed };
            let shard = Shard::new(Arc::clone(settings), identity, now);
            Core { shard, conns: BTreeMap::new(), armed: 0, has_quit: false }
        };
        Self {
            net,
            check,
            cores: (0..shards).map(core).collect(),
            clients: Vec::new(),
            talkers: Vec::new(),
            jobs: Jobs::default(),
            stdio: Stdio::default(),
            http: Http::default(),
            sabotage: None,
            busy: usize::from(shards),
            dead_refuses: true,
        }
    }

    /// Lets time pass until then.
    pub(super) fn run(&mut self, until: Duration) {
        while let Some(task) = self.net.next(until) {
            self.check.now = self.net.now;
            self.perform(task);
            if !self.check.violations.is_empty() && self.sabotage.is_none() {
                return;
            }
        }
        self.net.now = until;
        self.check.now = until;
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Up(link) => self.receive(link),
            Task::Flush(link) => self.flush(link),
            Task::Read(link) => self.read(link),
            Task::Linger(link) => self.close_link(link, true),
            Task::Connect(link) => self.connect(link),
            Task::Wake { shard, armed } => {
                if self.cores[shard].armed == armed {
                    self.handle(shard, Event::Woke);
                }
            }
            Task::Parcel { from, to, parcel } => self.deliver(from, to, parcel),
            Task::Resolved { shard, ticket, addrs } => {
                let answer = if addrs.is_empty() {
                    Answer::Failed("no such host".to_owned())
                } else {
                    Answer::Resolved(addrs)
                };
                self.handle(shard, Event::Answered { ticket, answer });
            }
            Task::Start { shard, ticket, server, process } => {
                let answer = self.start(shard, server, process);
                self.handle(shard, Event::Answered { ticket, answer });
            }
            Task::Exit { process, how } => self.exit(process, how),
            Task::Accept { link } => self.accept(link),
            Task::Act { client } => self.clients[client].act(&mut self.net, &mut self.check),
            Task::Talk { talker } => self.talkers[talker].act(&mut self.net, &mut self.check),
            Task::Body { client, conn } => self.clients[client].go_on(conn, &mut self.net),
            Task::Resume { client, lost } => {
                self.clients[client].resume(lost, &mut self.net, &mut self.check);
            }
            Task::Job { job } => self.step(job),
            Task::Close { link } => {
                if let Who::Server { server } = self.net.link(link).peer {
                    let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
                    self.http.close_idle(server, link, &mut Tools { net, check, jobs });
                }
            }
            Task::Kill { link } => {
                if let Who::Server { server } = self.net.link(link).peer {
                    let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
                    self.http.hang_up(server, link, &mut Tools { net, check, jobs });
                }
            }
            Task::Fall { server } => {
                let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
                self.http.fall(server, &mut Tools { net, check, jobs });
                let delay = self.net.random.millis(60_000);
                self.net.after(delay, Task::Rise { server });
            }
            Task::Rise { server } => {
                self.http.rise(server);
                let delay = self.net.random.millis(60_000);
                if self.net.random.chance(60) {
                    self.net.after(delay, Task::Fall { server });
                }
            }
            Task::Drain => {
                let deadline = self.net.instant() + Duration::from_secs(30);
                for shard in 0..self.cores.len() {
                    self.handle(shard, Event::Drain { deadline });
                }
            }
        }
    }

    /// Tells a shard what happened and does what it wants.
    pub(super) fn handle(&mut self, shard: usize, event: Event<'_>) {
        if self.cores[shard].has_quit {
            return;
        }
        let (name, link) = describe(&event, &self.cores[shard]);
        self.net.trace(name, shard as u64, link);
        let now = self.net.instant();
        self.cores[shard].shard.handle(event, now);
        while let Some(action) = self.cores[shard].shard.poll() {
            self.carry_out(shard, action);
        }
        if self.net.verbose {
            let log = self.cores[shard].shard.take_log();
            for line in String::from_utf8_lossy(&log).lines() {
                println!("             log: {line}");
            }
        }
    }

    fn carry_out(&mut self, shard: usize, action: Action) {
        match action {
            Action::Receive { conn, socket } => {
                let link = link_of(socket);
                self.cores[shard].conns.insert(conn, link);
                let entry = self.net.link(link);
                entry.near = Near::Open { shard, conn };
                entry.paused = false;
                self.net.trace("  receive", link.0 as u64, 0);
                self.net.schedule_up(link);
            }
            Action::Discard { socket } => self.close_link(link_of(socket), false),
            Action::Dial { conn, addrs } => self.dial(shard, conn, &addrs),
            Action::Send { conn } => self.on_link(shard, conn, "  send", |net, link| {
                if !net.link(link).blocked {
                    net.schedule_flush(link);
                }
            }),
            Action::Pause { conn } => self.on_link(shard, conn, "  pause", |net, link| {
                net.link(link).paused = true;
            }),
            Action::Resume { conn } => self.on_link(shard, conn, "  resume", |net, link| {
                net.link(link).paused = false;
                net.schedule_up(link);
            }),
            Action::Close { conn, rest } => self.close(shard, conn, rest),
            Action::Move { conn, to, peer, bytes, moves } => {
                let Some(link) = self.cores[shard].conns.remove(&conn) else {
                    return self.check.violation("a move of nothing".to_owned());
                };
                self.net.link(link).near = Near::Moving;
                let to = usize::from(to.0);
                self.net.trace("  move", link.0 as u64, to as u64);
                self.busy += 1;
                self.net.post(shard, to, Parcel::Adopted { link, peer, bytes, moves });
            }
            Action::Arm { deadline } => {
                self.cores[shard].armed += 1;
                let armed = self.cores[shard].armed;
                let at = self.net.offset(deadline);
                let late = self.net.random.millis(2);
                self.net.at(at + late, Task::Wake { shard, armed });
            }
            Action::Mail { to, letter } => {
                self.net.trace("  mail", u64::from(to.0), 0);
                self.busy += 1;
                self.net.post(shard, usize::from(to.0), Parcel::Letter(letter));
            }
            Action::Ask { ticket, question } => self.ask(shard, ticket, question),
            Action::Stop { process, grace } => {
                if let Some(process) = self.stdio.find(shard, process) {
                    self.net.after(grace * 2, Task::Exit { process, how: "signal 9" });
                }
            }
            Action::Rest => self.finish(),
            Action::Rouse => self.busy += 1,
            Action::Quit => self.quit(shard),
        }
    }

    /// The control thread answers after a while.
    fn ask(&mut self, shard: usize, ticket: Ticket, question: Question) {
        let delay = self.net.random.millis(60);
        let task = match question {
            Question::Resolve { port, .. } => {
                let fails = self.check.faults.die && self.net.random.chance(20);
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let addrs = if fails { Vec::new() } else { vec![addr] };
                Task::Resolved { shard, ticket, addrs }
            }
            Question::Start { server, process } => {
                Task::Start { shard, ticket, server: usize::from(server.0), process }
            }
        };
        self.net.after(delay, task);
    }

    fn on_link(
        &mut self,
        shard: usize,
        conn: ConnId,
        what: &str,
        act: impl FnOnce(&mut Net, LinkId),
    ) {
        match self.cores[shard].conns.get(&conn).copied() {
            Some(link) => {
                self.net.trace(what, link.0 as u64, 0);
                act(&mut self.net, link);
            }
            None => self.check.violation(format!("{what}: {conn:?} has no link")),
        }
    }

    fn accept(&mut self, link: LinkId) {
        let Near::Parked { shard } = self.net.link(link).near else { return };
        if self.cores[shard].has_quit {
            return self.close_link(link, true);
        }
        let port = 1024 + u16::try_from(link.0 % 60_000).unwrap();
        let address = Address::Ip((Ipv4Addr::LOCALHOST, port).into());
        let entrance = match self.net.link(link).peer {
            Who::Talker { talker } => self.talkers[talker].entrance(),
            _ => EntranceId(0),
        };
        let peer = Peer { address, entrance };
        self.handle(shard, Event::Accepted { socket: socket(link), peer });
    }

    fn receive(&mut self, link: LinkId) {
        let Near::Open { shard, conn } = self.net.link(link).near else {
            // It moves to another shard, which will be told of the same bytes.
            drop(self.net.take_up(link));
            return;
        };
        match self.net.take_up(link) {
            Some(Ok(mut bytes)) => {
                assert!(bytes.len() <= limits::RECV_LEN);
                self.handle(shard, Event::Received { conn, bytes: &mut bytes });
            }
            Some(Err(End::Closed)) => self.handle(shard, Event::Ended { conn }),
            Some(Err(End::Broken)) => self.handle(shard, Event::Broken { conn }),
            None => {}
        }
        self.net.schedule_up(link);
    }

    /// Sends what there is room for, and says so if it was not all at once.
    fn flush(&mut self, link: LinkId) {
        self.net.end_flush(link);
        let near = std::mem::replace(&mut self.net.link(link).near, Near::Gone);
        match near {
            Near::Open { shard, conn } => {
                self.net.link(link).near = Near::Open { shard, conn };
                self.flush_open(link, shard, conn);
            }
            Near::Lingering(mut output) => {
                let sent = self.net.send(link, &mut output);
                let is_over = output.is_empty();
                self.net.link(link).near = Near::Lingering(output);
                if is_over {
                    self.close_link(link, false);
                } else if sent != 0 {
                    self.net.schedule_flush(link);
                }
                self.net.schedule_read(link);
            }
            other => self.net.link(link).near = other,
        }
    }

    fn flush_open(&mut self, link: LinkId, shard: usize, conn: ConnId) {
        let Some(output) = self.cores[shard].shard.output(conn) else {
            return self.check.violation(format!("{conn:?} has a link and no output"));
        };
        let before = output.len();
        let sent = self.net.send(link, output);
        let left = output.len();
        let was_blocked = std::mem::replace(&mut self.net.link(link).blocked, left != 0);
        self.net.schedule_read(link);
        if left != 0 && sent != 0 {
            self.net.schedule_flush(link);
        }
        let is_partial = left != 0 && self.net.random.chance(50);
        let is_crowded = limits::OUTPUT_LOW < before && left == 0;
        if sent != 0 && (was_blocked || is_partial || is_crowded) {
            self.handle(shard, Event::Sent { conn });
        }
    }

    fn read(&mut self, link: LinkId) {
        if let Some(bytes) = self.net.take_down(link) {
            let peer = self.net.link(link).peer;
            let len = bytes.as_ref().map_or(0, Vec::len) as u64;
            self.net.trace("read", link.0 as u64, len);
            let is_swallowed = self.sabotage == Some(Sabotage::Swallow)
                && matches!(peer, Who::Client { .. })
                && self.net.random.chance(20);
            if !is_swallowed {
                self.hand_to(peer, link, bytes);
            }
        }
        self.net.schedule_read(link);
        let entry = self.net.link(link);
        if entry.blocked || matches!(entry.near, Near::Lingering(_)) {
            self.net.schedule_flush(link);
        }
    }

    fn hand_to(&mut self, peer: Who, link: LinkId, bytes: Result<Vec<u8>, End>) {
        let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
        match peer {
            Who::Client { client, conn } => {
                self.clients[client].received(conn, bytes, net, check);
            }
            Who::Talker { talker } => self.talkers[talker].received(link, bytes, net, check),
            Who::Server { server } => {
                self.http.received(server, link, bytes, &mut Tools { net, check, jobs });
            }
            Who::Process { process } => {
                let mut tools = Tools { net, check, jobs };
                if self.sabotage == Some(Sabotage::Repeat) && tools.net.random.chance(30) {
                    self.stdio.received(process, bytes.clone(), &mut tools);
                }
                self.stdio.received(process, bytes, &mut tools);
            }
        }
    }

    fn dial(&mut self, shard: usize, conn: ConnId, addrs: &[SocketAddr]) {
        let server = addrs.first().map_or(0, |addr| usize::from(addr.port() - 8000));
        let link = self.net.open(Who::Server { server }, Near::Dialling { shard, conn });
        if self.check.faults.hang && self.net.random.chance(3) {
            // It accepts the connection and never reads from it.
            self.net.link(link).pace.sleeps_until = Duration::from_secs(100_000);
            self.net.link(link).room = 7;
        }
        self.cores[shard].conns.insert(conn, link);
        self.net.trace("  dial", link.0 as u64, server as u64);
        let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
        let delay = connect_time(&mut Tools { net, check, jobs });
        self.net.after(delay, Task::Connect(link));
    }

    fn connect(&mut self, link: LinkId) {
        let Near::Dialling { shard, conn } = self.net.link(link).near else { return };
        let Who::Server { server } = self.net.link(link).peer else { return };
        if self.http.servers.get(&server).is_none_or(|it| it.is_down) {
            if self.dead_refuses {
                self.net.link(link).near = Near::Open { shard, conn };
                self.handle(shard, Event::Broken { conn });
            }
            return;
        }
        self.net.link(link).near = Near::Open { shard, conn };
        self.handle(shard, Event::Connected { conn });
    }

    fn close(
        &mut self,
        shard: usize,
        conn: ConnId,
        rest: std::collections::VecDeque<bytes::Bytes>,
    ) {
        let Some(link) = self.cores[shard].conns.remove(&conn) else {
            return self.check.violation(format!("{conn:?} was closed and has no link"));
        };
        self.net.trace("  close", link.0 as u64, rest.len() as u64);
        if rest.is_empty() {
            return self.close_link(link, false);
        }
        let mut output = Output::default();
        for chunk in rest {
            output.push_whole(chunk);
        }
        self.net.link(link).near = Near::Lingering(output);
        self.net.schedule_flush(link);
        self.net.after(limits::SEND_TIMEOUT, Task::Linger(link));
    }

    /// The near end of a link is gone. What was sent still arrives, unless time is over.
    fn close_link(&mut self, link: LinkId, only_if_lingering: bool) {
        let entry = self.net.link(link);
        if only_if_lingering && matches!(entry.near, Near::Gone | Near::Open { .. }) {
            return;
        }
        entry.near = Near::Gone;
        entry.down_end.get_or_insert(End::Closed);
        self.net.schedule_read(link);
    }

    fn deliver(&mut self, from: usize, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Letter(letter) => {
                self.handle(to, Event::Mail { from: shard_id(from), letter });
            }
            Parcel::Adopted { link, .. } if self.cores[to].has_quit => {
                self.check.violation(format!("link {} moved to a shard that has ended", link.0));
                self.close_link(link, false);
            }
            Parcel::Adopted { link, peer, bytes, moves } => {
                self.net.link(link).near = Near::Parked { shard: to };
                self.handle(to, Event::Adopted { socket: socket(link), peer, bytes, moves });
            }
        }
        self.finish();
    }

    /// A shard rests, or a parcel has arrived. After the last, as a driver does, all threads end.
    fn finish(&mut self) {
        self.busy -= 1;
        if self.busy == 0 {
            (0..self.cores.len()).for_each(|shard| self.quit(shard));
        }
    }

    fn start(&mut self, shard: usize, server: usize, id: ProcessId) -> Answer {
        if self.check.faults.die && self.net.random.chance(10) {
            return Answer::Failed("no such program".to_owned());
        }
        let peer = Who::Process { process: self.stdio.list.len() };
        let link = self.net.open(peer, Near::Parked { shard });
        let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
        self.stdio.start((shard, id), server == 1, link, &mut Tools { net, check, jobs });
        Answer::Started { socket: socket(link) }
    }

    fn exit(&mut self, process: usize, how: &'static str) {
        let entry = &mut self.stdio.list[process];
        let (shard, id) = (entry.shard, entry.id);
        if entry.is_alive {
            let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
            self.stdio.exit(process, how, &mut Tools { net, check, jobs });
        } else if !std::mem::replace(&mut entry.is_reaped, true) {
            self.handle(shard, Event::Exited { process: id, how: how.to_owned() });
        }
    }

    fn step(&mut self, job: usize) {
        let Some(step) = take_step(job, &mut self.jobs) else { return };
        let (net, check, jobs) = (&mut self.net, &mut self.check, &mut self.jobs);
        let mut tools = Tools { net, check, jobs };
        if self.sabotage == Some(Sabotage::Mix) && tools.net.random.chance(20) {
            tools.jobs.list[job].tag.client ^= 1;
        }
        match &tools.jobs.list[job].place {
            Place::Process(process) => {
                let process = *process;
                self.stdio.step(process, job, step, &mut tools);
            }
            Place::Http(_) => self.http.step(job, step, &mut tools),
        }
        if self.jobs.list[job].question.is_none() {
            self.jobs.schedule(job, &mut self.net);
        }
    }

    /// The shard's thread ends, and with it everything that it has.
    fn quit(&mut self, shard: usize) {
        self.net.trace("  quit", shard as u64, 0);
        self.cores[shard].has_quit = true;
        for (_, link) in std::mem::take(&mut self.cores[shard].conns) {
            self.close_link(link, false);
        }
    }
}

/// An event for the trace: its name and its link.
fn describe(event: &Event<'_>, core: &Core) -> (&'static str, u64) {
    let link = |conn: &ConnId| core.conns.get(conn).map_or(9999, |link| link.0 as u64);
    match event {
        Event::Accepted { socket, .. } => ("accepted", u64::from(socket.0)),
        Event::Adopted { socket, .. } => ("adopted", u64::from(socket.0)),
        Event::Connected { conn } => ("connected", link(conn)),
        Event::Received { conn, .. } => ("received", link(conn)),
        Event::Ended { conn } => ("ended", link(conn)),
        Event::Broken { conn } => ("broken", link(conn)),
        Event::Sent { conn } => ("sent", link(conn)),
        Event::Woke => ("woke", 0),
        Event::Mail { from, .. } => ("mail", u64::from(from.0)),
        Event::Answered { ticket, .. } => ("answered", ticket.0),
        Event::Exited { process, .. } => ("exited", process.0),
        Event::Drain { .. } => ("drain", 0),
    }
}
