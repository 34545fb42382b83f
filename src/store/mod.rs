//! The database: schema, migrations, one group-commit writer, verbs in domain types. The only SQL in the tree.
//!
//! One [`Store`] for the whole relay; a clone is the same store. Verbs that write take slices, give a result an item,
//! and answer after the commit that carries them; each says what its errors mean and that it may be run again. What
//! a delivery may do is said by [`crate::mail::delivery`] alone.

mod accept;
mod backup;
mod bodies;
mod by_recipient;
mod claim;
mod events;
mod feedback;
mod generation;
mod joining;
mod ledger;
mod leftovers;
mod log;
mod notifications;
mod on_address;
mod once;
mod operate;
mod paces;
mod packed;
mod queue;
mod read;
mod reasons;
mod recover;
mod refused;
mod reports;
mod requeue;
mod reserve;
mod retention;
mod row;
mod sandboxed;
mod schema;
mod shortage;
mod space;
mod story;
mod suppressions;
mod suspensions;
#[cfg(test)]
mod tests;
mod timeline;
mod tokens;
mod told;
mod tx;
mod types;
mod views;
mod waiting;
mod without_esps;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::Semaphore;

pub use backup::{BackedUp, BackupError, Progress, back_up_stopped};
pub use generation::Restored;
pub use notifications::{
    Attempted, DueNotification, ForReceiver, Notification, NotificationFilter, NotificationState, Receiver,
    Replay, Replayed,
};
pub use queue::Settling;
pub use reports::Owed;
pub use requeue::{MaxAge, Requeued};
pub use reserve::give_up as give_up_reserve;
pub use schema::OpenError;
pub use suspensions::EVERY_ESP;
pub use timeline::{Lost, Place, Resumed, Timeline};
pub use types::*;
pub use views::*;
pub use without_esps::{EspsNamed, WithoutEsps};

use crate::clock::{Clock, Timestamp};
use crate::mail::{DeliveryId, Lane, MessageId, Owner, Rule, StreamName};
use refused::store_error;
use row::{LaneId, integer, kind};
use tx::{Delta, OutChange};

/// Reads that wait for the disk at one time.
const READERS_MAX: usize = 4;

/// The database of one relay.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// Closes the writer when the last clone goes.
    _closer: Arc<Closer>,
}

#[derive(Debug)]
struct Closer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// What the verbs and the writer have in common.
#[derive(Debug)]
struct Shared {
    queue: waiting::Queue,
    readers: Readers,
    space: space::Space,
    packers: Arc<packed::Packers>,
    owner: Owner,
    clock: Arc<dyn Clock>,
    settings: ArcSwap<Settings>,
    lanes: Mutex<Arc<Vec<(LaneId, Lane)>>>,
    book: Mutex<HashMap<DeliveryId, OutEntry>>,
    /// From this message on a start looks for what is out.
    out_from: AtomicI64,
    /// When a relay was last known to be up, in milliseconds; below zero: never.
    alive_millis: AtomicI64,
    /// When the last commit that wrote something returned, in milliseconds; at first the start.
    committed_millis: AtomicI64,
    /// See [`Store::verdicts`].
    verdicts: AtomicU64,
    /// See [`Store::report_is_owed`].
    report_owed: tokio::sync::Notify,
    /// See [`Store::tell_receivers`].
    receivers: ArcSwap<Vec<Receiver>>,
    /// See [`Store::notification_news`].
    notification_news: tokio::sync::watch::Sender<()>,
    /// See [`Store::event_news`].
    event_news: tokio::sync::watch::Sender<()>,
    /// Bodies on disk, in octets; below zero: not counted yet.
    body_octets: AtomicI64,
    /// Pages were given back, which the file itself hears of at the next checkpoint.
    pages_gone: AtomicBool,
    /// See [`Shared::may_have_been_sent`]; below zero: sending goes on.
    restored_to: AtomicI64,
    /// See [`Store::retain`]: how far the look at what sandboxes keep has come.
    sandboxed: Mutex<sandboxed::Walk>,
    /// See [`Store::paced`].
    paces: OnceLock<paces::Paces>,
    /// One backup at a time.
    backup: tokio::sync::Mutex<()>,
}

/// A delivery that is out.
#[derive(Debug, Clone, Copy)]
struct OutEntry {
    lane: LaneId,
    octets: u64,
    foreign: bool,
}

impl Store {
    /// `[limits]` and `[retention]` from now on; the folder stays. Nothing that was accepted is given up for them.
    pub fn change_limits(&self, settings: &Settings) {
        self.shared.space.change(settings);
        let data_dir = self.shared.settings.load().data_dir.clone();
        self.shared.settings.store(Arc::new(Settings { data_dir, ..settings.clone() }));
    }

    /// Opens `data_dir/postroad.db`, making folder (0700) and file (0600) where absent, brings its schema up to date
    /// and starts the writer. `owner` is this start's boot id.
    pub fn open(settings: Settings, owner: Owner, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
        let (conn, path) = open_with_room(&settings.data_dir)?;
        let shared = Arc::new(Shared {
            queue: waiting::Queue::new(),
            readers: Readers::new(path.clone()),
            space: space::Space::new(&settings, path.clone()),
            packers: packed::Packers::new(),
            committed_millis: AtomicI64::new(clock.now().millis()),
            owner,
            clock,
            settings: ArcSwap::from_pointee(settings),
            lanes: Mutex::default(),
            book: Mutex::default(),
            out_from: AtomicI64::new(0),
            alive_millis: AtomicI64::new(-1),
            verdicts: AtomicU64::new(0),
            report_owed: tokio::sync::Notify::new(),
            receivers: ArcSwap::default(),
            notification_news: tokio::sync::watch::Sender::new(()),
            event_news: tokio::sync::watch::Sender::new(()),
            body_octets: AtomicI64::new(-1),
            pages_gone: AtomicBool::new(false),
            restored_to: AtomicI64::new(-1),
            sandboxed: Mutex::default(),
            paces: OnceLock::new(),
            backup: tokio::sync::Mutex::default(),
        });
        shared.look_around(&conn).map_err(|error| OpenError::database(&path, error))?;
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(conn, &writer))
            .map_err(|error| OpenError::Folder { path, error })?;
        let closer = Closer { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok(Store { shared, _closer: Arc::new(closer) })
    }

    /// Says that an accept is about to come, where it pays to have the writer awake.
    pub fn expect(&self) {
        self.shared.queue.expect();
    }

    /// Takes nothing more, does what waits, writes the log back and closes. Other clones get
    /// [`StoreError::Stopping`] from now on.
    pub async fn close(self) {
        self.shared.queue.close();
        let thread = self._closer.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.readers.close();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Whether a message of that size would find room now; the commit asks again.
    ///
    /// Errors: [`StoreError::Full`].
    pub fn has_room(&self, octets: u64) -> Result<(), StoreError> {
        let space = &self.shared.space;
        space.queue(crate::mail::StreamKind::Transactional, octets, 0)?;
        space.would_take(octets)
    }

    /// Undelivered mail in octets, as `queue_bytes` counts it.
    pub fn queue_octets(&self) -> u64 {
        self.shared.space.queue_octets()
    }

    /// Runs a read on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.shared.readers.turn.acquire().await.map_err(|_| StoreError::Stopping)?;
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || shared.readers.run(read)).await {
            Ok(result) => result.map_err(|error| store_error(&error)),
            Err(error) => Err(StoreError::Failed(format!("the read ended early: {error}"))),
        }
    }

    /// For tests under a paused clock: waits until every read that began before is answered.
    #[cfg(test)]
    pub(crate) async fn reads_done(&self) {
        let _all = self.shared.readers.turn.acquire_many(READERS_MAX as u32).await;
    }

    /// For tests of a full disk: the database may not grow past so many pages; 0: as large as it likes.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        let pages = if pages == 0 { i64::from(u32::MAX - 1) } else { i64::from(pages) };
        self.pragma("max_page_count", pages).await
    }

    /// For tests of a disk that became read-only.
    #[doc(hidden)]
    pub async fn set_read_only(&self, on: bool) -> Result<(), StoreError> {
        self.pragma("query_only", i64::from(on)).await
    }

    async fn pragma(&self, name: &'static str, value: i64) -> Result<(), StoreError> {
        let set = move |conn: &Connection| {
            conn.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(none)
        };
        let set = self.shared.queue.control(set).await?;
        set.map_err(|error| store_error(&error))
    }
}

/// Opens the database with its log written back and without what arrived in part, on a full disk too: the reserve is
/// given up for it.
fn open_with_room(data_dir: &Path) -> Result<(Connection, PathBuf), OpenError> {
    let (conn, path) = schema::open_writer(data_dir).or_else(|error| {
        match error.is_no_room() && reserve::give_up(data_dir) {
            true => schema::open_writer(data_dir),
            false => Err(error),
        }
    })?;
    let tidy = || {
        // Where the log stays nothing is lost: the writer comes to it again.
        let _ = conn.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), CheckpointMode::TRUNCATE);
        bodies::sweep_orphans(&conn)
    };
    let tidied = tidy().or_else(|error| match schema::is_no_room(&error) && reserve::give_up(data_dir) {
        true => tidy(),
        false => Err(error),
    });
    match tidied {
        Err(error) if schema::is_no_room(&error) => {
            tracing::error!(%error, "no room to take away what arrived in part; the next start tries again");
        }
        tidied => tidied.map_err(|error| OpenError::database(&path, error))?,
    }
    Ok((conn, path))
}

/// A number of `meta`.
fn noted(conn: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn none(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

impl Shared {
    /// What is kept in memory, from what is in the database: lanes, what is out, octets that are queued.
    fn look_around(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut statement = conn.prepare("SELECT id, stream, kind, pin, to_rule, from_rule FROM lanes")?;
        let lanes = statement.query_map([], |row| {
            let written = |column| row.get(column).map(|text: String| Some(text).filter(|t| !t.is_empty()));
            let stream = StreamName::new(row.get_ref(1)?.as_str()?);
            let rule = Rule { to: written(4)?.map(Arc::from), from: written(5)?.map(Arc::from) };
            Ok((row.get(0)?, Lane { stream, kind: kind(row.get(2)?), pin: written(3)?, rule }))
        })?;
        self.set_lanes(lanes.collect::<rusqlite::Result<_>>()?);
        let (octets, deliveries) = conn.query_row(
            "SELECT coalesce(sum(octets), 0), count(*) FROM email_sends INDEXED BY email_sends_end
             WHERE state IN (0, 2, 3, 4)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        self.space.add_queued(octets, deliveries);
        if let Some(alive) = noted(conn, "alive")? {
            self.alive_millis.store(alive, Ordering::Relaxed);
        }
        let _ = self.paces.set(paces::Paces::read(conn)?);
        self.look_for_restore(conn)?;
        self.look_for_out(conn)
    }

    /// The rows that are out enter no index; a mark says below which message there is none.
    fn look_for_out(&self, conn: &Connection) -> rusqlite::Result<()> {
        self.out_from.store(noted(conn, "out_from")?.unwrap_or(0), Ordering::Relaxed);
        let mut statement = conn.prepare(
            "SELECT message, recipient, lane, octets, owner FROM email_sends
             WHERE state = 1 AND message >= ?1",
        )?;
        let rows = statement.query_map([self.out_from().number()], |row| {
            let octets = row.get::<_, i64>(3)?.unsigned_abs();
            let foreign = row.get::<_, i64>(4)? != self.owner.number();
            Ok((row::delivery_id(row, 0)?, OutEntry { lane: row.get(2)?, octets, foreign }))
        })?;
        let mut book = self.book();
        for row in rows {
            let (id, entry) = row?;
            self.space.add_queued(integer(entry.octets), 1);
            book.insert(id, entry);
        }
        Ok(())
    }

    /// Takes over what a committed transaction changed.
    fn apply(&self, delta: Delta) {
        let (mut octets, mut deliveries) = (delta.queue_octets, delta.deliveries);
        if !delta.out.is_empty() {
            let mut book = self.book();
            for change in delta.out {
                match change {
                    OutChange::Out(id, lane, octets) => {
                        book.insert(id, OutEntry { lane, octets, foreign: false });
                    }
                    OutChange::Back(id) => {
                        book.remove(&id);
                    }
                    OutChange::Done(id) => {
                        let gone = book.remove(&id).map_or(0, |entry| entry.octets);
                        octets -= i64::try_from(gone).unwrap_or(0);
                        deliveries -= 1;
                    }
                }
            }
        }
        if delta.verdict {
            self.verdicts.fetch_add(1, Ordering::AcqRel);
        }
        if delta.report_owed {
            self.report_owed.notify_one();
        }
        if delta.notified {
            self.notification_news.send_replace(());
        }
        if delta.events {
            self.event_news.send_replace(());
        }
        self.space.add_queued(octets, deliveries);
        if let Some(from) = delta.out_from {
            self.out_from.store(from.number(), Ordering::Relaxed);
        }
        if let Some(alive) = delta.alive {
            self.alive_millis.store(alive.millis(), Ordering::Relaxed);
        }
        if delta.body_octets != 0 && self.body_octets.load(Ordering::Relaxed) >= 0 {
            self.body_octets.fetch_add(delta.body_octets, Ordering::Relaxed);
        }
    }

    /// The disk took what was written.
    fn note_commit(&self) {
        self.committed_millis.store(self.clock.now().millis(), Ordering::Relaxed);
    }

    fn lanes(&self) -> Vec<(LaneId, Lane)> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).to_vec()
    }

    fn set_lanes(&self, lanes: Vec<(LaneId, Lane)>) {
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(lanes);
    }

    fn book(&self) -> std::sync::MutexGuard<'_, HashMap<DeliveryId, OutEntry>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier owner left out in that lane.
    fn foreign_out(&self, lane: LaneId) -> Vec<DeliveryId> {
        let mut out: Vec<DeliveryId> =
            self.book().iter().filter(|(_, e)| e.foreign && e.lane == lane).map(|(id, _)| *id).collect();
        out.sort_unstable();
        out
    }

    fn out_ids(&self) -> Vec<DeliveryId> {
        self.book().keys().copied().collect()
    }

    fn out_by_lane(&self) -> HashMap<LaneId, read::Tally> {
        let mut tallies: HashMap<LaneId, read::Tally> = HashMap::new();
        for (id, entry) in self.book().iter() {
            let tally = tallies.entry(entry.lane).or_default();
            tally.0 += 1;
            let least = tally.1.map_or(id.message.number(), |least| least.min(id.message.number()));
            tally.1 = Some(least);
        }
        tallies
    }

    /// When a relay was last known to be up.
    fn alive(&self) -> Option<Timestamp> {
        let millis = self.alive_millis.load(Ordering::Relaxed);
        (millis >= 0).then(|| Timestamp::from_millis(millis))
    }

    /// Below this message nothing is out.
    fn out_from(&self) -> MessageId {
        MessageId::from_number(self.out_from.load(Ordering::Relaxed))
    }

    /// The least message that has a delivery out.
    fn least_out(&self) -> Option<MessageId> {
        self.book().keys().map(|id| id.message).min()
    }
}

/// A few connections that read, opened when they are needed.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turn: Semaphore,
}

impl Readers {
    fn new(path: PathBuf) -> Self {
        Readers { path, idle: Mutex::default(), turn: Semaphore::new(READERS_MAX) }
    }

    /// Runs a read on one of them.
    fn run<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => schema::open_reader(&self.path)?,
        };
        let result = read(&conn);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_MAX && !self.turn.is_closed() {
            idle.push(conn);
        }
        result
    }

    fn close(&self) {
        self.turn.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
