//! Several servers on one folder or bucket: each store stands for one, and knows of the others by what lies there
//! alone.

use super::*;
use roadstead_masking::Patterns;

on_both_forms![
    pieces_that_go_to_either_server_at_once_make_the_very_log,
    no_length_is_believed_that_another_server_may_have_changed,
    a_log_that_begins_anew_elsewhere_is_read_anew,
    a_length_of_before_is_not_one_of_a_log_that_began_anew,
    whoever_watches_hears_of_what_another_server_takes,
    whoever_reads_along_reads_the_very_log_to_its_end,
    a_log_that_another_server_removes_is_gone_here_too,
    a_log_that_both_seal_at_once_is_sealed_once,
    a_blot_of_a_log_that_another_server_began_anew_is_forgotten,
];

/// Sends all of `text`, each piece to the other server, as a runner does behind a load balancer: a refusal
/// tells where to go on.
async fn send(stores: [LogStore; 2], key: LogKey, text: Bytes, piece: usize) {
    let mut at = 0;
    for store in stores.iter().cycle() {
        if at == text.len() {
            return;
        }
        let end = text.len().min(at + piece);
        let sent = store.append(key.clone(), at as u64, text.slice(at..end));
        match sent.await {
            Ok(length) | Err(LogError::Offset { length }) => at = usize::try_from(length).unwrap(),
            Err(LogError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn pieces_that_go_to_either_server_at_once_make_the_very_log(stage: Stage) {
    let stores = stage.two();
    let text = Bytes::from(text(20_000));
    // Repeated requests: each of these sends everything, and all of them at once.
    let pieces = match stage.s3 {
        None => [1_013, 4_096, 701, 50_021, 9_999, 333],
        Some(_) => [21_013, 44_096, 70_001, 50_021, 99_999, 33_333],
    };
    let senders: Vec<_> = pieces
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
    let length = text.len() as u64;
    for store in stores.iter().chain([&stage.store()]) {
        let state = store.state(key()).await.unwrap();
        assert_eq!((state.bytes, state.lines), (length, 20_000));
        let found = store.lines(key(), 19_001, 1).await.unwrap();
        assert!(found.lines[0].starts_with(b"line 19001 of"));
        assert!(all(store, key()).await == text);
    }
    let [first, second] = &stores;
    first.seal(key(), length, sum(&text)).await.unwrap();
    second.seal(key(), length, sum(&text)).await.unwrap();
    let late = second.append(key(), length, b"more"[..].into()).await;
    assert!(matches!(late, Err(LogError::Sealed)), "{late:?}");
    assert!(all(second, key()).await == text);
}

/// Whether a runner that is answered so goes on at `length`.
fn goes_on_at(answer: &Result<u64, LogError>, length: u64) {
    assert!(
        matches!(answer, Ok(at) | Err(LogError::Offset { length: at }) if *at == length),
        "{answer:?}"
    );
}

async fn no_length_is_believed_that_another_server_may_have_changed(stage: Stage) {
    let [first, second] = stage.two();
    // Both know the log before it changes under the other's hand.
    assert_eq!(second.state(key()).await.unwrap().bytes, 0);
    first.append(key(), 0, b"one\n"[..].into()).await.unwrap();
    // The very bytes again: refused, or acknowledged a second time.
    let behind = second.append(key(), 0, b"one\n"[..].into()).await;
    goes_on_at(&behind, 4);
    assert_eq!(
        second.append(key(), 4, b"two\n"[..].into()).await.unwrap(),
        8
    );
    for other in [&b"two\nthree\n"[..], b"tw", b"TWO\n"] {
        let behind = stage.store().append(key(), 4, other.into()).await;
        match other {
            // A beginning of what is there may be acknowledged: it is there.
            b"tw" => assert!(matches!(
                behind,
                Ok(6) | Err(LogError::Offset { length: 8 })
            )),
            _ => assert!(
                matches!(behind, Err(LogError::Offset { length: 8 })),
                "{behind:?}"
            ),
        }
    }
    let behind = first.append(key(), 4, b"other\n"[..].into()).await;
    assert!(matches!(behind, Err(LogError::Offset { length: 8 })));
    let found = first.lines(key(), 2, 1).await.unwrap();
    assert_eq!(found.lines, [b"two".to_vec()]);
    assert_eq!(all(&stage.store(), key()).await, b"one\ntwo\n");
}

async fn a_log_that_begins_anew_elsewhere_is_read_anew(stage: Stage) {
    let [first, second] = stage.two();
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
    stage.is_packed(&key()).await;
    assert!(all(&first, key()).await == right);
}

async fn a_length_of_before_is_not_one_of_a_log_that_began_anew(stage: Stage) {
    let [first, second] = stage.two();
    first.append(key(), 0, b"wrong\n"[..].into()).await.unwrap();
    assert_eq!(second.state(key()).await.unwrap().bytes, 6);
    let refused = first.seal(key(), 6, sum(b"right\n")).await;
    assert!(matches!(refused, Err(LogError::Seal { length: 0 })));
    first.append(key(), 0, b"right\n"[..].into()).await.unwrap();
    // It ends where the second one remembers the old one to end.
    let mut at = 6;
    for _ in 0..2 {
        match second.append(key(), at, b"more\n"[..].into()).await {
            Ok(length) | Err(LogError::Offset { length }) => at = length,
            Err(error) => panic!("{error}"),
        }
        if at == 11 {
            break;
        }
    }
    assert_eq!(at, 11);
    for store in [&first, &second, &stage.store()] {
        assert_eq!(all(store, key()).await, b"right\nmore\n");
    }
    second.seal(key(), 11, sum(b"right\nmore\n")).await.unwrap();
}

async fn whoever_watches_hears_of_what_another_server_takes(stage: Stage) {
    let [first, second] = stage.two();
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

/// Reads as a page does that shows a log live: whole lines, as soon as they are told of.
async fn read_along(logs: LogStore) -> Vec<u8> {
    let mut changes = logs.watch(key()).await.unwrap();
    let (mut next, mut read) = (1, vec![]);
    loop {
        let state = *changes.borrow_and_update();
        let whole = state.sealed || logs.ends_with_feed(key()).await.unwrap();
        let finished = state.lines.saturating_sub(u64::from(!whole));
        while next <= finished {
            let found = logs.lines(key(), next, 500).await.unwrap();
            let some = found.lines.iter().take((finished + 1 - next) as usize);
            for line in some {
                read.extend_from_slice(line);
                read.push(b'\n');
                next += 1;
            }
        }
        if state.sealed {
            return read;
        }
        let changed = tokio::time::timeout(Duration::from_secs(60), changes.changed());
        if changed.await.expect("the log goes on").is_err() {
            changes = logs.watch(key()).await.unwrap();
        }
    }
}

async fn whoever_reads_along_reads_the_very_log_to_its_end(stage: Stage) {
    let stores = stage.two();
    let text = Bytes::from(text(3_000));
    let readers: Vec<_> = stores
        .iter()
        .cloned()
        .chain([stage.store()])
        .map(|logs| tokio::spawn(read_along(logs)))
        .collect();
    send(stores.clone(), key(), text.clone(), 7_777).await;
    let length = text.len() as u64;
    stores[0].seal(key(), length, sum(&text)).await.unwrap();
    for reader in readers {
        let read = reader.await.unwrap();
        assert!(read == text, "{} bytes of {length}", read.len());
    }
}

async fn a_log_that_another_server_removes_is_gone_here_too(stage: Stage) {
    let [first, second] = stage.two();
    let text = text(10);
    let grows = LogKey {
        step: "lost".into(),
        ..key()
    };
    for key in [key(), grows.clone()] {
        first.append(key, 0, text.clone().into()).await.unwrap();
    }
    first
        .seal(key(), text.len() as u64, sum(&text))
        .await
        .unwrap();
    assert!(second.state(key()).await.unwrap().sealed);
    assert_eq!(second.state(grows.clone()).await.unwrap().lines, 10);
    first.remove("shop.1").await.unwrap();
    for key in [key(), grows] {
        let state = second.state(key.clone()).await.unwrap();
        assert_eq!(state, LogState::default(), "{key:?}");
        assert!(second.whole(key).await.unwrap().is_none());
    }
}

async fn a_log_that_both_seal_at_once_is_sealed_once(stage: Stage) {
    let [first, second] = stage.two();
    let text = text(5_000);
    let length = text.len() as u64;
    first.append(key(), 0, text.clone().into()).await.unwrap();
    let (one, other) = tokio::join!(
        first.seal(key(), length, sum(&text)),
        second.seal(key(), length, sum(&text)),
    );
    for (store, answer) in [(&first, one), (&second, other)] {
        match answer {
            Ok(()) => {}
            Err(LogError::Busy) => store.seal(key(), length, sum(&text)).await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    stage.is_packed(&key()).await;
    for store in [&first, &second, &stage.store()] {
        assert!(all(store, key()).await == text);
    }
}

async fn a_blot_of_a_log_that_another_server_began_anew_is_forgotten(stage: Stage) {
    let secrets = || Patterns::of(["top-secret"]).unwrap().map(Arc::new);
    let [one, other] = stage.two();
    let text = b"a top-secret, and more\n";
    let length = text.len() as u64;
    let sent = || text.to_vec().into();
    if stage.s3.is_none() {
        one.append_without(secrets(), key(), 0, sent())
            .await
            .unwrap();
    } else {
        // Of pieces each server knows whether they were blotted, so another damage is needed.
        one.append(key(), 0, sent()).await.unwrap();
    }
    let anew = other.seal(key(), length, "0".repeat(64)).await;
    assert!(matches!(anew, Err(LogError::Seal { length: 0 })));
    other.append(key(), 0, sent()).await.unwrap();
    // Nothing is blotted in this one: a checksum that does not fit is damage, at either server.
    let damaged = one.seal(key(), length, "0".repeat(64)).await;
    assert!(matches!(damaged, Err(LogError::Seal { length: 0 })));
}
