//! Security Token Service: who the caller is.

use serde_json::json;

use super::{AwsError, QueryResult, Reply};
use crate::app::App;
use crate::wire::query::{Params, reply_body};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Answers one call of the API version 2011-06-15. Every caller is the account's root, because the
/// sandbox checks no signatures.
pub(crate) async fn handle(app: &App, action: &str, _params: &Params) -> QueryResult {
    if action != "GetCallerIdentity" {
        return Err(AwsError::unsupported_operation(action));
    }
    let account = &app.config.account;
    Ok(Reply::read(reply_body(
        action,
        NAMESPACE,
        &json!({
            "Arn": format!("arn:aws:iam::{account}:root"),
            "UserId": account,
            "Account": account,
        }),
    )))
}
