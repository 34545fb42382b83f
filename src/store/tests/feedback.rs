//! What ESPs tell: once each, in any order, with its delivery, its address and the queue.

use proptest::prelude::*;

use super::*;
use crate::mail::delivery::{Begin, NotBegun};
use crate::mail::effect::SoftRule;
use crate::mail::{Bounce, Event, Known, Listed, Planted, What};

pub(super) const ESP: &str = "one";
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn event(key: &str, what: What, to: &str, at: Timestamp) -> Event {
    Event {
        key: key.to_owned(),
        what,
        at,
        recipient: Some(Address::parse(to, Grammar::Lenient).unwrap()),
        planted: None,
        remote_id: None,
        scope: None,
        unlabelled: None,
        told_as: String::new(),
        said: format!("words of {key}"),
        raw: "{}".to_owned(),
    }
}

fn told(event: Event) -> ToldEvent {
    ToldEvent { esp: ESP.to_owned(), event }
}

pub(super) async fn take(store: &Store, event: Event) -> Taken {
    store.take_told(SoftRule::default(), vec![told(event)]).await.unwrap().remove(0)
}

/// A message that is out with its first attempt.
pub(super) async fn out(store: &Store, bench: &Bench, to: &[&str]) -> (Arc<Message>, Beginning) {
    let message = bench.message(to, StreamKind::Transactional, 100);
    let (accept, beginning) = bench.begun(&message);
    accept_one(store, accept).await;
    (message, beginning)
}

pub(super) async fn held(store: &Store, bench: &Bench, to: &str) -> (Arc<Message>, Beginning) {
    let (message, beginning) = out(store, bench, &[to]).await;
    let until = bench.now().plus(HOLD);
    store.settle(vec![bench.settle(first(&message), &beginning, unsure(), Step::Hold(until))]).await.unwrap();
    (message, beginning)
}

pub(super) fn joined(delivery: DeliveryId, settled: bool) -> Joined {
    Joined { message: delivery.message, delivery: Some(delivery), settled }
}

pub(super) fn planted(event: Event, message: &Message, beginning: &Beginning) -> Event {
    Event { planted: Some(Planted { message: message.id, attempt: beginning.attempt }), ..event }
}

async fn reasons(store: &Store, key: &str) -> Vec<String> {
    let key = key.to_owned();
    let read = store.read(move |conn| {
        let mut rows =
            conn.prepare("SELECT reason, scope FROM suppressions WHERE key = ?1 ORDER BY reason, scope")?;
        rows.query_map([key], |row| Ok(format!("{}/{}", row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
            .collect()
    });
    read.await.unwrap()
}

#[tokio::test]
async fn an_unsure_delivery_is_settled_by_what_was_planted_and_a_repeat_does_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = held(&store, &bench, "a@x.example").await;
    let delivered =
        planted(event("1", What::Delivered, "other@x.example", bench.now()), &message, &beginning);
    let joined = joined(first(&message), true);
    let taken = take(&store, delivered.clone()).await;
    assert_eq!(taken, Taken::Unmatched, "nobody of that name has it");
    let delivered = Event { key: "2".into(), recipient: None, ..delivered };
    assert_eq!(take(&store, delivered.clone()).await, Taken::Joined(joined));
    assert_eq!(take(&store, delivered).await, Taken::Repeat);
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!((view.deliveries[0].state, view.deliveries[0].known), (QueueState::Done, Known::Delivered));
    assert_eq!(view.attempts[0].outcome, "accepted");
    assert_eq!(store.queue_octets(), 0);
}

#[tokio::test]
async fn an_event_that_overtakes_the_answer_finds_its_delivery_by_either_id() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = out(&store, &bench, &["a@x.example"]).await;
    let early = Event {
        remote_id: Some("r-1".into()),
        ..event("1", What::Bounced(Bounce::Hard), "a@x.example", bench.now())
    };
    assert_eq!(take(&store, early).await, Taken::Unmatched);
    let answer = Settle { heard: true, ..bench.settle(first(&message), &beginning, accepted(), Step::Done) };
    store.settle(vec![answer]).await.unwrap();
    let view = store.show(message.id).await.unwrap().unwrap();
    assert_eq!((view.deliveries[0].state, view.deliveries[0].known), (QueueState::Done, Known::Bounced));

    let (other, beginning) = out(&store, &bench, &["b@x.example"]).await;
    let early = planted(event("2", What::Delivered, "b@x.example", bench.now()), &other, &beginning);
    assert!(matches!(take(&store, early).await, Taken::Joined(Joined { settled: false, .. })));
    let refused = bench.settle(first(&other), &beginning, refused(), Step::Later(bench.now()));
    assert_eq!(store.settle(vec![refused]).await.unwrap(), [Settled::Moved(QueueState::Done)]);
    assert_eq!(state_of(&store, first(&other)).await.known, Known::Delivered);
}

pub(super) fn second(message: &Message) -> DeliveryId {
    DeliveryId { message: message.id, recipient: 1 }
}

/// A call for two whose answer was lost.
pub(super) async fn held_by_two(store: &Store, bench: &Bench) -> (Arc<Message>, Beginning) {
    let (message, beginning) = out(store, bench, &["a@x.example", "b@x.example"]).await;
    let step = Step::Hold(bench.now().plus(HOLD));
    let both = [first(&message), second(&message)].map(|id| bench.settle(id, &beginning, unsure(), step));
    store.settle(both.into()).await.unwrap();
    (message, beginning)
}

#[tokio::test]
async fn what_shows_that_a_call_was_taken_settles_it_for_all_of_its_recipients() {
    let bench = Bench::new();
    let store = bench.open();
    for named in [true, false] {
        let (message, beginning) = held_by_two(&store, &bench).await;
        let (other, _) = held_by_two(&store, &bench).await;
        let about = event(&format!("about {named}"), What::Delivered, "a@x.example", bench.now());
        let about = Event { recipient: about.recipient.clone().filter(|_| named), ..about };
        let taken = take(&store, planted(about, &message, &beginning)).await;
        let delivery = named.then(|| first(&message));
        assert_eq!(taken, Taken::Joined(Joined { message: message.id, delivery, settled: true }));
        let whose = if named { Known::Delivered } else { Known::Handed };
        for (id, known) in [(first(&message), whose), (second(&message), Known::Handed)] {
            let delivery = state_of(&store, id).await;
            assert_eq!((delivery.state, delivery.known), (QueueState::Done, known), "named: {named}");
        }
        let view = store.show(message.id).await.unwrap().unwrap();
        assert!(view.attempts.iter().all(|attempt| attempt.outcome == "accepted"));
        assert!(matches!(state_of(&store, first(&other)).await.state, QueueState::Unsure { .. }));
    }
}

#[tokio::test]
async fn an_event_that_came_before_the_answer_was_lost_settles_it_for_all() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = out(&store, &bench, &["a@x.example", "b@x.example"]).await;
    let early = planted(event("1", What::Delivered, "a@x.example", bench.now()), &message, &beginning);
    assert!(matches!(take(&store, early).await, Taken::Joined(Joined { settled: false, .. })));
    let step = Step::Hold(bench.now().plus(HOLD));
    for (id, known) in [(first(&message), Known::Delivered), (second(&message), Known::Handed)] {
        let settled = store.settle(vec![bench.settle(id, &beginning, unsure(), step)]).await.unwrap();
        assert_eq!(settled, [Settled::Moved(QueueState::Done)]);
        assert_eq!(state_of(&store, id).await.known, known);
    }
}

#[tokio::test]
async fn a_refusal_by_the_esp_itself_says_nothing_of_the_others_of_its_call() {
    let bench = Bench::new();
    let store = bench.open();
    let rejected = |key: &str, to: &str| event(key, What::Bounced(Bounce::Refused), to, bench.now());
    // Told after the answer was lost, and before.
    let (late, beginning) = held_by_two(&store, &bench).await;
    let taken = take(&store, planted(rejected("1", "a@x.example"), &late, &beginning)).await;
    assert_eq!(taken, Taken::Joined(joined(first(&late), true)));
    let (early, again) = out(&store, &bench, &["a@x.example", "b@x.example"]).await;
    take(&store, planted(rejected("2", "a@x.example"), &early, &again)).await;
    let step = Step::Hold(bench.now().plus(HOLD));
    let both = [first(&early), second(&early)].map(|id| bench.settle(id, &again, unsure(), step));
    store.settle(both.into()).await.unwrap();
    for message in [&late, &early] {
        let named = state_of(&store, first(message)).await;
        assert_eq!((named.state, named.known), (QueueState::Done, Known::Bounced));
        let other = state_of(&store, second(message)).await;
        assert!(matches!(other.state, QueueState::Unsure { .. }), "{other:?}");
        let view = store.show(message.id).await.unwrap().unwrap();
        let outcomes: Vec<_> = view.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        assert_eq!(outcomes, ["accepted", "unsure"]);
    }
    let of_its_own = planted(rejected("3", "b@x.example"), &late, &beginning);
    assert_eq!(take(&store, of_its_own).await, Taken::Joined(joined(second(&late), true)));
    assert_eq!(state_of(&store, second(&late)).await.known, Known::Bounced);
}

#[tokio::test]
async fn soft_bounces_hold_an_address_for_a_time_and_take_nothing_from_an_operator() {
    let bench = Bench::new();
    let store = bench.open();
    let stream = StreamName::new("news");
    let blocked = |to: &str| {
        let found = store.blocked(&[to.to_owned()], &stream, StreamKind::Broadcast).unwrap();
        found.into_iter().next().unwrap().map(|by| by.reason)
    };
    let own = NewSuppression {
        key: "b@x.example".into(),
        address: "b@x.example".into(),
        reason: "soft_bounces".into(),
        scope: String::new(),
        source: "operator".into(),
        evidence: None,
        created_at: bench.now(),
        expires_at: None,
    };
    store.suppress(vec![own]).await.remove(0).unwrap();
    for (n, days) in [0, 3, 7].into_iter().enumerate() {
        for to in ["a@x.example", "b@x.example"] {
            let at = bench.now().earlier(DAY * 7).plus(DAY * days);
            take(&store, event(&format!("{n} {to}"), What::Bounced(Bounce::Soft), to, at)).await;
        }
    }
    assert_eq!(blocked("a@x.example").as_deref(), Some("soft_bounces"));
    bench.clock.advance(DAY * 8);
    assert_eq!(blocked("a@x.example"), None, "its mailbox is tried again");
    assert_eq!(blocked("b@x.example").as_deref(), Some("soft_bounces"));
    take(&store, event("again", What::Bounced(Bounce::Soft), "a@x.example", bench.now())).await;
    assert_eq!(blocked("a@x.example").as_deref(), Some("soft_bounces"), "and is full still");
}

#[tokio::test]
async fn the_esp_by_whose_word_it_ended_is_named_though_another_had_it_last() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = held(&store, &bench, "a@x.example").await;
    bench.clock.advance(HOLD);
    let again = Beginning { attempt: bench.attempt(), esp: "two".into() };
    let from = state_of(&store, first(&message)).await.state;
    let request = BeginRequest { delivery: first(&message), from, beginning: again.clone() };
    assert_eq!(store.begin(vec![request]).await.remove(0), Ok(Begin::Begun { twice: true }));
    store.settle(vec![bench.settle(first(&message), &again, accepted(), Step::Done)]).await.unwrap();
    assert_eq!(state_of(&store, first(&message)).await.esp.as_deref(), Some("two"));
    let bounced =
        planted(event("1", What::Bounced(Bounce::Hard), "a@x.example", bench.now()), &message, &again);
    let told = ToldEvent { esp: "two".into(), event: bounced };
    store.take_told(SoftRule::default(), vec![told]).await.unwrap();
    take(&store, planted(event("2", What::Delivered, "a@x.example", bench.now()), &message, &beginning))
        .await;
    let delivery = state_of(&store, first(&message)).await;
    assert_eq!((delivery.known, delivery.esp.as_deref()), (Known::Delivered, Some(ESP)));
}

#[tokio::test]
async fn an_esp_speaks_of_what_it_was_given_alone() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = held(&store, &bench, "a@x.example").await;
    let foreign = planted(event("1", What::Delivered, "a@x.example", bench.now()), &message, &beginning);
    let foreign = ToldEvent { esp: "two".into(), event: foreign };
    let taken = store.take_told(SoftRule::default(), vec![foreign]).await.unwrap();
    assert_eq!(taken, [Taken::Unmatched]);
    assert!(matches!(state_of(&store, first(&message)).await.state, QueueState::Unsure { .. }));
}

#[tokio::test]
async fn an_event_of_an_attempt_that_a_restore_lost_finds_its_delivery() {
    let bench = Bench::new();
    let store = bench.open();
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&message)).await;
    let lost = Beginning { attempt: bench.attempt(), esp: ESP.into() };
    let told = planted(event("1", What::Delivered, "a@x.example", bench.now()), &message, &lost);
    assert_eq!(take(&store, told).await, Taken::Joined(joined(first(&message), true)));
    let delivery = state_of(&store, first(&message)).await;
    assert_eq!((delivery.state, delivery.known), (QueueState::Done, Known::Delivered), "it goes no more");
}

#[tokio::test]
async fn who_complains_while_mail_waits_is_mailed_no_more() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = out(&store, &bench, &["a@x.example"]).await;
    let later = bench.now().plus(HOLD);
    store
        .settle(vec![bench.settle(first(&message), &beginning, refused(), Step::Later(later))])
        .await
        .unwrap();
    take(&store, event("1", What::Complained, "a@x.example", bench.now())).await;
    let from = state_of(&store, first(&message)).await.state;
    let again = Beginning { attempt: bench.attempt(), esp: ESP.into() };
    let request = BeginRequest { delivery: first(&message), from, beginning: again };
    assert_eq!(store.begin(vec![request]).await.remove(0), Ok(Begin::Not(NotBegun::Suppressed)));
    assert_eq!(reasons(&store, "a@x.example").await, ["complaint/"]);
}

#[tokio::test]
async fn what_each_event_does_to_its_address() {
    for (what, wanted) in [
        (What::Bounced(Bounce::Hard), &["hard_bounce/"][..]),
        (What::Bounced(Bounce::Listed(Listed::Bounced)), &["hard_bounce/"]),
        (What::Bounced(Bounce::Listed(Listed::Complained)), &["complaint/"]),
        (What::Bounced(Bounce::Listed(Listed::Unsubscribed)), &["unsubscribe/broadcast"]),
        (What::Bounced(Bounce::Soft), &[]),
        (What::Bounced(Bounce::Policy), &[]),
        (What::Bounced(Bounce::Refused), &[]),
        (What::Complained, &["complaint/"]),
        (What::NotSpam, &[]),
        (What::Unsubscribed, &["unsubscribe/broadcast"]),
        (What::AutoReplied, &[]),
        (What::Opened { machine: false }, &[]),
        (What::Other, &[]),
    ] {
        let bench = Bench::new();
        let store = bench.open();
        take(&store, event("1", what, "a@x.example", bench.now())).await;
        assert_eq!(reasons(&store, "a@x.example").await, wanted, "{what:?}");
        take(&store, event("2", What::NotSpam, "a@x.example", bench.now().plus(DAY))).await;
        assert_eq!(
            reasons(&store, "a@x.example").await,
            wanted,
            "{what:?}: what is no spam takes nothing away"
        );
    }
}

#[tokio::test]
async fn a_wish_is_about_its_streams_and_taken_back_where_it_was_made() {
    let bench = Bench::new();
    let store = bench.open();
    let wish = async |n: u32, esp: &str, what, scope| {
        let at = bench.now().plus(DAY * n);
        let event = Event { scope, ..event(&n.to_string(), what, "a@x.example", at) };
        let told = ToldEvent { esp: esp.to_owned(), event };
        store.take_told(SoftRule::default(), vec![told]).await.unwrap();
        reasons(&store, "a@x.example").await.join(" ")
    };
    let (transactional, broadcast) = (Some(StreamKind::Transactional), Some(StreamKind::Broadcast));
    assert_eq!(wish(1, "one", What::Unsubscribed, transactional).await, "unsubscribe/transactional");
    let both = "unsubscribe/broadcast unsubscribe/transactional";
    assert_eq!(wish(2, "one", What::Unsubscribed, broadcast).await, both);
    assert_eq!(wish(3, "two", What::Unsubscribed, None).await, both);
    assert_eq!(wish(4, "one", What::Resubscribed, broadcast).await, both, "he has left at the other one");
    assert_eq!(wish(5, "two", What::Resubscribed, None).await, "unsubscribe/transactional");
    assert_eq!(wish(6, "one", What::Resubscribed, transactional).await, "");
}

#[tokio::test]
async fn a_message_s_story_tells_what_each_event_did_to_its_address() {
    let bench = Bench::new();
    let store = bench.open();
    let (message, beginning) = held(&store, &bench, "a@x.example").await;
    let tell = async |key: &str, what, days| {
        let at = bench.now().plus(DAY * days);
        let told = planted(event(key, what, "a@x.example", at), &message, &beginning);
        take(&store, Event { told_as: format!("its {key}"), ..told }).await;
    };
    tell("first", What::Bounced(Bounce::Hard), 1).await;
    tell("second", What::Bounced(Bounce::Hard), 2).await;
    tell("third", What::Other, 3).await;
    let story = async || {
        let events = store.show(message.id).await.unwrap().unwrap().events;
        let told = events.into_iter().filter_map(|event| event.told);
        told.map(|told| {
            let by_it = told.suppressed.map(|on_list| (on_list.reason, on_list.by_it));
            (told.told_as.unwrap(), told.class, told.joined, by_it)
        })
        .collect::<Vec<_>>()
    };
    let line = |name: &str, class: Option<&str>, by_it: Option<bool>| {
        let by_it = by_it.map(|by_it| ("hard_bounce".to_owned(), by_it));
        (name.to_owned(), class.map(str::to_owned), JoinedBy::Planted, by_it)
    };
    let hard = Some("hard");
    let both = [line("its first", hard, Some(true)), line("its second", hard, Some(false))];
    assert_eq!(story().await, [&both[..], &[line("its third", None, None)]].concat());
    store.unsuppress("a@x.example".into(), None).await.unwrap();
    let none = [line("its first", hard, None), line("its second", hard, None)];
    assert_eq!(story().await, [&none[..], &[line("its third", None, None)]].concat());
}

#[tokio::test]
async fn what_an_operator_takes_off_the_list_comes_back_by_news_alone() {
    let bench = Bench::new();
    let store = bench.open();
    let to = "a@x.example";
    let heard = async |key: &str, what, at| {
        take(&store, event(key, what, to, at)).await;
        reasons(&store, to).await.join(" ")
    };
    let lift = async || store.unsuppress(to.into(), None).await.unwrap();
    let (soft, hard) = (What::Bounced(Bounce::Soft), What::Bounced(Bounce::Hard));
    let before = bench.now().earlier(DAY * 9);
    for n in 0..3 {
        heard(&format!("soft {n}"), soft, before.plus(DAY * 4 * n)).await;
    }
    assert_eq!(heard("hard", hard, before).await, "hard_bounce/ soft_bounces/");
    assert_eq!(
        heard("left", What::Unsubscribed, before).await,
        "hard_bounce/ soft_bounces/ unsubscribe/broadcast"
    );
    lift().await;
    // What is older than the operator's word, and what was known by then.
    assert_eq!(heard("late hard", hard, before.plus(DAY)).await, "");
    assert_eq!(heard("late soft", soft, before.plus(DAY)).await, "");
    assert_eq!(heard("back", What::Resubscribed, before.earlier(DAY)).await, "");
    // What nobody knew of when he spoke is the recipient's word.
    assert_eq!(heard("late left", What::Unsubscribed, before.plus(DAY)).await, "unsubscribe/broadcast");
    lift().await;
    assert_eq!(heard("late complaint", What::Complained, before).await, "complaint/");
    lift().await;
    bench.clock.advance(DAY);
    assert_eq!(heard("one soft", soft, bench.now()).await, "", "one of them is no proof");
    assert_eq!(heard("new hard", hard, bench.now()).await, "hard_bounce/");
}

#[tokio::test]
async fn an_operators_word_is_not_an_esps_to_take_away() {
    let bench = Bench::new();
    let store = bench.open();
    let own = NewSuppression {
        key: "a@x.example".into(),
        address: "a@x.example".into(),
        reason: "unsubscribe".into(),
        scope: "broadcast".into(),
        source: "operator".into(),
        evidence: None,
        created_at: bench.now(),
        expires_at: None,
    };
    store.suppress(vec![own]).await.remove(0).unwrap();
    take(&store, event("1", What::Resubscribed, "a@x.example", bench.now().plus(DAY))).await;
    assert_eq!(reasons(&store, "a@x.example").await, ["unsubscribe/broadcast"]);
}

/// All that follows from events, as it stands in the end.
async fn outcome(store: &Store) -> Vec<String> {
    let read = store.read(|conn| {
        let mut all = Vec::new();
        for sql in [
            "SELECT key || ' ' || reason || ' ' || scope || ' ' || source || ' ' || created_at || ' ' || evidence
             FROM suppressions ORDER BY 1",
            "SELECT key || ' ' || class || ' ' || at FROM bounces ORDER BY 1",
            "SELECT key || ' ' || at FROM complaints ORDER BY 1",
            "SELECT hour || ' ' || destination || ' ' || sent || ' ' || deferred || ' ' || delivered || ' ' || hard
                 || ' ' || soft || ' ' || policy || ' ' || dropped || ' ' || complained || ' ' || opened || ' ' || clicked
             FROM esp_performance ORDER BY 1",
            "SELECT message || ' ' || recipient || ' ' || state || ' ' || known || ' ' || coalesce(reason, '-')
             FROM email_sends ORDER BY 1",
        ] {
            let mut rows = conn.prepare(sql)?;
            all.extend(rows.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok(all)
    });
    read.await.unwrap()
}

fn whats() -> impl Strategy<Value = What> {
    prop_oneof![
        Just(What::Sent),
        Just(What::Deferred),
        Just(What::Delivered),
        Just(What::Bounced(Bounce::Hard)),
        Just(What::Bounced(Bounce::Soft)),
        Just(What::Bounced(Bounce::Policy)),
        Just(What::Bounced(Bounce::Listed(Listed::Unsubscribed))),
        Just(What::Complained),
        Just(What::Opened { machine: false }),
        Just(What::Unsubscribed),
        Just(What::Resubscribed),
        Just(What::Other),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// DELIVERY rule 15: whatever the order, and however often.
    #[test]
    fn any_order_and_any_repeats_end_alike(
        events in prop::collection::vec((whats(), 0..2u8, 0..40i64), 1..24),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ends: Vec<Vec<String>> = [false, true].into_iter().map(|shuffled| runtime.block_on(async {
            let bench = Bench::new();
            let store = bench.open();
            let (message, beginning) = held(&store, &bench, "r0@x.example").await;
            let (other, second) = held(&store, &bench, "r1@x.example").await;
            let told: Vec<Event> = events.iter().enumerate().map(|(n, (what, who, day))| {
                let at = bench.now().plus(DAY * u32::try_from(*day).unwrap());
                let (message, beginning) = if *who == 0 { (&message, &beginning) } else { (&other, &second) };
                planted(event(&n.to_string(), *what, &format!("r{who}@x.example"), at), message, beginning)
            }).collect();
            let mut sent: Vec<Event> = Vec::new();
            if shuffled {
                sent.extend(order.iter().map(|index| told[index.index(told.len())].clone()));
                sent.extend(told.iter().rev().cloned());
            } else {
                sent.extend(told.iter().cloned());
            }
            let sent = sent.into_iter().map(super::feedback::told).collect();
            store.take_told(SoftRule::default(), sent).await.unwrap();
            let end = outcome(&store).await;
            store.close().await;
            end
        })).collect();
        prop_assert_eq!(&ends[0], &ends[1]);
    }
}
