//! A consistent copy of the database in a file of its own, of a relay that runs and of one that does not.
//!
//! A running relay copies on its writer's own connection, a piece between two groups: what is written meanwhile reaches
//! the copy as well, so that it ends however much mail comes, and no read keeps the log from starting over. The copy is
//! synced off the writer's thread, and the writer copies no further while that takes long: a slow target delays no
//! mail. The file gets its name when it is whole; it bears a mark, by which a start tells that it was restored.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{CWD, RenameFlags};
use tokio::sync::oneshot;

use super::schema::{self, OpenError};
use super::types::StoreError;
use super::waiting::{Copying, Queue};
use super::{Store, generation, leftovers};
use crate::clock::{Clock, Timestamp, monotonic};

/// Pages that SQLite copies at once.
const STEP_PAGES: i32 = 16;
/// How long the writer copies before it looks for mail again.
const PIECE_TIME_MAX: Duration = Duration::from_millis(2);
/// So much of the copy may lie unsynced.
const UNSYNCED_OCTETS_MAX: u64 = 8 * 1024 * 1024;
/// The copy needs so much more than the database's pages: what grows while it is made.
const SPARE_OCTETS: u64 = 4 * 1024 * 1024;

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// Its length.
    pub octets: u64,
    /// How long it took.
    pub took: Duration,
}

/// How far a copy has come.
#[derive(Debug, Default)]
pub struct Progress {
    copied_pages: AtomicU64,
    pages: AtomicU64,
}

impl Progress {
    /// How much of it is copied, in percent.
    pub fn percent(&self) -> u64 {
        let pages = self.pages.load(Ordering::Relaxed).max(1);
        (self.copied_pages.load(Ordering::Relaxed) * 100 / pages).min(100)
    }

    fn note(&self, copied: Copied) {
        self.pages.store(copied.pages, Ordering::Relaxed);
        self.copied_pages.store(copied.pages.saturating_sub(copied.left), Ordering::Relaxed);
    }
}

/// Why there is no copy. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of that name.
    #[error("{path} is there already and was left as it is; name another file, or move that one away", path = .0.display())]
    Exists(PathBuf),
    /// The target's disk is full, or would be.
    #[error("{path}: {free} octets are free there, the copy needs {needed}{kept}; name a file on another disk, or make room", path = .path.display(), kept = kept(.min_free))]
    NoRoom {
        /// The target.
        path: PathBuf,
        /// Free octets of its disk.
        free: u64,
        /// What the copy takes.
        needed: u64,
        /// What the relay itself keeps free of the same disk; 0: it is another one.
        min_free: u64,
    },
    /// The target cannot be made or written.
    #[error("{path}: {error}; the file is written by the user that the relay runs as", path = .path.display())]
    File {
        /// The target.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another one is being made.
    #[error("a backup is being made already; try again when it is done")]
    Running,
    /// The data directory's database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to copy.
    #[error("{path}: there is no database in it", path = .0.display())]
    NoDatabase(PathBuf),
    /// The relay's database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn kept(min_free: &u64) -> String {
    match min_free {
        0 => String::new(),
        octets => format!(", and [limits] min_free keeps {octets} of the same disk"),
    }
}

/// What has been copied, and what is left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    pub pages: u64,
    pub left: u64,
}

/// What came of a piece.
pub(super) enum Piece {
    /// There is more.
    More(Copied),
    /// All is copied, as the database stands now.
    Done(Connection),
}

/// Copies for a moment; `None`: all is copied.
pub(super) fn piece(backup: &Backup<'_, '_>) -> rusqlite::Result<Option<Copied>> {
    let began = monotonic();
    loop {
        match backup.step(STEP_PAGES)? {
            StepResult::Done => return Ok(None),
            StepResult::Busy => return Err(failure(ErrorCode::DatabaseBusy)),
            StepResult::Locked => return Err(failure(ErrorCode::DatabaseLocked)),
            _ if began.elapsed() < PIECE_TIME_MAX => {}
            _ => {
                let progress = backup.progress();
                let count = |n: i32| u64::try_from(n).unwrap_or(0);
                return Ok(Some(Copied {
                    pages: count(progress.pagecount),
                    left: count(progress.remaining),
                }));
            }
        }
    }
}

fn failure(code: ErrorCode) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error { code, extended_code: 0 }, None)
}

impl Store {
    /// Copies the database as it stands when the copy ends into `file`, which must not be there. Mail is taken and sent
    /// meanwhile.
    ///
    /// Errors: [`BackupError`]; nothing is left of it then, but where the process ends: a file named like it that ends
    /// in `.part`, which the next one into that folder removes. May be run again.
    pub async fn back_up(&self, file: &Path, progress: &Progress) -> Result<BackedUp, BackupError> {
        let Ok(_one) = self.shared.backup.try_lock() else { return Err(BackupError::Running) };
        let began = monotonic();
        let (now, settings) = (self.shared.clock.now(), self.shared.settings.load_full());
        let size = self.read(size_octets).await?;
        let min_free = settings.min_free_octets;
        let (path, data_dir) = (file.to_owned(), settings.data_dir.clone());
        let (target, to) = blocking(move || Target::make(&path, &data_dir, min_free, size, now)).await?;
        let (target, to) = self.copy(target, to, progress).await?;
        let octets = blocking(move || target.finish(to, now)).await?;
        Ok(BackedUp { octets, took: began.elapsed() })
    }

    async fn copy(
        &self,
        mut target: Target,
        to: Connection,
        progress: &Progress,
    ) -> Result<(Target, Connection), BackupError> {
        let asking = Asking::begin(&self.shared.queue, to)?;
        let mut synced_octets = 0;
        loop {
            match asking.piece().await?.map_err(|error| target.refused(&error))? {
                Piece::Done(to) => return Ok((target, to)),
                Piece::More(copied) => progress.note(copied),
            }
            let length = target.length();
            if length.saturating_sub(synced_octets) > UNSYNCED_OCTETS_MAX {
                synced_octets = length;
                target = blocking(move || target.synced()).await?;
            }
        }
    }
}

/// Copies the database of a relay that does not run into `file`, which must not be there. The database is left as it
/// is, its schema too. The caller holds the data directory.
///
/// Errors: [`BackupError`]; nothing is left of the copy then. May be run again.
pub fn back_up_stopped(data_dir: &Path, file: &Path, clock: &dyn Clock) -> Result<BackedUp, BackupError> {
    let began = monotonic();
    let database = data_dir.join("postroad.db");
    if !database.exists() {
        return Err(BackupError::NoDatabase(data_dir.to_owned()));
    }
    let broken = |error| BackupError::from(OpenError::database(&database, error));
    let conn = schema::open_as_it_is(&database)?;
    let (now, size) = (clock.now(), size_octets(&conn).map_err(broken)?);
    let (target, mut to) = Target::make(file, data_dir, 0, size, now)?;
    {
        let backup = Backup::new(&conn, &mut to).map_err(broken)?;
        while piece(&backup).map_err(|error| target.refused(&error))?.is_some() {}
    }
    let octets = target.finish(to, now)?;
    Ok(BackedUp { octets, took: began.elapsed() })
}

fn size_octets(conn: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    Ok(number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?))
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let ended = |error| StoreError::Failed(format!("the backup ended early: {error}"));
    tokio::task::spawn_blocking(run).await.map_err(ended)?
}

/// The writer copies for as long as this is there.
struct Asking<'q>(&'q Queue);

impl<'q> Asking<'q> {
    fn begin(queue: &'q Queue, to: Connection) -> Result<Self, StoreError> {
        queue.ask_copy(Copying::Begin(Box::new(to)))?;
        Ok(Asking(queue))
    }

    async fn piece(&self) -> Result<rusqlite::Result<Piece>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.ask_copy(Copying::Piece(reply))?;
        answer.await.map_err(|_| StoreError::Stopping)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // A writer that stops has ended it already.
        let _ = self.0.ask_copy(Copying::End);
    }
}

/// The file that the copy becomes, under another name until it is whole.
struct Target {
    file: PathBuf,
    part: PathBuf,
    handle: File,
    needed: u64,
    min_free: u64,
    whole: bool,
}

impl Target {
    /// `min_free` octets stay free where it lies on the data directory's disk.
    fn make(
        file: &Path,
        data_dir: &Path,
        min_free: u64,
        size: u64,
        now: Timestamp,
    ) -> Result<(Target, Connection), BackupError> {
        let failed = |error| BackupError::File { path: file.to_owned(), error };
        if fs::symlink_metadata(file).is_ok() {
            return Err(BackupError::Exists(file.to_owned()));
        }
        let name = file.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
        let mut part = name.to_owned();
        part.push(format!(".{}.part", now.millis()));
        let part = file.with_file_name(part);
        let folder = folder_of(file);
        let same_disk = device(folder).map_err(failed)? == device(data_dir).map_err(failed)?;
        let min_free = if same_disk { min_free } else { 0 };
        let needed = size.saturating_add(SPARE_OCTETS);
        leftovers::remove(folder);
        room(file, needed, min_free)?;
        let handle =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
        leftovers::claim(&handle);
        let target = Target { file: file.to_owned(), part, handle, needed, min_free, whole: false };
        let to = open_copy(&target.part).map_err(|error| target.refused(&error))?;
        Ok((target, to))
    }

    fn length(&self) -> u64 {
        self.handle.metadata().map_or(0, |file| file.len())
    }

    /// On the disk as far as it is written; and the disk has room for the rest.
    fn synced(self) -> Result<Target, BackupError> {
        self.handle.sync_data().map_err(|error| self.failed(error))?;
        room(&self.file, self.needed.saturating_sub(self.length()), self.min_free)?;
        Ok(self)
    }

    /// Marks it, closes it, syncs it and gives it its name; how long it is.
    fn finish(mut self, to: Connection, now: Timestamp) -> Result<u64, BackupError> {
        let mark = || {
            // One file by itself, without a log beside it, whoever opens it.
            to.pragma_update(None, "journal_mode", "DELETE")?;
            generation::mark(&to, now)
        };
        mark().map_err(|error| self.refused(&error))?;
        to.close().map_err(|(_, error)| self.refused(&error))?;
        self.handle.sync_all().map_err(|error| self.failed(error))?;
        let octets = self.length();
        name(&self.part, &self.file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(self.file.clone()),
            _ => self.failed(error),
        })?;
        self.whole = true;
        let folder = File::open(folder_of(&self.file)).and_then(|folder| folder.sync_all());
        folder.map_err(|error| self.failed(error))?;
        Ok(octets)
    }

    fn failed(&self, error: io::Error) -> BackupError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_room(),
            _ => BackupError::File { path: self.file.clone(), error },
        }
    }

    /// What SQLite said to a write of the copy.
    fn refused(&self, error: &rusqlite::Error) -> BackupError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => self.no_room(),
            _ => BackupError::File { path: self.file.clone(), error: io::Error::other(error.to_string()) },
        }
    }

    fn no_room(&self) -> BackupError {
        BackupError::NoRoom {
            path: self.file.clone(),
            free: free(&self.file).unwrap_or(0),
            needed: self.needed.saturating_sub(self.length()),
            min_free: self.min_free,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_file(&self.part);
            for beside in ["-journal", "-wal", "-shm"] {
                let mut path = self.part.clone().into_os_string();
                path.push(beside);
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Nothing of it is read before it is whole, so nothing needs to be undone in it; it is synced at the end.
fn open_copy(part: &Path) -> rusqlite::Result<Connection> {
    let to = Connection::open_with_flags(
        part,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    to.pragma_update(None, "journal_mode", "OFF")?;
    to.pragma_update(None, "synchronous", "OFF")?;
    Ok(to)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn device(folder: &Path) -> io::Result<u64> {
    fs::metadata(folder).map(|folder| folder.dev())
}

fn free(file: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder_of(file))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn room(file: &Path, needed: u64, min_free: u64) -> Result<(), BackupError> {
    let free = free(file).map_err(|error| BackupError::File { path: file.to_owned(), error })?;
    if free >= needed.saturating_add(min_free) {
        return Ok(());
    }
    Err(BackupError::NoRoom { path: file.to_owned(), free, needed, min_free })
}

/// Renames, but not over a file that is there.
fn name(part: &Path, file: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, part, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that cannot say so.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match fs::symlink_metadata(file) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(part, file),
        },
        Err(errno) => Err(errno.into()),
    }
}
