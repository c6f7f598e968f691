//! A sandbox with simulated tasks, in this process.

use hyper::{Method, StatusCode};
use roadstead_sandbox::{BackendKind, Config, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clients::answers;
use super::{Answer, eventually, http};

/// A sandbox without Docker Engine.
pub(crate) struct Simulation {
    pub(crate) endpoint: String,
    pub(crate) directory: TempDir,
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn config(directory: &TempDir) -> Config {
    let mut config = Config::new(directory.path());
    config.listen.set_port(0);
    config.registry_listen.set_port(0);
    config.backend = BackendKind::Simulated;
    config.record_answers = true;
    config
}

impl Simulation {
    /// In virtual time, with that seed.
    pub(crate) async fn start(seed: u64) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |config| {
            config.virtual_clock = true;
            config.seed = Some(seed);
        })
        .await
    }

    pub(crate) async fn start_in(directory: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&directory);
        change(&mut config);
        let file = directory.path().join("endpoint");
        // A stale address must not be taken for the new one.
        let _ = std::fs::remove_file(&file);
        let (stop, stopped) = oneshot::channel();
        let mut server = tokio::spawn(serve(config, async {
            let _ = stopped.await;
        }));
        let started = eventually("the sandbox to start", || {
            let file = file.clone();
            async move {
                let text = std::fs::read_to_string(file).ok()?;
                text.ends_with('\n').then(|| text.trim().to_owned())
            }
        });
        let endpoint = tokio::select! {
            endpoint = started => endpoint,
            ended = &mut server => panic!("the sandbox ended at start: {ended:?}"),
        };
        Self {
            endpoint,
            directory,
            stop,
            server,
        }
    }

    /// Ends it well; what it left on disk. Every answer is one that AWS's API models know.
    pub(crate) async fn end(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.server.await.unwrap().unwrap();
        answers::check_answers(self.directory.path());
        self.directory
    }

    pub(crate) async fn ask(&self, operation: &str, input: Value) -> Answer {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let answer = http(Method::POST, &self.endpoint, &headers, input.to_string()).await;
        answer.unwrap()
    }

    pub(crate) async fn text(&self, operation: &str, input: Value) -> String {
        let answer = self.ask(operation, input).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.text()
    }

    pub(crate) async fn ecs(&self, operation: &str, input: Value) -> Value {
        serde_json::from_str(&self.text(operation, input).await).unwrap()
    }

    /// What ECS refuses a call with.
    pub(crate) async fn refused(&self, operation: &str, input: Value) -> String {
        let answer = self.ask(operation, input).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        answer.text()
    }

    pub(crate) async fn own(&self, method: Method, path: &str, body: &str) -> Answer {
        let url = format!("{}/_sandbox/{path}", self.endpoint);
        http(method, &url, &[], body.to_owned()).await.unwrap()
    }

    /// Lets time pass; what the sandbox says about it.
    pub(crate) async fn advance(&self, how: &str) -> Value {
        let body = json!({"advance": how}).to_string();
        let answer = self.own(Method::POST, "clock", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A definition of one container with a health check.
    pub(crate) async fn register(&self, family: &str, image: &str) -> String {
        let container = json!({
            "name": "app",
            "image": image,
            "memory": 64,
            "healthCheck": {"command": ["CMD", "true"]},
        });
        let input = json!({"family": family, "containerDefinitions": [container]});
        let registered = self.ecs("RegisterTaskDefinition", input).await;
        let arn = &registered["taskDefinition"]["taskDefinitionArn"];
        arn.as_str().unwrap().to_owned()
    }

    pub(crate) async fn create(&self, name: &str, image: &str, desired: u32) {
        let definition = self.register(name, image).await;
        let input = json!({
            "serviceName": name,
            "taskDefinition": definition,
            "desiredCount": desired,
            "deploymentConfiguration": {
                "deploymentCircuitBreaker": {"enable": true, "rollback": true},
            },
        });
        self.ecs("CreateService", input).await;
    }

    pub(crate) async fn update(&self, name: &str, image: &str) {
        let definition = self.register(name, image).await;
        let input = json!({"service": name, "taskDefinition": definition});
        self.ecs("UpdateService", input).await;
    }

    pub(crate) async fn service(&self, name: &str) -> Value {
        let described = self.ecs("DescribeServices", json!({"services": [name]}));
        described.await["services"][0].clone()
    }

    /// Every task of a service, in AWS's words as they came.
    pub(crate) async fn tasks_text(&self, name: &str) -> String {
        let mut arns = Vec::new();
        for status in ["RUNNING", "STOPPED"] {
            let input = json!({"serviceName": name, "desiredStatus": status});
            let listed = self.ecs("ListTasks", input).await;
            arns.extend(listed["taskArns"].as_array().unwrap().clone());
        }
        if arns.is_empty() {
            return r#"{"tasks": []}"#.to_owned();
        }
        self.text("DescribeTasks", json!({"tasks": arns})).await
    }

    pub(crate) async fn tasks(&self, name: &str) -> Vec<Value> {
        let described: Value = serde_json::from_str(&self.tasks_text(name).await).unwrap();
        described["tasks"].as_array().unwrap().clone()
    }

    /// Defines a role and assumes it; the answer with its keys.
    pub(crate) async fn assume_role(&self) -> String {
        let role = json!({"name": "deployer", "allow": ["ecs:*"]}).to_string();
        let told = self.own(Method::POST, "roles", &role).await;
        assert!(told.status.is_success(), "{}", told.text());
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let call = "Action=AssumeRole&Version=2011-06-15&RoleSessionName=me\
                    &RoleArn=arn:aws:iam::000000000000:role/deployer";
        let answer = http(Method::POST, &self.endpoint, &headers, call).await;
        let answer = answer.unwrap();
        let text = answer.text();
        assert!(text.contains("<SecretAccessKey>"), "{text}");
        assert!(text.contains("<RequestId>"), "{text}");
        format!("{} {:?} {}", answer.status, answer.headers, answer.text())
    }

    /// How the service's newest service deployment stands.
    pub(crate) async fn outcome(&self, name: &str) -> String {
        let listed = self.ecs("ListServiceDeployments", json!({"service": name}));
        let status = &listed.await["serviceDeployments"][0]["status"];
        status.as_str().unwrap().to_owned()
    }
}
