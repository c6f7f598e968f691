//! Why tasks stop when nobody here stops them: capacity that is taken away, resources that cannot be had.

use crate::support::simulation::Simulation;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// A cluster, and the definition `web`, which can run on Fargate and writes to CloudWatch Logs.
async fn start() -> Simulation {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let container = json!({"name": "app", "image": "simulated:latest", "memory": 64,
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/web"}}});
    // What the roles may do is nobody's business here.
    let role = "arn:aws:iam::000000000000:role/web";
    let definition = json!({"family": "web", "networkMode": "awsvpc", "cpu": "256", "memory": "512",
        "executionRoleArn": role, "taskRoleArn": role, "containerDefinitions": [container]});
    sandbox.ecs("RegisterTaskDefinition", definition).await;
    sandbox
}

fn with_network(mut members: Value, launch_type: &str) -> Value {
    members["launchType"] = json!(launch_type);
    members["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    members
}

/// A settled service of two tasks.
async fn create(sandbox: &Simulation, launch_type: &str) {
    let service = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 2,
        "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": true, "rollback": false}}});
    sandbox
        .ecs("CreateService", with_network(service, launch_type))
        .await;
    sandbox.advance("until settled").await;
}

async fn interrupt(sandbox: &Simulation, task: &Value) -> (StatusCode, String) {
    let body = json!({ "task": task }).to_string();
    let answer = sandbox.own(Method::POST, "interruptions", &body).await;
    (answer.status, answer.text())
}

/// The stopped task of the service that says so.
async fn stopped(sandbox: &Simulation, code: &str) -> Value {
    let tasks = sandbox.tasks("web").await;
    let found = tasks.iter().find(|task| task["stopCode"] == code);
    found.unwrap_or_else(|| panic!("{tasks:#?}")).clone()
}

#[tokio::test]
async fn a_task_that_loses_its_spot_capacity_is_replaced_and_the_breaker_does_not_count_it() {
    let sandbox = start().await;
    create(&sandbox, "FARGATE").await;
    for round in 0..4 {
        let running = sandbox
            .ecs("ListTasks", json!({"serviceName": "web"}))
            .await;
        let (status, text) = interrupt(&sandbox, &running["taskArns"][0]).await;
        assert_eq!(status, StatusCode::CREATED, "{round}: {text}");
        sandbox.advance("until settled").await;
    }
    let task = stopped(&sandbox, "SpotInterruption").await;
    assert_eq!(task["stoppedReason"], "Your Spot Task was interrupted.");
    assert_eq!(task["lastStatus"], "STOPPED");
    let service = sandbox.service("web").await;
    assert_eq!(service["runningCount"], 2);
    assert_eq!(service["deployments"][0]["failedTasks"], 0);
    assert_eq!(service["deployments"][0]["rolloutState"], "COMPLETED");

    // It is stopped already, or never was.
    for task in [&task["taskArn"], &json!("web")] {
        let (status, text) = interrupt(&sandbox, task).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains("no task"), "{text}");
    }
    sandbox.end().await;
}

#[tokio::test]
async fn a_task_on_an_instance_is_interrupted_with_its_instance() {
    let sandbox = start().await;
    create(&sandbox, "EC2").await;
    let running = sandbox
        .ecs("ListTasks", json!({"serviceName": "web"}))
        .await;
    let (status, text) = interrupt(&sandbox, &running["taskArns"][0]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("/_sandbox/instances/"), "{text}");
    sandbox.end().await;
}

async fn deny_log_streams(sandbox: &Simulation, times: u32) {
    let fault = json!({"operation": "CreateLogStream", "kind": "deny", "times": times});
    let told = sandbox
        .own(Method::POST, "faults", &fault.to_string())
        .await;
    assert!(told.status.is_success(), "{}", told.text());
}

#[tokio::test]
async fn fargate_tasks_without_a_log_stream_fail_to_initialize() {
    let sandbox = start().await;
    deny_log_streams(&sandbox, 3).await;
    create(&sandbox, "FARGATE").await;
    let task = stopped(&sandbox, "TaskFailedToStart").await;
    let reason = task["stoppedReason"].as_str().unwrap();
    assert!(
        reason.starts_with("ResourceInitializationError: failed to validate logger args"),
        "{reason}"
    );
    assert!(reason.contains("AccessDeniedException"), "{reason}");
    assert!(task["startedAt"].is_null() && task["containers"][0]["exitCode"].is_null());
    // Three of them trip the breaker.
    assert_eq!(sandbox.outcome("web").await, "STOPPED");

    // The fault is used up.
    let again = json!({"service": "web", "forceNewDeployment": true});
    sandbox.ecs("UpdateService", again).await;
    sandbox.advance("until settled").await;
    assert_eq!(sandbox.outcome("web").await, "SUCCESSFUL");
    sandbox.end().await;
}

#[tokio::test]
async fn on_an_instance_it_is_the_container_that_cannot_start_without_its_log_stream() {
    let sandbox = start().await;
    deny_log_streams(&sandbox, 1).await;
    let run = with_network(json!({"taskDefinition": "web"}), "EC2");
    let ran = sandbox.ecs("RunTask", run).await;
    sandbox.advance("until settled").await;
    let tasks = json!({"tasks": [ran["tasks"][0]["taskArn"]]});
    let described = sandbox.ecs("DescribeTasks", tasks).await;
    let task = &described["tasks"][0];
    assert_eq!(task["stopCode"], "TaskFailedToStart");
    let reason = task["stoppedReason"].as_str().unwrap();
    let expected = "CannotStartContainerError: Error response from daemon: failed to initialize \
                    logging driver";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(task["containers"][0]["reason"], reason);
    sandbox.end().await;
}

#[tokio::test]
async fn a_client_token_belongs_to_one_request_for_a_day() {
    let sandbox = start().await;
    let run = |started_by: &str| {
        let members =
            json!({"taskDefinition": "web", "clientToken": "once", "startedBy": started_by});
        with_network(members, "EC2")
    };
    let ran = sandbox.ecs("RunTask", run("me")).await;
    let task = ran["tasks"][0]["taskArn"].as_str().unwrap();
    let again = sandbox.ecs("RunTask", run("me")).await;
    assert_eq!(again["tasks"][0]["taskArn"], task);
    let refusal: Value =
        serde_json::from_str(&sandbox.refused("RunTask", run("you")).await).unwrap();
    assert_eq!(refusal["__type"], "ConflictException");
    assert_eq!(refusal["resourceIds"], json!([task]));
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.contains("clientToken is already in use"),
        "{message}"
    );

    sandbox.advance("23h 59m").await;
    sandbox.refused("RunTask", run("you")).await;
    sandbox.advance("1m").await;
    let other = sandbox.ecs("RunTask", run("you")).await;
    assert_ne!(other["tasks"][0]["taskArn"], task);
    sandbox.end().await;
}
