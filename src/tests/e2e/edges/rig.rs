//! A gateway with a configuration file, and the shortest way to talk to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::http::{Message, Request, Wire};
use crate::support::{Gateway, gateway, until};

/// A directory that goes away.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-edges-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The lines of a file; none if there is no such file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read(self.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A gateway under test.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) dir: Dir,
}

impl Rig {
    /// A gateway with this configuration, which says nothing about shards, log and addresses.
    pub(crate) fn new(config: &str) -> Self {
        Self::with(Dir::new(), config, |_| {})
    }

    /// The same, in a directory that has files for it, with changes to the command.
    pub(crate) fn with(dir: Dir, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let path = dir.write("gateway.toml", config);
        let mut command = gateway("run");
        command.arg("--config").arg(path);
        change(&mut command);
        Self { gateway: Gateway::start(&mut command), dir }
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.gateway.addr)
    }

    /// Asks on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: &Request) -> Message {
        self.wire().ask(request)
    }

    /// A session of the newest legacy revision.
    #[track_caller]
    pub(crate) fn open(&self, server: &str) -> Session {
        self.open_as(server, "2025-11-25")
    }

    #[track_caller]
    pub(crate) fn open_as(&self, server: &str, version: &str) -> Session {
        let mut wire = self.wire();
        let path = format!("/mcp/{server}");
        let answer = wire.ask(&Request::post(&path, initialize(version)));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let session = Session { wire, path, id: answer.get("mcp-session-id").to_owned() };
        assert_eq!(session.id.len(), 32);
        let mut session = session;
        let said = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(said.status(), 202);
        session
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        metrics(self.gateway.admin)
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric(self.gateway.admin, name)
    }

    /// Waits until a metric has a value.
    pub(crate) fn until_metric(&self, name: &str, value: u64) {
        until(name, || (self.metric(name) == value).then_some(()));
    }

    /// Memory in use, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.gateway.process.pid().as_raw_pid());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Everything it logged, once `text` is in it.
    pub(crate) fn log_with(&mut self, text: &str) -> Vec<Value> {
        let process = &mut self.gateway.process;
        let log = until(text, || Some(process.output()).filter(|log| log.contains(text)));
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Nothing broke in it.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.metric("mcp_faults_total "), 0);
    }
}

fn metrics(admin: SocketAddr) -> String {
    Wire::connect(admin).ask(&Request::new("GET", "/metrics")).text().to_owned()
}

/// A metric of the gateway with that admin listener.
pub(crate) fn metric(admin: SocketAddr, name: &str) -> u64 {
    let page = metrics(admin);
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// A session on a connection of its own.
pub(crate) struct Session {
    pub(crate) wire: Wire,
    pub(crate) path: String,
    pub(crate) id: String,
}

impl Session {
    /// A POST in the session, to be changed and sent.
    pub(crate) fn request(&self, body: impl Into<Vec<u8>>) -> Request {
        Request::post(&self.path, body).session(&self.id)
    }

    #[track_caller]
    pub(crate) fn post(&mut self, body: impl Into<Vec<u8>>) -> Message {
        self.wire.ask(&self.request(body))
    }

    /// Calls a tool and returns the JSON-RPC answer.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.post(call(tool, arguments)).json()
    }

    /// Calls a tool that returns one text.
    #[track_caller]
    pub(crate) fn text(&mut self, tool: &str, arguments: &Value) -> String {
        let answer = self.call(tool, arguments);
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Listens, on another connection.
    #[track_caller]
    pub(crate) fn listen(&self, rig: &Rig) -> Wire {
        let mut wire = rig.wire();
        wire.send(Request::get(&self.path).session(&self.id).bytes());
        let head = wire.head();
        assert_eq!(head.status(), 200, "{head:?}");
        wire
    }
}

pub(crate) fn initialize(version: &str) -> String {
    json!({
        "jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
            "protocolVersion": version,
            "capabilities": { "elicitation": {}, "sampling": {}, "roots": {} },
            "clientInfo": { "name": "edges", "version": "1" },
        },
    })
    .to_string()
}

/// A legacy tool call with id 7.
pub(crate) fn call(tool: &str, arguments: &Value) -> String {
    json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
    .to_string()
}

/// The metadata that every request of 2026-07-28 has.
pub(crate) const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A modern tool call with these raw arguments.
pub(crate) fn modern_call(tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},{META}}}}}"#
    )
}

/// A server of the configuration: the built-in one.
pub(crate) fn demo() -> String {
    let program = env!("CARGO_BIN_EXE_mcp-gateway");
    format!("[servers.demo]\ncommand = [{program:?}, \"demo-server\"]\n")
}

/// A server of the configuration that is a URL.
pub(crate) fn http(name: &str, url: &str) -> String {
    format!("[servers.{name}]\nurl = {url:?}\n")
}

/// A server of the configuration that is a shell script with arguments.
pub(crate) fn script(name: &str, path: &Path, arguments: &[&str]) -> String {
    let mut text = format!("[servers.{name}]\ncommand = [\"/bin/sh\", {path:?}");
    for argument in arguments {
        // The strings of JSON are strings of TOML.
        write!(text, ", {}", json!(argument)).unwrap();
    }
    text.push_str("]\n");
    text
}
