//! What only files have: a compressor that takes up what was left, and locks.

use super::super::files::Files;
use super::super::index::LineIndex;
use super::super::seal::Seal;
use super::*;
use crate::private;

#[tokio::test]
async fn what_was_sealed_before_a_kill_is_compressed_after_it() {
    let stage = Stage::folder();
    let text = "the same line again and again\n".repeat(1_000);
    let logs = stage.folder.path().join("logs");
    let files = Files::new(logs.join("shop.1/1/test.log"));
    files.append(0, text.as_bytes()).unwrap();
    let seal = Seal {
        length: text.len() as u64,
        sha256: sum(text.as_bytes()),
        blotted: None,
    };
    let mut index = LineIndex::default();
    index.extend(text.as_bytes());
    files.write_seal(&seal, &index).unwrap();
    private::folder(&logs.join(".to-compress")).unwrap();
    private::file(&logs.join(".to-compress/shop.1~1~test")).unwrap();
    let logs = stage.store();
    stage.is_packed(&key()).await;
    assert_eq!(logs.state(key()).await.unwrap().lines, 1_000);
}

#[tokio::test]
async fn a_server_that_is_stopped_over_a_log_keeps_no_other_log_and_no_thread() {
    let stage = Stage::folder();
    let [first, second] = stage.two();
    first.append(key(), 0, b"a\n"[..].into()).await.unwrap();
    let held = Lock::of_attempt(&stage.folder.path().join("logs/shop.1/1"));
    let held = held.unwrap().unwrap();
    let busy = second.append(key(), 2, b"b\n"[..].into()).await;
    assert!(matches!(busy, Err(LogError::Busy)), "{busy:?}");
    assert_eq!(second.state(key()).await.unwrap().bytes, 2);
    let other = LogKey {
        attempt: 2,
        ..key()
    };
    second.append(other, 0, b"c\n"[..].into()).await.unwrap();
    drop(held);
    assert_eq!(second.append(key(), 2, b"b\n"[..].into()).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_both_compress_at_once_reads_as_before() {
    let stage = Stage::folder();
    let stores = stage.two();
    let logs = stage.folder.path().join("logs");
    let text = text(30_000);
    let keys: Vec<_> = (1..=20)
        .map(|attempt| LogKey { attempt, ..key() })
        .collect();
    for key in &keys {
        let store = &stores[key.attempt as usize % 2];
        store
            .append(key.clone(), 0, text.clone().into())
            .await
            .unwrap();
        store
            .seal(key.clone(), text.len() as u64, sum(&text))
            .await
            .unwrap();
        // As if each of them had found the marker that the other one made.
        let marker = logs.join(format!(".to-compress/shop.1~{}~test", key.attempt));
        for store in &stores {
            let Form::Folder(folder) = &store.0 else {
                unreachable!("this stage is a folder");
            };
            folder.compressor.look_at(marker.clone());
        }
    }
    for key in &keys {
        stage.is_packed(key).await;
        for store in &stores {
            assert!(all(store, key.clone()).await == text, "{key:?}");
        }
    }
    let left = std::fs::read_dir(logs.join(".to-compress")).unwrap();
    assert_eq!(left.count(), 0);
}
