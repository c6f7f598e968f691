//! Images that are built anew for single environments: what the registry has to hold before there is a release, and
//! which of them the definition of a service gets.

use crate::executor::{PIPELINE, Server};
use crate::support::{Sandbox, container, eventually};
use git2::FileMode;
use roadstead_pipelines::deployment::DeploymentState;
use roadstead_pipelines::id::{ImageDigest, ImageName};
use roadstead_pipelines::release::{ImageRef, Images};
use roadstead_pipelines::run::{AttemptOutcome, RunState};
use roadstead_pipelines::variant::ImageVariant;
use roadstead_sandbox::BackendKind::{Docker, Simulated};
use roadstead_server::clock;
use serde_json::json;

/// Two environments with arguments of their own, of which one has an ECS service.
fn pipeline() -> String {
    let args = "args_by_environment: { staging: { A: a }, production: { A: b } } }";
    let image = format!("app: {{ repository: shop/app, {args}");
    let production =
        "  production:\n    deploy: manual\n    ecs: { cluster: shop, service: other }\n";
    let file = PIPELINE.replace("app: { repository: shop/app }", &image);
    format!("{file}{production}")
}

fn image(uri: &str, digit: &str) -> ImageRef {
    ImageRef {
        repository_uri: uri.to_owned(),
        digest: ImageDigest::parse(&format!("sha256:{}", digit.repeat(64))).unwrap(),
    }
}

fn images(uri: &str, digits: &[(&str, &str)]) -> Images {
    let images = digits.iter();
    images
        .map(|(name, digit)| (ImageVariant::parse(name).unwrap(), image(uri, digit)))
        .collect()
}

#[tokio::test]
async fn a_service_gets_the_variant_of_its_environment() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    let server = Server::start(sandbox.aws()).await;
    let mut release = Server::new_release(&server.project, 1);
    let all = [("app", "a"), ("production/app", "b"), ("staging/app", "c")];
    release.images = images("registry.example.org/shop/app", &all);
    let release = server.bring(release, &pipeline()).await;

    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    assert_eq!(deployment.place.environment.as_str(), "staging");
    let asked = json!({"taskDefinition": task_definition});
    let definition = sandbox.ecs("DescribeTaskDefinition", asked).await;
    let app = &definition["taskDefinition"]["containerDefinitions"][0];
    let wanted = image("registry.example.org/shop/app", "c");
    assert_eq!(app["image"], wanted.pinned());
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn there_is_no_release_while_a_variant_is_missing_or_one_is_too_many() {
    let sandbox = Sandbox::start(Docker).await;
    let server = Server::start(sandbox.aws()).await;
    let cases = [
        (
            &["staging/app"][..],
            "the runner did not say which image it pushed for `production/app`",
        ),
        (
            &["app", "production/app", "staging/app"],
            "the runner says that it pushed `app`, which the pipeline file does not build",
        ),
    ];
    for (number, (pushed, expected)) in cases.into_iter().enumerate() {
        let text = pipeline();
        let file = (".roadstead/pipeline.yml", FileMode::Blob, text.as_str());
        let commit = server.commit_saying(&format!("Change {number}"), &[file]);
        let run = server.read(commit).await;
        let run = eventually("its job to be queued", async || {
            let found = server.store.get_run(&run.id).await.unwrap().run;
            (found.state.word() == "queued").then_some(found)
        })
        .await;
        let uri = &run.repositories[&ImageName::parse("app").unwrap()];
        let digits: Vec<_> = pushed.iter().map(|name| (*name, "d")).collect();
        let images = images(uri, &digits);
        let now = clock::now();
        let token = format!("token of {}", run.id);
        let claim = server.store.claim_job("harbour", token, now).await.unwrap();
        let claim = claim.unwrap();
        let outcome = AttemptOutcome::Succeeded { images };
        let ended = server
            .store
            .end_attempt(&claim.attempt, u64::from(claim.number), outcome, now);
        ended.await.unwrap();
        server.bell.ring();
        let failure = eventually("the run to fail", async || {
            let found = server.store.get_run(&run.id).await.unwrap().run;
            match found.state {
                RunState::Failed { failure, .. } => Some(failure),
                _ => None,
            }
        })
        .await;
        assert_eq!(failure.message, expected);
    }
    let world = server.store.load_world(&server.project).await.unwrap();
    assert!(world.releases.is_empty());
    server.stop().await;
    sandbox.stop().await;
}
