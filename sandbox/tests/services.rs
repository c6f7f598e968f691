//! A service behind a load balancer, from a push to its answers over HTTP.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use support::docker::{make_image, push};
use support::{Answer, Sandbox, element, eventually, http};

/// A sandbox with a repository, a target group and a listener.
struct Bench {
    sandbox: Sandbox,
    repository: String,
    target_group: String,
    load_balancer: String,
    port: String,
    /// Of the task definitions, so that it fits the group's targets.
    network_mode: &'static str,
}

/// The text of an element, of an answer that must be a success.
fn found(answer: &Answer, name: &str) -> String {
    let text = answer.text();
    assert_eq!(answer.status, StatusCode::OK, "{text}");
    element(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
}

impl Bench {
    /// With targets that are addresses.
    async fn new() -> Self {
        Self::with_targets("ip").await
    }

    async fn with_targets(target_type: &str) -> Self {
        let sandbox = Sandbox::start().await;
        let input = json!({ "repositoryName": "web" });
        let created = sandbox.ecr("CreateRepository", input).await.unwrap();
        let repository = created["repository"]["repositoryUri"].as_str().unwrap();
        let group = sandbox
            .elb(&[
                ("Action", "CreateTargetGroup"),
                ("Name", "web"),
                ("Protocol", "HTTP"),
                ("Port", "80"),
                ("VpcId", "vpc-1"),
                ("TargetType", target_type),
                ("HealthCheckPath", "/index.html"),
                ("HealthCheckIntervalSeconds", "61"),
                ("HealthCheckTimeoutSeconds", "60"),
                ("HealthyThresholdCount", "2"),
            ])
            .await;
        let target_group = found(&group, "TargetGroupArn");
        let faster = sandbox
            .elb(&[
                ("Action", "ModifyTargetGroup"),
                ("TargetGroupArn", &target_group),
                ("HealthCheckIntervalSeconds", "10"),
                ("HealthCheckTimeoutSeconds", "9"),
                ("Matcher.HttpCode", "200-299"),
            ])
            .await;
        assert_eq!(found(&faster, "HealthCheckIntervalSeconds"), "10");
        assert_eq!(found(&faster, "HttpCode"), "200-299");
        let delay = sandbox
            .elb(&[
                ("Action", "ModifyTargetGroupAttributes"),
                ("TargetGroupArn", &target_group),
                (
                    "Attributes.member.1.Key",
                    "deregistration_delay.timeout_seconds",
                ),
                ("Attributes.member.1.Value", "40"),
            ])
            .await;
        assert_eq!(found(&delay, "Value"), "40");
        let balancer = sandbox
            .elb(&[("Action", "CreateLoadBalancer"), ("Name", "front")])
            .await;
        let load_balancer = found(&balancer, "LoadBalancerArn");
        let action = "DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn";
        let listener = loop {
            // Below the ports that the kernel gives away, so that it is free again at a restart.
            let port = rand::random_range(20_000..32_000_u16).to_string();
            let created = sandbox
                .elb(&[
                    ("Action", "CreateListener"),
                    ("LoadBalancerArn", &load_balancer),
                    ("Protocol", "HTTP"),
                    ("Port", &port),
                    ("DefaultActions.member.1.Type", "forward"),
                    (action, &target_group),
                ])
                .await;
            if element(&created.text(), "Code").as_deref() != Some("DuplicateListener") {
                break created;
            }
        };
        Self {
            repository: repository.to_owned(),
            port: found(&listener, "Port"),
            target_group,
            load_balancer,
            sandbox,
            network_mode: if target_type == "ip" {
                "awsvpc"
            } else {
                "bridge"
            },
        }
    }

    /// Builds and pushes an image that serves `text`; its reference by digest.
    async fn release(&self, text: &str) -> String {
        make_image(&self.repository, text, text, &[]).await;
        let (password, _) = self.sandbox.token().await;
        push(&self.repository, text, &password).await.unwrap();
        let input = json!({ "repositoryName": "web", "imageIds": [{ "imageTag": text }] });
        let described = self.sandbox.ecr("DescribeImages", input).await.unwrap();
        let digest = described["imageDetails"][0]["imageDigest"]
            .as_str()
            .unwrap();
        format!("{}@{digest}", self.repository)
    }

    async fn register(&self, image: &str) -> String {
        let input = json!({
            "family": "web",
            "networkMode": self.network_mode,
            "containerDefinitions": [{
                "name": "web",
                "image": image,
                "essential": true,
                "memory": 64,
                "portMappings": [{ "containerPort": 80 }],
                "stopTimeout": 2,
            }],
        });
        let answer = self
            .sandbox
            .ecs("RegisterTaskDefinition", input)
            .await
            .unwrap();
        let arn = answer["taskDefinition"]["taskDefinitionArn"].as_str();
        arn.unwrap().to_owned()
    }

    /// Waits until the service's only deployment is completed.
    async fn until_completed(&self) -> Value {
        eventually("the deployment to complete", || async {
            let input = json!({ "services": ["web"] });
            let answer = self.sandbox.ecs("DescribeServices", input).await.unwrap();
            let service = answer["services"][0].clone();
            let deployments = service["deployments"].as_array().unwrap();
            let completed = deployments.len() == 1 && deployments[0]["rolloutState"] == "COMPLETED";
            completed.then_some(service)
        })
        .await
    }

    async fn target_health(&self) -> Answer {
        self.sandbox
            .elb(&[
                ("Action", "DescribeTargetHealth"),
                ("TargetGroupArn", &self.target_group),
            ])
            .await
    }

    async fn get(&self) -> Option<Answer> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        http(Method::GET, &url, &[], "").await.ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_rolls_behind_its_listener_and_survives_a_restart() {
    let mut bench = Bench::new().await;
    assert_eq!(
        bench.get().await.unwrap().status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let first = bench.register(&bench.release("v1").await).await;
    bench.sandbox.ecs("CreateCluster", json!({})).await.unwrap();
    let service = json!({
        "serviceName": "web",
        "taskDefinition": first,
        "desiredCount": 1,
        "loadBalancers": [{
            "targetGroupArn": bench.target_group, "containerName": "web", "containerPort": 80,
        }],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    });
    bench.sandbox.ecs("CreateService", service).await.unwrap();
    bench.until_completed().await;
    assert_eq!(bench.get().await.unwrap().text(), "v1");
    let health = bench.target_health().await;
    assert_eq!(found(&health, "State"), "healthy");
    assert_eq!(found(&health, "Id"), "127.0.0.1");

    // Every request is answered while the next release comes.
    let second = bench.register(&bench.release("v2").await).await;
    let update = json!({ "service": "web", "taskDefinition": second });
    bench.sandbox.ecs("UpdateService", update).await.unwrap();
    eventually("the new release to answer", || async {
        let answer = bench.get().await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        (answer.text() == "v2").then_some(())
    })
    .await;
    bench.until_completed().await;

    bench.sandbox.halt().await;
    assert!(bench.get().await.is_none());
    bench.sandbox.resume().await;
    eventually("the listener to answer again", || async {
        bench.get().await.filter(|it| it.status == StatusCode::OK)
    })
    .await;
    assert_eq!(bench.get().await.unwrap().text(), "v2");

    let gone = json!({ "service": "web", "force": true });
    bench.sandbox.ecs("DeleteService", gone).await.unwrap();
    eventually("the target to be gone", || async {
        let health = bench.target_health().await.text();
        element(&health, "State").is_none().then_some(())
    })
    .await;
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_type_instance_is_the_instance_that_its_task_is_on() {
    let bench = Bench::with_targets("instance").await;
    let sandbox = &bench.sandbox;
    let definition = bench.register(&bench.release("v1").await).await;
    sandbox.ecs("CreateCluster", json!({})).await.unwrap();
    let service = json!({
        "serviceName": "web",
        "taskDefinition": definition,
        "desiredCount": 1,
        "loadBalancers": [{
            "targetGroupArn": bench.target_group, "containerName": "web", "containerPort": 80,
        }],
    });
    sandbox.ecs("CreateService", service).await.unwrap();
    bench.until_completed().await;
    let tasks = sandbox.ecs("ListTasks", json!({})).await.unwrap();
    let tasks = json!({ "tasks": tasks["taskArns"] });
    let tasks = sandbox.ecs("DescribeTasks", tasks).await.unwrap();
    let below = json!({ "containerInstances": [tasks["tasks"][0]["containerInstanceArn"]] });
    let below = sandbox.ecs("DescribeContainerInstances", below).await;
    let instance = below.unwrap()["containerInstances"][0]["ec2InstanceId"].take();
    let instance = instance.as_str().unwrap();
    assert_eq!(found(&bench.target_health().await, "Id"), instance);
    let asked = async |id: &str| {
        sandbox
            .elb(&[
                ("Action", "DescribeTargetHealth"),
                ("TargetGroupArn", &bench.target_group),
                ("Targets.member.1.Id", id),
            ])
            .await
    };
    assert_eq!(found(&asked(instance).await, "State"), "healthy");
    assert_eq!(found(&asked("i-0").await, "State"), "unused");
    let refused = asked("127.0.0.1").await.text();
    assert!(refused.contains("not an instance id"), "{refused}");
    let gone = json!({ "service": "web", "force": true });
    sandbox.ecs("DeleteService", gone).await.unwrap();
    bench.sandbox.finish().await;
}

/// As at AWS, whose tasks have addresses of their own with `awsvpc` alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_of_instances_unless_it_says_and_takes_only_tasks_that_are_such_targets() {
    let bench = Bench::new().await;
    let sandbox = &bench.sandbox;
    sandbox.ecs("CreateCluster", json!({})).await.unwrap();
    let plain = [("Action", "CreateTargetGroup"), ("Name", "plain")];
    let plain = sandbox.elb(&plain).await;
    assert_eq!(found(&plain, "TargetType"), "instance");
    let plain = found(&plain, "TargetGroupArn");
    for (group, mode, kind) in [
        (&plain, "awsvpc", "instance"),
        (&bench.target_group, "bridge", "ip"),
    ] {
        let container = json!({
            "name": "web", "image": "web", "memory": 64, "portMappings": [{"containerPort": 80}],
        });
        let definition = json!({
            "family": mode, "networkMode": mode, "containerDefinitions": [container],
        });
        sandbox
            .ecs("RegisterTaskDefinition", definition)
            .await
            .unwrap();
        let mut service = json!({
            "serviceName": mode,
            "taskDefinition": mode,
            "desiredCount": 1,
            "loadBalancers": [{
                "targetGroupArn": group, "containerName": "web", "containerPort": 80,
            }],
        });
        if mode == "awsvpc" {
            service["networkConfiguration"] =
                json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        }
        let refused = sandbox.ecs("CreateService", service).await.unwrap_err();
        assert_eq!(refused.code, "InvalidParameterException");
        assert_eq!(
            refused.message,
            format!(
                "The provided target group {group} has target type {kind}, which is incompatible \
                 with the {mode} network mode specified in the task definition."
            )
        );
    }
    for (kind, code) in [
        ("lambda", "UnsupportedFeatureException"),
        ("pod", "ValidationError"),
    ] {
        let odd = [
            ("Action", "CreateTargetGroup"),
            ("Name", "odd"),
            ("TargetType", kind),
        ];
        let refused = sandbox.elb(&odd).await.text();
        assert_eq!(
            element(&refused, "Code").as_deref(),
            Some(code),
            "{refused}"
        );
    }
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn balancers_are_described_and_refuse_nonsense() {
    let bench = Bench::new().await;
    let sandbox = &bench.sandbox;
    let refused = |answer: Answer| {
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{text}");
        element(&text, "Code").unwrap_or_else(|| panic!("no code in {text}"))
    };
    let groups = sandbox
        .elb(&[
            ("Action", "DescribeTargetGroups"),
            ("Names.member.1", "web"),
        ])
        .await;
    assert_eq!(found(&groups, "TargetGroupArn"), bench.target_group);
    assert!(found(&groups, "LoadBalancerArns").contains(&bench.load_balancer));
    let listeners = sandbox
        .elb(&[
            ("Action", "DescribeListeners"),
            ("LoadBalancerArn", &bench.load_balancer),
        ])
        .await;
    assert_eq!(found(&listeners, "Port"), bench.port);

    let subnets = [
        ("Action", "CreateLoadBalancer"),
        ("Name", "inside"),
        ("Scheme", "internal"),
        ("Subnets.member.1", "subnet-1"),
        ("Subnets.member.2", "subnet-2"),
    ];
    let inside = found(&sandbox.elb(&subnets).await, "LoadBalancerArn");
    let describe = async |filter: &[(&str, &str)]| {
        let call = [&[("Action", "DescribeLoadBalancers")], filter].concat();
        sandbox.elb(&call).await
    };
    let arns = |answer: &Answer| answer.text().matches("<LoadBalancerArn>").count();
    assert_eq!(arns(&describe(&[]).await), 2);
    for filter in [
        ("Names.member.1", "inside"),
        ("LoadBalancerArns.member.1", &*inside),
    ] {
        let one = describe(&[filter]).await;
        assert_eq!(arns(&one), 1);
        assert_eq!(found(&one, "LoadBalancerArn"), inside);
        assert_eq!(found(&one, "DNSName"), "127.0.0.1");
        assert_eq!(found(&one, "Scheme"), "internal");
        assert_eq!(found(&one, "Code"), "active");
        let zones = found(&one, "AvailabilityZones");
        let (first, second) = zones.split_once("us-east-1b").unwrap();
        assert!(first.contains("us-east-1a") && first.contains("subnet-1"));
        assert!(second.contains("subnet-2"), "{zones}");
    }
    let page = describe(&[("PageSize", "1")]).await;
    assert_eq!(arns(&page), 1);
    let rest = describe(&[("Marker", &found(&page, "NextMarker"))]).await;
    assert_eq!(arns(&rest), 1);
    assert_ne!(
        found(&page, "LoadBalancerArn"),
        found(&rest, "LoadBalancerArn")
    );
    for filter in ["Names.member.1", "LoadBalancerArns.member.1"] {
        let refusal = refused(describe(&[(filter, "none")]).await);
        assert_eq!(refusal, "LoadBalancerNotFound");
    }

    let unknown = [
        ("Action", "DescribeTargetGroups"),
        ("Names.member.1", "none"),
    ];
    assert_eq!(refused(sandbox.elb(&unknown).await), "TargetGroupNotFound");
    let unknown = [
        ("Action", "DescribeTargetHealth"),
        ("TargetGroupArn", "none"),
    ];
    assert_eq!(refused(sandbox.elb(&unknown).await), "TargetGroupNotFound");
    let in_use = [
        ("Action", "DeleteTargetGroup"),
        ("TargetGroupArn", &bench.target_group),
    ];
    assert_eq!(refused(sandbox.elb(&in_use).await), "ResourceInUse");
    let odd = [("Action", "CreateTargetGroup"), ("Name", "no good")];
    assert_eq!(refused(sandbox.elb(&odd).await), "ValidationError");
    let taken = [
        ("Action", "CreateListener"),
        ("LoadBalancerArn", &bench.load_balancer),
        ("Port", &bench.port),
        ("DefaultActions.member.1.Type", "forward"),
        (
            "DefaultActions.member.1.TargetGroupArn",
            &bench.target_group,
        ),
    ];
    assert_eq!(refused(sandbox.elb(&taken).await), "DuplicateListener");

    let caller = sandbox
        .query("2011-06-15", &[("Action", "GetCallerIdentity")])
        .await;
    assert_eq!(found(&caller, "Account"), "000000000000");

    let gone = [
        ("Action", "DeleteLoadBalancer"),
        ("LoadBalancerArn", &bench.load_balancer),
    ];
    assert_eq!(sandbox.elb(&gone).await.status, StatusCode::OK);
    assert!(bench.get().await.is_none());
    assert_eq!(sandbox.elb(&in_use).await.status, StatusCode::OK);
    bench.sandbox.finish().await;
}
