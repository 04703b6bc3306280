//! Where a server is that has a `url` or `endpoints`, checked.

use super::file::{Field, Section, Value};
use super::keys;
use super::problem::Report;
use super::url::{self, Kind, Url};
use super::value;
use crate::limits;
use crate::upstream::catalog::Balance;

/// What a list of endpoints looks like.
const ENDPOINTS: &str = "a list of URLs, such as [\"https://a/mcp\", \"https://b/mcp\"]";

/// What an endpoint looks like.
const ENDPOINT: &str = "a URL, or a table such as { url = \"https://a/mcp\", weight = 3 }";

/// The largest weight.
const WEIGHT_MAX: u32 = 1000;

/// The section of `keys` that an endpoint is.
const SECTION: &str = "servers.NAME.endpoints";

/// A URL of a server.
pub(super) struct Place {
    /// Where it stands.
    pub(super) at: usize,
    /// Its key.
    pub(super) path: String,
    pub(super) url: Url,
}

/// All URLs of a server, of which there is at least one, and how they share the work.
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    pub(super) balance: Balance,
}

impl Places {
    /// What they are spoken to in: all in the same.
    pub(super) fn kind(&self) -> Kind {
        self.list.first().map_or(Kind::Http, |place| place.url.kind)
    }
}

/// What the URLs in a field are, right or wrong; of several, what the first that is none of HTTP
/// is.
pub(super) fn kind(field: &Field) -> Option<Kind> {
    let first = |mut kinds: Vec<Kind>| {
        kinds.sort_by_key(|kind| *kind == Kind::Http);
        kinds.first().copied()
    };
    match &field.value {
        Value::Text(text) => url::kind(text),
        Value::List(items) => first(items.iter().filter_map(kind).collect()),
        Value::Table(fields) => fields.iter().filter(|field| field.name == "url").find_map(kind),
        Value::Integer(_) | Value::Switch(_) | Value::Other(_) => None,
    }
}

/// The keys `url`, `endpoints` and `balance`. None if something is wrong with them, or if there
/// are none.
pub(super) fn build(
    (url, endpoints): (Option<Field>, Option<Field>),
    table: &mut Section,
    report: &mut Report<'_>,
) -> Option<Places> {
    let wanted = "\"round_robin\", \"least_in_flight\", \"weighted\" or \"consistent_hash\"";
    let balance = table.take("balance");
    if let (Some(_), Some(field)) = (&url, &balance) {
        let message = "is only for servers with `endpoints`; remove it";
        report.problem(field.named_at, &field.path, message);
    }
    let balance_at = balance.as_ref().map(|field| (field.at, field.path.clone()));
    let balance = balance.and_then(|field| field.parse(report, wanted, value::balance));
    if let Some(field) = url {
        let (at, path) = (field.at, field.path.clone());
        let url = field.parse(report, url::URL, url::parse)?;
        let balance = Balance::RoundRobin;
        return Some(Places { list: vec![Place { at, path, url }], balance });
    }
    let field = endpoints?;
    let (at, path) = (field.at, field.path.clone());
    let items = field.list(report, ENDPOINTS)?;
    if items.is_empty() || limits::ENDPOINTS_MAX < items.len() {
        let message = format!("must be from 1 to {} endpoints", limits::ENDPOINTS_MAX);
        report.problem(at, &path, message);
        return None;
    }
    let count = items.len();
    let found: Vec<(Place, Option<u32>)> =
        items.into_iter().filter_map(|item| endpoint(item, report)).collect();
    if found.len() < count {
        return None;
    }
    let weights: Vec<u32> = found.iter().map(|(_, weight)| weight.unwrap_or(1)).collect();
    let is_weighted = found.iter().any(|(_, weight)| weight.is_some());
    let list: Vec<Place> = found.into_iter().map(|(place, _)| place).collect();
    refuse_mixture(&list, report);
    let balance = match balance {
        None if is_weighted => Balance::Weighted(weights),
        None => Balance::RoundRobin,
        Some(Balance::Weighted(_)) => Balance::Weighted(weights),
        Some(other) => {
            if let Some((at, path)) = balance_at.filter(|_| is_weighted) {
                let message = "must be \"weighted\", or absent: endpoints have a `weight`";
                report.problem(at, &path, message);
            }
            other
        }
    };
    Some(Places { list, balance })
}

/// An endpoint and its weight.
fn endpoint(field: Field, report: &mut Report<'_>) -> Option<(Place, Option<u32>)> {
    let (at, path) = (field.at, field.path.clone());
    let (field, weight) = match field.value {
        Value::Table(_) => {
            let mut table = field.table(report, ENDPOINT)?;
            keys::refuse_unknown(&table, SECTION, report);
            let weight = table.take("weight");
            let Some(url) = table.take("url") else {
                report.problem(at, &path, format!("has no `url`; an endpoint is {ENDPOINT}"));
                return None;
            };
            (url, weight)
        }
        Value::Text(_) => (field, None),
        _ => return field.refuse(report, ENDPOINT),
    };
    let has_weight = weight.is_some();
    let weight = weight.and_then(|field| field.integer(report, 1..=WEIGHT_MAX));
    let (at, path) = (field.at, field.path.clone());
    let url = field.parse(report, url::URL, url::parse)?;
    (weight.is_some() == has_weight).then_some((Place { at, path, url }, weight))
}

/// Endpoints are as good as each other: they speak the same, and each is there once.
fn refuse_mixture(list: &[Place], report: &mut Report<'_>) {
    let Some(first) = list.first() else { return };
    if first.url.kind == Kind::Tcp {
        let message = "must be URLs of HTTP or WebSocket; one link carries everything to a server \
                       with a tcp or tcps URL, which is its `url`";
        report.problem(first.at, &first.path, message);
    }
    for (index, place) in list.iter().enumerate() {
        if place.url.kind != first.url.kind {
            let message = "must be of the same kind as the first: all http and https, or all ws \
                           and wss";
            report.problem(place.at, &place.path, message);
        }
        if list.iter().take(index).any(|before| before.url == place.url) {
            report.problem(
                place.at,
                &place.path,
                "is there twice; a `weight` says how much it does",
            );
        }
    }
}
