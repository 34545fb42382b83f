//! How much an ESP may be given, at work: its windows by the ledger, its rate by the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::mail::StreamKind;
use crate::mail::quota::Limits;
use crate::router::quota::{Ask, Granted};
use crate::router::{Lack, Pace, PassedOver, Quota};
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub struct Allowance {
    esp: String,
    limits: Limits,
    quota: Mutex<Quota>,
    pace: Option<Mutex<Pace>>,
}

/// What one call has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// The moment whose buckets count it; `None`: there is no limit.
    pub spent: Option<Timestamp>,
    /// It leaves no earlier.
    pub leaves_at: Option<Timestamp>,
    /// Recipients.
    pub recipients: u32,
}

/// Why there is none at this moment.
#[derive(Debug, Clone, PartialEq)]
pub enum NoShare {
    /// The ledger is being asked.
    Soon,
    /// The rate leaves room then.
    At(Timestamp),
    /// None is left.
    Spent(PassedOver),
}

impl Allowance {
    /// Under these limits. Whatever was allowed before this start and not used is spent.
    pub fn new(esp: &str, limits: Limits, now: Timestamp) -> Self {
        Allowance {
            esp: esp.to_owned(),
            limits,
            quota: Mutex::new(Quota::new(limits.windows)),
            pace: limits.rate.map(|rate| Mutex::new(Pace::new(rate, now))),
        }
    }

    /// A share for so many recipients.
    pub fn take(&self, kind: StreamKind, recipients: u32, now: Timestamp) -> Result<Share, NoShare> {
        let mut pace = self.pace.as_ref().map(locked);
        if let Some(opens_at) = pace.as_ref().map(|pace| pace.opens_at(kind)).filter(|at| *at > now) {
            return Err(NoShare::At(opens_at));
        }
        let spent = self.quota().take(kind, u64::from(recipients), now).map_err(|lack| match lack {
            Lack::Soon => NoShare::Soon,
            Lack::Spent(why) => NoShare::Spent(why),
        })?;
        let leaves_at = match pace.as_mut().map(|pace| pace.take(kind, recipients, now)) {
            Some(Ok(at)) => Some(at),
            Some(Err(at)) => return Err(NoShare::At(at)),
            None => None,
        };
        Ok(Share { spent, leaves_at, recipients })
    }

    /// Why there is none for so many recipients, for longer than a moment.
    pub fn why_spent(&self, kind: StreamKind, recipients: u32, now: Timestamp) -> Option<PassedOver> {
        self.quota().spent(kind, u64::from(recipients), now)
    }

    /// Whether the rate leaves room now for transactional mail.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.pace.as_ref().is_none_or(|pace| locked(pace).opens_at(StreamKind::Transactional) <= now)
    }

    /// What may still be sent; `None`: without limit.
    pub fn remaining(&self, now: Timestamp) -> Option<u64> {
        self.quota().remaining(now)
    }

    /// Something was given back to the ledger.
    pub fn stirred(&self) {
        self.quota().stirred();
    }

    /// What there is to do at the ledger; whoever is told so calls [`Allowance::ask`].
    pub fn wants(&self, now: Timestamp) -> Option<Ask> {
        self.quota().wants(now)
    }

    /// Asks the ledger. `false`: it did not answer, and is asked again later.
    pub async fn ask(&self, ask: Ask, store: &Store, now: Timestamp) -> bool {
        if let Some((at, unused)) = ask.back {
            // What cannot be given back is spent.
            let _ = store.give_back(&self.esp, at, unused).await;
        }
        match store.take(&self.esp, ask.recipients, self.limits.windows).await {
            Ok(block) => {
                let back = self.quota().granted(Granted {
                    recipients: block.granted,
                    at: block.at,
                    left: block.left,
                    more_at: block.more_at,
                    presumed: block.presumed,
                });
                if let Some((at, unused)) = back {
                    let _ = store.give_back(&self.esp, at, unused).await;
                    self.stirred();
                }
                true
            }
            Err(_) => {
                self.quota().failed(now);
                false
            }
        }
    }

    /// A share that was not used, or so many recipients of it.
    pub async fn unused(&self, share: &Share, recipients: u32, store: &Store, now: Timestamp) {
        let Some(at) = share.spent.filter(|_| recipients > 0) else { return };
        let kept = self.quota().unused(at, u64::from(recipients), now);
        if !kept {
            let _ = store.give_back(&self.esp, at, u64::from(recipients)).await;
            self.stirred();
        }
    }

    /// At a stop: what is in hand goes back.
    pub async fn close(&self, store: &Store) {
        let held = self.quota().give_up();
        if let Some((at, unused)) = held {
            let _ = store.give_back(&self.esp, at, unused).await;
        }
    }

    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locked(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}
