-- The history becomes a chain per project and one for the installation: each entry's hash follows from
-- the one before it. What is there already is chained by the server when it starts.
ALTER TABLE events ADD COLUMN "position" BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN before TEXT;
ALTER TABLE events ADD COLUMN after TEXT;
ALTER TABLE events ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX events_position ON events (coalesce(project, ''), "position") WHERE "position" > 0;

-- The end of each chain: `installation`, or `project/NAME`.
CREATE TABLE audit_heads (
    chain TEXT NOT NULL PRIMARY KEY,
    length BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_heads (chain, length, hash)
    SELECT 'installation', 0, '0000000000000000000000000000000000000000000000000000000000000000';
INSERT INTO audit_heads (chain, length, hash)
    SELECT 'project/' || name, 0, '0000000000000000000000000000000000000000000000000000000000000000'
    FROM projects;

CREATE FUNCTION refuse_to_touch_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit trail are never changed or removed';
END
$$;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    FOR EACH ROW WHEN (OLD.hash <> '') EXECUTE FUNCTION refuse_to_touch_events();
CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_to_touch_events();
CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_touch_events();
