//! The database file: how it is made, and the migrations that bring it to this version's schema.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// In order; `PRAGMA user_version` counts how many a database has had. Never edit one that was released.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_first.sql"),
    include_str!("migrations/0002_several_esps.sql"),
    include_str!("migrations/0003_rounds.sql"),
    include_str!("migrations/0004_operate.sql"),
    include_str!("migrations/0005_reports.sql"),
    include_str!("migrations/0006_keys_for_a_time.sql"),
    include_str!("migrations/0007_requeue.sql"),
    include_str!("migrations/0008_send_at.sql"),
    include_str!("migrations/0009_feedback.sql"),
    include_str!("migrations/0010_unmatched.sql"),
    include_str!("migrations/0011_notifications.sql"),
    include_str!("migrations/0012_feedback_told.sql"),
    include_str!("migrations/0013_open_attempts.sql"),
    include_str!("migrations/0014_lifted.sql"),
    include_str!("migrations/0015_packed_bodies.sql"),
    include_str!("migrations/0016_remote_ids.sql"),
];
/// "POST": tells our database from any other.
pub(super) const APPLICATION_ID: i64 = 0x504f_5354;
/// Measured with `benches/store.rs` at 100, 10 and 1 connections: 8 and 16 KiB save at most 4 us of CPU a message in
/// large groups, and write three times as much for a message that comes alone.
const PAGE_OCTETS: u32 = 4096;
/// The writer's page cache. New mail goes to the ends of its tables: 2 MiB are as fast as 16.
const WRITER_CACHE_OCTETS: u32 = 4 * 1024 * 1024;
/// Each reader's page cache.
const READER_CACHE_OCTETS: u32 = 1024 * 1024;
/// How long SQLite itself waits for a lock that somebody else holds; after it we ask again.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(2);
/// After a checkpoint the log file is cut back to this.
const WAL_KEPT_OCTETS: u32 = 64 * 1024 * 1024;

/// Why the database cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is not there and cannot be made, or nothing can be written into it.
    #[error("{path}: {error}. [server] data_dir must be a folder that the relay's user may write to", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is something else.
    #[error("{path}: not a Postroad database. Move it away, or set [server] data_dir to another folder", path = .0.display())]
    NotOurs(PathBuf),
    /// A later version made it.
    #[error("{path}: its schema is version {found}, this program knows up to {known}. It was left as it is; start the newer version, or restore a backup made before the upgrade", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite said no.
    #[error("{path}: {error}. See that the disk has room, that the file is writable, and that it lies on a local disk", path = .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether it may be for want of room: SQLite says so of some writes only, of others that they failed.
    pub(super) fn is_no_room(&self) -> bool {
        match self {
            OpenError::Folder { error, .. } => error.kind() == std::io::ErrorKind::StorageFull,
            OpenError::Database { error, .. } => is_no_room(error),
            OpenError::NotOurs(_) | OpenError::Newer { .. } => false,
        }
    }

    pub(super) fn database(path: &Path, error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotOurs(path.to_owned()),
            _ => OpenError::Database { path: path.to_owned(), error },
        }
    }
}

/// Whether a write may have failed for want of room: a quota and a bound on the size of files are told as failures.
pub(super) fn is_no_room(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// Makes folder (0700) and file (0600) where absent, brings the schema up to date and gives the writer's connection.
pub(super) fn open_writer(data_dir: &Path) -> Result<(Connection, PathBuf), OpenError> {
    let folder = |error| OpenError::Folder { path: data_dir.to_owned(), error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(folder)?;
    let path = data_dir.join("postroad.db");
    fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(|error| {
        match path.exists() {
            true => OpenError::Folder { path: path.clone(), error },
            false => folder(error),
        }
    })?;
    let (mut conn, found) = Connection::open_with_flags(&path, flags())
        .and_then(prepare)
        .map_err(|error| OpenError::database(&path, error))?;
    judge(&path, found)?;
    migrate(&mut conn, found.version).map_err(|error| OpenError::database(&path, error))?;
    Ok((conn, path))
}

/// A connection to a database that is left as it is, its schema too; whoever opens it holds the data directory.
pub(super) fn open_as_it_is(path: &Path) -> Result<Connection, OpenError> {
    let flags = flags() & !OpenFlags::SQLITE_OPEN_CREATE;
    let (conn, found) = Connection::open_with_flags(path, flags)
        .and_then(prepare)
        .map_err(|error| OpenError::database(path, error))?;
    if found.version == 0 {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    judge(path, found).map(|()| conn)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags() & !OpenFlags::SQLITE_OPEN_CREATE)?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.pragma_update(None, "cache_size", -i64::from(READER_CACHE_OCTETS / 1024))?;
    conn.pragma_update(None, "query_only", true)?;
    conn.set_prepared_statement_cache_capacity(32);
    plan_once(&conn)?;
    Ok(conn)
}

/// A connection that only writes the log back into the file: it syncs both, as the writer's does.
pub(super) fn open_for_the_log(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags() & !OpenFlags::SQLITE_OPEN_CREATE)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    // The log is opened with the first read.
    conn.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?;
    Ok(conn)
}

/// A plan is made once, for any value: else a statement with a bound LIMIT is parsed anew each time that it runs, which
/// took a tenth of the relay's CPU.
fn plan_once(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

/// Each connection is used by one thread at a time.
fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// What a file says of itself.
#[derive(Clone, Copy)]
struct Found {
    version: i64,
    application: i64,
    tables: i64,
}

/// Reads what the file is, before anything is changed in it.
fn prepare(conn: Connection) -> rusqlite::Result<(Connection, Found)> {
    conn.busy_timeout(BUSY_WAIT)?;
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let found = Found {
        version: number("PRAGMA user_version")?,
        application: number("PRAGMA application_id")?,
        tables: number("SELECT count(*) FROM sqlite_schema")?,
    };
    Ok((conn, found))
}

fn judge(path: &Path, found: Found) -> Result<(), OpenError> {
    let known = MIGRATIONS.len() as i64;
    if found.tables > 0 && found.application != APPLICATION_ID {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    if found.version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: found.version, known });
    }
    Ok(())
}

fn migrate(conn: &mut Connection, version: i64) -> rusqlite::Result<()> {
    if version == 0 {
        conn.pragma_update(None, "page_size", PAGE_OCTETS)?;
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_OCTETS)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_OCTETS / 1024))?;
    conn.set_prepared_statement_cache_capacity(64);
    plan_once(conn)?;
    for (n, sql) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
        let tx = conn.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", n as i64 + 1)?;
        tx.commit()?;
    }
    Ok(())
}
