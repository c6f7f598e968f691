//! Where the next revision comes from: what runs, its family's newest, or a file of the commit.

use crate::executor::{PIPELINE, Server, no_aws};
use crate::support::{Sandbox, container};
use git2::FileMode;
use roadstead_pipelines::deployment::DeploymentState;
use roadstead_pipelines::release::{Release, TaskDefinitions};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec;
use roadstead_sandbox::BackendKind::Simulated;
use serde_json::{Value, json};

const FILE: &str = r#"{
  "family": "${service}-${environment}",
  "containerDefinitions": [
    { "name": "log", "image": "log:1", "essential": false, "memory": 64 },
    {
      "name": "app", "memory": 64, "essential": true,
      "memberOfTheFuture": { "deep": ["${COLOUR}", 7] },
      "healthCheck": { "command": ["CMD-SHELL", "true"], "interval": 5 },
      "environment": [{ "name": "COLOUR", "value": "grey" }, { "name": "KEPT", "value": "${cluster} ${region}" }]
    }
  ],
  "tags": [{ "key": "colour", "value": "${COLOUR}" }]
}
"#;

/// The pipeline file with this `task_definition` of its service.
fn pipeline(task_definition: &str) -> String {
    let service = format!("web: {{ image: app, task_definition: {task_definition} }}");
    PIPELINE.replace("web: { image: app }", &service)
}

const FROM_FILE: &str = "{ file: web.json, variables: { COLOUR: red } }";

fn failure(run: &Run) -> String {
    match &run.state {
        RunState::Failed { failure, .. } => failure.message.clone(),
        other => panic!("{} is {}", run.id, other.word()),
    }
}

#[tokio::test]
async fn the_file_is_read_with_the_commit_or_refused_with_the_reason() {
    let server = Server::start(no_aws()).await;
    let text = pipeline(FROM_FILE);
    let file = (".roadstead/pipeline.yml", FileMode::Blob, text.as_str());
    let read = async |definition: Option<(FileMode, &str)>| {
        let mut files = vec![file];
        files.extend(definition.map(|(mode, text)| ("web.json", mode, text)));
        server.read(server.commit_saying("Change", &files)).await
    };
    let what = "`task_definition` of staging/web: ";
    let said = failure(&read(None).await);
    assert!(
        said.starts_with(&format!("{what}web.json does not exist")),
        "{said}"
    );
    let said = failure(&read(Some((FileMode::Link, "README.md"))).await);
    assert!(
        said.starts_with(what) && said.contains("is a symbolic link"),
        "{said}"
    );
    let without = FILE.replace("${service}", "${servise}");
    let said = failure(&read(Some((FileMode::Blob, without.as_str()))).await);
    let expected = "web.json:2:13: there is no variable `servise`, which `family` names";
    assert_eq!(said, format!("{what}{expected}"));

    let run = read(Some((FileMode::Blob, FILE))).await;
    let pipeline = spec::parse("pipeline.yml", &text).unwrap();
    let (place, from) = pipeline.definitions_from_files("us-east-1").remove(0);
    assert_eq!(run.task_definitions.files["web.json"], FILE);
    assert_eq!(
        run.task_definitions.places[&place.environment][&place.service],
        from
    );
    server.stop().await;
}

/// A release whose commit had this file.
fn release(server: &Server, number: u64, text: &str) -> Release {
    let mut release = Server::new_release(&server.project, number);
    let pipeline = spec::parse("pipeline.yml", &pipeline(FROM_FILE)).unwrap();
    let mut all = TaskDefinitions::default();
    for (place, from) in pipeline.definitions_from_files("us-east-1") {
        all.files.insert(from.file.clone(), text.to_owned());
        let services = all.places.entry(place.environment).or_default();
        services.insert(place.service, from);
    }
    release.task_definitions = all;
    release
}

/// The definition that a release's deployment registered, and its tags.
async fn registered(sandbox: &Sandbox, server: &Server, release: &Release) -> Value {
    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    let asked = json!({"taskDefinition": task_definition, "include": ["TAGS"]});
    sandbox.ecs("DescribeTaskDefinition", asked).await
}

#[tokio::test]
async fn a_release_is_deployed_with_the_file_of_its_commit() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    let made = sandbox.effective("RegisterTaskDefinition").await;
    // A lost reply, and the revision is found again by its tag.
    sandbox
        .fault("RegisterTaskDefinition", "drop_reply", 1)
        .await;
    let server = Server::start(sandbox.aws()).await;
    let with_file = release(&server, 1, FILE);
    let with_file = server.bring(with_file, &pipeline(FROM_FILE)).await;
    let answer = registered(&sandbox, &server, &with_file).await;
    assert_eq!(sandbox.effective("RegisterTaskDefinition").await, made + 1);
    let definition = &answer["taskDefinition"];
    assert_eq!(definition["family"], "web-staging");
    let app = &definition["containerDefinitions"][1];
    let image = with_file.images.values().next().unwrap();
    assert_eq!(app["image"], image.pinned());
    assert_eq!(app["memberOfTheFuture"], json!({"deep": ["red", 7]}));
    let environment = json!([
        {"name": "KEPT", "value": "shop us-east-1"}, {"name": "COLOUR", "value": "green"},
    ]);
    assert_eq!(app["environment"], environment);
    assert_eq!(definition["containerDefinitions"][0]["image"], "log:1");
    let tags = answer["tags"].as_array().unwrap();
    assert!(
        tags.contains(&json!({"key": "colour", "value": "red"})),
        "{tags:?}"
    );

    // One of a commit that named no file goes on from what runs.
    let without = Server::new_release(&server.project, 2);
    let without = server.bring(without, &pipeline(FROM_FILE)).await;
    let answer = registered(&sandbox, &server, &without).await;
    let definition = &answer["taskDefinition"];
    assert_eq!(
        (&definition["family"], &definition["revision"]),
        (&json!("web-staging"), &json!(2))
    );
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn the_newest_of_the_family_is_taken_where_the_file_says_so() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    // As Terraform does it: the service does not run it.
    let definition =
        json!({"family": "web", "containerDefinitions": container(&json!({"of": "terraform"}))});
    sandbox.ecs("RegisterTaskDefinition", definition).await;
    let server = Server::start(sandbox.aws()).await;
    let labels = async |number, task_definition| {
        let release = Server::new_release(&server.project, number);
        let release = server.bring(release, &pipeline(task_definition)).await;
        let answer = registered(&sandbox, &server, &release).await;
        answer["taskDefinition"]["containerDefinitions"][0]["dockerLabels"].clone()
    };
    assert_eq!(labels(1, "{ base: service }").await, json!({}));
    let definition =
        json!({"family": "web", "containerDefinitions": container(&json!({"of": "terraform"}))});
    sandbox.ecs("RegisterTaskDefinition", definition).await;
    assert_eq!(
        labels(2, "{ base: family }").await,
        json!({"of": "terraform"})
    );
    server.stop().await;
    sandbox.stop().await;
}

/// A file that went bad in the store, or that another version took: the deployment says so.
#[tokio::test]
async fn a_file_that_cannot_be_used_any_more_fails_the_deployment() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    let server = Server::start(sandbox.aws()).await;
    let release = release(
        &server,
        1,
        "{ \"family\": \"${gone}\", \"containerDefinitions\": [{ \"name\": \"app\" }] }",
    );
    let release = server.bring(release, &pipeline(FROM_FILE)).await;
    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Failed { failure, .. } = &deployment.state else {
        panic!("{deployment:?}")
    };
    assert!(
        failure
            .message
            .starts_with("web.json:1:13: there is no variable `gone`"),
        "{failure:?}"
    );
    server.stop().await;
    sandbox.stop().await;
}
