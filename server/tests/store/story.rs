//! One project on a store, and a world outside that does as the test says.

use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::authorship::Authorship;
use roadstead_pipelines::deployment::EcsRollout;
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::{Change, DeploymentFact, RunFact, SourcesRead};
use roadstead_pipelines::id::{
    CommitSha, EnvironmentName, ImageDigest, ImageName, Place, ProjectName, ReleaseId, RunId,
    ServiceName,
};
use roadstead_pipelines::observation::{EcsDeployment, PlaceStatus, ServiceSeen};
use roadstead_pipelines::release::{FromFile, ImageRef, Images, TaskDefinitions, Variables};
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_pipelines::spec::{self, InputValues, LeftOut, Pipeline};
use roadstead_server::reconciler::Reconciler;
use roadstead_server::store::{Accepted, Decision, NewDelivery, Store, hash_secret};
use roadstead_server::wake::Bell;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const PIPELINE: &str = "\
version: 1
name: shop
trigger:
  push: { branches: [main] }
images:
  web: { repository: shop-web, secrets: [IMAGE_TOKEN] }
steps:
  image:
    build: [web]
    needs: [test]
  test:
    image: busybox
    run: make test
    secrets: [TOKEN, staging/PASSWORD]
services:
  web: { image: web }
environments:
  staging:
    ecs: { cluster: staging, service: web }
  production:
    after: staging
    ecs: { cluster: production, service: web }
    gates:
      - healthy: { environment: staging, for: 2m }
";

/// A project `shop`, and a clock.
pub(crate) struct Story {
    pub(crate) store: Store,
    pub(crate) shop: ProjectName,
    pub(crate) now: Timestamp,
    /// What the next files that are read leave out.
    pub(crate) left_out: LeftOut,
    /// The runs whose place they take.
    pub(crate) supersedes: BTreeSet<RunId>,
    pushes: u64,
}

pub(crate) fn place(environment: &str) -> Place {
    Place {
        environment: EnvironmentName::parse(environment).unwrap(),
        service: ServiceName::parse("web").unwrap(),
    }
}

pub(crate) fn commit(number: u64) -> CommitSha {
    CommitSha::parse(&format!("{number:040x}")).unwrap()
}

pub(crate) fn pipeline() -> Pipeline {
    spec::parse("pipeline.yml", PIPELINE).unwrap()
}

fn image_of(run: &RunId) -> Images {
    let image = ImageRef {
        repository_uri: "registry.test/shop-web".into(),
        digest: ImageDigest::parse(&format!("sha256:{:064x}", run.number())).unwrap(),
    };
    Images::from([(ImageName::parse("web").unwrap().into(), image)])
}

/// A service whose newest rollout is over, with two tasks, or one that runs none.
pub(crate) fn service(definition: &str, running: u32) -> ServiceSeen {
    ServiceSeen {
        task_definition: definition.into(),
        desired: 2,
        running,
        pending: 0,
        deployments: vec![EcsDeployment {
            id: format!("ecs-svc/{definition}"),
            status: "PRIMARY".into(),
            task_definition: definition.into(),
            rollout_state: Some("COMPLETED".into()),
            rollout_reason: String::new(),
            desired: 2,
            running,
            pending: 0,
            failed: 0,
            healthy: Some(running),
            created_at: None,
        }],
        service_deployment: None,
        stopped: vec![],
        targets: vec![],
        events: vec![],
    }
}

impl Story {
    /// Opens the store and makes the project.
    pub(crate) async fn begin(url: &str) -> Self {
        let store = Store::open(url).await.unwrap();
        let shop = ProjectName::parse("shop").unwrap();
        let now: Timestamp = "2026-01-05T10:00:00Z".parse().unwrap();
        store
            .upsert_project(
                shop.clone(),
                "/srv/shop.git".into(),
                "a webhook's key".into(),
                now,
            )
            .await
            .unwrap();
        Self {
            store,
            shop,
            now,
            left_out: LeftOut::new(),
            supersedes: BTreeSet::new(),
            pushes: 0,
        }
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// A delivery of a push of commit `number`.
    pub(crate) fn delivery(&self, id: &str, number: u64) -> NewDelivery {
        NewDelivery {
            project: self.shop.clone(),
            forge: "git".into(),
            delivery_id: id.into(),
            event: "push".into(),
            body: "{}".into(),
            decision: Decision::Build {
                git_ref: "refs/heads/main".into(),
                commit: commit(number),
            },
            redelivery: None,
            received_at: self.now,
        }
    }

    /// A push, as far as its job waits for a runner.
    pub(crate) async fn push(&mut self) -> RunId {
        self.pushes += 1;
        let delivery = self.delivery(&format!("push-{}", self.pushes), self.pushes);
        let Accepted::Run(run) = self.store.accept_delivery(delivery).await.unwrap() else {
            panic!("a new push makes a run");
        };
        // Once to plan, once to read the sources, once to prepare the registry.
        for _ in 0..3 {
            self.reconcile().await;
            self.act().await;
        }
        run
    }

    /// A push to a branch, of which this is the file.
    pub(crate) async fn read(&self, branch: &str, number: u64, file: &str) -> RunId {
        let git_ref = format!("refs/heads/{branch}");
        let actor = "git webhook";
        let asked = self
            .store
            .ask_for_run(&self.shop, commit(number), git_ref, actor, self.now);
        let run = asked.await.unwrap();
        let fact = RunFact::SourcesRead(Box::new(read_of(spec::parse("f", file).unwrap())));
        let changes = vec![Change::Run {
            run: run.clone(),
            fact,
        }];
        let decide = |_: &_| Ok(changes.clone());
        let recorded = self.store.record(&self.shop, "test", self.now, decide);
        recorded.await.unwrap();
        run
    }

    pub(crate) async fn reconcile(&self) {
        let reconciler = Reconciler {
            store: self.store.clone(),
            bell: Bell::default(),
            effects_bell: Bell::default(),
        };
        let settled = reconciler.reconcile(&self.shop, self.now).await.unwrap();
        assert!(settled.is_some(), "planning did not come to an end");
    }

    /// A runner does the job of a run.
    pub(crate) async fn build(&mut self, run: &RunId) {
        let token = hash_secret(&format!("token of {run}"));
        let claim = self
            .store
            .claim_job("harbour", token, self.now)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(claim.run.id, *run);
        let outcome = AttemptOutcome::Succeeded {
            images: image_of(run),
        };
        self.store
            .end_attempt(&claim.attempt, u64::from(claim.number), outcome, self.now)
            .await
            .unwrap();
    }

    /// Performs every effect that is due, with success. Tells how many.
    pub(crate) async fn act(&self) -> usize {
        let until = self.now + SignedDuration::from_secs(60);
        let leased = self
            .store
            .lease_effects(100, self.now, until)
            .await
            .unwrap();
        let performed = leased.len();
        for row in leased {
            let mut change = success_of(&row.effect);
            if let Change::Run {
                fact: RunFact::SourcesRead(read),
                ..
            } = &mut change
            {
                read.left_out.clone_from(&self.left_out);
                read.supersedes.clone_from(&self.supersedes);
            }
            self.store
                .finish_effect(&row.key, vec![change], self.now)
                .await
                .unwrap();
        }
        performed
    }

    /// The place is seen with a release and so many running tasks.
    pub(crate) async fn see(&self, environment: &str, release: &ReleaseId, running: u32) {
        let place = place(environment);
        let world = self.store.load_world(&self.shop).await.unwrap();
        let before = world.place(&place).status;
        let seen = service(&definition_of(environment, release.number()), running);
        let known = Some(release.clone());
        let status = PlaceStatus::observe(before.as_ref(), seen, vec![], known, self.now);
        let saving = self
            .store
            .save_place_status(&self.shop, place, before, status);
        assert!(saving.await.unwrap());
    }

    /// A push that is built, deployed to staging and verified there. Production then waits for
    /// staging to stay healthy.
    pub(crate) async fn verified_in_staging(&mut self) -> ReleaseId {
        let run = self.push().await;
        self.build(&run).await;
        let release = ReleaseId::new(&self.shop, run.number());
        for _ in 0..200 {
            self.reconcile().await;
            self.act().await;
            self.reconcile().await;
            let world = self.store.load_world(&self.shop).await.unwrap();
            if world.place(&place("staging")).has_verified(&release) {
                return release;
            }
            self.wait(5);
            if world.live_in(&place("staging")).any(|d| d.state.occupies()) {
                self.see("staging", &release, 2).await;
            }
        }
        panic!("{release} was not verified in staging");
    }
}

/// The test's own naming: the definition of the n-th deployment or release.
pub(crate) fn definition_of(environment: &str, number: u64) -> String {
    format!("shop-{environment}:{number}")
}

/// What a file that was read gives.
pub(crate) fn read_of(pipeline: Pipeline) -> SourcesRead {
    SourcesRead {
        commit: None,
        left_out: LeftOut::new(),
        inputs: InputValues::new(),
        newest_of_branch: true,
        base_file: None,
        supersedes: BTreeSet::new(),
        pipeline,
        message: "Change the sails".into(),
        author: "Ada".into(),
        authorship: Authorship {
            commit: ["ada@example.com".to_owned()].into(),
            since: vec![],
        },
        variables: Variables::new(),
        task_definitions: task_definitions(),
        skip: None,
    }
}

/// What the commits' files say of the service in staging.
pub(crate) fn task_definitions() -> TaskDefinitions {
    let file = "ecs/web.json".to_owned();
    let place = place("staging");
    let variables = [("environment".to_owned(), "staging \"1\"".to_owned())].into();
    let from = FromFile {
        file: file.clone(),
        variables,
    };
    TaskDefinitions {
        files: [(file, "{ \"family\": \"${environment}\" }\n".to_owned())].into(),
        places: [(place.environment, [(place.service, from)].into())].into(),
    }
}

fn success_of(effect: &Effect) -> Change {
    let of_run = |run: &RunId, fact| Change::Run {
        run: run.clone(),
        fact,
    };
    match effect {
        Effect::ReadSources { run } => {
            of_run(run, RunFact::SourcesRead(Box::new(read_of(pipeline()))))
        }
        Effect::PrepareRegistry { run } => {
            let name = ImageName::parse("web").unwrap();
            let repositories = BTreeMap::from([(name, "registry.test/shop-web".to_owned())]);
            of_run(run, RunFact::RegistryPrepared { repositories })
        }
        Effect::ConfirmImages { run } => of_run(
            run,
            RunFact::ImagesConfirmed {
                descendants: BTreeSet::new(),
            },
        ),
        Effect::RegisterTaskDefinition { deployment } => Change::Deployment {
            deployment: deployment.clone(),
            fact: DeploymentFact::TaskDefinitionRegistered {
                task_definition: definition_of("staging", deployment.number()),
                creates: false,
            },
        },
        Effect::UpdateService { deployment } => Change::Deployment {
            deployment: deployment.clone(),
            fact: DeploymentFact::ServiceUpdated {
                rollout: EcsRollout {
                    deployment: format!(
                        "ecs-svc/{}",
                        definition_of("staging", deployment.number())
                    ),
                    previous: None,
                },
            },
        },
        Effect::StopRollout { .. } => panic!("these stories take nothing back"),
        Effect::StartBeforeDeploy { .. }
        | Effect::WatchBeforeDeploy { .. }
        | Effect::StopBeforeDeploy { .. } => panic!("these stories do nothing before"),
        Effect::CreateService { .. } => panic!("these stories have their services"),
    }
}
