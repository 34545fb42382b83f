//! Who is connected to the HTTP port, and who leaves when a place is needed: the one without a request in hand that has
//! been silent for longest. So clients that connect and say nothing keep nobody out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;

/// One connection.
#[derive(Debug)]
pub(super) struct Visitor {
    /// It has to go.
    pub leave: CancellationToken,
    /// Requests in hand.
    asking: AtomicU32,
    silent_since: Mutex<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Visitor {
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
            silent_since: Mutex::new(monotonic()),
            _place: place,
        });
        let mut all = self.all();
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&visitor));
        visitor
    }

    /// Asks the one that has been silent for longest to leave, if any is silent.
    pub fn make_room(&self) {
        let here: Vec<_> = self.all().iter().filter_map(Weak::upgrade).collect();
        let silent = here.iter().filter(|v| v.asking.load(Ordering::Acquire) == 0 && !v.leave.is_cancelled());
        if let Some(visitor) = silent.min_by_key(|v| *v.silent_since()) {
            visitor.leave.cancel();
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Visitor>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
