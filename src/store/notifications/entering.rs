//! How an event is entered: for whom, and what is told of it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{NotificationState, Receiver, waiting};
use crate::clock::Timestamp;
use crate::mail::notification::{HANDED, TRIED_FOR};
use crate::mail::{AttemptId, MessageId, Outcome, id};
use crate::store::queue::cut;
use crate::store::row::{self, moment};
use crate::store::tx::Tx;
use crate::store::types::Settle;

/// More may not wait for one receiver: what comes then has failed at once, and can be replayed.
const WAITING_MAX: u64 = 1_000_000;
/// Of an ESP's words.
const SAID_OCTETS_MAX: usize = 2_000;
/// An event that may have overtaken the answer which tells whose it is waits so long for that.
const FOR_ITS_MESSAGE: Duration = Duration::from_secs(5);
/// Octets of chance in an id; each gives five bits.
const ID_OCTETS: usize = 16;

/// Enters an event, which has that row, for all who want it.
pub(in crate::store) fn tell(tx: &mut Tx<'_, '_>, event: i64, kind: &str) -> rusqlite::Result<()> {
    tell_but(tx, event, kind, None)
}

pub(super) fn tell_but(
    tx: &mut Tx<'_, '_>,
    event: i64,
    kind: &str,
    but: Option<&str>,
) -> rusqlite::Result<()> {
    let receivers = wanting(tx, kind, but);
    if receivers.is_empty() {
        return Ok(());
    }
    let facts = of_event(tx.conn, event)?;
    enter(tx, receivers, Some(event), facts)
}

/// Enters that an ESP took a delivery over, for all who want to know.
pub(in crate::store) fn handed(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<()> {
    let receivers = wanting(tx, HANDED, None);
    if receivers.is_empty() {
        return Ok(());
    }
    let facts = of_settle(tx.conn, settle)?;
    enter(tx, receivers, None, facts)
}

/// An event that came early has its message now: what was not told yet is told with it.
pub(in crate::store) fn joined(tx: &mut Tx<'_, '_>, event: i64) -> rusqlite::Result<()> {
    if tx.shared.receivers.load().is_empty() {
        return Ok(());
    }
    let waiting: Vec<(i64, String)> = tx
        .conn
        .prepare_cached("SELECT n, id FROM notifications WHERE event = ?1 AND state = 0 AND message IS NULL AND tries = 0")?
        .query_map([event], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (n, id) in waiting {
        let Some(facts) = of_event(tx.conn, event)? else { return Ok(()) };
        let body = body(&id, &facts)?;
        tx.conn
            .prepare_cached(
                "UPDATE notifications SET message = ?2, recipient = ?3, address = ?4, body = ?5, due = ?6 WHERE n = ?1",
            )?
            .execute(params![n, facts.message, facts.recipient, facts.address, body, tx.now.millis()])?;
        tx.delta.notified = true;
    }
    Ok(())
}

fn wanting(tx: &Tx<'_, '_>, kind: &str, but: Option<&str>) -> Vec<String> {
    let receivers = tx.shared.receivers.load();
    let wants = |r: &&Receiver| r.events.contains(&kind) && but != Some(r.name.as_str());
    receivers.iter().filter(wants).map(|receiver| receiver.name.clone()).collect()
}

/// What is known of an event.
struct Facts {
    kind: String,
    at: Timestamp,
    message: Option<i64>,
    recipient: Option<u32>,
    attempt: Option<i64>,
    esp: Option<String>,
    remote_id: Option<String>,
    said: String,
    class: Option<String>,
    machine: bool,
    confidence: Option<f64>,
    address: Option<String>,
    stream: Option<String>,
    tags: Option<String>,
    metadata: Option<String>,
}

fn of_event(conn: &Connection, event: i64) -> rusqlite::Result<Option<Facts>> {
    conn.prepare_cached(
        "SELECT e.kind, e.at, e.message, e.recipient, e.attempt, e.esp, e.remote_id, coalesce(e.detail, ''), e.class,
             e.machine, e.confidence, coalesce(s.address, e.key), l.stream, m.tags, m.metadata
         FROM events e LEFT JOIN email_sends s ON s.message = e.message AND s.recipient = e.recipient
             LEFT JOIN messages m ON m.id = e.message LEFT JOIN lanes l ON l.id = m.lane
         WHERE e.id = ?1",
    )?
    .query_row([event], |row| {
        Ok(Facts {
            kind: row.get(0)?,
            at: moment(row, 1)?,
            message: row.get(2)?,
            recipient: row.get(3)?,
            attempt: row.get(4)?,
            esp: row.get(5)?,
            remote_id: row.get(6)?,
            said: row.get(7)?,
            class: row.get(8)?,
            machine: row.get(9)?,
            confidence: row.get(10)?,
            address: row.get(11)?,
            stream: row.get(12)?,
            tags: row.get(13)?,
            metadata: row.get(14)?,
        })
    })
    .optional()
}

fn of_settle(conn: &Connection, settle: &Settle) -> rusqlite::Result<Option<Facts>> {
    let remote_id = match &settle.outcome {
        Outcome::Accepted { remote_id, .. } => remote_id.clone(),
        Outcome::Refused { .. } | Outcome::Unfit { .. } | Outcome::Unsure { .. } => None,
    };
    conn.prepare_cached(
        "SELECT s.address, l.stream, m.tags, m.metadata FROM email_sends s JOIN messages m ON m.id = s.message
             JOIN lanes l ON l.id = m.lane
         WHERE s.message = ?1 AND s.recipient = ?2",
    )?
    .query_row(params![settle.delivery.message.number(), settle.delivery.recipient], |row| {
        Ok(Facts {
            kind: HANDED.to_owned(),
            at: settle.answered_at,
            message: Some(settle.delivery.message.number()),
            recipient: Some(settle.delivery.recipient),
            attempt: Some(settle.attempt.number()),
            esp: Some(settle.esp.clone()),
            remote_id,
            said: settle.outcome.said().to_owned(),
            class: None,
            machine: false,
            confidence: None,
            address: row.get(0)?,
            stream: row.get(1)?,
            tags: row.get(2)?,
            metadata: row.get(3)?,
        })
    })
    .optional()
}

/// What is told, by the form of Standard Webhooks: `type`, `timestamp`, `data`; and the id, which is a header as well.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    esp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    machine: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    said: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    metadata: serde_json::Map<String, serde_json::Value>,
}

fn body(id: &str, facts: &Facts) -> rusqlite::Result<String> {
    let pairs = row::list::<(String, String)>(facts.metadata.clone()).unwrap_or_default();
    let body = Body {
        id,
        r#type: &facts.kind,
        timestamp: facts.at.to_string(),
        data: Data {
            message: facts.message.map(|message| MessageId::from_number(message).to_string()),
            n: facts.recipient,
            recipient: facts.address.as_deref(),
            stream: facts.stream.as_deref(),
            esp: facts.esp.as_deref(),
            attempt: facts.attempt.map(|attempt| AttemptId::from_number(attempt).to_string()),
            remote_id: facts.remote_id.as_deref(),
            class: facts.class.as_deref(),
            machine: facts.machine,
            confidence: facts.confidence,
            said: cut(&facts.said, SAID_OCTETS_MAX),
            tags: facts.tags.as_deref().and_then(|tags| serde_json::from_str(tags).ok()),
            metadata: pairs.into_iter().map(|(key, value)| (key, value.into())).collect(),
        },
    };
    serde_json::to_string(&body).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn new_id() -> rusqlite::Result<String> {
    let mut octets = [0; ID_OCTETS];
    let failed = |_| rusqlite::Error::ToSqlConversionFailure("the system gives no random numbers".into());
    aws_lc_rs::rand::fill(&mut octets).map_err(failed)?;
    Ok("evt_".chars().chain(id::letters(&octets)).collect())
}

fn enter(
    tx: &mut Tx<'_, '_>,
    receivers: Vec<String>,
    event: Option<i64>,
    facts: Option<Facts>,
) -> rusqlite::Result<()> {
    let Some(facts) = facts else { return Ok(()) };
    let id = new_id()?;
    let body = body(&id, &facts)?;
    let early = facts.message.is_none() && facts.remote_id.is_some();
    let at = if early { tx.now.plus(FOR_ITS_MESSAGE) } else { tx.now };
    for receiver in receivers {
        let full = waiting(tx.conn, &receiver)? >= WAITING_MAX;
        let state = if full { NotificationState::Failed } else { NotificationState::Waiting };
        let due = facts.message.map(|message| behind(tx.conn, message, &receiver)).transpose()?.flatten();
        tx.conn
            .prepare_cached(
                "INSERT INTO notifications (id, receiver, event, message, recipient, address, kind, told_at, state, due,
                     ends_at, answer, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                id,
                receiver,
                event,
                facts.message,
                facts.recipient,
                facts.address,
                facts.kind,
                tx.now.millis(),
                state.code(),
                due.unwrap_or(0).max(at.millis()),
                tx.now.plus(TRIED_FOR).millis(),
                full.then(|| format!("not told: {WAITING_MAX} wait for this receiver")),
                body,
            ])?;
    }
    tx.delta.notified = true;
    Ok(())
}

/// When the last that waits of that message for that receiver is due: the next one waits as long.
fn behind(conn: &Connection, message: i64, receiver: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT due FROM notifications INDEXED BY notifications_in_order
         WHERE receiver = ?1 AND message = ?2 AND state = 0 AND message IS NOT NULL ORDER BY n DESC LIMIT 1",
    )?
    .query_row(params![receiver, message], |row| row.get(0))
    .optional()
}
