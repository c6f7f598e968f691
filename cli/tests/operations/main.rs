//! What those do who look after a server: the audit trail, backups. Each with a server of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

mod audit;
mod backup;
mod hook;
#[path = "../support/server.rs"]
mod server;
