//! The last log lines of tasks that stopped, from CloudWatch Logs.

use super::Cluster;
use super::tasks::failed_checks;
use crate::adapters::aws::{AwsError, Clients};
use crate::clock;
use jiff::SignedDuration;
use roadstead_pipelines::observation::StoppedTask;

/// Lines per container.
const LINES: i32 = 10;
/// Characters per line.
const LONGEST_LINE: usize = 500;
/// Logs arrive late: an empty answer is believed after so long.
const LOGS_LAG: SignedDuration = SignedDuration::from_secs(60);

impl Cluster {
    /// The last lines of the containers that failed in `task`, or of all when the task failed its checks;
    /// empty when their definition does not say where they are.
    pub(super) async fn last_words(
        &self,
        clients: &Clients,
        task: &StoppedTask,
        definition_arn: &str,
    ) -> Result<Vec<String>, AwsError> {
        if let Some(known) = self.last_words.get(&task.task) {
            return Ok(known);
        }
        let definition = self.definition(clients, definition_arn).await?;
        let task_id = task.task.rsplit('/').next().unwrap_or_default();
        let mut lines = vec![];
        for container in &definition.containers {
            let failed = task
                .exit_codes
                .get(&container.name)
                .is_some_and(|code| *code != 0);
            let heard = failed || failed_checks(task);
            let Some(log) = container.log.as_ref().filter(|_| heard) else {
                continue;
            };
            let stream = format!("{}/{}/{task_id}", log.prefix, container.name);
            let region = log.region.as_deref().unwrap_or(&clients.region);
            lines.extend(self.last_lines(region, &log.group, &stream).await?);
        }
        let is_old = task
            .stopped_at
            .is_some_and(|at| clock::now().duration_since(at) > LOGS_LAG);
        if !lines.is_empty() || is_old {
            self.last_words.keep(&task.task, lines.clone());
        }
        Ok(lines)
    }

    async fn last_lines(
        &self,
        region: &str,
        group: &str,
        stream: &str,
    ) -> Result<Vec<String>, AwsError> {
        let clients = self.aws.clients(Some(region)).await;
        let request = clients
            .logs
            .get_log_events()
            .log_group_name(group)
            .log_stream_name(stream);
        let answer = request.limit(LINES).start_from_head(false).send().await;
        match answer.map_err(|error| AwsError::of("logs:GetLogEvents", &error)) {
            Ok(answer) => {
                let text = |event: &aws_sdk_cloudwatchlogs::types::OutputLogEvent| {
                    let line = event.message().unwrap_or_default().trim_end();
                    line.chars().take(LONGEST_LINE).collect::<String>()
                };
                Ok(answer.events().iter().map(text).collect())
            }
            // A container that never wrote has no stream.
            Err(error) if error.has_code("ResourceNotFoundException") => Ok(vec![]),
            Err(error) if error.is_transient() => Err(error),
            // Evidence that cannot be had must not hide the rest of the picture.
            Err(error) => Ok(vec![format!(
                "(log {group} {stream} cannot be read: {error})"
            )]),
        }
    }
}
