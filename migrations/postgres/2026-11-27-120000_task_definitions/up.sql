-- Task definitions that come out of files of a release's commit, as JSON: the files' texts by path, and what each
-- service of each environment takes.
ALTER TABLE releases ADD COLUMN task_definitions TEXT NOT NULL DEFAULT '{"files":{},"places":{}}';
