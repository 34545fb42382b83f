//! What an operation has in its hands inside the writer's transaction: the connection, the hot statements, the lanes,
//! and the changes to what is kept in memory, which count only after the commit.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::Shared;
use super::notifications;
use super::row::{self, LaneId, QUEUED, Queued, integer, known_code, mark_code, reason_code, state_columns};
use super::types::{NewEvent, Suppression};
use crate::clock::Timestamp;
use crate::mail::delivery::Open;
use crate::mail::{AttemptId, DeliveryId, Lane, Message, MessageId, QueueState, Rule, StreamKind};

/// The lanes as the writer has them; those of an open transaction come last and go where it does not commit.
pub(super) struct Lanes {
    all: Vec<(LaneId, Lane)>,
    committed: usize,
}

impl Lanes {
    pub(super) fn new(all: Vec<(LaneId, Lane)>) -> Self {
        let committed = all.len();
        Lanes { all, committed }
    }

    /// The transaction was committed.
    pub(super) fn keep(&mut self, shared: &Shared) {
        if self.committed < self.all.len() {
            self.committed = self.all.len();
            shared.set_lanes(self.all.clone());
        }
    }

    /// The transaction is gone.
    pub(super) fn forget(&mut self) {
        self.all.truncate(self.committed);
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.all.iter().find(|(i, _)| *i == id).map(|(_, lane)| lane)
    }
}

/// The statements that every message runs, prepared once.
pub(super) struct Hot<'c> {
    pub begin: Statement<'c>,
    pub commit: Statement<'c>,
    pub rollback: Statement<'c>,
    pub insert_message: Statement<'c>,
    pub insert_body: Statement<'c>,
    pub insert_delivery: Statement<'c>,
    pub suppressions_of: Statement<'c>,
    pub insert_attempt: Statement<'c>,
    pub settle_accepted: Statement<'c>,
}

impl<'c> Hot<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Hot {
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
            rollback: conn.prepare("ROLLBACK")?,
            insert_message: conn.prepare(super::accept::INSERT_MESSAGE)?,
            insert_body: conn.prepare(super::accept::INSERT_BODY)?,
            insert_delivery: conn.prepare(super::accept::INSERT_DELIVERY)?,
            suppressions_of: conn.prepare(SUPPRESSIONS_OF)?,
            insert_attempt: conn.prepare(super::queue::INSERT_ATTEMPT)?,
            settle_accepted: conn.prepare(super::queue::SETTLE_ACCEPTED)?,
        })
    }
}

/// Every suppression of a key, for [`suppressed`]: what lasts before what is over some day, what blocks all before what
/// blocks some.
pub(super) const SUPPRESSIONS_OF: &str =
    "SELECT scope, reason, created_at, expires_at, evidence FROM suppressions
     WHERE key = ?1 ORDER BY expires_at IS NOT NULL, scope, reason";

/// The first of a key's suppressions that blocks that stream at `now`.
pub(super) fn suppressed(
    of_key: &mut Statement<'_>,
    key: &str,
    stream: &str,
    kind: StreamKind,
    now: Timestamp,
) -> rusqlite::Result<Option<Suppression>> {
    let mut rows = of_key.query([key])?;
    while let Some(row) = rows.next()? {
        let scope = row.get_ref(0)?.as_str()?;
        let blocks = scope.is_empty() || scope == stream || scope == row::kind_word(kind);
        let over = row.get::<_, Option<i64>>(3)?.is_some_and(|at| at <= now.millis());
        if blocks && !over {
            return Ok(Some(Suppression {
                reason: row.get(1)?,
                scope: scope.to_owned(),
                since: row.get(2).map(Timestamp::from_millis)?,
                evidence: row.get(4)?,
            }));
        }
    }
    Ok(None)
}

/// A change to the book of what is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutChange {
    /// It is out now.
    Out(DeliveryId, LaneId, u64),
    /// It is out no more, and not done.
    Back(DeliveryId),
    /// It is out no more, and done: its octets leave the queue.
    Done(DeliveryId),
}

/// What a transaction changes in memory, once it is committed.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub queue_octets: i64,
    /// Deliveries that came in, less those that are done and were not out.
    pub deliveries: i64,
    pub body_octets: i64,
    pub out: Vec<OutChange>,
    pub out_from: Option<MessageId>,
    pub alive: Option<Timestamp>,
    /// Somebody may not be mailed who might have been: see [`super::Store::verdicts`].
    pub verdict: bool,
    /// A sender is to hear of something: see [`super::Store::report_is_owed`].
    pub report_owed: bool,
    /// A receiver has something to hear: see [`super::Store::notification_news`].
    pub notified: bool,
    /// An event was written: see [`super::Store::event_news`].
    pub events: bool,
}

/// One transaction.
pub(super) struct Tx<'a, 'c> {
    pub conn: &'c Connection,
    pub hot: &'a mut Hot<'c>,
    pub lanes: &'a mut Lanes,
    pub shared: &'a Shared,
    pub delta: Delta,
    /// The time of the transaction.
    pub now: Timestamp,
}

impl<'a, 'c> Tx<'a, 'c> {
    pub(super) fn new(
        conn: &'c Connection,
        hot: &'a mut Hot<'c>,
        lanes: &'a mut Lanes,
        shared: &'a Shared,
    ) -> Self {
        Tx { conn, hot, lanes, shared, delta: Delta::default(), now: shared.clock.now() }
    }

    pub(super) fn into_delta(self) -> Delta {
        self.delta
    }

    /// Runs `f` in a savepoint: where it fails nothing of it stays, unless the transaction itself is gone.
    pub(super) fn guarded<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.conn.prepare_cached("SAVEPOINT op")?.execute([])?;
        let (octets, bodies, out) = (self.delta.queue_octets, self.delta.body_octets, self.delta.out.len());
        let (deliveries, out_from) = (self.delta.deliveries, self.delta.out_from);
        let lanes = self.lanes.all.len();
        let result = f(self);
        if result.is_err() {
            self.delta.queue_octets = octets;
            self.delta.deliveries = deliveries;
            self.delta.body_octets = bodies;
            self.delta.out.truncate(out);
            self.delta.out_from = out_from;
            self.lanes.all.truncate(lanes);
            if self.conn.is_autocommit() {
                return result;
            }
            self.conn.prepare_cached("ROLLBACK TO op")?.execute([])?;
        }
        self.conn.prepare_cached("RELEASE op")?.execute([])?;
        result
    }

    /// The lane of a message's deliveries under that rule; a new one gets a row.
    pub(super) fn lane(&mut self, message: &Message, rule: &Rule) -> rusqlite::Result<LaneId> {
        if let Some((id, _)) = self.lanes.all.iter().find(|(_, lane)| lane.holds(message, rule)) {
            return Ok(*id);
        }
        let lane = Lane::of(message, rule.clone());
        let id = self
            .conn
            .prepare_cached(
                "INSERT INTO lanes (stream, kind, pin, to_rule, from_rule) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .insert(params![
                lane.stream.as_str(),
                row::kind_code(lane.kind),
                lane.pin.as_deref().unwrap_or_default(),
                lane.rule.to.as_deref().unwrap_or_default(),
                lane.rule.from.as_deref().unwrap_or_default(),
            ])?;
        self.lanes.all.push((id, lane));
        Ok(id)
    }

    /// Why a recipient may not be mailed in that stream; `None`: it may. A row without scope blocks every stream, one
    /// with a scope the stream of that kind or name.
    pub(super) fn suppressed(
        &mut self,
        key: &str,
        stream: &str,
        kind: StreamKind,
    ) -> rusqlite::Result<Option<Suppression>> {
        suppressed(&mut self.hot.suppressions_of, key, stream, kind, self.now)
    }

    /// The delivery as it stands in this transaction.
    pub(super) fn read(&self, id: DeliveryId) -> rusqlite::Result<Option<Queued>> {
        self.conn
            .prepare_cached(&format!(
                "SELECT {QUEUED} FROM email_sends WHERE message = ?1 AND recipient = ?2"
            ))?
            .query_row(params![id.message.number(), id.recipient], Queued::read)
            .optional()
    }

    /// Attempts whose answer is open (rule 11: counted in the journal).
    pub(super) fn open(&self, of: &Queued) -> rusqlite::Result<Open> {
        if of.tries == 0 || (of.is_out() && of.tries == 1) {
            return Ok(Open::default());
        }
        self.conn
            .prepare_cached(
                "SELECT count(*), count(*) - coalesce(sum(crashed), 0), max(attempt) FROM attempts
                 WHERE message = ?1 AND recipient = ?2 AND outcome = 'unsure' AND earlier = 0",
            )?
            .query_row(params![of.id.message.number(), of.id.recipient], |row| {
                let latest = row.get::<_, Option<i64>>(2)?.map(AttemptId::from_number);
                Ok(Open { count: row.get(0)?, seen: row.get(1)?, latest })
            })
    }

    /// Writes what has changed from `before` to `after`; what is not a matter of state stays.
    pub(super) fn write(&mut self, before: &Queued, after: &Queued) -> rusqlite::Result<()> {
        let to = state_columns(after.delivery.state, self.now);
        self.conn
            .prepare_cached(
                "UPDATE email_sends SET state = ?3, at = coalesce(?4, at), owner = coalesce(?5, owner),
                     attempt = coalesce(?6, attempt), known = ?7, reason = ?8, mark = ?9, tries = ?10,
                     begun_at = coalesce(?11, begun_at), esp = coalesce(?12, esp), unbound = ?13,
                     unable_since = ?14, rounds = ?15
                 WHERE message = ?1 AND recipient = ?2",
            )?
            .execute(params![
                after.id.message.number(),
                after.id.recipient,
                to.code,
                to.at,
                to.owner,
                to.attempt,
                known_code(after.delivery.known),
                after.delivery.reason.map(reason_code),
                mark_code(after.delivery.mark),
                after.tries,
                after.begun_at.map(Timestamp::millis),
                after.esp,
                after.delivery.unbound,
                after.delivery.unable_since.map(Timestamp::millis),
                after.rounds,
            ])?;
        self.moved(before, after.delivery.state)
    }

    /// Keeps book of a move.
    fn moved(&mut self, before: &Queued, to: QueueState) -> rusqlite::Result<()> {
        let out = matches!(to, QueueState::Out { .. });
        let done = to == QueueState::Done;
        match (before.is_out(), out) {
            (true, false) if done => self.delta.out.push(OutChange::Done(before.id)),
            (true, false) => self.delta.out.push(OutChange::Back(before.id)),
            (false, true) => return self.goes_out(before.id, before.lane, before.octets),
            (false, false) if done && !before.is_done() => {
                self.delta.queue_octets -= integer(before.octets);
                self.delta.deliveries -= 1;
            }
            (false, false) if before.is_done() && !done => {
                self.delta.queue_octets += integer(before.octets);
                self.delta.deliveries += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps book of what is out, and sees to it that the next start will look there.
    pub(super) fn goes_out(&mut self, id: DeliveryId, lane: LaneId, octets: u64) -> rusqlite::Result<()> {
        self.delta.out.push(OutChange::Out(id, lane, octets));
        let from = self.delta.out_from.unwrap_or_else(|| self.shared.out_from());
        if id.message < from { self.set_out_from(id.message) } else { Ok(()) }
    }

    /// From this message on a start looks for what is out: such rows enter no index.
    pub(super) fn set_out_from(&mut self, from: MessageId) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('out_from', ?1)")?
            .execute([from.number()])?;
        self.delta.out_from = Some(from);
        Ok(())
    }

    /// The relay is up at the time of this transaction.
    pub(super) fn set_alive(&mut self) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('alive', ?1)")?
            .execute([self.now.millis()])?;
        self.delta.alive = Some(self.now);
        Ok(())
    }

    /// The least message with a delivery that is out, this transaction's own among them.
    pub(super) fn least_out(&self) -> Option<MessageId> {
        let own = self.delta.out.iter().filter_map(|change| match change {
            OutChange::Out(id, ..) => Some(id.message),
            OutChange::Back(_) | OutChange::Done(_) => None,
        });
        own.chain(self.shared.least_out()).min()
    }

    /// Records an event; `false`: one with that key is there already.
    pub(super) fn event(&mut self, event: &NewEvent) -> rusqlite::Result<bool> {
        match self.record(event)? {
            Some(row) => notifications::tell(self, row, &event.kind).map(|()| true),
            None => Ok(false),
        }
    }

    /// Records an event, of which no receiver hears; its row.
    pub(super) fn record(&mut self, event: &NewEvent) -> rusqlite::Result<Option<i64>> {
        let changed = self
            .conn
            .prepare_cached(
                "INSERT INTO events (message, recipient, attempt, esp, kind, at, event_key, remote_id, raw, detail,
                     confidence)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (event_key) WHERE event_key IS NOT NULL DO NOTHING",
            )?
            .execute(params![
                event.message.map(|m| m.number()),
                event.recipient,
                event.attempt.map(|a| a.number()),
                event.esp,
                event.kind,
                event.at.millis(),
                event.event_key,
                event.remote_id,
                event.raw,
                event.detail,
                event.confidence,
            ])?;
        self.delta.events |= changed > 0;
        Ok((changed > 0).then(|| self.conn.last_insert_rowid()))
    }

    /// An event of one delivery.
    pub(super) fn delivery_event(
        &mut self,
        id: DeliveryId,
        kind: &str,
        attempt: Option<AttemptId>,
        esp: Option<&str>,
        detail: &str,
    ) -> rusqlite::Result<()> {
        let event = NewEvent {
            message: Some(id.message),
            recipient: Some(id.recipient),
            attempt,
            esp: esp.map(str::to_owned),
            detail: detail.to_owned(),
            ..NewEvent::new(kind, self.now)
        };
        self.event(&event).map(|_| ())
    }
}
