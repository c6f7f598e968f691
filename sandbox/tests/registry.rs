//! ECR and the registry behind it, with a real Docker Engine that pushes and pulls.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

mod support;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use support::docker::{make_image, pull, push, remove_images_of, tag_image};
use support::{Sandbox, eventually, http, unique};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A sandbox with an image of its own to push.
struct Bench {
    sandbox: Sandbox,
    image: String,
    password: String,
    registry: String,
}

impl Bench {
    async fn new() -> Self {
        let mut sandbox = Sandbox::start().await;
        let image = unique("roadstead-test");
        for which in ["one", "two"] {
            sandbox.remove_at_end(&format!("{image}:{which}"));
            make_image(&image, which, which, &[]).await;
        }
        let (password, registry) = sandbox.token().await;
        Self {
            sandbox,
            image,
            password,
            registry,
        }
    }

    async fn create(&self, repository: &str, mutability: &str) -> Value {
        let input = json!({ "repositoryName": repository, "imageTagMutability": mutability });
        self.sandbox.ecr("CreateRepository", input).await.unwrap()
    }

    /// Pushes the local image `which` as `repository:tag`.
    async fn push(&self, which: &str, repository: &str, tag: &str) -> Result<(), String> {
        self.push_with(which, repository, tag, &self.password).await
    }

    async fn push_with(
        &self,
        which: &str,
        repository: &str,
        tag: &str,
        password: &str,
    ) -> Result<(), String> {
        let name = format!("{}/{repository}", self.registry);
        tag_image(&format!("{}:{which}", self.image), &name, tag).await;
        push(&name, tag, password).await
    }

    fn login(&self) -> String {
        use base64::Engine;
        let credentials = format!("AWS:{}", self.password);
        let credentials = base64::prelude::BASE64_STANDARD.encode(credentials);
        format!("Basic {credentials}")
    }

    /// The digest as the registry itself answers it.
    async fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.registry);
        let headers = [("authorization", &*self.login()), ("accept", MANIFEST)];
        let answer = http(Method::HEAD, &url, &headers, "").await.unwrap();
        let digest = answer.headers.get("docker-content-digest")?;
        Some(digest.to_str().unwrap().to_owned())
    }

    async fn images(&self, repository: &str, ids: Value) -> Vec<Value> {
        let input = json!({ "repositoryName": repository, "imageIds": ids });
        let answer = self.sandbox.ecr("DescribeImages", input).await.unwrap();
        answer["imageDetails"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_need_a_token_and_a_repository() {
    let bench = Bench::new().await;
    let created = bench.create("team/web", "MUTABLE").await;
    assert_eq!(
        created["repository"]["repositoryUri"],
        format!("{}/team/web", bench.registry)
    );

    let anonymous = http(
        Method::GET,
        &format!("http://{}/v2/", bench.registry),
        &[],
        "",
    )
    .await;
    let anonymous = anonymous.unwrap();
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    let challenge = anonymous.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");

    let wrong = bench.push_with("one", "team/web", "v1", "wrong").await;
    let refusal = wrong.unwrap_err();
    assert!(
        refusal.contains("nauthorized") || refusal.contains("Not Authorized"),
        "{refusal}"
    );
    assert_eq!(bench.digest("team/web", "v1").await, None);

    let unknown = bench.push("one", "team/other", "v1").await.unwrap_err();
    assert!(unknown.contains("'team/other' does not exist"), "{unknown}");

    bench.push("one", "team/web", "v1").await.unwrap();
    let digest = bench.digest("team/web", "v1").await.unwrap();

    // Nor is anything given away without one.
    for path in ["manifests/v1", &format!("manifests/{digest}"), "tags/list"] {
        let url = format!("http://{}/v2/team/web/{path}", bench.registry);
        let headers = [("accept", MANIFEST)];
        let anonymous = http(Method::GET, &url, &headers, "").await.unwrap();
        assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let image = format!("{}/team/web:v1", bench.registry);
    let refusal = pull(&image, None).await.unwrap_err();
    assert!(
        refusal.contains("nauthorized") || refusal.contains("no basic auth"),
        "{refusal}"
    );
    pull(&image, Some("wrong")).await.unwrap_err();
    pull(&image, Some(&bench.password)).await.unwrap();

    let described = bench
        .images("team/web", json!([{ "imageTag": "v1" }]))
        .await;
    assert_eq!(described.len(), 1);
    assert_eq!(described[0]["imageDigest"], digest);
    assert_eq!(described[0]["imageTags"], json!(["v1"]));
    assert_eq!(described[0]["imageManifestMediaType"], MANIFEST);
    assert!(described[0]["imageSizeInBytes"].as_u64().unwrap() > 100_000);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_of_another_account_has_nothing_and_pages_have_a_size() {
    let bench = Bench::new().await;
    let ask = async |operation: &str, more: Value| {
        let mut input = json!({ "repositoryName": "web" });
        for (name, value) in more.as_object().unwrap() {
            input[name] = value.clone();
        }
        bench.sandbox.ecr(operation, input).await
    };
    let (own, foreign) = ("000000000000", "123456789012");
    let refused = ask("CreateRepository", json!({ "registryId": foreign })).await;
    assert_eq!(refused.unwrap_err().code, "InvalidParameterException");
    ask("CreateRepository", json!({ "registryId": own }))
        .await
        .unwrap();
    for operation in ["DescribeImages", "ListImages", "DeleteRepository"] {
        let refused = ask(operation, json!({ "registryId": foreign }))
            .await
            .unwrap_err();
        assert_eq!(refused.code, "RepositoryNotFoundException", "{operation}");
        let expected = format!(
            "The repository with name 'web' does not exist in the registry with id '{foreign}'"
        );
        assert_eq!(refused.message, expected);
    }
    for (most, fits) in [(0, false), (1, true), (1000, true), (1001, false)] {
        for operation in ["DescribeImages", "ListImages"] {
            let answer = ask(operation, json!({ "maxResults": most, "registryId": own })).await;
            assert_eq!(answer.is_ok(), fits, "{operation} of {most}");
            if let Err(refused) = answer {
                assert_eq!(refused.code, "InvalidParameterException");
            }
        }
    }
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_tags_stay_where_they_are() {
    let bench = Bench::new().await;
    bench.create("frozen", "IMMUTABLE").await;
    bench.push("one", "frozen", "v1").await.unwrap();
    let digest = bench.digest("frozen", "v1").await.unwrap();

    let refusal = bench.push("two", "frozen", "v1").await.unwrap_err();
    assert!(refusal.contains("immutable"), "{refusal}");
    assert_eq!(bench.digest("frozen", "v1").await.as_ref(), Some(&digest));
    bench.push("two", "frozen", "v2").await.unwrap();

    let input = json!({ "repositoryName": "frozen", "imageTagMutability": "MUTABLE" });
    let answer = bench.sandbox.ecr("PutImageTagMutability", input).await;
    assert_eq!(answer.unwrap()["imageTagMutability"], "MUTABLE");
    bench.push("two", "frozen", "v1").await.unwrap();
    let moved = bench.digest("frozen", "v1").await.unwrap();
    assert_ne!(moved, digest);
    // The first image is still there, without a tag.
    let described = bench
        .images("frozen", json!([{ "imageDigest": digest }]))
        .await;
    assert_eq!(described[0].get("imageTags"), None);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_got_and_deleted() {
    let bench = Bench::new().await;
    let ecr = |operation: &'static str, input: Value| bench.sandbox.ecr(operation, input);
    bench.create("web", "MUTABLE").await;
    let again = ecr("CreateRepository", json!({ "repositoryName": "web" })).await;
    assert_eq!(again.unwrap_err().code, "RepositoryAlreadyExistsException");
    let missing = ecr(
        "DescribeRepositories",
        json!({ "repositoryNames": ["none"] }),
    )
    .await;
    assert_eq!(missing.unwrap_err().code, "RepositoryNotFoundException");

    bench.push("one", "web", "v1").await.unwrap();
    bench.push("one", "web", "stable").await.unwrap();
    bench.push("two", "web", "v2").await.unwrap();
    let (one, two) = (
        bench.digest("web", "v1").await.unwrap(),
        bench.digest("web", "v2").await.unwrap(),
    );
    let listed = ecr("ListImages", json!({ "repositoryName": "web" }))
        .await
        .unwrap();
    assert_eq!(listed["imageIds"].as_array().unwrap().len(), 3);
    let first = json!({ "repositoryName": "web", "maxResults": 2 });
    let first = ecr("ListImages", first).await.unwrap();
    assert_eq!(first["imageIds"].as_array().unwrap().len(), 2);
    let rest = json!({ "repositoryName": "web", "maxResults": 2, "nextToken": first["nextToken"] });
    let rest = ecr("ListImages", rest).await.unwrap();
    assert_eq!(rest["imageIds"].as_array().unwrap().len(), 1);
    assert_eq!(rest.get("nextToken"), None);

    let ids = json!([{ "imageTag": "v1" }, { "imageTag": "v9" }]);
    let got = json!({ "repositoryName": "web", "imageIds": ids });
    let got = ecr("BatchGetImage", got).await.unwrap();
    assert_eq!(
        got["images"][0]["imageId"],
        json!({ "imageDigest": one, "imageTag": "v1" })
    );
    let manifest = got["images"][0]["imageManifest"].as_str().unwrap();
    assert!(manifest.contains("layers"), "{manifest}");
    assert_eq!(got["failures"][0]["failureCode"], "ImageNotFound");
    assert_eq!(got["failures"][0]["imageId"], json!({ "imageTag": "v9" }));
    let none = json!({ "repositoryName": "web", "imageIds": [{ "imageTag": "v9" }] });
    assert_eq!(
        ecr("DescribeImages", none).await.unwrap_err().code,
        "ImageNotFoundException"
    );

    let delete = |ids: Value| json!({ "repositoryName": "web", "imageIds": ids });
    let by_tag = ecr(
        "BatchDeleteImage",
        delete(json!([{ "imageTag": "stable" }])),
    )
    .await;
    assert_eq!(by_tag.unwrap()["imageIds"][0]["imageDigest"], one);
    assert_eq!(bench.digest("web", "stable").await, None);
    assert_eq!(bench.digest("web", "v1").await, Some(one));
    let by_digest = ecr("BatchDeleteImage", delete(json!([{ "imageDigest": two }]))).await;
    by_digest.unwrap();
    assert_eq!(bench.digest("web", "v2").await, None);
    assert_eq!(bench.images("web", json!([])).await.len(), 1);

    let kept = ecr("DeleteRepository", json!({ "repositoryName": "web" })).await;
    assert_eq!(kept.unwrap_err().code, "RepositoryNotEmptyException");
    let forced = json!({ "repositoryName": "web", "force": true });
    ecr("DeleteRepository", forced).await.unwrap();
    bench.create("web", "MUTABLE").await;
    assert_eq!(bench.images("web", json!([])).await, Vec::<Value>::new());
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_repositories_and_images_survive_a_restart() {
    let mut bench = Bench::new().await;
    bench.create("web", "MUTABLE").await;
    bench.push("one", "web", "v1").await.unwrap();
    let before = bench.images("web", json!([])).await;
    bench.sandbox.halt().await;
    remove_images_of(&bench.registry).await;
    bench.sandbox.resume().await;
    // The port is another one, because the test asked for a free one; the old token still works.
    bench.registry = bench.sandbox.token().await.1;
    assert_eq!(bench.images("web", json!([])).await, before);
    bench.push("two", "web", "v2").await.unwrap();
    assert!(bench.digest("web", "v1").await.is_some());
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_meet_faults_and_are_in_the_call_log() {
    let bench = Bench::new().await;
    bench.create("web", "MUTABLE").await;
    let own = |path: &str| format!("{}/_sandbox/{path}", bench.sandbox.endpoint);
    let get = async |path: &str| -> Value {
        let answer = http(Method::GET, &own(path), &[], "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    };
    let inject = async |kind: &str| {
        let fault = json!({"operation": "PutImage", "kind": kind, "delay_ms": 600_000});
        let answer = http(Method::POST, &own("faults"), &[], fault.to_string()).await;
        assert_eq!(answer.unwrap().status, StatusCode::CREATED);
    };

    inject("delay_reply").await;
    let pushed = bench.push("one", "web", "v1");
    let seen = async {
        let asked = json!({"repositoryName": "web", "imageTag": "v1"});
        let held = json!([{"operation": "PutImage", "request": asked, "performed": true}]);
        eventually("the push to wait for its reply", async || {
            (get("held").await == held).then_some(())
        })
        .await;
        assert!(bench.digest("web", "v1").await.is_some(), "it took effect");
        let calls = get("calls?operation=PutImage&effective=true").await;
        assert_eq!(calls[0]["request"], asked);
        assert_eq!(calls[0]["fault"], "delay_reply");
        http(Method::DELETE, &own("faults"), &[], "").await.unwrap();
    };
    let (pushed, ()) = tokio::join!(pushed, seen);
    pushed.unwrap();
    assert_eq!(get("held").await, json!([]));

    let refused = async |kind: &str, tag: &str| {
        inject(kind).await;
        let manifest = format!("http://{}/v2/web/manifests", bench.registry);
        let login = bench.login();
        let headers = [("authorization", &*login), ("accept", MANIFEST)];
        let url = format!("{manifest}/v1");
        let found = http(Method::GET, &url, &headers, "").await.unwrap();
        let headers = [("authorization", &*login), ("content-type", MANIFEST)];
        let url = format!("{manifest}/{tag}");
        let answer = http(Method::PUT, &url, &headers, found.body).await;
        answer.map(|answer| answer.status.as_u16()).ok()
    };
    for (kind, status, stored) in [
        ("throttle", Some(429), false),
        ("fail_before", Some(500), false),
        ("fail_after", Some(500), true),
        ("drop_reply", None, true),
    ] {
        assert_eq!(refused(kind, kind).await, status, "{kind}");
        assert_eq!(bench.digest("web", kind).await.is_some(), stored, "{kind}");
    }
    let calls = get("calls?operation=PutImage").await;
    let effective: Vec<_> = calls
        .as_array()
        .unwrap()
        .iter()
        .map(|call| &call["effective"])
        .collect();
    assert_eq!(effective, [true, false, false, true, true]);
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_uploads_of_layers_meet_faults() {
    let bench = Bench::new().await;
    bench.create("web", "MUTABLE").await;
    bench.push("one", "web", "v1").await.unwrap();
    let own = |path: &str| format!("{}/_sandbox/{path}", bench.sandbox.endpoint);
    let login = bench.login();
    let ask = async |method: &Method, path: &str| {
        let url = format!("http://{}/v2/web/{path}", bench.registry);
        let headers = [("authorization", &*login), ("accept", MANIFEST)];
        http(method.clone(), &url, &headers, "").await.unwrap()
    };
    let manifest: Value =
        serde_json::from_slice(&ask(&Method::GET, "manifests/v1").await.body).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let begin = async || {
        let begun = ask(&Method::POST, "blobs/uploads/").await;
        let location = begun.headers["location"].to_str().unwrap().to_owned();
        location.strip_prefix("/v2/web/").unwrap().to_owned()
    };
    let upload = begin().await;
    let layer = format!("blobs/{digest}");
    let complete = format!("{upload}&digest={digest}");
    for (operation, method, path, healthy) in [
        ("BatchGetImage", Method::GET, "manifests/v1", 200),
        ("GetDownloadUrlForLayer", Method::GET, &*layer, 200),
        ("BatchCheckLayerAvailability", Method::HEAD, &*layer, 200),
        ("InitiateLayerUpload", Method::POST, "blobs/uploads/", 202),
        ("UploadLayerPart", Method::PATCH, &*upload, 202),
        // The upload is empty, so its digest is another; the fault comes before the registry says so.
        ("CompleteLayerUpload", Method::PUT, &*complete, 400),
    ] {
        for (kind, status) in [("fail_before", 500), ("throttle", 429), ("deny", 403)] {
            let fault = json!({"operation": operation, "kind": kind}).to_string();
            let told = http(Method::POST, &own("faults"), &[], fault).await;
            assert_eq!(told.unwrap().status, StatusCode::CREATED);
            let met = ask(&method, path).await;
            assert_eq!(met.status.as_u16(), status, "{operation} {kind}");
            let calls = own(&format!("calls?operation={operation}"));
            let calls = http(Method::GET, &calls, &[], "").await.unwrap();
            let calls: Value = serde_json::from_slice(&calls.body).unwrap();
            let last = calls.as_array().unwrap().last().unwrap();
            assert_eq!(last["fault"], kind);
            assert_eq!(last["request"]["repositoryName"], "web");
            assert_eq!(last["effective"], false);
        }
        let well = ask(&method, path).await;
        assert_eq!(well.status.as_u16(), healthy, "{operation}");
    }

    // A task whose image the registry does not hand out, as ECS tells of it. Docker Engine may ask
    // more than once.
    let fault = json!({"operation": "BatchGetImage", "kind": "fail_before", "times": 1000});
    http(Method::POST, &own("faults"), &[], fault.to_string())
        .await
        .unwrap();
    let image = format!("{}/web:v1", bench.registry);
    let container = json!({"name": "app", "image": image, "memory": 32});
    let definition = json!({"family": "web", "containerDefinitions": [container]});
    for (operation, input) in [
        ("CreateCluster", json!({})),
        ("RegisterTaskDefinition", definition),
        ("RunTask", json!({"taskDefinition": "web"})),
    ] {
        bench.sandbox.ecs(operation, input).await.unwrap();
    }
    let reason = eventually("the task to stop", async || {
        let stopped = json!({"desiredStatus": "STOPPED"});
        let listed = bench.sandbox.ecs("ListTasks", stopped).await.ok()?;
        let asked = json!({"tasks": [listed["taskArns"].get(0)?]});
        let described = bench.sandbox.ecs("DescribeTasks", asked).await.ok()?;
        Some(described["tasks"][0]["stoppedReason"].as_str()?.to_owned())
    })
    .await;
    assert!(reason.contains("CannotPullContainerError"), "{reason}");
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_policy_is_kept_also_over_a_restart_until_it_is_deleted() {
    let mut bench = Bench::new().await;
    bench.create("web", "MUTABLE").await;
    let web = json!({"repositoryName": "web"});
    let none = bench.sandbox.ecr("GetLifecyclePolicy", web.clone()).await;
    assert_eq!(none.unwrap_err().code, "LifecyclePolicyNotFoundException");
    let policy = json!({"rules": [{
        "rulePriority": 1,
        "description": "keep two",
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2},
        "action": {"type": "expire"},
    }]})
    .to_string();
    let put = json!({"repositoryName": "web", "lifecyclePolicyText": policy});
    let answer = bench.sandbox.ecr("PutLifecyclePolicy", put).await.unwrap();
    assert_eq!(answer["lifecyclePolicyText"], policy);
    let elsewhere = json!({"repositoryName": "api", "lifecyclePolicyText": policy});
    let refused = bench.sandbox.ecr("PutLifecyclePolicy", elsewhere).await;
    assert_eq!(refused.unwrap_err().code, "RepositoryNotFoundException");

    bench.sandbox.halt().await;
    bench.sandbox.resume().await;
    let kept = bench.sandbox.ecr("GetLifecyclePolicy", web.clone()).await;
    assert_eq!(kept.unwrap()["lifecyclePolicyText"], policy);
    let gone = bench.sandbox.ecr("DeleteLifecyclePolicy", web.clone());
    assert_eq!(gone.await.unwrap()["lifecyclePolicyText"], policy);
    let none = bench.sandbox.ecr("DeleteLifecyclePolicy", web).await;
    assert_eq!(none.unwrap_err().code, "LifecyclePolicyNotFoundException");
    bench.sandbox.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_finds_what_was_told_and_nothing_is_scanned() {
    let bench = Bench::new().await;
    bench.create("web", "MUTABLE").await;
    bench.push("one", "web", "v1").await.unwrap();
    let digest = bench.digest("web", "v1").await.unwrap();
    let image = json!({"repositoryName": "web", "imageId": {"imageTag": "v1"}});
    let findings = || {
        bench
            .sandbox
            .ecr("DescribeImageScanFindings", image.clone())
    };
    let refused = findings().await.unwrap_err();
    assert_eq!(refused.code, "ScanNotFoundException");
    let started = bench.sandbox.ecr("StartImageScan", image.clone()).await;
    let status = &started.unwrap()["imageScanStatus"]["status"];
    assert_eq!(status, "UNSUPPORTED_IMAGE");

    let url = format!("{}/_sandbox/scans", bench.sandbox.endpoint);
    let tell = async |told: Value| {
        http(Method::POST, &url, &[], told.to_string())
            .await
            .unwrap()
    };
    let running = json!({"repository": "web", "digest": digest, "status": "IN_PROGRESS"});
    assert_eq!(tell(running).await.status, StatusCode::CREATED);
    let seen = findings().await.unwrap();
    assert_eq!(seen["imageScanStatus"]["status"], "IN_PROGRESS");
    assert!(seen["imageScanFindings"].is_null());
    let finding = |name: &str, severity: &str| json!({"name": name, "severity": severity});
    for (status, finds) in [
        ("IN_PROGRESS", false),
        ("PENDING", false),
        ("FAILED", false),
        ("UNSUPPORTED_IMAGE", false),
        ("SCAN_ELIGIBILITY_EXPIRED", false),
        ("FINDINGS_UNAVAILABLE", false),
        ("ACTIVE", true),
        ("COMPLETE", true),
    ] {
        let told = json!({"repository": "web", "digest": digest, "status": status,
            "description": "told", "findings": [finding("CVE-9", "HIGH")]});
        assert_eq!(tell(told).await.status, StatusCode::CREATED);
        let seen = findings().await.unwrap();
        let expected = json!({"status": status, "description": "told"});
        assert_eq!(seen["imageScanStatus"], expected);
        let described = bench.images("web", json!([{"imageTag": "v1"}])).await;
        assert_eq!(described[0]["imageScanStatus"], expected);
        let counts = if finds {
            json!({"HIGH": 1})
        } else {
            Value::Null
        };
        let found = &seen["imageScanFindings"]["findingSeverityCounts"];
        let summary = &described[0]["imageScanFindingsSummary"]["findingSeverityCounts"];
        assert_eq!((found, summary), (&counts, &counts), "{status}");
    }
    let odd = json!({"repository": "web", "digest": digest, "status": "DONE"});
    assert_eq!(tell(odd).await.status, StatusCode::BAD_REQUEST);
    let complete = json!({
        "repository": "web",
        "digest": digest,
        "status": "COMPLETE",
        "findings": [finding("CVE-1", "CRITICAL"), finding("CVE-2", "CRITICAL"),
                     finding("CVE-3", "LOW")],
    });
    assert_eq!(tell(complete).await.status, StatusCode::CREATED);
    let seen = findings().await.unwrap();
    let counts = json!({"CRITICAL": 2, "LOW": 1});
    assert_eq!(seen["imageScanFindings"]["findingSeverityCounts"], counts);
    assert_eq!(seen["imageScanFindings"]["findings"][2]["name"], "CVE-3");
    let described = bench.images("web", json!([{"imageTag": "v1"}])).await;
    let summary = &described[0]["imageScanFindingsSummary"];
    assert_eq!(summary["findingSeverityCounts"], counts);
    let nowhere = json!({"repository": "api", "digest": digest, "status": "COMPLETE"});
    assert_eq!(tell(nowhere).await.status, StatusCode::BAD_REQUEST);
    bench.sandbox.finish().await;
}
