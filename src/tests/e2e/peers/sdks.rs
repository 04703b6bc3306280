//! The clients of four SDKs do everything that they can through the gateway, in each era.

use std::env::temp_dir;
use std::fs;
use std::process::{Command, Stdio, id};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Pair, entry_point, script};
use crate::support::{Gateway, HttpServer, Process, example, node22, peer};

/// One client with all its checks, which have time limits of their own.
const PATIENCE: Duration = Duration::from_mins(3);

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Legacy,
    /// Whatever the server does; the newer, if it does both.
    Auto,
    Modern,
}

pub(super) use Mode::{Auto, Legacy, Modern};

/// What is expected of the server; a key of `servers.json`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// Both eras.
    Fixture,
    /// Legacy only.
    Everything,
    /// The same, each among others.
    FixtureAmongOthers,
    EverythingAmongOthers,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Sdk {
    TypeScript1,
    /// By WebSocket.
    TypeScript1Socket,
    TypeScript2,
    Python1,
    /// By WebSocket.
    Python1Socket,
    Python2,
    Rust,
}

pub(super) type Client = (Sdk, Mode);

pub(super) const TYPESCRIPT: [Client; 4] = [
    (Sdk::TypeScript1, Legacy),
    (Sdk::TypeScript2, Legacy),
    (Sdk::TypeScript2, Auto),
    (Sdk::TypeScript2, Modern),
];
pub(super) const PYTHON: [Client; 4] =
    [(Sdk::Python1, Legacy), (Sdk::Python2, Legacy), (Sdk::Python2, Auto), (Sdk::Python2, Modern)];
pub(super) const RUST: [Client; 3] = [(Sdk::Rust, Legacy), (Sdk::Rust, Auto), (Sdk::Rust, Modern)];

const SOCKETS: [Client; 2] = [(Sdk::TypeScript1Socket, Legacy), (Sdk::Python1Socket, Legacy)];

#[test]
fn clients_by_websocket_use_an_http_server_of_both_eras() {
    check(fixture_over_http, Server::Fixture, &SOCKETS);
}

#[test]
fn clients_by_websocket_use_a_child_process_of_both_eras() {
    check(Pair::fixture_over_stdio, Server::Fixture, &SOCKETS);
}

#[test]
fn clients_by_websocket_use_a_legacy_http_server() {
    check(everything_over_http, Server::Everything, &SOCKETS);
}

#[test]
fn clients_by_websocket_use_a_legacy_child_process() {
    check(everything_over_stdio, Server::Everything, &SOCKETS);
}

#[test]
fn clients_by_websocket_use_servers_of_the_other_transports() {
    check(everything_over_sse, Server::Everything, &SOCKETS);
    check(Pair::fixture_over_websocket, Server::Fixture, &SOCKETS);
}

#[test]
fn clients_use_a_server_by_websocket() {
    let clients = [(Sdk::TypeScript1, Legacy), (Sdk::TypeScript2, Modern), (Sdk::Python2, Auto)];
    check(Pair::fixture_over_websocket, Server::Fixture, &clients);
}

#[test]
fn typescript_clients_use_an_http_server_of_both_eras() {
    check(fixture_over_http, Server::Fixture, &TYPESCRIPT);
}

#[test]
fn python_clients_use_an_http_server_of_both_eras() {
    check(fixture_over_http, Server::Fixture, &PYTHON);
}

#[test]
fn rust_clients_use_an_http_server_of_both_eras() {
    check(fixture_over_http, Server::Fixture, &RUST);
}

#[test]
fn typescript_clients_use_a_child_process_of_both_eras() {
    check(Pair::fixture_over_stdio, Server::Fixture, &TYPESCRIPT);
}

#[test]
fn python_clients_use_a_child_process_of_both_eras() {
    check(Pair::fixture_over_stdio, Server::Fixture, &PYTHON);
}

#[test]
fn rust_clients_use_a_child_process_of_both_eras() {
    check(Pair::fixture_over_stdio, Server::Fixture, &RUST);
}

#[test]
fn typescript_clients_use_a_legacy_http_server() {
    check(everything_over_http, Server::Everything, &TYPESCRIPT);
}

#[test]
fn python_clients_use_a_legacy_http_server() {
    check(everything_over_http, Server::Everything, &PYTHON);
}

#[test]
fn rust_clients_use_a_legacy_http_server() {
    check(everything_over_http, Server::Everything, &RUST);
}

#[test]
fn typescript_clients_use_a_legacy_child_process() {
    check(everything_over_stdio, Server::Everything, &TYPESCRIPT);
}

#[test]
fn python_clients_use_a_legacy_child_process() {
    check(everything_over_stdio, Server::Everything, &PYTHON);
}

#[test]
fn rust_clients_use_a_legacy_child_process() {
    check(everything_over_stdio, Server::Everything, &RUST);
}

/// 2024-11-05: a stream for what the server says, a POST for each message of the client.
#[test]
fn clients_of_http_and_sse_use_child_processes() {
    for (start, server) in [
        (everything_over_stdio as fn() -> Pair, Server::Everything),
        (Pair::fixture_over_stdio, Server::Fixture),
    ] {
        check_sse(start, server);
    }
}

#[test]
fn clients_of_http_and_sse_use_an_http_server() {
    check_sse(fixture_over_http, Server::Fixture);
}

#[test]
fn clients_of_http_and_sse_use_servers_of_the_other_transports() {
    check_sse(everything_over_sse, Server::Everything);
    check_sse(Pair::fixture_over_websocket, Server::Fixture);
}

fn check_sse(start: impl Fn() -> Pair, server: Server) {
    for sdk in [Sdk::TypeScript1, Sdk::Python1, Sdk::Python2] {
        let pair = start();
        let url = format!("http://{}/sse", pair.gateway.addr);
        if let Err(output) = run_with(&[&url], server, (sdk, Legacy)) {
            panic!("{sdk:?} failed:\n{output}");
        }
    }
}

/// The same transport at the other end.
#[test]
fn clients_use_a_server_of_http_and_sse() {
    check(everything_over_sse, Server::Everything, &TYPESCRIPT);
    check(everything_over_sse, Server::Everything, &PYTHON);
}

fn everything_over_sse() -> Pair {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let server = HttpServer::everything_over_sse();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = temp_dir().join(format!("mcp-e2e-{}-sse-{number}.json", id()));
    let text =
        format!(r#"{{"mcpServers": {{"old": {{"type": "sse", "url": "{}"}}}}}}"#, server.url);
    fs::write(&file, text).unwrap();
    let gateway = Gateway::run(["--mcp-json".as_ref(), &*file]);
    fs::remove_file(file).unwrap();
    Pair { gateway, _server: Some(server), _near: None, _scratch: None }
}

/// The gateway does not translate between the eras: a modern client that does not fall back is
/// told so by its own SDK, by the server, or by the gateway in place of a child process.
#[test]
fn a_client_that_insists_on_the_modern_era_learns_that_the_server_has_none() {
    let http = everything_over_http();
    let stdio = everything_over_stdio();
    for (pair, answer) in [
        (&http, "Bad Request: Server not initialized"),
        (&stdio, "This server knows only the initialize handshake."),
    ] {
        for (sdk, text) in [
            (Sdk::TypeScript2, "the server did not offer pinned protocol version 2026-07-28"),
            // Its pin asks nobody: the first request fails.
            (Sdk::Python2, answer),
            (Sdk::Rust, answer),
        ] {
            let output = run(&pair.gateway, Server::Everything, (sdk, Modern)).unwrap_err();
            assert!(output.contains(text), "{sdk:?}: no `{text}` in:\n{output}");
        }
    }
}

fn fixture_over_http() -> Pair {
    Pair::over_http(HttpServer::fixture())
}

fn everything_over_http() -> Pair {
    Pair::over_http(HttpServer::everything())
}

fn everything_over_stdio() -> Pair {
    let node = node22();
    let server = peer("node_modules").join(entry_point("everything"));
    let command = ["--".as_ref(), node.get_program(), server.as_os_str(), "stdio".as_ref()];
    Pair { gateway: Gateway::run(command), _server: None, _near: None, _scratch: None }
}

/// Runs the clients that need an era that the server has, one after the other. Each gets a server
/// of its own: a process that serves all stateless requests keeps its logs to itself as long as
/// they may belong to a request that was cancelled.
pub(super) fn check(start: impl Fn() -> Pair, server: Server, clients: &[Client]) {
    for client in clients {
        if let (Server::Everything, (_, Modern)) = (server, client) {
            continue;
        }
        if let Err(output) = run(&start().gateway, server, *client) {
            panic!("{client:?} failed:\n{output}");
        }
    }
}

/// Runs one client; what it printed, as an error if it failed.
fn run(gateway: &Gateway, server: Server, client: Client) -> Result<String, String> {
    let url = match client.0 {
        Sdk::TypeScript1Socket | Sdk::Python1Socket => gateway.url().replacen("http", "ws", 1),
        _ => gateway.url(),
    };
    run_with(&[&url], server, client)
}

/// The same, with the arguments that lead to the gateway.
pub(super) fn run_with(
    gateway: &[&str],
    server: Server,
    (sdk, mode): Client,
) -> Result<String, String> {
    let mut command = match sdk {
        Sdk::TypeScript1 | Sdk::TypeScript1Socket => interpreted(node22(), "ts_v1.mjs"),
        Sdk::TypeScript2 => interpreted(node22(), "ts_v2.mjs"),
        Sdk::Python1 | Sdk::Python1Socket => {
            interpreted(Command::new(peer("py1/bin/python")), "py1.py")
        }
        Sdk::Python2 => interpreted(Command::new(peer("py2/bin/python")), "py2.py"),
        Sdk::Rust => Command::new(example("rust_client")),
    };
    let server = match server {
        Server::Fixture => "fixture",
        Server::Everything => "everything",
        Server::FixtureAmongOthers => "fixture-among-others",
        Server::EverythingAmongOthers => "everything-among-others",
    };
    let mode = match mode {
        Legacy => "legacy",
        Auto => "auto",
        Modern => "modern",
    };
    command.args(gateway).args(["--server", server, "--mode", mode]);
    let mut process = Process::start(command.stdin(Stdio::null()));
    let status = process.end(PATIENCE);
    if status.success() { Ok(process.output()) } else { Err(process.output()) }
}

fn interpreted(mut interpreter: Command, name: &str) -> Command {
    interpreter.arg(script(name));
    interpreter
}
