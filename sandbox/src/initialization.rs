//! What ECS sets up for a task before its containers, where a fault can meet it: the log streams.

use crate::app::App;
use crate::backends::{TaskEvent, TaskLaunch, TaskReport};
use crate::faults::FaultKind;
use crate::state::State;

/// The call that ECS's agent makes for each container with the `awslogs` driver.
const CREATE_LOG_STREAM: &str = "CreateLogStream";

/// How the launch of a task fails before its first container, when a fault says so; uses it up.
pub(crate) fn fails(app: &App, state: &State, launch: &TaskLaunch) -> Option<TaskReport> {
    let mut containers = launch.containers.iter();
    let container = containers.find(|one| one.awslogs.is_some())?;
    let refusal = match app.faults.meet_within(CREATE_LOG_STREAM)? {
        FaultKind::Deny => "AccessDeniedException",
        FaultKind::Throttle => "ThrottlingException",
        FaultKind::FailBefore | FaultKind::FailAfter | FaultKind::DropReply => {
            "ServiceUnavailableException"
        }
        FaultKind::Delay | FaultKind::DelayReply | FaultKind::Stale | FaultKind::PartialFailure => {
            return None;
        }
    };
    let found = state.find_task(&launch.task_id)?;
    let event = if found.task.placed.is_none() {
        TaskEvent::CannotInitialize {
            reason: format!(
                "failed to validate logger args: create stream has been retried 1 times: failed to \
                 create Cloudwatch log stream: {refusal}: exit status 1"
            ),
        }
    } else {
        // Outside of Fargate it is the engine that makes the stream, when the container starts.
        TaskEvent::CannotStart {
            container: container.name.clone(),
            reason: format!(
                "Error response from daemon: failed to initialize logging driver: failed to create \
                 Cloudwatch log stream: {refusal}"
            ),
        }
    };
    Some(TaskReport {
        task_id: launch.task_id.clone(),
        event,
    })
}
