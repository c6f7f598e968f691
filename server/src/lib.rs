//! The server: takes webhooks and buttons, plans, acts, tells.
//!
//! `http` and the runner API only record facts and ring a bell; the `reconciler` loads a world, plans
//! and commits; the `executor` performs effects through the `adapters`; the `observer` looks at ECS; the
//! `gap_filler` looks for pushes that nobody told of; the `teller` tells forges how runs went.
//! Only `store` knows Diesel; only `adapters` know git, registries and AWS. Everything that matters is
//! in the store: a server that dies leaves nothing behind that the next one needs.

pub mod adapters;
pub mod artifacts;
pub mod audit;
mod background;
pub mod backup;
pub mod caches;
pub mod clock;
pub mod config;
pub mod dispatcher;
pub mod executor;
pub mod forge;
pub mod gap_filler;
pub mod http;
pub mod logs;
pub mod observer;
mod private;
pub mod reaper;
pub mod reconciler;
pub mod retention;
pub mod rounds;
pub mod schedules;
pub mod secrets;
mod start;
pub mod store;
pub mod teller;
pub mod wake;

pub use start::{Finding, check, serve};
