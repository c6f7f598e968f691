//! Security Token Service: who the caller is, and keys for a role.

use std::time::Duration;

use serde_json::{Value, json};

use super::access::{self, Caller};
use super::{AwsError, QueryResult, Reply};
use crate::app::App;
use crate::scheduler::Ids;
use crate::wire::query::{Params, reply_body};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Answers one call of the API version 2011-06-15.
pub(crate) async fn handle(
    app: &App,
    caller: &Caller,
    action: &str,
    params: &Params,
) -> QueryResult {
    match action {
        "GetCallerIdentity" => Ok(Reply::read(reply(
            app,
            action,
            &json!({
                "Arn": caller.arn(app),
                "UserId": caller.user_id(app),
                "Account": app.config.account,
            }),
        ))),
        "AssumeRole" => {
            let shown = assume_role(app, caller, params).await?;
            Ok(Reply::changed(reply(app, action, &shown)))
        }
        other => Err(AwsError::unsupported_operation(other)),
    }
}

fn reply(app: &App, action: &str, result: &Value) -> String {
    reply_body(action, NAMESPACE, result, &app.clock.request_id())
}

async fn assume_role(app: &App, caller: &Caller, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("RoleArn")?;
    let name = params.required("RoleSessionName")?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    if !(2..=64).contains(&name.len()) || !name.bytes().all(named) {
        return Err(AwsError::client(
            "ValidationError",
            format!(
                "1 validation error detected: Value '{name}' at 'roleSessionName' failed to \
                 satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
            ),
        ));
    }
    let seconds = params
        .number("DurationSeconds", 900, 43_200)?
        .unwrap_or(3600);
    let now = app.clock.now();
    let expires = now + Duration::from_secs(u64::from(seconds));
    let role = arn.rsplit_once('/').map_or("", |(_, role)| role);
    let (key, session) = app
        .store
        .change(|state| {
            if arn != access::role_arn(app, role) || !state.roles.contains_key(role) {
                // AWS does not tell a role that is not there from one that may not be assumed.
                let action = "sts:AssumeRole";
                let why = access::no_allow(action);
                let denial = access::not_allowed(&caller.arn(app), action, arn, &why);
                return Err(denial.into_error(true));
            }
            let mut random = || app.clock.draw();
            let mut ids = Ids(&mut random);
            Ok(access::open_session(
                state, &mut ids, role, name, now, expires,
            ))
        })
        .await?;
    let assumed = Caller::Role {
        role: session.role,
        session: session.name,
    };
    let expiration = jiff::Timestamp::from_millisecond(session.expires.0)
        .map_err(|error| AwsError::server(error.to_string()))?;
    Ok(json!({
        "Credentials": {
            "AccessKeyId": key,
            "SecretAccessKey": session.secret,
            "SessionToken": session.token,
            "Expiration": format!("{expiration:.0}"),
        },
        "AssumedRoleUser": {
            "AssumedRoleId": assumed.user_id(app),
            "Arn": assumed.arn(app),
        },
        "PackedPolicySize": 0,
    }))
}
