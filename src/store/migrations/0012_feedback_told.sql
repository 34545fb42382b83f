-- told_as: an event's kind as its ESP names it, for kinds that have no name here.
-- unlabelled: its form has no place for what went with a call, so without our ids it may be ours all the same.

ALTER TABLE events ADD COLUMN told_as TEXT;
ALTER TABLE events ADD COLUMN unlabelled INTEGER NOT NULL DEFAULT 0;
