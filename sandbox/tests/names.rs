//! Names of services, resolved by the network of real containers.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use serde_json::{Value, json};
use support::docker::{exec, make_image, networks};
use support::{Sandbox, eventually, unique};

/// Asks the network's own name server, and then what it names. Busybox cannot resolve by itself.
const CALL: &str = "\
    address=$(/bin/busybox nslookup -type=a web.shop 127.0.0.11 |\
    /bin/busybox awk '/^Address/ && !/127.0.0.11/ { print $NF }' | /bin/busybox head -n 1);\
    /bin/busybox wget -q -O - \"http://$address/\" | /bin/busybox grep -q hello";

fn service(port: u32) -> Value {
    json!({
        "serviceName": "web",
        "taskDefinition": "web",
        "desiredCount": 2,
        "serviceConnectConfiguration": {
            "enabled": true,
            "namespace": "shop",
            "services": [{
                "portName": "http",
                "discoveryName": "web",
                "clientAliases": [{"port": port}],
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_called_by_its_name_after_its_first_deployment() {
    let mut sandbox = Sandbox::start().await;
    let repository = unique("roadstead-names");
    let image = format!("{repository}:1");
    make_image(&repository, "1", "hello", &[]).await;
    sandbox.remove_at_end(&image);
    sandbox.ecs("CreateCluster", json!({})).await.unwrap();
    let container = json!({
        "name": "app",
        "image": image,
        "memory": 32,
        "portMappings": [{"containerPort": 80, "name": "http"}],
    });
    for (family, command) in [("web", json!([])), ("caller", json!(["sh", "-c", CALL]))] {
        let mut container = container.clone();
        container["command"] = command;
        let definition = json!({"family": family, "containerDefinitions": [container]});
        let registered = sandbox.ecs("RegisterTaskDefinition", definition).await;
        registered.unwrap();
    }

    let refused = sandbox
        .ecs("CreateService", service(8080))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "UnsupportedFeatureException");
    assert!(refused.message.contains("8080"), "{}", refused.message);

    let created = sandbox.ecs("CreateService", service(80)).await.unwrap();
    let told = &created["service"]["deployments"][0]["serviceConnectConfiguration"];
    assert_eq!(told["namespace"], "shop");
    let asked = json!({"services": ["web"]});
    eventually("the first deployment to complete", || async {
        let described = sandbox
            .ecs("DescribeServices", asked.clone())
            .await
            .unwrap();
        let state = &described["services"][0]["deployments"][0]["rolloutState"];
        (state == "COMPLETED").then_some(())
    })
    .await;

    let run = sandbox
        .ecs("RunTask", json!({"taskDefinition": "caller"}))
        .await;
    let task = run.unwrap()["tasks"][0]["taskArn"].take();
    let asked = json!({"tasks": [task]});
    let ended = eventually("the caller to end", || async {
        let described = sandbox.ecs("DescribeTasks", asked.clone()).await.unwrap();
        let task = described["tasks"][0].clone();
        (task["lastStatus"] == "STOPPED").then_some(task)
    })
    .await;
    assert_eq!(ended["containers"][0]["exitCode"], 0, "{ended}");
    let gone = json!({"service": "web", "force": true});
    sandbox.ecs("DeleteService", gone).await.unwrap();
    sandbox.finish().await;
}

/// Whether `web.shop` leads anywhere, asked of the network's own name server.
const LOOK_UP: &str = "/bin/busybox nslookup -type=a web.shop 127.0.0.11 | \
    /bin/busybox grep '^Address' | /bin/busybox grep -v 127.0.0.11";

/// A task whose one container runs `command`; the engine's id of the container.
async fn container_of(sandbox: &Sandbox, task: &Value) -> String {
    let asked = json!({"tasks": [task]});
    eventually("a task to run", || async {
        let described = sandbox.ecs("DescribeTasks", asked.clone()).await.unwrap();
        let task = &described["tasks"][0];
        let id = task["containers"][0]["runtimeId"].as_str();
        id.filter(|_| task["lastStatus"] == "RUNNING")
            .map(str::to_owned)
    })
    .await
}

/// Makes the namespace `shop` and in it the service `web`; its ARN and its id.
async fn register(sandbox: &Sandbox) -> (Value, Value) {
    let made = sandbox
        .discovery(
            "CreatePrivateDnsNamespace",
            json!({"Name": "shop", "Vpc": "vpc-1"}),
        )
        .await
        .unwrap();
    let asked = json!({"OperationId": made["OperationId"]});
    let done = sandbox.discovery("GetOperation", asked).await.unwrap();
    assert_eq!(done["Operation"]["Status"], "SUCCESS");
    let registry = json!({
        "Name": "web",
        "NamespaceId": done["Operation"]["Targets"]["NAMESPACE"],
        "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 10}]},
        "HealthCheckCustomConfig": {"FailureThreshold": 1},
    });
    let made = sandbox.discovery("CreateService", registry).await.unwrap();
    (
        made["Service"]["Arn"].clone(),
        made["Service"]["Id"].clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_cloud_map_leads_to_a_task_as_long_as_it_is_healthy() {
    let mut sandbox = Sandbox::start().await;
    let repository = unique("roadstead-names");
    let image = format!("{repository}:1");
    make_image(&repository, "1", "hello", &[]).await;
    sandbox.remove_at_end(&image);
    sandbox.ecs("CreateCluster", json!({})).await.unwrap();
    let (registry, id) = register(&sandbox).await;
    let asker = json!({"family": "asker", "containerDefinitions": [{
        "name": "app", "image": image, "memory": 32, "command": ["sleep", "3600"],
        "stopTimeout": 1,
    }]});
    // It is well once somebody says so.
    let web = json!({"family": "web", "networkMode": "awsvpc", "containerDefinitions": [{
        "name": "app", "image": image, "memory": 32, "stopTimeout": 1,
        "portMappings": [{"containerPort": 80}],
        "healthCheck": {
            "command": ["CMD", "/bin/busybox", "test", "-e", "/www/well"],
            "interval": 5, "retries": 1,
        },
    }]});
    for definition in [asker, web] {
        let registered = sandbox.ecs("RegisterTaskDefinition", definition).await;
        registered.unwrap();
    }
    let run = sandbox
        .ecs("RunTask", json!({"taskDefinition": "asker"}))
        .await;
    let asker_task = run.unwrap()["tasks"][0]["taskArn"].take();
    let asker = container_of(&sandbox, &asker_task).await;
    let service = json!({
        "serviceName": "web",
        "taskDefinition": "web",
        "desiredCount": 1,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "serviceRegistries": [{"registryArn": registry}],
        // A task that is not well stays.
        "healthCheckGracePeriodSeconds": 1_000_000,
    });
    let created = sandbox.ecs("CreateService", service).await.unwrap();
    let shown = &created["service"]["serviceRegistries"][0]["registryArn"];
    assert_eq!(*shown, registry);
    let task = eventually("a task of the service", || async {
        let listed = json!({"serviceName": "web"});
        let listed = sandbox.ecs("ListTasks", listed).await.unwrap();
        listed["taskArns"].get(0).cloned()
    })
    .await;
    let web = container_of(&sandbox, &task).await;
    let task_id = task.as_str().unwrap().rsplit('/').next().unwrap();

    let discovered = async |sandbox: &Sandbox, health: &str| {
        let asked = json!({
            "NamespaceName": "shop", "ServiceName": "web", "HealthStatus": health,
        });
        let found = sandbox.discovery("DiscoverInstances", asked).await.unwrap();
        let found = found["Instances"].as_array().unwrap().clone();
        assert!(found.len() <= 1, "{found:?}");
        found
            .first()
            .map(|one| one["InstanceId"].as_str() == Some(task_id))
    };
    assert_eq!(discovered(&sandbox, "HEALTHY").await, None);
    assert_eq!(discovered(&sandbox, "ALL").await, Some(true));
    let (found, said) = exec(&asker, LOOK_UP).await;
    assert!(!found, "leads to a task that is not healthy: {said}");

    let set_well = async |well: bool| {
        let line = if well {
            "echo yes > /www/well"
        } else {
            "/bin/busybox rm /www/well"
        };
        assert!(exec(&web, line).await.0);
    };
    let until = async |wanted: bool| {
        eventually("the name to follow the task's health", || async {
            let (found, said) = exec(&asker, LOOK_UP).await;
            (found == wanted).then_some(said)
        })
        .await
    };
    set_well(true).await;
    let first = until(true).await;
    let (called, said) = exec(&asker, CALL).await;
    assert!(called, "{said}");
    let listed = eventually("Cloud Map to hear of it", || async {
        let well = discovered(&sandbox, "HEALTHY").await;
        well.filter(|own| *own)
    })
    .await;
    assert!(listed);

    set_well(false).await;
    until(false).await;
    // A sandbox that starts again takes the names over.
    sandbox.halt().await;
    sandbox.resume().await;
    set_well(true).await;
    assert_eq!(until(true).await, first, "it has another address");

    let in_use = json!({"Id": id});
    let refused = sandbox.discovery("DeleteService", in_use.clone()).await;
    assert_eq!(refused.unwrap_err().code, "ResourceInUse");
    let gone = json!({"service": "web", "force": true});
    sandbox.ecs("DeleteService", gone).await.unwrap();
    until(false).await;
    eventually("the registry to be empty", || async {
        let deleted = sandbox.discovery("DeleteService", in_use.clone()).await;
        deleted.ok()
    })
    .await;
    let stop = json!({"task": asker_task});
    sandbox.ecs("StopTask", stop).await.unwrap();
    let instance = sandbox.instance();
    eventually("the networks to go with the tasks", || async {
        networks(&instance).await.is_empty().then_some(())
    })
    .await;
    sandbox.finish().await;
}
