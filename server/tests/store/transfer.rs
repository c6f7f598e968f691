//! An installation moves from SQLite to PostgreSQL and goes on there.

use crate::databases::{Cluster, sqlite};
use crate::story::{Story, place};
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::spec::Role;
use roadstead_server::audit::Verifier;
use roadstead_server::store::transfer::{Moved, transfer};
use roadstead_server::store::{Accepted, Delivery, Event, Store, StoreError};
use std::time::Duration;

/// Once the store that was dropped has let go of its file.
async fn once_alone(from: &str, to: &str) -> Result<Vec<Moved>, StoreError> {
    for _ in 0..600 {
        let (source, target) = (from.to_owned(), to.to_owned());
        let moving = tokio::task::spawn_blocking(move || transfer(&source, &target));
        match moving.await.unwrap() {
            Err(error) if error.to_string().contains("is in use") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
    panic!("the source stays in use");
}

async fn history(store: &Store) -> Vec<Event> {
    store.list_events(None, None, None, 10_000).await.unwrap()
}

async fn deliveries(store: &Store, story: &Story) -> Vec<Delivery> {
    let found = store.list_deliveries(&story.shop, None, 10_000).await;
    found.unwrap()
}

async fn heads(store: &Store) -> Vec<String> {
    let mut verifier = Verifier::new(vec![]);
    for chain in store.audit_chains().await.unwrap() {
        let page = store.audit_page(&chain, 0, 10_000).await.unwrap();
        for entry in &page.entries {
            verifier.entry(entry).unwrap();
        }
        verifier.head(&page.head).unwrap();
    }
    let heads = verifier.finish().unwrap();
    heads.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_moves_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (from, cluster) = (sqlite(&folder), Cluster::start());
    let to = cluster.database();
    let mut story = Story::begin(&from).await;
    let release = story.verified_in_staging().await;
    story
        .store
        .create_user(
            "Ada \u{1f6a2} \"L.\"",
            "hash\n\\",
            Role::Admin,
            &Addresses::new(),
            "root",
            story.now,
        )
        .await
        .unwrap();
    let runner = story
        .store
        .register_runner("harbour", "hash".into(), vec!["linux".into()], story.now)
        .await
        .unwrap();
    let draining = story.store.set_drain(&runner.id, true, "ole", story.now);
    assert!(draining.await.unwrap());
    // More than travel at once.
    for number in 100..350 {
        let delivery = story.delivery(&format!("d{number}"), number);
        story.store.accept_delivery(delivery).await.unwrap();
    }
    let world = story.store.load_world(&story.shop).await.unwrap();
    let users = story.store.list_users().await.unwrap();
    let told = history(&story.store).await;
    let calls = deliveries(&story.store, &story).await;
    let ends = heads(&story.store).await;
    let run = story
        .store
        .get_run(&RunId::new(&story.shop, 1))
        .await
        .unwrap();

    // Not under a server.
    let error = transfer(&from, &to).unwrap_err().to_string();
    assert!(
        error.contains("is in use: stop the server first"),
        "{error}"
    );
    let again = Store::open(&to).await.unwrap();
    assert!(again.list_projects().await.unwrap().is_empty());
    drop(again);

    let shop = story.shop.clone();
    let next = story.delivery("after the move", 9_999);
    let known = story.delivery("d100", 100);
    let stand_in = Store::open(&sqlite(&tempfile::tempdir().unwrap())).await;
    drop(std::mem::replace(&mut story.store, stand_in.unwrap()));
    let moved = once_alone(&from, &to).await.unwrap();
    let rows = |table: &str| {
        let found = moved.iter().find(|moved| moved.table == table);
        found.unwrap().rows
    };
    assert_eq!(rows("deliveries"), 251);
    assert_eq!(rows("runs"), 251);
    assert_eq!(rows("events"), told.len() as u64);
    assert_eq!((rows("projects"), rows("lanes")), (1, 1));

    let store = Store::open(&to).await.unwrap();
    assert_eq!(store.load_world(&shop).await.unwrap(), world);
    assert!(world.place(&place("staging")).has_verified(&release));
    assert_eq!(store.list_users().await.unwrap(), users);
    assert_eq!(history(&store).await, told);
    assert_eq!(deliveries(&store, &story).await, calls);
    assert_eq!(heads(&store).await, ends);
    assert_eq!(store.get_run(&run.run.id).await.unwrap(), run);
    assert!(store.list_runners().await.unwrap()[0].drain);
    // And on: what is known is known, what is new has the next numbers.
    let same = store.accept_delivery(known).await.unwrap();
    assert!(matches!(same, Accepted::Duplicate { .. }), "{same:?}");
    let new = store.accept_delivery(next).await.unwrap();
    assert_eq!(new, Accepted::Run(RunId::new(&shop, 252)));
    assert_eq!(deliveries(&store, &story).await[0].id, calls[0].id + 1);
    assert_eq!(history(&store).await[0].sequence, told[0].sequence + 1);
    heads(&store).await;

    // Once is enough.
    let error = once_alone(&from, &to).await.unwrap_err().to_string();
    assert!(
        error.contains("the PostgreSQL database is not empty: `"),
        "{error}"
    );
    // The source is as it was.
    let old = Store::open(&from).await.unwrap();
    assert_eq!(history(&old).await, told);
}

#[tokio::test]
async fn what_cannot_be_moved_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder);
    for (from, to, expected) in [
        (from.as_str(), from.as_str(), "to PostgreSQL"),
        (
            "postgres://one/db",
            "postgres://other/db",
            "from an embedded database",
        ),
        (
            from.as_str(),
            "postgres://other/db",
            "there is no database at",
        ),
    ] {
        let error = transfer(from, to).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
