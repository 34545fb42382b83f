//! A relay whose store has not committed for long starts no call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::crowds::Counting;
use super::hours::submission;
use super::reload::{parts, start_by, until};
use crate::clock::{Clock, Timestamp, monotonic};
use crate::esp::smtp::Smtp;
use crate::flow::setup::Line;
use crate::wire::Wire;

/// A clock that leaps by so many seconds whenever it is read: to whoever asks, the last commit is so long ago. Between, it
/// goes as any clock does.
#[derive(Debug)]
struct Leaping {
    by_secs: AtomicU64,
    reads: AtomicU64,
    leapt_secs: AtomicU64,
    began: Instant,
}

impl Default for Leaping {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Leaping { by_secs: zero(), reads: zero(), leapt_secs: zero(), began: monotonic() }
    }
}

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let by = self.by_secs.load(Ordering::SeqCst);
        let leapt = self.leapt_secs.fetch_add(by, Ordering::SeqCst) + by;
        let began = Timestamp::from_millis(1_796_000_000_000);
        began.plus(Duration::from_secs(leapt)).plus(self.began.elapsed())
    }
}

#[tokio::test]
async fn what_was_begun_is_taken_back_and_goes_out_once_commits_return() {
    let dir = tempfile::tempdir().unwrap();
    let (wire, clock) = (Arc::new(Counting::default()), Arc::new(Leaping::default()));
    let line = Arc::new(Line { esp: Box::new(Smtp::default()), wire: Arc::clone(&wire) as Arc<dyn Wire> });
    let (courier, intake) =
        start_by(dir.path(), parts(&[("a", &line, 1)]), Arc::clone(&clock) as Arc<dyn Clock>);
    clock.by_secs.store(31, Ordering::SeqCst);
    intake.submit(submission("r@example.com", "transactional")).await.unwrap();
    let before = clock.reads.load(Ordering::SeqCst);
    until("it was begun some times", || clock.reads.load(Ordering::SeqCst) > before + 50).await;
    assert_eq!(wire.calls(), 0);
    clock.by_secs.store(0, Ordering::SeqCst);
    until("it has gone out", || wire.calls() == 1).await;
    courier.stop(Duration::from_secs(1)).await;
    assert_eq!(wire.calls(), 1);
}
