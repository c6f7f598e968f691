//! What runs before a service is touched, on simulated tasks with faults, and on real containers.

use crate::executor::{PIPELINE, Server};
use crate::support::{Sandbox, eventually};
use roadstead_pipelines::deployment::{DeploymentState, Kind, OneOff, Rollout, Trigger};
use roadstead_pipelines::fact::{Change, DeploymentFact};
use roadstead_pipelines::id::{DeploymentId, EnvironmentName, ImageDigest, Place, ServiceName};
use roadstead_pipelines::report::{Failure, FailureKind};
use roadstead_pipelines::spec;
use roadstead_sandbox::BackendKind::{Docker, Simulated};
use roadstead_server::adapters::registry::Registry;
use roadstead_server::clock;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// The container `tool` of the service ends by itself and matters to nobody there. As the one that runs
/// `before_deploy` it decides.
fn containers(end: &str) -> Value {
    json!([
        {"name": "app", "image": "app:1", "essential": true, "memory": 64,
         "portMappings": [{"containerPort": 80, "hostPort": 8080}],
         "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5}},
        {"name": "tool", "image": "app:1", "essential": false, "memory": 64,
         "entryPoint": ["serve"], "command": ["all"],
         "dockerLabels": {"simulate.exit": end}},
    ])
}

fn pipeline(before_deploy: &str) -> String {
    let service = format!("web: {{ image: app, container: tool, before_deploy: {before_deploy} }}");
    PIPELINE.replace("web: { image: app }", &service)
}

fn failure(state: &DeploymentState) -> &Failure {
    match state {
        DeploymentState::Failed { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_runs_once_though_replies_are_lost_and_then_the_service_is_updated() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(containers("0@20s")).await;
    let registered = sandbox.effective("RegisterTaskDefinition").await;
    // More often than the SDK asks again by itself.
    for (operation, times) in [("RegisterTaskDefinition", 2), ("RunTask", 5)] {
        sandbox.fault(operation, "drop_reply", times).await;
    }
    sandbox.fault("DescribeTasks", "throttle", 2).await;
    let server = Server::start(sandbox.aws()).await;
    let release = Server::new_release(&server.project, 1);
    let release = server.bring(release, &pipeline("[/bin/migrate, up]")).await;
    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    assert_eq!(sandbox.effective("RunTask").await, 1);
    assert_eq!(sandbox.effective("UpdateService").await, 1);
    // The service's own, and that of the task beside it.
    let registered = sandbox.effective("RegisterTaskDefinition").await - registered;
    assert_eq!(registered, 2);

    let own = json!({"taskDefinition": task_definition});
    let own = sandbox.ecs("DescribeTaskDefinition", own).await;
    let own = &own["taskDefinition"]["containerDefinitions"];
    assert_eq!(own[1]["entryPoint"], json!(["serve"]));
    assert_eq!(own[0]["portMappings"][0]["hostPort"], 8080);
    let beside = json!({"taskDefinition": "web-before-deploy"});
    let beside = sandbox.ecs("DescribeTaskDefinition", beside).await;
    let beside = &beside["taskDefinition"]["containerDefinitions"];
    assert_eq!(beside[1]["entryPoint"], json!(["/bin/migrate", "up"]));
    assert_eq!(beside[1]["command"], json!([]));
    assert_eq!(beside[1]["essential"], true);
    assert_eq!(beside[1]["image"], own[1]["image"], "the release's image");
    assert_eq!(beside[1]["environment"], own[1]["environment"]);
    assert!(
        beside[0]
            .get("portMappings")
            .is_none_or(|it| it == &json!([]))
    );
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn one_that_does_not_end_is_stopped_and_told_as_that() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(containers("0@10h")).await;
    let server = Server::start(sandbox.aws()).await;
    let release = Server::new_release(&server.project, 1);
    let file = pipeline("{ command: ./migrate, timeout: 3s }");
    let release = server.bring(release, &file).await;
    before_deploy_runs(&server).await;
    let deployment = server.deployed(&release.id).await;
    let failure = failure(&deployment.state);
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure:?}");
    assert_eq!(sandbox.effective("StopTask").await, 1);
    assert_eq!(sandbox.effective("UpdateService").await, 0);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_file_that_is_adopted_meanwhile_does_not_lose_its_task() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(containers("0@60s")).await;
    let server = Server::start(sandbox.aws()).await;
    let release = Server::new_release(&server.project, 1);
    let file = pipeline("./migrate");
    let release = server.bring(release, &file).await;
    before_deploy_runs(&server).await;
    // Neither the container nor, as far as the file says, the cluster is there any more.
    let moved = file
        .replace("container: tool", "container: other")
        .replace("cluster: shop", "cluster: elsewhere");
    let pipeline = Box::new(spec::parse("pipeline.yml", &moved).unwrap());
    let changes = [Change::AdoptPipeline { pipeline }];
    let decide = |_: &_| Ok(changes.to_vec());
    let adopted = server
        .store
        .record(&server.project, "test", clock::now(), decide);
    adopted.await.unwrap();
    let deployment = server.deployed(&release.id).await;
    // It ended well, and the service that is updated then is the new file's.
    let said = failure(&deployment.state).message.clone();
    assert!(said.contains("ECS has no cluster `elsewhere`"), "{said}");
    assert_eq!(sandbox.effective("RunTask").await, 1);
    server.stop().await;
    sandbox.stop().await;
}

/// A server that was down for long does not begin what should have begun long ago, and finds what did.
#[tokio::test]
async fn what_was_started_is_found_and_what_was_not_is_given_up_after_its_time() {
    for is_started in [true, false] {
        let sandbox = Sandbox::start(Simulated).await;
        sandbox.service(containers("0@20s")).await;
        let server = Server::start(sandbox.aws()).await;
        let id = DeploymentId::new(&server.project, 1);
        let release = Server::new_release(&server.project, 1);
        let own = sandbox
            .ecs("DescribeTaskDefinition", json!({"taskDefinition": "web"}))
            .await;
        let task_definition = own["taskDefinition"]["taskDefinitionArn"].as_str().unwrap();
        let began = clock::now() - jiff::SignedDuration::from_hours(2);
        let file = Box::new(spec::parse("pipeline.yml", &pipeline("[/bin/migrate]")).unwrap());
        let before_deploy = OneOff {
            run: file
                .services
                .values()
                .next()
                .unwrap()
                .before_deploy
                .clone()
                .unwrap(),
            region: None,
            cluster: "shop".into(),
            service: "web".into(),
            container: Some("tool".into()),
            create: None,
        };
        if is_started {
            // As an earlier try did whose answer was lost.
            let token = token_of(&id, began, task_definition);
            let ran = json!({"cluster": "shop", "taskDefinition": "web", "startedBy": token});
            sandbox.ecs("RunTask", ran).await;
        }
        let place = Place {
            environment: EnvironmentName::parse("staging").unwrap(),
            service: ServiceName::parse("web").unwrap(),
        };
        let fact = |fact| Change::Deployment {
            deployment: id.clone(),
            fact,
        };
        let changes = vec![
            Change::AdoptPipeline { pipeline: file },
            Change::MakeRelease {
                release: release.clone(),
            },
            Change::OpenDeployment {
                deployment: id.clone(),
                place,
                release: release.id.clone(),
                kind: Kind::Forward,
                trigger: Trigger::Auto,
            },
            fact(DeploymentFact::Started {
                task_definition: None,
                before_deploy: Some(before_deploy),
            }),
            fact(DeploymentFact::TaskDefinitionRegistered {
                task_definition: task_definition.to_owned(),
                creates: false,
            }),
        ];
        let decide = |_: &_| Ok(changes.clone());
        let recorded = server.store.record(&server.project, "test", began, decide);
        recorded.await.unwrap();
        server.bell.ring();
        if is_started {
            eventually("the task to be found", async || {
                let found = server.store.get_deployment(&id).await.ok()?.deployment;
                let DeploymentState::RollingOut { rollout, .. } = &found.state else {
                    return Some(());
                };
                matches!(rollout, Rollout::BeforeDeploy { task: Some(_), .. }).then_some(())
            })
            .await;
        } else {
            let deployment = server.deployed(&release.id).await;
            let said = failure(&deployment.state);
            assert_eq!(said.kind, FailureKind::TimedOut);
            assert!(
                said.message
                    .starts_with("before_deploy could not be started within 1800 s"),
                "{said:?}"
            );
        }
        assert_eq!(sandbox.effective("RunTask").await, usize::from(is_started));
        server.stop().await;
        sandbox.stop().await;
    }
}

/// As the executor makes it: of what names the deployment, whoever performs its effects.
fn token_of(id: &DeploymentId, created_at: jiff::Timestamp, task_definition: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = hex::encode(Sha256::digest(format!(
        "{id} {created_at} {task_definition}"
    )));
    format!("roadstead-{}", &digest[..24])
}

async fn before_deploy_runs(server: &Server) {
    let id = DeploymentId::new(&server.project, 1);
    eventually("its task to run", async || {
        let found = server.store.get_deployment(&id).await.ok()?.deployment;
        let DeploymentState::RollingOut { rollout, .. } = found.state else {
            return None;
        };
        matches!(rollout, Rollout::BeforeDeploy { task: Some(_), .. }).then_some(())
    })
    .await;
}

fn docker(arguments: &[&str], input: Option<&str>) -> String {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(input) = input {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Images of this test, which go with it.
struct Images {
    label: String,
}

impl Drop for Images {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label);
        let listed = ["image", "ls", "--quiet", "--no-trunc", "--filter", &filter];
        let listed = Command::new("docker").args(listed).output();
        let listed = listed.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
        let remove = ["image", "rm", "--force"];
        if let Some(image) = listed
            .ok()
            .and_then(|it| Some(it.lines().next()?.to_owned()))
        {
            drop(Command::new("docker").args(remove).arg(image).output());
        }
    }
}

/// One static busybox with an entry point that never ends, pushed to the sandbox. Gives the digest.
async fn push_image(sandbox: &Sandbox, context: &Path, label: &str) -> (String, ImageDigest) {
    std::fs::copy("/bin/busybox", context.join("busybox"))
        .expect("a static busybox is missing: run `make setup`");
    let dockerfile = "FROM scratch\nLABEL OWN\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         ENTRYPOINT [\"/bin/sleep\", \"100000\"]\n";
    let dockerfile = dockerfile.replace("OWN", label);
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let registry = Registry::new(sandbox.aws());
    let uri = registry.ensure_repository("shop/app").await.unwrap();
    let login = registry.push_credentials().await.unwrap();
    let image = format!("{uri}:git-1");
    let context = context.display().to_string();
    docker(&["build", "--quiet", "--tag", &image, &context], None);
    // Its own folder: the login of whoever runs the tests stays as it is.
    let config = format!("{context}/docker");
    let name = &login.username;
    let sign_in = [
        "--config",
        &config,
        "login",
        "--username",
        name,
        "--password-stdin",
    ];
    docker(
        &[&sign_in[..], &[&login.registry]].concat(),
        Some(&login.password),
    );
    docker(&["--config", &config, "push", "--quiet", &image], None);
    let pushed = [
        "image",
        "inspect",
        "--format",
        "{{index .RepoDigests 0}}",
        &image,
    ];
    let digest = docker(&pushed, None);
    let digest = digest.rsplit('@').next().unwrap().to_owned();
    (uri, ImageDigest::parse(&digest).unwrap())
}

// Docker's client is waited for in between, and asks the sandbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_containers_run_it_with_the_variables_and_tell_why_it_failed() {
    let sandbox = Sandbox::start(Docker).await;
    let folder = tempfile::tempdir().unwrap();
    let images = Images {
        label: format!("roadstead.before-deploy-test={}", std::process::id()),
    };
    let (uri, digest) = push_image(&sandbox, folder.path(), &images.label).await;
    let log = json!({"logDriver": "awslogs", "options": {
        "awslogs-group": "/shop", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "web"}});
    let image = format!("{uri}@{digest}");
    let app = json!([{"name": "app", "image": image, "memory": 64, "stopTimeout": 2,
        "logConfiguration": log}]);
    sandbox.service(app).await;
    let server = Server::start(sandbox.aws()).await;
    let release = |number| {
        let mut release = Server::new_release(&server.project, number);
        for image in release.images.values_mut() {
            image.repository_uri.clone_from(&uri);
            image.digest = digest.clone();
        }
        release
    };
    let file = |script: &str| {
        let service = format!("web: {{ image: app, before_deploy: '{script}' }}");
        PIPELINE.replace("web: { image: app }", &service)
    };

    // The image's entry point would never end, and there is no such variable in it.
    let good = file("test \"$COLOUR\" = green");
    let good = server.bring(release(1), &good).await;
    let deployment = server.deployed(&good.id).await;
    assert_eq!(deployment.state.word(), "deployed", "{deployment:?}");

    let updates = sandbox.effective("UpdateService").await;
    let bad = file("echo the table is locked; exit 7");
    let bad = server.bring(release(2), &bad).await;
    let deployment = server.deployed(&bad.id).await;
    let failure = failure(&deployment.state);
    assert_eq!(
        failure.message,
        "before_deploy failed: container `app` exited 7"
    );
    let told = failure.details.join("\n");
    assert!(told.contains("  | the table is locked"), "{told}");
    assert_eq!(sandbox.effective("UpdateService").await, updates);
    server.stop().await;
    sandbox.stop().await;
}
