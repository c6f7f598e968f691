//! What ECS answers besides rollouts, on simulated tasks in virtual time: lists page by page, names,
//! tags, states, refusals, and the page for people.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

#[path = "../support/mod.rs"]
mod support;

mod lists;
mod page;
mod refusals;
mod states;
mod stops;
mod tags;
