//! An exhaustive search: every order in which the moves of a small world can come, driving the product's own state
//! functions ([`Delivery`](crate::mail::delivery::Delivery), [`next_step`](super::next_step),
//! [`choose`](super::choose())), with the store's and the courier's part of each move beside them.
//!
//! The world: one message for two recipients, three ESPs, of which one addresses by header (it carries all recipients
//! or none, and has one answer for them); what the ESPs do with a copy and what they tell of it; a suppression, an
//! operator, crashes, commits that fail or come late, `max_age`. After each move `checks` holds what the rules promise,
//! and at the end that from each state the relay comes to an end by itself. Each rule can be turned off (`rules`): then
//! the search must find what goes wrong, or it would not have seen it.
//!
//! Not in it: a database that was restored, quotas, ids, `requeue`, DSNs, and an un-begin whose own commit fails: the
//! store keeps it and tries again.

mod checks;
mod moves;
mod rules;
mod seen;
mod store;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use crate::mail::StreamKind;
use crate::mail::delivery::{Known, UnsureThen};
use rules::Rule;
use seen::Seen;
use store::Act;
use world::{ATTEMPTS_MAX, Attempt, Call, Fate, RECIPIENTS, Row, TICK, Word, World};

/// What may happen in a world, and how often.
#[derive(Clone, Copy, Debug)]
struct Setting {
    name: &'static str,
    kind: StreamKind,
    then: UnsureThen,
    /// In all.
    attempts: u8,
    /// How long a hold is, in ticks.
    hold: u8,
    /// And the next step of the retry schedule.
    retry: u8,
    fates: &'static [Fate],
    /// The ESP that addresses by header.
    header: usize,
    /// The ESP that bears no id of ours: its events are found by its own.
    unplanted: u8,
    loses: bool,
    holds_pass: bool,
    take_back: bool,
    ages: bool,
    suppresses: bool,
    crashes: u8,
    events: &'static [Known],
    events_max: u8,
    acts: &'static [Act],
    acts_max: u8,
    turns: u8,
    /// A claim may bring what is in memory already.
    claims_race: bool,
    /// Any ESP in rank may be the first with room.
    any_room: bool,
}

struct Model {
    setting: Setting,
    off: Option<Rule>,
}

impl Model {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn hold(&self) -> Duration {
        TICK * u32::from(self.setting.hold)
    }

    fn first(&self) -> World {
        World {
            rows: [Row::FRESH; RECIPIENTS],
            journal: [[Attempt::default(); RECIPIENTS]; ATTEMPTS_MAX],
            esp_of: [0; ATTEMPTS_MAX],
            calls: [Call::default(); ATTEMPTS_MAX],
            memory: [None; 2],
            begun: 0,
            able: 0b111,
            suppressed: false,
            aged: false,
            crashes_left: self.setting.crashes,
            events_left: self.setting.events_max,
            acts_left: self.setting.acts_max,
            turns_left: self.setting.turns,
        }
    }
}

/// What a search saw.
struct Found {
    states: usize,
    moves: usize,
    /// What did not hold, and the moves to it.
    broken: Option<String>,
}

/// Breadth first, so that what is found is found by the shortest way.
fn search(model: &Model) -> Found {
    let mut seen = Seen::default();
    seen.enter(model.first(), None);
    let (mut at, mut moves) = (0, 0);
    let mut next = Vec::new();
    let mut internal = Vec::new();
    let mut ends = HashMap::new();
    while at < seen.len() {
        let before = *seen.state(at);
        next.clear();
        model.moves(&before, &mut next);
        moves += next.len();
        for (mv, after) in next.drain(..) {
            let to = seen.enter(after, Some((at as u32, mv)));
            let held = checks::step(model, &before, mv, &after).and_then(|()| checks::state(model, &after));
            if let Err(broken) = held {
                let told = seen.told_with(at, mv, &after, &broken);
                return Found { states: seen.len(), moves, broken: Some(told) };
            }
            if mv.is_internal() {
                internal.push((at as u32, to as u32));
            }
        }
        if let Err(broken) = same_end(&mut ends, &before) {
            return Found { states: seen.len(), moves, broken: Some(seen.told(at, &broken)) };
        }
        at += 1;
    }
    let stuck = seen.first_without_way(&internal, |w| checks::is_end(&model.setting, w));
    let broken = stuck.map(|at| seen.told(at, "from here nothing comes to an end by itself"));
    Found { states: seen.len(), moves, broken }
}

/// What a world ends with, and what it ended with first.
type Ends = HashMap<([[(Word, u8); RECIPIENTS]; ATTEMPTS_MAX], [u8; ATTEMPTS_MAX]), [Known; RECIPIENTS]>;

/// The same answers and events come to the same end, in whatever order.
fn same_end(ends: &mut Ends, w: &World) -> Result<(), String> {
    if !(w.is_done() && w.is_idle()) {
        return Ok(());
    }
    let told = (w.journal.map(|of| of.map(|a| (a.word, a.told))), w.esp_of);
    let known = w.rows.map(|row| row.known);
    let first = *ends.entry(told).or_insert(known);
    if first == known { Ok(()) } else { Err(format!("the same was told, and elsewhere it ended {first:?}")) }
}

const TAKEN_OR_NOT: &[Fate] = &[Fate::Taken, Fate::Path];
const EVERY_FATE: &[Fate] = &[Fate::Taken, Fate::Gone, Fate::Busy, Fate::Path];
const EVERY_ACT: &[Act] = &[Act::Pause, Act::Release, Act::Remove, Act::Flush];
const EVERY_EVENT: &[Known] = &[Known::Delivered, Known::Bounced, Known::Complained];

/// Answers, and a header that names both; nothing else happens.
const PLAIN: Setting = Setting {
    name: "plain",
    kind: StreamKind::Transactional,
    then: UnsureThen::RetryAny,
    attempts: 3,
    hold: 1,
    retry: 1,
    fates: TAKEN_OR_NOT,
    header: 1,
    unplanted: 2,
    loses: false,
    holds_pass: false,
    take_back: false,
    ages: false,
    suppresses: false,
    crashes: 0,
    events: &[],
    events_max: 0,
    acts: &[],
    acts_max: 0,
    turns: 0,
    claims_race: false,
    any_room: false,
};

/// What every run of the tests looks at. All that may happen at once is too much for it: each looks at some of it.
fn worlds() -> Vec<Setting> {
    let broadcast = |name| Setting {
        name,
        kind: StreamKind::Broadcast,
        then: UnsureThen::AssumeSent,
        loses: true,
        ..PLAIN
    };
    vec![
        Setting {
            name: "answers",
            fates: EVERY_FATE,
            suppresses: true,
            take_back: true,
            acts: &[Act::Remove],
            acts_max: 1,
            turns: 1,
            ..PLAIN
        },
        Setting { name: "lost", loses: true, ages: true, any_room: true, turns: 2, ..PLAIN },
        Setting { name: "unfit", loses: true, header: 0, suppresses: true, turns: 2, ..PLAIN },
        Setting { name: "late", loses: true, holds_pass: true, attempts: 4, ..PLAIN },
        Setting { name: "crash", loses: true, crashes: 1, turns: 1, suppresses: true, ..PLAIN },
        Setting { name: "late crash", holds_pass: true, crashes: 1, ages: true, ..PLAIN },
        Setting {
            name: "operator",
            loses: true,
            holds_pass: true,
            attempts: 2,
            acts: EVERY_ACT,
            acts_max: 3,
            ..PLAIN
        },
        Setting {
            name: "race",
            loses: true,
            acts: &[Act::Pause, Act::Release],
            acts_max: 2,
            claims_race: true,
            ..PLAIN
        },
        Setting {
            name: "events",
            loses: true,
            events: EVERY_EVENT,
            events_max: 2,
            acts: &[Act::Pause, Act::Remove],
            acts_max: 1,
            crashes: 1,
            ..PLAIN
        },
        Setting { turns: 2, crashes: 1, ages: true, ..broadcast("broadcast") },
        Setting { hold: 2, turns: 2, attempts: 4, ..broadcast("long hold") },
        Setting { name: "long retry", retry: 3, loses: true, holds_pass: true, ..PLAIN },
        Setting { retry: 3, crashes: 1, ..broadcast("long retry of a campaign") },
    ]
}

/// What the long runs look at besides.
fn large_worlds() -> Vec<Setting> {
    let all = Setting {
        attempts: 2,
        loses: true,
        ages: true,
        suppresses: true,
        crashes: 1,
        events: &[Known::Delivered],
        events_max: 1,
        acts: &[Act::Pause, Act::Remove],
        acts_max: 1,
        turns: 1,
        ..PLAIN
    };
    vec![
        Setting { name: "all of it", ..all },
        Setting { name: "all of it, late", holds_pass: true, turns: 0, ..all },
        Setting { name: "two crashes", attempts: 4, crashes: 2, turns: 1, loses: true, ..PLAIN },
        Setting {
            name: "three events",
            loses: true,
            holds_pass: true,
            attempts: 2,
            events: EVERY_EVENT,
            events_max: 3,
            crashes: 1,
            ..PLAIN
        },
        Setting { name: "every fate", fates: EVERY_FATE, loses: true, suppresses: true, turns: 1, ..PLAIN },
        Setting {
            name: "busy operator",
            loses: true,
            holds_pass: true,
            acts: EVERY_ACT,
            acts_max: 3,
            suppresses: true,
            ..PLAIN
        },
        Setting { name: "five attempts", attempts: 5, loses: true, turns: 2, any_room: true, ..PLAIN },
    ]
}

fn holds_in(worlds: Vec<Setting>) -> usize {
    let mut states = 0;
    for setting in worlds {
        let began = crate::clock::monotonic();
        let found = search(&Model { setting, off: None });
        let (name, millis) = (setting.name, began.elapsed().as_millis());
        eprintln!("{name}: {} states, {} moves, {millis} ms", found.states, found.moves);
        if let Some(broken) = found.broken {
            panic!("{name}: {broken}");
        }
        states += found.states;
    }
    eprintln!("{states} states");
    states
}

#[test]
fn no_order_of_moves_breaks_a_rule() {
    let states = holds_in(worlds());
    assert!(states > 500_000, "the worlds are too small to see anything: {states} states");
}

/// With `POSTROAD_LONG` only: two minutes, and a gigabyte of memory.
#[test]
fn no_order_of_moves_breaks_a_rule_in_large_worlds() {
    if std::env::var_os("POSTROAD_LONG").is_some() {
        holds_in(large_worlds());
    }
}

/// A rule that the search does not miss is none, or the search does not look.
#[test]
fn without_any_one_rule_something_breaks() {
    let worlds = worlds();
    let mut unseen = Vec::new();
    for (rule, number, world) in Rule::ALL {
        let setting = *worlds.iter().find(|setting| setting.name == world).unwrap();
        let found = search(&Model { setting, off: Some(rule) });
        match found.broken {
            Some(broken) => {
                let broken = broken.lines().next().unwrap_or_default();
                eprintln!("{number} {rule:?}, {world}, after {} states: {broken}", found.states);
            }
            None => unseen.push((number, rule)),
        }
    }
    assert!(unseen.is_empty(), "turned off, and nothing broke: {unseen:?}");
}
