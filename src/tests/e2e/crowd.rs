//! A thousand sessions at once, their ids colliding on purpose: no mix-up, and nothing is left.
//! `loadtest sessions` does the work and the counting; these tests run it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::succeed;

/// `loadtest sessions` in front of our gateway.
fn sessions() -> Command {
    let gateway = Path::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    let loadtest = gateway.with_file_name("loadtest");
    assert!(loadtest.exists(), "{} is missing: run `cargo build --workspace`", loadtest.display());
    let mut command = Command::new(loadtest);
    command.args(["sessions", "--gateway"]).arg(gateway);
    command
}

#[test]
fn a_thousand_sessions_over_http() {
    succeed(&mut sessions(), Duration::from_secs(300));
}

#[test]
fn a_thousand_sessions_share_a_process() {
    let mut command = sessions();
    command.args(["--slow-sessions", "30", "--", env!("CARGO_BIN_EXE_mcp-gateway")]);
    succeed(command.arg("demo-server"), Duration::from_secs(300));
}

#[test]
fn fifty_sessions_with_a_process_each() {
    let mut command = sessions();
    command.args(["--sessions", "50", "--isolation", "session", "--"]);
    succeed(
        command.arg(env!("CARGO_BIN_EXE_mcp-gateway")).arg("demo-server"),
        Duration::from_secs(300),
    );
}
