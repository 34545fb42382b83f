//! The gate of one ESP: whether it gets mail, judged by what its calls met. Pure: time and facts are handed in.
//!
//! ```text
//! Open ──1 or 3 faults, a bad window, a hang─────▶ Shut ──its free check passes──▶ Probing ──accepted──▶ Ramp ──▶ Open
//!   ▲                                                ▲  └─fails: checked again later, ever later           │
//!   │                                                └────────────a fault, or the probe hangs──────────────┘
//!   └── what hung answers after all
//! ```
//! A path may fail one call and carry the next; an account that is refused once is refused until somebody mends it, so
//! that its first fault is enough. One call that hangs while others are answered shuts it by the window alone: three of
//! them may be one recipient's.
//! A probe whose recipient is refused is followed by the next at once, so many times; one that is lost by a longer wait.
//! Only faults of the account or of the path count; an answer about a recipient, a message or a sender is a sign of
//! life, and so is being asked to go slower.

use std::time::Duration;

use crate::clock::Timestamp;

/// So many faults of the path in a row shut the gate.
const FAULTS_IN_A_ROW: u32 = 3;
/// Or this share of faults among so many calls, decayed…
const BAD_SHARE: f64 = 0.5;
const BAD_CALLS_MIN: f64 = 10.0;
/// …by half in this time.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// First and longest wait before the free check of a path: it costs the ESP a connection and no mail.
const PATH_CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// And of an account: repeated failed logins lock accounts.
const ACCOUNT_CHECK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// After a probe of which nobody knows what became: each one more is mail that is held, and may arrive twice.
const LOST_CHECK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// So many probes one after the other may be refused for their recipients' sake before it waits again: the next one may be
/// for somebody whom it takes, and good mail does not wait behind each bad address in turn.
const PROBES_REFUSED_MAX: u32 = 20;
/// After a recovery the share of what may be out at a time rises from a tenth to all in this time.
const RAMP: Duration = Duration::from_secs(30);
/// A gate that stayed open so long forgets how often it was shut.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What one call says of its ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered, whatever the answer was.
    Alive,
    /// Its path failed.
    Fault,
    /// Nobody knows what became of the message.
    Lost,
    /// It refuses one recipient after the other, see [`super::Guard`].
    Refusing,
    /// Its account does not work: a login refused, a suspension.
    Account,
    /// What it was given does not move.
    Hang,
    /// One call did not move while others were answered, and was given up.
    Stray,
}

/// What may be begun at an ESP now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Admits {
    /// As much as its connections carry.
    All,
    /// This share of it, above nought and below one.
    Share(f64),
    /// One message, see [`Gate::take_probe`].
    One,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    Shut {
        why: Sign,
        check_at: Timestamp,
        checking: bool,
    },
    /// `out`: the one message is on its way.
    Probing {
        out: bool,
    },
    Ramp {
        since: Timestamp,
    },
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    state: State,
    in_a_row: u32,
    /// Decayed counts at `counted_at`.
    faults: f64,
    calls: f64,
    counted_at: Timestamp,
    /// How often it was shut without a long good time between.
    shuts: u32,
    opened_at: Timestamp,
    /// Probes since it was shut that were refused for their recipients' sake.
    probes_refused: u32,
    said: String,
}

impl Gate {
    /// An open one.
    pub fn new(now: Timestamp) -> Self {
        Gate {
            state: State::Open,
            in_a_row: 0,
            faults: 0.0,
            calls: 0.0,
            counted_at: now,
            shuts: 0,
            opened_at: now,
            probes_refused: 0,
            said: String::new(),
        }
    }

    /// What may be begun.
    pub fn admits(&self, now: Timestamp) -> Admits {
        match self.state {
            State::Open => Admits::All,
            State::Shut { .. } => Admits::Nothing,
            State::Probing { out: false } => Admits::One,
            State::Probing { out: true } => Admits::Nothing,
            State::Ramp { since } => {
                let share = 0.1 + 0.9 * now.since(since).as_secs_f64() / RAMP.as_secs_f64();
                if share < 1.0 { Admits::Share(share) } else { Admits::All }
            }
        }
    }

    /// Why it is not open; `None` where it is.
    pub fn why_shut(&self) -> Option<&str> {
        match self.state {
            State::Open | State::Ramp { .. } => None,
            State::Shut { .. } | State::Probing { .. } => Some(&self.said),
        }
    }

    /// Whether what is begun must not start any more; `probe`: it is the one message.
    pub fn turns_away(&self, probe: bool) -> bool {
        match self.state {
            State::Open | State::Ramp { .. } => false,
            State::Probing { .. } => !probe,
            State::Shut { .. } => true,
        }
    }

    /// Why nothing may be begun now; `None` where something may, if it is one message.
    pub fn why_passed_over(&self) -> Option<&str> {
        match self.state {
            State::Open | State::Ramp { .. } | State::Probing { out: false } => None,
            State::Shut { .. } | State::Probing { out: true } => Some(&self.said),
        }
    }

    /// Its state in a word.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Open => "open",
            State::Shut { .. } => "shut",
            State::Probing { .. } => "probing",
            State::Ramp { .. } => "recovering",
        }
    }

    /// Takes what a call met. `true`: the gate changed between shut and open.
    pub fn note(&mut self, sign: Sign, said: &str, now: Timestamp) -> bool {
        self.count(sign, now);
        match (self.state, sign) {
            (State::Open, Sign::Alive) => self.forget(now),
            (State::Ramp { since }, Sign::Alive) if now.since(since) >= RAMP => self.state = State::Open,
            (State::Ramp { .. }, Sign::Alive) => {}
            // What hung has answered: it was slow.
            (State::Probing { .. } | State::Shut { why: Sign::Hang, .. }, Sign::Alive) => {
                self.state = State::Ramp { since: now };
                self.opened_at = now;
                return true;
            }
            // An answer to what was begun before it was shut.
            (State::Shut { .. }, _) => {}
            (State::Probing { .. }, Sign::Refusing) if self.probes_refused + 1 < PROBES_REFUSED_MAX => {
                self.probes_refused += 1;
                self.state = State::Probing { out: false };
            }
            (
                State::Probing { .. },
                Sign::Fault | Sign::Lost | Sign::Refusing | Sign::Account | Sign::Hang | Sign::Stray,
            )
            | (State::Open | State::Ramp { .. }, Sign::Account | Sign::Hang) => {
                return self.shut(sign, said, now);
            }
            (State::Open | State::Ramp { .. }, Sign::Fault | Sign::Lost | Sign::Refusing | Sign::Stray) => {
                if self.is_bad() {
                    // What was under way at the time is no probe's: it is looked for soon.
                    return self.shut(Sign::Fault, said, now);
                }
            }
        }
        false
    }

    /// Takes the one message of a gate that probes; `false` where it is taken.
    pub fn take_probe(&mut self) -> bool {
        let free = self.state == State::Probing { out: false };
        if free {
            self.state = State::Probing { out: true };
        }
        free
    }

    /// The one message was not sent.
    pub fn give_probe_back(&mut self) {
        if self.state == (State::Probing { out: true }) {
            self.state = State::Probing { out: false };
        }
    }

    /// Whether its free check is due; who is told so makes it and tells how it went.
    pub fn takes_check(&mut self, now: Timestamp) -> bool {
        match &mut self.state {
            State::Shut { check_at, checking: checking @ false, .. } if *check_at <= now => {
                *checking = true;
                true
            }
            State::Open | State::Shut { .. } | State::Probing { .. } | State::Ramp { .. } => false,
        }
    }

    /// Its settings have changed: its free check is due at once, also while one by the old ones is under way.
    pub fn check_now(&mut self, now: Timestamp) {
        if let State::Shut { check_at, checking, .. } = &mut self.state {
            (*check_at, *checking) = (now, false);
        }
    }

    /// How the free check went: `Err` says what it met.
    pub fn checked(&mut self, result: Result<(), String>, now: Timestamp) {
        let State::Shut { why, .. } = self.state else { return };
        match result {
            Ok(()) => self.state = State::Probing { out: false },
            Err(said) => {
                self.shut(why, &said, now);
            }
        }
    }

    fn shut(&mut self, why: Sign, said: &str, now: Timestamp) -> bool {
        let was_open = matches!(self.state, State::Open | State::Ramp { .. });
        let (first, longest) = match why {
            Sign::Account => ACCOUNT_CHECK,
            Sign::Lost => LOST_CHECK,
            Sign::Alive | Sign::Fault | Sign::Refusing | Sign::Hang | Sign::Stray => PATH_CHECK,
        };
        let wait = first.saturating_mul(1 << self.shuts.min(10)).min(longest);
        self.shuts += 1;
        self.in_a_row = 0;
        self.probes_refused = 0;
        (self.faults, self.calls) = (0.0, 0.0);
        self.said = said.to_owned();
        self.state = State::Shut { why, check_at: now.plus(wait), checking: false };
        was_open
    }

    fn is_bad(&self) -> bool {
        self.in_a_row >= FAULTS_IN_A_ROW
            || (self.calls >= BAD_CALLS_MIN && self.faults / self.calls >= BAD_SHARE)
    }

    fn count(&mut self, sign: Sign, now: Timestamp) {
        let halves = now.since(self.counted_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5_f64.powf(halves);
        self.counted_at = now;
        self.calls = self.calls * left + 1.0;
        self.faults *= left;
        match sign {
            Sign::Alive => self.in_a_row = 0,
            Sign::Stray => self.faults += 1.0,
            Sign::Fault | Sign::Lost | Sign::Refusing | Sign::Account | Sign::Hang => {
                self.faults += 1.0;
                self.in_a_row += 1;
            }
        }
    }

    fn forget(&mut self, now: Timestamp) {
        if self.shuts > 0 && now.since(self.opened_at) >= FORGET_AFTER {
            self.shuts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(seconds: f64) -> Timestamp {
        T0.plus(Duration::from_secs_f64(seconds))
    }

    fn shut() -> Gate {
        let mut gate = Gate::new(T0);
        assert!(!gate.note(Sign::Fault, "refused", T0) && !gate.note(Sign::Fault, "refused", T0));
        assert!(gate.note(Sign::Fault, "connection refused", T0));
        gate
    }

    #[test]
    fn three_faults_in_a_row_shut_it_and_an_answer_between_does_not() {
        assert_eq!(
            (shut().admits(at(9.0)), shut().why_shut()),
            (Admits::Nothing, Some("connection refused"))
        );
        let mut gate = Gate::new(T0);
        for _ in 0..4 {
            gate.note(Sign::Fault, "a", T0);
            gate.note(Sign::Fault, "a", T0);
            (0..4).for_each(|_| {
                gate.note(Sign::Alive, "", T0);
            });
        }
        assert_eq!(gate.admits(T0), Admits::All);
    }

    #[test]
    fn a_window_half_of_faults_shuts_it_and_old_faults_fade() {
        let alternate = |every: f64| {
            let mut gate = Gate::new(T0);
            (0..20).any(|n| {
                let sign = if n % 2 == 0 { Sign::Alive } else { Sign::Fault };
                gate.note(sign, "now and then", at(every * f64::from(n)))
            })
        };
        assert!(alternate(0.1), "ten of twenty within two seconds");
        assert!(!alternate(20.0), "one in forty seconds");
    }

    #[test]
    fn calls_that_hang_while_others_are_answered_shut_it_where_they_are_half_of_them() {
        let strays = |of: u32| {
            let mut gate = Gate::new(T0);
            (0..40).any(|n| {
                let sign = if n % of >= of - 3 { Sign::Stray } else { Sign::Alive };
                gate.note(sign, "nothing moved", at(0.1 * f64::from(n)))
            })
        };
        assert!(!strays(7), "three in a row of seven");
        assert!(strays(5), "three of five");
    }

    #[test]
    fn a_check_then_one_message_then_ever_more_open_it_again() {
        let mut gate = shut();
        assert!(!gate.takes_check(at(0.5)));
        assert!(gate.takes_check(at(1.0)) && !gate.takes_check(at(1.0)), "one check at a time");
        gate.checked(Err("still refused".into()), at(1.1));
        assert_eq!(gate.why_shut(), Some("still refused"));
        assert!(!gate.takes_check(at(2.5)) && gate.takes_check(at(3.1)), "later than the first");
        gate.checked(Ok(()), at(3.2));
        assert_eq!(gate.admits(at(3.2)), Admits::One);
        assert!(gate.turns_away(false) && !gate.turns_away(true), "only the one message starts");
        assert!(gate.take_probe() && !gate.take_probe());
        assert_eq!(gate.admits(at(3.3)), Admits::Nothing, "it is on its way");
        assert!(gate.note(Sign::Alive, "", at(4.0)));
        assert_eq!(gate.admits(at(4.0)), Admits::Share(0.1));
        let Admits::Share(half) = gate.admits(at(19.0)) else { panic!("{gate:?}") };
        assert!((half - 0.55).abs() < 0.01, "{half}");
        gate.note(Sign::Alive, "", at(34.1));
        assert_eq!(gate.admits(at(34.1)), Admits::All);
    }

    #[test]
    fn a_probe_that_fails_shuts_it_for_longer_and_one_that_was_not_sent_is_free_again() {
        let mut gate = shut();
        assert!(gate.takes_check(at(1.0)));
        gate.checked(Ok(()), at(1.0));
        assert!(gate.take_probe());
        gate.give_probe_back();
        assert!(gate.take_probe());
        assert!(!gate.note(Sign::Fault, "reset", at(2.0)), "it was not open");
        assert!(gate.turns_away(true), "nor does the one message any more");
        assert!(!gate.takes_check(at(3.9)) && gate.takes_check(at(4.0)));
    }

    #[test]
    fn what_hung_and_answers_after_all_opens_it() {
        let mut gate = Gate::new(T0);
        assert!(gate.note(Sign::Hang, "nothing moved for 3 s", T0));
        assert!(gate.note(Sign::Alive, "", at(5.0)));
        assert!(matches!(gate.admits(at(5.0)), Admits::Share(_)));
        let mut gate = shut();
        assert!(!gate.note(Sign::Alive, "", at(0.2)), "one that was begun before says nothing of now");
    }

    #[test]
    fn one_fault_of_the_account_shuts_it_at_once_also_while_it_recovers() {
        let mut gate = Gate::new(T0);
        gate.note(Sign::Alive, "", T0);
        assert!(gate.note(Sign::Account, "535 bad credentials", T0));
        assert_eq!((gate.admits(T0), gate.why_shut()), (Admits::Nothing, Some("535 bad credentials")));
        assert!(!gate.note(Sign::Account, "535", T0), "and once");
        assert!(gate.takes_check(at(5.0)));
        gate.checked(Ok(()), at(5.0));
        assert!(gate.take_probe() && gate.note(Sign::Alive, "", at(6.0)));
        assert!(matches!(gate.admits(at(7.0)), Admits::Share(_)));
        assert!(gate.note(Sign::Account, "403", at(7.0)), "the mail's key is good, and the account is not");
    }

    /// Shut, checked and out with its probe.
    fn probing(now: Timestamp) -> Gate {
        let mut gate = shut();
        assert!(gate.takes_check(now));
        gate.checked(Ok(()), now);
        assert!(gate.take_probe());
        gate
    }

    #[test]
    fn a_probe_whose_recipient_is_refused_is_followed_by_another_and_so_many_are_not() {
        let mut gate = probing(at(5.0));
        for _ in 1..PROBES_REFUSED_MAX {
            assert!(!gate.note(Sign::Refusing, "550 no such user", at(5.0)));
            assert!(!gate.turns_away(true) && gate.take_probe(), "the next at once, and one alone");
            assert!(!gate.take_probe());
        }
        gate.note(Sign::Refusing, "550 no such user", at(5.0));
        assert_eq!((gate.admits(at(5.0)), gate.takes_check(at(5.0))), (Admits::Nothing, false));
        assert!(gate.takes_check(at(10.0)));
        gate.checked(Ok(()), at(10.0));
        assert!(gate.take_probe() && !gate.note(Sign::Refusing, "550", at(10.0)), "as many again");
        assert!(gate.take_probe() && gate.note(Sign::Alive, "", at(10.0)), "one taken opens it");
    }

    #[test]
    fn after_a_probe_that_was_lost_it_waits_longer_each_time() {
        let mut gate = probing(at(5.0));
        let mut now = at(5.0);
        for seconds in [10.0, 20.0, 40.0, 60.0, 60.0] {
            gate.note(Sign::Lost, "closed after the dot", now);
            let after = |seconds: f64| now.plus(Duration::from_secs_f64(seconds));
            let due = after(seconds);
            assert!(!gate.takes_check(after(seconds - 0.1)) && gate.takes_check(due), "{seconds}");
            gate.checked(Ok(()), due);
            assert!(gate.take_probe());
            now = due;
        }
        let mut gate = Gate::new(T0);
        for _ in 0..3 {
            gate.note(Sign::Lost, "closed", T0);
        }
        assert!(gate.takes_check(at(1.0)), "what was out when it fell is asked after soon");
    }

    #[test]
    fn an_account_is_asked_less_often_and_a_long_good_time_forgets() {
        let mut gate = Gate::new(T0);
        gate.note(Sign::Account, "535", T0);
        assert!(!gate.takes_check(at(4.9)) && gate.takes_check(at(5.0)));
        gate.checked(Ok(()), at(5.0));
        assert!(gate.take_probe() && gate.note(Sign::Alive, "", at(6.0)));
        gate.note(Sign::Alive, "", at(40.0));
        gate.note(Sign::Alive, "", at(700.0));
        assert_eq!(gate.shuts, 0);
    }
}
