//! What becomes of rollouts at the ECS of the stories.

use super::Stage;
use roadstead_pipelines::id::Place;
use roadstead_pipelines::observation::{EcsDeployment, StoppedTask};
use std::collections::BTreeMap;

impl Stage {
    /// ECS finishes what it rolls out.
    pub fn ecs_completes(&mut self, place: &str) {
        let place = Self::place(place);
        self.say(&format!("ECS completes the rollout in {place}"));
        let service = self.ecs.get_mut(&place).unwrap();
        service.deployments.truncate(1);
        let primary = &mut service.deployments[0];
        primary.rollout_state = Some("COMPLETED".into());
        primary.running = 2;
        primary.healthy = Some(2);
    }

    pub(super) fn take_back(&mut self, place: &Place) {
        let service = self.ecs.get_mut(place).unwrap();
        // What is complete is not under way: there is nothing to take back.
        let under_way = service.deployments[0].rollout_state.as_deref() != Some("COMPLETED");
        if under_way && service.deployments.len() > 1 {
            let mut back = service.deployments.remove(1);
            back.status = "PRIMARY".into();
            back.rollout_state = Some("COMPLETED".into());
            service.deployments = vec![back];
        } else if under_way {
            // A first rollout, with nothing to go back to.
            service.deployments[0].rollout_state = Some("FAILED".into());
            service.deployments[0].rollout_reason = "Service deployment stopped by user.".into();
        }
    }

    /// ECS's circuit breaker takes a rollout back.
    pub fn ecs_breaker(&mut self, place: &str) {
        let place = Self::place(place);
        self.say(&format!(
            "the circuit breaker of ECS takes the rollout back in {place}"
        ));
        self.take_back(&place);
    }

    /// The same, but to another definition than the one that ran before: under a new id, and saying so.
    pub fn ecs_breaker_to(&mut self, place: &str, definition: &str) {
        self.say(&format!(
            "the circuit breaker of ECS takes {place} back to {definition}"
        ));
        let mut back = self.new_ecs(definition, "COMPLETED", 2);
        back.rollout_reason = "ECS deployment circuit breaker: rolling back".into();
        let service = self.ecs.get_mut(&Self::place(place)).unwrap();
        let mut failed = service.deployments.remove(0);
        failed.status = "INACTIVE".into();
        failed.rollout_state = Some("FAILED".into());
        failed.rollout_reason = "ECS deployment circuit breaker: tasks failed to start.".into();
        service.deployments = vec![back, failed];
    }

    /// Tasks of the rollout that failed, else of the newest one, stop with an exit status.
    pub fn tasks_crash(&mut self, place: &str, count: usize) {
        let place = Self::place(place);
        self.say(&format!("{count} tasks crash in {place}"));
        let service = self.ecs.get_mut(&place).unwrap();
        let failed = |d: &&EcsDeployment| d.rollout_state.as_deref() == Some("FAILED");
        let rollout = service.deployments.iter().find(failed);
        let started_by = rollout.unwrap_or(&service.deployments[0]).id.clone();
        for n in 0..count {
            service.stopped.push(StoppedTask {
                task: format!("arn/task/{n}"),
                started_by: started_by.clone(),
                stop_code: "EssentialContainerExited".into(),
                reason: "Essential container in task exited".into(),
                exit_codes: BTreeMap::from([("app".to_owned(), 1)]),
                container_reason: String::new(),
                last_lines: vec!["cannot connect to the database".into()],
                stopped_at: Some(self.now),
            });
        }
    }

    pub fn probes(&mut self, place: &str, ok: bool) {
        let place = Self::place(place);
        self.say(&format!(
            "probes of {place} are {}",
            if ok { "answered" } else { "answered 500" }
        ));
        self.ecs.get_mut(&place).unwrap().probe_ok = ok;
    }
}
