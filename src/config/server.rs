//! One server: `[servers.NAME]`, checked.

use std::time::Duration;

use super::endpoints::{self, Place, Places};
use super::file::{Field, Section, Value};
use super::keys;
use super::problem::Report;
use super::secret::{self, Outside};
use super::url::{Kind, Url};
use super::value;
use crate::admission::origin;
use crate::limits;
use crate::upstream::catalog::{
    Command, Endpoint, Endpoints, Secret, Server, Target, Transport, Upkeep,
};

/// Bytes of all headers added to a request: with a target and our own headers they must fit a head.
const HEADERS_LEN_MAX: usize = limits::HEAD_LEN_MAX / 2;

/// Headers that the gateway sets itself, or that frame a message, in lower case.
const HEADERS_REFUSED: &[&str] = &[
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The most tasks that Linux can have.
const TASKS_LIMIT: u32 = 4 * 1024 * 1024;

/// What a command looks like.
const COMMAND: &str = "a list: the program, then its arguments, such as [\"npx\", \"-y\", \"pkg\"]";

/// Checks a server. None if something was wrong with it, which is reported.
pub(super) fn build(
    name: &str,
    mut table: Section,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Option<Server> {
    keys::refuse_unknown(&table, "server", report);
    refuse_misplaced(&table, report);
    let command = table.take("command");
    let (url, endpoints) = (table.take("url"), table.take("endpoints"));
    // A misspelt key is reported already, and would be the one that is missed.
    let names = ["command", "url", "endpoints"];
    let misspelt = table.fields.iter().any(|field| keys::resembles(&field.name, &names));
    let message = match (&command, &url, &endpoints) {
        (Some(_), Some(_), _) => "has both `command` and `url`",
        (Some(_), None, Some(_)) => "has both `command` and `endpoints`",
        (None, Some(_), Some(_)) => "has both `url` and `endpoints`",
        (None, None, None) if !misspelt => "has no `command` or `url`",
        _ => "",
    };
    if !message.is_empty() {
        report.problem(table.at, &table.path, format!("{message}; a server has exactly one"));
    }
    let request_timeout = table
        .take("request_timeout")
        .and_then(|field| field.parse(report, value::DURATION_OR_OFF, value::duration_or_off));
    let command = command.and_then(|field| argv(field, report));
    let upkeep = upkeep(&mut table, report);
    let command = stdio(command, (&mut table, upkeep), outside, report);
    let places = endpoints::build((url, endpoints), &mut table, report);
    let remote = remote(places, (&mut table, upkeep), outside, report);
    let target = command.map(Target::Stdio).or(remote)?;
    let request_timeout = request_timeout.unwrap_or(Some(limits::REQUEST_TIMEOUT));
    Some(Server { name: name.to_owned(), target, request_timeout })
}

/// Reports the keys that belong to the other kind of server.
fn refuse_misplaced(table: &Section, report: &mut Report<'_>) {
    let (url, endpoints) = (table.find("url"), table.find("endpoints"));
    let place = url.or(endpoints);
    let (wrong, owner) = match (table.find("command"), place) {
        (Some(_), None) => (keys::OF_URL, "url"),
        (None, Some(_)) => (keys::OF_COMMAND, "command"),
        _ => return,
    };
    let text = |name| match table.find(name).map(|field| &field.value) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let kind = place.and_then(endpoints::kind);
    let has_conversations = matches!(kind, Some(Kind::WebSocket | Kind::Tcp));
    let has_streams = text("transport").is_some_and(|text| text != "http");
    for field in table.fields.iter().filter(|field| wrong.contains(&field.name.as_str())) {
        if (has_conversations || has_streams) && keys::OF_UPKEEP.contains(&field.name.as_str()) {
            continue;
        }
        let message = format!("is only for servers with a `{owner}`; remove it");
        report.problem(field.named_at, &field.path, message);
    }
}

/// The program and its arguments.
fn argv(field: Field, report: &mut Report<'_>) -> Option<(String, Vec<String>)> {
    let (at, path) = (field.at, field.path.clone());
    let count = match &field.value {
        Value::List(items) => items.len(),
        _ => 0,
    };
    let items = field.list(report, COMMAND)?;
    let mut words = items.into_iter().filter_map(|item| {
        item.parse(report, "text", |text| {
            let is_fine = !text.contains('\0');
            is_fine
                .then(|| text.to_owned())
                .ok_or_else(|| "must not contain a zero byte".to_owned())
        })
    });
    let program = words.next();
    let args: Vec<String> = words.collect();
    match program {
        Some(program) if !program.is_empty() => {
            (args.len() + 1 == count).then_some((program, args))
        }
        // Otherwise an item was wrong, and that is reported already.
        None if count > 0 => None,
        _ => {
            report.problem(at, &path, format!("must not be empty: {COMMAND}"));
            None
        }
    }
}

/// The keys of a server with a command. They are checked even if the command is wrong.
fn stdio(
    command: Option<(String, Vec<String>)>,
    (table, upkeep): (&mut Section, Upkeep),
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Option<Command> {
    let env = table.take("env").map(|field| variables(field, outside, report));
    let cwd = table.take("cwd").and_then(|field| field.parse(report, "the path of a folder", path));
    let processes = table.take("processes").and_then(|field| field.integer(report, 1..=65_536));
    let tasks = table.take("tasks").and_then(|field| field.integer(report, 1..=TASKS_LIMIT));
    let (program, args) = command?;
    Some(Command {
        program,
        args,
        env: env.unwrap_or_default(),
        cwd: cwd.map(Into::into),
        processes_max: count(processes, limits::PROCESSES_MAX),
        tasks_max: tasks.unwrap_or(limits::TASKS_MAX),
        upkeep,
    })
}

/// The keys of a server with processes, or with what stands in their place.
fn upkeep(table: &mut Section, report: &mut Report<'_>) -> Upkeep {
    let isolation = table
        .take("isolation")
        .and_then(|field| field.parse(report, "\"session\" or \"shared\"", value::isolation));
    let start_timeout = duration("start_timeout", table, report);
    let idle_timeout = duration("idle_timeout", table, report);
    let stop_grace = duration("stop_grace", table, report);
    let default = Upkeep::default();
    Upkeep {
        isolation: isolation.unwrap_or(default.isolation),
        start_timeout: start_timeout.unwrap_or(default.start_timeout),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        stop_grace: stop_grace.unwrap_or(default.stop_grace),
    }
}

/// The keys of a server with a URL. They are checked even if the URL is wrong.
fn remote(
    places: Option<Places>,
    (table, upkeep): (&mut Section, Upkeep),
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Option<Target> {
    let kind = places.as_ref().map_or(Kind::Http, Places::kind);
    if kind == Kind::Tcp {
        refuse_of_http(table, report);
    }
    let headers = table.take("headers").map(|field| headers(field, outside, report));
    let is_socket = kind == Kind::WebSocket;
    let transport = table.take("transport").and_then(|field| {
        if is_socket {
            let message = "is only for servers with an http or https URL; remove it";
            report.problem(field.named_at, &field.path, message);
            return None;
        }
        field.parse(report, "\"http\", \"sse\" or \"auto\"", value::transport)
    });
    let transport = transport.unwrap_or(Transport::Http);
    // A stream keeps a connection to itself, and messages need one more.
    let conns_min = if transport == Transport::Http { 1 } else { 2 };
    let connections =
        table.take("connections").and_then(|field| field.integer(report, conns_min..=65_536));
    let places = places?;
    let headers = headers.unwrap_or_default();
    let credentials = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let is_bare = |url: &Url| credentials && !url.tls && !origin::is_loopback(&url.host);
    for place in places.list.iter().filter(|place| is_bare(&place.url)) {
        let (plain, safe) = if is_socket { ("ws", "wss") } else { ("http", "https") };
        let message = format!(
            "sends Authorization in the clear, over {plain} to another machine; use {safe}"
        );
        report.warning(place.at, &place.path, message);
    }
    let endpoint = |Place { url, .. }| Endpoint {
        tls: url.tls,
        host: url.host,
        port: url.port,
        authority: url.authority,
        target: url.target,
        headers: headers.clone(),
        conns_max: count(connections, limits::SERVER_CONNS_MAX),
        upkeep,
    };
    let all = places.list.into_iter().map(endpoint).collect();
    let all = Endpoints::new(all, places.balance)?;
    Some(match kind {
        Kind::Http => Target::Http(transport, all),
        Kind::WebSocket => Target::WebSocket(all),
        Kind::Tcp => Target::Tcp(all),
    })
}

/// Reports, and takes away, what a server by the TCP binary protocol does not have.
fn refuse_of_http(table: &mut Section, report: &mut Report<'_>) {
    for name in keys::OF_URL {
        let Some(field) = table.take(name) else { continue };
        let message = "is only for servers with an http, https, ws or wss URL; remove it";
        report.problem(field.named_at, &field.path, message);
    }
}

fn duration(name: &str, table: &mut Section, report: &mut Report<'_>) -> Option<Duration> {
    table.take(name)?.parse(report, value::DURATION, value::duration)
}

fn count(configured: Option<u32>, default: usize) -> usize {
    configured.and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
}

fn path(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("must be the path of a folder".to_owned());
    }
    Ok(text.to_owned())
}

/// The variables of `env`.
fn variables(
    field: Field,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Vec<(String, Secret)> {
    let table = field.table(report, "a table, such as { TZ = \"UTC\" }");
    let mut variables = Vec::new();
    for field in table.into_iter().flat_map(|table| table.fields) {
        let (at, path, name) = (field.at, field.path.clone(), field.name.clone());
        if name.is_empty() || name.contains(['=', '\0']) {
            report.problem(field.named_at, &path, "must be named without = and zero bytes");
        }
        let Some(value) = secret::resolve(field, outside, report) else { continue };
        if value.reveal().contains('\0') {
            report.problem(at, &path, "must not contain a zero byte");
        }
        variables.push((name, value));
    }
    variables
}

/// The headers of `headers`.
fn headers(field: Field, outside: &Outside<'_>, report: &mut Report<'_>) -> Vec<(String, Secret)> {
    let (all_at, all_path) = (field.at, field.path.clone());
    let table = field.table(report, "a table, such as { Authorization = \"Bearer ${TOKEN}\" }");
    let mut headers: Vec<(String, Secret)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for field in table.into_iter().flat_map(|table| table.fields) {
        let (at, path, name) = (field.at, field.path.clone(), field.name.clone());
        if let Err(message) = check_header_name(&name) {
            report.problem(field.named_at, &path, message);
        } else if names.contains(&name.to_ascii_lowercase()) {
            report.problem(field.named_at, &path, "is there twice; case does not matter");
        }
        names.push(name.to_ascii_lowercase());
        let Some(value) = secret::resolve(field, outside, report) else { continue };
        if let Err(message) = check_header_value(value.reveal()) {
            report.problem(at, &path, message);
        }
        headers.push((name, value));
    }
    let len: usize =
        headers.iter().map(|(name, value)| name.len() + value.reveal().len() + 4).sum();
    if len > HEADERS_LEN_MAX {
        let message = format!("must be at most {HEADERS_LEN_MAX} bytes together");
        report.problem(all_at, &all_path, message);
    }
    headers
}

fn check_header_name(name: &str) -> Result<(), String> {
    // RFC 9110 §5.6.2: token.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err("must be a header name: letters, digits and -".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if HEADERS_REFUSED.contains(&lower.as_str())
        || lower.starts_with("proxy-")
        || lower.starts_with("sec-websocket-")
    {
        return Err("must not be configured: the gateway sets this header itself".to_owned());
    }
    Ok(())
}

fn check_header_value(value: &str) -> Result<(), String> {
    // RFC 9110 §5.5: field-value.
    if value.chars().any(|char| char.is_ascii_control() && char != '\t') {
        return Err("must not contain a newline or another control character".to_owned());
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Err("must not begin or end with a space (is a variable empty?)".to_owned());
    }
    Ok(())
}
