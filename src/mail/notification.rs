//! Events out to an app: what can be told, when it is told again, and when a receiver is asked at all. Pure.
//!
//! A receiver that is *away* (no answer, or one that says so) is asked by one question at a time until it takes one; an
//! event that it answers and does *refuse* waits by a schedule of its own, and the others go on.

use std::time::Duration;

use crate::clock::Timestamp;

/// What can be told, in the words that events have. `handed` is told at the answer of the ESP and is no event of its own.
pub const EVENTS: [&str; 20] = [
    "handed",
    "sent",
    "deferred",
    "delivered",
    "bounced",
    "dropped",
    "rejected",
    "complained",
    "not_spam",
    "opened",
    "clicked",
    "unsubscribed",
    "resubscribed",
    "auto_replied",
    "suppressed",
    "expired",
    "removed",
    "assumed",
    "may_arrive_twice",
    "alert",
];
/// What an app has to act on: told where nothing is written.
pub const USUAL: [&str; 7] =
    ["bounced", "dropped", "rejected", "expired", "complained", "unsubscribed", "alert"];
/// An ESP took it over.
pub const HANDED: &str = "handed";

/// So long an event is told again and again.
pub const TRIED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// An event that was refused waits so long; the last repeats.
const AFTER_REFUSAL_SECS: [u64; 9] = [5, 30, 120, 300, 900, 1_800, 3_600, 7_200, 10_800];
/// So many events refused one after the other, none taken between: it is asked as one that is away.
const REFUSALS_IN_A_ROW: u32 = 5;
/// The first wait for one that is away; it doubles…
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// …up to this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What it asks for is heeded up to this.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// A wait is up to so much shorter or longer, by chance.
const JITTER: f64 = 0.2;

/// What became of one attempt to tell an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// 2xx: the receiver has it.
    Taken,
    /// 410: it wants nothing more.
    Gone,
    /// It answered, and did not take this one.
    Refused,
    /// Nobody is there to take any now; with the wait that it asked for.
    Away(Option<Duration>),
}

impl Heard {
    /// What an answer's status says; `wait`: its `Retry-After`.
    pub fn of_status(status: u16, wait: Option<Duration>) -> Self {
        match status {
            200..=299 => Heard::Taken,
            410 => Heard::Gone,
            429 | 502 | 503 | 504 => Heard::Away(wait),
            _ => Heard::Refused,
        }
    }
}

/// What follows for the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It was taken.
    Taken,
    /// It is told no more, unless somebody says so.
    Failed,
    /// It is told again.
    Again {
        /// Not before.
        due: Timestamp,
        /// How often it was refused.
        refusals: u32,
    },
}

/// | heard | before its end | after |
/// |---|---|---|
/// | taken | taken | taken |
/// | gone | failed | failed |
/// | refused | again by the schedule, the last time at its end | failed |
/// | away | again when the receiver is asked next, the last time at its end | failed |
///
/// `asked_next`: see [`Standing::asked_next`]. `chance`: from 0 to 1.
pub fn next(
    heard: Heard,
    refusals: u32,
    ends_at: Timestamp,
    now: Timestamp,
    asked_next: Option<Timestamp>,
    chance: f64,
) -> Next {
    let (due, refusals) = match heard {
        Heard::Taken => return Next::Taken,
        Heard::Gone => return Next::Failed,
        Heard::Refused => {
            let last = AFTER_REFUSAL_SECS.len() - 1;
            let n = usize::try_from(refusals).unwrap_or(last).min(last);
            let wait = Duration::from_secs(AFTER_REFUSAL_SECS[n]);
            (now.plus(about(wait, chance)), refusals.saturating_add(1))
        }
        Heard::Away(_) => (asked_next.unwrap_or_else(|| now.plus(FIRST_WAIT)), refusals),
    };
    match now >= ends_at {
        true => Next::Failed,
        false => Next::Again { due: due.min(ends_at), refusals },
    }
}

fn about(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

/// How a receiver stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Events refused in a row.
    in_a_row: u32,
    /// Since when it is away, and when it is asked next.
    away: Option<Away>,
    /// Events that it is told at a time; it doubles with each that is taken, so that a return is no storm.
    window: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Away {
    since: Timestamp,
    asked_next: Timestamp,
    wait: Duration,
}

impl Default for Standing {
    fn default() -> Self {
        Standing { in_a_row: 0, away: None, window: 1 }
    }
}

impl Standing {
    /// Events that it may be told now beside those that it is being told, at most `most` at a time.
    pub fn room(&self, now: Timestamp, flying: usize, most: usize) -> usize {
        match self.away {
            Some(away) if now < away.asked_next || flying > 0 => 0,
            Some(_) => 1,
            None => self.window.min(most).saturating_sub(flying),
        }
    }

    /// Takes in what it answered to an event that it had refused so often. `chance`: from 0 to 1.
    pub fn hear(&mut self, heard: Heard, refusals: u32, now: Timestamp, chance: f64) {
        match heard {
            Heard::Taken => {
                let window = if self.away.is_some() { 1 } else { self.window.saturating_mul(2) };
                *self = Standing { in_a_row: 0, away: None, window };
            }
            Heard::Gone => {}
            Heard::Refused => {
                // The same one over and over says nothing of the others.
                self.in_a_row = self.in_a_row.saturating_add(u32::from(refusals == 0));
                // One that was away and answers so is not back yet.
                if self.away.is_some() || self.in_a_row >= REFUSALS_IN_A_ROW {
                    self.wait(now, None, chance);
                }
            }
            Heard::Away(asked) => self.wait(now, asked, chance),
        }
    }

    /// What was told beside one that found it away says nothing more.
    fn wait(&mut self, now: Timestamp, asked: Option<Duration>, chance: f64) {
        let wait = match self.away {
            Some(away) if now < away.asked_next => away.wait,
            Some(away) => (away.wait * 2).min(WAIT_MAX),
            None => FIRST_WAIT,
        };
        let own = match self.away {
            Some(away) if now < away.asked_next => away.asked_next,
            _ => now.plus(about(wait, chance)),
        };
        let asked = asked.map_or(own, |asked| now.plus(asked.min(ASKED_WAIT_MAX)));
        let since = self.away.map_or(now, |away| away.since);
        self.away = Some(Away { since, asked_next: own.max(asked), wait });
    }

    /// When it is asked next, where it is away.
    pub fn asked_next(&self) -> Option<Timestamp> {
        self.away.map(|away| away.asked_next)
    }

    /// Since when it is away, where it is.
    pub fn away_since(&self) -> Option<Timestamp> {
        self.away.map(|away| away.since)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn heard() -> impl Strategy<Value = Heard> {
        prop_oneof![
            Just(Heard::Taken),
            Just(Heard::Refused),
            Just(Heard::Away(None)),
            (0u64..100_000).prop_map(|secs| Heard::Away(Some(Duration::from_secs(secs)))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_event_that_nobody_takes_ends_after_a_day_and_not_before(
            answers in prop::collection::vec((heard(), 0.0..1.0f64), 4_000),
        ) {
            let (mut now, mut standing, mut refusals) = (START, Standing::default(), 0);
            let ends_at = START.plus(TRIED_FOR);
            for (heard, chance) in answers {
                standing.hear(heard, refusals, now, chance);
                match next(heard, refusals, ends_at, now, standing.asked_next(), chance) {
                    Next::Taken => {
                        prop_assert_eq!(heard, Heard::Taken);
                        prop_assert_eq!(standing.away_since(), None);
                        return Ok(());
                    }
                    Next::Failed => {
                        prop_assert!(now >= ends_at, "given up at {now}");
                        return Ok(());
                    }
                    Next::Again { due, refusals: r } => {
                        prop_assert!(due > now && due <= ends_at && due.since(now) <= Duration::from_secs(12_960));
                        prop_assert!(r >= refusals);
                        (now, refusals) = (due.max(standing.asked_next().unwrap_or(due)), r);
                    }
                }
            }
            prop_assert!(false, "it goes on for ever");
        }

        #[test]
        fn one_that_is_away_gets_one_question_at_a_time_and_not_often(
            answers in prop::collection::vec((heard(), 0.0..1.0f64, 1usize..9), 1..200),
        ) {
            let (mut now, mut standing) = (START, Standing::default());
            for (heard, chance, most) in answers {
                if standing.away_since().is_some() {
                    prop_assert!(standing.room(now, 0, most) <= 1);
                    prop_assert_eq!(standing.room(now, 1, most), 0);
                }
                prop_assert!(standing.room(now, 0, most) <= most);
                standing.hear(heard, 0, now, chance);
                if let Some(at) = standing.asked_next() {
                    prop_assert!(at > now && at.since(now) <= Duration::from_secs(3_600));
                    prop_assert_eq!(standing.room(now, 0, most), 0);
                    now = at;
                }
            }
        }
    }

    #[test]
    fn a_burst_that_meets_nobody_is_one_step_back() {
        let mut standing = Standing::default();
        for _ in 0..4 {
            standing.hear(Heard::Taken, 0, START, 0.5);
        }
        assert_eq!(standing.room(START, 0, 8), 8);
        for _ in 0..8 {
            standing.hear(Heard::Away(None), 0, START, 0.5);
        }
        assert_eq!(standing.asked_next(), Some(START.plus(FIRST_WAIT)));
        let asked = START.plus(FIRST_WAIT);
        standing.hear(Heard::Away(Some(Duration::from_secs(30))), 0, asked, 0.5);
        assert_eq!(standing.asked_next(), Some(asked.plus(Duration::from_secs(30))), "Retry-After");
        standing.hear(Heard::Taken, 0, asked, 0.5);
        assert_eq!(standing.room(asked, 0, 8), 1, "no storm on its return");
        standing.hear(Heard::Taken, 0, asked, 0.5);
        assert_eq!(standing.room(asked, 0, 8), 2);
    }

    #[test]
    fn a_few_refusals_hold_up_nobody_else_and_many_do() {
        let mut standing = Standing::default();
        for again in 1..100 {
            standing.hear(Heard::Refused, again, START, 0.5);
        }
        for n in 1..=REFUSALS_IN_A_ROW {
            assert_eq!(standing.away_since(), None, "{n}");
            standing.hear(Heard::Refused, 0, START, 0.5);
        }
        assert_eq!(standing.away_since(), Some(START));
        standing.hear(Heard::Taken, 0, START, 0.5);
        assert_eq!(standing.away_since(), None);
    }

    #[test]
    fn statuses_say_who_is_meant() {
        let wait = Some(Duration::from_secs(7));
        for (status, heard) in [
            (200, Heard::Taken),
            (204, Heard::Taken),
            (301, Heard::Refused),
            (400, Heard::Refused),
            (404, Heard::Refused),
            (410, Heard::Gone),
            (429, Heard::Away(wait)),
            (500, Heard::Refused),
            (503, Heard::Away(wait)),
        ] {
            assert_eq!(Heard::of_status(status, wait), heard, "{status}");
        }
        assert!(USUAL.iter().all(|event| EVENTS.contains(event)));
    }
}
