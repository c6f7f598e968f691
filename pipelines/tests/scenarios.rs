//! Stories, told to the planner and written down: the transcripts are reviewed like code.

mod support;

use insta::assert_snapshot;
use jiff::SignedDuration;
use roadstead_pipelines::deployment::DeploymentState;
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::id::{ReleaseId, RunId};
use roadstead_pipelines::planner::{MOST_FETCHING, Plan, plan};
use roadstead_pipelines::report::{Subject, WaitingOn};
use roadstead_pipelines::run::RunState;
use roadstead_pipelines::spec::Pipeline;
use std::collections::{BTreeMap, BTreeSet};
use support::{AUTO, Stage, pipeline};

fn stage() -> Stage {
    Stage::new(pipeline(AUTO))
}

/// Ships a release through staging and production.
fn ship_everywhere(stage: &mut Stage) {
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.ecs_completes("production/web");
    stage.wait(10);
}

#[test]
fn a_push_reaches_production_after_staging_proved_healthy() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
}

#[test]
fn a_release_that_ecs_takes_back_in_staging_never_reaches_production() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.transcript.clear();
    stage.ship();
    stage.wait(5);
    stage.ecs_breaker("staging/web");
    stage.wait(200);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r1");
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
}

#[test]
fn crashing_tasks_end_a_rollout_before_the_breaker_does() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.transcript.clear();
    stage.ship();
    stage.tasks_crash("staging/web", 2);
    stage.wait(10);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r1");
}

#[test]
fn health_that_comes_and_goes_is_taken_back_in_the_end() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.ship();
    stage.ecs_completes("staging/web");
    for _ in 0..100 {
        stage.probes("staging/web", false);
        stage.wait(4);
        stage.probes("staging/web", true);
        stage.wait(4);
    }
    stage.ecs_completes("staging/web");
    stage.wait(20);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r1");
    let failed = stage.states().into_iter().nth(2).unwrap();
    let expected = ("shop.d3 staging/web shop.r2".to_owned(), "rolled_back");
    assert_eq!(failed, expected);
}

#[test]
fn one_bad_look_before_a_long_outage_takes_nothing_back() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.probes("staging/web", false);
    stage.wait(2);
    // Nobody looks for longer than a verification may take.
    stage.now += SignedDuration::from_hours(2);
    stage.settle();
    let state = |stage: &Stage| stage.states()[2].1;
    assert_eq!(state(&stage), "verifying", "{}", stage.transcript);
    stage.probes("staging/web", true);
    stage.wait(30);
    assert_eq!(state(&stage), "deployed", "{}", stage.transcript);
}

#[test]
fn a_release_that_fails_in_production_is_rolled_back_and_held() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.transcript.clear();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.ecs_completes("production/web");
    stage.probes("production/web", false);
    stage.wait(15);
    stage.probes("production/web", true);
    stage.ecs_completes("production/web");
    stage.wait(200);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
    // The next one waits for somebody, although staging is fine.
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(100);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
    stage.resume("production/web").unwrap();
    stage.ecs_completes("production/web");
    stage.wait(20);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r3");
}

#[test]
fn a_first_deployment_that_fails_has_nothing_to_go_back_to_and_says_so() {
    let mut stage = stage();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.probes("staging/web", false);
    stage.wait(30);
    assert_snapshot!(stage.transcript);
}

#[test]
fn a_failed_rollback_stops_and_calls_for_people() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.ship();
    stage.transcript.clear();
    stage.ecs_completes("staging/web");
    stage.probes("staging/web", false);
    stage.wait(15);
    stage.ecs_completes("staging/web");
    stage.wait(60);
    assert_snapshot!(stage.transcript);
    let states: Vec<_> = stage.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(
        states,
        ["deployed", "deployed", "rollback_failed", "failed"]
    );
}

#[test]
fn the_soak_starts_anew_when_staging_breaks() {
    let mut stage = stage();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(40);
    stage.transcript.clear();
    stage.probes("staging/web", false);
    stage.wait(3);
    stage.probes("staging/web", true);
    stage.wait(50);
    assert_eq!(
        stage.updates.len(),
        1,
        "production is not open yet:\n{}",
        stage.transcript
    );
    stage.wait(20);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.updates.len(), 2);
}

#[test]
fn a_newer_release_supersedes_one_that_waits() {
    let mut stage = stage();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(20);
    stage.transcript.clear();
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(80);
    assert_snapshot!(stage.transcript);
}

#[test]
fn a_person_rolls_back_and_automation_does_not_undo_it() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    ship_everywhere(&mut stage);
    stage.transcript.clear();
    let first = support_release(1);
    stage.rollback("production/web", &first).unwrap();
    stage.ecs_completes("production/web");
    stage.wait(300);
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.running("production/web"), Some(&first));
    let never = stage
        .rollback("production/web", &support_release(9))
        .unwrap_err();
    assert_snapshot!(never.to_string(), @"shop.r9 was never verified in production/web; verified there: shop.r1, shop.r2, shop.r1");
}

#[test]
fn a_rollback_takes_over_from_a_rollout() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.ship();
    stage.wait(2);
    stage.transcript.clear();
    stage.rollback("staging/web", &support_release(1)).unwrap();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_snapshot!(stage.transcript);
}

#[test]
fn production_waits_for_approval_by_somebody_else() {
    let gates = r#"[{"healthy": {"environment": "staging", "soak": 10, "min_running": 1}},
        {"approval": {"from": ["deployer"], "count": 1, "not_author": true}}]"#;
    let healthy = r#"[{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let production = AUTO
        .replace(healthy, gates)
        .replace(r#""deploy": "auto""#, r#""deploy": "manual""#);
    let mut stage = Stage::new(pipeline(&production));
    let release = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(20);
    stage.promote("production/web", &release).unwrap();
    stage.approve("production/web", &release, "maya");
    // Without an address, a second name of the author looks like a stranger.
    stage.approve("production/web", &release, "captain");
    stage.approve("production/web", &release, "ole");
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.updates.len(), 2);
}

#[test]
fn production_takes_what_staging_proved_from_people_too_and_without_a_gate() {
    let gates =
        r#""gates": [{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let mut stage = Stage::new(pipeline(&AUTO.replace(gates, r#""gates": []"#)));
    let release = stage.ship();
    stage.promote("production/web", &release).unwrap();
    stage.wait(5);
    assert_eq!(stage.updates.len(), 1, "{}", stage.transcript);
    let waits = stage
        .transcript
        .contains("shop.r1 to be verified in staging/web");
    assert!(waits, "{}", stage.transcript);
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.updates.len(), 2, "{}", stage.transcript);
}

#[test]
fn everybody_since_what_production_runs_counts_as_author() {
    let gates = r#"[{"approval": {"from": ["deployer"], "count": 1, "not_author": true}}]"#;
    let healthy = r#"[{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let mut stage = Stage::new(pipeline(&AUTO.replace(healthy, gates)));
    let first = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    stage.approve("production/web", &first, "ole");
    stage.ecs_completes("production/web");
    stage.wait(10);
    // Maya's change stops in staging; Ole's goes on top of it.
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    stage.author = "ole@example.com".into();
    let third = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    stage.transcript.clear();
    stage.approve("production/web", &third, "maya");
    stage.approve("production/web", &third, "ole");
    assert_eq!(stage.updates.len(), 4, "{}", stage.transcript);
    let ada = BTreeSet::from(["ada@example.com".to_owned()]);
    stage.world.addresses.insert("ada".into(), ada);
    stage.approve("production/web", &third, "ada");
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.updates.len(), 5);
}

#[test]
fn where_the_authors_are_not_known_nobody_approves() {
    let gates = r#"[{"approval": {"from": ["deployer"], "count": 1, "not_author": true}}]"#;
    let healthy = r#"[{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let mut stage = Stage::new(pipeline(&AUTO.replace(healthy, gates)));
    // A commit without an address.
    stage.author = String::new();
    let release = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    stage.transcript.clear();
    stage.approve("production/web", &release, "ole");
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.updates.len(), 1);
}

#[test]
fn two_approvals_are_two_people() {
    let gates = r#"[{"healthy": {"environment": "staging", "soak": 10, "min_running": 1}},
        {"approval": {"from": ["deployer"], "count": 2, "not_author": false}}]"#;
    let healthy = r#"[{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let mut stage = Stage::new(pipeline(&AUTO.replace(healthy, gates)));
    let release = stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(20);
    stage.transcript.clear();
    // The author may be one of them, unless the gate says otherwise.
    stage.approve("production/web", &release, "maya");
    stage.approve("production/web", &release, "maya");
    stage.approve("production/web", &release, "Maya");
    assert_eq!(stage.updates.len(), 1, "{}", stage.transcript);
    stage.approve("production/web", &release, "ole");
    assert_snapshot!(stage.transcript);
    assert_eq!(stage.updates.len(), 2);
}

#[test]
fn what_ecs_takes_back_too_far_is_brought_to_the_last_verified_release_without_a_hold() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    ship_everywhere(&mut stage);
    stage.ship();
    stage.wait(5);
    stage.transcript.clear();
    // ECS has its own idea of what to return to: not what was verified last, but what ran before it.
    stage.ecs_breaker_to("staging/web", "td-1");
    stage.wait(1);
    // Its tasks end a moment after the breaker gave up on them.
    stage.tasks_crash("staging/web", 1);
    stage.wait(20);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r2");
    stage.ecs_completes("staging/web");
    stage.wait(20);
    assert_snapshot!(stage.transcript);
    let states: Vec<_> = stage.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states[4..], ["rolled_back", "deployed"]);
    let failed = stage
        .world
        .deployments
        .values()
        .find(|d| d.id.number() == 5);
    let DeploymentState::RolledBack { failure, .. } = &failed.unwrap().state else {
        panic!("{failed:?}");
    };
    assert_eq!(
        failure.details,
        [
            "task 0: Essential container in task exited (app exited 1)",
            "  | cannot connect to the database"
        ]
    );
    // Without a hold, the next one comes by itself.
    assert_eq!(stage.world.place(&Stage::place("staging/web")).hold, None);
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r4");
}

#[test]
fn a_flood_of_pushes_is_read_oldest_first_and_so_many_at_once() {
    let mut stage = stage();
    let pushed: Vec<_> = (0..MOST_FETCHING + 2).map(|_| stage.push()).collect();
    let read_of = |plan: &Plan| -> Vec<RunId> {
        let read = |effect: &Effect| match effect {
            Effect::ReadSources { run } => Some(run.clone()),
            _ => None,
        };
        plan.effects.iter().filter_map(read).collect()
    };
    let first = plan(&stage.world, stage.now);
    assert_eq!(read_of(&first), pushed[..MOST_FETCHING]);
    assert_eq!(
        first.waiting_on.len(),
        pushed.len(),
        "each says what it waits for"
    );
    assert_eq!(
        first.waiting_on.last().unwrap().reason,
        "its turn: the sources of 100 older runs are read before"
    );
    // One that is read makes room for one.
    stage.perform(&first.effects[0]);
    assert_eq!(
        read_of(&plan(&stage.world, stage.now)),
        pushed[1..=MOST_FETCHING]
    );
}

#[test]
fn a_release_of_an_earlier_commit_that_was_made_later_goes_nowhere_by_itself() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    // Two pushes, and the first one builds longer.
    let (slow, quick) = (stage.push(), stage.push());
    stage.build(&quick);
    stage.build(&slow);
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.ecs_completes("production/web");
    stage.wait(70);
    let of_quick = stage.running("production/web").unwrap().clone();
    assert_eq!(stage.world.releases[&of_quick].run, Some(quick));
    assert_eq!(stage.running("staging/web"), Some(&of_quick));
    assert_eq!(stage.updates.len(), 4, "{}", stage.transcript);
    // What comes after both goes on.
    ship_everywhere(&mut stage);
    assert_eq!(stage.updates.len(), 6, "{}", stage.transcript);
    // People may go where automation does not.
    let early = stage
        .world
        .releases
        .values()
        .find(|r| r.run.as_ref() == Some(&slow));
    let early = early.unwrap().id.clone();
    stage.promote("staging/web", &early).unwrap();
    stage.wait(5);
    assert_eq!(stage.updates.len(), 7, "{}", stage.transcript);
}

#[test]
fn the_file_of_an_earlier_commit_that_was_released_later_does_not_hold() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    let slow = stage.push();
    stage.settle();
    // The commit after it wants somebody to say yes.
    let gates =
        r#""gates": [{"approval": {"from": ["deployer"], "count": 1, "not_author": false}}]"#;
    let own = r#""gates": [{"healthy": {"environment": "staging", "soak": 60, "min_running": 2}}]"#;
    let asks = pipeline(&AUTO.replace(own, gates));
    assert_ne!(asks, stage.pipeline);
    stage.pipeline = asks.clone();
    let quick = stage.push();
    stage.settle();
    stage.build(&quick);
    stage.build(&slow);
    assert_eq!(stage.world.pipeline, Some(asks.clone()));
    stage.ecs_completes("staging/web");
    stage.wait(90);
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");

    // Also when one look finds both confirmed, and the earlier commit was told last.
    let mut stage = stage_of_two_confirmed(&asks);
    stage.settle();
    assert_eq!(stage.world.pipeline, Some(asks));
}

/// Two runs that are confirmed at once: the second one is of an earlier commit, whose file is `AUTO`.
fn stage_of_two_confirmed(newer_file: &Pipeline) -> Stage {
    let mut stage = Stage::new(newer_file.clone());
    let (newer, earlier) = (stage.push(), stage.push());
    let after = stage.world.runs[&newer].commit.clone();
    for (id, file, descendants) in [
        (newer, newer_file.clone(), BTreeSet::new()),
        (earlier, pipeline(AUTO), BTreeSet::from([after])),
    ] {
        let run = stage.world.runs.get_mut(&id);
        let run = run.expect("a push makes a run");
        run.pipeline = Some(file);
        run.state = RunState::Confirmed {
            images: BTreeMap::new(),
            descendants,
        };
    }
    stage
}

#[test]
fn a_release_that_is_passed_over_says_so_unless_the_later_one_is_there() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    let (slow, quick) = (stage.push(), stage.push());
    stage.build(&quick);
    stage.build(&slow);
    assert_eq!(waiting(&stage), [""; 0], "the later one is on its way");
    stage.ecs_breaker("staging/web");
    stage.wait(20);
    assert_eq!(
        waiting(&stage),
        [
            "somebody to promote it to staging/web: shop.r2 is of a commit that comes after its own, and \
          automation does not go back"
        ]
    );
    let passed_over = ReleaseId::new(&stage.world.project, 3);
    stage.promote("staging/web", &passed_over).unwrap();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.running("staging/web"), Some(&passed_over));
    assert_eq!(waiting(&stage), [""; 0]);
}

#[test]
fn nobody_is_asked_to_go_back_from_a_later_commit_than_the_one_that_failed() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    let (slow, bad) = (stage.push(), stage.push());
    stage.build(&bad);
    stage.ecs_breaker("staging/web");
    stage.wait(20);
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(10);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r3");
    stage.build(&slow);
    assert_eq!(waiting(&stage), [""; 0]);
    assert_eq!(stage.running("staging/web").unwrap().as_str(), "shop.r3");
}

/// For what candidates wait.
fn waiting(stage: &Stage) -> Vec<String> {
    let plan = plan(&stage.world, stage.now);
    let of_it = |it: &WaitingOn| matches!(&it.subject, Subject::Candidate { .. });
    let waiting = plan.waiting_on.into_iter().filter(of_it);
    waiting.map(|it| it.reason).collect()
}

#[test]
fn what_somebody_else_does_to_the_service_is_told_as_that() {
    let mut stage = stage();
    ship_everywhere(&mut stage);
    stage.ship();
    stage.transcript.clear();
    let service = stage.ecs.get_mut(&Stage::place("staging/web")).unwrap();
    let mut foreign = service.deployments[0].clone();
    foreign.id = "ecs-svc/999".into();
    foreign.task_definition = "by-hand:1".into();
    service.deployments[0].status = "ACTIVE".into();
    service.deployments.insert(0, foreign);
    stage.wait(5);
    assert_snapshot!(stage.transcript);
}

#[expect(clippy::unwrap_used, reason = "a fixed text")]
fn support_release(number: u64) -> roadstead_pipelines::id::ReleaseId {
    roadstead_pipelines::id::ReleaseId::parse(&format!("shop.r{number}")).unwrap()
}

/// The examples that people start from, as far as every one of them goes by itself.
#[test]
fn every_example_reaches_its_first_environment() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let pipeline = roadstead_pipelines::spec::parse("example.yml", &text).unwrap();
        let (first, _) = pipeline.environments.first().unwrap();
        let services = pipeline
            .services
            .keys()
            .map(|service| format!("{first}/{service}"));
        let places: Vec<String> = services.collect();
        let mut stage = Stage::new(pipeline);
        let release = stage.ship();
        for place in &places {
            let (_, service) = place.split_once('/').unwrap();
            let service = &stage.pipeline.services[service];
            if service.before_deploy.is_some() {
                stage.before_deploy_ends(place, 0);
            }
            stage.ecs_completes(place);
        }
        stage.wait(130);
        let ended: Vec<_> = stage
            .states()
            .into_iter()
            .filter(|(_, state)| *state == "deployed")
            .collect();
        assert_eq!(
            ended.len(),
            places.len(),
            "{}:\n{}",
            path.display(),
            stage.transcript
        );
        for place in &places {
            assert_eq!(stage.running(place), Some(&release), "{place}");
        }
        count += 1;
    }
    assert!(count >= 5, "the examples are gone");
}
