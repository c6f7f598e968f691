//! The dashboard: one file per page. A page loads rows, plans on them (pure and cheap) to say what
//! waits for what, fills a view of the `web` house and sends it; a form records one fact through
//! [`super::actions`] and leads back to its page. Nothing here decides, and nothing here makes HTML.
//!
//! Every handler but sign-in, sign-out and the assets takes an `Allowed<…>`. Handlers fail with
//! [`HttpError`]; [`errors`] shows that as a page to browsers and leaves it JSON for programs.

mod account;
mod assets;
mod audit;
mod deliveries;
mod deployment;
mod errors;
mod events;
mod forms;
mod frame;
mod home;
mod log;
mod login;
mod project;
mod run;
mod runners;
mod secrets;
mod service;
mod sse;
mod start;
mod users;
mod view_of;

use super::App;
use super::error::HttpError;
use crate::store::StoreError;
use actix_web::middleware::from_fn;
use actix_web::web;
use roadstead_pipelines::id::ProjectName;
use roadstead_web::urls::route;
use serde::Deserialize;
use std::sync::Mutex;
use std::time::Instant;

/// Rows on one page of a list.
const PAGE_SIZE: u32 = 50;
/// Lists are not leafed through further than this; older rows are for the API.
const LAST_PAGE: u32 = 100;

/// What the pages remember between requests; a restart may forget it.
#[derive(Default)]
pub struct Shared {
    needs: Mutex<Option<(Instant, u64)>>,
}

/// Every route of the dashboard. Has to be configured last: it also answers what nobody else does.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("")
            .wrap(from_fn(errors::as_pages))
            .route(route::HOME, web::get().to(home::show))
            .service(
                web::resource(route::LOGIN)
                    .route(web::get().to(login::show))
                    .route(web::post().to(login::sign_in)),
            )
            .route(route::LOGOUT, web::post().to(login::sign_out))
            .route(route::EVENTS, web::get().to(events::stream))
            .route(route::ASSET, web::get().to(assets::send))
            .route(route::PROJECT, web::get().to(project::show))
            .route(route::RUN_START, web::post().to(start::send))
            .service(
                web::resource(route::SECRETS)
                    .app_data(web::FormConfig::default().limit(secrets::LARGEST_FORM))
                    .route(web::get().to(secrets::show))
                    .route(web::post().to(secrets::set)),
            )
            .route(route::SECRET_REMOVE, web::post().to(secrets::remove))
            .route(route::RUN, web::get().to(run::show))
            .route(route::RUN_CANCEL, web::post().to(forms::cancel_run))
            .route(route::RUN_APPROVE, web::post().to(forms::approve_run))
            .route(route::RUN_RETRY, web::post().to(forms::retry_run))
            .route(route::RUN_RERUN, web::post().to(forms::rerun))
            .route(route::STEP_LOG, web::get().to(log::raw))
            .route(route::STEP_LOG_EVENTS, web::get().to(log::stream))
            .route(route::ARTIFACT, web::get().to(run::artifact))
            .route(route::DEPLOYMENT, web::get().to(deployment::show))
            .route(
                route::DEPLOYMENT_CANCEL,
                web::post().to(forms::cancel_deployment),
            )
            .route(route::SERVICE, web::get().to(service::show))
            .route(route::PROMOTE, web::post().to(forms::promote))
            .route(route::ROLLBACK, web::post().to(forms::rollback))
            .route(route::APPROVE, web::post().to(forms::approve))
            .route(route::HOLD, web::post().to(forms::hold))
            .route(route::RESUME, web::post().to(forms::resume))
            .route(route::DELIVERIES, web::get().to(deliveries::show))
            .route(route::REDELIVER, web::post().to(forms::redeliver))
            .route(route::RUNNERS, web::get().to(runners::show))
            .route(route::RUNNER_DRAIN, web::post().to(forms::drain_runner))
            .route(route::RUNNER_RESUME, web::post().to(forms::resume_runner))
            .route(route::ACCOUNT, web::get().to(account::show))
            .route(
                route::ACCOUNT_PASSWORD,
                web::post().to(account::change_password),
            )
            .route(
                route::ACCOUNT_SIGN_OUT,
                web::post().to(account::sign_out_everywhere),
            )
            .route(route::TOKENS, web::post().to(account::create_token))
            .route(route::TOKEN_REVOKE, web::post().to(account::revoke_token))
            .service(
                web::resource(route::USERS)
                    .route(web::get().to(users::show))
                    .route(web::post().to(users::add)),
            )
            .route(route::USER_ROLE, web::post().to(users::set_role))
            .route(route::USER_EMAILS, web::post().to(users::set_emails))
            .route(route::USER_PASSWORD, web::post().to(users::reset_password))
            .route(route::USER_DISABLE, web::post().to(users::disable))
            .route(route::USER_ENABLE, web::post().to(users::enable))
            .route(route::AUDIT, web::get().to(audit::show))
            .default_service(web::to(errors::nothing_here)),
    );
}

/// `?page=2`.
#[derive(Deserialize)]
struct PageQuery {
    page: Option<u32>,
}

impl PageQuery {
    /// Where its rows begin, from the newest on, and how many to read: one more tells whether there are older ones.
    fn rows(&self) -> (u32, u32) {
        ((self.number() - 1) * PAGE_SIZE, PAGE_SIZE + 1)
    }

    /// From 1 to [`LAST_PAGE`].
    fn number(&self) -> u32 {
        self.page.unwrap_or(1).clamp(1, LAST_PAGE)
    }
}

/// One page out of the rows from its first one on, of which `rows` holds one more than the page when there is one.
fn cut_page<T>(mut rows: Vec<T>, page: u32, size: u32) -> (Vec<T>, roadstead_web::view::Paging) {
    let more = rows.len() > size as usize && page < LAST_PAGE;
    rows.truncate(size as usize);
    let page = u64::from(page);
    (rows, roadstead_web::view::Paging { page, more })
}

/// A project of this server.
async fn project_of(app: &App, text: &str) -> Result<crate::store::Project, HttpError> {
    let unknown = || HttpError::not_found(format!("no project `{text}` on this server"));
    let name = ProjectName::parse(text).map_err(|_| unknown())?;
    match app.store.get_project(&name).await {
        Err(StoreError::NotFound { .. }) => Err(unknown()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_cut_and_know_of_more() {
        let rows = |count: u32| (0..count).collect::<Vec<_>>();
        let (shown, paging) = cut_page(rows(3), 1, 2);
        assert_eq!((shown, paging.page, paging.more), (vec![0, 1], 1, true));
        let (shown, paging) = cut_page(rows(1), 2, 2);
        assert_eq!((shown, paging.page, paging.more), (vec![0], 2, false));
        let (_, paging) = cut_page(rows(3), LAST_PAGE, 2);
        assert!(!paging.more, "the last page leads no further");
        let (shown, paging) = cut_page(rows(2), 1, 2);
        assert_eq!((shown.len(), paging.more), (2, false));
        assert_eq!(PageQuery { page: Some(0) }.number(), 1);
        let far = PageQuery {
            page: Some(u32::MAX),
        };
        assert_eq!(far.number(), LAST_PAGE);
    }
}
