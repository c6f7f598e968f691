//! A world of scripted tasks in virtual time, to drive the scheduler in tests.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Map;

use super::deployments::{StopRequest, begin, request_stop};
use super::model::{
    Configuration, ContainerPlan, Deployment, Effect, Ids, Moment, PortBinding, Revision, Service,
    ServiceDeployment, ServiceStatus, TargetPlan, TargetState, TaskEvent, Timings,
};
use super::placement::{Fleet, Instance, InstanceStatus, Need, Room};
use super::rollout::tick;
use super::task::{Health, Task};
use crate::clock::Time;

pub(crate) const GROUP: &str =
    "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/g/1";

/// What happens to a task after its launch; seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Script {
    /// Starts after `start` and is healthy `healthy` later, as far as anything checks.
    Good {
        start: u32,
        healthy: u32,
    },
    CannotPull,
    CannotStart,
    /// Exits that long after its start, before any check said a word.
    Exits {
        after: u32,
    },
    /// Its checks fail that long after its start.
    Unhealthy {
        after: u32,
    },
}

pub(crate) const GOOD: Script = Script::Good {
    start: 1,
    healthy: 1,
};

/// What looks at the tasks' health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    None,
    Container,
    Target,
}

struct Actor {
    script: Script,
    launched: Time,
    started: Option<Time>,
    told: bool,
}

/// What moves a service on.
pub(crate) type Scheduler = fn(&mut Service, &mut dyn Room, &mut Moment<'_>) -> Vec<Effect>;

/// A service, its tasks' scripts, and the time.
pub(crate) struct World {
    pub(crate) service: Service,
    /// The real one, unless a test breaks it.
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Time,
    pub(crate) timings: Timings,
    pub(crate) check: Check,
    /// By task definition: the scripts of its tasks, taken in turn.
    scripts: HashMap<String, Vec<Script>>,
    launches: HashMap<String, usize>,
    actors: HashMap<String, Actor>,
    random: u128,
    /// Effects of the last second.
    pub(crate) effects: Vec<Effect>,
    /// Without any, tasks are Fargate's.
    pub(crate) instances: Vec<Instance>,
    /// How many instances there ever were: an id never comes again.
    instances_added: usize,
    /// What a task takes of an instance.
    pub(crate) need: Need,
    /// Tasks whose targets fail in the next second, whatever their scripts say.
    failing: Vec<String>,
}

impl World {
    pub(crate) fn new(desired: u32, configuration: Configuration, check: Check) -> Self {
        Self {
            service: Service {
                name: "web".to_owned(),
                cluster: "main".to_owned(),
                client_token: None,
                status: ServiceStatus::Active,
                created_at: Time(0),
                desired,
                configuration,
                grace: Duration::ZERO,
                alarms_seen: Vec::new(),
                settings: Map::new(),
                deployments: Vec::new(),
                last_completed: None,
                service_deployments: Vec::new(),
                revisions: Vec::new(),
                tasks: Vec::new(),
                events: Vec::new(),
                steady_since: None,
            },
            scheduler: tick,
            now: Time(0),
            timings: Timings {
                scale: 1.0,
                strict_breaker: false,
            },
            check,
            scripts: HashMap::new(),
            launches: HashMap::new(),
            actors: HashMap::new(),
            random: 7,
            effects: Vec::new(),
            instances: Vec::new(),
            instances_added: 0,
            need: Need {
                cpu: 256,
                memory: 512,
            },
            failing: Vec::new(),
        }
    }

    /// Adds an instance of that many of the tasks' needs.
    pub(crate) fn add_instance(&mut self, zone: char, tasks: u32) -> String {
        let id = format!("{zone}{}", self.instances_added);
        self.instances_added += 1;
        self.instances.push(Instance {
            id: id.clone(),
            ec2_id: format!("i-{id}"),
            zone,
            size: Need {
                cpu: self.need.cpu * tasks,
                memory: self.need.memory * tasks,
            },
            status: InstanceStatus::Active,
            registered_at: self.now,
            version: 1,
        });
        id
    }

    /// Takes an instance away, with everything on it.
    pub(crate) fn lose_instance(&mut self, id: &str) {
        self.instances.retain(|one| one.id != id);
        let now = self.now;
        for task in &mut self.service.tasks {
            if task.placed.as_ref().is_some_and(|one| one.instance == id) {
                task.lose_host(&format!("i-{id}"), now);
            }
        }
    }

    /// The fleet as the tasks leave it.
    pub(crate) fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::of(&self.instances);
        for task in &self.service.tasks {
            fleet.occupy(task);
        }
        fleet
    }

    fn with_moment<T>(&mut self, act: impl FnOnce(&mut Service, &mut Moment<'_>) -> T) -> T {
        let random = &mut self.random;
        let mut next = || {
            *random = random
                .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
                .wrapping_add(0x5851_F42D_4C95_7F2D_1405_7B7E_F767_814F);
            *random
        };
        let mut moment = Moment {
            now: self.now,
            timings: self.timings,
            ids: Ids(&mut next),
        };
        act(&mut self.service, &mut moment)
    }

    /// Deploys a definition whose tasks follow these scripts in turn; returns the deployment.
    pub(crate) fn deploy(&mut self, definition: &str, scripts: &[Script]) -> String {
        self.scripts.insert(definition.to_owned(), scripts.to_vec());
        let targets = match self.check {
            Check::Target => vec![TargetPlan {
                group: GROUP.to_owned(),
                container: "app".to_owned(),
                port: 80,
            }],
            Check::None | Check::Container => Vec::new(),
        };
        let checked = self.check == Check::Container;
        let need = (!self.instances.is_empty()).then_some(self.need);
        let definition = definition.to_owned();
        self.with_moment(|service, moment| {
            let revision = Revision {
                id: moment.ids.digits(),
                created_at: moment.now,
                definition_arn: definition,
                containers: vec![ContainerPlan {
                    name: "app".to_owned(),
                    image: "image".to_owned(),
                    essential: true,
                    checked,
                    consistent: true,
                }],
                digests: BTreeMap::new(),
                targets,
                need,
                settings: Map::new(),
            };
            begin(service, revision, moment)
        })
    }

    pub(crate) fn stop_deployment(&mut self, request: StopRequest) -> Result<(), String> {
        let id = self.record().id.clone();
        self.with_moment(|service, moment| request_stop(service, &id, request, moment))
    }

    pub(crate) fn primary(&self) -> &Deployment {
        self.service.primary().unwrap()
    }

    /// The newest service deployment.
    pub(crate) fn record(&self) -> &ServiceDeployment {
        &self.service.service_deployments[0]
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Task> {
        self.service.tasks.iter().filter(|task| task.live())
    }

    pub(crate) fn is_healthy(&self, task: &Task) -> bool {
        task.health(self.now, self.service.grace, self.timings) == Health::Healthy
    }

    pub(crate) fn healthy(&self) -> usize {
        self.live().filter(|task| self.is_healthy(task)).count()
    }

    pub(crate) fn observe(&mut self, task: &str, event: &TaskEvent) {
        let now = self.now;
        if let Some(task) = self.service.tasks.iter_mut().find(|one| one.id == task) {
            task.observe(event, now);
        }
    }

    /// Makes the targets of these tasks fail in the next second.
    pub(crate) fn fail_targets(&mut self, tasks: &[String]) {
        self.failing = tasks.to_vec();
    }

    pub(crate) fn tells(&self, text: &str) -> bool {
        self.service
            .events
            .iter()
            .any(|event| event.message.contains(text))
    }

    /// Lets a second pass.
    pub(crate) fn step(&mut self) {
        self.see();
        self.decide();
    }

    /// The first half of a second: what happens to the tasks.
    pub(crate) fn see(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.forget_stopped();
        self.perform_scripts();
        self.look_at_targets();
    }

    /// The other half: what the scheduler makes of it.
    pub(crate) fn decide(&mut self) {
        let (scheduler, mut fleet) = (self.scheduler, self.fleet());
        self.effects = self.with_moment(|service, moment| scheduler(service, &mut fleet, moment));
        for effect in self.effects.clone() {
            self.perform(effect);
        }
    }

    /// Keeps a crash loop from filling the world, as the shell does.
    fn forget_stopped(&mut self) {
        let tasks = &mut self.service.tasks;
        let mut surplus = tasks.len().saturating_sub(200);
        tasks.retain(|task| {
            let forgotten = surplus > 0 && task.stopped_at.is_some();
            surplus -= usize::from(forgotten);
            !forgotten
        });
    }

    pub(crate) fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.step();
        }
    }

    /// Lets time pass until the newest service deployment has ended; panics after `hours`.
    pub(crate) fn run_to_end(&mut self, hours: u32) {
        self.run_until(hours, |world| world.record().status.is_final());
    }

    /// Lets time pass, second by second, until `test` holds; panics after `hours`.
    pub(crate) fn run_until(&mut self, hours: u32, mut test: impl FnMut(&mut Self) -> bool) {
        for _ in 0..hours * 3600 {
            if test(self) {
                return;
            }
            self.step();
        }
        panic!(
            "the story does not go on: {:?}\n{:#?}",
            self.record(),
            self.service.events
        );
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { task_id } => {
                let definition = self
                    .service
                    .tasks
                    .iter()
                    .find(|task| task.id == task_id)
                    .unwrap()
                    .definition_arn
                    .clone();
                let turn = self.launches.entry(definition.clone()).or_default();
                let scripts = &self.scripts[&definition];
                let actor = Actor {
                    script: scripts[*turn % scripts.len()],
                    launched: self.now,
                    started: None,
                    told: false,
                };
                *turn += 1;
                self.actors.insert(task_id, actor);
            }
            Effect::Stop { task_id } => {
                let actor = self.actors.remove(&task_id);
                if actor.is_some_and(|actor| actor.started.is_some()) {
                    self.observe(
                        &task_id,
                        &TaskEvent::ContainerExited {
                            name: "app".to_owned(),
                            exit_code: 143,
                            oom: false,
                            ran_for_ms: None,
                        },
                    );
                }
                self.observe(&task_id, &TaskEvent::Stopped);
            }
            Effect::Register { .. } | Effect::Deregister { .. } | Effect::Remove { .. } => {}
        }
    }

    fn perform_scripts(&mut self) {
        let now = self.now;
        let mut seen = Vec::new();
        for (id, actor) in &mut self.actors {
            let since = |from: Time| now.since(from).as_secs();
            let mut see = |event| seen.push((id.clone(), event));
            let name = || "app".to_owned();
            let Some(started) = actor.started else {
                let wait = match actor.script {
                    Script::Good { start, .. } => u64::from(start),
                    _ => 1,
                };
                if actor.told || since(actor.launched) < wait {
                    continue;
                }
                match actor.script {
                    Script::CannotPull => {
                        actor.told = true;
                        see(TaskEvent::CannotPull {
                            container: name(),
                            reason: "manifest unknown".to_owned(),
                        });
                    }
                    Script::CannotStart => {
                        actor.told = true;
                        see(TaskEvent::CannotStart {
                            container: name(),
                            reason: "no such file".to_owned(),
                        });
                    }
                    _ => {
                        actor.started = Some(now);
                        see(TaskEvent::Pulled);
                        see(TaskEvent::ContainerStarted {
                            name: name(),
                            container_id: "c".to_owned(),
                            bindings: vec![PortBinding {
                                container_port: 80,
                                host_port: 8080,
                                protocol: "tcp".to_owned(),
                            }],
                            image_digest: None,
                        });
                    }
                }
                continue;
            };
            if actor.told {
                continue;
            }
            match actor.script {
                Script::Exits { after } if since(started) >= u64::from(after) => {
                    actor.told = true;
                    see(TaskEvent::ContainerExited {
                        name: name(),
                        exit_code: 1,
                        oom: false,
                        ran_for_ms: Some(u64::from(after) * 1000),
                    });
                }
                Script::Good { healthy: after, .. } | Script::Unhealthy { after }
                    if self.check == Check::Container && since(started) >= u64::from(after) =>
                {
                    actor.told = true;
                    see(TaskEvent::ContainerHealth {
                        name: name(),
                        healthy: matches!(actor.script, Script::Good { .. }),
                    });
                }
                _ => {}
            }
        }
        seen.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (id, event) in seen {
            self.observe(&id, &event);
        }
    }

    fn look_at_targets(&mut self) {
        let now = self.now;
        for task in &mut self.service.tasks {
            let Some(actor) = self.actors.get(&task.id) else {
                continue;
            };
            let up = actor.started.map_or(0, |from| now.since(from).as_secs());
            for target in task.targets.iter_mut().filter(|target| target.registered) {
                target.state = match actor.script {
                    _ if self.failing.contains(&task.id) => TargetState::Unhealthy {
                        reason: "Request timed out".to_owned(),
                    },
                    Script::Good { healthy, .. } if up >= u64::from(healthy) => {
                        TargetState::Healthy
                    }
                    Script::Unhealthy { after } if up >= u64::from(after) => {
                        TargetState::Unhealthy {
                            reason: "Health checks failed with these codes: [500]".to_owned(),
                        }
                    }
                    _ => TargetState::Initial,
                };
            }
        }
    }
}
