-- What each forge is to show beside a commit, and how telling it goes, as JSON: one row for what a forge shows as
-- one, with the last word alone. `git_ref` is empty where it shows one for a commit, whatever the branch.
CREATE TABLE commit_statuses (
    project TEXT NOT NULL REFERENCES projects (name),
    commit_sha TEXT NOT NULL,
    git_ref TEXT NOT NULL,
    run TEXT NOT NULL,
    telling TEXT NOT NULL,
    -- When the forge has to be called; NULL for never.
    due_at BIGINT,
    leased_by TEXT,
    leased_until BIGINT,
    PRIMARY KEY (project, commit_sha, git_ref)
);
CREATE INDEX commit_statuses_due ON commit_statuses (project, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX commit_statuses_of_run ON commit_statuses (run);
-- The forge that is told of the project's runs, as the configuration says; NULL when none is.
ALTER TABLE projects ADD COLUMN told_forge TEXT;
