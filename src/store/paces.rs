//! The moments that slow rates have given away, so that the first mail after a restart neither waits for nothing nor comes
//! too early.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::Store;
use super::tx::Tx;
use crate::clock::Timestamp;

/// Before the ESP's name, in `meta`.
const PREFIX: &str = "pace:";

/// What was noted when the database was opened.
#[derive(Debug, Default)]
pub(super) struct Paces {
    next: HashMap<String, Timestamp>,
    /// No message is there: nothing was sent for long, or ever.
    idle: bool,
}

impl Paces {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            conn.prepare("SELECT substr(key, 6), value FROM meta WHERE substr(key, 1, 5) = ?1")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?)));
        let next = statement.query_map([PREFIX], row)?.collect::<rusqlite::Result<_>>()?;
        let idle = conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM messages)", [], |row| row.get(0))?;
        Ok(Paces { next, idle })
    }
}

impl Store {
    /// The first free moment of that ESP's rate, as an earlier start has noted it; `None`: that is not known.
    pub fn paced(&self, esp: &str) -> Option<Timestamp> {
        let paces = self.shared.paces.get()?;
        // What was given away since a backup is not in it.
        if self.shared.restored_to.load(Ordering::Relaxed) >= 0 {
            return None;
        }
        let never = paces.idle.then(|| Timestamp::from_millis(0));
        paces.next.get(esp).copied().or(never)
    }

    /// Notes it, for a call that is about to be begun: it is committed before the begin is, or with it.
    pub fn note_pace(&self, esp: &str, next: Timestamp) {
        let key = format!("{PREFIX}{esp}");
        self.shared.queue.run_before_begin(move |tx| {
            tx.conn
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                .execute(params![key, next.millis()])
                .map(|_| ())
        });
    }
}

/// After a restore: what was given away since the backup is not known.
pub(super) fn forget(tx: &Tx<'_, '_>) -> rusqlite::Result<()> {
    tx.conn.execute("DELETE FROM meta WHERE substr(key, 1, 5) = ?1", [PREFIX]).map(|_| ())
}
