//! Copies while the writer works, what is never overwritten, and what a start makes of a copy that was restored.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::mail::Reason;
use crate::mail::quota::QuotaLimits;
use crate::mail::report::Cause;

const DAY: Duration = Duration::from_secs(86_400);
const DAILY: QuotaLimits = QuotaLimits { hourly: None, daily: Some(1_000), monthly: None };

impl Bench {
    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy.db")
    }

    /// Puts the copy into the place of the database.
    fn restore(&self) {
        let data = self.settings().data_dir;
        for beside in ["postroad.db-wal", "postroad.db-shm"] {
            let _ = std::fs::remove_file(data.join(beside));
        }
        std::fs::copy(self.copy(), data.join("postroad.db")).unwrap();
    }

    fn left_in_folder(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A start as the relay makes it.
    async fn start(&self, owner: Owner) -> (Store, Option<Restored>) {
        let store = self.open_as(owner);
        let restored = store.enter_generation(vec!["one".into()]).await.unwrap();
        recover(&store).await;
        (store, restored)
    }
}

async fn back_up(store: &Store, bench: &Bench) -> BackedUp {
    store.back_up(&bench.copy(), &Progress::default()).await.unwrap()
}

async fn is_paused(store: &Store) -> Option<String> {
    store.suspensions().await.unwrap().remove(EVERY_ESP).map(|pause| pause.reason)
}

#[tokio::test]
async fn a_copy_ends_beside_writes_and_has_all_that_was_committed_before_it() {
    let bench = Bench::new();
    let (store, _) = bench.start(ME).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        let message = bench.with_body(noise(20_000));
        accept_one(&store, bench.waiting(&message)).await;
        ids.push(message.id);
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let load = {
        let (store, stop) = (store.clone(), stop.clone());
        let messages: Vec<_> =
            (0..5_000).map(|_| bench.message(&["b@example.org"], StreamKind::Transactional, 500)).collect();
        let accepts: Vec<_> = messages.iter().map(|m| bench.waiting(m)).collect();
        tokio::spawn(async move {
            let mut accepted = 0;
            for accept in accepts {
                if stop.is_cancelled() {
                    break;
                }
                accept_one(&store, accept).await;
                accepted += 1;
            }
            accepted
        })
    };
    let progress = Progress::default();
    let made = store.back_up(&bench.copy(), &progress).await.unwrap();
    stop.cancel();
    assert!(load.await.unwrap() > 0, "mail was taken meanwhile");
    assert!(made.octets > 4_000_000 && progress.percent() > 0, "{made:?} {progress:?}");
    assert_eq!(std::fs::metadata(bench.copy()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.left_in_folder(), ["copy.db", "data"], "one file by itself");

    let conn = rusqlite::Connection::open(bench.copy()).unwrap();
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    for id in ids {
        let there = conn.prepare_cached("SELECT 1 FROM bodies WHERE message = ?1").unwrap();
        assert!({ there }.exists([id.number()]).unwrap());
    }
}

#[tokio::test]
async fn a_file_that_is_there_stays_as_it_is_and_one_copy_is_made_at_a_time() {
    let bench = Bench::new();
    let store = bench.open();
    std::fs::write(bench.copy(), "mine").unwrap();
    let there = store.back_up(&bench.copy(), &Progress::default()).await.unwrap_err();
    assert!(matches!(there, BackupError::Exists(_)), "{there}");
    assert_eq!(std::fs::read(bench.copy()).unwrap(), b"mine");
    let nowhere = bench.dir.path().join("no/copy.db");
    let failed = store.back_up(&nowhere, &Progress::default()).await.unwrap_err().to_string();
    assert!(failed.contains("no/copy.db") && failed.contains("No such file"), "{failed}");

    let _running = store.shared.backup.lock().await;
    let other = bench.dir.path().join("other.db");
    let second = store.back_up(&other, &Progress::default()).await.unwrap_err();
    assert!(matches!(second, BackupError::Running), "{second}");
    assert_eq!(bench.left_in_folder(), ["copy.db", "data"]);
}

#[tokio::test]
async fn a_disk_without_room_is_told_before_anything_is_written() {
    let bench = Bench::new();
    let settings = Settings { min_free_octets: 1 << 50, ..bench.settings() };
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    let full = store.back_up(&bench.copy(), &Progress::default()).await.unwrap_err().to_string();
    assert!(full.contains("octets are free there, the copy needs"), "{full}");
    assert!(full.contains("min_free keeps 1125899906842624 of the same disk"), "{full}");
    assert_eq!(bench.left_in_folder(), ["data"]);
}

#[tokio::test]
async fn a_stopped_relay_is_copied_too_and_left_as_it_is() {
    let bench = Bench::new();
    let data = bench.settings().data_dir;
    let none = back_up_stopped(&data, &bench.copy(), &*bench.clock).unwrap_err();
    assert!(matches!(none, BackupError::NoDatabase(_)), "{none}");
    let (store, _) = bench.start(ME).await;
    let message = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&message)).await;
    store.close().await;
    back_up_stopped(&data, &bench.copy(), &*bench.clock).unwrap();
    let (store, restored) = bench.start(NEXT).await;
    assert_eq!(restored, None, "the mark is in the copy alone");
    store.close().await;
    bench.restore();
    let (store, restored) = bench.start(Owner::from_number(9)).await;
    assert!(restored.is_some_and(|r| r.unfinished == 1));
    assert!(store.show(message.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_restored_copy_starts_paused_and_tells_each_unfinished_delivery_once_before_it_goes_on() {
    let bench = Bench::new();
    let (store, _) = bench.start(ME).await;
    let old = bench.message(&["a@example.org", "b@example.org"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&old)).await;
    let done = bench.message(&["c@example.org"], StreamKind::Broadcast, 100);
    let (accept, beginning) = bench.begun(&done);
    accept_one(&store, accept).await;
    let settle = bench.settle(first(&done), &beginning, accepted(), Step::Done);
    store.settle(vec![settle]).await.unwrap();
    let bounced = bench.message(&["f@example.org"], StreamKind::Broadcast, 100);
    let (accept, beginning) = bench.begun(&bounced);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&bounced), &beginning, refused(), Step::Bounce)]).await.unwrap();
    let out = bench.message(&["d@example.org"], StreamKind::Broadcast, 100);
    accept_one(&store, bench.begun(&out).0).await;
    back_up(&store, &bench).await;
    store.close().await;

    bench.restore();
    bench.clock.advance(Duration::from_secs(60));
    let (store, restored) = bench.start(NEXT).await;
    assert_eq!(restored.map(|r| r.unfinished), Some(3));
    let reason = is_paused(&store).await.unwrap();
    assert!(reason.starts_with("the backup of 2027-01-15T08:00:00.000Z was restored"), "{reason}");
    store.close().await;

    // Another start of it is no other restore.
    let (store, again) = bench.start(Owner::from_number(9)).await;
    assert_eq!((again, is_paused(&store).await), (None, Some(reason)));
    let new = bench.message(&["e@example.org"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&new)).await;
    // What it owes may have been reported before.
    let report = bench.message(&["app@example.com"], StreamKind::Transactional, 100);
    let told = vec![(first(&bounced), Cause::Refused)];
    assert_eq!(store.report(bench.waiting(&report), told, String::new()).await, Ok(true));
    assert_eq!(store.unpause().await.unwrap(), 3);
    assert_eq!((is_paused(&store).await, store.unpause().await.unwrap()), (None, 0));
    for (message, wanted) in [(&old, 2), (&done, 0), (&out, 1), (&new, 0), (&report, 1)] {
        let view = store.show(message.id).await.unwrap().unwrap();
        let told = kinds(&view).iter().filter(|kind| **kind == "may_have_been_sent").count();
        assert_eq!(told, wanted, "{:?}", view.events);
    }
}

#[tokio::test]
async fn each_restore_is_a_turn_of_the_log_and_a_restart_is_none() {
    let bench = Bench::new();
    let tell = async |store: &Store, n: u32| {
        for _ in 0..n {
            let told = store.record_events(vec![NewEvent::new("alert", bench.clock.now())]).await;
            assert_eq!(told, [Ok(true)]);
        }
        store.timeline().await.unwrap().now()
    };
    let (store, _) = bench.start(ME).await;
    let in_backup = tell(&store, 3).await;
    back_up(&store, &bench).await;
    let never_there = tell(&store, 5).await;
    store.close().await;
    let (store, _) = bench.start(NEXT).await;
    let same = store.timeline().await.unwrap().resume(never_there);
    assert_eq!((same.at, same.lost), (never_there, None), "a restart");
    store.close().await;

    bench.restore();
    let (store, restored) = bench.start(Owner::from_number(9)).await;
    assert!(restored.is_some());
    let timeline = store.timeline().await.unwrap();
    for (was, lost) in [(in_backup, None), (never_there, Some(Lost::Restored))] {
        let resumed = timeline.resume(was);
        assert_eq!((resumed.at.number, resumed.lost), (in_backup.number, lost));
    }
    let first = &store.events_after(false, in_backup.number, 1).await.unwrap()[0];
    assert!(first.detail.starts_with("restored: "), "the restore itself is the first to be told");
    std::fs::remove_file(bench.copy()).unwrap();
    let in_second = tell(&store, 5).await;
    back_up(&store, &bench).await;
    let lost_again = tell(&store, 5).await;
    store.close().await;

    // The clock stands still: it is another restore all the same, and the copy knows of the first.
    bench.restore();
    let (store, _) = bench.start(Owner::from_number(10)).await;
    let now = tell(&store, 20).await;
    let timeline = store.timeline().await.unwrap();
    for (was, behind, lost) in [
        (never_there, in_backup, Some(Lost::Restored)),
        (in_second, in_second, None),
        (lost_again, in_second, Some(Lost::Restored)),
        (now, now, None),
    ] {
        let resumed = timeline.resume(was);
        assert_eq!((resumed.at.number, resumed.lost), (behind.number, lost), "{was}");
    }
}

#[tokio::test]
async fn an_older_database_or_one_without_its_folder_is_seen_and_the_same_one_is_not() {
    let bench = Bench::new();
    let data = bench.settings().data_dir;
    for owner in 1..4 {
        let (store, restored) = bench.start(Owner::from_number(owner)).await;
        assert_eq!(restored, None);
        store.close().await;
        if owner == 2 {
            // As a crash between the two writes leaves it.
            std::fs::write(data.join("generation"), "1").unwrap();
            std::fs::copy(data.join("postroad.db"), bench.copy()).unwrap();
        }
    }
    assert_eq!(std::fs::read_to_string(data.join("generation")).unwrap(), "0000000000000000003\n");
    bench.restore();
    let (store, restored) = bench.start(Owner::from_number(4)).await;
    assert!(restored.is_some_and(|r| r.reason.starts_with("an older database was restored")));
    store.unpause().await.unwrap();
    store.close().await;
    let (store, restored) = bench.start(Owner::from_number(5)).await;
    assert_eq!(restored, None);
    store.close().await;
    std::fs::remove_file(data.join("generation")).unwrap();
    let (_, restored) = bench.start(Owner::from_number(6)).await;
    assert!(restored.is_some_and(|r| r.reason.starts_with("the database is a copy, without")));
}

#[tokio::test]
async fn what_passes_its_time_before_sending_goes_on_is_taken_as_sent() {
    let bench = Bench::new();
    let (store, _) = bench.start(ME).await;
    let old = bench.message(&["a@example.org"], StreamKind::Transactional, 100);
    accept_one(&store, bench.waiting(&old)).await;
    back_up(&store, &bench).await;
    store.close().await;
    bench.restore();
    bench.clock.advance(DAY * 6);
    let (store, _) = bench.start(NEXT).await;
    let ended = store.sweep(bench.now(), 10).await.unwrap();
    assert_eq!(ended.iter().map(|d| d.reason).collect::<Vec<_>>(), [Some(Reason::Assumed)]);
    let view = store.show(old.id).await.unwrap().unwrap();
    assert_eq!(kinds(&view), ["accepted", "may_have_been_sent", "assumed"]);
}

#[tokio::test]
async fn after_a_restore_open_windows_count_as_spent_until_they_roll_over_or_an_operator_says_otherwise() {
    let bench = Bench::new();
    let (store, _) = bench.start(ME).await;
    assert_eq!(store.take("one", 10, DAILY).await.unwrap().granted, 10);
    store.take("gone", 10, DAILY).await.unwrap();
    back_up(&store, &bench).await;
    store.close().await;
    bench.restore();
    let (store, _) = bench.start(NEXT).await;
    for esp in ["one", "gone"] {
        let block = store.take(esp, 10, DAILY).await.unwrap();
        assert_eq!((block.granted, block.left[1], block.presumed), (0, Some(0), true), "{esp}");
        assert!(block.more_at.iter().flatten().any(|at| *at > bench.now().plus(DAY)), "{block:?}");
    }
    assert_eq!(store.take("other", 10, DAILY).await.unwrap().granted, 10);
    store.suspend("one", None).await.unwrap();
    let block = store.take("one", 10, DAILY).await.unwrap();
    assert_eq!((block.granted, block.left[1], block.presumed), (10, Some(980), false));
    assert_eq!(store.take("gone", 10, DAILY).await.unwrap().granted, 0);
    bench.clock.advance(DAY + DAY);
    assert_eq!(store.take("gone", 10, DAILY).await.unwrap().granted, 10);
}
