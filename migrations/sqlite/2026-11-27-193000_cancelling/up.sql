-- Runners to call from their polls, however many runs there are.
CREATE INDEX runs_cancelling ON runs (id) WHERE word = 'cancelling';
