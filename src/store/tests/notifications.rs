//! Events out to the app: entered with the event, told in order, ended, told once more, forgotten.

use super::*;
use crate::mail::notification::{Next, TRIED_FOR};

const DAY: Duration = Duration::from_secs(86_400);

fn app(events: &[&'static str]) -> Receiver {
    Receiver { name: "app".into(), events: events.to_vec(), gone: Arc::default() }
}

fn event(kind: &str, message: Option<MessageId>) -> NewEvent {
    NewEvent { message, recipient: message.map(|_| 0), ..NewEvent::new(kind, START) }
}

async fn happens(store: &Store, kind: &str, message: Option<MessageId>) {
    assert_eq!(store.record_events(vec![event(kind, message)]).await, [Ok(true)]);
}

async fn due(store: &Store, bench: &Bench) -> Vec<DueNotification> {
    store.notifications_for("app", bench.now(), 100).await.unwrap().due
}

async fn all(store: &Store) -> Vec<Notification> {
    let mut found =
        store.notifications(NotificationFilter { limit: 100, ..Default::default() }).await.unwrap();
    found.reverse();
    found
}

fn noted(bench: &Bench, due: &DueNotification, next: Next) -> Attempted {
    Attempted { n: due.n, next, at: bench.now(), answer: "said".into() }
}

fn json(body: &str) -> serde_json::Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn an_event_is_entered_for_who_wants_it_with_what_is_known_of_it() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["b@example.org"], StreamKind::Transactional, 10);
    let (accept, begun) = bench.begun(&message);
    accept_one(&store, accept).await;
    happens(&store, "bounced", Some(message.id)).await;
    assert_eq!(all(&store).await, [], "nobody is told where nobody wants to be");

    let other = Receiver { name: "other".into(), events: vec!["handed"], gone: Arc::default() };
    store.tell_receivers(vec![app(&["bounced", "handed"]), other]);
    happens(&store, "opened", Some(message.id)).await;
    let mut bounced = event("bounced", Some(message.id));
    (bounced.esp, bounced.detail) = (Some("one".into()), "550 no such user".into());
    store.record_events(vec![bounced]).await;
    let settle = bench.settle(first(&message), &begun, accepted(), Step::Done);
    store.settle(vec![settle]).await.unwrap();

    let told = all(&store).await;
    let whom: Vec<_> = told.iter().map(|n| (n.receiver.as_str(), n.event.as_str())).collect();
    assert_eq!(whom, [("app", "bounced"), ("app", "handed"), ("other", "handed")]);
    assert_eq!(told[1].id, told[2].id, "one event has one id");
    assert!(told[0].id != told[1].id && told[0].id.len() == 20 && told[0].id.starts_with("evt_"));
    let body = json(&told[0].body);
    assert_eq!(
        body,
        serde_json::json!({
            "id": told[0].id, "type": "bounced", "timestamp": START.to_string(),
            "data": {
                "message": message.id.to_string(), "n": 0, "recipient": "b@example.org", "stream": "transactional",
                "esp": "one", "said": "550 no such user", "tags": ["welcome"], "metadata": { "order": "17 \"a\"" },
            }
        })
    );
    let handed = json(&told[1].body);
    assert_eq!((&handed["type"], &handed["data"]["remote_id"]), (&"handed".into(), &"r-1".into()));
    assert_eq!(handed["data"]["attempt"], begun.attempt.to_string());
}

#[tokio::test]
async fn of_one_message_the_next_waits_for_the_one_before_and_other_messages_do_not() {
    let bench = Bench::new();
    let store = bench.open();
    store.tell_receivers(vec![app(&["deferred", "delivered"])]);
    let (a, b) = (MessageId::from_number(1), MessageId::from_number(2));
    for (kind, message) in [("deferred", a), ("delivered", a), ("delivered", b)] {
        happens(&store, kind, Some(message)).await;
    }
    let now_due = due(&store, &bench).await;
    assert_eq!(now_due.iter().map(|d| d.n).collect::<Vec<_>>(), [1, 3]);
    let later = bench.now().plus(Duration::from_secs(60));
    let again = Next::Again { due: later, refusals: 1 };
    let notes = vec![noted(&bench, &now_due[0], again), noted(&bench, &now_due[1], Next::Taken)];
    store.note_notifications(notes).await.unwrap();
    happens(&store, "delivered", Some(a)).await;
    let found = store.notifications_for("app", bench.now(), 100).await.unwrap();
    assert_eq!((found.due, found.next, found.waiting), (vec![], Some(later), 3));

    bench.clock.advance(Duration::from_secs(60));
    for n in [1, 2, 4] {
        let now_due = due(&store, &bench).await;
        assert_eq!(now_due.iter().map(|d| d.n).collect::<Vec<_>>(), [n], "one after the other");
        assert_eq!((now_due[0].tries, now_due[0].refusals), if n == 1 { (1, 1) } else { (0, 0) });
        let next = if n == 2 { Next::Failed } else { Next::Taken };
        store.note_notifications(vec![noted(&bench, &now_due[0], next)]).await.unwrap();
    }
    let states: Vec<_> = all(&store).await.iter().map(|n| n.state.word()).collect();
    assert_eq!(states, ["taken", "failed", "taken", "taken"]);
}

#[tokio::test]
async fn an_event_that_overtakes_its_answer_is_told_with_its_message_once_that_is_known() {
    use crate::mail::effect::SoftRule;
    use crate::mail::{Event, What};
    let bench = Bench::new();
    let store = bench.open();
    store.tell_receivers(vec![app(&["delivered"])]);
    let message = bench.message(&["b@example.org"], StreamKind::Transactional, 10);
    let (accept, begun) = bench.begun(&message);
    accept_one(&store, accept).await;
    let told = |key: &str, remote_id: &str| ToldEvent {
        esp: "one".into(),
        event: Event {
            key: key.into(),
            what: What::Delivered,
            at: START,
            recipient: Some(Address::parse("b@example.org", Grammar::Strict).unwrap()),
            planted: None,
            remote_id: Some(remote_id.into()),
            scope: None,
            unlabelled: None,
            told_as: String::new(),
            said: String::new(),
            raw: "{}".into(),
        },
    };
    let early = vec![told("e-1", "r-1"), told("e-2", "of another app")];
    assert_eq!(store.take_told(SoftRule::default(), early).await.unwrap(), [Taken::Unmatched; 2]);
    assert_eq!(due(&store, &bench).await, [], "they wait for the answer");
    let settle = Settle { heard: true, ..bench.settle(first(&message), &begun, accepted(), Step::Done) };
    store.settle(vec![settle]).await.unwrap();
    let now_due = due(&store, &bench).await;
    assert_eq!(now_due.len(), 1);
    assert_eq!(json(&now_due[0].body)["data"]["message"], message.id.to_string());
    assert_eq!(json(&now_due[0].body)["id"], now_due[0].id);
    bench.clock.advance(Duration::from_secs(5));
    let now_due = due(&store, &bench).await;
    assert_eq!(now_due.len(), 2, "nor for ever");
    assert_eq!(json(&now_due[1].body)["data"]["recipient"], "b@example.org");
}

#[tokio::test]
async fn what_ends_stays_in_the_log_and_is_told_once_more_by_the_same_id() {
    let bench = Bench::new();
    let store = bench.open();
    let other = Receiver { name: "gone".into(), events: vec!["alert"], gone: Arc::default() };
    store.tell_receivers(vec![app(&["alert"]), other]);
    happens(&store, "alert", None).await;
    bench.clock.advance(Duration::from_secs(60));
    happens(&store, "alert", None).await;
    store.tell_receivers(vec![app(&["alert"])]);
    let ended = store.end_notifications_of_others("no more").await.unwrap();
    assert_eq!(ended, [("gone".to_owned(), 2)]);
    let mine = due(&store, &bench).await;
    store.note_notifications(vec![noted(&bench, &mine[0], Next::Taken)]).await.unwrap();
    let past = START.plus(TRIED_FOR).plus(Duration::from_secs(60));
    assert_eq!(
        store.end_notifications("app", Some(past.earlier(Duration::from_millis(1))), "late").await,
        Ok(0)
    );
    assert_eq!(store.end_notifications("app", Some(past), "late").await, Ok(1));
    assert_eq!(store.notifications_for("app", past, 9).await.unwrap(), ForReceiver::default());
    let again = Next::Again { due: past, refusals: 1 };
    store.note_notifications(vec![noted(&bench, &mine[1], again)]).await.unwrap();
    assert_eq!(all(&store).await[2].state, NotificationState::Failed, "it has ended");

    let by = |state, receiver: Option<&str>| NotificationFilter {
        state,
        receiver: receiver.map(str::to_owned),
        limit: 9,
        ..Default::default()
    };
    let failed = Some(NotificationState::Failed);
    for (filter, ns) in [
        (by(failed, None), vec![4, 3, 2]),
        (by(failed, Some("app")), vec![3]),
        (by(Some(NotificationState::Taken), None), vec![1]),
        (by(None, Some("gone")), vec![4, 2]),
        (NotificationFilter { before: Some(3), ..by(None, None) }, vec![2, 1]),
        (NotificationFilter { message: Some(MessageId::from_number(5)), ..by(None, None) }, vec![]),
    ] {
        let found = store.notifications(filter.clone()).await.unwrap();
        assert_eq!(found.iter().map(|n| n.n).collect::<Vec<_>>(), ns, "{filter:?}");
    }

    bench.clock.set(past);
    let those = |failed, since, receiver: Option<&str>| Replay::Those {
        failed,
        since,
        receiver: receiver.map(str::to_owned),
    };
    let replayed = |replayed, without_receiver| Replayed { replayed, without_receiver, ..Default::default() };
    let done = store.replay_notifications(those(true, Some(bench.now()), None)).await.unwrap();
    assert_eq!(done, replayed(0, 0));
    let done = store.replay_notifications(those(true, None, None)).await.unwrap();
    assert_eq!(done, replayed(1, 2));
    let again = due(&store, &bench).await;
    assert_eq!(again.iter().map(|d| (&d.id, d.ends_at)).collect::<Vec<_>>(), [(&mine[1].id, past.plus(DAY))]);
    let since = Some(START.plus(Duration::from_secs(1)));
    let done = store.replay_notifications(those(false, since, Some("app"))).await.unwrap();
    assert_eq!(done, replayed(1, 0));
    let ids = vec![mine[0].id.clone(), "evt_none".into()];
    let done = store.replay_notifications(Replay::Ids(ids)).await.unwrap();
    let unknown = vec!["evt_none".into()];
    assert_eq!(done, Replayed { replayed: 1, without_receiver: 1, unknown, ..Default::default() });
    assert_eq!(store.notifications_for("app", past, 9).await.unwrap().waiting, 2);

    store.end_notifications("app", None, "it wants nothing more").await.unwrap();
    let gone = app(&["alert"]);
    gone.gone.store(true, Ordering::Release);
    store.tell_receivers(vec![gone]);
    for which in [those(true, None, Some("app")), Replay::Ids(mine.iter().map(|d| d.id.clone()).collect())] {
        let done = store.replay_notifications(which).await.unwrap();
        assert_eq!((done.replayed, done.receiver_gone), (0, 2));
    }
    assert_eq!(store.notifications_for("app", past, 9).await.unwrap().waiting, 0, "nothing was begun");
}

#[tokio::test]
async fn what_waits_is_bounded_and_what_is_old_is_forgotten_unless_it_waits() {
    let bench = Bench::new();
    let store = bench.open();
    store.tell_receivers(vec![app(&["alert"])]);
    happens(&store, "alert", None).await;
    let path = bench.settings().data_dir.join("postroad.db");
    let beside = Connection::open(&path).unwrap();
    beside.execute("UPDATE notify_receivers SET waiting = 1000000", []).unwrap();
    happens(&store, "alert", None).await;
    let told = all(&store).await;
    assert_eq!(told.iter().map(|n| n.state.word()).collect::<Vec<_>>(), ["waiting", "failed"]);
    assert!(told[1].answer.as_ref().unwrap().contains("1000000 wait"), "{told:?}");
    bench.clock.advance(3 * DAY);
    store.retain(bench.now()).await.unwrap();
    assert_eq!(all(&store).await.iter().map(|n| n.n).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn an_alert_about_a_receiver_is_for_the_others() {
    let bench = Bench::new();
    let store = bench.open();
    let other = Receiver { name: "other".into(), events: vec!["alert"], gone: Arc::default() };
    store.tell_receivers(vec![app(&["alert"]), other]);
    store.record_receiver_alert("app", "notify_away: app takes no events".into()).await.unwrap();
    let told = all(&store).await;
    assert_eq!(told.iter().map(|n| n.receiver.as_str()).collect::<Vec<_>>(), ["other"]);
    assert_eq!(store.events(false, i64::MAX, 9).await.unwrap()[0].kind, "alert");
}
