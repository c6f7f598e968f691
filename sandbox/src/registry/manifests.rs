//! Manifests and tags as the real registry's HTTP API tells them.
//!
//! Must not know: ECR, tokens.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::upstream::Upstream;
use crate::proxy::http::{Client, full};

/// Every kind of manifest, so that the registry answers with what was pushed.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json";

/// The type of a list of manifests.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The header that names what was stored.
const DIGEST: &str = "docker-content-digest";

const NO_DELETION: &str =
    "it does not allow that; start it with REGISTRY_STORAGE_DELETE_ENABLED=true";

/// The registry itself takes no larger manifest.
const LARGEST_REPLY: usize = 4 << 20;

/// The registry did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("the registry did not answer {method} {path}: {reason}")]
pub(crate) struct RegistryError {
    method: Method,
    path: String,
    reason: String,
}

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub digest: String,
    pub media_type: String,
    pub content: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    config: Option<SizedPart>,
    #[serde(default)]
    layers: Vec<SizedPart>,
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SizedPart {
    size: u64,
    media_type: Option<String>,
}

impl Manifest {
    /// Bytes of the compressed layers; None for an index, which has none of its own.
    pub(crate) fn size(&self) -> Option<u64> {
        let content: Content = serde_json::from_slice(&self.content).ok()?;
        let layers = content.config.is_some().then_some(content.layers)?;
        Some(layers.iter().map(|layer| layer.size).sum())
    }

    /// What the image is an instance of: its artifact type or its configuration's media type.
    pub(crate) fn artifact_type(&self) -> Option<String> {
        let content: Content = serde_json::from_slice(&self.content).ok()?;
        content.artifact_type.or(content.config?.media_type)
    }
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

/// Asks the registry itself, behind the check of tokens.
pub(super) struct Manifests<'a> {
    pub(super) client: &'a Client,
    pub(super) upstream: &'a Upstream,
}

impl Manifests<'_> {
    /// The digest that a tag or digest stands for; None when there is no such image.
    pub(super) async fn digest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<String>, RegistryError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let (response, _) = self.send(Method::HEAD, &path).await?;
        match response.status() {
            StatusCode::OK => header_text(&response, DIGEST)
                .map(Some)
                .ok_or_else(|| failed(&Method::HEAD, &path, &"no digest in the reply")),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(failed(&Method::HEAD, &path, &status)),
        }
    }

    /// The manifest that a tag or digest stands for; None when there is no such image.
    pub(super) async fn get(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Manifest>, RegistryError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let (response, content) = self.send(Method::GET, &path).await?;
        match response.status() {
            StatusCode::OK => {
                let digest = header_text(&response, DIGEST);
                let media_type = header_text(&response, header::CONTENT_TYPE.as_str());
                let (Some(digest), Some(media_type)) = (digest, media_type) else {
                    return Err(failed(
                        &Method::GET,
                        &path,
                        &"no digest or type in the reply",
                    ));
                };
                Ok(Some(Manifest {
                    digest,
                    media_type,
                    content,
                }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(failed(&Method::GET, &path, &status)),
        }
    }

    /// The tags of a repository, sorted; none when nothing was pushed yet.
    pub(super) async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        let path = format!("/v2/{repository}/tags/list");
        let (response, content) = self.send(Method::GET, &path).await?;
        match response.status() {
            StatusCode::OK => {
                let list: Tags = serde_json::from_slice(&content)
                    .map_err(|error| failed(&Method::GET, &path, &error))?;
                let mut tags = list.tags.unwrap_or_default();
                tags.sort_unstable();
                Ok(tags)
            }
            StatusCode::NOT_FOUND => Ok(Vec::new()),
            status => Err(failed(&Method::GET, &path, &status)),
        }
    }

    /// Deletes a manifest with all its tags. One that is not there is as good as deleted.
    pub(super) async fn delete(&self, repository: &str, digest: &str) -> Result<(), RegistryError> {
        let path = format!("/v2/{repository}/manifests/{digest}");
        let (response, _) = self.send(Method::DELETE, &path).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NOT_FOUND => Ok(()),
            StatusCode::METHOD_NOT_ALLOWED => Err(failed(&Method::DELETE, &path, &NO_DELETION)),
            status => Err(failed(&Method::DELETE, &path, &status)),
        }
    }

    /// Takes a tag from its image, which stays. Registries delete manifests, not tags, so the tag is
    /// moved to a manifest of nothing first, and goes with that one.
    pub(super) async fn untag(&self, repository: &str, tag: &str) -> Result<(), RegistryError> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        // Never the same twice: what else had this digest would go, too.
        let nothing = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [],
            "annotations": { "untagged": format!("{:032x}", rand::random::<u128>()) },
        });
        let (response, _) = self
            .exchange(Method::PUT, &path, Some(nothing.to_string()))
            .await?;
        if response.status() != StatusCode::CREATED {
            return Err(failed(&Method::PUT, &path, &response.status()));
        }
        let digest = header_text(&response, DIGEST)
            .ok_or_else(|| failed(&Method::PUT, &path, &"no digest in the reply"))?;
        self.delete(repository, &digest).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
    ) -> Result<(Response<()>, Bytes), RegistryError> {
        self.exchange(method, path, None).await
    }

    /// Sends an index, if there is one to send.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        index: Option<String>,
    ) -> Result<(Response<()>, Bytes), RegistryError> {
        let mut request = Request::builder().method(method.clone());
        if index.is_some() {
            request = request.header(header::CONTENT_TYPE, INDEX);
        }
        let request = request
            .uri(format!("http://{}{path}", self.upstream.authority()))
            .header(header::ACCEPT, ACCEPT)
            .body(full(index.unwrap_or_default()))
            .map_err(|error| failed(&method, path, &error))?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| failed(&method, path, &error))?;
        let (head, body) = response.into_parts();
        let content = Limited::new(body, LARGEST_REPLY)
            .collect()
            .await
            .map_err(|error| failed(&method, path, &error))?
            .to_bytes();
        Ok((Response::from_parts(head, ()), content))
    }
}

fn failed(method: &Method, path: &str, reason: &dyn std::fmt::Display) -> RegistryError {
    RegistryError {
        method: method.clone(),
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn header_text(response: &Response<()>, name: &str) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}
