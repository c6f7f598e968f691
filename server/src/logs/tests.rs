//! What holds of logs in either form, one body for both: order, seals, lines, removal, blots, and several servers
//! that share them.

mod bucket_faults;
mod folder_only;
mod one_server;
pub(crate) mod s3;
mod several_servers;

use super::*;
use bytes::Bytes;
use futures_util::TryStreamExt;
use s3::S3Server;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// One of the forms, with all that it needs. Ends with this.
struct Stage {
    folder: tempfile::TempDir,
    s3: Option<S3Server>,
}

impl Stage {
    fn folder() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            s3: None,
        }
    }

    async fn bucket() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            s3: Some(S3Server::start().await),
        }
    }

    /// The store of another server, or of the same one after a restart: it knows what lies there, and no more.
    fn store(&self) -> LogStore {
        match &self.s3 {
            None => LogStore::new(&self.folder.path().join("logs")).unwrap(),
            Some(s3) => LogStore::in_bucket(s3.bucket(), self.folder.path()),
        }
    }

    fn two(&self) -> [LogStore; 2] {
        [(); 2].map(|()| self.store())
    }

    /// Waits until nothing but the compressed form of a sealed log is there.
    async fn is_packed(&self, key: &LogKey) {
        let LogKey { run, attempt, step } = key;
        let mut left = vec![];
        for _ in 0..1_200 {
            left = match &self.s3 {
                None => {
                    let logs = self.folder.path().join("logs");
                    let raw = logs.join(format!("{run}/{attempt}/{step}.log"));
                    let marker = logs.join(format!(".to-compress/{run}~{attempt}~{step}"));
                    let left = [raw, marker].into_iter().filter(|file| file.exists());
                    left.map(|file| file.display().to_string()).collect()
                }
                Some(s3) => {
                    let mut objects = s3.objects(&format!("{run}/{attempt}/{step}")).await;
                    let kept = |name: &String| name.contains("/packed-") || name.ends_with("/seal");
                    assert_eq!(
                        objects.iter().filter(|name| kept(name)).count(),
                        2,
                        "{objects:?}"
                    );
                    objects.retain(|name| !kept(name));
                    objects
                }
            };
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{left:?} stay");
    }
}

/// Has each scenario played in either form.
macro_rules! on_both_forms {
    ($($name:ident),* $(,)?) => {
        mod folder {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    super::$name(super::Stage::folder()).await;
                }
            )*
        }
        mod bucket {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    super::$name(super::Stage::bucket().await).await;
                }
            )*
        }
    };
}
use on_both_forms;

fn key() -> LogKey {
    LogKey {
        run: "shop.1".into(),
        attempt: 1,
        step: "test".into(),
    }
}

/// What a runner has to send.
fn text(lines: usize) -> Vec<u8> {
    let text: String = (1..=lines)
        .map(|n| format!("line {n} of the log, {}\n", "x".repeat(n % 97)))
        .collect();
    text.into_bytes()
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// All bytes of a log.
async fn all(logs: &LogStore, key: LogKey) -> Vec<u8> {
    let whole = logs.whole(key).await.unwrap().unwrap();
    let length = whole.length;
    let pieces: Vec<_> = whole.bytes.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len() as u64, length);
    bytes
}
