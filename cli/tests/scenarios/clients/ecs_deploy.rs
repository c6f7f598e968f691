//! `ecs-deploy` of PyPI: it registers a revision of its own, deploys it and waits, and says how it went
//! by its status.

use super::Client;
use super::boto3::Boto3;
use super::command_line::environment;
use crate::look::{self, Look};
use crate::python;
use tokio::process::Command;

/// The version that the scenarios were written for.
const ECS_DEPLOY: &str = "ecs-deploy==1.17.0";

/// Deploys with `ecs-deploy`, looks with boto3.
pub(crate) struct EcsDeploy {
    endpoint: String,
    boto3: Boto3,
    /// Whether the last deployment went well, in its own opinion.
    pub(crate) satisfied: bool,
    /// What it printed.
    pub(crate) said: String,
}

impl EcsDeploy {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            boto3: Boto3::new(endpoint),
            satisfied: false,
            said: String::new(),
        }
    }
}

impl Client for EcsDeploy {
    async fn roll_out(&mut self, definition: &str) -> String {
        let python = python::environment(ECS_DEPLOY);
        let mut ecs = Command::new(&python);
        environment(&mut ecs, &self.endpoint);
        let told = ecs
            .arg("-B")
            .arg(python.with_file_name("ecs"))
            .args(["deploy", "main", "web", "--task", definition])
            .args(["--timeout", "120", "--sleep-time", "1", "--no-deregister"])
            .output()
            .await
            .unwrap();
        self.satisfied = told.status.success();
        self.said = String::from_utf8_lossy(&told.stdout).into_owned();
        self.said += &String::from_utf8_lossy(&told.stderr);
        let (family, _) = definition.rsplit_once(':').unwrap();
        let (_, rest) = self.said.split_once("created revision: ").unwrap();
        let revision = rest.split_whitespace().next().unwrap();
        format!("{family}:{revision}")
    }

    async fn stop(&mut self) {
        unreachable!("ecs-deploy stops nothing");
    }

    async fn look(&mut self) -> Look {
        look::look(&mut self.boto3).await
    }
}
