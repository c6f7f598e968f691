//! Amazon ECR: repositories and images, over the registry room.

use serde_json::Value;

use super::{AwsError, JsonResult};
use crate::app::App;

/// Answers one call of `AmazonEC2ContainerRegistry_V20150921`.
pub async fn handle(_app: &App, operation: &str, _input: &Value) -> JsonResult {
    Err(AwsError::unsupported_operation(operation))
}
