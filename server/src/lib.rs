//! The server: takes webhooks and buttons, plans, acts, tells.
//!
//! `http` and the runner API only record facts and wake the `reconciler`, which loads a world, plans
//! and commits; the `executor` performs effects through the `adapters`; the `observer` looks at ECS.
//! Only `store` knows Diesel; only `adapters` know git, forges and AWS.

pub mod adapters;
pub mod clock;
pub mod config;
pub mod executor;
pub mod http;
pub mod logs;
pub mod observer;
pub mod reconciler;
pub mod store;
pub mod wake;
