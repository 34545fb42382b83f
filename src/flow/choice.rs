//! The choice at work: what is known of each ESP now, put before the router, and the first one in rank that has room.

use std::sync::Arc;
use std::time::Duration;

use super::courier::Courier;
use super::outlet::{Full, Load, Outlet, Room};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::from::from_domain;
use crate::mail::{Lane, Message, Rule, StreamName};
use crate::router::choose::{overflows, told};
use crate::router::{Candidate, Choice, PassedOver, Ties, choose};

/// A message's group of recipients, as a choice sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub message: &'a Message,
    pub rule: &'a Rule,
    pub recipients: u32,
    pub ties: Ties<'a>,
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct Chosen {
    pub outlet: usize,
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
}

impl Courier {
    /// The first in rank that has room. A campaign waits for its ESP where that is only busy.
    pub(super) fn choose(&self, wish: &Wish<'_>, now: Timestamp) -> Result<Chosen, NotChosen> {
        let from = self.minded_from(wish.message);
        let load =
            Load { kind: wish.message.kind, recipients: wish.recipients, from_domain: from.as_deref() };
        let candidates = self.candidates(&wish.message.stream, wish.rule, load, now);
        let choice = choose(&candidates, wish.ties, wish.message.id.number() as u64);
        let mut again_at: Option<Timestamp> = None;
        for (n, i) in choice.ranked.iter().enumerate() {
            let full = match self.outlets[*i].room(load, now) {
                Ok(room) => return Ok(Chosen { outlet: *i, room, told: self.told(&candidates, &choice, n) }),
                Err(full) => full,
            };
            let busy_for = match full {
                Full::At(at) => {
                    again_at = again_at.into_iter().chain([at]).min();
                    at.since(now)
                }
                Full::Closed => continue,
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
        let from = self.minded_from(wish.message);
        let load =
            Load { kind: wish.message.kind, recipients: wish.recipients, from_domain: from.as_deref() };
        let candidates = self.candidates(&wish.message.stream, wish.rule, load, now);
        !choose(&candidates, wish.ties, 0).ranked.is_empty()
    }

    /// Whether mail of that lane can move now, at an ESP with room.
    pub(super) fn moves(&self, lane: &Lane, now: Timestamp) -> bool {
        let load = Load { kind: lane.kind, recipients: 1, from_domain: None };
        self.outlets.iter().enumerate().any(|(i, outlet)| {
            lane.pin.as_deref().is_none_or(|pin| pin == &*outlet.name)
                && outlet.free() > 0
                && self.routes.keep_out(i, &outlet.name, &lane.stream, &lane.rule).is_none()
                && outlet.hindrance(load, now).is_none()
        })
    }

    /// How every ESP stands towards mail of that lane now: those that may carry it in rank, then the others.
    pub(super) fn standings(&self, lane: &Lane, load: Load<'_>, ties: Ties<'_>) -> Vec<Standing> {
        let candidates = self.candidates(&lane.stream, &lane.rule, load, self.clock.now());
        let choice = choose(&candidates, ties, 0);
        let place = |i| choice.ranked.iter().position(|r| *r == i);
        let why = |i| choice.passed_over.iter().find(|(n, _)| *n == i).map(|(_, why)| why.clone());
        let standing = |(i, c): (usize, &Candidate<'_>)| Standing {
            name: c.name.to_owned(),
            priority: c.priority,
            weight: c.weight,
            rank: place(i),
            why: why(i),
        };
        let mut standings: Vec<Standing> = candidates.iter().enumerate().map(standing).collect();
        standings.sort_by_key(|s| (s.rank.is_none(), s.rank));
        standings
    }

    /// The rules that bear on one recipient.
    pub(super) fn rule(&self, message: &Message, recipient: usize, from: Option<&str>) -> Rule {
        match message.envelope.recipients.get(recipient) {
            Some(address) if self.routes.any() => self.routes.bearing_on(address, from),
            Some(_) | None => Rule::default(),
        }
    }

    /// The rules that bear on each recipient; empty where there are none.
    pub fn rules_of(&self, message: &Message) -> Vec<Rule> {
        if !self.routes.any() {
            return Vec::new();
        }
        let from = if self.routes.any_domains() { from_domain(message) } else { None };
        (0..message.envelope.recipients.len()).map(|n| self.rule(message, n, from.as_deref())).collect()
    }

    /// Why no ESP could ever carry one of its recipients: each ESP's reason. `None`: for each there is one.
    pub fn never(&self, message: &Message, rules: &[Rule]) -> Option<String> {
        let none = [Rule::default()];
        let rules = if rules.is_empty() { &none[..] } else { rules };
        let keep_out = |i, name: &str, rule| self.routes.keep_out(i, name, &message.stream, rule);
        rules
            .iter()
            .find_map(|rule| self.each_reason(message.pin.as_deref(), |i, name| keep_out(i, name, rule)))
    }

    /// Why no ESP could ever carry mail of that stream and pin to this recipient, as far as that is known before the
    /// message: each ESP's reason. `None`: one could.
    pub fn never_to(&self, to: &Address, stream: &StreamName, pin: Option<&str>) -> Option<String> {
        let rule = if self.routes.any() { self.routes.bearing_on(to, None) } else { Rule::default() };
        self.each_reason(pin, |i, name| self.routes.keep_out_to(i, name, stream, &rule))
    }

    /// Every ESP's reason, where every one has one.
    fn each_reason(
        &self,
        pin: Option<&str>,
        why: impl Fn(usize, &str) -> Option<PassedOver>,
    ) -> Option<String> {
        let mut reasons = Vec::with_capacity(self.outlets.len());
        for (i, outlet) in self.outlets.iter().enumerate() {
            let why = match pin.filter(|pin| *pin != &*outlet.name) {
                Some(pin) => PassedOver::Pinned(pin.to_owned()),
                None => why(i, &outlet.name)?,
            };
            reasons.push(format!("{}: {why}", outlet.name));
        }
        Some(reasons.join("; "))
    }

    fn candidates<'c>(
        &'c self,
        stream: &StreamName,
        rule: &Rule,
        load: Load<'_>,
        now: Timestamp,
    ) -> Vec<Candidate<'c>> {
        let candidate = |(i, outlet): (usize, &'c Arc<Outlet>)| Candidate {
            name: &outlet.name,
            priority: outlet.priority,
            weight: outlet.weight,
            hindrance: self
                .routes
                .keep_out(i, &outlet.name, stream, rule)
                .or_else(|| outlet.hindrance(load, now)),
        };
        self.outlets.iter().enumerate().map(candidate).collect()
    }

    /// Looked for only where some ESP minds: it takes a look into the header.
    pub(super) fn minded_from(&self, message: &Message) -> Option<String> {
        self.minds_senders().then(|| from_domain(message)).flatten()
    }

    /// Whether some ESP refused some From domain.
    pub(super) fn minds_senders(&self) -> bool {
        self.outlets.iter().any(|o| o.gate.minds_senders())
    }

    fn told(&self, candidates: &[Candidate<'_>], choice: &Choice, chosen: usize) -> Option<Arc<str>> {
        (candidates.len() > 1).then(|| told(candidates, choice, chosen).into())
    }
}
