//! Moves that no answer makes: operators' acts and the end of `max_age`.

use rusqlite::{OptionalExtension, params};

use super::queue::WHILE_OPEN;
use super::read::{view, view_where};
use super::reasons;
use super::reports;
use super::row::{LaneId, QUEUED, Queued, deliveries, integer};
use super::tx::Tx;
use super::types::{Act, Acted, StoreError};
use super::views::DeliveryView;
use super::waiting::Lane;
use super::{Store, generation};
use crate::clock::Timestamp;
use crate::mail::delivery::{Mark, PausedFrom};
use crate::mail::report::Cause;
use crate::mail::{MessageId, QueueState, Reason};

/// Rows that one operation over the whole queue moves at a time.
const CHUNK_ROWS: usize = 500;

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
    let send_at = match act {
        Act::Release => send_at(tx, message)?,
        Act::Flush | Act::Pause | Act::Remove => None,
    };
    for before in deliveries(tx.conn, message)? {
        acted.found = true;
        let mut after = before.clone();
        // Where it was flushed since, its time was made to come.
        let due = not_before(&before, send_at.filter(|at| before.at >= *at), tx.now);
        let (changed, kind) = match act {
            Act::Flush => (after.delivery.flush(tx.now), "flushed"),
            Act::Pause => (after.delivery.pause(), "paused"),
            Act::Release => (after.delivery.release(due), "released"),
            Act::Remove => (after.delivery.remove(), "removed"),
        };
        if changed {
            acted.changed += 1;
            acted.due = acted.due.into_iter().chain((due > tx.now).then_some(due)).min();
            acted.out += u32::from(matches!(after.delivery.state, QueueState::Out { .. }));
            tx.delta.verdict |= after.delivery.mark != Mark::None;
            tx.write(&before, &after)?;
            tx.delivery_event(before.id, kind, None, None, &act_detail(&before, after.delivery.mark))?;
        }
    }
    Ok(acted)
}

/// The moment before which the message's app does not want it sent.
pub(super) fn send_at(tx: &Tx<'_, '_>, message: MessageId) -> rusqlite::Result<Option<Timestamp>> {
    let read = tx
        .conn
        .prepare_cached("SELECT send_at FROM messages WHERE id = ?1")?
        .query_row([message.number()], |row| row.get::<_, Option<i64>>(0))
        .optional()?;
    Ok(read.flatten().map(Timestamp::from_millis))
}

/// When an operator's word lets it go: now, and not before its app's moment where none was tried yet.
pub(super) fn not_before(of: &Queued, send_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    send_at.filter(|_| of.tries == 0).map_or(now, |at| at.max(now))
}

fn act_detail(before: &Queued, mark: Mark) -> String {
    match (before.delivery.state, mark) {
        (QueueState::Out { .. }, Mark::Pause | Mark::Remove) => "once the attempt that is out ends".into(),
        (QueueState::Unsure { .. } | QueueState::Paused { from: PausedFrom::Unsure { .. } }, _) => {
            WHILE_OPEN.into()
        }
        _ => String::new(),
    }
}

/// `Delivery::flush` for a lane's rows that are not due, but for those whose app named a moment: those are flushed by name.
fn flush_lane(tx: &mut Tx<'_, '_>, lane: LaneId, now: Timestamp) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached(
            "UPDATE email_sends SET at = ?2 WHERE (message, recipient) IN
                 (SELECT message, recipient FROM email_sends INDEXED BY email_sends_due
                  WHERE lane = ?1 AND state = 0 AND at > ?2
                      AND (tries > 0 OR NOT EXISTS
                          (SELECT 1 FROM messages WHERE messages.id = email_sends.message AND send_at > ?2))
                  LIMIT ?3)",
        )?
        .execute(params![lane, now.millis(), integer(CHUNK_ROWS)])
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
        after.delivery.open = tx.open(&before)?;
        // What may have been sent before a restore is as open as an attempt without an answer (rules 13, 20).
        let restored = tx.shared.may_have_been_sent(before.id);
        after.delivery.open.count += u32::from(restored);
        let reason = after.delivery.expire();
        if restored && reason.is_some() {
            generation::tell_one(tx, before.id)?;
        }
        if after.delivery != before.delivery {
            tx.write(&before, &after)?;
        }
        let Some(reason) = reason else { continue };
        let (kind, detail) = match reason {
            Reason::Assumed if restored => (
                "assumed",
                "its time passed while all was paused after a restore: it may have been sent".into(),
            ),
            Reason::Assumed => ("assumed", "its time passed while the outcome of an attempt was open".into()),
            _ => ("expired", expired(tx, &before)?),
        };
        tx.delivery_event(before.id, kind, None, before.esp.as_deref(), &detail)?;
        if reason == Reason::Expired {
            let said = reasons::last_words_of(tx.conn, before.id)?;
            reports::owe(tx, before.id, Cause::Expired, before.esp.as_deref(), &said)?;
        }
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
