-- The moments for which each schedule has started a run, so that none starts two, whatever the number of servers.
-- `run` is NULL where the branch was gone.
CREATE TABLE schedule_moments (
    project TEXT NOT NULL REFERENCES projects (name),
    git_ref TEXT NOT NULL,
    schedule TEXT NOT NULL,
    moment BIGINT NOT NULL,
    run TEXT,
    PRIMARY KEY (project, git_ref, schedule, moment)
);
-- The schedules of that file, each with the time since when it holds.
ALTER TABLE branch_files ADD COLUMN schedules TEXT NOT NULL DEFAULT '[]';
