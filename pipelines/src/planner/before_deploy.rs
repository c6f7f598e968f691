//! What has to be done before a service is touched: one task of the new image, waited for to its end.
//!
//! Nothing is taken back when it fails, as the service was not touched; what the task itself changed is
//! not Roadstead's to undo. It is not run for rollbacks.

use super::Draft;
use super::rollouts::{fact, wait};
use crate::deployment::{Deployment, OneOffTask};
use crate::effect::Effect;
use crate::fact::DeploymentFact;
use crate::report::Failure;
use crate::spec::BeforeDeploy;
use jiff::{SignedDuration, Timestamp};

/// `since` the deployment rolls out; its task has to have been started at `limit`.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    before_deploy: &BeforeDeploy,
    task: Option<&OneOffTask>,
    (since, limit): (Timestamp, Timestamp),
) {
    let id = deployment.id.clone();
    let Some(task) = task else {
        if draft.now >= limit {
            let failure = Failure::timed_out("before_deploy could not be started in time")
                .with_details(vec![
                    "an answer of ECS may have been lost: look for a task of it before going on"
                        .into(),
                ]);
            fact(draft, deployment, DeploymentFact::Failed { failure });
        } else {
            draft.effect(Effect::StartBeforeDeploy { deployment: id });
            let reason = "before_deploy to be started";
            wait(draft, deployment, reason, since, Some(limit));
        }
        return;
    };
    let seconds = i64::try_from(before_deploy.timeout.0).unwrap_or(i64::MAX);
    let end = task.started_at + SignedDuration::from_secs(seconds);
    draft.effect(Effect::WatchBeforeDeploy {
        deployment: id.clone(),
    });
    let reason = if draft.now >= end {
        // Its end is waited for then, too: two of them at once could meet on the same rows.
        draft.effect(Effect::StopBeforeDeploy { deployment: id });
        format!("before_deploy to be stopped: task {}", task.name())
    } else {
        format!("before_deploy to end: task {}", task.name())
    };
    wait(draft, deployment, &reason, task.started_at, Some(end));
}
