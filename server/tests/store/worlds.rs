//! Plans and commits on rows: what was decided on a stale read is never stored, and what was
//! committed survives.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, place};
use jiff::SignedDuration;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::deployment::{DeploymentState, Kind, Trigger};
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::{Change, DeploymentFact, RunFact};
use roadstead_pipelines::id::DeploymentId;
use roadstead_pipelines::planner::{self, MOST_FETCHING};
use roadstead_pipelines::run::RunState;
use roadstead_pipelines::spec::Role;
use roadstead_pipelines::world::World;
use roadstead_server::reconciler::Reconciler;
use roadstead_server::store::{Committed, DeploymentFilter, EffectState, Store, StoreError};
use roadstead_server::wake::Bell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

on_both_databases!(
    everything_survives_reopening,
    a_stale_plan_stores_nothing,
    a_project_that_never_stands_still_is_planned_all_the_same,
    a_plan_needs_only_the_runs_that_can_move,
    two_hundred_swaps_are_all_stored,
    concurrent_decisions_are_all_stored,
    a_refusal_stores_nothing,
    a_change_that_does_not_fit_stores_nothing,
    finishing_an_effect_twice_counts_once,
    an_effect_is_leased_once_and_retried,
    looking_again_moves_the_lane_only_when_it_says_something_new,
);

fn ada() -> Actor {
    Actor {
        name: "Ada".into(),
        role: Role::Deployer,
    }
}

async fn everything_survives_reopening(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    let (project, now) = (story.shop.clone(), story.now);
    let production = place("production");
    let held = production.clone();
    story
        .store
        .record(&project, "Ada", now, |world| {
            action::hold(world, &held, &ada(), "lunch", now)
        })
        .await
        .unwrap();
    story
        .store
        .record(&project, "Ada", now, |world| {
            action::approve(world, &held, &release, &ada(), now)
        })
        .await
        .unwrap();
    let before = story.store.load_world(&project).await.unwrap();
    let run = roadstead_pipelines::id::RunId::new(&project, 1);
    let run_before = story.store.get_run(&run).await.unwrap();
    let events_before = story
        .store
        .list_events(None, None, None, 1_000)
        .await
        .unwrap();
    drop(story);

    let store = Store::open(url).await.unwrap();
    let after = store.load_world(&project).await.unwrap();
    assert_eq!(after, before);
    assert!(after.place(&place("staging")).has_verified(&release));
    assert_eq!(after.place(&production).hold.unwrap().reason, "lunch");
    assert_eq!(after.place(&production).approvals[0].by, "Ada");
    assert_eq!(after.pipeline, Some(crate::story::pipeline()));
    assert_eq!(store.get_run(&run).await.unwrap(), run_before);
    assert_eq!(
        run_before.run.task_definitions,
        crate::story::task_definitions()
    );
    let made = store.get_release(&release).await.unwrap();
    assert_eq!(made.task_definitions, crate::story::task_definitions());
    assert!(matches!(
        &run_before.run.state,
        RunState::Succeeded { release: Some(made), .. } if *made == release
    ));
    let steps: Vec<_> = run_before
        .steps
        .iter()
        .map(|step| step.name.as_str())
        .collect();
    assert_eq!(
        steps,
        ["test", "image"],
        "a step comes after those it needs"
    );
    assert_eq!(
        store.list_events(None, None, None, 1_000).await.unwrap(),
        events_before
    );
    assert_eq!(store.overview().await.unwrap()[0].world, after);

    let filter = DeploymentFilter::of_place(&place("staging"));
    let deployments = store
        .list_deployments(&project, filter, None, 10)
        .await
        .unwrap();
    assert_eq!(deployments.len(), 1);
    assert_eq!(deployments[0].state.word(), "deployed");
    let detail = store.get_deployment(&deployments[0].id).await.unwrap();
    assert_eq!(detail.release, store.get_release(&release).await.unwrap());
    assert!(
        detail
            .effects
            .iter()
            .all(|effect| effect.state == EffectState::Done)
    );
    let history = store
        .list_events(Some(&project), Some(deployments[0].id.as_str()), None, 100)
        .await
        .unwrap();
    let words: Vec<_> = history
        .iter()
        .rev()
        .map(|event| event.what.as_str())
        .collect();
    let expected = [
        "opened",
        "started",
        "task_definition_registered",
        "service_updated",
        "rollout_done",
        "verified",
    ];
    assert_eq!(words, expected);
}

/// The promise behind the gates: staging's health changes between plan and commit.
async fn a_project_that_never_stands_still_is_planned_all_the_same(url: &str) {
    let story = Story::begin(url).await;
    let push = story.delivery("push", 1);
    story.store.accept_delivery(push.clone()).await.unwrap();
    // The same call again and again: nothing comes of it, but the lane moves on.
    let told = Arc::new(AtomicU64::new(0));
    let again = (0..4).map(|_| {
        let (store, push, told) = (story.store.clone(), push.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            while told.fetch_add(1, Ordering::Relaxed) < u64::MAX / 2 {
                store.accept_delivery(push.clone()).await.unwrap();
            }
        })
    });
    let again: Vec<_> = again.collect();
    while told.load(Ordering::Relaxed) < 100 {
        tokio::task::yield_now().await;
    }
    let reconciler = Reconciler {
        store: story.store.clone(),
        bell: Bell::default(),
        effects_bell: Bell::default(),
    };
    let settled = reconciler.reconcile(&story.shop, story.now).await;
    assert_eq!(story.act().await, 1, "its sources are read: {settled:?}");
    told.store(u64::MAX / 2, Ordering::Relaxed);
    for one in again {
        one.await.unwrap();
    }
}

async fn a_plan_needs_only_the_runs_that_can_move(url: &str) {
    let mut story = Story::begin(url).await;
    let building = story.push().await;
    let claim = story
        .store
        .claim_job("harbour", "a token".into(), story.now);
    assert_eq!(claim.await.unwrap().unwrap().run.id, building);
    let queued = story.push().await;
    let flood = MOST_FETCHING as u64 + 20;
    for number in 100..100 + flood {
        let delivery = story.delivery(&format!("flood-{number}"), number);
        story.store.accept_delivery(delivery).await.unwrap();
    }
    let whole = story.store.load_world(&story.shop).await.unwrap();
    let movable = story.store.load_movable_world(&story.shop).await.unwrap();
    assert_eq!(whole.runs.len(), flood as usize + 2);
    assert_eq!(movable.runs.len(), MOST_FETCHING);
    assert!(!movable.runs.contains_key(&building) && !movable.runs.contains_key(&queued));
    let (of_whole, of_movable) = (
        planner::plan(&whole, story.now),
        planner::plan(&movable, story.now),
    );
    assert_eq!(of_movable.changes, of_whole.changes);
    assert_eq!(of_movable.effects, of_whole.effects);
    assert_eq!(of_movable.effects.len(), MOST_FETCHING);
    // The rest is the same.
    let rest = World {
        runs: whole.runs,
        ..movable
    };
    assert_eq!(rest, story.store.load_world(&story.shop).await.unwrap());
}

async fn a_stale_plan_stores_nothing(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    // Production's deployment is open and waits for staging's two healthy minutes.
    for _ in 0..30 {
        story.wait(5);
        story.see("staging", &release, 2).await;
    }
    let world = story.store.load_world(&story.shop).await.unwrap();
    let plan = planner::plan(&world, story.now);
    let waiting = world
        .live_in(&place("production"))
        .next()
        .unwrap()
        .id
        .clone();
    let starts = |change: &Change| {
        matches!(change, Change::Deployment { deployment, fact: DeploymentFact::Started { .. } }
            if *deployment == waiting)
    };
    assert!(
        plan.changes.iter().any(starts),
        "the gate is open: {plan:?}"
    );

    story.see("staging", &release, 0).await;
    let committed = story
        .store
        .commit(
            &story.shop,
            world.generations,
            plan.changes,
            plan.effects,
            "Roadstead",
            story.now,
        )
        .await
        .unwrap();
    assert_eq!(committed, Committed::Stale);
    let after = story.store.load_world(&story.shop).await.unwrap();
    assert_eq!(after.deployments[&waiting].state, DeploymentState::Queued);
    let register = Effect::RegisterTaskDefinition {
        deployment: waiting.clone(),
    };
    let missing = story
        .store
        .effects_not_stored(vec![register.clone()])
        .await
        .unwrap();
    assert_eq!(missing, [register]);

    // The plan on what is true now leaves production closed.
    story.reconcile().await;
    let after = story.store.load_world(&story.shop).await.unwrap();
    assert_eq!(after.deployments[&waiting].state, DeploymentState::Queued);
}

fn opening(world: &roadstead_pipelines::world::World, by: &str) -> Change {
    let release = world.newest_release().unwrap().id.clone();
    Change::OpenDeployment {
        deployment: DeploymentId::new(&world.project, world.next_deployment),
        place: place("staging"),
        release,
        kind: Kind::Forward,
        trigger: Trigger::Manual {
            by: by.into(),
            reason: String::new(),
        },
    }
}

/// Four tasks add fifty deployments each by load, decide and swap. A lost update would use a number
/// twice; a swallowed one would leave a gap.
async fn two_hundred_swaps_are_all_stored(url: &str) {
    let mut story = Story::begin(url).await;
    story.verified_in_staging().await;
    let first = story
        .store
        .load_world(&story.shop)
        .await
        .unwrap()
        .next_deployment;
    let mut tasks = vec![];
    for worker in 0..4 {
        let (store, shop, now) = (story.store.clone(), story.shop.clone(), story.now);
        tasks.push(tokio::spawn(async move {
            let mut stored = 0;
            while stored < 50 {
                let world = store.load_world(&shop).await.unwrap();
                let change = opening(&world, &format!("worker {worker}"));
                let committed = store
                    .commit(&shop, world.generations, vec![change], vec![], "test", now)
                    .await
                    .unwrap();
                if committed == Committed::Done {
                    stored += 1;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let world = story.store.load_world(&story.shop).await.unwrap();
    assert_eq!(world.next_deployment, first + 200);
    let numbers: BTreeSet<u64> = world
        .deployments
        .keys()
        .map(DeploymentId::number)
        .filter(|number| *number >= first)
        .collect();
    assert_eq!(numbers, (first..first + 200).collect());
}

async fn concurrent_decisions_are_all_stored(url: &str) {
    let mut story = Story::begin(url).await;
    story.verified_in_staging().await;
    let first = story
        .store
        .load_world(&story.shop)
        .await
        .unwrap()
        .next_deployment;
    let mut tasks = vec![];
    for _ in 0..8 {
        let (store, shop, now) = (story.store.clone(), story.shop.clone(), story.now);
        tasks.push(tokio::spawn(async move {
            let recorded = store.record(&shop, "Ada", now, |world| Ok(vec![opening(world, "Ada")]));
            recorded.await.unwrap().deployment().unwrap().clone()
        }));
    }
    let mut opened = BTreeSet::new();
    for task in tasks {
        opened.insert(task.await.unwrap().number());
    }
    assert_eq!(opened, (first..first + 8).collect());
}

async fn a_refusal_stores_nothing(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    let before = story.store.load_world(&story.shop).await.unwrap();
    let now = story.now;
    let refused = story
        .store
        .record(&story.shop, "Ada", now, |world| {
            action::rollback(world, &place("production"), &release, &ada(), "", now)
        })
        .await
        .unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(_)), "{refused:?}");
    assert!(
        refused
            .to_string()
            .contains("was never verified in production/web"),
        "{refused}"
    );
    assert_eq!(story.store.load_world(&story.shop).await.unwrap(), before);
}

async fn a_change_that_does_not_fit_stores_nothing(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let before = story.store.load_world(&story.shop).await.unwrap();
    // The second change does not fit: the first one, which does, goes with it.
    let changes = vec![
        Change::Run {
            run: run.clone(),
            fact: RunFact::CancelRequested { by: "Ada".into() },
        },
        Change::Run {
            run,
            fact: RunFact::ImagesConfirmed {
                descendants: BTreeSet::new(),
            },
        },
    ];
    let refused = story
        .store
        .commit(
            &story.shop,
            before.generations.clone(),
            changes,
            vec![],
            "test",
            story.now,
        )
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Illegal(_)), "{refused:?}");
    assert_eq!(story.store.load_world(&story.shop).await.unwrap(), before);
}

async fn finishing_an_effect_twice_counts_once(url: &str) {
    let story = Story::begin(url).await;
    story
        .store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    story.reconcile().await;
    let until = story.now + SignedDuration::from_secs(60);
    let leased = story
        .store
        .lease_effects(10, story.now, until)
        .await
        .unwrap();
    let Effect::ReadSources { run } = leased[0].effect.clone() else {
        panic!("a new run reads its sources first: {leased:?}");
    };
    let failed = Change::Run {
        run: run.clone(),
        fact: RunFact::Refused {
            failure: roadstead_pipelines::report::Failure::failed("no pipeline file"),
        },
    };
    let finish = || {
        story
            .store
            .finish_effect(&leased[0].key, vec![failed.clone()], story.now)
    };
    finish().await.unwrap();
    let once = story.store.get_run(&run).await.unwrap();
    assert_eq!(once.run.state.word(), "failed");
    let events = story
        .store
        .list_events(None, None, None, 100)
        .await
        .unwrap();
    finish().await.unwrap();
    assert_eq!(story.store.get_run(&run).await.unwrap(), once);
    assert_eq!(
        story
            .store
            .list_events(None, None, None, 100)
            .await
            .unwrap(),
        events
    );

    // A fact that comes too late ends its effect and is told, not applied.
    let cancelled = story
        .store
        .accept_delivery(story.delivery("two", 2))
        .await
        .unwrap();
    story.reconcile().await;
    let leased = story
        .store
        .lease_effects(10, story.now, until)
        .await
        .unwrap();
    let roadstead_server::store::Accepted::Run(second) = cancelled else {
        panic!("another push makes another run");
    };
    story
        .store
        .record(&story.shop, "Ada", story.now, |world| {
            action::cancel_run(world, &second, &ada())
        })
        .await
        .unwrap();
    let late = Change::Run {
        run: second.clone(),
        fact: RunFact::Refused {
            failure: roadstead_pipelines::report::Failure::failed("no pipeline file"),
        },
    };
    story
        .store
        .finish_effect(&leased[0].key, vec![late], story.now)
        .await
        .unwrap();
    let found = story.store.get_run(&second).await.unwrap();
    assert_eq!(found.run.state.word(), "cancelled");
    assert_eq!(found.effects[0].state, EffectState::Done);
    let newest = &story.store.list_events(None, None, None, 1).await.unwrap()[0];
    assert_eq!(
        (newest.what.as_str(), newest.subject.as_str()),
        ("report_dropped", second.as_str())
    );
}

async fn an_effect_is_leased_once_and_retried(url: &str) {
    let mut story = Story::begin(url).await;
    story
        .store
        .accept_delivery(story.delivery("one", 1))
        .await
        .unwrap();
    story.reconcile().await;
    story.reconcile().await;
    let until = story.now + SignedDuration::from_secs(60);
    let leased = story
        .store
        .lease_effects(10, story.now, until)
        .await
        .unwrap();
    assert_eq!(leased.len(), 1, "planned twice, stored once");
    assert_eq!(leased[0].attempts, 1);
    assert!(
        story
            .store
            .lease_effects(10, story.now, until)
            .await
            .unwrap()
            .is_empty()
    );

    let later = story.now + SignedDuration::from_secs(30);
    story
        .store
        .retry_effect(&leased[0].key, later, "the forge says 503")
        .await
        .unwrap();
    assert!(
        story
            .store
            .lease_effects(10, story.now, until)
            .await
            .unwrap()
            .is_empty()
    );
    story.wait(30);
    let again = story
        .store
        .lease_effects(10, story.now, later)
        .await
        .unwrap();
    assert_eq!(again[0].attempts, 2);
    assert_eq!(again[0].last_error.as_deref(), Some("the forge says 503"));

    // Its executor dies: once the lease has run out somebody else takes it.
    story.wait(1);
    let until = story.now + SignedDuration::from_secs(60);
    let taken = story
        .store
        .lease_effects(10, story.now, until)
        .await
        .unwrap();
    assert_eq!(taken[0].attempts, 3);
    story
        .store
        .fail_effect(&taken[0].key, vec![], "given up", story.now)
        .await
        .unwrap();
    story.wait(3_600);
    assert!(
        story
            .store
            .lease_effects(10, story.now, story.now)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn looking_again_moves_the_lane_only_when_it_says_something_new(url: &str) {
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    story.see("staging", &release, 2).await;
    let generation = |story: &Story| {
        let (store, shop) = (story.store.clone(), story.shop.clone());
        async move { store.load_world(&shop).await.unwrap().generations[&shop] }
    };
    let before = generation(&story).await;
    story.wait(5);
    story.see("staging", &release, 2).await;
    assert_eq!(generation(&story).await, before);
    let world = story.store.load_world(&story.shop).await.unwrap();
    let status = world.place(&place("staging")).status.unwrap();
    assert_eq!(
        status.observed_at, story.now,
        "the time of the look is stored all the same"
    );
    story.see("staging", &release, 1).await;
    assert_eq!(generation(&story).await, before + 1);
}
