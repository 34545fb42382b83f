//! Whose an event of an ESP is, and what was told before it could be known (DELIVERY rules 15, 16).
//!
//! An event's delivery is found by what went with the call and came back, else by the ESP's own id of the message, else
//! by the recipient where exactly one delivery fits. An event that overtakes its call's answer waits, unmatched, until
//! that answer has named the ESP's id, or is lost.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::feedback::{on_call, on_delivery};
use super::row::{self, QUEUED, Queued};
use super::tx::Tx;
use super::types::{JoinedBy, ToldEvent};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::event::{Unlabelled, known_of, shows_call_taken};
use crate::mail::headers::fields;
use crate::mail::{AttemptId, DeliveryId, Known, MessageId, Planted, QueueState};

/// Open deliveries of an ESP that are compared with an event that names neither: more, and none is taken.
const OPEN_MAX: u32 = 10_000;
/// The latest attempts are looked through for what was taken, for an event without any id: they are few.
const LATELY_MAX: u32 = 10_000;
/// Events about one address, joined to nothing, that are looked at.
const ALONE_MAX: u32 = 100;
/// An event's recipients that are compared: SES takes 50 in a call.
const UNLABELLED_RECIPIENTS_MAX: usize = 100;
/// Of a message, From is looked for in so much.
const HEAD_OCTETS_MAX: u32 = 64 * 1024;
/// An ESP gives up after three days at the latest.
const LATELY: Duration = Duration::from_secs(3 * 86_400);
/// Some ESPs tell times in whole seconds.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

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
        let carried = all.iter().any(|d| d.esp.as_deref() == Some(told.esp.as_str()))
            || was_at(tx.conn, planted.message, planted.attempt, &told.esp)?
            || !is_an_attempt(tx.conn, &all, planted)?;
        if let Some(id) = one_of(&all, event.recipient.as_ref()).filter(|_| carried) {
            let (message, attempt) = (planted.message, planted.attempt);
            return Ok(Some(Match { message, id: id.delivery(), attempt, by: JoinedBy::Planted }));
        }
    }
    if let Some(found) = by_remote_id(tx.conn, told)? {
        return Ok(Some(found));
    }
    by_recipient(tx, told)
}

fn deliveries(conn: &Connection, message: MessageId) -> rusqlite::Result<Vec<Queued>> {
    let sql = format!("SELECT {QUEUED} FROM email_sends WHERE message = ?1");
    conn.prepare_cached(&sql)?.query_map([message.number()], Queued::read)?.collect()
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

fn was_at(conn: &Connection, message: MessageId, attempt: AttemptId, esp: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM attempts WHERE message = ?1 AND attempt = ?2 AND esp = ?3")?
        .exists(params![message.number(), attempt.number(), esp])
}

/// Whether there is such an attempt here, at whatever ESP.
fn is_an_attempt(conn: &Connection, all: &[Queued], planted: Planted) -> rusqlite::Result<bool> {
    if all.iter().any(|delivery| attempt_now(delivery) == Some(planted.attempt)) {
        return Ok(true);
    }
    conn.prepare_cached("SELECT 1 FROM attempts WHERE message = ?1 AND attempt = ?2")?
        .exists(params![planted.message.number(), planted.attempt.number()])
}

/// The attempt that it is out with, or whose answer was lost.
fn attempt_now(delivery: &Queued) -> Option<AttemptId> {
    match delivery.delivery.state {
        QueueState::Out { attempt, .. } | QueueState::Unsure { attempt, .. } => Some(attempt),
        QueueState::Waiting { .. } | QueueState::Paused { .. } | QueueState::Done => None,
    }
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

/// Rule 16: only where exactly one delivery of that ESP fits, begun before the event: one that is open, or one that was
/// taken lately and of which nothing final is known; and none is out that it may be about. An event with an id that is
/// none of ours is about another's mail to the same address, but where its form has no place for our ids and the answer
/// that would have told the ESP's was lost; and who opens something may open that.
fn by_recipient(tx: &Tx<'_, '_>, told: &ToldEvent) -> rusqlite::Result<Option<Match>> {
    let event = &told.event;
    let Some(recipient) = &event.recipient else { return Ok(None) };
    let another_s = event.remote_id.is_some() && event.unlabelled.is_none();
    if event.planted.is_some() || another_s || !is_of_an_arrival(event.what.word()) {
        return Ok(None);
    }
    let key = recipient.key();
    let about = About { esp: &told.esp, key: &key, at: event.at };
    let Some(mut open) = held_that_fit(tx.conn, about)? else { return Ok(None) };
    if let Some(about) = event.unlabelled.as_ref().map(written) {
        let mut fits = Vec::new();
        for (id, attempt) in open {
            if is_such_mail(tx.conn, id.message, attempt, &about)? {
                fits.push((id, attempt));
            }
        }
        open = fits;
    }
    // Those that were taken have an id, by which they would have been found.
    let taken = match event.remote_id {
        None => taken_lately(tx.conn, about)?,
        Some(_) => Vec::new(),
    };
    let found = match (&open[..], &taken[..]) {
        ([only], []) | ([], [only]) => *only,
        _ => return Ok(None),
    };
    if is_perhaps_of_one_out(tx, about, found.0)? {
        return Ok(None);
    }
    let (id, attempt) = found;
    Ok(Some(Match { message: id.message, id: Some(id), attempt, by: JoinedBy::Recipient }))
}

/// What became of mail itself: who opens, complains or leaves may do so long after, and of any mail.
fn is_of_an_arrival(word: &str) -> bool {
    matches!(word, "delivered" | "deferred" | "bounced" | "dropped" | "rejected")
}

/// What an event without an id of ours is known by.
#[derive(Debug, Clone, Copy)]
struct About<'a> {
    esp: &'a str,
    key: &'a str,
    at: Timestamp,
}

impl About<'_> {
    fn fits(self, delivery: &Queued) -> bool {
        delivery.key == self.key
            && delivery.esp.as_deref() == Some(self.esp)
            && delivery.begun_at.is_some_and(|at| at.earlier(WHOLE_SECOND) <= self.at)
    }
}

/// What is held that it may be about; `None`: too much is held to look through.
fn held_that_fit(
    conn: &Connection,
    about: About<'_>,
) -> rusqlite::Result<Option<Vec<(DeliveryId, AttemptId)>>> {
    let sql = format!("SELECT {QUEUED} FROM email_sends WHERE state = 2 LIMIT {}", OPEN_MAX + 1);
    let mut statement = conn.prepare_cached(&sql)?;
    let (mut rows, mut seen, mut found) = (statement.query([])?, 0, Vec::new());
    while let Some(row) = rows.next()? {
        seen += 1;
        let open = Queued::read(row)?;
        if let QueueState::Unsure { attempt, .. } = open.delivery.state
            && about.fits(&open)
        {
            found.push((open.id, attempt));
        }
    }
    Ok((seen <= OPEN_MAX).then_some(found))
}

/// Whether another is out that it may be about: its answer will say so.
fn is_perhaps_of_one_out(tx: &Tx<'_, '_>, about: About<'_>, but: DeliveryId) -> rusqlite::Result<bool> {
    for id in tx.shared.out_ids() {
        let fits = |d: &Queued| matches!(d.delivery.state, QueueState::Out { .. }) && about.fits(d);
        if id != but && tx.read(id)?.as_ref().is_some_and(fits) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// At most two.
fn taken_lately(conn: &Connection, about: About<'_>) -> rusqlite::Result<Vec<(DeliveryId, AttemptId)>> {
    let sql = format!(
        "SELECT a.message, a.recipient, a.attempt FROM
             (SELECT * FROM attempts ORDER BY message DESC LIMIT {LATELY_MAX}) AS a
             JOIN email_sends AS d ON d.message = a.message AND d.recipient = a.recipient
         WHERE a.esp = ?1 AND a.outcome = 'accepted' AND a.earlier = 0 AND a.begun_at BETWEEN ?3 AND ?4
             AND coalesce(d.key, d.address) = ?2 AND d.known IN (?5, ?6)
         LIMIT 2"
    );
    let (first, last) = (about.at.earlier(LATELY), about.at.plus(WHOLE_SECOND));
    let (handed, deferred) = (row::known_code(Known::Handed), row::known_code(Known::Deferred));
    conn.prepare_cached(&sql)?
        .query_map(params![about.esp, about.key, first.millis(), last.millis(), handed, deferred], |row| {
            let id = DeliveryId { message: MessageId::from_number(row.get(0)?), recipient: row.get(1)? };
            Ok((id, AttemptId::from_number(row.get(2)?)))
        })?
        .collect()
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

/// The mail that such an event is about, in the words of its row: the sender, when it was taken in milliseconds, and each
/// recipient's key.
pub(super) fn written(about: &Unlabelled) -> String {
    let mut recipients: Vec<&str> =
        about.recipients.iter().map(String::as_str).take(UNLABELLED_RECIPIENTS_MAX).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let taken_at = about.taken_at.map(|at| at.millis().to_string()).unwrap_or_default();
    [&[about.sender.as_str(), taken_at.as_str()], recipients.as_slice()].concat().join("\n")
}

/// Whether that attempt's call was of such mail: of that sender, taken no earlier than the call was begun, and for those
/// and nobody else.
fn is_such_mail(
    conn: &Connection,
    message: MessageId,
    attempt: AttemptId,
    about: &str,
) -> rusqlite::Result<bool> {
    let (sender, rest) = about.split_once('\n').unwrap_or((about, ""));
    let (taken_at, recipients) = rest.split_once('\n').unwrap_or((rest, ""));
    let all = deliveries(conn, message)?;
    if let Ok(taken_at) = taken_at.parse().map(Timestamp::from_millis) {
        let of_attempt = all.iter().filter(|d| attempt_now(d) == Some(attempt));
        let mut begun = of_attempt.filter_map(|d| d.begun_at);
        if begun.any(|at| taken_at < at.earlier(WHOLE_SECOND)) {
            return Ok(false);
        }
    }
    if !sender.is_empty() && !is_of_sender(conn, message, sender)? {
        return Ok(false);
    }
    if recipients.is_empty() {
        return Ok(true);
    }
    let taken: HashSet<u32> = conn
        .prepare_cached(
            "SELECT recipient FROM attempts WHERE message = ?1 AND attempt = ?2 AND outcome IN ('unsure', 'accepted')",
        )?
        .query_map(params![message.number(), attempt.number()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let of_call: BTreeSet<String> = all
        .into_iter()
        .filter(|d| attempt_now(d) == Some(attempt) || taken.contains(&d.id.recipient))
        .map(|d| d.key)
        .collect();
    Ok(of_call.iter().map(String::as_str).eq(recipients.split('\n')))
}

/// In its envelope, or in From: which of them an ESP names depends on its door.
fn is_of_sender(conn: &Connection, message: MessageId, sender: &str) -> rusqlite::Result<bool> {
    let sender = sender.to_lowercase();
    // SES names the address, or the field as it stands.
    let address = sender.rsplit('<').next().unwrap_or_default().trim_end_matches('>').trim();
    let envelope: Option<String> = conn
        .prepare_cached("SELECT sender FROM messages WHERE id = ?1")?
        .query_row([message.number()], |row| row.get(0))
        .optional()?;
    if envelope.is_some_and(|envelope| envelope.to_lowercase() == address) {
        return Ok(true);
    }
    let head: Option<Vec<u8>> = conn
        .prepare_cached(&format!(
            "SELECT substr(bytes, 1, {HEAD_OCTETS_MAX}) FROM bodies WHERE message = ?1"
        ))?
        .query_row([message.number()], |row| row.get(0))
        .optional()?;
    let head = head.unwrap_or_default();
    let from = fields(&head).find(|field| field.is("From"));
    let from = from.map(|field| String::from_utf8_lossy(field.value()).to_lowercase()).unwrap_or_default();
    Ok(from.split(['<', '>', ',', ' ', '\t', '\r', '\n', '(', ')']).any(|word| word == address))
}

/// Events that have no id of ours, and came before the answer was lost that would have told the ESP's (rule 16): they are
/// about this attempt where they agree on one message and nothing else fits.
fn find_lost(tx: &mut Tx<'_, '_>, id: DeliveryId, attempt: AttemptId, esp: &str) -> rusqlite::Result<()> {
    let Some(own) = tx.read(id)? else { return Ok(()) };
    let of_it = match own.delivery.state {
        QueueState::Out { attempt: now, .. } | QueueState::Unsure { attempt: now, .. } => now == attempt,
        QueueState::Waiting { .. } | QueueState::Paused { .. } | QueueState::Done => false,
    };
    let Some(begun_at) = own.begun_at.filter(|_| of_it) else { return Ok(()) };
    let mut events = Vec::new();
    for event in alone_since(tx.conn, esp, &own.key, begun_at)? {
        let fits = match &event.unlabelled {
            Some(about) => is_such_mail(tx.conn, id.message, attempt, about)?,
            None => true,
        };
        if fits {
            events.push(event);
        }
    }
    let one_message = events.iter().all(|event| event.remote_id == events[0].remote_id);
    let (Some(first), true) = (events.first(), one_message) else { return Ok(()) };
    let about = About { esp, key: &own.key, at: first.at };
    let held = held_that_fit(tx.conn, about)?;
    let alone = held.is_some_and(|held| held.iter().all(|(other, _)| *other == id))
        && (first.remote_id.is_some() || taken_lately(tx.conn, about)?.is_empty());
    if !alone || is_perhaps_of_one_out(tx, about, id)? {
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

/// An event that was joined to nothing.
struct Alone {
    row: i64,
    at: Timestamp,
    kind: String,
    remote_id: Option<String>,
    unlabelled: Option<String>,
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
    let rows = statement.query_map(params![key, since.earlier(WHOLE_SECOND).millis(), esp], |row| {
        let at = Timestamp::from_millis(row.get(1)?);
        Ok(Alone { row: row.get(0)?, at, kind: row.get(2)?, remote_id: row.get(3)?, unlabelled: row.get(4)? })
    })?;
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
