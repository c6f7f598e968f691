//! Service deployments and revisions: the history of a service, and how to stop what is in flight.

use serde_json::{Value, json};

use super::input::{Input, invalid};
use super::{arn_parts, cluster_name, identifier, show};
use crate::app::App;
use crate::scheduler::{self, Ids, Moment, Service, StopRequest};
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

/// The service and the last part of an ARN of that kind.
fn locate<'a>(state: &'a State, arn: &'a str, kind: &str) -> Option<(&'a Service, &'a str)> {
    match *arn_parts(arn, kind)? {
        [cluster, name, id] => {
            let service = state.services.get(&State::service_key(cluster, name))?;
            Some((service, id))
        }
        _ => None,
    }
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = input.required("service")?;
    let statuses = input.texts("status")?;
    let period = input.object("createdAt")?;
    let bound = |name: &str| {
        period
            .as_ref()
            .and_then(|period| period.0.get(name))
            .and_then(Value::as_f64)
    };
    let (after, before) = (bound("after"), bound("before"));
    app.store.read(|state| {
        let cluster = cluster_name(state, input)?;
        let name = identifier(wanted, &cluster)?;
        let service = state
            .services
            .get(&State::service_key(&cluster, name))
            .ok_or_else(|| AwsError::client("ServiceNotFoundException", "Service not found."))?;
        let matching: Vec<_> = service
            .service_deployments
            .iter()
            .filter(|record| {
                let created = record.created_at.epoch_seconds();
                (statuses.is_empty() || statuses.contains(&record.status.word()))
                    && after.is_none_or(|after| created >= after)
                    && before.is_none_or(|before| created <= before)
            })
            .collect();
        let ids = matching.iter().map(|record| record.id.clone()).collect();
        let (page, next) = input.page(ids, 20)?;
        let shown: Vec<Value> = matching
            .into_iter()
            .filter(|record| page.contains(&record.id))
            .map(|record| show::service_deployment_brief(app, service, record))
            .collect();
        Ok(Reply::read(
            json!({"serviceDeployments": shown, "nextToken": next}),
        ))
    })
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let arns = input.texts("serviceDeploymentArns")?;
    if arns.is_empty() || arns.len() > 20 {
        return Err(invalid("Name 1 to 20 service deployments."));
    }
    Ok(Reply::read(app.store.read(|state| {
        let (mut shown, mut failures) = (Vec::new(), Vec::new());
        for arn in arns {
            let record = locate(state, arn, "service-deployment").and_then(|(service, id)| {
                let mut records = service.service_deployments.iter();
                Some((service, records.find(|record| record.id == id)?))
            });
            match record {
                Some((service, record)) => {
                    shown.push(show::service_deployment(app, service, record));
                }
                None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
            }
        }
        json!({"serviceDeployments": shown, "failures": failures})
    })))
}

pub(super) fn describe_revisions(app: &App, input: &Input<'_>) -> JsonResult {
    let arns = input.texts("serviceRevisionArns")?;
    if arns.is_empty() || arns.len() > 20 {
        return Err(invalid("Name 1 to 20 service revisions."));
    }
    Ok(Reply::read(app.store.read(|state| {
        let (mut shown, mut failures) = (Vec::new(), Vec::new());
        for arn in arns {
            let revision = locate(state, arn, "service-revision").and_then(|(service, id)| {
                let mut revisions = service.revisions.iter();
                Some((service, revisions.find(|revision| revision.id == id)?))
            });
            match revision {
                Some((service, revision)) => shown.push(show::revision(app, service, revision)),
                None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
            }
        }
        json!({"serviceRevisions": shown, "failures": failures})
    })))
}

/// Refuses: services with lifecycle hooks are refused at their creation, so no service deployment
/// ever waits at one. AWS's model has the errors; their texts are the sandbox's own.
pub(super) fn resume(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("serviceDeploymentArn")?;
    let hook = input.required("hookId")?;
    let action = input.text("action")?.unwrap_or("CONTINUE");
    if !["CONTINUE", "ROLLBACK"].contains(&action) {
        return Err(invalid(format!("Unknown action {action}.")));
    }
    app.store.read(|state| {
        let (service, id) = locate(state, arn, "service-deployment").ok_or_else(missing)?;
        let mut records = service.service_deployments.iter();
        records.find(|record| record.id == id).ok_or_else(missing)?;
        Err(invalid(format!(
            "The service deployment is not paused at the lifecycle hook {hook}: there is nothing to \
             continue or to roll back. StopServiceDeployment ends a service deployment in progress."
        )))
    })
}

fn missing() -> AwsError {
    AwsError::client(
        "ServiceDeploymentNotFoundException",
        "The service deployment could not be found.",
    )
}

pub(super) async fn stop(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("serviceDeploymentArn")?;
    let request = match input.text("stopType")?.unwrap_or("ROLLBACK") {
        "ROLLBACK" => StopRequest::Rollback,
        "ABORT" => StopRequest::Abort,
        other => return Err(invalid(format!("Unknown stop type {other}."))),
    };
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let (key, id) = locate(state, arn, "service-deployment")
                .filter(|(service, id)| {
                    service
                        .service_deployments
                        .iter()
                        .any(|record| record.id == *id)
                })
                .map(|(service, id)| {
                    (
                        State::service_key(&service.cluster, &service.name),
                        id.to_owned(),
                    )
                })
                .ok_or_else(missing)?;
            let service = state.services.get_mut(&key).ok_or_else(missing)?;
            let mut random = || app.clock.draw();
            let moment = Moment {
                now,
                timings: app.timings(),
                ids: Ids(&mut random),
            };
            scheduler::request_stop(service, &id, request, &moment)
                .map_err(|reason| AwsError::client("ConflictException", reason))?;
            Ok(Reply::changed(json!({"serviceDeploymentArn": arn})))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}
