//! Views of several servers, each of whose words is in the test.

use std::time::Duration;

use crate::ids::ConnId;
use crate::limits;
use crate::shard::event::Event;
use crate::tests::servers::{
    CANCELLED, INITIALIZE, INITIALIZED, WELCOME, World, all, call, place, session_in,
};
use crate::tests::settings;
use crate::upstream::catalog::{ServerId, Target, Transport};
use crate::upstream::view::{Member, Rules, View};

/// A view of so many servers by HTTP: `m1` at place 1, and so on.
fn world(count: u8) -> World {
    let target = |number| Target::Http(Transport::Http, all(vec![place(number)]));
    let targets: Vec<Target> = (1..=count).map(target).collect();
    united(targets)
}

/// A view of these servers: `m1`, and so on.
fn united(targets: Vec<Target>) -> World {
    let member = |number: usize| Member {
        server: ServerId(u16::try_from(number).unwrap() - 1),
        prefix: Some(format!("m{number}")),
        name: format!("m{number}"),
        rules: Rules::default(),
    };
    let view = View {
        members: (1..=targets.len()).map(member).collect(),
        separator: "__".to_owned(),
        timeout: Duration::from_secs(5),
        page_len: 2,
    };
    let mut settings = settings::settings(targets.into_iter().map(settings::server).collect());
    settings.catalog.add_view(None, "all".to_owned(), view);
    World::with(settings)
}

/// A client sends a message with these header lines.
fn post(world: &mut World, lines: &str, body: &str) -> ConnId {
    let (conn, _) = settings::accept(&mut world.shard, world.now);
    let mut bytes = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    world.tell(Event::Received { conn, bytes: &mut bytes });
    conn
}

/// The `params` of requests of the stateless era end in this.
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A request of the stateless era.
fn ask_modern(world: &mut World, method: &str, lines: &str, params: &str) -> ConnId {
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":9,"method":"{method}","params":{{{params},{META}}}}}"#);
    let lines = format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n{lines}");
    post(world, &lines, &body)
}

#[test]
fn a_message_for_many_members_is_counted_before_it_is_copied() {
    let mut world = world(40);
    let padding = "x".repeat(limits::MESSAGE_LEN - 1024);
    assert!(limits::GATHERED_LEN_MAX < 40 * padding.len());
    let params = format!(r#""notifications":{{"toolsListChanged":true}},"padding":"{padding}""#);
    let client = ask_modern(&mut world, "subscriptions/listen", "", &params);
    let answer = world.read(client);
    assert!(answer.contains("\"full\""), "{answer}");
    let counters = world.shard.counters();
    assert_eq!((counters.in_flight, counters.gathered), (0, 0));
}

#[test]
fn what_fails_for_a_client_is_counted_once() {
    let mut world = world(1);
    let session = world.open(1, "s1");
    let error = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"no"}}"#;
    world.post(&session, &call(2, "m1__x"));
    let server = world.find("\"x\"");
    world.answer(server, "200 OK", error);
    world.post(&session, &call(7, "m1__y"));
    world.post(&session, CANCELLED);
    let counters = world.shard.counters();
    assert_eq!((counters.exchanges, counters.failed, counters.cancelled), (3, 1, 1));
}

#[test]
fn headers_reach_members_of_old_revisions() {
    for version in ["2025-11-25", "2025-03-26"] {
        let mut world = world(1);
        let client = world.post("", &INITIALIZE.replace("2025-11-25", version));
        let server = world.connect(1);
        let welcome = WELCOME.replace("2025-11-25", version);
        world.answer(server, "200 OK\r\nmcp-session-id: s1", &welcome);
        let session = session_in(&world.read(client));
        let lines = format!("mcp-session-id: {session}\r\ntraceparent: 00-1\r\n");
        post(&mut world, &lines, &call(2, "m1__x"));
        let server = world.find("\"x\"");
        let sent = world.read(server);
        assert!(sent.contains("traceparent: 00-1\r\n"), "{version}: {sent}");
    }
}

#[test]
fn one_client_tries_a_broken_member_for_all() {
    const CLIENTS: usize = 20;
    let mut world = world(2);
    for number in 0..CLIENTS {
        let client = world.post("", INITIALIZE);
        world.refuse(2);
        let server = world.found("\"initialize\"").unwrap_or_else(|| world.connect(1));
        world.welcome(server, &format!("s{number}"));
        let session = session_in(&world.read(client));
        world.post(&session, INITIALIZED);
        let server = world.find("notifications/initialized");
        world.answer(server, "202 Accepted", "");
    }
    let is_tried =
        |world: &World| world.conns.iter().any(|(_, place, is_there)| *place == 2 && !is_there);
    let mut tries = 0;
    let second = Duration::from_secs(1);
    for _ in 0..600 {
        world.passes(second);
        while is_tried(&world) {
            world.refuse(2);
            tries += 1;
        }
    }
    // Each of them may have found it broken by itself once.
    let most = CLIENTS + usize::try_from(600 / limits::RESTART_MAX.as_secs()).unwrap() + 16;
    assert!((10..most).contains(&tries), "{tries}");
    // And all have it when it is back.
    for _ in 0..3 * limits::RESTART_MAX.as_secs() {
        world.passes(second);
        while is_tried(&world) {
            world.connect(2);
        }
        while let Some(server) = world.found("\"initialize\"") {
            world.welcome(server, "t");
        }
        while let Some(server) = world.found("notifications/initialized") {
            world.answer(server, "202 Accepted", "");
        }
    }
    assert_eq!(world.shard.counters().missing.iter().sum::<u64>(), 0);
}

#[test]
fn a_member_that_never_listened_ends_no_subscription() {
    let mut world = world(2);
    ask_modern(&mut world, "server/discover", "", r#""x":1"#);
    world.refuse(2);
    let server = world.connect(1);
    let result = r#"{"jsonrpc":"2.0","id":"mcp-gateway-1","result":{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}}"#;
    world.answer(server, "200 OK", result);
    world.passes(limits::ENDPOINT_PAUSE * 2);
    let listen = r#""notifications":{"toolsListChanged":true}"#;
    let client = ask_modern(&mut world, "subscriptions/listen", "", listen);
    let server = world.find("subscriptions/listen");
    let promise = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true}}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    world.say(server, &format!("{head}\r\ndata: {promise}\r\n\r\n"));
    assert!(world.read(client).contains("acknowledged"));
    world.refuse(2);
    assert_eq!(world.read(client), "");
    // Who did listen ends it.
    world.tell(Event::Ended { conn: server });
    assert!(world.read(client).contains("\"complete\""));
}

/// A session with a view of two servers that have tasks.
fn with_tasks() -> (World, String) {
    let mut world = world(2);
    let client = world.post("", INITIALIZE);
    let tasks = r#""tools":{},"tasks":{"list":{},"cancel":{}}"#;
    let welcome = WELCOME.replace(r#""tools":{}"#, tasks);
    for place in [1, 2] {
        let server = world.connect(place);
        world.answer(server, &format!("200 OK\r\nmcp-session-id: s{place}"), &welcome);
    }
    let answer = world.read(client);
    assert!(answer.contains(tasks), "{answer}");
    let session = session_in(&answer);
    world.post(&session, INITIALIZED);
    for _ in [1, 2] {
        let server = world.find("notifications/initialized");
        world.answer(server, "202 Accepted", "");
    }
    (world, session)
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{{{params}}}}}"#)
}

/// The server that got this answers with that.
fn serve(world: &mut World, place: u8, text: &str, answer: &str) {
    let server = world.find(text);
    let at = world.conns.iter().find(|(conn, ..)| *conn == server).unwrap().1;
    assert_eq!(at, place, "{text}");
    let sent = world.read(server);
    let id = sent.split("\"id\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    world.answer(server, "200 OK", &format!(r#"{{"jsonrpc":"2.0","id":{id},{answer}}}"#));
}

const UNKNOWN: &str = r#""error":{"code":-32602,"message":"no such task"}"#;

#[test]
fn a_task_is_looked_for_once() {
    let (mut world, session) = with_tasks();
    let client = world.post(&session, &request("tasks/cancel", r#""taskId":"t""#));
    serve(&mut world, 1, "tasks/get", UNKNOWN);
    serve(&mut world, 2, "tasks/get", r#""result":{"taskId":"t","status":"working"}"#);
    serve(&mut world, 2, "tasks/cancel", r#""result":{"taskId":"t","status":"cancelled"}"#);
    assert!(world.read(client).contains("\"cancelled\""));
    let client = world.post(&session, &request("tasks/result", r#""taskId":"t""#));
    assert_eq!(world.found("tasks/get"), None);
    serve(&mut world, 2, "tasks/result", r#""result":{"content":[]}"#);
    assert!(world.read(client).contains("\"content\""));
    // What is asked for may be what is looked for, and nobody need have it.
    let client = world.post(&session, &request("tasks/get", r#""taskId":"u""#));
    serve(&mut world, 1, "tasks/get", UNKNOWN);
    serve(&mut world, 2, "tasks/get", UNKNOWN);
    assert!(world.read(client).contains("no such task"));
    let long = "x".repeat(limits::TASK_ID_LEN_MAX + 1);
    let client = world.post(&session, &request("tasks/get", &format!(r#""taskId":"{long}""#)));
    assert!(world.read(client).contains("not_united"));
    let counters = world.shard.counters();
    assert_eq!((counters.in_flight, counters.gathered), (2, 0), "the members are listened to");
}

#[test]
fn an_era_has_its_own_requests_about_tasks() {
    let mut world = world(2);
    let client = ask_modern(&mut world, "tasks/result", "", r#""taskId":"t""#);
    assert!(world.read(client).contains("-32601"));
    ask_modern(&mut world, "tasks/update", "mcp-name: t\r\n", r#""taskId":"t""#);
    let server = world.connect(1);
    let sent = world.read(server);
    assert!(sent.contains("\"tasks/get\"") && sent.contains("mcp-method: tasks/get"), "{sent}");
    assert!(sent.contains(&format!("{{\"taskId\":\"t\",{META}")), "{sent}");
    let (mut world, session) = with_tasks();
    let client = world.post(&session, &request("tasks/update", r#""taskId":"t""#));
    assert!(world.read(client).contains("-32601"));
}

#[test]
fn whose_a_new_task_is_need_not_be_asked() {
    let (mut world, session) = with_tasks();
    world.post(&session, &call(2, "m2__x"));
    serve(&mut world, 2, "\"x\"", r#""result":{"task":{"taskId":"t","status":"working"}}"#);
    let client = world.post(&session, &request("tasks/get", r#""taskId":"t""#));
    serve(&mut world, 2, "tasks/get", r#""result":{"taskId":"t","status":"working"}"#);
    assert!(world.read(client).contains("\"working\""));
}

#[test]
fn a_member_that_is_asked_for_a_task_has_a_time_for_it() {
    let (mut world, session) = with_tasks();
    let client = world.post(&session, &request("tasks/get", r#""taskId":"t""#));
    world.find("tasks/get");
    world.passes(Duration::from_secs(5));
    serve(&mut world, 2, "\"tasks/get\"", r#""result":{"taskId":"t","status":"working"}"#);
    assert!(world.read(client).contains("\"working\""));
    // And it is not looked for if its client has gone.
    let client = world.post(&session, &request("tasks/cancel", r#""taskId":"u""#));
    let cancelled = CANCELLED.replace(":7", ":5");
    world.post(&session, &cancelled);
    world.passes(Duration::from_secs(5));
    assert_eq!(world.found("tasks/cancel"), None);
    assert!(!world.read(client).contains("error"));
}

#[test]
fn all_tasks_are_on_pages() {
    let (mut world, session) = with_tasks();
    let client = world.post(&session, &request("tasks/list", r#""x":1"#));
    let page = |ids: [&str; 2], next: &str| {
        let task = |id: &str| format!(r#"{{"taskId":"{id}","status":"working"}}"#);
        format!(r#""result":{{"tasks":[{},{}]{next}}}"#, task(ids[0]), task(ids[1]))
    };
    serve(&mut world, 1, "tasks/list", &page(["a", "b"], r#","nextCursor":"2""#));
    serve(&mut world, 1, "\"cursor\":\"2\"", &page(["c", "d"], ""));
    serve(&mut world, 2, "tasks/list", &page(["e", "f"], ""));
    let mut ids: Vec<String> = Vec::new();
    let mut answer = world.read(client);
    loop {
        let found = answer.split("\"taskId\":\"").skip(1);
        let found = found.filter_map(|rest| rest.split('"').next()).map(str::to_owned);
        let before = ids.len();
        ids.extend(found);
        assert!(ids.len() <= before + 2);
        let Some((_, next)) = answer.split_once("\"nextCursor\":") else { break };
        let next = next.split('}').next().unwrap();
        let client = world.post(&session, &request("tasks/list", &format!(r#""cursor":{next}"#)));
        answer = world.read(client);
    }
    assert_eq!(ids.concat(), "abcdef");
    world.post(&session, &request("tasks/cancel", r#""taskId":"f""#));
    serve(&mut world, 2, "tasks/cancel", r#""result":{"taskId":"f","status":"cancelled"}"#);
    // Nobody says when they change: they are read each time.
    world.post(&session, &request("tasks/list", r#""x":2"#));
    world.find("tasks/list");
}

/// A view of one server with two endpoints, and a client that has a session and listens.
fn listening() -> (World, String, ConnId) {
    let mut world = united(vec![Target::Http(Transport::Http, all(vec![place(1), place(2)]))]);
    let session = world.open(1, "s1");
    let client = world.ask("GET", &session, "");
    (world, session, client)
}

/// The member asks something, in answer to a request of the client.
fn asks(world: &mut World, session: &str) -> ConnId {
    let client = world.post(session, &call(7, "m1__x"));
    let server = world.find("tools/call");
    let ask = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    world.say(server, &format!("{head}\r\ndata: {ask}\r\n\r\n"));
    assert!(world.read(client).contains("roots/list"));
    client
}

#[test]
fn a_member_that_is_set_up_again_has_forgotten_what_it_asked_and_offers_what_it_likes() {
    let (mut world, session, listener) = listening();
    asks(&mut world, &session);
    world.read(listener);
    world.post(&session, &call(8, "m1__y"));
    let lost = match world.found("tools/call") {
        Some(lost) => lost,
        None => world.connect(1),
    };
    world.forget(lost);
    world.revive("s2");
    let heard = world.read(listener);
    assert!(heard.contains("notifications/cancelled"), "{heard}");
    assert!(heard.contains("notifications/tools/list_changed"), "{heard}");
    // A late answer to it goes nowhere.
    world.post(&session, r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#);
    assert_eq!(world.found("\"roots\""), None);
}
