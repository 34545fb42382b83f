//! Moves that no answer makes: operators' acts, the end of `max_age`, and what a start finds of a relay that died.

use std::time::Duration;

use rusqlite::params;
use tokio::time::Instant;

use super::Store;
use super::queue::insert_crashed;
use super::read::{view, view_where};
use super::reasons;
use super::row::{LaneId, QUEUED, Queued, integer};
use super::tx::Tx;
use super::types::{Act, Acted, DeliveryView, Recovered, StoreError};
use super::waiting::Lane;
use crate::clock::{Timestamp, monotonic};
use crate::mail::delivery::Mark;
use crate::mail::{DeliveryId, MessageId, QueueState, Reason, StreamKind, StreamName};

/// Rows that one operation over the whole queue moves at a time.
const CHUNK_ROWS: usize = 500;
/// On a full disk a start tries again so often…
const RECOVER_PAUSE: Duration = Duration::from_secs(1);
/// …and says so.
const RECOVER_SAID_EVERY: Duration = Duration::from_secs(60);

impl Store {
    /// What an operator does to these messages' deliveries, with an event each.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing changed then. May be
    /// run again.
    pub async fn act(&self, act: Act, messages: Vec<MessageId>) -> Vec<Result<Acted, StoreError>> {
        let count = messages.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            messages.iter().map(|id| act_on(tx, act, *id)).collect::<rusqlite::Result<Vec<_>>>()
        };
        match self.shared.queue.run(Lane::Mail, count, run).await {
            Ok(acted) => acted.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// `queue flush` of everything: all that waits is due now; holds are not touched. How many were not due before.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; part of them may be due by
    /// then. May be run again.
    pub async fn flush_all(&self) -> Result<u64, StoreError> {
        let now = self.shared.clock.now();
        let mut flushed = 0;
        for (lane, _) in self.shared.lanes() {
            flushed += self.chunked(Lane::Bulk, move |tx| flush_lane(tx, lane, now)).await?;
        }
        Ok(flushed)
    }

    /// Ends what has passed its `max_age` at `now`, at most `limit` deliveries, whatever their lane: `assumed` where
    /// an attempt is open, else `expired`, with the event (rules 13, 14). Gives those that ended.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; none ended then. May be run
    /// again.
    pub async fn sweep(&self, now: Timestamp, limit: usize) -> Result<Vec<DeliveryView>, StoreError> {
        self.shared.queue.run(Lane::Mail, limit, move |tx| sweep(tx, now, limit)).await
    }

    /// At start: what another owner had out is unsure now, for as long as `hold` says for its stream, with its attempt
    /// and an event (rule 12); and no hold ends before that time has passed from now on.
    ///
    /// On a full disk it waits for room, and says so: nothing may be begun before it is done.
    ///
    /// Errors: [`StoreError::Failed`], [`StoreError::Stopping`]; part of them may be judged by then. May be run
    /// again, and must be until it succeeds: until then those deliveries do not move.
    pub async fn recover(
        &self,
        hold: impl Fn(&StreamName, StreamKind) -> Duration,
    ) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        let mut said_at: Option<Instant> = None;
        loop {
            match self.recover_once(&hold, &mut recovered).await {
                Ok(()) => return Ok(recovered),
                Err(StoreError::Full(why)) => {
                    if said_at.is_none_or(|at| at.elapsed() >= RECOVER_SAID_EVERY) {
                        said_at = Some(monotonic());
                        tracing::error!(
                            why,
                            "what an earlier start left cannot be judged: the relay starts when there is room"
                        );
                    }
                    tokio::time::sleep(RECOVER_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn recover_once(
        &self,
        hold: &impl Fn(&StreamName, StreamKind) -> Duration,
        recovered: &mut Recovered,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        for (lane, of) in self.shared.lanes() {
            let until = now.plus(hold(&of.stream, of.kind));
            let out = self.shared.foreign_out(lane);
            for chunk in out.chunks(CHUNK_ROWS) {
                let chunk = chunk.to_vec();
                let run = move |tx: &mut Tx<'_, '_>| crash(tx, &chunk, until);
                recovered.crashed += self.shared.queue.run(Lane::Mail, CHUNK_ROWS, run).await?;
            }
            let extend = move |tx: &mut Tx<'_, '_>| extend_holds(tx, lane, until);
            recovered.holds_extended += self.chunked(Lane::Mail, extend).await?;
        }
        Ok(())
    }

    /// Runs `step` until it moves less than a chunk of rows.
    async fn chunked<F>(&self, lane: Lane, step: F) -> Result<u64, StoreError>
    where
        F: Fn(&mut Tx<'_, '_>) -> rusqlite::Result<usize> + Clone + Send + 'static,
    {
        let mut total = 0;
        loop {
            let step = step.clone();
            let moved = self.shared.queue.run(lane, CHUNK_ROWS, move |tx| step(tx)).await?;
            total += moved as u64;
            if moved < CHUNK_ROWS {
                return Ok(total);
            }
        }
    }
}

fn act_on(tx: &mut Tx<'_, '_>, act: Act, message: MessageId) -> rusqlite::Result<Acted> {
    let mut acted = Acted::default();
    for before in deliveries(tx, message)? {
        acted.found = true;
        let mut after = before.clone();
        let (changed, kind) = match act {
            Act::Flush => (after.delivery.flush(tx.now), "flushed"),
            Act::Pause => (after.delivery.pause(), "paused"),
            Act::Release => (after.delivery.release(tx.now), "released"),
            Act::Remove => (after.delivery.remove(), "removed"),
        };
        if changed {
            acted.changed += 1;
            tx.write(&before, &after)?;
            tx.delivery_event(before.id, kind, None, None, &act_detail(&before, after.delivery.mark))?;
        }
    }
    Ok(acted)
}

fn act_detail(before: &Queued, mark: Mark) -> String {
    match (before.delivery.state, mark) {
        (QueueState::Out { .. }, Mark::Pause | Mark::Remove) => "once the attempt that is out ends".into(),
        (QueueState::Unsure { .. }, _) => "while the outcome of an attempt is open".into(),
        _ => String::new(),
    }
}

fn deliveries(tx: &Tx<'_, '_>, message: MessageId) -> rusqlite::Result<Vec<Queued>> {
    let sql = format!("SELECT {QUEUED} FROM email_sends WHERE message = ?1 ORDER BY recipient");
    let mut statement = tx.conn.prepare_cached(&sql)?;
    statement.query_map([message.number()], Queued::read)?.collect()
}

/// `Delivery::flush` for a lane's rows that are not due.
fn flush_lane(tx: &mut Tx<'_, '_>, lane: LaneId, now: Timestamp) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached(
            "UPDATE email_sends SET at = ?2 WHERE (message, recipient) IN
                 (SELECT message, recipient FROM email_sends INDEXED BY email_sends_due
                  WHERE lane = ?1 AND state IN (0, 2) AND at > ?2 AND state = 0 LIMIT ?3)",
        )?
        .execute(params![lane, now.millis(), integer(CHUNK_ROWS)])
}

/// No hold ends before the webhooks that could not arrive have had their time. Paused ones return to theirs.
fn extend_holds(tx: &mut Tx<'_, '_>, lane: LaneId, until: Timestamp) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached(
            "UPDATE email_sends SET at = ?2 WHERE (message, recipient) IN
                 (SELECT message, recipient FROM email_sends INDEXED BY email_sends_end
                  WHERE state IN (0, 2, 3, 4) AND lane = ?1 AND state IN (2, 4) AND at < ?2 LIMIT ?3)",
        )?
        .execute(params![lane, until.millis(), integer(CHUNK_ROWS)])
}

fn sweep(tx: &mut Tx<'_, '_>, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<DeliveryView>> {
    let sql = format!(
        "SELECT {QUEUED} FROM email_sends INDEXED BY email_sends_end
         WHERE state IN (0, 2, 3, 4) AND ends_at <= ?1 ORDER BY ends_at LIMIT ?2"
    );
    let over = {
        let mut statement = tx.conn.prepare_cached(&sql)?;
        statement
            .query_map(params![now.millis(), integer(limit)], Queued::read)?
            .collect::<Result<Vec<_>, _>>()?
    };
    let mut ended = Vec::with_capacity(over.len());
    for before in over {
        let mut after = before.clone();
        after.delivery.open_attempts = tx.open_attempts(&before)?.0;
        let Some(reason) = after.delivery.expire() else { continue };
        tx.write(&before, &after)?;
        let (kind, detail) = match reason {
            Reason::Assumed => ("assumed", "its time passed while the outcome of an attempt was open".into()),
            _ => ("expired", expired(tx, &before)?),
        };
        tx.delivery_event(before.id, kind, None, before.esp.as_deref(), &detail)?;
        let mut statement = tx.conn.prepare_cached(&view_where("e.message = ?1 AND e.recipient = ?2"))?;
        ended.push(statement.query_row(params![before.id.message.number(), before.id.recipient], view)?);
    }
    Ok(ended)
}

/// The delivery's end for those who read its life: with the last word of each ESP.
fn expired(tx: &Tx<'_, '_>, of: &Queued) -> rusqlite::Result<String> {
    let reasons = if of.tries > 0 { reasons::of_expired(tx.conn, of.id)? } else { String::new() };
    Ok(match reasons.as_str() {
        "" => "its time passed before it was tried".into(),
        reasons => format!("its time passed; {reasons}"),
    })
}

fn crash(tx: &mut Tx<'_, '_>, ids: &[DeliveryId], until: Timestamp) -> rusqlite::Result<u64> {
    const DETAIL: &str = "the relay stopped while the attempt was out: whether it was handed over is unknown";
    let mut crashed = 0;
    for id in ids {
        let Some(before) = tx.read(*id)? else { continue };
        let QueueState::Out { owner, attempt } = before.delivery.state else { continue };
        let mut after = before.clone();
        if owner == tx.shared.owner || !after.delivery.crashed(until) {
            continue;
        }
        insert_crashed(tx, &before, attempt, DETAIL)?;
        tx.write(&before, &after)?;
        tx.delivery_event(*id, "crashed", Some(attempt), before.esp.as_deref(), DETAIL)?;
        crashed += 1;
    }
    Ok(crashed)
}
