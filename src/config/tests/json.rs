//! The JSON of clients.

use super::*;

#[test]
fn the_servers_of_clients_are_understood() {
    let text = r#"{
        "globalShortcut": "x",
        "mcpServers": {
            "z": { "command": "npx", "args": ["-y", "p"], "env": {"A": "${TOKEN}"}, "cwd": "/" },
            "off": { "type": "sse", "disabled": true },
            "a": { "type": "http", "url": "https://h/mcp", "headers": {"X": "y"} },
            "b": { "type": "streamable-http", "url": "https://h/mcp", "disabled": false },
            "c": { "type": "stdio", "command": "x" },
            "d": { "type": "sse", "url": "https://h/sse" },
            "e": { "type": "ws", "url": "wss://h/mcp" }
        }
    }"#;
    let config = load_text(text, true, &Overrides::default()).unwrap();
    let names: Vec<&str> =
        config.catalog.servers().map(|(_, server)| server.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "b", "c", "d", "e"]);
    assert_eq!(command(&config, 0).args, ["-y", "p"]);
    assert_eq!(command(&config, 0).env[0].1.reveal(), SECRET);
    assert_eq!(endpoint(&config, 1).headers.len(), 1);
    assert!(matches!(target(&config, 4), Target::Http(Transport::Sse, _)));
    assert!(matches!(target(&config, 5), Target::WebSocket(_)));
    assert_eq!(config.warnings, []);
}

#[test]
fn what_is_no_file_of_a_client() {
    let script = r#"
        > {
        1:1: not valid JSON: EOF while parsing an object
        > { "mcpServers":
        >   s3cr3t }
        2:3: not valid JSON: expected value
        > []
        1:1: must be an object with `mcpServers`, not a list
        > {"servers": {}}
        1:1: mcpServers: there are no servers
        > {"mcpServers": []}
        1:16: mcpServers: must be an object with a server under each name, not a list
        > {"mcpServers": {}}
        1:16: mcpServers: there is no server
        > {"mcpServers": {"a b": {"url": "https://x"}}}
        1:24: mcpServers."a b": must be named with 1 to 64 letters
    "#;
    run(script, str::to_owned, true);
    let loaded = load_text("", true, &Overrides::default());
    expect(loaded, "1:1: not valid JSON: EOF while parsing a value", "nothing");
}

/// A script of entries, which begin at the fifth column.
#[track_caller]
fn check_entry(script: &str) {
    run(script, |entry| format!("{{\"mcpServers\": {{\n\"a\":{entry}\n}}}}"), true);
}

#[test]
fn what_is_no_server() {
    check_entry(
        r#"
        > 1
        2:5: mcpServers.a: must be a table with a `command` or a `url`, not a number
        > {}
        2:5: mcpServers.a: has no `command` or `url`
        > {"command": ["x"]}
        2:17: mcpServers.a.command: must be text: the program, not a list
        > {"command": "x", "args": "y"}
        2:30: mcpServers.a.args: must be a list of arguments, not text
        > {"command": "x", "args": [1]}
        2:31: mcpServers.a.args[0]: must be text, not a number
        > {"url": "https://x", "args": []}
        2:34: mcpServers.a.args: is only for servers with a `command`
        > {"type": "sse", "url": "https://x"}
        fine
        > {"type": "sse", "command": "x"}
        2:14: mcpServers.a.type: needs `url`, which is not there
        > {"type": "ws", "url": "wss://x"}
        fine
        > {"type": "websocket", "url": "https://x"}
        2:14: mcpServers.a.type: needs a `url` that begins with ws:// or wss://
        > {"type": "http", "url": "ws://x"}
        2:14: mcpServers.a.type: does not fit the `url`, which is one of WebSocket
        > {"type": "sse", "url": "wss://x"}
        2:14: mcpServers.a.type: does not fit the `url`, which is one of WebSocket
        > {"type": "http", "url": "tcp://x"}
        2:14: mcpServers.a.type: does not fit the `url`, which is one of the TCP binary protocol
        > {"url": "ws://x"}
        fine
        > {"type": "x", "url": "https://x"}
        2:14: mcpServers.a.type: must be "stdio", "http"
        > {"type": "http", "command": "x"}
        2:14: mcpServers.a.type: needs `url`, which is not there
        > {"disabled": "yes", "command": "x"}
        2:18: mcpServers.a.disabled: must be true or false, not text
        > {"command": "x", "command": "y"}
        2:33: mcpServers.a.command: is there twice
        > {"command": "x", "env": {"A": null, "A": "y"}}
        2:35: mcpServers.a.env.A: must be text (with ${NAME} for an environment variable) or
        2:46: mcpServers.a.env.A: is there twice
        > {"command": "x", "env": {"A": "\ud800"}}
        2:35: mcpServers.a.env.A: must be text (with
        > {"url": "http://10.0.0.1", "headers": {"Host": "x"}}
        2:52: mcpServers.a.headers.Host: must not be configured
        "#,
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let said = "2:31: mcpServers.a.args[0]: must be text, not a list";
    check_entry(&format!("> {{\"command\": \"x\", \"args\": {deep}}}\n{said}"));
}

#[test]
fn what_may_not_be_meant() {
    check_entry(
        r#"
        > {"command": "x", "alwaysAllow": [], "timeout": 5}
        w: 2:37: mcpServers.a.alwaysAllow: is not a key that the gateway knows; ignored
        w: 2:52: mcpServers.a.timeout: is not a key that the gateway knows; ignored
        > {"httpUrl": "https://x"}
        2:5: mcpServers.a: has no `command` or `url`
        w: 2:17: mcpServers.a.httpUrl: is not a key that the gateway knows; ignored
        > {"command": "x", "args": ["${TOKEN}"]}
        w: 2:31: mcpServers.a.args[0]: ${…} is not replaced here, only in `env` and `headers`
        "#,
    );
}
