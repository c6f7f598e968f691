//! Which artifacts there are: what an attempt may keep, and how long.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_pipelines::retention::Policy;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_protocol::{LARGEST_ARTIFACT, MOST_ARTIFACT_BYTES, MOST_ARTIFACTS, TestReport};
use roadstead_server::store::{NewArtifact, Report, Space, Store, hash_secret};
use std::collections::BTreeSet;

on_both_databases!(
    an_artifact_is_recorded_once_and_by_its_own_attempt,
    a_step_keeps_no_more_than_it_may_however_many_ask_at_once,
    artifacts_go_with_the_logs_of_their_run,
);

fn new(attempt: &str, fence: u64, name: &str, length: u64) -> NewArtifact {
    NewArtifact {
        attempt: attempt.into(),
        fence,
        step: StepName::parse("test").unwrap(),
        name: name.into(),
        length,
        sha256: format!("{length:064x}"),
    }
}

/// An attempt at a new run.
async fn claimed(story: &mut Story) -> (RunId, String) {
    let run = story.push().await;
    let token = hash_secret(run.as_str());
    let claim = story.store.claim_job("a", token, story.now).await;
    (run, claim.unwrap().unwrap().attempt)
}

async fn names(store: &Store, run: &RunId, attempt: u32) -> Vec<String> {
    let found = store.list_artifacts(run, &[attempt]).await.unwrap();
    found.into_iter().map(|artifact| artifact.name).collect()
}

async fn an_artifact_is_recorded_once_and_by_its_own_attempt(url: &str) {
    let mut story = Story::begin(url).await;
    let (run, first) = claimed(&mut story).await;
    let store = story.store.clone();
    let record = async |new: NewArtifact| store.record_artifact(&new, story.now).await.unwrap();
    let kept = new(&first, 1, "dist/ü.js", 7);
    assert_eq!(store.space_for_artifact(&kept).await.unwrap(), Space::Free);
    assert_eq!(record(kept.clone()).await, Space::Free);
    assert_eq!(store.space_for_artifact(&kept).await.unwrap(), Space::Taken);
    assert_eq!(record(kept.clone()).await, Space::Taken);
    // Other bytes of that name; a length that others have told.
    assert_eq!(
        record(new(&first, 1, "dist/ü.js", 8)).await,
        Space::TakenByOther
    );
    let other_sum = NewArtifact {
        sha256: "0".repeat(64),
        ..kept.clone()
    };
    assert_eq!(record(other_sum).await, Space::TakenByOther);
    assert_eq!(record(new(&first, 2, "b", 1)).await, Space::Lost);
    let found = store
        .get_artifact(&run, &[1], "test", "dist/ü.js")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.length, &found.sha256, found.stored_at),
        (7, &kept.sha256, story.now)
    );
    for (attempt, step, name) in [
        (2, "test", "dist/ü.js"),
        (1, "image", "dist/ü.js"),
        (1, "test", "b"),
    ] {
        assert_eq!(
            store
                .get_artifact(&run, &[attempt], step, name)
                .await
                .unwrap(),
            None
        );
    }

    // The next attempt keeps its own.
    let errored = AttemptOutcome::Errored {
        reason: "the engine is gone".into(),
    };
    store
        .end_attempt(&first, 1, errored, story.now)
        .await
        .unwrap();
    assert_eq!(record(new(&first, 1, "late", 1)).await, Space::Lost);
    let second = store
        .claim_job("b", hash_secret("second"), story.now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        record(new(&second.attempt, 2, "dist/ü.js", 9)).await,
        Space::Free
    );
    assert_eq!(names(&store, &run, 1).await, ["dist/ü.js"]);
    assert_eq!(store.list_artifacts(&run, &[2]).await.unwrap()[0].length, 9);
    assert!(
        store
            .record_artifact(&new("shop.9.a9", 9, "a", 1), story.now)
            .await
            .is_err()
    );
}

async fn a_step_keeps_no_more_than_it_may_however_many_ask_at_once(url: &str) {
    let mut story = Story::begin(url).await;
    let (run, attempt) = claimed(&mut story).await;
    for number in 0..MOST_ARTIFACTS - 3 {
        let one = new(&attempt, 1, &format!("f{number}"), 0);
        assert_eq!(
            story.store.record_artifact(&one, story.now).await.unwrap(),
            Space::Free
        );
    }
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (store, now) = (story.store.clone(), story.now);
        let one = new(&attempt, 1, &format!("late-{number}"), 0);
        asked.spawn(async move { store.record_artifact(&one, now).await.unwrap() });
    }
    let said = asked.join_all().await;
    let free = said.iter().filter(|space| **space == Space::Free).count();
    assert_eq!(free, 3, "{said:?}");
    assert_eq!(
        said.iter()
            .filter(|space| **space == Space::TooMany)
            .count(),
        9
    );
    assert_eq!(names(&story.store, &run, 1).await.len(), MOST_ARTIFACTS);

    let (run, attempt) = claimed(&mut story).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (store, now) = (story.store.clone(), story.now);
        let one = new(&attempt, 1, &format!("large-{number}"), LARGEST_ARTIFACT);
        asked.spawn(async move { store.record_artifact(&one, now).await.unwrap() });
    }
    let said: BTreeSet<_> = asked
        .join_all()
        .await
        .into_iter()
        .map(|space| format!("{space:?}"))
        .collect();
    assert_eq!(said, BTreeSet::from(["Free".into(), "TooLarge".into()]));
    let found = story.store.list_artifacts(&run, &[1]).await.unwrap();
    let kept: u64 = found.iter().map(|artifact| artifact.length).sum();
    assert_eq!(kept, MOST_ARTIFACT_BYTES);
}

async fn artifacts_go_with_the_logs_of_their_run(url: &str) {
    let mut story = Story::begin(url).await;
    let mut runs = vec![];
    for _ in 0..3 {
        let (run, attempt) = claimed(&mut story).await;
        let one = new(&attempt, 1, "dist/app.js", 7);
        assert_eq!(
            story.store.record_artifact(&one, story.now).await.unwrap(),
            Space::Free
        );
        let step = StepName::parse("test").unwrap();
        let report = TestReport {
            fence: 1,
            tests: 3,
            failed: 1,
            skipped: 0,
            unread: 0,
            cases: vec![],
        };
        let told = async |fence| {
            let report = TestReport {
                fence,
                ..report.clone()
            };
            story
                .store
                .record_tests(&attempt, &step, report)
                .await
                .unwrap()
        };
        assert_eq!(told(2).await, Report::Lost);
        assert_eq!(told(1).await, Report::Recorded);
        assert_eq!(told(1).await, Report::Repeated);
        assert_eq!(
            story.store.list_tests(&run, &[1]).await.unwrap()[0].tests,
            3
        );
        let failed = AttemptOutcome::TimedOut { step };
        let ended = story.store.end_attempt(&attempt, 1, failed, story.now);
        ended.await.unwrap();
        runs.push(run);
    }
    story.wait(2 * 86_400);
    let policy = Policy {
        days: Some(1),
        newest: None,
    };
    let [first, second, third] = [0, 1, 2].map(|number: usize| runs[number].clone());
    let (store, now) = (&story.store, story.now);
    let noting = store.note_removed_logs(&story.shop, vec![first.clone()], policy, now);
    noting.await.unwrap();
    assert!(names(store, &first, 1).await.is_empty());
    // What tests came to is small, and stays as long as the run does.
    assert_eq!(store.list_tests(&first, &[1]).await.unwrap().len(), 1);
    store.get_run(&first).await.unwrap();

    let removing = store.remove_runs(&story.shop, vec![first, second.clone()], policy, now);
    assert_eq!(removing.await.unwrap(), 2);
    assert!(names(store, &second, 1).await.is_empty());
    assert!(store.list_tests(&second, &[1]).await.unwrap().is_empty());
    assert_eq!(names(store, &third, 1).await, ["dist/app.js"]);
}
