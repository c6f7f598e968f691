//! The HTTP API as the command line uses it.

use crate::Exit;
use anyhow::Context;
use clap::Args;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// How long a whole export may take.
const LONGEST_STREAM: Duration = Duration::from_secs(6 * 3600);

/// Which server, and as whom.
#[derive(Args, Clone)]
pub(crate) struct ServerArgs {
    /// The server's address.
    #[arg(
        long,
        env = "ROADSTEAD_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub(crate) url: String,
    /// An API token.
    #[arg(long, env = "ROADSTEAD_TOKEN", hide_env_values = true, global = true)]
    pub(crate) token: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A connection to one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    /// For this server; nothing is sent yet.
    pub(crate) fn new(url: &str, token: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The JSON at an address below `/api/v1`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// Sends JSON to an address below `/api/v1`.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Puts JSON at an address below `/api/v1`.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// Removes what stands at an address below `/api/v1`.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, None).await
    }

    /// What stands at an address below `/api/v1`, however large, to be read piece by piece.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.request(Method::GET, path);
        self.accepted(request.timeout(LONGEST_STREAM)).await
    }

    /// The text at an address below `/api/v1`.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.answer(Method::GET, path, None).await?.text().await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        Ok(self.answer(method, path, body).await?.json().await?)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.accepted(request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}/api/v1{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The answer, unless it is a refusal.
    async fn accepted(&self, request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let answer = request
            .send()
            .await
            .with_context(|| format!("no answer from {}", self.url))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let said = serde_json::from_str::<Value>(&text).ok();
        let message = said
            .as_ref()
            .and_then(|v| v["message"].as_str())
            .unwrap_or(&text)
            .to_owned();
        let code = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 4,
            _ => 1,
        };
        Err(Exit {
            status: code,
            message: format!("{message} ({status})"),
        }
        .into())
    }
}
