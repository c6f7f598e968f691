//! The server's own adapter, over the AWS SDK for Rust.

use super::Client;
use crate::look::Look;
use roadstead_pipelines::deployment::EcsRollout;
use roadstead_pipelines::observation::StoppedTask;
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::cluster::{Cluster, ServiceAddress};
use roadstead_server::config;
use serde_json::Value;

pub(crate) struct Adapter {
    cluster: Cluster,
    at: ServiceAddress,
    rollout: Option<EcsRollout>,
}

impl Adapter {
    pub(crate) fn new(endpoint: &str) -> Self {
        let aws = Aws::new(&config::Aws {
            region: "us-east-1".to_owned(),
            endpoint_url: Some(endpoint.to_owned()),
        });
        Self {
            cluster: Cluster::new(aws),
            at: ServiceAddress {
                region: None,
                cluster: "main".to_owned(),
                service: "web".to_owned(),
            },
            rollout: None,
        }
    }
}

/// It rolls out and stops; services and how many tasks they have are somebody else's.
impl Client for Adapter {
    async fn create(&mut self, _members: &Value) -> bool {
        false
    }

    async fn roll_out(&mut self, definition: &str, _interrupted: bool) -> String {
        let rollout = self
            .cluster
            .update_service(&self.at, definition, None, None)
            .await;
        self.rollout = Some(rollout.unwrap());
        definition.to_owned()
    }

    async fn scale(&mut self, _desired: u32) -> bool {
        false
    }

    async fn stop(&mut self) {
        let rollout = self.rollout.as_ref().unwrap();
        self.cluster.stop_rollout(&self.at, rollout).await.unwrap();
    }

    async fn look(&mut self) -> Look {
        let services = [self.at.service.clone()];
        let mut seen = self.cluster.observe(None, "main", &services).await;
        let seen = seen.remove("web").unwrap().unwrap();
        Look {
            status: seen
                .service_deployment
                .map(|deployment| deployment.status)
                .unwrap_or_default(),
            definition: seen.task_definition,
            running: seen.running,
            stopped: seen.stopped.iter().map(last_words).collect(),
            events: seen.events.into_iter().map(|event| event.message).collect(),
            breaks_at: None,
        }
    }
}

fn last_words(task: &StoppedTask) -> String {
    let mut words = vec![task.stop_code.clone(), task.reason.clone()];
    words.extend(task.exit_codes.values().map(|code| format!("exit {code}")));
    words.push(task.container_reason.clone());
    words.retain(|word| !word.is_empty());
    words.join("; ")
}
