//! The store from outside: the same scenarios on SQLite and on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that breaks off is a failed test"
)]

mod artifacts;
mod audit;
mod backup;
mod caches;
mod claims_beside;
#[expect(dead_code, reason = "tests of servers use more of it")]
#[path = "../support/databases.rs"]
mod databases;
mod effects;
mod groups;
mod intake;
mod jobs;
#[path = "../support/noise.rs"]
mod noise;
mod people;
#[path = "../support/psql.rs"]
mod psql;
mod pull_requests;
mod reruns;
mod retention;
mod runners;
mod schedules;
mod secrets;
mod servers;
mod starts;
mod story;
mod transfer;
mod work;
mod worlds;
