//! Servers with several endpoints, each a gateway of its own with the demo server behind it: how
//! they share the work, what stays where it is, and what happens when some are gone.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::{Request, Wire};
use super::recorder::Recorder;
use super::rig::{Dir, META, Rig, Session, call, initialize, modern_call};
use crate::support::{Gateway, free_port, until};

/// An endpoint on a port that is still the same when it comes back.
struct Endpoint {
    port: u16,
    gateway: Option<Gateway>,
}

impl Endpoint {
    fn start() -> Self {
        let mut endpoint = Self::absent();
        endpoint.come_back();
        endpoint
    }

    /// One where nobody listens.
    fn absent() -> Self {
        Self { port: free_port(), gateway: None }
    }

    fn come_back(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
        command.args(["demo", "--admin", "127.0.0.1:0", "--shards", "1", "--log", "json"]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        self.gateway = Some(Gateway::start(&mut command));
    }

    /// It is gone from one moment to the next.
    fn vanish(&mut self) {
        let gateway = self.gateway.take().unwrap();
        gateway.process.signal(Signal::KILL);
    }

    fn metric(&self, name: &str) -> u64 {
        let Some(gateway) = &self.gateway else { return 0 };
        let page = Wire::connect(gateway.admin).ask(&Request::new("GET", "/metrics"));
        let value =
            page.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Requests that it has got.
    fn requests(&self) -> u64 {
        self.metric("mcp_exchanges_total ")
    }
}

/// A gateway with these endpoints: one shard, so that it can be said exactly who gets what.
fn rig(endpoints: &[Endpoint], (scheme, path): (&str, &str), more: &str) -> Rig {
    let weight =
        |index| if more.contains("weighted") { 3 - 2 * usize::from(index != 0) } else { 1 };
    let urls: Vec<String> = (0..)
        .zip(endpoints)
        .map(|(index, it)| {
            let url = format!("{scheme}://127.0.0.1:{}{path}", it.port);
            match more.contains("weighted") {
                true => format!("{{ url = \"{url}\", weight = {} }}", weight(index)),
                false => format!("\"{url}\""),
            }
        })
        .collect();
    one_shard(&format!("[servers.far]\nendpoints = [{}]\n{more}\n", urls.join(", ")))
}

fn one_shard(config: &str) -> Rig {
    Rig::with(Dir::new(), config, |command| {
        *command = gateway_of_one(command);
    })
}

/// The same command with one shard.
fn gateway_of_one(command: &Command) -> Command {
    let mut changed = Command::new(command.get_program());
    let arguments = command.get_args().map(|it| it.to_str().unwrap());
    let mut is_count = false;
    for argument in arguments {
        changed.arg(if is_count { "1" } else { argument });
        is_count = argument == "--shards";
    }
    changed
}

const HTTP: (&str, &str) = ("http", "/mcp");

fn three() -> Vec<Endpoint> {
    (0..3).map(|_| Endpoint::start()).collect()
}

fn requests(endpoints: &[Endpoint]) -> Vec<u64> {
    endpoints.iter().map(Endpoint::requests).collect()
}

/// Opens a session on this connection.
fn open(mut wire: Wire) -> Session {
    let answer = wire.ask(&Request::post("/mcp", initialize("2025-11-25")));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let id = answer.get("mcp-session-id").to_owned();
    let mut session = Session { wire, path: "/mcp".to_owned(), id };
    let said = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(said.status(), 202);
    session
}

fn echo(session: &mut Session, text: &str) {
    assert_eq!(session.text("echo", &json!({ "text": text })), text);
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["gateway"].as_str().unwrap_or_default()
}

/// The endpoint that has got requests since then.
#[track_caller]
fn used_since(endpoints: &[Endpoint], before: &[u64]) -> usize {
    let after = requests(endpoints);
    let is_used = |index: &usize| before.get(*index) < after.get(*index);
    let used: Vec<usize> = (0..endpoints.len()).filter(is_used).collect();
    let [one] = used[..] else { panic!("{before:?} {after:?}") };
    one
}

fn modern(wire: &mut Wire, text: &str) {
    let body = modern_call("echo", &json!({ "text": text }).to_string());
    let answer = wire.ask(&Request::modern("/mcp", &body)).json();
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

#[test]
fn requests_without_a_session_are_shared_out() {
    let endpoints = three();
    for (balance, shares) in [
        ("", [10, 10, 10]),
        ("balance = \"weighted\"", [18, 6, 6]),
        ("balance = \"least_in_flight\"", [10, 10, 10]),
    ] {
        let rig = rig(&endpoints, HTTP, balance);
        let before = requests(&endpoints);
        let mut wire = rig.wire();
        (0..30).for_each(|number| modern(&mut wire, &format!("{number}")));
        let after = requests(&endpoints);
        let got: Vec<u64> =
            after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(got, shares, "{balance}");
        assert_eq!(rig.metric("mcp_endpoints_failed_over_total "), 0);
        rig.check();
    }
    // Those of one connection go together where a hash decides.
    let rig = rig(&endpoints, HTTP, "balance = \"consistent_hash\"");
    let before = requests(&endpoints);
    let mut wire = rig.wire();
    (0..10).for_each(|number| modern(&mut wire, &format!("{number}")));
    let used = used_since(&endpoints, &before);
    assert_eq!(endpoints[used].requests() - before[used], 10);
    rig.check();
}

#[test]
fn who_is_busy_gets_less() {
    let endpoints = three();
    let rig = rig(&endpoints, HTTP, "balance = \"least_in_flight\"");
    let mut waiting = rig.wire();
    let body = modern_call("sleep", r#"{"ms":60000}"#);
    waiting.send(Request::modern("/mcp", &body).bytes());
    let busy = until("it is busy", || {
        endpoints.iter().position(|it| it.metric("mcp_exchanges_in_flight ") != 0)
    });
    let before = requests(&endpoints);
    let mut wire = rig.wire();
    (0..10).for_each(|number| modern(&mut wire, &format!("{number}")));
    let after = requests(&endpoints);
    let got: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!((got[busy], got.iter().sum::<u64>()), (0, 10), "{got:?}");
}

#[test]
fn a_session_stays_where_it_began() {
    let endpoints = three();
    for (balance, is_even) in [("round_robin", true), ("consistent_hash", false)] {
        let rig = rig(&endpoints, HTTP, &format!("balance = \"{balance}\""));
        let opened = |it: &Endpoint| it.metric("mcp_sessions_opened_total ");
        let before: Vec<u64> = endpoints.iter().map(opened).collect();
        let mut sessions: Vec<Session> = (0..9).map(|_| open(rig.wire())).collect();
        let got: Vec<u64> =
            endpoints.iter().map(opened).zip(before).map(|(after, it)| after - it).collect();
        assert_eq!(got.iter().sum::<u64>(), 9);
        assert!(!is_even || got == [3, 3, 3], "{got:?}");
        for session in &mut sessions {
            let before = requests(&endpoints);
            (0..5).for_each(|number| echo(session, &format!("{number}")));
            let home = used_since(&endpoints, &before);
            assert_eq!(endpoints[home].requests() - before[home], 5);
            // So is its end.
            let live = endpoints[home].metric("mcp_sessions_open ");
            let delete = Request::new("DELETE", "/mcp").session(&session.id);
            assert_eq!(session.wire.ask(&delete).status(), 200);
            until("it has ended", || {
                (endpoints[home].metric("mcp_sessions_open ") == live - 1).then_some(())
            });
        }
        rig.check();
    }
}

#[test]
fn everything_of_a_session_goes_to_one_endpoint() {
    let recorders: Vec<Recorder> = (0..3).map(|_| Recorder::echo()).collect();
    let urls: Vec<String> = recorders.iter().map(|it| format!("{:?}", it.url())).collect();
    let rig = one_shard(&format!("[servers.far]\nendpoints = [{}]\n", urls.join(", ")));
    for _ in 0..6 {
        recorders.iter().for_each(Recorder::clear);
        let mut session = open(rig.wire());
        assert_eq!(session.call("any", &json!([1]))["result"]["echo"], json!([1]));
        // It does not want to be listened to, but it is asked.
        let get = Request::get("/mcp").session(&session.id);
        assert_eq!(session.wire.ask(&get).status(), 405);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        assert_eq!(session.post(progress).status(), 202);
        let delete = Request::new("DELETE", "/mcp").session(&session.id);
        assert_eq!(session.wire.ask(&delete).status(), 200);
        let seen = |it: &Recorder| {
            let seen = it.seen();
            seen.iter().map(|it| it.start.split(' ').next().unwrap().to_owned()).collect()
        };
        let all: Vec<String> = until("its end", || {
            let all: Vec<Vec<String>> = recorders.iter().map(seen).collect();
            let [one] = &all.iter().filter(|seen| !seen.is_empty()).collect::<Vec<_>>()[..] else {
                panic!("{all:?}");
            };
            (5 < one.len()).then(|| (*one).clone())
        });
        assert_eq!(all, ["POST", "POST", "POST", "GET", "POST", "DELETE"]);
    }
    recorders.iter().for_each(Recorder::check);
    rig.check();
}

#[test]
fn an_endpoint_that_is_gone_from_the_start_costs_nobody_anything_and_is_used_once_it_is_there() {
    let mut endpoints = vec![Endpoint::absent(), Endpoint::start(), Endpoint::start()];
    let mut rig = rig(&endpoints, HTTP, "");
    let mut wire = rig.wire();
    (0..20).for_each(|number| modern(&mut wire, &format!("{number}")));
    let mut session = open(rig.wire());
    echo(&mut session, "there");
    assert_eq!(requests(&endpoints).iter().sum::<u64>(), 22);
    assert_eq!(rig.metric("mcp_endpoints_failing "), 1);
    endpoints[0].come_back();
    until("it is found out", || {
        modern(&mut wire, "again");
        (rig.metric("mcp_endpoints_failing ") == 0).then_some(())
    });
    until("it is used", || {
        modern(&mut wire, "again");
        (4 < endpoints[0].requests()).then_some(())
    });
    let log = rig.log_with("connected again");
    let said: Vec<&Value> = log.iter().filter(|line| line["event"] == "endpoint").collect();
    let at = format!("127.0.0.1:{}", endpoints[0].port);
    assert!(said.iter().all(|it| it["at"] == at && it["endpoint"] == 1), "{said:?}");
    assert_eq!(said[0]["what"], "cannot be connected");
    let places = log.iter().filter(|line| line["event"] == "exchange" && line["endpoint"] == 2);
    assert!(places.count() > 3);
    rig.check();
}

#[test]
fn a_name_that_is_not_found_is_an_endpoint_that_is_gone() {
    let endpoint = Endpoint::start();
    let port = endpoint.port;
    for (balance, scheme) in [("round_robin", "http"), ("round_robin", "ws")] {
        let rig = one_shard(&format!(
            "[servers.far]\nendpoints = [\"{scheme}://nowhere.invalid/mcp\", \
             \"{scheme}://127.0.0.1:{port}/mcp\"]\nbalance = \"{balance}\"\n"
        ));
        for _ in 0..4 {
            echo(&mut open(rig.wire()), "found");
        }
        assert_eq!(rig.metric("mcp_endpoints_failing "), 1);
        rig.check();
    }
}

#[test]
fn a_session_moves_when_its_endpoint_is_gone() {
    let mut endpoints = three();
    let mut rig = rig(&endpoints, HTTP, "");
    let mut session = open(rig.wire());
    let before = requests(&endpoints);
    echo(&mut session, "here");
    let home = used_since(&endpoints, &before);
    let level = json!({"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel",
        "params": {"level": "error"}});
    assert_eq!(session.post(level.to_string()).status(), 200);
    let mut listener = session.listen(&rig);
    // What is in flight is answered at once, and never sent again.
    let mut waiting = rig.wire();
    waiting.send(session.request(call("sleep", &json!({"ms": 60_000}))).bytes());
    until("it is in flight", || {
        let name = "mcp_exchanges_in_flight ";
        (endpoints[home].metric(name) != 0).then_some(())
    });
    let start = Instant::now();
    endpoints[home].vanish();
    let answer = waiting.answer();
    assert!(answer.text().contains("server_died"), "{}", answer.text());
    assert!(start.elapsed() < Duration::from_secs(10));
    // The session goes on elsewhere, as if nothing had happened.
    let before = requests(&endpoints);
    echo(&mut session, "there");
    let next = used_since(&endpoints, &before);
    assert_ne!(next, home);
    // The call and the log level: `initialize` is counted there as well.
    assert_eq!(endpoints[next].requests() - before[next], 3);
    (0..5).for_each(|number| echo(&mut session, &format!("{number}")));
    assert_eq!(used_since(&endpoints, &before), next);
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 1);
    // Its client listens again, there.
    while listener.event().is_some() {}
    let _listener = session.listen(&rig);
    let delete = Request::new("DELETE", "/mcp").session(&session.id);
    assert_eq!(session.wire.ask(&delete).status(), 200);
    until("it has ended there", || {
        (endpoints[next].metric("mcp_sessions_open ") == 0).then_some(())
    });
    let log = rig.log_with("cannot be connected");
    assert!(log.iter().all(|line| !line.to_string().contains(&session.id)));
    rig.check();
}

#[test]
fn a_list_that_is_lost_with_its_endpoint_is_answered_by_another() {
    let mut endpoints = three();
    let rig = rig(&endpoints, HTTP, "");
    let mut sessions: Vec<Session> = (0..6).map(|_| open(rig.wire())).collect();
    endpoints[1].vanish();
    for session in &mut sessions {
        let list = r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#;
        let answer = session.post(list).json();
        assert!(answer["result"]["tools"].is_array(), "{answer}");
        echo(session, "fine");
    }
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 2);
    let mut wire = rig.wire();
    for _ in 0..6 {
        let list =
            format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{{{META}}}}}"#);
        let answer = wire.ask(&Request::modern("/mcp", &list)).json();
        assert!(answer["result"]["tools"].is_array(), "{answer}");
    }
    rig.check();
}

#[test]
fn a_session_that_would_lose_something_stays() {
    let mut endpoints = three();
    let rig = rig(&endpoints, HTTP, "");
    let mut session = open(rig.wire());
    let before = requests(&endpoints);
    // It has tasks, as far as the gateway knows.
    session.post(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/list"}"#);
    let home = used_since(&endpoints, &before);
    endpoints[home].vanish();
    until("it is known to be gone", || {
        let answer = session.call("echo", &json!({"text": "x"}));
        (reason(&answer) == "server_unreachable").then_some(())
    });
    assert_eq!(rig.metric("mcp_sessions_revived_total "), 0);
    assert_eq!(rig.metric("mcp_sessions_open "), 1);
    rig.check();
}

#[test]
fn when_all_are_gone_clients_are_told_and_sessions_wait() {
    let mut endpoints = three();
    let rig = rig(&endpoints, HTTP, "");
    let mut session = open(rig.wire());
    echo(&mut session, "here");
    endpoints.iter_mut().for_each(Endpoint::vanish);
    for _ in 0..5 {
        let answer = session.call("echo", &json!({"text": "x"}));
        let said = reason(&answer);
        assert!(["server_unreachable", "server_died"].contains(&said), "{answer}");
    }
    let body = modern_call("echo", r#"{"text":"x"}"#);
    let answer = rig.ask(&Request::modern("/mcp", &body));
    assert_eq!((answer.status(), reason(&answer.json())), (502, "server_unreachable"));
    assert_eq!(rig.metric("mcp_endpoints_failing "), 3);
    assert_eq!(rig.metric("mcp_sessions_open "), 1);
    endpoints[2].come_back();
    // The same session, at whatever endpoint there is.
    let answer = until("one is there", || {
        let answer = session.call("echo", &json!({"text": "back"}));
        (reason(&answer).is_empty()).then_some(answer)
    });
    assert_eq!(answer["result"]["content"][0]["text"], "back", "{answer}");
    rig.check();
}

#[test]
fn conversations_choose_an_endpoint_when_they_begin() {
    for (place, more) in [(("ws", "/mcp"), ""), (("http", "/sse"), "transport = \"sse\"")] {
        let mut endpoints = three();
        let rig = rig(&endpoints, place, more);
        let mut sessions: Vec<Session> = (0..6).map(|_| open(rig.wire())).collect();
        let opened: Vec<u64> =
            endpoints.iter().map(|it| it.metric("mcp_sessions_opened_total ")).collect();
        assert_eq!(opened, [2, 2, 2], "{place:?}");
        for session in &mut sessions {
            let before = requests(&endpoints);
            (0..4).for_each(|number| echo(session, &format!("{number}")));
            used_since(&endpoints, &before);
        }
        endpoints[0].vanish();
        for session in &mut sessions {
            // Some may learn only now that their connection is gone.
            until("it is elsewhere", || {
                let answer = session.call("echo", &json!({"text": "there"}));
                (answer["result"]["content"][0]["text"] == "there").then_some(())
            });
        }
        assert_eq!(rig.metric("mcp_sessions_revived_total "), 2, "{place:?}");
        rig.check();
    }
}

#[test]
fn conversations_begin_where_somebody_is() {
    for (place, more) in [(("ws", "/mcp"), ""), (("http", "/sse"), "transport = \"sse\"")] {
        for isolation in ["session", "shared"] {
            let mut endpoints = vec![Endpoint::absent(), Endpoint::start(), Endpoint::absent()];
            let more = format!("{more}\nisolation = \"{isolation}\"");
            let rig = rig(&endpoints, place, &more);
            for _ in 0..5 {
                echo(&mut open(rig.wire()), "there");
            }
            assert!(rig.metric("mcp_endpoints_failing ") <= 2);
            endpoints[1].vanish();
            let answer = until("nobody is there", || {
                let wire = rig.wire().ask(&Request::post("/mcp", initialize("2025-11-25")));
                (wire.status() != 200).then_some(wire)
            });
            assert_eq!(reason(&answer.json()), "server_unreachable");
            rig.check();
        }
    }
}

/// What `/readyz` and `check` say.
#[test]
fn the_operator_sees_how_many_there_are() {
    let rig = rig(&[Endpoint::absent(), Endpoint::absent()], HTTP, "");
    let admin: SocketAddr = rig.gateway.admin;
    let page = Wire::connect(admin).ask(&Request::new("GET", "/readyz")).json();
    assert_eq!(
        page["servers"],
        json!([{"name": "far", "kind": "http", "endpoints": 2, "missing": 0}])
    );
}
