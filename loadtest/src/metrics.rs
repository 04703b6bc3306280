//! The gateway's own numbers, from `/metrics` of its admin address.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use crate::client::Client;
use crate::target::Target;

/// Metrics without labels by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    values: BTreeMap<String, u64>,
}

impl Metrics {
    /// Asks for them.
    pub fn fetch(admin: SocketAddr) -> io::Result<Self> {
        let target = Target { path: "/metrics".to_owned(), ..Target::at(admin) };
        let answer = Client::open(target)?.request("GET", b"")?;
        if answer.status != 200 {
            return Err(io::Error::other(format!("/metrics: {}", answer.summary())));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&answer.body)))
    }

    fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { values: lines.filter_map(row).collect() }
    }

    /// The value of a metric; an error: there is none of that name.
    pub fn value(&self, name: &str) -> io::Result<u64> {
        let value = self.values.get(name).copied();
        value.ok_or_else(|| io::Error::other(format!("/metrics has no {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_numbers_are_read() {
        let metrics = Metrics::parse("# HELP a b\n# TYPE a gauge\na 3\nb{c=\"d e\"} 4\nx y\n");
        assert_eq!(metrics.value("a").unwrap(), 3);
        assert_eq!(metrics.value("b{c=\"d e\"}").unwrap(), 4);
        assert!(metrics.value("x").is_err());
    }
}
