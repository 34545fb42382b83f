//! Events out to the app: each is entered for its receivers in the transaction of the event itself, waits here until it is
//! taken, and stays as a log. What becomes of one is said by [`crate::mail::notification`].
//!
//! Where no receiver wants an event, nothing is read or written for it.

mod entering;
mod log;
mod types;

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::queue::cut;
use super::row::{integer, moment};
use super::tx::Tx;
use super::types::{NewEvent, StoreError};
use crate::clock::Timestamp;
use crate::mail::notification::Next;

use entering::tell_but;
pub(super) use entering::{handed, joined, tell};
pub(super) use log::forget;
use log::{list, replay_ids, replay_rows, replayable};
pub use types::*;

/// Rows of one piece of work.
const CHUNK: usize = 500;
/// Of a receiver's.
const ANSWER_OCTETS_MAX: usize = 300;

impl Store {
    /// Who is told from now on. What is entered already stays: see [`Store::end_notifications_of_others`].
    pub fn tell_receivers(&self, receivers: Vec<Receiver>) {
        self.shared.receivers.store(receivers.into());
    }

    /// Changes with each commit after which a receiver may have something to hear.
    pub fn notification_news(&self) -> tokio::sync::watch::Receiver<()> {
        self.shared.notification_news.subscribe()
    }

    /// What that receiver is to be told now, at most so many, in order.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn notifications_for(
        &self,
        receiver: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<ForReceiver, StoreError> {
        let receiver = receiver.to_owned();
        self.read(move |conn| for_receiver(conn, &receiver, now, limit)).await
    }

    /// Notes what became of attempts: of what has ended meanwhile, that it was taken alone. What waits of a message behind one that is told again waits as long.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing was noted then.
    pub async fn note_notifications(&self, attempted: Vec<Attempted>) -> Result<(), StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| attempted.iter().try_for_each(|one| note(tx, one));
        self.bulk(CHUNK, run).await
    }

    /// Ends what waits for that receiver: what its time has passed of, or all; how many. With the words that the log has
    /// of each.
    ///
    /// Errors: as [`Store::note_notifications`]; what ended until then has. May be run again.
    pub async fn end_notifications(
        &self,
        receiver: &str,
        passed: Option<Timestamp>,
        why: &str,
    ) -> Result<u64, StoreError> {
        let (before, mut ended) = (passed.map_or(i64::MAX, Timestamp::millis), 0);
        loop {
            let (receiver, why) = (receiver.to_owned(), why.to_owned());
            let gone = self.bulk(CHUNK, move |tx| end(tx, &receiver, before, &why)).await?;
            ended += gone;
            if gone < CHUNK as u64 {
                return Ok(ended);
            }
        }
    }

    /// Ends what waits for receivers that are told nothing any more: their names, and how much it was.
    ///
    /// Errors: as [`Store::end_notifications`].
    pub async fn end_notifications_of_others(&self, why: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let waiting = self
            .read(|conn| {
                let mut statement =
                    conn.prepare_cached("SELECT name FROM notify_receivers WHERE waiting > 0")?;
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
            })
            .await?;
        let mut ended = Vec::new();
        for name in waiting {
            if !self.shared.receivers.load().iter().any(|receiver| receiver.name == name) {
                let gone = self.end_notifications(&name, None, why).await?;
                ended.push((name, gone));
            }
        }
        Ok(ended)
    }

    /// The log, newest first.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn notifications(&self, filter: NotificationFilter) -> Result<Vec<Notification>, StoreError> {
        self.read(move |conn| list(conn, &filter)).await
    }

    /// Has notifications told once more, under the ids that they have, for another day.
    ///
    /// Errors: as [`Store::note_notifications`]; what was replayed until then is. May be run again.
    pub async fn replay_notifications(&self, replay: Replay) -> Result<Replayed, StoreError> {
        match replay {
            Replay::Ids(ids) => self.bulk(CHUNK, move |tx| replay_ids(tx, &ids)).await,
            Replay::Those { failed, since, receiver } => {
                let since = since.map_or(i64::MIN, Timestamp::millis);
                let (mut before, mut done) = (i64::MAX, Replayed::default());
                loop {
                    let page = self.read(move |conn| replayable(conn, failed, before)).await?;
                    let Some(last) = page.last() else { return Ok(done) };
                    before = last.0;
                    let fits = |(_, told_at, of): &&(i64, i64, String)| {
                        *told_at >= since && receiver.as_ref().is_none_or(|receiver| receiver == of)
                    };
                    let ns: Vec<i64> = page.iter().filter(fits).map(|(n, ..)| *n).collect();
                    let all_older = page.iter().all(|(_, told_at, _)| *told_at < since);
                    let some = self.bulk(CHUNK, move |tx| replay_rows(tx, &ns)).await?;
                    done.replayed += some.replayed;
                    done.without_receiver += some.without_receiver;
                    done.receiver_gone += some.receiver_gone;
                    if all_older {
                        return Ok(done);
                    }
                }
            }
        }
    }

    /// Records an alert about that receiver: the others are told, it is not, or its own refusals would feed themselves.
    ///
    /// Errors: as [`Store::record_events`].
    pub async fn record_receiver_alert(&self, receiver: &str, words: String) -> Result<(), StoreError> {
        let receiver = receiver.to_owned();
        let run = move |tx: &mut Tx<'_, '_>| {
            let event = NewEvent { detail: words.clone(), ..NewEvent::new("alert", tx.now) };
            match tx.record(&event)? {
                Some(row) => tell_but(tx, row, &event.kind, Some(&receiver)),
                None => Ok(()),
            }
        };
        self.bulk(1, run).await
    }
}

fn waiting(conn: &Connection, receiver: &str) -> rusqlite::Result<u64> {
    let found = conn
        .prepare_cached("SELECT waiting FROM notify_receivers WHERE name = ?1")?
        .query_row([receiver], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.map_or(0, i64::unsigned_abs))
}

fn for_receiver(
    conn: &Connection,
    receiver: &str,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<ForReceiver> {
    let mut statement = conn.prepare_cached(
        "SELECT w.n, w.id, w.kind, w.tries, w.refusals, w.ends_at, w.body
         FROM notifications w INDEXED BY notifications_due
         WHERE w.receiver = ?1 AND w.state = 0 AND w.due <= ?2 AND NOT EXISTS
             (SELECT 1 FROM notifications e INDEXED BY notifications_in_order
              WHERE e.receiver = w.receiver AND e.message = w.message AND e.n < w.n AND e.state = 0
                  AND e.message IS NOT NULL)
         ORDER BY w.due, w.n LIMIT ?3",
    )?;
    let due = statement
        .query_map(params![receiver, now.millis(), integer(limit)], |row| {
            Ok(DueNotification {
                n: row.get(0)?,
                id: row.get(1)?,
                event: row.get(2)?,
                tries: row.get(3)?,
                refusals: row.get(4)?,
                ends_at: moment(row, 5)?,
                body: row.get(6)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let next: Option<i64> = conn
        .prepare_cached(
            "SELECT min(due) FROM notifications INDEXED BY notifications_due
             WHERE receiver = ?1 AND state = 0 AND due > ?2",
        )?
        .query_row(params![receiver, now.millis()], |row| row.get(0))?;
    Ok(ForReceiver { due, next: next.map(Timestamp::from_millis), waiting: waiting(conn, receiver)? })
}

fn note(tx: &mut Tx<'_, '_>, one: &Attempted) -> rusqlite::Result<()> {
    let (state, due, refusals) = match one.next {
        Next::Taken => (NotificationState::Taken, None, None),
        Next::Failed => (NotificationState::Failed, None, None),
        Next::Again { due, refusals } => (NotificationState::Waiting, Some(due), Some(refusals)),
    };
    tx.conn
        .prepare_cached(
            "UPDATE notifications SET state = ?2, due = coalesce(?3, due), refusals = coalesce(?4, refusals),
                 tries = tries + 1, tried_at = ?5, answer = ?6
             WHERE n = ?1 AND (state = 0 OR ?2 = 1)",
        )?
        .execute(params![
            one.n,
            state.code(),
            due.map(Timestamp::millis),
            refusals,
            one.at.millis(),
            cut(&one.answer, ANSWER_OCTETS_MAX),
        ])?;
    if let Some(due) = due {
        tx.conn
            .prepare_cached(
                "UPDATE notifications INDEXED BY notifications_in_order SET due = ?2
                 WHERE receiver = (SELECT receiver FROM notifications WHERE n = ?1)
                     AND message = (SELECT message FROM notifications WHERE n = ?1) AND message IS NOT NULL
                     AND n > ?1 AND due < ?2 AND state = 0",
            )?
            .execute(params![one.n, due.millis()])?;
    }
    Ok(())
}

fn end(tx: &mut Tx<'_, '_>, receiver: &str, before: i64, why: &str) -> rusqlite::Result<u64> {
    let ended = tx
        .conn
        .prepare_cached(
            "UPDATE notifications SET state = 2, answer = ?3 || coalesce('; the last answer: ' || answer, '')
             WHERE n IN (SELECT n FROM notifications INDEXED BY notifications_end
                 WHERE receiver = ?1 AND state = 0 AND ends_at <= ?2 ORDER BY ends_at LIMIT ?4)",
        )?
        .execute(params![receiver, before, why, integer(CHUNK)])?;
    Ok(ended as u64)
}
