-- A database as the first version with migrations wrote it: its schema, and a row of each kind. @NOW@ is the present in
-- milliseconds, @ID@ a message id of that moment. Never edited: what it holds must open with every later version.
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
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

INSERT INTO meta VALUES ('alive', @NOW@ - 60000), ('out_from', 0), ('probed_at', @NOW@ - 60000);
INSERT INTO lanes VALUES (1, 'transactional', 0, ''), (2, 'broadcast', 1, ''), (3, 'transactional', 0, 'up1');

-- 1 waits, for one of whom it may be mailed no more; 2 was out when the relay went down; 3 is held; 4 is paused, 5 paused
-- from a hold; 6 is done; 7 bounced; 8 is large, broadcast, with a body in pieces; 9 is pinned.
INSERT INTO messages
SELECT @ID@ + n, lane, 'app@example.org', recipients, 1, 0, size, 60, 0, chunks, chunk_octets, @NOW@ - 120000,
    @NOW@ + 86400000, '{"listener":"127.0.0.1:2525","peer":"127.0.0.1","helo":"app","with":"ESMTP"}',
    CASE n WHEN 1 THEN '["welcome"]' END, CASE n WHEN 1 THEN '[["order","17"]]' END
FROM (
    SELECT column1 AS n, column2 AS lane, column3 AS recipients, column4 AS size, column5 AS chunks,
        column6 AS chunk_octets
    FROM (VALUES (1, 1, 2, 86, 0, 0), (2, 1, 1, 86, 0, 0), (3, 1, 1, 86, 0, 0), (4, 1, 1, 86, 0, 0),
        (5, 1, 1, 86, 0, 0), (6, 1, 1, 86, 0, 0), (7, 1, 1, 86, 0, 0), (8, 2, 1, 106, 2, 20), (9, 3, 1, 86, 0, 0))
);
INSERT INTO bodies
SELECT id, CAST(replace('From: <app@example.org>|To: <x@example.com>|Subject: first ' || (id - @ID@)
    || '||What was written then.|', '|', char(13) || char(10)) AS BLOB)
FROM messages;
INSERT INTO body_chunks VALUES
    (@ID@ + 8, 0, CAST('in two p' AS BLOB)), (@ID@ + 8, 1, CAST('ieces, yes' || char(13) || char(10) AS BLOB));

INSERT INTO email_sends
    (message, recipient, state, at, lane, ends_at, tries, known, reason, mark, octets, owner, attempt, begun_at, esp,
     address, key)
VALUES
    (@ID@ + 1, 0, 0, @NOW@ - 1000, 1, @NOW@ + 86400000, 1, 0, NULL, 0, 43, 5, 11, @NOW@ - 90000, 'up1', 'one@example.com', NULL),
    (@ID@ + 1, 1, 0, @NOW@ - 1000, 1, @NOW@ + 86400000, 0, 0, NULL, 0, 43, NULL, NULL, NULL, NULL, 'Gone@example.com', 'gone@example.com'),
    (@ID@ + 2, 0, 1, @NOW@ - 9000, 1, @NOW@ + 86400000, 1, 0, NULL, 0, 86, 5, 12, @NOW@ - 61000, 'up1', 'two@example.com', NULL),
    (@ID@ + 3, 0, 2, @NOW@ - 1000, 1, @NOW@ + 86400000, 1, 0, NULL, 0, 86, 5, 13, @NOW@ - 90000, 'up1', 'three@example.com', NULL),
    (@ID@ + 4, 0, 3, @NOW@ - 1000, 1, @NOW@ + 86400000, 0, 0, NULL, 0, 86, NULL, NULL, NULL, NULL, 'four@example.com', NULL),
    (@ID@ + 5, 0, 4, @NOW@ - 1000, 1, @NOW@ + 86400000, 1, 0, NULL, 0, 86, 5, 15, @NOW@ - 90000, 'up1', 'five@example.com', NULL),
    (@ID@ + 6, 0, 5, @NOW@ - 80000, 1, @NOW@ + 86400000, 1, 1, NULL, 0, 86, 5, 16, @NOW@ - 90000, 'up1', 'six@example.com', NULL),
    (@ID@ + 7, 0, 5, @NOW@ - 80000, 1, @NOW@ + 86400000, 1, 0, 4, 0, 86, 5, 17, @NOW@ - 90000, 'up1', 'seven@example.com', NULL),
    (@ID@ + 8, 0, 0, @NOW@ - 1000, 2, @NOW@ + 86400000, 0, 0, NULL, 0, 106, NULL, NULL, NULL, NULL, 'eight@example.com', NULL),
    (@ID@ + 9, 0, 0, @NOW@ - 1000, 3, @NOW@ + 86400000, 0, 0, NULL, 0, 86, NULL, NULL, NULL, NULL, 'nine@example.com', NULL);

INSERT INTO attempts VALUES
    (@ID@ + 1, 0, 11, 'up1', @NOW@ - 90000, @NOW@ - 89000, 'refused', 'path', 0, 'greeting', NULL, '421 4.3.2 down', 0),
    (@ID@ + 3, 0, 13, 'up1', @NOW@ - 90000, @NOW@ - 89000, 'unsure', NULL, NULL, 'dot', NULL, 'the line died', 0),
    (@ID@ + 5, 0, 15, 'up1', @NOW@ - 90000, @NOW@ - 89000, 'unsure', NULL, NULL, 'dot', NULL, 'the line died', 1),
    (@ID@ + 6, 0, 16, 'up1', @NOW@ - 90000, @NOW@ - 89000, 'accepted', NULL, NULL, 'dot', 'r-6', '250 2.0.0 ok', 0),
    (@ID@ + 7, 0, 17, 'up1', @NOW@ - 90000, @NOW@ - 89000, 'refused', 'recipient', 1, 'rcpt', NULL, '550 5.1.1 nobody', 0);

INSERT INTO events (message, recipient, attempt, esp, kind, at, event_key, detail) VALUES
    (@ID@ + 5, 0, 15, 'up1', 'crashed', @NOW@ - 80000, NULL, 'the relay stopped while the attempt was out'),
    (@ID@ + 7, 0, 17, 'up1', 'bounced', @NOW@ - 80000, 'a key', '550 5.1.1 nobody');
INSERT INTO suppressions VALUES
    ('gone@example.com', 'Gone@example.com', 'manual', '', 'operator', NULL, @NOW@ - 100000, NULL);

PRAGMA application_id = 0x504f5354;
PRAGMA user_version = 1;
COMMIT;
