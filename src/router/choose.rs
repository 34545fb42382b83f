//! The choice of an ESP for a delivery, with a reason for each one passed over. Pure: facts are handed in.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::StreamKind;

/// What is known of one ESP when the choice is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Lower first.
    pub priority: u32,
    /// Among equal priorities the larger goes first more often.
    pub weight: u32,
    /// What keeps mail from it, whatever the delivery's own ties say.
    pub hindrance: Option<PassedOver>,
}

/// What ties a delivery to some ESPs or keeps it from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ties<'a> {
    /// The ESP of an attempt whose answer is open.
    pub bound_to: Option<&'a str>,
    /// The one that it is pinned to.
    pub pin: Option<&'a str>,
    /// Those that this round has tried.
    pub tried: &'a [Arc<str>],
}

/// Why an ESP does not get a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum PassedOver {
    /// An attempt at that ESP is open.
    Bound(String),
    /// It is pinned to that ESP.
    Pinned(String),
    /// This round tried it already.
    Tried,
    /// The stream names others.
    Stream(String),
    /// The recipient, or the From, is another ESP's.
    Rule(String),
    /// Its gate is shut.
    Shut(String),
    /// An operator suspended it.
    Suspended {
        /// Why.
        reason: String,
        /// Until when; `None`: until it is resumed.
        until: Option<Timestamp>,
    },
    /// An operator paused all sending, and said why.
    AllPaused(String),
    /// It asked for a pause.
    Paused {
        /// Its words.
        said: String,
        /// Until when.
        until: Timestamp,
    },
    /// It refused whom the message comes from.
    Sender {
        /// `mail From example.com` or `MAIL FROM:<a@example.com>`.
        what: String,
        /// When it is asked again.
        until: Timestamp,
    },
    /// Its allowance is spent, or what is left is kept for transactional mail.
    Spent {
        /// `hourly`, …, and the limit.
        what: String,
        /// When there is more, where that is known.
        until: Option<Timestamp>,
    },
}

/// What ends it that an ESP is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Another configuration.
    Never,
    /// The ESP itself, which is looked at again and again.
    ByItself,
    /// That moment.
    At(Timestamp),
    /// An operator's command.
    Operator,
}

impl PassedOver {
    /// What ends it.
    pub fn ends(&self) -> Ends {
        match self {
            PassedOver::Pinned(_) | PassedOver::Stream(_) | PassedOver::Rule(_) => Ends::Never,
            PassedOver::Bound(_) | PassedOver::Tried | PassedOver::Shut(_) => Ends::ByItself,
            PassedOver::Spent { until: None, .. } => Ends::ByItself,
            PassedOver::Suspended { until: None, .. } | PassedOver::AllPaused(_) => Ends::Operator,
            PassedOver::Suspended { until: Some(until), .. }
            | PassedOver::Spent { until: Some(until), .. }
            | PassedOver::Paused { until, .. }
            | PassedOver::Sender { until, .. } => Ends::At(*until),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassedOver::Bound(esp) => write!(f, "the answer to an attempt at {esp} is still open"),
            PassedOver::Pinned(esp) => write!(f, "the message is pinned to {esp}"),
            PassedOver::Tried => f.write_str("tried in this round"),
            PassedOver::Stream(names) => write!(f, "the stream goes through {names} only"),
            PassedOver::Rule(why) => f.write_str(why),
            PassedOver::Shut(why) => write!(f, "takes no mail now: {why}"),
            PassedOver::Suspended { reason, until: Some(until) } => {
                write!(f, "suspended until {until}: {reason}")
            }
            PassedOver::Suspended { reason, until: None } => write!(f, "suspended: {reason}"),
            PassedOver::AllPaused(reason) => write!(f, "all sending is paused: {reason}"),
            PassedOver::Paused { said, until } => write!(f, "asked for a pause until {until}: {said}"),
            PassedOver::Sender { what, until } => write!(f, "refused {what}; asked again from {until}"),
            PassedOver::Spent { what, until: Some(until) } => write!(f, "{what}; more at {until}"),
            PassedOver::Spent { what, until: None } => f.write_str(what),
        }
    }
}

/// The ESPs in the order in which they are to be tried, and why others are not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// Indices into the candidates.
    pub ranked: Vec<usize>,
    /// Index and reason.
    pub passed_over: Vec<(usize, PassedOver)>,
}

/// Ranks the candidates; `chance` (any number that differs from message to message, such as its id) shares equal
/// priorities by weight.
pub fn choose(candidates: &[Candidate<'_>], ties: Ties<'_>, chance: u64) -> Choice {
    let mut choice = Choice::default();
    for (i, c) in candidates.iter().enumerate() {
        match tied(c.name, ties).or_else(|| c.hindrance.clone()) {
            Some(why) => choice.passed_over.push((i, why)),
            None => choice.ranked.push(i),
        }
    }
    choice.ranked.sort_by_key(|i| candidates[*i].priority);
    lead_by_weight(candidates, &mut choice.ranked, chance);
    choice
}

fn tied(name: &str, ties: Ties<'_>) -> Option<PassedOver> {
    if let Some(esp) = ties.bound_to.filter(|esp| *esp != name) {
        return Some(PassedOver::Bound(esp.to_owned()));
    }
    if let Some(esp) = ties.pin.filter(|esp| *esp != name) {
        return Some(PassedOver::Pinned(esp.to_owned()));
    }
    (ties.bound_to.is_none() && ties.tried.iter().any(|tried| **tried == *name)).then_some(PassedOver::Tried)
}

/// Among those of the lowest priority, puts the one in front whose share of the total weight holds `chance`.
fn lead_by_weight(candidates: &[Candidate<'_>], ranked: &mut [usize], chance: u64) {
    let Some(first) = ranked.first() else { return };
    let lowest = candidates[*first].priority;
    let peers = ranked.iter().take_while(|i| candidates[**i].priority == lowest).count();
    let total: u64 = ranked[..peers].iter().map(|i| u64::from(candidates[*i].weight)).sum();
    if peers < 2 || total == 0 {
        return;
    }
    let mut at = mixed(chance) % total;
    for place in 0..peers {
        let weight = u64::from(candidates[ranked[place]].weight);
        if at < weight {
            ranked[..=place].rotate_right(1);
            return;
        }
        at -= weight;
    }
}

/// Ids have patterns (time above, a sequence below) that a remainder would show as an unfair share: the finisher of
/// SplitMix64 leaves none.
fn mixed(chance: u64) -> u64 {
    let x = (chance ^ (chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A broadcast message rather waits so long at its ESP than to go elsewhere.
pub const BROADCAST_WAIT_MAX: Duration = Duration::from_secs(60);

/// Whether a delivery goes on to an ESP of a higher priority number because the one before it is busy for so long:
/// transactional mail does at once; a campaign waits, for a minute at most.
pub fn overflows(kind: StreamKind, busy_for: Duration) -> bool {
    match kind {
        StreamKind::Transactional => true,
        StreamKind::Broadcast => busy_for >= BROADCAST_WAIT_MAX,
    }
}

/// It is kept with each attempt: where there are many ESPs, those that come after so much of it are only counted.
const TOLD_OCTETS_MAX: usize = 1_000;

/// What was chosen, for `explain`, where the `chosen`th in rank was the first that had room: `b; a: busy; c: comes
/// later, priority 3; d: takes no mail now: …`.
pub fn told(candidates: &[Candidate<'_>], choice: &Choice, chosen: usize) -> String {
    let mut told = String::new();
    for (n, i) in choice.ranked.iter().enumerate() {
        let Candidate { name, priority, .. } = &candidates[*i];
        match n.cmp(&chosen) {
            Ordering::Less => told.push_str(&format!("; {name}: busy")),
            Ordering::Equal => told.insert_str(0, name),
            Ordering::Greater => told.push_str(&format!("; {name}: comes later, priority {priority}")),
        }
    }
    for (n, (i, why)) in choice.passed_over.iter().enumerate() {
        if told.len() >= TOLD_OCTETS_MAX {
            told.push_str(&format!("; and {} more", choice.passed_over.len() - n));
            break;
        }
        told.push_str(&format!("; {}: {why}", candidates[*i].name));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, priority: u32, weight: u32) -> Candidate<'_> {
        Candidate { name, priority, weight, hindrance: None }
    }

    #[test]
    fn the_lowest_priority_goes_first_and_a_tried_one_not_again() {
        let all = [candidate("b", 2, 100), candidate("a", 1, 100)];
        assert_eq!(choose(&all, Ties::default(), 7).ranked, [1, 0]);
        let choice = choose(&all, Ties { tried: &["a".into()], ..Ties::default() }, 7);
        assert_eq!(choice.ranked, [0]);
        assert_eq!(choice.passed_over, [(1, PassedOver::Tried)]);
        assert_eq!(told(&all, &choice, 0), "b; a: tried in this round");
    }

    #[test]
    fn what_is_told_names_every_esp() {
        let all = [candidate("a", 1, 100), candidate("b", 2, 100), candidate("c", 3, 100)];
        let choice = choose(&all, Ties::default(), 0);
        assert_eq!(told(&all, &choice, 1), "b; a: busy; c: comes later, priority 3");
        let many: Vec<_> = (0..200)
            .map(|_| Candidate { hindrance: Some(PassedOver::Shut("refused".into())), ..all[2].clone() })
            .collect();
        let text = told(&many, &choose(&many, Ties::default(), 0), 0);
        assert!(text.len() < 1_100 && text.ends_with(" more"), "{text}");
    }

    #[test]
    fn what_is_bound_or_pinned_goes_nowhere_else() {
        let all = [candidate("a", 1, 100), candidate("b", 2, 100)];
        let bound = Ties { bound_to: Some("b"), tried: &["b".into()], ..Ties::default() };
        assert_eq!(choose(&all, bound, 0).ranked, [1], "it goes to its own again");
        assert_eq!(choose(&all, Ties { pin: Some("b"), ..Ties::default() }, 0).ranked, [1]);
        assert_eq!(choose(&all, Ties { pin: Some("gone"), ..Ties::default() }, 0).ranked, [] as [usize; 0]);
    }

    #[test]
    fn a_hindrance_passes_it_over_with_its_reason() {
        let mut all = [candidate("a", 1, 100), candidate("b", 2, 100)];
        all[0].hindrance = Some(PassedOver::Shut("connection refused".into()));
        let choice = choose(&all, Ties::default(), 0);
        assert_eq!(told(&all, &choice, 0), "b; a: takes no mail now: connection refused");
        let bound = Ties { bound_to: Some("a"), ..Ties::default() };
        assert!(choose(&all, bound, 0).ranked.is_empty(), "a bound one waits for its own");
    }

    #[test]
    fn equal_priorities_share_by_weight_whatever_pattern_the_numbers_have() {
        let all = [candidate("a", 1, 30), candidate("b", 1, 70), candidate("c", 2, 1000)];
        for (from, step) in
            [(0, 1), (0, 2), (1 << 60, 100), (7, 1 << 12), (1 << 60, 1 << 20), (1 << 60, 25 << 22)]
        {
            let firsts = (0..10_000).map(|n| choose(&all, Ties::default(), from + n * step).ranked[0]);
            let to_a = firsts.inspect(|first| assert!(*first < 2)).filter(|first| *first == 0).count();
            assert!((2_800..=3_200).contains(&to_a), "{to_a} of 10,000 from {from} by {step}");
        }
    }
}
