//! The pipeline file, `version: 1`.

mod model;

pub use model::{
    AfterRollback, DeployMode, DoneWhen, EcsTarget, EcsTargetOverride, Environment, Gate, HttpProbe,
    Image, Pipeline, ResolvedTarget, Role, Rollback, SERVICE_PLACEHOLDER, Service, Sidecar, Step,
    StepAction, Trigger, Verify,
};
