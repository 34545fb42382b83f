//! The ledger at work: the desks of several relays at one database, with refusals, crashes and stops between. No window
//! ever holds more than its limit, and nothing of a limit is lost but what a crash left in hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::clock::{Clock, Manual, Timestamp};
use crate::flow::allowance::{Allowance, NoShare, Share, Want};
use crate::mail::quota::{Limits, QuotaLimits, Window};
use crate::mail::{AttemptId, DeliveryId, Fault, MessageId, Outcome, Owner, Step, StreamKind};
use crate::store::{Settings, Settle, Store};

const ESP: &str = "a";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// An hour before a month ends, so that runs cross it.
const START: Timestamp = Timestamp::from_millis(1_796_079_600_000);

#[derive(Debug, Clone)]
enum Verb {
    /// A message for so many.
    Send {
        desk: usize,
        recipients: u32,
        kind: StreamKind,
    },
    /// The ESP said no to so many of an earlier one.
    Refused {
        nth: usize,
        recipients: u32,
    },
    /// An earlier one was taken back.
    Unused {
        nth: usize,
    },
    Advance(Duration),
    /// A relay stops in order and starts again.
    Stop(usize),
    /// The disk stays as it is at this instant; all desks are new.
    Crash,
}

fn verbs(crashes: bool, desks: usize) -> impl Strategy<Value = Vec<Verb>> {
    let kind = prop_oneof![3 => Just(StreamKind::Transactional), 1 => Just(StreamKind::Broadcast)];
    let wait = prop_oneof![
        3 => (0..90_000_u64).prop_map(Duration::from_millis),
        3 => (1..20_u64).prop_map(|n| MINUTE * n as u32),
        2 => (1..30_u32).prop_map(|n| MINUTE * 17 * n),
        1 => (1..60_u32).prop_map(|n| HOUR * 11 * n),
    ];
    let verb = prop_oneof![
        20 => (0..desks, 1..6_u32, kind)
            .prop_map(|(desk, recipients, kind)| Verb::Send { desk, recipients, kind }),
        2 => (0..desks, 6..300_u32)
            .prop_map(|(desk, recipients)| Verb::Send { desk, recipients, kind: StreamKind::Transactional }),
        3 => (0..8_usize, 1..3_u32).prop_map(|(nth, recipients)| Verb::Refused { nth, recipients }),
        2 => (0..4_usize).prop_map(|nth| Verb::Unused { nth }),
        8 => wait.prop_map(Verb::Advance),
        1 => (0..desks).prop_map(Verb::Stop),
        u32::from(crashes) => Just(Verb::Crash),
    ];
    prop::collection::vec(verb, 1..120)
}

fn limits() -> impl Strategy<Value = QuotaLimits> {
    let some = |range| prop::option::weighted(0.6, range);
    (some(3..150_u64), some(5..400), some(20..900))
        .prop_map(|(hourly, daily, monthly)| QuotaLimits { hourly, daily, monthly })
        .prop_filter("some limit", |limits| !limits.is_none())
}

/// What was begun and not refused.
#[derive(Debug)]
struct Begun {
    desk: usize,
    at: Timestamp,
    share: Share,
    recipients: u32,
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<Manual>,
    store: Store,
    boots: i64,
    limits: QuotaLimits,
    desks: Vec<Allowance>,
    begun: Vec<Begun>,
    settled: i64,
    /// A desk alone, and none that ever crashed: what is left is known to the last recipient.
    exact: bool,
}

fn open(dir: &Path, boots: i64, clock: &Arc<Manual>) -> Store {
    let settings = Settings {
        data_dir: dir.to_owned(),
        queue_octets_max: 1 << 30,
        min_free_octets: 0,
        spread_log: false,
        keep_bodies: HOUR,
        keep_bodies_octets: 1 << 30,
        sandboxes: Vec::new(),
        kin: Default::default(),
        keep_messages: DAY,
        keep_attempts: DAY,
        keep_events: DAY,
    };
    Store::open(settings, Owner::from_number(boots), clock.clone()).unwrap()
}

impl World {
    fn new(limits: QuotaLimits, desks: usize, exact: bool) -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(Manual::at(START)));
        let store = open(dir.path(), 1, &clock);
        let desks = (0..desks).map(|_| desk(limits)).collect();
        World { dir, clock, store, boots: 1, limits, desks, begun: Vec::new(), settled: 0, exact }
    }

    async fn step(&mut self, verb: Verb) {
        match verb {
            Verb::Send { desk, recipients, kind } => {
                self.send(desk, recipients, kind).await;
            }
            Verb::Refused { nth, recipients } => self.refused(nth, recipients).await,
            Verb::Unused { nth } => {
                let Some(at) = self.begun.len().checked_sub(nth + 1) else { return };
                let begun = self.begun.remove(at);
                let desk = &self.desks[begun.desk];
                desk.unused(&begun.share, begun.recipients, &self.store, self.clock.now()).await;
            }
            Verb::Advance(by) => self.clock.advance(by),
            Verb::Stop(n) => {
                self.desks[n].close(&self.store).await;
                self.desks[n] = desk(self.limits);
            }
            Verb::Crash => self.crash().await,
        }
    }

    /// As the courier does: what finds no allowance in hand has the ledger asked, and comes again; those for whom there
    /// was none in one call come in another.
    async fn send(&mut self, n: usize, recipients: u32, kind: StreamKind) -> bool {
        let mut left = recipients;
        while left > 0 {
            match self.call(n, left, kind).await {
                Some(some) => left -= some,
                None => return false,
            }
        }
        true
    }

    /// How many of them one call carries; `None`: there is nothing left.
    async fn call(&mut self, n: usize, recipients: u32, kind: StreamKind) -> Option<u32> {
        for _ in 0..5 {
            let now = self.clock.now();
            let taken = self.desks[n].take(Want { kind, recipients, whole: false }, now);
            let asked = match self.desks[n].wants(now) {
                Some(ask) => self.desks[n].ask(ask, &self.store, now).await,
                None => false,
            };
            match taken {
                Ok(share) => {
                    assert!((1..=recipients).contains(&share.recipients));
                    self.begun.push(Begun { desk: n, at: now, share, recipients: share.recipients });
                    return Some(share.recipients);
                }
                Err(NoShare::Soon) => {}
                Err(NoShare::At(_) | NoShare::Part) => panic!("there is no rate, and any part will do"),
                Err(NoShare::Spent(_)) if asked => {}
                Err(NoShare::Spent(why)) => {
                    if self.exact && kind == StreamKind::Transactional {
                        let spent = |(window, limit)| self.counted(window) >= limit;
                        assert!(self.limits.windows().any(spent), "of {recipients}: {why}");
                    }
                    return None;
                }
            }
        }
        assert!(!self.exact, "the ledger was asked again and again: {:?}", self.desks[n]);
        None
    }

    /// What the buckets that count now hold of what was begun.
    fn counted(&self, window: Window) -> u64 {
        let counts = |b: &&Begun| {
            let at = b.share.spent.unwrap();
            window.counts_until(window.bucket(at)) > self.clock.now()
        };
        self.begun.iter().filter(counts).map(|b| u64::from(b.recipients)).sum()
    }

    async fn refused(&mut self, nth: usize, recipients: u32) {
        let now = self.clock.now();
        let Some(begun) = self.begun.iter_mut().rev().nth(nth) else { return };
        let recipients = recipients.min(begun.recipients);
        begun.recipients -= recipients;
        let settle = |n: u32| Settle {
            delivery: DeliveryId { message: MessageId::from_number(self.settled + 1), recipient: n },
            attempt: AttemptId::from_number(1),
            esp: ESP.into(),
            begun_at: begun.at,
            answered_at: now,
            outcome: Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said: "451".into() },
            phase: None,
            step: Step::Later(now),
            hold: Duration::ZERO,
            spent: begun.share.spent,
            choice: None,
            relayed: false,
            heard: false,
        };
        let settles = (0..recipients).map(settle).collect();
        self.settled += 1;
        self.store.settle(settles).await.unwrap();
        self.desks[begun.desk].stirred();
    }

    async fn crash(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        for name in ["postroad.db", "postroad.db-wal"] {
            if self.dir.path().join(name).exists() {
                std::fs::copy(self.dir.path().join(name), copy.path().join(name)).unwrap();
            }
        }
        self.boots += 1;
        let store = open(copy.path(), self.boots, &self.clock);
        std::mem::replace(&mut self.store, store).close().await;
        self.dir = copy;
        self.desks.iter_mut().for_each(|d| *d = desk(self.limits));
    }

    /// Of what was begun, at most the limit lies in any window, wherever it begins.
    fn assert_within(&self) {
        for (window, limit) in self.limits.windows() {
            for (n, first) in self.begun.iter().enumerate() {
                let within = |b: &&Begun| match window {
                    Window::Hour => b.at.since(first.at) <= HOUR,
                    Window::Day => b.at.since(first.at) <= DAY,
                    Window::Month => b.at.utc_month() == first.at.utc_month(),
                };
                let sum: u32 = self.begun[n..].iter().filter(within).map(|b| b.recipients).sum();
                assert!(u64::from(sum) <= limit, "{sum} of {limit} in a window from {}", first.at);
            }
        }
    }

    /// When all windows have passed, each recipient of the tightest limit can be had by one desk.
    async fn assert_all_there_again(&mut self) {
        let now = self.clock.now();
        let free = now.plus(DAY + MINUTE * 60);
        let free = if self.limits.monthly.is_some() { free.max(now.next_utc_month()) } else { free };
        self.clock.advance(free.since(now));
        self.exact = false;
        let mut sent = 0;
        while self.send(0, 1, StreamKind::Transactional).await {
            sent += 1;
        }
        let limit = self.limits.windows().map(|(_, limit)| limit).min().unwrap();
        assert_eq!(sent, limit, "after all windows have passed");
    }
}

fn desk(limits: QuotaLimits) -> Allowance {
    Allowance::new(ESP, Limits { windows: limits, ..Limits::default() }, START)
}

fn run(limits: QuotaLimits, desks: usize, exact: bool, verbs: Vec<Verb>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(limits, desks, exact);
        for verb in verbs {
            world.step(verb).await;
        }
        world.assert_within();
        world.assert_all_there_again().await;
        world.assert_within();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn no_window_ever_holds_more_than_its_limit(limits in limits(), verbs in verbs(true, 3)) {
        run(limits, 3, false, verbs);
    }

    #[test]
    fn a_desk_alone_loses_nothing_of_its_limits(limits in limits(), verbs in verbs(false, 1)) {
        run(limits, 1, true, verbs);
    }
}
