//! Whether a gate that opens has opened for good: one that is shut again and again within minutes is one trouble, and is
//! told as one. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// A gate that is shut again within this is in the same trouble.
const SAME_TROUBLE: Duration = Duration::from_secs(600);
/// So long it has to stay open then before that is over; twice as long with each time that it was shut again…
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// …and no longer than this.
const STEADY_AFTER_MAX: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steadiness {
    /// How often it was shut again in the same trouble.
    relapses: u32,
    opened_at: Option<Timestamp>,
}

impl Steadiness {
    /// The gate is shut.
    pub fn shuts(&mut self, now: Timestamp) {
        let again = self.opened_at.is_some_and(|at| now.since(at) < SAME_TROUBLE);
        self.relapses = if again { self.relapses.saturating_add(1) } else { 0 };
    }

    /// The gate is open.
    pub fn opens(&mut self, now: Timestamp) {
        self.opened_at = Some(now);
    }

    /// Whether a gate that is open has been so for long enough: at once where it was shut but once.
    pub fn is_steady(&self, now: Timestamp) -> bool {
        let Some(last) = self.relapses.checked_sub(1) else { return true };
        let after = STEADY_AFTER.saturating_mul(1 << last.min(10)).min(STEADY_AFTER_MAX);
        self.opened_at.is_none_or(|at| now.since(at) >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn one_trouble_is_over_at_once_and_one_that_comes_back_only_after_a_while() {
        let mut gate = Steadiness::default();
        gate.shuts(at(0));
        gate.opens(at(5));
        assert!(gate.is_steady(at(5)));
        for (shut, open, not_yet, steady) in [(20, 30, 89, 90), (95, 100, 219, 220), (240, 250, 489, 490)] {
            gate.shuts(at(shut));
            gate.opens(at(open));
            assert_eq!((gate.is_steady(at(not_yet)), gate.is_steady(at(steady))), (false, true), "{shut}");
        }
        gate.shuts(at(900));
        gate.opens(at(905));
        assert!(gate.is_steady(at(905)), "ten good minutes lie between");
    }
}
