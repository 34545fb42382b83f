//! What an outlet is measured by: its metrics.

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
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
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
        }
    }

    /// One call ended, with these outcomes.
    pub fn attempt(&self, outcomes: &[Outcome], took: Duration) {
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
}
