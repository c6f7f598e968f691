//! Runners that end in good order.

use super::super::App;
use super::super::auth::Then;
use super::super::error::HttpError;
use super::KnownRunner;
use actix_web::{HttpResponse, web};
use roadstead_protocol::Goodbye;

/// Notes that a runner leaves. Repeated it says the same; of one that has left for good nobody is known any more.
pub(super) async fn take(
    app: web::Data<App>,
    Then(runner, body): Then<KnownRunner, web::Json<Goodbye>>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store.leave(&runner.id, body.for_good, now).await?;
    tracing::info!(
        runner = runner.id,
        for_good = body.for_good,
        "a runner left"
    );
    Ok(HttpResponse::NoContent().finish())
}
