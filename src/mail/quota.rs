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

impl Rate {
    /// What may be taken in at once: what one period gives, or a minute where that is more.
    pub fn most_at_once(self) -> usize {
        let of_a_minute = u64::from(self.recipients) * 60_000 / (self.per.as_millis() as u64).max(1);
        usize::try_from(of_a_minute.max(u64::from(self.recipients))).unwrap_or(usize::MAX)
    }
}

/// All limits of one `[[esp]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Over a time.
    pub windows: QuotaLimits,
    /// From one to the next.
    pub rate: Option<Rate>,
    /// `rate = "auto"`: the ESP itself tells its limits, and these are beside them.
    pub told: bool,
}

/// What an ESP says that it may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// From one to the next.
    pub rate: Rate,
    /// In any 24 hours; `None`: without limit.
    pub daily: Option<u64>,
    /// What it has had in the last 24, from whomever.
    pub sent: u64,
}

/// Where an ESP is to tell its rate and has not yet: what every account may send.
const UNTOLD: Rate = Rate { recipients: 1, per: Duration::from_secs(1) };

impl Limits {
    /// These under what the ESP has told, where it is to tell: the lower of each holds.
    #[must_use]
    pub fn under(self, told: Option<Told>) -> Limits {
        if !self.told {
            return self;
        }
        let daily = self.windows.daily.into_iter().chain(told.and_then(|told| told.daily)).min();
        let rate = Some(told.map_or(UNTOLD, |told| told.rate));
        Limits { windows: QuotaLimits { daily, ..self.windows }, rate, ..self }
    }
}

impl Told {
    /// The same with a daily limit for the relay alone, which `ours` of that time are counted for already: what others
    /// have sent from the same account is not there for it. At least 1: nought would never be asked about again.
    #[must_use]
    pub fn for_us(self, ours: u64) -> Told {
        let of = |daily: u64| daily.min(daily.saturating_sub(self.sent).saturating_add(ours)).max(1);
        Told { daily: self.daily.map(of), ..self }
    }
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

    /// Until when a bucket is kept: a month is, in which a clock that is set back may find itself again.
    pub fn kept_until(self, bucket: Timestamp) -> Timestamp {
        const SET_BACK_MAX: Duration = Duration::from_secs(62 * 86_400);
        let over = self.counts_until(bucket);
        if self.rolling().is_some() { over } else { over.plus(SET_BACK_MAX) }
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
    fn what_is_told_and_what_is_written_hold_both() {
        let rate = Rate { recipients: 14, per: Duration::from_secs(1) };
        let told = Told { rate, daily: Some(50_000), sent: 0 };
        let written = |daily| Limits {
            windows: QuotaLimits { daily, ..QuotaLimits::default() },
            rate: None,
            told: true,
        };
        assert_eq!(written(None).under(None), Limits { rate: Some(UNTOLD), ..written(None) });
        assert_eq!(written(None).under(Some(told)), Limits { rate: Some(rate), ..written(Some(50_000)) });
        assert_eq!(written(Some(10)).under(Some(told)).windows.daily, Some(10));
        let unlimited = Told { daily: None, ..told };
        assert_eq!(written(None).under(Some(unlimited)).windows.daily, None);
        assert_eq!(Limits::default().under(Some(told)), Limits::default(), "nobody asked");
    }

    #[test]
    fn what_others_have_sent_from_the_account_is_not_there_for_us() {
        let rate = Rate { recipients: 14, per: Duration::from_secs(1) };
        for (sent, ours, left) in
            [(0, 0, 100), (30, 30, 100), (30, 0, 70), (30, 40, 100), (100, 0, 1), (120, 20, 20)]
        {
            let told = Told { rate, daily: Some(100), sent };
            assert_eq!(told.for_us(ours).daily, Some(left), "{sent} {ours}");
        }
    }

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
