//! Reports to senders (DSN): owed from the transaction that ends a delivery until the one that queues the report.
//!
//! What ends a delivery and what the sender hears of it are so never apart (DELIVERY rule 7), and neither the settle
//! nor the sweep has to read a message's content.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::accept::{Packed, accept_owed};
use super::bodies::{load_message, read_message};
use super::row::{address, delivery_id, integer, moment};
use super::tx::Tx;
use super::types::{Accept, StoreError};
use super::waiting::Lane;
use super::{Store, generation, reasons};
use crate::clock::Timestamp;
use crate::mail::notify::{Ask, Asks, Notify, ReportTo, Return};
use crate::mail::report::Cause;
use crate::mail::{DeliveryId, Message, MessageId};

/// A sender who asked for it hears that a message is late after so long…
const LATE_AFTER: Duration = Duration::from_secs(4 * 3_600);
/// …or after this part of its time, whichever comes first.
const LATE_PART: u32 = 2;

/// One recipient of whom the sender is to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Why.
    pub cause: Cause,
    /// When its last attempt was answered, or became unsure; `None`: none was made.
    pub last_attempt_at: Option<Timestamp>,
    /// Whether the answer to one of its attempts is open now: it may have arrived all the same.
    pub open: bool,
    /// The ESP that said it, where one did.
    pub esp: Option<String>,
    /// The words.
    pub said: String,
}

impl Store {
    /// Waits until a commit makes a report owed. One that came while nobody waited is told to the next who does.
    pub async fn report_is_owed(&self) {
        self.shared.report_owed.notified().await;
    }

    /// Reports that are owed, at most `limit`, those of one message together, from behind `after` on.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn owed(
        &self,
        after: Option<(DeliveryId, Cause)>,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        let (message, recipient, code) =
            after.map_or((-1, 0, 0), |(id, cause)| (id.message.number(), id.recipient, cause_code(cause)));
        self.read(move |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT message, recipient, cause, (SELECT max(a.answered_at) FROM attempts AS a
                     WHERE a.message = o.message AND a.recipient = o.recipient AND a.earlier = 0
                       AND a.outcome <> 'unfit'), esp, said,
                     EXISTS (SELECT 1 FROM attempts AS a WHERE a.message = o.message AND a.recipient = o.recipient
                         AND a.earlier = 0 AND a.outcome = 'unsure')
                 FROM reports_owed AS o
                 WHERE (message, recipient, cause) > (?2, ?3, ?4)
                 ORDER BY message, recipient, cause LIMIT ?1",
            )?;
            let rows = statement.query_map(params![integer(limit), message, recipient, code], |row| {
                Ok(Owed {
                    delivery: delivery_id(row, 0)?,
                    cause: cause(row.get(2)?),
                    last_attempt_at: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
                    esp: row.get(4)?,
                    said: row.get(5)?,
                    open: row.get(6)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// The message that a report speaks of; with an empty `body.head` where its body is gone. `None`: it is gone.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn reported(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.read(move |conn| {
            Ok(match load_message(conn, id) {
                Ok(None) => read_message(conn, id),
                loaded => loaded,
            })
        })
        .await?
    }

    /// Queues a report and crosses out what it tells, with an event each, in one transaction; `false`: all of it was
    /// crossed out before, and nothing was queued. It is owed already: `queue_bytes` does not hold for it.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing changed then. May be
    /// run again.
    pub async fn report(
        &self,
        report: Accept,
        told: Vec<(DeliveryId, Cause)>,
        detail: String,
    ) -> Result<bool, StoreError> {
        let report = Packed::new(&self.shared.packers, report).await;
        let run = move |tx: &mut Tx<'_, '_>| {
            if !still_owed(tx, &told)? {
                return Ok(Ok(false));
            }
            if let Err(error) = accept_owed(tx, &report)? {
                return Ok(Err(error));
            }
            cross_out(tx, &told, "reported", &detail)?;
            if told.iter().any(|(id, _)| tx.shared.may_have_been_sent(*id)) {
                tell_restored(tx, report.message())?;
            }
            Ok(Ok(true))
        };
        self.shared.queue.run(Lane::Mail, 4, run).await?
    }

    /// Crosses out what is owed and will not be told, with an event each.
    ///
    /// Errors: as [`Store::report`]. May be run again.
    pub async fn not_reported(
        &self,
        told: Vec<(DeliveryId, Cause)>,
        detail: String,
    ) -> Result<(), StoreError> {
        let rows = told.len();
        let run = move |tx: &mut Tx<'_, '_>| cross_out(tx, &told, "not_reported", &detail);
        self.shared.queue.run(Lane::Mail, rows, run).await
    }

    /// Makes reports owed for what is not done at `now` and whose sender asked to hear of a delay, at most `limit`.
    /// How many were looked at.
    ///
    /// Errors: as [`Store::report`]. May be run again.
    pub async fn sweep_delays(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.shared.queue.run(Lane::Bulk, limit, move |tx| sweep_delays(tx, now, limit)).await
    }

    /// When the next delay is to be looked at; `None`: nobody asked.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn next_delay(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|conn| {
            conn.prepare_cached("SELECT at FROM delays_asked ORDER BY at LIMIT 1")?
                .query_row([], |row| moment(row, 0))
                .optional()
        })
        .await
    }
}

/// Whether any of it is.
fn still_owed(tx: &Tx<'_, '_>, told: &[(DeliveryId, Cause)]) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM reports_owed WHERE message = ?1 AND recipient = ?2 AND cause = ?3";
    let mut statement = tx.conn.prepare_cached(sql)?;
    for (id, cause) in told {
        if statement.exists(params![id.message.number(), id.recipient, cause_code(*cause)])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The message may be gone after its time: then there is nothing left to note at it.
fn cross_out(
    tx: &mut Tx<'_, '_>,
    told: &[(DeliveryId, Cause)],
    kind: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    for (id, cause) in told {
        let sql = "DELETE FROM reports_owed WHERE message = ?1 AND recipient = ?2 AND cause = ?3";
        let gone = tx.conn.prepare_cached(sql)?.execute(params![
            id.message.number(),
            id.recipient,
            cause_code(*cause)
        ])?;
        if gone > 0 && tx.read(*id)?.is_some() {
            tx.delivery_event(*id, kind, None, None, detail)?;
        }
    }
    Ok(())
}

/// Notes that the sender is to hear of it, if there is one and he wants to.
pub(super) fn owe(
    tx: &mut Tx<'_, '_>,
    id: DeliveryId,
    cause: Cause,
    esp: Option<&str>,
    said: &str,
) -> rusqlite::Result<()> {
    let found = tx
        .conn
        .prepare_cached("SELECT sender, reports FROM messages WHERE id = ?1")?
        .query_row([id.message.number()], |row| {
            Ok((row.get::<_, String>(0)?.is_empty(), row.get::<_, Option<String>>(1)?))
        })
        .optional()?;
    let Some((false, written)) = found else { return Ok(()) };
    let notify =
        written.and_then(|text| asks(&text).ok()).and_then(|asks| asks.notify(id.recipient as usize));
    if !cause.wanted(notify) {
        return Ok(());
    }
    tx.delta.report_owed = true;
    tx.conn
        .prepare_cached(
            "INSERT OR IGNORE INTO reports_owed (message, recipient, cause, at, esp, said)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![id.message.number(), id.recipient, cause_code(cause), tx.now.millis(), esp, said])
        .map(|_| ())
}

/// What a restored database owes may have been reported before the restore (DELIVERY rule 20). The report waits, as all
/// does then, and says so.
fn tell_restored(tx: &mut Tx<'_, '_>, report: &Message) -> rusqlite::Result<()> {
    for (recipient, _) in (0..).zip(&report.envelope.recipients) {
        generation::tell_one(tx, DeliveryId { message: report.id, recipient })?;
    }
    Ok(())
}

/// Of a message that enters: whose delay the sender wants to hear of, counted from `due`.
pub(super) fn note_delays(tx: &mut Tx<'_, '_>, message: &Message, due: Timestamp) -> rusqlite::Result<()> {
    let Some(asks) = &message.envelope.reports else { return Ok(()) };
    let life = message.expires_at.since(due);
    let at = due.plus(LATE_AFTER.min(life / LATE_PART)).millis();
    for (recipient, ask) in (0_u32..).zip(&asks.each) {
        if ask.notify.is_some_and(|notify| notify.delay) {
            tx.conn
                .prepare_cached(
                    "INSERT OR IGNORE INTO delays_asked (at, message, recipient) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![at, message.id.number(), recipient])?;
        }
    }
    Ok(())
}

fn sweep_delays(tx: &mut Tx<'_, '_>, now: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    let late = {
        let mut statement = tx.conn.prepare_cached(
            "SELECT at, message, recipient FROM delays_asked WHERE at <= ?1 ORDER BY at LIMIT ?2",
        )?;
        let rows = statement.query_map(params![now.millis(), integer(limit)], |row| {
            Ok((row.get::<_, i64>(0)?, delivery_id(row, 1)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for (at, id) in &late {
        tx.conn
            .prepare_cached("DELETE FROM delays_asked WHERE at = ?1 AND message = ?2 AND recipient = ?3")?
            .execute(params![at, id.message.number(), id.recipient])?;
        if let Some(delivery) = tx.read(*id)?.filter(|d| !d.is_done()) {
            let said = reasons::last_words_of(tx.conn, *id)?;
            owe(tx, *id, Cause::Late, delivery.esp.as_deref(), &said)?;
        }
    }
    Ok(late.len())
}

fn cause_code(cause: Cause) -> i64 {
    match cause {
        Cause::Refused => 0,
        Cause::Expired => 1,
        Cause::Suppressed => 2,
        Cause::Late => 3,
        Cause::Relayed => 4,
    }
}

fn cause(code: i64) -> Cause {
    match code {
        0 => Cause::Refused,
        1 => Cause::Expired,
        2 => Cause::Suppressed,
        3 => Cause::Late,
        _ => Cause::Relayed,
    }
}

/// `messages.reports`.
#[derive(Serialize, Deserialize)]
struct AsksColumn {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    envid: Option<String>,
    /// NOTIFY and ORCPT of each recipient.
    each: Vec<(Option<String>, Option<String>)>,
    /// To whom reports go in the sender's place; empty: to nobody. Without it: to the sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    instead: Option<String>,
}

pub(super) fn asks_column(asks: &Asks) -> Option<String> {
    let each = asks.each.iter().map(|ask| (ask.notify.map(|n| n.to_string()), ask.original.clone()));
    let ret = asks.ret.map(|ret| ret.word().to_owned());
    let instead = match &asks.to {
        ReportTo::Sender => None,
        ReportTo::Instead(other) => Some(other.wire().to_owned()),
        ReportTo::Nobody => Some(String::new()),
    };
    let column = AsksColumn { ret, envid: asks.envelope_id.clone(), each: each.collect(), instead };
    serde_json::to_string(&column).ok()
}

pub(super) fn asks(column: &str) -> Result<Asks, serde_json::Error> {
    let column: AsksColumn = serde_json::from_str(column)?;
    let ask = |(notify, original): (Option<String>, Option<String>)| Ask {
        notify: notify.as_deref().and_then(Notify::parse),
        original,
    };
    Ok(Asks {
        ret: column.ret.as_deref().and_then(Return::parse),
        envelope_id: column.envid,
        each: column.each.into_iter().map(ask).collect(),
        to: match column.instead.as_deref() {
            None => ReportTo::Sender,
            // Empty, or whatever else is no address.
            Some(other) => address(other).map_or(ReportTo::Nobody, ReportTo::Instead),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn causes_come_back_as_they_were() {
        for each in [Cause::Refused, Cause::Expired, Cause::Suppressed, Cause::Late, Cause::Relayed] {
            assert_eq!(cause(cause_code(each)), each);
        }
    }

    proptest! {
        #[test]
        fn what_was_asked_survives_its_column(success: bool, failure: bool, delay: bool, id in "[ -~]{0,20}") {
            let ask = Ask { notify: Some(Notify { success, failure, delay }), original: Some("rfc822;a@b".into()) };
            let each = vec![Ask::default(), ask];
            let instead = ReportTo::Instead(address("qa@staging.example").unwrap());
            for to in [ReportTo::Sender, instead, ReportTo::Nobody] {
                let (ret, envelope_id) = (Some(Return::Headers), Some(id.clone()));
                let given = Asks { ret, envelope_id, each: each.clone(), to };
                prop_assert_eq!(asks(&asks_column(&given).unwrap()).unwrap(), given);
            }
        }
    }
}
