//! Outcome → what next: the whole retry policy is one match without a wildcard.
//!
//! | outcome | next |
//! |---|---|
//! | Accepted | Done |
//! | Unfit | Elsewhere; none left: Later |
//! | Refused Recipient, lasting | Bounce; where the systemic guard is up: Later, in a minute, and where the gate is shut too: Elsewhere, else that Later |
//! | Refused Recipient, passing | Elsewhere once a dispatch, else Later |
//! | Refused Message, lasting | Bounce; passing: Later |
//! | Refused Sender, Account, Path | Elsewhere, else Later |
//! | Refused Throttled, for the transaction's number of recipients | Later, at once: in the next transaction |
//! | Refused Throttled | transactional: Elsewhere, else Later; broadcast: Later where the wait is under a minute, else Elsewhere |
//! | Unsure | Hold; a second one seen: Assume |
//!
//! While an earlier attempt is open the delivery is bound to its ESP: Elsewhere becomes Later, and the delivery's own
//! state function makes a hold of that (rule 9).

use std::time::Duration;

use super::choose::overflows;
use crate::clock::Timestamp;
use crate::mail::outcome::Throttle;
use crate::mail::{Fault, Outcome, Step, StreamKind};

/// The least wait after a throttle: an ESP that names the present, or the past, is not asked again at once.
const THROTTLED_WAIT_MIN: Duration = Duration::from_secs(1);

/// How long a refused recipient waits while the systemic guard is up.
const GUARD_WAIT: Duration = Duration::from_secs(60);

/// The facts that the next step depends on besides the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// The kind of stream.
    pub kind: StreamKind,
    /// The present.
    pub now: Timestamp,
    /// Another ESP is left in this round: not tried, not shut, and not kept from it.
    pub another_left: bool,
    /// The ESP refuses one recipient after the other: see `guard`.
    pub systemic: bool,
    /// Its gate is not open: shut, or this was its probe.
    pub shut: bool,
    /// A passing refusal of the recipient has gone elsewhere in this dispatch already.
    pub moved_for_recipient: bool,
    /// The next wait of the stream's retry schedule, with jitter.
    pub retry_in: Duration,
    /// The longest wait of that schedule: an ESP that asks for more puts nothing off for longer.
    pub longest_wait: Duration,
    /// How long an open outcome is held from now on: the hold runs from hand-over (rule 10).
    pub hold: Duration,
    /// An earlier attempt is open: the delivery is bound to this ESP.
    pub bound: bool,
    /// Earlier attempts whose answer was seen to be lost, when the call began; those that a crash left do not count
    /// (rule 12).
    pub seen_unsure: u32,
    /// When the delivery is given up.
    pub expires_at: Timestamp,
}

/// What follows this outcome.
pub fn next_step(outcome: &Outcome, at: &Situation) -> Step {
    match outcome {
        Outcome::Accepted { .. } => Step::Done,
        Outcome::Unfit { .. } => at.elsewhere_or_later(None),
        Outcome::Unsure { .. } if at.seen_unsure > 0 => Step::Assume(at.now.plus(at.hold)),
        Outcome::Unsure { .. } => Step::Hold(at.now.plus(at.hold)),
        Outcome::Refused { fault, lasting, wait, said: _ } => match (fault, lasting) {
            (Fault::Recipient, true) if at.systemic && at.shut && at.may_leave() => Step::Elsewhere,
            (Fault::Recipient, true) if at.systemic => Step::Later(at.not_past_end(GUARD_WAIT)),
            (Fault::Recipient | Fault::Message, true) => Step::Bounce,
            (Fault::Recipient, false) if at.moved_for_recipient => at.later(*wait),
            (Fault::Recipient, false) => at.elsewhere_or_later(*wait),
            (Fault::Message, false) => at.later(*wait),
            (Fault::Sender(_) | Fault::Account | Fault::Path, true | false) => at.elsewhere_or_later(*wait),
            // Each call settles those whom it named, so that it ends.
            (Fault::Throttled(Throttle::Transaction), true | false) => Step::Later(at.now),
            (Fault::Throttled(Throttle::Rate), true | false) => at.throttled(wait.unwrap_or_default()),
            (Fault::Throttled(Throttle::Window(until)), true | false) => {
                at.throttled(wait.unwrap_or_default().max(until.since(at.now)))
            }
        },
    }
}

/// Whether what waits after this outcome would have gone elsewhere, had another ESP been open: then it is not to wait for
/// its time once one is.
pub fn would_leave(outcome: &Outcome, at: &Situation) -> bool {
    matches!(next_step(outcome, at), Step::Later(_))
        && next_step(outcome, &Situation { another_left: true, ..*at }) == Step::Elsewhere
}

impl Situation {
    fn elsewhere_or_later(&self, wait: Option<Duration>) -> Step {
        if self.may_leave() { Step::Elsewhere } else { self.later(wait) }
    }

    fn may_leave(&self) -> bool {
        self.another_left && !self.bound
    }

    fn later(&self, wait: Option<Duration>) -> Step {
        Step::Later(self.not_past_end(wait.map_or(self.retry_in, |wait| self.heeded(wait))))
    }

    /// What the ESP asks for, within the schedule, and so that one more try comes before the end.
    fn heeded(&self, wait: Duration) -> Duration {
        let left = self.expires_at.since(self.now).saturating_sub(self.retry_in);
        wait.min(self.longest_wait).min(left).max(self.retry_in)
    }

    /// Not past the end of the delivery, so that it is looked at when it expires.
    fn not_past_end(&self, wait: Duration) -> Timestamp {
        self.now.plus(wait).min(self.expires_at)
    }

    fn throttled(&self, told: Duration) -> Step {
        let wait = told.max(self.retry_in.min(THROTTLED_WAIT_MIN));
        if self.may_leave() && overflows(self.kind, wait) {
            Step::Elsewhere
        } else {
            Step::Later(self.not_past_end(wait))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Named;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn situation() -> Situation {
        Situation {
            kind: StreamKind::Transactional,
            now: NOW,
            another_left: true,
            systemic: false,
            shut: false,
            moved_for_recipient: false,
            retry_in: MINUTE,
            longest_wait: MINUTE * 240,
            hold: MINUTE * 2,
            bound: false,
            seen_unsure: 0,
            expires_at: NOW.plus(MINUTE * 1440),
        }
    }

    fn refused(fault: Fault, lasting: bool, wait: Option<Duration>) -> Outcome {
        Outcome::Refused { fault, lasting, wait, said: "no".into() }
    }

    #[test]
    fn the_table_holds() {
        let alone = Situation { another_left: false, ..situation() };
        let later = Step::Later(NOW.plus(MINUTE));
        let unfit = Outcome::Unfit { why: "size".into() };
        let rate = Fault::Throttled(Throttle::Rate);
        let spent = Fault::Throttled(Throttle::Window(NOW.plus(MINUTE * 10)));
        let full = Fault::Throttled(Throttle::Transaction);
        let past = Fault::Throttled(Throttle::Window(NOW));
        let news = Situation { kind: StreamKind::Broadcast, ..situation() };
        for (outcome, at, next) in [
            (Outcome::Accepted { remote_id: None, said: String::new() }, situation(), Step::Done),
            (unfit.clone(), situation(), Step::Elsewhere),
            (unfit, alone, later),
            (refused(Fault::Recipient, true, None), situation(), Step::Bounce),
            (refused(Fault::Recipient, false, None), situation(), Step::Elsewhere),
            (
                refused(Fault::Recipient, false, None),
                Situation { moved_for_recipient: true, ..situation() },
                later,
            ),
            (
                refused(Fault::Recipient, true, None),
                Situation { systemic: true, ..situation() },
                Step::Later(NOW.plus(GUARD_WAIT)),
            ),
            (
                refused(Fault::Recipient, true, None),
                Situation { systemic: true, shut: true, ..situation() },
                Step::Elsewhere,
            ),
            (
                refused(Fault::Recipient, true, None),
                Situation { systemic: true, shut: true, ..alone },
                Step::Later(NOW.plus(GUARD_WAIT)),
            ),
            (
                refused(Fault::Recipient, true, None),
                Situation { systemic: true, shut: true, bound: true, ..situation() },
                Step::Later(NOW.plus(GUARD_WAIT)),
            ),
            (refused(Fault::Recipient, true, None), Situation { shut: true, ..situation() }, Step::Bounce),
            (refused(Fault::Message, true, None), situation(), Step::Bounce),
            (refused(Fault::Message, false, None), situation(), later),
            (refused(Fault::Sender(Named::Envelope), true, None), situation(), Step::Elsewhere),
            (refused(Fault::Account, true, None), alone, later),
            (refused(Fault::Path, false, Some(MINUTE * 5)), alone, Step::Later(NOW.plus(MINUTE * 5))),
            (refused(rate, false, None), situation(), Step::Elsewhere),
            (refused(rate, false, None), news, Step::Later(NOW.plus(Duration::from_secs(1)))),
            (refused(rate, false, Some(Duration::ZERO)), alone, Step::Later(NOW.plus(THROTTLED_WAIT_MIN))),
            (refused(past, false, Some(Duration::ZERO)), alone, Step::Later(NOW.plus(THROTTLED_WAIT_MIN))),
            (refused(full, false, None), situation(), Step::Later(NOW)),
            (refused(spent, false, None), news, Step::Elsewhere),
            (refused(spent, false, None), alone, Step::Later(NOW.plus(MINUTE * 10))),
            (Outcome::Unsure { said: String::new() }, situation(), Step::Hold(NOW.plus(MINUTE * 2))),
            (
                Outcome::Unsure { said: String::new() },
                Situation { seen_unsure: 1, ..situation() },
                Step::Assume(NOW.plus(MINUTE * 2)),
            ),
        ] {
            assert_eq!(next_step(&outcome, &at), next, "{outcome:?} at {at:?}");
        }
    }

    #[test]
    fn a_bound_delivery_never_leaves_its_esp() {
        let bound = Situation { bound: true, ..situation() };
        for fault in [
            Fault::Recipient,
            Fault::Sender(Named::From),
            Fault::Account,
            Fault::Path,
            Fault::Throttled(Throttle::Rate),
        ] {
            assert!(matches!(next_step(&refused(fault, false, None), &bound), Step::Later(_)), "{fault:?}");
        }
    }

    #[test]
    fn what_waits_for_want_of_another_is_told_from_what_waits_for_its_time() {
        let alone = Situation { another_left: false, ..situation() };
        for (outcome, at, leaves) in [
            (refused(Fault::Sender(Named::Envelope), true, None), alone, true),
            (refused(Fault::Path, false, None), alone, true),
            (Outcome::Unfit { why: "size".into() }, alone, true),
            (refused(Fault::Recipient, false, None), alone, true),
            (refused(Fault::Recipient, false, None), Situation { moved_for_recipient: true, ..alone }, false),
            (refused(Fault::Path, false, None), situation(), false),
            (refused(Fault::Path, false, None), Situation { bound: true, ..alone }, false),
            (refused(Fault::Message, false, None), alone, false),
            (refused(Fault::Recipient, true, None), alone, false),
            (Outcome::Unsure { said: String::new() }, alone, false),
        ] {
            assert_eq!(would_leave(&outcome, &at), leaves, "{outcome:?} at {at:?}");
        }
    }

    #[test]
    fn a_wait_that_is_asked_for_is_heeded_within_the_schedule_and_before_the_end() {
        let alone = Situation { another_left: false, ..situation() };
        let ends_in = |minutes| Situation { expires_at: NOW.plus(MINUTE * minutes), ..alone };
        for (asked, at, minutes) in [
            (0, alone, 1),
            (60, alone, 60),
            (1_440, alone, 240),
            (60, ends_in(31), 30),
            (1_440, ends_in(31), 30),
            (60, ends_in(1), 1),
            (60, Situation { longest_wait: MINUTE * 5, ..alone }, 5),
        ] {
            for fault in [Fault::Path, Fault::Account, Fault::Message, Fault::Recipient] {
                let step = next_step(&refused(fault, false, Some(MINUTE * asked)), &at);
                assert_eq!(step, Step::Later(NOW.plus(MINUTE * minutes)), "{asked} {at:?}");
            }
        }
        let throttled = refused(Fault::Throttled(Throttle::Rate), false, Some(MINUTE * 1_000));
        assert_eq!(
            next_step(&throttled, &alone),
            Step::Later(NOW.plus(MINUTE * 1_000)),
            "so is the ESP's gate"
        );
    }

    #[test]
    fn no_wait_goes_past_the_end() {
        let soon =
            Situation { another_left: false, expires_at: NOW.plus(Duration::from_secs(5)), ..situation() };
        assert_eq!(
            next_step(&refused(Fault::Path, false, None), &soon),
            Step::Later(NOW.plus(Duration::from_secs(5)))
        );
    }
}
