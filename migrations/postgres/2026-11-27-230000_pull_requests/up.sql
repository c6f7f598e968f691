-- A run of a pull request from a fork waits for somebody's word, and a delivery may tell that a pull request was closed.
-- What is stored fits the checks of before, so it is not looked through again.
ALTER TABLE runs DROP CONSTRAINT runs_word_check;
ALTER TABLE runs ADD CONSTRAINT runs_word_check CHECK (word IN ('fetching', 'waiting_for_approval', 'preparing',
    'queued', 'building', 'cancelling', 'confirming', 'confirmed', 'succeeded', 'skipped', 'failed', 'timed_out',
    'cancelled')) NOT VALID;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_decision_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_decision_check
    CHECK (decision IN ('built', 'closed', 'ignored', 'duplicate')) NOT VALID;
