//! The choice at work: what is known of each ESP now, put before the router, and the first one in rank that has room.

use std::sync::Arc;
use std::time::Duration;

use super::courier::Courier;
use super::outlet::{Full, Load, Outlet, Room};
use super::setup::{Carrier, Line, Setup};
use crate::clock::Timestamp;
use crate::mail::from::{Whose, from_domain};
use crate::mail::{Lane, Message, Rule, StreamKind, StreamName};
use crate::router::choose::{overflows, told};
use crate::router::{Candidate, Choice, PassedOver, Ties, choose};

/// A message's group of recipients, as a choice sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub message: &'a Message,
    pub rule: &'a Rule,
    pub recipients: u32,
    /// All of them or none.
    pub whole: bool,
    pub ties: Ties<'a>,
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct Chosen {
    pub line: Arc<Line>,
    pub room: Room,
    /// For `explain`; nothing where there was no choice.
    pub told: Option<Arc<str>>,
}

/// Why it goes nowhere now.
#[derive(Debug)]
pub(super) enum NotChosen {
    /// Some ESP could carry it, and has no room at this moment; one says from when on.
    NoRoom { again_at: Option<Timestamp> },
    /// None could: each with its reason.
    Nowhere(Choice),
}

/// One ESP's place in a dry run: its name, and what keeps mail from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The ESP.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// Its place, from 0; `None`: it is passed over.
    pub rank: Option<usize>,
    /// Why it is passed over.
    pub why: Option<PassedOver>,
    /// Its rate is used up until then: mail waits for it, or goes to another one of its rank.
    pub rate_opens_at: Option<Timestamp>,
}

impl Courier {
    /// The first in rank that has room, for all of its recipients or for some. A campaign waits for its ESP where that
    /// is only busy.
    pub(super) fn choose(&self, setup: &Setup, wish: &Wish<'_>, now: Timestamp) -> Result<Chosen, NotChosen> {
        let from = minded_from(setup, wish.message);
        let load = wish.load(from.as_deref());
        let candidates = setup.candidates(wish.stream(), wish.rule, load, now);
        let choice = choose(&candidates, wish.ties, wish.message.id.number() as u64);
        let mut again_at: Option<Timestamp> = None;
        for (n, i) in choice.ranked.iter().enumerate() {
            let Carrier { outlet, line, .. } = &setup.carriers[*i];
            let full = match room(outlet, line, load, now) {
                Ok(room) => {
                    if let Some(next) = room.share.noted {
                        self.store.note_pace(&outlet.name, next);
                    }
                    let told = (candidates.len() > 1).then(|| told(&candidates, &choice, n).into());
                    return Ok(Chosen { line: Arc::clone(line), room, told });
                }
                Err(full) => full,
            };
            let busy_for = match full {
                Full::At(at) => {
                    again_at = again_at.into_iter().chain([at]).min();
                    at.since(now)
                }
                Full::Closed => continue,
                Full::Part => break,
                Full::Busy | Full::Soon => Duration::ZERO,
            };
            let next_tier = choice
                .ranked
                .get(n + 1)
                .is_some_and(|next| candidates[*next].priority > candidates[*i].priority);
            if next_tier && !overflows(load.kind, busy_for) {
                break;
            }
        }
        match choice.ranked.is_empty() {
            true => Err(NotChosen::Nowhere(choice)),
            false => Err(NotChosen::NoRoom { again_at }),
        }
    }

    /// Whether an ESP is left for this wish: not tried, and nothing keeps mail from it for longer than a moment.
    pub(super) fn another_left(&self, wish: &Wish<'_>, now: Timestamp) -> bool {
        let setup = self.setup();
        let from = minded_from(&setup, wish.message);
        let load = wish.load(from.as_deref());
        let candidates = setup.candidates(wish.stream(), wish.rule, load, now);
        !choose(&candidates, wish.ties, 0).ranked.is_empty()
    }

    /// The ESPs that such mail waits for, where none was left for it: those that may open, and any that has opened since.
    pub(super) fn waits_for(&self, wish: &Wish<'_>, now: Timestamp) -> Vec<Arc<str>> {
        let setup = self.setup();
        let from = minded_from(&setup, wish.message);
        let load = wish.load(from.as_deref());
        let candidates = setup.candidates(wish.stream(), wish.rule, load, now);
        let choice = choose(&candidates, wish.ties, 0);
        let opened = choice.ranked.iter().map(|i| Arc::clone(&setup.carriers[*i].outlet.name));
        opened.chain(may_open(&choice, &setup)).collect()
    }
}

impl<'a> Wish<'a> {
    fn stream(&self) -> (&'a StreamName, StreamKind) {
        (&self.message.stream, self.message.kind)
    }

    fn load<'l>(&self, from_domain: Option<&'l str>) -> Load<'l>
    where
        'a: 'l,
    {
        let whose = Whose { from_domain, sender: Some(&self.message.envelope.sender) };
        Load { kind: self.message.kind, recipients: self.recipients, whole: self.whole, whose }
    }
}

/// The ESPs that were passed over for what is over at a time.
pub(super) fn may_open(choice: &Choice, setup: &Setup) -> Vec<Arc<str>> {
    let opens = choice.passed_over.iter().filter(|(_, why)| opens_for_all(why));
    opens.filter_map(|(i, _)| Some(Arc::clone(&setup.carriers.get(*i)?.outlet.name))).collect()
}

/// Whether it is over for all mail at a time: what is of a sender, or of this delivery, is not.
fn opens_for_all(why: &PassedOver) -> bool {
    match why {
        PassedOver::Shut(_)
        | PassedOver::Suspended { .. }
        | PassedOver::AllPaused(_)
        | PassedOver::Paused { .. }
        | PassedOver::Spent { .. } => true,
        PassedOver::Bound(_)
        | PassedOver::Pinned(_)
        | PassedOver::Tried
        | PassedOver::Stream(_)
        | PassedOver::Rule(_)
        | PassedOver::Sender { .. } => false,
    }
}

/// Room for such a load, or for as many of its recipients as fit into one call.
fn room(outlet: &Arc<Outlet>, line: &Line, load: Load<'_>, now: Timestamp) -> Result<Room, Full> {
    let most = line.esp.recipients_max().min(outlet.gate.recipients_max());
    match load.whole && load.recipients > most {
        true => Err(Full::Part),
        false => outlet.room(Load { recipients: load.recipients.min(most), ..load }, now),
    }
}

/// How every ESP stands towards mail of that lane now: those that may carry it in rank, then the others.
pub(super) fn standings(
    setup: &Setup,
    lane: &Lane,
    load: Load<'_>,
    ties: Ties<'_>,
    now: Timestamp,
) -> Vec<Standing> {
    let candidates = setup.candidates((&lane.stream, lane.kind), &lane.rule, load, now);
    let choice = choose(&candidates, ties, 0);
    let place = |i| choice.ranked.iter().position(|r| *r == i);
    let why = |i| choice.passed_over.iter().find(|(n, _)| *n == i).map(|(_, why)| why.clone());
    let standing = |(i, c): (usize, &Candidate<'_>)| Standing {
        name: c.name.to_owned(),
        priority: c.priority,
        weight: c.weight,
        rank: place(i),
        why: why(i),
        rate_opens_at: setup.carriers[i].outlet.allowance.waits_until(load.kind, now),
    };
    let mut standings: Vec<Standing> = candidates.iter().enumerate().map(standing).collect();
    standings.sort_by_key(|s| (s.rank.is_none(), s.rank));
    standings
}

/// Whose mail it is, looked for only where some ESP minds: it takes a look into the header.
pub(super) fn minded_from(setup: &Setup, message: &Message) -> Option<String> {
    setup.minds_senders().then(|| from_domain(message)).flatten()
}
