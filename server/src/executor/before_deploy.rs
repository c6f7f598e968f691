//! Runs the one task that has to end well before a service is touched.

use super::{Executor, Outcome, Tried};
use crate::adapters::cluster::{OneOff, OneOffSeen};
use crate::clock;
use jiff::SignedDuration;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, OneOffTask, Rollout};
use roadstead_pipelines::fact::DeploymentFact;
use roadstead_pipelines::id::DeploymentId;
use roadstead_pipelines::outcome;
use roadstead_pipelines::report::Failure;
use sha2::{Digest, Sha256};

/// ECS shows a task that it has accepted within this time: its answers are eventually consistent.
const SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(120);

impl Executor {
    pub(super) async fn start_before_deploy(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingOut {
            rollout:
                Rollout::BeforeDeploy {
                    task_definition,
                    before_deploy,
                    task: None,
                },
            ..
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let target = match self.target(&deployment).await? {
            Ok(target) => target,
            Err(failure) => return Ok(Outcome::deployment_failed(id, failure)),
        };
        // The number of a deployment may be given again after the database came back from a copy.
        let token = format!("{id} {} {task_definition}", deployment.created_at);
        let digest = hex::encode(Sha256::digest(token));
        let one_off = OneOff {
            task_definition,
            container: container(&target.pipeline, &deployment.place.service),
            command: &before_deploy.command,
            deployment: id.as_str(),
            token: &format!("roadstead-{}", digest.get(..24).unwrap_or(&digest)),
        };
        self.check_leases()?;
        let task = self
            .cluster
            .start_one_off(&target.address, &one_off)
            .await?;
        Ok(Outcome::deployment(
            id,
            DeploymentFact::BeforeDeployStarted { task },
        ))
    }

    pub(super) async fn watch_before_deploy(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingOut {
            rollout:
                Rollout::BeforeDeploy {
                    task: Some(OneOffTask { arn, started_at }),
                    ..
                },
            ..
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let target = match self.target(&deployment).await? {
            Ok(target) => target,
            Err(failure) => return Ok(Outcome::deployment_failed(id, failure)),
        };
        let wanted = container(&target.pipeline, &deployment.place.service);
        let seen = self.cluster.see_one_off(&target.address, arn, wanted);
        Ok(match seen.await? {
            OneOffSeen::Stopped { task, container } => {
                Outcome::deployment(id, outcome::judge_before_deploy(&task, &container))
            }
            OneOffSeen::Alive => Outcome::NotYet,
            OneOffSeen::Unknown if clock::now().duration_since(*started_at) < SHOWN_AFTER => {
                Outcome::NotYet
            }
            OneOffSeen::Unknown => {
                let failure = Failure::errored(
                    "ECS no longer knows the task of before_deploy: how it ended was not seen",
                );
                let detail = format!("it was {arn}; ECS forgets a task an hour after its end");
                Outcome::deployment_failed(id, failure.with_details(vec![detail]))
            }
        })
    }

    pub(super) async fn stop_before_deploy(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let Some(OneOffTask { arn, .. }) = running(&deployment) else {
            return Ok(Outcome::moved_on());
        };
        let target = match self.target(&deployment).await? {
            Ok(target) => target,
            Err(failure) => return Ok(Outcome::deployment_failed(id, failure)),
        };
        self.check_leases()?;
        let reason = outcome::BEFORE_DEPLOY_TIMED_OUT;
        self.cluster
            .stop_one_off(&target.address, arn, reason)
            .await?;
        // What comes of it is seen by whoever watches it.
        Ok(Outcome::Done(vec![]))
    }
}

/// The task that a deployment has begun with.
fn running(deployment: &Deployment) -> Option<&OneOffTask> {
    match &deployment.state {
        DeploymentState::RollingOut {
            rollout: Rollout::BeforeDeploy { task, .. },
            ..
        } => task.as_ref(),
        _ => None,
    }
}

/// The container that the file names for a service.
fn container<'a>(
    pipeline: &'a roadstead_pipelines::spec::Pipeline,
    service: &roadstead_pipelines::id::ServiceName,
) -> Option<&'a str> {
    pipeline.services.get(service)?.container.as_deref()
}
