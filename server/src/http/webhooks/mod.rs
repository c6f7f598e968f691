//! Webhooks: `POST /webhooks/{forge}/{project}`.
//!
//! The signature is checked over the raw body; then one row per delivery and, when it asks for a
//! run, the run are committed together, and only then is it answered with 2xx. Everything else
//! happens later. A delivery that asks for nothing is stored with the reason.

mod payload;

pub use payload::BadPayload;
use payload::{Forge, Push, Wish};

use super::App;
use super::error::HttpError;
use crate::store::{Accepted, Decision, NewDelivery};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::id::ProjectName;
use serde_json::json;

/// Largest body that is read, in bytes.
pub const LARGEST_BODY: usize = 5 * 1024 * 1024;

/// The route, with its own body limit.
pub fn configure(config: &mut web::ServiceConfig) {
    let resource = web::resource("/webhooks/{forge}/{project}")
        .app_data(web::PayloadConfig::new(LARGEST_BODY))
        .route(web::post().to(receive));
    config.service(resource);
}

async fn receive(
    app: web::Data<App>,
    path: web::Path<(String, String)>,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<HttpResponse, HttpError> {
    let (forge, project) = path.into_inner();
    let Some(forge) = Forge::parse(&forge) else {
        return Err(HttpError::not_found(format!(
            "no webhooks of `{forge}`: github or git"
        )));
    };
    let unknown = || HttpError::not_found(format!("no project `{project}` on this server"));
    let name = ProjectName::parse(&project).map_err(|_| unknown())?;
    let secret = app.webhook_secret(&name).ok_or_else(unknown)?;
    let body = body.map_err(|error| too_large(&error))?;

    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let signature = header("x-hub-signature-256").unwrap_or_default();
    if !payload::signature_holds(&secret, &body, signature) {
        let message = if signature.is_empty() {
            "the header X-Hub-Signature-256 is missing: set the webhook's secret"
        } else {
            "the signature does not fit this project's secret"
        };
        return Err(HttpError::new(StatusCode::UNAUTHORIZED, message));
    }
    let (event, delivery_id) = match forge {
        Forge::Github => {
            let need = |name: &str| {
                header(name)
                    .ok_or_else(|| HttpError::bad_request(format!("the header {name} is missing")))
            };
            (
                need("x-github-event")?,
                need("x-github-delivery")?.to_owned(),
            )
        }
        Forge::Git => {
            let id = header("x-roadstead-delivery").map(str::to_owned);
            ("push", id.unwrap_or_else(|| payload::id_of_body(&body)))
        }
    };
    if delivery_id.len() > 200 || event.len() > 100 {
        return Err(HttpError::bad_request(
            "the delivery's id or event is too long",
        ));
    }
    let wish = payload::read(event, &body).map_err(|bad| HttpError::bad_request(bad.0))?;
    let (decision, reason) = match wish {
        Wish::Run(Push { git_ref, commit }) => (Decision::Build { git_ref, commit }, String::new()),
        Wish::Nothing(reason) => (
            Decision::Ignore {
                reason: reason.clone(),
            },
            reason,
        ),
    };
    let delivery = NewDelivery {
        project: name,
        forge: forge.word().to_owned(),
        delivery_id,
        event: event.to_owned(),
        body: text_of(&body),
        decision,
        redelivery: None,
        received_at: crate::clock::now(),
    };
    match app.store.accept_delivery(delivery).await? {
        Accepted::Run(run) => {
            app.bell.ring();
            Ok(HttpResponse::Accepted()
                .insert_header(("location", format!("/runs/{run}")))
                .json(json!({"decision": "run", "run": run})))
        }
        Accepted::Duplicate { run } => {
            Ok(HttpResponse::Ok().json(json!({"decision": "duplicate", "run": run})))
        }
        Accepted::Ignored => {
            Ok(HttpResponse::Ok().json(json!({"decision": "ignored", "reason": reason})))
        }
    }
}

/// The body as a row can hold it: PostgreSQL takes no NUL in a text.
fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', "\u{fffd}")
}

/// What a stored delivery asks for now: for sending it again.
///
/// # Errors
/// [`BadPayload`] when this version reads it otherwise than the one that stored it.
pub fn decide_again(event: &str, body: &str) -> Result<Decision, BadPayload> {
    Ok(match payload::read(event, body.as_bytes())? {
        Wish::Run(Push { git_ref, commit }) => Decision::Build { git_ref, commit },
        Wish::Nothing(reason) => Decision::Ignore { reason },
    })
}

fn too_large(error: &actix_web::Error) -> HttpError {
    let status = error.as_response_error().status_code();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        HttpError::new(
            status,
            format!("the body is larger than {LARGEST_BODY} bytes"),
        )
    } else {
        HttpError::bad_request(format!("the body could not be read: {error}"))
    }
}
