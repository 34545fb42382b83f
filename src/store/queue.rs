//! The courier's moves: begin, un-begin, settle. What each does to a delivery is said by `mail::delivery`; here it is
//! made durable.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::params;
use tokio::sync::oneshot;

use super::Store;
use super::joining;
use super::notifications;
use super::reports;
use super::requeue::is_of_an_earlier_round;
use super::row::{self, Queued};
use super::tx::{OutChange, Tx};
use super::types::{BeginRequest, PutOff, Settle, Settled, StoreError, UnableAt};
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::delivery::{Begin, NotBegun, Unable};
use crate::mail::report::Cause;
use crate::mail::{Answer, AttemptId, DeliveryId, Outcome, QueueState, Reason, Step};

/// More of an ESP's words is cut off.
const SAID_OCTETS_MAX: usize = Answer::TEXT_OCTETS_MAX;

/// What the event of an end adds where an attempt before it may have arrived.
pub(super) const WHILE_OPEN: &str = "while the outcome of an attempt is open";

/// An answer never changes; only `unsure` may still become one.
pub(super) const INSERT_ATTEMPT: &str = "INSERT INTO attempts (message, recipient, attempt, esp, begun_at, \
     answered_at, outcome, fault, lasting, phase, remote_id, said, crashed, choice, heard, key)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, CASE ?7 WHEN 'unsure' THEN
         (SELECT coalesce(key, address) FROM email_sends WHERE message = ?1 AND recipient = ?2) END)
     ON CONFLICT (message, recipient, attempt) DO UPDATE SET answered_at = excluded.answered_at,
         outcome = excluded.outcome, fault = excluded.fault, lasting = excluded.lasting, phase = excluded.phase,
         remote_id = excluded.remote_id, said = excluded.said, crashed = 0, heard = excluded.heard
     WHERE outcome = 'unsure' AND excluded.outcome <> 'unsure'";

/// `Delivery::settle(attempt, Step::Done)` for a row that stands at `Out{attempt}`: whatever its mark, it is Done and
/// known to be handed over. A property test holds both together.
pub(super) const SETTLE_ACCEPTED: &str = "UPDATE email_sends
     SET state = 5, at = ?4, known = max(known, 1), reason = NULL, mark = 0
     WHERE message = ?1 AND recipient = ?2 AND state = 1 AND attempt = ?3";

impl Store {
    /// Begins attempts (DELIVERY rules 1 to 4): each names the state that it was chosen from, is judged against what
    /// is known and against the suppressions, and is committed before bytes leave. A begin beside an open attempt
    /// records `may_arrive_twice` in the same transaction.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`] or [`StoreError::Stopping`] for all of them; nothing was
    /// begun. May be run again: a repeat with the same attempt succeeds.
    pub async fn begin(&self, requests: Vec<BeginRequest>) -> Vec<Result<Begin, StoreError>> {
        let count = requests.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            requests.iter().map(|request| begin(tx, request)).collect::<rusqlite::Result<Vec<_>>>()
        };
        match self.shared.queue.run(Lane::Mail, count, run).await {
            Ok(begun) => begun.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Takes back begins whose call did not start: they wait again from `due` on, or return to the hold of an attempt
    /// that is still open (rule 9). `false`: it did not stand at that attempt. As a settle it is kept and tried again
    /// until it can commit: nobody else has these deliveries.
    ///
    /// Errors: [`StoreError::Stopping`] only; then they stay out, and are unsure at the next start. May be run again.
    pub async fn unbegin(
        &self,
        items: Vec<(DeliveryId, AttemptId)>,
        due: Timestamp,
    ) -> Vec<Result<bool, StoreError>> {
        let count = items.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            let each = items.iter().map(|(id, attempt)| unbegin(tx, *id, *attempt, due));
            each.collect::<rusqlite::Result<Vec<_>>>()
        };
        match self.shared.queue.run_kept(count, run).await.unwrap_or(Err(StoreError::Stopping)) {
            Ok(taken_back) => taken_back.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Holds over which their ESP cannot end (rule 10): each waits on, is free for any ESP, or is taken as sent, with
    /// an event. `look_every`: when one that waits on is due again.
    ///
    /// Errors: as [`Store::begin`]; none moved then. May be run again.
    pub async fn unable(
        &self,
        items: Vec<UnableAt>,
        look_every: Duration,
    ) -> Result<Vec<Unable>, StoreError> {
        let count = items.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            items.iter().map(|item| unable(tx, item, look_every)).collect::<rusqlite::Result<Vec<_>>>()
        };
        self.shared.queue.run(Lane::Mail, count, run).await
    }

    /// Puts off what no ESP can take now, each from the state that it was chosen from. `false`: it has moved since.
    ///
    /// Errors: as [`Store::begin`]; all stay as they were. May be run again.
    pub async fn put_off(&self, items: Vec<PutOff>) -> Result<Vec<bool>, StoreError> {
        let count = items.len();
        let run = move |tx: &mut Tx<'_, '_>| items.iter().map(|item| put_off(tx, item)).collect();
        self.shared.queue.run(Lane::Mail, count, run).await
    }

    /// Writes answers and moves the queue, in one transaction; enqueued at once, also where the returned future is
    /// not awaited. The attempt's row always takes the answer; the queue moves only where it stands at that attempt
    /// (rule 5). What cannot commit (a full disk) is kept and tried again until it can, before `min_free` as well.
    ///
    /// Errors: [`StoreError::Stopping`] only: the relay stopped before it could be written; the next start finds
    /// these deliveries unsure. May be run again: an answer never changes.
    pub fn settle(&self, settles: Vec<Settle>) -> Settling {
        let count = settles.len();
        let run = move |tx: &mut Tx<'_, '_>| {
            settles.iter().map(|settle| settle_one(tx, settle)).collect::<rusqlite::Result<Vec<_>>>()
        };
        Settling(self.shared.queue.run_kept(count, run))
    }
}

/// The commit of a settle, when it comes.
#[derive(Debug)]
pub struct Settling(oneshot::Receiver<Result<Vec<Settled>, StoreError>>);

impl Future for Settling {
    type Output = Result<Vec<Settled>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(StoreError::Stopping)))
    }
}

fn begin(tx: &mut Tx<'_, '_>, request: &BeginRequest) -> rusqlite::Result<Begin> {
    let Some(before) = tx.read(request.delivery)? else { return Ok(Begin::Not(NotBegun::Moved)) };
    let attempt = request.beginning.attempt;
    let open = tx.open(&before)?;
    let lane = tx.lanes.get(before.lane).cloned();
    let by = match &lane {
        Some(lane) => tx.suppressed(&before.key, lane.stream.as_str(), lane.kind)?,
        None => None,
    };
    let mut after = before.clone();
    after.delivery.open = open;
    let begun = after.delivery.begin(request.from, tx.shared.owner, attempt, by.is_some());
    if after.delivery.state == before.delivery.state {
        return Ok(begun);
    }
    if let Begin::Begun { .. } = begun {
        after.tries += 1;
        after.begun_at = Some(tx.now);
        after.esp = Some(request.beginning.esp.clone());
    }
    tx.write(&before, &after)?;
    match begun {
        Begin::Begun { twice: true } => {
            let esp = Some(request.beginning.esp.as_str());
            tx.delivery_event(before.id, "may_arrive_twice", Some(attempt), esp, &twice(open.count))?;
        }
        Begin::Not(NotBegun::Suppressed) => {
            let why = by.map(|by| by.reason).unwrap_or_default();
            // It may have arrived: nobody is told that it was not sent (rule 13 has it so at its end).
            if open.count > 0 {
                let detail = format!("{why}, {WHILE_OPEN}");
                tx.delivery_event(before.id, "suppressed", None, None, &detail)?;
            } else {
                tx.delivery_event(before.id, "suppressed", None, None, &why)?;
                reports::owe(tx, before.id, Cause::Suppressed, None, &why)?;
            }
        }
        Begin::Begun { twice: false } | Begin::Not(NotBegun::Moved | NotBegun::Known) => {}
    }
    Ok(begun)
}

fn twice(open: u32) -> String {
    format!("begun while the answer to {open} earlier attempt{} is open", if open == 1 { "" } else { "s" })
}

fn unbegin(
    tx: &mut Tx<'_, '_>,
    id: DeliveryId,
    attempt: AttemptId,
    due: Timestamp,
) -> rusqlite::Result<bool> {
    let Some(before) = tx.read(id)? else { return Ok(false) };
    let mut after = before.clone();
    after.delivery.open = tx.open(&before)?;
    if !after.delivery.unbegin(attempt, due) {
        return Ok(false);
    }
    // The call did not start: it is no dispatch.
    after.tries = after.tries.saturating_sub(1);
    tx.write(&before, &after)?;
    Ok(true)
}

fn put_off(tx: &mut Tx<'_, '_>, item: &PutOff) -> rusqlite::Result<bool> {
    let Some(before) = tx.read(item.delivery)? else { return Ok(false) };
    let mut after = before.clone();
    let changed = after.delivery.put_off(item.from, item.until);
    if changed {
        after.rounds += u32::from(item.round_ends);
        tx.write(&before, &after)?;
    }
    Ok(changed)
}

fn unable(tx: &mut Tx<'_, '_>, item: &UnableAt, look_every: Duration) -> rusqlite::Result<Unable> {
    let Some(before) = tx.read(item.delivery)? else { return Ok(Unable::Moved) };
    let mut after = before.clone();
    after.delivery.open = tx.open(&before)?;
    let unable = after.delivery.unable(tx.now, item.hold, look_every, item.then);
    if after.delivery != before.delivery {
        tx.write(&before, &after)?;
    }
    let esp = before.esp.as_deref().unwrap_or("its ESP");
    let (kind, detail) = match unable {
        Unable::RetriesAny => {
            ("retry_any", format!("{esp} could not repeat it within another hold: any ESP may have it"))
        }
        Unable::Assumed => {
            ("assumed", format!("{esp} could not repeat it within another hold: taken as sent"))
        }
        Unable::Moved | Unable::Waits(_) | Unable::Known => return Ok(unable),
    };
    tx.delivery_event(before.id, kind, after.delivery.open.latest, before.esp.as_deref(), &detail)?;
    Ok(unable)
}

fn settle_one(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<Settled> {
    match insert_answer(tx, settle)? {
        true => {
            give_back(tx, settle)?;
            if let (Outcome::Accepted { remote_id: Some(id), .. }, true) = (&settle.outcome, settle.heard) {
                joining::find_early(tx, settle.delivery, settle.attempt, &settle.esp, id)?;
            }
            if matches!(settle.outcome, Outcome::Unsure { .. }) {
                joining::find_told(tx, settle.delivery, settle.attempt, &settle.esp)?;
            }
            if settle.relayed {
                let said = cut(settle.outcome.said(), SAID_OCTETS_MAX);
                reports::owe(tx, settle.delivery, Cause::Relayed, Some(&settle.esp), said)?;
            }
        }
        false if answered_alike(tx, settle)? => {}
        false => return Ok(Settled::RowOnly),
    }
    if settle.step == Step::Done && settle_accepted(tx, settle)? {
        notifications::handed(tx, settle)?;
        return Ok(Settled::Moved(QueueState::Done));
    }
    let Some(before) = tx.read(settle.delivery)? else {
        forget_answer(tx, settle)?;
        return Ok(Settled::RowOnly);
    };
    if is_of_an_earlier_round(tx, &before, settle)? {
        return Ok(Settled::RowOnly);
    }
    let mut after = before.clone();
    after.delivery.open = tx.open(&before)?;
    let moved = after.delivery.settle(settle.attempt, settle.step, tx.now, settle.hold);
    // A late yes to an earlier attempt, while another is out that need not start.
    tx.delta.verdict |= !moved && after.delivery.known > before.delivery.known;
    if moved && matches!(settle.step, Step::Later(_)) {
        after.rounds += 1;
    }
    if after.delivery != before.delivery || after.rounds != before.rounds {
        tx.write(&before, &after)?;
    }
    if moved && settle.step == Step::Bounce && after.delivery.reason == Some(Reason::Refused) {
        let said = cut(settle.outcome.said(), SAID_OCTETS_MAX);
        tx.delivery_event(settle.delivery, "bounced", Some(settle.attempt), Some(&settle.esp), said)?;
        reports::owe(tx, settle.delivery, Cause::Refused, Some(&settle.esp), said)?;
    }
    if moved && after.delivery.reason == Some(Reason::Assumed) {
        let detail = format!("{} gave no answer, as in an attempt before: taken as sent", settle.esp);
        tx.delivery_event(settle.delivery, "assumed", Some(settle.attempt), Some(&settle.esp), &detail)?;
        return Ok(Settled::Assumed);
    }
    Ok(if moved { Settled::Moved(after.delivery.state) } else { Settled::RowOnly })
}

/// `false`: the row has an answer already.
fn insert_answer(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<bool> {
    let (fault, lasting, remote_id) = match &settle.outcome {
        Outcome::Accepted { remote_id, .. } => (None, None, remote_id.as_deref()),
        Outcome::Refused { fault, lasting, .. } => (Some(fault.word()), Some(*lasting), None),
        Outcome::Unfit { .. } | Outcome::Unsure { .. } => (None, None, None),
    };
    let changed = tx.hot.insert_attempt.execute(params![
        settle.delivery.message.number(),
        settle.delivery.recipient,
        settle.attempt.number(),
        settle.esp,
        settle.begun_at.millis(),
        settle.answered_at.millis(),
        settle.outcome.word(),
        fault,
        lasting,
        settle.phase.map(|p| p.word()),
        remote_id,
        cut(settle.outcome.said(), SAID_OCTETS_MAX),
        false,
        settle.choice.as_deref(),
        settle.heard,
    ])?;
    Ok(changed > 0)
}

/// What an ESP said no to, it did not count.
fn give_back(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<()> {
    match (&settle.outcome, settle.spent) {
        (Outcome::Refused { .. } | Outcome::Unfit { .. }, Some(at)) => {
            super::ledger::give_back(tx, &settle.esp, at, 1)
        }
        _ => Ok(()),
    }
}

/// The message is gone, after its time: a row of its attempt would stay for ever.
fn forget_answer(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<()> {
    let id = settle.delivery;
    tx.conn
        .prepare_cached("DELETE FROM attempts WHERE message = ?1 AND recipient = ?2 AND attempt = ?3")?
        .execute(params![id.message.number(), id.recipient, settle.attempt.number()])?;
    Ok(())
}

/// Whether the answer that is there already is this one: a repeat, or unsure told once more.
fn answered_alike(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<bool> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT outcome = ?4 FROM attempts WHERE message = ?1 AND recipient = ?2 AND attempt = ?3",
    )?;
    statement.query_row(
        params![
            settle.delivery.message.number(),
            settle.delivery.recipient,
            settle.attempt.number(),
            settle.outcome.word()
        ],
        |row| row.get(0),
    )
}

/// The way of nearly all mail; `false`: the queue does not stand at `Out` with that attempt.
fn settle_accepted(tx: &mut Tx<'_, '_>, settle: &Settle) -> rusqlite::Result<bool> {
    let moved = tx.hot.settle_accepted.execute(params![
        settle.delivery.message.number(),
        settle.delivery.recipient,
        settle.attempt.number(),
        tx.now.millis(),
    ])?;
    if moved > 0 {
        tx.delta.out.push(OutChange::Done(settle.delivery));
    }
    Ok(moved > 0)
}

/// At most so many octets of it, whole characters.
pub(super) fn cut(text: &str, octets_max: usize) -> &str {
    if text.len() <= octets_max {
        return text;
    }
    let end = (0..=octets_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Writes the row of an attempt that nobody saw the end of.
pub(super) fn insert_crashed(
    tx: &mut Tx<'_, '_>,
    of: &Queued,
    attempt: AttemptId,
    detail: &str,
) -> rusqlite::Result<()> {
    let begun_at = of.begun_at.unwrap_or(tx.now);
    tx.hot.insert_attempt.execute(params![
        of.id.message.number(),
        of.id.recipient,
        attempt.number(),
        of.esp.as_deref().unwrap_or_default(),
        begun_at.millis(),
        tx.now.millis(),
        row::UNSURE_WORD,
        None::<&str>,
        None::<bool>,
        None::<&str>,
        None::<&str>,
        detail,
        true,
        None::<&str>,
        false,
    ])?;
    Ok(())
}
