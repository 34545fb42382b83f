//! Whether there is room: the queue's own bound and the disk's free octets.
//!
//! A new message is written twice: into the log, then into the database. So what is free is judged after what is
//! owed: the pages that lie in the log alone and will still make the file grow, and what the deliveries that are not
//! done will still write. Below `min_free` nothing is accepted; what
//! the relay has accepted goes on to be begun, answered and let go there, and for that some octets of the disk itself
//! always stay, whatever is free inside the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::Notify;

use super::refused;
use super::row::integer;
use super::types::{Settings, StoreError};
use crate::mail::StreamKind;

/// Broadcast mail fills the queue to this many percent of its bound; the rest is transactional mail's.
const BROADCAST_PERCENT: u64 = 80;
/// With less room than this the disk is looked at before each group, and the log is kept short.
const TIGHT_OCTETS: i64 = 128 * 1024 * 1024;
/// What a message writes besides its body: rows, index pages.
const MESSAGE_OCTETS: u64 = 4096;
/// A mail as most are, with a picture or an invoice in it: who cannot take that one is not ready.
const ORDINARY_OCTETS: u64 = 256 * 1024;
/// What a delivery that is not done will still write: its attempt, its answer.
const DELIVERY_OCTETS: i64 = 512;
/// The reserve for what was accepted already: this part of `min_free`, within these bounds.
const RESERVE_PART: u64 = 4;
const RESERVE_OCTETS_MIN: u64 = 1024 * 1024;
const RESERVE_OCTETS_MAX: u64 = 8 * 1024 * 1024;

/// What is taken and what is left. Written by the writer, read by anybody.
#[derive(Debug)]
pub(super) struct Space {
    data_dir: PathBuf,
    database: PathBuf,
    queue_octets_max: AtomicU64,
    min_free_octets: AtomicU64,
    reserve_octets: AtomicU64,
    /// Undelivered mail: message sizes, shared out over the recipients that are not done.
    queue_octets: AtomicI64,
    /// How many are not done.
    deliveries: AtomicI64,
    /// What new mail may write: as the last look found it, less what was written since.
    room: AtomicI64,
    /// Nothing is accepted, until there is room to spare.
    low: AtomicBool,
    /// A message was refused since the last look.
    refused: AtomicBool,
    /// The most that was refused since somebody last asked how much room to make.
    refused_octets: AtomicI64,
    /// Rung where there is little room, and where mail was refused.
    short: Notify,
}

/// What new mail may write, by each of its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// What is free on the disk and inside the file, above `min_free`.
    pub in_all: i64,
    /// What is free on the disk itself, above the reserve: the log finds no room inside the file.
    pub on_disk: i64,
}

fn reserve(settings: &Settings) -> u64 {
    (settings.min_free_octets / RESERVE_PART).clamp(RESERVE_OCTETS_MIN, RESERVE_OCTETS_MAX)
}

impl Space {
    pub(super) fn new(settings: &Settings, database: PathBuf) -> Self {
        Space {
            data_dir: settings.data_dir.clone(),
            database,
            queue_octets_max: AtomicU64::new(settings.queue_octets_max),
            min_free_octets: AtomicU64::new(settings.min_free_octets),
            reserve_octets: AtomicU64::new(reserve(settings)),
            queue_octets: AtomicI64::new(0),
            deliveries: AtomicI64::new(0),
            room: AtomicI64::new(i64::MAX),
            low: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            refused_octets: AtomicI64::new(0),
            short: Notify::new(),
        }
    }

    /// Other limits from now on. What was set aside on the disk at the start stays of its size.
    pub(super) fn change(&self, settings: &Settings) {
        self.queue_octets_max.store(settings.queue_octets_max, Ordering::Relaxed);
        self.min_free_octets.store(settings.min_free_octets, Ordering::Relaxed);
        self.reserve_octets.store(reserve(settings), Ordering::Relaxed);
        // Refused mail has the disk looked at again.
        self.refused.store(true, Ordering::Relaxed);
    }

    fn min_free_octets(&self) -> u64 {
        self.min_free_octets.load(Ordering::Relaxed)
    }

    pub(super) fn queue_octets(&self) -> u64 {
        u64::try_from(self.queue_octets.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn add_queued(&self, octets: i64, deliveries: i64) {
        self.queue_octets.fetch_add(octets, Ordering::Relaxed);
        self.deliveries.fetch_add(deliveries, Ordering::Relaxed);
    }

    /// How many deliveries are not done.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed).unsigned_abs()
    }

    /// What new mail leaves alone for the sake of what was accepted already.
    pub(super) fn reserve_octets(&self) -> u64 {
        self.reserve_octets.load(Ordering::Relaxed)
    }

    /// Whether a message of that size finds room in the queue while `uncommitted` octets wait for the same commit.
    pub(super) fn queue(
        &self,
        kind: StreamKind,
        size_octets: u64,
        uncommitted: i64,
    ) -> Result<(), StoreError> {
        let all = self.queue_octets_max.load(Ordering::Relaxed);
        let limit = match kind {
            StreamKind::Transactional => all,
            StreamKind::Broadcast => all / 100 * BROADCAST_PERCENT,
        };
        let queued =
            self.queue_octets.load(Ordering::Relaxed).saturating_add(uncommitted).max(0).unsigned_abs();
        if queued.saturating_add(size_octets) > limit {
            return Err(StoreError::Full(format!(
                "the queue holds {queued} octets of undelivered mail; [limits] queue_bytes allows {limit} here"
            )));
        }
        Ok(())
    }

    /// Whether a mail of an ordinary size would be taken now. Asking refuses nothing, so it leaves no trace.
    pub(super) fn ready(&self) -> Result<(), StoreError> {
        let most = self.queue_octets_max.load(Ordering::Relaxed);
        self.queue(StreamKind::Transactional, ORDINARY_OCTETS.min(most), 0)?;
        self.finds_room(written(ORDINARY_OCTETS), &format!("a mail of {ORDINARY_OCTETS} octets"))
    }

    /// Whether the disk has room for so many octets of new mail; where it has not, room is to be made for them.
    fn disk(&self, octets: u64) -> Result<(), StoreError> {
        self.finds_room(octets, "this mail").inspect_err(|_| {
            self.refused.store(true, Ordering::Relaxed);
            self.refused_octets.fetch_max(integer(octets), Ordering::Relaxed);
            self.short.notify_one();
        })
    }

    fn finds_room(&self, octets: u64, mail: &str) -> Result<(), StoreError> {
        let (room, low) = (self.room.load(Ordering::Relaxed), self.is_low());
        if !low && room >= integer(octets) {
            return Ok(());
        }
        let (dir, min_free) = (self.data_dir.display(), self.min_free_octets());
        let free = integer(min_free).saturating_add(room).max(0);
        let asks = match low {
            true => format!(
                "mail is taken again from {} on",
                min_free.saturating_add(self.spare().unsigned_abs())
            ),
            false => format!("{mail} needs {octets} more than that"),
        };
        Err(StoreError::Full(format!(
            "{free} octets are free on the disk of {dir}; [limits] min_free keeps {min_free}, {asks}"
        )))
    }

    /// As [`Space::disk`] for a body of so many octets.
    pub(super) fn would_take(&self, octets: u64) -> Result<(), StoreError> {
        self.disk(written(octets))
    }

    /// As [`Space::would_take`], and takes that room until the next look: in the log and in the file.
    pub(super) fn take(&self, octets: u64) -> Result<(), StoreError> {
        self.would_take(octets)?;
        self.spend(octets);
        Ok(())
    }

    /// Takes the room whether or not it is there.
    pub(super) fn spend(&self, octets: u64) {
        self.room.fetch_sub(integer(written(octets)), Ordering::Relaxed);
    }

    /// Whether each group wants a look at the disk first.
    pub(super) fn is_tight(&self) -> bool {
        self.tight_room().is_some()
    }

    /// The room for new mail, where the log has to be kept short for it.
    pub(super) fn tight_room(&self) -> Option<i64> {
        let room = self.room.load(Ordering::Relaxed);
        (room < TIGHT_OCTETS).then_some(room)
    }

    /// Whether mail is refused for want of room.
    pub(super) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Whether there is so little room that the log's is worth having.
    pub(super) fn is_scarce(&self) -> bool {
        self.room.load(Ordering::Relaxed) < self.spare()
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Where SQLite keeps the log of that database.
    pub(super) fn log_path(&self) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// What a caller of a write that failed is told.
    pub(super) fn write_error(&self, error: &rusqlite::Error) -> StoreError {
        refused::write_error(error, &self.data_dir, &[&self.database, &self.log_path()])
    }

    /// Free octets of the disk itself; `None`: it does not say.
    pub(super) fn disk_free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.data_dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Waits until there is little room, or mail was refused for want of it.
    pub(super) async fn short(&self) {
        self.short.notified().await;
    }

    /// How much room to make: for what was refused since the last call, and so much that it is not short again at
    /// once.
    pub(super) fn wanted(&self) -> i64 {
        let refused = self.refused_octets.swap(0, Ordering::Relaxed);
        self.spare().saturating_add(refused.max(self.spare()))
    }

    /// Looks at disk and file: how much new mail may write. `None`: the disk does not say.
    pub(super) fn look(&self, conn: &Connection) -> Option<Room> {
        let disk = self.disk_free()?;
        let pragma = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
        let page = pragma("PRAGMA page_size");
        let free_pages = pragma("PRAGMA freelist_count").saturating_mul(page);
        let length = std::fs::metadata(&self.database).map_or(0, |file| integer(file.len()));
        let growth = pragma("PRAGMA page_count").saturating_mul(page).saturating_sub(length).max(0);
        let answers = self.deliveries.load(Ordering::Relaxed).max(0).saturating_mul(DELIVERY_OCTETS);
        let disk = integer(disk).saturating_sub(growth).saturating_sub(answers);
        let room = Room {
            in_all: disk.saturating_add(free_pages).saturating_sub(integer(self.min_free_octets())),
            on_disk: disk.saturating_sub(integer(self.reserve_octets())),
        };
        self.room.store(room.in_all.min(room.on_disk), Ordering::Relaxed);
        Some(room)
    }

    /// Judges from the last look whether mail is taken, and says so where that changed.
    pub(super) fn judge(&self) {
        let room = self.room.load(Ordering::Relaxed);
        let refused = self.refused.swap(false, Ordering::Relaxed);
        let short = room < self.spare();
        if short {
            self.short.notify_one();
        }
        let was_low = self.is_low();
        let low = room <= 0 || (short && (was_low || refused));
        if low == was_low {
            return;
        }
        self.low.store(low, Ordering::Relaxed);
        let free_octets = integer(self.min_free_octets()).saturating_add(room).max(0);
        match low {
            true => tracing::error!(
                free_octets,
                min_free_octets = self.min_free_octets(),
                "the disk is nearly full: mail is refused with 452 until there is room"
            ),
            false => tracing::info!(free_octets, "the disk has room again"),
        }
    }

    /// With so much room mail is taken again: enough that the next message does not end it at once.
    fn spare(&self) -> i64 {
        integer(2 * self.reserve_octets())
    }
}

/// What a body of that size makes the relay write.
fn written(octets: u64) -> u64 {
    octets.saturating_add(MESSAGE_OCTETS).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `min_free` is 8 MiB, so 2 MiB are the reserve.
    fn with_room(room: i64) -> Space {
        let settings = Settings { min_free_octets: 8 << 20, ..Settings::to_read("/nowhere".into()) };
        let space = Space::new(&settings, "/nowhere/db".into());
        space.room.store(room, Ordering::Relaxed);
        space.judge();
        space
    }

    #[test]
    fn what_a_message_writes_is_taken_off_until_the_next_look() {
        let space = with_room(8 << 20);
        assert!(space.take(2 << 20).is_ok());
        let full = space.take(2 << 20).unwrap_err().to_string();
        assert!(full.contains("min_free keeps 8388608, this mail needs 4202496 more"), "{full}");
        assert!(space.take(1 << 20).is_ok(), "a smaller one still finds room");
    }

    #[test]
    fn it_is_not_ready_where_only_tiny_mail_finds_room_and_asking_refuses_none() {
        let space = with_room(300_000);
        assert!(space.would_take(1_000).is_ok(), "a tiny one finds room");
        let full = space.ready().unwrap_err().to_string();
        assert!(full.contains("min_free keeps 8388608, a mail of 262144 octets needs 532480 more"), "{full}");
        space.judge();
        assert!(!space.is_low(), "tiny mail is still taken");
        assert!(with_room(600_000).ready().is_ok());
    }

    #[test]
    fn once_refused_mail_is_taken_again_when_there_is_room_to_spare() {
        let space = with_room(0);
        assert!(space.is_low() && space.disk(0).is_err());
        let low_at = |room| {
            space.room.store(room, Ordering::Relaxed);
            space.judge();
            space.is_low()
        };
        assert_eq!([3 << 20, 4 << 20, 3 << 20].map(low_at), [true, false, false]);
        assert!(space.take(3 << 20).is_err());
        assert_eq!(
            [3 << 20, 4 << 20].map(low_at),
            [true, false],
            "refused mail ends it where little is left"
        );
        assert!(space.take(3 << 20).is_err());
        assert!(!low_at(5 << 20), "that one was large");
    }
}
