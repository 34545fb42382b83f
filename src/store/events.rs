//! What happened, and who may not be mailed: events and suppressions.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::refused::store_error;
use super::row::{LaneId, QUEUED, Queued};
use super::tx::{SUPPRESSIONS_OF, Tx, suppressed};
use super::types::{NewEvent, NewSuppression, StoreError, Suppression};
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::delivery::Mark;
use crate::mail::{self, AttemptId, DeliveryId, Known, QueueState, StreamKind, StreamName};

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

    /// Rises with each commit after which somebody may not be mailed who might have been before: a suppression, or an
    /// operator's wish for what is out, or a late answer that an ESP has it. Where it stands as it stood at a begin, that begin's verdicts hold.
    pub fn verdicts(&self) -> u64 {
        self.shared.verdicts.load(Ordering::Acquire)
    }

    /// Whether each of these, begun with that attempt, may still be mailed (rule 3).
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn wanted(&self, items: Vec<(DeliveryId, AttemptId)>) -> Result<Vec<bool>, StoreError> {
        let lanes = self.shared.lanes();
        let now = self.shared.clock.now();
        self.read(move |conn| {
            items.iter().map(|(id, attempt)| wanted(conn, &lanes, *id, *attempt, now)).collect()
        })
        .await
    }

    /// What keeps mail of that stream from each key, by all its suppressions, as [`Store::accept`] judges. Inline: it takes
    /// microseconds.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub fn blocked(
        &self,
        keys: &[String],
        stream: &StreamName,
        kind: StreamKind,
    ) -> Result<Vec<Option<Suppression>>, StoreError> {
        let now = self.shared.clock.now();
        let found = self.shared.readers.run(|conn| {
            let mut of_key = conn.prepare_cached(SUPPRESSIONS_OF)?;
            keys.iter().map(|key| suppressed(&mut of_key, key, stream.as_str(), kind, now)).collect()
        });
        found.map_err(|error| store_error(&error))
    }

    /// Writes and commits a tiny row: whether mail of an ordinary size could be accepted now.
    ///
    /// Errors: as [`Store::accept`]. May be run again.
    pub async fn probe_write(&self) -> Result<(), StoreError> {
        let run = |tx: &mut Tx<'_, '_>| {
            tx.conn
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('probed_at', ?1)")?
                .execute([tx.now.millis()])?;
            Ok(tx.shared.space.ready())
        };
        self.shared.queue.run(Lane::Mail, 1, run).await?
    }
}

fn wanted(
    conn: &Connection,
    lanes: &[(LaneId, mail::Lane)],
    id: DeliveryId,
    attempt: AttemptId,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let sql = format!("SELECT {QUEUED} FROM email_sends WHERE message = ?1 AND recipient = ?2");
    let queued = conn
        .prepare_cached(&sql)?
        .query_row(params![id.message.number(), id.recipient], Queued::read)
        .optional()?;
    let Some(queued) = queued else { return Ok(false) };
    let out = matches!(queued.delivery.state, QueueState::Out { attempt: a, .. } if a == attempt);
    if !out || queued.delivery.mark != Mark::None || queued.delivery.known >= Known::Handed {
        return Ok(false);
    }
    let Some((_, lane)) = lanes.iter().find(|(lane, _)| *lane == queued.lane) else { return Ok(true) };
    let mut of_key = conn.prepare_cached(SUPPRESSIONS_OF)?;
    Ok(suppressed(&mut of_key, &queued.key, lane.stream.as_str(), lane.kind, now)?.is_none())
}

fn suppress(tx: &mut Tx<'_, '_>, s: &NewSuppression) -> rusqlite::Result<bool> {
    tx.delta.verdict = true;
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
