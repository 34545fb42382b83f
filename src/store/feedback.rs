//! What ESPs tell: each event once by its key, joined to its delivery, with all that follows from it in one transaction
//! (DELIVERY rules 2, 5, 15, 16).
//!
//! An event's delivery is found by what went with the call and came back, else by the ESP's own id of the message, else
//! by the recipient where exactly one open delivery fits. An event that overtakes its call's answer waits, unmatched,
//! until that answer has named the ESP's id.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::on_address::on_address;
use super::row::{self, QUEUED, Queued};
use super::tx::Tx;
use super::types::{Joined, JoinedBy, StoreError, Taken, ToldEvent};
use super::waiting::Lane;
use crate::address::Address;
use crate::mail::effect::SoftRule;
use crate::mail::event::{known_of, shows_call_taken};
use crate::mail::{AttemptId, DeliveryId, Known, MessageId, QueueState, What};

/// Events in one piece of work.
const CHUNK: usize = 500;
/// Open deliveries of an ESP that are compared with an event that names neither: more, and none is taken.
const OPEN_MAX: u32 = 10_000;
/// The latest attempts are looked through for what was taken, for an event without any id: they are few.
const LATELY_MAX: u32 = 10_000;
/// Events about one address, joined to nothing, that are looked at.
const ALONE_MAX: u32 = 100;
/// An ESP gives up after three days at the latest.
const LATELY: Duration = Duration::from_secs(3 * 86_400);
/// Some ESPs tell times in whole seconds.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

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

/// What an event is about.
struct Match {
    message: MessageId,
    /// Whose delivery; `None`: one of the call's, and nobody knows whose.
    id: Option<DeliveryId>,
    attempt: AttemptId,
    by: JoinedBy,
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
        if shows_call_taken(told.event.what.word()) {
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

fn find(tx: &Tx<'_, '_>, told: &ToldEvent) -> rusqlite::Result<Option<Match>> {
    let event = &told.event;
    if let Some(planted) = event.planted {
        let all = deliveries(tx.conn, planted.message)?;
        // An ESP speaks of what it was given, and of nobody else's.
        let carried = all.iter().any(|d| d.esp.as_deref() == Some(told.esp.as_str()))
            || was_at(tx.conn, planted.message, planted.attempt, &told.esp)?;
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
    let another_s = event.remote_id.is_some() && !event.unlabelled;
    if event.planted.is_some() || another_s || !is_of_an_arrival(event.what.word()) {
        return Ok(None);
    }
    let key = recipient.key();
    let about = About { esp: &told.esp, key: &key, at: event.at };
    let Some(open) = held_that_fit(tx.conn, about)? else { return Ok(None) };
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
            event.unlabelled,
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
fn on_delivery(tx: &mut Tx<'_, '_>, esp: &str, id: DeliveryId, attempt: AttemptId) -> rusqlite::Result<bool> {
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
fn on_call(tx: &mut Tx<'_, '_>, esp: &str, message: MessageId, attempt: AttemptId) -> rusqlite::Result<bool> {
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

/// Events that have no id of ours, and came before the answer was lost that would have told the ESP's (rule 16): they are
/// about this attempt where they agree on one message and nothing else fits.
fn find_lost(tx: &mut Tx<'_, '_>, id: DeliveryId, attempt: AttemptId, esp: &str) -> rusqlite::Result<()> {
    let Some(own) = tx.read(id)? else { return Ok(()) };
    let of_it = match own.delivery.state {
        QueueState::Out { attempt: now, .. } | QueueState::Unsure { attempt: now, .. } => now == attempt,
        QueueState::Waiting { .. } | QueueState::Paused { .. } | QueueState::Done => false,
    };
    let Some(begun_at) = own.begun_at.filter(|_| of_it) else { return Ok(()) };
    let events = alone_since(tx.conn, esp, &own.key, begun_at)?;
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
    if events.iter().any(|event| shows_call_taken(&event.kind)) {
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
}

/// Those about that address since then that have no place for ids of ours.
fn alone_since(conn: &Connection, esp: &str, key: &str, since: Timestamp) -> rusqlite::Result<Vec<Alone>> {
    let sql = format!(
        "SELECT id, at, kind, remote_id FROM events
         WHERE key = ?1 AND at >= ?2 AND esp = ?3 AND message IS NULL AND attempt IS NULL AND event_key IS NOT NULL
             AND (remote_id IS NULL OR unlabelled = 1)
         ORDER BY at, id LIMIT {ALONE_MAX}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![key, since.earlier(WHOLE_SECOND).millis(), esp], |row| {
        let at = Timestamp::from_millis(row.get(1)?);
        Ok(Alone { row: row.get(0)?, at, kind: row.get(2)?, remote_id: row.get(3)? })
    })?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|event| is_of_an_arrival(&event.kind)).collect())
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

/// The answer that was lost would have told the ESP's id: what comes later may have nothing else to go by.
fn learn_remote_id(
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
