//! The sandbox: a local ECS, ECR and load balancer that really roll deployments.
//!
//! AWS clients talk to it over the AWS wire protocols; tasks are containers on Docker Engine, or
//! scripts. It knows no other house of Roadstead and can be used alone.
//!
//! Rooms: `wire` (HTTP and protocols) → `services` (operations) → `state` (what is, on disk) and
//! `scheduler` (what should happen next; pure) → `backends` and `proxy` (what really happens).

mod agenda;
mod app;
mod backends;
mod calls;
mod clock;
mod conductor;
mod config;
mod disk;
mod faults;
mod initialization;
mod page;
mod pins;
mod proxy;
mod registry;
mod scheduler;
mod serve;
mod services;
mod state;
mod targets;
mod time_travel;
mod timeline;
mod wake;
mod wire;

pub use backends::docker::{label, purge};
pub use config::{BackendKind, Config, RegistryAddress};
pub use serve::serve;
pub use services::catalog::catalog;
