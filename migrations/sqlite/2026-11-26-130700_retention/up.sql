-- Runs whose logs were removed by retention; the files are gone before the row is there.
CREATE TABLE removed_logs (
    run TEXT NOT NULL PRIMARY KEY REFERENCES runs (id),
    removed_at BIGINT NOT NULL
);
-- What names a run or delivery is found quickly when that one goes.
CREATE INDEX deliveries_of_run ON deliveries (run) WHERE run IS NOT NULL;
CREATE INDEX deliveries_again ON deliveries (redelivery_of) WHERE redelivery_of IS NOT NULL;
CREATE INDEX releases_of_run ON releases (run) WHERE run IS NOT NULL;
CREATE INDEX approvals_of_release ON approvals (release);
