//! An ESP's allowance as the relay has it in hand: a block that the ledger has counted already, and what is left behind
//! it. Pure: times and the ledger's answers are handed in.
//!
//! A block is good for the buckets that it was taken in and for no longer, so that what is sent is counted when it is
//! sent. A share of each limit is kept for transactional mail.

use std::time::Duration;

use super::choose::PassedOver;
use crate::clock::Timestamp;
use crate::mail::StreamKind;
use crate::mail::quota::{QuotaLimits, Window};

/// A block is such a part of the smallest limit…
const BLOCK_PART: u64 = 100;
/// …and at most so many recipients.
const BLOCK_MAX: u64 = 10_000;
/// This part of each limit is kept for transactional mail.
const RESERVE_PART: u64 = 20;
/// Where the ledger did not answer, it is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What is left is asked about again after so long, where only the reserve stops a campaign.
const LEFT_KNOWN_FOR: Duration = Duration::from_secs(30);

/// What the ledger gave: see `store::Block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Recipients.
    pub recipients: u64,
    /// When.
    pub at: Timestamp,
    /// What is left after it, by window; `None`: without limit.
    pub left: [Option<u64>; 3],
    /// When the next of what was taken counts no more, by window.
    pub more_at: [Option<Timestamp>; 3],
    /// Nothing is left only because a backup was restored: what was taken after it is not known.
    pub presumed: bool,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    limits: QuotaLimits,
    /// The block in hand.
    held: u64,
    held_at: Timestamp,
    left: [Option<u64>; 3],
    left_at: Timestamp,
    more_at: [Option<Timestamp>; 3],
    /// Nothing is left until then.
    dry_until: Option<Timestamp>,
    /// The ledger is being asked; or failed, and is asked again then.
    asking: bool,
    ask_at: Timestamp,
    /// It got something back while it was being asked: its answer may be older than that.
    stirred: bool,
    /// The most that one call asked for and did not get.
    wanted: u64,
    /// What is left is to be asked about.
    look: bool,
    /// See [`Granted::presumed`].
    presumed: bool,
}

/// What to do at the ledger: give back, then take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Take so many recipients; nought only asks what is left.
    pub recipients: u64,
    /// Give back so many that were taken at that moment.
    pub back: Option<(Timestamp, u64)>,
}

/// Why a call gets no allowance now.
#[derive(Debug, Clone, PartialEq)]
pub enum Lack {
    /// The ledger is to be asked, or is being asked: in a moment.
    Soon,
    /// There is none.
    Spent(PassedOver),
}

impl Quota {
    /// Under these limits, with nothing in hand.
    pub fn new(limits: QuotaLimits) -> Self {
        Quota {
            limits,
            held: 0,
            held_at: Timestamp::from_millis(0),
            left: limits_array(&limits),
            left_at: Timestamp::from_millis(0),
            more_at: [None; 3],
            dry_until: None,
            asking: false,
            ask_at: Timestamp::from_millis(0),
            stirred: false,
            wanted: 0,
            look: false,
            presumed: false,
        }
    }

    /// How many of these recipients one call may have of what is left, as far as that is known; 1 where nothing is.
    pub fn most(&self, kind: StreamKind, recipients: u64, now: Timestamp) -> u64 {
        let good = self.good(now);
        let of = |(window, limit): (Window, u64)| {
            let left = self.left[window as usize].unwrap_or(limit) + good;
            left.min(limit).saturating_sub(kept(kind, limit))
        };
        self.limits.windows().map(of).min().unwrap_or(recipients).min(recipients).max(1)
    }

    /// Takes allowance for so many recipients; the moment names the buckets that count them. `None`: there is no limit.
    pub fn take(
        &mut self,
        kind: StreamKind,
        recipients: u64,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Lack> {
        if self.limits.is_none() {
            return Ok(None);
        }
        if let Some(spent) = self.spent(kind, recipients, now) {
            return Err(Lack::Spent(spent));
        }
        if self.good(now) < recipients {
            self.wanted = self.wanted.max(recipients);
            return Err(Lack::Soon);
        }
        let good = self.good(now);
        let is_kept = |(window, limit): (Window, u64)| {
            let left = self.left[window as usize].unwrap_or(limit) + good;
            left < recipients + kept(kind, limit)
        };
        if self.limits.windows().any(is_kept) {
            self.look = true;
            return Err(Lack::Soon);
        }
        self.held -= recipients;
        Ok(Some(self.held_at))
    }

    /// Why so many recipients get nothing, as far as that is known without asking the ledger.
    pub fn spent(&self, kind: StreamKind, recipients: u64, now: Timestamp) -> Option<PassedOver> {
        self.limits.windows().find_map(|(window, limit)| {
            let spent = |more: &str, until| {
                let what = format!("its {}_limit of {limit} {more}", window.word());
                Some(PassedOver::Spent { what, until: Some(until) })
            };
            let left = self.left[window as usize].unwrap_or(limit) + self.good(now);
            if left < recipients {
                let until = self.dry_until.filter(|until| *until > now)?;
                return spent(self.is_spent(), until);
            }
            let known_until = self.known_until();
            if left < recipients + kept(kind, limit) && known_until > now {
                let until = self.more_at[window as usize].filter(|at| *at > now).unwrap_or(known_until);
                return spent("is spent but for what is kept for transactional mail", until);
            }
            None
        })
    }

    /// What to do at the ledger now; whoever is told so does it, and tells the answer.
    pub fn wants(&mut self, now: Timestamp) -> Option<Ask> {
        // A block whose bucket has passed goes back also where nothing is left: then that is what is left.
        let over = self.held > 0 && self.good(now) == 0;
        let dry = !over && self.dry_until.is_some_and(|until| until > now);
        if self.limits.is_none() || dry || self.asking || self.ask_at > now {
            return None;
        }
        let block = self.block();
        let low = self.good(now) < block.div_ceil(2).max(self.wanted);
        if !low && !self.look {
            return None;
        }
        self.asking = true;
        self.look = false;
        let back = if over { self.give_up() } else { None };
        let wanted = std::mem::take(&mut self.wanted);
        Some(Ask { recipients: if low { block.max(wanted) } else { 0 }, back })
    }

    /// The ledger's answer. What it gives is a block whose bucket has passed meanwhile: it goes back.
    #[must_use]
    pub fn granted(&mut self, granted: Granted) -> Option<(Timestamp, u64)> {
        self.asking = false;
        let stirred = std::mem::take(&mut self.stirred);
        (self.left, self.left_at, self.more_at) = (granted.left, granted.at, granted.more_at);
        self.presumed = granted.presumed;
        if granted.recipients == 0 {
            let spent = granted.left.iter().zip(granted.more_at).filter(|(left, _)| **left == Some(0));
            self.dry_until = spent.filter_map(|(_, at)| at).max().filter(|_| !stirred);
            return None;
        }
        self.dry_until = None;
        let over = self.bucket(self.held_at) != self.bucket(granted.at);
        let back = if over { self.give_up() } else { None };
        (self.held, self.held_at) = (self.held + granted.recipients, granted.at);
        back
    }

    /// The ledger did not answer.
    pub fn failed(&mut self, now: Timestamp) {
        (self.asking, self.stirred) = (false, false);
        self.ask_at = now.plus(ASK_AGAIN);
    }

    /// A call that had taken so many did not take place. `true`: they are in hand again; else they go back to the
    /// ledger.
    pub fn unused(&mut self, at: Timestamp, recipients: u64, now: Timestamp) -> bool {
        let here = self.bucket(now) == self.bucket(at) && self.bucket(at) == self.bucket(self.held_at);
        if here {
            self.held += recipients;
        }
        here
    }

    /// The ledger got something back: what was dry may not be.
    pub fn stirred(&mut self) {
        self.dry_until = None;
        self.stirred = self.asking;
    }

    /// All that is in hand, to be given back at a stop.
    pub fn give_up(&mut self) -> Option<(Timestamp, u64)> {
        let held = std::mem::take(&mut self.held);
        (held > 0).then_some((self.held_at, held))
    }

    /// What may still be sent, by the tightest window; `None`: without limit.
    pub fn remaining(&self, now: Timestamp) -> Option<u64> {
        self.left.iter().flatten().min().map(|left| left + self.good(now))
    }

    fn is_spent(&self) -> &'static str {
        match self.presumed {
            true => "counts as spent since a backup was restored, unless esp resume says otherwise",
            false => "is spent",
        }
    }

    fn block(&self) -> u64 {
        let smallest = self.limits.windows().map(|(_, limit)| limit).min().unwrap_or(BLOCK_MAX);
        (smallest / BLOCK_PART).clamp(1, BLOCK_MAX)
    }

    /// So much of the block in hand may be used now.
    fn good(&self, now: Timestamp) -> u64 {
        if self.bucket(self.held_at) == self.bucket(now) { self.held } else { 0 }
    }

    /// Until when nothing is asked about what is left: it is known, or nothing rolls out of a window before.
    fn known_until(&self) -> Timestamp {
        self.left_at.plus(LEFT_KNOWN_FOR).max(self.dry_until.unwrap_or_default())
    }

    fn bucket(&self, at: Timestamp) -> Timestamp {
        self.limits.windows().map(|(window, _)| window.bucket(at)).max().unwrap_or(at)
    }
}

/// What of a limit is kept from mail of that kind.
fn kept(kind: StreamKind, limit: u64) -> u64 {
    match kind {
        StreamKind::Transactional => 0,
        StreamKind::Broadcast => limit / RESERVE_PART,
    }
}

fn limits_array(limits: &QuotaLimits) -> [Option<u64>; 3] {
    Window::ALL.map(|window| limits.of(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const TRANSACTIONAL: StreamKind = StreamKind::Transactional;

    fn daily(limit: u64) -> Quota {
        Quota::new(QuotaLimits { daily: Some(limit), ..QuotaLimits::default() })
    }

    fn granted(recipients: u64, left: u64, at: Timestamp) -> Granted {
        let more_at = [None, Some(at.plus(Duration::from_secs(900))), None];
        Granted { recipients, at, left: [None, Some(left), None], more_at, presumed: false }
    }

    #[test]
    fn nothing_is_used_before_its_block_is_counted() {
        let mut quota = daily(1_000);
        assert_eq!(quota.take(TRANSACTIONAL, 1, T0), Err(Lack::Soon));
        assert_eq!(quota.wants(T0), Some(Ask { recipients: 10, back: None }));
        assert_eq!(quota.wants(T0), None, "it is being asked");
        let _ = quota.granted(granted(10, 990, T0));
        for _ in 0..10 {
            assert_eq!(quota.take(TRANSACTIONAL, 1, T0), Ok(Some(T0)));
        }
        assert_eq!(quota.take(TRANSACTIONAL, 1, T0), Err(Lack::Soon));
        assert_eq!(quota.remaining(T0), Some(990));
    }

    #[test]
    fn what_is_spent_is_told_until_there_is_more() {
        let mut quota = daily(10);
        quota.wants(T0);
        let _ = quota.granted(granted(0, 0, T0));
        let Err(Lack::Spent(why)) = quota.take(TRANSACTIONAL, 1, T0) else { panic!("{quota:?}") };
        assert!(why.to_string().starts_with("its daily_limit of 10 is spent; more at "), "{why}");
        assert_eq!(quota.wants(T0), None);
        let later = T0.plus(Duration::from_secs(900));
        assert_eq!(quota.take(TRANSACTIONAL, 1, later), Err(Lack::Soon));
        assert!(quota.wants(later).is_some());
    }

    #[test]
    fn a_block_is_good_for_its_bucket_and_then_goes_back() {
        let mut quota = daily(1_000);
        quota.wants(T0);
        let _ = quota.granted(granted(10, 990, T0));
        let next = T0.plus(Duration::from_secs(900));
        assert_eq!(quota.take(TRANSACTIONAL, 1, next), Err(Lack::Soon));
        assert_eq!(quota.wants(next), Some(Ask { recipients: 10, back: Some((T0, 10)) }));
        assert!(!quota.unused(T0, 1, next), "its bucket has passed");
    }

    #[test]
    fn a_block_goes_back_also_where_nothing_else_is_left() {
        let mut quota = daily(100);
        assert_eq!(quota.take(TRANSACTIONAL, 20, T0), Err(Lack::Soon));
        quota.wants(T0);
        let _ = quota.granted(granted(15, 0, T0));
        assert_eq!(quota.take(TRANSACTIONAL, 20, T0), Err(Lack::Soon));
        quota.wants(T0);
        let _ = quota.granted(granted(0, 0, T0.plus(Duration::from_secs(3_600))));
        assert!(matches!(quota.take(TRANSACTIONAL, 20, T0), Err(Lack::Spent(_))));
        assert_eq!(quota.wants(T0), None, "others may use it");
        let next = T0.plus(Duration::from_secs(900));
        assert_eq!(quota.wants(next).and_then(|ask| ask.back), Some((T0, 15)));
    }

    #[test]
    fn a_block_whose_bucket_passes_while_more_is_asked_for_goes_back() {
        let mut quota = daily(1_000);
        quota.wants(T0);
        let _ = quota.granted(granted(10, 990, T0));
        for _ in 0..6 {
            quota.take(TRANSACTIONAL, 1, T0).unwrap();
        }
        assert!(quota.wants(T0).is_some());
        let next = T0.plus(Duration::from_secs(900));
        assert_eq!(quota.granted(granted(10, 980, next)), Some((T0, 4)));
        assert_eq!(quota.remaining(next), Some(990));
    }

    #[test]
    fn what_comes_back_while_the_ledger_is_asked_is_asked_for_again() {
        let mut quota = daily(10);
        quota.wants(T0);
        quota.stirred();
        let _ = quota.granted(granted(0, 0, T0));
        assert_eq!(quota.take(TRANSACTIONAL, 1, T0), Err(Lack::Soon));
        assert!(quota.wants(T0).is_some());
        let _ = quota.granted(granted(0, 0, T0));
        assert_eq!(quota.wants(T0), None, "once");
    }

    #[test]
    fn a_campaign_leaves_the_last_part_to_transactional_mail() {
        let mut quota = daily(1_000);
        quota.wants(T0);
        let _ = quota.granted(granted(10, 35, T0));
        let Err(Lack::Spent(why)) = quota.take(StreamKind::Broadcast, 1, T0) else { panic!("{quota:?}") };
        let more_at = T0.plus(Duration::from_secs(900));
        assert!(
            why.to_string().ends_with(&format!("kept for transactional mail; more at {more_at}")),
            "{why}"
        );
        assert!(quota.take(TRANSACTIONAL, 1, T0).is_ok());
        let later = T0.plus(LEFT_KNOWN_FOR);
        assert_eq!(quota.take(StreamKind::Broadcast, 1, later), Err(Lack::Soon), "asked anew");
        assert_eq!(quota.wants(later), Some(Ask { recipients: 0, back: None }));
        let _ = quota.granted(Granted { more_at: [None; 3], ..granted(0, 500, later) });
        assert!(quota.take(StreamKind::Broadcast, 1, later).is_ok());
    }

    #[test]
    fn a_call_has_no_more_than_is_left_for_its_kind() {
        let mut quota = daily(100);
        assert_eq!(quota.most(TRANSACTIONAL, 20, T0), 20);
        assert_eq!(
            (quota.most(TRANSACTIONAL, 300, T0), quota.most(StreamKind::Broadcast, 300, T0)),
            (100, 95)
        );
        quota.wants(T0);
        let _ = quota.granted(granted(3, 7, T0));
        assert_eq!((quota.most(TRANSACTIONAL, 300, T0), quota.most(StreamKind::Broadcast, 300, T0)), (10, 5));
        assert_eq!(quota.take(TRANSACTIONAL, 10, T0), Err(Lack::Soon));
        assert_eq!(quota.wants(T0), Some(Ask { recipients: 10, back: None }));
        let _ = quota.granted(granted(7, 0, T0));
        assert_eq!(quota.take(TRANSACTIONAL, 10, T0), Ok(Some(T0)));
        assert_eq!(quota.most(TRANSACTIONAL, 300, T0), 1, "it asks for one, and is told what is left");
        assert_eq!(Quota::new(QuotaLimits::default()).most(TRANSACTIONAL, 300, T0), 300);
    }

    #[test]
    fn without_limits_nothing_is_asked() {
        let mut quota = Quota::new(QuotaLimits::default());
        assert_eq!((quota.take(TRANSACTIONAL, 9, T0), quota.wants(T0)), (Ok(None), None));
        assert_eq!(quota.remaining(T0), None);
    }
}
