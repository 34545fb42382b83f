//! How many connections an ESP really allows: no more calls run at a time. It is learnt from the ESP, which says that its
//! house is full, and forgotten step by step, since the house may grow.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;

/// One more is tried after so long.
const RAISED_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Seats {
    state: Mutex<State>,
    /// Rung when there may be a seat for somebody who had none.
    pub free: Notify,
}

#[derive(Debug)]
struct State {
    /// As the configuration says.
    configured: usize,
    /// What was learnt, where that is less, and when it last changed.
    learnt: Option<(usize, Timestamp)>,
    /// The ESP's words, where they were not told yet.
    untold: Option<String>,
    /// What was told last: each minute's try of one more is no news.
    told: Option<usize>,
    /// Which connections have one.
    taken: BTreeSet<usize>,
}

/// What was learnt since it was last told.
#[derive(Debug, PartialEq, Eq)]
pub struct Learnt {
    /// Connections that it allows.
    pub allowed: usize,
    /// The ESP's words.
    pub said: String,
}

impl Seats {
    /// As many as are configured.
    pub fn new(configured: usize) -> Self {
        let state = State { configured, learnt: None, untold: None, told: None, taken: BTreeSet::new() };
        Seats { state: Mutex::new(state), free: Notify::new() }
    }

    /// So many are configured now.
    pub fn configure(&self, configured: usize) {
        {
            let mut state = self.state();
            state.configured = configured;
            state.learnt.take_if(|(allowed, _)| *allowed >= configured);
        }
        self.free.notify_waiters();
    }

    /// What is known no more: it is another house, or somebody says that it has grown.
    pub fn forget(&self) {
        {
            let mut state = self.state();
            (state.learnt, state.untold, state.told) = (None, None, None);
        }
        self.free.notify_waiters();
    }

    /// Whether that connection has a seat for its next call. It keeps the one that it has, unless there are too many.
    pub fn sits(&self, connection: usize) -> bool {
        let mut state = self.state();
        let most = state.most();
        if state.taken.contains(&connection) {
            if state.taken.len() > most {
                state.taken.remove(&connection);
            }
        } else if state.taken.len() < most {
            state.taken.insert(connection);
        }
        state.taken.contains(&connection)
    }

    /// Nobody is at work there any more.
    pub fn leaves(&self, connection: usize) {
        if self.state().taken.remove(&connection) {
            self.free.notify_waiters();
        }
    }

    /// The ESP says that it is full while so many other connections stand. `true`: fewer are used from now on.
    pub fn full(&self, others: usize, said: &str, now: Timestamp) -> bool {
        let mut state = self.state();
        let allowed = others.max(1);
        let lower = allowed < state.most();
        if lower {
            state.untold = Some(said.to_owned());
            state.learnt = Some((allowed, now));
        }
        lower
    }

    /// Allows one more where its time has come. What was learnt since this was last called.
    pub fn look(&self, now: Timestamp) -> Option<Learnt> {
        let mut state = self.state();
        let news =
            state.untold.take().zip(state.learnt).filter(|(_, (allowed, _))| state.told != Some(*allowed));
        let told = news.map(|(said, (allowed, _))| Learnt { allowed, said });
        state.told = told.as_ref().map(|told| told.allowed).or(state.told);
        let Some((allowed, at)) = state.learnt.filter(|(_, at)| now.since(*at) >= RAISED_EVERY) else {
            return told;
        };
        let more = (allowed + 1, at.plus(RAISED_EVERY));
        state.learnt = Some(more).filter(|(allowed, _)| *allowed < state.configured);
        state.told = state.told.filter(|_| state.learnt.is_some());
        drop(state);
        self.free.notify_waiters();
        told
    }

    /// What was learnt, where that is less than configured.
    pub fn learnt(&self) -> Option<usize> {
        self.state().learnt.map(|(allowed, _)| allowed)
    }

    /// Calls that may run at a time.
    pub fn most(&self) -> usize {
        self.state().most()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn most(&self) -> usize {
        self.learnt.map_or(self.configured, |(allowed, _)| allowed.min(self.configured))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    fn sitting(seats: &Seats, of: usize) -> Vec<usize> {
        (0..of).filter(|n| seats.sits(*n)).collect()
    }

    #[test]
    fn ten_come_at_once_where_two_are_allowed() {
        let seats = Seats::new(10);
        assert_eq!(sitting(&seats, 10).len(), 10);
        for others in (2..10).rev() {
            assert!(seats.full(others, "421 too many connections", NOW));
            assert!(!seats.sits(others), "who was sent away has no seat");
        }
        assert_eq!((seats.learnt(), sitting(&seats, 10)), (Some(2), vec![0, 1]));
        assert!(!seats.full(2, "421", NOW), "that is known");
        assert!(seats.full(0, "421", NOW));
        assert_eq!(seats.learnt(), Some(1), "one at least");
    }

    #[test]
    fn one_more_is_tried_each_minute_up_to_what_is_configured() {
        let seats = Seats::new(4);
        seats.full(2, "421", NOW);
        assert_eq!(seats.look(after(1)), Some(Learnt { allowed: 2, said: "421".into() }));
        assert_eq!((seats.look(after(59)), seats.most()), (None, 2));
        seats.look(after(60));
        assert_eq!((seats.most(), seats.learnt()), (3, Some(3)));
        seats.look(after(119));
        assert_eq!(seats.most(), 3);
        seats.look(after(120));
        assert_eq!((seats.most(), seats.learnt()), (4, None));
    }

    #[test]
    fn the_same_number_is_told_once_however_often_one_more_is_tried() {
        let seats = Seats::new(9);
        seats.full(2, "421", NOW);
        assert!(seats.look(after(1)).is_some());
        for minute in 1..4 {
            assert_eq!(seats.look(after(minute * 60)), None);
            assert!(seats.full(2, "421", after(minute * 60)));
            assert_eq!((seats.look(after(minute * 60 + 1)), seats.most()), (None, 2));
        }
        seats.full(1, "421", after(200));
        assert_eq!(seats.look(after(201)).map(|learnt| learnt.allowed), Some(1));
    }

    #[test]
    fn who_goes_leaves_a_seat_to_another() {
        let seats = Seats::new(3);
        seats.full(1, "421", NOW);
        assert_eq!(sitting(&seats, 3), [0]);
        seats.leaves(0);
        assert!(seats.sits(2) && !seats.sits(0));
        seats.forget();
        assert_eq!(sitting(&seats, 4), [0, 1, 2]);
    }

    #[test]
    fn fewer_that_are_configured_are_no_more_than_those() {
        let seats = Seats::new(10);
        seats.full(5, "421", NOW);
        seats.configure(3);
        assert_eq!((seats.most(), seats.learnt()), (3, None));
        seats.configure(0);
        assert!(!seats.sits(0));
    }
}
