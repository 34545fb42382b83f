//! A new round: who may have one, what counts from it, and what stays with the older attempts.

use super::*;
use crate::mail::{Known, Reason};

const AGE: Duration = Duration::from_secs(7 * 86_400);

async fn requeue(store: &Store, id: MessageId) -> Requeued {
    store.requeue(vec![id], MaxAge::new(|_| AGE)).await.unwrap().remove(0)
}

fn bounced() -> Outcome {
    let fault = crate::mail::Fault::Recipient;
    Outcome::Refused { fault, lasting: true, wait: None, said: "550 5.1.1 nobody".into() }
}

#[tokio::test]
async fn who_bounced_starts_a_new_round_and_who_was_served_does_not() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@example.org", "b@example.org"], StreamKind::Transactional, 100);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    let [a, b] = [0, 1].map(|recipient| DeliveryId { message: message.id, recipient });
    assert_eq!(requeue(&store, message.id).await, Requeued::Nothing, "it is in the queue");
    let settles = vec![
        bench.settle(a, &beginning, accepted(), Step::Done),
        bench.settle(b, &beginning, bounced(), Step::Bounce),
    ];
    store.settle(settles).await.unwrap();
    assert_eq!(store.queue_octets(), 0);

    bench.clock.advance(Duration::from_secs(3_600));
    assert_eq!(requeue(&store, message.id).await, Requeued::Again { deliveries: 1, twice: 0, due: None });
    let now = bench.now();
    let again = state_of(&store, b).await;
    assert_eq!(
        (again.state, again.reason, again.known),
        (QueueState::Waiting { due: now }, None, Known::Nothing)
    );
    assert_eq!((again.expires_at, again.tries), (now.plus(AGE), 1));
    assert!(store.queue_octets() > 0);
    assert_eq!(state_of(&store, a).await.state, QueueState::Done);
    let claims = store.claim_due(now, 10, |_| true).await.unwrap();
    assert_eq!(claims.iter().map(|c| (c.delivery, c.rounds)).collect::<Vec<_>>(), [(b, 0)]);
    let loaded = store.load(vec![message.id]).await.remove(0).unwrap().unwrap();
    assert_eq!(loaded.expires_at, now.plus(AGE), "who reads it sees that its time has not come");
    assert_eq!(requeue(&store, message.id).await, Requeued::Nothing);
    let unknown = MessageId::from_number(5);
    assert_eq!(requeue(&store, unknown).await, Requeued::NoSuchMessage);
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!(kinds(&view), ["accepted", "bounced", "requeued"]);
    assert_eq!(view.attempts.len(), 2, "the older ones are still told");
    store.close().await;
    assert!(bench.open().queue_octets() > 0);
}

#[tokio::test]
async fn what_was_assumed_is_free_of_its_open_attempt_and_a_late_answer_to_that_changes_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    let (accept, old) = bench.begun(&message);
    accept_one(&store, accept).await;
    let id = first(&message);
    let hold = Step::Hold(bench.now());
    store.settle(vec![bench.settle(id, &old, unsure(), hold)]).await.unwrap();
    bench.clock.advance(Duration::from_secs(6 * 86_400));
    let ended = store.sweep(bench.now(), 10).await.unwrap();
    assert_eq!(ended[0].reason, Some(Reason::Assumed));
    assert_eq!(requeue(&store, message.id).await, Requeued::Again { deliveries: 1, twice: 1, due: None });
    let claim = store.claim_due(bench.now(), 10, |_| true).await.unwrap().remove(0);
    assert_eq!((claim.open_attempts, claim.bound_to), (0, None));

    // Late words on the old attempt, once while it waits and once while it is out.
    let no = bench.settle(id, &old, bounced(), Step::Bounce);
    assert_eq!(store.settle(vec![no]).await.unwrap(), [Settled::RowOnly]);
    let new = Beginning { attempt: bench.attempt(), esp: "two".into() };
    let request = BeginRequest { delivery: id, from: claim.from, beginning: new.clone() };
    let begun = store.begin(vec![request]).await.remove(0).unwrap();
    assert_eq!(begun, crate::mail::delivery::Begin::Begun { twice: false });
    let view = state_of(&store, id).await;
    assert_eq!((view.known, view.reason), (Known::Nothing, None));
    let yes = bench.settle(id, &new, accepted(), Step::Done);
    assert_eq!(store.settle(vec![yes]).await.unwrap(), [Settled::Moved(QueueState::Done)]);
    let attempts = store.show(message.id).await.unwrap().unwrap().attempts;
    assert_eq!(attempts.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(), ["refused", "accepted"]);
}

#[tokio::test]
async fn a_late_yes_to_an_older_attempt_stays_with_that() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    let (accept, old) = bench.begun(&message);
    accept_one(&store, accept).await;
    let id = first(&message);
    store.settle(vec![bench.settle(id, &old, unsure(), Step::Hold(bench.now()))]).await.unwrap();
    store.act(Act::Remove, vec![message.id]).await.remove(0).unwrap();
    assert_eq!(requeue(&store, message.id).await, Requeued::Again { deliveries: 1, twice: 1, due: None });
    let told = store.show(message.id).await.unwrap().unwrap();
    assert!(kinds(&told).ends_with(&["removed", "requeued", "may_arrive_twice"]));
    store.act(Act::Remove, vec![message.id]).await.remove(0).unwrap();
    let later = requeue(&store, message.id).await;
    assert_eq!(later, Requeued::Again { deliveries: 1, twice: 1, due: None }, "still open, two rounds on");
    let yes = bench.settle(id, &old, accepted(), Step::Done);
    assert_eq!(store.settle(vec![yes]).await.unwrap(), [Settled::RowOnly]);
    let view = state_of(&store, id).await;
    assert_eq!((view.state, view.known), (QueueState::Waiting { due: bench.now() }, Known::Nothing));
}

#[tokio::test]
async fn without_its_content_nothing_is_sent_again() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    let (accept, beginning) = bench.begun(&message);
    accept_one(&store, accept).await;
    let settle = bench.settle(first(&message), &beginning, bounced(), Step::Bounce);
    store.settle(vec![settle]).await.unwrap();
    bench.clock.advance(Duration::from_secs(7_200));
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 1);
    assert_eq!(requeue(&store, message.id).await, Requeued::BodyGone);
    assert_eq!(state_of(&store, first(&message)).await.state, QueueState::Done);
}
