//! Plays a scenario: a good service, what is done to it, and the outcome that must be seen, by the
//! client and on the wire.

use crate::answers::check_answers;
use crate::clients::Client;
use crate::clients::adapter::Adapter;
use crate::clients::boto3::Boto3;
use crate::clients::command_line::CommandLine;
use crate::clients::ecs_deploy::EcsDeploy;
use crate::look::Look;
use crate::stage::Stage;
use crate::table::{Act, Behaviour, Scenario};
use crate::{image, look};
use roadstead_sandbox::BackendKind;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn boto3(name: &str, backend: BackendKind) {
    play(name, backend, Boto3::new, |_| {});
}

pub(crate) fn adapter(name: &str, backend: BackendKind) {
    play(name, backend, Adapter::new, |_| {});
}

pub(crate) fn command_line(name: &str, backend: BackendKind) {
    play(name, backend, CommandLine::new, |_| {});
}

/// `satisfied` is what ecs-deploy has to think of the outcome; None where it depends on what it
/// happens to see.
pub(crate) fn ecs_deploy(name: &str, satisfied: Option<bool>) {
    // What never ends is given up soon.
    let patience = match Scenario::named(name).outcome.status {
        "IN_PROGRESS" => 10,
        _ => 120,
    };
    let client = |endpoint: &str| EcsDeploy::new(endpoint, patience);
    play(name, BackendKind::Docker, client, |client| {
        let thinks = satisfied.unwrap_or(client.satisfied);
        assert_eq!(client.satisfied, thinks, "{}", client.said);
    });
}

/// Plays it on a sandbox of its own, and takes away what is left of it, however it ends.
fn play<C: Client>(
    name: &str,
    backend: BackendKind,
    client: impl FnOnce(&str) -> C,
    opinion: impl FnOnce(&C),
) {
    let scenario = Scenario::named(name);
    if backend == BackendKind::Docker {
        image::make();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let data = tempfile::tempdir().unwrap();
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut stage = Stage::start(backend, scenario, data.path()).await;
            let mut client = client(&stage.endpoint);
            perform(scenario, &mut stage, &mut client).await;
            opinion(&client);
            drop(client);
            stage.strike().await;
        });
    }));
    runtime.shutdown_timeout(Duration::from_secs(10));
    match played {
        Ok(()) => check_answers(data.path()),
        Err(failure) => {
            if backend == BackendKind::Docker {
                purge(data.path());
            }
            std::panic::resume_unwind(failure);
        }
    }
}

async fn perform(scenario: &Scenario, stage: &mut Stage, client: &mut impl Client) {
    match scenario.act {
        Act::Create(behaviour) => {
            let members = stage.service_of(scenario, behaviour).await;
            if !client.create(&members).await {
                stage.ecs("CreateService", members).await;
            }
        }
        Act::LoseInstance => {
            let instances = json!({"cluster": "main", "instances": [
                {"zone": "us-east-1a", "cpu": 1024, "memory": 1024},
                {"zone": "us-east-1b", "cpu": 1024, "memory": 1024}]});
            stage
                .own(reqwest::Method::PUT, "instances", &instances)
                .await;
            begin(scenario, stage).await;
            let listed = stage
                .own(reqwest::Method::GET, "instances", &Value::Null)
                .await;
            let lost = format!("instances/{}", an_instance(&listed));
            stage
                .own(reqwest::Method::DELETE, &lost, &Value::Null)
                .await;
        }
        Act::ScaleToZeroAndBack => {
            begin(scenario, stage).await;
            for desired in [0, scenario.desired] {
                if !client.scale(desired).await {
                    let members =
                        json!({"cluster": "main", "service": "web", "desiredCount": desired});
                    stage.ecs("UpdateService", members).await;
                }
                stage
                    .until("the service to be scaled", async |stage| {
                        stage.service().await["runningCount"] == desired
                    })
                    .await;
            }
        }
        Act::RollOut(behaviour) => {
            begin(scenario, stage).await;
            roll_out(stage, client, behaviour, false).await;
        }
        Act::Supersede(behaviour, other) => {
            begin(scenario, stage).await;
            roll_out(stage, client, behaviour, true).await;
            until_it_runs(stage).await;
            roll_out(stage, client, other, false).await;
        }
        Act::RollOutAndStop(behaviour) => {
            begin(scenario, stage).await;
            roll_out(stage, client, behaviour, true).await;
            until_it_runs(stage).await;
            client.stop().await;
        }
    }
    // First on the wire, whose looks cost nothing: a client may be a process for each call, and once
    // the outcome is there it is to see all of it.
    until_seen("the wire", scenario, stage, async || {
        look::look(&mut &*stage).await
    })
    .await;
    until_seen("the client", scenario, stage, async || client.look().await).await;
}

/// Registers a revision and has the client roll it out.
async fn roll_out(
    stage: &mut Stage,
    client: &mut impl Client,
    behaviour: Behaviour,
    interrupted: bool,
) {
    let definition = stage.register(behaviour).await;
    let deployed = client.roll_out(&definition, interrupted).await;
    if let Some(last) = stage.definitions.last_mut() {
        *last = deployed;
    }
}

/// Looks until the whole outcome is there. Counts of running tasks may come and go; how a service
/// deployment ended stays.
async fn until_seen(
    who: &str,
    scenario: &Scenario,
    stage: &Stage,
    mut look: impl AsyncFnMut() -> Look,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        let lacking = seen.lacks(scenario, &stage.definitions);
        if lacking.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{}: {who} does not see {lacking:#?}\nin {seen:#?}",
            scenario.name
        );
        stage.pass().await;
    }
}

/// A good service whose first deployment is complete.
async fn begin(scenario: &Scenario, stage: &mut Stage) {
    let members = stage.service_of(scenario, Behaviour::Good).await;
    stage.ecs("CreateService", members).await;
    stage
        .until("the first deployment to complete", async |stage| {
            stage.service().await["deployments"][0]["rolloutState"] == "COMPLETED"
        })
        .await;
}

async fn until_it_runs(stage: &Stage) {
    stage
        .until("the new tasks to run", async |stage| {
            let service = stage.service().await;
            let primary = &service["deployments"][0];
            primary["runningCount"].as_u64() > Some(0)
        })
        .await;
}

/// The id of some container instance in the sandbox's list of them.
fn an_instance(listed: &Value) -> String {
    let instances = listed.as_array().or_else(|| listed["instances"].as_array());
    let first = &instances.unwrap_or_else(|| panic!("{listed}"))[0];
    let id = first["id"].as_str();
    id.unwrap_or_else(|| panic!("{listed}")).to_owned()
}

/// Removes what a test that failed left in Docker Engine.
fn purge(data: &Path) {
    let purged = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["sandbox", "--purge", "--data"])
        .arg(data)
        .output()
        .unwrap();
    if !purged.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&purged.stderr));
    }
}
