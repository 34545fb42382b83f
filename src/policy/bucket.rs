//! `rate` of a credential: a bucket that fills evenly, and holds what one period allows. Pure.
//!
//! A message is let in where at least one recipient's worth is left, and then costs what it has: it is refused or taken
//! as a whole, and what it takes beyond the bucket the next ones wait for. So over any time no more leaves than the
//! rate, one bucket and one message; and one message has no more than [`Rate::most_at_once`], which SMTP says at RCPT.

use std::time::Duration;

use tokio::time::Instant;

use crate::mail::quota::Rate;

/// What is left, as of a moment; below zero: owed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    recipients: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Bucket { recipients: f64::from(rate.recipients), at: now }
    }

    /// Whether a message would be let in. `Err`: it has to wait so long.
    pub fn look(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.recipients < 1.0 {
            let wait = (1.0 - self.recipients) / per_second(rate);
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        Ok(())
    }

    /// Lets a message in, and takes what it has. `Err`: it has to wait so long.
    pub fn enter(&mut self, rate: Rate, recipients: usize, now: Instant) -> Result<(), Duration> {
        self.look(rate, now)?;
        self.recipients -= recipients as f64;
        Ok(())
    }

    /// A message that was let in was not taken after all.
    pub fn give_back(&mut self, rate: Rate, recipients: usize, now: Instant) {
        self.recipients += recipients as f64;
        self.fill(rate, now);
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * per_second(rate);
        self.recipients = (self.recipients + gained).min(f64::from(rate.recipients));
        self.at = self.at.max(now);
    }
}

fn per_second(rate: Rate) -> f64 {
    f64::from(rate.recipients) / rate.per.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;
    use proptest::prelude::*;

    const RATE: Rate = Rate { recipients: 60, per: Duration::from_secs(60) };

    #[test]
    fn it_gives_a_period_s_worth_at_once_and_then_one_after_the_other() {
        let now = monotonic();
        let mut bucket = Bucket::full(RATE, now);
        assert!((0..60).all(|_| bucket.enter(RATE, 1, now).is_ok()));
        let wait = bucket.enter(RATE, 1, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        assert!(bucket.look(RATE, now + wait / 2).is_err());
        assert!(bucket.look(RATE, now + wait).is_ok(), "who looks takes nothing");
        assert!(bucket.enter(RATE, 1, now + wait).is_ok() && bucket.enter(RATE, 1, now + wait).is_err());
    }

    #[test]
    fn a_large_message_is_taken_whole_and_the_next_one_waits_for_it() {
        let now = monotonic();
        let mut bucket = Bucket::full(RATE, now);
        bucket.enter(RATE, 90, now).unwrap();
        assert_eq!(bucket.enter(RATE, 1, now).unwrap_err(), Duration::from_secs(31));
    }

    #[test]
    fn what_was_not_taken_after_all_is_given_back_and_never_more_than_a_bucket() {
        let now = monotonic();
        let mut bucket = Bucket::full(RATE, now);
        bucket.enter(RATE, 90, now).unwrap();
        bucket.give_back(RATE, 90, now + Duration::from_secs(30));
        assert_eq!(bucket, Bucket::full(RATE, now + Duration::from_secs(30)));
    }

    proptest! {
        #[test]
        fn no_time_holds_more_than_the_rate_a_bucket_and_a_message(
            asks in prop::collection::vec((0..5_000_u64, 1..40_usize), 1..200),
        ) {
            let start = monotonic();
            let (mut bucket, mut now) = (Bucket::full(RATE, start), start);
            let mut taken = 0;
            for (wait_millis, recipients) in asks {
                now += Duration::from_millis(wait_millis);
                if bucket.enter(RATE, recipients, now).is_ok() {
                    taken += recipients;
                }
                let allowed = 60.0 + 40.0 + (now - start).as_secs_f64();
                prop_assert!(taken as f64 <= allowed);
            }
        }
    }
}
