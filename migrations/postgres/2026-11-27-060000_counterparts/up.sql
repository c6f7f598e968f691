-- Who an effect has to wait for: a forge that does not answer is to hold up no deployment.
ALTER TABLE effects ADD COLUMN counterpart TEXT NOT NULL DEFAULT 'ecs'
    CHECK (counterpart IN ('forge', 'registry', 'ecs'));
UPDATE effects SET counterpart = 'forge' WHERE key LIKE 'read_sources:%' OR key LIKE 'confirm_images:%';
UPDATE effects SET counterpart = 'registry' WHERE key LIKE 'prepare_registry:%';
DROP INDEX effects_open;
CREATE INDEX effects_open ON effects (counterpart, not_before) WHERE finished_at IS NULL;
