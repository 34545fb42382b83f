//! Whether there is room: the queue's own bound and the disk's free octets.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::types::{Settings, StoreError};
use crate::clock::monotonic;
use crate::mail::StreamKind;

/// The disk is asked at most this often.
const DISK_ASKED_EVERY: Duration = Duration::from_secs(1);
/// Broadcast mail fills the queue to this many percent of its bound; the rest is transactional mail's.
const BROADCAST_PERCENT: u64 = 80;

/// What is taken and what is left. Written by the writer, read by anybody.
#[derive(Debug)]
pub(super) struct Space {
    data_dir: PathBuf,
    queue_octets_max: u64,
    min_free_octets: u64,
    /// Undelivered mail: message sizes, shared out over the recipients that are not done.
    queue_octets: AtomicI64,
    /// Free on disk, and in the database's own free pages.
    free_octets: AtomicU64,
    low: AtomicBool,
}

impl Space {
    pub(super) fn new(settings: &Settings) -> Self {
        Space {
            data_dir: settings.data_dir.clone(),
            queue_octets_max: settings.queue_octets_max,
            min_free_octets: settings.min_free_octets,
            queue_octets: AtomicI64::new(0),
            free_octets: AtomicU64::new(u64::MAX),
            low: AtomicBool::new(false),
        }
    }

    pub(super) fn queue_octets(&self) -> u64 {
        u64::try_from(self.queue_octets.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn add_queue_octets(&self, octets: i64) {
        self.queue_octets.fetch_add(octets, Ordering::Relaxed);
    }

    /// Whether a message of that size may be accepted while `uncommitted` octets wait for the same commit.
    pub(super) fn take(
        &self,
        kind: StreamKind,
        size_octets: u64,
        uncommitted: i64,
    ) -> Result<(), StoreError> {
        let limit = match kind {
            StreamKind::Transactional => self.queue_octets_max,
            StreamKind::Broadcast => self.queue_octets_max / 100 * BROADCAST_PERCENT,
        };
        let queued =
            self.queue_octets.load(Ordering::Relaxed).saturating_add(uncommitted).max(0).unsigned_abs();
        if queued.saturating_add(size_octets) > limit {
            return Err(StoreError::Full(format!(
                "the queue holds {queued} octets of undelivered mail; [limits] queue_bytes allows {limit} here"
            )));
        }
        self.disk()
    }

    /// Whether the disk has its reserve.
    pub(super) fn disk(&self) -> Result<(), StoreError> {
        let free = self.free_octets.load(Ordering::Relaxed);
        if free >= self.min_free_octets {
            return Ok(());
        }
        Err(StoreError::Full(format!(
            "{free} octets are free on the disk of {}; [limits] min_free asks for {}",
            self.data_dir.display(),
            self.min_free_octets
        )))
    }

    /// Looks at disk and free pages again, where it is time to.
    pub(super) fn look(&self, conn: &Connection, last: &mut Option<Instant>) {
        let now = monotonic();
        if last.is_some_and(|at| now.duration_since(at) < DISK_ASKED_EVERY) {
            return;
        }
        *last = Some(now);
        let Ok(disk) = rustix::fs::statvfs(&self.data_dir) else { return };
        let pragma = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0).unsigned_abs();
        let pages = pragma("PRAGMA freelist_count").saturating_mul(pragma("PRAGMA page_size"));
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(pages);
        self.free_octets.store(free, Ordering::Relaxed);
        let low = free < self.min_free_octets;
        if self.low.swap(low, Ordering::Relaxed) != low {
            match low {
                true => tracing::error!(
                    free_octets = free,
                    min_free_octets = self.min_free_octets,
                    "the disk is nearly full: mail is refused with 452 until there is room"
                ),
                false => tracing::info!(free_octets = free, "the disk has room again"),
            }
        }
    }
}
