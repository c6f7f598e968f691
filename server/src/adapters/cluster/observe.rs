//! Looks at services: one DescribeServices for many, and for each what explains it.

use super::rollout::newest_service_deployment;
use super::tasks::{Group, Running, list, time};
use super::{Cluster, Service, ServiceAddress, describe_services};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::{Deployment, DesiredStatus, ServiceDeploymentStatus};
use futures_util::{StreamExt, stream};
use roadstead_pipelines::observation::{
    EcsDeployment, EventSeen, ServiceDeploymentSeen, ServiceSeen,
};
use std::collections::BTreeMap;

/// Services of one cluster that are looked at together.
const AT_ONCE: usize = 4;
/// Events that are kept, newest first.
const MOST_EVENTS: usize = 20;

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

impl Cluster {
    /// Looks at services of one cluster. Each is seen or not on its own.
    pub async fn observe(
        &self,
        region: Option<&str>,
        cluster: &str,
        services: &[String],
    ) -> BTreeMap<String, Result<ServiceSeen, AwsError>> {
        let clients = self.aws.clients(region).await;
        let described = match describe_services(&clients, cluster, services).await {
            Ok(described) => described,
            Err(error) => {
                return services
                    .iter()
                    .map(|name| (name.clone(), Err(error.clone())))
                    .collect();
            }
        };
        let looks = described.into_iter().map(|(name, described)| {
            let address = ServiceAddress {
                region: region.map(str::to_owned),
                cluster: cluster.to_owned(),
                service: name.clone(),
            };
            let clients = &clients;
            async move {
                let seen = match described {
                    Ok(service) => self.look(clients, &address, &service).await,
                    Err(error) => Err(error),
                };
                (name, seen)
            }
        });
        stream::iter(looks)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn look(
        &self,
        clients: &Clients,
        address: &ServiceAddress,
        service: &Service,
    ) -> Result<ServiceSeen, AwsError> {
        let (service_deployment, stopped, running, groups) = tokio::try_join!(
            self.service_deployment(clients, address),
            self.stopped(clients, address),
            self.running(clients, address),
            self.groups(clients, service.load_balancers()),
        )?;
        let mut deployments = vec![];
        for deployment in service.deployments() {
            deployments.push(
                self.deployment(clients, deployment, &running, &groups)
                    .await?,
            );
        }
        deployments.sort_by_key(|deployment| deployment.status != "PRIMARY");
        let events = service
            .events()
            .iter()
            .take(MOST_EVENTS)
            .map(|event| EventSeen {
                at: time(event.created_at()),
                message: event.message().unwrap_or_default().to_owned(),
            });
        Ok(ServiceSeen {
            task_definition: service.task_definition().unwrap_or_default().to_owned(),
            desired: count(service.desired_count()),
            running: count(service.running_count()),
            pending: count(service.pending_count()),
            deployments,
            service_deployment,
            stopped,
            targets: groups
                .iter()
                .flat_map(|g| &g.targets)
                .map(|target| target.seen())
                .collect(),
            events: events.collect(),
        })
    }

    async fn running(
        &self,
        clients: &Clients,
        address: &ServiceAddress,
    ) -> Result<Vec<Running>, AwsError> {
        let mut running = vec![];
        for task in list(clients, address, DesiredStatus::Running).await? {
            let instance = match task.container_instance_arn() {
                Some(arn) => self.instance(clients, &address.cluster, arn).await,
                None => None,
            };
            running.push(Running { task, instance });
        }
        Ok(running)
    }

    async fn deployment(
        &self,
        clients: &Clients,
        deployment: &Deployment,
        running: &[Running],
        groups: &[Group],
    ) -> Result<EcsDeployment, AwsError> {
        let id = deployment.id().unwrap_or_default();
        let task_definition = deployment.task_definition().unwrap_or_default();
        let has_checks = self
            .definition(clients, task_definition)
            .await?
            .is_checked();
        let own = running
            .iter()
            .filter(|running| running.task.started_by() == Some(id));
        let healthy = own
            .filter(|running| running.is_healthy(groups, has_checks))
            .count();
        let something_checks = has_checks || !groups.is_empty();
        Ok(EcsDeployment {
            id: id.to_owned(),
            status: deployment.status().unwrap_or_default().to_owned(),
            task_definition: task_definition.to_owned(),
            rollout_state: deployment
                .rollout_state()
                .map(|state| state.as_str().to_owned()),
            rollout_reason: deployment
                .rollout_state_reason()
                .unwrap_or_default()
                .to_owned(),
            desired: count(deployment.desired_count()),
            running: count(deployment.running_count()),
            pending: count(deployment.pending_count()),
            failed: count(deployment.failed_tasks()),
            healthy: something_checks.then(|| u32::try_from(healthy).unwrap_or(u32::MAX)),
            created_at: time(deployment.created_at()),
        })
    }

    /// The newest service deployment; none when there is none or it may not be read.
    async fn service_deployment(
        &self,
        clients: &Clients,
        address: &ServiceAddress,
    ) -> Result<Option<ServiceDeploymentSeen>, AwsError> {
        let newest = match newest_service_deployment(clients, address).await {
            Ok(newest) => newest,
            Err(error) if error.is_out_of_reach() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((newest, arn)) =
            newest.and_then(|n| n.service_deployment_arn.clone().map(|a| (n, a)))
        else {
            return Ok(None);
        };
        let task_definition = match newest.target_service_revision_arn() {
            Some(revision) => self.revision(clients, revision).await?,
            None => None,
        };
        let goes_well = matches!(
            newest.status(),
            Some(
                ServiceDeploymentStatus::Pending
                    | ServiceDeploymentStatus::InProgress
                    | ServiceDeploymentStatus::Successful
            )
        );
        let mut reason = newest.status_reason().unwrap_or_default().to_owned();
        if reason.is_empty() && !goes_well {
            reason = rollback_reason(clients, &arn).await?;
        }
        Ok(Some(ServiceDeploymentSeen {
            arn,
            status: newest
                .status()
                .map(|status| status.as_str().to_owned())
                .unwrap_or_default(),
            reason,
            task_definition,
        }))
    }

    /// The definition of a service revision; none when it may not be read.
    pub(super) async fn revision(
        &self,
        clients: &Clients,
        arn: &str,
    ) -> Result<Option<String>, AwsError> {
        if let Some(known) = self.revisions.get(arn) {
            return Ok(Some(known));
        }
        let answer = clients
            .ecs
            .describe_service_revisions()
            .service_revision_arns(arn)
            .send()
            .await;
        match answer.map_err(|error| AwsError::of("ecs:DescribeServiceRevisions", &error)) {
            Ok(answer) => {
                let found = answer
                    .service_revisions()
                    .first()
                    .and_then(|r| r.task_definition());
                if let Some(found) = found {
                    self.revisions.keep(arn, found.to_owned());
                }
                Ok(found.map(str::to_owned))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// Why ECS took a service deployment back; empty when it does not say or may not be asked.
async fn rollback_reason(clients: &Clients, arn: &str) -> Result<String, AwsError> {
    let request = clients
        .ecs
        .describe_service_deployments()
        .service_deployment_arns(arn);
    match request.send().await {
        Ok(answer) => {
            let found = answer.service_deployments().first();
            let rollback = found
                .and_then(|found| found.rollback())
                .and_then(|r| r.reason());
            let status = found.and_then(|found| found.status_reason());
            Ok(rollback.or(status).unwrap_or_default().to_owned())
        }
        Err(error) => match AwsError::of("ecs:DescribeServiceDeployments", &error) {
            error if error.is_transient() => Err(error),
            _ => Ok(String::new()),
        },
    }
}
