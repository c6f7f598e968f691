//! What has to be done before a service is touched: one task of the new image, waited for to its end.
//!
//! Nothing is taken back when it fails, as the service was not touched; what the task itself changed is
//! not Roadstead's to undo. It is not run for rollbacks.

use super::Draft;
use super::rollouts::wait;
use crate::deployment::{Deployment, OneOff, OneOffTask};
use crate::effect::Effect;
use jiff::{SignedDuration, Timestamp};

/// `since` the deployment rolls out; at `limit` its task has to have been started.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    before_deploy: &OneOff,
    task: Option<&OneOffTask>,
    (since, limit): (Timestamp, Timestamp),
) {
    let id = deployment.id.clone();
    let Some(task) = task else {
        // Given up by whoever starts it and not here: a call of ECS may be under way at this moment, and
        // a task that nobody knows of would run beside the next one.
        draft.effect(Effect::StartBeforeDeploy { deployment: id });
        let reason = "before_deploy to be started";
        wait(draft, deployment, reason, since, Some(limit));
        return;
    };
    let seconds = i64::try_from(before_deploy.run.timeout.0).unwrap_or(i64::MAX);
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
