//! Official servers side by side, and one that is dead: at `/mcp` they are one server, which the
//! clients of all SDKs and the official suite cannot tell from a server alone.

use std::path::Path;

use serde_json::{Value, json};

use super::conformance::{AS_JSON, judge};
use super::sdks::{Auto, Client, Legacy, PYTHON, RUST, Sdk, Server, TYPESCRIPT, check, run_with};
use super::servers::{Scratch, call, node_and_server};
use super::{Pair, entry_point};
use crate::support::{Gateway, HttpServer, peer};

/// `[servers.NAME]` for a command.
fn command(name: &str, words: &[&Path]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[servers.{name}]\ncommand = [{}]\n", words.join(", "))
}

/// A gateway with servers side by side, of which two are dead.
struct Federation {
    gateway: Gateway,
    scratch: Scratch,
    _server: Option<HttpServer>,
}

impl Federation {
    fn new(scratch: Scratch, servers: &str, server: Option<HttpServer>) -> Self {
        // Nobody listens on port 9 of this machine.
        let dead = "[servers.dead]\nurl = \"http://127.0.0.1:9/mcp\"\n\
                    [servers.missing]\ncommand = [\"/nonexistent\"]\n";
        let file = scratch.0.join("gateway.toml");
        std::fs::write(&file, format!("{servers}{dead}")).unwrap();
        let gateway = Gateway::run(["--config".as_ref(), &*file]);
        Self { gateway, scratch, _server: server }
    }

    /// The official servers for everything (with these keys), files and memory.
    fn of_everything(name: &str, keys: &str) -> Self {
        let scratch = Scratch::new(name);
        let everything = peer("node_modules").join(entry_point("everything"));
        let (node, files) = node_and_server("filesystem");
        let (_, memory) = node_and_server("memory");
        let stored = scratch.0.join("memory.json");
        let servers = [
            command("everything", &[&node, &everything, Path::new("stdio")]),
            keys.to_owned(),
            command("files", &[&node, &files, &scratch.0]),
            command("memory", &[&node, &memory]),
            format!("env = {{ MEMORY_FILE_PATH = {stored:?} }}\n"),
        ];
        Self::new(scratch, &servers.concat(), None)
    }

    /// Our own server on the official SDK, over HTTP and without a prefix, and the demo without
    /// tools: both speak both eras.
    fn of_fixture(name: &str) -> Self {
        let server = HttpServer::fixture();
        let demo = [Path::new(env!("CARGO_BIN_EXE_mcp-gateway")), Path::new("demo-server")];
        let servers = [
            format!("[servers.fixture]\nurl = {:?}\nprefix = false\n", server.url),
            command("demo", &demo),
            "tools = { deny = [\"*\"] }\n".to_owned(),
        ];
        Self::new(Scratch::new(name), &servers.concat(), Some(server))
    }

    fn into_pair(self) -> Pair {
        let Self { gateway, _server, scratch } = self;
        Pair { gateway, _server, _near: None, _scratch: Some(scratch) }
    }
}

#[test]
fn three_real_servers_and_two_dead_ones_are_one_server() {
    let it = Federation::of_everything("federation", "");
    let note = it.scratch.0.join("note.txt");
    let ada = json!({ "name": "Ada", "entityType": "person", "observations": ["wrote a program"] });
    let steps: Value = json!([
        { "tool": "everything__echo", "arguments": { "message": "hi" }, "text": "Echo: hi" },
        {
            "tool": "files__write_file",
            "arguments": { "path": note, "content": "ünïcödé" },
            "text": "note.txt",
        },
        { "tool": "files__read_text_file", "arguments": { "path": note }, "text": "ünïcödé" },
        { "tool": "memory__create_entities", "arguments": { "entities": [ada] }, "text": "Ada" },
        { "tool": "memory__search_nodes", "arguments": { "query": "program" }, "text": "person" },
        { "tool": "everything__get-sum", "arguments": { "a": 19, "b": 23 }, "text": "42" },
    ]);
    call(&it.gateway.url(), &steps);
    // Each is still itself, under its own names.
    let own = json!([{ "tool": "echo", "arguments": { "message": "hi" }, "text": "Echo: hi" }]);
    call(&it.gateway.url_of("everything"), &own);
}

/// Every check of every client, through the union of all.
fn everything_among_others() -> Pair {
    Federation::of_everything("among-others", "prefix = false\n").into_pair()
}

fn fixture_among_others() -> Pair {
    Federation::of_fixture("fixture-among-others").into_pair()
}

const LEGACY: [Client; 5] = [
    (Sdk::TypeScript1, Legacy),
    (Sdk::TypeScript1Socket, Legacy),
    (Sdk::TypeScript2, Legacy),
    (Sdk::Python1, Legacy),
    (Sdk::Rust, Legacy),
];

#[test]
fn legacy_clients_use_everything_among_others() {
    check(everything_among_others, Server::EverythingAmongOthers, &LEGACY);
}

#[test]
fn typescript_clients_use_a_server_of_both_eras_among_others() {
    check(fixture_among_others, Server::FixtureAmongOthers, &TYPESCRIPT);
}

#[test]
fn python_clients_use_a_server_of_both_eras_among_others() {
    check(fixture_among_others, Server::FixtureAmongOthers, &PYTHON);
}

#[test]
fn rust_clients_use_a_server_of_both_eras_among_others() {
    check(fixture_among_others, Server::FixtureAmongOthers, &RUST);
}

#[test]
fn a_client_of_http_and_sse_uses_everything_among_others() {
    let pair = everything_among_others();
    let url = format!("http://{}/sse", pair.gateway.addr);
    if let Err(output) = run_with(&[&url], Server::EverythingAmongOthers, (Sdk::TypeScript1, Auto))
    {
        panic!("{output}");
    }
}

/// The official suite finds nothing missing in a server among others.
#[test]
fn a_federation_is_conformant() {
    let it = Federation::of_fixture("conformance");
    judge(&HttpServer::fixture(), &it.gateway, &["--allow", AS_JSON]);
}
