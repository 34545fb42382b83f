//! The life of one delivery (one message to one recipient): its states, and the one pure function for each move.
//!
//! ```text
//! state      begun            answer                    operator              crash, hold over
//! Waiting    → Out            (late) row only           pause → Paused        stays
//!                                                       rm    → Done removed
//! Out        refused: moved   Done | Waiting | Unsure   pause, rm: a mark     → Unsure (crash)
//! Unsure     → Out, after     Done | Waiting            pause → Paused        stays; over: begin again at
//!            its hold                                   release: hold ends      the same ESP, or `unable`
//! Paused     refused: moved   row; may end it, else     release → Waiting     stays
//!                             it stays paused             or Unsure, as it was
//! Done       refused: done    row; known may rise       requeue: new round    stays
//! ```
//! The attempt's row always takes its answer, however late; the queue moves only where `Out` or `Unsure` names that
//! attempt. From `Handed` up a delivery is Done, whatever else would be next. While an earlier attempt is open the
//! delivery is bound to its ESP: whatever would make it wait makes it unsure again, until [`Delivery::unable`] unbinds
//! it.

use std::time::Duration;

use super::id::{AttemptId, Owner};
use crate::clock::Timestamp;

/// Where a delivery stands; moved by the courier and the operator alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum QueueState {
    /// Nobody has it; it may be begun from `due` on.
    Waiting {
        /// The earliest next attempt.
        due: Timestamp,
    },
    /// An attempt is begun: committed before bytes leave.
    Out {
        /// The start of the relay that has it.
        owner: Owner,
        /// The call that carries it.
        attempt: AttemptId,
    },
    /// The outcome of an attempt is open: held, and bound to its ESP.
    Unsure {
        /// The open attempt.
        attempt: AttemptId,
        /// The end of the hold.
        until: Timestamp,
    },
    /// An operator stopped it.
    Paused {
        /// What it returns to: the hold it came from, or the queue.
        from: PausedFrom,
    },
    /// Nothing more happens by itself.
    Done,
}

/// What a paused delivery returns to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PausedFrom {
    /// The queue.
    Waiting,
    /// A hold: it is still bound.
    Unsure {
        /// The open attempt.
        attempt: AttemptId,
        /// The end of the hold.
        until: Timestamp,
    },
}

/// What is known of a delivery; it only rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// An ESP took it.
    Handed,
    /// The ESP met a delay.
    Deferred,
    /// The recipient's host took it.
    Delivered,
    /// It came back.
    Bounced,
    /// The recipient complained.
    Complained,
}

impl Known {
    /// What is known of a delivery: the highest over its attempts, where one attempt's `Delivered` beats another's
    /// `Bounced`, in whatever order they are told.
    pub fn overall(attempts: impl IntoIterator<Item = Known>) -> Known {
        let weight = |known: &Known| match known {
            Known::Nothing => 0,
            Known::Handed => 1,
            Known::Deferred => 2,
            Known::Bounced => 3,
            Known::Delivered => 4,
            Known::Complained => 5,
        };
        attempts.into_iter().max_by_key(weight).unwrap_or_default()
    }
}

/// Why a delivery is Done without an ESP having taken it. Below every [`Known`] but `Nothing`: a later event lifts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reason {
    /// The recipient may not be mailed.
    Suppressed,
    /// `max_age` passed.
    Expired,
    /// An operator took it out.
    Removed,
    /// Its outcome stayed open; taken as sent.
    Assumed,
    /// Refused for good.
    Refused,
}

/// What an operator asked of a delivery while it was out; its settle carries it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// `queue pause`
    Pause,
    /// `queue rm`
    Remove,
}

/// What follows an outcome; decided by `router::step`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Step {
    /// An ESP took it.
    Done,
    /// Refused for good: the sender is told.
    Bounce,
    /// Another ESP, now.
    Elsewhere,
    /// Not before that moment.
    Later(Timestamp),
    /// The outcome is open: hold until then.
    Hold(Timestamp),
    /// The outcome is open, and an earlier one's was: taken as sent (rule 11), or held until then where that one has
    /// been answered meanwhile.
    Assume(Timestamp),
}

/// One delivery as the queue has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Delivery {
    /// Where it stands.
    pub state: QueueState,
    /// The highest over its attempts.
    pub known: Known,
    /// Why it is Done, where `known` does not say it.
    pub reason: Option<Reason>,
    /// What its settle has to carry out.
    pub mark: Mark,
    /// Its earlier attempts whose answer is open.
    pub open: Open,
    /// What is open binds it no more (`retry_any`).
    pub unbound: bool,
    /// Since when the ESP that it is bound to could not take it, after a hold.
    pub unable_since: Option<Timestamp>,
}

/// Attempts whose answer is open, as the journal has them; the one that is out is not among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Open {
    /// How many.
    pub count: u32,
    /// Of these, those whose loss was seen; a crash leaves the others (rule 12).
    pub seen: u32,
    /// The latest of them.
    pub latest: Option<AttemptId>,
}

/// What follows where an ESP stays unable to repeat what it may have got already: `[[stream]] unsure_then`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum UnsureThen {
    /// Any ESP may have it: rather twice than not at all.
    RetryAny,
    /// It is taken as sent: rather not at all than twice.
    AssumeSent,
}

/// What [`Delivery::unable`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Unable {
    /// It is not held, or its hold is not over: nothing.
    Moved,
    /// It is held until then and looked at again.
    Waits(Timestamp),
    /// Any ESP may have it now.
    RetriesAny,
    /// It is taken as sent.
    Assumed,
    /// An ESP has it already; it is Done.
    Known,
}

/// What [`Delivery::requeue`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Requeue {
    /// It is not done, or was served: nothing.
    Not,
    /// It starts a new round. `twice`: an ESP may have it already, so it may arrive twice (an event says so).
    Again {
        /// Whether the event is due.
        twice: bool,
    },
}

/// Why a begin did not take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NotBegun {
    /// The row has moved since it was chosen.
    Moved,
    /// An ESP has it already; the delivery is Done now.
    Known,
    /// The recipient was suppressed since; the delivery is Done now.
    Suppressed,
}

/// What a begin found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Begin {
    /// It is out now. `twice`: an earlier attempt is still open, so it may arrive twice (an event says so).
    Begun {
        /// Whether the event is due.
        twice: bool,
    },
    /// It is not.
    Not(NotBegun),
}

impl Delivery {
    /// A fresh one, not before `due`.
    pub const fn waiting(due: Timestamp) -> Self {
        Delivery {
            state: QueueState::Waiting { due },
            known: Known::Nothing,
            reason: None,
            mark: Mark::None,
            open: Open { count: 0, seen: 0, latest: None },
            unbound: false,
            unable_since: None,
        }
    }

    /// Whether an open attempt binds it to that attempt's ESP (rule 9).
    pub fn is_bound(&self) -> bool {
        self.open.count > 0 && !self.unbound
    }

    /// Begins `attempt`, chosen when the delivery stood at `from` (DELIVERY rules 1 to 4). A repeat of the same begin
    /// succeeds.
    pub fn begin(&mut self, from: QueueState, owner: Owner, attempt: AttemptId, suppressed: bool) -> Begin {
        let out = QueueState::Out { owner, attempt };
        if self.state == out {
            return Begin::Begun { twice: self.open.count > 0 };
        }
        if self.state != from || !matches!(from, QueueState::Waiting { .. } | QueueState::Unsure { .. }) {
            return Begin::Not(NotBegun::Moved);
        }
        if self.known >= Known::Handed {
            self.state = QueueState::Done;
            return Begin::Not(NotBegun::Known);
        }
        if suppressed {
            self.end(Reason::Suppressed);
            return Begin::Not(NotBegun::Suppressed);
        }
        self.state = out;
        Begin::Begun { twice: self.open.count > 0 }
    }

    /// Takes back a begin whose call did not start: nothing was handed over. It waits again, or is held again where an
    /// earlier attempt is open (rule 9); where that one was answered meanwhile, an ESP has it (rule 2).
    pub fn unbegin(&mut self, attempt: AttemptId, due: Timestamp) -> bool {
        if !self.is_at(attempt) || !matches!(self.state, QueueState::Out { .. }) {
            return false;
        }
        self.leave(QueueState::Waiting { due });
        true
    }

    /// Moves the queue after an answer to `attempt`; `false` when the queue stands elsewhere by now and only the
    /// attempt's row took it (rule 5). `open` is counted after that row has its answer: a second one that was seen to
    /// be lost ends it (rule 11), by the journal and not by what the call knew when it began. `hold`: its stream's; what
    /// is bound waits for no step of the retry schedule beyond its second hold (rule 10).
    pub fn settle(&mut self, attempt: AttemptId, step: Step, now: Timestamp, hold: Duration) -> bool {
        if step == Step::Done {
            self.known = self.known.max(Known::Handed);
        }
        if !self.is_at(attempt) {
            self.follow_known();
            return false;
        }
        if self.known >= Known::Handed {
            self.done();
            return true;
        }
        match step {
            Step::Done => {}
            Step::Bounce => self.end(Reason::Refused),
            Step::Elsewhere => self.wait(Timestamp::from_millis(0), now, hold),
            Step::Later(due) => self.wait(due, now, hold),
            Step::Hold(_) | Step::Assume(_) if self.open.seen > 1 => self.end(Reason::Assumed),
            Step::Hold(until) | Step::Assume(until) => self.hold(attempt, until),
        }
        true
    }

    /// Judges an `Out` whose owner is gone: it was begun, so its outcome is open (rule 12).
    pub fn crashed(&mut self, until: Timestamp) -> bool {
        let QueueState::Out { attempt, .. } = self.state else { return false };
        self.open.count += 1;
        self.open.latest = Some(attempt);
        self.hold(attempt, until);
        true
    }

    /// The relay is up again at `now` after it was down so long (rule 12): no webhook could arrive meanwhile. A hold
    /// that was under way goes on where it stood; and none ends before those that came in vain had as long once more to
    /// be repeated. Nothing is put off by more than a whole `hold` from now on. `false`: it is no longer held than
    /// before.
    pub fn outage(&mut self, now: Timestamp, down: Duration, hold: Duration) -> bool {
        let (QueueState::Unsure { until, .. }
        | QueueState::Paused { from: PausedFrom::Unsure { until, .. } }) = &mut self.state
        else {
            return false;
        };
        let missed = down.min(hold);
        let longer = until.plus(missed).min(now.plus(hold)).max(now.plus(missed));
        let changed = longer > *until;
        *until = longer.max(*until);
        changed
    }

    /// No ESP can take it now: it is looked at again at `until`, in the state that it was chosen from. What is bound
    /// stays bound (rule 9). `false`: it has moved since.
    pub fn put_off(&mut self, from: QueueState, until: Timestamp) -> bool {
        if self.state != from {
            return false;
        }
        match &mut self.state {
            QueueState::Waiting { due: at } | QueueState::Unsure { until: at, .. } => *at = until,
            QueueState::Out { .. } | QueueState::Paused { .. } | QueueState::Done => return false,
        }
        true
    }

    /// Its hold is over and the ESP that it is bound to cannot take it, for whatever reason (rule 10): it is looked at
    /// again every `look_every`, and after another `hold` goes as `then` says. What only a crash left open is not taken
    /// as sent (rule 12): it may never have left.
    pub fn unable(
        &mut self,
        now: Timestamp,
        hold: Duration,
        look_every: Duration,
        then: UnsureThen,
    ) -> Unable {
        let QueueState::Unsure { attempt, until } = self.state else { return Unable::Moved };
        if self.follow_known() {
            return Unable::Known;
        }
        if until > now {
            return Unable::Moved;
        }
        let over = self.unable_since.get_or_insert(now).plus(hold);
        if now < over {
            let until = now.plus(look_every).min(over);
            self.state = QueueState::Unsure { attempt, until };
            return Unable::Waits(until);
        }
        if then == UnsureThen::AssumeSent && self.open.seen > 0 {
            self.end(Reason::Assumed);
            return Unable::Assumed;
        }
        self.unbound = true;
        self.unable_since = None;
        self.state = QueueState::Waiting { due: now };
        Unable::RetriesAny
    }

    /// An event told more of one of its attempts (rules 2, 15): `known` is [`Known::overall`] of those whose events and
    /// answers are still kept. It only rises, but that one attempt's delivery takes another's bounce back. The queue is
    /// moved by [`Delivery::follow_known`].
    pub fn learn(&mut self, known: Known) {
        self.known = match (self.known, known) {
            (Known::Bounced, Known::Delivered) => known,
            (before, _) => before.max(known),
        };
        if known >= Known::Handed && self.state == QueueState::Done {
            self.reason = None;
        }
    }

    /// What an ESP has already is Done, where it is not out (rule 2).
    pub fn follow_known(&mut self) -> bool {
        let moves =
            self.known >= Known::Handed && !matches!(self.state, QueueState::Out { .. } | QueueState::Done);
        if moves {
            self.done();
        }
        moves
    }

    /// `max_age` passed (rule 13): with an open attempt it is taken as sent, else it has expired.
    pub fn expire(&mut self) -> Option<Reason> {
        match self.state {
            QueueState::Out { .. } | QueueState::Done => return None,
            QueueState::Waiting { .. } | QueueState::Unsure { .. } | QueueState::Paused { .. } => {}
        }
        if self.follow_known() {
            return None;
        }
        let reason = if self.open.count > 0 { Reason::Assumed } else { Reason::Expired };
        self.end(reason);
        Some(reason)
    }

    /// `queue pause` (rule 17).
    pub fn pause(&mut self) -> bool {
        match self.state {
            QueueState::Waiting { .. } => self.state = QueueState::Paused { from: PausedFrom::Waiting },
            QueueState::Unsure { attempt, until } => {
                self.state = QueueState::Paused { from: PausedFrom::Unsure { attempt, until } };
            }
            QueueState::Out { .. } if self.mark == Mark::None => self.mark = Mark::Pause,
            QueueState::Out { .. } | QueueState::Paused { .. } | QueueState::Done => return false,
        }
        true
    }

    /// `queue release`: a paused one returns to what it was; the hold of an unsure one ends, still bound. `due`: now, or
    /// the moment before which its app does not want it sent.
    pub fn release(&mut self, due: Timestamp) -> bool {
        match self.state {
            QueueState::Paused { from: PausedFrom::Waiting } => self.state = QueueState::Waiting { due },
            QueueState::Paused { from: PausedFrom::Unsure { attempt, until } } => {
                self.state = QueueState::Unsure { attempt, until };
            }
            QueueState::Unsure { attempt, .. } => self.state = QueueState::Unsure { attempt, until: due },
            QueueState::Out { .. } if self.mark == Mark::Pause => self.mark = Mark::None,
            QueueState::Out { .. } | QueueState::Waiting { .. } | QueueState::Done => return false,
        }
        true
    }

    /// `queue flush`: what waits is due now. An unsure one is not touched.
    pub fn flush(&mut self, now: Timestamp) -> bool {
        match self.state {
            QueueState::Waiting { due } if due > now => {
                self.state = QueueState::Waiting { due: now };
                true
            }
            QueueState::Waiting { .. }
            | QueueState::Out { .. }
            | QueueState::Unsure { .. }
            | QueueState::Paused { .. }
            | QueueState::Done => false,
        }
    }

    /// `queue rm`.
    pub fn remove(&mut self) -> bool {
        match self.state {
            QueueState::Done => return false,
            QueueState::Out { .. } => self.mark = Mark::Remove,
            QueueState::Waiting { .. } | QueueState::Unsure { .. } | QueueState::Paused { .. } => {
                self.end(Reason::Removed);
            }
        }
        true
    }

    /// `queue requeue` (rule 18): who was not served starts a new round, due as [`Delivery::release`] has it, and what is
    /// known counts from there. Not so where it is not done, or an ESP has it and did not say that it bounced. `open` is counted over all
    /// rounds: the new one is not bound by it, but whoever has it may have it twice, however it came to be done.
    pub fn requeue(&mut self, due: Timestamp) -> Requeue {
        let served = match self.known {
            Known::Nothing | Known::Bounced => false,
            Known::Handed | Known::Deferred | Known::Delivered | Known::Complained => true,
        };
        if self.state != QueueState::Done || served {
            return Requeue::Not;
        }
        let twice = self.open.count > 0 || self.reason == Some(Reason::Assumed);
        *self = Delivery::waiting(due);
        Requeue::Again { twice }
    }

    fn is_at(&self, attempt: AttemptId) -> bool {
        match self.state {
            QueueState::Out { attempt: a, .. }
            | QueueState::Unsure { attempt: a, .. }
            | QueueState::Paused { from: PausedFrom::Unsure { attempt: a, .. } } => a == attempt,
            QueueState::Waiting { .. } | QueueState::Paused { .. } | QueueState::Done => false,
        }
    }

    /// Done without an ESP, unless it is known that one has it (rule 2).
    fn end(&mut self, reason: Reason) {
        self.state = QueueState::Done;
        self.reason = (self.known < Known::Handed).then_some(reason);
        self.mark = Mark::None;
    }

    /// Done, and known to be so.
    fn done(&mut self) {
        self.state = QueueState::Done;
        self.reason = None;
        self.mark = Mark::None;
    }

    /// Waits until `due`; a bound one is held until then, for its ESP did not take it (rule 9), and no longer than until
    /// another hold is over: then [`Delivery::unable`] has to judge it (rule 10).
    fn wait(&mut self, due: Timestamp, now: Timestamp, hold: Duration) {
        let due = match self.is_bound() {
            true => due.min(self.unable_since.get_or_insert(now).plus(hold)),
            false => due,
        };
        self.leave(QueueState::Waiting { due });
    }

    /// Held for the answer to `attempt`, and bound to its ESP.
    fn hold(&mut self, attempt: AttemptId, until: Timestamp) {
        self.unbound = false;
        self.unable_since = None;
        self.leave(QueueState::Unsure { attempt, until });
    }

    /// Leaves `Out` or a hold for `next`, carrying out what the operator asked meanwhile; what is paused stays paused
    /// (rule 17), what an ESP has is Done (rule 2). Whatever waits while it is bound is held instead.
    fn leave(&mut self, next: QueueState) {
        if self.known >= Known::Handed {
            return self.done();
        }
        let next = match (next, self.open.latest) {
            (QueueState::Waiting { due }, Some(attempt)) if self.is_bound() => {
                QueueState::Unsure { attempt, until: due }
            }
            (next, _) => next,
        };
        let paused = |from| QueueState::Paused { from };
        let mark = match self.state {
            QueueState::Paused { .. } => Mark::Pause,
            _ => std::mem::take(&mut self.mark),
        };
        match (mark, next) {
            (Mark::None, next) => self.state = next,
            (Mark::Remove, _) => self.end(Reason::Removed),
            (Mark::Pause, QueueState::Unsure { attempt, until }) => {
                self.state = paused(PausedFrom::Unsure { attempt, until });
            }
            (Mark::Pause, _) => self.state = paused(PausedFrom::Waiting),
        }
    }
}

#[cfg(test)]
mod tests;
