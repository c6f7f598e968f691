//! `ecs-deploy` of PyPI: it registers a revision of its own, deploys it and waits, and says how it went
//! by its status.

use super::Client;
use super::boto3::Boto3;
use super::command_line::environment;
use crate::look::{self, Look};
use crate::python;
use serde_json::Value;
use tokio::process::Command;

/// The version that the scenarios were written for.
const ECS_DEPLOY: &str = "ecs-deploy==1.17.0";

/// Deploys and scales with `ecs-deploy`. What that has no command for is boto3's.
pub(crate) struct EcsDeploy {
    endpoint: String,
    boto3: Boto3,
    /// How many seconds it waits for what it began.
    patience: u32,
    /// Whether the last thing it did went well, in its own opinion.
    pub(crate) satisfied: bool,
    /// What it printed.
    pub(crate) said: String,
}

impl EcsDeploy {
    pub(crate) fn new(endpoint: &str, patience: u32) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            boto3: Boto3::new(endpoint),
            patience,
            satisfied: false,
            said: String::new(),
        }
    }

    /// Gives a command, which waits so many seconds; not at all when there are none.
    async fn tell(&mut self, command: &[&str], patience: Option<u32>) {
        let mut ecs = ecs(&self.endpoint);
        let patience = patience.map_or("-1".to_owned(), |seconds| seconds.to_string());
        ecs.args(command);
        ecs.args(["--timeout", &patience, "--sleep-time", "1"]);
        let told = ecs.output().await.unwrap();
        self.satisfied = told.status.success();
        self.said = String::from_utf8_lossy(&told.stdout).into_owned();
        self.said += &String::from_utf8_lossy(&told.stderr);
    }
}

/// `ecs`, which knows the sandbox as AWS.
fn ecs(endpoint: &str) -> Command {
    let python = python::environment(ECS_DEPLOY);
    let mut ecs = Command::new(&python);
    environment(&mut ecs, endpoint);
    ecs.arg("-B").arg(python.with_file_name("ecs"));
    ecs
}

/// The names of its commands.
pub(crate) async fn commands() -> Vec<String> {
    let told = ecs("http://127.0.0.1:9").arg("--help").output().await;
    let told = told.unwrap();
    python::check("ecs --help", &told);
    let help = String::from_utf8(told.stdout).unwrap();
    let (_, listed) = help.split_once("Commands:").unwrap();
    let names = listed.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    });
    names.collect()
}

impl Client for EcsDeploy {
    async fn create(&mut self, _members: &Value) -> bool {
        false
    }

    async fn roll_out(&mut self, definition: &str, interrupted: bool) -> String {
        let command = ["deploy", "main", "web", "--task", definition];
        let command = [&command[..], &["--no-deregister"]].concat();
        let patience = (!interrupted).then_some(self.patience);
        self.tell(&command, patience).await;
        let (family, _) = definition.rsplit_once(':').unwrap();
        let (_, rest) = self.said.split_once("created revision: ").unwrap();
        let revision = rest.split_whitespace().next().unwrap();
        format!("{family}:{revision}")
    }

    async fn scale(&mut self, desired: u32) -> bool {
        let command = ["scale", "main", "web", &desired.to_string()];
        self.tell(&command, Some(self.patience)).await;
        true
    }

    async fn stop(&mut self) {
        self.boto3.stop().await;
    }

    async fn look(&mut self) -> Look {
        look::look(&mut self.boto3).await
    }
}
