//! The one thread that writes: every operation that waits when a commit begins shares its sync.
//!
//! Two lanes: mail first, then a little bulk work a group. A group runs without savepoints, for no operation is
//! expected to fail; where one does, the whole group is rolled back and run again with a savepoint an operation, so
//! that only the one at fault is lost. Where SQLite itself ended the transaction (a full disk does that), the whole
//! group fails and nothing more of it runs: a next INSERT would stand alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, ffi};
use tokio::time::Instant;

use super::Shared;
use super::tx::{Delta, Hot, Lanes, Tx};
use super::types::StoreError;
use super::waiting::{Queue, Work};
use crate::clock::monotonic;

/// A group takes no more mail after so many rows…
pub(super) const GROUP_ROWS_MAX: u32 = 512;
/// …or after so long.
const GROUP_TIME_MAX: Duration = Duration::from_millis(5);
/// Bulk work a group, after its mail.
const BULK_TIME_MAX: Duration = Duration::from_millis(10);
/// Pages in the log from which it is written back at once.
const CHECKPOINT_PAGES: u32 = 8_000;
/// Pages in the log from which it is written back when nothing else is to do.
const IDLE_CHECKPOINT_PAGES: u32 = 500;
/// How long nothing else is to do before that.
const IDLE: Duration = Duration::from_millis(250);
/// Pages in the log from which readers are waited for, so that it can start over.
const RESTART_PAGES: u32 = 4 * CHECKPOINT_PAGES;
/// First and longest wait before a kept settle is tried again.
const KEPT_WAIT: Duration = Duration::from_millis(50);
const KEPT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a kept settle is tried when the relay stops.
const KEPT_LAST_TRIES: u32 = 3;
/// How long somebody else's lock is waited for in all, before a group fails.
const BUSY_TIME_MAX: Duration = Duration::from_secs(30);

const COMMIT_SECONDS: &str = "postroad_commit_seconds";
const COMMIT_BATCH_SIZE: &str = "postroad_commit_batch_size";

/// Nobody waits for a thread that is gone.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.queue.close();
        let left = {
            let mut waiting = self.0.queue.lock();
            (
                std::mem::take(&mut waiting.mail),
                std::mem::take(&mut waiting.bulk),
                std::mem::take(&mut waiting.controls),
            )
        };
        drop(left);
    }
}

/// The writer thread's whole life.
pub(super) fn run(mut conn: Connection, shared: &Arc<Shared>) {
    let _gone = Gone(Arc::clone(shared));
    let log_pages = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&log_pages);
    let hook = move |_: &mut _, pages| {
        seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    };
    if let Err(error) = conn.wal_hook(Some(hook)) {
        tracing::error!(%error, "the database writer cannot start");
        return;
    }
    match Hot::new(&conn) {
        Ok(hot) => Writer::new(&conn, hot, shared, log_pages).serve(),
        Err(error) => tracing::error!(%error, "the database writer cannot start"),
    }
    if let Err((_, error)) = conn.close() {
        tracing::warn!(%error, "the database was not closed cleanly; nothing is lost");
    }
}

struct Writer<'c> {
    conn: &'c Connection,
    hot: Hot<'c>,
    lanes: Lanes,
    shared: &'c Arc<Shared>,
    /// Taken from the queue, not yet run.
    mail: VecDeque<Box<dyn Work>>,
    kept: Vec<Box<dyn Work>>,
    kept_wait: Duration,
    kept_due: Option<Instant>,
    disk_looked_at: Option<Instant>,
    log_pages: Arc<AtomicU32>,
    /// Pages in the log from which it is written back next.
    checkpoint_at: u32,
    failing: bool,
    seconds: metrics::Histogram,
    batch: metrics::Histogram,
}

impl<'c> Writer<'c> {
    fn new(conn: &'c Connection, hot: Hot<'c>, shared: &'c Arc<Shared>, log_pages: Arc<AtomicU32>) -> Self {
        Writer {
            conn,
            hot,
            lanes: Lanes::new(shared.lanes()),
            shared,
            mail: VecDeque::new(),
            kept: Vec::new(),
            kept_wait: KEPT_WAIT,
            kept_due: None,
            disk_looked_at: None,
            log_pages,
            checkpoint_at: CHECKPOINT_PAGES,
            failing: false,
            seconds: metrics::histogram!(COMMIT_SECONDS),
            batch: metrics::histogram!(COMMIT_BATCH_SIZE),
        }
    }

    fn serve(&mut self) {
        self.shared.space.look(self.conn, &mut self.disk_looked_at);
        while self.wait() {
            self.controls();
            self.retry_kept();
            self.shared.space.look(self.conn, &mut self.disk_looked_at);
            self.group();
            if self.log_pages.load(Ordering::Relaxed) >= self.checkpoint_at {
                self.checkpoint();
            }
        }
        for _ in 0..KEPT_LAST_TRIES {
            self.kept_due = Some(monotonic());
            self.retry_kept();
            if !self.kept.is_empty() {
                std::thread::sleep(KEPT_WAIT);
            }
        }
        for work in self.kept.drain(..) {
            work.finish(Some(StoreError::Stopping));
        }
        let written_back = self.conn.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), CheckpointMode::TRUNCATE);
        if let Err(error) = &written_back {
            self.note(Some(error));
        }
    }

    /// Waits until there is something to do; `false`: closed, and all is done.
    fn wait(&mut self) -> bool {
        if !self.mail.is_empty() {
            return true;
        }
        let queue = &self.shared.queue;
        let mut waiting = queue.lock();
        loop {
            if !(waiting.mail.is_empty() && waiting.bulk.is_empty() && waiting.controls.is_empty()) {
                return true;
            }
            if waiting.closed {
                return false;
            }
            let now = monotonic();
            let idle = (self.log_pages.load(Ordering::Relaxed) >= IDLE_CHECKPOINT_PAGES).then_some(IDLE);
            let kept = self.kept_due.map(|due| due.saturating_duration_since(now));
            if kept.is_some_and(|wait| wait.is_zero()) {
                return true;
            }
            let Some(timeout) = [idle, kept].into_iter().flatten().min() else {
                waiting = queue.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (guard, timed_out) =
                queue.wake.wait_timeout(waiting, timeout).unwrap_or_else(PoisonError::into_inner);
            waiting = guard;
            if timed_out.timed_out() && idle == Some(timeout) {
                drop(waiting);
                self.checkpoint();
                waiting = queue.lock();
            }
        }
    }

    fn controls(&mut self) {
        let controls = std::mem::take(&mut self.shared.queue.lock().controls);
        for control in controls {
            control(self.conn);
        }
    }

    /// Kept settles have a group of their own: what else waits must not make them fail again.
    fn retry_kept(&mut self) {
        if self.kept_due.is_none_or(|due| due > monotonic()) {
            return;
        }
        let works = std::mem::take(&mut self.kept);
        self.kept_due = None;
        let wait = self.kept_wait;
        self.careful(works);
        self.kept_wait = if self.kept.is_empty() { KEPT_WAIT } else { (wait * 2).min(KEPT_WAIT_MAX) };
    }

    /// One transaction over what waits.
    fn group(&mut self) {
        let started = monotonic();
        let mut ran: Vec<Box<dyn Work>> = Vec::new();
        let mut taken = Taken::default();
        let Some(first) = self.next(&mut taken, started) else { return };
        if let Err(error) = self.begin() {
            return self.fail(vec![first], &error);
        }
        let mut next = Some(first);
        let mut failed = None;
        let mut tx = Tx::new(self.conn, &mut self.hot, &mut self.lanes, self.shared);
        while let Some(mut work) = next.take() {
            failed = work.run(&mut tx).err();
            ran.push(work);
            if failed.is_some() {
                break;
            }
            next = next_work(&self.shared.queue, &mut self.mail, &mut taken, started);
        }
        let delta = tx.into_delta();
        match failed {
            None => self.commit(ran, delta, taken.rows),
            Some(error) => {
                self.note(Some(&error));
                self.undo();
                self.careful(ran);
            }
        }
    }

    fn next(&mut self, taken: &mut Taken, started: Instant) -> Option<Box<dyn Work>> {
        next_work(&self.shared.queue, &mut self.mail, taken, started)
    }

    /// Runs a group again, each operation in a savepoint.
    fn careful(&mut self, works: Vec<Box<dyn Work>>) {
        if works.is_empty() {
            return;
        }
        if let Err(error) = self.begin() {
            return self.fail(works, &error);
        }
        let (mut ran, mut lost) = (Vec::with_capacity(works.len()), Vec::new());
        let mut tx = Tx::new(self.conn, &mut self.hot, &mut self.lanes, self.shared);
        let mut rest = works.into_iter();
        let mut gone = None;
        for mut work in rest.by_ref() {
            let result = tx.guarded(|tx| work.run(tx));
            match result {
                Err(error) if self.conn.is_autocommit() => {
                    gone = Some(error);
                    ran.push(work);
                    break;
                }
                Err(error) => lost.push((work, error)),
                Ok(()) => ran.push(work),
            }
        }
        let delta = tx.into_delta();
        if let Some(error) = gone {
            ran.extend(rest);
            self.undo();
            self.fail(ran, &error);
        } else {
            let rows = ran.iter().map(|work| work.rows()).sum();
            self.commit(ran, delta, rows);
        }
        for (work, error) in lost {
            self.fail(vec![work], &error);
        }
    }

    /// At the instant this commit returns, all of the group is safe; only then is anybody told.
    fn commit(&mut self, works: Vec<Box<dyn Work>>, delta: Delta, rows: u32) {
        let started = monotonic();
        if let Err(error) = self.hot.commit.execute([]) {
            self.undo();
            return self.fail(works, &error);
        }
        self.seconds.record(started.elapsed().as_secs_f64());
        self.batch.record(f64::from(rows));
        self.note(None);
        self.lanes.keep(self.shared);
        self.shared.apply(delta);
        for work in works {
            work.finish(None);
        }
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        let started = monotonic();
        loop {
            match self.hot.begin.execute([]) {
                Ok(_) => return Ok(()),
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && started.elapsed() < BUSY_TIME_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Leaves no transaction behind, and forgets what it was to bring.
    fn undo(&mut self) {
        self.lanes.forget();
        if !self.conn.is_autocommit()
            && let Err(error) = self.hot.rollback.execute([])
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn fail(&mut self, works: Vec<Box<dyn Work>>, error: &rusqlite::Error) {
        let told = store_error(error);
        for work in works {
            if work.kept() {
                self.kept.push(work);
                self.kept_due.get_or_insert_with(|| monotonic() + self.kept_wait);
            } else {
                work.finish(Some(told.clone()));
            }
        }
        self.note(Some(error));
    }

    fn checkpoint(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        let mode = if pages >= RESTART_PAGES { CheckpointMode::RESTART } else { CheckpointMode::PASSIVE };
        self.checkpoint_at = pages.saturating_add(CHECKPOINT_PAGES / 4);
        match self.conn.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode) {
            // The next commit starts the log over and tells its length.
            Ok((log, done)) if log == done => {
                self.log_pages.store(0, Ordering::Relaxed);
                self.checkpoint_at = CHECKPOINT_PAGES;
            }
            // A reader still needs the log's end: a little later again.
            Ok(_) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => self.note(Some(&error)),
        }
    }

    /// Logs once a change; a failed sync ends the process, for what the disk holds is unknown then.
    fn note(&mut self, error: Option<&rusqlite::Error>) {
        match error {
            Some(error) => {
                if matches!(code(error), ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) {
                    tracing::error!(%error, "the disk failed to sync: the relay stops at once, what it acknowledged is safe as far as the disk keeps its word");
                    std::process::abort();
                }
                if !is_of_the_disk(error) {
                    tracing::error!(%error, "the database refused an operation; nothing of it was kept");
                } else if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the database does not take writes: mail is refused with 452 until it does");
                }
            }
            None if std::mem::take(&mut self.failing) => tracing::info!("the database takes writes again"),
            None => {}
        }
    }
}

/// What a group has taken so far.
#[derive(Default)]
struct Taken {
    rows: u32,
    bulk_since: Option<Instant>,
}

/// The next operation for the group: mail until it is full, then a little bulk.
fn next_work(
    queue: &Queue,
    mail: &mut VecDeque<Box<dyn Work>>,
    taken: &mut Taken,
    started: Instant,
) -> Option<Box<dyn Work>> {
    let now = monotonic();
    if taken.bulk_since.is_none()
        && taken.rows < GROUP_ROWS_MAX
        && now.duration_since(started) < GROUP_TIME_MAX
    {
        if mail.is_empty() {
            std::mem::swap(mail, &mut queue.lock().mail);
        }
        if let Some(work) = mail.pop_front() {
            taken.rows += work.rows();
            return Some(work);
        }
    }
    let since = *taken.bulk_since.get_or_insert(now);
    if now.duration_since(since) >= BULK_TIME_MAX {
        return None;
    }
    let work = queue.lock().bulk.pop_front()?;
    taken.rows += work.rows();
    Some(work)
}

fn code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |e| e.extended_code)
}

/// Full, read-only, failing, locked: whatever is written meets it. Else it is one operation's own error.
fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        None | Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::ApiMisuse
                | ErrorCode::Unknown
        )
    )
}

/// What a caller is told.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full("the disk is full".into()),
        _ => StoreError::Failed(error.to_string()),
    }
}
