//! What a person may write: a tree of fields that know their key and their place.
//!
//! The tree has no `Debug`: it holds secrets.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::Report;

/// A key and its value.
pub(super) struct Field {
    /// The last part of the key.
    pub(super) name: String,
    /// The whole key, for problems.
    pub(super) path: String,
    /// The byte where the key stands.
    pub(super) named_at: usize,
    /// The byte where the value stands.
    pub(super) at: usize,
    /// The value.
    pub(super) value: Value,
}

/// A value as it was written.
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Switch(bool),
    List(Vec<Field>),
    Table(Vec<Field>),
    /// Something that no key takes, by its description.
    Other(&'static str),
}

/// A table being read: each key is taken at most once.
pub(super) struct Section {
    /// The key of the table; empty at the top.
    pub(super) path: String,
    /// The byte where it begins.
    pub(super) at: usize,
    /// What was not taken yet.
    pub(super) fields: Vec<Field>,
}

/// Reads TOML. Reports all syntax errors; then there is no tree, for it would be full of
/// consequences.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Section> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for err in &errors {
        let at = err.span().map_or(text.len(), |span| span.start);
        // Not the whole error: it would quote the line.
        report.problem(at, "", format!("not valid TOML: {}", err.message()));
    }
    let fields = fields("", table.get_ref());
    errors.is_empty().then_some(Section { path: String::new(), at: 0, fields })
}

/// The fields of a table in the order of the file. Depth is bounded by the parser.
fn fields(path: &str, table: &DeTable<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = table
        .iter()
        .map(|(name, value)| {
            let path = join(path, name.get_ref());
            field(path, name.get_ref(), name.span().start, value)
        })
        .collect();
    fields.sort_by_key(|field| field.named_at);
    fields
}

fn field(path: String, name: &str, named_at: usize, spanned: &Spanned<DeValue<'_>>) -> Field {
    let at = spanned.span().start;
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number of more than 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(switch) => Value::Switch(*switch),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => {
            let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                field(format!("{path}[{index}]"), "", item.span().start, item)
            };
            Value::List(items.iter().enumerate().map(item).collect())
        }
        DeValue::Table(table) => Value::Table(fields(&path, table)),
    };
    Field { name: name.to_owned(), path, named_at, at, value }
}

/// The key of a field of a table.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_bare = !name.is_empty() && name.bytes().all(bare);
    let name = if is_bare { name.to_owned() } else { format!("\"{name}\"") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

impl Section {
    /// Takes a field out.
    pub(super) fn take(&mut self, name: &str) -> Option<Field> {
        let index = self.fields.iter().position(|field| field.name == name)?;
        Some(self.fields.remove(index))
    }

    /// Looks at a field without taking it.
    pub(super) fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Takes a table out and refuses the keys in it that are not of that section.
    pub(super) fn section(&mut self, name: &str, report: &mut Report<'_>) -> Self {
        let field = self.take(name);
        let section = field.and_then(|field| field.table(report, "a table"));
        let section = section.unwrap_or_else(|| Self::empty(join(&self.path, name)));
        keys::refuse_unknown(&section, name, report);
        section
    }

    fn empty(path: String) -> Self {
        Self { path, at: 0, fields: Vec::new() }
    }
}

impl Field {
    /// A field that nobody wrote into a file.
    pub(super) fn made_up(name: &str, path: &str, value: Value) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), named_at: 0, at: 0, value }
    }

    /// Its text, parsed. `wanted` says what would be right if it is no text.
    pub(super) fn parse<T>(
        self,
        report: &mut Report<'_>,
        wanted: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Value::Text(text) = &self.value else { return self.refuse(report, wanted) };
        match parse(text) {
            Ok(value) => Some(value),
            Err(message) => {
                report.problem(self.at, &self.path, message);
                None
            }
        }
    }

    /// Its number, if it is in that range.
    pub(super) fn integer(
        self,
        report: &mut Report<'_>,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Integer(integer) = self.value else { return self.refuse(report, &wanted) };
        match u32::try_from(integer).ok().filter(|integer| range.contains(integer)) {
            Some(integer) => Some(integer),
            None => {
                report.problem(self.at, &self.path, format!("must be {wanted}"));
                None
            }
        }
    }

    /// Its items.
    pub(super) fn list(self, report: &mut Report<'_>, wanted: &str) -> Option<Vec<Self>> {
        match self.value {
            Value::List(items) => Some(items),
            _ => self.refuse(report, wanted),
        }
    }

    /// Its fields.
    pub(super) fn table(self, report: &mut Report<'_>, wanted: &str) -> Option<Section> {
        match self.value {
            Value::Table(fields) => Some(Section { path: self.path, at: self.at, fields }),
            _ => self.refuse(report, wanted),
        }
    }

    /// Reports that it is of the wrong kind.
    pub(super) fn refuse<T>(self, report: &mut Report<'_>, wanted: &str) -> Option<T> {
        let kind = match self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a number",
            Value::Switch(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        };
        report.problem(self.at, &self.path, format!("must be {wanted}, not {kind}"));
        None
    }
}
