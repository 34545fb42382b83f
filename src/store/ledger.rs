//! The ledger: what each ESP may still be given, counted before it is used, so that neither a crash nor another start
//! ever exceeds a limit.
//!
//! Allowance is taken in blocks and is usable only once its block is committed; a block that a crash leaves unused is
//! spent. What was taken after a backup is not known in it: once it is restored, every open window counts as spent
//! until it rolls over or an operator says otherwise (DELIVERY rule 22).

use rusqlite::params;

use super::Store;
use super::row::integer;
use super::tx::Tx;
use super::types::{Block, StoreError};
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::quota::{QuotaLimits, Window};

impl Store {
    /// Takes at most `wanted` recipients of what the limits leave that ESP now.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing was taken then, or it is
    /// spent. Each run takes anew.
    pub async fn take(&self, esp: &str, wanted: u64, limits: QuotaLimits) -> Result<Block, StoreError> {
        let esp = esp.to_owned();
        self.shared.queue.run(Lane::Mail, 1, move |tx| take(tx, &esp, wanted, limits)).await
    }

    /// Gives back what was taken at that moment and not used, for as long as its windows count it.
    ///
    /// Errors: as [`Store::take`]; then it is spent. Each run gives back anew.
    pub async fn give_back(&self, esp: &str, at: Timestamp, unused: u64) -> Result<(), StoreError> {
        let esp = esp.to_owned();
        self.shared.queue.run(Lane::Mail, 1, move |tx| give_back(tx, &esp, at, unused)).await
    }
}

/// A bucket that holds so many was presumed to be spent: more than any limit.
const PRESUMED: u64 = 1 << 40;

/// After a restore: every window that is open now counts as spent, for these ESPs and for whoever is in the ledger.
pub(super) fn presume_spent(tx: &Tx<'_, '_>, esps: &[String]) -> rusqlite::Result<()> {
    let mut known: Vec<String> = {
        let mut statement = tx.conn.prepare("SELECT DISTINCT esp FROM ledger")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    known.extend_from_slice(esps);
    known.sort_unstable();
    known.dedup();
    super::paces::forget(tx)?;
    for esp in known {
        trust(tx, &esp)?;
        for window in Window::ALL {
            add(tx, &esp, window, PRESUMED)?;
        }
    }
    Ok(())
}

/// An operator says that an ESP's limits are not spent: what the ledger itself knows counts again.
pub(super) fn trust(tx: &Tx<'_, '_>, esp: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("UPDATE ledger SET taken = taken - ?2 WHERE esp = ?1 AND taken >= ?2")?
        .execute(params![esp, integer(PRESUMED)])
        .map(|_| ())
}

fn take(tx: &mut Tx<'_, '_>, esp: &str, wanted: u64, limits: QuotaLimits) -> rusqlite::Result<Block> {
    let mut block =
        Block { granted: wanted, at: tx.now, left: [None; 3], more_at: [None; 3], presumed: false };
    for (window, limit) in limits.windows() {
        let (taken, more_at) = counted(tx, esp, window)?;
        block.presumed |= taken >= PRESUMED;
        let left = limit.saturating_sub(taken);
        block.left[window as usize] = Some(left);
        block.granted = block.granted.min(left);
        block.more_at[window as usize] = more_at;
    }
    if block.granted == 0 {
        return Ok(block);
    }
    for (window, _) in limits.windows() {
        add(tx, esp, window, block.granted)?;
    }
    block.left.iter_mut().flatten().for_each(|left| *left -= block.granted);
    Ok(block)
}

/// What counts now, and when the first of it counts no more. What will count no more is let go.
fn counted(tx: &Tx<'_, '_>, esp: &str, window: Window) -> rusqlite::Result<(u64, Option<Timestamp>)> {
    let mut rows = tx
        .conn
        .prepare_cached("SELECT bucket, taken FROM ledger WHERE esp = ?1 AND window = ?2 ORDER BY bucket")?;
    let rows = rows.query_map(params![esp, window as i64], |row| {
        Ok((Timestamp::from_millis(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let (mut taken, mut first, mut over) = (0, None, None);
    for row in rows {
        let (bucket, n) = row?;
        if window.kept_until(bucket) <= tx.now {
            over = Some(bucket);
        } else if window.counts_until(bucket) > tx.now && n > 0 {
            taken += n;
            first = first.filter(|_| n < PRESUMED).or(Some(window.counts_until(bucket)));
        }
    }
    if let Some(over) = over {
        tx.conn
            .prepare_cached("DELETE FROM ledger WHERE esp = ?1 AND window = ?2 AND bucket <= ?3")?
            .execute(params![esp, window as i64, over.millis()])?;
    }
    Ok((taken, first))
}

fn add(tx: &Tx<'_, '_>, esp: &str, window: Window, n: u64) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO ledger (esp, window, bucket, taken) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (esp, window, bucket) DO UPDATE SET taken = taken + excluded.taken",
        )?
        .execute(params![esp, window as i64, window.bucket(tx.now).millis(), integer(n)])?;
    Ok(())
}

/// To the buckets that it was taken from; one that counts no more has no row.
pub(super) fn give_back(tx: &Tx<'_, '_>, esp: &str, at: Timestamp, unused: u64) -> rusqlite::Result<()> {
    for window in Window::ALL {
        tx.conn
            .prepare_cached(
                "UPDATE ledger SET taken = max(taken - ?4, 0) WHERE esp = ?1 AND window = ?2 AND bucket = ?3",
            )?
            .execute(params![esp, window as i64, window.bucket(at).millis(), integer(unused)])?;
    }
    Ok(())
}
