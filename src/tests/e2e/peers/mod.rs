//! Other people's software around the gateway: the official suite, SDK clients, official servers.
//!
//! The programs that judge are in `src/tests/peers`; each says in its first lines what it does.
//! They print `ok` or `FAILED` for each step, and a test that fails shows what they printed.

mod conformance;
mod sdks;
mod servers;
mod stdio;

use std::path::PathBuf;

use crate::support::{Gateway, HttpServer, example, root};

/// The entry point of an official server.
fn entry_point(server: &str) -> String {
    format!("@modelcontextprotocol/server-{server}/dist/index.js")
}

/// A script that judges.
fn script(name: &str) -> PathBuf {
    root().join("src/tests/peers").join(name)
}

/// A gateway in front of a server.
struct Pair {
    gateway: Gateway,
    /// Unless the server is a child process of the gateway.
    _server: Option<HttpServer>,
}

impl Pair {
    fn over_http(server: HttpServer) -> Self {
        Self { gateway: Gateway::run([&server.url]), _server: Some(server) }
    }

    /// Our own server on the official SDK, as a child process.
    fn fixture_over_stdio() -> Self {
        let server = example("conformance_server");
        let gateway = Gateway::run(["--".as_ref(), server.as_os_str(), "--stdio".as_ref()]);
        Self { gateway, _server: None }
    }
}
