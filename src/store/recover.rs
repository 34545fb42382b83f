//! What a start finds of the relay before it: deliveries that were out, and holds in which webhooks could not arrive.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::joining;
use super::queue::insert_crashed;
use super::row::{self, LaneId};
use super::tx::Tx;
use super::types::{Recovered, StoreError};
use super::waiting::Lane;
use crate::clock::{Timestamp, monotonic};
use crate::mail::{DeliveryId, QueueState, StreamKind, StreamName};

/// Rows that one operation moves at a time.
const CHUNK_ROWS: usize = 500;
/// Older than this a relay's word that it is up is stale; it is given more than twice in that time.
const ALIVE_MAX: Duration = Duration::from_secs(30);
/// On a full disk a start tries again so often…
const RECOVER_PAUSE: Duration = Duration::from_secs(1);
/// …and says so.
const RECOVER_SAID_EVERY: Duration = Duration::from_secs(60);

impl Store {
    /// At start: what another owner had out is unsure now, for as long as `hold` says for its stream, with its attempt
    /// and an event (rule 12); and each hold is longer by the time that the relay was down, as
    /// [`Delivery::outage`](crate::mail::delivery::Delivery::outage) says.
    ///
    /// On a full disk it waits for room, and says so: nothing may be begun before it is done.
    ///
    /// Errors: [`StoreError::Failed`], [`StoreError::Stopping`]; part of them may be judged by then. May be run
    /// again, and must be until it succeeds: until then those deliveries do not move.
    pub async fn recover(
        &self,
        hold: impl Fn(&StreamName, StreamKind) -> Duration,
    ) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        let mut patience = Patience::default();
        loop {
            match self.recover_once(&hold, &mut recovered).await {
                Ok(()) => return Ok(recovered),
                Err(StoreError::Full(why)) => {
                    patience.wait("what an earlier start left cannot be judged", &why).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn recover_once(
        &self,
        hold: &impl Fn(&StreamName, StreamKind) -> Duration,
        recovered: &mut Recovered,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let down = self.shared.alive().filter(|alive| *alive <= now).map(|alive| now.since(alive));
        for (lane, of) in self.shared.lanes() {
            let hold = hold(&of.stream, of.kind);
            let until = now.plus(hold);
            let out = self.shared.foreign_out(lane);
            for chunk in out.chunks(CHUNK_ROWS) {
                let chunk = chunk.to_vec();
                let run = move |tx: &mut Tx<'_, '_>| crash(tx, &chunk, until);
                recovered.crashed += self.shared.queue.run(Lane::Mail, CHUNK_ROWS, run).await?;
            }
            // Nobody knows how long where no earlier start said so, or the clock was set back.
            let outage = Outage { now, down: down.unwrap_or(hold), hold };
            recovered.holds_extended += self.extend_holds(lane, outage).await?;
        }
        // A start does not depend on it: where it cannot be noted the next one holds longer.
        let _ = self.note_alive().await;
        Ok(())
    }

    /// Notes that the relay is up, where deliveries wait that a later start may ask it for.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; it was not noted. May be run
    /// again.
    pub async fn note_alive(&self) -> Result<(), StoreError> {
        if self.shared.space.deliveries() == 0 {
            return Ok(());
        }
        self.shared.queue.run(Lane::Bulk, 1, |tx| tx.set_alive()).await
    }

    /// Whether nothing was committed for so long that the relay's word that it is up is stale (DELIVERY rule 21): it
    /// starts no call then. Where deliveries wait, [`Store::note_alive`] commits often enough.
    pub fn is_stale(&self) -> bool {
        let committed = Timestamp::from_millis(self.shared.committed_millis.load(Ordering::Relaxed));
        self.shared.clock.now().since(committed) > ALIVE_MAX
    }

    /// Where it fails halfway the next run lengthens some once more, never past a whole hold from then on.
    async fn extend_holds(&self, lane: LaneId, outage: Outage) -> Result<u64, StoreError> {
        let held = self.shared.queue.run(Lane::Mail, CHUNK_ROWS, move |tx| held(tx, lane)).await?;
        let mut extended = 0;
        for chunk in held.chunks(CHUNK_ROWS) {
            let chunk = chunk.to_vec();
            let extend = move |tx: &mut Tx<'_, '_>| extend(tx, &chunk, outage);
            extended += self.shared.queue.run(Lane::Mail, CHUNK_ROWS, extend).await?;
        }
        Ok(extended)
    }
}

/// A start that finds no room for what it must write waits for some, and says so.
#[derive(Debug, Default)]
pub(super) struct Patience {
    said_at: Option<Instant>,
}

impl Patience {
    pub(super) async fn wait(&mut self, what: &str, why: &str) {
        if self.said_at.is_none_or(|at| at.elapsed() >= RECOVER_SAID_EVERY) {
            self.said_at = Some(monotonic());
            tracing::error!(why, "{what}: the relay starts when there is room");
        }
        tokio::time::sleep(RECOVER_PAUSE).await;
    }
}

/// How long the relay was down before this start, and what it holds for.
#[derive(Debug, Clone, Copy)]
struct Outage {
    now: Timestamp,
    down: Duration,
    hold: Duration,
}

/// What is held, the paused ones too: they return to their holds.
fn held(tx: &mut Tx<'_, '_>, lane: LaneId) -> rusqlite::Result<Vec<DeliveryId>> {
    let mut statement = tx.conn.prepare_cached(
        "SELECT message, recipient FROM email_sends INDEXED BY email_sends_end
         WHERE state IN (0, 2, 3, 4) AND lane = ?1 AND state IN (2, 4)",
    )?;
    statement.query_map([lane], |row| row::delivery_id(row, 0))?.collect()
}

fn extend(tx: &mut Tx<'_, '_>, ids: &[DeliveryId], outage: Outage) -> rusqlite::Result<u64> {
    let mut extended = 0;
    for id in ids {
        let Some(before) = tx.read(*id)? else { continue };
        let mut after = before.clone();
        if after.delivery.outage(outage.now, outage.down, outage.hold) {
            tx.write(&before, &after)?;
            extended += 1;
        }
    }
    Ok(extended)
}

fn crash(tx: &mut Tx<'_, '_>, ids: &[DeliveryId], until: Timestamp) -> rusqlite::Result<u64> {
    const DETAIL: &str = "the relay stopped while the attempt was out: whether it was handed over is unknown";
    let mut crashed = 0;
    for id in ids {
        let Some(before) = tx.read(*id)? else { continue };
        let QueueState::Out { owner, attempt } = before.delivery.state else { continue };
        let mut after = before.clone();
        if owner == tx.shared.owner || !after.delivery.crashed(until) {
            continue;
        }
        insert_crashed(tx, &before, attempt, DETAIL)?;
        tx.write(&before, &after)?;
        tx.delivery_event(*id, "crashed", Some(attempt), before.esp.as_deref(), DETAIL)?;
        joining::find_told(tx, *id, attempt, before.esp.as_deref().unwrap_or_default())?;
        crashed += 1;
    }
    Ok(crashed)
}
