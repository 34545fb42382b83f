//! What a stream asks of its mail's life: how often it is tried, how long it is held, when it is given up.

use std::time::Duration;

use crate::mail::delivery::UnsureThen;
use crate::mail::{StreamKind, StreamName};

/// One stream, checked: `transactional`, `broadcast`, or one that the configuration adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name in configuration, headers and logs.
    pub name: StreamName,
    /// What it is for.
    pub kind: StreamKind,
    /// How long a delivery waits between dispatches.
    pub retry: RetrySchedule,
    /// Age at which a delivery is given up, from its acceptance.
    pub max_age: Duration,
    /// How long an attempt without an answer is held, from hand-over.
    pub unsure_hold: Duration,
    /// What follows where its ESP cannot repeat it within another hold.
    pub unsure_then: UnsureThen,
    /// The ESPs that may carry it, by name; empty: all.
    pub esps: Vec<String>,
}

impl StreamSettings {
    /// The built-in stream of that kind.
    pub fn built_in(kind: StreamKind) -> Self {
        let (name, max_age_days, hold_minutes) = match kind {
            StreamKind::Transactional => (StreamName::TRANSACTIONAL, 1, 2),
            StreamKind::Broadcast => (StreamName::BROADCAST, 5, 15),
        };
        StreamSettings {
            name: StreamName::new(name),
            kind,
            retry: RetrySchedule::default(),
            max_age: Duration::from_secs(max_age_days * 86_400),
            unsure_hold: Duration::from_secs(hold_minutes * 60),
            unsure_then: match kind {
                StreamKind::Transactional => UnsureThen::RetryAny,
                StreamKind::Broadcast => UnsureThen::AssumeSent,
            },
            esps: Vec::new(),
        }
    }
}

/// The waits between dispatches: each step so often, the last one until the delivery is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    steps: Vec<RetryStep>,
}

/// One wait of a schedule, and how often it is used before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryStep {
    /// How long to wait.
    pub wait: Duration,
    /// How often.
    pub times: u32,
}

impl RetrySchedule {
    /// The schedule of these steps; `None` where there is no step, or one that is never or at once.
    pub fn new(steps: Vec<RetryStep>) -> Option<Self> {
        let usable = |step: &RetryStep| step.times > 0 && !step.wait.is_zero();
        (!steps.is_empty() && steps.iter().all(usable)).then_some(RetrySchedule { steps })
    }

    /// The wait after so many dispatches: 1 is the first step. No dispatch at all counts as one.
    pub fn nth(&self, tries: u32) -> Duration {
        let mut before = tries.max(1) - 1;
        for step in &self.steps {
            if before < step.times {
                return step.wait;
            }
            before -= step.times;
        }
        self.steps.last().map_or(Duration::ZERO, |last| last.wait)
    }

    /// The longest wait of all.
    pub fn longest(&self) -> Duration {
        self.steps.iter().map(|step| step.wait).max().unwrap_or_default()
    }
}

/// `1m, 5m*2, 30m, 1h*3, 4h`.
impl Default for RetrySchedule {
    fn default() -> Self {
        let step = |minutes: u64, times| RetryStep { wait: Duration::from_secs(minutes * 60), times };
        RetrySchedule { steps: vec![step(1, 1), step(5, 2), step(30, 1), step(60, 3), step(240, 1)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_used_so_often_and_the_last_for_ever() {
        let schedule = RetrySchedule::default();
        let minutes: Vec<u64> = (1..=10).map(|n| schedule.nth(n).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 5, 30, 60, 60, 60, 240, 240, 240]);
        assert_eq!(schedule.nth(0), schedule.nth(1));
        assert_eq!(schedule.nth(u32::MAX), Duration::from_secs(4 * 3600));
    }

    #[test]
    fn a_schedule_never_says_never_or_at_once() {
        let minute = Duration::from_secs(60);
        assert_eq!(RetrySchedule::new(vec![]), None);
        assert_eq!(RetrySchedule::new(vec![RetryStep { wait: minute, times: 0 }]), None);
        assert_eq!(RetrySchedule::new(vec![RetryStep { wait: Duration::ZERO, times: 1 }]), None);
        assert!(RetrySchedule::new(vec![RetryStep { wait: minute, times: u32::MAX }; 2]).is_some());
    }
}
