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
UPDATE runs SET state = json_build_object(
    'state', 'building',
    'attempts', (state::json ->> 'attempt')::bigint - 1,
    'jobs', json_build_object('default', json_build_object(
        'state', 'queued',
        'lost', (state::json ->> 'attempt')::bigint - 1,
        'since', state::json ->> 'since'))
)::text WHERE word = 'queued';
UPDATE runs SET state = json_build_object(
    'state', 'building',
    'attempts', (state::json ->> 'attempt')::bigint,
    'jobs', json_build_object('default', json_build_object(
        'state', 'running',
        'attempt', (state::json ->> 'attempt')::bigint,
        'lost', (state::json ->> 'attempt')::bigint - 1,
        'runner', state::json ->> 'runner',
        'since', state::json ->> 'since'))
)::text WHERE word = 'building';
-- Since when it ran was not kept of one that is being cancelled.
UPDATE runs SET state = json_build_object(
    'state', 'cancelling',
    'attempts', (state::json ->> 'attempt')::bigint,
    'jobs', json_build_object('default', json_build_object(
        'state', 'running',
        'attempt', (state::json ->> 'attempt')::bigint,
        'lost', (state::json ->> 'attempt')::bigint - 1,
        'runner', state::json ->> 'runner',
        'since', state::json ->> 'until')),
    'by', state::json ->> 'by',
    'until', state::json ->> 'until'
)::text WHERE word = 'cancelling';
