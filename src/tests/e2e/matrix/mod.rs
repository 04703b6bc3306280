//! The matrix: every transport of clients meets every transport of servers, and each pair lives
//! through the same script.
//!
//! ```text
//!  client ══ A CLIENT'S TRANSPORT ══ gateway under test ══ A SERVER'S TRANSPORT ══ demo server
//! ```
//!
//! A cell is a client, a server and nothing else; or a client of all servers as one, which calls
//! the tools of one of them. What a revision makes impossible is a row of
//! [`IMPOSSIBLE`], which says why, and what is refused instead. A further transport is a row of
//! [`CLIENTS`] or [`servers::SERVERS`].

mod clients;
mod script;
mod servers;
mod talker;

use std::panic::{AssertUnwindSafe, catch_unwind};

use clients::{Client, LegacyHttp, Lines, ModernHttp, Sse, Tcp, WebSocket};
use script::{Cell, STEPS, Step};
use serde_json::json;
use servers::{SERVERS, Server, Servers};
use talker::Talker;

/// The newest revision with sessions.
const NEWEST_LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// A kind of client: what it speaks, and over what.
struct Kind {
    name: &'static str,
    revision: &'static str,
    /// At `/NAME`, or at nothing, where all servers are one.
    connect: fn(&Servers, &str) -> Box<dyn Client>,
}

impl Kind {
    fn is_modern(&self) -> bool {
        self.revision == MODERN
    }

    /// Whether a server may ask its user: since 2025-06-18.
    fn has_elicitation(&self) -> bool {
        "2025-06-18" <= self.revision
    }

    /// How many streams the gateway keeps from an HTTP+SSE server when all clients have left: one
    /// at each shard, for requests of no session.
    fn streams_kept(&self, servers: &[Server]) -> u64 {
        let has_sse = servers.iter().any(|server| server.name == "sse");
        if self.is_modern() && has_sse { 2 } else { 0 }
    }
}

/// A step that cannot be.
struct Impossible {
    step: &'static str,
    is_so: fn(&Kind) -> bool,
    why: &'static str,
    /// What is refused, and how.
    refused: fn(&mut Talker),
}

const IMPOSSIBLE: &[Impossible] = &[
    Impossible {
        step: "elicitation",
        is_so: |kind| !kind.has_elicitation(),
        why: "HTTP+SSE ended with 2024-11-05, and elicitation came with 2025-06-18",
        refused: |talker| {
            let answer = talker.call("1", "ask", &json!({"message": "Who?"}));
            assert_eq!(answer["result"]["isError"], true, "{answer}");
            assert!(answer.to_string().contains("did not declare"), "{answer}");
        },
    },
    Impossible {
        step: "session",
        is_so: Kind::is_modern,
        why: "2026-07-28 has no sessions, nor what only they had",
        refused: |talker| {
            for (method, params) in [
                ("ping", json!({})),
                ("logging/setLevel", json!({"level": "debug"})),
                ("resources/subscribe", json!({"uri": "demo://counter"})),
                ("initialize", json!({"protocolVersion": MODERN, "capabilities": {}})),
            ] {
                let answer = talker.ask("1", method, params);
                assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
            }
        },
    },
    Impossible {
        step: "forged answers",
        is_so: Kind::is_modern,
        why: "servers of 2026-07-28 ask nothing by themselves: their questions are results",
        refused: |talker| {
            for id in ["0", "1", "\"1\""] {
                talker.client.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
            }
            let answer = talker.call("1", "echo", &json!({"text": "next"}));
            assert_eq!(answer["result"]["content"][0]["text"], "next", "{answer}");
        },
    },
    Impossible {
        step: "discovery",
        is_so: |kind| !kind.is_modern(),
        why: "server/discover and subscriptions/listen came with 2026-07-28",
        refused: |talker| {
            for method in ["server/discover", "subscriptions/listen"] {
                let answer = talker.ask("1", method, json!({"notifications": {}}));
                assert!(answer["error"].is_object(), "{method}: {answer}");
            }
        },
    },
];

static HTTP: Kind =
    Kind { name: "Streamable HTTP, legacy", revision: NEWEST_LEGACY, connect: LegacyHttp::connect };
static MODERN_HTTP: Kind =
    Kind { name: "Streamable HTTP, modern", revision: MODERN, connect: ModernHttp::connect };
/// Without a modern kind: 2024-11-05 was the last revision with this transport. (The gateway takes
/// stateless requests there all the same, and sends them by it: `edges::sse`, `servers::SERVERS`.)
static SSE: Kind = Kind { name: "HTTP+SSE", revision: "2024-11-05", connect: Sse::connect };
/// As the SDKs speak it today.
static NEWER_SSE: Kind =
    Kind { name: "HTTP+SSE, newer revision", revision: NEWEST_LEGACY, connect: Sse::connect };
static WEBSOCKET: Kind =
    Kind { name: "WebSocket", revision: NEWEST_LEGACY, connect: WebSocket::connect };
static MODERN_WEBSOCKET: Kind =
    Kind { name: "WebSocket, modern", revision: MODERN, connect: WebSocket::connect };
static TCP: Kind = Kind { name: "TCP", revision: NEWEST_LEGACY, connect: Tcp::connect };
static MODERN_TCP: Kind = Kind { name: "TCP, modern", revision: MODERN, connect: Tcp::connect };
static STDIO: Kind = Kind { name: "stdio", revision: NEWEST_LEGACY, connect: Lines::connect };
static MODERN_STDIO: Kind =
    Kind { name: "stdio, modern", revision: MODERN, connect: Lines::connect };

#[test]
fn http_clients_have_everything_with_every_server() {
    check(&HTTP);
}

#[test]
fn modern_http_clients_have_everything_with_every_server() {
    check(&MODERN_HTTP);
}

#[test]
fn sse_clients_have_everything_with_every_server() {
    check(&SSE);
}

#[test]
fn sse_clients_of_a_newer_revision_have_everything_with_every_server() {
    check(&NEWER_SSE);
}

#[test]
fn websocket_clients_have_everything_with_every_server() {
    check(&WEBSOCKET);
}

#[test]
fn modern_websocket_clients_have_everything_with_every_server() {
    check(&MODERN_WEBSOCKET);
}

#[test]
fn tcp_clients_have_everything_with_every_server() {
    check(&TCP);
}

#[test]
fn modern_tcp_clients_have_everything_with_every_server() {
    check(&MODERN_TCP);
}

#[test]
fn stdio_clients_have_everything_with_every_server() {
    check(&STDIO);
}

#[test]
fn modern_stdio_clients_have_everything_with_every_server() {
    check(&MODERN_STDIO);
}

#[test]
fn http_clients_have_everything_with_all_servers_as_one() {
    check_united(&HTTP);
}

#[test]
fn modern_http_clients_have_everything_with_all_servers_as_one() {
    check_united(&MODERN_HTTP);
}

#[test]
fn websocket_clients_have_everything_with_all_servers_as_one() {
    check_united(&WEBSOCKET);
}

#[test]
fn tcp_clients_have_everything_with_all_servers_as_one() {
    check_united(&TCP);
}

#[test]
fn sse_clients_have_everything_with_all_servers_as_one() {
    check_united(&SSE);
}

#[test]
fn sse_clients_of_a_newer_revision_have_everything_with_all_servers_as_one() {
    check_united(&NEWER_SSE);
}

#[test]
fn modern_websocket_clients_have_everything_with_all_servers_as_one() {
    check_united(&MODERN_WEBSOCKET);
}

#[test]
fn modern_tcp_clients_have_everything_with_all_servers_as_one() {
    check_united(&MODERN_TCP);
}

#[test]
fn stdio_clients_have_everything_with_all_servers_as_one() {
    check_united(&STDIO);
}

#[test]
fn modern_stdio_clients_have_everything_with_all_servers_as_one() {
    check_united(&MODERN_STDIO);
}

/// Without a translation between the eras, they are told so.
#[test]
fn a_legacy_server_has_nothing_for_modern_clients_and_everything_for_others() {
    let servers = Servers::start();
    let modern = [&MODERN_HTTP, &MODERN_WEBSOCKET, &MODERN_TCP, &MODERN_STDIO];
    for kind in [&HTTP, &NEWER_SSE, &WEBSOCKET, &TCP, &STDIO].into_iter().chain(modern) {
        for server in SERVERS {
            let cell = format!("{} × {}", kind.name, server.name);
            let is_fine = catch_unwind(AssertUnwindSafe(|| {
                let mut talker = Talker::connect(kind, &servers, &format!("{}-old", server.name));
                if !kind.is_modern() {
                    talker.open();
                }
                let answer = talker.call("\"old\"", "any", &json!({}));
                if kind.is_modern() {
                    assert_eq!(answer["error"]["data"]["gateway"], "legacy_server", "{answer}");
                } else {
                    assert_eq!(answer["result"]["content"][0]["text"], "old", "{answer}");
                }
                talker.client.leave();
            }));
            assert!(is_fine.is_ok(), "{cell}: see above");
        }
    }
    servers.check(0);
}

/// Runs the script with every server, and tells of all cells that failed.
fn check(kind: &'static Kind) {
    run(kind, Servers::start, |kind, server, servers| Cell::connect(kind, server, servers));
}

/// The same where the servers are one, with the tools of each in turn.
fn check_united(kind: &'static Kind) {
    run(kind, Servers::united, |kind, server, servers| Cell::united(kind, server, servers));
}

type Connect = for<'a> fn(&'static Kind, &'static Server, &'a mut Servers) -> Cell<'a>;

fn run(kind: &'static Kind, start: fn() -> Servers, connect: Connect) {
    let mut failed = Vec::new();
    for server in SERVERS {
        let name = format!("{} × {}", kind.name, server.name);
        // The next cell is not to blame for this one. And a server that several share is not
        // believed for a while which request a log message is for, when one was given up.
        let mut servers = start();
        let mut step = "connect";
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut cell = connect(kind, server, &mut servers);
            for Step { name: name_of_step, run } in STEPS {
                step = name_of_step;
                let is_so = |row: &&Impossible| row.step == step && (row.is_so)(kind);
                if let Some(row) = IMPOSSIBLE.iter().find(is_so) {
                    eprintln!("{name}: {step} is impossible: {}", row.why);
                    cell.both().into_iter().for_each(row.refused);
                } else {
                    run(&mut cell);
                }
            }
            step = "leave";
            let streams_kept = kind.streams_kept(cell.reached());
            cell.leave();
            servers.check(streams_kept);
        }));
        if let Err(why) = outcome {
            let why = why.downcast_ref::<String>().map(String::as_str);
            failed.push(format!("{name}: {step}: {}", why.unwrap_or("see above")));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
