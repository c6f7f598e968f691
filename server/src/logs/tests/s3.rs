//! An S3-compatible server that is not ours, moto, behind a proxy that does to calls what networks and stores do.

use crate::adapters::bucket::{Bucket, Patience};
use crate::config::S3;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// The versions that the tests were written for.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.2"];
pub(crate) const BUCKET: &str = "logs-of-tests";
const PREFIX: &str = "roadstead/logs";

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before the store hears of it.
    Cut,
    /// The store does it, and the connection breaks before its answer.
    LoseReply,
    /// The store says this, and does nothing.
    Answer(u16, &'static str),
    /// The store does nothing, and says nothing either.
    Hang,
    /// The store hears of it without its condition.
    Unconditional,
}

/// A call to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The object's name below the prefix; empty for calls about the bucket.
    pub(crate) object: String,
}

type Plan = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

#[derive(Default)]
struct Seen {
    plan: Option<Plan>,
    calls: Vec<Call>,
}

/// moto and the proxy before it, with an empty bucket. Both end with this.
pub(crate) struct S3Server {
    moto: Child,
    behind: SocketAddr,
    proxy: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.moto.kill();
        let _ = self.moto.wait();
    }
}

fn check(what: &str, output: &std::process::Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

/// A Python that has moto, made once per target directory; several test processes may ask at the same time.
fn python() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // target/debug/deps/name-hash
    let root = own.ancestors().nth(3).unwrap().join("tmp");
    std::fs::create_dir_all(&root).unwrap();
    let environment = root.join(PACKAGES[0]);
    let lock = File::create(root.join(format!("{}.lock", PACKAGES[0]))).unwrap();
    lock.lock().unwrap();
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    if !complete.exists() {
        let made = Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment)
            .output()
            .expect("python3 with venv is installed");
        check("python3 -m venv", &made);
        let installed = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .arg("--disable-pip-version-check")
            .args(PACKAGES)
            .output()
            .expect("pip starts");
        check("pip install", &installed);
        std::fs::write(&complete, "").unwrap();
    }
    python
}

impl S3Server {
    pub(crate) async fn start() -> Self {
        let python = tokio::task::spawn_blocking(python).await.unwrap();
        let (moto, behind) = moto(&python).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let server = Self {
            moto,
            behind,
            proxy,
            seen: Arc::clone(&seen),
        };
        tokio::spawn(accept(listener, behind, seen));
        let client = client();
        let made = Request::put(format!("http://{behind}/{BUCKET}"))
            .header("content-type", "application/xml")
            .body(Full::from(
                "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint>\
                 </CreateBucketConfiguration>",
            ));
        let made = client.request(made.unwrap()).await.unwrap();
        assert_eq!(made.status(), StatusCode::OK);
        server
    }

    /// As a configuration names it.
    pub(crate) fn settings(&self) -> S3 {
        S3 {
            bucket: BUCKET.into(),
            prefix: PREFIX.into(),
            region: Some("eu-west-1".into()),
            endpoint_url: Some(format!("http://{}", self.proxy)),
            access_key_id: Some("key".into()),
            secret_access_key: Some("secret".into()),
        }
    }

    /// Reached through the proxy, by somebody who does not wait for long.
    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::new(&self.settings(), "eu-west-1", quick()).unwrap()
    }

    /// Reached without the proxy.
    pub(crate) fn behind(&self) -> Bucket {
        let settings = S3 {
            endpoint_url: Some(format!("http://{}", self.behind)),
            ..self.settings()
        };
        Bucket::new(&settings, "eu-west-1", quick()).unwrap()
    }

    /// What becomes of calls from now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.seen.lock().unwrap().plan = Some(Box::new(plan));
    }

    /// All goes well from now on.
    pub(crate) fn heal(&self) {
        self.seen.lock().unwrap().plan = None;
    }

    /// The calls since this was asked last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.seen.lock().unwrap().calls)
    }

    /// Names of all objects below a folder.
    pub(crate) async fn objects(&self, folder: &str) -> Vec<String> {
        let listed = self.behind().list(folder, None, usize::MAX).await.unwrap();
        listed.into_iter().map(|(name, _)| name).collect()
    }
}

/// Waits that a test can afford.
fn quick() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        call: Duration::from_secs(5),
        pause: Duration::from_millis(20),
        retries: 1,
        tries: Duration::from_secs(2),
    }
}

/// Starts moto on a free port, and again on another one if that was taken meanwhile.
async fn moto(python: &Path) -> (Child, SocketAddr) {
    for _ in 0..5 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(address.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        for _ in 0..1_200 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let asked = Request::get(format!("http://{address}/moto-api/"));
            let asked = client().request(asked.body(Full::default()).unwrap());
            if asked.await.is_ok_and(|answer| answer.status().is_success()) {
                return (child, address);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("moto does not start");
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn accept(listener: TcpListener, behind: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let client = client();
    // moto looks whether an object is there and makes it in two steps; the store that it stands for does not.
    let one_by_one = Arc::new(tokio::sync::Mutex::new(()));
    while let Ok((stream, _)) = listener.accept().await {
        let (client, seen, one_by_one) =
            (client.clone(), Arc::clone(&seen), Arc::clone(&one_by_one));
        tokio::spawn(async move {
            let service = service_fn(|request| pass(request, behind, &client, &seen, &one_by_one));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn pass(
    request: Request<Incoming>,
    behind: SocketAddr,
    client: &Client<HttpConnector, Full<Bytes>>,
    seen: &Mutex<Seen>,
    one_by_one: &tokio::sync::Mutex<()>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "cut")?.to_bytes();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let object = parts
        .uri
        .path()
        .strip_prefix(&format!("/{BUCKET}/{PREFIX}/"));
    let call = Call {
        method: parts.method.clone(),
        object: object.unwrap_or_default().to_owned(),
    };
    let fault = {
        let mut seen = seen.lock().unwrap();
        let fault = seen.plan.as_mut().and_then(|plan| plan(&call));
        seen.calls.push(call);
        fault
    };
    match fault {
        Some(Fault::Cut) => return Err("cut"),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Answer(status, code)) => {
            let text =
                format!("<Error><Code>{code}</Code><Message>said the proxy</Message></Error>");
            let answer = Response::builder().status(status);
            return Ok(answer.body(Full::from(text)).unwrap());
        }
        Some(Fault::Unconditional) => drop(parts.headers.remove("if-none-match")),
        Some(Fault::LoseReply) | None => {}
    }
    parts.uri = format!("http://{behind}{path}").parse().unwrap();
    let alone = match parts.method {
        Method::GET | Method::HEAD => None,
        _ => Some(one_by_one.lock().await),
    };
    let answer = client.request(Request::from_parts(parts, Full::from(body)));
    let answer = answer.await.map_err(|_| "the store is gone")?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|_| "the store is gone")?;
    drop(alone);
    if fault == Some(Fault::LoseReply) {
        return Err("lost");
    }
    Ok(Response::from_parts(parts, Full::from(body.to_bytes())))
}
