-- What several ESPs need: lanes by domain rule, holds that an ESP cannot end, what was chosen, allowances, suspensions.

CREATE TABLE lanes_by_rule (
    id        INTEGER PRIMARY KEY,
    stream    TEXT    NOT NULL,
    kind      INTEGER NOT NULL, -- 0 transactional, 1 broadcast
    pin       TEXT    NOT NULL, -- an ESP's name, or empty
    to_rule   TEXT    NOT NULL, -- the entry of [[esp]] recipients that names the recipient, or empty
    from_rule TEXT    NOT NULL, -- the entry of [[esp]] domains that names the From, or empty
    UNIQUE (stream, kind, pin, to_rule, from_rule)
) STRICT;

INSERT INTO lanes_by_rule (id, stream, kind, pin, to_rule, from_rule)
    SELECT id, stream, kind, pin, '', '' FROM lanes;
DROP TABLE lanes;
ALTER TABLE lanes_by_rule RENAME TO lanes;

-- unbound: an open attempt binds it no more · unable_since: its ESP could not repeat it since
ALTER TABLE email_sends ADD COLUMN unbound INTEGER NOT NULL DEFAULT 0;
ALTER TABLE email_sends ADD COLUMN unable_since INTEGER;

-- What waits may be claimed lane by lane; a hold ends whatever its lane.
DROP INDEX email_sends_due;
CREATE INDEX email_sends_due ON email_sends (lane, at) WHERE state = 0;
CREATE INDEX email_sends_held ON email_sends (at, lane) WHERE state = 2;

-- Which ESPs came before or after the one chosen, and why.
ALTER TABLE attempts ADD COLUMN choice TEXT;

-- Recipients that an ESP may still be given: counted when taken, in blocks; a block that nobody used is spent.
CREATE TABLE ledger (
    esp    TEXT    NOT NULL,
    window INTEGER NOT NULL, -- 0 hour, 1 day, 2 month
    bucket INTEGER NOT NULL, -- its first moment
    taken  INTEGER NOT NULL,
    PRIMARY KEY (esp, window, bucket)
) STRICT, WITHOUT ROWID;

-- What an operator said of an ESP.
CREATE TABLE suspensions (
    esp    TEXT PRIMARY KEY,
    reason TEXT    NOT NULL,
    since  INTEGER NOT NULL,
    until  INTEGER           -- empty: until it is resumed
) STRICT, WITHOUT ROWID;
