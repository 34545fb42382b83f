-- Times are milliseconds since 1970-01-01T00:00:00Z. Ids are the 63-bit numbers behind the short texts.
-- The rows of the path of every message stay small and enter no index: an accept that begins and its settle touch
-- messages, bodies, email_sends and attempts, each at its end.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- Stream × pin: what moves together. Few rows; deliveries carry the number.
CREATE TABLE lanes (
    id     INTEGER PRIMARY KEY,
    stream TEXT    NOT NULL,
    kind   INTEGER NOT NULL, -- 0 transactional, 1 broadcast
    pin    TEXT    NOT NULL, -- an ESP's name, or empty
    UNIQUE (stream, kind, pin)
) STRICT;

CREATE TABLE messages (
    id           INTEGER PRIMARY KEY,
    lane         INTEGER NOT NULL,
    sender       TEXT    NOT NULL, -- wire form; empty for <>
    recipients   INTEGER NOT NULL, -- how many
    body_kind    INTEGER NOT NULL, -- 0 7BIT, 1 8BITMIME
    smtputf8     INTEGER NOT NULL,
    size         INTEGER NOT NULL, -- octets
    longest_line INTEGER NOT NULL, -- octets
    eight_bit    INTEGER NOT NULL,
    chunks       INTEGER NOT NULL, -- of body_chunks
    chunk_octets INTEGER NOT NULL,
    accepted_at  INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    source       TEXT    NOT NULL, -- JSON
    tags         TEXT,             -- JSON
    metadata     TEXT              -- JSON
) STRICT;

CREATE TABLE bodies (
    message INTEGER PRIMARY KEY,
    bytes   BLOB NOT NULL
) STRICT;

CREATE TABLE body_chunks (
    message INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    bytes   BLOB    NOT NULL,
    PRIMARY KEY (message, n)
) STRICT, WITHOUT ROWID;

-- The delivery: one message to one recipient.
-- state: 0 waiting, 1 out, 2 unsure, 3 paused (was waiting), 4 paused (was unsure), 5 done
-- at:    waiting: due · unsure, paused from unsure: end of the hold · out: what it was before · done: when
CREATE TABLE email_sends (
    message   INTEGER NOT NULL,
    recipient INTEGER NOT NULL, -- its place in the envelope
    state     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    lane      INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL,
    tries     INTEGER NOT NULL,
    known     INTEGER NOT NULL, -- 0 nothing .. 5 complained
    reason    INTEGER,          -- 0 suppressed, 1 expired, 2 removed, 3 assumed, 4 refused
    mark      INTEGER NOT NULL, -- 0 none, 1 pause, 2 remove
    octets    INTEGER NOT NULL, -- its share of the message, for queue_bytes
    owner     INTEGER,
    attempt   INTEGER,
    begun_at  INTEGER,
    esp       TEXT,             -- of its latest attempt
    address   TEXT    NOT NULL, -- wire form
    key       TEXT,             -- where it differs from the wire form
    PRIMARY KEY (message, recipient)
) STRICT, WITHOUT ROWID;

-- What may be claimed, lane by lane.
CREATE INDEX email_sends_due ON email_sends (lane, at, state) WHERE state IN (0, 2);
-- What has an end, whatever its lane.
CREATE INDEX email_sends_end ON email_sends (ends_at, lane, state, octets) WHERE state IN (0, 2, 3, 4);

-- Written with the answer, or when it becomes unsure: until then the delivery's row is the record of what is begun.
CREATE TABLE attempts (
    message     INTEGER NOT NULL,
    recipient   INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    esp         TEXT    NOT NULL,
    begun_at    INTEGER NOT NULL,
    answered_at INTEGER NOT NULL,
    outcome     TEXT    NOT NULL, -- accepted, refused, unfit, unsure
    fault       TEXT,
    lasting     INTEGER,
    phase       TEXT,
    remote_id   TEXT,
    said        TEXT    NOT NULL,
    crashed     INTEGER NOT NULL, -- unsure only because the relay went down
    PRIMARY KEY (message, recipient, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    message    INTEGER,
    recipient  INTEGER,
    attempt    INTEGER,
    esp        TEXT,
    kind       TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    event_key  TEXT, -- one event is taken once
    remote_id  TEXT,
    raw        BLOB,
    detail     TEXT,
    confidence REAL
) STRICT;

CREATE INDEX events_message ON events (message) WHERE message IS NOT NULL;
CREATE UNIQUE INDEX events_key ON events (event_key) WHERE event_key IS NOT NULL;

CREATE TABLE suppressions (
    key        TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    scope      TEXT    NOT NULL, -- a stream's kind or name; empty: every stream
    source     TEXT    NOT NULL,
    evidence   TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (key, scope, reason)
) STRICT, WITHOUT ROWID;
