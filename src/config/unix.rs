//! `listen.unix`: sockets in the file system, and who may use them.

use std::path::{Path, PathBuf};

use super::file::{Field, Section, Value};
use super::keys;
use super::problem::Report;
use super::secret::Outside;
use crate::upstream::catalog::{Catalog, ServerId};

/// A Unix socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unix {
    /// Where its file is.
    pub path: PathBuf,
    /// The permissions of the file: who can write to it can connect.
    pub mode: u32,
    /// The user that the file is given to; none: that of the gateway.
    pub user: Option<u32>,
    /// The same for its group.
    pub group: Option<u32>,
    /// Users that may come in; none: whoever the file lets in.
    pub users: Option<Vec<u32>>,
    /// The server of all who come in; none: the only one.
    pub server: Option<ServerId>,
}

/// What the values may refer to.
pub(super) struct Known<'a> {
    /// The servers of the file, those that are wrong included.
    pub names: &'a [String],
    pub catalog: &'a Catalog,
    pub outside: &'a Outside<'a>,
}

/// Bytes of a path: what fits into the kernel's `sockaddr_un`, without the zero behind it.
const PATH_LEN_MAX: usize = 107;

/// Permissions unless configured: nobody but the user of the gateway.
const MODE: u32 = 0o600;

/// The largest id: the one above it means "none" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

const WANTED: &str = "the path of a socket, such as \"/run/mcp.sock\", a table with a `path`, or a \
                      list of those";
const WANTED_PATH: &str = "the path of a socket, such as \"/run/mcp.sock\", of at most 107 bytes";
const WANTED_MODE: &str = "permissions in octal, such as \"0600\" (only the owner of the file can \
                           connect) or \"0660\" (its group can, too)";
const WANTED_OWNER: &str = "a user, a user and a group, or a group: \"alice\", \"alice:staff\" or \
                            \":staff\"; by name or by number";
const WANTED_USERS: &str = "a list of users, by name or by number, such as [\"alice\", 1000]";
const WANTED_USER: &str = "a user, by name or by number, such as \"alice\" or 1000";

/// A socket, or a list of them.
pub(super) fn build(field: Field, known: &Known<'_>, report: &mut Report<'_>) -> Vec<Unix> {
    let items = match field.value {
        Value::List(items) if !items.is_empty() => items,
        Value::List(_) => {
            report.problem(field.at, &field.path, format!("must not be empty: {WANTED}"));
            return Vec::new();
        }
        _ => vec![field],
    };
    let mut found: Vec<Unix> = Vec::new();
    for item in items {
        let (at, path) = (item.at, item.path.clone());
        let Some(unix) = one(item, known, report) else { continue };
        if found.iter().any(|other| other.path == unix.path) {
            report.problem(at, &path, "is there twice; each socket needs a path of its own");
        }
        found.push(unix);
    }
    found
}

fn one(field: Field, known: &Known<'_>, report: &mut Report<'_>) -> Option<Unix> {
    let (at, key) = (field.at, field.path.clone());
    let mut table = match field.value {
        Value::Text(_) => {
            let fields = vec![Field { name: "path".to_owned(), ..field }];
            Section { path: key.clone(), at, fields }
        }
        Value::Table(fields) => Section { path: key.clone(), at, fields },
        _ => return field.refuse(report, WANTED),
    };
    keys::refuse_unknown(&table, "listen.unix", report);
    let path = match table.take("path") {
        Some(path) => path.parse(report, WANTED_PATH, path_of),
        None => {
            report.problem(at, &key, format!("needs a `path`: {WANTED_PATH}"));
            None
        }
    };
    let mode = table.take("mode").and_then(|field| field.parse(report, WANTED_MODE, mode_of));
    let owner = table
        .take("owner")
        .and_then(|field| field.parse(report, WANTED_OWNER, |text| owner_of(text, known.outside)));
    let users = table.take("users").and_then(|field| users_of(field, known, report));
    let server = server_of(table.take("server"), known, report);
    let (mode, (user, group)) = (mode.unwrap_or(MODE), owner.unwrap_or_default());
    if mode & 0o002 != 0 && users.is_none() {
        let message = "everybody on this machine can connect, and there is no authentication yet; \
                       name those who may in `users`";
        report.warning(at, &key, message);
    }
    Some(Unix { path: path?, mode, user, group, users, server })
}

fn path_of(text: &str) -> Result<PathBuf, String> {
    let is_file = !text.is_empty() && !text.ends_with('/') && !text.contains('\0');
    if is_file && text.len() <= PATH_LEN_MAX {
        return Ok(PathBuf::from(text));
    }
    Err(format!("must be {WANTED_PATH}"))
}

fn mode_of(text: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| format!("must be {WANTED_MODE}"))
}

fn owner_of(text: &str, outside: &Outside<'_>) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err(format!("must be {WANTED_OWNER}"));
    }
    let named = |name: &str, kind: &Kind| match name {
        "" => Ok(None),
        name => id_of(name, kind, outside).map(Some),
    };
    Ok((named(user, &USER)?, named(group, &GROUP)?))
}

fn users_of(field: Field, known: &Known<'_>, report: &mut Report<'_>) -> Option<Vec<u32>> {
    let (at, path) = (field.at, field.path.clone());
    let items = field.list(report, WANTED_USERS)?;
    if items.is_empty() {
        report.problem(at, &path, format!("must not be empty: {WANTED_USERS}"));
    }
    let user = |item: Field, report: &mut Report<'_>| match item.value {
        Value::Integer(_) => item.integer(report, 0..=ID_MAX),
        _ => item.parse(report, WANTED_USER, |text| id_of(text, &USER, known.outside)),
    };
    // Also if some of them are wrong: none would mean everybody.
    Some(items.into_iter().filter_map(|item| user(item, report)).collect())
}

/// What people and their groups are called, and where.
struct Kind {
    what: &'static str,
    file: &'static str,
}

const USER: Kind = Kind { what: "user", file: "/etc/passwd" };
const GROUP: Kind = Kind { what: "group", file: "/etc/group" };

/// The number of a user or group. In both files a line is `name:password:number:…`.
fn id_of(text: &str, kind: &Kind, outside: &Outside<'_>) -> Result<u32, String> {
    let Kind { what, file } = kind;
    let lines = (outside.read)(Path::new(file)).unwrap_or_default();
    let number = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok())?
    });
    let number: Option<u32> = number.or_else(|| text.parse().ok());
    number.filter(|number| *number <= ID_MAX).ok_or_else(|| {
        format!("there is no {what} of this name in {file}; write the number of the {what}")
    })
}

/// The server that clients get here: they have no way to name one.
fn server_of(field: Option<Field>, known: &Known<'_>, report: &mut Report<'_>) -> Option<ServerId> {
    let field = field?;
    let find = |name: &str| {
        if known.names.iter().any(|other| other == name) {
            return Ok(known.catalog.find(name));
        }
        Err(format!("there is no server of this name; known: {}", known.names.join(", ")))
    };
    field.parse(report, "the name of a server", find).flatten()
}
