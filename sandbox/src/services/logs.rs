//! CloudWatch Logs: what the tasks with the `awslogs` driver wrote.

use serde_json::Value;

use super::{AwsError, JsonResult};
use crate::app::App;

/// Answers one call of `Logs_20140328`.
pub async fn handle(_app: &App, operation: &str, _input: &Value) -> JsonResult {
    Err(AwsError::unsupported_operation(operation))
}
