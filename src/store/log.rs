//! SQLite's write-ahead log: how long it may grow, and when it is written back into the file.
//!
//! It is kept short in proportion to the room on the disk and gives its room back there, so that it never takes what the
//! file needs to grow by when the log is written back. Where there is room enough that is done [beside](beside) the writer,
//! which writes back what little came meanwhile.

mod beside;

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use super::Shared;
use super::schema::BUSY_WAIT;
use beside::{Beside, Found};

/// Pages in the log from which it is written back at once.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Pages that the log has room for from the start, where the disk has plenty: mail that comes while it is written back
/// finds room there too.
const SPREAD_PAGES: u32 = 2 * CHECKPOINT_PAGES;
/// Pages that came while it was written back beside the writer: up to so many the writer writes back itself…
const REST_PAGES: u32 = 1_000;
/// …and more where so often in a row too many came.
const BESIDE_MAX: u32 = 2;
/// On a tight disk: such a part of the room there is for new mail…
const TIGHT_LOG_PART: i64 = 8;
/// …but not less than so many pages.
const TIGHT_LOG_PAGES_MIN: u32 = 64;
/// A page in the log, with its header.
const LOG_PAGE_OCTETS: i64 = 4096 + 24;
/// Pages in the log from which it is written back when nothing else is to do.
const IDLE_CHECKPOINT_PAGES: u32 = 500;
/// Pages in the log from which readers are waited for, so that it can start over.
const RESTART_PAGES: u32 = 8 * CHECKPOINT_PAGES;
/// With so much free the log takes its full length from the start.
const SPREAD_FREE_OCTETS_MIN: u64 = 2 * 1024 * 1024 * 1024;
/// How long readers are waited for on a tight disk, so that the log can be cut.
const CUT_WAIT: Duration = Duration::from_millis(100);
/// The log of the writer's connection.
pub(super) struct Log<'c> {
    conn: &'c Connection,
    shared: &'c Arc<Shared>,
    /// Told by each commit.
    pages: Arc<AtomicU32>,
    beside: Beside,
    /// How often in a row it was written back beside the writer and its end not reached.
    besides: u32,
    /// Pages that it should not pass.
    bound: u32,
    /// Pages from which it is written back next.
    write_back_at: u32,
}

impl<'c> Log<'c> {
    /// `pages` is kept by the connection's hook.
    pub(super) fn new(conn: &'c Connection, shared: &'c Arc<Shared>, pages: Arc<AtomicU32>) -> Self {
        Log {
            conn,
            shared,
            pages,
            beside: Beside::start(shared.space.database().to_owned()),
            besides: 0,
            bound: CHECKPOINT_PAGES,
            write_back_at: CHECKPOINT_PAGES,
        }
    }

    /// How long it is.
    pub(super) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Whether it is to be written back though there is other work.
    pub(super) fn is_long(&self) -> bool {
        self.pages() >= self.write_back_at
    }

    /// Whether it is worth writing back where nothing else is to do.
    pub(super) fn is_worth_it(&self) -> bool {
        self.pages() >= IDLE_CHECKPOINT_PAGES || self.shared.pages_gone.load(Ordering::Relaxed)
    }

    /// Writes zeros where the log will be, if the disk has plenty of room: a sync after octets were written over others
    /// has no growth of the file to record, and took a third less. SQLite's log ends where its checksums end.
    pub(super) fn spread(&self) {
        let wanted = self.shared.settings.load().spread_log;
        let plenty =
            wanted && self.shared.space.disk_free().is_some_and(|free| free >= SPREAD_FREE_OCTETS_MIN);
        let log = self.shared.space.log_path();
        if plenty && let Err(error) = zeros(&log, u64::from(SPREAD_PAGES) * LOG_PAGE_OCTETS.unsigned_abs()) {
            tracing::debug!(%error, "the database's log grows as it is written");
        }
    }

    /// In steps, since a new bound is a new try at a log that readers kept long.
    pub(super) fn judge_bound(&mut self) {
        let bound = match self.shared.space.tight_room() {
            None => CHECKPOINT_PAGES,
            Some(room) => {
                let pages = u32::try_from(room / TIGHT_LOG_PART / LOG_PAGE_OCTETS).unwrap_or(0);
                let step = 1 << pages.max(TIGHT_LOG_PAGES_MIN).ilog2();
                CHECKPOINT_PAGES.min(step)
            }
        };
        if bound != std::mem::replace(&mut self.bound, bound) {
            self.write_back_at = bound;
        }
    }

    /// Writes it back, or has it written back beside. Where somebody reads on in it, a little later again.
    ///
    /// Errors: what SQLite says of the disk; it is tried again when it is a little longer.
    pub(super) fn write_back(&mut self) -> rusqlite::Result<()> {
        let mode = match self.pages() {
            _ if self.shared.space.is_tight() => CheckpointMode::TRUNCATE,
            RESTART_PAGES.. => CheckpointMode::RESTART,
            log => match self.beside.look() {
                Found::Idle => {
                    self.ask_beside();
                    return Ok(());
                }
                Found::AtWork => return Ok(()),
                Found::Done(Err(error)) => {
                    self.put_off();
                    return or_busy(error);
                }
                Found::Done(Ok(done))
                    if log.saturating_sub(done) > REST_PAGES && self.besides < BESIDE_MAX =>
                {
                    self.ask_beside();
                    return Ok(());
                }
                Found::Done(Ok(_)) | Found::Gone => CheckpointMode::PASSIVE,
            },
        };
        self.write_back_here(mode)
    }

    /// Writes all of it back, and takes it off the disk.
    ///
    /// Errors: as [`Log::write_back`]; it stays as it is then.
    pub(super) fn cut(&mut self) -> rusqlite::Result<()> {
        self.write_back_here(CheckpointMode::TRUNCATE)
    }

    /// Before the last cut: nobody else has the database open after it.
    pub(super) fn end(&mut self) {
        self.beside.end();
    }

    fn ask_beside(&mut self) {
        self.besides += 1;
        self.beside.ask();
    }

    /// A while later it is tried again.
    fn put_off(&mut self) {
        self.besides = 0;
        self.write_back_at = self.pages().saturating_add(self.bound / 4);
    }

    fn write_back_here(&mut self, mode: CheckpointMode) -> rusqlite::Result<()> {
        let cuts = matches!(mode, CheckpointMode::TRUNCATE);
        self.beside.rest();
        self.put_off();
        if cuts {
            self.conn.busy_timeout(CUT_WAIT)?;
        }
        let done = self.conn.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), mode);
        if cuts {
            self.conn.busy_timeout(BUSY_WAIT)?;
        }
        match done {
            // The next commit starts the log over and tells its length.
            Ok((log, done)) if log == done => {
                self.shared.pages_gone.store(false, Ordering::Relaxed);
                self.pages.store(0, Ordering::Relaxed);
                self.write_back_at = self.bound;
                Ok(())
            }
            // A reader still needs the log's end.
            Ok(_) => Ok(()),
            Err(error) => or_busy(error),
        }
    }
}

/// That somebody is at the log is no fault.
fn or_busy(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => Ok(()),
        _ => Err(error),
    }
}

/// Writes zeros from the file's end up to that length.
fn zeros(path: &Path, length: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let missing = length.saturating_sub(file.metadata()?.len());
    std::io::copy(&mut std::io::repeat(0).take(missing), &mut file)?;
    file.sync_data()
}
