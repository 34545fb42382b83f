-- An event's kind as its ESP names it: for kinds that have no name here.

ALTER TABLE events ADD COLUMN told_as TEXT;
