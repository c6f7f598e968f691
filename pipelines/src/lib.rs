//! Every decision that Roadstead makes, and nothing else.
//!
//! The house owns the pipeline file ([`spec`]), the lives of runs and deployments ([`run`],
//! [`deployment`]), what may change them ([`fact`]), what has to be done in the world outside
//! ([`effect`]), and the [`planner`] that turns a [`world::World`] into a [`planner::Plan`].
//!
//! Invariants: nothing here reads a clock, a file or a network; the same world and the same `now`
//! give the same plan; a state changes only through `apply`, which refuses illegal transitions as
//! values. It must not know tokio, diesel, actix, git2, bollard or AWS.

pub mod action;
pub mod artifacts_from;
pub mod authorship;
pub mod cache;
pub mod commit_status;
pub mod deployment;
pub mod durations;
pub mod effect;
pub mod fact;
pub mod gate;
pub mod git_ref;
pub mod group;
pub mod heads;
pub mod id;
pub mod job;
pub mod observation;
pub mod outcome;
pub mod planner;
pub mod pull_request;
pub mod release;
pub mod report;
pub mod rerun;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod secret;
pub mod spec;
pub mod started_by;
pub mod task_definition;
pub mod variant;
pub mod world;

pub use jiff::Timestamp;
