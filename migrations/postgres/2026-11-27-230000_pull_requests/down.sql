UPDATE runs SET word = 'preparing' WHERE word = 'waiting_for_approval';
UPDATE deliveries SET decision = 'ignored' WHERE decision = 'closed';
ALTER TABLE runs DROP CONSTRAINT runs_word_check;
ALTER TABLE runs ADD CONSTRAINT runs_word_check CHECK (word IN ('fetching', 'preparing', 'queued', 'building',
    'cancelling', 'confirming', 'confirmed', 'succeeded', 'skipped', 'failed', 'timed_out', 'cancelled')) NOT VALID;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_decision_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_decision_check
    CHECK (decision IN ('built', 'ignored', 'duplicate')) NOT VALID;
