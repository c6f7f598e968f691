//! The server over HTTP as browsers, programs and forges meet it: a real store, the real routes on a
//! real socket, rows made as pushes, runners and ECS make them.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

mod artifacts;
mod caches;
mod calls;
mod fetch;
mod jobs;
mod logs_away;
mod pages;
mod people;
mod polls;
mod pull_requests;
mod recorded;
mod reruns;
mod roles;
mod runners;
mod secrets;
mod sessions;
mod site;
mod sources;
mod starts;
#[path = "../store/story.rs"]
mod story;
mod streams;
mod tests;
mod webhooks;
