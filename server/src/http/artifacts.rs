//! Artifacts for people and programs: which there are, and their bytes.
//!
//! They come from whoever can push, so nothing of them is ever shown by a browser as part of this site: each is
//! something to be saved, of a type that says nothing, and no browser may guess another one.

use super::App;
use super::actions;
use super::error::HttpError;
use crate::artifacts::{ArtifactError, ArtifactKey};
use crate::store::Artifact;
use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, Charset, ContentDisposition, DispositionParam, DispositionType, ExtendedValue,
    X_CONTENT_TYPE_OPTIONS,
};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use roadstead_pipelines::id::RunId;
use std::io;

/// The artifacts of an attempt of a run; without a number those of every job's newest one.
///
/// # Errors
/// 404 for an unknown run.
pub(super) async fn list(
    app: &App,
    run: &RunId,
    attempt: Option<u32>,
) -> Result<Vec<Artifact>, HttpError> {
    let attempts = attempts_of(app, run, attempt).await?;
    Ok(app.store.list_artifacts(run, &attempts).await?)
}

async fn attempts_of(app: &App, run: &RunId, attempt: Option<u32>) -> Result<Vec<u32>, HttpError> {
    Ok(match attempt {
        Some(number) => vec![number],
        None => app.store.get_run(run).await?.attempts_shown(None),
    })
}

/// One artifact's bytes, to be saved.
///
/// # Errors
/// 404 when there is no such run or artifact; 410 when retention removed it.
pub(super) async fn send(
    app: &App,
    run: &str,
    (step, name): (&str, &str),
    attempt: Option<u32>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::run_of(run)?;
    let attempts = attempts_of(app, &id, attempt).await?;
    let found = app.store.get_artifact(&id, &attempts, step, name).await?;
    let Some(found) = found else {
        let removed = app.store.logs_removed_at(&id).await?;
        return Err(match removed {
            Some(at) => {
                let message = format!("retention removed the artifacts of {id} on {at}");
                HttpError::new(StatusCode::GONE, message)
            }
            None => HttpError::not_found(format!("{id} has no artifact `{name}` of step `{step}`")),
        });
    };
    let bytes = bytes_of(app, &found).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header(to_be_saved_as(&found.name))
        .insert_header(("etag", format!("\"{}\"", found.sha256)))
        .body(bytes))
}

/// The bytes of an artifact, as they are sent.
///
/// # Errors
/// When they cannot be read.
pub(super) async fn bytes_of(
    app: &App,
    artifact: &Artifact,
) -> Result<SizedStream<BoxStream<'static, io::Result<Bytes>>>, HttpError> {
    let key = ArtifactKey {
        run: artifact.run.to_string(),
        attempt: artifact.attempt,
        step: artifact.step.to_string(),
        name: artifact.name.clone(),
        sha256: artifact.sha256.clone(),
    };
    let bytes = app.logs.artifacts().read(&key, artifact.length).await;
    Ok(SizedStream::new(artifact.length, bytes.map_err(not_read)?))
}

fn to_be_saved_as(name: &str) -> ContentDisposition {
    let last = name.rsplit('/').next().unwrap_or(name);
    // Programs that know only the plain form take it without what is not ASCII.
    let plain: String = last
        .chars()
        .map(|c| if c.is_ascii() && c != '"' { c } else { '_' })
        .collect();
    let mut parameters = vec![DispositionParam::Filename(plain.clone())];
    if plain != last {
        parameters.push(DispositionParam::FilenameExt(ExtendedValue {
            charset: Charset::Ext("UTF-8".to_owned()),
            language_tag: None,
            value: last.as_bytes().to_vec(),
        }));
    }
    ContentDisposition {
        disposition: DispositionType::Attachment,
        parameters,
    }
}

/// What a runner is told when its bytes could not be stored.
pub(super) fn not_stored(error: &ArtifactError) -> HttpError {
    match error {
        ArtifactError::Name(_) => HttpError::bad_request(error.to_string()),
        ArtifactError::Io(_) | ArtifactError::Bucket(_) => {
            tracing::error!(%error, "an artifact was not stored: {error}");
            let message = "the artifact could not be stored; send it again";
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

fn not_read(error: ArtifactError) -> HttpError {
    match error {
        ArtifactError::Name(name) => HttpError::not_found(format!("no artifact of `{name}`")),
        error @ ArtifactError::Io(_) => HttpError::internal(error),
        error @ ArtifactError::Bucket(_) => {
            tracing::warn!(%error, "an artifact cannot be read: {error}");
            let message = "the storage of artifacts does not answer; look again later";
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}
