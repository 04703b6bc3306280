//! Where requests go: the parts of an `http://HOST:PORT/PATH` URL.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// An MCP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub addr: SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// The request target.
    pub path: String,
}

impl Target {
    /// The endpoint `/mcp` at an address.
    pub fn at(addr: SocketAddr) -> Self {
        Self { addr, host: addr.to_string(), path: "/mcp".to_owned() }
    }

    /// The URL.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }
}

impl FromStr for Target {
    type Err = io::Error;

    fn from_str(url: &str) -> io::Result<Self> {
        let wrong = || io::Error::other(format!("{url:?} must be like http://127.0.0.1:8080/mcp"));
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let addr = authority.to_socket_addrs()?.next().ok_or_else(wrong)?;
        Ok(Self { addr, host: host.to_owned(), path: format!("/{path}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_an_address_a_host_and_a_path() {
        let target: Target = "http://127.0.0.1:8080/mcp/files".parse().unwrap();
        assert_eq!(target.addr, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((&*target.host, &*target.path), ("127.0.0.1:8080", "/mcp/files"));
        assert_eq!(target.url(), "http://127.0.0.1:8080/mcp/files");
        assert!("https://127.0.0.1/mcp".parse::<Target>().is_err());
    }
}
