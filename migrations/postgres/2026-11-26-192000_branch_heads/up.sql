-- Where the branches of each repository stood when they were last compared with what was told. A branch
-- that stands elsewhere since then was pushed to.
CREATE TABLE branch_heads (
    project TEXT NOT NULL REFERENCES projects (name),
    git_ref TEXT NOT NULL,
    commit_sha TEXT NOT NULL,
    PRIMARY KEY (project, git_ref)
);
-- When that was; NULL before the first time, which only notes where they stand.
ALTER TABLE projects ADD COLUMN heads_compared_at BIGINT;
