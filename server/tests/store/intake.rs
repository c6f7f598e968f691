//! What comes from outside, on rows: webhook calls once each.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit};
use roadstead_pipelines::heads::{Branches, Heads};
use roadstead_pipelines::id::{ProjectName, RunId};
use roadstead_server::store::{Accepted, Decision, Redelivery};

on_both_databases!(
    a_push_makes_one_run,
    the_same_push_at_once_makes_one_run,
    projects_keep_their_lanes,
    branches_are_noted_as_they_stand,
);

async fn a_push_makes_one_run(url: &str) {
    let story = Story::begin(url).await;
    let store = &story.store;
    let run = RunId::new(&story.shop, 1);
    let first = store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    assert_eq!(first, Accepted::Run(run.clone()));
    let duplicate = Accepted::Duplicate {
        run: Some(run.clone()),
    };
    let same_call = store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    assert_eq!(same_call, duplicate);
    let same_push = store
        .accept_delivery(story.delivery("two", 1))
        .await
        .unwrap();
    assert_eq!(same_push, duplicate);

    let mut ignored = story.delivery("three", 2);
    ignored.decision = Decision::Ignore {
        reason: "a tag was deleted".into(),
    };
    assert_eq!(
        store.accept_delivery(ignored).await.unwrap(),
        Accepted::Ignored
    );

    let listed = store.list_deliveries(&story.shop, None, 10).await.unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|d| {
            (
                d.delivery_id.as_str(),
                d.decision.as_str(),
                d.reason.as_str(),
            )
        })
        .collect();
    let expected = [
        ("three", "ignored", "a tag was deleted"),
        ("two", "duplicate", "this push was delivered before"),
        ("one", "built", ""),
    ];
    assert_eq!(told, expected);
    let older = store
        .list_deliveries(&story.shop, Some(listed[1].id), 10)
        .await
        .unwrap();
    assert_eq!(older, [listed[2].clone()]);
    let all = store.list_all_deliveries(1, 1).await.unwrap();
    assert_eq!(all, [listed[1].clone()]);

    // A person wants it again.
    let (found, body) = store.get_delivery(listed[2].id).await.unwrap();
    assert_eq!((found.run, body.as_str()), (Some(run), "{}"));
    let mut again = story.delivery("one-again", 1);
    again.redelivery = Some(Redelivery {
        of: listed[2].id,
        by: "ada".into(),
    });
    let again = store.accept_delivery(again).await.unwrap();
    assert_eq!(again, Accepted::Run(RunId::new(&story.shop, 2)));

    let newest = store
        .newest_commit(&story.shop, "refs/heads/main")
        .await
        .unwrap();
    assert_eq!(newest, Some(commit(1)));
    let runs = store.list_runs(&story.shop, None, 10).await.unwrap();
    let numbers: Vec<_> = runs.iter().map(|line| line.id.number()).collect();
    assert_eq!(numbers, [2, 1]);
    let older = store.list_runs(&story.shop, Some(2), 10).await.unwrap();
    assert_eq!(older, [runs[1].clone()]);

    let mut unknown = story.delivery("four", 4);
    unknown.project = ProjectName::parse("nobody").unwrap();
    let refused = store.accept_delivery(unknown).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no project `nobody`");
}

async fn the_same_push_at_once_makes_one_run(url: &str) {
    let story = Story::begin(url).await;
    let mut tasks = vec![];
    for number in 0..40_u64 {
        let (store, delivery) = (
            story.store.clone(),
            story.delivery(&format!("call-{}", number % 4), number % 2),
        );
        tasks.push(tokio::spawn(async move {
            store.accept_delivery(delivery).await.unwrap()
        }));
    }
    let mut made = vec![];
    for task in tasks {
        match task.await.unwrap() {
            Accepted::Run(run) => made.push(run.number()),
            Accepted::Duplicate { run } => assert!(run.is_some()),
            Accepted::Ignored => panic!("nothing of this is to be ignored"),
        }
    }
    made.sort_unstable();
    assert_eq!(made, [1, 2], "two commits, however often they are told");
    let stored = story
        .store
        .list_deliveries(&story.shop, None, 100)
        .await
        .unwrap();
    assert_eq!(stored.len(), 4, "four calls, each stored once");
}

async fn projects_keep_their_lanes(url: &str) {
    let mut story = Story::begin(url).await;
    let settled = story.store.lane_marks().await.unwrap();
    assert!(!settled[0].live);
    story.push().await;
    let now = story.now;
    story
        .store
        .upsert_project(
            story.shop.clone(),
            "/srv/other.git".into(),
            "another key".into(),
            now,
        )
        .await
        .unwrap();
    let found = story.store.get_project(&story.shop).await.unwrap();
    assert_eq!(found.repository, "/srv/other.git");
    assert_eq!(story.store.list_projects().await.unwrap(), [found]);
    let marks = story.store.lane_marks().await.unwrap();
    assert!(marks[0].live && marks[0].generation > settled[0].generation);
    assert_eq!(story.push().await.number(), 2, "numbers go on");
}

async fn branches_are_noted_as_they_stand(url: &str) {
    let story = Story::begin(url).await;
    let (store, shop) = (&story.store, &story.shop);
    let heads = |of: &[(&str, u64)]| -> Heads {
        let head =
            |(branch, number): &(&str, u64)| (format!("refs/heads/{branch}"), commit(*number));
        of.iter().map(head).collect()
    };
    let project = store.get_project(shop).await.unwrap();
    let address = project.repository.as_str();
    assert_eq!(store.noted_heads(shop, address).await.unwrap(), None);
    let now = jiff::Timestamp::now();
    let branches = |heads| Branches {
        heads,
        default: Some("refs/heads/main".into()),
    };
    let note = async |of: Heads| {
        let noted = store.note_heads(shop, address, branches(of.clone()), now);
        noted.await.unwrap();
        assert_eq!(store.noted_heads(shop, address).await.unwrap(), Some(of));
    };
    note(heads(&[("main", 1), ("aside", 2)])).await;
    note(heads(&[("main", 3), ("new", 4)])).await;
    let own = async || store.get_project(shop).await.unwrap().default_branch;
    assert_eq!(own().await.as_deref(), Some("refs/heads/main"));
    // Empty is not the same as never.
    note(heads(&[])).await;

    let delivery = story.delivery("one", 1);
    let Decision::Build { git_ref, .. } = &delivery.decision else {
        panic!("a push");
    };
    let branch = git_ref.strip_prefix("refs/heads/").unwrap().to_owned();
    store.accept_delivery(delivery).await.unwrap();
    let untold = store.untold(shop, heads(&[(&branch, 1), ("aside", 1)]));
    assert_eq!(untold.await.unwrap(), heads(&[("aside", 1)]));
    let untold = store.untold(shop, heads(&[(&branch, 2)]));
    assert_eq!(untold.await.unwrap().len(), 1);

    // Another repository stands elsewhere, and that is no push.
    let change = async |repository: &str, secret: &str| {
        let (repository, secret) = (repository.to_owned(), secret.to_owned());
        let changed = store.upsert_project(shop.clone(), repository, secret, now);
        changed.await.unwrap();
    };
    change(&project.repository, "another key of the webhooks").await;
    assert_eq!(
        store.noted_heads(shop, address).await.unwrap(),
        Some(heads(&[]))
    );
    change("/elsewhere/shop.git", "another key of the webhooks").await;
    let elsewhere = "/elsewhere/shop.git";
    assert_eq!(store.noted_heads(shop, elsewhere).await.unwrap(), None);
    assert_eq!(own().await, None);
    // A server with the old configuration neither compares nor notes.
    let old = store.note_heads(shop, address, branches(heads(&[("main", 9)])), now);
    old.await.unwrap();
    assert_eq!(store.noted_heads(shop, elsewhere).await.unwrap(), None);
    let new = store.note_heads(shop, elsewhere, branches(heads(&[("main", 7)])), now);
    new.await.unwrap();
    assert_eq!(store.noted_heads(shop, address).await.unwrap(), None);
    let nowhere = ProjectName::parse("nowhere").unwrap();
    assert!(store.noted_heads(&nowhere, address).await.is_err());
}
