-- An id that is known as one ESP's is no other's: it is looked for whichever ESP it is told of.
DROP INDEX attempts_remote;
CREATE INDEX attempts_remote ON attempts (remote_id, esp) WHERE heard = 1 AND remote_id IS NOT NULL;
