//! The suppression list as operators see it: read page by page, and taken from.

use rusqlite::{Connection, params};

use super::Store;
use super::by_recipient::WHOLE_SECOND;
use super::row::moment;
use super::tx::Tx;
use super::types::StoreError;
use super::views::Listed;
use super::waiting::Lane;
use crate::clock::Timestamp;

impl Store {
    /// Suppressions by their address's key, those behind `after` (key, scope, reason), at most so many; of one key alone
    /// where it is named. Those that are over are not among them.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn suppressions(
        &self,
        key: Option<String>,
        after: [String; 3],
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let now = self.shared.clock.now();
        self.read(move |conn| list(conn, key.as_deref(), &after, limit, now)).await
    }

    /// Takes an address's suppressions away, those of one reason or all; how many there were. What was known until now
    /// suppresses it no more, whatever is made of it anew.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; none is gone then. May be run again.
    pub async fn unsuppress(&self, key: String, reason: Option<String>) -> Result<u64, StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| {
            let gone = tx
                .conn
                .prepare_cached("DELETE FROM suppressions WHERE key = ?1 AND (?2 IS NULL OR reason = ?2)")?
                .execute(params![key, reason])?;
            if gone > 0 {
                note_lifted(tx, &key, reason.as_deref().unwrap_or_default())?;
            }
            Ok(gone as u64)
        };
        self.shared.queue.run(Lane::Mail, 1, run).await
    }
}

fn note_lifted(tx: &Tx<'_, '_>, key: &str, reason: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO lifted (key, reason, at, event)
             VALUES (?1, ?2, ?3, (SELECT coalesce(max(id), 0) FROM events))",
        )?
        .execute(params![key, reason, tx.now.millis()])
        .map(|_| ())
}

/// When an operator last took an address off the list, for that reason or whatever the reason; from the beginning of time
/// where nobody did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifted {
    at: Timestamp,
    /// The last event that was known by then: its row.
    pub event: i64,
}

impl Lifted {
    /// What happened before this is over; some ESPs tell times in whole seconds.
    pub(super) fn since(self) -> Timestamp {
        self.at.earlier(WHOLE_SECOND)
    }

    pub(super) fn is_after(self, at: Timestamp) -> bool {
        at < self.since()
    }
}

pub(super) fn lifted(tx: &Tx<'_, '_>, key: &str, reason: &str) -> rusqlite::Result<Lifted> {
    tx.conn
        .prepare_cached(
            "SELECT coalesce(max(at), 0), coalesce(max(event), 0) FROM lifted WHERE key = ?1 AND reason IN ('', ?2)",
        )?
        .query_row(params![key, reason], |row| Ok(Lifted { at: moment(row, 0)?, event: row.get(1)? }))
}

fn list(
    conn: &Connection,
    key: Option<&str>,
    [after, scope, reason]: &[String; 3],
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Vec<Listed>> {
    let mut statement = conn.prepare_cached(
        "SELECT key, address, reason, scope, source, evidence, created_at, expires_at FROM suppressions
         WHERE (key, scope, reason) > (?1, ?2, ?3) AND (?4 IS NULL OR key = ?4)
             AND (expires_at IS NULL OR expires_at > ?5)
         ORDER BY key, scope, reason LIMIT ?6",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![after, scope, reason, key, now.millis(), limit], |row| {
        Ok(Listed {
            key: row.get(0)?,
            address: row.get(1)?,
            reason: row.get(2)?,
            scope: row.get(3)?,
            source: row.get(4)?,
            evidence: row.get(5)?,
            since: row.get(6).map(Timestamp::from_millis)?,
            until: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
        })
    })?;
    rows.collect()
}
