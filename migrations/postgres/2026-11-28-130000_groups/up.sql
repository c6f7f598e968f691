-- The lines of groups: jobs that are ready or at work, each in the line of its group by place. Those that hold one of the
-- group's places may be at work; the others wait, and have no row among the pending jobs. `most` is how many may be at work at
-- once, as the run's own file has it.
CREATE TABLE group_places (
    run TEXT NOT NULL REFERENCES runs (id),
    job TEXT NOT NULL,
    project TEXT NOT NULL REFERENCES projects (name),
    job_group TEXT NOT NULL,
    place BIGINT NOT NULL,
    most BIGINT NOT NULL,
    holds BOOLEAN NOT NULL,
    PRIMARY KEY (run, job)
);
CREATE UNIQUE INDEX group_places_in_turn ON group_places (project, job_group, place);
