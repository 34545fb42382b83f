//! Whose an event of an ESP is, and what was told before it could be known (DELIVERY rules 15, 16).
//!
//! An event's delivery is found by what went with the call and came back, else by the ESP's own id of the message, else
//! [by its recipient](super::by_recipient). An event that overtakes its call's answer waits, unmatched, until that answer
//! has named the ESP's id, or is lost.

use rusqlite::{Connection, OptionalExtension, params};

use super::by_recipient::{self, About, is_of_an_arrival};
use super::feedback::{on_call, on_delivery};
use super::row::{Queued, deliveries, moment};
use super::tx::Tx;
use super::types::ToldEvent;
use super::views::JoinedBy;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::event::{Unlabelled, known_of, shows_call_taken};
use crate::mail::{AttemptId, DeliveryId, MessageId, Planted};

/// Events about one address, joined to nothing, that are looked at.
const ALONE_MAX: u32 = 100;

/// What an event is about.
pub(super) struct Match {
    pub message: MessageId,
    /// Whose delivery; `None`: one of the call's, and nobody knows whose.
    pub id: Option<DeliveryId>,
    pub attempt: AttemptId,
    pub by: JoinedBy,
}

pub(super) fn find(tx: &Tx<'_, '_>, told: &ToldEvent) -> rusqlite::Result<Option<Match>> {
    let event = &told.event;
    if let Some(planted) = event.planted {
        let all = deliveries(tx.conn, planted.message)?;
        // An ESP speaks of what it was given, and of nobody else's; an attempt that nobody here knows of was lost with a
        // restore.
        let carried = esp_of(tx.conn, &all, planted)?.is_none_or(|esp| esp == told.esp);
        if let Some(id) = one_of(&all, event.recipient.as_ref()).filter(|_| carried) {
            let (message, attempt) = (planted.message, planted.attempt);
            return Ok(Some(Match { message, id: id.delivery(), attempt, by: JoinedBy::Planted }));
        }
    }
    if let Some(found) = by_remote_id(tx.conn, told)? {
        return Ok(Some(found));
    }
    let found = by_recipient::find(tx, told)?;
    Ok(found.map(|(id, attempt)| Match {
        message: id.message,
        id: Some(id),
        attempt,
        by: JoinedBy::Recipient,
    }))
}

/// Whose an event is, of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    One(DeliveryId),
    /// One of several; which of them the ESP does not say.
    Any,
}

impl Whose {
    fn delivery(self) -> Option<DeliveryId> {
        match self {
            Whose::One(id) => Some(id),
            Whose::Any => None,
        }
    }
}

/// Whose it is among a message's deliveries; `None`: nobody's.
fn one_of(all: &[Queued], recipient: Option<&Address>) -> Option<Whose> {
    match (recipient, all) {
        (Some(address), _) => {
            let key = address.key();
            all.iter().find(|d| d.key == key).map(|d| Whose::One(d.id))
        }
        (None, []) => None,
        (None, [only]) => Some(Whose::One(only.id)),
        (None, _) => Some(Whose::Any),
    }
}

/// Which ESP that attempt was at; `None`: there is no such attempt here.
fn esp_of(conn: &Connection, all: &[Queued], planted: Planted) -> rusqlite::Result<Option<String>> {
    if let Some(now) = all.iter().find(|delivery| delivery.attempt_now() == Some(planted.attempt)) {
        return Ok(now.esp.clone());
    }
    conn.prepare_cached("SELECT esp FROM attempts WHERE message = ?1 AND attempt = ?2 LIMIT 1")?
        .query_row(params![planted.message.number(), planted.attempt.number()], |row| row.get(0))
        .optional()
}

fn by_remote_id(conn: &Connection, told: &ToldEvent) -> rusqlite::Result<Option<Match>> {
    let Some(remote_id) = &told.event.remote_id else { return Ok(None) };
    let attempt = conn
        .prepare_cached(
            "SELECT message, attempt FROM attempts
             WHERE esp = ?1 AND remote_id = ?2 AND heard = 1 AND remote_id IS NOT NULL LIMIT 1",
        )?
        .query_row(params![told.esp, remote_id], |row| {
            Ok((MessageId::from_number(row.get(0)?), AttemptId::from_number(row.get(1)?)))
        })
        .optional()?;
    let Some((message, attempt)) = attempt else { return Ok(None) };
    let all = deliveries(conn, message)?;
    let whose = one_of(&all, told.event.recipient.as_ref());
    Ok(whose.map(|whose| Match { message, id: whose.delivery(), attempt, by: JoinedBy::RemoteId }))
}

/// The answer of an attempt was lost; an event about its call may have come before that was known (rule 15).
pub(super) fn find_told(
    tx: &mut Tx<'_, '_>,
    id: DeliveryId,
    attempt: AttemptId,
    esp: &str,
) -> rusqlite::Result<()> {
    let told: Vec<(String, Option<u32>)> = tx
        .conn
        .prepare_cached(
            "SELECT DISTINCT kind, recipient FROM events
             WHERE message = ?1 AND attempt = ?2 AND esp = ?3 AND event_key IS NOT NULL",
        )?
        .query_map(params![id.message.number(), attempt.number(), esp], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let of_it = |(kind, whose): &(String, Option<u32>)| match *whose == Some(id.recipient) {
        true => known_of(kind).is_some(),
        false => shows_call_taken(kind),
    };
    if told.iter().any(of_it) {
        return on_delivery(tx, esp, id, attempt).map(drop);
    }
    find_lost(tx, id, attempt, esp)
}

/// Events that have no id of ours, and came before the answer was lost that would have told the ESP's (rule 16): those that
/// are about this attempt, where they agree on one message.
fn find_lost(tx: &mut Tx<'_, '_>, id: DeliveryId, attempt: AttemptId, esp: &str) -> rusqlite::Result<()> {
    let Some((key, begun_at)) = open_attempt(tx.conn, id, attempt)? else { return Ok(()) };
    let mut events = Vec::new();
    for event in alone_since(tx.conn, esp, &key, begun_at)? {
        let (remote_id, mail) = (event.remote_id.as_deref(), event.unlabelled.as_ref());
        let about = About { esp, key: &key, at: event.at, remote_id, mail };
        if by_recipient::meant(tx, about)? == Some((id, attempt)) {
            events.push(event);
        }
    }
    let Some(first) = events.first() else { return Ok(()) };
    if events.iter().any(|event| event.remote_id != first.remote_id) {
        return Ok(());
    }
    for event in &events {
        join(tx, event.row, id.message, Some(id.recipient), attempt, JoinedBy::Recipient)?;
        super::notifications::joined(tx, event.row)?;
    }
    learn_remote_id(tx, id, attempt, esp, first.remote_id.as_deref())?;
    on_delivery(tx, esp, id, attempt)?;
    if events.iter().any(|event| event.unlabelled.is_some() && shows_call_taken(&event.kind)) {
        on_call(tx, esp, id.message, attempt)?;
    }
    Ok(())
}

/// The recipient's key, and when the attempt was begun, where its answer was lost.
fn open_attempt(
    conn: &Connection,
    id: DeliveryId,
    attempt: AttemptId,
) -> rusqlite::Result<Option<(String, Timestamp)>> {
    conn.prepare_cached(
        "SELECT key, begun_at FROM attempts
         WHERE message = ?1 AND recipient = ?2 AND attempt = ?3 AND outcome = 'unsure' AND key IS NOT NULL",
    )?
    .query_row(params![id.message.number(), id.recipient, attempt.number()], |row| {
        Ok((row.get(0)?, moment(row, 1)?))
    })
    .optional()
}

/// An event that was joined to nothing.
struct Alone {
    row: i64,
    at: Timestamp,
    kind: String,
    remote_id: Option<String>,
    unlabelled: Option<Unlabelled>,
}

/// Those about that address since then that have no place for ids of ours.
fn alone_since(conn: &Connection, esp: &str, key: &str, since: Timestamp) -> rusqlite::Result<Vec<Alone>> {
    let sql = format!(
        "SELECT id, at, kind, remote_id, unlabelled FROM events
         WHERE key = ?1 AND at >= ?2 AND esp = ?3 AND message IS NULL AND attempt IS NULL AND event_key IS NOT NULL
             AND (remote_id IS NULL OR unlabelled IS NOT NULL)
         ORDER BY at, id LIMIT {ALONE_MAX}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(
        params![key, since.earlier(by_recipient::WHOLE_SECOND).millis(), esp],
        |row| {
            let unlabelled = row.get::<_, Option<String>>(4)?;
            Ok(Alone {
                row: row.get(0)?,
                at: moment(row, 1)?,
                kind: row.get(2)?,
                remote_id: row.get(3)?,
                unlabelled: unlabelled.as_deref().map(by_recipient::read_back),
            })
        },
    )?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|event| is_of_an_arrival(&event.kind)).collect())
}

/// The answer that was lost would have told the ESP's id: what comes later may have nothing else to go by.
pub(super) fn learn_remote_id(
    tx: &Tx<'_, '_>,
    id: DeliveryId,
    attempt: AttemptId,
    esp: &str,
    remote_id: Option<&str>,
) -> rusqlite::Result<()> {
    let Some(remote_id) = remote_id else { return Ok(()) };
    tx.conn
        .prepare_cached(
            "UPDATE attempts SET remote_id = ?5, heard = 1
             WHERE message = ?1 AND recipient = ?2 AND attempt = ?3 AND esp = ?4 AND outcome = 'unsure'
                 AND remote_id IS NULL",
        )?
        .execute(params![id.message.number(), id.recipient, attempt.number(), esp, remote_id])
        .map(|_| ())
}

/// Events that came before this attempt's answer named the ESP's id of the message; now they find it (rule 15).
pub(super) fn find_early(
    tx: &mut Tx<'_, '_>,
    id: DeliveryId,
    attempt: AttemptId,
    esp: &str,
    remote_id: &str,
) -> rusqlite::Result<()> {
    let waiting: Vec<(i64, Option<String>)> = tx
        .conn
        .prepare_cached(
            "SELECT id, key FROM events
             WHERE esp = ?1 AND remote_id = ?2 AND message IS NULL AND remote_id IS NOT NULL",
        )?
        .query_map(params![esp, remote_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if waiting.is_empty() {
        return Ok(());
    }
    let Some(own) = tx.read(id)? else { return Ok(()) };
    let of_several = deliveries(tx.conn, id.message)?.len() > 1;
    let mut found = false;
    for (event, key) in waiting {
        if key.as_deref().is_some_and(|key| key != own.key) {
            continue;
        }
        found = true;
        let recipient = (key.is_some() || !of_several).then_some(id.recipient);
        join(tx, event, id.message, recipient, attempt, JoinedBy::RemoteId)?;
        super::notifications::joined(tx, event)?;
    }
    if found {
        on_delivery(tx, esp, id, attempt)?;
    }
    Ok(())
}

fn join(
    tx: &Tx<'_, '_>,
    event: i64,
    message: MessageId,
    recipient: Option<u32>,
    attempt: AttemptId,
    by: JoinedBy,
) -> rusqlite::Result<()> {
    let (message, attempt) = (message.number(), attempt.number());
    tx.conn
        .prepare_cached(
            "UPDATE events SET message = ?1, recipient = ?2, attempt = ?4, confidence = ?5 WHERE id = ?3",
        )?
        .execute(params![message, recipient, event, attempt, by.confidence()])?;
    for table in ["bounces", "complaints"] {
        let sql = format!("UPDATE {table} SET message = ?1, recipient = ?2 WHERE event = ?3");
        tx.conn.prepare_cached(&sql)?.execute(params![message, recipient, event])?;
    }
    Ok(())
}
