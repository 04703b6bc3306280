//! When a process that died may be started again.

use std::time::Instant;

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
    /// A process died that should not have.
    pub fn died(&mut self, has_answered: bool, now: Instant) {
        self.failures = if has_answered { 0 } else { self.failures.saturating_add(1) };
        let pause = limits::RESTART_MIN.saturating_mul(1 << self.failures.min(16));
        self.at = Some(now + pause.min(limits::RESTART_MAX));
    }
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
            restart.died(has_answered, start);
            pauses.push((restart.at.unwrap() - start).as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 100]);
        for _ in 0..40 {
            restart.died(false, start);
        }
        assert_eq!(restart.at, Some(start + limits::RESTART_MAX));
    }
}
