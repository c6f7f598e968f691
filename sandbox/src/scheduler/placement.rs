//! Where tasks of the EC2 launch type go: a cluster's container instances and what is free on them.
//!
//! Invariants: tasks never take more of an instance than it has; only ACTIVE instances take new
//! ones. Among instances with room the zone with the fewest tasks of the same group wins, then the
//! one with the most free memory; AWS documents the first and leaves the second open.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::model::words;
use super::task::{Task, TaskStatus};
use crate::clock::Time;

/// What a task takes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Need {
    /// CPU units, 1024 per vCPU.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
}

/// The instance that a task is on, and what it takes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// The container instance's id; it may be gone by now.
    pub instance: String,
    /// The letter of its availability zone.
    pub zone: char,
    pub need: Need,
}

words!(
    /// Whether an instance takes tasks.
    InstanceStatus { Active => "ACTIVE", Draining => "DRAINING" }
);

/// A machine that a cluster pretends to have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Instance {
    /// 32 hex digits.
    pub id: String,
    /// EC2's id: `i-` and 17 hex digits.
    pub ec2_id: String,
    /// The letter of its availability zone.
    pub zone: char,
    pub size: Need,
    pub status: InstanceStatus,
    pub registered_at: Time,
    /// Grows with every change, as AWS's does.
    pub version: u32,
}

/// What an instance has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    Cpu,
    Memory,
}

impl Lack {
    /// The reason in RunTask's `failures`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Cpu => "has insufficient CPU units available",
            Self::Memory => "has insufficient memory available",
        }
    }
}

/// Why no instance took a task: each ACTIVE instance and what it lacks, the closest match first.
/// Empty when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub Vec<(String, Lack)>);

impl Refusal {
    /// The line for a service's diary.
    pub(super) fn event(&self) -> String {
        let why = match self.0.first() {
            None => "Reason: No Container Instances were found in your cluster.".to_owned(),
            Some((instance, lack)) => format!(
                "The closest matching (container-instance {instance}) {}.",
                lack.sentence()
            ),
        };
        format!(
            "was unable to place a task because no container instance met all of its \
             requirements. {why} For more information, see the Troubleshooting section of the \
             Amazon ECS Developer Guide."
        )
    }
}

struct Place {
    id: String,
    zone: char,
    active: bool,
    free: Need,
}

/// Where the tasks of a service find room.
pub(crate) trait Room {
    /// Whether the task's instance takes no tasks any more, so that services move theirs away.
    fn displaces(&self, task: &Task) -> bool;

    /// Finds room for one more task of a group and takes it. `group` is every task of it so far.
    fn place(&mut self, need: Need, group: &[Task]) -> Result<Placed, Refusal>;
}

/// The instances of one cluster and what is free on them, while tasks are placed.
#[derive(Default)]
pub(crate) struct Fleet {
    places: Vec<Place>,
}

impl Room for Fleet {
    fn displaces(&self, task: &Task) -> bool {
        task.placed.as_ref().is_some_and(|placed| {
            self.places
                .iter()
                .any(|place| place.id == placed.instance && !place.active)
        })
    }

    fn place(&mut self, need: Need, group: &[Task]) -> Result<Placed, Refusal> {
        self.place_beside(need, group)
    }
}

impl Fleet {
    /// The instances without any task.
    pub(crate) fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let places = instances
            .into_iter()
            .map(|instance| Place {
                id: instance.id.clone(),
                zone: instance.zone,
                active: instance.status == InstanceStatus::Active,
                free: instance.size,
            })
            .collect();
        Self { places }
    }

    /// Takes from its instance what a task that has not stopped takes.
    pub(crate) fn occupy(&mut self, task: &Task) {
        if task.status == TaskStatus::Stopped {
            return;
        }
        if let Some(placed) = &task.placed
            && let Some(place) = self.places.iter_mut().find(|one| one.id == placed.instance)
        {
            place.take(placed.need);
        }
    }

    /// What is free on an instance.
    pub(crate) fn free(&self, instance: &str) -> Need {
        self.places
            .iter()
            .find(|place| place.id == instance)
            .map_or_else(Need::default, |place| place.free)
    }

    /// [`Room::place`], whatever holds the group's tasks.
    pub(crate) fn place_beside<'a>(
        &mut self,
        need: Need,
        group: impl IntoIterator<Item = &'a Task>,
    ) -> Result<Placed, Refusal> {
        let in_zone = self.crowds(group);
        let best = self
            .places
            .iter_mut()
            .filter(|place| place.lack(need).is_none())
            .min_by_key(|place| {
                let crowd = in_zone.get(&place.zone).copied().unwrap_or_default();
                (crowd, std::cmp::Reverse(place.free.memory))
            });
        let Some(place) = best else {
            return Err(self.refusal(need));
        };
        place.take(need);
        Ok(Placed {
            instance: place.id.clone(),
            zone: place.zone,
            need,
        })
    }

    /// How many of these tasks, without the stopped ones, each zone has.
    fn crowds<'a>(&self, group: impl IntoIterator<Item = &'a Task>) -> HashMap<char, u32> {
        let mut in_zone = HashMap::new();
        for task in group {
            if task.status != TaskStatus::Stopped
                && let Some(placed) = &task.placed
                && self.places.iter().any(|one| one.id == placed.instance)
            {
                *in_zone.entry(placed.zone).or_default() += 1;
            }
        }
        in_zone
    }

    fn refusal(&self, need: Need) -> Refusal {
        let mut lacking: Vec<(&Place, Lack)> = self
            .places
            .iter()
            .filter(|place| place.active)
            .filter_map(|place| Some((place, place.lack(need)?)))
            .collect();
        lacking.sort_by_key(|(place, _)| std::cmp::Reverse((place.free.memory, place.free.cpu)));
        Refusal(
            lacking
                .into_iter()
                .map(|(place, lack)| (place.id.clone(), lack))
                .collect(),
        )
    }
}

impl Place {
    /// What is missing here for a task; None when it fits. An instance that is not ACTIVE counts
    /// as full.
    fn lack(&self, need: Need) -> Option<Lack> {
        if !self.active || need.memory > self.free.memory {
            Some(Lack::Memory)
        } else if need.cpu > self.free.cpu {
            Some(Lack::Cpu)
        } else {
            None
        }
    }

    fn take(&mut self, need: Need) {
        self.free.cpu = self.free.cpu.saturating_sub(need.cpu);
        self.free.memory = self.free.memory.saturating_sub(need.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fleet, Instance, InstanceStatus, Lack, Need, Refusal, Room, Task};
    use crate::clock::Time;
    use crate::scheduler::Revision;
    use serde_json::Map;
    use std::collections::BTreeMap;

    const fn need(cpu: u32, memory: u32) -> Need {
        Need { cpu, memory }
    }

    fn instance(id: &str, zone: char, size: Need) -> Instance {
        Instance {
            id: id.to_owned(),
            ec2_id: format!("i-{id}"),
            zone,
            size,
            status: InstanceStatus::Active,
            registered_at: Time(0),
            version: 1,
        }
    }

    /// One more task of a group, where the fleet has room for it.
    fn add(fleet: &mut Fleet, group: &mut Vec<Task>, need: Need) -> String {
        let placed = fleet.place(need, group).unwrap();
        let revision = Revision {
            id: String::new(),
            created_at: Time(0),
            definition_arn: String::new(),
            containers: Vec::new(),
            digests: BTreeMap::new(),
            targets: Vec::new(),
            need: Some(need),
            settings: Map::new(),
        };
        let mut task = Task::new(group.len().to_string(), &revision, String::new(), Time(0));
        let instance = placed.instance.clone();
        task.placed = Some(placed);
        group.push(task);
        instance
    }

    #[test]
    fn tasks_of_a_group_spread_over_zones_before_they_fill_one() {
        let big = instance("big", 'a', need(4096, 8192));
        let small = instance("small", 'b', need(1024, 1024));
        let mut fleet = Fleet::of([&big, &small]);
        let mut web = Vec::new();
        let placed: Vec<String> = (0..5)
            .map(|_| add(&mut fleet, &mut web, need(256, 512)))
            .collect();
        assert_eq!(placed, ["big", "small", "big", "small", "big"]);
        assert_eq!(fleet.free("small"), need(512, 0));
        // Another group starts again where most is free.
        let other = fleet.place(need(1, 1), &[]).unwrap();
        assert_eq!(other.instance, "big");
    }

    #[test]
    fn what_is_missing_is_told_of_the_closest_instance() {
        let starved = instance("starved", 'a', need(64, 4096));
        let small = instance("small", 'b', need(4096, 128));
        let mut fleet = Fleet::of([&small, &starved]);
        let refusal = fleet.place(need(128, 512), &[]).unwrap_err();
        assert_eq!(
            refusal,
            Refusal(vec![
                ("starved".to_owned(), Lack::Cpu),
                ("small".to_owned(), Lack::Memory),
            ])
        );
        assert!(
            refusal.event().contains(
                "The closest matching (container-instance starved) has insufficient CPU units \
                 available. For more information"
            ),
            "{}",
            refusal.event()
        );
        let nothing = Fleet::default().place(need(1, 1), &[]).unwrap_err();
        assert!(
            nothing
                .event()
                .contains("No Container Instances were found")
        );
    }

    #[test]
    fn a_draining_instance_takes_nothing() {
        let mut only = instance("only", 'a', need(4096, 8192));
        only.status = InstanceStatus::Draining;
        let refusal = Fleet::of([&only]).place(need(1, 1), &[]).unwrap_err();
        assert_eq!(refusal, Refusal(Vec::new()));
    }
}
