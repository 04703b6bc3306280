//! Two gateways with a link between them (the TCP binary protocol, version 2), on virtual time,
//! over connections that break at every byte: nothing is lost, and nothing comes twice.

mod world;

use std::time::Duration;

use serde_json::json;
use wire::binary::v1::{Dialect, write_offer};
use wire::binary::{self, Limits, Link, Settings as LinkSettings};

use self::world::{FAR, NEAR, Place, World};
use crate::limits;
use crate::shard::event::Event;

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

/// The dialogue, over a first connection that carries so many bytes in each direction.
fn dialogue(budget: [usize; 2], large_len: usize) -> World {
    dialogue_over(budget, Vec::new(), large_len)
}

/// The same with more that break.
fn dialogue_over(budget: [usize; 2], later: Vec<[usize; 2]>, large_len: usize) -> World {
    let mut world = World::new(budget, large_len);
    world.later = later;
    initialize(&mut world);
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

fn initialize(world: &mut World) {
    let info = json!({"name": "c", "version": "1"});
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {"sampling": {}}, "clientInfo": info,
    });
    world.say(&json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params}));
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

/// Says something that the process is to hear.
fn call(world: &mut World, id: &str) {
    world.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": id, "text": "t"}}));
}

#[test]
fn a_link_is_brought_back_as_long_as_the_server_keeps_it() {
    let mut world = dialogue([usize::MAX; 2], 1);
    world.cut();
    let back_at = world.now + limits::LINK_KEEP_TIME * 5 / 6;
    world.away_until = Some(back_at);
    call(&mut world, "late");
    world.run(|world| world.has_answer("late"));
    assert!(world.now - back_at <= limits::LINK_REDIAL_MAX);
    assert!(world.connections < 25, "{}", world.connections);
    assert_eq!(world.ends[FAR].shard.counters().links_resumed, 1);
    assert_eq!(world.heard[1].len(), 8, "the call came once");
}

#[test]
fn a_link_that_the_server_keeps_no_longer_is_given_up() {
    let mut world = dialogue([usize::MAX; 2], 1);
    world.cut();
    let begun = world.now;
    world.away_until = Some(begun + limits::LINK_KEEP_TIME * 2);
    call(&mut world, "late");
    world.run(|world| world.has_heard("server_died"));
    assert_eq!(world.now - begun, limits::LINK_KEEP_TIME);
}

/// What is not on the link yet loses nothing by being told at once.
#[test]
fn who_waits_for_a_connection_is_told_that_there_is_none() {
    let mut world = dialogue([usize::MAX; 2], 1);
    world.cut();
    let begun = world.now;
    world.away_until = Some(begun + limits::LINK_KEEP_TIME / 2);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "new", "_meta": meta});
    world.say(&json!({"jsonrpc": "2.0", "id": "new", "method": "tools/call", "params": params}));
    call(&mut world, "late");
    world.run(|world| world.has_heard("\"new\""));
    assert!(world.has_heard("server_unreachable"), "{:?}", world.heard[0]);
    assert!(world.now - begun < Duration::from_secs(1));
    world.run(|world| world.has_answer("late"));
}

#[test]
fn a_server_that_welcomes_and_drops_is_not_dialled_in_a_loop() {
    let mut world = dialogue([usize::MAX; 2], 1);
    // An answer to the offer and WELCOME, and nothing behind them.
    let welcome = "{\"agreed_version\":2}".len() + 12 + 20 + 48;
    world.later = vec![[usize::MAX, welcome]; 1000];
    world.cut();
    let begun = world.now;
    call(&mut world, "late");
    world.run(|world| begun + Duration::from_secs(60) < world.now || world.later.is_empty());
    assert!((15..30).contains(&world.connections), "{}", world.connections);
    // Once something comes, the next attempt is made at once.
    world.later.clear();
    world.run(|world| world.has_answer("late"));
    let connections = world.connections;
    world.cut();
    let begun = world.now;
    call(&mut world, "more");
    world.run(|world| world.has_answer("more"));
    assert_eq!((world.connections, world.now), (connections + 1, begun));
}

/// What the process hears of its question.
fn asked(lens: [usize; 2], ask: usize, want: usize) -> String {
    let mut world = World::with([usize::MAX; 2], 1, lens);
    initialize(&mut world);
    world.run(|world| world.heard[1].len() == 7);
    world.say(&json!({"jsonrpc": "2.0", "id": "q", "method": "tools/call",
        "params": {"name": "question", "ask": ask, "want": want}}));
    world.run(|world| world.heard[1].iter().any(|line| line.contains("\"about long\"")));
    world.heard[1].pop().unwrap()
}

#[test]
fn what_is_too_long_for_the_other_side_of_a_link_is_an_answer_to_its_sender() {
    let long = limits::MESSAGE_LEN;
    assert!(asked([long; 2], 4000, 3000).contains(&"r".repeat(3000)));
    // The near gateway does not take the question, the far one not the answer.
    for (lens, ask, want) in [([2000, long], 4000, 10), ([long, 2000], 10, 4000)] {
        let answer = asked(lens, ask, want);
        assert!(answer.contains("\"error\"") && answer.contains("too_large"), "{answer}");
    }
}
