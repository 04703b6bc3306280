//! The URL of a server, taken apart. No more of RFC 3986 than an endpoint needs.

use crate::admission::origin;
use crate::limits;

/// What a URL looks like.
pub(super) const URL: &str = "a URL such as \"https://host/mcp\"";

/// The port of the TCP binary protocol, since the predecessor.
const TCP_PORT: u16 = 8444;

/// Bytes of the name of a server.
const NAME_LEN_MAX: usize = 64;

/// What a server is spoken to in, by the scheme of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `http` or `https`.
    Http,
    /// `ws` or `wss`.
    WebSocket,
    /// `tcp` or `tcps`: the TCP binary protocol.
    Tcp,
}

/// A checked URL; see [`crate::upstream::catalog::Endpoint`] for the fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) target: String,
}

/// Checks a URL. Errors quote nothing of it: it may hold a secret.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("must be {URL}"));
    };
    let Some((kind, tls)) = known(scheme) else {
        return Err(
            "must begin with http://, https://, ws://, wss://, tcp:// or tcps://".to_owned()
        );
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((authority, target)) = rest.split_at_checked(end) else {
        return Err(format!("must be {URL}"));
    };
    if authority.contains('@') {
        return Err("must not contain a user or password; put credentials into `headers`, \
                    such as Authorization"
            .to_owned());
    }
    let (host, port) = split(authority)?;
    let port_default = match (kind, tls) {
        (Kind::Tcp, _) => TCP_PORT,
        (Kind::Http | Kind::WebSocket, true) => 443,
        (Kind::Http | Kind::WebSocket, false) => 80,
    };
    let port = port.unwrap_or(port_default);
    let target = if kind == Kind::Tcp { check_name(target)? } else { check_target(target)? };
    let authority = if port == port_default { host.clone() } else { format!("{host}:{port}") };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.map_or_else(|| host.clone(), str::to_owned);
    Ok(Url { tls, kind, host, port, authority, target })
}

/// What a URL is one of, right or wrong.
pub(super) fn kind(text: &str) -> Option<Kind> {
    let (scheme, _) = text.split_once("://")?;
    known(scheme).map(|(kind, _)| kind)
}

/// What a scheme stands for, and whether it is TLS.
fn known(scheme: &str) -> Option<(Kind, bool)> {
    Some(match scheme.to_ascii_lowercase().as_str() {
        "http" => (Kind::Http, false),
        "https" => (Kind::Http, true),
        "ws" => (Kind::WebSocket, false),
        "wss" => (Kind::WebSocket, true),
        "tcp" => (Kind::Tcp, false),
        "tcps" => (Kind::Tcp, true),
        _ => return None,
    })
}

/// The host, in lower case, and the port.
fn split(authority: &str) -> Result<(String, Option<u16>), String> {
    let colon = match authority.rfind(':') {
        Some(colon) if authority.get(colon..).is_some_and(|end| !end.contains(']')) => colon,
        _ => authority.len(),
    };
    let Some((host, port)) = authority.split_at_checked(colon) else {
        return Err(format!("must be {URL}"));
    };
    if host.is_empty() {
        return Err(format!("must name a host: {URL}"));
    }
    if !origin::is_host(host) {
        return Err("must name a host by a DNS name (in ASCII), an IPv4 address, or an IPv6 \
                    address in brackets"
            .to_owned());
    }
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port| *port != 0);
            Some(port.ok_or("must have a port from 1 to 65535 after the host")?)
        }
        Some(_) => return Err("must have a port from 1 to 65535 after the host".to_owned()),
        None => None,
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The request target: path and query.
fn check_target(target: &str) -> Result<String, String> {
    if target.contains('#') {
        return Err("must not have a fragment (#…)".to_owned());
    }
    if target.contains("${") {
        return Err("must not contain ${…}: it is replaced in `env` and `headers` only".to_owned());
    }
    let refused = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
    if target.bytes().any(refused) {
        return Err("must not contain spaces, control characters, non-ASCII characters or any of \
                    \"<>\\^`{|} after the host; write them as %XX"
            .to_owned());
    }
    if target.len() >= limits::TARGET_LEN_MAX {
        return Err(format!("must have a path and query below {} bytes", limits::TARGET_LEN_MAX));
    }
    if target.starts_with('/') { Ok(target.to_owned()) } else { Ok(format!("/{target}")) }
}

/// The path of a URL of the binary protocol: which server is meant there, or none.
fn check_name(target: &str) -> Result<String, String> {
    let name = target.strip_prefix('/').unwrap_or(target);
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.len() > NAME_LEN_MAX || !name.bytes().all(is_fine) {
        return Err("must have the name of a server behind the host, such as \
                    \"tcp://host:8444/search\", or nothing"
            .to_owned());
    }
    Ok(format!("/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of the URL, or `!` and a piece of the problem.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match parse(text) {
            Ok(url) => format!(
                "{} {} {} {} {}",
                if url.tls { "tls" } else { "plain" },
                url.host,
                url.port,
                url.authority,
                url.target
            ),
            Err(message) => {
                let piece = expected.strip_prefix('!').unwrap_or("?");
                assert!(message.contains(piece), "{text}: {message}");
                return;
            }
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn urls_are_taken_apart() {
        check("http://a", "plain a 80 a /");
        check("HTTPS://A.Example./mcp", "tls a.example. 443 a.example. /mcp");
        check("wss://a/mcp", "tls a 443 a /mcp");
        check("WS://a:80", "plain a 80 a /");
        check("http://a:80/x?y=/?", "plain a 80 a /x?y=/?");
        check("https://a:80?q", "tls a 80 a:80 /?q");
        check("http://127.0.0.1:3001/mcp", "plain 127.0.0.1 3001 127.0.0.1:3001 /mcp");
        check("http://[::1]:3001/mcp", "plain ::1 3001 [::1]:3001 /mcp");
        check("https://[2001:DB8::1]/", "tls 2001:db8::1 443 [2001:db8::1] /");
        check("tcp://a", "plain a 8444 a /");
        check("TCPS://a:1/Files_2-x", "tls a 1 a:1 /Files_2-x");
        check("tcp://[::1]/", "plain ::1 8444 [::1] /");
        check("http://a/a%20b;c=d,e@f:!$&'()*+~", "plain a 80 a /a%20b;c=d,e@f:!$&'()*+~");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        check("", "!must be a URL");
        check("a/mcp", "!must be a URL");
        check("ftp://a", "!must begin with http");
        check("http://", "!must name a host");
        check("http:///mcp", "!must name a host");
        check("http://:80/", "!must name a host");
        check("http://user:pass@a/", "!`headers`");
        check("http://user@/", "!`headers`");
        check("http://a@b:80#c", "!`headers`");
        check("http://a/#x", "!fragment");
        check("http://a#x", "!fragment");
        check("http://a:/", "!port");
        check("http://a:0/", "!port");
        check("http://a:65536/", "!port");
        check("http://a:8o/", "!port");
        check("http://a:+80/", "!port");
        check("http://::1/", "!IPv6 address in brackets");
        check("http://[::1/", "!IPv6 address in brackets");
        check("http://[fe80::1%25eth0]/", "!IPv6 address in brackets");
        check("http://münchen/", "!in ASCII");
        check("http://a b/", "!DNS name");
        check("http://a\\b/", "!DNS name");
        check("tcp://a/b/c", "!the name of a server");
        check("tcp://a?b", "!the name of a server");
        check("tcp://a/b#", "!the name of a server");
        check("tcp://user@a/", "!user or password");
        check("http://${HOST}/", "!DNS name");
        check("http://a/${KEY}", "!${…}");
        check("http://a/a b", "!%XX");
        check("http://a/ä", "!%XX");
        check("http://a/\r\nHost: b", "!%XX");
        check(&format!("http://a/{}", "x".repeat(9000)), "!8192 bytes");
    }
}
