//! The token check in front of the registry, ECR's rules about pushes, and the faults that they meet.
//!
//! Layers stream through; only manifests, which are small, are read as a whole, because whether a
//! tag may be set must be decided before the registry sees it. Refusals are in the error format of
//! the OCI distribution specification, so that Docker shows their text.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::http::{Body, answer as answer_with, full};
use crate::calls::Call;
use crate::faults::{Dropped, FaultKind};
use crate::registry::Registry;

/// The registry refuses larger manifests, too.
const LARGEST_MANIFEST: usize = 4 << 20;

const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
const VERSION_HEADER: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What a path below `/v2/` is about.
#[derive(Debug, PartialEq, Eq)]
struct Route<'a> {
    repository: &'a str,
    about: About<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About<'a> {
    /// A manifest by its tag or digest.
    Manifest(&'a str),
    /// A layer or a configuration by its digest.
    Blob(&'a str),
    /// An upload of a blob by its id; empty before it has begun.
    Upload(&'a str),
    /// Lists, which AWS has no call of this kind for.
    Other,
}

impl<'a> Route<'a> {
    /// None for paths that belong to no repository, such as `/v2/` itself.
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2/")?;
        let (repository, kind, rest) = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
            .into_iter()
            .filter_map(|kind| {
                let (repository, rest) = path.rsplit_once(kind)?;
                Some((repository, kind, rest))
            })
            .min_by_key(|(repository, ..)| repository.len())?;
        let about = match (kind, rest.strip_prefix("uploads/")) {
            ("/manifests/", _) => About::Manifest(rest),
            ("/blobs/", Some(upload)) => About::Upload(upload),
            ("/blobs/", None) => About::Blob(rest),
            _ => About::Other,
        };
        Some(Self { repository, about })
    }

    /// The call that this is in AWS's own log, which its clients make in its place: the operation and
    /// the request. None for what AWS logs nothing of.
    fn call(&self, method: &Method) -> Option<(&'static str, Value)> {
        let (operation, mut request) = match (self.about, method) {
            (About::Manifest(reference), &Method::PUT) => ("PutImage", image_id(reference)),
            (About::Manifest(reference), &Method::GET | &Method::HEAD) => (
                "BatchGetImage",
                json!({ "imageIds": [image_id(reference)] }),
            ),
            (About::Blob(digest), &Method::GET) => {
                ("GetDownloadUrlForLayer", json!({ "layerDigest": digest }))
            }
            (About::Blob(digest), &Method::HEAD) => (
                "BatchCheckLayerAvailability",
                json!({ "layerDigests": [digest] }),
            ),
            (About::Upload(_), &Method::POST) => ("InitiateLayerUpload", json!({})),
            (About::Upload(id), &Method::PATCH) => ("UploadLayerPart", json!({ "uploadId": id })),
            (About::Upload(id), &Method::PUT) => ("CompleteLayerUpload", json!({ "uploadId": id })),
            _ => return None,
        };
        request["repositoryName"] = json!(self.repository);
        Some((operation, request))
    }
}

fn image_id(reference: &str) -> Value {
    if reference.contains(':') {
        json!({ "imageDigest": reference })
    } else {
        json!({ "imageTag": reference })
    }
}

/// Answers one request of a registry client.
pub(crate) async fn answer(
    registry: Arc<Registry>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let authorized = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| registry.authorizes(value));
    if !authorized {
        return Ok(unauthorized(&registry));
    }
    let path = request.uri().path().to_owned();
    let Some(route) = Route::parse(&path) else {
        return Ok(forward(&registry, request.map(BodyExt::boxed_unsync)).await);
    };
    if !registry
        .records()
        .repositories
        .contains_key(route.repository)
    {
        return Ok(refusal(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            &format!(
                "The repository with name '{}' does not exist in the registry",
                route.repository
            ),
        ));
    }
    let call = route.call(request.method());
    let answered = async {
        match (request.method(), route.about) {
            (&Method::PUT, About::Manifest(reference)) => {
                put_manifest(&registry, &route, reference, request).await
            }
            (&Method::DELETE, About::Manifest(_)) => {
                let refused = refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "UNSUPPORTED",
                    "Images are deleted with ECR's BatchDeleteImage",
                );
                (refused, false)
            }
            (method, _) => {
                let reads = matches!(*method, Method::GET | Method::HEAD);
                let response = forward(&registry, request.map(BodyExt::boxed_unsync)).await;
                let changed = !reads && response.status().is_success();
                (response, changed)
            }
        }
    };
    match call {
        Some((operation, asked)) => perform(&registry, operation, asked, answered).await,
        None => Ok(answered.await.0),
    }
}

/// Answers a request as the call that it is: it may meet a fault. The call log tells of every push, and
/// of what else met a fault; whoever pulls or uploads makes too many requests to have them all there.
/// `answered` is the answer, and whether it changed anything; a fault may leave it undone.
async fn perform(
    registry: &Registry,
    operation: &str,
    asked: Value,
    answered: impl Future<Output = (Response<Body>, bool)>,
) -> Result<Response<Body>, Dropped> {
    let fault = registry.faults().meet(operation);
    fault.begin(&asked).await;
    let injected = |message| refusal(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message);
    let (response, effective) = match fault.kind {
        Some(FaultKind::Throttle) => {
            let refused = StatusCode::TOO_MANY_REQUESTS;
            (refusal(refused, "TOOMANYREQUESTS", "Rate exceeded"), false)
        }
        Some(FaultKind::Deny) => {
            let message = format!("User is not authorized to perform: ecr:{operation}");
            let refused = refusal(StatusCode::FORBIDDEN, "DENIED", &message);
            (refused, false)
        }
        Some(FaultKind::FailBefore) => (injected("An injected failure."), false),
        Some(FaultKind::FailAfter) => {
            let (_, changed) = answered.await;
            (injected("An injected failure after the effect."), changed)
        }
        // The others are about the answer's way, or about answers that only the API has.
        _ => answered.await,
    };
    let status = response.status();
    if operation == "PutImage" || fault.kind.is_some() {
        let entry = Call {
            at: registry.clock().now().epoch_seconds(),
            service: "ecr".to_owned(),
            operation: operation.to_owned(),
            request: asked.clone(),
            status: status.as_u16(),
            error: (!status.is_success()).then(|| status.to_string()),
            effective,
            fault: fault.kind.map(|kind| kind.word().to_owned()),
            answer: None,
        };
        if let Err(error) = registry.calls().append(&entry) {
            tracing::error!(%error, "cannot write the call log");
        }
    }
    fault.end(&asked).await?;
    Ok(response)
}

/// Stores a manifest. The answer, and whether the reference stands for another image than before.
async fn put_manifest(
    registry: &Registry,
    route: &Route<'_>,
    reference: &str,
    request: Request<Incoming>,
) -> (Response<Body>, bool) {
    let (head, body) = request.into_parts();
    let manifest = match Limited::new(body, LARGEST_MANIFEST).collect().await {
        Ok(manifest) => manifest.to_bytes(),
        Err(error) => {
            let refused = refusal(
                StatusCode::BAD_REQUEST,
                "MANIFEST_INVALID",
                &format!("The manifest could not be read: {error}"),
            );
            return (refused, false);
        }
    };
    let media_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/octet-stream")
        .to_owned();
    let _turn = registry.lock_tags().await;
    let before = match registry.digest(route.repository, reference).await {
        Ok(before) => before,
        Err(error) => {
            let refused = refusal(StatusCode::BAD_GATEWAY, "UNKNOWN", &error.to_string());
            return (refused, false);
        }
    };
    if before.is_some()
        && !reference.contains(':')
        && let Some(refused) = refuse_moving(registry, route.repository, reference)
    {
        return (refused, false);
    }
    let response = forward(registry, Request::from_parts(head, full(manifest))).await;
    if response.status() != StatusCode::CREATED {
        return (response, false);
    }
    let digest = response
        .headers()
        .get(DIGEST_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let changed = before.as_deref() != Some(digest);
    match registry
        .record_push(route.repository, digest, &media_type)
        .await
    {
        Ok(()) => (response, changed),
        Err(error) => {
            let failed = refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                &format!("The sandbox could not store the push: {error}"),
            );
            (failed, changed)
        }
    }
}

/// A refusal when this tag, which exists, must stay where it is. Like AWS's, it does not matter
/// whether the tag would move or point to the same image again.
fn refuse_moving(registry: &Registry, repository: &str, tag: &str) -> Option<Response<Body>> {
    let records = registry.records();
    let mutability = &records.repositories.get(repository)?.mutability;
    (!mutability.allows_moving(tag)).then(|| {
        refusal(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            &format!(
                "The image tag '{tag}' already exists in the '{repository}' repository and cannot be \
                 overwritten because the tag is immutable."
            ),
        )
    })
}

async fn forward(registry: &Registry, mut request: Request<Body>) -> Response<Body> {
    // The registry behind checks no credentials; it need not see them.
    request.headers_mut().remove(header::AUTHORIZATION);
    let forwarded = registry.client().forward(request, registry.upstream());
    match forwarded.await {
        Ok(mut response) => {
            keep_location_here(&mut response);
            response
        }
        Err(error) => refusal(
            StatusCode::BAD_GATEWAY,
            "UNKNOWN",
            &format!("The registry behind the sandbox does not answer: {error}"),
        ),
    }
}

/// Makes an absolute `Location` one of this address, so that clients do not leave the token check.
fn keep_location_here(response: &mut Response<Body>) {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<Uri>().ok());
    if let Some(location) = location.filter(|it| it.authority().is_some())
        && let Some(path) = location.path_and_query()
        && let Ok(path) = HeaderValue::from_str(path.as_str())
    {
        response.headers_mut().insert(header::LOCATION, path);
    }
}

fn unauthorized(registry: &Registry) -> Response<Body> {
    let mut response = refusal(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        "Not Authorized: the token is missing, wrong or has ended; get one with ECR's GetAuthorizationToken",
    );
    let realm = format!(
        "Basic realm=\"http://{}/\",service=\"ecr\"",
        registry.address()
    );
    if let Ok(realm) = HeaderValue::try_from(realm) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, realm);
    }
    response
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    let mut response = answer_with(status, "application/json", Bytes::from(body));
    response
        .headers_mut()
        .insert(VERSION_HEADER, HeaderValue::from_static("registry/2.0"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_repositories_and_what_they_are_about() {
        for (path, expected) in [
            ("/v2/", None),
            ("/v2/_catalog", None),
            ("/v2/web/manifests/v1", Some(("web", About::Manifest("v1")))),
            (
                "/v2/team/web/manifests/sha256:ab",
                Some(("team/web", About::Manifest("sha256:ab"))),
            ),
            (
                "/v2/team/web/blobs/uploads/",
                Some(("team/web", About::Upload(""))),
            ),
            ("/v2/web/blobs/uploads/7", Some(("web", About::Upload("7")))),
            (
                "/v2/web/blobs/sha256:ab",
                Some(("web", About::Blob("sha256:ab"))),
            ),
            ("/v2/web/tags/list", Some(("web", About::Other))),
        ] {
            let route = Route::parse(path).map(|it| (it.repository, it.about));
            assert_eq!(route, expected, "{path}");
        }
    }

    #[test]
    fn locations_stay_on_this_address() {
        for (given, expected) in [
            (
                "http://127.0.0.1:9/v2/web/blobs/uploads/1?_state=x",
                "/v2/web/blobs/uploads/1?_state=x",
            ),
            ("/v2/web/blobs/uploads/1", "/v2/web/blobs/uploads/1"),
        ] {
            let mut response = Response::new(full(Bytes::new()));
            response
                .headers_mut()
                .insert(header::LOCATION, HeaderValue::from_static(given));
            keep_location_here(&mut response);
            assert_eq!(response.headers()[header::LOCATION], expected);
        }
    }
}
