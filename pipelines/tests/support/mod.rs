//! A stage for stories: a world, a clock, and an ECS that does as the story says. The store, the
//! runners and ECS are played here; every decision is the planner's own.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test file uses the parts that it needs; a story that breaks off is a failed test"
)]

mod before_deploy;
mod create;
mod ecs;
mod file;
mod starts;
mod words;

pub use file::{AUTO, pipeline};

use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::action::{self, Actor, Refusal};
use roadstead_pipelines::authorship::{AuthorsSince, Authorship};
use roadstead_pipelines::deployment::{DeploymentState, EcsRollout, Rollout, TakenBackBy};
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::{Change, DeploymentFact, RunFact, SourcesRead};
use roadstead_pipelines::id::{
    CommitSha, DeploymentId, ImageDigest, JobName, Place, ProjectName, ReleaseId, RunId,
};
use roadstead_pipelines::observation::{
    EcsDeployment, PlaceStatus, ProbeSeen, ServiceSeen, StoppedTask,
};
use roadstead_pipelines::planner::{Plan, plan};
use roadstead_pipelines::release::{ImageRef, TaskDefinitions, Variables};
use roadstead_pipelines::run::{AttemptOutcome, Run};
use roadstead_pipelines::spec::{InputValues, LeftOut, Pipeline, Role};
use roadstead_pipelines::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use words::describe;

/// The start of every story.
pub const START: &str = "2026-01-05T10:00:00Z";

/// What ECS has of one service.
#[derive(Debug, Clone)]
pub struct EcsService {
    /// Newest first; the first is PRIMARY.
    pub deployments: Vec<EcsDeployment>,
    pub stopped: Vec<StoppedTask>,
    pub probe_ok: bool,
    pub desired: u32,
}

pub struct Stage {
    pub world: World,
    pub now: Timestamp,
    pub ecs: BTreeMap<Place, EcsService>,
    /// Which release a definition carries.
    pub definitions: BTreeMap<String, ReleaseId>,
    pub performed: BTreeSet<String>,
    pub transcript: String,
    /// Every `update_service` that was performed: deployment, place, digest.
    pub updates: Vec<(DeploymentId, Place, ReleaseId)>,
    /// Who writes the next commit.
    pub author: String,
    /// What git tells of it instead, if a story says so.
    pub authorship: Option<Authorship>,
    next_run: u64,
    next_ecs: u64,
    /// What the next commit's file says.
    pub pipeline: Pipeline,
    planner: fn(&World, Timestamp) -> Plan,
}

impl Stage {
    pub fn new(pipeline: Pipeline) -> Self {
        Self::with_planner(pipeline, plan)
    }

    pub fn with_planner(pipeline: Pipeline, planner: fn(&World, Timestamp) -> Plan) -> Self {
        let project = ProjectName::parse("shop").unwrap();
        let mut stage = Self {
            world: World::empty(project),
            now: START.parse().unwrap(),
            ecs: BTreeMap::new(),
            definitions: BTreeMap::new(),
            performed: BTreeSet::new(),
            transcript: String::new(),
            updates: vec![],
            author: "maya@example.com".into(),
            authorship: None,
            next_run: 1,
            next_ecs: 1,
            pipeline,
            planner,
        };
        for (name, address) in [("maya", "maya@example.com"), ("ole", "ole@example.com")] {
            let addresses = BTreeSet::from([address.to_owned()]);
            stage.world.addresses.insert(name.into(), addresses);
        }
        stage.world.pipeline = Some(stage.pipeline.clone());
        let places: Vec<_> = stage
            .world
            .places_in_order()
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        for place in places {
            let first = stage.new_ecs("base", "COMPLETED", 2);
            let service = EcsService {
                deployments: vec![first],
                stopped: vec![],
                probe_ok: true,
                desired: 2,
            };
            stage.ecs.insert(place, service);
        }
        stage.world.pipeline = None;
        stage
    }

    fn new_ecs(&mut self, definition: &str, state: &str, running: u32) -> EcsDeployment {
        let id = format!("ecs-svc/{}", self.next_ecs);
        self.next_ecs += 1;
        EcsDeployment {
            id,
            status: "PRIMARY".into(),
            task_definition: definition.into(),
            rollout_state: Some(state.into()),
            rollout_reason: String::new(),
            desired: 2,
            running,
            pending: 0,
            failed: 0,
            healthy: Some(running),
            created_at: Some(self.now),
        }
    }

    pub fn place(name: &str) -> Place {
        let (environment, service) = name.split_once('/').unwrap();
        Place {
            environment: roadstead_pipelines::id::EnvironmentName::parse(environment).unwrap(),
            service: roadstead_pipelines::id::ServiceName::parse(service).unwrap(),
        }
    }

    pub fn say(&mut self, text: &str) {
        let clock = self.now.strftime("%H:%M:%S").to_string();
        writeln!(self.transcript, "\n== {clock} {text}").unwrap();
    }

    /// What git tells of a commit by one person, on top of the newest release.
    fn by(&self, author: &str) -> Authorship {
        let people = BTreeSet::from([author.to_owned()]);
        let newest = self.world.newest_release();
        let since = newest.map(|release| AuthorsSince {
            release: release.id.clone(),
            contained: true,
            people: people.clone(),
        });
        Authorship {
            commit: people,
            since: since.into_iter().collect(),
        }
    }

    fn commit_of(number: u64) -> CommitSha {
        CommitSha::parse(&format!("{number:040x}")).unwrap()
    }

    /// A push: a run is asked for, as the webhook does it.
    pub fn push(&mut self) -> RunId {
        let number = self.next_run;
        self.next_run += 1;
        let run = RunId::new(&self.world.project, number);
        self.say(&format!("push {run}"));
        let asked = Run::asked_for(
            run.clone(),
            Self::commit_of(number),
            "refs/heads/main".into(),
            self.now,
        );
        self.world.runs.insert(run.clone(), asked);
        run
    }

    /// The runner claims and builds a run.
    pub fn build(&mut self, run: &RunId) {
        self.settle();
        let claimed = RunFact::JobClaimed {
            job: JobName::shared(0),
            attempt: 1,
            runner: "r1".into(),
        };
        self.change(&[Change::Run {
            run: run.clone(),
            fact: claimed,
        }]);
        let images = (0_u64..)
            .zip(
                self.pipeline
                    .images
                    .keys()
                    .flat_map(|it| self.pipeline.variants_of(it)),
            )
            .map(|(place, image)| {
                let number = (place << 32) + run.number();
                let built = ImageRef {
                    repository_uri: "registry/shop".into(),
                    digest: ImageDigest::parse(&format!("sha256:{number:064x}")).unwrap(),
                };
                (image, built)
            })
            .collect();
        let outcome = AttemptOutcome::Succeeded { images };
        self.change(&[Change::Run {
            run: run.clone(),
            fact: RunFact::AttemptEnded {
                attempt: 1,
                outcome,
            },
        }]);
        self.settle();
    }

    pub fn change(&mut self, changes: &[Change]) {
        self.world = self.world.with(changes, self.now).unwrap();
        for change in changes {
            writeln!(self.transcript, "  {}", describe(change)).unwrap();
        }
    }

    /// Plans and performs effects until nothing follows; prints what waits at the end.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            let plan = (self.planner)(&self.world, self.now);
            self.change(&plan.changes);
            let new: Vec<_> = plan
                .effects
                .into_iter()
                .filter(|e| self.performed.insert(e.key()))
                .collect();
            if plan.changes.is_empty() && new.is_empty() {
                for waiting in plan.waiting_on {
                    let subject = serde_json::to_value(&waiting.subject).unwrap();
                    let name = ["run", "deployment", "release"]
                        .iter()
                        .find_map(|key| subject[key].as_str())
                        .unwrap()
                        .to_owned();
                    let until = waiting
                        .until
                        .map(|t| format!(", until {}", t.strftime("%H:%M:%S")))
                        .unwrap_or_default();
                    writeln!(
                        self.transcript,
                        "  … {name} waits: {}{until}",
                        waiting.reason
                    )
                    .unwrap();
                }
                return;
            }
            for effect in new {
                self.perform(&effect);
            }
        }
        panic!("does not settle:\n{}", self.transcript);
    }

    /// Each push goes on from the one before.
    fn known_after(&self, run: &RunId) -> BTreeSet<CommitSha> {
        let own = &self.world.runs[run].commit;
        let released = self.world.releases.values().map(|release| &release.commit);
        let known = released.chain(self.world.runs.values().map(|run| &run.commit));
        // As they are numbered with all their digits.
        let after = known.filter(|other| other.as_str() > own.as_str());
        after.cloned().collect()
    }

    /// What a pull request, and where the file says so a push, takes the place of.
    fn superseded(&self, run: &RunId) -> BTreeSet<RunId> {
        let own = &self.world.runs[run];
        let older = self.world.runs.values().filter(|other| {
            let is_older = other.id.number() < run.number();
            is_older && other.git_ref == own.git_ref && other.state.can_be_cancelled()
        });
        let asked = self.pipeline.concurrency.cancel_superseded || own.pull_request().is_some();
        older.filter(|_| asked).map(|run| run.id.clone()).collect()
    }

    pub fn perform(&mut self, effect: &Effect) {
        writeln!(
            self.transcript,
            "  → {} {}",
            effect.word(),
            effect.subject()
        )
        .unwrap();
        let changes = match effect {
            Effect::ReadSources { run } => vec![Change::Run {
                run: run.clone(),
                fact: RunFact::SourcesRead(Box::new(SourcesRead {
                    commit: None,
                    left_out: LeftOut::new(),
                    inputs: InputValues::new(),
                    newest_of_branch: false,
                    base_file: None,
                    supersedes: self.superseded(run),
                    pipeline: self.pipeline.clone(),
                    message: format!("change {}", run.number()),
                    author: "maya".into(),
                    authorship: self
                        .authorship
                        .clone()
                        .unwrap_or_else(|| self.by(&self.author)),
                    variables: Variables::new(),
                    task_definitions: TaskDefinitions::default(),
                    skip: None,
                })),
            }],
            Effect::PrepareRegistry { run } => vec![Change::Run {
                run: run.clone(),
                fact: RunFact::RegistryPrepared {
                    repositories: BTreeMap::new(),
                },
            }],
            Effect::ConfirmImages { run } => vec![Change::Run {
                run: run.clone(),
                fact: RunFact::ImagesConfirmed {
                    descendants: self.known_after(run),
                },
            }],
            Effect::RegisterTaskDefinition { deployment } => {
                let release = self.world.deployments[deployment].release.clone();
                let task_definition = format!("td-{}", release.number());
                self.definitions.insert(task_definition.clone(), release);
                let creates = self.is_to_be_made(deployment);
                vec![Change::Deployment {
                    deployment: deployment.clone(),
                    fact: DeploymentFact::TaskDefinitionRegistered {
                        task_definition,
                        creates,
                    },
                }]
            }
            Effect::StartBeforeDeploy { deployment } => vec![Change::Deployment {
                deployment: deployment.clone(),
                fact: DeploymentFact::BeforeDeployStarted {
                    task: format!("arn/task/before-{}", deployment.number()),
                },
            }],
            Effect::WatchBeforeDeploy { .. } | Effect::StopBeforeDeploy { .. } => vec![],
            Effect::UpdateService { deployment } => {
                let found = self.world.deployments[deployment].clone();
                let DeploymentState::RollingOut {
                    rollout: Rollout::Updating { task_definition },
                    ..
                } = &found.state
                else {
                    panic!("update_service of {:?}", found.state)
                };
                self.updates.push((
                    deployment.clone(),
                    found.place.clone(),
                    found.release.clone(),
                ));
                let mut new = self.new_ecs(task_definition, "IN_PROGRESS", 0);
                new.healthy = Some(0);
                let service = self.ecs.get_mut(&found.place).unwrap();
                let previous = service.deployments[0].id.clone();
                service.deployments[0].status = "ACTIVE".into();
                service.deployments.insert(0, new.clone());
                let rollout = EcsRollout {
                    deployment: new.id,
                    previous: Some(previous),
                };
                vec![Change::Deployment {
                    deployment: deployment.clone(),
                    fact: DeploymentFact::ServiceUpdated { rollout },
                }]
            }
            Effect::CreateService { deployment } => self.create_service(deployment),
            Effect::StopRollout { deployment } => {
                let place = self.world.deployments[deployment].place.clone();
                self.take_back(&place);
                vec![]
            }
        };
        self.change(&changes);
    }

    /// Looks at every place.
    pub fn observe(&mut self) {
        for (place, service) in &self.ecs {
            let seen = ServiceSeen {
                task_definition: service.deployments[0].task_definition.clone(),
                desired: service.desired,
                running: service.deployments.iter().map(|d| d.running).sum(),
                pending: 0,
                deployments: service.deployments.clone(),
                service_deployment: None,
                stopped: service.stopped.clone(),
                targets: vec![],
                events: vec![],
            };
            let probe = ProbeSeen {
                url: format!("http://{place}"),
                ok: service.probe_ok,
                detail: if service.probe_ok {
                    "200".into()
                } else {
                    "500".into()
                },
            };
            let release = self.definitions.get(&seen.task_definition).cloned();
            let state = self.world.places.entry(place.clone()).or_default();
            let status =
                PlaceStatus::observe(state.status.as_ref(), seen, vec![probe], release, self.now);
            state.status = Some(status);
        }
    }

    /// Lets time pass, looking every second.
    pub fn wait(&mut self, seconds: i64) {
        self.say(&format!("{seconds} s pass"));
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            self.observe();
            let quiet = self.transcript.len();
            self.settle();
            let said = self.transcript.split_off(quiet);
            // Reasons are printed when something else happened, or at the end.
            if said.lines().any(|line| !line.trim_start().starts_with('…')) {
                let clock = self.now.strftime("%H:%M:%S").to_string();
                write!(self.transcript, "  at {clock}\n{said}").unwrap();
            }
        }
        self.settle();
    }

    /// A push that goes through its build and is healthy in staging.
    pub fn ship(&mut self) -> ReleaseId {
        let run = self.push();
        self.build(&run);
        ReleaseId::new(&self.world.project, self.world.next_release - 1)
    }

    pub fn actor() -> Actor {
        Actor {
            name: "ole".into(),
            role: Role::Deployer,
        }
    }

    pub fn promote(&mut self, place: &str, release: &ReleaseId) -> Result<(), Refusal> {
        self.say(&format!("ole promotes {release} to {place}"));
        let changes = action::promote(
            &self.world,
            &Self::place(place),
            release,
            &Self::actor(),
            "",
        )?;
        self.change(&changes);
        self.settle();
        Ok(())
    }

    pub fn rollback(&mut self, place: &str, release: &ReleaseId) -> Result<(), Refusal> {
        self.say(&format!("ole rolls {place} back to {release}"));
        let changes = action::rollback(
            &self.world,
            &Self::place(place),
            release,
            &Self::actor(),
            "customers complain",
            self.now,
        )?;
        self.change(&changes);
        self.settle();
        Ok(())
    }

    pub fn resume(&mut self, place: &str) -> Result<(), Refusal> {
        self.say(&format!("ole resumes {place}"));
        let changes = action::resume(&self.world, &Self::place(place), &Self::actor())?;
        self.change(&changes);
        self.settle();
        Ok(())
    }

    pub fn approve(&mut self, place: &str, release: &ReleaseId, by: &str) {
        self.say(&format!("{by} approves {release} for {place}"));
        let actor = Actor {
            name: by.into(),
            role: Role::Deployer,
        };
        let place = Self::place(place);
        let changes = action::approve(&self.world, &place, release, &actor, self.now).unwrap();
        self.change(&changes);
        self.settle();
    }

    /// The release that ECS runs in a place.
    pub fn running(&self, place: &str) -> Option<&ReleaseId> {
        self.definitions
            .get(&self.ecs[&Self::place(place)].deployments[0].task_definition)
    }

    pub fn states(&self) -> Vec<(String, &'static str)> {
        let mut all: Vec<_> = self.world.deployments.values().collect();
        all.sort_by_key(|d| d.id.number());
        all.iter()
            .map(|d| {
                (
                    format!("{} {} {}", d.id, d.place, d.release),
                    d.state.word(),
                )
            })
            .collect()
    }
}

/// Whether a state is being taken back by another deployment.
pub fn taken_back_by(state: &DeploymentState) -> Option<&DeploymentId> {
    match state {
        DeploymentState::RollingBack {
            by: TakenBackBy::Deployment { rollback },
            ..
        } => Some(rollback),
        _ => None,
    }
}
