//! Events that name no attempt of ours: recipient, ESP, time and what they say of the mail tell whose they are, where one
//! attempt fits and no other may (DELIVERY rule 16).
//!
//! What may be meant is an attempt whose answer was lost, whatever became of its delivery since: it is held, paused,
//! removed, or taken as sent. Whoever looks among what is held alone takes the news of one for that of another.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::bodies;
use super::row::{self, Queued, deliveries, moment};
use super::tx::Tx;
use super::types::{Kin, ToldEvent};
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::event::Unlabelled;
use crate::mail::from::from_keys;
use crate::mail::headers::{fields, message_id};
use crate::mail::{AttemptId, DeliveryId, Known, MessageId};

/// Open attempts for a recipient that are compared: where there are more, none is taken.
const OPEN_MAX: usize = 100;
/// The latest attempts are looked through for what was taken, for an event without any id: they are few.
const LATELY_MAX: u32 = 10_000;
/// An event's recipients that are kept: SES takes 50 in a call.
const RECIPIENTS_MAX: usize = 100;
/// An ESP gives up after three days at the latest.
const LATELY: Duration = Duration::from_secs(3 * 86_400);
/// Some ESPs tell times in whole seconds.
pub(super) const WHOLE_SECOND: Duration = Duration::from_secs(1);
/// An ESP may still have been at it when the line to it died.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// What an event without our ids is known by.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub esp: &'a str,
    /// The recipient's key.
    pub key: &'a str,
    pub at: Timestamp,
    /// The ESP's id of the mail.
    pub remote_id: Option<&'a str>,
    /// What it says of the mail, where its form has no place for our ids.
    pub mail: Option<&'a Unlabelled>,
}

/// An attempt that may be meant.
#[derive(Debug, Clone)]
struct Candidate {
    id: DeliveryId,
    attempt: AttemptId,
    begun_at: Timestamp,
    /// When its answer came, or was given up; `None`: it is out.
    ended_at: Option<Timestamp>,
    /// Where it was.
    door: Door,
    /// What stood as envelope sender in place of the mail's own.
    sender: Option<String>,
}

/// Where an attempt was, as seen from the ESP that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    /// At one that is configured no more, of which nobody can say what it was.
    Gone,
    /// At another whose mail it may tell of.
    Other,
    /// There.
    Here,
}

/// How well the mail that is told of fits an attempt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is other mail.
    No,
    /// Too little is known to tell: it stands in the way of what fits no better, and is never taken.
    Perhaps,
    /// Nothing speaks against it.
    Yes,
    /// It names the message.
    Sure,
}

/// What became of mail itself: who opens, complains or leaves may do so long after, and of any mail.
pub(super) fn is_of_an_arrival(word: &str) -> bool {
    matches!(word, "delivered" | "deferred" | "bounced" | "dropped" | "rejected")
}

/// Whose attempt an event is about that came with none of our ids. One with an id that is none of ours is about another's
/// mail to the same address, but where its form has no place for our ids and the answer that would have told the ESP's was
/// lost.
pub(super) fn find(tx: &Tx<'_, '_>, told: &ToldEvent) -> rusqlite::Result<Option<(DeliveryId, AttemptId)>> {
    let event = &told.event;
    let Some(recipient) = &event.recipient else { return Ok(None) };
    let another_s = event.remote_id.is_some() && event.unlabelled.is_none();
    if event.planted.is_some() || another_s || !is_of_an_arrival(event.what.word()) {
        return Ok(None);
    }
    let (esp, key, mail) = (told.esp.as_str(), recipient.key(), event.unlabelled.as_ref());
    meant(tx, About { esp, key: &key, at: event.at, remote_id: event.remote_id.as_deref(), mail })
}

/// The one attempt that fits: one whose answer was lost, or one that was taken lately and of which nothing final is known;
/// `None` as well where one that is out may be meant, whose answer will say so.
pub(super) fn meant(tx: &Tx<'_, '_>, about: About<'_>) -> rusqlite::Result<Option<(DeliveryId, AttemptId)>> {
    if is_anothers(tx.conn, about.remote_id)? {
        return Ok(None);
    }
    let settings = tx.shared.settings.load_full();
    let Some(mut all) = open(tx.conn, about, &settings.kin)? else { return Ok(None) };
    // What was taken with an id would have been found by it.
    if about.remote_id.is_none() {
        let taken = taken_lately(tx.conn, about, &settings.kin)?;
        all.extend(taken.into_iter().filter(|taken| taken.door == Door::Here));
    }
    let Some((fit, found)) = one_of(judged(tx.conn, all, about)?) else { return Ok(None) };
    let another = may_be_another(tx, about, &settings.kin, found.id, fit)?;
    Ok((!another).then_some((found.id, found.attempt)))
}

/// Whether that id was told of other mail already, by whichever ESP.
fn is_anothers(conn: &Connection, remote_id: Option<&str>) -> rusqlite::Result<bool> {
    let Some(remote_id) = remote_id else { return Ok(false) };
    conn.prepare_cached(
        "SELECT 1 FROM attempts WHERE remote_id = ?1 AND heard = 1 AND remote_id IS NOT NULL",
    )?
    .exists([remote_id])
}

fn judged(
    conn: &Connection,
    all: Vec<Candidate>,
    about: About<'_>,
) -> rusqlite::Result<Vec<(Fit, Candidate)>> {
    all.into_iter().map(|candidate| Ok((fit(conn, &candidate, about)?, candidate))).collect()
}

/// The one that fits best, unless another delivery's may be meant as well; of several of one delivery the latest.
fn one_of(mut fitting: Vec<(Fit, Candidate)>) -> Option<(Fit, Candidate)> {
    let sure = fitting.iter().any(|(fit, _)| *fit == Fit::Sure);
    fitting.retain(|(fit, _)| if sure { *fit == Fit::Sure } else { *fit != Fit::No });
    let best = |(fit, candidate): &&(Fit, Candidate)| (*fit, candidate.door, candidate.begun_at);
    let (fit, found) = fitting.iter().max_by_key(best)?;
    let alone = fitting.iter().all(|(_, other)| other.id == found.id);
    (alone && found.door == Door::Here && *fit >= Fit::Yes).then(|| (*fit, found.clone()))
}

/// Those without an answer that were begun before it was told; `None`: more than are compared, at whichever ESPs.
fn open(conn: &Connection, about: About<'_>, kin: &Kin) -> rusqlite::Result<Option<Vec<Candidate>>> {
    let sql = format!(
        "SELECT message, recipient, attempt, begun_at, answered_at, esp FROM attempts
         WHERE outcome = 'unsure' AND key = ?1 AND begun_at <= ?2 LIMIT {}",
        OPEN_MAX + 1
    );
    let last = about.at.plus(WHOLE_SECOND);
    let mut statement = conn.prepare_cached(&sql)?;
    let rows =
        statement.query_map(params![about.key, last.millis()], |row| Candidate::read(row, about, kin))?;
    let all = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((all.len() <= OPEN_MAX).then(|| all.into_iter().flatten().collect()))
}

/// Those taken without an id that events are found by: where the event has one, the others would have been found.
fn taken_lately(conn: &Connection, about: About<'_>, kin: &Kin) -> rusqlite::Result<Vec<Candidate>> {
    let sql = format!(
        "SELECT a.message, a.recipient, a.attempt, a.begun_at, a.answered_at, a.esp FROM
             (SELECT * FROM attempts ORDER BY message DESC LIMIT {LATELY_MAX}) AS a
             JOIN email_sends AS d ON d.message = a.message AND d.recipient = a.recipient
         WHERE a.outcome = 'accepted' AND a.earlier = 0 AND a.begun_at BETWEEN ?2 AND ?3
             AND coalesce(d.key, d.address) = ?1 AND d.known IN (?4, ?5)
             AND (a.remote_id IS NULL OR a.heard = 0 OR ?6)
         LIMIT {OPEN_MAX}"
    );
    let (first, last) = (about.at.earlier(LATELY), about.at.plus(WHOLE_SECOND));
    let (handed, deferred) = (row::known_code(Known::Handed), row::known_code(Known::Deferred));
    let values =
        params![about.key, first.millis(), last.millis(), handed, deferred, about.remote_id.is_none()];
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(values, |row| Candidate::read(row, about, kin))?;
    rows.filter_map(Result::transpose).collect()
}

impl Candidate {
    /// `None`: it was at an ESP of whose mail that one does not tell.
    fn read(row: &rusqlite::Row<'_>, about: About<'_>, kin: &Kin) -> rusqlite::Result<Option<Candidate>> {
        let esp: String = row.get(5)?;
        let Some((door, sender)) = door(&esp, about, kin) else { return Ok(None) };
        Ok(Some(Candidate {
            id: row::delivery_id(row, 0)?,
            attempt: AttemptId::from_number(row.get(2)?),
            begun_at: moment(row, 3)?,
            ended_at: Some(moment(row, 4)?),
            door,
            sender,
        }))
    }

    /// The attempt that it is out with, where that one may tell of it.
    fn out(of: &Queued, about: About<'_>, kin: &Kin) -> Option<Candidate> {
        let begun_at = of.begun_at.filter(|at| at.earlier(WHOLE_SECOND) <= about.at)?;
        let attempt = of.attempt_now().filter(|_| of.is_out() && of.key == about.key)?;
        let (door, sender) = door(of.esp.as_deref()?, about, kin)?;
        Some(Candidate { id: of.id, attempt, begun_at, ended_at: None, door, sender })
    }

    /// Whether the ESP can have taken it then.
    fn ran_at(&self, taken_at: Timestamp) -> bool {
        self.begun_at.earlier(WHOLE_SECOND) <= taken_at
            && self.ended_at.is_none_or(|ended| taken_at <= ended.plus(TAKEN_WITHIN))
    }
}

/// Where an attempt at that ESP was, and what stood as envelope sender there; `None`: the one that tells does not tell of it.
/// Only events without a place for our ids are about whatever mail an account sends.
fn door(esp: &str, about: About<'_>, kin: &Kin) -> Option<(Door, Option<String>)> {
    let entry = kin.senders.iter().find(|(name, _)| name == esp);
    let sender = entry.and_then(|(_, sender)| sender.clone());
    match entry {
        _ if esp == about.esp => Some((Door::Here, sender)),
        _ if about.mail.is_none() || kin.apart.iter().any(|name| name == esp) => None,
        Some(_) => Some((Door::Other, sender)),
        None => Some((Door::Gone, sender)),
    }
}

/// Whether another delivery may be meant as well as what was found: one that is out, or was taken by an answer that told no
/// id.
fn may_be_another(
    tx: &Tx<'_, '_>,
    about: About<'_>,
    kin: &Kin,
    found: DeliveryId,
    fits: Fit,
) -> rusqlite::Result<bool> {
    let mut others = Vec::new();
    for id in tx.shared.out_ids() {
        others.extend(tx.read(id)?.and_then(|row| Candidate::out(&row, about, kin)));
    }
    if about.remote_id.is_some() {
        others.extend(taken_lately(tx.conn, about, kin)?);
    }
    others.retain(|other| other.id != found);
    let judged = judged(tx.conn, others, about)?;
    Ok(judged.iter().any(|(fit, _)| *fit == Fit::Sure || (*fit != Fit::No && fits != Fit::Sure)))
}

/// Whether the candidate's call was of such mail: taken while it ran, for those and nobody else, from that sender; and
/// where it names its Message-ID, that one.
fn fit(conn: &Connection, candidate: &Candidate, about: About<'_>) -> rusqlite::Result<Fit> {
    let Some(mail) = about.mail else { return Ok(Fit::Yes) };
    if mail.taken_at.is_some_and(|at| !candidate.ran_at(at)) {
        return Ok(Fit::No);
    }
    let to_all = !mail.recipients.is_empty();
    if to_all && mail.recipients != recipients(conn, candidate)? {
        return Ok(Fit::No);
    }
    let own = Own::read(conn, candidate.id.message)?;
    match (&mail.message_id, &own.message_id) {
        (Some(told), Some(own)) if told == own => return Ok(Fit::Sure),
        (Some(_), Some(_)) => return Ok(Fit::No),
        _ => {}
    }
    let instead = |sender: &String| (candidate.sender.as_ref() == Some(sender)).then_some(true);
    let from_it = mail.sender.as_ref().and_then(|sender| instead(sender).or_else(|| own.is_from(sender)));
    Ok(match from_it {
        // With `envelope_from` it had another.
        Some(false) if candidate.door == Door::Gone => Fit::Perhaps,
        Some(false) => Fit::No,
        Some(true) if to_all && mail.taken_at.is_some() => Fit::Yes,
        _ => Fit::Perhaps,
    })
}

/// The keys of those whom that call was for and whom it did not refuse.
fn recipients(conn: &Connection, candidate: &Candidate) -> rusqlite::Result<BTreeSet<String>> {
    let (message, attempt) = (candidate.id.message, candidate.attempt);
    let answered: HashSet<u32> = conn
        .prepare_cached(
            "SELECT recipient FROM attempts WHERE message = ?1 AND attempt = ?2 AND outcome IN ('unsure', 'accepted')",
        )?
        .query_map(params![message.number(), attempt.number()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let of_call = |d: &Queued| d.attempt_now() == Some(attempt) || answered.contains(&d.id.recipient);
    Ok(deliveries(conn, message)?.into_iter().filter(of_call).map(|d| d.key).collect())
}

/// What a message of ours says of itself: an ESP names the envelope's sender or From, which of them depends on its door.
struct Own {
    sender: Option<String>,
    /// `None`: its body is gone, or cannot be read.
    from: Option<Vec<String>>,
    message_id: Option<String>,
}

impl Own {
    fn read(conn: &Connection, message: MessageId) -> rusqlite::Result<Own> {
        let envelope: Option<String> = conn
            .prepare_cached("SELECT sender FROM messages WHERE id = ?1")?
            .query_row([message.number()], |row| row.get(0))
            .optional()?;
        let sender = envelope.and_then(|text| Address::parse(&text, Grammar::Lenient).ok());
        let head = bodies::head(conn, message, u64::MAX)?.flatten();
        Ok(Own {
            sender: sender.map(|address| address.key()),
            from: head.as_deref().map(from_keys),
            message_id: head.as_deref().and_then(|head| message_id(fields(head))),
        })
    }

    /// `None`: nobody can say any more.
    fn is_from(&self, sender: &String) -> Option<bool> {
        if self.sender.as_ref() == Some(sender) {
            return Some(true);
        }
        self.from.as_ref().map(|from| from.contains(sender))
    }
}

/// [`Unlabelled`] in its column.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Written {
    sender: Option<String>,
    taken_at: Option<i64>,
    recipients: BTreeSet<String>,
    message_id: Option<String>,
}

/// The mail that such an event is about, for its row.
pub(super) fn written(mail: &Unlabelled) -> Option<String> {
    let written = Written {
        sender: mail.sender.clone(),
        taken_at: mail.taken_at.map(Timestamp::millis),
        recipients: mail.recipients.iter().take(RECIPIENTS_MAX).cloned().collect(),
        message_id: mail.message_id.clone(),
    };
    serde_json::to_string(&written).ok()
}

/// What cannot be read says nothing of its mail.
pub(super) fn read_back(column: &str) -> Unlabelled {
    let written: Written = serde_json::from_str(column).unwrap_or_default();
    Unlabelled {
        sender: written.sender,
        taken_at: written.taken_at.map(Timestamp::from_millis),
        recipients: written.recipients,
        message_id: written.message_id,
    }
}
