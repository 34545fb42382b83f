//! `queue requeue`: recipients that were not served start a new round (DELIVERY rule 18). What is known of them, the ESPs
//! that were tried and their age count from there; what comes of older attempts stays with those.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;

use super::Store;
use super::operate::{not_before, send_at};
use super::row::{Queued, deliveries};
use super::tx::Tx;
use super::types::{Settle, StoreError};
use super::waiting::Lane as Queue;
use crate::clock::Timestamp;
use crate::mail::delivery::Requeue;
use crate::mail::{Lane, MessageId, QueueState, Reason};

/// How long mail of a lane is tried: the `max_age` of its stream.
#[derive(Clone)]
pub struct MaxAge(Arc<dyn Fn(&Lane) -> Duration + Send + Sync>);

impl MaxAge {
    /// As that says.
    pub fn new(of: impl Fn(&Lane) -> Duration + Send + Sync + 'static) -> Self {
        MaxAge(Arc::new(of))
    }
}

impl fmt::Debug for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaxAge")
    }
}

/// What became of one message that was to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// There is none of that id.
    NoSuchMessage,
    /// Its content is no longer kept.
    BodyGone,
    /// Every recipient was served, or is in the queue.
    Nothing,
    /// These wait for a new round.
    Again {
        /// Recipients.
        deliveries: u32,
        /// Of these, those that may get it twice: an attempt is open, or it had been taken as sent.
        twice: u32,
        /// When the first of them goes, where their app wants it sent later.
        due: Option<Timestamp>,
    },
}

impl Store {
    /// Puts the recipients of these messages that were not served into the queue again, each with an event: they are due
    /// now, or at the moment that their app asked for where none was tried yet.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing changed then. May be run
    /// again: who is in the queue stays as it is.
    pub async fn requeue(
        &self,
        messages: Vec<MessageId>,
        max_age: MaxAge,
    ) -> Result<Vec<Requeued>, StoreError> {
        let count = messages.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            messages.iter().map(|id| requeue(tx, *id, &max_age)).collect::<rusqlite::Result<Vec<_>>>()
        };
        self.shared.queue.run(Queue::Mail, count, run).await
    }
}

fn requeue(tx: &mut Tx<'_, '_>, message: MessageId, max_age: &MaxAge) -> rusqlite::Result<Requeued> {
    let all = deliveries(tx.conn, message)?;
    if all.is_empty() {
        return Ok(Requeued::NoSuchMessage);
    }
    let (mut again, send_at) = (Vec::new(), send_at(tx, message)?);
    for before in all {
        let due = not_before(&before, send_at, tx.now);
        let mut after = before.clone();
        after.delivery.open.count = open_in_any_round(tx, &before)?;
        if let Requeue::Again { twice } = after.delivery.requeue(due) {
            again.push(Round { before, after, twice, due });
        }
    }
    if again.is_empty() {
        return Ok(Requeued::Nothing);
    }
    let kept =
        tx.conn.prepare_cached("SELECT 1 FROM bodies WHERE message = ?1")?.exists([message.number()])?;
    if !kept {
        return Ok(Requeued::BodyGone);
    }
    for round in &again {
        begin_round(tx, round, max_age)?;
    }
    let count = |rounds: usize| u32::try_from(rounds).unwrap_or(u32::MAX);
    let twice = again.iter().filter(|round| round.twice).count();
    let due = again.iter().map(|round| round.due).min().filter(|due| *due > tx.now);
    Ok(Requeued::Again { deliveries: count(again.len()), twice: count(twice), due })
}

/// Attempts whose answer is open, those of earlier rounds among them: the ESP may have the message from any.
fn open_in_any_round(tx: &Tx<'_, '_>, of: &Queued) -> rusqlite::Result<u32> {
    tx.conn
        .prepare_cached(
            "SELECT count(*) FROM attempts WHERE message = ?1 AND recipient = ?2 AND outcome = 'unsure'",
        )?
        .query_row(params![of.id.message.number(), of.id.recipient], |row| row.get(0))
}

/// One delivery's way into its new round.
struct Round {
    before: Queued,
    after: Queued,
    twice: bool,
    due: Timestamp,
}

fn begin_round(tx: &mut Tx<'_, '_>, round: &Round, max_age: &MaxAge) -> rusqlite::Result<()> {
    let Round { before, after, twice, due } = round;
    tx.write(before, &Queued { rounds: 0, ..after.clone() })?;
    let age = tx.lanes.get(before.lane).map_or(Duration::ZERO, |lane| (max_age.0)(lane));
    let (message, recipient) = (before.id.message.number(), before.id.recipient);
    let ends_at = due.plus(age).millis();
    tx.conn
        .prepare_cached("UPDATE email_sends SET ends_at = ?3 WHERE message = ?1 AND recipient = ?2")?
        .execute(params![message, recipient, ends_at])?;
    tx.conn
        .prepare_cached("UPDATE messages SET expires_at = max(expires_at, ?2) WHERE id = ?1")?
        .execute(params![message, ends_at])?;
    tx.conn
        .prepare_cached("UPDATE attempts SET earlier = 1 WHERE message = ?1 AND recipient = ?2")?
        .execute(params![message, recipient])?;
    tx.delivery_event(before.id, "requeued", None, None, "a new round")?;
    if *twice {
        let detail = match before.delivery.reason {
            Some(Reason::Assumed) => "a new round, and it was taken as sent",
            _ => "a new round, and the outcome of an earlier attempt is open",
        };
        tx.delivery_event(before.id, "may_arrive_twice", None, None, detail)?;
    }
    Ok(())
}

/// Whether an answer is to an attempt of an earlier round than the one that the delivery is in.
pub(super) fn is_of_an_earlier_round(
    tx: &Tx<'_, '_>,
    now: &Queued,
    settle: &Settle,
) -> rusqlite::Result<bool> {
    if matches!(now.delivery.state, QueueState::Out { attempt, .. } if attempt == settle.attempt) {
        return Ok(false);
    }
    tx.conn
        .prepare_cached(
            "SELECT 1 FROM attempts WHERE message = ?1 AND recipient = ?2 AND attempt = ?3 AND earlier = 1",
        )?
        .exists(params![settle.delivery.message.number(), settle.delivery.recipient, settle.attempt.number()])
}
