//! The adapters for AWS, and the rooms that act through them, against a sandbox over the wire.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

mod before_deploy;
mod cluster;
mod create;
mod executor;
mod pushes;
mod registry;
mod starts;
mod support;
mod task_definition;
mod turns;
mod variants;
