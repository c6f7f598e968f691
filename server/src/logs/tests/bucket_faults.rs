//! Logs in a bucket whose store, or the way to it, fails: what was acknowledged stays, what was not is not told as
//! if it were, and nothing is stored twice.

use super::s3::{Call, Fault};
use super::*;
use crate::adapters::bucket::{Bucket, BucketError};
use hyper::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roadstead_masking::Patterns;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

async fn bucket() -> (Stage, S3Server) {
    let mut stage = Stage::bucket().await;
    let s3 = stage.s3.take().unwrap();
    (stage, s3)
}

impl Stage {
    fn in_bucket(&self, bucket: Bucket) -> LogStore {
        LogStore::in_bucket(bucket, self.folder.path())
    }
}

fn makes(call: &Call) -> bool {
    call.method == Method::PUT && !call.object.is_empty()
}

/// Fails the first call that matters, and no other.
fn once(matters: fn(&Call) -> bool, fault: Fault) -> impl FnMut(&Call) -> Option<Fault> {
    let mut done = false;
    move |call| (matters(call) && !std::mem::replace(&mut done, true)).then_some(fault)
}

#[tokio::test]
async fn a_piece_whose_answer_was_lost_is_stored_once_and_acknowledged_when_it_comes_again() {
    let (stage, s3) = bucket().await;
    // The same server asks again, or another one takes over from one that was killed before it could.
    for (attempt, other) in [(1, false), (2, true)] {
        for (step, again, answer) in [
            ("same", &b"one\n"[..], Ok(4)),
            ("longer", b"one\ntwo\n", Err(4)),
            ("shorter", b"on", Ok(2)),
            ("different", b"ONE\n", Err(4)),
        ] {
            let key = LogKey {
                attempt,
                step: step.into(),
                ..key()
            };
            let logs = stage.in_bucket(s3.bucket());
            s3.plan(|call| makes(call).then_some(Fault::LoseReply));
            let lost = logs.append(key.clone(), 0, b"one\n"[..].into()).await;
            let logs = match (lost, other) {
                (Err(LogError::Bucket(error)), _) if !error.is_transient() => panic!("{error}"),
                (Err(LogError::Bucket(_)), false) => logs,
                (Err(LogError::Bucket(_)), true) => stage.in_bucket(s3.bucket()),
                (answer, _) => panic!("{answer:?}"),
            };
            s3.heal();
            let answered = logs.append(key.clone(), 0, again.into()).await;
            let answered = match answered {
                Ok(length) => Ok(length),
                Err(LogError::Offset { length }) => Err(length),
                Err(error) => panic!("{error}"),
            };
            // Who looked before it asked has the shorter one refused; the runner goes on either way.
            let refused = Err(4);
            assert!(
                answered == answer || answered == refused,
                "{step}: {answered:?}"
            );
            assert_eq!(
                all(&stage.in_bucket(s3.behind()), key.clone()).await,
                b"one\n"
            );
            assert_eq!(logs.append(key, 4, b"two\n"[..].into()).await.unwrap(), 8);
        }
    }
    // The client itself asks again where it may, and finds what it made.
    let logs = stage.in_bucket(s3.bucket());
    let asked = LogKey {
        step: "asked".into(),
        ..key()
    };
    s3.plan(once(makes, Fault::LoseReply));
    match logs.append(asked.clone(), 0, b"one\n"[..].into()).await {
        Ok(4) => {}
        Err(LogError::Bucket(error)) if error.is_transient() => {}
        answer => panic!("{answer:?}"),
    }
    let behind = stage.in_bucket(s3.behind());
    assert_eq!(all(&behind, asked).await, b"one\n");
    let objects = s3.objects("shop.1/2/same").await;
    assert_eq!(
        objects,
        [
            "shop.1/2/same/0000/0000000000",
            "shop.1/2/same/0000/0000000004"
        ]
    );
}

#[tokio::test]
async fn a_store_that_is_away_acknowledges_nothing_and_is_gone_on_with_when_it_is_back() {
    let (stage, s3) = bucket().await;
    let logs = stage.in_bucket(s3.bucket());
    logs.append(key(), 0, b"one\n"[..].into()).await.unwrap();
    let mut hears = logs.watch(key()).await.unwrap();
    let faults = [
        Fault::Cut,
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(429, "TooManyRequests"),
        Fault::Answer(403, "AccessDenied"),
        Fault::Answer(400, "ExpiredToken"),
    ];
    for fault in faults {
        s3.plan(move |_| Some(fault));
        for logs in [&logs, &stage.in_bucket(s3.bucket())] {
            let failed = logs.append(key(), 4, b"two\n"[..].into()).await;
            let Err(LogError::Bucket(error)) = failed else {
                panic!("{fault:?}: {failed:?}");
            };
            let denied = fault == Fault::Answer(403, "AccessDenied");
            let refused = fault == Fault::Answer(400, "ExpiredToken");
            assert_eq!(error.is_denied(), denied, "{error}");
            assert_eq!(error.is_transient(), !denied && !refused, "{error}");
            if denied {
                let said = error.to_string();
                assert!(
                    said.contains("denies s3:") && said.contains("said the proxy"),
                    "{said}"
                );
                assert!(said.contains("allow s3:GetObject, s3:PutObject"), "{said}");
            }
        }
        let sealed = logs.seal(key(), 4, sum(b"one\n")).await;
        assert!(matches!(sealed, Err(LogError::Bucket(_))), "{sealed:?}");
        let state = stage.in_bucket(s3.bucket()).state(key()).await;
        assert!(matches!(state, Err(LogError::Bucket(_))), "{state:?}");
        let removed = logs.remove("shop.1").await;
        assert!(matches!(removed, Err(LogError::Bucket(_))), "{removed:?}");
        // Whoever reads along goes on with what is known here.
        let known = logs.lines(key(), 1, 10).await.unwrap();
        assert_eq!(known.lines, [b"one".to_vec()]);
        assert_eq!(
            s3.objects("shop.1").await,
            ["shop.1/1/test/0000/0000000000"]
        );
    }
    s3.heal();
    assert_eq!(logs.append(key(), 4, b"two\n"[..].into()).await.unwrap(), 8);
    let heard = hears.wait_for(|state| state.bytes == 8);
    let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
    // What was heard keeps the state locked.
    assert!(heard.map(drop).is_ok());
    logs.seal(key(), 8, sum(b"one\ntwo\n")).await.unwrap();
}

#[tokio::test]
async fn a_store_that_says_nothing_is_not_waited_for_without_end() {
    let (stage, s3) = bucket().await;
    let logs = stage.in_bucket(s3.bucket());
    s3.plan(|call| makes(call).then_some(Fault::Hang));
    let failed = logs.append(key(), 0, b"one\n"[..].into());
    // Bounds a failure: the client gives up after seconds.
    let failed = tokio::time::timeout(Duration::from_secs(120), failed).await;
    let failed = failed.expect("an end of waiting");
    assert!(matches!(failed, Err(LogError::Bucket(error)) if error.is_transient()));
    s3.heal();
    assert_eq!(logs.append(key(), 0, b"one\n"[..].into()).await.unwrap(), 4);
}

/// What a seal finds: pieces of two rounds, one of them with a blot.
async fn before_a_seal(stage: &Stage, s3: &S3Server, key: &LogKey) -> (Vec<u8>, String) {
    let logs = stage.in_bucket(s3.behind());
    let damaged = logs.append(key.clone(), 0, b"damaged"[..].into()).await;
    damaged.unwrap();
    let anew = logs.seal(key.clone(), 7, sum(b"another")).await;
    assert!(matches!(anew, Err(LogError::Seal { length: 0 })));
    let secrets = Patterns::of(["top-secret"]).unwrap().map(Arc::new);
    let mut sent = text(200);
    sent.extend_from_slice(b"a top-");
    let mut at = 0;
    for piece in [&sent[..], b"secret\n", b"and more\n"] {
        let piece = Bytes::copy_from_slice(piece);
        let appended = logs.append_without(secrets.clone(), key.clone(), at, piece);
        at = appended.await.unwrap();
    }
    sent.extend_from_slice(b"secret\nand more\n");
    let told = sum(&sent);
    let stored = String::from_utf8(sent).unwrap();
    let stored = stored.replace("top-secret", "**********");
    assert_eq!(all(&logs, key.clone()).await, stored.as_bytes());
    (stored.into_bytes(), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_seal_that_is_broken_off_at_any_call_is_taken_up_by_another_server() {
    let (stage, s3) = bucket().await;
    let logs = |attempt| LogKey { attempt, ..key() };
    // How many calls there are.
    let (text, told) = before_a_seal(&stage, &s3, &logs(1)).await;
    let length = text.len() as u64;
    s3.calls();
    let sealed = stage.in_bucket(s3.bucket());
    sealed.seal(logs(1), length, told.clone()).await.unwrap();
    let calls = s3.calls();
    let (puts, deletes) = (
        calls.iter().filter(|call| makes(call)).count(),
        calls
            .iter()
            .filter(|call| call.method == Method::POST)
            .count(),
    );
    assert_eq!((puts, deletes), (2, 1), "{calls:#?}");
    let mut attempt = 1;
    for broken in 0..calls.len() {
        for fault in [Fault::Cut, Fault::LoseReply] {
            attempt += 1;
            before_a_seal(&stage, &s3, &logs(attempt)).await;
            // From this call on the server is dead: no later one reaches the store.
            let seen = AtomicUsize::new(0);
            s3.plan(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
                before if before < broken => None,
                now if now == broken => Some(fault),
                _ => Some(Fault::Cut),
            });
            let dies = stage.in_bucket(s3.bucket());
            let died = dies.seal(logs(attempt), length, told.clone()).await;
            let what = &calls[broken];
            s3.heal();
            drop(dies);
            if died.is_ok() {
                // The seal was there; only what it does not need may have stayed.
                let seal = calls
                    .iter()
                    .position(|call| call.object.ends_with("/seal") && makes(call));
                assert!(broken > seal.unwrap(), "{fault:?} at {what:?}");
            }
            let other = stage.in_bucket(s3.bucket());
            assert!(
                all(&other, logs(attempt)).await == text,
                "{fault:?} at {what:?}"
            );
            other
                .seal(logs(attempt), length, told.clone())
                .await
                .unwrap();
            stage_is_packed(&s3, &logs(attempt)).await;
            for reader in [other, stage.in_bucket(s3.bucket())] {
                let state = reader.state(logs(attempt)).await.unwrap();
                assert!(
                    state.sealed && state.lines == 202,
                    "{fault:?} at {what:?}: {state:?}"
                );
                assert!(
                    all(&reader, logs(attempt)).await == text,
                    "{fault:?} at {what:?}"
                );
            }
        }
    }
}

async fn stage_is_packed(s3: &S3Server, key: &LogKey) {
    let folder = format!("{}/{}/{}", key.run, key.attempt, key.step);
    let objects = s3.objects(&folder).await;
    let [packed, seal] = &objects[..] else {
        panic!("{objects:?}");
    };
    assert!(
        packed.contains("/packed-") && seal.ends_with("/seal"),
        "{objects:?}"
    );
}

#[tokio::test]
async fn what_may_not_be_removed_is_sealed_all_the_same() {
    let (stage, s3) = bucket().await;
    let logs = stage.in_bucket(s3.bucket());
    logs.append(key(), 0, b"one\n"[..].into()).await.unwrap();
    let denied = Fault::Answer(403, "AccessDenied");
    s3.plan(move |call| (call.method == Method::POST).then_some(denied));
    logs.seal(key(), 4, sum(b"one\n")).await.unwrap();
    assert_eq!(s3.objects("shop.1").await.len(), 3);
    for logs in [&logs, &stage.in_bucket(s3.bucket())] {
        assert!(logs.state(key()).await.unwrap().sealed);
        let late = logs.append(key(), 4, b"two\n"[..].into()).await;
        assert!(matches!(late, Err(LogError::Sealed)), "{late:?}");
        assert_eq!(all(logs, key()).await, b"one\n");
    }
    let removed = logs.remove("shop.1").await;
    assert!(matches!(removed, Err(LogError::Bucket(error)) if error.is_denied()));
    s3.heal();
    logs.remove("shop.1").await.unwrap();
    assert_eq!(s3.objects("shop.1").await, [""; 0]);
}

#[tokio::test]
async fn a_beginning_of_a_secret_that_could_not_be_taken_out_is_shown_to_nobody() {
    let (stage, s3) = bucket().await;
    let secrets = || Patterns::of(["top-secret"]).unwrap().map(Arc::new);
    let [one, other] = [(); 2].map(|()| stage.in_bucket(s3.bucket()));
    let appended = one.append_without(secrets(), key(), 0, b"a top-"[..].into());
    appended.await.unwrap();
    assert_eq!(all(&other, key()).await, b"a top-");
    // The second piece is made; the first one cannot be changed.
    let changed = |call: &Call| makes(call) && call.object.ends_with("/0000000000");
    s3.plan(move |call| changed(call).then_some(Fault::Answer(503, "SlowDown")));
    let appended = one.append_without(secrets(), key(), 6, b"secret\n"[..].into());
    assert_eq!(appended.await.unwrap(), 13);
    let raw = s3.behind().get("shop.1/1/test/0000/0000000000").await;
    assert_eq!(
        raw.unwrap().unwrap().bytes,
        b"a top-"[..],
        "it is still there"
    );
    let sent = sum(b"a top-secret\n");
    for logs in [&one, &other, &stage.in_bucket(s3.bucket())] {
        assert_eq!(all(logs, key()).await, b"a **********\n");
    }
    s3.heal();
    other.seal(key(), 13, sent).await.unwrap();
    stage_is_packed(&s3, &key()).await;
    assert_eq!(all(&one, key()).await, b"a **********\n");
}

/// One runner's log through two servers whose store fails every few calls, in each way that stores do.
async fn through_faults(stage: &Stage, s3: &S3Server, seed: u64) {
    let key = LogKey {
        step: format!("seed-{seed}"),
        ..key()
    };
    let text = Bytes::from(text(400));
    let behind = stage.in_bucket(s3.behind());
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    s3.plan(move |_| {
        let mut random = random.lock().unwrap();
        let faults = [
            Fault::Cut,
            Fault::LoseReply,
            Fault::LoseReply,
            Fault::Answer(503, "SlowDown"),
            Fault::Answer(500, "InternalError"),
            Fault::Answer(403, "AccessDenied"),
        ];
        let fault = faults[random.random_range(0..faults.len())];
        random.random_bool(0.25).then_some(fault)
    });
    let mut random = StdRng::seed_from_u64(seed + 1);
    let mut stores = [(); 2].map(|()| stage.in_bucket(s3.bucket()));
    let (mut at, mut acknowledged, mut sealed) = (0, 0, false);
    let mut tries = 0;
    while !sealed {
        tries += 1;
        if tries == 150 {
            // Longer it is not to take: the rest goes well.
            s3.heal();
        }
        assert!(tries < 400, "seed {seed}: {at} of {} bytes", text.len());
        let server = random.random_range(0..2);
        if random.random_bool(0.1) {
            // It is killed, and starts again.
            stores[server] = stage.in_bucket(s3.bucket());
        }
        let store = &stores[server];
        let answer = if at < text.len() {
            let end = text.len().min(at + random.random_range(1..1_500));
            let sent = store.append(key.clone(), at as u64, text.slice(at..end));
            sent.await.inspect(|length| {
                assert_eq!(*length, end as u64, "seed {seed}");
                acknowledged = acknowledged.max(end);
            })
        } else {
            let seal = store.seal(key.clone(), text.len() as u64, sum(&text)).await;
            sealed = seal.is_ok();
            seal.map(|()| text.len() as u64)
        };
        match answer {
            Ok(length) | Err(LogError::Offset { length } | LogError::Seal { length }) => {
                at = usize::try_from(length).unwrap();
            }
            Err(LogError::Bucket(_) | LogError::Busy) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert!(
            at >= acknowledged,
            "seed {seed}: sent back before what was acknowledged"
        );
        if acknowledged > 0 && tries % 10 == 0 {
            let stored = all(&behind, key.clone()).await;
            assert!(stored.len() >= acknowledged, "seed {seed}");
            assert!(text.starts_with(&stored), "seed {seed}");
        }
    }
    s3.heal();
    for store in stores.iter().chain([&behind]) {
        assert!(all(store, key.clone()).await == text, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_stays_through_any_mixture_of_faults() {
    let (stage, s3) = bucket().await;
    for seed in 0..4 {
        through_faults(&stage, &s3, seed).await;
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_hold_logs_is_told_from_one_that_can() {
    let (_stage, s3) = bucket().await;
    s3.bucket().probe().await.unwrap();
    assert_eq!(s3.objects(".probe").await, [""; 0]);
    s3.plan(|_| Some(Fault::Unconditional));
    let twice = s3.bucket().probe().await.unwrap_err();
    assert!(matches!(twice, BucketError::Unfit { .. }), "{twice}");
    s3.plan(|call| makes(call).then_some(Fault::Answer(403, "AccessDenied")));
    let denied = s3.bucket().probe().await.unwrap_err();
    assert!(denied.is_denied() && denied.to_string().contains("s3:PutObject"));
    s3.heal();
    let mut settings = s3.settings();
    settings.bucket = "no-such-bucket".into();
    let missing = Bucket::new(&settings, "eu-west-1", Default::default()).unwrap();
    let missing = missing.probe().await.unwrap_err();
    assert!(matches!(missing, BucketError::NoBucket { .. }), "{missing}");
    let away = LogKey {
        run: "shop.2".into(),
        ..key()
    };
    let logs = Bucket::new(&settings, "eu-west-1", Default::default()).unwrap();
    let logs = LogStore::in_bucket(logs, std::path::Path::new("."));
    let read = logs.state(away).await;
    assert!(
        matches!(read, Err(LogError::Bucket(BucketError::NoBucket { .. }))),
        "{read:?}"
    );
}
