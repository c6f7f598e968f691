DROP INDEX runs_open;
CREATE INDEX runs_live ON runs (project) WHERE ended_at IS NULL;
