-- Jobs that wait for a runner, the oldest runs' first; `labels` is what their runner has to have, as JSON.
CREATE TABLE pending_jobs (
    run TEXT NOT NULL REFERENCES runs (id),
    job TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    labels TEXT NOT NULL,
    PRIMARY KEY (run, job)
);
CREATE INDEX pending_jobs_in_turn ON pending_jobs (created_at, run, job);
INSERT INTO pending_jobs SELECT id, 'default', created_at, '[]' FROM runs WHERE word = 'queued';
DROP INDEX runs_queued;
-- The job of the run that it was one try of.
ALTER TABLE attempts ADD COLUMN job TEXT NOT NULL DEFAULT 'default';
-- A run that is at work had one job, in its own state.
UPDATE runs SET state = json_object(
    'state', 'building',
    'attempts', json_extract(state, '$.attempt') - 1,
    'jobs', json_object('default', json_object(
        'state', 'queued',
        'lost', json_extract(state, '$.attempt') - 1,
        'since', json_extract(state, '$.since')))
) WHERE word = 'queued';
UPDATE runs SET state = json_object(
    'state', 'building',
    'attempts', json_extract(state, '$.attempt'),
    'jobs', json_object('default', json_object(
        'state', 'running',
        'attempt', json_extract(state, '$.attempt'),
        'lost', json_extract(state, '$.attempt') - 1,
        'runner', json_extract(state, '$.runner'),
        'since', json_extract(state, '$.since')))
) WHERE word = 'building';
-- Since when it ran was not kept of one that is being cancelled.
UPDATE runs SET state = json_object(
    'state', 'cancelling',
    'attempts', json_extract(state, '$.attempt'),
    'jobs', json_object('default', json_object(
        'state', 'running',
        'attempt', json_extract(state, '$.attempt'),
        'lost', json_extract(state, '$.attempt') - 1,
        'runner', json_extract(state, '$.runner'),
        'since', json_extract(state, '$.until'))),
    'by', json_extract(state, '$.by'),
    'until', json_extract(state, '$.until')
) WHERE word = 'cancelling';
