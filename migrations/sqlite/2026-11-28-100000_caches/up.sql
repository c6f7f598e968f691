-- Caches of steps. A row is there before its bytes are and until they are gone, so that none lie about that nobody knows of:
-- state is 'arriving', then 'stored', then 'leaving'. Their bytes are beside the logs, under the id.
CREATE TABLE caches (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    -- The full name of the ref whose runs left it.
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    -- A sum over what has to be alike for it to be of use: name, image, paths, architecture.
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    length BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    state TEXT NOT NULL,
    run TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE INDEX caches_by_kind ON caches (project, scope, kind, stored_at);
-- One of a key, whoever stores at the same time.
CREATE UNIQUE INDEX caches_by_key ON caches (project, scope, kind, key) WHERE state = 'stored';
