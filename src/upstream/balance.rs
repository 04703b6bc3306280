//! Which endpoint of a server is used next, and which are avoided because they could not be
//! connected. It does not know what a connection is: `shard` says how loaded an endpoint is, and
//! what became of an attempt.
//!
//! Each shard decides for itself. A server with one endpoint has nothing to decide.

use std::time::Instant;

use crate::limits;
use crate::upstream::catalog::{Balance, Endpoint, EndpointId, Endpoints};
use crate::upstream::restart::pause;

/// What one shard knows of the endpoints of one server.
#[derive(Debug)]
pub struct Balancer {
    places: Vec<Place>,
    /// Where the next round begins.
    turn: usize,
}

/// One endpoint.
#[derive(Debug)]
struct Place {
    /// What stands for it where a key decides. The same in all shards and after a restart.
    hash: u64,
    weight: i64,
    /// How much of its share it has not had yet.
    credit: i64,
    /// Attempts in a row that failed, those counted once that were under way together.
    failures: u32,
    failed_at: Option<Instant>,
    /// Until when others are preferred.
    avoided_until: Option<Instant>,
    /// The same while it is being found out whether it is back.
    probed_until: Option<Instant>,
}

impl Place {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.max(self.probed_until).is_some_and(|until| now < until)
    }
}

impl Balancer {
    /// All endpoints are as good as any.
    pub fn new(endpoints: Option<&Endpoints>) -> Self {
        let all = endpoints.into_iter().flat_map(Endpoints::iter);
        let weights = match endpoints.map(|it| &it.balance) {
            Some(Balance::Weighted(weights)) => &**weights,
            _ => &[],
        };
        let place = |(id, endpoint): (EndpointId, &Endpoint)| {
            let scheme: &[u8] = if endpoint.tls { b"s" } else { b"" };
            let parts = [scheme, endpoint.authority.as_bytes(), endpoint.target.as_bytes()];
            Place {
                hash: hash(&parts),
                weight: weights.get(usize::from(id.0)).copied().unwrap_or(1).into(),
                credit: 0,
                failures: 0,
                failed_at: None,
                avoided_until: None,
                probed_until: None,
            }
        };
        Self { places: all.map(place).collect(), turn: 0 }
    }

    /// The endpoint for something new. `key` is what decides with [`Balance::ConsistentHash`];
    /// without one, it is as with [`Balance::RoundRobin`]. `tried` are those that it was tried at,
    /// a bit for each. `load` is what an endpoint has to do. If all are avoided, it is the one that
    /// is the next to be tried again.
    pub fn pick(
        &mut self,
        (balance, key, tried): (&Balance, Option<u64>, u64),
        load: impl Fn(EndpointId) -> usize,
        now: Instant,
    ) -> EndpointId {
        let count = self.places.len();
        let turn = self.turn;
        let round = (0..count).map(|step| (turn + step) % count);
        let places = &self.places;
        let is_new = |index: &usize| id(*index).bit() & tried == 0;
        let is_free = |index: &usize| {
            is_new(index) && places.get(*index).is_some_and(|it| !it.is_avoided(now))
        };
        let mut free = round.clone().filter(is_free);
        let picked = match (balance, key) {
            (Balance::RoundRobin, _) | (Balance::ConsistentHash, None) => free.next(),
            (Balance::LeastInFlight, _) => free.min_by_key(|index| load(id(*index))),
            (Balance::ConsistentHash, Some(key)) => {
                free.max_by_key(|index| places.get(*index).map(|place| mix(place.hash ^ mix(key))))
            }
            (Balance::Weighted(_), _) => self.pick_weighted(tried, now),
        };
        let until =
            |index: &usize| self.places.get(*index).map(|it| it.avoided_until.max(it.probed_until));
        let index = picked.or_else(|| round.filter(is_new).min_by_key(until)).unwrap_or(0);
        self.turn = (index + 1) % count.max(1);
        if let Some(place) = self.places.get_mut(index).filter(|place| place.failures != 0) {
            // One is enough to find out whether it is back.
            place.probed_until = Some(now + limits::CONNECT_TIMEOUT);
        }
        id(index)
    }

    /// Each gets its share, as evenly as it can be done: who is owed most is next.
    fn pick_weighted(&mut self, tried: u64, now: Instant) -> Option<usize> {
        let is_free = |(index, place): &(usize, &mut Place)| {
            id(*index).bit() & tried == 0 && !place.is_avoided(now)
        };
        let mut total = 0;
        for (_, place) in self.places.iter_mut().enumerate().filter(is_free) {
            place.credit += place.weight;
            total += place.weight;
        }
        let free = self.places.iter_mut().enumerate().filter(is_free);
        let (index, place) = free.max_by_key(|(index, it)| (it.credit, usize::MAX - index))?;
        place.credit -= total;
        Some(index)
    }

    /// Whether it could not be connected so lately that it is not tried again yet.
    pub fn is_avoided(&self, endpoint: EndpointId, now: Instant) -> bool {
        let place = self.places.get(usize::from(endpoint.0));
        place.and_then(|place| place.avoided_until).is_some_and(|until| now < until)
    }

    /// Whether others are to be preferred to this one, and one of them can be had.
    pub fn has_better(&self, than: EndpointId, now: Instant) -> bool {
        // Not while somebody finds out whether it is back: that may be who asks.
        self.is_avoided(than, now) && self.places.iter().any(|place| !place.is_avoided(now))
    }

    /// An endpoint could not be connected, in an attempt that began at `began`. Returns whether
    /// that is news: attempts that were under way together are one failure.
    pub fn failed(
        &mut self,
        endpoint: EndpointId,
        (began, chance): (Instant, u32),
        now: Instant,
    ) -> Failure {
        let Some(place) = self.places.get_mut(usize::from(endpoint.0)) else {
            return Failure::Known;
        };
        if place.failed_at.is_some_and(|at| began < at) {
            return Failure::Known;
        }
        let pause = pause(limits::ENDPOINT_PAUSE, place.failures, chance);
        let is_first = place.failures == 0;
        place.failures = place.failures.saturating_add(1);
        place.failed_at = Some(now);
        (place.avoided_until, place.probed_until) = (Some(now + pause), None);
        if is_first { Failure::First } else { Failure::Another }
    }

    /// An endpoint was connected, or has answered. Returns whether it could not be before.
    pub fn worked(&mut self, endpoint: EndpointId) -> bool {
        let place = self.places.get_mut(usize::from(endpoint.0));
        let Some(place) = place.filter(|place| place.failures != 0) else { return false };
        (place.failures, place.failed_at) = (0, None);
        (place.avoided_until, place.probed_until) = (None, None);
        true
    }
}

/// What an attempt that failed tells of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is gone.
    First,
    /// It is still gone.
    Another,
    /// Nothing new.
    Known,
}

fn id(index: usize) -> EndpointId {
    EndpointId(u16::try_from(index).unwrap_or_default())
}

/// A number for some bytes (FNV-1a). No secret depends on it.
pub fn hash(parts: &[&[u8]]) -> u64 {
    parts.iter().flat_map(|part| *part).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Spreads a number over all bits (the end of SplitMix64).
fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::catalog::Upkeep;

    fn endpoints(count: usize, balance: Balance) -> Endpoints {
        let endpoint = |index| Endpoint {
            tls: false,
            host: "h".to_owned(),
            port: 1,
            authority: format!("h{index}:1"),
            target: "/mcp".to_owned(),
            headers: Vec::new(),
            conns_max: 1,
            upkeep: Upkeep::default(),
        };
        Endpoints::new((0..count).map(endpoint).collect(), balance).unwrap()
    }

    /// How often each endpoint is picked, for keys that are all different.
    fn counts(balancer: &mut Balancer, balance: &Balance, picks: u64, now: Instant) -> Vec<usize> {
        let mut counts = vec![0; balancer.places.len()];
        for key in 0..picks {
            counts[usize::from(balancer.pick((balance, Some(key), 0), |_| 0, now).0)] += 1;
        }
        counts
    }

    fn fail(balancer: &mut Balancer, index: u16, now: Instant) -> Failure {
        balancer.failed(EndpointId(index), (now, 0), now)
    }

    #[test]
    fn in_turn_each_gets_the_same() {
        let now = Instant::now();
        let balance = Balance::RoundRobin;
        let mut balancer = Balancer::new(Some(&endpoints(3, balance.clone())));
        let mut pick = || balancer.pick((&balance, None, 0), |_| 0, now).0;
        assert_eq!([pick(), pick(), pick(), pick()], [0, 1, 2, 0]);
        assert_eq!(counts(&mut balancer, &balance, 300, now), [100, 100, 100]);
        fail(&mut balancer, 1, now);
        assert_eq!(counts(&mut balancer, &balance, 300, now), [150, 0, 150]);
    }

    #[test]
    fn by_weight_each_gets_its_share_and_evenly() {
        let now = Instant::now();
        let balance = Balance::Weighted(vec![5, 1, 2]);
        let mut balancer = Balancer::new(Some(&endpoints(3, balance.clone())));
        let mut pick = || balancer.pick((&balance, None, 0), |_| 0, now).0;
        let first: Vec<u16> = (0..8).map(|_| pick()).collect();
        assert_eq!(first, [0, 2, 0, 0, 1, 0, 2, 0]);
        assert_eq!(counts(&mut balancer, &balance, 800, now), [500, 100, 200]);
        // Those that are left share what one of them cannot do.
        fail(&mut balancer, 0, now);
        assert_eq!(counts(&mut balancer, &balance, 300, now), [0, 100, 200]);
        // And who comes back has no claim to what it has missed.
        assert!(balancer.worked(EndpointId(0)));
        assert_eq!(counts(&mut balancer, &balance, 80, now), [50, 10, 20]);
    }

    #[test]
    fn by_load_who_has_least_gets_most() {
        let now = Instant::now();
        let balance = Balance::LeastInFlight;
        let mut balancer = Balancer::new(Some(&endpoints(3, balance.clone())));
        let loads = [4, 1, 3];
        let load = |id: EndpointId| loads[usize::from(id.0)];
        assert_eq!(balancer.pick((&balance, None, 0), load, now), EndpointId(1));
        fail(&mut balancer, 1, now);
        assert_eq!(balancer.pick((&balance, None, 0), load, now), EndpointId(2));
        // Without load it is as in turn, not always the first.
        balancer.worked(EndpointId(1));
        assert_eq!(counts(&mut balancer, &balance, 300, now), [100, 100, 100]);
        // Work that stays is spread evenly.
        let mut loads = [9, 0, 0];
        for _ in 0..21 {
            let picked = balancer.pick((&balance, None, 0), |id| loads[usize::from(id.0)], now);
            loads[usize::from(picked.0)] += 1;
        }
        assert_eq!(loads, [10, 10, 10]);
    }

    #[test]
    fn by_key_the_same_goes_to_the_same_and_little_moves() {
        let now = Instant::now();
        let balance = Balance::ConsistentHash;
        let mut balancer = Balancer::new(Some(&endpoints(5, balance.clone())));
        let mut all = |now| -> Vec<u16> {
            (0..5000).map(|key| balancer.pick((&balance, Some(key), 0), |_| 0, now).0).collect()
        };
        let before = all(now);
        assert_eq!(before, all(now));
        for index in 0..5 {
            let share = before.iter().filter(|picked| **picked == index).count();
            assert!((900..1100).contains(&share), "{index}: {share}");
        }
        fail(&mut balancer, 2, now);
        let mut all = |now| -> Vec<u16> {
            (0..5000).map(|key| balancer.pick((&balance, Some(key), 0), |_| 0, now).0).collect()
        };
        let without = all(now);
        let mut heirs = [0; 5];
        for (before, after) in before.iter().zip(&without) {
            if *before == 2 {
                heirs[usize::from(*after)] += 1;
            } else {
                assert_eq!(before, after, "only what was at the one that is gone moves");
            }
        }
        assert_eq!(heirs[2], 0);
        assert!([0, 1, 3, 4].iter().all(|index| heirs[*index] > 150), "{heirs:?}");
        // When it is back, everything is as before.
        balancer.worked(EndpointId(2));
        let after: Vec<u16> =
            (0..5000).map(|key| balancer.pick((&balance, Some(key), 0), |_| 0, now).0).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn an_endpoint_that_stays_takes_its_keys_with_it() {
        let now = Instant::now();
        let balance = Balance::ConsistentHash;
        let all = endpoints(4, balance.clone());
        let mut others: Vec<Endpoint> = all.iter().map(|(_, it)| it.clone()).collect();
        others.rotate_left(1);
        others.pop();
        // The configuration has lost the first; the others are at other places now.
        let fewer = Endpoints::new(others, balance.clone()).unwrap();
        let (mut before, mut after) = (Balancer::new(Some(&all)), Balancer::new(Some(&fewer)));
        for key in 0..1000 {
            let was = before.pick((&balance, Some(key), 0), |_| 0, now).0;
            let is = after.pick((&balance, Some(key), 0), |_| 0, now).0;
            assert!(was == 0 || was == is + 1, "{key}: {was} {is}");
        }
    }

    #[test]
    fn who_cannot_be_connected_is_tried_again_by_one_after_longer_and_longer() {
        let start = Instant::now();
        let balance = Balance::RoundRobin;
        let mut balancer = Balancer::new(Some(&endpoints(2, balance.clone())));
        let mut now = start;
        assert_eq!(fail(&mut balancer, 0, now), Failure::First);
        // It was under way already.
        let late = (start.checked_sub(Duration::from_secs(1)).unwrap(), 0);
        assert_eq!(balancer.failed(EndpointId(0), late, now), Failure::Known);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let just_before = now + Duration::from_secs(pause) - Duration::from_millis(1);
            assert_eq!(counts(&mut balancer, &balance, 9, just_before), [0, 9]);
            assert!(balancer.has_better(EndpointId(0), just_before));
            now += Duration::from_secs(pause);
            assert!(!balancer.has_better(EndpointId(0), now));
            // One finds out; the others do not wait for that.
            assert_eq!(counts(&mut balancer, &balance, 9, now), [1, 8]);
            assert_eq!(fail(&mut balancer, 0, now), Failure::Another);
        }
        assert!(balancer.worked(EndpointId(0)));
        assert!(!balancer.worked(EndpointId(0)));
        assert_eq!(counts(&mut balancer, &balance, 10, now), [5, 5]);
    }

    #[test]
    fn nothing_is_tried_twice_at_the_same_endpoint() {
        let now = Instant::now();
        let weighted = Balance::Weighted(vec![9, 1, 1]);
        let ways = [Balance::RoundRobin, Balance::LeastInFlight, weighted, Balance::ConsistentHash];
        for balance in ways {
            let mut balancer = Balancer::new(Some(&endpoints(3, balance.clone())));
            for round in 0..20 {
                let mut tried = 0;
                for _ in 0..3 {
                    let picked = balancer.pick((&balance, Some(round), tried), |_| 0, now);
                    assert_eq!(tried & picked.bit(), 0, "{balance:?}");
                    tried |= picked.bit();
                    // Some can be connected, and some cannot.
                    if round % 4 < u64::from(picked.0) {
                        fail(&mut balancer, picked.0, now);
                    }
                }
            }
        }
    }

    #[test]
    fn if_all_are_gone_they_are_tried_in_the_order_of_their_pauses() {
        let now = Instant::now();
        for balance in [Balance::RoundRobin, Balance::LeastInFlight, Balance::ConsistentHash] {
            let mut balancer = Balancer::new(Some(&endpoints(3, balance.clone())));
            let later = |ms| now + Duration::from_millis(ms);
            for (index, ms) in [(1, 0), (0, 10), (2, 20)] {
                fail(&mut balancer, index, later(ms));
            }
            let mut pick = || balancer.pick((&balance, Some(7), 0), |_| 0, later(30)).0;
            assert_eq!([pick(), pick(), pick()], [1, 0, 2]);
            assert!(!balancer.has_better(EndpointId(1), later(30)));
        }
    }
}
