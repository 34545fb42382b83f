-- An event that names no attempt of ours is looked for among those whose answer was lost, by recipient.
ALTER TABLE attempts ADD COLUMN key TEXT; -- the recipient's, where the outcome was unsure at first
UPDATE attempts SET key = (SELECT coalesce(d.key, d.address) FROM email_sends AS d
    WHERE d.message = attempts.message AND d.recipient = attempts.recipient) WHERE outcome = 'unsure';
CREATE INDEX attempts_open ON attempts (key, esp) WHERE outcome = 'unsure';

-- From here on events.unlabelled is JSON: sender, taken_at (milliseconds), recipients, message_id.
