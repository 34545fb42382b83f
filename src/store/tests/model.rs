//! Random verbs against the state functions: the database ends as they say.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mail::delivery::{Begin, Delivery, Mark, Open};
use crate::mail::{Known, Reason};

/// One step: a verb, and which delivery, attempt or moment it takes.
#[derive(Debug, Clone)]
enum Verb {
    Accept { begun: bool },
    Begin { stale: bool },
    Unbegin,
    PutOff,
    Settle { nth: usize, answer: Answer },
    Act(Act),
    Suppress,
    Advance,
    Sweep,
    Alive,
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Accepted,
    Later,
    Elsewhere,
    Bounced,
    Hold,
}

fn verbs() -> impl Strategy<Value = Vec<(usize, Verb)>> {
    let answer = prop_oneof![
        Just(Answer::Accepted),
        Just(Answer::Later),
        Just(Answer::Elsewhere),
        Just(Answer::Bounced),
        Just(Answer::Hold)
    ];
    let act = prop_oneof![Just(Act::Flush), Just(Act::Pause), Just(Act::Release), Just(Act::Remove)];
    let verb = prop_oneof![
        3 => any::<bool>().prop_map(|begun| Verb::Accept { begun }),
        6 => prop::bool::weighted(0.1).prop_map(|stale| Verb::Begin { stale }),
        1 => Just(Verb::Unbegin),
        1 => Just(Verb::PutOff),
        8 => (0..3usize, answer).prop_map(|(nth, answer)| Verb::Settle { nth, answer }),
        5 => act.prop_map(Verb::Act),
        1 => Just(Verb::Suppress),
        2 => Just(Verb::Advance),
        1 => Just(Verb::Sweep),
        1 => Just(Verb::Alive),
        1 => Just(Verb::Restart),
    ];
    prop::collection::vec((0..3usize, verb), 1..80)
}

/// A delivery and its journal, moved by the state functions alone.
struct Modelled {
    id: DeliveryId,
    address: String,
    delivery: Delivery,
    ends_at: Timestamp,
    attempts: Vec<(Beginning, Option<&'static str>)>,
    /// Open because of a restart alone.
    crashed: Vec<AttemptId>,
}

impl Modelled {
    fn open(&self) -> Vec<AttemptId> {
        self.attempts.iter().filter(|(_, o)| *o == Some("unsure")).map(|(b, _)| b.attempt).collect()
    }

    fn open_now(&self) -> Open {
        let open = self.open();
        let crashed = |a: &&AttemptId| self.crashed.contains(a);
        let by_crash = open.iter().filter(crashed).count();
        Open { count: open.len() as u32, seen: (open.len() - by_crash) as u32, latest: open.last().copied() }
    }

    /// The journal's answer is given once; `false`: it was another.
    fn answer(&mut self, attempt: AttemptId, outcome: &'static str) -> bool {
        let row = self.attempts.iter_mut().find(|(b, _)| b.attempt == attempt).unwrap();
        match row.1 {
            Some(given) if given == outcome => true,
            Some("unsure") | None => {
                row.1 = Some(outcome);
                true
            }
            Some(_) => false,
        }
    }
}

struct World {
    bench: Bench,
    store: Store,
    owner: Owner,
    model: Vec<Modelled>,
    suppressed: Vec<String>,
    /// When the relay was last known to be up.
    alive: Option<Timestamp>,
}

impl World {
    async fn step(&mut self, which: usize, verb: Verb) {
        let now = self.bench.now();
        match verb {
            Verb::Accept { begun } => return self.accept(begun).await,
            Verb::Advance => return self.bench.clock.advance(Duration::from_secs(220)),
            Verb::Sweep => return self.sweep().await,
            Verb::Alive => {
                self.store.note_alive().await.unwrap();
                return self.noted_alive();
            }
            Verb::Restart => return self.restart().await,
            _ if self.model.is_empty() => return,
            _ => {}
        }
        let which = which % self.model.len();
        match verb {
            Verb::Begin { stale } => self.begin(which, stale).await,
            Verb::Unbegin => {
                let m = &mut self.model[which];
                let Some((b, _)) = m.attempts.last().cloned() else { return };
                m.delivery.open = m.open_now();
                let was = m.delivery.unbegin(b.attempt, now);
                if was {
                    m.attempts.pop();
                }
                assert_eq!(self.store.unbegin(vec![(m.id, b.attempt)], now).await, [Ok(was)]);
            }
            Verb::PutOff => {
                let m = &mut self.model[which];
                let (from, until) = (m.delivery.state, now.plus(HOLD));
                let was = m.delivery.put_off(from, until);
                assert_eq!(
                    self.store.put_off(vec![PutOff { delivery: m.id, from, until, round_ends: false }]).await,
                    Ok(vec![was])
                );
            }
            Verb::Settle { nth, answer } => self.settle(which, nth, answer).await,
            Verb::Act(act) => {
                let m = &mut self.model[which];
                let changed = match act {
                    Act::Flush => m.delivery.flush(now),
                    Act::Pause => m.delivery.pause(),
                    Act::Release => m.delivery.release(now),
                    Act::Remove => m.delivery.remove(),
                };
                let acted = self.store.act(act, vec![m.id.message]).await;
                let out = u32::from(changed && matches!(m.delivery.state, QueueState::Out { .. }));
                assert_eq!(acted, [Ok(Acted { found: true, changed: u32::from(changed), out, due: None })]);
            }
            Verb::Suppress => {
                let address = self.model[which].address.clone();
                self.store.suppress(vec![suppression(&address, "")]).await.remove(0).unwrap();
                self.suppressed.push(address);
            }
            Verb::Accept { .. } | Verb::Advance | Verb::Sweep | Verb::Alive | Verb::Restart => {}
        }
    }

    async fn accept(&mut self, begun: bool) {
        let address = format!("user{}@x.example", self.model.len());
        let mut message = Message::clone(&self.bench.message(&[&address], StreamKind::Transactional, 10));
        message.expires_at = self.bench.now().plus(Duration::from_secs(1_500));
        let message = Arc::new(message);
        let (accept, beginning) = match begun {
            true => {
                let (accept, beginning) = self.bench.begun(&message);
                (accept, Some(beginning))
            }
            false => (self.bench.waiting(&message), None),
        };
        accept_one(&self.store, accept).await;
        let mut delivery = Delivery::waiting(self.bench.now());
        if let Some(b) = &beginning {
            delivery.begin(delivery.state, self.owner, b.attempt, false);
        }
        self.model.push(Modelled {
            id: first(&message),
            address,
            delivery,
            ends_at: message.expires_at,
            attempts: beginning.into_iter().map(|b| (b, None)).collect(),
            crashed: Vec::new(),
        });
    }

    async fn begin(&mut self, which: usize, stale: bool) {
        let (now, owner) = (self.bench.now(), self.owner);
        let beginning = Beginning { attempt: self.bench.attempt(), esp: "two".into() };
        let m = &mut self.model[which];
        let from = if stale { QueueState::Waiting { due: now.plus(HOLD) } } else { m.delivery.state };
        m.delivery.open = m.open_now();
        let expected = m.delivery.begin(from, owner, beginning.attempt, self.suppressed.contains(&m.address));
        if let Begin::Begun { .. } = expected {
            m.attempts.push((beginning.clone(), None));
        }
        let request = BeginRequest { delivery: m.id, from, beginning };
        assert_eq!(self.store.begin(vec![request]).await, [Ok(expected)]);
    }

    async fn settle(&mut self, which: usize, nth: usize, answer: Answer) {
        let later = self.bench.now().plus(HOLD);
        let (outcome, step) = match answer {
            Answer::Accepted => (accepted(), Step::Done),
            Answer::Later => (refused(), Step::Later(later)),
            Answer::Elsewhere => (refused(), Step::Elsewhere),
            Answer::Bounced => (refused(), Step::Bounce),
            Answer::Hold => (unsure(), Step::Hold(later)),
        };
        let m = &mut self.model[which];
        // The latest attempt mostly, an earlier one where `nth` says so.
        let Some((b, _)) = m.attempts.iter().rev().nth(nth / 2).cloned() else { return };
        let now = self.bench.now();
        let told = m.answer(b.attempt, outcome.word());
        m.delivery.open = m.open_now();
        let expected = match told && m.delivery.settle(b.attempt, step, now, HOLD) {
            true if m.delivery.reason == Some(Reason::Assumed) => Settled::Assumed,
            true => Settled::Moved(m.delivery.state),
            false => Settled::RowOnly,
        };
        let settle = self.bench.settle(m.id, &b, outcome, step);
        assert_eq!(self.store.settle(vec![settle]).await, Ok(vec![expected]));
    }

    async fn sweep(&mut self) {
        let now = self.bench.now();
        let mut expected = BTreeMap::new();
        for m in &mut self.model {
            m.delivery.open = m.open_now();
            if m.ends_at <= now
                && let Some(reason) = m.delivery.expire()
            {
                expected.insert(m.id, Some(reason));
            }
        }
        let ended = self.store.sweep(now, 1_000).await.unwrap();
        assert_eq!(ended.into_iter().map(|d| (d.id, d.reason)).collect::<BTreeMap<_, _>>(), expected);
    }

    /// Only where something is not done.
    fn noted_alive(&mut self) {
        if self.model.iter().any(|m| m.delivery.state != QueueState::Done) {
            self.alive = Some(self.bench.now());
        }
    }

    /// The process dies; another start finds what it left.
    async fn restart(&mut self) {
        let old = self.store.clone();
        self.owner = Owner::from_number(self.owner.number() + 1);
        old.close().await;
        self.store = self.bench.open_as(self.owner);
        let now = self.bench.now();
        let (until, down) = (now.plus(HOLD), self.alive.map_or(HOLD, |alive| now.since(alive)));
        let mut expected = Recovered::default();
        for m in &mut self.model {
            let at = match m.delivery.state {
                QueueState::Out { attempt, .. } => Some(attempt),
                _ => None,
            };
            if let Some(attempt) = at {
                m.delivery.open = m.open_now();
                m.delivery.crashed(until);
                m.crashed.push(attempt);
                m.answer(attempt, "unsure");
                expected.crashed += 1;
            } else {
                expected.holds_extended += u64::from(m.delivery.outage(now, down, HOLD));
            }
        }
        assert_eq!(recover(&self.store).await, expected);
        self.noted_alive();
    }

    async fn compare(&self) {
        let mut octets = 0;
        for m in &self.model {
            let view = self.store.show(m.id.message).await.unwrap().unwrap();
            let d = &view.deliveries[0];
            let found: (QueueState, Known, Option<Reason>, Mark) = (d.state, d.known, d.reason, d.mark);
            let modelled = (m.delivery.state, m.delivery.known, m.delivery.reason, m.delivery.mark);
            assert_eq!(found, modelled, "{:?}", m.id);
            assert_eq!(d.tries as usize, m.attempts.len());
            let journal: Vec<_> = view.attempts.iter().map(|a| (a.attempt, a.outcome.as_str())).collect();
            let modelled: Vec<_> =
                m.attempts.iter().map(|(b, o)| (b.attempt, o.unwrap_or("begun"))).collect();
            assert_eq!(journal, modelled);
            octets += if m.delivery.state == QueueState::Done { 0 } else { 10 };
        }
        assert_eq!(self.store.queue_octets(), octets);
        assert_eq!(self.store.shared.space.deliveries() * 10, octets);
        let out =
            self.model.iter().filter(|m| matches!(m.delivery.state, QueueState::Out { .. })).count() as u64;
        let counts = self.store.counts().await.unwrap();
        assert_eq!(counts.iter().filter(|c| c.state == "out").map(|c| c.deliveries).sum::<u64>(), out);
        let claimable = |m: &&Modelled| match m.delivery.state {
            QueueState::Waiting { due: at } | QueueState::Unsure { until: at, .. } => at <= self.bench.now(),
            _ => false,
        };
        let mut due: Vec<_> =
            self.model.iter().filter(claimable).map(|m| (m.id, m.delivery.state, m.open().len())).collect();
        due.sort_by_key(|(id, ..)| *id);
        let claims = self.store.claim_due(self.bench.now(), 1_000, |_| true).await.unwrap();
        let mut found: Vec<_> =
            claims.iter().map(|c| (c.delivery, c.from, c.open_attempts as usize)).collect();
        found.sort_by_key(|(id, ..)| *id);
        assert_eq!(found, due);
    }
}

/// Every row that a settle can meet: the one statement of the hot path does what the function says.
#[test]
fn the_hot_settle_is_the_state_function_for_every_row() {
    use super::super::row::{QUEUED, Queued, known_code, mark_code, state_columns};
    let conn = Connection::open_in_memory().unwrap();
    for sql in super::super::schema::MIGRATIONS {
        conn.execute_batch(sql).unwrap();
    }
    let (a, b) = (AttemptId::from_number(1), AttemptId::from_number(2));
    let mut n = 0_u32;
    for at in [a, b] {
        for known in [Known::Nothing, Known::Handed, Known::Deferred, Known::Complained] {
            for mark in [Mark::None, Mark::Pause, Mark::Remove] {
                n += 1;
                let state = QueueState::Out { owner: ME, attempt: at };
                let mut modelled = Delivery { state, known, mark, ..Delivery::waiting(START) };
                let to = state_columns(state, START);
                conn.execute(
                    "INSERT INTO email_sends (message, recipient, state, at, lane, ends_at, tries, known, mark, octets,
                         owner, attempt, address) VALUES (1, ?1, ?2, 0, 1, 0, 1, ?3, ?4, 9, ?5, ?6, 'a@x')",
                    rusqlite::params![n, to.code, known_code(known), mark_code(mark), to.owner, to.attempt],
                )
                .unwrap();
                let hit = conn
                    .execute(super::super::queue::SETTLE_ACCEPTED, rusqlite::params![1, n, a.number(), 77])
                    .unwrap();
                let sql = format!("SELECT {QUEUED} FROM email_sends WHERE recipient = ?1");
                let row = conn.query_row(&sql, [n], Queued::read).unwrap();
                assert_eq!(hit == 1, at == a);
                if hit == 1 {
                    assert!(modelled.settle(a, Step::Done, START, HOLD));
                    let at: i64 = conn
                        .query_row("SELECT at FROM email_sends WHERE recipient = ?1", [n], |r| r.get(0))
                        .unwrap();
                    assert_eq!(at, 77, "since when it is done");
                }
                assert_eq!(row.delivery, modelled);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_verbs_end_as_the_state_functions_say(verbs in verbs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let store = bench.open();
            let mut world =
                World { bench, store, owner: ME, model: Vec::new(), suppressed: Vec::new(), alive: None };
            for (which, verb) in verbs {
                world.step(which, verb).await;
            }
            world.compare().await;
        });
    }
}
