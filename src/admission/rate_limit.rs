//! How often one source may do something: token buckets by address, in a table of a fixed size.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::limits;

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time between two tokens. Never zero.
    pub interval: Duration,
    /// Tokens in a full bucket. Never zero.
    pub burst: u32,
}

impl Rate {
    /// The part of one shard, if all shards together are to keep to this rate.
    pub fn share(self, shards: u16) -> Self {
        let shards = u32::from(shards.max(1));
        Self { interval: self.interval * shards, burst: (self.burst / shards).max(1) }
    }
}

/// A token bucket. It stores the moment at which it is full again; a token moves that one interval
/// later, so there is nothing to refill and nothing to round.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + rate.interval;
        let is_there = full_at.saturating_duration_since(now) <= rate.interval * rate.burst;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

/// A bucket for each source that used one lately.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    buckets: HashMap<u128, Bucket, RandomState>,
    /// For all sources that find no room in the table.
    others: Option<Bucket>,
}

impl RateLimit {
    /// All buckets are full.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::default(), others: None }
    }

    /// Takes a token of this source; false: it has none left.
    pub fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let source = prefix(source);
        let full = Bucket { full_at: now };
        if self.buckets.len() < limits::SOURCES_MAX || self.buckets.contains_key(&source) {
            return self.buckets.entry(source).or_insert(full).take(self.rate, now);
        }
        // A full bucket is worth no place in the table.
        self.buckets.retain(|_, bucket| now < bucket.full_at);
        if self.buckets.len() < limits::SOURCES_MAX {
            return self.buckets.entry(source).or_insert(full).take(self.rate, now);
        }
        self.others.get_or_insert(full).take(self.rate, now)
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 network of 64 bits, which one host can
/// have all of.
fn prefix(source: IpAddr) -> u128 {
    match source.to_canonical() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_then_one_per_interval() {
        check("ttt.", 3, "a full bucket of three serves three");
        check("ttt+t.", 3, "one interval buys one token");
        check("ttt+++++ttt.", 3, "waiting longer does not overfill");
        check("+++t.", 1, "a burst of one never saves up");
        check("t...+t.", 1, "asking in vain costs nothing");
    }

    /// `t` takes a token, `.` must be refused, `+` waits one interval.
    #[track_caller]
    fn check(script: &str, burst: u32, why: &str) {
        let mut now = Instant::now();
        let mut limit = RateLimit::new(Rate { interval: STEP, burst });
        for step in script.chars() {
            match step {
                't' => assert!(limit.take([10, 0, 0, 1].into(), now), "{why}"),
                '.' => assert!(!limit.take([10, 0, 0, 1].into(), now), "{why}"),
                _ => now += STEP,
            }
        }
    }

    #[test]
    fn sources_are_apart_and_a_network_of_64_bits_is_one() {
        let now = Instant::now();
        let mut limit = RateLimit::new(Rate { interval: STEP, burst: 1 });
        let mut take = |source: &str| limit.take(source.parse().unwrap(), now);
        assert!(take("10.0.0.1") && take("10.0.0.2") && !take("::ffff:10.0.0.1"));
        assert!(take("2001:db8::1") && !take("2001:db8::2:0:0:1") && take("2001:db8:0:1::1"));
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_by_itself() {
        let now = Instant::now();
        let mut limit = RateLimit::new(Rate { interval: STEP, burst: 1 });
        let source = |index: usize| IpAddr::from(u32::try_from(index).unwrap().to_be_bytes());
        for index in 0..limits::SOURCES_MAX {
            assert!(limit.take(source(index), now));
        }
        assert!(limit.take(source(limits::SOURCES_MAX), now), "the others have a bucket as well");
        assert!(!limit.take(source(limits::SOURCES_MAX + 1), now), "one for all of them");
        assert_eq!(limit.buckets.len(), limits::SOURCES_MAX);
        assert!(limit.take(source(limits::SOURCES_MAX + 1), now + STEP));
        assert_eq!(limit.buckets.len(), 1);
    }

    #[test]
    fn shards_share_a_rate() {
        let rate = Rate { interval: STEP, burst: 64 };
        assert_eq!(rate.share(4), Rate { interval: STEP * 4, burst: 16 });
        assert_eq!(rate.share(256).burst, 1);
    }
}
