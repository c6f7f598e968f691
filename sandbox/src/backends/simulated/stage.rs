//! Tasks that play their scripts: what happens to which of them, and when.
//!
//! Time comes in with every call and only what it allows comes out, so the same calls always give
//! the same reports in the same order. Must not know: threads, clocks, who listens.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::script::{Script, Verdict};
use crate::agenda::Agenda;
use crate::backends::TaskEvent;
use crate::backends::dependencies::{Phase, Readiness, readiness};
use crate::clock::Time;
use crate::targets::TargetState;

/// Something for the conductor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cue {
    Report {
        task_id: String,
        event: TaskEvent,
    },
    /// A load balancer thinks differently of one of the task's targets.
    Look {
        task_id: String,
    },
}

/// What happens to a task.
#[derive(Debug, Clone, Copy)]
enum Scene {
    Pulled,
    CannotPull(usize),
    CannotStart(usize),
    Starts(usize),
    /// What it depends on will never be what it needs.
    GivesUp(usize),
    /// Others have waited for it long enough.
    Overdue(usize),
    /// Its check has a new verdict.
    Check(usize),
    Exits(usize),
    /// It ends because it was told to.
    Ends(usize),
    Gone,
    /// Its targets have a new verdict since their registration.
    Target(Time),
}

/// One task on stage.
struct Actor {
    task_id: String,
    scripts: Vec<Script>,
    /// When each container started; None: not yet, or no more.
    alive: Vec<Option<Time>>,
    phases: Vec<Phase>,
    /// One is about to start: the others wait.
    busy: bool,
    /// An essential one has ended, or it was told to end: none starts any more.
    ending: bool,
    /// In the order of their times.
    scenes: VecDeque<(Time, Scene)>,
}

struct Registration {
    since: Time,
    draining: bool,
}

/// Turns AWS's waits into the sandbox's.
pub(super) type Pace<'a> = &'a dyn Fn(Duration) -> Duration;

/// Every task that plays.
#[derive(Default)]
pub(super) struct Stage {
    /// By number, in the order in which they came.
    actors: BTreeMap<u64, Actor>,
    numbers: HashMap<String, u64>,
    next_number: u64,
    agenda: Agenda<u64>,
    /// By task and target group.
    targets: HashMap<String, HashMap<String, Registration>>,
}

impl Actor {
    /// Adds a scene, after those of the same time.
    fn add(&mut self, time: Time, scene: Scene) {
        let at = self.scenes.partition_point(|(other, _)| *other <= time);
        self.scenes.insert(at, (time, scene));
    }

    fn name(&self, container: usize) -> String {
        self.scripts[container].name.clone()
    }

    /// What load balancers find out: the worst of the containers.
    fn target(&self) -> Verdict {
        let unhealthy = self.scripts.iter().find(|script| !script.target.healthy);
        unhealthy
            .or(self.scripts.first())
            .map_or(Verdict::healthy(Duration::ZERO), |script| script.target)
    }

    /// Pulls one after the other, as the containers are named.
    fn prepare(&mut self, now: Time, pace: Pace<'_>) {
        let mut time = now;
        for container in 0..self.scripts.len() {
            match self.scripts[container].pull {
                Ok(wait) => time = time + pace(wait),
                Err(()) => return self.add(time, Scene::CannotPull(container)),
            }
        }
        self.add(time, Scene::Pulled);
    }

    /// Lets the next container start: one after the other, as they are named, when what they depend
    /// on allows.
    fn start_next(&mut self, time: Time, pace: Pace<'_>) {
        if self.busy || self.ending {
            return;
        }
        let waiting = (0..self.scripts.len()).filter(|at| self.phases[*at] == Phase::Waiting);
        let mut judged = waiting.map(|container| (container, self.readiness(container)));
        let next = judged.find(|(_, readiness)| *readiness != Readiness::NotYet);
        let Some((container, readiness)) = next else {
            return;
        };
        self.busy = true;
        match (readiness, self.scripts[container].start) {
            (Readiness::Never(_), _) => self.add(time, Scene::GivesUp(container)),
            (_, Ok(wait)) => self.add(time + pace(wait), Scene::Starts(container)),
            (_, Err(())) => self.add(time, Scene::CannotStart(container)),
        }
    }

    fn readiness(&self, container: usize) -> Readiness {
        readiness(&self.scripts[container].depends_on, |name| {
            let at = self.scripts.iter().position(|one| one.name == name)?;
            Some(self.phases[at])
        })
    }

    /// Plays a scene, and whatever follows from it.
    fn play(&mut self, time: Time, scene: Scene, pace: Pace<'_>) -> Option<Cue> {
        let cue = self.play_alone(time, scene, pace);
        self.start_next(time, pace);
        cue
    }

    fn play_alone(&mut self, time: Time, scene: Scene, pace: Pace<'_>) -> Option<Cue> {
        let event = match scene {
            Scene::Pulled => {
                self.busy = false;
                TaskEvent::Pulled
            }
            Scene::CannotPull(container) => TaskEvent::CannotPull {
                container: self.name(container),
                reason: "simulated: manifest unknown".to_owned(),
            },
            Scene::CannotStart(container) => TaskEvent::CannotStart {
                container: self.name(container),
                reason: "simulated: no such executable".to_owned(),
            },
            Scene::GivesUp(container) => {
                let Readiness::Never(reason) = self.readiness(container) else {
                    return None;
                };
                TaskEvent::CannotStart {
                    container: self.name(container),
                    reason,
                }
            }
            Scene::Overdue(container) => {
                if let Phase::Started { overdue, .. } = &mut self.phases[container] {
                    *overdue = true;
                }
                return None;
            }
            Scene::Starts(container) => self.start(container, time, pace),
            Scene::Check(container) => {
                let started = self.alive[container]?;
                let script = &self.scripts[container];
                let verdict = script.health;
                let (healthy, next) = look(verdict, started, time, pace);
                if let Some(next) = next {
                    self.add(next, Scene::Check(container));
                }
                let verdict = healthy?;
                if let Phase::Started { healthy, .. } = &mut self.phases[container] {
                    *healthy = Some(verdict);
                }
                TaskEvent::ContainerHealth {
                    name: self.name(container),
                    healthy: verdict,
                }
            }
            Scene::Exits(container) => {
                self.alive[container].take()?;
                let script = &self.scripts[container];
                let exit = script.exit?;
                self.phases[container] = Phase::Ended {
                    exit_code: exit.code,
                };
                // As Docker Engine's backend: it waits to be told to stop the rest.
                self.ending |= script.essential;
                TaskEvent::ContainerExited {
                    name: script.name.clone(),
                    exit_code: exit.code,
                    oom: exit.oom,
                    ran_for_ms: u64::try_from(exit.after.as_millis()).ok(),
                }
            }
            Scene::Ends(container) => {
                self.alive[container].take()?;
                TaskEvent::ContainerExited {
                    name: self.name(container),
                    exit_code: 143,
                    oom: false,
                    ran_for_ms: None,
                }
            }
            Scene::Gone => TaskEvent::Stopped,
            Scene::Target(since) => {
                if let (_, Some(next)) = look(self.target(), since, time, pace) {
                    self.add(next, Scene::Target(since));
                }
                return Some(Cue::Look {
                    task_id: self.task_id.clone(),
                });
            }
        };
        Some(Cue::Report {
            task_id: self.task_id.clone(),
            event,
        })
    }

    fn start(&mut self, container: usize, time: Time, pace: Pace<'_>) -> TaskEvent {
        self.alive[container] = Some(time);
        self.phases[container] = Phase::STARTED;
        self.busy = false;
        if let Some(limit) = self.scripts[container].start_timeout {
            self.add(time + pace(limit), Scene::Overdue(container));
        }
        let Script {
            name,
            checked,
            ports,
            exit,
            health,
            ..
        } = self.scripts[container].clone();
        if checked {
            self.add(time + pace(health.after), Scene::Check(container));
        }
        if let Some(exit) = exit {
            self.add(time + pace(exit.after), Scene::Exits(container));
        }
        TaskEvent::ContainerStarted {
            container_id: format!("simulated-{}-{name}", self.task_id),
            name,
            bindings: ports,
            image_digest: None,
        }
    }
}

/// The verdict at `time` of checks that began at `since`, and when it changes next.
fn look(verdict: Verdict, since: Time, time: Time, pace: Pace<'_>) -> (Option<bool>, Option<Time>) {
    let paced = Verdict {
        after: pace(verdict.after),
        flaps: verdict.flaps.map(pace),
        ..verdict
    };
    let elapsed = time.since(since);
    (
        paced.at(elapsed),
        paced.next(elapsed).map(|next| since + next),
    )
}

impl Stage {
    /// When something happens next.
    pub(super) fn due(&self) -> Option<Time> {
        self.agenda.first()
    }

    /// A task begins to play; nothing happens when it plays already.
    pub(super) fn enter(&mut self, now: Time, task_id: &str, scripts: Vec<Script>, pace: Pace<'_>) {
        if self.numbers.contains_key(task_id) {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(task_id.to_owned(), number);
        let mut actor = Actor {
            task_id: task_id.to_owned(),
            alive: vec![None; scripts.len()],
            phases: vec![Phase::Waiting; scripts.len()],
            // Until the images are there.
            busy: true,
            ending: false,
            scripts,
            scenes: VecDeque::new(),
        };
        actor.prepare(now, pace);
        self.actors.insert(number, actor);
        self.plan(number);
    }

    /// A task ends: its containers at their own pace, then the task. False when it does not play.
    pub(super) fn leave(&mut self, now: Time, task_id: &str, pace: Pace<'_>) -> bool {
        let Some(number) = self.numbers.get(task_id).copied() else {
            return false;
        };
        let Some(actor) = self.actors.get_mut(&number) else {
            return false;
        };
        let leaving = actor
            .scenes
            .iter()
            .any(|(_, scene)| matches!(scene, Scene::Gone));
        if !leaving {
            actor.scenes.clear();
            actor.ending = true;
            let mut last = now;
            for container in 0..actor.scripts.len() {
                if actor.alive[container].is_some() {
                    let ends = now + pace(actor.scripts[container].stop);
                    actor.add(ends, Scene::Ends(container));
                    last = last.max(ends);
                }
            }
            actor.add(last, Scene::Gone);
            self.plan(number);
        }
        true
    }

    /// Everything that happened up to `now`, in order.
    pub(super) fn play(&mut self, now: Time, pace: Pace<'_>) -> Vec<Cue> {
        let mut cues = Vec::new();
        while let Some(time) = self.agenda.first().filter(|time| *time <= now) {
            let Some(number) = self.agenda.take(time) else {
                break;
            };
            let Some(actor) = self.actors.get_mut(&number) else {
                continue;
            };
            let Some((time, scene)) = actor.scenes.pop_front() else {
                continue;
            };
            let gone = matches!(scene, Scene::Gone);
            cues.extend(actor.play(time, scene, pace));
            if gone {
                self.numbers.remove(&actor.task_id);
                self.actors.remove(&number);
            } else {
                self.plan(number);
            }
        }
        cues
    }

    fn plan(&mut self, number: u64) {
        let scene = self
            .actors
            .get(&number)
            .and_then(|actor| actor.scenes.front());
        self.agenda.set(&number, scene.map(|(time, _)| *time));
    }

    /// The task becomes a target; nothing happens when it is one.
    pub(super) fn register(&mut self, now: Time, group: &str, task_id: &str, pace: Pace<'_>) {
        let groups = self.targets.entry(task_id.to_owned()).or_default();
        if groups.contains_key(group) {
            return;
        }
        let registration = Registration {
            since: now,
            draining: false,
        };
        groups.insert(group.to_owned(), registration);
        if let Some(number) = self.numbers.get(task_id).copied()
            && let Some(actor) = self.actors.get_mut(&number)
        {
            actor.add(now + pace(actor.target().after), Scene::Target(now));
            self.plan(number);
        }
    }

    /// The target gets no new requests.
    pub(super) fn deregister(&mut self, group: &str, task_id: &str) {
        let groups = self.targets.get_mut(task_id);
        if let Some(target) = groups.and_then(|groups| groups.get_mut(group)) {
            target.draining = true;
        }
    }

    /// The target is none any more.
    pub(super) fn remove(&mut self, group: &str, task_id: &str) {
        if let Some(groups) = self.targets.get_mut(task_id) {
            groups.remove(group);
            if groups.is_empty() {
                self.targets.remove(task_id);
            }
        }
    }

    /// What the load balancer thinks of a target now.
    pub(super) fn health(
        &self,
        now: Time,
        group: &str,
        task_id: &str,
        pace: Pace<'_>,
    ) -> TargetState {
        let target = self.targets.get(task_id).and_then(|one| one.get(group));
        let number = self.numbers.get(task_id);
        let actor = number.and_then(|number| self.actors.get(number));
        let (Some(target), Some(actor)) = (target, actor) else {
            return TargetState::Unused;
        };
        if target.draining {
            return TargetState::Draining;
        }
        match look(actor.target(), target.since, now, pace).0 {
            None => TargetState::Initial,
            Some(true) => TargetState::Healthy,
            Some(false) => TargetState::Unhealthy {
                reason: "Health checks failed with these codes: [500]".to_owned(),
            },
        }
    }
}
