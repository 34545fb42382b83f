//! What happened, and who may not be mailed: events and suppressions.

use rusqlite::{OptionalExtension, params};

use super::Store;
use super::tx::Tx;
use super::types::{NewEvent, NewSuppression, StoreError, Suppression};
use super::waiting::Lane;
use super::writer::store_error;
use crate::clock::Timestamp;

impl Store {
    /// Records events, each once by its key; `false`: it was there already.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; none was recorded then. May be
    /// run again where they have keys.
    pub async fn record_events(&self, events: Vec<NewEvent>) -> Vec<Result<bool, StoreError>> {
        let count = events.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            events.iter().map(|event| tx.event(event)).collect::<rusqlite::Result<Vec<_>>>()
        };
        match self.shared.queue.run(Lane::Bulk, count, run).await {
            Ok(recorded) => recorded.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Writes suppressions; `false`: that one was there already and stays as it is, but for a later end.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; none was written then. May be
    /// run again.
    pub async fn suppress(&self, suppressions: Vec<NewSuppression>) -> Vec<Result<bool, StoreError>> {
        let count = suppressions.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            suppressions.iter().map(|s| suppress(tx, s)).collect::<rusqlite::Result<Vec<_>>>()
        };
        match self.shared.queue.run(Lane::Mail, count, run).await {
            Ok(written) => written.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// The suppression of each key, where it has one that is in force: one that blocks every stream before one with a
    /// scope. Inline: it takes microseconds. [`Store::accept`] and [`Store::begin`] judge by all of them.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub fn suppression(&self, keys: &[&str]) -> Result<Vec<Option<Suppression>>, StoreError> {
        let now = self.shared.clock.now().millis();
        let found = self.shared.readers.run(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT key, reason, scope, created_at FROM suppressions
                 WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY scope, reason LIMIT 1",
            )?;
            keys.iter().map(|key| statement.query_row(params![key, now], in_force).optional()).collect()
        });
        found.map_err(|error| store_error(&error))
    }

    /// Writes and commits a tiny row: whether mail could be accepted now.
    ///
    /// Errors: as [`Store::accept`]. May be run again.
    pub async fn probe_write(&self) -> Result<(), StoreError> {
        let run = |tx: &mut Tx<'_, '_>| {
            tx.conn
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('probed_at', ?1)")?
                .execute([tx.now.millis()])?;
            Ok(tx.shared.space.disk(0))
        };
        self.shared.queue.run(Lane::Mail, 1, run).await?
    }
}

fn in_force(row: &rusqlite::Row<'_>) -> rusqlite::Result<Suppression> {
    Ok(Suppression {
        key: row.get(0)?,
        reason: row.get(1)?,
        scope: row.get(2)?,
        since: row.get(3).map(Timestamp::from_millis)?,
    })
}

fn suppress(tx: &mut Tx<'_, '_>, s: &NewSuppression) -> rusqlite::Result<bool> {
    let known = tx
        .conn
        .prepare_cached("SELECT 1 FROM suppressions WHERE key = ?1 AND scope = ?2 AND reason = ?3")?
        .exists(params![s.key, s.scope, s.reason])?;
    // An end that is NULL never comes: it is the later one.
    tx.conn
        .prepare_cached(
            "INSERT INTO suppressions (key, address, reason, scope, source, evidence, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (key, scope, reason) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        )?
        .execute(params![
            s.key,
            s.address,
            s.reason,
            s.scope,
            s.source,
            s.evidence,
            s.created_at.millis(),
            s.expires_at.map(Timestamp::millis),
        ])?;
    Ok(!known)
}
