//! The sandbox's own addresses that change what exists: `/_sandbox/instances`,
//! `/_sandbox/interruptions`, `/_sandbox/roles`, `/_sandbox/scans`.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, own_json, plain};
use crate::app::App;
use crate::services::access::{self, Role};
use crate::services::ecr::scans;
use crate::services::ecs::instances::{self, Wanted};
use crate::services::ecs::tasks;
use crate::services::{AwsError, JsonResult};

/// Instances for a cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instances {
    cluster: String,
    instances: Vec<Wanted>,
}

/// A task that loses its Spot capacity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interruption {
    task: String,
}

/// Answers a request below `/_sandbox` that is one of these; None when it is not.
pub(super) async fn handle(app: &App, method: &Method, path: &str, body: &Bytes) -> Option<Answer> {
    let path = path.strip_prefix("/_sandbox/")?;
    match (method, path) {
        (&Method::GET, "instances") => {
            let shown = app.store.read(|state| instances::overview(app, state));
            Some(own_json(StatusCode::OK, &shown))
        }
        (&Method::POST | &Method::PUT, "instances") => {
            let result = match read::<Instances>(body) {
                Ok(wanted) => {
                    let instead = method == Method::PUT;
                    instances::provide(app, &wanted.cluster, &wanted.instances, instead).await
                }
                Err(refusal) => Err(refusal),
            };
            Some(answer(StatusCode::CREATED, result))
        }
        (&Method::POST, "interruptions") => {
            let result = match read::<Interruption>(body) {
                Ok(wanted) => tasks::interrupt(app, &wanted.task).await,
                Err(refusal) => Err(refusal),
            };
            Some(answer(StatusCode::CREATED, result))
        }
        (&Method::GET, "scans") => {
            let told = app.registry.as_deref().map(scans::overview);
            Some(own_json(StatusCode::OK, &told.unwrap_or_default()))
        }
        (&Method::POST, "scans") => {
            let result = match read::<scans::Told>(body) {
                Ok(told) => scans::tell(app, told).await,
                Err(refusal) => Err(refusal),
            };
            Some(answer(StatusCode::CREATED, result))
        }
        (&Method::GET, "roles") => {
            let shown = app.store.read(|state| access::overview(app, state));
            Some(own_json(StatusCode::OK, &shown))
        }
        (&Method::POST, "roles") => {
            let result = match read::<Role>(body) {
                Ok(role) => access::define(app, role).await,
                Err(refusal) => Err(refusal),
            };
            Some(answer(StatusCode::CREATED, result))
        }
        (&Method::DELETE, _) => {
            let result = if let Some(id) = path.strip_prefix("instances/") {
                instances::lose(app, id).await
            } else {
                access::remove(app, path.strip_prefix("roles/")?).await
            };
            Some(answer(StatusCode::OK, result))
        }
        _ => None,
    }
}

/// The body as a `T`, or what is wrong with it.
fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, AwsError> {
    serde_json::from_slice(body).map_err(|error| {
        AwsError::client(
            "ValidationError",
            format!("The body cannot be read: {error}. See docs/sandbox.md for the members."),
        )
    })
}

fn answer(status: StatusCode, result: JsonResult) -> Answer {
    let result: Result<Value, _> = result.map(|reply| reply.body);
    match result {
        Ok(body) => own_json(status, &body),
        Err(error) => plain(
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST),
            &format!("{}\n", error.message),
        ),
    }
}
