//! What finished mail leaves behind goes after its time: bodies, attempts, messages, events; then the file shrinks.
//!
//! All of it is bulk work in small pieces, found by readers and judged again in the transaction that deletes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::Store;
use super::notifications;
use super::row::integer;
use super::tx::Tx;
use super::types::{Retained, StoreError};
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::MessageId;

/// Messages whose bodies go in one piece of work.
pub(super) const BODIES_CHUNK: usize = 250;
/// Messages that go with all their rows in one piece of work.
const MESSAGES_CHUNK: usize = 100;
/// Events looked at in one piece of work.
pub(super) const EVENTS_CHUNK: usize = 500;
/// Rows looked at by one read.
pub(super) const LOOKED_AT: usize = 2_000;
/// Pages given back in one piece of work, and pieces a round.
const VACUUM_PAGES: u32 = 256;
pub(super) const VACUUM_PIECES: u32 = 64;
/// Pages a piece where mail is refused for want of room: each that moves goes through the log.
pub(super) const VACUUM_PAGES_LOW: u32 = 32;
/// Free pages that stay in the file, for the mail that comes: one in so many, and at least…
const FREE_PAGES_KEPT: i64 = 8;
const FREE_PAGES_KEPT_MIN: i64 = 2_048;
/// How far behind the present the mark stays from which a start looks for what is out.
const MARK_BEHIND: Duration = Duration::from_secs(600);

/// A finished message, or one that is not (`done_at` is `None`).
pub(super) struct Finished {
    pub message: MessageId,
    pub size: i64,
    pub done_at: Option<Timestamp>,
}

impl Store {
    /// One round: bodies `keep_bodies` after their last recipient is done, and the oldest of what is over
    /// `keep_bodies_octets` or of what a sandbox keeps; attempts, messages and events after their times; then free pages go back to the disk.
    /// What is not done is never touched.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; what went until then is gone.
    /// May be run again.
    pub async fn retain(&self, now: Timestamp) -> Result<Retained, StoreError> {
        let mut gone = Retained { bodies: self.bodies(now).await?, ..Retained::default() };
        gone.bodies += self.sandboxed().await?;
        gone.attempts = self.attempts(now).await?;
        gone.messages = self.messages(now).await?;
        gone.events = self.old_events(now).await?;
        gone.keys = self.forget_keys(now).await?;
        gone.pages = self.vacuum().await?;
        self.mark(now).await?;
        Ok(gone)
    }

    async fn bodies(&self, now: Timestamp) -> Result<u64, StoreError> {
        let keep = self.shared.settings.load().keep_bodies;
        let mut over = self.body_octets_over().await?;
        let (mut after, mut gone) = (MessageId::from_number(0), 0);
        loop {
            let seen = self.read(move |conn| finished(conn, WITH_BODY, after)).await?;
            let Some(last) = seen.last().map(|f| f.message) else { return Ok(gone) };
            let mut ids = Vec::new();
            for f in &seen {
                let aged = f.done_at.is_some_and(|at| at.plus(keep) <= now);
                if f.done_at.is_some() && (aged || over > 0) {
                    over -= f.size;
                    ids.push(f.message);
                }
            }
            for chunk in ids.chunks(BODIES_CHUNK) {
                let chunk = chunk.to_vec();
                gone += self.bulk(chunk.len(), move |tx| delete_bodies(tx, &chunk)).await?;
            }
            if last.minted_at().plus(keep) > now && over <= 0 {
                return Ok(gone);
            }
            after = last;
        }
    }

    /// By how much finished bodies exceed their bound. They are counted once; then the writer keeps count.
    async fn body_octets_over(&self) -> Result<i64, StoreError> {
        if self.shared.body_octets.load(Ordering::Relaxed) < 0 {
            let sum = |conn: &Connection| {
                conn.query_row(
                    "SELECT coalesce(sum(m.size), 0) FROM bodies b CROSS JOIN messages m ON m.id = b.message",
                    [],
                    |row| row.get::<_, i64>(0),
                )
            };
            self.shared.body_octets.store(self.read(sum).await?, Ordering::Relaxed);
        }
        let bodies = self.shared.body_octets.load(Ordering::Relaxed);
        let queued = integer(self.shared.space.queue_octets());
        Ok(bodies
            .saturating_sub(queued)
            .saturating_sub(integer(self.shared.settings.load().keep_bodies_octets)))
    }

    async fn attempts(&self, now: Timestamp) -> Result<u64, StoreError> {
        let keep = self.shared.settings.load().keep_attempts;
        if keep >= self.shared.settings.load().keep_messages {
            return Ok(0);
        }
        let before = least_id_at(now.millis().saturating_sub(integer(keep.as_millis())));
        let mut gone = 0;
        loop {
            let ids = self.read(move |conn| with_old_attempts(conn, before)).await?;
            if ids.is_empty() {
                return Ok(gone);
            }
            gone += self.bulk(ids.len(), move |tx| delete_attempts(tx, &ids)).await?;
        }
    }

    async fn messages(&self, now: Timestamp) -> Result<u64, StoreError> {
        let keep = self.shared.settings.load().keep_messages;
        let (mut after, mut gone) = (MessageId::from_number(0), 0);
        loop {
            let seen = self.read(move |conn| finished(conn, ALL, after)).await?;
            let Some(last) = seen.last().map(|f| f.message) else { return Ok(gone) };
            let aged = |f: &&Finished| f.done_at.is_some_and(|at| at.plus(keep) <= now);
            let ids: Vec<MessageId> = seen.iter().filter(aged).map(|f| f.message).collect();
            for chunk in ids.chunks(MESSAGES_CHUNK) {
                let chunk = chunk.to_vec();
                gone += self.bulk(chunk.len() * 5, move |tx| delete_messages(tx, &chunk)).await?;
            }
            if last.minted_at().plus(keep) > now {
                return Ok(gone);
            }
            after = last;
        }
    }

    async fn old_events(&self, now: Timestamp) -> Result<u64, StoreError> {
        let before =
            now.millis().saturating_sub(integer(self.shared.settings.load().keep_events.as_millis()));
        let mut gone = 0;
        loop {
            let deleted = self.bulk(EVENTS_CHUNK, move |tx| delete_events(tx, before)).await?;
            let facts = self.bulk(EVENTS_CHUNK, move |tx| delete_facts(tx, before)).await?;
            let told = self.bulk(EVENTS_CHUNK, move |tx| notifications::forget(tx, before)).await?;
            gone += deleted;
            let deleted = deleted + facts + told;
            if deleted == 0 {
                return Ok(gone);
            }
        }
    }

    /// Gives back free pages beyond what the coming mail will use again.
    async fn vacuum(&self) -> Result<u64, StoreError> {
        let mut pages = 0;
        for _ in 0..VACUUM_PIECES {
            let given = self.bulk(EVENTS_CHUNK, vacuum).await?;
            pages += given;
            if given == 0 {
                break;
            }
        }
        Ok(pages)
    }

    /// Notes from which message on a start has to look for what is out.
    async fn mark(&self, now: Timestamp) -> Result<(), StoreError> {
        let behind = least_id_at(now.millis().saturating_sub(integer(MARK_BEHIND.as_millis())));
        self.bulk(1, move |tx| {
            let mark = tx.least_out().map_or(behind, |out| out.min(behind));
            tx.set_out_from(mark)
        })
        .await
    }

    pub(super) async fn bulk<T: Send + 'static>(
        &self,
        rows: usize,
        run: impl FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.queue.run(Lane::Bulk, rows, run).await
    }
}

/// The least id that can have been minted at that moment or later.
fn least_id_at(millis: i64) -> MessageId {
    let (mut low, mut high) = (0_i64, i64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if MessageId::from_number(middle).minted_at().millis() < millis {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    MessageId::from_number(low)
}

/// For [`finished`]: those whose body is here.
pub(super) const WITH_BODY: &str = "SELECT m.id, m.size, (SELECT CASE min(e.state) WHEN 5 THEN max(e.at) END
         FROM email_sends e WHERE e.message = m.id)
     FROM bodies b CROSS JOIN messages m ON m.id = b.message WHERE b.message > ?1 ORDER BY b.message LIMIT ?2";

const ALL: &str = "SELECT m.id, m.size, (SELECT CASE min(e.state) WHEN 5 THEN max(e.at) END
         FROM email_sends e WHERE e.message = m.id)
     FROM messages m WHERE m.id > ?1 ORDER BY m.id LIMIT ?2";

/// The next messages after that one.
pub(super) fn finished(conn: &Connection, sql: &str, after: MessageId) -> rusqlite::Result<Vec<Finished>> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![after.number(), integer(LOOKED_AT)], |row| {
        Ok(Finished {
            message: MessageId::from_number(row.get(0)?),
            size: row.get(1)?,
            done_at: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
        })
    })?;
    rows.collect()
}

fn with_old_attempts(conn: &Connection, before: MessageId) -> rusqlite::Result<Vec<MessageId>> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT message FROM attempts a WHERE message < ?1
         AND NOT EXISTS (SELECT 1 FROM email_sends e WHERE e.message = a.message AND e.state <> 5) LIMIT ?2",
    )?;
    let rows = statement.query_map(params![before.number(), integer(BODIES_CHUNK)], |row| {
        row.get(0).map(MessageId::from_number)
    })?;
    rows.collect()
}

/// Whether all its deliveries are done, as it stands in this transaction.
fn is_finished(tx: &Tx<'_, '_>, id: MessageId) -> rusqlite::Result<bool> {
    let unfinished = tx
        .conn
        .prepare_cached("SELECT 1 FROM email_sends WHERE message = ?1 AND state <> 5")?
        .exists([id.number()])?;
    Ok(!unfinished)
}

/// Takes the bodies of those that are finished; how many.
pub(super) fn delete_bodies(tx: &mut Tx<'_, '_>, ids: &[MessageId]) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for id in ids {
        if is_finished(tx, *id)? {
            gone += u64::from(delete_body(tx, *id)?);
        }
    }
    Ok(gone)
}

fn delete_body(tx: &mut Tx<'_, '_>, id: MessageId) -> rusqlite::Result<bool> {
    let deleted = tx.conn.prepare_cached("DELETE FROM bodies WHERE message = ?1")?.execute([id.number()])?;
    if deleted == 0 {
        return Ok(false);
    }
    let (size, chunks): (i64, i64) = tx
        .conn
        .prepare_cached("SELECT size, chunks FROM messages WHERE id = ?1")?
        .query_row([id.number()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if chunks > 0 {
        tx.conn.prepare_cached("DELETE FROM body_chunks WHERE message = ?1")?.execute([id.number()])?;
    }
    tx.delta.body_octets -= size;
    Ok(true)
}

fn delete_attempts(tx: &mut Tx<'_, '_>, ids: &[MessageId]) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for id in ids {
        if is_finished(tx, *id)? {
            gone +=
                tx.conn.prepare_cached("DELETE FROM attempts WHERE message = ?1")?.execute([id.number()])?;
        }
    }
    Ok(gone as u64)
}

fn delete_messages(tx: &mut Tx<'_, '_>, ids: &[MessageId]) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for id in ids {
        if !is_finished(tx, *id)? {
            continue;
        }
        delete_body(tx, *id)?;
        for sql in [
            "DELETE FROM attempts WHERE message = ?1",
            "DELETE FROM email_sends WHERE message = ?1",
            "DELETE FROM reports_owed WHERE message = ?1",
            "DELETE FROM messages WHERE id = ?1",
        ] {
            tx.conn.prepare_cached(sql)?.execute([id.number()])?;
        }
        gone += 1;
    }
    Ok(gone)
}

/// Ids rise with time: where the oldest are young enough, all are.
fn delete_events(tx: &mut Tx<'_, '_>, before: i64) -> rusqlite::Result<u64> {
    let deleted = tx
        .conn
        .prepare_cached(
            "DELETE FROM events WHERE id IN
                 (SELECT id FROM (SELECT id, at FROM events ORDER BY id LIMIT ?2) WHERE at < ?1)",
        )?
        .execute(params![before, integer(EVENTS_CHUNK)])?;
    Ok(deleted as u64)
}

/// What was made of events goes with them.
fn delete_facts(tx: &mut Tx<'_, '_>, before: i64) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for sql in [
        "DELETE FROM bounces WHERE event IN (SELECT event FROM bounces WHERE at < ?1 ORDER BY at LIMIT ?2)",
        "DELETE FROM complaints WHERE event IN (SELECT event FROM complaints WHERE at < ?1 ORDER BY at LIMIT ?2)",
        "DELETE FROM esp_performance WHERE (hour, esp, destination) IN
             (SELECT hour, esp, destination FROM esp_performance WHERE hour < ?1 ORDER BY hour LIMIT ?2)",
        "DELETE FROM lifted WHERE (key, reason) IN (SELECT key, reason FROM lifted WHERE at < ?1 ORDER BY at LIMIT ?2)",
    ] {
        gone += tx.conn.prepare_cached(sql)?.execute(params![before, integer(EVENTS_CHUNK)])?;
    }
    Ok(gone as u64)
}

fn vacuum(tx: &mut Tx<'_, '_>) -> rusqlite::Result<u64> {
    let number = |sql| tx.conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    let spare = free - FREE_PAGES_KEPT_MIN.max(all / FREE_PAGES_KEPT);
    let piece = if tx.shared.space.is_low() { VACUUM_PAGES_LOW } else { VACUUM_PAGES };
    give_back(tx, spare.min(i64::from(piece)))
}

/// Gives so many pages back to the disk, if there are so many free ones; how many.
pub(super) fn give_back(tx: &mut Tx<'_, '_>, pages: i64) -> rusqlite::Result<u64> {
    let free: i64 = tx.conn.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let pages = pages.clamp(0, free);
    if pages == 0 {
        return Ok(0);
    }
    // It gives a row a page, and does its work while they are read.
    let mut statement = tx.conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    tx.shared.pages_gone.store(true, Ordering::Relaxed);
    Ok(pages.unsigned_abs())
}
