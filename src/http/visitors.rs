//! Who is connected to the HTTP port, and who leaves when a place is needed: the one without a request in hand that has
//! asked nothing for longest. So clients that connect and say nothing, or begin a request and do not end its head, keep
//! nobody out.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;

/// For so long a newcomer, or one that was just answered, keeps its place: its request is on its way.
const SETTLE: Duration = Duration::from_millis(50);
/// What an answer that is still being written may take when room is made.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// One connection.
#[derive(Debug)]
pub(super) struct Visitor {
    /// It has to go.
    pub leave: CancellationToken,
    /// Requests in hand.
    asking: AtomicU32,
    /// It had an answer, of which some may still be on its way.
    answered: AtomicBool,
    /// Since it came, or since its last answer: octets of a head that does not end are no request.
    silent_since: Mutex<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Visitor {
    /// How long it may take to leave. One that was never answered has nothing to wait for.
    pub fn leaves_within(&self) -> Duration {
        let silent = monotonic() - *self.silent_since();
        if self.answered.load(Ordering::Acquire) { LEAVE_MAX.saturating_sub(silent) } else { Duration::ZERO }
    }

    fn silent_since(&self) -> MutexGuard<'_, Instant> {
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in hand, for as long as it lives.
#[derive(Debug)]
pub(super) struct Asked(Arc<Visitor>);

impl Asked {
    pub fn new(visitor: &Arc<Visitor>) -> Self {
        visitor.asking.fetch_add(1, Ordering::AcqRel);
        Asked(Arc::clone(visitor))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        *self.0.silent_since() = monotonic();
        self.0.answered.store(true, Ordering::Release);
        self.0.asking.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All of them, as many as there are places.
#[derive(Debug, Default)]
pub(super) struct Visitors(Mutex<Vec<Weak<Visitor>>>);

impl Visitors {
    /// One more, with its place.
    pub fn enter(&self, place: OwnedSemaphorePermit) -> Arc<Visitor> {
        let visitor = Arc::new(Visitor {
            leave: CancellationToken::new(),
            asking: AtomicU32::new(0),
            answered: AtomicBool::new(false),
            silent_since: Mutex::new(monotonic()),
            _place: place,
        });
        let mut all = self.all();
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&visitor));
        visitor
    }

    /// Asks the one that has been silent for longest to leave, if it has been for [`SETTLE`]. Gives when to ask again,
    /// should nobody have left until then.
    pub fn make_room(&self) -> Instant {
        let now = monotonic();
        let here: Vec<_> = self.all().iter().filter_map(Weak::upgrade).collect();
        let silent = here.iter().filter(|v| v.asking.load(Ordering::Acquire) == 0 && !v.leave.is_cancelled());
        let longest = silent.map(|v| (*v.silent_since() + SETTLE, v)).min_by_key(|(settled, _)| *settled);
        match longest {
            Some((settled, _)) if settled > now => settled,
            Some((_, visitor)) => {
                visitor.leave.cancel();
                now + LEAVE_MAX
            }
            None => now + LEAVE_MAX,
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Visitor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    fn leaves(visitors: &Visitors, all: &[Arc<Visitor>]) -> Option<usize> {
        let before: Vec<_> = all.iter().map(|v| v.leave.is_cancelled()).collect();
        visitors.make_room();
        all.iter().zip(before).position(|(v, before)| v.leave.is_cancelled() && !before)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_nothing_for_longest_leaves_and_no_newcomer() {
        let (visitors, places) = (Visitors::default(), Arc::new(Semaphore::new(3)));
        let enter = || visitors.enter(Arc::clone(&places).try_acquire_owned().unwrap());
        let (a, b) = (enter(), enter());
        assert_eq!(leaves(&visitors, &[Arc::clone(&a), Arc::clone(&b)]), None, "both have just come");
        let asked = Asked::new(&a);
        tokio::time::advance(SETTLE).await;
        let c = enter();
        let all = [a, b, c];
        assert_eq!(leaves(&visitors, &all), Some(1));
        assert_eq!(all[1].leaves_within(), Duration::ZERO, "nothing is on its way to it");
        assert_eq!(leaves(&visitors, &all), None, "one has a request in hand, the other has just come");
        drop(asked);
        assert_eq!(all[0].leaves_within(), LEAVE_MAX, "its answer is on its way");
        tokio::time::advance(SETTLE).await;
        assert_eq!([leaves(&visitors, &all), leaves(&visitors, &all)], [Some(0), Some(2)]);
        assert_eq!(all[0].leaves_within(), LEAVE_MAX - SETTLE);
    }
}
