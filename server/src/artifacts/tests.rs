//! What holds of artifacts in either form, one body for both.

use super::*;
use crate::logs::LogStore;
use crate::logs::tests::s3::S3Server;
use futures_util::TryStreamExt;
use std::collections::BTreeSet;

/// One of the forms. Ends with this.
struct Stage {
    folder: tempfile::TempDir,
    s3: Option<S3Server>,
}

impl Stage {
    /// Another server's logs, whose artifacts lie beside them.
    fn logs(&self) -> LogStore {
        match &self.s3 {
            None => LogStore::new(&self.folder.path().join("logs")).unwrap(),
            Some(s3) => LogStore::in_bucket(s3.bucket(), self.folder.path()),
        }
    }

    /// Everything that is stored.
    async fn stored(&self) -> BTreeSet<String> {
        if let Some(s3) = &self.s3 {
            return s3.objects("artifacts").await.into_iter().collect();
        }
        let root = self.folder.path().join("logs");
        let mut found = BTreeSet::new();
        let mut folders = vec![root.join("artifacts")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(&root).unwrap();
                    found.insert(below.display().to_string());
                }
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_kept_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    bytes_are_kept(Stage { folder, s3: None }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_kept_in_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = Some(S3Server::start().await);
    bytes_are_kept(Stage { folder, s3 }).await;
}

fn key(run: &str, name: &str, bytes: &[u8]) -> ArtifactKey {
    ArtifactKey {
        run: run.into(),
        attempt: 1,
        step: "test".into(),
        name: name.into(),
        sha256: hex::encode(Sha256::digest(bytes)),
    }
}

async fn keep(store: &ArtifactStore, run: &str, name: &str, bytes: &[u8]) {
    let mut incoming = store.take(key(run, name, bytes)).await.unwrap();
    for piece in bytes.chunks(100_000) {
        incoming = incoming.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert_eq!(incoming.length(), bytes.len() as u64);
    assert_eq!(incoming.sha256(), hex::encode(Sha256::digest(bytes)));
    incoming.keep().await.unwrap();
}

async fn all(store: &ArtifactStore, run: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
    let read = store.read(&key(run, name, bytes), bytes.len() as u64).await;
    let pieces: Vec<_> = read.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

/// No piece of it is like another one.
fn large() -> Vec<u8> {
    (0..9_000_000_u32 / 4)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

async fn bytes_are_kept(stage: Stage) {
    let (one, other) = (stage.logs().artifacts(), stage.logs().artifacts());
    // Names of a runner that may be no runner at all.
    for name in [
        "dist/app.js",
        "../../../etc/passwd",
        "/etc/passwd",
        "",
        "a\0b",
        "a\nb",
    ] {
        keep(&one, "shop.1", name, name.as_bytes()).await;
    }
    let large = large();
    keep(&one, "shop.1", "large", &large).await;
    keep(&one, "shop.1", "large", &large).await;
    keep(&one, "shop.1", "empty", b"").await;
    keep(&other, "shop.12", "dist/app.js", b"of another run").await;
    for name in ["dist/app.js", "../../../etc/passwd", "a\0b"] {
        assert_eq!(
            all(&other, "shop.1", name, name.as_bytes()).await,
            name.as_bytes()
        );
    }
    assert!(all(&other, "shop.1", "large", &large).await == large);
    assert_eq!(all(&other, "shop.1", "empty", b"").await, b"");

    // What breaks off leaves nothing, and other bytes of a name leave those that are there.
    let before = stage.stored().await;
    assert_eq!(before.len(), 9, "{before:?}");
    assert!(
        before
            .iter()
            .all(|name| name.starts_with("artifacts/shop.1")),
        "{before:?}"
    );
    let incoming = one
        .take(key("shop.1", "large", b"other bytes"))
        .await
        .unwrap();
    drop(incoming.write(Bytes::from_static(b"other")).await.unwrap());
    assert_eq!(stage.stored().await, before);
    keep(&one, "shop.1", "large", b"other bytes").await;
    assert!(all(&other, "shop.1", "large", &large).await == large);

    // Folders are runs' and steps' alone.
    for wrong in ["..", "a/b", "", ".hidden"] {
        let mut named = key("shop.1", "a", b"");
        named.step = wrong.into();
        assert!(
            matches!(one.take(named).await, Err(ArtifactError::Name(_))),
            "{wrong}"
        );
        assert!(
            matches!(one.remove(wrong).await, Err(ArtifactError::Name(_))),
            "{wrong}"
        );
    }

    // Gone are those of the run alone, and logs are left.
    one.remove("shop.1").await.unwrap();
    one.remove("shop.1").await.unwrap();
    let left = stage.stored().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        all(&other, "shop.12", "dist/app.js", b"of another run").await,
        b"of another run"
    );
    stage.logs().remove("shop.12").await.unwrap();
    assert_eq!(stage.stored().await, left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_breaks_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::in_folder(folder.path());
    let missing = store.read(&key("shop.1", "a", b"x"), 1).await;
    assert!(matches!(missing.err(), Some(ArtifactError::Io(_))));
    keep(&store, "shop.1", "a", b"x").await;
    let longer = store.read(&key("shop.1", "a", b"x"), 2).await.unwrap();
    assert!(longer.try_collect::<Vec<_>>().await.is_err());
}
