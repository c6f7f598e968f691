//! Backups while others write, and what a restore gives back.

use crate::databases::Cluster;
use crate::noise::noise;
use crate::story::{self, Story};
use futures_util::TryStreamExt;
use roadstead_server::backup::{self, Database};
use roadstead_server::config::{Config, S3};
use roadstead_server::logs::{Lock, LogKey, LogStore};
use roadstead_server::store::{Accepted, Decision, Store};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Looks again until it holds; bounds a failure.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come about within two minutes");
}

fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        ..Config::default()
    }
}

/// What a log holds up to a length: every byte tells where it is.
fn bytes_of(from: u64, to: u64) -> Vec<u8> {
    (from..to)
        .map(|at| {
            if at % 61 == 60 {
                b'\n'
            } else {
                b'a' + (at % 23) as u8
            }
        })
        .collect()
}

fn key(run: &str, step: &str) -> LogKey {
    LogKey {
        run: run.into(),
        attempt: 1,
        step: step.into(),
    }
}

/// Deliveries whose id begins so are stored once the log of that number is sealed.
const NAMES_LOG: &str = "log-";

/// What was acknowledged so far.
#[derive(Default, Clone)]
struct Acknowledged {
    runs: BTreeSet<String>,
    /// Length, and whether sealed, by run.
    logs: BTreeMap<String, (u64, bool)>,
}

/// Writers that go on until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Acknowledged>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(story: &Story, logs: &LogStore) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::<Mutex<Acknowledged>>::default();
        let mut tasks = vec![];
        for writer in 0..4_u64 {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let store = story.store.clone();
            let mut delivery = story.delivery("", 0);
            tasks.push(tokio::spawn(async move {
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let number = writer * 1_000_000 + number;
                    delivery.delivery_id = format!("d{number}");
                    delivery.body = noise(number, 7_000);
                    delivery.decision = Decision::Build {
                        git_ref: "refs/heads/main".into(),
                        commit: story::commit(number),
                    };
                    let Accepted::Run(run) = store.accept_delivery(delivery.clone()).await.unwrap()
                    else {
                        panic!("every push is new");
                    };
                    seen.lock().unwrap().runs.insert(run.to_string());
                }
            }));
        }
        let (logs, stopped, told) = (logs.clone(), Arc::clone(&stop), Arc::clone(&seen));
        let (store, mut names_it) = (story.store.clone(), story.delivery("", 0));
        tasks.push(tokio::spawn(async move {
            for number in 1.. {
                let run = format!("shop.{number}");
                let mut length = 0;
                while length < 100_000 {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let next = length + 17_000;
                    let piece = bytes_of(length, next);
                    length = logs
                        .append(key(&run, "test"), length, piece.into())
                        .await
                        .unwrap();
                    let mut seen = told.lock().unwrap();
                    seen.logs.insert(run.clone(), (length, false));
                }
                let sum = hex::encode(Sha256::digest(bytes_of(0, length)));
                logs.seal(key(&run, "test"), length, sum).await.unwrap();
                told.lock().unwrap().logs.insert(run, (length, true));
                // A row that says that this log is there.
                names_it.delivery_id = format!("{NAMES_LOG}{number}");
                names_it.decision = Decision::Ignore {
                    reason: "it names a log".into(),
                };
                store.accept_delivery(names_it.clone()).await.unwrap();
            }
        }));
        Self { stop, seen, tasks }
    }

    fn acknowledged(&self) -> Acknowledged {
        self.seen.lock().unwrap().clone()
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn all_runs(store: &Store, story: &Story) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut before = None;
    loop {
        let page = store.list_runs(&story.shop, before, 1_000).await.unwrap();
        let Some(last) = page.last() else {
            return found;
        };
        before = Some(last.id.number());
        found.extend(page.iter().map(|run| run.id.to_string()));
    }
}

async fn take(config: &Config, to: &Path) -> anyhow::Result<backup::About> {
    let (config, to) = (config.clone(), to.to_owned());
    tokio::task::spawn_blocking(move || backup::take(&config, &to))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restore_gives_back_all_that_was_acknowledged_before_the_backup_began() {
    let folder = tempfile::tempdir().unwrap();
    let before = config(&folder.path().join("before"));
    std::fs::create_dir(&before.data).unwrap();
    let story = Story::begin(&before.store_url()).await;
    let logs = LogStore::new(&before.logs_folder()).unwrap();
    let load = Load::start(&story, &logs);
    until(|| {
        let seen = load.acknowledged();
        let sealed = seen.logs.values().filter(|(_, sealed)| *sealed).count();
        seen.runs.len() > 300 && sealed > 2
    })
    .await;

    let copy = folder.path().join("backup");
    let acknowledged = load.acknowledged();
    let about = take(&before, &copy).await.unwrap();
    assert_eq!(about.database, Database::Sqlite);
    // The writers have gone on.
    let then = load.acknowledged();
    until(|| load.acknowledged().runs.len() > then.runs.len()).await;
    until(|| {
        let now: u64 = load
            .acknowledged()
            .logs
            .values()
            .map(|(length, _)| length)
            .sum();
        now > then.logs.values().map(|(length, _)| length).sum()
    })
    .await;
    load.end().await;

    let after = config(&folder.path().join("after"));
    backup::restore(&after, &copy).unwrap();
    let store = Store::open(&after.store_url()).await.unwrap();
    let found = all_runs(&store, &story).await;
    let lost: Vec<_> = acknowledged.runs.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let restored = LogStore::new(&after.logs_folder()).unwrap();
    let deliveries = store.list_deliveries(&story.shop, None, 1_000_000).await;
    let mut pushes = 0;
    for delivery in deliveries.unwrap() {
        let Some(number) = delivery.delivery_id.strip_prefix(NAMES_LOG) else {
            pushes += 1;
            continue;
        };
        let named = key(&format!("shop.{number}"), "test");
        let state = restored.state(named).await.unwrap();
        assert!(
            state.sealed,
            "a restored row names log {number}, which is not there"
        );
    }
    assert_eq!(pushes, found.len());
    for (run, (length, sealed)) in acknowledged.logs {
        let state = restored.state(key(&run, "test")).await.unwrap();
        assert!(state.bytes >= length, "{run}: {} of {length}", state.bytes);
        assert!(state.sealed || !sealed, "{run}");
        let whole = restored.whole(key(&run, "test")).await.unwrap().unwrap();
        let bytes: Vec<_> = whole.bytes.try_collect().await.unwrap();
        assert!(bytes.concat() == bytes_of(0, state.bytes), "{run}");
    }
    // And it goes on from there.
    let delivery = story.delivery("after the restore", 77_777_777);
    let Accepted::Run(run) = store.accept_delivery(delivery).await.unwrap() else {
        panic!("a new push makes a run");
    };
    assert!(!found.contains(run.as_str()));
}

/// A backup of a project with two runs, one of which has a sealed log.
async fn small(folder: &TempDir) -> (Config, std::path::PathBuf) {
    let config = config(&folder.path().join("data"));
    std::fs::create_dir(&config.data).unwrap();
    let story = Story::begin(&config.store_url()).await;
    for number in [1, 2] {
        let delivery = story.delivery(&format!("d{number}"), number);
        story.store.accept_delivery(delivery).await.unwrap();
    }
    let logs = LogStore::new(&config.logs_folder()).unwrap();
    logs.append(key("shop.1", "test"), 0, b"a line\n"[..].into())
        .await
        .unwrap();
    let sum = hex::encode(Sha256::digest(b"a line\n"));
    logs.seal(key("shop.1", "test"), 7, sum).await.unwrap();
    let nothing = hex::encode(Sha256::digest(b""));
    logs.seal(key("shop.1", "silent"), 0, nothing)
        .await
        .unwrap();
    let copy = folder.path().join("backup");
    take(&config, &copy).await.unwrap();
    (config, copy)
}

#[tokio::test]
async fn a_backup_that_is_not_sound_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (_, copy) = small(&folder).await;
    backup::verify(&copy).unwrap();
    let sums = std::process::Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(&copy)
        .status()
        .unwrap();
    assert!(sums.success(), "sha256sum finds what we find");

    let log = copy.join("logs/shop.1/1/test.log");
    let good = std::fs::read(&log).unwrap();
    let refused = |expected: &str| {
        let target = config(&folder.path().join("target"));
        let error = backup::restore(&target, &copy).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!target.data.exists());
    };
    std::fs::write(&log, b"a lime\n").unwrap();
    refused("logs/shop.1/1/test.log was changed");
    std::fs::remove_file(&log).unwrap();
    refused("cannot read");
    std::fs::write(&log, good).unwrap();

    let added = copy.join("logs/shop.9.log");
    std::fs::write(&added, b"").unwrap();
    refused("logs/shop.9.log is not named");
    std::fs::remove_file(&added).unwrap();

    // Damage that is older than the backup: the sums are those of the damaged file.
    let database = copy.join("roadstead.db");
    let sums = copy.join("SHA256SUMS");
    let (whole, told) = (
        std::fs::read(&database).unwrap(),
        std::fs::read_to_string(&sums).unwrap(),
    );
    let mut damaged = whole.clone();
    let from = damaged.len() / 4;
    damaged[from..from + 4096].fill(0x5a);
    std::fs::write(&database, &damaged).unwrap();
    refused("roadstead.db was changed");
    let (old, new) = (Sha256::digest(&whole), Sha256::digest(&damaged));
    std::fs::write(&sums, told.replace(&hex::encode(old), &hex::encode(new))).unwrap();
    refused("the database is damaged");
    std::fs::write(&database, whole).unwrap();
    std::fs::write(&sums, told).unwrap();
    backup::verify(&copy).unwrap();
}

#[tokio::test]
async fn a_backup_may_be_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = small(&folder).await;
    let shelf = folder.path().join("shelf");
    std::fs::create_dir(&shelf).unwrap();
    let file = shelf.join("backup.tar");
    let about = take(&data, &file).await.unwrap();
    let alone = || {
        let entries = std::fs::read_dir(&shelf).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["backup.tar"]);
    };
    alone();
    let error = take(&data, &file).await.unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!(backup::verify(&file).unwrap(), about);
    let target = config(&folder.path().join("target"));
    backup::restore(&target, &file).unwrap();
    alone();
    let story = Store::open(&target.store_url()).await.unwrap();
    assert_eq!(story.list_projects().await.unwrap().len(), 1);
    let log = std::fs::read(target.data.join("logs/shop.1/1/test.log")).unwrap();
    assert_eq!(log, b"a line\n");

    // Cut short, as a copy is on a full disk.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    backup::verify(&file).unwrap_err();
    alone();
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = small(&folder).await;
    let error = take(&data, &copy).await.unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    let error = backup::restore(&data, &copy).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("roadstead.db is there already: stop the server"),
        "{said}"
    );
    // A log of another database's writes would be replayed into this one.
    for (name, number) in [("roadstead.db-wal", 1), ("logs/old", 2)] {
        let target = config(&folder.path().join(format!("target-{number}")));
        std::fs::create_dir_all(target.data.join("logs")).unwrap();
        std::fs::write(target.data.join(name), b"x").unwrap();
        let error = backup::restore(&target, &copy).unwrap_err();
        assert!(error.to_string().contains("is there already"), "{error}");
        assert!(!target.data.join("roadstead.db").exists());
    }
}

#[tokio::test]
async fn what_a_killed_backup_left_is_no_backup_and_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = small(&folder).await;
    let left = folder.path().join("second.partial");
    std::fs::create_dir_all(left.join("logs")).unwrap();
    std::fs::write(left.join("roadstead.db"), b"half").unwrap();
    let error = backup::verify(&left).unwrap_err();
    assert!(error.to_string().contains("is no backup"), "{error}");
    take(&data, &folder.path().join("second")).await.unwrap();
    assert!(!left.exists());
    backup::verify(&folder.path().join("second")).unwrap();
}

#[tokio::test]
async fn without_a_database_there_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let data = config(&folder.path().join("data"));
    std::fs::create_dir(&data.data).unwrap();
    let error = take(&data, &folder.path().join("backup"))
        .await
        .unwrap_err();
    let said = format!("{error:#}");
    assert!(said.contains("there is no database at"), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["data"]);
    assert!(!data.data.join("roadstead.db").exists());
}

#[tokio::test]
async fn logs_are_not_taken_away_under_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let reader = Lock::shared(folder.path()).unwrap();
    let other = Lock::shared(folder.path()).unwrap();
    assert!(Lock::exclusive(folder.path()).unwrap().is_none());
    drop(reader);
    assert!(Lock::exclusive(folder.path()).unwrap().is_none());
    drop(other);
    assert!(Lock::exclusive(folder.path()).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_postgresql_the_logs_are_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let mut before = config(&folder.path().join("before"));
    before.store.url = cluster.database();
    std::fs::create_dir(&before.data).unwrap();
    let logs = LogStore::new(&before.logs_folder()).unwrap();
    logs.append(key("shop.1", "test"), 0, b"a line\n"[..].into())
        .await
        .unwrap();
    let copy = folder.path().join("backup");
    let about = take(&before, &copy).await.unwrap();
    assert_eq!((about.database, about.log_files), (Database::Postgres, 1));
    assert!(!copy.join("roadstead.db").exists());

    let embedded = config(&folder.path().join("embedded"));
    let error = backup::restore(&embedded, &copy).unwrap_err();
    assert!(error.to_string().contains("PostgreSQL"), "{error}");
    let mut after = config(&folder.path().join("after"));
    after.store.url = before.store.url;
    backup::restore(&after, &copy).unwrap();
    let log = std::fs::read(after.data.join("logs/shop.1/1/test.log")).unwrap();
    assert_eq!(log, b"a line\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_names_the_bucket_of_the_logs_and_has_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut bucket, with_files) = small(&folder).await;
    bucket.logs.s3 = Some(S3 {
        bucket: "acme-logs".into(),
        ..S3::default()
    });
    let copy = folder.path().join("beside-a-bucket");
    // Files of before, which are not where its logs are.
    let about = take(&bucket, &copy).await.unwrap();
    assert_eq!(about.log_files, 0);
    assert_eq!(about.logs_in.as_deref(), Some("s3://acme-logs"));
    assert_eq!(backup::verify(&copy).unwrap(), about);

    let mut after = config(&folder.path().join("after"));
    let error = backup::restore(&after, &copy).unwrap_err();
    assert!(
        error.to_string().contains("`logs.s3` is not set"),
        "{error}"
    );
    after.logs.s3 = bucket.logs.s3;
    let error = backup::restore(&after, &with_files).unwrap_err();
    assert!(
        error.to_string().contains("restore it with `logs.folder`"),
        "{error}"
    );
    backup::restore(&after, &copy).unwrap();
    assert!(after.data.join("roadstead.db").exists());
    assert!(!after.data.join("logs").exists());
}
