//! Simulated tasks in virtual time, over real HTTP: hours pass on request, and the same calls have
//! the same answers.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use hyper::{Method, StatusCode};
use roadstead_sandbox::{BackendKind, Config, serve};
use serde_json::{Value, json};
use support::simulation::{Simulation, config};
use support::{Answer, eventually};

/// Midnight of the first of January 2026, where virtual time begins.
const BEGINNING: f64 = 1_767_225_600.0;

/// An answer as it came, headers and all.
fn whole(answer: &Answer) -> String {
    format!("{} {:?} {}", answer.status, answer.headers, answer.text())
}

/// Two rollouts that chance has a say in; everything that can be seen of them.
async fn story(seed: u64) -> Vec<String> {
    let sandbox = Simulation::start(seed).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let shaky = "simulated:20p-missing_start-1s..5s_healthy-5s..20s";
    sandbox.create("web", shaky, 4).await;
    sandbox.create("worker", "simulated:flapping-10m", 2).await;
    let mut seen = vec![
        sandbox.advance("until settled").await.to_string(),
        sandbox.assume_role().await,
    ];
    sandbox
        .update("web", "simulated:healthy-30s_exit-1-5s..9s")
        .await;
    seen.push(sandbox.advance("1h").await.to_string());
    let events = sandbox.own(Method::GET, "events", "").await.text();
    assert!(events.lines().count() > 20, "{events}");
    seen.push(events);
    for service in ["web", "worker"] {
        let input = json!({"services": [service]});
        let answer = sandbox.ask("DescribeServices", input).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.headers.contains_key("x-amzn-requestid"));
        let date = answer.headers["date"].to_str().unwrap();
        assert!(date.starts_with("Thu, 01 Jan 2026 "), "{date}");
        seen.push(whole(&answer));
        let input = json!({"service": service});
        seen.push(sandbox.text("ListServiceDeployments", input).await);
        seen.push(sandbox.tasks_text(service).await);
    }
    let refused = json!({"services": ["web"], "cluster": "none"});
    seen.push(whole(&sandbox.ask("DescribeServices", refused).await));
    assert_eq!(sandbox.outcome("web").await, "ROLLBACK_SUCCESSFUL");
    sandbox.end().await;
    seen
}

#[tokio::test]
async fn the_same_seed_tells_the_same_story_to_the_byte() {
    let (first, second, other) = (story(7).await, story(7).await, story(8).await);
    assert_eq!(first, second);
    assert_ne!(first[1], other[1], "another seed, the same keys");
    assert_ne!(first[3], other[3], "another seed, the same events");
}

#[tokio::test]
async fn there_is_no_service_deployment_to_continue_because_none_pauses() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox.create("web", "simulated:healthy-30s", 1).await;
    sandbox.advance("1s").await;
    let listed = json!({"service": "web"});
    let listed = sandbox.ecs("ListServiceDeployments", listed).await;
    let arn = listed["serviceDeployments"][0]["serviceDeploymentArn"].as_str();
    let arn = arn.unwrap();
    let refused = async |arn: &str, action: &str| {
        let input = json!({"serviceDeploymentArn": arn, "hookId": "hook-1", "action": action});
        sandbox.refused("ContinueServiceDeployment", input).await
    };
    for action in ["CONTINUE", "ROLLBACK"] {
        let refusal = refused(arn, action).await;
        assert!(refusal.contains("InvalidParameterException"), "{refusal}");
        assert!(refusal.contains("hook-1"), "{refusal}");
    }
    let refusal = refused(arn, "SKIP").await;
    assert!(refusal.contains("Unknown action SKIP"), "{refusal}");
    let refusal = refused(&format!("{arn}x"), "CONTINUE").await;
    assert!(
        refusal.contains("ServiceDeploymentNotFoundException"),
        "{refusal}"
    );
    // What was refused has changed nothing.
    sandbox.advance("until settled").await;
    assert_eq!(sandbox.outcome("web").await, "SUCCESSFUL");
    sandbox.end().await;
}

#[tokio::test]
async fn an_abort_ends_a_service_deployment_and_leaves_the_tasks_as_they_are() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox.create("web", "simulated:healthy-5s", 2).await;
    sandbox.advance("until settled").await;
    let first = sandbox.service("web").await["taskDefinition"].clone();
    sandbox.update("web", "simulated:healthy-10h").await;
    sandbox.advance("1m").await;
    let listed = json!({"service": "web"});
    let listed = sandbox.ecs("ListServiceDeployments", listed).await;
    let arn = listed["serviceDeployments"][0]["serviceDeploymentArn"].clone();
    let stop = json!({"serviceDeploymentArn": arn, "stopType": "ABORT"});
    let stopped = sandbox.ecs("StopServiceDeployment", stop.clone()).await;
    assert_eq!(stopped["serviceDeploymentArn"], arn);
    sandbox.advance("1m").await;
    assert_eq!(sandbox.outcome("web").await, "STOPPED");
    let service = sandbox.service("web").await;
    assert_ne!(service["taskDefinition"], first, "it was taken back");
    let tasks = sandbox.tasks("web").await;
    let mut old = tasks.iter().filter(|one| one["taskDefinitionArn"] == first);
    assert!(old.all(|one| one["lastStatus"] == "RUNNING"), "{tasks:#?}");
    // What has ended cannot be stopped again.
    let refusal = sandbox.refused("StopServiceDeployment", stop).await;
    assert!(refusal.contains("ConflictException"), "{refusal}");
    sandbox.end().await;
}

#[tokio::test]
async fn nothing_moves_between_requests_and_timestamps_are_those_of_the_clock() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox
        .create("web", "simulated:pull-2m_healthy-30s", 3)
        .await;
    assert!(sandbox.tasks("web").await.is_empty());
    let created = sandbox.service("web").await["createdAt"].as_f64();
    assert_eq!(created, Some(BEGINNING));
    sandbox.advance("0s").await;
    let tasks = sandbox.tasks("web").await;
    assert_eq!(tasks.len(), 3);
    assert_eq!(tasks[0]["createdAt"].as_f64(), Some(BEGINNING));
    // A minute before the images are there.
    let passed = sandbox.advance("1m").await;
    assert_eq!(passed["now"].as_f64(), Some(BEGINNING + 60.0));
    assert_eq!(passed["settled"], json!(false));
    for task in sandbox.tasks("web").await {
        assert_eq!(task["lastStatus"], "PENDING");
        assert_eq!(task["pullStoppedAt"], Value::Null);
    }
    let passed = sandbox.advance("until settled").await;
    assert_eq!(passed["settled"], json!(true));
    let now = passed["now"].as_f64().unwrap() - BEGINNING;
    assert!((150.0..160.0).contains(&now), "settled after {now} s");
    for task in sandbox.tasks("web").await {
        assert_eq!(task["pullStoppedAt"].as_f64(), Some(BEGINNING + 120.0));
        assert_eq!(task["healthStatus"], "HEALTHY");
    }
    assert_eq!(sandbox.outcome("web").await, "SUCCESSFUL");
    // Nothing happens in a quiet day, and it passes all the same.
    let passed = sandbox.advance("24h").await;
    let elapsed = passed["now"].as_f64().unwrap() - BEGINNING - now;
    assert_eq!(elapsed, 86_400.0);
    let answer = sandbox.own(Method::GET, "clock", "").await;
    let clock: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(clock["now"], passed["now"]);
    assert_eq!(clock["virtual"], json!(true));
    sandbox.end().await;
}

/// How tasks of such an image look five minutes later: status, stop code, reason, exit code.
const OUTCOMES: [(&str, &str, &str, &str, Option<i64>); 9] = [
    ("healthy-5s", "RUNNING", "", "", None),
    ("pull-10m", "PENDING", "", "", None),
    (
        "missing",
        "STOPPED",
        "TaskFailedToStart",
        "CannotPullContainerError: simulated: manifest unknown",
        None,
    ),
    (
        "broken",
        "STOPPED",
        "TaskFailedToStart",
        "CannotStartContainerError: simulated: no such executable",
        None,
    ),
    (
        "exit-3-5s",
        "STOPPED",
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(3),
    ),
    (
        "oom-2m",
        "STOPPED",
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(137),
    ),
    (
        "unhealthy-20s",
        "STOPPED",
        "ServiceSchedulerInitiated",
        "Task failed container health checks",
        Some(143),
    ),
    (
        "flapping-90s",
        "STOPPED",
        "ServiceSchedulerInitiated",
        "Task failed container health checks",
        Some(143),
    ),
    (
        "helathy-5s",
        "STOPPED",
        "TaskFailedToStart",
        "CannotStartContainerError: cannot read `helathy-5s` in image simulated:helathy-5s",
        None,
    ),
];

#[tokio::test]
async fn a_tag_says_what_becomes_of_a_task() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    for (number, (tag, ..)) in OUTCOMES.iter().enumerate() {
        let name = format!("service-{number}");
        sandbox.create(&name, &format!("simulated:{tag}"), 1).await;
    }
    sandbox.advance("5m").await;
    for (number, (tag, status, code, reason, exit)) in OUTCOMES.iter().enumerate() {
        let tasks = sandbox.tasks(&format!("service-{number}")).await;
        let of_status = tasks.iter().find(|task| task["lastStatus"] == *status);
        let task = of_status.unwrap_or_else(|| panic!("{tag}: {tasks:#?}"));
        let text = |member: &str| task[member].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("stopCode"), *code, "{tag}");
        assert_eq!(text("stoppedReason"), *reason, "{tag}");
        assert_eq!(task["containers"][0]["exitCode"].as_i64(), *exit, "{tag}");
        let stopped = tasks.iter().any(|task| task["lastStatus"] == "STOPPED");
        assert_eq!(stopped, *status == "STOPPED", "{tag}");
    }
    sandbox.end().await;
}

#[tokio::test]
async fn a_restart_goes_on_where_time_and_chance_were() {
    let sandbox = Simulation::start(3).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox.create("web", "simulated:healthy-1m", 2).await;
    let before = sandbox.advance("30s").await;
    let ids = |tasks: &[Value]| -> Vec<Value> {
        tasks.iter().map(|task| task["taskArn"].clone()).collect()
    };
    let first = ids(&sandbox.tasks("web").await);
    let directory = sandbox.end().await;
    let sandbox = Simulation::start_in(directory, |config| {
        config.virtual_clock = true;
        config.seed = Some(3);
    })
    .await;
    let after = sandbox.advance("0s").await;
    assert_eq!(after["now"], before["now"]);
    sandbox.create("worker", "simulated:healthy-1m", 2).await;
    assert_eq!(
        sandbox.advance("until settled").await["settled"],
        json!(true)
    );
    assert_eq!(ids(&sandbox.tasks("web").await), first);
    let second = ids(&sandbox.tasks("worker").await);
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|task| !first.contains(task)));
    assert_eq!(sandbox.outcome("web").await, "SUCCESSFUL");
    sandbox.end().await;
}

#[tokio::test]
async fn real_time_passes_by_itself_alone() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Simulation::start_in(directory, |config| config.time_scale = 50.0).await;
    let answer = sandbox.own(Method::POST, "clock", r#"{"advance": "1h"}"#);
    let answer = answer.await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(
        answer.text().contains("--virtual-clock"),
        "{}",
        answer.text()
    );
    let answer = sandbox.own(Method::POST, "clock", "{}").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = sandbox.own(Method::DELETE, "clock", "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox.create("web", "simulated:healthy-5s", 1).await;
    eventually("the rollout to complete by itself", || async {
        (sandbox.outcome("web").await == "SUCCESSFUL").then_some(())
    })
    .await;
    sandbox.end().await;
}

#[tokio::test]
async fn virtual_time_is_for_simulated_tasks_at_their_own_pace() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = || Config {
        virtual_clock: true,
        ..config(&directory)
    };
    let on_docker = Config {
        backend: BackendKind::Docker,
        ..wrong()
    };
    let scaled = Config {
        time_scale: 2.0,
        ..wrong()
    };
    let seeded = Config {
        backend: BackendKind::Docker,
        virtual_clock: false,
        seed: Some(7),
        ..wrong()
    };
    for (config, named) in [
        (on_docker, "containers live in real time"),
        (scaled, "time scale"),
        (seeded, "a seed"),
    ] {
        let error = serve(config, std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error:#}");
    }
}
