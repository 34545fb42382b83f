//! The log of what was told: read, told once more, forgotten.

use std::sync::atomic::Ordering;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::{CHUNK, Notification, NotificationFilter, NotificationState, Replayed};
use crate::clock::Timestamp;
use crate::mail::MessageId;
use crate::mail::notification::TRIED_FOR;
use crate::store::row::{integer, moment};
use crate::store::tx::Tx;

pub(super) fn list(conn: &Connection, filter: &NotificationFilter) -> rusqlite::Result<Vec<Notification>> {
    let mut values = vec![Sql::Integer(filter.before.unwrap_or(i64::MAX))];
    let mut wheres = vec!["n < ?1".to_owned()];
    let mut only = |column: &str, value: Sql| {
        values.push(value);
        wheres.push(format!("{column} = ?{}", values.len()));
    };
    if let Some(state) = filter.state {
        only("state", Sql::Integer(state.code()));
    }
    if let Some(receiver) = &filter.receiver {
        only("receiver", Sql::Text(receiver.clone()));
    }
    if let Some(message) = filter.message {
        only("message", Sql::Integer(message.number()));
    }
    let not_taken = filter.state.is_some_and(|state| state != NotificationState::Taken);
    let by = match filter {
        NotificationFilter { message: Some(_), .. } => "INDEXED BY notifications_message",
        _ if not_taken => "INDEXED BY notifications_not_taken",
        NotificationFilter { receiver: Some(_), .. } => "INDEXED BY notifications_receiver",
        _ => "",
    };
    if not_taken {
        wheres.push("state <> 1".to_owned());
    }
    let sql = format!(
        "SELECT n, id, receiver, kind, message, address, state, told_at, due, tries, tried_at, answer, body
         FROM notifications {by} WHERE {} ORDER BY n DESC LIMIT {}",
        wheres.join(" AND "),
        filter.limit
    );
    conn.prepare(&sql)?.query_map(params_from_iter(values), read)?.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Notification> {
    let state = NotificationState::of_code(row.get(6)?);
    let due = moment(row, 8)?;
    Ok(Notification {
        n: row.get(0)?,
        id: row.get(1)?,
        receiver: row.get(2)?,
        event: row.get(3)?,
        message: row.get::<_, Option<i64>>(4)?.map(MessageId::from_number),
        address: row.get(5)?,
        state,
        told_at: moment(row, 7)?,
        due: (state == NotificationState::Waiting).then_some(due),
        tries: row.get(9)?,
        tried_at: row.get::<_, Option<i64>>(10)?.map(Timestamp::from_millis),
        answer: row.get(11)?,
        body: row.get(12)?,
    })
}

/// The next page before that number: number, when it was entered, whose.
pub(super) fn replayable(
    conn: &Connection,
    failed: bool,
    before: i64,
) -> rusqlite::Result<Vec<(i64, i64, String)>> {
    let only = if failed { "state <> 1 AND state = 2 AND" } else { "" };
    let sql = format!(
        "SELECT n, told_at, receiver FROM notifications WHERE {only} n < ?1 ORDER BY n DESC LIMIT {CHUNK}"
    );
    conn.prepare_cached(&sql)?
        .query_map([before], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

pub(super) fn replay_ids(tx: &mut Tx<'_, '_>, ids: &[String]) -> rusqlite::Result<Replayed> {
    let mut done = Replayed::default();
    for id in ids {
        let rows: Vec<i64> = tx
            .conn
            .prepare_cached("SELECT n FROM notifications WHERE id = ?1")?
            .query_map([id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        if rows.is_empty() {
            done.unknown.push(id.clone());
        }
        let some = replay_rows(tx, &rows)?;
        done.replayed += some.replayed;
        done.without_receiver += some.without_receiver;
        done.receiver_gone += some.receiver_gone;
    }
    Ok(done)
}

/// What waits already is due now.
pub(super) fn replay_rows(tx: &mut Tx<'_, '_>, ns: &[i64]) -> rusqlite::Result<Replayed> {
    let receivers = tx.shared.receivers.load_full();
    let mut done = Replayed::default();
    for n in ns {
        let receiver: Option<String> = tx
            .conn
            .prepare_cached("SELECT receiver FROM notifications WHERE n = ?1")?
            .query_row([n], |row| row.get(0))
            .optional()?;
        let Some(receiver) = receiver else { continue };
        let Some(receiver) = receivers.iter().find(|r| r.name == receiver) else {
            done.without_receiver += 1;
            continue;
        };
        // It would wait for a moment and end again.
        if receiver.gone.load(Ordering::Acquire) {
            done.receiver_gone += 1;
            continue;
        }
        tx.conn
            .prepare_cached(
                "UPDATE notifications SET state = 0, due = ?2, ends_at = ?3, refusals = 0 WHERE n = ?1",
            )?
            .execute(params![n, tx.now.millis(), tx.now.plus(TRIED_FOR).millis()])?;
        done.replayed += 1;
    }
    tx.delta.notified |= done.replayed > 0;
    Ok(done)
}

/// Takes from the log what is older and waits no more.
pub(in crate::store) fn forget(tx: &mut Tx<'_, '_>, before: i64) -> rusqlite::Result<u64> {
    let gone = tx
        .conn
        .prepare_cached(
            "DELETE FROM notifications WHERE n IN
                 (SELECT n FROM (SELECT n, told_at, state FROM notifications ORDER BY n LIMIT ?2)
                  WHERE told_at < ?1 AND state <> 0)",
        )?
        .execute(params![before, integer(CHUNK)])?;
    Ok(gone as u64)
}
