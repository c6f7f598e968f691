//! Two servers on one PostgreSQL database and one folder of logs, behind a load balancer that gives
//! each request to the other one, and each of them killed while it holds something.

#![expect(
    clippy::unwrap_used,
    reason = "a server that does not answer is a failed test"
)]

#[path = "../support/aws.rs"]
mod aws;
mod balancer;
#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "tests of the store use more of it"
)]
#[path = "../../../server/tests/support/databases.rs"]
mod databases;
mod pair;
#[path = "../../../server/tests/support/psql.rs"]
mod psql;
#[path = "../support/shop.rs"]
mod shop;
mod starts;
mod story;
#[path = "../support/waiting.rs"]
mod waiting;
