//! What becomes of mail where the configuration names no ESP any more: it waits. The sandbox that stands in their place
//! would keep it, and tell its senders that it was sent.
//!
//! `meta` remembers that ESPs that send were named. A start or a reload without any then pauses all sending, until ESPs are named
//! again, or an operator lets mail go on: into the sandbox, by his own word.

use rusqlite::params;

use super::recover::Patience;
use super::suspensions::EVERY_ESP;
use super::tx::Tx;
use super::types::{NewEvent, StoreError};
use super::waiting::Lane;
use super::{Store, noted};

/// `meta`: the configuration has named ESPs.
const NAMED: &str = "esps_named";
/// `meta`: all sending is paused for want of them.
const PAUSED: &str = "paused_without_esps";
/// Why all sending is paused, for all who ask.
const REASON: &str = "the configuration names no [[esp]] any more; mail waits until it does. To keep it in the sandbox \
                      instead: postroad unpause";

/// Which ESPs a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EspsNamed {
    /// None: the sandbox stands in their place.
    None,
    /// Sandboxes alone: that mail is kept here is what the operator wants.
    Sandboxes,
    /// Some that send.
    Real,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutEsps {
    /// Some are named, or none ever was.
    No,
    /// None is any more: all sending is paused, for this reason.
    Paused(&'static str),
    /// Some are named again, and mail goes on that was paused for want of them.
    Over,
}

impl Store {
    /// [`Store::esps_are_named`] of a start: on a full disk it waits for room, and says so.
    ///
    /// Errors: [`StoreError::Failed`], [`StoreError::Stopping`]. May be run again.
    pub async fn starts_with_esps(&self, named: EspsNamed) -> Result<WithoutEsps, StoreError> {
        let mut patience = Patience::default();
        loop {
            match self.esps_are_named(named).await {
                Err(StoreError::Full(why)) => {
                    patience.wait("whether ESPs are named cannot be noted", &why).await;
                }
                judged => return judged,
            }
        }
    }

    /// At each reload, before anything goes by that configuration: which ESPs it names.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; nothing changed then. May be run
    /// again.
    pub async fn esps_are_named(&self, named: EspsNamed) -> Result<WithoutEsps, StoreError> {
        // Nearly always there is nothing to write.
        let noted = self.read(|conn| Ok((noted(conn, NAMED)?, noted(conn, PAUSED)?))).await?;
        match (named, noted) {
            (EspsNamed::Real, (Some(_), None)) => Ok(WithoutEsps::No),
            (EspsNamed::Sandboxes | EspsNamed::None, (None, _)) => Ok(WithoutEsps::No),
            (EspsNamed::None, _) => self.shared.queue.run(Lane::Mail, 1, pause).await,
            (EspsNamed::Real | EspsNamed::Sandboxes, _) => {
                self.shared.queue.run(Lane::Mail, 1, move |tx| go_on(tx, named)).await
            }
        }
    }
}

/// Whether all sending is paused for want of ESPs, and an operator is told another reason: who lets it go on for that one
/// has not said that mail may go into the sandbox.
pub(super) fn hides_behind_another(tx: &Tx<'_, '_>) -> rusqlite::Result<bool> {
    if noted(tx.conn, PAUSED)?.is_none() {
        return Ok(false);
    }
    tx.conn
        .prepare_cached("SELECT 1 FROM suspensions WHERE esp = ?1 AND reason <> ?2")?
        .exists([EVERY_ESP, REASON])
}

/// Nothing is known of ESPs that were named: an operator let mail go on without any.
pub(super) fn forget(tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
    if noted(tx.conn, PAUSED)?.is_some() {
        tx.conn.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [NAMED, PAUSED])?;
    }
    Ok(())
}

fn go_on(tx: &mut Tx<'_, '_>, named: EspsNamed) -> rusqlite::Result<WithoutEsps> {
    let note = match named {
        EspsNamed::Real => "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, 1)",
        EspsNamed::Sandboxes | EspsNamed::None => "DELETE FROM meta WHERE key = ?1",
    };
    tx.conn.execute(note, [NAMED])?;
    if tx.conn.execute("DELETE FROM meta WHERE key = ?1", [PAUSED])? == 0 {
        return Ok(WithoutEsps::No);
    }
    // An operator may have paused it as well since.
    let own = "DELETE FROM suspensions WHERE esp = ?1 AND reason = ?2";
    match tx.conn.execute(own, [EVERY_ESP, REASON])? {
        0 => Ok(WithoutEsps::No),
        _ => Ok(WithoutEsps::Over),
    }
}

pub(super) fn pause(tx: &mut Tx<'_, '_>) -> rusqlite::Result<WithoutEsps> {
    tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, 1)", [PAUSED])?;
    let paused = tx.conn.execute(
        "INSERT OR IGNORE INTO suspensions (esp, reason, since, until) VALUES (?1, ?2, ?3, NULL)",
        params![EVERY_ESP, REASON, tx.now.millis()],
    )?;
    if paused > 0 {
        let detail = format!("no_esp: all sending is paused: {REASON}");
        tx.event(&NewEvent { detail, ..NewEvent::new("alert", tx.now) })?;
    }
    Ok(WithoutEsps::Paused(REASON))
}
