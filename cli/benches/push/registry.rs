//! The registry that both sides push to, as a client with a token of its own sees it.
//!
//! Both sides are done when it has the manifest under the tag; it is asked the same way for both.

use anyhow::{Context, bail};
use base64::Engine;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks: what a figure may be too large by, for either side.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.manifest.v1+json";

/// A login to the sandbox's registry.
pub(crate) struct Registry {
    http: reqwest::Client,
    endpoint: String,
    host: String,
    user: String,
    password: String,
}

impl Registry {
    /// Gets a token from the ECR at `endpoint`.
    pub(crate) async fn log_in(endpoint: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let answer = ecr(&http, &endpoint, "GetAuthorizationToken", json!({})).await?;
        let data = &answer["authorizationData"][0];
        let token = data["authorizationToken"].as_str().unwrap_or_default();
        let text = base64::engine::general_purpose::STANDARD.decode(token)?;
        let text = String::from_utf8(text)?;
        let (user, password) = text.split_once(':').context("the token is no login")?;
        let host = data["proxyEndpoint"].as_str().unwrap_or_default();
        let host = host.split_once("://").map_or(host, |(_, host)| host);
        Ok(Self {
            endpoint,
            host: host.trim_end_matches('/').to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            http,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Makes a repository.
    pub(crate) async fn create(&self, name: &str) -> anyhow::Result<()> {
        let body = json!({"repositoryName": name});
        ecr(&self.http, &self.endpoint, "CreateRepository", body)
            .await
            .map(drop)
    }

    /// Whether it has this image.
    pub(crate) async fn holds(&self, repository: &str, tag: &str) -> anyhow::Result<bool> {
        let address = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let answer = self
            .http
            .head(&address)
            .basic_auth(&self.user, Some(&self.password))
            .header("accept", MANIFESTS)
            .send()
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            // No such tag, or no such repository yet.
            StatusCode::NOT_FOUND => Ok(false),
            status => bail!("the registry answers {status} to {address}"),
        }
    }
}

async fn ecr(
    http: &reqwest::Client,
    endpoint: &str,
    operation: &str,
    body: Value,
) -> anyhow::Result<Value> {
    let answer = http
        .post(endpoint)
        .header(
            "x-amz-target",
            format!("AmazonEC2ContainerRegistry_V20150921.{operation}"),
        )
        .header("content-type", "application/x-amz-json-1.1")
        // The sandbox takes any signature, but wants to see one, as AWS does.
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=bench/20260101/eu-west-1/ecr/aws4_request, \
             SignedHeaders=host, Signature=0",
        )
        .body(body.to_string())
        .send()
        .await
        .with_context(|| format!("no answer to {operation}"))?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{operation}: {status}: {text}");
    }
    Ok(serde_json::from_str(&text)?)
}
