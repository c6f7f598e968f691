//! Elastic Load Balancing v2: target groups, listeners and target health, over the proxy room.
//!
//! A listener is a port of 127.0.0.1 that speaks HTTP, with a forward action. Port 0, which AWS
//! does not allow, takes a free port.

mod load_balancers;
mod target_groups;

use load_balancers::{
    create_listener, create_load_balancer, delete_listener, delete_load_balancer,
    describe_listeners, describe_load_balancers, modify_listener,
};
use target_groups::{
    create_target_group, delete_target_group, describe_attributes, describe_target_groups,
    describe_target_health, modify_attributes, modify_target_group,
};

use serde_json::{Value, json};

use super::{AwsError, QueryResult, Reply, paging};
use crate::app::App;
use crate::proxy::PortError;
use crate::wire::query::{Params, reply_body};

const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// Answers one call of the API version 2015-12-01.
pub(crate) async fn handle(app: &App, action: &str, params: &Params) -> QueryResult {
    let (changed, result) = match action {
        "CreateTargetGroup" => (true, create_target_group(app, params).await?),
        "ModifyTargetGroup" => (true, modify_target_group(app, params).await?),
        "DescribeTargetGroups" => (false, describe_target_groups(app, params)?),
        "DeleteTargetGroup" => (true, delete_target_group(app, params).await?),
        "DescribeTargetGroupAttributes" => (false, describe_attributes(app, params)?),
        "ModifyTargetGroupAttributes" => (true, modify_attributes(app, params).await?),
        "DescribeTargetHealth" => (false, describe_target_health(app, params)?),
        "CreateLoadBalancer" => (true, create_load_balancer(app, params).await?),
        "DescribeLoadBalancers" => (false, describe_load_balancers(app, params)?),
        "DeleteLoadBalancer" => (true, delete_load_balancer(app, params).await?),
        "CreateListener" => (true, create_listener(app, params).await?),
        "ModifyListener" => (true, modify_listener(app, params).await?),
        "DescribeListeners" => (false, describe_listeners(app, params)?),
        "DeleteListener" => (true, delete_listener(app, params).await?),
        _ => return Err(AwsError::unsupported_operation(action)),
    };
    let body = reply_body(action, NAMESPACE, &result, &app.clock.request_id());
    Ok(Reply { body, changed })
}

impl From<PortError> for AwsError {
    fn from(error: PortError) -> Self {
        Self::client("DuplicateListener", error.to_string())
    }
}

fn validation(message: impl Into<String>) -> AwsError {
    AwsError::client("ValidationError", message)
}

/// The largest page, and the one without `PageSize`.
const MOST_ON_PAGE: u32 = 400;

/// One page of a list.
fn page(params: &Params, member: &str, items: Vec<Value>) -> Result<Value, AwsError> {
    let size = params.number("PageSize", 1, MOST_ON_PAGE)?;
    let size = size.unwrap_or(MOST_ON_PAGE) as usize;
    let marker = params.get("Marker");
    let (page, next) = paging::page(items, marker, size).ok_or_else(|| {
        let marker = marker.unwrap_or_default();
        validation(format!("The marker '{marker}' is not valid"))
    })?;
    Ok(json!({ member: page, "NextMarker": next }))
}

fn new_id(app: &App) -> String {
    format!("{:016x}", app.clock.draw() >> 64)
}

/// Names of load balancers and target groups: up to 32 letters, digits and inner hyphens.
fn checked_name(params: &Params) -> Result<String, AwsError> {
    let name = params.required("Name")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty()
        || name.len() > 32
        || !name.chars().all(allowed)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        return Err(validation(format!(
            "The name '{name}' must have 1 to 32 letters, digits or hyphens, and no hyphen at its ends"
        )));
    }
    Ok(name.to_owned())
}
