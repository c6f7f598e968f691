//! The container instances that clusters pretend to have, and who is on them.

use super::{StandaloneTask, State, Subject, Table};
use crate::clock::Time;
use crate::scheduler::{Fleet, Ids, Instance, InstanceStatus, Need, Service};

/// Two zones with two instances each, as large as EC2 has them, so that nothing is refused for
/// want of room unless somebody asks for smaller ones.
pub(crate) fn usual(now: Time, ids: &mut Ids<'_>) -> Vec<Instance> {
    const SIZE: Need = Need {
        cpu: 192 * 1024,
        memory: 768 * 1024,
    };
    ['a', 'a', 'b', 'b']
        .into_iter()
        .map(|zone| new(zone, SIZE, now, ids))
        .collect()
}

/// A cluster of a state file that is older than instances has the usual ones.
pub(super) fn of_old() -> Vec<Instance> {
    usual(Time::default(), &mut Ids(&mut rand::random::<u128>))
}

/// A new container instance.
pub(crate) fn new(zone: char, size: Need, now: Time, ids: &mut Ids<'_>) -> Instance {
    let mut ec2_id = ids.hex();
    ec2_id.truncate(17);
    Instance {
        id: ids.hex(),
        ec2_id: format!("i-{ec2_id}"),
        zone,
        size,
        status: InstanceStatus::Active,
        registered_at: now,
        version: 1,
    }
}

/// Counts what the tasks of a cluster take.
pub(crate) fn occupy(
    fleet: &mut Fleet,
    cluster: &str,
    services: &Table<Service>,
    tasks: &Table<StandaloneTask>,
) {
    // A cluster's name is compared once for a service, not for each of its tasks.
    let services = services.values().filter(|one| one.cluster == cluster);
    let standalone = tasks.values().filter(|one| one.cluster == cluster);
    let of_services = services.flat_map(|service| &service.tasks);
    for task in of_services.chain(standalone.map(|one| &one.task)) {
        fleet.occupy(task);
    }
}

impl State {
    /// The container instances of a cluster.
    pub(crate) fn instances(&self, cluster: &str) -> impl Iterator<Item = &Instance> {
        let known = self.clusters.get(cluster);
        known.into_iter().flat_map(|cluster| &cluster.instances)
    }

    /// What is free on a cluster's container instances.
    pub(crate) fn fleet(&self, cluster: &str) -> Fleet {
        let mut fleet = Fleet::of(self.instances(cluster));
        occupy(&mut fleet, cluster, &self.services, &self.tasks);
        fleet
    }

    /// The ids of the tasks on an instance that have not stopped.
    fn tasks_on(&self, instance: &str) -> Vec<String> {
        self.all_tasks()
            .filter(|found| found.task.stopped_at.is_none())
            .filter(|found| {
                let placed = found.task.placed.as_ref();
                placed.is_some_and(|placed| placed.instance == instance)
            })
            .map(|found| found.task.id.clone())
            .collect()
    }

    /// Lets an instance take tasks, or none any more. What is on it is looked at again.
    pub(crate) fn set_instance(&mut self, cluster: &str, id: &str, status: InstanceStatus) -> bool {
        let found = self.clusters.get_mut(cluster).and_then(|cluster| {
            let mut instances = cluster.instances.iter_mut();
            instances.find(|one| one.id == id && one.status != status)
        });
        let Some(instance) = found else {
            return false;
        };
        instance.status = status;
        instance.version += 1;
        for task in self.tasks_on(id) {
            if let Some(Subject::Service(key)) = self.subject_of(&task) {
                // Handing it out is enough: whatever is handed out counts as changed.
                self.services.get_mut(&key);
            }
        }
        true
    }

    /// Takes a container instance away, by its id or EC2's, with everything on it. False when
    /// there is no such instance.
    pub(crate) fn lose_instance(&mut self, id: &str, now: Time) -> bool {
        let is_it = |one: &Instance| one.id == id || one.ec2_id == id;
        let home = self
            .clusters
            .iter()
            .find(|(_, cluster)| cluster.instances.iter().any(is_it));
        let Some(cluster) = home.map(|(name, _)| name.clone()) else {
            return false;
        };
        let instances = self
            .clusters
            .get_mut(&cluster)
            .map(|one| &mut one.instances);
        let lost: Vec<Instance> = instances
            .into_iter()
            .flat_map(|instances| instances.extract_if(.., |one| is_it(one)))
            .collect();
        for instance in lost {
            for task in self.tasks_on(&instance.id) {
                if let Some(task) = self.task_mut(&task) {
                    task.lose_host(&instance.ec2_id, now);
                }
            }
        }
        true
    }
}
