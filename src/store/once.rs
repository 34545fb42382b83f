//! A message with a key is taken once while the key is remembered, however often it is handed in.

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::accept::{Packed, accept};
use super::refused::store_error;
use super::row;
use super::tx::Tx;
use super::types::{Accept, NotAccepted, Once, StoreError};
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::{MessageId, OnceKey, Reason};

/// Keys forgotten at a time.
const FORGOTTEN_AT_ONCE: u32 = 500;

impl Store {
    /// As [`Store::accept`], and the key in the same transaction; where the key is known, nothing is written and the
    /// message that had it first is told.
    ///
    /// Errors: as [`Store::accept`]; neither message nor key was kept then. May be run again.
    pub async fn accept_once(&self, item: Accept, key: OnceKey) -> Result<Once, NotAccepted> {
        let item = Packed::new(&self.shared.packers, item).await;
        let rows = 1 + item.rows();
        let run = move |tx: &mut Tx<'_, '_>| {
            match known(tx.conn, &key, tx.now)? {
                Some(first) if first != item.message().id => return Ok(Ok(Once::Known(first))),
                Some(_) | None => {}
            }
            let until = tx.now.plus(key.kept);
            let entered = match accept(tx, &item)? {
                Ok(entered) => entered,
                Err(error) => return Ok(Err(error)),
            };
            tx.conn
                .prepare_cached(
                    "INSERT OR REPLACE INTO once_keys (scope, key, message, until) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key.scope, key.key, item.message().id.number(), until.millis()])?;
            Ok(Ok(Once::Entered(entered)))
        };
        self.shared.queue.run(Lane::Mail, rows, run).await?
    }

    /// The message that had this key first, while it is remembered. Reads at once, on this thread: it takes
    /// microseconds. [`Store::accept_once`] looks again.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub fn taken_once(&self, key: &OnceKey) -> Result<Option<MessageId>, StoreError> {
        let now = self.shared.clock.now();
        self.shared.readers.run(|conn| known(conn, key, now)).map_err(|error| store_error(&error))
    }

    /// Forgets keys after their time; how many.
    pub(super) async fn forget_keys(&self, now: Timestamp) -> Result<u64, StoreError> {
        let over = now.millis();
        let mut gone = 0;
        loop {
            let forgotten = self.bulk(FORGOTTEN_AT_ONCE as usize, move |tx| {
                let sql = "DELETE FROM once_keys WHERE (scope, key) IN
                               (SELECT scope, key FROM once_keys WHERE until <= ?1 LIMIT ?2)";
                tx.conn.prepare_cached(sql)?.execute(params![over, FORGOTTEN_AT_ONCE]).map(|n| n as u64)
            });
            match forgotten.await? {
                0 => return Ok(gone),
                n => gone += n,
            }
        }
    }
}

fn known(conn: &Connection, key: &OnceKey, now: Timestamp) -> rusqlite::Result<Option<MessageId>> {
    let found = conn
        .prepare_cached("SELECT message FROM once_keys WHERE scope = ?1 AND key = ?2 AND until > ?3")?
        .query_row(params![key.scope, key.key, now.millis()], |row| row.get(0))
        .optional()?
        .map(MessageId::from_number);
    match found {
        Some(first) if !key.outlives_removal && was_removed(conn, first)? => Ok(None),
        found => Ok(found),
    }
}

/// Whether an operator took it out for all its recipients.
fn was_removed(conn: &Connection, id: MessageId) -> rusqlite::Result<bool> {
    conn.prepare_cached(
        "SELECT count(*) > 0 AND count(*) = sum(state = ?2 AND reason IS ?3) FROM email_sends WHERE message = ?1",
    )?
    .query_row(params![id.number(), row::state::DONE, row::reason_code(Reason::Removed)], |row| {
        Ok(row.get::<_, Option<bool>>(0)?.unwrap_or(false))
    })
}
