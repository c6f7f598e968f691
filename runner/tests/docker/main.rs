//! A whole runner against a real Docker Engine, a real registry and the protocol's other end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod allowances;
mod attempts;
mod builds;
mod client;
mod contexts;
mod forks;
mod image_secrets;
mod once;
mod peer;
mod recovery;
mod slow_engine;
mod world;
