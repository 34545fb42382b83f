//! How much an ESP allows in a time: the windows, and the buckets that they are counted in.
//!
//! What is counted is recipients, as ESPs count them. A rolling window is counted in short buckets, each of which counts
//! until its last moment is a whole window old, and one bucket longer: what was counted may leave a little later. So no
//! window is ever exceeded, whatever moment it begins at.

use std::time::Duration;

use crate::clock::Timestamp;

/// A time over which an ESP's allowance is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The last 60 minutes.
    Hour,
    /// The last 24 hours.
    Day,
    /// The calendar month in UTC.
    Month,
}

/// `hourly_limit`, `daily_limit`, `monthly_limit` of an `[[esp]]`, in recipients; `None`: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaLimits {
    /// In any 60 minutes.
    pub hourly: Option<u64>,
    /// In any 24 hours.
    pub daily: Option<u64>,
    /// In a calendar month, UTC.
    pub monthly: Option<u64>,
}

/// `14/s`: so many recipients in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Recipients.
    pub recipients: u32,
    /// In this time.
    pub per: Duration,
}

/// All limits of one `[[esp]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Over a time.
    pub windows: QuotaLimits,
    /// From one to the next.
    pub rate: Option<Rate>,
}

impl Window {
    /// All of them, shortest first.
    pub const ALL: [Window; 3] = [Window::Hour, Window::Day, Window::Month];

    /// The bucket of a moment: its first moment.
    pub fn bucket(self, at: Timestamp) -> Timestamp {
        match self.rolling() {
            Some((_, bucket)) => {
                let length = i64::try_from(bucket.as_millis()).unwrap_or(1);
                Timestamp::from_millis(at.millis().div_euclid(length) * length)
            }
            None => at.utc_month(),
        }
    }

    /// The first moment after that bucket.
    pub fn bucket_end(self, bucket: Timestamp) -> Timestamp {
        match self.rolling() {
            Some((_, length)) => bucket.plus(length),
            None => bucket.next_utc_month(),
        }
    }

    /// From when on a bucket counts no more.
    pub fn counts_until(self, bucket: Timestamp) -> Timestamp {
        match self.rolling() {
            Some((window, length)) => bucket.plus(window + length * 2),
            None => bucket.next_utc_month(),
        }
    }

    /// The window's length and its buckets'; `None`: it does not roll.
    fn rolling(self) -> Option<(Duration, Duration)> {
        const MINUTE: Duration = Duration::from_secs(60);
        match self {
            Window::Hour => Some((MINUTE * 60, MINUTE)),
            Window::Day => Some((MINUTE * 60 * 24, MINUTE * 15)),
            Window::Month => None,
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Window::Hour => "hourly",
            Window::Day => "daily",
            Window::Month => "monthly",
        }
    }
}

impl QuotaLimits {
    /// The limit of a window.
    pub fn of(&self, window: Window) -> Option<u64> {
        match window {
            Window::Hour => self.hourly,
            Window::Day => self.daily,
            Window::Month => self.monthly,
        }
    }

    /// The windows that have a limit.
    pub fn windows(&self) -> impl Iterator<Item = (Window, u64)> + '_ {
        Window::ALL.into_iter().filter_map(|window| self.of(window).map(|limit| (window, limit)))
    }

    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.windows().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_for_a_whole_window_after_its_last_moment() {
        let t = Timestamp::from_millis(1_795_602_034_005);
        for (window, length) in [(Window::Hour, 3_600), (Window::Day, 86_400)] {
            let bucket = window.bucket(t);
            let last = window.bucket_end(bucket);
            assert!(bucket <= t && t < last && window.bucket(last) == last);
            assert!(window.counts_until(bucket) >= last.plus(Duration::from_secs(length)));
        }
        assert_eq!(Window::Month.bucket(t).to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(
            Window::Month.counts_until(Window::Month.bucket(t)).to_string(),
            "2026-12-01T00:00:00.000Z"
        );
    }
}
