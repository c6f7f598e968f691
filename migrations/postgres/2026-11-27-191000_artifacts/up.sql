-- Files that steps left to be kept, by their path in the workspace. Their bytes are beside the logs.
CREATE TABLE artifacts (
    run TEXT NOT NULL REFERENCES runs (id),
    attempt BIGINT NOT NULL,
    step TEXT NOT NULL,
    name TEXT NOT NULL,
    length BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (run, attempt, step, name)
);
