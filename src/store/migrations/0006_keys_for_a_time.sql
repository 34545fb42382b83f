-- Each key has a time of its own until which it is remembered; those that are here were to be for a day.
ALTER TABLE once_keys RENAME COLUMN at TO until;
UPDATE once_keys SET until = until + 86400000;
DROP INDEX once_keys_at;
CREATE INDEX once_keys_until ON once_keys (until);
