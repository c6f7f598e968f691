//! Two servers on one folder: each store stands for one, and knows of the other by files alone.

use super::super::*;
use super::key;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Two servers' stores of one folder.
fn two() -> (tempfile::TempDir, [LogStore; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let stores = [(); 2].map(|()| LogStore::new(&logs).unwrap());
    (folder, stores)
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

async fn all(logs: &LogStore, key: LogKey) -> Vec<u8> {
    let mut whole = logs.whole(key).await.unwrap().unwrap();
    let mut bytes = vec![];
    whole.bytes.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Sends all of `text` from `at` on, each piece to the other server, as a runner does behind a load
/// balancer: a refusal tells where to go on.
async fn send(stores: [LogStore; 2], key: LogKey, text: Bytes, piece: usize) {
    let mut at = 0;
    for store in stores.iter().cycle() {
        if at == text.len() {
            return;
        }
        let end = text.len().min(at + piece);
        match store
            .append(key.clone(), at as u64, text.slice(at..end))
            .await
        {
            Ok(length) => at = usize::try_from(length).unwrap(),
            Err(LogError::Offset { length }) => at = usize::try_from(length).unwrap(),
            Err(LogError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pieces_that_go_to_either_server_at_once_make_the_very_log() {
    let (folder, stores) = two();
    let text = Bytes::from(text(20_000));
    // Repeated requests: each of these sends everything, and all of them at once.
    let senders: Vec<_> = [1_013, 4_096, 701, 50_021, 9_999, 333]
        .into_iter()
        .enumerate()
        .map(|(n, piece)| {
            let mut stores = stores.clone();
            stores.rotate_left(n % 2);
            tokio::spawn(send(stores, key(), text.clone(), piece))
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let file = std::fs::read(folder.path().join("logs/shop.1/1/test.log")).unwrap();
    assert!(file == text, "{} bytes of {}", file.len(), text.len());
    let length = text.len() as u64;
    for store in &stores {
        let state = store.state(key()).await.unwrap();
        assert_eq!((state.bytes, state.lines), (length, 20_000));
        let found = store.lines(key(), 19_001, 1).await.unwrap();
        assert!(found.lines[0].starts_with(b"line 19001 of"));
    }
    let [first, second] = &stores;
    first.seal(key(), length, sum(&text)).await.unwrap();
    second.seal(key(), length, sum(&text)).await.unwrap();
    let late = second.append(key(), length, b"more"[..].into()).await;
    assert!(matches!(late, Err(LogError::Sealed)), "{late:?}");
    assert!(all(second, key()).await == text);
}

#[tokio::test]
async fn no_length_is_believed_that_another_server_may_have_changed() {
    let (_folder, [first, second]) = two();
    // Both know the log before it changes under the other's hand.
    assert_eq!(second.state(key()).await.unwrap().bytes, 0);
    first.append(key(), 0, b"one\n"[..].into()).await.unwrap();
    let behind = second.append(key(), 0, b"one\n"[..].into()).await;
    assert!(matches!(behind, Err(LogError::Offset { length: 4 })));
    assert_eq!(
        second.append(key(), 4, b"two\n"[..].into()).await.unwrap(),
        8
    );
    let behind = first.append(key(), 4, b"two\n"[..].into()).await;
    assert!(matches!(behind, Err(LogError::Offset { length: 8 })));
    let found = first.lines(key(), 2, 1).await.unwrap();
    assert_eq!(found.lines, [b"two".to_vec()]);
}

#[tokio::test]
async fn a_log_that_begins_anew_elsewhere_is_read_anew() {
    let (_folder, [first, second]) = two();
    let (wrong, right) = (text(2_000).to_ascii_uppercase(), vec![b'\n'; 200_000]);
    first.append(key(), 0, wrong.clone().into()).await.unwrap();
    assert_eq!(second.state(key()).await.unwrap().lines, 2_000);
    // The runner says other bytes, and sends them once more; it is longer before the other one looks.
    let refused = first.seal(key(), wrong.len() as u64, sum(b"other")).await;
    assert!(matches!(refused, Err(LogError::Seal { length: 0 })));
    assert!(right.len() > wrong.len());
    first.append(key(), 0, right.clone().into()).await.unwrap();
    assert_eq!(second.state(key()).await.unwrap().lines, 200_000);
    second.seal(key(), 200_000, sum(&right)).await.unwrap();
    assert!(first.state(key()).await.unwrap().sealed);
}

#[tokio::test]
async fn whoever_watches_hears_of_what_another_server_takes() {
    let (_folder, [first, second]) = two();
    let mut watched = second.watch(key()).await.unwrap();
    for (at, sealed) in [(0, false), (2, false), (4, true)] {
        if sealed {
            first.seal(key(), at, sum(b"a\na\n")).await.unwrap();
        } else {
            first.append(key(), at, b"a\n"[..].into()).await.unwrap();
        }
        let wanted = LogState {
            bytes: if sealed { at } else { at + 2 },
            lines: if sealed { at / 2 } else { at / 2 + 1 },
            sealed,
        };
        let heard = watched.wait_for(|state| *state == wanted);
        let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
        assert!(heard.is_ok(), "{wanted:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_stopped_over_a_log_keeps_no_other_log_and_no_thread() {
    let (folder, [first, second]) = two();
    first.append(key(), 0, b"a\n"[..].into()).await.unwrap();
    let held = Lock::of_attempt(&folder.path().join("logs/shop.1/1"));
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

#[tokio::test]
async fn a_log_that_another_server_removes_is_gone_here_too() {
    let (_folder, [first, second]) = two();
    let text = text(10);
    first.append(key(), 0, text.clone().into()).await.unwrap();
    first
        .seal(key(), text.len() as u64, sum(&text))
        .await
        .unwrap();
    assert!(second.state(key()).await.unwrap().sealed);
    first.remove("shop.1").await.unwrap();
    assert_eq!(second.state(key()).await.unwrap(), LogState::default());
    assert!(second.whole(key()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_both_compress_at_once_reads_as_before() {
    let (folder, stores) = two();
    let logs = folder.path().join("logs");
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
            store.compressor.look_at(marker.clone());
        }
    }
    for key in &keys {
        let raw = logs.join(format!("shop.1/{}/test.log", key.attempt));
        for _ in 0..1_200 {
            if !raw.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!raw.exists(), "{key:?}");
        for store in &stores {
            assert!(all(store, key.clone()).await == text, "{key:?}");
        }
    }
    let left = std::fs::read_dir(logs.join(".to-compress")).unwrap();
    assert_eq!(left.count(), 0);
}
