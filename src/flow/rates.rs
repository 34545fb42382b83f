//! `rate` of credentials: one bucket each, as full as what was taken in under it leaves it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mail::quota::Rate;
use crate::policy::bucket::Bucket;
use crate::smtp::{Client, Reply};

/// The bucket of each user that has a rate; there are no more than credentials. A start fills them.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Bucket>>);

impl Rates {
    /// Whether a message would be let in now; else when to come again.
    pub(super) fn look(&self, client: &Client) -> Result<(), Reply> {
        judged(self.with(client, |bucket, rate, now| bucket.look(rate, now).map_err(|wait| (rate, wait))))
    }

    /// Lets a message with so many recipients in, or says when to come again.
    pub(super) fn enter(&self, client: &Client, recipients: usize) -> Result<(), Reply> {
        let enter = |bucket: &mut Bucket, rate, now| bucket.enter(rate, recipients, now);
        judged(self.with(client, |bucket, rate, now| enter(bucket, rate, now).map_err(|wait| (rate, wait))))
    }

    /// A message that was let in was not taken, or is one that was taken before.
    pub(super) fn give_back(&self, client: &Client, recipients: usize) {
        self.with(client, |bucket, rate, now| bucket.give_back(rate, recipients, now));
    }

    /// The bucket of the client's user; `None`: it has no rate.
    fn with<T>(&self, client: &Client, act: impl FnOnce(&mut Bucket, Rate, Instant) -> T) -> Option<T> {
        let (user, rate) = (client.credential.as_ref()?, client.terms.rate?);
        let now = monotonic();
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(user.username.clone()).or_insert_with(|| Bucket::full(rate, now));
        Some(act(bucket, rate, now))
    }
}

fn judged(let_in: Option<Result<(), (Rate, Duration)>>) -> Result<(), Reply> {
    let_in.unwrap_or(Ok(())).map_err(|(rate, wait)| too_much(rate, wait))
}

fn too_much(rate: Rate, wait: Duration) -> Reply {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let text = format!(
        "this user's rate is {} in {} s, and it is used up; try again in {seconds} s",
        if rate.recipients == 1 { "1 recipient".into() } else { format!("{} recipients", rate.recipients) },
        rate.per.as_secs()
    );
    Reply::told(450, (4, 7, 1), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_recipient_is_told_as_one() {
        let told = |recipients| {
            let rate = Rate { recipients, per: Duration::from_secs(60) };
            too_much(rate, Duration::from_millis(1500)).text.into_owned()
        };
        assert!(told(1).starts_with("this user's rate is 1 recipient in 60 s"), "{}", told(1));
        assert!(told(2).contains("2 recipients in 60 s") && told(2).ends_with("in 2 s"), "{}", told(2));
    }
}
