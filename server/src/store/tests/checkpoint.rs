//! SQLite's write-ahead log stays small, whoever reads.

use super::super::schema::users;
use super::super::{Decision, NewDelivery, Store};
use super::databases;
use super::noise::noise;
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// The bound that operators are told, in bytes.
const BOUND: u64 = 64 << 20;
/// What is written in all, in bytes.
const MUCH: u64 = 160 << 20;
const BODY: usize = 200_000;

async fn begin(folder: &TempDir) -> (Store, PathBuf) {
    let store = Store::open(&databases::sqlite(folder)).await.unwrap();
    let shop = ProjectName::parse("shop").unwrap();
    store
        .upsert_project(
            shop,
            "/srv/shop.git".into(),
            "key".into(),
            Timestamp::UNIX_EPOCH,
        )
        .await
        .unwrap();
    (store, folder.path().join("roadstead.db-wal"))
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |log| log.len())
}

/// Deliveries of much in all, four at a time.
fn write_much(store: &Store) -> Vec<JoinHandle<()>> {
    write(store, MUCH)
}

/// Deliveries of so many bytes in all, four at a time.
fn write(store: &Store, much: u64) -> Vec<JoinHandle<()>> {
    let number = Arc::new(AtomicU64::new(0));
    let writer = || {
        let (store, number) = (store.clone(), Arc::clone(&number));
        tokio::spawn(async move {
            loop {
                let next = number.fetch_add(1, Ordering::Relaxed);
                if next * BODY as u64 > much {
                    return;
                }
                let delivery = NewDelivery {
                    project: ProjectName::parse("shop").unwrap(),
                    forge: "git".into(),
                    delivery_id: format!("large-{next}"),
                    event: "push".into(),
                    body: noise(next, BODY),
                    decision: Decision::Ignore {
                        reason: "it is large".into(),
                    },
                    redelivery: None,
                    received_at: Timestamp::UNIX_EPOCH,
                };
                store.accept_delivery(delivery).await.unwrap();
            }
        })
    };
    (0..4).map(|_| writer()).collect()
}

/// A reader with a snapshot, which it holds until it is told to let go.
async fn reader(store: &Store) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (let_go, held) = mpsc::channel::<()>();
    let (looked, has_looked) = tokio::sync::oneshot::channel::<()>();
    let store = store.clone();
    let reading = tokio::spawn(async move {
        let read = store.read(move |c| {
            let _: i64 = users::table.count().get_result(c)?;
            // An error means that the test has ended.
            let _ = looked.send(());
            let _ = held.recv();
            Ok(())
        });
        read.await.unwrap();
    });
    has_looked.await.unwrap();
    (let_go, reading)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_is_taken_back_once_a_long_reader_has_gone_though_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = begin(&folder).await;
    let (let_go, reading) = reader(&store).await;
    for writer in write_much(&store) {
        writer.await.unwrap();
    }
    // Else this would show nothing.
    assert!(length(&log) > BOUND, "{} bytes", length(&log));
    let_go.send(()).unwrap();
    reading.await.unwrap();
    let mut tries = 0;
    while length(&log) >= BOUND {
        tries += 1;
        assert!(tries < 1_200, "the log stays at {} bytes", length(&log));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_without_a_gap_between_them_do_not_make_the_log_grow() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = begin(&folder).await;
    let writers = write_much(&store);
    let mut largest = 0;
    let mut before = reader(&store).await;
    let mut readers = 0_u64;
    while !writers.iter().all(JoinHandle::is_finished) {
        // The next one has its snapshot before this one lets go.
        let next = reader(&store).await;
        let (let_go, reading) = std::mem::replace(&mut before, next);
        let_go.send(()).unwrap();
        reading.await.unwrap();
        largest = largest.max(length(&log));
        readers += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(readers > 20, "only {readers} readers");
    assert!(largest < BOUND, "the log grew to {largest} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stretch_of_the_log_is_copied_back_before_the_log_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = begin(&folder).await;
    for writer in write(&store, 20 << 20) {
        writer.await.unwrap();
    }
    let database = folder.path().join("roadstead.db");
    let mut tries = 0;
    while length(&database) < 6 << 20 {
        tries += 1;
        let (database, log) = (length(&database), length(&log));
        assert!(tries < 600, "{database} bytes beside a log of {log}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is there was copied while the log went on.
    assert!(length(&log) >= 12 << 20, "{} bytes", length(&log));
}
