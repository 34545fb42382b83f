//! Events that name no attempt of ours: settled is what fits, and nothing that may be another's.

use super::feedback::*;
use super::*;
use crate::mail::event::Unlabelled;
use crate::mail::{Bounce, Event, Known, What};

#[tokio::test]
async fn by_recipient_and_time_only_what_fits_alone_is_settled() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, _) = held(&store, &bench, "a@x.example").await;
    let before = event("0", What::Delivered, "a@x.example", bench.now().earlier(DAY));
    assert_eq!(take(&store, before).await, Taken::Unmatched, "it was told before anything was begun");
    let (twin, _) = held(&store, &bench, "b@x.example").await;
    let (other, _) = held(&store, &bench, "b@x.example").await;
    let later = bench.now().plus(Duration::from_secs(5));
    assert_eq!(take(&store, event("1", What::Delivered, "b@x.example", later)).await, Taken::Unmatched);
    for id in [&twin, &other] {
        assert!(matches!(state_of(&store, first(id)).await.state, QueueState::Unsure { .. }));
    }
    // Another app's mail to the same address, through the same account.
    let foreign =
        Event { remote_id: Some("r-9".into()), ..event("3", What::Delivered, "a@x.example", later) };
    let opened = event("4", What::Opened { machine: false }, "a@x.example", later);
    for other in [foreign, opened] {
        assert_eq!(take(&store, other).await, Taken::Unmatched);
        assert!(matches!(state_of(&store, first(&message)).await.state, QueueState::Unsure { .. }));
    }
    // An id that nobody heard of, in an event that has no place for ours.
    let unlabelled = Event {
        remote_id: Some("r-8".into()),
        unlabelled: Some(mail(&["a@x.example"], bench.now())),
        ..event("2", What::Delivered, "a@x.example", later)
    };
    assert_eq!(take(&store, unlabelled).await, Taken::Joined(joined(first(&message), true)));
    let (message, _) = held(&store, &bench, "a@x.example").await;
    let later = later.plus(DAY);
    let alone = take(&store, event("5", What::Delivered, "a@x.example", later)).await;
    assert_eq!(alone, Taken::Joined(joined(first(&message), true)));
}

#[tokio::test]
async fn an_event_without_any_id_finds_what_was_taken_lately_where_that_alone_fits() {
    let bench = Bench::new();
    let store = bench.open();
    let sent = async |to: &str| {
        let (message, beginning) = out(&store, &bench, &[to]).await;
        store.settle(vec![bench.settle(first(&message), &beginning, accepted(), Step::Done)]).await.unwrap();
        message
    };
    let only = sent("a@x.example").await;
    sent("b@x.example").await;
    let at = bench.now().plus(Duration::from_secs(5));
    let bounced = |key: &str, to: &str, at| event(key, What::Bounced(Bounce::Hard), to, at);
    let found = Taken::Joined(joined(first(&only), false));
    assert_eq!(
        take(&store, bounced("before", "a@x.example", bench.now().earlier(DAY))).await,
        Taken::Unmatched
    );
    assert_eq!(take(&store, bounced("long ago", "a@x.example", at.plus(DAY * 4))).await, Taken::Unmatched);
    let foreign = Event { remote_id: Some("r-9".into()), ..bounced("foreign", "a@x.example", at) };
    assert_eq!(take(&store, foreign).await, Taken::Unmatched);
    assert_eq!(take(&store, bounced("1", "a@x.example", at)).await, found);
    assert_eq!(state_of(&store, first(&only)).await.known, Known::Bounced);
    sent("b@x.example").await;
    assert_eq!(take(&store, bounced("2", "b@x.example", at)).await, Taken::Unmatched, "either may be meant");
}

/// An event is told so long after the ESP took the mail.
const SOON: Duration = Duration::from_secs(5);

/// What SES says of mail of the bench's sender to those, which it took then.
fn mail(to: &[&str], taken_at: Timestamp) -> Unlabelled {
    let recipients = to.iter().map(|to| (*to).to_owned()).collect();
    let sender = Some("app@example.com".into());
    Unlabelled { sender, taken_at: Some(taken_at), recipients, message_id: None }
}

/// As SES tells an identity's owner: with an id of its own, and no place for ours.
fn notified(key: &str, what: What, to: &str, at: Timestamp) -> Event {
    Event {
        remote_id: Some("r-1".into()),
        unlabelled: Some(mail(&[to], at.earlier(SOON))),
        ..event(key, what, to, at)
    }
}

#[tokio::test]
async fn a_notification_of_other_mail_to_the_same_address_settles_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = out(&store, &bench, &["a@x.example", "b@x.example"]).await;
    let at = bench.now().plus(Duration::from_secs(5));
    let about = |key: &str, sender: &str, to: &[&str]| {
        let unlabelled = Some(Unlabelled { sender: Some(sender.to_owned()), ..mail(to, bench.now()) });
        Event { unlabelled, ..notified(key, What::Delivered, "a@x.example", at) }
    };
    // One of them comes before the answer is lost, the rest after it.
    assert_eq!(take(&store, about("0", "app@example.com", &["a@x.example"])).await, Taken::Unmatched);
    let step = Step::Hold(bench.now().plus(HOLD));
    let both = [first(&message), second(&message)].map(|id| bench.settle(id, &beginning, unsure(), step));
    store.settle(both.into()).await.unwrap();
    let to = ["b@x.example", "a@x.example"];
    for other in [
        about("1", "app@example.com", &["a@x.example"]),
        about("2", "app@example.com", &["a@x.example", "b@x.example", "c@x.example"]),
        about("3", "other@shop.example", &to),
    ] {
        assert_eq!(take(&store, other).await, Taken::Unmatched);
        for id in [first(&message), second(&message)] {
            assert!(matches!(state_of(&store, id).await.state, QueueState::Unsure { .. }));
        }
    }
    let taken = |key: &str, taken_at| {
        let told = about(key, "app@example.com", &to);
        let unlabelled = told.unlabelled.clone().map(|mail| Unlabelled { taken_at: Some(taken_at), ..mail });
        Event { unlabelled, ..told }
    };
    let older = taken("older", bench.now().earlier(Duration::from_secs(20)));
    assert_eq!(take(&store, older).await, Taken::Unmatched, "it was taken before that call");
    let own = take(&store, Event { key: "4".into(), ..taken("own", bench.now()) }).await;
    assert_eq!(own, Taken::Joined(joined(first(&message), true)));
    assert_eq!(state_of(&store, second(&message)).await.state, QueueState::Done, "it was the call's");
}

#[tokio::test]
async fn an_event_without_any_id_says_nothing_of_the_others_of_its_call() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, _) = held_by_two(&store, &bench).await;
    let alone = event("1", What::Delivered, "a@x.example", bench.now());
    assert_eq!(take(&store, alone).await, Taken::Joined(joined(first(&message), true)));
    assert!(matches!(state_of(&store, second(&message)).await.state, QueueState::Unsure { .. }));
}

#[tokio::test]
async fn a_notification_without_our_ids_that_overtakes_a_lost_answer_settles_it() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = out(&store, &bench, &["a@x.example", "b@x.example"]).await;
    let at = bench.now().plus(Duration::from_secs(5));
    let to_both = Some(mail(&["a@x.example", "b@x.example"], bench.now()));
    let told = Event { unlabelled: to_both.clone(), ..notified("1", What::Delivered, "a@x.example", at) };
    assert_eq!(take(&store, told).await, Taken::Unmatched);
    let step = Step::Hold(bench.now().plus(HOLD));
    let both = [first(&message), second(&message)].map(|id| bench.settle(id, &beginning, unsure(), step));
    store.settle(both.into()).await.unwrap();
    for (id, known) in [(first(&message), Known::Delivered), (second(&message), Known::Handed)] {
        let delivery = state_of(&store, id).await;
        assert_eq!((delivery.state, delivery.known), (QueueState::Done, known));
    }
    let view = store.show(message.id).await.unwrap().unwrap();
    let told = view.events.iter().find_map(|event| event.told.as_ref()).unwrap();
    assert_eq!((told.joined, told.joined.confidence()), (JoinedBy::Recipient, Some(0.5)));
    // What comes later goes by the id that the answer would have told.
    let later = notified("2", What::Complained, "a@x.example", at.plus(DAY));
    assert_eq!(take(&store, later).await, Taken::Joined(joined(first(&message), false)));
    assert_eq!(state_of(&store, first(&message)).await.known, Known::Complained);
}

#[tokio::test]
async fn a_notification_that_may_be_about_another_settles_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    // One is held, and the other is out: its answer will tell the id.
    let (message, _) = held(&store, &bench, "a@x.example").await;
    let (other, beginning) = out(&store, &bench, &["a@x.example"]).await;
    let at = bench.now().plus(Duration::from_secs(5));
    assert_eq!(take(&store, notified("1", What::Delivered, "a@x.example", at)).await, Taken::Unmatched);
    let taken = Outcome::Accepted { remote_id: Some("r-1".into()), said: "ok".into() };
    let answer = Settle { heard: true, ..bench.settle(first(&other), &beginning, taken, Step::Done) };
    store.settle(vec![answer]).await.unwrap();
    assert_eq!(state_of(&store, first(&other)).await.known, Known::Delivered);
    assert!(matches!(state_of(&store, first(&message)).await.state, QueueState::Unsure { .. }));
    // Two messages were told of, and one was lost.
    let (third, beginning) = out(&store, &bench, &["c@x.example"]).await;
    for (key, id) in [("2", "r-2"), ("3", "r-3")] {
        let event = notified(key, What::Delivered, "c@x.example", at);
        take(&store, Event { remote_id: Some(id.into()), ..event }).await;
    }
    let step = Step::Hold(bench.now().plus(HOLD));
    store.settle(vec![bench.settle(first(&third), &beginning, unsure(), step)]).await.unwrap();
    assert!(matches!(state_of(&store, first(&third)).await.state, QueueState::Unsure { .. }));
}

/// Whatever became of its delivery since, an attempt without an answer is the one that was told of.
#[tokio::test]
async fn what_was_paused_or_removed_or_taken_as_sent_is_found_and_no_other() {
    let bench = Bench::new();
    let store = bench.open();
    for (n, act) in [None, Some(Act::Pause), Some(Act::Remove)].into_iter().enumerate() {
        let to = format!("{n}@x.example");
        let (message, _) = held(&store, &bench, &to).await;
        match act {
            Some(act) => drop(store.act(act, vec![message.id]).await),
            None => {
                let over = message.expires_at.plus(DAY);
                assert_eq!(store.sweep(over, 10).await.unwrap().len(), 1, "taken as sent");
            }
        }
        bench.clock.advance(Duration::from_secs(5));
        let (other, _) = held(&store, &bench, &to).await;
        let taken_at = Some(message.accepted_at);
        let told = notified(&to, What::Delivered, &to, bench.now().plus(Duration::from_secs(5)));
        let told = Event {
            remote_id: Some(to.clone()),
            unlabelled: told.unlabelled.clone().map(|mail| Unlabelled { taken_at, ..mail }),
            ..told
        };
        let taken = take(&store, told).await;
        assert_eq!(taken, Taken::Joined(joined(first(&message), act == Some(Act::Pause))), "{act:?}");
        let delivery = state_of(&store, first(&message)).await;
        assert_eq!((delivery.state, delivery.known), (QueueState::Done, Known::Delivered), "{act:?}");
        assert!(matches!(state_of(&store, first(&other)).await.state, QueueState::Unsure { .. }), "{act:?}");
    }
}

#[tokio::test]
async fn where_two_fit_alike_neither_is_settled_whatever_they_are() {
    let bench = Bench::new();
    let store = bench.open();
    let (removed, _) = held(&store, &bench, "a@x.example").await;
    store.act(Act::Remove, vec![removed.id]).await;
    let (other, _) = held(&store, &bench, "a@x.example").await;
    let at = bench.now().plus(Duration::from_secs(5));
    assert_eq!(take(&store, notified("1", What::Delivered, "a@x.example", at)).await, Taken::Unmatched);
    assert!(matches!(state_of(&store, first(&other)).await.state, QueueState::Unsure { .. }));
}

#[tokio::test]
async fn what_says_too_little_of_its_mail_settles_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, _) = held(&store, &bench, "a@x.example").await;
    let at = bench.now().plus(Duration::from_secs(5));
    let full = mail(&["a@x.example"], bench.now());
    for (key, little) in [
        ("nothing", Unlabelled::default()),
        ("no sender", Unlabelled { sender: None, ..full.clone() }),
        ("nobody", Unlabelled { recipients: Default::default(), ..full.clone() }),
        ("no time", Unlabelled { taken_at: None, ..full.clone() }),
        ("long after", Unlabelled { taken_at: Some(bench.now().plus(DAY)), ..full.clone() }),
    ] {
        let told = Event { unlabelled: Some(little), ..notified(key, What::Delivered, "a@x.example", at) };
        assert_eq!(take(&store, told).await, Taken::Unmatched, "{key}");
    }
    let told = Event { unlabelled: Some(full), ..notified("all", What::Delivered, "a@x.example", at) };
    assert_eq!(take(&store, told).await, Taken::Joined(joined(first(&message), true)));
}

#[tokio::test]
async fn the_message_id_tells_mail_of_one_sender_to_one_address_apart() {
    let bench = Bench::new();
    let store = bench.open();
    let at = bench.now().plus(Duration::from_secs(5));
    let mut messages = Vec::new();
    for n in 1..=2 {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 0);
        let head = format!("From: App <shop@example.com>\r\nMessage-ID:\r\n <{n}@example.com>\r\n\r\nhi\r\n");
        let message = Arc::new(Message { body: Body::whole(head), ..(*message).clone() });
        let (accept, beginning) = bench.begun(&message);
        accept_one(&store, accept).await;
        let step = Step::Hold(bench.now().plus(HOLD));
        store.settle(vec![bench.settle(first(&message), &beginning, unsure(), step)]).await.unwrap();
        messages.push(message);
    }
    let told = |n: u32| {
        let named = Unlabelled {
            message_id: Some(format!("{n}@example.com")),
            ..mail(&["a@x.example"], bench.now())
        };
        let event = notified(&n.to_string(), What::Delivered, "a@x.example", at);
        Event { remote_id: Some(format!("r-{n}")), unlabelled: Some(named), ..event }
    };
    assert_eq!(take(&store, told(3)).await, Taken::Unmatched, "another app's");
    assert_eq!(take(&store, told(2)).await, Taken::Joined(joined(first(&messages[1]), true)));
    assert!(matches!(state_of(&store, first(&messages[0])).await.state, QueueState::Unsure { .. }));
    // By From, as the API's door names the sender.
    let by_from =
        Unlabelled { sender: Some("shop@example.com".into()), ..mail(&["a@x.example"], bench.now()) };
    let told = Event { unlabelled: Some(by_from), ..notified("from", What::Delivered, "a@x.example", at) };
    assert_eq!(take(&store, told).await, Taken::Joined(joined(first(&messages[0]), true)));
}

/// Two entries of one account: what is told of one's mail may come by the other's webhook.
#[tokio::test]
async fn news_of_another_entrys_mail_settles_nothing_here() {
    let bench = Bench::new();
    let senders = [ESP, "two"].map(|esp| (esp.to_owned(), None)).into();
    let kin = Kin { apart: vec!["apart".into()], senders };
    let store = Store::open(Settings { kin, ..bench.settings() }, ME, bench.clock.clone()).unwrap();
    let at = async |esp: &str, to: &str, outcome: Option<Outcome>| {
        let message = bench.message(&[to], StreamKind::Transactional, 100);
        let beginning = Beginning { attempt: bench.attempt(), esp: esp.into() };
        let entries = vec![Entry::Begun(beginning.clone())];
        accept_one(&store, Accept { message: message.clone(), entries, rules: Vec::new() }).await;
        let Some(outcome) = outcome else { return };
        let step = match outcome {
            Outcome::Accepted { .. } => Step::Done,
            _ => Step::Hold(bench.now().plus(HOLD)),
        };
        let settle = bench.settle(first(&message), &beginning, outcome, step);
        store.settle(vec![Settle { heard: true, ..settle }]).await.unwrap();
    };
    // `gone` has another name in the configuration now; `apart` is another provider.
    for esp in ["two", "gone", "apart"] {
        for (how, outcome) in [
            ("out", None),
            ("unsure", Some(unsure())),
            ("taken", Some(Outcome::Accepted { remote_id: Some(format!("r-{esp}")), said: "ok".into() })),
            ("without", Some(Outcome::Accepted { remote_id: None, said: "250 ok".into() })),
        ] {
            let to = format!("{how}-{esp}@x.example");
            let (message, _) = held(&store, &bench, &to).await;
            at(esp, &to, outcome).await;
            let told = notified(&to, What::Delivered, &to, bench.now().plus(SOON));
            let id = if how == "taken" { format!("r-{esp}") } else { to.clone() };
            let settled = take(&store, Event { remote_id: Some(id), ..told }).await != Taken::Unmatched;
            assert_eq!(settled, esp == "apart" && how != "taken", "{to}");
            let state = state_of(&store, first(&message)).await.state;
            assert_eq!(matches!(state, QueueState::Unsure { .. }), !settled, "{to}");
        }
    }
    let (alone, _) = held(&store, &bench, "alone@x.example").await;
    let told = notified("alone", What::Delivered, "alone@x.example", bench.now().plus(SOON));
    let told = Event { remote_id: Some("r-7".into()), ..told };
    assert_eq!(take(&store, told).await, Taken::Joined(joined(first(&alone), true)));
}

#[tokio::test]
async fn an_esp_that_is_given_another_envelope_sender_names_that_one() {
    let bench = Bench::new();
    let kin = Kin { apart: Vec::new(), senders: vec![(ESP.into(), Some("v@shop.example".into()))] };
    let store = Store::open(Settings { kin, ..bench.settings() }, ME, bench.clock.clone()).unwrap();
    let (message, _) = held(&store, &bench, "a@x.example").await;
    let told = |sender: &str| {
        let mail = Unlabelled { sender: Some(sender.into()), ..mail(&["a@x.example"], bench.now()) };
        let event = notified(sender, What::Delivered, "a@x.example", bench.now().plus(SOON));
        Event { unlabelled: Some(mail), ..event }
    };
    assert_eq!(take(&store, told("w@shop.example")).await, Taken::Unmatched);
    assert_eq!(take(&store, told("v@shop.example")).await, Taken::Joined(joined(first(&message), true)));
}

#[tokio::test]
async fn where_more_is_open_than_is_compared_nothing_is_settled() {
    let bench = Bench::new();
    let senders = [ESP, "two"].map(|esp| (esp.to_owned(), None)).into();
    let kin = Kin { apart: vec!["apart".into()], senders };
    let store = Store::open(Settings { kin, ..bench.settings() }, ME, bench.clock.clone()).unwrap();
    let at = async |esp: &str| {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 100);
        let beginning = Beginning { attempt: bench.attempt(), esp: esp.into() };
        let entries = vec![Entry::Begun(beginning.clone())];
        accept_one(&store, Accept { message: message.clone(), entries, rules: Vec::new() }).await;
        let step = Step::Hold(bench.now().plus(HOLD));
        store.settle(vec![bench.settle(first(&message), &beginning, unsure(), step)]).await.unwrap();
        message
    };
    for _ in 0..100 {
        at("apart").await;
    }
    let here = at(ESP).await;
    at("two").await;
    let told = notified("1", What::Delivered, "a@x.example", bench.now().plus(SOON));
    assert_eq!(take(&store, told).await, Taken::Unmatched, "the last may be meant, and was not looked at");
    assert!(matches!(state_of(&store, first(&here)).await.state, QueueState::Unsure { .. }));
}
