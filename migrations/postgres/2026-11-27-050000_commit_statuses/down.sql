ALTER TABLE projects DROP COLUMN told_forge;
DROP TABLE commit_statuses;
