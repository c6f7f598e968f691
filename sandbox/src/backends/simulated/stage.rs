//! Tasks that play their scripts: what happens to which of them, and when.
//!
//! Time comes in with every call and only what it allows comes out, so the same calls always give
//! the same reports in the same order. Must not know: threads, clocks, who listens.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::script::{Script, Verdict};
use crate::agenda::Agenda;
use crate::backends::TaskEvent;
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

    /// Pulls one after the other, then starts one after the other, as the containers are named.
    fn prepare(&mut self, now: Time, pace: Pace<'_>) {
        let mut time = now;
        for container in 0..self.scripts.len() {
            match self.scripts[container].pull {
                Ok(wait) => time = time + pace(wait),
                Err(()) => return self.add(time, Scene::CannotPull(container)),
            }
        }
        self.add(time, Scene::Pulled);
        for container in 0..self.scripts.len() {
            match self.scripts[container].start {
                Ok(wait) => time = time + pace(wait),
                Err(()) => return self.add(time, Scene::CannotStart(container)),
            }
            self.add(time, Scene::Starts(container));
        }
    }

    fn play(&mut self, time: Time, scene: Scene, pace: Pace<'_>) -> Option<Cue> {
        let event = match scene {
            Scene::Pulled => TaskEvent::Pulled,
            Scene::CannotPull(container) => TaskEvent::CannotPull {
                container: self.name(container),
                reason: "simulated: manifest unknown".to_owned(),
            },
            Scene::CannotStart(container) => TaskEvent::CannotStart {
                container: self.name(container),
                reason: "simulated: no such executable".to_owned(),
            },
            Scene::Starts(container) => self.start(container, time, pace),
            Scene::Check(container) => {
                let started = self.alive[container]?;
                let script = &self.scripts[container];
                let verdict = script.health;
                let (healthy, next) = look(verdict, started, time, pace);
                if let Some(next) = next {
                    self.add(next, Scene::Check(container));
                }
                TaskEvent::ContainerHealth {
                    name: self.name(container),
                    healthy: healthy?,
                }
            }
            Scene::Exits(container) => {
                self.alive[container].take()?;
                let script = &self.scripts[container];
                let exit = script.exit?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cue, Script, Stage, Verdict};
    use crate::backends::TaskEvent;
    use crate::backends::simulated::script::Exit;
    use crate::clock::Time;
    use crate::targets::TargetState;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn script(name: &str) -> Script {
        Script {
            name: name.to_owned(),
            checked: true,
            ports: Vec::new(),
            pull: Ok(seconds(2)),
            start: Ok(seconds(1)),
            exit: None,
            health: Verdict::healthy(seconds(5)),
            target: Verdict::healthy(seconds(3)),
            stop: seconds(4),
        }
    }

    /// Plays to the end of `until`, moment by moment; each cue with its second.
    fn play(stage: &mut Stage, until: u64) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        while let Some(time) = stage.due().filter(|time| time.0 <= until as i64 * 1000) {
            for cue in stage.play(time, &|wait| wait) {
                let text = match cue {
                    Cue::Look { task_id } => format!("look {task_id}"),
                    Cue::Report { task_id, event } => match event {
                        TaskEvent::Pulled => format!("{task_id} pulled"),
                        TaskEvent::ContainerStarted { name, .. } => format!("{name} started"),
                        TaskEvent::ContainerExited {
                            name, exit_code, ..
                        } => format!("{name} exited {exit_code}"),
                        TaskEvent::ContainerHealth { name, healthy } => {
                            format!("{name} healthy {healthy}")
                        }
                        TaskEvent::CannotPull { container, .. } => format!("{container} missing"),
                        TaskEvent::CannotStart { container, .. } => format!("{container} broken"),
                        TaskEvent::Stopped => format!("{task_id} stopped"),
                    },
                };
                seen.push((time.0 / 1000, text));
            }
        }
        seen
    }

    fn lines(seen: &[(i64, String)]) -> Vec<(i64, &str)> {
        seen.iter()
            .map(|(second, text)| (*second, text.as_str()))
            .collect()
    }

    #[test]
    fn containers_come_one_after_the_other_and_end_when_they_are_told() {
        let mut stage = Stage::default();
        let exits = Script {
            exit: Some(Exit {
                code: 3,
                oom: false,
                after: seconds(4),
            }),
            ..script("a")
        };
        stage.enter(Time(0), "t", vec![exits, script("b")], &|wait| wait);
        let seen = play(&mut stage, 11);
        let expected = [
            (4, "t pulled"),
            (5, "a started"),
            (6, "b started"),
            // Before its check had a word.
            (9, "a exited 3"),
            (11, "b healthy true"),
        ];
        assert_eq!(lines(&seen), expected);
        assert!(stage.leave(Time(20_000), "t", &|wait| wait));
        assert!(stage.leave(Time(21_000), "t", &|wait| wait));
        let seen = play(&mut stage, 60);
        assert_eq!(lines(&seen), [(24, "b exited 143"), (24, "t stopped")]);
        assert!(!stage.leave(Time(60_000), "t", &|wait| wait));
        assert_eq!(stage.due(), None);
    }

    #[test]
    fn nothing_follows_a_failed_pull_or_start() {
        let mut stage = Stage::default();
        let missing = Script {
            pull: Err(()),
            ..script("b")
        };
        let broken = Script {
            start: Err(()),
            ..script("d")
        };
        stage.enter(Time(0), "1", vec![script("a"), missing], &|wait| wait);
        stage.enter(Time(0), "2", vec![script("c"), broken], &|wait| wait);
        let expected = [
            (2, "b missing"),
            (4, "2 pulled"),
            (5, "c started"),
            (5, "d broken"),
            (10, "c healthy true"),
        ];
        assert_eq!(lines(&play(&mut stage, 60)), expected);
    }

    #[test]
    fn flapping_targets_turn_from_their_registration_on() {
        let mut stage = Stage::default();
        let mut flapping = script("a");
        flapping.checked = false;
        flapping.target.flaps = Some(seconds(10));
        stage.enter(Time(0), "t", vec![flapping], &|wait| wait);
        stage.register(Time(4000), "group", "t", &|wait| wait);
        stage.register(Time(5000), "group", "t", &|wait| wait);
        let seen = play(&mut stage, 30);
        let looks: Vec<i64> = seen[2..].iter().map(|(second, _)| *second).collect();
        assert_eq!(looks, [7, 17, 27]);
        let state = |stage: &Stage, second: i64| {
            stage.health(Time(second * 1000), "group", "t", &|wait| wait)
        };
        assert_eq!(state(&stage, 6), TargetState::Initial);
        assert_eq!(state(&stage, 7), TargetState::Healthy);
        assert!(matches!(state(&stage, 17), TargetState::Unhealthy { .. }));
        stage.deregister("group", "t");
        assert_eq!(state(&stage, 30), TargetState::Draining);
        stage.remove("group", "t");
        assert_eq!(state(&stage, 30), TargetState::Unused);
    }
}
