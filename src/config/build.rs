//! The whole tree, checked.

use std::net::SocketAddr;
use std::time::Duration;

use super::federation::{self, Membership};
use super::file::{Field, Section, Value, join};
use super::problem::Report;
use super::secret::Outside;
use super::source::Overrides;
use super::unix::{self, Known, Unix};
use super::{Config, LogChoice, OneClient, keys, server, value};
use crate::admission::origin::Policy;
use crate::limits;
use crate::upstream::catalog::{Server, ServerId};

/// Where clients connect, unless configured.
const LISTEN: SocketAddr = SocketAddr::new(LOOPBACK, 8080);
/// Where health and metrics are served, unless configured.
const ADMIN: SocketAddr = SocketAddr::new(LOOPBACK, 9090);
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Addresses to listen on.
const LISTEN_MAX: usize = 64;
/// Servers: an id is 16 bits wide.
const SERVERS_MAX: usize = 4096;
/// Shards: each knows each other one.
pub(super) const SHARDS_MAX: u16 = 256;

/// Checks the tree; what the command line says counts more. The result means nothing if a problem
/// was reported.
pub(super) fn build(
    mut top: Section,
    overrides: &Overrides,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Config {
    keys::refuse_unknown(&top, "", report);
    let shards = top.take("shards").and_then(|field| field.integer(report, 1..=SHARDS_MAX.into()));
    let shards = shards.and_then(|count| u16::try_from(count).ok());
    let names = server_names(&top);
    let servers = servers(&mut top, outside, report);
    let catalog = federation::catalog(top.section("federation", report), servers, report);
    let known = Known { names: &names, catalog: &catalog, outside };
    let table = top.section("listen", report);
    let (listen, stdio) = match &overrides.one_client {
        None => (Listen::build(table, overrides, &known, report), None),
        Some(client) => (Listen::nowhere(overrides, report), one_server(client, &known, report)),
    };
    let message_len_max = top.section("limits", report).take("message");
    let message_len_max = message_len_max.and_then(|field| message_len(field, report));
    let session_idle_timeout = duration(top.section("sessions", report), "idle_timeout", report);
    let log = top.section("log", report).take("format").and_then(|field| {
        field.parse(report, "\"auto\", \"text\", \"json\" or \"off\"", value::log)
    });
    let drain_timeout = duration(top.section("shutdown", report), "drain_timeout", report);
    Config {
        origins: Policy::new(&listen.all_http(), listen.hosts, listen.origins),
        listen: listen.http,
        sse: listen.sse,
        tcp: listen.tcp,
        ws: listen.ws,
        ping_interval: listen.ping_interval.unwrap_or(limits::PING_INTERVAL),
        unix: listen.unix,
        stdio,
        admin: listen.admin,
        shards: overrides.shards.or(shards),
        catalog,
        message_len_max: message_len_max.unwrap_or(limits::MESSAGE_LEN),
        session_idle_timeout: session_idle_timeout.unwrap_or(limits::SESSION_IDLE_TIMEOUT),
        log: overrides.log.or(log).unwrap_or(LogChoice::Auto),
        drain_timeout: drain_timeout.unwrap_or(limits::DRAIN_TIMEOUT),
        warnings: Vec::new(),
    }
}

/// `[listen]`.
#[derive(Default)]
struct Listen {
    http: Vec<SocketAddr>,
    sse: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    ws: Vec<SocketAddr>,
    ping_interval: Option<Duration>,
    unix: Vec<Unix>,
    admin: Option<SocketAddr>,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Listen {
    /// For one client, which is there already. Where others would connect does not count.
    fn nowhere(overrides: &Overrides, report: &mut Report<'_>) -> Self {
        let admin = overrides.admin.flatten();
        if let Some(admin) = admin {
            warn_admin(admin, &Place::flag("--admin"), report);
        }
        Self { admin, ..Self::default() }
    }

    fn build(
        mut table: Section,
        overrides: &Overrides,
        known: &Known<'_>,
        report: &mut Report<'_>,
    ) -> Self {
        let (http, http_place) = take(&mut table, "http");
        let http = http.and_then(|field| addrs(field, report));
        let (sse, sse_place) = take(&mut table, "sse");
        let sse = sse.and_then(|field| addrs(field, report)).unwrap_or_default();
        let (tcp, tcp_place) = take(&mut table, "tcp");
        let tcp = tcp.and_then(|field| addrs(field, report)).unwrap_or_default();
        let (ws, ws_place) = take(&mut table, "ws");
        let ws = ws.and_then(|field| addrs(field, report)).unwrap_or_default();
        let ping_interval = table
            .take("ping_interval")
            .and_then(|field| field.parse(report, value::DURATION, value::duration));
        let unix = table.take("unix");
        let has_others = unix.is_some() || [&sse, &ws, &tcp].iter().any(|list| !list.is_empty());
        let unix = unix.map(|field| unix::build(field, known, report)).unwrap_or_default();
        let (admin, admin_place) = take(&mut table, "admin");
        let admin =
            admin.and_then(|field| field.parse(report, value::ADDR_OR_OFF, value::addr_or_off));
        let hosts =
            table.take("hosts").map(|field| list(field, report, "a host name", value::host));
        let origins =
            table.take("origins").map(|field| list(field, report, "an origin", value::origin));

        let (http, http_place) = match http {
            _ if !overrides.listen.is_empty() => {
                (overrides.listen.clone(), Place::flag("--listen"))
            }
            Some(http) => (http, http_place),
            None => (vec![LISTEN], http_place),
        };
        check_listen(&http, &http_place, report);
        check_listen(&sse, &sse_place, report);
        check_listen(&tcp, &tcp_place, report);
        check_listen(&ws, &ws_place, report);
        for addr in ws.iter().filter(|addr| addr.port() != 0 && http.contains(addr)) {
            let message = format!("{addr} is in listen.http, too, which serves WebSocket as well");
            report.problem(ws_place.at, &ws_place.key, message);
        }
        if http.is_empty() && !has_others {
            let message = "can be \"off\" only if clients can connect elsewhere, such as at \
                           `listen.unix`";
            report.problem(http_place.at, &http_place.key, message);
        }
        let (admin, admin_place) = match overrides.admin {
            Some(admin) => (admin, Place::flag("--admin")),
            None => (admin.unwrap_or(Some(ADMIN)), admin_place),
        };
        if let Some(admin) = admin {
            for (key, taken) in [("http", &http), ("sse", &sse), ("ws", &ws), ("tcp", &tcp)] {
                check_admin(admin, (key, taken), &admin_place, report);
            }
            warn_admin(admin, &admin_place, report);
        }
        let (hosts, origins) = (hosts.unwrap_or_default(), origins.unwrap_or_default());
        Self { http, sse, ws, tcp, unix, ping_interval, admin, hosts, origins }
    }

    /// Every address where clients speak HTTP, at least in the beginning.
    fn all_http(&self) -> Vec<SocketAddr> {
        self.http.iter().chain(&self.sse).chain(&self.ws).copied().collect()
    }
}

/// What to point at.
struct Place {
    at: Option<usize>,
    key: String,
}

impl Place {
    fn flag(key: &str) -> Self {
        Self { at: None, key: key.to_owned() }
    }
}

/// Takes a field, and where to point: at it, or at the table that it is missing from.
fn take(table: &mut Section, name: &str) -> (Option<Field>, Place) {
    let field = table.take(name);
    let at = field.as_ref().map_or(table.at, |field| field.at);
    (field, Place { at: Some(at), key: join(&table.path, name) })
}

/// `listen.http`: an address, or a list of them; an empty list is `off`, and nothing is a problem
/// that was reported.
fn addrs(field: Field, report: &mut Report<'_>) -> Option<Vec<SocketAddr>> {
    let is_there = |addrs: &Vec<SocketAddr>| !addrs.is_empty();
    match &field.value {
        Value::Text(text) if text == "off" => return Some(Vec::new()),
        Value::Text(_) => {
            let addrs = texts(vec![field], report, value::ADDR, value::addr);
            return Some(addrs).filter(is_there);
        }
        Value::List(items) if items.is_empty() => {
            report.problem(field.at, &field.path, format!("must not be empty: {}", value::ADDR));
        }
        _ => {}
    }
    Some(list(field, report, value::ADDR, value::addr)).filter(is_there)
}

fn check_listen(addrs: &[SocketAddr], place: &Place, report: &mut Report<'_>) {
    let (at, path) = (place.at, place.key.as_str());
    if addrs.len() > LISTEN_MAX {
        report.problem(at, path, format!("must be at most {LISTEN_MAX} addresses"));
    }
    for (index, addr) in addrs.iter().enumerate() {
        if addr.port() != 0 && addrs.iter().take(index).any(|other| other == addr) {
            report.problem(at, path, format!("{addr} is there twice"));
        }
        if !addr.ip().to_canonical().is_loopback() {
            let message = format!(
                "{addr} can be reached from other machines, and there is no authentication yet: \
                 whoever connects can use every server"
            );
            report.warning(at, path, message);
        }
    }
}

/// The admin server shares its address with no entrance.
fn check_admin(
    admin: SocketAddr,
    (key, taken): (&str, &[SocketAddr]),
    place: &Place,
    report: &mut Report<'_>,
) {
    if admin.port() != 0 && taken.contains(&admin) {
        let message = format!("{admin} is in listen.{key}, too; take another port");
        report.problem(place.at, &place.key, message);
    }
}

fn warn_admin(admin: SocketAddr, place: &Place, report: &mut Report<'_>) {
    let (at, path) = (place.at, place.key.as_str());
    if !admin.ip().to_canonical().is_loopback() {
        let message =
            format!("{admin} can be reached from other machines, and there is no authentication");
        report.warning(at, path, message);
    }
}

/// The items of a list, parsed.
fn list<T>(
    field: Field,
    report: &mut Report<'_>,
    wanted: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let items = field.list(report, &format!("a list; each item is {wanted}"));
    texts(items.unwrap_or_default(), report, wanted, parse)
}

fn texts<T>(
    items: Vec<Field>,
    report: &mut Report<'_>,
    wanted: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    items.into_iter().filter_map(|item| item.parse(report, wanted, &parse)).collect()
}

fn duration(mut table: Section, name: &str, report: &mut Report<'_>) -> Option<Duration> {
    table.take(name)?.parse(report, value::DURATION, value::duration)
}

fn message_len(field: Field, report: &mut Report<'_>) -> Option<usize> {
    let Value::Integer(len) = field.value else {
        return field.parse(report, value::SIZE, value::size);
    };
    match value::message_len(u64::try_from(len).unwrap_or(0)) {
        Ok(len) => Some(len),
        Err(message) => {
            report.problem(field.at, &field.path, message);
            None
        }
    }
}

/// The names of all servers, those that are wrong included.
fn server_names(top: &Section) -> Vec<String> {
    match top.find("servers").map(|field| &field.value) {
        Some(Value::Table(fields)) => fields.iter().map(|field| field.name.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The server of one client.
fn one_server(client: &OneClient, known: &Known<'_>, report: &mut Report<'_>) -> Option<ServerId> {
    let names = || known.names.join(", ");
    let message = match &client.server {
        Some(name) if known.names.contains(name) => return known.catalog.find(name),
        Some(_) => format!("there is no server of this name; known: {}", names()),
        None => return known.catalog.root(),
    };
    report.problem(None, "--server", message);
    None
}

/// `[servers.NAME]`, in the order of the file.
fn servers(
    top: &mut Section,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Vec<(Server, Membership)> {
    let Some(field) = top.take("servers") else {
        let message = "there is no server; write [servers.NAME] with a `command` or a `url`";
        report.problem(top.at, &join(&top.path, "servers"), message);
        return Vec::new();
    };
    let Some(table) = field.table(report, "a table of servers: [servers.NAME]") else {
        return Vec::new();
    };
    if table.fields.is_empty() {
        let message = "there is no server; a server has a name, and a `command` or a `url`";
        report.problem(table.at, &table.path, message);
    }
    if table.fields.len() > SERVERS_MAX {
        let message = format!("must be at most {SERVERS_MAX} servers");
        report.problem(table.at, &table.path, message);
    }
    let mut servers = Vec::new();
    for field in table.fields {
        let name = field.name.clone();
        if !value::is_server_name(&name) {
            let message = "must be named with 1 to 64 letters, digits, - and _: the name is the \
                           last part of /mcp/NAME";
            report.problem(field.named_at, &field.path, message);
        }
        let section = field.table(report, "a table with a `command` or a `url`");
        let Some(mut section) = section else { continue };
        let membership = Membership::take(&mut section, report);
        let server = server::build(&name, section, outside, report);
        servers.extend(server.map(|server| (server, membership)));
    }
    servers
}
