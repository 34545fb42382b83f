-- What an operator took off the suppression list: what was known then counts no more.
CREATE TABLE lifted (
    key    TEXT    NOT NULL,
    reason TEXT    NOT NULL, -- empty: whatever the reason
    at     INTEGER NOT NULL,
    event  INTEGER NOT NULL, -- the last that was known
    PRIMARY KEY (key, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX lifted_at ON lifted (at);
