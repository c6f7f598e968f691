//! The cluster that services run in: Amazon ECS, with the health of its load balancers' targets and
//! the logs of its tasks.
//!
//! A task definition stays raw JSON from describe to register, so that a member which is newer than
//! the SDK is not lost. Every change is observed first, so that it may be asked for again after a
//! crash. Desired counts are sent only when a service is made. What is remembered here never changes in AWS: definitions,
//! service revisions, and the last words of tasks that stopped.

mod create;
mod definitions;
mod last_words;
mod memory;
mod observe;
mod one_off;
mod raw;
mod rollout;
mod tasks;

pub use create::NewService;
pub use one_off::{OneOffSeen, OneOffStart};
pub use raw::Base;
pub use rollout::Stopping;

use super::aws::{Aws, AwsError, Clients};
use aws_config::retry::RetryConfig;
use definitions::Definition;
use memory::Memory;
use roadstead_pipelines::spec::ResolvedTarget;
use std::collections::BTreeMap;
use std::sync::Arc;

/// DescribeServices takes so many names.
const SERVICES_PER_CALL: usize = 10;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// The Region; the server's default when absent.
    pub region: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The service's name.
    pub service: String,
}

impl From<&ResolvedTarget> for ServiceAddress {
    fn from(target: &ResolvedTarget) -> Self {
        Self {
            region: target.region.clone(),
            cluster: target.cluster.clone(),
            service: target.service.clone(),
        }
    }
}

/// Amazon ECS.
#[derive(Clone)]
pub struct Cluster {
    aws: Aws,
    definitions: Arc<Memory<Arc<Definition>>>,
    revisions: Arc<Memory<String>>,
    instances: Arc<Memory<String>>,
    last_words: Arc<Memory<Vec<String>>>,
}

impl Cluster {
    /// The clusters of this AWS.
    #[must_use]
    pub fn new(aws: Aws) -> Self {
        Self {
            aws,
            definitions: Arc::default(),
            revisions: Arc::default(),
            instances: Arc::default(),
            last_words: Arc::default(),
        }
    }

    /// The Region of environments that name none.
    #[must_use]
    pub fn default_region(&self) -> &str {
        self.aws.default_region()
    }

    async fn clients(&self, address: &ServiceAddress) -> Arc<Clients> {
        self.aws.clients(address.region.as_deref()).await
    }
}

type Service = aws_sdk_ecs::types::Service;

/// Sends a call once. One that changes something is repeated only by whoever looks first: after a lost
/// reply the SDK would do it twice.
fn once() -> aws_sdk_ecs::config::Builder {
    aws_sdk_ecs::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// Describes services of one cluster, each found or not on its own.
///
/// # Errors
/// What went wrong with the call as a whole.
async fn describe_services(
    clients: &Clients,
    cluster: &str,
    names: &[String],
) -> Result<BTreeMap<String, Result<Service, AwsError>>, AwsError> {
    let mut all = BTreeMap::new();
    for names in names.chunks(SERVICES_PER_CALL) {
        let request = clients.ecs.describe_services().cluster(cluster);
        let answer = request.set_services(Some(names.to_vec())).send().await;
        let answer = answer.map_err(|error| {
            let error = AwsError::of("ecs:DescribeServices", &error);
            if error.has_code("ClusterNotFoundException") {
                let (cluster, region) = (cluster.to_owned(), clients.region.clone());
                AwsError::UnknownCluster { cluster, region }
            } else {
                error
            }
        })?;
        for name in names {
            // An inactive service is a deleted one that is still remembered.
            let found = answer.services().iter().find(|service| {
                service.service_name() == Some(name) && service.status() == Some("ACTIVE")
            });
            let found = found.cloned().ok_or_else(|| AwsError::UnknownService {
                cluster: cluster.to_owned(),
                service: name.clone(),
                region: clients.region.clone(),
            });
            all.insert(name.clone(), found);
        }
    }
    Ok(all)
}

/// Describes one service.
async fn describe_service(
    clients: &Clients,
    address: &ServiceAddress,
) -> Result<Service, AwsError> {
    let names = std::slice::from_ref(&address.service);
    let mut found = describe_services(clients, &address.cluster, names).await?;
    found.remove(&address.service).unwrap_or_else(|| {
        Err(AwsError::UnknownService {
            cluster: address.cluster.clone(),
            service: address.service.clone(),
            region: clients.region.clone(),
        })
    })
}
