-- Rounds that ended without an ESP having taken it: the place in its retry schedule. `tries` counts attempts.
ALTER TABLE email_sends ADD COLUMN rounds INTEGER NOT NULL DEFAULT 0;

-- What waits goes on where it stood.
UPDATE email_sends SET rounds = tries WHERE state <> 5;
