//! A state of the model: what the database has, what the relay has in memory, and what only the world knows.
//!
//! Times are counted in ticks from the present, which is always [`NOW`]: what is past is due. So two states that differ
//! by their age alone are one.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::delivery::{Delivery, Known, Mark, Open, PausedFrom, QueueState, Reason, Step};
use crate::mail::{AttemptId, Owner};

pub const RECIPIENTS: usize = 2;
pub const EVERYBODY: u8 = 0b11;
pub const ESPS: [&str; 3] = ["a", "b", "c"];
pub const ATTEMPTS_MAX: usize = 5;

pub const NOW: Timestamp = Timestamp::from_millis(1_000);
pub const TICK: Duration = Duration::from_millis(1);
pub const ME: Owner = Owner::from_number(1);

/// What the columns `state`, `at` and `attempt` of a row say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    pub kind: Kind,
    /// Ticks until it is due, or until its hold ends.
    pub at: u8,
    pub attempt: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Waiting,
    Out,
    Unsure,
    Paused,
    PausedUnsure,
    Done,
}

/// A row of `email_sends`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    pub place: Place,
    pub known: Known,
    pub reason: Option<Reason>,
    pub mark: Mark,
    pub unbound: bool,
    /// For how many ticks its ESP could not take it.
    pub unable_for: Option<u8>,
    pub tries: u8,
    /// Kept only where rule 8 is off.
    pub tried: u8,
}

/// A row of `attempts`, with what the world knows of it and what was recorded about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attempt {
    pub word: Word,
    /// The highest that events told of it, as the product keeps it.
    pub known: Known,
    /// The ESP has a copy.
    pub got: bool,
    /// What it told: bit by bit, [`event`].
    pub told: u8,
    /// `may_arrive_twice` was recorded with its begin.
    pub announced: bool,
    /// `retry_any` was recorded while it was open.
    pub freed: bool,
}

/// `attempts.outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Word {
    /// No answer yet.
    #[default]
    None,
    Accepted,
    Refused,
    /// Refused for good, and for this recipient.
    Gone,
    Unfit,
    Unsure,
    /// Unsure, with `crashed`.
    Crashed,
}

impl Word {
    pub fn is_open(self) -> bool {
        matches!(self, Word::Unsure | Word::Crashed)
    }
}

/// What an ESP does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fate {
    #[default]
    None,
    Taken,
    /// Refused for good: no such recipient.
    Gone,
    /// Refused for now, for the recipient's sake.
    Busy,
    /// Refused: nobody's fault.
    Path,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stage {
    /// There is none, or it is over.
    #[default]
    Free,
    /// Begun, and waiting for a connection.
    Begun,
    /// As that, and not to be judged any more: only where that rule is off.
    Judged,
    /// Handed over; its answer is listened for.
    Wire,
}

/// A settle on its way to the database: what each passenger was answered, and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settle {
    pub word: [Word; RECIPIENTS],
    pub step: [Next; RECIPIENTS],
}

/// [`Step`], its moment in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Next {
    None,
    Done,
    Bounce,
    Elsewhere,
    Later(u8),
    Hold(u8),
    Assume(u8),
}

/// What `flow::call::Call` has, and the tasks of its settles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Call {
    pub stage: Stage,
    pub passengers: u8,
    pub tried: u8,
    pub moved_for_recipient: bool,
    pub bound: bool,
    /// Somebody was suppressed, or marked, since its begin.
    pub verdicts_changed: bool,
    pub seen_unsure: [u8; RECIPIENTS],
    pub fate: [Fate; RECIPIENTS],
    /// That its hold passed was told.
    pub held: bool,
    pub hold: Option<Settle>,
    pub answer: Option<Settle>,
}

/// What `flow::pending::Pending` has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pending {
    pub passengers: u8,
    pub from: Place,
    pub bound_to: Option<u8>,
    pub tried: u8,
    pub moved_for_recipient: bool,
    pub seen_unsure: [u8; RECIPIENTS],
    /// The ESP that one of them is bound to has not taken it for another hold.
    pub had_another_hold: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub rows: [Row; RECIPIENTS],
    pub journal: [[Attempt; RECIPIENTS]; ATTEMPTS_MAX],
    /// Where each attempt went.
    pub esp_of: [u8; ATTEMPTS_MAX],
    pub calls: [Call; ATTEMPTS_MAX],
    pub memory: [Option<Pending>; 2],
    /// Attempts minted.
    pub begun: u8,
    /// The ESPs that can take mail.
    pub able: u8,
    /// The first recipient may not be mailed.
    pub suppressed: bool,
    /// `max_age` has passed.
    pub aged: bool,
    pub crashes_left: u8,
    pub events_left: u8,
    pub acts_left: u8,
    pub turns_left: u8,
}

/// The bit of an event in [`Attempt::told`].
pub fn event(known: Known) -> u8 {
    match known {
        Known::Nothing | Known::Handed => 0,
        Known::Deferred => 1,
        Known::Delivered => 2,
        Known::Bounced => 4,
        Known::Complained => 8,
    }
}

pub fn recipients(mask: u8) -> impl Iterator<Item = usize> {
    (0..RECIPIENTS).filter(move |r| mask & (1 << r) != 0)
}

pub fn attempt_id(attempt: u8) -> AttemptId {
    AttemptId::from_number(i64::from(attempt) + 1)
}

pub fn attempt_number(id: AttemptId) -> u8 {
    u8::try_from(id.number() - 1).unwrap()
}

pub fn moment(ticks: u8) -> Timestamp {
    NOW.plus(TICK * u32::from(ticks))
}

pub fn ticks(at: Timestamp) -> u8 {
    u8::try_from(at.since(NOW).as_millis()).unwrap()
}

impl Place {
    pub const DUE: Place = Place { kind: Kind::Waiting, at: 0, attempt: 0 };

    /// As `src/store/row.rs` reads `state`, `at`, `owner` and `attempt`.
    pub fn state(self) -> QueueState {
        let (at, attempt) = (moment(self.at), attempt_id(self.attempt));
        match self.kind {
            Kind::Waiting => QueueState::Waiting { due: at },
            Kind::Out => QueueState::Out { owner: ME, attempt },
            Kind::Unsure => QueueState::Unsure { attempt, until: at },
            Kind::Paused => QueueState::Paused { from: PausedFrom::Waiting },
            Kind::PausedUnsure => QueueState::Paused { from: PausedFrom::Unsure { attempt, until: at } },
            Kind::Done => QueueState::Done,
        }
    }

    /// As `state_columns` there writes them, but that what a state does not have is forgotten.
    pub fn of(state: QueueState) -> Place {
        let place = |kind, at, attempt| Place { kind, at, attempt };
        match state {
            QueueState::Waiting { due } => place(Kind::Waiting, ticks(due), 0),
            QueueState::Out { attempt, .. } => place(Kind::Out, 0, attempt_number(attempt)),
            QueueState::Unsure { attempt, until } => {
                place(Kind::Unsure, ticks(until), attempt_number(attempt))
            }
            QueueState::Paused { from: PausedFrom::Waiting } => place(Kind::Paused, 0, 0),
            QueueState::Paused { from: PausedFrom::Unsure { attempt, until } } => {
                place(Kind::PausedUnsure, ticks(until), attempt_number(attempt))
            }
            QueueState::Done => place(Kind::Done, 0, 0),
        }
    }

    pub fn is_out_with(self, attempt: u8) -> bool {
        self.kind == Kind::Out && self.attempt == attempt
    }

    pub fn is_paused(self) -> bool {
        matches!(self.kind, Kind::Paused | Kind::PausedUnsure)
    }
}

impl Row {
    pub const FRESH: Row = Row {
        place: Place::DUE,
        known: Known::Nothing,
        reason: None,
        mark: Mark::None,
        unbound: false,
        unable_for: None,
        tries: 0,
        tried: 0,
    };

    /// As `Queued::read` in `src/store/row.rs`, with what `Tx::open` counted.
    pub fn delivery(&self, open: Open) -> Delivery {
        Delivery {
            state: self.place.state(),
            known: self.known,
            reason: self.reason,
            mark: self.mark,
            open,
            unbound: self.unbound,
            unable_since: self.unable_for.map(|n| NOW.earlier(TICK * u32::from(n))),
        }
    }

    /// As `Tx::write` in `src/store/tx.rs`.
    pub fn write(&mut self, delivery: &Delivery) {
        self.place = Place::of(delivery.state);
        self.known = delivery.known;
        self.reason = delivery.reason;
        self.mark = delivery.mark;
        self.unbound = delivery.unbound;
        self.unable_for =
            delivery.unable_since.map(|since| u8::try_from(NOW.since(since).as_millis()).unwrap());
        if self.place.kind == Kind::Done {
            // Nobody reads them any more.
            (self.unbound, self.unable_for) = (false, None);
        }
    }
}

impl Next {
    pub fn of(step: Step) -> Next {
        match step {
            Step::Done => Next::Done,
            Step::Bounce => Next::Bounce,
            Step::Elsewhere => Next::Elsewhere,
            Step::Later(at) => Next::Later(ticks(at)),
            Step::Hold(at) => Next::Hold(ticks(at)),
            Step::Assume(at) => Next::Assume(ticks(at)),
        }
    }

    pub fn step(self) -> Option<Step> {
        Some(match self {
            Next::None => return None,
            Next::Done => Step::Done,
            Next::Bounce => Step::Bounce,
            Next::Elsewhere => Step::Elsewhere,
            Next::Later(at) => Step::Later(moment(at)),
            Next::Hold(at) => Step::Hold(moment(at)),
            Next::Assume(at) => Step::Assume(moment(at)),
        })
    }

    fn sooner(self) -> Next {
        match self {
            Next::Later(at) => Next::Later(at.saturating_sub(1)),
            Next::Hold(at) => Next::Hold(at.saturating_sub(1)),
            Next::Assume(at) => Next::Assume(at.saturating_sub(1)),
            other => other,
        }
    }
}

impl World {
    /// Its attempts of that recipient whose answer is open.
    pub fn open_of(&self, r: usize) -> impl Iterator<Item = u8> {
        (0..self.begun).filter(move |a| self.journal[usize::from(*a)][r].word.is_open())
    }

    /// Of these, whose loss was seen.
    pub fn seen_of(&self, r: usize) -> usize {
        self.open_of(r).filter(|a| self.journal[usize::from(*a)][r].word == Word::Unsure).count()
    }

    pub fn is_done(&self) -> bool {
        self.rows.iter().all(|row| row.place.kind == Kind::Done)
    }

    pub fn is_idle(&self) -> bool {
        self.memory.iter().all(Option::is_none) && self.calls.iter().all(|call| *call == Call::default())
    }

    /// Everything is a tick nearer; `hold`: what is longer ago counts as that.
    pub fn tick(&mut self, hold: u8) {
        for row in &mut self.rows {
            row.place.at = row.place.at.saturating_sub(1);
            row.unable_for = row.unable_for.map(|n| (n + 1).min(hold));
        }
        for call in &mut self.calls {
            for settle in [&mut call.hold, &mut call.answer].into_iter().flatten() {
                settle.step = settle.step.map(Next::sooner);
            }
        }
    }

    pub fn verdicts_change(&mut self) {
        for call in &mut self.calls {
            call.verdicts_changed |= matches!(call.stage, Stage::Begun | Stage::Judged);
        }
    }
}
