//! The sources of an attempt's commit, from this server's mirror. Another server may have read the commit
//! for its run: then it is fetched now.

use super::super::App;
use super::super::auth::Then;
use super::super::error::HttpError;
use super::OwnAttempt;
use crate::adapters::sources::{PackName, SourcesError};
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::TryStreamExt;
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::run::Run;
use roadstead_protocol as wire;
use serde::Deserialize;
use std::time::Duration;

/// Longest wait for a fetch before a runner is told to ask again: less than it waits for an answer.
const LONGEST_FETCH: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
pub(super) struct Wanted {
    have: Option<String>,
    #[serde(default)]
    stored: bool,
    beside: Option<String>,
}

pub(super) async fn send(
    app: web::Data<App>,
    Then(own, query): Then<OwnAttempt, web::Query<Wanted>>,
) -> Result<HttpResponse, HttpError> {
    let own = own.live(None)?;
    let run = own.run;
    let wanted = query.into_inner();
    if !app.sources.hold(&run.project, &run.commit).await {
        bring(&app, &run).await?;
    }
    let sources = app.sources.read_by(own.attempt.id.as_str());
    let mut answer = HttpResponse::Ok();
    answer
        .content_type("application/x-git-packfile")
        .insert_header((wire::COMMIT_HEADER, run.commit.as_str()));
    if wanted.stored {
        let stored = sources.stored_pack(&run.project).await;
        if let Some(stored) = stored.map_err(no_sources)? {
            answer
                .insert_header((wire::INDEX_BYTES_HEADER, stored.index_bytes))
                .insert_header((wire::PACK_HEADER, stored.name.as_str()));
            return Ok(answer.streaming(stored.pack.map_err(actix_web::Error::from)));
        }
    }
    let pack = match wanted.beside.as_deref().and_then(PackName::parse) {
        Some(stored) => {
            sources
                .pack_beside(&run.project, &run.commit, &stored)
                .await
        }
        None => {
            let have = wanted.have.as_deref().and_then(CommitSha::parse);
            sources.pack(&run.project, &run.commit, have.as_ref()).await
        }
    };
    let pack = pack.map_err(no_sources)?;
    Ok(answer.streaming(pack.map_err(actix_web::Error::from)))
}

/// Has this server's mirror fetch the run's commit: another server read it before. A fetch that takes
/// longer than a runner waits goes on, and the runner asks again.
async fn bring(app: &App, run: &Run) -> Result<(), HttpError> {
    let later = |why: &dyn std::fmt::Display| {
        let message = format!("the sources are not here yet: {why}");
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    };
    let remote = app.remotes.get(&run.project);
    let remote = remote.ok_or_else(|| later(&"the project is not configured at this server"))?;
    let (sources, remote, run) = (app.sources.clone(), remote.clone(), run.clone());
    let fetching = actix_web::rt::spawn(async move {
        sources
            .fetch(&run.project, &remote, &run.commit, &run.git_ref)
            .await
    });
    match tokio::time::timeout(LONGEST_FETCH, fetching).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) if error.is_transient() => Err(later(&error)),
        Ok(Ok(Err(error))) => Err(HttpError::internal(error)),
        Ok(Err(error)) => Err(HttpError::internal(error)),
        Err(_) => Err(later(&"they are being fetched")),
    }
}

/// A runner asks again after 503, and not after what would only fail again.
fn no_sources(error: SourcesError) -> HttpError {
    match error {
        SourcesError::Busy => HttpError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        error => HttpError::internal(error),
    }
}
