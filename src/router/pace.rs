//! `rate` of an ESP: each recipient has its moment, evenly spaced, so that no second gets a burst. Pure.
//!
//! It starts empty: nothing is saved up over an idle time or a restart; but where a slow one says which moment it gave away
//! last, a later start goes on from there. A campaign leaves one moment in twenty to transactional mail.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::StreamKind;
use crate::mail::quota::Rate;

/// So far ahead a moment may be given away: a begin needs a commit before its call…
const AHEAD: Duration = Duration::from_millis(100);
/// …and by a campaign, so that it does not stand before transactional mail.
const BROADCAST_AHEAD: Duration = Duration::from_millis(50);
/// A campaign's share of the moments, as a divisor of the spacing.
const BROADCAST_SHARE: f64 = 0.95;
/// Who waits so long for the next moment is slow: a start that begins empty is worth a note to it.
const SLOW_MICROS: u64 = 1_000_000;

/// See the module. Times are in milliseconds; what is finer is carried along.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    spacing_micros: u64,
    /// Microseconds since the epoch: the first moment that is free, and the first that is free for a campaign.
    next: u64,
    next_broadcast: u64,
}

impl Pace {
    /// An empty one: the first moment is one spacing away.
    pub fn new(rate: Rate, now: Timestamp) -> Self {
        let spacing = rate.per / rate.recipients.max(1);
        let spacing_micros = u64::try_from(spacing.as_micros()).unwrap_or(u64::MAX).max(1);
        let next = micros(now).saturating_add(spacing_micros);
        Pace { spacing_micros, next, next_broadcast: next }
    }

    /// The same at another rate: what is given away stays so.
    pub fn at(&self, rate: Rate) -> Self {
        let now = Timestamp::from_millis(0);
        Pace { spacing_micros: Pace::new(rate, now).spacing_micros, ..self.clone() }
    }

    /// Where it is slow, the first moment that is free: what a later start goes on from.
    pub fn noted(&self) -> Option<Timestamp> {
        (self.spacing_micros >= SLOW_MICROS).then(|| stamp(self.next))
    }

    /// It was noted at an earlier start that the first free moment is this one.
    pub fn go_on(&mut self, next: Timestamp) {
        if self.spacing_micros >= SLOW_MICROS {
            self.next = self.next.min(micros(next));
            self.next_broadcast = self.next_broadcast.min(self.next);
        }
    }

    /// So many recipients go in one call: a second's worth, and at least one. More would keep others waiting for longer.
    pub fn most_in_a_call(&self) -> u32 {
        u32::try_from(1_000_000 / self.spacing_micros).unwrap_or(u32::MAX).max(1)
    }

    /// The moment at which so many recipients may leave, taken; `Err`: when to ask again.
    pub fn take(
        &mut self,
        kind: StreamKind,
        recipients: u32,
        now: Timestamp,
    ) -> Result<Timestamp, Timestamp> {
        let free = self.free_at(kind);
        if free > micros(now.plus(ahead(kind))) {
            return Err(stamp(free).earlier(ahead(kind)));
        }
        let at = free.max(micros(now));
        let span = self.spacing_micros.saturating_mul(u64::from(recipients));
        self.next = at.saturating_add(span);
        if kind == StreamKind::Broadcast {
            self.next_broadcast = at.saturating_add((span as f64 / BROADCAST_SHARE) as u64);
        }
        Ok(stamp(at))
    }

    /// From when on there is a moment to take.
    pub fn opens_at(&self, kind: StreamKind) -> Timestamp {
        stamp(self.free_at(kind)).earlier(ahead(kind))
    }

    fn free_at(&self, kind: StreamKind) -> u64 {
        match kind {
            StreamKind::Transactional => self.next,
            StreamKind::Broadcast => self.next.max(self.next_broadcast),
        }
    }
}

fn ahead(kind: StreamKind) -> Duration {
    match kind {
        StreamKind::Transactional => AHEAD,
        StreamKind::Broadcast => BROADCAST_AHEAD,
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.millis()).unwrap_or(0).saturating_mul(1_000)
}

/// Rounded up: never too early.
fn stamp(micros: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(micros.div_ceil(1_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn pace(recipients: u32) -> Pace {
        Pace::new(Rate { recipients, per: SECOND }, T0)
    }

    #[test]
    fn moments_are_evenly_spaced_and_nothing_is_saved_up() {
        let mut pace = pace(10);
        let later = T0.plus(SECOND * 60);
        let given: Vec<_> =
            std::iter::from_fn(|| pace.take(StreamKind::Transactional, 1, later).ok()).collect();
        assert_eq!(given, [later, later.plus(Duration::from_millis(100))], "an idle minute gave no burst");
        let again = pace.take(StreamKind::Transactional, 1, later).unwrap_err();
        assert_eq!(again, later.plus(Duration::from_millis(100)));
        assert!(pace.take(StreamKind::Transactional, 1, again).is_ok());
    }

    #[test]
    fn a_start_gives_nothing_at_once() {
        let mut slow = Pace::new(Rate { recipients: 1, per: SECOND * 60 }, T0);
        assert_eq!(slow.take(StreamKind::Transactional, 1, T0), Err(T0.plus(SECOND * 60).earlier(AHEAD)));
    }

    #[test]
    fn a_slow_one_goes_on_from_what_was_noted_and_gives_nothing_twice() {
        let minute = Rate { recipients: 1, per: SECOND * 60 };
        let mut before = Pace::new(minute, T0);
        before.go_on(Timestamp::from_millis(0));
        assert_eq!(before.take(StreamKind::Transactional, 1, T0), Ok(T0), "nothing was ever sent");
        let noted = before.noted().unwrap();
        for (restart, first) in [(5, 60), (59, 60), (3_000, 3_000)] {
            let now = T0.plus(SECOND * restart);
            let mut after = Pace::new(minute, now);
            after.go_on(noted);
            let opens = after.opens_at(StreamKind::Transactional).max(now);
            let at = after.take(StreamKind::Transactional, 1, opens).unwrap();
            assert_eq!(at, T0.plus(SECOND * first), "started after {restart} s");
        }
        let mut fast = pace(10);
        fast.go_on(Timestamp::from_millis(0));
        assert_eq!((fast.noted(), fast == pace(10)), (None, true));
    }

    #[test]
    fn a_call_carries_a_seconds_worth() {
        assert_eq!(pace(14).most_in_a_call(), 14);
        assert_eq!(Pace::new(Rate { recipients: 30, per: SECOND * 60 }, T0).most_in_a_call(), 1);
    }

    #[test]
    fn a_campaign_leaves_moments_to_transactional_mail() {
        let mut pace = pace(100);
        let (mut now, mut campaign, mut receipts) = (T0, 0, 0);
        for ms in 0..10_000 {
            now = T0.plus(Duration::from_millis(ms));
            while pace.take(StreamKind::Broadcast, 1, now).is_ok() {
                campaign += 1;
            }
            if ms % 500 == 0 && pace.take(StreamKind::Transactional, 1, now).is_ok() {
                receipts += 1;
            }
        }
        assert!(now > T0 && (930..=975).contains(&campaign), "{campaign}");
        assert_eq!(receipts, 20, "each at once");
    }

    proptest! {
        #[test]
        fn no_time_holds_more_than_the_rate(
            rate in 1..200_u32,
            asks in prop::collection::vec((0..300_u64, any::<bool>(), 1..4_u32), 1..200),
        ) {
            let mut pace = Pace::new(Rate { recipients: rate, per: SECOND }, T0);
            let mut now = T0;
            let mut left: Vec<(Timestamp, u32)> = Vec::new();
            for (wait, broadcast, n) in asks {
                now = now.plus(Duration::from_millis(wait));
                let kind = if broadcast { StreamKind::Broadcast } else { StreamKind::Transactional };
                if let Ok(at) = pace.take(kind, n, now) {
                    prop_assert!(at >= now);
                    left.push((at, n));
                }
            }
            for (i, (from, first)) in left.iter().enumerate() {
                let mut sum = 0;
                for (at, n) in &left[i..] {
                    // What came before this one fits into the time since, at the rate; a millisecond is rounding.
                    let allowed = at.since(*from).as_secs_f64() * f64::from(rate) + f64::from(rate) / 1_000.0;
                    prop_assert!(f64::from(sum) <= allowed + 1e-6, "{sum} in {:?}", at.since(*from));
                    sum += n;
                }
                prop_assert!(*first >= 1);
            }
        }
    }
}
