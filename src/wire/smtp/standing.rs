//! How many connections to one upstream stand, as the upstream counts them: those that are being opened too, and for a
//! moment those that were closed, since it may not know yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;

/// For so long after its end one is counted.
const LINGER: Duration = Duration::from_secs(1);
/// Ends that are remembered; no more of them could be of use than there are connections.
const ENDS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing(Arc<Mutex<Count>>);

#[derive(Debug, Default)]
struct Count {
    standing: usize,
    /// When those ended that had been let in.
    ends: VecDeque<Instant>,
}

/// One connection's part of the count.
#[derive(Debug)]
pub(super) struct Place {
    of: Standing,
    /// It was let in: the upstream has given it a place.
    pub let_in: bool,
}

impl Standing {
    /// One is being opened.
    pub fn enter(&self) -> Place {
        self.count().standing += 1;
        Place { of: self.clone(), let_in: false }
    }

    /// How many stand.
    pub fn number(&self) -> usize {
        let now = monotonic();
        let mut count = self.count();
        while count.ends.front().is_some_and(|end| now.duration_since(*end) >= LINGER) {
            count.ends.pop_front();
        }
        count.standing + count.ends.len()
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.of.count();
        count.standing = count.standing.saturating_sub(1);
        if self.let_in {
            if count.ends.len() >= ENDS_MAX {
                count.ends.pop_front();
            }
            count.ends.push_back(monotonic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_was_let_in_is_counted_for_a_moment_after_its_end() {
        let standing = Standing::default();
        let (mut first, second) = (standing.enter(), standing.enter());
        first.let_in = true;
        assert_eq!(standing.number(), 2);
        drop(second);
        assert_eq!(standing.number(), 1, "it was sent away");
        drop(first);
        assert_eq!(standing.number(), 1);
        tokio::time::advance(LINGER).await;
        assert_eq!(standing.number(), 0);
    }
}
