//! Artifacts from runners: hostile until checked, and acknowledged once they are safe.
//!
//! A name is a path below the workspace that one of the step's own patterns matches; it never becomes a path here.

use super::super::App;
use super::super::artifacts::not_stored;
use super::super::auth::Then;
use super::super::error::HttpError;
use super::{OwnAttempt, over};
use crate::artifacts::{ArtifactKey, Incoming};
use crate::store::{NewArtifact, Space};
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::StreamExt;
use roadstead_pipelines::id::StepName;
use roadstead_pipelines::spec::StepAction;
use roadstead_protocol as wire;
use std::time::Duration;

/// How long nothing may come of an artifact before its runner is taken for gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// Keeps one file that a step left.
pub(super) async fn take(
    app: web::Data<App>,
    Then(own, (query, mut body)): Then<OwnAttempt, (web::Query<wire::ArtifactSent>, web::Payload)>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let sent = query.into_inner();
    let own = own.live(Some(sent.fence))?;
    if own.attempt.lease_until < crate::clock::now() || own.attempt.accepted_at.is_none() {
        return Err(over());
    }
    let step = checked(&own, &path.1, &sent)?;
    let new = NewArtifact {
        attempt: own.attempt.id.clone(),
        fence: sent.fence,
        step,
        name: sent.name,
        length: sent.length,
        sha256: sent.sha256,
    };
    if let Some(answer) = answer_of(app.store.space_for_artifact(&new).await?) {
        // An answer before the last byte would reach nobody: whoever still writes does not read.
        drain(&mut body, new.length).await?;
        return answer;
    }
    let key = ArtifactKey {
        run: own.run.id.to_string(),
        attempt: own.attempt.number,
        step: new.step.to_string(),
        name: new.name.clone(),
        sha256: new.sha256.clone(),
    };
    let store = app.logs.artifacts();
    let incoming = store.take(key).await.map_err(|error| not_stored(&error))?;
    let incoming = receive(incoming, &mut body, new.length).await?;
    if incoming.length() != new.length || incoming.sha256() != new.sha256 {
        let message = "the bytes are others than was told";
        return Err(HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    incoming.keep().await.map_err(|error| not_stored(&error))?;
    let space = app.store.record_artifact(&new, crate::clock::now()).await?;
    answer_of(space).unwrap_or_else(|| Ok(HttpResponse::NoContent().finish()))
}

/// The step, when it is one of the attempt's job that keeps files of that name.
fn checked(own: &OwnAttempt, step: &str, sent: &wire::ArtifactSent) -> Result<StepName, HttpError> {
    let bad = |message: String| Err(HttpError::bad_request(message));
    let job = own.job();
    let steps = own.run.pipeline.iter().flat_map(|it| &it.steps);
    let mut steps = steps.filter(|(name, _)| job.steps.contains(name));
    let Some((step, spec)) = steps.find(|(name, _)| name.as_str() == step) else {
        let message = format!("job {} has no step `{step}`", own.attempt.job);
        return Err(HttpError::not_found(message));
    };
    let name = &sent.name;
    if let Err(why) = wire::check_artifact_name(name) {
        return bad(format!("`{}` {why}", name.escape_debug()));
    }
    let keeps = match &spec.action {
        StepAction::Run { files, .. } => files.keeps(name),
        StepAction::Build { .. } => false,
    };
    if !keeps {
        return bad(format!("step `{step}` keeps no file `{name}`"));
    }
    if !wire::is_sha256(&sent.sha256) {
        return bad("`sha256` has to be 64 hexadecimal digits".to_owned());
    }
    if sent.length > wire::LARGEST_ARTIFACT {
        let message = format!("a file has at most {} bytes", wire::LARGEST_ARTIFACT);
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(step.clone())
}

/// What is said when there is nothing to store.
fn answer_of(space: Space) -> Option<Result<HttpResponse, HttpError>> {
    let full = |message: String| HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
    Some(match space {
        Space::Free => return None,
        Space::Taken => Ok(HttpResponse::NoContent().finish()),
        Space::TakenByOther => Err(HttpError::bad_request(
            "the attempt has kept another file of that name",
        )),
        Space::TooMany => Err(full(format!(
            "a step keeps at most {} files",
            wire::MOST_ARTIFACTS
        ))),
        Space::TooLarge => Err(full(format!(
            "a step keeps at most {} bytes of files",
            wire::MOST_ARTIFACT_BYTES
        ))),
        Space::Lost => Err(over()),
    })
}

async fn next(body: &mut web::Payload) -> Result<Option<web::Bytes>, HttpError> {
    let broken = |why: &dyn std::fmt::Display| {
        HttpError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the bytes broke off: {why}"),
        )
    };
    match tokio::time::timeout(LONGEST_SILENCE, body.next()).await {
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(error))) => Err(broken(&error)),
        Ok(None) => Ok(None),
        Err(silence) => Err(broken(&silence)),
    }
}

/// Takes the bytes, and no more than were told.
pub(super) async fn receive(
    mut incoming: Incoming,
    body: &mut web::Payload,
    length: u64,
) -> Result<Incoming, HttpError> {
    while let Some(bytes) = next(body).await? {
        if incoming.length() + bytes.len() as u64 > length {
            return Err(HttpError::bad_request("more bytes came than were told"));
        }
        incoming = incoming
            .write(bytes)
            .await
            .map_err(|error| not_stored(&error))?;
    }
    Ok(incoming)
}

/// Takes them and throws them away, so that an answer is heard.
pub(super) async fn drain(body: &mut web::Payload, length: u64) -> Result<(), HttpError> {
    let mut seen = 0;
    while let Some(bytes) = next(body).await? {
        seen += bytes.len() as u64;
        if seen > length {
            return Err(HttpError::bad_request("more bytes came than were told"));
        }
    }
    Ok(())
}
