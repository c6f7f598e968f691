//! The rolling scheduler: what a service should do next. Pure.

mod model;

pub use model::{PortBinding, TargetState, TaskEvent};
