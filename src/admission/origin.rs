//! Which `Host` and `Origin` values are served: the defence against DNS rebinding.
//!
//! A page of another site can make a browser send requests here, and can let its own name resolve
//! to this machine. It cannot choose the `Host` and `Origin` that the browser writes. So: a name
//! is served only if nobody else can make it resolve to us, and an origin only if it is this
//! gateway itself, a page on this machine (while only this machine can connect), or configured.
//!
//! Requests without `Origin` do not come from a page of another site; the caller admits them.

use std::net::{IpAddr, SocketAddr};

/// The rule.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Only this machine can connect.
    loopback_only: bool,
    /// Further names, in lower case, without the final dot.
    hosts: Vec<String>,
    /// Further origins, as they were configured.
    origins: Vec<String>,
}

/// `http` or `https` origin, taken apart.
#[derive(Clone, Copy, Debug)]
struct Site<'a> {
    host: &'a str,
    port: u16,
    port_default: u16,
}

impl Default for Policy {
    /// Nothing configured, and only this machine can connect.
    fn default() -> Self {
        Self::new(&[], Vec::new(), Vec::new())
    }
}

impl Policy {
    /// The rule of a gateway that listens there, with further host names (without port) and
    /// further origins (as a browser writes them, or `null`).
    pub fn new(listen: &[SocketAddr], hosts: Vec<String>, origins: Vec<String>) -> Self {
        let loopback_only = listen.iter().all(|addr| is_loopback_ip(addr.ip()));
        let hosts = hosts.iter().map(|host| without_dot(host).to_ascii_lowercase()).collect();
        Self { loopback_only, hosts, origins }
    }

    /// Whether a request with this `Host` is served. Its port does not matter.
    pub fn admits_host(&self, host: &[u8]) -> bool {
        let Some((host, _port)) = std::str::from_utf8(host).ok().and_then(split_port) else {
            return false;
        };
        if self.hosts.iter().any(|known| same_name(known, host)) {
            return true;
        }
        match literal(host) {
            // An address cannot be made to resolve to something else.
            Some(ip) => !self.loopback_only || is_loopback_ip(ip),
            None => is_localhost(host),
        }
    }

    /// Whether a request with this `Origin`, to this `Host`, is served.
    pub fn admits_origin(&self, origin: &[u8], host: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.origins.iter().any(|known| same_origin(known, origin)) {
            return true;
        }
        let Some(site) = Site::parse(origin) else { return false };
        if self.loopback_only && is_here(site.host) {
            return true;
        }
        self.is_itself(site, host)
    }

    /// Whether the page comes from the very host and port that the request goes to.
    fn is_itself(&self, site: Site<'_>, host: &[u8]) -> bool {
        let Some((name, port)) = std::str::from_utf8(host).ok().and_then(split_port) else {
            return false;
        };
        // A proxy before us may have ended TLS, so a missing port means the scheme of the page.
        let port = port.unwrap_or(site.port_default);
        same_name(site.host, name) && site.port == port && self.admits_host(host)
    }
}

impl<'a> Site<'a> {
    /// Takes `http://host[:port]` or `https://host[:port]` apart; nothing may follow.
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let port_default = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => 80,
            _ if scheme.eq_ignore_ascii_case("https") => 443,
            _ => return None,
        };
        let (host, port) = split_port(authority)?;
        Some(Self { host, port: port.unwrap_or(port_default), port_default })
    }
}

/// Whether this host, without port, is this machine by its very name: `localhost`, a name below
/// it, or a loopback address (IPv6 with or without brackets).
pub fn is_loopback(host: &str) -> bool {
    let ip = host.parse().ok().or_else(|| literal(host));
    ip.map_or_else(|| is_localhost(host), is_loopback_ip)
}

/// Whether this is a host name or an address literal (IPv6 in brackets), without port.
pub fn is_host(host: &str) -> bool {
    matches!(split_port(host), Some((_, None)))
}

/// Whether a browser may write this as the origin of a page: `scheme://host[:port]`.
pub fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && split_port(authority).is_some()
}

/// The same origin: the same bytes, or the same scheme, host and port.
fn same_origin(known: &str, origin: &str) -> bool {
    if known == origin {
        return true;
    }
    match (Site::parse(known), Site::parse(origin)) {
        (Some(known), Some(origin)) => {
            known.port_default == origin.port_default
                && known.port == origin.port
                && same_name(known.host, origin.host)
        }
        _ => false,
    }
}

/// Splits `host[:port]`; none if it is anything else.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after = if authority.starts_with('[') { authority.find(']')? } else { 0 };
    let (host, port) = match authority.get(after..)?.find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at_checked(after + colon)?;
            (host, Some(port.strip_prefix(':')?))
        }
        None => (authority, None),
    };
    let port = match port {
        // `parse` alone would take `+80`.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    (literal(host).is_some() || is_name(host)).then_some((host, port))
}

/// Whether this is a DNS name, possibly with the final dot.
fn is_name(host: &str) -> bool {
    let host = without_dot(host);
    host.len() <= 253
        && host.split('.').all(|label| !label.is_empty() && label.len() <= 63)
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The address that this literal is: IPv4 with all four numbers, or IPv6 in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn same_name(one: &str, other: &str) -> bool {
    without_dot(one).eq_ignore_ascii_case(without_dot(other))
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn is_localhost(host: &str) -> bool {
    // RFC 6761 §6.3: `localhost` and the names below it are always this machine.
    let host = without_dot(host);
    let start = host.len().saturating_sub("localhost".len());
    match host.split_at_checked(start) {
        Some((before, end)) => {
            end.eq_ignore_ascii_case("localhost") && (before.is_empty() || before.ends_with('.'))
        }
        None => false,
    }
}

/// The pages of this machine that are trusted without being configured.
fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

fn is_loopback_ip(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1:8080";
    const PUBLIC: &str = "0.0.0.0:8080";

    fn policy(listen: &str, hosts: &[&str], origins: &[&str]) -> Policy {
        let listen: Vec<SocketAddr> =
            listen.split_whitespace().map(|addr| addr.parse().unwrap()).collect();
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Policy::new(&listen, owned(hosts), owned(origins))
    }

    /// One line of a table: `+` admitted or `-` refused, then what.
    #[track_caller]
    fn check_hosts(policy: &Policy, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (verdict, host) = line.split_at(1);
            let host = host.strip_prefix(' ').unwrap_or(host);
            assert_eq!(policy.admits_host(host.as_bytes()), verdict == "+", "host {host:?}");
        }
    }

    /// One line of a table: `+` or `-`, the origin, the host.
    #[track_caller]
    fn check_origins(policy: &Policy, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let [verdict, origin, host] = words[..] else { panic!("line {line:?}") };
            let admitted = policy.admits_origin(origin.as_bytes(), host.as_bytes());
            assert_eq!(admitted, verdict == "+", "origin {origin:?} for host {host:?}");
        }
    }

    const HOSTS_NEVER: &str = "
        -
        - .
        - ..
        - :
        - :8080
        - evil.com
        - evil.com:8080
        - localhost.evil.com
        - notlocalhost
        - 127.0.0.1.evil.com
        - evil.com#localhost
        - evil.com/localhost
        - evil.com?localhost
        - localhost/
        - localhost#
        - user@localhost
        - localhost@evil.com
        - user:pass@localhost
        - localhost:
        - localhost:x
        - localhost:+80
        - localhost:-1
        - localhost:80:80
        - localhost:65536
        - localhost:99999999999999999999
        - localhost..
        - .localhost
        - a..localhost
        - local host
        - localhost,evil.com
        - 0x7f.1
        - 127.1
        - 0177.0.0.1
        - 127.0.0.1.
        - 2130706433
        - ::1
        - [::1
        - ::1]
        - [::1]x
        - [::1]:x
        - [::1].
        - [::1%25lo]
        - [127.0.0.1]
        - [localhost]
        - [evil.com]
        - [v1.localhost]
    ";

    #[test]
    fn on_loopback_only_this_machine_is_a_host() {
        let policy = policy("127.0.0.1:8080 [::1]:8080", &[], &[]);
        check_hosts(&policy, HOSTS_NEVER);
        check_hosts(
            &policy,
            "
            + localhost
            + LOCALHOST:8080
            + localhost.:8080
            + tools.localhost
            + 127.0.0.1
            + 127.0.0.1:1
            + 127.255.255.254
            + [::1]
            + [::1]:8080
            + [0:0:0:0:0:0:0:1]:8080
            + [::FFFF:127.0.0.1]
            - 10.0.0.1
            - 0.0.0.0
            - [::]
            - [::ffff:10.0.0.1]
            ",
        );
        assert!(!policy.admits_host(b"localhost\xff"), "not UTF-8");
        assert!(!policy.admits_host(b"\xff"), "not UTF-8");
        assert!(!policy.admits_host(b"localhost\0"), "a zero byte");
        let long = format!("{}.localhost", "a".repeat(64));
        assert!(!policy.admits_host(long.as_bytes()), "a label longer than 63 bytes");
        let long = format!("{}localhost", "a.".repeat(200));
        assert!(!policy.admits_host(long.as_bytes()), "a name longer than 253 bytes");
    }

    #[test]
    fn elsewhere_any_address_is_a_host() {
        let policy = policy("127.0.0.1:8080 0.0.0.0:80", &[], &[]);
        check_hosts(&policy, HOSTS_NEVER);
        check_hosts(
            &policy,
            "
            + localhost
            + 127.0.0.1
            + 10.0.0.1:8080
            + [fe80::1]
            + [2001:db8::1]:443
            - gateway.example.com
            ",
        );
    }

    #[test]
    fn configured_hosts_are_served_everywhere() {
        for listen in [LOOPBACK, PUBLIC] {
            let policy = policy(listen, &["GW.example.com", "tools.lan.", "10.1.1.1"], &[]);
            check_hosts(&policy, HOSTS_NEVER);
            check_hosts(
                &policy,
                "
                + gw.example.com
                + gw.EXAMPLE.com.:8080
                + tools.lan
                + 10.1.1.1:8080
                - a.gw.example.com
                - gw.example.com.evil.com
                - example.com
                - xgw.example.com
                ",
            );
        }
    }

    #[test]
    fn on_loopback_pages_of_this_machine_may_ask() {
        check_origins(
            &policy(LOOPBACK, &[], &[]),
            "
            + http://localhost localhost:8080
            + http://localhost:3000 127.0.0.1:8080
            + https://localhost:6274 127.0.0.1:8080
            + http://127.0.0.1:5173 localhost
            + http://[::1]:5173 localhost
            + HTTP://LOCALHOST:3000 localhost
            - http://localhost.evil.com localhost
            - http://127.0.0.1.evil.com localhost
            - http://evil.com#localhost localhost
            - http://evil.com/localhost localhost
            - http://localhost@evil.com localhost
            - http://evil.com@localhost localhost
            - http://localhost/ localhost
            - http://localhost:3000/ localhost
            - http://localhost: localhost
            - http://localhost:port localhost
            - http://localhost:65536 localhost
            - http://0x7f.1 localhost
            - http://127.1 localhost
            - http://127.0.0.2 localhost
            - http://[::1 localhost
            - http://::1 localhost
            - http:// localhost
            - http:localhost localhost
            - http:/localhost localhost
            - //localhost localhost
            - localhost localhost
            - ftp://localhost localhost
            - file:// localhost
            - chrome-extension://abcdef localhost
            - null localhost
            - NULL localhost
            -  localhost
            - http://evil.com localhost
            - http://evil.com:8080 evil.com:8080
            - http://10.0.0.1:8080 10.0.0.1:8080
            + http://tools.localhost:8080 tools.localhost:8080
            - http://tools.localhost:3000 tools.localhost:8080
            ",
        );
        let policy = policy(LOOPBACK, &[], &[]);
        assert!(!policy.admits_origin(b"http://localhost\xff", b"localhost"), "not UTF-8");
        assert!(!policy.admits_origin(b"http://localhost, http://evil.com", b"localhost"), "two");
        assert!(policy.admits_origin(b"http://localhost", b"\xff"), "the host is checked apart");
    }

    #[test]
    fn elsewhere_only_the_gateway_itself_may_ask() {
        check_origins(
            &policy(PUBLIC, &["gw.example.com"], &[]),
            "
            + http://10.0.0.1:8080 10.0.0.1:8080
            + http://10.0.0.1 10.0.0.1
            + http://10.0.0.1:80 10.0.0.1
            + http://10.0.0.1 10.0.0.1:80
            + https://gw.example.com gw.example.com
            + https://gw.example.com GW.example.com:443
            + https://GW.EXAMPLE.COM. gw.example.com
            + http://gw.example.com:8080 gw.example.com:8080
            - https://gw.example.com gw.example.com:8080
            - http://gw.example.com:3000 gw.example.com:8080
            - http://10.0.0.2:8080 10.0.0.1:8080
            - http://localhost:3000 10.0.0.1:8080
            - http://localhost:3000 localhost:8080
            + http://localhost:8080 localhost:8080
            - http://evil.com evil.com
            - null gw.example.com
            ",
        );
    }

    #[test]
    fn configured_origins_may_ask() {
        let origins = ["https://App.example.com", "http://lan:3000", "app://desk", "null"];
        for listen in [LOOPBACK, PUBLIC] {
            check_origins(
                &policy(listen, &[], &origins),
                "
                + https://app.example.com gateway
                + https://app.example.com:443 gateway
                - http://app.example.com gateway
                - https://app.example.com:8443 gateway
                - https://app.example.com.evil.com gateway
                - https://a.app.example.com gateway
                - https://app.example.com/ gateway
                + http://lan:3000 gateway
                - http://lan gateway
                + app://desk gateway
                - app://desk2 gateway
                + null gateway
                - Null gateway
                ",
            );
        }
    }

    #[test]
    fn what_may_be_configured() {
        for host in ["a", "a.example", "localhost.", "127.0.0.1", "[::1]"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "*", "*.a", "a:80", "http://a", "::1", "a b", "ä"] {
            assert!(!is_host(host), "{host}");
        }
        for origin in ["http://a", "https://a:1", "vscode-webview://abc"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in ["", "*", "a", "http://", "http://a/", "://a", "http://*.a", "1x://a"] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "A.Localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.com", "xlocalhost", "10.0.0.1", "::", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
