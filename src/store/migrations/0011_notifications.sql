-- Events out to the app: what each receiver of [[notify]] is told, and what became of that.

CREATE TABLE notifications (
    n         INTEGER PRIMARY KEY, -- they are told in this order
    id        TEXT    NOT NULL,    -- one event's, at every receiver and over every repeat
    receiver  TEXT    NOT NULL,    -- its name
    event     INTEGER,             -- its row, where it has one
    message   INTEGER,
    recipient INTEGER,
    address   TEXT,
    kind      TEXT    NOT NULL,
    told_at   INTEGER NOT NULL,    -- when it was entered here
    state     INTEGER NOT NULL,    -- 0 waiting, 1 taken, 2 failed
    due       INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL,
    tries     INTEGER NOT NULL DEFAULT 0,
    refusals  INTEGER NOT NULL DEFAULT 0,
    tried_at  INTEGER,
    answer    TEXT,                -- the last one, in words
    body      TEXT    NOT NULL     -- what is told, as it is signed
) STRICT;

CREATE INDEX notifications_due ON notifications (receiver, due, n) WHERE state = 0;
CREATE INDEX notifications_end ON notifications (receiver, ends_at) WHERE state = 0;
-- What is told of a message is told in order: what waits of it.
CREATE INDEX notifications_in_order ON notifications (receiver, message, n) WHERE state = 0 AND message IS NOT NULL;
-- An event that came before the answer which tells whose it is.
CREATE INDEX notifications_early ON notifications (event) WHERE state = 0 AND message IS NULL AND event IS NOT NULL;
CREATE INDEX notifications_id ON notifications (id);
-- For lists.
CREATE INDEX notifications_message ON notifications (message, n) WHERE message IS NOT NULL;
CREATE INDEX notifications_receiver ON notifications (receiver, n);
CREATE INDEX notifications_not_taken ON notifications (n) WHERE state <> 1;

-- How much waits for each.
CREATE TABLE notify_receivers (
    name    TEXT PRIMARY KEY,
    waiting INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER notification_enters AFTER INSERT ON notifications WHEN NEW.state = 0 BEGIN
    INSERT INTO notify_receivers (name, waiting) VALUES (NEW.receiver, 1)
        ON CONFLICT (name) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER notification_ends AFTER UPDATE OF state ON notifications WHEN OLD.state = 0 AND NEW.state <> 0 BEGIN
    UPDATE notify_receivers SET waiting = waiting - 1 WHERE name = NEW.receiver;
END;
CREATE TRIGGER notification_returns AFTER UPDATE OF state ON notifications WHEN OLD.state <> 0 AND NEW.state = 0 BEGIN
    INSERT INTO notify_receivers (name, waiting) VALUES (NEW.receiver, 1)
        ON CONFLICT (name) DO UPDATE SET waiting = waiting + 1;
END;
