-- Secrets of projects: each value under a data key of its own, and that under the installation's key,
-- which is not in the database. `environment` is empty for those of the whole project.
CREATE TABLE secrets (
    project TEXT NOT NULL REFERENCES projects (name),
    environment TEXT NOT NULL,
    name TEXT NOT NULL,
    branches TEXT NOT NULL,
    version BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    data_key TEXT NOT NULL,
    value TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at BIGINT NOT NULL,
    PRIMARY KEY (project, environment, name)
);
