//! How much an ESP may be given, at work: its windows by the ledger, its rate by the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::mail::StreamKind;
use crate::mail::quota::{Limits, Told};
use crate::router::quota::{Ask, Granted};
use crate::router::{Lack, Pace, PassedOver, Quota};
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub struct Allowance {
    esp: String,
    book: Mutex<Book>,
}

/// The limits, and what is in hand under them.
#[derive(Debug)]
struct Book {
    /// As they are written.
    written: Limits,
    /// What the ESP has told last, where it is to tell.
    told: Option<Told>,
    /// What holds of both.
    limits: Limits,
    quota: Quota,
    pace: Option<Pace>,
    /// How often the windows were changed: an answer of the ledger to an earlier question is none to this quota.
    edition: u64,
}

/// What one call has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// The moment whose buckets count it; `None`: there is no limit.
    pub spent: Option<Timestamp>,
    /// It leaves no earlier.
    pub leaves_at: Option<Timestamp>,
    /// The rate's next free moment after it, where a later start is to know that.
    pub noted: Option<Timestamp>,
    /// So many recipients.
    pub recipients: u32,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Transactional or broadcast.
    pub kind: StreamKind,
    /// Recipients that wait.
    pub recipients: u32,
    /// All of them or none; else what the limits let one call have.
    pub whole: bool,
}

/// Why there is none at this moment.
#[derive(Debug, Clone, PartialEq)]
pub enum NoShare {
    /// The ledger is being asked.
    Soon,
    /// The rate leaves room then.
    At(Timestamp),
    /// There is some, for fewer than all of them.
    Part,
    /// None is left.
    Spent(PassedOver),
}

impl Allowance {
    /// Under these limits. Whatever was allowed before this start and not used is spent.
    pub fn new(esp: &str, written: Limits, now: Timestamp) -> Self {
        let limits = written.under(None);
        let book = Book {
            written,
            told: None,
            limits,
            quota: Quota::new(limits.windows),
            pace: limits.rate.map(|rate| Pace::new(rate, now)),
            edition: 0,
        };
        Allowance { esp: esp.to_owned(), book: Mutex::new(book) }
    }

    /// An earlier start had given away the rate's moments before this one, and none after.
    pub fn go_on(&self, next: Timestamp) {
        if let Some(pace) = &mut self.book().pace {
            pace.go_on(next);
        }
    }

    /// Under other limits from now on. The moments that are given away stay so; what was in hand under other windows
    /// comes back, for [`Allowance::give_back`].
    #[must_use]
    pub fn change(&self, written: Limits, now: Timestamp) -> Option<(Timestamp, u64)> {
        let mut book = self.book();
        book.written = written;
        book.apply(now)
    }

    /// Whether the ESP itself is to tell its limits.
    pub fn is_told(&self) -> bool {
        self.book().written.told
    }

    /// The ESP has told: as [`Allowance::change`].
    #[must_use]
    pub fn tell(&self, told: Told, now: Timestamp) -> Option<(Timestamp, u64)> {
        let mut book = self.book();
        book.told = Some(told);
        book.apply(now)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// What is written and told holds from now on.
    fn apply(&mut self, now: Timestamp) -> Option<(Timestamp, u64)> {
        let limits = self.written.under(self.told);
        if limits.rate != self.limits.rate {
            let at = |rate| self.pace.as_ref().map_or_else(|| Pace::new(rate, now), |pace| pace.at(rate));
            self.pace = limits.rate.map(at);
        }
        let windows_change = limits.windows != self.limits.windows;
        self.limits = limits;
        if !windows_change {
            return None;
        }
        self.edition += 1;
        std::mem::replace(&mut self.quota, Quota::new(limits.windows)).give_up()
    }
}

impl Allowance {
    /// So much, taken at that moment, goes back to the ledger.
    pub async fn give_back(&self, unused: Option<(Timestamp, u64)>, store: &Store) {
        if let Some((at, unused)) = unused {
            // What cannot be given back is spent.
            let _ = store.give_back(&self.esp, at, unused).await;
        }
    }

    /// A share for as many of these recipients as one call may carry.
    pub fn take(&self, want: Want, now: Timestamp) -> Result<Share, NoShare> {
        let kind = want.kind;
        let mut book = self.book();
        if let Some(opens_at) = book.pace.as_ref().map(|pace| pace.opens_at(kind)).filter(|at| *at > now) {
            return Err(NoShare::At(opens_at));
        }
        let at_a_time = book.pace.as_ref().map_or(u32::MAX, Pace::most_in_a_call);
        let most = book.quota.most(kind, u64::from(want.recipients.min(at_a_time)), now);
        let recipients = u32::try_from(most).unwrap_or(want.recipients);
        if want.whole && recipients < want.recipients {
            return Err(NoShare::Part);
        }
        let spent = book.quota.take(kind, most, now).map_err(|lack| match lack {
            Lack::Soon => NoShare::Soon,
            Lack::Spent(why) => NoShare::Spent(why),
        })?;
        let leaves_at = match book.pace.as_mut().map(|pace| pace.take(kind, recipients, now)) {
            Some(Ok(at)) => Some(at),
            Some(Err(at)) => return Err(NoShare::At(at)),
            None => None,
        };
        let noted = book.pace.as_ref().and_then(Pace::noted);
        Ok(Share { spent, leaves_at, noted, recipients })
    }

    /// Why there is none for anybody, for longer than a moment.
    pub fn why_spent(&self, kind: StreamKind, now: Timestamp) -> Option<PassedOver> {
        self.book().quota.spent(kind, 1, now)
    }

    /// Whether the rate leaves room now for transactional mail.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.waits_until(StreamKind::Transactional, now).is_none()
    }

    /// When the rate leaves room again, where it leaves none now.
    pub fn waits_until(&self, kind: StreamKind, now: Timestamp) -> Option<Timestamp> {
        self.book().pace.as_ref().map(|pace| pace.opens_at(kind)).filter(|at| *at > now)
    }

    /// What may still be sent; `None`: without limit.
    pub fn remaining(&self, now: Timestamp) -> Option<u64> {
        self.book().quota.remaining(now)
    }

    /// Something was given back to the ledger.
    pub fn stirred(&self) {
        self.book().quota.stirred();
    }

    /// What there is to do at the ledger; whoever is told so calls [`Allowance::ask`].
    pub fn wants(&self, now: Timestamp) -> Option<Ask> {
        self.book().quota.wants(now)
    }

    /// Asks the ledger. `false`: it did not answer, and is asked again later.
    pub async fn ask(&self, ask: Ask, store: &Store, now: Timestamp) -> bool {
        self.give_back(ask.back, store).await;
        let (windows, edition) = {
            let book = self.book();
            (book.limits.windows, book.edition)
        };
        let answer = store.take(&self.esp, ask.recipients, windows).await;
        let back = {
            let mut book = self.book();
            match &answer {
                Ok(block) if book.edition != edition => {
                    (block.granted > 0).then_some((block.at, block.granted))
                }
                Ok(block) => book.quota.granted(Granted {
                    recipients: block.granted,
                    at: block.at,
                    left: block.left,
                    more_at: block.more_at,
                    presumed: block.presumed,
                }),
                Err(_) => {
                    if book.edition == edition {
                        book.quota.failed(now);
                    }
                    None
                }
            }
        };
        if back.is_some() {
            self.give_back(back, store).await;
            self.stirred();
        }
        answer.is_ok()
    }

    /// A share that was not used, or so many recipients of it.
    pub async fn unused(&self, share: &Share, recipients: u32, store: &Store, now: Timestamp) {
        let Some(at) = share.spent.filter(|_| recipients > 0) else { return };
        let kept = self.book().quota.unused(at, u64::from(recipients), now);
        if !kept {
            let _ = store.give_back(&self.esp, at, u64::from(recipients)).await;
            self.stirred();
        }
    }

    /// At a stop: what is in hand goes back.
    pub async fn close(&self, store: &Store) {
        let held = self.book().quota.give_up();
        self.give_back(held, store).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::quota::{QuotaLimits, Rate};
    use std::time::Duration;

    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const RECEIPT: Want = Want { kind: StreamKind::Transactional, recipients: 1, whole: false };

    fn rate(recipients: u32) -> Limits {
        let rate = Some(Rate { recipients, per: Duration::from_secs(60) });
        Limits { rate, ..Limits::default() }
    }

    #[test]
    fn another_rate_keeps_the_moments_that_are_given_away() {
        let later = T0.plus(Duration::from_secs(60));
        let allowance = Allowance::new("a", rate(1), T0);
        assert!(allowance.take(RECEIPT, later).is_ok());
        assert_eq!(allowance.change(rate(60), later), None);
        assert!(
            matches!(allowance.take(RECEIPT, later), Err(NoShare::At(at)) if at > later.plus(Duration::from_secs(59)))
        );
        let _ = allowance.change(Limits::default(), later);
        assert!(allowance.take(RECEIPT, later).is_ok(), "no rate, no wait");
        let _ = allowance.change(rate(60), later);
        assert!(allowance.take(RECEIPT, later).is_err(), "a rate begins empty");
    }

    #[test]
    fn other_windows_give_back_what_is_in_hand() {
        let daily = |limit| Limits {
            windows: QuotaLimits { daily: Some(limit), ..QuotaLimits::default() },
            ..Limits::default()
        };
        let allowance = Allowance::new("a", daily(1_000), T0);
        assert!(allowance.wants(T0).is_some());
        let left = [None, Some(990), None];
        let granted = Granted { recipients: 10, at: T0, left, more_at: [None; 3], presumed: false };
        let _ = allowance.book().quota.granted(granted);
        assert!(allowance.take(Want { recipients: 4, ..RECEIPT }, T0).is_ok());
        assert_eq!(allowance.change(daily(1_000), T0), None, "the same");
        assert_eq!(allowance.change(daily(500), T0), Some((T0, 6)));
        assert_eq!(allowance.take(RECEIPT, T0), Err(NoShare::Soon), "nothing is used that was not asked for");
        assert_eq!(allowance.wants(T0).map(|ask| ask.recipients), Some(5));
    }

    #[test]
    fn what_the_esp_tells_holds_over_a_reload_and_what_is_written_beside_it_too() {
        let written = |daily| Limits {
            windows: QuotaLimits { daily, ..QuotaLimits::default() },
            rate: None,
            told: true,
        };
        let allowance = Allowance::new("a", written(None), T0);
        assert!(allowance.is_told() && allowance.remaining(T0).is_none());
        let second = T0.plus(Duration::from_secs(1));
        assert!(allowance.take(RECEIPT, second).is_ok());
        assert!(
            matches!(allowance.take(RECEIPT, second), Err(NoShare::At(_))),
            "one a second until it tells"
        );
        let rate = Rate { recipients: 100, per: Duration::from_secs(1) };
        let _ = allowance.tell(Told { rate, daily: Some(500), sent: 0 }, second);
        assert_eq!(allowance.remaining(second), Some(500));
        let _ = allowance.change(written(Some(20)), second);
        assert_eq!(allowance.remaining(second), Some(20));
        let _ = allowance.change(written(None), second);
        assert_eq!(allowance.remaining(second), Some(500), "what was told is still known");
        let _ = allowance.change(Limits::default(), second);
        assert!(!allowance.is_told() && allowance.remaining(second).is_none());
    }
}
