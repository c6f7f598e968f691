//! Tags of clusters, task definitions, services and tasks, by ARN.

use serde_json::json;

use super::input::{Input, invalid, show_tags};
use crate::app::App;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

/// Refuses an ARN that names nothing.
fn check(state: &State, arn: &str) -> Result<(), AwsError> {
    if state.tags.contains_key(arn) {
        Ok(())
    } else {
        Err(invalid(format!("The resource {arn} does not exist.")))
    }
}

pub(super) async fn tag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    let tags = input.tags("tags")?;
    app.store
        .change(|state| {
            check(state, arn)?;
            state.tags.row(arn).extend(tags);
            Ok(Reply::changed(json!({})))
        })
        .await
}

pub(super) async fn untag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    let keys = input.texts("tagKeys")?;
    app.store
        .change(|state| {
            check(state, arn)?;
            let tags = state.tags.row(arn);
            tags.retain(|key, _| !keys.contains(&key.as_str()));
            Ok(Reply::changed(json!({})))
        })
        .await
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    app.store.read(|state| {
        check(state, arn)?;
        Ok(Reply::read(
            json!({"tags": state.tags.get(arn).map_or_else(|| json!([]), show_tags)}),
        ))
    })
}
