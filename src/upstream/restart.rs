//! When something that failed may be tried again.

use std::time::{Duration, Instant};

use crate::limits;

/// The pause before a process that died is started again: longer each time that one dies without
/// having answered anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restart {
    /// When the next may be started.
    pub at: Option<Instant>,
    failures: u32,
}

impl Restart {
    /// A process died that should not have. `chance` is any number, another one each time.
    pub fn died(&mut self, has_answered: bool, chance: u32, now: Instant) {
        self.failures = if has_answered { 0 } else { self.failures.saturating_add(1) };
        self.at = Some(now + pause(limits::RESTART_MIN, self.failures, chance));
    }
}

/// The pause after so many failures in a row: `first`, doubled for each, but not above
/// [`limits::RESTART_MAX`] unless `first` is; and up to half as long again, so that those who
/// failed together do not come back together.
pub fn pause(first: Duration, failures: u32, chance: u32) -> Duration {
    let longer = first.saturating_mul(1 << failures.min(16));
    let pause = longer.min(limits::RESTART_MAX).max(first);
    pause + pause.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_one_has_answered() {
        let start = Instant::now();
        let mut restart = Restart::default();
        let mut pauses = Vec::new();
        for has_answered in [true, false, false, false, true] {
            restart.died(has_answered, 0, start);
            pauses.push((restart.at.unwrap() - start).as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 100]);
        for _ in 0..40 {
            restart.died(false, 0, start);
        }
        assert_eq!(restart.at, Some(start + limits::RESTART_MAX));
    }

    #[test]
    fn chance_makes_a_pause_up_to_half_as_long_again() {
        let second = Duration::from_secs(1);
        let millis = |chance| pause(second, 1, chance).as_millis();
        assert_eq!([0, u32::MAX].map(millis), [2000, 3000]);
        // What a server asks for is never shortened.
        assert_eq!(pause(second * 60, 9, 0), second * 60);
    }
}
