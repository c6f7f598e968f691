//! Services that the stories' ECS does not have yet.

use super::{EcsService, Stage};
use roadstead_pipelines::deployment::{DeploymentState, EcsRollout, Rollout};
use roadstead_pipelines::fact::{Change, DeploymentFact};
use roadstead_pipelines::id::DeploymentId;

impl Stage {
    /// There is no such service.
    pub fn is_missing(&mut self, place: &str) {
        self.ecs.remove(&Self::place(place));
    }

    pub(super) fn is_to_be_made(&self, deployment: &DeploymentId) -> bool {
        let place = &self.world.deployments[deployment].place;
        let environment = self.world.environment(place).unwrap();
        let create = environment.target(&place.service).create;
        create.is_some() && !self.ecs.contains_key(place)
    }

    pub(super) fn create_service(&mut self, deployment: &DeploymentId) -> Vec<Change> {
        let found = self.world.deployments[deployment].clone();
        let DeploymentState::RollingOut {
            rollout: Rollout::Creating { task_definition },
            ..
        } = &found.state
        else {
            panic!("create_service of {:?}", found.state)
        };
        let mut new = self.new_ecs(task_definition, "IN_PROGRESS", 0);
        new.healthy = Some(0);
        let rollout = EcsRollout {
            deployment: new.id.clone(),
            previous: None,
        };
        let service = EcsService {
            deployments: vec![new],
            stopped: vec![],
            probe_ok: true,
            desired: 2,
        };
        self.ecs.insert(found.place, service);
        vec![Change::Deployment {
            deployment: deployment.clone(),
            fact: DeploymentFact::ServiceCreated { rollout },
        }]
    }
}
