//! Texts that mean something else: durations, sizes, addresses and names. Errors say what would
//! be right, and quote nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::LogChoice;
use crate::admission::origin;
use crate::limits;
use crate::telemetry::log::Format;
use crate::upstream::catalog::{Balance, Isolation, Transport};

/// Smallest value of `limits.message`.
pub(super) const MESSAGE_LEN_MIN: usize = 1024;

/// Longest duration: what is longer is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a duration looks like.
pub(super) const DURATION: &str =
    "a duration such as \"30s\" (units: ms, s, m, h, d; at least \"1ms\", at most \"365d\")";

/// What a duration that can be off looks like.
pub(super) const DURATION_OR_OFF: &str = "a duration such as \"300s\", or \"off\"";

/// What a size looks like.
pub(super) const SIZE: &str =
    "a size such as \"16MiB\" or a number of bytes, from \"1KiB\" to \"512MiB\"";

/// What an address to listen on looks like.
pub(super) const ADDR: &str = "an IP address and a port, such as \"127.0.0.1:8080\"";

/// What the address of the admin listener looks like.
pub(super) const ADDR_OR_OFF: &str =
    "an IP address and a port, such as \"127.0.0.1:9090\", or \"off\"";

/// `250ms`, `10s`, `5m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (count, unit) = number(text).ok_or_else(|| format!("must be {DURATION}"))?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        "d" => Some(24 * 60 * 60 * 1000),
        _ => None,
    };
    millis
        .and_then(|unit: u64| count.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
        .ok_or_else(|| format!("must be {DURATION}"))
}

/// A duration, or `off`.
pub(super) fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { duration(text).map(Some) }
}

/// `4096`, `4096B`, `64KiB`, `16MiB`, `512MiB`, within the bounds of a message.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let (count, unit) = number(text).ok_or_else(|| format!("must be {SIZE}"))?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        "K" | "KB" | "kB" | "k" => return Err("must be a size in binary units: KiB".to_owned()),
        "M" | "MB" => return Err("must be a size in binary units: MiB".to_owned()),
        "G" | "GB" => return Err("must be a size in binary units: GiB".to_owned()),
        _ => return Err(format!("must be {SIZE}")),
    };
    let len = count.checked_mul(unit).ok_or_else(|| format!("must be {SIZE}"))?;
    message_len(len)
}

/// A number of bytes within the bounds of a message.
pub(super) fn message_len(len: u64) -> Result<usize, String> {
    usize::try_from(len)
        .ok()
        .filter(|len| (MESSAGE_LEN_MIN..=limits::MESSAGE_LEN_MAX).contains(len))
        .ok_or_else(|| format!("must be {SIZE}"))
}

/// Digits, then a unit.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

/// An address to listen on.
pub(super) fn addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    // The usual shorthands get the address that was probably meant.
    let port = |text: &str| text.parse::<u16>().ok();
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    if let Some(port) = text.strip_prefix("localhost:").and_then(port).or_else(|| port(text)) {
        return Err(format!("must be an IP address and a port: \"{}\"", loopback(port)));
    }
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return Err(format!(
            "must be an IP address and a port: \"{}\", or \"0.0.0.0:{port}\" for all interfaces",
            loopback(port)
        ));
    }
    Err(format!("must be {ADDR}"))
}

/// An address to listen on, or `off`.
pub(super) fn addr_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => addr(text).map(Some),
    }
}

/// An entry of `listen.hosts`.
pub(super) fn host(text: &str) -> Result<String, String> {
    if origin::is_host(text) {
        return Ok(text.to_owned());
    }
    Err("must be a host name without scheme and port, such as \"gateway.example.com\"; \
         there are no wildcards"
        .to_owned())
}

/// An entry of `listen.origins`.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "null" || origin::is_origin(text) {
        return Ok(text.to_owned());
    }
    Err("must be an origin without path, such as \"https://app.example.com\", or \"null\"; \
         there are no wildcards"
        .to_owned())
}

/// How log lines look.
pub(super) fn log(text: &str) -> Result<LogChoice, String> {
    match text {
        "auto" => Ok(LogChoice::Auto),
        "off" => Ok(LogChoice::Off),
        "text" => Ok(LogChoice::Format(Format::Text)),
        "json" => Ok(LogChoice::Format(Format::Json)),
        _ => Err("must be \"auto\", \"text\", \"json\" or \"off\"".to_owned()),
    }
}

/// Which clients share a process.
pub(super) fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "session" => Ok(Isolation::Session),
        "shared" => Ok(Isolation::Shared),
        _ => Err("must be \"session\" or \"shared\"".to_owned()),
    }
}

/// What is spoken at a URL.
pub(super) fn transport(text: &str) -> Result<Transport, String> {
    match text {
        "http" => Ok(Transport::Http),
        "sse" => Ok(Transport::Sse),
        "auto" => Ok(Transport::Auto),
        _ => Err("must be \"http\", \"sse\" or \"auto\"".to_owned()),
    }
}

/// How endpoints share the work; weights are theirs.
pub(super) fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "round_robin" => Ok(Balance::RoundRobin),
        "least_in_flight" => Ok(Balance::LeastInFlight),
        "weighted" => Ok(Balance::Weighted(Vec::new())),
        "consistent_hash" => Ok(Balance::ConsistentHash),
        _ => Err("must be \"round_robin\", \"least_in_flight\", \"weighted\" or \
                  \"consistent_hash\""
            .to_owned()),
    }
}

/// Whether this can be the name of a server.
pub(super) fn is_server_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}
