//! What each verb does to mail.

use super::*;
use crate::mail::delivery::{Begin, Mark, NotBegun};
use crate::mail::{Known, OnceKey, Reason};
use std::os::unix::fs::PermissionsExt;

pub(super) async fn begin_one(store: &Store, bench: &Bench, id: DeliveryId, esp: &str) -> (Begin, Beginning) {
    let from = state_of(store, id).await.state;
    let beginning = Beginning { attempt: bench.attempt(), esp: esp.into() };
    let request = BeginRequest { delivery: id, from, beginning: beginning.clone() };
    (store.begin(vec![request]).await.remove(0).unwrap(), beginning)
}

#[tokio::test]
async fn a_message_comes_back_as_it_was_accepted() {
    let bench = Bench::new();
    let store = bench.open();
    let mut message = Message::clone(&bench.message(
        &["Bob@Example.ORG", "\"odd name\"@x.example", "grüße@bücher.example"],
        StreamKind::Broadcast,
        4_000,
    ));
    message.envelope.sender = ReversePath::Null;
    message.pin = Some("one".into());
    let message = Arc::new(message);
    accept_one(&store, bench.waiting(&message)).await;
    let back = store.load(vec![message.id]).await.remove(0).unwrap().unwrap();
    assert_eq!(format!("{back:?}"), format!("{message:?}"));
    let missing = MessageId::from_number(1);
    assert!(store.load(vec![missing]).await.remove(0).unwrap().is_none());
    assert!(store.show(missing).await.unwrap().is_none());
}

#[tokio::test]
async fn what_waits_is_claimed_begun_and_settled() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 1_000);
    assert_eq!(accept_one(&store, bench.waiting(&message)).await, [Entered::Waiting, Entered::Waiting]);
    assert_eq!(store.queue_octets(), 1_000);
    assert_eq!(store.next_due(|_| true).await.unwrap(), Some(bench.now()));
    let claims = store.claim_due(bench.now(), 1, |_| true).await.unwrap();
    assert_eq!(claims.len(), 2, "all due deliveries of a message come together");
    assert_eq!((claims[0].size_octets, claims[0].tries, claims[0].open_attempts), (1_000, 0, 0));

    let beginning = Beginning { attempt: bench.attempt(), esp: "one".into() };
    let requests: Vec<_> = claims
        .iter()
        .map(|c| BeginRequest { delivery: c.delivery, from: c.from, beginning: beginning.clone() })
        .collect();
    for begun in store.begin(requests.clone()).await {
        assert_eq!(begun, Ok(Begin::Begun { twice: false }));
    }
    assert_eq!(store.begin(requests).await[0], Ok(Begin::Begun { twice: false }), "a repeat succeeds");
    assert!(store.claim_due(bench.now(), 10, |_| true).await.unwrap().is_empty());
    assert_eq!(state_of(&store, first(&message)).await.tries, 1);

    let later = bench.now().plus(HOLD);
    let settles = vec![
        bench.settle(claims[0].delivery, &beginning, accepted(), Step::Done),
        bench.settle(claims[1].delivery, &beginning, refused(), Step::Later(later)),
    ];
    assert_eq!(
        store.settle(settles).await.unwrap(),
        [Settled::Moved(QueueState::Done), Settled::Moved(QueueState::Waiting { due: later })]
    );
    assert_eq!(store.queue_octets(), 500);
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(view.deliveries[0].known, Known::Handed);
    assert_eq!(view.deliveries[1].said.as_deref(), Some("451 4.3.0 later"));
    let outcomes: Vec<_> = view.attempts.iter().map(|a| (a.outcome.as_str(), a.fault.as_deref())).collect();
    assert_eq!(outcomes, [("accepted", None), ("refused", Some("path"))]);
    assert_eq!(view.events[0].detail, "1000 octets for 2 recipients");
    assert_eq!(view.attempts[0].remote_id.as_deref(), Some("r-1"));
    assert!(view.body_kept);
}

#[tokio::test]
async fn mail_accepted_as_begun_is_out_and_its_attempt_is_shown() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 1_000);
    let (accept, beginning) = bench.begun(&message);
    assert_eq!(accept_one(&store, accept.clone()).await, [Entered::Begun]);
    assert_eq!(accept_one(&store, accept).await, [Entered::Begun], "an accept may be repeated");
    assert_eq!(store.queue_octets(), 1_000);
    let view = store.show(message.id).await.unwrap().unwrap();
    let state = QueueState::Out { owner: ME, attempt: beginning.attempt };
    assert_eq!((view.deliveries[0].state, view.deliveries[0].tries), (state, 1));
    assert_eq!((view.attempts[0].outcome.as_str(), view.attempts[0].esp.as_str()), ("begun", "one"));
    assert_eq!(view.events[0].detail, "1000 octets for 1 recipient");
    let counts = store.counts().await.unwrap();
    assert_eq!((counts[0].state, counts[0].deliveries, counts[0].oldest), ("out", 1, Some(bench.now())));
    let settle = bench.settle(first(&message), &beginning, accepted(), Step::Done);
    let settled = store.settle(vec![settle.clone()]).await.unwrap();
    assert_eq!(settled, [Settled::Moved(QueueState::Done)]);
    assert_eq!(store.settle(vec![settle]).await.unwrap(), [Settled::RowOnly]);
    assert_eq!(store.queue_octets(), 0);
    assert!(store.counts().await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_suppressed_is_begun_or_accepted_as_begun() {
    let bench = Bench::new();
    let store = bench.open();
    store.suppress(vec![suppression("all@x.example", ""), suppression("news@x.example", "broadcast")]).await;
    let to = ["ALL@x.example", "news@x.example", "free@x.example"];
    let (accept, _) = bench.begun(&bench.message(&to, StreamKind::Transactional, 10));
    assert_eq!(accept_one(&store, accept).await, [Entered::Suppressed, Entered::Begun, Entered::Begun]);
    let news = bench.message(&to, StreamKind::Broadcast, 10);
    assert_eq!(
        accept_one(&store, bench.waiting(&news)).await,
        [Entered::Suppressed, Entered::Suppressed, Entered::Waiting]
    );
    let view = store.show(news.id).await.unwrap().unwrap();
    assert_eq!(view.deliveries[0].reason, Some(Reason::Suppressed));
    assert_eq!(kinds(&view), ["accepted", "suppressed", "suppressed"]);

    store.suppress(vec![suppression("free@x.example", "")]).await;
    let id = DeliveryId { message: news.id, recipient: 2 };
    let (begun, _) = begin_one(&store, &bench, id, "one").await;
    assert_eq!(begun, Begin::Not(NotBegun::Suppressed));
    assert_eq!(state_of(&store, id).await.state, QueueState::Done);
}

#[tokio::test]
async fn a_message_is_not_accepted_for_nobody() {
    let bench = Bench::new();
    let store = bench.open();
    let to = ["news@x.example", "all@x.example"];
    let first = bench.message(&to, StreamKind::Broadcast, 10);
    accept_one(&store, bench.waiting(&first)).await;
    store.suppress(vec![suppression(to[0], "broadcast"), suppression(to[1], "")]).await;
    let again = store.accept(vec![bench.waiting(&first)]).await.remove(0);
    assert_eq!(again, Ok(vec![Entered::Waiting; 2]), "it was accepted before");

    let (octets, next) = (store.queue_octets(), bench.message(&to, StreamKind::Broadcast, 10));
    let told = store.accept(vec![bench.waiting(&next)]).await.remove(0);
    let Err(NotAccepted::Suppressed { first }) = told else { panic!("{told:?}") };
    assert_eq!((first.reason.as_str(), first.scope.as_str()), ("manual", "broadcast"));
    let key = OnceKey::chosen("smtp/user/shop".into(), "k".into());
    let told = store.accept_once(bench.waiting(&next), key.clone()).await;
    assert!(matches!(told, Err(NotAccepted::Suppressed { .. })), "{told:?}");
    assert_eq!(store.taken_once(&key), Ok(None));
    assert!(store.show(next.id).await.unwrap().is_none());
    assert_eq!(store.queue_octets(), octets);

    let other = bench.message(&to, StreamKind::Transactional, 10);
    let told = store.accept_once(bench.waiting(&other), key).await;
    assert_eq!(told, Ok(Once::Entered(vec![Entered::Waiting, Entered::Suppressed])));
}

#[tokio::test]
async fn what_is_blocked_is_judged_by_all_suppressions_of_a_key() {
    let bench = Bench::new();
    let store = bench.open();
    let own = NewSuppression { reason: "unsubscribe".into(), ..suppression("a@x.example", "another") };
    store.suppress(vec![own, suppression("a@x.example", "broadcast")]).await;
    let keys = ["a@x.example".to_owned(), "b@x.example".to_owned()];
    let blocked = |name: &str, kind| {
        let found = store.blocked(&keys, &StreamName::new(name), kind).unwrap();
        found.into_iter().map(|by| by.map(|by| by.reason)).collect::<Vec<_>>()
    };
    assert_eq!(blocked("news", StreamKind::Broadcast), [Some("manual".to_owned()), None]);
    assert_eq!(blocked("another", StreamKind::Transactional), [Some("unsubscribe".to_owned()), None]);
    assert_eq!(blocked("transactional", StreamKind::Transactional), [None, None]);
}

#[tokio::test]
async fn a_suppression_ends_when_it_says() {
    let bench = Bench::new();
    let store = bench.open();
    let until = NewSuppression { expires_at: Some(START.plus(HOLD)), ..suppression("a@x.example", "") };
    assert_eq!(store.suppress(vec![until.clone(), until]).await, [Ok(true), Ok(false)]);
    let keys = ["a@x.example".to_owned()];
    let blocked =
        || store.blocked(&keys, &StreamName::new(StreamName::TRANSACTIONAL), StreamKind::Transactional);
    assert!(blocked().unwrap()[0].is_some());
    bench.clock.advance(HOLD);
    assert!(blocked().unwrap()[0].is_none());
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    assert_eq!(accept_one(&store, bench.waiting(&message)).await, [Entered::Waiting]);
}

#[tokio::test]
async fn a_second_open_attempt_ends_it_as_taken_as_sent_with_an_event() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, lost) = bench.begun(&message);
    accept_one(&store, accept).await;
    let id = first(&message);
    let until = bench.now().plus(HOLD);
    store.settle(vec![bench.settle(id, &lost, unsure(), Step::Hold(until))]).await.unwrap();
    bench.clock.advance(HOLD);
    let (_, again) = begin_one(&store, &bench, id, &lost.esp).await;
    let assume = || bench.settle(id, &again, unsure(), Step::Assume(bench.now().plus(HOLD)));
    store.settle(vec![assume()]).await.unwrap();
    store.settle(vec![assume()]).await.unwrap();
    assert_eq!(state_of(&store, id).await.reason, Some(Reason::Assumed));
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(kinds(&view), ["accepted", "may_arrive_twice", "assumed"], "each once");
    assert!(view.events[2].detail.contains("taken as sent"), "{:?}", view.events[2]);
}

#[tokio::test]
async fn an_open_attempt_binds_and_its_late_answer_ends_it() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, lost) = bench.begun(&message);
    accept_one(&store, accept).await;
    let until = bench.now().plus(HOLD);
    let id = first(&message);
    store.settle(vec![bench.settle(id, &lost, unsure(), Step::Hold(until))]).await.unwrap();
    assert!(store.claim_due(bench.now(), 10, |_| true).await.unwrap().is_empty(), "held");
    let claim = store.claim_due(until, 10, |_| true).await.unwrap().remove(0);
    assert_eq!((claim.open_attempts, claim.open_by_crash), (1, 0));
    assert_eq!(claim.bound_to.as_deref(), Some("one"));
    let (begun, again) = begin_one(&store, &bench, id, "one").await;
    assert_eq!(begun, Begin::Begun { twice: true });
    assert_eq!(kinds(&store.show(message.id).await.unwrap().unwrap()), ["accepted", "may_arrive_twice"]);

    assert_eq!(store.wanted(vec![(id, again.attempt)]).await, Ok(vec![true]));
    let taken_back = store.unbegin(vec![(id, again.attempt)], bench.now()).await;
    assert_eq!(taken_back, [Ok(true)]);
    let hold = QueueState::Unsure { attempt: lost.attempt, until: bench.now() };
    assert_eq!(state_of(&store, id).await.state, hold, "an open attempt leads back to its hold");
    let late = store.settle(vec![bench.settle(id, &lost, accepted(), Step::Done)]).await.unwrap();
    assert_eq!(late, [Settled::Moved(QueueState::Done)]);
    let changed = store.settle(vec![bench.settle(id, &lost, refused(), Step::Bounce)]).await.unwrap();
    assert_eq!(changed, [Settled::RowOnly], "an answer never changes");
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(view.attempts[0].outcome, "accepted");
    assert_eq!(view.deliveries[0].known, Known::Handed);
}

#[tokio::test]
async fn a_repeat_that_has_not_started_is_not_wanted_once_the_first_was_taken() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, lost) = bench.begun(&message);
    accept_one(&store, accept).await;
    let id = first(&message);
    store.settle(vec![bench.settle(id, &lost, unsure(), Step::Hold(bench.now()))]).await.unwrap();
    let (_, again) = begin_one(&store, &bench, id, "one").await;
    let before = store.verdicts();
    store.settle(vec![bench.settle(id, &lost, accepted(), Step::Done)]).await.unwrap();
    assert!(store.verdicts() > before, "who is about to send it looks once more");
    assert_eq!(store.wanted(vec![(id, again.attempt)]).await, Ok(vec![false]));
    assert_eq!(store.unbegin(vec![(id, again.attempt)], bench.now()).await, [Ok(true)]);
    assert_eq!(state_of(&store, id).await.state, QueueState::Done);
}

#[tokio::test]
async fn an_unbegun_delivery_waits_again_and_it_was_no_dispatch() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    let items = vec![(first(&message), beginning.attempt)];
    assert_eq!(store.unbegin(items.clone(), START).await, [Ok(true)]);
    assert_eq!(store.unbegin(items, START).await, [Ok(false)]);
    let view = state_of(&store, first(&message)).await;
    assert_eq!((view.state, view.tries), (QueueState::Waiting { due: START }, 0));
    assert_eq!(store.queue_octets(), 10);
}

#[tokio::test]
async fn operators_stop_and_end_mail() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
    let (mut accept, beginning) = bench.begun(&message);
    accept.entries[1] = Entry::Waiting { due: bench.now().plus(HOLD) };
    accept_one(&store, accept).await;
    let unknown = MessageId::from_number(5);
    let acted = store.act(Act::Pause, vec![message.id, unknown]).await;
    assert_eq!(acted[0], Ok(Acted { found: true, changed: 2, out: 1, due: None }));
    assert_eq!(acted[1], Ok(Acted::default()));
    assert_eq!(state_of(&store, first(&message)).await.mark, Mark::Pause);
    let later = bench.now().plus(HOLD);
    store
        .settle(vec![bench.settle(first(&message), &beginning, refused(), Step::Later(later))])
        .await
        .unwrap();
    let listed = store.list(Filter { states: vec!["paused".into()], limit: 10, ..Filter::default() }).await;
    assert_eq!(listed.unwrap().len(), 2);
    assert!(store.claim_due(later, 10, |_| true).await.unwrap().is_empty());
    assert_eq!(
        store.act(Act::Release, vec![message.id]).await[0],
        Ok(Acted { found: true, changed: 2, out: 0, due: None })
    );
    assert_eq!(store.claim_due(bench.now(), 10, |_| true).await.unwrap().len(), 2);
    assert_eq!(
        store.act(Act::Remove, vec![message.id]).await[0],
        Ok(Acted { found: true, changed: 2, out: 0, due: None })
    );
    assert_eq!(state_of(&store, first(&message)).await.reason, Some(Reason::Removed));
    assert_eq!(store.queue_octets(), 0);
}

#[tokio::test]
async fn what_is_released_or_requeued_keeps_its_app_s_moment_until_it_was_flushed_or_tried() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let later = bench.now().plus(HOLD);
    let entries = vec![Entry::Waiting { due: later }];
    accept_one(&store, Accept { message: message.clone(), entries, rules: Vec::new() }).await;
    let due = async || match state_of(&store, first(&message)).await.state {
        QueueState::Waiting { due } => Some(due),
        _ => None,
    };
    let act = async |act| store.act(act, vec![message.id]).await.remove(0).unwrap().due;
    act(Act::Pause).await;
    assert_eq!((act(Act::Release).await, due().await), (Some(later), Some(later)));
    act(Act::Remove).await;
    let max_age = MaxAge::new(|_| Duration::from_secs(60));
    let again = store.requeue(vec![message.id], max_age).await.unwrap().remove(0);
    assert_eq!(again, Requeued::Again { deliveries: 1, twice: 0, due: Some(later) });
    let view = state_of(&store, first(&message)).await;
    assert_eq!((due().await, view.expires_at), (Some(later), later.plus(Duration::from_secs(60))));
    act(Act::Flush).await;
    act(Act::Pause).await;
    assert_eq!((act(Act::Release).await, due().await), (None, Some(bench.now())));
}

#[tokio::test]
async fn flush_makes_everything_due_but_holds_and_what_its_app_keeps_for_later() {
    let bench = Bench::new();
    let store = bench.open();
    let later = bench.now().plus(HOLD);
    let mut off = Vec::new();
    for _ in 0..1_100 {
        let message = bench.message(&["a@x.example"], StreamKind::Broadcast, 10);
        accept_one(&store, bench.waiting(&message)).await;
        let delivery = first(&message);
        let from = state_of(&store, delivery).await.state;
        off.push(PutOff { delivery, from, until: later, round_ends: false });
    }
    store.put_off(off).await.unwrap();
    let scheduled = bench.message(&["a@x.example"], StreamKind::Broadcast, 10);
    let entries = vec![Entry::Waiting { due: later }];
    accept_one(&store, Accept { message: scheduled.clone(), entries, rules: Vec::new() }).await;
    let held = bench.message(&["a@x.example"], StreamKind::Broadcast, 10);
    let (accept, lost) = bench.begun(&held);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&held), &lost, unsure(), Step::Hold(later))]).await.unwrap();
    assert_eq!(store.flush_all().await, Ok(1_100));
    assert_eq!(store.flush_all().await, Ok(0));
    assert_eq!(store.claim_due(bench.now(), 2_000, |_| true).await.unwrap().len(), 1_100);
    store.act(Act::Flush, vec![scheduled.id]).await.remove(0).unwrap();
    assert_eq!(store.claim_due(bench.now(), 2_000, |_| true).await.unwrap().len(), 1_101);
}

#[tokio::test]
async fn what_has_an_end_ends_whatever_its_state() {
    let bench = Bench::new();
    let store = bench.open();
    let plain = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    accept_one(&store, bench.waiting(&plain)).await;
    let open = bench.message(&["a@x.example"], StreamKind::Broadcast, 10);
    let (accept, lost) = bench.begun(&open);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&open), &lost, unsure(), Step::Hold(START))]).await.unwrap();
    assert!(store.sweep(bench.now(), 100).await.unwrap().is_empty());
    bench.clock.advance(Duration::from_secs(5 * 86_400));
    let ended = store.sweep(bench.now(), 100).await.unwrap();
    let reasons: Vec<_> = ended.iter().map(|d| (d.id.message, d.reason)).collect();
    assert_eq!(reasons, [(plain.id, Some(Reason::Expired)), (open.id, Some(Reason::Assumed))]);
    assert_eq!(kinds(&store.show(open.id).await.unwrap().unwrap()), ["accepted", "assumed"]);
    assert!(store.sweep(bench.now(), 100).await.unwrap().is_empty());
    assert_eq!(store.queue_octets(), 0);
}

#[tokio::test]
async fn a_campaign_that_waits_does_not_hold_up_a_receipt() {
    let bench = Bench::new();
    let store = bench.open();
    for _ in 0..50 {
        accept_one(&store, bench.waiting(&bench.message(&["a@x.example"], StreamKind::Broadcast, 10))).await;
    }
    bench.clock.advance(HOLD);
    let receipt = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    accept_one(&store, bench.waiting(&receipt)).await;
    let claims = store.claim_due(bench.now(), 10, |_| true).await.unwrap();
    assert_eq!(claims.len(), 10);
    assert_eq!(claims[0].delivery.message, receipt.id);
    let counts = store.counts().await.unwrap();
    let counted: Vec<_> = counts.iter().map(|c| (c.stream.as_str(), c.deliveries, c.oldest)).collect();
    assert_eq!(counted, [("broadcast", 50, Some(START)), ("transactional", 1, Some(bench.now()))]);
}

#[tokio::test]
async fn lists_are_filtered_and_go_on_where_they_ended() {
    let bench = Bench::new();
    let store = bench.open();
    for to in ["One@x.example", "two@x.example", "one@x.example"] {
        accept_one(&store, bench.waiting(&bench.message(&[to], StreamKind::Broadcast, 10))).await;
    }
    let ones = Filter { recipient: Some("ONE@x.example".into()), limit: 10, ..Filter::default() };
    assert_eq!(store.list(ones.clone()).await.unwrap().len(), 2);
    let none = Filter { stream: Some("transactional".into()), ..ones.clone() };
    assert!(store.list(none).await.unwrap().is_empty());
    let page = store.list(Filter { limit: 1, ..ones.clone() }).await.unwrap();
    let next = store.list(Filter { before: Some(page[0].id), ..ones }).await.unwrap();
    assert_eq!(next[0].recipient, "One@x.example");
    assert!(next[0].id < page[0].id);
}

#[tokio::test]
async fn a_list_without_a_wish_has_all_that_is_not_done_also_in_a_long_queue() {
    let bench = Bench::new();
    let store = bench.open();
    let message = |to: &str| bench.message(&[to], StreamKind::Transactional, 10);
    let (done, out, waits) =
        (message("done@x.example"), message("out@x.example"), message("waits@x.example"));
    let (accept, beginning) = bench.begun(&done);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&done), &beginning, accepted(), Step::Done)]).await.unwrap();
    accept_one(&store, bench.begun(&out).0).await;
    accept_one(&store, bench.waiting(&waits)).await;
    let all = Filter { limit: 10, ..Filter::default() };
    let ids = |list: Vec<DeliveryView>| list.into_iter().map(|d| d.id).collect::<Vec<_>>();
    assert_eq!(ids(store.list(all.clone()).await.unwrap()), [first(&waits), first(&out)]);
    let only_done = Filter { states: vec!["done".into()], ..all.clone() };
    assert_eq!(ids(store.list(only_done).await.unwrap()), [first(&done)]);
    let many: Vec<String> = (0..20_001).map(|n| format!("u{n}@x.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    accept_one(&store, bench.waiting(&bench.message(&many, StreamKind::Broadcast, 10))).await;
    let quiet = Filter { stream: Some("transactional".into()), ..all };
    assert_eq!(ids(store.list(quiet).await.unwrap()), [first(&waits), first(&out)]);
}

#[tokio::test]
async fn events_are_taken_once_by_their_key() {
    let bench = Bench::new();
    let store = bench.open();
    let event = NewEvent { event_key: Some("esp:1".into()), ..NewEvent::new("delivered", START) };
    let recorded = store.record_events(vec![event.clone(), event, NewEvent::new("other", START)]).await;
    assert_eq!(recorded, [Ok(true), Ok(false), Ok(true)]);
    store.probe_write().await.unwrap();
}

#[tokio::test]
async fn large_bodies_lie_in_chunks_and_what_never_became_mail_is_swept() {
    let bench = Bench::new();
    let store = bench.open();
    let mut message = Message::clone(&bench.message(&["a@x.example"], StreamKind::Transactional, 1_000));
    let orphan = bench.ids.message(&*bench.clock);
    let gone = bench.ids.message(&*bench.clock);
    for n in 0..3u32 {
        for id in [message.id, orphan, gone] {
            store.spill(id, n, vec![n as u8; 200_000].into()).await.unwrap();
        }
    }
    message.body.rest = Some(crate::mail::body::Spilled { message: message.id, chunks: 3, octets: 600_000 });
    message.body.facts.size_octets = 601_000;
    let message = Arc::new(message);
    accept_one(&store, bench.waiting(&message)).await;
    store.discard(gone).await.unwrap();
    store.discard(message.id).await.unwrap();
    assert!(store.chunk(gone, 0).await.is_err());
    assert_eq!(store.chunk(message.id, 2).await.unwrap(), vec![2u8; 200_000]);
    store.close().await;
    let store = bench.open();
    assert!(store.chunk(orphan, 0).await.is_err());
    let back = store.load(vec![message.id]).await.remove(0).unwrap().unwrap();
    assert_eq!(back.body.rest, message.body.rest);
    assert_eq!(store.queue_octets(), 601_000);
}

#[tokio::test]
async fn only_the_relays_user_can_read_it() {
    let bench = Bench::new();
    let store = bench.open();
    accept_one(&store, bench.waiting(&bench.message(&["a@x.example"], StreamKind::Broadcast, 10))).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = bench.settings().data_dir;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_file_that_is_not_ours_or_is_newer_is_left_as_it_is() {
    let bench = Bench::new();
    bench.open().close().await;
    let path = bench.settings().data_dir.join("postroad.db");
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(bench.settings(), ME, bench.clock.clone()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("postroad.db"));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::write(&path, "not a database, but long enough to be looked at as one: ".repeat(40)).unwrap();
    let error = Store::open(bench.settings(), ME, bench.clock.clone()).unwrap_err();
    assert!(matches!(error, OpenError::NotOurs(_)), "{error}");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = Store::open(bench.settings(), ME, bench.clock.clone()).unwrap_err();
    assert!(matches!(error, OpenError::NotOurs(_)), "{error}");

    let settings = Settings { data_dir: path.join("below-a-file"), ..bench.settings() };
    let error = Store::open(settings, ME, bench.clock.clone()).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error}");
}

#[tokio::test]
async fn what_no_esp_can_carry_is_news_once_and_its_end_names_the_last_word_of_each() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 1_000);
    accept_one(&store, bench.waiting(&message)).await;
    let id = first(&message);
    let esps = || vec!["one".to_owned(), "two".to_owned()];
    let unfit = |why: &str| Outcome::Unfit { why: why.into() };
    for (esp, outcome) in [("one", refused()), ("two", unfit("lacks 8BITMIME")), ("one", unfit("takes 9000"))]
    {
        assert_eq!(store.note_unfit(id, esps()).await.unwrap(), None, "before {esp}");
        let (_, beginning) = begin_one(&store, &bench, id, esp).await;
        let settle = bench.settle(id, &beginning, outcome, Step::Later(bench.now()));
        store.settle(vec![settle]).await.unwrap();
    }
    let reasons = "two cannot carry it: lacks 8BITMIME; one cannot carry it: takes 9000";
    assert_eq!(store.unfit_waits().await, Ok(false), "nothing is noted yet");
    assert_eq!(store.note_unfit(id, esps()).await.unwrap().as_deref(), Some(reasons));
    assert_eq!(store.unfit_waits().await, Ok(true));
    assert_eq!(store.note_unfit(id, esps()).await.unwrap(), None, "once a message");
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(kinds(&view), ["accepted", "unfit_everywhere"]);

    bench.clock.advance(Duration::from_secs(6 * 86_400));
    assert_eq!(store.sweep(bench.now(), 10).await.unwrap().len(), 2);
    assert_eq!(store.unfit_waits().await, Ok(false), "its end is the alert's");
    let view = store.show(message.id).await.unwrap().unwrap();
    let of = |n| view.events.iter().rfind(|e| e.recipient == Some(n)).map(|e| e.detail.clone());
    assert_eq!(of(0), Some(format!("its time passed; {reasons}")));
    assert_eq!(of(1).as_deref(), Some("its time passed before it was tried"));
}
