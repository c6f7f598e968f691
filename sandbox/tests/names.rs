//! Names of services, resolved by the network of real containers.

mod support;

use serde_json::{Value, json};
use support::docker::make_image;
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
