UPDATE runs SET state = json_build_object(
    'state', 'queued',
    'attempt', (state::json ->> 'attempts')::bigint + 1,
    'since', state::json -> 'jobs' -> 'default' ->> 'since'
)::text WHERE word = 'queued';
UPDATE runs SET state = json_build_object(
    'state', 'building',
    'attempt', (state::json -> 'jobs' -> 'default' ->> 'attempt')::bigint,
    'runner', state::json -> 'jobs' -> 'default' ->> 'runner',
    'since', state::json -> 'jobs' -> 'default' ->> 'since'
)::text WHERE word = 'building';
UPDATE runs SET state = json_build_object(
    'state', 'cancelling',
    'attempt', (state::json -> 'jobs' -> 'default' ->> 'attempt')::bigint,
    'runner', state::json -> 'jobs' -> 'default' ->> 'runner',
    'by', state::json ->> 'by',
    'until', state::json ->> 'until'
)::text WHERE word = 'cancelling';
ALTER TABLE attempts DROP COLUMN job;
CREATE INDEX runs_queued ON runs (created_at, id) WHERE word = 'queued';
DROP TABLE pending_jobs;
