//! What each page shows, as plain data that the server fills.
//!
//! A view holds owned strings, numbers and the small enums of [`state`]; it knows nothing of
//! the store, the planner or the web framework. Whatever the viewer may do arrives as a
//! [`Permission`]: templates never decide who may press a button.

mod deployment;
mod entry;
mod frame;
mod matrix;
mod operations;
mod people;
mod project;
mod run;
mod secrets;
mod service;
pub mod state;

pub use deployment::{
    ClusterEvent, DeploymentPage, DeploymentSummary, Fact, Gate, Rollout, StoppedTask, Target,
};
pub use entry::{ErrorPage, LoginPage};
pub use frame::{Actor, Commit, Frame, Notice, Paging, Permission, Time, Viewer, Waiting};
pub use matrix::{
    Cell, EnvironmentHead, Hold, HomePage, InFlight, LiveRelease, Matrix, MatrixRow, Need,
    NeedKind, ProjectRuns,
};
pub use operations::{AuditEntry, AuditPage, DeliveriesPage, Delivery, Runner, RunnersPage};
pub use people::{AccountPage, Secret, Token, User, UsersPage};
pub use project::{ProjectPage, RunSummary, StartForm, StartInput, WebhookHelp};
pub use run::{
    Artifact, Artifacts, Diagnostic, Earlier, FailedCase, Job, LogLine, LogPanel, Release,
    ReleaseImage, RunInput, RunPage, Step, Tests, Untold,
};
pub use secrets::{SecretsPage, StoredSecret};
pub use service::{Candidate, RollbackTarget, ServicePage};
pub use state::{
    DeliveryDecision, DeployMode, DeploymentKind, DeploymentState, GateVerdict, Health, Role,
    RunState, RunnerState, StepState, TargetHealth, Tone,
};
