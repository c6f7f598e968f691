//! A task's states in their order, and the times that go with them.

use crate::support::simulation::Simulation;
use serde_json::{Value, json};

/// The states that a task goes through while time passes, tenth of a second by tenth of a second.
async fn states(sandbox: &Simulation, arn: &Value, until: &str) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for _ in 0..1200 {
        let described = sandbox.ecs("DescribeTasks", json!({"tasks": [arn]})).await;
        let task = &described["tasks"][0];
        let word = |member: &str| task[member].as_str().unwrap().to_owned();
        let now = (word("lastStatus"), word("desiredStatus"));
        let reached = now.0 == until;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if reached {
            return seen;
        }
        sandbox.advance("100ms").await;
    }
    panic!("never {until}: {seen:?}");
}

fn words(seen: &[(String, String)]) -> Vec<(&str, &str)> {
    let seen = seen.iter();
    seen.map(|(last, desired)| (last.as_str(), desired.as_str()))
        .collect()
}

#[tokio::test]
async fn a_task_behind_a_balancer_goes_through_every_state_in_order() {
    const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/web/1";
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let container = json!({"name": "app", "image": "simulated:pull-2s_start-1s_stop-3s",
        "memory": 64, "portMappings": [{"containerPort": 80}]});
    let definition = json!({"family": "web", "containerDefinitions": [container]});
    sandbox.ecs("RegisterTaskDefinition", definition).await;
    let service = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 1,
        "loadBalancers": [{"targetGroupArn": GROUP, "containerName": "app", "containerPort": 80}]});
    sandbox.ecs("CreateService", service).await;
    sandbox.advance("0s").await;
    let arn = sandbox.tasks("web").await[0]["taskArn"].clone();
    let seen = states(&sandbox, &arn, "RUNNING").await;
    let start = [
        ("PROVISIONING", "RUNNING"),
        ("PENDING", "RUNNING"),
        ("ACTIVATING", "RUNNING"),
        ("RUNNING", "RUNNING"),
    ];
    assert_eq!(words(&seen), start);
    sandbox.advance("until settled").await;

    sandbox
        .ecs("StopTask", json!({"task": arn, "reason": "enough"}))
        .await;
    sandbox.advance("0s").await;
    let seen = states(&sandbox, &arn, "STOPPED").await;
    let end = [
        ("DEACTIVATING", "STOPPED"),
        ("STOPPING", "STOPPED"),
        ("DEPROVISIONING", "STOPPED"),
        ("STOPPED", "STOPPED"),
    ];
    assert_eq!(words(&seen), end);
    let described = sandbox.ecs("DescribeTasks", json!({"tasks": [arn]})).await;
    let task = &described["tasks"][0];
    assert_eq!(task["stopCode"], "UserInitiated");
    assert_eq!(task["stoppedReason"], "enough");
    let times = [
        "createdAt",
        "pullStartedAt",
        "pullStoppedAt",
        "startedAt",
        "stoppingAt",
        "executionStoppedAt",
        "stoppedAt",
    ];
    let times = times.map(|member| task[member].as_f64().unwrap());
    assert!(times.is_sorted(), "{times:?}");
    // The pull, the deregistration delay of a simulated group, and the stop.
    assert!(times[2] - times[1] >= 2.0, "{times:?}");
    assert!(times[6] - times[4] >= 8.0, "{times:?}");
    sandbox.end().await;
}

#[tokio::test]
async fn a_task_without_targets_is_not_activated_and_a_failed_start_never_runs() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let run = async |image: &str| {
        let container = |name: &str, image: &str, essential: bool| json!({"name": name, "image": image, "memory": 64, "essential": essential});
        // What is left of the task takes two seconds to stop.
        let beside = "simulated:pull-2s_stop-2s";
        let both = [
            container("log", beside, false),
            container("app", image, true),
        ];
        let definition = json!({"family": "job", "containerDefinitions": both});
        sandbox.ecs("RegisterTaskDefinition", definition).await;
        let ran = sandbox
            .ecs("RunTask", json!({"taskDefinition": "job"}))
            .await;
        let arn = ran["tasks"][0]["taskArn"].clone();
        let seen = states(&sandbox, &arn, "STOPPED").await;
        seen.into_iter().map(|(last, _)| last).collect::<Vec<_>>()
    };
    let job = run("simulated:exit-0-5s").await;
    let all = [
        "PROVISIONING",
        "PENDING",
        "RUNNING",
        "STOPPING",
        "DEPROVISIONING",
        "STOPPED",
    ];
    assert_eq!(job, all);
    // Nothing of it has to be stopped.
    let missing = run("simulated:missing").await;
    assert_eq!(
        missing,
        ["PROVISIONING", "PENDING", "DEPROVISIONING", "STOPPED"]
    );
    sandbox.end().await;
}
