//! Security Token Service: who the caller is.

use super::{AwsError, QueryResult};
use crate::app::App;
use crate::wire::query::Params;

/// Answers one call of the API version 2011-06-15.
pub async fn handle(_app: &App, action: &str, _params: &Params) -> QueryResult {
    Err(AwsError::unsupported_operation(action))
}
