//! What is said about wrong files.

use super::*;

#[test]
fn all_problems_come_at_once_and_in_order() {
    check(
        r#"
        > shards = 0
        > [listen]
        > hots = []
        > http = "localhost:80"
        > [servers.a]
        > comand = ["x"]
        > [servers."a b"]
        > url = "ftp://x"
        1:10: shards: must be a whole number from 1 to 256
        3:1: listen.hots: unknown key; did you mean `hosts`?
        4:8: listen.http: must be an IP address and a port: "127.0.0.1:80"
        6:1: servers.a.comand: unknown key; did you mean `command`?
        7:10: servers."a b": must be named with 1 to 64 letters
        8:7: servers."a b".url: must begin with http://
        "#,
    );
}

#[test]
fn syntax_errors_come_alone_and_all_at_once() {
    check(
        r#"
        > shards = 0
        > [listen
        > x = 1
        > [servers.a]
        > url = s3cr3t
        2:8: not valid TOML: unclosed table
        5:7: not valid TOML: string values must be quoted
        > x = "s3cr3t
        1:12: not valid TOML: invalid basic string
        > a = 1
        > a = 2
        2:1: not valid TOML: duplicate key
        > ä = 1
        > ö = 1
        > [servers.a]
        > url = "https://x"
        1:1: not valid TOML: invalid unquoted key
        2:1: not valid TOML: invalid unquoted key
        "#,
    );
    for text in ["\u{feff}[servers.a]\nurl = \"http://x\"", "[servers.a]\r\nurl = \"http://x\"\r\n"]
    {
        expect(load_text(text, false, &Overrides::default()), "", text);
    }
}

#[test]
fn unknown_keys_get_the_nearest() {
    check_top(
        r#"
        > sesions = 1
        1:1: sesions: unknown key; did you mean `sessions`?
        > request_timeout = 1
        1:1: request_timeout: unknown key; `request_timeout` belongs into [servers.NAME]
        > message = 1
        1:1: message: unknown key; `message` belongs into [limits]
        > [limits]
        > shards = 1
        2:1: limits.shards: unknown key; `shards` belongs at the top of the file
        > [log]
        > level = 1
        2:1: log.level: unknown key; known here: format
        > "ä\n" = 1
        1:1: "ä\n": unknown key; known here: listen, limits,
        > "ä" = { x = "ö" }
        > "ß" = 1
        1:1: "ä": unknown key
        2:1: "ß": unknown key
        "#,
    );
    check_command(
        r#"
        > stop-grace = "1s"
        3:1: servers.a.stop-grace: unknown key; did you mean `stop_grace`?
        > ENV = {}
        3:1: servers.a.ENV: unknown key; did you mean `env`?
        > args = []
        3:1: servers.a.args: unknown key; known here: command, env,
        "#,
    );
}

#[test]
fn unix_sockets() {
    check_top(
        r#"
        > [listen]
        > http = "off"
        2:8: listen.http: can be "off" only if clients can connect elsewhere
        > [listen]
        > unix = "/run/mcp.sock"
        fine
        > [listen]
        > http = "off"
        > unix = "relative"
        fine
        > [listen]
        > unix = []
        2:8: listen.unix: must not be empty: the path of a socket
        > [listen]
        > unix = 1
        2:8: listen.unix: must be the path of a socket, such as "/run/mcp.sock", a table
        > [listen]
        > unix = ["", "/run/", 1]
        2:9: listen.unix[0]: must be the path of a socket
        2:13: listen.unix[1]: must be the path of a socket
        2:22: listen.unix[2]: must be the path of a socket
        > [listen]
        > unix = ["/a", "/a"]
        2:15: listen.unix[1]: is there twice
        > [listen.unix]
        > mode = "0777"
        > user = ["alice"]
        1:1: listen.unix: needs a `path`
        3:1: listen.unix.user: unknown key; did you mean `users`?
        w: 1:1: listen.unix: everybody on this machine can connect
        > [listen.unix]
        > path = "/s"
        > mode = "0777"
        > users = ["alice"]
        fine
        > [listen.unix]
        > path = "/s"
        > mode = "rw"
        3:8: listen.unix.mode: must be permissions in octal, such as "0600"
        > [listen.unix]
        > path = "/s"
        > mode = "+600"
        3:8: listen.unix.mode: must be permissions in octal
        > [listen.unix]
        > path = "/s"
        > mode = "1777"
        3:8: listen.unix.mode: must be permissions in octal
        > [listen.unix]
        > path = "/s"
        > mode = 0o600
        3:8: listen.unix.mode: must be permissions in octal, such as "0600" (only the owner of
        "#,
    );
    let name = "x".repeat(107);
    let long = format!("[listen]\nunix = \"/{name}\"\n[servers.a]\nurl = \"https://x\"");
    let said = "2:8: listen.unix: must be the path of a socket";
    expect(load_text(&long, false, &Overrides::default()), said, &long);
}

#[test]
fn people_and_servers_of_unix_sockets() {
    check_top(
        r#"
        > [listen.unix]
        > path = "/s"
        > owner = "bob"
        3:9: listen.unix.owner: there is no user of this name in /etc/passwd; write the number
        > [listen.unix]
        > path = "/s"
        > owner = "alice:bob"
        3:9: listen.unix.owner: there is no group of this name in /etc/group; write the number
        > [listen.unix]
        > path = "/s"
        > owner = ":"
        3:9: listen.unix.owner: must be a user, a user and a group, or a group
        > [listen.unix]
        > path = "/s"
        > owner = "4294967295"
        3:9: listen.unix.owner: there is no user of this name
        > [listen.unix]
        > path = "/s"
        > users = []
        3:9: listen.unix.users: must not be empty: a list of users
        > [listen.unix]
        > path = "/s"
        > users = ["alice", "bob", "odd", -1, true]
        3:19: listen.unix.users[1]: there is no user of this name
        3:26: listen.unix.users[2]: there is no user of this name
        3:33: listen.unix.users[3]: must be a whole number
        3:37: listen.unix.users[4]: must be a user, by name or by number
        > [listen.unix]
        > path = "/s"
        > server = "b"
        3:10: listen.unix.server: there is no server of this name; known: a
        > [listen.unix]
        > path = "/s"
        > server = "b"
        > [servers.b]
        > url = "wrong"
        5:7: servers.b.url: must be a URL
        "#,
    );
}

#[test]
fn listeners() {
    check_top(
        r#"
        > listen = 1
        1:10: listen: must be a table, not a number
        > [listen]
        > http = []
        2:8: listen.http: must not be empty
        > [listen]
        > http = 8080
        2:8: listen.http: must be a list; each item is an IP address
        > [listen]
        > http = [1, "x"]
        2:9: listen.http[0]: must be an IP address and a port, such as "127.0.0.1:8080", not a
        2:12: listen.http[1]: must be an IP address and a port, such as "127.0.0.1:8080"
        > [listen]
        > http = ":80"
        2:8: listen.http: must be an IP address and a port: "127.0.0.1:80", or "0.0.0.0:80" for
        > [listen]
        > http = "80"
        2:8: listen.http: must be an IP address and a port: "127.0.0.1:80"
        > [listen]
        > http = ["[::1]:1", "[::1]:1"]
        2:8: listen.http: [::1]:1 is there twice
        > [listen]
        > http = ["127.0.0.1:0", "127.0.0.1:0"]
        > admin = "127.0.0.1:0"
        fine
        > [listen]
        > admin = "127.0.0.1:8080"
        2:9: listen.admin: 127.0.0.1:8080 is in listen.http, too
        > [listen]
        > http = "127.0.0.1:9090"
        1:1: listen.admin: 127.0.0.1:9090 is in listen.http, too
        > [listen]
        > sse = "127.0.0.1:8080"
        fine
        > [listen]
        > sse = []
        2:7: listen.sse: must not be empty
        > [listen]
        > sse = "127.0.0.1:9090"
        1:1: listen.admin: 127.0.0.1:9090 is in listen.sse, too
        > [listen]
        > sse = "0.0.0.0:81"
        w: 2:7: listen.sse: 0.0.0.0:81 can be reached from other machines
        > [listen]
        > admin = false
        2:9: listen.admin: must be an IP address and a port, such as "127.0.0.1:9090", or "off", not
        > [listen]
        > http = "0.0.0.0:80"
        w: 2:8: listen.http: 0.0.0.0:80 can be reached from other machines, and there is no auth
        > [listen]
        > admin = "[::]:80"
        w: 2:9: listen.admin: [::]:80 can be reached from other machines
        > [listen]
        > hosts = ["a:80", "*", "b"]
        2:10: listen.hosts[0]: must be a host name without scheme and port
        2:18: listen.hosts[1]: must be a host name without scheme and port
        > [listen]
        > origins = ["*", "https://a/", "null"]
        2:12: listen.origins[0]: must be an origin without path
        2:17: listen.origins[1]: must be an origin without path
        "#,
    );
}

#[test]
fn numbers() {
    check_top(
        "
        > shards = 99999999999999999999
        1:10: shards: must be a whole number from 1 to 256, not a number of more than 64 bits
        > shards = \"all\"
        1:10: shards: must be a whole number from 1 to 256, not text
        > shards = 1.5
        1:10: shards: must be a whole number from 1 to 256, not a number with a fraction
        > shards = 1979-05-27
        1:10: shards: must be a whole number from 1 to 256, not a date or time
        > shards = 0x10
        fine
        ",
    );
    check_command(
        "
        > processes = 0
        3:13: servers.a.processes: must be a whole number from 1 to 65536
        > tasks = 0
        3:9: servers.a.tasks: must be a whole number from 1 to 4194304
        > tasks = 4194305
        3:9: servers.a.tasks: must be a whole number from 1 to 4194304
        ",
    );
    check_url(
        "
        > connections = 65537
        3:15: servers.a.connections: must be a whole number from 1 to 65536
        ",
    );
}

#[test]
fn sizes() {
    let check = |size: &str, said: &str| {
        check_top(&format!("> [limits]\n > message = {size}\n {said}"));
    };
    for size in ["1024", "\"1024\"", "\"1KiB\"", "\"512MiB\"", "\"2048B\"", "536_870_912"] {
        check(size, "fine");
    }
    let wrong = ["", "x", "1 MiB", "-1", "1.5MiB", "2GiB", "1023B", "99999999999GiB"];
    for size in wrong.map(|size| format!("\"{size}\"")) {
        check(&size, "2:11: limits.message: must be a size such as");
    }
    for size in ["0", "-1", "1023", "1_073_741_825", "1.5", "true"] {
        check(size, "2:11: limits.message: must be a size such as");
    }
    check("\"16MB\"", "2:11: limits.message: must be a size in binary units: MiB");
}

#[test]
fn durations() {
    let check = |duration: &str, said: &str| {
        check_top(&format!("> [sessions]\n > idle_timeout = {duration}\n {said}"));
    };
    for duration in ["1ms", "365d", "8760h", "90s", "5m"] {
        check(&format!("\"{duration}\""), "fine");
    }
    let wrong = ["", "1", "s", "0s", "1.5s", "-1s", "+1s", "1 s", "1s ", "1S", "366d", "1w", "off"];
    for duration in wrong {
        let said = "2:16: sessions.idle_timeout: must be a duration such as";
        check(&format!("\"{duration}\""), said);
    }
    check("\"999999999999999999d\"", "2:16: sessions.idle_timeout: must be a duration");
    check("30", "2:16: sessions.idle_timeout: must be a duration such as \"30s\"");
    check_top(
        r#"
        > [shutdown]
        > drain_timeout = ["1s"]
        2:17: shutdown.drain_timeout: must be a duration such as "30s"
        > [log]
        > format = "pretty"
        2:10: log.format: must be "auto", "text", "json" or "off"
        "#,
    );
    check_url(
        r#"
        > request_timeout = "0s"
        3:19: servers.a.request_timeout: must be a duration
        > request_timeout = "off"
        fine
        "#,
    );
}

#[test]
fn servers() {
    expect(load_text("", false, &Overrides::default()), "1:1: servers: there is no server", "");
    check(
        r#"
        > servers = {}
        1:11: servers: there is no server
        > servers = 1
        1:11: servers: must be a table of servers
        > [servers]
        > a = 1
        2:5: servers.a: must be a table with a `command` or a `url`, not a number
        > [servers.a]
        > command = ["x"]
        > url = "https://x"
        > comand = ["x"]
        1:1: servers.a: has both `command` and `url`
        4:1: servers.a.comand: unknown key; did you mean `command`?
        > [servers.a]
        1:1: servers.a: has no `command` or `url`; a server has exactly one
        > [[servers.a]]
        > url = "https://x"
        1:1: servers.a: must be a table with a `command` or a `url`, not a list
        > [servers.""]
        > url = "https://x"
        1:10: servers."": must be named with 1 to 64 letters
        > [servers.a]
        > command = "npx -y x"
        2:11: servers.a.command: must be a list: the program, then its arguments, such as ["npx",
        > [servers.a]
        > command = []
        2:11: servers.a.command: must not be empty
        > [servers.a]
        > command = [""]
        2:11: servers.a.command: must not be empty
        > [servers.a]
        > command = [1]
        2:12: servers.a.command[0]: must be text, not a number
        > [servers.a]
        > command = ["x", "a\u0000"]
        2:17: servers.a.command[1]: must not contain a zero byte
        "#,
    );
    for (len, said) in [(64, "fine"), (65, "1:10: servers.aa")] {
        let name = "a".repeat(len);
        check(&format!("> [servers.{name}]\n> url = \"https://x\"\n{said}"));
    }
}

#[test]
fn keys_of_the_other_kind_of_server() {
    check_url(
        "
        > env = {}
        3:1: servers.a.env: is only for servers with a `command`
        > isolation = \"shared\"
        3:1: servers.a.isolation: is only for servers with a `command`
        > transport = \"http\"
        > isolation = \"shared\"
        4:1: servers.a.isolation: is only for servers with a `command`
        > transport = \"sse\"
        > isolation = \"shared\"
        > start_timeout = \"1s\"
        > idle_timeout = \"1s\"
        fine
        > transport = \"auto\"
        > stop_grace = \"1s\"
        4:1: servers.a.stop_grace: is only for servers with a `command`
        > transport = \"ws\"
        3:13: servers.a.transport: must be \"http\", \"sse\" or \"auto\"
        > transport = \"sse\"
        > connections = 1
        4:15: servers.a.connections: must be a whole number from 2 to 65536
        > command = [\"x\"]
        1:1: servers.a: has both `command` and `url`
        ",
    );
}

#[test]
fn servers_with_a_command() {
    check_command(
        r#"
        > headers = {}
        > connections = 1
        3:1: servers.a.headers: is only for servers with a `url`
        4:1: servers.a.connections: is only for servers with a `url`
        > cwd = ""
        3:7: servers.a.cwd: must be the path of a folder
        > isolation = "none"
        3:13: servers.a.isolation: must be "session" or "shared"
        > env = []
        3:7: servers.a.env: must be a table, such as { TZ = "UTC" }, not a list
        > env = { A = 1 }
        3:13: servers.a.env.A: must be text (with ${NAME} for an environment variable)
        > env = { "A=B" = "x" }
        3:9: servers.a.env."A=B": must be named without =
        > env = { A = "\u0000" }
        3:13: servers.a.env.A: must not contain a zero byte
        "#,
    );
}

#[test]
fn references() {
    check_command(
        r#"
        > env = { A = "${X} ${Y}" }
        3:13: servers.a.env.A: the environment variable X is not set
        3:13: servers.a.env.A: the environment variable Y is not set
        > env = { A = "${BROKEN}" }
        3:13: servers.a.env.A: the environment variable BROKEN is not valid UTF-8
        > env = { A = "${s3cr3t" }
        3:13: servers.a.env.A: has ${ without }
        > env = { A = "${file:/nope}" }
        3:13: servers.a.env.A: cannot read /nope: not there
        > env = { A = "${file:}" }
        3:13: servers.a.env.A: must be the path of a file
        > env = { A = { file = "/nope" } }
        3:22: servers.a.env.A.file: cannot read /nope: not there
        > env = { A = { fiel = "/secret" } }
        3:13: servers.a.env.A: must be text (with
        3:15: servers.a.env.A.fiel: unknown key; did you mean `file`?
        > env = { A = { file = 1 } }
        3:22: servers.a.env.A.file: must be the path of a file, not a number
        "#,
    );
    for text in ["${}", "${a b}", "${1A}", "${env:A}", "${A:-s3cr3t}", "${s3cr3t!}"] {
        let said = "3:13: servers.a.env.A: has ${…} that is neither ${NAME}";
        check_command(&format!("> env = {{ A = \"{text}\" }}\n{said}"));
    }
    for text in ["$", "$$", "$A", "$${", "$${A", "a$", "${EMPTY}", "${file:/secret}", "{}", "}"] {
        check_command(&format!("> env = {{ A = \"{text}\" }}\nfine"));
    }
}

#[test]
fn header_names() {
    let refused = "Connection transfer-encoding Content-Length HOST TE Upgrade Keep-Alive \
                   Proxy-Authorization Mcp-Session-Id MCP-Protocol-Version Accept Content-Type \
                   Last-Event-ID Mcp-Method Mcp-Name";
    for name in refused.split(' ') {
        let said = format!("3:13: servers.a.headers.{name}: must not be configured: the gateway");
        check_url(&format!("> headers = {{ {name} = \"x\" }}\n{said}"));
    }
    for name in ["", "a b", "a:", "ä", "a\\n"] {
        let said = format!("3:13: servers.a.headers.\"{name}\": must be a header name");
        check_url(&format!("> headers = {{ \"{name}\" = \"x\" }}\n{said}"));
    }
    check_url(
        r#"
        > headers = { a = "${X}", A = "y" }
        3:17: servers.a.headers.a: the environment variable X is not set
        3:25: servers.a.headers.A: is there twice
        > headers = { A = { file = "/secret" } }
        fine
        "#,
    );
}

#[test]
fn header_values() {
    let check = |value: &str, said: &str| {
        check_url(&format!("> headers = {{ A = \"{value}\" }}\n{said}"));
    };
    for value in ["a\\nb", "a\\rb", "\\u0000", "a\\u007f", "${LINES}"] {
        check(value, "3:17: servers.a.headers.A: must not contain a newline");
    }
    for value in [" a", "a\\t", "Bearer ${EMPTY}"] {
        check(value, "3:17: servers.a.headers.A: must not begin or end with a space");
    }
    for value in ["", "a\\tb", "ä", "${file:/secret}"] {
        check(value, "fine");
    }
    let long = "x".repeat(20_000);
    let said = "3:11: servers.a.headers: must be at most 16384 bytes together";
    check_url(&format!("> headers = {{ A = \"{long}\" }}\n{said}"));
}

#[test]
fn credentials_in_the_clear_are_warned_about() {
    let check = |url: &str, said: &str| {
        let file = "> [servers.a]\n> headers.authorization = \"x\"\n> url =";
        check(&format!("{file} \"{url}\"\n{said}"));
    };
    for url in ["http://a.example", "http://10.0.0.1", "HTTP://localhost.a"] {
        check(url, "w: 3:7: servers.a.url: sends Authorization in the clear");
    }
    for url in ["https://a.example", "http://localhost:1", "http://127.0.0.1", "http://[::1]/"] {
        check(url, "fine");
    }
}

#[test]
fn what_is_wrong_with_a_websocket() {
    check(
        r#"
        > [listen]
        > http = "127.0.0.1:80"
        > ws = ["127.0.0.1:80", "127.0.0.1:9090"]
        > ping_interval = "never"
        > [servers.a]
        > url = "ws://h"
        > stop_grace = "1s"
        > headers = { Sec-WebSocket-Key = "x" }
        > transport = "sse"
        > [servers.b]
        > url = "http://h"
        > isolation = "shared"
        > [servers.c]
        > url = "wss://h"
        > connections = 1
        1:1: listen.admin: 127.0.0.1:9090 is in listen.ws, too
        3:6: listen.ws: 127.0.0.1:80 is in listen.http, too
        4:17: listen.ping_interval: must be a duration
        7:1: servers.a.stop_grace: is only for servers with a `command`
        8:13: servers.a.headers.Sec-WebSocket-Key: must not be configured
        9:1: servers.a.transport: is only for servers with an http or https URL; remove it
        12:1: servers.b.isolation: is only for servers with a `command`
        "#,
    );
}

#[test]
fn what_a_server_by_the_binary_protocol_does_not_have() {
    check(
        r#"
        > [servers.a]
        > url = "tcp://h"
        > transport = "http"
        > headers = { X = "y" }
        > connections = 7
        > idle_timeout = "1m"
        > tasks = 7
        3:1: servers.a.transport: is only for servers with an http, https, ws or wss URL; remove it
        4:1: servers.a.headers: is only for servers with an http, https, ws or wss URL; remove it
        5:1: servers.a.connections: is only for servers with an http, https, ws or wss URL; remove
        7:1: servers.a.tasks: is only for servers with a `command`
        "#,
    );
}

#[test]
fn servers_without_a_prefix_may_collide() {
    check(
        r#"
        > [servers.a]
        > url = "http://a/"
        > prefix = false
        > [servers.b]
        > url = "http://b/"
        > [servers.c]
        > url = "http://c/"
        > prefix = false
        w: 8:10: servers.c.prefix: like `a`, it has no prefix: of tools with one name
        > [servers.a]
        > url = "http://a/"
        > prefix = false
        > [servers.b]
        > url = "http://b/"
        > prefix = true
        fine
        "#,
    );
}
