//! Full disks, read-only disks, locks, crashes: nothing acknowledged is lost, nothing refused stays.

use super::*;
use std::collections::HashMap;

const TABLES: [&str; 6] = ["messages", "bodies", "email_sends", "attempts", "events", "body_chunks"];

/// What each table holds of each message.
fn rows_by_message(path: &Path) -> HashMap<i64, Vec<&'static str>> {
    let conn = Connection::open(path).unwrap();
    let mut rows: HashMap<i64, Vec<&'static str>> = HashMap::new();
    for table in TABLES {
        let column = if table == "messages" { "id" } else { "message" };
        let mut statement = conn.prepare(&format!("SELECT {column} FROM {table}")).unwrap();
        for id in statement.query_map([], |row| row.get::<_, i64>(0)).unwrap() {
            rows.entry(id.unwrap()).or_default().push(table);
        }
    }
    rows
}

type Told = Vec<(MessageId, Result<(), NotAccepted>)>;

/// Many accepts at once, so that they share groups; every second one begun.
async fn accept_many(store: &Store, bench: &Bench, n: usize) -> Told {
    let mut tasks = Vec::new();
    for i in 0..n {
        let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 2_000);
        let accept = if i % 2 == 0 { bench.waiting(&message) } else { bench.begun(&message).0 };
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            (message.id, store.accept(vec![accept]).await.remove(0).map(|_| ()))
        }));
    }
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

fn assert_kept_exactly(path: &Path, results: &Told) {
    let rows = rows_by_message(path);
    for (id, result) in results {
        match result {
            Ok(()) => assert_eq!(rows[&id.number()], ["messages", "bodies", "email_sends", "email_sends"]),
            Err(_) => assert_eq!(rows.get(&id.number()), None, "an orphan of a refused message"),
        }
    }
    assert_eq!(rows.len(), results.iter().filter(|(_, r)| r.is_ok()).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_in_mid_group_loses_nothing_and_leaves_no_orphan() {
    let bench = Bench::new();
    let store = bench.open();
    store.limit_pages(400).await.unwrap();
    let mut results = accept_many(&store, &bench, 900).await;
    let refused =
        results.iter().filter(|(_, r)| matches!(r, Err(NotAccepted::Store(StoreError::Full(_))))).count();
    let accepted = results.iter().filter(|(_, r)| r.is_ok()).count();
    assert!(refused > 100 && accepted > 100, "{accepted} accepted, {refused} refused");
    assert_eq!(refused + accepted, results.len());
    let octets = 2_000 * accepted as u64;
    assert_eq!(store.queue_octets(), octets, "what was refused is not counted");

    store.limit_pages(0).await.unwrap();
    results.extend(accept_many(&store, &bench, 20).await);
    assert!(results[900..].iter().all(|(_, r)| r.is_ok()), "it works again without a restart");
    store.close().await;
    assert_kept_exactly(&bench.settings().data_dir.join("postroad.db"), &results);
    let store = bench.open_as(NEXT);
    assert_eq!(store.queue_octets(), octets + 40_000);
    let loaded = store.load(results.iter().map(|(id, _)| *id).collect()).await;
    for ((_, accepted), loaded) in results.iter().zip(loaded) {
        assert_eq!(accepted.is_ok(), loaded.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_without_room_waits_again_once_there_is() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    store.set_read_only(true).await.unwrap();
    let unbegin = store.unbegin(vec![(first(&message), beginning.attempt)], START);
    tokio::pin!(unbegin);
    let early = tokio::time::timeout(Duration::from_millis(120), &mut unbegin).await;
    assert!(early.is_err(), "it is kept");
    store.set_read_only(false).await.unwrap();
    let taken_back = tokio::time::timeout(Duration::from_secs(20), unbegin).await.unwrap();
    assert_eq!(taken_back, [Ok(true)]);
    assert_eq!(state_of(&store, first(&message)).await.state, QueueState::Waiting { due: START });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_that_found_no_room_is_kept_until_there_is() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    store.set_read_only(true).await.unwrap();
    let mut settling = store.settle(vec![bench.settle(first(&message), &beginning, accepted(), Step::Done)]);
    let refused =
        store.accept(vec![bench.waiting(&bench.message(&["b@x.example"], StreamKind::Broadcast, 9))]).await;
    assert!(matches!(refused[0], Err(NotAccepted::Store(StoreError::Full(_)))), "{refused:?}");
    assert!(store.probe_write().await.is_err());
    let early = tokio::time::timeout(Duration::from_millis(120), &mut settling).await;
    assert!(early.is_err(), "it waits");
    store.set_read_only(false).await.unwrap();
    let settled = tokio::time::timeout(Duration::from_secs(20), settling).await.unwrap().unwrap();
    assert_eq!(settled, [Settled::Moved(QueueState::Done)]);
    store.probe_write().await.unwrap();
}

#[tokio::test]
async fn free_pages_are_used_again() {
    let bench = Bench::new();
    let store = bench.open();
    let mut accepted = Vec::new();
    for _ in 0..300 {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 4_000);
        accept_one(&store, bench.waiting(&message)).await;
        accepted.push(message.id);
    }
    store.act(Act::Remove, accepted).await;
    bench.clock.advance(Duration::from_secs(40 * 86_400));
    assert_eq!(store.retain(bench.now()).await.unwrap().messages, 300);
    let other = Connection::open(bench.settings().data_dir.join("postroad.db")).unwrap();
    let pages: u32 = other.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.limit_pages(pages).await.unwrap();
    let again = accept_many(&store, &bench, 300).await;
    let refused = again.iter().find(|(_, r)| r.is_err());
    assert!(refused.is_none(), "{refused:?}");
}

#[tokio::test]
async fn the_queues_bound_holds_and_broadcast_stops_first() {
    let bench = Bench::new();
    let settings = Settings { queue_octets_max: 10_000, ..bench.settings() };
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    let mut results = Vec::new();
    for kind in
        [StreamKind::Broadcast, StreamKind::Broadcast, StreamKind::Broadcast, StreamKind::Transactional]
    {
        let accept = bench.waiting(&bench.message(&["a@x.example"], kind, 4_000));
        let result = store.accept(vec![accept]).await.remove(0);
        results.push(result.is_ok());
        if kind == StreamKind::Broadcast && result.is_ok() {
            continue;
        }
    }
    assert_eq!(results, [true, true, false, false]);
    let small = store
        .accept(vec![bench.waiting(&bench.message(&["a@x.example"], StreamKind::Transactional, 1_900))])
        .await;
    assert!(small[0].is_ok(), "the rest is transactional mail's");
    let one = bench.message(&["a@x.example"], StreamKind::Broadcast, 1);
    let full = store.accept(vec![bench.waiting(&one)]).await.remove(0).unwrap_err();
    assert!(full.to_string().contains("queue_bytes"), "{full}");
    let not_ready = store.probe_write().await.unwrap_err();
    assert!(not_ready.to_string().contains("queue_bytes"), "an ordinary mail finds no room: {not_ready}");
}

#[tokio::test]
async fn below_min_free_nothing_is_accepted_but_answers_are_written() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    store.close().await;
    let settings = Settings { min_free_octets: u64::MAX, ..bench.settings() };
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    store.counts().await.unwrap();
    let settled = store.settle(vec![bench.settle(first(&message), &beginning, accepted(), Step::Done)]).await;
    assert_eq!(settled, Ok(vec![Settled::Moved(QueueState::Done)]));
    let other = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let full = store.accept(vec![bench.waiting(&other)]).await.remove(0).unwrap_err();
    assert!(full.to_string().contains("min_free"), "{full}");
    assert!(matches!(store.spill(other.id, 0, vec![1].into()).await, Err(StoreError::Full(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_lock_is_waited_for() {
    let bench = Bench::new();
    let store = bench.open();
    let other = Connection::open(bench.settings().data_dir.join("postroad.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let accept = bench.waiting(&bench.message(&["a@x.example"], StreamKind::Transactional, 10));
    let mut task = tokio::spawn({
        let store = store.clone();
        async move { store.accept(vec![accept]).await.remove(0) }
    });
    let early = tokio::time::timeout(Duration::from_millis(50), &mut task).await;
    assert!(early.is_err(), "it waits");
    other.execute_batch("COMMIT").unwrap();
    assert!(task.await.unwrap().is_ok(), "busy never reaches a user");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_a_copy_taken_at_any_moment() {
    let bench = Bench::new();
    let store = bench.open();
    let mut known = Vec::new();
    for round in 0..4 {
        known.extend(accept_many(&store, &bench, 60).await);
        let copy = bench.dir.path().join(format!("copy-{round}"));
        std::fs::create_dir(&copy).unwrap();
        for file in ["postroad.db", "postroad.db-wal"] {
            std::fs::copy(bench.settings().data_dir.join(file), copy.join(file)).unwrap();
        }
        let settings = Settings { data_dir: copy, ..bench.settings() };
        let after = Store::open(settings, NEXT, bench.clock.clone()).unwrap();
        let out = known.len() as u64;
        assert_eq!(recover(&after).await, Recovered { crashed: out, holds_extended: 0 });
        assert_eq!(recover(&after).await, Recovered::default(), "it may be run again");
        for ((id, _), loaded) in known.iter().zip(after.load(known.iter().map(|k| k.0).collect()).await) {
            assert!(loaded.unwrap().is_some());
            let view = after.show(*id).await.unwrap().unwrap();
            for delivery in &view.deliveries {
                let until = bench.now().plus(HOLD);
                match delivery.state {
                    QueueState::Waiting { .. } => assert!(view.attempts.is_empty()),
                    QueueState::Unsure { until: u, .. } => assert_eq!(u, until),
                    other => panic!("{other:?}"),
                }
            }
            if let Some(attempt) = view.attempts.first() {
                assert_eq!(attempt.outcome, "unsure");
                assert_eq!(kinds(&view), ["accepted", "crashed", "crashed"]);
            }
        }
        after.close().await;
    }
}

#[tokio::test]
async fn a_start_ends_no_hold_early_and_carries_out_marks() {
    let bench = Bench::new();
    let store = bench.open();
    let (held, out) = (
        bench.message(&["a@x.example"], StreamKind::Transactional, 10),
        bench.message(&["b@x.example"], StreamKind::Transactional, 10),
    );
    let (accept, lost) = bench.begun(&held);
    accept_one(&store, accept).await;
    accept_one(&store, bench.begun(&out).0).await;
    store.settle(vec![bench.settle(first(&held), &lost, unsure(), Step::Hold(START))]).await.unwrap();
    store.act(Act::Pause, vec![out.id]).await;
    store.close().await;
    bench.clock.advance(HOLD);
    let store = bench.open_as(NEXT);
    assert_eq!(recover(&store).await, Recovered { crashed: 1, holds_extended: 1 });
    let until = bench.now().plus(HOLD);
    assert_eq!(
        state_of(&store, first(&held)).await.state,
        QueueState::Unsure { attempt: lost.attempt, until }
    );
    assert!(matches!(state_of(&store, first(&out)).await.state, QueueState::Paused { .. }));
    let claim = store.claim_due(until, 10, |_| true).await.unwrap().remove(0);
    assert_eq!((claim.open_attempts, claim.open_by_crash), (1, 0));
}

#[tokio::test]
async fn many_starts_do_not_hold_mail_for_ever() {
    let bench = Bench::new();
    let mut store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, lost) = bench.begun(&message);
    accept_one(&store, accept).await;
    let until = bench.now().plus(HOLD);
    store.settle(vec![bench.settle(first(&message), &lost, unsure(), Step::Hold(until))]).await.unwrap();
    let (up, down) = (Duration::from_secs(90), Duration::from_secs(2));
    let mut starts = 0;
    loop {
        bench.clock.advance(up);
        if !store.claim_due(bench.now(), 10, |_| true).await.unwrap().is_empty() {
            break;
        }
        store.note_alive().await.unwrap();
        store.close().await;
        bench.clock.advance(down);
        starts += 1;
        store = bench.open_as(Owner::from_number(7 + starts));
        recover(&store).await;
        assert!(starts < 20, "held for ever: {:?}", state_of(&store, first(&message)).await.state);
    }
    assert_eq!(starts, 6, "once the relay was up for as long as the hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_waits_for_room() {
    let bench = Bench::new();
    let store = bench.open();
    for _ in 0..200 {
        let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
        accept_one(&store, bench.begun(&message).0).await;
    }
    store.close().await;
    let store = bench.open_as(NEXT);
    // As many as there are.
    store.limit_pages(1).await.unwrap();
    let mut starting = tokio::spawn({
        let store = store.clone();
        async move { recover(&store).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut starting).await;
    assert!(early.is_err(), "it waits: {early:?}");
    store.limit_pages(0).await.unwrap();
    let recovered = tokio::time::timeout(Duration::from_secs(20), starting).await.unwrap().unwrap();
    assert_eq!(recovered, Recovered { crashed: 400, holds_extended: 0 });
}

#[tokio::test]
async fn after_close_everything_says_so() {
    let bench = Bench::new();
    let store = bench.open();
    let other = store.clone();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let pending = other.settle(vec![bench.settle(
        first(&message),
        &Beginning { attempt: bench.attempt(), esp: "one".into() },
        accepted(),
        Step::Done,
    )]);
    store.close().await;
    assert_eq!(pending.await, Ok(vec![Settled::RowOnly]), "what waited was done");
    assert_eq!(other.accept(vec![bench.waiting(&message)]).await, [Err(StoreError::Stopping.into())]);
    assert_eq!(other.settle(vec![]).await, Err(StoreError::Stopping));
    assert!(!bench.settings().data_dir.join("postroad.db-wal").exists(), "the log was written back");
}
