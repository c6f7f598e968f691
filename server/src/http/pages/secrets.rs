//! A project's secrets, for admins: their names, and forms to set and to forget one.

use super::super::App;
use super::super::auth::{Admin, Allowed};
use super::super::error::HttpError;
use super::super::secrets::{self, secret_of};
use super::account::of_the_form;
use super::errors::sentence;
use super::frame::back_to;
use super::{frame, project_of, view_of};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::secret::{LONGEST_SECRET, SecretRef};
use roadstead_web::urls::{self, field};
use roadstead_web::view::{SecretsPage, StoredSecret, Tone};
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Largest form, in bytes: of the longest value a browser sends at most three for each.
pub(super) const LARGEST_FORM: usize = 3 * LONGEST_SECRET + (16 << 10);

/// An admin and the form they sent.
type Sent = Allowed<Admin, web::Form<HashMap<String, String>>>;

/// The page.
///
/// # Errors
/// 404 for an unknown project.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Admin>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let page = page(&app, &who.actor, &request, &path).await?;
    frame::send(&request, StatusCode::OK, &page)
}

async fn page(
    app: &App,
    actor: &Actor,
    request: &HttpRequest,
    project: &str,
) -> Result<SecretsPage, HttpError> {
    let project = project_of(app, project).await?;
    let secrets = app.store.list_secrets(&project.name).await?;
    let world = app.store.load_world(&project.name).await?;
    let pipeline = world.pipeline.as_ref();
    let environments = pipeline.into_iter().flat_map(|p| p.environments.keys());
    Ok(SecretsPage {
        frame: frame::of(app, actor, request).await?,
        project: project.name.to_string(),
        secrets: secrets
            .into_iter()
            .map(|line| StoredSecret {
                name: line.secret.to_string(),
                branches: line.branches,
                version: line.version,
                set_by: line.set_by,
                set: view_of::time(line.set_at),
            })
            .collect(),
        environments: environments.map(ToString::to_string).collect(),
        error: String::new(),
    })
}

/// Gives a secret a value.
///
/// # Errors
/// 404 for an unknown project. Mistakes are told beside the form, which does not keep the value.
pub(super) async fn set(
    app: web::Data<App>,
    mut who: Sent,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let given = Zeroizing::new(who.sent.remove(field::VALUE).unwrap_or_default());
    // A form sends each line's end as two bytes, whatever was pasted into it.
    let value = Zeroizing::new(given.replace("\r\n", "\n"));
    let text = |name: &str| who.sent.get(name).map_or("", |text| text.trim());
    let branches = text(field::BRANCHES).split_whitespace().map(str::to_owned);
    let branches: Vec<_> = branches.collect();
    let branches = match (branches.is_empty(), text(field::ALL_BRANCHES).is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Err(HttpError::bad_request(
            "give patterns of branches, or say every branch: not both",
        )),
        _ => Ok(Some(branches)),
    };
    let project = project_of(&app, &path).await?.name;
    let secret = secret_of(text(field::NAME), Some(text(field::ENVIRONMENT)));
    let done = match secret.and_then(|secret| Ok((secret, branches?))) {
        Ok((secret, branches)) => {
            let done = secrets::set(&app, &who.actor, &project, &secret, branches, value).await;
            done.map(|stored| {
                let branches = match stored.branches.as_slice() {
                    [] => "every branch".to_owned(),
                    patterns => patterns.join(" "),
                };
                format!(
                    "{secret} is set, version {}, for {branches}.",
                    stored.version
                )
            })
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(said) => Ok(back_to(&urls::secrets(&path), Tone::Good, &said)),
        Err(error) if of_the_form(&error) => {
            let page = SecretsPage {
                error: sentence(&error.to_string()),
                ..page(&app, &who.actor, &request, &path).await?
            };
            frame::send(&request, error.status(), &page)
        }
        Err(error) => Err(error),
    }
}

/// Forgets a secret.
///
/// # Errors
/// 404 when there is none.
pub(super) async fn remove(
    app: web::Data<App>,
    who: Sent,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let text = who.sent.get(field::NAME).map_or("", String::as_str);
    let secret =
        SecretRef::parse(text).map_err(|error| HttpError::bad_request(error.to_string()))?;
    let project = project_of(&app, &path).await?.name;
    let now = crate::clock::now();
    let done = app
        .store
        .remove_secret(&project, &secret, &who.actor.name, now);
    done.await?;
    let text = format!("{secret} is removed: steps that name it fail from now on.");
    Ok(back_to(&urls::secrets(&path), Tone::Warn, &text))
}
