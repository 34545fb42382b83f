//! The moves out of a state: the courier's rounds and calls (`src/flow/rounds.rs`, `src/flow/call.rs`) cut where a
//! crash, a commit or another's move may come between, the ESPs, the operator, the clock.

use std::sync::Arc;
use std::time::Duration;

use super::Model;
use super::rules::Rule;
use super::store::Act;
use super::world::{
    ATTEMPTS_MAX, Call, ESPS, EVERYBODY, Fate, Kind, NOW, Next, Pending, Place, RECIPIENTS, Settle, Stage,
    TICK, Word, World, event, recipients,
};
use crate::mail::delivery::Known;
use crate::mail::{Fault, Outcome};
use crate::router::{Candidate, Choice, PassedOver, Situation, Ties, choose, next_step};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// What is due is read into memory.
    Claim,
    /// What is in memory is chosen for, and begun where an ESP can take it.
    Begin {
        pending: u8,
        esp: Option<u8>,
    },
    /// Its commit failed: it is read again.
    BeginFails {
        pending: u8,
    },
    /// Who is not wanted any more is taken out of a call before it starts.
    Judge(u8),
    /// The call is handed over, or cannot be composed.
    Start(u8, [Fate; RECIPIENTS]),
    /// It did not start: un-begun.
    TakeBack(u8),
    /// The hold passes before the answer.
    HoldPasses(u8),
    Answer(u8),
    /// Its answer is lost.
    Lose(u8),
    CommitHold(u8),
    CommitAnswer(u8),
    /// The courier follows what an event told.
    Follow(u8),
    Tick,
    Sweep,
    /// `max_age` passes.
    Age,
    Event {
        attempt: u8,
        recipient: u8,
        known: Known,
    },
    Suppress,
    Act(Act),
    Crash,
    /// An ESP becomes able or unable.
    Turn(u8),
}

impl Move {
    /// Whether the relay and its ESPs make it by themselves, sooner or later.
    pub fn is_internal(self) -> bool {
        match self {
            Move::Claim
            | Move::Begin { .. }
            | Move::Judge(_)
            | Move::Start(..)
            | Move::Answer(_)
            | Move::CommitHold(_)
            | Move::CommitAnswer(_)
            | Move::Follow(_)
            | Move::Tick
            | Move::Sweep => true,
            Move::BeginFails { .. }
            | Move::TakeBack(_)
            | Move::HoldPasses(_)
            | Move::Lose(_)
            | Move::Age
            | Move::Event { .. }
            | Move::Suppress
            | Move::Act(_)
            | Move::Crash
            | Move::Turn(_) => false,
        }
    }
}

impl Model {
    /// Every state that one move leads to.
    pub fn moves(&self, w: &World, to: &mut Vec<(Move, World)>) {
        self.rounds(w, to);
        for attempt in 0..w.begun {
            self.call(w, attempt, to);
        }
        self.clock(w, to);
        self.others(w, to);
    }

    fn rounds(&self, w: &World, to: &mut Vec<(Move, World)>) {
        self.claim(w, to);
        for place in 0..w.memory.len() {
            if let Some(pending) = w.memory[place] {
                self.take_pending(w, place, pending, to);
            }
        }
        for r in 0..RECIPIENTS {
            let mut next = *w;
            if self.on(Rule::KnownIsFollowed) && self.follow(&mut next, r) {
                to.push((Move::Follow(r as u8), next));
            }
        }
    }

    /// `read_due`. What is in memory is not read again, but for a claim that was on its way when it came there: then a
    /// delivery is in memory twice.
    fn claim(&self, w: &World, to: &mut Vec<(Move, World)>) {
        let held = w.memory.iter().flatten().count();
        if w.aged || held > usize::from(self.setting.claims_race) {
            return;
        }
        let groups = self.claims(w);
        if groups.is_empty() || groups.len() + held > w.memory.len() {
            return;
        }
        if held == 1 && groups.iter().all(|g| w.memory.iter().flatten().any(|p| p == g)) {
            return;
        }
        let mut next = *w;
        groups.into_iter().for_each(|group| submit(&mut next, group));
        to.push((Move::Claim, next));
    }

    /// `take_lane` and `begin`.
    fn take_pending(&self, w: &World, place: usize, pending: Pending, to: &mut Vec<(Move, World)>) {
        let mut rest = *w;
        rest.memory[place] = None;
        rest.memory.sort_by_key(Option::is_none);
        if !w.aged {
            let unable = pending.had_another_hold && self.on(Rule::UnfitIsUnable);
            if unable || self.choice(w, &pending).ranked.is_empty() {
                let mut next = rest;
                self.put_aside(&mut next, &pending);
                to.push((Move::Begin { pending: place as u8, esp: None }, next));
            } else if w.begun < self.setting.attempts {
                self.begin_at_one(&rest, place, pending, to);
            }
        }
        // Its commit failed, or it is over.
        to.push((Move::BeginFails { pending: place as u8 }, rest));
    }

    fn begin_at_one(&self, rest: &World, place: usize, pending: Pending, to: &mut Vec<(Move, World)>) {
        let ranked = self.choice(rest, &pending).ranked;
        // Any of them may be the first with room.
        let room = if self.setting.any_room { ranked.len() } else { 1 };
        for esp in ranked.into_iter().take(room) {
            let mut next = *rest;
            self.begin_at(&mut next, &pending, esp as u8);
            to.push((Move::Begin { pending: place as u8, esp: Some(esp as u8) }, next));
        }
    }

    fn begin_at(&self, w: &mut World, pending: &Pending, esp: u8) {
        let attempt = w.begun;
        let mut passengers = 0;
        for r in recipients(pending.passengers) {
            if self.begin(w, r, pending.from, attempt) || !self.on(Rule::ComposeForThoseBegun) {
                passengers |= 1 << r;
            }
        }
        if passengers == 0 {
            return;
        }
        w.begun += 1;
        w.esp_of[usize::from(attempt)] = esp;
        let mut seen_unsure = [0; RECIPIENTS];
        recipients(passengers).for_each(|r| seen_unsure[r] = pending.seen_unsure[r]);
        w.calls[usize::from(attempt)] = Call {
            stage: Stage::Begun,
            passengers,
            tried: pending.tried | 1 << esp,
            moved_for_recipient: pending.moved_for_recipient,
            bound: pending.bound_to.is_some(),
            seen_unsure,
            ..Call::default()
        };
    }

    /// `put_aside`: what is held at an ESP that cannot take it, and what waits.
    fn put_aside(&self, w: &mut World, pending: &Pending) {
        for r in recipients(pending.passengers) {
            match pending.from.kind {
                Kind::Unsure => self.unable(w, r),
                _ => self.put_off(w, r, pending.from, 1),
            }
        }
    }

    fn choice(&self, w: &World, pending: &Pending) -> Choice {
        let bound_to = pending.bound_to.filter(|_| self.on(Rule::BoundStaysThere));
        self.choose(w, bound_to, pending.tried)
    }

    fn choose(&self, w: &World, bound_to: Option<u8>, tried: u8) -> Choice {
        let mut n = 0;
        let candidates = ESPS.map(|name| {
            let able = w.able & (1 << n) != 0;
            n += 1;
            let hindrance = (!able).then(|| PassedOver::Shut(String::new()));
            Candidate { name, priority: n, weight: 100, hindrance }
        });
        let tried = (0..ESPS.len()).filter(|n| tried & (1 << n) != 0).map(|n| Arc::from(ESPS[n]));
        let tried: Vec<Arc<str>> = tried.collect();
        let bound_to = bound_to.map(|esp| ESPS[usize::from(esp)]);
        choose(&candidates, Ties { bound_to, pin: None, tried: &tried }, 0)
    }

    /// `carry` and what follows it.
    fn call(&self, w: &World, attempt: u8, to: &mut Vec<(Move, World)>) {
        let call = &w.calls[usize::from(attempt)];
        match call.stage {
            Stage::Free => {}
            Stage::Begun | Stage::Judged => self.start(w, attempt, to),
            Stage::Wire => self.on_the_wire(w, attempt, to),
        }
        for (settle, mv) in
            [(call.hold, Move::CommitHold(attempt)), (call.answer, Move::CommitAnswer(attempt))]
        {
            if let Some(settle) = settle {
                let mut next = *w;
                self.commit(&mut next, attempt, mv, settle);
                to.push((mv, next));
            }
        }
    }

    fn start(&self, w: &World, attempt: u8, to: &mut Vec<(Move, World)>) {
        let at = usize::from(attempt);
        let call = w.calls[at];
        if self.setting.take_back {
            let mut next = *w;
            recipients(call.passengers).for_each(|r| self.unbegin(&mut next, r, attempt));
            next.calls[at] = Call::default();
            self.forget(&mut next, attempt);
            to.push((Move::TakeBack(attempt), next));
        }
        let judged = call.stage == Stage::Begun && call.verdicts_changed && self.on(Rule::StartJudges);
        let unwanted = |r: &usize| judged && self.unwanted(w, *r, attempt);
        let gone: Vec<usize> = recipients(call.passengers).filter(unwanted).collect();
        if !gone.is_empty() {
            let mut next = *w;
            for r in gone {
                self.unbegin(&mut next, r, attempt);
                next.calls[at].passengers &= !(1 << r);
                next.calls[at].seen_unsure[r] = 0;
            }
            next.calls[at].verdicts_changed = false;
            if !self.on(Rule::StartJudgesUntilNothingChanged) {
                next.calls[at].stage = Stage::Judged;
            }
            if next.calls[at].passengers == 0 {
                next.calls[at] = Call::default();
                self.forget(&mut next, attempt);
            }
            return to.push((Move::Judge(attempt), next));
        }
        self.hand_over(w, attempt, to);
    }

    fn hand_over(&self, w: &World, attempt: u8, to: &mut Vec<(Move, World)>) {
        let at = usize::from(attempt);
        let call = w.calls[at];
        let by_header = usize::from(w.esp_of[at]) == self.setting.header;
        if by_header && call.passengers != EVERYBODY && self.on(Rule::FitForTheHeaderOnly) {
            let mut next = *w;
            let unfit = Outcome::Unfit { why: String::new() };
            let settle =
                self.judge(w, attempt, call.passengers, |_| (Some(unfit.clone()), Word::Unfit), false);
            next.calls[at] = over(call, Some(settle));
            return to.push((Move::Start(attempt, [Fate::None; RECIPIENTS]), next));
        }
        let named = if by_header { EVERYBODY } else { call.passengers };
        for fate in self.fates(named, by_header) {
            let mut next = *w;
            next.calls[at] = Call { stage: Stage::Wire, fate, verdicts_changed: false, ..call };
            self.take(&mut next, attempt, named);
            to.push((Move::Start(attempt, fate), next));
        }
    }

    /// What an ESP may do with those: each on its own, or all alike where it gives one answer.
    fn fates(&self, named: u8, by_header: bool) -> Vec<[Fate; RECIPIENTS]> {
        let mut all = Vec::new();
        for first in self.setting.fates {
            for second in self.setting.fates {
                let mut fate = [*first, *second];
                let takes = |f: Fate| f == Fate::Taken;
                // Its one answer names one recipient; the others were not taken either (rule 6).
                if by_header && takes(fate[0]) != takes(fate[1]) {
                    continue;
                }
                (0..RECIPIENTS).filter(|r| named & (1 << r) == 0).for_each(|r| fate[r] = Fate::None);
                if !all.contains(&fate) {
                    all.push(fate);
                }
            }
        }
        all
    }

    fn on_the_wire(&self, w: &World, attempt: u8, to: &mut Vec<(Move, World)>) {
        let at = usize::from(attempt);
        let call = w.calls[at];
        let by_header = usize::from(w.esp_of[at]) == self.setting.header;
        let mut answered = |lost: bool, mv: Move| {
            let answer = |r: usize| {
                let unsure = call.held && !self.on(Rule::RowTakesLateAnswers);
                match read(call.fate, r, by_header, lost, self.on(Rule::FaultIsTheNamedOnes)) {
                    _ if unsure => (None, Word::None),
                    // That nobody knows is written already.
                    (Outcome::Unsure { .. }, _) if call.held => (None, Word::None),
                    (outcome, word) => (Some(outcome), word),
                }
            };
            let settle = self.judge(w, attempt, call.passengers, answer, false);
            let mut next = *w;
            let any = settle.step.iter().any(|step| *step != Next::None);
            next.calls[at] = over(call, any.then_some(settle));
            to.push((mv, next));
        };
        answered(false, Move::Answer(attempt));
        if self.setting.loses {
            answered(true, Move::Lose(attempt));
        }
        if self.setting.holds_pass && !call.held {
            let unsure = |_| (Some(Outcome::Unsure { said: String::new() }), Word::Unsure);
            let settle = self.judge(w, attempt, call.passengers, unsure, true);
            let mut next = *w;
            next.calls[at] = Call { held: true, hold: Some(settle), ..call };
            to.push((Move::HoldPasses(attempt), next));
        }
    }

    /// `judge`, with the product's own table. `hold_is_over`: the hold ran from hand-over, and is over.
    fn judge(
        &self,
        w: &World,
        attempt: u8,
        passengers: u8,
        answer: impl Fn(usize) -> (Option<Outcome>, Word),
        hold_is_over: bool,
    ) -> Settle {
        let call = &w.calls[usize::from(attempt)];
        let mut settle = Settle { word: [Word::None; RECIPIENTS], step: [Next::None; RECIPIENTS] };
        let another_left = !self.choose(w, None, call.tried).ranked.is_empty();
        for r in recipients(passengers) {
            let (Some(outcome), word) = answer(r) else { continue };
            let seen_unsure = u32::from(call.seen_unsure[r]);
            let situation = Situation {
                kind: self.setting.kind,
                now: NOW,
                another_left,
                systemic: false,
                shut: false,
                moved_for_recipient: call.moved_for_recipient,
                retry_in: TICK
                    * u32::from(self.setting.retry + u8::from(r == 1 && !self.on(Rule::AlikeStayAlike))),
                hold: if hold_is_over { Duration::ZERO } else { self.hold() },
                bound: call.bound,
                longest_wait: TICK * 100,
                seen_unsure: if self.on(Rule::SecondUnsureIsAssumed) { seen_unsure } else { 0 },
                expires_at: NOW.plus(TICK * 100),
            };
            settle.word[r] = word;
            settle.step[r] = Next::of(next_step(&outcome, &situation));
        }
        settle
    }

    /// A settle's transaction, and what the courier does after it (`settle` and `go_elsewhere`).
    fn commit(&self, w: &mut World, attempt: u8, mv: Move, settle: Settle) {
        let at = usize::from(attempt);
        let call = w.calls[at];
        match mv {
            Move::CommitHold(_) => w.calls[at].hold = None,
            _ => w.calls[at].answer = None,
        }
        let mut elsewhere = 0;
        for r in recipients(call.passengers) {
            if self.settle(w, r, attempt, settle.word[r], settle.step[r])
                && settle.step[r] == Next::Elsewhere
                && w.rows[r].place.kind == Kind::Waiting
            {
                elsewhere |= 1 << r;
            }
            if !self.on(Rule::TriedIsEmptied) {
                w.rows[r].tried |= 1 << w.esp_of[at];
            }
        }
        let for_recipient = recipients(elsewhere).any(|r| call.fate[r] == Fate::Busy);
        let kept = w.calls[at];
        if kept.stage == Stage::Free && kept.hold.is_none() && kept.answer.is_none() {
            w.calls[at] = Call::default();
            self.forget(w, attempt);
        }
        if elsewhere != 0 {
            let mut seen_unsure = [0; RECIPIENTS];
            recipients(elsewhere).for_each(|r| seen_unsure[r] = call.seen_unsure[r]);
            submit(
                w,
                Pending {
                    passengers: elsewhere,
                    from: Place::DUE,
                    bound_to: None,
                    tried: call.tried,
                    moved_for_recipient: call.moved_for_recipient || for_recipient,
                    seen_unsure,
                    had_another_hold: false,
                },
            );
        }
    }

    /// An attempt of which nothing left, the latest, is as if it had not been: its number is free. So a delivery does
    /// not run out of the model's attempts where it runs in a circle.
    fn forget(&self, w: &mut World, attempt: u8) {
        let of_it = &mut w.journal[usize::from(attempt)];
        let nothing = of_it.iter().all(|a| matches!(a.word, Word::None | Word::Unfit) && !a.got);
        let named = w.rows.iter().any(|row| {
            matches!(row.place.kind, Kind::Out | Kind::Unsure | Kind::PausedUnsure)
                && row.place.attempt == attempt
        });
        if attempt + 1 == w.begun && nothing && !named {
            *of_it = Default::default();
            w.esp_of[usize::from(attempt)] = 0;
            w.begun -= 1;
        }
    }

    fn clock(&self, w: &World, to: &mut Vec<(Move, World)>) {
        let mut next = *w;
        next.tick(self.setting.hold);
        if next != *w {
            to.push((Move::Tick, next));
        }
        if w.aged {
            let mut next = *w;
            self.sweep(&mut next);
            if next != *w {
                to.push((Move::Sweep, next));
            }
        } else if self.setting.ages {
            to.push((Move::Age, World { aged: true, ..*w }));
        }
    }

    /// ESPs' events, suppressions, operators, crashes.
    fn others(&self, w: &World, to: &mut Vec<(Move, World)>) {
        if w.events_left > 0 {
            self.events(w, to);
        }
        if self.setting.suppresses && !w.suppressed {
            let mut next = *w;
            self.suppress(&mut next);
            to.push((Move::Suppress, next));
        }
        if w.acts_left > 0 {
            for act in self.setting.acts {
                let mut next = World { acts_left: w.acts_left - 1, ..*w };
                self.act(&mut next, *act);
                if next.rows != w.rows {
                    to.push((Move::Act(*act), next));
                }
            }
        }
        if w.crashes_left > 0 {
            let mut next = World { crashes_left: w.crashes_left - 1, ..*w };
            next.memory = Default::default();
            next.calls = [Call::default(); ATTEMPTS_MAX];
            self.recover(&mut next);
            to.push((Move::Crash, next));
        }
        if w.turns_left > 0 {
            for esp in 0..ESPS.len() as u8 {
                let able = w.able ^ (1 << esp);
                // One at a time.
                if able.count_ones() + 1 >= ESPS.len() as u32 {
                    to.push((Move::Turn(esp), World { able, turns_left: w.turns_left - 1, ..*w }));
                }
            }
        }
    }

    fn events(&self, w: &World, to: &mut Vec<(Move, World)>) {
        for attempt in 0..w.begun {
            for r in 0..RECIPIENTS {
                let row = &w.journal[usize::from(attempt)][r];
                for known in self.setting.events {
                    if row.got && row.told & event(*known) == 0 {
                        let mut next = World { events_left: w.events_left - 1, ..*w };
                        self.told(&mut next, r, attempt, *known);
                        to.push((Move::Event { attempt, recipient: r as u8, known: *known }, next));
                    }
                }
            }
        }
    }
}

/// Into memory, where there is room; else it is read when its turn comes.
fn submit(w: &mut World, pending: Pending) {
    if let Some(free) = w.memory.iter_mut().find(|p| p.is_none()) {
        *free = Some(pending);
    }
}

/// The line is closed; what it told is on its way to the database.
fn over(call: Call, answer: Option<Settle>) -> Call {
    match (call.hold, answer) {
        (None, None) => Call::default(),
        (hold, answer) => {
            Call { stage: Stage::Free, verdicts_changed: false, held: false, hold, answer, ..call }
        }
    }
}

/// An ESP's reading of what it met: per recipient, or one answer for all, that names who is at fault.
fn read(
    fate: [Fate; RECIPIENTS],
    r: usize,
    one_answer: bool,
    lost: bool,
    named_only: bool,
) -> (Outcome, Word) {
    let refused = |fault, lasting| Outcome::Refused { fault, lasting, wait: None, said: String::new() };
    let of = match (one_answer, fate[0]) {
        // The first at fault is named.
        (true, Fate::Gone | Fate::Busy) if r == 1 && named_only => Fate::Path,
        (true, Fate::Gone | Fate::Busy) => fate[0],
        _ => fate[r],
    };
    match of {
        Fate::Taken | Fate::Path if lost => (Outcome::Unsure { said: String::new() }, Word::Unsure),
        Fate::Gone | Fate::Busy if lost && one_answer => {
            (Outcome::Unsure { said: String::new() }, Word::Unsure)
        }
        Fate::None | Fate::Path => (refused(Fault::Path, false), Word::Refused),
        Fate::Taken => (Outcome::Accepted { remote_id: None, said: String::new() }, Word::Accepted),
        Fate::Gone => (refused(Fault::Recipient, true), Word::Gone),
        Fate::Busy => (refused(Fault::Recipient, false), Word::Refused),
    }
}
