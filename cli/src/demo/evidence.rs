//! What AWS shows of an environment, by the plain wire protocol: names that anybody can ask for
//! again, with a client of their own.

use super::scene::Scene;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Tasks that DescribeTasks takes at once.
const TASKS_PER_CALL: usize = 100;

impl Scene {
    /// The service of an environment as it is now: its ARN, its definition and image, its deployments,
    /// and the tasks that run that definition, with container and digest of each.
    pub(super) async fn shown(&self, environment: &str) -> anyhow::Result<Value> {
        let wanted = json!({"cluster": environment, "services": ["shop"]});
        let service = self.aws.ecs("DescribeServices", wanted).await?["services"][0].clone();
        let definition = service["taskDefinition"].clone();
        let wanted = json!({"taskDefinition": definition});
        let described = self.aws.ecs("DescribeTaskDefinition", wanted).await?;
        let wanted = json!({"cluster": environment, "service": "shop"});
        let listed = self.aws.ecs("ListServiceDeployments", wanted).await?;
        Ok(json!({
            "cluster": environment,
            "service": service["serviceArn"],
            "task_definition": definition,
            "image": described["taskDefinition"]["containerDefinitions"][0]["image"],
            "deployments": picked(&service["deployments"], &["id", "status", "rolloutState"]),
            "service_deployments":
                picked(&listed["serviceDeployments"], &["serviceDeploymentArn", "status"]),
            "tasks": self.tasks(environment, &definition).await?,
        }))
    }

    async fn tasks(&self, environment: &str, definition: &Value) -> anyhow::Result<Vec<Value>> {
        let wanted = json!({"cluster": environment, "serviceName": "shop"});
        let listed = self.aws.ecs("ListTasks", wanted).await?["taskArns"].clone();
        let mut tasks = vec![];
        for some in array(&listed).chunks(TASKS_PER_CALL) {
            let wanted = json!({"cluster": environment, "tasks": some});
            let found = self.aws.ecs("DescribeTasks", wanted).await?;
            tasks.extend(
                array(&found["tasks"])
                    .iter()
                    .filter(|task| task["taskDefinitionArn"] == *definition)
                    .map(|task| {
                        let container = &task["containers"][0];
                        json!({
                            "task": task["taskArn"],
                            "container": container["runtimeId"],
                            "image_digest": container["imageDigest"],
                        })
                    }),
            );
        }
        Ok(tasks)
    }

    /// Whether all that runs in an environment is the image of this digest; what is shown of it.
    pub(super) async fn runs_only(&self, environment: &str, digest: &str) -> anyhow::Result<Value> {
        let shown = self.shown(environment).await?;
        let image = shown["image"].as_str().unwrap_or_default();
        if !image.ends_with(&format!("@{digest}")) {
            bail!("{environment} runs {image}, not {digest}");
        }
        let tasks = array(&shown["tasks"]);
        if tasks.is_empty() || tasks.iter().any(|t| t["image_digest"] != json!(digest)) {
            bail!(
                "not every task of {environment} runs {digest}: {}",
                shown["tasks"]
            );
        }
        Ok(shown)
    }

    /// The digest of the image that a definition names.
    pub(super) async fn digest_of(&self, definition: &str) -> anyhow::Result<String> {
        let wanted = json!({"taskDefinition": definition});
        let described = self.aws.ecs("DescribeTaskDefinition", wanted).await?;
        let image = &described["taskDefinition"]["containerDefinitions"][0]["image"];
        let image = image.as_str().unwrap_or_default();
        let (_, digest) = image
            .split_once('@')
            .with_context(|| format!("{definition} runs {image}, which is no digest"))?;
        Ok(digest.to_owned())
    }

    /// The calls of an operation that changed something, oldest first, by the sandbox's own log.
    pub(super) async fn effective_calls(&self, operation: &str) -> anyhow::Result<Vec<Value>> {
        let address = format!(
            "{}/_sandbox/calls?operation={operation}&effective=true",
            self.sandbox
        );
        Ok(reqwest::get(address)
            .await?
            .error_for_status()?
            .json()
            .await?)
    }
}

/// The elements of an array; none when it is none.
pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// These members of each element.
fn picked(all: &Value, members: &[&str]) -> Vec<BTreeMap<String, Value>> {
    array(all)
        .iter()
        .map(|one| {
            members
                .iter()
                .map(|member| ((*member).to_owned(), one[*member].clone()))
                .collect()
        })
        .collect()
}
