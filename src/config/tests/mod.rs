//! Scripts: a configuration, and what is said about it.

use std::env::VarError;
use std::io;
use std::path::Path;

use super::source::{Overrides, Source, load};
use super::*;
use crate::limits;
use crate::upstream::catalog::{Command, Endpoint, Isolation, ServerId, Target, Transport};

mod docs;
mod endpoints;
mod json;
mod problems;

const SECRET: &str = "s3cr3t";

fn env(name: &str) -> Result<String, VarError> {
    match name {
        "TOKEN" => Ok(SECRET.to_owned()),
        "EMPTY" => Ok(String::new()),
        "LINES" => Ok(format!("{SECRET}\n{SECRET}")),
        "BROKEN" => Err(VarError::NotUnicode("x".into())),
        _ => Err(VarError::NotPresent),
    }
}

fn load_text(text: &str, is_json: bool, overrides: &Overrides) -> Result<Config, Refused> {
    let read = |path: &Path| match path.to_str() {
        Some("t") => Ok(text.to_owned()),
        Some("/secret") => Ok(format!("{SECRET}\r\n\n")),
        Some("/etc/passwd") => Ok("root:x:0:0::/:/bin/sh\nalice:x:1000:50::/:\nodd".to_owned()),
        Some("/etc/group") => Ok("root:x:0:\nstaff:x:50:alice\n".to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "not there")),
    };
    let source = if is_json { Source::McpJson("t".into()) } else { Source::File("t".into()) };
    let loaded = load(source, overrides, &Outside { env: &env, read: &read });
    let told = match &loaded {
        Ok(config) => format!("{config:?}{config}"),
        Err(refused) => {
            let said: Vec<String> = refused.problems.iter().map(Problem::to_string).collect();
            format!("{refused:?}{said:?}")
        }
    };
    assert!(!told.contains(SECRET), "a secret is told: {told}");
    loaded
}

/// Each line of `expected` is a piece of a problem, in order; `w: ` before it: of a warning.
#[track_caller]
fn expect(loaded: Result<Config, Refused>, expected: &str, text: &str) {
    let (problems, warnings) = match loaded {
        Ok(config) => (Vec::new(), config.warnings),
        Err(refused) => (refused.problems, refused.warnings),
    };
    let plain = |problem: &Problem| {
        let line = problem.to_string();
        line.strip_prefix("t:").unwrap_or(&line).trim_start().to_owned()
    };
    let problems = problems.iter().map(|problem| {
        format!(
            "{}
",
            plain(problem)
        )
    });
    let warnings = warnings.iter().map(|warning| {
        format!(
            "w: {}
",
            plain(warning)
        )
    });
    let said: String = problems.chain(warnings).collect();
    let wanted: Vec<&str> =
        expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(said.lines().count(), wanted.len(), "{text}\nsaid:\n{said}");
    for (line, piece) in said.lines().zip(wanted) {
        assert!(line.starts_with(piece), "{text}\nwanted: {piece}\nsaid:\n{said}");
    }
}

/// Runs a script. Lines that begin with `>` are a configuration, once `wrap` has completed it; the
/// lines after them are what is said about it, see [`expect`]; or `fine`.
#[track_caller]
fn run(script: &str, wrap: impl Fn(&str) -> String, is_json: bool) {
    let (mut text, mut expected) = (String::new(), String::new());
    let mut cases = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some(input) = line.strip_prefix('>') else {
            expected = format!("{expected}{line}\n");
            continue;
        };
        let input = input.strip_prefix(' ').unwrap_or(input);
        // A case ends where another begins; inputs on adjacent lines are one.
        if !expected.is_empty() {
            cases.push((std::mem::take(&mut text), std::mem::take(&mut expected)));
        }
        text = format!("{text}{input}\n");
    }
    cases.push((text, expected));
    assert!(cases.iter().all(|(_, expected)| !expected.is_empty()), "a case without an end");
    for (text, expected) in cases {
        let expected = if expected == "fine\n" { "" } else { &expected };
        let text = wrap(text.trim_end());
        expect(load_text(&text, is_json, &Overrides::default()), expected, &text);
    }
}

/// A script of whole files.
#[track_caller]
fn check(script: &str) {
    run(script, str::to_owned, false);
}

/// A script of what stands before one correct server.
#[track_caller]
fn check_top(script: &str) {
    run(script, |text| format!("{text}\n[servers.a]\nurl = \"https://x/\"\n"), false);
}

/// A script of the keys of a server with a command, which begin at line 3.
#[track_caller]
fn check_command(script: &str) {
    run(script, |text| format!("[servers.a]\ncommand = [\"x\"]\n{text}\n"), false);
}

/// A script of the keys of a server with a URL, which begin at line 3.
#[track_caller]
fn check_url(script: &str) {
    run(script, |text| format!("[servers.a]\nurl = \"https://x/\"\n{text}\n"), false);
}

#[track_caller]
fn config(text: &str) -> Config {
    load_text(text, false, &Overrides::default()).unwrap()
}

#[track_caller]
fn target(config: &Config, id: u16) -> &Target {
    &config.catalog.get(ServerId(id)).unwrap().target
}

#[track_caller]
fn command(config: &Config, id: u16) -> &Command {
    let Target::Stdio(command) = target(config, id) else { panic!("not a command") };
    command
}

#[track_caller]
fn endpoint(config: &Config, id: u16) -> &Endpoint {
    match target(config, id) {
        Target::Http(_, endpoints) | Target::WebSocket(endpoints) | Target::Tcp(endpoints) => {
            &endpoints.first
        }
        Target::Stdio(_) | Target::View(_) => panic!("not a URL"),
    }
}

#[test]
fn defaults_come_from_the_limits() {
    let config = config("[servers.b]\ncommand = [\"x\", \"y\"]\n[servers.a]\nurl = \"http://h\"");
    assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.admin, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.shards, None);
    assert_eq!(config.message_len_max, limits::MESSAGE_LEN);
    assert_eq!(config.session_idle_timeout, limits::SESSION_IDLE_TIMEOUT);
    assert_eq!(config.drain_timeout, limits::DRAIN_TIMEOUT);
    assert_eq!(config.log, LogChoice::Auto);
    assert_eq!(config.catalog.find("b"), Some(ServerId(0)), "the order of the file");
    let server = config.catalog.get(ServerId(0)).unwrap();
    assert_eq!(server.request_timeout, Some(limits::REQUEST_TIMEOUT));
    let command = command(&config, 0);
    assert_eq!((command.program.as_str(), &command.args[..]), ("x", &["y".to_owned()][..]));
    assert_eq!(command.processes_max, limits::PROCESSES_MAX);
    assert_eq!(command.tasks_max, limits::TASKS_MAX);
    assert_eq!(command.upkeep.isolation, Isolation::Session);
    assert_eq!(command.upkeep.start_timeout, limits::START_TIMEOUT);
    assert_eq!(command.upkeep.idle_timeout, limits::PROCESS_IDLE_TIMEOUT);
    assert_eq!(command.upkeep.stop_grace, limits::STOP_GRACE);
    let endpoint = endpoint(&config, 1);
    assert_eq!((endpoint.host.as_str(), endpoint.target.as_str()), ("h", "/"));
    assert_eq!(endpoint.conns_max, limits::SERVER_CONNS_MAX);
    assert!(matches!(target(&config, 1), Target::Http(Transport::Http, _)));
}

#[test]
fn a_websocket_is_an_endpoint_and_a_conversation() {
    let config = config(
        r#"
        [listen]
        ws = "127.0.0.1:8443"
        ping_interval = "5s"
        [servers.a]
        url = "wss://h/x"
        isolation = "shared"
        start_timeout = "7s"
        connections = 7
        "#,
    );
    assert_eq!(config.ws, ["127.0.0.1:8443".parse().unwrap()]);
    assert_eq!(config.ping_interval, Duration::from_secs(5));
    assert!(matches!(target(&config, 0), Target::WebSocket(_)));
    let endpoint = endpoint(&config, 0);
    let upkeep = endpoint.upkeep;
    assert_eq!((endpoint.tls, endpoint.port, endpoint.conns_max), (true, 443, 7));
    assert_eq!((upkeep.isolation, upkeep.start_timeout), (Isolation::Shared, 7 * SECOND));
    assert_eq!(upkeep.idle_timeout, limits::PROCESS_IDLE_TIMEOUT);
    let shown = config.to_string();
    assert!(shown.contains("wss://h/…") && shown.contains("listen.ws "), "{shown}");
    let without = config_without_ws();
    assert_eq!((without.ws, without.ping_interval), (Vec::new(), limits::PING_INTERVAL));
}

#[test]
fn a_url_of_the_binary_protocol_names_a_server_there() {
    let config = config(
        r#"
        [servers.a]
        url = "tcp://h/search"
        isolation = "shared"
        [servers.b]
        url = "tcps://h:1"
        "#,
    );
    assert!(matches!(target(&config, 0), Target::Tcp(_)));
    let first = endpoint(&config, 0);
    assert_eq!((first.tls, first.port, first.target.as_str()), (false, 8444, "/search"));
    assert_eq!(first.upkeep.isolation, Isolation::Shared);
    let second = endpoint(&config, 1);
    assert_eq!((second.tls, second.port, second.target.as_str()), (true, 1, "/"));
    let shown = config.to_string();
    assert!(shown.contains("tcp://h/search") && shown.contains("tcps://h:1"), "{shown}");
}

const SECOND: Duration = Duration::from_secs(1);

fn config_without_ws() -> Config {
    config("[servers.a]\nurl = \"http://h\"")
}

#[test]
fn everything_can_be_configured() {
    let config = config(
        r#"
        shards = 3
        [listen]
        http = ["127.0.0.1:1", "[::1]:1"]
        sse = "127.0.0.1:2"
        admin = "off"
        hosts = ["gw.example"]
        origins = ["null", "https://app.example"]
        [limits]
        message = "512MiB"
        [sessions]
        idle_timeout = "2h"
        [log]
        format = "json"
        [shutdown]
        drain_timeout = "250ms"
        [servers.a]
        command = ["x"]
        env = { A = "${TOKEN}-$${TOKEN}$", B = { file = "/secret" } }
        cwd = "/srv"
        isolation = "shared"
        processes = 65536
        tasks = 4194304
        start_timeout = "5s"
        idle_timeout = "1d"
        stop_grace = "1m"
        request_timeout = "off"
        [servers.b]
        url = "https://h:1/x?y"
        headers = { Authorization = "Bearer ${TOKEN}", X-Key = "<${file:/secret}>" }
        connections = 7
        transport = "auto"
        isolation = "shared"
        request_timeout = "1s"
        "#,
    );
    assert_eq!((config.listen.len(), config.admin, config.shards), (2, None, Some(3)));
    assert_eq!(config.sse, ["127.0.0.1:2".parse().unwrap()]);
    assert!(config.origins.admits_host(b"GW.example"));
    assert!(config.origins.admits_origin(b"null", b"localhost"));
    assert_eq!(config.message_len_max, 1 << 29);
    assert_eq!(config.session_idle_timeout, Duration::from_secs(7200));
    assert_eq!(config.drain_timeout, Duration::from_millis(250));
    assert_eq!(config.log, LogChoice::Format(Format::Json));
    let command = command(&config, 0);
    let reveal = |pairs: &[(String, crate::upstream::catalog::Secret)]| {
        pairs.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect::<Vec<_>>()
    };
    assert_eq!(reveal(&command.env), ["A=s3cr3t-${TOKEN}$", "B=s3cr3t"]);
    assert_eq!(command.cwd.as_deref(), Some(Path::new("/srv")));
    assert_eq!((command.upkeep.isolation, command.processes_max), (Isolation::Shared, 65_536));
    assert_eq!(command.tasks_max, 4_194_304);
    assert_eq!(command.upkeep.start_timeout, Duration::from_secs(5));
    assert_eq!(command.upkeep.idle_timeout, Duration::from_secs(86_400));
    assert_eq!(command.upkeep.stop_grace, Duration::from_secs(60));
    assert_eq!(config.catalog.get(ServerId(0)).unwrap().request_timeout, None);
    let endpoint = endpoint(&config, 1);
    assert_eq!(reveal(&endpoint.headers), ["Authorization=Bearer s3cr3t", "X-Key=<s3cr3t>"]);
    assert_eq!((endpoint.conns_max, endpoint.port), (7, 1));
    assert!(matches!(target(&config, 1), Target::Http(Transport::Auto, _)));
    assert_eq!(endpoint.upkeep.isolation, Isolation::Shared);
}

#[test]
fn unix_sockets_can_be_configured() {
    let config = config(
        r#"
        [listen]
        http = "off"
        unix = [
            "/run/a.sock",
            { path = "b", mode = "660", owner = "alice:staff", users = ["alice", 7, "8"] },
            { path = "c", owner = ":50" },
            { path = "d", owner = "7", server = "a" },
        ]
        [servers.a]
        command = ["x"]
        "#,
    );
    assert_eq!((config.listen.len(), config.stdio), (0, None));
    let [first, second, third, fourth] = &config.unix[..] else { panic!("{:?}", config.unix) };
    assert_eq!((first.path.as_path(), first.mode), (Path::new("/run/a.sock"), 0o600));
    assert_eq!((first.user, first.group, &first.users, first.server), (None, None, &None, None));
    assert_eq!((second.mode, second.user, second.group), (0o660, Some(1000), Some(50)));
    assert_eq!(second.users, Some(vec![1000, 7, 8]));
    assert_eq!((third.user, third.group), (None, Some(50)));
    assert_eq!((fourth.user, fourth.group, fourth.server), (Some(7), None, Some(ServerId(0))));
    let shown = config.to_string();
    for line in [
        "listen.http            off\n",
        "listen.unix            /run/a.sock (mode 0600)\n",
        "b (mode 0660; user 1000; group 50; only for users 1000, 7, 8)\n",
        "d (mode 0600; user 7; server a)\n",
    ] {
        assert!(shown.contains(line), "{line} in:\n{shown}");
    }
}

#[test]
fn one_client_has_one_server_and_nobody_connects() {
    let two = "shards = 3\n[listen]\nhttp = \"0.0.0.0:1\"\nunix = \"/s\"\nadmin = \"0.0.0.0:2\"\n\
               [servers.a]\nurl = \"https://x\"\n[servers.b]\nurl = \"https://x\"";
    let overrides = |server: Option<&str>| Overrides {
        shards: Some(1),
        one_client: Some(OneClient { server: server.map(str::to_owned) }),
        ..Overrides::default()
    };
    let config = load_text(two, false, &overrides(Some("b"))).unwrap();
    assert_eq!((config.stdio, config.shards, config.admin), (Some(ServerId(1)), Some(1), None));
    assert_eq!((config.listen.len(), config.unix.len(), config.warnings.len()), (0, 0, 0));
    let config = load_text(two, false, &overrides(None)).unwrap();
    assert_eq!(config.stdio, config.catalog.root(), "all of them");
    let said = "command line: --server: there is no server of this name; known: a, b";
    expect(load_text(two, false, &overrides(Some("c"))), said, two);
    let one = "[servers.a]\nurl = \"https://x\"";
    let config = load_text(one, false, &overrides(None)).unwrap();
    assert_eq!(config.stdio, Some(ServerId(0)));
}

#[test]
fn the_command_line_counts_more() {
    let text = "shards = 2\nlog.format = \"json\"\n\
                [listen]\nhttp = \"0.0.0.0:1\"\nadmin = \"off\"\n\
                [servers.a]\nurl = \"https://x\"";
    let overrides = Overrides {
        listen: vec!["127.0.0.1:5".parse().unwrap()],
        admin: Some(Some("127.0.0.1:6".parse().unwrap())),
        shards: Some(4),
        log: Some(LogChoice::Off),
        one_client: None,
    };
    let config = load_text(text, false, &overrides).unwrap();
    assert_eq!((&config.listen, config.admin), (&overrides.listen, overrides.admin.unwrap()));
    assert_eq!((config.shards, config.log), (Some(4), LogChoice::Off));
    assert_eq!(config.warnings, [], "the address in the file is not used");
    let wrong = Overrides { admin: Some(Some("127.0.0.1:5".parse().unwrap())), ..overrides };
    let said = "command line: --admin: 127.0.0.1:5 is in listen.http, too";
    expect(load_text(text, false, &wrong), said, "admin and listen");
}

#[test]
fn servers_without_a_file() {
    let outside = Outside { env: &env, read: &|_| Err(io::Error::other("no files")) };
    let load = |source| load(source, &Overrides::default(), &outside);
    let words = ["npx", "-y", "${x}"].map(str::to_owned).to_vec();
    let config = load(Source::Command(words)).unwrap();
    assert_eq!((command(&config, 0).args.len(), config.catalog.root()), (2, Some(ServerId(0))));
    let config = load(Source::Url("http://127.0.0.1:3001/mcp".to_owned())).unwrap();
    assert_eq!(endpoint(&config, 0).port, 3001);
    let config = load(Source::Demo { program: "/bin/gw".to_owned() }).unwrap();
    assert_eq!(config.catalog.find("demo"), Some(ServerId(0)));
    assert_eq!(command(&config, 0).args, ["demo-server"]);
    expect(load(Source::Url("x://".to_owned())), "command line: URL: must begin with http", "URL");
    expect(load(Source::File("t".into())), "cannot be read: no files", "no file");
}

#[test]
fn check_shows_everything_but_secrets() {
    let config = config(
        "[servers.a]\ncommand = [\"x\", \"--key=4rg\"]\nenv.K = \"s3cr3t\"\n\
         [servers.b]\nurl = \"https://h/p4th?key=q3ry\"\nheaders.X-Key = \"s3cr3t\"\n",
    );
    let shown = config.to_string();
    let env = "env                  K\n";
    for piece in ["x with 1 argument", env, "X-Key", "https://h/…\n", "10m", "16MiB"] {
        assert!(shown.contains(piece), "{piece} in:\n{shown}");
    }
    assert!(!shown.contains("q3ry"), "a query may hold a key");
    assert!(!shown.contains("p4th"), "and so may a path");
    assert!(!shown.contains("4rg"), "an argument may hold a key");
}
