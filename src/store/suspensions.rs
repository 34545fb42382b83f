//! What an operator said of an ESP: it survives a restart.

use std::collections::HashMap;

use rusqlite::params;

use super::Store;
use super::tx::Tx;
use super::types::{NewEvent, StoreError, Suspension};
use super::waiting::Lane;
use crate::clock::Timestamp;

/// Stands for every ESP in place of a name, which has letters, digits and hyphens only: all sending is paused.
pub const EVERY_ESP: &str = "*";

impl Store {
    /// Suspends an ESP, or with `None` resumes it; then its limits are no more presumed to be spent either. All of them
    /// together ([`EVERY_ESP`]) go on by [`Store::unpause`].
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; it is as it was then. May be run
    /// again.
    pub async fn suspend(&self, esp: &str, suspension: Option<Suspension>) -> Result<(), StoreError> {
        let esp = esp.to_owned();
        let run = move |tx: &mut Tx<'_, '_>| {
            note(tx, &esp, suspension.as_ref())?;
            match &suspension {
                Some(s) => tx
                    .conn
                    .prepare_cached(
                        "INSERT OR REPLACE INTO suspensions (esp, reason, since, until) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![esp, s.reason, s.since.millis(), s.until.map(Timestamp::millis)]),
                None => {
                    super::ledger::trust(tx, &esp)?;
                    tx.conn.prepare_cached("DELETE FROM suspensions WHERE esp = ?1")?.execute([&esp])
                }
            }
            .map(|_| ())
        };
        self.shared.queue.run(Lane::Mail, 1, run).await
    }

    /// Every suspension, by ESP; some may be over.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn suspensions(&self) -> Result<HashMap<String, Suspension>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare("SELECT esp, reason, since, until FROM suspensions")?;
            let rows = statement.query_map([], |row| {
                let suspension = Suspension {
                    reason: row.get(1)?,
                    since: Timestamp::from_millis(row.get(2)?),
                    until: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
                };
                Ok((row.get(0)?, suspension))
            })?;
            rows.collect()
        })
        .await
    }
}

/// What an operator did, for who looks later.
fn note(tx: &mut Tx<'_, '_>, esp: &str, suspension: Option<&Suspension>) -> rusqlite::Result<()> {
    let all = esp == EVERY_ESP;
    let kind = match suspension {
        Some(_) if all => "paused",
        Some(_) => "suspended",
        None => "resumed",
    };
    let detail = suspension.map_or_else(String::new, |s| match s.until {
        Some(until) => format!("until {until}: {}", s.reason),
        None => s.reason.clone(),
    });
    let esp = (!all).then(|| esp.to_owned());
    tx.event(&NewEvent { esp, detail, ..NewEvent::new(kind, tx.now) }).map(|_| ())
}

/// All sending goes on, where it was paused.
pub(super) fn go_on(tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
    if tx.conn.execute("DELETE FROM suspensions WHERE esp = ?1", [EVERY_ESP])? > 0 {
        tx.event(&NewEvent::new("unpaused", tx.now))?;
    }
    Ok(())
}
