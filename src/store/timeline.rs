//! By what a listener of the log of events says where it was, also where a backup was restored since: then numbers go back, and
//! one and the same number is of two events.
//!
//! Each restore notes when it was seen and the last event that the backup had. A [`Place`] names the last restore before it,
//! so that what it has in common with the database of today can be told: all up to the oldest end of the backups that were
//! restored after it. Whoever begins behind that misses nothing, and hears nothing twice but what was lost and happened again.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, params};

use super::Store;
use super::tx::Tx;
use super::types::StoreError;

/// `meta`, before the moment of a restore: the last event that was in the backup. 10 letters.
const PREFIX: &str = "events_to ";

/// Behind which event a listener is. As text it is the event's number, and after a restore also the moment of that one
/// (milliseconds since the epoch), with a dash between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The event's number; 0: before all.
    pub number: i64,
    /// The last restore before it; 0: there was none.
    restored_at: i64,
}

/// A restore, as the log of events has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Restore {
    at: i64,
    last_in_backup: i64,
}

/// What the numbers of the events mean today.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The first one first.
    restores: Vec<Restore>,
    /// The newest event; 0: there is none.
    newest: i64,
}

/// Where a listener goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Behind this one.
    pub at: Place,
    /// What it has heard of is not all here.
    pub lost: Option<Lost>,
}

/// Why what a listener has heard of is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// A backup was restored, and it goes on behind its last event.
    Restored,
    /// It is not known of which database it heard: it begins with the first event that is kept.
    Unknown,
}

impl Timeline {
    /// The place of an event of that number.
    pub fn place(&self, number: i64) -> Place {
        Place { number, restored_at: self.restores.last().map_or(0, |restore| restore.at) }
    }

    /// Behind all that has happened.
    pub fn now(&self) -> Place {
        self.place(self.newest)
    }

    /// Where a listener goes on that was there.
    pub fn resume(&self, was: Place) -> Resumed {
        let is_known = was.restored_at == 0 || self.restores.iter().any(|r| r.at == was.restored_at);
        let later = self.restores.iter().filter(|r| r.at > was.restored_at);
        let (number, lost) = match later.map(|r| r.last_in_backup).min() {
            _ if !is_known => (0, Some(Lost::Unknown)),
            Some(common) if was.number > common => (common, Some(Lost::Restored)),
            None if was.number > self.newest => (0, Some(Lost::Unknown)),
            Some(_) | None => (was.number, None),
        };
        Resumed { at: self.place(number), lost }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.restored_at {
            0 => write!(f, "{}", self.number),
            restored_at => write!(f, "{}-{restored_at}", self.number),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse().map_err(|_| ()),
            false => Err(()),
        };
        match text.split_once('-') {
            None => Ok(Place { number: digits(text)?, restored_at: 0 }),
            Some((number, restored_at)) => {
                Ok(Place { number: digits(number)?, restored_at: digits(restored_at)? })
            }
        }
    }
}

impl Store {
    /// What the numbers of the events mean now. It changes with a start alone, but for the newest.
    ///
    /// Errors: [`StoreError::Failed`]. May be run again.
    pub async fn timeline(&self) -> Result<Timeline, StoreError> {
        let timeline = |conn: &Connection| Ok(Timeline { restores: restores(conn)?, newest: newest(conn)? });
        self.read(timeline).await
    }
}

/// A restore was seen: what is recorded from now on was not in the backup.
pub(super) fn note_restore(tx: &Tx<'_, '_>) -> rusqlite::Result<()> {
    let last_in_backup = newest(tx.conn)?;
    // They rise, whatever the clock says.
    let at = restores(tx.conn)?.last().map_or(1, |last| last.at + 1).max(tx.now.millis());
    tx.conn
        .execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)",
            params![format!("{PREFIX}{at}"), last_in_backup],
        )
        .map(|_| ())
}

fn newest(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))
}

fn restores(conn: &Connection) -> rusqlite::Result<Vec<Restore>> {
    let mut statement = conn.prepare_cached(
        "SELECT CAST(substr(key, 11) AS INTEGER) AS at, value FROM meta WHERE substr(key, 1, 10) = ?1 ORDER BY at",
    )?;
    let restore = |row: &rusqlite::Row<'_>| Ok(Restore { at: row.get(0)?, last_in_backup: row.get(1)? });
    statement.query_map([PREFIX], restore)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(restores: &[(i64, i64)], newest: i64) -> Timeline {
        let restores = restores.iter().map(|&(at, last_in_backup)| Restore { at, last_in_backup }).collect();
        Timeline { restores, newest }
    }

    #[test]
    fn a_listener_goes_on_behind_the_last_event_that_both_databases_have() {
        use Lost::{Restored, Unknown};
        let never = timeline(&[], 50);
        let once = timeline(&[(1_000, 20)], 50);
        let twice = timeline(&[(1_000, 20), (2_000, 30)], 50);
        // The second of them was made before the first one's end.
        let back = timeline(&[(1_000, 20), (2_000, 15)], 50);
        let nothing_since = timeline(&[(1_000, 50)], 50);
        for (timeline, was, goes_on, lost) in [
            (&never, "0", "0", None),
            (&never, "49", "49", None),
            (&never, "50", "50", None),
            (&never, "51", "0", Some(Unknown)),
            (&never, "30-1000", "0", Some(Unknown)),
            (&once, "10", "10-1000", None),
            (&once, "20", "20-1000", None),
            (&once, "21", "20-1000", Some(Restored)),
            // By its number alone it would be taken for one of today's.
            (&once, "40", "20-1000", Some(Restored)),
            (&once, "999999999", "20-1000", Some(Restored)),
            (&once, "40-1000", "40-1000", None),
            (&once, "51-1000", "0-1000", Some(Unknown)),
            (&once, "10-999", "0-1000", Some(Unknown)),
            (&twice, "25", "20-2000", Some(Restored)),
            (&twice, "25-1000", "25-2000", None),
            (&twice, "45-1000", "30-2000", Some(Restored)),
            (&twice, "45-2000", "45-2000", None),
            (&back, "18", "15-2000", Some(Restored)),
            (&back, "14", "14-2000", None),
            (&back, "18-1000", "15-2000", Some(Restored)),
            (&nothing_since, "51", "50-1000", Some(Restored)),
        ] {
            let resumed = timeline.resume(was.parse().unwrap());
            assert_eq!(
                (resumed.at.to_string().as_str(), resumed.lost),
                (goes_on, lost),
                "{was} {timeline:?}"
            );
        }
        assert_eq!((never.now().to_string(), twice.place(7).to_string()), ("50".into(), "7-2000".into()));
        assert_eq!(timeline(&[], 0).now().to_string(), "0");
    }

    #[test]
    fn what_is_no_place_is_not_taken_for_one() {
        for text in ["", "-", "-1", "+1", "1-", "1--1", "1-2-3", " 1", "1.0", "abc", "99999999999999999999"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text:?}");
        }
    }
}
