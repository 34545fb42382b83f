//! The keeper's rounds: how much to begin ahead, ends that nobody else looks at, and retention.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::courier::Courier;
use crate::journal;
use crate::mail::Reason;

/// How much is begun ahead shrinks so often: a burst lasts for seconds.
const EASE_EVERY: Duration = Duration::from_secs(1);
/// `max_age` and the ends of holds are swept so often.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Retention runs so often.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// Deliveries swept at a time.
const SWEEP_BATCH: usize = 500;

/// Makes the rounds until it is told to stop.
pub async fn keep(courier: Arc<Courier>, stop: CancellationToken) {
    let mut ease = every(EASE_EVERY);
    let mut sweep = every(SWEEP_EVERY);
    let mut retain = every(RETAIN_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ease.tick() => courier.outlets.iter().for_each(|o| o.ease()),
            _ = sweep.tick() => { courier.sweep().await; }
            _ = retain.tick() => courier.retain().await,
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

impl Courier {
    /// Ends what has passed its `max_age`, whether or not anything could carry it. `false`: the store did not.
    pub(super) async fn sweep(&self) -> bool {
        loop {
            match self.store.sweep(self.clock.now(), SWEEP_BATCH).await {
                Ok(ended) => {
                    for e in &ended {
                        let reason = e.reason.unwrap_or(Reason::Expired);
                        journal::settled(e.id.message, &e.recipient, &e.stream, reason);
                    }
                    if ended.len() < SWEEP_BATCH {
                        return true;
                    }
                }
                Err(error) => {
                    journal::trouble("sweeping the queue", &error.to_string());
                    return false;
                }
            }
        }
    }

    async fn retain(&self) {
        if let Err(error) = self.store.retain(self.clock.now()).await {
            journal::trouble("retention", &error.to_string());
        }
    }
}
