//! `mcpServers`: the JSON in which clients keep their servers, turned into the tree of our own
//! file.
//!
//! Clients have many keys of their own; those are warned about, not refused. Positions come from
//! where a borrowed value lies in the text; a key is where its value is.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::file::{Field, Section, Value, join};
use super::problem::Report;
use super::url::{self, Kind};

/// Nesting below which values are not read: no key of a server is that deep.
const DEPTH_MAX: u8 = 8;

/// The keys of an entry that mean something here.
const KNOWN: &[&str] = &["type", "disabled", "command", "args", "env", "cwd", "url", "headers"];

/// What `type` can be.
const TYPES: &str = "\"stdio\", \"http\" (or \"streamable-http\"), \"sse\" or \"ws\"";

/// Reads JSON.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Section> {
    let raw: &RawValue = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(err) => {
            // Not the whole error: its end is the position once more.
            let message = err.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let position = (err.line(), err.column().max(1));
            report.problem_on(position, format!("not valid JSON: {message}"));
            return None;
        }
    };
    let top = Source { text }.field(String::new(), "", raw, DEPTH_MAX);
    let mut top = top.table(report, "an object with `mcpServers`")?;
    let Some(servers) = top.take("mcpServers") else {
        let message = "there are no servers; write { \"mcpServers\": { \"name\": { … } } }";
        report.problem(0, "mcpServers", message);
        return None;
    };
    let mut servers = servers.table(report, "an object with a server under each name")?;
    refuse_doubles(&mut servers.fields, report);
    let (path, at) = (servers.path.clone(), servers.at);
    let entries: Vec<Field> =
        servers.fields.into_iter().filter_map(|entry| translate(entry, report)).collect();
    let name = "servers".to_owned();
    let servers = Field { name, path, named_at: at, at, value: Value::Table(entries) };
    Some(Section { path: String::new(), at: 0, fields: vec![servers] })
}

/// An entry in our own form; none if it is to be left out.
fn translate(entry: Field, report: &mut Report<'_>) -> Option<Field> {
    let (name, path, at) = (entry.name.clone(), entry.path.clone(), entry.at);
    // What is no object goes on as it is, to be refused like any other server.
    let Value::Table(_) = entry.value else { return Some(entry) };
    let mut table = entry.table(report, "an object")?;
    if let Some(disabled) = table.take("disabled") {
        match disabled.value {
            Value::Switch(true) => return None,
            Value::Switch(false) => {}
            _ => {
                let _none: Option<()> = disabled.refuse(report, "true or false");
            }
        }
    }
    for unknown in table.fields.extract_if(.., |field| !KNOWN.contains(&field.name.as_str())) {
        report.warning(unknown.at, &unknown.path, "is not a key that the gateway knows; ignored");
    }
    refuse_doubles(&mut table.fields, report);
    if let Some(kind) = table.take("type") {
        let path = kind.path.clone();
        if check_type(kind, &table, report) == Some("sse") && table.find("url").is_some() {
            table.fields.push(Field::made_up("transport", &path, Value::Text("sse".to_owned())));
        }
    }
    for name in ["env", "headers"] {
        // What is wrong with the values is for `server` to say.
        let field = table.fields.iter_mut().find(|field| field.name == name);
        if let Some(Field { value: Value::Table(fields), .. }) = field {
            refuse_doubles(fields, report);
        }
    }
    join_command(&mut table, report);
    Some(Field { name, path, named_at: at, at, value: Value::Table(table.fields) })
}

/// `type` has to fit what the entry has. Returns what it means, if it does.
fn check_type(kind: Field, table: &Section, report: &mut Report<'_>) -> Option<&'static str> {
    let (at, path) = (kind.at, kind.path.clone());
    let kind = kind.parse(report, TYPES, |text| match text {
        "stdio" => Ok("stdio"),
        "http" | "streamable-http" | "streamableHttp" => Ok("http"),
        "sse" => Ok("sse"),
        "ws" | "websocket" => Ok("ws"),
        _ => Err(format!("must be {TYPES}")),
    })?;
    let needed = if kind == "stdio" { "command" } else { "url" };
    let Some(field) = table.find(needed) else {
        report.problem(at, &path, format!("needs `{needed}`, which is not there"));
        return Some(kind);
    };
    match &field.value {
        Value::Text(url) if kind == "ws" && url::kind(url) != Some(Kind::WebSocket) => {
            report.problem(at, &path, "needs a `url` that begins with ws:// or wss://");
            None
        }
        Value::Text(url) if matches!(kind, "http" | "sse") => match url::kind(url) {
            Some(Kind::WebSocket) => {
                report.problem(at, &path, "does not fit the `url`, which is one of WebSocket");
                None
            }
            Some(Kind::Tcp) => {
                let message = "does not fit the `url`, which is one of the TCP binary protocol";
                report.problem(at, &path, message);
                None
            }
            Some(Kind::Http) | None => Some(kind),
        },
        _ => Some(kind),
    }
}

/// `command` and `args` become one list.
fn join_command(table: &mut Section, report: &mut Report<'_>) {
    let args = table.take("args");
    let Some(command) = table.take("command") else {
        if let Some(args) = args {
            report.problem(args.at, &args.path, "is only for servers with a `command`");
        }
        return;
    };
    let (at, path) = (command.at, command.path.clone());
    let command = match command.value {
        Value::Text(_) => command,
        _ => {
            let _none: Option<()> = command.refuse(report, "text: the program");
            // Stands in for it, so that the server is not said to have none.
            Field::made_up("", &path, Value::Text("?".to_owned()))
        }
    };
    let args = args.and_then(|args| args.list(report, "a list of arguments")).unwrap_or_default();
    for word in args.iter().chain([&command]) {
        if matches!(&word.value, Value::Text(text) if text.contains("${")) {
            let message = "${…} is not replaced here, only in `env` and `headers`";
            report.warning(word.at, &word.path, message);
        }
    }
    let words = [command].into_iter().chain(args).collect();
    let name = "command".to_owned();
    table.fields.push(Field { name, path, named_at: at, at, value: Value::List(words) });
}

/// TOML has no doubled keys; JSON leaves them to the reader. Only the first stays.
fn refuse_doubles(fields: &mut Vec<Field>, report: &mut Report<'_>) {
    let mut names: HashSet<String> = HashSet::new();
    for double in fields.extract_if(.., |field| !names.insert(field.name.clone())) {
        report.problem(double.at, &double.path, "is there twice");
    }
}

/// The text that the values borrow from.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
}

impl<'a> Source<'a> {
    fn field(self, path: String, name: &str, raw: &'a RawValue, depth: u8) -> Field {
        let raw = raw.get();
        let at = raw.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        let value = self.value(&path, raw, depth);
        Field { name: name.to_owned(), path, named_at: at, at, value }
    }

    fn value(self, path: &str, raw: &'a str, depth: u8) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return Value::Other("something nested deeply");
        };
        let text = || serde_json::from_str(raw).map(Value::Text);
        let list = || serde_json::from_str(raw).map(|items| self.list(path, items, depth));
        let table = || serde_json::from_str(raw).map(|Table(items)| self.table(path, items, depth));
        let number = || serde_json::from_str(raw).map(Value::Integer);
        match raw.bytes().next() {
            Some(b'"') => text().unwrap_or(Value::Other("text that is not valid Unicode")),
            Some(b'[') => list().unwrap_or(Value::Other("a broken list")),
            Some(b'{') => table().unwrap_or(Value::Other("a broken object")),
            Some(b't') => Value::Switch(true),
            Some(b'f') => Value::Switch(false),
            Some(b'n') => Value::Other("null"),
            _ => number().unwrap_or(Value::Other("a number that is not whole")),
        }
    }

    fn list(self, path: &str, items: Vec<&'a RawValue>, depth: u8) -> Value {
        let items = items.into_iter().enumerate();
        let field = |(index, raw)| self.field(format!("{path}[{index}]"), "", raw, depth);
        Value::List(items.map(field).collect())
    }

    fn table(self, path: &str, items: Vec<(String, &'a RawValue)>, depth: u8) -> Value {
        let field = |(name, raw): (String, _)| self.field(join(path, &name), &name, raw, depth);
        Value::Table(items.into_iter().map(field).collect())
    }
}

/// The members of an object in their order, unread.
struct Table<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Table<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor).map(Self)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut table = Vec::new();
        while let Some(member) = members.next_entry()? {
            table.push(member);
        }
        Ok(table)
    }
}
