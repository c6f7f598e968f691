//! All tasks of a deployment run the same image, also when its tag has moved, unless the definition
//! wants it otherwise.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use hyper::Method;
use serde_json::{Value, json};
use support::docker::{make_image, push};
use support::{Sandbox, eventually, http};

/// A sandbox with a repository whose tag `live` moves.
struct Bench {
    sandbox: Sandbox,
    image: String,
}

impl Bench {
    async fn new() -> Self {
        let sandbox = Sandbox::start().await;
        let input = json!({ "repositoryName": "web" });
        let created = sandbox.ecr("CreateRepository", input).await.unwrap();
        let repository = created["repository"]["repositoryUri"].as_str().unwrap();
        sandbox.ecs("CreateCluster", json!({})).await.unwrap();
        let image = repository.to_owned();
        Self { sandbox, image }
    }

    /// Moves the tag to a new image that serves `text`; its digest.
    async fn move_tag(&self, text: &str) -> String {
        make_image(&self.image, "live", text, &[]).await;
        let (password, _) = self.sandbox.token().await;
        push(&self.image, "live", &password).await.unwrap();
        let input = json!({ "repositoryName": "web", "imageIds": [{ "imageTag": "live" }] });
        let described = self.sandbox.ecr("DescribeImages", input).await.unwrap();
        let digest = &described["imageDetails"][0]["imageDigest"];
        digest.as_str().unwrap().to_owned()
    }

    async fn register(&self, members: Value) -> String {
        let mut container = json!({
            "name": "web",
            "image": format!("{}:live", self.image),
            "memory": 64,
            "portMappings": [{ "containerPort": 80 }],
            "stopTimeout": 2,
        });
        for (name, value) in members.as_object().unwrap() {
            container[name] = value.clone();
        }
        let input = json!({ "family": "web", "containerDefinitions": [container] });
        let answer = self.sandbox.ecs("RegisterTaskDefinition", input).await;
        let arn = &answer.unwrap()["taskDefinition"]["taskDefinitionArn"];
        arn.as_str().unwrap().to_owned()
    }

    async fn update(&self, members: Value) {
        let mut input = members;
        input["service"] = json!("web");
        self.sandbox.ecs("UpdateService", input).await.unwrap();
    }

    /// Waits until the service has settled with so many tasks that answer with `text`; the digests
    /// that they say they run.
    async fn until_all_say(&self, count: usize, text: &str) -> Vec<String> {
        eventually(&format!("{count} tasks that say {text}"), || async {
            let input = json!({ "services": ["web"] });
            let answer = self.sandbox.ecs("DescribeServices", input).await.unwrap();
            let service = &answer["services"][0];
            let deployments = service["deployments"].as_array().unwrap();
            let settled = deployments.len() == 1
                && deployments[0]["rolloutState"] == "COMPLETED"
                && service["runningCount"] == count;
            let tasks = if settled {
                self.tasks().await
            } else {
                return None;
            };
            let mut digests = Vec::new();
            for task in &tasks {
                let container = &task["containers"][0];
                assert_eq!(container["image"], format!("{}:live", self.image));
                let port = &container["networkBindings"][0]["hostPort"];
                let url = format!("http://127.0.0.1:{port}/");
                let said = http(Method::GET, &url, &[], "").await.ok()?.text();
                assert_eq!(said, text, "{task:#}");
                digests.push(container["imageDigest"].as_str().unwrap().to_owned());
            }
            (tasks.len() == count).then_some(digests)
        })
        .await
    }

    async fn tasks(&self) -> Vec<Value> {
        let listed = self
            .sandbox
            .ecs("ListTasks", json!({ "serviceName": "web" }));
        let input = json!({ "tasks": listed.await.unwrap()["taskArns"] });
        let described = self.sandbox.ecs("DescribeTasks", input).await.unwrap();
        described["tasks"].as_array().unwrap().clone()
    }

    /// Stops a task, and waits until ECS no longer counts it.
    async fn stop_one(&self) {
        let task = self.tasks().await[0]["taskArn"].clone();
        let input = json!({ "task": task });
        self.sandbox.ecs("StopTask", input).await.unwrap();
        eventually("another task instead", || async {
            let tasks = self.tasks().await;
            let gone = tasks.iter().all(|one| one["taskArn"] != task);
            (gone && !tasks.is_empty()).then_some(())
        })
        .await;
    }

    /// What the revisions say of their image, the newest first.
    async fn revisions(&self) -> Vec<Value> {
        let input = json!({ "service": "web" });
        let listed = self.sandbox.ecs("ListServiceDeployments", input).await;
        let listed = listed.unwrap();
        let deployments = listed["serviceDeployments"].as_array().unwrap();
        let arns: Vec<&Value> = deployments
            .iter()
            .map(|one| &one["targetServiceRevisionArn"])
            .collect();
        let input = json!({ "serviceRevisionArns": arns });
        let described = self.sandbox.ecs("DescribeServiceRevisions", input).await;
        let described = described.unwrap();
        let revisions = described["serviceRevisions"].as_array().unwrap();
        revisions
            .iter()
            .map(|one| one["containerImages"][0].clone())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_stands_for_one_image_throughout_a_deployment() {
    let mut bench = Bench::new().await;
    let first = bench.move_tag("v1").await;
    let definition = bench.register(json!({})).await;
    let service = json!({ "serviceName": "web", "taskDefinition": definition, "desiredCount": 1 });
    bench.sandbox.ecs("CreateService", service).await.unwrap();
    assert_eq!(bench.until_all_say(1, "v1").await, [first.as_str()]);

    // However it comes to another task: by scaling, by a stop, after a restart.
    let second = bench.move_tag("v2").await;
    assert_ne!(first, second);
    bench.update(json!({ "desiredCount": 2 })).await;
    assert_eq!(bench.until_all_say(2, "v1").await, [first.as_str(); 2]);
    bench.stop_one().await;
    assert_eq!(bench.until_all_say(2, "v1").await, [first.as_str(); 2]);
    bench.sandbox.halt().await;
    bench.sandbox.resume().await;
    bench.stop_one().await;
    assert_eq!(bench.until_all_say(2, "v1").await, [first.as_str(); 2]);
    assert_eq!(bench.revisions().await[0]["imageDigest"], first);

    // The next deployment asks again, and the history keeps what was.
    bench.update(json!({ "forceNewDeployment": true })).await;
    assert_eq!(bench.until_all_say(2, "v2").await, [second.as_str(); 2]);
    let revisions = bench.revisions().await;
    let digests: Vec<_> = revisions.iter().map(|one| &one["imageDigest"]).collect();
    assert_eq!(digests, [&json!(second), &json!(first)]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_version_consistency_each_task_asks_what_the_tag_is() {
    let bench = Bench::new().await;
    let first = bench.move_tag("v1").await;
    let definition = bench
        .register(json!({ "versionConsistency": "disabled" }))
        .await;
    let service = json!({ "serviceName": "web", "taskDefinition": definition, "desiredCount": 1 });
    bench.sandbox.ecs("CreateService", service).await.unwrap();
    assert_eq!(bench.until_all_say(1, "v1").await, [first.as_str()]);
    let second = bench.move_tag("v2").await;
    bench.stop_one().await;
    assert_eq!(bench.until_all_say(1, "v2").await, [second.as_str()]);
    let revisions = bench.revisions().await;
    let image = format!("{}:live", bench.image);
    let expected = json!({ "containerName": "web", "image": image });
    assert_eq!(revisions, [expected]);

    let wrong = json!({ "family": "web", "containerDefinitions": [
        { "name": "web", "image": image, "memory": 64, "versionConsistency": "perhaps" }] });
    let refused = bench.sandbox.ecs("RegisterTaskDefinition", wrong).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, "ClientException");
    assert!(
        refused.message.contains("versionConsistency"),
        "{refused:?}"
    );
    bench.sandbox.finish().await;
}
