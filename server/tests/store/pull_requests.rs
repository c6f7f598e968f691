//! Pull requests on rows: one run for each commit, never taken for one of a branch, ended when they are closed.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit};
use jiff::SignedDuration;
use roadstead_pipelines::action::{Actor, approve_run};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::heads::Heads;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::pull_request::{PullRequest, Trust};
use roadstead_pipelines::run::RunState;
use roadstead_pipelines::spec::Role;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_server::config;
use roadstead_server::forge::Forge;
use roadstead_server::logs::LogStore;
use roadstead_server::retention::Retention;
use roadstead_server::store::{Accepted, Decision, NewRun, Redelivery, StoreError};

on_both_databases!(
    a_commit_of_a_pull_request_makes_one_run,
    an_approval_is_stored_with_its_run_and_in_the_history,
    a_branch_of_a_fork_is_none_of_the_project,
    closing_cancels_what_waits,
    a_status_of_a_pull_request_stands_beside_that_of_its_commit,
    what_is_old_of_a_pull_request_goes,
);

const MAIN: &str = "refs/heads/main";
const HEAD: &str = "refs/pull/7/head";

fn told(trust: Trust) -> PullRequest {
    PullRequest {
        number: 7,
        base_ref: MAIN.into(),
        head_branch: "main".into(),
        trust,
    }
}

fn fork() -> Trust {
    Trust::Untrusted {
        fork: Some("mallory/<b>shop".into()),
    }
}

/// What came of a webhook that tells of commit `number` of pull request 7.
async fn accept(story: &Story, id: &str, number: u64, occasion: Option<&str>) -> Accepted {
    let mut delivery = story.delivery(id, number);
    delivery.forge = "github".into();
    delivery.event = "pull_request".into();
    delivery.decision = Decision::BuildPullRequest {
        git_ref: HEAD.into(),
        commit: commit(number),
        pull_request: told(fork()),
        occasion: occasion.map(str::to_owned),
    };
    story.store.accept_delivery(delivery).await.unwrap()
}

async fn close(story: &Story, id: &str) {
    let mut delivery = story.delivery(id, 1);
    delivery.event = "pull_request".into();
    delivery.decision = Decision::ClosePullRequest {
        git_ref: HEAD.into(),
        number: 7,
    };
    let accepted = story.store.accept_delivery(delivery).await.unwrap();
    assert_eq!(accepted, Accepted::Ignored);
}

async fn state(story: &Story, run: &RunId) -> RunState {
    story.store.get_run(run).await.unwrap().run.state
}

/// Plans and reads until nothing moves.
async fn settle(story: &Story) {
    for _ in 0..3 {
        story.reconcile().await;
        story.act().await;
    }
}

async fn a_commit_of_a_pull_request_makes_one_run(url: &str) {
    let story = Story::begin(url).await;
    let run = RunId::new(&story.shop, 1);
    assert_eq!(
        accept(&story, "opened", 1, None).await,
        Accepted::Run(run.clone())
    );
    let again = Accepted::Duplicate {
        run: Some(run.clone()),
    };
    assert_eq!(accept(&story, "opened", 1, None).await, again);
    assert_eq!(accept(&story, "other id", 1, None).await, again);
    let stored = story.store.get_run(&run).await.unwrap().run;
    assert_eq!(stored.git_ref, HEAD);
    assert_eq!(stored.started_by, StartedBy::PullRequest(told(fork())));
    assert_eq!(*stored.trust(), fork());
    let lines = story.store.list_runs(&story.shop, None, 10).await.unwrap();
    assert_eq!(lines[0].started_by, stored.started_by);

    // Opened again it is another occasion, told once; and so it is when a person sends it again.
    let second = accept(&story, "reopened", 1, Some("at ten")).await;
    assert_eq!(second, Accepted::Run(RunId::new(&story.shop, 2)));
    let again = accept(&story, "reopened twice", 1, Some("at ten")).await;
    assert!(matches!(again, Accepted::Duplicate { .. }));
    let mut sent = story.delivery("sent again", 1);
    sent.decision = Decision::BuildPullRequest {
        git_ref: HEAD.into(),
        commit: commit(1),
        pull_request: told(fork()),
        occasion: None,
    };
    sent.redelivery = Some(Redelivery {
        of: 1,
        by: "ada".into(),
    });
    let sent = story.store.accept_delivery(sent).await.unwrap();
    let Accepted::Run(third) = sent else {
        panic!("{sent:?}")
    };
    // Whoever asks for it again does not make it theirs.
    let asked = NewRun {
        commit: commit(1),
        git_ref: HEAD.into(),
        started_by: StartedBy::PullRequest(told(fork())),
        key: None,
    };
    let asked = story.store.start_run(&story.shop, asked, "ada", story.now);
    asked.await.unwrap();
    settle(&story).await;
    for id in [third, RunId::new(&story.shop, 4)] {
        let state = state(&story, &id).await;
        assert!(
            matches!(state, RunState::WaitingForApproval { .. }),
            "{id}: {state:?}"
        );
    }
}

async fn an_approval_is_stored_with_its_run_and_in_the_history(url: &str) {
    let mut story = Story::begin(url).await;
    accept(&story, "opened", 1, None).await;
    settle(&story).await;
    let run = RunId::new(&story.shop, 1);
    assert_eq!(
        state(&story, &run).await,
        RunState::WaitingForApproval { since: story.now }
    );
    let none = story
        .store
        .claim_job("harbour", "hash".into(), story.now)
        .await;
    assert!(none.unwrap().is_none(), "no runner gets it");
    // A flood of these costs a plan no rows that it does not need; a button finds each.
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    story.wait(60);
    let approve = async |number: u64| {
        let decide = |world: &_| approve_run(world, &run, &commit(number), &ada);
        let store = &story.store;
        store.record(&story.shop, "ada", story.now, decide).await
    };
    let refused = approve(2).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused:?}");
    approve(1).await.unwrap();
    let stored = story.store.get_run(&run).await.unwrap().run;
    let approval = stored.approval.unwrap();
    assert_eq!(
        (approval.by.as_str(), approval.commit, approval.at),
        ("ada", commit(1), story.now)
    );
    let history = story
        .store
        .list_events(Some(&story.shop), Some(run.as_str()), None, 10)
        .await
        .unwrap();
    let event = history.iter().find(|event| event.what == "approved");
    let event = event.unwrap();
    assert_eq!(event.actor, "ada");
    assert_eq!(event.detail["commit"], commit(1).as_str());
    assert!(matches!(
        approve(1).await.unwrap_err(),
        StoreError::Refused(_)
    ));
    settle(&story).await;
    let claimed = story
        .store
        .claim_job("harbour", "hash".into(), story.now)
        .await;
    assert_eq!(claimed.unwrap().unwrap().run.id, run);
}

async fn a_branch_of_a_fork_is_none_of_the_project(url: &str) {
    let mut story = Story::begin(url).await;
    let store = story.store.clone();
    // The branch main of a fork, at a commit that nobody ever pushed to the project's main.
    accept(&story, "opened", 900, None).await;
    settle(&story).await;
    let forked = RunId::new(&story.shop, 1);
    assert_eq!(store.newest_commit(&story.shop, MAIN).await.unwrap(), None);
    let files = store.branch_files(&story.shop, None).await.unwrap();
    assert!(files.is_empty(), "{files:?}");
    let stands = Heads::from([(MAIN.to_owned(), commit(900))]);
    let untold = store.untold(&story.shop, stands.clone()).await.unwrap();
    assert_eq!(untold, stands, "that main stands there was not told");

    let pushed = story.push().await;
    let run = store.get_run(&pushed).await.unwrap().run;
    let before = store
        .runs_before(&run, [&run.commit, &run.commit])
        .await
        .unwrap();
    assert!(before.building.is_empty() && !before.same_commit);
    assert_eq!(before.last_succeeded, None);
    let of_fork = store.get_run(&forked).await.unwrap().run;
    let before = store
        .runs_before(&of_fork, [&of_fork.commit, &of_fork.commit])
        .await
        .unwrap();
    assert!(before.building.is_empty(), "{before:?}");

    // It comes to its end after the push, and is no release, nor one that others wait for.
    let world = store.load_world(&story.shop).await.unwrap();
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    let approved = approve_run(&world, &forked, &commit(900), &ada).unwrap();
    let decide = |_: &_| Ok(approved.clone());
    store
        .record(&story.shop, "ada", story.now, decide)
        .await
        .unwrap();
    settle(&story).await;
    story.build(&forked).await;
    settle(&story).await;
    let being_built = store.commits_being_built(&story.shop).await.unwrap();
    assert!(being_built.iter().all(|(it, _)| *it != commit(900)));
    assert!(matches!(
        state(&story, &forked).await,
        RunState::Succeeded { release: None, .. }
    ));
    let releases = store.list_releases(&story.shop, None, 10).await.unwrap();
    assert!(releases.is_empty(), "{releases:?}");
    assert_eq!(store.load_world(&story.shop).await.unwrap().pipeline, None);
}

async fn closing_cancels_what_waits(url: &str) {
    let mut story = Story::begin(url).await;
    let main = story.push().await;
    accept(&story, "opened", 901, None).await;
    settle(&story).await;
    let waits = RunId::new(&story.shop, 2);
    close(&story, "closed").await;
    let RunState::Cancelled { by, .. } = state(&story, &waits).await else {
        panic!("{:?}", state(&story, &waits).await);
    };
    assert_eq!(by, "the webhook that told that pull request #7 was closed");
    assert!(
        !state(&story, &main).await.is_over(),
        "that of a branch goes on"
    );
    let deliveries = story.store.list_deliveries(&story.shop, None, 10).await;
    let deliveries = deliveries.unwrap();
    assert_eq!(deliveries[0].decision, "closed");
    assert_eq!(
        deliveries[0].reason,
        "pull request #7 was closed: cancelled shop.2"
    );

    // What a runner has begun goes on to its end.
    accept(&story, "reopened", 901, Some("later")).await;
    settle(&story).await;
    let begun = RunId::new(&story.shop, 3);
    let fact = RunFact::Approved {
        by: "ada".into(),
        commit: commit(901),
    };
    let changes = vec![Change::Run {
        run: begun.clone(),
        fact,
    }];
    let decide = |_: &_| Ok(changes.clone());
    let store = story.store.clone();
    store
        .record(&story.shop, "ada", story.now, decide)
        .await
        .unwrap();
    settle(&story).await;
    story.build(&main).await;
    let lease = story.now + SignedDuration::from_secs(1);
    let claim = store.claim_job("harbour", "hash".into(), lease).await;
    assert_eq!(claim.unwrap().unwrap().run.id, begun);
    close(&story, "closed again").await;
    assert!(matches!(
        state(&story, &begun).await,
        RunState::Building { .. }
    ));
    let deliveries = store.list_deliveries(&story.shop, None, 10).await.unwrap();
    assert_eq!(deliveries[0].reason, "pull request #7 was closed");
}

async fn a_status_of_a_pull_request_stands_beside_that_of_its_commit(url: &str) {
    let mut story = Story::begin(url).await;
    let store = story.store.clone();
    let told = store.set_told_forge(&story.shop, Some(Forge::Github));
    told.await.unwrap();
    let pushed = story.push().await;
    // A fork asks to merge the very commit.
    accept(&story, "opened", 1, None).await;
    settle(&story).await;
    let forked = RunId::new(&story.shop, 2);
    for run in [&pushed, &forked] {
        let telling = store.status_of_run(run).await.unwrap();
        assert_eq!(telling.unwrap().run, *run, "neither took the other's place");
    }
    let until = story.now + SignedDuration::from_secs(60);
    let mut refs = vec![];
    while let Some(due) = store
        .lease_status(&story.shop, story.now, until)
        .await
        .unwrap()
    {
        assert_eq!(due.commit, commit(1));
        refs.push((due.base_branch().map(str::to_owned), due.git_ref));
    }
    refs.sort();
    let to_main = Some("main".to_owned());
    assert_eq!(refs, [(None, MAIN.to_owned()), (to_main, HEAD.to_owned())]);
}

async fn what_is_old_of_a_pull_request_goes(url: &str) {
    let mut story = Story::begin(url).await;
    accept(&story, "opened", 1, None).await;
    close(&story, "closed").await;
    let folder = tempfile::tempdir().unwrap();
    let days = config::Kept {
        days: Some(1),
        newest: None,
    };
    let retention = Retention {
        store: story.store.clone(),
        logs: LogStore::new(&folder.path().join("logs")).unwrap(),
        policies: config::Retention {
            runs: days,
            ..config::Retention::default()
        },
        started_at: story.now,
    };
    story.wait(3 * 24 * 3_600);
    retention.sweep(story.now).await.unwrap();
    // Of a branch the newest would stay, to be compared with where the branch stands.
    let left = story.store.list_runs(&story.shop, None, 10).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
