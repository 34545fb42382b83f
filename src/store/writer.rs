//! The one thread that writes: every operation that waits when a commit begins shares its sync.
//!
//! Two lanes: mail first, then a little bulk work a group. A group runs without savepoints, for no operation is
//! expected to fail; where one does, the whole group is rolled back and run again with a savepoint an operation, so
//! that only the one at fault is lost. Where SQLite itself ended the transaction (a full disk does that), the whole
//! group fails and nothing more of it runs: a next INSERT would stand alone.
//!
//! Between two groups the log is written back ([`super::log`]), the disk is looked at, and backups go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use super::Shared;
use super::backup::{self, Copied, Piece};
use super::log::Log;
use super::refused::{code, store_error};
use super::reserve::Reserve;
use super::schema::is_no_room;
use super::tx::{Delta, Hot, Lanes, Tx};
use super::types::StoreError;
use super::waiting::{Copying, Lane, Queue, Work};
use crate::clock::monotonic;
use crate::metrics as names;

/// A group takes no more mail after so many rows…
pub(super) const GROUP_ROWS_MAX: u32 = 512;
/// …or after so long.
const GROUP_TIME_MAX: Duration = Duration::from_millis(5);
/// Bulk work a group, after its mail.
const BULK_TIME_MAX: Duration = Duration::from_millis(10);
/// How long nothing else is to do before that.
const IDLE: Duration = Duration::from_millis(250);
/// The disk is asked so often; on a tight one before each group.
const DISK_ASKED_EVERY: Duration = Duration::from_secs(1);
/// Where mail is refused for want of room, a group takes so many rows: what is in it fails together.
const GROUP_ROWS_LOW: u32 = 32;
/// After a write that found no room, room is made at most this often.
const ROOM_MADE_EVERY: Duration = Duration::from_millis(250);
/// First and longest wait before a kept settle is tried again.
const KEPT_WAIT: Duration = Duration::from_millis(50);
const KEPT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Kept settles tried in one group: half as many after each that failed.
const KEPT_AT_ONCE: usize = 256;
/// How often a kept settle is tried when the relay stops.
const KEPT_LAST_TRIES: u32 = 3;
/// How long somebody else's lock is waited for in all, before a group fails.
const BUSY_TIME_MAX: Duration = Duration::from_secs(30);

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
                std::mem::take(&mut waiting.copying),
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
    kept_at_once: usize,
    disk_looked_at: Option<Instant>,
    room_made_at: Option<Instant>,
    reserve: Reserve,
    log: Log<'c>,
    failing: bool,
    seconds: metrics::Histogram,
    batch: metrics::Histogram,
}

impl<'c> Writer<'c> {
    fn new(conn: &'c Connection, hot: Hot<'c>, shared: &'c Arc<Shared>, log_pages: Arc<AtomicU32>) -> Self {
        let settings = shared.settings.load_full();
        // An operator who leaves nothing free wants none of the disk set aside either.
        let set_aside = if settings.min_free_octets == 0 { 0 } else { shared.space.reserve_octets() };
        Writer {
            conn,
            hot,
            lanes: Lanes::new(shared.lanes()),
            shared,
            mail: VecDeque::new(),
            kept: Vec::new(),
            kept_wait: KEPT_WAIT,
            kept_due: None,
            kept_at_once: KEPT_AT_ONCE,
            disk_looked_at: None,
            room_made_at: None,
            reserve: Reserve::new(&settings.data_dir, set_aside),
            log: Log::new(conn, shared, log_pages),
            failing: false,
            seconds: metrics::histogram!(names::COMMIT_SECONDS),
            batch: metrics::histogram!(names::COMMIT_BATCH_SIZE),
        }
    }

    fn serve(&mut self) {
        self.mind_disk();
        self.log.spread();
        while self.wait() {
            self.turn();
            if let Some(Copying::Begin(to)) = self.next_copying() {
                self.copy(*to);
            }
        }
        self.last_tries();
        for work in self.kept.drain(..) {
            work.finish(Some(StoreError::Stopping));
        }
        self.log.end();
        self.cut_log();
    }

    /// One group, and what goes with it.
    fn turn(&mut self) {
        self.controls();
        self.retry_kept();
        self.mind_disk();
        self.group();
        if self.log.is_long() {
            self.write_back_log();
        }
    }

    fn next_copying(&self) -> Option<Copying> {
        self.shared.queue.lock().copying.pop_front()
    }

    /// Goes on with its work, and copies a piece between two groups where one is asked for, until that backup ends.
    /// SQLite keeps what is copied already up to date, for it is this connection that writes.
    fn copy(&mut self, mut to: Connection) {
        let begun = Backup::new(self.conn, &mut to);
        let whole = loop {
            match (self.next_copying(), &begun) {
                (Some(Copying::Piece(reply)), Ok(backup)) => match backup::piece(backup) {
                    Ok(None) => break reply,
                    Ok(Some(copied)) => drop(reply.send(Ok(Piece::More(copied)))),
                    Err(error) => drop(reply.send(Err(error))),
                },
                (Some(Copying::Piece(reply)), Err(_)) => {
                    let _ = reply.send(begun.map(|_| Piece::More(Copied::default())));
                    return;
                }
                (Some(Copying::End), _) => return,
                (Some(Copying::Begin(_)) | None, _) => {}
            }
            if !self.wait() {
                return;
            }
            self.turn();
        };
        drop(begun);
        let _ = whole.send(Ok(Piece::Done(to)));
    }

    /// At the stop: kept settles as long as it gets on, then a few times more.
    fn last_tries(&mut self) {
        let mut tries = 0;
        while !self.kept.is_empty() && tries < KEPT_LAST_TRIES {
            let before = self.kept.len();
            self.kept_due = Some(monotonic());
            self.retry_kept();
            if self.kept.len() >= before {
                tries += 1;
                std::thread::sleep(KEPT_WAIT);
            }
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
            if waiting.has_work() {
                waiting.expected = false;
                return true;
            }
            if waiting.closed {
                return false;
            }
            if waiting.expected {
                waiting = queue.watch(waiting);
                continue;
            }
            let now = monotonic();
            let idle = self.log.is_worth_it().then_some(IDLE);
            let due = [self.kept_due, self.look_due()].into_iter().flatten().min();
            let due = due.map(|at| at.saturating_duration_since(now));
            if due.is_some_and(|wait| wait.is_zero()) {
                return true;
            }
            let at_most = [idle, due].into_iter().flatten().min();
            let (guard, slept_long) = queue.sleep(waiting, at_most);
            waiting = guard;
            if slept_long && idle == at_most {
                drop(waiting);
                self.write_back_log();
                waiting = queue.lock();
            }
        }
    }

    /// Nobody else wakes the writer for it: sessions refuse mail by the last look.
    fn look_due(&self) -> Option<Instant> {
        let low = self.shared.space.is_low();
        low.then(|| self.disk_looked_at.map_or_else(monotonic, |at| at + DISK_ASKED_EVERY))
    }

    /// Looks at the disk where it is time to, and does what follows from it.
    fn mind_disk(&mut self) {
        let (now, space) = (monotonic(), &self.shared.space);
        let due = self.disk_looked_at.is_none_or(|at| now.duration_since(at) >= DISK_ASKED_EVERY);
        if !due && !space.is_tight() {
            return;
        }
        space.look(self.conn);
        if due {
            self.disk_looked_at = Some(now);
            if space.is_scarce() && self.log.pages() > 0 {
                self.cut_log();
                space.look(self.conn);
            }
            if !space.is_scarce() && self.reserve.is_wanted() {
                self.reserve.make();
                space.look(self.conn);
            }
        }
        space.judge();
        self.log.judge_bound();
    }

    /// After a write that found no room: the log goes back into the file and off the disk, and where that is not
    /// enough the reserve is given up. Whether anything was gained.
    fn make_room(&mut self) -> bool {
        let now = monotonic();
        if self.room_made_at.is_some_and(|at| now.duration_since(at) < ROOM_MADE_EVERY) {
            return false;
        }
        self.room_made_at = Some(now);
        let before = self.log.pages();
        self.cut_log();
        let space = &self.shared.space;
        let short = space.disk_free().is_some_and(|free| free < space.reserve_octets());
        let given_up = short && self.reserve.give_up();
        if given_up {
            self.cut_log();
        }
        let gained = given_up || self.log.pages() < before;
        if gained && !self.kept.is_empty() {
            self.kept_due = Some(now);
        }
        gained
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
        self.kept_due = None;
        let at_once = self.kept.len().min(self.kept_at_once);
        let works: Vec<_> = self.kept.drain(..at_once).collect();
        let others = self.kept.len();
        self.careful(works);
        if self.kept.len() > others {
            self.kept_wait = (self.kept_wait * 2).min(KEPT_WAIT_MAX);
            self.kept_at_once = (at_once / 2).max(1);
            return;
        }
        self.kept_wait = KEPT_WAIT;
        self.kept_at_once = KEPT_AT_ONCE.min(self.kept_at_once * 2);
        if others > 0 {
            self.kept_due = Some(monotonic());
        }
    }

    /// One transaction over what waits.
    fn group(&mut self) {
        let started = monotonic();
        let mut ran: Vec<Box<dyn Work>> = Vec::new();
        let rows_max = if self.shared.space.is_low() { GROUP_ROWS_LOW } else { GROUP_ROWS_MAX };
        let mut taken = Taken { rows: 0, rows_max, bulk_since: None };
        let Some(first) = self.next(&mut taken, started) else { return };
        if let Err(error) = self.begin() {
            return self.again_or_fail(vec![first], &error);
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
            None => self.commit(ran, delta),
            Some(error) => {
                self.note(Some(&error));
                self.undo();
                if is_no_room(&error) {
                    self.make_room();
                }
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
            return self.again_or_fail(works, &error);
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
            self.again_or_fail(ran, &error);
        } else {
            self.commit(ran, delta);
        }
        for (work, error) in lost {
            self.fail(vec![work], &error);
        }
    }

    /// At the instant this commit returns, all of the group is safe; only then is anybody told.
    fn commit(&mut self, works: Vec<Box<dyn Work>>, delta: Delta) {
        let (started, log_pages) = (monotonic(), self.log.pages());
        if let Err(error) = self.hot.commit.execute([]) {
            self.undo();
            return self.again_or_fail(works, &error);
        }
        let took = started.elapsed();
        // What bulk work weighs would hide whether mail is grouped.
        let mail = works.iter().filter(|work| work.lane() == Lane::Mail).count();
        // What wrote nothing, as a message that is refused, says nothing of the disk.
        if self.log.pages() != log_pages {
            self.note(None);
            self.shared.note_commit();
        }
        self.lanes.keep(self.shared);
        self.shared.apply(delta);
        for work in works {
            work.finish(None);
        }
        // Whoever waits for the commit does not wait for its measure.
        self.seconds.record(took.as_secs_f64());
        if mail > 0 {
            self.batch.record(mail as f64);
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

    /// A group that found no room is run once more where some could be made.
    fn again_or_fail(&mut self, works: Vec<Box<dyn Work>>, error: &rusqlite::Error) {
        if is_no_room(error) && self.make_room() {
            self.note(Some(error));
            return self.careful(works);
        }
        self.fail(works, error);
    }

    fn fail(&mut self, works: Vec<Box<dyn Work>>, error: &rusqlite::Error) {
        let told = self.shared.space.write_error(error);
        for work in works {
            if work.kept() {
                self.kept.push(work);
                self.kept_due.get_or_insert_with(|| monotonic() + self.kept_wait);
            } else {
                work.finish(Some(told.clone()));
            }
        }
        self.note_as(error, &told);
    }

    fn write_back_log(&mut self) {
        let Err(error) = self.log.write_back() else { return };
        self.note(Some(&error));
        if is_no_room(&error) {
            self.make_room();
        }
    }

    /// What went wrong is noted; the log stays as it is then.
    fn cut_log(&mut self) {
        if let Err(error) = self.log.cut() {
            self.note(Some(&error));
        }
    }

    fn note(&mut self, error: Option<&rusqlite::Error>) {
        match error {
            Some(error) => self.note_as(error, &store_error(error)),
            None if std::mem::take(&mut self.failing) => tracing::info!("the database takes writes again"),
            None => {}
        }
    }

    /// Logs once a change. A sync that failed is a write that failed: what it was to carry is refused or kept, and
    /// SQLite writes it anew, into the log or from the log into the file, before it counts on it. So the next sync
    /// that succeeds has all that was acknowledged under it, whatever the system did with the pages of the first.
    fn note_as(&mut self, error: &rusqlite::Error, told: &StoreError) {
        if !is_of_the_disk(error) {
            tracing::error!(%error, "the database refused an operation; nothing of it was kept");
        } else if !std::mem::replace(&mut self.failing, true) {
            let sqlite = code(error);
            tracing::error!(%error, sqlite, why = %told, "the database does not take writes: mail is refused until it does, and what was accepted is kept");
        }
    }
}

/// What a group has taken so far.
struct Taken {
    rows: u32,
    rows_max: u32,
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
        && taken.rows < taken.rows_max
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
