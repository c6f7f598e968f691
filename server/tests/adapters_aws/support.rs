//! A sandbox of its own for each test: the AWS that the adapters talk to, over the wire.

use roadstead_sandbox::{BackendKind, Config, serve};
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::cluster::ServiceAddress;
use roadstead_server::config;
use serde_json::{Value, json};
use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The Region of the sandbox.
pub(crate) const REGION: &str = "us-east-1";
/// Nothing takes this long; it only keeps a broken test from hanging.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// A running sandbox. Ends when it is stopped; its state goes with its folder.
pub(crate) struct Sandbox {
    pub(crate) endpoint: String,
    http: reqwest::Client,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
    data: TempDir,
}

impl Sandbox {
    pub(crate) async fn start(backend: BackendKind) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any_port = ([127, 0, 0, 1], 0).into();
        let config = Config {
            listen: any_port,
            registry_listen: any_port,
            backend,
            time_scale: 20.0,
            ..Config::new(data.path())
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move { serve(config, stopped.cancelled_owned()).await });
        let file = data.path().join("endpoint");
        let endpoint = eventually("the sandbox answers", async || {
            assert!(!serving.is_finished(), "the sandbox ended early");
            std::fs::read_to_string(&file).ok()
        })
        .await;
        Self {
            endpoint: endpoint.trim().to_owned(),
            http: reqwest::Client::new(),
            stop,
            serving,
            data,
        }
    }

    pub(crate) fn aws(&self) -> Aws {
        Aws::new(&config::Aws {
            region: REGION.to_owned(),
            endpoint_url: Some(self.endpoint.clone()),
        })
    }

    /// Calls ECS as it is spoken on the wire, so that no SDK is in between.
    pub(crate) async fn ecs(&self, operation: &str, body: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = self
            .http
            .post(&self.endpoint)
            .header("x-amz-target", target);
        let request = request.header("content-type", "application/x-amz-json-1.1");
        let request = request.header("authorization", "AWS4-HMAC-SHA256 Credential=test");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{operation}: {answer}");
        answer
    }

    /// The next `times` calls of an operation go wrong.
    pub(crate) async fn fault(&self, operation: &str, kind: &str, times: u32) {
        let fault = json!({"operation": operation, "kind": kind, "times": times});
        self.break_calls(&fault).await;
    }

    /// The same, with all that a fault can say.
    pub(crate) async fn break_calls(&self, fault: &Value) {
        let request = self.http.post(format!("{}/_sandbox/faults", self.endpoint));
        let answer = request.body(fault.to_string()).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// How many calls of an operation took effect.
    pub(crate) async fn effective(&self, operation: &str) -> usize {
        let address = format!(
            "{}/_sandbox/calls?operation={operation}&effective=true",
            self.endpoint
        );
        let answer: Value = self
            .http
            .get(address)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        answer["calls"]
            .as_array()
            .or(answer.as_array())
            .unwrap()
            .len()
    }

    /// A cluster `shop` with a service `web`, two tasks of which run `containers`.
    pub(crate) async fn service(&self, containers: Value) -> ServiceAddress {
        self.ecs("CreateCluster", json!({"clusterName": "shop"}))
            .await;
        let definition = json!({"family": "web", "containerDefinitions": containers});
        self.ecs("RegisterTaskDefinition", definition).await;
        let service = json!({
            "cluster": "shop", "serviceName": "web", "taskDefinition": "web", "desiredCount": 2,
            "deploymentConfiguration": {
                "minimumHealthyPercent": 100, "maximumPercent": 200,
                "deploymentCircuitBreaker": {"enable": true, "rollback": true},
            },
        });
        self.ecs("CreateService", service).await;
        ServiceAddress {
            region: None,
            cluster: "shop".into(),
            service: "web".into(),
        }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.serving).await.unwrap().unwrap();
    }
}

impl Drop for Sandbox {
    /// Containers and networks outlive a sandbox, for the next one on the same folder to adopt.
    fn drop(&mut self) {
        let Ok(Some(label)) = roadstead_sandbox::label(self.data.path()) else {
            return;
        };
        for (kind, remove) in [
            ("container", ["rm", "--force"]),
            ("network", ["rm", "--force"]),
        ] {
            let all = if kind == "container" {
                vec!["--all"]
            } else {
                vec![]
            };
            let filter = format!("label={label}");
            let list = [&[kind, "ls", "--quiet", "--filter", &filter][..], &all].concat();
            let Ok(listed) = Command::new("docker").args(list).output() else {
                return;
            };
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let found: Vec<&str> = listed.split_whitespace().collect();
            if !found.is_empty() {
                let arguments = [&[kind][..], &remove, &found].concat();
                drop(Command::new("docker").args(arguments).output());
            }
        }
    }
}

/// One container whose health is checked, with labels that say what becomes of it.
pub(crate) fn container(labels: &Value) -> Value {
    json!([{
        "name": "app", "image": "app:1", "essential": true, "memory": 64,
        "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5},
        "dockerLabels": labels,
    }])
}

/// Asks again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < LONGEST_WAIT, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
