//! What a sender is owed: with what ends a delivery, once, and until it is queued.

use super::life::begin_one;
use super::*;
use crate::mail::Reason;
use crate::mail::delivery::{Begin, NotBegun};
use crate::mail::notify::{Ask, Asks, Notify};
use crate::mail::report::Cause;

/// A message whose recipients ask for that; empty: for nothing.
fn asking(bench: &Bench, recipients: &[&str], notify: &[&str]) -> Arc<Message> {
    let message = bench.message(recipients, StreamKind::Transactional, 100);
    let mut message = Arc::unwrap_or_clone(message);
    let ask = |word: &&str| Ask { notify: Notify::parse(word), original: None };
    let each: Vec<Ask> = notify.iter().map(ask).collect();
    message.envelope.reports =
        Some(Box::new(Asks { each, ..Asks::default() })).filter(|asks| !asks.is_empty());
    Arc::new(message)
}

async fn owed(store: &Store) -> Vec<(u32, Cause, String)> {
    let owed = store.owed(None, 100).await.unwrap();
    owed.into_iter().map(|o| (o.delivery.recipient, o.cause, o.said)).collect()
}

#[tokio::test]
async fn a_bounce_is_owed_with_its_settle_and_gone_with_its_report() {
    let bench = Bench::new();
    let settings = Settings { queue_octets_max: 150, ..bench.settings() };
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    let message = asking(&bench, &["a@x.example"], &[]);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    assert!(owed(&store).await.is_empty());
    let bounce = bench.settle(first(&message), &beginning, refused(), Step::Bounce);
    assert_eq!(store.settle(vec![bounce.clone()]).await, Ok(vec![Settled::Moved(QueueState::Done)]));
    tokio::time::timeout(Duration::from_secs(10), store.report_is_owed()).await.unwrap();
    assert_eq!(owed(&store).await, [(0, Cause::Refused, "451 4.3.0 later".into())]);

    // It is owed already: whatever queue_bytes says.
    let report = bench.message(&["app@example.com"], StreamKind::Transactional, 500);
    let told = vec![(first(&message), Cause::Refused)];
    assert_eq!(store.report(bench.waiting(&report), told.clone(), "queued as x".into()).await, Ok(true));
    assert!(owed(&store).await.is_empty());
    assert!(store.show(report.id).await.unwrap().is_some());
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(kinds(&view), ["accepted", "bounced", "reported"]);

    let again = bench.message(&["app@example.com"], StreamKind::Transactional, 500);
    assert_eq!(store.report(bench.waiting(&again), told, String::new()).await, Ok(false));
    assert!(store.show(again.id).await.unwrap().is_none(), "nobody is told twice");
    store.settle(vec![bounce]).await.unwrap();
    assert!(owed(&store).await.is_empty(), "a repeat of the settle owes nothing");
}

#[tokio::test]
async fn whom_no_esp_could_ever_reach_is_done_at_the_door_and_owed_a_report() {
    let bench = Bench::new();
    let store = bench.open();
    let message = asking(&bench, &["a@x.example", "b@x.example"], &[]);
    let mut accept = bench.waiting(&message);
    accept.entries[0] = Entry::Never("no ESP could".into());
    for _ in 0..2 {
        assert_eq!(
            accept_one(&store, accept.clone()).await,
            [Entered::Never, Entered::Waiting],
            "also told again"
        );
    }
    assert_eq!(owed(&store).await, [(0, Cause::Refused, "no ESP could".into())]);
    let view = store.show(message.id).await.unwrap().unwrap();
    let stands = |n: usize| (view.deliveries[n].state, view.deliveries[n].reason);
    assert_eq!(stands(0), (QueueState::Done, Some(Reason::Refused)));
    assert!(matches!(stands(1), (QueueState::Waiting { .. }, None)));
    assert_eq!(kinds(&view), ["accepted", "bounced"]);
    let due = store.claim_due(bench.now(), 10, |_| true).await.unwrap();
    assert_eq!(due.iter().map(|claim| claim.delivery.recipient).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn who_said_never_hears_nothing_and_the_null_sender_neither() {
    let bench = Bench::new();
    let store = bench.open();
    let never =
        asking(&bench, &["a@x.example", "b@x.example", "c@x.example"], &["NEVER", "FAILURE", "SUCCESS"]);
    let mut null = Arc::unwrap_or_clone(asking(&bench, &["a@x.example"], &["FAILURE"]));
    null.envelope.sender = ReversePath::Null;
    for message in [never, Arc::new(null)] {
        let (accept, beginning) = bench.begun(&message);
        accept_one(&store, accept).await;
        let settle = |recipient| {
            let id = DeliveryId { message: message.id, recipient };
            bench.settle(id, &beginning, refused(), Step::Bounce)
        };
        let count = u32::try_from(message.envelope.recipients.len()).unwrap();
        store.settle((0..count).map(settle).collect()).await.unwrap();
    }
    assert_eq!(owed(&store).await, [(1, Cause::Refused, "451 4.3.0 later".into())]);
}

#[tokio::test]
async fn what_was_handed_on_is_told_to_who_asked_where_the_next_hop_does_not() {
    let bench = Bench::new();
    let store = bench.open();
    let message = asking(&bench, &["a@x.example", "b@x.example"], &["SUCCESS", "FAILURE"]);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    let settle = |recipient, relayed| {
        let id = DeliveryId { message: message.id, recipient };
        Settle { relayed, ..bench.settle(id, &beginning, accepted(), Step::Done) }
    };
    store.settle(vec![settle(0, true), settle(1, true)]).await.unwrap();
    assert_eq!(owed(&store).await, [(0, Cause::Relayed, "250 2.0.0 ok".into())]);
}

#[tokio::test]
async fn what_is_owed_is_read_on_from_where_the_last_reading_ended() {
    let bench = Bench::new();
    let store = bench.open();
    let message = asking(&bench, &["a@x.example", "b@x.example", "c@x.example"], &[]);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    let settle = |recipient| {
        let id = DeliveryId { message: message.id, recipient };
        bench.settle(id, &beginning, refused(), Step::Bounce)
    };
    store.settle((0..3).map(settle).collect()).await.unwrap();
    let (mut read, mut after) = (Vec::new(), None);
    while let Some(one) = store.owed(after, 1).await.unwrap().pop() {
        read.push(one.delivery.recipient);
        after = Some((one.delivery, one.cause));
    }
    assert_eq!(read, [0, 1, 2]);
}

#[tokio::test]
async fn what_expires_is_owed_and_what_is_assumed_is_not() {
    let bench = Bench::new();
    let store = bench.open();
    let (waits, open) = (asking(&bench, &["a@x.example"], &[]), asking(&bench, &["b@x.example"], &[]));
    accept_one(&store, bench.waiting(&waits)).await;
    let (accept, beginning) = bench.begun(&open);
    accept_one(&store, accept).await;
    let hold = Step::Hold(bench.now().plus(HOLD));
    store.settle(vec![bench.settle(first(&open), &beginning, unsure(), hold)]).await.unwrap();
    let tried = asking(&bench, &["c@x.example"], &[]);
    let (accept, beginning) = bench.begun(&tried);
    accept_one(&store, accept).await;
    let (answered, later) = (bench.now(), Step::Later(bench.now().plus(HOLD)));
    store.settle(vec![bench.settle(first(&tried), &beginning, refused(), later)]).await.unwrap();
    bench.clock.advance(Duration::from_secs(6 * 86_400));
    assert_eq!(store.sweep(bench.now(), 10).await.unwrap().len(), 3);
    let owed = store.owed(None, 10).await.unwrap();
    assert_eq!(
        owed.iter().map(|o| (o.delivery, o.cause, o.last_attempt_at)).collect::<Vec<_>>(),
        [(first(&waits), Cause::Expired, None), (first(&tried), Cause::Expired, Some(answered))]
    );
}

#[tokio::test]
async fn a_delay_is_told_once_to_who_asked_and_only_while_it_lasts() {
    let bench = Bench::new();
    let store = bench.open();
    let message = asking(&bench, &["a@x.example", "b@x.example", "c@x.example"], &["DELAY", "", "DELAY"]);
    accept_one(&store, bench.waiting(&message)).await;
    let done = DeliveryId { message: message.id, recipient: 2 };
    let beginning = Beginning { attempt: bench.attempt(), esp: "one".into() };
    let begin = BeginRequest {
        delivery: done,
        from: QueueState::Waiting { due: bench.now() },
        beginning: beginning.clone(),
    };
    store.begin(vec![begin]).await.remove(0).unwrap();
    store.settle(vec![bench.settle(done, &beginning, accepted(), Step::Done)]).await.unwrap();
    assert_eq!(store.next_delay().await.unwrap(), Some(START.plus(Duration::from_secs(4 * 3_600))));
    bench.clock.advance(Duration::from_secs(4 * 3_600));
    assert_eq!(store.sweep_delays(bench.now(), 10).await, Ok(2));
    assert_eq!(owed(&store).await, [(0, Cause::Late, String::new())]);
    assert_eq!(store.next_delay().await.unwrap(), None);
}

#[tokio::test]
async fn somebody_suppressed_is_told_of_only_where_failures_were_asked_for() {
    let bench = Bench::new();
    let store = bench.open();
    store.suppress(vec![suppression("a@x.example", ""), suppression("b@x.example", "")]).await;
    let to = ["a@x.example", "b@x.example", "free@x.example"];
    let message = asking(&bench, &to, &["", "FAILURE", ""]);
    accept_one(&store, bench.waiting(&message)).await;
    assert_eq!(owed(&store).await, [(1, Cause::Suppressed, "manual".into())]);
}

/// Held: the answer to its first attempt was lost.
async fn held(store: &Store, bench: &Bench, notify: &str) -> Arc<Message> {
    let message = asking(bench, &["a@x.example"], &[notify]);
    let (accept, beginning) = bench.begun(&message);
    accept_one(store, accept).await;
    let hold = Step::Hold(bench.now());
    store.settle(vec![bench.settle(first(&message), &beginning, unsure(), hold)]).await.unwrap();
    message
}

#[tokio::test]
async fn nobody_is_told_that_a_mail_was_not_sent_which_may_have_arrived() {
    let bench = Bench::new();
    let store = bench.open();
    let message = held(&store, &bench, "FAILURE").await;
    store.suppress(vec![suppression("a@x.example", "")]).await;
    let (begun, _) = begin_one(&store, &bench, first(&message), "one").await;
    assert_eq!(begun, Begin::Not(NotBegun::Suppressed));
    assert!(owed(&store).await.is_empty());
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(view.deliveries[0].reason, Some(Reason::Suppressed));
    let end = view.events.iter().find(|event| event.kind == "suppressed").unwrap();
    assert_eq!(end.detail, "manual, while the outcome of an attempt is open");
}

#[tokio::test]
async fn a_refusal_beside_an_attempt_without_an_answer_is_owed_with_that() {
    let bench = Bench::new();
    let store = bench.open();
    let message = held(&store, &bench, "").await;
    let (_, again) = begin_one(&store, &bench, first(&message), "one").await;
    let bounce = bench.settle(first(&message), &again, refused(), Step::Bounce);
    assert_eq!(store.settle(vec![bounce]).await, Ok(vec![Settled::Moved(QueueState::Done)]));
    let plain = asking(&bench, &["b@x.example"], &[]);
    let (accept, beginning) = bench.begun(&plain);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&plain), &beginning, refused(), Step::Bounce)]).await.unwrap();
    let open: Vec<(MessageId, bool)> =
        store.owed(None, 10).await.unwrap().iter().map(|owed| (owed.delivery.message, owed.open)).collect();
    assert_eq!(open, [(message.id, true), (plain.id, false)]);
}

#[tokio::test]
async fn what_was_asked_is_read_back_with_the_message_its_body_gone_or_not() {
    let bench = Bench::new();
    let store = bench.open();
    let message = asking(&bench, &["a@x.example"], &["SUCCESS,DELAY"]);
    accept_one(&store, bench.waiting(&message)).await;
    let read = store.reported(message.id).await.unwrap().unwrap();
    assert_eq!(read.envelope, message.envelope);
    assert_eq!(read.body.head, message.body.head);
    let loaded = store.load(vec![message.id]).await.remove(0).unwrap().unwrap();
    assert_eq!(loaded.envelope.reports, message.envelope.reports);
}
