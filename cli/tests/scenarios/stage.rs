//! A sandbox with the cluster and the service of one scenario.

use crate::image;
use crate::look::Caller;
use crate::table::{Behaviour, Scenario};
use roadstead_sandbox::{BackendKind, Config};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Bounds a failure; all waits end when what they wait for is there.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many times faster than at AWS the waits on Docker Engine pass.
const SCALE: f64 = 20.0;

/// The path of the answers of those who are asked about their health.
const HEALTH: &str = "/cgi-bin/health";

/// A running sandbox.
pub(crate) struct Stage {
    pub(crate) endpoint: String,
    backend: BackendKind,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<anyhow::Result<()>>,
    /// What targets register with, when there is a load balancer.
    group: Option<String>,
    /// The ARNs of the registered definitions.
    pub(crate) definitions: Vec<String>,
}

impl Caller for &Stage {
    async fn call(&mut self, operation: &str, input: Value) -> Value {
        self.ecs(operation, input).await
    }
}

impl Stage {
    pub(crate) async fn start(backend: BackendKind, scenario: &Scenario, data: &Path) -> Self {
        let free = ([127, 0, 0, 1], 0).into();
        let simulated = backend == BackendKind::Simulated;
        let config = Config {
            listen: free,
            registry_listen: free,
            backend,
            virtual_clock: simulated,
            seed: simulated.then_some(7),
            time_scale: if simulated { 1.0 } else { SCALE },
            record_answers: true,
            ..Config::new(data)
        };
        let (stop, stopped) = oneshot::channel();
        let mut serving = tokio::spawn(roadstead_sandbox::serve(config, async {
            // A sender that is gone means stop, too.
            let _ = stopped.await;
        }));
        let file = data.join("endpoint");
        let endpoint = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let endpoint = tokio::select! {
            endpoint = tokio::time::timeout(PATIENCE, endpoint) => endpoint.unwrap(),
            ended = &mut serving => panic!("the sandbox ended at start: {ended:?}"),
        };
        let mut stage = Self {
            endpoint,
            backend,
            http: reqwest::Client::new(),
            stop,
            serving,
            group: None,
            definitions: Vec::new(),
        };
        stage
            .ecs("CreateCluster", json!({"clusterName": "main"}))
            .await;
        if scenario.balanced {
            stage.group = Some(stage.balance().await);
        }
        stage
    }

    /// Calls ECS as it is spoken on the wire, so that no SDK is in between.
    pub(crate) async fn ecs(&self, operation: &str, input: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = self.http.post(&self.endpoint);
        let request = request.header("x-amz-target", target);
        let request = request.header("content-type", "application/x-amz-json-1.1");
        let answer = request.body(input.to_string()).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{operation}: {answer}");
        answer
    }

    /// Calls the load balancer's API; the value of one element of the answer.
    async fn elb(&self, action: &str, element: &str, params: &[(&str, &str)]) -> String {
        let mut form = vec![("Action", action), ("Version", "2015-12-01")];
        form.extend(params);
        let body: String = form
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("&");
        let request = self.http.post(&self.endpoint);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let (_, rest) = text
            .split_once(&format!("<{element}>"))
            .unwrap_or_else(|| panic!("{action}: {text}"));
        rest.split('<').next().unwrap().to_owned()
    }

    /// A load balancer on a free port; its target group.
    async fn balance(&self) -> String {
        let group = [
            ("Name", "web"),
            ("Protocol", "HTTP"),
            ("Port", "80"),
            ("HealthCheckPath", HEALTH),
            ("HealthCheckIntervalSeconds", "20"),
            ("HealthCheckTimeoutSeconds", "15"),
            ("HealthyThresholdCount", "2"),
            ("UnhealthyThresholdCount", "2"),
        ];
        let group = self
            .elb("CreateTargetGroup", "TargetGroupArn", &group)
            .await;
        let balancer = [("Name", "web")];
        let balancer = self
            .elb("CreateLoadBalancer", "LoadBalancerArn", &balancer)
            .await;
        let listener = [
            ("LoadBalancerArn", balancer.as_str()),
            ("Protocol", "HTTP"),
            ("Port", "0"),
            ("DefaultActions.member.1.Type", "forward"),
            ("DefaultActions.member.1.TargetGroupArn", group.as_str()),
        ];
        self.elb("CreateListener", "ListenerArn", &listener).await;
        let attribute = [
            ("TargetGroupArn", group.as_str()),
            (
                "Attributes.member.1.Key",
                "deregistration_delay.timeout_seconds",
            ),
            ("Attributes.member.1.Value", "10"),
        ];
        self.elb("ModifyTargetGroupAttributes", "Value", &attribute)
            .await;
        group
    }

    /// Calls the sandbox's own address.
    pub(crate) async fn own(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let address = format!("{}/_sandbox/{path}", self.endpoint);
        let request = self.http.request(method, address).body(body.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Lets a moment pass.
    pub(crate) async fn pass(&self) {
        if self.backend == BackendKind::Simulated {
            let advance = json!({"advance": "2s"});
            self.own(reqwest::Method::POST, "clock", &advance).await;
        } else {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Registers the next revision.
    pub(crate) async fn register(&mut self, behaviour: Behaviour) -> String {
        let container = self.container(behaviour);
        let input = json!({"family": "web", "containerDefinitions": [container]});
        let registered = self.ecs("RegisterTaskDefinition", input).await;
        let arn = registered["taskDefinition"]["taskDefinitionArn"].as_str();
        let arn = arn.unwrap().to_owned();
        self.definitions.push(arn.clone());
        arn
    }

    /// Registers the first revision; the members of CreateService for a service of it.
    pub(crate) async fn service_of(&mut self, scenario: &Scenario, behaviour: Behaviour) -> Value {
        let definition = self.register(behaviour).await;
        let (minimum, maximum) = scenario.percents;
        let mut breaker = json!({"enable": true, "rollback": scenario.rollback});
        if let Some((kind, value)) = scenario.threshold {
            breaker["thresholdConfiguration"] = json!({"type": kind, "value": value});
        }
        let mut input = json!({
            "cluster": "main",
            "serviceName": "web",
            "taskDefinition": definition,
            "desiredCount": scenario.desired,
            "deploymentConfiguration": {
                "minimumHealthyPercent": minimum,
                "maximumPercent": maximum,
                "deploymentCircuitBreaker": breaker,
            },
        });
        if let Some(group) = &self.group {
            input["healthCheckGracePeriodSeconds"] = json!(scenario.grace);
            input["loadBalancers"] =
                json!([{"targetGroupArn": group, "containerName": "app", "containerPort": 80}]);
        }
        input
    }

    /// Waits until `held` says so; `what` is what is waited for.
    pub(crate) async fn until(&self, what: &str, held: impl AsyncFn(&Self) -> bool) {
        let waited = async {
            while !held(self).await {
                self.pass().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            panic!("waited in vain for {what}");
        }
    }

    /// The service as ECS describes it.
    pub(crate) async fn service(&self) -> Value {
        let at = json!({"cluster": "main", "services": ["web"]});
        self.ecs("DescribeServices", at).await["services"][0].take()
    }

    /// What a task of that kind is, on this backend.
    fn container(&self, behaviour: Behaviour) -> Value {
        let mut container = json!({
            "name": "app",
            "image": image::NAME,
            "memory": 64,
            "stopTimeout": 2,
        });
        if self.group.is_some() {
            container["portMappings"] = json!([{"containerPort": 80}]);
        } else if behaviour != Behaviour::CrashUnchecked {
            container["healthCheck"] =
                json!({"command": ["CMD-SHELL", "true"], "interval": 5, "retries": 3});
        }
        if matches!(
            behaviour,
            Behaviour::CrashChecked
                | Behaviour::Undecided
                | Behaviour::ExitAtStart
                | Behaviour::OutOfMemory
        ) {
            container["healthCheck"] = json!(
                {"command": ["CMD-SHELL", "false"], "interval": 300, "retries": 10});
        }
        if self.backend == BackendKind::Simulated {
            container["dockerLabels"] = labels(behaviour);
        } else {
            container["command"] = json!(["sh", "-c", self.command(behaviour)]);
        }
        if behaviour == Behaviour::MissingImage {
            container["image"] = json!("127.0.0.1:9/no-such-image:1");
        }
        container
    }

    fn command(&self, behaviour: Behaviour) -> String {
        let serve = if self.group.is_some() {
            "exec httpd -f -p 80 -h /www"
        } else {
            "trap 'exit 0' TERM; while :; do sleep 1 & wait; done"
        };
        match behaviour {
            Behaviour::Good | Behaviour::Undecided | Behaviour::MissingImage => serve.to_owned(),
            Behaviour::ExitAtStart => "exit 1".to_owned(),
            // Longer than what counts as never having run, shorter than 40 s at AWS's pace.
            Behaviour::CrashChecked | Behaviour::CrashUnchecked => "sleep 1.4; exit 1".to_owned(),
            Behaviour::Answers500 => "exec httpd -f -p 80 -h /ill".to_owned(),
            Behaviour::SlowBoot => format!("sleep 2; {serve}"),
            Behaviour::NeverBoots => format!("sleep 600; {serve}"),
            Behaviour::OutOfMemory => "sleep 1.4; exec tail /dev/zero".to_owned(),
        }
    }

    /// Ends the service, and the sandbox after that.
    pub(crate) async fn strike(self) {
        let gone = json!({"cluster": "main", "service": "web", "force": true});
        self.ecs("DeleteService", gone).await;
        self.until("the service to end", async |stage| {
            stage.service().await["status"] == "INACTIVE"
        })
        .await;
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

fn labels(behaviour: Behaviour) -> Value {
    match behaviour {
        Behaviour::Good => json!({}),
        Behaviour::MissingImage => json!({"simulate.pull": "fail"}),
        Behaviour::ExitAtStart => {
            json!({"simulate.exit": "1@0s", "simulate.health": "healthy@1h"})
        }
        Behaviour::CrashChecked => {
            json!({"simulate.exit": "1@5s", "simulate.health": "healthy@1h"})
        }
        Behaviour::CrashUnchecked => json!({"simulate.exit": "1@5s"}),
        Behaviour::Answers500 => json!({"simulate.target": "unhealthy@10s"}),
        Behaviour::SlowBoot => {
            json!({"simulate.target": "unhealthy@10s", "simulate.flap": "30s"})
        }
        Behaviour::NeverBoots => json!({"simulate.target": "unhealthy@10s"}),
        Behaviour::Undecided => json!({"simulate.health": "healthy@100h"}),
        Behaviour::OutOfMemory => {
            json!({"simulate.exit": "oom@5s", "simulate.health": "healthy@1h"})
        }
    }
}
