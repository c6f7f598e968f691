//! The store from outside: the same scenarios on SQLite and on PostgreSQL.

#[path = "../support/databases.rs"]
mod databases;
mod intake;
mod story;
mod work;
mod worlds;
