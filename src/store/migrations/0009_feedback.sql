-- What ESPs tell of messages after they took them, and what follows from it.

-- key: the recipient's, where the event names one · class: what a bounce says of the address · machine: nobody did it
ALTER TABLE events ADD COLUMN key TEXT;
ALTER TABLE events ADD COLUMN class TEXT;
ALTER TABLE events ADD COLUMN machine INTEGER NOT NULL DEFAULT 0;

-- An address's own story, in the order of its times.
CREATE INDEX events_address ON events (key, at) WHERE key IS NOT NULL;
-- What came before the answer that would have told whose it is.
CREATE INDEX events_unmatched ON events (esp, remote_id) WHERE message IS NULL AND remote_id IS NOT NULL;

-- heard: its ESP tells events, so its own id of the message is looked for.
ALTER TABLE attempts ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;
CREATE INDEX attempts_remote ON attempts (esp, remote_id) WHERE heard = 1 AND remote_id IS NOT NULL;

-- One row a bounce and a complaint, with the event that told it.
CREATE TABLE bounces (
    event     INTEGER PRIMARY KEY,
    key       TEXT    NOT NULL,
    esp       TEXT    NOT NULL,
    message   INTEGER,
    recipient INTEGER,
    class     TEXT    NOT NULL, -- hard, soft, policy, listed, refused
    said      TEXT    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;
CREATE INDEX bounces_at ON bounces (at);

CREATE TABLE complaints (
    event     INTEGER PRIMARY KEY,
    key       TEXT    NOT NULL,
    esp       TEXT    NOT NULL,
    message   INTEGER,
    recipient INTEGER,
    said      TEXT    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;
CREATE INDEX complaints_at ON complaints (at);

-- What became of mail, an ESP × destination × hour.
CREATE TABLE esp_performance (
    hour        INTEGER NOT NULL, -- its first moment
    esp         TEXT    NOT NULL,
    destination TEXT    NOT NULL, -- the recipient's domain
    sent        INTEGER NOT NULL DEFAULT 0,
    deferred    INTEGER NOT NULL DEFAULT 0,
    delivered   INTEGER NOT NULL DEFAULT 0,
    hard        INTEGER NOT NULL DEFAULT 0,
    soft        INTEGER NOT NULL DEFAULT 0,
    policy      INTEGER NOT NULL DEFAULT 0,
    dropped     INTEGER NOT NULL DEFAULT 0,
    complained  INTEGER NOT NULL DEFAULT 0,
    opened      INTEGER NOT NULL DEFAULT 0,
    clicked     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, esp, destination)
) STRICT, WITHOUT ROWID;
