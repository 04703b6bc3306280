//! Servers of revision 2024-11-05 (HTTP+SSE): an event stream brings their messages, and a POST
//! takes each of ours to an address that the stream names first.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::ExchangeId;
use crate::limits;
use crate::upstream::catalog::{Endpoint, Secret};

/// What carries the messages of such a server, in the place of the streams of a process.
#[derive(Debug, Default)]
pub struct EventStream {
    /// The exchange that brings it.
    pub exchange: Option<ExchangeId>,
    /// Where messages are posted: a request target. It names the server's session.
    pub target: Option<Secret>,
    /// Messages that wait until the one before is taken.
    pub queue: VecDeque<Bytes>,
    /// Bytes of `queue` and of the message that is on its way.
    pub queued_len: usize,
    /// The message that is on its way.
    pub posting: Option<ExchangeId>,
    /// Whether messages are being taken from the queue just now.
    pub is_sending: bool,
}

/// The request target that a stream names: a reference (RFC 3986, section 4.1) from the URL of the
/// stream. None: it is none, or leads to another origin.
pub fn resolve(endpoint: &Endpoint, reference: &[u8]) -> Option<String> {
    let reference = std::str::from_utf8(reference).ok()?.trim();
    let refused = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
    if reference.is_empty() || reference.bytes().any(refused) {
        return None;
    }
    let reference = reference.split('#').next().unwrap_or_default();
    let base = endpoint.target.split('?').next().unwrap_or_default();
    let target = match reference.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let own = if endpoint.tls { "https" } else { "http" };
            if !scheme.eq_ignore_ascii_case(own) {
                return None;
            }
            of_authority(endpoint, rest)?
        }
        _ => match reference.strip_prefix("//") {
            Some(rest) => of_authority(endpoint, rest)?,
            None if reference.starts_with('/') => reference.to_owned(),
            None if reference.starts_with('?') => format!("{base}{reference}"),
            None if reference.is_empty() => endpoint.target.clone(),
            None => {
                let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{reference}")
            }
        },
    };
    let target = without_dots(&target);
    (target.len() < limits::TARGET_LEN_MAX).then_some(target)
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What follows the authority, if that is the endpoint's own.
fn of_authority(endpoint: &Endpoint, rest: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    let port = if endpoint.tls { ":443" } else { ":80" };
    let known = &endpoint.authority;
    let is_own = authority.eq_ignore_ascii_case(known)
        || authority.strip_suffix(port).is_some_and(|host| host.eq_ignore_ascii_case(known));
    let slash = if target.starts_with('/') { "" } else { "/" };
    is_own.then(|| format!("{slash}{target}"))
}

/// RFC 3986, section 5.2.4.
fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for part in path.split('/').skip(1) {
        is_folder = matches!(part, "." | "..");
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if is_folder {
        parts.push("");
    }
    let mut text = format!("/{}", parts.join("/"));
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::catalog::Upkeep;

    #[test]
    fn an_address_is_resolved_and_leads_to_no_other_origin() {
        let endpoint = |tls, authority: &str, target: &str| Endpoint {
            tls,
            host: "h".to_owned(),
            port: 1,
            authority: authority.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            conns_max: 1,
            upkeep: Upkeep::default(),
        };
        let plain = endpoint(false, "h:81", "/a/b/sse?x=/y");
        for (reference, expected) in [
            ("/messages?id=1", Some("/messages?id=1")),
            ("messages/?id=1", Some("/a/b/messages/?id=1")),
            ("?id=1", Some("/a/b/sse?id=1")),
            ("./m", Some("/a/b/m")),
            ("../m?x=../..", Some("/a/m?x=../..")),
            ("../../../../m", Some("/m")),
            ("m/..", Some("/a/b/")),
            (" /m#f\n", Some("/m")),
            ("http://h:81/m", Some("/m")),
            ("HTTP://H:81?q", Some("/?q")),
            ("//h:81/m", Some("/m")),
            ("/to?url=http://other/", Some("/to?url=http://other/")),
            ("http://h/m", None),
            ("http://h:82/m", None),
            ("http://other:81/m", None),
            ("http://h:81@other/m", None),
            ("https://h:81/m", None),
            ("//other/m", None),
            ("/m m", None),
            ("/m\r\nHost: x", None),
            ("/\u{e4}", None),
            ("", None),
        ] {
            let found = resolve(&plain, reference.as_bytes());
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
        let secure = endpoint(true, "h", "/sse");
        assert_eq!(resolve(&secure, b"https://h:443/m").as_deref(), Some("/m"));
        assert_eq!(resolve(&secure, b"http://h/m"), None);
        let long = format!("/{}", "x".repeat(limits::TARGET_LEN_MAX));
        assert_eq!(resolve(&secure, long.as_bytes()), None);
    }
}
