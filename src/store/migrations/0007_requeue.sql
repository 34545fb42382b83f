-- Attempts of a delivery's earlier rounds, before an operator put it into the queue again: what comes of them stays with
-- them.
ALTER TABLE attempts ADD COLUMN earlier INTEGER NOT NULL DEFAULT 0;
