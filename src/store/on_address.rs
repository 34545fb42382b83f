//! What events of ESPs do to their address, whoever mailed it: suppressions are written, and lifted, in the transaction of
//! the event. For which reason is said by [`crate::mail::effect`].

use rusqlite::params;

use super::row::moment;
use super::suppressions::lifted;
use super::tx::Tx;
use super::types::ToldEvent;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::effect::{Effect, SOFT_BOUNCES, SoftRule, UNSUBSCRIBE, too_soft};
use crate::mail::{StreamKind, What};

/// Soft bounces of an address that are looked at: the latest.
const SOFT_MAX: u32 = 200;
/// Wishes of an address that are looked at: the latest.
const WISHES_MAX: u32 = 200;

/// What the event does to its address, whoever mailed it.
pub(super) fn on_address(
    tx: &mut Tx<'_, '_>,
    rule: SoftRule,
    told: &ToldEvent,
    who: &Address,
) -> rusqlite::Result<()> {
    let key = who.key();
    match told.event.what.effect() {
        Effect::Nothing => Ok(()),
        Effect::Suppress(reason) => {
            let event = &told.event;
            // Who complained is not asked again, though nobody knew of it when the address was taken off the list.
            if event.what != What::Complained && lifted(tx, &key, reason)?.is_after(event.at) {
                return Ok(());
            }
            let (esp, said) = (told.esp.as_str(), event.said.as_str());
            let proof = Proof { reason, scope: "", esp, said, since: event.at, until: None };
            suppress(tx, &key, who, &proof)
        }
        Effect::Wish => wish(tx, &key, who, told.event.scope.unwrap_or(StreamKind::Broadcast)),
        Effect::Weigh => weigh(tx, rule, &key, who),
    }
}

/// Why an address is mailed no more.
struct Proof<'a> {
    reason: &'a str,
    scope: &'a str,
    esp: &'a str,
    said: &'a str,
    since: Timestamp,
    until: Option<Timestamp>,
}

/// The proof that lasts longest stays, of these the earliest, in whatever order they come.
fn suppress(tx: &mut Tx<'_, '_>, key: &str, who: &Address, proof: &Proof<'_>) -> rusqlite::Result<()> {
    tx.delta.verdict = true;
    tx.conn
        .prepare_cached(
            "INSERT INTO suppressions (key, address, reason, scope, source, evidence, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (key, scope, reason) DO UPDATE SET expires_at = excluded.expires_at,
                 address = excluded.address, source = excluded.source, evidence = excluded.evidence,
                 created_at = excluded.created_at
             WHERE (expires_at IS NOT NULL AND (excluded.expires_at IS NULL OR excluded.expires_at > expires_at))
                 OR (expires_at IS excluded.expires_at
                     AND (excluded.created_at, excluded.source, excluded.evidence, excluded.address)
                         < (created_at, source, evidence, address))",
        )?
        .execute(params![
            key,
            who.wire(),
            proof.reason,
            proof.scope,
            proof.esp,
            proof.said,
            proof.since.millis(),
            proof.until.map(Timestamp::millis)
        ])
        .map(|_| ())
}

/// Takes away what events of ESPs have put there, and nobody else.
fn lift(tx: &Tx<'_, '_>, key: &str, reason: &str, scope: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "DELETE FROM suppressions WHERE key = ?1 AND reason = ?2 AND scope = ?3
                 AND EXISTS (SELECT 1 FROM events WHERE events.key = ?1 AND events.esp = suppressions.source)",
        )?
        .execute(params![key, reason, scope])
        .map(|_| ())
}

/// The owner's latest word at each ESP counts, by their clocks: one who has left at one of them wants no more.
fn wish(tx: &mut Tx<'_, '_>, key: &str, who: &Address, kind: StreamKind) -> rusqlite::Result<()> {
    const TRANSACTIONAL: &str = "transactional";
    let of_kind = match kind {
        StreamKind::Transactional => "class IS ?2",
        StreamKind::Broadcast => "class IS NOT ?2",
    };
    let known = lifted(tx, key, UNSUBSCRIBE)?.event;
    let mut words = tx.conn.prepare_cached(&format!(
        "SELECT esp, kind = 'resubscribed', at, detail FROM events WHERE key = ?1 AND id > ?3 AND {of_kind}
             AND (kind IN ('unsubscribed', 'resubscribed') OR class = 'listed_unsubscribed')
         ORDER BY at DESC, event_key DESC LIMIT {WISHES_MAX}"
    ))?;
    let mut heard: Vec<String> = Vec::new();
    let mut left = None;
    let mut rows = words.query(params![key, TRANSACTIONAL, known])?;
    while let Some(row) = rows.next()? {
        let esp: String = row.get(0)?;
        if heard.contains(&esp) {
            continue;
        }
        if !row.get::<_, bool>(1)? {
            left = Some((esp, Timestamp::from_millis(row.get(2)?), row.get::<_, String>(3)?));
            break;
        }
        heard.push(esp);
    }
    drop(rows);
    drop(words);
    let scope = kind.word();
    lift(tx, key, UNSUBSCRIBE, scope)?;
    let Some((esp, since, said)) = left else { return Ok(()) };
    suppress(tx, key, who, &Proof { reason: UNSUBSCRIBE, scope, esp: &esp, said: &said, since, until: None })
}

/// All soft bounces of the address, and when something last arrived there.
fn weigh(tx: &mut Tx<'_, '_>, rule: SoftRule, key: &str, who: &Address) -> rusqlite::Result<()> {
    let lifted = lifted(tx, key, SOFT_BOUNCES)?;
    let soft: Vec<(Timestamp, String)> = tx
        .conn
        .prepare_cached(&format!(
            "SELECT at, esp FROM events WHERE key = ?1 AND kind = 'bounced' AND class = 'soft' AND at >= ?2 AND id > ?3
             ORDER BY at DESC, event_key DESC LIMIT {SOFT_MAX}"
        ))?
        .query_map(params![key, lifted.since().millis(), lifted.event], |row| Ok((moment(row, 0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let Some((_, esp)) = soft.first().cloned() else { return Ok(()) };
    let soft: Vec<Timestamp> = soft.into_iter().map(|(at, _)| at).collect();
    let delivered: Option<i64> = tx
        .conn
        .prepare_cached("SELECT max(at) FROM events WHERE key = ?1 AND kind = 'delivered'")?
        .query_row([key], |row| row.get(0))?;
    lift(tx, key, SOFT_BOUNCES, "")?;
    let Some(since) = too_soft(rule, &soft, delivered.map(Timestamp::from_millis)) else { return Ok(()) };
    let days = rule.window.as_secs() / 86_400;
    let said = format!(
        "at least {} soft bounces over {days} days or more, and nothing delivered between",
        rule.bounces
    );
    let until = Some(since.plus(rule.window));
    suppress(tx, key, who, &Proof { reason: SOFT_BOUNCES, scope: "", esp: &esp, said: &said, since, until })
}
