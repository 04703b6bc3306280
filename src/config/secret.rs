//! Values that may be secret: written in place, from the environment, or from a file.
//!
//! `${NAME}` is the environment variable, `${file:/path}` the file, `$${` is `${` itself. A table
//! `{ file = "/path" }` is the whole file. Newlines at the end of a file do not count.

use std::env::VarError;
use std::io;
use std::path::Path;

use super::file::{Field, Section, Value};
use super::keys;
use super::problem::Report;
use crate::upstream::catalog::Secret;

/// What the configuration takes from outside of it.
pub struct Outside<'a> {
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Result<String, VarError>,
    /// Reads a text file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// What a value looks like.
const WANTED: &str = "text (with ${NAME} for an environment variable) or { file = \"/path\" }";

/// The value of a field.
pub(super) fn resolve(
    field: Field,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let (at, path) = (field.at, field.path.clone());
    let found = match field.value {
        Value::Text(text) => expand(&text, outside),
        Value::Table(fields) => {
            return from_table(Section { path, at, fields }, outside, report);
        }
        Value::Integer(_) | Value::Switch(_) | Value::List(_) | Value::Other(_) => {
            return field.refuse(report, WANTED);
        }
    };
    match found {
        Ok(text) => Some(Secret::new(text)),
        Err(messages) => {
            for message in messages {
                report.problem(at, &path, message);
            }
            None
        }
    }
}

/// The value of `{ file = "/path" }`.
fn from_table(
    mut table: Section,
    outside: &Outside<'_>,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let file = table.take("file");
    for field in &table.fields {
        report.problem(field.named_at, &field.path, keys::unknown(&field.name, &["file"]));
    }
    let Some(file) = file else {
        report.problem(table.at, &table.path, format!("must be {WANTED}"));
        return None;
    };
    file.parse(report, "the path of a file", |path| read(path, outside)).map(Secret::new)
}

/// Replaces the references in a text. All that is wrong with it comes back at once.
fn expand(text: &str, outside: &Outside<'_>) -> Result<String, Vec<String>> {
    let mut expanded = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some((before, from)) = rest.find('$').and_then(|at| rest.split_at_checked(at)) {
        expanded.push_str(before);
        if let Some(after) = from.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(after) = from.strip_prefix("${") {
            let Some((name, after)) = after.split_once('}') else {
                wrong.push("has ${ without }; write $${ for the characters themselves".to_owned());
                rest = "";
                break;
            };
            match refer(name, outside) {
                Ok(value) => expanded.push_str(&value),
                Err(message) => wrong.push(message),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = from.strip_prefix('$').unwrap_or_default();
        }
    }
    expanded.push_str(rest);
    if wrong.is_empty() { Ok(expanded) } else { Err(wrong) }
}

/// The value that `${name}` stands for.
fn refer(name: &str, outside: &Outside<'_>) -> Result<String, String> {
    if let Some(path) = name.strip_prefix("file:") {
        return read(path, outside);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = name.starts_with(|first: char| !first.is_ascii_digit());
    if !starts || !name.bytes().all(allowed) {
        return Err("has ${…} that is neither ${NAME}, an environment variable, nor \
                    ${file:/path}; write $${ for the characters themselves"
            .to_owned());
    }
    (outside.env)(name).map_err(|err| match err {
        VarError::NotPresent => format!("the environment variable {name} is not set"),
        VarError::NotUnicode(_) => format!("the environment variable {name} is not valid UTF-8"),
    })
}

fn read(path: &str, outside: &Outside<'_>) -> Result<String, String> {
    if path.is_empty() {
        return Err("must be the path of a file".to_owned());
    }
    match (outside.read)(Path::new(path)) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(err) => Err(format!("cannot read {path}: {err}")),
    }
}
