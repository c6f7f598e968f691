-- Commits that come after a release's own and were known when it was made, as a JSON list.
ALTER TABLE releases ADD COLUMN descendants TEXT NOT NULL DEFAULT '[]';
