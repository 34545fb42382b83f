//! What an outlet is measured by: its metrics, and the two figures that say how much to begin ahead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::mail::Outcome;
use crate::metrics as names;

/// Handles are looked up once: a look-up by label costs more than the count.
pub struct Meter {
    accepted: Counter,
    refused: Counter,
    unfit: Counter,
    unsure: Counter,
    seconds: Histogram,
    calls: AtomicU64,
    commit_micros: AtomicU64,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Meter {
    /// The meter of the ESP of that name.
    pub fn new(esp: &str) -> Self {
        let outcome =
            |word: &'static str| counter!(names::ATTEMPTS, "esp" => esp.to_owned(), "outcome" => word);
        Meter {
            accepted: outcome("accepted"),
            refused: outcome("refused"),
            unfit: outcome("unfit"),
            unsure: outcome("unsure"),
            seconds: histogram!(names::ATTEMPT_SECONDS, "esp" => esp.to_owned()),
            calls: AtomicU64::new(0),
            commit_micros: AtomicU64::new(0),
        }
    }

    /// One call ended, with these outcomes.
    pub fn attempt(&self, outcomes: &[Outcome], took: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.seconds.record(took.as_secs_f64());
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted { .. } => self.accepted.increment(1),
                Outcome::Refused { .. } => self.refused.increment(1),
                Outcome::Unfit { .. } => self.unfit.increment(1),
                Outcome::Unsure { .. } => self.unsure.increment(1),
            }
        }
    }

    /// A begin's commit took so long; the last eight weigh most.
    pub fn commit(&self, took: Duration) {
        let now = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(10_000_000);
        let smooth = |before: u64| Some(if before == 0 { now } else { before - before / 8 + now / 8 });
        let _ = self.commit_micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smooth);
    }

    /// Calls since it was asked last, and what a commit takes.
    pub fn take(&self) -> (u64, Duration) {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        (calls, Duration::from_micros(self.commit_micros.load(Ordering::Relaxed)))
    }
}
