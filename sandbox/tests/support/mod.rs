//! A real sandbox for a test: its own data directory, free ports, calls over HTTP, and everything
//! on Docker Engine removed at the end.

#![expect(
    dead_code,
    reason = "each test binary compiles this module and uses a part of it"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

#[path = "../clients/mod.rs"]
pub(crate) mod clients;
pub(crate) mod docker;
pub(crate) mod simulation;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use roadstead_sandbox::{BackendKind, Config, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up; machines that run tests are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An answer of the sandbox or of something behind it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A refusal of an AWS call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: String,
    pub message: String,
}

/// Sends one HTTP request on a connection of its own.
pub(crate) async fn http(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let exchange = async {
        let response = client.request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("{url} did not answer")))
}

/// Looks again and again until `look` gives something.
pub(crate) async fn eventually<T, Look>(what: &str, mut look: impl FnMut() -> Look) -> T
where
    Look: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A sandbox that runs in this process. Stopped and started again, it finds its state.
pub(crate) struct Sandbox {
    directory: TempDir,
    time_scale: f64,
    running: Option<Running>,
    /// Images and registries whose images go when the test ends, however it ends.
    images: Vec<String>,
    pub endpoint: String,
}

struct Running {
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        Self::start_scaled(20.0).await
    }

    /// With waits that pass `time_scale` times faster than AWS's.
    pub(crate) async fn start_scaled(time_scale: f64) -> Self {
        let mut sandbox = Self {
            directory: tempfile::tempdir().unwrap(),
            time_scale,
            running: None,
            images: Vec::new(),
            endpoint: String::new(),
        };
        sandbox.resume().await;
        sandbox
    }

    pub(crate) fn data(&self) -> &Path {
        self.directory.path()
    }

    fn endpoint_file(&self) -> PathBuf {
        self.data().join("endpoint")
    }

    /// Starts again on the same data directory.
    pub(crate) async fn resume(&mut self) {
        assert!(self.running.is_none(), "the sandbox runs already");
        let mut config = Config::new(self.data());
        config.listen.set_port(0);
        config.registry_listen.set_port(0);
        config.backend = BackendKind::Docker;
        config.time_scale = self.time_scale;
        config.record_answers = true;
        // A stale address must not be taken for the new one.
        let _ = std::fs::remove_file(self.endpoint_file());
        let (stop, stopped) = oneshot::channel();
        let mut server = tokio::spawn(serve(config, async {
            let _ = stopped.await;
        }));
        let file = self.endpoint_file();
        let endpoint = eventually("the sandbox to start", || {
            let file = file.clone();
            async move {
                let text = std::fs::read_to_string(file).ok()?;
                text.ends_with('\n').then(|| text.trim().to_owned())
            }
        });
        tokio::select! {
            endpoint = endpoint => self.endpoint = endpoint,
            ended = &mut server => panic!("the sandbox ended at start: {ended:?}"),
        }
        self.running = Some(Running { stop, server });
        // What the test pushes or pulls is tagged with the registry's address, which is its own.
        let (_, registry) = self.token().await;
        self.images.push(format!("{registry}/"));
    }

    /// Stops the sandbox; its containers go on.
    pub(crate) async fn halt(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.server.await.unwrap().unwrap();
    }

    /// Stops the sandbox, and fails when it does not stop well or had an answer that AWS's API models do
    /// not know. What it labelled goes with it.
    pub(crate) async fn finish(mut self) {
        if self.running.is_some() {
            self.halt().await;
        }
        clients::answers::check_answers(self.data());
    }

    /// Removes an image when the test ends.
    pub(crate) fn remove_at_end(&mut self, image: &str) {
        self.images.push(image.to_owned());
    }

    /// The value of the label of this sandbox's containers.
    pub(crate) fn instance(&self) -> String {
        let text = std::fs::read_to_string(self.data().join("instance.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn json(&self, target: &str, input: &Value) -> Result<Value, Refused> {
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target),
        ];
        let answer = http(Method::POST, &self.endpoint, &headers, input.to_string()).await;
        let answer = answer.unwrap();
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(value);
        }
        Err(Refused {
            code: value["__type"].as_str().unwrap_or_default().to_owned(),
            message: value["message"].as_str().unwrap_or_default().to_owned(),
        })
    }

    pub(crate) async fn ecs(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.json(&target, &input).await
    }

    pub(crate) async fn ecr(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        self.json(&target, &input).await
    }

    pub(crate) async fn logs(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        self.json(&format!("Logs_20140328.{operation}"), &input)
            .await
    }

    /// A call of Cloud Map.
    pub(crate) async fn discovery(&self, operation: &str, input: Value) -> Result<Value, Refused> {
        self.json(&format!("Route53AutoNaming_v20170314.{operation}"), &input)
            .await
    }

    /// A call of the Query protocol; the whole XML comes back.
    pub(crate) async fn query(&self, version: &str, form: &[(&str, &str)]) -> Answer {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.append_pair("Version", version);
        body.extend_pairs(form);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        http(Method::POST, &self.endpoint, &headers, body.finish())
            .await
            .unwrap()
    }

    pub(crate) async fn elb(&self, form: &[(&str, &str)]) -> Answer {
        self.query("2015-12-01", form).await
    }

    /// A fresh registry token's password, and the registry's address.
    pub(crate) async fn token(&self) -> (String, String) {
        use base64::Engine;
        let answer = self.ecr("GetAuthorizationToken", json!({})).await.unwrap();
        let data = &answer["authorizationData"][0];
        let token = data["authorizationToken"].as_str().unwrap();
        let token = base64::prelude::BASE64_STANDARD.decode(token).unwrap();
        let token = String::from_utf8(token).unwrap();
        let password = token.strip_prefix("AWS:").unwrap().to_owned();
        let endpoint = data["proxyEndpoint"].as_str().unwrap();
        (
            password,
            endpoint.strip_prefix("http://").unwrap().to_owned(),
        )
    }
}

impl Drop for Sandbox {
    /// Removes what the test made on Docker Engine, also when it failed.
    fn drop(&mut self) {
        let instance = std::fs::read_to_string(self.data().join("instance.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<String>(&text).ok());
        let images = std::mem::take(&mut self.images);
        // A thread of its own, because a runtime cannot wait for another one.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                if let Some(instance) = instance {
                    docker::remove_labelled(&instance).await;
                }
                for image in images {
                    docker::remove_images_of(&image).await;
                }
            });
        });
        if removal.join().is_err() {
            eprintln!("a test could not remove everything from Docker Engine");
        }
    }
}

/// The text of the first `<name>` in some XML.
pub(crate) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

/// A name that no other test or run uses.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}
