//! Official servers as child processes: what people put into the configuration of their clients.

use std::env::temp_dir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{entry_point, script};
use crate::support::{Gateway, PATIENCE, node22, peer, succeed};

#[test]
fn the_filesystem_server_runs_as_a_command() {
    let scratch = Scratch::new("filesystem");
    let (node, server) = node_and_server("filesystem");
    let gateway = Gateway::run(["--".as_ref(), &*node, &*server, &*scratch.0]);
    use_files(&gateway.url(), &scratch.0);
}

#[test]
fn the_memory_server_runs_as_a_command() {
    let (node, server) = node_and_server("memory");
    // Without an environment of its own it keeps its memory beside its code.
    let gateway = Gateway::run(["--".as_ref(), &*node, &*server]);
    call(&gateway.url(), &json!([{ "tool": "read_graph", "arguments": {}, "text": "entities" }]));
}

#[test]
fn the_servers_of_a_client_are_side_by_side() {
    let scratch = Scratch::new("mcp-json");
    let (node, filesystem) = node_and_server("filesystem");
    let (_, memory) = node_and_server("memory");
    let servers = json!({
        "mcpServers": {
            "files": { "command": node, "args": [filesystem, scratch.0] },
            "memory": {
                "command": node,
                "args": [memory],
                "env": { "MEMORY_FILE_PATH": scratch.0.join("memory.json") },
            },
        },
    });
    let file = scratch.0.join("mcp.json");
    fs::write(&file, servers.to_string()).unwrap();
    let gateway = Gateway::run(["--mcp-json".as_ref(), &*file]);
    use_files(&gateway.url_of("files"), &scratch.0);
    use_memory(&gateway.url_of("memory"));
    assert!(fs::read_to_string(scratch.0.join("memory.json")).unwrap().contains("Ada"));
}

/// What a client does with files, in a directory that the server may use.
fn use_files(url: &str, directory: &Path) {
    let file = directory.join("note.txt");
    let content = "a line\nand ünïcödé \u{1f980}\n";
    call(
        url,
        &json!([
            { "tool": "list_allowed_directories", "arguments": {}, "text": directory },
            {
                "tool": "write_file",
                "arguments": { "path": file, "content": content },
                "text": "note.txt",
            },
            { "tool": "read_text_file", "arguments": { "path": file }, "text": content },
            { "tool": "list_directory", "arguments": { "path": directory }, "text": "note.txt" },
            {
                "tool": "read_text_file",
                "arguments": { "path": "/etc/passwd" },
                "text": "Access denied",
                "fails": true,
            },
        ]),
    );
    assert_eq!(fs::read_to_string(file).unwrap(), content);
}

/// What two clients do with a memory that outlives their sessions.
fn use_memory(url: &str) {
    let ada = json!({ "name": "Ada", "entityType": "person", "observations": ["wrote a program"] });
    let create = json!({ "entities": [ada] });
    call(url, &json!([{ "tool": "create_entities", "arguments": create, "text": "Ada" }]));
    let search = json!({ "query": "program" });
    call(url, &json!([{ "tool": "search_nodes", "arguments": search, "text": "person" }]));
}

/// Makes these calls in one session.
pub(super) fn call(url: &str, steps: &Value) {
    let mut client = node22();
    succeed(client.arg(script("calls.mjs")).arg(url).arg(steps.to_string()), PATIENCE);
}

pub(super) fn node_and_server(name: &str) -> (PathBuf, PathBuf) {
    (node22().get_program().into(), peer("node_modules").join(entry_point(name)))
}

/// A directory that is removed with this value.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        // Servers compare paths without symbolic links.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-e2e-{}-{number}-{name}", id());
        let path = temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}
