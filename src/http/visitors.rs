//! Who is connected to the HTTP port, and who leaves when a place is needed: the one that has asked nothing for longest,
//! or has been behind for longest with a body that anybody may send; first of the address that has most of the places. So
//! clients that connect and say nothing, or begin a request and do not end its head or its body, keep nobody out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::OCTETS_PER_SECOND_MIN;
use super::rate::Whose;
use super::serve::CONNECTIONS_MAX;
use crate::clock::monotonic;

/// For so long a newcomer, or one that was just answered, keeps its place: its request is on its way.
const SETTLE: Duration = Duration::from_millis(50);
/// For so long a body may be behind the pace that is asked of it.
const BODY_SETTLE: Duration = Duration::from_millis(100);
/// An address with more of the places than this part of them makes room before any other.
const PART_EACH: usize = 4;
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
    /// The request in hand is one that anybody may send and its body is awaited: by when all that came should have.
    due: Mutex<Option<Instant>>,
    /// Who asks; before the first request, who connected.
    who: Mutex<Whose>,
    _place: OwnedSemaphorePermit,
}

impl Visitor {
    /// How long it may take to leave. One that was never answered has nothing to wait for.
    pub fn leaves_within(&self) -> Duration {
        if self.asking.load(Ordering::Acquire) > 0 && lock(&self.due).is_none() {
            // Its body ended just now, and is being taken.
            return LEAVE_MAX;
        }
        let silent = monotonic() - *lock(&self.silent_since);
        if self.answered.load(Ordering::Acquire) { LEAVE_MAX.saturating_sub(silent) } else { Duration::ZERO }
    }

    /// Its present request is of this address.
    pub fn is(&self, who: IpAddr) {
        *lock(&self.who) = Whose::stranger(who);
    }

    /// From when on it may be asked to leave, where it may.
    fn settled(&self) -> Option<Instant> {
        match self.asking.load(Ordering::Acquire) {
            0 => Some(*lock(&self.silent_since) + SETTLE),
            _ => lock(&self.due).map(|due| due + BODY_SETTLE),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body that anybody may send, while it is awaited.
#[derive(Debug)]
pub(super) struct Awaits {
    visitor: Arc<Visitor>,
    began: Instant,
}

impl Awaits {
    pub fn new(visitor: &Arc<Visitor>) -> Self {
        let awaits = Awaits { visitor: Arc::clone(visitor), began: monotonic() };
        awaits.came(0);
        awaits
    }

    /// So much of it has come in all.
    pub fn came(&self, octets: u64) {
        let pace = Duration::from_millis(octets * 1000 / OCTETS_PER_SECOND_MIN);
        *lock(&self.visitor.due) = Some(self.began + pace);
    }
}

impl Drop for Awaits {
    fn drop(&mut self) {
        *lock(&self.visitor.due) = None;
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
        *lock(&self.0.silent_since) = monotonic();
        self.0.answered.store(true, Ordering::Release);
        self.0.asking.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All of them, as many as there are places.
#[derive(Debug, Default)]
pub(super) struct Visitors(Mutex<Vec<Weak<Visitor>>>);

impl Visitors {
    /// One more, with its place.
    pub fn enter(&self, peer: IpAddr, place: OwnedSemaphorePermit) -> Arc<Visitor> {
        let visitor = Arc::new(Visitor {
            leave: CancellationToken::new(),
            asking: AtomicU32::new(0),
            answered: AtomicBool::new(false),
            silent_since: Mutex::new(monotonic()),
            due: Mutex::new(None),
            who: Mutex::new(Whose::stranger(peer)),
            _place: place,
        });
        let mut all = lock(&self.0);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&visitor));
        visitor
    }

    /// Asks one to leave that may be, of the address that has most places where it has too many, and of those the one
    /// that could have been for longest. Gives when to ask again, should nobody have left until then.
    pub fn make_room(&self) -> Instant {
        let now = monotonic();
        let here: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let mut places: HashMap<Whose, usize> = HashMap::new();
        for visitor in &here {
            *places.entry(*lock(&visitor.who)).or_default() += 1;
        }
        places.retain(|_, has| *has > CONNECTIONS_MAX / PART_EACH);
        // Mostly nobody has too many, and never more than three.
        let too_many = |visitor: &Visitor| match places.is_empty() {
            true => None,
            false => places.get(&lock(&visitor.who)).copied(),
        };
        let may = here.iter().filter(|visitor| !visitor.leave.is_cancelled());
        let may: Vec<_> = may.filter_map(|visitor| Some((visitor.settled()?, visitor))).collect();
        let settled = may.iter().filter(|(settled, _)| *settled <= now);
        match settled.min_by_key(|(settled, visitor)| (Reverse(too_many(visitor)), *settled)) {
            Some((_, visitor)) => {
                visitor.leave.cancel();
                now + LEAVE_MAX
            }
            None => may.iter().map(|(settled, _)| *settled).min().unwrap_or(now + LEAVE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn leaves(visitors: &Visitors, all: &[Arc<Visitor>]) -> Option<usize> {
        let before: Vec<_> = all.iter().map(|v| v.leave.is_cancelled()).collect();
        visitors.make_room();
        all.iter().zip(before).position(|(v, before)| v.leave.is_cancelled() && !before)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_nothing_for_longest_leaves_and_no_newcomer() {
        let (visitors, places) = (Visitors::default(), Arc::new(Semaphore::new(3)));
        let enter = || visitors.enter(peer(1), Arc::clone(&places).try_acquire_owned().unwrap());
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

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_with_a_body_leaves_and_who_keeps_the_pace_does_not() {
        let (visitors, places) = (Visitors::default(), Arc::new(Semaphore::new(3)));
        let all =
            [1, 2, 3].map(|n| visitors.enter(peer(n), Arc::clone(&places).try_acquire_owned().unwrap()));
        let _asked = all.each_ref().map(Asked::new);
        let (fast, slow) = (Awaits::new(&all[0]), Awaits::new(&all[1]));
        fast.came(10 * OCTETS_PER_SECOND_MIN);
        slow.came(1);
        assert_eq!(leaves(&visitors, &all), None, "both have just begun");
        tokio::time::advance(Duration::from_secs(1)).await;
        slow.came(2);
        assert_eq!(leaves(&visitors, &all), Some(1));
        assert_eq!(all[1].leaves_within(), Duration::ZERO);
        drop(slow);
        assert_eq!(all[1].leaves_within(), LEAVE_MAX, "its body has ended after all");
        assert_eq!(leaves(&visitors, &all), None, "one keeps the pace, one is being worked for");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(leaves(&visitors, &all), Some(0));
        drop(fast);
        assert_eq!(leaves(&visitors, &all), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_too_many_places_makes_room_first() {
        let most = CONNECTIONS_MAX / PART_EACH;
        let (visitors, places) = (Visitors::default(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let enter = |n| visitors.enter(peer(n), Arc::clone(&places).try_acquire_owned().unwrap());
        let mut all = vec![enter(1)];
        tokio::time::advance(SETTLE).await;
        all.extend((0..=most).map(|_| enter(2)));
        tokio::time::advance(SETTLE).await;
        assert_eq!(leaves(&visitors, &all), Some(1));
        all[2].is(peer(3));
        assert_eq!(leaves(&visitors, &all), Some(0), "none has too many now: who came first leaves");
    }
}
