ALTER TABLE releases DROP COLUMN task_definitions;
