-- What a client asked about reports (RFC 3461), as JSON; null: nothing.
ALTER TABLE messages ADD COLUMN reports TEXT;

-- Reports (DSN) that a sender is owed: written with what makes them so, gone with the commit that queues them.
CREATE TABLE reports_owed (
    message   INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    cause     INTEGER NOT NULL, -- 0 refused, 1 expired, 2 suppressed, 3 late, 4 relayed
    at        INTEGER NOT NULL,
    esp       TEXT,
    said      TEXT    NOT NULL,
    PRIMARY KEY (message, recipient, cause)
) STRICT, WITHOUT ROWID;

-- When the sender of a delivery that is not done by then wants to hear that it is late.
CREATE TABLE delays_asked (
    at        INTEGER NOT NULL,
    message   INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    PRIMARY KEY (at, message, recipient)
) STRICT, WITHOUT ROWID;
