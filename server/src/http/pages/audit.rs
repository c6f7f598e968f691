//! Who did what, read off the audit trail.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::{PAGE_SIZE, PageQuery, cut_page, frame, view_of};
use crate::store::Event;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::id::{DeploymentId, RunId};
use roadstead_pipelines::spec::Role;
use roadstead_web::urls;
use roadstead_web::view::{AuditEntry, AuditPage};
use serde_json::Value;

/// The page.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<PageQuery>>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let page = who.sent.number();
    let (offset, limit) = who.sent.rows();
    let found = app.store.list_all_events(offset, limit).await?;
    let (shown, paging) = cut_page(found, page, PAGE_SIZE);
    let page = AuditPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        entries: shown.iter().map(entry).collect(),
        export: who.actor.role == Role::Admin,
        paging,
    };
    frame::send(&request, StatusCode::OK, &page)
}

fn entry(event: &Event) -> AuditEntry {
    let subject = match &event.project {
        Some(project) if !event.subject.starts_with(&format!("{project}.")) => {
            format!("{project} / {}", event.subject.replace('/', " / "))
        }
        _ => event.subject.clone(),
    };
    AuditEntry {
        at: view_of::time(event.at),
        actor: event.actor.clone(),
        via: String::new(),
        action: event.what.clone(),
        url: url(event),
        subject,
        change: change(event),
        reason: view_of::clip(&event.reason, 500).to_owned(),
    }
}

fn url(event: &Event) -> Option<String> {
    if let Some(run) = RunId::parse(&event.subject) {
        return Some(urls::run(run.as_str()));
    }
    if let Some(deployment) = DeploymentId::parse(&event.subject) {
        return Some(urls::deployment(deployment.as_str()));
    }
    let project = event.project.as_ref()?;
    let (environment, service) = event.subject.split_once('/')?;
    Some(urls::service(project.as_str(), environment, service))
}

/// How it stood and how it stands, for what has a word for that; holds say more, and say it as reason.
fn change(event: &Event) -> String {
    match (word(&event.before), word(&event.after)) {
        (Some(before), Some(after)) if before == after => String::new(),
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (None, Some(after)) => format!("→ {after}"),
        (_, None) => String::new(),
    }
}

/// What a state is called; a digest is long and says nothing to people.
fn word(value: &Value) -> Option<&str> {
    value.as_str().filter(|word| !word.starts_with("sha256:"))
}
