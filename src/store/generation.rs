//! Which start of the relay this is, and whether its database was restored from a backup since the last one.
//!
//! The generation rises at each start, in the database first, then in a file beside it. So a database that is below the
//! file is older than the last start: it was restored; and so was one that bears the mark that `backup` writes into its
//! copy, or one that knows starts of which no file beside it does (DELIVERY rule 20). What a restored database has
//! unfinished may have been sent since its backup: all sending is paused until an operator lets it go on, and each such
//! delivery has an event before anything goes.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::recover::Patience;
use super::row::{self, LaneId};
use super::suspensions::EVERY_ESP;
use super::tx::Tx;
use super::types::{NewEvent, StoreError};
use super::waiting::Lane;
use super::{Shared, Store, ledger, noted, suspensions, timeline, without_esps};
use crate::clock::Timestamp;
use crate::mail::{DeliveryId, MessageId};

/// The file beside the database.
const FILE: &str = "generation";
/// It always has this length: to write it again takes no room on a full disk.
const FILE_OCTETS: usize = 20;
/// `meta`: the last start's number.
const GENERATION: &str = "generation";
/// `meta`, of a copy alone: when it was made.
const MARK: &str = "backup_at";
/// `meta`, from a restore until sending goes on: when that was seen…
const RESTORED_AT: &str = "restored_at";
/// …and the last message that was in the backup.
const RESTORED_TO: &str = "restored_to";
/// Rows that one operation writes at a time.
const CHUNK_ROWS: usize = 500;
/// What a delivery's event of it is called.
const MAY_HAVE_BEEN_SENT: &str = "may_have_been_sent";

/// A database that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Why it is paused, for all who ask.
    pub reason: String,
    /// Deliveries that it has unfinished.
    pub unfinished: u64,
}

/// Writes the mark into a copy.
pub(super) fn mark(copy: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    copy.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![MARK, now.millis()])
        .map(|_| ())
}

impl Shared {
    /// Takes over from the database whether what is unfinished may have been sent before a restore.
    pub(super) fn look_for_restore(&self, conn: &Connection) -> rusqlite::Result<()> {
        let to = noted(conn, RESTORED_TO)?.unwrap_or(-1);
        self.restored_to.store(to, Ordering::Release);
        Ok(())
    }

    /// Until sending goes on after a restore: the last message that was in the backup.
    fn restored_to(&self) -> Option<MessageId> {
        let to = self.restored_to.load(Ordering::Acquire);
        (to >= 0).then(|| MessageId::from_number(to))
    }

    /// Whether a delivery may have been sent by the relay that was before the restore.
    pub(super) fn may_have_been_sent(&self, id: DeliveryId) -> bool {
        self.restored_to().is_some_and(|to| id.message <= to)
    }
}

impl Store {
    /// At start, before [`Store::recover`]: counts this start. Where the database was restored, in the same transaction:
    /// all sending is paused, and every open window of the ledger counts as spent, for `esps` and for whoever is in the
    /// ledger. On a full disk it waits for room, and says so.
    ///
    /// Errors: [`StoreError::Failed`], also where the file cannot be written; [`StoreError::Stopping`]. May be run
    /// again.
    pub async fn enter_generation(&self, esps: Vec<String>) -> Result<Option<Restored>, StoreError> {
        let path = self.shared.settings.load().data_dir.join(FILE);
        let failed = |error: io::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let in_file = read(&path).map_err(failed)?;
        let mut patience = Patience::default();
        let (number, restored) = loop {
            let esps = esps.clone();
            match self.shared.queue.run(Lane::Mail, 1, move |tx| enter(tx, in_file, &esps)).await {
                Err(StoreError::Full(why)) => patience.wait("this start cannot be counted", &why).await,
                entered => break entered?,
            }
        };
        write(&path, number).map_err(failed)?;
        self.read(|conn| noted(conn, RESTORED_TO)).await.map(|to| {
            self.shared.restored_to.store(to.unwrap_or(-1), Ordering::Release);
        })?;
        Ok(restored)
    }

    /// Lets all sending go on. After a restore each delivery that it had unfinished has an event first: it may have been
    /// sent. How many have.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; it is paused as before then. May
    /// be run again.
    pub async fn unpause(&self) -> Result<u64, StoreError> {
        let mut told = 0;
        if let Some(to) = self.shared.restored_to() {
            for (lane, _) in self.shared.lanes() {
                let ids = self.read(move |conn| unfinished(conn, lane, to)).await?;
                for chunk in ids.chunks(CHUNK_ROWS) {
                    let chunk = chunk.to_vec();
                    told += self.shared.queue.run(Lane::Mail, CHUNK_ROWS, move |tx| tell(tx, &chunk)).await?;
                }
            }
        }
        self.shared.queue.run(Lane::Mail, 1, go_on).await?;
        self.shared.restored_to.store(-1, Ordering::Release);
        Ok(told)
    }
}

/// The event of a delivery that a restored database had unfinished; `false`: it has it.
pub(super) fn tell_one(tx: &mut Tx<'_, '_>, id: DeliveryId) -> rusqlite::Result<bool> {
    let restored_at = noted(tx.conn, RESTORED_AT)?.unwrap_or_default();
    let at = Timestamp::from_millis(restored_at);
    tx.event(&NewEvent {
        message: Some(id.message),
        recipient: Some(id.recipient),
        event_key: Some(format!("restored {restored_at} {} {}", id.message, id.recipient)),
        detail: format!("a backup was restored at {at}: what was sent after that backup is not known here"),
        ..NewEvent::new(MAY_HAVE_BEEN_SENT, tx.now)
    })
}

fn tell(tx: &mut Tx<'_, '_>, ids: &[DeliveryId]) -> rusqlite::Result<u64> {
    let mut told = 0;
    for id in ids {
        let unfinished = tx.read(*id)?.is_some_and(|queued| !queued.is_done());
        told += u64::from(unfinished && tell_one(tx, *id)?);
    }
    Ok(told)
}

fn go_on(tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
    let still_without = without_esps::hides_behind_another(tx)?;
    suspensions::go_on(tx)?;
    if still_without {
        without_esps::pause(tx).map(|_| ())?
    } else {
        without_esps::forget(tx)?
    }
    tx.conn.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [RESTORED_AT, RESTORED_TO]).map(|_| ())
}

/// What is unfinished in that lane, up to that message. Nothing is out while all is paused since the start.
fn unfinished(conn: &Connection, lane: LaneId, to: MessageId) -> rusqlite::Result<Vec<DeliveryId>> {
    let mut statement = conn.prepare_cached(
        "SELECT message, recipient FROM email_sends INDEXED BY email_sends_end
         WHERE state IN (0, 2, 3, 4) AND lane = ?1 AND message <= ?2",
    )?;
    statement.query_map(params![lane, to.number()], |row| row::delivery_id(row, 0))?.collect()
}

/// This start's number, and what it found.
fn enter(
    tx: &mut Tx<'_, '_>,
    in_file: Option<i64>,
    esps: &[String],
) -> rusqlite::Result<(i64, Option<Restored>)> {
    let in_database = noted(tx.conn, GENERATION)?.unwrap_or(0);
    let number = in_database.max(in_file.unwrap_or(0)) + 1;
    let copied_at = noted(tx.conn, MARK)?.map(Timestamp::from_millis);
    note(tx, GENERATION, number)?;
    let reason = match (copied_at, in_file) {
        (Some(at), _) => format!("the backup of {at} was restored"),
        (None, Some(file)) if in_database < file => "an older database was restored".to_owned(),
        // The first start ever may have ended before it wrote its file.
        (None, None) if in_database > 1 => "the database is a copy, without the folder it lay in".to_owned(),
        (None, _) => return Ok((number, None)),
    };
    let reason =
        format!("{reason}: what it has unfinished may have been sent since; postroad unpause lets it go");
    tx.conn.execute("DELETE FROM meta WHERE key = ?1", [MARK])?;
    let last = tx.conn.query_row("SELECT coalesce(max(id), 0) FROM messages", [], |row| row.get(0))?;
    note(tx, RESTORED_AT, tx.now.millis())?;
    note(tx, RESTORED_TO, last)?;
    tx.conn.execute(
        "INSERT OR REPLACE INTO suspensions (esp, reason, since, until) VALUES (?1, ?2, ?3, NULL)",
        params![EVERY_ESP, reason, tx.now.millis()],
    )?;
    ledger::presume_spent(tx, esps)?;
    timeline::note_restore(tx)?;
    let event = NewEvent {
        detail: format!("restored: all sending is paused: {reason}"),
        ..NewEvent::new("alert", tx.now)
    };
    tx.event(&event)?;
    Ok((number, Some(Restored { reason, unfinished: tx.shared.space.deliveries() })))
}

fn note(tx: &Tx<'_, '_>, key: &str, value: i64) -> rusqlite::Result<()> {
    tx.conn
        .execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])
        .map(|_| ())
}

/// `None`: there is no file, or no number in it.
fn read(path: &Path) -> io::Result<Option<i64>> {
    let mut text = String::new();
    match OpenOptions::new().read(true).open(path) {
        Ok(file) => file.take(FILE_OCTETS as u64 * 2).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(text.trim().parse().ok().filter(|number| *number >= 0))
}

fn write(path: &Path, number: i64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let width = FILE_OCTETS - 1;
    file.write_all_at(format!("{number:0width$}\n").as_bytes(), 0)?;
    file.set_len(FILE_OCTETS as u64)?;
    file.sync_all()
}
