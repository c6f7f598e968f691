//! How long a service of three tasks takes to roll, beside three containers that are started,
//! found healthy and put in the place of three others by hand.
//!
//! Both sides take turns on the same Docker Engine, with the same image and the same health check,
//! a look every quarter of a second. `cargo bench --package roadstead-sandbox --bench rollout` prints
//! the medians and their ratio; docs/sandbox.md says what is to be reached. It removes what it made.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HealthConfig, HealthStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::future::try_join_all;
use serde_json::json;
use support::docker::{engine, make_image, remove_image};
use support::{Sandbox, eventually, unique};

const TASKS: usize = 3;
const PAIRS: usize = 10;
/// AWS's five seconds between checks are this many milliseconds.
const SCALE: f64 = 20.0;
const INTERVAL: Duration = Duration::from_millis(250);
/// Bounds a failure; a start by hand takes about a second.
const PATIENCE: Duration = Duration::from_secs(60);
const COMMAND: [&str; 3] = [
    "sh",
    "-c",
    "trap 'exit 0' TERM; while :; do sleep 1 & wait; done",
];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let repository = unique("roadstead-rollout");
    let image = format!("{repository}:1");
    make_image(&repository, "1", "hello", &[]).await;
    let sandbox = Sandbox::start_scaled(SCALE).await;
    create_service(&sandbox, &image).await;
    let mut old = start_by_hand(&image).await;
    let (mut by_hand, mut rolled) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        for turn in [pair % 2, 1 - pair % 2] {
            let begun = Instant::now();
            if turn == 0 {
                let new = start_by_hand(&image).await;
                stop_by_hand(&std::mem::replace(&mut old, new)).await;
                by_hand.push(begun.elapsed());
            } else {
                roll(&sandbox).await;
                rolled.push(begun.elapsed());
            }
        }
    }
    stop_by_hand(&old).await;
    let gone = json!({"service": "web", "force": true});
    sandbox.ecs("DeleteService", gone).await.expect("it goes");
    sandbox.finish().await;
    remove_image(&image).await;
    let (hand, ours) = (median(by_hand), median(rolled));
    println!(
        "{TASKS} tasks, {PAIRS} pairs: by hand {:.2} s, rolled {:.2} s, ratio {:.2} (to reach: 1.30)",
        hand.as_secs_f64(),
        ours.as_secs_f64(),
        ours.as_secs_f64() / hand.as_secs_f64(),
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    (times[times.len() / 2] + times[(times.len() - 1) / 2]) / 2
}

async fn create_service(sandbox: &Sandbox, image: &str) {
    let container = json!({
        "name": "app",
        "image": image,
        "memory": 32,
        "stopTimeout": 2,
        "command": COMMAND,
        "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5, "retries": 3},
    });
    let definition = json!({"family": "web", "containerDefinitions": [container]});
    let service = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": TASKS});
    for (operation, input) in [
        ("CreateCluster", json!({})),
        ("RegisterTaskDefinition", definition),
        ("CreateService", service),
    ] {
        sandbox.ecs(operation, input).await.expect("it is taken");
    }
    completed(sandbox).await;
}

async fn roll(sandbox: &Sandbox) {
    let input = json!({"service": "web", "forceNewDeployment": true});
    sandbox
        .ecs("UpdateService", input)
        .await
        .expect("it is taken");
    completed(sandbox).await;
}

async fn completed(sandbox: &Sandbox) {
    let asked = json!({"services": ["web"]});
    eventually("the rollout to complete", || async {
        let described = sandbox.ecs("DescribeServices", asked.clone()).await.ok()?;
        let state = &described["services"][0]["deployments"][0]["rolloutState"];
        (state == "COMPLETED").then_some(())
    })
    .await;
}

/// Starts three containers at once and waits until all are healthy; their ids.
async fn start_by_hand(image: &str) -> Vec<String> {
    let engine = engine().await;
    let nanoseconds = i64::try_from(INTERVAL.as_nanos()).expect("a quarter of a second");
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(COMMAND.map(str::to_owned).to_vec()),
        labels: Some(HashMap::from([(
            "roadstead.bench".to_owned(),
            std::process::id().to_string(),
        )])),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["CMD-SHELL".to_owned(), "true".to_owned()]),
            interval: Some(nanoseconds),
            retries: Some(3),
            ..HealthConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let started = (0..TASKS).map(|_| async {
        let options = CreateContainerOptionsBuilder::default()
            .name(&unique("roadstead-by-hand"))
            .build();
        let made = engine.create_container(Some(options), body.clone()).await?;
        engine.start_container(&made.id, None).await?;
        let healthy = async {
            loop {
                let seen = engine.inspect_container(&made.id, None).await?;
                let health = seen.state.and_then(|state| state.health?.status);
                if health == Some(HealthStatusEnum::HEALTHY) {
                    return Ok::<_, bollard::errors::Error>(made.id);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, healthy)
            .await
            .expect("a container that answers its check becomes healthy")
    });
    try_join_all(started)
        .await
        .expect("Docker Engine starts them")
}

async fn stop_by_hand(containers: &[String]) {
    let engine = engine().await;
    let stopped = containers.iter().map(|id| async {
        let options = StopContainerOptionsBuilder::default().t(2).build();
        engine.stop_container(id, Some(options)).await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        engine.remove_container(id, Some(options)).await
    });
    try_join_all(stopped)
        .await
        .expect("Docker Engine stops them");
}
