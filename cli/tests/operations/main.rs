//! What those do who look after a server, and what may happen to it: the audit trail, backups, a
//! power cut. Each with a server of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

mod audit;
mod backup;
mod hook;
mod missed_push;
mod power_cut;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/waiting.rs"]
mod waiting;
