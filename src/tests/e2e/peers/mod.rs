//! Other people's software around the gateway: the official suite, SDK clients, official servers.
//!
//! The programs that judge are in `src/tests/peers`; each says in its first lines what it does.
//! They print `ok` or `FAILED` for each step, and a test that fails shows what they printed.

mod conformance;
mod federation;
mod sdks;
mod servers;
mod stdio;

use std::path::PathBuf;

use servers::Scratch;

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
    /// What stands between the two, if anything does.
    _near: Option<Gateway>,
    /// Where its servers keep what they keep.
    _scratch: Option<Scratch>,
}

impl Pair {
    fn over_http(server: HttpServer) -> Self {
        Self {
            gateway: Gateway::run([&server.url]),
            _server: Some(server),
            _near: None,
            _scratch: None,
        }
    }

    /// Our own server on the official SDK, by WebSocket: another gateway sees to that.
    fn fixture_over_websocket() -> Self {
        let near = Self::fixture_over_stdio().gateway;
        let gateway = Gateway::run([near.url().replacen("http", "ws", 1)]);
        Self { gateway, _server: None, _near: Some(near), _scratch: None }
    }

    /// Our own server on the official SDK, as a child process.
    fn fixture_over_stdio() -> Self {
        let server = example("conformance_server");
        let gateway = Gateway::run(["--".as_ref(), server.as_os_str(), "--stdio".as_ref()]);
        Self { gateway, _server: None, _near: None, _scratch: None }
    }
}
