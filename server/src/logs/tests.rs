//! One log store: order, seals, lines, removal, compression.

mod shared;

use super::files::Seal;
use super::index::LineIndex;
use super::*;
use crate::private;
use roadstead_masking::Patterns;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

fn key() -> LogKey {
    LogKey {
        run: "shop.1".into(),
        attempt: 1,
        step: "test".into(),
    }
}

#[tokio::test]
async fn bytes_are_taken_once_and_in_order_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    assert_eq!(
        logs.append(key(), 0, b"one\ntw"[..].into()).await.unwrap(),
        6
    );
    let again = logs.append(key(), 0, b"one\ntw"[..].into()).await;
    assert!(matches!(again, Err(LogError::Offset { length: 6 })));

    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    assert_eq!(logs.append(key(), 6, b"o\n"[..].into()).await.unwrap(), 8);
    let state = logs.state(key()).await.unwrap();
    assert_eq!(
        state,
        LogState {
            bytes: 8,
            lines: 2,
            sealed: false
        }
    );
    let lines = logs.lines(key(), 2, 10).await.unwrap();
    assert_eq!(
        lines,
        Lines {
            first: 2,
            lines: vec![b"two".to_vec()]
        }
    );
}

#[tokio::test]
async fn a_seal_needs_the_very_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
    let right = hex::encode(Sha256::digest(b"abc"));
    let short = logs.seal(key(), 2, right.clone()).await;
    assert!(matches!(short, Err(LogError::Seal { length: 3 })));
    logs.seal(key(), 3, right.clone()).await.unwrap();
    logs.seal(key(), 3, right).await.unwrap();
    assert!(matches!(
        logs.append(key(), 3, b"d"[..].into()).await,
        Err(LogError::Sealed)
    ));
}

#[tokio::test]
async fn a_wrong_checksum_asks_for_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    logs.append(key(), 0, b"abX"[..].into()).await.unwrap();
    let right = hex::encode(Sha256::digest(b"abc"));
    let answer = logs.seal(key(), 3, right.clone()).await;
    assert!(matches!(answer, Err(LogError::Seal { length: 0 })));
    logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
    logs.seal(key(), 3, right).await.unwrap();
}

#[tokio::test]
async fn names_stay_below_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    for step in ["..", "../x", "a/b", ""] {
        let bad = LogKey {
            step: step.into(),
            ..key()
        };
        assert!(
            matches!(logs.state(bad).await, Err(LogError::Name(_))),
            "{step}"
        );
    }
}

#[tokio::test]
async fn the_logs_of_a_run_go_as_a_whole_and_only_they() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    let second = LogKey {
        attempt: 2,
        ..key()
    };
    let other = LogKey {
        run: "shop.10".into(),
        ..key()
    };
    for key in [key(), second.clone(), other.clone()] {
        logs.append(key, 0, b"a line\n"[..].into()).await.unwrap();
    }
    for _ in 0..2 {
        logs.remove("shop.1").await.unwrap();
        for key in [key(), second.clone()] {
            assert_eq!(logs.state(key).await.unwrap(), LogState::default());
        }
        assert!(
            !folder.path().join("logs/shop.1").exists(),
            "reading makes nothing"
        );
    }
    assert_eq!(logs.state(other).await.unwrap().bytes, 7);
    assert!(matches!(logs.remove("..").await, Err(LogError::Name(_))));
}

#[tokio::test]
async fn any_line_of_a_long_log_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
    logs.append(key(), 0, text.into()).await.unwrap();
    for from in [1, 999, 1_000, 1_001, 12_345] {
        let found = logs.lines(key(), from, 1).await.unwrap();
        assert_eq!(found.lines, vec![format!("line {from}").into_bytes()]);
    }
    assert!(logs.lines(key(), 12_346, 1).await.unwrap().lines.is_empty());
}

#[tokio::test]
async fn a_sealed_log_is_compressed_and_shows_the_same_lines_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
    let sum = hex::encode(Sha256::digest(&text));
    let length = text.len() as u64;
    logs.append(key(), 0, text.clone().into()).await.unwrap();
    logs.seal(key(), length, sum.clone()).await.unwrap();
    let raw = folder.path().join("logs/shop.1/1/test.log");
    for _ in 0..600 {
        if !raw.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!raw.exists(), "the compressor takes the raw file away");
    for logs in [logs, LogStore::new(&folder.path().join("logs")).unwrap()] {
        let state = logs.state(key()).await.unwrap();
        let expected = LogState {
            bytes: length,
            lines: 12_345,
            sealed: true,
        };
        assert_eq!(state, expected);
        let found = logs.lines(key(), 7_001, 2).await.unwrap();
        assert_eq!(found.lines, [b"line 7001".to_vec(), b"line 7002".to_vec()]);
        let mut whole = logs.whole(key()).await.unwrap().unwrap();
        let mut bytes = String::new();
        whole.bytes.read_to_string(&mut bytes).unwrap();
        assert!(bytes == text && whole.length == length);
        logs.seal(key(), length, sum.clone()).await.unwrap();
        let late = logs.append(key(), length, b"more"[..].into()).await;
        assert!(matches!(late, Err(LogError::Sealed)));
    }
    assert!(
        !folder
            .path()
            .join("logs/.to-compress/shop.1~1~test")
            .exists()
    );
}

#[tokio::test]
async fn what_was_sealed_before_a_kill_is_compressed_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "the same line again and again\n".repeat(1_000);
    let raw = folder.path().join("logs/shop.1/1/test.log");
    let files = Files::new(raw.clone());
    files.append(0, text.as_bytes()).unwrap();
    let seal = Seal {
        length: text.len() as u64,
        sha256: hex::encode(Sha256::digest(&text)),
        blotted: None,
    };
    let mut index = LineIndex::default();
    index.extend(text.as_bytes());
    files.write_seal(&seal, &index).unwrap();
    let markers = folder.path().join("logs/.to-compress");
    private::folder(&markers).unwrap();
    private::file(&markers.join("shop.1~1~test")).unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    for _ in 0..600 {
        if !raw.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!raw.exists());
    assert_eq!(logs.state(key()).await.unwrap().lines, 1_000);
}

#[tokio::test]
async fn a_blot_that_a_restart_forgot_makes_the_log_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let logs = || LogStore::new(&folder.path().join("logs")).unwrap();
    let secrets = || {
        let found = Patterns::of(["top-secret", "top-secret-of-another"]);
        found.unwrap().map(Arc::new)
    };
    let sent = b"a top-secret-of-another, and\nmore\n";
    let blotted = "a *********************, and\nmore\n";
    let (length, sum) = (sent.len() as u64, hex::encode(Sha256::digest(sent)));
    let send = async |logs: &LogStore| {
        let mut at = 0;
        // The first one is found before it is known that it is only the beginning of another.
        for end in [5, 14, 20, sent.len()] {
            let piece = sent[at..end].to_vec().into();
            let appended = logs.append_without(secrets(), key(), at as u64, piece);
            at = usize::try_from(appended.await.unwrap()).unwrap();
        }
        let mut stored = String::new();
        let mut whole = logs.whole(key()).await.unwrap().unwrap();
        whole.bytes.read_to_string(&mut stored).unwrap();
        assert_eq!(stored, blotted);
    };
    send(&logs()).await;
    let after = logs();
    let anew = after.seal(key(), length, sum.clone()).await;
    assert!(matches!(anew, Err(LogError::Seal { length: 0 })));
    send(&after).await;
    for logs in [after, logs()] {
        logs.seal(key(), length, sum.clone()).await.unwrap();
        let other = logs.seal(key(), length, "0".repeat(64)).await;
        assert!(matches!(other, Err(LogError::Seal { .. })));
    }
    assert!(holds_its_seal(&folder.path().join("logs/shop.1/1/test.seal")).unwrap());
}

#[tokio::test]
async fn a_blot_of_a_log_that_another_server_began_anew_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let logs = || LogStore::new(&folder.path().join("logs")).unwrap();
    let secrets = || Patterns::of(["top-secret"]).unwrap().map(Arc::new);
    let (one, other) = (logs(), logs());
    let text = b"a top-secret, and more\n";
    let length = text.len() as u64;
    let sent = || text.to_vec().into();
    one.append_without(secrets(), key(), 0, sent())
        .await
        .unwrap();
    let anew = other.seal(key(), length, "0".repeat(64)).await;
    assert!(matches!(anew, Err(LogError::Seal { length: 0 })));
    other.append(key(), 0, sent()).await.unwrap();
    // Nothing is blotted in this file: a checksum that does not fit is damage, at either server.
    let damaged = one.seal(key(), length, "0".repeat(64)).await;
    assert!(matches!(damaged, Err(LogError::Seal { length: 0 })));
}

#[tokio::test]
async fn what_is_blotted_stays_so_when_only_its_end_is_still_seen() {
    let folder = tempfile::tempdir().unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    let whole = "0123456789abcdef-SECRETWORD-0123456789abcdef";
    let secrets = Patterns::of([whole, "SECRETWORD"]).unwrap().map(Arc::new);
    // As `xxd -p` writes it: the longest of its forms, and the other secret's lies within.
    let digits = hex::encode(whole);
    let form = format!("{}\n{}", &digits[..60], &digits[60..]);
    assert_eq!(secrets.as_ref().unwrap().longest(), form.len());
    for (at, piece) in [(0, form.as_str()), (form.len(), "x"), (form.len() + 1, "y")] {
        let bytes = piece.as_bytes().to_vec().into();
        let appended = logs.append_without(secrets.clone(), key(), at as u64, bytes);
        appended.await.unwrap();
    }
    let mut stored = String::new();
    let mut found = logs.whole(key()).await.unwrap().unwrap();
    found.bytes.read_to_string(&mut stored).unwrap();
    let expected = format!("{}\n{}xy", "*".repeat(60), "*".repeat(form.len() - 61));
    assert_eq!(stored, expected);
}
