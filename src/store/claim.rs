//! What may move: deliveries that are due, the moment of the next one, and whole messages for those who carry them.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::bodies::load_message;
use super::row::{LaneId, QUEUED, QUEUED_COLUMNS, Queued, integer};
use super::types::{Claim, StoreError};
use crate::clock::Timestamp;
use crate::mail::{Lane, Message, MessageId, QueueState, StreamKind};

impl Store {
    /// Deliveries that are due at `now`: those whose hold is over, whatever their lane, and those that wait in a lane
    /// that `moves`: what cannot move is not read. All due ones of a message come together, so a little more than
    /// `limit` may come. Lanes take turns, transactional streams first, the longest due first in each: a campaign that
    /// waits does not hold up a receipt.
    ///
    /// Reads only: [`Store::begin`] decides who has them. Errors: [`StoreError::Failed`]. May be run again.
    pub async fn claim_due(
        &self,
        now: Timestamp,
        limit: usize,
        moves: impl Fn(&Lane) -> bool,
    ) -> Result<Vec<Claim>, StoreError> {
        let lanes = self.shared.lanes();
        let moving: Vec<LaneId> = lanes.iter().filter(|(_, lane)| moves(lane)).map(|(id, _)| *id).collect();
        self.read(move |conn| claim_due(conn, &lanes, &moving, now, limit)).await
    }

    /// The least moment at which something in a lane that `moves` becomes due, or a hold ends; `None`: nothing waits.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn next_due(&self, moves: impl Fn(&Lane) -> bool) -> Result<Option<Timestamp>, StoreError> {
        let lanes = self.shared.lanes();
        let moving: Vec<LaneId> = lanes.iter().filter(|(_, lane)| moves(lane)).map(|(id, _)| *id).collect();
        self.read(move |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT at FROM email_sends INDEXED BY email_sends_due
                 WHERE lane = ?1 AND state = 0 ORDER BY at LIMIT 1",
            )?;
            let mut least: Option<i64> = conn
                .prepare_cached(
                    "SELECT at FROM email_sends INDEXED BY email_sends_held WHERE state = 2 ORDER BY at LIMIT 1",
                )?
                .query_row([], |row| row.get(0))
                .optional()?;
            for lane in &moving {
                let at: Option<i64> = statement.query_row([lane], |row| row.get(0)).optional()?;
                least = least.into_iter().chain(at).min();
            }
            Ok(least.map(Timestamp::from_millis))
        })
        .await
    }

    /// Those of the lanes that are `asked` about in which something waits.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn waiting_lanes(&self, asked: impl Fn(&Lane) -> bool) -> Result<Vec<Lane>, StoreError> {
        let lanes: Vec<_> = self.shared.lanes().into_iter().filter(|(_, lane)| asked(lane)).collect();
        self.read(move |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT 1 FROM email_sends INDEXED BY email_sends_due WHERE lane = ?1 AND state = 0 LIMIT 1",
            )?;
            let mut waiting = Vec::new();
            for (id, lane) in lanes {
                if statement.exists([id])? {
                    waiting.push(lane);
                }
            }
            Ok(waiting)
        })
        .await
    }

    /// Whole messages with the first part of their bodies; what was spilled stays on disk, for [`Store::chunk`].
    /// `None`: there is no such message, or its body is gone.
    ///
    /// Errors: [`StoreError::Failed`], for one message alone where its row cannot be read. May be run again.
    pub async fn load(&self, ids: Vec<MessageId>) -> Vec<Result<Option<Message>, StoreError>> {
        let count = ids.len();
        let read = move |conn: &Connection| {
            Ok(ids.iter().map(|id| load_message(conn, *id)).collect::<Vec<Result<_, StoreError>>>())
        };
        self.read(read).await.unwrap_or_else(|error| vec![Err(error); count])
    }
}

fn claim_due(
    conn: &Connection,
    lanes: &[(LaneId, Lane)],
    moving: &[LaneId],
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Claim>> {
    let broadcast =
        |id: LaneId| lanes.iter().any(|(lane, of)| *lane == id && of.kind == StreamKind::Broadcast);
    let mut due = Vec::new();
    let mut held = conn.prepare_cached(
        "SELECT at, message, lane FROM email_sends INDEXED BY email_sends_held
         WHERE state = 2 AND at <= ?1 ORDER BY at LIMIT ?2",
    )?;
    let mut rows = held.query(params![now.millis(), integer(limit)])?;
    let mut turn = 0;
    while let Some(row) = rows.next()? {
        due.push((turn, broadcast(row.get(2)?), row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        turn += 1;
    }
    let mut waiting = conn.prepare_cached(
        "SELECT at, message FROM email_sends INDEXED BY email_sends_due
         WHERE lane = ?1 AND state = 0 AND at <= ?2 ORDER BY at LIMIT ?3",
    )?;
    for lane in moving {
        let rows = waiting.query_map(params![lane, now.millis(), integer(limit)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        for (turn, row) in rows.enumerate() {
            let (at, message) = row?;
            due.push((turn, broadcast(*lane), at, message));
        }
    }
    due.sort_unstable();
    due.truncate(limit);
    let mut claims = Vec::with_capacity(due.len());
    let mut seen = HashSet::new();
    for (_, _, _, message) in due {
        if seen.insert(message) {
            claims_of(conn, (lanes, moving), message, now, &mut claims)?;
        }
    }
    Ok(claims)
}

/// All due deliveries of one message that may move.
fn claims_of(
    conn: &Connection,
    (lanes, moving): (&[(LaneId, Lane)], &[LaneId]),
    message: i64,
    now: Timestamp,
    claims: &mut Vec<Claim>,
) -> rusqlite::Result<()> {
    let size: i64 = conn
        .prepare_cached("SELECT size FROM messages WHERE id = ?1")?
        .query_row([message], |row| row.get(0))?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {QUEUED}, ends_at FROM email_sends WHERE message = ?1 AND state IN (0, 2) AND at <= ?2"
    ))?;
    let rows = statement.query_map(params![message, now.millis()], |row| {
        Ok((Queued::read(row)?, Timestamp::from_millis(row.get(QUEUED_COLUMNS)?)))
    })?;
    for row in rows {
        let (queued, expires_at) = row?;
        let Some((_, lane)) = lanes.iter().find(|(id, _)| *id == queued.lane) else { continue };
        let held = matches!(queued.delivery.state, QueueState::Unsure { .. });
        if !held && !moving.contains(&queued.lane) {
            continue;
        }
        let open = open_attempts(conn, &queued)?;
        claims.push(Claim {
            delivery: queued.id,
            from: queued.delivery.state,
            tries: queued.tries,
            rounds: queued.rounds,
            open_attempts: open.count,
            open_by_crash: open.by_crash,
            bound_to: open.esp.filter(|_| !queued.delivery.unbound),
            unable_since: queued.delivery.unable_since,
            size_octets: size.unsigned_abs(),
            expires_at,
            lane: lane.clone(),
        });
    }
    Ok(())
}

#[derive(Default)]
struct Open {
    count: u32,
    by_crash: u32,
    esp: Option<String>,
}

fn open_attempts(conn: &Connection, of: &Queued) -> rusqlite::Result<Open> {
    if of.tries == 0 {
        return Ok(Open::default());
    }
    // SQLite takes `esp` from the row that has the max.
    conn.prepare_cached(
        "SELECT count(*), coalesce(sum(crashed), 0), esp, max(attempt) FROM attempts
         WHERE message = ?1 AND recipient = ?2 AND outcome = 'unsure' AND earlier = 0",
    )?
    .query_row(params![of.id.message.number(), of.id.recipient], |row| {
        Ok(Open { count: row.get(0)?, by_crash: row.get(1)?, esp: row.get(2)? })
    })
}
