//! Where ESPs were named and are no more: what pauses mail, and what lets it go on.

use super::*;

async fn paused(store: &Store) -> Option<String> {
    store.suspensions().await.unwrap().remove(EVERY_ESP).map(|pause| pause.reason)
}

#[tokio::test]
async fn mail_is_paused_where_esps_were_named_and_goes_on_by_an_esp_or_by_the_operator_s_word() {
    let bench = Bench::new();
    let store = bench.open();
    let named = async |named| store.esps_are_named(named).await.unwrap();
    assert_eq!(named(EspsNamed::None).await, WithoutEsps::No, "none ever was");
    assert_eq!(named(EspsNamed::Real).await, WithoutEsps::No);
    assert!(matches!(named(EspsNamed::None).await, WithoutEsps::Paused(_)));
    assert!(paused(&store).await.unwrap().contains("names no [[esp]] any more"));
    assert!(matches!(named(EspsNamed::None).await, WithoutEsps::Paused(_)), "at each start");
    assert_eq!(named(EspsNamed::Real).await, WithoutEsps::Over);
    assert_eq!(paused(&store).await, None);
    // Both are the operator's word for the sandbox.
    for by_hand in [true, false] {
        named(EspsNamed::Real).await;
        named(EspsNamed::None).await;
        match by_hand {
            true => drop(store.unpause().await.unwrap()),
            false => assert_eq!(named(EspsNamed::Sandboxes).await, WithoutEsps::Over),
        }
        assert_eq!(paused(&store).await, None);
        assert_eq!(named(EspsNamed::None).await, WithoutEsps::No);
    }
}

#[tokio::test]
async fn what_an_operator_paused_stays_so() {
    let bench = Bench::new();
    let store = bench.open();
    store.esps_are_named(EspsNamed::Real).await.unwrap();
    let own = Suspension { reason: "night".into(), since: START, until: None };
    store.suspend(EVERY_ESP, Some(own)).await.unwrap();
    assert!(matches!(store.esps_are_named(EspsNamed::None).await, Ok(WithoutEsps::Paused(_))));
    assert_eq!(store.esps_are_named(EspsNamed::Real).await, Ok(WithoutEsps::No));
    assert_eq!(paused(&store).await.as_deref(), Some("night"));
    // His word ends his own pause, and is none for the sandbox.
    store.esps_are_named(EspsNamed::None).await.unwrap();
    store.unpause().await.unwrap();
    assert!(paused(&store).await.unwrap().contains("names no [[esp]] any more"));
    store.unpause().await.unwrap();
    assert_eq!(paused(&store).await, None);
}
