//! Stories by chance, thousands of moments apart from each other in virtual time. In the end everything is
//! healed, a last release has to arrive everywhere, and what happened is held against the promises.
//!
//! A failure prints its seed, and `SEED=… cargo nextest run …` tells that story again. `SEEDS=…` tells so
//! many of them.

use crate::checks::{Trail, Violations, check};
use crate::draw::{Action, Button, Drawn, draw};
use crate::stage::{Stage, pipeline};
use crate::wire::At;
use futures_util::{StreamExt, stream};
use jiff::SignedDuration;
use roadstead_pipelines::action::{self, Actor, Refusal};
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::{
    CommitSha, EnvironmentName, ImageDigest, ImageName, Place, ReleaseId, ServiceName,
};
use roadstead_pipelines::planner;
use roadstead_pipelines::release::{ImageRef, Release, TaskDefinitions, Variables};
use roadstead_pipelines::spec::Role;
use roadstead_pipelines::world::World;
use roadstead_sandbox::BackendKind::Simulated;
use roadstead_server::store::{Committed, StoreError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Stories of a run, unless the environment's `SEEDS` says otherwise.
const SEEDS: u64 = 32;
/// The first one's.
const FIRST: u64 = 1;
/// What passes between two rounds once nothing goes wrong any more: it is only waited for then.
const WELL: SignedDuration = SignedDuration::from_secs(15);
/// Stories that are told at the same time.
const AT_ONCE: usize = 6;

struct Story {
    stage: Stage,
    file: String,
    /// The newest commit's number.
    newest: u64,
    /// By the number of their commit: the releases that were made.
    made: BTreeMap<u64, ReleaseId>,
    told: String,
    found: Violations,
}

fn file(drawn: &Drawn) -> String {
    let production = drawn.production;
    let service = if drawn.before_deploy {
        "container: tool, before_deploy: { command: ./migrate, timeout: 40s }"
    } else {
        "container: app"
    };
    format!(
        "version: 1\nname: shop\nimages:\n  app: {{ repository: shop/app }}\n\
         services:\n  web: {{ image: app, {service} }}\n\
         environments:\n  staging:\n    ecs: {{ cluster: staging, service: web }}\n    \
         rollout_timeout: 3m\n    verify: {{ watch: 15s }}\n  \
         production:\n    after: staging\n    {production}\n    \
         ecs: {{ cluster: production, service: web }}\n    \
         rollout_timeout: 3m\n    verify: {{ watch: 10s }}\n"
    )
}

/// The image of one of them is replaced by each release's, whose tag says what becomes of it. The tool
/// matters to nobody but to a task before a deployment.
fn containers() -> Value {
    json!([
        {"name": "app", "image": "app:1", "essential": true, "memory": 64,
         "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5, "retries": 3}},
        {"name": "tool", "image": "app:1", "essential": false, "memory": 64},
    ])
}

fn place(in_production: bool) -> Place {
    let environment = if in_production {
        "production"
    } else {
        "staging"
    };
    Place {
        environment: EnvironmentName::parse(environment).unwrap(),
        service: ServiceName::parse("web").unwrap(),
    }
}

fn ada() -> Actor {
    Actor {
        name: "ada".into(),
        role: Role::Deployer,
    }
}

impl Story {
    async fn begin(seed: u64, drawn: &Drawn) -> Self {
        let stage = Stage::start(None, Simulated, seed).await;
        for cluster in ["staging", "production"] {
            stage.service(cluster, &containers()).await;
        }
        let file = file(drawn);
        let pipeline = pipeline(&file);
        stage.record(vec![Change::AdoptPipeline { pipeline }]).await;
        Self {
            stage,
            file,
            newest: 0,
            made: BTreeMap::new(),
            told: String::new(),
            found: vec![],
        }
    }

    fn say(&mut self, what: &str) {
        let time = self.stage.now().strftime("%H:%M:%S").to_string();
        writeln!(self.told, "{time} {what}").unwrap();
    }

    /// A release of the newest commit; a late one is of the commit before, if that has none yet.
    async fn release(&mut self, image: &str, is_late: bool) -> ReleaseId {
        // Two commits are pushed, and the second one's run is the faster.
        let skipped = self.newest.saturating_sub(1);
        let commit = if is_late && skipped > 0 && !self.made.contains_key(&skipped) {
            skipped
        } else {
            self.newest += 2;
            self.newest
        };
        let sha = |commit: u64| CommitSha::parse(&format!("{commit:040x}")).unwrap();
        let after = self
            .made
            .range(commit + 1..)
            .map(|(commit, _)| sha(*commit));
        let after: BTreeSet<_> = after.collect();
        let world = self.world().await;
        let id = ReleaseId::new(&self.stage.project, world.next_release);
        let image = ImageRef {
            repository_uri: format!("registry.example.org/simulated:{image}"),
            digest: ImageDigest::parse(&format!("sha256:{commit:064x}")).unwrap(),
        };
        let release = Release {
            id: id.clone(),
            run: None,
            commit: sha(commit),
            descendants: after,
            message: "Change".into(),
            author: "Maya".into(),
            authorship: None,
            images: BTreeMap::from([(ImageName::parse("app").unwrap().into(), image)]),
            variables: Variables::new(),
            task_definitions: TaskDefinitions::default(),
            created_at: self.stage.now(),
        };
        self.made.insert(commit, id.clone());
        self.stage
            .record(vec![Change::MakeRelease { release }])
            .await;
        self.say(&format!("{id} of commit {commit}"));
        id
    }

    async fn world(&self) -> World {
        let world = self.stage.store.load_world(&self.stage.project).await;
        world.unwrap()
    }

    async fn press(&mut self, button: Button, in_production: bool, pick: usize, amid_plan: bool) {
        let (now, project) = (self.stage.now(), self.stage.project.clone());
        let (place, world) = (place(in_production), self.world().await);
        let releases: Vec<ReleaseId> = match button {
            Button::Rollback => {
                let verified = world.place(&place).verified;
                verified.into_iter().map(|it| it.release).collect()
            }
            _ => world.releases.keys().rev().cloned().collect(),
        };
        let deployments: Vec<_> = world.live_in(&place).map(|it| it.id.clone()).collect();
        let picked = (!releases.is_empty()).then(|| releases[pick % releases.len()].clone());
        let other =
            (!deployments.is_empty()).then(|| deployments[pick % deployments.len()].clone());
        let nothing = || Err(Refusal("there is none".into()));
        let decide = move |world: &World| match (button, &picked, &other) {
            (Button::Hold, _, _) => action::hold(world, &place, &ada(), "a look first", now),
            (Button::Resume, _, _) => action::resume(world, &place, &ada()),
            (Button::Cancel, _, Some(id)) => action::cancel_deployment(world, id, &ada()),
            (Button::Promote, Some(id), _) => action::promote(world, &place, id, &ada(), ""),
            (Button::Rollback, Some(id), _) => {
                action::rollback(world, &place, id, &ada(), "complaints", now)
            }
            (Button::Approve, Some(id), _) => action::approve(world, &place, id, &ada(), now),
            (Button::Cancel | Button::Promote | Button::Rollback | Button::Approve, _, _) => {
                nothing()
            }
        };
        let plan = planner::plan(&world, now);
        let store = self.stage.store.clone();
        let pressed = store.record(&project, "ada", now, decide).await;
        let said = match &pressed {
            Ok(recorded) => format!("{} changes", recorded.changes.len()),
            Err(StoreError::Refused { .. }) => "refused".to_owned(),
            Err(error) => panic!("{error}"),
        };
        self.say(&format!("{button:?} {in_production} {pick}: {said}"));
        let changed = pressed.is_ok_and(|recorded| !recorded.changes.is_empty());
        if amid_plan && changed {
            // What was planned before somebody pressed is not to be stored any more.
            let committed = store
                .commit(
                    &project,
                    world.generations,
                    plan.changes,
                    plan.effects,
                    "Roadstead",
                    now,
                )
                .await;
            if !matches!(committed, Ok(Committed::Stale)) {
                self.found
                    .push(format!("I10: a stale plan gave {committed:?}"));
            }
        }
    }

    async fn happen(&mut self, action: &Action) {
        match *action {
            Action::Release { image, is_late } => {
                self.say(image);
                self.release(image, is_late).await;
            }
            Action::Press {
                button,
                in_production,
                pick,
                amid_plan,
            } => self.press(button, in_production, pick, amid_plan).await,
            Action::Fault {
                operation,
                kind,
                times,
            } => {
                self.say(&format!("{times} {operation}: {kind}"));
                self.stage.fault(operation, kind, times).await;
                self.stage.reconcile().await;
                self.stage.act().await;
                // Looks ask for several things at once, and which of them meets a fault is no story.
                self.stage.forget_faults().await;
            }
            Action::Blind { kind } => {
                self.say(&format!("looks: {kind}"));
                self.stage.fault("DescribeServices", kind, 2).await;
                self.stage.look().await;
                self.stage.forget_faults().await;
            }
            Action::Cut { call, moment } => {
                self.say(&format!("call {call}: {moment:?}"));
                self.stage.wire.cut(At::Next(call), moment);
            }
            Action::Wait { rounds } => {
                for _ in 0..rounds {
                    self.stage.round().await;
                }
            }
        }
        self.stage.round().await;
    }

    /// People and machines are well again, and one more release, a good one, goes all the way.
    async fn heal(&mut self, good: &str) -> ReleaseId {
        self.stage.wire.heal();
        self.stage.forget_faults().await;
        let last = self.release(good, false).await;
        for _ in 0..150 {
            let (world, now) = (self.world().await, self.stage.now());
            let arrived = |in_production| self.is_verified(&world, in_production, &last);
            if arrived(false) && arrived(true) {
                let deployments = self.stage.deployments().await;
                if deployments.iter().all(|it| it.state.is_over()) {
                    break;
                }
            }
            let mut changes = vec![];
            for in_production in [false, true] {
                let place = place(in_production);
                let state = world.place(&place);
                if state.hold.is_some() {
                    changes.extend(action::resume(&world, &place, &ada()).unwrap());
                }
                let is_approved = state.approvals.iter().any(|a| a.release == last);
                if in_production && arrived(false) && !is_approved {
                    let approved = action::approve(&world, &place, &last, &ada(), now);
                    changes.extend(approved.unwrap());
                    // By hand where nothing goes by itself, and where somebody went past it.
                    if let Ok(promoted) = action::promote(&world, &place, &last, &ada(), "") {
                        changes.extend(promoted);
                    }
                }
            }
            if !changes.is_empty() {
                self.stage.record(changes).await;
            }
            self.stage.round_of(WELL).await;
        }
        // ECS takes away what it replaced.
        self.stage.round_of(WELL).await;
        last
    }

    fn is_verified(&self, world: &World, in_production: bool, release: &ReleaseId) -> bool {
        let state = world.place(&place(in_production));
        state
            .last_verified()
            .is_some_and(|it| it.release == *release)
    }
}

/// What a seed's story came to.
struct Told {
    trail: Option<Trail>,
    found: Violations,
    told: String,
}

async fn tell(seed: u64) -> Told {
    let drawn = draw(seed);
    let mut story = Story::begin(seed, &drawn).await;
    let file = story.file.clone();
    story.say(&file);
    for action in &drawn.actions {
        story.happen(action).await;
    }
    let last = story.heal(drawn.good).await;
    let (trail, mut found) = check(&story.stage, &last).await;
    found.extend(std::mem::take(&mut story.found));
    story.stage.stop().await;
    Told {
        trail,
        found,
        told: story.told,
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

fn seeds() -> Vec<u64> {
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (FIRST..FIRST + number("SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_seed_keeps_the_promises() {
    let told = seeds().into_iter().map(|seed| async move {
        let told = tokio::spawn(tell(seed)).await;
        (seed, told)
    });
    let mut told = stream::iter(told).buffer_unordered(AT_ONCE);
    let (mut stories, mut entries, mut broken) = (0, 0, vec![]);
    while let Some((seed, told)) = told.next().await {
        stories += 1;
        match told {
            Ok(Told { trail, found, told }) => {
                entries += trail.map_or(0, |trail| trail.entries.len());
                if !found.is_empty() {
                    // At once: thousands take long, and may not come to their end.
                    eprintln!("seed {seed}: {found:#?}");
                    broken.push(format!("seed {seed}: {found:#?}\n{told}"));
                }
            }
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                broken.push(format!("seed {seed}: {error}"));
            }
        }
    }
    println!("{stories} stories, {entries} entries");
    assert!(
        broken.is_empty(),
        "{} of {stories} stories; tell one again with SEED=… cargo nextest run -p roadstead-server \
         --test simulation seed\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// Else a seed would be of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_seed_writes_the_same_history_hash_for_hash() {
    for seed in [3, 4] {
        let heads = async || tell(seed).await.trail.map(|trail| trail.heads);
        let (one, other) = tokio::join!(heads(), heads());
        assert!(one.is_some() && one == other, "seed {seed}");
    }
}
