//! The store's part of a move, beside the state functions: what `src/store` reads and writes in one transaction. Each
//! function names what it mirrors; none decides anything.

use super::Model;
use super::rules::Rule;
use super::world::{
    Attempt, Fate, Kind, ME, NOW, Next, Pending, Place, RECIPIENTS, Word, World, attempt_id, event, moment,
    recipients,
};
use crate::mail::delivery::{
    Begin, Delivery, Known, Mark, Open, PausedFrom, QueueState, Reason, Step, Unable,
};

/// `store::Act`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    Pause,
    Release,
    Remove,
    Flush,
}

impl Model {
    /// `Tx::open` in `src/store/tx.rs`, with its way around the journal.
    fn open(&self, w: &World, r: usize) -> Open {
        let row = &w.rows[r];
        if row.tries == 0 || (row.place.kind == Kind::Out && row.tries == 1) {
            return Open::default();
        }
        self.open_attempts(w, r)
    }

    fn open_attempts(&self, w: &World, r: usize) -> Open {
        Open {
            count: u32::try_from(w.open_of(r).count()).unwrap(),
            seen: u32::try_from(w.seen_of(r)).unwrap(),
            latest: w.open_of(r).max().map(attempt_id),
        }
    }

    fn read(&self, w: &World, r: usize) -> Delivery {
        w.rows[r].delivery(self.open(w, r))
    }

    /// `begin` in `src/store/queue.rs`: `true`: it is out with that attempt.
    pub(super) fn begin(&self, w: &mut World, r: usize, from: Place, attempt: u8) -> bool {
        let before = self.read(w, r);
        let mut d = before;
        let mut from = from.state();
        if !self.on(Rule::BeginNamesItsState) && d.state != QueueState::Done {
            from = QueueState::Waiting { due: NOW };
            d.state = from;
        }
        if !self.on(Rule::BeginLooksAtKnown) {
            d.known = Known::Nothing;
        }
        let suppressed = w.suppressed && r == 0 && self.on(Rule::BeginJudges);
        let begun = d.begin(from, ME, attempt_id(attempt), suppressed);
        d.known = before.known;
        if d.state == before.state {
            return matches!(begun, Begin::Begun { .. });
        }
        w.rows[r].write(&d);
        if let Begin::Begun { twice } = begun {
            // Past the second they are all the same to it.
            w.rows[r].tries = (w.rows[r].tries + 1).min(3);
            w.journal[usize::from(attempt)][r].announced = twice && self.on(Rule::OpenIsAnnounced);
        }
        matches!(begun, Begin::Begun { .. })
    }

    /// `unbegin` there.
    pub(super) fn unbegin(&self, w: &mut World, r: usize, attempt: u8) {
        let mut d = self.read(w, r);
        let known = d.known;
        if !self.on(Rule::UnbeginLooksAtKnown) {
            d.known = Known::Nothing;
        }
        if !d.unbegin(attempt_id(attempt), NOW) {
            return;
        }
        d.known = known;
        if !self.on(Rule::UnbegunIsHeldAgain) && matches!(d.state, QueueState::Unsure { .. }) {
            d.state = QueueState::Waiting { due: NOW };
        }
        w.rows[r].write(&d);
        w.rows[r].tries = w.rows[r].tries.saturating_sub(1);
        w.journal[usize::from(attempt)][r] = Attempt::default();
    }

    /// `put_off` there.
    pub(super) fn put_off(&self, w: &mut World, r: usize, from: Place, until: u8) {
        let mut d = self.read(w, r);
        if d.put_off(from.state(), moment(until)) {
            w.rows[r].write(&d);
        }
    }

    /// `unable` there.
    pub(super) fn unable(&self, w: &mut World, r: usize) {
        let before = self.read(w, r);
        let mut d = before;
        if !self.on(Rule::AnotherHoldIsWaitedFor) {
            d.unable_since = Some(NOW.earlier(self.hold()));
        }
        let unable = d.unable(NOW, self.hold(), super::world::TICK, self.setting.then);
        if unable == Unable::RetriesAny {
            if !self.on(Rule::UnableUnbinds) {
                d = Delivery { state: before.state, ..before };
                d.put_off(before.state, moment(1));
            }
            for a in 0..w.begun {
                let attempt = &mut w.journal[usize::from(a)][r];
                attempt.freed |= attempt.word.is_open() && self.on(Rule::UnableUnbinds);
            }
        }
        w.rows[r].write(&d);
    }

    /// `settle_one` there; `true`: the queue moved.
    pub(super) fn settle(&self, w: &mut World, r: usize, attempt: u8, word: Word, next: Next) -> bool {
        let Some(step) = next.step() else { return false };
        let at = usize::from(attempt);
        // `INSERT_ATTEMPT`, which gives no answer for another, and `answered_alike`.
        let row = &mut w.journal[at][r];
        let inserted = match row.word {
            Word::None => true,
            Word::Unsure | Word::Crashed => !word.is_open(),
            _ => !self.on(Rule::AnswersStay),
        };
        let alike = row.word == word || (row.word.is_open() && word.is_open());
        if inserted {
            row.word = word;
        } else if !alike {
            return false;
        }
        let before = self.read(w, r);
        let mut d = before;
        if !self.on(Rule::StepLooksAtKnown) {
            d.known = Known::Nothing;
        }
        let mut id = attempt_id(attempt);
        if !self.on(Rule::QueueMovesIfNamed)
            && let QueueState::Out { attempt, .. } | QueueState::Unsure { attempt, .. } = d.state
        {
            id = attempt;
        }
        if !self.on(Rule::SecondUnsureIsAssumed) {
            d.open.seen = d.open.seen.min(1);
        }
        let hold = if self.on(Rule::SecondHoldEnds) { self.hold() } else { super::world::TICK * 100 };
        let moved = d.settle(id, step, NOW, hold);
        self.undo_in_settle(&before, &mut d, step, moved);
        if !self.on(Rule::StepLooksAtKnown) {
            d.known = before.known.max(d.known);
        }
        w.rows[r].write(&d);
        if !moved && d.known > before.known {
            w.verdicts_change();
        }
        // What came before its call was settled is found by the remote id (rule 15).
        if word == Word::Accepted && self.on(Rule::EarlyEventsAreFound) {
            self.learn(w, r);
        }
        moved
    }

    /// What [`Delivery::settle`] would do without the rule that is off.
    fn undo_in_settle(&self, before: &Delivery, d: &mut Delivery, step: Step, moved: bool) {
        let due = match step {
            Step::Later(at) => Some(at),
            Step::Elsewhere => Some(NOW),
            Step::Done | Step::Bounce | Step::Hold(_) | Step::Assume(_) => None,
        };
        if !moved || d.known >= Known::Handed {
            return;
        }
        match (self.off, due, d.state) {
            (Some(Rule::BoundIsHeldAgain), Some(due), QueueState::Unsure { .. }) => {
                d.state = QueueState::Waiting { due };
            }
            (Some(Rule::PausedStaysPaused), Some(due), QueueState::Paused { .. })
                if matches!(before.state, QueueState::Paused { .. }) =>
            {
                d.state = QueueState::Waiting { due };
            }
            (Some(Rule::OpenIsCountedInTheJournal), ..) if matches!(step, Step::Assume(_)) => {
                *d = Delivery { state: QueueState::Done, reason: Some(Reason::Assumed), ..*d };
            }
            _ => {}
        }
    }

    /// A claim: `claims_of` and `open_attempts` in `src/store/claim.rs`, grouped as `take_in` in `src/flow/rounds.rs`
    /// does.
    pub(super) fn claims(&self, w: &World) -> Vec<Pending> {
        let mut groups: Vec<Pending> = Vec::new();
        for r in 0..RECIPIENTS {
            let row = &w.rows[r];
            let held = row.place.kind == Kind::Unsure;
            let due = row.place.at == 0 || (held && !self.on(Rule::HoldIsWaitedFor));
            if !due || !(held || row.place.kind == Kind::Waiting) {
                continue;
            }
            let open = if row.tries == 0 { Open::default() } else { self.open_attempts(w, r) };
            let latest = w.open_of(r).max().filter(|_| row.tries > 0 && !row.unbound);
            let bound_to = latest.map(|a| w.esp_of[usize::from(a)]);
            let group = groups.iter_mut().find(|g| g.from == row.place && g.bound_to == bound_to);
            let mut seen_unsure = [0; RECIPIENTS];
            let pending = match group {
                Some(group) => group,
                None => {
                    groups.push(Pending {
                        passengers: 0,
                        from: row.place,
                        bound_to,
                        tried: if self.on(Rule::TriedIsEmptied) { 0 } else { row.tried },
                        moved_for_recipient: false,
                        seen_unsure,
                        had_another_hold: false,
                    });
                    groups.last_mut().unwrap()
                }
            };
            seen_unsure[r] = u8::try_from(open.seen).unwrap();
            pending.passengers |= 1 << r;
            pending.seen_unsure[r] = seen_unsure[r];
            pending.had_another_hold |= held && row.unable_for.is_some_and(|n| n >= self.setting.hold);
        }
        groups
    }

    /// `act_on` in `src/store/operate.rs`.
    pub(super) fn act(&self, w: &mut World, act: Act) {
        let mut verdict = false;
        for r in 0..RECIPIENTS {
            // Operators' acts read no journal.
            let before = w.rows[r].delivery(Open::default());
            let mut d = before;
            let changed = match act {
                Act::Flush => self.flush(&mut d),
                Act::Pause if self.on(Rule::OutIsMarked) => d.pause(),
                Act::Remove if self.on(Rule::OutIsMarked) => d.remove(),
                Act::Pause | Act::Remove => {
                    if matches!(d.state, QueueState::Out { .. }) {
                        d.state = QueueState::Waiting { due: NOW };
                    }
                    if act == Act::Pause { d.pause() } else { d.remove() }
                }
                Act::Release => d.release(NOW),
            };
            if act == Act::Release
                && !self.on(Rule::ReleasedIsHeldAgain)
                && matches!(before.state, QueueState::Paused { from: PausedFrom::Unsure { .. } })
            {
                d.state = QueueState::Waiting { due: NOW };
            }
            if changed {
                verdict |= d.mark != Mark::None;
                w.rows[r].write(&d);
            }
        }
        if verdict {
            w.verdicts_change();
        }
    }

    fn flush(&self, d: &mut Delivery) -> bool {
        if let (QueueState::Unsure { until, .. }, false) = (&mut d.state, self.on(Rule::FlushLeavesHolds)) {
            *until = NOW;
            return true;
        }
        d.flush(NOW)
    }

    /// `suppress` in `src/store/events.rs`.
    pub(super) fn suppress(&self, w: &mut World) {
        w.suppressed = true;
        w.verdicts_change();
    }

    /// `wanted` there, the other way round.
    pub(super) fn unwanted(&self, w: &World, r: usize, attempt: u8) -> bool {
        let row = &w.rows[r];
        let handed = row.known >= Known::Handed && self.on(Rule::StartLooksAtKnown);
        !row.place.is_out_with(attempt) || row.mark != Mark::None || handed || (w.suppressed && r == 0)
    }

    /// `sweep` in `src/store/operate.rs`.
    pub(super) fn sweep(&self, w: &mut World) {
        for r in 0..RECIPIENTS {
            let mut d = self.read(w, r);
            if !self.on(Rule::EndOfOpenIsAssumed) {
                d.open = Open::default();
            }
            let ended: Option<Reason> = d.expire();
            if ended.is_some() || d.state != w.rows[r].place.state() {
                w.rows[r].write(&d);
            }
        }
    }

    /// `recover_once` in `src/store/recover.rs`, after a time as long as a hold.
    pub(super) fn recover(&self, w: &mut World) {
        let until = NOW.plus(self.hold());
        for r in 0..RECIPIENTS {
            let mut d = w.rows[r].delivery(Open::default());
            if let QueueState::Out { attempt, .. } = d.state {
                if !self.on(Rule::CrashedIsHeld) {
                    d.unbegin(attempt, NOW);
                } else {
                    d.crashed(until);
                    // `insert_crashed` in `src/store/queue.rs`.
                    let row = &mut w.journal[usize::from(super::world::attempt_number(attempt))][r];
                    if row.word == Word::None {
                        row.word = if self.on(Rule::CrashIsNotSeen) { Word::Crashed } else { Word::Unsure };
                    }
                }
                w.rows[r].write(&d);
            } else if self.on(Rule::StartHoldsAnew) && d.outage(NOW, self.hold(), self.hold()) {
                w.rows[r].write(&d);
            }
        }
    }

    /// An event of an ESP, its row and its effects: what is known of its attempt rises, and with it the delivery's, in
    /// whatever state. The first part of rule 2's "writes only what is known"; [`Model::follow`] is the other.
    pub(super) fn told(&self, w: &mut World, r: usize, attempt: u8, known: Known) {
        let row = &mut w.journal[usize::from(attempt)][r];
        row.told |= event(known);
        row.known = if self.on(Rule::KnownRises) { row.known.max(known) } else { known };
        let paused = w.rows[r].place.is_paused() || w.rows[r].place.kind == Kind::Done;
        if self.on(Rule::EventsInEveryState) || !paused {
            self.learn(w, r);
        }
    }

    fn learn(&self, w: &mut World, r: usize) {
        let of_attempts = (0..w.begun).filter(|a| self.is_found(w, r, *a)).map(|a| {
            let row = &w.journal[usize::from(a)][r];
            let answered = if row.word == Word::Accepted { Known::Handed } else { Known::Nothing };
            row.known.max(answered)
        });
        let known = match self.on(Rule::DeliveredBeatsBounced) {
            true => Known::overall(of_attempts),
            false => of_attempts.max().unwrap_or_default(),
        };
        let mut d = w.rows[r].delivery(Open::default());
        d.learn(known);
        if d.known > w.rows[r].known {
            w.verdicts_change();
        }
        w.rows[r].write(&d);
    }

    /// Whether an event finds its delivery: by the id that was planted, or by the remote id once the call is settled.
    pub(super) fn is_found(&self, w: &World, r: usize, attempt: u8) -> bool {
        let attempt = usize::from(attempt);
        w.esp_of[attempt] != self.setting.unplanted || w.journal[attempt][r].word == Word::Accepted
    }

    /// The courier moves what has become known.
    pub(super) fn follow(&self, w: &mut World, r: usize) -> bool {
        let mut d = self.read(w, r);
        let moved = d.follow_known();
        if moved {
            w.rows[r].write(&d);
        }
        moved
    }

    /// The ESP has the body for these.
    pub(super) fn take(&self, w: &mut World, attempt: u8, named: u8) {
        for r in recipients(named) {
            if w.calls[usize::from(attempt)].fate[r] == Fate::Taken {
                w.journal[usize::from(attempt)][r].got = true;
            }
        }
    }
}
