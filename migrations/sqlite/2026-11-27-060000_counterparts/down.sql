DROP INDEX effects_open;
ALTER TABLE effects DROP COLUMN counterpart;
CREATE INDEX effects_open ON effects (not_before) WHERE finished_at IS NULL;
