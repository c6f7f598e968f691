//! The registry adapter against the sandbox's ECR with its real registry behind it.

use crate::support::Sandbox;
use roadstead_pipelines::id::ImageDigest;
use roadstead_sandbox::BackendKind::Docker;
use roadstead_server::adapters::registry::{Confirmed, Registry};
use serde_json::json;
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[tokio::test]
async fn a_repository_is_made_once_and_shows_what_was_pushed_with_its_login() {
    let sandbox = Sandbox::start(Docker).await;
    let registry = Registry::new(sandbox.aws());
    let uri = registry.ensure_repository("shop/app").await.unwrap();
    assert_eq!(registry.ensure_repository("shop/app").await.unwrap(), uri);
    assert_eq!(sandbox.effective("CreateRepository").await, 1);
    let login = registry.push_credentials().await.unwrap();
    assert_eq!(uri, format!("{}/shop/app", login.registry));

    // Pushed as the registry's own protocol says, an image of no layers.
    let http = reqwest::Client::new();
    let base = format!("http://{}/v2/shop/app", login.registry);
    let secret = Some(&login.password);
    let refused = http
        .post(format!("{base}/blobs/uploads/"))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let configuration =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let begin = http
        .post(format!("{base}/blobs/uploads/"))
        .basic_auth(&login.username, secret);
    let begun = begin.send().await.unwrap();
    let place = begun.headers()["location"].to_str().unwrap().to_owned();
    let place = url::Url::parse(&base).unwrap().join(&place).unwrap();
    let upload = http.put(place).query(&[("digest", digest(configuration))]);
    let upload = upload
        .basic_auth(&login.username, secret)
        .body(configuration.to_vec());
    assert_eq!(upload.send().await.unwrap().status().as_u16(), 201);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "layers": [],
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": configuration.len(), "digest": digest(configuration),
        },
    });
    let manifest = manifest.to_string();
    let push = http
        .put(format!("{base}/manifests/git-1"))
        .header("content-type", kind);
    let push = push
        .basic_auth(&login.username, secret)
        .body(manifest.clone());
    assert_eq!(push.send().await.unwrap().status().as_u16(), 201);

    let pushed = ImageDigest::parse(&digest(manifest.as_bytes())).unwrap();
    assert_eq!(
        registry.confirm(&uri, &pushed).await.unwrap(),
        Confirmed::Found
    );
    let other = ImageDigest::parse(&digest(b"something else")).unwrap();
    assert_eq!(
        registry.confirm(&uri, &other).await.unwrap(),
        Confirmed::Missing
    );
    let nowhere = format!("{}/no/such", login.registry);
    assert_eq!(
        registry.confirm(&nowhere, &pushed).await.unwrap(),
        Confirmed::Missing
    );

    let error = registry.ensure_repository("Not Allowed").await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    sandbox.fault("GetAuthorizationToken", "throttle", 10).await;
    assert!(
        registry
            .push_credentials()
            .await
            .unwrap_err()
            .is_transient()
    );
    sandbox.stop().await;
}
