//! Who wants to be woken when.
//!
//! An object holds its own deadlines and one [`Wish`]; the heap holds at most a few entries per
//! object. A deadline that moves into the future costs nothing: the object is woken early, looks
//! at its deadlines and wishes again. So an exchange on a busy connection touches no heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The times at which an object will be woken.
///
/// Two are remembered, because objects alternate between a near and a far deadline: the far one
/// stays in the heap while the near one is wished again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    next: Option<Instant>,
    /// Not before `next`.
    later: Option<Instant>,
}

/// The heap of wishes.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Copy + Ord> Timers<K> {
    /// No wishes.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Makes sure that `key` is woken at `at` or earlier.
    pub fn wish(&mut self, key: K, wish: &mut Wish, at: Instant) {
        if wish.next.is_none_or(|next| at < next) {
            wish.later = wish.later.or(wish.next);
            wish.next = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The next object whose time has come. It must [`Wish::grant`] before it wishes again.
    pub fn pop(&mut self, now: Instant) -> Option<(K, Instant)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if now < *at {
            return None;
        }
        self.heap.pop().map(|Reverse((at, key))| (key, at))
    }

    /// When the next object wants to be woken.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

impl Wish {
    /// Forgets the wish if this waking is the one; false: a later repetition of an earlier wish.
    pub fn grant(&mut self, at: Instant) -> bool {
        let is_current = self.next == Some(at);
        if is_current {
            self.next = self.later.take();
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn later_wishes_ride_on_earlier_ones() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers: Timers<u8> = Timers::new();
        let mut wish = Wish::default();
        timers.wish(1, &mut wish, at(20));
        timers.wish(1, &mut wish, at(90));
        timers.wish(1, &mut wish, at(10));
        assert_eq!(timers.heap.len(), 2, "a later wish needs no entry");
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(50)), Some((1, at(10))));
        assert!(wish.grant(at(10)));
        timers.wish(1, &mut wish, at(60));
        assert_eq!(timers.heap.len(), 1, "it is woken at 20 anyway");
        assert_eq!(timers.pop(at(50)), Some((1, at(20))));
        assert!(wish.grant(at(20)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_near_and_a_far_deadline_in_turn_need_two_entries() {
        let start = Instant::now();
        let mut timers: Timers<u8> = Timers::new();
        let mut wish = Wish::default();
        let mut now = start;
        for _ in 0..1000 {
            timers.wish(1, &mut wish, now + Duration::from_secs(75));
            timers.wish(1, &mut wish, now + Duration::from_millis(50));
            now += Duration::from_millis(60);
            let (_, at) = timers.pop(now).unwrap();
            assert!(wish.grant(at));
            assert!(timers.heap.len() <= 2);
        }
    }
}
