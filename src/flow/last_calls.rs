//! The last calls to each webhook, for `webhook test`: the last refusal with its reason, and when test events last came. In
//! memory alone; events are in the store.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::clock::monotonic;

/// See the module. The names are those of ESPs that are or were configured.
#[derive(Debug, Default)]
pub struct LastCalls(Mutex<HashMap<String, Last>>);

#[derive(Debug, Default)]
struct Last {
    refused: Option<(Instant, Why)>,
    test: Option<Instant>,
}

/// Why a call was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// As in `postroad_webhook_rejected_total`; `later`: it is worth repeating.
    pub reason: &'static str,
    /// In words.
    pub words: String,
}

/// What came since a moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// The last call that was not taken, and when.
    pub refused: Option<(Instant, Why)>,
    /// Events that the ESP made up for a test are in the store.
    pub test: bool,
}

impl LastCalls {
    /// A call was not taken.
    pub fn refused(&self, esp: &str, reason: &'static str, words: &str) {
        let why = Why { reason, words: words.to_owned() };
        self.note(esp, |last| last.refused = Some((monotonic(), why)));
    }

    /// Test events were taken, now or at an earlier time.
    pub fn test(&self, esp: &str) {
        self.note(esp, |last| last.test = Some(monotonic()));
    }

    /// What came there since then.
    pub fn since(&self, esp: &str, began: Instant) -> Since {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(esp).map_or_else(Since::default, |last| Since {
            refused: last.refused.clone().filter(|(at, _)| *at >= began),
            test: last.test.is_some_and(|at| at >= began),
        })
    }

    fn note(&self, esp: &str, change: impl FnOnce(&mut Last)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(esp.to_owned()).or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_came_since_counts_and_each_esp_has_its_own() {
        let (last_calls, second) = (LastCalls::default(), Duration::from_secs(1));
        last_calls.refused("a", "wrong", "it does not fit");
        last_calls.test("a");
        tokio::time::advance(second).await;
        let began = monotonic();
        assert_eq!(last_calls.since("a", began), Since::default());
        last_calls.refused("a", "missing", "it is not there");
        let since = last_calls.since("a", began);
        assert_eq!(since.refused.map(|(_, why)| why.reason), Some("missing"));
        assert!(!since.test && last_calls.since("a", began - second).test);
        assert_eq!(last_calls.since("b", began), Since::default());
    }
}
