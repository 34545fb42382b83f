//! What people and metrics ask: lists, one message's life, how much waits.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::Store;
use super::bodies::read_message;
use super::refused::store_error;
use super::row::{LaneId, Queued, delivery_id, moment, state, state_codes, state_word};
use super::story;
use super::types::StoreError;
use super::views::{AttemptView, DeliveryView, EventView, Filter, MessageView, QueueCount};
use crate::clock::Timestamp;
use crate::mail::event::known_of;
use crate::mail::{AttemptId, DeliveryId, Known, Lane, MessageId, QueueState};

/// A list never has more.
const LIST_ROWS_MAX: usize = 10_000;
/// Up to so many deliveries that wait, a list begins at them; past it, at the newest mail.
const SHORT_QUEUE: usize = 20_000;

impl Store {
    /// Deliveries, newest first.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn list(&self, filter: Filter) -> Result<Vec<DeliveryView>, StoreError> {
        let lanes = self.shared.lanes();
        let out = self.shared.out_ids();
        self.read(move |conn| list(conn, &lanes, &filter, &out)).await
    }

    /// One message's whole life; `None`: there is none of that id.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn show(&self, id: MessageId) -> Result<Option<MessageView>, StoreError> {
        self.read(move |conn| Ok(show(conn, id))).await?
    }

    /// How much waits, by state and stream.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn counts(&self) -> Result<Vec<QueueCount>, StoreError> {
        let lanes = self.shared.lanes();
        let out = self.shared.out_by_lane();
        self.read(move |conn| counts(conn, &lanes, out)).await
    }
}

const VIEW_COLUMNS: &str =
    "e.message, e.recipient, e.state, e.at, e.known, e.reason, e.mark, e.owner, e.attempt, \
     e.lane, e.tries, e.octets, e.begun_at, e.esp, coalesce(e.key, e.address), e.unbound, e.unable_since, \
     e.rounds, e.address,
         (SELECT a.said FROM attempts a WHERE a.message = e.message AND a.recipient = e.recipient
          ORDER BY a.attempt DESC LIMIT 1),
         l.stream, m.sender, m.size, m.accepted_at, e.ends_at";

/// Deliveries as [`view`] reads them, by one condition.
pub(super) fn view_where(condition: &str) -> String {
    format!(
        "SELECT {VIEW_COLUMNS} FROM email_sends e JOIN messages m ON m.id = e.message JOIN lanes l ON l.id = e.lane
         WHERE {condition}"
    )
}

pub(super) fn view(row: &Row<'_>) -> rusqlite::Result<DeliveryView> {
    let queued = Queued::read(row)?;
    Ok(DeliveryView {
        id: queued.id,
        recipient: row.get(18)?,
        state: queued.delivery.state,
        known: queued.delivery.known,
        reason: queued.delivery.reason,
        mark: queued.delivery.mark,
        esp: queued.esp,
        tries: queued.tries,
        said: row.get(19)?,
        stream: row.get(20)?,
        sender: row.get(21)?,
        size_octets: row.get::<_, i64>(22)?.unsigned_abs(),
        accepted_at: moment(row, 23)?,
        expires_at: moment(row, 24)?,
    })
}

fn list(
    conn: &Connection,
    lanes: &[(LaneId, Lane)],
    filter: &Filter,
    out: &[DeliveryId],
) -> rusqlite::Result<Vec<DeliveryView>> {
    let codes: Vec<i64> = match filter.states.is_empty() {
        true => vec![state::WAITING, state::OUT, state::UNSURE, state::PAUSED, state::PAUSED_UNSURE],
        false => filter.states.iter().flat_map(|word| state_codes(word)).copied().collect(),
    };
    let (condition, mut values) = condition(lanes, filter, &codes);
    let limit = filter.limit.min(LIST_ROWS_MAX);
    let order = format!("ORDER BY e.message DESC, e.recipient DESC LIMIT {limit}");
    let sql = if codes.contains(&state::DONE) || !queue_is_short(conn)? {
        format!("{} {order}", view_where(&condition))
    } else {
        // Little is not done: it is found by its index and by the book of what is out, not among all that is.
        values.push(Value::Text(ids_json(out)));
        format!(
            "WITH ids(message, recipient) AS MATERIALIZED (
                 SELECT message, recipient FROM email_sends INDEXED BY email_sends_end WHERE state IN (0, 2, 3, 4)
                 UNION SELECT value ->> 0, value ->> 1 FROM json_each(?{}))
             SELECT {VIEW_COLUMNS} FROM ids CROSS JOIN email_sends e USING (message, recipient)
                 JOIN messages m ON m.id = e.message JOIN lanes l ON l.id = e.lane
             WHERE {condition} {order}",
            values.len()
        )
    };
    conn.prepare(&sql)?.query_map(params_from_iter(values), view)?.collect()
}

/// The filter as SQL over `email_sends e`, with its values.
fn condition(lanes: &[(LaneId, Lane)], filter: &Filter, codes: &[i64]) -> (String, Vec<Value>) {
    let mut wheres = vec![format!("e.state IN ({})", joined(codes))];
    let mut values = Vec::new();
    if let Some(stream) = &filter.stream {
        let of_stream = lanes.iter().filter(|(_, lane)| lane.stream.as_str() == stream).map(|(id, _)| *id);
        wheres.push(format!("e.lane IN ({})", joined(&of_stream.collect::<Vec<_>>())));
    }
    if let Some(recipient) = &filter.recipient {
        let key = super::row::address(recipient).map_or_else(|_| recipient.to_lowercase(), |a| a.key());
        values.push(Value::Text(key));
        wheres.push(format!("coalesce(e.key, e.address) = ?{}", values.len()));
    }
    if let Some(before) = filter.before {
        values.push(Value::Integer(before.message.number()));
        values.push(Value::Integer(i64::from(before.recipient)));
        wheres.push(format!("(e.message, e.recipient) < (?{}, ?{})", values.len() - 1, values.len()));
    }
    (wheres.join(" AND "), values)
}

fn queue_is_short(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = format!(
        "SELECT 1 FROM email_sends INDEXED BY email_sends_end WHERE state IN (0, 2, 3, 4) LIMIT 1 OFFSET {SHORT_QUEUE}"
    );
    conn.prepare_cached(&sql)?.exists([]).map(|longer| !longer)
}

fn ids_json(ids: &[DeliveryId]) -> String {
    let pairs: Vec<_> = ids.iter().map(|id| (id.message.number(), id.recipient)).collect();
    serde_json::to_string(&pairs).unwrap_or_else(|_| "[]".into())
}

fn joined(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn show(conn: &Connection, id: MessageId) -> Result<Option<MessageView>, StoreError> {
    let Some(message) = read_message(conn, id)? else { return Ok(None) };
    let rest = || {
        let body_kept =
            conn.prepare_cached("SELECT 1 FROM bodies WHERE message = ?1")?.exists([id.number()])?;
        let mut deliveries = conn.prepare_cached(&view_where("e.message = ?1 ORDER BY e.recipient"))?;
        let deliveries = deliveries.query_map([id.number()], view)?.collect::<Result<Vec<_>, _>>()?;
        Ok((body_kept, deliveries, attempts(conn, id)?, story::events(conn, id)?))
    };
    let (body_kept, mut deliveries, attempts, mut events) =
        rest().map_err(|error: rusqlite::Error| store_error(&error))?;
    deliveries.iter_mut().for_each(|delivery| name_who_told(delivery, &events));
    let accepted = EventView {
        at: message.accepted_at,
        kind: "accepted".into(),
        recipient: None,
        detail: format!("{} octets for {}", message.body.facts.size_octets, recipients(deliveries.len())),
        attempt: None,
        told: None,
    };
    events.insert(0, accepted);
    Ok(Some(MessageView { message, body_kept, deliveries, attempts, events }))
}

/// Where several ESPs had it, the one by whose word it ended is named: that is not always the last.
fn name_who_told(delivery: &mut DeliveryView, events: &[EventView]) {
    if delivery.state != QueueState::Done || delivery.known <= Known::Handed {
        return;
    }
    let of_it = |event: &&EventView| {
        event.recipient == Some(delivery.id.recipient) && known_of(&event.kind) == Some(delivery.known)
    };
    let told: Vec<&String> =
        events.iter().filter(of_it).filter_map(|event| event.told.as_ref()).map(|told| &told.esp).collect();
    if let Some(last) = told.last().filter(|_| !told.iter().any(|esp| Some(*esp) == delivery.esp.as_ref())) {
        delivery.esp = Some((*last).clone());
    }
}

fn recipients(n: usize) -> String {
    if n == 1 { "1 recipient".into() } else { format!("{n} recipients") }
}

/// Those with an answer, and those that are out: the delivery's own row is the record of these.
fn attempts(conn: &Connection, id: MessageId) -> rusqlite::Result<Vec<AttemptView>> {
    let mut statement = conn.prepare_cached(
        "SELECT message, recipient, attempt, esp, begun_at, answered_at, outcome, fault, phase, remote_id, said, choice
         FROM attempts WHERE message = ?1
         UNION ALL
         SELECT message, recipient, attempt, coalesce(esp, ''), coalesce(begun_at, at), NULL, 'begun', NULL, NULL,
             NULL, '', NULL
         FROM email_sends WHERE message = ?1 AND state = 1
         ORDER BY 5, 3, 2",
    )?;
    let rows = statement.query_map([id.number()], |row| {
        Ok(AttemptView {
            delivery: delivery_id(row, 0)?,
            attempt: AttemptId::from_number(row.get(2)?),
            esp: row.get(3)?,
            begun_at: moment(row, 4)?,
            answered_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_millis),
            outcome: row.get(6)?,
            fault: row.get(7)?,
            phase: row.get(8)?,
            remote_id: row.get(9)?,
            said: row.get(10)?,
            choice: row.get(11)?,
        })
    })?;
    rows.collect()
}

/// Deliveries and the least message among them.
pub(super) type Tally = (u64, Option<i64>);

fn counts(
    conn: &Connection,
    lanes: &[(LaneId, Lane)],
    out: HashMap<LaneId, Tally>,
) -> rusqlite::Result<Vec<QueueCount>> {
    let mut tallies: BTreeMap<(String, &'static str), Tally> = BTreeMap::new();
    let mut add = |lane: LaneId, state: &'static str, (count, least): Tally| {
        if let Some((_, of)) = lanes.iter().find(|(id, _)| *id == lane) {
            let tally = tallies.entry((of.stream.to_string(), state)).or_default();
            tally.0 += count;
            tally.1 = tally.1.into_iter().chain(least).min();
        }
    };
    let mut statement = conn.prepare_cached(
        "SELECT lane, state, count(*), min(message) FROM email_sends INDEXED BY email_sends_end
         WHERE state IN (0, 2, 3, 4) GROUP BY lane, state",
    )?;
    let mut rows = statement.query(params![])?;
    while let Some(row) = rows.next()? {
        add(row.get(0)?, state_word(row.get(1)?), (row.get::<_, i64>(2)?.unsigned_abs(), row.get(3)?));
    }
    for (lane, tally) in out {
        add(lane, "out", tally);
    }
    let count = |((stream, state), (deliveries, least)): ((String, &'static str), Tally)| QueueCount {
        state,
        stream,
        deliveries,
        oldest: least.map(|id| MessageId::from_number(id).minted_at()),
    };
    Ok(tallies.into_iter().map(count).collect())
}
