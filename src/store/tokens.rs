//! The bearer tokens of the HTTP API: what each may do. Their text is never here, only its hash.

use rusqlite::{OptionalExtension, Row, params};

use super::Store;
use super::row::integer;
use super::tx::Tx;
use super::types::{NewToken, StoreError};
use super::views::Token;
use super::waiting::Lane;
use crate::clock::Timestamp;

/// Octets of a token's hash (SHA-256).
pub const TOKEN_HASH_OCTETS: usize = 32;

const COLUMNS: &str = "id, name, scopes, created_at, used_at";

impl Store {
    /// Keeps a new token.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`] (also where that hash is kept already),
    /// [`StoreError::Stopping`]; it was not kept then.
    pub async fn add_token(&self, token: NewToken) -> Result<Token, StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| {
            tx.conn
                .prepare_cached(
                    "INSERT INTO tokens (hash, name, scopes, created_at) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![token.hash, token.name, token.scopes, tx.now.millis()])?;
            let (id, created_at) = (tx.conn.last_insert_rowid(), tx.now);
            Ok(Token {
                id,
                name: token.name.clone(),
                scopes: token.scopes.clone(),
                created_at,
                used_at: None,
            })
        };
        self.shared.queue.run(Lane::Mail, 1, run).await
    }

    /// The token of that hash. Reads at once, on this thread: it takes microseconds.
    ///
    /// Errors: [`StoreError::Failed`].
    pub fn token(&self, hash: &[u8; TOKEN_HASH_OCTETS]) -> Result<Option<Token>, StoreError> {
        let found = self.shared.readers.run(|conn| {
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1"))?
                .query_row([&hash[..]], read)
                .optional()
        });
        found.map_err(|error| super::store_error(&error))
    }

    /// At most `limit` tokens whose id is above `after`, in the order in which they were made.
    ///
    /// Errors: [`StoreError::Failed`].
    pub async fn tokens(&self, after: i64, limit: usize) -> Result<Vec<Token>, StoreError> {
        self.read(move |conn| {
            let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id > ?1 ORDER BY id LIMIT ?2");
            conn.prepare_cached(&sql)?.query_map(params![after, integer(limit)], read)?.collect()
        })
        .await
    }

    /// Takes a token back; whether there was one.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; it is good still then. May be
    /// run again.
    pub async fn revoke_token(&self, id: i64) -> Result<bool, StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| {
            Ok(tx.conn.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([id])? > 0)
        };
        self.shared.queue.run(Lane::Mail, 1, run).await
    }

    /// Notes when a token was last used.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]. May be run again.
    pub async fn note_token_use(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        let run = move |tx: &mut Tx<'_, '_>| {
            tx.conn
                .prepare_cached("UPDATE tokens SET used_at = ?2 WHERE id = ?1")?
                .execute(params![id, at.millis()])
                .map(|_| ())
        };
        self.shared.queue.run(Lane::Bulk, 1, run).await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: row.get(2)?,
        created_at: Timestamp::from_millis(row.get(3)?),
        used_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
    })
}
