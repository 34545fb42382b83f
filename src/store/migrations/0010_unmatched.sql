-- What ESPs told of no delivery that is known: shown apart.
CREATE INDEX events_alone ON events (id) WHERE message IS NULL AND esp IS NOT NULL AND event_key IS NOT NULL;
