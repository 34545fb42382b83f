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
use super::types::ToldEvent;
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::event::Unlabelled;
use crate::mail::from::from_keys;
use crate::mail::headers::{fields, message_id};
use crate::mail::{AttemptId, DeliveryId, Known, MessageId};

/// Open attempts at an ESP for a recipient that are compared: where there are more, none is taken.
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
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// What an event without our ids is known by.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub esp: &'a str,
    /// The recipient's key.
    pub key: &'a str,
    pub at: Timestamp,
    /// It has an id of the ESP's: what was taken would have been found by that.
    pub has_id: bool,
    /// What it says of the mail, where its form has no place for our ids.
    pub mail: Option<&'a Unlabelled>,
}

/// An attempt that may be meant.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: DeliveryId,
    attempt: AttemptId,
    begun_at: Timestamp,
    /// When its answer came, or was given up; `None`: it is out.
    ended_at: Option<Timestamp>,
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
    meant(tx, About { esp, key: &key, at: event.at, has_id: event.remote_id.is_some(), mail })
}

/// The one attempt that fits: one whose answer was lost, or one that was taken lately and of which nothing final is known;
/// `None` as well where one that is out may be meant, whose answer will say so.
pub(super) fn meant(tx: &Tx<'_, '_>, about: About<'_>) -> rusqlite::Result<Option<(DeliveryId, AttemptId)>> {
    let mut all = open(tx.conn, about)?;
    if all.len() > OPEN_MAX {
        return Ok(None);
    }
    if !about.has_id {
        all.extend(taken_lately(tx.conn, about)?);
    }
    let mut fitting = Vec::with_capacity(all.len());
    for candidate in all {
        fitting.push((fit(tx.conn, candidate, about)?, candidate));
    }
    let Some((fit, found)) = one_of(fitting) else { return Ok(None) };
    let taken = !is_one_out(tx, about, found.id, fit)?;
    Ok(taken.then_some((found.id, found.attempt)))
}

/// The one that fits best, unless another delivery's may be meant as well; of several of one delivery the latest.
fn one_of(mut fitting: Vec<(Fit, Candidate)>) -> Option<(Fit, Candidate)> {
    let sure = fitting.iter().any(|(fit, _)| *fit == Fit::Sure);
    fitting.retain(|(fit, _)| if sure { *fit == Fit::Sure } else { *fit != Fit::No });
    let (fit, found) = fitting.iter().copied().max_by_key(|(fit, candidate)| (*fit, candidate.begun_at))?;
    let alone = fitting.iter().all(|(_, other)| other.id == found.id);
    (alone && fit >= Fit::Yes).then_some((fit, found))
}

/// Those without an answer that were begun before it was told; one more than are compared, where there are so many.
fn open(conn: &Connection, about: About<'_>) -> rusqlite::Result<Vec<Candidate>> {
    let sql = format!(
        "SELECT message, recipient, attempt, begun_at, answered_at FROM attempts
         WHERE outcome = 'unsure' AND esp = ?1 AND key = ?2 AND begun_at <= ?3 LIMIT {}",
        OPEN_MAX + 1
    );
    let last = about.at.plus(WHOLE_SECOND);
    conn.prepare_cached(&sql)?
        .query_map(params![about.esp, about.key, last.millis()], Candidate::read)?
        .collect()
}

/// At most two: more say no more.
fn taken_lately(conn: &Connection, about: About<'_>) -> rusqlite::Result<Vec<Candidate>> {
    let sql = format!(
        "SELECT a.message, a.recipient, a.attempt, a.begun_at, a.answered_at FROM
             (SELECT * FROM attempts ORDER BY message DESC LIMIT {LATELY_MAX}) AS a
             JOIN email_sends AS d ON d.message = a.message AND d.recipient = a.recipient
         WHERE a.esp = ?1 AND a.outcome = 'accepted' AND a.earlier = 0 AND a.begun_at BETWEEN ?3 AND ?4
             AND coalesce(d.key, d.address) = ?2 AND d.known IN (?5, ?6)
         LIMIT 2"
    );
    let (first, last) = (about.at.earlier(LATELY), about.at.plus(WHOLE_SECOND));
    let (handed, deferred) = (row::known_code(Known::Handed), row::known_code(Known::Deferred));
    conn.prepare_cached(&sql)?
        .query_map(
            params![about.esp, about.key, first.millis(), last.millis(), handed, deferred],
            Candidate::read,
        )?
        .collect()
}

impl Candidate {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Candidate> {
        Ok(Candidate {
            id: row::delivery_id(row, 0)?,
            attempt: AttemptId::from_number(row.get(2)?),
            begun_at: moment(row, 3)?,
            ended_at: Some(moment(row, 4)?),
        })
    }

    /// The attempt that it is out with, at that ESP.
    fn out(of: &Queued, about: About<'_>) -> Option<Candidate> {
        let begun_at = of.begun_at.filter(|at| at.earlier(WHOLE_SECOND) <= about.at)?;
        let fits = of.is_out() && of.key == about.key && of.esp.as_deref() == Some(about.esp);
        let attempt = of.attempt_now().filter(|_| fits)?;
        Some(Candidate { id: of.id, attempt, begun_at, ended_at: None })
    }

    /// Whether the ESP can have taken it then.
    fn ran_at(&self, taken_at: Timestamp) -> bool {
        self.begun_at.earlier(WHOLE_SECOND) <= taken_at
            && self.ended_at.is_none_or(|ended| taken_at <= ended.plus(TAKEN_WITHIN))
    }
}

/// Whether another delivery is out that may be meant as well as what was found.
fn is_one_out(tx: &Tx<'_, '_>, about: About<'_>, but: DeliveryId, found: Fit) -> rusqlite::Result<bool> {
    for id in tx.shared.out_ids() {
        if id == but {
            continue;
        }
        let Some(out) = tx.read(id)?.and_then(|row| Candidate::out(&row, about)) else { continue };
        let fit = fit(tx.conn, out, about)?;
        if fit == Fit::Sure || (fit != Fit::No && found != Fit::Sure) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the candidate's call was of such mail: taken while it ran, for those and nobody else, from that sender; and
/// where it names its Message-ID, that one.
fn fit(conn: &Connection, candidate: Candidate, about: About<'_>) -> rusqlite::Result<Fit> {
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
    let from_it = mail.sender.as_ref().and_then(|sender| own.is_from(sender));
    Ok(match from_it {
        Some(false) => Fit::No,
        Some(true) if to_all => Fit::Yes,
        _ => Fit::Perhaps,
    })
}

/// The keys of those whom that call was for and whom it did not refuse.
fn recipients(conn: &Connection, candidate: Candidate) -> rusqlite::Result<BTreeSet<String>> {
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
