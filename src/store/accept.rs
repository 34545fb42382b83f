//! The door: a message, its body and one delivery a recipient in one transaction. Once it is committed the mail is
//! ours.

use std::sync::Arc;

use rusqlite::params;

use super::Store;
use super::packed::{Kept, Packers};
use super::reports;
use super::row::{self, LaneId, integer, state, state_columns};
use super::tx::Tx;
use super::types::{Accept, Entered, Entry, NotAccepted, StoreError, Suppression};
use super::waiting::Lane;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::report::Cause;
use crate::mail::{DeliveryId, Known, Message, QueueState, Reason, Rule};

/// Octets of a body that weigh as much as a row when groups are bounded.
const BODY_ROW_OCTETS: usize = 64 * 1024;

pub(super) const INSERT_MESSAGE: &str =
    "INSERT INTO messages (id, lane, sender, recipients, body_kind, smtputf8, \
     size, longest_line, eight_bit, chunks, chunk_octets, accepted_at, expires_at, source, tags, metadata, reports, send_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
     ON CONFLICT (id) DO NOTHING";

pub(super) const INSERT_BODY: &str = "INSERT INTO bodies (message, bytes, unpacked) VALUES (?1, ?2, ?3)";

pub(super) const INSERT_DELIVERY: &str =
    "INSERT INTO email_sends (message, recipient, state, at, lane, ends_at, \
     tries, known, reason, mark, octets, owner, attempt, begun_at, esp, address, key)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

impl Store {
    /// Commits messages, each with its body and its deliveries, each judged against the suppressions in the same
    /// transaction. **When this returns `Ok` for one, that mail is ours: on disk, with every recipient.**
    ///
    /// One result a message, one [`Entered`] a recipient in the envelope's order.
    ///
    /// Errors: [`StoreError::Full`] where `queue_bytes` or `min_free` is reached or the disk is full,
    /// [`StoreError::Failed`] where the database did not take it, [`StoreError::Stopping`]; nothing of that message
    /// was kept then. Nor is it of one whose recipients are all suppressed: [`NotAccepted::Suppressed`]. May be run
    /// again: a message that is there already is left as it is and told as it stands.
    pub async fn accept(&self, items: Vec<Accept>) -> Vec<Result<Vec<Entered>, NotAccepted>> {
        let count = items.len();
        let mut packed = Vec::with_capacity(count);
        for item in items {
            packed.push(Packed::new(&self.shared.packers, item).await);
        }
        let rows = packed.iter().map(Packed::rows).sum();
        let run = move |tx: &mut Tx<'_, '_>| packed.iter().map(|item| accept(tx, item)).collect();
        let done: Result<Vec<_>, StoreError> = self.shared.queue.run(Lane::Mail, rows, run).await;
        done.unwrap_or_else(|error| vec![Err(error.into()); count])
    }
}

/// A message to accept with its body as it is written.
pub(super) struct Packed {
    item: Accept,
    head: Kept,
}

impl Packed {
    pub(super) async fn new(packers: &Arc<Packers>, item: Accept) -> Self {
        let head = packers.pack(&item.message.body.head).await;
        Packed { item, head }
    }

    /// What it weighs when groups are bounded.
    pub(super) fn rows(&self) -> usize {
        1 + self.item.entries.len() + self.head.octets.len() / BODY_ROW_OCTETS
    }

    pub(super) fn message(&self) -> &Message {
        &self.item.message
    }
}

/// Whether `queue_bytes` and `min_free` hold for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Held,
    /// For what the relay owes already.
    Waived,
}

/// Accepts what comes in at the door. The outer error ends the operation; the inner one is told for this message alone.
pub(super) fn accept(
    tx: &mut Tx<'_, '_>,
    packed: &Packed,
) -> rusqlite::Result<Result<Vec<Entered>, NotAccepted>> {
    let item = &packed.item;
    let judged = judge(tx, &item.message)?;
    if judged.iter().all(|judged| judged.suppressed.is_some())
        && let Some(first) = judged.first().and_then(|judged| judged.suppressed.clone())
    {
        return again(tx, item).map(|there| there.ok_or(NotAccepted::Suppressed { first }));
    }
    Ok(take(tx, packed, &judged, Bound::Held)?.map_err(NotAccepted::Store))
}

/// Accepts what the relay owes: no bound holds for it, and where its recipient is suppressed it ends so.
pub(super) fn accept_owed(
    tx: &mut Tx<'_, '_>,
    packed: &Packed,
) -> rusqlite::Result<Result<Vec<Entered>, StoreError>> {
    let judged = judge(tx, packed.message())?;
    take(tx, packed, &judged, Bound::Waived)
}

/// A recipient, with what keeps mail of the message's stream from it.
struct Judged {
    key: String,
    suppressed: Option<Suppression>,
}

fn judge(tx: &mut Tx<'_, '_>, message: &Message) -> rusqlite::Result<Vec<Judged>> {
    let judge = |address: &Address| -> rusqlite::Result<Judged> {
        let key = address.key();
        let suppressed = tx.suppressed(&key, message.stream.as_str(), message.kind)?;
        Ok(Judged { key, suppressed })
    };
    message.envelope.recipients.iter().map(judge).collect()
}

fn take(
    tx: &mut Tx<'_, '_>,
    Packed { item, head }: &Packed,
    judged: &[Judged],
    bound: Bound,
) -> rusqlite::Result<Result<Vec<Entered>, StoreError>> {
    let message = &*item.message;
    if item.entries.len() != message.envelope.recipients.len() || item.entries.is_empty() {
        return Ok(Err(StoreError::Failed("a message must enter with one entry for each recipient".into())));
    }
    let size = message.body.size_octets();
    match bound {
        Bound::Held => {
            if let Err(full) = room(tx, message, head.octets.len() as u64) {
                // It may be a repeat: what is there needs no room.
                return again(tx, item).map(|there| there.ok_or(full));
            }
        }
        Bound::Waived => tx.shared.space.spend(head.octets.len() as u64),
    }
    let lane = tx.lane(message, &Rule::default())?;
    let first = item.entries.iter().find(|entry| !matches!(entry, Entry::Never(_)));
    let due = match first {
        Some(Entry::Waiting { due }) => (*due).max(message.accepted_at),
        Some(Entry::Begun(_) | Entry::Never(_)) | None => message.accepted_at,
    };
    if !insert_message(tx, message, lane, due)? {
        let there = again(tx, item)?;
        return Ok(there.ok_or_else(|| StoreError::Failed("another message has that id".into())));
    }
    tx.hot.insert_body.execute(params![message.id.number(), &head.octets[..], head.unpacked])?;
    tx.delta.body_octets += integer(size);
    let share = size.div_ceil(item.entries.len() as u64);
    let mut entered = Vec::with_capacity(item.entries.len());
    let recipients = message.envelope.recipients.iter().zip(judged);
    for (recipient, (entry, (address, judged))) in (0..).zip(item.entries.iter().zip(recipients)) {
        let lane = match item.rules.get(recipient as usize) {
            Some(rule) => tx.lane(message, rule)?,
            None => lane,
        };
        let place = Place { id: DeliveryId { message: message.id, recipient }, lane, share, address, judged };
        entered.push(enter(tx, message, &place, entry)?);
    }
    reports::note_delays(tx, message, due)?;
    Ok(Ok(entered))
}

/// Pieces that were spilled are on disk already: of the body only its head is written now.
fn room(tx: &Tx<'_, '_>, message: &Message, head_octets: u64) -> Result<(), StoreError> {
    let space = &tx.shared.space;
    space.queue(message.kind, message.body.size_octets(), tx.delta.queue_octets)?;
    space.take(head_octets)
}

/// `due` is the moment that its app asked for, or that of its arrival.
fn insert_message(
    tx: &mut Tx<'_, '_>,
    message: &Message,
    lane: LaneId,
    due: Timestamp,
) -> rusqlite::Result<bool> {
    let envelope = &message.envelope;
    let changed = tx.hot.insert_message.execute(params![
        message.id.number(),
        lane,
        envelope.sender.wire(),
        integer(envelope.recipients.len()),
        matches!(envelope.body, crate::mail::BodyKind::EightBit),
        envelope.smtputf8,
        integer(message.body.size_octets()),
        integer(message.body.facts.longest_line_octets),
        message.body.facts.eight_bit,
        message.body.rest.map_or(0, |r| r.chunks),
        integer(message.body.rest.map_or(0, |r| r.octets)),
        message.accepted_at.millis(),
        message.expires_at.millis(),
        row::source_column(&message.source),
        row::list_column(&message.tags),
        row::list_column(&message.metadata),
        envelope.reports.as_deref().and_then(reports::asks_column),
        (due > message.accepted_at).then_some(due.millis()),
    ])?;
    Ok(changed > 0)
}

/// Where one delivery stands.
struct Place<'m> {
    id: DeliveryId,
    lane: LaneId,
    share: u64,
    address: &'m Address,
    judged: &'m Judged,
}

fn enter(
    tx: &mut Tx<'_, '_>,
    message: &Message,
    place: &Place<'_>,
    entry: &Entry,
) -> rusqlite::Result<Entered> {
    let key = &place.judged.key;
    let end = match (&place.judged.suppressed, entry) {
        (Some(by), _) => Some((Reason::Suppressed, by.reason.clone())),
        (None, Entry::Never(why)) => Some((Reason::Refused, why.clone())),
        (None, Entry::Waiting { .. } | Entry::Begun(_)) => None,
    };
    let (to, begun, entered) = match (&end, entry) {
        (Some((Reason::Suppressed, _)), _) => (QueueState::Done, None, Entered::Suppressed),
        (Some(_), _) | (None, Entry::Never(_)) => (QueueState::Done, None, Entered::Never),
        (None, Entry::Waiting { due }) => (QueueState::Waiting { due: *due }, None, Entered::Waiting),
        (None, Entry::Begun(b)) => {
            (QueueState::Out { owner: tx.shared.owner, attempt: b.attempt }, Some(b), Entered::Begun)
        }
    };
    let columns = state_columns(to, tx.now);
    tx.hot.insert_delivery.execute(params![
        place.id.message.number(),
        place.id.recipient,
        columns.code,
        columns.at.unwrap_or(message.accepted_at.millis()),
        place.lane,
        message.expires_at.millis(),
        u32::from(begun.is_some()),
        row::known_code(Known::Nothing),
        end.as_ref().map(|(reason, _)| row::reason_code(*reason)),
        integer(place.share),
        columns.owner,
        columns.attempt,
        begun.map(|_| tx.now.millis()),
        begun.map(|b| b.esp.as_str()),
        place.address.wire(),
        (key != place.address.wire()).then_some(key),
    ])?;
    match (end, begun) {
        (Some((reason, why)), _) => {
            let (kind, cause) = match reason {
                Reason::Suppressed => ("suppressed", Cause::Suppressed),
                _ => ("bounced", Cause::Refused),
            };
            tx.delivery_event(place.id, kind, None, None, &why)?;
            reports::owe(tx, place.id, cause, None, &why)?;
        }
        (None, begun) => {
            tx.delta.queue_octets += integer(place.share);
            tx.delta.deliveries += 1;
            if begun.is_some() {
                tx.goes_out(place.id, place.lane, place.share)?;
            }
        }
    }
    Ok(entered)
}

/// How a message that is there already entered; `None`: it is not there.
fn again(tx: &mut Tx<'_, '_>, item: &Accept) -> rusqlite::Result<Option<Vec<Entered>>> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT state, reason, attempt FROM email_sends WHERE message = ?1 ORDER BY recipient",
    )?;
    let rows = statement.query_map([item.message.id.number()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?))
    })?;
    let mut entered = Vec::new();
    for (row, entry) in rows.zip(&item.entries) {
        let (state, reason, attempt) = row?;
        let suppressed = reason == Some(row::reason_code(Reason::Suppressed));
        let ours = matches!(entry, Entry::Begun(b) if Some(b.attempt.number()) == attempt);
        entered.push(match state {
            state::DONE if suppressed => Entered::Suppressed,
            state::DONE if matches!(entry, Entry::Never(_)) => Entered::Never,
            state::OUT if ours => Entered::Begun,
            _ => Entered::Waiting,
        });
    }
    Ok((entered.len() == item.entries.len()).then_some(entered))
}
