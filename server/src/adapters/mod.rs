//! The server's hands in the world outside: git, the registry, ECS, a bucket, HTTP probes, and what forges
//! are told.
//!
//! Each adapter does one thing when asked and keeps no state that matters: what it remembers only
//! saves calls. They know nothing of the store, of plans or of pages. Errors say whether asking again
//! can help, because that is what the executor has to decide.

pub mod aws;
pub mod bucket;
pub mod cluster;
pub mod forges;
pub mod probes;
pub mod registry;
pub mod sources;
