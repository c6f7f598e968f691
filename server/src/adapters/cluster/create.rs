//! Makes a service that does not exist yet.

use super::rollout::{id, primary};
use super::{Cluster, ServiceAddress, describe_service, once, raw};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, DeploymentCircuitBreaker, DeploymentConfiguration,
    LaunchType as EcsLaunchType, LoadBalancer, NetworkConfiguration, ServiceConnectClientAlias,
    ServiceConnectConfiguration, ServiceConnectService, ServiceRegistry,
};
use roadstead_pipelines::deployment::EcsRollout;
use roadstead_pipelines::spec::{Create, LaunchType, PortOf, ServiceConnect};
use roadstead_pipelines::task_definition::container_of;

/// A service to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewService<'a> {
    /// A registered definition.
    pub task_definition: &'a str,
    /// The container that gets the image; none is the only one, or the first essential. A load balancer finds it,
    /// unless another one is named.
    pub container: Option<&'a str>,
    /// What it is made with.
    pub create: &'a Create,
    /// ECS's own when absent.
    pub min_healthy_percent: Option<u32>,
    /// ECS's own when absent.
    pub max_percent: Option<u32>,
    /// At most 36 letters, digits and `-`: the same for each try, and no other service's.
    pub token: &'a str,
}

impl Cluster {
    /// Whether a service is there.
    ///
    /// # Errors
    /// [`AwsError::UnknownService`] when it is not, and others.
    pub async fn find_service(&self, address: &ServiceAddress) -> Result<(), AwsError> {
        let clients = self.clients(address).await;
        describe_service(&clients, address).await.map(drop)
    }

    /// Makes a service, with ECS's circuit breaker on. One that is there by now is taken as it is, and updated
    /// like any other, which makes the call safe to repeat.
    ///
    /// # Errors
    /// [`AwsError`]; transient also when ECS knows the service and does not show it yet, or has not finished
    /// deleting one of this name.
    pub async fn create_service(
        &self,
        address: &ServiceAddress,
        new: &NewService<'_>,
    ) -> Result<EcsRollout, AwsError> {
        const ACTION: &str = "ecs:CreateService";
        let (min, max) = (new.min_healthy_percent, new.max_percent);
        let updated = self.update_service(address, new.task_definition, min, max);
        match updated.await {
            Err(AwsError::UnknownService { .. }) => {}
            other => return other,
        }
        let clients = self.clients(address).await;
        let create = new.create;
        let targets = match &create.target_group {
            Some(group) => Some(vec![targets(&clients, group, new).await?]),
            None => None,
        };
        let request = clients.ecs.create_service().cluster(&address.cluster);
        let request = request
            .service_name(&address.service)
            .task_definition(new.task_definition)
            .client_token(new.token)
            .desired_count(number(
                create
                    .desired_count
                    .unwrap_or(Create::DEFAULT_DESIRED_COUNT),
            ))
            .set_launch_type(launch_type(create))
            .set_network_configuration(network(create))
            .deployment_configuration(configuration(new))
            .set_health_check_grace_period_seconds(
                create
                    .health_check_grace_period
                    .map(|it| i32::try_from(it.0).unwrap_or(i32::MAX)),
            )
            .set_load_balancers(targets)
            .set_service_registries(
                create
                    .service_registry
                    .as_ref()
                    .map(|it| vec![registry(it)]),
            )
            .set_service_connect_configuration(
                create
                    .service_connect
                    .as_ref()
                    .map(service_connect)
                    .transpose()?,
            );
        let answer = request.customize().config_override(once()).send().await;
        let answer = answer.map_err(|error| match AwsError::of(ACTION, &error) {
            AwsError::Other { code, message, .. }
                if message.contains("not idempotent") || message.contains("Draining") =>
            {
                AwsError::Unavailable {
                    action: ACTION,
                    message: format!("{message} ({code})"),
                }
            }
            error if error.has_code("ClusterNotFoundException") => AwsError::UnknownCluster {
                cluster: address.cluster.clone(),
                region: clients.region.clone(),
            },
            error => error,
        })?;
        let made = answer.service().and_then(primary).map(id);
        let deployment = made.ok_or_else(|| AwsError::Unavailable {
            action: ACTION,
            message: "the answer names no PRIMARY deployment".into(),
        })?;
        Ok(EcsRollout {
            deployment,
            previous: None,
        })
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The launch type of a service that is to be made, and of tasks before it.
pub(super) fn launch_type(create: &Create) -> Option<EcsLaunchType> {
    create.launch_type.map(|it| match it {
        LaunchType::Ec2 => EcsLaunchType::Ec2,
        LaunchType::Fargate => EcsLaunchType::Fargate,
    })
}

/// The network of a service that is to be made, and of tasks before it; none unless tasks have one of their own.
pub(super) fn network(create: &Create) -> Option<NetworkConfiguration> {
    if create.subnets.is_empty() {
        return None;
    }
    let assign = create.assign_public_ip.map(|assign| {
        if assign {
            AssignPublicIp::Enabled
        } else {
            AssignPublicIp::Disabled
        }
    });
    let groups = &create.security_groups;
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(create.subnets.clone()))
        .set_security_groups((!groups.is_empty()).then(|| groups.clone()))
        .set_assign_public_ip(assign)
        .build()
        .ok()?;
    let network = NetworkConfiguration::builder().awsvpc_configuration(vpc);
    Some(network.build())
}

fn configuration(new: &NewService<'_>) -> DeploymentConfiguration {
    let breaker = DeploymentCircuitBreaker::builder()
        .enable(true)
        .rollback(true)
        .build();
    DeploymentConfiguration::builder()
        .set_minimum_healthy_percent(new.min_healthy_percent.map(number))
        .set_maximum_percent(new.max_percent.map(number))
        .deployment_circuit_breaker(breaker)
        .build()
}

async fn targets(
    clients: &Clients,
    group: &PortOf,
    new: &NewService<'_>,
) -> Result<LoadBalancer, AwsError> {
    let container = match &group.container {
        Some(container) => Some(container.clone()),
        None => {
            let base = raw::describe(clients, new.task_definition).await?;
            let container = container_of(&base.definition, new.container);
            container.and_then(|it| it["name"].as_str().map(str::to_owned))
        }
    };
    let targets = LoadBalancer::builder()
        .target_group_arn(&group.arn)
        .set_container_name(container)
        .set_container_port(group.port.map(number));
    Ok(targets.build())
}

/// A container is named where the file does: tasks with a network of their own need none.
fn registry(registry: &PortOf) -> ServiceRegistry {
    ServiceRegistry::builder()
        .registry_arn(&registry.arn)
        .set_container_name(registry.container.clone())
        .set_container_port(registry.port.map(number))
        .build()
}

fn service_connect(connect: &ServiceConnect) -> Result<ServiceConnectConfiguration, AwsError> {
    let wrong = |error: aws_sdk_ecs::error::BuildError| AwsError::Other {
        action: "ecs:CreateService",
        code: "service_connect".into(),
        message: error.to_string(),
    };
    let alias = ServiceConnectClientAlias::builder()
        .port(number(connect.port))
        .set_dns_name(connect.dns_name.clone())
        .build()
        .map_err(wrong)?;
    let service = ServiceConnectService::builder()
        .port_name(&connect.port_name)
        .set_discovery_name(connect.discovery_name.clone())
        .client_aliases(alias)
        .build()
        .map_err(wrong)?;
    let all = ServiceConnectConfiguration::builder()
        .enabled(true)
        .set_namespace(connect.namespace.clone())
        .services(service);
    Ok(all.build())
}
