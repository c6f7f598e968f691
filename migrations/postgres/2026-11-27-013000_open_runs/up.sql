-- A plan reads the oldest runs whose sources are to be read, and skips what waits for a runner.
DROP INDEX runs_live;
CREATE INDEX runs_open ON runs (project, word, number) WHERE ended_at IS NULL;
