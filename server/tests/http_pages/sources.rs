//! Sources for runners: a pack holds a thread for as long as its reader reads, so the ninth one at the
//! same time is sent away for a while, and gets its turn once another reader is gone.

use crate::site::{PATIENCE, Site, Who, now};
use git2::{FileMode, Repository, Signature};
use reqwest::{Method, Response, StatusCode};
use roadstead_pipelines::id::CommitSha;
use roadstead_server::adapters::sources::Remote;
use roadstead_server::store::hash_secret;
use tempfile::TempDir;

const MAIN: &str = "refs/heads/main";
/// More than the pieces that wait for a reader and all buffers of a connection hold.
const LARGE: usize = 24 * 1024 * 1024;

/// A repository whose one file no compression makes smaller.
fn large_repository() -> (TempDir, CommitSha) {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::init_bare(folder.path()).unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(LARGE / 8)
    .flatten()
    .collect();
    let blob = repository.blob(&noise).unwrap();
    let mut root = repository.treebuilder(None).unwrap();
    root.insert("noise", blob, FileMode::Blob.into()).unwrap();
    let tree = repository.find_tree(root.write().unwrap()).unwrap();
    let author = Signature::now("Ada Lovelace", "ada@example.org").unwrap();
    let commit = repository.commit(Some(MAIN), &author, &author, "Noise", &tree, &[]);
    let commit = CommitSha::parse(&commit.unwrap().to_string()).unwrap();
    (folder, commit)
}

/// An attempt of a new run of the commit; gives its id. Its token is its name.
async fn attempt_of(site: &Site, commit: &CommitSha, token: &str) -> String {
    let story = &site.story;
    let asked = story
        .store
        .ask_for_run(&story.shop, commit.clone(), MAIN.into(), "ada", story.now);
    asked.await.unwrap();
    for _ in 0..3 {
        story.reconcile().await;
        story.act().await;
    }
    let claim = story
        .store
        .claim_job("harbour", hash_secret(token), now().max(story.now))
        .await
        .unwrap();
    claim.unwrap().attempt
}

async fn sources(site: &Site, attempt: &str, token: &str) -> Response {
    let path = format!("/runner/v1/attempts/{attempt}/sources");
    let request = site.request(Who::Nobody, Method::GET, &path);
    request.bearer_auth(token).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ninth_pack_waits_for_its_turn() {
    let site = Site::start().await;
    let (origin, commit) = large_repository();
    let remote = Remote {
        address: origin.path().display().to_string(),
        username: None,
        password: None,
    };
    site.app
        .sources
        .fetch(&site.story.shop, &remote, &commit, MAIN)
        .await
        .unwrap();
    let mut attempts = vec![];
    for number in 0..5 {
        let token = format!("token {number}");
        attempts.push((attempt_of(&site, &commit, &token).await, token));
    }

    // Whoever reads nothing keeps its turn.
    let mut held = vec![];
    for (attempt, token) in &attempts[..4] {
        for _ in 0..2 {
            let answer = sources(&site, attempt, token).await;
            assert_eq!(answer.status(), StatusCode::OK);
            held.push(answer);
        }
    }
    let (attempt, token) = &attempts[4];
    let refused = sources(&site, attempt, token).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    let said = refused.text().await.unwrap();
    assert!(said.contains("too many packs"), "{said}");

    // One goes, and the next one to ask is sent all of it.
    drop(held.pop());
    let turn = async {
        loop {
            let answer = sources(&site, attempt, token).await;
            if answer.status() == StatusCode::OK {
                return answer.bytes().await.unwrap();
            }
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let pack = tokio::time::timeout(PATIENCE, turn).await.unwrap();
    assert!(pack.starts_with(b"PACK") && pack.len() > LARGE);
    drop(held);
    site.stop().await;
}
