//! Store, planner, executor, adapters and observer, all real, stepped one after the other against a real
//! sandbox in virtual time: `calls` lets the executor die at each single call that it makes, `seeds` tells
//! stories by chance and holds their end against the promises of docs/reliability.md.
//!
//! A step ends before the next begins, so nothing depends on how threads interleave: the same seed writes
//! the same history, hash for hash. The executor is dropped where it stands and another one goes on from
//! the rows. What waits in real time is not waited for: a lease is over, and a retry due, as soon as the
//! virtual time says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

mod calls;
mod checks;
#[path = "../support/databases.rs"]
#[expect(
    unused_macros,
    unused_imports,
    dead_code,
    reason = "its macro gives each test one database, and here each case has its own"
)]
mod databases;
mod draw;
mod seeds;
mod stage;
mod stories;
mod wire;
