//! Stories in which every effect is performed. Each holds its end against what is expected, whatever was cut
//! of it.

use crate::stage::{Stage, pipeline};
use crate::wire::{At, Call, Moment, Try};
use roadstead_pipelines::deployment::{Deployment, DeploymentState};
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::{CommitSha, ImageDigest, ImageName, ReleaseId, RunId};
use roadstead_pipelines::release::{ImageRef, Release, TaskDefinitions, Variables};
use roadstead_pipelines::run::{AttemptOutcome, RunState};
use roadstead_sandbox::BackendKind;
use roadstead_server::adapters::registry::Registry;
use roadstead_server::adapters::sources::{Remote, Sources};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The only effect that calls nobody: its repository is a folder here, and at a forge git's own.
pub(crate) const WITHOUT_CALLS: &str = "read_sources";

/// What happens, in which some effects are performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Story {
    /// A commit is pushed, built and released.
    Pushed,
    /// A release is deployed, with a task before it.
    Migrated,
    /// A release comes to a place whose service does not exist yet.
    Created,
    /// That task does not end.
    Hung,
    /// A release whose tasks exit follows a good one.
    TakenBack,
    /// The same, and ECS gives it up while nobody listens: the executor dies with the update's reply, and the
    /// next one comes late.
    GivenUp,
}

/// Those without faults.
pub(crate) const STORIES: [Story; 5] = [
    Story::Pushed,
    Story::Migrated,
    Story::Created,
    Story::Hung,
    Story::TakenBack,
];

const FILE: &str = "\
version: 1
name: shop
images:
  app: { repository: shop/app }
services:
  web: { image: app, container: app }
environments:
  staging:
    ecs: { cluster: staging, service: web }
";

/// Two containers: the one that serves, and one that does what is to be done before.
fn containers(end_of_tool: &str) -> Value {
    json!([
        {"name": "app", "image": "app:1", "essential": true, "memory": 64,
         "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5}},
        {"name": "tool", "image": "app:1", "essential": false, "memory": 64,
         "dockerLabels": {"simulate.exit": end_of_tool}},
    ])
}

fn release(stage: &Stage, number: u64, image: &str) -> Release {
    let digest = format!("sha256:{number:064x}");
    let image = ImageRef {
        repository_uri: format!("registry.example.org/{image}"),
        digest: ImageDigest::parse(&digest).unwrap(),
    };
    Release {
        id: ReleaseId::new(&stage.project, number),
        run: None,
        commit: CommitSha::parse(&format!("{number:040x}")).unwrap(),
        descendants: BTreeSet::new(),
        message: "Change".into(),
        author: "Ada Lovelace".into(),
        authorship: None,
        images: BTreeMap::from([(ImageName::parse("app").unwrap().into(), image)]),
        variables: Variables::new(),
        task_definitions: TaskDefinitions::default(),
        created_at: stage.now(),
    }
}

/// How a deployment ended.
async fn ended(stage: &mut Stage, number: usize) -> Deployment {
    let over = async |stage: &Stage| {
        let found = stage.deployments().await.into_iter().nth(number - 1);
        found.filter(|deployment| deployment.state.is_over())
    };
    stage.until("the deployment to end", over).await
}

async fn bring(stage: &Stage, release: Release, file: &str) {
    let pipeline = pipeline(file);
    let changes = vec![
        Change::AdoptPipeline { pipeline },
        Change::MakeRelease { release },
    ];
    stage.record(changes).await;
}

/// How often an operation took effect.
fn effective(stage: &Stage, operation: &str) -> usize {
    let calls = stage.calls();
    let of_it = calls
        .iter()
        .filter(|it| it["operation"] == operation && it["effective"] == true);
    of_it.count()
}

impl Story {
    pub(crate) fn backend(self) -> BackendKind {
        match self {
            // Nothing runs there: it has the registry, which the simulated one has not.
            Self::Pushed => BackendKind::Docker,
            Self::Migrated | Self::Created | Self::Hung | Self::TakenBack | Self::GivenUp => {
                BackendKind::Simulated
            }
        }
    }

    /// Plays it to its end, and holds that against what is expected, whatever was cut.
    pub(crate) async fn play(self, stage: &mut Stage, sources: Option<Moment>) {
        match self {
            Self::Pushed => pushed(stage, sources).await,
            Self::Migrated => migrated(stage).await,
            Self::Created => created(stage).await,
            Self::Hung => hung(stage).await,
            Self::TakenBack => taken_back(stage).await,
            Self::GivenUp => given_up(stage).await,
        }
    }
}

async fn migrated(stage: &mut Stage) {
    stage.service("staging", &containers("0@20s")).await;
    let file = FILE.replace(
        "container: app",
        "container: tool, before_deploy: ./migrate",
    );
    let release = release(stage, 1, "shop/app");
    bring(stage, release, &file).await;
    let deployment = ended(stage, 1).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    runs(stage, task_definition).await;
    // The one that was there, the service's own, and that of the task beside it.
    let made = ["RegisterTaskDefinition", "RunTask", "UpdateService"];
    assert_eq!(made.map(|it| effective(stage, it)), [3, 1, 1]);
}

async fn created(stage: &mut Stage) {
    stage
        .ecs("CreateCluster", json!({"clusterName": "staging"}))
        .await;
    let file = FILE
        .replace("container: app", "task_definition: { file: web.json }")
        .replace(
            "service: web }",
            "service: web, create: { desired_count: 2 } }",
        );
    let mut release = release(stage, 1, "shop/app");
    let definition = json!({
        "family": "web-${environment}", "containerDefinitions": containers("0@10h"),
    });
    for (place, from) in pipeline(&file).definitions_from_files("us-east-1") {
        let all = &mut release.task_definitions;
        all.files.insert(from.file.clone(), definition.to_string());
        let services = all.places.entry(place.environment).or_default();
        services.insert(place.service, from);
    }
    bring(stage, release, &file).await;
    let deployment = ended(stage, 1).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    runs(stage, task_definition).await;
    let made = ["RegisterTaskDefinition", "CreateService", "UpdateService"];
    assert_eq!(made.map(|it| effective(stage, it)), [1, 1, 0]);
}

async fn hung(stage: &mut Stage) {
    stage.service("staging", &containers("0@10h")).await;
    let before = "container: tool, before_deploy: { command: ./migrate, timeout: 30s }";
    let file = FILE.replace("container: app", before);
    let release = release(stage, 1, "shop/app");
    bring(stage, release, &file).await;
    let deployment = ended(stage, 1).await;
    assert_eq!(deployment.state.word(), "failed", "{deployment:?}");
    let made = ["RegisterTaskDefinition", "RunTask", "UpdateService"];
    assert_eq!(made.map(|it| effective(stage, it)), [3, 1, 0]);
    let running = json!({"cluster": "staging", "family": "web-staging-before-deploy"});
    let running = stage.ecs("ListTasks", running).await;
    assert_eq!(running["taskArns"], json!([]), "it was stopped");
}

/// A good release is there; its definition.
async fn a_good_one(stage: &mut Stage) -> String {
    stage.service("staging", &containers("0@10h")).await;
    let good = release(stage, 1, "simulated:healthy-5s");
    bring(stage, good, FILE).await;
    let good = ended(stage, 1).await;
    match good.state {
        DeploymentState::Deployed {
            task_definition, ..
        } => task_definition,
        other => panic!("{other:?}"),
    }
}

/// The second deployment was taken back, by a stop that was asked for or by ECS itself.
async fn is_taken_back(stage: &mut Stage, task_definition: &str, stops: usize) {
    let bad = ended(stage, 2).await;
    assert_eq!(bad.state.word(), "rolled_back", "{bad:?}");
    runs(stage, task_definition).await;
    let made = [
        "RegisterTaskDefinition",
        "UpdateService",
        "StopServiceDeployment",
    ];
    assert_eq!(made.map(|it| effective(stage, it)), [3, 2, stops]);
}

async fn taken_back(stage: &mut Stage) {
    let task_definition = a_good_one(stage).await;
    let bad = release(stage, 2, "simulated:healthy-10m_exit-1-50s");
    bring(stage, bad, FILE).await;
    is_taken_back(stage, &task_definition, 1).await;
}

async fn given_up(stage: &mut Stage) {
    let task_definition = a_good_one(stage).await;
    let update = |tried: &Try| tried.effect == "update_service" && !tried.calls.is_empty();
    let tried = stage.wire.tries().into_iter().rfind(update).unwrap();
    let (index, operation) = tried.calls.iter().enumerate().next_back().unwrap();
    let call = Call {
        effect: tried.effect.clone(),
        index,
        operation: operation.clone(),
    };
    assert_eq!(call.operation, "UpdateService");
    stage.away = jiff::SignedDuration::from_mins(12);
    stage.wire.cut(At::Call(call), Moment::After);
    let bad = release(stage, 2, "simulated:unhealthy-5s");
    bring(stage, bad, FILE).await;
    is_taken_back(stage, &task_definition, 0).await;
}

/// The service runs that definition, and nothing else.
async fn runs(stage: &mut Stage, task_definition: &str) {
    let wanted = json!({"cluster": "staging", "services": ["web"]});
    let settled = async |stage: &Stage| {
        let described = stage.ecs("DescribeServices", wanted.clone()).await;
        let service = &described["services"][0];
        let alone = service["deployments"].as_array().map(Vec::len) == Some(1);
        (alone && service["runningCount"] == 2).then(|| service["taskDefinition"].clone())
    };
    let found = stage.until("the service to settle", settled).await;
    assert_eq!(found, json!(task_definition));
}

async fn pushed(stage: &mut Stage, sources: Option<Moment>) {
    let commit = commit(stage);
    let asked = stage.store.ask_for_run(
        &stage.project,
        commit.clone(),
        "refs/heads/main".into(),
        "Ada",
        stage.now(),
    );
    let run = asked.await.unwrap();
    if let Some(moment) = sources {
        cut_sources(stage, &commit, moment).await;
    }
    state(stage, &run, "queued").await;
    let image = push_image(stage).await;
    let store = stage.store.clone();
    let claim = store.claim_job("r1", hash_secret("one"), stage.now()).await;
    let claim = claim.unwrap().unwrap();
    store
        .accept_attempt(&claim.attempt, stage.now())
        .await
        .unwrap();
    let images = BTreeMap::from([(ImageName::parse("app").unwrap().into(), image.clone())]);
    let outcome = AttemptOutcome::Succeeded { images };
    let fence = u64::from(claim.number);
    store
        .end_attempt(&claim.attempt, fence, outcome, stage.now())
        .await
        .unwrap();
    state(stage, &run, "succeeded").await;
    let world = stage.store.load_world(&stage.project).await.unwrap();
    let releases: Vec<_> = world.releases.values().collect();
    assert_eq!(releases.len(), 1);
    assert_eq!(releases[0].images.values().collect::<Vec<_>>(), [&image]);
    assert_eq!(effective(stage, "CreateRepository"), 1);
}

async fn state(stage: &mut Stage, run: &RunId, word: &str) {
    let reached = async |stage: &Stage| {
        let state = stage.store.get_run(run).await.unwrap().run.state;
        assert!(!matches!(state, RunState::Failed { .. }), "{state:?}");
        (state.word() == word).then_some(())
    };
    stage.until(word, reached).await;
}

/// A commit of the pipeline file on main. Nothing is deployed by itself.
fn commit(stage: &Stage) -> CommitSha {
    let origin = git2::Repository::init_bare(stage.origin()).unwrap();
    let file = FILE.replace("    ecs", "    deploy: manual\n    ecs");
    let blob = origin.blob(file.as_bytes()).unwrap();
    let mut folder = origin.treebuilder(None).unwrap();
    let (plain, tree) = (git2::FileMode::Blob.into(), git2::FileMode::Tree.into());
    folder.insert("pipeline.yml", blob, plain).unwrap();
    let mut root = origin.treebuilder(None).unwrap();
    root.insert(".roadstead", folder.write().unwrap(), tree)
        .unwrap();
    let root = origin.find_tree(root.write().unwrap()).unwrap();
    let ada = git2::Signature::now("Ada Lovelace", "ada@example.org").unwrap();
    let id = origin.commit(Some("refs/heads/main"), &ada, &ada, "Change", &root, &[]);
    CommitSha::parse(&id.unwrap().to_string()).unwrap()
}

/// The same moments for what is no call on the wire.
async fn cut_sources(stage: &mut Stage, commit: &CommitSha, moment: Moment) {
    stage.reconcile().await;
    match moment {
        // Leased, and then it dies.
        Moment::Before | Moment::After => {
            let now = stage.now();
            let until = now + jiff::SignedDuration::from_secs(20);
            let leased = stage.store.lease_effects(1, now, until).await.unwrap();
            assert_eq!(leased[0].effect.word(), WITHOUT_CALLS);
            if moment == Moment::After {
                let remote = Remote {
                    address: stage.origin().display().to_string(),
                    username: None,
                    password: None,
                };
                let sources = Sources::new(stage.folder.path());
                let fetched = sources
                    .fetch(&stage.project, &remote, commit, "refs/heads/main")
                    .await;
                fetched.unwrap();
            }
            stage.restart().await;
        }
        Moment::ReplyLost | Moment::Missing => {
            let away = stage.folder.path().join("away.git");
            std::fs::rename(stage.origin(), &away).unwrap();
            stage.act().await;
            std::fs::rename(&away, stage.origin()).unwrap();
        }
    }
}

/// Pushes an image of no layers, as a runner does.
async fn push_image(stage: &Stage) -> ImageRef {
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let registry = Registry::new(stage.aws());
    let login = registry.push_credentials().await.unwrap();
    let http = reqwest::Client::new();
    let base = format!("http://{}/v2/shop/app", login.registry);
    let secret = Some(&login.password);
    let configuration =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let begin = http
        .post(format!("{base}/blobs/uploads/"))
        .basic_auth(&login.username, secret);
    let begun = begin.send().await.unwrap();
    let place = begun.headers()["location"].to_str().unwrap().to_owned();
    let place = url::Url::parse(&base).unwrap().join(&place).unwrap();
    let upload = http.put(place).query(&[("digest", digest(configuration))]);
    let upload = upload.basic_auth(&login.username, secret);
    let upload = upload.body(configuration.to_vec()).send().await.unwrap();
    assert_eq!(upload.status().as_u16(), 201);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "layers": [],
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": configuration.len(), "digest": digest(configuration),
        },
    });
    let manifest = manifest.to_string();
    let push = http
        .put(format!("{base}/manifests/git-1"))
        .header("content-type", kind);
    let push = push.basic_auth(&login.username, secret);
    let push = push.body(manifest.clone()).send().await.unwrap();
    assert_eq!(push.status().as_u16(), 201);
    ImageRef {
        repository_uri: format!("{}/shop/app", login.registry),
        digest: ImageDigest::parse(&digest(manifest.as_bytes())).unwrap(),
    }
}
