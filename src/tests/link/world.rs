//! Two gateways with a link between them, a client of one and a server process of the other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::admission::entrance::{Entrance, Protocol};
use crate::admission::origin::Policy;
use crate::ids::{Address, ConnId, EntranceId, Peer, ShardId, Socket};
use crate::limits;
use crate::shard::Shard;
use crate::shard::event::{Action, Answer, Event, Question};
use crate::shard::settings::{Identity, Settings};
use crate::upstream::catalog::{Catalog, Command, Endpoint, Server, Target, Upkeep};

/// Bytes that a connection carries at once.
const PART_LEN: usize = 4001;

/// What is at the other end of a connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Client,
    Process,
    Gateway(ConnId),
}

/// One gateway.
pub(super) struct End {
    pub(super) shard: Shard,
    pub(super) places: HashMap<ConnId, Place>,
    /// What comes of a socket that the shard gives a name.
    next: Vec<Place>,
    pub(super) actions: VecDeque<Action>,
    wakes_at: Option<Instant>,
}

impl End {
    fn new(target: Target, protocol: Protocol, message_len_max: usize, now: Instant) -> Self {
        let server = Server { name: "x".to_owned(), target, request_timeout: None };
        let settings = Arc::new(Settings {
            catalog: Catalog::new(vec![server]),
            origins: Policy::default(),
            entrances: vec![Entrance::of(protocol)],
            clients_max: usize::MAX,
            message_len_max,
            session_idle_timeout: limits::SESSION_IDLE_TIMEOUT,
            ping_interval: limits::PING_INTERVAL,
            log: None,
            tls: None,
            epoch: (now, SystemTime::UNIX_EPOCH),
        });
        let identity = Identity { id: ShardId(0), shards: 1, seed: [1; 32] };
        let shard = Shard::new(settings, identity, now);
        let (next, actions) = (Vec::new(), VecDeque::new());
        Self { shard, places: HashMap::new(), next, actions, wakes_at: None }
    }

    fn handle(&mut self, event: Event<'_>, now: Instant) {
        self.shard.handle(event, now);
        self.actions.extend(std::iter::from_fn(|| self.shard.poll()));
    }

    pub(super) fn conn_to(&self, place: Place) -> Option<ConnId> {
        self.places.iter().find(|(_, it)| **it == place).map(|(conn, _)| *conn)
    }
}

/// The whole: a client, the near gateway, the far gateway, a process.
pub(super) struct World {
    pub(super) ends: [End; 2],
    pub(super) now: Instant,
    /// Bytes that the connection between the gateways still carries from the near one, and from
    /// the far one.
    budget: [usize; 2],
    /// The same of later ones, the next last; when there are no more, connections carry all.
    pub(super) later: Vec<[usize; 2]>,
    /// Bytes that it carried.
    pub(super) carried: [usize; 2],
    /// Whether it carries nothing any more, without a word to anybody.
    pub(super) is_dead: bool,
    /// Until when the far gateway lets nobody in.
    pub(super) away_until: Option<Instant>,
    pub(super) connections: usize,
    /// Bytes of the large message.
    large_len: usize,
    /// Lines that were not complete, and what was said to the client and to the process.
    fronts: [Vec<u8>; 2],
    pub(super) heard: [Vec<String>; 2],
}

pub(super) const NEAR: usize = 0;
pub(super) const FAR: usize = 1;

impl World {
    pub(super) fn new(budget: [usize; 2], large_len: usize) -> Self {
        Self::with(budget, large_len, [limits::MESSAGE_LEN; 2])
    }

    /// The same where the gateways take messages of so many bytes.
    pub(super) fn with(budget: [usize; 2], large_len: usize, lens: [usize; 2]) -> Self {
        let now = Instant::now();
        let endpoint = Endpoint {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: 1,
            authority: "127.0.0.1:1".to_owned(),
            target: "/x".to_owned(),
            headers: Vec::new(),
            conns_max: 1,
            upkeep: Upkeep::default(),
        };
        let command = Command {
            program: "x".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            processes_max: 1,
            tasks_max: 1,
            upkeep: Upkeep::default(),
        };
        let near = End::new(Target::Tcp(endpoint.into()), Protocol::Lines, lens[NEAR], now);
        let far = End::new(Target::Stdio(command), Protocol::Binary, lens[FAR], now);
        let mut world = Self {
            ends: [near, far],
            now,
            budget,
            later: Vec::new(),
            carried: [0; 2],
            is_dead: false,
            away_until: None,
            connections: 0,
            large_len,
            fronts: Default::default(),
            heard: Default::default(),
        };
        world.accept(NEAR, Place::Client);
        while world.step() {}
        world
    }

    pub(super) fn accept(&mut self, end: usize, place: Place) {
        self.ends[end].next.push(place);
        let peer = Peer { address: Address::Local { pid: 1, uid: 1 }, entrance: EntranceId(0) };
        self.handle(end, Event::Accepted { socket: Socket(0), peer });
    }

    pub(super) fn handle(&mut self, end: usize, event: Event<'_>) {
        self.ends[end].handle(event, self.now);
    }

    /// Lets everything happen that can; then time pass until something can.
    pub(super) fn run(&mut self, mut is_over: impl FnMut(&Self) -> bool) {
        for _ in 0..10_000 {
            while self.step() {}
            if is_over(self) {
                return;
            }
            let next = self.ends.iter().filter_map(|end| end.wakes_at).min();
            self.now = self.now.max(next.expect("somebody waits for something"));
            for end in [NEAR, FAR] {
                if self.ends[end].wakes_at.is_some_and(|at| at <= self.now) {
                    self.ends[end].wakes_at = None;
                    self.handle(end, Event::Woke);
                }
            }
        }
        panic!("it does not end: {:?}", self.heard);
    }

    /// Carries out one thing that a shard wants; false when none wants anything.
    pub(super) fn step(&mut self) -> bool {
        for end in [NEAR, FAR] {
            if let Some(action) = self.ends[end].actions.pop_front() {
                self.carry_out(end, action);
                return true;
            }
        }
        false
    }

    fn carry_out(&mut self, end: usize, action: Action) {
        match action {
            Action::Receive { conn, .. } => {
                let place = self.ends[end].next.pop().unwrap();
                self.ends[end].places.insert(conn, place);
            }
            Action::Dial { conn, .. } => {
                self.connections += 1;
                self.is_dead = false;
                if self.away_until.is_some_and(|until| self.now < until) {
                    return self.handle(end, Event::Broken { conn });
                }
                if 1 < self.connections {
                    self.budget = self.later.pop().unwrap_or([usize::MAX; 2]);
                }
                self.accept(1 - end, Place::Gateway(conn));
                while self.ends[1 - end].conn_to(Place::Gateway(conn)).is_none() {
                    assert!(self.step());
                }
                let other = self.ends[1 - end].conn_to(Place::Gateway(conn)).unwrap();
                self.ends[end].places.insert(conn, Place::Gateway(other));
                self.handle(end, Event::Connected { conn });
            }
            Action::Ask { ticket, question: Question::Start { .. } } => {
                self.ends[end].next.push(Place::Process);
                let answer = Answer::Started { socket: Socket(0) };
                self.handle(end, Event::Answered { ticket, answer });
            }
            Action::Stop { process, .. } => {
                self.handle(end, Event::Exited { process, how: "exit status 0".to_owned() });
            }
            Action::Send { conn } => {
                let Some(output) = self.ends[end].shard.output(conn) else { return };
                let bytes: Vec<u8> = output.take().into_iter().flatten().collect();
                self.handle(end, Event::Sent { conn });
                self.deliver(end, conn, &bytes);
            }
            Action::Close { conn, rest } => {
                let rest: Vec<u8> = rest.into_iter().flatten().collect();
                self.deliver(end, conn, &rest);
                if let Some(Place::Gateway(other)) = self.ends[end].places.remove(&conn) {
                    self.ends[1 - end].places.remove(&other);
                    self.handle(1 - end, Event::Broken { conn: other });
                }
            }
            Action::Arm { deadline } => self.ends[end].wakes_at = Some(deadline),
            Action::Pause { .. } | Action::Resume { .. } | Action::Rest | Action::Rouse => {}
            action => panic!("{action:?}"),
        }
    }

    /// Bytes come to the other end of a connection.
    fn deliver(&mut self, end: usize, conn: ConnId, bytes: &[u8]) {
        match self.ends[end].places.get(&conn).copied() {
            Some(Place::Client) => self.lines(0, bytes),
            Some(Place::Process) => self.lines(1, bytes),
            Some(Place::Gateway(_)) if self.is_dead => {}
            Some(Place::Gateway(other)) => {
                let len = bytes.len().min(self.budget[end]);
                self.budget[end] -= len;
                self.carried[end] += len;
                for part in bytes[..len].chunks(PART_LEN) {
                    self.handle(
                        1 - end,
                        Event::Received { conn: other, bytes: &mut part.to_vec() },
                    );
                }
                if len < bytes.len() {
                    self.ends[end].places.remove(&conn);
                    self.ends[1 - end].places.remove(&other);
                    self.handle(end, Event::Broken { conn });
                    self.handle(1 - end, Event::Broken { conn: other });
                }
            }
            None => {}
        }
    }

    /// Lines for the client or for the process, which do something about them.
    fn lines(&mut self, who: usize, bytes: &[u8]) {
        let mut front = std::mem::take(&mut self.fronts[who]);
        front.extend_from_slice(bytes);
        let end = front.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.fronts[who] = front.split_off(end);
        for line in String::from_utf8(front).unwrap().lines() {
            self.heard[who].push(line.to_owned());
            let message: Value = serde_json::from_str(line).unwrap();
            let replies = match who {
                0 => replies(&message, self.large_len),
                _ => answers(&message),
            };
            let place = [Place::Client, Place::Process][who];
            for reply in replies {
                let conn = self.ends[who].conn_to(place).unwrap();
                let mut line = format!("{reply}\n").into_bytes();
                self.handle(who, Event::Received { conn, bytes: &mut line });
            }
        }
    }

    /// The connection between the gateways breaks.
    pub(super) fn cut(&mut self) {
        for end in [NEAR, FAR] {
            let is_gateway = |(_, place): &(&ConnId, &Place)| matches!(place, Place::Gateway(_));
            let conn = *self.ends[end].places.iter().find(is_gateway).unwrap().0;
            self.ends[end].places.remove(&conn);
            self.handle(end, Event::Broken { conn });
        }
    }

    /// Whether the client has the answer to a call of its.
    pub(super) fn has_answer(&self, id: &str) -> bool {
        self.has_heard(&format!("{{\"id\":\"{id}\",\"jsonrpc\":\"2.0\",\"result\""))
    }

    /// Whether the client has heard this.
    pub(super) fn has_heard(&self, text: &str) -> bool {
        self.heard[0].iter().any(|line| line.contains(text))
    }

    pub(super) fn say(&mut self, message: &Value) {
        let conn = self.ends[NEAR].conn_to(Place::Client).unwrap();
        let mut line = format!("{message}\n").into_bytes();
        self.handle(NEAR, Event::Received { conn, bytes: &mut line });
    }
}

/// What the client does about a message.
fn replies(message: &Value, large_len: usize) -> Vec<Value> {
    let call = |id: &str, text: String| {
        let params = json!({"name": id, "text": text, "_meta": {"progressToken": id}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    match (message["id"].as_str(), message["method"].as_str()) {
        (Some("init"), _) if message["result"].is_object() => vec![
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            call("small", "s".to_owned()),
            call("ask", "a".repeat(100)),
            call("large", "l".repeat(large_len)),
        ],
        (Some("about long"), Some(_)) => {
            let want = message["params"]["want"].as_u64().unwrap();
            let result = json!({"role": "r".repeat(usize::try_from(want).unwrap())});
            vec![json!({"jsonrpc": "2.0", "id": "about long", "result": result})]
        }
        (Some(id), Some(_)) => vec![json!({"jsonrpc": "2.0", "id": id, "result": {"role": "x"}})],
        (Some("small"), None) => vec![call("last", String::new())],
        _ => Vec::new(),
    }
}

/// What the process does about one.
fn answers(message: &Value) -> Vec<Value> {
    let id = &message["id"];
    let done = |id: &Value, result: &Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let progress = json!({
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1},
    });
    let len = |name: &str| {
        let len = message["params"][name].as_u64().unwrap_or_default();
        usize::try_from(len).unwrap()
    };
    match (message["method"].as_str(), message["params"]["name"].as_str()) {
        (Some("initialize"), _) => {
            let info = json!({"name": "x", "version": "1"});
            let (version, none) = ("2025-11-25", json!({}));
            let result =
                json!({"protocolVersion": version, "capabilities": none, "serverInfo": info});
            vec![done(id, &result)]
        }
        (Some("tools/call"), Some("ask")) => {
            let question = format!("about {id}");
            let method = "sampling/createMessage";
            vec![json!({"jsonrpc": "2.0", "id": question, "method": method, "params": {}})]
        }
        (Some("tools/call"), Some("question")) => {
            let params = json!({"pad": "p".repeat(len("ask")), "want": len("want")});
            let method = "sampling/createMessage";
            vec![json!({"jsonrpc": "2.0", "id": "about long", "method": method, "params": params})]
        }
        (Some("tools/call"), _) => vec![progress, done(id, &message["params"]["text"])],
        // The process has only one call then.
        (None, _) if id == "about long" => {
            vec![json!({"jsonrpc": "2.0", "method": "notifications/message", "params": message})]
        }
        (None, _) => {
            let about = id.as_str().unwrap().strip_prefix("about ").unwrap();
            vec![done(&about.parse::<u64>().unwrap().into(), &json!("asked"))]
        }
        _ => Vec::new(),
    }
}
