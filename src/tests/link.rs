//! Two gateways with a link between them (the TCP binary protocol, version 2), on virtual time,
//! over connections that break at every byte: nothing is lost, and nothing comes twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use wire::binary::v1::{Dialect, write_offer};
use wire::binary::{self, Limits, Link, Settings as LinkSettings};

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

const SETTINGS: LinkSettings = LinkSettings {
    limits: Limits {
        window: 64 * 1024,
        frame_len_max: 16 * 1024,
        message_len_max: 1 << 20,
        streams_max: 64,
        replay_len_max: 256 * 1024,
    },
    keep_ms: 0,
    queue_len_max: 1 << 20,
    queues_len_max: 256 << 20,
    partial_len_max: 1 << 20,
    partials_len_max: 256 << 20,
};

/// What is at the other end of a connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Client,
    Process,
    Gateway(ConnId),
}

/// One gateway.
struct End {
    shard: Shard,
    places: HashMap<ConnId, Place>,
    /// What comes of a socket that the shard gives a name.
    next: Vec<Place>,
    actions: VecDeque<Action>,
    wakes_at: Option<Instant>,
}

impl End {
    fn new(target: Target, protocol: Protocol, now: Instant) -> Self {
        let server = Server { name: "x".to_owned(), target, request_timeout: None };
        let settings = Arc::new(Settings {
            catalog: Catalog::new(vec![server]),
            origins: Policy::default(),
            entrances: vec![Entrance::of(protocol)],
            clients_max: usize::MAX,
            message_len_max: limits::MESSAGE_LEN,
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

    fn conn_to(&self, place: Place) -> Option<ConnId> {
        self.places.iter().find(|(_, it)| **it == place).map(|(conn, _)| *conn)
    }
}

/// The whole: a client, the near gateway, the far gateway, a process.
struct World {
    ends: [End; 2],
    now: Instant,
    /// Bytes that the connection between the gateways still carries from the near one, and from
    /// the far one.
    budget: [usize; 2],
    /// The same of later ones, the next last; when there are no more, connections carry all.
    later: Vec<[usize; 2]>,
    /// Bytes that it carried.
    carried: [usize; 2],
    /// Whether it carries nothing any more, without a word to anybody.
    is_dead: bool,
    connections: usize,
    /// Bytes of the large message.
    large_len: usize,
    /// Lines that were not complete, and what was said to the client and to the process.
    fronts: [Vec<u8>; 2],
    heard: [Vec<String>; 2],
}

const NEAR: usize = 0;
const FAR: usize = 1;

impl World {
    fn new(budget: [usize; 2], large_len: usize) -> Self {
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
        let near = End::new(Target::Tcp(endpoint.into()), Protocol::Lines, now);
        let far = End::new(Target::Stdio(command), Protocol::Binary, now);
        let mut world = Self {
            ends: [near, far],
            now,
            budget,
            later: Vec::new(),
            carried: [0; 2],
            is_dead: false,
            connections: 0,
            large_len,
            fronts: Default::default(),
            heard: Default::default(),
        };
        world.accept(NEAR, Place::Client);
        while world.step() {}
        world
    }

    fn accept(&mut self, end: usize, place: Place) {
        self.ends[end].next.push(place);
        let peer = Peer { address: Address::Local { pid: 1, uid: 1 }, entrance: EntranceId(0) };
        self.handle(end, Event::Accepted { socket: Socket(0), peer });
    }

    fn handle(&mut self, end: usize, event: Event<'_>) {
        self.ends[end].handle(event, self.now);
    }

    /// Lets everything happen that can; then time pass until something can.
    fn run(&mut self, mut is_over: impl FnMut(&Self) -> bool) {
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
    fn step(&mut self) -> bool {
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

    fn say(&mut self, message: &Value) {
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
        (Some("tools/call"), _) => vec![progress, done(id, &message["params"]["text"])],
        (None, _) => {
            let about = id.as_str().unwrap().strip_prefix("about ").unwrap();
            vec![done(&about.parse::<u64>().unwrap().into(), &json!("asked"))]
        }
        _ => Vec::new(),
    }
}

/// The dialogue, over a first connection that carries so many bytes in each direction.
fn dialogue(budget: [usize; 2], large_len: usize) -> World {
    dialogue_over(budget, Vec::new(), large_len)
}

/// The same with more that break.
fn dialogue_over(budget: [usize; 2], later: Vec<[usize; 2]>, large_len: usize) -> World {
    let mut world = World::new(budget, large_len);
    world.later = later;
    let info = json!({"name": "c", "version": "1"});
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {"sampling": {}}, "clientInfo": info,
    });
    world.say(&json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params}));
    let is_answered = |world: &World, id: &str| {
        let answer = format!("\"id\":\"{id}\"");
        world.heard[0].iter().any(|line| line.contains(&answer) && !line.contains("\"method\""))
    };
    world.run(|world| {
        let is_refused = world.heard[0].iter().any(|line| line.contains("\"error\""));
        is_refused || ["ask", "large", "last"].iter().all(|id| is_answered(world, id))
    });
    world
}

/// Breaks the first connection behind each of these bytes, and compares.
fn sweep(large_len: usize, is_cut: impl Fn(usize) -> bool) {
    let whole = dialogue([usize::MAX; 2], large_len);
    assert_eq!((whole.connections, whole.heard[0].len(), whole.heard[1].len()), (1, 9, 7));
    for direction in [NEAR, FAR] {
        let mut early = 0;
        for at in (0..whole.carried[direction]).filter(|at| is_cut(*at)) {
            let mut budget = [usize::MAX; 2];
            budget[direction] = at;
            let world = dialogue(budget, large_len);
            let why = format!("{direction} {at}");
            if world.heard[0][0].contains("server_unreachable") {
                // There was no link yet that could be resumed.
                assert_eq!(world.heard[1].len(), 0, "{why}");
                early = at + 1;
                continue;
            }
            assert_eq!(world.connections, 2, "{why}");
            assert_eq!(world.heard[1], whole.heard[1], "{why}");
            assert_eq!(sorted(&world.heard[0]), sorted(&whole.heard[0]), "{why}");
        }
        // An offer, an answer, HELLO, WELCOME.
        assert!((1..200).contains(&early), "{early}");
    }
}

#[test]
fn nothing_is_lost_or_comes_twice_wherever_the_connection_breaks() {
    sweep(200, |_| true);
}

#[test]
fn nor_if_many_break_one_after_the_other() {
    let whole = dialogue([usize::MAX; 2], 40_000);
    let mut broken = 0;
    for seed in 0..100_usize {
        // Some carry next to nothing; all together more than five would be given up.
        let budget = |step: usize| {
            let chance = (seed * 31 + step * 17 + 7).wrapping_mul(2_654_435_761) >> 7;
            [chance % 4001, chance / 4001 % 4001]
        };
        let later = (0..5).map(budget).collect();
        let world = dialogue_over([1500, usize::MAX], later, 40_000);
        broken += world.connections - 1;
        assert_eq!(world.heard[1], whole.heard[1], "{seed}");
        assert_eq!(sorted(&world.heard[0]), sorted(&whole.heard[0]), "{seed}");
    }
    assert!(100 * 5 < broken, "{broken}");
}

#[test]
fn nor_in_a_message_of_several_frames() {
    sweep(70_000, |at| at < 9 || at % 2003 == 0);
}

fn sorted(lines: &[String]) -> Vec<&String> {
    let mut lines: Vec<&String> = lines.iter().collect();
    lines.sort();
    lines
}

#[test]
fn a_link_that_is_not_resumed_in_time_is_given_up() {
    let mut world = dialogue([usize::MAX; 2], 1);
    let far = world.ends[FAR].conn_to(Place::Client);
    assert_eq!(far, None);
    // The far gateway hears nothing of the near one any more.
    let Some(Place::Gateway(conn)) =
        world.ends[NEAR].places.values().copied().find(|place| matches!(place, Place::Gateway(_)))
    else {
        panic!("no link")
    };
    world.ends[FAR].places.remove(&conn);
    world.handle(FAR, Event::Broken { conn });
    assert_eq!(world.ends[FAR].shard.counters().sessions, 1, "it is kept for a while");
    world.ends[FAR].actions.clear();
    world.now += limits::LINK_KEEP_TIME + Duration::from_secs(1);
    world.handle(FAR, Event::Woke);
    assert_eq!(world.ends[FAR].shard.counters().sessions, 0);
    assert_eq!(world.ends[FAR].shard.clients(), 0);
}

#[test]
fn a_connection_that_is_silent_is_replaced() {
    let mut world = dialogue([usize::MAX; 2], 1);
    world.is_dead = true;
    let begun = world.now;
    world.say(&json!({"jsonrpc": "2.0", "id": "late", "method": "tools/call",
        "params": {"name": "late", "text": "t"}}));
    world.run(|world| world.heard[0].iter().any(|line| line.contains("\"late\"")));
    assert_eq!(world.connections, 2);
    assert!(world.now - begun <= limits::PING_INTERVAL * 3);
    assert_eq!(world.ends[FAR].shard.counters().links_resumed, 1);
    assert_eq!(world.heard[1].len(), 8, "the call came once");
}

#[test]
fn a_link_that_nobody_needs_is_ended() {
    let mut world = dialogue([usize::MAX; 2], 1);
    let conn = world.ends[NEAR].conn_to(Place::Client).unwrap();
    world.handle(NEAR, Event::Broken { conn });
    while world.step() {}
    assert_eq!(world.ends[FAR].shard.counters().sessions, 0, "its stream is closed at once");
    assert_eq!(world.ends[NEAR].shard.counters().server_conns, 1);
    let begun = world.now;
    world.run(|world| world.ends[NEAR].shard.counters().server_conns == 0);
    assert!(world.now - begun <= limits::SERVER_IDLE_TIMEOUT * 2);
    assert_eq!(world.ends[FAR].shard.clients(), 0);
}

#[test]
fn a_fault_costs_one_stream_and_a_connection_but_not_the_link() {
    let mut world = dialogue([usize::MAX; 2], 1);
    world.ends[FAR].shard.fault = Some(b"explode");
    let params = json!({"name": "explode"});
    world.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    let is_refused = |world: &World| world.heard[0].iter().any(|line| line.contains("server_died"));
    world.run(is_refused);
    assert_eq!(world.connections, 2, "the link was resumed");
    assert_eq!(world.ends[FAR].shard.counters().panics, 1);
    assert_eq!(world.ends[FAR].shard.counters().links_resumed, 1);
    // The session begins anew on another stream.
    world.say(&json!({"jsonrpc": "2.0", "id": "again", "method": "tools/call",
        "params": {"name": "again", "text": "t"}}));
    world.run(|world| world.heard[0].iter().any(|line| line.contains("\"again\"")));
    assert_eq!(world.connections, 2);
}

/// Whenever the far gateway begins to stop: what its process was asked is answered whole.
#[test]
fn an_answer_that_waits_when_a_drain_begins_arrives_whole() {
    // More than a stream has credit for.
    let text = "d".repeat(limits::LINK_WINDOW as usize * 3);
    let mut whole = 0;
    for steps in 0.. {
        let mut world = dialogue([usize::MAX; 2], 1);
        let asked = world.heard[1].len();
        world.say(&json!({"jsonrpc": "2.0", "id": "late", "method": "tools/call",
            "params": {"name": "late", "text": text}}));
        let has_begun = (0..steps).all(|_| world.step());
        let deadline = world.now + limits::DRAIN_TIMEOUT;
        world.handle(FAR, Event::Drain { deadline });
        let is_answer = |line: &&String| line.contains("\"id\":\"late\"");
        world.run(|world| world.heard[0].iter().any(|line| is_answer(&line)));
        let answer = world.heard[0].iter().find(is_answer).unwrap();
        assert!(world.now < deadline, "{steps}");
        if asked < world.heard[1].len() {
            assert!(answer.contains(&text), "{steps}: {} bytes", answer.len());
            whole += 1;
        }
        if !has_begun {
            break;
        }
    }
    assert!(10 < whole, "{whole}");
}

/// A client of the far gateway alone, which comes and goes.
fn visit(world: &mut World, link: &mut Link) -> binary::Event<'static> {
    world.accept(FAR, Place::Client);
    while world.step() {}
    let conn = world.ends[FAR].conn_to(Place::Client).unwrap();
    let mut bytes = Vec::new();
    write_offer(&mut bytes, Dialect::Short, binary::VERSION);
    link.write_to(&mut bytes);
    world.handle(FAR, Event::Received { conn, bytes: &mut bytes });
    let output: Vec<u8> =
        world.ends[FAR].shard.output(conn).unwrap().take().into_iter().flatten().collect();
    // The answer to the offer has a header of 12 bytes.
    let welcome = &output[12 + "{\"agreed_version\":2}".len()..];
    let event = match link.receive(&mut &*welcome).unwrap() {
        binary::Event::Welcomed => binary::Event::Welcomed,
        binary::Event::Resumed => binary::Event::Resumed,
        binary::Event::NotResumed => binary::Event::NotResumed,
        event => panic!("{event:?}"),
    };
    world.ends[FAR].places.remove(&conn);
    world.now += Duration::from_millis(1);
    world.handle(FAR, Event::Broken { conn });
    world.ends[FAR].actions.clear();
    event
}

#[test]
fn not_too_many_links_are_kept_without_a_connection() {
    let mut world = World::new([usize::MAX; 2], 1);
    let new = || Link::connect(SETTINGS, "", "").unwrap();
    let (mut first, mut second) = (new(), new());
    for link in [&mut first, &mut second] {
        assert_eq!(visit(&mut world, link), binary::Event::Welcomed);
    }
    for _ in 1..limits::LINKS_LOST_MAX {
        visit(&mut world, &mut new());
    }
    for (link, event) in
        [(&mut second, binary::Event::Resumed), (&mut first, binary::Event::NotResumed)]
    {
        link.reconnect("", "").unwrap();
        assert_eq!(visit(&mut world, link), event);
    }
}
