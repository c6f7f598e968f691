//! Who drives a scenario: each in its own way, nobody through another's code.

pub(crate) mod adapter;
pub(crate) mod boto3;
pub(crate) mod command_line;
pub(crate) mod ecs_deploy;

use crate::look::{self, Caller, Look};
use serde_json::json;

/// A client of the sandbox.
pub(crate) trait Client {
    /// Has the service run that definition; done when the client thinks so. The definition that it
    /// deployed, which may be a revision of its own with the same members.
    async fn roll_out(&mut self, definition: &str) -> String;

    /// Stops the rollout, with a rollback.
    async fn stop(&mut self);

    /// What it sees of the service.
    async fn look(&mut self) -> Look;
}

/// What can make any call updates and stops by the calls of these names.
impl<C: Caller> Client for C {
    async fn roll_out(&mut self, definition: &str) -> String {
        let input = json!({"cluster": "main", "service": "web", "taskDefinition": definition});
        self.call("UpdateService", input).await;
        definition.to_owned()
    }

    async fn stop(&mut self) {
        let at = json!({"cluster": "main", "service": "web"});
        let listed = self.call("ListServiceDeployments", at).await;
        let newest = &listed["serviceDeployments"][0]["serviceDeploymentArn"];
        let input = json!({"serviceDeploymentArn": newest, "stopType": "ROLLBACK"});
        self.call("StopServiceDeployment", input).await;
    }

    async fn look(&mut self) -> Look {
        look::look(self).await
    }
}
