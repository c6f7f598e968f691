//! Runs the one task that has to end well before a service is touched.
//!
//! Two of them at once could meet on the same rows of a database. So a task is looked for before it is
//! started; a start that may be under way is never given up; and while a task is known, nothing but its
//! end, or ECS's having forgotten it, ends its deployment.

use super::{Executor, Outcome, Tried};
use crate::adapters::aws::AwsError;
use crate::adapters::cluster::{OneOffSeen, OneOffStart, ServiceAddress};
use jiff::SignedDuration;
use roadstead_pipelines::deployment::{Deployment, DeploymentState, OneOff, OneOffTask, Rollout};
use roadstead_pipelines::fact::DeploymentFact;
use roadstead_pipelines::id::DeploymentId;
use roadstead_pipelines::outcome;
use roadstead_pipelines::report::Failure;
use sha2::{Digest, Sha256};

/// ECS shows a task that it has accepted within this time: its answers are eventually consistent.
const SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(120);
/// For how long it is tried to start one when the file does not say how long a rollout may take.
const START_WITHIN: SignedDuration = SignedDuration::from_mins(30);

impl Executor {
    pub(super) async fn start_before_deploy(
        &self,
        id: &DeploymentId,
        last_error: Option<&str>,
    ) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let DeploymentState::RollingOut {
            since,
            rollout:
                Rollout::BeforeDeploy {
                    task_definition,
                    before_deploy,
                    task: None,
                    creates,
                },
        } = &deployment.state
        else {
            return Ok(Outcome::moved_on());
        };
        let address = address(before_deploy);
        let token = token(&deployment, task_definition);
        let started = |task| Outcome::deployment(id, DeploymentFact::BeforeDeployStarted { task });
        let limit = match self.target(&deployment).await? {
            Ok(target) => target.rollout_timeout,
            Err(_) => START_WITHIN,
        };
        let is_over = self.clock.now().duration_since(*since) >= limit;
        // The answer to an earlier try may have been lost, and ECS keeps tokens for a limited time.
        let error = match self.cluster.find_one_off(&address, &token).await {
            Ok(Some(task)) => return Ok(started(task)),
            Ok(None) if !is_over => None,
            Ok(None) => Some(last_error.unwrap_or("nobody tried").to_owned()),
            Err(error) if !is_over => return Ok(later(&error)),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            let seconds = limit.as_secs();
            let message = format!("before_deploy could not be started within {seconds} s: {error}");
            return Ok(Outcome::deployment_failed(id, Failure::timed_out(message)));
        }
        let start = OneOffStart {
            task_definition,
            container: before_deploy.container.as_deref(),
            command: &before_deploy.run.command,
            create: before_deploy.create.as_deref().filter(|_| *creates),
            deployment: id.as_str(),
            token: &token,
        };
        self.check_leases()?;
        Ok(started(self.cluster.start_one_off(&address, &start).await?))
    }

    pub(super) async fn watch_before_deploy(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let Some((before_deploy, OneOffTask { arn, started_at })) = running(&deployment) else {
            return Ok(Outcome::moved_on());
        };
        let seen = self.cluster.see_one_off(&address(before_deploy), arn).await;
        Ok(match seen {
            Ok(OneOffSeen::Stopped { task, container }) => {
                Outcome::deployment(id, outcome::judge_before_deploy(&task, &container))
            }
            Ok(OneOffSeen::Alive) => Outcome::NotYet,
            Ok(OneOffSeen::Unknown)
                if self.clock.now().duration_since(*started_at) < SHOWN_AFTER =>
            {
                Outcome::NotYet
            }
            Ok(OneOffSeen::Unknown) => {
                let failure = Failure::errored(
                    "ECS no longer knows the task of before_deploy: how it ended was not seen",
                );
                let detail = format!("it was {arn}; ECS forgets a task an hour after its end");
                Outcome::deployment_failed(id, failure.with_details(vec![detail]))
            }
            Err(error) => later(&error),
        })
    }

    pub(super) async fn stop_before_deploy(&self, id: &DeploymentId) -> Tried {
        let deployment = self.store.get_deployment(id).await?.deployment;
        let Some((before_deploy, OneOffTask { arn, .. })) = running(&deployment) else {
            return Ok(Outcome::moved_on());
        };
        self.check_leases()?;
        let reason = outcome::BEFORE_DEPLOY_TIMED_OUT;
        let stopped = self
            .cluster
            .stop_one_off(&address(before_deploy), arn, reason)
            .await;
        Ok(match stopped {
            // What comes of it is seen by whoever watches it.
            Ok(()) => Outcome::Done(vec![]),
            Err(error) => later(&error),
        })
    }
}

/// Whatever the error is: the task is there or may be, whether it can be seen or not.
fn later(error: &AwsError) -> Outcome {
    Outcome::Later {
        error: error.to_string(),
    }
}

fn address(one_off: &OneOff) -> ServiceAddress {
    ServiceAddress {
        region: one_off.region.clone(),
        cluster: one_off.cluster.clone(),
        service: one_off.service.clone(),
    }
}

/// What tells the task of this deployment, or the service that it makes, from all others. The number of a deployment may be given again
/// after the database came back from a copy.
pub(super) fn token(deployment: &Deployment, task_definition: &str) -> String {
    let of = format!(
        "{} {} {task_definition}",
        deployment.id, deployment.created_at
    );
    let digest = hex::encode(Sha256::digest(of));
    format!("roadstead-{}", digest.get(..24).unwrap_or(&digest))
}

/// The task that a deployment has begun with.
fn running(deployment: &Deployment) -> Option<(&OneOff, &OneOffTask)> {
    match &deployment.state {
        DeploymentState::RollingOut {
            rollout:
                Rollout::BeforeDeploy {
                    before_deploy,
                    task: Some(task),
                    ..
                },
            ..
        } => Some((before_deploy, task)),
        _ => None,
    }
}
