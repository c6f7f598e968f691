//! Runs that people start, on rows: once under a key, with what they gave, and what the branches' files say of it.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit};
use roadstead_pipelines::heads::{Branches, Heads};
use roadstead_pipelines::id::{ProjectName, RunId};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::InputValues;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_server::store::{Asked, NewRun, Store, StoreError};
use std::collections::BTreeSet;

on_both_databases!(
    a_key_makes_one_run,
    the_same_key_at_once_makes_one_run,
    what_no_push_started_is_no_base_and_is_not_cancelled,
    the_newest_file_of_a_branch_is_known,
);

const MAIN: &str = "refs/heads/main";

fn manual(by: &str, target: &str) -> StartedBy {
    StartedBy::Manual {
        by: by.into(),
        inputs: InputValues::from([("target".to_owned(), target.to_owned())]),
        commit_named: false,
    }
}

fn wish(number: u64, target: &str, key: Option<&str>) -> NewRun {
    NewRun {
        commit: commit(number),
        git_ref: MAIN.into(),
        started_by: manual("ada", target),
        key: key.map(str::to_owned),
    }
}

async fn run_of(store: &Store, id: &RunId) -> Run {
    store.get_run(id).await.unwrap().run
}

async fn a_key_makes_one_run(url: &str) {
    let story = Story::begin(url).await;
    let (store, shop, now) = (&story.store, &story.shop, story.now);
    let run = |number| RunId::new(shop, number);
    let ask = async |wish: NewRun, by: &str| store.start_run(shop, wish, by, now).await.unwrap();
    let one = ask(wish(1, "near", Some("k")), "ada").await;
    assert_eq!(one, Asked::Made(run(1)));
    // The branch has moved on since: it is the same wish.
    let again = ask(wish(2, "near", Some("k")), "ada").await;
    assert_eq!(again, Asked::Before(run(1)));
    let other = ask(wish(1, "far", Some("k")), "ada").await;
    assert_eq!(other, Asked::Other(run(1)));
    let of_somebody = NewRun {
        started_by: manual("ben", "near"),
        ..wish(1, "near", Some("k"))
    };
    assert_eq!(ask(of_somebody, "ben").await, Asked::Made(run(2)));
    assert_eq!(ask(wish(1, "near", None), "ada").await, Asked::Made(run(3)));
    assert_eq!(ask(wish(1, "near", None), "ada").await, Asked::Made(run(4)));

    let found = run_of(store, &run(1)).await;
    assert_eq!(found.started_by, manual("ada", "near"));
    assert_eq!(found.commit, commit(1));
    let listed = store.list_runs(shop, None, 1).await.unwrap();
    assert_eq!(listed[0].started_by, manual("ada", "near"));
    let events = store.list_events(Some(shop), Some("shop.1"), None, 10);
    let events = events.await.unwrap();
    let asked = events.iter().find(|it| it.what == "asked_for").unwrap();
    assert_eq!(asked.actor, "ada");
    let told = &asked.detail["started_by"];
    assert_eq!(told["inputs"]["target"], "near", "{told}");

    // A commit that somebody names is part of the wish.
    let named = |number| NewRun {
        started_by: StartedBy::Manual {
            by: "ada".into(),
            inputs: InputValues::new(),
            commit_named: true,
        },
        ..wish(number, "", Some("named"))
    };
    assert_eq!(ask(named(1), "ada").await, Asked::Made(run(5)));
    assert_eq!(ask(named(1), "ada").await, Asked::Before(run(5)));
    assert_eq!(ask(named(2), "ada").await, Asked::Other(run(5)));

    let nowhere = ProjectName::parse("nowhere").unwrap();
    let refused = store.start_run(&nowhere, wish(1, "", Some("k")), "ada", now);
    assert!(matches!(
        refused.await.unwrap_err(),
        StoreError::NotFound { .. }
    ));
}

async fn the_same_key_at_once_makes_one_run(url: &str) {
    let story = Story::begin(url).await;
    // As two servers have them.
    let stores = [story.store.clone(), Store::open(url).await.unwrap()];
    let mut tasks = vec![];
    for number in 0..24_usize {
        let (store, shop, now) = (stores[number % 2].clone(), story.shop.clone(), story.now);
        let key = format!("key-{}", number % 3);
        tasks.push(tokio::spawn(async move {
            let wish = wish(1, "near", Some(&key));
            store.start_run(&shop, wish, "ada", now).await.unwrap()
        }));
    }
    let (mut made, mut told) = (0, BTreeSet::new());
    for task in tasks {
        match task.await.unwrap() {
            Asked::Made(run) => {
                made += 1;
                told.insert(run);
            }
            Asked::Before(run) => {
                told.insert(run);
            }
            Asked::Other(run) => panic!("{run} is another one"),
        }
    }
    assert_eq!((made, told.len()), (3, 3), "three keys, however often");
    let runs = story.store.list_runs(&story.shop, None, 100).await.unwrap();
    assert_eq!(runs.len(), 3);
}

async fn what_no_push_started_is_no_base_and_is_not_cancelled(url: &str) {
    let mut story = Story::begin(url).await;
    story.push().await;
    let (store, shop, now) = (&story.store, &story.shop, story.now);
    let asked = store.start_run(shop, wish(1, "near", None), "ada", now);
    assert_eq!(asked.await.unwrap(), Asked::Made(RunId::new(shop, 2)));
    let asked = store.start_run(shop, wish(5, "near", None), "ada", now);
    assert_eq!(asked.await.unwrap(), Asked::Made(RunId::new(shop, 3)));
    let delivery = story.delivery("later", 5);
    store.accept_delivery(delivery).await.unwrap();
    let last = run_of(store, &RunId::new(shop, 4)).await;
    let own = commit(5);
    let before = store.runs_before(&last, [&own, &own]).await.unwrap();
    assert!(!before.same_commit, "a person's run is no push of it");
    assert!(!before.file_read, "nor was the file read");
    let building: Vec<u64> = before.building.keys().map(RunId::number).collect();
    assert_eq!(building, [1], "a push does not cancel what people started");
    let first = commit(1);
    let before = store.runs_before(&last, [&first, &first]).await.unwrap();
    assert!(before.same_commit && before.file_read);
}

async fn the_newest_file_of_a_branch_is_known(url: &str) {
    let mut story = Story::begin(url).await;
    let (store, shop) = (story.store.clone(), story.shop.clone());
    let known = async || store.branch_files(&shop, Some(MAIN)).await.unwrap();
    assert_eq!(known().await, []);
    let first = story.push().await;
    let of_first = known().await;
    assert_eq!(of_first.len(), 1);
    assert_eq!(
        (&of_first[0].run, of_first[0].git_ref.as_str()),
        (&first, MAIN)
    );
    assert_eq!(of_first[0].trigger, crate::story::pipeline().trigger);
    let second = story.push().await;
    assert_eq!(known().await[0].run, second);
    // The key and the run go together; the file stays.
    let asked = store.start_run(&shop, wish(9, "near", Some("k")), "ada", story.now);
    asked.await.unwrap();
    assert_eq!(store.branch_files(&shop, None).await.unwrap().len(), 1);
    let topic = story.read("topic", 8, crate::story::PIPELINE).await;
    let files = store.branch_files(&shop, None).await.unwrap();
    assert_eq!((files.len(), &files[0].run), (2, &topic));
    let other = store.branch_files(&shop, Some("refs/heads/other"));
    assert_eq!(other.await.unwrap(), []);
    // The branch is gone, and so is what its file said.
    let address = store.get_project(&shop).await.unwrap().repository;
    let note = async |branches: &[&str]| {
        let heads = branches.iter();
        let heads: Heads = heads
            .map(|branch| ((*branch).to_owned(), commit(2)))
            .collect();
        let branches = Branches {
            heads,
            default: None,
        };
        let noted = store.note_heads(&shop, &address, branches, story.now);
        noted.await.unwrap();
    };
    note(&[MAIN]).await;
    assert_eq!(known().await.len(), 1);
    note(&["refs/heads/other"]).await;
    assert_eq!(known().await, []);
}
