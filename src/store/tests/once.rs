//! A message with a key is taken once, whoever's key it is, for its time.

use super::*;
use crate::mail::OnceKey;
use crate::mail::message::KEYS_KEPT;

async fn enter(store: &Store, bench: &Bench, scope: &str) -> (MessageId, Result<Once, NotAccepted>) {
    let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
    let key = OnceKey::chosen(scope.into(), "order-12".into());
    let known = store.taken_once(&key).unwrap();
    let entered = store.accept_once(bench.waiting(&message), key).await;
    assert_eq!(matches!(&entered, Ok(Once::Known(first)) if known == Some(*first)), known.is_some());
    (message.id, entered)
}

#[tokio::test]
async fn the_first_is_told_to_who_comes_again_until_its_key_is_forgotten() {
    let bench = Bench::new();
    let store = bench.open();
    let (first, entered) = enter(&store, &bench, "smtp/shop").await;
    assert_eq!(entered, Ok(Once::Entered(vec![Entered::Waiting; 2])));
    let (again, known) = enter(&store, &bench, "smtp/shop").await;
    assert_eq!(known, Ok(Once::Known(first)));
    assert!(store.show(again).await.unwrap().is_none(), "nothing of it was kept");
    let (_, other) = enter(&store, &bench, "smtp/news").await;
    assert!(matches!(other, Ok(Once::Entered(_))), "somebody else's key is another");

    bench.clock.advance(KEYS_KEPT - Duration::from_secs(1));
    assert_eq!(store.retain(bench.now()).await.unwrap().keys, 0);
    assert_eq!(enter(&store, &bench, "smtp/shop").await.1, Ok(Once::Known(first)));
    bench.clock.advance(Duration::from_secs(1));
    let (second, entered) = enter(&store, &bench, "smtp/shop").await;
    assert!(matches!(entered, Ok(Once::Entered(_))), "{entered:?}");
    assert_eq!(enter(&store, &bench, "smtp/shop").await.1, Ok(Once::Known(second)));
    assert_eq!(store.retain(bench.now()).await.unwrap().keys, 1, "the other one's");
}

#[tokio::test]
async fn a_message_that_finds_no_room_leaves_its_key_free() {
    let bench = Bench::new();
    let tight = Settings { queue_octets_max: 5, ..bench.settings() };
    let store = Store::open(tight, ME, bench.clock.clone()).unwrap();
    assert!(matches!(
        enter(&store, &bench, "smtp/shop").await.1,
        Err(NotAccepted::Store(StoreError::Full(_)))
    ));
    store.close().await;
    let store = bench.open();
    assert!(matches!(enter(&store, &bench, "smtp/shop").await.1, Ok(Once::Entered(_))));
}

#[tokio::test]
async fn each_key_has_its_own_time() {
    let bench = Bench::new();
    let store = bench.open();
    let kept = Duration::from_secs(600);
    let enter = async || {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
        let key = OnceKey::of_the_same("dedupe".into(), "hash".into(), kept);
        (message.id, store.accept_once(bench.waiting(&message), key).await.unwrap())
    };
    let (first, _) = enter().await;
    let chosen = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let key = OnceKey::chosen("smtp/shop".into(), "order-12".into());
    store.accept_once(bench.waiting(&chosen), key.clone()).await.unwrap();
    bench.clock.advance(kept - Duration::from_secs(1));
    assert_eq!(enter().await.1, Once::Known(first), "asking again does not renew it");
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(store.retain(bench.now()).await.unwrap().keys, 1);
    assert!(matches!(enter().await.1, Once::Entered(_)));
    assert_eq!(store.taken_once(&key), Ok(Some(chosen.id)));
}

#[tokio::test]
async fn what_an_operator_took_out_is_another_when_it_comes_again_and_a_chosen_key_is_not() {
    let bench = Bench::new();
    let store = bench.open();
    let same = OnceKey::of_the_same("dedupe".into(), "hash".into(), Duration::from_secs(600));
    for (key, again) in [(same, true), (OnceKey::chosen("smtp/shop".into(), "order-12".into()), false)] {
        let message = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
        store.accept_once(bench.waiting(&message), key.clone()).await.unwrap();
        assert_eq!(store.taken_once(&key), Ok(Some(message.id)));
        store.act(Act::Remove, vec![message.id]).await.remove(0).unwrap();
        assert_eq!(store.taken_once(&key), Ok((!again).then_some(message.id)));
        let second = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
        let entered = store.accept_once(bench.waiting(&second), key.clone()).await.unwrap();
        assert_eq!(matches!(entered, Once::Entered(_)), again, "{key:?}");
    }
}
