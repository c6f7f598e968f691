//! Style sheets, scripts and pictures. Public: the sign-in page needs them.

use super::super::error::HttpError;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_web::assets;

/// One file; for ever when the address names this build's files, else checked each time.
///
/// # Errors
/// 404 when there is no such file.
pub(super) async fn send(
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let found = assets::asset(&path)
        .ok_or_else(|| HttpError::not_found("this file is not part of the dashboard"))?;
    let caching = if found.immutable {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = request.headers().get(header::IF_NONE_MATCH);
    let mut answer = if known.is_some_and(|known| known.as_bytes() == found.etag.as_bytes()) {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    answer
        .insert_header((header::CACHE_CONTROL, caching))
        .insert_header((header::ETAG, found.etag))
        .content_type(found.content_type);
    Ok(answer.body(found.bytes.into_owned()))
}
