//! Clients of four SDKs that start the gateway as their server, as people configure it.

use serde_json::json;

use super::entry_point;
use super::sdks::{Client, Modern, PYTHON, Server, TYPESCRIPT, run_with};
use crate::support::{HttpServer, example, node22, peer};

#[test]
fn typescript_clients_start_a_gateway_in_front_of_a_command() {
    everything(&TYPESCRIPT);
}

#[test]
fn python_clients_start_a_gateway_in_front_of_a_command() {
    everything(&PYTHON);
}

#[test]
fn typescript_clients_start_a_gateway_in_front_of_an_http_server() {
    fixture(&TYPESCRIPT);
}

#[test]
fn python_clients_start_a_gateway_in_front_of_an_http_server() {
    fixture(&PYTHON);
}

#[test]
fn typescript_clients_start_a_gateway_in_front_of_a_command_of_both_eras() {
    fixture_as_command(&TYPESCRIPT);
}

#[test]
fn python_clients_start_a_gateway_in_front_of_a_command_of_both_eras() {
    fixture_as_command(&PYTHON);
}

fn fixture_as_command(clients: &[Client]) {
    let server = example("conformance_server");
    for client in clients {
        check(&["--", server.to_str().unwrap(), "--stdio"], Server::Fixture, *client);
    }
}

fn everything(clients: &[Client]) {
    let server = peer("node_modules").join(entry_point("everything"));
    let (node, server) = (node22().get_program().to_owned(), server.to_str().unwrap().to_owned());
    let behind = ["--", node.to_str().unwrap(), &server, "stdio"];
    // It has no modern era.
    for client in clients.iter().filter(|(_, mode)| *mode != Modern) {
        check(&behind, Server::Everything, *client);
    }
}

fn fixture(clients: &[Client]) {
    for client in clients {
        let server = HttpServer::fixture();
        check(&[&server.url], Server::Fixture, *client);
    }
}

fn check(behind: &[&str], server: Server, client: Client) {
    let gateway = [&[env!("CARGO_BIN_EXE_mcp-gateway"), "stdio"], behind].concat();
    let gateway = json!(gateway).to_string();
    if let Err(output) = run_with(&["--command", &gateway], server, client) {
        panic!("{client:?} failed:\n{output}");
    }
}
