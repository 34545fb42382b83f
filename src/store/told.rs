//! Events as operators look through them, newest first, and as they come.

use rusqlite::{Connection, params};

use super::Store;
use super::row::moment;
use super::types::StoreError;
use super::views::{JoinedBy, Told};
use crate::mail::{AttemptId, MessageId};

impl Store {
    /// Events before that number, newest first, at most so many; `unmatched`: only those that ESPs told of no delivery
    /// that is known.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn events(&self, unmatched: bool, before: i64, limit: usize) -> Result<Vec<Told>, StoreError> {
        self.read(move |conn| list(conn, unmatched, Which::Before(before), limit)).await
    }

    /// Changes with each commit that wrote an event.
    pub fn event_news(&self) -> tokio::sync::watch::Receiver<()> {
        self.shared.event_news.subscribe()
    }

    /// Events after that number, oldest first, at most so many. Numbers rise with each commit.
    pub async fn events_after(
        &self,
        unmatched: bool,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Told>, StoreError> {
        self.read(move |conn| list(conn, unmatched, Which::After(after), limit)).await
    }
}

/// From where, and in which order.
enum Which {
    Before(i64),
    After(i64),
}

fn list(conn: &Connection, unmatched: bool, which: Which, limit: usize) -> rusqlite::Result<Vec<Told>> {
    let (number, rest) = match which {
        Which::Before(number) => (number, "id < ?1 ORDER BY id DESC"),
        Which::After(number) => (number, "id > ?1 ORDER BY id"),
    };
    let only = match unmatched {
        true => {
            "INDEXED BY events_alone WHERE message IS NULL AND esp IS NOT NULL AND event_key IS NOT NULL AND"
        }
        false => "WHERE",
    };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT id, at, kind, esp, message, recipient, attempt, key, class, coalesce(detail, ''), confidence, remote_id,
             told_as, event_key IS NOT NULL AND message IS NOT NULL
         FROM events {only} {rest} LIMIT ?2"
    ))?;
    let rows = statement.query_map(params![number, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(Told {
            number: row.get(0)?,
            at: moment(row, 1)?,
            kind: row.get(2)?,
            esp: row.get(3)?,
            message: row.get::<_, Option<i64>>(4)?.map(MessageId::from_number),
            recipient: row.get(5)?,
            attempt: row.get::<_, Option<i64>>(6)?.map(AttemptId::from_number),
            address: row.get(7)?,
            class: row.get(8)?,
            detail: row.get(9)?,
            joined: match row.get(13)? {
                true => Some(JoinedBy::of(row.get(10)?)),
                false => None,
            },
            told_as: row.get(12)?,
            remote_id: row.get(11)?,
        })
    })?;
    rows.collect()
}
