//! The only place that reads the time: wall clock behind a trait, monotonic clock for time-outs.
//!
//! Everything that stores, compares or shows a time takes a [`Clock`], so that a test can hold it still; time-outs and
//! measured durations use [`monotonic`], which follows tokio's paused clock in tests.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment so many milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This moment and `later`; stays at the last representable moment instead of wrapping.
    pub fn plus(self, later: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment less `before`; never before the epoch.
    pub fn earlier(self, before: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(before.as_millis()).unwrap_or(i64::MAX)).max(0))
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 5322 section 3.3 date-time in UTC, as `Received` and `Date` want it.
    pub fn rfc5322(self) -> String {
        self.civil().map_or_else(String::new, |z| z.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
    }

    /// The first moment of its calendar month in UTC.
    pub fn utc_month(self) -> Timestamp {
        let first = self.civil().map(|z| z.date().first_of_month());
        first.and_then(Self::midnight).unwrap_or(self)
    }

    /// The first moment of the calendar month after it, in UTC.
    pub fn next_utc_month(self) -> Timestamp {
        let last = self.civil().map(|z| z.date().last_of_month());
        last.and_then(|day| Self::midnight(day.tomorrow().ok()?)).unwrap_or(Timestamp(i64::MAX))
    }

    fn midnight(day: jiff::civil::Date) -> Option<Timestamp> {
        let midnight = jiff::tz::Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
        Some(Timestamp(midnight.as_millisecond()))
    }

    fn civil(self) -> Option<jiff::civil::DateTime> {
        jiff::Timestamp::from_millisecond(self.0).ok().map(|t| jiff::tz::Offset::UTC.to_datetime(t))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.civil() {
            Some(z) => write!(f, "{}", z.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the wall-clock time comes from: the system, a test's hand, one day a cluster's database.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct Manual(AtomicI64);

impl Manual {
    /// A clock that shows `at`.
    pub fn at(at: Timestamp) -> Self {
        Manual(AtomicI64::new(at.millis()))
    }

    /// Sets it, also back.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.millis(), Ordering::SeqCst);
    }

    /// Moves the hand forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A point on the monotonic clock, for time-outs and durations.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_standards_want_them() {
        let t = Timestamp::from_millis(1_795_602_034_005);
        assert_eq!(t.to_string(), "2026-11-25T10:20:34.005Z");
        assert_eq!(t.rfc5322(), "Wed, 25 Nov 2026 10:20:34 +0000");
    }

    #[test]
    fn a_month_begins_and_ends_in_utc() {
        let t = Timestamp::from_millis(1_795_602_034_005);
        assert_eq!(t.utc_month().to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(t.next_utc_month().to_string(), "2026-12-01T00:00:00.000Z");
        assert_eq!(t.next_utc_month().utc_month(), t.next_utc_month());
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Timestamp::from_millis(i64::MAX).plus(Duration::from_secs(1)).millis(), i64::MAX);
        assert_eq!(Timestamp::from_millis(1).since(Timestamp::from_millis(2)), Duration::ZERO);
    }
}
