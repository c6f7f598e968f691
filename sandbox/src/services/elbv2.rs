//! Elastic Load Balancing v2: target groups, listeners and target health, over the proxy room.

use super::{AwsError, QueryResult};
use crate::app::App;
use crate::wire::query::Params;

/// Answers one call of the API version 2015-12-01.
pub async fn handle(_app: &App, action: &str, _params: &Params) -> QueryResult {
    Err(AwsError::unsupported_operation(action))
}
