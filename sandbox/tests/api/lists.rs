//! Lists page by page, their filters, and the forms in which names are taken.

use std::collections::BTreeSet;

use crate::support::simulation::Simulation;
use serde_json::{Value, json};

/// Eleven clusters; in `main`, twelve services of a task each, the first with four service deployments.
async fn crowded() -> Simulation {
    let sandbox = Simulation::start(1).await;
    for number in 0..10 {
        let name = format!("spare-{number}");
        sandbox
            .ecs("CreateCluster", json!({"clusterName": name}))
            .await;
    }
    sandbox.ecs("CreateCluster", json!({})).await;
    for number in 0..12 {
        let name = format!("web-{number}");
        sandbox.create(&name, "simulated:healthy-5s", 1).await;
    }
    for _ in 0..3 {
        sandbox.update("web-0", "simulated:healthy-5s").await;
    }
    sandbox.advance("until settled").await;
    sandbox
}

/// All pages of a list, and how long each was.
async fn pages(
    sandbox: &Simulation,
    operation: &str,
    member: &str,
    input: &Value,
) -> (Vec<String>, Vec<usize>) {
    let (mut items, mut sizes) = (Vec::new(), Vec::new());
    let mut token = Value::Null;
    loop {
        let mut input = input.clone();
        if !token.is_null() {
            input["nextToken"] = token;
        }
        let page = sandbox.ecs(operation, input).await;
        let listed = page[member].as_array().unwrap();
        sizes.push(listed.len());
        items.extend(listed.iter().map(Value::to_string));
        token = page["nextToken"].clone();
        if token.is_null() {
            return (items, sizes);
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages_that_miss_and_repeat_nothing() {
    let sandbox = crowded().await;
    let of_service = json!({"service": "web-0"});
    for (operation, member, input, all, usual) in [
        ("ListClusters", "clusterArns", json!({}), 11, 100),
        ("ListServices", "serviceArns", json!({}), 12, 10),
        ("ListTasks", "taskArns", json!({}), 12, 100),
        (
            "ListTaskDefinitions",
            "taskDefinitionArns",
            json!({}),
            15,
            100,
        ),
        ("ListTaskDefinitionFamilies", "families", json!({}), 12, 100),
        (
            "ListContainerInstances",
            "containerInstanceArns",
            json!({}),
            4,
            100,
        ),
        (
            "ListServiceDeployments",
            "serviceDeployments",
            of_service,
            4,
            20,
        ),
    ] {
        let (items, sizes) = pages(&sandbox, operation, member, &input).await;
        assert_eq!(sizes[0], usual.min(all), "{operation}");
        assert_eq!(items.len(), all, "{operation}: {items:?}");
        let whole: BTreeSet<_> = items.iter().collect();
        assert_eq!(whole.len(), all, "{operation}: {items:?}");
        for size in [1, 3, 100] {
            let mut input = input.clone();
            input["maxResults"] = json!(size);
            let (paged, sizes) = pages(&sandbox, operation, member, &input).await;
            assert_eq!(paged, items, "{operation} in pages of {size}");
            assert_eq!(sizes.len(), all.div_ceil(size), "{operation}: {sizes:?}");
            assert_eq!(sizes[0], size.min(all), "{operation}: {sizes:?}");
        }
        for size in [0, 101] {
            let mut input = input.clone();
            input["maxResults"] = json!(size);
            let refusal = sandbox.refused(operation, input).await;
            let expected = "maxResults must be between 1 and 100.";
            assert!(refusal.contains("InvalidParameterException"), "{refusal}");
            assert!(refusal.contains(expected), "{operation}: {refusal}");
        }
        let mut input = input.clone();
        input["nextToken"] = json!("mine");
        let refusal = sandbox.refused(operation, input).await;
        assert!(refusal.contains("InvalidParameterException"), "{refusal}");
    }
    sandbox.end().await;
}

/// The last parts of the names that an operation lists.
async fn listed(sandbox: &Simulation, operation: &str, member: &str, input: Value) -> Vec<String> {
    let answer = sandbox.ecs(operation, input).await;
    let names = answer[member].as_array().unwrap().iter();
    let last = |name: &Value| {
        name.as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    };
    names.map(last).collect()
}

#[tokio::test]
async fn lists_heed_their_filters() {
    let sandbox = Simulation::start(1).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    sandbox.create("web", "simulated:healthy-5s", 1).await;
    let definition = sandbox.register("old", "simulated:healthy-5s").await;
    let fargate = json!({"family": "small", "cpu": "256", "memory": "512",
        "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "containerDefinitions": [{"name": "app", "image": "simulated:healthy-5s"}]});
    sandbox.ecs("RegisterTaskDefinition", fargate).await;
    let service = json!({"serviceName": "small", "taskDefinition": "small", "desiredCount": 1,
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}});
    sandbox.ecs("CreateService", service).await;
    let gone = json!({"taskDefinition": definition});
    sandbox.ecs("DeregisterTaskDefinition", gone).await;
    sandbox.advance("until settled").await;

    let services = async |input| listed(&sandbox, "ListServices", "serviceArns", input).await;
    assert_eq!(services(json!({})).await, ["web", "small"]);
    assert_eq!(services(json!({"launchType": "FARGATE"})).await, ["small"]);
    assert_eq!(services(json!({"launchType": "EC2"})).await, ["web"]);
    let daemons = json!({"schedulingStrategy": "DAEMON"});
    assert!(services(daemons).await.is_empty());

    let families =
        async |input| listed(&sandbox, "ListTaskDefinitionFamilies", "families", input).await;
    assert_eq!(families(json!({})).await, ["old", "small", "web"]);
    assert_eq!(families(json!({"status": "INACTIVE"})).await, ["old"]);
    assert_eq!(
        families(json!({"status": "ACTIVE"})).await,
        ["small", "web"]
    );
    assert_eq!(families(json!({"familyPrefix": "s"})).await, ["small"]);

    let definitions =
        async |input| listed(&sandbox, "ListTaskDefinitions", "taskDefinitionArns", input).await;
    assert_eq!(definitions(json!({"status": "INACTIVE"})).await, ["old:1"]);
    sandbox.register("web", "simulated:healthy-5s").await;
    let newest = json!({"familyPrefix": "web", "sort": "DESC"});
    assert_eq!(definitions(newest).await, ["web:2", "web:1"]);

    let tasks = async |input| listed(&sandbox, "ListTasks", "taskArns", input).await.len();
    assert_eq!(tasks(json!({})).await, 2);
    assert_eq!(tasks(json!({"family": "small"})).await, 1);
    assert_eq!(tasks(json!({"serviceName": "web"})).await, 1);
    assert_eq!(tasks(json!({"desiredStatus": "STOPPED"})).await, 0);
    sandbox.end().await;
}

#[tokio::test]
async fn names_are_taken_short_and_as_arns_but_not_those_of_another_cluster() {
    let sandbox = Simulation::start(1).await;
    for name in ["main", "other"] {
        let cluster = json!({"clusterName": name});
        sandbox.ecs("CreateCluster", cluster).await;
        sandbox.register("web", "simulated:healthy-5s").await;
        let service = json!({"cluster": name, "serviceName": "web", "taskDefinition": "web",
            "desiredCount": 1});
        sandbox.ecs("CreateService", service).await;
    }
    sandbox.advance("until settled").await;
    let of = |kind: &str| format!("arn:aws:ecs:us-east-1:000000000000:{kind}");
    let listed = json!({"cluster": "main"});
    let tasks = sandbox.ecs("ListTasks", listed).await["taskArns"].clone();
    let task = tasks[0].as_str().unwrap();
    let id = task.rsplit('/').next().unwrap();
    assert_eq!(task, of(&format!("task/main/{id}")));

    for cluster in ["main".to_owned(), of("cluster/main")] {
        for name in ["web".to_owned(), of("service/main/web"), of("service/web")] {
            let input = json!({"cluster": cluster, "services": [name]});
            let described = sandbox.ecs("DescribeServices", input).await;
            let arn = &described["services"][0]["serviceArn"];
            assert_eq!(*arn, of("service/main/web"), "{described:#}");
            let input = json!({"cluster": cluster, "serviceName": name});
            assert_eq!(sandbox.ecs("ListTasks", input).await["taskArns"], tasks);
            let input = json!({"cluster": cluster, "service": name});
            sandbox.ecs("UpdateService", input.clone()).await;
            sandbox.ecs("ListServiceDeployments", input).await;
        }
        for name in [id.to_owned(), task.to_owned(), of(&format!("task/{id}"))] {
            let input = json!({"cluster": cluster, "tasks": [name]});
            let described = sandbox.ecs("DescribeTasks", input).await;
            assert_eq!(described["tasks"][0]["taskArn"], task, "{described:#}");
        }
        let input = json!({"clusters": [cluster]});
        let described = sandbox.ecs("DescribeClusters", input).await;
        assert_eq!(described["clusters"][0]["clusterArn"], of("cluster/main"));
    }
    for name in ["web", "web:1", &of("task-definition/web:1")] {
        let input = json!({"taskDefinition": name});
        let described = sandbox.ecs("DescribeTaskDefinition", input).await;
        let revision = if name == "web" { 2 } else { 1 };
        assert_eq!(described["taskDefinition"]["revision"], revision);
    }

    let foreign = "Invalid identifier: Identifier is for cluster other. Your cluster is main";
    let web = of("service/other/web");
    let lost = of(&format!("task/other/{id}"));
    for (operation, members) in [
        ("DescribeServices", json!({"services": [web]})),
        ("UpdateService", json!({"service": web})),
        ("DeleteService", json!({"service": web})),
        ("ListServiceDeployments", json!({"service": web})),
        ("ListTasks", json!({"serviceName": web})),
        ("DescribeTasks", json!({"tasks": [lost]})),
        ("StopTask", json!({"task": lost})),
    ] {
        let mut input = members;
        input["cluster"] = json!("main");
        let refusal = sandbox.refused(operation, input).await;
        assert!(refusal.contains("InvalidParameterException"), "{refusal}");
        assert!(refusal.contains(foreign), "{operation}: {refusal}");
    }
    sandbox.end().await;
}
