//! Cloud Map as boto3 sees it, on simulated tasks; every answer is held against AWS's API models.

mod support;

use roadstead_sandbox::{BackendKind, Config, serve};
use support::clients::{self, answers::check_answers};
use support::eventually;
use tokio::sync::oneshot;

/// Half a minute becomes a second.
const SCALE: f64 = 30.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_knows_the_tasks_of_its_service_and_how_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path());
    config.listen.set_port(0);
    config.registry_listen.set_port(0);
    config.backend = BackendKind::Simulated;
    config.time_scale = SCALE;
    config.record_answers = true;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(config, async {
        // A sender that is gone means stop, too.
        let _ = stopped.await;
    }));
    let file = directory.path().join("endpoint");
    let endpoint = eventually("the sandbox to start", || {
        let file = file.clone();
        async move {
            let text = std::fs::read_to_string(file).ok()?;
            text.ends_with('\n').then(|| text.trim().to_owned())
        }
    })
    .await;
    tokio::task::spawn_blocking(move || {
        let arguments = ["--backend", "simulated", "cloud-map"];
        clients::tell("ecs_discovery.py", &endpoint, &arguments);
    })
    .await
    .unwrap();
    drop(stop);
    server.await.unwrap().unwrap();
    check_answers(directory.path());
}
