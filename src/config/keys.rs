//! All keys, and what to say about one that is none of them.

use super::file::Section;
use super::problem::Report;

/// The sections of the file with their keys. `""` is the top; `server` is `[servers.NAME]`,
/// `listen.unix` one socket of that key.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("", &["listen", "limits", "sessions", "log", "shutdown", "shards", "federation", "servers"]),
    ("listen", &["http", "sse", "ws", "tcp", "unix", "ping_interval", "admin", "hosts", "origins"]),
    ("listen.unix", &["path", "mode", "owner", "users", "server"]),
    ("limits", &["message"]),
    ("sessions", &["idle_timeout"]),
    ("log", &["format"]),
    ("shutdown", &["drain_timeout"]),
    ("federation", &["separator", "timeout", "page"]),
    ("server", SERVER),
    ("servers.NAME.tools", &["allow", "deny", "rename", "descriptions"]),
    ("servers.NAME.endpoints", &["url", "weight"]),
];

const SERVER: &[&str] = &[
    "command",
    "env",
    "cwd",
    "isolation",
    "processes",
    "tasks",
    "start_timeout",
    "idle_timeout",
    "stop_grace",
    "url",
    "endpoints",
    "balance",
    "transport",
    "headers",
    "connections",
    "request_timeout",
    "prefix",
    "tools",
];

/// The keys that only servers with a `command` have.
pub(super) const OF_COMMAND: &[&str] = &[
    "env",
    "cwd",
    "isolation",
    "processes",
    "tasks",
    "start_timeout",
    "idle_timeout",
    "stop_grace",
];

/// Those of them that servers by HTTP+SSE and WebSocket have as well.
pub(super) const OF_UPKEEP: &[&str] = &["isolation", "start_timeout", "idle_timeout"];

/// The keys that only servers with a `url` or with `endpoints` have.
pub(super) const OF_URL: &[&str] = &["balance", "transport", "headers", "connections"];

/// Reports the keys of this table that are not of that section.
pub(super) fn refuse_unknown(table: &Section, section: &str, report: &mut Report<'_>) {
    let known =
        SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys);
    for field in &table.fields {
        if !known.contains(&field.name.as_str()) {
            let message = unknown(&field.name, known);
            report.problem(field.named_at, &field.path, message);
        }
    }
}

/// What to say about a key that is none of these.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known) {
        return format!("unknown key; did you mean `{near}`?");
    }
    let elsewhere = SECTIONS.iter().find(|(_, keys)| keys.contains(&name));
    match elsewhere {
        Some(("", _)) => format!("unknown key; `{name}` belongs at the top of the file"),
        Some(("server", _)) => format!("unknown key; `{name}` belongs into [servers.NAME]"),
        Some((section, _)) => format!("unknown key; `{name}` belongs into [{section}]"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Whether this probably means one of these keys.
pub(super) fn resembles(name: &str, known: &[&str]) -> bool {
    nearest(name, known).is_some()
}

/// The key that was probably meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let far = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|&key| (strsim::osa_distance(&folded, key), key))
        .filter(|&(distance, _)| distance <= far)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, key)| key)
}
