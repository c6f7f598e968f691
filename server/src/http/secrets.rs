//! What admins do to a project's secrets, for the pages and the API alike.

use super::App;
use super::error::HttpError;
use crate::secrets::Of;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::id::{EnvironmentName, ProjectName};
use roadstead_pipelines::secret::{SecretName, SecretRef, check_value};
use roadstead_pipelines::spec::check_pattern;
use zeroize::Zeroizing;

/// Most patterns of branches that one secret has.
const MOST_PATTERNS: usize = 32;

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

/// Gives a secret a value, and says which version that is.
///
/// # Errors
/// 400 for a value or a pattern that cannot be; 404 without such a project; 409 when the installation's
/// keys cannot be had.
pub async fn set(
    app: &App,
    actor: &Actor,
    project: &ProjectName,
    secret: &SecretRef,
    branches: Vec<String>,
    value: Zeroizing<String>,
) -> Result<u64, HttpError> {
    check_value(&value).map_err(HttpError::bad_request)?;
    if branches.len() > MOST_PATTERNS {
        let message = format!("a secret has at most {MOST_PATTERNS} patterns of branches");
        return Err(HttpError::bad_request(message));
    }
    for pattern in &branches {
        check_pattern(pattern).map_err(|why| {
            HttpError::bad_request(format!("`{pattern}` is no pattern of branches: {why}"))
        })?;
    }
    let keys = app.keys.clone();
    let (of_project, of_secret) = (project.clone(), secret.clone());
    let turn = (actor.name.as_str(), crate::clock::now());
    let seal = move |version, is_first| {
        let of = Of {
            project: &of_project,
            secret: &of_secret,
            version,
        };
        keys.seal(of, &value, is_first)
    };
    let done = app.store.set_secret(project, secret, branches, turn, seal);
    Ok(done.await?)
}
