//! Forges that are told how runs went: real HTTP to a forge of each kind that behaves as its documentation says, real
//! rows in both databases, and calls that go wrong in every way that they can.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

mod checks;
#[expect(dead_code, reason = "tests of servers use more of it")]
#[path = "../support/databases.rs"]
mod databases;
mod forge;
mod github;
mod scene;
mod servers;
#[expect(dead_code, reason = "tests of the store use more of it")]
#[path = "../store/story.rs"]
mod story;
mod telling;
