//! Mail that was put off because no ESP could take it, by the ESPs that it waits for: once one of them takes mail again it
//! is looked at at once, and not when its time comes. The rows in the database have their time: what is forgotten here, or
//! lost with a crash, waits for that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::mail::{QueueState, StreamKind};
use crate::store::PutOff;

/// Groups that are remembered for one ESP: beyond them the oldest wait for their time.
const OF_ONE_ESP_MAX: usize = 20_000;

/// A group of deliveries that waits, and goes together.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    /// How each was put off.
    pub items: Vec<PutOff>,
    /// When they are due by themselves.
    pub until: Timestamp,
    /// Which mail it is: an ESP may take one kind and not the other.
    pub kind: StreamKind,
}

impl Waiter {
    /// Due now, from the state that they have since they were put off.
    pub fn called(&self, now: Timestamp) -> impl Iterator<Item = PutOff> {
        let due = move |item: &PutOff| PutOff {
            from: QueueState::Waiting { due: item.until },
            until: now,
            round_ends: false,
            ..*item
        };
        self.items.iter().map(due)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiters(HashMap<Arc<str>, VecDeque<Waiter>>);

impl Waiters {
    /// It waits for each of these ESPs.
    pub fn wait(&mut self, waiter: Waiter, esps: &[Arc<str>]) {
        for esp in esps {
            let waiting = self.0.entry(Arc::clone(esp)).or_default();
            if waiting.len() >= OF_ONE_ESP_MAX {
                waiting.pop_front();
            }
            waiting.push_back(waiter.clone());
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ESPs that are waited for.
    pub fn esps(&self) -> Vec<Arc<str>> {
        self.0.keys().cloned().collect()
    }

    /// Up to `max` that wait for that ESP and that it `takes`, the longest first, transactional mail before a campaign.
    /// What is due by itself by now is left out.
    pub fn leave(
        &mut self,
        esp: &str,
        max: usize,
        now: Timestamp,
        takes: impl Fn(StreamKind) -> bool,
    ) -> Vec<Waiter> {
        let Some(waiting) = self.0.get_mut(esp) else { return Vec::new() };
        waiting.retain(|waiter| waiter.until > now);
        let mut left = Vec::new();
        for kind in [StreamKind::Transactional, StreamKind::Broadcast] {
            if left.len() >= max || !takes(kind) {
                continue;
            }
            let mut room = max - left.len();
            waiting.retain(|waiter| {
                let goes = waiter.kind == kind && room > 0;
                if goes {
                    room -= 1;
                    left.push(waiter.clone());
                }
                !goes
            });
        }
        if waiting.is_empty() {
            self.0.remove(esp);
        }
        left
    }

    /// Nobody waits for an ESP that is not there.
    pub fn forget_but(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|esp, _| is_there(esp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::mail::{DeliveryId, MessageId};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn waiter(n: i64, kind: StreamKind, seconds: u64) -> Waiter {
        let until = NOW.plus(Duration::from_secs(seconds));
        let delivery = DeliveryId { message: MessageId::from_number(n), recipient: 0 };
        let item = PutOff { delivery, from: QueueState::Waiting { due: NOW }, until, round_ends: true };
        Waiter { items: vec![item], until, kind }
    }

    fn numbers(left: &[Waiter]) -> Vec<i64> {
        left.iter().map(|w| w.items[0].delivery.message.number()).collect()
    }

    #[test]
    fn who_waits_longest_leaves_first_so_many_at_a_time_and_a_campaign_last() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut waiters = Waiters::default();
        for (n, kind, seconds) in [
            (1, StreamKind::Broadcast, 60),
            (2, StreamKind::Transactional, 60),
            (3, StreamKind::Transactional, 0),
            (4, StreamKind::Transactional, 60),
        ] {
            waiters.wait(waiter(n, kind, seconds), std::slice::from_ref(&a));
        }
        waiters.wait(waiter(5, StreamKind::Transactional, 60), &[b]);
        assert_eq!(numbers(&waiters.leave("a", 1, NOW, |_| true)), [2], "3 is due by itself");
        let campaign = |kind| kind == StreamKind::Broadcast;
        assert_eq!(numbers(&waiters.leave("a", 0, NOW, |_| true)), [0_i64; 0]);
        assert_eq!(numbers(&waiters.leave("a", 9, NOW, |_| true)), [4, 1]);
        assert_eq!(numbers(&waiters.leave("a", 9, NOW, campaign)), [0_i64; 0]);
        waiters.forget_but(|esp| esp == "a");
        assert!(waiters.is_empty());
    }

    #[test]
    fn there_are_so_many_at_most() {
        let a: Arc<str> = "a".into();
        let mut waiters = Waiters::default();
        for n in 0..OF_ONE_ESP_MAX as i64 + 2 {
            waiters.wait(waiter(n, StreamKind::Broadcast, 60), std::slice::from_ref(&a));
        }
        let left = waiters.leave("a", usize::MAX, NOW, |_| true);
        assert_eq!((left.len(), numbers(&left)[0]), (OF_ONE_ESP_MAX, 2));
    }
}
