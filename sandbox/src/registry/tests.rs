//! A registry that runs elsewhere, played by a real one.

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode, header};
use serde_json::json;
use tempfile::TempDir;

use super::process::RegistryProcess;
use super::*;
use crate::config::RegistryAddress;
use crate::proxy::http::{Body, full};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct Bench {
    directory: TempDir,
    elsewhere: RegistryProcess,
    registry: Arc<Registry>,
}

fn config(directory: &Path, upstream: SocketAddr) -> Config {
    let mut config = Config::new(directory);
    config.registry_listen.set_port(0);
    config.registry_upstream = Some(format!("http://{upstream}").parse().unwrap());
    config
}

async fn start(config: &Config, clock: Clock) -> anyhow::Result<Arc<Registry>> {
    let calls = Arc::new(CallLog::open(&config.data)?);
    Registry::start(config, clock, Faults::default(), calls).await
}

impl Bench {
    /// With these repositories.
    async fn new(repositories: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("elsewhere");
        std::fs::create_dir(&images).unwrap();
        let elsewhere = RegistryProcess::start(&images).await.unwrap();
        let config = config(directory.path(), elsewhere.address());
        let clock = Clock::new(1.0).unwrap();
        let registry = start(&config, clock).await.unwrap();
        let change = |records: &mut EcrRecords| {
            for name in repositories {
                let repository = Repository {
                    created_at: clock.now(),
                    mutability: TagMutability::default(),
                    images: Default::default(),
                    scans: Default::default(),
                    lifecycle_policy: None,
                };
                records.repositories.insert((*name).to_owned(), repository);
            }
            Ok::<_, DiskError>(())
        };
        registry.change(change).await.unwrap();
        Self {
            directory,
            elsewhere,
            registry,
        }
    }

    /// Pushes through the check of tokens an index of nothing that is called `name`; gives its digest.
    async fn push(&self, repository: &str, tag: &str, name: &str) -> String {
        let content = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": { "name": name },
        });
        let login = format!("{TOKEN_USER}:{}", self.registry.own_password());
        let address = self.registry.address();
        let request = Request::put(format!("http://{address}/v2/{repository}/manifests/{tag}"))
            .header(header::CONTENT_TYPE, INDEX)
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", BASE64_STANDARD.encode(login)),
            )
            .body(full(content.to_string()))
            .unwrap();
        let (status, _, digest) = send(request).await;
        assert_eq!(status, StatusCode::CREATED);
        digest.unwrap()
    }

    /// What the registry elsewhere itself says a tag or digest stands for.
    async fn elsewhere(&self, repository: &str, reference: &str) -> Option<String> {
        let address = self.elsewhere.address();
        let request = Request::builder()
            .method(Method::HEAD)
            .uri(format!(
                "http://{address}/v2/{repository}/manifests/{reference}"
            ))
            .header(header::ACCEPT, INDEX)
            .body(full(""))
            .unwrap();
        match send(request).await {
            (StatusCode::OK, _, digest) => digest,
            (StatusCode::NOT_FOUND, ..) => None,
            (status, ..) => panic!("{repository}:{reference}: {status}"),
        }
    }

    async fn finish(self) {
        self.registry.shut_down().await;
        // It is somebody else's: the sandbox has not ended it.
        let address = self.elsewhere.address();
        let request = Request::get(format!("http://{address}/v2/")).body(full(""));
        assert_eq!(send(request.unwrap()).await.0, StatusCode::OK);
        self.elsewhere.shut_down().await;
    }
}

async fn send(request: Request<Body>) -> (StatusCode, String, Option<String>) {
    let response: Response<_> = Client::new().send(request).await.unwrap();
    let digest = response.headers().get("docker-content-digest");
    let digest = digest.map(|it| it.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned(), digest)
}

#[tokio::test]
async fn a_token_ends_after_twelve_hours() {
    let bench = Bench::new(&["shop"]).await;
    let registry = &bench.registry;
    let issued = registry.issue_token().await.unwrap();
    let life = issued.expires_at.since(registry.clock.now());
    let twelve_hours = Duration::from_secs(12 * 60 * 60);
    assert!(life <= twelve_hours && life > twelve_hours - Duration::from_secs(60));
    let login = BASE64_STANDARD.encode(format!("{TOKEN_USER}:{}", issued.password));
    let ask = async || {
        let address = registry.address();
        let request = Request::get(format!("http://{address}/v2/"))
            .header(header::AUTHORIZATION, format!("Basic {login}"))
            .body(full(""));
        send(request.unwrap()).await.0
    };
    assert_eq!(ask().await, StatusCode::OK);
    // Its end comes; the clock is the wall's.
    let end = registry.clock.now();
    let change = |records: &mut EcrRecords| {
        records.tokens.values_mut().for_each(|ends| *ends = end);
        Ok::<_, DiskError>(())
    };
    registry.change(change).await.unwrap();
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    bench.finish().await;
}

#[tokio::test]
async fn pushes_go_through_the_check_to_the_registry_elsewhere() {
    let bench = Bench::new(&["shop"]).await;
    let address = bench.registry.address();
    let request = Request::get(format!("http://{address}/v2/shop/manifests/v1")).body(full(""));
    let (status, said, _) = send(request.unwrap()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");

    let digest = bench.push("shop", "v1", "one").await;
    assert_eq!(bench.elsewhere("shop", "v1").await, Some(digest.clone()));
    assert_eq!(
        bench.registry.digest("shop", "v1").await.unwrap(),
        Some(digest)
    );
    // Nothing was started here.
    assert!(
        !bench
            .directory
            .path()
            .join("registry/registry.yml")
            .exists()
    );
    bench.finish().await;
}

#[tokio::test]
async fn tags_and_images_elsewhere_go_by_the_registrys_own_api() {
    let bench = Bench::new(&["shop", "shop/admin"]).await;
    let one = bench.push("shop", "v1", "one").await;
    assert_eq!(bench.push("shop", "stable", "one").await, one);
    let two = bench.push("shop", "v2", "two").await;
    let other = bench.push("shop/admin", "v1", "other").await;

    bench.registry.untag("shop", "stable").await.unwrap();
    assert_eq!(bench.registry.tags("shop").await.unwrap(), ["v1", "v2"]);
    assert_eq!(bench.elsewhere("shop", "stable").await, None);
    assert_eq!(bench.elsewhere("shop", "v1").await, Some(one.clone()));

    bench.registry.delete_image("shop", &two).await.unwrap();
    assert_eq!(bench.elsewhere("shop", "v2").await, None);
    assert_eq!(bench.elsewhere("shop", &two).await, None);

    let repository = bench.registry.records().repositories["shop"].clone();
    bench.registry.clear("shop", &repository).await.unwrap();
    assert_eq!(bench.elsewhere("shop", &one).await, None);
    assert_eq!(
        bench.registry.tags("shop").await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(bench.elsewhere("shop/admin", "v1").await, Some(other));
    bench.finish().await;
}

#[tokio::test]
async fn a_registry_elsewhere_that_is_of_no_use_is_named_at_the_start() {
    let bench = Bench::new(&[]).await;
    let clock = Clock::new(1.0).unwrap();
    let another = tempfile::tempdir().unwrap();
    // The check of tokens is itself a registry that asks for credentials.
    let config = config(another.path(), bench.registry.address());
    let refused = start(&config, clock).await.err().unwrap();
    let refused = refused.to_string();
    assert!(refused.contains("asks for credentials"), "{refused}");

    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody: RegistryAddress = format!("http://{}", mute.local_addr().unwrap())
        .parse()
        .unwrap();
    let client = Client::new();
    let silent = Upstream::start(
        Some(&nobody),
        another.path(),
        &client,
        Duration::from_millis(300),
    );
    let silent = silent.await.err().unwrap().to_string();
    assert!(
        silent.contains(&nobody.to_string()) && silent.contains("--registry-upstream"),
        "{silent}"
    );
    bench.finish().await;
}
