//! Every webhook delivery, what was decided, and why.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::{PAGE_SIZE, PageQuery, cut_page, frame, view_of};
use crate::store;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::spec::Role;
use roadstead_web::view::{DeliveriesPage, Delivery, DeliveryDecision};
use std::collections::BTreeMap;

/// Runs that are looked through for what deliveries were about.
const RUNS_LOOKED_THROUGH: u32 = 200;

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
    let found = app.store.list_all_deliveries(offset, limit).await?;
    let (shown, paging) = cut_page(found, page, PAGE_SIZE);
    let subjects = subjects(&app, &shown).await?;
    let page = DeliveriesPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        deliveries: shown
            .iter()
            .map(|delivery| line(delivery, &who.actor, &subjects))
            .collect(),
        paging,
    };
    frame::send(&request, StatusCode::OK, &page)
}

/// `main at 3f2a91c`, by run.
async fn subjects(
    app: &App,
    shown: &[store::Delivery],
) -> Result<BTreeMap<RunId, String>, HttpError> {
    let mut newest = BTreeMap::new();
    for run in shown.iter().filter_map(|delivery| delivery.run.as_ref()) {
        let number = newest.entry(run.project()).or_insert(0);
        *number = run.number().max(*number);
    }
    let mut subjects = BTreeMap::new();
    for (project, number) in newest {
        let before = Some(number + 1);
        let lines = app
            .store
            .list_runs(&project, before, RUNS_LOOKED_THROUGH)
            .await?;
        for line in lines {
            let pushed = view_of::pushed(&line.git_ref, &line.started_by);
            let subject = format!("{pushed} at {}", line.commit.short());
            subjects.insert(line.id, subject);
        }
    }
    Ok(subjects)
}

fn line(delivery: &store::Delivery, actor: &Actor, subjects: &BTreeMap<RunId, String>) -> Delivery {
    let run = delivery.run.as_ref();
    Delivery {
        id: delivery.id.to_string(),
        forge_id: delivery.delivery_id.clone(),
        forge: delivery.forge.clone(),
        project: delivery.project.to_string(),
        event: delivery.event.clone(),
        subject: run
            .and_then(|run| subjects.get(run))
            .cloned()
            .unwrap_or_default(),
        decision: match delivery.decision.as_str() {
            "built" => DeliveryDecision::Run,
            "duplicate" => DeliveryDecision::Duplicate,
            "closed" => DeliveryDecision::Closed,
            _ => DeliveryDecision::Ignored,
        },
        reason: delivery.reason.clone(),
        run: run.map(|run| (run.to_string(), view_of::run_name(run.as_str()))),
        received: view_of::time(delivery.received_at),
        redeliver: view_of::needs_role(actor, Role::Deployer),
    }
}
