-- told_as: an event's kind as its ESP names it, for kinds that have no name here.
-- unlabelled: its form has no place for what went with a call, so without our ids it may be ours all the same; who sent the
-- mail that it is about, when it was taken, and whom to, a line each. NULL: it has such a place.

ALTER TABLE events ADD COLUMN told_as TEXT;
ALTER TABLE events ADD COLUMN unlabelled TEXT;
