//! Tags: who has them, who passes them on, and who shows them.

use crate::support::simulation::Simulation;
use serde_json::{Value, json};

fn tags(pairs: &[(&str, &str)]) -> Value {
    let tags = pairs.iter();
    tags.map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

/// A definition with a tag, for a service or a task.
async fn define(sandbox: &Simulation) {
    let definition = json!({
        "family": "web",
        "tags": tags(&[("from", "definition"), ("team", "shop")]),
        "containerDefinitions": [{"name": "app", "image": "simulated:healthy-5s", "memory": 64}],
    });
    sandbox.ecs("RegisterTaskDefinition", definition).await;
}

async fn tags_of(sandbox: &Simulation, arn: &Value) -> Value {
    let listed = sandbox.ecs("ListTagsForResource", json!({"resourceArn": arn}));
    listed.await["tags"].clone()
}

#[tokio::test]
async fn tags_are_shown_where_they_are_asked_for_and_taken_away_again() {
    let sandbox = Simulation::start(1).await;
    let own = tags(&[("a", "1"), ("b", "2")]);
    let cluster = json!({"clusterName": "main", "tags": own});
    sandbox.ecs("CreateCluster", cluster).await;
    define(&sandbox).await;
    let service = json!({"cluster": "main", "serviceName": "web", "taskDefinition": "web",
        "desiredCount": 0, "tags": own});
    sandbox.ecs("CreateService", service).await;
    let ran = json!({"cluster": "main", "taskDefinition": "web", "tags": own});
    let ran = sandbox.ecs("RunTask", ran).await;
    let task = ran["tasks"][0]["taskArn"].clone();
    for (operation, names, member) in [
        (
            "DescribeClusters",
            json!({"clusters": ["main"]}),
            "clusters",
        ),
        ("DescribeServices", json!({"services": ["web"]}), "services"),
        ("DescribeTasks", json!({"tasks": [task]}), "tasks"),
    ] {
        let mut input = names;
        if operation != "DescribeClusters" {
            input["cluster"] = json!("main");
        }
        let described = sandbox.ecs(operation, input.clone()).await;
        let silent = described[member][0]["tags"].as_array();
        assert!(silent.is_none_or(Vec::is_empty), "{described:#}");
        input["include"] = json!(["TAGS"]);
        let described = sandbox.ecs(operation, input.clone()).await;
        let told = &described[member][0];
        assert_eq!(told["tags"], own, "{operation}");

        let arn = ["clusterArn", "serviceArn", "taskArn"][[
            "DescribeClusters",
            "DescribeServices",
            "DescribeTasks",
        ]
        .iter()
        .position(|it| *it == operation)
        .unwrap()];
        let arn = told[arn].clone();
        let more = json!({"resourceArn": arn, "tags": tags(&[("b", "3"), ("c", "4")])});
        sandbox.ecs("TagResource", more).await;
        let less = json!({"resourceArn": arn, "tagKeys": ["a", "absent"]});
        sandbox.ecs("UntagResource", less).await;
        let left = tags(&[("b", "3"), ("c", "4")]);
        assert_eq!(tags_of(&sandbox, &arn).await, left, "{operation}");
        let described = sandbox.ecs(operation, input).await;
        assert_eq!(described[member][0]["tags"], left, "{operation}");
    }
    let input = json!({"taskDefinition": "web", "include": ["TAGS"]});
    let described = sandbox.ecs("DescribeTaskDefinition", input).await;
    let expected = tags(&[("from", "definition"), ("team", "shop")]);
    assert_eq!(described["tags"], expected);

    let absent = "arn:aws:ecs:us-east-1:000000000000:service/main/absent";
    for (operation, mut input) in [
        ("UntagResource", json!({"tagKeys": ["a"]})),
        ("TagResource", json!({"tags": tags(&[("a", "1")])})),
        ("ListTagsForResource", json!({})),
    ] {
        input["resourceArn"] = json!(absent);
        let refusal = sandbox.refused(operation, input).await;
        assert!(refusal.contains("InvalidParameterException"), "{refusal}");
    }
    let reserved = json!({"resourceArn": task, "tags": tags(&[("aws:ecs:clusterName", "x")])});
    let refusal = sandbox.refused("TagResource", reserved).await;
    assert!(refusal.contains("the prefix aws: is reserved"), "{refusal}");
    sandbox.end().await;
}

#[tokio::test]
async fn new_tasks_get_the_tags_that_their_service_passes_on() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    define(&sandbox).await;
    let service = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 1,
        "tags": tags(&[("from", "service")])});
    let created = sandbox.ecs("CreateService", service).await;
    assert_eq!(created["service"]["propagateTags"], "NONE");
    assert_eq!(created["service"]["enableECSManagedTags"], false);
    sandbox.advance("until settled").await;
    let task = |task: Value| task["taskArn"].clone();
    let first = task(sandbox.tasks("web").await.remove(0));
    assert_eq!(tags_of(&sandbox, &first).await, json!([]));

    let managed = [
        ("aws:ecs:clusterName", "default"),
        ("aws:ecs:serviceName", "web"),
    ];
    for (source, with_managed, own) in [
        ("SERVICE", true, &[("from", "service")][..]),
        (
            "TASK_DEFINITION",
            false,
            &[("from", "definition"), ("team", "shop")],
        ),
        ("NONE", true, &[]),
    ] {
        let update = json!({"service": "web", "propagateTags": source,
            "enableECSManagedTags": with_managed});
        let updated = sandbox.ecs("UpdateService", update).await;
        assert_eq!(updated["service"]["propagateTags"], source);
        assert_eq!(updated["service"]["enableECSManagedTags"], with_managed);
        sandbox.advance("1m").await;
        // It starts no deployment, and what runs keeps the tags it has.
        let old = sandbox.tasks("web").await.remove(0);
        assert_eq!(old["lastStatus"], "RUNNING");
        let before = tags_of(&sandbox, &old["taskArn"]).await;
        let deployed = json!({"service": "web", "forceNewDeployment": true});
        sandbox.ecs("UpdateService", deployed).await;
        sandbox.advance("until settled").await;
        let new = sandbox.tasks("web").await.remove(0);
        assert_ne!(new["taskArn"], old["taskArn"]);
        assert_eq!(tags_of(&sandbox, &old["taskArn"]).await, before);
        let mut expected = if with_managed {
            managed.to_vec()
        } else {
            Vec::new()
        };
        expected.extend(own);
        assert_eq!(
            tags_of(&sandbox, &new["taskArn"]).await,
            tags(&expected),
            "{source}"
        );
        let input = json!({"tasks": [new["taskArn"]], "include": ["TAGS"]});
        let described = sandbox.ecs("DescribeTasks", input).await;
        assert_eq!(described["tasks"][0]["tags"], tags(&expected));
    }
    let wrong = json!({"service": "web", "propagateTags": "BOTH"});
    let refusal = sandbox.refused("UpdateService", wrong).await;
    assert!(refusal.contains("InvalidParameterException"), "{refusal}");
    // Tasks that cannot be described any more have no tags either.
    sandbox.advance("2h").await;
    let refusal = sandbox
        .refused("ListTagsForResource", json!({"resourceArn": first}))
        .await;
    assert!(refusal.contains("does not exist"), "{refusal}");
    sandbox.end().await;
}

#[tokio::test]
async fn a_task_of_run_task_has_its_own_tags_before_those_of_its_definition() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    define(&sandbox).await;
    let run = json!({"taskDefinition": "web", "propagateTags": "TASK_DEFINITION",
        "enableECSManagedTags": true, "tags": tags(&[("from", "request")])});
    let ran = sandbox.ecs("RunTask", run).await;
    let expected = [
        ("aws:ecs:clusterName", "default"),
        ("from", "request"),
        ("team", "shop"),
    ];
    assert_eq!(ran["tasks"][0]["tags"], tags(&expected));
    let arn = &ran["tasks"][0]["taskArn"];
    assert_eq!(tags_of(&sandbox, arn).await, tags(&expected));
    let run = json!({"taskDefinition": "web", "propagateTags": "SERVICE"});
    let refusal = sandbox.refused("RunTask", run).await;
    assert!(refusal.contains("InvalidParameterException"), "{refusal}");
    assert!(refusal.contains("propagateTags"), "{refusal}");
    sandbox.end().await;
}
