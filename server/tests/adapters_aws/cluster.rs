//! The cluster adapter against the sandbox, over the wire.

use crate::support::{Sandbox, container, eventually};
use roadstead_pipelines::deployment::EcsRollout;
use roadstead_pipelines::observation::ServiceSeen;
use roadstead_pipelines::task_definition::{Revision, revise};
use roadstead_sandbox::BackendKind::Simulated;
use roadstead_server::adapters::aws::AwsError;
use roadstead_server::adapters::cluster::{Cluster, OneOffStart, ServiceAddress, Stopping};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The next revision, as the executor makes it.
async fn next(cluster: &Cluster, at: &ServiceAddress, deployment: &str, image: &str) -> Value {
    let base = cluster.describe_base(at).await.unwrap();
    let revision = Revision {
        container: None,
        image,
        variables: &BTreeMap::new(),
        cpu: None,
        memory: None,
        deployment,
    };
    revise(&base.definition, &base.tags, &revision).unwrap()
}

/// The next revision with other labels, registered.
async fn registered(
    cluster: &Cluster,
    at: &ServiceAddress,
    deployment: &str,
    labels: Value,
) -> String {
    let mut definition = next(cluster, at, deployment, "app:2").await;
    definition["containerDefinitions"][0]["dockerLabels"] = labels;
    cluster
        .register(None, &definition, deployment)
        .await
        .unwrap()
}

async fn look(cluster: &Cluster, at: &ServiceAddress) -> Result<ServiceSeen, AwsError> {
    let mut seen = cluster
        .observe(None, &at.cluster, std::slice::from_ref(&at.service))
        .await;
    seen.remove(&at.service).unwrap()
}

async fn seen(
    cluster: &Cluster,
    at: &ServiceAddress,
    what: &str,
    is_it: impl Fn(&ServiceSeen) -> bool,
) -> ServiceSeen {
    eventually(what, async || {
        Some(look(cluster, at).await.unwrap()).filter(&is_it)
    })
    .await
}

fn is_complete(seen: &ServiceSeen) -> bool {
    seen.deployments.len() == 1 && seen.deployments[0].rollout_state.as_deref() == Some("COMPLETED")
}

#[tokio::test]
async fn members_that_no_sdk_knows_survive_a_revision() {
    let sandbox = Sandbox::start(Simulated).await;
    let mut containers = container(&json!({}));
    containers[0]["memberOfTheFuture"] = json!({"deep": [1, 2]});
    let at = sandbox.service(containers).await;
    let cluster = Cluster::new(sandbox.aws());

    let definition = next(&cluster, &at, "shop.d1", "app@sha256:1").await;
    let arn = cluster
        .register(None, &definition, "shop.d1")
        .await
        .unwrap();
    let asked = json!({"taskDefinition": arn, "include": ["TAGS"]});
    let made = sandbox.ecs("DescribeTaskDefinition", asked).await;
    let container = &made["taskDefinition"]["containerDefinitions"][0];
    assert_eq!(container["image"], "app@sha256:1");
    assert_eq!(container["memberOfTheFuture"], json!({"deep": [1, 2]}));
    assert_eq!(
        made["tags"],
        json!([{"key": "roadstead:deployment", "value": "shop.d1"}])
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn a_definition_is_registered_once_though_the_reply_was_lost() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let before = sandbox.effective("RegisterTaskDefinition").await;

    let definition = next(&cluster, &at, "shop.d1", "app:2").await;
    sandbox
        .fault("RegisterTaskDefinition", "drop_reply", 1)
        .await;
    let lost = cluster
        .register(None, &definition, "shop.d1")
        .await
        .unwrap_err();
    assert!(lost.is_transient(), "{lost}");
    let arn = cluster
        .register(None, &definition, "shop.d1")
        .await
        .unwrap();
    assert!(arn.ends_with("task-definition/web:2"), "{arn}");
    assert_eq!(
        cluster
            .register(None, &definition, "shop.d1")
            .await
            .unwrap(),
        arn
    );
    assert_eq!(
        sandbox.effective("RegisterTaskDefinition").await,
        before + 1
    );

    // Another deployment's revision is its own, whatever is newest.
    let definition = next(&cluster, &at, "shop.d2", "app:2").await;
    let other = cluster
        .register(None, &definition, "shop.d2")
        .await
        .unwrap();
    assert!(other.ends_with("task-definition/web:3"), "{other}");
    sandbox.stop().await;
}

#[tokio::test]
async fn a_service_is_updated_once_and_seen_to_complete() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let first = seen(&cluster, &at, "the first rollout", is_complete).await;
    assert_eq!((first.desired, first.running), (2, 2));
    assert_eq!(first.deployments[0].healthy, Some(2));

    let definition = registered(&cluster, &at, "shop.d1", json!({})).await;
    sandbox.fault("UpdateService", "drop_reply", 1).await;
    let lost = cluster
        .update_service(&at, &definition, Some(50), None)
        .await
        .unwrap_err();
    assert!(lost.is_transient(), "{lost}");
    let rollout = cluster
        .update_service(&at, &definition, Some(50), None)
        .await
        .unwrap();
    assert_eq!(sandbox.effective("UpdateService").await, 1);
    assert_eq!(rollout.previous.as_ref(), Some(&first.deployments[0].id));

    let done = seen(&cluster, &at, "the second rollout", is_complete).await;
    assert_eq!(done.deployments[0].id, rollout.deployment);
    assert_eq!(done.task_definition, definition);
    assert_eq!(done.deployments[0].healthy, Some(2));
    let service_deployment = done.service_deployment.unwrap();
    assert_eq!(service_deployment.status, "SUCCESSFUL");
    assert_eq!(service_deployment.task_definition, Some(definition));
    assert!(!done.events.is_empty());

    let asked = json!({"cluster": "shop", "services": ["web"]});
    let service = &sandbox.ecs("DescribeServices", asked).await["services"][0];
    let configuration = &service["deploymentConfiguration"];
    assert_eq!(configuration["minimumHealthyPercent"], 50);
    assert_eq!(configuration["maximumPercent"], 200);
    assert_eq!(configuration["deploymentCircuitBreaker"]["rollback"], true);
    assert_eq!(service["desiredCount"], 2);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_rollout_that_crashes_shows_why_and_is_taken_back_on_request() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let first = seen(&cluster, &at, "the first rollout", is_complete).await;

    let crash = json!({"simulate.exit": "3@1s", "simulate.health": "healthy@600s"});
    let bad = registered(&cluster, &at, "shop.d1", crash).await;
    let rollout = cluster.update_service(&at, &bad, None, None).await.unwrap();
    let crashed = seen(&cluster, &at, "a stopped task", |seen| {
        seen.stopped
            .iter()
            .any(|task| task.started_by == rollout.deployment)
    })
    .await;
    let task = crashed
        .stopped
        .iter()
        .find(|t| t.started_by == rollout.deployment)
        .unwrap();
    assert_eq!(task.stop_code, "EssentialContainerExited");
    assert_eq!(task.exit_codes, BTreeMap::from([("app".to_owned(), 3)]));

    assert_eq!(
        cluster.stop_rollout(&at, &rollout).await.unwrap(),
        Stopping::TakingBack
    );
    // Again, while or after ECS does it: nothing more happens.
    assert_eq!(
        cluster.stop_rollout(&at, &rollout).await.unwrap(),
        Stopping::TakingBack
    );
    let back = seen(&cluster, &at, "the way back", is_complete).await;
    assert_eq!(back.deployments[0].id, first.deployments[0].id);
    assert_eq!(back.task_definition, first.task_definition);
    assert_eq!(
        back.service_deployment.unwrap().status,
        "ROLLBACK_SUCCESSFUL"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn a_rollout_that_goes_well_is_not_taken_for_given_up_by_a_late_answer() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let next = registered(&cluster, &at, "shop.d1", json!({})).await;
    assert_eq!(cluster.taken_back(&at, &next).await.unwrap(), None);
    cluster
        .update_service(&at, &next, None, None)
        .await
        .unwrap();
    // As it was before the update.
    sandbox.fault("DescribeServices", "stale", 1).await;
    let error = cluster.taken_back(&at, &next).await.unwrap_err();
    assert!(matches!(error, AwsError::Unavailable { .. }), "{error:?}");
    assert_eq!(cluster.taken_back(&at, &next).await.unwrap(), None);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_rollout_that_is_complete_cannot_be_taken_back() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let first = seen(&cluster, &at, "the first rollout", is_complete).await;
    let rollout = EcsRollout {
        deployment: first.deployments[0].id.clone(),
        previous: None,
    };
    let stopped = cluster.stop_rollout(&at, &rollout).await.unwrap();
    assert!(
        matches!(stopped, Stopping::Impossible { .. }),
        "{stopped:?}"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn a_task_that_was_started_with_other_parameters_is_there_and_no_second_one_is() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let command = ["/bin/migrate".to_owned()];
    let base = registered(&cluster, &at, "shop.d1", json!({})).await;
    let wanted = OneOffStart {
        task_definition: &base,
        container: None,
        command: &command,
        create: None,
        deployment: "shop.d1",
        token: "shop-d1",
    };
    let task = cluster.start_one_off(&at, &wanted).await.unwrap();
    let again = cluster.start_one_off(&at, &wanted).await.unwrap();
    assert_eq!(again, task);

    // The task of the same token would run elsewhere now.
    let moved = json!({"cluster": "shop", "service": "web", "platformVersion": "1.4.0"});
    sandbox.ecs("UpdateService", moved).await;
    let error = cluster.start_one_off(&at, &wanted).await.unwrap_err();
    assert!(
        matches!(&error, AwsError::Unavailable { message, .. } if message.contains("clientToken")),
        "{error:?}"
    );
    let found = cluster.find_one_off(&at, wanted.token).await.unwrap();
    assert_eq!(found, Some(task));
    assert_eq!(sandbox.effective("RunTask").await, 1);
    sandbox.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_named_and_what_is_busy_is_not_given_up() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());

    let nowhere = ServiceAddress {
        cluster: "nowhere".into(),
        ..at.clone()
    };
    let error = cluster.describe_base(&nowhere).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(
        error
            .to_string()
            .contains("no cluster `nowhere` in us-east-1"),
        "{error}"
    );
    let nobody = ServiceAddress {
        service: "nobody".into(),
        ..at.clone()
    };
    let error = cluster
        .update_service(&nobody, "web:1", None, None)
        .await
        .unwrap_err();
    assert!(!error.is_transient());
    assert!(
        error.to_string().contains("no active service `nobody`"),
        "{error}"
    );

    // One service that is missing does not hide the other.
    let both = ["web".to_owned(), "nobody".to_owned()];
    let seen = cluster.observe(None, "shop", &both).await;
    assert!(seen["web"].is_ok());
    assert!(matches!(
        seen["nobody"],
        Err(AwsError::UnknownService { .. })
    ));

    sandbox.fault("DescribeServices", "throttle", 10).await;
    let error = cluster.describe_base(&at).await.unwrap_err();
    assert!(matches!(error, AwsError::Throttled { .. }), "{error}");
    sandbox.stop().await;
}
