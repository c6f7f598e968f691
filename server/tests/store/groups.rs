//! Groups of jobs on rows: who gets a place, also with claims and changes at once, and what frees one.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit, read_of};
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::group::Standing;
use roadstead_pipelines::id::{JobName, RunId};
use roadstead_pipelines::planner;
use roadstead_pipelines::pull_request::{PullRequest, Trust};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::rerun::Wish;
use roadstead_pipelines::retention::Policy;
use roadstead_pipelines::run::{AttemptOutcome, MOST_ATTEMPTS};
use roadstead_pipelines::spec::{self, Role};
use roadstead_protocol::ACCEPT_SECONDS;
use roadstead_server::store::{Accepted, Claim, Decision, Report, Store, hash_secret};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

on_both_databases!(
    jobs_of_a_group_take_turns_and_none_is_dropped,
    whoever_is_ready_first_is_first,
    claims_at_once_never_give_more_than_the_limit,
    jobs_that_become_ready_at_once_get_one_place,
    those_who_wait_are_in_nobodys_way,
    a_cancel_frees_what_it_can,
    a_lost_runner_keeps_the_place_and_wedges_nothing,
    a_rerun_queues_anew,
    a_strangers_jobs_hold_up_no_others,
    the_lowest_limit_of_those_at_work_holds,
);

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

const DEPLOY: &str = "\
version: 1
name: shop
steps:
  deploy: { image: busybox, run: make, concurrency: { group: deploys } }
";

const LINT_FIRST: &str = "\
version: 1
name: shop
steps:
  lint: { image: busybox, run: make lint }
  deploy: { image: busybox, run: make, needs: [lint], concurrency: { group: deploys } }
";

/// A run of commit `number`, as far as its first jobs are ready.
async fn run_of(story: &Story, number: u64, file: &str) -> RunId {
    let run = story.read(&format!("branch-{number}"), number, file).await;
    story.reconcile().await;
    story.act().await;
    run
}

async fn claim(story: &Story, token: &str) -> Option<Claim> {
    let token = hash_secret(token);
    let claim = story.store.claim_job("harbour", token, story.now);
    claim.await.unwrap()
}

async fn claimed(story: &Story, token: &str) -> (String, Claim) {
    let claim = claim(story, token).await.expect("a job is ready");
    (format!("{} {}", claim.run.id, claim.job), claim)
}

async fn end_as(store: &Store, story: &Story, claim: &Claim, outcome: AttemptOutcome) {
    let fence = u64::from(claim.number);
    let told = store.end_attempt(&claim.attempt, fence, outcome, story.now);
    assert_eq!(told.await.unwrap(), Report::Recorded);
}

fn well() -> AttemptOutcome {
    let images = BTreeMap::new();
    AttemptOutcome::Succeeded { images }
}

async fn succeed(story: &Story, claim: &Claim) {
    end_as(&story.store, story, claim, well()).await;
}

async fn cancel(story: &Story, run: &RunId) {
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    let cancelled = story.store.record(&story.shop, "ada", story.now, |world| {
        action::cancel_run(world, run, &ada)
    });
    cancelled.await.unwrap();
}

/// How `deploy` of a run stands: 0 when it holds a place, else its position; none when it is in no line.
async fn position(story: &Story, run: &RunId) -> Option<usize> {
    let detail = story.store.get_run(run).await.unwrap();
    let job = JobName::parse("deploy").unwrap();
    let mut lines = detail.lines.values();
    let standing = lines.find_map(|line| roadstead_pipelines::group::standing(line, run, &job));
    standing.map(|standing| match standing {
        Standing::Holds => 0,
        Standing::Waits { position, .. } => position,
    })
}

/// The same database as another server has it; the embedded one has no other server.
async fn beside(story: &Story, url: &str) -> Store {
    if url.starts_with("postgres") {
        Store::open(url).await.unwrap()
    } else {
        story.store.clone()
    }
}

async fn jobs_of_a_group_take_turns_and_none_is_dropped(url: &str) {
    let story = Story::begin(url).await;
    let mut runs = vec![];
    for number in 1..=4 {
        runs.push(run_of(&story, number, DEPLOY).await);
    }
    for (index, run) in runs.iter().enumerate() {
        let (name, holder) = claimed(&story, &format!("token {run}")).await;
        assert_eq!(name, format!("{run} deploy"));
        assert_eq!(claim(&story, "another").await, None, "{name} is at work");
        for (before, waits) in runs[index + 1..].iter().enumerate() {
            assert_eq!(position(&story, waits).await, Some(before + 1));
        }
        if let Some(next) = runs.get(index + 1) {
            let world = story.store.load_world(&story.shop).await.unwrap();
            let plan = planner::plan(&world, story.now);
            let reasons: Vec<_> = plan.waiting_on.iter().map(|it| &it.reason).collect();
            let told = format!("group deploys, held by job deploy of {run}");
            assert!(reasons.contains(&&told), "{next}: {reasons:?}");
        }
        succeed(&story, &holder).await;
        assert_eq!(position(&story, run).await, None);
    }
    for run in &runs {
        let found = story.store.get_run(run).await.unwrap();
        assert_eq!(found.run.state.word(), "succeeded", "{run}");
    }
}

async fn whoever_is_ready_first_is_first(url: &str) {
    let story = Story::begin(url).await;
    let early = run_of(&story, 1, LINT_FIRST).await;
    let (name, lint) = claimed(&story, "1").await;
    assert_eq!(name, "shop.1 default");
    let late = run_of(&story, 2, DEPLOY).await;
    assert_eq!(position(&story, &early).await, None, "it is not ready");
    assert_eq!(position(&story, &late).await, Some(0));
    succeed(&story, &lint).await;
    assert_eq!(position(&story, &early).await, Some(1));
    let (name, first) = claimed(&story, "2").await;
    assert_eq!(name, "shop.2 deploy");
    assert_eq!(claim(&story, "3").await, None);
    succeed(&story, &first).await;
    assert_eq!(claimed(&story, "4").await.0, "shop.1 deploy");
}

async fn claims_at_once_never_give_more_than_the_limit(url: &str) {
    const RUNS: usize = 12;
    let mut story = Story::begin(url).await;
    for (limit, from) in [(1, 100), (2, 200)] {
        let file = DEPLOY.replace("deploys", &format!("group-{limit}, limit: {limit}"));
        let mut runs = BTreeSet::new();
        for number in 0..RUNS as u64 {
            runs.insert(run_of(&story, from + number, &file).await);
        }
        story.wait(1);
        let counter = || Arc::new(AtomicUsize::new(0));
        let (working, most, done) = (counter(), counter(), counter());
        let other = beside(&story, url).await;
        let mut tasks = vec![];
        for runner in 0..6 {
            let store = if runner % 2 == 0 {
                &story.store
            } else {
                &other
            };
            let (store, now) = (store.clone(), story.now);
            let (working, most, done) = (working.clone(), most.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                let mut had = vec![];
                for number in 0_u32.. {
                    if done.load(Ordering::SeqCst) == RUNS {
                        break;
                    }
                    let token = hash_secret(&format!("{limit} {runner} {number}"));
                    let name = format!("runner-{runner}");
                    let Some(claim) = store.claim_job(&name, token, now).await.unwrap() else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let beside = working.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(beside + 1, Ordering::SeqCst);
                    had.push(claim.run.id.clone());
                    let accepted = store.accept_attempt(&claim.attempt, now);
                    assert_eq!(accepted.await.unwrap(), Report::Recorded);
                    working.fetch_sub(1, Ordering::SeqCst);
                    let fence = u64::from(claim.number);
                    let told = store.end_attempt(&claim.attempt, fence, well(), now).await;
                    assert_eq!(told.unwrap(), Report::Recorded);
                    done.fetch_add(1, Ordering::SeqCst);
                }
                had
            }));
        }
        let mut all = BTreeSet::new();
        for task in tasks {
            let ended = tokio::time::timeout(PATIENCE, task).await;
            all.extend(ended.expect("some wait for ever").unwrap());
        }
        assert_eq!(all, runs);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= limit, "{most} were at work at once");
    }
}

async fn jobs_that_become_ready_at_once_get_one_place(url: &str) {
    let story = Story::begin(url).await;
    let other = beside(&story, url).await;
    let mut lints = vec![];
    for number in 1..=6 {
        run_of(&story, number, LINT_FIRST).await;
        lints.push(claimed(&story, &format!("lint {number}")).await.1);
    }
    let ends = lints.iter().enumerate().map(|(index, lint)| {
        let store = if index % 2 == 0 { &story.store } else { &other };
        end_as(store, &story, lint, well())
    });
    futures_util::future::join_all(ends).await;
    let claims = (0..6).map(|number| {
        let store = if number % 2 == 0 {
            &story.store
        } else {
            &other
        };
        let token = hash_secret(&format!("deploy {number}"));
        store.claim_job("harbour", token, story.now)
    });
    let claims = futures_util::future::join_all(claims).await;
    let given: Vec<_> = claims.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(given.len(), 1, "{given:?}");
}

async fn those_who_wait_are_in_nobodys_way(url: &str) {
    let story = Story::begin(url).await;
    // More than a claim looks at.
    for number in 1..=20 {
        run_of(&story, number, DEPLOY).await;
    }
    let (name, _) = claimed(&story, "1").await;
    assert_eq!(name, "shop.1 deploy");
    let file = DEPLOY.replace("deploys", "others");
    run_of(&story, 21, &file).await;
    run_of(
        &story,
        22,
        "version: 1\nname: shop\nsteps: { test: { image: a, run: b } }\n",
    )
    .await;
    let waiting = story.store.jobs_that_wait(None).await.unwrap();
    let waiting: Vec<_> = waiting.iter().map(|it| it.run.id.as_str()).collect();
    assert_eq!(
        waiting,
        ["shop.21", "shop.22"],
        "nobody is called for others"
    );
    assert_eq!(claimed(&story, "2").await.0, "shop.21 deploy");
    assert_eq!(claimed(&story, "3").await.0, "shop.22 default");
    assert_eq!(claim(&story, "4").await, None);
}

async fn a_cancel_frees_what_it_can(url: &str) {
    let story = Story::begin(url).await;
    let mut runs = vec![];
    for number in 1..=4 {
        runs.push(run_of(&story, number, DEPLOY).await);
    }
    // One that has its place and no runner yet.
    cancel(&story, &runs[0]).await;
    assert_eq!(position(&story, &runs[1]).await, Some(0));
    // One that waits.
    cancel(&story, &runs[2]).await;
    assert_eq!(position(&story, &runs[3]).await, Some(1));
    // One at work: its runner stops it first.
    let (name, holder) = claimed(&story, "1").await;
    assert_eq!(name, "shop.2 deploy");
    cancel(&story, &runs[1]).await;
    assert_eq!(position(&story, &runs[1]).await, Some(0));
    assert_eq!(claim(&story, "2").await, None);
    end_as(&story.store, &story, &holder, AttemptOutcome::Cancelled).await;
    assert_eq!(claimed(&story, "3").await.0, "shop.4 deploy");
}

async fn a_lost_runner_keeps_the_place_and_wedges_nothing(url: &str) {
    let mut story = Story::begin(url).await;
    let first = run_of(&story, 1, DEPLOY).await;
    let second = run_of(&story, 2, DEPLOY).await;
    for attempt in 1..=MOST_ATTEMPTS {
        let (name, claim) = claimed(&story, &format!("attempt {attempt}")).await;
        assert_eq!((name.as_str(), claim.number), ("shop.1 deploy", attempt));
        story.wait(i64::try_from(ACCEPT_SECONDS).unwrap() + 1);
        assert_eq!(story.store.expire_attempts(story.now).await.unwrap(), 1);
        let expected = if attempt < MOST_ATTEMPTS { 1 } else { 0 };
        assert_eq!(position(&story, &second).await, Some(expected));
    }
    let found = story.store.get_run(&first).await.unwrap();
    assert_eq!(found.run.state.word(), "failed");
    assert_eq!(claimed(&story, "the next").await.0, "shop.2 deploy");

    // One that was cancelled, and whose runner is never heard of again.
    let third = run_of(&story, 3, DEPLOY).await;
    cancel(&story, &second).await;
    assert_eq!(position(&story, &third).await, Some(1));
    story.wait(41);
    story.reconcile().await;
    assert_eq!(position(&story, &third).await, Some(0));
}

async fn a_rerun_queues_anew(url: &str) {
    let story = Story::begin(url).await;
    let mut runs = vec![];
    for number in 1..=3 {
        runs.push(run_of(&story, number, DEPLOY).await);
    }
    let (_, broken) = claimed(&story, "1").await;
    let failure = Failure::failed("step deploy: no");
    end_as(
        &story.store,
        &story,
        &broken,
        AttemptOutcome::Failed { failure },
    )
    .await;
    let wish = Wish {
        by: "ada".into(),
        ..Wish::default()
    };
    let kept = [Policy {
        days: None,
        newest: None,
    }; 2];
    let again = story.store.rerun(&runs[0], wish, kept, story.now).await;
    assert_eq!(again.unwrap().unwrap().len(), 1);
    for (run, expected) in runs.iter().zip([2, 0, 1]) {
        assert_eq!(position(&story, run).await, Some(expected), "{run}");
    }
    for expected in ["shop.2 deploy", "shop.3 deploy", "shop.1 deploy"] {
        let (name, claim) = claimed(&story, expected).await;
        assert_eq!(name, expected);
        succeed(&story, &claim).await;
    }
}

/// The run of a pull request from a fork, approved, as far as its jobs are ready.
async fn from_a_fork(story: &Story, number: u64) -> RunId {
    let mut delivery = story.delivery(&format!("pull request {number}"), number);
    delivery.decision = Decision::BuildPullRequest {
        git_ref: format!("refs/pull/{number}/head"),
        commit: commit(number),
        pull_request: PullRequest {
            number,
            base_ref: "refs/heads/main".into(),
            head_branch: "main".into(),
            trust: Trust::Untrusted { fork: None },
        },
        occasion: None,
    };
    let accepted = story.store.accept_delivery(delivery).await.unwrap();
    let Accepted::Run(run) = accepted else {
        panic!("{accepted:?}");
    };
    let read = read_of(spec::parse("f", DEPLOY).unwrap());
    let facts = [
        RunFact::SourcesRead(Box::new(read)),
        RunFact::Approved {
            by: "ada".into(),
            commit: commit(number),
        },
    ];
    let changes = facts.map(|fact| Change::Run {
        run: run.clone(),
        fact,
    });
    let decide = |_: &_| Ok(changes.to_vec());
    let recorded = story.store.record(&story.shop, "ada", story.now, decide);
    recorded.await.unwrap();
    story.reconcile().await;
    run
}

async fn a_strangers_jobs_hold_up_no_others(url: &str) {
    let story = Story::begin(url).await;
    let stranger = from_a_fork(&story, 7).await;
    let (name, _) = claimed(&story, "1").await;
    assert_eq!(name, format!("{stranger} deploy"));
    let another = from_a_fork(&story, 8).await;
    assert_eq!(position(&story, &another).await, Some(1));
    let own = run_of(&story, 9, DEPLOY).await;
    assert_eq!(position(&story, &own).await, Some(0));
    assert_eq!(claimed(&story, "2").await.0, format!("{own} deploy"));
    assert_eq!(claim(&story, "3").await, None, "forks wait for each other");
}

async fn the_lowest_limit_of_those_at_work_holds(url: &str) {
    let story = Story::begin(url).await;
    let wide = DEPLOY.replace("group: deploys", "group: deploys, limit: 3");
    for number in 1..=2 {
        run_of(&story, number, &wide).await;
    }
    let alone = run_of(&story, 3, DEPLOY).await;
    let behind = run_of(&story, 4, &wide).await;
    let (_, first) = claimed(&story, "1").await;
    let (_, second) = claimed(&story, "2").await;
    assert_eq!(claim(&story, "3").await, None);
    succeed(&story, &second).await;
    assert_eq!(position(&story, &alone).await, Some(1), "the first works");
    succeed(&story, &first).await;
    let (name, third) = claimed(&story, "4").await;
    assert_eq!(name, format!("{alone} deploy"));
    assert_eq!(position(&story, &behind).await, Some(1));
    succeed(&story, &third).await;
    assert_eq!(position(&story, &behind).await, Some(0));
}
