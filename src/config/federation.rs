//! `[federation]`, and what each server is in it: `prefix` and `tools`.

use super::file::{Field, Section, Value};
use super::keys;
use super::problem::Report;
use super::value;
use crate::limits;
use crate::upstream::catalog::{Catalog, Server, ServerId};
use crate::upstream::view::{Member, Rules, View};

/// Between the name of a server and that of its tool, unless configured.
const SEPARATOR: &str = "__";

/// Entries on a page: the most that may be configured.
const PAGE_LEN_LIMIT: u32 = 10_000;

/// What the view of all servers is called in the log: no server can be.
const ROOT: &str = "*";

/// What a server is in a view.
pub(super) struct Membership {
    prefix: bool,
    rules: Rules,
    /// Where it is said that it has no prefix.
    at: (usize, String),
}

impl Membership {
    /// Takes what belongs to it from `[servers.NAME]`.
    pub(super) fn take(table: &mut Section, report: &mut Report<'_>) -> Self {
        let mut at = (table.at, format!("{}.prefix", table.path));
        let prefix = table.take("prefix").and_then(|field| {
            at.0 = field.at;
            match field.value {
                Value::Switch(switch) => Some(switch),
                _ => field.refuse(report, "true or false"),
            }
        });
        let rules = table.take("tools").and_then(|field| rules(field, report));
        Self { prefix: prefix.unwrap_or(true), rules: rules.unwrap_or_default(), at }
    }
}

/// `tools`.
fn rules(field: Field, report: &mut Report<'_>) -> Option<Rules> {
    let wanted = "a table with allow, deny, rename and descriptions";
    let mut table = field.table(report, wanted)?;
    keys::refuse_unknown(&table, "servers.NAME.tools", report);
    let allow = table.take("allow").map(|field| patterns(field, report));
    let deny = table.take("deny").map(|field| patterns(field, report));
    let rename = table.take("rename").map(|field| texts(field, report)).unwrap_or_default();
    let descriptions = table.take("descriptions").map(|field| texts(field, report));
    for (index, (_, path, to)) in rename.iter().enumerate() {
        if to.is_empty() || rename.iter().take(index).any(|(.., other)| other == to) {
            let message = "must be a name, and one that no other tool of the server gets";
            report.problem(table.at, path, message);
        }
    }
    let plain = |list: Vec<(String, String, String)>| {
        list.into_iter().map(|(name, _, text)| (name, text)).collect()
    };
    Some(Rules {
        allow,
        deny: deny.unwrap_or_default(),
        rename: plain(rename),
        descriptions: plain(descriptions.unwrap_or_default()),
    })
}

fn patterns(field: Field, report: &mut Report<'_>) -> Vec<String> {
    let wanted = "a list of names of tools, with * for anything";
    let items = field.list(report, wanted).unwrap_or_default();
    let text = |text: &str| match text.is_empty() {
        true => Err("must be the name of a tool, or a pattern such as \"read_*\"".to_owned()),
        false => Ok(text.to_owned()),
    };
    items.into_iter().filter_map(|item| item.parse(report, "a name or pattern", text)).collect()
}

/// A table of texts: name, path and text of each.
fn texts(field: Field, report: &mut Report<'_>) -> Vec<(String, String, String)> {
    let table = field.table(report, "a table: the server's name of a tool, and a text");
    let fields = table.map(|table| table.fields).unwrap_or_default();
    let text = |field: Field| {
        let (name, path) = (field.name.clone(), field.path.clone());
        let text = field.parse(report, "text", |text| Ok(text.to_owned()))?;
        Some((name, path, text))
    };
    fields.into_iter().filter_map(text).collect()
}

/// The catalog: the servers, and the views of them.
pub(super) fn catalog(
    mut table: Section,
    servers: Vec<(Server, Membership)>,
    report: &mut Report<'_>,
) -> Catalog {
    let separator = table
        .take("separator")
        .and_then(|field| field.parse(report, SEPARATOR_WANTED, separator))
        .unwrap_or_else(|| SEPARATOR.to_owned());
    let timeout = table
        .take("timeout")
        .and_then(|field| field.parse(report, value::DURATION, value::duration));
    let page = table.take("page").and_then(|field| field.integer(report, 1..=PAGE_LEN_LIMIT));
    let page_len = page.and_then(|page| usize::try_from(page).ok());
    let page_len = page_len.unwrap_or(limits::UNION_PAGE_LEN);
    let timeout = timeout.unwrap_or(limits::UNION_TIMEOUT);
    warn_collisions(&servers, report);
    let (servers, memberships): (Vec<Server>, Vec<Membership>) = servers.into_iter().unzip();
    let member = |(id, (server, it)): (ServerId, (&Server, &Membership))| Member {
        server: id,
        prefix: it.prefix.then(|| server.name.clone()),
        name: server.name.clone(),
        rules: it.rules.clone(),
    };
    let members: Vec<Member> =
        (0..).map(ServerId).zip(servers.iter().zip(&memberships)).map(member).collect();
    let view = |members| View { members, separator: separator.clone(), timeout, page_len };
    let mut catalog = Catalog::new(servers);
    for member in members.iter().filter(|member| !member.rules.is_empty()) {
        // By its own name it has the same tools as among the others, without a prefix.
        let alone = Member { prefix: None, ..member.clone() };
        catalog.add_view(Some(member.server), member.name.clone(), view(vec![alone]));
    }
    if members.len() > 1 {
        catalog.add_view(None, ROOT.to_owned(), view(members));
    }
    catalog
}

/// Names without a prefix may be equal, which only shows when the servers run.
fn warn_collisions(servers: &[(Server, Membership)], report: &mut Report<'_>) {
    let mut plain = servers.iter().filter(|(_, it)| !it.prefix);
    let Some((first, _)) = plain.next() else { return };
    for (_, membership) in plain {
        let (at, path) = &membership.at;
        let message = format!(
            "like `{}`, it has no prefix: of tools with one name, that of the server that comes \
             first keeps it, and the other gets its server's name before it",
            first.name
        );
        report.warning(*at, path, message);
    }
}

const SEPARATOR_WANTED: &str = "1 to 8 letters, digits, -, _ and .";

fn separator(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match (1..=limits::SEPARATOR_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!("must be {SEPARATOR_WANTED}")),
    }
}
