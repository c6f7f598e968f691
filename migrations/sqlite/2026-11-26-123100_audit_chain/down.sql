DROP TRIGGER events_are_not_removed;
DROP TRIGGER events_are_not_changed;
DROP TABLE audit_heads;
DROP INDEX events_position;
ALTER TABLE events DROP COLUMN hash;
ALTER TABLE events DROP COLUMN after;
ALTER TABLE events DROP COLUMN before;
ALTER TABLE events DROP COLUMN reason;
ALTER TABLE events DROP COLUMN position;
