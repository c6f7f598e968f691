//! Who drives a scenario: each in its own way, nobody through another's code.

pub(crate) mod adapter;
pub(crate) mod boto3;
pub(crate) mod command_line;
pub(crate) mod ecs_deploy;

use crate::look::{self, Caller, Look};
use serde_json::{Value, json};

/// A client of the sandbox.
pub(crate) trait Client {
    /// Creates the service with these members of CreateService; false when it has no command for that.
    async fn create(&mut self, members: &Value) -> bool;

    /// Has the service run that definition; done when the client thinks so, or at once when the rollout
    /// is `interrupted` before it ends. The definition that it deployed, which may be a revision of its
    /// own with the same members.
    async fn roll_out(&mut self, definition: &str, interrupted: bool) -> String;

    /// Has the service run so many tasks; false when it has no command for that.
    async fn scale(&mut self, desired: u32) -> bool;

    /// Stops the rollout, with a rollback.
    async fn stop(&mut self);

    /// What it sees of the service.
    async fn look(&mut self) -> Look;
}

/// What can make any call creates, updates and stops by the calls of these names.
impl<C: Caller> Client for C {
    async fn create(&mut self, members: &Value) -> bool {
        self.call("CreateService", members.clone()).await;
        true
    }

    async fn roll_out(&mut self, definition: &str, _interrupted: bool) -> String {
        let input = json!({"cluster": "main", "service": "web", "taskDefinition": definition});
        self.call("UpdateService", input).await;
        definition.to_owned()
    }

    async fn scale(&mut self, desired: u32) -> bool {
        let input = json!({"cluster": "main", "service": "web", "desiredCount": desired});
        self.call("UpdateService", input).await;
        true
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
