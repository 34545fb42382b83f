//! What an event does beyond its own delivery: to the address, and to the ESP's account. Pure.
//!
//! Whatever the order in which events come, and however often, the end is the same: each rule looks at all that is known
//! of an address, by the times of the ESPs, and never at what came last.

use std::time::Duration;

use super::event::{Bounce, Listed, What};
use crate::clock::Timestamp;

/// What an event does to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// It is mailed no more, on any stream, for that reason.
    Suppress(&'static str),
    /// It may be one soft bounce too many, or show that the address works: [`too_soft`] over all of them.
    Weigh,
    /// Its owner's wish may have changed: the latest counts, for broadcast mail.
    Wish,
}

/// Reasons of suppressions, as the database and the commands have them.
pub const HARD_BOUNCE: &str = "hard_bounce";
/// The owner called a mail spam.
pub const COMPLAINT: &str = "complaint";
/// The owner wants no more broadcast mail.
pub const UNSUBSCRIBE: &str = "unsubscribe";
/// An ESP mails it no more, and not because it is dead.
pub const DEACTIVATED: &str = "deactivated";
/// Soft bounces again and again, and nothing delivered between.
pub const SOFT_BOUNCES: &str = "soft_bounces";
/// An operator said so.
pub const MANUAL: &str = "manual";
/// All of them.
pub const REASONS: [&str; 6] = [HARD_BOUNCE, COMPLAINT, UNSUBSCRIBE, SOFT_BOUNCES, MANUAL, DEACTIVATED];

impl What {
    /// What it does to its address. A refusal for policy, content or reputation says nothing of it.
    pub fn effect(self) -> Effect {
        match self {
            What::Bounced(Bounce::Hard | Bounce::Listed(Listed::Bounced)) => Effect::Suppress(HARD_BOUNCE),
            What::Complained | What::Bounced(Bounce::Listed(Listed::Complained)) => {
                Effect::Suppress(COMPLAINT)
            }
            What::Bounced(Bounce::Listed(Listed::Deactivated)) => Effect::Suppress(DEACTIVATED),
            What::Bounced(Bounce::Listed(Listed::Unsubscribed)) | What::Unsubscribed | What::Resubscribed => {
                Effect::Wish
            }
            What::Bounced(Bounce::Soft) | What::Delivered => Effect::Weigh,
            What::Bounced(Bounce::Policy | Bounce::Refused | Bounce::LetBe)
            | What::Sent
            | What::Deferred
            | What::NotSpam
            | What::Opened { .. }
            | What::Clicked { .. }
            | What::AutoReplied
            | What::Other => Effect::Nothing,
        }
    }

    /// Whether its owner wants mail, where it says so.
    pub fn wish(self) -> Option<bool> {
        match self {
            What::Unsubscribed | What::Bounced(Bounce::Listed(Listed::Unsubscribed)) => Some(false),
            What::Resubscribed => Some(true),
            _ => None,
        }
    }

    /// What a bounce says of the address, in a word.
    pub fn class(self) -> Option<&'static str> {
        match self {
            What::Bounced(Bounce::Hard) => Some("hard"),
            What::Bounced(Bounce::Soft) => Some("soft"),
            What::Bounced(Bounce::Policy) => Some("policy"),
            What::Bounced(Bounce::Listed(Listed::Bounced)) => Some("listed"),
            What::Bounced(Bounce::Listed(Listed::Complained)) => Some("listed_complained"),
            What::Bounced(Bounce::Listed(Listed::Unsubscribed)) => Some("listed_unsubscribed"),
            What::Bounced(Bounce::Listed(Listed::Deactivated)) => Some("listed_deactivated"),
            What::Bounced(Bounce::Refused | Bounce::LetBe) => Some("refused"),
            _ => None,
        }
    }
}

/// For which reason an event of that word and class keeps its address from being mailed, where it does; one soft bounce may
/// not.
pub fn reason_of(word: &str, class: Option<&str>) -> Option<&'static str> {
    match (word, class) {
        ("bounced", Some("hard")) | ("dropped", Some("listed")) => Some(HARD_BOUNCE),
        ("bounced", Some("soft")) => Some(SOFT_BOUNCES),
        ("complained", _) | ("dropped", Some("listed_complained")) => Some(COMPLAINT),
        ("unsubscribed", _) | ("dropped", Some("listed_unsubscribed")) => Some(UNSUBSCRIBE),
        ("dropped", Some("listed_deactivated")) => Some(DEACTIVATED),
        _ => None,
    }
}

/// `[suppression]`: when soft bounces are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftRule {
    /// So many, none delivered between; 0: never.
    pub bounces: u32,
    /// Over so long, from the first of them to the last.
    pub window: Duration,
}

impl Default for SoftRule {
    fn default() -> Self {
        SoftRule { bounces: 3, window: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Since when an address has bounced softly too often: the moment of the last bounce, where there were too many. `soft`:
/// the times of its soft bounces; `delivered`: when something last arrived there.
pub fn too_soft(rule: SoftRule, soft: &[Timestamp], delivered: Option<Timestamp>) -> Option<Timestamp> {
    let mut run: Vec<Timestamp> = soft.iter().copied().filter(|at| Some(*at) > delivered).collect();
    run.sort_unstable();
    let first = *run.first()?;
    let least = usize::try_from(rule.bounces).ok().filter(|least| *least > 0)?;
    let last = *run.last()?;
    (run.len() >= least && last.since(first) >= rule.window).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MILLIS: i64 = 24 * 3600 * 1000;

    fn days(days: &[i64]) -> Vec<Timestamp> {
        days.iter().map(|day| Timestamp::from_millis(day * DAY_MILLIS)).collect()
    }

    #[test]
    fn soft_bounces_count_over_a_week_and_none_delivered_between() {
        let rule = SoftRule::default();
        for (soft, delivered, since) in [
            (&[1, 2, 3][..], None, None),
            (&[1, 4, 8], None, Some(8)),
            (&[8, 1, 4], None, Some(8)),
            (&[1, 8], None, None),
            (&[1, 1, 1, 1], None, None),
            (&[1, 2, 3, 9], None, Some(9)),
            (&[1, 4, 8, 20], None, Some(20)),
            (&[1, 4, 8], Some(4), None),
            (&[1, 4, 8], Some(0), Some(8)),
            (&[1, 5, 6, 9, 12], Some(3), Some(12)),
            (&[], None, None),
        ] {
            let delivered = delivered.map(|day| days(&[day])[0]);
            assert_eq!(too_soft(rule, &days(soft), delivered), since.map(|day| days(&[day])[0]), "{soft:?}");
        }
        let never = SoftRule { bounces: 0, ..rule };
        assert_eq!(too_soft(never, &days(&[1, 4, 8]), None), None);
    }

    #[test]
    fn what_is_stored_of_an_event_tells_for_which_reason_it_suppresses() {
        let listed = [Listed::Bounced, Listed::Complained, Listed::Unsubscribed, Listed::Deactivated]
            .map(Bounce::Listed);
        let bounces = listed.into_iter().chain([
            Bounce::Hard,
            Bounce::Soft,
            Bounce::Policy,
            Bounce::Refused,
            Bounce::LetBe,
        ]);
        let others = [
            What::Sent,
            What::Deferred,
            What::Delivered,
            What::Complained,
            What::NotSpam,
            What::Opened { machine: false },
            What::Clicked { machine: false },
            What::Unsubscribed,
            What::Resubscribed,
            What::AutoReplied,
            What::Other,
        ];
        for what in bounces.map(What::Bounced).chain(others) {
            let reason = match what.effect() {
                Effect::Suppress(reason) => Some(reason),
                Effect::Weigh if what.class().is_some() => Some(SOFT_BOUNCES),
                Effect::Wish if what.wish() == Some(false) => Some(UNSUBSCRIBE),
                Effect::Weigh | Effect::Wish | Effect::Nothing => None,
            };
            assert_eq!(reason_of(what.word(), what.class()), reason, "{what:?}");
        }
    }

    #[test]
    fn policy_and_reputation_bounces_never_touch_the_address() {
        for what in
            [What::Bounced(Bounce::Policy), What::Bounced(Bounce::Refused), What::AutoReplied, What::NotSpam]
        {
            assert_eq!(what.effect(), Effect::Nothing, "{what:?}");
        }
    }
}
