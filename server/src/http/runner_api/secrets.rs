//! Secrets for an attempt: to whoever has its token, while its lease holds.

use super::super::auth::Then;
use super::super::secrets;
use super::super::{App, error::HttpError};
use super::{OwnAttempt, over};
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Fence {
    fence: u64,
}

/// The secrets of the attempt's steps.
pub(super) async fn send(
    app: web::Data<App>,
    Then(own, query): Then<OwnAttempt, web::Query<Fence>>,
) -> Result<HttpResponse, HttpError> {
    let own = own.live(Some(query.fence))?;
    if own.attempt.lease_until < crate::clock::now() || own.attempt.accepted_at.is_none() {
        return Err(over());
    }
    let secrets = secrets::for_attempt(&app, &own.attempt.id, (&own.run, &own.job())).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(secrets))
}
