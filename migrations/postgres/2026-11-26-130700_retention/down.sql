DROP INDEX approvals_of_release;
DROP INDEX releases_of_run;
DROP INDEX deliveries_again;
DROP INDEX deliveries_of_run;
DROP TABLE removed_logs;
