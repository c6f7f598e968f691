-- What the test reports of a step come to. `cases` are the first that failed, as JSON.
CREATE TABLE test_reports (
    run TEXT NOT NULL REFERENCES runs (id),
    attempt BIGINT NOT NULL,
    step TEXT NOT NULL,
    tests BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    unread BIGINT NOT NULL,
    cases TEXT NOT NULL,
    PRIMARY KEY (run, attempt, step)
);
