//! Begins rollouts and asks ECS to take them back.

use super::{Cluster, Service, ServiceAddress, describe_service, once};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::{
    Deployment, DeploymentConfiguration, DeploymentRolloutState, ServiceDeploymentBrief,
    ServiceDeploymentStatus, StopServiceDeploymentStopType,
};
use roadstead_pipelines::deployment::EcsRollout;

/// What became of asking ECS to take a rollout back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopping {
    /// ECS does it, or did it already.
    TakingBack,
    /// ECS cannot: things stay as they are.
    Impossible {
        /// Why.
        reason: String,
    },
}

pub(super) fn primary(service: &Service) -> Option<&Deployment> {
    service
        .deployments()
        .iter()
        .find(|deployment| deployment.status() == Some("PRIMARY"))
}

pub(super) fn id(deployment: &Deployment) -> String {
    deployment.id().unwrap_or_default().to_owned()
}

impl Cluster {
    /// Points a service to a registered definition. A service whose PRIMARY deployment runs it already
    /// is left alone, which makes the call safe to repeat. The percents go with the same call, on top of
    /// what the service has (its circuit breaker stays); the desired count is never sent.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn update_service(
        &self,
        address: &ServiceAddress,
        task_definition: &str,
        min_healthy_percent: Option<u32>,
        max_percent: Option<u32>,
    ) -> Result<EcsRollout, AwsError> {
        const ACTION: &str = "ecs:UpdateService";
        let clients = self.clients(address).await;
        let before = describe_service(&clients, address).await?;
        let was_primary = primary(&before);
        if let Some(ours) = was_primary.filter(|p| p.task_definition() == Some(task_definition)) {
            let others = before
                .deployments()
                .iter()
                .filter(|other| other.id() != ours.id());
            let previous = others.max_by_key(|other| other.created_at().map(|at| at.as_nanos()));
            return Ok(EcsRollout {
                deployment: id(ours),
                previous: previous.map(id),
            });
        }
        let configuration = configuration(&before, min_healthy_percent, max_percent);
        let request = clients.ecs.update_service().cluster(&address.cluster);
        let request = request
            .service(&address.service)
            .task_definition(task_definition);
        let answer = request
            .set_deployment_configuration(configuration)
            .customize()
            .config_override(once())
            .send()
            .await;
        let answer = answer.map_err(|error| {
            let error = AwsError::of(ACTION, &error);
            if error.has_code("ServiceNotFoundException")
                || error.has_code("ServiceNotActiveException")
            {
                AwsError::UnknownService {
                    cluster: address.cluster.clone(),
                    service: address.service.clone(),
                    region: clients.region.clone(),
                }
            } else {
                error
            }
        })?;
        let made = answer.service().and_then(primary).map(id);
        let deployment = made.ok_or_else(|| AwsError::Unavailable {
            action: ACTION,
            message: "the answer names no PRIMARY deployment".into(),
        })?;
        Ok(EcsRollout {
            deployment,
            previous: was_primary.map(id),
        })
    }

    /// The rollout to this definition that ECS was asked for before and has given up since: its newest one is to
    /// the definition, and the service runs another. Only of a definition that was made for one rollout. Its id
    /// among the service's deployments is not known any more; the service deployment's ARN stands for it. None
    /// also when ECS may not be asked.
    ///
    /// # Errors
    /// [`AwsError`]; transient when ECS lists the rollout as one that goes well and does not show it yet.
    pub async fn taken_back(
        &self,
        address: &ServiceAddress,
        task_definition: &str,
    ) -> Result<Option<EcsRollout>, AwsError> {
        let clients = self.clients(address).await;
        let service = describe_service(&clients, address).await?;
        if primary(&service).is_some_and(|p| p.task_definition() == Some(task_definition)) {
            return Ok(None);
        }
        let newest = match newest_service_deployment(&clients, address).await {
            Ok(Some(newest)) => newest,
            Ok(None) => return Ok(None),
            Err(error) if error.is_out_of_reach() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (Some(arn), Some(revision)) = (
            newest.service_deployment_arn(),
            newest.target_service_revision_arn(),
        ) else {
            return Ok(None);
        };
        if self.revision(&clients, revision).await?.as_deref() != Some(task_definition) {
            return Ok(None);
        }
        match newest.status() {
            Some(
                ServiceDeploymentStatus::Pending
                | ServiceDeploymentStatus::InProgress
                | ServiceDeploymentStatus::Successful,
            )
            | None => Err(AwsError::Unavailable {
                action: "ecs:DescribeServices",
                message: format!("the service is not shown with rollout {arn} yet"),
            }),
            Some(_) => Ok(Some(EcsRollout {
                deployment: arn.to_owned(),
                previous: None,
            })),
        }
    }

    /// Asks ECS to take a rollout back to its last completed deployment.
    ///
    /// # Errors
    /// [`AwsError`]; transient also while ECS does not list the rollout yet, which lags.
    pub async fn stop_rollout(
        &self,
        address: &ServiceAddress,
        ecs: &EcsRollout,
    ) -> Result<Stopping, AwsError> {
        let clients = self.clients(address).await;
        let service = describe_service(&clients, address).await?;
        let Some(ours) = primary(&service).filter(|p| p.id() == Some(&ecs.deployment)) else {
            return Ok(Stopping::TakingBack);
        };
        match ours.rollout_state() {
            Some(DeploymentRolloutState::Completed) => {
                let reason =
                    "ECS has completed the rollout: there is nothing in progress to take back";
                return Ok(Stopping::Impossible {
                    reason: reason.into(),
                });
            }
            Some(DeploymentRolloutState::Failed) => {
                let why = ours.rollout_state_reason().unwrap_or("it gives no reason");
                let reason =
                    format!("ECS gave the rollout up and has nothing to go back to: {why}");
                return Ok(Stopping::Impossible { reason });
            }
            _ => {}
        }
        let newest = newest_service_deployment(&clients, address).await?;
        let in_progress = newest
            .as_ref()
            .and_then(|n| Some((n.status()?, n.service_deployment_arn()?)));
        match in_progress {
            Some((
                ServiceDeploymentStatus::RollbackRequested
                | ServiceDeploymentStatus::RollbackInProgress,
                _,
            )) => Ok(Stopping::TakingBack),
            Some((
                ServiceDeploymentStatus::Pending
                | ServiceDeploymentStatus::InProgress
                | ServiceDeploymentStatus::StopRequested,
                arn,
            )) => stop(&clients, arn).await,
            _ => Err(AwsError::Unavailable {
                action: "ecs:ListServiceDeployments",
                message: format!("rollout {} is not listed yet", ecs.deployment),
            }),
        }
    }
}

async fn stop(clients: &Clients, service_deployment: &str) -> Result<Stopping, AwsError> {
    let request = clients
        .ecs
        .stop_service_deployment()
        .service_deployment_arn(service_deployment);
    let answer = request
        .stop_type(StopServiceDeploymentStopType::Rollback)
        .customize()
        .config_override(once())
        .send()
        .await;
    match answer.map_err(|error| AwsError::of("ecs:StopServiceDeployment", &error)) {
        Ok(_) => Ok(Stopping::TakingBack),
        Err(AwsError::Other { code, message, .. })
            if code != "ServiceDeploymentNotFoundException" =>
        {
            Ok(Stopping::Impossible {
                reason: format!("ECS does not take it back: {message} ({code})"),
            })
        }
        Err(AwsError::Other {
            action, message, ..
        }) => Err(AwsError::Unavailable { action, message }),
        Err(error) => Err(error),
    }
}

/// The service's own configuration with our percents laid over it; none when we have none.
fn configuration(
    service: &Service,
    min_healthy_percent: Option<u32>,
    max_percent: Option<u32>,
) -> Option<DeploymentConfiguration> {
    let percent = |percent: Option<u32>| percent.and_then(|percent| i32::try_from(percent).ok());
    let (min, max) = (percent(min_healthy_percent), percent(max_percent));
    if min.is_none() && max.is_none() {
        return None;
    }
    let mut all = service
        .deployment_configuration()
        .cloned()
        .unwrap_or_else(|| DeploymentConfiguration::builder().build());
    all.minimum_healthy_percent = min.or(all.minimum_healthy_percent);
    all.maximum_percent = max.or(all.maximum_percent);
    Some(all)
}

/// The newest service deployment; none when ECS lists none.
pub(super) async fn newest_service_deployment(
    clients: &Clients,
    address: &ServiceAddress,
) -> Result<Option<ServiceDeploymentBrief>, AwsError> {
    let request = clients
        .ecs
        .list_service_deployments()
        .cluster(&address.cluster);
    let answer = request.service(&address.service).send().await;
    let answer = answer.map_err(|error| AwsError::of("ecs:ListServiceDeployments", &error))?;
    let newest = answer.service_deployments.unwrap_or_default().into_iter();
    Ok(newest.max_by_key(|deployment| deployment.created_at().map(|at| at.as_nanos())))
}
