//! What admins do to a project's secrets, for the pages and the API alike, and how an attempt gets them.
//! A value goes in here and comes out for an attempt alone.

use super::App;
use super::error::HttpError;
use crate::secrets::Of;
use crate::store::SecretLine;
use actix_web::http::StatusCode;
use roadstead_masking::Patterns;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::id::{EnvironmentName, ProjectName};
use roadstead_pipelines::job::Job;
use roadstead_pipelines::run::Run;
use roadstead_pipelines::secret::{SecretName, SecretRef, check_value, withheld_from};
use roadstead_pipelines::spec::{StepAction, check_pattern};
use roadstead_protocol as wire;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a mask is kept that nothing is held against: an attempt that still works has a new one made.
const UNUSED: Duration = Duration::from_secs(3600);
/// Most patterns of branches that one secret has.
const MOST_PATTERNS: usize = 32;
/// Most bytes of all secrets that the steps of one job name.
const MOST_BYTES: usize = 64 << 10;

/// A secret by its parts, as people give them; an empty environment is none.
///
/// # Errors
/// 400.
pub fn secret_of(name: &str, environment: Option<&str>) -> Result<SecretRef, HttpError> {
    let environment = environment.filter(|name| !name.is_empty());
    let environment = environment.map(EnvironmentName::parse).transpose();
    Ok(SecretRef {
        environment: environment.map_err(|error| HttpError::bad_request(error.to_string()))?,
        name: SecretName::parse(name).map_err(|error| HttpError::bad_request(error.to_string()))?,
    })
}

/// Gives a secret a value, and says what is stored now. Without `branches` it stays for those that it is for.
///
/// # Errors
/// 400 for a value or a pattern that cannot be; 404 without such a project; 409 when the installation's
/// keys cannot be had.
pub async fn set(
    app: &App,
    actor: &Actor,
    project: &ProjectName,
    secret: &SecretRef,
    branches: Option<Vec<String>>,
    value: Zeroizing<String>,
) -> Result<SecretLine, HttpError> {
    check_value(&value).map_err(HttpError::bad_request)?;
    let patterns = branches.as_deref().unwrap_or_default();
    if patterns.len() > MOST_PATTERNS {
        let message = format!("a secret has at most {MOST_PATTERNS} patterns of branches");
        return Err(HttpError::bad_request(message));
    }
    for pattern in patterns {
        check_pattern(pattern).map_err(|why| {
            HttpError::bad_request(format!("`{pattern}` is no pattern of branches: {why}"))
        })?;
    }
    let keys = app.keys.clone();
    let (of_project, of_secret) = (project.clone(), secret.clone());
    let turn = (actor.name.as_str(), crate::clock::now());
    let seal = move |version, in_use: &[String]| {
        let of = Of {
            project: &of_project,
            secret: &of_secret,
            version,
        };
        keys.seal(of, &value, in_use)
    };
    let done = app.store.set_secret(project, secret, branches, turn, seal);
    Ok(done.await?)
}

/// The secrets that the steps of a run's job name, and the images that they build.
fn named_by<'r>((run, job): (&'r Run, &Job)) -> BTreeSet<&'r SecretRef> {
    let steps = run.pipeline.iter().flat_map(|pipeline| &pipeline.steps);
    let steps = steps.filter(|(name, _)| job.steps.contains(name));
    let mut named = BTreeSet::new();
    for (_, step) in steps {
        match &step.action {
            StepAction::Run { secrets, .. } => {
                named.extend(secrets.iter().map(|named| &named.secret));
            }
            StepAction::Build { images } => {
                let known = run.pipeline.iter().map(|pipeline| &pipeline.images);
                let images = known.flat_map(|known| images.iter().filter_map(|it| known.get(it)));
                named.extend(images.flat_map(|image| &image.secrets));
            }
        }
    }
    named
}

/// What attempts must not show, for as long as they are at work here.
#[derive(Default)]
pub struct Masks(Mutex<HashMap<String, Mask>>);

struct Mask {
    patterns: Option<Arc<Patterns>>,
    used: Instant,
}

impl Masks {
    fn get(&self, attempt: &str) -> Option<Option<Arc<Patterns>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mask = all.get_mut(attempt)?;
        mask.used = Instant::now();
        Some(mask.patterns.clone())
    }

    /// Forgets those of attempts that are over, and of those that are not heard of any more.
    pub(super) fn forget(&self, over: &[String]) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|attempt, mask| {
            !over.contains(attempt) && now.duration_since(mask.used) < UNUSED
        });
    }

    fn set(&self, attempt: &str, patterns: Option<Arc<Patterns>>) {
        let used = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(attempt.to_owned(), Mask { patterns, used });
    }
}

/// The secrets of an attempt, which its logs do not show from then on.
///
/// # Errors
/// 503 when the installation's keys cannot be had or do not open one of them.
pub(super) async fn for_attempt(
    app: &App,
    attempt: &str,
    job: (&Run, &Job),
) -> Result<wire::Secrets, HttpError> {
    let secrets = of_job(app, job).await?;
    mask(app, attempt, &secrets).await?;
    Ok(secrets)
}

/// Makes the mask of an attempt, and keeps it for its next logs.
async fn mask(
    app: &App,
    attempt: &str,
    secrets: &wire::Secrets,
) -> Result<Option<Arc<Patterns>>, HttpError> {
    let values = secrets.values.values().cloned();
    let values: Vec<_> = values.map(Zeroizing::new).collect();
    // Thousands of forms: not on a thread that answers others.
    let made = tokio::task::spawn_blocking(move || {
        Patterns::of(values.iter().map(|value| value.as_str()))
    });
    let patterns = made.await.map_err(HttpError::internal)?;
    let patterns = patterns.map_err(HttpError::internal)?.map(Arc::new);
    app.masks.set(attempt, patterns.clone());
    Ok(patterns)
}

/// What an attempt's logs must not show. After a restart, or at another server than the one that told them,
/// these are the values of now.
///
/// # Errors
/// As [`for_attempt`].
pub(super) async fn mask_of(
    app: &App,
    attempt: &str,
    job: (&Run, &Job),
) -> Result<Option<Arc<Patterns>>, HttpError> {
    if named_by(job).is_empty() {
        return Ok(None);
    }
    if let Some(known) = app.masks.get(attempt) {
        return Ok(known);
    }
    mask(app, attempt, &of_job(app, job).await?).await
}

/// The secrets that the steps of a job name, with their values, and why it does not get the others.
async fn of_job(app: &App, (run, job): (&Run, &Job)) -> Result<wire::Secrets, HttpError> {
    let mut secrets = wire::Secrets::default();
    let named = named_by((run, job));
    if named.is_empty() {
        return Ok(secrets);
    }
    let project = &run.project;
    let stored = app.store.sealed_secrets(project).await?;
    for secret in named {
        let found = stored.iter().find(|stored| stored.line.secret == *secret);
        let why = match found {
            None => Some(format!("`{project}` has none of that name")),
            Some(found) => withheld_from(run, &found.line.branches),
        };
        let name = secret.to_string();
        match (found, why) {
            (Some(found), None) => {
                let of = Of {
                    project,
                    secret,
                    version: found.line.version,
                };
                let value = app.keys.open(of, &found.sealed).map_err(|error| {
                    tracing::error!(%error, "a secret cannot be opened: {error}");
                    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                })?;
                secrets.values.insert(name, value.to_string());
            }
            (_, why) => {
                secrets.withheld.insert(name, why.unwrap_or_default());
            }
        }
    }
    withhold_too_much(&mut secrets);
    Ok(secrets)
}

/// All or none: a step that gets a part of its secrets would fail in ways of its own.
fn withhold_too_much(secrets: &mut wire::Secrets) {
    let bytes: usize = secrets.values.values().map(String::len).sum();
    if bytes > MOST_BYTES {
        let why = format!(
            "those of this job are {} KiB together, and at most {} KiB can be kept out of its logs: name \
             fewer or smaller ones",
            bytes.div_ceil(1 << 10),
            MOST_BYTES >> 10
        );
        for (name, value) in std::mem::take(&mut secrets.values) {
            drop(Zeroizing::new(value));
            secrets.withheld.insert(name, why.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_secrets_than_can_be_masked_are_not_told() {
        let mut secrets = wire::Secrets::default();
        let half = "x".repeat(MOST_BYTES / 2);
        secrets.values.insert("ONE".into(), half.clone());
        secrets.values.insert("TWO".into(), half);
        withhold_too_much(&mut secrets);
        assert_eq!(secrets.values.len(), 2);
        secrets.values.insert("THREE".into(), "x".into());
        withhold_too_much(&mut secrets);
        assert!(secrets.values.is_empty());
        assert_eq!(secrets.withheld.len(), 3);
        let why = &secrets.withheld["THREE"];
        assert!(why.contains("65 KiB") && why.contains("64 KiB"), "{why}");
    }

    #[test]
    fn a_mask_goes_with_its_attempt() {
        let masks = Masks::default();
        let patterns = || Patterns::of(["top-secret"]).unwrap().map(Arc::new);
        masks.set("over", patterns());
        masks.set("at work", patterns());
        masks.forget(&["over".to_owned()]);
        assert!(masks.get("over").is_none());
        assert!(masks.get("at work").is_some());
    }
}
