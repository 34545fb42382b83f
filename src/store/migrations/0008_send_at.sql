-- Not before this moment, as its app asked; null: at once. An operator who releases a message, or puts it into the queue
-- again, does not send it before its time.
ALTER TABLE messages ADD COLUMN send_at INTEGER;
