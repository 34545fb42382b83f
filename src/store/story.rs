//! A message's events, as `explain` tells them: what each was, who told it, and what it did to its address.

use rusqlite::{Connection, OptionalExtension, params};

use super::row::moment;
use super::views::{EventView, JoinedBy, Suppressing, ToldBy};
use crate::clock::Timestamp;
use crate::mail::effect::reason_of;
use crate::mail::{AttemptId, MessageId};

/// Oldest first, by the clocks of who told them.
pub(super) fn events(conn: &Connection, id: MessageId) -> rusqlite::Result<Vec<EventView>> {
    let mut statement = conn.prepare_cached(
        "SELECT at, kind, recipient, coalesce(detail, ''), attempt, esp, told_as, class, confidence, key,
             event_key IS NOT NULL
         FROM events WHERE message = ?1 ORDER BY at, id",
    )?;
    let rows = statement.query_map([id.number()], |row| {
        let key: Option<String> = row.get(9)?;
        let by_an_esp: bool = row.get(10)?;
        let told = match row.get::<_, Option<String>>(5)?.filter(|_| by_an_esp) {
            Some(esp) => Some(ToldBy {
                esp,
                told_as: row.get(6)?,
                class: row.get(7)?,
                joined: JoinedBy::of(row.get(8)?),
                suppressed: None,
            }),
            None => None,
        };
        let event = EventView {
            at: moment(row, 0)?,
            kind: row.get(1)?,
            recipient: row.get(2)?,
            detail: row.get(3)?,
            attempt: row.get::<_, Option<i64>>(4)?.map(AttemptId::from_number),
            told,
        };
        Ok((event, key))
    })?;
    let mut events = Vec::new();
    for row in rows {
        let (mut event, key) = row?;
        if let (Some(told), Some(key)) = (&mut event.told, key) {
            told.suppressed = suppressing(conn, &key, &event.kind, event.at, told)?;
        }
        events.push(event);
    }
    Ok(events)
}

/// The suppression of that address for the reason that such an event gives: the event's own, where there is one.
fn suppressing(
    conn: &Connection,
    key: &str,
    kind: &str,
    at: Timestamp,
    told: &ToldBy,
) -> rusqlite::Result<Option<Suppressing>> {
    let Some(reason) = reason_of(kind, told.class.as_deref()) else { return Ok(None) };
    conn.prepare_cached(
        "SELECT scope, source, created_at, expires_at, source = ?3 AND created_at = ?4 AS by_it FROM suppressions
         WHERE key = ?1 AND reason = ?2 ORDER BY by_it DESC, scope LIMIT 1",
    )?
    .query_row(params![key, reason, told.esp, at.millis()], |row| {
        Ok(Suppressing {
            reason: reason.to_owned(),
            scope: row.get(0)?,
            source: row.get(1)?,
            since: moment(row, 2)?,
            until: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
            by_it: row.get(4)?,
        })
    })
    .optional()
}
