//! What ESPs tell: each event once by its key, joined to its delivery, with all that follows from it in one transaction
//! (DELIVERY rules 2, 5, 15). Whose it is, is found in [`super::joining`].

use rusqlite::{Connection, params};

use super::Store;
use super::joining::{Match, find, learn_remote_id};
use super::on_address::on_address;
use super::tx::Tx;
use super::types::{Joined, StoreError, Taken, ToldEvent};
use super::views::JoinedBy;
use super::waiting::Lane;
use crate::address::Address;
use crate::mail::effect::SoftRule;
use crate::mail::event::{known_of, shows_call_taken};
use crate::mail::{AttemptId, DeliveryId, Known, MessageId, What};

/// Events in one piece of work.
const CHUNK: usize = 500;

impl Store {
    /// Takes events, each once by its ESP and key, with all that follows. In pieces of at most 500: where one
    /// fails, those before it are taken, and a repeat finds them there.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]. May be run again.
    pub async fn take_told(&self, rule: SoftRule, events: Vec<ToldEvent>) -> Result<Vec<Taken>, StoreError> {
        let mut taken = Vec::with_capacity(events.len());
        let mut events = events.into_iter();
        loop {
            let piece: Vec<ToldEvent> = events.by_ref().take(CHUNK).collect();
            if piece.is_empty() {
                return Ok(taken);
            }
            let run = move |tx: &mut Tx<'_, '_>| {
                piece.iter().map(|event| take(tx, rule, event)).collect::<rusqlite::Result<Vec<_>>>()
            };
            taken.extend(self.shared.queue.run(Lane::Bulk, CHUNK, run).await?);
        }
    }
}

fn take(tx: &mut Tx<'_, '_>, rule: SoftRule, told: &ToldEvent) -> rusqlite::Result<Taken> {
    if is_known(tx.conn, told)? {
        return Ok(Taken::Repeat);
    }
    let found = find(tx, told)?;
    let event = insert(tx, told, found.as_ref())?;
    super::notifications::tell(tx, event, told.event.what.word())?;
    count(tx, told)?;
    facts(tx, event, told, found.as_ref())?;
    if let Some(recipient) = &told.event.recipient {
        on_address(tx, rule, told, recipient)?;
    }
    let Some(found) = found else { return Ok(Taken::Unmatched) };
    let mut settled = false;
    if told.event.what.known().is_some() {
        if let Some(id) = found.id {
            learn_remote_id(tx, id, found.attempt, &told.esp, told.event.remote_id.as_deref())?;
            settled = on_delivery(tx, &told.esp, id, found.attempt)?;
        }
        // What is found by its one recipient says nothing of others.
        let of_all = found.by != JoinedBy::Recipient || told.event.unlabelled.is_some();
        if of_all && shows_call_taken(told.event.what.word()) {
            settled |= on_call(tx, &told.esp, found.message, found.attempt)?;
        }
    }
    Ok(Taken::Joined(Joined { message: found.message, delivery: found.id, settled }))
}

fn key_of(told: &ToldEvent) -> String {
    format!("{}:{}", told.esp, told.event.key)
}

fn is_known(conn: &Connection, told: &ToldEvent) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM events WHERE event_key = ?1")?.exists([key_of(told)])
}

fn insert(tx: &mut Tx<'_, '_>, told: &ToldEvent, found: Option<&Match>) -> rusqlite::Result<i64> {
    let event = &told.event;
    let machine = matches!(event.what, What::Opened { machine: true } | What::Clicked { machine: true });
    tx.delta.events = true;
    tx.conn
        .prepare_cached(
            "INSERT INTO events (message, recipient, attempt, esp, kind, at, event_key, remote_id, raw, detail,
                 confidence, key, class, machine, told_as, unlabelled)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .insert(params![
            found.map(|f| f.message.number()),
            found.and_then(|f| f.id).map(|id| id.recipient),
            found.map(|f| f.attempt).or(event.planted.map(|p| p.attempt)).map(AttemptId::number),
            told.esp,
            event.what.word(),
            event.at.millis(),
            key_of(told),
            event.remote_id,
            event.raw.as_bytes(),
            event.said,
            found.and_then(|f| f.by.confidence()),
            event.recipient.as_ref().map(Address::key),
            event.class(),
            machine,
            Some(&event.told_as).filter(|name| !name.is_empty()),
            event.unlabelled.as_ref().and_then(super::by_recipient::written),
        ])
}

/// One more in the hour's row.
fn count(tx: &Tx<'_, '_>, told: &ToldEvent) -> rusqlite::Result<()> {
    const HOUR_MILLIS: i64 = 3_600_000;
    let Some(column) = column(told.event.what) else { return Ok(()) };
    let recipient = told.event.recipient.as_ref().map(Address::key).unwrap_or_default();
    let destination = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
    let at = told.event.at.millis();
    tx.conn
        .prepare_cached(&format!(
            "INSERT INTO esp_performance (hour, esp, destination, {column}) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT (hour, esp, destination) DO UPDATE SET {column} = {column} + 1"
        ))?
        .execute(params![at - at.rem_euclid(HOUR_MILLIS), told.esp, destination])
        .map(|_| ())
}

fn column(what: What) -> Option<&'static str> {
    Some(match what {
        What::Sent => "sent",
        What::Deferred => "deferred",
        What::Delivered => "delivered",
        What::Complained => "complained",
        What::Opened { machine: false } => "opened",
        What::Clicked { machine: false } => "clicked",
        What::Bounced(_) => match what.class()? {
            "hard" => "hard",
            "soft" => "soft",
            "policy" => "policy",
            _ => "dropped",
        },
        _ => return None,
    })
}

/// A row of its own for what reputation is judged by.
fn facts(tx: &Tx<'_, '_>, event: i64, told: &ToldEvent, found: Option<&Match>) -> rusqlite::Result<()> {
    let Some(recipient) = &told.event.recipient else { return Ok(()) };
    let message = found.map(|f| f.message.number());
    let which = found.and_then(|f| f.id).map(|id| id.recipient);
    let (said, at) = (&told.event.said, told.event.at.millis());
    match (told.event.what, told.event.what.class()) {
        (What::Complained, _) => tx
            .conn
            .prepare_cached(
                "INSERT INTO complaints (event, key, esp, message, recipient, said, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![event, recipient.key(), told.esp, message, which, said, at])?,
        (_, Some(class)) => tx
            .conn
            .prepare_cached(
                "INSERT INTO bounces (event, key, esp, message, recipient, class, said, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![event, recipient.key(), told.esp, message, which, class, said, at])?,
        (_, None) => 0,
    };
    Ok(())
}

/// What is known of the delivery now, by all that was told of its attempts; the queue follows where it may. `true`: it
/// waited, or was held, and is done now.
pub(super) fn on_delivery(
    tx: &mut Tx<'_, '_>,
    esp: &str,
    id: DeliveryId,
    attempt: AttemptId,
) -> rusqlite::Result<bool> {
    let Some(before) = tx.read(id)? else { return Ok(false) };
    settle_open(tx, id, attempt, esp)?;
    let known = known_now(tx.conn, id)?;
    let mut after = before.clone();
    after.delivery.open = tx.open(&before)?;
    after.delivery.learn(known);
    let moved = after.delivery.follow_known();
    // It may be out with another attempt that need not start.
    tx.delta.verdict |= after.delivery.known > before.delivery.known;
    if after.delivery != before.delivery {
        tx.write(&before, &after)?;
    }
    Ok(moved)
}

/// A call has one answer for its recipients: an event about one of them that [`shows_call_taken`] shows it for all that the
/// ESP did not refuse. `true`: somebody waited, or was held, and is done now.
pub(super) fn on_call(
    tx: &mut Tx<'_, '_>,
    esp: &str,
    message: MessageId,
    attempt: AttemptId,
) -> rusqlite::Result<bool> {
    let open: Vec<DeliveryId> = tx
        .conn
        .prepare_cached(
            "SELECT recipient FROM attempts WHERE message = ?1 AND attempt = ?2 AND esp = ?3 AND outcome = 'unsure'",
        )?
        .query_map(params![message.number(), attempt.number(), esp], |row| {
            Ok(DeliveryId { message, recipient: row.get(0)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut settled = false;
    for id in open {
        settled |= on_delivery(tx, esp, id, attempt)?;
    }
    Ok(settled)
}

/// An attempt whose answer was lost has one now (rule 5): it was taken.
fn settle_open(tx: &Tx<'_, '_>, id: DeliveryId, attempt: AttemptId, esp: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "UPDATE attempts SET outcome = 'accepted', crashed = 0, said = 'the answer was lost; an event of ' || ?4
                 || ' shows that it was taken'
             WHERE message = ?1 AND recipient = ?2 AND attempt = ?3 AND esp = ?4 AND outcome = 'unsure'",
        )?
        .execute(params![id.message.number(), id.recipient, attempt.number(), esp])
        .map(|_| ())
}

/// The highest over its attempts of this round, each as high as its events and its answer have it.
fn known_now(conn: &Connection, id: DeliveryId) -> rusqlite::Result<Known> {
    let mut statement = conn.prepare_cached(
        "SELECT e.attempt, e.kind FROM events AS e
         LEFT JOIN attempts AS a ON a.message = ?1 AND a.recipient = ?2 AND a.attempt = e.attempt
         WHERE e.message = ?1 AND e.recipient = ?2 AND e.event_key IS NOT NULL AND coalesce(a.earlier, 0) = 0
         UNION ALL
         SELECT attempt, 'sent' FROM attempts
         WHERE message = ?1 AND recipient = ?2 AND outcome = 'accepted' AND earlier = 0",
    )?;
    let mut attempts: Vec<(Option<i64>, Known)> = Vec::new();
    let mut rows = statement.query(params![id.message.number(), id.recipient])?;
    while let Some(row) = rows.next()? {
        let attempt: Option<i64> = row.get(0)?;
        let Some(known) = known_of(row.get_ref(1)?.as_str()?) else { continue };
        match attempts.iter_mut().find(|(a, _)| *a == attempt) {
            Some((_, highest)) => *highest = known.max(*highest),
            None => attempts.push((attempt, known)),
        }
    }
    Ok(Known::overall(attempts.into_iter().map(|(_, known)| known)))
}
