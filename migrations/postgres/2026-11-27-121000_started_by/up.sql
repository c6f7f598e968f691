-- Under which key somebody asked for a run: the same key makes no second one.
CREATE TABLE run_keys (
    project TEXT NOT NULL REFERENCES projects (name),
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    PRIMARY KEY (project, key)
);
CREATE INDEX run_keys_run ON run_keys (run);
-- What the newest file of a branch that was read says of starting runs, and which run read it.
CREATE TABLE branch_files (
    project TEXT NOT NULL REFERENCES projects (name),
    git_ref TEXT NOT NULL,
    run_number BIGINT NOT NULL,
    started_by TEXT NOT NULL,
    PRIMARY KEY (project, git_ref)
);
-- The branch that a repository names as its own, as of when its branches were last compared.
ALTER TABLE projects ADD COLUMN default_branch TEXT;
