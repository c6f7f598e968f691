//! For load balancers and people who look after the server, and what their editors ask for.

use super::App;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::spec;
use serde_json::json;

/// `/healthz`, `/readyz`, `/version`, `/schema/pipeline.json`; nobody has to sign in for them.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route(
            "/healthz",
            web::get().to(async || HttpResponse::Ok().body("ok\n")),
        )
        .route("/readyz", web::get().to(ready))
        .route("/version", web::get().to(version))
        .route("/schema/pipeline.json", web::get().to(schema));
}

/// 200 when the database answers, else 503.
async fn ready(app: web::Data<App>) -> HttpResponse {
    match app.store.ping().await {
        Ok(()) => HttpResponse::Ok().body("ready\n"),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("database: {error}\n")),
    }
}

async fn version() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "runner_protocol": roadstead_protocol::PROTOCOL_VERSION,
    }))
}

/// The JSON Schema of the pipeline files that this server reads.
async fn schema() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/schema+json")
        .body(spec::SCHEMA)
}
