//! `keep` of a sandbox: of more mails than that the oldest lose their bodies. What became of them stays as
//! `[retention]` says.
//!
//! Bodies are walked through from the newest to the oldest, some in each round of retention; a walk that is not at its
//! end goes on in the next round. Mail that came since it began is seen by the next walk.

use std::collections::HashMap;
use std::sync::PoisonError;

use rusqlite::{Connection, params};

use super::Store;
use super::retention::{BODIES_CHUNK, LOOKED_AT, delete_bodies};
use super::row::integer;
use super::types::{Sandboxed, StoreError};
use crate::mail::MessageId;

/// Reads in one round: so many times [`LOOKED_AT`] bodies.
const READS_A_ROUND: usize = 20;

/// How far a walk has come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The oldest message that was looked at; `None`: it begins.
    oldest: Option<MessageId>,
    /// How many mails each sandbox has among those that were looked at.
    counted: HashMap<String, usize>,
}

impl Walk {
    /// Counts a mail of that ESP, and tells whether it is one too many.
    fn is_over(&mut self, esp: Option<String>, sandboxes: &[Sandboxed]) -> bool {
        let Some(esp) = esp else { return false };
        let Some(sandbox) = sandboxes.iter().find(|sandbox| sandbox.esp == esp) else { return false };
        let counted = self.counted.entry(esp).or_default();
        *counted = counted.saturating_add(1);
        *counted > sandbox.messages_max
    }
}

impl Store {
    /// One round; how many bodies went.
    pub(super) async fn sandboxed(&self) -> Result<u64, StoreError> {
        let settings = self.shared.settings.load_full();
        if settings.sandboxes.is_empty() {
            return Ok(0);
        }
        let walk = &self.shared.sandboxed;
        // Where a read or a commit fails, the next round begins anew.
        let mut at = std::mem::take(&mut *walk.lock().unwrap_or_else(PoisonError::into_inner));
        let mut gone = 0;
        for _ in 0..READS_A_ROUND {
            let before = at.oldest;
            let seen = self.read(move |conn| before_that(conn, before)).await?;
            let looked_at = seen.len();
            at.oldest = seen.last().map(|(message, _)| *message);
            let over: Vec<MessageId> = seen
                .into_iter()
                .filter_map(|(message, esp)| at.is_over(esp, &settings.sandboxes).then_some(message))
                .collect();
            for chunk in over.chunks(BODIES_CHUNK) {
                let chunk = chunk.to_vec();
                gone += self.bulk(chunk.len(), move |tx| delete_bodies(tx, &chunk)).await?;
            }
            if looked_at < LOOKED_AT {
                return Ok(gone);
            }
        }
        *walk.lock().unwrap_or_else(PoisonError::into_inner) = at;
        Ok(gone)
    }
}

/// The next messages with a body before that one, and where all of it is done, the one ESP that had all of it.
fn before_that(
    conn: &Connection,
    before: Option<MessageId>,
) -> rusqlite::Result<Vec<(MessageId, Option<String>)>> {
    let mut statement = conn.prepare_cached(
        "SELECT b.message, (SELECT CASE WHEN min(e.state) = 5 AND min(e.esp) = max(e.esp) THEN max(e.esp) END
             FROM email_sends e WHERE e.message = b.message)
         FROM bodies b WHERE b.message < ?1 ORDER BY b.message DESC LIMIT ?2",
    )?;
    let before = before.map_or(i64::MAX, MessageId::number);
    let rows = statement.query_map(params![before, integer(LOOKED_AT)], |row| {
        Ok((MessageId::from_number(row.get(0)?), row.get(1)?))
    })?;
    rows.collect()
}
