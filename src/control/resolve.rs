//! Host names to addresses, for shards that may not wait.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::mesh::Reply;

/// Time the system's resolver may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one host that are tried.
const ADDRS_MAX: usize = 16;

/// Looks a host up. An address literal is its own answer.
pub(super) async fn resolve(host: &str, port: u16) -> Reply {
    if let Ok(addr) = host.parse::<IpAddr>() {
        return Reply::Resolved(vec![SocketAddr::new(addr, port)]);
    }
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port))).await;
    match found {
        Ok(Ok(addrs)) => {
            let addrs: Vec<_> = addrs.take(ADDRS_MAX).collect();
            if addrs.is_empty() {
                return Reply::Failed(format!("the host `{host}` has no address"));
            }
            Reply::Resolved(addrs)
        }
        Ok(Err(error)) => Reply::Failed(format!("the host `{host}` was not found: {error}")),
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            Reply::Failed(format!("no answer for the host `{host}` within {seconds} seconds"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_names_become_addresses() {
        for (host, want) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
            let Reply::Resolved(addrs) = resolve(host, 80).await else { panic!("{host}") };
            assert_eq!(addrs, [want.parse().unwrap()]);
        }
        let Reply::Resolved(addrs) = resolve("localhost", 80).await else { panic!("localhost") };
        assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
    }

    #[tokio::test]
    async fn a_failure_names_the_host() {
        for host in ["no-such-host.invalid", "", "a b", "nul\0"] {
            let Reply::Failed(words) = resolve(host, 80).await else { panic!("{host}") };
            assert!(words.contains(host), "{words}");
        }
    }
}
