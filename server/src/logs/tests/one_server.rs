//! One log store: order, seals, lines, removal, compression, blots.

use super::*;
use roadstead_masking::Patterns;

on_both_forms![
    bytes_are_taken_once_and_in_order_across_a_restart,
    a_seal_needs_the_very_bytes,
    a_wrong_checksum_asks_for_everything_again,
    a_log_without_a_byte_is_sealed,
    names_stay_below_the_root,
    the_logs_of_a_run_go_as_a_whole_and_only_they,
    any_line_of_a_long_log_is_found,
    a_sealed_log_is_compressed_and_shows_the_same_lines_after_a_restart,
    a_blot_holds_across_a_restart,
    what_is_blotted_stays_so_when_only_its_end_is_still_seen,
];

async fn bytes_are_taken_once_and_in_order_across_a_restart(stage: Stage) {
    let logs = stage.store();
    assert_eq!(
        logs.append(key(), 0, b"one\ntw"[..].into()).await.unwrap(),
        6
    );
    let again = logs.append(key(), 0, b"one\ntw"[..].into()).await;
    assert!(
        matches!(again, Err(LogError::Offset { length: 6 })),
        "{again:?}"
    );
    let nothing = logs.append(key(), 6, Bytes::new()).await.unwrap();
    assert_eq!(nothing, 6);

    let logs = stage.store();
    let beyond = logs.append(key(), 7, b"o\n"[..].into()).await;
    assert!(matches!(beyond, Err(LogError::Offset { length: 6 })));
    assert_eq!(logs.append(key(), 6, b"o\n"[..].into()).await.unwrap(), 8);
    let state = logs.state(key()).await.unwrap();
    let expected = LogState {
        bytes: 8,
        lines: 2,
        sealed: false,
    };
    assert_eq!(state, expected);
    let lines = logs.lines(key(), 2, 10).await.unwrap();
    let expected = Lines {
        first: 2,
        lines: vec![b"two".to_vec()],
    };
    assert_eq!(lines, expected);
    assert_eq!(all(&logs, key()).await, b"one\ntwo\n");
}

async fn a_seal_needs_the_very_bytes(stage: Stage) {
    let logs = stage.store();
    logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
    let short = logs.seal(key(), 2, sum(b"abc")).await;
    assert!(matches!(short, Err(LogError::Seal { length: 3 })));
    logs.seal(key(), 3, sum(b"abc")).await.unwrap();
    logs.seal(key(), 3, sum(b"abc")).await.unwrap();
    let other = logs.seal(key(), 3, sum(b"abd")).await;
    assert!(matches!(other, Err(LogError::Seal { length: 3 })));
    assert!(matches!(
        logs.append(key(), 3, b"d"[..].into()).await,
        Err(LogError::Sealed)
    ));
}

async fn a_wrong_checksum_asks_for_everything_again(stage: Stage) {
    let logs = stage.store();
    logs.append(key(), 0, b"abX"[..].into()).await.unwrap();
    let answer = logs.seal(key(), 3, sum(b"abc")).await;
    assert!(matches!(answer, Err(LogError::Seal { length: 0 })));
    for logs in [&logs, &stage.store()] {
        assert_eq!(logs.state(key()).await.unwrap(), LogState::default());
    }
    logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
    logs.seal(key(), 3, sum(b"abc")).await.unwrap();
    assert_eq!(all(&stage.store(), key()).await, b"abc");
}

async fn a_log_without_a_byte_is_sealed(stage: Stage) {
    let logs = stage.store();
    logs.seal(key(), 0, sum(b"")).await.unwrap();
    for logs in [logs, stage.store()] {
        let state = logs.state(key()).await.unwrap();
        assert!(state.sealed && state.bytes == 0 && state.lines == 0);
        assert!(logs.lines(key(), 1, 10).await.unwrap().lines.is_empty());
        assert!(logs.whole(key()).await.unwrap().is_none());
        assert!(logs.ends_with_feed(key()).await.unwrap());
        logs.seal(key(), 0, sum(b"")).await.unwrap();
        let late = logs.append(key(), 0, b"more"[..].into()).await;
        assert!(matches!(late, Err(LogError::Sealed)));
    }
}

async fn names_stay_below_the_root(stage: Stage) {
    let logs = stage.store();
    for step in ["..", "../x", "a/b", "", ".probe"] {
        let bad = LogKey {
            step: step.into(),
            ..key()
        };
        assert!(
            matches!(logs.state(bad).await, Err(LogError::Name(_))),
            "{step}"
        );
    }
    assert!(matches!(logs.remove("..").await, Err(LogError::Name(_))));
}

async fn the_logs_of_a_run_go_as_a_whole_and_only_they(stage: Stage) {
    let logs = stage.store();
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
    logs.seal(second.clone(), 7, sum(b"a line\n"))
        .await
        .unwrap();
    for _ in 0..2 {
        logs.remove("shop.1").await.unwrap();
        for key in [key(), second.clone()] {
            assert_eq!(logs.state(key).await.unwrap(), LogState::default());
        }
        match &stage.s3 {
            None => assert!(
                !stage.folder.path().join("logs/shop.1").exists(),
                "reading makes nothing"
            ),
            Some(s3) => assert_eq!(s3.objects("shop.1").await, [""; 0]),
        }
    }
    assert_eq!(logs.state(other).await.unwrap().bytes, 7);
}

async fn any_line_of_a_long_log_is_found(stage: Stage) {
    let logs = stage.store();
    let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
    logs.append(key(), 0, text.into()).await.unwrap();
    for logs in [&logs, &stage.store()] {
        for from in [1, 999, 1_000, 1_001, 12_345] {
            let found = logs.lines(key(), from, 1).await.unwrap();
            assert_eq!(found.lines, vec![format!("line {from}").into_bytes()]);
        }
        assert!(logs.lines(key(), 12_346, 1).await.unwrap().lines.is_empty());
    }
}

async fn a_sealed_log_is_compressed_and_shows_the_same_lines_after_a_restart(stage: Stage) {
    let logs = stage.store();
    // More than one part of what is compressed.
    let text: String = (1..=123_456).map(|n| format!("line {n}\n")).collect();
    let (length, sum) = (text.len() as u64, sum(text.as_bytes()));
    let mut at = 0;
    for piece in text.as_bytes().chunks(1 << 20) {
        let bytes = Bytes::copy_from_slice(piece);
        at = logs.append(key(), at, bytes).await.unwrap();
    }
    logs.seal(key(), length, sum.clone()).await.unwrap();
    stage.is_packed(&key()).await;
    for logs in [logs, stage.store()] {
        let state = logs.state(key()).await.unwrap();
        let expected = LogState {
            bytes: length,
            lines: 123_456,
            sealed: true,
        };
        assert_eq!(state, expected);
        for from in [1, 7_001, 65_432, 123_455] {
            let found = logs.lines(key(), from, 2).await.unwrap();
            let expected = [from, from + 1].map(|n| format!("line {n}").into_bytes());
            assert_eq!(found.lines, expected);
        }
        assert!(all(&logs, key()).await == text.as_bytes());
        logs.seal(key(), length, sum.clone()).await.unwrap();
        let late = logs.append(key(), length, b"more"[..].into()).await;
        assert!(matches!(late, Err(LogError::Sealed)));
    }
}

async fn a_blot_holds_across_a_restart(stage: Stage) {
    let secrets = || {
        let found = Patterns::of(["top-secret", "top-secret-of-another"]);
        found.unwrap().map(Arc::new)
    };
    let sent = b"a top-secret-of-another, and\nmore\n";
    let blotted = "a *********************, and\nmore\n";
    let length = sent.len() as u64;
    let send = async |logs: &LogStore| {
        let mut at = 0;
        // The first one is found before it is known that it is only the beginning of another.
        for end in [5, 14, 20, sent.len()] {
            let piece = sent[at..end].to_vec().into();
            let appended = logs.append_without(secrets(), key(), at as u64, piece);
            at = usize::try_from(appended.await.unwrap()).unwrap();
        }
        for logs in [logs, &stage.store()] {
            assert_eq!(all(logs, key()).await, blotted.as_bytes());
        }
    };
    send(&stage.store()).await;
    if let Some(s3) = &stage.s3 {
        // Nor does who looks into the bucket find its beginning.
        let mut stored = vec![];
        for name in s3.objects("shop.1").await {
            stored.extend(s3.behind().get(&name).await.unwrap().unwrap().bytes);
        }
        assert_eq!(stored, blotted.as_bytes());
    }
    let after = stage.store();
    if stage.s3.is_none() {
        // A file says nothing of its blots, so the checksum may as well be that of damage.
        let anew = after.seal(key(), length, sum(sent)).await;
        assert!(matches!(anew, Err(LogError::Seal { length: 0 })));
        send(&after).await;
    }
    for logs in [after, stage.store()] {
        logs.seal(key(), length, sum(sent)).await.unwrap();
        let other = logs.seal(key(), length, "0".repeat(64)).await;
        assert!(matches!(other, Err(LogError::Seal { .. })));
        assert_eq!(all(&logs, key()).await, blotted.as_bytes());
    }
    if stage.s3.is_none() {
        let seal = stage.folder.path().join("logs/shop.1/1/test.seal");
        assert!(holds_its_seal(&seal).unwrap());
    }
}

async fn what_is_blotted_stays_so_when_only_its_end_is_still_seen(stage: Stage) {
    let logs = stage.store();
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
    let expected = format!("{}\n{}xy", "*".repeat(60), "*".repeat(form.len() - 61));
    for logs in [logs, stage.store()] {
        assert_eq!(all(&logs, key()).await, expected.as_bytes());
    }
}
