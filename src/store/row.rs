//! How the nouns stand in the tables: the delivery's row and its states as numbers, words, JSON columns.

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::delivery::{Delivery, Mark, Open, PausedFrom};
use crate::mail::{
    AttemptId, DeliveryId, Known, MessageId, Owner, Protocol, QueueState, Reason, ReversePath, Source,
    StreamKind,
};

/// `email_sends.state`.
pub(super) mod state {
    pub const WAITING: i64 = 0;
    pub const OUT: i64 = 1;
    pub const UNSURE: i64 = 2;
    pub const PAUSED: i64 = 3;
    pub const PAUSED_UNSURE: i64 = 4;
    pub const DONE: i64 = 5;
}

/// SQLite's integers have a sign.
pub(super) fn integer(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// Which lane a delivery moves in.
pub(super) type LaneId = i64;

/// One row of `email_sends` with what the state functions need, and what they do not change.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub id: DeliveryId,
    /// `open` is empty here; whoever needs it counts them in the journal.
    pub delivery: Delivery,
    /// When it was due or held until, also while it is paused; when it became Done.
    pub at: Timestamp,
    pub lane: LaneId,
    /// Attempts begun.
    pub tries: u32,
    /// Rounds that ended with a wait.
    pub rounds: u32,
    pub octets: u64,
    pub begun_at: Option<Timestamp>,
    pub esp: Option<String>,
    /// The recipient's key.
    pub key: String,
}

/// How many columns [`QUEUED`] has.
pub(super) const QUEUED_COLUMNS: usize = 18;
/// The columns of [`Queued`], in its order.
pub(super) const QUEUED: &str = "message, recipient, state, at, known, reason, mark, owner, attempt, lane, tries, \
                                 octets, begun_at, esp, coalesce(key, address), unbound, unable_since, rounds";

impl Queued {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Queued> {
        let at = moment(row, 3)?;
        let owner = row.get::<_, Option<i64>>(7)?.unwrap_or_default();
        let attempt = row.get::<_, Option<i64>>(8)?.unwrap_or_default();
        let delivery = Delivery {
            state: read_state(row.get(2)?, at, owner, attempt),
            known: known(row.get(4)?),
            reason: row.get::<_, Option<i64>>(5)?.and_then(reason),
            mark: mark(row.get(6)?),
            open: Open::default(),
            unbound: row.get(15)?,
            unable_since: row.get::<_, Option<i64>>(16)?.map(Timestamp::from_millis),
        };
        Ok(Queued {
            id: delivery_id(row, 0)?,
            delivery,
            at,
            lane: row.get(9)?,
            tries: row.get(10)?,
            rounds: row.get(17)?,
            octets: row.get::<_, i64>(11)?.unsigned_abs(),
            begun_at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_millis),
            esp: row.get(13)?,
            key: row.get(14)?,
        })
    }

    pub(super) fn is_out(&self) -> bool {
        matches!(self.delivery.state, QueueState::Out { .. })
    }

    /// The attempt that it is out with, or is held for.
    pub(super) fn attempt_now(&self) -> Option<AttemptId> {
        match self.delivery.state {
            QueueState::Out { attempt, .. }
            | QueueState::Unsure { attempt, .. }
            | QueueState::Paused { from: PausedFrom::Unsure { attempt, .. } } => Some(attempt),
            QueueState::Waiting { .. }
            | QueueState::Paused { from: PausedFrom::Waiting }
            | QueueState::Done => None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.delivery.state == QueueState::Done
    }
}

/// A message's deliveries as they stand on that connection, by their place in the envelope.
pub(super) fn deliveries(conn: &Connection, message: MessageId) -> rusqlite::Result<Vec<Queued>> {
    let sql = format!("SELECT {QUEUED} FROM email_sends WHERE message = ?1 ORDER BY recipient");
    conn.prepare_cached(&sql)?.query_map([message.number()], Queued::read)?.collect()
}

/// `message, recipient` from column `first` on.
pub(super) fn delivery_id(row: &Row<'_>, first: usize) -> rusqlite::Result<DeliveryId> {
    Ok(DeliveryId { message: MessageId::from_number(row.get(first)?), recipient: row.get(first + 1)? })
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn read_state(code: i64, at: Timestamp, owner: i64, attempt: i64) -> QueueState {
    let attempt = AttemptId::from_number(attempt);
    match code {
        state::WAITING => QueueState::Waiting { due: at },
        state::OUT => QueueState::Out { owner: Owner::from_number(owner), attempt },
        state::UNSURE => QueueState::Unsure { attempt, until: at },
        state::PAUSED => QueueState::Paused { from: PausedFrom::Waiting },
        state::PAUSED_UNSURE => QueueState::Paused { from: PausedFrom::Unsure { attempt, until: at } },
        _ => QueueState::Done,
    }
}

/// A state as its columns: state, at (`None`: as it was), owner, attempt (`None`: as it was).
pub(super) struct StateColumns {
    pub code: i64,
    pub at: Option<i64>,
    pub owner: Option<i64>,
    pub attempt: Option<i64>,
}

/// `now` is when a delivery became Done.
pub(super) fn state_columns(to: QueueState, now: Timestamp) -> StateColumns {
    let columns =
        |code, at: Option<Timestamp>, owner: Option<Owner>, attempt: Option<AttemptId>| StateColumns {
            code,
            at: at.map(Timestamp::millis),
            owner: owner.map(Owner::number),
            attempt: attempt.map(AttemptId::number),
        };
    match to {
        QueueState::Waiting { due } => columns(state::WAITING, Some(due), None, None),
        QueueState::Out { owner, attempt } => columns(state::OUT, None, Some(owner), Some(attempt)),
        QueueState::Unsure { attempt, until } => columns(state::UNSURE, Some(until), None, Some(attempt)),
        QueueState::Paused { from: PausedFrom::Waiting } => columns(state::PAUSED, None, None, None),
        QueueState::Paused { from: PausedFrom::Unsure { attempt, until } } => {
            columns(state::PAUSED_UNSURE, Some(until), None, Some(attempt))
        }
        QueueState::Done => columns(state::DONE, Some(now), None, None),
    }
}

/// `attempts.outcome` of an open attempt.
pub(super) const UNSURE_WORD: &str = "unsure";

/// The codes of a state's word, as `Filter::states` and metrics have it.
pub(super) fn state_codes(word: &str) -> &'static [i64] {
    match word {
        "waiting" => &[state::WAITING],
        "out" => &[state::OUT],
        "unsure" => &[state::UNSURE],
        "paused" => &[state::PAUSED, state::PAUSED_UNSURE],
        "done" => &[state::DONE],
        _ => &[],
    }
}

/// The word of a state's code.
pub(super) fn state_word(code: i64) -> &'static str {
    match code {
        state::WAITING => "waiting",
        state::OUT => "out",
        state::UNSURE => "unsure",
        state::PAUSED | state::PAUSED_UNSURE => "paused",
        _ => "done",
    }
}

pub(super) fn known_code(known: Known) -> i64 {
    match known {
        Known::Nothing => 0,
        Known::Handed => 1,
        Known::Deferred => 2,
        Known::Delivered => 3,
        Known::Bounced => 4,
        Known::Complained => 5,
    }
}

fn known(code: i64) -> Known {
    match code {
        0 => Known::Nothing,
        1 => Known::Handed,
        2 => Known::Deferred,
        3 => Known::Delivered,
        4 => Known::Bounced,
        _ => Known::Complained,
    }
}

pub(super) fn reason_code(reason: Reason) -> i64 {
    match reason {
        Reason::Suppressed => 0,
        Reason::Expired => 1,
        Reason::Removed => 2,
        Reason::Assumed => 3,
        Reason::Refused => 4,
    }
}

fn reason(code: i64) -> Option<Reason> {
    [Reason::Suppressed, Reason::Expired, Reason::Removed, Reason::Assumed, Reason::Refused]
        .into_iter()
        .find(|r| reason_code(*r) == code)
}

pub(super) fn mark_code(mark: Mark) -> i64 {
    match mark {
        Mark::None => 0,
        Mark::Pause => 1,
        Mark::Remove => 2,
    }
}

fn mark(code: i64) -> Mark {
    match code {
        1 => Mark::Pause,
        2 => Mark::Remove,
        _ => Mark::None,
    }
}

pub(super) fn kind_code(kind: StreamKind) -> i64 {
    match kind {
        StreamKind::Transactional => 0,
        StreamKind::Broadcast => 1,
    }
}

pub(super) fn kind(code: i64) -> StreamKind {
    match code {
        0 => StreamKind::Transactional,
        _ => StreamKind::Broadcast,
    }
}

/// The kind as a suppression's scope names it.
pub(super) fn kind_word(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Transactional => "transactional",
        StreamKind::Broadcast => "broadcast",
    }
}

/// An address that was one when it was written.
pub(super) fn address(wire: &str) -> Result<Address, crate::address::AddressError> {
    Address::parse(wire, Grammar::Lenient).or_else(|error| match wire.contains('@') {
        true => Err(error),
        false => Address::bare(wire, Grammar::Lenient),
    })
}

pub(super) fn sender(wire: &str) -> Result<ReversePath, crate::address::AddressError> {
    match wire {
        "" => Ok(ReversePath::Null),
        wire => address(wire).map(ReversePath::Mailbox),
    }
}

/// `messages.source`.
#[derive(Serialize, Deserialize)]
struct SourceColumn<'a> {
    listener: std::borrow::Cow<'a, str>,
    peer: std::net::IpAddr,
    helo: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    credential: Option<std::borrow::Cow<'a, str>>,
    with: std::borrow::Cow<'a, str>,
}

pub(super) fn source_column(source: &Source) -> String {
    let column = SourceColumn {
        listener: source.listener.as_str().into(),
        peer: source.peer,
        helo: source.helo.as_str().into(),
        credential: source.credential.as_deref().map(Into::into),
        with: source.protocol.with().into(),
    };
    serde_json::to_string(&column).unwrap_or_default()
}

pub(super) fn source(column: &str) -> Result<Source, serde_json::Error> {
    let column: SourceColumn<'_> = serde_json::from_str(column)?;
    Ok(Source {
        listener: column.listener.into_owned(),
        peer: column.peer,
        helo: column.helo.into_owned(),
        credential: column.credential.map(std::borrow::Cow::into_owned),
        protocol: protocol(&column.with),
    })
}

fn protocol(with: &str) -> Protocol {
    let esmtp = |tls, auth, utf8| Protocol::Esmtp { tls, auth, utf8 };
    let all = [false, true].into_iter().flat_map(|tls| {
        [false, true].into_iter().flat_map(move |auth| [esmtp(tls, auth, false), esmtp(tls, auth, true)])
    });
    all.chain([Protocol::Http, Protocol::Report]).find(|p| p.with() == with).unwrap_or(Protocol::Smtp)
}

/// A list as JSON; an empty one takes no room.
pub(super) fn list_column<T: Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { serde_json::to_string(list).ok() }
}

pub(super) fn list<T: for<'a> Deserialize<'a>>(column: Option<String>) -> Result<Vec<T>, serde_json::Error> {
    column.map_or_else(|| Ok(Vec::new()), |c| serde_json::from_str(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_come_back_as_they_were() {
        for k in [Known::Nothing, Known::Handed, Known::Deferred, Known::Delivered, Known::Bounced] {
            assert_eq!(known(known_code(k)), k);
        }
        for r in [Reason::Suppressed, Reason::Expired, Reason::Removed, Reason::Assumed, Reason::Refused] {
            assert_eq!(reason(reason_code(r)), Some(r));
        }
        for m in [Mark::None, Mark::Pause, Mark::Remove] {
            assert_eq!(mark(mark_code(m)), m);
        }
        for word in ["waiting", "out", "unsure", "paused", "done"] {
            assert!(state_codes(word).iter().all(|code| state_word(*code) == word));
        }
    }

    #[test]
    fn a_source_survives_its_column() {
        for with in ["SMTP", "ESMTP", "ESMTPSA", "UTF8SMTPA", "HTTP", "REPORT"] {
            let given = Source {
                listener: "in".into(),
                peer: "::1".parse().unwrap(),
                helo: "quote \" back \\ ü".into(),
                credential: Some("app".into()),
                protocol: protocol(with),
            };
            assert_eq!(given.protocol.with(), with);
            assert_eq!(source(&source_column(&given)).unwrap(), given);
        }
    }
}
