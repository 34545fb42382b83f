-- Bearer tokens of the HTTP API. Only the SHA-256 of a token is kept; a revoked one is gone, and its id is not used again.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    hash       BLOB    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;

-- Keys under which an app's message is taken once: who repeats it gets the first one's id.
CREATE TABLE once_keys (
    scope   TEXT    NOT NULL, -- whose key it is
    key     TEXT    NOT NULL,
    message INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX once_keys_at ON once_keys (at);
