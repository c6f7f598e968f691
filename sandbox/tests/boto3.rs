//! An AWS client nobody here wrote rolls deployments on simulated tasks, over real HTTP.

mod clients;
#[path = "clients/sandbox.rs"]
mod sandbox;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clients::{answers::check_answers, tell};
use sandbox::{PATIENCE, Sandbox};
use serde_json::{Value, json};

fn story(name: &str) {
    told_by("ecs_story.py", name);
}

/// A story of what ECS needs besides rollouts.
fn resources(name: &str) {
    told_by("ecs_resources.py", name);
}

/// Tells a story, and holds every answer against AWS's API models.
fn told_by(script: &str, name: &str) {
    let sandbox = Sandbox::start();
    tell(script, &sandbox.endpoint, &["--backend", "simulated", name]);
    let data = sandbox.stop();
    check_answers(data.path());
}

#[test]
fn tasks_go_where_there_is_room() {
    resources("placement");
}

#[test]
fn a_draining_instance_is_emptied() {
    resources("draining");
}

#[test]
fn the_tasks_of_a_lost_instance_are_replaced() {
    resources("lost-instance");
}

#[test]
fn fargate_needs_no_instances_but_sizes_that_exist() {
    resources("fargate");
}

#[test]
fn a_good_rollout_completes() {
    story("good-rollout");
}

#[test]
fn a_crash_trips_the_breaker_and_rolls_back() {
    story("crash");
}

#[test]
fn a_missing_image_rolls_back() {
    story("missing-image");
}

#[test]
fn failed_health_checks_roll_back() {
    story("unhealthy");
}

#[test]
fn a_stopped_service_deployment_rolls_back() {
    story("stop-with-rollback");
}

#[test]
fn a_newer_update_supersedes() {
    story("supersede");
}

#[test]
fn a_first_deployment_that_fails_stalls() {
    story("first-fails");
}

#[test]
fn a_task_runs_to_its_end() {
    story("run-task");
}

#[test]
fn wrong_requests_are_refused_as_aws_does() {
    story("refusals");
}

#[test]
fn keys_of_a_role_may_do_what_it_may() {
    resources("roles");
}

#[test]
fn alarms_are_kept_and_told_in_every_protocol() {
    resources("cloudwatch");
}

#[test]
fn an_alarm_takes_a_rollout_back() {
    resources("deployment-alarms");
}

/// One HTTP exchange; None when the connection closed without an answer.
fn exchange(sandbox: &Sandbox, head: &str, body: &str) -> Option<(u16, String)> {
    let address = sandbox.endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the sandbox accepts");
    write!(
        stream,
        "{head}\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("the request leaves");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn call(sandbox: &Sandbox, operation: &str, body: &Value) -> Option<(u16, Value)> {
    let head = format!(
        "POST / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amz-target: AmazonEC2ContainerServiceV20141113.{operation}"
    );
    let (status, body) = exchange(sandbox, &head, &body.to_string())?;
    Some((status, serde_json::from_str(&body).expect("JSON")))
}

fn calls(sandbox: &Sandbox, filter: &str) -> Vec<Value> {
    let head = format!("GET /_sandbox/calls?{filter} HTTP/1.1");
    let (status, body) = exchange(sandbox, &head, "").expect("an answer");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn inject(sandbox: &Sandbox, fault: &Value) {
    let (status, body) = exchange(
        sandbox,
        "POST /_sandbox/faults HTTP/1.1",
        &fault.to_string(),
    )
    .expect("an answer");
    assert_eq!(status, 201, "{body}");
}

#[test]
fn injected_faults_meet_calls_and_the_log_tells_which_took_effect() {
    let sandbox = Sandbox::start();
    let create = |name: &str| call(&sandbox, "CreateCluster", &json!({"clusterName": name}));

    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "throttle", "times": 2}),
    );
    for _ in 0..2 {
        let (status, body) = create("a").unwrap();
        assert_eq!(status, 400);
        assert_eq!(body["__type"], "ThrottlingException");
    }
    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "fail_after"}),
    );
    assert_eq!(create("a").unwrap().0, 500);
    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "fail_before"}),
    );
    assert_eq!(create("b").unwrap().0, 500);
    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "drop_reply"}),
    );
    assert_eq!(create("c"), None);
    assert_eq!(create("c").unwrap().0, 200);

    let (_, listed) = call(&sandbox, "ListClusters", &json!({})).unwrap();
    let names: Vec<&str> = listed["clusterArns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arn| arn.as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["a", "c"], "what failed before did not happen");

    let all = calls(&sandbox, "operation=CreateCluster");
    let seen: Vec<(Option<&str>, bool, u64)> = all
        .iter()
        .map(|call| {
            (
                call["fault"].as_str(),
                call["effective"].as_bool().unwrap(),
                call["status"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Some("throttle"), false, 400),
            (Some("throttle"), false, 400),
            (Some("fail_after"), true, 500),
            (Some("fail_before"), false, 500),
            (Some("drop_reply"), true, 200),
            (None, false, 200),
        ]
    );
    assert_eq!(
        calls(&sandbox, "operation=CreateCluster&effective=true").len(),
        2
    );

    inject(&sandbox, &json!({"operation": "*", "kind": "throttle"}));
    exchange(&sandbox, "DELETE /_sandbox/faults HTTP/1.1", "").unwrap();
    assert_eq!(call(&sandbox, "ListClusters", &json!({})).unwrap().0, 200);
    let (status, body) =
        exchange(&sandbox, "POST /_sandbox/faults HTTP/1.1", "{\"kind\": 1}").unwrap();
    assert_eq!(status, 400, "{body}");
}

#[test]
fn state_and_call_log_survive_a_restart_and_the_page_shows_them() {
    let sandbox = Sandbox::start();
    let (status, _) = call(
        &sandbox,
        "RegisterTaskDefinition",
        &json!({
            "family": "kept",
            "fromTheFuture": {"a": [1, 2.5]},
            "containerDefinitions": [{"name": "app", "image": "i", "alsoNew": true}],
        }),
    )
    .expect("an answer");
    assert_eq!(status, 200);
    call(&sandbox, "CreateCluster", &json!({"clusterName": "c<1>"})).unwrap();
    call(&sandbox, "CreateCluster", &json!({"clusterName": "main"})).unwrap();
    let (status, body) = call(
        &sandbox,
        "CreateService",
        &json!({"cluster": "main", "serviceName": "web", "taskDefinition": "kept",
                "desiredCount": 1}),
    )
    .unwrap();
    assert_eq!(status, 200, "{body}");
    let directory = sandbox.stop();

    let sandbox = Sandbox::start_in(directory);
    let (_, described) = call(
        &sandbox,
        "DescribeTaskDefinition",
        &json!({"taskDefinition": "kept:1"}),
    )
    .unwrap();
    let definition = &described["taskDefinition"];
    assert_eq!(definition["fromTheFuture"], json!({"a": [1, 2.5]}));
    assert_eq!(
        definition["containerDefinitions"][0]["alsoNew"],
        json!(true)
    );
    let (_, described) = call(
        &sandbox,
        "DescribeServices",
        &json!({"cluster": "main", "services": ["web"]}),
    )
    .unwrap();
    assert_eq!(described["services"][0]["desiredCount"], 1);
    assert_eq!(calls(&sandbox, "operation=CreateService").len(), 1);
    let (status, page) = exchange(&sandbox, "GET /_sandbox HTTP/1.1", "").unwrap();
    assert_eq!(status, 200);
    assert!(
        page.contains("Service web") && page.contains("kept:1"),
        "{page}"
    );
}

#[test]
fn answers_can_be_stale_or_partial_and_calls_denied() {
    let sandbox = Sandbox::start();
    let describe = |names: Value| {
        let (status, body) =
            call(&sandbox, "DescribeClusters", &json!({"clusters": names})).expect("an answer");
        assert_eq!(status, 200, "{body}");
        body
    };
    let once = |kind: &str| {
        inject(
            &sandbox,
            &json!({"operation": "DescribeClusters", "kind": kind}),
        );
    };
    call(&sandbox, "CreateCluster", &json!({"clusterName": "a"})).unwrap();
    let before = describe(json!(["a", "b"]));
    call(&sandbox, "CreateCluster", &json!({"clusterName": "b"})).unwrap();
    once("stale");
    assert_eq!(
        describe(json!(["a", "b"])),
        before,
        "as it was asked before"
    );
    let now = describe(json!(["a", "b"]));
    assert_eq!(now["clusters"].as_array().unwrap().len(), 2);
    // What was never asked has no older answer.
    once("stale");
    assert_eq!(describe(json!(["b"]))["clusters"][0]["clusterName"], "b");

    once("partial_failure");
    let partial = describe(json!(["a", "b"]));
    assert_eq!(partial["clusters"].as_array().unwrap().len(), 1);
    let failure = json!({"arn": now["clusters"][1]["clusterArn"], "reason": "MISSING"});
    assert_eq!(partial["failures"], json!([failure]));

    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "deny"}),
    );
    let (status, body) = call(&sandbox, "CreateCluster", &json!({"clusterName": "c"})).unwrap();
    assert_eq!(status, 400);
    assert_eq!(body["__type"], "AccessDeniedException");
    assert!(body.to_string().contains("ecs:CreateCluster"), "{body}");
    assert_eq!(describe(json!(["c"]))["clusters"], json!([]));
}

#[test]
fn a_call_with_the_same_client_token_takes_effect_once() {
    let sandbox = Sandbox::start();
    let ecs = |operation: &str, input: &Value| {
        let (status, body) = call(&sandbox, operation, input).expect("an answer");
        assert_eq!(status, 200, "{body}");
        body
    };
    ecs("CreateCluster", &json!({}));
    let containers = json!([{"name": "app", "image": "i"}]);
    let definition = json!({"family": "app", "containerDefinitions": containers});
    ecs("RegisterTaskDefinition", &definition);
    let create = |token: &str| {
        json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 0,
               "clientToken": token})
    };
    let first = ecs("CreateService", &create("one"));
    let again = ecs("CreateService", &create("one"));
    assert_eq!(
        first["service"]["deployments"][0]["id"],
        again["service"]["deployments"][0]["id"]
    );
    let (status, _) = call(&sandbox, "CreateService", &create("two")).unwrap();
    assert_eq!(status, 400, "there is another of that name");
    let run = json!({"taskDefinition": "app", "count": 2, "clientToken": "three"});
    let arns = |body: &Value| -> Vec<Value> {
        let tasks = body["tasks"].as_array().unwrap();
        tasks.iter().map(|task| task["taskArn"].clone()).collect()
    };
    let first = arns(&ecs("RunTask", &run));
    assert_eq!(arns(&ecs("RunTask", &run)), first);
    assert_eq!(first.len(), 2);
    assert_eq!(calls(&sandbox, "operation=RunTask&effective=true").len(), 1);
}

#[test]
fn a_caller_that_hangs_up_does_not_stop_its_call() {
    let sandbox = Sandbox::start();
    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "delay", "delay_ms": 300}),
    );
    let address = sandbox.endpoint.trim_start_matches("http://");
    let body = json!({"clusterName": "wanted"}).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: {address}\r\n\
         x-amz-target: AmazonEC2ContainerServiceV20141113.CreateCluster\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    // The fault is used up once the call has begun.
    let deadline = Instant::now() + PATIENCE;
    while exchange(&sandbox, "GET /_sandbox/faults HTTP/1.1", "")
        .is_some_and(|(_, faults)| faults.contains("delay"))
    {
        assert!(Instant::now() < deadline, "the call never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stream);
    while calls(&sandbox, "operation=CreateCluster&effective=true").is_empty() {
        assert!(Instant::now() < deadline, "the call was lost");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reply_that_waits_is_seen_and_can_be_let_go() {
    let sandbox = Sandbox::start();
    inject(
        &sandbox,
        &json!({"operation": "CreateCluster", "kind": "delay_reply", "delay_ms": 600_000}),
    );
    std::thread::scope(|scope| {
        let caller =
            scope.spawn(|| call(&sandbox, "CreateCluster", &json!({"clusterName": "kept"})));
        let deadline = Instant::now() + PATIENCE;
        let held = loop {
            let (_, held) = exchange(&sandbox, "GET /_sandbox/held HTTP/1.1", "").unwrap();
            if held.trim() != "[]" {
                break held;
            }
            assert!(Instant::now() < deadline, "the call never came");
            std::thread::sleep(Duration::from_millis(5));
        };
        let held: Value = serde_json::from_str(&held).unwrap();
        let waiting = json!({"operation": "CreateCluster", "request": {"clusterName": "kept"},
                             "performed": true});
        assert_eq!(held, json!([waiting]));
        let logged = calls(&sandbox, "operation=CreateCluster&effective=true");
        assert_eq!(logged.len(), 1, "it took effect");
        assert!(!caller.is_finished(), "its answer waits");
        inject(
            &sandbox,
            &json!({"operation": "Unheard", "kind": "throttle"}),
        );
        exchange(&sandbox, "DELETE /_sandbox/held HTTP/1.1", "").unwrap();
        assert_eq!(caller.join().unwrap().unwrap().0, 200);
    });
    let (_, held) = exchange(&sandbox, "GET /_sandbox/held HTTP/1.1", "").unwrap();
    assert_eq!(held.trim(), "[]");
    let (_, to_come) = exchange(&sandbox, "GET /_sandbox/faults HTTP/1.1", "").unwrap();
    assert!(to_come.contains("Unheard"), "{to_come}");
}

#[test]
fn a_rollout_goes_on_after_a_restart() {
    let sandbox = Sandbox::start();
    call(&sandbox, "CreateCluster", &json!({"clusterName": "main"})).unwrap();
    let register = |sandbox: &Sandbox, health: &str| {
        let check = json!({"command": ["CMD-SHELL", "true"]});
        let container = json!({"name": "app", "image": "i", "healthCheck": check,
                               "dockerLabels": {"simulate.health": health}});
        let input = json!({"family": "app", "containerDefinitions": [container]});
        assert_eq!(
            call(sandbox, "RegisterTaskDefinition", &input).unwrap().0,
            200
        );
    };
    let breaker = json!({"enable": true, "rollback": true});
    let describe = |sandbox: &Sandbox| {
        let input = json!({"cluster": "main", "services": ["web"]});
        let (_, answer) = call(sandbox, "DescribeServices", &input).unwrap();
        answer["services"][0]["deployments"].clone()
    };
    let settle = |sandbox: &Sandbox| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let deployments = describe(sandbox);
            if deployments[0]["rolloutState"] == "COMPLETED" {
                return deployments;
            }
            assert!(Instant::now() < deadline, "{deployments}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    register(&sandbox, "healthy@1s");
    let create = json!({"cluster": "main", "serviceName": "web", "taskDefinition": "app",
                        "desiredCount": 2,
                        "deploymentConfiguration": {"deploymentCircuitBreaker": breaker}});
    assert_eq!(call(&sandbox, "CreateService", &create).unwrap().0, 200);
    let first = settle(&sandbox)[0]["id"].clone();

    // Five seconds of waiting, again and again: the restart falls into the rollout.
    register(&sandbox, "unhealthy@500s");
    let update = json!({"cluster": "main", "service": "web", "taskDefinition": "app:2"});
    assert_eq!(call(&sandbox, "UpdateService", &update).unwrap().0, 200);
    let second = describe(&sandbox)[0]["id"].clone();
    assert_ne!(first, second);
    let sandbox = Sandbox::start_in(sandbox.stop());
    assert_eq!(describe(&sandbox)[0]["id"], second, "still the wanted one");
    let deployments = settle(&sandbox);
    assert_eq!(deployments[0]["id"], first, "taken back by the new process");
    assert_eq!(deployments.as_array().unwrap().len(), 1);
    assert_eq!(
        calls(&sandbox, "operation=UpdateService&effective=true").len(),
        1
    );
}

#[test]
fn what_is_no_aws_call_is_told_so() {
    let sandbox = Sandbox::start();
    let (status, body) = exchange(&sandbox, "POST / HTTP/1.1", "x").unwrap();
    assert_eq!(status, 400);
    assert!(body.contains("X-Amz-Target"), "{body}");
    let (status, body) = call(&sandbox, "CreateCapacityProvider", &json!({})).unwrap();
    assert_eq!(status, 400);
    assert_eq!(body["__type"], "UnsupportedFeatureException");
    let head = "POST / HTTP/1.1\r\nx-amz-target: AmazonEC2ContainerServiceV20141113.ListClusters";
    let (status, body) = exchange(&sandbox, head, "{").unwrap();
    assert_eq!(status, 400);
    assert!(body.contains("SerializationException"), "{body}");
    let (status, _) = exchange(&sandbox, "GET /_sandbox/nothing HTTP/1.1", "").unwrap();
    assert_eq!(status, 404);
}
