//! Why no ESP carried a delivery: the last word of each.

use rusqlite::{Connection, params};

use super::Store;
use super::queue::cut;
use super::tx::Tx;
use super::types::{NewEvent, StoreError};
use super::waiting::Lane;
use crate::mail::DeliveryId;

/// Of each ESP's words.
const SAID_OCTETS_MAX: usize = 300;
/// ESPs that are named; there are seldom more.
const ESPS_MAX: usize = 20;

/// The latest answer of one ESP.
struct LastWord {
    esp: String,
    outcome: String,
    said: String,
}

impl Store {
    /// Notes that none of these ESPs, which are all that may carry the delivery, can carry it: with an event once a
    /// message. Gives the reasons where that is news; `None` where it was noted before, or where the latest answer of
    /// one of them is another.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing was noted then. May be
    /// run again.
    pub async fn note_unfit(&self, id: DeliveryId, esps: Vec<String>) -> Result<Option<String>, StoreError> {
        self.shared.queue.run(Lane::Bulk, 1, move |tx| note_unfit(tx, id, &esps)).await
    }

    /// Whether some of what [`Store::note_unfit`] noted is not done.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn unfit_waits(&self) -> Result<bool, StoreError> {
        self.read(unfit_waits).await
    }
}

fn note_unfit(tx: &mut Tx<'_, '_>, id: DeliveryId, esps: &[String]) -> rusqlite::Result<Option<String>> {
    let mut words = last_words(tx.conn, id)?;
    words.retain(|word| esps.contains(&word.esp) && word.outcome == "unfit");
    if words.is_empty() || words.len() < esps.len() {
        return Ok(None);
    }
    let detail = in_words(&words);
    let event = NewEvent {
        message: Some(id.message),
        recipient: Some(id.recipient),
        event_key: Some(format!("unfit_everywhere {}", id.message)),
        detail: detail.clone(),
        ..NewEvent::new("unfit_everywhere", tx.now)
    };
    Ok(tx.event(&event)?.then_some(detail))
}

/// Whether a message of which that was noted has a delivery that is not done. By the events' keys, the latest first.
fn unfit_waits(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached(
        "SELECT 1 FROM events AS e
         WHERE e.event_key >= 'unfit_everywhere ' AND e.event_key < 'unfit_everywhere!'
           AND EXISTS (SELECT 1 FROM email_sends AS s WHERE s.message = e.message AND s.state <> 5)
         ORDER BY e.event_key DESC LIMIT 1",
    )?
    .exists([])
}

/// What each ESP that was tried said last, for the event of a delivery that was given up; empty: none was tried.
pub(super) fn of_expired(conn: &Connection, id: DeliveryId) -> rusqlite::Result<String> {
    last_words(conn, id).map(|words| in_words(&words))
}

/// The very last words, as they were said; empty: none was tried.
pub(super) fn last_words_of(conn: &Connection, id: DeliveryId) -> rusqlite::Result<String> {
    let last = last_words(conn, id)?.pop();
    Ok(last.map_or_else(String::new, |word| word.said))
}

/// In the order in which they were tried.
fn last_words(conn: &Connection, id: DeliveryId) -> rusqlite::Result<Vec<LastWord>> {
    // SQLite takes the other columns from the row that has the max.
    let mut statement = conn.prepare_cached(
        "SELECT esp, outcome, said, max(attempt) FROM attempts WHERE message = ?1 AND recipient = ?2 AND earlier = 0
         GROUP BY esp ORDER BY 4",
    )?;
    let rows = statement.query_map(params![id.message.number(), id.recipient], |row| {
        Ok(LastWord { esp: row.get(0)?, outcome: row.get(1)?, said: row.get(2)? })
    })?;
    rows.collect()
}

fn in_words(words: &[LastWord]) -> String {
    let one = |word: &LastWord| {
        let did = if word.outcome == "unfit" { "cannot carry it" } else { "did not take it" };
        format!("{} {did}: {}", word.esp, cut(&word.said, SAID_OCTETS_MAX))
    };
    words.iter().take(ESPS_MAX).map(one).collect::<Vec<_>>().join("; ")
}
