//! The same stories as in `boto3.rs`, on containers of Docker Engine.

mod support;

use support::clients;
use support::docker::{containers, make_image, networks, remove_image};
use support::{Sandbox, eventually, unique};

/// Health checks every quarter of a second, and two seconds for a task that nothing checks.
const SCALE: f64 = 20.0;

async fn story(name: &'static str) {
    told_by("ecs_story.py", name).await;
}

async fn told_by(script: &'static str, name: &'static str) {
    let repository = unique("roadstead-boto3");
    make_image(&repository, "v1", "hello", &[]).await;
    let image = format!("{repository}:v1");
    let sandbox = Sandbox::start_scaled(SCALE).await;
    let data = sandbox.data().to_owned();
    let (endpoint, wanted) = (sandbox.endpoint.clone(), image.clone());
    let told = tokio::task::spawn_blocking(move || {
        let arguments = ["--backend", "docker", "--image", &wanted, name];
        clients::tell(script, &endpoint, &arguments);
        clients::answers::check_answers(&data);
    })
    .await;
    let instance = sandbox.instance();
    let left = containers(&instance).await;
    if told.is_ok() {
        eventually("a sandbox without tasks to have no network", || async {
            networks(&instance).await.is_empty().then_some(())
        })
        .await;
    }
    sandbox.finish().await;
    remove_image(&image).await;
    if let Err(failed) = told {
        std::panic::resume_unwind(failed.into_panic());
    }
    assert_eq!(left.len(), 0, "containers are left: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_rollout_completes() {
    story("good-rollout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_trips_the_breaker_and_rolls_back() {
    story("crash").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_rolls_back() {
    story("missing-image").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_health_checks_roll_back() {
    story("unhealthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_deployment_rolls_back() {
    story("stop-with-rollback").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_update_supersedes() {
    story("supersede").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_that_fails_stalls() {
    story("first-fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_to_its_end() {
    story("run-task").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_through_the_load_balancer_never_see_a_rollout_or_a_rollback() {
    told_by("ecs_balancers.py", "load-balancer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_shares_requests_between_two_services_by_weight() {
    told_by("ecs_balancers.py", "weights").await;
}
