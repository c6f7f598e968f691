//! Caches over the runner's door: what runs find, what is stored, and what a fork is refused.

use crate::polls::queued;
use crate::pull_requests::{BASE_ID, act, approve, claim, commit, opened, told, until, waits};
use crate::secrets::call;
use crate::site::{DEPLOYER, Site, Who, now};
use reqwest::{Method, Response, StatusCode};
use roadstead_protocol::{CacheAnswer, CacheKept};
use roadstead_server::store::hash_secret;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

const STEP: &str =
    "{ image: busybox, run: make, caches: { deps: { paths: [deps], key: [lock] } } }";
const FORK_ID: u64 = 2;

fn sum(bytes: &str) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An attempt with its token.
#[derive(Clone, Copy)]
struct Own<'a>(&'a str, &'a str);

impl Own<'_> {
    fn query<'q>(key: &'q str, more: &[(&'q str, &'q str)]) -> Vec<(&'q str, &'q str)> {
        let mut all = vec![("key", key), ("architecture", "x86_64")];
        all.extend(more);
        all
    }

    async fn find(self, site: &Site, key: &str) -> CacheAnswer {
        let answer = self
            .get(site, "test/caches/deps", &Self::query(&sum(key), &[]))
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    async fn get(self, site: &Site, path: &str, query: &[(&str, &str)]) -> Response {
        let path = format!("/runner/v1/attempts/{}/steps/{path}", self.0);
        let request = site.request(Who::Nobody, Method::GET, &path);
        let request = request.bearer_auth(self.1).query(query);
        request.send().await.unwrap()
    }

    /// Sends bytes of which `told` has the length and sum.
    async fn put_as(
        self,
        site: &Site,
        key: &str,
        told: &str,
        bytes: &str,
        fence: &str,
    ) -> Response {
        let path = format!("/runner/v1/attempts/{}/steps/test/caches/deps", self.0);
        let (key, length, sha256) = (sum(key), told.len().to_string(), sum(told));
        let more = [("fence", fence), ("length", &length), ("sha256", &sha256)];
        let request = site.request(Who::Nobody, Method::PUT, &path);
        let request = request.bearer_auth(self.1).query(&Self::query(&key, &more));
        request.body(bytes.to_owned()).send().await.unwrap()
    }

    async fn put(self, site: &Site, key: &str, bytes: &str) -> CacheKept {
        let answer = self.put_as(site, key, bytes, bytes, "1").await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }
}

async fn attempt(site: &Site, number: u64, token: &str) -> String {
    queued(site, number, STEP).await;
    let store = &site.story.store;
    let claim = store.claim_job("harbour", hash_secret(token), now()).await;
    let claim = claim.unwrap().unwrap();
    let accepted = call(site, Method::POST, &claim.attempt, "accept", token, b"").await;
    assert_eq!(accepted.status(), StatusCode::NO_CONTENT);
    claim.attempt
}

fn files(site: &Site) -> Vec<PathBuf> {
    fn below(folder: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below(path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = vec![];
    below(site.folder.path().to_owned(), &mut found);
    found.retain(|path| path.to_string_lossy().contains("/caches/"));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_stored_once_and_found_by_its_key_or_as_the_newest() {
    let site = Site::start().await;
    let first = attempt(&site, 80, "t1").await;
    let first = Own(&first, "t1");
    assert_eq!(first.find(&site, "a").await, CacheAnswer::default());
    assert_eq!(first.put(&site, "a", "hello").await, CacheKept::Stored);
    assert_eq!(first.put(&site, "a", "others").await, CacheKept::Taken);
    assert_eq!(first.put(&site, "b", "newest").await, CacheKept::Stored);
    for (told, bytes, fence, status) in [
        ("hello", "hallo", "1", StatusCode::UNPROCESSABLE_ENTITY),
        ("hello", "hell", "1", StatusCode::UNPROCESSABLE_ENTITY),
        ("hello", "hello!", "1", StatusCode::BAD_REQUEST),
        ("hello", "hello", "2", StatusCode::CONFLICT),
    ] {
        let answer = first.put_as(&site, "c", told, bytes, fence).await;
        assert_eq!(answer.status(), status, "{bytes} {fence}");
    }
    assert_eq!(files(&site).len(), 2, "nothing lies about");

    let second = attempt(&site, 81, "t2").await;
    let second = Own(&second, "t2");
    let found = second.find(&site, "a").await.found.unwrap();
    assert_eq!((found.key, found.of.as_str()), (sum("a"), "main"));
    assert_eq!((found.length, &found.sha256), (5, &sum("hello")));
    let newest = second.find(&site, "c").await.found.unwrap();
    assert_eq!(newest.key, sum("b"));
    let (a, path) = (sum("a"), format!("test/caches/deps/{}", found.id));
    let query = Own::query(&a, &[]);
    let bytes = second.get(&site, &path, &query).await;
    assert_eq!(bytes.text().await.unwrap(), "hello");

    for (own, path, key, architecture, status) in [
        (
            second,
            "test/caches/none",
            &*a,
            "x86_64",
            StatusCode::NOT_FOUND,
        ),
        (
            second,
            "none/caches/deps",
            &*a,
            "x86_64",
            StatusCode::NOT_FOUND,
        ),
        (
            second,
            "test/caches/deps/..%2Fx",
            &*a,
            "x86_64",
            StatusCode::NOT_FOUND,
        ),
        // Of another kind.
        (second, path.as_str(), &*a, "aarch64", StatusCode::NOT_FOUND),
        (
            second,
            "test/caches/deps",
            "../x",
            "x86_64",
            StatusCode::BAD_REQUEST,
        ),
        (
            second,
            "test/caches/deps",
            &*a,
            "../x",
            StatusCode::BAD_REQUEST,
        ),
        (
            Own(second.0, "t1"),
            "test/caches/deps",
            &*a,
            "x86_64",
            StatusCode::FORBIDDEN,
        ),
        (
            Own(second.0, "no"),
            "test/caches/deps",
            &*a,
            "x86_64",
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let query = [("key", key), ("architecture", architecture)];
        let answer = own.get(&site, path, &query).await;
        assert_eq!(answer.status(), status, "{path} {key} {architecture}");
    }

    // Bytes that are gone, as after a backup was restored, are in nobody's way.
    for file in files(&site) {
        std::fs::remove_file(file).unwrap();
    }
    let gone = second.get(&site, &path, &query).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    assert_eq!(second.find(&site, "a").await.found.unwrap().key, sum("b"));
    assert_eq!(second.put(&site, "a", "again").await, CacheKept::Stored);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_reads_what_its_base_left_and_stores_nothing() {
    let site = Site::start().await;
    let base = attempt(&site, 80, "base").await;
    let base = Own(&base, "base");
    assert_eq!(base.put(&site, "a", "of main").await, CacheKept::Stored);

    let file = format!(
        "version: 1\nname: shop\ntrigger: {{ pull_request: {{}} }}\nsteps:\n  test: {STEP}\n"
    );
    commit(&site, "refs/heads/main", &file, "FROM scratch\n");
    site.story.read("main", 40, &file).await;
    let rooms = act(&site);
    let own = commit(&site, "refs/pull/2/head", &file, "FROM scratch\n");
    let own = opened(&site, "opened", &told("opened", 2, &own, BASE_ID)).await;
    let claimable = |state: &roadstead_pipelines::run::RunState| state.claimable().next().is_some();
    until(&site, &own, "waiting for a runner", claimable).await;
    // What main's other runs wait for is not theirs.
    let claimed = loop {
        let store = &site.story.store;
        let claim = store.claim_job("harbour", hash_secret("own"), now()).await;
        let claim = claim.unwrap().unwrap();
        if claim.run.id == own {
            break claim;
        }
    };
    call(&site, Method::POST, &claimed.attempt, "accept", "own", b"").await;
    let trusted = Own(&claimed.attempt, "own");
    let found = trusted.find(&site, "a").await;
    assert_eq!(
        (found.found.unwrap().of, found.not_stored),
        ("main".into(), None)
    );
    assert_eq!(
        trusted.put(&site, "b", "of the request").await,
        CacheKept::Stored
    );
    let found = trusted.find(&site, "b").await.found.unwrap();
    assert_eq!(found.of, "pull request #2");
    assert_eq!(
        base.find(&site, "b").await.found.unwrap().of,
        "main",
        "not its"
    );

    let head = commit(&site, "refs/pull/1/head", &file, "FROM evil\n");
    let run = opened(&site, "opened", &told("opened", 1, &head, FORK_ID)).await;
    until(&site, &run, "waiting", waits).await;
    let (status, said) = approve(&site, DEPLOYER, &run, &json!({"commit": head})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    until(&site, &run, "waiting for a runner", claimable).await;
    let fork = claim(&site, &run, "fork").await;
    let fork = Own(&fork, "fork");
    let found = fork.find(&site, "b").await;
    let of = found.found.unwrap();
    assert_eq!(
        (of.of.as_str(), of.key),
        ("main", sum("a")),
        "of its base alone"
    );
    let why = found.not_stored.unwrap();
    assert!(
        why.contains("is of a fork, which stores no caches"),
        "{why}"
    );
    let before = files(&site).len();
    for key in ["a", "c"] {
        let refused = fork.put_as(&site, key, "poison", "poison", "1").await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(files(&site).len(), before);
    for own in [base, trusted, fork] {
        assert_ne!(own.find(&site, "c").await.found.unwrap().key, sum("c"));
    }
    rooms.into_iter().for_each(|room| room.abort());
    site.stop().await;
}
