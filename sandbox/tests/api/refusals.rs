//! What is refused, until when, and what `--lenient` lets pass.

use crate::support::http;
use crate::support::simulation::Simulation;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn a_task_for_which_no_processor_is_free_is_refused_and_told() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let instances = json!({"cluster": "default", "instances": [
        {"zone": "us-east-1a", "cpu": 256, "memory": 4096}]});
    let body = instances.to_string();
    let told = sandbox.own(Method::PUT, "instances", &body).await;
    assert!(told.status.is_success(), "{}", told.text());
    let container = json!({"name": "app", "image": "simulated:latest", "cpu": 200, "memory": 64});
    let definition = json!({"family": "web", "containerDefinitions": [container]});
    sandbox.ecs("RegisterTaskDefinition", definition).await;
    let service = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 2});
    sandbox.ecs("CreateService", service).await;
    sandbox.advance("2m").await;
    let service = sandbox.service("web").await;
    assert_eq!(service["runningCount"], 1);
    let listed = sandbox.ecs("ListContainerInstances", json!({})).await;
    let instance = listed["containerInstanceArns"][0].as_str().unwrap();
    let id = instance.rsplit('/').next().unwrap();
    let event = format!(
        "(service web) was unable to place a task because no container instance met all of its \
         requirements. The closest matching (container-instance {id}) has insufficient CPU units \
         available. For more information, see the Troubleshooting section of the Amazon ECS \
         Developer Guide."
    );
    let events = service["events"].as_array().unwrap();
    let told = |it: &Value| it["message"] == event;
    assert!(events.iter().any(told), "{events:#?}");
    let ran = sandbox
        .ecs("RunTask", json!({"taskDefinition": "web"}))
        .await;
    assert_eq!(ran["tasks"], json!([]));
    let expected = json!([{"arn": instance, "reason": "RESOURCE:CPU"}]);
    assert_eq!(ran["failures"], expected);
    sandbox.end().await;
}

#[tokio::test]
async fn the_keys_of_a_role_end_when_they_say() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let keys = sandbox.assume_role().await;
    let found = |name: &str| {
        let (_, rest) = keys.split_once(&format!("<{name}>")).unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/ecs/aws4_request, \
         SignedHeaders=host, Signature=00",
        found("AccessKeyId")
    );
    let token = found("SessionToken");
    let ask = async || {
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            (
                "x-amz-target",
                "AmazonEC2ContainerServiceV20141113.ListClusters",
            ),
            ("authorization", authorization.as_str()),
            ("x-amz-security-token", token.as_str()),
        ];
        http(Method::POST, &sandbox.endpoint, &headers, "{}")
            .await
            .unwrap()
    };
    assert_eq!(ask().await.status, StatusCode::OK);
    // An hour, unless DurationSeconds says.
    assert!(found("Expiration").starts_with("2026-01-01T01:00:00"));
    sandbox.advance("3599s").await;
    assert_eq!(ask().await.status, StatusCode::OK);
    sandbox.advance("1s").await;
    let refused = ask().await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let text = refused.text();
    assert!(text.contains("ExpiredTokenException"), "{text}");
    assert!(text.contains("is expired"), "{text}");
    sandbox.end().await;
}

#[tokio::test]
async fn a_lenient_sandbox_ignores_what_another_refuses_but_no_value_that_it_cannot_honour() {
    let ask = async |lenient: bool| {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Simulation::start_in(directory, |config| {
            config.virtual_clock = true;
            config.seed = Some(1);
            config.lenient = lenient;
        })
        .await;
        sandbox.ecs("CreateCluster", json!({})).await;
        sandbox.register("web", "simulated:latest").await;
        let mut answers = Vec::new();
        for (name, member, value) in [
            (
                "a",
                "placementStrategy",
                json!([{"type": "spread", "field": "host"}]),
            ),
            ("b", "availabilityZoneRebalancing", json!("ENABLED")),
            ("c", "schedulingStrategy", json!("DAEMON")),
        ] {
            let mut input =
                json!({"serviceName": name, "taskDefinition": "web", "desiredCount": 1});
            input[member] = value;
            let answer = sandbox.ask("CreateService", input).await;
            if answer.status != StatusCode::OK {
                let text = answer.text();
                assert!(text.contains("UnsupportedFeatureException"), "{text}");
                assert!(text.contains(member), "{text}");
            }
            answers.push(answer.status == StatusCode::OK);
        }
        // Nor does a container of another system run.
        let windows = json!({"family": "old", "containerDefinitions": [
            {"name": "app", "image": "simulated:latest", "memory": 64}],
            "runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}});
        let refusal = sandbox.refused("RegisterTaskDefinition", windows).await;
        assert!(refusal.contains("operatingSystemFamily"), "{refusal}");
        // An operation that is not there stays so.
        let refusal = sandbox.refused("PutAttributes", json!({})).await;
        assert!(refusal.contains("UnsupportedFeatureException"), "{refusal}");
        sandbox.advance("until settled").await;
        let listed = sandbox.ecs("ListServices", json!({})).await;
        let made = listed["serviceArns"].as_array().unwrap().len();
        assert_eq!(made, answers.iter().filter(|it| **it).count());
        sandbox.end().await;
        answers
    };
    assert_eq!(ask(false).await, [false, false, false]);
    assert_eq!(ask(true).await, [true, true, false]);
}
