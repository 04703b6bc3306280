//! The official conformance suite: the gateway costs a server no check of any revision.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Pair, script};
use crate::support::{Gateway, HttpServer, Process, peer, succeed};

/// Eight runs of the suite.
const PATIENCE: Duration = Duration::from_mins(10);

/// What our server scores alone: a bar that is not to sink.
const FULL: [&str; 2] = ["2025-11-25: raw 83/83", "2026-07-28: raw 197/197"];

/// A check that has no verdict if the answers to three requests come as JSON, which a server may
/// choose. The gateway does for a child process, since each answer is one message.
pub(super) const AS_JSON: &str = "server-sse-multiple-streams/server-sse-streams-functional:INFO";

#[test]
fn an_http_server_loses_nothing() {
    let server = HttpServer::fixture();
    let gateway = Gateway::run([&server.url]);
    judge(&server, &gateway, &[]);
}

#[test]
fn a_child_process_can_do_what_the_same_server_can_over_http() {
    let pair = Pair::fixture_over_stdio();
    judge(&HttpServer::fixture(), &pair.gateway, &["--allow", AS_JSON]);
}

#[test]
fn the_demo_can_do_everything() {
    // It is a child process as well.
    judge(&HttpServer::fixture(), &Gateway::demo(), &["--allow", AS_JSON]);
}

/// The canary: a server that lacks a tool is not the same server.
#[test]
fn a_check_that_gets_worse_is_noticed() {
    let (server, other) = (HttpServer::fixture(), HttpServer::everything());
    let mut suite = suite(&server, &other.url);
    suite.args(["--spec", "2025-11-25", "--scenario", "tools-call-image"]);
    let mut process = Process::start(suite.stdin(Stdio::null()));
    let status = process.end(PATIENCE);
    let output = process.output();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("! 2025-11-25 tools-call-image"), "{output}");
}

pub(super) fn judge(server: &HttpServer, gateway: &Gateway, options: &[&str]) {
    let output = succeed(suite(server, &gateway.url()).args(options), PATIENCE);
    for score in FULL {
        assert!(output.contains(score), "no `{score}` in:\n{output}");
    }
}

fn suite(server: &HttpServer, through: &str) -> Command {
    let mut suite = Command::new(peer("py1/bin/python"));
    suite.arg(script("conformance.py")).args(["--raw", &server.url, "--through", through]);
    suite
}
