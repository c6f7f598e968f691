//! Caches from and for runners: which one a step finds, and what may be stored.
//!
//! Scopes follow from the run ([`roadstead_pipelines::cache`]), what has to be alike from its pipeline file; a runner tells
//! the key and its processor alone. It is hostile until checked, and what it stores is read by runs of its own scope and
//! of those that fall back to it, never by others.

use super::super::App;
use super::super::artifacts::not_stored;
use super::super::auth::Then;
use super::super::error::HttpError;
use super::artifacts::{drain, receive};
use super::{OwnAttempt, over};
use crate::artifacts::ArtifactError;
use crate::caches::CacheStore;
use crate::store::{CacheSearch, NewCache, Place};
use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::cache::{Scopes, scopes};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::spec::StepAction;
use roadstead_protocol as wire;
use sha2::{Digest, Sha256};

/// Tells which cache there is for a step.
pub(super) async fn find(
    app: web::Data<App>,
    own: OwnAttempt,
    path: web::Path<(String, String, String)>,
    query: web::Query<wire::CacheWanted>,
) -> Result<HttpResponse, HttpError> {
    let own = leased(own, None)?;
    let asked = Asked::of(&app, &own, (&path.1, &path.2), &query).await?;
    let not_stored = asked.refused(&app, &own).map(|(_, why)| why);
    let found = app.store.find_cache(&asked.search()).await?;
    let found = found.map(|it| wire::CacheFound {
        of: GitRef::of(&it.scope).to_string(),
        id: it.id,
        key: it.key,
        length: it.length,
        sha256: it.sha256,
    });
    Ok(HttpResponse::Ok().json(wire::CacheAnswer { found, not_stored }))
}

/// Sends the bytes of one.
pub(super) async fn send(
    app: web::Data<App>,
    own: OwnAttempt,
    path: web::Path<(String, String, String, String)>,
    query: web::Query<wire::CacheWanted>,
) -> Result<HttpResponse, HttpError> {
    let own = leased(own, None)?;
    let (_, step, cache, id) = path.into_inner();
    let asked = Asked::of(&app, &own, (&step, &cache), &query).await?;
    let gone = || HttpError::not_found(format!("cache `{cache}` is not there any more"));
    let (search, now) = (asked.search(), crate::clock::now());
    let found = app.store.use_cache(&search, &id, now).await?;
    let found = found.ok_or_else(gone)?;
    let project = own.run.project.as_str();
    let caches = app.logs.caches();
    let read = caches.read(project, &found.id, found.length).await;
    let bytes = read.map_err(|error| {
        tracing::warn!(%error, "a cache cannot be read: {error}");
        let message = "the cache cannot be read now";
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    let Some(bytes) = bytes else {
        // As after a backup was restored: as long as its row stands, no other takes its place.
        app.store.leave_cache(&found.id).await?;
        return Err(gone());
    };
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .body(SizedStream::new(found.length, bytes)))
}

/// Keeps what a step leaves.
pub(super) async fn take(
    app: web::Data<App>,
    Then(own, (query, mut body)): Then<OwnAttempt, (web::Query<wire::CacheSent>, web::Payload)>,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let sent = query.into_inner();
    let own = leased(own, Some(sent.fence))?;
    let wanted = wire::CacheWanted {
        key: sent.key.clone(),
        architecture: sent.architecture.clone(),
    };
    let asked = Asked::of(&app, &own, (&path.1, &path.2), &wanted).await?;
    if let Some((status, why)) = asked.refused(&app, &own) {
        return Err(HttpError::new(status, why));
    }
    let Some(scope) = asked.scopes.writes.clone() else {
        return Err(over());
    };
    if !wire::is_sha256(&sent.sha256) {
        let message = "`sha256` has to be 64 hexadecimal digits";
        return Err(HttpError::bad_request(message));
    }
    let most_bytes = app.config.retention.caches.most_bytes();
    let most = most_bytes.min(wire::LARGEST_CACHE);
    if sent.length > most {
        let message = format!("a cache has at most {most} bytes here");
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let new = NewCache {
        id: CacheStore::new_id(),
        attempt: own.attempt.id.clone(),
        fence: sent.fence,
        run: own.run.id.clone(),
        project: own.run.project.clone(),
        scope,
        name: path.2.clone(),
        kind: asked.kind,
        key: sent.key,
        length: sent.length,
        sha256: sent.sha256,
    };
    let begun = app.store.begin_cache(&new, crate::clock::now()).await?;
    if begun != Place::Free {
        // An answer before the last byte would reach nobody: whoever still writes does not read.
        drain(&mut body, new.length).await?;
        return answer(begun);
    }
    let stored = store(&app, &new, &mut body, most_bytes).await;
    if !matches!(stored, Ok(Place::Free)) {
        app.store.leave_cache(&new.id).await?;
    }
    answer(stored?)
}

/// Brings the bytes to safety, then the row that says so.
async fn store(
    app: &App,
    new: &NewCache,
    body: &mut web::Payload,
    most_bytes: u64,
) -> Result<Place, HttpError> {
    let failed = |error: ArtifactError| not_stored(&error);
    let taking = app.logs.caches();
    let incoming = taking.take(new.project.as_str(), &new.id).await;
    let incoming = receive(incoming.map_err(failed)?, body, new.length).await?;
    if incoming.length() != new.length || incoming.sha256() != new.sha256 {
        let message = "the bytes are others than was told";
        return Err(HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    incoming.keep().await.map_err(failed)?;
    let now = crate::clock::now();
    Ok(app.store.record_cache(new, most_bytes, now).await?)
}

fn answer(place: Place) -> Result<HttpResponse, HttpError> {
    match place {
        Place::Free => Ok(HttpResponse::Ok().json(wire::CacheKept::Stored)),
        Place::Taken => Ok(HttpResponse::Ok().json(wire::CacheKept::Taken)),
        Place::Lost => Err(over()),
    }
}

/// The attempt, as long as it is this runner's.
fn leased(own: OwnAttempt, fence: Option<u64>) -> Result<OwnAttempt, HttpError> {
    let own = own.live(fence)?;
    if own.attempt.lease_until < crate::clock::now() || own.attempt.accepted_at.is_none() {
        return Err(over());
    }
    Ok(own)
}

/// A cache of one of the attempt's steps.
struct Asked {
    scopes: Scopes,
    kind: String,
    key: String,
    project: roadstead_pipelines::id::ProjectName,
}

impl Asked {
    async fn of(
        app: &App,
        own: &OwnAttempt,
        (step, cache): (&str, &str),
        wanted: &wire::CacheWanted,
    ) -> Result<Self, HttpError> {
        let bad = |message: &str| Err(HttpError::bad_request(message));
        if !wire::is_sha256(&wanted.key) {
            return bad("`key` has to be 64 hexadecimal digits");
        }
        if !wire::is_architecture(&wanted.architecture) {
            return bad("`architecture` has to be 1 to 32 of `a`–`z`, `0`–`9` and `_`");
        }
        let job = own.job();
        let steps = own.run.pipeline.iter().flat_map(|it| &it.steps);
        let mut steps = steps.filter(|(name, _)| job.steps.contains(name));
        let found = steps.find(|(name, _)| name.as_str() == step);
        let found = found.and_then(|(_, spec)| match &spec.action {
            StepAction::Run { image, files, .. } => Some((image, files.caches.get(cache)?)),
            StepAction::Build { .. } => None,
        });
        let Some((image, spec)) = found else {
            let message = format!("job {} has no step with such a cache", own.attempt.job);
            return Err(HttpError::not_found(message));
        };
        let project = app.store.get_project(&own.run.project).await?;
        let alike = (cache, image, &spec.paths, &wanted.architecture);
        let alike = serde_json::to_vec(&alike).map_err(HttpError::internal)?;
        Ok(Self {
            scopes: scopes(&own.run, project.default_branch.as_deref()),
            kind: hex::encode(Sha256::digest(alike)),
            key: wanted.key.clone(),
            project: own.run.project.clone(),
        })
    }

    fn search(&self) -> CacheSearch {
        CacheSearch {
            project: self.project.clone(),
            scopes: self.scopes.reads.clone(),
            kind: self.kind.clone(),
            key: self.key.clone(),
        }
    }

    /// Why nothing is stored for this run.
    fn refused(&self, app: &App, own: &OwnAttempt) -> Option<(StatusCode, String)> {
        if self.scopes.writes.is_none() {
            let message = format!("{} is of a fork, which stores no caches", own.run.id);
            return Some((StatusCode::FORBIDDEN, message));
        }
        if app.config.retention.caches.most_bytes() == 0 {
            let message = "this server stores no caches (`retention.caches.gigabytes`)";
            return Some((StatusCode::FORBIDDEN, message.to_owned()));
        }
        None
    }
}
