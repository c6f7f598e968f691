UPDATE runs SET state = json_object(
    'state', 'queued',
    'attempt', json_extract(state, '$.attempts') + 1,
    'since', json_extract(state, '$.jobs.default.since')
) WHERE word = 'queued';
UPDATE runs SET state = json_object(
    'state', 'building',
    'attempt', json_extract(state, '$.jobs.default.attempt'),
    'runner', json_extract(state, '$.jobs.default.runner'),
    'since', json_extract(state, '$.jobs.default.since')
) WHERE word = 'building';
UPDATE runs SET state = json_object(
    'state', 'cancelling',
    'attempt', json_extract(state, '$.jobs.default.attempt'),
    'runner', json_extract(state, '$.jobs.default.runner'),
    'by', json_extract(state, '$.by'),
    'until', json_extract(state, '$.until')
) WHERE word = 'cancelling';
ALTER TABLE attempts DROP COLUMN job;
CREATE INDEX runs_queued ON runs (created_at, id) WHERE word = 'queued';
DROP TABLE pending_jobs;
