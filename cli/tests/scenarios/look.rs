//! What a client sees of the service.

use crate::table::{Outcome, Scenario};
use serde_json::{Value, json};

/// Seen through one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// The newest service deployment's.
    pub status: String,
    /// The ARN of the definition that the service names.
    pub definition: String,
    pub running: u32,
    /// A line for each stopped task: its stop code and reason, its containers' exits and reasons.
    pub stopped: Vec<String>,
    pub events: Vec<String>,
    /// The failures that trip the breaker; None when the client does not read it.
    pub breaks_at: Option<u32>,
}

/// A client that can make any call.
pub(crate) trait Caller {
    /// Calls ECS; a refusal fails the test.
    async fn call(&mut self, operation: &str, input: Value) -> Value;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

/// The service `web` of the cluster `main`, by four calls.
pub(crate) async fn look(caller: &mut impl Caller) -> Look {
    let at = json!({"cluster": "main", "services": ["web"]});
    let described = caller.call("DescribeServices", at).await;
    let service = &described["services"][0];
    let at = json!({"cluster": "main", "service": "web"});
    let listed = caller.call("ListServiceDeployments", at).await;
    let newest = &listed["serviceDeployments"][0]["serviceDeploymentArn"];
    let arns = json!({"serviceDeploymentArns": [newest]});
    let deployment = caller.call("DescribeServiceDeployments", arns).await;
    let deployment = &deployment["serviceDeployments"][0];
    let stopped = json!({"cluster": "main", "serviceName": "web", "desiredStatus": "STOPPED"});
    let arns = caller.call("ListTasks", stopped).await["taskArns"].take();
    let tasks = if arns.as_array().is_some_and(|arns| !arns.is_empty()) {
        let tasks = json!({"cluster": "main", "tasks": arns});
        caller.call("DescribeTasks", tasks).await["tasks"].take()
    } else {
        json!([])
    };
    let events = service["events"].as_array();
    Look {
        status: text(&deployment["status"]),
        definition: text(&service["taskDefinition"]),
        running: number(&service["runningCount"]),
        stopped: tasks
            .as_array()
            .into_iter()
            .flatten()
            .filter(|task| task["lastStatus"] == "STOPPED")
            .map(last_words)
            .collect(),
        events: events
            .into_iter()
            .flatten()
            .map(|event| text(&event["message"]))
            .collect(),
        breaks_at: Some(number(&deployment["deploymentCircuitBreaker"]["threshold"])),
    }
}

fn last_words(task: &Value) -> String {
    let mut words = vec![text(&task["stopCode"]), text(&task["stoppedReason"])];
    for container in task["containers"].as_array().into_iter().flatten() {
        if let Some(code) = container["exitCode"].as_i64() {
            words.push(format!("exit {code}"));
        }
        words.push(text(&container["reason"]));
    }
    words.retain(|word| !word.is_empty());
    words.join("; ")
}

impl Look {
    /// What of the outcome is not seen yet; empty when all is. `definitions` are the ARNs of the
    /// revisions, oldest first.
    pub(crate) fn lacks(&self, scenario: &Scenario, definitions: &[String]) -> Vec<String> {
        let Outcome {
            status,
            revision,
            running,
            stopped,
            least_stopped,
            event,
            breaks_at,
        } = &scenario.outcome;
        let definition = &definitions[*revision as usize];
        let mut lacking = Vec::new();
        if self.status != *status {
            lacking.push(format!("{status}, but {}", self.status));
        }
        if self.definition != *definition {
            lacking.push(format!("{definition}, but {}", self.definition));
        }
        let enough = match *status {
            "IN_PROGRESS" => self.running >= *running,
            _ => self.running == *running,
        };
        if !enough {
            lacking.push(format!("{running} tasks, but {}", self.running));
        }
        let says = |line: &&String| stopped.iter().all(|part| line.contains(part));
        if !stopped.is_empty() && !self.stopped.iter().any(|line| says(&line)) {
            lacking.push(format!("a task that says {stopped:?}"));
        }
        if self.stopped.len() < *least_stopped {
            lacking.push(format!("{least_stopped} stopped tasks"));
        }
        if !self.events.iter().any(|line| line.contains(event)) {
            lacking.push(format!("an event with {event:?}"));
        }
        if let (Some(wanted), Some(seen)) = (breaks_at, self.breaks_at)
            && *wanted != seen
        {
            lacking.push(format!("a breaker that trips at {wanted}, but {seen}"));
        }
        lacking
    }
}
