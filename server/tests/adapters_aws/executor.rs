//! Executor, reconciler and observer over a real store, real repositories and the sandbox.

use crate::support::{REGION, Sandbox, container, eventually};
use git2::{FileMode, Repository, Signature};
use roadstead_pipelines::deployment::{Deployment, DeploymentState, EcsRollout, Kind, Trigger};
use roadstead_pipelines::fact::{Change, DeploymentFact};
use roadstead_pipelines::id::{
    CommitSha, DeploymentId, EnvironmentName, ImageDigest, ImageName, Place, ProjectName,
    ReleaseId, RunId, ServiceName,
};
use roadstead_pipelines::observation::Health;
use roadstead_pipelines::release::{ImageRef, Release, TaskDefinitions, Variables};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec;
use roadstead_sandbox::BackendKind::Simulated;
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::cluster::Cluster;
use roadstead_server::adapters::probes::Probes;
use roadstead_server::adapters::registry::Registry;
use roadstead_server::adapters::sources::{Remote, Sources};
use roadstead_server::executor::Executor;
use roadstead_server::observer::Observer;
use roadstead_server::reconciler::Reconciler;
use roadstead_server::store::{DeploymentFilter, EffectState, Store};
use roadstead_server::wake::Bell;
use roadstead_server::{clock, config};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const MAIN: &str = "refs/heads/main";

pub(crate) const PIPELINE: &str = "\
version: 1
name: shop
images:
  app: { repository: shop/app }
services:
  web: { image: app }
environments:
  staging:
    ecs: { cluster: shop, service: web }
    variables: { COLOUR: green }
";

/// The rooms of a server that act, without its HTTP.
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) project: ProjectName,
    pub(crate) origin: Repository,
    pub(crate) bell: Bell,
    stop: CancellationToken,
    rooms: Vec<JoinHandle<()>>,
    database: String,
    pub(crate) remotes: BTreeMap<ProjectName, Remote>,
    folder: TempDir,
}

impl Server {
    pub(crate) async fn start(aws: Aws) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.git");
        let origin = Repository::init_bare(&path).unwrap();
        let address = path.to_str().unwrap().to_owned();
        let database = format!("sqlite:{}", folder.path().join("rows.db").display());
        let store = Store::open(&database).await.unwrap();
        let project = ProjectName::parse("shop").unwrap();
        let secret = "0123456789abcdef".to_owned();
        let (name, now) = (project.clone(), clock::now());
        store
            .upsert_project(name, address.clone(), secret, now)
            .await
            .unwrap();

        let remote = Remote {
            address,
            username: None,
            password: None,
        };
        let remotes = BTreeMap::from([(project.clone(), remote)]);
        let mut server = Self {
            store,
            project,
            origin,
            bell: Bell::default(),
            stop: CancellationToken::new(),
            rooms: vec![],
            database,
            remotes,
            folder,
        };
        server.act(aws);
        server
    }

    /// Lets the rooms act.
    fn act(&mut self, aws: Aws) {
        let (bell, stop, store) = (&self.bell, &self.stop, &self.store);
        let cluster = Cluster::new(aws.clone());
        let executor = Executor::new(
            store.clone(),
            Sources::new(self.folder.path()),
            Registry::new(aws),
            cluster.clone(),
            self.remotes.clone(),
            bell.clone(),
        );
        let observer = Observer::new(store.clone(), cluster, Probes::new().unwrap(), bell.clone());
        let reconciler = Reconciler {
            store: store.clone(),
            bell: bell.clone(),
            effects_bell: bell.clone(),
        };
        self.rooms = vec![
            tokio::spawn(executor.run(stop.clone())),
            tokio::spawn(observer.run(stop.clone())),
            tokio::spawn(reconciler.run()),
        ];
    }

    /// Ends at once what it does, whatever that is, as a kill does; [`Self::start_again`] goes on.
    pub(crate) async fn die(&mut self) {
        for room in std::mem::take(&mut self.rooms) {
            room.abort();
            let _ = room.await;
        }
    }

    pub(crate) async fn start_again(&mut self, aws: Aws) {
        self.store = Store::open(&self.database).await.unwrap();
        self.act(aws);
    }

    /// Commits these files, and nothing else, on main. A path with a folder has `.roadstead`.
    fn commit(&self, files: &[(&str, FileMode, &str)]) -> CommitSha {
        self.commit_saying("Change", files)
    }

    pub(crate) fn commit_saying(
        &self,
        message: &str,
        files: &[(&str, FileMode, &str)],
    ) -> CommitSha {
        let mut root = self.origin.treebuilder(None).unwrap();
        let mut folder = self.origin.treebuilder(None).unwrap();
        for (path, mode, content) in files {
            let blob = self.origin.blob(content.as_bytes()).unwrap();
            match path.strip_prefix(".roadstead/") {
                Some(name) => folder.insert(name, blob, (*mode).into()).unwrap(),
                None => root.insert(path, blob, (*mode).into()).unwrap(),
            };
        }
        let folder = folder.write().unwrap();
        root.insert(".roadstead", folder, FileMode::Tree.into())
            .unwrap();
        let tree = self.origin.find_tree(root.write().unwrap()).unwrap();
        let author = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
        let parent = self
            .origin
            .find_reference(MAIN)
            .ok()
            .map(|r| r.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        let id = self
            .origin
            .commit(Some(MAIN), &author, &author, message, &tree, &parents);
        CommitSha::parse(&id.unwrap().to_string()).unwrap()
    }

    /// A run of this commit, once it is past fetching.
    pub(crate) async fn read(&self, commit: CommitSha) -> Run {
        self.read_of(commit, MAIN).await
    }

    pub(crate) async fn read_of(&self, commit: CommitSha, git_ref: &str) -> Run {
        let now = clock::now();
        let asked = self
            .store
            .ask_for_run(&self.project, commit, git_ref.into(), "test", now);
        let run: RunId = asked.await.unwrap();
        self.bell.ring();
        eventually("the sources to be read", async || {
            let run = self.store.get_run(&run).await.unwrap().run;
            (run.state != RunState::Fetching).then_some(run)
        })
        .await
    }

    pub(crate) fn new_release(project: &ProjectName, number: u64) -> Release {
        let image = ImageRef {
            repository_uri: "registry.example.org/shop/app".into(),
            digest: ImageDigest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap(),
        };
        let variables = BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]);
        Release {
            id: ReleaseId::new(project, number),
            run: None,
            commit: CommitSha::parse(&"c".repeat(40)).unwrap(),
            descendants: BTreeSet::new(),
            message: "Change".into(),
            author: "Ada Lovelace".into(),
            authorship: None,
            images: BTreeMap::from([(ImageName::parse("app").unwrap().into(), image)]),
            variables: Variables::from([(EnvironmentName::parse("staging").unwrap(), variables)]),
            task_definitions: TaskDefinitions::default(),
            created_at: clock::now(),
        }
    }

    /// Puts a release before the planner, which deploys it by itself.
    async fn release(&self, number: u64) -> Release {
        let release = Self::new_release(&self.project, number);
        self.bring(release, PIPELINE).await
    }

    /// The same with this release and this file.
    pub(crate) async fn bring(&self, release: Release, file: &str) -> Release {
        let pipeline = Box::new(spec::parse("pipeline.yml", file).unwrap());
        let changes = vec![
            Change::AdoptPipeline { pipeline },
            Change::MakeRelease {
                release: release.clone(),
            },
        ];
        let decide = |_: &_| Ok(changes.clone());
        self.store
            .record(&self.project, "test", clock::now(), decide)
            .await
            .unwrap();
        self.bell.ring();
        release
    }

    /// The deployment of a release, once it is over.
    pub(crate) async fn deployed(&self, release: &ReleaseId) -> Deployment {
        let filter = DeploymentFilter {
            release: Some(release.clone()),
            ..Default::default()
        };
        eventually("the deployment to end", async || {
            let found = self
                .store
                .list_deployments(&self.project, filter.clone(), None, 10);
            found.await.unwrap().into_iter().find(|d| d.state.is_over())
        })
        .await
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.die().await;
    }
}

/// An AWS where nobody answers.
pub(crate) fn no_aws() -> Aws {
    let endpoint_url = Some("http://127.0.0.1:9".to_owned());
    Aws::new(&config::Aws {
        region: REGION.into(),
        endpoint_url,
    })
}

fn failure(run: &Run) -> String {
    match &run.state {
        RunState::Failed { failure, .. } => failure.message.clone(),
        other => panic!("{} is {}", run.id, other.word()),
    }
}

#[tokio::test]
async fn sources_are_read_or_refused_with_the_reason() {
    let server = Server::start(no_aws()).await;
    let file = |text| (".roadstead/pipeline.yml", FileMode::Blob, text);

    let run = server
        .read(server.commit(&[("README.md", FileMode::Blob, "none yet")]))
        .await;
    assert!(
        failure(&run).starts_with(".roadstead/pipeline.yml does not exist"),
        "{run:?}"
    );

    let link = (".roadstead/pipeline.yml", FileMode::Link, "../README.md");
    let run = server.read(server.commit(&[link])).await;
    assert!(failure(&run).contains("is a symbolic link"), "{run:?}");

    let run = server
        .read(server.commit(&[file("version: 1\nnane: shop\n")]))
        .await;
    assert!(
        failure(&run).starts_with(".roadstead/pipeline.yml:2:1: "),
        "{run:?}"
    );

    let other = PIPELINE.replace("name: shop", "name: other");
    let run = server.read(server.commit(&[file(&other)])).await;
    assert!(failure(&run).contains("says `name: other`, but this repository is project `shop`"));

    let env_file = PIPELINE.replace("variables:", "env_file: staging.env\n    variables:");
    let run = server.read(server.commit(&[file(&env_file)])).await;
    assert!(failure(&run).contains("`env_file` of environment `staging`: staging.env does not"));

    let variables = ("staging.env", FileMode::Blob, "COLOUR=red\nSIZE=large\n");
    let run = server
        .read(server.commit(&[file(&env_file), variables]))
        .await;
    assert_eq!(
        (run.message.as_str(), run.author.as_str()),
        ("Change", "Ada Lovelace")
    );
    let staging = &run.variables[&EnvironmentName::parse("staging").unwrap()];
    let expected = [("COLOUR", "green"), ("SIZE", "large")];
    assert_eq!(
        *staging,
        expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );

    let two = PIPELINE.replace(
        "variables:",
        "env_file: [common.env, staging.env]\n    variables:",
    );
    let common = ("common.env", FileMode::Blob, "SIZE=small\nSHAPE=round\n");
    let run = server
        .read(server.commit(&[file(&two), common, variables]))
        .await;
    let expected = [("COLOUR", "green"), ("SHAPE", "round"), ("SIZE", "large")];
    assert_eq!(
        run.variables[&EnvironmentName::parse("staging").unwrap()],
        expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        "the later file wins"
    );
    let run = server.read(server.commit(&[file(&two), common])).await;
    assert!(failure(&run).contains("`env_file` of environment `staging`: staging.env does not"));
    server.stop().await;
}

#[tokio::test]
async fn a_tag_is_read_as_the_commit_that_it_names() {
    let server = Server::start(no_aws()).await;
    let tags = PIPELINE.replace("images:", "trigger: { push: { tags: [\"v*\"] } }\nimages:");
    let file = (".roadstead/pipeline.yml", FileMode::Blob, tags.as_str());
    let commit = server.commit(&[file]);
    let tagger = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
    for (name, wanted) in [("v1", true), ("nightly", false)] {
        let tag = {
            let named = server.origin.revparse_single(commit.as_str()).unwrap();
            let tag = server
                .origin
                .tag(name, &named, &tagger, "On the way", false);
            CommitSha::parse(&tag.unwrap().to_string()).unwrap()
        };
        assert_ne!(tag, commit);
        let run = server.read_of(tag, &format!("refs/tags/{name}")).await;
        assert_eq!((&run.commit, run.message.as_str()), (&commit, "Change"));
        match &run.state {
            RunState::Skipped { reason, .. } => {
                assert!(!wanted);
                assert_eq!(reason, "tag `nightly` does not match `v*`");
            }
            state => assert!(wanted && !state.is_over(), "{state:?}"),
        }
    }
    let run = server.read(commit).await;
    assert_eq!(
        run.state.word(),
        "skipped",
        "with tags alone, branches start nothing"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_newer_commit_takes_the_place_of_what_builds_and_an_older_one_does_not() {
    let server = Server::start(no_aws()).await;
    let cancels = "concurrency: { cancel_superseded: true }\nimages:";
    let text = PIPELINE.replace("images:", cancels);
    let file = (".roadstead/pipeline.yml", FileMode::Blob, text.as_str());
    let older = server.commit(&[file]);
    let first = server.read(older.clone()).await;
    let second = server.read(server.commit_saying("Next", &[file])).await;
    assert_eq!(second.supersedes, [first.id.clone()].into());
    let state = async |run: &RunId| server.store.get_run(run).await.unwrap().run.state;
    eventually("the older one to be cancelled", async || {
        (state(&first.id).await.word() == "cancelled").then_some(())
    })
    .await;
    let again = server.read(older).await;
    assert_eq!(again.supersedes, BTreeSet::new());
    let goes_on = state(&second.id).await;
    assert!(!goes_on.is_over(), "{goes_on:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_marker_in_the_message_holds_when_the_push_did_not_tell_it() {
    let server = Server::start(no_aws()).await;
    let file = (".roadstead/pipeline.yml", FileMode::Blob, PIPELINE);
    let commit = server.commit_saying("Words\n\nNothing to build. [skip ci]", &[file]);
    let run = server.read(commit.clone()).await;
    let RunState::Skipped { reason, .. } = &run.state else {
        panic!("{run:?}")
    };
    assert_eq!(reason, "the commit's message says [skip ci]");
    let again = server.read(commit).await;
    assert!(!again.state.is_over(), "a person asked for it: {again:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_release_is_deployed_once_though_replies_are_lost() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    let registered = sandbox.effective("RegisterTaskDefinition").await;
    sandbox
        .fault("RegisterTaskDefinition", "drop_reply", 1)
        .await;
    sandbox.fault("UpdateService", "drop_reply", 1).await;
    let server = Server::start(sandbox.aws()).await;
    let release = server.release(1).await;

    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Deployed {
        task_definition, ..
    } = &deployment.state
    else {
        panic!("{deployment:?}")
    };
    assert_eq!(
        sandbox.effective("RegisterTaskDefinition").await,
        registered + 1
    );
    assert_eq!(sandbox.effective("UpdateService").await, 1);
    let asked = json!({"taskDefinition": task_definition});
    let definition = sandbox.ecs("DescribeTaskDefinition", asked).await;
    let app = &definition["taskDefinition"]["containerDefinitions"][0];
    let image = release.images.values().next().unwrap();
    assert_eq!(app["image"], image.pinned());
    assert_eq!(
        app["environment"],
        json!([{"name": "COLOUR", "value": "green"}])
    );

    let place = Place {
        environment: EnvironmentName::parse("staging").unwrap(),
        service: ServiceName::parse("web").unwrap(),
    };
    let world = server.store.load_world(&server.project).await.unwrap();
    let status = world.place(&place).status.unwrap();
    assert_eq!(status.release, Some(release.id));
    assert_eq!(status.health, Health::Pass);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_rollout_that_ecs_took_back_while_nobody_listened_is_not_made_again() {
    let sandbox = Sandbox::start(Simulated).await;
    let at = sandbox.service(container(&json!({}))).await;
    let cluster = Cluster::new(sandbox.aws());
    let look = async || {
        let seen = cluster.observe(None, "shop", &["web".to_owned()]).await;
        seen["web"].as_ref().unwrap().clone()
    };
    let before = eventually("the first rollout", async || {
        let seen = look().await;
        let is_complete = seen.primary()?.rollout_state.as_deref() == Some("COMPLETED");
        is_complete.then_some(seen.task_definition)
    })
    .await;
    // Longer than the test: the server dies before it hears.
    let fault = json!({
        "operation": "UpdateService", "kind": "delay_reply", "times": 1, "delay_ms": 600_000,
    });
    sandbox.break_calls(&fault).await;
    let mut server = Server::start(sandbox.aws()).await;
    let mut release = Server::new_release(&server.project, 1);
    for image in release.images.values_mut() {
        // It starts for longer than the test takes, too: the rollout is under way when it is taken back.
        image.repository_uri = "simulated:start-60000s".into();
    }
    let release = server.bring(release, PIPELINE).await;
    eventually("the update", async || {
        (sandbox.effective("UpdateService").await == 1).then_some(())
    })
    .await;
    server.die().await;

    let primary = look().await.primary().unwrap().id.clone();
    let rollout = EcsRollout {
        deployment: primary,
        previous: None,
    };
    cluster.stop_rollout(&at, &rollout).await.unwrap();
    eventually("the way back", async || {
        let seen = look().await;
        let status = seen.service_deployment.map(|it| it.status);
        let is_back = status.as_deref() == Some("ROLLBACK_SUCCESSFUL");
        (is_back && seen.task_definition == before).then_some(())
    })
    .await;

    server.start_again(sandbox.aws()).await;
    let deployment = server.deployed(&release.id).await;
    assert_ne!(deployment.state.word(), "deployed", "{deployment:?}");
    assert_ne!(deployment.state.word(), "superseded", "{deployment:?}");
    assert_eq!(sandbox.effective("UpdateService").await, 1);
    assert_eq!(look().await.task_definition, before);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn an_update_that_ecs_never_takes_ends_with_the_reason() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox.service(container(&json!({}))).await;
    sandbox.fault("UpdateService", "throttle", 1_000).await;
    let server = Server::start(sandbox.aws()).await;
    // A deployment that has been waiting for ECS for two hours; half of one is the most.
    let id = DeploymentId::new(&server.project, 1);
    let release = Server::new_release(&server.project, 1);
    let fact = |fact| Change::Deployment {
        deployment: id.clone(),
        fact,
    };
    let changes = vec![
        Change::AdoptPipeline {
            pipeline: Box::new(spec::parse("pipeline.yml", PIPELINE).unwrap()),
        },
        Change::MakeRelease {
            release: release.clone(),
        },
        Change::OpenDeployment {
            deployment: id.clone(),
            place: Place {
                environment: EnvironmentName::parse("staging").unwrap(),
                service: ServiceName::parse("web").unwrap(),
            },
            release: release.id.clone(),
            kind: Kind::Forward,
            trigger: Trigger::Auto,
        },
        fact(DeploymentFact::Started {
            task_definition: None,
            before_deploy: None,
        }),
        fact(DeploymentFact::TaskDefinitionRegistered {
            task_definition: "arn:aws:ecs:eu-north-1:000000000000:task-definition/web:9".into(),
            creates: false,
        }),
    ];
    let began = clock::now() - jiff::SignedDuration::from_hours(2);
    let decide = |_: &_| Ok(changes.clone());
    server
        .store
        .record(&server.project, "test", began, decide)
        .await
        .unwrap();
    server.bell.ring();

    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Failed { failure, .. } = &deployment.state else {
        panic!("{deployment:?}")
    };
    let expected = "ECS did not accept the update within 1800 s: AWS throttles ecs:UpdateService";
    assert!(failure.message.starts_with(expected), "{failure:?}");
    // The effect is over too: nothing is sent when ECS takes updates again.
    let detail = server.store.get_deployment(&id).await.unwrap();
    let states: Vec<_> = detail.effects.iter().map(|e| e.state).collect();
    assert_eq!(states, [EffectState::Failed]);
    assert_eq!(sandbox.effective("UpdateService").await, 0);
    server.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_service_that_is_not_there_fails_the_deployment_by_name() {
    let sandbox = Sandbox::start(Simulated).await;
    sandbox
        .ecs("CreateCluster", json!({"clusterName": "shop"}))
        .await;
    let server = Server::start(sandbox.aws()).await;
    let release = server.release(1).await;
    let deployment = server.deployed(&release.id).await;
    let DeploymentState::Failed { failure, .. } = &deployment.state else {
        panic!("{deployment:?}")
    };
    assert!(
        failure.message.contains("no active service `web`"),
        "{failure:?}"
    );
    server.stop().await;
    sandbox.stop().await;
}
