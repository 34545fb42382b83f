//! What the ledger counts where the clock is moved, and what of slow rates a later start knows.

use super::*;
use crate::mail::quota::QuotaLimits;

const MONTHLY: QuotaLimits = QuotaLimits { hourly: None, daily: None, monthly: Some(100) };
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_clock_that_went_into_the_next_month_and_back_gives_nothing_twice() {
    let bench = Bench::new();
    let store = bench.open();
    assert_eq!(store.take("one", 90, MONTHLY).await.unwrap().granted, 90);
    let before = bench.now();
    bench.clock.set(before.next_utc_month().plus(DAY));
    assert_eq!(store.take("one", 5, MONTHLY).await.unwrap().granted, 5, "a month of its own");
    bench.clock.set(before.plus(DAY));
    let block = store.take("one", 50, MONTHLY).await.unwrap();
    assert_eq!((block.granted, block.left[2]), (5, Some(0)), "what was taken in either");
    bench.clock.set(before.next_utc_month().plus(DAY * 2));
    assert_eq!(store.take("one", 200, MONTHLY).await.unwrap().granted, 95);
    bench.clock.set(before.plus(DAY * 200));
    assert_eq!(store.take("one", 200, MONTHLY).await.unwrap().granted, 100);
}

#[tokio::test]
async fn the_moment_that_a_slow_rate_gave_away_is_known_to_a_later_start() {
    let bench = Bench::new();
    let store = bench.open();
    assert_eq!(store.paced("one"), Some(Timestamp::from_millis(0)), "nothing was ever sent");
    let next = bench.now().plus(HOLD);
    store.note_pace("one", bench.now());
    store.note_pace("one", next);
    let message = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&message)).await;
    store.close().await;
    let store = bench.open_as(NEXT);
    assert_eq!((store.paced("one"), store.paced("two")), (Some(next), None));
}
