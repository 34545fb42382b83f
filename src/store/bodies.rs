//! Message content on disk: bodies, and the chunks of those too large for memory.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::packed::read_kept;
use super::refused::store_error;
use super::reports;
use super::row::{self, kind};
use super::tx::Tx;
use super::types::StoreError;
use super::waiting::Lane;
use crate::clock::Timestamp;
use crate::mail::body::Spilled;
use crate::mail::{Body, BodyFacts, BodyKind, Envelope, Message, MessageId, StreamName};

/// A chunk weighs as much as so many rows when groups are bounded.
const CHUNK_ROWS: usize = 32;

impl Store {
    /// Writes piece `n` (from 0) of a message that is still arriving. It is nobody's until [`Store::accept`]
    /// refers to it; what was never referred to is swept at the next start.
    ///
    /// Errors: [`StoreError::Full`] (also below `min_free`), [`StoreError::Failed`], [`StoreError::Stopping`]; the
    /// piece was not kept then. May be run again with the same bytes.
    pub async fn spill(&self, message: MessageId, n: u32, bytes: Bytes) -> Result<(), StoreError> {
        let piece = self.shared.packers.pack(&bytes).await;
        let run = move |tx: &mut Tx<'_, '_>| {
            if let Err(full) = tx.shared.space.take(piece.octets.len() as u64) {
                return Ok(Err(full));
            }
            tx.conn
                .prepare_cached(
                    "INSERT OR REPLACE INTO body_chunks (message, n, bytes, unpacked) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![message.number(), n, &piece.octets[..], piece.unpacked])?;
            Ok(Ok(()))
        };
        self.shared.queue.run(Lane::Mail, CHUNK_ROWS, run).await?
    }

    /// Takes away the pieces of a message that was not accepted; those of an accepted one stay.
    ///
    /// Errors: [`StoreError::Failed`], [`StoreError::Stopping`]; the next start sweeps them. May be run again.
    pub async fn discard(&self, message: MessageId) -> Result<(), StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| {
            tx.conn
                .prepare_cached(
                    "DELETE FROM body_chunks WHERE message = ?1
                     AND NOT EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
                )?
                .execute([message.number()])
                .map(|_| ())
        };
        self.shared.queue.run(Lane::Mail, CHUNK_ROWS, run).await
    }

    /// Piece `n` of a message, for sending.
    ///
    /// Errors: [`StoreError::Failed`], also where there is no such piece. May be run again.
    pub async fn chunk(&self, message: MessageId, n: u32) -> Result<Bytes, StoreError> {
        let read = move |conn: &Connection| {
            conn.prepare_cached("SELECT bytes, unpacked FROM body_chunks WHERE message = ?1 AND n = ?2")?
                .query_row(params![message.number(), n], |row| read_kept(row, 0, u64::MAX))
                .optional()
        };
        match self.read(read).await? {
            None => Err(StoreError::Failed(format!("message {message} has no piece {n}"))),
            Some(None) => {
                Err(StoreError::Failed(format!("message {message}: its piece {n} cannot be read back")))
            }
            Some(Some(octets)) => Ok(octets),
        }
    }
}

/// Takes away what arrived in part before the last stop.
pub(super) fn sweep_orphans(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute(
        "DELETE FROM body_chunks WHERE message IN
             (SELECT DISTINCT message FROM body_chunks WHERE message NOT IN (SELECT id FROM messages))",
        [],
    )
    .map(|_| ())
}

/// One row of `messages` with its lane, as it was accepted, without its body.
pub(super) const MESSAGE: &str =
    "SELECT m.sender, m.body_kind, m.smtputf8, m.size, m.longest_line, m.eight_bit, m.chunks, m.chunk_octets,
         m.accepted_at, m.expires_at, m.source, m.tags, m.metadata, l.stream, l.kind, l.pin, m.reports
     FROM messages m JOIN lanes l ON l.id = m.lane WHERE m.id = ?1";

/// The message and the first part of its body; `None`: not there, or its body is gone.
pub(super) fn load_message(conn: &Connection, id: MessageId) -> Result<Option<Message>, StoreError> {
    let Some(mut message) = read_message(conn, id)? else { return Ok(None) };
    let octets =
        message.body.facts.size_octets.saturating_sub(message.body.rest.map_or(0, |rest| rest.octets));
    match head(conn, id, octets).map_err(|error| store_error(&error))? {
        None => Ok(None),
        Some(None) => Err(StoreError::Failed(format!("message {id}: its content cannot be read back"))),
        Some(Some(head)) => {
            message.body.head = head;
            Ok(Some(message))
        }
    }
}

/// The first part of a message's body, of at most so many octets; `None`: it is gone, `Some(None)`: it cannot be read back.
pub(super) fn head(
    conn: &Connection,
    id: MessageId,
    most_octets: u64,
) -> rusqlite::Result<Option<Option<Bytes>>> {
    conn.prepare_cached("SELECT bytes, unpacked FROM bodies WHERE message = ?1")?
        .query_row([id.number()], |row| read_kept(row, 0, most_octets))
        .optional()
}

/// The message with an empty `body.head`.
pub(super) fn read_message(conn: &Connection, id: MessageId) -> Result<Option<Message>, StoreError> {
    let row = (|| {
        let row = conn.prepare_cached(MESSAGE)?.query_row([id.number()], MessageRow::read).optional()?;
        let mut statement =
            conn.prepare_cached("SELECT address FROM email_sends WHERE message = ?1 ORDER BY recipient")?;
        let recipients =
            statement.query_map([id.number()], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok(row.map(|row| (row, recipients)))
    })();
    match row.map_err(|error: rusqlite::Error| store_error(&error))? {
        None => Ok(None),
        Some((row, recipients)) => row.message(id, &recipients).map(Some),
    }
}

struct MessageRow {
    sender: String,
    eight_bit_mime: bool,
    smtputf8: bool,
    facts: BodyFacts,
    chunks: u32,
    chunk_octets: u64,
    accepted_at: Timestamp,
    expires_at: Timestamp,
    source: String,
    tags: Option<String>,
    metadata: Option<String>,
    stream: String,
    kind: i64,
    pin: String,
    reports: Option<String>,
}

impl MessageRow {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let octets = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(MessageRow {
            sender: row.get(0)?,
            eight_bit_mime: row.get(1)?,
            smtputf8: row.get(2)?,
            facts: BodyFacts {
                size_octets: octets(3)?,
                longest_line_octets: octets(4)?,
                eight_bit: row.get(5)?,
            },
            chunks: row.get(6)?,
            chunk_octets: octets(7)?,
            accepted_at: row::moment(row, 8)?,
            expires_at: row::moment(row, 9)?,
            source: row.get(10)?,
            tags: row.get(11)?,
            metadata: row.get(12)?,
            stream: row.get(13)?,
            kind: row.get(14)?,
            pin: row.get(15)?,
            reports: row.get(16)?,
        })
    }

    fn message(self, id: MessageId, recipients: &[String]) -> Result<Message, StoreError> {
        let bad = |what: &str| StoreError::Failed(format!("message {id}: its {what} cannot be read back"));
        let rest = Spilled { message: id, chunks: self.chunks, octets: self.chunk_octets };
        Ok(Message {
            id,
            envelope: Envelope {
                sender: row::sender(&self.sender).map_err(|_| bad("sender"))?,
                recipients: recipients
                    .iter()
                    .map(|wire| row::address(wire))
                    .collect::<Result<_, _>>()
                    .map_err(|_| bad("recipients"))?,
                body: if self.eight_bit_mime { BodyKind::EightBit } else { BodyKind::SevenBit },
                smtputf8: self.smtputf8,
                reports: self
                    .reports
                    .map(|text| reports::asks(&text).map(Box::new))
                    .transpose()
                    .map_err(|_| bad("reports"))?,
            },
            stream: StreamName::new(&self.stream),
            kind: kind(self.kind),
            body: Body {
                head: Bytes::new(),
                rest: (self.chunks > 0).then_some(rest),
                facts: self.facts,
                permit: None,
            },
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            tags: row::list(self.tags).map_err(|_| bad("tags"))?,
            metadata: row::list(self.metadata).map_err(|_| bad("metadata"))?,
            pin: (!self.pin.is_empty()).then_some(self.pin),
            source: row::source(&self.source).map_err(|_| bad("source"))?,
        })
    }
}
